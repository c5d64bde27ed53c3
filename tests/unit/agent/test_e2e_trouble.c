/* ocai when things go wrong: servers that refuse, fail, break off or talk nonsense; wrong settings. Each time the
 * message names what is wrong, the exit code is the documented one. test_e2e_disk.c has disks and histories. */
#include "e2e.h"

/* ---- Servers ---- */

static void every_bad_answer_has_its_own_clear_message(void **state)
{
	static const struct {
		const char *answer, *message, *out;
	} cases[] = {
		{ FAKE_JSON("500 Internal Server Error", "{\"error\":{\"message\":\"out of pages\"}}"),
		  "answered with status 500: out of pages", "" },
		{ FAKE_JSON("500 Internal Server Error", "{\"error\":\"plain words\"}"),
		  "answered with status 500: plain words", "" },
		{ "HTTP/1.1 500 Internal Server Error\r\nContent-Type: text/html\r\nConnection: "
		  "close\r\n\r\n<html><body><h1>500</h1></body></html>",
		  "answered with status 500", "" },
		{ "HTTP/1.1 500 Internal Server Error\r\nContent-Length: 0\r\nConnection: close\r\n\r\n",
		  "answered with status 500", "" },
		{ FAKE_JSON("404 Not Found", "{\"message\":\"no model test-model\"}"),
		  "answered with status 404: no model test-model", "" },
		{ FAKE_JSON("401 Unauthorized", "{\"error\":{\"message\":\"bad key\"}}"), "status 401: bad key", "" },
		{ "HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nConnection: close\r\n\r\n<html>log in first</html>",
		  "the answer ends before its end", "" },
		{ FAKE_JSON("200 OK", ""), "the answer ends before its end", "" },
		{ FAKE_JSON("200 OK", "{\"choices\":"), "the answer is not JSON", "" },
		{ FAKE_JSON("200 OK", "{}"), "no choices[0].message.content", "" },
		{ "no HTTP at all\r\n\r\n", "http://127.0.0.1:", "" },
		{ "", "http://127.0.0.1:", "" },
		{ FAKE_SSE(FAKE_DELTA("half an") "data: {\"choi"), "the answer ends before its end", "half an\n" },
		{ FAKE_SSE(FAKE_DELTA("no end")), "the answer ends before its end", "no end\n" },
		{ FAKE_SSE(FAKE_DELTA("good") "data: \xff\xfe\x80 garbage\n\n"), "a piece of the answer", "good\n" },
		{ FAKE_SSE(FAKE_DELTA("good") "data: {\"error\":{\"message\":\"no memory left\"}}\n\n"),
		  "stopped the answer: no memory left", "good\n" },
		{ "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nContent-Length: 5000\r\n\r\n" FAKE_DELTA(
		          "cut"),
		  "the connection broke in the middle of the answer", "cut\n" },
	};
	struct e2e *t = *state;

	for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
		const char *const answers[] = { cases[i].answer, NULL };
		int code;

		e2e_serve(t, answers);
		code = E2E_RUN(t, NULL, "--quiet", "what is it?");
		if (code != 1 || !strstr(t->err, cases[i].message) || strncmp(t->err, "ocai: ", 6) != 0 ||
		    strcmp(t->out, cases[i].out) != 0 || strchr(t->err, '\n') != t->err + strlen(t->err) - 1)
			fail_msg("case %zu: %d, '%s', '%s'", i, code, t->out, t->err);
		e2e_stop_server(t);
	}
}

static void an_end_without_done_is_an_end_when_the_server_gives_its_reason(void **state)
{
	struct e2e *t = *state;

	E2E_SERVE(t,
	          FAKE_SSE(FAKE_DELTA("whole") "data: {\"choices\":[{\"delta\":{},\"finish_reason\":\"stop\"}]}\n\n"));
	assert_int_equal(E2E_RUN(t, NULL, "--quiet", "what is it?"), 0);
	e2e_out_is(t, "whole\n");
}

static void comments_blank_lines_and_unknown_fields_in_a_stream_are_nothing(void **state)
{
	struct e2e *t = *state;

	E2E_SERVE(t,
	          FAKE_SSE(": keep-alive\n\n\r\n\r\nevent: message\r\nid: 7\r\nretry: 5\r\ndata: "
	                   "{\"choices\":[{\"delta\":{\"content\":\"fine\"}}]}\r\n\r\n:\n\ndata: "
	                   "{\"choices\":[]}\n\ndata: {\"choices\":[{\"delta\":{\"content\":null}}]}\n\n" FAKE_DONE));
	assert_int_equal(E2E_RUN(t, NULL, "--quiet", "what is it?"), 0);
	e2e_out_is(t, "fine\n");
}

static void an_endless_answer_is_ended_with_words(void **state)
{
	enum { PIECE = 8000, PIECES = 140 };
	struct e2e *t = *state;
	char *answer = calloc(PIECES + 2, PIECE + 100), *p = answer;
	const char *answers[] = { answer, NULL };

	assert_non_null(answer);
	p = stpcpy(p, "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close\r\n\r\n");
	for (int i = 0; i < PIECES; i++) {
		p = stpcpy(p, "data: {\"choices\":[{\"delta\":{\"content\":\"");
		memset(p, 'x', PIECE);
		p = stpcpy(p + PIECE, "\"}}]}\n\n");
	}
	e2e_serve(t, answers);
	assert_int_equal(E2E_RUN(t, NULL, "--quiet", "what is it?"), 1);
	e2e_err_has(t, "the answer is too long");
	assert_true(strlen(t->out) > 1000000); /* what came is shown */
	e2e_stop_server(t);
	free(answer);
}

static void nobody_there_is_named(void **state)
{
	struct sockaddr_in in = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	socklen_t len = sizeof(in);
	struct e2e *t = *state;
	char url[64], want[128];
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

	/* Bound, so that nobody else gets it, and not listening. */
	assert_int_equal(bind(fd, (struct sockaddr *)&in, sizeof(in)), 0);
	assert_int_equal(getsockname(fd, (struct sockaddr *)&in, &len), 0);
	(void)snprintf(url, sizeof(url), "http://127.0.0.1:%u", ntohs(in.sin_port));
	(void)snprintf(want, sizeof(want), "ocai: no server answers at %s\n", url);
	e2e_env(t, "OCAI_URL", url);
	assert_int_equal(E2E_RUN(t, NULL, "--quiet", "what is it?"), 1);
	assert_string_equal(t->err, want);
	assert_int_equal(E2E_RUN(t, NULL, "cmd", "show it"), 1);
	assert_string_equal(t->err, want);
	assert_int_equal(E2E_RUN(t, NULL, "code", "write it"), 1);
	assert_string_equal(t->err, want);
	(void)close(fd);
}

static void a_slow_server_is_waited_for(void **state)
{
	struct e2e *t = *state;

	E2E_SERVE(t, "\1\1\1\1\1\1\1\1\1\1" FAKE_SSE("\1\1\1\1\1" FAKE_DELTA("late") "\1\1\1\1\1" FAKE_DONE));
	assert_int_equal(E2E_RUN(t, NULL, "--quiet", "--timeout", "30", "what is it?"), 0);
	e2e_out_is(t, "late\n");
}

static void a_silent_server_is_given_up_after_the_timeout(void **state)
{
	struct e2e *t = *state;

	E2E_SERVE(t, "\2", FAKE_SSE(FAKE_DELTA("half") "\2"));
	assert_int_equal(E2E_RUN(t, NULL, "--quiet", "--timeout", "3", "what is it?"), 1);
	e2e_err_has(t, "did not answer within 3 seconds");
	assert_int_equal(E2E_RUN(t, NULL, "--quiet", "--timeout", "3", "what is it?"), 1);
	e2e_out_is(t, "half\n");
	e2e_err_has(t, "fell silent in the middle of the answer");
}

static void ctrl_c_ends_the_wait_for_a_silent_server(void **state)
{
	static const char *const words[][4] = { { "cmd", "show it" }, { "what is it?" }, { "code", "write it" } };
	struct e2e *t = *state;

	for (size_t i = 0; i < 3; i++) {
		E2E_SERVE(t, "\2");
		e2e_start(t, 80, 24, t->program, words[i]);
		(void)e2e_request(t, 0);
		e2e_type(t, "\x03");
		e2e_wait_count(&t->server.n_gone, 1, "connections that were closed");
		e2e_ends(t, 130);
		assert_true(e2e_is_shown(t, "(stopped)"));
	}
}

static void ctrl_c_ends_the_wait_for_an_engine_that_starts_slowly(void **state)
{
	struct e2e *t = *state;

	e2e_env(t, "OCAI_URL", NULL);
	e2e_env(t, "OCAI_ENGINE", e2e_path(t, "engine.sh"));
	e2e_write_text(t, "engine.sh", "#!/bin/sh\necho $$ >\"$HOME/engine.pid\"\nexec sleep 60\n");
	assert_int_equal(chmod(e2e_path(t, "engine.sh"), 0700), 0);
	E2E_SHELL(
	        t,
	        "trap : INT; \"$OCAI\" cmd 'show it'; code=$?; kill $(cat home/engine.pid) && echo alive; exit $code");
	while (!e2e_exists(t, "home/engine.pid"))
		assert_true(e2e_read(t, 5));
	e2e_type(t, "\x03");
	e2e_expect(t, "(stopped)");
	e2e_expect(t, "alive"); /* it may be ready for the next question */
	e2e_ends(t, 130);
}

static void a_chat_survives_every_broken_answer_and_keeps_what_came(void **state)
{
	struct e2e *t = *state;

	E2E_SERVE(t, FAKE_JSON("500 Internal Server Error", "{\"error\":{\"message\":\"first trouble\"}}"),
	          FAKE_SSE(FAKE_DELTA("The half that came") "data: {\"cho"), E2E_SAY("All is well."));
	E2E_OCAI(t, "chat");
	e2e_reply(t, ">", "question one\r");
	e2e_expect(t, "first trouble");
	e2e_reply(t, ">", "question two\r");
	e2e_expect(t, "The half that came");
	e2e_expect(t, "the answer ends before its end");
	e2e_reply(t, ">", "question three\r");
	e2e_expect(t, "All is well.");
	e2e_reply(t, ">", "\x04");
	e2e_ends(t, 0);
	e2e_request_has(t, 2, "question two");
	e2e_request_has(t, 2, "The half that came");
	/* The question that failed is in the history, too. */
	assert_int_equal(E2E_RUN(t, NULL, "history", "search", "question"), 0);
	assert_non_null(strstr(t->out, "question one"));
	assert_non_null(strstr(t->out, "question two"));
	assert_non_null(strstr(t->out, "question three"));
}

static void a_signal_in_a_question_puts_the_terminal_back(void **state)
{
	struct e2e *t = *state;
	int slave, status;

	E2E_SERVE(t, E2E_SAY("echo hi"));
	E2E_OCAI(t, "cmd", "say hi");
	slave = open(ptsname(t->pty.master), O_RDWR | O_NOCTTY | O_CLOEXEC); /* modes outlive the program */
	assert_true(slave >= 0);
	e2e_ask(t, "[r] run");
	assert_false(pty_is_cooked(&t->pty));
	assert_int_equal(kill(t->pty.pid, SIGTERM), 0);
	assert_int_equal(waitpid(t->pty.pid, &status, 0), t->pty.pid);
	assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGTERM);
	assert_true(pty_is_cooked(&t->pty));
	while (t->pty.screen.paste_mode || t->pty.screen.cursor_hidden)
		assert_true(e2e_read(t, 1000));
	(void)close(slave);
	(void)close(t->pty.master);
	t->has_pty = false;
}

static void nothing_a_server_says_acts_on_the_terminal(void **state)
{
	static const char *const words[][3] = { { "cmd", "show it" }, { "what is it?" } };
	struct e2e *t = *state;

	for (size_t i = 0; i < 2; i++) {
		E2E_SERVE(t,
		          FAKE_JSON("500 Internal Server Error",
		                    "{\"error\":{\"message\":\"bad\\u001b]0;title\\u0007\\u009b31mwords\\nnext\"}}"));
		e2e_start(t, 80, 24, t->program, words[i]);
		e2e_ends(t, 1);
		assert_true(e2e_is_shown(t, "title"));
		assert_false(e2e_saw(t, "\033]") || e2e_saw(t, "\302\233") || e2e_saw(t, "\007"));
	}
	e2e_env(t, "OCAI_MODEL", NULL);
	E2E_SERVE(t, FAKE_JSON("200 OK", "{\"data\":[{\"id\":\"model\\u001b]0;title\\u0007\"}]}"));
	E2E_OCAI(t, "chat");
	e2e_reply(t, ">", "/model\r");
	e2e_expect(t, "model]0;title");
	e2e_reply(t, ">", "\x04");
	e2e_ends(t, 0);
	/* No command that hides a part of itself is offered, and none that is pasted shows itself otherwise. */
	e2e_env(t, "OCAI_MODEL", "test-model");
	E2E_SERVE(t, E2E_SAY("frob\\u001b]0;x\\u0007nicate"), E2E_SAY("frob\\u202enicate"));
	for (int i = 0; i < 2; i++) {
		assert_int_equal(E2E_RUN(t, NULL, "cmd", "do it"), 1);
		e2e_out_is(t, "");
		e2e_err_has(t, "holds no command");
	}
	e2e_write_text(t, "config/ocai/gate.rules", "deny touch\n");
	E2E_SERVE(t, E2E_SAY("echo hi"));
	E2E_OCAI(t, "cmd", "do it");
	e2e_reply(t, "[r] run", "e");
	e2e_reply(t, "$ echo hi", "\x15\033[200~'frob\u202enicate' a && touch 'b\u2066c'\033[201~\r");
	e2e_expect(t, "will not be run");
	e2e_reply(t, "[r] run", "q");
	e2e_ends(t, 0);
	assert_true(e2e_saw(t, "frob") && e2e_saw(t, "nicate"));
	assert_false(e2e_saw(t, "\u202e") || e2e_saw(t, "\u2066"));
}

/* ---- Settings ---- */

static void a_wrong_setting_is_named_with_file_and_line(void **state)
{
	static const struct {
		const char *text, *message;
	} cases[] = {
		{ "[backend]\ntimeout = soon\n", "ocai.conf:2" },
		{ "[backend]\nallow-remote = perhaps\n", "ocai.conf:2" },
		{ "[backend]\ntimeout = 0\n", "timeouts are 1 to 86400 seconds" },
		{ "[backend\nurl = x\n", "ocai.conf:1" },
		{ "[backend]\nprofile = big\n", "there is no [profile big] in the configuration" },
	};
	struct e2e *t = *state;

	E2E_SERVE(t, E2E_SAY("unused"));
	for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
		int code;

		e2e_write_text(t, "config/ocai/ocai.conf", cases[i].text);
		code = E2E_RUN(t, NULL, "--quiet", "what is it?");
		if ((code != 1 && code != 2) || !strstr(t->err, cases[i].message) || *t->out)
			fail_msg("case %zu: %d, %s%s", i, code, t->out, t->err);
	}
	assert_int_equal(atomic_load(&t->server.n_requests), 0);
}

static void an_unknown_setting_is_a_warning(void **state)
{
	struct e2e *t = *state;

	e2e_write_text(t, "config/ocai/ocai.conf", "[backend]\n\ntimout = 5\n");
	E2E_SERVE(t, E2E_SAY("The answer."));
	assert_int_equal(E2E_RUN(t, NULL, "--quiet", "what is it?"), 0);
	e2e_out_is(t, "The answer.\n");
	e2e_err_has(t, "ocai.conf:3");
	e2e_err_has(t, "timout");
}

static void nothing_goes_to_a_remote_host_that_was_not_allowed(void **state)
{
	struct e2e *t = *state;

	assert_int_equal(E2E_RUN(t, NULL, "--quiet", "--url", "http://192.0.2.1", "what is it?"), 1);
	e2e_err_has(t, "192.0.2.1 is not this machine");
	e2e_err_has(t, "allow-remote = true");
}

static void a_key_that_others_can_read_is_refused(void **state)
{
	struct e2e *t = *state;

	E2E_SERVE(t, E2E_SAY("The answer."));
	e2e_write_text(t, "key", "sk-123\n");
	e2e_env(t, "OCAI_API_KEY_FILE", e2e_path(t, "key"));
	assert_int_equal(chmod(e2e_path(t, "key"), 0644), 0);
	assert_int_equal(E2E_RUN(t, NULL, "--quiet", "what is it?"), 1);
	e2e_err_has(t, "others can read the key (mode 644)");
	assert_int_equal(chmod(e2e_path(t, "key"), 0600), 0);
	assert_int_equal(E2E_RUN(t, NULL, "--quiet", "what is it?"), 0);
	e2e_request_has(t, 0, "Authorization: Bearer sk-123");
}

static void a_missing_engine_is_said_and_what_to_do(void **state)
{
	struct e2e *t = *state;

	e2e_env(t, "OCAI_URL", NULL);
	assert_int_equal(E2E_RUN(t, NULL, "--quiet", "what is it?"), 1);
	assert_string_equal(t->err, "ocai: /nonexistent/engine: no such program\n");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		E2E_TEST(every_bad_answer_has_its_own_clear_message),
		E2E_TEST(an_end_without_done_is_an_end_when_the_server_gives_its_reason),
		E2E_TEST(comments_blank_lines_and_unknown_fields_in_a_stream_are_nothing),
		E2E_TEST(an_endless_answer_is_ended_with_words),
		E2E_TEST(nobody_there_is_named),
		E2E_TEST(a_slow_server_is_waited_for),
		E2E_TEST(a_silent_server_is_given_up_after_the_timeout),
		E2E_TEST(ctrl_c_ends_the_wait_for_a_silent_server),
		E2E_TEST(ctrl_c_ends_the_wait_for_an_engine_that_starts_slowly),
		E2E_TEST(a_chat_survives_every_broken_answer_and_keeps_what_came),
		E2E_TEST(nothing_a_server_says_acts_on_the_terminal),
		E2E_TEST(a_signal_in_a_question_puts_the_terminal_back),
		E2E_TEST(a_wrong_setting_is_named_with_file_and_line),
		E2E_TEST(an_unknown_setting_is_a_warning),
		E2E_TEST(nothing_goes_to_a_remote_host_that_was_not_allowed),
		E2E_TEST(a_key_that_others_can_read_is_refused),
		E2E_TEST(a_missing_engine_is_said_and_what_to_do),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
