/* containerd's snapshots over the store's rows: which chain a snapshot stands on, and how it is mounted.
 *
 * A layer that can be lazy is answered when containerd prepares it: the committed snapshot it is going to be exists
 * then, and Prepare says "already exists", which is the sign to fetch nothing. What cannot be had that way becomes an
 * ordinary snapshot that containerd unpacks into itself. */
#include <errno.h>
#include <ftw.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "base/log.h"
#include "grpc/remote.h"
#include "node/node_internal.h"

enum { MAX_CHAIN = 500 };

/* ---- Chains ------------------------------------------------------------------------------------------------------ */

struct chain { /* uppermost first */
	struct node_lower *items;
	size_t n;
};

static void chain_done(struct chain *c)
{
	for (size_t i = 0; i < c->n; i++)
		node_layer_unref(c->items[i].layer);
	free(c->items);
	*c = (struct chain){ 0 };
}

static void folder_of(const struct flip_node *node, uint64_t id, const char *what, char ret_path[NODE_PATH])
{
	(void)snprintf(ret_path, NODE_PATH, "%.400s/snapshots/%llu%s%s", node->root, (unsigned long long)id,
	               *what ? "/" : "", what);
}

static int chain_add(struct flip_node *node, struct chain *c, const struct flip_snapshot *s, struct err *err)
{
	struct node_lower *p = c->n < MAX_CHAIN ? reallocarray(c->items, c->n + 1, sizeof(*p)) : NULL;
	int r = 0;

	if (!p)
		return err_set(err, -EFBIG, "%s: more than %d snapshots one upon the other", s->name, MAX_CHAIN);
	c->items = p;
	p[c->n] = (struct node_lower){ 0 };
	if (s->layer && *s->layer)
		r = node_layer_known(node, s->layer, &p[c->n].layer, err);
	else
		folder_of(node, s->id, "fs", p[c->n].path);
	if (r == 0)
		c->n++;
	return r;
}

/* The snapshot `name` and all below it. */
static int chain_of(struct flip_node *node, const char *name, struct chain *ret_chain, struct err *err)
{
	char *next = name && *name ? strdup(name) : NULL;
	struct chain c = { 0 };
	int r = name && *name && !next ? err_set(err, -ENOMEM, "out of memory") : 0;

	while (r == 0 && next) {
		struct flip_snapshot s = { 0 };

		r = flip_store_snapshot_get(node->store, next, &s, err);
		if (r == 0 && s.kind != FLIP_SNAPSHOT_COMMITTED)
			r = err_set(err, -EINVAL, "%s: is not committed", next);
		if (r == 0)
			r = chain_add(node, &c, &s, err);
		free(next);
		next = r == 0 && s.parent && *s.parent ? strdup(s.parent) : NULL;
		flip_snapshot_done(&s);
	}
	free(next);
	if (r < 0) {
		chain_done(&c);
		return r;
	}
	*ret_chain = c;
	return 0;
}

static int mounts_of(struct flip_node *node, const struct flip_snapshot *s, const struct chain *c,
                     struct flip_mounts *ret_mounts, struct err *err)
{
	char upper[NODE_PATH], work[NODE_PATH];

	folder_of(node, s->id, "fs", upper);
	folder_of(node, s->id, "work", work);
	return node_compose_mount(node, c->items, c->n, s->kind == FLIP_SNAPSHOT_ACTIVE || !c->n ? upper : NULL, work,
	                          ret_mounts, err);
}

/* ---- Folders ----------------------------------------------------------------------------------------------------- */

static int make_folders(struct flip_node *node, uint64_t id, struct err *err)
{
	static const char *const names[] = { "fs", "work" }; /* in the folder that came with the row */

	for (size_t i = 0; i < sizeof(names) / sizeof(*names); i++) {
		char path[NODE_PATH];

		folder_of(node, id, names[i], path);
		if (mkdir(path, i == 0 ? 0755 : 0700) < 0 && errno != EEXIST)
			return err_set(err, -errno, "%s: %s", path, strerror(errno));
	}
	return 0;
}

/* The root of a mount shows the upper folder's owner and mode: those of what is below it. Only where that fails is it
 * told; a container runs with another root's mode, too. */
static void copy_root(struct flip_node *node, uint64_t id, const struct chain *c)
{
	char path[NODE_PATH];
	struct stat st;
	int r;

	if (!c->n)
		return;
	r = c->items[0].layer ? flip_erofs_stat(c->items[0].layer->meta, flip_erofs_root(c->items[0].layer->meta), &st)
	    : stat(c->items[0].path, &st) < 0 ? -errno
	                                      : 0;
	folder_of(node, id, "fs", path);
	if (r < 0 || chown(path, st.st_uid, st.st_gid) < 0 || chmod(path, st.st_mode & 07777) < 0)
		base_log(BASE_LOG_WARN, "%s: owner and mode of the root: %s", path, strerror(r < 0 ? -r : errno));
}

struct tally {
	uint64_t size, inodes;
};
static _Thread_local struct tally tally; /* nftw passes no argument */

static int count_one(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
	/* A file with several names counts at each of them in part, so that it counts once. */
	uint64_t share = S_ISDIR(st->st_mode) || st->st_nlink < 2 ? 1 : (uint64_t)st->st_nlink;

	if (type == FTW_NS)
		return 0;
	tally.size += (uint64_t)st->st_blocks * 512 / share;
	tally.inodes += share == 1;
	return 0;
}

static struct tally usage_of(struct flip_node *node, const struct flip_snapshot *s)
{
	char path[NODE_PATH];

	folder_of(node, s->id, "fs", path);
	tally = (struct tally){ 0 };
	(void)nftw(path, count_one, 64, FTW_PHYS | FTW_MOUNT);
	return tally;
}

/* ---- Lists and recordings when a container starts ---------------------------------------------------------------- */

/* Lazy layers of a chain, borrowed, uppermost first. */
static size_t lazy_layers(const struct chain *c, struct node_layer *ret_layers[MAX_CHAIN])
{
	size_t n = 0;

	for (size_t i = 0; i < c->n; i++) {
		if (c->items[i].layer && node_layer_can_fetch(c->items[i].layer))
			ret_layers[n++] = c->items[i].layer;
	}
	return n;
}

static void on_start(struct flip_node *node, const struct chain *c)
{
	struct node_layer *layers[MAX_CHAIN];
	size_t n = lazy_layers(c, layers);

	if (!n)
		return;
	atomic_store(&node->last_foreground_ms, base_now_ms());
	node_keeper_wake(node);
	for (size_t i = 0; i < n; i++)
		atomic_store(&layers[i]->is_wanted, true);
	if (atomic_exchange(&layers[0]->is_list_played, true))
		return;
	if (!node_prefetch_image(node, layers[0]->ref, layers, n))
		node_record_start(node, layers[0]->ref, layers, n);
}

static int want_again(const struct flip_snapshot *s, void *arg)
{
	struct flip_node *node = arg;
	struct node_layer *layers[MAX_CHAIN];
	struct chain c = { 0 };
	size_t n;

	if (s->kind == FLIP_SNAPSHOT_COMMITTED || chain_of(node, s->parent, &c, NULL) < 0)
		return 0;
	n = lazy_layers(&c, layers);
	for (size_t i = 0; i < n; i++)
		atomic_store(&layers[i]->is_wanted, true);
	if (n)
		atomic_store(&node->last_foreground_ms, base_now_ms()); /* the keeper looks often */
	chain_done(&c);
	return 0;
}

int node_want_started(struct flip_node *node, struct err *err)
{
	return flip_store_snapshots(node->store, want_again, node, err);
}

/* ---- Remote layers ----------------------------------------------------------------------------------------------- */

/* The image that has the layer: the one kept, or read anew when the tag has moved. */
static int image_with(struct flip_node *node, const char *ref, const char *manifest, const char *digest,
                      struct node_image **ret_image, struct err *err)
{
	struct node_image *image;
	int r;

	for (int attempt = 0; attempt < 2; attempt++) {
		r = node_image_get(node->images, node->fetch, ref, manifest, &image, err);
		if (r < 0)
			return r;
		if (node_image_layer(image, digest)) {
			*ret_image = image;
			return 0;
		}
		node_image_unref(node->images, image);
		node_image_forget(node->images, ref);
	}
	return err_set(err, -ENOENT, "%s: has no layer %s", ref, digest);
}

/* When all layers of the image are known: its list, before the container is even made. */
static void prefetch_whole(struct flip_node *node, const struct node_image *image)
{
	struct node_layer *layers[MAX_CHAIN];
	size_t n = 0;

	for (size_t i = image->doc.n_layers; i-- > 0 && n < MAX_CHAIN;) {
		if (node_layer_known(node, image->doc.layers[i].digest, &layers[n], NULL) == 0)
			n++;
	}
	if (n && n == image->doc.n_layers && !atomic_load(&layers[0]->is_list_played) &&
	    node_prefetch_image(node, image->ref, layers, n))
		atomic_store(&layers[0]->is_list_played, true);
	while (n--)
		node_layer_unref(layers[n]);
}

/* The layer as the committed snapshot `remote->target`: 0 when it is there now. */
static int prepare_remote(struct flip_node *node, const struct flip_remote_labels *remote, const char *parent,
                          const struct flip_label *labels, size_t n_labels, struct err *err)
{
	struct flip_snapshot s = { .kind = FLIP_SNAPSHOT_COMMITTED };
	struct node_layer *layer = NULL;
	struct node_image *image = NULL;
	int r = image_with(node, remote->ref, remote->manifest, remote->layer, &image, err);

	if (r < 0)
		return r;
	/* Those that will be asked for next are begun now. */
	for (size_t i = 0; i < remote->n_layers; i++)
		node_layer_start(node, image, NULL, remote->layers[i]);
	r = node_layer_get(node, image, remote->layer, &layer, err);
	if (r == 0)
		r = node_layer_mount(layer, err);
	if (r == 0) {
		node_prefetch_layer(layer);
		if (strcmp(image->doc.layers[image->doc.n_layers - 1].digest, remote->layer) == 0)
			prefetch_whole(node, image);
		s.name = (char *)remote->target;
		s.parent = (char *)parent;
		s.layer = layer->digest;
		s.labels = (struct flip_label *)labels;
		s.n_labels = n_labels;
		s.created_ns = s.updated_ns = base_wall_ns();
		r = flip_store_snapshot_add(node->store, &s, err);
		if (r == -EEXIST)
			r = 0;
	}
	node_layer_unref(layer);
	node_image_unref(node->images, image);
	return r;
}

/* ---- Operations -------------------------------------------------------------------------------------------------- */

static int create(struct flip_node *node, enum flip_snapshot_kind kind, const char *key, const char *parent,
                  const struct flip_label *labels, size_t n_labels, struct flip_mounts *ret_mounts, struct err *err)
{
	struct flip_snapshot s = { .kind = kind,
		                   .name = (char *)key,
		                   .parent = (char *)parent,
		                   .labels = (struct flip_label *)labels,
		                   .n_labels = n_labels,
		                   .created_ns = base_wall_ns() };
	struct chain c = { 0 };
	int r;

	s.updated_ns = s.created_ns;
	r = chain_of(node, parent, &c, err);
	if (r < 0)
		return r;
	r = flip_store_snapshot_add(node->store, &s, err);
	if (r == 0) {
		r = make_folders(node, s.id, err);
		if (r == 0)
			copy_root(node, s.id, &c);
		if (r == 0)
			r = mounts_of(node, &s, &c, ret_mounts, err);
		if (r < 0) {
			(void)flip_store_snapshot_remove(node->store, key, NULL);
		}
	}
	if (r == 0)
		on_start(node, &c);
	chain_done(&c);
	return r;
}

static int op_prepare(void *arg, const char *key, const char *parent, const struct flip_label *labels, size_t n_labels,
                      struct flip_mounts *ret_mounts, struct err *err)
{
	struct flip_node *node = arg;
	struct flip_remote_labels remote;
	struct flip_snapshot s = { 0 };
	struct err why = { 0 };
	int r = flip_remote_labels_read(labels, n_labels, &remote, err);

	if (r < 0)
		return r;
	if (r == 0)
		return create(node, FLIP_SNAPSHOT_ACTIVE, key, parent, labels, n_labels, ret_mounts, err);
	r = flip_store_snapshot_get(node->store, remote.target, &s, NULL);
	if (r == 0)
		flip_snapshot_done(&s);
	else
		r = prepare_remote(node, &remote, parent, labels, n_labels, &why);
	if (r == 0) {
		r = err_set(err, -EEXIST, "target snapshot \"%s\": already exists", remote.target);
	} else {
		base_log(BASE_LOG_WARN, "%s: %s; containerd fetches and unpacks it itself", remote.target,
		         err_text(&why));
		r = create(node, FLIP_SNAPSHOT_ACTIVE, key, parent, labels, n_labels, ret_mounts, err);
	}
	flip_remote_labels_done(&remote);
	return r;
}

static int op_view(void *arg, const char *key, const char *parent, const struct flip_label *labels, size_t n_labels,
                   struct flip_mounts *ret_mounts, struct err *err)
{
	return create(arg, FLIP_SNAPSHOT_VIEW, key, parent, labels, n_labels, ret_mounts, err);
}

static int op_mounts(void *arg, const char *key, struct flip_mounts *ret_mounts, struct err *err)
{
	struct flip_node *node = arg;
	struct flip_snapshot s = { 0 };
	struct chain c = { 0 };
	int r = flip_store_snapshot_get(node->store, key, &s, err);

	if (r == 0 && s.kind == FLIP_SNAPSHOT_COMMITTED)
		r = err_set(err, -EINVAL, "%s: is committed", key);
	if (r == 0)
		r = chain_of(node, s.parent, &c, err);
	if (r == 0)
		r = mounts_of(node, &s, &c, ret_mounts, err);
	chain_done(&c);
	flip_snapshot_done(&s);
	return r;
}

static int op_commit(void *arg, const char *name, const char *key, const struct flip_label *labels, size_t n_labels,
                     struct err *err)
{
	struct flip_node *node = arg;
	struct flip_snapshot s = { 0 };
	struct tally t;
	int r = flip_store_snapshot_get(node->store, key, &s, err);

	if (r < 0)
		return r;
	t = usage_of(node, &s);
	r = flip_store_snapshot_commit(node->store, key, name, labels, n_labels, t.size, t.inodes, err);
	flip_snapshot_done(&s);
	atomic_store(&node->is_dirty, true);
	return r;
}

static int op_remove(void *arg, const char *key, struct err *err)
{
	struct flip_node *node = arg;

	return flip_store_snapshot_remove(node->store, key, err);
}

static int op_stat(void *arg, const char *key, struct flip_snapshot *ret_snapshot, struct err *err)
{
	struct flip_node *node = arg;

	return flip_store_snapshot_get(node->store, key, ret_snapshot, err);
}

static int op_update(void *arg, const struct flip_snapshot *wanted, const char *const *paths, size_t n_paths,
                     struct flip_snapshot *ret_snapshot, struct err *err)
{
	struct flip_node *node = arg;
	struct flip_snapshot s = { 0 };
	struct flip_label *labels = NULL;
	size_t n = 0;
	int r = flip_store_snapshot_get(node->store, wanted->name, &s, err);

	if (r == 0)
		r = flip_labels_merge(s.labels, s.n_labels, wanted->labels, wanted->n_labels, paths, n_paths, &labels,
		                      &n, err);
	if (r == 0)
		r = flip_store_snapshot_update(node->store, wanted->name, labels, n, err);
	flip_labels_free(labels, n);
	flip_snapshot_done(&s);
	return r < 0 ? r : flip_store_snapshot_get(node->store, wanted->name, ret_snapshot, err);
}

struct listing {
	int (*each)(void *each_arg, const struct flip_snapshot *s);
	void *arg;
};

static int list_one(const struct flip_snapshot *s, void *arg)
{
	struct listing *l = arg;

	if (strncmp(s->name, NODE_MOUNT_PREFIX, strlen(NODE_MOUNT_PREFIX)) == 0 ||
	    strncmp(s->name, NODE_MODEL_PREFIX, strlen(NODE_MODEL_PREFIX)) == 0 ||
	    strncmp(s->name, NODE_NEXT_PREFIX, strlen(NODE_NEXT_PREFIX)) == 0)
		return 0;
	return l->each(l->arg, s);
}

static int op_list(void *arg, int (*each)(void *each_arg, const struct flip_snapshot *s), void *each_arg,
                   struct err *err)
{
	struct flip_node *node = arg;
	struct listing l = { each, each_arg };

	return flip_store_snapshots(node->store, list_one, &l, err);
}

static int op_usage(void *arg, const char *key, uint64_t *ret_size, uint64_t *ret_inodes, struct err *err)
{
	struct flip_node *node = arg;
	struct flip_snapshot s = { 0 };
	int r = flip_store_snapshot_get(node->store, key, &s, err);

	if (r < 0)
		return r;
	*ret_size = s.size;
	*ret_inodes = s.inodes;
	if (s.kind != FLIP_SNAPSHOT_COMMITTED) {
		struct tally t = usage_of(node, &s);

		*ret_size = t.size;
		*ret_inodes = t.inodes;
	}
	flip_snapshot_done(&s);
	return 0;
}

const struct flip_snapshots_ops flip_node_snapshots_ops = {
	.prepare = op_prepare,
	.view = op_view,
	.mounts = op_mounts,
	.commit = op_commit,
	.remove = op_remove,
	.stat = op_stat,
	.update = op_update,
	.list = op_list,
	.usage = op_usage,
	.cleanup = node_cleanup,
};
