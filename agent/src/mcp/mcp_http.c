/* Streamable HTTP: each message is a POST; its answer is JSON, an event stream, or nothing (202).
 *
 * The stream is read until the answer to this request has come. The server's own requests in it are answered at once,
 * over a connection beside it: the server may wait for them before it goes on. Notices before the answer are kept in
 * order. The session's id and the agreed revision travel in headers (2025-03-26, 2025-06-18). What the server would
 * send on its own behind a GET is not asked for: no capability here needs it. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "base/http_client.h"
#include "base/json.h"
#include "key.h"
#include "mcp/mcp_internal.h"

enum { MAX_QUEUE = 1000, MAX_SESSION = 512, CLOSE_MS = 1000, BESIDE_MS = 5000 };

struct http {
	struct ag_mcp_transport t;
	const struct ag_mcp_config *config;
	const volatile sig_atomic_t *cancel;
	struct base_http *client, *beside; /* beside: made when it is needed */
	char *authorization;
	char session[MAX_SESSION], revision[64]; /* whole header lines, or "" */
	json_t *queue;                           /* messages received and not yet taken */
	/* of the request under way */
	struct ag_mcp_sse sse;
	struct base_buf body;
	bool is_stream, is_answered;
	int64_t deadline;
	json_int_t wanted; /* the id whose answer ends the stream; -1: none */
	int error;
	struct err *err;
};

static void on_header(void *arg, const char *line, size_t len)
{
	static const char session[] = "mcp-session-id:", type[] = "content-type:";
	struct http *h = arg;

	while (len && (line[len - 1] == '\r' || line[len - 1] == '\n'))
		len--;
	if (len > sizeof(type) && strncasecmp(line, type, sizeof(type) - 1) == 0)
		h->is_stream = memmem(line, len, "text/event-stream", 17) != NULL;
	if (len > sizeof(session) && len < MAX_SESSION && strncasecmp(line, session, sizeof(session) - 1) == 0) {
		memcpy(h->session, line, len);
		h->session[len] = '\0';
	}
}

static bool is_answer_to(const json_t *m, json_int_t id)
{
	const json_t *got = json_object_get(m, "id"), *one;
	size_t i;

	json_array_foreach(m, i, one)
	{
		if (is_answer_to(one, id))
			return true;
	}
	return json_is_integer(got) && json_integer_value(got) == id && !json_object_get(m, "method");
}

static void make_headers(const struct http *h, const char *headers[6])
{
	size_t n = 0;

	headers[n++] = "Content-Type: application/json";
	headers[n++] = "Accept: application/json, text/event-stream";
	if (h->authorization)
		headers[n++] = h->authorization;
	if (h->session[0])
		headers[n++] = h->session;
	if (h->revision[0])
		headers[n++] = h->revision;
	headers[n] = NULL;
}

static int is_canceled(void *arg)
{
	const struct http *h = arg;

	return h->cancel && *h->cancel;
}

/* Answers a request that came within the stream. A failure shows as the answer that then never comes. */
static void answer_beside(struct http *h, const json_t *m)
{
	CLEANUP(base_buf_done) struct base_buf out = BASE_BUF_INIT(65536);
	json_t *answer = ag_mcp_answer_to(m);
	struct base_http_response resp = { 0 };
	const char *headers[6];
	struct base_http_request req = { .method = "POST",
		                         .url = h->config->url,
		                         .headers = headers,
		                         .idle_timeout_ms = BESIDE_MS,
		                         .max_response_bytes = 65536,
		                         .is_canceled = is_canceled,
		                         .is_canceled_arg = h };

	make_headers(h, headers);
	if (answer && base_json_append(&out, answer) == 0 && (h->beside || base_http_new(&h->beside, NULL) == 0)) {
		req.body = base_buf_text(&out);
		req.body_len = out.len;
		if (base_http_request(h->beside, &req, &resp, NULL) == 0)
			base_buf_done(&resp.body);
	}
	json_decref(answer);
}

static int take_message(void *arg, const char *data, size_t len)
{
	struct http *h = arg;
	json_t *m = NULL;

	h->error = base_json_parse(h->config->name, data, len, &m, h->err);
	if (h->error == 0 && json_array_size(h->queue) >= MAX_QUEUE) {
		json_decref(m);
		h->error = err_set(h->err, -EFBIG, "%s: too many messages", h->config->name);
	} else if (h->error == 0 && h->is_stream && json_object_get(m, "method") && json_object_get(m, "id")) {
		answer_beside(h, m);
		json_decref(m);
	} else if (h->error == 0) {
		h->is_answered = h->wanted >= 0 && is_answer_to(m, h->wanted);
		if (json_array_append_new(h->queue, m) < 0)
			h->error = err_set(h->err, -ENOMEM, "out of memory");
	}
	return h->error ? h->error : h->is_answered;
}

static int on_body(void *arg, const char *data, size_t len)
{
	struct http *h = arg;
	int r;

	/* A server that sends something now and then is never idle: the deadline counts. */
	if (base_now_ms() > h->deadline)
		h->error = err_set(h->err, -ETIMEDOUT, "%s: no answer in time", h->config->name);
	if (h->error)
		return h->error;
	r = h->is_stream ? ag_mcp_sse_feed(&h->sse, data, len, take_message, h) : base_buf_append(&h->body, data, len);
	if (r < 0 && !h->error)
		h->error = err_set(h->err, r, "%s: a message is longer than %d bytes", h->config->name,
		                   AG_MCP_MAX_MESSAGE);
	return r;
}

static int verdict(struct http *h, const struct base_http_response *resp, struct err *err)
{
	json_t *m = NULL;
	const char *words;
	int r = 0;

	if (resp->status >= 200 && resp->status < 300) {
		if (!h->is_stream && h->body.len)
			r = take_message(h, h->body.data, h->body.len);
		return r < 0 ? r : 0;
	}
	if (resp->status == 404 && h->session[0])
		return err_set(err, -ECONNRESET, "%s: the server has ended the session", h->config->name);
	(void)base_json_parse(h->config->name, base_buf_text(&resp->body), resp->body.len, &m, NULL);
	words = json_string_value(json_object_get(json_object_get(m, "error"), "message"));
	r = err_set(err, resp->status == 401 || resp->status == 403 ? -EACCES : -EIO, "%s: HTTP status %ld%s%s",
	            h->config->name, resp->status, words ? ": " : "", words ? words : "");
	json_decref(m);
	return r;
}

static void begin(struct http *h, const char *data, size_t len, int64_t deadline, struct err *err)
{
	json_t *m = NULL;
	const json_t *id;

	ag_mcp_sse_init(&h->sse);
	base_buf_init(&h->body, AG_MCP_MAX_MESSAGE);
	h->is_stream = h->is_answered = false;
	h->deadline = deadline;
	h->error = 0;
	h->err = err;
	h->wanted = -1;
	if (base_json_parse("request", data, len, &m, NULL) == 0) {
		id = json_object_get(m, "id");
		if (json_is_integer(id) && json_object_get(m, "method"))
			h->wanted = json_integer_value(id);
	}
	json_decref(m);
}

static int http_send(struct ag_mcp_transport *t, const char *data, size_t len, int64_t deadline, struct err *err)
{
	struct http *h = (struct http *)t;
	const char *headers[6];
	int64_t left = deadline - base_now_ms();
	struct base_http_request req = { .method = "POST",
		                         .url = h->config->url,
		                         .headers = headers,
		                         .body = data,
		                         .body_len = len,
		                         .idle_timeout_ms = left > 1 ? (uint32_t)left : 1,
		                         .max_response_bytes = AG_MCP_MAX_MESSAGE,
		                         .on_body = on_body,
		                         .on_body_arg = h,
		                         .on_header = on_header,
		                         .on_header_arg = h,
		                         .is_canceled = is_canceled,
		                         .is_canceled_arg = h };
	struct base_http_response resp = { 0 };
	struct err why = { 0 };
	int r;

	make_headers(h, headers);
	begin(h, data, len, deadline, err);
	/* What takes a request back must go out although the person has cancelled. */
	if (h->wanted < 0)
		req.is_canceled = NULL;
	r = base_http_request(h->client, &req, &resp, &why);
	if (r == 0) {
		r = verdict(h, &resp, err);
		base_buf_done(&resp.body);
	} else if (h->error) {
		r = h->error; /* its words are there */
	} else if (r == -ECANCELED && h->is_answered) {
		r = 0; /* the stream was left because all had come */
	} else if (r == -ECONNREFUSED) {
		(void)err_set(err, r, "%s: no server answers at %s", h->config->name, h->config->url);
	} else {
		(void)err_set(err, r, "%s: %s", h->config->name, err_text(&why));
	}
	ag_mcp_sse_done(&h->sse);
	base_buf_done(&h->body);
	return r;
}

static int http_receive(struct ag_mcp_transport *t, int64_t deadline, json_t **ret_message, struct err *err)
{
	struct http *h = (struct http *)t;

	(void)deadline;
	if (json_array_size(h->queue) == 0)
		return err_set(err, -EBADMSG, "%s: the server's reply holds no answer to the request", h->config->name);
	*ret_message = json_incref(json_array_get(h->queue, 0));
	(void)json_array_remove(h->queue, 0);
	return 0;
}

static void http_agreed(struct ag_mcp_transport *t, const char *revision)
{
	struct http *h = (struct http *)t;

	if (strcmp(revision, "2025-06-18") == 0)
		(void)snprintf(h->revision, sizeof(h->revision), "MCP-Protocol-Version: %s", revision);
}

/* The server may forget the session now. */
static void end_session(struct http *h)
{
	const char *headers[6];
	struct base_http_request req = { .method = "DELETE",
		                         .url = h->config->url,
		                         .headers = headers,
		                         .connect_timeout_ms = CLOSE_MS,
		                         .idle_timeout_ms = CLOSE_MS,
		                         .max_response_bytes = 65536 };
	struct base_http_response resp = { 0 };

	make_headers(h, headers);
	if (base_http_request(h->client, &req, &resp, NULL) == 0)
		base_buf_done(&resp.body);
}

static void http_close(struct ag_mcp_transport *t)
{
	struct http *h = (struct http *)t;

	if (h->client && h->session[0])
		end_session(h);
	base_http_free(h->client);
	base_http_free(h->beside);
	json_decref(h->queue);
	free(h->authorization);
	free(h);
}

int ag_mcp_http_open(const struct ag_mcp_config *config, const volatile sig_atomic_t *cancel,
                     struct ag_mcp_transport **ret_transport, struct err *err)
{
	struct http *h = calloc(1, sizeof(*h));
	int r = 0;

	if (!h)
		return err_set(err, -ENOMEM, "out of memory");
	h->t = (struct ag_mcp_transport){ http_send, http_receive, http_agreed, http_close };
	h->config = config;
	h->cancel = cancel;
	h->queue = json_array();
	if (!h->queue)
		r = err_set(err, -ENOMEM, "out of memory");
	if (r == 0 && config->token_file)
		r = ag_key_header(config->token_file, &h->authorization, err);
	if (r == 0)
		r = base_http_new(&h->client, err);
	if (r < 0) {
		http_close(&h->t);
		return r;
	}
	*ret_transport = &h->t;
	return 0;
}
