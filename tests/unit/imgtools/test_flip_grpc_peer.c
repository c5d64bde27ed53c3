/* gRPC over unix sockets, by hand where a peer does what ours never would. */
#include "flip_grpc_test.h"

/* ---- A peer by hand ---- */

struct raw {
	nghttp2_session *h2;
	int fd;
	size_t piece; /* bytes written at a time */
	const char *body;
	size_t body_size, body_pos;
	bool is_open; /* the request does not end */
	char http[8], status[8], message[128], content_type[64];
	size_t n_bytes;
	bool is_closed, is_gone;
	uint32_t error_code;
};

static int raw_header(nghttp2_session *h2, const nghttp2_frame *frame, const uint8_t *name, size_t name_len,
                      const uint8_t *value, size_t value_len, uint8_t flags, void *arg)
{
	struct raw *r = arg;
	char *slot = NULL;

	(void)h2;
	(void)frame;
	(void)name_len;
	(void)flags;
	if (strcmp((const char *)name, ":status") == 0)
		slot = r->http;
	else if (strcmp((const char *)name, "grpc-status") == 0)
		slot = r->status;
	else if (strcmp((const char *)name, "grpc-message") == 0)
		slot = r->message;
	else if (strcmp((const char *)name, "content-type") == 0)
		slot = r->content_type;
	if (slot)
		(void)snprintf(slot,
		               slot == r->message        ? 128
		               : slot == r->content_type ? 64
		                                         : 8,
		               "%.*s", (int)value_len, (const char *)value);
	return 0;
}

static int raw_data(nghttp2_session *h2, uint8_t flags, int32_t id, const uint8_t *data, size_t size, void *arg)
{
	(void)h2;
	(void)flags;
	(void)id;
	(void)data;
	((struct raw *)arg)->n_bytes += size;
	return 0;
}

static int raw_close(nghttp2_session *h2, int32_t id, uint32_t error_code, void *arg)
{
	struct raw *r = arg;

	(void)h2;
	(void)id;
	r->is_closed = true;
	r->error_code = error_code;
	return 0;
}

static ssize_t raw_read(nghttp2_session *h2, int32_t id, uint8_t *buf, size_t size, uint32_t *flags,
                        nghttp2_data_source *source, void *arg)
{
	struct raw *r = arg;
	size_t n = r->body_size - r->body_pos;

	(void)h2;
	(void)id;
	(void)source;
	n = n < size ? n : size;
	memcpy(buf, r->body + r->body_pos, n);
	r->body_pos += n;
	if (r->body_pos == r->body_size && !r->is_open)
		*flags |= NGHTTP2_DATA_FLAG_EOF;
	else if (n == 0)
		return NGHTTP2_ERR_DEFERRED;
	return (ssize_t)n;
}

static int connect_to(const char *path)
{
	struct sockaddr_un a = { .sun_family = AF_UNIX };
	int fd = socket(AF_UNIX, SOCK_STREAM, 0);

	assert_true(fd >= 0);
	memcpy(a.sun_path, path, strlen(path) + 1);
	assert_int_equal(connect(fd, (struct sockaddr *)&a, sizeof(a)), 0);
	return fd;
}

static void raw_init(struct raw *r, const struct fixture *f)
{
	nghttp2_session_callbacks *c;

	memset(r, 0, sizeof(*r));
	r->fd = connect_to(f->socket);
	r->piece = SIZE_MAX;
	assert_int_equal(nghttp2_session_callbacks_new(&c), 0);
	nghttp2_session_callbacks_set_on_header_callback(c, raw_header);
	nghttp2_session_callbacks_set_on_data_chunk_recv_callback(c, raw_data);
	nghttp2_session_callbacks_set_on_stream_close_callback(c, raw_close);
	assert_int_equal(nghttp2_session_client_new(&r->h2, c, r), 0);
	nghttp2_session_callbacks_del(c);
	assert_int_equal(nghttp2_submit_settings(r->h2, 0, NULL, 0), 0);
}

static void raw_done(struct raw *r)
{
	nghttp2_session_del(r->h2);
	(void)close(r->fd);
}

#define NV(n, v)                                                                                             \
	(nghttp2_nv)                                                                                         \
	{                                                                                                    \
		.name = (uint8_t *)(n), .value = (uint8_t *)(v), .namelen = strlen(n), .valuelen = strlen(v) \
	}

/* `extra`: one header more, or NULL. */
static int32_t raw_submit(struct raw *r, const char *method, const char *path, const char *type, const char *extra,
                          const char *extra_value)
{
	nghttp2_nv nv[] = { NV(":method", method),
		            NV(":scheme", "http"),
		            NV(":path", path),
		            NV(":authority", "x"),
		            NV("content-type", type),
		            NV("te", "trailers"),
		            NV(extra ? extra : "x-none", extra ? extra_value : "") };
	nghttp2_data_provider data = { .read_callback = raw_read };
	int32_t id = nghttp2_submit_request(r->h2, NULL, nv, sizeof(nv) / sizeof(*nv), &data, NULL);

	assert_true(id > 0);
	return id;
}

static void raw_write(struct raw *r)
{
	const uint8_t *data;
	ssize_t n;

	while ((n = nghttp2_session_mem_send(r->h2, &data)) > 0) {
		for (ssize_t at = 0, put; at < n; at += put) {
			size_t size = (size_t)(n - at) < r->piece ? (size_t)(n - at) : r->piece;

			put = send(r->fd, data + at, size, MSG_NOSIGNAL);
			if (put < 0) {
				r->is_gone = true;
				return;
			}
		}
	}
}

/* Until the stream is closed or the connection gone. */
static void raw_run(struct raw *r)
{
	uint8_t buf[4096];

	while (!r->is_closed && !r->is_gone) {
		ssize_t n;

		raw_write(r);
		n = recv(r->fd, buf, sizeof(buf), 0);
		if (n <= 0 || nghttp2_session_mem_recv(r->h2, buf, (size_t)n) < 0)
			r->is_gone = true;
	}
}

static void frames_may_come_byte_by_byte(void **state)
{
	static const char body[] = "\0\0\0\0\5hello";
	struct raw r;

	raw_init(&r, *state);
	r.piece = 1;
	r.body = body;
	r.body_size = sizeof(body) - 1;
	(void)raw_submit(&r, "POST", "/test/Echo", "application/grpc+proto", NULL, NULL);
	raw_run(&r);
	assert_string_equal(r.http, "200");
	assert_string_equal(r.status, "0");
	assert_string_equal(r.content_type, "application/grpc");
	assert_int_equal(r.n_bytes, 10);
	raw_done(&r);
}

static void what_is_wrong_with_a_request_ends_its_stream(void **state)
{
	static const struct {
		const char *method, *path, *type, *body;
		size_t size;
		bool is_open;
		const char *http, *status;
	} cases[] = {
		{ "GET", "/test/Echo", "application/grpc", "", 0, false, "405", "" },
		{ "POST", "/test/Echo", "text/html", "", 0, false, "415", "" },
		{ "POST", "/test/Echo", "application/grpcx", "", 0, false, "415", "" },
		{ "POST", "/test/Nothing", "application/grpc", "", 0, true, "200", "12" },
		{ "POST", "/test/Echo", "application/grpc", "", 0, false, "200", "13" },
		{ "POST", "/test/Echo", "application/grpc", "\0\0\0\0", 4, false, "200", "13" },
		{ "POST", "/test/Echo", "application/grpc", "\0\0\0\0\5hell", 9, false, "200", "13" },
		{ "POST", "/test/Echo", "application/grpc", "\1\0\0\0\5hello", 10, true, "200", "12" },
		{ "POST", "/test/Echo", "application/grpc", "\0\xff\xff\xff\xff", 5, true, "200", "8" },
		{ "POST", "/test/Echo", "application/grpc", "\0\0\0\0\1ab", 7, true, "200", "13" },
		{ "POST", "/test/Echo", "application/grpc;x", "\0\0\0\0\1a", 6, false, "200", "0" },
	};
	struct raw r;

	raw_init(&r, *state); /* one connection for all */
	for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
		r.body = cases[i].body;
		r.body_size = cases[i].size;
		r.body_pos = 0;
		r.is_open = cases[i].is_open;
		r.is_closed = false;
		r.http[0] = r.status[0] = '\0';
		(void)raw_submit(&r, cases[i].method, cases[i].path, cases[i].type, NULL, NULL);
		raw_run(&r);
		assert_false(r.is_gone);
		assert_string_equal(r.http, cases[i].http);
		assert_string_equal(r.status, cases[i].status);
	}
	raw_done(&r);
}

static void headers_beyond_their_ceiling_end_the_stream(void **state)
{
	static char value[20000];
	struct raw r;

	memset(value, 'v', sizeof(value) - 1);
	raw_init(&r, *state);
	r.body = "";
	(void)raw_submit(&r, "POST", "/test/Echo", "application/grpc", "x-long", value);
	raw_run(&r);
	assert_string_equal(r.http, "");
	assert_true(r.is_closed && r.error_code != NGHTTP2_NO_ERROR);
	r.is_closed = false;
	(void)raw_submit(&r, "POST", "/test/Echo", "application/grpc", "grpc-timeout", "soon");
	raw_run(&r);
	assert_string_equal(r.http, "");
	raw_done(&r);
}

static void a_deadline_is_kept_when_the_peer_does_not(void **state)
{
	static const char body[] = "\0\0\0\0\0";
	struct fixture *f = *state;
	char timeout[16];
	struct raw r;

	raw_init(&r, f);
	r.body = body;
	r.body_size = 5;
	for (unsigned us = 30000; f->n_started == 0; us *= 2) { /* as above */
		(void)snprintf(timeout, sizeof(timeout), "%uu", us);
		r.body_pos = 0;
		r.is_closed = false;
		r.status[0] = '\0';
		(void)raw_submit(&r, "POST", "/test/Wait", "application/grpc", "grpc-timeout", timeout);
		raw_run(&r);
		assert_string_equal(r.status, "4");
	}
	assert_all_canceled(f);
	raw_done(&r);
}

static void a_reset_stream_cancels_its_call_only(void **state)
{
	static const char body[] = "\0\0\0\0\0";
	struct fixture *f = *state;
	struct raw r;
	int32_t id;

	raw_init(&r, f);
	r.body = body;
	r.body_size = 5;
	id = raw_submit(&r, "POST", "/test/Wait", "application/grpc", NULL, NULL);
	raw_write(&r);
	wait_for(&f->n_started, 1);
	assert_int_equal(nghttp2_submit_rst_stream(r.h2, 0, id, NGHTTP2_CANCEL), 0);
	raw_write(&r);
	wait_for(&f->n_ended, 1);
	assert_int_equal(f->n_canceled, 1);
	r.is_closed = false;
	r.body_pos = 0;
	(void)raw_submit(&r, "POST", "/test/Echo", "application/grpc", NULL, NULL);
	raw_run(&r);
	assert_string_equal(r.status, "0");
	raw_done(&r);
}

static void a_peer_that_closes_its_side_loses_its_calls(void **state)
{
	static const char body[] = "\0\0\0\0\0";
	struct fixture *f = *state;
	struct raw r;

	raw_init(&r, f);
	r.body = body;
	r.body_size = 5;
	(void)raw_submit(&r, "POST", "/test/Wait", "application/grpc", NULL, NULL);
	raw_write(&r);
	wait_for(&f->n_started, 1);
	assert_int_equal(shutdown(r.fd, SHUT_WR), 0);
	wait_for(&f->n_ended, 1);
	assert_int_equal(f->n_canceled, 1);
	raw_run(&r);
	assert_true(r.is_gone);
	raw_done(&r);
}

static void more_streams_than_allowed_are_refused(void **state)
{
	static const char body[] = "\0\0\0\0\0";
	struct fixture *f = *state;
	struct raw r;

	raw_init(&r, f);
	r.is_open = true;
	r.body = body;
	for (int i = 0; i < 99; i++) /* what nghttp2's client allows itself before it has seen our settings */
		(void)raw_submit(&r, "POST", "/test/Wait", "application/grpc", NULL, NULL);
	raw_write(&r);
	/* The other connection is served while these are open. */
	assert_comes_back(*state);
	raw_done(&r);
	assert_comes_back(*state);
}

static void nonsense_ends_only_its_own_connection(void **state)
{
	static const char preface[] = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
	static const char *const frames[] = {
		"GET / HTTP/1.1\r\n\r\n",
		"\0\0\0\4\0\0\0\0\0\xff\xff\xff\x00\0\0\0\0\0", /* settings; a frame of 16 MB */
		"\0\0\1\1\4\0\0\0\1\xff",                       /* headers that are none */
		"\0\0\1\0\0\0\0\0\1x",                          /* data for nobody */
	};
	static const size_t sizes[] = { 18, 18, 10, 10 };
	struct fixture *f = *state;
	struct got got = { 0 };

	for (size_t i = 0; i < 4; i++) {
		char buf[1024];
		int fd = connect_to(f->socket);

		if (i > 0)
			assert_int_equal(send(fd, preface, 24, MSG_NOSIGNAL), 24);
		assert_int_equal(send(fd, frames[i], sizes[i], MSG_NOSIGNAL), (ssize_t)sizes[i]);
		while (recv(fd, buf, sizeof(buf), 0) > 0) {
		}
		(void)close(fd);
		assert_int_equal(call(f, "/test/Echo", "x", 1, &got, NULL), 0);
	}
}

/* ---- A server by hand ---- */

struct fake {
	int listen_fd;
	const char *bytes;
	size_t size;
	bool is_patient; /* leaves the connection open */
};

static void *fake_server(void *arg)
{
	struct fake *s = arg;
	int fd = accept(s->listen_fd, NULL, NULL);
	char buf[1024];

	assert_true(fd >= 0);
	(void)close(s->listen_fd); /* no second try */
	(void)send(fd, s->bytes, s->size, MSG_NOSIGNAL);
	while (s->is_patient && recv(fd, buf, sizeof(buf), 0) > 0) {
	}
	(void)close(fd);
	return NULL;
}

static void a_client_survives_any_server(void **state)
{
	static const char ok[] = "\0\0\0\4\0\0\0\0\0";
	struct fake fakes[] = { { 0, "", 0, false },
		                { 0, "HTTP/1.1 400 Bad\r\n\r\n", 20, true },
		                { 0, ok, 9, false },
		                { 0, ok, 9, true } };
	struct fixture *f = *state;
	struct sockaddr_un a = { .sun_family = AF_UNIX };

	(void)snprintf(a.sun_path, sizeof(a.sun_path), "%s/fake", f->dir);
	for (size_t i = 0; i < 4; i++) {
		struct flip_grpc_client *c;
		pthread_t thread;
		int r;

		fakes[i].listen_fd = socket(AF_UNIX, SOCK_STREAM, 0);
		assert_int_equal(bind(fakes[i].listen_fd, (struct sockaddr *)&a, sizeof(a)), 0);
		assert_int_equal(listen(fakes[i].listen_fd, 1), 0);
		assert_int_equal(flip_grpc_connect(a.sun_path, &c, NULL), 0);
		assert_int_equal(pthread_create(&thread, NULL, fake_server, &fakes[i]), 0);
		r = flip_grpc_call(c, "/x/Y", NULL, 0, "", 0, i < 3 ? 60000 : 200, NULL, NULL, NULL);
		flip_grpc_close(c);
		assert_int_equal(pthread_join(thread, NULL), 0);
		if (i < 3) /* whether it was seen before the call or in it */
			assert_true(r == -ECONNRESET || r == -ECONNREFUSED);
		else
			assert_int_equal(r, -ETIMEDOUT);
		assert_int_equal(unlink(a.sun_path), 0);
	}
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
		T(frames_may_come_byte_by_byte),
		T(what_is_wrong_with_a_request_ends_its_stream),
		T(headers_beyond_their_ceiling_end_the_stream),
		T(a_deadline_is_kept_when_the_peer_does_not),
		T(a_reset_stream_cancels_its_call_only),
		T(a_peer_that_closes_its_side_loses_its_calls),
		T(more_streams_than_allowed_are_refused),
		T(nonsense_ends_only_its_own_connection),
		T(a_client_survives_any_server),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
