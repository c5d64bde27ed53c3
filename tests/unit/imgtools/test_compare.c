/* The same command in a full and a slim root. */
#include <errno.h>

#include "test_root.h"

#include "runtime/compare.h"

static bool can_run;
static char slim[96];
static struct img_comparison c;

static int make(void **state)
{
	(void)state;
	can_run = test_has_namespaces() && test_root_make() == 0;
	(void)snprintf(slim, sizeof(slim), "%s-slim", test_root_dir);
	return 0;
}

static int unmake(void **state)
{
	char command[128];

	(void)state;
	test_root_remove();
	(void)snprintf(command, sizeof(command), "rm -rf %s", slim);
	return test_shell(command);
}

/* A copy of the root without some of its paths. */
static void make_slim(const char *without)
{
	char command[512];

	(void)snprintf(command, sizeof(command), "rm -rf %s && cp -a %s %s && cd %s && rm -rf %s", slim, test_root_dir,
	               slim, slim, without);
	assert_int_equal(test_shell(command), 0);
}

static void compare(const char *command)
{
	const char *argv[] = { "sh", "-c", command, NULL };
	struct img_run run = { .argv = argv, .timeout_ms = 60000 };
	struct err err = { 0 };
	int r = img_compare(&run, test_root_dir, slim, &c, &err);

	if (r < 0)
		fail_msg("%s", err_text(&err));
}

static bool tells(const char *words)
{
	return strstr(base_buf_text(&c.differences), words) != NULL;
}

static void equal_roots_are_equal(void **state)
{
	if (!can_run)
		skip();
	make_slim("data/link");
	compare("cat /data/deep/file; echo pid $$ is $$ >&2; echo x >/etc/new; cat /nothing; exit 3");
	if (!c.is_equal)
		fail_msg("%s", base_buf_text(&c.differences));
	assert_int_equal(c.full.exit_code, 3);
	assert_int_equal(c.n_missing, 0);
	img_comparison_done(&c);
}

static void a_missing_file_is_found_first(void **state)
{
	if (!can_run)
		skip();
	make_slim("data/deep/file etc/group bin/id");
	compare("ls /nothing; test -e /etc/group; cat /data/absolute || exit 5; id -u");
	assert_false(c.is_equal);
	assert_true(tells("exit status: 0 in the full root, 5 in the slim one"));
	assert_true(tells("output: \"deep\""));
	assert_true(c.n_missing >= 3);
	assert_string_equal(c.missing[0].path, "/data/deep/file");
	assert_int_equal(c.missing[0].why, IMG_MISSING_USED);
	assert_string_equal(c.missing[1].path, "/etc/group");
	assert_int_equal(c.missing[1].why, IMG_MISSING_LOOKED);
	assert_string_equal(c.missing[2].path, "/bin/id");
	assert_int_equal(c.missing[2].why, IMG_MISSING_NEXT);
	img_comparison_done(&c);
}

static void a_missing_link_and_a_missing_library_are_found(void **state)
{
	bool has_link = false, has_library = false;

	if (!can_run)
		skip();
	make_slim("data/link \"$(find . -name 'libselinux.so*' -o -name 'libc.so*' | head -n 1)\"");
	compare("ls /data; cat /data/absolute");
	assert_false(c.is_equal);
	for (size_t i = 0; i < c.n_missing; i++) {
		has_link |= strcmp(c.missing[i].path, "/data/link") == 0;
		has_library |= strstr(c.missing[i].path, ".so") != NULL;
	}
	assert_true(has_link);
	assert_true(has_library);
	img_comparison_done(&c);
}

static void a_command_that_cannot_start_is_a_difference(void **state)
{
	if (!can_run)
		skip();
	make_slim("bin/sh");
	compare("true");
	assert_false(c.is_equal);
	assert_true(tells("sh: No such file or directory, in the slim root"));
	assert_int_equal(c.n_missing, 1);
	assert_string_equal(c.missing[0].path, "/bin/sh");
	img_comparison_done(&c);
	/* The loader: nothing looks for it but the kernel. */
	make_slim("\"$(find . -name 'ld-linux*' -o -name 'ld64*' | head -n 1)\"");
	compare("true");
	assert_false(c.is_equal);
	assert_true(c.n_missing >= 1);
	assert_non_null(strstr(c.missing[0].path, "/ld"));
	img_comparison_done(&c);
}

static void what_is_written_is_compared(void **state)
{
	if (!can_run)
		skip();
	make_slim("data/deep/file");
	compare("cat /data/deep/file >/etc/copy 2>/dev/null; echo same >/etc/same; echo $$ >/tmp/other; true");
	assert_false(c.is_equal);
	assert_true(tells("/etc/copy: added in the full root, differently in the slim one"));
	assert_false(tells("/etc/same"));
	assert_false(tells("/tmp"));
	assert_string_equal(c.missing[0].path, "/data/deep/file");
	img_comparison_done(&c);
}

static void what_differs_from_run_to_run_is_no_difference(void **state)
{
	if (!can_run)
		skip();
	make_slim("data/deep/file");
	compare("echo start; cat /proc/sys/kernel/random/uuid; cat /proc/uptime; read x </proc/sys/kernel/random/uuid; "
	        "echo \"${x%%-*}\" ; echo $x >/etc/random; echo end");
	if (!c.is_equal)
		fail_msg("%s", base_buf_text(&c.differences));
	img_comparison_done(&c);
}

static void volatile_parts_of_text_are_masked(void **state)
{
	static const struct {
		const char *text, *masked;
	} cases[] = {
		{ "<object at 0x7f12ab34cd56>", "<object at ?>" },
		{ "0x1f stays", "0x1f stays" },
		{ "2026-01-31 12:34:56.789 done", "? ? done" },
		{ "took 1.53 ms, then 12 seconds, 3s", "took ? ms, then ? seconds, ?s" },
		{ "version 1.2.3, 17 files", "version 1.2.3, 17 files" },
		{ "pid 123, PID: 7, pid=9 rapid 5", "pid ?, PID: ?, pid=? rapid 5" },
		{ "at 1700000000.25 and 1234567890", "at ? and ?" },
		{ "/tmp/tmpab12_x/file and /var/tmp/y", "?/file and ?" },
		{ "id 123e4567-e89b-12d3-a456-426614174000.", "id ?." },
		{ "", "" },
	};

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		struct base_buf b = BASE_BUF_INIT(1000);

		assert_int_equal(img_volatile_mask(cases[i].text, strlen(cases[i].text), &b), 0);
		assert_string_equal(base_buf_text(&b), cases[i].masked);
		base_buf_done(&b);
	}
}

static void caches_and_temporary_folders_are_volatile(void **state)
{
	(void)state;
	assert_true(img_volatile_path("/tmp/x"));
	assert_true(img_volatile_path("/usr/lib/python3/__pycache__/x.pyc"));
	assert_true(img_volatile_path("/root/.cache"));
	assert_true(img_volatile_path("/var/cache/ldconfig/aux-cache"));
	assert_false(img_volatile_path("/tmpfiles"));
	assert_false(img_volatile_path("/etc/.cached"));
	assert_false(img_volatile_path("/var/lib/x"));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(equal_roots_are_equal),
		cmocka_unit_test(a_missing_file_is_found_first),
		cmocka_unit_test(a_missing_link_and_a_missing_library_are_found),
		cmocka_unit_test(a_command_that_cannot_start_is_a_difference),
		cmocka_unit_test(what_is_written_is_compared),
		cmocka_unit_test(what_differs_from_run_to_run_is_no_difference),
		cmocka_unit_test(volatile_parts_of_text_are_masked),
		cmocka_unit_test(caches_and_temporary_folders_are_volatile),
	};

	return cmocka_run_group_tests(tests, make, unmake);
}
