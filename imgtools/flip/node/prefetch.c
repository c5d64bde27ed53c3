/* What is fetched before somebody reads it: lists of chunks, played back in order, a window of bytes at a time, so that
 * a foreground read never waits behind more than that; the rest of the layers at idle priority behind them.
 *
 * Where a list comes from, first found wins: what this node recorded when the image started here before (record.c);
 * what `flip convert` put into the layers; the files before the landmark of other people's eStargz layers. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/log.h"
#include "node/node_internal.h"

enum {
	DEFAULT_WINDOW = 32 << 20,
	SLICE = 64, /* chunks that are looked at in one go */
	SLICE_BYTES = 4 << 20,
	REST_MS = 5000,
	DEFAULT_PRESSURE = 20,
	PREHEAT_SHARE = 8, /* of the window: what is preheated takes no more, for it is in the way of what comes next */
	PREHEAT_REST_MS = 500,   /* after anything else was asked for or came */
	PREHEAT_PAUSE_US = 50000 /* between chunks when half of the pace is left; longer with less */
};

void node_queue_init(struct flip_node *node)
{
	(void)pthread_mutex_init(&node->queue.lock, NULL);
	for (int p = 0; p < FLIP_N_PRIORITIES; p++)
		node->queue.last[p] = &node->queue.first[p];
	peer_pressure_init(&node->queue.pressure);
}

static void item_free(struct node_queue_item *item)
{
	node_layer_unref(item->layer);
	free(item->chunks);
	free(item);
}

void node_queue_done(struct flip_node *node)
{
	for (int p = 0; p < FLIP_N_PRIORITIES; p++) {
		struct node_queue_item *next;

		for (struct node_queue_item *i = node->queue.first[p]; i; i = next) {
			next = i->after;
			item_free(i);
		}
	}
	(void)pthread_mutex_destroy(&node->queue.lock);
}

/* With the lock held: the next few chunks of the most urgent list, copied out. */
static size_t next_slice(struct node_queue *q, struct node_layer **ret_layer, uint32_t ret_chunks[SLICE],
                         enum flip_priority *ret_priority, struct node_queue_item **ret_ended)
{
	*ret_ended = NULL;
	for (int p = 0; p < FLIP_N_PRIORITIES; p++) {
		struct node_queue_item *i = q->first[p];
		uint64_t bytes = 0;
		size_t n = 0;

		if (!i)
			continue;
		for (; n < SLICE && n < i->n - i->next && bytes < SLICE_BYTES && (n == 0 || p != FLIP_PREHEAT); n++)
			bytes += flip_index_chunk(i->layer->index, i->chunks[i->next + n])->blob_size;
		memcpy(ret_chunks, i->chunks + i->next, n * sizeof(*ret_chunks));
		i->next += n;
		*ret_layer = i->layer;
		atomic_fetch_add(&i->layer->n_refs, 1);
		*ret_priority = i->priority;
		if (i->next == i->n) {
			q->first[p] = i->after;
			if (!i->after)
				q->last[p] = &q->first[p];
			*ret_ended = i;
		}
		return n;
	}
	return 0;
}

/* With the lock held: nothing is to be asked for now. */
static bool rests(const struct node_queue *q)
{
	return q->is_stopped || (q->rests_until_ms && q->rests_until_ms > base_now_ms());
}

/* With the lock held: something waits; FLIP_PREHEAT: nothing else does. -1: nothing. */
static int next_priority(const struct node_queue *q)
{
	for (int p = 0; p < FLIP_N_PRIORITIES; p++) {
		if (q->first[p])
			return p;
	}
	return -1;
}

/* With the lock held: whether a chunk may be preheated: not while anything else is on its way. While the machine's own
 * work waits it is one at a time, with pauses: 50 ms when half of the pace is left, a second at the least. The keeper
 * comes back for it. */
static bool may_preheat(struct flip_node *node, uint64_t window)
{
	struct node_queue *q = &node->queue;
	int64_t now = peer_now_us();
	double factor;

	(void)peer_pressure_look(&q->pressure, node->opts.pressure_dir ? node->opts.pressure_dir : PEER_PRESSURE_DIR,
	                         node->opts.preheat_pressure ? node->opts.preheat_pressure : DEFAULT_PRESSURE, now,
	                         peer_process_cpu_us());
	factor = q->pressure.factor;
	if (factor < 1 &&
	    (q->in_flight || (double)(now - q->preheated_us) < (1 / factor - 1) * (double)PREHEAT_PAUSE_US))
		return false;
	if (q->in_flight > q->preheat_in_flight || q->in_flight >= window / PREHEAT_SHARE ||
	    base_now_ms() - atomic_load(&node->urgent_ms) < PREHEAT_REST_MS)
		return false;
	q->preheated_us = now;
	return true;
}

/* With the lock held. */
static bool may_ask(struct flip_node *node)
{
	const struct node_queue *q = &node->queue;
	uint64_t window = node->opts.prefetch_window ? node->opts.prefetch_window : DEFAULT_WINDOW;
	int p = next_priority(q);

	return p >= 0 && !rests(q) && (p == FLIP_PREHEAT ? may_preheat(node, window) : q->in_flight < window);
}

/* Asks for chunks until the window is full. Any thread; several at once only share the work. */
static void pump(struct flip_node *node)
{
	struct node_queue *q = &node->queue;

	for (;;) {
		struct node_queue_item *ended = NULL;
		struct node_layer *layer = NULL;
		enum flip_priority priority = FLIP_BACKGROUND;
		uint32_t chunks[SLICE];
		size_t n;

		pthread_mutex_lock(&q->lock);
		n = may_ask(node) ? next_slice(q, &layer, chunks, &priority, &ended) : 0;
		pthread_mutex_unlock(&q->lock);
		if (ended)
			item_free(ended);
		if (!n)
			return;
		(void)node_load_chunks(layer, chunks, n, priority);
		node_layer_unref(layer);
	}
}

static void pump_job(void *arg)
{
	struct flip_node *node = arg;

	atomic_store(&node->queue.is_pump_queued, false);
	pump(node);
}

static void pump_soon(struct flip_node *node)
{
	if (!atomic_exchange(&node->queue.is_pump_queued, true) && flip_work_add(node->work, pump_job, node, false) < 0)
		atomic_store(&node->queue.is_pump_queued, false);
}

/* Takes the array of chunk numbers over. */
static void queue_add(struct node_layer *layer, uint32_t *chunks, size_t n, enum flip_priority priority)
{
	struct node_queue *q = &layer->node->queue;
	struct node_queue_item *i = n && node_layer_can_fetch(layer) ? calloc(1, sizeof(*i)) : NULL;

	if (!i) {
		free(chunks);
		return;
	}
	*i = (struct node_queue_item){ .layer = layer, .chunks = chunks, .n = n, .priority = priority };
	atomic_fetch_add(&layer->n_refs, 1);
	pthread_mutex_lock(&q->lock);
	*q->last[priority] = i;
	q->last[priority] = &i->after;
	pthread_mutex_unlock(&q->lock);
	pump_soon(layer->node);
}

void node_queue_asked(struct flip_node *node, uint64_t n_bytes, bool is_preheat)
{
	pthread_mutex_lock(&node->queue.lock);
	node->queue.in_flight += n_bytes;
	if (is_preheat)
		node->queue.preheat_in_flight += n_bytes;
	pthread_mutex_unlock(&node->queue.lock);
}

void node_queue_arrived(struct flip_node *node, uint64_t n_bytes, bool is_preheat)
{
	struct node_queue *q = &node->queue;
	uint64_t window = node->opts.prefetch_window ? node->opts.prefetch_window : DEFAULT_WINDOW;
	bool go_on;

	pthread_mutex_lock(&q->lock);
	q->in_flight -= n_bytes;
	if (is_preheat)
		q->preheat_in_flight -= n_bytes;
	/* Not for each chunk: a job when half of the window is free. */
	go_on = q->in_flight <= window / 2 && !rests(q) && next_priority(q) >= 0;
	pthread_mutex_unlock(&q->lock);
	if (go_on)
		pump_soon(node);
}

void node_queue_failed(struct flip_node *node)
{
	pthread_mutex_lock(&node->queue.lock);
	node->queue.rests_until_ms = base_now_ms() + REST_MS;
	pthread_mutex_unlock(&node->queue.lock);
}

void node_queue_resume(struct flip_node *node)
{
	pthread_mutex_lock(&node->queue.lock);
	node->queue.rests_until_ms = 0;
	pthread_mutex_unlock(&node->queue.lock);
}

void node_queue_watch(struct flip_node *node, bool is_short)
{
	struct node_queue *q = &node->queue;
	bool go_on;

	pthread_mutex_lock(&q->lock);
	q->is_stopped = is_short;
	go_on = !rests(q) && next_priority(q) >= 0;
	pthread_mutex_unlock(&q->lock);
	if (go_on)
		pump_soon(node);
}

void node_queue_drop(struct node_layer *layer)
{
	struct node_queue *q = &layer->node->queue;
	struct node_queue_item *gone = NULL;

	pthread_mutex_lock(&q->lock);
	for (int p = 0; p < FLIP_N_PRIORITIES; p++) {
		struct node_queue_item **at = &q->first[p], *i;

		while ((i = *at)) {
			if (i->layer != layer) {
				at = &i->after;
				continue;
			}
			*at = i->after;
			i->after = gone;
			gone = i;
		}
		q->last[p] = at;
	}
	pthread_mutex_unlock(&q->lock);
	while (gone) {
		struct node_queue_item *next = gone->after;

		item_free(gone);
		gone = next;
	}
}

bool node_queue_is_idle(struct flip_node *node)
{
	bool is_idle;

	pthread_mutex_lock(&node->queue.lock);
	is_idle = !node->queue.first[FLIP_PREFETCH] && !node->queue.first[FLIP_BACKGROUND] && !rests(&node->queue);
	pthread_mutex_unlock(&node->queue.lock);
	return is_idle;
}

bool node_queue_preheats(struct flip_node *node)
{
	bool does;

	pthread_mutex_lock(&node->queue.lock);
	does = node->queue.first[FLIP_PREHEAT] != NULL;
	pthread_mutex_unlock(&node->queue.lock);
	return does;
}

void node_queue_preheat_stat(struct flip_node *node, uint64_t *ret_chunks, unsigned *ret_percent)
{
	struct node_queue *q = &node->queue;

	*ret_chunks = 0;
	pthread_mutex_lock(&q->lock);
	for (const struct node_queue_item *i = q->first[FLIP_PREHEAT]; i; i = i->after)
		*ret_chunks += i->n - i->next;
	*ret_percent = (unsigned)(q->pressure.factor * 100);
	pthread_mutex_unlock(&q->lock);
}

/* ---- Lists ------------------------------------------------------------------------------------------------------ */

/* The chunks of a content that a range covers, appended. */
struct chunk_list {
	uint32_t *items;
	size_t n, cap;
};

static int add_range(struct chunk_list *l, const struct flip_index *ix, const struct flip_index_object *o,
                     uint64_t offset, uint64_t size)
{
	uint64_t end = size > UINT64_MAX - offset ? UINT64_MAX : offset + size;

	for (uint32_t c = o->first_chunk; c < o->first_chunk + o->n_chunks; c++) {
		const struct flip_index_chunk *chunk = flip_index_chunk(ix, c);

		if (chunk->offset + chunk->size <= offset || chunk->offset >= end)
			continue;
		if (l->n == l->cap) {
			size_t cap = l->cap ? l->cap * 2 : 256;
			uint32_t *p = reallocarray(l->items, cap, sizeof(*p));

			if (!p)
				return -ENOMEM;
			l->items = p;
			l->cap = cap;
		}
		l->items[l->n++] = c;
	}
	return 0;
}

/* Which layer of the chain shows the path: the uppermost that has it or hides it. */
static struct node_layer *layer_of_path(struct node_layer *const *layers, size_t n, const char *path, uint64_t *ret_nid)
{
	for (size_t i = 0; i < n; i++) {
		struct stat st;

		if (flip_erofs_resolve(layers[i]->meta, path, ret_nid) == 0)
			return flip_erofs_stat(layers[i]->meta, *ret_nid, &st) == 0 && S_ISREG(st.st_mode) ? layers[i]
			                                                                                   : NULL;
	}
	return NULL;
}

/* A run of items of one layer becomes one entry of the queue, so that the order between layers is kept. */
static void queue_list(struct node_layer *const *layers, size_t n_layers, const struct flip_prefetch *list)
{
	struct chunk_list chunks = { 0 };
	struct node_layer *current = NULL;
	size_t n_found = 0;

	for (size_t i = 0; i < list->n; i++) {
		const struct flip_prefetch_item *item = &list->items[i];
		const struct flip_index_object *o;
		uint8_t digest[FLIP_DIGEST_SIZE];
		struct node_layer *layer;
		uint64_t nid;

		layer = layer_of_path(layers, n_layers, item->path, &nid);
		if (!layer || flip_erofs_digest(layer->meta, nid, digest) < 0)
			continue;
		o = flip_index_find(layer->index, digest);
		if (!o)
			continue;
		if (current && current != layer) {
			queue_add(current, chunks.items, chunks.n, FLIP_PREFETCH);
			chunks = (struct chunk_list){ 0 };
		}
		current = layer;
		n_found++;
		if (add_range(&chunks, layer->index, o, item->offset, item->size) < 0)
			break;
	}
	if (current)
		queue_add(current, chunks.items, chunks.n, FLIP_PREFETCH);
	base_log(BASE_LOG_DEBUG, "prefetch: %zu of %zu listed ranges are in the image", n_found, list->n);
}

bool node_prefetch_image(struct flip_node *node, const char *ref, struct node_layer *const *layers, size_t n_layers)
{
	struct flip_prefetch list = { 0 };
	bool found = false;
	void *data;
	size_t size;

	if (node->opts.no_prefetch)
		return false;
	if (flip_store_note_get(node->store, "prefetch", ref, &data, &size, NULL) == 0) {
		if (flip_prefetch_parse(data, size, ref, &list, NULL) == 0 && list.n) {
			queue_list(layers, n_layers, &list);
			found = true;
		}
		flip_prefetch_done(&list);
		free(data);
	}
	for (size_t i = n_layers; i-- > 0 && !found;) {
		const uint32_t *chunks;

		found = flip_index_prefetch(layers[i]->index, &chunks) > 0;
	}
	return found;
}

void node_prefetch_layer(struct node_layer *layer)
{
	const uint32_t *chunks;
	size_t n = flip_index_prefetch(layer->index, &chunks);
	uint32_t *copy;

	if (!n || layer->node->opts.no_prefetch || atomic_exchange(&layer->is_prefetched, true))
		return;
	copy = malloc(n * sizeof(*copy));
	if (!copy)
		return;
	memcpy(copy, chunks, n * sizeof(*copy));
	queue_add(layer, copy, n, FLIP_PREFETCH);
}

static int by_blob_offset(const void *a, const void *b, void *arg)
{
	const struct flip_index *ix = arg;
	uint64_t x = flip_index_chunk(ix, *(const uint32_t *)a)->blob_offset;
	uint64_t y = flip_index_chunk(ix, *(const uint32_t *)b)->blob_offset;

	return x < y ? -1 : x > y;
}

void node_queue_rest(struct node_layer *layer, enum flip_priority priority)
{
	const struct flip_index *ix = layer->index;
	size_t n_objects = flip_index_n_objects(ix), n = 0;
	uint32_t *chunks = malloc((flip_index_n_chunks(ix) + 1) * sizeof(*chunks));

	if (!chunks)
		return;
	for (size_t i = 0; i < n_objects; i++) {
		const struct flip_index_object *o = flip_index_object(ix, i);

		if (flip_store_has(layer->node->store, o->digest, NULL))
			continue;
		for (uint32_t c = 0; c < o->n_chunks; c++)
			chunks[n++] = o->first_chunk + c;
	}
	/* As they lie in the blob, so that they travel in long ranges. */
	qsort_r(chunks, n, sizeof(*chunks), by_blob_offset, (void *)ix);
	queue_add(layer, chunks, n, priority);
}
