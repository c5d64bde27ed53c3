/* Packages: headers, files of packages, capabilities, owners, versions, the ndb format. The packages are those of the
 * fuzz corpus: five files, one of them with a capability and one hard link. */
#include "test.h"

#include <errno.h>
#include <unistd.h>

#include "base/mapfile.h"
#include "rpm/rpm.h"
#include "rpm/rpm_internal.h"

static const char *corpus(const char *name)
{
	static char path[4096];

	(void)snprintf(path, sizeof(path), "%s/fuzz/corpus/%s", test_dir(), name);
	return path;
}

static struct img_rpm *tiny(const char *name)
{
	struct img_rpm *p = NULL;
	struct err err = { 0 };

	if (img_rpm_open(corpus(name), &p, &err) < 0)
		fail_msg("%s", err_text(&err));
	return p;
}

static const struct img_rpm_file *file_of(const struct img_rpm *p, const char *path)
{
	for (size_t i = 0; i < p->n_files; i++) {
		if (strcmp(p->files[i].path, path) == 0)
			return &p->files[i];
	}
	fail_msg("no %s", path);
	return NULL;
}

static void a_package_file_tells_all_of_its_header(void **state)
{
	struct img_rpm *p = tiny("rpm_file/tiny-zstdio");
	const struct img_rpm_file *f = file_of(p, "/usr/bin/t");
	char nevra[128];

	(void)state;
	assert_string_equal(img_rpm_nevra(p, nevra, sizeof(nevra)), "tiny-zstdio-2:1-1.noarch");
	assert_string_equal(p->license, "l");
	assert_string_equal(p->summary, "s");
	assert_string_equal(p->payload_compressor, "zstd");
	assert_int_equal(p->n_files, 5);
	assert_int_equal(p->scriptlets, 1u << IMG_RPM_POST_INSTALL);
	assert_int_equal(f->type, IMG_FILE);
	assert_int_equal(f->mode, 04755);
	assert_string_equal(f->user, "bin");
	assert_string_equal(f->caps, "cap_net_raw=ep");
	assert_int_equal(strlen(f->digest), 64);
	f = file_of(p, "/usr/bin/u");
	assert_int_equal(f->type, IMG_SYMLINK);
	assert_string_equal(f->target, "t");
	assert_int_not_equal(file_of(p, "/usr/share/t/a")->link_group, 0);
	assert_int_equal(file_of(p, "/usr/share/t/a")->link_group, file_of(p, "/usr/share/t/b")->link_group);
	img_rpm_free(p);
}

static void payloads_of_every_compression_unpack_alike(void **state)
{
	static const char *const names[] = { "rpm_file/tiny-zstdio", "rpm_file/tiny-xzdio", "rpm_file/tiny-gzdio" };
	const struct img_rpm_unpack_opts o = { .n_threads = 2 };

	(void)state;
	for (size_t i = 0; i < 3; i++) {
		struct img_rpm *p = tiny(names[i]);
		struct img_tree *t = img_tree_new();
		const struct img_node *n;
		struct err err = { 0 };
		char text[8] = "";

		if (img_rpm_unpack(&p, 1, &o, t, &err) < 0)
			fail_msg("%s: %s", names[i], err_text(&err));
		n = img_tree_find(t, "/usr/bin/t");
		assert_int_equal(img_node_read(n, text, 7, 0, NULL), 3);
		assert_string_equal(text, "hi\n");
		assert_int_equal(n->n_xattrs, 1);
		assert_string_equal(n->xattrs[0].name, "security.capability");
		n = img_tree_find(t, "/usr/share/t/b");
		assert_int_equal(n->link_group, img_tree_find(t, "/usr/share/t/a")->link_group);
		assert_int_equal(n->size, 2);
		img_tree_free(t);
		img_rpm_free(p);
	}
}

static bool wants_link(const struct img_rpm *p, size_t file, void *arg)
{
	return strcmp(p->files[file].path, arg) == 0;
}

static void one_hard_link_alone_has_its_bytes(void **state)
{
	const struct img_rpm_unpack_opts o = { .wants = wants_link, .arg = (void *)"/usr/share/t/a", .n_threads = 1 };
	struct img_rpm *p = tiny("rpm_file/tiny-zstdio");
	struct img_tree *t = img_tree_new();
	char text[4] = "";

	(void)state;
	assert_int_equal(img_rpm_unpack(&p, 1, &o, t, NULL), 0);
	assert_null(img_tree_find(t, "/usr/share/t/b"));
	assert_int_equal(img_node_read(img_tree_find(t, "/usr/share/t/a"), text, 3, 0, NULL), 2);
	assert_string_equal(text, "x\n");
	img_tree_free(t);
	img_rpm_free(p);
}

static void a_file_cut_short_is_refused_with_its_name(void **state)
{
	static const char *const names[] = { "rpm_file/tiny-zstdio-cut-90", "rpm_file/tiny-zstdio-cut-120",
		                             "rpm_file/tiny-zstdio-cut-400" };

	(void)state;
	for (size_t i = 0; i < 3; i++) {
		struct img_rpm *p = NULL;
		struct err err = { 0 };

		assert_int_equal(img_rpm_open(corpus(names[i]), &p, &err), -EBADMSG);
		assert_null(p);
		assert_non_null(strstr(err.msg, names[i]));
	}
}

/* The bytes of a header; changed at one place by the callers below. */
static struct base_buf header_bytes(void)
{
	struct base_buf b = BASE_BUF_INIT(1u << 20);

	assert_int_equal(base_read_file(corpus("rpm_header/tiny-zstdio"), &b, NULL), 0);
	return b;
}

static void every_shortened_header_is_refused(void **state)
{
	struct base_buf b = header_bytes();

	(void)state;
	for (size_t n = 0; n < b.len; n += 7) {
		struct img_rpm *p = NULL;

		assert_int_equal(img_rpm_parse(b.data, n, &p, NULL), -EBADMSG);
		assert_null(p);
	}
	base_buf_done(&b);
}

static void a_path_with_dots_is_refused(void **state)
{
	struct img_rpm *p = NULL;
	struct err err = { 0 };
	struct base_buf b = BASE_BUF_INIT(1u << 20);

	(void)state;
	assert_int_equal(base_read_file(corpus("rpm_header/tiny-zstdio-dotdot"), &b, NULL), 0);
	assert_int_equal(img_rpm_parse(b.data, b.len, &p, &err), -EBADMSG);
	assert_non_null(strstr(err.msg, "/../"));
	base_buf_done(&b);
}

static void changed_payload_bytes_are_refused(void **state)
{
	const struct img_rpm_unpack_opts o = { .n_threads = 1 };
	struct base_buf b = BASE_BUF_INIT(1u << 20);
	char path[] = "/tmp/test-rpm-XXXXXX";
	struct img_rpm *p = NULL;
	struct err err = { 0 };
	struct img_tree *t;
	int fd = mkstemp(path);

	(void)state;
	assert_int_equal(base_read_file(corpus("rpm_file/tiny-gzdio"), &b, NULL), 0);
	b.data[b.len - 60] ^= 0x55;
	assert_int_equal(write(fd, b.data, b.len), (ssize_t)b.len);
	(void)close(fd);
	assert_int_equal(img_rpm_open(path, &p, NULL), 0);
	t = img_tree_new();
	assert_int_equal(img_rpm_unpack(&p, 1, &o, t, &err), -EBADMSG);
	assert_non_null(strstr(err.msg, "tiny-gzdio"));
	assert_int_equal(img_tree_count(t), 1); /* nothing of it got in */
	img_tree_free(t);
	img_rpm_free(p);
	(void)unlink(path);
	base_buf_done(&b);
}

static void capability_texts_become_the_kernels_bytes(void **state)
{
	static const struct {
		const char *text;
		uint8_t bytes[20];
	} cases[] = {
		{ "cap_net_raw=ep", { 1, 0, 0, 2, 0, 0x20, 0, 0, 0 } },
		{ "= cap_net_raw+ep", { 1, 0, 0, 2, 0, 0x20, 0, 0, 0 } },
		{ "cap_chown,cap_kill=p", { 0, 0, 0, 2, 0x21, 0, 0, 0, 0 } },
		{ "cap_bpf=i", { 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x80 } },
		{ "cap_net_raw=ep cap_net_raw-e", { 0, 0, 0, 2, 0, 0x20, 0, 0, 0 } },
	};
	uint8_t value[20];

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		assert_int_equal(img_rpm_caps_value(cases[i].text, value), 0);
		assert_memory_equal(value, cases[i].bytes, 20);
	}
	assert_int_equal(img_rpm_caps_value("cap_no_such=ep", value), -EINVAL);
	assert_int_equal(img_rpm_caps_value("cap_net_raw", value), -EINVAL);
	assert_int_equal(img_rpm_caps_value("cap_net_raw=xyz", value), -EINVAL);
}

static void versions_match_as_rpm_matches_them(void **state)
{
	static const struct {
		const char *want, *have;
		uint32_t want_flags, have_flags;
		bool yes;
	} cases[] = {
		{ "1.2", "1.10", IMG_RPMSENSE_GREATER | IMG_RPMSENSE_EQUAL, IMG_RPMSENSE_EQUAL, true },
		{ "1.10", "1.2", IMG_RPMSENSE_GREATER | IMG_RPMSENSE_EQUAL, IMG_RPMSENSE_EQUAL, false },
		{ "1", "1-5", IMG_RPMSENSE_EQUAL, IMG_RPMSENSE_EQUAL, true },
		{ "2:1", "3", IMG_RPMSENSE_GREATER, IMG_RPMSENSE_EQUAL, false },
		{ "", "1", 0, IMG_RPMSENSE_EQUAL, true },
		{ "1", "", IMG_RPMSENSE_EQUAL, 0, true },
	};

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		const struct img_rpm_dep want = { "x", cases[i].want, cases[i].want_flags };
		const struct img_rpm_dep have = { "x", cases[i].have, cases[i].have_flags };

		assert_int_equal(img_rpm_dep_matches(&want, &have), cases[i].yes);
	}
}

static void owners_come_from_the_tables_and_unknown_ones_lose_their_bits(void **state)
{
	const struct img_rpm_file known = { .user = "bin", .group = "mail" },
	                          unknown = { .user = "who", .group = "root" };
	struct img_tree *t = img_tree_new();
	struct img_node n = { .path = "/a", .type = IMG_FILE, .mode = 06755, .package = 0, .user = (void *)&known };
	size_t n_unknown;
	char name[64];

	(void)state;
	assert_int_equal(img_tree_add(t, &n, NULL, NULL), 0);
	n.path = "/b";
	n.user = (void *)&unknown;
	assert_int_equal(img_tree_add(t, &n, NULL, NULL), 0);
	assert_int_equal(img_rpm_fix_owners(t, "binary:x:9:9:\nbin:x:2:3::\n", "mail:x:8:\n", &n_unknown, name), 0);
	assert_int_equal(img_tree_find(t, "/a")->uid, 2);
	assert_int_equal(img_tree_find(t, "/a")->gid, 8);
	assert_int_equal(img_tree_find(t, "/a")->mode, 06755);
	assert_int_equal(img_tree_find(t, "/b")->uid, 0);
	assert_int_equal(img_tree_find(t, "/b")->mode, 02755);
	assert_int_equal(n_unknown, 1);
	assert_string_equal(name, "who");
	img_tree_free(t);
}

static void paths_are_cleaned_within_the_root(void **state)
{
	static const struct {
		const char *from, *to;
	} cases[] = {
		{ "/usr/bin/../lib//x", "/usr/lib/x" }, { "/../../a", "/a" }, { "/.", "/" }, { "/a/./b/..", "/a" }
	};
	char path[IMG_PATH_MAX];

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		assert_int_equal(img_rpm_clean_path(cases[i].from, path), 0);
		assert_string_equal(path, cases[i].to);
	}
	assert_int_equal(img_rpm_clean_path("a", path), -EINVAL);
}

static void links_of_folders_are_followed_in_front_only(void **state)
{
	struct img_rpm_file files[] = { { .path = "/lib", .type = IMG_SYMLINK, .target = "usr/lib" },
		                        { .path = "/usr/lib/x", .type = IMG_SYMLINK, .target = "../../opt/x" },
		                        { .path = "/loop", .type = IMG_SYMLINK, .target = "loop/a" } };
	struct img_rpm p = { .files = files, .n_files = 3 }, *list = &p;
	struct img_rpm_aliases *a = NULL;
	char path[IMG_PATH_MAX];

	(void)state;
	assert_int_equal(img_rpm_aliases_new(&list, 1, &a), 0);
	assert_int_equal(img_rpm_canonical(a, "/lib/x/y", path), 0);
	assert_string_equal(path, "/opt/x/y");
	assert_int_equal(img_rpm_canonical(a, "/lib", path), 0);
	assert_string_equal(path, "/lib");
	assert_int_equal(img_rpm_canonical(a, "/loop/b", path), -ELOOP);
	img_rpm_aliases_free(a);
}

static void an_ndb_database_is_read(void **state)
{
	struct base_buf b = BASE_BUF_INIT(1u << 20);
	struct img_rpm_set *s = NULL;
	int32_t file = -1;

	(void)state;
	assert_int_equal(base_read_file(corpus("rpm_ndb/tiny-xzdio"), &b, NULL), 0);
	assert_int_equal(img_rpm_set_new(NULL, &s), 0);
	assert_int_equal(img_rpm_ndb_parse(s, (uint8_t *)b.data, b.len, NULL), 0);
	assert_int_equal(img_rpm_set_count(s), 1);
	assert_string_equal(img_rpm_set_owner(s, "/usr/bin/u", &file, NULL)->name, "tiny-xzdio");
	assert_string_equal(img_rpm_set_find(s, "tiny-xzdio")->files[file].path, "/usr/bin/u");
	assert_null(img_rpm_set_owner(s, "/usr/bin/v", &file, NULL));
	img_rpm_set_free(s);
	base_buf_done(&b);
}

static void of_several_versions_the_newest_counts(void **state)
{
	struct img_rpm_set *s = NULL;
	struct err err = { 0 };

	(void)state;
	assert_int_equal(img_rpm_set_new("x86_64", &s), 0);
	for (int i = 0; i < 3; i++) {
		static const char *const releases[] = { "9", "10", "2" };
		struct img_rpm *p = img_rpm_new();

		p->name = "a";
		p->version = "1";
		p->release = releases[i];
		p->arch = i == 2 ? "aarch64" : "x86_64"; /* does not run here */
		p->is_loaded = true;
		assert_int_equal(img_rpm_set_take(s, p, &err), 0);
	}
	assert_int_equal(img_rpm_set_count(s), 1);
	assert_string_equal(img_rpm_set_at(s, 0)->release, "10");
	img_rpm_set_free(s);
}

/* ---- What is not there, in words ---- */

static bool is_not_listed(const struct img_rpm *p, size_t file, void *arg)
{
	const char *const *absent = arg;

	while (*absent && strcmp(*absent, p->files[file].path) != 0)
		absent++;
	return !*absent;
}

/* The description that a short database has of the package without these files. */
static char *described(struct img_rpm *p, const char *const *absent)
{
	enum { DESCRIPTION = 1005 };
	const struct img_rpmdb_opts o = { .mode = IMG_RPMDB_SHORT, .install_time = 1, .clamp_mtime = -1 };
	struct img_tree *t = img_tree_new();
	struct img_rpm_set *s = NULL;
	struct img_rpm_hdr h;
	struct err err = { 0 };
	char *text = NULL;

	assert_int_equal(img_rpm_set_new(NULL, &s), 0);
	if (img_rpmdb_write(&p, 1, is_not_listed, (void *)absent, &o, "/var/lib/rpm", t, &err) < 0 ||
	    img_rpm_set_add_tree(s, t, &err) < 0 || img_rpm_set_count(s) != 1 ||
	    img_rpm_hdr_init(&h, img_rpm_set_at(s, 0)->header, img_rpm_set_at(s, 0)->header_size, "", &err) < 0)
		fail_msg("%s", err_text(&err));
	if (img_rpm_hdr_string(&h, DESCRIPTION))
		text = strdup(img_rpm_hdr_string(&h, DESCRIPTION));
	img_rpm_set_free(s);
	img_tree_free(t);
	return text;
}

static void a_short_database_tells_what_was_left_out(void **state)
{
	static const struct {
		const char *a, *b; /* what /usr/share/t/a and b are called; NULL: so */
		const char *absent[6], *text;
	} cases[] = {
		{ NULL, NULL, { NULL }, NULL },
		{ NULL, NULL, { "/usr/share/t/b" }, "1 of 5 files were left out:\n/usr/share/t/ b" },
		{ NULL,
		  NULL,
		  { "/usr/share/t", "/usr/share/t/a", "/usr/share/t/b" },
		  "3 of 5 files were left out:\n/usr/share/ t/" },
		{ NULL,
		  NULL,
		  { "/usr/share/t/b", "/usr/bin/u", "/usr/share/t/a", "/usr/bin/t" },
		  "4 of 5 files were left out:\n/usr/bin/ t u\n/usr/share/t/ a b" },
		/* the folder is still there for one file */
		{ NULL,
		  NULL,
		  { "/usr/share/t", "/usr/share/t/b" },
		  "2 of 5 files were left out:\n/usr/share/ t\n/usr/share/t/ b" },
		/* no file of the folder, though it begins with the same letters */
		{ "/usr/share/t-x/a",
		  NULL,
		  { "/usr/share/t", "/usr/share/t/b" },
		  "2 of 5 files were left out:\n/usr/share/ t/" },
		{ NULL,
		  "/b c\\\n\xc3\xa4",
		  { "/b c\\\n\xc3\xa4" },
		  "1 of 5 files were left out:\n/ b\\040c\\134\\012\xc3\xa4" },
	};

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
		struct img_rpm *p = tiny("rpm_file/tiny-zstdio");
		char *text;

		assert_string_equal(p->files[4].path, "/usr/share/t/b");
		p->files[3].path = cases[i].a ? cases[i].a : p->files[3].path;
		p->files[4].path = cases[i].b ? cases[i].b : p->files[4].path;
		text = described(p, cases[i].absent);
		if (cases[i].text) {
			assert_non_null(text);
			assert_string_equal(text, cases[i].text);
		} else {
			assert_null(text);
		}
		free(text);
		img_rpm_free(p);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_package_file_tells_all_of_its_header),
		cmocka_unit_test(payloads_of_every_compression_unpack_alike),
		cmocka_unit_test(one_hard_link_alone_has_its_bytes),
		cmocka_unit_test(a_file_cut_short_is_refused_with_its_name),
		cmocka_unit_test(every_shortened_header_is_refused),
		cmocka_unit_test(a_path_with_dots_is_refused),
		cmocka_unit_test(changed_payload_bytes_are_refused),
		cmocka_unit_test(capability_texts_become_the_kernels_bytes),
		cmocka_unit_test(versions_match_as_rpm_matches_them),
		cmocka_unit_test(owners_come_from_the_tables_and_unknown_ones_lose_their_bits),
		cmocka_unit_test(paths_are_cleaned_within_the_root),
		cmocka_unit_test(links_of_folders_are_followed_in_front_only),
		cmocka_unit_test(an_ndb_database_is_read),
		cmocka_unit_test(of_several_versions_the_newest_counts),
		cmocka_unit_test(a_short_database_tells_what_was_left_out),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
