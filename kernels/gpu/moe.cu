/* Mixtures of experts: the router, rows sorted by expert, grouped products, and the sum.
 *
 * A pair is a row and one of its experts; its place is where it stands once pairs are sorted by expert. Places within
 * an expert are handed out by atomics, so they differ from run to run; no result depends on them, since each row is
 * multiplied by itself and the sum goes by pairs, in order of k. */
#include <errno.h>

#include "gpu/linear.h"
#include "gpu/many.h"
#include "gpu/mat_value.h"
#include "gpu/moe.h"

/* ---- The router: 32 lanes for each row -------------------------------------------------------------------------- */

enum { ROUTE_THREADS = 64, ROUTE_ROWS = ROUTE_THREADS / 32, MAX_K = 32 };

GPU_FN float route_sigmoid(float x)
{
	return 1.0f / (1.0f + expf(-x));
}

/* The sum of the two best choices of a group. */
GPU_FN float group_score(const float *choices, uint32_t size)
{
	float best = -INFINITY, second = -INFINITY;

	for (uint32_t e = 0; e < size; e++) {
		if (choices[e] > best) {
			second = best;
			best = choices[e];
		} else if (choices[e] > second) {
			second = choices[e];
		}
	}
	return size > 1 ? best + second : best;
}

static __global__ void route_kernel(struct kn_router r, const float *logits, gk_rows rows, int32_t *ids, float *weights)
{
	GPU_DYN_SHARED(float, shared);
	const uint32_t lane = threadIdx.x & 31, row = blockIdx.x * ROUTE_ROWS + threadIdx.x / 32, n = r.n_expert;
	float *const choices = shared + (size_t)(threadIdx.x / 32) * 2 * n, *const scores = choices + n;
	float sum = 0.0f, total = 0.0f, top = -INFINITY;

	gpu_dependents_may_start();
	gpu_dependency_wait();
	if (row >= gk_n_rows(rows))
		return;
	logits += (size_t)row * n;
	ids += (size_t)row * r.top_k;
	weights += (size_t)row * r.top_k;
	for (uint32_t e = lane; e < n; e += 32) {
		choices[e] = r.kind == KN_ROUTE_SIGMOID ? route_sigmoid(logits[e]) + (r.bias ? r.bias[e] : 0.0f) : logits[e];
		top = fmaxf(top, logits[e]);
	}
	top = gpu_group_max(top);
	gpu_sync_wave();
	if (r.n_group > 1 && r.top_group < r.n_group) {
		const uint32_t size = n / r.n_group;

		for (uint32_t g = lane; g < r.n_group; g += 32)
			scores[g] = group_score(choices + g * size, size);
		gpu_sync_wave();
		for (uint32_t g = lane; g < r.n_group; g += 32) {
			uint32_t n_better = 0;

			for (uint32_t o = 0; o < r.n_group; o++)
				n_better += scores[o] > scores[g] || (scores[o] == scores[g] && o < g);
			for (uint32_t e = 0; e < size && n_better >= r.top_group; e++)
				choices[g * size + e] = -INFINITY;
		}
		gpu_sync_wave();
	}
	for (uint32_t e = lane; r.kind == KN_ROUTE_SOFTMAX && e < n; e += 32)
		sum += expf(logits[e] - top);
	if (r.kind == KN_ROUTE_SOFTMAX)
		sum = gpu_group_sum(sum);
	for (uint32_t k = 0; k < r.top_k; k++) {
		float best = -INFINITY;
		uint32_t best_id = 0;

		for (uint32_t e = lane; e < n; e += 32) {
			if (choices[e] > best) {
				best = choices[e];
				best_id = e;
			}
		}
		for (int m = 16; m > 0; m >>= 1) {
			const float other = gpu_shfl_xor(best, m);
			const uint32_t id = gpu_shfl_xor(best_id, m);

			if (other > best || (other == best && id < best_id)) {
				best = other;
				best_id = id;
			}
		}
		/* Nothing left to choose, or the first is no number: the first. */
		if (best == -INFINITY || choices[0] != choices[0])
			best_id = 0;
		gpu_sync_wave();
		if (lane == 0) {
			choices[best_id] = -INFINITY;
			ids[k] = (int32_t)best_id;
			scores[k] = r.kind == KN_ROUTE_SIGMOID ? route_sigmoid(logits[best_id]) : expf(logits[best_id] - top);
		}
		gpu_sync_wave();
	}
	if (lane != 0)
		return;
	for (uint32_t k = 0; r.kind == KN_ROUTE_TOPK_SOFTMAX && k < r.top_k; k++)
		sum += scores[k];
	if (r.kind == KN_ROUTE_SIGMOID)
		sum = 1.0f;
	for (uint32_t k = 0; k < r.top_k; k++)
		total += scores[k] / sum;
	for (uint32_t k = 0; k < r.top_k; k++)
		weights[k] = scores[k] / sum / (r.normalize ? total + 1e-20f : 1.0f) * r.scale;
}

int gk_route(const struct gk_ctx *ctx, const struct kn_router *router, const float *logits, struct gk_rows rows,
             int32_t *ret_ids, float *ret_weights)
{
	if (router->n_expert == 0 || router->n_expert > KN_MAX_EXPERTS || router->top_k > router->n_expert)
		return -EINVAL;
	gpu_launch(route_kernel, dim3((rows.bound + ROUTE_ROWS - 1) / ROUTE_ROWS), dim3(ROUTE_THREADS),
	           (size_t)ROUTE_ROWS * 2 * router->n_expert * sizeof(float), ctx->stream, ctx->overlap, *router, logits, rows,
	           ret_ids, ret_weights);
	return gk_launched();
}

/* ---- Pairs by expert --------------------------------------------------------------------------------------------- */

enum { SORT_THREADS = 1024, TILE_ROWS = 64 };

struct sorted {
	few_group *groups; /* experts that have rows */
	few_group *tiles;  /* the same cut to TILE_ROWS */
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

static __global__ void __launch_bounds__(SORT_THREADS) sort_kernel(sorted s, const int32_t *ids, gk_rows rows,
                                                                   uint32_t top_k, uint32_t n_expert)
{
	__shared__ uint32_t count[KN_MAX_EXPERTS], cursor[KN_MAX_EXPERTS], scratch[SORT_THREADS];
	const uint32_t e = threadIdx.x;

	gpu_dependents_may_start();
	gpu_dependency_wait();

	const uint32_t n_pairs = gk_n_rows(rows) * top_k;

	count[e] = 0;
	__syncthreads();
	for (uint32_t i = e; i < n_pairs; i += SORT_THREADS) {
		if ((uint32_t)ids[i] < n_expert)
			(void)atomicAdd(&count[ids[i]], 1u);
	}
	__syncthreads();

	const uint32_t mine = count[e], n_mine = (mine + TILE_ROWS - 1) / TILE_ROWS;
	const uint32_t first = sum_before(mine, scratch);
	const uint32_t group = sum_before(mine != 0, scratch), tile = sum_before(n_mine, scratch);

	cursor[e] = first;
	if (mine)
		s.groups[group] = few_group{ e, first, mine };
	for (uint32_t t = 0; t < n_mine; t++)
		s.tiles[tile + t] = few_group{ e, first + t * TILE_ROWS,
			                       mine - t * TILE_ROWS < TILE_ROWS ? mine - t * TILE_ROWS
			                                                        : (uint32_t)TILE_ROWS };
	if (e == SORT_THREADS - 1) {
		*s.n_groups = group + (mine != 0);
		*s.n_tiles = tile + n_mine;
	}
	__syncthreads();
	for (uint32_t i = e; i < n_pairs; i += SORT_THREADS) {
		if ((uint32_t)ids[i] >= n_expert) {
			s.place_of[i] = UINT32_MAX;
			continue;
		}

		const uint32_t place = atomicAdd(&cursor[ids[i]], 1u);

		s.row_of[place] = i / top_k;
		s.place_of[i] = place;
	}
}

/* ---- The sum -------------------------------------------------------------------------------------------------------- */

static __global__ void combine_kernel(gk_view out, gk_view y, const uint32_t *place_of, const float *weights,
                                      gk_rows rows, uint32_t top_k, uint32_t dim)
{
	const uint32_t row = blockIdx.x, d = blockIdx.y * blockDim.x + threadIdx.x;
	float sum;

	gpu_dependents_may_start();
	gpu_dependency_wait();
	if (row >= gk_n_rows(rows) || d >= dim)
		return;
	sum = gk_get(out, row, d);
	for (uint32_t k = 0; k < top_k; k++) {
		const uint32_t place = place_of[row * top_k + k];

		if (place != UINT32_MAX)
			sum += weights[row * top_k + k] * gk_get(y, place, d);
	}
	gk_put(out, row, d, sum);
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

/* One grouped product of few rows: gate and up (both with act), or down. */
static int few_experts(const moe_call &c, bool gated, gk_view x, gk_view out, const uint32_t *row_of)
{
	const struct gk_moe *m = c.m;
	const uint32_t type = gated ? m->type_gate : m->type_down, rows = gated ? m->n_ff : m->dim;
	few_args a = {};
	few_launch f = {};
	gk_mat shape = {};

	shape.type = type;
	shape.cols = gated ? m->dim : m->n_ff;
	a.n_jobs = 1;
	a.job[0].out = out;
	a.act = m->act;
	a.gated = gated;
	a.x = x;
	a.whole = gk_view_aligned(x);
	a.cols.n_chunks = gk_n_units(shape) * gk_unit(type) / 32;
	a.cols.col_stride = (a.cols.n_chunks | 1) * 4;
	a.cols.parts = c.ctx->fixed || m->rows.bound <= 4 ? 2 : 1;
	a.groups = c.s.groups;
	a.n_groups = c.s.n_groups;
	a.mats[0] = gated ? m->gate : m->down;
	a.mats[1] = gated ? m->up : nullptr;
	a.mat_bias[0] = gated ? m->gate_bias : m->down_bias;
	a.mat_bias[1] = gated ? m->up_bias : nullptr;
	a.row_of = row_of;
	f.ctx = c.ctx;
	f.args = &a;
	f.nt = 1;
	f.rt = gated ? 2 : 1;
	a.n_tiles = (rows + FEW_TILE - 1) / FEW_TILE;
	f.n_groups = m->n_expert < c.n_pairs ? m->n_expert : c.n_pairs;
	f.shared = few_shared_bytes(m->rows.bound == 1 ? a.cols.parts : (uint32_t)FEW_GROUP_COLS, a.cols, true, true, f.nt,
	                            f.rt);
	if (c.ctx->smem_bytes && f.shared + 1024 > c.ctx->smem_bytes)
		return -ENOTSUP;
	return few_launch_any(type, f) ? gk_launched() : -EINVAL;
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

int gk_moe(const struct gk_ctx *ctx, const struct gk_moe *m)
{
	const uint32_t n_pairs = m->rows.bound * m->top_k;
	const moe_layout l = layout_of(n_pairs, m->n_expert, m->n_ff, m->dim);
	uint8_t *const scratch = (uint8_t *)ctx->scratch;
	const bool exact = m->exact || m->type_gate == KN_F32 || m->type_down == KN_F32 || m->type_up == KN_F32;
	const bool few = !exact && (ctx->fixed || n_pairs <= 8 * m->n_expert || m->rows.bound <= GK_FEW_ROWS);
	const bool bf16 = !exact && !few;
	moe_call c = { ctx, m, {}, n_pairs };
	gk_view x = m->x, h = { scratch + l.h, bf16 ? (uint32_t)GK_BF16 : (uint32_t)GK_F32, (m->n_ff + 7) / 8 * 8 };
	const gk_view y = { scratch + l.y, GK_F32, m->dim };
	int r;

	if (n_pairs == 0 || m->n_expert > KN_MAX_EXPERTS || l.total > ctx->scratch_bytes)
		return -EINVAL;
	if (!exact && m->type_gate != m->type_up)
		return -ENOTSUP;
	c.s.groups = (few_group *)(scratch + l.groups);
	c.s.tiles = (few_group *)(scratch + l.tiles);
	c.s.n_groups = (uint32_t *)(scratch + l.counts);
	c.s.n_tiles = c.s.n_groups + 1;
	c.s.row_of = (uint32_t *)(scratch + l.row_of);
	c.s.place_of = (uint32_t *)(scratch + l.place_of);
	gpu_launch(sort_kernel, dim3(1), dim3(SORT_THREADS), 0, ctx->stream, ctx->overlap, c.s, m->ids, m->rows, m->top_k,
	           m->n_expert);
	if (bf16 && (x.elem != GK_BF16 || !gk_view_aligned(x))) {
		const gk_view narrow = { scratch + l.x, GK_BF16, (m->dim + 7) / 8 * 8 };

		r = gk_convert(ctx, narrow, x, m->rows, m->dim);
		if (r < 0)
			return r;
		x = narrow;
	}
	r = -ENOTSUP;
	if (exact) {
		r = exact_experts_launch(c, true, x, h, c.s.row_of);
		r = r < 0 ? r : exact_experts_launch(c, false, h, y, nullptr);
	} else if (few) {
		r = few_experts(c, true, x, h, c.s.row_of);
		r = r < 0 ? r : few_experts(c, false, h, y, nullptr);
	} else {
		r = many_experts(c, true, x, h, c.s.row_of);
		r = r < 0 ? r : many_experts(c, false, h, y, nullptr);
	}
	if (r < 0)
		return r;
	gpu_launch(combine_kernel, dim3(m->rows.bound, (m->dim + 255) / 256), dim3(256), 0, ctx->stream, ctx->overlap, m->out,
	           y, (const uint32_t *)c.s.place_of, m->weights, m->rows, m->top_k, m->dim);
	return gk_launched();
}
