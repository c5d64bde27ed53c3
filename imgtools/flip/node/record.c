/* What a first start reads, written down: chunks in the order in which reads came to the daemon. When it has been quiet
 * for a while the list is kept in the store, by paths, under the image's reference, and the next start of the image on
 * this node has its bytes on the way before it asks.
 *
 * Only reads that come here are seen; while an image is recorded nothing is prefetched for it, so that is all of them
 * but for contents that another image brought before, which need no fetching. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/log.h"
#include "node/node_internal.h"

enum { MAX_RECORDED = 1 << 20, MAX_RECORDINGS = 64, MAX_RECORD_S = 120, DEFAULT_QUIET_S = 10 };

struct recorded {
	uint32_t layer; /* position in the recording's chain */
	uint32_t chunk;
};

struct node_recording {
	struct node_recording *next;
	char *ref;
	struct node_layer **layers; /* references, uppermost first */
	uint8_t **seen;             /* a bit for each chunk of each layer */
	size_t n_layers;
	struct recorded *items;
	size_t n, cap;
	int64_t started_ms, last_ms;
};

static void recording_free(struct node_recording *r)
{
	for (size_t i = 0; i < r->n_layers; i++) {
		node_layer_unref(r->layers[i]);
		free(r->seen ? r->seen[i] : NULL);
	}
	free(r->layers);
	free(r->seen);
	free(r->items);
	free(r->ref);
	free(r);
}

static struct node_recording *recording_new(const char *ref, struct node_layer *const *layers, size_t n)
{
	struct node_recording *r = calloc(1, sizeof(*r));

	if (!r)
		return NULL;
	r->ref = strdup(ref);
	r->layers = calloc(n, sizeof(*r->layers));
	r->seen = calloc(n, sizeof(*r->seen));
	for (size_t i = 0; r->layers && r->seen && i < n; i++) {
		r->layers[i] = layers[i];
		atomic_fetch_add(&layers[i]->n_refs, 1);
		r->n_layers++;
		r->seen[i] = calloc(flip_index_n_chunks(layers[i]->index) / 8 + 1, 1);
		if (!r->seen[i])
			break;
	}
	if (!r->ref || r->n_layers != n || (n && !r->seen[n - 1])) {
		recording_free(r);
		return NULL;
	}
	r->started_ms = r->last_ms = base_now_ms();
	return r;
}

void node_record_start(struct flip_node *node, const char *ref, struct node_layer *const *layers, size_t n_layers)
{
	struct node_recording *r;
	unsigned n = 0;

	if (node->opts.no_record || !n_layers)
		return;
	pthread_mutex_lock(&node->record_lock);
	for (r = node->recordings; r && strcmp(r->ref, ref) != 0; r = r->next)
		n++;
	if (!r && n < MAX_RECORDINGS && (r = recording_new(ref, layers, n_layers))) {
		r->next = node->recordings;
		node->recordings = r;
		atomic_store(&node->is_recording, true);
	}
	pthread_mutex_unlock(&node->record_lock);
}

bool node_record_is_running(struct flip_node *node)
{
	return atomic_load(&node->is_recording);
}

static void note(struct node_recording *r, uint32_t layer, uint32_t chunk)
{
	if (r->seen[layer][chunk / 8] & 1u << chunk % 8)
		return;
	r->seen[layer][chunk / 8] |= (uint8_t)(1u << chunk % 8);
	r->last_ms = base_now_ms();
	if (r->n == r->cap) {
		size_t cap = r->cap ? r->cap * 2 : 1024;
		struct recorded *p = r->n < MAX_RECORDED ? reallocarray(r->items, cap, sizeof(*p)) : NULL;

		if (!p)
			return;
		r->items = p;
		r->cap = cap;
	}
	r->items[r->n++] = (struct recorded){ layer, chunk };
}

void node_record_read(struct node_layer *layer, uint32_t chunk)
{
	struct flip_node *node = layer->node;

	if (!node_record_is_running(node))
		return;
	pthread_mutex_lock(&node->record_lock);
	for (struct node_recording *r = node->recordings; r; r = r->next) {
		for (size_t i = 0; i < r->n_layers; i++) {
			if (r->layers[i] == layer)
				note(r, (uint32_t)i, chunk);
		}
	}
	pthread_mutex_unlock(&node->record_lock);
}

/* ---- From chunks to paths -------------------------------------------------------------------------------------- */

struct naming {
	const struct flip_index *index;
	const struct flip_erofs *meta;
	char **paths; /* of each object of the index; NULL: not needed, or not found yet */
};

static int name_object(void *arg, const char *path, uint64_t nid, const struct stat *st)
{
	struct naming *n = arg;
	const struct flip_index_object *o;
	uint8_t digest[FLIP_DIGEST_SIZE];
	size_t i;

	if (!S_ISREG(st->st_mode) || flip_erofs_digest(n->meta, nid, digest) < 0)
		return 0;
	o = flip_index_find(n->index, digest);
	if (!o)
		return 0;
	i = (size_t)(o - flip_index_object(n->index, 0));
	if (!n->paths[i])
		n->paths[i] = strdup(path);
	return n->paths[i] ? 0 : -ENOMEM;
}

static void paths_free(char **paths, size_t n)
{
	for (size_t i = 0; paths && i < n; i++)
		free(paths[i]);
	free(paths);
}

/* The recorded chunks of all layers as ranges of paths; neighbours that were read one after the other become one. */
static int make_list(const struct node_recording *r, char ***paths, struct flip_prefetch *list)
{
	for (size_t i = 0; i < r->n; i++) {
		const struct flip_index *ix = r->layers[r->items[i].layer]->index;
		const struct flip_index_chunk *c = flip_index_chunk(ix, r->items[i].chunk);
		const struct flip_index_object *o = flip_index_chunk_object(ix, r->items[i].chunk);
		const char *path = paths[r->items[i].layer][o - flip_index_object(ix, 0)];
		struct flip_prefetch_item *last = list->n ? &list->items[list->n - 1] : NULL;
		int k;

		if (!path)
			continue;
		if (last && strcmp(last->path, path) == 0 && last->offset + last->size == c->offset) {
			last->size += c->size;
			continue;
		}
		k = flip_prefetch_add(list, path, c->offset, c->size);
		if (k < 0)
			return k;
	}
	return 0;
}

static void keep_list(struct flip_node *node, const struct node_recording *r)
{
	struct base_buf text = BASE_BUF_INIT(64 << 20);
	struct flip_prefetch list = { 0 };
	char ***paths = calloc(r->n_layers, sizeof(*paths));
	struct err err = { 0 };
	int k = paths ? 0 : -ENOMEM;

	for (size_t i = 0; k == 0 && i < r->n_layers; i++) {
		struct naming naming = { r->layers[i]->index, r->layers[i]->meta, NULL };

		paths[i] = naming.paths = calloc(flip_index_n_objects(naming.index) + 1, sizeof(*naming.paths));
		k = naming.paths ? flip_erofs_walk(naming.meta, name_object, &naming, &err) : -ENOMEM;
	}
	if (k == 0)
		k = make_list(r, paths, &list);
	if (k == 0)
		k = flip_prefetch_append(&list, &text);
	if (k == 0)
		k = flip_store_note_set(node->store, "prefetch", r->ref, text.data, text.len, &err);
	if (k < 0)
		base_log_with(BASE_LOG_WARN, NODE_FIELDS(r->ref, NULL), "%s: what its start read could not be kept: %s",
		              r->ref, err_text(&err));
	else
		base_log_with(BASE_LOG_INFO, NODE_FIELDS(r->ref, NULL), "%s: recorded a start: %zu ranges", r->ref,
		              list.n);
	for (size_t i = 0; paths && i < r->n_layers; i++)
		paths_free(paths[i], flip_index_n_objects(r->layers[i]->index));
	free(paths);
	flip_prefetch_done(&list);
	base_buf_done(&text);
}

void node_record_finish(struct flip_node *node, int64_t now_ms)
{
	int64_t quiet = (node->opts.record_quiet_s ? node->opts.record_quiet_s : DEFAULT_QUIET_S) * INT64_C(1000);
	struct node_recording *ended = NULL, *next;

	pthread_mutex_lock(&node->record_lock);
	for (struct node_recording **p = &node->recordings, *r; (r = *p);) {
		bool is_over = now_ms == INT64_MAX || now_ms - r->started_ms > MAX_RECORD_S * INT64_C(1000) ||
		               now_ms - r->last_ms > quiet;

		if (!is_over) {
			p = &r->next;
			continue;
		}
		*p = r->next;
		r->next = ended;
		ended = r;
	}
	atomic_store(&node->is_recording, node->recordings != NULL);
	pthread_mutex_unlock(&node->record_lock);
	for (; ended; ended = next) {
		next = ended->next;
		if (ended->n)
			keep_list(node, ended);
		recording_free(ended);
	}
}
