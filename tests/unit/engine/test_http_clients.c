/* The HTTP front over a small real model: clients that misbehave, many at once, and the end of the server. */
#include <limits.h>
#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>

#include "http_shared.h"

/* ---- Clients that misbehave ---- */

/* The status line's number, after reading until the connection closes or `n` bytes came. */
static int raw_status(int fd)
{
	char buf[4096];
	ssize_t n = recv(fd, buf, sizeof(buf) - 1, 0);
	int status = 0;

	if (n <= 0)
		return (int)n;
	buf[n] = '\0';
	(void)sscanf(buf, "HTTP/1.1 %d", &status);
	return status;
}

static void broken_requests_leave_the_server_healthy(void **state)
{
	static const char *const junk[] = {
		"\r\n\r\n",
		"GET\r\n\r\n",
		"POST /generate HTTP/1.1\r\nContent-Length: -5\r\n\r\n",
		"POST /generate HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999999999999999\r\n\r\n{",
		"POST /generate HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
		"POST /generate HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n{\"text\":",
		"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
	};
	struct answer a;

	(void)state;
	for (size_t i = 0; i < sizeof(junk) / sizeof(junk[0]); i++) {
		int fd = raw_connect(&server);
		struct timeval soon = { .tv_usec = 100000 };

		/* Some wait for the rest that never comes, until the connection's time is over. */
		(void)setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &soon, sizeof(soon));
		raw_send(fd, junk[i]);
		(void)shutdown(fd, SHUT_WR);
		(void)raw_status(fd);
		(void)close(fd);
	}
	ask_ok(&server, "/health", NULL, &a);
	answer_done(&a);
}

static void deep_and_hostile_json_is_refused(void **state)
{
	char *deep = malloc(200001);
	struct answer a;

	(void)state;
	memset(deep, '[', 200000);
	deep[200000] = '\0';
	ask(&server, "/v1/chat/completions", deep, &a);
	assert_int_equal(a.status, 400);
	answer_done(&a);
	ask(&server, "/v1/chat/completions", "{\"messages\":[{\"role\":\"user\",\"content\":\"\\ud800\"}]}", &a);
	assert_int_equal(a.status, 400);
	answer_done(&a);
	ask_ok(&server, "/v1/completions", "{\"prompt\":\"a\\u0000b\",\"max_tokens\":2}", &a);
	answer_done(&a);
	free(deep);
}

/* Sends what is in front and fill up to n bytes, then what is behind; the whole answer is the caller's. */
static char *send_large(const char *front, const char *fill, size_t n, const char *behind)
{
	char *text = malloc(n + 1024), *answer = calloc(1, 16384);
	int fd = raw_connect(&server);
	size_t len = (size_t)snprintf(text, 512, "%s", front), got = 0;
	ssize_t r;

	while (len < n)
		len += (size_t)snprintf(text + len, 512, "%s", fill);
	len += (size_t)snprintf(text + len, 512, "%s", behind);
	(void)send(fd, text, len, MSG_NOSIGNAL);
	(void)shutdown(fd, SHUT_WR);
	while (got < 16383 && (r = recv(fd, answer + got, 16383 - got, 0)) > 0)
		got += (size_t)r;
	(void)close(fd);
	free(text);
	return answer;
}

static void headers_beyond_the_limit_are_refused(void **state)
{
	/* Who keeps the connection and ends only its own side of it may wait until the server takes it for idle. */
	static const char head[] = "GET /health HTTP/1.1\r\nHost: x\r\nConnection: close\r\n";
	static const char one[] = "GET /health HTTP/1.1\r\nHost: x\r\nConnection: close\r\nX-Long: ";
	static const struct {
		const char *front, *fill, *behind;
		size_t n;
		bool is_refused, is_ours;
	} cases[] = {
		{ one, "aaaaaaaa", "\r\n\r\n", 60000, false, true },
		{ one, "aaaaaaaa", "\r\n\r\n", 90000, true, true },
		{ head, "A: bbbbbbbbbbbbbbbbbbbbb\r\n", "\r\n", 50000, false, true },
		{ head, "A: bbbbbbbbbbbbbbbbbbbbb\r\n", "\r\n", 70000, true, true },
		{ "GET /", "aaaaaaaa", " HTTP/1.1\r\nHost: x\r\n\r\n", 90000, true, true },
		/* So much that the library itself ends it: a refusal or nothing, but never an answer. */
		{ one, "aaaaaaaa", "\r\n\r\n", 600000, true, false },
	};

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		char *answer = send_large(cases[i].front, cases[i].fill, cases[i].n, cases[i].behind);

		if (!cases[i].is_refused && strncmp(answer, "HTTP/1.1 200", 12) != 0)
			fail_msg("%zu: %.200s", i, answer);
		if (cases[i].is_refused && cases[i].is_ours &&
		    (strncmp(answer, "HTTP/1.1 431", 12) != 0 || !strstr(answer, "\"code\":\"header_too_large\"")))
			fail_msg("%zu: %.400s", i, answer);
		if (cases[i].is_refused && !cases[i].is_ours && *answer && strncmp(answer, "HTTP/1.1 431", 12) != 0)
			fail_msg("%zu: %.400s", i, answer);
		free(answer);
	}
}

static void a_body_beyond_the_limit_is_refused(void **state)
{
	const struct eng_options options = { .model_path = test_fixture("models/llama"), .backend = "ref" };
	char body[3000];
	struct served s;
	struct answer a;
	int fd;

	(void)state;
	serve_with(&s, &options, (struct eng_http_config){ .max_body_bytes = 1000 });
	memset(body, ' ', sizeof(body) - 1);
	body[sizeof(body) - 1] = '\0';
	ask(&s, "/generate", body, &a);
	assert_int_equal(a.status, 413);
	assert_string_equal(str_at(a.json, "error.code"), "request_too_large");
	answer_done(&a);
	/* In chunks, without saying how much will come. */
	fd = raw_connect(&s);
	raw_send(fd, "POST /generate HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n");
	raw_send(fd, "bb7\r\n");
	raw_send(fd, body);
	raw_send(fd, "\r\n0\r\n\r\n");
	assert_int_equal(raw_status(fd), 413);
	(void)close(fd);
	ask_ok(&s, "/health", NULL, &a);
	answer_done(&a);
	serve_end(&s);
}

static bool one_is_running(const struct eng_stats *st)
{
	return st->n_running > 0;
}

static bool none_is_running(const struct eng_stats *st)
{
	return st->n_running + st->n_queued == 0 && st->kv_pages_used == 0;
}

static bool was_aborted(const struct eng_stats *st)
{
	return st->n_aborted > 0 && none_is_running(st);
}

static void a_client_that_leaves_a_stream_cancels_it(void **state)
{
	struct served s;
	char buf[256];
	int fd;

	(void)state;
	serve_model(&s, "models/deepseek_v3", "ref");
	fd = raw_connect(&s);
	raw_post(fd, "/v1/completions",
	         "{\"prompt\":\"a\",\"max_tokens\":2000,\"n\":8,\"ignore_eos\":true,\"stream\":true}");
	assert_true(recv(fd, buf, sizeof(buf), 0) > 0);
	(void)close(fd);
	assert_true(wait_stats(&s, was_aborted));
	serve_end(&s);
}

static void a_client_that_leaves_while_it_waits_cancels_its_request(void **state)
{
	struct served s;
	int fd;

	(void)state;
	serve_model(&s, "models/deepseek_v3", "ref");
	fd = raw_connect(&s);
	raw_post(fd, "/v1/completions", "{\"prompt\":\"a\",\"max_tokens\":2000,\"n\":8,\"ignore_eos\":true}");
	assert_true(wait_stats(&s, one_is_running));
	(void)close(fd);
	assert_true(wait_stats(&s, was_aborted));
	serve_end(&s);
}

static void a_reader_that_does_not_read_is_dropped_and_delays_nobody(void **state)
{
	const struct eng_options options = { .model_path = test_fixture("models/deepseek_v3"), .backend = "ref" };
	struct served s;
	struct answer a;
	int fd;

	(void)state;
	serve_with(&s, &options, (struct eng_http_config){ .stream_buffer_bytes = 64 * 1024 });
	fd = raw_connect_with(&s, 4096);
	raw_post(fd, "/v1/chat/completions",
	         "{\"messages\":[{\"role\":\"user\",\"content\":\"a\"}],\"n\":7,\"ignore_eos\":true,\"stream\":true,"
	         "\"logprobs\":true,\"top_logprobs\":20}");
	assert_true(wait_stats(&s, one_is_running));
	ask_ok(&s, "/v1/completions", "{\"prompt\":\"a\",\"max_tokens\":5}", &a);
	answer_done(&a);
	assert_true(wait_stats(&s, was_aborted));
	(void)close(fd);
	serve_end(&s);
}

/* ---- Many at once, and the end ---- */

struct worker {
	pthread_t thread;
	int i;
	long status;
	char text[1024];
};

static void *work(void *arg)
{
	struct worker *w = arg;
	struct base_http *client = NULL;
	struct answer a;
	char body[256];

	(void)base_http_new(&client, NULL);
	(void)snprintf(body, sizeof(body), "{\"prompt\":[%d],\"max_tokens\":24,\"temperature\":0,\"ignore_eos\":true}",
	               10 + w->i % 10);
	ask_with(client, server.url, "/v1/completions", body, &a);
	w->status = a.status;
	(void)snprintf(w->text, sizeof(w->text), "%s", str_at(a.json, "choices.0.text"));
	answer_done(&a);
	base_http_free(client);
	return NULL;
}

static void fifty_clients_at_once_get_what_each_would_get_alone(void **state)
{
	enum { N = 50 };
	static struct worker w[N];

	(void)state;
	for (int i = 0; i < N; i++) {
		w[i].i = i;
		assert_int_equal(pthread_create(&w[i].thread, NULL, work, &w[i]), 0);
	}
	for (int i = 0; i < N; i++)
		(void)pthread_join(w[i].thread, NULL);
	for (int i = 0; i < N; i++) {
		struct worker alone = { .i = i };

		assert_int_equal(w[i].status, 200);
		if (i < 10) {
			(void)work(&alone);
			assert_string_equal(w[i].text, alone.text);
		} else {
			assert_string_equal(w[i].text, w[i % 10].text);
		}
	}
}

static void a_full_queue_is_429(void **state)
{
	const struct eng_options options = {
		.model_path = test_fixture("models/deepseek_v3"), .backend = "ref", .max_running = 1, .max_queued = 2
	};
	struct served s;
	struct answer a;
	char head[4096];
	int fd, refused, seconds = 0;
	ssize_t n;

	(void)state;
	serve_with(&s, &options, (struct eng_http_config){ 0 });
	fd = raw_connect(&s);
	raw_post(fd, "/v1/completions",
	         "{\"prompt\":\"a\",\"max_tokens\":2000,\"n\":2,\"ignore_eos\":true,\"stream\":true}");
	assert_true(wait_stats(&s, one_is_running));
	ask(&s, "/v1/completions", "{\"prompt\":\"a\",\"n\":4}", &a);
	assert_int_equal(a.status, 429);
	assert_string_equal(str_at(a.json, "error.code"), "queue_full");
	answer_done(&a);
	refused = raw_connect(&s);
	raw_post(refused, "/v1/completions", "{\"prompt\":\"a\",\"n\":4}");
	n = recv(refused, head, sizeof(head) - 1, 0);
	assert_true(n > 0);
	head[n] = '\0';
	assert_non_null(strstr(head, "Retry-After: "));
	assert_int_equal(sscanf(strstr(head, "Retry-After: "), "Retry-After: %d", &seconds), 1);
	assert_in_range(seconds, 1, 60);
	(void)close(refused);
	(void)close(fd);
	assert_true(wait_stats(&s, none_is_running));
	ask_ok(&s, "/v1/completions", "{\"prompt\":\"a\",\"max_tokens\":2}", &a);
	answer_done(&a);
	serve_end(&s);
}

static void draining_finishes_a_stream_and_refuses_new_work(void **state)
{
	struct served s;
	struct answer a;
	char buf[65536];
	size_t len = 0;
	ssize_t n;
	int fd;

	(void)state;
	serve_model(&s, "models/qwen3", "ref");
	fd = raw_connect(&s);
	raw_post(fd, "/v1/completions", "{\"prompt\":\"a\",\"max_tokens\":300,\"ignore_eos\":true,\"stream\":true}");
	assert_true(recv(fd, buf, 1, 0) == 1);
	ask_ok(&s, "/health", NULL, &a); /* keeps this client's connection open */
	answer_done(&a);
	eng_http_quiesce(s.http);
	eng_engine_drain(s.engine, 300000);
	ask(&s, "/health", NULL, &a);
	assert_int_equal(a.status, 503);
	assert_string_equal(str_at(a.json, "error.type"), "unavailable_error");
	answer_done(&a);
	while ((n = recv(fd, buf + len, sizeof(buf) - 1 - len, 0)) > 0) {
		len += (size_t)n;
		if (len > 4096) {
			memmove(buf, buf + len - 2048, 2048);
			len = 2048;
		}
		buf[len] = '\0';
		if (strstr(buf, "[DONE]"))
			break;
	}
	assert_non_null(strstr(buf, "data: [DONE]"));
	(void)close(fd);
	serve_end(&s);
}

static bool one_is_queued(const struct eng_stats *st)
{
	return st->n_running > 0 && st->n_queued > 0;
}

/* A stream that has not begun is refused as a whole, whatever its request says when it is taken back a moment later. */
static void the_end_refuses_a_stream_that_waits_for_its_turn(void **state)
{
	const struct eng_options options = { .model_path = test_fixture("models/deepseek_v3"),
		                             .backend = "ref",
		                             .max_running = 1 };

	(void)state;
	for (int round = 0; round < 8; round++) {
		char answer[8192] = "";
		struct served s;
		int runs, waits;
		size_t len = 0;
		ssize_t n;

		serve_with(&s, &options, (struct eng_http_config){ 0 });
		runs = raw_connect(&s);
		raw_post(runs, "/v1/completions",
		         "{\"prompt\":\"a\",\"max_tokens\":2000,\"ignore_eos\":true,\"stream\":true}");
		assert_true(wait_stats(&s, one_is_running));
		waits = raw_connect(&s);
		raw_post(waits, "/v1/completions",
		         "{\"prompt\":\"b\",\"max_tokens\":2000,\"ignore_eos\":true,\"stream\":true}");
		assert_true(wait_stats(&s, one_is_queued));
		base_http_free(s.client);
		eng_http_close(s.http, 0);
		eng_engine_close(s.engine);
		while (len < sizeof(answer) - 1 && (n = recv(waits, answer + len, sizeof(answer) - 1 - len, 0)) > 0)
			len += (size_t)n;
		if (strncmp(answer, "HTTP/1.1 503", 12) != 0 || strstr(answer, "data:"))
			fail_msg("round %d: %s", round, answer);
		assert_string_equal(answer + len - 2, "}}"); /* whole, and nothing behind it */
		(void)close(waits);
		(void)close(runs);
	}
}

static bool two_are_queued(const struct eng_stats *st)
{
	return st->n_queued == 2;
}

/* Nothing is computed while the engine pauses, and the server ends all the same. */
static void the_end_comes_to_who_waits_for_a_paused_engine(void **state)
{
	const struct eng_options options = { .model_path = test_fixture("models/qwen3"), .backend = "ref" };
	struct served s;
	struct answer a;
	int fd[2];

	(void)state;
	serve_with(&s, &options, (struct eng_http_config){ 0 });
	ask_ok(&s, "/pause_generation", "{\"mode\":\"in_place\"}", &a);
	answer_done(&a);
	for (int i = 0; i < 2; i++)
		fd[i] = raw_connect(&s);
	raw_send(fd[0], "GET /health_generate HTTP/1.1\r\nHost: x\r\n\r\n");
	raw_post(fd[1], "/v1/completions", "{\"prompt\":\"b\",\"stream\":true}");
	assert_true(wait_stats(&s, two_are_queued));
	base_http_free(s.client);
	eng_http_close(s.http, 0);
	eng_engine_close(s.engine);
	for (int i = 0; i < 2; i++) {
		assert_int_equal(raw_status(fd[i]), 503);
		(void)close(fd[i]);
	}
}

struct visitors {
	struct sockaddr_in to;
	atomic_bool stop;
};

/* Comes and leaves, again and again, whatever the server says. */
static void *visit(void *arg)
{
	static const char hello[] = "GET /health HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
	struct visitors *v = arg;
	struct timeval limit = { .tv_sec = 5 };
	char buf[1024];

	while (!atomic_load(&v->stop)) {
		int fd = socket(AF_INET, SOCK_STREAM, 0);

		(void)setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof(limit));
		if (connect(fd, (const struct sockaddr *)&v->to, sizeof(v->to)) == 0 &&
		    send(fd, hello, sizeof(hello) - 1, MSG_NOSIGNAL) > 0)
			(void)!recv(fd, buf, sizeof(buf), 0);
		(void)close(fd);
	}
	return NULL;
}

/* The listening sockets are taken from loops that are busy accepting. */
static void the_end_comes_while_clients_come(void **state)
{
	const struct eng_options options = { .model_path = test_fixture("models/qwen3"), .backend = "ref" };
	struct eng_http_config config = { .host = "127.0.0.1", .n_threads = 4 };
	struct eng_engine *engine;
	struct err err = { 0 };

	(void)state;
	if (eng_engine_open(&options, &engine, &err) < 0)
		fail_msg("%s", err_text(&err));
	for (int round = 0; round < 100; round++) {
		struct visitors v = { .to = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) } };
		struct eng_http *http;
		pthread_t threads[3];

		if (eng_http_open(engine, &config, &http, &err) < 0)
			fail_msg("%s", err_text(&err));
		v.to.sin_port = htons(eng_http_port(http));
		for (size_t i = 0; i < 3; i++)
			assert_int_equal(pthread_create(&threads[i], NULL, visit, &v), 0);
		(void)usleep(5000 + (unsigned)round * 37);
		eng_http_quiesce(http);
		(void)usleep((unsigned)round % 3 * 1000);
		eng_http_close(http, 0);
		atomic_store(&v.stop, true);
		for (size_t i = 0; i < 3; i++)
			(void)pthread_join(threads[i], NULL);
	}
	eng_engine_close(engine);
}

/* A loop that is full listens again when one of its clients has left. */
static void more_clients_than_connections_wait_their_turn(void **state)
{
	const struct eng_options options = { .model_path = test_fixture("models/qwen3"), .backend = "ref" };
	struct timeval limit = { .tv_sec = 100 };
	struct served s;
	int fds[9];

	(void)state;
	serve_with(&s, &options, (struct eng_http_config){ .n_threads = 2, .max_connections = 3 });
	for (size_t i = 0; i < 9; i++) {
		fds[i] = raw_connect(&s);
		(void)setsockopt(fds[i], SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof(limit));
		raw_send(fds[i], "GET /health HTTP/1.1\r\nHost: x\r\n\r\n");
	}
	for (int served = 0; served < 9; served++) { /* whoever is served leaves, which makes room for one more */
		struct pollfd polls[9];
		size_t i = 0;

		for (size_t k = 0; k < 9; k++)
			polls[k] = (struct pollfd){ .fd = fds[k], .events = POLLIN };
		assert_true(poll(polls, 9, 100000) > 0);
		while (!polls[i].revents)
			i++;
		assert_int_equal(raw_status(fds[i]), 200);
		(void)close(fds[i]);
		fds[i] = -1;
	}
	serve_end(&s);
}

static void an_idle_server_uses_no_cpu(void **state)
{
	struct timespec before, after;
	long used_ns = LONG_MAX;

	(void)state;
	/* It may still be putting things away; who wakes up again and again does so every time. */
	for (int i = 0; i < 20 && used_ns >= 5000000; i++) {
		(void)clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &before);
		(void)usleep(500000);
		(void)clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &after);
		used_ns = (after.tv_sec - before.tv_sec) * 1000000000L + after.tv_nsec - before.tv_nsec;
	}
	assert_true(used_ns < 5000000);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(broken_requests_leave_the_server_healthy),
		cmocka_unit_test(deep_and_hostile_json_is_refused),
		cmocka_unit_test(headers_beyond_the_limit_are_refused),
		cmocka_unit_test(a_body_beyond_the_limit_is_refused),
		cmocka_unit_test(a_client_that_leaves_a_stream_cancels_it),
		cmocka_unit_test(a_client_that_leaves_while_it_waits_cancels_its_request),
		cmocka_unit_test(a_reader_that_does_not_read_is_dropped_and_delays_nobody),
		cmocka_unit_test(fifty_clients_at_once_get_what_each_would_get_alone),
		cmocka_unit_test(a_full_queue_is_429),
		cmocka_unit_test(draining_finishes_a_stream_and_refuses_new_work),
		cmocka_unit_test(the_end_refuses_a_stream_that_waits_for_its_turn),
		cmocka_unit_test(the_end_comes_to_who_waits_for_a_paused_engine),
		cmocka_unit_test(the_end_comes_while_clients_come),
		cmocka_unit_test(more_clients_than_connections_wait_their_turn),
		cmocka_unit_test(an_idle_server_uses_no_cpu),
	};

	return cmocka_run_group_tests(tests, start_server, stop_server);
}
