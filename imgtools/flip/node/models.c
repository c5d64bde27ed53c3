/* Models by name. A name is a row in the store that keeps the model's layer (several where an artifact has archives),
 * as a mount's rows keep its layers; so garbage collection needs to know nothing of models.
 *
 * A new version is written down under another prefix first. It takes the name at once when there is none of it, or one
 * that is not complete; else when it is complete itself: whoever opens the model meanwhile gets the old one, whole. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/json.h"
#include "base/log.h"
#include "base/mapfile.h"
#include "base/sha256.h"
#include "node/node_internal.h"

#define DEFAULT_DIR "/run/flip/models"
enum { MAX_LAYERS = 64, ID_SIZE = 72 };

/* The layers of one version, uppermost first, as references. */
struct version {
	struct node_layer *layers[MAX_LAYERS];
	size_t n;
	char *source;
	bool preheat; /* nobody waits for it */
};

static void version_done(struct version *v)
{
	for (size_t i = 0; i < v->n; i++)
		node_layer_unref(v->layers[i]);
	free(v->source);
	*v = (struct version){ 0 };
}

/* ---- Rows ---- */

static void row_name(char ret_name[256], const char *prefix, const char *name, size_t i)
{
	(void)snprintf(ret_name, 256, "%s%zu/%s", prefix, i, name);
}

/* -ENOENT: no such model. A layer that cannot be opened makes the whole unusable. */
static int version_get(struct flip_node *node, const char *prefix, const char *name, struct version *ret,
                       struct err *err)
{
	struct version v = { 0 };
	int r = 0;

	while (r == 0 && v.n < MAX_LAYERS) {
		struct flip_snapshot s = { 0 };
		char row[256];

		row_name(row, prefix, name, v.n);
		r = flip_store_snapshot_get(node->store, row, &s, err);
		if (r < 0)
			break;
		for (size_t i = 0; v.n == 0 && i < s.n_labels; i++) {
			if (strcmp(s.labels[i].name, "source") == 0)
				v.source = strdup(s.labels[i].value);
			else if (strcmp(s.labels[i].name, "preheat") == 0)
				v.preheat = true;
		}
		r = node_layer_known(node, s.layer ? s.layer : "", &v.layers[v.n], err);
		if (r == 0)
			v.n++;
		else if (r == -ENOENT)
			r = err_set(err, -EIO, "model %s: its layer %s is gone", name, s.layer ? s.layer : "");
		flip_snapshot_done(&s);
	}
	if (r == -ENOENT && v.n)
		r = 0;
	if (r == -ENOENT)
		(void)err_set(err, r, "there is no model %s here (flip model pull SOURCE %s)", name, name);
	if (r < 0) {
		version_done(&v);
		return r;
	}
	*ret = v;
	return 0;
}

static void rows_remove(struct flip_node *node, const char *prefix, const char *name)
{
	for (size_t i = 0; i < MAX_LAYERS; i++) {
		char row[256];

		row_name(row, prefix, name, i);
		if (flip_store_snapshot_remove(node->store, row, NULL) == -ENOENT)
			break;
	}
}

static int rows_set(struct flip_node *node, const char *prefix, const char *name, const struct version *v,
                    struct err *err)
{
	int r = 0;

	rows_remove(node, prefix, name);
	for (size_t i = v->n; r == 0 && i-- > 0;) { /* the first one last: without it there is no model */
		struct flip_label labels[] = { { (char *)"source", v->source }, { (char *)"preheat", (char *)"1" } };
		char row[256];
		struct flip_snapshot s = { .kind = FLIP_SNAPSHOT_COMMITTED,
			                   .name = row,
			                   .layer = v->layers[i]->digest,
			                   .labels = labels,
			                   .n_labels = v->preheat ? 2 : 1 };

		row_name(row, prefix, name, i);
		r = flip_store_snapshot_add(node->store, &s, err);
		if (r == -EEXIST) /* left by a kill between the rows */
			r = flip_store_snapshot_remove(node->store, row, err) < 0
			            ? -EEXIST
			            : flip_store_snapshot_add(node->store, &s, err);
	}
	return r;
}

/* Names with a first row of this prefix. */
struct names {
	const char *prefix;
	char (*items)[FLIP_MODEL_NAME_MAX + 1];
	size_t n;
};

static int note_name(const struct flip_snapshot *s, void *arg)
{
	struct names *names = arg;
	char start[64];
	size_t len = (size_t)snprintf(start, sizeof(start), "%s0/", names->prefix);
	void *p;

	if (strncmp(s->name, start, len) != 0 || strlen(s->name + len) > FLIP_MODEL_NAME_MAX)
		return 0;
	p = reallocarray(names->items, names->n + 1, sizeof(*names->items));
	if (!p)
		return -ENOMEM;
	names->items = p;
	(void)snprintf(names->items[names->n++], sizeof(*names->items), "%s", s->name + len);
	return 0;
}

static int names_get(struct flip_node *node, const char *prefix, struct names *ret, struct err *err)
{
	*ret = (struct names){ .prefix = prefix };
	return flip_store_snapshots(node->store, note_name, ret, err);
}

/* ---- How much of it is there ---- */

static uint64_t bytes_here(struct node_layer *layer, const struct flip_index_object *o)
{
	struct flip_node *node = layer->node;
	struct flip_object *object;
	uint64_t at = 0, missing, n, here = o->size;

	if (flip_store_has(node->store, o->digest, NULL))
		return o->size;
	if (node_object_open(layer, o, &object, NULL) < 0)
		return 0;
	while (flip_object_next_missing(object, at, &missing, &n) > 0) {
		here -= n;
		at = missing + n;
	}
	/* All of it may be there and have another digest than it should: then it is not. */
	if (here == o->size && !flip_object_is_complete(object))
		here = o->size - 1;
	flip_object_unref(object);
	return here;
}

void node_layer_here(struct node_layer *layer, uint64_t *ret_here, uint64_t *ret_size)
{
	*ret_here = *ret_size = 0;
	for (size_t i = 0; i < flip_index_n_objects(layer->index); i++) {
		const struct flip_index_object *o = flip_index_object(layer->index, i);

		*ret_here += bytes_here(layer, o);
		*ret_size += o->size;
	}
}

static bool is_complete(const struct version *v)
{
	for (size_t i = 0; i < v->n; i++) {
		const struct node_layer *l = v->layers[i];

		for (size_t k = 0; k < flip_index_n_objects(l->index); k++) {
			if (!flip_store_has(l->node->store, flip_index_object(l->index, k)->digest, NULL))
				return false;
		}
	}
	return true;
}

/* What a version is told apart by: its layer's digest, or one of all its layers' digests. */
static void id_of(const struct version *v, char ret_id[ID_SIZE])
{
	struct base_sha256 *sum = NULL;
	uint8_t digest[BASE_SHA256_SIZE];

	(void)snprintf(ret_id, ID_SIZE, "%s", v->n ? v->layers[0]->digest : "");
	if (v->n < 2 || base_sha256_new(&sum) < 0)
		return;
	for (size_t i = 0; i < v->n; i++)
		base_sha256_update(sum, v->layers[i]->digest, strlen(v->layers[i]->digest));
	base_sha256_final(sum, digest);
	base_sha256_free(sum);
	base_sha256_hex(digest, ret_id + strlen("sha256:"));
}

static bool is_same(const struct version *a, const struct version *b)
{
	char x[ID_SIZE], y[ID_SIZE];

	id_of(a, x);
	id_of(b, y);
	return strcmp(x, y) == 0;
}

/* ---- Fetching ---- */

static void fetch_rest(struct flip_node *node, const struct version *v, enum flip_priority priority)
{
	node_queue_resume(node);
	/* Where archives were unpacked over it the model itself lies lowest, and is what is fetched lazily. */
	for (size_t i = v->n; i-- > 0;) {
		struct node_layer *l = v->layers[i];

		if (!node_layer_can_fetch(l))
			continue;
		atomic_store(&l->is_wanted, true);
		atomic_store(&l->is_preheated, priority == FLIP_PREHEAT);
		atomic_store(&l->is_rest_queued, true);
		atomic_store(&l->has_failed, false);
		node_queue_rest(l, priority);
	}
	atomic_store(&node->is_dirty, true);
	node_keeper_wake(node);
}

/* Layers that no model names any more are not fetched on. With models_lock. */
static void fetch_no_more(struct flip_node *node, const struct version *gone)
{
	static const char *const prefixes[] = { NODE_MODEL_PREFIX, NODE_NEXT_PREFIX };

	for (size_t i = 0; i < gone->n; i++)
		atomic_store(&gone->layers[i]->is_wanted, false);
	for (size_t p = 0; p < 2; p++) {
		struct names names;

		if (names_get(node, prefixes[p], &names, NULL) < 0)
			names.n = 0;
		for (size_t k = 0; k < names.n; k++) {
			struct version v;

			if (version_get(node, prefixes[p], names.items[k], &v, NULL) < 0)
				continue;
			for (size_t i = 0; i < v.n; i++) {
				if (node_layer_can_fetch(v.layers[i]))
					atomic_store(&v.layers[i]->is_wanted, true);
			}
			version_done(&v);
		}
		free(names.items);
	}
	for (size_t i = 0; i < gone->n; i++) {
		if (!atomic_load(&gone->layers[i]->is_wanted))
			node_queue_drop(gone->layers[i]);
	}
}

/* ---- Names ---- */

/* The new version takes the name. With models_lock. */
static int promote(struct flip_node *node, const char *name, const struct version *next, struct err *err)
{
	struct version old = { 0 };
	bool had = version_get(node, NODE_MODEL_PREFIX, name, &old, NULL) == 0;
	int r = rows_set(node, NODE_MODEL_PREFIX, name, next, err);

	if (r == 0)
		rows_remove(node, NODE_NEXT_PREFIX, name);
	if (had && r == 0 && !is_same(&old, next))
		fetch_no_more(node, &old);
	version_done(&old);
	return r;
}

void node_models_settle(struct flip_node *node)
{
	struct names names;

	if (!atomic_load(&node->has_next_models))
		return;
	pthread_mutex_lock(&node->models_lock);
	if (names_get(node, NODE_NEXT_PREFIX, &names, NULL) < 0)
		names.n = 0;
	atomic_store(&node->has_next_models, names.n > 0);
	for (size_t i = 0; i < names.n; i++) {
		struct version next, now;
		struct err err = { 0 };
		int r = version_get(node, NODE_NEXT_PREFIX, names.items[i], &next, &err);

		if (r < 0) {
			base_log(BASE_LOG_WARN, "model %s: %s", names.items[i], err_text(&err));
			continue;
		}
		r = version_get(node, NODE_MODEL_PREFIX, names.items[i], &now, NULL);
		if (r == 0)
			version_done(&now);
		if (r < 0 || is_complete(&next)) {
			r = promote(node, names.items[i], &next, &err);
			base_log(r < 0 ? BASE_LOG_WARN : BASE_LOG_INFO, "model %s: %s", names.items[i],
			         r < 0 ? err_text(&err) : "the new version has taken the place of the old");
		}
		version_done(&next);
	}
	free(names.items);
	pthread_mutex_unlock(&node->models_lock);
}

int node_model_by_name(struct flip_node *node, const char *name_digest, char ret_id[72])
{
	struct names names;
	int r = names_get(node, NODE_MODEL_PREFIX, &names, NULL) < 0 ? -EIO : -ENOENT;

	for (size_t i = 0; r == -ENOENT && i < names.n; i++) {
		char digest[IMG_DIGEST_SIZE];
		struct version v;

		img_digest_of(names.items[i], strlen(names.items[i]), digest);
		if (strcmp(digest, name_digest) != 0 ||
		    version_get(node, NODE_MODEL_PREFIX, names.items[i], &v, NULL) < 0)
			continue;
		if (v.n == 1 && v.layers[0]->model && atomic_load(&v.layers[0]->open) == NODE_OPEN_BY_NAME) {
			memcpy(ret_id, v.layers[0]->digest, 72);
			r = 0;
		}
		version_done(&v);
	}
	free(names.items);
	return r;
}

int node_models_start(struct flip_node *node, struct err *err)
{
	struct names names;
	int r = names_get(node, NODE_MODEL_PREFIX, &names, err);

	for (size_t i = 0; r == 0 && i < names.n; i++) {
		struct version v;
		struct err why = { 0 };

		if (version_get(node, NODE_MODEL_PREFIX, names.items[i], &v, &why) < 0) {
			base_log(BASE_LOG_WARN, "model %s: %s", names.items[i], err_text(&why));
			continue;
		}
		if (!is_complete(&v))
			fetch_rest(node, &v, v.preheat ? FLIP_PREHEAT : FLIP_BACKGROUND);
		version_done(&v);
	}
	free(names.items);
	if (r < 0)
		return r;
	r = names_get(node, NODE_NEXT_PREFIX, &names, err);
	for (size_t i = 0; r == 0 && i < names.n; i++) {
		struct version v;

		if (version_get(node, NODE_NEXT_PREFIX, names.items[i], &v, NULL) < 0)
			continue;
		fetch_rest(node, &v, v.preheat ? FLIP_PREHEAT : FLIP_BACKGROUND);
		version_done(&v);
	}
	atomic_store(&node->has_next_models, names.n > 0);
	free(names.items);
	return r;
}

/* ---- Pulling ---- */

/* Archives are unpacked before this returns: what is in them is not known before. */
static int version_make(struct flip_node *node, const char *source, const char *shown, bool keep, struct version *ret,
                        struct err *err)
{
	struct node_model_source s;
	struct version v = { 0 };
	bool is_seed = shown != NULL; /* its server is of `flip model seed`, and will be gone */
	int r = node_model_source_read(node, source, &s, err);

	if (r < 0)
		return r;
	v.source = strdup(shown ? shown : source);
	if (!v.source)
		r = err_set(err, -ENOMEM, "out of memory");
	if (r == 0 && s.n_archives + 1 > MAX_LAYERS)
		r = err_set(err, -EFBIG, "%s: more than %d archives", source, MAX_LAYERS - 1);
	for (size_t i = 0; r == 0 && i < s.n_archives; i++)
		node_layer_start(node, s.image, NULL, s.image->doc.layers[s.archives[i]].digest);
	for (size_t i = s.n_archives; r == 0 && i-- > 0;) {
		r = node_layer_get(node, s.image, s.image->doc.layers[s.archives[i]].digest, &v.layers[v.n], err);
		v.n += r == 0;
	}
	if (r == 0 && s.model) {
		if (is_seed) {
			s.open = NODE_OPEN_BY_NAME;
			s.is_local = true;
		}
		pthread_mutex_lock(&node->models_lock);
		r = node_model_layer(node, &s, source, keep, &v.layers[v.n], err);
		pthread_mutex_unlock(&node->models_lock);
		v.n += r == 0;
	}
	if (r == 0 && s.image)
		node_note_public_later(node, s.image->ref, s.image->manifest, true);
	node_model_source_done(node, &s);
	if (r < 0) {
		version_done(&v);
		return r;
	}
	*ret = v;
	return 0;
}

int flip_node_model_pull(struct flip_node *node, const struct flip_model_pull *p, struct err *err)
{
	const char *name = p->name;
	struct version v, now;
	bool waits = false;
	int r;

	if (!flip_model_name_is_valid(name))
		return err_set(err, -EINVAL, "\"%.150s\": not a name for a model (letters, digits, '.', '_', '-')",
		               name);
	r = version_make(node, p->source, p->shown, p->keep, &v, err);
	if (r < 0)
		return r;
	v.preheat = p->preheat;
	pthread_mutex_lock(&node->models_lock);
	for (size_t i = 0; i < v.n; i++) { /* what went wrong before is over */
		pthread_mutex_lock(&node->complaints_lock);
		if (v.layers[i]->trouble)
			*v.layers[i]->trouble = (struct node_trouble){ 0 };
		pthread_mutex_unlock(&node->complaints_lock);
	}
	if (version_get(node, NODE_MODEL_PREFIX, name, &now, NULL) == 0) {
		waits = !is_same(&now, &v) && is_complete(&now) && !is_complete(&v);
		version_done(&now);
	}
	r = rows_set(node, NODE_NEXT_PREFIX, name, &v, err);
	atomic_store(&node->has_next_models, true);
	if (r == 0 && !waits)
		r = promote(node, name, &v, err);
	if (r == 0)
		fetch_rest(node, &v, p->preheat ? FLIP_PREHEAT : FLIP_BACKGROUND);
	pthread_mutex_unlock(&node->models_lock);
	version_done(&v);
	return r;
}

int flip_node_model_remove(struct flip_node *node, const char *name, struct err *err)
{
	struct version now = { 0 }, next = { 0 };
	int r;

	pthread_mutex_lock(&node->models_lock);
	r = version_get(node, NODE_MODEL_PREFIX, name, &now, err);
	(void)version_get(node, NODE_NEXT_PREFIX, name, &next, NULL);
	if (r != -ENOENT) { /* also one whose layer is gone */
		r = 0;
		rows_remove(node, NODE_NEXT_PREFIX, name);
		rows_remove(node, NODE_MODEL_PREFIX, name);
		fetch_no_more(node, &now);
		fetch_no_more(node, &next);
	}
	pthread_mutex_unlock(&node->models_lock);
	version_done(&now);
	version_done(&next);
	return r;
}

/* ---- Mounting ---- */

int flip_node_model_mount(struct flip_node *node, const char *name, const char *dir, char *ret_dir, size_t dir_size,
                          struct err *err)
{
	struct node_lower lowers[MAX_LAYERS] = { 0 };
	struct version v;
	bool is_ours = !dir;
	int r;

	if (!flip_model_name_is_valid(name))
		return err_set(err, -EINVAL, "\"%.150s\": not a name of a model", name);
	if (is_ours)
		(void)snprintf(ret_dir, dir_size, "%s/%s", node->opts.models_dir ? node->opts.models_dir : DEFAULT_DIR,
		               name);
	else
		(void)snprintf(ret_dir, dir_size, "%s", dir);
	pthread_mutex_lock(&node->models_lock);
	r = version_get(node, NODE_MODEL_PREFIX, name, &v, err);
	if (r < 0) {
		pthread_mutex_unlock(&node->models_lock);
		return r;
	}
	for (size_t i = 0; i < v.n; i++)
		lowers[i].layer = v.layers[i];
	if (is_ours && flip_is_mountpoint(ret_dir) && !node_mount_shows(node, ret_dir, v.layers[0]->digest))
		r = node_mount_end(node, ret_dir, err); /* an older version: its readers keep what they have open */
	if (r == 0 && is_ours)
		r = base_make_folders(ret_dir, 0755, err);
	if (r == 0 && !(is_ours && flip_is_mountpoint(ret_dir))) {
		r = node_mount_check(ret_dir, err);
		if (r == 0)
			r = node_mount_layers(node, lowers, v.n, ret_dir, err);
	}
	if (r == 0 && !is_complete(&v))
		fetch_rest(node, &v, FLIP_PREFETCH);
	pthread_mutex_unlock(&node->models_lock);
	version_done(&v);
	return r;
}

/* ---- Telling ---- */

static json_t *version_json(struct flip_node *node, const char *name, const struct version *v)
{
	struct node_trouble trouble = { 0 };
	uint64_t size = 0, here = 0, n_files = 0;
	char id[ID_SIZE];

	for (size_t i = 0; i < v->n; i++) {
		struct node_layer *l = v->layers[i];
		uint64_t of_layer, all;

		n_files += l->model ? l->model->n_files : flip_index_n_objects(l->index);
		node_layer_here(l, &of_layer, &all);
		size += all;
		here += of_layer;
		pthread_mutex_lock(&node->complaints_lock);
		if (l->trouble && l->trouble->r)
			trouble = *l->trouble;
		pthread_mutex_unlock(&node->complaints_lock);
	}
	id_of(v, id);
	return json_pack("{s:s, s:s, s:s, s:I, s:I, s:I, s:b, s:b, s:I, s:s*, s:b, s:b}", "name", name, "id", id,
	                 "source", v->source ? v->source : "", "files", (json_int_t)n_files, "bytes", (json_int_t)size,
	                 "here", (json_int_t)here, "complete", here == size, "preheat", v->preheat, "errors",
	                 (json_int_t)trouble.n, "error", trouble.r ? trouble.text : NULL, "failed",
	                 here < size && (trouble.r == -ENOSPC || node_is_final(trouble.r)), "no_room",
	                 here < size && node->queue.is_stopped);
}

static int add_json(struct flip_node *node, const char *name, json_t *list, struct err *err)
{
	struct version now, next;
	json_t *o;
	int r = version_get(node, NODE_MODEL_PREFIX, name, &now, err);

	if (r < 0)
		return r;
	o = version_json(node, name, &now);
	if (version_get(node, NODE_NEXT_PREFIX, name, &next, NULL) == 0) {
		(void)json_object_set_new(o, "next", version_json(node, name, &next));
		version_done(&next);
	}
	version_done(&now);
	return json_array_append_new(list, o) < 0 ? err_set(err, -ENOMEM, "out of memory") : 0;
}

int flip_node_models(struct flip_node *node, const char *name, struct base_buf *buf, struct err *err)
{
	struct names names = { 0 };
	json_t *list = json_array();
	int r = list ? 0 : err_set(err, -ENOMEM, "out of memory");

	node_models_settle(node);
	if (r == 0 && name)
		r = add_json(node, name, list, err);
	else if (r == 0)
		r = names_get(node, NODE_MODEL_PREFIX, &names, err);
	for (size_t i = 0; r == 0 && i < names.n; i++) {
		struct err why = { 0 };

		if (add_json(node, names.items[i], list, &why) < 0)
			(void)json_array_append_new(list, json_pack("{s:s, s:b, s:s}", "name", names.items[i],
			                                            "complete", 0, "error", err_text(&why)));
	}
	free(names.items);
	if (r == 0)
		r = base_json_append(buf, list);
	json_decref(list);
	return r;
}
