/* Slices: roles, rules by hand, the text database, groups of a graph, ld.so.cache. */
#include "test.h"

#include <errno.h>

#include "slices/slices.h"
#include "slices/slices_internal.h"

static struct img_rpm_file file(const char *path, enum img_type type, uint32_t mode, const char *target)
{
	return (struct img_rpm_file){ .path = path, .type = type, .mode = mode, .target = target };
}

static void files_get_the_role_of_their_place(void **state)
{
	static const struct {
		const char *path, *role;
		uint32_t flags;
	} cases[] = {
		{ "/usr/bin/bash", "bins", 0 },
		{ "/usr/lib64/libz.so.1.2.13", "libs", 0 },
		{ "/usr/lib/x86_64-linux-gnu/libc.so.6", "libs", 0 },
		{ "/usr/lib/x86_64-linux-gnu/ossl-modules/legacy.so", "plugins", 0 },
		{ "/usr/lib64/openssl/legacy.so", "plugins", 0 },
		{ "/usr/lib64/gconv/UTF-16.so", "gconv", 0 },
		{ "/usr/lib/x86_64-linux-gnu/gconv/UTF-16.so", "gconv", 0 },
		{ "/usr/lib64/python3.11/json/__init__.py", "python", 0 },
		{ "/usr/lib64/python3.11/lib-dynload/_ssl.so", "python", 0 },
		{ "/etc/bash.bashrc", "config", 0 },
		{ "/var/lib/x/state", "config", IMG_RPMFILE_CONFIG },
		{ "/usr/share/doc/bash/README", "docs", 0 },
		{ "/opt/x/README", "docs", IMG_RPMFILE_DOC },
		{ "/usr/share/licenses/x/COPYING", "licenses", 0 },
		{ "/usr/share/locale/de/LC_MESSAGES/x.mo", "locale", 0 },
		{ "/usr/share/zoneinfo/Europe/Berlin", "zoneinfo", 0 },
		{ "/usr/include/stdio.h", "devel", 0 },
		{ "/usr/lib64/libz.a", "devel", 0 },
		{ "/usr/lib/systemd/system/x.service", "services", 0 },
		{ "/usr/share/x/data.txt", "data", 0 },
	};
	struct img_rpm_file f;

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		f = file(cases[i].path, IMG_FILE, 0644, "");
		f.flags = cases[i].flags;
		assert_string_equal(img_slice_role(NULL, &f), cases[i].role);
	}
	f = file("/usr/lib64/libz.so", IMG_SYMLINK, 0777, "libz.so.1.2.13");
	assert_string_equal(img_slice_role(NULL, &f), "devel");
	f = file("/usr/lib64/libz.so.1", IMG_SYMLINK, 0777, "libz.so.1.2.13");
	assert_string_equal(img_slice_role(NULL, &f), "libs");
	f = file("/var/cache/x", IMG_DIR, 0755, "");
	assert_string_equal(img_slice_role(NULL, &f), "dirs");
	f = file("/usr/lib/git-core/git-fetch", IMG_FILE, 0755, "");
	assert_string_equal(img_slice_role(NULL, &f), "bins");
}

static void rules_move_drop_keep_and_add(void **state)
{
	static const char text[] = "[box]\nmove = /etc/* minimal\ndrop = */large\n"
	                           "[box_minimal]\nadd = /usr/bin/box\n"
	                           "[box_data]\nkeep = */a\n"
	                           "[a_b]\ndrop = /x\n";
	static const struct {
		const char *path, *slice;
	} cases[] = { { "/etc/box.conf", "minimal" }, { "/usr/share/large", NULL }, { "/usr/bin/box", "minimal" },
		      { "/usr/share/a", "data" },     { "/usr/share/b", NULL },     { "/usr/bin/other", "bins" } };
	struct img_rpm p = { .name = "box" }, other = { .name = "a_b" };
	struct img_rules *r = NULL;
	struct img_rpm_file f;
	struct err err = { 0 };

	(void)state;
	assert_int_equal(img_rules_new(&r), 0);
	assert_int_equal(img_rules_parse(r, "r", text, sizeof(text) - 1, &err), 0);
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		const char *slice;

		f = file(cases[i].path, IMG_FILE, 0644, "");
		slice = img_rules_slice(r, &p, &f);
		if (cases[i].slice)
			assert_string_equal(slice, cases[i].slice);
		else
			assert_null(slice);
	}
	f = file("/x", IMG_FILE, 0644, "");
	assert_null(img_rules_slice(r, &other, &f)); /* a package whose name has an underscore */
	img_rules_free(r);
}

static void rules_add_and_take_needs(void **state)
{
	static const char text[] = "[/usr/bin/*]\nneed = /a\nwant = b_libs\nunneed = /lib*\n";
	const char *targets[4];
	struct img_rules *r = NULL;

	(void)state;
	assert_int_equal(img_rules_new(&r), 0);
	assert_int_equal(img_rules_parse(r, "r", text, sizeof(text) - 1, NULL), 0);
	assert_int_equal(img_rules_needs(r, "/usr/bin/x", false, targets, 4), 1);
	assert_string_equal(targets[0], "/a");
	assert_int_equal(img_rules_needs(r, "/usr/bin/x", true, targets, 4), 1);
	assert_string_equal(targets[0], "b_libs");
	assert_int_equal(img_rules_needs(r, "/usr/sbin/x", false, targets, 4), 0);
	assert_true(img_rules_unneeds(r, "/usr/bin/x", "/lib/y"));
	assert_false(img_rules_unneeds(r, "/usr/bin/x", "/usr/lib/y"));
	img_rules_free(r);
}

static void a_wrong_rule_is_named_by_file_and_line(void **state)
{
	static const struct {
		const char *text, *words;
	} cases[] = { { "keep = /x\n", "r:1: " },
		      { "[box]\n\nfoo = /x\n", "r:3: [box] has no \"foo\"" },
		      { "[/usr/x]\nkeep = /x\n", "r:2: [/usr/x] has no \"keep\"" },
		      { "[box]\nkeep =\n", "r:2: keep has no value" },
		      { "[box]\nmove = /x\n", "r:2: move takes" },
		      { "[box\n", "r:1: a section" } };

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		struct img_rules *r = NULL;
		struct err err = { 0 };

		assert_int_equal(img_rules_new(&r), 0);
		assert_int_equal(img_rules_parse(r, "r", cases[i].text, strlen(cases[i].text), &err), -EINVAL);
		assert_non_null(strstr(err.msg, cases[i].words));
		img_rules_free(r);
	}
}

static void a_database_of_slices_is_read(void **state)
{
	static const char text[] = "slimtrace-slices 1\n"
	                           "package\ta\t1-1\tnoarch\n"
	                           "slice\tbins\t1\t12\t-\n"
	                           "file\t/usr/bin/a\\tb\n"
	                           "need\trpm\tbash\t/usr/bin/bash\t/bin/sh\n"
	                           "want\timport\tb\t/x\tb\n"
	                           "missing\trpm\tnobody\n"
	                           "package\tb\t2:1-1\tnoarch\n"
	                           "slice\tlibs\t2\t12\t4\n"
	                           "file\t/z\n"
	                           "file\t/y\n"
	                           "needs\trpm\tc\tc(x)\n";
	const struct img_slices_file *f;
	struct img_slices *s = NULL;
	struct err err = { 0 };

	(void)state;
	if (img_slices_parse("s", text, sizeof(text) - 1, &s, &err) < 0)
		fail_msg("%s", err_text(&err));
	f = img_slices_file(s, "a", "/usr/bin/a\tb");
	assert_non_null(f);
	assert_string_equal(f->slice, "bins");
	assert_int_equal(f->n_needs, 3);
	assert_string_equal(f->needs[0].path, "/usr/bin/bash");
	assert_string_equal(f->needs[0].what, "/bin/sh");
	assert_true(f->needs[1].is_weak);
	assert_true(f->needs[2].is_missing);
	f = img_slices_file(s, "b", "/y");
	assert_string_equal(f->needs[0].slice, "c");
	assert_int_equal(img_slices_file(s, "b", "/z")->n_needs, 0);
	assert_null(img_slices_file(s, "a", "/y"));
	assert_string_equal(img_slices_evr(s, "b"), "2:1-1");
	assert_null(img_slices_evr(s, "c"));
	img_slices_free(s);
}

static void a_wrong_line_of_a_database_is_named(void **state)
{
	static const struct {
		const char *text, *words;
	} cases[] = { { "slimtrace-slices 2\n", "version" },
		      { "hello", "not a database" },
		      { "slimtrace-slices 1\nfile\t/x\n", "s:2: " },
		      { "slimtrace-slices 1\npackage\tb\t1\tnoarch\npackage\ta\t1\tnoarch\n", "s:3: " },
		      { "slimtrace-slices 1\npackage\tb\t1\n", "s:2: " },
		      { "slimtrace-slices 1\nwhat\n", "s:2: " },
		      { "slimtrace-slices 1\npackage\ta\\q\t1\tnoarch\n", "s:2: " } };

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		struct img_slices *s = NULL;
		struct err err = { 0 };

		assert_int_equal(img_slices_parse("s", cases[i].text, strlen(cases[i].text), &s, &err), -EBADMSG);
		assert_null(s);
		assert_non_null(strstr(err.msg, cases[i].words));
	}
}

static void cycles_are_groups_and_edges_lead_down(void **state)
{
	/* 0 -> 1 -> 2 -> 0, 2 -> 3, 3 -> 4 -> 3, 5 alone */
	static const size_t first[] = { 0, 1, 2, 4, 5, 6, 6 };
	static const uint32_t edges[] = { 1, 2, 0, 3, 4, 3 };
	uint32_t group[6], n = 0;

	(void)state;
	assert_int_equal(img_scc(6, first, edges, group, &n), 0);
	assert_int_equal(n, 3);
	assert_int_equal(group[0], group[1]);
	assert_int_equal(group[0], group[2]);
	assert_int_equal(group[3], group[4]);
	assert_int_not_equal(group[0], group[3]);
	assert_int_not_equal(group[5], group[0]);
	assert_true(group[3] < group[0]);
}

static void a_chain_as_long_as_a_repository_needs_no_deep_stack(void **state)
{
	enum { N = 300000 };
	size_t *first = calloc(N + 1, sizeof(*first));
	uint32_t *edges = calloc(N, sizeof(*edges)), *group = calloc(N, sizeof(*group)), n = 0;

	(void)state;
	for (uint32_t i = 0; i < N; i++) {
		first[i] = i;
		edges[i] = (i + 1) % N; /* one ring */
	}
	first[N] = N;
	assert_int_equal(img_scc(N, first, edges, group, &n), 0);
	assert_int_equal(n, 1);
	free(first);
	free(edges);
	free(group);
}

static void a_tree_without_a_linker_gets_no_cache(void **state)
{
	struct img_tree *t = img_tree_new();

	(void)state;
	assert_int_equal(img_ldcache_add(t, NULL), 1);
	assert_null(img_tree_find(t, "/etc/ld.so.cache"));
	img_tree_free(t);
}

static void locales_have_the_folder_that_glibc_looks_for(void **state)
{
	static const struct {
		const char *generator, *dir, *source, *charmap;
	} cases[] = {
		{ "locale", "/usr/lib/locale/C.utf8", "C", "UTF-8" },
		{ "locale:de_DE.UTF-8", "/usr/lib/locale/de_DE.utf8", "de_DE", "UTF-8" },
		{ "locale:de_DE.ISO-8859-15@euro", "/usr/lib/locale/de_DE.iso885915@euro", "de_DE@euro",
		  "ISO-8859-15" },
		{ "locale:ru_RU.1251", "/usr/lib/locale/ru_RU.iso1251", "ru_RU", "1251" },
	};
	static const char *const wrong[] = { "locale:de_DE",     "locale:.UTF-8",      "locale:de_DE.",
		                             "locale:a.b.c",     "locale:../x.y",      "locale:x/y.UTF-8",
		                             "locale:a@b.UTF-8", "locale:,",           "locale:a.UTF-8 ",
		                             "locale:1.UTF-8",   "locale:a.UTF-8,,b.c" };
	const char *cursor = NULL;
	struct img_locale l;

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		cursor = NULL;
		assert_true(img_locale_is(cases[i].generator));
		assert_int_equal(img_locale_next(cases[i].generator, &cursor, &l, NULL), 1);
		assert_string_equal(l.dir, cases[i].dir);
		assert_string_equal(l.source, cases[i].source);
		assert_string_equal(l.charmap, cases[i].charmap);
		assert_int_equal(img_locale_next(cases[i].generator, &cursor, &l, NULL), 0);
	}
	for (size_t i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++) {
		int r;

		cursor = NULL;
		while ((r = img_locale_next(wrong[i], &cursor, &l, NULL)) == 1)
			;
		assert_int_equal(r, -EINVAL);
	}
	assert_false(img_locale_is("locales"));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(files_get_the_role_of_their_place),
		cmocka_unit_test(rules_move_drop_keep_and_add),
		cmocka_unit_test(rules_add_and_take_needs),
		cmocka_unit_test(a_wrong_rule_is_named_by_file_and_line),
		cmocka_unit_test(a_database_of_slices_is_read),
		cmocka_unit_test(a_wrong_line_of_a_database_is_named),
		cmocka_unit_test(cycles_are_groups_and_edges_lead_down),
		cmocka_unit_test(a_chain_as_long_as_a_repository_needs_no_deep_stack),
		cmocka_unit_test(a_tree_without_a_linker_gets_no_cache),
		cmocka_unit_test(locales_have_the_folder_that_glibc_looks_for),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
