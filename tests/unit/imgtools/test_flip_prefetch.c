/* Prefetch lists. */
#include <errno.h>
#include <unistd.h>

#include "test.h"

#include "lazy/prefetch.h"
#include "trace/trace.h"

static int parse(const char *text, struct flip_prefetch *list, struct err *err)
{
	return flip_prefetch_parse(text, strlen(text), "list", list, err);
}

static void a_list_is_read_and_written_the_same(void **state)
{
	static const char text[] = "flip-prefetch 1\n/usr/bin/a b 0 65536\n/x 5 -\n/x 18446744073709551 1\n";
	struct base_buf b = BASE_BUF_INIT(1 << 16);
	struct flip_prefetch list = { 0 };

	(void)state;
	assert_int_equal(parse(text, &list, NULL), 0);
	assert_int_equal(list.n, 3);
	assert_string_equal(list.items[0].path, "/usr/bin/a b");
	assert_true(list.items[1].size == UINT64_MAX);
	assert_int_equal(flip_prefetch_append(&list, &b), 0);
	assert_string_equal(base_buf_text(&b), text);
	base_buf_done(&b);
	flip_prefetch_done(&list);
}

static void comments_and_empty_lines_are_passed_over(void **state)
{
	struct flip_prefetch list = { 0 };

	(void)state;
	assert_int_equal(parse("flip-prefetch 1\n# made by hand\n\n/a 0 1", &list, NULL), 0);
	assert_int_equal(list.n, 1);
	flip_prefetch_done(&list);
}

static void wrong_lines_are_named(void **state)
{
	static const char *const bad[] = { "/a 0",
		                           "/a 0 0",
		                           "/a x 1",
		                           "a 0 1",
		                           "/a/../b 0 1",
		                           "/ 0 1",
		                           "/a 0 -1",
		                           "/a - 1",
		                           " 0 1",
		                           "/a  1",
		                           "/a 0 99999999999999999999",
		                           "/a 9999999999999999999 9999999999999999999" };
	char text[256];

	(void)state;
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		struct flip_prefetch list = { 0 };
		struct err err = { 0 };

		(void)snprintf(text, sizeof(text), "flip-prefetch 1\n/ok 0 1\n%s\n", bad[i]);
		if (parse(text, &list, &err) != -EBADMSG)
			fail_msg("taken: '%s'", bad[i]);
		assert_non_null(strstr(err.msg, "list:3"));
		assert_int_equal(list.n, 0);
	}
	assert_int_equal(parse("", &(struct flip_prefetch){ 0 }, NULL), -EBADMSG);
	assert_int_equal(parse("flip-prefetch 2\n", &(struct flip_prefetch){ 0 }, NULL), -EBADMSG);
}

static void a_trace_gives_what_was_read_once_in_order(void **state)
{
	static const struct {
		const char *path;
		enum img_access access;
	} records[] = { { "/bin/sh", IMG_ACCESS_EXEC }, { "/lib/ld.so", IMG_ACCESS_KERNEL },
		        { "/etc", IMG_ACCESS_READDIR }, { "/etc/x", IMG_ACCESS_STAT },
		        { "/a", IMG_ACCESS_OPEN },      { "/bin/sh", IMG_ACCESS_OPEN },
		        { "/new", IMG_ACCESS_CREATE },  { "/none", IMG_ACCESS_MISS },
		        { "/etc/x", IMG_ACCESS_OPEN } };
	static const char *const want[] = { "/bin/sh", "/lib/ld.so", "/a", "/etc/x" };
	char path[] = "/tmp/flip-prefetch-XXXXXX";
	struct img_trace *t = img_trace_new();
	struct flip_prefetch list = { 0 };
	struct err err = { 0 };
	int fd = mkstemp(path);

	(void)state;
	for (size_t i = 0; i < sizeof(records) / sizeof(records[0]); i++) {
		struct img_trace_record r = { .path = records[i].path,
			                      .access = records[i].access,
			                      .pid = 1,
			                      .count = 1,
			                      .first_ns = 10 * i,
			                      .last_ns = 10 * i };

		if (r.access == IMG_ACCESS_MISS)
			r.error = ENOENT;
		assert_int_equal(img_trace_add(t, &r), 0);
	}
	assert_int_equal(img_trace_write(t, path, &err), 0);
	assert_int_equal(flip_prefetch_from_trace(path, &list, &err), 0);
	assert_int_equal(list.n, 4);
	for (size_t i = 0; i < 4; i++) {
		assert_string_equal(list.items[i].path, want[i]);
		assert_true(list.items[i].size == UINT64_MAX);
	}
	flip_prefetch_done(&list);
	img_trace_free(t);
	close(fd);
	unlink(path);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_list_is_read_and_written_the_same),
		cmocka_unit_test(comments_and_empty_lines_are_passed_over),
		cmocka_unit_test(wrong_lines_are_named),
		cmocka_unit_test(a_trace_gives_what_was_read_once_in_order),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
