#include "base/service.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/cleanup.h"

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
	CLEANUP(close_fdp) int fd = -1;
	struct sockaddr_un sun = { .sun_family = AF_UNIX };
	const char *path = getenv("NOTIFY_SOCKET");

	/* Either a path or, with '@' for the zero byte, an abstract name. */
	if (!path || strlen(path) >= sizeof(sun.sun_path) || (path[0] != '/' && path[0] != '@'))
		return;
	memcpy(sun.sun_path, path, strlen(path));
	if (path[0] == '@')
		sun.sun_path[0] = '\0';
	fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	if (fd >= 0)
		(void)sendto(fd, text, strlen(text), MSG_NOSIGNAL, (struct sockaddr *)&sun,
		             (socklen_t)(offsetof(struct sockaddr_un, sun_path) + strlen(path)));
}
