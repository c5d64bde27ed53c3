/* ocai in scripts and pipes: what is on standard output is the answer and nothing else, remarks are on standard error,
 * exit codes mean what the manual page says. */
#include "e2e.h"

/* ---- cmd ---- */

static void cmd_prints_the_command_alone_where_there_is_no_terminal(void **state)
{
	struct e2e *t = *state;

	E2E_SERVE(t, E2E_SAY("Use this:\\n\\n```sh\\ndf -h\\n```\\nIt shows the disks."));
	assert_int_equal(E2E_RUN(t, NULL, "cmd", "show disk usage"), 0);
	e2e_out_is(t, "df -h\n");
	assert_string_equal(t->err, "");
}

static void print_and_quiet_show_the_command_alone_on_a_terminal_too(void **state)
{
	static const char *const ways[][4] = { { "cmd", "--print", "say hi" },
		                               { "cmd", "-q", "say hi" },
		                               { "--print", "cmd", "say hi" } };
	struct e2e *t = *state;

	for (size_t i = 0; i < 3; i++) {
		E2E_SERVE(t, E2E_SAY("echo hi"));
		e2e_start(t, 80, 24, t->program, ways[i]);
		e2e_ends(t, 0);
		assert_string_equal(t->log, "echo hi\r\n");
	}
}

static void json_is_one_object_with_the_class_of_the_command(void **state)
{
	struct e2e *t = *state;
	json_error_t why;
	json_t *json;

	E2E_SERVE(t, E2E_SAY("rm -rf \\\"old logs\\\""));
	assert_int_equal(E2E_RUN(t, NULL, "--json", "cmd", "删除旧日志"), 0);
	json = json_loads(t->out, 0, &why);
	assert_non_null(json);
	assert_string_equal(json_string_value(json_object_get(json, "question")), "删除旧日志");
	assert_string_equal(json_string_value(json_object_get(json, "command")), "rm -rf \"old logs\"");
	assert_string_equal(json_string_value(json_object_get(json, "class")), "destructive");
	assert_string_equal(json_string_value(json_object_get(json, "model")), "test-model");
	json_decref(json);
	assert_string_equal(t->err, "");
}

static void an_answer_without_a_command_is_a_failure_that_says_so(void **state)
{
	struct e2e *t = *state;

	E2E_SERVE(t, E2E_SAY("NONE"));
	assert_int_equal(E2E_RUN(t, NULL, "cmd", "make me happy"), 1);
	e2e_out_is(t, "");
	e2e_err_has(t, "the model knows no command for this");
	E2E_SERVE(t, E2E_SAY(""));
	assert_int_equal(E2E_RUN(t, NULL, "cmd", "make me happy"), 1);
	e2e_err_has(t, "the model's answer was empty");
}

/* ---- code ---- */

#define CODE_ANSWER \
	E2E_SAY("<think>hm</think>Sure:\\n\\n```python\\nimport os\\n\\nprint(\\\"你好\\\")\\n```\\n\\nEnjoy.")
#define CODE "import os\n\nprint(\"你好\")\n"

static void code_prints_the_code_alone(void **state)
{
	struct e2e *t = *state;

	E2E_SERVE(t, CODE_ANSWER);
	assert_int_equal(E2E_RUN(t, NULL, "code", "-l", "python", "greet"), 0);
	e2e_out_is(t, CODE);
	assert_string_equal(t->err, "");
	e2e_request_has(t, 0, "python: greet");
	E2E_SERVE(t, CODE_ANSWER);
	E2E_OCAI(t, "code", "greet"); /* on a terminal as well */
	e2e_ends(t, 0);
	assert_string_equal(t->log, "import os\r\n\r\nprint(\"你好\")\r\n");
}

static void code_goes_to_a_file_whole_or_not_at_all(void **state)
{
	struct e2e *t = *state;
	char *text;

	E2E_SERVE(t, CODE_ANSWER);
	assert_int_equal(E2E_RUN(t, NULL, "code", "-o", "greet.py", "greet"), 0);
	e2e_out_is(t, "");
	text = e2e_slurp(open(e2e_path(t, "greet.py"), O_RDONLY | O_CLOEXEC));
	assert_string_equal(text, CODE);
	free(text);
	E2E_SERVE(t, FAKE_SSE(FAKE_DELTA("```python\\nimport") "data: half"));
	assert_int_equal(E2E_RUN(t, NULL, "code", "-o", "greet.py", "greet again"), 1);
	e2e_err_has(t, "the answer ends before its end");
	text = e2e_slurp(open(e2e_path(t, "greet.py"), O_RDONLY | O_CLOEXEC));
	assert_string_equal(text, CODE);
	free(text);
}

/* ---- The router ---- */

static void the_router_says_who_answers(void **state)
{
	static const struct {
		const char *question, *said;
	} cases[] = {
		{ "what is an inode?", "[chat: conversation]\n" },
		{ "show open ports", "[cmd: one command]\n" },
		{ "write a script that counts lines", "[code: code]\n" },
		{ "什么是符号链接", "[chat: 对话]\n" },
		{ "查看端口", "[cmd: 命令]\n" },
	};
	struct e2e *t = *state;

	for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
		E2E_SERVE(t, E2E_SAY("uptime"));
		assert_int_equal(E2E_RUN(t, NULL, cases[i].question), 0);
		assert_string_equal(t->err, cases[i].said);
		e2e_out_is(t, "uptime\n");
	}
	E2E_SERVE(t, E2E_SAY("uptime"));
	assert_int_equal(E2E_RUN(t, NULL, "-q", "what is an inode?"), 0);
	assert_string_equal(t->err, "");
	E2E_SERVE(t, E2E_SAY("uptime"));
	assert_int_equal(E2E_RUN(t, NULL, "--print", "what is an inode?"), 0);
	assert_string_equal(t->err, "");
	e2e_out_is(t, "uptime\n");
}

static void a_routed_command_has_its_menu_on_a_terminal(void **state)
{
	struct e2e *t = *state;

	E2E_SERVE(t, E2E_SAY("echo answer $((40 + 2))"));
	E2E_OCAI(t, "show the answer");
	e2e_expect(t, "[cmd: one command]");
	e2e_reply(t, "[r] run", "r");
	e2e_expect(t, "answer 42");
	e2e_ends(t, 0);
}

/* ---- Pipes ---- */

static void what_is_piped_in_goes_with_the_question(void **state)
{
	struct e2e *t = *state;

	E2E_SERVE(t, E2E_SAY("**Out** of memory."));
	assert_int_equal(E2E_RUN(t, "kernel: Out of memory\n\033[31mred\033[0m\n", "why?"), 0);
	e2e_out_is(t, "**Out** of memory.\n"); /* Markdown as it is: no terminal */
	e2e_request_has(t, 0, "why?\\n\\n--- standard input ---\\nkernel: Out of memory");
	assert_null(strstr(e2e_request(t, 0), "\\u001b"));
}

static void without_words_what_is_piped_in_is_the_question(void **state)
{
	struct e2e *t = *state;

	E2E_SERVE(t, E2E_SAY("An index node."));
	assert_int_equal(E2E_RUN(t, "what is an inode?\n", "--quiet"), 0);
	e2e_out_is(t, "An index node.\n");
	e2e_request_has(t, 0, "what is an inode?");
	assert_int_equal(E2E_RUN(t, "", "cmd"), 2);
	e2e_err_has(t, "a question is missing");
}

static void an_attached_file_goes_along(void **state)
{
	struct e2e *t = *state;

	e2e_write_text(t, "a.log", "disk full\n");
	E2E_SERVE(t, E2E_SAY("Clean up."));
	assert_int_equal(E2E_RUN(t, NULL, "--attach", "a.log", "explain this"), 0);
	e2e_request_has(t, 0, "--- file a.log ---\\ndisk full\\n--- end ---");
	assert_int_equal(E2E_RUN(t, NULL, "--attach", "b.log", "explain this"), 1);
	e2e_err_has(t, "ocai: b.log: No such file or directory");
}

static void an_answer_on_a_terminal_is_rendered_and_in_a_pipe_is_not(void **state)
{
	struct e2e *t = *state;

	E2E_SERVE(t, E2E_SAY("Some **bold** words."));
	E2E_OCAI(t, "what is bold?");
	e2e_ends(t, 0);
	assert_true(e2e_is_shown(t, "Some bold words."));
	assert_true(e2e_saw(t, "\033[1mbold"));
	E2E_SERVE(t, E2E_SAY("Some **bold** words."));
	E2E_SHELL(t, "\"$OCAI\" 'what is bold?' | cat");
	e2e_ends(t, 0);
	assert_true(e2e_is_shown(t, "Some **bold** words."));
	assert_false(e2e_saw(t, "\033["));
}

static void chat_without_a_terminal_takes_one_turn_a_line(void **state)
{
	struct e2e *t = *state;

	E2E_SERVE(t, E2E_SAY("One."), E2E_SAY("Two."));
	assert_int_equal(E2E_RUN(t, "first\nsecond\n", "chat"), 0);
	e2e_out_is(t, "One.\nTwo.\n");
	e2e_request_has(t, 1, "first");
	e2e_request_has(t, 1, "One.");
}

static void a_reader_that_goes_away_ends_us_quietly(void **state)
{
	struct e2e *t = *state;

	E2E_SERVE(t, FAKE_SSE(FAKE_DELTA("one\\n") "\3" FAKE_DELTA("two\\n") FAKE_DONE));
	E2E_SHELL(t, "\"$OCAI\" -q 'what is it?' | { exec </dev/null; echo closed; }");
	e2e_expect(t, "closed");
	fake_go(&t->server);
	e2e_ends(t, 0);
	assert_string_equal(t->log, "closed\r\n");
}

/* ---- Colour and language ---- */

static void colour_follows_terminal_no_color_and_option(void **state)
{
	static const struct {
		const char *no_color, *term, *option;
		bool want;
	} cases[] = {
		{ NULL, "xterm", "--color=auto", true },  { "1", "xterm", "--color=auto", false },
		{ NULL, "dumb", "--color=auto", false },  { NULL, "xterm", "--color=never", false },
		{ "1", "xterm", "--color=always", true },
	};
	struct e2e *t = *state;

	for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
		e2e_env(t, "NO_COLOR", cases[i].no_color);
		e2e_env(t, "TERM", cases[i].term);
		E2E_SERVE(t, E2E_SAY("Some **bold** words."));
		E2E_OCAI(t, "-q", cases[i].option, "what is bold?");
		e2e_ends(t, 0);
		assert_true(e2e_is_shown(t, "Some bold words."));
		if (e2e_saw(t, "\033[1m") != cases[i].want)
			fail_msg("case %zu: colour %s expected", i, cases[i].want ? "was" : "was not");
	}
}

static void wrong_usage_is_exit_code_2_and_names_the_option(void **state)
{
	struct e2e *t = *state;

	assert_int_equal(E2E_RUN(t, NULL, "cmd", "--prnt", "x"), 2);
	e2e_err_has(t, "--prnt");
	e2e_err_has(t, "--help' for more information.");
	assert_int_equal(E2E_RUN(t, NULL, "cmd", " "), 2);
	e2e_err_has(t, "the question is empty");
	assert_int_equal(E2E_RUN(t, NULL, "cmd"), 2);
	e2e_err_has(t, "a question is missing");
	assert_int_equal(E2E_RUN(t, NULL, "chat", "hello"), 2);
	assert_int_equal(E2E_RUN(t, NULL, "--help"), 0);
	assert_non_null(strstr(t->out, "chat"));
	assert_string_equal(t->err, "");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		E2E_TEST(cmd_prints_the_command_alone_where_there_is_no_terminal),
		E2E_TEST(print_and_quiet_show_the_command_alone_on_a_terminal_too),
		E2E_TEST(json_is_one_object_with_the_class_of_the_command),
		E2E_TEST(an_answer_without_a_command_is_a_failure_that_says_so),
		E2E_TEST(code_prints_the_code_alone),
		E2E_TEST(code_goes_to_a_file_whole_or_not_at_all),
		E2E_TEST(the_router_says_who_answers),
		E2E_TEST(a_routed_command_has_its_menu_on_a_terminal),
		E2E_TEST(what_is_piped_in_goes_with_the_question),
		E2E_TEST(without_words_what_is_piped_in_is_the_question),
		E2E_TEST(an_attached_file_goes_along),
		E2E_TEST(an_answer_on_a_terminal_is_rendered_and_in_a_pipe_is_not),
		E2E_TEST(chat_without_a_terminal_takes_one_turn_a_line),
		E2E_TEST(a_reader_that_goes_away_ends_us_quietly),
		E2E_TEST(colour_follows_terminal_no_color_and_option),
		E2E_TEST(wrong_usage_is_exit_code_2_and_names_the_option),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
