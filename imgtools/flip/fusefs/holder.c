/* Who keeps the session's descriptor while no daemon lives: the kernel ends a FUSE mount when its last descriptor is
 * closed, so someone has to have a copy.
 *
 * Under systemd that is the service's descriptor store (FileDescriptorStoreMax=1 in the unit): one datagram puts the
 * descriptor there, and the next start finds it among $LISTEN_FDS by its name. Elsewhere it is the holder, a process
 * that does nothing else: this same program, executed anew so that it shares no memory with the daemon, in a session
 * of its own. It listens on a socket that only its user may talk to, one byte a request:
 *
 *   P + descriptor   keep this one, instead of any other      -> K
 *   G                -> F + descriptor, or N when there is none
 *   E                close it and end                          -> K */
#include "fusefs/fusefs.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/cleanup.h"

extern char **environ;

static const char fd_name[] = "flip-fuse";
enum { HOLDER_FD = 3, ANSWER_TIMEOUT_S = 10 };

/* ---- One message with at most one descriptor -------------------------------------------------------------- */

union control {
	char room[CMSG_SPACE(sizeof(int))];
	struct cmsghdr align;
};

static int send_message(int sock, const void *data, size_t size, int fd, const struct sockaddr_un *to,
                        socklen_t to_size)
{
	union control control = { 0 };
	struct iovec iov = { (void *)data, size };
	struct msghdr m = { .msg_name = (void *)to, .msg_namelen = to_size, .msg_iov = &iov, .msg_iovlen = 1 };

	if (fd >= 0) {
		struct cmsghdr *c;

		m.msg_control = control.room;
		m.msg_controllen = sizeof(control.room);
		c = CMSG_FIRSTHDR(&m);
		c->cmsg_level = SOL_SOCKET;
		c->cmsg_type = SCM_RIGHTS;
		c->cmsg_len = CMSG_LEN(sizeof(int));
		memcpy(CMSG_DATA(c), &fd, sizeof(fd));
	}
	return sendmsg(sock, &m, MSG_NOSIGNAL) == (ssize_t)size ? 0 : -errno;
}

/* The byte of the message, or a negative errno; *ret_fd -1: it brought none. */
static int receive_message(int sock, int *ret_fd)
{
	union control control = { 0 };
	uint8_t byte = 0;
	struct iovec iov = { &byte, 1 };
	struct msghdr m = {
		.msg_iov = &iov, .msg_iovlen = 1, .msg_control = control.room, .msg_controllen = sizeof(control.room)
	};
	ssize_t n = recvmsg(sock, &m, MSG_CMSG_CLOEXEC);
	struct cmsghdr *c = n == 1 ? CMSG_FIRSTHDR(&m) : NULL;

	*ret_fd = -1;
	if (c && c->cmsg_level == SOL_SOCKET && c->cmsg_type == SCM_RIGHTS && c->cmsg_len == CMSG_LEN(sizeof(int)))
		memcpy(ret_fd, CMSG_DATA(c), sizeof(*ret_fd));
	return n == 1 ? byte : n < 0 ? -errno : -EPIPE;
}

static int address_of(const char *path, struct sockaddr_un *ret_address, struct err *err)
{
	*ret_address = (struct sockaddr_un){ .sun_family = AF_UNIX };
	if (strlen(path) >= sizeof(ret_address->sun_path))
		return err_set(err, -ENAMETOOLONG, "%s: too long for a socket", path);
	memcpy(ret_address->sun_path, path, strlen(path) + 1);
	return 0;
}

/* ---- The holder ------------------------------------------------------------------------------------------- */

static bool is_own_user(int sock)
{
	struct ucred cred;
	socklen_t size = sizeof(cred);

	return getsockopt(sock, SOL_SOCKET, SO_PEERCRED, &cred, &size) == 0 && cred.uid == geteuid();
}

/* False: it is to end. */
static bool answer(int sock, int *held)
{
	bool go_on = true;
	int fd, command = receive_message(sock, &fd);

	if (command == 'P' && fd >= 0) {
		if (*held >= 0)
			(void)close(*held);
		*held = fd;
		fd = -1;
		(void)send_message(sock, "K", 1, -1, NULL, 0);
	} else if (command == 'G') {
		(void)send_message(sock, *held >= 0 ? "F" : "N", 1, *held, NULL, 0);
	} else if (command == 'E') {
		(void)send_message(sock, "K", 1, -1, NULL, 0);
		go_on = false;
	}
	if (fd >= 0)
		(void)close(fd);
	return go_on;
}

/* Until somebody asks; false when the mount has ended, which leaves nothing to hold. */
static bool wait_for_caller(int listener, int held)
{
	struct pollfd p[2] = { { .fd = listener, .events = POLLIN }, { .fd = held } };

	for (;;) {
		int n = poll(p, 2, -1);

		if (n > 0 && p[0].revents)
			return true;
		if (n > 0 && p[1].revents & POLLERR) /* how a FUSE connection says that it is over */
			return false;
		if (n > 0)
			p[1].fd = -1;
		if (n < 0 && errno != EINTR)
			return true;
	}
}

static int hold(int listener)
{
	const struct timeval patience = { .tv_sec = ANSWER_TIMEOUT_S };
	bool go_on = true;
	int held = -1;

	while (go_on) {
		int sock;

		if (!wait_for_caller(listener, held))
			return 0;
		sock = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
		if (sock < 0 && errno != EINTR && errno != ECONNABORTED)
			return 1;
		if (sock < 0)
			continue;
		/* Who says nothing must not keep the others waiting. */
		(void)setsockopt(sock, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof(patience));
		if (is_own_user(sock))
			go_on = answer(sock, &held);
		(void)close(sock);
	}
	return 0;
}

int flip_holder_run(int argc, char **argv)
{
	pid_t pid;
	int null;

	if (argc != 2 || strcmp(argv[1], FLIP_HOLDER_COMMAND) != 0)
		return -1;
	pid = fork(); /* it is nobody's child, so that nobody has to wait for it */
	if (pid != 0)
		return pid < 0;
	(void)prctl(PR_SET_NAME, "flip-holder");
	(void)chdir("/");
	(void)signal(SIGHUP, SIG_IGN);
	(void)signal(SIGPIPE, SIG_IGN);
	null = open("/dev/null", O_RDWR);
	for (int i = 0; i < HOLDER_FD && null >= 0; i++)
		(void)dup2(null, i);
	(void)close_range(HOLDER_FD + 1, ~0u, 0);
	return hold(HOLDER_FD);
}

static int make_listener(const char *path, struct err *err)
{
	struct sockaddr_un address;
	int r = address_of(path, &address, err), fd = r < 0 ? r : socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
	mode_t old;

	if (r < 0)
		return r;
	if (fd < 0)
		return err_set(err, -errno, "%s: %s", path, strerror(errno));
	(void)unlink(path); /* of a holder that is gone */
	old = umask(0177);
	r = bind(fd, (struct sockaddr *)&address, sizeof(address)) < 0 || listen(fd, 8) < 0 ? -errno : 0;
	(void)umask(old);
	if (r < 0) {
		(void)close(fd);
		return err_set(err, r, "%s: %s", path, strerror(-r));
	}
	return fd;
}

static int start_holder(const char *path, struct err *err)
{
	CLEANUP(close_fdp) int listener = make_listener(path, err);
	char *argv[] = { "flip-holder", FLIP_HOLDER_COMMAND, NULL };
	posix_spawn_file_actions_t actions;
	posix_spawnattr_t attr;
	int r, status;
	pid_t pid;

	if (listener < 0)
		return listener;
	if (listener == HOLDER_FD) { /* dup2() onto itself would leave close-on-exec set */
		int fd = fcntl(listener, F_DUPFD_CLOEXEC, HOLDER_FD + 1);

		(void)close(listener);
		listener = fd;
	}
	(void)posix_spawn_file_actions_init(&actions);
	(void)posix_spawnattr_init(&attr);
	(void)posix_spawn_file_actions_adddup2(&actions, listener, HOLDER_FD);
	(void)posix_spawnattr_setflags(&attr, POSIX_SPAWN_SETSID);
	r = -posix_spawn(&pid, "/proc/self/exe", &actions, &attr, argv, environ);
	(void)posix_spawn_file_actions_destroy(&actions);
	(void)posix_spawnattr_destroy(&attr);
	if (r < 0)
		return err_set(err, r, "holder: %s", strerror(-r));
	while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
		;
	if (!WIFEXITED(status) || WEXITSTATUS(status) != 0)
		return err_set(err, -ECHILD, "holder: it did not start");
	return 0;
}

/* A connection, or -ENOENT when no holder lives. */
static int connect_holder(const char *path, struct err *err)
{
	const struct timeval patience = { .tv_sec = ANSWER_TIMEOUT_S };
	CLEANUP(close_fdp) int fd = -1;
	struct sockaddr_un address;
	int r = address_of(path, &address, err);

	if (r < 0)
		return r;
	fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
	if (fd < 0)
		return err_set(err, -errno, "%s: %s", path, strerror(errno));
	if (connect(fd, (struct sockaddr *)&address, sizeof(address)) < 0) {
		r = errno == ECONNREFUSED ? -ENOENT : -errno;
		return err_set(err, r, "%s: %s", path, strerror(errno));
	}
	(void)setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof(patience));
	r = fd;
	fd = -1;
	return r;
}

/* Says one thing, returns the byte of the answer. */
static int ask_holder(const char *path, char command, int fd, int *ret_fd, struct err *err)
{
	CLEANUP(close_fdp) int sock = connect_holder(path, err);
	int r;

	if (sock < 0)
		return sock;
	r = send_message(sock, &command, 1, fd, NULL, 0);
	if (r == 0)
		r = receive_message(sock, ret_fd);
	return r < 0 ? err_set(err, r, "%s: holder: %s", path, strerror(-r)) : r;
}

/* ---- systemd's descriptor store --------------------------------------------------------------------------- */

/* Tells the service manager; -ENOENT when there is none. */
static int notify(const char *text, int fd)
{
	const char *path = getenv("NOTIFY_SOCKET");
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	CLEANUP(close_fdp) int sock = -1;
	size_t n = path ? strlen(path) : 0;

	if (n == 0 || n >= sizeof(address.sun_path) || (path[0] != '/' && path[0] != '@'))
		return -ENOENT;
	memcpy(address.sun_path, path, n);
	if (path[0] == '@')
		address.sun_path[0] = 0;
	sock = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	if (sock < 0)
		return -errno;
	return send_message(sock, text, strlen(text), fd, &address,
	                    (socklen_t)(offsetof(struct sockaddr_un, sun_path) + n));
}

/* Whether the manager has room for us; before 254 it does not say, and drops what it has no room for. */
static bool store_is_sure(void)
{
	const char *room = getenv("FDSTORE");

	return room && strtol(room, NULL, 10) > 0;
}

/* Ours among those that the manager started us with. */
static int find_passed(void)
{
	const char *pid = getenv("LISTEN_PID"), *count = getenv("LISTEN_FDS"), *names = getenv("LISTEN_FDNAMES");
	long n = count ? strtol(count, NULL, 10) : 0;

	if (!pid || !names || strtol(pid, NULL, 10) != (long)getpid())
		return -1;
	for (int i = 0; i < n && names; i++) {
		size_t len = strcspn(names, ":");

		if (len == strlen(fd_name) && memcmp(names, fd_name, len) == 0)
			return 3 + i; /* the first that is passed is 3 */
		names = names[len] ? names + len + 1 : NULL;
	}
	return -1;
}

/* ---- Both ------------------------------------------------------------------------------------------------- */

int flip_holder_put(const char *socket_path, int fd, struct err *err)
{
	char text[64];
	int none, r;

	/* What was stored under the name before is replaced, not joined. */
	(void)snprintf(text, sizeof(text), "FDSTOREREMOVE=1\nFDNAME=%s", fd_name);
	(void)notify(text, -1);
	(void)snprintf(text, sizeof(text), "FDSTORE=1\nFDNAME=%s", fd_name);
	if (notify(text, fd) == 0 && store_is_sure())
		return 0;
	r = ask_holder(socket_path, 'P', fd, &none, NULL);
	if (r == -ENOENT) {
		r = start_holder(socket_path, err);
		if (r == 0)
			r = ask_holder(socket_path, 'P', fd, &none, err);
	}
	return r < 0 ? err_set(err, r, "%s: holder: %s", socket_path, strerror(-r)) : 0;
}

int flip_holder_get(const char *socket_path, int *ret_fd, struct err *err)
{
	int passed = find_passed(), fd = -1, r;

	if (passed >= 0) {
		(void)fcntl(passed, F_SETFD, FD_CLOEXEC);
		fd = fcntl(passed, F_DUPFD_CLOEXEC, 3);
		if (fd < 0)
			return err_set(err, -errno, "descriptor %d of the service manager: %s", passed,
			               strerror(errno));
		*ret_fd = fd;
		return 0;
	}
	r = ask_holder(socket_path, 'G', -1, &fd, err);
	if (r < 0)
		return r;
	if (fd < 0)
		return err_set(err, -ENOENT, "%s: the holder has nothing", socket_path);
	*ret_fd = fd;
	return 0;
}

int flip_holder_end(const char *socket_path, struct err *err)
{
	char text[64];
	int none, r;

	(void)snprintf(text, sizeof(text), "FDSTOREREMOVE=1\nFDNAME=%s", fd_name);
	(void)notify(text, -1);
	r = ask_holder(socket_path, 'E', -1, &none, err);
	if (r < 0 && r != -ENOENT)
		return r;
	(void)unlink(socket_path);
	return 0;
}
