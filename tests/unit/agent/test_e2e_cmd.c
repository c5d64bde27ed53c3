/* ocai cmd on a terminal: menu, edit in place, form, gate, running, and the failure-fix loop. */
#include "e2e.h"

#define MENU "[r] run"

/* ---- The menu ---- */

static void the_command_is_shown_with_a_menu_and_runs_on_enter(void **state)
{
	struct e2e *t = *state;

	E2E_SERVE(t, E2E_SAY("echo answer $((40 + 2))"));
	E2E_OCAI(t, "cmd", "say the answer");
	e2e_ask(t, MENU);
	e2e_expect(t, "    echo answer $((40 + 2))");
	e2e_expect(t, "only reads");
	e2e_expect(t, "[e] edit");
	e2e_expect(t, "[x] explain");
	e2e_expect(t, "[q] exit");
	assert_false(e2e_is_shown(t, "answer 42"));
	e2e_type(t, "\r");
	e2e_expect(t, "answer 42");
	e2e_ends(t, 0);
	assert_false(t->pty.screen.cursor_hidden || t->pty.screen.paste_mode);
	e2e_request_has(t, 0, "say the answer");
}

static void arrow_keys_reach_exit_and_nothing_runs(void **state)
{
	struct e2e *t = *state;

	E2E_SERVE(t, E2E_SAY("echo answer $((40 + 2))"));
	E2E_OCAI(t, "cmd", "say the answer");
	e2e_reply(t, MENU, "\033[B\033[B\033[B\r");
	e2e_ends(t, 0);
	assert_false(e2e_saw(t, "answer 42"));
}

static void ctrl_c_in_the_menu_leaves_and_nothing_runs(void **state)
{
	struct e2e *t = *state;

	E2E_SERVE(t, E2E_SAY("echo answer $((40 + 2))"));
	E2E_OCAI(t, "cmd", "say the answer");
	e2e_reply(t, MENU, "\x03");
	e2e_ends(t, 0);
	assert_false(e2e_saw(t, "answer 42"));
}

static void e_edits_the_command_in_place(void **state)
{
	struct e2e *t = *state;

	E2E_SERVE(t, E2E_SAY("echo old"));
	E2E_OCAI(t, "cmd", "say something");
	e2e_reply(t, MENU, "e");
	e2e_reply(t, "$ echo old", "\x7f\x7f\x7fnew $((6 * 7))\r");
	e2e_expect(t, "    echo new $((6 * 7))");
	e2e_reply(t, MENU, "r");
	e2e_expect(t, "new 42");
	e2e_ends(t, 0);
}

static void an_edited_command_is_judged_anew(void **state)
{
	struct e2e *t = *state;

	E2E_SERVE(t, E2E_SAY("echo harmless"));
	E2E_OCAI(t, "cmd", "say something");
	e2e_ask(t, "only reads");
	e2e_reply(t, MENU, "e");
	e2e_reply(t, "$ echo harmless", "\x15rm -rf precious\r");
	e2e_expect(t, "DESTRUCTIVE");
	/* No longer is "run" what Enter takes. */
	e2e_reply(t, MENU, "\r");
	e2e_ends(t, 0);
}

static void explain_asks_the_model_and_comes_back_to_the_menu(void **state)
{
	struct e2e *t = *state;

	E2E_SERVE(t, E2E_SAY("echo hi"), E2E_SAY("It **prints** hi."));
	E2E_OCAI(t, "cmd", "say hi");
	e2e_reply(t, MENU, "x");
	e2e_expect(t, "It prints hi.");
	e2e_reply(t, MENU, "q");
	e2e_ends(t, 0);
	e2e_request_has(t, 1, "Explain this command, part by part: `echo hi`");
}

static void ctrl_c_stops_an_explanation_and_comes_back_to_the_menu(void **state)
{
	struct e2e *t = *state;

	E2E_SERVE(t, E2E_SAY("echo hi"), FAKE_SSE(FAKE_DELTA("It prints") "\2"));
	E2E_OCAI(t, "cmd", "say hi");
	e2e_reply(t, MENU, "x");
	e2e_expect(t, "It prints");
	e2e_type(t, "\x03");
	e2e_expect(t, "(stopped)");
	e2e_reply(t, MENU, "q");
	e2e_ends(t, 0);
}

static void placeholders_become_a_form_and_values_stay_one_word(void **state)
{
	struct e2e *t = *state;

	E2E_SERVE(t, E2E_SAY("printf '[%s]' <first> <second>"));
	E2E_OCAI(t, "cmd", "print two words");
	e2e_reply(t, "first:", "a b;echo no\r");
	e2e_reply(t, "second:", "$HOME\r");
	e2e_expect(t, "printf '[%s]' 'a b;echo no' '$HOME'");
	e2e_reply(t, MENU, "r");
	e2e_expect(t, "[a b;echo no][$HOME]");
	e2e_ends(t, 0);
}

static void a_form_that_is_left_runs_nothing(void **state)
{
	struct e2e *t = *state;

	E2E_SERVE(t, E2E_SAY("echo x<name>x $((40 + 2)) <name>"));
	E2E_OCAI(t, "cmd", "print it");
	e2e_reply(t, "name:", "\x03");
	e2e_ends(t, 0);
	assert_false(e2e_saw(t, "42"));
}

/* ---- Running ---- */

static void the_exit_code_of_the_command_is_ours(void **state)
{
	struct e2e *t = *state;

	E2E_SERVE(t, E2E_SAY("sh -c 'exit 7'"));
	E2E_OCAI(t, "cmd", "fail");
	e2e_reply(t, MENU, "r");
	e2e_expect(t, "The command failed (exit code 7)");
	e2e_reply(t, "[q] exit", "q");
	e2e_ends(t, 7);
}

static void the_command_reads_and_writes_on_the_terminal(void **state)
{
	struct e2e *t = *state;

	E2E_SERVE(t, E2E_SAY("test -t 0 && test -t 1 && echo both $((1 + 1))"));
	E2E_OCAI(t, "cmd", "are there terminals");
	e2e_reply(t, MENU, "r");
	e2e_expect(t, "both 2");
	e2e_ends(t, 0);
}

static void colours_of_an_error_are_shown_but_not_sent_to_the_model(void **state)
{
	struct e2e *t = *state;

	e2e_write_text(t, "fail.sh", "printf '\\033[1;31mred words\\033[0m and more\\n' >&2; exit 5\n");
	E2E_SERVE(t, E2E_SAY("sh ./fail.sh"), E2E_SAY("No reason."), E2E_SAY("echo mended"));
	E2E_OCAI(t, "cmd", "fail in red");
	e2e_reply(t, MENU, "r");
	e2e_reply(t, "Run it? [y/N]", "y");
	e2e_reply(t, "[f] explain and fix", "f");
	e2e_reply(t, MENU, "q");
	e2e_ends(t, 5);
	assert_true(e2e_saw(t, "\033[1;31mred words\033[0m"));
	e2e_request_has(t, 2, "red words and more\\n");
}

static void errors_go_where_ours_go_and_are_kept_all_the_same(void **state)
{
	struct e2e *t = *state;
	char text[256] = "";
	FILE *f;

	e2e_write_text(t, "fail.sh", "test -t 2 || printf '\\033]0;title\\007\\033(Bplain words\\n' >&2; exit 5\n");
	E2E_SERVE(t, E2E_SAY("sh ./fail.sh"), E2E_SAY("No reason."), E2E_SAY("echo mended"));
	E2E_SHELL(t, "\"$OCAI\" cmd 'fail' 2>errors.txt");
	e2e_reply(t, MENU, "r");
	e2e_reply(t, "Run it? [y/N]", "y");
	e2e_reply(t, "[f] explain and fix", "f");
	e2e_reply(t, MENU, "q");
	e2e_ends(t, 5);
	e2e_request_has(t, 2, "error:\\nplain words\\n");
	f = fopen(e2e_path(t, "errors.txt"), "re");
	assert_non_null(f);
	(void)!fread(text, 1, sizeof(text) - 1, f);
	(void)fclose(f);
	assert_string_equal(text, "\033]0;title\007\033(Bplain words\n");
}

static void what_runs_on_in_the_background_keeps_nobody_waiting(void **state)
{
	struct e2e *t = *state;

	E2E_SERVE(t, E2E_SAY("sh -c 'while test ! -e stop; do sleep 0.1; done' & echo started $((1 + 1))"));
	E2E_OCAI(t, "cmd", "start it");
	e2e_reply(t, MENU, "r");
	if (!e2e_is_shown(t, "started 2"))
		e2e_expect(t, "started 2");
	e2e_ends(t, 0);
	e2e_write_text(t, "stop", "");
}

static void ctrl_c_reaches_the_command_and_not_us(void **state)
{
	struct e2e *t = *state;

	e2e_write_text(t, "wait.sh",
	               "trap 'echo interrupted >&2; exit 9' INT\necho waiting\n"
	               "while :; do sleep 0.05; done\n");
	E2E_SERVE(t, E2E_SAY("exec sh wait.sh"));
	E2E_OCAI(t, "cmd", "wait");
	e2e_reply(t, MENU, "r");
	e2e_reply(t, "Run it? [y/N]", "y");
	e2e_expect(t, "waiting");
	e2e_type(t, "\x03");
	e2e_expect(t, "interrupted");
	e2e_expect(t, "The command failed (exit code 9)");
	e2e_reply(t, "[q] exit", "q");
	e2e_ends(t, 9);
}

/* ---- Failure and fix ---- */

static void a_failure_is_explained_and_fixed_with_its_real_words_twice(void **state)
{
	struct e2e *t = *state;

	e2e_write_text(t, "one.sh", "echo first-$((1 + 1))-error >&2; exit 3\n");
	e2e_write_text(t, "two.sh", "echo second-$((2 + 2))-error >&2; exit 4\n");
	E2E_SERVE(t, E2E_SAY("sh ./one.sh"), E2E_SAY("The first reason."), E2E_SAY("sh ./two.sh"),
	          E2E_SAY("The second reason."), E2E_SAY("echo mended $((40 + 2))"));
	E2E_OCAI(t, "cmd", "do it");
	e2e_reply(t, MENU, "r");
	e2e_reply(t, "Run it? [y/N]", "y");
	e2e_expect(t, "first-2-error");
	e2e_expect(t, "The command failed (exit code 3)");
	e2e_reply(t, "[f] explain and fix", "f");
	e2e_expect(t, "The first reason.");
	e2e_expect(t, "    sh ./two.sh");
	e2e_reply(t, MENU, "r");
	e2e_reply(t, "Run it? [y/N]", "y");
	e2e_expect(t, "second-4-error");
	e2e_expect(t, "The command failed (exit code 4)");
	e2e_reply(t, "[f] explain and fix", "f");
	e2e_expect(t, "The second reason.");
	e2e_expect(t, "    echo mended $((40 + 2))");
	e2e_reply(t, MENU, "r");
	e2e_expect(t, "mended 42");
	e2e_ends(t, 0);
	/* To explain, and to mend: each time what really happened. */
	for (int i = 1; i <= 2; i++) {
		e2e_request_has(t, i, "exit code 3");
		e2e_request_has(t, i, "first-2-error");
		e2e_request_has(t, i, "sh ./one.sh");
		e2e_request_has(t, i + 2, "exit code 4");
		e2e_request_has(t, i + 2, "second-4-error");
		e2e_request_has(t, i + 2, "sh ./two.sh");
	}
}

static void a_fix_goes_through_the_gate_like_any_command(void **state)
{
	struct e2e *t = *state;

	e2e_write_text(t, "config/ocai/gate.rules", "deny touch\n");
	E2E_SERVE(t, E2E_SAY("cat nowhere"), E2E_SAY("It is not there."), E2E_SAY("touch nowhere"));
	E2E_OCAI(t, "cmd", "show it");
	e2e_reply(t, MENU, "r");
	e2e_reply(t, "[f] explain and fix", "f");
	e2e_expect(t, "    touch nowhere");
	e2e_expect(t, "will not be run");
	e2e_reply(t, MENU, "rq"); /* r is not to be had */
	e2e_ends(t, 1);
	assert_false(e2e_exists(t, "nowhere"));
}

static void a_server_lost_before_the_fix_loses_only_the_fix(void **state)
{
	struct e2e *t = *state;

	E2E_SERVE(t, E2E_SAY("cat nowhere"),
	          FAKE_JSON("500 Internal Server Error", "{\"error\":{\"message\":\"first trouble\"}}"),
	          FAKE_JSON("500 Internal Server Error", "{\"error\":{\"message\":\"second trouble\"}}"));
	E2E_OCAI(t, "cmd", "show it");
	e2e_reply(t, MENU, "r");
	e2e_reply(t, "[f] explain and fix", "f");
	e2e_expect(t, "first trouble");
	e2e_expect(t, "second trouble");
	e2e_ends(t, 1);
}

/* ---- The gate ---- */

static void what_destroys_is_asked_twice_and_the_default_is_no(void **state)
{
	struct e2e *t = *state;

	e2e_write_text(t, "precious/file", "x");
	E2E_SERVE(t, E2E_SAY("rm -rf precious"));
	E2E_OCAI(t, "cmd", "remove it");
	e2e_ask(t, "DESTRUCTIVE");
	e2e_reply(t, MENU, "r");
	e2e_reply(t, "Run it? [y/N]", "\r");
	e2e_reply(t, MENU, "r");
	e2e_reply(t, "Run it? [y/N]", "y");
	e2e_reply(t, "Really run it? [y/N]", "\r");
	e2e_ask(t, MENU);
	assert_true(e2e_exists(t, "precious/file"));
	e2e_type(t, "r");
	e2e_reply(t, "Run it? [y/N]", "y");
	e2e_reply(t, "Really run it? [y/N]", "y");
	e2e_ends(t, 0);
	assert_false(e2e_exists(t, "precious"));
}

static void what_is_denied_is_never_run(void **state)
{
	static const char *const answers[][2] = {
		{ E2E_SAY("touch marker"), NULL },
		{ E2E_SAY("env A=b touch marker"), NULL },
		{ E2E_SAY("bash -c 'touch marker'"), NULL },
	};
	struct e2e *t = *state;

	e2e_write_text(t, "config/ocai/gate.rules", "allow touch marker\ndeny touch\n");
	for (size_t i = 0; i < sizeof(answers) / sizeof(*answers); i++) {
		e2e_serve(t, answers[i]);
		E2E_OCAI(t, "cmd", "make it");
		e2e_expect(t, "will not be run");
		e2e_ask(t, MENU);
		e2e_type(t, "r"); /* nothing happens */
		e2e_type(t, "\033[A\033[A\033[A\033[B\033[B\033[B\033[Bq");
		e2e_ends(t, 0);
		assert_false(e2e_exists(t, "marker"));
	}
}

static void rules_that_cannot_be_read_run_nothing(void **state)
{
	struct e2e *t = *state;

	e2e_write_text(t, "config/ocai/gate.rules", "forbid touch\n");
	E2E_SERVE(t, E2E_SAY("echo answer $((40 + 2))"));
	E2E_OCAI(t, "cmd", "say it");
	e2e_expect(t, "gate.rules:1");
	e2e_ends(t, 1);
	assert_false(e2e_saw(t, "answer 42"));
}

/* ---- Other terminals ---- */

static void keys_come_from_the_terminal_while_standard_input_is_a_pipe(void **state)
{
	struct e2e *t = *state;

	E2E_SERVE(t, E2E_SAY("echo ready; read line && echo got $line"));
	E2E_SHELL(t, "echo piped words | \"$OCAI\" cmd 'read a line'");
	e2e_expect(t, "only reads");
	e2e_reply(t, MENU, "r");
	e2e_expect(t, "ready");
	e2e_type(t, "typed words\n"); /* the pipe has been read: the command gets the terminal */
	e2e_expect(t, "got typed words");
	e2e_ends(t, 0);
	e2e_request_has(t, 0, "piped words");
}

static void a_dumb_terminal_gets_a_numbered_menu(void **state)
{
	struct e2e *t = *state;

	e2e_env(t, "LANG", "C");
	for (int i = 0; i < 2; i++) {
		e2e_env(t, "TERM", i ? "dumb" : NULL);
		E2E_SERVE(t, E2E_SAY("echo answer $((40 + 2))"));
		E2E_OCAI(t, "cmd", "say the answer");
		e2e_expect(t, "choice [1]:");
		e2e_expect(t, "  2) edit");
		e2e_type(t, "1\n");
		e2e_expect(t, "answer 42");
		e2e_ends(t, 0);
		assert_false(e2e_saw(t, "\033"));
	}
}

static void a_tiny_window_still_has_its_menu(void **state)
{
	struct e2e *t = *state;

	E2E_SERVE(t, E2E_SAY("echo a rather long answer of $((40 + 2)) words"));
	e2e_start(t, 12, 4, t->program, (const char *const[]){ "cmd", "say it", NULL });
	e2e_reply(t, MENU, "\033[B\033[B\033[B");
	e2e_ask(t, "❯ [q] exit");
	e2e_reply(t, "[q]", "r");
	e2e_expect(t, "words");
	e2e_ends(t, 0);
	assert_true(e2e_saw(t, "a rather long answer of 42 words"));
}

static void no_color_gives_no_colour_but_still_a_menu(void **state)
{
	struct e2e *t = *state;

	e2e_env(t, "NO_COLOR", "1");
	E2E_SERVE(t, E2E_SAY("echo hi"));
	E2E_OCAI(t, "cmd", "say hi");
	e2e_reply(t, MENU, "q");
	e2e_ends(t, 0);
	for (const char *p = t->log; (p = strstr(p, "\033[")); p++) {
		if (p[2 + strspn(p + 2, "0123456789;")] == 'm')
			assert_memory_equal(p, "\033[0m", 4);
	}
}

static void a_chinese_locale_gets_a_chinese_menu(void **state)
{
	struct e2e *t = *state;

	e2e_env(t, "LANG", "zh_CN.UTF-8"); /* whether or not that locale is installed */
	E2E_SERVE(t, E2E_SAY("echo hi"));
	E2E_OCAI(t, "cmd", "say hi");
	e2e_expect(t, "只读");
	e2e_reply(t, "[r] 执行", "q");
	e2e_ends(t, 0);
}

static void a_chinese_question_works_in_the_c_locale_without_decoration(void **state)
{
	struct e2e *t = *state;

	e2e_env(t, "LANG", "C");
	E2E_SERVE(t, E2E_SAY("echo 内存"));
	E2E_OCAI(t, "cmd", "查看内存");
	e2e_expect(t, "    echo 内存");
	e2e_reply(t, "> [r] ", "r");
	e2e_ends(t, 0);
	e2e_request_has(t, 0, "查看内存");
	assert_false(e2e_saw(t, "❯") || e2e_saw(t, "…") || e2e_saw(t, "─") || e2e_saw(t, "│"));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		E2E_TEST(the_command_is_shown_with_a_menu_and_runs_on_enter),
		E2E_TEST(arrow_keys_reach_exit_and_nothing_runs),
		E2E_TEST(ctrl_c_in_the_menu_leaves_and_nothing_runs),
		E2E_TEST(e_edits_the_command_in_place),
		E2E_TEST(an_edited_command_is_judged_anew),
		E2E_TEST(explain_asks_the_model_and_comes_back_to_the_menu),
		E2E_TEST(ctrl_c_stops_an_explanation_and_comes_back_to_the_menu),
		E2E_TEST(placeholders_become_a_form_and_values_stay_one_word),
		E2E_TEST(a_form_that_is_left_runs_nothing),
		E2E_TEST(the_exit_code_of_the_command_is_ours),
		E2E_TEST(the_command_reads_and_writes_on_the_terminal),
		E2E_TEST(colours_of_an_error_are_shown_but_not_sent_to_the_model),
		E2E_TEST(errors_go_where_ours_go_and_are_kept_all_the_same),
		E2E_TEST(what_runs_on_in_the_background_keeps_nobody_waiting),
		E2E_TEST(ctrl_c_reaches_the_command_and_not_us),
		E2E_TEST(a_failure_is_explained_and_fixed_with_its_real_words_twice),
		E2E_TEST(a_fix_goes_through_the_gate_like_any_command),
		E2E_TEST(a_server_lost_before_the_fix_loses_only_the_fix),
		E2E_TEST(what_destroys_is_asked_twice_and_the_default_is_no),
		E2E_TEST(what_is_denied_is_never_run),
		E2E_TEST(rules_that_cannot_be_read_run_nothing),
		E2E_TEST(keys_come_from_the_terminal_while_standard_input_is_a_pipe),
		E2E_TEST(a_dumb_terminal_gets_a_numbered_menu),
		E2E_TEST(a_tiny_window_still_has_its_menu),
		E2E_TEST(no_color_gives_no_colour_but_still_a_menu),
		E2E_TEST(a_chinese_locale_gets_a_chinese_menu),
		E2E_TEST(a_chinese_question_works_in_the_c_locale_without_decoration),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
