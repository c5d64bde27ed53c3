/* Listing directories: of layers with attributes (readdirplus), so that a walk asks once per directory and not once per
 * file; the kernel keeps the listing, too. */
#include "fusefs/fusefs_internal.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { LISTING_MAX = 128 * 1024 };

struct listing {
	fuse_req_t req;
	bool plus;
	char *buf;
	size_t used, size;
};

static bool is_dots(const char *name)
{
	return strcmp(name, ".") == 0 || strcmp(name, "..") == 0;
}

static int add_entry(void *arg, const char *name, const struct stat *st, uint64_t next_pos)
{
	struct listing *l = arg;
	size_t n, left = l->size - l->used;

	if (l->plus) {
		struct fuse_entry_param e = {
			.ino = is_dots(name) ? 0 : st->st_ino, /* 0: no look-up is meant */
			.generation = 1,
			.attr = *st,
			.attr_timeout = FS_FOREVER,
			.entry_timeout = FS_FOREVER,
		};

		n = fuse_add_direntry_plus(l->req, l->buf + l->used, left, name, &e, (off_t)next_pos);
	} else {
		n = fuse_add_direntry(l->req, l->buf + l->used, left, name, st, (off_t)next_pos);
	}
	if (n > left)
		return 1;
	l->used += n;
	return 0;
}

/* Entries are numbered from 1: "." and ".." first. The prefixes are listed, what is in them is only found by name. */
static bool fixed_entry(uint64_t dir, uint64_t i, char name[8], uint64_t *ret_node)
{
	static const char *const in_root[] = { "objects", "layers" };

	if (i <= 2) {
		(void)snprintf(name, 8, "%s", i == 1 ? "." : "..");
		*ret_node = dir;
		return true;
	}
	if (dir == NODE_ROOT && i < 5) {
		(void)snprintf(name, 8, "%s", in_root[i - 3]);
		*ret_node = NODE_OBJECTS + (i - 3);
		return true;
	}
	if (dir == NODE_OBJECTS && i < 3 + 256) {
		(void)snprintf(name, 8, "%02x", (unsigned)(i - 3) & 0xff);
		*ret_node = NODE_PREFIX + (i - 3);
		return true;
	}
	return false;
}

static int list_fixed(struct flip_fs *fs, uint64_t dir, uint64_t pos, entry_fn fn, void *arg)
{
	char name[8];
	uint64_t node, i;

	for (i = pos + 1; fixed_entry(dir, i, name, &node); i++) {
		struct stat st;

		fs_fill_dir(node, &st);
		if (fn(arg, name, &st, i))
			return 0;
	}
	return dir == NODE_LAYERS ? layers_list(fs, i - 1, fn, arg) : 0;
}

static void list(fuse_req_t req, uint64_t node, size_t size, uint64_t pos, bool plus)
{
	struct flip_fs *fs = fuse_req_userdata(req);
	struct listing l = { .req = req, .plus = plus, .size = size < LISTING_MAX ? size : LISTING_MAX };
	int r = -ENOTDIR;

	l.buf = malloc(l.size);
	if (!l.buf)
		r = -ENOMEM;
	else if (node_class(node) == NODE_TREE)
		r = tree_list(fs, node, pos, plus, add_entry, &l);
	else if (fs_is_fixed_dir(node))
		r = list_fixed(fs, node, pos, add_entry, &l);
	if (r < 0)
		(void)fuse_reply_err(req, -r);
	else
		(void)fuse_reply_buf(req, l.buf, l.used);
	free(l.buf);
}

void fs_opendir(fuse_req_t req, fuse_ino_t node, struct fuse_file_info *fi)
{
	if (node_class(node) == NODE_TREE) {
		fi->cache_readdir = 1;
		fi->keep_cache = 1;
	}
	(void)fuse_reply_open(req, fi);
}

void fs_readdir(fuse_req_t req, fuse_ino_t node, size_t size, off_t pos, struct fuse_file_info *fi)
{
	(void)fi;
	list(req, node, size, (uint64_t)pos, false);
}

void fs_readdirplus(fuse_req_t req, fuse_ino_t node, size_t size, off_t pos, struct fuse_file_info *fi)
{
	(void)fi;
	list(req, node, size, (uint64_t)pos, true);
}
