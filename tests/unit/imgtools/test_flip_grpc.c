/* gRPC over unix sockets: our client with our server, and by hand where a peer does what ours never would. */
#include <errno.h>
#include <fcntl.h>
#include <nghttp2/nghttp2.h>
#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "test.h"
#include "grpc/grpc.h"
#include "grpc/grpc_internal.h"

struct fixture {
	char dir[64], socket[96];
	struct flip_grpc_server *server;
	struct flip_grpc_client *client;
	atomic_uint n_started, n_ended, n_canceled, n_sent;
	atomic_bool may_go;
};

/* ---- Handlers ---- */

static int on_echo(struct flip_grpc_call *call, void *arg, struct err *err)
{
	size_t size;
	const void *data = flip_grpc_request(call, &size);

	(void)arg;
	(void)err;
	return flip_grpc_send(call, data, size);
}

static int on_fail(struct flip_grpc_call *call, void *arg, struct err *err)
{
	size_t size;
	const char *text = flip_grpc_request(call, &size);

	(void)arg;
	return err_set(err, -ENOENT, "100 %% of \"%.*s\" is gone", (int)size, text);
}

/* As many messages of 10,000 bytes as the request says, numbered. */
static int on_count(struct flip_grpc_call *call, void *arg, struct err *err)
{
	static const char zeros[10000];
	struct fixture *f = arg;
	char message[sizeof(zeros)] = "";
	unsigned n;
	size_t size;
	int r = 0;

	(void)err;
	(void)snprintf(message, sizeof(message), "%s", (const char *)flip_grpc_request(call, &size));
	n = (unsigned)strtoul(message, NULL, 10);
	for (unsigned i = 0; i < n && r == 0; i++) {
		(void)snprintf(message, sizeof(message), "%u", i);
		r = flip_grpc_send(call, message, sizeof(message));
		f->n_sent += r == 0;
	}
	f->n_canceled += r == -ECANCELED;
	f->n_ended++;
	return r;
}

static int on_half(struct flip_grpc_call *call, void *arg, struct err *err)
{
	(void)arg;
	(void)flip_grpc_send(call, "first", 5);
	return err_set(err, -EBUSY, "no second");
}

/* Until it is canceled or may go. */
static int on_wait(struct flip_grpc_call *call, void *arg, struct err *err)
{
	struct fixture *f = arg;

	(void)err;
	f->n_started++;
	while (!flip_grpc_is_canceled(call) && !f->may_go)
		(void)usleep(1000);
	f->n_canceled += flip_grpc_is_canceled(call);
	f->n_ended++;
	return flip_grpc_send(call, "waited", 6);
}

static const struct flip_grpc_method methods[] = {
	{ "/test/Echo", on_echo }, { "/test/Fail", on_fail }, { "/test/Count", on_count },
	{ "/test/Half", on_half }, { "/test/Wait", on_wait }, { 0 },
};

static int setup(void **state)
{
	struct fixture *f = calloc(1, sizeof(*f));

	assert_non_null(f);
	(void)snprintf(f->dir, sizeof(f->dir), "/tmp/test_flip_grpc.XXXXXX");
	assert_non_null(mkdtemp(f->dir));
	(void)snprintf(f->socket, sizeof(f->socket), "%s/socket", f->dir);
	assert_int_equal(flip_grpc_serve(f->socket, methods, f, 4, &f->server, NULL), 0);
	assert_int_equal(flip_grpc_connect(f->socket, &f->client, NULL), 0);
	*state = f;
	return 0;
}

static int teardown(void **state)
{
	struct fixture *f = *state;

	f->may_go = true;
	flip_grpc_close(f->client);
	flip_grpc_stop(f->server);
	assert_int_equal(access(f->socket, F_OK), -1);
	(void)rmdir(f->dir);
	free(f);
	return 0;
}

static void wait_for(const atomic_uint *n, unsigned at_least)
{
	while (*n < at_least)
		(void)usleep(1000);
}

/* ---- Client and server ---- */

struct got {
	size_t n, size, stop_at;
	char last[64];
};

static int on_reply(void *arg, const void *data, size_t size)
{
	struct got *g = arg;

	g->n++;
	g->size = size;
	(void)snprintf(g->last, sizeof(g->last), "%.*s", (int)(size < 60 ? size : 60), (const char *)data);
	return g->stop_at && g->n == g->stop_at ? 77 : 0;
}

static int call(struct fixture *f, const char *path, const void *data, size_t size, struct got *got, struct err *err)
{
	memset(got, 0, offsetof(struct got, stop_at));
	return flip_grpc_call(f->client, path, NULL, 0, data, size, 0, on_reply, got, err);
}

static void a_message_comes_back_whatever_its_size(void **state)
{
	static const size_t sizes[] = { 0, 1, 4, 5, 16384, 65535, 65536, 1000000, 4 << 20 };
	struct fixture *f = *state;
	struct got got = { 0 };
	char *data = calloc(1, 4 << 20);

	assert_non_null(data);
	for (size_t i = 0; i < sizeof(sizes) / sizeof(*sizes); i++) {
		assert_int_equal(call(f, "/test/Echo", data, sizes[i], &got, NULL), 0);
		assert_int_equal(got.n, 1);
		assert_int_equal(got.size, sizes[i]);
	}
	free(data);
}

static void a_request_beyond_four_mebibytes_is_refused(void **state)
{
	struct fixture *f = *state;
	struct got got = { 0 };
	struct err err = { 0 };
	size_t size = (4 << 20) + 1;
	char *data = calloc(1, size);

	assert_int_equal(call(f, "/test/Echo", data, size, &got, &err), -ENOSPC);
	assert_non_null(strstr(err.msg, "4 MiB"));
	assert_int_equal(call(f, "/test/Echo", "x", 1, &got, NULL), 0); /* the connection goes on */
	free(data);
}

static void an_error_comes_with_its_words(void **state)
{
	static const char name[] = "\xc3\xa4\xe5\x90\x8d%41";
	struct fixture *f = *state;
	struct got got = { 0 };
	struct err err = { 0 };

	assert_int_equal(call(f, "/test/Fail", name, strlen(name), &got, &err), -ENOENT);
	assert_string_equal(err.msg, "100 % of \"\xc3\xa4\xe5\x90\x8d%41\" is gone");
	assert_int_equal(got.n, 0);
}

static void an_error_may_follow_a_message(void **state)
{
	struct fixture *f = *state;
	struct got got = { 0 };
	struct err err = { 0 };

	assert_int_equal(call(f, "/test/Half", "", 0, &got, &err), -EBUSY);
	assert_string_equal(err.msg, "no second");
	assert_string_equal(got.last, "first");
}

static void an_unknown_method_is_unimplemented(void **state)
{
	struct fixture *f = *state;
	struct got got = { 0 };

	assert_int_equal(call(f, "/test/None", "", 0, &got, NULL), -ENOTSUP);
	assert_int_equal(call(f, "/test/Echo/", "", 0, &got, NULL), -ENOTSUP);
}

static void a_stream_of_messages_arrives_in_order(void **state)
{
	struct fixture *f = *state;
	struct got got = { 0 };

	assert_int_equal(call(f, "/test/Count", "1500", 5, &got, NULL), 0);
	assert_int_equal(got.n, 1500);
	assert_string_equal(got.last, "1499");
	assert_int_equal(call(f, "/test/Count", "0", 2, &got, NULL), 0);
	assert_int_equal(got.n, 0);
}

static void a_stream_that_is_stopped_cancels_its_handler(void **state)
{
	struct fixture *f = *state;
	struct got got = { .stop_at = 3 };

	assert_int_equal(call(f, "/test/Count", "100000", 7, &got, NULL), 77);
	wait_for(&f->n_ended, 1);
	assert_int_equal(f->n_canceled, 1);
	got.stop_at = 0;
	assert_int_equal(call(f, "/test/Echo", "x", 1, &got, NULL), 0);
}

static void a_handler_sleeps_while_the_peer_does_not_read(void **state)
{
	struct fixture *f = *state;
	struct flip_grpc_stream *st;
	const void *data;
	size_t size, n = 0;
	unsigned sent;

	assert_int_equal(flip_grpc_stream_open(f->client, "/test/Count", NULL, 0, 0, &st, NULL), 0);
	assert_int_equal(flip_grpc_stream_send(st, "5000", 5, true, NULL), 0);
	assert_int_equal(flip_grpc_stream_receive(st, &data, &size, NULL), 1);
	do { /* until it stands still */
		sent = f->n_sent;
		(void)usleep(50000);
	} while (sent != f->n_sent);
	assert_true(sent < 2500); /* windows and buffers are below 25 MB together */
	while (flip_grpc_stream_receive(st, &data, &size, NULL) == 1)
		n++;
	assert_int_equal(n + 1, 5000);
	flip_grpc_stream_close(st);
}

/* Handlers that began have ended, all of them canceled. */
static void assert_all_canceled(struct fixture *f)
{
	while (f->n_ended != f->n_started)
		(void)usleep(1000);
	assert_int_equal(f->n_canceled, f->n_started);
}

static void a_call_that_takes_too_long_is_canceled(void **state)
{
	struct fixture *f = *state;

	/* On a busy machine the time may be over before a handler has begun. */
	for (uint32_t ms = 50; f->n_started == 0; ms *= 2) {
		struct err err = { 0 };

		assert_int_equal(flip_grpc_call(f->client, "/test/Wait", NULL, 0, "", 0, ms, NULL, NULL, &err),
		                 -ETIMEDOUT);
		assert_true(strlen(err.msg) > 0);
	}
	assert_all_canceled(f);
}

static void what_waits_for_a_handler_can_be_canceled(void **state)
{
	struct fixture *f = *state;
	struct flip_grpc_client *others[4];
	struct flip_grpc_stream *streams[4];

	for (int i = 0; i < 4; i++) { /* all four handlers are busy */
		assert_int_equal(flip_grpc_connect(f->socket, &others[i], NULL), 0);
		assert_int_equal(flip_grpc_stream_open(others[i], "/test/Wait", NULL, 0, 0, &streams[i], NULL), 0);
		assert_int_equal(flip_grpc_stream_send(streams[i], "", 0, true, NULL), 0);
	}
	wait_for(&f->n_started, 4);
	assert_int_equal(flip_grpc_call(f->client, "/test/Wait", NULL, 0, "", 0, 50, NULL, NULL, NULL), -ETIMEDOUT);
	for (int i = 0; i < 4; i++) {
		flip_grpc_stream_close(streams[i]);
		flip_grpc_close(others[i]);
	}
	wait_for(&f->n_ended, 4);
	assert_int_equal(f->n_started, 4); /* the fifth never began */
}

static void *many_calls(void *arg)
{
	struct fixture *f = arg;
	struct flip_grpc_client *c;
	struct got got = { 0 };
	char text[32];

	assert_int_equal(flip_grpc_connect(f->socket, &c, NULL), 0);
	for (unsigned i = 0; i < 200; i++) {
		(void)snprintf(text, sizeof(text), "%u of %p", i, (void *)&got);
		assert_int_equal(flip_grpc_call(c, "/test/Echo", NULL, 0, text, strlen(text), 0, on_reply, &got, NULL),
		                 0);
		assert_string_equal(got.last, text);
	}
	flip_grpc_close(c);
	return NULL;
}

static void many_clients_are_served_at_a_time(void **state)
{
	struct fixture *f = *state;
	pthread_t threads[8];

	for (int i = 0; i < 8; i++)
		assert_int_equal(pthread_create(&threads[i], NULL, many_calls, f), 0);
	for (int i = 0; i < 8; i++)
		assert_int_equal(pthread_join(threads[i], NULL), 0);
}

static void a_client_finds_a_server_that_was_started_again(void **state)
{
	struct fixture *f = *state;
	struct got got = { 0 };

	assert_int_equal(call(f, "/test/Echo", "a", 1, &got, NULL), 0);
	flip_grpc_stop(f->server);
	assert_int_equal(call(f, "/test/Echo", "b", 1, &got, NULL), -ENOENT);
	assert_int_equal(flip_grpc_serve(f->socket, methods, f, 4, &f->server, NULL), 0);
	assert_int_equal(call(f, "/test/Echo", "c", 1, &got, NULL), 0);
	assert_string_equal(got.last, "c");
}

static void *stop_server(void *arg)
{
	flip_grpc_stop(((struct fixture *)arg)->server);
	return NULL;
}

static void stopping_ends_the_calls_that_run(void **state)
{
	struct fixture *f = *state;
	struct flip_grpc_stream *st;
	struct err err = { 0 };
	pthread_t thread;
	const void *data;
	size_t size;
	int r;

	assert_int_equal(flip_grpc_stream_open(f->client, "/test/Wait", NULL, 0, 0, &st, NULL), 0);
	assert_int_equal(flip_grpc_stream_send(st, "", 0, true, NULL), 0);
	wait_for(&f->n_started, 1);
	assert_int_equal(pthread_create(&thread, NULL, stop_server, f), 0);
	r = flip_grpc_stream_receive(st, &data, &size, &err);
	assert_int_equal(pthread_join(thread, NULL), 0);
	f->server = NULL;
	assert_int_equal(r, -EAGAIN);
	assert_string_equal(err.msg, "the server stops");
	assert_int_equal(f->n_ended, 1); /* its handler was waited for */
	assert_int_equal(f->n_canceled, 1);
	flip_grpc_stream_close(st);
	assert_int_equal(flip_grpc_serve(f->socket, methods, f, 4, &f->server, NULL), 0);
}

static void a_socket_is_taken_over_only_from_the_dead(void **state)
{
	struct fixture *f = *state;
	struct flip_grpc_server *s = NULL;
	struct sockaddr_un a = { .sun_family = AF_UNIX };
	char path[sizeof(a.sun_path)], too_long[200];
	struct stat st;
	int fd;

	assert_int_equal(flip_grpc_serve(f->socket, methods, f, 1, &s, NULL), -EADDRINUSE);
	assert_int_equal(stat(f->socket, &st), 0);
	assert_int_equal(st.st_mode & 0777, 0600);

	(void)snprintf(path, sizeof(path), "%s/dead", f->dir);
	memcpy(a.sun_path, path, strlen(path) + 1);
	fd = socket(AF_UNIX, SOCK_STREAM, 0);
	assert_int_equal(bind(fd, (struct sockaddr *)&a, sizeof(a)), 0);
	(void)close(fd);
	assert_int_equal(flip_grpc_serve(path, methods, f, 1, &s, NULL), 0);
	flip_grpc_stop(s);

	fd = creat(path, 0600);
	assert_true(fd >= 0);
	(void)close(fd);
	assert_int_equal(flip_grpc_serve(path, methods, f, 1, &s, NULL), -EEXIST);
	assert_int_equal(unlink(path), 0);

	memset(too_long, 'a', sizeof(too_long));
	too_long[sizeof(too_long) - 1] = '\0';
	assert_int_equal(flip_grpc_serve(too_long, methods, f, 1, &s, NULL), -ENAMETOOLONG);
}

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
	a_message_comes_back_whatever_its_size(state);
	raw_done(&r);
	a_message_comes_back_whatever_its_size(state);
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
		r = flip_grpc_call(c, "/x/Y", NULL, 0, "", 0, 200, NULL, NULL, NULL);
		flip_grpc_close(c);
		assert_int_equal(pthread_join(thread, NULL), 0);
		if (i < 3) /* whether it was seen before the call or in it */
			assert_true(r == -ECONNRESET || r == -ECONNREFUSED);
		else
			assert_int_equal(r, -ETIMEDOUT);
		assert_int_equal(unlink(a.sun_path), 0);
	}
}

/* ---- The small encodings ---- */

static void timeouts_are_read(void **state)
{
	static const struct {
		const char *text;
		uint64_t ns; /* 0: refused */
	} cases[] = {
		{ "1n", 1 },
		{ "5u", 5000 },
		{ "7m", 7000000 },
		{ "2S", 2000000000 },
		{ "1M", 60000000000 },
		{ "1H", 3600000000000 },
		{ "99999999H", UINT64_MAX / 4 },
		{ "", 0 },
		{ "m", 0 },
		{ "1", 0 },
		{ "1x", 0 },
		{ "-1m", 0 },
		{ "123456789m", 0 },
		{ " 1m", 0 },
	};
	uint64_t ns;

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
		ns = 0;
		assert_int_equal(flip_grpc_timeout_parse(cases[i].text, strlen(cases[i].text), &ns),
		                 cases[i].ns ? 0 : -EBADMSG);
		assert_true(ns == cases[i].ns);
	}
}

static void messages_are_escaped_and_cut_at_an_escape(void **state)
{
	char text[32], back[32];

	(void)state;
	flip_grpc_percent_encode("a\n%\xc3\xa4 z", text, sizeof(text));
	assert_string_equal(text, "a%0A%25%C3%A4 z");
	flip_grpc_percent_decode(text, strlen(text), back, sizeof(back));
	assert_string_equal(back, "a\n%\xc3\xa4 z");
	flip_grpc_percent_encode("abc\n", text, 6); /* no room for three more */
	assert_string_equal(text, "abc");
	flip_grpc_percent_decode("%4%zz%", 6, back, sizeof(back));
	assert_string_equal(back, "%4%zz%");
}

static void errnos_become_statuses_and_come_back(void **state)
{
	static const int errors[] = { -EEXIST, -ENOENT, -EINVAL, -EBUSY, -ENOTSUP, -ECANCELED, -ETIMEDOUT, -EAGAIN };

	(void)state;
	assert_int_equal(flip_grpc_status_of(0), FLIP_GRPC_OK);
	assert_int_equal(flip_grpc_status_of(-EEXIST), FLIP_GRPC_ALREADY_EXISTS);
	assert_int_equal(flip_grpc_status_of(-EBUSY), FLIP_GRPC_FAILED_PRECONDITION);
	assert_int_equal(flip_grpc_status_of(-EXDEV), FLIP_GRPC_UNKNOWN);
	assert_int_equal(flip_grpc_errno_of(99), -EIO);
	for (size_t i = 0; i < sizeof(errors) / sizeof(*errors); i++)
		assert_int_equal(flip_grpc_errno_of(flip_grpc_status_of(errors[i])), errors[i]);
}

#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		T(a_message_comes_back_whatever_its_size),
		T(a_request_beyond_four_mebibytes_is_refused),
		T(an_error_comes_with_its_words),
		T(an_error_may_follow_a_message),
		T(an_unknown_method_is_unimplemented),
		T(a_stream_of_messages_arrives_in_order),
		T(a_stream_that_is_stopped_cancels_its_handler),
		T(a_handler_sleeps_while_the_peer_does_not_read),
		T(a_call_that_takes_too_long_is_canceled),
		T(what_waits_for_a_handler_can_be_canceled),
		T(many_clients_are_served_at_a_time),
		T(a_client_finds_a_server_that_was_started_again),
		T(stopping_ends_the_calls_that_run),
		T(a_socket_is_taken_over_only_from_the_dead),
		T(frames_may_come_byte_by_byte),
		T(what_is_wrong_with_a_request_ends_its_stream),
		T(headers_beyond_their_ceiling_end_the_stream),
		T(a_deadline_is_kept_when_the_peer_does_not),
		T(a_reset_stream_cancels_its_call_only),
		T(a_peer_that_closes_its_side_loses_its_calls),
		T(more_streams_than_allowed_are_refused),
		T(nonsense_ends_only_its_own_connection),
		T(a_client_survives_any_server),
		cmocka_unit_test(timeouts_are_read),
		cmocka_unit_test(messages_are_escaped_and_cut_at_an_escape),
		cmocka_unit_test(errnos_become_statuses_and_come_back),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
