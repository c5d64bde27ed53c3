/* What has not arrived: one fetch for each chunk, however many wait for it.
 *
 *   an arrival  -> on the fetching thread: copied and handed to the work threads
 *               -> decoded, verified against its digest, written into the store
 *               -> its waiters are told
 *
 * A load comes by one of three ways: from the peer who owns it, else from its origin, else from whichever peer has it
 * (peers.c asks). Peers who asked us wait for the same loads as reads do; one that must not wait for a peer of ours
 * gives the load a second way, and the first that brings it counts.
 *
 * A chunk is under way from the moment it is in the table until its waiters were told: so there is never a second fetch
 * of it, and never a read that waits for nothing. */
#include "node/loads.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/sha256.h"

enum { BUCKETS = 4096 /* of the table of loads; a power of two */ };

struct batch { /* one call of flip_blob_read(); freed with its last range */
	_Atomic size_t n_left;
	struct node_load *loads[];
};

struct arrival {
	struct node_load *load;
	enum flip_peer_form form;
	bool is_from_peer;
	unsigned from;
	size_t size;
	uint8_t data[];
};

int node_reads_init(struct flip_node *node)
{
	node->loads = calloc(BUCKETS, sizeof(*node->loads));
	return node->loads ? 0 : -ENOMEM;
}

void node_reads_done(struct flip_node *node)
{
	free(node->loads);
	node->loads = NULL;
}

static struct node_load **bucket_of(struct flip_node *node, const struct node_layer *layer, uint32_t chunk)
{
	uint64_t h = ((uint64_t)layer->id << 32 | chunk) * 0x9e3779b97f4a7c15ull;

	return &node->loads[h >> 52 & (BUCKETS - 1)];
}

struct node_load *node_loads_find(struct flip_node *node, const struct node_layer *layer, uint32_t chunk)
{
	struct node_load *l = *bucket_of(node, layer, chunk);

	while (l && (l->layer != layer || l->chunk != chunk))
		l = l->next;
	return l;
}

int node_loads_wait(struct node_load *load, node_load_fn fn, void *arg)
{
	struct waiter *w = malloc(sizeof(*w));

	if (!w)
		return -ENOMEM;
	*w = (struct waiter){ .next = load->waiters, .fn = fn, .arg = arg };
	load->waiters = w;
	return 0;
}

/* ---- Ends ------------------------------------------------------------------------------------------------------ */

/* What came of a load that is no longer in the table. */
static void told(struct node_load *load, struct waiter *w, enum flip_priority priority, int r)
{
	struct node_layer *layer = load->layer;
	struct flip_node *node = layer->node;
	const struct flip_index_chunk *c = flip_index_chunk(layer->index, load->chunk);

	if (priority < FLIP_PREHEAT)
		atomic_store(&node->urgent_ms, base_now_ms());
	while (w) {
		struct waiter *next = w->next;

		w->fn(w->arg, r);
		free(w);
		w = next;
	}
	if (r == 0) {
		_Atomic uint64_t *of_node = priority == FLIP_FOREGROUND   ? &node->foreground_bytes
		                            : priority == FLIP_PREFETCH   ? &node->prefetch_bytes
		                            : priority == FLIP_BACKGROUND ? &node->background_bytes
		                                                          : &node->preheat_bytes;

		atomic_fetch_add(of_node, c->blob_size);
		atomic_store(&node->is_dirty, true);
		node_keeper_wake(node);
	}
	if (r < 0 && r != -ECANCELED && load->is_queued) {
		if (priority >= FLIP_BACKGROUND || layer->model)
			atomic_store(&layer->has_failed, true);
		node_queue_failed(node);
	}
	if (load->is_queued)
		node_queue_arrived(node, c->blob_size, load->is_preheat);
}

/* One of the load's ways has ended. The first that brings it ends the load, else the last. */
static void finish(struct node_load *load, int r)
{
	struct node_layer *layer = load->layer;
	struct flip_node *node = layer->node;
	struct waiter *w = NULL;
	enum flip_priority priority;
	bool ends, is_last;

	pthread_mutex_lock(&node->loads_lock);
	is_last = --load->n_ways == 0;
	ends = !load->is_over && (r == 0 || is_last);
	priority = load->priority;
	if (ends) {
		struct node_load **p;

		for (p = bucket_of(node, layer, load->chunk); *p != load; p = &(*p)->next)
			;
		*p = load->next;
		node->n_loads--;
		load->is_over = true;
		w = load->waiters;
		load->waiters = NULL;
		load->n_ways++; /* ours, while we tell */
	}
	pthread_mutex_unlock(&node->loads_lock);
	if (ends) {
		told(load, w, priority, r);
		pthread_mutex_lock(&node->loads_lock);
		is_last = --load->n_ways == 0;
		pthread_mutex_unlock(&node->loads_lock);
	}
	if (!is_last)
		return;
	flip_object_unref(load->store);
	free(load);
	node_layer_unref(layer);
}

/* ---- Arrivals -------------------------------------------------------------------------------------------------- */

/* A chunk's bytes from a peer's store: as they are, if they are. */
static int check_plain(const struct flip_index_object *o, const struct flip_index_chunk *c, const void *data,
                       size_t size, struct err *err)
{
	static const uint8_t none[FLIP_DIGEST_SIZE];
	const uint8_t *digest = memcmp(c->digest, none, sizeof(none)) != 0 ? c->digest : o->digest;
	uint8_t sum[BASE_SHA256_SIZE];
	int r;

	if (size != c->size || (digest == o->digest && c->size != o->size))
		return err_set(err, -EBADMSG, "a chunk has %zu bytes, not %u", size, c->size);
	r = base_sha256_bytes(data, size, sum);
	if (r == 0 && memcmp(sum, digest, sizeof(sum)) != 0)
		r = err_set(err, -EBADMSG, "a chunk has another digest");
	return r;
}

static int take_in(const struct arrival *a, struct err *err)
{
	struct node_load *load = a->load;
	struct node_layer *layer = load->layer;
	const struct flip_index_chunk *c = flip_index_chunk(layer->index, load->chunk);
	bool is_raw = flip_index_format(layer->index) == FLIP_RAW; /* as it is: no copy */
	const void *plain = a->data;
	void *out = NULL;
	int r;

	if (is_raw && a->form == FLIP_PEER_PACKED) {
		r = flip_chunk_verify(c, a->data, err);
	} else if (a->form == FLIP_PEER_PLAIN) {
		r = check_plain(flip_index_chunk_object(layer->index, load->chunk), c, a->data, a->size, err);
	} else {
		out = malloc(c->size ? c->size : 1);
		if (!out)
			return err_set(err, -ENOMEM, "out of memory");
		plain = out;
		r = flip_chunk_decode(flip_index_format(layer->index), c, a->data, a->size, out, err);
	}
	if (r == -EBADMSG)
		atomic_fetch_add(&layer->node->bad_chunks, 1);
	/* What becomes complete is read by overlayfs from the store itself: its pages are wanted, but for those that
	 * nobody has asked for. What stays partial is cached above us, once it was read (flip_object_handed_on). */
	if (r == 0)
		r = flip_object_write(load->store, plain, c->size, c->offset, load->priority < FLIP_BACKGROUND, err);
	if (r == 0 && a->form == FLIP_PEER_PACKED && !is_raw)
		flip_peers_remember(layer->node->peers, layer->digest, c->blob_offset, a->data, a->size);
	free(out);
	return r;
}

static bool try_elsewhere(struct node_load *load);
static bool ask_again(struct node_load *load);

static void arrived(void *arg)
{
	struct arrival *a = arg;
	struct node_load *load = a->load;
	struct flip_node *node = load->layer->node;
	struct err err = { 0 };
	int r = take_in(a, &err);

	if (r == -EBADMSG && a->is_from_peer) {
		flip_peers_blame(node->peers, a->from, err_text(&err));
		if (ask_again(load) || try_elsewhere(load)) {
			free(a);
			return;
		}
	}
	if (r == 0 && a->is_from_peer)
		atomic_fetch_add(&node->peer_bytes, a->size);
	if (r < 0)
		node_complain_chunk(load->layer, load->chunk, r, err_text(&err));
	finish(load, r);
	free(a);
}

static void arrives(struct node_load *load, const struct flip_peer_bytes *bytes, bool is_from_peer)
{
	struct arrival *a = malloc(sizeof(*a) + bytes->size);

	if (!a) {
		finish(load, -ENOMEM);
		return;
	}
	a->load = load;
	a->form = bytes->form;
	a->is_from_peer = is_from_peer;
	a->from = bytes->from;
	a->size = bytes->size;
	memcpy(a->data, bytes->data, bytes->size);
	if (flip_work_add(load->layer->node->work, arrived, a, load->priority == FLIP_FOREGROUND) < 0)
		arrived(a);
}

/* On the fetching thread. */
static void range_done(void *arg, size_t i, int r, const void *data, size_t size, const struct err *err)
{
	struct flip_peer_bytes bytes = { .form = FLIP_PEER_PACKED, .data = data, .size = size };
	struct batch *b = arg;
	struct node_load *load = b->loads[i];

	if (atomic_fetch_sub(&b->n_left, 1) == 1)
		free(b);
	if (r == 0) {
		arrives(load, &bytes, false);
	} else if (r == -ECANCELED || !try_elsewhere(load)) {
		if (r != -ECANCELED)
			node_complain_chunk(load->layer, load->chunk, r, err_text(err));
		finish(load, r);
	}
}

/* On the peers' thread. */
static void peer_done(void *arg, size_t i, int r, const struct flip_peer_bytes *bytes)
{
	struct batch *b = arg;
	struct node_load *load = b->loads[i];

	if (atomic_fetch_sub(&b->n_left, 1) == 1)
		free(b);
	if (r == 0) {
		arrives(load, bytes, true);
	} else if (!try_elsewhere(load)) {
		if (r != -ECANCELED && !load->layer->blob)
			node_complain_chunk(load->layer, load->chunk, -EHOSTUNREACH,
			                    "no member of the cluster gives it");
		finish(load, r == -ECANCELED ? r : -EIO);
	}
}

/* ---- Asking ---------------------------------------------------------------------------------------------------- */

static bool asks_peers(const struct node_layer *layer)
{
	return atomic_load(&layer->claims) && flip_peers_are_there(layer->node->peers);
}

/* Whether a peer could be told by its bytes: they have a digest of their own. */
static bool is_provable(const struct node_load *load)
{
	const struct flip_index *ix = load->layer->index;

	return !flip_index_is_unverified(ix, flip_index_chunk_object(ix, load->chunk));
}

struct node_load *node_loads_new(struct node_layer *layer, uint32_t chunk, struct flip_object *store,
                                 enum flip_priority priority)
{
	struct flip_node *node = layer->node;
	struct node_load *l = calloc(1, sizeof(*l));
	struct node_load **bucket = bucket_of(node, layer, chunk);

	if (!l)
		return NULL;
	l->layer = layer;
	atomic_fetch_add(&layer->n_refs, 1);
	l->chunk = chunk;
	l->priority = priority;
	l->store = flip_object_ref(store);
	l->n_ways = 1;
	l->most = FLIP_PEER_RELAY;
	l->has_origin = !asks_peers(layer);
	l->next = *bucket;
	*bucket = l;
	node->n_loads++;
	return l;
}

/* The loads' number in fetch, for those that are still there: one that is gone may have been followed by another of the
 * same chunk at the same address, which is raised in vain then. */
static void note_number(struct node_layer *layer, struct node_load *const *loads, const uint32_t *chunks, size_t n,
                        int64_t number)
{
	struct flip_node *node = layer->node;

	pthread_mutex_lock(&node->loads_lock);
	for (size_t i = 0; i < n; i++) {
		if (node_loads_find(node, layer, chunks[i]) == loads[i])
			loads[i]->number = number;
	}
	pthread_mutex_unlock(&node->loads_lock);
}

static struct batch *batch_of(struct node_load *const *loads, size_t n)
{
	struct batch *b = malloc(sizeof(*b) + n * sizeof(*b->loads));

	if (!b)
		return NULL;
	atomic_init(&b->n_left, n);
	memcpy(b->loads, loads, n * sizeof(*b->loads));
	return b;
}

static void count_why(struct node_layer *layer, struct node_load *const *loads, size_t n, enum node_why why)
{
	struct flip_node *node = layer->node;
	_Atomic uint64_t *of_node = why == NODE_WHY_OURS      ? &node->origin_own_bytes
	                            : why == NODE_WHY_RELAYED ? &node->origin_relayed_bytes
	                                                      : &node->origin_instead_bytes;

	for (size_t i = 0; i < n; i++)
		atomic_fetch_add(of_node, flip_index_chunk(layer->index, loads[i]->chunk)->blob_size);
}

static bool ask_peers(struct node_layer *layer, struct node_load *const *loads, size_t n, enum flip_priority priority,
                      int most);

void node_loads_ask_origin(struct node_layer *layer, struct node_load *const *loads, size_t n,
                           enum flip_priority priority, enum node_why why)
{
	struct batch *b = batch_of(loads, n);
	struct flip_range *ranges = malloc(n * sizeof(*ranges));
	uint32_t *chunks = malloc(n * sizeof(*chunks));
	struct err err = { 0 };
	int64_t number = -ENOMEM;

	if (!layer->blob) {
		free(b);
		free(ranges);
		free(chunks);
		if (ask_peers(layer, loads, n, priority, FLIP_PEER_HOLDER))
			return;
		for (size_t i = 0; i < n; i++)
			finish(loads[i], -EHOSTUNREACH);
		return;
	}
	count_why(layer, loads, n, why);
	/* What lies between our groups is fetched by its owners. */
	flip_fetch_share(layer->node->fetch, asks_peers(layer) ? flip_peers_others(layer->node->peers) : 0);
	if (b && ranges && chunks) {
		for (size_t i = 0; i < n; i++) {
			const struct flip_index_chunk *c = flip_index_chunk(layer->index, loads[i]->chunk);

			chunks[i] = loads[i]->chunk;
			ranges[i] = (struct flip_range){ c->blob_offset, c->blob_size };
		}
		number = flip_blob_read(layer->blob, ranges, n, priority, range_done, b, &err);
	}
	if (number < 0) {
		node_complain_chunk(layer, loads[0]->chunk, (int)number, err_text(&err));
		free(b);
		for (size_t i = 0; i < n; i++)
			finish(loads[i], (int)number);
	} else {
		note_number(layer, loads, chunks, n, number);
	}
	free(ranges);
	free(chunks);
}

/* False: nobody was asked. */
static bool ask_peers(struct node_layer *layer, struct node_load *const *loads, size_t n, enum flip_priority priority,
                      int most)
{
	struct flip_peer_piece *pieces = malloc(n * sizeof(*pieces));
	struct batch *b = batch_of(loads, n);
	bool asked = false;

	if (b && pieces) {
		for (size_t i = 0; i < n; i++) {
			const struct flip_index_chunk *c = flip_index_chunk(layer->index, loads[i]->chunk);

			pieces[i] = (struct flip_peer_piece){ c->blob_offset, c->blob_size, c->inner_offset };
		}
		asked = node_peers_read(layer, pieces, n, priority, most, peer_done, b) == 0;
	}
	if (!asked)
		free(b);
	free(pieces);
	return asked;
}

void node_loads_submit(struct node_layer *layer, struct node_load *const *loads, size_t n, enum flip_priority priority,
                       int most, enum node_why why)
{
	struct flip_node *node = layer->node;
	struct flip_peer_blob blob = { .digest = layer->digest };
	struct node_load **ours, **theirs;
	size_t n_ours = 0, n_theirs = 0;

	if (most == NODE_ORIGIN || !asks_peers(layer)) {
		node_loads_ask_origin(layer, loads, n, priority, why);
		return;
	}
	ours = malloc(2 * n * sizeof(struct node_load *));
	if (!ours) {
		node_loads_ask_origin(layer, loads, n, priority, why);
		return;
	}
	theirs = ours + n;
	blob.seeds = atomic_load(&layer->claims)->seeds;
	pthread_mutex_lock(&node->loads_lock);
	for (size_t i = 0; i < n; i++) {
		uint64_t at = flip_index_chunk(layer->index, loads[i]->chunk)->blob_offset;
		int role = !is_provable(loads[i]) ? -EXDEV
		                                  : flip_peers_role(node->peers, &blob, at, (enum flip_peer_role)most);

		loads[i]->most = role < 0 ? NODE_ORIGIN : role;
		loads[i]->has_origin = role < 0;
		if (role < 0)
			ours[n_ours++] = loads[i];
		else
			theirs[n_theirs++] = loads[i];
	}
	pthread_mutex_unlock(&node->loads_lock);
	if (n_theirs && !ask_peers(layer, theirs, n_theirs, priority, most)) {
		for (size_t i = 0; i < n_theirs; i++) {
			if (!try_elsewhere(theirs[i]))
				finish(theirs[i], -EIO);
		}
	}
	if (n_ours)
		node_loads_ask_origin(layer, ours, n_ours, priority, why);
	free(ours);
}

/* A way of the load has failed: the next one takes its place. False: there is none (or another one is under way that
 * will do). */
static bool try_elsewhere(struct node_load *load)
{
	struct node_layer *layer = load->layer;
	struct flip_node *node = layer->node;
	enum flip_priority priority;
	bool origin = false, holders = false;

	pthread_mutex_lock(&node->loads_lock);
	priority = load->priority;
	if (!load->is_over && !load->has_origin)
		origin = load->has_origin = true;
	else if (!load->is_over && !load->has_holders && load->n_ways == 1 && asks_peers(layer) && is_provable(load))
		holders = load->has_holders = true;
	pthread_mutex_unlock(&node->loads_lock);
	if (origin)
		node_loads_ask_origin(layer, &load, 1, priority, NODE_WHY_INSTEAD);
	return origin || (holders && ask_peers(layer, &load, 1, priority, FLIP_PEER_HOLDER));
}

/* One that lied is left out by now: so its next in rank gets the question of all who were lied to, and the registry
 * one. */
static bool ask_again(struct node_load *load)
{
	enum { MAX_AGAIN = 3 };
	struct node_layer *layer = load->layer;
	struct flip_node *node = layer->node;
	uint64_t at = flip_index_chunk(layer->index, load->chunk)->blob_offset;
	struct flip_peer_blob blob = { .digest = layer->digest };
	enum flip_priority priority;
	bool may;

	if (!asks_peers(layer))
		return false;
	blob.seeds = atomic_load(&layer->claims)->seeds;

	pthread_mutex_lock(&node->loads_lock);
	priority = load->priority;
	may = !load->is_over && !load->has_origin && load->n_again < MAX_AGAIN &&
	      flip_peers_role(node->peers, &blob, at, FLIP_PEER_RELAY) >= 0;
	load->n_again += may;
	pthread_mutex_unlock(&node->loads_lock);
	return may && ask_peers(layer, &load, 1, priority, FLIP_PEER_RELAY);
}
