/* Reading ELF files: what is read of this machine's own files is what readelf says; what is broken is refused. */
#include <elf.h>
#include <errno.h>
#include <limits.h>

#include "elf/elf.h"
#include "tree_test.h"

static const char *const candidates[] = { "/usr/lib/x86_64-linux-gnu/libcrypto.so.3",
	                                  "/usr/lib/x86_64-linux-gnu/libz.so.1",
	                                  "/usr/lib64/libcrypto.so.3",
	                                  "/usr/lib64/libz.so.1",
	                                  "/bin/bash",
	                                  "/usr/bin/git" };

static struct img_node node_of(const char *path)
{
	static char real[PATH_MAX]; /* a node's bytes are never behind a link */
	struct stat st;

	if (stat(path, &st) < 0 || !realpath(path, real))
		return (struct img_node){ 0 };
	return (struct img_node){ .path = path, .type = IMG_FILE, .size = (uint64_t)st.st_size, .source = real };
}

/* The words between [ ] of readelf's lines that hold `tag`, as one text. */
static char *readelf_words(const char *path, const char *tag)
{
	struct base_buf b = BASE_BUF_INIT(1 << 20);
	char command[512], line[4096];
	FILE *f;

	(void)snprintf(command, sizeof(command), "LC_ALL=C readelf -dW %s 2>/dev/null", path);
	f = popen(command, "r");
	assert_non_null(f);
	while (fgets(line, sizeof(line), f)) {
		char *from = strchr(line, '['), *to = strrchr(line, ']');

		if (strstr(line, tag) && from && to)
			(void)base_buf_printf(&b, "%.*s\n", (int)(to - from - 1), from + 1);
	}
	if (pclose(f) != 0)
		skip();
	(void)base_buf_puts(&b, "");
	return b.data ? base_buf_take(&b) : strdup("");
}

static void names_are_those_that_readelf_tells(void **state)
{
	size_t n_read = 0;

	(void)state;
	for (size_t i = 0; i < sizeof(candidates) / sizeof(*candidates); i++) {
		struct img_node n = node_of(candidates[i]);
		struct base_buf ours = BASE_BUF_INIT(1 << 20);
		struct img_elf *e = NULL;
		char *theirs;

		if (!n.path)
			continue;
		n_read++;
		assert_true(img_elf_is(&n));
		assert_int_equal(img_elf_read(&n, IMG_ELF_HEADER, &e, NULL), 0);
		for (size_t k = 0; k < e->n_needed; k++)
			(void)base_buf_printf(&ours, "%s\n", e->needed[k]);
		theirs = readelf_words(n.path, "(NEEDED)");
		assert_string_equal(base_buf_text(&ours), theirs);
		free(theirs);
		base_buf_reset(&ours);
		if (e->soname)
			(void)base_buf_printf(&ours, "%s\n", e->soname);
		theirs = readelf_words(n.path, "(SONAME)");
		assert_string_equal(base_buf_text(&ours), theirs);
		free(theirs);
		base_buf_done(&ours);
		img_elf_free(e);
	}
	if (n_read == 0)
		skip();
}

static size_t readelf_symbols(const char *path, bool defined)
{
	char command[512], line[64];
	FILE *f;
	size_t n = 0;

	(void)snprintf(
	        command, sizeof(command),
	        "LC_ALL=C readelf --dyn-syms -W %s 2>/dev/null | awk '$1 ~ /^[0-9]+:$/ && $5 != \"LOCAL\" && $8 != "
	        "\"\" && ($7 == \"UND\") == %d { n++ } END { print n + 0 }'",
	        path, !defined);
	f = popen(command, "r");
	assert_non_null(f);
	if (fgets(line, sizeof(line), f))
		n = strtoul(line, NULL, 10);
	(void)pclose(f);
	return n;
}

static void symbols_are_as_many_as_readelf_counts(void **state)
{
	size_t n_read = 0;

	(void)state;
	for (size_t i = 0; i < sizeof(candidates) / sizeof(*candidates); i++) {
		struct img_node n = node_of(candidates[i]);
		struct img_elf *e = NULL;
		size_t n_defined = 0;

		if (!n.path || readelf_symbols(n.path, true) == 0)
			continue;
		n_read++;
		assert_int_equal(img_elf_read(&n, IMG_ELF_SYMBOLS, &e, NULL), 0);
		for (size_t k = 0; k < e->n_symbols; k++)
			n_defined += e->symbols[k].is_defined;
		assert_int_equal(n_defined, readelf_symbols(n.path, true));
		assert_int_equal(e->n_symbols - n_defined, readelf_symbols(n.path, false));
		img_elf_free(e);
	}
	if (n_read == 0)
		skip();
}

static void c_library_is_asked_for_versions(void **state)
{
	struct img_node n = node_of("/proc/self/exe");
	struct img_elf *e = NULL;
	bool found = false;

	(void)state;
	assert_int_equal(img_elf_read(&n, IMG_ELF_SYMBOLS, &e, NULL), 0);
	assert_true(e->is_dynamic);
	assert_non_null(e->interp);
	for (size_t i = 0; i < e->n_needed_versions; i++)
		found = found || (strncmp(e->needed_versions[i].library, "libc.so", 7) == 0 &&
		                  strncmp(e->needed_versions[i].version, "GLIBC_", 6) == 0);
	assert_true(found);
	img_elf_free(e);
}

static void what_is_no_elf_file_is_told_apart(void **state)
{
	struct img_elf *e = NULL;

	(void)state;
	assert_int_equal(img_elf_parse("#!/bin/sh\n12345678", 18, "x", 0, &e, NULL), -ENOEXEC);
	assert_int_equal(img_elf_parse("\177ELF", 4, "x", 0, &e, NULL), -ENOEXEC);
	assert_null(e);
}

/* Every prefix of a real file either reads or is refused with words. */
static void truncated_files_are_refused_with_words(void **state)
{
	struct base_buf b = BASE_BUF_INIT(64u << 20);
	size_t refused = 0;

	(void)state;
	if (base_read_file("/proc/self/exe", &b, NULL) < 0)
		skip();
	for (size_t size = 16; size < b.len; size += size < 4096 ? 61 : b.len / 97) {
		/* a copy of exactly that size, so that a sanitizer sees what lies beyond */
		void *copy = malloc(size);
		struct err err = { 0 };
		struct img_elf *e = NULL;
		int r;

		memcpy(copy, b.data, size);
		r = img_elf_parse(copy, size, "cut", IMG_ELF_SYMBOLS, &e, &err);
		assert_true(r == 0 || r == -EBADMSG);
		assert_true(r == 0 || err.msg[0]);
		refused += r < 0;
		img_elf_free(e);
		free(copy);
	}
	assert_true(refused > 5);
	base_buf_done(&b);
}

static int on_string(const char *s, void *arg)
{
	return base_buf_printf(arg, "%s ", s);
}

static void strings_that_name_libraries_are_found(void **state)
{
	static const char bytes[] =
	        "x\0libfoo.so.1\0%s.so\0.so\0/usr/lib/libbar.so\0libz.source\0libfoo.so.1\0engine.so.\0";
	struct img_node n = { .path = "/x", .type = IMG_FILE, .size = sizeof(bytes), .data = (void *)bytes };
	struct base_buf b = BASE_BUF_INIT(4096);

	(void)state;
	assert_int_equal(img_elf_library_strings(&n, on_string, &b, NULL), 0);
	assert_string_equal(base_buf_text(&b), "/usr/lib/libbar.so libfoo.so.1 ");
	base_buf_done(&b);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(names_are_those_that_readelf_tells),
		cmocka_unit_test(symbols_are_as_many_as_readelf_counts),
		cmocka_unit_test(c_library_is_asked_for_versions),
		cmocka_unit_test(what_is_no_elf_file_is_told_apart),
		cmocka_unit_test(truncated_files_are_refused_with_words),
		cmocka_unit_test(strings_that_name_libraries_are_found),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
