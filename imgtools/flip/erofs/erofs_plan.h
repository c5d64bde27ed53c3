/* Between the two halves of the writer: where everything of a tree will lie. */
#ifndef EROFS_PLAN_H
#define EROFS_PLAN_H

#include "erofs/erofs_internal.h"

struct flip_erofs_item {
	const struct img_node *node;
	const char *name;     /* last component of the path */
	uint64_t at;          /* of the inode, in bytes from the beginning */
	uint64_t size;        /* i_size */
	uint32_t parent;      /* the item of its directory; of the root: itself */
	uint32_t inode;       /* the item whose inode it is: itself, or the first of its hard links */
	uint32_t first_child; /* of a directory, in plan->children, sorted by name */
	uint32_t n_children;  /* of a directory */
	uint32_t nlink;       /* counted in the item of the inode */
	uint32_t xattr_size;  /* all attributes with their header; 0: none */
	uint32_t tail_size;   /* bytes behind the attributes: end of a directory, target of a link, chunks */
	uint32_t first_block; /* of what is not in the tail */
	uint32_t n_blocks;
	uint16_t name_len;
	uint8_t layout; /* EROFS_PLAIN, EROFS_INLINE, EROFS_CHUNKS */
	uint8_t chunk_bits;
	bool is_extended;
};

struct flip_erofs_plan {
	struct flip_erofs_item *items; /* in the order of the paths; 0 is the root */
	uint32_t *children;
	size_t n_items;
	uint64_t n_inodes;
	uint64_t n_blocks; /* of the whole image */
	uint64_t epoch;
	uint32_t epoch_ns;
	bool has_acl;
};

int flip_erofs_plan_make(struct img_tree *tree, struct flip_erofs_plan *ret_plan, struct err *err);
void flip_erofs_plan_done(struct flip_erofs_plan *plan);

/* Steps through a directory's names in the format's order, "." and ".." among them. Start with { .dir = item }. */
struct flip_erofs_cursor {
	const struct flip_erofs_plan *plan;
	uint32_t dir;
	uint32_t next_child;
	unsigned next_dot;
};
bool flip_erofs_cursor_next(struct flip_erofs_cursor *c, const char **ret_name, size_t *ret_len, uint32_t *ret_item);

/* Whether an attribute of the node goes into the image: see docs/formats/layer-metadata.md, "What is left out". */
bool flip_erofs_keeps_xattr(const struct img_node *n, const struct img_xattr *x);
/* Regular files with content carry the two attributes for overlayfs. */
static inline bool flip_erofs_has_content(const struct img_node *n)
{
	return n->type == IMG_FILE && n->size > 0;
}
static inline uint32_t flip_erofs_xattr_entry_size(size_t name_len, size_t value_size)
{
	return (uint32_t)((sizeof(struct erofs_xattr) + name_len + value_size + 3) & ~(size_t)3);
}

#endif
