/* How attention over a step's sequences is cut, and what the scratch must hold. Host code. */
#include <errno.h>
#include <stdlib.h>

#include "gpu/few.h"
#include "gpu/linear.h"
#include "gpu/moe.h"

enum {
	UNIT = 64,          /* keys; parts begin at multiples of it, so that tiles of no kernel are cut */
	BLOCKS_PER_SM = 2,  /* that work on the list `few` together */
	MAX_ROUNDS = 4,     /* of blocks, one after the other */
	SLACK = 16,         /* a share takes this fraction more rather than cut it off */
	LITTLE = 8,         /* and is closed when so little of it is left that a sequence would be cut for it */
	/* Of sequences with so few blocks that most of the device is idle anyway, in units: up to here they are not cut,
	 * which would cost a merge, and beyond not finer than a tile for each wave of a block. */
	LONE_BLOCKS = 8,
	LONE_WHOLE = 10,
	LONE_SHARE = 5,
	ROWS = 16,          /* of a block */
};

static uint32_t rounded_up(uint32_t n, uint32_t to)
{
	return (n + to - 1) / to;
}

/* New tokens of one item. */
static uint32_t tokens_of_item(uint32_t group)
{
	return group < ROWS ? ROWS / group : 1;
}

/* Each is taken by a block for each K/V head and 16 rows: as many rounds of those as leave little of the device idle. */
static uint32_t shares_on(uint32_t slots, uint32_t n_kv_head, uint32_t group)
{
	const uint32_t blocks = n_kv_head * rounded_up(group, ROWS);
	uint32_t best = 1;
	float most = 0.0f;

	for (uint32_t rounds = 1; rounds <= MAX_ROUNDS && most < 0.96f; rounds++) {
		const uint32_t n = rounds * slots / blocks;
		const float used = (float)(n * blocks) / (float)(rounds * slots);

		if (used > most) {
			most = used;
			best = n;
		}
	}
	return best;
}

uint32_t gk_plan_shares(const struct gk_ctx *ctx, uint32_t n_kv_head, uint32_t group)
{
	return shares_on(ctx->n_sm * BLOCKS_PER_SM, n_kv_head, group);
}

static bool is_few_sequences(const struct gk_ctx *ctx, uint32_t n_kv_head, uint32_t group, uint32_t n_seqs)
{
	return group <= ROWS && (uint64_t)n_seqs * n_kv_head <= ctx->n_sm;
}

bool gk_plan_is_deep(const struct gk_ctx *ctx, uint32_t n_kv_head, uint32_t group, uint32_t n_seqs)
{
	return !ctx->fixed && is_few_sequences(ctx, n_kv_head, group, n_seqs);
}

/* The bits of a row are to be the same for any number of sequences: then only rings may differ. */
uint32_t gk_plan_shape(const struct gk_ctx *ctx, uint32_t n_kv_head, uint32_t group, uint32_t n_seqs, uint32_t bytes)
{
	static const uint8_t shapes[2][2][2] = { /* fixed, few sequences, a value of two bytes */
		                                 { { GK_SHAPE_STREAM, GK_SHAPE_STREAM }, { GK_SHAPE_DEEP, GK_SHAPE_DEEP } },
		                                 { { GK_SHAPE_MANY, GK_SHAPE_MANY }, { GK_SHAPE_SHORT, GK_SHAPE_SHORT } }
	};

	if (ctx->shape != GK_SHAPE_BEST)
		return ctx->shape;
	return shapes[ctx->fixed][is_few_sequences(ctx, n_kv_head, group, n_seqs)][bytes == 2];
}

/* Where sequences are few, every part is one more to be merged at the end: half as many of them. */
static uint32_t shares_of(const struct gk_ctx *ctx, uint32_t n_kv_head, uint32_t group, uint32_t n_seqs)
{
	const uint32_t most = gk_plan_shares(ctx, n_kv_head, group), n = shares_on(ctx->n_sm, n_kv_head, group);

	return gk_plan_is_deep(ctx, n_kv_head, group, n_seqs) && n < most ? n : most;
}

uint32_t gk_plan_room(const struct gk_ctx *ctx, uint32_t max_rows, uint32_t max_seqs, uint32_t n_ctx)
{
	const uint64_t short_rows = ctx->fixed ? max_rows : (uint64_t)max_seqs * GK_WORK_TOKENS;
	const uint32_t items = max_rows < short_rows ? max_rows : (uint32_t)short_rows;
	const uint32_t parts = ctx->fixed ? items * (n_ctx / GK_FIXED_PART + 1)
	                                  : MAX_ROUNDS * BLOCKS_PER_SM * ctx->n_sm + items;
	const uint32_t tiles = max_rows / GK_TILE_TOKENS + max_seqs;

	return (parts > tiles ? parts : tiles) + 1;
}

/* The list `few` while it grows. */
struct cutter {
	struct gk_plan *plan;
	uint32_t share;  /* units of a share */
	uint32_t filled; /* of the last one */
	uint32_t spare;  /* units that shares may stay below, so that there are not too many of them */
	bool fixed;
};

/* The last key that the tokens [q, q + n) see, and one more. */
static uint32_t keys_of(const struct gk_seq *seq, uint32_t q, uint32_t n)
{
	return seq->kv_len - seq->n_q + q + n;
}

static uint32_t keys_to_take(const struct cutter *c, uint32_t left)
{
	const uint32_t room = c->share > c->filled ? c->share - c->filled : 0;

	if (c->fixed)
		return left < GK_FIXED_PART ? left : (uint32_t)GK_FIXED_PART;
	return rounded_up(left, UNIT) <= room + c->share / SLACK ? left : room * UNIT;
}

/* Before an item of `keys` keys, of which `at` were taken. */
static bool is_full(const struct cutter *c, uint32_t keys, uint32_t at)
{
	const uint32_t room = c->share > c->filled ? c->share - c->filled : 0;

	return room == 0 || (at == 0 && keys_to_take(c, keys) < keys && room <= c->share / LITTLE && room <= c->spare);
}

static int add_few(struct cutter *c, uint32_t index, const struct gk_seq *seq, uint32_t q, uint32_t n_q)
{
	struct gk_plan *plan = c->plan;
	const uint32_t first = plan->n_few, end = keys_of(seq, q, n_q);
	uint32_t n_parts;

	for (uint32_t at = 0, take; at < end; at += take) {
		struct gk_work *w = &plan->few[plan->n_few];

		if (plan->n_few + 1 > plan->room)
			return -E2BIG;
		if (is_full(c, end, at)) {
			c->spare += c->filled; /* more than was meant, or less */
			c->spare -= c->share;
			plan->few[plan->n_shares++].first = plan->n_few;
			c->filled = 0;
		}
		plan->n_few++;
		take = keys_to_take(c, end - at);
		w->seq = index;
		w->q = q;
		w->n_q = n_q;
		w->kv_begin = at;
		w->kv_end = at + take;
		w->part = GK_WHOLE;
		w->merge = 0;
		c->filled += rounded_up(take, UNIT);
	}
	n_parts = plan->n_few - first;
	if (n_parts > 1) {
		struct gk_merge *m = &plan->merge[plan->n_merge];

		if (plan->n_merge + 1 > plan->room)
			return -E2BIG;
		m->seq = index;
		m->q = q;
		m->n_q = n_q;
		m->part = plan->n_parts;
		m->n_parts = n_parts;
		for (uint32_t p = 0; p < n_parts; p++) {
			plan->few[first + p].part = plan->n_parts + p * n_q;
			plan->few[first + p].merge = plan->n_merge;
		}
		plan->n_merge++;
		plan->n_parts += n_parts * n_q;
	}
	return 0;
}

/* Whose tokens are in the list `few`. */
static bool is_few(const struct gk_ctx *ctx, const struct gk_plan *plan, const struct gk_seq *seq)
{
	return ctx->fixed ? seq->row < plan->answer_rows : seq->n_q <= GK_WORK_TOKENS;
}

/* So that nothing long is begun when others are about to end. */
static int most_keys_first(const void *a, const void *b)
{
	const struct gk_work *x = (const struct gk_work *)a, *y = (const struct gk_work *)b;

	return (x->kv_end < y->kv_end) - (x->kv_end > y->kv_end);
}

int gk_plan_attention(const struct gk_ctx *ctx, uint32_t n_kv_head, uint32_t group, const struct gk_seq *seqs,
                      uint32_t n_seqs, struct gk_plan *plan)
{
	const uint32_t tokens = tokens_of_item(group), shares = shares_of(ctx, n_kv_head, group, n_seqs);
	struct cutter c = { plan, 0, 0, 0, ctx->fixed };
	uint64_t units = 0;

	plan->n_few = plan->n_many = plan->n_merge = plan->n_shares = plan->n_parts = 0;
	for (uint32_t s = 0; s < n_seqs; s++) {
		for (uint32_t q = 0; is_few(ctx, plan, &seqs[s]) && q < seqs[s].n_q; q += tokens) {
			const uint32_t n = seqs[s].n_q - q < tokens ? seqs[s].n_q - q : tokens;

			units += rounded_up(keys_of(&seqs[s], q, n), UNIT);
		}
	}
	c.share = (uint32_t)((units + shares - 1) / shares);
	if (gk_plan_is_deep(ctx, n_kv_head, group, n_seqs) && (uint64_t)n_seqs * n_kv_head <= LONE_BLOCKS) {
		const uint32_t least = units <= LONE_WHOLE ? (uint32_t)units : (uint32_t)LONE_SHARE;

		c.share = c.share > least ? c.share : least;
	}
	c.filled = c.share;
	c.spare = c.share * shares > units ? c.share * shares - (uint32_t)units : 0;
	for (uint32_t s = 0; s < n_seqs; s++) {
		const struct gk_seq *seq = &seqs[s];
		const bool few = is_few(ctx, plan, seq);

		for (uint32_t q = 0; few && q < seq->n_q; q += tokens) {
			const int r = add_few(&c, s, seq, q, seq->n_q - q < tokens ? seq->n_q - q : tokens);

			if (r < 0)
				return r;
		}
		for (uint32_t tile = few ? 0 : (seq->n_q + GK_TILE_TOKENS - 1) / GK_TILE_TOKENS; tile-- > 0;) {
			struct gk_work *w = &plan->many[plan->n_many];

			if (plan->n_many + 1 > plan->room)
				return -E2BIG;
			plan->n_many++;
			w->seq = s;
			w->q = tile * GK_TILE_TOKENS;
			w->n_q = seq->n_q - w->q < GK_TILE_TOKENS ? seq->n_q - w->q : (uint32_t)GK_TILE_TOKENS;
			w->kv_begin = 0;
			w->kv_end = keys_of(seq, w->q, w->n_q);
			w->part = GK_WHOLE;
			w->merge = w->first = 0;
		}
	}
	if (plan->n_many > 1)
		qsort(plan->many, plan->n_many, sizeof(*plan->many), most_keys_first);
	return 0;
}

static size_t larger(size_t a, size_t b)
{
	return a > b ? a : b;
}

size_t gk_scratch_bytes(const struct gk_ctx *ctx, const struct gk_limits *l)
{
	const size_t cols = l->max_cols > l->dim ? l->max_cols : l->dim;
	const size_t few_rows = GK_FEW_ROWS;
	/* Columns of few rows in two parts, with their sums; rounded up generously. */
	size_t bytes = few_rows * 2 * (cols + 512) * 2 + few_rows * 2 * (cols / 32 + 64) * 4;

	bytes = larger(bytes, (size_t)l->max_rows * sizeof(float)); /* norms */
	if (ctx->fixed)
		bytes = larger(bytes, steady_scratch_bytes(ctx, l->max_rows, (uint32_t)cols));
	else if (l->max_rows > few_rows) /* shares of products: many.cu; fewer where this is too little */
		bytes = larger(bytes, (size_t)64 * 4 * l->max_cols * sizeof(float));
	bytes = larger(bytes, gk_pick_scratch(l->pick_rows, l->pick_vocab, l->pick_best));
	if (l->n_head) {
		/* Places of parts: one for every row of a short item, and for those of an item that a share cuts off. */
		const uint32_t n_kv_head = l->n_kv_head ? l->n_kv_head : 1, group = rounded_up(l->n_head, n_kv_head);
		const size_t tokens = l->max_rows < GK_WORK_TOKENS ? l->max_rows : (size_t)GK_WORK_TOKENS;
		const size_t short_rows = l->max_rows < l->max_seqs * tokens ? l->max_rows : l->max_seqs * tokens;
		const size_t slots = ctx->fixed ? l->max_parts
		                                : short_rows + gk_plan_shares(ctx, n_kv_head, group) * tokens;

		bytes = larger(bytes, slots * l->n_head * (l->v_dim + 5) * sizeof(float));
	}
	if (l->n_expert) {
		const size_t pairs = (size_t)l->max_rows * l->top_k;

		bytes = larger(bytes, moe_scratch_bytes(pairs, l->n_expert, l->n_ff, l->dim));
	}
	return (bytes + 255) / 256 * 256;
}
