/* How attention over a step's sequences is cut, and what the scratch must hold. Host code. */
#include <errno.h>

#include "gpu/few.h"
#include "gpu/moe.h"

enum {
	MIN_PART = 128,  /* one tile of every kernel */
	PART_STEP = 128, /* parts begin at multiples of every tile */
};

static uint32_t round_up(uint32_t n, uint32_t to)
{
	return (n + to - 1) / to * to;
}

/* Keys of one part, the same for all sequences: the device filled twice. */
static uint32_t part_keys(const struct gk_ctx *ctx, uint32_t n_kv_head, const struct gk_seq *seqs, uint32_t n_seqs)
{
	const uint64_t blocks = 2u * ctx->n_sm;
	uint64_t keys = 0, each;

	if (ctx->fixed)
		return GK_FIXED_PART;
	for (uint32_t s = 0; s < n_seqs; s++)
		keys += seqs[s].n_q && seqs[s].n_q <= GK_WORK_TOKENS ? seqs[s].kv_len : 0;
	each = (keys * n_kv_head + blocks - 1) / blocks;
	return each < MIN_PART ? (uint32_t)MIN_PART : round_up((uint32_t)each, PART_STEP);
}

uint32_t gk_plan_room(const struct gk_ctx *ctx, uint32_t max_rows, uint32_t max_seqs, uint32_t n_ctx)
{
	const uint32_t parts = ctx->fixed ? max_seqs * (n_ctx / GK_FIXED_PART + 1) : 2 * ctx->n_sm + max_seqs;
	const uint32_t tiles = max_rows / GK_TILE_TOKENS + max_seqs;

	return (parts > tiles ? parts : tiles) + 1;
}

static int add_few(struct gk_plan *plan, uint32_t index, const struct gk_seq *seq, uint32_t keys)
{
	const uint32_t n_parts = (seq->kv_len + keys - 1) / keys;

	if (plan->n_few + n_parts > plan->room || plan->n_merge + 1 > plan->room)
		return -E2BIG;
	for (uint32_t p = 0; p < n_parts; p++) {
		struct gk_work *w = &plan->few[plan->n_few++];

		w->seq = index;
		w->q = 0;
		w->n_q = seq->n_q;
		w->kv_begin = p * keys;
		w->kv_end = p + 1 < n_parts ? (p + 1) * keys : seq->kv_len;
		w->part = n_parts == 1 ? GK_WHOLE : plan->n_parts + p * seq->n_q;
	}
	if (n_parts > 1) {
		struct gk_merge *m = &plan->merge[plan->n_merge++];

		m->seq = index;
		m->q = 0;
		m->n_q = seq->n_q;
		m->part = plan->n_parts;
		m->n_parts = n_parts;
		plan->n_parts += n_parts * seq->n_q;
	}
	return 0;
}

int gk_plan_attention(const struct gk_ctx *ctx, uint32_t n_kv_head, uint32_t group, const struct gk_seq *seqs,
                      uint32_t n_seqs, struct gk_plan *plan)
{
	const uint32_t keys = part_keys(ctx, n_kv_head, seqs, n_seqs);

	(void)group;
	plan->n_few = plan->n_many = plan->n_merge = plan->n_parts = 0;
	for (uint32_t s = 0; s < n_seqs; s++) {
		const struct gk_seq *seq = &seqs[s];

		if (seq->n_q == 0)
			continue;
		if (seq->n_q <= GK_WORK_TOKENS) {
			const int r = add_few(plan, s, seq, keys);

			if (r < 0)
				return r;
			continue;
		}
		/* The last tokens see the most keys: longest first. */
		for (uint32_t tile = (seq->n_q - 1) / GK_TILE_TOKENS + 1; tile-- > 0;) {
			struct gk_work *w = &plan->many[plan->n_many];

			if (plan->n_many + 1 > plan->room)
				return -E2BIG;
			plan->n_many++;
			w->seq = s;
			w->q = tile * GK_TILE_TOKENS;
			w->n_q = seq->n_q - w->q < GK_TILE_TOKENS ? seq->n_q - w->q : (uint32_t)GK_TILE_TOKENS;
			w->kv_begin = 0;
			w->kv_end = seq->kv_len - seq->n_q + w->q + w->n_q;
			w->part = GK_WHOLE;
		}
	}
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
	bytes = larger(bytes, gk_pick_scratch(l->pick_rows, l->pick_vocab, l->pick_best));
	if (l->n_head) {
		/* Slots of parts: one for every row of a short item, and shares of the device that are cut off. */
		const size_t shares = 2 * (size_t)ctx->n_sm / (l->n_kv_head ? l->n_kv_head : 1) + 2;
		const size_t tokens = l->max_rows < GK_WORK_TOKENS ? l->max_rows : (size_t)GK_WORK_TOKENS;
		const size_t short_rows = l->max_rows < l->max_seqs * tokens ? l->max_rows : l->max_seqs * tokens;
		const size_t slots = ctx->fixed ? short_rows * (l->max_keys / GK_FIXED_PART + 1)
		                                : short_rows + shares * tokens;

		bytes = larger(bytes, slots * l->n_head * (l->v_dim + 2) * sizeof(float));
	}
	if (l->n_expert) {
		const size_t pairs = (size_t)l->max_rows * l->top_k;

		bytes = larger(bytes, moe_scratch_bytes(pairs, l->n_expert, l->n_ff, l->dim));
	}
	return (bytes + 255) / 256 * 256;
}
