/* The holder of a descriptor, and systemd's store in its place. Needs neither root nor FUSE: a pipe is held. */
#include <errno.h>
#include <fcntl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include "fusefs/fusefs.h"
#include "test.h"

static char dir[64], path[96], notify_path[96];

static int setup(void **state)
{
	(void)state;
	(void)snprintf(dir, sizeof(dir), "/tmp/test-holder-XXXXXX");
	assert_non_null(mkdtemp(dir));
	(void)snprintf(path, sizeof(path), "%s/holder", dir);
	(void)snprintf(notify_path, sizeof(notify_path), "%s/notify", dir);
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	assert_int_equal(flip_holder_end(path, NULL), 0);
	(void)unlink(notify_path);
	assert_int_equal(rmdir(dir), 0); /* nothing is left in it */
	return 0;
}

/* The reading end of a pipe with this text in it. */
static int pipe_with(const char *text)
{
	int p[2];

	assert_int_equal(pipe2(p, O_CLOEXEC), 0);
	assert_int_equal(write(p[1], text, strlen(text)), strlen(text));
	(void)close(p[1]);
	return p[0];
}

static void expect_text(int fd, const char *text)
{
	char data[64] = { 0 };

	assert_int_equal(read(fd, data, sizeof(data) - 1), strlen(text));
	assert_string_equal(data, text);
	(void)close(fd);
}

static void put_and_close(const char *text)
{
	struct err err = { 0 };
	int fd = pipe_with(text);

	if (flip_holder_put(path, fd, &err) < 0)
		fail_msg("%s", err_text(&err));
	(void)close(fd);
}

static void a_descriptor_outlives_who_put_it(void **state)
{
	int status, fd = -1;
	pid_t pid = fork();

	(void)state;
	if (pid == 0) {
		int p = pipe_with("kept");

		_exit(flip_holder_put(path, p, NULL) != 0);
	}
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_int_equal(status, 0);
	assert_int_equal(flip_holder_get(path, &fd, NULL), 0);
	assert_int_equal(fcntl(fd, F_GETFD), FD_CLOEXEC);
	expect_text(fd, "kept");
}

static void the_last_one_counts(void **state)
{
	int fd = -1;

	(void)state;
	put_and_close("first");
	put_and_close("second");
	assert_int_equal(flip_holder_get(path, &fd, NULL), 0);
	expect_text(fd, "second");
}

static void without_a_holder_there_is_nothing(void **state)
{
	struct err err = { 0 };
	int fd = -7;

	(void)state;
	assert_int_equal(flip_holder_get(path, &fd, &err), -ENOENT);
	put_and_close("x");
	assert_int_equal(flip_holder_end(path, NULL), 0);
	assert_int_equal(flip_holder_get(path, &fd, &err), -ENOENT);
	assert_int_equal(fd, -7);
}

static void only_its_user_may_reach_it(void **state)
{
	struct stat st;

	(void)state;
	put_and_close("x");
	assert_int_equal(stat(path, &st), 0);
	assert_int_equal(st.st_mode & 0777, 0600);
}

static void nonsense_does_not_end_it(void **state)
{
	struct sockaddr_un to = { .sun_family = AF_UNIX };
	int fd = -1;

	(void)state;
	put_and_close("still");
	(void)snprintf(to.sun_path, sizeof(to.sun_path), "%s", path);
	for (int i = 0; i < 3; i++) {
		int sock = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);

		assert_int_equal(connect(sock, (struct sockaddr *)&to, sizeof(to)), 0);
		if (i)
			assert_int_equal(send(sock, i == 1 ? "P" : "?xyz", i == 1 ? 1 : 4, 0), i == 1 ? 1 : 4);
		(void)close(sock);
	}
	assert_int_equal(flip_holder_get(path, &fd, NULL), 0);
	expect_text(fd, "still");
}

/* One message of the service manager's socket: its text, and whether it brought a descriptor. */
static int receive(int sock, char *text, size_t size)
{
	union {
		char room[CMSG_SPACE(sizeof(int))];
		struct cmsghdr align;
	} control;
	struct iovec iov = { text, size - 1 };
	struct msghdr m = {
		.msg_iov = &iov, .msg_iovlen = 1, .msg_control = control.room, .msg_controllen = sizeof(control.room)
	};
	ssize_t n = recvmsg(sock, &m, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
	struct cmsghdr *c = n > 0 ? CMSG_FIRSTHDR(&m) : NULL;
	int fd = -1;

	text[n > 0 ? n : 0] = 0;
	if (c)
		memcpy(&fd, CMSG_DATA(c), sizeof(fd));
	return fd;
}

static void the_service_manager_keeps_it_where_there_is_one(void **state)
{
	struct sockaddr_un at = { .sun_family = AF_UNIX };
	int low = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0), sock = fcntl(low, F_DUPFD_CLOEXEC, 10), fd;
	char text[256], pid[32];

	(void)state;
	(void)close(low);
	(void)snprintf(at.sun_path, sizeof(at.sun_path), "%s", notify_path);
	assert_int_equal(bind(sock, (struct sockaddr *)&at, sizeof(at)), 0);
	(void)setenv("NOTIFY_SOCKET", notify_path, 1);
	(void)setenv("FDSTORE", "1", 1);
	put_and_close("stored");
	assert_int_equal(receive(sock, text, sizeof(text)), -1);
	assert_string_equal(text, "FDSTOREREMOVE=1\nFDNAME=flip-fuse");
	fd = receive(sock, text, sizeof(text));
	assert_string_equal(text, "FDSTORE=1\nFDNAME=flip-fuse");
	assert_int_equal(access(path, F_OK), -1); /* no holder was needed */

	/* The next start: passed as the second of two. */
	assert_int_equal(dup2(fd, 4), 4);
	(void)snprintf(pid, sizeof(pid), "%d", (int)getpid());
	(void)setenv("LISTEN_PID", pid, 1);
	(void)setenv("LISTEN_FDS", "2", 1);
	(void)setenv("LISTEN_FDNAMES", "other:flip-fuse", 1);
	assert_int_equal(flip_holder_get(path, &fd, NULL), 0);
	expect_text(fd, "stored");
	(void)setenv("LISTEN_FDNAMES", "other:flip", 1);
	assert_int_equal(flip_holder_get(path, &fd, NULL), -ENOENT);
	(void)unsetenv("LISTEN_PID");

	(void)unsetenv("FDSTORE"); /* it does not say that it has room: both */
	put_and_close("both");
	assert_int_equal(flip_holder_get(path, &fd, NULL), 0);
	expect_text(fd, "both");
	(void)unsetenv("NOTIFY_SOCKET");
	(void)close(sock);
}

int main(int argc, char **argv)
{
#define HOLDER_TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
	const struct CMUnitTest tests[] = {
		HOLDER_TEST(a_descriptor_outlives_who_put_it),
		HOLDER_TEST(the_last_one_counts),
		HOLDER_TEST(without_a_holder_there_is_nothing),
		HOLDER_TEST(only_its_user_may_reach_it),
		HOLDER_TEST(nonsense_does_not_end_it),
		HOLDER_TEST(the_service_manager_keeps_it_where_there_is_one),
	};
	int r = flip_holder_run(argc, argv);

	if (r >= 0)
		return r;
	return cmocka_run_group_tests(tests, NULL, NULL);
}
