/* Whiteouts as they stand in a layer's tar become what overlayfs knows (OCI image specification, layer.md; kernel,
 * Documentation/filesystems/overlayfs.rst). */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "toc_internal.h"

#define WHITEOUT ".wh."
#define OPAQUE ".wh..wh..opq"
#define OPAQUE_XATTR "trusted.overlay.opaque"

static const char *name_of(const char *path)
{
	return strrchr(path, '/') + 1;
}

static bool is_ours(const char *path)
{
	return strcmp(path, "/" FLIP_LANDMARK) == 0 || strcmp(path, "/" FLIP_NO_LANDMARK) == 0 ||
	       strcmp(path, "/" FLIP_TOC_NAME) == 0;
}

/* Paths of what must change: the tree is not altered while it is walked. */
static int collect(struct img_tree *tree, char ***ret_paths, size_t *ret_n)
{
	size_t n = 0, count = img_tree_count(tree);
	char **paths = calloc(count + 1, sizeof(*paths));

	if (!paths)
		return -ENOMEM;
	for (size_t i = 0; i < count; i++) {
		const struct img_node *node = img_tree_at(tree, i);

		if (node && !is_ours(node->path) && strncmp(name_of(node->path), WHITEOUT, strlen(WHITEOUT)) != 0)
			continue;
		paths[n] = node ? strdup(node->path) : NULL;
		if (!paths[n++]) {
			for (size_t k = 0; k < n; k++)
				free(paths[k]);
			free(paths);
			return -ENOMEM;
		}
	}
	*ret_paths = paths;
	*ret_n = n;
	return 0;
}

/* The directory that `path` is in. */
static struct img_node *parent_of(struct img_tree *tree, const char *path)
{
	char dir[IMG_PATH_MAX];
	size_t len = (size_t)(name_of(path) - path);

	memcpy(dir, path, len);
	dir[len > 1 ? len - 1 : 1] = '\0';
	return img_tree_find(tree, dir);
}

static int make_opaque(struct img_tree *tree, struct img_node *dir, struct err *err)
{
	CLEANUP(freep) struct img_xattr *xattrs = calloc(dir->n_xattrs + 1, sizeof(*xattrs));
	struct img_node n = *dir;

	if (!xattrs)
		return err_set(err, -ENOMEM, "%s: out of memory", dir->path);
	n.xattrs = xattrs;
	n.n_xattrs = 0;
	for (size_t i = 0; i < dir->n_xattrs; i++) {
		if (strcmp(dir->xattrs[i].name, OPAQUE_XATTR) != 0)
			xattrs[n.n_xattrs++] = dir->xattrs[i];
	}
	xattrs[n.n_xattrs++] = (struct img_xattr){ (char *)OPAQUE_XATTR, (char *)"y", 1 };
	return img_tree_add(tree, &n, NULL, err);
}

static int make_whiteout(struct img_tree *tree, const char *path, struct err *err)
{
	struct img_node n = { .type = IMG_CHAR, .mode = 0, .package = -1, .layer = -1 };
	const char *name = name_of(path) + strlen(WHITEOUT);
	char hidden[IMG_PATH_MAX];
	size_t dir = (size_t)(name_of(path) - path);

	if (!*name || strcmp(name, ".") == 0 || strcmp(name, "..") == 0)
		return err_set(err, -EBADMSG, "%s: a whiteout that hides nothing", path);
	memcpy(hidden, path, dir);
	memcpy(hidden + dir, name, strlen(name) + 1);
	n.path = hidden;
	/* What the layer itself brings wins: it hides the lower one anyhow; a directory must not be merged with it. */
	if (img_tree_find(tree, hidden)) {
		struct img_node *own = img_tree_find(tree, hidden);

		return own->type == IMG_DIR ? make_opaque(tree, own, err) : 0;
	}
	return img_tree_add(tree, &n, NULL, err);
}

static int convert_one(struct img_tree *tree, const char *path, struct err *err)
{
	bool is_opaque = strcmp(name_of(path), OPAQUE) == 0;
	bool has_meaning = !is_ours(path) && (is_opaque || strncmp(name_of(path), ".wh..wh.", 8) != 0);

	img_tree_remove(tree, path);
	if (!has_meaning) /* ours, or housekeeping of AUFS (".wh..wh.plnk") */
		return 0;
	return is_opaque ? make_opaque(tree, parent_of(tree, path), err) : make_whiteout(tree, path, err);
}

int flip_tree_to_overlay(struct img_tree *tree, struct err *err)
{
	char **paths = NULL;
	size_t n = 0;
	int r = collect(tree, &paths, &n);

	if (r < 0)
		return err_set(err, r, "out of memory");
	for (size_t i = 0; i < n; i++) {
		/* What was below one removed before is gone already. */
		if (r == 0 && img_tree_find(tree, paths[i]))
			r = convert_one(tree, paths[i], err);
		free(paths[i]);
	}
	free(paths);
	return r;
}
