/* Reads of what has not arrived (loads.c).
 *
 *   a read      -> the missing chunks it covers; those under way get it as one more waiter (and are raised when they
 *                  were only prefetched), the others are asked for, all in one request to fetch
 *   an arrival  -> it has one chunk less to wait for; with none left the read is answered from the store
 *   a failure   -> EIO for the reads that wait now; the next read tries again
 *
 * What is asked for ahead of reads, and by peers of ours, waits for the same loads. */
#include <errno.h>
#include <stdlib.h>

#include "base/clock.h"
#include "node/loads.h"

struct waiting { /* a read that is not answered yet */
	_Atomic unsigned n_left;
	_Atomic int error;
	struct flip_fs_read *read;
	struct flip_object *store; /* a reference */
	uint64_t offset;
	size_t size;
	bool needs_all; /* nothing of it is right before all of it is */
	int64_t since_us;
	struct flip_node *node;
};

/* ---- Answers --------------------------------------------------------------------------------------------------- */

static void answer(struct waiting *w)
{
	int r = atomic_load(&w->error);
	uint64_t end = flip_object_size(w->store);

	if (r == 0 && w->needs_all && !flip_object_is_complete(w->store))
		r = -EIO; /* all of it came, and was not what it should be */

	if (r < 0) {
		atomic_fetch_add(&w->node->n_read_errors, 1);
		flip_fs_reply_error(w->read, r);
	} else {
		size_t size = w->offset >= end ? 0 : end - w->offset < w->size ? (size_t)(end - w->offset) : w->size;

		flip_fs_reply_fd(w->read, flip_object_fd(w->store), w->offset, size);
		flip_object_handed_on(w->store, w->offset, size);
	}
	atomic_fetch_add(&w->node->read_wait_us, (uint64_t)(base_now_us() - w->since_us));
	flip_object_unref(w->store);
	free(w);
}

static void one_less(struct waiting *w, int r)
{
	if (r < 0)
		atomic_store(&w->error, r);
	if (atomic_fetch_sub(&w->n_left, 1) == 1)
		answer(w);
}

static void chunk_ended(void *arg, int r)
{
	one_less(arg, r == -ENOSPC ? -ENOSPC : r < 0 ? -EIO : 0);
}

static bool chunk_is_there(const struct flip_index_chunk *c, const struct flip_object *store)
{
	return flip_object_has(store, c->offset, c->size);
}

/* The part of the chunk that the read is about. Chunks of other people's images end anywhere, and the store counts
 * whole blocks: a chunk with a neighbour missing would never look complete. */
static bool part_is_there(const struct flip_index_chunk *c, const struct flip_object *store, uint64_t offset,
                          size_t size)
{
	uint64_t begin = c->offset > offset ? c->offset : offset;
	uint64_t end = c->offset + c->size < offset + size ? c->offset + c->size : offset + size;

	return begin >= end || flip_object_has(store, begin, end - begin);
}

/* The chunks that cover [offset, offset + size): from *ret_first up to *ret_end. Chunks of a content lie in order. */
static void chunks_of(const struct flip_index *ix, const struct flip_index_object *o, uint64_t offset, size_t size,
                      uint32_t *ret_first, uint32_t *ret_end)
{
	uint32_t lo = 0, hi = o->n_chunks;

	while (lo < hi) { /* the last chunk that begins at or before offset */
		uint32_t mid = lo + (hi - lo) / 2;

		if (flip_index_chunk(ix, o->first_chunk + mid)->offset <= offset)
			lo = mid + 1;
		else
			hi = mid;
	}
	*ret_first = o->first_chunk + (lo ? lo - 1 : 0);
	for (*ret_end = *ret_first; *ret_end < o->first_chunk + o->n_chunks; (*ret_end)++) {
		if (flip_index_chunk(ix, *ret_end)->offset >= offset + size)
			break;
	}
}

void node_read(struct node_layer *layer, const struct flip_index_object *object, struct flip_object *store,
               uint64_t offset, size_t size, struct flip_fs_read *read)
{
	struct flip_node *node = layer->node;
	struct node_load **asked = NULL;
	int64_t raised[16];
	uint64_t raised_at[16]; /* places of what peers are asked for */
	size_t n_asked = 0, n_raised = 0, n_raised_at = 0;
	uint32_t first, end;
	struct waiting *w;
	bool needs_all = flip_index_is_unverified(layer->index, object);

	atomic_fetch_add(&node->n_reads, 1);
	chunks_of(layer->index, object, needs_all ? 0 : offset, needs_all ? (size_t)object->size : size, &first, &end);
	for (uint32_t c = first; c < end; c++)
		node_record_read(layer, c);
	w = calloc(1, sizeof(*w));
	if (!w) {
		flip_fs_reply_error(read, -ENOMEM);
		return;
	}
	*w = (struct waiting){ .read = read,
		               .store = flip_object_ref(store),
		               .offset = offset,
		               .size = size,
		               .needs_all = needs_all,
		               .since_us = base_now_us(),
		               .node = node };
	atomic_init(&w->n_left, 1); /* ours, until all are asked for */
	if (needs_all ? flip_object_is_complete(store) : flip_object_has(store, offset, size)) {
		one_less(w, 0);
		return;
	}
	atomic_store(&node->last_foreground_ms, base_now_ms());
	atomic_fetch_add(&node->n_reads_waited, 1);
	if (!node_layer_can_fetch(layer) || first == end) { /* was unpacked once, and its object is gone */
		node_complain(layer, -ENOENT, "a content is missing that cannot be fetched again by itself");
		one_less(w, -EIO);
		return;
	}
	/* As many as there are: somebody's chunks may be of a few bytes each. */
	asked = malloc((end - first) * sizeof(*asked));
	if (!asked) {
		one_less(w, -ENOMEM);
		return;
	}
	pthread_mutex_lock(&node->loads_lock);
	for (uint32_t c = first; c < end; c++) {
		struct node_load *l;

		if (needs_all ? chunk_is_there(flip_index_chunk(layer->index, c), store)
		              : part_is_there(flip_index_chunk(layer->index, c), store, offset, size))
			continue;
		l = node_loads_find(node, layer, c);
		if (l && l->priority != FLIP_FOREGROUND) {
			l->priority = FLIP_FOREGROUND;
			if (n_raised < sizeof(raised) / sizeof(*raised) && l->number > 0)
				raised[n_raised++] = l->number;
			else if (n_raised_at < sizeof(raised_at) / sizeof(*raised_at) && l->number <= 0)
				raised_at[n_raised_at++] = flip_index_chunk(layer->index, c)->blob_offset;
		}
		if (!l) {
			l = node_loads_new(layer, c, store, FLIP_FOREGROUND);
			if (l)
				asked[n_asked++] = l;
		}
		if (l && node_loads_wait(l, chunk_ended, w) == 0)
			atomic_fetch_add(&w->n_left, 1);
		else
			atomic_store(&w->error, -ENOMEM);
	}
	pthread_mutex_unlock(&node->loads_lock);
	for (size_t i = 0; i < n_raised; i++)
		flip_fetch_raise(node->fetch, raised[i], FLIP_FOREGROUND);
	for (size_t i = 0; i < n_raised_at; i++) /* not with the lock: it may tell of what failed */
		flip_peers_raise(node->peers, layer->digest, raised_at[i], FLIP_FOREGROUND);
	if (n_asked || n_raised || n_raised_at)
		atomic_store(&layer->node->urgent_ms, base_now_ms());
	if (n_asked)
		node_loads_submit(layer, asked, n_asked, FLIP_FOREGROUND, FLIP_PEER_RELAY, NODE_WHY_OURS);
	free(asked);
	if (needs_all) { /* who brought the last chunk may be hashing the whole: that is waited for */
		uint64_t missing, n_missing;

		(void)flip_object_next_missing(store, 0, &missing, &n_missing);
	}
	one_less(w, 0);
}

void node_read_ahead(struct node_layer *layer, const struct flip_index_object *object, uint64_t offset, size_t size)
{
	uint32_t first, end, *chunks;

	if (!node_layer_can_fetch(layer) || offset >= object->size)
		return;
	chunks_of(layer->index, object, offset, size, &first, &end);
	chunks = first < end ? malloc((end - first) * sizeof(*chunks)) : NULL;
	if (!chunks)
		return;
	for (uint32_t c = first; c < end; c++)
		chunks[c - first] = c;
	(void)node_load_chunks(layer, chunks, end - first, FLIP_PREFETCH);
	free(chunks);
}

/* ---- Ahead of reads -------------------------------------------------------------------------------------------- */

/* A load of the chunk when it is neither there nor under way. */
static struct node_load *load_ahead(struct node_layer *layer, uint32_t chunk, struct flip_object *store,
                                    enum flip_priority priority)
{
	struct flip_node *node = layer->node;
	struct node_load *l = NULL;

	pthread_mutex_lock(&node->loads_lock);
	if (!node_loads_find(node, layer, chunk) && !chunk_is_there(flip_index_chunk(layer->index, chunk), store)) {
		l = node_loads_new(layer, chunk, store, priority);
		if (l) {
			l->is_queued = true;
			l->is_preheat = priority == FLIP_PREHEAT;
		}
	}
	pthread_mutex_unlock(&node->loads_lock);
	return l;
}

uint64_t node_load_chunks(struct node_layer *layer, const uint32_t *chunks, size_t n, enum flip_priority priority)
{
	const struct flip_index_object *last = NULL;
	struct flip_object *store = NULL;
	uint64_t n_bytes = 0;

	if (!node_layer_can_fetch(layer))
		return 0;
	for (size_t i = 0; i < n; i++) {
		const struct flip_index_object *o = flip_index_chunk_object(layer->index, chunks[i]);
		struct node_load *l;

		if (o != last) {
			flip_object_unref(store);
			store = NULL;
			last = o;
			if (!flip_store_has(layer->node->store, o->digest, NULL) &&
			    node_object_open(layer, o, &store, NULL) < 0)
				store = NULL;
		}
		l = store ? load_ahead(layer, chunks[i], store, priority) : NULL;
		if (!l)
			continue;
		n_bytes += flip_index_chunk(layer->index, chunks[i])->blob_size;
		node_queue_asked(layer->node, flip_index_chunk(layer->index, chunks[i])->blob_size,
		                 priority == FLIP_PREHEAT);
		/* Each by itself, so that a reader raises just the one that he waits for; fetch puts those that lie
		 * together into one request. */
		node_loads_submit(layer, &l, 1, priority, FLIP_PEER_RELAY, NODE_WHY_OURS);
	}
	flip_object_unref(store);
	return n_bytes;
}

/* ---- For peers of ours ----------------------------------------------------------------------------------------- */

int node_load_for_peer(struct node_layer *layer, uint32_t chunk, struct flip_object *store, enum flip_priority priority,
                       int most, node_load_fn fn, void *arg)
{
	struct flip_node *node = layer->node;
	struct waiter *w = calloc(1, sizeof(*w));
	bool is_new = false, needs_origin = false;
	int64_t raised = 0;
	struct node_load *l;

	if (!w)
		return -ENOMEM;
	if (!node_layer_can_fetch(layer)) {
		free(w);
		return -ENOENT;
	}
	*w = (struct waiter){ .fn = fn, .arg = arg };
	pthread_mutex_lock(&node->loads_lock);
	l = node_loads_find(node, layer, chunk);
	if (!l) {
		l = node_loads_new(layer, chunk, store, priority);
		is_new = l != NULL;
		if (l)
			l->has_origin = most == NODE_ORIGIN;
	} else {
		/* It must not wait for somebody who may be waiting for us. */
		needs_origin = l->most > most && !l->has_origin;
		if (needs_origin) {
			l->has_origin = true;
			l->n_ways++;
		}
		if (l->priority > priority) {
			l->priority = priority;
			raised = l->number;
		}
	}
	if (l) {
		w->next = l->waiters;
		l->waiters = w;
		if (l->most > most)
			l->most = most;
	}
	pthread_mutex_unlock(&node->loads_lock);
	if (!l) {
		free(w);
		return -ENOMEM;
	}
	if (raised > 0)
		flip_fetch_raise(node->fetch, raised, priority);
	if (is_new)
		node_loads_submit(layer, &l, 1, priority, most, NODE_WHY_RELAYED);
	else if (needs_origin)
		node_loads_ask_origin(layer, &l, 1, priority, NODE_WHY_RELAYED);
	return 0;
}
