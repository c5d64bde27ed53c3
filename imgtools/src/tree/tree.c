/* The tree itself: a hash table from path to entry beside the links from parent to children, so that a look-up costs
 * the same in a busybox and in a CUDA image, and removing a directory costs what is in it. The order of the paths is
 * made on demand: children of each directory sorted by name, walked depth first, is exactly the order in which '/'
 * comes before every other byte. */
#include "tree/tree.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "tree_internal.h"

enum { FIRST_BUCKETS = 256, MAX_XATTRS = 4096 };

static uint64_t hash_path(const char *path, size_t len)
{
	uint64_t h = 0xcbf29ce484222325u; /* FNV-1a */

	for (size_t i = 0; i < len; i++)
		h = (h ^ (unsigned char)path[i]) * 0x100000001b3u;
	return h ^ h >> 29;
}

struct img_entry *img_tree_entry(const struct img_tree *t, const char *path, size_t len)
{
	uint64_t h = hash_path(path, len);
	struct img_entry *e = t->buckets[h & (t->n_buckets - 1)];

	while (e && (e->hash != h || strncmp(e->node.path, path, len) != 0 || e->node.path[len]))
		e = e->hash_next;
	return e;
}

struct img_node *img_tree_find(const struct img_tree *t, const char *path)
{
	struct img_entry *e = img_tree_entry(t, path, strlen(path));

	return e ? &e->node : NULL;
}

static void hash_insert(struct img_tree *t, struct img_entry *e)
{
	struct img_entry **bucket = &t->buckets[e->hash & (t->n_buckets - 1)];

	e->hash_next = *bucket;
	*bucket = e;
}

static void hash_remove(struct img_tree *t, struct img_entry *e)
{
	struct img_entry **p = &t->buckets[e->hash & (t->n_buckets - 1)];

	while (*p != e)
		p = &(*p)->hash_next;
	*p = e->hash_next;
}

/* Twice the buckets when there are as many entries as buckets. Not being able to is no failure, only slow. */
static void hash_grow(struct img_tree *t)
{
	size_t n_old = t->n_buckets;
	struct img_entry **old = t->buckets, **fresh;

	if (t->count < n_old)
		return;
	fresh = calloc(n_old * 2, sizeof(*fresh));
	if (!fresh)
		return;
	t->buckets = fresh;
	t->n_buckets = n_old * 2;
	for (size_t i = 0; i < n_old; i++) {
		for (struct img_entry *e = old[i], *next; e; e = next) {
			next = e->hash_next;
			hash_insert(t, e);
		}
	}
	free(old);
}

/* ---- Nodes ------------------------------------------------------------------------------------------------ */

static void xattrs_free(struct img_xattr *x, size_t n)
{
	for (size_t i = 0; i < n; i++) {
		free(x[i].name);
		free(x[i].value);
	}
	free(x);
}

/* What a node points to, but for its path. */
static void node_clear(struct img_node *n)
{
	free(n->target);
	free(n->source);
	free(n->data);
	xattrs_free(n->xattrs, n->n_xattrs);
}

static int compare_xattrs(const void *a, const void *b)
{
	return strcmp(((const struct img_xattr *)a)->name, ((const struct img_xattr *)b)->name);
}

static int copy_xattrs(const struct img_node *from, struct img_node *to)
{
	to->xattrs = NULL;
	to->n_xattrs = 0;
	if (from->n_xattrs == 0)
		return 0;
	if (from->n_xattrs > MAX_XATTRS)
		return -E2BIG;
	to->xattrs = calloc(from->n_xattrs, sizeof(*to->xattrs));
	if (!to->xattrs)
		return -ENOMEM;
	for (size_t i = 0; i < from->n_xattrs; i++) {
		const struct img_xattr *x = &from->xattrs[i];
		struct img_xattr *y = &to->xattrs[to->n_xattrs++];

		y->name = strdup(x->name);
		y->value = malloc(x->size ? x->size : 1);
		if (!y->name || !y->value)
			return -ENOMEM;
		if (x->size)
			memcpy(y->value, x->value, x->size);
		y->size = x->size;
	}
	qsort(to->xattrs, to->n_xattrs, sizeof(*to->xattrs), compare_xattrs);
	for (size_t i = 1; i < to->n_xattrs; i++) {
		if (strcmp(to->xattrs[i - 1].name, to->xattrs[i].name) == 0)
			return -EINVAL;
	}
	return 0;
}

/* *to becomes a copy of *from with the path `path`, which stays whose it is. On failure *to is empty. */
static int node_copy(const struct img_node *from, const char *path, struct img_node *to)
{
	int r;

	*to = *from;
	to->path = path;
	to->mode &= 07777;
	to->target = to->source = NULL;
	to->data = NULL;
	r = copy_xattrs(from, to);
	if (from->type == IMG_SYMLINK) {
		to->target = strdup(from->target);
		to->size = strlen(from->target);
		r = r < 0 ? r : to->target ? 0 : -ENOMEM;
	} else if (from->type != IMG_FILE) {
		to->size = 0;
	} else if (from->data && from->size) {
		to->data = from->size < SIZE_MAX ? malloc((size_t)from->size) : NULL;
		if (to->data)
			memcpy(to->data, from->data, (size_t)from->size);
		r = r < 0 ? r : to->data ? 0 : -ENOMEM;
	} else if (from->source) {
		to->source = strdup(from->source);
		r = r < 0 ? r : to->source ? 0 : -ENOMEM;
	}
	if (to->type != IMG_FILE)
		to->link_group = 0;
	if (r < 0) {
		node_clear(to);
		*to = (struct img_node){ 0 };
	}
	return r;
}

enum img_type img_type_of_mode(mode_t mode)
{
	switch (mode & S_IFMT) {
	case S_IFDIR:
		return IMG_DIR;
	case S_IFLNK:
		return IMG_SYMLINK;
	case S_IFCHR:
		return IMG_CHAR;
	case S_IFBLK:
		return IMG_BLOCK;
	case S_IFIFO:
		return IMG_FIFO;
	case S_IFSOCK:
		return IMG_SOCKET;
	default:
		return IMG_FILE;
	}
}

static int check_node(const struct img_node *n)
{
	if (!n->path || !img_path_is_normal(n->path) || n->type < IMG_FILE || n->type > IMG_SOCKET ||
	    n->mtime_ns >= 1000000000)
		return -EINVAL;
	if (n->type == IMG_SYMLINK && (!n->target || !n->target[0] || strlen(n->target) >= IMG_PATH_MAX))
		return -EINVAL;
	if (n->type != IMG_DIR && !n->path[1])
		return -ENOTDIR; /* the root */
	return 0;
}

/* ---- Entries ---------------------------------------------------------------------------------------------- */

static void entry_free(struct img_entry *e)
{
	node_clear(&e->node);
	free((char *)e->node.path);
	free(e);
}

static void unlink_from_parent(struct img_entry *e)
{
	if (e->prev)
		e->prev->next = e->next;
	else
		e->parent->first_child = e->next;
	if (e->next)
		e->next->prev = e->prev;
}

/* Frees all below `top`, without recursion: a hostile tree is as deep as a path is long. */
static void remove_children(struct img_tree *t, struct img_entry *top)
{
	struct img_entry *e = top;

	while (top->first_child) {
		struct img_entry *parent;

		while (e->first_child)
			e = e->first_child;
		parent = e->parent;
		unlink_from_parent(e);
		hash_remove(t, e);
		entry_free(e);
		t->count--;
		e = parent;
	}
	t->is_ordered = false;
}

/* A new entry for n below parent. */
static int insert(struct img_tree *t, struct img_entry *parent, const struct img_node *n, struct img_entry **ret_entry)
{
	struct img_entry *e;
	char *path;
	int r;

	if (t->count >= IMG_TREE_MAX_NODES)
		return -E2BIG;
	e = calloc(1, sizeof(*e));
	path = strdup(n->path);
	r = e && path ? node_copy(n, path, &e->node) : -ENOMEM;
	if (r < 0) {
		free(path);
		free(e);
		return r;
	}
	e->hash = hash_path(path, strlen(path));
	e->parent = parent;
	if (parent) {
		e->next = parent->first_child;
		if (e->next)
			e->next->prev = e;
		parent->first_child = e;
	}
	t->count++;
	hash_grow(t);
	hash_insert(t, e);
	t->is_ordered = false;
	*ret_entry = e;
	return 0;
}

struct img_tree *img_tree_new(void)
{
	static const struct img_node slash = { .path = "/", .type = IMG_DIR, .mode = 0755, .package = -1, .layer = -1 };
	struct img_tree *t = calloc(1, sizeof(*t));

	if (!t)
		return NULL;
	t->n_buckets = FIRST_BUCKETS;
	t->buckets = calloc(t->n_buckets, sizeof(struct img_entry *));
	if (!t->buckets || insert(t, NULL, &slash, &t->root) < 0) {
		free(t->buckets);
		free(t);
		return NULL;
	}
	return t;
}

void img_tree_free(struct img_tree *t)
{
	if (!t)
		return;
	remove_children(t, t->root);
	entry_free(t->root);
	free(t->buckets);
	free(t->order);
	free(t);
}

size_t img_tree_count(const struct img_tree *t)
{
	return t->count;
}

/* Length of the path of the directory that `path` is in; 1 for what is right below the root. */
static size_t parent_len(const char *path)
{
	size_t len = (size_t)(strrchr(path, '/') - path);

	return len ? len : 1;
}

/* The directory that `path` belongs in; those that are missing are made. */
static int find_parent(struct img_tree *t, const char *path, struct img_entry **ret_parent)
{
	struct img_node dir = { .type = IMG_DIR, .mode = 0755, .package = -1, .layer = -1 };
	struct img_entry *e = img_tree_entry(t, path, parent_len(path));
	const char *p = path;
	int r;

	if (e) {
		*ret_parent = e;
		return e->node.type == IMG_DIR ? 0 : -ENOTDIR;
	}
	/* Look before making: nothing is left behind when a parent turns out to be a link or a file. */
	e = t->root;
	while ((p = strchr(p + 1, '/'))) {
		struct img_entry *next = img_tree_entry(t, path, (size_t)(p - path));

		if (!next)
			break;
		if (next->node.type != IMG_DIR)
			return -ENOTDIR;
		e = next;
	}
	for (; p; p = strchr(p + 1, '/')) {
		char prefix[IMG_PATH_MAX];

		memcpy(prefix, path, (size_t)(p - path));
		prefix[p - path] = '\0';
		dir.path = prefix;
		r = insert(t, e, &dir, &e);
		if (r < 0)
			return r;
	}
	*ret_parent = e;
	return 0;
}

int img_tree_add(struct img_tree *t, const struct img_node *n, struct img_node **ret_node, struct err *err)
{
	struct img_entry *e, *parent = NULL;
	struct img_node copy;
	int r = check_node(n);

	if (r < 0)
		return err_set(err, r, "%s: %s", n->path ? n->path : "(no path)",
		               r == -ENOTDIR ? "the root is a directory" : "not a node of a tree");
	e = img_tree_entry(t, n->path, strlen(n->path));
	if (e) {
		/* Copied before anything is let go: n may be the very node, or one below it. */
		r = node_copy(n, e->node.path, &copy);
		if (r < 0)
			return err_set(err, r, "%s: %s", n->path, strerror(-r));
		if (e->node.type != IMG_DIR || copy.type != IMG_DIR)
			remove_children(t, e);
		node_clear(&e->node);
		e->node = copy;
	} else {
		r = find_parent(t, n->path, &parent);
		if (r == -ENOTDIR)
			return err_set(err, r, "%s: what is above it is not a directory", n->path);
		if (r == 0)
			r = insert(t, parent, n, &e);
		if (r < 0)
			return err_set(err, r, "%s: %s", n->path, strerror(-r));
	}
	if (ret_node)
		*ret_node = &e->node;
	return 0;
}

void img_tree_remove(struct img_tree *t, const char *path)
{
	struct img_entry *e = img_tree_entry(t, path, strlen(path));

	if (!e)
		return;
	remove_children(t, e);
	if (e == t->root)
		return;
	unlink_from_parent(e);
	hash_remove(t, e);
	entry_free(e);
	t->count--;
}

void img_tree_empty(struct img_tree *t, const char *path)
{
	struct img_entry *e = img_tree_entry(t, path, strlen(path));

	if (e)
		remove_children(t, e);
}

/* ---- Order ------------------------------------------------------------------------------------------------ */

/* By name within one directory: the paths differ only behind their common parent. */
static int compare_entries(const void *a, const void *b)
{
	return strcmp((*(struct img_entry *const *)a)->node.path, (*(struct img_entry *const *)b)->node.path);
}

/* Fills t->order by walking from the root. The tail of the array is the stack of what is still to be visited: what is
 * visited and what waits is never more than what there is. */
static void fill_order(struct img_tree *t)
{
	struct img_entry **stack = t->order + t->count, **end = stack;
	size_t n = 0;

	*--stack = t->root;
	while (stack < end) {
		struct img_entry *e = *stack++, **children = stack;

		for (struct img_entry *c = e->first_child; c; c = c->next)
			*--children = c;
		qsort(children, (size_t)(stack - children), sizeof(*children), compare_entries);
		stack = children;
		t->order[n++] = e;
	}
	t->is_ordered = true;
}

struct img_node *img_tree_at(struct img_tree *t, size_t i)
{
	if (!t->is_ordered) {
		if (t->order_cap < t->count) {
			struct img_entry **p = realloc(t->order, t->count * sizeof(struct img_entry *));

			if (!p)
				return NULL;
			t->order = p;
			t->order_cap = t->count;
		}
		fill_order(t);
	}
	return i < t->count ? &t->order[i]->node : NULL;
}
