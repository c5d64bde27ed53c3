/* Our questions. A piece goes from one member's queue to the next until somebody gives it, or until those who should
 * have it were asked in vain; then the caller asks the origin.
 *
 *   the owner of its group (in our zone, then of all)  -> gives it, fetching it from the origin when it must
 *     busy, names holders                              -> one of them, else the owner again a moment later
 *     gone, stalled, refused, lied, does not have it   -> the next in rank
 *   FLIP_PEER_HOLDER                                   -> whoever gave us something of the blob, then the first in rank
 *
 * Pieces of one blob that wait for the same member travel in one question, of at most 1 MiB; the urgent ones
 * first. */
#include <errno.h>
#include <openssl/rand.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "peer_internal.h"

enum {
	MAX_QUESTION = 1 << 20, /* bytes of pieces */
	MAX_KEPT_BLOBS = 256,
	LACKS_US = 10000000,
	BUSY_US = 150000, /* before a busy owner is asked again */
};

void peer_trace_new(char ret[FLIP_PEER_TRACE])
{
	uint8_t bytes[16] = { 0 };

	(void)RAND_bytes(bytes, sizeof(bytes));
	for (size_t i = 0; i < sizeof(bytes); i++)
		(void)snprintf(ret + 2 * i, 3, "%02x", bytes[i]);
}

/* ---- Blobs ----------------------------------------------------------------------------------------------------- */

void peer_blob_free(struct asked_blob *b)
{
	free(b->image);
	free(b->grant);
	free(b->seeds);
	free(b);
}

static struct asked_blob *blob_get(struct flip_peers *p, const struct flip_peer_blob *blob)
{
	const char *image = blob->image ? blob->image : "", *grant = blob->grant ? blob->grant : "public";
	const char *seeds = blob->seeds ? blob->seeds : "";
	struct asked_blob *b = p->blobs;

	while (b && (strcmp(b->digest, blob->digest) != 0 || strcmp(b->kind, blob->kind) != 0 ||
	             strcmp(b->image, image) != 0 || strcmp(b->grant, grant) != 0 || strcmp(b->seeds, seeds) != 0))
		b = b->next;
	if (b) {
		b->n_refs++;
		return b;
	}
	b = calloc(1, sizeof(*b));
	if (!b || !(b->image = strdup(image)) || !(b->grant = strdup(grant)) || !(b->seeds = strdup(seeds))) {
		if (b)
			peer_blob_free(b);
		return NULL;
	}
	b->kind = blob->kind;
	(void)snprintf(b->digest, sizeof(b->digest), "%s", blob->digest);
	b->n_refs = 1;
	b->next = p->blobs;
	p->blobs = b;
	p->n_blobs++;
	return b;
}

void peer_blob_unref(struct flip_peers *p, struct asked_blob *b)
{
	if (--b->n_refs > 0 || p->n_blobs <= MAX_KEPT_BLOBS)
		return;
	for (struct asked_blob **q = &p->blobs; *q; q = &(*q)->next) {
		if (*q == b) {
			*q = b->next;
			break;
		}
	}
	p->n_blobs--;
	peer_blob_free(b);
}

void peer_blob_has(struct asked_blob *b, uint32_t member)
{
	for (unsigned i = 0; i < b->n_holders; i++) {
		if (b->holders[i] == member)
			return;
	}
	if (b->n_holders < PEER_HOLDERS)
		b->holders[b->n_holders++] = member;
	else
		b->holders[member % PEER_HOLDERS] = member;
}

void peer_blob_lacks(struct asked_blob *b, uint32_t member, int64_t now_us)
{
	for (unsigned i = 0; i < b->n_holders; i++) {
		if (b->holders[i] == member) {
			b->holders[i] = b->holders[--b->n_holders];
			break;
		}
	}
	b->lacks[b->next_lack].member = member;
	b->lacks[b->next_lack].until_us = now_us + LACKS_US;
	b->next_lack = (b->next_lack + 1) % 16;
}

bool peer_blob_is_lacked(const struct asked_blob *b, uint32_t member, int64_t now_us)
{
	for (unsigned i = 0; i < 16; i++) {
		if (b->lacks[i].until_us > now_us && b->lacks[i].member == member)
			return true;
	}
	return false;
}

/* ---- Whom to ask ------------------------------------------------------------------------------------------------ */

struct choice {
	uint32_t member; /* PEER_NOBODY: the origin */
	enum flip_peer_role role;
};

unsigned peer_seeds(const struct flip_peers *p, const char *seeds, uint32_t ret[FLIP_PEER_MAX_SEEDS])
{
	char name[FLIP_PEER_NAME];
	unsigned n = 0;

	while (n < FLIP_PEER_MAX_SEEDS && peer_name_next(&seeds, name) > 0) {
		uint32_t m = peer_members_find(&p->members, name);

		if (m != PEER_NOBODY && m != p->members.self)
			ret[n++] = m;
	}
	return n;
}

static bool may_hold(const struct flip_peers *p, uint32_t member, const uint32_t *tried, size_t n_tried, int64_t now_us)
{
	for (size_t k = 0; k < n_tried; k++) {
		if (tried[k] == member)
			return false;
	}
	return member != p->members.self && peer_member_is_live(p->members.items[member], now_us);
}

static struct choice choose_holder(const struct flip_peers *p, const struct asked_blob *b, const uint32_t *seeds,
                                   unsigned n_seeds, uint64_t group, const uint32_t *tried, size_t n_tried,
                                   int64_t now_us)
{
	uint32_t ranked[16];
	size_t n;

	for (unsigned i = 0; i < n_seeds; i++) {
		uint32_t m = seeds[(group + i) % n_seeds];

		if (may_hold(p, m, tried, n_tried, now_us))
			return (struct choice){ m, FLIP_PEER_HOLDER };
	}
	for (unsigned i = 0; b && i < b->n_holders; i++) {
		if (may_hold(p, b->holders[i], tried, n_tried, now_us))
			return (struct choice){ b->holders[i], FLIP_PEER_HOLDER };
	}
	n = peer_rank(&p->members, group, NULL, now_us, tried, n_tried, ranked, 16);
	for (size_t i = 0; i < n; i++) {
		if (ranked[i] != p->members.self && !(b && peer_blob_is_lacked(b, ranked[i], now_us)))
			return (struct choice){ ranked[i], FLIP_PEER_HOLDER };
	}
	return (struct choice){ PEER_NOBODY, FLIP_PEER_HOLDER };
}

static struct choice choose(struct flip_peers *p, const struct asked_blob *b, const char *digest,
                            const char *seed_names, uint64_t offset, enum flip_peer_role most, const uint32_t *tried,
                            size_t n_tried)
{
	struct peer_members *m = &p->members;
	uint64_t group = peer_group_hash(digest, offset);
	int64_t now = peer_now_us();
	uint32_t first[2], owner, of_zone, seeds[FLIP_PEER_MAX_SEEDS];
	unsigned n_seeds = peer_seeds(p, seed_names, seeds);
	uint32_t out[PEER_MAX_TRIES * 3 + PEER_PROBES + 1 + 16 + FLIP_PEER_MAX_SEEDS];
	size_t n;

	if (most == FLIP_PEER_HOLDER)
		return choose_holder(p, b, seeds, n_seeds, group, tried, n_tried, now);
	/* Who said that it can have nothing of the blob is no owner of it, nor who has it for everybody. */
	if (n_tried)
		memcpy(out, tried, n_tried * sizeof(*out));
	for (unsigned i = 0; b && i < 16; i++) {
		if (b->lacks[i].until_us > now)
			out[n_tried++] = b->lacks[i].member;
	}
	for (unsigned i = 0; i < n_seeds; i++)
		out[n_tried++] = seeds[i];
	tried = out;
	/* We are never left out, nor counted as tried: where we are the first, it is ours. */
	n = peer_rank(m, group, NULL, now, tried, n_tried, first, 2);
	owner = n ? first[0] : PEER_NOBODY;
	if (n == 2 && peer_owner(m, digest, offset) == first[1])
		owner = first[1];
	if (!n || owner == m->self)
		return (struct choice){ PEER_NOBODY, FLIP_PEER_OWNER };
	if (most == FLIP_PEER_RELAY && m->has_zones && peer_rank(m, group, m->zone, now, tried, n_tried, &of_zone, 1) &&
	    of_zone != m->self && of_zone != owner)
		return (struct choice){ of_zone, FLIP_PEER_RELAY };
	return (struct choice){ owner, FLIP_PEER_OWNER };
}

int flip_peers_role(struct flip_peers *p, const struct flip_peer_blob *blob, uint64_t offset, enum flip_peer_role most)
{
	struct choice c;

	if (!p || !atomic_load(&p->n_live))
		return -EXDEV;
	pthread_mutex_lock(&p->lock);
	c = choose(p, NULL, blob->digest, blob->seeds ? blob->seeds : "", offset, most, NULL, 0);
	pthread_mutex_unlock(&p->lock);
	return c.member == PEER_NOBODY ? -EXDEV : (int)c.role;
}

bool flip_peers_are_there(const struct flip_peers *p)
{
	return p && atomic_load(&p->n_live) > 0;
}

unsigned flip_peers_others(const struct flip_peers *p)
{
	return p ? atomic_load(&p->n_live) : 0;
}

void peer_batch_unref(struct flip_peers *p, struct batch *b)
{
	if (--b->n_refs > 0)
		return;
	peer_blob_unref(p, b->blob);
	free(b);
}

/* ---- Pieces ----------------------------------------------------------------------------------------------------- */

static void leave_queue(struct flip_peers *p, struct piece *x)
{
	if (x->is_queued) {
		TAILQ_REMOVE(&p->queues[x->member]->list[x->priority], x, in_list);
		p->n_queued--;
	}
	if (x->is_resting)
		TAILQ_REMOVE(&p->resting, x, in_list);
	x->is_queued = x->is_resting = false;
}

void peer_piece_over(struct flip_peers *p, struct piece *x, int r)
{
	struct told *t;

	if (x->is_over)
		return;
	x->is_over = true;
	leave_queue(p, x);
	if (r < 0 && r != -ECANCELED)
		atomic_fetch_add(&p->counts.pieces_gone_to_origin, 1);
	if (r == 0) { /* was told with its bytes */
		peer_batch_unref(p, x->batch);
		return;
	}
	t = &x->told; /* its memory is the batch's, which lives until it was told */
	*t = (struct told){ NULL, x, r };
	*p->last_told = t;
	p->last_told = &t->next;
}

void peer_piece_ask(struct flip_peers *p, struct piece *x, uint32_t member, enum flip_peer_role role)
{
	leave_queue(p, x);
	x->member = member;
	x->role = role;
	x->is_queued = true;
	p->n_queued++;
	TAILQ_INSERT_TAIL(&p->queues[member]->list[x->priority], x, in_list);
}

void peer_piece_rest(struct flip_peers *p, struct piece *x, int64_t due_us)
{
	leave_queue(p, x);
	x->is_resting = true;
	x->due_us = due_us;
	TAILQ_INSERT_TAIL(&p->resting, x, in_list);
}

void peer_piece_drop(struct flip_peers *p, struct piece *x)
{
	leave_queue(p, x);
	if (!x->n_calls)
		peer_piece_over(p, x, -ECANCELED);
}

void peer_piece_next(struct flip_peers *p, struct piece *x, uint32_t failed)
{
	const size_t max = sizeof(x->tried) / sizeof(*x->tried);
	struct choice c;

	if (x->is_over || x->n_calls)
		return;
	if (failed != PEER_NOBODY && x->n_tried < max)
		x->tried[x->n_tried++] = failed;
	if (p->is_stopping) {
		peer_piece_over(p, x, -ECANCELED);
		return;
	}
	if (++x->n_hops > PEER_MAX_HOPS || x->n_tried >= (x->most == FLIP_PEER_HOLDER ? max : PEER_MAX_TRIES)) {
		peer_piece_over(p, x, -EHOSTUNREACH);
		return;
	}
	c = choose(p, x->batch->blob, x->batch->blob->digest, x->batch->blob->seeds, x->what.offset, x->most, x->tried,
	           x->n_tried);
	if (c.member == PEER_NOBODY)
		peer_piece_over(p, x, -EHOSTUNREACH);
	else
		peer_piece_ask(p, x, c.member, c.role);
}

uint32_t peer_piece_probe(struct flip_peers *p, struct piece *x, const uint32_t *out, size_t n_out)
{
	uint32_t tried[PEER_MAX_TRIES * 3 + PEER_PROBES + 1];
	struct choice c;

	memcpy(tried, x->tried, x->n_tried * sizeof(*tried));
	memcpy(tried + x->n_tried, out, n_out * sizeof(*tried));
	c = choose(p, x->batch->blob, x->batch->blob->digest, x->batch->blob->seeds, x->what.offset, x->most, tried,
	           x->n_tried + n_out);
	if (c.member != PEER_NOBODY)
		peer_piece_ask(p, x, c.member, c.role);
	return c.member;
}

/* ---- Questions -------------------------------------------------------------------------------------------------- */

/* The first of a member's queue, and what goes with it. Returns how many. */
static size_t take_pieces(struct flip_peers *p, struct queue *q, enum flip_priority priority, struct piece **ret)
{
	struct piece *first = TAILQ_FIRST(&q->list[priority]), *x, *next;
	uint64_t bytes = 0;
	size_t n = 0;

	for (x = first; x && n < FLIP_PEER_MAX_PIECES; x = next) {
		next = TAILQ_NEXT(x, in_list);
		if (x->batch->blob != first->batch->blob || x->role != first->role)
			continue;
		if (n && bytes + x->what.size > MAX_QUESTION)
			break;
		bytes += x->what.size;
		leave_queue(p, x);
		ret[n++] = x;
	}
	return n;
}

static bool may_start(struct flip_peers *p, uint32_t member, enum flip_priority priority)
{
	unsigned max = p->o.max_asked, n_live = atomic_load(&p->n_live), of_member;
	bool is_foreground = priority == FLIP_FOREGROUND;

	/* Many answers at once on one link are slower than a few, one after the other; and a quarter of the places
	 * there is for others. */
	of_member = n_live ? (max - max / 4) / n_live : 1;
	of_member = of_member < 1 ? 1 : of_member > PEER_PER_MEMBER ? PEER_PER_MEMBER : of_member;

	if (!is_foreground && peer_bucket_is_empty(&p->down, priority))
		return false;
	return p->n_calls < (is_foreground ? max + max / 4 + 1 : max) &&
	       p->members.items[member]->n_active < of_member + is_foreground;
}

/* What waits for somebody who was left out meanwhile is asked elsewhere. */
static void send_elsewhere(struct flip_peers *p, struct piece_list *list)
{
	struct piece *x, *next;

	for (x = TAILQ_FIRST(list); x; x = next) {
		next = TAILQ_NEXT(x, in_list);
		leave_queue(p, x);
		peer_piece_next(p, x, PEER_NOBODY);
	}
}

void peer_pump(struct flip_peers *p)
{
	struct piece *pieces[FLIP_PEER_MAX_PIECES];
	int64_t now = peer_now_us();

	for (int priority = 0; priority < FLIP_N_PRIORITIES && p->n_queued && !p->is_stopping; priority++) {
		bool goes_on = true;

		while (goes_on) { /* in turn over members, so that none is asked for all at once */
			goes_on = false;
			for (uint32_t m = 0; m < p->n_queues; m++) {
				struct piece_list *list = &p->queues[m]->list[priority];
				size_t n;

				if (TAILQ_EMPTY(list))
					continue;
				if (!peer_member_is_live(p->members.items[m], now)) {
					send_elsewhere(p, list);
					goes_on = true;
					continue;
				}
				if (!may_start(p, m, (enum flip_priority)priority))
					continue;
				n = take_pieces(p, p->queues[m], (enum flip_priority)priority, pieces);
				if (peer_call_start(p, m, pieces, n) == 0)
					goes_on = true;
			}
		}
	}
}

void peer_unlock_and_tell(struct flip_peers *p)
{
	struct told *t = p->told, *next;

	p->told = NULL;
	p->last_told = &p->told;
	pthread_mutex_unlock(&p->lock);
	for (; t; t = next) {
		struct batch *b = t->piece->batch;

		next = t->next;
		b->done(b->arg, (size_t)(t->piece - b->pieces), t->r, NULL);
		pthread_mutex_lock(&p->lock);
		peer_batch_unref(p, b);
		pthread_mutex_unlock(&p->lock);
	}
}

int flip_peers_read(struct flip_peers *p, const struct flip_peer_blob *blob, const struct flip_peer_piece *pieces,
                    size_t n, enum flip_priority priority, enum flip_peer_role most, const char *trace,
                    flip_peer_done done, void *arg)
{
	struct batch *b;
	int r = 0;

	if (!p || n == 0 || n > 1u << 20 || !peer_digest_is_valid(blob->digest))
		return -EINVAL;
	b = calloc(1, sizeof(*b) + n * sizeof(b->pieces[0]));
	if (!b)
		return -ENOMEM;
	b->done = done;
	b->arg = arg;
	b->n = n;
	if (trace && *trace)
		(void)snprintf(b->trace, sizeof(b->trace), "%.32s", trace);
	else
		peer_trace_new(b->trace);
	pthread_mutex_lock(&p->lock);
	b->blob = p->is_stopping ? NULL : blob_get(p, blob);
	if (!b->blob) {
		r = p->is_stopping ? -ECANCELED : -ENOMEM;
		pthread_mutex_unlock(&p->lock);
		free(b);
		return r;
	}
	b->n_refs = n + 1; /* one is ours, until all are queued */
	atomic_fetch_add(&p->counts.pieces_asked, n);
	for (size_t i = 0; i < n; i++) {
		b->pieces[i] = (struct piece){
			.batch = b, .what = pieces[i], .priority = priority, .most = most, .suspect = PEER_NOBODY
		};
		peer_piece_next(p, &b->pieces[i], PEER_NOBODY);
	}
	peer_batch_unref(p, b);
	peer_pump(p);
	peer_unlock_and_tell(p);
	return 0;
}

void flip_peers_raise(struct flip_peers *p, const char *digest, uint64_t offset, enum flip_priority priority)
{
	if (!p)
		return;
	pthread_mutex_lock(&p->lock);
	peer_calls_raise(p, digest, offset, priority);
	for (size_t m = 0; m < p->n_queues; m++) {
		for (int k = priority + 1; k < FLIP_N_PRIORITIES; k++) {
			struct piece *x, *next;

			for (x = TAILQ_FIRST(&p->queues[m]->list[k]); x; x = next) {
				next = TAILQ_NEXT(x, in_list);
				if (x->what.offset != offset || strcmp(x->batch->blob->digest, digest) != 0)
					continue;
				leave_queue(p, x);
				x->priority = priority;
				peer_piece_ask(p, x, x->member, x->role);
			}
		}
	}
	peer_pump(p);
	peer_unlock_and_tell(p);
}

void flip_peers_blame(struct flip_peers *p, unsigned from, const char *what)
{
	pthread_mutex_lock(&p->lock);
	if (from < p->members.n) {
		atomic_fetch_add(&p->counts.garbage, 1);
		peer_member_failed(p->members.items[from], true, peer_now_us(), what);
	}
	pthread_mutex_unlock(&p->lock);
}

/* ---- Time ------------------------------------------------------------------------------------------------------- */

bool peer_tick(void *arg)
{
	struct flip_peers *p = arg;
	int64_t now = peer_now_us();
	struct piece *x;
	bool goes_on;

	pthread_mutex_lock(&p->lock);
	while ((x = TAILQ_FIRST(&p->resting)) && x->due_us <= now) {
		leave_queue(p, x);
		peer_piece_next(p, x, PEER_NOBODY);
	}
	peer_calls_watch(p, now);
	peer_trials(p, now);
	peer_pump(p);
	goes_on = p->n_queued > 0 || !TAILQ_EMPTY(&p->resting);
	peer_unlock_and_tell(p);
	return goes_on;
}
