/* One request and its answer on a connection.
 *
 * libmicrohttpd calls exchange_access() with the head, then with pieces of the body, then once with
 * nothing: there the route's handler runs. It either leaves a whole reply behind or starts work in the
 * engine; in the second case the connection is suspended until the work has something to send. */
#include <errno.h>
#include <netinet/in.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include "base/json.h"
#include "base/log.h"
#include "http_internal.h"
#include "loop.h"

/* ---- Life ---- */

static struct exchange *exchange_new(struct http_loop *loop, struct MHD_Connection *conn, const char *url)
{
	struct eng_http *http = http_loop_owner(loop);
	struct exchange *x = calloc(1, sizeof(*x));

	if (!x)
		return NULL;
	x->url = strdup(url);
	if (!x->url) {
		free(x);
		return NULL;
	}
	x->http = http;
	x->loop = loop;
	x->conn = conn;
	atomic_fetch_add(&http->n_exchanges, 1);
	atomic_init(&x->refs, 1);
	(void)pthread_mutex_init(&x->lock, NULL);
	base_buf_init(&x->body, http->config.max_body_bytes);
	base_buf_init(&x->out, HTTP_MAX_RESPONSE);

	(void)pthread_mutex_lock(&http->lock);
	x->serial = http->next_serial++;
	x->next = http->active;
	if (x->next)
		x->next->prev = x;
	http->active = x;
	http->n_http_requests++;
	(void)pthread_mutex_unlock(&http->lock);
	return x;
}

struct exchange *exchange_next_active(struct eng_http *http, uint64_t *next)
{
	struct exchange *best = NULL;

	(void)pthread_mutex_lock(&http->lock);
	for (struct exchange *x = http->active; x; x = x->next) {
		if (x->serial >= *next && (!best || x->serial < best->serial))
			best = x;
	}
	if (best) {
		exchange_ref(best);
		*next = best->serial + 1;
	}
	(void)pthread_mutex_unlock(&http->lock);
	return best;
}

void exchange_ref(struct exchange *x)
{
	atomic_fetch_add(&x->refs, 1);
}

void exchange_unref(struct exchange *x)
{
	struct eng_http *http = x->http;

	if (atomic_fetch_sub(&x->refs, 1) != 1)
		return;
	if (x->free_work)
		x->free_work(x->work);
	base_buf_done(&x->body);
	base_buf_done(&x->out);
	(void)pthread_mutex_destroy(&x->lock);
	free(x->url);
	free(x->rid);
	free(x);
	atomic_fetch_sub(&http->n_exchanges, 1); /* the last that is known of http here */
}

void exchange_lock(struct exchange *x)
{
	(void)pthread_mutex_lock(&x->lock);
}

void exchange_unlock(struct exchange *x)
{
	(void)pthread_mutex_unlock(&x->lock);
}

void exchange_cancel(struct exchange *x)
{
	if (x->is_canceled || !x->cancel)
		return;
	x->is_canceled = true;
	x->cancel(x->work);
}

static void leave_active(struct exchange *x)
{
	struct eng_http *http = x->http;

	(void)pthread_mutex_lock(&http->lock);
	if (x->prev)
		x->prev->next = x->next;
	else
		http->active = x->next;
	if (x->next)
		x->next->prev = x->prev;
	if (!http->active)
		http->idle_since_ms = http_now_ms();
	(void)pthread_mutex_unlock(&http->lock);
}

/* The connection is done with this request, for whatever reason. */
void exchange_completed(void *cls, struct MHD_Connection *conn, void **req_cls, enum MHD_RequestTerminationCode toe)
{
	struct exchange *x = *req_cls;

	if (!x)
		return;
	*req_cls = NULL;
	watch_remove(x);
	exchange_lock(x);
	x->is_gone = true;
	x->conn = NULL;
	exchange_cancel(x); /* harmless when all is done */
	exchange_unlock(x);
	leave_active(x);
	exchange_unref(x);
}

/* ---- Replies ---- */

/* Locked. The connection continues; it looks at the state itself. */
static void wake(struct exchange *x)
{
	if (!x->is_suspended)
		return;
	x->is_suspended = false;
	http_loop_resume(x->loop, x->conn);
}

void http_error_body(const struct http_error *e, struct base_buf *out)
{
	(void)base_buf_puts(out, "{\"error\":{\"message\":");
	(void)base_json_append_string(out, e->message, strlen(e->message));
	(void)base_buf_printf(out, ",\"type\":\"%s\",\"param\":", e->type);
	if (e->param[0])
		(void)base_json_append_string(out, e->param, strlen(e->param));
	else
		(void)base_buf_puts(out, "null");
	(void)base_buf_puts(out, ",\"code\":");
	if (e->code)
		(void)base_json_append_string(out, e->code, strlen(e->code));
	else
		(void)base_buf_puts(out, "null");
	(void)base_buf_puts(out, "}}");
}

static void anthropic_error_body(const struct http_error *e, struct base_buf *out)
{
	static const struct {
		int status;
		const char *type;
	} types[] = { { 401, "authentication_error" },
		      { 404, "not_found_error" },
		      { 413, "request_too_large" },
		      { 429, "rate_limit_error" },
		      { 503, "overloaded_error" } };
	const char *type = e->status < 500 ? "invalid_request_error" : "api_error";

	for (size_t i = 0; i < sizeof(types) / sizeof(types[0]); i++) {
		if (types[i].status == e->status)
			type = types[i].type;
	}
	(void)base_buf_printf(out, "{\"type\":\"error\",\"error\":{\"type\":\"%s\",\"message\":", type);
	(void)base_json_append_string(out, e->message, strlen(e->message));
	(void)base_buf_puts(out, "}}");
}

static void error_body(const struct exchange *x, const struct http_error *e, struct base_buf *out)
{
	if (x->route && (x->route->flags & ROUTE_ANTHROPIC))
		anthropic_error_body(e, out);
	else
		http_error_body(e, out);
}

void exchange_reply(struct exchange *x, unsigned status, struct base_buf *body)
{
	if (x->is_ready) {
		base_buf_done(body);
		return;
	}
	if (base_buf_error(body)) {
		base_buf_done(body);
		exchange_fail(x, 500, "server_error", NULL, "the answer could not be built: %s",
		              strerror(-base_buf_error(body)));
		return;
	}
	base_buf_done(&x->out);
	x->out = *body;
	base_buf_init(body, body->max);
	x->status = status;
	if (!x->content_type)
		x->content_type = "application/json";
	x->is_ready = true;
	wake(x);
}

void exchange_reply_error(struct exchange *x, const struct http_error *e)
{
	struct base_buf body = BASE_BUF_INIT(16 * 1024), event = BASE_BUF_INIT(16 * 1024);

	/* A stream that has begun cannot change its status any more. */
	if (x->is_stream && x->is_ready) {
		error_body(x, e, &body);
		http_event(x->route && (x->route->flags & ROUTE_ANTHROPIC) ? "error" : NULL, &body, &event);
		exchange_stream(x, base_buf_text(&event), event.len);
		exchange_stream_end(x);
		base_buf_done(&body);
		base_buf_done(&event);
		return;
	}
	if (x->is_ready) /* the first answer stays, and is the connection's */
		return;
	x->is_stream = false;
	x->content_type = NULL;
	error_body(x, e, &body);
	(void)pthread_mutex_lock(&x->http->lock);
	x->http->n_http_errors++;
	(void)pthread_mutex_unlock(&x->http->lock);
	exchange_reply(x, (unsigned)e->status, &body);
}

void exchange_fail(struct exchange *x, int status, const char *type, const char *code, const char *fmt, ...)
{
	struct http_error e = { .status = status, .type = type, .code = code };
	va_list ap;

	va_start(ap, fmt);
	(void)vsnprintf(e.message, sizeof(e.message), fmt, ap);
	va_end(ap);
	exchange_reply_error(x, &e);
}

void exchange_stream(struct exchange *x, const void *data, size_t len)
{
	if (x->is_gone || x->is_finished || x->is_overflowed)
		return;
	/* A failure before the first event is a whole reply: what still comes is too late, and x->out is the
	 * connection's. */
	if (x->is_ready && !x->is_stream)
		return;
	if (x->out.len - x->out_sent + len > x->http->config.stream_buffer_bytes) {
		/* The reader is too slow: the engine does not wait for it. */
		base_log(BASE_LOG_DEBUG, "stream: the client does not read, its request is cancelled");
		x->is_overflowed = true;
		exchange_cancel(x);
		wake(x);
		return;
	}
	(void)base_buf_append(&x->out, data, len);
	x->is_stream = x->is_ready = true;
	x->last_write_ms = http_now_ms();
	wake(x);
}

void http_event(const char *name, const struct base_buf *json, struct base_buf *out)
{
	if (name)
		(void)base_buf_printf(out, "event: %s\n", name);
	(void)base_buf_puts(out, "data: ");
	(void)base_buf_append(out, base_buf_text(json), json->len);
	(void)base_buf_puts(out, "\n\n");
}

void exchange_stream_end(struct exchange *x)
{
	x->is_finished = true;
	x->is_ready = true;
	wake(x);
}

/* ---- Towards libmicrohttpd ---- */

/* The next bytes of a stream. */
static ssize_t stream_reader(void *cls, uint64_t pos, char *buf, size_t max)
{
	struct exchange *x = cls;
	size_t n;
	ssize_t r;

	exchange_lock(x);
	n = x->out.len - x->out_sent;
	if (n > max)
		n = max;
	if (x->is_overflowed || base_buf_error(&x->out)) {
		r = MHD_CONTENT_READER_END_WITH_ERROR;
	} else if (n > 0) {
		memcpy(buf, x->out.data + x->out_sent, n);
		x->out_sent += n;
		if (x->out_sent == x->out.len) {
			base_buf_reset(&x->out);
			x->out_sent = 0;
		}
		r = (ssize_t)n;
	} else if (x->is_finished) {
		r = MHD_CONTENT_READER_END_OF_STREAM;
	} else {
		x->is_suspended = true;
		MHD_suspend_connection(x->conn);
		r = 0;
	}
	exchange_unlock(x);
	return r;
}

static void stream_free(void *cls)
{
	exchange_unref(cls);
}

static uint64_t mix(uint64_t h, const void *bytes, size_t n)
{
	for (size_t i = 0; i < n; i++)
		h = (h ^ ((const unsigned char *)bytes)[i]) * 0x100000001b3u;
	return h;
}

/* The same number for the requests of one client: its key or, without one, its address. */
static uint64_t client_of(const struct exchange *x)
{
	static const char *const names[] = { "Authorization", "X-Api-Key" };
	const union MHD_ConnectionInfo *info;
	const struct sockaddr *addr;

	for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
		const char *key = MHD_lookup_connection_value(x->conn, MHD_HEADER_KIND, names[i]);

		if (key && *key)
			return mix(1, key, strlen(key));
	}
	info = MHD_get_connection_info(x->conn, MHD_CONNECTION_INFO_CLIENT_ADDRESS);
	addr = info ? info->client_addr : NULL;
	if (addr && addr->sa_family == AF_INET)
		return mix(2, &((const struct sockaddr_in *)(const void *)addr)->sin_addr, sizeof(struct in_addr));
	if (addr && addr->sa_family == AF_INET6)
		return mix(3, &((const struct sockaddr_in6 *)(const void *)addr)->sin6_addr, sizeof(struct in6_addr));
	return 0;
}

static void add_headers(const struct exchange *x, struct MHD_Response *resp)
{
	const char *origin = MHD_lookup_connection_value(x->conn, MHD_HEADER_KIND, "Origin");
	char seconds[16];

	(void)MHD_add_response_header(resp, "Server", "ocai-engine");
	(void)MHD_add_response_header(resp, "Access-Control-Allow-Origin", origin ? origin : "*");
	if (origin)
		(void)MHD_add_response_header(resp, "Vary", "Origin");
	if (x->status == 429 || x->status == 503) {
		(void)snprintf(seconds, sizeof(seconds), "%u", eng_retry_after_s(x->http->engine));
		(void)MHD_add_response_header(resp, "Retry-After", seconds);
	}
	if (atomic_load(&x->http->is_closing))
		(void)MHD_add_response_header(resp, "Connection", "close");
}

static enum MHD_Result queue(struct exchange *x, struct MHD_Response *resp)
{
	enum MHD_Result r;

	if (!resp)
		return MHD_NO;
	add_headers(x, resp);
	if (x->content_type)
		(void)MHD_add_response_header(resp, "Content-Type", x->content_type);
	if (x->content_type && strncmp(x->content_type, "text/html", 9) == 0)
		(void)MHD_add_response_header(
		        resp, "Content-Security-Policy",
		        "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; "
		        "connect-src 'self'");
	r = MHD_queue_response(x->conn, x->status, resp);
	MHD_destroy_response(resp);
	x->is_answered = true;
	return r;
}

static enum MHD_Result queue_stream(struct exchange *x)
{
	struct MHD_Response *resp;

	x->status = 200;
	x->content_type = "text/event-stream; charset=utf-8";
	exchange_ref(x); /* the response's, given back by stream_free() */
	resp = MHD_create_response_from_callback(MHD_SIZE_UNKNOWN, 32 * 1024, stream_reader, x, stream_free);
	if (!resp) {
		exchange_unref(x);
		return MHD_NO;
	}
	(void)MHD_add_response_header(resp, "Cache-Control", "no-cache");
	(void)MHD_add_response_header(resp, "X-Accel-Buffering", "no");
	return queue(x, resp);
}

static enum MHD_Result queue_reply(struct exchange *x)
{
	size_t len = x->out.len;
	char *data = base_buf_take(&x->out);

	return queue(x,
	             MHD_create_response_from_buffer(len, data, data ? MHD_RESPMEM_MUST_FREE : MHD_RESPMEM_PERSISTENT));
}

/* Sends what is ready, or waits for it. Once ready, a reply is the connection's alone, so the lock is not
 * held towards libmicrohttpd's own. */
static enum MHD_Result answer(struct exchange *x)
{
	bool is_ready, is_stream;

	exchange_lock(x);
	is_ready = x->is_ready;
	is_stream = x->is_stream; /* the engine's thread goes on writing to a stream */
	if (!is_ready) {
		x->is_suspended = true;
		MHD_suspend_connection(x->conn);
	}
	exchange_unlock(x);
	if (!is_ready || x->is_answered)
		return MHD_YES;
	return is_stream ? queue_stream(x) : queue_reply(x);
}

/* ---- The request comes in ---- */

/* True: the answer is the caller's to give, who needs no lock for it. False: somebody else has given one, as when the
 * server ends. */
static bool claim_answer(struct exchange *x)
{
	bool was_ready;

	exchange_lock(x);
	was_ready = x->is_ready;
	x->is_ready = true;
	exchange_unlock(x);
	return !was_ready;
}

/* The preflight of a browser: allowed from anywhere. */
static enum MHD_Result answer_preflight(struct exchange *x)
{
	const char *headers = MHD_lookup_connection_value(x->conn, MHD_HEADER_KIND, "Access-Control-Request-Headers");
	struct MHD_Response *resp;

	x->is_dispatched = true;
	if (!claim_answer(x))
		return answer(x);
	x->status = 200;
	resp = MHD_create_response_from_buffer(0, NULL, MHD_RESPMEM_PERSISTENT);
	if (resp) {
		(void)MHD_add_response_header(resp, "Access-Control-Allow-Credentials", "true");
		(void)MHD_add_response_header(resp, "Access-Control-Allow-Methods", "GET, POST, DELETE, OPTIONS");
		(void)MHD_add_response_header(resp, "Access-Control-Allow-Headers", headers ? headers : "*");
		(void)MHD_add_response_header(resp, "Access-Control-Max-Age", "600");
	}
	return queue(x, resp);
}

static enum MHD_Result answer_method(struct exchange *x, const char *method, const char *allow)
{
	struct http_error e = { .status = 405, .type = "invalid_request_error", .code = "method_not_allowed" };
	struct base_buf body = BASE_BUF_INIT(4096);
	struct MHD_Response *resp;

	x->is_dispatched = true;
	if (!claim_answer(x))
		return answer(x);
	(void)snprintf(e.message, sizeof(e.message), "%.16s is not allowed here, use %s", method, allow);
	http_error_body(&e, &body);
	x->status = 405;
	x->content_type = "application/json";
	resp = MHD_create_response_from_buffer(body.len, (void *)base_buf_text(&body), MHD_RESPMEM_MUST_COPY);
	base_buf_done(&body);
	if (resp)
		(void)MHD_add_response_header(resp, "Allow", allow);
	return queue(x, resp);
}

static bool is_allowed(const struct exchange *x)
{
	return http_is_allowed(&x->http->keys, MHD_lookup_connection_value(x->conn, MHD_HEADER_KIND, "Authorization"),
	                       MHD_lookup_connection_value(x->conn, MHD_HEADER_KIND, "X-Api-Key"));
}

static void unauthorized(struct exchange *x)
{
	exchange_fail(x, 401, "authentication_error", "invalid_api_key",
	              "a valid API key is needed, as Authorization: Bearer or X-Api-Key");
}

static void too_large(struct exchange *x)
{
	exchange_fail(x, 413, "invalid_request_error", "request_too_large", "the request body is larger than %zu bytes",
	              x->http->config.max_body_bytes);
}

/* The library has room for more, so that the refusal is ours and in the API's shape. */
static bool is_head_too_large(const struct exchange *x)
{
	const union MHD_ConnectionInfo *info =
	        MHD_get_connection_info(x->conn, MHD_CONNECTION_INFO_REQUEST_HEADER_SIZE);

	return info && info->header_size > HTTP_MAX_HEAD;
}

static void head_too_large(struct exchange *x)
{
	exchange_fail(x, 431, "invalid_request_error", "header_too_large",
	              "request line and headers are larger than %d bytes", HTTP_MAX_HEAD);
}

/* The connection's thread reads it without the lock. */
static void set_route(struct exchange *x, const char *method, const char **ret_allow)
{
	const struct route *route = route_find(x->url, strcmp(method, "HEAD") == 0 ? "GET" : method, ret_allow);

	exchange_lock(x);
	x->route = route;
	exchange_unlock(x);
}

/* After the head: a body that says that it is too large is not waited for, nor one of somebody without a key. */
static enum MHD_Result look_at_head(struct exchange *x, const char *method)
{
	const char *length = MHD_lookup_connection_value(x->conn, MHD_HEADER_KIND, "Content-Length"), *allow = NULL;
	bool is_large = length && strtoull(length, NULL, 10) > x->http->config.max_body_bytes, is_preflight, may;
	bool is_head_large = is_head_too_large(x);

	set_route(x, method, &allow);
	is_preflight = strcmp(method, "OPTIONS") == 0;
	may = is_preflight || (x->route && (x->route->flags & ROUTE_PUBLIC)) || is_allowed(x);
	x->is_refused = !may;
	if (!is_large && !is_head_large)
		return MHD_YES;
	exchange_lock(x);
	if (is_head_large)
		head_too_large(x);
	else if (may)
		too_large(x);
	else
		unauthorized(x);
	exchange_unlock(x);
	x->is_dispatched = true;
	return answer(x);
}

static enum MHD_Result dispatch(struct exchange *x, const char *method)
{
	const char *allow = NULL;
	bool is_answered;

	if (strcmp(method, "OPTIONS") == 0)
		return answer_preflight(x);
	set_route(x, method, &allow);
	if (!x->route && allow && !x->is_refused)
		return answer_method(x, method, allow);
	x->is_dispatched = true;
	x->client = client_of(x);
	exchange_lock(x);
	if (x->is_refused)
		unauthorized(x);
	else if (!x->route)
		exchange_fail(x, 404, "invalid_request_error", "not_found", "there is nothing at %.256s", x->url);
	else if (x->body_too_large)
		too_large(x);
	is_answered = x->is_ready;
	exchange_unlock(x);
	/* Handlers lock for themselves: the engine's events may come before they return. */
	if (!is_answered)
		x->route->handle(x);
	return answer(x);
}

enum MHD_Result exchange_access(void *cls, struct MHD_Connection *conn, const char *url, const char *method,
                                const char *version, const char *upload, size_t *upload_size, void **req_cls)
{
	struct exchange *x = *req_cls;

	if (!x) {
		x = exchange_new(cls, conn, url);
		if (!x)
			return MHD_NO;
		*req_cls = x;
		return look_at_head(x, method);
	}
	if (*upload_size > 0) {
		/* Past the limit the rest is read and dropped, so that the client sees the answer. */
		if (!x->body_too_large && !x->is_refused && base_buf_append(&x->body, upload, *upload_size) < 0)
			x->body_too_large = true;
		*upload_size = 0;
		return MHD_YES;
	}
	if (!x->is_dispatched)
		return dispatch(x, method);
	return answer(x);
}
