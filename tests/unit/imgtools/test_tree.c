/* The tree as data: adding, finding, order, replacing, paths, following links. */
#include <errno.h>

#include "tree_test.h"

static struct img_tree *new_tree(void)
{
	struct img_tree *t = img_tree_new();

	assert_non_null(t);
	return t;
}

static void a_new_tree_holds_only_the_root(void **state)
{
	struct img_tree *t = new_tree();

	(void)state;
	assert_int_equal(img_tree_count(t), 1);
	assert_string_equal(img_tree_at(t, 0)->path, "/");
	assert_int_equal(img_tree_find(t, "/")->type, IMG_DIR);
	assert_int_equal(img_tree_find(t, "/")->mode, 0755);
	img_tree_free(t);
}

static void missing_parents_are_made(void **state)
{
	struct img_tree *t = new_tree();
	struct img_node *n;

	(void)state;
	add_file(t, "/usr/share/doc/x", "hello");
	n = img_tree_find(t, "/usr/share/doc");
	assert_non_null(n);
	assert_int_equal(n->type, IMG_DIR);
	assert_int_equal(n->mode, 0755);
	assert_int_equal(n->mtime_s, 0);
	assert_int_equal(img_tree_count(t), 5);
	img_tree_free(t);
}

static void the_order_puts_a_directory_right_before_its_content(void **state)
{
	static const char *const sorted[] = { "/",    "/a",  "/a/b", "/a/b/c", "/a/b.c",
		                              "/a b", "/a-", "/a.d", "/a.d/x", "/ab" };
	struct img_tree *t = new_tree();

	(void)state;
	for (size_t i = sizeof(sorted) / sizeof(*sorted); i-- > 1;) {
		if (strcmp(sorted[i], "/a") != 0 && strcmp(sorted[i], "/a/b") != 0 && strcmp(sorted[i], "/a.d") != 0)
			add_file(t, sorted[i], "x");
	}
	assert_int_equal(img_tree_count(t), sizeof(sorted) / sizeof(*sorted));
	for (size_t i = 0; i < img_tree_count(t); i++)
		assert_string_equal(img_tree_at(t, i)->path, sorted[i]);
	assert_null(img_tree_at(t, img_tree_count(t)));
	img_tree_free(t);
}

static void nodes_are_copies_that_stay_where_they_are(void **state)
{
	char text[] = "abc", value[] = { 1, 0, 2 };
	struct img_xattr x[] = { { "user.z", value, 3 }, { "user.a", value, 1 } };
	struct img_tree *t = new_tree();
	struct img_node *n = add_node(
	        t,
	        (struct img_node){ .path = "/f", .mode = 04755, .size = 3, .data = text, .xattrs = x, .n_xattrs = 2 });
	char path[32];

	(void)state;
	memset(text, 'x', 3);
	memset(value, 9, 3);
	for (int i = 0; i < 10000; i++) {
		(void)snprintf(path, sizeof(path), "/d%d/f%d", i % 100, i);
		add_file(t, path, "");
	}
	assert_ptr_equal(img_tree_find(t, "/f"), n);
	assert_memory_equal(n->data, "abc", 3);
	assert_string_equal(n->xattrs[0].name, "user.a");
	assert_memory_equal(n->xattrs[1].value, "\1\0\2", 3);
	assert_int_equal(img_tree_count(t), 1 + 1 + 100 + 10000);
	img_tree_free(t);
}

static void a_directory_replaced_by_a_directory_keeps_its_children(void **state)
{
	struct img_tree *t = new_tree();
	struct img_node *d;

	(void)state;
	add_file(t, "/d/f", "x");
	d = add_node(t, (struct img_node){ .path = "/d", .type = IMG_DIR, .mode = 0700 });
	assert_int_equal(d->mode, 0700);
	assert_non_null(img_tree_find(t, "/d/f"));
	img_tree_free(t);
}

static void a_file_in_place_of_a_directory_removes_all_below(void **state)
{
	struct img_tree *t = new_tree();

	(void)state;
	add_file(t, "/d/e/f", "x");
	add_file(t, "/d/e/g", "x");
	add_file(t, "/d", "now a file");
	assert_int_equal(img_tree_count(t), 2);
	assert_null(img_tree_find(t, "/d/e/f"));
	assert_null(img_tree_find(t, "/d/e"));
	img_tree_free(t);
}

static void a_node_may_be_added_onto_itself(void **state)
{
	struct img_tree *t = new_tree();
	struct img_node *n = add_file(t, "/f", "text"), copy = *n;

	(void)state;
	copy.mode = 0600;
	assert_int_equal(img_tree_add(t, &copy, &n, NULL), 0);
	assert_memory_equal(n->data, "text", 4);
	assert_int_equal(n->mode, 0600);
	img_tree_free(t);
}

static void a_parent_that_is_no_directory_is_refused(void **state)
{
	struct img_tree *t = new_tree();
	struct img_node n = { .path = "/link/x/y", .type = IMG_FILE }, *added = NULL;
	struct err err = { 0 };

	(void)state;
	add_link(t, "/link", "/etc");
	assert_int_equal(img_tree_add(t, &n, &added, &err), -ENOTDIR);
	assert_non_null(strstr(err_text(&err), "/link/x/y"));
	assert_int_equal(img_tree_count(t), 2);
	n.path = "/link/x";
	assert_int_equal(img_tree_add(t, &n, &added, &err), -ENOTDIR);
	assert_null(added);
	img_tree_free(t);
}

static void paths_that_are_not_normal_are_refused(void **state)
{
	static const char *const bad[] = { "", "a", "a/b", "//", "/a/", "/a//b", "/./a", "/a/..", "/..", "/a/./b" };
	struct img_tree *t = new_tree();
	struct img_node n = { .type = IMG_FILE };

	(void)state;
	for (size_t i = 0; i < sizeof(bad) / sizeof(*bad); i++) {
		n.path = bad[i];
		assert_int_equal(img_tree_add(t, &n, NULL, NULL), -EINVAL);
	}
	n.path = "/";
	assert_int_equal(img_tree_add(t, &n, NULL, NULL), -ENOTDIR);
	n = (struct img_node){ .path = "/l", .type = IMG_SYMLINK };
	assert_int_equal(img_tree_add(t, &n, NULL, NULL), -EINVAL);
	img_tree_free(t);
}

static void removing_takes_all_below_and_the_root_is_only_emptied(void **state)
{
	struct img_tree *t = new_tree();

	(void)state;
	add_file(t, "/a/b/c", "x");
	add_file(t, "/a/d", "x");
	add_file(t, "/e", "x");
	img_tree_remove(t, "/nowhere");
	img_tree_remove(t, "/a/b");
	assert_int_equal(img_tree_count(t), 4);
	assert_string_equal(img_tree_at(t, 2)->path, "/a/d");
	img_tree_remove(t, "/");
	assert_int_equal(img_tree_count(t), 1);
	add_file(t, "/a/d", "again");
	assert_int_equal(img_tree_count(t), 3);
	img_tree_free(t);
}

static void names_become_normal_paths(void **state)
{
	static const char *const cases[][2] = {
		{ "usr//lib/./x", "/usr/lib/x" }, { "./", "/" }, { "", "/" }, { "/a/b/", "/a/b" }, { "...", "/..." },
		{ ".hidden", "/.hidden" }
	};
	char path[IMG_PATH_MAX], longest[IMG_PATH_MAX + 8];

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
		assert_int_equal(img_path_normalize(cases[i][0], path), 0);
		assert_string_equal(path, cases[i][1]);
	}
	assert_int_equal(img_path_normalize("a/../b", path), -EINVAL);
	assert_int_equal(img_path_normalize("..", path), -EINVAL);
	memset(longest, 'x', sizeof(longest));
	longest[IMG_PATH_MAX - 2] = '\0';
	assert_int_equal(img_path_normalize(longest, path), 0);
	longest[IMG_PATH_MAX - 2] = 'x';
	longest[IMG_PATH_MAX - 1] = '\0';
	assert_int_equal(img_path_normalize(longest, path), -ENAMETOOLONG);
}

static void count_link(struct img_node *link, void *arg)
{
	(void)link;
	(*(int *)arg)++;
}

static void links_are_followed_as_the_kernel_does(void **state)
{
	static const struct {
		const char *path;
		bool follow;
		int r;
		const char *found;
		int links;
	} cases[] = {
		{ "/lib/x", true, 0, "/usr/lib/x", 1 },       { "lib/x", true, 0, "/usr/lib/x", 1 },
		{ "/lib", true, 0, "/usr/lib", 1 },           { "/lib", false, 0, "/lib", 0 },
		{ "/lib/", false, 0, "/usr/lib", 1 },         { "/lib/../bin", true, 0, "/usr/bin", 1 },
		{ "/up/up/etc", true, 0, "/etc", 2 },         { "/../../etc", true, 0, "/etc", 0 },
		{ "/usr/bin/rel", true, 0, "/usr/lib/x", 2 }, { "/etc/./", true, 0, "/etc", 0 },
		{ "/usr/lib/x/", true, -ENOTDIR, NULL, 0 },   { "/usr/lib/x/y", true, -ENOTDIR, NULL, 0 },
		{ "/usr/lib/x/..", true, -ENOTDIR, NULL, 0 }, { "/usr/lib/none", true, -ENOENT, NULL, 0 },
		{ "/dangling", true, -ENOENT, NULL, 1 },      { "/dangling", false, 0, "/dangling", 0 },
		{ "/loop", true, -ELOOP, NULL, 40 },          { "", true, -ENOENT, NULL, 0 },
	};
	struct img_tree *t = new_tree();

	(void)state;
	add_file(t, "/usr/lib/x", "x");
	add_dir(t, "/usr/bin");
	add_dir(t, "/etc");
	add_link(t, "/lib", "usr/lib");
	add_link(t, "/up", "../..");
	add_link(t, "/usr/bin/rel", "../../lib/x");
	add_link(t, "/dangling", "/no/where");
	add_link(t, "/loop", "loop");
	for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
		struct img_node *n = NULL;
		int links = 0;

		assert_int_equal(img_tree_resolve(t, cases[i].path, cases[i].follow, &n, count_link, &links),
		                 cases[i].r);
		assert_int_equal(links, cases[i].links);
		if (cases[i].found)
			assert_string_equal(n->path, cases[i].found);
		else
			assert_null(n);
	}
	img_tree_free(t);
}

static void a_chain_of_forty_links_is_followed(void **state)
{
	struct img_tree *t = new_tree();
	struct img_node *n = NULL;
	char name[16], target[16];

	(void)state;
	add_file(t, "/l0", "x");
	for (int i = 1; i <= 41; i++) {
		(void)snprintf(name, sizeof(name), "/l%d", i);
		(void)snprintf(target, sizeof(target), "l%d", i - 1);
		add_link(t, name, target);
	}
	assert_int_equal(img_tree_resolve(t, "/l40", true, &n, NULL, NULL), 0);
	assert_int_equal(img_tree_resolve(t, "/l41", true, &n, NULL, NULL), -ELOOP);
	img_tree_free(t);
}

static void the_bytes_of_a_node_are_read_in_pieces_and_whole(void **state)
{
	char *dir = temp_dir(), buf[8], *path = strdup(in_dir(dir, "f"));
	struct img_tree *t = new_tree();
	struct img_node *mem = add_file(t, "/m", "0123456789"), *file, *gone;
	void *data = NULL;
	size_t size = 0;

	(void)state;
	write_text(path, "0123456789 and more that came later");
	file = add_node(t, (struct img_node){ .path = "/f", .size = 10, .source = path });
	gone = add_node(t, (struct img_node){ .path = "/g", .size = 10 });
	for (int i = 0; i < 2; i++) {
		struct img_node *n = i ? file : mem;

		assert_int_equal(img_node_read(n, buf, 4, 3, NULL), 4);
		assert_memory_equal(buf, "3456", 4);
		assert_int_equal(img_node_read(n, buf, 8, 6, NULL), 4);
		assert_int_equal(img_node_read(n, buf, 8, 10, NULL), 0);
		assert_int_equal(img_node_read(n, buf, 8, UINT64_MAX, NULL), 0);
		assert_int_equal(img_node_read_all(n, 10, &data, &size, NULL), 0);
		assert_int_equal(size, 10);
		assert_string_equal(data, "0123456789");
		free(data);
		data = NULL;
		assert_int_equal(img_node_read_all(n, 9, &data, &size, NULL), -EFBIG);
	}
	assert_int_equal(img_node_read(gone, buf, 1, 0, NULL), -ENODATA);
	assert_int_equal(img_node_read(img_tree_find(t, "/"), buf, 1, 0, NULL), -EINVAL);
	img_tree_free(t);
	free(path);
	drop_dir(dir);
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_new_tree_holds_only_the_root),
		cmocka_unit_test(missing_parents_are_made),
		cmocka_unit_test(the_order_puts_a_directory_right_before_its_content),
		cmocka_unit_test(nodes_are_copies_that_stay_where_they_are),
		cmocka_unit_test(a_directory_replaced_by_a_directory_keeps_its_children),
		cmocka_unit_test(a_file_in_place_of_a_directory_removes_all_below),
		cmocka_unit_test(a_node_may_be_added_onto_itself),
		cmocka_unit_test(a_parent_that_is_no_directory_is_refused),
		cmocka_unit_test(paths_that_are_not_normal_are_refused),
		cmocka_unit_test(removing_takes_all_below_and_the_root_is_only_emptied),
		cmocka_unit_test(names_become_normal_paths),
		cmocka_unit_test(links_are_followed_as_the_kernel_does),
		cmocka_unit_test(a_chain_of_forty_links_is_followed),
		cmocka_unit_test(the_bytes_of_a_node_are_read_in_pieces_and_whole),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
