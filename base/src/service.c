#include "base/service.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "datagram_internal.h"

enum { FIRST_FD = 3 };

static void close_all(long n)
{
	for (long i = 0; i < n; i++)
		(void)close(FIRST_FD + (int)i);
}

static int check_listening(int fd, struct err *err)
{
	int value = 0;
	socklen_t len = sizeof(value);

	if (getsockopt(fd, SOL_SOCKET, SO_TYPE, &value, &len) < 0 || value != SOCK_STREAM ||
	    getsockopt(fd, SOL_SOCKET, SO_ACCEPTCONN, &value, &len) < 0 || !value)
		return err_set(err, -ENOTSOCK, "LISTEN_FDS: descriptor %d is not a listening stream socket", fd);
	if (fcntl(fd, F_SETFD, FD_CLOEXEC) < 0)
		return err_set(err, -errno, "LISTEN_FDS: descriptor %d: %s", fd, strerror(errno));
	return 0;
}

int base_service_sockets(int *ret_fds, size_t max, struct err *err)
{
	const char *pid = getenv("LISTEN_PID"), *fds = getenv("LISTEN_FDS");
	long n = pid && fds && strtol(pid, NULL, 10) == (long)getpid() ? strtol(fds, NULL, 10) : 0;

	(void)unsetenv("LISTEN_PID");
	(void)unsetenv("LISTEN_FDS");
	(void)unsetenv("LISTEN_FDNAMES");
	if (n <= 0)
		return 0;
	if ((size_t)n > max)
		return err_set(err, -E2BIG, "LISTEN_FDS: %ld sockets, at most %zu are served", n, max);
	for (int i = 0; i < (int)n; i++) {
		int r = check_listening(FIRST_FD + i, err);

		if (r < 0) {
			close_all(n);
			return r;
		}
	}
	for (int i = 0; i < (int)n; i++)
		ret_fds[i] = FIRST_FD + i;
	return (int)n;
}

void base_service_notify(const char *text)
{
	const char *path = getenv("NOTIFY_SOCKET");

	if (path)
		(void)base_datagram_send(path, text, strlen(text));
}
