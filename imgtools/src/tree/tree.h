/* A file system tree as data: every path of a root or an image with what a tar entry can say of it, and where its bytes
 * are. What is read from a root, from layers or from packages becomes a tree; what is written (a root, a tar, an OCI
 * layer) is written from one, always in the order of the paths, so that the same tree gives the same bytes.
 *
 * Paths are absolute within the root and normal: they begin with '/', have no empty, "." or ".." component and no
 * trailing '/'; the root itself is "/". They are bytes, not text: UTF-8 is usual, not required. A path whose parent
 * would be a symbolic link or a file is refused when it is added: every node has a real directory above it.
 *
 * Nodes belong to the tree and live as long as it does; pointers to them stay valid when others are added. */
#ifndef IMG_TREE_H
#define IMG_TREE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "base/err.h"

enum img_type { IMG_FILE, IMG_DIR, IMG_SYMLINK, IMG_CHAR, IMG_BLOCK, IMG_FIFO, IMG_SOCKET };

enum {
	IMG_PATH_MAX = 4096,    /* bytes of a path with its 0 */
	IMG_SYMLINK_DEPTH = 40, /* links followed in one resolution, as the kernel does */
	IMG_TREE_MAX_NODES = 1u << 24,
};

enum img_type img_type_of_mode(mode_t mode); /* by its S_IFMT bits; IMG_FILE for what they do not know */

struct img_xattr {
	char *name; /* "security.capability", "user.x" */
	void *value;
	size_t size;
};

struct img_node {
	const char *path; /* owned by the tree */
	enum img_type type;
	uint32_t mode; /* the 12 permission bits */
	uint32_t uid, gid;
	uint64_t size;     /* files: bytes; symbolic links: length of the target; else 0 */
	int64_t mtime_s;   /* seconds since 1970 */
	uint32_t mtime_ns; /* 0..999,999,999 */
	char *target;      /* symbolic links only */
	uint32_t major, minor;
	struct img_xattr *xattrs; /* sorted by name */
	size_t n_xattrs;
	/* Files of one inode have the same number; 0: the only name. Numbers are local to the tree. */
	uint32_t link_group;
	/* Where the bytes of a file are: an absolute path on this host; NULL when they are in `data`, or when the file
	 * is empty. `data` is `size` bytes. Both are owned by the node. */
	char *source;
	void *data;
	int32_t package; /* index into the list of packages of whoever fills it in; -1: none */
	int32_t layer;   /* layer of the image it came from, 0 is the lowest; -1: none */
	void *user;      /* for the pass at hand; not owned */
};

struct img_tree;

struct img_tree *img_tree_new(void); /* holds "/" as a directory 0755 of root; NULL when out of memory */
void img_tree_free(struct img_tree *t);

size_t img_tree_count(const struct img_tree *t);
/* In the order of the paths (bytewise, '/' before every other byte, so that a directory comes right before what is in
 * it); i < img_tree_count(). Sorts when something was added since: indexes are valid until the next change. */
struct img_node *img_tree_at(struct img_tree *t, size_t i);
struct img_node *img_tree_find(const struct img_tree *t, const char *path); /* exact; NULL when absent */

/* Adds a node (a copy of *n with all it points to). Missing parents become directories 0755 of root with mtime 0. What
 * has the same path is replaced: a directory by a directory keeps its children, everything else removes the old with
 * all below. -EINVAL for a path that is not normal, -ENOTDIR when a parent is no directory, -ENOMEM, -E2BIG. */
int img_tree_add(struct img_tree *t, const struct img_node *n, struct img_node **ret_node, struct err *err);
void img_tree_remove(struct img_tree *t,
                     const char *path); /* with all below; nothing when absent; "/" only empties it */
void img_tree_empty(struct img_tree *t, const char *path); /* all below, but not the node itself */

/* Whether the path is one that a tree may hold: absolute, shorter than IMG_PATH_MAX, without empty, "." and ".."
 * components and without '/' at the end. */
bool img_path_is_normal(const char *path);

/* A normal path out of any text ("usr//lib/./x" -> "/usr/lib/x"); -EINVAL for "..", an embedded 0 byte is the caller's
 * matter, -ENAMETOOLONG. */
int img_path_normalize(const char *text, char ret_path[IMG_PATH_MAX]);

/* Follows symbolic links within the tree as the kernel would with this tree as its root (absolute targets start at "/",
 * ".." at "/" stays). `follow_last`: as open() does, or as lstat() does. On success *ret_node is what is there.
 * on_link, when not NULL, is told each link passed. -ENOENT, -ENOTDIR, -ELOOP. */
int img_tree_resolve(const struct img_tree *t, const char *path, bool follow_last, struct img_node **ret_node,
                     void (*on_link)(struct img_node *link, void *arg), void *arg);

/* Reads a root directory: all of it, without crossing into other file systems, extended attributes and hard-link groups
 * included. `source` of each file is its path on the host. Never follows a link out of the root. Errors name the path.
 */
int img_tree_scan(const char *root, struct img_tree **ret_tree, struct err *err);

/* The bytes of a file node, from source or data: at most `size` at `offset`; returns the count, 0 at the end, or a
 * negative errno. */
ssize_t img_node_read(const struct img_node *n, void *buf, size_t size, uint64_t offset, struct err *err);
/* All of it, up to max_size (-EFBIG beyond); *ret_data is the caller's (free), with a 0 byte behind it that *ret_size
 * does not count. */
int img_node_read_all(const struct img_node *n, uint64_t max_size, void **ret_data, size_t *ret_size, struct err *err);

struct img_write_opts {
	int64_t clamp_mtime; /* >= 0: no mtime is later than this (SOURCE_DATE_EPOCH); -1: as they are */
	bool numeric_only;   /* tar: no user and group names */
	/* img_tree_write_dir: files are moved (renamed) from their sources into the root where both are on one file
	 * system, and their nodes' sources are the new places then. For sources that are the tree's own scratch. */
	bool move_sources;
};

/* Writes the tree below `root`, which must exist and be empty (or be made: its parent must exist). As root everything
 * is exact: owners, modes, capabilities, times of directories last; otherwise what the kernel refuses for owners and
 * devices is counted in *ret_n_skipped. Holes of sparse sources stay holes. */
int img_tree_write_dir(struct img_tree *t, const char *root, const struct img_write_opts *o, size_t *ret_n_skipped,
                       struct err *err);

/* The tree as a pax tar to a callback, in order; hard links after the first of their group; same tree, same bytes. */
typedef int (*img_sink)(const void *data, size_t size, void *arg, struct err *err);
int img_tree_write_tar(struct img_tree *t, const struct img_write_opts *o, img_sink sink, void *arg, struct err *err);

#endif
