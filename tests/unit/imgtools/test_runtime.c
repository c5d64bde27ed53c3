/* Commands run in a root: what they see, what they leave, how they end. */
#include <errno.h>
#include <signal.h>

#include "test_root.h"

#include "runtime/runtime.h"

static bool can_run; /* else: skipped */

static const char *roots[1] = { test_root_dir };

static int make(void **state)
{
	(void)state;
	can_run = test_has_namespaces() && test_root_make() == 0;
	if (!can_run)
		print_message("no namespaces here, or no tools for a root: skipped\n");
	return 0;
}

static int unmake(void **state)
{
	(void)state;
	test_root_remove();
	return 0;
}

static struct img_run_result result;

/* Runs a shell command in the root. */
static int run_shell(struct img_run run, const char *command)
{
	const char *argv[] = { "sh", "-c", command, NULL };
	struct err err = { 0 };
	int r;

	run.argv = argv;
	run.roots = roots;
	run.n_roots = run.n_roots ? run.n_roots : 1;
	run.capture = true;
	run.null_stdin = true;
	r = img_run(&run, &result, &err);
	if (r < 0)
		print_message("%s\n", err_text(&err));
	return r;
}

static const char *output(void)
{
	return base_buf_text(&result.out);
}

static void output_and_exit_code_are_the_commands_own(void **state)
{
	if (!can_run)
		skip();
	assert_int_equal(run_shell((struct img_run){ 0 }, "echo out; echo bad >&2; exit 7"), 0);
	assert_int_equal(result.exit_code, 7);
	assert_int_equal(result.signal, 0);
	assert_string_equal(output(), "out\n");
	assert_string_equal(base_buf_text(&result.errors), "bad\n");
	img_run_result_done(&result);
}

static void a_signal_is_told(void **state)
{
	if (!can_run)
		skip();
	assert_int_equal(run_shell((struct img_run){ 0 }, "kill -SEGV $$"), 0);
	assert_int_equal(result.signal, SIGSEGV);
	assert_int_equal(result.exit_code, 128 + SIGSEGV);
	img_run_result_done(&result);
}

static void the_root_is_not_changed_but_changes_are_told(void **state)
{
	static const char *const expected[] = { "added /data/new", "deleted /data/deep/file", "modified /etc/group",
		                                NULL };
	char path[128];
	size_t found = 0;

	if (!can_run)
		skip();
	assert_int_equal(run_shell((struct img_run){ .want_changes = true },
	                           "echo hello >/data/new; rm /data/deep/file; echo x >>/etc/group"),
	                 0);
	assert_int_equal(result.exit_code, 0);
	if (strstr(result.notes, "no overlay")) {
		img_run_result_done(&result);
		skip();
	}
	for (size_t i = 0; i < result.n_changes; i++) {
		char line[4200];

		(void)snprintf(line, sizeof(line), "%s %s", img_change_kind_name(result.changes[i].kind),
		               result.changes[i].path);
		for (const char *const *e = expected; *e; e++)
			found += strcmp(line, *e) == 0;
		print_message("%s\n", line);
	}
	assert_int_equal(found, 3);
	assert_int_equal(result.n_changes, 3);
	(void)snprintf(path, sizeof(path), "%s/data/new", test_root_dir);
	assert_int_not_equal(access(path, F_OK), 0);
	(void)snprintf(path, sizeof(path), "%s/data/deep/file", test_root_dir);
	assert_int_equal(access(path, F_OK), 0);
	(void)snprintf(path, sizeof(path), "%s/proc", test_root_dir);
	assert_int_not_equal(access(path, F_OK), 0);
	img_run_result_done(&result);
}

static void it_sees_its_own_processes_and_devices(void **state)
{
	if (!can_run)
		skip();
	assert_int_equal(run_shell((struct img_run){ .fresh_tmp = true },
	                           "cat /proc/2/comm; echo $$; echo x >/dev/null && ls /dev; ls /tmp; echo end"),
	                 0);
	assert_non_null(strstr(output(), "sh\n2\n"));
	assert_non_null(strstr(output(), "urandom\n"));
	assert_non_null(strstr(output(), "end\n"));
	img_run_result_done(&result);
}

static void user_and_groups_come_from_the_roots_files(void **state)
{
	if (!can_run)
		skip();
	assert_int_equal(
	        run_shell((struct img_run){ .user = "user", .cwd = "/home/user", .env = (const char *[]){ NULL } },
	                  "id -u; id -g; id -G; echo $HOME; pwd"),
	        0);
	if (geteuid() == 0)
		assert_string_equal(output(), "1234\n1235\n1235 77\n/home/user\n/home/user\n");
	else
		assert_memory_equal(output(), "1234\n", 5);
	img_run_result_done(&result);
	assert_int_equal(run_shell((struct img_run){ .user = "nobody-here" }, "true"), -ENOENT);
	assert_int_equal(run_shell((struct img_run){ .user = "77:extra" }, "id -u; id -g"), 0);
	assert_string_equal(output(), "77\n77\n");
	img_run_result_done(&result);
}

static void a_command_that_is_not_there_is_an_error_with_its_name(void **state)
{
	const char *argv[] = { "no-such-command", NULL };
	struct img_run run = { .argv = argv, .roots = roots, .n_roots = 1 };
	struct err err = { 0 };

	if (!can_run)
		skip();
	assert_int_equal(img_run(&run, &result, &err), -ENOENT);
	assert_non_null(strstr(err_text(&err), "no-such-command"));
}

static void time_is_limited_for_all_processes(void **state)
{
	if (!can_run)
		skip();
	assert_int_equal(run_shell((struct img_run){ .timeout_ms = 300 }, "sleep 60 & sleep 60; echo not reached"), 0);
	assert_true(result.timed_out);
	assert_int_equal(result.signal, SIGKILL);
	assert_string_equal(output(), "");
	img_run_result_done(&result);
}

static void output_beyond_the_limit_is_cut(void **state)
{
	if (!can_run)
		skip();
	assert_int_equal(run_shell((struct img_run){ .capture_bytes = 10 },
	                           "i=0; while [ $i -lt 5000 ]; do echo line $i; i=$((i+1)); done; exit 3"),
	                 0);
	assert_int_equal(result.exit_code, 3);
	assert_true(result.out_was_cut);
	assert_string_equal(output(), "line 0\nlin");
	img_run_result_done(&result);
}

static void what_is_left_in_the_background_ends_with_the_command(void **state)
{
	if (!can_run)
		skip();
	assert_int_equal(run_shell((struct img_run){ 0 }, "sleep 600 & echo done"), 0);
	assert_string_equal(output(), "done\n");
	assert_int_equal(result.exit_code, 0);
	img_run_result_done(&result);
}

static void several_roots_are_one(void **state)
{
	char upper[96], command[256];
	const char *two[2] = { test_root_dir, upper };
	const char *argv[] = { "cat", "/data/deep/file", "/etc/more", NULL };
	struct img_run run = { .argv = argv, .roots = two, .n_roots = 2, .capture = true };
	struct err err = { 0 };

	if (!can_run)
		skip();
	(void)snprintf(upper, sizeof(upper), "%s,a:b", test_root_dir);
	(void)snprintf(command, sizeof(command), "mkdir -p %s/etc && echo upper >%s/etc/more", upper, upper);
	assert_int_equal(test_shell(command), 0);
	assert_int_equal(img_run(&run, &result, &err), 0);
	assert_string_equal(output(), "deep\nupper\n");
	assert_int_equal(result.exit_code, 0);
	img_run_result_done(&result);
	(void)snprintf(command, sizeof(command), "rm -rf %s", upper);
	assert_int_equal(test_shell(command), 0);
}

static void links_of_a_hostile_root_lead_nowhere_outside(void **state)
{
	char evil[96], outside[96], command[1024];
	const char *one[1] = { evil };
	const char *argv[] = { "/bin/sh", "-c", "echo harm >/etc/harm; echo ran", NULL };
	struct img_run run = { .argv = argv, .roots = one, .n_roots = 1, .capture = true, .cwd = "/area/dir" };
	struct err err = { 0 };

	if (!can_run)
		skip();
	(void)snprintf(evil, sizeof(evil), "%s-evil", test_root_dir);
	(void)snprintf(outside, sizeof(outside), "%s-outside", test_root_dir);
	(void)snprintf(command, sizeof(command),
	               "cp -a %s %s && mkdir %s && cd %s && rm -rf etc && ln -s %s etc && ln -s %s dev && ln -s %s "
	               "proc && ln -s %s area",
	               test_root_dir, evil, outside, evil, outside, outside, outside, outside);
	assert_int_equal(test_shell(command), 0);
	(void)img_run(&run, &result, &err); /* may fail or run, but not do harm */
	img_run_result_done(&result);
	(void)snprintf(command, sizeof(command), "test -z \"$(ls -A %s)\"", outside);
	assert_int_equal(test_shell(command), 0);
	(void)snprintf(command, sizeof(command), "rm -rf %s %s", evil, outside);
	assert_int_equal(test_shell(command), 0);
}

static void without_a_root_it_is_the_hosts(void **state)
{
	const char *argv[] = { "sh", "-c", "echo $PPID; exit 4", NULL };
	struct img_run run = { .argv = argv, .capture = true, .cwd = "/tmp" };
	struct err err = { 0 };

	assert_int_equal(img_run(&run, &result, &err), 0);
	assert_int_equal(result.exit_code, 4);
	assert_int_equal(strtol(output(), NULL, 10), getpid());
	assert_true(result.wall_ns > 0);
	img_run_result_done(&result);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(output_and_exit_code_are_the_commands_own),
		cmocka_unit_test(a_signal_is_told),
		cmocka_unit_test(the_root_is_not_changed_but_changes_are_told),
		cmocka_unit_test(it_sees_its_own_processes_and_devices),
		cmocka_unit_test(user_and_groups_come_from_the_roots_files),
		cmocka_unit_test(a_command_that_is_not_there_is_an_error_with_its_name),
		cmocka_unit_test(time_is_limited_for_all_processes),
		cmocka_unit_test(output_beyond_the_limit_is_cut),
		cmocka_unit_test(what_is_left_in_the_background_ends_with_the_command),
		cmocka_unit_test(several_roots_are_one),
		cmocka_unit_test(links_of_a_hostile_root_lead_nowhere_outside),
		cmocka_unit_test(without_a_root_it_is_the_hosts),
	};

	return cmocka_run_group_tests(tests, make, unmake);
}
