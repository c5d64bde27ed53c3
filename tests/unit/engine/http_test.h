/* A served fixture model inside the test process, and a client for it. */
#ifndef HTTP_TEST_H
#define HTTP_TEST_H

#include <arpa/inet.h>
#include <errno.h>
#include <jansson.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "base/http_client.h"
#include "base/json.h"
#include "engine.h"
#include "engine_http.h"
#include "test.h"

struct served {
	struct eng_engine *engine;
	struct eng_http *http;
	struct base_http *client;
	char url[64];
	uint16_t port;
};

struct answer {
	long status;
	char type[128];
	char *text; /* the body */
	size_t len;
	json_t *json; /* NULL when it is not JSON */
};

static inline void serve_with(struct served *s, const struct eng_options *options, struct eng_http_config config)
{
	struct err err = { 0 };

	memset(s, 0, sizeof(*s));
	if (eng_engine_open(options, &s->engine, &err) < 0)
		fail_msg("%s", err_text(&err));
	config.host = "127.0.0.1";
	if (eng_http_open(s->engine, &config, &s->http, &err) < 0)
		fail_msg("%s", err_text(&err));
	s->port = eng_http_port(s->http);
	(void)snprintf(s->url, sizeof(s->url), "http://127.0.0.1:%u", s->port);
	assert_int_equal(base_http_new(&s->client, &err), 0);
}

static inline void serve_model_as(struct served *s, const char *model, const char *backend, const char *isa,
                                  const char *precision)
{
	char path[4096];
	const struct eng_options options = {
		.model_path = path, .backend = backend, .isa = isa, .precision = precision, .n_threads = 2
	};

	(void)snprintf(path, sizeof(path), "%s", test_fixture(model));
	serve_with(s, &options, (struct eng_http_config){ 0 });
}

static inline void serve_model(struct served *s, const char *model, const char *backend)
{
	serve_model_as(s, model, backend, NULL, NULL);
}

static inline void serve_end(struct served *s)
{
	struct eng_stats st;

	base_http_free(s->client);
	eng_http_quiesce(s->http);
	eng_engine_drain(s->engine, 300000);
	eng_engine_stats(s->engine, &st);
	assert_int_equal(st.n_running + st.n_queued, 0);
	assert_int_equal(st.kv_pages_used, 0);
	eng_http_close(s->http, 1000);
	eng_engine_close(s->engine);
}

static inline void answer_done(struct answer *a)
{
	json_decref(a->json);
	free(a->text);
	memset(a, 0, sizeof(*a));
}

/* With a body it is a POST. */
static inline void ask_with(struct base_http *client, const char *url, const char *path, const char *body,
                            struct answer *ret)
{
	static const char *const headers[] = { "Content-Type: application/json", NULL };
	char full[512];
	struct base_http_request req = { .method = body ? "POST" : "GET",
		                         .url = full,
		                         .headers = headers,
		                         .body = body,
		                         .body_len = body ? strlen(body) : 0,
		                         .idle_timeout_ms = 300000 };
	struct base_http_response resp = { 0 };
	struct err err = { 0 };

	memset(ret, 0, sizeof(*ret));
	(void)snprintf(full, sizeof(full), "%s%s", url, path);
	if (base_http_request(client, &req, &resp, &err) < 0)
		fail_msg("%s: %s", path, err_text(&err));
	ret->status = resp.status;
	(void)snprintf(ret->type, sizeof(ret->type), "%s", resp.content_type);
	ret->len = resp.body.len;
	ret->text = strdup(base_buf_text(&resp.body));
	if (base_json_parse("answer", ret->text, ret->len, &ret->json, NULL) < 0)
		ret->json = NULL;
	base_buf_done(&resp.body);
}

static inline void ask(struct served *s, const char *path, const char *body, struct answer *ret)
{
	ask_with(s->client, s->url, path, body, ret);
}

/* The same, expecting a status and JSON. */
static inline void ask_ok(struct served *s, const char *path, const char *body, struct answer *ret)
{
	ask(s, path, body, ret);
	if (ret->status != 200 || !ret->json)
		fail_msg("%s: %ld %s", path, ret->status, ret->text);
}

/* A value by a path of keys and indices: "choices.0.text". */
static inline json_t *at(json_t *v, const char *path)
{
	char copy[256], *save = NULL;

	(void)snprintf(copy, sizeof(copy), "%s", path);
	for (char *key = strtok_r(copy, ".", &save); key && v; key = strtok_r(NULL, ".", &save)) {
		if (json_is_array(v))
			v = json_array_get(v, (size_t)strtoul(key, NULL, 10));
		else
			v = json_object_get(v, key);
	}
	return v;
}

static inline const char *str_at(json_t *v, const char *path)
{
	const char *text = json_string_value(at(v, path));

	return text ? text : "(no string)";
}

static inline long long int_at(json_t *v, const char *path)
{
	json_t *found = at(v, path);

	return json_is_integer(found) ? (long long)json_integer_value(found) : -1;
}

/* A connected socket for what a proper client would not do. */
static inline int raw_connect_with(const struct served *s, int receive_buffer)
{
	struct sockaddr_in sin = { .sin_family = AF_INET,
		                   .sin_port = htons(s->port),
		                   .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	struct timeval timeout = { .tv_sec = 300 };
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

	assert_true(fd >= 0);
	/* Before connecting, so that it bounds the window that is offered. */
	if (receive_buffer > 0)
		(void)setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &receive_buffer, sizeof(receive_buffer));
	assert_int_equal(connect(fd, (struct sockaddr *)&sin, sizeof(sin)), 0);
	(void)setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &timeout, sizeof(timeout));
	return fd;
}

static inline int raw_connect(const struct served *s)
{
	return raw_connect_with(s, 0);
}

static inline void raw_send(int fd, const char *text)
{
	assert_int_equal(send(fd, text, strlen(text), MSG_NOSIGNAL), (ssize_t)strlen(text));
}

static inline void raw_post(int fd, const char *path, const char *body)
{
	char head[512];

	(void)snprintf(head, sizeof(head), "POST %s HTTP/1.1\r\nHost: x\r\nContent-Length: %zu\r\n\r\n", path,
	               strlen(body));
	raw_send(fd, head);
	raw_send(fd, body);
}

/* Waits until a condition of the statistics holds, five minutes at most (sanitizers are slow). */
static inline bool wait_stats(struct served *s, bool (*ok)(const struct eng_stats *st))
{
	for (int i = 0; i < 60000; i++) {
		struct eng_stats st;

		eng_engine_stats(s->engine, &st);
		if (ok(&st))
			return true;
		(void)usleep(5000);
	}
	return false;
}

/* A prompt of n token ids as a JSON array, in a static buffer. */
static inline const char *long_ids(size_t n)
{
	static char text[64 * 1024];
	size_t len = 0;

	for (size_t i = 0; i < n; i++)
		len += (size_t)snprintf(text + len, sizeof(text) - len, "%s%zu", i ? "," : "[", 5 + i * 7 % 500);
	(void)snprintf(text + len, sizeof(text) - len, "]");
	return text;
}

static inline void append(char *text, size_t size, const char *more)
{
	size_t len = strlen(text);

	assert_true(strlen(more) < size - len);
	(void)snprintf(text + len, size - len, "%s", more);
}

#endif
