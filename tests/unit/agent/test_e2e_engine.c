/* The whole of it once: ocai starts the real engine with the embedded model, and answers from it on a terminal. What a
 * small model says is not tested here, only that everything around it works with its real answers. */
#include "e2e.h"

#include <sys/un.h>

/* Not the model that a server was asked for, nor the catalogue unless a test wants it: our own engine. */
static int setup(void **state)
{
	struct e2e *t;
	int r = e2e_setup(state);

	t = *state;
	e2e_env(t, "OCAI_MODEL", NULL);
	e2e_env(t, "OCAI_ENGINE", NULL);
	/* Should the test die, the engine does not live much longer. */
	e2e_write_text(t, "config/ocai/ocai.conf", "[engine]\nidle-exit = 60\n");
	return r;
}

/* The process that listens in the test's folder, or 0. */
static pid_t engine_pid(struct e2e *t)
{
	struct sockaddr_un un = { .sun_family = AF_UNIX };
	struct ucred who = { 0 };
	socklen_t len = sizeof(who);
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

	(void)snprintf(un.sun_path, sizeof(un.sun_path), "%s", e2e_path(t, "run/ocai/engine.sock"));
	if (connect(fd, (struct sockaddr *)&un, sizeof(un)) < 0 ||
	    getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &who, &len) < 0)
		who.pid = 0;
	(void)close(fd);
	return who.pid;
}

/* Ends it, and waits until nobody listens. */
static void end_engine(struct e2e *t)
{
	int64_t until = pty_now_ms() + E2E_LIMIT_MS;
	pid_t pid = engine_pid(t);

	if (pid > 0)
		(void)kill(pid, SIGTERM);
	while (engine_pid(t) > 0 && pty_now_ms() < until)
		(void)usleep(5000);
}

static int teardown(void **state)
{
	end_engine(*state);
	return e2e_teardown(state);
}

static void need_model(struct e2e *t)
{
	char path[E2E_PATH + 16];

	(void)snprintf(path, sizeof(path), "%s-engine", t->program);
	if (access(path, X_OK) < 0) {
		print_message("%s is not built\n", path);
		skip();
	}
	(void)snprintf(path, sizeof(path), "%s/../engine/models/mini/ocai-mini.gguf", test_dir());
	if (access(path, R_OK) < 0) {
		print_message("the embedded model is not in this tree\n");
		skip();
	}
}

/* A menu, a form (a row ends with its colon), or the end of the program. */
static bool is_asked_or_over(struct e2e *t, const char *text)
{
	for (unsigned y = 0; y < t->pty.screen.rows; y++) {
		const char *row = screen_row(&t->pty.screen, y);
		size_t len = strlen(row);

		if (t->pty.screen.paste_mode && len > 1 && row[len - 1] == ':')
			return true;
	}
	return e2e_is_asked(t, text) || !e2e_read(t, 20);
}

static void the_embedded_model_answers_through_the_whole_program(void **state)
{
	struct e2e *t = *state;

	need_model(t);
	/* Menu, edit in place, a failure, and what the model makes of it. */
	E2E_OCAI(t, "cmd", "查看磁盘使用情况");
	e2e_reply(t, "[r] 执行", "e");
	e2e_reply(t, "$ ",
	          "\x15"
	          "echo words-$((40 + 2)) >&2; exit 3\r");
	e2e_reply(t, "[r] 执行", "r");
	e2e_expect(t, "words-42");
	/* The engine ends itself when idle: it is started again for the fix. */
	end_engine(t);
	e2e_expect(t, "退出码 3");
	e2e_reply(t, "[f] 解释并修复", "f");
	/* A fix in a menu, or first a form for what it leaves open; or no fix, which is a failure. */
	e2e_until(t, is_asked_or_over, "[r] 执行", "neither fix nor end");
	assert_true(engine_pid(t) > 0);
	(void)kill(t->pty.pid, SIGTERM); /* what it is worth is not tested here */
	assert_int_equal(waitpid(t->pty.pid, NULL, 0), t->pty.pid);
	(void)close(t->pty.master);
	t->has_pty = false;

	/* Into a pipe, the command alone. */
	assert_int_equal(E2E_RUN(t, NULL, "cmd", "list the files here"), 0);
	assert_true(strlen(t->out) > 1);
	assert_string_equal(t->err, "");
}

static void a_conversation_with_the_embedded_model_says_what_it_cannot(void **state)
{
	struct e2e *t = *state;

	need_model(t);
	E2E_OCAI(t, "chat");
	e2e_reply(t, ">", "hello\r");
	e2e_expect(t, "only suggests commands");
	e2e_ask(t, ">");
	e2e_reply(t, ">", "\x04");
	e2e_ends(t, 0);
}

static void the_catalogue_answers_what_it_is_certain_of(void **state)
{
	struct e2e *t = *state;
	char path[E2E_PATH], *real;

	need_model(t);
	(void)snprintf(path, sizeof(path), "%s/../agent/knowledge", test_dir());
	real = realpath(path, NULL);
	assert_non_null(real);
	e2e_env(t, "OCAI_KNOWLEDGE_DIR", real);
	free(real);
	E2E_OCAI(t, "cmd", "如何更新yum源");
	e2e_expect(t, "dnf ");
	e2e_reply(t, "[r] 执行", "q");
	e2e_ends(t, 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(the_embedded_model_answers_through_the_whole_program, setup, teardown),
		cmocka_unit_test_setup_teardown(the_catalogue_answers_what_it_is_certain_of, setup, teardown),
		cmocka_unit_test_setup_teardown(a_conversation_with_the_embedded_model_says_what_it_cannot, setup,
		                                teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
