/* One thread for what a suspended connection cannot see itself: that its client has left, and that its
 * stream has been silent for long. It sleeps in epoll: for ever when no exchange waits for the engine. */
#include <errno.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "http_internal.h"

static const char keepalive[] = ": keep-alive\n\n";

static int connection_fd(const struct exchange *x)
{
	const union MHD_ConnectionInfo *info =
	        x->conn ? MHD_get_connection_info(x->conn, MHD_CONNECTION_INFO_CONNECTION_FD) : NULL;

	return info ? (int)info->connect_fd : -1;
}

/* From the connection's thread, before the work starts. */
void watch_add(struct exchange *x)
{
	struct epoll_event ev = { .events = EPOLLRDHUP | EPOLLONESHOT, .data.u64 = x->serial };
	int fd = connection_fd(x);
	uint64_t one = 1;

	if (fd >= 0)
		(void)epoll_ctl(x->http->epoll_fd, EPOLL_CTL_ADD, fd, &ev);
	/* The first one sets the keep-alive clock going. */
	if (atomic_fetch_add(&x->http->n_waiting, 1) == 0)
		(void)!write(x->http->wake_fd, &one, sizeof(one));
}

/* From the connection's thread, while its descriptor is still open. */
void watch_remove(struct exchange *x)
{
	int fd;

	if (!x->work)
		return;
	fd = connection_fd(x);
	if (fd >= 0)
		(void)epoll_ctl(x->http->epoll_fd, EPOLL_CTL_DEL, fd, NULL);
	atomic_fetch_sub(&x->http->n_waiting, 1);
}

static void client_left(struct eng_http *http, uint64_t serial)
{
	uint64_t next = serial;
	struct exchange *x = exchange_next_active(http, &next);

	if (!x)
		return;
	exchange_lock(x);
	if (x->serial == serial) /* else it is over and another one came */
		exchange_cancel(x);
	exchange_unlock(x);
	exchange_unref(x);
}

static bool needs_keepalive(const struct exchange *x, uint64_t now)
{
	return x->is_stream && !x->is_finished && !x->is_canceled &&
	       now - x->last_write_ms >= x->http->config.keepalive_ms;
}

static void keep_alive(struct eng_http *http)
{
	uint64_t next = 0, now = http_now_ms();
	struct exchange *x;

	while ((x = exchange_next_active(http, &next))) {
		exchange_lock(x);
		if (needs_keepalive(x, now))
			exchange_stream(x, keepalive, sizeof(keepalive) - 1);
		exchange_unlock(x);
		exchange_unref(x);
	}
}

static void *run(void *arg)
{
	struct eng_http *http = arg;
	struct epoll_event evs[16];
	uint64_t count;

	while (!atomic_load(&http->watcher_stop)) {
		int timeout = atomic_load(&http->n_waiting) > 0 ? (int)http->config.keepalive_ms : -1;
		int n = epoll_wait(http->epoll_fd, evs, 16, timeout);

		for (int i = 0; i < n; i++) {
			if (evs[i].data.u64 == UINT64_MAX)
				(void)!read(http->wake_fd, &count, sizeof(count));
			else
				client_left(http, evs[i].data.u64);
		}
		if (n == 0)
			keep_alive(http);
	}
	return NULL;
}

int watch_start(struct eng_http *http, struct err *err)
{
	struct epoll_event ev = { .events = EPOLLIN, .data.u64 = UINT64_MAX };
	int r;

	http->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
	http->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (http->epoll_fd < 0 || http->wake_fd < 0 || epoll_ctl(http->epoll_fd, EPOLL_CTL_ADD, http->wake_fd, &ev) < 0)
		return err_set(err, -errno, "watching connections: %s", strerror(errno));
	r = -pthread_create(&http->watcher, NULL, run, http);
	if (r < 0)
		return err_set(err, r, "watching connections: %s", strerror(-r));
	http->has_watcher = true;
	(void)pthread_setname_np(http->watcher, "eng-watch");
	return 0;
}

void watch_stop(struct eng_http *http)
{
	uint64_t one = 1;

	if (http->has_watcher) {
		atomic_store(&http->watcher_stop, true);
		(void)!write(http->wake_fd, &one, sizeof(one));
		(void)pthread_join(http->watcher, NULL);
		http->has_watcher = false;
	}
	if (http->epoll_fd >= 0)
		(void)close(http->epoll_fd);
	if (http->wake_fd >= 0)
		(void)close(http->wake_fd);
	http->epoll_fd = http->wake_fd = -1;
}
