/* The editor and raw mode on a real pseudo-terminal: this test types and looks at the screen. */
#include "test.h"

#include <errno.h>
#include <fcntl.h>

#include "../src/term/term.h"
#include "pty_program.h"

static const char *const old_lines[] = { "ls -l", "systemctl status nginx", "旧的一行" };

static int history(void *ctx, size_t back, struct base_buf *ret_entry)
{
	(void)ctx;
	if (back >= 3)
		return 0;
	(void)base_buf_puts(ret_entry, old_lines[back]);
	return 1;
}

/* Edits lines until the end and prints each as "<text>", with "/" for a newline. */
static int edit_program_on(struct program *p, struct ag_term *t)
{
	struct base_buf line = BASE_BUF_INIT(1 << 20);
	int r;

	if (!t && ag_term_open(NULL, "auto", &t, NULL) < 0)
		return 9;
	p->edit.history = history;
	do {
		base_buf_reset(&line);
		r = ag_term_edit(t, &p->edit, &line, NULL);
		for (size_t i = 0; i < line.len; i++) {
			if (line.data[i] == '\n')
				line.data[i] = '/';
		}
		if (r == 1)
			printf("<%s>\n", base_buf_text(&line));
		else if (r == -ECANCELED)
			printf("<canceled>\n");
		(void)fflush(stdout);
	} while (r == 1 || r == -ECANCELED);
	base_buf_done(&line);
	ag_term_close(t);
	return r == 0 ? 0 : 8;
}

static int edit_program(void *arg)
{
	set_up(arg);
	return edit_program_on(arg, NULL);
}

/* ---- The editor ---- */

/* Types keys at a fresh prompt and expects the line that comes of it. */
static void type_and_expect(struct program *program, const char *keys, const char *want)
{
	struct pty p = { 0 };

	pty_start(&p, 40, 10, edit_program, program);
	pty_expect(&p, ">");
	pty_type(&p, keys);
	pty_expect(&p, want);
	pty_expect_prompt(&p, ">");
	assert_true(p.screen.paste_mode);
	pty_type(&p, "\x04");
	expect_exit(&p, 0);
}

static void line_is_edited(void **state)
{
	static const struct {
		const char *keys, *want;
	} cases[] = {
		{ "hello\r", "<hello>" },
		{ "中文字\x7f\r", "<中文>" },
		{ "中文字\033[D\033[D\x7f\r", "<文字>" },
		{ "ab\x01x\x05y\r", "<xaby>" },
		{ "ab\033[Hx\033[Fy\r", "<xaby>" },
		{ "一二三\001\033[3~\r", "<二三>" },
		{ "one two three\x17\x17\r", "<one >" },
		{ "one two\033b\033d!\r", "<one !>" },
		{ "one two\x01\x0b\x19\x19\r", "<one twoone two>" },
		{ "one two\x15z\r", "<z>" },
		{ "ab\x14\r", "<ba>" },
		{ "\033[A\033[A\r", "<systemctl status nginx>" },
		{ "draft\033[A\033[B\r", "<draft>" },
		{ "\x12ngi\r", "<systemctl status nginx>" },
		{ "\x12旧\033[D\x7f\r", "<旧的行>" },
		{ "x\x12ls\x07y\r", "<xy>" },
		{ "\033[200~one\ntwo\033[201~\r", "<one two>" },
		{ "abc\x03", "<canceled>" },
		{ "e\xCC\x81x\033[D\x7f\r", "<x>" },
		{ "\xff\xfe"
		  "ok\r",
		  "<ok>" },
	};
	struct program program = { .edit = { .prompt = "> " } };

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++)
		type_and_expect(&program, cases[i].keys, cases[i].want);
}

static void several_lines_are_edited(void **state)
{
	struct program program = { .edit = { .prompt = "> ", .multi_line = true } };

	(void)state;
	type_and_expect(&program, "a\033\rb\nc\\\rd\r", "<a/b/c/d>");
	type_and_expect(&program, "\033[200~中文\r\n\xe7\xac\xac\xe4\xba\x8c\033[201~\033[AX\r", "<中文X/第二>");
}

static void suggestion_is_edited_in_place(void **state)
{
	struct program program = { .edit = { .prompt = "> ", .text = "dnf install 中文\033[31m" } };
	struct pty p = { 0 };

	(void)state;
	pty_start(&p, 40, 10, edit_program, &program);
	pty_expect(&p, "> dnf install 中文[31m");
	assert_int_equal(p.screen.x, 2 + 12 + 4 + 4);
	pty_type(&p, "\x15ls\r");
	pty_expect(&p, "<ls>");
	pty_expect_prompt(&p, "> dnf install 中文[31m");
	pty_type(&p, "\x15\x04");
	expect_exit(&p, 0);
}

/* A program between two questions: what is typed then, the kernel's own line editing gets, unless it is quiet. */
static int busy_edit_program(void *arg)
{
	struct program *p = arg;
	struct pollfd fd = { .fd = STDIN_FILENO, .events = POLLIN };
	struct ag_term *t = NULL;
	int n;

	set_up(p);
	if (p->quiet && ag_term_open(NULL, "auto", &t, NULL) < 0)
		return 9;
	if (t)
		ag_term_quiet_begin(t);
	printf("busy\n");
	(void)fflush(stdout);
	(void)poll(&fd, 1, -1);
	printf("not so busy\n");
	(void)fflush(stdout);
	while (p->quiet && ioctl(STDIN_FILENO, FIONREAD, &n) == 0 && n < p->n_keys)
		(void)usleep(1000);
	return edit_program_on(p, t);
}

struct typed {
	const char *keys, *want;
};

static void type_while_busy(const struct typed *cases, size_t n, bool quiet)
{
	struct program program = { .edit = { .prompt = "> ", .multi_line = true }, .quiet = quiet };

	for (size_t i = 0; i < n; i++) {
		struct pty p = { 0 };

		program.n_keys = (int)strlen(cases[i].keys);
		pty_start(&p, 40, 12, busy_edit_program, &program);
		pty_expect_row(&p, 0, "busy");
		pty_type(&p, cases[i].keys);
		pty_expect(&p, cases[i].want);
		if (quiet)
			assert_string_equal(screen_row(&p.screen, 1), "not so busy"); /* no echo */
		expect_exit(&p, 0);
	}
}

static void keys_typed_ahead_count(void **state)
{
	static const struct typed cases[] = {
		{ "one\rtwo\r\x04", "<two>" },      /* Enter submits, Ctrl-D ends */
		{ "one\rtwx\x7fo\r\x04", "<two>" }, /* the kernel's own editing */
		{ "中文\r\x04", "<中文>" },
		{ "half\x04\r\x04", "<half>" },
	};

	(void)state;
	type_while_busy(cases, sizeof(cases) / sizeof(*cases), false);
}

static void keys_typed_in_the_quiet_are_not_echoed_and_count(void **state)
{
	static const struct typed cases[] = {
		{ "one\rtwo\r\x04", "<two>" },
		{ "two\x01one \x05!\r\x04", "<one two!>" }, /* the editor's own keys */
		{ "中文\x7f字\r\x04", "<中字>" },
		{ "\033[200~first\rsecond\033[201~\r\x04", "<first/second>" }, /* a paste stays one */
		{ "\x7f\x7fx\r\x04", "<x>" },
	};

	(void)state;
	type_while_busy(cases, sizeof(cases) / sizeof(*cases), true);
}

static void half_a_line_typed_in_the_quiet_can_be_gone_on_with(void **state)
{
	struct program program = { .edit = { .prompt = "> " }, .quiet = true, .n_keys = 2 };
	struct pty p = { 0 };

	(void)state;
	pty_start(&p, 40, 12, busy_edit_program, &program);
	pty_expect(&p, "busy");
	pty_type(&p, "ha");
	pty_expect_prompt(&p, "> ha");
	pty_type(&p, "lf\r");
	pty_expect(&p, "<half>");
	pty_expect_prompt(&p, ">");
	pty_type(&p, "\x04");
	expect_exit(&p, 0);
}

static void ctrl_c_in_the_quiet_puts_the_terminal_back(void **state)
{
	struct program program = { .quiet = true };
	struct pty p = { 0 };
	int status, slave;

	(void)state;
	pty_start(&p, 40, 12, busy_edit_program, &program);
	slave = open(ptsname(p.master), O_RDWR | O_NOCTTY); /* the modes outlive the program */
	assert_true(slave >= 0);
	pty_expect(&p, "busy");
	assert_false(pty_is_cooked(&p));
	pty_type(&p, "\x03");
	status = pty_reap(&p);
	assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGINT);
	PTY_UNTIL(&p, !p.screen.paste_mode, "the end of bracketed paste");
	assert_true(pty_is_cooked(&p));
	(void)close(slave);
	(void)close(p.master);
	screen_done(&p.screen);
}

static void cursor_counts_wide_characters(void **state)
{
	struct program program = { .edit = { .prompt = "> " } };
	struct pty p = { 0 };

	(void)state;
	pty_start(&p, 12, 6, edit_program, &program);
	pty_expect(&p, ">");
	pty_type(&p, "中文字符一二");
	pty_expect(&p, "一二");
	assert_string_equal(screen_row(&p.screen, 0), "> 中文字符");
	assert_string_equal(screen_row(&p.screen, 1), "一二");
	pty_type(&p, "\033[D\033[D\033[D");
	pty_expect_cursor(&p, 2 + 6, 0);
	pty_type(&p, "x\r");
	pty_expect(&p, "<中文字x符");
	pty_type(&p, "\x04");
	expect_exit(&p, 0);
}

static void window_changes_its_size(void **state)
{
	struct winsize size = { .ws_col = 20, .ws_row = 10 };
	struct program program = { .edit = { .prompt = "> " } };
	struct pty p = { 0 };

	(void)state;
	pty_start(&p, 40, 10, edit_program, &program);
	pty_expect(&p, ">");
	pty_type(&p, "abcdefghijklmno");
	pty_expect(&p, "abcdefghijklmno");
	screen_done(&p.screen);
	screen_init(&p.screen, 20, 10); /* narrower; the line still fits, and is drawn again */
	p.screen.x = 17;
	assert_int_equal(ioctl(p.master, TIOCSWINSZ, &size), 0);
	pty_expect(&p, "> abcdefghijklmno");
	pty_type(&p, "pqrstuvw");
	pty_expect(&p, "rstuvw");
	assert_string_equal(screen_row(&p.screen, 0), "> abcdefghijklmnopq");
	pty_type(&p, "\x15\x04");
	expect_exit(&p, 0);
}

static void text_longer_than_the_screen_shows_the_cursor(void **state)
{
	struct program program = { .edit = { .prompt = "> ", .multi_line = true } };
	struct pty p = { 0 };

	(void)state;
	pty_start(&p, 20, 4, edit_program, &program);
	pty_expect(&p, ">");
	pty_type(&p, "1\n2\n3\n4\n5\n6\n7");
	pty_expect_row(&p, 3, "  7");
	assert_string_equal(screen_row(&p.screen, 0), "  4");
	pty_expect_cursor(&p, 3, 3);
	pty_type(&p, "\033<");
	pty_expect_row(&p, 0, "> 1");
	pty_type(&p, "\r");
	pty_expect(&p, "<1/2/3/4/5/6/7>");
	pty_type(&p, "\x04");
	expect_exit(&p, 0);
}

static void secret_is_not_shown(void **state)
{
	struct program program = { .edit = { .prompt = "> ", .secret = true } };
	struct pty p = { 0 };

	(void)state;
	pty_start(&p, 40, 10, edit_program, &program);
	pty_expect(&p, ">");
	pty_type(&p, "密码x");
	pty_expect(&p, "> ***");
	assert_false(screen_has(&p.screen, "密"));
	pty_type(&p, "\r");
	pty_expect(&p, "<密码x>");
	pty_type(&p, "\x04");
	expect_exit(&p, 0);
}

static void dumb_terminal_reads_plain_lines(void **state)
{
	struct program program = { .term = "dumb", .lang = "C", .edit = { .prompt = "> ", .text = "old" } };
	struct pty p = { 0 };

	(void)state;
	pty_start(&p, 40, 10, edit_program, &program);
	pty_expect(&p, "> [old]");
	assert_true(pty_is_cooked(&p));
	assert_false(p.screen.paste_mode);
	pty_type(&p, "\n");
	pty_expect(&p, "<old>");
	pty_expect_prompt(&p, "> [old]");
	pty_type(&p, "新的\n");
	pty_expect(&p, "<新的>");
	pty_expect_prompt(&p, "> [old]");
	pty_type(&p, "half\x03"); /* Ctrl-C cancels the line, not the program */
	pty_expect(&p, "<canceled>");
	pty_expect_prompt(&p, "> [old]");
	pty_type(&p, "\x04");
	expect_exit(&p, 0);
}

/* ---- Raw mode is always left ---- */

/* A sanitizer would report SIGSEGV as a fault. */
static int plain_edit_program(void *arg)
{
	(void)signal(SIGSEGV, SIG_DFL);
	return edit_program(arg);
}

static void signals_put_the_terminal_back(void **state)
{
	static const int signals[] = { SIGINT, SIGTERM, SIGHUP, SIGQUIT, SIGSEGV };
	struct program program = { .edit = { .prompt = "> " } };

	(void)state;
	for (size_t i = 0; i < sizeof(signals) / sizeof(signals[0]); i++) {
		struct pty p = { 0 };
		int status, slave;

		pty_start(&p, 40, 10, plain_edit_program, &program);
		slave = open(ptsname(p.master), O_RDWR | O_NOCTTY); /* the modes outlive the program */
		assert_true(slave >= 0);
		pty_expect(&p, ">");
		assert_false(pty_is_cooked(&p));
		assert_int_equal(kill(p.pid, signals[i]), 0);
		assert_int_equal(waitpid(p.pid, &status, 0), p.pid);
		assert_false(WIFEXITED(status) && WEXITSTATUS(status) == 0);
		PTY_UNTIL(&p, !p.screen.paste_mode, "the end of bracketed paste");
		assert_true(pty_is_cooked(&p));
		(void)close(slave);
		(void)close(p.master);
		screen_done(&p.screen);
	}
}

static void stopped_program_goes_on_where_it_was(void **state)
{
	struct program program = { .edit = { .prompt = "> " } };
	struct pty p = { 0 };
	struct termios cooked;
	int status;

	(void)state;
	pty_start(&p, 40, 10, edit_program, &program);
	assert_int_equal(tcgetattr(p.master, &cooked), 0);
	cooked.c_lflag |= ICANON | ECHO | ISIG;
	pty_expect(&p, ">");
	pty_type(&p, "half");
	pty_expect(&p, "half");
	/* its process group is an orphaned one here, where SIGTSTP does nothing by itself: stop it for real as well */
	assert_int_equal(kill(p.pid, SIGTSTP), 0);
	PTY_UNTIL(&p, p.screen.n_raw == 2, "raw mode again");
	assert_int_equal(kill(p.pid, SIGSTOP), 0);
	assert_int_equal(waitpid(p.pid, &status, WUNTRACED), p.pid);
	assert_true(WIFSTOPPED(status));
	assert_int_equal(tcsetattr(p.master, TCSANOW, &cooked), 0); /* what a shell does */
	assert_int_equal(kill(p.pid, SIGCONT), 0);
	PTY_UNTIL(&p, !pty_is_cooked(&p), "raw mode again");
	pty_type(&p, " done\r");
	pty_expect(&p, "<half done>");
	pty_type(&p, "\x04");
	expect_exit(&p, 0);
}

static void hangup_of_the_terminal_ends_the_program(void **state)
{
	struct program program = { .edit = { .prompt = "> " } };
	struct pty p = { 0 };
	int status;

	(void)state;
	pty_start(&p, 40, 10, edit_program, &program);
	pty_expect(&p, ">");
	(void)close(p.master);
	assert_int_equal(waitpid(p.pid, &status, 0), p.pid);
	screen_done(&p.screen);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(line_is_edited),
		cmocka_unit_test(several_lines_are_edited),
		cmocka_unit_test(suggestion_is_edited_in_place),
		cmocka_unit_test(keys_typed_ahead_count),
		cmocka_unit_test(keys_typed_in_the_quiet_are_not_echoed_and_count),
		cmocka_unit_test(half_a_line_typed_in_the_quiet_can_be_gone_on_with),
		cmocka_unit_test(ctrl_c_in_the_quiet_puts_the_terminal_back),
		cmocka_unit_test(cursor_counts_wide_characters),
		cmocka_unit_test(window_changes_its_size),
		cmocka_unit_test(text_longer_than_the_screen_shows_the_cursor),
		cmocka_unit_test(secret_is_not_shown),
		cmocka_unit_test(dumb_terminal_reads_plain_lines),
		cmocka_unit_test(signals_put_the_terminal_back),
		cmocka_unit_test(stopped_program_goes_on_where_it_was),
		cmocka_unit_test(hangup_of_the_terminal_ends_the_program),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
