/* http_load PORT COUNT [SEED]: COUNT requests of random shape from 64 connections at a served model: streams, whole
 * answers, lists, cancels, bad and huge bodies, slow readers, half requests. Every answer is checked: a stream has its
 * one end, its parts are in order and its own, a refusal has words; no two have one id. Prints what came; exit 1 at the
 * first wrong one. */
#include <arpa/inet.h>
#include <errno.h>
#include <jansson.h>
#include <netinet/in.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

#include "base/buf.h"

enum { N_THREADS = 64, MAX_ANSWER = 64 << 20 };

static uint16_t port;
static long n_total;
static unsigned first_seed;
static atomic_long n_begun, n_ok, n_refused, n_left;

static void wrong(const char *fmt, ...) __attribute__((format(printf, 1, 2), noreturn));
static void wrong(const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	(void)fprintf(stderr, "http_load: ");
	(void)vfprintf(stderr, fmt, ap);
	(void)fprintf(stderr, "\n");
	va_end(ap);
	_exit(1);
}

/* ---- The connection ---- */

static int dial(int receive_buffer)
{
	struct sockaddr_in sin = { .sin_family = AF_INET,
		                   .sin_port = htons(port),
		                   .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	struct timeval timeout = { .tv_sec = 300 };
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

	if (fd < 0)
		wrong("socket: %s", strerror(errno));
	if (receive_buffer > 0)
		(void)setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &receive_buffer, sizeof(receive_buffer));
	(void)setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &timeout, sizeof(timeout));
	if (connect(fd, (struct sockaddr *)&sin, sizeof(sin)) < 0)
		wrong("connect: %s", strerror(errno));
	return fd;
}

/* What the server refuses early it need not read. */
static void put(int fd, const char *data, size_t len)
{
	while (len > 0) {
		ssize_t n = send(fd, data, len, MSG_NOSIGNAL);

		if (n < 0)
			return;
		data += n;
		len -= (size_t)n;
	}
}

static void put_request(int fd, const char *method, const char *path, const char *body, size_t len)
{
	char head[512];
	int n = snprintf(head, sizeof(head),
	                 "%s %s HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: %zu\r\n\r\n", method, path,
	                 len);

	put(fd, head, (size_t)n);
	put(fd, body, len);
}

/* Everything until the other side closes; pause_us between reads. */
static void read_all(int fd, unsigned pause_us, struct base_buf *out)
{
	char bytes[16384];
	ssize_t n;

	while ((n = recv(fd, bytes, pause_us ? 512 : sizeof(bytes), 0)) > 0) {
		(void)base_buf_append(out, bytes, (size_t)n);
		if (pause_us)
			(void)usleep(pause_us);
	}
	if (n < 0 && errno != ECONNRESET)
		wrong("no answer: %s", strerror(errno));
}

struct answer {
	int status;
	bool is_whole; /* as long as its head says */
	struct base_buf body;
};

static void unchunk(const char *at, const char *end, struct answer *a)
{
	for (;;) {
		const char *line = memmem(at, (size_t)(end - at), "\r\n", 2);
		size_t n = line ? strtoul(at, NULL, 16) : 0;

		if (!line || n > (size_t)(end - line - 2))
			return;
		if (n == 0) {
			a->is_whole = true;
			return;
		}
		(void)base_buf_append(&a->body, line + 2, n);
		at = line + 2 + n + 2;
	}
}

static void parse(const struct base_buf *raw, struct answer *a)
{
	const char *text = base_buf_text(raw), *end = text + raw->len, *body = memmem(text, raw->len, "\r\n\r\n", 4);

	memset(a, 0, sizeof(*a));
	base_buf_init(&a->body, MAX_ANSWER);
	if (!body || sscanf(text, "HTTP/1.%*d %d", &a->status) != 1)
		return;
	body += 4;
	if (memmem(text, (size_t)(body - text), "chunked", 7)) {
		unchunk(body, end, a);
	} else {
		const char *length = memmem(text, (size_t)(body - text), "Content-Length: ", 16);

		(void)base_buf_append(&a->body, body, (size_t)(end - body));
		a->is_whole = length && strtoul(length + 16, NULL, 10) == a->body.len;
	}
}

static void exchange(int fd, const char *method, const char *path, const char *body, size_t len, unsigned pause_us,
                     struct answer *a)
{
	struct base_buf raw = BASE_BUF_INIT(MAX_ANSWER);

	put_request(fd, method, path, body, len);
	read_all(fd, pause_us, &raw);
	(void)close(fd);
	parse(&raw, a);
	base_buf_done(&raw);
}

/* ---- Ids: no answer is given twice ---- */

static pthread_mutex_t ids_lock = PTHREAD_MUTEX_INITIALIZER;
static char (*ids)[64]; /* protected by ids_lock */
static size_t n_ids, cap_ids;

static void note_id(const char *id)
{
	(void)pthread_mutex_lock(&ids_lock);
	if (n_ids == cap_ids) {
		cap_ids = cap_ids ? cap_ids * 2 : 1024;
		ids = realloc(ids, cap_ids * sizeof(*ids));
		if (!ids)
			wrong("out of memory");
	}
	(void)snprintf(ids[n_ids++], sizeof(*ids), "%s", id);
	(void)pthread_mutex_unlock(&ids_lock);
}

static int compare_ids(const void *a, const void *b)
{
	return strcmp(a, b);
}

static void check_ids(void)
{
	qsort(ids, n_ids, sizeof(*ids), compare_ids);
	for (size_t i = 1; i < n_ids; i++) {
		if (strcmp(ids[i - 1], ids[i]) == 0)
			wrong("two answers have the id %s", ids[i]);
	}
	free(ids);
}

/* ---- What an answer must be ---- */

static void check_refusal(const struct answer *a, const char *what)
{
	json_t *v = json_loadb(base_buf_text(&a->body), a->body.len, JSON_ALLOW_NUL, NULL);
	const json_t *e = json_object_get(v, "error");

	if (json_string_length(json_object_get(e, "message")) == 0)
		wrong("%s: %d without words: %.200s", what, a->status, base_buf_text(&a->body));
	json_decref(v);
	atomic_fetch_add(&n_refused, 1);
}

/* True: 200 and whole. A full queue may refuse. */
static bool check_status(const struct answer *a, const char *what)
{
	if (!a->is_whole)
		wrong("%s: %d, cut off after %zu bytes", what, a->status, a->body.len);
	if (a->status == 200)
		return true;
	if (a->status != 429 && a->status != 503)
		wrong("%s: %d %.300s", what, a->status, base_buf_text(&a->body));
	check_refusal(a, what);
	return false;
}

static void check_json(const struct answer *a, const char *what, const char *list, size_t n)
{
	json_t *v;

	if (!check_status(a, what))
		return;
	v = json_loadb(base_buf_text(&a->body), a->body.len, JSON_ALLOW_NUL, NULL);
	if (json_array_size(list ? json_object_get(v, list) : v) != n)
		wrong("%s: not %zu answers: %.300s", what, n, base_buf_text(&a->body));
	if (json_is_string(json_object_get(v, "id")))
		note_id(json_string_value(json_object_get(v, "id")));
	json_decref(v);
	atomic_fetch_add(&n_ok, 1);
}

struct seen {
	char id[64];
	size_t n_events, n_done;
	int finish[8];
	char last[64];
	char *before; /* cumulative text */
};

/* Each protocol has it in another place. */
static const char *id_of(const json_t *v)
{
	static const char *const holders[] = { "message", "response", "meta_info" };
	const json_t *id = json_object_get(v, "id");

	for (size_t i = 0; i < 3 && !id; i++)
		id = json_object_get(json_object_get(v, holders[i]), "id");
	return json_string_value(id);
}

static void check_event(struct seen *s, const json_t *v, const char *what)
{
	const json_t *choice = json_array_get(json_object_get(v, "choices"), 0), *text = json_object_get(v, "text");
	const json_t *number = json_object_get(v, "sequence_number");
	const char *type = json_string_value(json_object_get(v, "type")), *id = id_of(v);
	size_t k = (size_t)json_integer_value(json_object_get(choice, "index"));

	if (s->n_done > 0)
		wrong("%s: an event after the end", what);
	if (json_object_get(v, "error") && !json_is_null(json_object_get(v, "error")))
		wrong("%s: an error in the stream", what);
	if (number && (size_t)json_integer_value(number) != s->n_events)
		wrong("%s: event %zu has the number %lld", what, s->n_events, (long long)json_integer_value(number));
	if (id && s->id[0] && strcmp(id, s->id) != 0)
		wrong("%s: ids %s and %s in one stream", what, s->id, id);
	if (id)
		(void)snprintf(s->id, sizeof(s->id), "%s", id);
	if (choice) {
		if (k >= 8 || s->finish[k])
			wrong("%s: choice %zu goes on behind its end", what, k);
		s->finish[k] = json_is_string(json_object_get(choice, "finish_reason"));
	}
	if (json_is_string(text)) {
		if (s->before && strncmp(json_string_value(text), s->before, strlen(s->before)) != 0)
			wrong("%s: the text is not cumulative", what);
		free(s->before);
		s->before = strdup(json_string_value(text));
	}
	(void)snprintf(s->last, sizeof(s->last), "%s", type ? type : "");
	s->n_events++;
}

/* last: the type of the last event (of two), or NULL for one that ends with [DONE]. */
static void check_stream(const struct answer *a, const char *what, size_t n_choices, const char *last,
                         const char *or_last)
{
	struct seen s = { .n_events = 0 };
	char *copy, *save = NULL;

	if (!check_status(a, what))
		return;
	copy = strdup(base_buf_text(&a->body));
	for (char *line = strtok_r(copy, "\n", &save); line; line = strtok_r(NULL, "\n", &save)) {
		json_t *v;

		if (line[0] == ':' || strncmp(line, "event: ", 7) == 0)
			continue;
		if (strcmp(line, "data: [DONE]") == 0) {
			s.n_done++;
			continue;
		}
		v = strncmp(line, "data: ", 6) == 0 ? json_loads(line + 6, JSON_ALLOW_NUL, NULL) : NULL;
		if (!v)
			wrong("%s: no JSON: %.200s", what, line);
		check_event(&s, v, what);
		json_decref(v);
	}
	for (size_t i = 0; i < n_choices; i++) {
		if (!s.finish[i])
			wrong("%s: choice %zu has no end", what, i);
	}
	if (last ? strcmp(s.last, last) != 0 && strcmp(s.last, or_last) != 0 : s.n_done != 1)
		wrong("%s: the stream ends with %s, %zu times done", what, s.last, s.n_done);
	if (!s.id[0])
		wrong("%s: a stream without an id", what);
	note_id(s.id);
	free(s.before);
	free(copy);
	atomic_fetch_add(&n_ok, 1);
}

/* ---- Kinds of requests ---- */

static const char *words(unsigned *seed, size_t max, char *out)
{
	static const char *const pool[] = { "uptime ", "nginx ", "重启 ",      "disk? ",
		                            "a ",      "\\n",    "\\\"x\\\" ", "\\u00e9 " };
	size_t len = 0, n = 1 + (size_t)rand_r(seed) % max;

	out[0] = '\0';
	for (size_t i = 0; i < n; i++)
		len += (size_t)snprintf(out + len, 16, "%s", pool[rand_r(seed) % 8]);
	return out;
}

static void one(unsigned *seed)
{
	static const char tools[] = "\"tools\":[{\"type\":\"function\",\"function\":{\"name\":\"f\",\"parameters\":{"
	                            "\"type\":\"object\",\"properties\":{"
	                            "\"a\":{\"enum\":[1,2]}},\"required\":[\"a\"],\"additionalProperties\":false}}}]";
	static const char claim[] =
	        "POST /generate HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: 99999999\r\n\r\n{";
	static const char half[] =
	        "POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nContent-Length: 500\r\n\r\n{\"mess";
	char text[4096], body[8192];
	unsigned kind = (unsigned)rand_r(seed) % 16, max = 1 + (unsigned)rand_r(seed) % 40,
	         n = 1 + (unsigned)rand_r(seed) % 3;
	struct answer a = { 0 };
	char *big;

	(void)words(seed, 60, text);
	switch (kind) {
	case 0:
	case 1: /* one of them reads slowly */
		(void)snprintf(body, sizeof(body),
		               "{\"messages\":[{\"role\":\"user\",\"content\":\"%s\"}],\"max_tokens\":%u,\"n\":%u,"
		               "\"stream\":true%s}",
		               text, max, n, rand_r(seed) % 2 ? ",\"logprobs\":true,\"top_logprobs\":2" : "");
		exchange(dial(kind ? 2048 : 0), "POST", "/v1/chat/completions", body, strlen(body), kind ? 2000 : 0,
		         &a);
		check_stream(&a, "chat stream", n, NULL, NULL);
		break;
	case 2:
		(void)snprintf(body, sizeof(body),
		               "{\"prompt\":[\"%s\",[65,66]],\"max_tokens\":%u,\"n\":%u,\"echo\":%s}", text, max, n,
		               rand_r(seed) % 2 ? "true" : "false");
		exchange(dial(0), "POST", "/v1/completions", body, strlen(body), 0, &a);
		check_json(&a, "completions", "choices", (size_t)n * 2);
		break;
	case 3: { /* leaves in the middle */
		int fd = dial(0);
		char some[256];

		(void)snprintf(body, sizeof(body),
		               "{\"prompt\":\"%s\",\"max_tokens\":1000,\"ignore_eos\":true,\"stream\":true}", text);
		put_request(fd, "POST", "/v1/completions", body, strlen(body));
		if (rand_r(seed) % 2)
			(void)!recv(fd, some, sizeof(some), 0);
		(void)close(fd);
		atomic_fetch_add(&n_left, 1);
		return;
	}
	case 4: { /* bad JSON of many kinds: a good body cut or spoiled */
		size_t len = (size_t)snprintf(body, sizeof(body),
		                              "{\"messages\":[{\"role\":\"user\",\"content\":\"%s\"}],\"n\":1}", text);

		body[(size_t)rand_r(seed) % len] = (char)(1 + rand_r(seed) % 31);
		exchange(dial(0), "POST", "/v1/chat/completions", body, (size_t)rand_r(seed) % len, 0, &a);
		if (a.status != 400)
			wrong("bad JSON: %d", a.status);
		check_refusal(&a, "bad JSON");
		break;
	}
	case 5: /* a prompt beyond any context */
		big = malloc(300000 + 64);
		(void)snprintf(big, 64, "{\"prompt\":\"");
		memset(big + 11, 'x', 300000);
		(void)snprintf(big + 300011, 16, "\"}");
		exchange(dial(0), "POST", "/v1/completions", big, 300013, 0, &a);
		free(big);
		if (a.status != 400)
			wrong("huge prompt: %d", a.status);
		check_refusal(&a, "huge prompt");
		break;
	case 6: { /* a body that is too large by its own word */
		int fd = dial(0);
		struct base_buf raw = BASE_BUF_INIT(MAX_ANSWER);

		put(fd, claim, strlen(claim));
		(void)shutdown(fd, SHUT_WR);
		read_all(fd, 0, &raw);
		(void)close(fd);
		parse(&raw, &a);
		base_buf_done(&raw);
		if (a.status != 413)
			wrong("large body: %d", a.status);
		check_refusal(&a, "large body");
		break;
	}
	case 7:
		(void)snprintf(body, sizeof(body),
		               "{\"text\":\"%s\",\"stream\":true,\"return_logprob\":true,\"sampling_params\":{\"max_"
		               "new_tokens\":%u}}",
		               text, max);
		exchange(dial(0), "POST", "/generate", body, strlen(body), 0, &a);
		check_stream(&a, "generate", 0, NULL, NULL);
		break;
	case 8:
		(void)snprintf(body, sizeof(body), "{\"input\":[\"%s\",\"b\",[67,68]]}", text);
		exchange(dial(0), "POST", "/v1/embeddings", body, strlen(body), 0, &a);
		check_json(&a, "embeddings", "data", 3);
		break;
	case 9:
		(void)snprintf(
		        body, sizeof(body),
		        "{\"messages\":[{\"role\":\"user\",\"content\":\"%s\"}],\"max_tokens\":%u,\"stream\":true}",
		        text, max);
		exchange(dial(0), "POST", "/v1/messages", body, strlen(body), 0, &a);
		check_stream(&a, "messages", 0, "message_stop", "message_stop");
		break;
	case 10:
		(void)snprintf(body, sizeof(body), "{\"input\":\"%s\",\"max_output_tokens\":%u,\"stream\":true}", text,
		               max);
		exchange(dial(0), "POST", "/v1/responses", body, strlen(body), 0, &a);
		check_stream(&a, "responses", 0, "response.completed", "response.incomplete");
		break;
	case 11: { /* half a request */
		int fd = dial(0);

		put(fd, half, 1 + (size_t)rand_r(seed) % (strlen(half) - 1));
		(void)close(fd);
		atomic_fetch_add(&n_left, 1);
		return;
	}
	case 12: { /* noise */
		int fd = dial(0);
		struct base_buf raw = BASE_BUF_INIT(MAX_ANSWER);

		for (size_t i = 0; i < 200; i++)
			body[i] = (char)rand_r(seed);
		put(fd, body, 200);
		put(fd, "\r\n\r\n", 4);
		(void)shutdown(fd, SHUT_WR);
		read_all(fd, 0, &raw);
		(void)close(fd);
		base_buf_done(&raw);
		atomic_fetch_add(&n_left, 1);
		return;
	}
	case 13:
		exchange(dial(0), rand_r(seed) % 2 ? "GET" : "PATCH", rand_r(seed) % 2 ? "/nowhere" : "/v1/responses",
		         "", 0, 0, &a);
		if (a.status != 404 && a.status != 405)
			wrong("no route: %d", a.status);
		check_refusal(&a, "no route");
		break;
	case 14:
		(void)snprintf(body, sizeof(body),
		               "{\"messages\":[{\"role\":\"user\",\"content\":\"%s\"}],\"max_tokens\":%u,\"tool_"
		               "choice\":\"required\",\"stream\":true,%s}",
		               text, max, tools);
		exchange(dial(0), "POST", "/v1/chat/completions", body, strlen(body), 0, &a);
		check_stream(&a, "forced call", 1, NULL, NULL);
		break;
	default:
		(void)snprintf(body, sizeof(body),
		               "{\"input_ids\":[[65,66],[67]],\"sampling_params\":{\"max_new_tokens\":%u}}", max);
		exchange(dial(0), "POST", "/generate", body, strlen(body), 0, &a);
		check_json(&a, "generate list", NULL, 2);
		break;
	}
	base_buf_done(&a.body);
}

static void *run(void *arg)
{
	unsigned seed = first_seed * 7919u + (unsigned)(uintptr_t)arg;

	while (atomic_fetch_add(&n_begun, 1) < n_total)
		one(&seed);
	return NULL;
}

int main(int argc, char **argv)
{
	pthread_t threads[N_THREADS];

	if (argc < 3)
		wrong("usage: http_load PORT COUNT [SEED]");
	port = (uint16_t)strtoul(argv[1], NULL, 10);
	n_total = strtol(argv[2], NULL, 10);
	first_seed = argc > 3 ? (unsigned)strtoul(argv[3], NULL, 10) : 1;
	for (size_t i = 0; i < N_THREADS; i++) {
		if (pthread_create(&threads[i], NULL, run, (void *)(uintptr_t)(i + 1)) != 0)
			wrong("no thread");
	}
	for (size_t i = 0; i < N_THREADS; i++)
		(void)pthread_join(threads[i], NULL);
	check_ids();
	if (atomic_load(&n_ok) + atomic_load(&n_refused) + atomic_load(&n_left) != n_total)
		wrong("of %ld requests some have no end", n_total);
	(void)printf("%ld requests: %ld answered, %ld refused with a reason, %ld left by the client\n", n_total,
	             atomic_load(&n_ok), atomic_load(&n_refused), atomic_load(&n_left));
	return 0;
}
