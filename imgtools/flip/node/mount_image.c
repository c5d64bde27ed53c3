/* Images mounted for people and scripts: the same layers, one read-only overlay at a folder of theirs. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "node/node_internal.h"

/* All layers of the image, uppermost first; those that are made ready anew go side by side. */
static int lowers_of(struct flip_node *node, const struct node_image *image, struct node_lower *ret_lowers,
                     struct node_layer **ret_layers, struct err *err)
{
	for (size_t i = 0; i < image->n_layers; i++)
		node_layer_start(node, image, image->layers[i].digest);
	for (size_t i = 0; i < image->n_layers; i++) {
		size_t at = image->n_layers - 1 - i;
		int r = node_layer_get(node, image, image->layers[i].digest, &ret_lowers[at].layer, err);

		if (r < 0)
			return r;
		ret_layers[at] = ret_lowers[at].layer;
	}
	return 0;
}

static int mount_image(struct flip_node *node, const struct node_image *image, const char *dir, struct err *err)
{
	struct node_lower *lowers = calloc(image->n_layers + 1, sizeof(*lowers));
	struct node_layer **layers = calloc(image->n_layers + 1, sizeof(*layers));
	struct flip_mounts mounts = { 0 };
	int r = lowers && layers ? 0 : err_set(err, -ENOMEM, "out of memory");

	if (r == 0 && !image->n_layers)
		r = err_set(err, -EINVAL, "%s: has no layers", image->ref);
	if (r == 0)
		r = lowers_of(node, image, lowers, layers, err);
	if (r == 0)
		r = node_compose_mount(node, lowers, image->n_layers, NULL, NULL, &mounts, err);
	if (r == 0)
		r = node_do_mount(&mounts, dir, err);
	for (size_t i = 0; r == 0 && i < image->n_layers; i++)
		node_prefetch_layer(layers[i]);
	if (r == 0 && !node_prefetch_image(node, image->ref, layers, image->n_layers))
		node_record_start(node, image->ref, layers, image->n_layers);
	flip_mounts_done(&mounts);
	for (size_t i = 0; lowers && i < image->n_layers; i++)
		node_layer_unref(lowers[i].layer);
	free(lowers);
	free(layers);
	return r;
}

int flip_node_mount(struct flip_node *node, const char *ref, const char *dir, struct err *err)
{
	struct node_image *image;
	struct stat st;
	int r;

	if (dir[0] != '/')
		return err_set(err, -EINVAL, "%s: not an absolute path", dir);
	if (stat(dir, &st) < 0)
		return err_set(err, -errno, "%s: %s", dir, strerror(errno));
	if (!S_ISDIR(st.st_mode))
		return err_set(err, -ENOTDIR, "%s: not a folder", dir);
	node_image_forget(node->images, ref); /* a tag may have moved since it was mounted last */
	r = node_image_get(node->images, node->fetch, ref, NULL, &image, err);
	if (r < 0)
		return r;
	r = mount_image(node, image, dir, err);
	node_image_unref(node->images, image);
	return r;
}

int flip_node_unmount(struct flip_node *node, const char *dir, struct err *err)
{
	if (!flip_is_mountpoint(dir))
		return err_set(err, -EINVAL, "%s: nothing is mounted there", dir);
	return flip_unmount(dir, false, err);
}
