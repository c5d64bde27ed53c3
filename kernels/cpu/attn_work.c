/* The items of attention's parallel loops, and asking for what they will read.
 *
 * An answer's keys and values come from memory, 12 GB/s of them a thread where all four of them together read 50: only
 * if requests are under way all the time. What the processor guesses ends at each page of 4 KiB. So what a
 * thread will use is known here row by row, keys and values of a step in turns, from item to item of the chunk
 * that it has claimed, and is brought into the second-level cache one step ahead. Requests are spread evenly over the
 * arithmetic, which is why the products make them: after many at once a core waits until most have been served, and
 * then computes with none under way. */
#include "cpu/attn.h"

enum { ROWS = 4 /* that products like to take at a time */ };

static size_t min_size(size_t a, size_t b)
{
	return a < b ? a : b;
}

/* ---- Which items there are ---- */

bool cpu_attn_takes_many(const struct attn_call *c, size_t n_rows)
{
	return c->cpu->isa->attn_many &&
	       (c->kernels == ATTN_FOR_MANY || (c->kernels == ATTN_BY_ROWS && n_rows > ATTN_FEW_ROWS));
}

/* Tile `index` of the sequence, over its heads; late tiles, which see more, come first. */
static void tile_init(const struct attn_call *c, struct attn_tile *t, const struct kn_seq *seq, size_t index)
{
	size_t n_tiles = attn_tiles(c, seq), rows = (size_t)seq->n_q * c->n_rep;

	t->members = NULL;
	t->seq = seq;
	t->kv_head = (uint32_t)(index % c->kv->n_kv_head);
	t->first_row = n_tiles == 1 ? 0 : (n_tiles - 1 - index / c->kv->n_kv_head) * c->tile_rows;
	t->n_rows = min_size(c->tile_rows, rows - t->first_row);
	t->pos_lo = attn_row_pos(c, seq, t->first_row);
	t->pos_hi = attn_row_pos(c, seq, t->first_row + t->n_rows - 1);
	t->key_lo = attn_first_key(c, t->pos_lo);
	t->key_hi = t->pos_hi + 1;
	t->many = cpu_attn_takes_many(c, t->n_rows);
}

/* Keys that the sequence's only new token shares with others. */
static uint32_t shared_keys(const struct attn_call *c, const struct kn_seq *seq)
{
	return c->n_shares ? c->cpu->shares.n_keys[seq - c->seqs] : 0;
}

/* The first key of the steps that a tile computes by itself. */
static uint32_t own_lo(const struct attn_call *c, const struct attn_tile *t)
{
	uint32_t lo = t->key_lo / ATTN_STEP * ATTN_STEP, shared = shared_keys(c, t->seq);

	return lo > shared ? lo : shared;
}

/* Parts of the sequence's tiles that are items: from the first that one of them sees to the last. */
static uint32_t parts_of(const struct attn_call *c, const struct kn_seq *seq, uint32_t *ret_first)
{
	uint32_t lo = attn_first_key(c, seq->kv_len - seq->n_q), shared = shared_keys(c, seq);

	*ret_first = (lo > shared ? lo : shared) / c->split;
	return (seq->kv_len - 1) / c->split - *ret_first + 1;
}

static size_t items_of(const struct attn_call *c, const struct kn_seq *seq)
{
	uint32_t first;

	return attn_tiles(c, seq) * c->kv->n_kv_head * (c->loop == ATTN_PARTS ? parts_of(c, seq, &first) : 1);
}

static size_t items_of_share(const struct attn_call *c, const struct cpu_share *share)
{
	return cpu_share_items(share, c->tile_rows / c->n_rep, c->kv->n_kv_head, c->split);
}

size_t cpu_attn_items(const struct attn_call *c)
{
	size_t n = 0;

	for (size_t i = 0; c->loop == ATTN_SHARED && i < c->n_shares; i++)
		n += items_of_share(c, &c->shares[i]);
	for (size_t i = 0; c->loop != ATTN_SHARED && i < c->n_seqs; i++)
		n += items_of(c, &c->seqs[i]);
	return n;
}

uint32_t cpu_attn_own_parts(const struct attn_call *c, const struct kn_seq *seq, size_t tile)
{
	struct attn_tile t;

	tile_init(c, &t, seq, tile);
	return (t.key_hi - 1) / c->split - own_lo(c, &t) / c->split + 1;
}

/* ---- One after the other ---- */

/* Goes to the next sequence or share when the one at hand is through. */
static void settle(struct attn_walk *w)
{
	const struct attn_call *c = w->c;
	size_t n;

	if (w->left == 0)
		return;
	if (c->loop == ATTN_SHARED) {
		while (w->index >= (n = items_of_share(c, w->share))) {
			w->index -= n;
			w->share++;
		}
		return;
	}
	while (w->index >= (n = items_of(c, w->seq))) {
		w->index -= n;
		w->first_tile += attn_tiles(c, w->seq) * c->kv->n_kv_head;
		w->seq++;
	}
}

void cpu_attn_walk_begin(struct attn_walk *w, const struct attn_call *c, size_t begin, size_t end)
{
	*w = (struct attn_walk){ .c = c, .left = end - begin, .index = begin, .seq = c->seqs, .share = c->shares };
	settle(w);
}

static void shared_item(const struct attn_walk *w, struct attn_item *ret)
{
	const struct attn_call *c = w->c;
	const struct cpu_share *share = w->share;
	size_t most = c->tile_rows / c->n_rep, n_parts = (share->n_keys + c->split - 1) / c->split;

	ret->share = share;
	ret->t.kv_head = (uint32_t)(w->index % c->kv->n_kv_head);
	ret->part = (uint32_t)(w->index / c->kv->n_kv_head % n_parts);
	ret->first = w->index / c->kv->n_kv_head / n_parts * most;
	ret->n_members = min_size(most, share->n - ret->first);
	ret->t.members = share->members + ret->first;
	ret->t.seq = &c->seqs[ret->t.members[0]];
	ret->t.first_row = 0;
	ret->t.n_rows = ret->n_members * c->n_rep;
	ret->t.key_lo = 0;
	ret->t.key_hi = share->n_keys;
	ret->t.many = cpu_attn_takes_many(c, ret->t.n_rows);
	ret->lo = ret->part * c->split;
	ret->hi = (uint32_t)min_size(ret->lo + c->split, share->n_keys);
	ret->resumes = false;
}

static void own_item(const struct attn_walk *w, struct attn_item *ret)
{
	const struct attn_call *c = w->c;
	uint32_t first = 0, n_parts = c->loop == ATTN_PARTS ? parts_of(c, w->seq, &first) : 1, lo;
	size_t tile = n_parts == 1 ? w->index : w->index / n_parts;

	tile_init(c, &ret->t, w->seq, tile);
	ret->tile = w->first_tile + tile;
	ret->lo = own_lo(c, &ret->t);
	ret->hi = ret->t.key_hi;
	ret->resumes = false;
	if (c->loop == ATTN_TILES)
		return;
	ret->part = first + (uint32_t)(w->index - tile * n_parts);
	lo = ret->part * c->split;
	ret->resumes = ret->lo > lo && ret->lo == shared_keys(c, w->seq);
	ret->lo = ret->lo > lo ? ret->lo : lo;
	ret->hi = (uint32_t)min_size(ret->hi, lo + c->split);
}

bool cpu_attn_walk_next(struct attn_walk *w, struct attn_item *ret)
{
	if (w->left == 0)
		return false;
	if (w->c->loop == ATTN_SHARED)
		shared_item(w, ret);
	else
		own_item(w, ret);
	w->left--;
	w->index++;
	settle(w);
	return true;
}

/* ---- Ahead ---- */

static void begin_step(struct attn_ahead *a, uint32_t key)
{
	a->begin = a->at = key;
	a->end = (uint32_t)min_size(key + ATTN_STEP, a->item.hi);
	a->values = false;
}

/* The next item that reads anything. */
static void next_item(struct attn_ahead *a)
{
	do {
		if (!cpu_attn_walk_next(&a->walk, &a->item)) {
			a->done = true;
			return;
		}
	} while (a->item.lo >= a->item.hi);
	begin_step(a, a->item.lo);
}

/* The next rows of one kind that lie one after the other, n_rows at most. */
static const char *take_run(struct attn_ahead *a, size_t n_rows, size_t *ret_n, size_t *ret_bytes)
{
	const struct attn_call *c = a->walk.c;
	bool values = a->values;
	const void *k, *v;

	*ret_n = min_size(attn_page_run(c, &a->item.t, a->at, a->end, &k, &v), n_rows);
	*ret_bytes = (values ? c->kv->v_dim : c->kv->k_dim) * attn_elem(c);
	a->at += (uint32_t)*ret_n;
	if (a->at == a->end) {
		if (!values && c->kv->v) {
			a->values = true;
			a->at = a->begin;
		} else if (a->end < a->item.hi) {
			begin_step(a, a->end);
		} else {
			next_item(a);
		}
	}
	return values ? v : k;
}

void cpu_attn_ahead_ask(struct attn_ahead *a, size_t n_rows)
{
	size_t n, bytes;

	for (; n_rows > 0 && !a->done; n_rows -= n) {
		const char *p = take_run(a, n_rows, &n, &bytes);

		for (size_t i = 0; i < n * bytes; i += 64)
			__builtin_prefetch(p + i, 0, 2);
	}
}

const void *cpu_attn_ahead_take(struct attn_ahead *a, size_t *n_rows, size_t row_bytes)
{
	const struct attn_call *c = a->walk.c;
	size_t bytes, run;
	const void *k, *v;

	if (a->done)
		return NULL;
	bytes = (a->values ? c->kv->v_dim : c->kv->k_dim) * attn_elem(c);
	if (bytes != row_bytes) {
		cpu_attn_ahead_ask(a, *n_rows);
		return NULL;
	}
	run = attn_page_run(c, &a->item.t, a->at, a->end, &k, &v);
	if (run < *n_rows)
		*n_rows = run >= ROWS ? run / ROWS * ROWS : run;
	return take_run(a, *n_rows, &run, &bytes);
}

void cpu_attn_ahead_begin(struct attn_ahead *a, const struct attn_call *c, size_t begin, size_t end)
{
	cpu_attn_walk_begin(&a->walk, c, begin, end);
	a->done = false;
	next_item(a);
	/* Many rows are packed before they are used, so a whole step is ahead; those of prompts wait for arithmetic. */
	a->done = a->done || (a->item.t.many && c->loop != ATTN_SHARED);
	cpu_attn_ahead_ask(a, a->item.t.many && c->kv->v ? 2 * ATTN_STEP : ATTN_STEP);
}
