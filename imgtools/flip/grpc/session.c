/* One connection of the server as bytes in and bytes out: nghttp2 keeps HTTP/2's state, this file makes gRPC of it.
 *
 * A request is headers (POST, path, content-type, grpc-timeout), one message in DATA frames, end of stream. The answer
 * is headers, messages, trailers with grpc-status; or trailers only, when there is nothing to say but an error. What is
 * wrong with one request ends its stream, what is wrong with the connection ends that connection. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "server_internal.h"

enum { STREAM_WINDOW = 1 << 20, CONNECTION_WINDOW = 4 << 20, STATUS_TEXT = 3 * ERR_MSG_SIZE };

struct flip_grpc_session {
	struct flip_grpc_server *server;
	nghttp2_session *h2;
	struct flip_grpc_call *calls; /* those with an open stream */
	bool is_broken;
};

#define HEADER(n, v)                                                                                              \
	(nghttp2_nv)                                                                                              \
	{                                                                                                         \
		.name = (uint8_t *)(n), .value = (uint8_t *)(v), .namelen = sizeof(n) - 1, .valuelen = strlen(v), \
		.flags = NGHTTP2_NV_FLAG_NONE                                                                     \
	}

/* ---- Answers ---- */

/* The two trailers for a status; texts live in the caller's buffers. */
static size_t trailers(nghttp2_nv nv[2], unsigned status, const char *message, char number[12], char text[STATUS_TEXT])
{
	(void)snprintf(number, 12, "%u", status);
	nv[0] = HEADER("grpc-status", number);
	if (status == FLIP_GRPC_OK)
		return 1;
	flip_grpc_percent_encode(message, text, STATUS_TEXT);
	nv[1] = HEADER("grpc-message", text);
	return 2;
}

/* Trailers only. The handler, if one runs, is told that nobody waits for it. */
static void answer(struct flip_grpc_session *s, struct flip_grpc_call *call, unsigned status, const char *message)
{
	char number[12], text[STATUS_TEXT];
	nghttp2_nv nv[4] = { HEADER(":status", "200"), HEADER("content-type", "application/grpc") };
	size_t n = 2 + trailers(nv + 2, status, message, number, text);

	call->is_answered = call->is_ended = true;
	flip_grpc_call_cancel(call);
	if (nghttp2_submit_response(s->h2, call->stream_id, nv, n, NULL) != 0)
		(void)nghttp2_submit_rst_stream(s->h2, NGHTTP2_FLAG_NONE, call->stream_id, NGHTTP2_INTERNAL_ERROR);
}

/* Not gRPC: answered in HTTP's way. */
static void answer_http(struct flip_grpc_session *s, struct flip_grpc_call *call, const char *status)
{
	nghttp2_nv nv[1] = { HEADER(":status", status) };

	call->is_answered = call->is_ended = true;
	if (nghttp2_submit_response(s->h2, call->stream_id, nv, 1, NULL) != 0)
		(void)nghttp2_submit_rst_stream(s->h2, NGHTTP2_FLAG_NONE, call->stream_id, NGHTTP2_INTERNAL_ERROR);
}

/* Ends a call whose answer may have begun. */
static void end_early(struct flip_grpc_session *s, struct flip_grpc_call *call, unsigned status, const char *message)
{
	if (call->is_ended)
		return;
	if (!call->has_headers_sent) {
		answer(s, call, status, message);
		return;
	}
	call->is_answered = call->is_ended = true;
	flip_grpc_call_cancel(call);
	(void)nghttp2_submit_rst_stream(s->h2, NGHTTP2_FLAG_NONE, call->stream_id, NGHTTP2_CANCEL);
}

static ssize_t read_answer(nghttp2_session *h2, int32_t stream_id, uint8_t *buf, size_t size, uint32_t *flags,
                           nghttp2_data_source *source, void *arg)
{
	struct flip_grpc_call *call = source->ptr;
	char number[12], text[STATUS_TEXT];
	nghttp2_nv nv[2];
	bool is_end;
	size_t n = flip_grpc_call_read(call, buf, size, &is_end);

	(void)arg;
	if (!is_end)
		return n ? (ssize_t)n : NGHTTP2_ERR_DEFERRED;
	/* Nobody writes these any more. */
	*flags |= NGHTTP2_DATA_FLAG_EOF | NGHTTP2_DATA_FLAG_NO_END_STREAM;
	call->is_ended = true;
	if (nghttp2_submit_trailer(
	            h2, stream_id, nv,
	            trailers(nv, flip_grpc_status_of(call->result), err_text(&call->err), number, text)) != 0)
		return NGHTTP2_ERR_TEMPORAL_CALLBACK_FAILURE;
	return (ssize_t)n;
}

void flip_grpc_session_on_call(struct flip_grpc_session *s, struct flip_grpc_call *call)
{
	nghttp2_nv nv[2] = { HEADER(":status", "200"), HEADER("content-type", "application/grpc") };
	nghttp2_data_provider data = { .source.ptr = call, .read_callback = read_answer };
	bool is_silent, has_failed;

	if (call->is_ended)
		return;
	if (call->has_headers_sent) {
		(void)nghttp2_session_resume_data(s->h2, call->stream_id); /* not deferred: it is read anyway */
		return;
	}
	(void)pthread_mutex_lock(&s->server->lock);
	is_silent = call->out.len == 0;
	has_failed = call->is_done && call->result < 0;
	(void)pthread_mutex_unlock(&s->server->lock);
	if (is_silent && has_failed) {
		answer(s, call, flip_grpc_status_of(call->result), err_text(&call->err));
		return;
	}
	call->has_headers_sent = true;
	if (nghttp2_submit_response(s->h2, call->stream_id, nv, 2, &data) != 0)
		(void)nghttp2_submit_rst_stream(s->h2, NGHTTP2_FLAG_NONE, call->stream_id, NGHTTP2_INTERNAL_ERROR);
}

/* ---- Requests ---- */

static void request_begun(struct flip_grpc_session *s, struct flip_grpc_call *call)
{
	if (!call->is_post)
		answer_http(s, call, "405");
	else if (!call->is_grpc)
		answer_http(s, call, "415");
	else if (!call->method)
		answer(s, call, FLIP_GRPC_UNIMPLEMENTED, "unknown service or method");
}

static void take_data(struct flip_grpc_session *s, struct flip_grpc_call *call, const uint8_t *data, size_t size)
{
	const uint8_t *prefix;
	size_t held;

	if (call->is_answered)
		return;
	held = atomic_fetch_add(&s->server->request_bytes, size);
	call->request_held += size;
	if (held + size > FLIP_GRPC_MAX_REQUEST_BYTES) {
		answer(s, call, FLIP_GRPC_RESOURCE_EXHAUSTED, "too many bytes of requests at a time");
		return;
	}
	if (base_buf_append(&call->request, data, size) < 0) {
		answer(s, call, FLIP_GRPC_RESOURCE_EXHAUSTED, "the request is larger than 4 MiB");
		return;
	}
	if (call->request.len < FLIP_GRPC_PREFIX)
		return;
	prefix = (const uint8_t *)call->request.data;
	if (prefix[0] != 0)
		answer(s, call, FLIP_GRPC_UNIMPLEMENTED, "compressed messages are not understood");
	else if (flip_grpc_get_size(prefix) > FLIP_GRPC_MAX_REQUEST)
		answer(s, call, FLIP_GRPC_RESOURCE_EXHAUSTED, "the request is larger than 4 MiB");
	else if (call->request.len - FLIP_GRPC_PREFIX > flip_grpc_get_size(prefix))
		answer(s, call, FLIP_GRPC_INTERNAL, "more than one message in a request");
}

static void request_ended(struct flip_grpc_session *s, struct flip_grpc_call *call)
{
	if (call->is_answered)
		return;
	if (call->request.len < FLIP_GRPC_PREFIX ||
	    call->request.len - FLIP_GRPC_PREFIX != flip_grpc_get_size((const uint8_t *)call->request.data))
		answer(s, call, FLIP_GRPC_INTERNAL, "the request's message is not whole");
	else if (flip_grpc_call_queue(call) < 0)
		answer(s, call, FLIP_GRPC_RESOURCE_EXHAUSTED, "no thread can be started");
}

/* ---- nghttp2's callbacks ---- */

static int on_begin_headers(nghttp2_session *h2, const nghttp2_frame *frame, void *arg)
{
	struct flip_grpc_session *s = arg;
	struct flip_grpc_call *call;

	if (frame->hd.type != NGHTTP2_HEADERS || frame->headers.cat != NGHTTP2_HCAT_REQUEST)
		return 0;
	call = flip_grpc_call_new(s->server);
	if (!call)
		return NGHTTP2_ERR_TEMPORAL_CALLBACK_FAILURE;
	call->session = s;
	call->stream_id = frame->hd.stream_id;
	call->next = s->calls;
	if (s->calls)
		s->calls->prev = call;
	s->calls = call;
	(void)nghttp2_session_set_stream_user_data(h2, frame->hd.stream_id, call);
	return 0;
}

static bool is(const uint8_t *name, size_t len, const char *text)
{
	return len == strlen(text) && memcmp(name, text, len) == 0;
}

static const struct flip_grpc_method *find_method(const struct flip_grpc_server *s, const uint8_t *path, size_t len)
{
	for (const struct flip_grpc_method *m = s->methods; m->path; m++) {
		if (is(path, len, m->path))
			return m;
	}
	return NULL;
}

static bool is_grpc_type(const uint8_t *value, size_t len)
{
	static const char type[] = "application/grpc";
	size_t n = sizeof(type) - 1;

	return len >= n && strncasecmp((const char *)value, type, n) == 0 &&
	       (len == n || value[n] == '+' || value[n] == ';');
}

static int on_header(nghttp2_session *h2, const nghttp2_frame *frame, const uint8_t *name, size_t name_len,
                     const uint8_t *value, size_t value_len, uint8_t flags, void *arg)
{
	struct flip_grpc_session *s = arg;
	struct flip_grpc_call *call = nghttp2_session_get_stream_user_data(h2, frame->hd.stream_id);
	uint64_t ns;

	(void)flags;
	if (!call)
		return 0;
	call->header_bytes += name_len + value_len + 32; /* as RFC 9113 section 10.5.1 counts */
	if (call->header_bytes > FLIP_GRPC_MAX_HEADERS)
		return NGHTTP2_ERR_TEMPORAL_CALLBACK_FAILURE;
	if (frame->headers.cat != NGHTTP2_HCAT_REQUEST)
		return 0; /* trailers of a request say nothing */
	if (is(name, name_len, ":method"))
		call->is_post = is(value, value_len, "POST");
	else if (is(name, name_len, ":path"))
		call->method = find_method(s->server, value, value_len);
	else if (is(name, name_len, "content-type"))
		call->is_grpc = is_grpc_type(value, value_len);
	else if (is(name, name_len, "grpc-timeout")) {
		if (flip_grpc_timeout_parse((const char *)value, value_len, &ns) < 0)
			return NGHTTP2_ERR_TEMPORAL_CALLBACK_FAILURE;
		call->deadline_ns = flip_grpc_now_ns() + ns;
	}
	return 0;
}

static int on_frame(nghttp2_session *h2, const nghttp2_frame *frame, void *arg)
{
	struct flip_grpc_session *s = arg;
	struct flip_grpc_call *call;

	if (frame->hd.type != NGHTTP2_HEADERS && frame->hd.type != NGHTTP2_DATA)
		return 0;
	call = nghttp2_session_get_stream_user_data(h2, frame->hd.stream_id);
	if (!call)
		return 0;
	if (frame->hd.type == NGHTTP2_HEADERS && frame->headers.cat == NGHTTP2_HCAT_REQUEST)
		request_begun(s, call);
	if (frame->hd.flags & NGHTTP2_FLAG_END_STREAM)
		request_ended(s, call);
	return 0;
}

static int on_data(nghttp2_session *h2, uint8_t flags, int32_t stream_id, const uint8_t *data, size_t size, void *arg)
{
	struct flip_grpc_call *call = nghttp2_session_get_stream_user_data(h2, stream_id);

	(void)flags;
	if (call)
		take_data(arg, call, data, size);
	return 0;
}

/* What was answered before the request had come to its end: the rest is not wanted. */
static int on_sent(nghttp2_session *h2, const nghttp2_frame *frame, void *arg)
{
	(void)arg;
	if (frame->hd.type == NGHTTP2_HEADERS && (frame->hd.flags & NGHTTP2_FLAG_END_STREAM) &&
	    nghttp2_session_get_stream_remote_close(h2, frame->hd.stream_id) == 0)
		(void)nghttp2_submit_rst_stream(h2, NGHTTP2_FLAG_NONE, frame->hd.stream_id, NGHTTP2_NO_ERROR);
	return 0;
}

static void detach(struct flip_grpc_session *s, struct flip_grpc_call *call)
{
	if (call->prev)
		call->prev->next = call->next;
	else
		s->calls = call->next;
	if (call->next)
		call->next->prev = call->prev;
	call->prev = call->next = NULL;
	call->session = NULL;
	flip_grpc_call_cancel(call);
	flip_grpc_call_unref(call);
}

static int on_close(nghttp2_session *h2, int32_t stream_id, uint32_t error_code, void *arg)
{
	struct flip_grpc_call *call = nghttp2_session_get_stream_user_data(h2, stream_id);

	(void)error_code;
	if (call)
		detach(arg, call);
	return 0;
}

int flip_grpc_session_callbacks(nghttp2_session_callbacks **ret_callbacks, nghttp2_option **ret_options)
{
	nghttp2_session_callbacks *c;
	nghttp2_option *o;

	if (nghttp2_session_callbacks_new(&c) != 0)
		return -ENOMEM;
	if (nghttp2_option_new(&o) != 0) {
		nghttp2_session_callbacks_del(c);
		return -ENOMEM;
	}
	nghttp2_session_callbacks_set_on_begin_headers_callback(c, on_begin_headers);
	nghttp2_session_callbacks_set_on_header_callback(c, on_header);
	nghttp2_session_callbacks_set_on_frame_recv_callback(c, on_frame);
	nghttp2_session_callbacks_set_on_data_chunk_recv_callback(c, on_data);
	nghttp2_session_callbacks_set_on_frame_send_callback(c, on_sent);
	nghttp2_session_callbacks_set_on_stream_close_callback(c, on_close);
	nghttp2_option_set_no_closed_streams(o, 1); /* no memory for priorities that nobody uses */
	*ret_callbacks = c;
	*ret_options = o;
	return 0;
}

/* ---- The session ---- */

int flip_grpc_session_new(struct flip_grpc_server *server, struct flip_grpc_session **ret_session, struct err *err)
{
	static const nghttp2_settings_entry settings[] = {
		{ NGHTTP2_SETTINGS_MAX_CONCURRENT_STREAMS, FLIP_GRPC_MAX_STREAMS },
		{ NGHTTP2_SETTINGS_INITIAL_WINDOW_SIZE, STREAM_WINDOW },
		{ NGHTTP2_SETTINGS_MAX_HEADER_LIST_SIZE, FLIP_GRPC_MAX_HEADERS },
	};
	struct flip_grpc_session *s = calloc(1, sizeof(*s));

	if (!s)
		return err_set(err, -ENOMEM, "gRPC: out of memory");
	s->server = server;
	if (nghttp2_session_server_new2(&s->h2, server->callbacks, s, server->options) != 0 ||
	    nghttp2_submit_settings(s->h2, NGHTTP2_FLAG_NONE, settings, sizeof(settings) / sizeof(*settings)) != 0 ||
	    nghttp2_session_set_local_window_size(s->h2, NGHTTP2_FLAG_NONE, 0, CONNECTION_WINDOW) != 0) {
		flip_grpc_session_free(s);
		return err_set(err, -ENOMEM, "gRPC: out of memory");
	}
	*ret_session = s;
	return 0;
}

void flip_grpc_session_free(struct flip_grpc_session *s)
{
	if (!s)
		return;
	while (s->calls)
		detach(s, s->calls);
	nghttp2_session_del(s->h2);
	free(s);
}

int flip_grpc_session_feed(struct flip_grpc_session *s, const void *data, size_t size)
{
	ssize_t n = nghttp2_session_mem_recv(s->h2, data, size);

	if (n < 0)
		s->is_broken = true;
	return n < 0 ? -EBADMSG : 0;
}

int flip_grpc_session_take(struct flip_grpc_session *s, const uint8_t **ret_data, size_t *ret_size)
{
	ssize_t n = nghttp2_session_mem_send(s->h2, ret_data);

	if (n < 0) {
		s->is_broken = true;
		return -EBADMSG;
	}
	*ret_size = (size_t)n;
	return 0;
}

bool flip_grpc_session_is_over(struct flip_grpc_session *s)
{
	return s->is_broken || (!nghttp2_session_want_read(s->h2) && !nghttp2_session_want_write(s->h2));
}

void flip_grpc_session_goaway(struct flip_grpc_session *s)
{
	for (struct flip_grpc_call *call = s->calls; call; call = call->next)
		end_early(s, call, FLIP_GRPC_UNAVAILABLE, "the server stops");
	/* Not nghttp2_session_terminate_session(), which holds back the answers above. */
	(void)nghttp2_submit_goaway(s->h2, NGHTTP2_FLAG_NONE, nghttp2_session_get_last_proc_stream_id(s->h2),
	                            NGHTTP2_NO_ERROR, NULL, 0);
}

uint64_t flip_grpc_session_expire(struct flip_grpc_session *s, uint64_t now_ns)
{
	uint64_t first = UINT64_MAX;

	for (struct flip_grpc_call *call = s->calls; call; call = call->next) {
		if (call->is_ended)
			continue;
		if (call->deadline_ns <= now_ns)
			end_early(s, call, FLIP_GRPC_DEADLINE_EXCEEDED, "the time for this call is over");
		else if (call->deadline_ns < first)
			first = call->deadline_ns;
	}
	return first;
}
