/* ocai chat: the conversation. Keys come from the terminal even when something is piped in, which then goes with the
 * first question; with no terminal at all each line of standard input is one turn. */
#include <string.h>
#include <unistd.h>

#include "front.h"

const struct opt chat_opts[] = { { "resume", 'r', OPT_STR, offsetof(struct ag_settings, resume), "ID",
	                           "go on with this session of the history, or with the \"last\"", NULL },
	                         FRONT_BACKEND_OPTS,
	                         { 0 } };

int front_chat(struct front *f)
{
	const char *first = f->has_input ? base_buf_text(&f->input) : NULL;
	struct err err = { 0 };
	int r = 0;

	front_open_term(f);
	if (!f->io.ui) {
		f->ui = ag_ui_of_lines;
		f->ui.arg = stdin;
		f->io.ui = &f->ui;
	} else if (!isatty(STDIN_FILENO) && !first) {
		r = ag_read_bounded(STDIN_FILENO, AG_MAX_INPUT, &f->input, &err);
		first = f->input.len ? base_buf_text(&f->input) : NULL;
	}
	if (r >= 0)
		r = ag_chat(&f->s, &f->io, first, &err);
	return front_end(f, r, &err);
}

/* "--resume" with nothing behind it means the last session. */
static int add_last(int argc, char **argv, const char **args)
{
	int n = 0;

	for (int i = 0; i < argc; i++) {
		args[n++] = argv[i];
		if ((strcmp(argv[i], "--resume") == 0 || strcmp(argv[i], "-r") == 0) &&
		    (i + 1 == argc || argv[i + 1][0] == '-'))
			args[n++] = "last";
	}
	args[n] = NULL;
	return n;
}

int cmd_chat(int argc, char **argv)
{
	const char **args = calloc(2 * (size_t)argc + 1, sizeof(*args));
	struct front f;
	int code = 1;

	if (!args)
		return 1;
	if (front_begin(&f, "chat", add_last(argc, argv, args), (char **)args, &code) == 0) {
		if (f.n_words)
			code = front_end(&f, front_usage(&f, "chat takes no question: type it there"), NULL);
		else
			code = front_chat(&f);
	}
	free(args);
	return code;
}
