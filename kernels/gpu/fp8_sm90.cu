/* Products of FP8 weights with rows in eight bits by Hopper's warpgroup instructions, and what is done with them before
 * they reach memory: a sum onto the residual stream, or the activation of gate and up in eight bits again.
 *
 *   out [rows, n] (+)= x W^T          of each 128 columns of x and W a partial sum on the matrix units, which keep some
 *                                     14 bits of it, times the scale of those of x's row and of W's block, in float32
 *
 * A block stays for the whole launch, one on each multiprocessor, and takes tiles in a fixed order: 128 rows of x and
 * HALVES times 128 of W, so that each half of the columns has one scale. One thread brings 128 columns of both at a
 * time into a ring; two warpgroups compute 64 rows each, one half after the other (their sums and a half's partial sum
 * fill the registers), one multiplying while the other one scales. Two blocks of a cluster have rows of x that follow
 * each other and the same rows of W, of which each brings one half for both: at 128 x 256 a multiprocessor then asks
 * the second-level cache for 32 KB in 1,024 cycles of its matrix units, without that for 48, at 128 x 128 without it
 * for 64. Tiles go along x's rows first, 2,048 of them (8 MB of 4,096 columns), so that these stay in that cache and
 * weights come from memory once for 2,048 rows.
 *
 * Few rows make few tiles: then two or four blocks of a cluster have a part of each sum, each gets from the others what
 * they have of its part of the columns, and adds in the order of the parts: no bit depends on who comes first.
 *
 * Weights are brought before the kernel before has ended, as far as the ring goes; x is not. With gate and up the two
 * halves are the same 128 columns of both, so that a thread has what belongs together and four threads have all of what
 * shares a scale. Results leave by way of a piece of shared memory for each wave, in whole lines. */
#include <errno.h>

#include "gpu/fp8_out_sm90.h"
#include "gpu/fp8_sm90.h"

#if SM90_CODE

/* A place in the ring, and how often it has come round. */
template <int STAGES> struct eight_ring {
	uint32_t stage, parity;

	__device__ __forceinline__ void next()
	{
		if (++stage == STAGES) {
			stage = 0;
			parity ^= 1;
		}
	}
};

template <class F> GPU_FN eight_tile eight_tile_of(const eight_args &a, uint32_t item, uint32_t rank)
{
	enum { NEAR = EIGHT_NEAR / F::SHARE };
	const uint32_t band = item / (NEAR * a.across), first = band * NEAR, left = a.down - first,
	               here = left < NEAR ? left : (uint32_t)NEAR;
	const uint32_t in_band = item - first * a.across, across = in_band / here, part = F::PARTS > 1 ? rank : 0;
	eight_tile t;

	t.rows_of_all = (first + in_band % here) * F::SHARE * EIGHT_ROWS;
	t.row = t.rows_of_all + (F::SHARE > 1 ? rank : 0) * EIGHT_ROWS;
	t.col = across * F::TILE_COLS;
	t.w_row[0] = t.col;
	t.w_row[1] = (int)F::KIND == EIGHT_GATED ? t.col : t.col + EIGHT_COLS;
	t.begin = a.depth * part / F::PARTS;
	t.end = a.depth * (part + 1) / F::PARTS;
	return t;
}

/* Clusters take items in turns. The first one is computed whether its rows are there or not, since its
 * weights are asked for before that is known. */
template <class F> struct eight_items {
	uint32_t at, n, step;

	__device__ __forceinline__ explicit eight_items(const eight_args &a)
	    : at(blockIdx.x / F::CLUSTER), n(a.across * a.down), step(gridDim.x / F::CLUSTER)
	{
	}
	/* Steps over tiles without rows. */
	__device__ __forceinline__ bool next(const eight_args &a, uint32_t n_rows, uint32_t rank, eight_tile *ret)
	{
		for (at += step; at < n; at += step) {
			*ret = eight_tile_of<F>(a, at, rank);
			if (ret->rows_of_all < n_rows)
				return true;
		}
		return false;
	}
};

/* ---- Who brings -------------------------------------------------------------------------------------------------- */

/* Of x's scales, whose last tile may be short. */
GPU_FN uint32_t eight_scale_bytes(const eight_args &a, const eight_tile &t)
{
	const uint32_t left = t.row < a.ld_scale ? a.ld_scale - t.row : 0;

	return (left < EIGHT_ROWS ? left : (uint32_t)EIGHT_ROWS) * 4;
}

template <class F>
GPU_FN void eight_bring_w(const eight_args &a, const eight_memory<F> &m, const eight_tile &t, uint32_t k,
                          uint32_t stage, uint32_t rank)
{
	sm90_bar *const full = &m.signals()->full[stage];

	sm90_bar_expect(full, (1 + F::HALVES) * EIGHT_HALF + eight_scale_bytes(a, t));
	if (F::SHARE == 1) {
#pragma unroll
		for (int h = 0; h < F::HALVES; h++)
			sm90_copy_box(m.w(stage, h), &a.w[h], k * EIGHT_DEPTH, t.w_row[h], full);
	} else if (F::HALVES == 2) {
		sm90_copy_box_to(m.w(stage, rank), &a.w[rank], k * EIGHT_DEPTH, rank ? t.w_row[1] : t.w_row[0], full,
		                 3);
	} else {
		sm90_copy_box_to(m.w(stage, 0) + rank * 64 * SM90_TILE_ROW, &a.w[0], k * EIGHT_DEPTH,
		                 t.w_row[0] + rank * 64, full, 3);
	}
}

template <class F>
GPU_FN void eight_bring_x(const eight_args &a, const eight_memory<F> &m, const eight_tile &t, uint32_t k,
                          uint32_t stage)
{
	sm90_bar *const full = &m.signals()->full[stage];
	const uint32_t bytes = eight_scale_bytes(a, t);

	sm90_copy_box(m.x(stage), &a.x, k * EIGHT_DEPTH, t.row, full);
	if (bytes)
		sm90_copy_bytes(m.scales(stage), a.x_scale + (size_t)k * a.ld_scale + t.row, bytes, full);
}

/* One thread. */
template <class F> GPU_FN void eight_bring(const eight_args &a, const eight_memory<F> &m, uint32_t rank)
{
	eight_items<F> items(a);
	eight_tile t = eight_tile_of<F>(a, items.at, rank);
	const uint32_t ready = t.end - t.begin < F::STAGES ? t.end - t.begin : (uint32_t)F::STAGES;
	eight_ring<F::STAGES> ring = { 0, 1 };
	uint32_t n_rows;

	for (uint32_t i = 0; i < ready; i++)
		eight_bring_w(a, m, t, t.begin + i, i, rank);
	gpu_dependency_wait();
	n_rows = gk_n_rows(a.rows);
	for (uint32_t i = 0; i < ready; i++) {
		eight_bring_x(a, m, t, t.begin + i, i);
		ring.next();
	}
	t.begin += ready;
	do {
		for (uint32_t k = t.begin; k < t.end; k++) {
			sm90_bar_wait(&m.signals()->empty[ring.stage], ring.parity);
			eight_bring_w(a, m, t, k, ring.stage, rank);
			eight_bring_x(a, m, t, k, ring.stage);
			ring.next();
		}
	} while (items.next(a, n_rows, rank, &t));
}

/* ---- Who computes ------------------------------------------------------------------------------------------------ */

/* part = 64 rows of x times 128 of W, 128 columns of both. */
GPU_FN void eight_product(float (&part)[64], const uint8_t *x, const uint8_t *w)
{
	const sm90_desc dx = sm90_desc_of(x, 16, 8 * SM90_TILE_ROW), dw = sm90_desc_of(w, 16, 8 * SM90_TILE_ROW);

	sm90_product8<false>(part, dx, dw);
#pragma unroll
	for (int i = 1; i < EIGHT_DEPTH / 32; i++)
		sm90_product8<true>(part, sm90_desc_add(dx, i * 32), sm90_desc_add(dw, i * 32));
}

/* A warpgroup. */
template <class F> GPU_FN void eight_compute(const eight_args &a, const eight_memory<F> &m, uint32_t rank)
{
	const uint32_t group = threadIdx.x / SM90_GROUP, lane = threadIdx.x & 31, wave = threadIdx.x / 32;
	const uint32_t mine = wave * 16 + lane / 4; /* of a tile's rows, the first of this thread's two */
	eight_items<F> items(a);
	eight_tile t = eight_tile_of<F>(a, items.at, rank);
	eight_ring<F::STAGES> ring = { 0, 0 };
	float sum[F::HALVES][64], part[64];
	uint32_t n_rows, lead = group == 0 ? a.lead : 0;

	gpu_dependency_wait();
	n_rows = gk_n_rows(a.rows);
#pragma unroll
	for (int i = 0; i < 64; i++)
		part[i] = 0.0f;
	if (a.turns && group == 1)
		sm90_named_arrive(EIGHT_TURN, EIGHT_COMPUTE);
	if (a.lead && group == 1)
		sm90_named_sync(EIGHT_LEAD, EIGHT_COMPUTE);
	do {
		const float *w_scale[F::HALVES];

#pragma unroll
		for (int h = 0; h < F::HALVES; h++) {
			const uint32_t line = t.w_row[h] / EIGHT_COLS;

			w_scale[h] = a.w_scale[h] + (size_t)(line < a.w_lines ? line : a.w_lines - 1) * a.w_across;
#pragma unroll
			for (int i = 0; i < 64; i++)
				sum[h][i] = 0.0f;
		}
		for (uint32_t k = t.begin; k < t.end; k++) {
			const float *const scales = m.scales(ring.stage) + mine;
			float by_w[F::HALVES], by_x[2];

#pragma unroll
			for (int h = 0; h < F::HALVES; h++)
				by_w[h] = w_scale[h][k];
			sm90_bar_wait(&m.signals()->full[ring.stage], ring.parity);
			by_x[0] = scales[0];
			by_x[1] = scales[8];
#pragma unroll
			for (int h = 0; h < F::HALVES; h++) {
				float by[2];

				if (a.turns)
					sm90_named_sync(EIGHT_TURN + group, EIGHT_COMPUTE);
				sm90_pin(part);
				sm90_products_begin();
				eight_product(part, m.x(ring.stage) + group * (EIGHT_HALF / EIGHT_GROUPS),
				              m.w(ring.stage, h));
				sm90_products_end();
				if (a.turns)
					sm90_named_arrive(EIGHT_TURN + 1 - group, EIGHT_COMPUTE);
				by[0] = by_x[0] * by_w[h];
				by[1] = by_x[1] * by_w[h];
				sm90_products_wait<0>();
				sm90_pin(part);
				if (h == F::HALVES - 1 && lane < F::SHARE)
					sm90_bar_arrive_at(&m.signals()->empty[ring.stage], F::SHARE > 1 ? lane : rank);
#pragma unroll
				for (int i = 0; i < 64; i++)
					sum[h][i] = fmaf(by[i / 2 % 2], part[i], sum[h][i]);
			}
			ring.next();
			/* At the latest with the last step of the first tile. */
			if (lead && (--lead == 0 || k + 1 == t.end)) {
				lead = 0;
				sm90_named_arrive(EIGHT_LEAD, EIGHT_COMPUTE);
			}
		}

		const eight_way_out out = { m.piece(wave), t.row + wave * 16, n_rows, lane };

		if constexpr (F::PARTS > 1) {
			eight_join<F>(m, rank, sum[0]);
			t.col += rank * (F::TILE_COLS / F::PARTS);
		}
		eight_put<F>(a, t, out, sum);
	} while (items.next(a, n_rows, rank, &t));
	if (a.turns && group == 0) /* as often as it was arrived at */
		sm90_named_sync(EIGHT_TURN, EIGHT_COMPUTE);
}
#endif

template <class F> static __global__ void __launch_bounds__(EIGHT_THREADS, 1) eight_kernel(GPU_PARAM eight_args a)
{
#if SM90_CODE
	GPU_DYN_SHARED(uint8_t, shared);
#if defined(GPU_HOST)
	const uint32_t misaligned = (uint32_t)((uintptr_t)shared & (SM90_ALIGN - 1));
#else
	const uint32_t misaligned = sm90_shared(shared) & (SM90_ALIGN - 1);
#endif
	const eight_memory<F> m = { shared + (misaligned ? SM90_ALIGN - misaligned : 0) };
	const uint32_t rank = F::CLUSTER == 1 ? 0 : sm90_cluster_rank();

	if (threadIdx.x == 0) {
		for (int i = 0; i < F::STAGES; i++) {
			sm90_bar_init(&m.signals()->full[i], 1);
			sm90_bar_init(&m.signals()->empty[i], F::SHARE * EIGHT_WAVES);
		}
		if (F::PARTS > 1)
			sm90_bar_init(&m.signals()->others, (F::PARTS - 1) * EIGHT_WAVES);
		sm90_bars_ready();
	}
	if (F::CLUSTER == 1)
		__syncthreads();
	else
		sm90_cluster_sync(); /* nobody brings anything to whom is not ready */
	gpu_dependents_may_start();
	/* In this order: see attention_sm90.cu. */
	if (threadIdx.x < EIGHT_COMPUTE) {
		sm90_more_registers<EIGHT_RICH>();
		eight_compute<F>(a, m, rank);
	} else {
		sm90_fewer_registers<EIGHT_LEAN>();
		if (threadIdx.x == EIGHT_COMPUTE)
			eight_bring<F>(a, m, rank);
	}
	if (F::CLUSTER > 1)
		sm90_cluster_sync(); /* nobody goes to whom something is on its way */
#endif
}

/* ---- Launches ---------------------------------------------------------------------------------------------------- */

static uint32_t in_parts(uint32_t n, uint32_t each)
{
	return (n + each - 1) / each;
}

template <class F> static int launch(const struct gk_ctx *ctx, const struct gk_linear8 *l, eight_args a)
{
	const uint32_t k = l->w[0].cols, bound = l->rows.bound;
	uint32_t clusters, most;

	for (int h = 0; h < 2; h++) {
		const struct gk_mat *const w = &l->w[l->gated ? h : 0];

		if (!sm90_map_of(&a.w[h], w->values, 1, l->n, k, w->ld, F::BOX))
			return -ENOTSUP;
		a.w_scale[h] = (const float *)w->scales;
	}
	if (!sm90_map_of(&a.x, l->x, 1, bound, k, l->ld_x, EIGHT_ROWS) || (size_t)F::BYTES > ctx->smem_bytes)
		return -ENOTSUP;
	a.across = in_parts(l->n, F::TILE_COLS);
	a.down = in_parts(bound, EIGHT_ROWS * F::SHARE);
	clusters = a.across * a.down;
	most = ctx->n_sm / F::CLUSTER ? ctx->n_sm / F::CLUSTER : 1;
	if (F::PARTS == 1 && clusters > most)
		clusters = most;
	sm90_launch(eight_kernel<F>, clusters * F::CLUSTER, EIGHT_THREADS, F::CLUSTER, F::BYTES, ctx->stream,
	            ctx->overlap, a);
	return gk_launched();
}

template <int HALVES, int KIND>
static int launch_shared(const struct gk_ctx *ctx, const struct gk_linear8 *l, const eight_args &a, bool pairs)
{
	return pairs ? launch<eight_form<HALVES, KIND, 2, 1>>(ctx, l, a)
	             : launch<eight_form<HALVES, KIND, 1, 1>>(ctx, l, a);
}

/* Whichever takes the fewest rounds of tiles; a narrow tile takes half as long, and a tenth more than that. */
static bool wide_is_better(const struct gk_ctx *ctx, const struct gk_linear8 *l)
{
	const uint32_t down = in_parts(l->rows.bound, EIGHT_ROWS);

	return 20 * in_parts(down * in_parts(l->n, 2 * EIGHT_COLS), ctx->n_sm) <=
	       11 * in_parts(down * in_parts(l->n, EIGHT_COLS), ctx->n_sm);
}

enum { LEAST_DEPTH = 4 /* of a part */, MOST_LEAD = 3 /* the ring has at least one place more */ };

/* Few tiles: several blocks have parts of each sum, so that more of them read weights. */
static uint32_t best_parts(const struct gk_ctx *ctx, const struct gk_linear8 *l, uint32_t depth)
{
	const uint32_t tiles = in_parts(l->rows.bound, EIGHT_ROWS) * in_parts(l->n, EIGHT_COLS);

	if (4 * tiles <= ctx->n_sm && l->out.elem == GK_F32 && depth >= 4 * LEAST_DEPTH)
		return 4;
	return 2 * tiles <= ctx->n_sm && depth >= 2 * LEAST_DEPTH ? 2 : 1;
}

template <int KIND>
static int launch_kind(const struct gk_ctx *ctx, const struct gk_linear8 *l, const eight_args &a, bool pairs)
{
	const uint32_t parts = l->tiles.parts ? l->tiles.parts : best_parts(ctx, l, a.depth);

	if (parts == 2)
		return launch<eight_form<1, KIND, 1, 2>>(ctx, l, a);
	if constexpr (KIND == EIGHT_F32) {
		if (parts == 4)
			return launch<eight_form<1, KIND, 1, 4>>(ctx, l, a);
	}
	if (parts != 1)
		return -EINVAL;
	return (l->tiles.columns ? l->tiles.columns == 256 : wide_is_better(ctx, l))
	               ? launch_shared<2, KIND>(ctx, l, a, pairs)
	               : launch_shared<1, KIND>(ctx, l, a, pairs);
}

int eight_launch(const struct gk_ctx *ctx, const struct gk_linear8 *l)
{
	const struct gk_mat *const w = l->w;
	eight_args a = {};
	bool pairs;

	if (w[0].type != GK_FP8_128 || w[0].first_row || l->n % 16 || l->ld_x % 16 || l->ld_scale % 4 ||
	    l->ld_scale < l->rows.bound || w[0].ld % 16 ||
	    (((uintptr_t)l->x | (uintptr_t)w[0].values | (uintptr_t)l->x_scale) & 15))
		return -ENOTSUP;
	if (l->gated ? w[1].type != GK_FP8_128 || w[1].first_row || w[1].cols != w[0].cols || w[1].ld != w[0].ld ||
	                       l->act != KN_ACT_SILU || l->ld_q % 64 || l->ld_q < l->n ||
	                       (((uintptr_t)l->q | (uintptr_t)w[1].values) & 15)
	             : (l->out.elem != GK_BF16 && l->out.elem != GK_F32) || !gk_view_aligned(l->out))
		return -ENOTSUP;
	a.x_scale = l->x_scale;
	a.ld_scale = l->ld_scale;
	a.w_across = gk_mat_scale_stride(&w[0]);
	a.w_lines = in_parts(l->n, EIGHT_COLS);
	a.n = l->n;
	a.depth = in_parts(w[0].cols, EIGHT_DEPTH);
	a.rows = l->rows;
	a.out = l->out;
	a.accumulate = l->accumulate;
	a.turns = l->tiles.turns;
	a.lead = l->tiles.turns || l->tiles.parts > 1 ? 0
	         : l->tiles.lead < MOST_LEAD          ? l->tiles.lead
	                                              : (uint32_t)MOST_LEAD;
	a.q = (uint8_t *)l->q;
	a.q_scale = l->q_scale;
	a.ld_q = l->ld_q;
	a.ld_q_scale = l->ld_q_scale;
	pairs = !l->tiles.alone && l->rows.bound > EIGHT_ROWS;
	if (l->gated)
		return launch_shared<2, EIGHT_GATED>(ctx, l, a, pairs);
	return l->out.elem == GK_F32 ? launch_kind<EIGHT_F32>(ctx, l, a, pairs)
	                             : launch_kind<EIGHT_BF16>(ctx, l, a, pairs);
}
