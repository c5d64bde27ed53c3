/* A decoded layer put on top of a tree (OCI image specification, layer.md). Its whiteouts speak of the layers below
 * only, wherever they stand in the archive, so they are done first. Then the entries in their order: a directory over
 * a directory changes its attributes, anything else replaces what was there. A name that comes twice is refused (but
 * for directories, which archives put together from several repeat), and so is what would be written through a link. */
#include <errno.h>
#include <string.h>

#include "oci_internal.h"

struct apply {
	struct img_tree *tree;
	int32_t layer;
	const char *label;
	uint32_t *next_group;
	struct err *err;
};

static int refuse(struct apply *a, int r, const char *path, const char *what)
{
	return err_set(a->err, r, "layer %s: %s: %s", a->label, path[1] ? path + 1 : path, what);
}

/* Whether the directory of `path` is one of the tree, or is not there; no link or file is in the way. */
static bool parent_is_clear(const struct img_tree *t, const char *path)
{
	char dir[IMG_PATH_MAX];

	for (const char *p = path + 1; (p = strchr(p, '/')); p++) {
		struct img_node *n;

		memcpy(dir, path, (size_t)(p - path));
		dir[p - path] = '\0';
		n = img_tree_find(t, dir);
		if (!n)
			return true;
		if (n->type != IMG_DIR)
			return false;
	}
	return true;
}

static int apply_whiteout(struct apply *a, const struct img_layer_entry *e)
{
	if (!parent_is_clear(a->tree, e->node.path))
		return refuse(a, -EBADMSG, e->node.path, "a whiteout behind a link or a file");
	if (e->kind == IMG_ENTRY_WHITEOUT)
		img_tree_remove(a->tree, e->node.path);
	else
		img_tree_empty(a->tree, e->node.path);
	return 0;
}

/* Directories that an entry made by being below them are of this layer. */
static void claim_parents(struct apply *a, const char *path)
{
	char dir[IMG_PATH_MAX];
	char *slash;

	(void)strncpy(dir, path, sizeof(dir) - 1);
	dir[sizeof(dir) - 1] = '\0';
	while ((slash = strrchr(dir, '/')) && slash != dir) {
		struct img_node *n;

		*slash = '\0';
		n = img_tree_find(a->tree, dir);
		if (!n || n->layer >= 0)
			return;
		n->layer = a->layer;
	}
}

static int add(struct apply *a, const struct img_node *n, bool has_parents)
{
	struct err inner = { 0 };
	int r = img_tree_add(a->tree, n, NULL, &inner);

	if (r == -ENOTDIR)
		return refuse(a, -EBADMSG, n->path, "is behind a link or a file");
	if (r < 0)
		return refuse(a, r, n->path, strerror(-r));
	if (!has_parents)
		claim_parents(a, n->path);
	return 0;
}

/* Another name of something that is already there. */
static int apply_hardlink(struct apply *a, const struct img_layer_entry *e)
{
	struct img_node *to = img_tree_find(a->tree, e->link_to), copy;

	if (!to)
		return refuse(a, -EBADMSG, e->node.path, "a hard link to what is not there");
	if (to->type == IMG_DIR)
		return refuse(a, -EBADMSG, e->node.path, "a hard link to a directory");
	if (strcmp(e->link_to, e->node.path) == 0)
		return 0;
	if (to->type == IMG_FILE && !to->link_group)
		to->link_group = (*a->next_group)++;
	copy = *to;
	copy.path = e->node.path;
	copy.layer = a->layer;
	return add(a, &copy, false);
}

static int apply_entry(struct apply *a, const struct img_layer_entry *e)
{
	struct img_node *old = img_tree_find(a->tree, e->node.path), n = e->node;

	if (old && old->layer == a->layer && (old->type != IMG_DIR || n.type != IMG_DIR) && n.path[1])
		return refuse(a, -EBADMSG, n.path, "comes twice");
	if (e->kind == IMG_ENTRY_HARDLINK)
		return apply_hardlink(a, e);
	n.layer = a->layer;
	return add(a, &n, old != NULL);
}

int img_layer_apply(struct img_tree *t, const struct img_layer_entries *e, int32_t layer, const char *label,
                    uint32_t *next_group, struct err *err)
{
	struct apply a = { .tree = t, .layer = layer, .label = label, .next_group = next_group, .err = err };
	int r = 0;

	for (size_t i = 0; r == 0 && i < e->n; i++) {
		if (e->list[i].kind == IMG_ENTRY_WHITEOUT || e->list[i].kind == IMG_ENTRY_OPAQUE)
			r = apply_whiteout(&a, &e->list[i]);
	}
	for (size_t i = 0; r == 0 && i < e->n; i++) {
		if (e->list[i].kind == IMG_ENTRY_NODE || e->list[i].kind == IMG_ENTRY_HARDLINK)
			r = apply_entry(&a, &e->list[i]);
	}
	return r;
}
