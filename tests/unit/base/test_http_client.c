/* Against a small scripted server on a loopback or unix socket, so that it can also do what a well-behaved one never
 * does: stall, cut an answer short, go on for ever. One thread, one connection at a time. */
#include "base/clock.h"
#include "base/http_client.h"

#include <errno.h>
#include <netinet/in.h>
#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#include "test.h"

struct server {
	int listener;
	unsigned port;
	char path[108];
	pthread_t thread;
	_Atomic bool stop;
	_Atomic unsigned n_connections;
	pthread_mutex_t lock;
	char last_head[4096]; /* of the last request; protected by lock */
};

static void send_text(int fd, const char *text)
{
	(void)send(fd, text, strlen(text), MSG_NOSIGNAL);
}

static void sleep_ms(long ms)
{
	const struct timespec ts = { ms / 1000, ms % 1000 * 1000000 };

	(void)nanosleep(&ts, NULL);
}

/* Until the client hangs up. */
static void wait_for_close(int fd)
{
	char c;

	while (recv(fd, &c, 1, 0) > 0)
		;
}

static void answer_body(int fd, const char *status, const char *body, size_t len)
{
	char head[256];

	(void)snprintf(head, sizeof(head), "HTTP/1.1 %s\r\nContent-Type: text/plain\r\nContent-Length: %zu\r\n\r\n",
	               status, len);
	send_text(fd, head);
	(void)send(fd, body, len, MSG_NOSIGNAL);
}

/* false: the connection is done with. */
static bool answer(int fd, const char *path, const char *body, size_t len)
{
	static const char chunked[] = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n"
	                              "Transfer-Encoding: chunked\r\n\r\n";

	if (strcmp(path, "/whole") == 0) {
		answer_body(fd, "200 OK", "hello", 5);
	} else if (strcmp(path, "/echo") == 0) {
		answer_body(fd, "200 OK", body, len);
	} else if (strcmp(path, "/error") == 0) {
		answer_body(fd, "404 Not Found", "no such thing", 13);
	} else if (strcmp(path, "/big") == 0) {
		char *big = calloc(1, 1 << 20);

		answer_body(fd, "200 OK", big, 1 << 20);
		free(big);
	} else if (strcmp(path, "/stream") == 0) {
		send_text(fd, chunked);
		for (int i = 0; i < 3; i++) {
			send_text(fd, "4\r\ntok \r\n");
			sleep_ms(60);
		}
		send_text(fd, "0\r\n\r\n");
	} else if (strcmp(path, "/slow") == 0) {
		send_text(fd, chunked);
		for (int i = 0; i < 5; i++) {
			send_text(fd, "4\r\ntok \r\n");
			sleep_ms(500);
		}
		send_text(fd, "0\r\n\r\n");
	} else if (strcmp(path, "/endless") == 0) {
		send_text(fd, chunked);
		while (send(fd, "4\r\ntok \r\n", 9, MSG_NOSIGNAL) == 9)
			sleep_ms(1);
		return false;
	} else if (strcmp(path, "/stall") == 0) {
		send_text(fd, "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf");
		wait_for_close(fd);
		return false;
	} else if (strcmp(path, "/cut") == 0) {
		send_text(fd, "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf");
		return false;
	} else if (strcmp(path, "/garbage") == 0) {
		send_text(fd, "\x01\x02\x03 this is no HTTP\r\n\r\n");
		return false;
	} else {
		wait_for_close(fd); /* /silent */
		return false;
	}
	return true;
}

/* Reads one request and answers it; false at the end of the connection. */
static bool serve_one(struct server *s, int fd)
{
	char head[4096], path[128] = "", *end, *length;
	size_t used = 0, body_len = 0;

	for (;;) {
		ssize_t n;

		head[used] = '\0';
		end = strstr(head, "\r\n\r\n");
		if (end) {
			length = strstr(head, "Content-Length: ");
			body_len = length ? strtoul(length + 16, NULL, 10) : 0;
			if (used >= (size_t)(end + 4 - head) + body_len)
				break;
		}
		n = recv(fd, head + used, sizeof(head) - 1 - used, 0);
		if (n <= 0)
			return false;
		used += (size_t)n;
	}
	(void)pthread_mutex_lock(&s->lock);
	(void)snprintf(s->last_head, sizeof(s->last_head), "%.*s", (int)(end + 2 - head), head);
	(void)pthread_mutex_unlock(&s->lock);
	(void)sscanf(head, "%*s %127s", path);
	return answer(fd, path, end + 4, body_len);
}

static void *server_main(void *arg)
{
	struct server *s = arg;

	while (!atomic_load(&s->stop)) {
		int fd = accept(s->listener, NULL, NULL);

		if (fd < 0)
			break;
		atomic_fetch_add(&s->n_connections, 1);
		while (serve_one(s, fd))
			;
		(void)close(fd);
	}
	return NULL;
}

static void server_start(struct server *s, const char *unix_path)
{
	struct sockaddr_in in = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	struct sockaddr_un un = { .sun_family = AF_UNIX };
	socklen_t len = sizeof(in);

	*s = (struct server){ .listener = -1, .lock = PTHREAD_MUTEX_INITIALIZER };
	s->listener = socket(unix_path ? AF_UNIX : AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	assert_true(s->listener >= 0);
	if (unix_path) {
		(void)snprintf(s->path, sizeof(s->path), "%s", unix_path);
		(void)snprintf(un.sun_path, sizeof(un.sun_path), "%s", unix_path);
		assert_int_equal(bind(s->listener, (struct sockaddr *)&un, sizeof(un)), 0);
	} else {
		assert_int_equal(bind(s->listener, (struct sockaddr *)&in, sizeof(in)), 0);
		assert_int_equal(getsockname(s->listener, (struct sockaddr *)&in, &len), 0);
		s->port = ntohs(in.sin_port);
	}
	assert_int_equal(listen(s->listener, 4), 0);
	assert_int_equal(pthread_create(&s->thread, NULL, server_main, s), 0);
}

/* Call it after the client is gone, or the server would wait for the open connection. */
static void server_stop(struct server *s)
{
	atomic_store(&s->stop, true);
	(void)shutdown(s->listener, SHUT_RDWR);
	assert_int_equal(pthread_join(s->thread, NULL), 0);
	(void)close(s->listener);
	if (s->path[0])
		(void)unlink(s->path);
}

struct fixture {
	struct server server;
	struct base_http *http;
	char url[128];
	struct err err;
};

static int set_up(void **state)
{
	struct fixture *f = calloc(1, sizeof(*f));

	server_start(&f->server, NULL);
	assert_int_equal(base_http_new(&f->http, NULL), 0);
	*state = f;
	return 0;
}

static int tear_down(void **state)
{
	struct fixture *f = *state;

	base_http_free(f->http);
	server_stop(&f->server);
	free(f);
	return 0;
}

static const char *url_of(struct fixture *f, const char *path)
{
	(void)snprintf(f->url, sizeof(f->url), "http://127.0.0.1:%u%s", f->server.port, path);
	return f->url;
}

static void a_whole_body_arrives(void **state)
{
	struct fixture *f = *state;
	const struct base_http_request req = { .method = "GET", .url = url_of(f, "/whole") };
	struct base_http_response resp = { 0 };

	assert_int_equal(base_http_request(f->http, &req, &resp, &f->err), 0);
	assert_int_equal(resp.status, 200);
	assert_string_equal(resp.content_type, "text/plain");
	assert_string_equal(base_buf_text(&resp.body), "hello");
	base_buf_done(&resp.body);
}

static void a_body_and_headers_are_sent(void **state)
{
	static const char *const headers[] = { "Content-Type: application/json", "X-Extra: 1", NULL };
	struct fixture *f = *state;
	const struct base_http_request req = {
		.method = "POST", .url = url_of(f, "/echo"), .headers = headers, .body = "{\"a\":\0}", .body_len = 7
	};
	struct base_http_response resp = { 0 };

	assert_int_equal(base_http_request(f->http, &req, &resp, &f->err), 0);
	assert_int_equal(resp.body.len, 7);
	assert_memory_equal(resp.body.data, "{\"a\":\0}", 7);
	(void)pthread_mutex_lock(&f->server.lock);
	assert_non_null(strstr(f->server.last_head, "POST /echo HTTP/1.1\r\n"));
	assert_non_null(strstr(f->server.last_head, "\r\nContent-Type: application/json\r\n"));
	assert_non_null(strstr(f->server.last_head, "\r\nX-Extra: 1\r\n"));
	assert_null(strstr(f->server.last_head, "Expect"));
	(void)pthread_mutex_unlock(&f->server.lock);
	base_buf_done(&resp.body);
}

static void requests_share_one_connection(void **state)
{
	struct fixture *f = *state;

	for (int i = 0; i < 5; i++) {
		const struct base_http_request req = { .method = i % 2 ? "POST" : "GET", .url = url_of(f, "/whole") };
		struct base_http_response resp = { 0 };

		assert_int_equal(base_http_request(f->http, &req, &resp, &f->err), 0);
		base_buf_done(&resp.body);
	}
	assert_int_equal(f->server.n_connections, 1);
}

struct pieces {
	unsigned n_calls;
	char text[64];
	unsigned stop_after;
};

static int collect(void *arg, const char *data, size_t len)
{
	struct pieces *p = arg;
	size_t used = strlen(p->text);

	p->n_calls++;
	if (used + len < sizeof(p->text))
		memcpy(p->text + used, data, len);
	return p->stop_after && p->n_calls >= p->stop_after;
}

static void a_streamed_body_comes_piece_by_piece(void **state)
{
	struct fixture *f = *state;
	struct pieces p = { 0 };
	const struct base_http_request req = { .method = "POST",
		                               .url = url_of(f, "/stream"),
		                               .body = "{}",
		                               .body_len = 2,
		                               .on_body = collect,
		                               .on_body_arg = &p };
	struct base_http_response resp = { 0 };

	assert_int_equal(base_http_request(f->http, &req, &resp, &f->err), 0);
	assert_string_equal(p.text, "tok tok tok ");
	assert_int_equal(p.n_calls, 3);
	assert_int_equal(resp.body.len, 0);
	assert_string_equal(resp.content_type, "text/event-stream");
	base_buf_done(&resp.body);
}

static void an_error_body_is_kept_when_streaming(void **state)
{
	struct fixture *f = *state;
	struct pieces p = { 0 };
	const struct base_http_request req = {
		.method = "GET", .url = url_of(f, "/error"), .on_body = collect, .on_body_arg = &p
	};
	struct base_http_response resp = { 0 };

	assert_int_equal(base_http_request(f->http, &req, &resp, &f->err), 0);
	assert_int_equal(resp.status, 404);
	assert_int_equal(p.n_calls, 0);
	assert_string_equal(base_buf_text(&resp.body), "no such thing");
	base_buf_done(&resp.body);
}

static void the_callback_cancels_an_endless_answer(void **state)
{
	struct fixture *f = *state;
	struct pieces p = { .stop_after = 3 };
	struct base_http_request req = {
		.method = "GET", .url = url_of(f, "/endless"), .on_body = collect, .on_body_arg = &p
	};
	struct base_http_response resp = { .status = 77 };

	assert_int_equal(base_http_request(f->http, &req, &resp, &f->err), -ECANCELED);
	assert_int_equal(p.n_calls, 3);
	assert_int_equal(resp.status, 77); /* outputs stay untouched on failure */

	/* The client is as good as new. */
	req = (struct base_http_request){ .method = "GET", .url = url_of(f, "/whole") };
	assert_int_equal(base_http_request(f->http, &req, &resp, &f->err), 0);
	assert_string_equal(base_buf_text(&resp.body), "hello");
	base_buf_done(&resp.body);
}

static void a_larger_answer_than_allowed_is_refused(void **state)
{
	struct fixture *f = *state;
	const struct base_http_request req = { .method = "GET", .url = url_of(f, "/big"), .max_response_bytes = 1000 };
	struct base_http_response resp = { 0 };

	assert_int_equal(base_http_request(f->http, &req, &resp, &f->err), -EFBIG);
	assert_non_null(strstr(err_text(&f->err), "larger than 1000 bytes"));
}

static void a_closed_port_is_refused(void **state)
{
	struct fixture *f = *state;
	const struct base_http_request req = { .method = "GET", .url = "http://127.0.0.1:1/" };
	struct base_http_response resp = { 0 };

	assert_int_equal(base_http_request(f->http, &req, &resp, &f->err), -ECONNREFUSED);
	assert_non_null(strstr(err_text(&f->err), "http://127.0.0.1:1/"));
}

static void a_missing_unix_socket_is_refused(void **state)
{
	struct fixture *f = *state;
	const struct base_http_request req = { .method = "GET",
		                               .url = "http://localhost/",
		                               .unix_socket = "/nonexistent/socket" };
	struct base_http_response resp = { 0 };

	assert_int_equal(base_http_request(f->http, &req, &resp, &f->err), -ECONNREFUSED);
}

static void silence_ends_in_a_timeout(void **state)
{
	static const char *const paths[] = { "/silent", "/stall" };
	struct fixture *f = *state;

	for (size_t i = 0; i < 2; i++) {
		const struct base_http_request req = { .method = "GET",
			                               .url = url_of(f, paths[i]),
			                               .idle_timeout_ms = 150 };
		struct base_http_response resp = { 0 };
		double begin = base_now_s();

		assert_int_equal(base_http_request(f->http, &req, &resp, &f->err), -ETIMEDOUT);
		assert_true(base_now_s() - begin >= 0.14);
		assert_true(base_now_s() - begin < 100); /* and not libcurl's five minutes */
	}
}

static void a_slow_but_steady_answer_is_no_timeout(void **state)
{
	struct fixture *f = *state;
	/* 2.5 s in all, pieces half a second apart. */
	const struct base_http_request req = { .method = "GET", .url = url_of(f, "/slow"), .idle_timeout_ms = 2000 };
	struct base_http_response resp = { 0 };

	assert_int_equal(base_http_request(f->http, &req, &resp, &f->err), 0);
	base_buf_done(&resp.body);
}

static void a_cut_or_senseless_answer_is_an_error(void **state)
{
	static const char *const paths[] = { "/cut", "/garbage" };
	struct fixture *f = *state;

	for (size_t i = 0; i < 2; i++) {
		const struct base_http_request req = { .method = "GET", .url = url_of(f, paths[i]) };
		struct base_http_response resp = { 0 };

		assert_int_equal(base_http_request(f->http, &req, &resp, &f->err), -EIO);
	}
}

static void other_protocols_are_refused(void **state)
{
	struct fixture *f = *state;
	const struct base_http_request req = { .method = "GET", .url = "file:///etc/passwd" };
	struct base_http_response resp = { 0 };

	assert_int_equal(base_http_request(f->http, &req, &resp, &f->err), -EINVAL);
}

static void a_proxy_of_the_environment_is_not_used_locally(void **state)
{
	struct fixture *f = *state;
	const struct base_http_request req = { .method = "GET", .url = url_of(f, "/whole") };
	struct base_http_response resp = { 0 };

	(void)setenv("http_proxy", "http://127.0.0.1:1", 1);
	assert_int_equal(base_http_request(f->http, &req, &resp, &f->err), 0);
	(void)unsetenv("http_proxy");
	base_buf_done(&resp.body);
}

static void a_unix_socket_is_spoken_to(void **state)
{
	char path[64];
	const struct base_http_request req = { .method = "GET", .url = "http://localhost/whole", .unix_socket = path };
	struct base_http_response resp = { 0 };
	struct base_http *http = NULL;
	struct server server;

	(void)state;
	(void)snprintf(path, sizeof(path), "/tmp/test-http-client-%ld.sock", (long)getpid());
	(void)unlink(path);
	server_start(&server, path);
	assert_int_equal(base_http_new(&http, NULL), 0);
	assert_int_equal(base_http_request(http, &req, &resp, NULL), 0);
	assert_string_equal(base_buf_text(&resp.body), "hello");
	base_buf_done(&resp.body);
	base_http_free(http);
	server_stop(&server);
}

#define WITH_SERVER(test) cmocka_unit_test_setup_teardown(test, set_up, tear_down)

int main(void)
{
	const struct CMUnitTest tests[] = {
		WITH_SERVER(a_whole_body_arrives),
		WITH_SERVER(a_body_and_headers_are_sent),
		WITH_SERVER(requests_share_one_connection),
		WITH_SERVER(a_streamed_body_comes_piece_by_piece),
		WITH_SERVER(an_error_body_is_kept_when_streaming),
		WITH_SERVER(the_callback_cancels_an_endless_answer),
		WITH_SERVER(a_larger_answer_than_allowed_is_refused),
		WITH_SERVER(a_closed_port_is_refused),
		WITH_SERVER(a_missing_unix_socket_is_refused),
		WITH_SERVER(silence_ends_in_a_timeout),
		WITH_SERVER(a_slow_but_steady_answer_is_no_timeout),
		WITH_SERVER(a_cut_or_senseless_answer_is_an_error),
		WITH_SERVER(other_protocols_are_refused),
		WITH_SERVER(a_proxy_of_the_environment_is_not_used_locally),
		cmocka_unit_test(a_unix_socket_is_spoken_to),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
