/* What is in an image: differences between trees, and bills of materials, checked by the rules of their schemas. */
#include <ctype.h>
#include <errno.h>
#include <jansson.h>

#include "inventory/inventory.h"
#include "oci_test.h"

/* ---- Differences ------------------------------------------------------------------------------------------------ */

static struct img_tree *sample(void)
{
	struct img_tree *t = img_tree_new();

	add_file(t, "/usr/bin/tool", "#!/bin/sh\n")->mode = 0755;
	add_file(t, "/usr/lib/libx.so.1", "library");
	add_file(t, "/usr/share/doc/x/readme", "words words words");
	add_file(t, "/usr/share/a", "linked")->link_group = 1;
	add_file(t, "/usr/share/b", "linked")->link_group = 1;
	add_file(t, "/etc/x.conf", "a=1\n");
	add_link(t, "/bin", "usr/bin");
	return t;
}

static const struct img_difference *find(const struct img_diff *d, const char *path)
{
	for (size_t i = 0; i < d->n; i++) {
		if (strcmp((d->list[i].b ? d->list[i].b : d->list[i].a)->path, path) == 0)
			return &d->list[i];
	}
	return NULL;
}

static void equal_trees_do_not_differ(void **state)
{
	struct img_tree *a = sample(), *b = sample();
	struct img_diff d = { 0 };

	(void)state;
	img_tree_find(b, "/etc/x.conf")->mtime_s++; /* not asked for */
	assert_int_equal(img_diff_make(a, b, &(struct img_diff_opts){ 0 }, &d, NULL), 0);
	assert_int_equal(d.n, 0);
	assert_int_equal(d.n_same, img_tree_count(a));
	assert_int_equal(d.a_bytes, 10 + 7 + 17 + 6 + 4); /* the linked file once */
	img_diff_done(&d);
	assert_int_equal(img_diff_make(a, b, &(struct img_diff_opts){ .with_times = true }, &d, NULL), 0);
	assert_int_equal(d.n, 1);
	assert_int_equal(d.list[0].changes, IMG_CHANGE_TIME);
	img_diff_done(&d);
	img_tree_free(a);
	img_tree_free(b);
}

static void every_kind_of_change_is_told(void **state)
{
	struct img_xattr x = { "user.x", "v", 1 };
	struct img_tree *a = sample(), *b = sample();
	struct img_node n;
	struct img_diff d = { 0 };

	(void)state;
	add_file(b, "/etc/x.conf", "a=2\n");
	img_tree_find(b, "/usr/bin/tool")->mode = 0700;
	img_tree_find(b, "/usr/bin/tool")->uid = 5;
	n = *img_tree_find(b, "/usr/lib/libx.so.1");
	n.xattrs = &x;
	n.n_xattrs = 1;
	assert_int_equal(img_tree_add(b, &n, NULL, NULL), 0);
	add_link(b, "/bin", "usr/sbin");
	add_file(b, "/usr/share/doc", "no folder any more");
	add_file(b, "/new/file", "new");
	assert_int_equal(img_diff_make(a, b, &(struct img_diff_opts){ 0 }, &d, NULL), 0);
	assert_int_equal(find(&d, "/etc/x.conf")->changes, IMG_CHANGE_CONTENT);
	assert_int_equal(find(&d, "/usr/bin/tool")->changes, IMG_CHANGE_MODE | IMG_CHANGE_OWNER);
	assert_int_equal(find(&d, "/usr/lib/libx.so.1")->changes, IMG_CHANGE_XATTRS);
	assert_int_equal(find(&d, "/bin")->changes, IMG_CHANGE_CONTENT);
	assert_int_equal(find(&d, "/usr/share/doc")->changes, IMG_CHANGE_TYPE);
	assert_null(find(&d, "/usr/share/doc/x/readme")->b);
	assert_int_equal(find(&d, "/usr/share/doc/x/readme")->a_bytes, 17);
	assert_null(find(&d, "/new/file")->a);
	assert_int_equal(find(&d, "/new/file")->b_bytes, 3);
	assert_int_equal(d.n, 9); /* with /new and /usr/share/doc/x */
	img_diff_done(&d);
	img_tree_free(a);
	img_tree_free(b);
}

static int say_yes(void *arg)
{
	(void)arg;
	return 1;
}

static void a_comparison_ends_when_told_to(void **state)
{
	struct img_tree *a = sample(), *b = sample();
	struct img_diff d = { 0 };

	(void)state;
	assert_int_equal(img_diff_make(a, b, &(struct img_diff_opts){ .is_canceled = say_yes }, &d, NULL), -ECANCELED);
	img_tree_free(a);
	img_tree_free(b);
}

static void files_have_a_purpose_by_their_place(void **state)
{
	static const struct {
		const char *path;
		enum img_category category;
	} cases[] = {
		{ "/usr/bin/x", IMG_CAT_PROGRAM },
		{ "/usr/lib64/libc.so.6", IMG_CAT_LIBRARY },
		{ "/usr/lib/python3/x.py", IMG_CAT_PYTHON },
		{ "/etc/passwd", IMG_CAT_CONFIG },
		{ "/etc/ssl/certs/a.pem", IMG_CAT_CERTIFICATE },
		{ "/usr/share/doc/x/copyright", IMG_CAT_LICENCE },
		{ "/usr/share/doc/x/NEWS", IMG_CAT_DOCUMENT },
		{ "/usr/share/zoneinfo/UTC", IMG_CAT_TIMEZONE },
		{ "/usr/lib/x86_64-linux-gnu/gconv/A.so", IMG_CAT_LOCALE },
		{ "/usr/include/x.h", IMG_CAT_DEVELOPMENT },
		{ "/var/lib/rpm/rpmdb.sqlite", IMG_CAT_DATABASE },
		{ "/srv/x", IMG_CAT_OTHER },
	};

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
		struct img_node n = { .path = cases[i].path };

		assert_int_equal(img_category_of(&n), cases[i].category);
	}
}

/* ---- A root with a package of which a file was left out ---- */

static bool is_in_tree(const struct img_rpm *p, size_t file, void *arg)
{
	return img_tree_find(arg, p->files[file].path) != NULL;
}

/* The package of the fuzz corpus, its /usr/share/t/b left out, one file beside it. */
static struct img_subject packaged(const char *dir)
{
	const struct img_rpmdb_opts o = { .mode = IMG_RPMDB_MARKED, .install_time = 1, .clamp_mtime = -1 };
	const struct img_rpm_unpack_opts uo = { .n_threads = 1 };
	const struct img_write_opts wo = { .clamp_mtime = -1 };
	struct img_tree *t = img_tree_new();
	struct img_subject s = { 0 };
	struct img_rpm *p = NULL;
	struct err err = { 0 };
	char path[4096];

	(void)snprintf(path, sizeof(path), "%s/fuzz/corpus/rpm_file/tiny-zstdio", test_dir());
	if (img_rpm_open(path, &p, &err) < 0 || img_rpm_unpack(&p, 1, &uo, t, &err) < 0)
		fail_msg("%s", err_text(&err));
	img_tree_remove(t, "/usr/share/t/b");
	img_tree_find(t, "/usr/bin/t")->n_xattrs = geteuid() == 0 ? 1 : 0;
	add_file(t, "/etc/os-release", "NAME=\"Test\"\nID=\"testos\"\n");
	if (img_rpmdb_write(&p, 1, is_in_tree, t, &o, "/var/lib/rpm", t, &err) < 0)
		fail_msg("%s", err_text(&err));
	if (img_tree_write_dir(t, in_dir(dir, "root"), &wo, NULL, &err) < 0 ||
	    img_subject_open(in_dir(dir, "root"), NULL, &s, &err) < 0)
		fail_msg("%s", err_text(&err));
	img_rpm_free(p);
	img_tree_free(t);
	return s;
}

static void files_know_their_packages(void **state)
{
	char *dir = temp_dir();
	struct img_subject s = packaged(dir);

	(void)state;
	assert_int_equal(img_rpm_set_count(s.packages), 1);
	assert_int_equal(img_tree_find(s.tree, "/usr/bin/t")->package, 0);
	assert_int_equal(img_tree_find(s.tree, "/etc/os-release")->package, -1);
	assert_true(s.n_present[0] < s.n_files[0]);
	img_subject_close(&s);
	drop_dir(dir);
}

static void a_root_without_packages_has_none(void **state)
{
	char *dir = temp_dir();
	struct img_subject s = { 0 };
	struct err err = { 0 };

	(void)state;
	write_text(in_dir(dir, "f"), "x");
	assert_int_equal(img_subject_open(dir, NULL, &s, NULL), 0);
	assert_null(s.packages);
	img_subject_close(&s);
	assert_int_equal(img_subject_open(in_dir(dir, "f"), NULL, &s, &err), -ENOTDIR);
	assert_non_null(strstr(err_text(&err), "neither"));
	drop_dir(dir);
}

/* ---- Rules of the schemas ---- */

static const char *text_at(const json_t *o, const char *key)
{
	const char *text = json_string_value(json_object_get(o, key));

	if (!text || !text[0])
		fail_msg("%s is missing", key);
	return text;
}

static bool is_hex(const char *text, size_t n)
{
	return strlen(text) == n && strspn(text, "0123456789abcdef") == n;
}

static void assert_time(const char *text) /* YYYY-MM-DDThh:mm:ssZ */
{
	assert_int_equal(strlen(text), 20);
	for (size_t i = 0; i < 20; i++) {
		char want = "dddd-dd-ddTdd:dd:ddZ"[i];

		assert_true(want == 'd' ? isdigit((unsigned char)text[i]) : text[i] == want);
	}
}

/* An identifier: "SPDXRef-" and letters, digits, '.', '-'; each only once. */
static void note_id(json_t *ids, const char *id)
{
	assert_int_equal(strncmp(id, "SPDXRef-", 8), 0);
	for (const char *p = id; *p; p++)
		assert_true(isalnum((unsigned char)*p) || *p == '.' || *p == '-');
	assert_null(json_object_get(ids, id));
	assert_int_equal(json_object_set_new(ids, id, json_true()), 0);
}

static void check_spdx_package(const json_t *p)
{
	bool analyzed = json_is_true(json_object_get(p, "filesAnalyzed"));
	const json_t *code = json_object_get(p, "packageVerificationCode");

	(void)text_at(p, "name");
	(void)text_at(p, "downloadLocation");
	(void)text_at(p, "licenseConcluded");
	(void)text_at(p, "licenseDeclared");
	(void)text_at(p, "copyrightText");
	assert_true(json_is_boolean(json_object_get(p, "filesAnalyzed")));
	assert_int_equal(code != NULL, analyzed);
	if (code)
		assert_true(is_hex(text_at(code, "packageVerificationCodeValue"), 40));
}

static void check_spdx_file(const json_t *f)
{
	const json_t *sums = json_object_get(f, "checksums");

	assert_int_equal(strncmp(text_at(f, "fileName"), "./", 2), 0);
	assert_int_equal(json_array_size(sums), 2);
	assert_string_equal(text_at(json_array_get(sums, 0), "algorithm"), "SHA1");
	assert_true(is_hex(text_at(json_array_get(sums, 0), "checksumValue"), 40));
	assert_string_equal(text_at(json_array_get(sums, 1), "algorithm"), "SHA256");
	assert_true(is_hex(text_at(json_array_get(sums, 1), "checksumValue"), 64));
	(void)text_at(f, "licenseConcluded");
	(void)text_at(f, "copyrightText");
}

static void check_spdx(const json_t *doc)
{
	json_t *ids = json_object(), *item;
	const json_t *info = json_object_get(doc, "creationInfo");
	size_t i, n_described = 0;

	assert_string_equal(text_at(doc, "spdxVersion"), "SPDX-2.3");
	assert_string_equal(text_at(doc, "dataLicense"), "CC0-1.0");
	assert_string_equal(text_at(doc, "SPDXID"), "SPDXRef-DOCUMENT");
	assert_null(strchr(text_at(doc, "documentNamespace"), '#'));
	assert_non_null(strchr(text_at(doc, "documentNamespace"), ':'));
	(void)text_at(doc, "name");
	assert_time(text_at(info, "created"));
	assert_int_equal(strncmp(json_string_value(json_array_get(json_object_get(info, "creators"), 0)), "Tool: ", 6),
	                 0);
	note_id(ids, "SPDXRef-DOCUMENT");
	json_array_foreach(json_object_get(doc, "packages"), i, item)
	{
		note_id(ids, text_at(item, "SPDXID"));
		check_spdx_package(item);
	}
	json_array_foreach(json_object_get(doc, "files"), i, item)
	{
		note_id(ids, text_at(item, "SPDXID"));
		check_spdx_file(item);
	}
	json_array_foreach(json_object_get(doc, "hasExtractedLicensingInfos"), i, item)
	{
		assert_int_equal(strncmp(text_at(item, "licenseId"), "LicenseRef-", 11), 0);
		(void)text_at(item, "extractedText");
	}
	json_array_foreach(json_object_get(doc, "relationships"), i, item)
	{
		assert_non_null(json_object_get(ids, text_at(item, "spdxElementId")));
		assert_non_null(json_object_get(ids, text_at(item, "relatedSpdxElement")));
		n_described += strcmp(text_at(item, "relationshipType"), "DESCRIBES") == 0;
	}
	assert_int_equal(n_described, 1);
	json_decref(ids);
}

static void check_cyclonedx_component(const json_t *c, json_t *refs)
{
	static const char *const types[] = { "library", "file", "container", "operating-system" };
	const char *type = text_at(c, "type"), *ref = json_string_value(json_object_get(c, "bom-ref"));
	bool is_known = false;
	json_t *item;
	size_t i;

	for (size_t k = 0; k < sizeof(types) / sizeof(*types); k++)
		is_known = is_known || strcmp(type, types[k]) == 0;
	assert_true(is_known);
	(void)text_at(c, "name");
	if (ref) {
		assert_null(json_object_get(refs, ref));
		assert_int_equal(json_object_set_new(refs, ref, json_true()), 0);
	}
	json_array_foreach(json_object_get(c, "hashes"), i, item)
	{
		const char *alg = text_at(item, "alg");

		assert_true(is_hex(text_at(item, "content"), strcmp(alg, "SHA-1") == 0 ? 40 : 64));
	}
	json_array_foreach(json_object_get(c, "licenses"), i, item)
	        assert_true(json_is_string(json_object_get(item, "expression")) ||
	                    json_is_string(json_object_get(json_object_get(item, "license"), "name")));
	json_array_foreach(json_object_get(c, "components"), i, item) check_cyclonedx_component(item, refs);
}

static void check_cyclonedx(const json_t *doc)
{
	json_t *refs = json_object(), *item, *to;
	const char *serial = text_at(doc, "serialNumber");
	size_t i, k;

	assert_string_equal(text_at(doc, "bomFormat"), "CycloneDX");
	assert_string_equal(text_at(doc, "specVersion"), "1.5");
	assert_int_equal(json_integer_value(json_object_get(doc, "version")), 1);
	assert_int_equal(strncmp(serial, "urn:uuid:", 9), 0);
	assert_int_equal(strlen(serial), 45);
	assert_true(serial[17] == '-' && serial[22] == '-' && serial[27] == '-' && serial[32] == '-');
	assert_time(text_at(json_object_get(doc, "metadata"), "timestamp"));
	check_cyclonedx_component(json_object_get(json_object_get(doc, "metadata"), "component"), refs);
	json_array_foreach(json_object_get(doc, "components"), i, item) check_cyclonedx_component(item, refs);
	json_array_foreach(json_object_get(doc, "dependencies"), i, item)
	{
		assert_non_null(json_object_get(refs, text_at(item, "ref")));
		json_array_foreach(json_object_get(item, "dependsOn"), k, to)
		        assert_non_null(json_object_get(refs, json_string_value(to)));
	}
	json_decref(refs);
}

static json_t *sbom_of(const struct img_subject *s, enum img_sbom_format format, char **ret_text)
{
	struct img_sbom_opts o = { .format = format, .epoch = -1 };
	struct base_buf b = BASE_BUF_INIT(1 << 24);
	struct err err = { 0 };
	json_t *doc;

	if (img_sbom_append(s, &o, &b, &err) < 0)
		fail_msg("%s", err_text(&err));
	doc = json_loadb(b.data, b.len, JSON_REJECT_DUPLICATES, NULL);
	assert_non_null(doc);
	*ret_text = base_buf_take(&b);
	return doc;
}

static void both_formats_keep_the_rules_of_their_schemas(void **state)
{
	char *dir = temp_dir(), *text = NULL;
	struct img_subject s = packaged(dir);
	json_t *doc = sbom_of(&s, IMG_SBOM_SPDX, &text);

	(void)state;
	check_spdx(doc);
	assert_non_null(strstr(text, "\"name\":\"tiny-zstdio\""));
	assert_non_null(strstr(text, "\"versionInfo\":\"2:1-1\""));
	assert_non_null(strstr(text, "pkg:rpm/testos/tiny-zstdio@1-1?arch=noarch&epoch=2"));
	assert_non_null(strstr(text, " files are present\""));
	assert_non_null(strstr(text, "\"fileName\":\"./usr/bin/t\""));
	assert_non_null(strstr(text, "\"extractedText\":\"l\"")); /* its licence tag is no expression */
	json_decref(doc);
	free(text);
	doc = sbom_of(&s, IMG_SBOM_CYCLONEDX, &text);
	check_cyclonedx(doc);
	assert_non_null(strstr(text, "pkg:rpm/testos/tiny-zstdio@1-1?arch=noarch&epoch=2"));
	json_decref(doc);
	free(text);
	img_subject_close(&s);
	drop_dir(dir);
}

static void any_bytes_in_names_make_a_valid_document(void **state)
{
	char *dir = temp_dir(), *text = NULL;
	struct img_tree *t = img_tree_new();
	struct img_subject s = { 0 };
	json_t *doc;

	(void)state;
	add_file(t, "/bad\xff\xfe\"\\\n\x01name", "x");
	add_file(t, "/good \xe2\x82\xac", "");
	assert_int_equal(
	        img_tree_write_dir(t, in_dir(dir, "r"), &(struct img_write_opts){ .clamp_mtime = -1 }, NULL, NULL), 0);
	assert_int_equal(img_subject_open(in_dir(dir, "r"), NULL, &s, NULL), 0);
	doc = sbom_of(&s, IMG_SBOM_SPDX, &text);
	check_spdx(doc);
	assert_int_equal(json_array_size(json_object_get(doc, "files")), 2);
	json_decref(doc);
	free(text);
	doc = sbom_of(&s, IMG_SBOM_CYCLONEDX, &text);
	check_cyclonedx(doc);
	json_decref(doc);
	free(text);
	img_subject_close(&s);
	img_tree_free(t);
	drop_dir(dir);
}

static void the_same_image_gives_the_same_bill(void **state)
{
	char *dir = temp_dir(), *one = NULL, *two = NULL;
	struct img_tree *t = sample();
	struct img_write_plan plan = { .tree = t, .epoch = 1700000000 };

	(void)state;
	for (int i = 0; i < 2; i++) {
		struct img_subject s = { 0 };

		write_image(image_at("oci", dir, i ? "two/app:v1" : "app:v1"), &plan);
		assert_int_equal(img_subject_open(image_at("oci", dir, i ? "two/app:v1" : "app:v1"), NULL, &s, NULL),
		                 0);
		json_decref(sbom_of(&s, IMG_SBOM_SPDX, i ? &two : &one));
		img_subject_close(&s);
		if (i == 0)
			assert_int_equal(mkdir(in_dir(dir, "two"), 0755), 0);
	}
	assert_string_equal(one, two);
	assert_non_null(strstr(one, "\"created\":\"2023-11-14T22:13:20Z\""));
	assert_non_null(strstr(one, "\"primaryPackagePurpose\":\"CONTAINER\""));
	free(one);
	free(two);
	img_tree_free(t);
	drop_dir(dir);
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
		cmocka_unit_test(equal_trees_do_not_differ),
		cmocka_unit_test(every_kind_of_change_is_told),
		cmocka_unit_test(a_comparison_ends_when_told_to),
		cmocka_unit_test(files_have_a_purpose_by_their_place),
		cmocka_unit_test(files_know_their_packages),
		cmocka_unit_test(a_root_without_packages_has_none),
		cmocka_unit_test(both_formats_keep_the_rules_of_their_schemas),
		cmocka_unit_test(any_bytes_in_names_make_a_valid_document),
		cmocka_unit_test(the_same_image_gives_the_same_bill),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
