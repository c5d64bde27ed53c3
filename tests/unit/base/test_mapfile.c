#include "base/mapfile.h"

#include <errno.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "test.h"

static char dir[64];
static char path[128];

static int set_up(void **state)
{
	(void)state;
	(void)snprintf(dir, sizeof(dir), "/tmp/test-mapfile-XXXXXX");
	if (!mkdtemp(dir))
		return -1;
	(void)snprintf(path, sizeof(path), "%s/file", dir);
	return 0;
}

static int tear_down(void **state)
{
	(void)state;
	(void)unlink(path);
	return rmdir(dir); /* nothing else may be left in it */
}

static void what_is_written_can_be_mapped_and_read(void **state)
{
	struct base_buf b = BASE_BUF_INIT(100);
	struct base_mapfile map;
	struct stat st;

	(void)state;
	assert_int_equal(base_write_file_atomic(path, "a\0b", 3, 0640, NULL), 0);
	assert_int_equal(stat(path, &st), 0);
	assert_int_equal(st.st_mode & 0777, 0640);
	assert_int_equal(base_mapfile_open(path, &map, NULL), 0);
	assert_int_equal(map.size_bytes, 3);
	assert_memory_equal(map.data, "a\0b", 3);
	assert_int_equal(base_read_file(path, &b, NULL), 0);
	assert_int_equal(b.len, 3);
	assert_memory_equal(b.data, "a\0b", 4);
	base_buf_done(&b);

	/* A mapping stays what it was when the file is replaced. */
	assert_int_equal(base_write_file_atomic(path, "other", 5, 0600, NULL), 0);
	assert_memory_equal(map.data, "a\0b", 3);
	base_mapfile_close(&map);
	assert_null(map.data);
	base_mapfile_close(&map);
}

/* Its pages are let go, never its bytes; any range inside the file will do. */
static void a_cooled_mapping_reads_as_before(void **state)
{
	enum { BYTES = 50001 };
	static char text[BYTES];
	struct base_mapfile map;

	(void)state;
	for (size_t i = 0; i < BYTES; i++)
		text[i] = (char)(i * 31 >> 3);
	assert_int_equal(base_write_file_atomic(path, text, BYTES, 0640, NULL), 0);
	assert_int_equal(base_mapfile_open(path, &map, NULL), 0);
	for (size_t from = 0; from < BYTES; from += 3001) {
		base_mapfile_cool_part(&map, map.data + from, (BYTES - from) / 2);
		base_mapfile_cool_part(&map, map.data + from, BYTES - from);
		assert_memory_equal(map.data, text, BYTES);
	}
	base_mapfile_cool(&map);
	assert_memory_equal(map.data, text, BYTES);
	base_mapfile_close(&map);
}

static void an_empty_file_is_no_error(void **state)
{
	struct base_buf b = BASE_BUF_INIT(100);
	struct base_mapfile map = { .size_bytes = 9 };

	(void)state;
	assert_int_equal(base_write_file_atomic(path, NULL, 0, 0600, NULL), 0);
	assert_int_equal(base_mapfile_open(path, &map, NULL), 0);
	assert_null(map.data);
	assert_int_equal(map.size_bytes, 0);
	assert_int_equal(base_read_file(path, &b, NULL), 0);
	assert_string_equal(base_buf_text(&b), "");
	base_mapfile_close(&map);
	base_buf_done(&b);
}

static void only_regular_files_are_mapped(void **state)
{
	struct base_mapfile map = { .size_bytes = 9 };
	struct err err = { 0 };

	(void)state;
	assert_int_equal(base_mapfile_open(dir, &map, &err), -EISDIR);
	assert_int_equal(base_mapfile_open("/dev/null", &map, &err), -EINVAL);
	assert_int_equal(base_mapfile_open(path, &map, &err), -ENOENT);
	assert_non_null(strstr(err_text(&err), path));
	assert_int_equal(map.size_bytes, 9);
}

static void a_file_over_the_limit_is_refused(void **state)
{
	struct base_buf b = BASE_BUF_INIT(4);

	(void)state;
	assert_int_equal(base_write_file_atomic(path, "12345", 5, 0600, NULL), 0);
	assert_int_equal(base_read_file(path, &b, NULL), -EFBIG);
	base_buf_done(&b);
}

static void a_failed_write_leaves_nothing(void **state)
{
	char inside[256];
	struct err err = { 0 };

	(void)state;
	(void)snprintf(inside, sizeof(inside), "%s/no/such/dir", dir);
	assert_int_equal(base_write_file_atomic(inside, "x", 1, 0600, &err), -ENOENT);
	/* The target is a folder: the rename fails after the data was written. What was written beside it is gone, or
	 * the folder could not be removed below. */
	(void)snprintf(inside, sizeof(inside), "%s/file", dir);
	assert_int_equal(mkdir(inside, 0700), 0);
	assert_true(base_write_file_atomic(inside, "x", 1, 0600, &err) < 0);
	assert_int_equal(rmdir(inside), 0);
}

static void folders_are_made_with_those_above_them(void **state)
{
	char inside[256], file[256];
	struct err err = { 0 };
	struct stat st;

	(void)state;
	(void)snprintf(inside, sizeof(inside), "%s/a/b", dir);
	(void)snprintf(file, sizeof(file), "%s/a/b/c", dir);
	assert_int_equal(base_make_parents(file, 0700, &err), 0);
	assert_int_equal(stat(inside, &st), 0);
	assert_true(S_ISDIR(st.st_mode) && (st.st_mode & 0777) == 0700);
	assert_int_equal(stat(file, &st), -1); /* those above it only */
	assert_int_equal(base_make_folders(file, 0700, &err), 0);
	assert_int_equal(base_make_folders(file, 0755, &err), 0); /* there already: as it is */
	assert_int_equal(stat(file, &st), 0);
	assert_int_equal(st.st_mode & 0777, 0700);
	assert_int_equal(rmdir(file) | rmdir(inside), 0);
	(void)snprintf(inside, sizeof(inside), "%s/a", dir);
	assert_int_equal(rmdir(inside), 0);
	assert_int_equal(base_write_file_atomic(path, "x", 1, 0600, NULL), 0);
	(void)snprintf(inside, sizeof(inside), "%s/b", path);
	assert_int_equal(base_make_folders(inside, 0700, &err), -ENOTDIR);
	assert_non_null(strstr(err_text(&err), path));
}

static void a_name_too_long_for_a_folder_is_refused(void **state)
{
	char longer[5000];

	(void)state;
	memset(longer, 'x', sizeof(longer) - 1);
	longer[sizeof(longer) - 1] = '\0';
	assert_int_equal(base_make_folders(longer, 0700, NULL), -ENAMETOOLONG);
}

#define IN_A_DIR(test) cmocka_unit_test_setup_teardown(test, set_up, tear_down)

struct seen {
	char names[256];
	int fail_at; /* the n-th call fails; 0: none */
};

static int see(void *arg, const char *at, struct err *err)
{
	struct seen *s = arg;

	(void)snprintf(s->names + strlen(s->names), sizeof(s->names) - strlen(s->names), "%s ", strrchr(at, '/') + 1);
	return s->fail_at && --s->fail_at == 0 ? err_set(err, -EDOM, "%s: enough", at) : 0;
}

static void files_of_a_folder_come_by_the_bytes_of_their_names(void **state)
{
	static const char *const names[] = { "b.x", "a.x", "B.x", ".x", ".a.x", "a.y", "x" };
	struct seen all = { 0 }, some = { .fail_at = 2 }, one = { 0 }, none = { 0 };
	struct err err = { 0 };
	char file[128];

	(void)state;
	for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
		(void)snprintf(file, sizeof(file), "%s/%s", dir, names[i]);
		assert_int_equal(base_write_file_atomic(file, "", 0, 0600, NULL), 0);
	}
	assert_int_equal(base_each_file(dir, ".x", see, &all, &err), 0);
	assert_string_equal(all.names, ".a.x B.x a.x b.x ");
	assert_int_equal(base_each_file(dir, ".x", see, &some, &err), -EDOM);
	assert_string_equal(some.names, ".a.x B.x ");
	assert_int_equal(base_each_file(file, ".y", see, &one, &err), 0); /* no folder */
	assert_string_equal(one.names, "x ");
	for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
		(void)snprintf(file, sizeof(file), "%s/%s", dir, names[i]);
		assert_int_equal(unlink(file), 0);
	}
	assert_int_equal(base_each_file(file, ".x", see, &none, &err), -ENOENT);
	assert_string_equal(none.names, "");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		IN_A_DIR(what_is_written_can_be_mapped_and_read),
		IN_A_DIR(a_cooled_mapping_reads_as_before),
		IN_A_DIR(an_empty_file_is_no_error),
		IN_A_DIR(only_regular_files_are_mapped),
		IN_A_DIR(a_file_over_the_limit_is_refused),
		IN_A_DIR(a_failed_write_leaves_nothing),
		IN_A_DIR(folders_are_made_with_those_above_them),
		cmocka_unit_test(a_name_too_long_for_a_folder_is_refused),
		cmocka_unit_test_setup_teardown(files_of_a_folder_come_by_the_bytes_of_their_names, set_up, tear_down),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
