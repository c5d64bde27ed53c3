/* The client of an OpenAI-compatible API: /health, /v1/models, /v1/chat/completions.
 *
 * Errors are sentences for the person at the terminal: they name the server, and carry the server's own
 * words when it sent any. */
#include "agent.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/http_client.h"
#include "base/json.h"
#include "calls.h"
#include "key.h"
#include "sse.h"

enum { MAX_ANSWER_BYTES = 1 << 20, MAX_BODY_BYTES = 8 << 20, HEALTH_TIMEOUT_MS = 2000 };

struct ag_backend {
	struct base_http *http;
	char *root;          /* "http://host:port", without the slash and /v1 at the end */
	char *socket;        /* or NULL */
	char *where;         /* for messages: the address as it was given */
	char *authorization; /* header, or NULL */
	uint32_t timeout_ms;
	uint32_t context_tokens;  /* as the server says; 0: it does not */
	int (*cancel)(void *arg); /* or NULL */
	void *cancel_arg;
};

static int set_address(struct ag_backend *b, const char *url, struct err *err)
{
	size_t n = strlen(url);

	b->where = strdup(url);
	if (strncmp(url, "unix:", 5) == 0) {
		if (url[5] != '/')
			return err_set(err, -EINVAL, "%s: expected an absolute path after unix:", url);
		b->socket = strdup(url + 5);
		b->root = strdup("http://localhost");
		return b->where && b->socket && b->root ? 0 : -ENOMEM;
	}
	if (strncmp(url, "http://", 7) != 0 && strncmp(url, "https://", 8) != 0)
		return err_set(err, -EINVAL, "%s: not an address: expected http://, https:// or unix:/path", url);
	while (n && url[n - 1] == '/')
		n--;
	if (n >= 3 && memcmp(url + n - 3, "/v1", 3) == 0)
		n -= 3;
	b->root = strndup(url, n);
	return b->where && b->root ? 0 : -ENOMEM;
}

int ag_backend_open(const char *url, const char *api_key_file, uint32_t timeout_ms, struct ag_backend **ret_backend,
                    struct err *err)
{
	struct ag_backend *b = calloc(1, sizeof(*b));
	int r;

	if (!b)
		return err_set(err, -ENOMEM, "out of memory");
	b->timeout_ms = timeout_ms;
	r = set_address(b, url, err);
	if (r == 0 && api_key_file)
		r = ag_key_header(api_key_file, &b->authorization, err);
	if (r == 0)
		r = base_http_new(&b->http, err);
	if (r < 0) {
		if (r == -ENOMEM)
			(void)err_set(err, r, "out of memory");
		ag_backend_close(b);
		return r;
	}
	*ret_backend = b;
	return 0;
}

void ag_backend_close(struct ag_backend *b)
{
	if (!b)
		return;
	base_http_free(b->http);
	free(b->root);
	free(b->socket);
	free(b->where);
	free(b->authorization);
	free(b);
}

static int is_canceled(void *arg)
{
	const struct ag_backend *b = arg;

	return b->cancel(b->cancel_arg);
}

/* on_body: NULL for a whole answer. */
static int request(struct ag_backend *b, const char *method, const char *path, const struct base_buf *body,
                   uint32_t timeout_ms, base_http_body_fn on_body, void *on_body_arg, struct base_http_response *resp,
                   struct err *err)
{
	CLEANUP(base_buf_done) struct base_buf url = BASE_BUF_INIT(8192);
	const char *headers[3] = { "Content-Type: application/json", b->authorization, NULL };
	struct base_http_request req = { .method = method,
		                         .unix_socket = b->socket,
		                         .headers = headers,
		                         .body = body ? base_buf_text(body) : NULL,
		                         .body_len = body ? body->len : 0,
		                         .idle_timeout_ms = timeout_ms,
		                         .max_response_bytes = MAX_ANSWER_BYTES,
		                         .on_body = on_body,
		                         .on_body_arg = on_body_arg,
		                         .is_canceled = b->cancel ? is_canceled : NULL,
		                         .is_canceled_arg = b };
	int r;

	if (base_buf_puts(&url, b->root) < 0 || base_buf_puts(&url, path) < 0)
		return err_set(err, -EINVAL, "%s: the address is too long", b->where);
	req.url = base_buf_text(&url);
	r = base_http_request(b->http, &req, resp, err);
	if (r == -ECONNREFUSED)
		return err_set(err, r, "no server answers at %s", b->where);
	if (r == -ECANCELED)
		return err_set(err, r, "stopped");
	if (r == -ETIMEDOUT)
		return err_set(err, r, "%s did not answer within %u seconds", b->where, (timeout_ms + 999) / 1000);
	return r < 0 ? err_prefix(err, r, "%s: ", b->where) : 0;
}

int ag_backend_health(struct ag_backend *b, struct err *err)
{
	struct base_http_response resp = { 0 };
	int r = request(b, "GET", "/health", NULL, HEALTH_TIMEOUT_MS, NULL, NULL, &resp, err);

	if (r < 0)
		return r;
	base_buf_done(&resp.body);
	if (resp.status == 200)
		return 0;
	if (resp.status == 503)
		return err_set(err, -EAGAIN, "%s is still loading", b->where);
	return err_set(err, -EIO, "%s: /health answered with status %ld", b->where, resp.status);
}

/* The words of {"error": {"message": ...}} or {"error": "..."} or {"message": ...}, or NULL. */
static const char *error_words(const json_t *json)
{
	const json_t *e = json_object_get(json, "error");

	if (json_is_string(e))
		return json_string_value(e);
	e = json_object_get(json_is_object(e) ? e : json, "message");
	return json_string_value(e);
}

/* Parses a 200 answer; any other status becomes an error with the server's words. */
static int parse_answer(struct ag_backend *b, struct base_http_response *resp, json_t **ret_json, struct err *err)
{
	struct err parse_err = { 0 };
	json_t *json = NULL;
	int r = base_json_parse(b->where, base_buf_text(&resp->body), resp->body.len, &json, &parse_err);

	if (resp->status != 200) {
		const char *words = error_words(json);

		r = words ? err_set(err, -EIO, "%s answered with status %ld: %s", b->where, resp->status, words)
		          : err_set(err, -EIO, "%s answered with status %ld", b->where, resp->status);
		json_decref(json);
	} else if (r < 0) {
		r = err_set(err, -EBADMSG, "the answer is not JSON: %s", err_text(&parse_err));
	} else {
		*ret_json = json;
	}
	base_buf_done(&resp->body);
	return r;
}

int ag_backend_model(struct ag_backend *b, struct base_buf *ret_id, struct err *err)
{
	struct base_http_response resp = { 0 };
	const json_t *model;
	json_int_t max_len;
	const char *id;
	json_t *json;
	int r = request(b, "GET", "/v1/models", NULL, b->timeout_ms, NULL, NULL, &resp, err);

	if (r == 0)
		r = parse_answer(b, &resp, &json, err);
	if (r < 0)
		return r;
	model = json_array_get(json_object_get(json, "data"), 0);
	id = json_string_value(json_object_get(model, "id"));
	max_len = json_integer_value(json_object_get(model, "max_model_len"));
	b->context_tokens = max_len > 0 && max_len < 1 << 24 ? (uint32_t)max_len : 0;
	r = id ? base_buf_puts(ret_id, id) : err_set(err, -EBADMSG, "%s serves no model", b->where);
	json_decref(json);
	return r;
}

void ag_backend_set_cancel(struct ag_backend *b, int (*cancel)(void *arg), void *arg)
{
	b->cancel = cancel;
	b->cancel_arg = arg;
}

uint32_t ag_backend_context_tokens(const struct ag_backend *b)
{
	return b->context_tokens;
}

static int chat_body(struct ag_backend *b, const struct ag_backend_request *q, bool stream, struct base_buf *body,
                     struct err *err)
{
	json_t *json = json_pack("{s:s, s:O, s:i, s:i, s:b}", "model", q->model, "messages", q->messages, "temperature",
	                         0, "max_tokens", (int)q->max_tokens, "stream", stream);
	int r = json ? 0 : -EINVAL;

	if (r == 0 && json_array_size(q->tools))
		r = json_object_set(json, "tools", (json_t *)q->tools);
	if (r == 0 && json_array_size(q->tools) && q->no_calls)
		r = json_object_set_new(json, "tool_choice", json_string("none"));

	/* Our own engine knows this; other servers refuse what they do not know. */
	if (r == 0 && b->socket)
		r = json_object_set_new(json, "chat_template_kwargs", json_pack("{s:b}", "enable_thinking", 0));
	if (r == 0)
		r = base_json_append(body, json);
	json_decref(json);
	return r < 0 ? err_set(err, -EINVAL, "the question or the model's name is not valid UTF-8 text") : 0;
}

/* choices[0].message.content, borrowed; "" when it is null or missing. */
static int whole_content(struct ag_backend *b, const json_t *json, const char **ret_text, size_t *ret_len,
                         struct err *err)
{
	const json_t *message = json_object_get(json_array_get(json_object_get(json, "choices"), 0), "message");
	const json_t *content = json_object_get(message, "content");

	if (!json_is_object(message) || !(json_is_string(content) || json_is_null(content) || !content))
		return err_set(err, -EBADMSG, "%s: the answer has no choices[0].message.content", b->where);
	*ret_text = json_is_string(content) ? json_string_value(content) : "";
	*ret_len = json_string_length(content);
	return 0;
}

int ag_backend_ask(struct ag_backend *b, const char *model, const json_t *messages, uint32_t max_tokens,
                   struct base_buf *ret_answer, struct err *err)
{
	const struct ag_backend_request q = { .model = model, .messages = messages, .max_tokens = max_tokens };
	CLEANUP(base_buf_done) struct base_buf body = BASE_BUF_INIT(MAX_BODY_BYTES);
	struct base_http_response resp = { 0 };
	const char *content;
	json_t *json;
	size_t len;
	int r = chat_body(b, &q, false, &body, err);

	if (r == 0)
		r = request(b, "POST", "/v1/chat/completions", &body, b->timeout_ms, NULL, NULL, &resp, err);
	if (r == 0)
		r = parse_answer(b, &resp, &json, err);
	if (r < 0)
		return r;
	r = whole_content(b, json, &content, &len, err);
	if (r == 0)
		r = base_buf_append(ret_answer, content, len);
	json_decref(json);
	return r;
}

/* ---- Streaming --------------------------------------------------------------------------------------- */

struct stream {
	struct ag_backend *b;
	struct ag_sse sse;
	struct base_buf whole; /* an answer that is not a stream: the server does not know how */
	bool is_whole, is_known;
	bool is_done;           /* [DONE], or a finish_reason, was seen */
	struct ag_calls *calls; /* NULL: no tools were offered, and none are listened to */
	ag_text_fn on_text;
	void *arg;
	int error; /* the first of the callbacks' own, its words in err; request() has words of its own */
	struct err *err;
};

/* What a callback's non-zero return means: the reader has had enough, or, when a buffer was full, the answer or a tool
 * call was too large. */
static int stop_code(struct stream *s, int r)
{
	if (r != -EFBIG)
		return err_set(s->err, -ECANCELED, "stopped");
	return s->err && s->err->code == r ? r : err_set(s->err, r, "%s: the answer is too long", s->b->where);
}

static int stream_event(void *arg, const char *data, size_t len)
{
	struct stream *s = arg;
	const json_t *choice, *content;
	struct err parse_err = { 0 };
	json_t *json = NULL;
	int r = 0;

	if (len == 6 && memcmp(data, "[DONE]", 6) == 0) {
		s->is_done = true;
		return 0;
	}
	r = base_json_parse("a piece of the answer", data, len, &json, &parse_err);
	if (r < 0)
		return s->error = err_set(s->err, r, "%s: %s", s->b->where, err_text(&parse_err));
	if (json_object_get(json, "error")) {
		const char *words = error_words(json);

		s->error = err_set(s->err, -EIO, "%s stopped the answer: %s", s->b->where,
		                   words ? words : "it does not say why");
	} else {
		choice = json_array_get(json_object_get(json, "choices"), 0);
		content = json_object_get(json_object_get(choice, "delta"), "content");
		if (json_is_string(json_object_get(choice, "finish_reason")))
			s->is_done = true;
		if (json_string_length(content))
			r = s->on_text(s->arg, json_string_value(content), json_string_length(content));
		if (r)
			s->error = stop_code(s, r);
		else if (s->calls)
			s->error = ag_calls_add(
			        s->calls, json_object_get(json_object_get(choice, "delta"), "tool_calls"), s->err);
	}
	json_decref(json);
	return s->error;
}

/* The first byte that is no blank tells a JSON object from a stream of events. */
static int stream_bytes(void *arg, const char *data, size_t len)
{
	struct stream *s = arg;
	int r;

	for (size_t i = 0; i < len && !s->is_known; i++) {
		s->is_known = strchr(" \t\r\n", data[i]) == NULL;
		s->is_whole = data[i] == '{';
	}
	if (s->is_whole)
		r = base_buf_append(&s->whole, data, len);
	else
		r = ag_sse_feed(&s->sse, data, len, stream_event, s);
	if (r < 0 && s->error == 0)
		s->error = err_set(s->err, r, "%s: %s", s->b->where,
		                   r == -EFBIG ? "a piece of the answer is too large" : "out of memory");
	return r;
}

static int stream_whole(struct stream *s)
{
	CLEANUP(json_decrefp) json_t *json = NULL;
	struct err parse_err = { 0 };
	const char *content;
	size_t len;
	int r = base_json_parse(s->b->where, base_buf_text(&s->whole), s->whole.len, &json, &parse_err);

	if (r < 0)
		return err_set(s->err, r, "the answer is not JSON: %s", err_text(&parse_err));
	r = whole_content(s->b, json, &content, &len, s->err);
	if (r == 0 && len && (r = s->on_text(s->arg, content, len)))
		r = stop_code(s, r);
	if (r == 0 && s->calls) {
		const json_t *choice = json_array_get(json_object_get(json, "choices"), 0);

		r = ag_calls_add(s->calls, json_object_get(json_object_get(choice, "message"), "tool_calls"), s->err);
	}
	return r;
}

/* What the transfer's end means, after what came before it. */
static int stream_verdict(struct stream *s, int r, struct base_http_response *resp)
{
	if (s->error < 0)
		return s->error;
	if (r == -EIO && (s->sse.n_events || s->is_whole))
		return err_set(s->err, -EPIPE, "%s: the connection broke in the middle of the answer", s->b->where);
	if (r == -ETIMEDOUT && s->sse.n_events)
		return err_set(s->err, r, "%s fell silent in the middle of the answer, for %u seconds", s->b->where,
		               (s->b->timeout_ms + 999) / 1000);
	if (r < 0)
		return r;
	if (resp->status < 200 || resp->status > 299) {
		json_t *json = NULL;

		return parse_answer(s->b, resp, &json, s->err); /* an error, with the server's words */
	}
	base_buf_done(&resp->body);
	if (s->is_whole)
		return stream_whole(s);
	if (!s->is_done)
		return err_set(s->err, -EPIPE, "%s: the answer ends before its end", s->b->where);
	return 0;
}

static int run_stream(struct ag_backend *b, const struct ag_backend_request *q, struct stream *s)
{
	CLEANUP(base_buf_done) struct base_buf body = BASE_BUF_INIT(MAX_BODY_BYTES);
	struct base_http_response resp = { 0 };
	struct err words = { 0 };
	int r = chat_body(b, q, true, &body, s->err);

	if (r < 0)
		return r;
	base_buf_init(&s->whole, MAX_ANSWER_BYTES);
	ag_sse_init(&s->sse, MAX_ANSWER_BYTES);
	r = request(b, "POST", "/v1/chat/completions", &body, b->timeout_ms, stream_bytes, s, &resp, &words);
	if (r < 0 && s->error == 0)
		(void)err_set(s->err, r, "%s", err_text(&words));
	r = stream_verdict(s, r, &resp);
	ag_sse_done(&s->sse);
	base_buf_done(&s->whole);
	return r;
}

int ag_backend_stream(struct ag_backend *b, const char *model, const json_t *messages, uint32_t max_tokens,
                      ag_text_fn on_text, void *arg, struct err *err)
{
	const struct ag_backend_request q = { .model = model, .messages = messages, .max_tokens = max_tokens };
	struct stream s = { .b = b, .on_text = on_text, .arg = arg, .err = err };

	return run_stream(b, &q, &s);
}

int ag_backend_converse(struct ag_backend *b, const struct ag_backend_request *q, ag_text_fn on_text, void *arg,
                        json_t **ret_calls, struct err *err)
{
	struct ag_calls calls;
	struct ag_call_filter filter;
	struct stream s = { .b = b, .calls = &calls, .on_text = ag_call_filter_text, .arg = &filter, .err = err };
	int r;

	*ret_calls = NULL;
	if (json_array_size(q->tools) == 0)
		return ag_backend_stream(b, q->model, q->messages, q->max_tokens, on_text, arg, err);
	ag_calls_init(&calls);
	ag_call_filter_init(&filter, &calls, on_text, arg, err);
	r = run_stream(b, q, &s);
	if (r == 0 && (r = ag_call_filter_finish(&filter)) != 0)
		r = stop_code(&s, r);
	if (r == 0 && ag_calls_take(&calls, ret_calls) < 0)
		r = err_set(err, -ENOMEM, "out of memory");
	ag_call_filter_done(&filter);
	ag_calls_done(&calls);
	return r;
}
