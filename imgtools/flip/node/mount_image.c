/* Images mounted for people and scripts: the same layers, one read-only overlay at a folder of theirs. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "node/node_internal.h"

/* All layers of the image, uppermost first; those that are made ready anew go side by side. */
static int lowers_of(struct flip_node *node, const struct node_image *image, struct node_lower *ret_lowers,
                     struct node_layer **ret_layers, struct err *err)
{
	for (size_t i = 0; i < image->doc.n_layers; i++)
		node_layer_start(node, image, NULL, image->doc.layers[i].digest);
	for (size_t i = 0; i < image->doc.n_layers; i++) {
		size_t at = image->doc.n_layers - 1 - i;
		int r = node_layer_get(node, image, image->doc.layers[i].digest, &ret_lowers[at].layer, err);

		if (r < 0)
			return r;
		ret_layers[at] = ret_lowers[at].layer;
	}
	return 0;
}

/* ---- What keeps the layers ---------------------------------------------------------------------------------------
 *
 * Garbage collection keeps what snapshots use; a mount of ours has none of containerd's. So each layer of it gets a row
 * of our own, named by the folder, which containerd is not shown. */

static void row_name(char ret_name[NODE_PATH + 64], const char *dir, size_t i)
{
	(void)snprintf(ret_name, NODE_PATH + 64, NODE_MOUNT_PREFIX "%zu/%.500s", i, dir);
}

static int hold_layers(struct flip_node *node, const struct node_lower *lowers, size_t n, const char *dir,
                       struct err *err)
{
	int r = 0;

	for (size_t i = 0; r == 0 && i < n; i++) {
		char name[NODE_PATH + 64];
		struct flip_snapshot s = { .kind = FLIP_SNAPSHOT_COMMITTED,
			                   .name = name,
			                   .layer = lowers[i].layer->digest };

		row_name(name, dir, i);
		r = flip_store_snapshot_add(node->store, &s, err);
		if (r == -EEXIST) { /* of a mount that ended without us */
			(void)flip_store_snapshot_remove(node->store, name, NULL);
			r = flip_store_snapshot_add(node->store, &s, err);
		}
	}
	return r;
}

static void let_layers_go(struct flip_node *node, const char *dir)
{
	char name[NODE_PATH + 64];

	for (size_t i = 0; i < NODE_MAX_MOUNTED; i++) {
		row_name(name, dir, i);
		if (flip_store_snapshot_remove(node->store, name, NULL) == -ENOENT)
			break;
	}
}

bool node_mount_shows(struct flip_node *node, const char *dir, const char *digest)
{
	struct flip_snapshot s = { 0 };
	char name[NODE_PATH + 64];
	bool is;

	row_name(name, dir, 0);
	if (flip_store_snapshot_get(node->store, name, &s, NULL) < 0)
		return false;
	is = s.layer && strcmp(s.layer, digest) == 0;
	flip_snapshot_done(&s);
	return is;
}

int node_mount_end(struct flip_node *node, const char *dir, struct err *err)
{
	int r = flip_unmount(dir, true, err);

	if (r == 0)
		let_layers_go(node, dir);
	return r;
}

struct ended { /* folders that are mount points no more */
	char **dirs;
	size_t n;
};

static int note_ended(const struct flip_snapshot *s, void *arg)
{
	struct ended *e = arg;
	const char *dir;
	char **p;

	if (strncmp(s->name, NODE_MOUNT_PREFIX "0/", strlen(NODE_MOUNT_PREFIX "0/")) != 0)
		return 0;
	dir = s->name + strlen(NODE_MOUNT_PREFIX "0/");
	if (flip_is_mountpoint(dir))
		return 0;
	p = reallocarray(e->dirs, e->n + 1, sizeof(*p));
	if (!p)
		return -ENOMEM;
	e->dirs = p;
	p[e->n] = strdup(dir);
	return p[e->n++] ? 0 : -ENOMEM;
}

void node_forget_ended_mounts(struct flip_node *node)
{
	struct ended e = { 0 };

	(void)flip_store_snapshots(node->store, note_ended, &e, NULL);
	for (size_t i = 0; i < e.n; i++) {
		if (e.dirs[i])
			let_layers_go(node, e.dirs[i]);
		free(e.dirs[i]);
	}
	free(e.dirs);
}

int node_mount_layers(struct flip_node *node, const struct node_lower *lowers, size_t n, const char *dir,
                      struct err *err)
{
	struct flip_mounts mounts = { 0 };
	int r = node_compose_mount(node, lowers, n, NULL, NULL, &mounts, err);

	if (r == 0)
		r = hold_layers(node, lowers, n, dir, err);
	if (r == 0)
		r = node_do_mount(&mounts, dir, err);
	if (r < 0)
		let_layers_go(node, dir);
	flip_mounts_done(&mounts);
	return r;
}

static int mount_image(struct flip_node *node, const struct node_image *image, const char *dir, struct err *err)
{
	struct node_lower *lowers = calloc(image->doc.n_layers + 1, sizeof(*lowers));
	struct node_layer **layers = calloc(image->doc.n_layers + 1, sizeof(*layers));
	int r = lowers && layers ? 0 : err_set(err, -ENOMEM, "out of memory");

	if (r == 0 && (!image->doc.n_layers || image->doc.n_layers > NODE_MAX_MOUNTED))
		r = err_set(err, -EINVAL, "%s: has %zu layers", image->ref, image->doc.n_layers);
	if (r == 0)
		r = lowers_of(node, image, lowers, layers, err);
	if (r == 0)
		r = node_mount_layers(node, lowers, image->doc.n_layers, dir, err);
	for (size_t i = 0; r == 0 && i < image->doc.n_layers; i++)
		node_prefetch_layer(layers[i]);
	if (r == 0 && !node_prefetch_image(node, image->ref, layers, image->doc.n_layers))
		node_record_start(node, image->ref, layers, image->doc.n_layers);
	for (size_t i = 0; lowers && i < image->doc.n_layers; i++)
		node_layer_unref(lowers[i].layer);
	free(lowers);
	free(layers);
	return r;
}

int node_mount_check(const char *dir, struct err *err)
{
	struct stat st;

	if (dir[0] != '/' || strlen(dir) > 400)
		return err_set(err, -EINVAL, "%s: not an absolute path, or too long", dir);
	if (flip_is_mountpoint(dir))
		return err_set(err, -EBUSY, "%s: something is mounted there", dir);
	if (stat(dir, &st) < 0)
		return err_set(err, -errno, "%s: %s", dir, strerror(errno));
	if (!S_ISDIR(st.st_mode))
		return err_set(err, -ENOTDIR, "%s: not a folder", dir);
	return 0;
}

int flip_node_mount(struct flip_node *node, const char *ref, const char *dir, struct err *err)
{
	struct node_image *image;
	int r = node_mount_check(dir, err);

	if (r < 0)
		return r;
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
	int r;

	if (!flip_is_mountpoint(dir))
		return err_set(err, -EINVAL, "%s: nothing is mounted there", dir);
	r = flip_unmount(dir, false, err);
	if (r == 0 && !flip_is_mountpoint(dir))
		let_layers_go(node, dir);
	return r;
}

/* ---- Before anybody starts it ---- */

int flip_node_preheat(struct flip_node *node, const char *ref, struct err *err)
{
	struct node_image *image;
	size_t n = 0;
	int r = node_image_get(node->images, node->fetch, ref, NULL, &image, err);

	if (r < 0)
		return r;
	node_queue_resume(node);
	for (size_t i = 0; i < image->doc.n_layers; i++) {
		struct node_layer *layer;

		if (node_layer_known(node, image->doc.layers[i].digest, &layer, NULL) < 0)
			continue;
		n++;
		if (node_layer_can_fetch(layer) && !atomic_load(&layer->is_rest_queued)) {
			atomic_store(&layer->is_wanted, true);
			atomic_store(&layer->is_preheated, true);
			atomic_store(&layer->is_rest_queued, true);
			node_queue_rest(layer, FLIP_PREHEAT);
		}
		node_layer_unref(layer);
	}
	node_image_unref(node->images, image);
	node_keeper_wake(node);
	return n ? 0 : err_set(err, -ENOENT, "%s: is not known here (flip pull)", ref);
}
