/* A layer as a tree by FUSE, compared with the folder it was made of: entry by entry, byte by byte. Another folder can
 * be given on the command line. */
#include <fcntl.h>
#include <sys/sysmacros.h>
#include <sys/xattr.h>

#include "base/sha256.h"
#include "erofs/erofs.h"
#include "fusefs_test.h"
#include "tree/tree.h"

enum { LAYER_ID = 0xabcdef, MANY = 3000 };

static const char layer_name[] = "00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff";

/* The contents of the folder: an object for each file, found by the file's place in the list. */
struct contents {
	struct content {
		uint8_t digest[32];
		char *path;
		uint64_t size;
	} * list;
	size_t n;
	const struct flip_erofs *_Atomic layer; /* NULL: gone */
	bool complete;
	atomic_ulong n_reads, n_opened, n_closed;
};

static struct fusefs_place place;
static struct contents contents;
static struct img_tree *tree;
static struct flip_erofs *erofs;
static struct flip_fs *fs;
static char folder[512], layer_path[256];
static const char *given_folder;

/* ---- The owner -------------------------------------------------------------------------------------------- */

static uint64_t content_find(void *arg, const uint8_t digest[32], uint64_t *ret_size)
{
	struct contents *c = arg;

	for (size_t i = 0; i < c->n; i++) {
		if (memcmp(c->list[i].digest, digest, 32) == 0) {
			*ret_size = c->list[i].size;
			return i + 1;
		}
	}
	return 0;
}

static int content_size(void *arg, uint64_t id, uint64_t *ret_size)
{
	struct contents *c = arg;

	if (id == 0 || id > c->n)
		return -ENOENT;
	*ret_size = c->list[id - 1].size;
	return 0;
}

static int content_open(void *arg, uint64_t id, void **ret_handle, int *ret_fd)
{
	struct contents *c = arg;
	int fd = open(c->list[id - 1].path, O_RDONLY | O_CLOEXEC);

	if (fd < 0)
		return -errno;
	atomic_fetch_add(&c->n_opened, 1);
	*ret_handle = (void *)(intptr_t)fd;
	*ret_fd = c->complete ? fd : -1;
	return 0;
}

static void content_close(void *arg, void *handle)
{
	struct contents *c = arg;

	atomic_fetch_add(&c->n_closed, 1);
	(void)close((int)(intptr_t)handle);
}

static void content_read(void *arg, void *handle, uint64_t offset, size_t size, struct flip_fs_read *read)
{
	struct contents *c = arg;

	atomic_fetch_add(&c->n_reads, 1);
	flip_fs_reply_fd(read, (int)(intptr_t)handle, offset, size);
}

static const struct flip_erofs *layer_find(void *arg, const char *name, uint32_t *ret_id)
{
	struct contents *c = arg;

	*ret_id = LAYER_ID;
	return strcmp(name, layer_name) == 0 ? c->layer : NULL;
}

static const struct flip_erofs *layer_by_id(void *arg, uint32_t id)
{
	struct contents *c = arg;

	return id == LAYER_ID ? c->layer : NULL;
}

static const char *layer_at(void *arg, size_t i)
{
	struct contents *c = arg;

	return i == 0 && c->layer ? layer_name : NULL;
}

static const struct flip_fs_ops content_ops = {
	.object_find = content_find,
	.object_size = content_size,
	.object_open = content_open,
	.object_close = content_close,
	.object_read = content_read,
	.layer_find = layer_find,
	.layer_by_id = layer_by_id,
	.layer_at = layer_at,
};

/* ---- The folder ------------------------------------------------------------------------------------------- */

static const char *in_folder(const char *name)
{
	static char path[4200];

	(void)snprintf(path, sizeof(path), "%s/%s", folder, name);
	return path;
}

static void add_file(const char *name, size_t size, mode_t mode)
{
	int fd = open(in_folder(name), O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
	char *data = malloc(size + 1);

	for (size_t i = 0; i < size; i++)
		data[i] = (char)(i * 31 + (i >> 8) + size);
	assert_true(fd >= 0);
	assert_int_equal(write(fd, data, size), size);
	assert_int_equal(fchmod(fd, mode), 0);
	(void)close(fd);
	free(data);
}

static void set_times(const char *name, int64_t s, long ns)
{
	struct timespec t[2] = { { .tv_sec = s, .tv_nsec = ns }, { .tv_sec = s, .tv_nsec = ns } };

	assert_int_equal(utimensat(AT_FDCWD, in_folder(name), t, AT_SYMLINK_NOFOLLOW), 0);
}

static void make_folder(void)
{
	char name[300] = "dir/";

	(void)snprintf(folder, sizeof(folder), "%s/folder", place.dir);
	assert_int_equal(mkdir(folder, 0755), 0);
	assert_int_equal(mkdir(in_folder("dir"), 0751), 0);
	assert_int_equal(mkdir(in_folder("sticky"), 0755), 0);
	assert_int_equal(chmod(in_folder("sticky"), 01777), 0);
	assert_int_equal(mkdir(in_folder("many"), 0755), 0);
	add_file("empty", 0, 0644);
	add_file("small", 77, 0600);
	add_file("dir/page", 4096, 04755);
	add_file("dir/large", 1234567, 02755);
	assert_int_equal(chown(in_folder("small"), 1234, 99999), 0);
	memset(name + 4, 'n', 255);
	add_file(name, 10, 0644);
	{
		char other[4200];

		(void)snprintf(other, sizeof(other), "%s/dir/hard", folder);
		assert_int_equal(link(in_folder("dir/large"), other), 0);
		(void)snprintf(other, sizeof(other), "%s/sticky/hard", folder);
		assert_int_equal(link(in_folder("dir/large"), other), 0);
	}
	assert_int_equal(symlink("dir/large", in_folder("link")), 0);
	memset(name, 't', 299);
	name[299] = 0;
	assert_int_equal(symlink(name, in_folder("long-link")), 0);
	assert_int_equal(mkfifo(in_folder("fifo"), 0640), 0);
	assert_int_equal(mknod(in_folder("whiteout"), S_IFCHR | 0600, makedev(0, 0)), 0);
	assert_int_equal(mknod(in_folder("null"), S_IFCHR | 0666, makedev(1, 3)), 0);
	assert_int_equal(mknod(in_folder("disk"), S_IFBLK | 0660, makedev(259, 70000)), 0);
	assert_int_equal(mknod(in_folder("socket"), S_IFSOCK | 0755, 0), 0);
	assert_int_equal(setxattr(in_folder("small"), "user.text", "value", 5, 0), 0);
	assert_int_equal(setxattr(in_folder("small"), "user.empty", "", 0, 0), 0);
	assert_int_equal(setxattr(in_folder("sticky"), "trusted.overlay.opaque", "y", 1, 0), 0);
	assert_int_equal(setxattr(in_folder("dir/page"), "security.capability",
	                          "\1\0\0\2\0\4\0\0\0\0\0\0\0\0\0\0\0\0\0\0", 20, 0),
	                 0);
	for (int i = 0; i < MANY; i++) {
		(void)snprintf(name, sizeof(name), "many/%d-%d", i * 7919 % MANY, i);
		add_file(name, i % 3 ? 0 : 20, 0644);
	}
	set_times("small", 1234567890, 987654321);
	set_times("link", -5, 1);
	set_times("dir/large", 4294967296 + 17, 999999999);
	set_times("whiteout", 0, 0);
}

static const uint8_t *digest_of(const struct img_node *n, void *arg)
{
	struct content *c = n->user;

	(void)arg;
	return c ? c->digest : NULL;
}

static void list_contents(void)
{
	contents.list = calloc(img_tree_count(tree), sizeof(*contents.list));
	for (size_t i = 0; i < img_tree_count(tree); i++) {
		struct img_node *n = img_tree_at(tree, i);
		struct content *c = &contents.list[contents.n];
		void *data;
		size_t size;

		n->user = NULL;
		if (n->type != IMG_FILE || n->size == 0)
			continue;
		assert_int_equal(img_node_read_all(n, UINT32_MAX, &data, &size, NULL), 0);
		assert_int_equal(base_sha256_bytes(data, size, c->digest), 0);
		free(data);
		c->path = strdup(n->source);
		c->size = n->size;
		n->user = c;
		contents.n++;
	}
}

static int setup(void **state)
{
	struct flip_fs_opts o = { .ops = &content_ops, .arg = &contents, .n_threads = 3, .session_fd = -1 };
	struct err err = { 0 };
	char image[256];

	(void)state;
	make_place(&place);
	memset(&contents, 0, sizeof(contents));
	contents.complete = true;
	if (given_folder)
		(void)snprintf(folder, sizeof(folder), "%s", given_folder);
	else
		make_folder();
	assert_int_equal(img_tree_scan(folder, &tree, &err), 0);
	list_contents();
	(void)snprintf(image, sizeof(image), "%s/layer.erofs", place.dir);
	if (flip_erofs_write(tree, digest_of, NULL, image, &err) < 0 || flip_erofs_open(image, &erofs, &err) < 0)
		fail_msg("%s", err_text(&err));
	contents.layer = erofs;
	o.mountpoint = place.mountpoint;
	if (flip_fs_start(&o, &fs, &err) < 0)
		fail_msg("%s", err_text(&err));
	(void)snprintf(layer_path, sizeof(layer_path), "%s/layers/%s", place.mountpoint, layer_name);
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	flip_fs_stop(fs, true);
	flip_erofs_close(erofs);
	assert_int_equal(atomic_load(&contents.n_opened), atomic_load(&contents.n_closed));
	img_tree_free(tree);
	for (size_t i = 0; i < contents.n; i++)
		free(contents.list[i].path);
	free(contents.list);
	remove_place(&place);
	return 0;
}

/* ---- Comparing -------------------------------------------------------------------------------------------- */

static void compare_stat(const char *path)
{
	char real[8192], served[8192];
	struct stat a, b;

	(void)snprintf(real, sizeof(real), "%s%s", folder, path);
	(void)snprintf(served, sizeof(served), "%s%s", layer_path, path);
	if (lstat(real, &a) != 0 || lstat(served, &b) != 0)
		fail_msg("%s: %s", path, strerror(errno));
	assert_int_equal(a.st_mode, b.st_mode);
	assert_int_equal(a.st_uid, b.st_uid);
	assert_int_equal(a.st_gid, b.st_gid);
	assert_int_equal(a.st_rdev, b.st_rdev);
	assert_int_equal(a.st_mtim.tv_sec, b.st_mtim.tv_sec);
	assert_int_equal(a.st_mtim.tv_nsec, b.st_mtim.tv_nsec);
	if (!S_ISDIR(a.st_mode)) {
		assert_int_equal(a.st_size, b.st_size);
		assert_int_equal(a.st_nlink, b.st_nlink);
	}
}

static void compare_content(const struct img_node *a, const struct img_node *b)
{
	void *x, *y;
	size_t n, m;

	assert_int_equal(img_node_read_all(a, UINT32_MAX, &x, &n, NULL), 0);
	assert_int_equal(img_node_read_all(b, UINT32_MAX, &y, &m, NULL), 0);
	assert_int_equal(n, m);
	assert_memory_equal(x, y, n);
	free(x);
	free(y);
}

static void compare_node(const struct img_node *a, const struct img_node *b)
{
	assert_string_equal(a->path, b->path);
	assert_int_equal(a->type, b->type);
	assert_int_equal(!a->link_group, !b->link_group);
	if (a->type == IMG_SYMLINK)
		assert_string_equal(a->target, b->target);
	assert_int_equal(a->n_xattrs, b->n_xattrs);
	for (size_t i = 0; i < a->n_xattrs; i++) {
		assert_string_equal(a->xattrs[i].name, b->xattrs[i].name);
		assert_int_equal(a->xattrs[i].size, b->xattrs[i].size);
		assert_memory_equal(a->xattrs[i].value, b->xattrs[i].value, a->xattrs[i].size);
	}
	if (a->type == IMG_FILE)
		compare_content(a, b);
	compare_stat(a->path);
}

static void compare_trees(void)
{
	struct img_tree *served;
	struct err err = { 0 };

	if (img_tree_scan(layer_path, &served, &err) < 0)
		fail_msg("%s", err_text(&err));
	assert_int_equal(img_tree_count(tree), img_tree_count(served));
	for (size_t i = 0; i < img_tree_count(tree); i++)
		compare_node(img_tree_at(tree, i), img_tree_at(served, i));
	img_tree_free(served);
}

static void the_tree_is_the_folder(void **state)
{
	(void)state;
	compare_trees();
	compare_trees(); /* out of the kernel's caches */
}

static void the_tree_is_the_folder_while_it_arrives(void **state)
{
	(void)state;
	contents.complete = false;
	compare_trees();
	assert_true(atomic_load(&contents.n_reads) > 0);
}

static void layers_are_listed(void **state)
{
	char path[128], command[512];

	(void)state;
	(void)snprintf(path, sizeof(path), "%s/layers", place.mountpoint);
	(void)snprintf(command, sizeof(command),
	               "test \"$(ls %s)\" = %s && test \"$(ls %s | tr '\\n' ' ')\" = 'layers objects '", path,
	               layer_name, place.mountpoint);
	assert_int_equal(system(command), 0);
}

static void overlay_attributes_are_hidden_but_opaque(void **state)
{
	char path[512], value[256], names[1024];

	(void)state;
	(void)snprintf(path, sizeof(path), "%s/small", layer_path);
	assert_int_equal(getxattr(path, "trusted.overlay.redirect", value, sizeof(value)), -1);
	assert_int_equal(errno, ENODATA);
	assert_int_equal(getxattr(path, "user.text", NULL, 0), 5);
	assert_int_equal(getxattr(path, "user.text", value, 4), -1);
	assert_int_equal(errno, ERANGE);
	assert_int_equal(listxattr(path, names, sizeof(names)), sizeof("user.empty") + sizeof("user.text"));
	(void)snprintf(path, sizeof(path), "%s/sticky", layer_path);
	assert_int_equal(getxattr(path, "trusted.overlay.opaque", value, sizeof(value)), 1);
}

static void a_forgotten_layer_is_gone(void **state)
{
	char path[512];
	struct stat st;
	int dir;

	(void)state;
	(void)snprintf(path, sizeof(path), "%s/dir/page", layer_path);
	assert_int_equal(stat(path, &st), 0);
	dir = open(layer_path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	contents.layer = NULL;
	flip_fs_forget_layer(fs, LAYER_ID);
	assert_int_equal(stat(path, &st), -1);
	assert_int_equal(errno, ENOENT);
	assert_int_equal(fstatat(dir, "never-asked-for", &st, 0), -1);
	assert_int_equal(errno, ESTALE);
	(void)close(dir);
	contents.layer = erofs; /* it may come back */
	assert_int_equal(stat(path, &st), 0);
}

struct walker {
	pthread_t thread;
	atomic_bool *stop;
};

static void *walk_for_ever(void *arg)
{
	struct walker *w = arg;

	while (!atomic_load(w->stop)) {
		struct img_tree *t = NULL;

		if (img_tree_scan(layer_path, &t, NULL) == 0)
			img_tree_free(t);
	}
	return NULL;
}

static void layers_come_and_go_under_walkers(void **state)
{
	struct walker w[3];
	atomic_bool stop = false;

	(void)state;
	for (int i = 0; i < 3; i++) {
		w[i].stop = &stop;
		assert_int_equal(pthread_create(&w[i].thread, NULL, walk_for_ever, &w[i]), 0);
	}
	for (int i = 0; i < 30; i++) {
		char image[256];

		(void)usleep(10000);
		atomic_store(&contents.layer, NULL);
		flip_fs_forget_layer(fs, LAYER_ID);
		flip_erofs_close(erofs); /* nobody reads its mapping now */
		(void)snprintf(image, sizeof(image), "%s/layer.erofs", place.dir);
		assert_int_equal(flip_erofs_open(image, &erofs, NULL), 0);
		atomic_store(&contents.layer, erofs);
	}
	atomic_store(&stop, true);
	for (int i = 0; i < 3; i++)
		assert_int_equal(pthread_join(w[i].thread, NULL), 0);
	compare_trees();
}

int main(int argc, char **argv)
{
#define FS_TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
	const struct CMUnitTest tests[] = {
		FS_TEST(the_tree_is_the_folder),    FS_TEST(the_tree_is_the_folder_while_it_arrives),
		FS_TEST(layers_are_listed),         FS_TEST(overlay_attributes_are_hidden_but_opaque),
		FS_TEST(a_forgotten_layer_is_gone), FS_TEST(layers_come_and_go_under_walkers),
	};
	const struct CMUnitTest given[] = { FS_TEST(the_tree_is_the_folder),
		                            FS_TEST(the_tree_is_the_folder_while_it_arrives) };

	if (!fusefs_can()) {
		puts("skipped: needs root, /dev/fuse and a mount namespace");
		return 77;
	}
	given_folder = argc > 1 ? argv[1] : NULL;
	if (given_folder)
		return cmocka_run_group_tests(given, NULL, NULL);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
