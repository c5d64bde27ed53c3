/* Trees of files for the tests of lazy images:
 *
 *   flip_tree compare A B           every path, type, mode, owner, time, link, device, attribute and byte; prints the
 *                                   first differences and ends with 1 when there are any
 *   flip_tree image DIR IMAGE OBJS  DIR's metadata as an image, its contents by digest below OBJS
 *   flip_tree mount IMAGE DIR [loop]
 *   flip_tree unmount DIR [lazy]
 *   flip_tree mounted DIR           ends with 0 when something is mounted there
 *   flip_tree probe SCRATCH         what the kernel can do, a word each
 *
 * Attributes "trusted.overlay.*" are not compared: overlayfs hides them. Nor are the link counts of directories, which
 * overlayfs does not keep. */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/cleanup.h"
#include "base/mapfile.h"
#include "base/sha256.h"
#include "erofs/erofs.h"
#include "tree/tree.h"

enum { MAX_SHOWN = 20, BUFFER = 1 << 17 };

static int complain(const struct err *err)
{
	(void)fprintf(stderr, "flip_tree: %s\n", err_text(err));
	return 1;
}

/* ---- Comparing -------------------------------------------------------------------------------------------- */

struct comparison {
	const char *root_a, *root_b;
	size_t n_different;
};

static void different(struct comparison *c, const char *path, const char *what, const char *fmt, int64_t a, int64_t b)
{
	if (c->n_different++ >= MAX_SHOWN)
		return;
	(void)printf("%s: %s", path, what);
	if (fmt) {
		(void)printf(": ");
		(void)printf(fmt[0] == 'o' ? "%" PRIo64 " and %" PRIo64 : "%" PRId64 " and %" PRId64, a, b);
	}
	(void)printf("\n");
}

static void compare_number(struct comparison *c, const char *path, const char *what, int64_t a, int64_t b)
{
	if (a != b)
		different(c, path, what, "d", a, b);
}

static const struct img_xattr *next_xattr(const struct img_node *n, size_t *i)
{
	while (*i < n->n_xattrs && strncmp(n->xattrs[*i].name, "trusted.overlay.", 16) == 0)
		++*i;
	return *i < n->n_xattrs ? &n->xattrs[(*i)++] : NULL;
}

static void compare_xattrs(struct comparison *c, const struct img_node *a, const struct img_node *b)
{
	size_t i = 0, k = 0;

	for (;;) {
		const struct img_xattr *x = next_xattr(a, &i), *y = next_xattr(b, &k);

		if (!x && !y)
			return;
		if (!x || !y || strcmp(x->name, y->name) != 0) {
			different(c, a->path, x ? x->name : y->name, NULL, 0, 0);
			return;
		}
		if (x->size != y->size || memcmp(x->value, y->value, x->size) != 0)
			different(c, a->path, x->name, "d", (int64_t)x->size, (int64_t)y->size);
	}
}

static void compare_bytes(struct comparison *c, const struct img_node *a, const struct img_node *b)
{
	static char buf_a[BUFFER], buf_b[BUFFER];
	uint64_t at = 0;

	for (;;) {
		struct err err = { 0 };
		ssize_t n = img_node_read(a, buf_a, sizeof(buf_a), at, &err);
		ssize_t m = img_node_read(b, buf_b, sizeof(buf_b), at, &err);

		if (n < 0 || m < 0) {
			different(c, a->path, err_text(&err), NULL, 0, 0);
			return;
		}
		if (n != m || memcmp(buf_a, buf_b, (size_t)n) != 0) {
			different(c, a->path, "bytes at", "d", (int64_t)at, (int64_t)at);
			return;
		}
		if (n == 0)
			return;
		at += (uint64_t)n;
	}
}

/* What a tree's node does not tell. */
static void compare_stat(struct comparison *c, const struct img_node *a)
{
	char path[2 * IMG_PATH_MAX];
	struct stat x, y;

	(void)snprintf(path, sizeof(path), "%s%s", c->root_a, a->path);
	if (lstat(path, &x) < 0) {
		different(c, path, strerror(errno), NULL, 0, 0);
		return;
	}
	(void)snprintf(path, sizeof(path), "%s%s", c->root_b, a->path);
	if (lstat(path, &y) < 0) {
		different(c, path, strerror(errno), NULL, 0, 0);
		return;
	}
	if (!S_ISDIR(x.st_mode)) {
		compare_number(c, a->path, "links", (int64_t)x.st_nlink, (int64_t)y.st_nlink);
		compare_number(c, a->path, "st_size", (int64_t)x.st_size, (int64_t)y.st_size);
	}
	compare_number(c, a->path, "st_rdev", (int64_t)x.st_rdev, (int64_t)y.st_rdev);
}

static void compare_nodes(struct comparison *c, const struct img_node *a, const struct img_node *b)
{
	if (a->type != b->type) {
		different(c, a->path, "type", "d", a->type, b->type);
		return;
	}
	if (a->mode != b->mode)
		different(c, a->path, "mode", "o", a->mode, b->mode);
	compare_number(c, a->path, "uid", a->uid, b->uid);
	compare_number(c, a->path, "gid", a->gid, b->gid);
	compare_number(c, a->path, "size", (int64_t)a->size, (int64_t)b->size);
	compare_number(c, a->path, "mtime", a->mtime_s, b->mtime_s);
	compare_number(c, a->path, "mtime ns", a->mtime_ns, b->mtime_ns);
	compare_number(c, a->path, "names of its inode", a->link_group, b->link_group);
	if (a->type == IMG_SYMLINK && strcmp(a->target, b->target) != 0)
		different(c, a->path, "target", NULL, 0, 0);
	compare_stat(c, a);
	compare_xattrs(c, a, b);
	if (a->type == IMG_FILE)
		compare_bytes(c, a, b);
}

/* The order in which '/' comes before every other byte. */
static int compare_paths(const char *a, const char *b)
{
	while (*a && *a == *b) {
		a++;
		b++;
	}
	if (*a == '/' || *b == '/')
		return *a == *b ? 0 : *a == '\0' ? -1 : *b == '\0' ? 1 : *a == '/' ? -1 : 1;
	return (unsigned char)*a - (unsigned char)*b;
}

static int compare_trees(const char *root_a, const char *root_b)
{
	struct comparison c = { .root_a = root_a, .root_b = root_b };
	struct img_tree *a = NULL, *b = NULL;
	struct err err = { 0 };
	size_t i = 0, k = 0;

	if (img_tree_scan(root_a, &a, &err) < 0 || img_tree_scan(root_b, &b, &err) < 0) {
		img_tree_free(a);
		return complain(&err);
	}
	while (i < img_tree_count(a) || k < img_tree_count(b)) {
		const struct img_node *x = img_tree_at(a, i), *y = img_tree_at(b, k);
		int order = !x ? 1 : !y ? -1 : compare_paths(x->path, y->path);

		if (order == 0)
			compare_nodes(&c, x, y);
		else
			different(&c, order < 0 ? x->path : y->path,
			          order < 0 ? "only in the first" : "only in the second", NULL, 0, 0);
		i += order <= 0;
		k += order >= 0;
	}
	(void)printf("%zu and %zu paths, %zu differences\n", img_tree_count(a), img_tree_count(b), c.n_different);
	img_tree_free(a);
	img_tree_free(b);
	return c.n_different != 0;
}

/* ---- An image and its objects ----------------------------------------------------------------------------- */

/* Without fsync, of which thousands take minutes. */
static int write_file(const char *path, const void *data, size_t size, struct err *err)
{
	FILE *f = fopen(path, "we");
	bool is_good = f && (size == 0 || fwrite(data, size, 1, f) == 1);

	if (f && fclose(f) != 0)
		is_good = false;
	return is_good ? 0 : err_set(err, -EIO, "%s: %s", path, strerror(errno));
}

static int store_object(const char *objects, const struct img_node *n, uint8_t digest[BASE_SHA256_SIZE],
                        struct err *err)
{
	char hex[BASE_SHA256_HEX_SIZE], path[2 * IMG_PATH_MAX];
	CLEANUP(freep) void *data = NULL;
	size_t size;
	int r = img_node_read_all(n, SIZE_MAX / 2, &data, &size, err);

	if (r == 0)
		r = base_sha256_bytes(data, size, digest);
	if (r < 0)
		return r;
	base_sha256_hex(digest, hex);
	(void)snprintf(path, sizeof(path), "%s/%.2s", objects, hex);
	if (mkdir(path, 0755) < 0 && errno != EEXIST)
		return err_set(err, -errno, "%s: %s", path, strerror(errno));
	(void)snprintf(path, sizeof(path), "%s/%.2s/%s", objects, hex, hex + 2);
	return access(path, F_OK) == 0 ? 0 : write_file(path, data, size, err);
}

static const uint8_t *digest_of(const struct img_node *n, void *arg)
{
	(void)arg;
	return n->user;
}

static int make_image(const char *dir, const char *image, const char *objects)
{
	struct img_tree *t = NULL;
	struct err err = { 0 };
	uint8_t *digests = NULL;
	int r = img_tree_scan(dir, &t, &err);

	if (r == 0)
		digests = calloc(img_tree_count(t), BASE_SHA256_SIZE);
	for (size_t i = 0; r == 0 && i < img_tree_count(t); i++) {
		struct img_node *n = img_tree_at(t, i);

		if (n->type != IMG_FILE || n->size == 0)
			continue;
		n->user = digests + i * BASE_SHA256_SIZE;
		r = store_object(objects, n, n->user, &err);
	}
	if (r == 0)
		r = flip_erofs_write(t, digest_of, NULL, image, &err);
	img_tree_free(t);
	free(digests);
	return r < 0 ? complain(&err) : 0;
}

static int mount_image(const char *image, const char *dir, bool by_loop)
{
	struct flip_kernel k = { .erofs = true, .erofs_file = !by_loop };
	struct err err = { 0 };

	return flip_erofs_mount(image, dir, &k, &err) < 0 ? complain(&err) : 0;
}

static int unmount(const char *dir, bool lazy)
{
	struct err err = { 0 };

	return flip_unmount(dir, lazy, &err) < 0 ? complain(&err) : 0;
}

static int probe(const char *scratch)
{
	struct flip_kernel k;

	flip_kernel_probe(scratch, &k);
	(void)printf("%s%s%s%s%s\n", k.erofs ? "erofs " : "", k.erofs_file ? "erofs_file " : "",
	             k.overlay_data_only ? "overlay_data_only " : "", k.fuse ? "fuse " : "",
	             k.fuse_passthrough ? "fuse_passthrough " : "");
	return 0;
}

int main(int argc, char **argv)
{
	const char *what = argc > 1 ? argv[1] : "";

	if (strcmp(what, "compare") == 0 && argc == 4)
		return compare_trees(argv[2], argv[3]);
	if (strcmp(what, "image") == 0 && argc == 5)
		return make_image(argv[2], argv[3], argv[4]);
	if (strcmp(what, "mount") == 0 && (argc == 4 || (argc == 5 && strcmp(argv[4], "loop") == 0)))
		return mount_image(argv[2], argv[3], argc == 5);
	if (strcmp(what, "unmount") == 0 && (argc == 3 || (argc == 4 && strcmp(argv[3], "lazy") == 0)))
		return unmount(argv[2], argc == 4);
	if (strcmp(what, "mounted") == 0 && argc == 3)
		return !flip_is_mountpoint(argv[2]);
	if (strcmp(what, "probe") == 0 && argc == 3)
		return probe(argv[2]);
	(void)fprintf(stderr, "usage: flip_tree compare A B | image DIR IMAGE OBJECTS | mount IMAGE DIR [loop] | "
	                      "unmount DIR [lazy] | mounted DIR | probe SCRATCH\n");
	return 2;
}
