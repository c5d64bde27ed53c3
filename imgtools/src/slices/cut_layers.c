/* Layers by request: what one request reaches is one layer, whatever else is in the image. Each layer is cut by itself
 * from the same world; where the sets overlap the lowest layer has it. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "slices_internal.h"

static int place_layer(struct img_world *w, const struct img_cut_opts *o, const struct img_cut_layer *layer,
                       int32_t number, struct img_tree *t, struct err *err)
{
	struct img_cut_opts own = *o;
	struct img_cut *c = NULL;
	int r;

	own.requests = layer->requests;
	own.n_requests = layer->n_requests;
	own.generate = NULL;
	own.n_generate = 0;
	r = img_cut_resolve(w, &own, &c, err);
	for (size_t i = 0; r == 0 && i < c->n_items; i++) {
		char path[IMG_PATH_MAX];
		struct img_node *n;

		r = img_rpm_canonical(img_world_aliases(w), c->items[i].path, path);
		if (r < 0)
			r = err_set(err, r, "%s: %s", c->items[i].path, strerror(-r));
		n = r == 0 ? img_tree_find(t, path) : NULL;
		if (!n || n->layer >= 0)
			continue;
		n->layer = number;
		/* In the whole image other things may be in a folder: its time is its package's. */
		if (n->type == IMG_DIR)
			n->mtime_s = c->items[i].id.package->files[c->items[i].id.file].mtime;
	}
	img_cut_free(c);
	return r;
}

/* The folder of each node, by position; the root is its own. */
static void find_parents(struct img_tree *t, size_t *parent)
{
	size_t cur = 0;

	for (size_t i = 1; i < img_tree_count(t); i++) {
		const char *path = img_tree_at(t, i)->path;

		for (;; cur = parent[cur]) {
			const char *dir = img_tree_at(t, cur)->path;
			const size_t len = cur ? strlen(dir) : 0;

			if (strncmp(path, dir, len) == 0 && path[len] == '/')
				break;
		}
		parent[i] = cur;
		if (img_tree_at(t, i)->type == IMG_DIR)
			cur = i;
	}
}

/* A folder belongs to the lowest layer that has it or something in it, and is as old as the newest of what that layer
 * has there. Backwards: what is below comes after its folder. `rest`: the layer of what no layer asked for. */
static int settle_folders(struct img_tree *t, int32_t rest)
{
	const size_t n = img_tree_count(t);
	CLEANUP(freep) size_t *parent = calloc(n + 1, sizeof(*parent));
	CLEANUP(freep) bool *is_settled = calloc(n + 1, 1); /* layer and time are its own or a child's */

	if (!parent || !is_settled || !img_tree_at(t, 0))
		return -ENOMEM;
	find_parents(t, parent);
	for (size_t i = 0; i < n; i++)
		is_settled[i] = img_tree_at(t, i)->layer < rest;
	for (size_t i = n; i-- > 1;) {
		const struct img_node *node = img_tree_at(t, i);
		struct img_node *dir = img_tree_at(t, parent[i]);

		if (!is_settled[parent[i]] || node->layer < dir->layer) {
			dir->layer = node->layer;
			dir->mtime_s = node->mtime_s;
		} else if (node->layer == dir->layer && node->mtime_s > dir->mtime_s)
			dir->mtime_s = node->mtime_s;
		is_settled[parent[i]] = true;
	}
	return 0;
}

int img_cut_layers(struct img_world *w, const struct img_cut_opts *o, const struct img_cut_layer *layers, size_t n,
                   struct img_tree *t, struct err *err)
{
	int r = 0;

	for (size_t i = 0; i < img_tree_count(t); i++)
		img_tree_at(t, i)->layer = -1;
	for (size_t k = 0; r == 0 && k < n; k++)
		r = place_layer(w, o, &layers[k], (int32_t)k, t, err);
	for (size_t i = 0; r == 0 && i < img_tree_count(t); i++) {
		struct img_node *node = img_tree_at(t, i);

		if (node->layer < 0)
			node->layer = (int32_t)(node->package >= 0 ? n : n + 1);
	}
	if (r == 0)
		r = settle_folders(t, (int32_t)n);
	return r == -ENOMEM ? err_set(err, r, "out of memory") : r;
}
