/* What libfuse calls: names to inode numbers, attributes, open and release. Nothing is looked up in memory of ours: an
 * inode's number says what it is, and the owner's index knows the rest. */
#include "fusefs/fusefs_internal.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/limits.h>
#include <stdlib.h>
#include <string.h>
#include <sys/statvfs.h>

enum { DIGEST_SIZE = 32 };

static int hex_value(char c)
{
	if (c >= '0' && c <= '9')
		return c - '0';
	return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

/* `n` bytes out of 2n lower-case digits; false when the text is anything else. */
static bool parse_hex(const char *text, size_t n, uint8_t *ret_bytes)
{
	for (size_t i = 0; i < n; i++) {
		int high = hex_value(text[2 * i]), low = high < 0 ? -1 : hex_value(text[2 * i + 1]);

		if (low < 0)
			return false;
		ret_bytes[i] = (uint8_t)(high << 4 | low);
	}
	return text[2 * n] == 0;
}

/* ---- Attributes ------------------------------------------------------------------------------------------- */

void fs_fill_dir(uint64_t node, struct stat *st)
{
	*st = (struct stat){ .st_ino = node, .st_mode = S_IFDIR | 0555, .st_nlink = 2, .st_blksize = 4096 };
}

static void fill_object(uint64_t id, uint64_t size, struct stat *st)
{
	*st = (struct stat){ .st_ino = node_of_object(id),
		             .st_mode = S_IFREG | 0444,
		             .st_nlink = 1,
		             .st_size = (off_t)size,
		             .st_blocks = (blkcnt_t)((size + 511) / 512),
		             .st_blksize = 4096 };
}

static int object_attr(struct flip_fs *fs, uint64_t id, struct stat *st)
{
	uint64_t size;
	int r = fs->ops.object_size(fs->arg, id, &size);

	if (r < 0)
		return -ESTALE;
	fill_object(id, size, st);
	return 0;
}

bool fs_is_fixed_dir(uint64_t node)
{
	return (node >= NODE_ROOT && node <= NODE_LAYERS) || (node >= NODE_PREFIX && node < NODE_PREFIX + 256);
}

static int attr_of(struct flip_fs *fs, uint64_t node, struct stat *st)
{
	switch (node_class(node)) {
	case NODE_OBJECT:
		return object_attr(fs, node & NODE_ID_MASK, st);
	case NODE_FIXED:
		if (!fs_is_fixed_dir(node))
			return -ESTALE;
		fs_fill_dir(node, st);
		return 0;
	default:
		return tree_stat(fs, node, st);
	}
}

static void fs_getattr(fuse_req_t req, fuse_ino_t node, struct fuse_file_info *fi)
{
	struct stat st;
	int r = attr_of(fuse_req_userdata(req), node, &st);

	(void)fi;
	if (r < 0)
		(void)fuse_reply_err(req, -r);
	else
		(void)fuse_reply_attr(req, &st, FS_FOREVER);
}

/* ---- Names ------------------------------------------------------------------------------------------------ */

static int lookup_object(struct flip_fs *fs, unsigned prefix, const char *name, struct stat *st)
{
	uint8_t digest[DIGEST_SIZE];
	uint64_t id, size;

	if (!parse_hex(name, DIGEST_SIZE - 1, digest + 1))
		return -ENOENT;
	digest[0] = (uint8_t)prefix;
	id = fs->ops.object_find(fs->arg, digest, &size);
	if (id == 0)
		return -ENOENT;
	fill_object(id, size, st);
	return 0;
}

static int lookup_in_fixed(struct flip_fs *fs, uint64_t parent, const char *name, struct stat *st)
{
	uint8_t prefix;

	if (parent == NODE_ROOT && strcmp(name, "objects") == 0) {
		fs_fill_dir(NODE_OBJECTS, st);
		return 0;
	}
	if (parent == NODE_ROOT && strcmp(name, "layers") == 0) {
		fs_fill_dir(NODE_LAYERS, st);
		return 0;
	}
	if (parent == NODE_LAYERS)
		return layer_lookup(fs, name, st);
	if (parent == NODE_OBJECTS && parse_hex(name, 1, &prefix)) {
		fs_fill_dir(NODE_PREFIX + prefix, st);
		return 0;
	}
	if (parent >= NODE_PREFIX && parent < NODE_PREFIX + 256)
		return lookup_object(fs, (unsigned)(parent - NODE_PREFIX), name, st);
	return -ENOENT;
}

static void fs_lookup(fuse_req_t req, fuse_ino_t parent, const char *name)
{
	struct flip_fs *fs = fuse_req_userdata(req);
	struct fuse_entry_param e = { .generation = 1, .attr_timeout = FS_FOREVER, .entry_timeout = FS_FOREVER };
	bool in_tree = node_class(parent) == NODE_TREE;
	int r = -ENOTDIR;

	fs_count(&fs->n.lookups, 1);
	if (in_tree)
		r = tree_lookup(fs, parent, name, &e.attr);
	else if (node_class(parent) == NODE_FIXED)
		r = lookup_in_fixed(fs, parent, name, &e.attr);
	/* What a layer does not have it never will, and the kernel may remember that; a content may come. */
	e.ino = r == 0 ? e.attr.st_ino : 0;
	if (r == 0 || (r == -ENOENT && in_tree))
		(void)fuse_reply_entry(req, &e);
	else
		(void)fuse_reply_err(req, -r);
}

/* ---- Open files ------------------------------------------------------------------------------------------- */

int node_object(struct flip_fs *fs, uint64_t node, uint64_t *ret_object)
{
	if (node_class(node) == NODE_TREE)
		return tree_object(fs, node, ret_object);
	if (node_class(node) != NODE_OBJECT)
		return -EISDIR;
	*ret_object = node & NODE_ID_MASK;
	return 0;
}

static void fs_open(fuse_req_t req, fuse_ino_t node, struct fuse_file_info *fi)
{
	struct flip_fs *fs = fuse_req_userdata(req);
	struct opening opening = { 0 };
	uint64_t object;
	int r = (fi->flags & O_ACCMODE) == O_RDONLY ? node_object(fs, node, &object) : -EROFS;

	if (r == 0)
		r = object_open(fs, node, object, request_unique, &opening);
	if (r < 0 && r != -ENODATA) { /* which is an empty file: nothing to open */
		fs_count(&fs->n.errors, 1);
		(void)fuse_reply_err(req, -r);
		return;
	}
	fs_count(&fs->n.opens, 1);
	fi->fh = opening.fh;
	fi->noflush = 1;
#if FLIP_HAS_PASSTHROUGH
	fi->backing_id = (int32_t)opening.backing_id;
#endif
	if (opening.backing_id)
		fs_count(&fs->n.passthrough, 1);
	else
		fi->keep_cache = 1; /* these bytes never change */
	if (fuse_reply_open(req, fi) < 0)
		object_release(fs, opening.fh); /* nobody took it: no release will come */
}

static void fs_release(fuse_req_t req, fuse_ino_t node, struct fuse_file_info *fi)
{
	(void)node;
	object_release(fuse_req_userdata(req), fi->fh);
	(void)fuse_reply_err(req, 0);
}

/* ---- Links, extended attributes, the rest ----------------------------------------------------------------- */

static void fs_readlink(fuse_req_t req, fuse_ino_t node)
{
	char target[PATH_MAX];
	int r = tree_readlink(fuse_req_userdata(req), node, target, sizeof(target));

	if (r < 0)
		(void)fuse_reply_err(req, -r);
	else
		(void)fuse_reply_readlink(req, target);
}

/* Size 0 asks how much there is. */
static void reply_xattr(fuse_req_t req, ssize_t r, const void *data, size_t size)
{
	if (r < 0)
		(void)fuse_reply_err(req, (int)-r);
	else if (size == 0)
		(void)fuse_reply_xattr(req, (size_t)r);
	else if ((size_t)r > size)
		(void)fuse_reply_err(req, ERANGE);
	else
		(void)fuse_reply_buf(req, data, (size_t)r);
}

static void fs_getxattr(fuse_req_t req, fuse_ino_t node, const char *name, size_t size)
{
	char value[XATTR_SIZE_MAX];

	reply_xattr(req, tree_getxattr(fuse_req_userdata(req), node, name, value, sizeof(value)), value, size);
}

static void fs_listxattr(fuse_req_t req, fuse_ino_t node, size_t size)
{
	char names[XATTR_LIST_MAX];

	reply_xattr(req, tree_listxattr(fuse_req_userdata(req), node, names, sizeof(names)), names, size);
}

static void fs_statfs(fuse_req_t req, fuse_ino_t node)
{
	struct statvfs v = { .f_bsize = 4096, .f_frsize = 4096, .f_namemax = 255, .f_flag = ST_RDONLY };

	(void)node;
	(void)fuse_reply_statfs(req, &v);
}

static void fs_init(void *data, struct fuse_conn_info *conn)
{
	fs_init_connection(data, conn);
}

/* Not here on purpose: forget (no inode is remembered), flush, access, lseek (the kernel does without). */
const struct fuse_lowlevel_ops fs_operations = {
	.init = fs_init,
	.lookup = fs_lookup,
	.getattr = fs_getattr,
	.open = fs_open,
	.read = fs_read,
	.release = fs_release,
	.opendir = fs_opendir,
	.readdir = fs_readdir,
	.readdirplus = fs_readdirplus,
	.readlink = fs_readlink,
	.getxattr = fs_getxattr,
	.listxattr = fs_listxattr,
	.statfs = fs_statfs,
};
