/* ocai when things go wrong: servers that refuse, fail, break off or talk nonsense; full disks, read-only homes,
 * damaged histories, wrong settings. Each time the message names what is wrong, the exit code is the documented one,
 * and what was there is not lost. */
#include "e2e.h"

#include <glob.h>
#include <sched.h>
#include <sqlite3.h>
#include <sys/mount.h>

static void out_is(struct e2e *t, const char *want)
{
	assert_string_equal(t->out, want);
}

static void err_has(struct e2e *t, const char *text)
{
	if (!strstr(t->err, text))
		fail_msg("standard error does not hold '%s': %s", text, t->err);
}

/* ---- Servers
 * ------------------------------------------------------------------------------------------------------------- */

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
	out_is(t, "whole\n");
}

static void comments_blank_lines_and_unknown_fields_in_a_stream_are_nothing(void **state)
{
	struct e2e *t = *state;

	E2E_SERVE(t,
	          FAKE_SSE(": keep-alive\n\n\r\n\r\nevent: message\r\nid: 7\r\nretry: 5\r\ndata: "
	                   "{\"choices\":[{\"delta\":{\"content\":\"fine\"}}]}\r\n\r\n:\n\ndata: "
	                   "{\"choices\":[]}\n\ndata: {\"choices\":[{\"delta\":{\"content\":null}}]}\n\n" FAKE_DONE));
	assert_int_equal(E2E_RUN(t, NULL, "--quiet", "what is it?"), 0);
	out_is(t, "fine\n");
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
	err_has(t, "the answer is too long");
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
	out_is(t, "late\n");
}

static void a_silent_server_is_given_up_after_the_timeout(void **state)
{
	struct e2e *t = *state;

	E2E_SERVE(t, "\2", FAKE_SSE(FAKE_DELTA("half") "\2"));
	assert_int_equal(E2E_RUN(t, NULL, "--quiet", "--timeout", "3", "what is it?"), 1);
	err_has(t, "did not answer within 3 seconds");
	assert_int_equal(E2E_RUN(t, NULL, "--quiet", "--timeout", "3", "what is it?"), 1);
	out_is(t, "half\n");
	err_has(t, "fell silent in the middle of the answer");
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
		out_is(t, "");
		err_has(t, "holds no command");
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

/* ---- Disks
 * ---------------------------------------------------------------------------------------------------------------- */

/* A small file system at this place, ours alone: it goes away with this process. */
static void mount_small(struct e2e *t, const char *rest, const char *options)
{
	char path[E2E_PATH];

	(void)snprintf(path, sizeof(path), "%s/%s", t->dir, rest);
	(void)mkdir(path, 0700);
	if (unshare(CLONE_NEWNS) < 0 || mount("none", "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0 ||
	    mount("tmpfs", path, "tmpfs", 0, options) < 0) {
		print_message("not allowed to mount a file system: %s\n", strerror(errno));
		skip();
	}
}

/* What a test that failed has left. */
static int tear_down(void **state)
{
	static const char *const places[] = { "full", "home" };
	struct e2e *t = *state;

	for (size_t i = 0; i < sizeof(places) / sizeof(*places); i++)
		(void)umount2(e2e_path(t, places[i]), MNT_DETACH);
	return e2e_teardown(state);
}

#define MOUNT_TEST(f) cmocka_unit_test_setup_teardown(f, e2e_setup, tear_down)

static void unmount(struct e2e *t, const char *rest)
{
	assert_int_equal(umount2(e2e_path(t, rest), MNT_DETACH), 0);
}

static void fill(struct e2e *t, const char *rest)
{
	static const char zeros[4096];
	FILE *f = fopen(e2e_path(t, rest), "we");

	assert_non_null(f);
	while (fwrite(zeros, 1, sizeof(zeros), f) == sizeof(zeros) && fflush(f) == 0)
		;
	(void)fclose(f);
}

static void a_full_disk_costs_the_history_and_not_the_answer(void **state)
{
	struct e2e *t = *state;

	mount_small(t, "full", "size=256k");
	e2e_env_path(t, "XDG_DATA_HOME", "full/data");
	e2e_env_path(t, "XDG_STATE_HOME", "full/state");
	fill(t, "full/filler");
	E2E_SERVE(t, E2E_SAY("The answer."));
	assert_int_equal(E2E_RUN(t, NULL, "--quiet", "what is it?"), 0);
	out_is(t, "The answer.\n");
	err_has(t, "ocai: no history is kept: ");
	err_has(t, "full");
	E2E_SERVE(t, E2E_SAY("echo answer $((40 + 2))"));
	E2E_OCAI(t, "cmd", "say it"); /* runs, and says that the log of what ran is not complete */
	e2e_expect(t, "no history is kept: ");
	e2e_reply(t, "[r] run", "r");
	e2e_expect(t, "answer 42");
	e2e_expect(t, "ocai: not in the audit log: ");
	e2e_ends(t, 0);
	assert_true(e2e_saw(t, "No space left on device"));
	unmount(t, "full");
}

static void a_disk_that_fills_up_in_a_chat_keeps_what_was_there(void **state)
{
	struct e2e *t = *state;

	mount_small(t, "full", "size=512k");
	e2e_env_path(t, "XDG_DATA_HOME", "full/data");
	E2E_SERVE(t, E2E_SAY("One."), E2E_SAY("Two."), E2E_SAY("Three."));
	E2E_OCAI(t, "chat");
	e2e_reply(t, ">", "question one\r");
	e2e_expect(t, "One.");
	e2e_ask(t, ">");
	fill(t, "full/filler");
	e2e_reply(t, ">", "question two\r");
	e2e_expect(t, "Two.");
	e2e_expect(t, "ocai: no history is kept: ");
	e2e_reply(t, ">", "question three\r");
	e2e_expect(t, "Three.");
	e2e_reply(t, ">", "\x04");
	e2e_ends(t, 0);
	e2e_request_has(t, 2, "question two"); /* the conversation goes on all the same */
	assert_int_equal(unlink(e2e_path(t, "full/filler")), 0);
	assert_int_equal(E2E_RUN(t, NULL, "history", "show", "1"), 0);
	assert_non_null(strstr(t->out, "question one"));
	assert_non_null(strstr(t->out, "One."));
	assert_string_equal(t->err, "");
	unmount(t, "full");
}

static void a_full_disk_keeps_the_old_file_of_code_and_save(void **state)
{
	struct e2e *t = *state;
	char *text;

	mount_small(t, "full", "size=64k");
	e2e_write_text(t, "full/old.c", "old");
	fill(t, "full/filler");
	E2E_SERVE(t, E2E_SAY("```c\\nint new;\\n```"));
	assert_int_equal(E2E_RUN(t, NULL, "code", "-o", "full/old.c", "write it"), 1);
	err_has(t, "full/old.c");
	err_has(t, "No space left on device");
	E2E_SERVE(t, E2E_SAY("An answer."));
	E2E_OCAI(t, "chat");
	e2e_reply(t, ">", "go\r");
	e2e_expect(t, "An answer.");
	e2e_reply(t, ">", "/save full/old.c\r");
	e2e_expect(t, "No space left on device");
	e2e_reply(t, ">", "\x04");
	e2e_ends(t, 0);
	text = e2e_slurp(open(e2e_path(t, "full/old.c"), O_RDONLY | O_CLOEXEC));
	assert_string_equal(text, "old");
	free(text);
	unmount(t, "full");
}

static void a_full_run_time_folder_is_named_when_the_engine_starts(void **state)
{
	struct e2e *t = *state;

	mount_small(t, "full", "size=64k,nr_inodes=2"); /* its root and one more */
	e2e_env(t, "OCAI_URL", NULL);
	e2e_env(t, "OCAI_ENGINE", "/bin/true");
	e2e_env_path(t, "XDG_RUNTIME_DIR", "full");
	assert_int_equal(chmod(e2e_path(t, "full"), 0700), 0);
	assert_int_equal(mkdir(e2e_path(t, "full/ocai"), 0700), 0);
	assert_int_equal(E2E_RUN(t, NULL, "cmd", "show it"), 1);
	err_has(t, "full/ocai/engine.lock: No space left on device");
	unmount(t, "full");
	mount_small(t, "full", "size=64k,nr_inodes=3,mode=0700"); /* and the lock */
	assert_int_equal(mkdir(e2e_path(t, "full/ocai"), 0700), 0);
	assert_int_equal(E2E_RUN(t, NULL, "cmd", "show it"), 1);
	err_has(t, "full/ocai/engine.log: No space left on device");
	unmount(t, "full");
}

static void output_that_cannot_be_written_is_a_failure(void **state)
{
	static const char *const lines[] = {
		"\"$OCAI\" cmd 'show it' >/dev/full",   "\"$OCAI\" -q 'what is it?' >/dev/full",
		"\"$OCAI\" code 'write it' >/dev/full", "\"$OCAI\" cmd --json 'show it' >/dev/full",
		"\"$OCAI\" cmd 'show it' >&-",          "\"$OCAI\" -q 'what is it?' >&-",
	};
	struct e2e *t = *state;

	for (size_t i = 0; i < sizeof(lines) / sizeof(*lines); i++) {
		E2E_SERVE(t, E2E_SAY("uptime"));
		E2E_SHELL(t, lines[i]);
		e2e_ends(t, 1);
		if (!e2e_is_shown(t, i < 4 ? "No space left on device" : "standard output")) {
			e2e_show(t);
			fail_msg("%s: not said", lines[i]);
		}
		assert_false(e2e_is_shown(t, "(stopped)"));
	}
}

static void a_read_only_home_costs_the_history_and_not_the_answer(void **state)
{
	struct e2e *t = *state;
	const char *const unset[] = { "XDG_DATA_HOME", "XDG_STATE_HOME", "XDG_CONFIG_HOME" };

	mount_small(t, "home", "size=64k");
	assert_int_equal(mount("tmpfs", e2e_path(t, "home"), "tmpfs", MS_REMOUNT | MS_RDONLY, "size=64k"), 0);
	for (size_t i = 0; i < 3; i++)
		e2e_env(t, unset[i], NULL);
	E2E_SERVE(t, E2E_SAY("The answer."));
	assert_int_equal(E2E_RUN(t, NULL, "--quiet", "what is it?"), 0);
	out_is(t, "The answer.\n");
	err_has(t, "ocai: no history is kept: ");
	err_has(t, "Read-only file system");
	E2E_SERVE(t, E2E_SAY("echo answer $((40 + 2))"));
	E2E_OCAI(t, "cmd", "say it");
	e2e_reply(t, "[r] run", "r");
	e2e_expect(t, "answer 42");
	e2e_expect(t, "ocai: not in the audit log: ");
	e2e_ends(t, 0);
	unmount(t, "home");
}

static void an_unset_home_costs_the_history_and_not_the_answer(void **state)
{
	static const char *const names[] = { "HOME", "XDG_DATA_HOME", "XDG_STATE_HOME", "XDG_CONFIG_HOME" };
	struct e2e *t = *state;

	for (size_t i = 0; i < sizeof(names) / sizeof(*names); i++)
		e2e_env(t, names[i], NULL);
	E2E_SERVE(t, E2E_SAY("The answer."));
	assert_int_equal(E2E_RUN(t, NULL, "--quiet", "what is it?"), 0);
	out_is(t, "The answer.\n");
	assert_string_equal(t->err, "ocai: no history is kept: neither XDG_DATA_HOME nor HOME is set\n");
	E2E_SERVE(t, E2E_SAY("The answer."));
	assert_int_equal(E2E_RUN(t, NULL, "--quiet", "--no-history", "what is it?"), 0);
	assert_string_equal(t->err, "");
}

static void a_folder_that_is_gone_is_no_trouble(void **state)
{
	struct e2e *t = *state;

	E2E_SERVE(t, E2E_SAY("echo answer $((40 + 2))"));
	E2E_SHELL(t, "mkdir gone && cd gone && rmdir ../gone && exec \"$OCAI\" cmd 'say it'");
	e2e_reply(t, "[r] run", "r");
	e2e_expect(t, "answer 42");
	e2e_ends(t, 0);
}

/* ---- History
 * -------------------------------------------------------------------------------------------------------------- */

static void make_history(struct e2e *t)
{
	E2E_SERVE(t, E2E_SAY("An answer that is kept."));
	assert_int_equal(E2E_RUN(t, NULL, "--quiet", "what is kept?"), 0);
	assert_string_equal(t->err, "");
	assert_true(e2e_exists(t, "data/ocai/history.db"));
}

/* One question is answered, with this remark; true when the old file was kept aside. */
static bool ask_with_damage(struct e2e *t, const char *remark)
{
	glob_t found = { 0 };
	bool is_aside;

	E2E_SERVE(t, E2E_SAY("The answer."));
	assert_int_equal(E2E_RUN(t, NULL, "--quiet", "what is new?"), 0);
	out_is(t, "The answer.\n");
	if (remark)
		err_has(t, remark);
	else
		assert_string_equal(t->err, "");
	is_aside = glob(e2e_path(t, "data/ocai/history.db.damaged-*[0-9]"), 0, NULL, &found) == 0;
	globfree(&found);
	return is_aside;
}

static void new_history_works(struct e2e *t)
{
	assert_int_equal(E2E_RUN(t, NULL, "history", "search", "what is new?"), 0);
	assert_string_equal(t->err, "");
	assert_non_null(strstr(t->out, "what is new?"));
}

static void garbage_in_place_of_the_history_is_kept_aside(void **state)
{
	struct e2e *t = *state;
	glob_t found = { 0 };
	char *text;

	e2e_write_text(t, "data/ocai/history.db", "this is no database, but somebody may want it back");
	assert_true(ask_with_damage(t, "the history was damaged"));
	err_has(t, "history.db.damaged-");
	new_history_works(t);
	assert_int_equal(glob(e2e_path(t, "data/ocai/history.db.damaged-*"), 0, NULL, &found), 0);
	text = e2e_slurp(open(found.gl_pathv[0], O_RDONLY | O_CLOEXEC));
	assert_string_equal(text, "this is no database, but somebody may want it back");
	free(text);
	globfree(&found);
}

static void a_truncated_history_is_kept_aside(void **state)
{
	struct e2e *t = *state;

	make_history(t);
	assert_int_equal(truncate(e2e_path(t, "data/ocai/history.db"), 5000), 0);
	assert_true(ask_with_damage(t, "the history was damaged"));
	new_history_works(t);
}

static void a_history_with_broken_pages_is_kept_aside(void **state)
{
	struct e2e *t = *state;
	char junk[6000];
	int fd;

	make_history(t);
	memset(junk, 0xA5, sizeof(junk));
	fd = open(e2e_path(t, "data/ocai/history.db"), O_WRONLY | O_CLOEXEC);
	assert_int_equal(pwrite(fd, junk, sizeof(junk), 4096), sizeof(junk));
	(void)close(fd);
	assert_true(ask_with_damage(t, "the history was damaged"));
	new_history_works(t);
}

static void another_programs_database_is_kept_aside(void **state)
{
	static const char *const schemas[] = {
		"CREATE TABLE message(x); CREATE TABLE session(y); INSERT INTO message VALUES('keep me')",
		"CREATE TABLE session(id INTEGER PRIMARY KEY, name TEXT); PRAGMA user_version = 1",
		"CREATE VIEW message AS SELECT 1 AS id, 2 AS session",
	};
	struct e2e *t = *state;

	for (size_t i = 0; i < sizeof(schemas) / sizeof(*schemas); i++) {
		char command[E2E_PATH];
		sqlite3 *db = NULL;

		(void)snprintf(command, sizeof(command), "rm -rf '%s'/ocai", e2e_path(t, "data"));
		assert_int_equal(system(command), 0);
		e2e_write(t, "data/ocai/history.db", "", 0);
		assert_int_equal(sqlite3_open(e2e_path(t, "data/ocai/history.db"), &db), SQLITE_OK);
		assert_int_equal(sqlite3_exec(db, schemas[i], NULL, NULL, NULL), SQLITE_OK);
		assert_int_equal(sqlite3_close(db), SQLITE_OK);
		if (!ask_with_damage(t, "the history was damaged"))
			fail_msg("case %zu is not kept aside: %s", i, t->err);
		new_history_works(t);
	}
}

static void an_empty_history_is_a_new_one(void **state)
{
	struct e2e *t = *state;

	e2e_write(t, "data/ocai/history.db", "", 0);
	assert_false(ask_with_damage(t, NULL));
	new_history_works(t);
}

static void a_newer_history_is_left_alone(void **state)
{
	struct e2e *t = *state;
	sqlite3 *db = NULL;
	char *before, *after;

	make_history(t);
	assert_int_equal(sqlite3_open(e2e_path(t, "data/ocai/history.db"), &db), SQLITE_OK);
	assert_int_equal(sqlite3_exec(db, "PRAGMA user_version = 99", NULL, NULL, NULL), SQLITE_OK);
	assert_int_equal(sqlite3_close(db), SQLITE_OK);
	before = e2e_slurp(open(e2e_path(t, "data/ocai/history.db"), O_RDONLY | O_CLOEXEC));
	assert_false(ask_with_damage(t, "written by a newer ocai (format 99)"));
	after = e2e_slurp(open(e2e_path(t, "data/ocai/history.db"), O_RDONLY | O_CLOEXEC));
	assert_string_equal(before, after);
	free(before);
	free(after);
	assert_int_equal(E2E_RUN(t, NULL, "history", "list"), 1);
	err_has(t, "written by a newer ocai");
}

static void a_damaged_history_does_not_keep_a_chat_from_beginning(void **state)
{
	struct e2e *t = *state;

	e2e_write_text(t, "data/ocai/history.db", "no database");
	E2E_SERVE(t, E2E_SAY("Hello."));
	E2E_OCAI(t, "chat");
	e2e_expect(t, "the history was damaged");
	e2e_reply(t, ">", "hi\r");
	e2e_expect(t, "Hello.");
	e2e_reply(t, ">", "\x04");
	e2e_ends(t, 0);
	assert_int_equal(E2E_RUN(t, NULL, "history", "list"), 0);
	assert_non_null(strstr(t->out, "hi"));
}

/* ---- Settings
 * ------------------------------------------------------------------------------------------------------------- */

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
	out_is(t, "The answer.\n");
	err_has(t, "ocai.conf:3");
	err_has(t, "timout");
}

static void nothing_goes_to_a_remote_host_that_was_not_allowed(void **state)
{
	struct e2e *t = *state;

	assert_int_equal(E2E_RUN(t, NULL, "--quiet", "--url", "http://192.0.2.1", "what is it?"), 1);
	err_has(t, "192.0.2.1 is not this machine");
	err_has(t, "allow-remote = true");
}

static void a_key_that_others_can_read_is_refused(void **state)
{
	struct e2e *t = *state;

	E2E_SERVE(t, E2E_SAY("The answer."));
	e2e_write_text(t, "key", "sk-123\n");
	e2e_env(t, "OCAI_API_KEY_FILE", e2e_path(t, "key"));
	assert_int_equal(chmod(e2e_path(t, "key"), 0644), 0);
	assert_int_equal(E2E_RUN(t, NULL, "--quiet", "what is it?"), 1);
	err_has(t, "others can read the key (mode 644)");
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
		MOUNT_TEST(a_full_disk_costs_the_history_and_not_the_answer),
		MOUNT_TEST(a_disk_that_fills_up_in_a_chat_keeps_what_was_there),
		MOUNT_TEST(a_full_disk_keeps_the_old_file_of_code_and_save),
		MOUNT_TEST(a_full_run_time_folder_is_named_when_the_engine_starts),
		E2E_TEST(output_that_cannot_be_written_is_a_failure),
		MOUNT_TEST(a_read_only_home_costs_the_history_and_not_the_answer),
		E2E_TEST(an_unset_home_costs_the_history_and_not_the_answer),
		E2E_TEST(a_folder_that_is_gone_is_no_trouble),
		E2E_TEST(garbage_in_place_of_the_history_is_kept_aside),
		E2E_TEST(a_truncated_history_is_kept_aside),
		E2E_TEST(a_history_with_broken_pages_is_kept_aside),
		E2E_TEST(another_programs_database_is_kept_aside),
		E2E_TEST(an_empty_history_is_a_new_one),
		E2E_TEST(a_newer_history_is_left_alone),
		E2E_TEST(a_damaged_history_does_not_keep_a_chat_from_beginning),
		E2E_TEST(a_wrong_setting_is_named_with_file_and_line),
		E2E_TEST(an_unknown_setting_is_a_warning),
		E2E_TEST(nothing_goes_to_a_remote_host_that_was_not_allowed),
		E2E_TEST(a_key_that_others_can_read_is_refused),
		E2E_TEST(a_missing_engine_is_said_and_what_to_do),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
