/* The flow after a suggestion, and the conversation, with a scripted person and a scripted server. */
#include "fake_server.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>

#include "flow/flow.h"
#include "own_home.h"

/* ---- The person ------------------------------------------------------------------------------------------------ */

struct person {
	const char *menus;        /* one digit per menu, 0 run, 1 edit, 3 exit; 'c' cancels */
	const char *confirms;     /* y or n per question */
	const char *const *lines; /* for the editor; NULL ends: end of file. "\3" is Ctrl-C */
	const char *form;         /* the value of every field */
	char log[4096];
	size_t starts[16], n_menus;
	bool disabled[16];
};

static int person_menu(void *arg, const struct ag_term_menu *m, struct err *err)
{
	struct person *p = arg;

	assert_true(p->n_menus < 16);
	p->disabled[p->n_menus] = m->items[0].disabled;
	p->starts[p->n_menus++] = m->start;
	if (!*p->menus)
		fail_msg("an unexpected menu");
	return *p->menus == 'c' ? (p->menus++, -ECANCELED) : *p->menus++ - '0';
}

static int person_edit(void *arg, const struct ag_term_edit *e, struct base_buf *ret_text, struct err *err)
{
	struct person *p = arg;

	if (!*p->lines)
		return 0;
	if (strcmp(*p->lines, "\3") == 0) {
		p->lines++;
		return -ECANCELED;
	}
	(void)base_buf_puts(ret_text, *p->lines++);
	return 1;
}

static int person_confirm(void *arg, const char *question, bool is_yes_default, struct err *err)
{
	struct person *p = arg;

	assert_false(is_yes_default);
	if (!*p->confirms)
		fail_msg("an unexpected question: %s", question);
	return *p->confirms++ == 'y';
}

static int person_form(void *arg, const char *title, const struct ag_term_field *fields, size_t n,
                       struct base_buf *values, struct err *err)
{
	struct person *p = arg;

	for (size_t i = 0; i < n; i++) {
		(void)snprintf(p->log + strlen(p->log), sizeof(p->log) - strlen(p->log), "%s;", fields[i].label);
		(void)base_buf_puts(&values[i], p->form);
	}
	return p->form ? 0 : -ECANCELED;
}

/* ---- The place --------------------------------------------------------------------------------------------------- */

static int make_dir(void **state)
{
	(void)state;
	(void)setenv("OCAI_KNOWLEDGE_DIR", "/nonexistent", 1);
	(void)setenv("SHELL", "/bin/sh", 1);
	return own_home_make("act");
}

struct scene {
	struct fake_server server;
	struct ag_settings s;
	struct person person;
	struct ag_ui ui;
	struct ag_io io;
	char *out, *err;
	size_t out_len, err_len;
};

static struct scene *scene_new(const char *const *answers)
{
	struct scene *c = calloc(1, sizeof(*c));
	static const char *const none[] = { NULL };

	assert_non_null(c);
	fake_start(&c->server, answers ? answers : none);
	c->s = (struct ag_settings){ .opt_url = c->server.url,
		                     .timeout_s = answers ? 300 : 1,
		                     .start_timeout_s = 1,
		                     .max_tokens = 256,
		                     .keep_history = true };
	c->person = (struct person){ .menus = "", .confirms = "", .form = "" };
	c->ui = (struct ag_ui){ &c->person, person_menu, person_edit, person_confirm, person_form, NULL };
	c->io = (struct ag_io){ .out = open_memstream(&c->out, &c->out_len),
		                .err = open_memstream(&c->err, &c->err_len),
		                .ui = &c->ui };
	return c;
}

static void scene_free(struct scene *c)
{
	fake_stop(&c->server);
	(void)fclose(c->io.out);
	(void)fclose(c->io.err);
	free(c->out);
	free(c->err);
	free(c);
}

/* Acts on the command; the exit code or error. */
static int act(struct scene *c, const char *command)
{
	struct ag_record record = { .err = c->io.err };
	struct ag_suggestion g;
	struct err err = { 0 };
	int r;

	ag_suggestion_init(&g);
	(void)base_buf_puts(&g.command, command);
	r = ag_act(&c->s, &c->io, "the question", &g, &record, &err);
	if (r < 0)
		print_message("%s\n", err_text(&err));
	(void)fflush(c->io.out);
	(void)fflush(c->io.err);
	ag_suggestion_done(&g);
	return r;
}

static bool exists(const char *name)
{
	return access(name, F_OK) == 0;
}

/* ---- Commands ---- */

static void reading_runs_at_once_and_is_the_default(void **state)
{
	struct scene *c = scene_new(NULL);

	(void)state;
	c->person.menus = "0";
	assert_int_equal(act(c, "ls >/dev/null"), 0);
	assert_int_equal(c->person.starts[0], 0);
	scene_free(c);
}

static void a_change_asks_and_no_means_no(void **state)
{
	struct scene *c = scene_new(NULL);

	(void)state;
	c->person.confirms = "ny";
	c->person.menus = "00";
	assert_int_equal(act(c, "touch made"), 0);
	assert_int_equal(c->person.starts[0], 3); /* exit is the default */
	assert_true(exists("made"));
	assert_string_equal(c->person.confirms, "");
	scene_free(c);
}

static void a_destructive_command_asks_twice(void **state)
{
	struct scene *c = scene_new(NULL);

	(void)state;
	assert_int_equal(mkdir("victim", 0700), 0);
	c->person.menus = "003";
	c->person.confirms = "ynn";
	assert_int_equal(act(c, "rm -r victim"), 0);
	assert_true(exists("victim"));
	c->person.menus = "0";
	c->person.confirms = "yy";
	assert_int_equal(act(c, "rm -r victim"), 0);
	assert_false(exists("victim"));
	assert_int_equal(c->person.starts[0], 3);
	scene_free(c);
}

static void what_is_denied_cannot_be_run(void **state)
{
	struct scene *c = scene_new(NULL);

	(void)state;
	c->person.menus = "3";
	assert_int_equal(act(c, "rm -rf /"), 0);
	assert_true(c->person.disabled[0]);
	/* Even a menu that would let it be chosen does not run it. */
	c->person.menus = "03";
	assert_int_equal(act(c, "rm -rf /"), 0);
	scene_free(c);
}

static void without_a_model_that_explains_the_manual_and_the_gate_do(void **state)
{
	static const char *const answers[] = { FAKE_JSON("200 OK", "{\"data\":[{\"id\":\"ocai-mini\"}]}"), NULL };
	struct scene *c = scene_new(answers);
	FILE *page;

	(void)state;
	assert_int_equal(system("mkdir -p man/man1"), 0);
	page = fopen("man/man1/rm.1", "we");
	assert_non_null(page);
	(void)fputs(".TH RM 1\n.SH NAME\nrm \\- remove files or directories\n.SH DESCRIPTION\nIt removes.\n", page);
	assert_int_equal(fclose(page), 0);
	(void)setenv("MANPATH", "man", 1);
	c->person.menus = "23";
	assert_int_equal(act(c, "rm -r victim"), 0);
	(void)unsetenv("MANPATH");
	assert_non_null(strstr(c->out, "  rm - remove files or directories\n"));
	assert_non_null(strstr(strstr(c->out, "  rm - remove"), "deletes"));
	assert_non_null(strstr(c->out, "the embedded model does not explain"));
	assert_int_equal(atomic_load(&c->server.n_requests), 1); /* its name was asked for, and no more */
	scene_free(c);
}

static void an_edited_command_is_judged_anew(void **state)
{
	static const char *const lines[] = { "touch edited", NULL };
	struct scene *c = scene_new(NULL);

	(void)state;
	c->person.menus = "103";
	c->person.lines = lines;
	c->person.confirms = "n";
	assert_int_equal(act(c, "ls"), 0);
	assert_int_equal(c->person.starts[0], 0);
	assert_int_equal(c->person.starts[1], 3);
	assert_false(exists("edited"));
	scene_free(c);
}

static void a_form_asks_for_placeholders(void **state)
{
	struct scene *c = scene_new(NULL);

	(void)state;
	c->person.form = "a b";
	c->person.menus = "0";
	c->person.confirms = "y";
	assert_int_equal(act(c, "touch <file> '<file>.2' <other>"), 0);
	assert_string_equal(c->person.log, "file;other;");
	assert_true(exists("a b"));
	assert_true(exists("a b.2"));
	scene_free(c);
}

static void a_failure_is_explained_and_fixed_with_its_real_words(void **state)
{
	static const char *const answers[] = { FAKE_MODELS, FAKE_SSE(FAKE_DELTA("No such file.") FAKE_DONE),
		                               FAKE_MODELS, FAKE_SSE(FAKE_DELTA("ls ") FAKE_DELTA(".") FAKE_DONE),
		                               NULL };
	struct scene *c = scene_new(answers);

	(void)state;
	c->person.menus = "000"; /* run, explain and fix, run the fix */
	assert_int_equal(act(c, "ls /nonexistent/thing"), 0);
	assert_int_equal(atomic_load(&c->server.n_requests), 4);
	assert_non_null(strstr(c->server.requests[1], "failed with exit code 2"));
	assert_non_null(strstr(c->server.requests[1], "/nonexistent/thing"));
	assert_non_null(strstr(c->server.requests[3], "exit code 2"));
	assert_non_null(strstr(c->server.requests[3], "No such file"));
	assert_non_null(strstr(c->out, "No such file."));
	assert_non_null(strstr(c->out, "ls ."));
	scene_free(c);
}

static void the_exit_code_is_passed_on(void **state)
{
	struct scene *c = scene_new(NULL);

	(void)state;
	c->person.menus = "01"; /* run; no fix */
	assert_int_equal(act(c, "ls /nonexistent/thing"), 2);
	scene_free(c);
}

static void a_command_left_in_the_background_keeps_no_one_waiting(void **state)
{
	struct ag_run_result result = { 0 };
	struct err err = { 0 };

	(void)state;
	assert_int_equal(ag_run_command("sleep 30 & echo x >&2; exit 7", &result, &err), 0);
	assert_int_equal(result.exit_code, 7);
	assert_string_equal(base_buf_text(&result.errors), "x\n");
	base_buf_done(&result.errors);
	assert_int_equal(ag_run_command("kill -TERM $$", &result, &err), 0);
	assert_int_equal(result.exit_code, 128 + 15);
	base_buf_done(&result.errors);
	/* Only the end is kept, and nothing of it is shown here. */
	int shown = dup(STDERR_FILENO), null = open("/dev/null", O_WRONLY | O_CLOEXEC);

	(void)dup2(null, STDERR_FILENO);
	assert_int_equal(ag_run_command("exec 2>&2; i=0; while [ $i -lt 2000 ]; do echo line $i >&2; i=$((i+1)); done",
	                                &result, &err),
	                 0);
	(void)dup2(shown, STDERR_FILENO);
	(void)close(shown);
	(void)close(null);
	assert_true(result.errors.len <= 4096);
	assert_non_null(strstr(base_buf_text(&result.errors), "line 1999"));
	base_buf_done(&result.errors);
}

/* ---- Suggestions ---- */

static void secrets_do_not_leave_and_remote_hosts_need_consent(void **state)
{
	struct ag_settings s = { .opt_url = "https://llm.example.org/v1", .timeout_s = 1, .start_timeout_s = 1 };
	struct ag_link link;
	struct err err = { 0 };

	(void)state;
	assert_int_equal(ag_link_open(&s, ag_assistant_find("chat"), &link, &err), -EPERM);
	assert_non_null(strstr(err_text(&err), "llm.example.org is not this machine"));
	s = (struct ag_settings){ .profile = "nowhere", .timeout_s = 1 };
	assert_int_equal(ag_link_open(&s, ag_assistant_find("chat"), &link, &err), -ENOENT);
	assert_non_null(strstr(err_text(&err), "[profile nowhere]"));
}

static void an_answer_without_a_command_is_no_suggestion(void **state)
{
	static const char *const texts[] = { FAKE_SSE(FAKE_DELTA("NONE") FAKE_DONE), FAKE_SSE(FAKE_DONE),
		                             FAKE_SSE(FAKE_DELTA("<think>ls</think>") FAKE_DONE) };

	(void)state;
	for (size_t i = 0; i < 3; i++) {
		const char *const answers[] = { FAKE_MODELS, texts[i], NULL };
		struct scene *c = scene_new(answers);
		struct ag_suggestion g;
		struct err err = { 0 };

		ag_suggestion_init(&g);
		assert_int_equal(ag_suggest(&c->s, "make tea", NULL, &g, c->io.err, &err), -ENODATA);
		ag_suggestion_done(&g);
		scene_free(c);
	}
}

/* ---- Conversation ---- */

static void chat(struct scene *c, const char *const *lines, const char *first)
{
	struct err err = { 0 };

	c->person.lines = lines;
	assert_int_equal(ag_chat(&c->s, &c->io, first, &err), 0);
	(void)fflush(c->io.out);
	(void)fflush(c->io.err);
}

static void a_conversation_goes_on_over_turns_and_is_kept(void **state)
{
	static const char *const answers[] = { FAKE_MODELS, FAKE_SSE(FAKE_DELTA("一") FAKE_DELTA("二") FAKE_DONE),
		                               FAKE_SSE(FAKE_DELTA("three") FAKE_DONE), NULL };
	static const char *const lines[] = { "first?",        "\3",        "  ",    "second?",
		                             "/save talk.md", "/nonsense", "/help", NULL };
	struct scene *c = scene_new(answers);

	(void)state;
	chat(c, lines, "piped text");
	assert_non_null(strstr(c->server.requests[1], "piped text"));
	assert_non_null(strstr(c->server.requests[2], "first?"));
	assert_non_null(strstr(c->server.requests[2], "一二"));
	assert_non_null(strstr(c->out, "一二\n"));
	assert_non_null(strstr(c->out, "three\n"));
	assert_non_null(strstr(c->out, "/attach FILE"));
	assert_non_null(strstr(c->err, "/nonsense: no such command"));
	assert_true(exists("talk.md"));
	scene_free(c);

	/* The same conversation goes on in another run. */
	static const char *const later[] = { FAKE_MODELS, FAKE_SSE(FAKE_DELTA("four") FAKE_DONE), NULL };
	static const char *const more[] = { "third?", NULL };

	c = scene_new(later);
	c->s.is_resumed = true;
	chat(c, more, NULL);
	assert_non_null(strstr(c->err, "4 messages"));
	assert_non_null(strstr(c->server.requests[1], "second?"));
	assert_non_null(strstr(c->server.requests[1], "third?"));
	scene_free(c);
}

static void a_broken_answer_is_told_and_the_conversation_lives(void **state)
{
	static const char *const answers[] = { FAKE_MODELS, FAKE_SSE(FAKE_DELTA("half an ans")), FAKE_MODELS,
		                               FAKE_SSE(FAKE_DELTA("whole") FAKE_DONE), NULL };
	static const char *const lines[] = { "one?", "two?", NULL };
	struct scene *c = scene_new(answers);

	(void)state;
	chat(c, lines, NULL);
	assert_non_null(strstr(c->out, "half an ans\n"));
	assert_non_null(strstr(c->err, "ends before its end"));
	assert_non_null(strstr(c->server.requests[3], "half an ans")); /* it stays in the conversation */
	assert_non_null(strstr(c->out, "whole\n"));
	scene_free(c);
}

static void without_history_it_works_and_says_so_once(void **state)
{
	static const char *const answers[] = { FAKE_MODELS, FAKE_SSE(FAKE_DELTA("a") FAKE_DONE),
		                               FAKE_SSE(FAKE_DELTA("b") FAKE_DONE), NULL };
	static const char *const lines[] = { "one?", "two?", NULL };
	struct scene *c = scene_new(answers);
	const char *said;

	(void)state;
	(void)setenv("XDG_DATA_HOME", "/proc/nonexistent", 1);
	chat(c, lines, NULL);
	assert_non_null(strstr(c->out, "b\n"));
	said = strstr(c->err, "no history is kept");
	assert_non_null(said);
	assert_null(strstr(said + 1, "no history is kept"));
	scene_free(c);
}

#define T(name) cmocka_unit_test_setup_teardown(name, make_dir, own_home_remove)

int main(void)
{
	const struct CMUnitTest tests[] = {
		T(reading_runs_at_once_and_is_the_default),
		T(a_change_asks_and_no_means_no),
		T(a_destructive_command_asks_twice),
		T(what_is_denied_cannot_be_run),
		T(without_a_model_that_explains_the_manual_and_the_gate_do),
		T(an_edited_command_is_judged_anew),
		T(a_form_asks_for_placeholders),
		T(a_failure_is_explained_and_fixed_with_its_real_words),
		T(the_exit_code_is_passed_on),
		T(a_command_left_in_the_background_keeps_no_one_waiting),
		T(secrets_do_not_leave_and_remote_hosts_need_consent),
		T(an_answer_without_a_command_is_no_suggestion),
		T(a_conversation_goes_on_over_turns_and_is_kept),
		T(a_broken_answer_is_told_and_the_conversation_lives),
		T(without_history_it_works_and_says_so_once),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
