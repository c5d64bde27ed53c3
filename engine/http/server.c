/* Sockets, open and close. We open the listening sockets ourselves (errors with words, port 0, modes); each is served
 * by as many loops as there are threads. All share the handlers and the engine. */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/log.h"
#include "engine_chat.h"
#include "http_internal.h"
#include "loop.h"
#include "store.h"

enum { MAX_STORED = 1024, MAX_STORED_BYTES = 64 << 20 }; /* responses that can be continued */

/* ---- Listening ---- */

static void note_port(struct eng_http *http, int fd)
{
	struct sockaddr_storage ss;
	socklen_t len = sizeof(ss);

	if (getsockname(fd, (struct sockaddr *)&ss, &len) < 0)
		return;
	if (ss.ss_family == AF_INET)
		http->port = ntohs(((struct sockaddr_in *)&ss)->sin_port);
	else if (ss.ss_family == AF_INET6)
		http->port = ntohs(((struct sockaddr_in6 *)&ss)->sin6_port);
}

static int listen_tcp(struct eng_http *http, int *ret_fd, struct err *err)
{
	struct addrinfo hints = { .ai_flags = AI_PASSIVE, .ai_socktype = SOCK_STREAM }, *list = NULL;
	const char *host = http->config.host;
	char port[16];
	int r, one = 1, fd = -1, e = EADDRNOTAVAIL;

	(void)snprintf(port, sizeof(port), "%u", http->config.port);
	r = getaddrinfo(host, port, &hints, &list);
	if (r != 0)
		return err_set(err, -EINVAL, "host %s: %s", host, gai_strerror(r));
	for (struct addrinfo *ai = list; ai && fd < 0; ai = ai->ai_next) {
		fd = socket(ai->ai_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
		if (fd < 0) {
			e = errno;
			continue;
		}
		(void)setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
		if (bind(fd, ai->ai_addr, ai->ai_addrlen) < 0 || listen(fd, 1024) < 0) {
			e = errno;
			(void)close(fd);
			fd = -1;
		}
	}
	freeaddrinfo(list);
	if (fd < 0)
		return err_set(err, -e, "listening on %s port %s: %s", host, port, strerror(e));
	*ret_fd = fd;
	return 0;
}

/* A socket file that nobody answers on is left over from a crash; one that is answered is in use. */
static int remove_stale(const char *path, const struct sockaddr_un *sun, struct err *err)
{
	CLEANUP(close_fdp) int fd = -1;
	struct stat st;

	if (lstat(path, &st) < 0)
		return 0;
	if (!S_ISSOCK(st.st_mode))
		return err_set(err, -EEXIST, "%s exists and is not a socket", path);
	fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (fd >= 0 && connect(fd, (const struct sockaddr *)sun, sizeof(*sun)) == 0)
		return err_set(err, -EADDRINUSE, "%s: another server answers there", path);
	(void)unlink(path);
	return 0;
}

static int listen_unix(const char *path, int *ret_fd, struct err *err)
{
	CLEANUP(close_fdp) int fd = -1;
	struct sockaddr_un sun = { .sun_family = AF_UNIX };
	int r;

	if (strlen(path) >= sizeof(sun.sun_path))
		return err_set(err, -ENAMETOOLONG, "socket %s: the path is longer than %zu bytes", path,
		               sizeof(sun.sun_path) - 1);
	memcpy(sun.sun_path, path, strlen(path));
	r = remove_stale(path, &sun, err);
	if (r < 0)
		return r;
	fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	/* The mode is set on the descriptor before bind() makes the file: never open to others, not even for
	 * a moment. */
	if (fd < 0 || fchmod(fd, 0600) < 0 || bind(fd, (struct sockaddr *)&sun, sizeof(sun)) < 0 ||
	    chmod(path, 0600) < 0 || listen(fd, 1024) < 0)
		return err_set(err, -errno, "socket %s: %s", path, strerror(errno));
	*ret_fd = fd;
	fd = -1;
	return 0;
}

/* ---- Serving ---- */

/* Owns the socket from here on, also on failure. The connections are shared out to the loops. */
static int serve(struct eng_http *http, int fd, struct err *err)
{
	unsigned n = http->config.n_threads, most = http->config.max_connections;
	int r = 0;

	http->listen_fds[http->n_listen_fds++] = fd;
	for (unsigned i = 0; i < n && r == 0; i++) {
		unsigned share = most / n + (i < most % n);

		r = share ? http_loop_start(http, fd, share, &http->loops[http->n_loops], err) : 0;
		http->n_loops += share && r == 0;
	}
	return r;
}

/* All of them, or none is left open. */
static int serve_inherited(struct eng_http *http, struct err *err)
{
	const struct eng_http_config *c = &http->config;
	size_t i = 0;
	int r = c->n_listen_fds <= HTTP_MAX_SOCKETS
	                ? 0
	                : err_set(err, -E2BIG, "%zu sockets, at most %d are served", c->n_listen_fds, HTTP_MAX_SOCKETS);

	for (; i < c->n_listen_fds && r == 0; i++) {
		/* epoll may wake two loops for one connection. */
		(void)fcntl(c->listen_fds[i], F_SETFL, fcntl(c->listen_fds[i], F_GETFL) | O_NONBLOCK);
		note_port(http, c->listen_fds[i]);
		r = serve(http, c->listen_fds[i], err);
	}
	for (; i < c->n_listen_fds; i++)
		(void)close(c->listen_fds[i]);
	return r;
}

static int open_all(struct eng_http *http, struct err *err)
{
	int fd = -1, r;

	r = watch_start(http, err);
	if (r < 0 || http->config.n_listen_fds)
		return r < 0 ? r : serve_inherited(http, err);
	if (http->config.host) {
		r = listen_tcp(http, &fd, err);
		if (r < 0)
			return r;
		note_port(http, fd);
		r = serve(http, fd, err);
		if (r < 0)
			return r;
	}
	if (!http->config.socket_path)
		return 0;
	r = listen_unix(http->config.socket_path, &fd, err);
	if (r < 0)
		return r;
	http->socket_path = strdup(http->config.socket_path);
	return serve(http, fd, err);
}

static void set_defaults(struct eng_http_config *c)
{
	if (c->n_threads < 2)
		c->n_threads = 2;
	if (c->max_connections == 0)
		c->max_connections = 512;
	if (c->max_body_bytes == 0)
		c->max_body_bytes = 16 << 20;
	if (c->stream_buffer_bytes == 0)
		c->stream_buffer_bytes = 1 << 20;
	if (c->keepalive_ms == 0)
		c->keepalive_ms = 5000;
	if (c->timeout_s == 0)
		c->timeout_s = 60;
}

static int choose_format(const char *wanted, const char *own, const char *(*name)(size_t), const char *what,
                         const char **ret, struct err *err)
{
	if (!wanted || strcmp(wanted, "auto") == 0) {
		*ret = own;
		return 0;
	}
	if (strcmp(wanted, "none") == 0) {
		*ret = "none";
		return 0;
	}
	for (size_t i = 0; name(i); i++) {
		if (strcmp(name(i), wanted) == 0) {
			*ret = name(i);
			return 0;
		}
	}
	return err_set(err, -EINVAL, "unknown format of %s \"%s\"", what, wanted);
}

static int set_formats(struct eng_http *http, struct err *err)
{
	const struct eng_info *info = eng_engine_info(http->engine);
	int r;

	r = choose_format(http->config.tool_format, info->tool_format, eng_chat_tool_format, "tool calls",
	                  &http->tool_format, err);
	if (r < 0)
		return r;
	return choose_format(http->config.reasoning_format, info->reasoning_format, eng_chat_reasoning_format,
	                     "reasoning", &http->reasoning_format, err);
}

int eng_http_open(struct eng_engine *engine, const struct eng_http_config *config, struct eng_http **ret_http,
                  struct err *err)
{
	struct eng_http *http = calloc(1, sizeof(*http));
	int r;

	if (!http)
		return err_set(err, -ENOMEM, "out of memory");
	http->engine = engine;
	http->config = *config;
	http->epoll_fd = http->wake_fd = -1;
	http->idle_since_ms = http_now_ms();
	http->started = (int64_t)time(NULL);
	set_defaults(&http->config);
	http->loops =
	        (struct http_loop **)calloc((size_t)HTTP_MAX_SOCKETS * http->config.n_threads, sizeof(*http->loops));
	http->store = http_store_new(MAX_STORED, MAX_STORED_BYTES);
	(void)pthread_mutex_init(&http->lock, NULL);
	r = http->store && http->loops ? set_formats(http, err) : err_set(err, -ENOMEM, "out of memory");
	if (r == 0 && config->api_key_file)
		r = http_keys_read(config->api_key_file, &http->keys, err);
	if (r == 0)
		r = open_all(http, err);
	if (r < 0) {
		eng_http_close(http, 0);
		return r;
	}
	*ret_http = http;
	return 0;
}

uint16_t eng_http_port(const struct eng_http *http)
{
	return http->port;
}

uint64_t eng_http_idle_ms(struct eng_http *http)
{
	uint64_t ms = 0;

	(void)pthread_mutex_lock(&http->lock);
	if (!http->active)
		ms = http_now_ms() - http->idle_since_ms;
	(void)pthread_mutex_unlock(&http->lock);
	return ms;
}

void eng_http_quiesce(struct eng_http *http)
{
	if (atomic_exchange(&http->is_closing, true))
		return;
	if (http->socket_path)
		(void)unlink(http->socket_path);
	for (size_t i = 0; i < http->n_loops; i++)
		http_loop_quiesce(http->loops[i]);
	/* Who connects from now on is refused, but for sockets that are not ours: whoever listens next takes those. */
	for (size_t i = 0; i < http->n_listen_fds && http->config.n_listen_fds == 0; i++)
		(void)shutdown(http->listen_fds[i], SHUT_RDWR);
}

/* Ends everything. libmicrohttpd must not be stopped while a connection is suspended, so each gets an
 * answer here, whatever the engine does. */
static void cancel_all(struct eng_http *http)
{
	uint64_t next = 0;
	struct exchange *x;

	while ((x = exchange_next_active(http, &next))) {
		exchange_lock(x);
		exchange_cancel(x);
		if (!x->is_ready)
			exchange_fail(x, 503, "unavailable_error", NULL, "the server is shutting down");
		else if (x->is_stream)
			exchange_stream_end(x);
		exchange_unlock(x);
		exchange_unref(x);
	}
}

static bool has_active(struct eng_http *http)
{
	bool r;

	(void)pthread_mutex_lock(&http->lock);
	r = http->active != NULL;
	(void)pthread_mutex_unlock(&http->lock);
	return r;
}

void eng_http_close(struct eng_http *http, uint32_t timeout_ms)
{
	uint64_t until = http_now_ms() + timeout_ms;

	eng_http_quiesce(http);
	/* Answers that are ready still go out. */
	while (has_active(http) && http_now_ms() < until)
		(void)usleep(5000);
	cancel_all(http);
	while (atomic_load(&http->n_workers) > 0) /* they end when no request runs */
		(void)usleep(5000);
	for (until = http_now_ms() + 500; atomic_load(&http->n_waiting) > 0 && http_now_ms() < until;)
		(void)usleep(5000);
	for (size_t i = 0; i < http->n_loops; i++)
		http_loop_stop(http->loops[i]);
	for (size_t i = 0; i < http->n_listen_fds; i++)
		(void)close(http->listen_fds[i]);
	watch_stop(http);
	/* The engine says the last word to requests that were cancelled, and says it here. */
	while (atomic_load(&http->n_exchanges) > 0)
		(void)usleep(1000);
	(void)pthread_mutex_destroy(&http->lock);
	http_keys_done(&http->keys);
	http_store_free(http->store);
	free(http->socket_path);
	free((void *)http->loops);
	free(http);
}
