/* A layer's metadata image: what is written is read again, over odd trees and random ones; what damaged images do. */
#include <dirent.h>
#include <errno.h>
#include <sys/sysmacros.h>

#include "base/sha256.h"
#include "erofs/erofs.h"
#include "erofs/erofs_internal.h"
#include "tree_test.h"

static const uint8_t *digest_of(const struct img_node *n, void *arg)
{
	static uint8_t digest[32];

	(void)arg;
	assert_int_equal(n->type, IMG_FILE);
	assert_int_equal(base_sha256_bytes(&n->size, sizeof(n->size), digest), 0);
	return digest;
}

/* The tree as an image in a folder of its own, opened. */
struct image {
	char *dir;
	const char *path;
	struct flip_erofs *fs;
};

static struct image write_image(struct img_tree *t)
{
	struct image im = { .dir = temp_dir() };
	struct err err = { 0 };

	im.path = strdup(in_dir(im.dir, "layer.erofs"));
	if (flip_erofs_write(t, digest_of, NULL, im.path, &err) < 0 || flip_erofs_open(im.path, &im.fs, &err) < 0)
		fail_msg("%s", err_text(&err));
	return im;
}

static void drop_image(struct image *im)
{
	flip_erofs_close(im->fs);
	free((char *)im->path);
	drop_dir(im->dir);
}

static uint64_t nid_at(const struct image *im, const char *path)
{
	uint64_t nid = 0;

	if (flip_erofs_resolve(im->fs, path, &nid) != 0)
		fail_msg("%s is not in the image", path);
	return nid;
}

/* ---- Whole trees compared --------------------------------------------------------------------------------- */

static mode_t type_bits(const struct img_node *n)
{
	static const mode_t types[] = { S_IFREG, S_IFDIR, S_IFLNK, S_IFCHR, S_IFBLK, S_IFIFO, S_IFSOCK };

	return types[n->type];
}

static void same_xattrs(const struct image *im, const struct img_node *n, uint64_t nid)
{
	char names[8192];
	ssize_t size = flip_erofs_listxattr(im->fs, nid, false, names, sizeof(names));
	size_t n_names = 0;

	assert_true(size >= 0);
	assert_int_equal(flip_erofs_listxattr(im->fs, nid, false, NULL, 0), size);
	for (const char *p = names; p < names + size; p += strlen(p) + 1)
		n_names++;
	assert_int_equal(n_names, n->n_xattrs);
	for (size_t i = 0; i < n->n_xattrs; i++) {
		const void *value;
		size_t value_size;

		assert_int_equal(flip_erofs_getxattr(im->fs, nid, n->xattrs[i].name, false, &value, &value_size), 0);
		assert_int_equal(value_size, n->xattrs[i].size);
		if (value_size)
			assert_memory_equal(value, n->xattrs[i].value, value_size);
	}
}

static void same_content(const struct image *im, const struct img_node *n, uint64_t nid)
{
	uint8_t got[32];
	const char *target;
	size_t len;

	if (n->type == IMG_SYMLINK) {
		assert_int_equal(flip_erofs_readlink(im->fs, nid, &target, &len), 0);
		assert_int_equal(len, strlen(n->target));
		assert_memory_equal(target, n->target, len);
	} else {
		assert_int_equal(flip_erofs_readlink(im->fs, nid, &target, &len), -EINVAL);
	}
	if (n->type == IMG_FILE && n->size) {
		assert_int_equal(flip_erofs_digest(im->fs, nid, got), 0);
		assert_memory_equal(got, digest_of(n, NULL), 32);
	} else {
		assert_int_equal(flip_erofs_digest(im->fs, nid, got), -ENODATA);
	}
}

static void same_node(const struct image *im, const struct img_node *n, uint64_t nid, const struct stat *st)
{
	assert_int_equal(st->st_ino, nid);
	assert_int_equal(st->st_mode, type_bits(n) | n->mode);
	assert_int_equal(st->st_uid, n->uid);
	assert_int_equal(st->st_gid, n->gid);
	assert_int_equal(st->st_mtim.tv_sec, n->mtime_s);
	assert_int_equal(st->st_mtim.tv_nsec, n->mtime_ns);
	if (n->type == IMG_FILE || n->type == IMG_SYMLINK)
		assert_int_equal(st->st_size, n->size);
	if (n->type == IMG_CHAR || n->type == IMG_BLOCK)
		assert_int_equal(st->st_rdev, makedev(n->major, n->minor));
	same_xattrs(im, n, nid);
	same_content(im, n, nid);
}

struct comparison {
	const struct image *im;
	struct img_tree *tree;
	size_t n_seen;
};

static int compare_one(void *arg, const char *path, uint64_t nid, const struct stat *st)
{
	struct comparison *c = arg;
	const struct img_node *n = img_tree_find(c->tree, path);
	uint64_t resolved;

	if (!n)
		fail_msg("%s is in the image only", path);
	same_node(c->im, n, nid, st);
	assert_int_equal(flip_erofs_resolve(c->im->fs, path, &resolved), 0);
	assert_int_equal(resolved, nid);
	c->n_seen++;
	return 0;
}

static void same_tree(const struct image *im, struct img_tree *t)
{
	struct comparison c = { .im = im, .tree = t };

	assert_int_equal(flip_erofs_walk(im->fs, compare_one, &c, NULL), 0);
	assert_int_equal(c.n_seen, img_tree_count(t));
}

static void round_trip(struct img_tree *t)
{
	struct image im = write_image(t);

	same_tree(&im, t);
	drop_image(&im);
}

/* ---- Odd trees -------------------------------------------------------------------------------------------- */

static void an_empty_tree_is_an_image(void **state)
{
	struct img_tree *t = img_tree_new();

	(void)state;
	round_trip(t);
	img_tree_free(t);
}

static void every_type_comes_back(void **state)
{
	struct img_tree *t = img_tree_new();
	struct img_xattr x[] = { { "security.capability", "\1\0\0\2", 4 },
		                 { "user.empty", "", 0 },
		                 { "system.posix_acl_access", "\2\0\0\0", 4 } };

	(void)state;
	add_node(t, (struct img_node){ .path = "/", .type = IMG_DIR, .mode = 01777, .uid = 5, .mtime_s = 77 });
	add_node(t, (struct img_node){ .path = "/f", .mode = 04755, .size = 5, .mtime_s = -5, .mtime_ns = 999999999 });
	add_node(t, (struct img_node){ .path = "/big", .mode = 0600, .size = 5ull << 40, .uid = 4000000000u });
	add_node(t, (struct img_node){ .path = "/caps", .mode = 0755, .size = 9, .xattrs = x, .n_xattrs = 3 });
	add_node(t, (struct img_node){ .path = "/empty", .gid = 70000, .mtime_s = 1ll << 34 });
	add_node(t, (struct img_node){ .path = "/d/x/y", .type = IMG_DIR, .mode = 02750 });
	add_node(t, (struct img_node){ .path = "/l", .type = IMG_SYMLINK, .mode = 0777, .target = "d/x" });
	add_node(t, (struct img_node){ .path = "/c", .type = IMG_CHAR, .mode = 0666, .major = 1, .minor = 3 });
	add_node(t, (struct img_node){ .path = "/gone", .type = IMG_CHAR });
	add_node(t, (struct img_node){ .path = "/b", .type = IMG_BLOCK, .major = 4095, .minor = 1048575 });
	add_node(t, (struct img_node){ .path = "/p", .type = IMG_FIFO, .mode = 0644 });
	add_node(t, (struct img_node){ .path = "/s", .type = IMG_SOCKET, .mode = 0755 });
	round_trip(t);
	img_tree_free(t);
}

static void hard_links_share_an_inode(void **state)
{
	struct img_tree *t = img_tree_new();
	struct image im;
	struct stat st;

	(void)state;
	add_node(t, (struct img_node){ .path = "/z/first", .size = 3, .link_group = 7 });
	add_node(t, (struct img_node){ .path = "/a/second", .size = 3, .link_group = 7 });
	add_node(t, (struct img_node){ .path = "/a/third", .size = 3, .link_group = 7 });
	add_node(t, (struct img_node){ .path = "/alone", .size = 3, .link_group = 9 });
	im = write_image(t);
	same_tree(&im, t);
	assert_int_equal(nid_at(&im, "/z/first"), nid_at(&im, "/a/second"));
	assert_int_equal(nid_at(&im, "/z/first"), nid_at(&im, "/a/third"));
	assert_int_equal(flip_erofs_stat(im.fs, nid_at(&im, "/a/third"), &st), 0);
	assert_int_equal(st.st_nlink, 3);
	assert_int_equal(flip_erofs_stat(im.fs, nid_at(&im, "/alone"), &st), 0);
	assert_int_equal(st.st_nlink, 1);
	assert_int_equal(flip_erofs_stat(im.fs, nid_at(&im, "/"), &st), 0);
	assert_int_equal(st.st_nlink, 4);
	assert_int_equal(flip_erofs_n_inodes(im.fs), 5);
	drop_image(&im);
	img_tree_free(t);
}

static void names_are_bytes_of_any_kind(void **state)
{
	static const char *const names[] = { "/!",   "/-",    "/.a",       "/..a",   "/.-",
		                             "/...", "/\x01", "/\xff\xfe", "/a b\n", "/~" };
	struct img_tree *t = img_tree_new();
	struct image im;
	char longest[258] = "/", link[IMG_PATH_MAX];
	uint64_t nid;

	(void)state;
	memset(longest + 1, 'n', 255);
	memset(link, 't', sizeof(link) - 1);
	link[sizeof(link) - 1] = '\0';
	for (size_t i = 0; i < sizeof(names) / sizeof(*names); i++)
		add_node(t, (struct img_node){ .path = names[i], .size = i });
	add_node(t, (struct img_node){ .path = longest, .size = 1 });
	add_node(t, (struct img_node){ .path = "/link", .type = IMG_SYMLINK, .target = link });
	link[3000] = '\0';
	add_node(t, (struct img_node){ .path = "/link2", .type = IMG_SYMLINK, .target = link });
	im = write_image(t);
	same_tree(&im, t);
	assert_int_equal(flip_erofs_lookup(im.fs, flip_erofs_root(im.fs), ".", 1, &nid), 0);
	assert_int_equal(nid, flip_erofs_root(im.fs));
	assert_int_equal(flip_erofs_lookup(im.fs, flip_erofs_root(im.fs), "nowhere", 7, &nid), -ENOENT);
	assert_int_equal(flip_erofs_lookup(im.fs, nid_at(&im, "/~"), "x", 1, &nid), -ENOTDIR);
	drop_image(&im);
	longest[256] = 'n'; /* 256 bytes */
	longest[257] = '\0';
	add_node(t, (struct img_node){ .path = longest });
	assert_int_equal(flip_erofs_write(t, digest_of, NULL, "/nonexistent/x", NULL), -ENAMETOOLONG);
	img_tree_free(t);
}

/* What readdir() gave, compared with what comes next in order. */
struct listing {
	size_t n, stop_at;
	uint64_t last_pos;
	char last[256];
};

static int list_one(void *arg, const char *name, size_t len, uint64_t nid, unsigned dtype, uint64_t next_pos)
{
	struct listing *l = arg;
	char text[256];

	(void)nid;
	if (l->n == l->stop_at)
		return 1;
	memcpy(text, name, len);
	text[len] = '\0';
	assert_true(strcmp(l->last, text) < 0);
	assert_int_equal(dtype, text[0] == '.' ? DT_DIR : DT_REG);
	memcpy(l->last, text, len + 1);
	l->last_pos = next_pos;
	l->n++;
	return 0;
}

static void a_large_directory_is_searched_and_listed_in_parts(void **state)
{
	enum { N = 100000 };
	struct img_tree *t = img_tree_new();
	struct listing l = { .n = 0 };
	struct image im;
	char path[64];

	(void)state;
	for (int i = 0; i < N; i++) {
		(void)snprintf(path, sizeof(path), "/d/file-%d.%x", i, i * 77);
		add_node(t, (struct img_node){ .path = path, .size = (uint64_t)i });
	}
	im = write_image(t);
	same_tree(&im, t);
	do {
		l.stop_at = l.n + 777;
		assert_int_equal(flip_erofs_readdir(im.fs, nid_at(&im, "/d"), l.last_pos, list_one, &l), 0);
	} while (l.n == l.stop_at);
	assert_int_equal(l.n, N + 2);
	drop_image(&im);
	img_tree_free(t);
}

static void attributes_for_overlayfs_are_hidden_or_shown(void **state)
{
	struct img_xattr file_x[] = { { "trusted.overlay.redirect", "/00/11", 6 },
		                      { "trusted.overlay.metacopy", "", 0 },
		                      { "com.apple.quarantine", "x", 1 },
		                      { "trusted.md5sum", "abc", 3 } };
	struct img_xattr dir_x[] = { { "trusted.overlay.opaque", "y", 1 }, { "trusted.overlay.redirect", "/x", 2 } };
	struct img_tree *t = img_tree_new();
	struct image im;
	const void *value;
	char names[200];
	size_t size;
	uint64_t f, d;

	(void)state;
	add_node(t, (struct img_node){ .path = "/f", .size = 3, .xattrs = file_x, .n_xattrs = 4 });
	add_node(t, (struct img_node){ .path = "/d", .type = IMG_DIR, .xattrs = dir_x, .n_xattrs = 2 });
	im = write_image(t);
	f = nid_at(&im, "/f");
	d = nid_at(&im, "/d");
	assert_int_equal(flip_erofs_getxattr(im.fs, f, "trusted.overlay.redirect", false, &value, &size), -ENODATA);
	assert_int_equal(flip_erofs_getxattr(im.fs, f, "trusted.overlay.redirect", true, &value, &size), 0);
	assert_int_equal(size, 66); /* ours, not what the tree said */
	assert_int_equal(flip_erofs_getxattr(im.fs, f, "com.apple.quarantine", true, &value, &size), -ENODATA);
	assert_int_equal(flip_erofs_getxattr(im.fs, d, "trusted.overlay.opaque", false, &value, &size), 0);
	assert_int_equal(flip_erofs_getxattr(im.fs, d, "trusted.overlay.redirect", true, &value, &size), -ENODATA);
	assert_int_equal(flip_erofs_listxattr(im.fs, f, false, names, sizeof(names)), sizeof("trusted.md5sum"));
	assert_string_equal(names, "trusted.md5sum");
	assert_int_equal(flip_erofs_listxattr(im.fs, f, false, names, 5), -ERANGE);
	assert_int_equal(flip_erofs_listxattr(im.fs, f, true, names, sizeof(names)),
	                 sizeof("trusted.md5sum") + sizeof("trusted.overlay.metacopy") +
	                         sizeof("trusted.overlay.redirect"));
	drop_image(&im);
	img_tree_free(t);
}

static void large_attributes_fit_or_are_refused_with_words(void **state)
{
	static char value[65536];
	struct img_xattr x[] = { { "user.large", value, 65535 }, { "user.second", value, 60000 } };
	struct img_tree *t = img_tree_new();
	struct err err = { 0 };

	(void)state;
	memset(value, 'v', sizeof(value));
	add_node(t, (struct img_node){ .path = "/a/f", .size = 1, .xattrs = x, .n_xattrs = 2 });
	add_node(t, (struct img_node){ .path = "/a/d", .type = IMG_DIR, .xattrs = x, .n_xattrs = 2 });
	add_node(t, (struct img_node){ .path = "/a/d/e", .size = 2 });
	add_node(t,
	         (struct img_node){ .path = "/a/l", .type = IMG_SYMLINK, .target = "x", .xattrs = x, .n_xattrs = 1 });
	round_trip(t);
	x[0].size = 65536;
	add_node(t, (struct img_node){ .path = "/a/g", .size = 1, .xattrs = x, .n_xattrs = 1 });
	assert_int_equal(flip_erofs_write(t, digest_of, NULL, "/nonexistent/x", &err), -E2BIG);
	assert_non_null(strstr(err_text(&err), "/a/g"));
	assert_non_null(strstr(err_text(&err), "user.large"));
	img_tree_free(t);
}

static const uint8_t *no_digest(const struct img_node *n, void *arg)
{
	(void)n;
	(void)arg;
	return NULL;
}

static void what_the_format_cannot_hold_is_refused(void **state)
{
	struct img_tree *t = img_tree_new();

	(void)state;
	add_node(t, (struct img_node){ .path = "/dev", .type = IMG_CHAR, .major = 4096 });
	assert_int_equal(flip_erofs_write(t, digest_of, NULL, "/nonexistent/x", NULL), -EOVERFLOW);
	add_node(t, (struct img_node){ .path = "/dev", .size = 1ull << 62 });
	assert_int_equal(flip_erofs_write(t, digest_of, NULL, "/nonexistent/x", NULL), -EFBIG);
	add_node(t, (struct img_node){ .path = "/dev", .size = 1 });
	assert_int_equal(flip_erofs_write(t, no_digest, NULL, "/nonexistent/x", NULL), -EINVAL);
	assert_int_equal(flip_erofs_write(t, digest_of, NULL, "/nonexistent/x", NULL), -ENOENT);
	img_tree_free(t);
}

/* ---- Random trees ----------------------------------------------------------------------------------------- */

static uint32_t random_below(uint64_t *seed, uint32_t n)
{
	*seed = *seed * 6364136223846793005u + 1442695040888963407u;
	return (uint32_t)(*seed >> 33) % n;
}

/* A path below some directory that there already is. */
static void random_path(struct img_tree *t, uint64_t *seed, char path[IMG_PATH_MAX])
{
	const struct img_node *dir;
	size_t len, n = 1 + random_below(seed, random_below(seed, 20) ? 12 : 200);

	do
		dir = img_tree_at(t, random_below(seed, (uint32_t)img_tree_count(t)));
	while (dir->type != IMG_DIR || strlen(dir->path) > 1000);
	len = (size_t)snprintf(path, IMG_PATH_MAX, "%s/", dir->path[1] ? dir->path : "");
	for (size_t i = 0; i < n; i++) {
		char c = (char)(1 + random_below(seed, 255));

		path[len++] = c == '/' || c == '.' ? '_' : c;
	}
	path[len] = '\0';
}

static struct img_tree *random_tree(uint64_t seed, int n_nodes)
{
	static char value[3000];
	struct img_tree *t = img_tree_new();
	char path[IMG_PATH_MAX], target[3000];

	memset(target, 'l', sizeof(target));
	for (int i = 0; i < n_nodes; i++) {
		struct img_xattr x[] = { { "user.a", value, random_below(&seed, 40) },
			                 { "trusted.b", value, random_below(&seed, sizeof(value)) } };
		struct img_node n = { .path = path, .mode = random_below(&seed, 010000) };

		random_path(t, &seed, path);
		n.type = random_below(&seed, 3) ? (enum img_type)random_below(&seed, 3)
		                                : (enum img_type)random_below(&seed, IMG_SOCKET + 1);
		n.uid = random_below(&seed, 4) ? 0 : random_below(&seed, 1u << 31);
		n.mtime_s = random_below(&seed, 2) ? 1700000000 : random_below(&seed, 1u << 31);
		n.size = random_below(&seed, 4) ? random_below(&seed, 1u << 20) : 0;
		if (n.type == IMG_SYMLINK) {
			n.target = target;
			target[1 + random_below(&seed, random_below(&seed, 8) ? 30 : sizeof(target) - 1)] = '\0';
		}
		n.xattrs = x;
		n.n_xattrs = random_below(&seed, 6) ? 0 : 1 + random_below(&seed, 2);
		add_node(t, n);
		memset(target, 'l', sizeof(target));
	}
	return t;
}

static void random_trees_come_back(void **state)
{
	(void)state;
	for (uint64_t seed = 1; seed <= 20; seed++) {
		struct img_tree *t = random_tree(seed, 50 + (int)seed * 40);

		round_trip(t);
		img_tree_free(t);
	}
}

static void the_same_tree_gives_the_same_bytes(void **state)
{
	struct img_tree *a = random_tree(3, 500), *b = random_tree(3, 500), *other = random_tree(4, 500);
	struct image ia = write_image(a), ib = write_image(b), ic = write_image(other);

	(void)state;
	assert_int_equal(ia.fs->size, ib.fs->size);
	assert_memory_equal(ia.fs->data, ib.fs->data, ia.fs->size);
	/* The UUID, by which overlayfs tells layers apart. */
	assert_memory_not_equal(ia.fs->data + EROFS_SUPER_AT + 48, ic.fs->data + EROFS_SUPER_AT + 48, 16);
	drop_image(&ia);
	drop_image(&ib);
	drop_image(&ic);
	img_tree_free(a);
	img_tree_free(b);
	img_tree_free(other);
}

/* ---- Damage ----------------------------------------------------------------------------------------------- */

static void expect_refusal(const struct image *im, const uint8_t *bytes, size_t size, const char *word)
{
	const char *path = in_dir(im->dir, "damaged");
	struct flip_erofs *fs = NULL;
	struct err err = { 0 };

	assert_int_equal(base_write_file_atomic(path, bytes, size, 0644, NULL), 0);
	assert_int_equal(flip_erofs_open(path, &fs, &err), -EBADMSG);
	assert_null(fs);
	if (!strstr(err_text(&err), word))
		fail_msg("no \"%s\" in: %s", word, err_text(&err));
}

static void damaged_superblocks_are_refused(void **state)
{
	struct img_tree *t = random_tree(1, 100);
	struct image im = write_image(t);
	uint8_t *copy = malloc(im.fs->size);
	struct flip_erofs *fs = NULL;

	(void)state;
	memcpy(copy, im.fs->data, im.fs->size);
	expect_refusal(&im, copy, 100, "no EROFS");
	expect_refusal(&im, copy, im.fs->size - EROFS_BLOCK, "blocks");
	copy[EROFS_SUPER_AT + 50] ^= 1;
	expect_refusal(&im, copy, im.fs->size, "checksum");
	copy[EROFS_SUPER_AT] ^= 1;
	expect_refusal(&im, copy, im.fs->size, "magic");
	assert_int_equal(flip_erofs_open("/nonexistent", &fs, NULL), -ENOENT);
	free(copy);
	drop_image(&im);
	img_tree_free(t);
}

static int count_one(void *arg, const char *path, uint64_t nid, const struct stat *st)
{
	(void)path;
	(void)nid;
	(void)st;
	(*(size_t *)arg)++;
	return 0;
}

/* Any byte changed: walking ends, with every name or with -EBADMSG. */
static void damaged_images_end(void **state)
{
	struct img_tree *t = random_tree(2, 300);
	struct image im = write_image(t);
	uint8_t *copy = malloc(im.fs->size);
	uint64_t seed = 42;

	(void)state;
	for (int i = 0; i < 3000; i++) {
		size_t at = random_below(&seed, (uint32_t)im.fs->size), n = 0;
		struct flip_erofs fs;

		memcpy(copy, im.fs->data, im.fs->size);
		copy[at] = (uint8_t)random_below(&seed, 256);
		if (flip_erofs_use(copy, im.fs->size, "copy", &fs, NULL) == 0) {
			int r = flip_erofs_walk(&fs, count_one, &n, NULL);

			assert_true(r == 0 || r == -EBADMSG);
		}
	}
	free(copy);
	drop_image(&im);
	img_tree_free(t);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(an_empty_tree_is_an_image),
		cmocka_unit_test(every_type_comes_back),
		cmocka_unit_test(hard_links_share_an_inode),
		cmocka_unit_test(names_are_bytes_of_any_kind),
		cmocka_unit_test(a_large_directory_is_searched_and_listed_in_parts),
		cmocka_unit_test(attributes_for_overlayfs_are_hidden_or_shown),
		cmocka_unit_test(large_attributes_fit_or_are_refused_with_words),
		cmocka_unit_test(what_the_format_cannot_hold_is_refused),
		cmocka_unit_test(random_trees_come_back),
		cmocka_unit_test(the_same_tree_gives_the_same_bytes),
		cmocka_unit_test(damaged_superblocks_are_refused),
		cmocka_unit_test(damaged_images_end),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
