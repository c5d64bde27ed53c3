/* The tracer: which paths a command used, how, and which it made. */
#include <linux/openat2.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/un.h>

#include "tracer_test.h"

static int scenario_paths(void)
{
	struct stat st;
	int dir, fd;

	if (chdir("dir") < 0 || touch("../dir/./sub//deep") < 0 || touch("inner") < 0)
		return 1;
	dir = open("..", O_RDONLY | O_DIRECTORY);
	if (dir < 0 || fchdir(dir) < 0 || touch("file") < 0 || stat("chain/deep", &st) < 0)
		return 2;
	fd = openat(dir, "absolute", O_RDONLY);
	if (fd < 0 || fstatat(dir, "link", &st, AT_SYMLINK_NOFOLLOW) < 0)
		return 3;
	if (touch("nothing/at/all") == 0 || touch("file/below") == 0 || touch("loop") == 0 || touch("") == 0)
		return 4;
	return access("dir/sub", R_OK) < 0 ? 5 : 0;
}

static void paths_are_followed_as_the_kernel_does(void **state)
{
	(void)state;
	run_scenario("paths");
	HAS(OPEN, "dir/sub/deep");
	HAS(OPEN, "dir/inner");
	HAS(OPEN, "file");
	HAS(STAT, "dir/sub/deep");
	HAS(READLINK, "chain");
	HAS(READLINK, "link");
	HAS(READLINK, "absolute");
	HAS(STAT, "link");
	HAS(STAT, "dir/sub");
	HAS(MISS, "nothing/at/all");
	HAS(MISS, "file/below");
	assert_int_equal(find_here(IMG_ACCESS_MISS, "nothing/at/all")->error, ENOENT);
	assert_int_equal(find_here(IMG_ACCESS_MISS, "file/below")->error, ENOTDIR);
	assert_int_equal(find_here(IMG_ACCESS_OPEN, "dir/inner")->size, 2);
	HAS_NOT(OPEN, "dir");
}

static int scenario_descriptors(void)
{
	struct open_how how = { .flags = O_RDONLY, .resolve = RESOLVE_IN_ROOT };
	int dir = open("dir", O_PATH | O_DIRECTORY), jail = open("jail", O_PATH | O_DIRECTORY), fd;
	char buf[4096], path[64];
	struct stat st;

	if (dir < 0 || jail < 0 || openat(dir, "sub/deep", O_RDONLY) < 0)
		return 1;
	if (fstatat(dir, "../file", &st, 0) < 0 || faccessat(dir, "inner", R_OK, 0) < 0)
		return 2;
	if (syscall(SYS_openat2, jail, "inside", &how, sizeof(how)) < 0)
		return 3;
	fd = open("dir", O_RDONLY | O_DIRECTORY);
	if (syscall(SYS_getdents64, fd, buf, sizeof(buf)) <= 0)
		return 4;
	fd = open("absolute", O_RDONLY);
	(void)snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	if (touch(path) < 0)
		return 5;
	(void)snprintf(path, sizeof(path), "/dev/fd/%d/sub/deep", dir);
	if (access("/dev/fd", F_OK) == 0 && touch(path) < 0)
		return 6;
	return readlink("link", buf, sizeof(buf)) < 0 ? 7 : 0;
}

static void descriptors_lead_to_their_paths(void **state)
{
	(void)state;
	run_scenario("descriptors");
	HAS(OPEN, "dir/sub/deep");
	HAS(STAT, "file");
	HAS(STAT, "dir/inner");
	HAS(READLINK, "jail/inside");
	HAS(OPEN, "jail/etc/inside");
	HAS(READDIR, "dir");
	assert_int_equal(find_here(IMG_ACCESS_OPEN, "file")->count, 2);
	HAS(READLINK, "link");
	for (size_t i = 0; i < img_trace_count(trace); i++)
		assert_null(strstr(img_trace_at(trace, i)->path, "/proc/"));
}

static int scenario_created(void)
{
	int fd = open("new", O_WRONLY | O_CREAT, 0644);

	if (fd < 0 || touch("new") < 0 || rename("new", "renamed") < 0 || touch("renamed") < 0 || touch("new") == 0)
		return 1;
	if (mkdir("made", 0755) < 0 || open("made/in", O_WRONLY | O_CREAT, 0644) < 0 || touch("made/in") < 0)
		return 2;
	if (symlink("../file", "made/link") < 0 || touch("made/link") < 0 || link("file", "hard") < 0 ||
	    touch("hard") < 0)
		return 3;
	if (unlink("renamed") < 0 || touch("renamed") == 0 || rename("dir", "moved") < 0 || touch("moved/inner") < 0)
		return 4;
	if (touch("link/inner") == 0 || open("dir/inner", O_WRONLY | O_TRUNC) >= 0)
		return 5;
	return open("file", O_WRONLY | O_CREAT | O_TRUNC, 0644) < 0 || touch("file") < 0 ? 6 : 0;
}

static void what_the_command_makes_is_no_need(void **state)
{
	(void)state;
	run_scenario("created");
	HAS(CREATE, "new");
	HAS(CREATE, "renamed");
	HAS(CREATE, "made");
	HAS(CREATE, "made/in");
	HAS(CREATE, "made/link");
	HAS(CREATE, "hard");
	HAS_NOT(OPEN, "new");
	HAS_NOT(OPEN, "renamed");
	HAS_NOT(OPEN, "made/in");
	HAS_NOT(OPEN, "hard");
	HAS(MISS, "new");
	HAS(MISS, "renamed");
	HAS(MISS, "dir/inner");
	HAS(CREATE, "moved");
	HAS(CREATE, "moved/inner");
	HAS(OPEN, "file"); /* through made/link and for the hard link, before it was overwritten */
	HAS(CREATE, "file");
}

static int scenario_sockets(void)
{
	struct sockaddr_un sun = { .sun_family = AF_UNIX, .sun_path = "socket" };
	int fd = socket(AF_UNIX, SOCK_STREAM, 0);

	if (bind(fd, (struct sockaddr *)&sun, sizeof(sun)) < 0 || listen(fd, 1) < 0)
		return 1;
	fd = socket(AF_UNIX, SOCK_STREAM, 0);
	(void)snprintf(sun.sun_path, sizeof(sun.sun_path), "no-socket");
	if (connect(fd, (struct sockaddr *)&sun, sizeof(sun)) == 0)
		return 2;
	(void)snprintf(sun.sun_path, sizeof(sun.sun_path), "old-socket");
	return connect(fd, (struct sockaddr *)&sun, sizeof(sun)) < 0 ? 3 : 0;
}

static void sockets_are_recorded(void **state)
{
	struct sockaddr_un sun = { .sun_family = AF_UNIX };
	int fd = socket(AF_UNIX, SOCK_STREAM, 0);

	(void)state;
	(void)snprintf(sun.sun_path, sizeof(sun.sun_path), "%s/old-socket", base);
	assert_int_equal(bind(fd, (struct sockaddr *)&sun, sizeof(sun)), 0);
	assert_int_equal(listen(fd, 1), 0);
	run_scenario("sockets");
	HAS(CREATE, "socket");
	HAS(MISS, "no-socket");
	HAS(CONNECT, "old-socket");
	(void)close(fd);
}

static void a_command_that_is_not_there_is_an_error(void **state)
{
	const char *argv[] = { "/no/such/command", NULL };

	(void)state;
	assert_int_equal(run_method(argv, (struct img_run){ 0 }), -ENOENT);
}

static const struct scenario scenarios[] = {
	{ "paths", scenario_paths },
	{ "descriptors", scenario_descriptors },
	{ "created", scenario_created },
	{ "sockets", scenario_sockets },
};

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
		TEST(paths_are_followed_as_the_kernel_does),   TEST(descriptors_lead_to_their_paths),
		TEST(what_the_command_makes_is_no_need),       TEST(sockets_are_recorded),
		TEST(a_command_that_is_not_there_is_an_error),
	};

	return TRACER_MAIN(argc, argv);
}
