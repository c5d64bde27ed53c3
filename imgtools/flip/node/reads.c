/* Reads of what has not arrived: one fetch for each chunk, however many wait for it.
 *
 *   a read      -> the missing chunks it covers; those under way get it as one more waiter (and are raised when they
 *                  were only prefetched), the others are asked for, all in one request to fetch
 *   an arrival  -> on the fetching thread: copied and handed to the work threads
 *               -> decoded, verified against its digest, written into the store
 *               -> its waiters have one chunk less to wait for; with none left the read is answered from the store
 *   a failure   -> EIO for the reads that wait now; the next read tries again
 *
 * A load comes by one of three ways: from the peer who owns it, else from its origin, else from whichever peer has it
 * (peers.c asks). Peers who asked us wait for the same loads as reads do; one that must not wait for a peer of ours
 * gives the load a second way, and the first that brings it counts.
 *
 * A chunk is under way from the moment it is in the table until its waiters were told: so there is never a second fetch
 * of it, and never a read that waits for nothing. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/sha256.h"
#include "node/node_internal.h"

enum { BUCKETS = 4096 /* of the table of loads; a power of two */ };

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

struct waiter {
	struct waiter *next;
	struct waiting *waiting; /* NULL: a peer of ours waits */
	node_load_fn fn;
	void *arg;
};

struct node_load {              /* a chunk under way */
	struct node_load *next; /* in its bucket; protected by loads_lock, as the next two */
	enum flip_priority priority;
	struct waiter *waiters;
	int64_t number;               /* of fetch; 0 until it is known; protected by loads_lock, as the next five */
	int most;                     /* who may be asked for it: enum flip_peer_role, or NODE_ORIGIN */
	unsigned n_ways;              /* under way */
	bool has_origin, has_holders; /* a way to the registry, to whoever has it, was tried */
	uint8_t n_again;              /* peers were asked once more, because one has lied */
	bool is_over;
	bool is_queued;           /* counted by the queue */
	struct node_layer *layer; /* a reference */
	uint32_t chunk;
	struct flip_object *store; /* a reference */
};

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

static struct node_load *find_load(struct flip_node *node, const struct node_layer *layer, uint32_t chunk)
{
	struct node_load *l = *bucket_of(node, layer, chunk);

	while (l && (l->layer != layer || l->chunk != chunk))
		l = l->next;
	return l;
}

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

/* What came of a load that is no longer in the table. */
static void told(struct node_load *load, struct waiter *w, enum flip_priority priority, int r)
{
	struct node_layer *layer = load->layer;
	struct flip_node *node = layer->node;
	const struct flip_index_chunk *c = flip_index_chunk(layer->index, load->chunk);

	while (w) {
		struct waiter *next = w->next;

		if (w->waiting)
			one_less(w->waiting, r == -ENOSPC ? -ENOSPC : r < 0 ? -EIO : 0);
		else
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
		node_queue_arrived(node, c->blob_size);
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

/* With loads_lock held: a new load, without waiters. */
static struct node_load *new_load(struct node_layer *layer, uint32_t chunk, struct flip_object *store,
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
		if (find_load(node, layer, chunks[i]) == loads[i])
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

enum why {              /* the origin is asked */
	   WHY_OURS,    /* to us belongs the group, or there are no peers */
	   WHY_RELAYED, /* a peer wants it of us */
	   WHY_INSTEAD, /* peers should have had it */
};

static void count_why(struct node_layer *layer, struct node_load *const *loads, size_t n, enum why why)
{
	struct flip_node *node = layer->node;
	_Atomic uint64_t *of_node = why == WHY_OURS      ? &node->origin_own_bytes
	                            : why == WHY_RELAYED ? &node->origin_relayed_bytes
	                                                 : &node->origin_instead_bytes;

	for (size_t i = 0; i < n; i++)
		atomic_fetch_add(of_node, flip_index_chunk(layer->index, loads[i]->chunk)->blob_size);
}

static bool ask_peers(struct node_layer *layer, struct node_load *const *loads, size_t n, enum flip_priority priority,
                      int most);

/* The registry, the addresses, or members who have it for everybody. From the call on a load may be over and gone. */
static void ask_origin(struct node_layer *layer, struct node_load *const *loads, size_t n, enum flip_priority priority,
                       enum why why)
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

/* Asks for loads that are in the table already, with one way each; all of one layer and with the same `most`. */
static void submit(struct node_layer *layer, struct node_load *const *loads, size_t n, enum flip_priority priority,
                   int most, enum why why)
{
	struct flip_node *node = layer->node;
	struct flip_peer_blob blob = { .digest = layer->digest };
	struct node_load **ours, **theirs;
	size_t n_ours = 0, n_theirs = 0;

	if (most == NODE_ORIGIN || !asks_peers(layer)) {
		ask_origin(layer, loads, n, priority, why);
		return;
	}
	ours = malloc(2 * n * sizeof(struct node_load *));
	if (!ours) {
		ask_origin(layer, loads, n, priority, why);
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
		ask_origin(layer, ours, n_ours, priority, why);
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
		ask_origin(layer, &load, 1, priority, WHY_INSTEAD);
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

/* With loads_lock held: the read waits for the chunk too. */
static int join(struct node_load *l, struct waiting *w)
{
	struct waiter *x = malloc(sizeof(*x));

	if (!x)
		return -ENOMEM;
	*x = (struct waiter){ .waiting = w };
	x->next = l->waiters;
	l->waiters = x;
	atomic_fetch_add(&w->n_left, 1);
	return 0;
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
		l = find_load(node, layer, c);
		if (l && l->priority != FLIP_FOREGROUND) {
			l->priority = FLIP_FOREGROUND;
			if (n_raised < sizeof(raised) / sizeof(*raised) && l->number > 0)
				raised[n_raised++] = l->number;
			else if (n_raised_at < sizeof(raised_at) / sizeof(*raised_at) && l->number <= 0)
				raised_at[n_raised_at++] = flip_index_chunk(layer->index, c)->blob_offset;
		}
		if (!l) {
			l = new_load(layer, c, store, FLIP_FOREGROUND);
			if (l)
				asked[n_asked++] = l;
		}
		if (!l || join(l, w) < 0)
			atomic_store(&w->error, -ENOMEM);
	}
	pthread_mutex_unlock(&node->loads_lock);
	for (size_t i = 0; i < n_raised; i++)
		flip_fetch_raise(node->fetch, raised[i], FLIP_FOREGROUND);
	for (size_t i = 0; i < n_raised_at; i++) /* not with the lock: it may tell of what failed */
		flip_peers_raise(node->peers, layer->digest, raised_at[i], FLIP_FOREGROUND);
	if (n_asked)
		submit(layer, asked, n_asked, FLIP_FOREGROUND, FLIP_PEER_RELAY, WHY_OURS);
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
	if (!find_load(node, layer, chunk) && !chunk_is_there(flip_index_chunk(layer->index, chunk), store)) {
		l = new_load(layer, chunk, store, priority);
		if (l)
			l->is_queued = true;
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
		node_queue_asked(layer->node, flip_index_chunk(layer->index, chunks[i])->blob_size);
		/* Each by itself, so that a reader raises just the one that he waits for; fetch puts those that lie
		 * together into one request. */
		submit(layer, &l, 1, priority, FLIP_PEER_RELAY, WHY_OURS);
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

	if (!w || !node_layer_can_fetch(layer)) {
		free(w);
		return w ? -ENOENT : -ENOMEM;
	}
	*w = (struct waiter){ .fn = fn, .arg = arg };
	pthread_mutex_lock(&node->loads_lock);
	l = find_load(node, layer, chunk);
	if (!l) {
		l = new_load(layer, chunk, store, priority);
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
		submit(layer, &l, 1, priority, most, WHY_RELAYED);
	else if (needs_origin)
		ask_origin(layer, &l, 1, priority, WHY_RELAYED);
	return 0;
}
