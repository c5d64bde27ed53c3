/* The tracer: commands and children in other roots, mount namespaces and as other users. Most of it is for root only.
 */
#include <sys/mount.h>
#include <sys/syscall.h>

#include "tracer_test.h"

static int scenario_chroot(void)
{
	int status;
	pid_t pid = fork();

	if (pid == 0) {
		if (chroot("jail") < 0 || chdir("/") < 0)
			_exit(1);
		_exit(touch("/inside") < 0 || touch("etc/../../../etc/inside") < 0);
	}
	return waitpid(pid, &status, 0) == pid && status == 0 && touch("file") == 0 ? 0 : 1;
}

static void a_childs_chroot_is_seen_from_outside(void **state)
{
	(void)state;
	if (geteuid() != 0)
		skip();
	run_scenario("chroot");
	HAS(STAT, "jail");
	HAS(READLINK, "jail/inside");
	HAS(OPEN, "jail/etc/inside");
	HAS(OPEN, "file");
}

static int scenario_namespace(void)
{
	int status;
	pid_t pid = fork();

	if (pid == 0) {
		if (unshare(CLONE_NEWNS) < 0 || mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0)
			_exit(77);
		if (mount("dir", "jail", NULL, MS_BIND, NULL) < 0 || touch("jail/inner") < 0)
			_exit(1);
		if (mount("tmpfs", "dir/sub", "tmpfs", 0, NULL) < 0 || touch("dir/sub/deep") == 0 ||
		    open("dir/sub/fresh", O_WRONLY | O_CREAT, 0600) < 0)
			_exit(2);
		if (chroot("jail") < 0 || chdir("/") < 0 || touch("/sub/deep") < 0)
			_exit(3);
		_exit(0);
	}
	if (waitpid(pid, &status, 0) != pid || status != 0)
		return WIFEXITED(status) ? WEXITSTATUS(status) : 4;
	return touch("dir/sub/deep") < 0;
}

static void a_mount_namespace_of_a_child_is_mapped_back(void **state)
{
	const char *argv[] = { self, "--scenario", "namespace", base, NULL };

	(void)state;
	if (geteuid() != 0)
		skip();
	assert_int_equal(run_method(argv, (struct img_run){ .null_stdin = true }), 0);
	if (result.exit_code == 77)
		skip();
	assert_int_equal(result.exit_code, 0);
	HAS(OPEN, "dir/inner"); /* was opened as jail/inner */
	HAS_NOT(OPEN, "jail/inner");
	HAS_NOT(MISS, "dir/sub/deep"); /* hidden by a file system of the child's own */
	HAS_NOT(CREATE, "dir/sub/fresh");
	HAS(OPEN, "dir/sub/deep"); /* by the parent, and below the child's new root */
	assert_int_equal(find_here(IMG_ACCESS_OPEN, "dir/sub/deep")->pid != 0, 1);
}

static int scenario_user(void)
{
	if (setgid(65534) < 0 || setuid(65534) < 0)
		return 1;
	return touch("file") < 0;
}

static int scenario_own_namespace(void)
{
	if (unshare(CLONE_NEWNS) < 0 || mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0)
		return 77;
	if (mount("dir", "jail", NULL, MS_BIND, NULL) < 0 || mount("tmpfs", "dir/sub", "tmpfs", 0, NULL) < 0)
		return 1;
	return touch("jail/inner") < 0 || touch("dir/inner") < 0 || touch("dir/sub/deep") == 0;
}

static void a_command_that_leaves_its_namespace_is_mapped_back(void **state)
{
	const char *argv[] = { self, "--scenario", "own_namespace", base, NULL };

	(void)state;
	if (geteuid() != 0)
		skip();
	assert_int_equal(run_method(argv, (struct img_run){ .null_stdin = true }), 0);
	if (result.exit_code == 77)
		skip();
	assert_int_equal(result.exit_code, 0);
	assert_int_equal(find_here(IMG_ACCESS_OPEN, "dir/inner")->count, 2);
	HAS_NOT(OPEN, "jail/inner");
	HAS_NOT(MISS, "dir/sub/deep");
}

static void another_user_can_be_traced(void **state)
{
	(void)state;
	if (geteuid() != 0)
		skip();
	run_scenario("user");
	HAS(OPEN, "file");
}

static void a_command_in_a_root_is_traced_in_its_paths(void **state)
{
	const char *roots[1] = { test_root_dir }, *argv[] = { "script", NULL };

	(void)state;
	if (!test_has_namespaces() || test_root_make() < 0)
		skip();
	assert_int_equal(run_method(argv, (struct img_run){ .roots = roots, .n_roots = 1 }), 0);
	assert_int_equal(result.exit_code, 0);
	assert_string_equal(base_buf_text(&result.out), "deep\n");
	assert_non_null(find(IMG_ACCESS_EXEC, "/bin/script"));
	assert_non_null(find(IMG_ACCESS_KERNEL, "/bin/sh"));
	assert_non_null(find(IMG_ACCESS_EXEC, "/bin/cat"));
	assert_non_null(find(IMG_ACCESS_READLINK, "/data/absolute"));
	assert_non_null(find(IMG_ACCESS_READLINK, "/data/link"));
	assert_non_null(find(IMG_ACCESS_OPEN, "/data/deep/file"));
	assert_int_equal(find(IMG_ACCESS_OPEN, "/data/deep/file")->size, 5);
	assert_int_equal(img_trace_process_at(trace, 0)->pid, 1);
	assert_string_equal(img_trace_process_at(trace, 0)->program, "/bin/script");
	for (size_t i = 0; i < img_trace_count(trace); i++)
		assert_null(strstr(img_trace_at(trace, i)->path, test_root_dir));
	test_root_remove();
}

static const struct scenario scenarios[] = {
	{ "chroot", scenario_chroot },
	{ "namespace", scenario_namespace },
	{ "own_namespace", scenario_own_namespace },
	{ "user", scenario_user },
};

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
		TEST(a_childs_chroot_is_seen_from_outside),
		TEST(a_mount_namespace_of_a_child_is_mapped_back),
		TEST(a_command_that_leaves_its_namespace_is_mapped_back),
		TEST(another_user_can_be_traced),
		TEST(a_command_in_a_root_is_traced_in_its_paths),
	};

	return TRACER_MAIN(argc, argv);
}
