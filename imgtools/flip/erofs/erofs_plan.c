/* The first half of the writer: counts, sizes and places.
 *
 * A directory is followed by the inodes of what is in it, in the order of the names, so that who lists a directory and
 * then looks at its files reads neighbouring blocks. No inode crosses the end of a block unless its attributes alone
 * are larger than one, as what is behind them (the end of a directory, a link's target) must not. Gaps that this leaves
 * are kept in a short list and filled by what comes next. */
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "erofs/erofs_plan.h"

enum { MAX_GAPS = 16, MAX_VALUE = UINT16_MAX, MAX_XATTR_UNITS = UINT16_MAX };

struct gap {
	uint64_t begin, end;
};

struct placer {
	struct gap gaps[MAX_GAPS];
	size_t n_gaps;
	uint64_t n_blocks;
};

static uint32_t round_up32(uint32_t n, uint32_t to)
{
	return (n + to - 1) / to * to;
}

/* ---- Items and hard links --------------------------------------------------------------------------------- */

/* The item of the directory above, given the item before this one in the order of the paths. */
static uint32_t find_parent(const struct flip_erofs_plan *p, uint32_t last, size_t parent_len)
{
	while (last != 0 && (p->items[last].node->type != IMG_DIR || strlen(p->items[last].node->path) != parent_len))
		last = p->items[last].parent;
	return last;
}

static int add_items(struct img_tree *tree, struct flip_erofs_plan *p, struct err *err)
{
	p->items[0] = (struct flip_erofs_item){ .node = img_tree_at(tree, 0), .nlink = 2 };
	if (!p->items[0].node)
		return err_set(err, -ENOMEM, "out of memory");
	for (uint32_t i = 1; i < p->n_items; i++) {
		struct flip_erofs_item *it = &p->items[i];
		const char *slash;
		size_t len;

		it->node = img_tree_at(tree, i);
		slash = strrchr(it->node->path, '/');
		it->name = slash + 1;
		len = strlen(it->name);
		if (len > EROFS_NAME_MAX)
			return err_set(err, -ENAMETOOLONG, "%s: a name of %zu bytes, more than %d", it->node->path, len,
			               EROFS_NAME_MAX);
		it->name_len = (uint16_t)len;
		it->inode = i;
		it->parent = find_parent(p, i - 1, slash == it->node->path ? 1 : (size_t)(slash - it->node->path));
		p->items[it->parent].n_children++;
		if (it->node->type == IMG_DIR) {
			it->nlink = 2;
			p->items[it->parent].nlink++;
		}
	}
	return 0;
}

static void list_children(struct flip_erofs_plan *p)
{
	uint32_t next = 0;

	for (size_t i = 0; i < p->n_items; i++) {
		p->items[i].first_child = next;
		next += p->items[i].n_children;
		p->items[i].n_children = 0;
	}
	for (uint32_t i = 1; i < p->n_items; i++) {
		struct flip_erofs_item *dir = &p->items[p->items[i].parent];

		p->children[dir->first_child + dir->n_children++] = i;
	}
}

struct link {
	uint32_t group, item;
};

static int compare_links(const void *va, const void *vb)
{
	const struct link *a = va, *b = vb;

	if (a->group != b->group)
		return a->group < b->group ? -1 : 1;
	return a->item < b->item ? -1 : a->item > b->item;
}

static int join_links(struct flip_erofs_plan *p, struct err *err)
{
	CLEANUP(freep) struct link *links = NULL;
	size_t n = 0;

	for (size_t i = 0; i < p->n_items; i++)
		n += p->items[i].node->link_group != 0;
	links = calloc(n + 1, sizeof(*links));
	if (!links)
		return err_set(err, -ENOMEM, "out of memory");
	n = 0;
	for (uint32_t i = 0; i < p->n_items; i++) {
		if (p->items[i].node->link_group)
			links[n++] = (struct link){ .group = p->items[i].node->link_group, .item = i };
	}
	qsort(links, n, sizeof(*links), compare_links);
	for (size_t i = 1; i < n; i++) {
		if (links[i].group == links[i - 1].group)
			p->items[links[i].item].inode = p->items[links[i - 1].item].inode;
	}
	for (size_t i = 0; i < p->n_items; i++) {
		if (p->items[i].node->type != IMG_DIR)
			p->items[p->items[i].inode].nlink++;
		p->n_inodes += p->items[i].inode == i;
	}
	return 0;
}

/* ---- Directories ------------------------------------------------------------------------------------------ */

/* Bytewise, and shorter first when one begins with the other. */
static int compare_names(const char *a, size_t a_len, const char *b, size_t b_len)
{
	int c = memcmp(a, b, a_len < b_len ? a_len : b_len);

	return c ? c : a_len < b_len ? -1 : a_len > b_len;
}

bool flip_erofs_cursor_next(struct flip_erofs_cursor *c, const char **ret_name, size_t *ret_len, uint32_t *ret_item)
{
	const struct flip_erofs_item *dir = &c->plan->items[c->dir];
	const struct flip_erofs_item *child = NULL;

	if (c->next_child < dir->n_children)
		child = &c->plan->items[c->plan->children[dir->first_child + c->next_child]];
	if (c->next_dot < 2 && (!child || compare_names("..", c->next_dot + 1, child->name, child->name_len) < 0)) {
		*ret_name = "..";
		*ret_len = c->next_dot + 1;
		*ret_item = c->next_dot ? dir->parent : c->dir;
		c->next_dot++;
		return true;
	}
	if (!child)
		return false;
	*ret_name = child->name;
	*ret_len = child->name_len;
	*ret_item = child->inode;
	c->next_child++;
	return true;
}

/* Full blocks and what is in the last one. */
static void size_dir(const struct flip_erofs_plan *p, uint32_t dir, uint32_t *ret_n_full, uint32_t *ret_rest)
{
	struct flip_erofs_cursor c = { .plan = p, .dir = dir };
	uint32_t n_full = 0, used = 0, item;
	const char *name;
	size_t len;

	while (flip_erofs_cursor_next(&c, &name, &len, &item)) {
		uint32_t need = (uint32_t)(sizeof(struct erofs_dirent) + len);

		if (used + need > EROFS_BLOCK) {
			n_full++;
			used = 0;
		}
		used += need;
	}
	*ret_n_full = n_full;
	*ret_rest = used;
}

/* ---- Attributes ------------------------------------------------------------------------------------------- */

bool flip_erofs_keeps_xattr(const struct img_node *n, const struct img_xattr *x)
{
	const char *rest;

	if (strcmp(x->name, FLIP_XATTR_OPAQUE) == 0)
		return n->type == IMG_DIR && x->size == 1 && *(const char *)x->value == 'y';
	if (strncmp(x->name, FLIP_XATTR_OVERLAY, strlen(FLIP_XATTR_OVERLAY)) == 0)
		return false;
	return flip_erofs_xattr_split(x->name, &rest) != 0;
}

static int size_xattrs(struct flip_erofs_plan *p, struct flip_erofs_item *it, struct err *err)
{
	const struct img_node *n = it->node;
	uint64_t size = 0;

	if (flip_erofs_has_content(n))
		size = flip_erofs_xattr_entry_size(strlen("overlay.metacopy"), 0) +
		       flip_erofs_xattr_entry_size(strlen("overlay.redirect"), FLIP_REDIRECT_SIZE);
	for (size_t i = 0; i < n->n_xattrs; i++) {
		const struct img_xattr *x = &n->xattrs[i];
		const char *rest;
		uint8_t index;

		if (!flip_erofs_keeps_xattr(n, x))
			continue;
		index = flip_erofs_xattr_split(x->name, &rest);
		if (strlen(rest) > UINT8_MAX || x->size > MAX_VALUE)
			return err_set(err, -E2BIG,
			               "%s: attribute %.80s: %zu bytes, the format holds values of up to %d bytes",
			               n->path, x->name, x->size, MAX_VALUE);
		size += flip_erofs_xattr_entry_size(strlen(rest), x->size);
		p->has_acl = p->has_acl || index == EROFS_XATTR_ACL_ACCESS || index == EROFS_XATTR_ACL_DEFAULT;
	}
	if (size / 4 + 1 > MAX_XATTR_UNITS)
		return err_set(err, -E2BIG, "%s: %" PRIu64 " bytes of attributes, the format holds %d", n->path, size,
		               (MAX_XATTR_UNITS - 1) * 4);
	it->xattr_size = size ? (uint32_t)(size + sizeof(struct erofs_xattr_header)) : 0;
	return 0;
}

/* ---- Compact and extended inodes -------------------------------------------------------------------------- */

struct time_of {
	int64_t s;
	uint32_t ns;
};

static int compare_times(const void *va, const void *vb)
{
	const struct time_of *a = va, *b = vb;

	if (a->s != b->s)
		return a->s < b->s ? -1 : 1;
	return a->ns < b->ns ? -1 : a->ns > b->ns;
}

static bool could_be_compact(const struct flip_erofs_item *it)
{
	const struct img_node *n = it->node;

	return n->uid <= UINT16_MAX && n->gid <= UINT16_MAX && it->size <= UINT32_MAX && it->nlink <= UINT16_MAX &&
	       n->mtime_s >= 0;
}

/* Compact inodes have no time of their own, they all have the superblock's: the one that most could share. */
static int choose_epoch(struct flip_erofs_plan *p, struct err *err)
{
	CLEANUP(freep) struct time_of *times = calloc(p->n_items, sizeof(*times));
	size_t n = 0, best = 0;

	if (!times)
		return err_set(err, -ENOMEM, "out of memory");
	for (size_t i = 0; i < p->n_items; i++) {
		const struct img_node *node = p->items[i].node;

		if (p->items[i].inode == i && could_be_compact(&p->items[i]))
			times[n++] = (struct time_of){ node->mtime_s, node->mtime_ns };
	}
	qsort(times, n, sizeof(*times), compare_times);
	for (size_t first = 0, i = 0; i < n; i++) {
		if (compare_times(&times[first], &times[i]) != 0)
			first = i;
		if (i - first + 1 > best) {
			best = i - first + 1;
			p->epoch = (uint64_t)times[i].s;
			p->epoch_ns = times[i].ns;
		}
	}
	for (size_t i = 0; i < p->n_items; i++) {
		const struct img_node *node = p->items[i].node;

		p->items[i].is_extended = !could_be_compact(&p->items[i]) || (uint64_t)node->mtime_s != p->epoch ||
		                          node->mtime_ns != p->epoch_ns;
	}
	return 0;
}

/* ---- Layout ----------------------------------------------------------------------------------------------- */

static int layout_file(struct flip_erofs_item *it, struct err *err)
{
	if (it->size == 0)
		return 0;
	while (it->chunk_bits < EROFS_MAX_CHUNK_BITS && ((uint64_t)EROFS_BLOCK << it->chunk_bits) < it->size)
		it->chunk_bits++;
	if (((uint64_t)EROFS_BLOCK << it->chunk_bits) < it->size)
		return err_set(err, -EFBIG, "%s: a file of %" PRIu64 " bytes", it->node->path, it->size);
	it->layout = EROFS_CHUNKS;
	it->tail_size = sizeof(uint32_t);
	return 0;
}

/* The full blocks of a directory or a link's target apart, the rest in the tail when it fits there. */
static void layout_data(struct flip_erofs_item *it, uint32_t n_full, uint32_t rest)
{
	uint32_t inode = sizeof(struct erofs_extended) + it->xattr_size;

	it->size = (uint64_t)n_full * EROFS_BLOCK + rest;
	it->n_blocks = n_full;
	if (inode + rest <= EROFS_BLOCK) {
		it->layout = EROFS_INLINE;
		it->tail_size = rest;
	} else {
		it->n_blocks++;
	}
}

static int layout_item(struct flip_erofs_plan *p, uint32_t i, struct err *err)
{
	struct flip_erofs_item *it = &p->items[i];
	uint32_t n_full, rest;
	int r = size_xattrs(p, it, err);

	if (r < 0)
		return r;
	switch (it->node->type) {
	case IMG_FILE:
		it->size = it->node->size;
		return layout_file(it, err);
	case IMG_DIR:
		size_dir(p, i, &n_full, &rest);
		layout_data(it, n_full, rest);
		return 0;
	case IMG_SYMLINK:
		layout_data(it, 0, (uint32_t)it->node->size);
		return 0;
	case IMG_CHAR:
	case IMG_BLOCK:
		if (it->node->major > EROFS_DEV_MAX_MAJOR || it->node->minor > EROFS_DEV_MAX_MINOR)
			return err_set(err, -EOVERFLOW, "%s: device number %u:%u is too large", it->node->path,
			               it->node->major, it->node->minor);
		return 0;
	default:
		return 0;
	}
}

/* ---- Places ----------------------------------------------------------------------------------------------- */

/* The gap with the least room goes when there are too many. */
static void add_gap(struct placer *pl, uint64_t begin, uint64_t end)
{
	size_t least = 0;

	if (pl->n_gaps == MAX_GAPS) {
		for (size_t i = 1; i < pl->n_gaps; i++) {
			if (pl->gaps[i].end - pl->gaps[i].begin < pl->gaps[least].end - pl->gaps[least].begin)
				least = i;
		}
		memmove(&pl->gaps[least], &pl->gaps[least + 1], (pl->n_gaps - least - 1) * sizeof(*pl->gaps));
		pl->n_gaps--;
	}
	pl->gaps[pl->n_gaps++] = (struct gap){ begin, end };
}

static uint64_t place_blocks(struct placer *pl, uint64_t n)
{
	uint64_t at = pl->n_blocks;

	pl->n_blocks += n;
	return at;
}

/* Room for `size` bytes at a multiple of EROFS_SLOT; within one block when it is no larger than that. */
static uint64_t place(struct placer *pl, uint32_t size)
{
	uint64_t at;

	size = round_up32(size, EROFS_SLOT);
	for (size_t i = 0; i < pl->n_gaps && size <= EROFS_BLOCK; i++) {
		struct gap *g = &pl->gaps[i];

		if (g->end - g->begin < size)
			continue;
		at = g->begin;
		g->begin += size;
		if (g->end - g->begin < 2 * EROFS_SLOT)
			memmove(g, g + 1, (--pl->n_gaps - i) * sizeof(*g));
		return at;
	}
	at = place_blocks(pl, (size + EROFS_BLOCK - 1) / EROFS_BLOCK) * EROFS_BLOCK;
	if (pl->n_blocks * EROFS_BLOCK - (at + size) >= 2 * EROFS_SLOT)
		add_gap(pl, at + size, pl->n_blocks * EROFS_BLOCK);
	return at;
}

static void place_item(struct placer *pl, struct flip_erofs_item *it)
{
	uint32_t inode = it->is_extended ? sizeof(struct erofs_extended) : sizeof(struct erofs_compact);

	it->at = place(pl, inode + it->xattr_size + it->tail_size);
	if (it->n_blocks)
		it->first_block = (uint32_t)place_blocks(pl, it->n_blocks);
}

/* Each directory, then what is in it but for further directories. */
static int place_all(struct flip_erofs_plan *p, struct err *err)
{
	struct placer pl = { .n_blocks = 1 };

	add_gap(&pl, EROFS_SUPER_AT + sizeof(struct erofs_super), EROFS_BLOCK);
	for (uint32_t i = 0; i < p->n_items; i++) {
		const struct flip_erofs_item *dir = &p->items[i];

		if (dir->node->type != IMG_DIR)
			continue;
		place_item(&pl, &p->items[i]);
		for (uint32_t k = 0; k < dir->n_children; k++) {
			uint32_t child = p->children[dir->first_child + k];

			if (p->items[child].node->type != IMG_DIR && p->items[child].inode == child)
				place_item(&pl, &p->items[child]);
		}
		if (pl.n_blocks > UINT32_MAX / 2)
			return err_set(err, -EFBIG, "%s: the image becomes too large", dir->node->path);
	}
	p->n_blocks = pl.n_blocks;
	return 0;
}

int flip_erofs_plan_make(struct img_tree *tree, struct flip_erofs_plan *ret_plan, struct err *err)
{
	struct flip_erofs_plan p = { .n_items = img_tree_count(tree) };
	int r = 0;

	p.items = calloc(p.n_items, sizeof(*p.items));
	p.children = calloc(p.n_items, sizeof(*p.children));
	if (!p.items || !p.children)
		r = err_set(err, -ENOMEM, "out of memory");
	r = r < 0 ? r : add_items(tree, &p, err);
	if (r == 0) {
		list_children(&p);
		r = join_links(&p, err);
	}
	for (uint32_t i = 0; r == 0 && i < p.n_items; i++) {
		if (p.items[i].inode == i)
			r = layout_item(&p, i, err);
	}
	r = r < 0 ? r : choose_epoch(&p, err);
	r = r < 0 ? r : place_all(&p, err);
	if (r < 0) {
		flip_erofs_plan_done(&p);
		return r;
	}
	*ret_plan = p;
	return 0;
}

void flip_erofs_plan_done(struct flip_erofs_plan *plan)
{
	free(plan->items);
	free(plan->children);
	*plan = (struct flip_erofs_plan){ 0 };
}
