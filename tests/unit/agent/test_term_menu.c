/* Menus, questions and forms on a real pseudo-terminal: this test types and looks at the screen. */
#include "test.h"

#include <errno.h>

#include "../src/term/term.h"
#include "pty_program.h"

static int menu_program(void *arg)
{
	static const struct ag_term_item items[] = {
		{ "运行 Run", "runs the command", 'r', false },
		{ "Edit\033[8m", "changes it first", 'e', false },
		{ "Disabled", NULL, 'd', true },
		{ "Exit", NULL, 'x', false },
	};
	const struct ag_term_menu menu = { "sudo 命令\033[8m hidden", items, 4, 0 };
	struct ag_term *t = NULL;
	int r;

	set_up(arg);
	if (ag_term_open(NULL, "auto", &t, NULL) < 0)
		return 9;
	r = ag_term_menu(t, &menu, NULL);
	printf("choice %d\n", r == -ECANCELED ? -1 : r);
	(void)fflush(stdout);
	ag_term_close(t);
	return 0;
}

static int confirm_program(void *arg)
{
	struct ag_term *t = NULL;
	int r;

	set_up(arg);
	if (ag_term_open(NULL, "auto", &t, NULL) < 0)
		return 9;
	r = ag_term_confirm(t, "删除吗?", false, NULL);
	printf("answer %d\n", r);
	(void)fflush(stdout);
	ag_term_close(t);
	return 0;
}

static int is_number(void *ctx, const char *value, struct err *err)
{
	(void)ctx;
	return strspn(value, "0123456789") == strlen(value) ? 0 : err_set(err, -EINVAL, "not a number");
}

static int form_program(void *arg)
{
	static const struct ag_term_field fields[] = {
		{ .label = "端口", .about = "where it listens", .check = is_number },
		{ .label = "路径", .text = "/etc" },
	};
	struct base_buf values[2] = { BASE_BUF_INIT(1000), BASE_BUF_INIT(1000) };
	struct ag_term *t = NULL;
	int r;

	set_up(arg);
	if (ag_term_open(NULL, "auto", &t, NULL) < 0)
		return 9;
	r = ag_term_form(t, "Form", fields, 2, values, NULL);
	printf("%d <%s> <%s>\n", r, base_buf_text(&values[0]), base_buf_text(&values[1]));
	(void)fflush(stdout);
	base_buf_done(&values[0]);
	base_buf_done(&values[1]);
	ag_term_close(t);
	return 0;
}

static void choose(const struct program *program, const char *keys, const char *want)
{
	struct program copy = *program;
	struct pty p = { 0 };

	pty_start(&p, 40, 10, menu_program, &copy);
	pty_expect(&p, "runs the command");
	assert_true(screen_has(&p.screen, "sudo 命令[8m hidden"));
	pty_type(&p, keys);
	pty_expect(&p, want);
	assert_false(p.screen.cursor_hidden || p.screen.paste_mode);
	assert_true(pty_is_cooked(&p));
	expect_exit(&p, 0);
}

static void menu_gives_the_choice(void **state)
{
	static const struct {
		const char *keys, *want;
	} cases[] = {
		{ "\r", "choice 0" },
		{ "\033[B\r", "choice 1" },
		{ "\033[B\033[B\r", "choice 3" },
		{ "\033[A\r", "choice 3" },
		{ "e", "choice 1" },
		{ "dX", "choice 3" },
		{ "\033", "choice -1" },
		{ "\x03", "choice -1" },
		{ "\x04", "choice -1" },
		{ "q", "choice -1" },
		{ "\033OB\r", "choice 1" },
		{ "\033[F\r", "choice 3" },
		{ "\033[200~e\r\033[201~\r", "choice 0" }, /* a paste chooses nothing */
	};
	const struct program program = { 0 };

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++)
		choose(&program, cases[i].keys, cases[i].want);
}

static void menu_leaves_only_the_choice(void **state)
{
	struct program program = { .no_color = true };
	struct pty p = { 0 };

	(void)state;
	pty_start(&p, 40, 10, menu_program, &program);
	pty_expect(&p, "❯ [r] 运行 Run");
	pty_type(&p, "\033[B\r");
	pty_expect(&p, "choice 1");
	assert_string_equal(screen_row(&p.screen, 0), "sudo 命令[8m hidden");
	assert_string_equal(screen_row(&p.screen, 1), "❯ Edit[8m");
	assert_string_equal(screen_row(&p.screen, 2), "choice 1");
	assert_false(screen_has(&p.screen, "Exit"));
	expect_exit(&p, 0);
}

static void menu_is_ascii_in_the_c_locale(void **state)
{
	struct program program = { .lang = "C" };
	struct pty p = { 0 };

	(void)state;
	pty_start(&p, 40, 10, menu_program, &program);
	pty_expect(&p, "> [r] 运行 Run");
	pty_type(&p, "x");
	pty_expect(&p, "choice 3");
	expect_exit(&p, 0);
}

static int slow_menu_program(void *arg)
{
	int n = 0;

	printf("thinking\n");
	(void)fflush(stdout);
	while (ioctl(STDIN_FILENO, FIONREAD, &n) == 0 && n < 2) /* both keys */
		(void)usleep(1000);
	return menu_program(arg);
}

static void early_keys_choose_nothing(void **state)
{
	struct program program = { 0 };
	struct pty p = { 0 };

	(void)state;
	pty_start(&p, 40, 10, slow_menu_program, &program);
	pty_expect(&p, "thinking");
	pty_type(&p, "\r\r");
	pty_expect(&p, "runs the command");
	pty_watch(&p, 200);
	assert_false(screen_has(&p.screen, "choice"));
	pty_type(&p, "x");
	pty_expect(&p, "choice 3");
	expect_exit(&p, 0);
}

static void dumb_menu_is_numbered(void **state)
{
	struct program program = { .term = "dumb", .lang = "C" };
	struct pty p = { 0 };

	(void)state;
	pty_start(&p, 60, 12, menu_program, &program);
	pty_expect(&p, "choice [1]:");
	assert_true(screen_has(&p.screen, "4) Exit"));
	pty_type(&p, "3\n");
	pty_type(&p, "4\n");
	pty_expect(&p, "choice 3");
	expect_exit(&p, 0);
}

static void question_wants_a_clear_answer(void **state)
{
	static const struct {
		const char *keys, *want;
	} cases[] = { { "y", "answer 1" },
		      { "n", "answer 0" },
		      { "\r", "answer 0" },
		      { "\x03", "answer 0" },
		      { "xY", "answer 1" } };
	struct program program = { 0 };

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		struct pty p = { 0 };

		pty_start(&p, 40, 10, confirm_program, &program);
		pty_expect(&p, "删除吗? [y/N]");
		pty_type(&p, cases[i].keys);
		pty_expect(&p, cases[i].want);
		expect_exit(&p, 0);
	}
}

static void form_asks_field_by_field(void **state)
{
	struct program program = { 0 };
	struct pty p = { 0 };

	(void)state;
	pty_start(&p, 40, 20, form_program, &program);
	pty_expect(&p, "端口:");
	pty_type(&p, "\r");
	pty_expect(&p, "may not be empty");
	pty_type(&p, "80a\r");
	pty_expect(&p, "not a number");
	pty_type(&p, "\x7f\r");
	pty_expect(&p, "路径: /etc");
	pty_type(&p, "/新\r");
	pty_expect(&p, "0 <80> </etc/新>");
	expect_exit(&p, 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(menu_gives_the_choice),         cmocka_unit_test(menu_leaves_only_the_choice),
		cmocka_unit_test(menu_is_ascii_in_the_c_locale), cmocka_unit_test(early_keys_choose_nothing),
		cmocka_unit_test(dumb_menu_is_numbered),         cmocka_unit_test(question_wants_a_clear_answer),
		cmocka_unit_test(form_asks_field_by_field),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
