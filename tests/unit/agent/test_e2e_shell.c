/* The key of the shells and the completions: real bash and zsh on a real terminal (tmux), against a scripted server. */
#include "e2e.h"

enum { SHELL_LIMIT_MS = 120000 };

struct shell {
	const char *name;
	const char *run; /* with the test's folder as the current one */
	const char *rc;  /* its start file in the test's folder */
	const char *completion;
};

static const struct shell bash = { "bash", "bash --noprofile --rcfile rc.bash -i", "rc.bash", ". ./ocai-completion\n" };
/* compinit finds the file by its name in fpath. */
static const struct shell zsh = { "zsh", "zsh -d -i", "zdot/.zshrc",
	                          "fpath=($PWD/functions $fpath); autoload -U compinit; compinit -D -u\n" };

#define IN_BOTH(behaviour)                            \
	static void behaviour##_in_bash(void **state) \
	{                                             \
		behaviour(*state, &bash);             \
	}                                             \
	static void behaviour##_in_zsh(void **state)  \
	{                                             \
		behaviour(*state, &zsh);              \
	}

/* ---- tmux ---- */

/* From here on e2e_run() runs other programs than ocai. */
static void use_env(struct e2e *t)
{
	char dir[E2E_PATH], *path = NULL;

	(void)snprintf(dir, sizeof(dir), "%s", t->program);
	*strrchr(dir, '/') = '\0';
	assert_true(asprintf(&path, "%s:%s", dir, getenv("PATH")) > 0);
	e2e_env(t, "PATH", path);
	free(path);
	(void)snprintf(t->program, sizeof(t->program), "/usr/bin/env");
}

#define TMUX(t, ...) \
	E2E_RUN(t, NULL, "-C", (t)->dir, "tmux", "-u", "-S", e2e_path(t, "tmux"), "-f", "/dev/null", __VA_ARGS__)

static const char *screen_of(struct e2e *t)
{
	assert_int_equal(TMUX(t, "capture-pane", "-p"), 0);
	return t->out;
}

/* Until the screen shows the text. */
static void see(struct e2e *t, const char *text)
{
	int64_t until = pty_now_ms() + SHELL_LIMIT_MS;

	while (!strstr(screen_of(t), text)) {
		if (pty_now_ms() > until)
			fail_msg("not on the screen: %s\n%s", text, t->out);
		(void)usleep(20000);
	}
}

static void type(struct e2e *t, const char *text)
{
	assert_int_equal(TMUX(t, "send-keys", "-l", text), 0);
}

static void press(struct e2e *t, const char *key)
{
	assert_int_equal(TMUX(t, "send-keys", key), 0);
}

/* ---- The shell in it
 * --------------------------------------------------------------------------------------------------
 */

static bool is_here(struct e2e *t, const char *program)
{
	return E2E_RUN(t, NULL, "sh", "-c", "command -v \"$0\"", program) == 0;
}

static void write_completions(struct e2e *t)
{
	assert_int_equal(E2E_RUN(t, NULL, "ocai", "--completion=bash"), 0);
	e2e_write_text(t, "ocai-completion", t->out);
	assert_int_equal(E2E_RUN(t, NULL, "ocai", "--completion=zsh"), 0);
	e2e_write_text(t, "functions/_ocai", t->out);
}

/* extra: more lines of its start file, before the key's; NULL for none. */
static void start(struct e2e *t, const struct shell *shell, const char *extra)
{
	char *rc = NULL, *source = realpath(test_dir(), NULL);

	use_env(t);
	if (!is_here(t, shell->name) || !is_here(t, "tmux")) {
		free(source);
		skip();
	}
	assert_non_null(source);
	e2e_env(t, "LANG", "C.UTF-8");
	e2e_env_path(t, "ZDOTDIR", "zdot");
	write_completions(t);
	assert_true(asprintf(&rc, "PS1='$ '\nunset HISTFILE\n%s%s. '%s/../agent/shell/ocai.%s'\n", extra ? extra : "",
	                     shell->completion, source, shell->name) > 0);
	e2e_write_text(t, shell->rc, rc);
	free(rc);
	free(source);
	assert_int_equal(TMUX(t, "new-session", "-d", "-x", "70", "-y", "20", shell->run), 0);
	see(t, "$");
}

static int stop(void **state)
{
	struct e2e *t = *state;

	(void)TMUX(t, "kill-server");
	return e2e_teardown(state);
}

/* ---- The key
 * ------------------------------------------------------------------------------------------------------------
 */

static void the_key_puts_the_command_on_the_line(struct e2e *t, const struct shell *shell)
{
	E2E_SERVE(t, E2E_SAY("echo 中文 $((40 + 2))"));
	start(t, shell, NULL);
	type(t, "说一个数字");
	see(t, "$ 说一个数字");
	press(t, "M-o");
	see(t, "$ echo 中文 $((40 + 2))");
	e2e_request_has(t, 0, "说一个数字");
	type(t, "!"); /* the cursor is at the end */
	see(t, "$ echo 中文 $((40 + 2))!");
	press(t, "C-_");
	press(t, "C-_"); /* once for what was typed, once for the suggestion */
	see(t, "$ 说一个数字");
	assert_null(strstr(screen_of(t), "echo"));
	press(t, "C-u");
	type(t, "echo $((1 + 1))次");
	press(t, "Enter");
	see(t, "\n2次\n");
	assert_null(strstr(screen_of(t), "中文 42")); /* nothing ran by itself */
}
IN_BOTH(the_key_puts_the_command_on_the_line)

static void a_command_of_several_lines_runs_as_one(struct e2e *t, const struct shell *shell)
{
	E2E_SERVE(t, E2E_SAY("```bash\\nfor i in 1 2; do\\n  echo \\\"第 $i 行\\\"\\ndone\\n```"));
	start(t, shell, NULL);
	type(t, "数到二");
	press(t, "M-o");
	see(t, "$ for i in 1 2; do\n  echo \"第 $i 行\"\ndone");
	press(t, "Enter");
	see(t, "\n第 1 行\n第 2 行\n$");
}
IN_BOTH(a_command_of_several_lines_runs_as_one)

static void a_question_may_have_several_lines(struct e2e *t, const struct shell *shell)
{
	E2E_SERVE(t, E2E_SAY("true"));
	start(t, shell, NULL);
	type(t, "第一行");
	press(t, "C-v");
	press(t, "C-j");
	type(t, "第二行");
	press(t, "M-o");
	e2e_request_has(t, 0, "第一行\\n第二行");
	see(t, "$ true");
	assert_null(strstr(screen_of(t), "第二行"));
}
IN_BOTH(a_question_may_have_several_lines)

static void an_error_is_shown_and_the_question_stays(struct e2e *t, const struct shell *shell)
{
	e2e_env(t, "OCAI_URL", "http://127.0.0.1:1");
	start(t, shell, NULL);
	type(t, "哪些端口开着");
	press(t, "M-o");
	see(t, "ocai: ");
	see(t, "http://127.0.0.1:1");
	type(t, " ?");
	see(t, "$ 哪些端口开着 ?");
	assert_null(strstr(screen_of(t), "ocai ..."));
	press(t, "C-u");
	type(t, "echo $((6 * 7))");
	press(t, "Enter");
	see(t, "\n42\n$");
}
IN_BOTH(an_error_is_shown_and_the_question_stays)

static void ctrl_c_ends_the_question_and_not_the_line(struct e2e *t, const struct shell *shell)
{
	E2E_SERVE(t, FAKE_SSE(FAKE_DELTA("never") "\2"));
	start(t, shell, NULL);
	type(t, "慢慢来");
	press(t, "M-o");
	(void)e2e_request(t, 0);
	see(t, "ocai ...");
	press(t, "C-c");
	e2e_wait_count(&t->server.n_gone, 1, "connections ended");
	type(t, "吧");
	see(t, "$ 慢慢来吧");
}
IN_BOTH(ctrl_c_ends_the_question_and_not_the_line)

static void an_empty_line_asks_nothing(struct e2e *t, const struct shell *shell)
{
	E2E_SERVE(t, E2E_SAY("true"));
	start(t, shell, NULL);
	press(t, "M-o");
	type(t, "  ");
	press(t, "M-o");
	type(t, "echo $((6 * 7))");
	press(t, "Enter");
	see(t, "\n42\n$");
	assert_int_equal(atomic_load(&t->server.n_requests), 0);
}
IN_BOTH(an_empty_line_asks_nothing)

static void the_key_can_be_another(struct e2e *t, const struct shell *shell)
{
	E2E_SERVE(t, E2E_SAY("uptime"));
	start(t, shell, shell == &zsh ? "OCAI_KEY='^Xa'; bindkey -v\n" : "OCAI_KEY='\\C-xa'; set -o vi\n");
	type(t, "how long");
	press(t, "C-x");
	type(t, "a");
	see(t, "$ uptime");
}
IN_BOTH(the_key_can_be_another)

static void a_script_may_read_the_file(struct e2e *t, const struct shell *shell)
{
	char *source = realpath(test_dir(), NULL), *line = NULL;

	use_env(t);
	assert_true(asprintf(&line, ". '%s/../agent/shell/ocai.%s' && echo done", source, shell->name) > 0);
	free(source);
	if (!is_here(t, shell->name)) {
		free(line);
		skip();
	}
	assert_int_equal(E2E_RUN(t, NULL, shell->name, "-c", line), 0);
	free(line);
	assert_string_equal(t->out, "done\n");
	assert_string_equal(t->err, "");
}
IN_BOTH(a_script_may_read_the_file)

/* ---- Completion
 * -------------------------------------------------------------------------------------------------------
 */

static void tab_completes(struct e2e *t, const struct shell *shell)
{
	static const struct {
		const char *typed, *line;
	} cases[] = {
		{ "ocai hist", "$ ocai history" },
		{ "ocai kb ad", "$ ocai kb add" },
		{ "ocai sys ho", "$ ocai sys host" },
		{ "ocai sys host us", "$ ocai sys host users" },
		{ "ocai cmd --pri", "$ ocai cmd --print" },
		{ "ocai --pri", "$ ocai --print" },
		{ "ocai sys --color ne", "$ ocai sys --color never" },
		{ "ocai chat --color=ne", "$ ocai chat --color=never" },
		{ "ocai cmd --attach a\\ fi", "$ ocai cmd --attach a\\ file" },
		{ "ocai why is a\\ fi", "$ ocai why is a\\ file" },
	};

	e2e_write_text(t, "a file", "");
	start(t, shell, NULL);
	for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
		type(t, cases[i].typed);
		press(t, "Tab");
		see(t, cases[i].line);
		press(t, "C-u");
		press(t, "C-l");
	}
}
IN_BOTH(tab_completes)

#define SHELL_TEST(behaviour)                                                  \
	cmocka_unit_test_setup_teardown(behaviour##_in_bash, e2e_setup, stop), \
	        cmocka_unit_test_setup_teardown(behaviour##_in_zsh, e2e_setup, stop)

int main(void)
{
	const struct CMUnitTest tests[] = {
		SHELL_TEST(the_key_puts_the_command_on_the_line),
		SHELL_TEST(a_command_of_several_lines_runs_as_one),
		SHELL_TEST(a_question_may_have_several_lines),
		SHELL_TEST(an_error_is_shown_and_the_question_stays),
		SHELL_TEST(ctrl_c_ends_the_question_and_not_the_line),
		SHELL_TEST(an_empty_line_asks_nothing),
		SHELL_TEST(the_key_can_be_another),
		SHELL_TEST(a_script_may_read_the_file),
		SHELL_TEST(tab_completes),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
