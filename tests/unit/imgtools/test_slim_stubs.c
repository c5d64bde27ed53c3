/* Which libraries nobody uses: from what the dynamic linker says, on real libraries of this machine. */
#include <errno.h>
#include <limits.h>

#include "elf/elf_stub.h"
#include "slim/slim.h"
#include "tree_test.h"

static const char *find_library(const char *name)
{
	static const char *const dirs[] = { "/usr/lib/x86_64-linux-gnu", "/lib/x86_64-linux-gnu", "/usr/lib64",
		                            "/usr/lib" };
	static char path[512];

	for (size_t i = 0; i < sizeof(dirs) / sizeof(*dirs); i++) {
		(void)snprintf(path, sizeof(path), "%s/%s", dirs[i], name);
		if (access(path, R_OK) == 0)
			return path;
	}
	return NULL;
}

static struct img_node *add_library(struct img_tree *t, const char *path, const char *name)
{
	const char *source = find_library(name);
	char real[PATH_MAX];
	struct stat st;

	if (!source || !realpath(source, real) || stat(real, &st) < 0)
		skip();
	return add_node(
	        t,
	        (struct img_node){
	                .path = path, .type = IMG_FILE, .mode = 0755, .size = (uint64_t)st.st_size, .source = real });
}

static struct img_bindings *bindings_of(const char *text)
{
	struct img_bindings *b = img_bindings_new();

	assert_int_equal(img_bindings_parse(b, text, strlen(text)), 0);
	return b;
}

static void lines_of_the_dynamic_linker_are_read(void **state)
{
	struct img_bindings *b = bindings_of(
	        "      1:\tbinding file prog [0] to /l/a.so [0]: normal symbol `f' [V1]\n"
	        "      1:\tbinding file /l/a.so [0] to /l/b.so [0]: normal symbol `g'\n"
	        "      1:\tbinding file /l/a.so [0] to /l/a.so [0]: normal symbol `own'\n"
	        "      1:\tbinding file /l/a.so [0] to \n      1:\tbinding file\n      1:\tfile=\n"
	        "      1:\tcalling init: /l/a.so\n      1:\tfile=m.so [0];  dynamically loaded by /l/a.so [0]\n");

	(void)state;
	assert_int_equal(img_bindings_count(b), 2);
	img_bindings_free(b);
}

/* prog uses libz; libsqlite3 is loaded by libz's side and used by nobody that is reached. */
static void library_that_nothing_reached_binds_to_is_replaced(void **state)
{
	struct img_tree *t = img_tree_new();
	struct img_bindings *b;
	struct img_stub_result r;
	struct img_node *used, *unused;
	uint64_t before;

	(void)state;
	used = add_library(t, "/l/libz.so.1", "libz.so.1");
	unused = add_library(t, "/l/libsqlite3.so.0", "libsqlite3.so.0");
	before = unused->size;
	b = bindings_of("1:\tcalling init: /l/libz.so.1\n1:\tcalling init: /l/libsqlite3.so.0\n"
	                "1:\tbinding file prog [0] to /l/libz.so.1 [0]: normal symbol `crc32'\n"
	                "1:\tbinding file /l/libsqlite3.so.0 [0] to /l/libz.so.1 [0]: normal symbol `inflate'\n");
	assert_int_equal(img_slim_stub_unbound(t, b, NULL, NULL, &r, NULL), 0);
	assert_int_equal(r.n_loaded, 2);
	assert_int_equal(r.n_bound, 1);
	assert_int_equal(r.n_stubs, 1);
	assert_int_equal(r.bytes_before, before);
	assert_non_null(used->source);
	assert_non_null(unused->data);
	assert_true(unused->size < 4096);
	assert_true(img_elf_is_stub(unused->data, unused->size));
	img_bindings_free(b);
	img_tree_free(t);
}

/* The symbol that was bound is one that libz defines itself: another copy came first, none is needed. */
static void symbol_that_the_user_defines_itself_is_no_use(void **state)
{
	struct img_tree *t = img_tree_new();
	struct img_bindings *b;
	struct img_stub_result r;

	(void)state;
	(void)add_library(t, "/l/libz.so.1", "libz.so.1");
	(void)add_library(t, "/l/libsqlite3.so.0", "libsqlite3.so.0");
	b = bindings_of("1:\tcalling init: /l/libz.so.1\n1:\tcalling init: /l/libsqlite3.so.0\n"
	                "1:\tbinding file prog [0] to /l/libz.so.1 [0]: normal symbol `crc32'\n"
	                "1:\tbinding file /l/libz.so.1 [0] to /l/libsqlite3.so.0 [0]: normal symbol `inflate'\n");
	assert_int_equal(img_slim_stub_unbound(t, b, NULL, NULL, &r, NULL), 0);
	assert_int_equal(r.n_stubs, 1);
	img_bindings_free(b);
	img_tree_free(t);
}

static void opened_modules_and_what_they_use_stay(void **state)
{
	struct img_tree *t = img_tree_new();
	struct img_bindings *b;
	struct img_stub_result r;

	(void)state;
	(void)add_library(t, "/l/libz.so.1", "libz.so.1");
	(void)add_library(t, "/l/libsqlite3.so.0", "libsqlite3.so.0");
	b = bindings_of("1:\tfile=libsqlite3.so.0 [0];  dynamically loaded by prog [0]\n"
	                "1:\tcalling init: /l/libz.so.1\n1:\tcalling init: /l/libsqlite3.so.0\n"
	                "1:\tbinding file /l/libsqlite3.so.0 [0] to /l/libz.so.1 [0]: normal symbol `inflate'\n");
	assert_int_equal(img_slim_stub_unbound(t, b, NULL, NULL, &r, NULL), 0);
	assert_int_equal(r.n_stubs, 0);
	assert_int_equal(r.n_bound, 2);
	img_bindings_free(b);
	img_tree_free(t);
}

static bool keep_all(const struct img_node *n, void *arg)
{
	(void)n;
	(void)arg;
	return true;
}

static void what_must_stay_and_what_was_not_loaded_stays(void **state)
{
	struct img_tree *t = img_tree_new();
	struct img_bindings *b;
	struct img_stub_result r;

	(void)state;
	(void)add_library(t, "/l/libz.so.1", "libz.so.1");
	(void)add_library(t, "/l/libsqlite3.so.0", "libsqlite3.so.0");
	b = bindings_of("1:\tcalling init: /l/libz.so.1\n1:\tbinding file prog [0] to /gone [0]: normal symbol `x'\n");
	assert_int_equal(img_slim_stub_unbound(t, b, keep_all, NULL, &r, NULL), 0);
	assert_int_equal(r.n_stubs, 0);
	assert_int_equal(img_slim_stub_unbound(t, b, NULL, NULL, &r, NULL), 0);
	assert_int_equal(r.n_stubs, 1); /* libz: loaded, not used; libsqlite3 was not even loaded: not ours to judge */
	img_bindings_free(b);
	b = bindings_of("");
	assert_int_equal(img_slim_stub_unbound(t, b, NULL, NULL, &r, NULL), -ENODATA);
	img_bindings_free(b);
	img_tree_free(t);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(lines_of_the_dynamic_linker_are_read),
		cmocka_unit_test(library_that_nothing_reached_binds_to_is_replaced),
		cmocka_unit_test(symbol_that_the_user_defines_itself_is_no_use),
		cmocka_unit_test(opened_modules_and_what_they_use_stay),
		cmocka_unit_test(what_must_stay_and_what_was_not_loaded_stays),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
