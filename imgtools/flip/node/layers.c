/* Layers: known, made ready, mounted.
 *
 * Making ready is done once for each digest, whoever asks; others wait for it. With a table of contents it takes one or
 * two requests; without, all of the layer is pulled and unpacked into the store. Either way the result is an index and
 * a metadata image in the store's folder of the layer. */
#include <errno.h>
#include <malloc.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "base/json.h"
#include "base/log.h"
#include "node/node_internal.h"

struct node_pull {              /* a layer that is being made ready; freed by the last who looks at it */
	struct node_pull *next; /* protected by pulls_lock, as all of it */
	char digest[72];
	unsigned n_refs;
	bool is_over;
	int result;
	struct err err;
	struct node_image *image; /* a reference, for a job of the work threads; NULL: a model of `member` */
	char member[FLIP_PEER_NAME];
	struct flip_node *node;
};

/* ---- Tables ----------------------------------------------------------------------------------------------------- */

void node_layer_unref(struct node_layer *layer)
{
	if (!layer || atomic_fetch_sub(&layer->n_refs, 1) != 1)
		return;
	flip_blob_close(layer->blob);
	for (size_t i = 0; i < layer->n_old_blobs; i++)
		flip_blob_close(layer->old_blobs[i]);
	free(layer->old_blobs);
	flip_model_free(layer->model);
	free(layer->trouble);
	flip_index_close(layer->index);
	flip_erofs_close(layer->meta);
	free(atomic_load(&layer->by_blob));
	node_claims_free(layer);
	free(layer->ref);
	free(layer);
}

/* With the lock held: a reference, or NULL. */
static struct node_layer *in_table(struct flip_node *node, const char *digest)
{
	for (size_t i = 0; i < node->n_layers; i++) {
		struct node_layer *layer = node->layers[i];

		if (layer && strcmp(layer->digest, digest) == 0) {
			atomic_fetch_add(&layer->n_refs, 1);
			return layer;
		}
	}
	return NULL;
}

static struct node_layer *find(struct flip_node *node, const char *digest)
{
	struct node_layer *layer;

	pthread_rwlock_rdlock(&node->layers_lock);
	layer = in_table(node, digest);
	pthread_rwlock_unlock(&node->layers_lock);
	return layer;
}

/* With the lock held for writing. The table takes a reference of its own. */
static int add(struct flip_node *node, struct node_layer *layer)
{
	size_t at = 0;
	int r;

	while (at < node->n_layers && node->layers[at])
		at++;
	if (at == node->cap_layers) {
		size_t cap = node->cap_layers ? node->cap_layers * 2 : 64;
		struct node_layer **p = cap <= NODE_MAX_LAYERS ? reallocarray(node->layers, cap, sizeof(*p)) : NULL;

		if (!p)
			return -ENOMEM;
		node->layers = p;
		node->cap_layers = cap;
	}
	node->layers[at] = layer;
	if (at == node->n_layers)
		node->n_layers++;
	r = node_objects_add(node, (uint32_t)at);
	if (r < 0) {
		node->layers[at] = NULL;
		return r;
	}
	flip_index_cool(layer->index);
	atomic_fetch_add(&layer->n_refs, 1);
	return 0;
}

/* A number for the layer that no other one of this store had or will have. */
static int layer_id(struct flip_node *node, const char *digest, uint32_t *ret_id, struct err *err)
{
	uint32_t next = 1, *p;
	size_t size;
	int r;

	if (flip_store_note_get(node->store, "layer-id", digest, (void **)&p, &size, NULL) == 0) {
		if (size == sizeof(*p))
			*ret_id = *p;
		free(p);
		if (size == sizeof(*p))
			return 0;
	}
	if (flip_store_note_get(node->store, "layer-id", "next", (void **)&p, &size, NULL) == 0) {
		next = size == sizeof(*p) ? *p : 0;
		free(p);
	}
	if (next == 0 || next >= 1u << 24)
		return err_set(err, -ENOSPC, "%s: no more numbers for layers", node->root);
	*ret_id = next++;
	r = flip_store_note_set(node->store, "layer-id", "next", &next, sizeof(next), err);
	return r < 0 ? r : flip_store_note_set(node->store, "layer-id", digest, ret_id, sizeof(*ret_id), err);
}

static int open_files(struct flip_node *node, struct node_layer *layer, const struct flip_layer_row *row,
                      struct err *err)
{
	struct flip_blob *blob;
	char path[NODE_PATH + 32];
	int r;

	(void)snprintf(path, sizeof(path), "%s/index", layer->dir);
	r = flip_index_open(path, &layer->index, err);
	if (r < 0)
		return r;
	(void)snprintf(path, sizeof(path), "%s/image.erofs", layer->dir);
	r = flip_erofs_open(path, &layer->meta, err);
	if (r < 0)
		return r;
	if (strcmp(flip_index_blob(layer->index), row->digest) != 0)
		return err_set(err, -EBADMSG, "%s: the index is of another layer, %s", layer->dir,
		               flip_index_blob(layer->index));
	if (row->media_type && strcmp(row->media_type, FLIP_MODEL_TYPE) == 0)
		return node_model_open(layer, row, err);
	if (row->kind != FLIP_LAYER_LAZY || flip_index_format(layer->index) == FLIP_PLAIN)
		return 0;
	if (!row->ref)
		return err_set(err, -EINVAL, "%s: no reference to fetch it by", row->digest);
	r = flip_blob_open(node->fetch, row->ref, row->digest, row->blob_size, &blob, err);
	if (r == 0)
		layer->blob = blob;
	return r;
}

int node_layer_load(struct flip_node *node, const char *digest, struct node_layer **ret_layer, struct err *err)
{
	struct flip_layer_row row = { 0 };
	struct node_layer *layer = calloc(1, sizeof(*layer)), *other = NULL;
	int r;

	if (!layer)
		return err_set(err, -ENOMEM, "out of memory");
	layer->node = node;
	atomic_init(&layer->n_refs, 1);
	r = flip_store_layer_get(node->store, digest, &row, layer->dir, sizeof(layer->dir), err);
	if (r < 0)
		goto out;
	(void)snprintf(layer->digest, sizeof(layer->digest), "%s", row.digest);
	r = open_files(node, layer, &row, err);
	if (r < 0)
		goto out;
	layer->ref = row.ref;
	row.ref = NULL;
	if (node->peers)
		node_claims_load(layer);
	pthread_rwlock_wrlock(&node->layers_lock);
	other = in_table(node, digest);
	if (!other)
		r = layer_id(node, digest, &layer->id, err);
	if (r == 0 && !other)
		r = add(node, layer);
	pthread_rwlock_unlock(&node->layers_lock);
	if (r < 0)
		goto out;
	*ret_layer = other ? other : layer;
	if (!other)
		layer = NULL;
out:
	flip_layer_row_done(&row);
	node_layer_unref(layer);
	return r;
}

int node_layer_known(struct flip_node *node, const char *digest, struct node_layer **ret_layer, struct err *err)
{
	struct node_layer *layer = find(node, digest);

	if (!layer)
		return node_layer_load(node, digest, ret_layer, err);
	*ret_layer = layer;
	return 0;
}

/* ---- Making ready ----------------------------------------------------------------------------------------------- */

static char *annotations_json(const struct img_descriptor *d)
{
	json_t *o = json_object();
	char *text;

	for (size_t i = 0; o && i < d->n_annotations; i++)
		(void)json_object_set_new(o, d->names[i], json_string(d->values[i]));
	text = o ? json_dumps(o, JSON_COMPACT | JSON_SORT_KEYS) : NULL;
	json_decref(o);
	return text;
}

/* Index and metadata image into `dir`: from the table of contents, or by unpacking all of it. */
static int fill_folder(struct flip_node *node, const struct node_image *image, const struct img_descriptor *d,
                       const char *dir, enum flip_layer_kind *ret_kind, struct err *err)
{
	struct node_tail *tail = NULL;
	struct flip_toc *toc = NULL;
	struct flip_blob *blob;
	int r = flip_blob_open(node->fetch, image->ref, d->digest, d->size, &blob, err);

	if (r < 0)
		return r;
	r = node_table_read(node, image, d, blob, &tail, &toc, err);
	if (r == 0 && node_table_can_be_lazy(toc)) {
		*ret_kind = FLIP_LAYER_LAZY;
		r = node_write_layer(toc, d->digest, d->size, dir, err);
		if (r == 0 && node->peers)
			r = node_tail_write(tail, dir, err);
	} else if (r == 0) {
		*ret_kind = FLIP_LAYER_UNPACKED;
		r = node_unpack(node, image, d, blob, dir, err);
	}
	flip_toc_free(toc);
	node_tail_free(tail);
	flip_blob_close(blob);
	return r;
}

static void note_image(struct flip_node *node, const struct node_image *image, const char *digest)
{
	char *text;

	if (asprintf(&text, "%s %s", image->ref, image->manifest) < 0)
		return;
	node_claim_note(node, digest, text, "");
	free(text);
}

static int make_ready(struct flip_node *node, const struct node_image *image, const char *digest, struct err *err)
{
	const struct img_descriptor *d = node_image_layer(image, digest);
	struct flip_layer_row row = { .kind = FLIP_LAYER_LAZY };
	char dir[NODE_PATH];
	int64_t start = base_now_ms();
	int r;

	if (!d)
		return err_set(err, -ENOENT, "%s: has no layer %s", image->ref, digest);
	r = flip_store_layer_begin(node->store, digest, dir, sizeof(dir), err);
	if (r < 0)
		return r;
	r = fill_folder(node, image, d, dir, &row.kind, err);
	if (r < 0) {
		flip_store_layer_abort(node->store, dir);
		return err_prefix(err, r, "%s: ", image->ref);
	}
	memcpy(row.digest, d->digest, sizeof(row.digest));
	row.blob_size = d->size;
	row.ref = image->ref;
	row.media_type = d->media_type;
	row.annotations = annotations_json(d);
	if (node->peers)
		note_image(node, image, d->digest);
	r = flip_store_layer_commit(node->store, dir, &row, err);
	free(row.annotations);
	if (r == 0)
		base_log_with(BASE_LOG_INFO, NODE_FIELDS(image->ref, digest), "%s: layer %s is ready (%s, %lld ms)",
		              image->ref, digest, row.kind == FLIP_LAYER_LAZY ? "lazy" : "unpacked",
		              (long long)(base_now_ms() - start));
	return r;
}

/* With pulls_lock held. */
static void pull_unref(struct node_pull *p)
{
	if (--p->n_refs == 0)
		free(p);
}

static void pull_job(void *arg)
{
	struct node_pull *p = arg;
	struct flip_node *node = p->node;
	struct err err = { 0 };
	struct node_layer *layer = NULL;
	struct node_image *image;
	char *digest;
	bool is_model = !p->image || node_model_is_of(p->image, p->digest);
	int r = !p->image  ? node_model_adopt_held(node, p->member, p->digest, &err)
	        : is_model ? node_model_adopt(node, p->image, p->digest, &err)
	                   : make_ready(node, p->image, p->digest, &err);

	(void)malloc_trim(
	        0); /* a table of contents, as a document and as a tree, is most of what this process ever needs */
	if (r == 0)
		r = node_layer_known(node, p->digest, &layer, &err);
	if (r == 0 && !is_model) {
		node_claim_add(layer, p->image->ref, p->image->manifest);
		r = node_settle_contested(layer, &err);
	}
	node_layer_unref(layer);
	pthread_mutex_lock(&node->pulls_lock);
	for (struct node_pull **q = &node->pulls; *q; q = &(*q)->next) {
		if (*q == p) {
			*q = p->next;
			break;
		}
	}
	p->is_over = true;
	p->result = r;
	p->err = err;
	image = p->image;
	digest = strdup(p->digest);
	pthread_cond_broadcast(&node->pulls_changed);
	pull_unref(p);
	pthread_mutex_unlock(&node->pulls_lock);
	if (r == 0 && digest && image) /* for peers who ask later; nobody waits for it */
		node_note_public(node, image->ref, is_model ? image->manifest : digest, is_model);
	if (r == 0 && image && !is_model && node->peers)
		node_keep_config(node, image);
	free(digest);
	node_image_unref(node->images, image);
}

/* With pulls_lock held: the work on this layer, begun when nobody has; a reference. */
static int pull_of(struct flip_node *node, const struct node_image *image, const char *member, const char *digest,
                   struct node_pull **ret_pull)
{
	struct node_pull *p = node->pulls;

	while (p && strcmp(p->digest, digest) != 0)
		p = p->next;
	if (!p) {
		p = calloc(1, sizeof(*p));
		if (!p)
			return -ENOMEM;
		(void)snprintf(p->digest, sizeof(p->digest), "%s", digest);
		(void)snprintf(p->member, sizeof(p->member), "%s", member ? member : "");
		p->node = node;
		if ((image && node_image_ref(node->images, image, &p->image) < 0) ||
		    flip_work_add(node->pullers, pull_job, p, false) < 0) {
			node_image_unref(node->images, p->image);
			free(p);
			return -ENOMEM;
		}
		p->n_refs = 1;
		p->next = node->pulls;
		node->pulls = p;
	}
	p->n_refs++;
	*ret_pull = p;
	return 0;
}

static bool is_known(struct flip_node *node, const char *digest)
{
	struct node_layer *layer;

	if (node_layer_known(node, digest, &layer, NULL) < 0)
		return false;
	node_layer_unref(layer);
	return true;
}

/* It may be in the tables already and not be settled yet. */
static bool is_being_pulled(struct flip_node *node, const char *digest)
{
	struct node_pull *p;

	pthread_mutex_lock(&node->pulls_lock);
	for (p = node->pulls; p && strcmp(p->digest, digest) != 0; p = p->next)
		;
	pthread_mutex_unlock(&node->pulls_lock);
	return p != NULL;
}

int node_layer_get(struct flip_node *node, const struct node_image *image, const char *digest,
                   struct node_layer **ret_layer, struct err *err)
{
	struct node_pull *p;
	int r;

	if (!is_being_pulled(node, digest) && node_layer_known(node, digest, ret_layer, NULL) == 0) {
		(void)flip_store_layer_touch(node->store, digest, image->ref, NULL); /* only gc asks when */
		node_claim_add(*ret_layer, image->ref, image->manifest);
		return 0;
	}
	pthread_mutex_lock(&node->pulls_lock);
	r = pull_of(node, image, NULL, digest, &p);
	if (r == 0) {
		while (!p->is_over)
			pthread_cond_wait(&node->pulls_changed, &node->pulls_lock);
		r = p->result;
		if (r < 0 && err)
			*err = p->err;
		pull_unref(p);
	}
	pthread_mutex_unlock(&node->pulls_lock);
	return r < 0 ? r : node_layer_known(node, digest, ret_layer, err);
}

int node_layer_wait(struct flip_node *node, const char *digest, unsigned max_ms, struct node_layer **ret_layer,
                    struct err *err)
{
	struct timespec until;
	bool is_waiting = true, is_late = false;

	(void)clock_gettime(CLOCK_REALTIME, &until);
	until.tv_sec += max_ms / 1000;
	until.tv_nsec += (long)(max_ms % 1000) * 1000000;
	until.tv_sec += until.tv_nsec / 1000000000;
	until.tv_nsec %= 1000000000;
	pthread_mutex_lock(&node->pulls_lock);
	while (is_waiting && !is_late) {
		struct node_pull *p = node->pulls;

		while (p && strcmp(p->digest, digest) != 0)
			p = p->next;
		is_waiting = p != NULL;
		if (is_waiting)
			is_late = pthread_cond_timedwait(&node->pulls_changed, &node->pulls_lock, &until) == ETIMEDOUT;
	}
	pthread_mutex_unlock(&node->pulls_lock);
	if (is_waiting)
		return err_set(err, -EBUSY, "%.19s: is being made ready", digest);
	return node_layer_known(node, digest, ret_layer, NULL) == 0
	               ? 0
	               : err_set(err, -ENOENT, "%.19s: cannot be made ready here", digest);
}

void node_layer_start(struct flip_node *node, const struct node_image *image, const char *member, const char *digest)
{
	struct node_pull *p;

	if ((image && !node_image_layer(image, digest) && !node_model_is_of(image, digest)) || is_known(node, digest))
		return;
	pthread_mutex_lock(&node->pulls_lock);
	if (pull_of(node, image, member, digest, &p) == 0)
		pull_unref(p);
	pthread_mutex_unlock(&node->pulls_lock);
}

/* ---- Mounts ------------------------------------------------------------------------------------------------------ */

void node_layer_lower(const struct node_layer *layer, char *ret_path, size_t size)
{
	if (layer->node->use_erofs)
		(void)snprintf(ret_path, size, "%s/m/%u", layer->node->root, layer->id);
	else
		(void)snprintf(ret_path, size, "%s/layers/%s", layer->node->fuse_dir,
		               layer->digest + strlen("sha256:"));
}

int node_layer_mount(struct node_layer *layer, struct err *err)
{
	struct flip_node *node = layer->node;
	char dir[NODE_PATH + 32], image[NODE_PATH + 32];
	int r = 0;

	if (!node->use_erofs || atomic_load(&layer->is_mounted))
		return 0;
	node_layer_lower(layer, dir, sizeof(dir));
	(void)snprintf(image, sizeof(image), "%s/image.erofs", layer->dir);
	if (mkdir(dir, 0700) < 0 && errno != EEXIST)
		return err_set(err, -errno, "%s: %s", dir, strerror(errno));
	pthread_mutex_lock(&node->pulls_lock);
	if (!atomic_load(&layer->is_mounted) && !flip_is_mountpoint(dir))
		r = flip_erofs_mount(image, dir, &node->kernel, err);
	if (r == 0)
		atomic_store(&layer->is_mounted, true);
	pthread_mutex_unlock(&node->pulls_lock);
	return r;
}

static void unmount(struct node_layer *layer)
{
	char dir[NODE_PATH + 32];

	if (!layer->node->use_erofs)
		return;
	node_layer_lower(layer, dir, sizeof(dir));
	if (flip_unmount(dir, true, NULL) == 0)
		(void)rmdir(dir);
}

void node_layers_free(struct flip_node *node)
{
	for (size_t i = 0; i < node->n_layers; i++)
		node_layer_unref(node->layers[i]);
	free(node->layers);
	free(node->slots);
	node->layers = NULL;
	node->slots = NULL;
	node->n_layers = node->n_slots = 0;
}

int node_layers_drop_removed(struct flip_node *node, struct err *err)
{
	struct node_layer **gone = calloc(node->n_layers + 1, sizeof(*gone));
	size_t n = 0, cap = node->n_layers;
	int r;

	if (!gone)
		return err_set(err, -ENOMEM, "out of memory");
	pthread_rwlock_wrlock(&node->layers_lock);
	for (size_t i = 0; i < node->n_layers && n < cap; i++) {
		struct node_layer *layer = node->layers[i];
		struct flip_layer_row row = { 0 };
		char dir[NODE_PATH];

		if (!layer ||
		    flip_store_layer_get(node->store, layer->digest, &row, dir, sizeof(dir), NULL) != -ENOENT) {
			flip_layer_row_done(&row);
			continue;
		}
		node->layers[i] = NULL;
		gone[n++] = layer;
	}
	r = n ? node_objects_rebuild(node) : 0;
	pthread_rwlock_unlock(&node->layers_lock);
	for (size_t i = 0; i < n; i++) {
		atomic_store(&gone[i]->is_wanted, false); /* nor is the rest of it */
		node_queue_drop(gone[i]);
		if (node->fs)
			flip_fs_forget_layer(node->fs, gone[i]->id);
		unmount(gone[i]);
		node_layer_unref(gone[i]);
	}
	free(gone);
	return r < 0 ? err_set(err, r, "out of memory") : 0;
}
