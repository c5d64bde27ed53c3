/* Layers put on top of each other: whiteouts, links, replaced names; and the hostile ones, which end in an error that
 * names the layer and the entry and leave nothing outside. */
#include <errno.h>

#include "oci_test.h"

struct raw {
	const char *name;
	char type;
	const char *link, *data;
	unsigned major, minor;
};

static struct base_buf layer(const struct raw *entries, size_t n)
{
	struct base_buf b = BASE_BUF_INIT(1 << 24);

	for (size_t i = 0; i < n; i++)
		raw_entry(&b, entries[i].name, entries[i].type, entries[i].link, entries[i].data, entries[i].major,
		          entries[i].minor);
	raw_end(&b);
	return b;
}

#define LAYER(...) \
	layer((const struct raw[]){ __VA_ARGS__ }, sizeof((const struct raw[]){ __VA_ARGS__ }) / sizeof(struct raw))

struct opened {
	char *dir;
	struct img_image *image;
	int r;
	struct err err;
};

/* An image of these layers, opened with a work folder below its own. */
static struct opened open_layers(struct base_buf *layers, size_t n)
{
	struct opened o = { .dir = temp_dir() };
	struct img_open_opts opts = { .work_dir = o.dir, .arch = "amd64" };

	make_layout(in_dir(o.dir, "layout"), layers, n);
	o.r = img_image_open(image_at("oci", o.dir, "layout"), &opts, &o.image, &o.err);
	for (size_t i = 0; i < n; i++)
		base_buf_done(&layers[i]);
	return o;
}

static void close_layers(struct opened *o)
{
	img_image_close(o->image);
	/* The work folder is gone: only the layout is left. */
	assert_int_equal(remove(o->dir), -1);
	remove_all(in_dir(o->dir, "layout"));
	assert_int_equal(rmdir(o->dir), 0);
	free(o->dir);
}

static void upper_layers_replace_and_remove(void **state)
{
	struct base_buf layers[] = {
		LAYER({ .name = "etc/", .type = '5' }, { .name = "etc/a", .type = '0', .data = "one" },
		      { .name = "etc/b", .type = '0', .data = "b" }, { .name = "d/x/y", .type = '0', .data = "y" },
		      { .name = "opq/old", .type = '0', .data = "old" },
		      { .name = "opq/sub/old", .type = '0', .data = "old" },
		      { .name = "becomes-file/in", .type = '0', .data = "x" },
		      { .name = "becomes-dir", .type = '0', .data = "x" }),
		LAYER({ .name = "etc/a", .type = '0', .data = "two" }, { .name = "etc/.wh.b", .type = '0' },
		      { .name = ".wh.d", .type = '0' }, { .name = "opq/new", .type = '0', .data = "new" },
		      { .name = "opq/.wh..wh..opq", .type = '0' },
		      { .name = "becomes-file", .type = '0', .data = "file" }, { .name = "becomes-dir/", .type = '5' },
		      { .name = "becomes-dir/in", .type = '0', .data = "in" }),
	};
	struct opened o = open_layers(layers, 2);
	struct img_tree *t;

	(void)state;
	assert_int_equal(o.r, 0);
	t = o.image->tree;
	assert_text_is(t, "/etc/a", "two");
	assert_null(img_tree_find(t, "/etc/b"));
	assert_null(img_tree_find(t, "/d"));
	assert_null(img_tree_find(t, "/opq/old"));
	assert_null(img_tree_find(t, "/opq/sub"));
	assert_text_is(t, "/opq/new", "new");
	assert_text_is(t, "/becomes-file", "file");
	assert_text_is(t, "/becomes-dir/in", "in");
	assert_int_equal(img_tree_find(t, "/etc")->layer, 0);
	assert_int_equal(img_tree_find(t, "/etc/a")->layer, 1);
	close_layers(&o);
}

static void a_whiteout_does_not_touch_its_own_layer(void **state)
{
	struct base_buf layers[] = {
		LAYER({ .name = "d/old", .type = '0', .data = "old" }),
		LAYER({ .name = "d/", .type = '5' }, { .name = "d/new", .type = '0', .data = "new" },
		      { .name = ".wh.d", .type = '0' }),
	};
	struct opened o = open_layers(layers, 2);

	(void)state;
	assert_int_equal(o.r, 0);
	assert_null(img_tree_find(o.image->tree, "/d/old"));
	assert_text_is(o.image->tree, "/d/new", "new");
	close_layers(&o);
}

static void a_whiteout_of_nothing_is_no_error(void **state)
{
	struct base_buf layers[] = { LAYER({ .name = "a/.wh.b", .type = '0' },
		                           { .name = ".wh..wh.plnk/12.34", .type = '0', .data = "" }) };
	struct opened o = open_layers(layers, 1);

	(void)state;
	assert_int_equal(o.r, 0);
	assert_int_equal(img_tree_count(o.image->tree), 1);
	close_layers(&o);
}

static void hard_links_are_groups_also_across_layers(void **state)
{
	struct base_buf layers[] = {
		LAYER({ .name = "a", .type = '0', .data = "text" }, { .name = "b", .type = '1', .link = "a" },
		      { .name = "lonely", .type = '0', .data = "x" }, { .name = "x", .type = '1', .link = "lonely" }),
		LAYER({ .name = "c", .type = '1', .link = "a" }, { .name = ".wh.x", .type = '0' }),
	};
	struct opened o = open_layers(layers, 2);
	struct img_tree *t;
	struct stat a, c;
	char *root;

	(void)state;
	assert_int_equal(o.r, 0);
	t = o.image->tree;
	assert_true(img_tree_find(t, "/a")->link_group > 0);
	assert_int_equal(img_tree_find(t, "/a")->link_group, img_tree_find(t, "/b")->link_group);
	assert_int_equal(img_tree_find(t, "/a")->link_group, img_tree_find(t, "/c")->link_group);
	assert_int_equal(img_tree_find(t, "/lonely")->link_group, 0); /* its other name is gone */
	root = strdup(in_dir(o.dir, "root"));
	assert_int_equal(img_image_unpack(o.image, root, NULL, NULL), 0);
	assert_int_equal(stat(in_dir(root, "a"), &a), 0);
	assert_int_equal(stat(in_dir(root, "c"), &c), 0);
	assert_int_equal(a.st_ino, c.st_ino);
	assert_int_equal(a.st_nlink, 3);
	assert_text_is(t, "/c", "text"); /* the nodes know where their bytes are now */
	remove_all(root);
	free(root);
	close_layers(&o);
}

static void unpacking_gives_a_root_of_what_the_tree_says(void **state)
{
	struct base_buf layers[] = {
		LAYER({ .name = "usr/bin/", .type = '5' }, { .name = "usr/bin/x", .type = '0', .data = "x" },
		      { .name = "empty", .type = '0' }, { .name = "link", .type = '2', .link = "../../etc" },
		      { .name = "fifo", .type = '6' }, { .name = "dev/null", .type = '3', .major = 1, .minor = 3 }),
	};
	struct opened o = open_layers(layers, 1);
	struct img_tree *back = NULL;
	char *root;

	(void)state;
	assert_int_equal(o.r, 0);
	root = strdup(in_dir(o.dir, "root"));
	assert_int_equal(img_image_unpack(o.image, root, NULL, NULL), 0);
	assert_int_equal(img_tree_scan(root, &back, NULL), 0);
	assert_int_equal(img_tree_count(back), img_tree_count(o.image->tree) - (geteuid() ? 1 : 0));
	assert_text_is(back, "/usr/bin/x", "x");
	assert_string_equal(img_tree_find(back, "/link")->target, "../../etc");
	img_tree_free(back);
	remove_all(root);
	free(root);
	close_layers(&o);
}

/* What the second layer does is refused; the message names the layer and the entry. */
static void hostile_entries_are_refused(void **state)
{
	static const struct {
		struct raw entries[2];
		size_t n;
		const char *words;
	} cases[] = {
		{ { { .name = "../evil", .type = '0', .data = "x" } }, 1, "../evil" },
		{ { { .name = "a/../../evil", .type = '0', .data = "x" } }, 1, "a/../../evil" },
		{ { { .name = "/etc/evil", .type = '0', .data = "x" } }, 1, "/etc/evil" },
		{ { { .name = "..", .type = '5' } }, 1, ".." },
		{ { { .name = "hard", .type = '1', .link = "../../etc/passwd" } }, 1, "hard" },
		{ { { .name = "hard", .type = '1', .link = "/etc/passwd" } }, 1, "hard" },
		{ { { .name = "hard", .type = '1', .link = "nothing" } }, 1, "hard" },
		{ { { .name = "hard", .type = '1', .link = "dir" } }, 1, "hard" },
		{ { { .name = "link/evil", .type = '0', .data = "x" } }, 1, "link/evil" },
		{ { { .name = "out", .type = '2', .link = "/tmp" }, { .name = "out/evil", .type = '0', .data = "x" } },
		  2,
		  "out/evil" },
		{ { { .name = "out", .type = '2', .link = "../.." }, { .name = "out/evil/", .type = '5' } },
		  2,
		  "out/evil" },
		{ { { .name = "file/below", .type = '0', .data = "x" } }, 1, "file/below" },
		{ { { .name = "dev/sda", .type = '4', .major = 8, .minor = 0 } }, 1, "dev/sda" },
		{ { { .name = "dev/mem", .type = '3', .major = 1, .minor = 1 } }, 1, "dev/mem" },
		{ { { .name = "twice", .type = '0', .data = "1" }, { .name = "twice", .type = '0', .data = "2" } },
		  2,
		  "twice" },
		{ { { .name = "twice", .type = '0', .data = "1" }, { .name = "./twice", .type = '2', .link = "x" } },
		  2,
		  "twice" },
		{ { { .name = ".wh...", .type = '0' } }, 1, ".wh..." },
		{ { { .name = ".wh..", .type = '0' } }, 1, ".wh.." },
		{ { { .name = "dir/.wh.", .type = '0' } }, 1, ".wh." },
		{ { { .name = "link/.wh.passwd", .type = '0' } }, 1, "link/passwd" },
		{ { { .name = ".wh.file", .type = '0', .data = "bytes" } }, 1, ".wh.file" },
		{ { { .name = ".wh.file", .type = '2', .link = "x" } }, 1, ".wh.file" },
		{ { { .name = ".wh.dir/below", .type = '0', .data = "x" } }, 1, ".wh.dir/below" },
		{ { { .name = "link", .type = '2' } }, 1, "link" },
		{ { { .name = "./", .type = '0', .data = "" }, { .name = "sparse", .type = 'S', .data = "" } },
		  2,
		  "sparse" },
		{ { { .name = "odd\nname\x1b[31m", .type = 'Z' } }, 1, "odd name [31m" },
	};

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
		struct base_buf layers[] = {
			LAYER({ .name = "dir/", .type = '5' }, { .name = "file", .type = '0', .data = "x" },
			      { .name = "link", .type = '2', .link = "/etc" }),
			layer(cases[i].entries, cases[i].n),
		};
		const char *layer_name = digest_of(layers[1].data, layers[1].len);
		char short_name[32];
		struct opened o;

		(void)snprintf(short_name, sizeof(short_name), "%.19s (2 of 2)", layer_name);
		o = open_layers(layers, 2);
		if (o.r == 0)
			fail_msg("case %zu was taken", i);
		if (!strstr(err_text(&o.err), cases[i].words) || !strstr(err_text(&o.err), short_name))
			fail_msg("case %zu: %s", i, err_text(&o.err));
		assert_null(o.image);
		close_layers(&o);
	}
}

static void devices_are_taken_when_allowed(void **state)
{
	struct base_buf layers[] = { LAYER({ .name = "dev/sda", .type = '4', .major = 8, .minor = 0 }) };
	struct img_open_opts opts = { .limits = { .allow_devices = true }, .arch = "amd64" };
	char *dir = temp_dir();
	struct img_image *image = NULL;

	(void)state;
	make_layout(in_dir(dir, "l"), layers, 1);
	assert_int_equal(img_image_open(image_at("oci", dir, "l"), &opts, &image, NULL), 0);
	assert_int_equal(img_tree_find(image->tree, "/dev/sda")->major, 8);
	img_image_close(image);
	base_buf_done(&layers[0]);
	drop_dir(dir);
}

static void limits_end_what_grows_without_end(void **state)
{
	struct base_buf layers[] = { LAYER({ .name = "a", .type = '0', .data = "x" },
		                           { .name = "b", .type = '0', .data = "x" },
		                           { .name = "c", .type = '0', .data = "x" }) };
	struct img_open_opts opts = { .limits = { .max_entries = 2 }, .arch = "amd64" };
	struct img_image *image = NULL;
	char *dir = temp_dir();
	struct err err = { 0 };

	(void)state;
	make_layout(in_dir(dir, "l"), layers, 1);
	assert_int_equal(img_image_open(image_at("oci", dir, "l"), &opts, &image, &err), -EFBIG);
	assert_non_null(strstr(err_text(&err), "2 entries"));
	opts.limits = (struct img_limits){ .max_bytes = 2000 };
	assert_int_equal(img_image_open(image_at("oci", dir, "l"), &opts, &image, &err), -EFBIG);
	assert_non_null(strstr(err_text(&err), "2000 bytes"));
	base_buf_done(&layers[0]);
	drop_dir(dir);
}

/* Three gigabytes of zeros in a few hundred kilobytes. */
static void a_bomb_is_refused(void **state)
{
	char *dir = temp_dir(), *big = strdup(in_dir(dir, "big"));
	struct img_tree *t = img_tree_new();
	struct img_open_opts opts = { .work_dir = dir };
	struct img_image *image = NULL;
	struct err err = { 0 };
	int fd = open(big, O_CREAT | O_WRONLY, 0600);

	(void)state;
	assert_int_equal(ftruncate(fd, 1200ll << 20), 0);
	assert_int_equal(close(fd), 0);
	add_node(t, (struct img_node){ .path = "/big", .mode = 0644, .size = 1200ull << 20, .source = big });
	write_image(image_at("oci", dir, "l:x"),
	            &(struct img_write_plan){ .tree = t, .compression = IMG_ZSTD, .level = 1 });
	assert_int_equal(img_image_open(image_at("oci", dir, "l:x"), &opts, &image, &err), -EFBIG);
	assert_non_null(strstr(err_text(&err), "times as many"));
	opts.limits.max_ratio = 1000000;
	assert_int_equal(img_image_open(image_at("oci", dir, "l:x"), &opts, &image, &err), 0);
	{
		struct stat st; /* its zeros take no room */

		assert_int_equal(stat(img_tree_find(image->tree, "/big")->source, &st), 0);
		assert_true(st.st_blocks < 2048);
	}
	img_image_close(image);
	img_tree_free(t);
	free(big);
	drop_dir(dir);
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
		cmocka_unit_test(upper_layers_replace_and_remove),
		cmocka_unit_test(a_whiteout_does_not_touch_its_own_layer),
		cmocka_unit_test(a_whiteout_of_nothing_is_no_error),
		cmocka_unit_test(hard_links_are_groups_also_across_layers),
		cmocka_unit_test(unpacking_gives_a_root_of_what_the_tree_says),
		cmocka_unit_test(hostile_entries_are_refused),
		cmocka_unit_test(devices_are_taken_when_allowed),
		cmocka_unit_test(limits_end_what_grows_without_end),
		cmocka_unit_test(a_bomb_is_refused),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
