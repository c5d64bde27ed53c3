/* Beginning and end of every subcommand that asks a model. */
#include "front.h"

#include <errno.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { MAX_EXIT_CODE = 255 };

static const struct opt_command *find_command(const char *name)
{
	const struct opt_command *c = ocai_program.commands;

	while (strcmp(c->name, name) != 0) /* ours: it is there */
		c++;
	return c;
}

static void done(struct front *f)
{
	opt_list_done(&f->s.files);
	opt_list_done(&f->s.tool_folders);
	base_config_free(f->config);
	base_buf_done(&f->question);
	base_buf_done(&f->input);
	ag_term_close(f->term);
}

int front_usage(const struct front *f, const char *words)
{
	struct err err = { 0 };

	(void)err_set(&err, -EINVAL, "%s", words);
	return opt_usage_error(&ocai_program, f->command, &err);
}

int front_begin(struct front *f, const char *name, int argc, char **argv, int *ret_code)
{
	struct err err = { 0 };
	int r;

	memset(f, 0, sizeof(*f));
	f->command = find_command(name);
	base_buf_init(&f->question, AG_MAX_QUESTION);
	base_buf_init(&f->input, 4 * AG_MAX_INPUT);
	r = ag_settings_load(&f->s, NULL, &f->config, &err);
	if (r < 0) {
		*ret_code = front_end(f, r, &err);
		return 1;
	}
	r = opt_parse(&ocai_program, f->command, argc, argv, &f->s, &f->n_words, &err);
	if (r == 0)
		r = ag_settings_check(&f->s, &err);
	if (r < 0)
		*ret_code = opt_usage_error(&ocai_program, f->command, &err);
	else
		*ret_code = 0;
	if (r == 0 && f->s.show_config) {
		base_config_show(f->config, &f->s, stdout);
		r = OPT_EXIT_OK;
	}
	if (r != 0) {
		done(f);
		return 1;
	}
	f->s.is_resumed = f->s.is_resumed || f->s.resume != NULL;
	f->io = (struct ag_io){ .out = stdout, .err = stderr, .chinese = ag_locale_is_chinese() };
	ag_term_look_at(STDOUT_FILENO, f->s.color, &f->io.look);
	return 0;
}

/* A pipe or a file on standard input is input; a terminal or /dev/null is none, nor a socket that a service manager
 * left there. */
static bool stdin_is_input(void)
{
	struct stat st;

	return fstat(STDIN_FILENO, &st) == 0 && (S_ISFIFO(st.st_mode) || S_ISREG(st.st_mode));
}

int front_read_question(struct front *f, char **words, int n, int *ret_code)
{
	struct err err = { 0 };
	int r = 0;

	for (int i = 0; i < n; i++) {
		if (i)
			(void)base_buf_putc(&f->question, ' ');
		(void)base_buf_puts(&f->question, words[i]);
	}
	if (base_buf_error(&f->question))
		*ret_code = front_usage(f, "the question is too long");
	else if (n && strspn(base_buf_text(&f->question), " \t\r\n") == f->question.len)
		*ret_code = front_usage(f, "the question is empty");
	else if (n == 0 && !stdin_is_input())
		*ret_code = front_usage(f, "a question is missing");
	else if (stdin_is_input() && (r = ag_read_bounded(STDIN_FILENO, AG_MAX_INPUT, &f->input, &err)) < 0)
		*ret_code = front_end(f, r, &err);
	else if (n == 0 && strspn(base_buf_text(&f->input), " \t\r\n") == f->input.len)
		*ret_code = front_usage(f, "a question is missing");
	else {
		f->has_input = f->input.len > 0;
		/* Without words, what is piped in is the question. */
		if (n == 0) {
			size_t keep = f->input.len < AG_MAX_QUESTION ? f->input.len : AG_MAX_QUESTION;

			while (keep && ((unsigned char)f->input.data[keep] & 0xc0) == 0x80)
				keep--;
			(void)base_buf_append(&f->question, f->input.data, keep);
			f->has_input = false;
		}
		if (ag_is_chinese(base_buf_text(&f->question)))
			f->io.chinese = true;
		return 0;
	}
	if (r == 0)
		done(f);
	return 1;
}

void front_open_term(struct front *f)
{
	if (f->term || ag_term_open(NULL, f->s.color, &f->term, NULL) < 0)
		return;
	f->ui = ag_ui_of_term;
	f->ui.arg = f->term;
	f->io.ui = &f->ui;
}

void front_open_asking(struct front *f)
{
	if (f->io.look.is_terminal && !f->s.print && !f->s.json && !f->s.quiet)
		front_open_term(f);
}

int front_end(struct front *f, int r, const struct err *err)
{
	if (r == -ECANCELED)
		(void)fprintf(stderr, "%s\n", f->io.chinese ? "(已停止)" : "(stopped)");
	else if (r < 0)
		(void)fprintf(stderr, "ocai: %s\n", err_text(err));
	done(f);
	return r == -ECANCELED ? 130 : r < 0 ? 1 : r > MAX_EXIT_CODE ? MAX_EXIT_CODE : r;
}

int front_answer(struct front *f, const struct ag_assistant *a)
{
	struct err err = { 0 };
	int r;

	front_open_asking(f);
	r = ag_answer(&f->s, a, &f->io, base_buf_text(&f->question), f->has_input ? base_buf_text(&f->input) : NULL,
	              &err);

	return front_end(f, r, &err);
}
