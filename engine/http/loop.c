/* One thread and the libmicrohttpd daemon that it drives. The daemon has no thread of its own, because nobody but the
 * thread that runs a daemon can take its listening socket away from it: MHD_quiesce_daemon() from another one ends the
 * process when both happen to remove the socket from the daemon's epoll set. */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "base/log.h"
#include "http_internal.h"
#include "loop.h"

struct http_loop {
	struct eng_http *http;
	struct MHD_Daemon *daemon;
	int wake_fd;
	atomic_bool is_woken, quiesces, stops;
	bool is_quiet; /* the loop's own */
	bool has_thread;
	pthread_t thread;
};

static void log_mhd(void *cls, const char *fmt, va_list ap)
{
	char line[512];
	size_t n;

	(void)vsnprintf(line, sizeof(line), fmt, ap);
	n = strlen(line);
	if (n > 0 && line[n - 1] == '\n')
		line[n - 1] = '\0';
	base_log(BASE_LOG_DEBUG, "http: %s", line);
}

struct eng_http *http_loop_owner(const struct http_loop *loop)
{
	return loop->http;
}

/* One write for all that happens until the loop looks. */
static void wake(struct http_loop *loop)
{
	uint64_t one = 1;

	if (!atomic_exchange(&loop->is_woken, true))
		(void)!write(loop->wake_fd, &one, sizeof(one));
}

/* libmicrohttpd only takes note; whether it wakes a daemon without a thread depends on its version. */
void http_loop_resume(struct http_loop *loop, struct MHD_Connection *conn)
{
	MHD_resume_connection(conn);
	wake(loop);
}

static void quiesce(struct http_loop *loop)
{
	MHD_socket fd = MHD_quiesce_daemon(loop->daemon);

	loop->is_quiet = true;
	if (fd != MHD_INVALID_SOCKET)
		(void)close(fd);
}

static unsigned n_connections(const struct http_loop *loop)
{
	const union MHD_DaemonInfo *info = MHD_get_daemon_info(loop->daemon, MHD_DAEMON_INFO_CURRENT_CONNECTIONS);

	return info ? info->num_connections : 0;
}

/* Runs the daemon once. One that can take no more (its limit, or the process's) has its listening socket out of its
 * epoll set, and puts it back at the beginning of a run: so it runs again when connections have ended, or nothing would
 * wake it. */
static void run_daemon(struct http_loop *loop)
{
	unsigned before = n_connections(loop);

	(void)MHD_run(loop->daemon);
	if (n_connections(loop) < before)
		(void)MHD_run(loop->daemon);
}

static int timeout_ms(const struct http_loop *loop)
{
	MHD_UNSIGNED_LONG_LONG ms;

	if (MHD_get_timeout(loop->daemon, &ms) != MHD_YES)
		return -1;
	return ms > INT_MAX ? INT_MAX : (int)ms;
}

static void *drive(void *arg)
{
	struct http_loop *loop = arg;
	const union MHD_DaemonInfo *info = MHD_get_daemon_info(loop->daemon, MHD_DAEMON_INFO_EPOLL_FD);
	struct pollfd fds[] = { { .fd = info ? info->epoll_fd : -1, .events = POLLIN },
		                { .fd = loop->wake_fd, .events = POLLIN } };
	uint64_t count;

	while (!atomic_load(&loop->stops)) {
		(void)poll(fds, 2, timeout_ms(loop)); /* interrupted: runs once for nothing */
		if (fds[1].revents)
			(void)!read(loop->wake_fd, &count, sizeof(count));
		(void)atomic_exchange(&loop->is_woken, false); /* whoever wakes from now on writes again */
		if (atomic_load(&loop->quiesces) && !loop->is_quiet)
			quiesce(loop);
		run_daemon(loop);
	}
	return NULL;
}

static int start_daemon(struct http_loop *loop, int listen_fd, unsigned max_connections, struct err *err)
{
	int fd = fcntl(listen_fd, F_DUPFD_CLOEXEC, 3);

	if (fd < 0)
		return err_set(err, -errno, "a descriptor: %s", strerror(errno));
	loop->daemon = MHD_start_daemon(MHD_USE_EPOLL | MHD_ALLOW_SUSPEND_RESUME | MHD_USE_ERROR_LOG, 0, NULL, NULL,
	                                exchange_access, loop, MHD_OPTION_EXTERNAL_LOGGER, log_mhd, NULL,
	                                MHD_OPTION_LISTEN_SOCKET, fd, MHD_OPTION_CONNECTION_LIMIT, max_connections,
	                                MHD_OPTION_CONNECTION_TIMEOUT, (unsigned)loop->http->config.timeout_s,
	                                MHD_OPTION_CONNECTION_MEMORY_LIMIT, (size_t)HTTP_CONNECTION_MEMORY,
	                                MHD_OPTION_NOTIFY_COMPLETED, exchange_completed, NULL, MHD_OPTION_END);
	if (!loop->daemon) {
		(void)close(fd);
		return err_set(err, -EIO, "the HTTP server did not start");
	}
	return 0;
}

int http_loop_start(struct eng_http *http, int listen_fd, unsigned max_connections, struct http_loop **ret_loop,
                    struct err *err)
{
	struct http_loop *loop = calloc(1, sizeof(*loop));
	int r;

	if (!loop)
		return err_set(err, -ENOMEM, "out of memory");
	loop->http = http;
	loop->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	r = loop->wake_fd < 0 ? err_set(err, -errno, "a descriptor: %s", strerror(errno))
	                      : start_daemon(loop, listen_fd, max_connections, err);
	if (r == 0) {
		r = -pthread_create(&loop->thread, NULL, drive, loop);
		loop->has_thread = r == 0;
		if (r < 0)
			(void)err_set(err, r, "a thread for HTTP: %s", strerror(-r));
	}
	if (r < 0) {
		http_loop_stop(loop);
		return r;
	}
	(void)pthread_setname_np(loop->thread, "eng-http");
	*ret_loop = loop;
	return 0;
}

void http_loop_quiesce(struct http_loop *loop)
{
	atomic_store(&loop->quiesces, true);
	wake(loop);
}

void http_loop_stop(struct http_loop *loop)
{
	if (!loop)
		return;
	atomic_store(&loop->stops, true);
	if (loop->has_thread) {
		wake(loop);
		(void)pthread_join(loop->thread, NULL);
	}
	if (loop->daemon)
		MHD_stop_daemon(loop->daemon);
	if (loop->wake_fd >= 0)
		(void)close(loop->wake_fd);
	free(loop);
}
