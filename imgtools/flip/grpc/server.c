/* The server's loop: one thread that accepts, reads, writes and watches times, all by epoll.
 *
 * A connection's bytes go through its session (session.c); what its socket does not take stays in a small buffer, and
 * nothing more is asked of the session until it is gone. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>

#include "base/cleanup.h"
#include "base/log.h"
#include "server_internal.h"

enum {
	MAX_CONNECTIONS = 64,
	READ_SIZE = 64 << 10,
	WRITE_SIZE = 64 << 10,
	MAX_WRITES = 16, /* of one connection in a round */
	DRAINS = 16,     /* at the end of one */
	STOP_MS = 500,   /* for the last words to those who do not read */
	ACCEPT_MS = 200, /* after accept() failed for want of something */
};

struct connection {
	struct connection *prev, *next;
	struct flip_grpc_session *session;
	int fd;
	bool waits_for_write;
	size_t out_len, out_pos;
	uint8_t out[WRITE_SIZE];
};

struct flip_grpc_loop {
	struct flip_grpc_server *server;
	int listen_fd, epoll_fd;
	pthread_t thread;
	bool has_thread, is_accepting;
	uint64_t accept_at_ns; /* when not accepting */
	struct connection *connections;
	unsigned n_connections;
	char *path;
	dev_t dev; /* of the socket's name, so that only ours is removed */
	ino_t ino;
	uint8_t in[READ_SIZE];
};

/* ---- Connections ---- */

static void disconnect(struct flip_grpc_loop *l, struct connection *c)
{
	if (c->prev)
		c->prev->next = c->next;
	else
		l->connections = c->next;
	if (c->next)
		c->next->prev = c->prev;
	l->n_connections--;
	flip_grpc_session_free(c->session);
	/* What came and nobody reads would make the other side's socket forget our last words. */
	(void)shutdown(c->fd, SHUT_WR);
	for (int i = 0; i < DRAINS && recv(c->fd, l->in, sizeof(l->in), 0) > 0; i++)
		continue;
	(void)close(c->fd);
	free(c);
}

static void watch(struct flip_grpc_loop *l, struct connection *c, bool for_write)
{
	struct epoll_event ev = { .events = EPOLLIN | (for_write ? (uint32_t)EPOLLOUT : 0), .data.ptr = c };

	if (c->waits_for_write == for_write)
		return;
	c->waits_for_write = for_write;
	(void)epoll_ctl(l->epoll_fd, EPOLL_CTL_MOD, c->fd, &ev);
}

/* Fills the buffer with whole pieces; a piece that is larger than the room waits. nghttp2's pieces are frames of at
 * most 16 KiB. 1: something is there, 0: nothing, negative: the connection is lost. */
static int fill(struct connection *c)
{
	const uint8_t *data;
	size_t size;

	if (c->out_pos < c->out_len)
		return 1;
	c->out_pos = c->out_len = 0;
	while (c->out_len <= sizeof(c->out) / 2) {
		if (flip_grpc_session_take(c->session, &data, &size) < 0)
			return -EBADMSG;
		if (size == 0)
			break;
		if (size > sizeof(c->out) - c->out_len)
			return -EMSGSIZE;
		memcpy(c->out + c->out_len, data, size);
		c->out_len += size;
	}
	return c->out_len > 0;
}

/* False: the connection is over. */
static bool flush_one(struct flip_grpc_loop *l, struct connection *c)
{
	unsigned turns = 0;
	int r;

	while ((r = fill(c)) > 0) {
		ssize_t n;

		if (++turns > MAX_WRITES) { /* the others want their turn */
			watch(l, c, true);
			return true;
		}
		n = send(c->fd, c->out + c->out_pos, c->out_len - c->out_pos, MSG_NOSIGNAL);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0 && errno == EAGAIN) {
			watch(l, c, true);
			return true;
		}
		if (n < 0)
			return false;
		c->out_pos += (size_t)n;
	}
	watch(l, c, false);
	return r == 0 && !flip_grpc_session_is_over(c->session);
}

/* All of them, for any may have got something to say. Returns the time that the next call's end is due. */
static uint64_t flush_all(struct flip_grpc_loop *l)
{
	uint64_t now = flip_grpc_now_ns(), first = UINT64_MAX, t;
	struct connection *next;

	for (struct connection *c = l->connections; c; c = next) {
		next = c->next;
		t = flip_grpc_session_expire(c->session, now);
		first = t < first ? t : first;
		if (!flush_one(l, c))
			disconnect(l, c);
	}
	return first;
}

/* False: the connection is over. */
static bool read_one(struct flip_grpc_loop *l, struct connection *c)
{
	ssize_t n = recv(c->fd, l->in, sizeof(l->in), 0);

	if (n < 0)
		return errno == EAGAIN || errno == EINTR;
	if (n == 0)
		return false; /* whoever closes has no use for answers */
	if (flip_grpc_session_feed(c->session, l->in, (size_t)n) == 0)
		return true;
	(void)flush_one(l, c); /* why it is turned away, if that can be said */
	return false;
}

static void set_accepting(struct flip_grpc_loop *l, bool is_on)
{
	struct epoll_event ev = { .events = is_on ? EPOLLIN : 0, .data.ptr = &l->listen_fd };

	l->is_accepting = is_on;
	l->accept_at_ns = flip_grpc_now_ns() + ACCEPT_MS * 1000000ull;
	(void)epoll_ctl(l->epoll_fd, EPOLL_CTL_MOD, l->listen_fd, &ev);
}

static int connection_new(struct flip_grpc_loop *l, int fd)
{
	struct connection *c = calloc(1, sizeof(*c));
	struct epoll_event ev = { .events = EPOLLIN, .data.ptr = c };
	int r;

	if (!c)
		return -ENOMEM;
	r = flip_grpc_session_new(l->server, &c->session, NULL);
	if (r == 0 && epoll_ctl(l->epoll_fd, EPOLL_CTL_ADD, fd, &ev) < 0)
		r = -errno;
	if (r < 0) {
		flip_grpc_session_free(c->session);
		free(c);
		return r;
	}
	c->fd = fd;
	c->next = l->connections;
	if (c->next)
		c->next->prev = c;
	l->connections = c;
	l->n_connections++;
	return 0;
}

static void accept_one(struct flip_grpc_loop *l)
{
	int fd = accept4(l->listen_fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);

	if (fd < 0) {
		if (errno != EAGAIN && errno != EINTR && errno != ECONNABORTED)
			set_accepting(l, false); /* no descriptors: they come back, and a busy loop helps nobody */
		return;
	}
	if (l->n_connections >= MAX_CONNECTIONS || connection_new(l, fd) < 0) {
		base_log(BASE_LOG_DEBUG, "%s: a connection too many is closed", l->path);
		(void)close(fd);
	}
}

/* ---- The thread ---- */

static bool is_stopping(struct flip_grpc_server *s)
{
	bool is;

	(void)pthread_mutex_lock(&s->lock);
	is = s->is_stopping;
	(void)pthread_mutex_unlock(&s->lock);
	return is;
}

static int wait_ms(uint64_t until_ns)
{
	uint64_t now = flip_grpc_now_ns();

	if (until_ns == UINT64_MAX)
		return -1;
	if (until_ns <= now)
		return 0;
	return until_ns - now > 3600000000000ull ? 3600000 : (int)((until_ns - now + 999999) / 1000000);
}

/* One round of events. False: the server is to stop. */
static bool turn(struct flip_grpc_loop *l, int timeout_ms)
{
	struct epoll_event events[16];
	int n = epoll_wait(l->epoll_fd, events, 16, timeout_ms);

	for (int i = 0; i < n; i++) {
		if (events[i].data.ptr == &l->listen_fd)
			accept_one(l);
		else if (events[i].data.ptr == &l->server->wake_fd)
			flip_grpc_server_pump(l->server);
		else if ((events[i].events & ~(uint32_t)EPOLLOUT) && !read_one(l, events[i].data.ptr))
			disconnect(l, events[i].data.ptr); /* no later event names it: one each a round */
	}
	return !is_stopping(l->server);
}

/* Until all is said, or for half a second. */
static void say_goodbye(struct flip_grpc_loop *l)
{
	uint64_t until = flip_grpc_now_ns() + STOP_MS * 1000000ull;

	(void)epoll_ctl(l->epoll_fd, EPOLL_CTL_DEL, l->listen_fd, NULL);
	for (struct connection *c = l->connections; c; c = c->next)
		flip_grpc_session_goaway(c->session);
	for (;;) {
		(void)flush_all(l); /* those that have said all are over */
		if (!l->connections || flip_grpc_now_ns() >= until)
			break;
		(void)turn(l, wait_ms(until));
	}
	while (l->connections)
		disconnect(l, l->connections);
}

static void *loop_thread(void *arg)
{
	struct flip_grpc_loop *l = arg;
	uint64_t next = UINT64_MAX;

	while (turn(l, wait_ms(next))) {
		next = flush_all(l);
		if (l->is_accepting)
			continue;
		if (flip_grpc_now_ns() >= l->accept_at_ns)
			set_accepting(l, true);
		else if (l->accept_at_ns < next)
			next = l->accept_at_ns;
	}
	say_goodbye(l);
	return NULL;
}

/* ---- The socket ---- */

/* Whether somebody answers at the socket; a dead one's name is removed. */
static int clear_path(const char *path, const struct sockaddr_un *address, struct err *err)
{
	CLEANUP(close_fdp) int fd = -1;
	struct stat st;

	if (lstat(path, &st) < 0)
		return errno == ENOENT ? 0 : err_set(err, -errno, "%s: %s", path, strerror(errno));
	if (!S_ISSOCK(st.st_mode))
		return err_set(err, -EEXIST, "%s: there is something that is not a socket", path);
	fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (fd < 0)
		return err_set(err, -errno, "socket: %s", strerror(errno));
	if (connect(fd, (const struct sockaddr *)address, sizeof(*address)) == 0 || errno == EAGAIN)
		return err_set(err, -EADDRINUSE, "%s: another process answers there", path);
	if (errno != ECONNREFUSED)
		return err_set(err, -errno, "%s: %s", path, strerror(errno));
	if (unlink(path) < 0 && errno != ENOENT)
		return err_set(err, -errno, "%s: %s", path, strerror(errno));
	return 0;
}

static int listen_at(struct flip_grpc_loop *l, struct err *err)
{
	struct sockaddr_un address;
	struct stat st;
	int r;

	r = flip_grpc_address(l->path, &address, err);
	if (r < 0)
		return r;
	r = clear_path(l->path, &address, err);
	if (r < 0)
		return r;
	l->listen_fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (l->listen_fd < 0)
		return err_set(err, -errno, "socket: %s", strerror(errno));
	if (bind(l->listen_fd, (const struct sockaddr *)&address, sizeof(address)) < 0)
		return err_set(err, -errno, "%s: %s", l->path, strerror(errno));
	/* Nobody can connect before listen(), so the mode is in time. */
	if (chmod(l->path, 0600) < 0 || stat(l->path, &st) < 0 || listen(l->listen_fd, 64) < 0) {
		r = -errno;
		(void)unlink(l->path);
		return err_set(err, r, "%s: %s", l->path, strerror(-r));
	}
	l->dev = st.st_dev;
	l->ino = st.st_ino;
	return 0;
}

static void loop_free(struct flip_grpc_loop *l)
{
	struct stat st;

	if (!l)
		return;
	if (l->ino && stat(l->path, &st) == 0 && st.st_dev == l->dev && st.st_ino == l->ino)
		(void)unlink(l->path);
	if (l->listen_fd >= 0)
		(void)close(l->listen_fd);
	if (l->epoll_fd >= 0)
		(void)close(l->epoll_fd);
	free(l->path);
	free(l);
}

static int loop_start(struct flip_grpc_loop *l, struct err *err)
{
	struct epoll_event listening = { .events = EPOLLIN, .data.ptr = &l->listen_fd };
	struct epoll_event waking = { .events = EPOLLIN, .data.ptr = &l->server->wake_fd };
	int r = listen_at(l, err);

	if (r < 0)
		return r;
	l->is_accepting = true;
	l->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
	if (l->epoll_fd < 0 || epoll_ctl(l->epoll_fd, EPOLL_CTL_ADD, l->listen_fd, &listening) < 0 ||
	    epoll_ctl(l->epoll_fd, EPOLL_CTL_ADD, l->server->wake_fd, &waking) < 0)
		return err_set(err, -errno, "epoll: %s", strerror(errno));
	r = flip_grpc_thread(&l->thread, loop_thread, l);
	if (r < 0)
		return err_set(err, r, "thread: %s", strerror(-r));
	l->has_thread = true;
	return 0;
}

int flip_grpc_serve(const char *socket_path, const struct flip_grpc_method *methods, void *arg, unsigned n_handlers,
                    struct flip_grpc_server **ret_server, struct err *err)
{
	struct flip_grpc_loop *l = calloc(1, sizeof(*l));
	struct flip_grpc_server *s = NULL;
	int r;

	if (!l)
		return err_set(err, -ENOMEM, "gRPC: out of memory");
	l->listen_fd = l->epoll_fd = -1;
	l->path = strdup(socket_path);
	r = l->path ? flip_grpc_server_new(methods, arg, n_handlers, &s, err) : err_set(err, -ENOMEM, "out of memory");
	if (r == 0) {
		l->server = s;
		r = loop_start(l, err);
	}
	if (r < 0) {
		loop_free(l);
		flip_grpc_server_free(s);
		return r;
	}
	s->loop = l;
	*ret_server = s;
	return 0;
}

void flip_grpc_stop(struct flip_grpc_server *s)
{
	uint64_t one = 1;

	if (!s)
		return;
	(void)pthread_mutex_lock(&s->lock);
	s->is_stopping = true;
	(void)pthread_mutex_unlock(&s->lock);
	(void)!write(s->wake_fd, &one, sizeof(one));
	(void)pthread_join(s->loop->thread, NULL);
	loop_free(s->loop);
	flip_grpc_server_free(s);
}
