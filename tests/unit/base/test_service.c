#include "base/service.h"

#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include "test.h"

/* What a descriptor of the child is to be. */
enum kind { LISTENING, BOUND, DATAGRAM, A_FILE };

static int make(enum kind kind)
{
	struct sockaddr_un sun = { .sun_family = AF_UNIX }; /* the kernel picks an abstract name */
	int fd = kind == A_FILE ? open("/dev/null", O_RDONLY)
	                        : socket(AF_UNIX, kind == DATAGRAM ? SOCK_DGRAM : SOCK_STREAM, 0);

	if (kind != A_FILE)
		assert_return_code(bind(fd, (struct sockaddr *)&sun, sizeof(sun.sun_family)), errno);
	if (kind == LISTENING)
		assert_return_code(listen(fd, 1), errno);
	return fd;
}

/* In a child, whose descriptors 3 and 4 are of these kinds: what the function returns, and what must hold afterwards.
 * Its exit status, 100 when something did not hold. */
static int in_child(int n_fds, const enum kind *kinds, const char *listen_fds, bool own_pid, size_t max)
{
	int status = 0;
	pid_t pid;

	(void)fflush(NULL);
	pid = fork();
	if (pid == 0) {
		int made[2] = { -1, -1 }, fds[8] = { 0 }, r;
		struct err err = { 0 };
		char text[16];

		for (int i = 0; i < n_fds; i++)
			made[i] = fcntl(make(kinds[i]), F_DUPFD, 20);
		for (int i = 0; i < n_fds; i++)
			(void)dup2(made[i], 3 + i);
		(void)snprintf(text, sizeof(text), "%d", own_pid ? (int)getpid() : 1);
		(void)setenv("LISTEN_PID", text, 1);
		(void)setenv("LISTEN_FDS", listen_fds, 1);
		r = base_service_sockets(fds, max, &err);
		if (getenv("LISTEN_PID") || getenv("LISTEN_FDS") || base_service_sockets(fds, max, NULL) != 0)
			_exit(100);
		for (int i = 0; i < r; i++) {
			if (fds[i] != 3 + i || !(fcntl(fds[i], F_GETFD) & FD_CLOEXEC))
				_exit(100);
		}
		if (r < 0 && !*err_text(&err))
			_exit(100);
		_exit(r < 0 ? -r : r);
	}
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_true(WIFEXITED(status));
	return WEXITSTATUS(status);
}

static void listening_sockets_are_taken_once(void **state)
{
	const enum kind kinds[] = { LISTENING, LISTENING };

	(void)state;
	assert_int_equal(in_child(1, kinds, "1", true, 4), 1);
	assert_int_equal(in_child(2, kinds, "2", true, 2), 2);
}

static void those_of_another_process_are_not(void **state)
{
	const enum kind kinds[] = { LISTENING };

	(void)state;
	assert_int_equal(in_child(1, kinds, "1", false, 4), 0);
	assert_int_equal(in_child(1, kinds, "0", true, 4), 0);
	assert_int_equal(in_child(1, kinds, "nonsense", true, 4), 0);
	assert_int_equal(in_child(1, kinds, "-1", true, 4), 0);
}

static void what_is_no_listening_stream_is_refused(void **state)
{
	static const enum kind wrong[] = { BOUND, DATAGRAM, A_FILE };

	(void)state;
	for (size_t i = 0; i < 3; i++) {
		const enum kind kinds[] = { LISTENING, wrong[i] };

		assert_int_equal(in_child(2, kinds, "2", true, 4), ENOTSOCK);
	}
	assert_int_equal(in_child(1, (const enum kind[]){ LISTENING }, "1", true, 0), E2BIG);
	assert_int_equal(in_child(1, (const enum kind[]){ LISTENING }, "1000000", true, 4), E2BIG);
}

static void notified(const char *path, struct sockaddr_un *sun, socklen_t len)
{
	int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	char text[64];
	ssize_t n;

	assert_return_code(bind(fd, (struct sockaddr *)sun, len), errno);
	(void)setenv("NOTIFY_SOCKET", path, 1);
	base_service_notify("READY=1");
	(void)unsetenv("NOTIFY_SOCKET");
	n = recv(fd, text, sizeof(text) - 1, 0);
	assert_true(n > 0);
	text[n] = '\0';
	assert_string_equal(text, "READY=1");
	(void)close(fd);
}

static void the_manager_is_told(void **state)
{
	struct sockaddr_un sun = { .sun_family = AF_UNIX };
	char dir[] = "/tmp/test_service.XXXXXX", path[64];

	(void)state;
	assert_non_null(mkdtemp(dir));
	(void)snprintf(path, sizeof(path), "%s/notify", dir);
	(void)snprintf(sun.sun_path, sizeof(sun.sun_path), "%s", path);
	notified(path, &sun, sizeof(sun));
	(void)unlink(path);
	(void)rmdir(dir);
	(void)snprintf(path, sizeof(path), "@test_service-%d", (int)getpid());
	memset(&sun, 0, sizeof(sun));
	sun.sun_family = AF_UNIX;
	memcpy(sun.sun_path, path, strlen(path));
	sun.sun_path[0] = '\0';
	notified(path, &sun, (socklen_t)(offsetof(struct sockaddr_un, sun_path) + strlen(path)));
	/* Nobody, and nonsense: no harm. */
	base_service_notify("READY=1");
	(void)setenv("NOTIFY_SOCKET", "nonsense", 1);
	base_service_notify("READY=1");
	(void)unsetenv("NOTIFY_SOCKET");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(listening_sockets_are_taken_once),
		cmocka_unit_test(those_of_another_process_are_not),
		cmocka_unit_test(what_is_no_listening_stream_is_refused),
		cmocka_unit_test(the_manager_is_told),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
