/* ocai chat on a terminal: streaming, several turns, slash commands, Ctrl-C, pastes, a window that changes its size. */
#include "e2e.h"

#include "base/buf.h"
#include "base/cleanup.h"

/* After what was answered is on the screen, the next prompt reads keys. */
static void say(struct e2e *t, const char *keys)
{
	e2e_reply(t, ">", keys);
}

static void leave(struct e2e *t)
{
	say(t, "\x04");
	e2e_ends(t, 0);
	assert_false(t->pty.screen.cursor_hidden || t->pty.screen.paste_mode);
}

static char *read_file(struct e2e *t, const char *rest)
{
	int fd = open(e2e_path(t, rest), O_RDONLY | O_CLOEXEC);

	assert_true(fd >= 0);
	return e2e_slurp(fd);
}

/* ---- Answers ---- */

static void an_answer_is_shown_while_it_still_comes(void **state)
{
	struct e2e *t = *state;

	E2E_SERVE(t, FAKE_SSE(FAKE_DELTA("The first") "\3" FAKE_DELTA(" and the last words.") FAKE_DONE));
	E2E_OCAI(t, "chat");
	e2e_expect(t, "/help lists commands");
	say(t, "go\r");
	e2e_expect(t, "The first");
	assert_false(e2e_is_shown(t, "the last words"));
	fake_go(&t->server);
	e2e_expect(t, "The first and the last words.");
	leave(t);
}

static void the_second_question_goes_with_the_first_and_its_answer(void **state)
{
	struct e2e *t = *state;

	E2E_SERVE(t, E2E_SAY("Paris it is."), E2E_SAY("Two millions."));
	E2E_OCAI(t, "chat");
	say(t, "capital of France?\r");
	e2e_expect(t, "Paris it is.");
	say(t, "how many people?\r");
	e2e_expect(t, "Two millions.");
	leave(t);
	assert_null(strstr(e2e_request(t, 0), "how many people?"));
	e2e_request_has(t, 1, "capital of France?");
	e2e_request_has(t, 1, "Paris it is.");
	e2e_request_has(t, 1, "how many people?");
}

static void chinese_cut_inside_its_characters_arrives_whole(void **state)
{
	/* 内存不足 and 处理, cut after each kind of byte, in HTTP chunks too. */
	static const char *const answers[] = {
		FAKE_SSE("data: {\"choices\":[{\"delta\":{\"content\":\"\xe5\1\x86\1\x85\xe5\xad\1\x98\"}}]}\n"
		         "\1\n" FAKE_DELTA("不\xe8\1\xb6\xb3\\ud83d\\ude00。") FAKE_DONE),
		"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\nConnection: "
		"close\r\n\r\n"
		"29\r\ndata: {\"choices\":[{\"delta\":{\"content\":\"\xe5\xa4\r\n\1"
		"7\r\n\x84\xe7\x90\x86\"}}\r\n\1"
		"4\r\n]}\n\n\r\n"
		"e\r\ndata: [DONE]\n\n\r\n0\r\n\r\n",
		NULL
	};
	struct e2e *t = *state;

	e2e_serve(t, answers);
	E2E_OCAI(t, "chat");
	say(t, "怎么了?\r");
	e2e_expect(t, "内存不足😀。");
	say(t, "怎么办?\r");
	e2e_expect(t, "处理");
	leave(t);
	e2e_request_has(t, 0, "怎么了?");
	e2e_request_has(t, 1, "内存不足😀。");
	assert_false(e2e_saw(t, "\xef\xbf\xbd"));
}

static void markdown_is_rendered(void **state)
{
	struct e2e *t = *state;

	E2E_SERVE(t, E2E_SAY("# Title\\n\\nSome **bold** and `code`.\\n\\n- one\\n- two\\n\\n```sh\\nls "
	                     "-l *.c\\n```\\n\\n| a | b |\\n|---|---|\\n| 中文 | x |\\n\\nThe end."));
	E2E_OCAI(t, "chat");
	say(t, "go\r");
	e2e_expect(t, "The end.");
	assert_true(e2e_is_shown(t, "Title"));
	assert_true(e2e_is_shown(t, "Some bold and code."));
	assert_true(e2e_is_shown(t, "• one"));
	assert_true(e2e_is_shown(t, "ls -l *.c"));
	assert_true(e2e_is_shown(t, "中文"));
	assert_false(e2e_is_shown(t, "```") || e2e_is_shown(t, "**") || e2e_is_shown(t, "|---"));
	leave(t);
}

static void an_answer_cannot_act_on_the_terminal(void **state)
{
	struct e2e *t = *state;

	E2E_SERVE(t, E2E_SAY("safe\\u001b[2J\\u001b]0;title\\u0007\\u009b31mwords"));
	E2E_OCAI(t, "chat");
	say(t, "go\r");
	e2e_expect(t, "safe[2J]0;title31mwords");
	leave(t);
}

/* ---- Stopping ---- */

static void ctrl_c_stops_the_answer_and_not_the_program(void **state)
{
	struct e2e *t = *state;

	E2E_SERVE(t, FAKE_SSE(FAKE_DELTA("Half an answer") "\2"), E2E_SAY("A whole one."));
	E2E_OCAI(t, "chat");
	say(t, "go\r");
	e2e_expect(t, "Half an answer");
	e2e_type(t, "\x03");
	e2e_expect(t, "(stopped)");
	e2e_wait_count(&t->server.n_gone, 1, "connections that were closed");
	say(t, "again\r");
	e2e_expect(t, "A whole one.");
	leave(t);
	e2e_request_has(t, 1, "Half an answer");
}

static void ctrl_c_before_the_first_word_takes_the_question_back(void **state)
{
	struct e2e *t = *state;

	E2E_SERVE(t, "\2", E2E_SAY("A whole one."));
	E2E_OCAI(t, "chat");
	say(t, "first question\r");
	(void)e2e_request(t, 0);
	e2e_type(t, "\x03");
	e2e_expect(t, "(stopped)");
	e2e_wait_count(&t->server.n_gone, 1, "connections that were closed");
	say(t, "\033[A and more\r"); /* it is called back with the arrow key */
	e2e_expect(t, "A whole one.");
	leave(t);
	e2e_request_has(t, 1, "first question and more");
}

static void ctrl_c_stops_a_connection_and_not_the_program(void **state)
{
	struct e2e *t = *state;

	e2e_env(t, "OCAI_MODEL", NULL);
	E2E_SERVE(t, "\2", "\2", FAKE_MODELS, E2E_SAY("A whole one."));
	E2E_OCAI(t, "chat");
	for (int i = 0; i < 2; i++) { /* the list of models is asked for first, by either */
		say(t, i ? "go\r" : "/model\r");
		(void)e2e_request(t, i);
		e2e_type(t, "\x03");
		e2e_expect(t, "(stopped)");
		e2e_wait_count(&t->server.n_gone, i + 1, "connections that were closed");
	}
	say(t, "again\r");
	e2e_expect(t, "A whole one.");
	leave(t);
}

static void ctrl_c_clears_a_line_and_ctrl_d_leaves(void **state)
{
	struct e2e *t = *state;

	E2E_SERVE(t, E2E_SAY("unused"));
	E2E_OCAI(t, "chat");
	say(t, "not meant\x03");
	e2e_expect(t, "^C");
	leave(t);
	assert_int_equal(atomic_load(&t->server.n_requests), 0);
}

/* ---- Commands with a slash ---- */

static void help_lists_the_commands_and_an_unknown_one_says_so(void **state)
{
	static const char *const names[] = { "/help", "/model", "/attach", "/save", "/clear", "/exit" };
	struct e2e *t = *state;

	E2E_SERVE(t, E2E_SAY("unused"));
	E2E_OCAI(t, "chat");
	say(t, "/help\r");
	for (size_t i = 0; i < sizeof(names) / sizeof(*names); i++)
		e2e_expect(t, names[i]);
	say(t, "/hlep\r");
	e2e_expect(t, "/hlep: no such command; /help lists them");
	say(t, "/exit\r");
	e2e_ends(t, 0);
	assert_int_equal(atomic_load(&t->server.n_requests), 0);
}

static void model_changes_who_answers(void **state)
{
	struct e2e *t = *state;

	E2E_SERVE(t, E2E_SAY("One."), E2E_SAY("Two."));
	E2E_OCAI(t, "chat");
	say(t, "first\r");
	e2e_expect(t, "One.");
	say(t, "/model other-model\r");
	e2e_expect(t, "other-model");
	say(t, "second\r");
	e2e_expect(t, "Two.");
	leave(t);
	e2e_request_has(t, 0, "\"test-model\"");
	e2e_request_has(t, 1, "\"other-model\"");
	e2e_request_has(t, 1, "first");
}

static void save_writes_the_conversation(void **state)
{
	struct e2e *t = *state;
	char *text;

	E2E_SERVE(t, E2E_SAY("**Bold** answer."));
	E2E_OCAI(t, "chat");
	say(t, "a question\r");
	e2e_expect(t, "Bold answer.");
	say(t, "/save talk.md\r");
	e2e_expect(t, "saved to talk.md");
	say(t, "/save nowhere/talk.md\r");
	e2e_expect(t, "ocai: nowhere/talk.md");
	e2e_expect(t, "No such file or directory");
	leave(t);
	text = read_file(t, "talk.md");
	assert_string_equal(text, "## user\n\na question\n\n## assistant\n\n**Bold** answer.\n");
	free(text);
}

static void clear_begins_a_new_conversation(void **state)
{
	struct e2e *t = *state;

	E2E_SERVE(t, E2E_SAY("One."), E2E_SAY("Two."));
	E2E_OCAI(t, "chat");
	say(t, "first question\r");
	e2e_expect(t, "One.");
	say(t, "/clear\r");
	e2e_expect(t, "a new conversation");
	say(t, "second question\r");
	e2e_expect(t, "Two.");
	leave(t);
	e2e_request_has(t, 1, "second question");
	assert_null(strstr(e2e_request(t, 1), "first question"));
}

static void attach_puts_a_file_into_the_next_question(void **state)
{
	struct e2e *t = *state;

	e2e_write_text(t, "notes.txt", "the secret word is 芝麻\n");
	E2E_SERVE(t, E2E_SAY("I see."), E2E_SAY("Still."));
	E2E_OCAI(t, "chat");
	say(t, "/attach missing.txt\r");
	e2e_expect(t, "ocai: missing.txt: No such file or directory");
	say(t, "/attach notes.txt\r");
	e2e_expect(t, "notes.txt goes with the next question");
	say(t, "what is the word?\r");
	e2e_expect(t, "I see.");
	say(t, "sure?\r");
	e2e_expect(t, "Still.");
	leave(t);
	e2e_request_has(t, 0, "--- file notes.txt ---");
	e2e_request_has(t, 0, "芝麻");
}

/* ---- History ---- */

static void a_conversation_is_resumed(void **state)
{
	struct e2e *t = *state;

	E2E_SERVE(t, E2E_SAY("Noted."));
	E2E_OCAI(t, "chat");
	say(t, "my host is called 天河\r");
	e2e_expect(t, "Noted.");
	leave(t);
	E2E_SERVE(t, E2E_SAY("天河, as you said."));
	E2E_OCAI(t, "chat", "--resume");
	e2e_expect(t, "(session 1: 2 messages)");
	say(t, "what is it called?\r");
	e2e_expect(t, "天河, as you said.");
	leave(t);
	e2e_request_has(t, 0, "my host is called 天河");
	e2e_request_has(t, 0, "Noted.");
	assert_int_equal(E2E_RUN(t, NULL, "history", "list"), 0);
	assert_non_null(strstr(t->out, "my host is called 天河"));
	assert_int_equal(E2E_RUN(t, NULL, "history", "show", "1"), 0);
	assert_non_null(strstr(t->out, "as you said."));
	assert_int_equal(E2E_RUN(t, NULL, "chat", "--resume", "99"), 1);
	assert_non_null(strstr(t->err, "there is no session 99"));
}

static void a_question_that_found_no_answer_is_kept_and_not_asked_again(void **state)
{
	struct e2e *t = *state;

	e2e_env(t, "OCAI_URL", "http://127.0.0.1:1"); /* nobody is there, not even for the first question */
	E2E_OCAI(t, "chat");
	say(t, "question one\r");
	e2e_expect(t, "no server answers at http://127.0.0.1:1");
	leave(t);
	assert_int_equal(E2E_RUN(t, NULL, "history", "show", "1"), 0);
	assert_non_null(strstr(t->out, "question one"));
	E2E_SERVE(t, E2E_SAY("Answer two."));
	E2E_OCAI(t, "chat", "--resume=1");
	e2e_expect(t, "(session 1: 0 messages)");
	say(t, "question two\r");
	e2e_expect(t, "Answer two.");
	leave(t);
	assert_null(strstr(e2e_request(t, 0), "question one"));
	assert_int_equal(E2E_RUN(t, NULL, "history", "show", "1"), 0);
	assert_non_null(strstr(t->out, "question one"));
	assert_non_null(strstr(t->out, "Answer two."));
}

static void a_terminal_that_goes_away_in_an_answer_takes_no_question_along(void **state)
{
	struct e2e *t = *state;
	int status;

	E2E_SERVE(t, FAKE_SSE(FAKE_DELTA("Half an answer") "\2"));
	E2E_OCAI(t, "chat");
	say(t, "a long question\r");
	e2e_expect(t, "Half an answer");
	(void)close(t->pty.master); /* the window is closed, the connection lost */
	t->has_pty = false;
	assert_int_equal(waitpid(t->pty.pid, &status, 0), t->pty.pid);
	e2e_wait_count(&t->server.n_gone, 1, "connections that were closed");
	assert_int_equal(E2E_RUN(t, NULL, "history", "show", "1"), 0);
	assert_non_null(strstr(t->out, "a long question"));
}

/* ---- The terminal ---- */

static void a_paste_of_many_lines_is_one_question(void **state)
{
	struct e2e *t = *state;

	E2E_SERVE(t, E2E_SAY("Read."));
	E2E_OCAI(t, "chat");
	say(t, "\033[200~line one\r\n/help\r\n\tline three\r\n第四行\033[201~");
	e2e_expect(t, "第四行");
	assert_int_equal(atomic_load(&t->server.n_requests), 0);
	e2e_type(t, "\r");
	e2e_expect(t, "Read.");
	leave(t);
	e2e_request_has(t, 0, "line one\\n/help\\n\\tline three\\n第四行");
}

static void a_large_paste_arrives_whole(void **state)
{
	CLEANUP(base_buf_done) struct base_buf paste = BASE_BUF_INIT(1 << 16), wanted = BASE_BUF_INIT(1 << 16);
	struct e2e *t = *state;

	assert_int_equal(base_buf_puts(&paste, "\033[200~"), 0);
	for (int i = 0; i < 400; i++) {
		assert_int_equal(base_buf_printf(&paste, "%sline number %d", i ? "\r" : "", i), 0);
		assert_int_equal(base_buf_printf(&wanted, "%sline number %d", i ? "\\n" : "", i), 0);
	}
	assert_int_equal(base_buf_puts(&paste, "\033[201~\r"), 0);
	e2e_write_text(t, "config/ocai/ocai.conf", "[backend]\ncontext = 32768\n"); /* nothing needs to be left out */
	E2E_SERVE(t, E2E_SAY("Read."));
	E2E_OCAI(t, "chat");
	e2e_ask(t, ">");
	for (size_t i = 0; i < paste.len;) { /* a terminal takes no more than 4 KiB at once */
		ssize_t k = write(t->pty.master, paste.data + i, paste.len - i < 1024 ? paste.len - i : 1024);

		assert_true(k > 0);
		i += (size_t)k;
		(void)e2e_read(t, 0);
	}
	e2e_expect(t, "Read.");
	leave(t);
	e2e_request_has(t, 0, base_buf_text(&wanted));
}

static void what_is_typed_during_an_answer_is_the_next_question(void **state)
{
	struct e2e *t = *state;

	E2E_SERVE(t, FAKE_SSE(FAKE_DELTA("First half. ") "\3" FAKE_DELTA("Second half.") FAKE_DONE), E2E_SAY("Next."));
	E2E_OCAI(t, "chat");
	say(t, "one\r");
	e2e_expect(t, "First half.");
	e2e_type(t, "twx\x7fo 二\r");
	fake_go(&t->server);
	e2e_expect(t, "First half. Second half."); /* not echoed into it */
	e2e_expect(t, "> two 二");
	e2e_expect(t, "Next.");
	leave(t);
	e2e_request_has(t, 1, "\"two 二\"");
}

static void an_answer_follows_the_window(void **state)
{
	struct winsize narrow = { .ws_col = 30, .ws_row = 40 };
	struct e2e *t = *state;

	E2E_SERVE(t,
	          FAKE_SSE(FAKE_DELTA("A short beginning.\\n\\n") "\3" FAKE_DELTA(
	                  "This long line of words is wrapped at thirty columns now.\\n\\nThe end.") FAKE_DONE),
	          E2E_SAY("This long line of words is wrapped at thirty columns too."));
	E2E_OCAI(t, "chat");
	say(t, "go\r");
	e2e_expect(t, "A short beginning.");
	assert_int_equal(ioctl(t->pty.master, TIOCSWINSZ, &narrow), 0);
	screen_done(&t->pty.screen);
	screen_init(&t->pty.screen, 30, 40);
	fake_go(&t->server);
	e2e_expect(t, "The end.");
	assert_true(e2e_is_shown(t, "wrapped at thirty columns")); /* not broken inside a word by the terminal */
	say(t, "again\r");
	e2e_expect(t, "too.");
	assert_true(e2e_is_shown(t, "wrapped at thirty columns"));
	leave(t);
}

static void keys_come_from_the_terminal_and_the_pipe_goes_with_the_first_question(void **state)
{
	struct e2e *t = *state;

	E2E_SERVE(t, E2E_SAY("It ran out of memory."), E2E_SAY("Add some."));
	E2E_SHELL(t, "echo 'kernel: Out of memory' | \"$OCAI\" chat");
	say(t, "why?\r");
	e2e_expect(t, "It ran out of memory.");
	say(t, "and now?\r");
	e2e_expect(t, "Add some.");
	leave(t);
	e2e_request_has(t, 0, "--- standard input ---\\nkernel: Out of memory");
}

#define MUCH_MARKDOWN                                                                                                 \
	E2E_SAY("# Title\\n\\n- **one**\\n  - two\\n\\n> quoted\\n\\n1. `x`\\n\\n---\\n\\n```\\ncode\\n```\\n\\n| a " \
	        "| "                                                                                                  \
	        "b |\\n|---|---|\\n| c | d |\\n\\n[link](http://localhost/) The end.")

static void a_dumb_terminal_gets_no_sequences(void **state)
{
	struct e2e *t = *state;

	e2e_env(t, "TERM", "dumb");
	E2E_SERVE(t, MUCH_MARKDOWN);
	E2E_OCAI(t, "chat");
	e2e_expect(t, ">");
	e2e_type(t, "go\n");
	e2e_expect(t, "The end.");
	e2e_type(t, "\x04");
	e2e_ends(t, 0);
	assert_false(e2e_saw(t, "\033"));
}

static void the_c_locale_gets_no_decoration_beyond_ascii(void **state)
{
	static const char *const terms[] = { "xterm-256color", "dumb" };
	struct e2e *t = *state;

	e2e_env(t, "LANG", "C");
	for (size_t i = 0; i < 2; i++) {
		e2e_env(t, "TERM", terms[i]);
		E2E_SERVE(t, MUCH_MARKDOWN);
		E2E_OCAI(t, "chat");
		e2e_expect(t, ">");
		e2e_type(t, i ? "go\n" : "go\r");
		e2e_expect(t, "The end.");
		e2e_type(t, "\x04");
		e2e_ends(t, 0);
		for (size_t k = 0; k < t->n_log; k++)
			assert_true((unsigned char)t->log[k] < 0x80);
	}
}

static void a_chinese_question_works_in_the_c_locale(void **state)
{
	struct e2e *t = *state;

	e2e_env(t, "LANG", "C");
	E2E_SERVE(t, E2E_SAY("内存够用。"));
	E2E_OCAI(t, "chat");
	say(t, "内存够吗\x7f\x7f不够\r");
	e2e_expect(t, "内存够用。");
	leave(t);
	e2e_request_has(t, 0, "内存不够");
}

static void a_chinese_locale_talks_chinese(void **state)
{
	struct e2e *t = *state;

	e2e_env(t, "LANG", "zh_CN.UTF-8");
	E2E_SERVE(t, FAKE_SSE(FAKE_DELTA("一半") "\2"));
	E2E_OCAI(t, "chat");
	e2e_expect(t, "/help 查看命令");
	say(t, "你好\r");
	e2e_expect(t, "一半");
	e2e_type(t, "\x03");
	e2e_expect(t, "(已停止)");
	leave(t);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		E2E_TEST(an_answer_is_shown_while_it_still_comes),
		E2E_TEST(the_second_question_goes_with_the_first_and_its_answer),
		E2E_TEST(chinese_cut_inside_its_characters_arrives_whole),
		E2E_TEST(markdown_is_rendered),
		E2E_TEST(an_answer_cannot_act_on_the_terminal),
		E2E_TEST(ctrl_c_stops_the_answer_and_not_the_program),
		E2E_TEST(ctrl_c_before_the_first_word_takes_the_question_back),
		E2E_TEST(ctrl_c_stops_a_connection_and_not_the_program),
		E2E_TEST(ctrl_c_clears_a_line_and_ctrl_d_leaves),
		E2E_TEST(help_lists_the_commands_and_an_unknown_one_says_so),
		E2E_TEST(model_changes_who_answers),
		E2E_TEST(save_writes_the_conversation),
		E2E_TEST(clear_begins_a_new_conversation),
		E2E_TEST(attach_puts_a_file_into_the_next_question),
		E2E_TEST(a_conversation_is_resumed),
		E2E_TEST(a_question_that_found_no_answer_is_kept_and_not_asked_again),
		E2E_TEST(a_terminal_that_goes_away_in_an_answer_takes_no_question_along),
		E2E_TEST(a_paste_of_many_lines_is_one_question),
		E2E_TEST(a_large_paste_arrives_whole),
		E2E_TEST(what_is_typed_during_an_answer_is_the_next_question),
		E2E_TEST(an_answer_follows_the_window),
		E2E_TEST(keys_come_from_the_terminal_and_the_pipe_goes_with_the_first_question),
		E2E_TEST(a_dumb_terminal_gets_no_sequences),
		E2E_TEST(the_c_locale_gets_no_decoration_beyond_ascii),
		E2E_TEST(a_chinese_question_works_in_the_c_locale),
		E2E_TEST(a_chinese_locale_talks_chinese),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
