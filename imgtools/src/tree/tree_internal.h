/* What the files of this room share: the entry behind each node, and opening paths that cannot leave a root. */
#ifndef IMG_TREE_INTERNAL_H
#define IMG_TREE_INTERNAL_H

#include "tree/tree.h"

/* The node first: a pointer to one is a pointer to the other. Children are a list in no order; the order of the paths
 * is made when someone asks for it. */
struct img_entry {
	struct img_node node;
	struct img_entry *parent; /* NULL: the root */
	struct img_entry *first_child, *next, *prev;
	struct img_entry *hash_next;
	uint64_t hash;
};

struct img_tree {
	struct img_entry *root;
	size_t count;
	struct img_entry **buckets; /* by hash of the path; a power of two of them */
	size_t n_buckets;
	struct img_entry **order; /* by path; valid when is_ordered */
	size_t order_cap;
	bool is_ordered;
};

struct img_entry *img_tree_entry(const struct img_tree *t, const char *path, size_t len);

/* Opens `path` (absolute in our sense) below the directory `root_fd`: no symbolic link is followed, not even in the
 * middle. A negative errno when it cannot. */
int img_open_beneath(int root_fd, const char *path, int flags);

/* "/proc/self/fd/N/NAME": a path that names a directory entry for calls that have no *at() form. */
enum { IMG_FD_PATH_SIZE = 300 };
void img_fd_path(int dir_fd, const char *name, char ret_path[IMG_FD_PATH_SIZE]);

/* The file a node's bytes are in, checked to be a regular file; -1 in *ret_fd when they are in memory. */
int img_node_open(const struct img_node *n, int *ret_fd, struct err *err);

#endif
