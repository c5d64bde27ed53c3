/* A registry of one blob that does as a test says: threads for connections, kept alive, ranges, delays, broken answers.
 * The test's hook sees each request and changes the answer before it is sent. */
#ifndef FAKE_REGISTRY_H
#define FAKE_REGISTRY_H

#include <arpa/inet.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <pthread.h>
#include <stdbool.h>
#include <strings.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "base/buf.h"
#include "base/sha256.h"
#include "test.h"

enum { FAKE_MAX_REQUESTS = 4096, FAKE_MAX_CONNECTIONS = 256 };

struct fake_request {
	char path[512], authorization[128];
	bool has_range;
	size_t first, last; /* all of the blob without a range */
	unsigned connection;
};

struct fake_answer {
	int status;
	char headers[1024]; /* "Name: value\r\n" each */
	const void *body;
	size_t size;
	size_t cut;     /* the connection is closed after so many bytes of the body; SIZE_MAX: never */
	bool waits;     /* for fake_open_gate() before the body, which no header precedes */
	size_t gate_at; /* not 0: waits there in the body for fake_open_gate() */
	bool stalls;    /* after `cut` bytes nothing comes any more, until the end */
	char own[256];
};

struct fake {
	const uint8_t *blob;
	size_t size;
	char digest[72];
	void (*hook)(struct fake *s, const struct fake_request *q, struct fake_answer *a, unsigned n);
	void *arg;
	char base[64], ref[64]; /* "http://127.0.0.1:PORT", "127.0.0.1:PORT/team/app" */
	unsigned port;
	int fd;
	pthread_t thread;

	pthread_mutex_t lock;
	pthread_cond_t cond;
	struct fake_request log[FAKE_MAX_REQUESTS]; /* protected by lock, with all below */
	unsigned n_requests, n_now, n_most;         /* n_now: being answered */
	bool gate_is_open, is_over;
	pthread_t threads[FAKE_MAX_CONNECTIONS];
	int fds[FAKE_MAX_CONNECTIONS];
	unsigned n_connections;
};

struct fake_connection {
	struct fake *s;
	int fd;
	unsigned number;
};

static bool fake_send(int fd, const void *data, size_t size)
{
	const char *p = data;

	while (size) {
		ssize_t n = send(fd, p, size, MSG_NOSIGNAL);

		if (n <= 0)
			return false;
		p += n;
		size -= (size_t)n;
	}
	return true;
}

static void fake_parse(const struct fake *s, const char *text, struct fake_request *q)
{
	const char *range = strcasestr(text, "\r\nRange: bytes="), *auth = strcasestr(text, "\r\nAuthorization: ");

	(void)sscanf(text, "%*s %511s", q->path);
	q->first = 0;
	q->last = s->size - 1;
	if (range) {
		char *end;

		q->has_range = true;
		q->first = strtoul(range + 15, &end, 10);
		if (*end == '-' && end[1] >= '0' && end[1] <= '9')
			q->last = strtoul(end + 1, NULL, 10);
	}
	if (auth)
		(void)sscanf(auth + 17, "%127[^\r]", q->authorization);
}

static void fake_default(struct fake *s, const struct fake_request *q, struct fake_answer *a)
{
	*a = (struct fake_answer){ .status = 404, .cut = SIZE_MAX };
	if (strcmp(q->path, "/v2/") == 0)
		a->status = 200;
	if (!strstr(q->path, s->digest))
		return;
	a->status = q->has_range ? 206 : 200;
	if (q->first >= s->size || q->last >= s->size || q->first > q->last) {
		a->status = 416;
		return;
	}
	a->body = s->blob + q->first;
	a->size = q->last - q->first + 1;
	if (q->has_range)
		(void)snprintf(a->headers, sizeof(a->headers), "Content-Range: bytes %zu-%zu/%zu\r\n", q->first,
		               q->last, s->size);
}

static void fake_wait_gate(struct fake *s)
{
	(void)pthread_mutex_lock(&s->lock);
	while (!s->gate_is_open && !s->is_over)
		(void)pthread_cond_wait(&s->cond, &s->lock);
	(void)pthread_mutex_unlock(&s->lock);
}

static bool fake_answer_to(struct fake *s, int fd, const char *text, unsigned connection)
{
	struct fake_request q = { .connection = connection };
	struct fake_answer a;
	const char *body;
	char head[1400];
	unsigned n;
	bool ok;

	fake_parse(s, text, &q);
	(void)pthread_mutex_lock(&s->lock);
	n = s->n_requests;
	if (n < FAKE_MAX_REQUESTS)
		s->log[s->n_requests++] = q;
	if (++s->n_now > s->n_most)
		s->n_most = s->n_now;
	(void)pthread_cond_broadcast(&s->cond);
	(void)pthread_mutex_unlock(&s->lock);
	fake_default(s, &q, &a);
	if (s->hook)
		s->hook(s, &q, &a, n);
	if (a.waits)
		fake_wait_gate(s);
	(void)snprintf(head, sizeof(head), "HTTP/1.1 %d X\r\n%sContent-Length: %zu\r\n\r\n", a.status, a.headers,
	               a.size);
	/* Who counts is done before the client can see that. */
	(void)pthread_mutex_lock(&s->lock);
	s->n_now--;
	(void)pthread_mutex_unlock(&s->lock);
	body = a.body ? a.body : "";
	ok = fake_send(fd, head, strlen(head)) && fake_send(fd, body, a.gate_at);
	if (a.gate_at)
		fake_wait_gate(s);
	ok = ok && fake_send(fd, body + a.gate_at, (a.cut < a.size ? a.cut : a.size) - a.gate_at);
	if (a.stalls) {
		char byte;

		(void)recv(fd, &byte, 1, 0); /* until the client or the test has had enough */
	}
	return ok && a.cut >= a.size && !a.stalls;
}

static void *fake_serve(void *arg)
{
	struct fake_connection c = *(struct fake_connection *)arg;
	struct base_buf text = BASE_BUF_INIT(1 << 16);
	char buf[4096], *end;
	ssize_t n;
	bool goes_on = true;

	free(arg);
	while (goes_on && (n = recv(c.fd, buf, sizeof(buf), 0)) > 0) {
		(void)base_buf_append(&text, buf, (size_t)n);
		if ((end = strstr(base_buf_text(&text), "\r\n\r\n"))) {
			goes_on = fake_answer_to(c.s, c.fd, text.data, c.number);
			base_buf_reset(&text);
		}
	}
	base_buf_done(&text);
	(void)shutdown(c.fd, SHUT_RDWR);
	return NULL;
}

static void *fake_accept(void *arg)
{
	struct fake *s = arg;
	int fd, yes = 1;

	while ((fd = accept(s->fd, NULL, NULL)) >= 0) {
		struct fake_connection *c = malloc(sizeof(*c));

		(void)setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &yes, sizeof(yes));

		(void)pthread_mutex_lock(&s->lock);
		assert_true(s->n_connections < FAKE_MAX_CONNECTIONS);
		*c = (struct fake_connection){ .s = s, .fd = fd, .number = s->n_connections };
		s->fds[s->n_connections] = fd;
		assert_int_equal(pthread_create(&s->threads[s->n_connections++], NULL, fake_serve, c), 0);
		(void)pthread_mutex_unlock(&s->lock);
	}
	return NULL;
}

static inline void fake_start(struct fake *s, const uint8_t *blob, size_t size)
{
	struct sockaddr_in a = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	socklen_t len = sizeof(a);
	uint8_t sum[BASE_SHA256_SIZE];

	memset(s, 0, sizeof(*s));
	s->blob = blob;
	s->size = size;
	assert_int_equal(base_sha256_bytes(blob, size, sum), 0);
	memcpy(s->digest, "sha256:", 7);
	base_sha256_hex(sum, s->digest + 7);
	(void)pthread_mutex_init(&s->lock, NULL);
	(void)pthread_cond_init(&s->cond, NULL);
	s->fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	assert_int_equal(bind(s->fd, (struct sockaddr *)&a, sizeof(a)), 0);
	assert_int_equal(listen(s->fd, 128), 0);
	assert_int_equal(getsockname(s->fd, (struct sockaddr *)&a, &len), 0);
	s->port = ntohs(a.sin_port);
	(void)snprintf(s->base, sizeof(s->base), "http://127.0.0.1:%u", s->port);
	(void)snprintf(s->ref, sizeof(s->ref), "127.0.0.1:%u/team/app", s->port);
	assert_int_equal(pthread_create(&s->thread, NULL, fake_accept, s), 0);
}

static inline void fake_open_gate(struct fake *s)
{
	(void)pthread_mutex_lock(&s->lock);
	s->gate_is_open = true;
	(void)pthread_cond_broadcast(&s->cond);
	(void)pthread_mutex_unlock(&s->lock);
}

static inline void fake_stop(struct fake *s)
{
	(void)pthread_mutex_lock(&s->lock);
	s->is_over = true;
	(void)pthread_cond_broadcast(&s->cond);
	(void)pthread_mutex_unlock(&s->lock);
	(void)shutdown(s->fd, SHUT_RDWR);
	assert_int_equal(pthread_join(s->thread, NULL), 0);
	for (unsigned i = 0; i < s->n_connections; i++) {
		(void)shutdown(s->fds[i], SHUT_RDWR);
		assert_int_equal(pthread_join(s->threads[i], NULL), 0);
		(void)close(s->fds[i]);
	}
	(void)close(s->fd);
	(void)pthread_mutex_destroy(&s->lock);
	(void)pthread_cond_destroy(&s->cond);
}

/* Until so many requests with `text` in their path have come. */
static inline void fake_wait_for(struct fake *s, const char *text, unsigned n)
{
	for (;;) {
		unsigned have = 0;

		(void)pthread_mutex_lock(&s->lock);
		for (unsigned i = 0; i < s->n_requests; i++)
			have += strstr(s->log[i].path, text) != NULL;
		if (have < n)
			(void)pthread_cond_wait(&s->cond, &s->lock);
		(void)pthread_mutex_unlock(&s->lock);
		if (have >= n)
			return;
	}
}

/* Requests whose path has `text`. */
static inline unsigned fake_count(struct fake *s, const char *text)
{
	unsigned n = 0;

	(void)pthread_mutex_lock(&s->lock);
	for (unsigned i = 0; i < s->n_requests; i++)
		n += strstr(s->log[i].path, text) != NULL;
	(void)pthread_mutex_unlock(&s->lock);
	return n;
}

/* The nth of them. */
static inline struct fake_request fake_nth(struct fake *s, const char *text, unsigned nth)
{
	struct fake_request q = { .path = "" };

	(void)pthread_mutex_lock(&s->lock);
	for (unsigned i = 0; i < s->n_requests; i++) {
		if (strstr(s->log[i].path, text) && nth-- == 0)
			q = s->log[i];
	}
	(void)pthread_mutex_unlock(&s->lock);
	return q;
}

#endif
