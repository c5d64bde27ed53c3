/* Mixtures of experts: rows sorted by expert, grouped products, and the sum.
 *
 * A pair is a row and one of its experts; its place is where it stands once pairs are sorted by expert. Places within
 * an expert are handed out by atomics, so they differ from run to run; no result depends on them, since each row is
 * multiplied by itself and the sum goes by pairs, in order of k. */
#include <errno.h>

#include "gpu/experts.h"
#include "gpu/linear.h"
#include "gpu/many.h"
#include "gpu/mat_value.h"
#include "gpu/moe.h"
#include "gpu/pairs.h"

/* ---- Pairs by expert --------------------------------------------------------------------------------------------- */

enum {
	SORT_THREADS = 1024,
	SORT_AHEAD = 8,
	TILE_ROWS = 64, /* of many.h */
	PAIR_ROWS = 4, /* up to here pairs are not sorted */
};

struct sorted {
	few_group *groups; /* experts that have rows */
	few_group *tiles;  /* the same in pieces */
	uint32_t *n_groups, *n_tiles;
	uint32_t *row_of;   /* [place] */
	uint32_t *place_of; /* [pair] */
};

/* Sums of all before, over the block; scratch: SORT_THREADS words. */
GPU_FN uint32_t sum_before(uint32_t v, uint32_t *scratch)
{
	const uint32_t i = threadIdx.x;
	uint32_t sum = v;

	scratch[i] = v;
	__syncthreads();
	for (uint32_t step = 1; step < SORT_THREADS; step <<= 1) {
		const uint32_t add = i >= step ? scratch[i - step] : 0;

		__syncthreads();
		sum += add;
		scratch[i] = sum;
		__syncthreads();
	}
	return sum - v;
}

/* Of several pairs at once, so that waiting for one is waiting for all, counted from the first expert that is here; none:
 * no expert. */
GPU_FN void load_ids(uint32_t *ret, const int32_t *ids, uint32_t first_expert, uint32_t base, uint32_t n)
{
#pragma unroll
	for (uint32_t a = 0; a < SORT_AHEAD; a++)
		ret[a] = base + a * SORT_THREADS < n ? (uint32_t)ids[base + a * SORT_THREADS] - first_expert : UINT32_MAX;
}

static __global__ void __launch_bounds__(SORT_THREADS) sort_kernel(sorted s, const int32_t *ids, gk_rows rows,
                                                                   uint32_t top_k, uint32_t n_expert, uint32_t first_expert,
                                                                   uint32_t tile_rows)
{
	__shared__ uint32_t count[KN_MAX_EXPERTS], cursor[KN_MAX_EXPERTS], scratch[SORT_THREADS];
	const uint32_t e = threadIdx.x;

	gpu_dependents_may_start();
	gpu_dependency_wait();

	const uint32_t n_pairs = gk_n_rows(rows) * top_k;

	count[e] = 0;
	__syncthreads();
	for (uint32_t base = e; base < n_pairs; base += SORT_AHEAD * SORT_THREADS) {
		uint32_t id[SORT_AHEAD];

		load_ids(id, ids, first_expert, base, n_pairs);
#pragma unroll
		for (int a = 0; a < SORT_AHEAD; a++) {
			if (id[a] < n_expert)
				(void)atomicAdd(&count[id[a]], 1u);
		}
	}
	__syncthreads();

	const uint32_t mine = count[e], n_mine = (mine + tile_rows - 1) / tile_rows;
	const uint32_t first = sum_before(mine, scratch);
	const uint32_t group = sum_before(mine != 0, scratch), tile = sum_before(n_mine, scratch);

	cursor[e] = first;
	if (mine)
		s.groups[group] = few_group{ e, first, mine };
	for (uint32_t t = 0; t < n_mine; t++)
		s.tiles[tile + t] =
			few_group{ e, first + t * tile_rows, mine - t * tile_rows < tile_rows ? mine - t * tile_rows : tile_rows };
	if (e == SORT_THREADS - 1) {
		*s.n_groups = group + (mine != 0);
		*s.n_tiles = tile + n_mine;
	}
	__syncthreads();
	for (uint32_t base = e; base < n_pairs; base += SORT_AHEAD * SORT_THREADS) {
		uint32_t id[SORT_AHEAD];

		load_ids(id, ids, first_expert, base, n_pairs);
#pragma unroll
		for (uint32_t a = 0; a < SORT_AHEAD; a++) {
			const uint32_t i = base + a * SORT_THREADS, place = id[a] < n_expert ? atomicAdd(&cursor[id[a]], 1u) : UINT32_MAX;

			if (i < n_pairs)
				s.place_of[i] = place;
			if (place != UINT32_MAX)
				s.row_of[place] = i / top_k;
		}
	}
}

/* ---- The sum -------------------------------------------------------------------------------------------------------- */

enum { COMBINE_THREADS = 256 };

static __global__ void __launch_bounds__(COMBINE_THREADS) combine_kernel(gk_view out, gk_view y, const uint32_t *place_of,
                                                                         const float *weights, gk_rows rows,
                                                                         uint32_t top_k, uint32_t dim, bool whole)
{
	const uint32_t row = blockIdx.x, d = (blockIdx.y * COMBINE_THREADS + threadIdx.x) * 8;
	float sum[8];

	gpu_dependents_may_start();
	gpu_dependency_wait();
	if (row >= gk_n_rows(rows) || d >= dim)
		return;
	gk_get8(out, row, d, dim, whole, sum);
	for (uint32_t k = 0; k < top_k; k++) {
		const uint32_t place = place_of[row * top_k + k];
		const float weight = weights[row * top_k + k];
		float v[8];

		if (place == UINT32_MAX)
			continue;
		gk_get8(y, place, d, dim, whole, v);
#pragma unroll
		for (int i = 0; i < 8; i++)
			sum[i] += weight * v[i];
	}
	gk_put8(out, row, d, dim, whole, sum);
}

/* ---- float32 arithmetic: 32 lanes for each output of each pair ------------------------------------------------------ */

struct exact_moe {
	const gk_mat *mats[2];
	const float *bias[2];
	gk_view x, out;
	const few_group *groups;
	const uint32_t *n_groups, *row_of;
	uint32_t act;
};

static __global__ void exact_experts(GPU_PARAM exact_moe a)
{
	const uint32_t lane = threadIdx.x & 31, r = blockIdx.x * 4 + threadIdx.x / 32;

	gpu_dependents_may_start();
	gpu_dependency_wait();
	if (blockIdx.y >= *a.n_groups)
		return;

	const few_group group = a.groups[blockIdx.y];
	const gk_mat w = a.mats[0][group.expert];

	if (r >= w.rows)
		return;
	for (uint32_t i = 0; i < group.n; i++) {
		const uint32_t place = group.first + i, row = a.row_of ? a.row_of[place] : place;
		float y[2] = { 0.0f, 0.0f };

		for (uint32_t k = lane; k < w.cols; k += 32) {
			const float v = gk_get(a.x, row, k);

			y[0] += v * gk_value(w, r, k);
			if (a.mats[1])
				y[1] += v * gk_value(a.mats[1][group.expert], r, k);
		}
		y[0] = gpu_group_sum(y[0]) + (a.bias[0] ? a.bias[0][(size_t)group.expert * w.rows + r] : 0.0f);
		if (a.mats[1]) {
			y[1] = gpu_group_sum(y[1]) + (a.bias[1] ? a.bias[1][(size_t)group.expert * w.rows + r] : 0.0f);
			y[0] = gk_act(a.act, y[0], y[1]);
		}
		if (lane == 0)
			gk_put(a.out, place, r, y[0]);
	}
}

/* ---- Launches ----------------------------------------------------------------------------------------------------------- */

struct moe_layout {
	size_t groups, tiles, counts, row_of, place_of, x, h, y, total;
};

static size_t place(size_t *at, size_t bytes)
{
	const size_t here = *at;

	*at += (bytes + 255) / 256 * 256;
	return here;
}

static moe_layout layout_of(size_t n_pairs, uint32_t n_expert, uint32_t n_ff, uint32_t dim)
{
	moe_layout l;
	size_t at = 0;

	l.groups = place(&at, n_expert * sizeof(few_group));
	l.tiles = place(&at, (n_expert + n_pairs / TILE_ROWS + 1) * sizeof(few_group));
	l.counts = place(&at, 2 * sizeof(uint32_t));
	l.row_of = place(&at, n_pairs * sizeof(uint32_t));
	l.place_of = place(&at, n_pairs * sizeof(uint32_t));
	l.x = place(&at, n_pairs * (dim + 8) * 2); /* never more rows than pairs */
	l.h = place(&at, n_pairs * (n_ff + 8) * sizeof(float));
	l.y = place(&at, n_pairs * (size_t)dim * sizeof(float));
	l.total = at;
	return l;
}

size_t moe_scratch_bytes(size_t n_pairs, uint32_t n_expert, uint32_t n_ff, uint32_t dim)
{
	return layout_of(n_pairs, n_expert, n_ff, dim).total;
}

struct moe_call {
	const struct gk_ctx *ctx;
	const struct gk_moe *m;
	sorted s;
	uint32_t n_pairs;
};

/* Columns of a row that has been cut into `parts`. */
static few_columns columns_of(uint32_t type, uint32_t cols, uint32_t parts)
{
	few_columns c = {};
	gk_mat shape = {};

	shape.type = type;
	shape.cols = cols;
	c.n_chunks = gk_n_units(shape) * gk_unit(type) / 32;
	c.col_stride = (c.n_chunks | 1) * 4;
	c.parts = parts;
	return c;
}

static bool fits(const gk_ctx *ctx, size_t shared)
{
	return !ctx->smem_bytes || shared + 2048 <= ctx->smem_bytes; /* some is not dynamic */
}

/* Columns at a time: twice what an expert has on average, so that few need a second pass over its weights. */
static int tiles_across(const moe_call &c, const few_columns &cols, int rt, size_t *ret_shared)
{
	const uint32_t per_expert = c.n_pairs / c.m->n_expert * cols.parts;
	int nt = per_expert <= 3 ? 1 : per_expert <= 8 || !experts_has_32(c.ctx->warp) ? 2 : 4;

	for (;; nt /= 2) {
		*ret_shared = few_shared_bytes(nt == 1 ? 8 : nt * 8, cols, true, true, nt, rt);
		if (nt == 1 || fits(c.ctx, *ret_shared))
			return nt;
	}
}

/* One grouped product of few rows: gate and up (both with act), or down. */
static int few_experts(const moe_call &c, bool gated, gk_view x, gk_view out)
{
	const struct gk_moe *m = c.m;
	const uint32_t type = gated ? m->type_gate : m->type_down;
	experts_args a = {};
	experts_launch l = {};

	a.x = x;
	a.out = out;
	a.act = m->act;
	a.n_rows_w = gated ? m->n_ff : m->dim;
	a.n_tiles = (a.n_rows_w + FEW_TILE - 1) / FEW_TILE;
	a.gated = gated;
	a.whole = gk_view_aligned(x);
	a.cols = columns_of(type, gated ? m->dim : m->n_ff, x.elem != GK_BF16 && m->rows.bound <= PAIR_ROWS ? 2 : 1);
	a.mats[0] = gated ? m->gate : m->down;
	a.mats[1] = gated ? m->up : nullptr;
	a.bias[0] = gated ? m->gate_bias : m->down_bias;
	a.bias[1] = gated ? m->up_bias : nullptr;
	a.groups = c.s.groups;
	a.n_groups = c.s.n_groups;
	a.row_of = gated ? c.s.row_of : nullptr;
	l.ctx = c.ctx;
	l.args = &a;
	l.n_groups = c.n_pairs < m->n_expert ? c.n_pairs : m->n_expert;
	l.nt = tiles_across(c, a.cols, gated ? 2 : 1, &l.shared);
	if (!fits(c.ctx, l.shared))
		return -ENOTSUP;
	return experts_launch_16bit(type, l) || experts_launch_blocks(type, l) || experts_launch_k(type, l) ? gk_launched()
	                                                                                                    : -EINVAL;
}

/* Of rows that are not sorted: gate and up (x, to h), or down and the sum (from h). */
static pairs_args pairs_of(const struct gk_moe *m, bool gated, gk_view h)
{
	pairs_args a = {};

	a.x = gated ? m->x : h;
	a.out = gated ? h : m->out;
	a.rows = m->rows;
	a.act = m->act;
	a.n_expert = m->n_expert;
	a.first_expert = m->first_expert;
	a.n_rows_w = gated ? m->n_ff : m->dim;
	a.n_cols = gated ? m->dim : m->n_ff;
	a.top_k = m->top_k;
	a.whole = gk_view_aligned(a.x);
	a.cols = columns_of(gated ? m->type_gate : m->type_down, a.n_cols, gated && m->x.elem == GK_BF16 ? 1 : 2);
	if (!gated) { /* of all experts side by side */
		a.cols.n_chunks *= m->top_k;
		a.cols.col_stride = (a.cols.n_chunks | 1) * 4;
	}
	a.mats[0] = gated ? m->gate : m->down;
	a.mats[1] = gated ? m->up : nullptr;
	a.bias[0] = gated ? m->gate_bias : m->down_bias;
	a.bias[1] = gated ? m->up_bias : nullptr;
	a.ids = (int32_t *)m->ids;
	a.weights = (float *)m->weights;
	a.chooses = m->choice != nullptr;
	if (m->choice) {
		a.router = m->choice->router;
		a.logits = m->choice->logits;
		a.ids = m->choice->ids;
		a.weights = m->choice->weights;
	}
	return a;
}

static int pairs(const moe_call &c, bool gated, gk_view h)
{
	const uint32_t type = gated ? c.m->type_gate : c.m->type_down;
	const pairs_args a = pairs_of(c.m, gated, h);
	const pairs_launch l = { c.ctx, &a, gated };

	return pairs_launch_16bit(type, l) || pairs_launch_blocks(type, l) || pairs_launch_k(type, l) ? gk_launched() : -EINVAL;
}

static bool pairs_fit(const gk_ctx *ctx, const struct gk_moe *m, bool gated)
{
	const pairs_args a = pairs_of(m, gated, gk_view{});
	const pairs_launch l = { ctx, &a, gated };

	return fits(ctx, pairs_shared_bytes(l));
}

static int many_experts(const moe_call &c, bool gated, gk_view x, gk_view out, const uint32_t *row_of)
{
	const struct gk_moe *m = c.m;
	many_args a = {};
	many_launch l = {};

	a.job[0].out = out;
	a.act = m->act;
	a.gated = gated;
	a.x = x;
	a.x_async = x.elem == GK_BF16 && gk_view_aligned(x);
	a.groups = c.s.tiles;
	a.n_groups = c.s.n_tiles;
	a.mats[0] = gated ? m->gate : m->down;
	a.mats[1] = gated ? m->up : nullptr;
	a.mat_bias[0] = gated ? m->gate_bias : m->down_bias;
	a.mat_bias[1] = gated ? m->up_bias : nullptr;
	a.row_of = row_of;
	l.ctx = c.ctx;
	l.args = &a;
	l.rows = gated ? m->n_ff : m->dim;
	l.grouped = true;
	l.n_tiles = c.n_pairs / TILE_ROWS + (m->n_expert < c.n_pairs ? m->n_expert : c.n_pairs);
	return many_launch_any(gated ? m->type_gate : m->type_down, l) ? gk_launched() : -EINVAL;
}

/* Hopper has a kernel of its own. */
static bool is_wide(const gk_ctx *ctx)
{
#if defined(GPU_CUDA)
	return ctx->sm == 90;
#else
	(void)ctx;
	return false;
#endif
}

static int wide_experts(const moe_call &c, bool gated, gk_view x, gk_view out, const uint32_t *row_of)
{
#if defined(GPU_CUDA)
	const struct gk_moe *m = c.m;
	wide_args a = {};
	wide_launch l = {};

	a.x = x;
	a.out = out;
	a.tiles = c.s.tiles;
	a.n_tiles = c.s.n_tiles;
	a.mats[0] = gated ? m->gate : m->down;
	a.mats[1] = gated ? m->up : nullptr;
	a.bias[0] = gated ? m->gate_bias : m->down_bias;
	a.bias[1] = gated ? m->up_bias : nullptr;
	a.row_of = row_of;
	a.act = m->act;
	a.fixed = c.ctx->fixed;
	l.ctx = c.ctx;
	l.args = &a;
	l.n_rows_w = gated ? m->n_ff : m->dim;
	l.n_tiles = c.n_pairs / WIDE_TILE + (m->n_expert < c.n_pairs ? m->n_expert : c.n_pairs);
	l.gated = gated;
	return wide_launch_any(gated ? m->type_gate : m->type_down, l) ? gk_launched() : -EINVAL;
#else
	(void)c, (void)gated, (void)x, (void)out, (void)row_of;
	return -ENOTSUP;
#endif
}

static int exact_experts_launch(const moe_call &c, bool gated, gk_view x, gk_view out, const uint32_t *row_of)
{
	const struct gk_moe *m = c.m;
	exact_moe a = {};

	a.mats[0] = gated ? m->gate : m->down;
	a.mats[1] = gated ? m->up : nullptr;
	a.bias[0] = gated ? m->gate_bias : m->down_bias;
	a.bias[1] = gated ? m->up_bias : nullptr;
	a.x = x;
	a.out = out;
	a.groups = c.s.groups;
	a.n_groups = c.s.n_groups;
	a.row_of = row_of;
	a.act = m->act;
	gpu_launch(exact_experts, dim3(((gated ? m->n_ff : m->dim) + 3) / 4, m->n_expert < c.n_pairs ? m->n_expert : c.n_pairs),
	           dim3(128), 0, c.ctx->stream, c.ctx->overlap, a);
	return gk_launched();
}

/* How the call is done. Few: bound by reading weights, of which each is read once. */
enum moe_way { MOE_EXACT, MOE_PAIRS, MOE_FEW, MOE_MANY };

/* Up to so many pairs for each expert on average, blocks that read weights into registers are as fast. */
static uint32_t few_pairs(const gk_ctx *ctx, uint32_t type)
{
	if (!is_wide(ctx))
		return 16;
	return type == KN_BF16 || type == KN_F16 ? 3 : 7;
}

static moe_way way_of(const gk_ctx *ctx, const struct gk_moe *m)
{
	const uint32_t n_pairs = m->rows.bound * m->top_k;

	if (m->exact || m->type_gate == KN_F32 || m->type_down == KN_F32 || m->type_up == KN_F32)
		return MOE_EXACT;
	if (ctx->fixed)
		return MOE_MANY;
	if (m->rows.bound <= PAIR_ROWS && m->top_k <= MAX_CHOSEN && pairs_fit(ctx, m, true) && pairs_fit(ctx, m, false))
		return MOE_PAIRS;
	return n_pairs <= few_pairs(ctx, m->type_gate) * m->n_expert || m->rows.bound <= GK_FEW_ROWS ? MOE_FEW : MOE_MANY;
}

static int sort_pairs(const moe_call &c)
{
	gpu_launch(sort_kernel, dim3(1), dim3(SORT_THREADS), 0, c.ctx->stream, c.ctx->overlap, c.s, c.m->ids, c.m->rows,
	           c.m->top_k, c.m->n_expert, c.m->first_expert, is_wide(c.ctx) ? (uint32_t)WIDE_TILE : (uint32_t)TILE_ROWS);
	return gk_launched();
}

static int combine(const moe_call &c, gk_view y)
{
	const struct gk_moe *m = c.m;
	const bool whole = m->dim % 8 == 0 && gk_view_aligned(m->out) && gk_view_aligned(y);

	gpu_launch(combine_kernel, dim3(m->rows.bound, (m->dim + COMBINE_THREADS * 8 - 1) / (COMBINE_THREADS * 8)),
	           dim3(COMBINE_THREADS), 0, c.ctx->stream, c.ctx->overlap, m->out, y, (const uint32_t *)c.s.place_of, m->weights,
	           m->rows, m->top_k, m->dim, whole);
	return gk_launched();
}

static int many(const moe_call &c, gk_view h, gk_view y, const moe_layout &l)
{
	gk_view x = c.m->x;
	int r = 0;

	if (x.elem != GK_BF16 || !gk_view_aligned(x)) {
		const gk_view narrow = { (uint8_t *)c.ctx->scratch + l.x, GK_BF16, (c.m->dim + 7) / 8 * 8 };

		r = gk_convert(c.ctx, narrow, x, c.m->rows, c.m->dim);
		x = narrow;
	}
	if (r < 0)
		return r;
	if (is_wide(c.ctx)) {
		r = wide_experts(c, true, x, h, c.s.row_of);
		return r < 0 ? r : wide_experts(c, false, h, y, nullptr);
	}
	r = many_experts(c, true, x, h, c.s.row_of);
	return r < 0 ? r : many_experts(c, false, h, y, nullptr);
}

bool gk_moe_chooses(const struct gk_ctx *ctx, const struct gk_moe *m)
{
	return m->choice && m->type_gate == m->type_up && way_of(ctx, m) == MOE_PAIRS;
}

int gk_moe(const struct gk_ctx *ctx, const struct gk_moe *m)
{
	const uint32_t n_pairs = m->rows.bound * m->top_k;
	const moe_layout l = layout_of(n_pairs, m->n_expert, m->n_ff, m->dim);
	uint8_t *const scratch = (uint8_t *)ctx->scratch;
	moe_way way = way_of(ctx, m);
	moe_call c = { ctx, m, {}, n_pairs };
	gk_view h = { scratch + l.h, GK_F32, (m->n_ff + 7) / 8 * 8 }, y = { scratch + l.y, GK_F32, m->dim };
	int r;

	if (n_pairs == 0 || m->n_expert > KN_MAX_EXPERTS || l.total > ctx->scratch_bytes)
		return -EINVAL;
	if (way != MOE_EXACT && m->type_gate != m->type_up)
		return -ENOTSUP;
	c.s.groups = (few_group *)(scratch + l.groups);
	c.s.tiles = (few_group *)(scratch + l.tiles);
	c.s.n_groups = (uint32_t *)(scratch + l.counts);
	c.s.n_tiles = c.s.n_groups + 1;
	c.s.row_of = (uint32_t *)(scratch + l.row_of);
	c.s.place_of = (uint32_t *)(scratch + l.place_of);
	if (way == MOE_PAIRS) {
		r = pairs(c, true, h);
		return r < 0 ? r : pairs(c, false, h);
	}
	if (m->choice) {
		r = gk_route(ctx, &m->choice->router, m->choice->logits, m->rows, m->choice->ids, m->choice->weights);
		if (r < 0)
			return r;
	}
	if (way == MOE_MANY || (way == MOE_FEW && m->rows.bound > PAIR_ROWS))
		h.elem = GK_BF16; /* as which it is multiplied */
	r = sort_pairs(c);
	if (r == 0 && way == MOE_EXACT) {
		r = exact_experts_launch(c, true, m->x, h, c.s.row_of);
		r = r < 0 ? r : exact_experts_launch(c, false, h, y, nullptr);
	} else if (r == 0 && way == MOE_FEW) {
		r = few_experts(c, true, m->x, h);
		r = r < 0 ? r : few_experts(c, false, h, y);
		if (r == -ENOTSUP)
			way = MOE_MANY;
	}
	if (way == MOE_MANY) {
		h.elem = y.elem = GK_BF16;
		y.ld = (m->dim + 7) / 8 * 8;
		r = many(c, h, y, l);
	}
	return r < 0 ? r : combine(c, y);
}
