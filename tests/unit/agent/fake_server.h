/* A scripted HTTP server in this process: one connection after the other, each with the next answer. */
#ifndef FAKE_SERVER_H
#define FAKE_SERVER_H

#include <arpa/inet.h>
#include <pthread.h>
#include <semaphore.h>
#include <stdatomic.h>
#include <sys/socket.h>
#include <unistd.h>

#include "test.h"

enum { FAKE_MAX = 16, FAKE_REQUEST = 64 << 10 };

/* In an answer, a byte \1 is a pause of 20 ms, \2 waits until the client has gone and counts it, \3 waits for
 * fake_go(). */
struct fake_server {
	int listener;
	atomic_int connection; /* or -1 */
	unsigned port;
	char url[64];
	pthread_t thread;
	const char *const *answers; /* NULL ends */
	char requests[FAKE_MAX][FAKE_REQUEST];
	atomic_int n_requests, n_gone;
	sem_t go;
};

#define FAKE_JSON(status, body) \
	"HTTP/1.1 " status "\r\nContent-Type: application/json\r\nConnection: close\r\n\r\n" body
#define FAKE_SSE(body) "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close\r\n\r\n" body
#define FAKE_DELTA(text) "data: {\"choices\":[{\"delta\":{\"content\":\"" text "\"}}]}\n\n"
#define FAKE_DONE "data: [DONE]\n\n"
#define FAKE_MODELS FAKE_JSON("200 OK", "{\"data\":[{\"id\":\"big\",\"max_model_len\":2048}]}")

static inline void fake_read(int fd, char *buf, size_t size)
{
	size_t n = 0, want;
	const char *body, *length;
	ssize_t got;

	while (n + 1 < size && (got = read(fd, buf + n, size - 1 - n)) > 0) {
		n += (size_t)got;
		buf[n] = '\0';
		body = strstr(buf, "\r\n\r\n");
		if (!body)
			continue;
		length = strcasestr(buf, "content-length:");
		want = length ? strtoul(length + 15, NULL, 10) : 0;
		if (n >= (size_t)(body + 4 - buf) + want)
			break;
	}
}

static inline void fake_write(struct fake_server *s, int fd, const char *answer)
{
	char drop[64];

	while (*answer) {
		size_t n = strcspn(answer, "\1\2\3");

		if (n && send(fd, answer, n, MSG_NOSIGNAL) < 0)
			return;
		answer += n;
		if (*answer == '\1') {
			(void)usleep(20000);
		} else if (*answer == '\2') {
			while (read(fd, drop, sizeof(drop)) > 0)
				;
			atomic_fetch_add(&s->n_gone, 1);
		} else if (*answer == '\3') {
			(void)sem_wait(&s->go);
		}
		answer += *answer != '\0';
	}
}

static inline void *fake_main(void *arg)
{
	struct fake_server *s = arg;

	for (int i = 0; s->answers[i] && i < FAKE_MAX; i++) {
		int fd = accept4(s->listener, NULL, NULL, SOCK_CLOEXEC);

		if (fd < 0)
			break;
		atomic_store(&s->connection, fd);
		fake_read(fd, s->requests[i], sizeof(s->requests[i]));
		atomic_fetch_add(&s->n_requests, 1);
		fake_write(s, fd, s->answers[i]);
		atomic_store(&s->connection, -1);
		(void)close(fd);
	}
	return NULL;
}

/* At an address of this machine, which need not be loopback. */
static inline void fake_start_at(struct fake_server *s, const char *const *answers, struct in_addr at)
{
	struct sockaddr_in in = { .sin_family = AF_INET, .sin_addr = at };
	socklen_t len = sizeof(in);
	char host[INET_ADDRSTRLEN];

	memset(s, 0, sizeof(*s));
	s->answers = answers;
	atomic_store(&s->connection, -1);
	assert_int_equal(sem_init(&s->go, 0, 0), 0);
	s->listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	assert_true(s->listener >= 0);
	assert_int_equal(bind(s->listener, (struct sockaddr *)&in, sizeof(in)), 0);
	assert_int_equal(getsockname(s->listener, (struct sockaddr *)&in, &len), 0);
	assert_int_equal(listen(s->listener, 8), 0);
	s->port = ntohs(in.sin_port);
	assert_non_null(inet_ntop(AF_INET, &at, host, sizeof(host)));
	(void)snprintf(s->url, sizeof(s->url), "http://%s:%u", host, s->port);
	assert_int_equal(pthread_create(&s->thread, NULL, fake_main, s), 0);
}

static inline void fake_start(struct fake_server *s, const char *const *answers)
{
	fake_start_at(s, answers, (struct in_addr){ htonl(INADDR_LOOPBACK) });
}

/* The answer that waits at a \3, or will, goes on. */
static inline void fake_go(struct fake_server *s)
{
	(void)sem_post(&s->go);
}

/* Also in the middle of an answer: a test that failed leaves one behind. */
static inline void fake_stop(struct fake_server *s)
{
	int fd = atomic_load(&s->connection);

	(void)shutdown(s->listener, SHUT_RDWR);
	if (fd >= 0)
		(void)shutdown(fd, SHUT_RDWR);
	for (int i = 0; i < FAKE_MAX; i++)
		fake_go(s);
	(void)pthread_join(s->thread, NULL);
	(void)close(s->listener);
	(void)sem_destroy(&s->go);
}

#endif
