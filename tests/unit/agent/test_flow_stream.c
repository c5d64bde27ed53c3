/* Streamed answers from a scripted server: whole, in pieces, broken, silent, refused, stopped. */
#include "fake_server.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>

#include "agent.h"
#include "sse.h"

struct got {
	struct base_buf text;
	int n_pieces, stop_after;
};

static int on_text(void *arg, const char *text, size_t len)
{
	struct got *g = arg;

	(void)base_buf_append(&g->text, text, len);
	return ++g->n_pieces == g->stop_after;
}

/* Streams one answer; the text in g. */
static int stream(const char *answer, struct got *g, uint32_t timeout_ms, int (*cancel)(void *), struct err *err,
                  char *request)
{
	const char *const answers[] = { answer, NULL };
	static struct fake_server s;
	struct ag_backend *b = NULL;
	json_t *messages = ag_cmd_messages("m", "hi");
	int r;

	base_buf_init(&g->text, 1 << 20);
	fake_start(&s, answers);
	assert_int_equal(ag_backend_open(s.url, NULL, timeout_ms, &b, err), 0);
	ag_backend_set_cancel(b, cancel, NULL);
	r = ag_backend_stream(b, "m", messages, 64, on_text, g, err);
	ag_backend_close(b);
	fake_stop(&s);
	if (request)
		(void)snprintf(request, FAKE_REQUEST, "%s", s.requests[0]);
	json_decref(messages);
	return r;
}

static void pieces_arrive_one_by_one(void **state)
{
	static char request[FAKE_REQUEST];
	struct err err = { 0 };
	struct got g = { 0 };

	(void)state;
	assert_int_equal(stream(FAKE_SSE(": hello\n\n" FAKE_DELTA("你") "\1" FAKE_DELTA("好, ") "\1" FAKE_DELTA(
	                                "world") "data: {\"choices\":[]}\n\n" FAKE_DONE),
	                        &g, 300000, NULL, &err, request),
	                 0);
	assert_string_equal(base_buf_text(&g.text), "你好, world");
	assert_int_equal(g.n_pieces, 3);
	assert_non_null(strstr(request, "\"stream\":true"));
	base_buf_done(&g.text);
}

static void failures_say_what_happened_and_keep_what_came(void **state)
{
	static const struct {
		const char *answer, *text, *words;
		int r;
	} cases[] = {
		{ FAKE_SSE(FAKE_DELTA("half") "data: {\"choi"), "half", "ends before its end", -EPIPE },
		{ FAKE_SSE(FAKE_DELTA("half")), "half", "ends before its end", -EPIPE },
		{ "HTTP/1.1 200 OK\r\nContent-Length: 5000\r\n\r\n" FAKE_DELTA("half"), "half", "broke in the middle",
		  -EPIPE },
		{ FAKE_SSE(FAKE_DELTA("half") "\2"), "half", "fell silent in the middle of the answer", -ETIMEDOUT },
		{ FAKE_SSE("\2"), "", "did not answer within", -ETIMEDOUT },
		{ FAKE_SSE(FAKE_DELTA("a") "data: {\"error\":{\"message\":\"out of memory\"}}\n\n"), "a",
		  "stopped the answer: out of memory", -EIO },
		{ FAKE_SSE("data: nonsense\n\n"), "", "a piece of the answer", -EBADMSG },
		{ FAKE_JSON("429 Too Many", "{\"error\":{\"message\":\"slow down\"}}"), "", "status 429: slow down",
		  -EIO },
		{ FAKE_JSON("500 Oops", "<html>"), "", "answered with status 500", -EIO },
		{ FAKE_SSE(""), "", "ends before its end", -EPIPE },
		{ FAKE_JSON("200 OK", "{\"choices\""), "", "the answer is not JSON", -EBADMSG },
	};

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
		struct err err = { 0 };
		struct got g = { 0 };
		int r = stream(cases[i].answer, &g, cases[i].r == -ETIMEDOUT ? 2000 : 300000, NULL, &err, NULL);

		if (r != cases[i].r || !strstr(err_text(&err), cases[i].words))
			print_error("case %zu -> %d %s\n", i, r, err_text(&err));
		assert_int_equal(r, cases[i].r);
		assert_non_null(strstr(err_text(&err), cases[i].words));
		assert_string_equal(base_buf_text(&g.text), cases[i].text);
		base_buf_done(&g.text);
	}
}

static void a_server_that_does_not_stream_is_understood(void **state)
{
	struct err err = { 0 };
	struct got g = { 0 };

	(void)state;
	assert_int_equal(stream(FAKE_JSON("200 OK", " {\"choices\":[{\"message\":{\"content\":\"all\"}}]}"), &g, 300000,
	                        NULL, &err, NULL),
	                 0);
	assert_string_equal(base_buf_text(&g.text), "all");
	base_buf_done(&g.text);
}

static void a_finish_reason_is_an_end_too(void **state)
{
	struct err err = { 0 };
	struct got g = { 0 };

	(void)state;
	assert_int_equal(
	        stream(FAKE_SSE(FAKE_DELTA("x") "data: {\"choices\":[{\"delta\":{},\"finish_reason\":\"stop\"}]}"
	                                        "\n\n"),
	               &g, 300000, NULL, &err, NULL),
	        0);
	base_buf_done(&g.text);
}

static void the_reader_can_stop_it(void **state)
{
	struct err err = { 0 };
	struct got g = { .stop_after = 2 };

	(void)state;
	assert_int_equal(stream(FAKE_SSE(FAKE_DELTA("1") FAKE_DELTA("2") FAKE_DELTA("3") FAKE_DONE), &g, 300000, NULL,
	                        &err, NULL),
	                 -ECANCELED);
	assert_string_equal(base_buf_text(&g.text), "12");
	base_buf_done(&g.text);
}

static int n_asked;

static int cancel_soon(void *arg)
{
	return ++n_asked > 3;
}

static void it_can_be_stopped_while_the_server_is_silent(void **state)
{
	struct err err = { 0 };
	struct got g = { 0 };

	(void)state;
	n_asked = 0;
	assert_int_equal(stream(FAKE_SSE("\2"), &g, 60000, cancel_soon, &err, NULL), -ECANCELED);
	assert_string_equal(err_text(&err), "stopped");
	base_buf_done(&g.text);
}

static void a_key_that_others_can_read_is_refused(void **state)
{
	char path[] = "/tmp/ocai-key-XXXXXX";
	int fd = mkstemp(path);
	struct ag_backend *b = NULL;
	struct err err = { 0 };

	(void)state;
	assert_true(fd >= 0);
	assert_int_equal(write(fd, "secret\n", 7), 7);
	assert_int_equal(fchmod(fd, 0644), 0);
	assert_int_equal(ag_backend_open("http://x", path, 1000, &b, &err), -EPERM);
	assert_non_null(strstr(err_text(&err), "chmod 600"));
	assert_int_equal(fchmod(fd, 0600), 0);
	assert_int_equal(ag_backend_open("http://x", path, 1000, &b, &err), 0);
	ag_backend_close(b);
	(void)close(fd);
	(void)unlink(path);
}

static int join_event(void *arg, const char *data, size_t len)
{
	(void)base_buf_printf(arg, "[%.*s]", (int)len, data);
	return 0;
}

static void events_are_taken_apart_as_the_standard_says(void **state)
{
	static const struct {
		const char *bytes, *events;
	} cases[] = {
		{ "data: a\n\n", "[a]" },
		{ "data: a\r\n\r\ndata:b\r\r", "[a][b]" },
		{ "data: a\ndata: b\n\n", "[a\nb]" },
		{ "\xef\xbb\xbf"
		  "data: a\n\n",
		  "[a]" },
		{ ": no\nid: 1\nevent: x\n\n", "" },
		{ "data\n\n", "[]" },
		{ "datax: a\n\n", "" },
		{ "data:  a\n\n", "[ a]" },
		{ "data: cut", "" },
		{ "\n\n\ndata: a\n\n\n", "[a]" },
	};

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
		struct base_buf out = BASE_BUF_INIT(1024);
		struct ag_sse s;

		ag_sse_init(&s, 256);
		for (const char *p = cases[i].bytes; *p; p++)
			assert_int_equal(ag_sse_feed(&s, p, 1, join_event, &out), 0);
		assert_string_equal(base_buf_text(&out), cases[i].events);
		ag_sse_done(&s);
		base_buf_done(&out);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(pieces_arrive_one_by_one),
		cmocka_unit_test(failures_say_what_happened_and_keep_what_came),
		cmocka_unit_test(a_server_that_does_not_stream_is_understood),
		cmocka_unit_test(a_finish_reason_is_an_end_too),
		cmocka_unit_test(the_reader_can_stop_it),
		cmocka_unit_test(it_can_be_stopped_while_the_server_is_silent),
		cmocka_unit_test(a_key_that_others_can_read_is_refused),
		cmocka_unit_test(events_are_taken_apart_as_the_standard_says),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
