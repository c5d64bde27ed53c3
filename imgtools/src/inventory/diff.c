/* Two trees walked side by side in the order of their paths. Files of one size are compared byte by byte. */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "inventory.h"

enum { CHUNK = 1 << 17 };

struct side {
	struct img_tree *tree;
	bool *seen; /* link groups whose bytes are counted */
	uint32_t max_group;
};

struct compare {
	struct side a, b;
	const struct img_diff_opts *opts;
	struct img_diff diff;
	size_t cap;
	char *x, *y; /* CHUNK bytes each */
	struct err *err;
};

static int out_of_memory(struct compare *c)
{
	return err_set(c->err, -ENOMEM, "out of memory");
}

static int side_init(struct compare *c, struct side *s, struct img_tree *t)
{
	s->tree = t;
	for (size_t i = 0; i < img_tree_count(t); i++) {
		const struct img_node *n = img_tree_at(t, i);

		if (!n)
			return out_of_memory(c);
		if (n->link_group > s->max_group)
			s->max_group = n->link_group;
	}
	s->seen = calloc((size_t)s->max_group + 1, sizeof(*s->seen));
	return s->seen ? 0 : out_of_memory(c);
}

static uint64_t bytes_of(struct side *s, const struct img_node *n)
{
	if (!n || n->type != IMG_FILE)
		return 0;
	if (n->link_group) {
		if (s->seen[n->link_group])
			return 0;
		s->seen[n->link_group] = true;
	}
	return n->size;
}

static bool is_canceled(const struct compare *c)
{
	return c->opts->is_canceled && c->opts->is_canceled(c->opts->is_canceled_arg) != 0;
}

/* 1: the same, 0: not. */
static int same_bytes(struct compare *c, const struct img_node *a, const struct img_node *b)
{
	if (a->size != b->size)
		return 0;
	for (uint64_t at = 0; at < a->size; at += CHUNK) {
		ssize_t n, m;

		if (is_canceled(c))
			return err_set(c->err, -ECANCELED, "canceled");
		n = img_node_read(a, c->x, CHUNK, at, c->err);
		if (n < 0)
			return (int)n;
		m = img_node_read(b, c->y, CHUNK, at, c->err);
		if (m < 0)
			return (int)m;
		if (n != m || memcmp(c->x, c->y, (size_t)n) != 0)
			return 0;
	}
	return 1;
}

static bool same_xattrs(const struct img_node *a, const struct img_node *b)
{
	if (a->n_xattrs != b->n_xattrs)
		return false;
	for (size_t i = 0; i < a->n_xattrs; i++) {
		const struct img_xattr *x = &a->xattrs[i], *y = &b->xattrs[i];

		if (strcmp(x->name, y->name) != 0 || x->size != y->size || memcmp(x->value, y->value, x->size) != 0)
			return false;
	}
	return true;
}

/* What differs, as flags, or a negative error. */
static int changes_of(struct compare *c, const struct img_node *a, const struct img_node *b)
{
	unsigned changes = 0;
	int r;

	if (a->type != b->type)
		return IMG_CHANGE_TYPE;
	if (a->type == IMG_FILE) {
		r = same_bytes(c, a, b);
		if (r < 0)
			return r;
		changes |= r ? 0 : IMG_CHANGE_CONTENT;
	}
	if (a->type == IMG_SYMLINK && strcmp(a->target, b->target) != 0)
		changes |= IMG_CHANGE_CONTENT;
	if ((a->type == IMG_CHAR || a->type == IMG_BLOCK) && (a->major != b->major || a->minor != b->minor))
		changes |= IMG_CHANGE_CONTENT;
	if (a->type != IMG_SYMLINK && a->mode != b->mode)
		changes |= IMG_CHANGE_MODE;
	if (a->uid != b->uid || a->gid != b->gid)
		changes |= IMG_CHANGE_OWNER;
	if (!same_xattrs(a, b))
		changes |= IMG_CHANGE_XATTRS;
	if (c->opts->with_times && (a->mtime_s != b->mtime_s || a->mtime_ns != b->mtime_ns))
		changes |= IMG_CHANGE_TIME;
	return (int)changes;
}

static int take(struct compare *c, const struct img_node *a, const struct img_node *b)
{
	struct img_difference d = { .a = a, .b = b };
	int changes = a && b ? changes_of(c, a, b) : 0;

	if (changes < 0)
		return changes;
	d.changes = (unsigned)changes;
	d.a_bytes = bytes_of(&c->a, a);
	d.b_bytes = bytes_of(&c->b, b);
	c->diff.a_bytes += d.a_bytes;
	c->diff.b_bytes += d.b_bytes;
	if (a && b && !changes) {
		c->diff.n_same++;
		return 0;
	}
	if (c->diff.n == c->cap) {
		size_t cap = c->cap ? c->cap * 2 : 256;
		void *p = reallocarray(c->diff.list, cap, sizeof(*c->diff.list));

		if (!p)
			return out_of_memory(c);
		c->diff.list = p;
		c->cap = cap;
	}
	c->diff.list[c->diff.n++] = d;
	return 0;
}

/* The order of trees: '/' before every other byte. */
static int compare_paths(const char *a, const char *b)
{
	while (*a && *a == *b) {
		a++;
		b++;
	}
	if (*a == *b)
		return 0;
	return (*a == '/' ? 1
	        : *a      ? (unsigned char)*a + 2
	                  : 0) < (*b == '/' ? 1
	                     : *b      ? (unsigned char)*b + 2
	                               : 0)
	               ? -1
	               : 1;
}

static int walk(struct compare *c)
{
	size_t i = 0, k = 0, n = img_tree_count(c->a.tree), m = img_tree_count(c->b.tree);
	int r = 0;

	while (r == 0 && (i < n || k < m)) {
		const struct img_node *a = i < n ? img_tree_at(c->a.tree, i) : NULL;
		const struct img_node *b = k < m ? img_tree_at(c->b.tree, k) : NULL;
		int order = !a ? 1 : !b ? -1 : compare_paths(a->path, b->path);

		r = take(c, order <= 0 ? a : NULL, order >= 0 ? b : NULL);
		i += order <= 0;
		k += order >= 0;
	}
	return r;
}

int img_diff_make(struct img_tree *a, struct img_tree *b, const struct img_diff_opts *o, struct img_diff *ret_diff,
                  struct err *err)
{
	struct compare c = { .opts = o, .x = malloc(CHUNK), .y = malloc(CHUNK), .err = err };
	int r = c.x && c.y ? 0 : out_of_memory(&c);

	if (r == 0)
		r = side_init(&c, &c.a, a);
	if (r == 0)
		r = side_init(&c, &c.b, b);
	if (r == 0)
		r = walk(&c);
	free(c.x);
	free(c.y);
	free(c.a.seen);
	free(c.b.seen);
	if (r < 0)
		img_diff_done(&c.diff);
	else
		*ret_diff = c.diff;
	return r;
}

void img_diff_done(struct img_diff *d)
{
	free(d->list);
	*d = (struct img_diff){ 0 };
}
