/* The client's side: one connection, one call at a time, all in the caller's thread.
 *
 * A call is a stream: requests go into `out`, which nghttp2 takes as the peer's windows allow, and answers come into
 * `in` until a message is whole. Whoever waits for one of these drives the connection: writes, polls, reads. A
 * connection that was lost or said goodbye is made again by the next call. */
#include <errno.h>
#include <nghttp2/nghttp2.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>

#include "base/cleanup.h"
#include "grpc/grpc_internal.h"

enum {
	MAX_HEADERS = 64, /* of the caller's */
	READ_SIZE = 64 << 10,
	STREAM_WINDOW = 4 << 20,
	CONNECTION_WINDOW = 8 << 20,
};

struct flip_grpc_stream {
	struct flip_grpc_client *client;
	int32_t id;
	uint64_t deadline_ns; /* UINT64_MAX: none */
	uint32_t timeout_ms;
	struct base_buf out, in;
	size_t out_pos, in_pos; /* before these: done with */
	bool is_last;           /* nothing is sent after `out` */
	bool is_ended;          /* the peer says no more: its trailers have come, or is_closed */
	bool is_closed;         /* nghttp2 knows nothing of it any more */
	uint32_t error_code;    /* why it was closed */
	int http_status;
	int status; /* grpc-status; -1: none has come */
	int error;  /* ours: 0 or a negative errno that ends the call */
	char message[ERR_MSG_SIZE];
};

struct flip_grpc_client {
	char *path;
	int fd;
	nghttp2_session *h2;             /* NULL: to be connected */
	struct flip_grpc_stream *stream; /* the call that runs */
	const uint8_t *out;              /* nghttp2's, not yet taken by the socket */
	size_t out_size;
	uint8_t in[READ_SIZE];
};

/* ---- nghttp2's callbacks ---- */

static struct flip_grpc_stream *stream_of(nghttp2_session *h2, int32_t id)
{
	return nghttp2_session_get_stream_user_data(h2, id);
}

static bool is(const uint8_t *name, size_t len, const char *text)
{
	return len == strlen(text) && memcmp(name, text, len) == 0;
}

static int number_of(const uint8_t *value, size_t len)
{
	int n = 0;

	if (len == 0 || len > 6)
		return -1;
	for (size_t i = 0; i < len; i++) {
		if (value[i] < '0' || value[i] > '9')
			return -1;
		n = n * 10 + (value[i] - '0');
	}
	return n;
}

static int on_header(nghttp2_session *h2, const nghttp2_frame *frame, const uint8_t *name, size_t name_len,
                     const uint8_t *value, size_t value_len, uint8_t flags, void *arg)
{
	struct flip_grpc_stream *st = stream_of(h2, frame->hd.stream_id);

	(void)flags;
	(void)arg;
	if (!st)
		return 0;
	if (is(name, name_len, ":status"))
		st->http_status = number_of(value, value_len);
	else if (is(name, name_len, "grpc-status"))
		st->status = number_of(value, value_len);
	else if (is(name, name_len, "grpc-message"))
		flip_grpc_percent_decode((const char *)value, value_len, st->message, sizeof(st->message));
	return 0;
}

static int on_data(nghttp2_session *h2, uint8_t flags, int32_t id, const uint8_t *data, size_t size, void *arg)
{
	struct flip_grpc_stream *st = stream_of(h2, id);

	(void)flags;
	(void)arg;
	if (!st || st->error)
		return 0;
	if (st->in_pos == st->in.len) {
		base_buf_reset(&st->in);
		st->in_pos = 0;
	}
	st->error = base_buf_append(&st->in, data, size);
	return 0;
}

/* The peer may end a call before our side has. */
static int on_frame(nghttp2_session *h2, const nghttp2_frame *frame, void *arg)
{
	struct flip_grpc_stream *st = stream_of(h2, frame->hd.stream_id);

	(void)arg;
	if (st && (frame->hd.type == NGHTTP2_HEADERS || frame->hd.type == NGHTTP2_DATA) &&
	    (frame->hd.flags & NGHTTP2_FLAG_END_STREAM))
		st->is_ended = true;
	return 0;
}

static int on_close(nghttp2_session *h2, int32_t id, uint32_t error_code, void *arg)
{
	struct flip_grpc_stream *st = stream_of(h2, id);

	(void)arg;
	if (st) {
		st->is_closed = st->is_ended = true;
		st->error_code = error_code;
	}
	return 0;
}

static ssize_t read_request(nghttp2_session *h2, int32_t id, uint8_t *buf, size_t size, uint32_t *flags,
                            nghttp2_data_source *source, void *arg)
{
	struct flip_grpc_stream *st = source->ptr;
	size_t n = st->out.len - st->out_pos;

	(void)h2;
	(void)id;
	(void)arg;
	if (n > size)
		n = size;
	if (n)
		memcpy(buf, st->out.data + st->out_pos, n);
	st->out_pos += n;
	if (st->out_pos == st->out.len && st->is_last)
		*flags |= NGHTTP2_DATA_FLAG_EOF;
	else if (n == 0)
		return NGHTTP2_ERR_DEFERRED;
	return (ssize_t)n;
}

/* ---- The connection ---- */

static void disconnect(struct flip_grpc_client *c)
{
	nghttp2_session_del(c->h2);
	if (c->fd >= 0)
		(void)close(c->fd);
	c->h2 = NULL;
	c->fd = -1;
	c->out_size = 0;
	if (c->stream && !c->stream->is_closed) {
		c->stream->error = c->stream->is_ended ? 0 : -ECONNRESET;
		c->stream->is_closed = c->stream->is_ended = true;
	}
}

static int session_new(struct flip_grpc_client *c)
{
	static const nghttp2_settings_entry settings[] = {
		{ NGHTTP2_SETTINGS_ENABLE_PUSH, 0 },
		{ NGHTTP2_SETTINGS_INITIAL_WINDOW_SIZE, STREAM_WINDOW },
	};
	nghttp2_session_callbacks *callbacks;
	int r;

	if (nghttp2_session_callbacks_new(&callbacks) != 0)
		return -ENOMEM;
	nghttp2_session_callbacks_set_on_header_callback(callbacks, on_header);
	nghttp2_session_callbacks_set_on_data_chunk_recv_callback(callbacks, on_data);
	nghttp2_session_callbacks_set_on_frame_recv_callback(callbacks, on_frame);
	nghttp2_session_callbacks_set_on_stream_close_callback(callbacks, on_close);
	r = nghttp2_session_client_new(&c->h2, callbacks, c);
	nghttp2_session_callbacks_del(callbacks);
	if (r != 0) {
		c->h2 = NULL;
		return -ENOMEM;
	}
	if (nghttp2_submit_settings(c->h2, NGHTTP2_FLAG_NONE, settings, sizeof(settings) / sizeof(*settings)) != 0 ||
	    nghttp2_session_set_local_window_size(c->h2, NGHTTP2_FLAG_NONE, 0, CONNECTION_WINDOW) != 0)
		return -ENOMEM;
	return 0;
}

static int do_connect(struct flip_grpc_client *c, struct err *err)
{
	struct sockaddr_un address;
	int r = flip_grpc_address(c->path, &address, err);

	if (r < 0)
		return r;
	c->fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (c->fd < 0)
		return err_set(err, -errno, "socket: %s", strerror(errno));
	if (connect(c->fd, (const struct sockaddr *)&address, sizeof(address)) < 0) {
		r = -errno;
		disconnect(c);
		return err_set(err, r, "%s: %s", c->path, strerror(-r));
	}
	r = session_new(c);
	if (r < 0) {
		disconnect(c);
		return err_set(err, r, "%s: out of memory", c->path);
	}
	return 0;
}

/* Hands out what nghttp2 has, as far as the socket takes it. */
static int write_some(struct flip_grpc_client *c)
{
	for (;;) {
		ssize_t n;

		if (c->out_size == 0) {
			n = nghttp2_session_mem_send(c->h2, &c->out);
			if (n < 0)
				return -EPROTO;
			if (n == 0)
				return 0;
			c->out_size = (size_t)n;
		}
		n = send(c->fd, c->out, c->out_size, MSG_NOSIGNAL);
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0 && (errno == EPIPE || errno == ECONNRESET)) {
			/* What the peer said before it closed is still to be read; then the end is seen. */
			c->out_size = 0;
			return 0;
		}
		if (n < 0)
			return errno == EAGAIN ? 0 : -errno;
		c->out += n;
		c->out_size -= (size_t)n;
	}
}

static int read_some(struct flip_grpc_client *c)
{
	ssize_t n = recv(c->fd, c->in, sizeof(c->in), 0);

	if (n < 0)
		return errno == EAGAIN || errno == EINTR ? 0 : -errno;
	if (n == 0)
		return -ECONNRESET;
	return nghttp2_session_mem_recv(c->h2, c->in, (size_t)n) < 0 ? -EPROTO : 0;
}

/* Hands out what can go at once. Done before drive() is: nobody waits for a peer that waits for what lies here. */
static void push(struct flip_grpc_client *c)
{
	if (c->h2 && write_some(c) < 0)
		disconnect(c);
}

/* One round: waits until something can be done, reads, and writes what that allows. 0, or -ETIMEDOUT; a lost connection
 * closes the stream. */
static int drive(struct flip_grpc_client *c, uint64_t deadline_ns)
{
	uint64_t now = flip_grpc_now_ns();
	struct pollfd p = { .fd = c->fd, .events = POLLIN | (c->out_size ? POLLOUT : 0) };
	int timeout = -1, r;

	if (deadline_ns != UINT64_MAX) /* an hour at most, then once more */
		timeout = deadline_ns <= now                     ? 0
		          : deadline_ns - now > 3600000000000ull ? 3600000
		                                                 : (int)((deadline_ns - now + 999999) / 1000000);
	r = poll(&p, 1, timeout);
	if (r == 0 && deadline_ns <= flip_grpc_now_ns())
		return -ETIMEDOUT;
	r = r < 0 && errno != EINTR ? -errno : r > 0 && (p.revents & ~POLLOUT) ? read_some(c) : 0;
	if (r == 0)
		r = write_some(c); /* acknowledgements and windows that reading has made */
	/* Both have said goodbye, or the peer speaks something else. */
	if (r < 0 || (!c->out_size && !nghttp2_session_want_read(c->h2) && !nghttp2_session_want_write(c->h2)))
		disconnect(c);
	return 0;
}

/* A connection that can take a call. What the peer has said since the last one is heard first: it may be gone. */
static int be_connected(struct flip_grpc_client *c, struct err *err)
{
	if (c->h2)
		(void)drive(c, 0);
	if (c->h2 && !nghttp2_session_check_request_allowed(c->h2))
		disconnect(c);
	return c->h2 ? 0 : do_connect(c, err);
}

int flip_grpc_connect(const char *socket_path, struct flip_grpc_client **ret_client, struct err *err)
{
	struct flip_grpc_client *c = calloc(1, sizeof(*c));
	int r;

	if (!c)
		return err_set(err, -ENOMEM, "out of memory");
	c->fd = -1;
	c->path = strdup(socket_path);
	r = c->path ? do_connect(c, err) : err_set(err, -ENOMEM, "out of memory");
	if (r < 0) {
		flip_grpc_close(c);
		return r;
	}
	*ret_client = c;
	return 0;
}

void flip_grpc_close(struct flip_grpc_client *c)
{
	if (!c)
		return;
	if (c->h2) {
		(void)nghttp2_session_terminate_session(c->h2, NGHTTP2_NO_ERROR);
		(void)write_some(c);
	}
	disconnect(c);
	free(c->path);
	free(c);
}

/* ---- Calls ---- */

static nghttp2_nv header(const char *name, const char *value)
{
	return (nghttp2_nv){
		.name = (uint8_t *)name, .value = (uint8_t *)value, .namelen = strlen(name), .valuelen = strlen(value)
	};
}

/* Eight digits are what the protocol allows: longer than a day is written in seconds. */
static void write_timeout(uint32_t ms, char text[16])
{
	(void)snprintf(text, 16, ms < 100000000 ? "%um" : "%uS", ms < 100000000 ? ms : ms / 1000);
}

static int submit(struct flip_grpc_stream *st, const char *path, const struct flip_grpc_header *headers,
                  size_t n_headers)
{
	nghttp2_data_provider data = { .source.ptr = st, .read_callback = read_request };
	nghttp2_nv nv[8 + MAX_HEADERS];
	char timeout[16];
	size_t n = 0;

	nv[n++] = header(":method", "POST");
	nv[n++] = header(":scheme", "http");
	nv[n++] = header(":path", path);
	nv[n++] = header(":authority", "localhost");
	nv[n++] = header("content-type", "application/grpc");
	nv[n++] = header("user-agent", "flip/" OCAI_VERSION);
	nv[n++] = header("te", "trailers");
	if (st->timeout_ms) {
		write_timeout(st->timeout_ms, timeout);
		nv[n++] = header("grpc-timeout", timeout);
	}
	for (size_t i = 0; i < n_headers; i++)
		nv[n++] = header(headers[i].name, headers[i].value);
	st->id = nghttp2_submit_request(st->client->h2, NULL, nv, n, &data, st);
	return st->id < 0 ? -ENOMEM : 0;
}

int flip_grpc_stream_open(struct flip_grpc_client *c, const char *path, const struct flip_grpc_header *headers,
                          size_t n_headers, uint32_t timeout_ms, struct flip_grpc_stream **ret_stream, struct err *err)
{
	struct flip_grpc_stream *st;
	int r;

	if (c->stream || n_headers > MAX_HEADERS)
		return err_set(err, -EINVAL, "%s: %s", path, c->stream ? "another call runs" : "too many headers");
	r = be_connected(c, err);
	if (r < 0)
		return r;
	st = calloc(1, sizeof(*st));
	if (!st)
		return err_set(err, -ENOMEM, "out of memory");
	st->client = c;
	st->status = -1;
	st->timeout_ms = timeout_ms;
	st->deadline_ns = timeout_ms ? flip_grpc_now_ns() + timeout_ms * 1000000ull : UINT64_MAX;
	base_buf_init(&st->out, FLIP_GRPC_PREFIX + FLIP_GRPC_MAX_MESSAGE);
	/* A window's worth may come behind the message that is waited for. */
	base_buf_init(&st->in, FLIP_GRPC_PREFIX + FLIP_GRPC_MAX_MESSAGE + STREAM_WINDOW);
	r = submit(st, path, headers, n_headers);
	if (r < 0) {
		free(st);
		return err_set(err, r, "%s: out of memory", path);
	}
	c->stream = st;
	*ret_stream = st;
	return 0;
}

/* One round for a stream; its time may be over. */
static void stream_drive(struct flip_grpc_stream *st)
{
	/* Not only when nothing comes: a peer may go on saying what does not help. */
	if (drive(st->client, st->deadline_ns) == -ETIMEDOUT ||
	    (!st->is_ended && !st->error && flip_grpc_now_ns() >= st->deadline_ns))
		st->error = -ETIMEDOUT;
}

int flip_grpc_stream_send(struct flip_grpc_stream *st, const void *data, size_t size, bool last, struct err *err)
{
	uint8_t prefix[FLIP_GRPC_PREFIX];
	int r;

	if (size > FLIP_GRPC_MAX_MESSAGE)
		return err_set(err, -EFBIG, "a message of more than 16 MiB");
	base_buf_reset(&st->out); /* nothing of the last one is left */
	st->out_pos = 0;
	flip_grpc_put_prefix(prefix, size);
	r = base_buf_append(&st->out, prefix, sizeof(prefix));
	if (r == 0)
		r = base_buf_append(&st->out, data, size);
	if (r < 0)
		return err_set(err, r, "out of memory");
	st->is_last = last;
	if (!st->is_ended)
		(void)nghttp2_session_resume_data(st->client->h2, st->id);
	push(st->client);
	while (!st->is_ended && !st->error && st->out_pos < st->out.len)
		stream_drive(st);
	return st->out_pos < st->out.len ? err_set(err, -EPIPE, "the peer has ended the call") : 0;
}

/* How a stream that says no more has ended: 0 or a negative errno with its words. */
static int stream_result(const struct flip_grpc_stream *st, struct err *err)
{
	const char *path = st->client->path;

	if (st->status > 0)
		return err_set(err, flip_grpc_errno_of((unsigned)st->status), "%s",
		               st->message[0] ? st->message : "no reason was given");
	if (st->status == 0)
		return st->in.len == st->in_pos ? 0 : err_set(err, -EBADMSG, "%s: half a message", path);
	if (st->http_status && st->http_status != 200)
		return err_set(err, -EPROTO, "%s: HTTP status %d", path, st->http_status);
	if (st->error_code == NGHTTP2_REFUSED_STREAM)
		return err_set(err, -EAGAIN, "%s: the call was not taken", path);
	if (st->error_code == NGHTTP2_CANCEL)
		return err_set(err, -ECANCELED, "%s: the call was canceled", path);
	return err_set(err, -EPROTO, "%s: ended without a status (HTTP/2 error %u)", path, st->error_code);
}

/* A whole message at in_pos: 1; not yet: 0. */
static int next_message(struct flip_grpc_stream *st, const void **ret_data, size_t *ret_size)
{
	const uint8_t *prefix;
	size_t there = st->in.len - st->in_pos, size;

	if (there < FLIP_GRPC_PREFIX)
		return 0;
	prefix = (const uint8_t *)st->in.data + st->in_pos;
	size = flip_grpc_get_size(prefix);
	if (prefix[0] != 0)
		return -ENOTSUP;
	if (size > FLIP_GRPC_MAX_MESSAGE)
		return -EFBIG;
	if (there - FLIP_GRPC_PREFIX < size)
		return 0;
	st->in_pos += FLIP_GRPC_PREFIX + size;
	*ret_data = prefix + FLIP_GRPC_PREFIX;
	*ret_size = size;
	return 1;
}

int flip_grpc_stream_receive(struct flip_grpc_stream *st, const void **ret_data, size_t *ret_size, struct err *err)
{
	int r;

	/* What was told before is let go, so that `in` stays within its ceiling. */
	if (st->in_pos) {
		memmove(st->in.data, st->in.data + st->in_pos, st->in.len - st->in_pos);
		st->in.len -= st->in_pos;
		st->in_pos = 0;
	}
	push(st->client);
	for (;;) {
		r = next_message(st, ret_data, ret_size);
		if (r > 0)
			return 1;
		if (r < 0)
			st->error = r;
		if (st->error == -ETIMEDOUT)
			return err_set(err, st->error, "%s: no answer in %u ms", st->client->path, st->timeout_ms);
		if (st->error)
			return err_set(err, st->error, "%s: %s", st->client->path, strerror(-st->error));
		if (st->is_ended)
			return stream_result(st, err);
		stream_drive(st);
	}
}

void flip_grpc_stream_close(struct flip_grpc_stream *st)
{
	struct flip_grpc_client *c;

	if (!st)
		return;
	c = st->client;
	if (c->h2 && !st->is_closed) {
		/* From here on its frames are nobody's. */
		(void)nghttp2_session_set_stream_user_data(c->h2, st->id, NULL);
		(void)nghttp2_submit_rst_stream(c->h2, NGHTTP2_FLAG_NONE, st->id, NGHTTP2_CANCEL);
		if (write_some(c) < 0)
			disconnect(c);
	}
	c->stream = NULL;
	base_buf_done(&st->out);
	base_buf_done(&st->in);
	free(st);
}

int flip_grpc_call(struct flip_grpc_client *c, const char *path, const struct flip_grpc_header *headers,
                   size_t n_headers, const void *request, size_t size, uint32_t timeout_ms,
                   int (*reply)(void *arg, const void *data, size_t size), void *arg, struct err *err)
{
	struct flip_grpc_stream *st = NULL;
	const void *data;
	size_t n;
	int r = flip_grpc_stream_open(c, path, headers, n_headers, timeout_ms, &st, err);

	if (r < 0)
		return r;
	r = flip_grpc_stream_send(st, request, size, true, err);
	if (r == -EPIPE)
		r = 0; /* what it has to say comes next */
	if (r == 0) {
		while ((r = flip_grpc_stream_receive(st, &data, &n, err)) > 0) {
			r = reply ? reply(arg, data, n) : 0;
			if (r != 0)
				break;
		}
	}
	flip_grpc_stream_close(st);
	return r;
}
