/* Records and their file. */
#include <errno.h>
#include <unistd.h>

#include "test.h"

#include "trace/trace.h"

static struct img_trace_record record(const char *path, enum img_access access, uint32_t pid, uint64_t ns)
{
	return (struct img_trace_record){
		.path = path, .access = access, .pid = pid, .count = 1, .first_ns = ns, .last_ns = ns
	};
}

static void add(struct img_trace *t, const char *path, enum img_access access, uint32_t pid, uint64_t ns)
{
	struct img_trace_record r = record(path, access, pid, ns);

	assert_int_equal(img_trace_add(t, &r), 0);
}

static void the_same_again_is_counted(void **state)
{
	struct img_trace *t = img_trace_new();

	(void)state;
	add(t, "/a", IMG_ACCESS_OPEN, 1, 10);
	add(t, "/a", IMG_ACCESS_OPEN, 1, 30);
	add(t, "/a", IMG_ACCESS_STAT, 1, 40);
	add(t, "/a", IMG_ACCESS_OPEN, 2, 50);
	assert_int_equal(img_trace_count(t), 3);
	assert_int_equal(img_trace_at(t, 0)->count, 2);
	assert_int_equal(img_trace_at(t, 0)->first_ns, 10);
	assert_int_equal(img_trace_at(t, 0)->last_ns, 30);
	img_trace_free(t);
}

static void records_are_in_the_order_of_time(void **state)
{
	struct img_trace *t = img_trace_new();

	(void)state;
	add(t, "/late", IMG_ACCESS_OPEN, 1, 300);
	add(t, "/early", IMG_ACCESS_OPEN, 1, 100);
	add(t, "/middle", IMG_ACCESS_OPEN, 1, 200);
	add(t, "/middle-too", IMG_ACCESS_OPEN, 1, 200);
	add(t, "/late", IMG_ACCESS_OPEN, 1, 50); /* known, and earlier than thought */
	assert_string_equal(img_trace_at(t, 0)->path, "/late");
	assert_string_equal(img_trace_at(t, 1)->path, "/early");
	assert_string_equal(img_trace_at(t, 2)->path, "/middle");
	assert_string_equal(img_trace_at(t, 3)->path, "/middle-too");
	assert_int_equal(img_trace_at(t, 0)->last_ns, 300);
	img_trace_free(t);
}

static void paths_that_are_not_normal_are_refused(void **state)
{
	static const char *const bad[] = { "", "a", "/a/", "//a", "/a//b", "/./a", "/a/..", "/..", "." };
	static const char *const good[] = { "/", "/a", "/a/b", "/...", "/.a", "/a/..b" };
	struct img_trace *t = img_trace_new();

	(void)state;
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		struct img_trace_record r = record(bad[i], IMG_ACCESS_OPEN, 1, 0);

		assert_int_equal(img_trace_add(t, &r), -EINVAL);
	}
	for (size_t i = 0; i < sizeof(good) / sizeof(good[0]); i++)
		add(t, good[i], IMG_ACCESS_OPEN, 1, 0);
	img_trace_free(t);
}

static void all_of_a_trace_goes_through_its_file(void **state)
{
	static const char path[] = "/tab\there/new\nline/back\\slash/\xc3\xa4/\xff\x7f/quote'\"";
	struct img_trace *t = img_trace_new(), *back = NULL;
	struct img_trace_process p = { 1, 0, "/bin/a b", "a 'b c'\n", -1 };
	struct img_trace_record r = { path, IMG_ACCESS_MISS, 7, 3, 5, 1ull << 40, 1ull << 50, ENOTDIR };
	struct err err = { 0 };
	char file[] = "/tmp/test-trace-XXXXXX";
	int fd = mkstemp(file);

	(void)state;
	(void)close(fd);
	assert_int_equal(img_trace_add(t, &r), 0);
	assert_int_equal(img_trace_add_process(t, &p), 0);
	p = (struct img_trace_process){ 2, 1, "", "", 139 };
	assert_int_equal(img_trace_add_process(t, &p), 0);
	for (int a = 0; a < IMG_N_ACCESS; a++)
		add(t, "/x", (enum img_access)a, 2, 100 + (uint64_t)a);
	assert_int_equal(img_trace_write(t, file, &err), 0);
	assert_int_equal(img_trace_read(file, &back, &err), 0);
	assert_int_equal(img_trace_count(back), 1 + IMG_N_ACCESS);
	assert_string_equal(img_trace_at(back, 0)->path, path);
	assert_int_equal(img_trace_at(back, 0)->count, 3);
	assert_int_equal(img_trace_at(back, 0)->pid, 7);
	assert_int_equal(img_trace_at(back, 0)->first_ns, 5);
	assert_true(img_trace_at(back, 0)->last_ns == 1ull << 40);
	assert_true(img_trace_at(back, 0)->size == 1ull << 50);
	assert_int_equal(img_trace_at(back, 0)->error, ENOTDIR);
	for (int a = 0; a < IMG_N_ACCESS; a++)
		assert_int_equal(img_trace_at(back, (size_t)a + 1)->access, a);
	assert_int_equal(img_trace_n_processes(back), 2);
	assert_string_equal(img_trace_process_at(back, 0)->cmdline, "a 'b c'\n");
	assert_string_equal(img_trace_process_at(back, 0)->program, "/bin/a b");
	assert_int_equal(img_trace_process_at(back, 0)->exit_code, -1);
	assert_int_equal(img_trace_process_at(back, 1)->exit_code, 139);
	(void)unlink(file);
	img_trace_free(t);
	img_trace_free(back);
}

static void a_bad_file_is_refused_with_its_line(void **state)
{
	static const struct {
		const char *text, *words;
	} cases[] = {
		{ "", "empty" },
		{ "something else\n", "line 1: not a trace" },
		{ "slimtrace-trace 2\n", "line 1: this version" },
		{ "slimtrace-trace 1\n", "\"end\" is missing" },
		{ "slimtrace-trace 1\nend\t0\t0", "line 2: the line has no end" },
		{ "slimtrace-trace 1\nend\t0\t1\n", "line 2: the counts" },
		{ "slimtrace-trace 1\nend\t0\t0\nopen\t1\t1\t1\t1\t1\t0\t/a\n", "line 3: a line after" },
		{ "slimtrace-trace 1\nopne\t1\t1\t1\t1\t1\t0\t/a\n", "line 2: \"opne\"" },
		{ "slimtrace-trace 1\nopen\t1\t1\t1\t1\t1\t/a\n", "line 2: a record has 8 fields" },
		{ "slimtrace-trace 1\nopen\t1\t1\t2\t1\t1\t0\t/a\n", "line 2: the last time" },
		{ "slimtrace-trace 1\nopen\t1\t0\t1\t1\t1\t0\t/a\n", "line 2: the count is 0" },
		{ "slimtrace-trace 1\nopen\t-1\t1\t1\t1\t1\t0\t/a\n", "the number of the process: \"-1\"" },
		{ "slimtrace-trace 1\nopen\t1\t4294967296\t1\t1\t1\t0\t/a\n", "the count: \"4294967296\"" },
		{ "slimtrace-trace 1\nopen\t1\t1\t99999999999999999999\t1\t1\t0\t/a\n", "the first time" },
		{ "slimtrace-trace 1\nopen\t1\t1\t1\t1\t\t0\t/a\n", "the size is empty" },
		{ "slimtrace-trace 1\n# comment\n\nopen\t1\t1\t1\t1\t1\t0\t/a/../b\n", "line 4: the path is not" },
		{ "slimtrace-trace 1\nopen\t1\t1\t1\t1\t1\t0\t/a\\x0\n", "line 2: a backslash" },
		{ "slimtrace-trace 1\nopen\t1\t1\t1\t1\t1\t0\t/a\\x00\n", "line 2: a backslash" },
		{ "slimtrace-trace 1\nprocess\t1\t0\tx\t/a\tb\n", "line 2: the exit status" },
		{ "slimtrace-trace 1\nprocess\t1\t0\t0\t/a\n", "line 2: a process has 6 fields" },
	};

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		struct img_trace *t = NULL;
		struct err err = { 0 };

		assert_int_equal(img_trace_parse(cases[i].text, strlen(cases[i].text), "x.trace", &t, &err), -EBADMSG);
		assert_null(t);
		assert_non_null(strstr(err_text(&err), "x.trace"));
		if (!strstr(err_text(&err), cases[i].words))
			fail_msg("case %zu: %s", i, err_text(&err));
	}
}

static void a_merge_renumbers_processes_and_keeps_times(void **state)
{
	struct img_trace *a = img_trace_new(), *b = img_trace_new();
	struct img_trace_process p = { 1, 0, "/bin/a", "a", 0 }, q = { 2, 1, "/bin/b", "b", 0 };

	(void)state;
	assert_int_equal(img_trace_add_process(a, &p), 0);
	assert_int_equal(img_trace_add_process(b, &p), 0);
	assert_int_equal(img_trace_add_process(b, &q), 0);
	add(a, "/x", IMG_ACCESS_OPEN, 1, 20);
	add(b, "/x", IMG_ACCESS_OPEN, 2, 10);
	add(b, "/y", IMG_ACCESS_OPEN, 1, 30);
	assert_int_equal(img_trace_merge(a, b), 0);
	assert_int_equal(img_trace_n_processes(a), 3);
	assert_int_equal(img_trace_process_at(a, 2)->pid, 3);
	assert_int_equal(img_trace_process_at(a, 2)->parent, 2);
	assert_int_equal(img_trace_count(a), 3);
	assert_string_equal(img_trace_at(a, 0)->path, "/x");
	assert_int_equal(img_trace_at(a, 0)->pid, 3);
	assert_int_equal(img_trace_at(a, 1)->pid, 1);
	assert_int_equal(img_trace_at(a, 2)->pid, 2);
	assert_int_equal(img_trace_merge(a, a), -EINVAL);
	img_trace_free(a);
	img_trace_free(b);
}

static void many_records_are_found_again(void **state)
{
	struct img_trace *t = img_trace_new();

	(void)state;
	for (unsigned round = 0; round < 2; round++) {
		for (unsigned i = 0; i < 20000; i++) {
			char path[32];

			(void)snprintf(path, sizeof(path), "/dir%u/file%u", i % 100, i);
			add(t, path, IMG_ACCESS_OPEN, 1, round * 20000 + i);
		}
	}
	assert_int_equal(img_trace_count(t), 20000);
	assert_int_equal(img_trace_at(t, 19999)->count, 2);
	img_trace_free(t);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(the_same_again_is_counted),
		cmocka_unit_test(records_are_in_the_order_of_time),
		cmocka_unit_test(paths_that_are_not_normal_are_refused),
		cmocka_unit_test(all_of_a_trace_goes_through_its_file),
		cmocka_unit_test(a_bad_file_is_refused_with_its_line),
		cmocka_unit_test(a_merge_renumbers_processes_and_keeps_times),
		cmocka_unit_test(many_records_are_found_again),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
