/* Products by Hopper's warpgroup instructions, and what is done with them before they reach memory: a sum onto the
 * residual stream, or the activation of gate and up, in eight bits again where rows are.
 *
 *   out [rows, n] (+)= x W^T
 *
 * bfloat16: one sum on the matrix units. FP8 weights and rows in eight bits: of each 128 columns a partial sum on
 * them, which keep some 14 bits of it, times the scale of those of x's row and of W's block, in float32.
 *
 * A block stays for the whole launch, one on each multiprocessor, and takes tiles in a fixed order: 128 rows of x and
 * HALVES times 128 of W, so that each half of the columns has one scale. One thread brings 128 bytes of the rows of
 * both at a time into a ring; two warpgroups compute 64 rows each. In eight bits each computes one half after the other
 * (their sums and a half's partial sum fill the registers), one multiplying while the other one scales: what a step has
 * beside that has to be short, or the matrix units wait (addresses that were made anew from pointers were 40 % of it).
 *
 * Two blocks of a cluster bring together what both need. With many rows they have rows of x that follow each other and
 * the same rows of W: at 128 x 256 a multiprocessor then asks the second-level cache for 32 KB in 1,024 cycles of its
 * matrix units (in eight bits), without that for 48, at 128 x 128 without it for 64. With up to 128 rows they have the
 * same rows of x, which that cache gives to all multiprocessors together as often as there are tiles. Tiles go along
 * x's rows first, 2,048 of them (8 MB of 4,096 bytes), so that these stay in that cache and weights come from memory
 * once for 2,048 rows.
 *
 * Few rows make few tiles: then two or three blocks of a cluster have a part of each sum, each gets from the others
 * what they have of its part of the columns, and adds in the order of the parts: no bit depends on who comes first.
 *
 * Weights are brought before the kernel before has ended, as far as the ring goes; x is not. With gate and up the two
 * halves are the same 128 columns of both, so that a thread has what belongs together and four threads have all of what
 * shares a scale. Results leave by way of a piece of shared memory for each wave, in whole lines; what they are added
 * onto is asked for, into the second-level cache, when a tile begins. */
#include <errno.h>

#include "gpu/product_out_sm90.h"
#include "gpu/product_sm90.h"

#if SM90_CODE

/* A place in the ring, and how often it has come round. */
template <int STAGES> struct prod_ring {
	uint32_t stage, parity;

	__device__ __forceinline__ void next()
	{
		if (++stage == STAGES) {
			stage = 0;
			parity ^= 1;
		}
	}
};

template <class F> GPU_FN prod_tile prod_tile_of(const prod_args &a, uint32_t item, uint32_t rank)
{
	enum { NEAR = PROD_NEAR / F::DOWN };
	const uint32_t band = item / (NEAR * a.across), first = band * NEAR, left = a.down - first,
	               here = left < NEAR ? left : (uint32_t)NEAR;
	const uint32_t in_band = item - first * a.across, across = in_band / here, part = F::PARTS > 1 ? rank : 0;
	prod_tile t;

	t.rows_of_all = (first + in_band % here) * F::DOWN * PROD_ROWS;
	t.row = t.rows_of_all + (F::DOWN > 1 ? rank : 0) * PROD_ROWS;
	t.col = (across * F::ACROSS + (F::ACROSS > 1 ? rank : 0)) * F::TILE_COLS;
	t.col_end = a.n;
	t.w_row[0] = t.col;
	t.w_row[1] = F::GATED ? t.col : t.col + PROD_COLS;
	t.begin = a.depth * part / F::PARTS;
	t.end = a.depth * (part + 1) / F::PARTS;
	return t;
}

/* Clusters take items in turns. The first one is computed whether its rows are there or not, since its
 * weights are asked for before that is known. */
template <class F> struct prod_items {
	uint32_t at, n, step;

	__device__ __forceinline__ explicit prod_items(const prod_args &a)
	    : at(blockIdx.x / F::CLUSTER), n(a.across * a.down), step(gridDim.x / F::CLUSTER)
	{
	}
	/* Steps over tiles without rows. */
	__device__ __forceinline__ bool next(const prod_args &a, uint32_t n_rows, uint32_t rank, prod_tile *ret)
	{
		for (at += step; at < n; at += step) {
			*ret = prod_tile_of<F>(a, at, rank);
			if (ret->rows_of_all < n_rows)
				return true;
		}
		return false;
	}
};

/* ---- Who brings -------------------------------------------------------------------------------------------------- */

/* Where tiles are brought to, and the barriers beside them. */
template <class F> struct prod_bringer {
	const prod_args &a;
	sm90_place base, full, scales;
	uint32_t rank;
	prod_ring<F::STAGES> ring;

	__device__ __forceinline__ prod_bringer(const prod_args &args, const prod_memory<F> &m, uint32_t my_rank)
	    : a(args), base(sm90_place_of(m.base)), full(sm90_place_of(&m.signals()->full[0])),
	      scales(sm90_place_of(m.scales(0))), rank(my_rank), ring({ 0, 1 })
	{
	}
	__device__ __forceinline__ void wait_for_room() const
	{
		sm90_bar_wait(full + (F::STAGES + ring.stage) * (uint32_t)sizeof(sm90_bar), ring.parity);
	}
	/* Bytes, too, of the scales of x, whose last tile may be short. */
	__device__ __forceinline__ uint32_t scale_bytes(const prod_tile &t) const
	{
		const uint32_t left = t.row < a.ld_scale ? a.ld_scale - t.row : 0;

		return F::EIGHT ? (left < PROD_ROWS ? left : (uint32_t)PROD_ROWS) * 4 : 0;
	}
	__device__ __forceinline__ void bring_w(const prod_tile &t, uint32_t k, uint32_t of_scales) const
	{
		const sm90_place bar = full + ring.stage * (uint32_t)sizeof(sm90_bar),
		                 w = base + (ring.stage * F::STAGE + PROD_HALF);

		sm90_bar_expect(bar, (1 + F::HALVES) * PROD_HALF + of_scales);
		if (F::DOWN == 1) {
#pragma unroll
			for (int h = 0; h < F::HALVES; h++)
				sm90_copy_box(w + h * PROD_HALF, &a.w[h], k * F::DEPTH, t.w_row[h], bar);
		} else {
			sm90_copy_box_to(w + rank * PROD_HALF, &a.w[rank], k * F::DEPTH, rank ? t.w_row[1] : t.w_row[0],
			                 bar, 3);
		}
	}
	__device__ __forceinline__ void bring_x(const prod_tile &t, uint32_t k, uint32_t of_scales) const
	{
		const sm90_place bar = full + ring.stage * (uint32_t)sizeof(sm90_bar), x = base + ring.stage * F::STAGE;

		if (F::ACROSS == 2)
			sm90_copy_box_to(x + rank * 64 * SM90_TILE_ROW, &a.x, k * F::DEPTH, t.row + rank * 64, bar, 3);
		else
			sm90_copy_box(x, &a.x, k * F::DEPTH, t.row, bar);
		if (of_scales)
			sm90_copy_bytes(scales + ring.stage * PROD_SCALES, a.x_scale + (size_t)k * a.ld_scale + t.row,
			                of_scales, bar);
	}
};

/* One thread. */
template <class F> GPU_FN void prod_bring(const prod_args &a, prod_bringer<F> b)
{
	prod_items<F> items(a);
	prod_tile t = prod_tile_of<F>(a, items.at, b.rank);
	const uint32_t ready = t.end - t.begin < F::STAGES ? t.end - t.begin : (uint32_t)F::STAGES;
	uint32_t of_scales = b.scale_bytes(t), n_rows;

	for (uint32_t i = 0; i < ready; i++) {
		b.bring_w(t, t.begin + i, of_scales);
		b.ring.next();
	}
	sm90_ask_for_map(&a.x);
	gpu_dependency_wait();
	n_rows = gk_n_rows(a.rows);
	b.ring = { 0, 1 };
	for (uint32_t i = 0; i < ready; i++) {
		b.bring_x(t, t.begin + i, of_scales);
		b.ring.next();
	}
	t.begin += ready;
	do {
		for (uint32_t k = t.begin; k < t.end; k++) {
			b.wait_for_room();
			b.bring_w(t, k, of_scales);
			b.bring_x(t, k, of_scales);
			b.ring.next();
		}
		if (!items.next(a, n_rows, b.rank, &t))
			break;
		of_scales = b.scale_bytes(t);
	} while (true);
}

/* ---- Who computes ------------------------------------------------------------------------------------------------ */

/* part = 64 rows of x times 128 of W, 128 columns of both, which lie so many bytes behind the first ones. */
GPU_FN void prod_eight(float (&part)[64], const sm90_tiles &x, uint32_t at_x, const sm90_tiles &w, uint32_t at_w)
{
	sm90_product8<false>(part, x[at_x], w[at_w]);
#pragma unroll
	for (int i = 1; i < SM90_TILE_ROW / 32; i++)
		sm90_product8<true>(part, x[at_x + i * 32], w[at_w + i * 32]);
}

/* sum += likewise, 64 columns of bfloat16. */
GPU_FN void prod_sixteen(float (&sum)[64], const sm90_tiles &x, uint32_t at_x, const sm90_tiles &w, uint32_t at_w)
{
#pragma unroll
	for (int i = 0; i < SM90_TILE_ROW / 32; i++)
		sm90_product<true>(sum, x[at_x + i * 32], w[at_w + i * 32]);
}

/* Where things lie that each step takes, so that a step does not make their addresses anew. */
template <class F> struct prod_places {
	sm90_place full, scales;
	sm90_tiles x, w;

	__device__ __forceinline__ prod_places(const prod_memory<F> &m, uint32_t group)
	    : full(sm90_place_of(&m.signals()->full[0])), scales(sm90_place_of(m.scales(0))),
	      x(sm90_tiles_of(sm90_place_of(m.x(0) + group * (PROD_HALF / PROD_GROUPS)), 16, 8 * SM90_TILE_ROW)),
	      w(sm90_tiles_of(sm90_place_of(m.w(0, 0)), 16, 8 * SM90_TILE_ROW))
	{
	}
};

/* What a warpgroup has while it computes. */
template <class F> struct prod_computer {
	const prod_args &a;
	const prod_places<F> at;
	const uint32_t lane, wave;
	const uint32_t who; /* of the cluster, is told by this lane that a place in the ring is free */
	prod_ring<F::STAGES> ring;

	__device__ __forceinline__ prod_computer(const prod_args &args, const prod_memory<F> &m, uint32_t rank)
	    : a(args), at(m, threadIdx.x / SM90_GROUP), lane(threadIdx.x & 31), wave(threadIdx.x / 32),
	      who(F::SHARES ? lane : rank), ring({ 0, 0 })
	{
	}
	__device__ __forceinline__ sm90_place full(uint32_t stage) const
	{
		return at.full + stage * (uint32_t)sizeof(sm90_bar);
	}
	__device__ __forceinline__ void free_place(uint32_t stage) const
	{
		if (lane < (F::SHARES ? 2 : 1))
			sm90_bar_arrive_at(full(F::STAGES + stage), who);
	}
	__device__ __forceinline__ void tile_of_eight(const prod_tile &t, float (&sum)[F::HALVES][64],
	                                              float (&part)[64]);
	__device__ __forceinline__ void tile_of_sixteen(const prod_tile &t, float (&sum)[F::HALVES][64]);
};

template <class F>
__device__ __forceinline__ void prod_computer<F>::tile_of_eight(const prod_tile &t, float (&sum)[F::HALVES][64],
                                                                float (&part)[64])
{
	const uint32_t mine = (wave * 16 + lane / 4) * 4; /* bytes before the scale of this thread's first row */
	const float *w_scale[F::HALVES];
	float by_w[F::HALVES]; /* of the step that comes */

#pragma unroll
	for (int h = 0; h < F::HALVES; h++) {
		const uint32_t line = t.w_row[h] / PROD_COLS;

		w_scale[h] = a.w_scale[h] + (size_t)(line < a.w_lines ? line : a.w_lines - 1) * a.w_across + t.begin;
		by_w[h] = *w_scale[h];
	}
	for (uint32_t k = t.end - t.begin; k; k--) {
		const sm90_place scales = at.scales + (ring.stage * PROD_SCALES + mine);
		const uint32_t stage = ring.stage * F::STAGE;
		float by_x[2] = { 0.0f, 0.0f }; /* read behind the first products, which do not wait for it */

		sm90_bar_wait(full(ring.stage), ring.parity);
#pragma unroll
		for (int h = 0; h < F::HALVES; h++) {
			float by[2];

			sm90_pin(part);
			sm90_products_begin();
			prod_eight(part, at.x, stage, at.w, stage + h * PROD_HALF);
			sm90_products_end();
			if (h == 0) {
				by_x[0] = sm90_read(scales);
				by_x[1] = sm90_read(scales + 32);
			}
			by[0] = by_x[0] * by_w[h];
			by[1] = by_x[1] * by_w[h];
			if (k > 1)
				by_w[h] = *++w_scale[h];
			sm90_products_wait<0>();
			sm90_pin(part);
			if (h == F::HALVES - 1)
				free_place(ring.stage);
#pragma unroll
			for (int i = 0; i < 64; i++)
				sum[h][i] = fmaf(by[i / 2 % 2], part[i], sum[h][i]);
		}
		ring.next();
	}
}

/* A step's products are under way while the next step's are asked for. */
template <class F>
__device__ __forceinline__ void prod_computer<F>::tile_of_sixteen(const prod_tile &t, float (&sum)[F::HALVES][64])
{
	uint32_t before = 0;

#pragma unroll
	for (int h = 0; h < F::HALVES; h++)
		sm90_pin(sum[h]);
	for (uint32_t k = t.begin; k < t.end; k++) {
		const uint32_t stage = ring.stage * F::STAGE;

		sm90_bar_wait(full(ring.stage), ring.parity);
		sm90_products_begin();
#pragma unroll
		for (int h = 0; h < F::HALVES; h++)
			prod_sixteen(sum[h], at.x, stage, at.w, stage + h * PROD_HALF);
		sm90_products_end();
		sm90_products_wait<1>();
		if (k > t.begin)
			free_place(before);
		before = ring.stage;
		ring.next();
	}
	sm90_products_wait<0>();
#pragma unroll
	for (int h = 0; h < F::HALVES; h++)
		sm90_pin(sum[h]);
	free_place(before);
}

/* A warpgroup. */
template <class F> GPU_FN void prod_compute(const prod_args &a, const prod_memory<F> &m, uint32_t rank)
{
	prod_computer<F> c(a, m, rank);
	prod_items<F> items(a);
	prod_tile t = prod_tile_of<F>(a, items.at, rank);
	float sum[F::HALVES][64], part[64];
	uint32_t n_rows;

	gpu_dependency_wait();
	n_rows = gk_n_rows(a.rows);
#pragma unroll
	for (int i = 0; i < 64; i++)
		part[i] = 0.0f;
	do {
		const prod_way_out out = { m.piece(c.wave), t.row + c.wave * 16, n_rows, c.lane };

		if constexpr (F::F32)
			prod_ask_for_old<F>(a, t, out);
#pragma unroll
		for (int h = 0; h < F::HALVES; h++) {
#pragma unroll
			for (int i = 0; i < 64; i++)
				sum[h][i] = 0.0f;
		}
		if constexpr (F::EIGHT)
			c.tile_of_eight(t, sum, part);
		else
			c.tile_of_sixteen(t, sum);
		float4 old[4] = {};

		if constexpr (F::PARTS > 1) {
			float own[F::OWN];

			prod_send<F>(m, rank, sum[0], own, &t);
			if (F::F32 && a.accumulate)
				prod_get_f32<0>(a, t, out, old);
			prod_add_up<F>(m, rank, own, sum[0]);
		} else if (F::F32 && a.accumulate) {
			prod_get_f32<0>(a, t, out, old);
		}
		prod_put<F>(a, t, out, sum, old);
	} while (items.next(a, n_rows, rank, &t));
}
#endif

template <class F> static __global__ void __launch_bounds__(PROD_THREADS, 1) prod_kernel(GPU_PARAM prod_args a)
{
#if SM90_CODE
	GPU_DYN_SHARED(uint8_t, shared);
	const prod_memory<F> m = { sm90_first_tile(shared) };
	const uint32_t rank = F::CLUSTER == 1 ? 0 : sm90_cluster_rank();

	if (threadIdx.x == 0) {
		for (int i = 0; i < F::STAGES; i++) {
			sm90_bar_init(&m.signals()->full[i], 1);
			sm90_bar_init(&m.signals()->empty[i], (F::SHARES ? 2 : 1) * PROD_WAVES);
		}
		if (F::PARTS > 1)
			sm90_bar_init(&m.signals()->others, 1);
		sm90_bars_ready();
		if (F::PARTS > 1)
			sm90_bar_expect(&m.signals()->others, prod_bytes_sent_to<F>(rank));
	}
	if (F::CLUSTER == 1)
		__syncthreads();
	else
		sm90_cluster_meet(); /* nobody brings anything to whom is not ready */
	gpu_dependents_may_start();
	/* In this order: see attention_sm90.cu. */
	if (threadIdx.x < PROD_COMPUTE) {
		sm90_more_registers<PROD_RICH>();
		prod_compute<F>(a, m, rank);
	} else {
		sm90_fewer_registers<PROD_LEAN>();
		const prod_bringer<F> bringer(a, m, rank);

		if (threadIdx.x == PROD_COMPUTE)
			prod_bring<F>(a, bringer);
	}
	if (F::CLUSTER > 1)
		sm90_cluster_meet(); /* nobody goes to whom something is on its way */
#endif
}

/* ---- Launches ---------------------------------------------------------------------------------------------------- */

static uint32_t in_parts(uint32_t n, uint32_t each)
{
	return (n + each - 1) / each;
}

template <class F> static int launch(const struct gk_ctx *ctx, const struct gk_product *l, prod_args a)
{
	const uint32_t k = l->w[0].cols, bound = l->rows.bound, bytes = F::EIGHT ? 1 : 2;
	uint32_t clusters, most;

	for (int h = 0; h < 2; h++) {
		const struct gk_mat *const w = &l->w[l->gated ? h : 0];

		if (!sm90_map_of(&a.w[h], w->values, bytes, l->n, k, w->ld * bytes, PROD_COLS))
			return -ENOTSUP;
		a.w_scale[h] = (const float *)w->scales;
	}
	if (!sm90_map_of(&a.x, l->x, bytes, bound, k, (size_t)l->ld_x * bytes, F::BOX_X) ||
	    (size_t)F::BYTES > ctx->smem_bytes)
		return -ENOTSUP;
	a.across = in_parts(l->n, F::TILE_COLS * F::ACROSS);
	a.down = in_parts(bound, PROD_ROWS * F::DOWN);
	a.depth = in_parts(k, F::DEPTH);
	clusters = a.across * a.down;
	most = ctx->n_sm / F::CLUSTER ? ctx->n_sm / F::CLUSTER : 1;
	if (F::PARTS == 1 && clusters > most)
		clusters = most;
	sm90_launch(prod_kernel<F>, clusters * F::CLUSTER, PROD_THREADS, F::CLUSTER, F::BYTES, ctx->stream,
	            ctx->overlap, a);
	return gk_launched();
}

/* Whichever takes the fewest rounds of tiles; a narrow tile takes half as long, and a tenth more than that. */
static bool wide_is_better(const struct gk_ctx *ctx, const struct gk_product *l)
{
	const uint32_t down = in_parts(l->rows.bound, PROD_ROWS);

	return 20 * in_parts(down * in_parts(l->n, 2 * PROD_COLS), ctx->n_sm) <=
	       11 * in_parts(down * in_parts(l->n, PROD_COLS), ctx->n_sm);
}

enum { LEAST_DEPTH = 4 /* of a part */ };

/* Few tiles: several blocks have parts of each sum, so that more of them read weights. Not four: where a group of
 * multiprocessors has 14 or 15 of them to give, 32 clusters of four do not run at once, and take twice as long as two.
 */
static uint32_t best_parts(const struct gk_ctx *ctx, const struct gk_product *l, uint32_t depth)
{
	const uint32_t tiles = in_parts(l->rows.bound, PROD_ROWS) * in_parts(l->n, PROD_COLS);

	if (3 * tiles <= ctx->n_sm && l->out.elem == GK_F32 && depth >= 3 * LEAST_DEPTH)
		return 3;
	return 2 * tiles <= ctx->n_sm && depth >= 2 * LEAST_DEPTH ? 2 : 1;
}

template <bool EIGHT, int KIND>
static int launch_kind(const struct gk_ctx *ctx, const struct gk_product *l, const prod_args &a)
{
	const uint32_t parts =
	        l->tiles.parts ? l->tiles.parts : best_parts(ctx, l, in_parts(l->w[0].cols, EIGHT ? 128 : 64));
	const bool one = l->rows.bound <= PROD_ROWS;

	if (parts == 2)
		return launch<prod_form<EIGHT, 1, KIND, PROD_ALONE, 2>>(ctx, l, a);
	if constexpr (KIND == PROD_F32) {
		if (parts == 3)
			return launch<prod_form<EIGHT, 1, KIND, PROD_ALONE, 3>>(ctx, l, a);
	}
	if (parts != 1)
		return -EINVAL;
	if (!(l->tiles.columns ? l->tiles.columns == 256 : wide_is_better(ctx, l)))
		return launch<prod_form<EIGHT, 1, KIND, PROD_ALONE, 1>>(ctx, l, a);
	if (one)
		return launch<prod_form<EIGHT, 2, KIND, PROD_SHARES_X, 1>>(ctx, l, a);
	/* Blocks that put out float32 at the same time wait for each other's; alone they are soon at different places.
	 */
	if (KIND == PROD_F32)
		return launch<prod_form<EIGHT, 2, KIND, PROD_ALONE, 1>>(ctx, l, a);
	return launch<prod_form<EIGHT, 2, KIND, PROD_SHARES_W, 1>>(ctx, l, a);
}

template <bool EIGHT> static int launch_gated(const struct gk_ctx *ctx, const struct gk_product *l, const prod_args &a)
{
	return l->rows.bound <= PROD_ROWS ? launch<prod_form<EIGHT, 2, PROD_GATED, PROD_SHARES_X, 1>>(ctx, l, a)
	                                  : launch<prod_form<EIGHT, 2, PROD_GATED, PROD_SHARES_W, 1>>(ctx, l, a);
}

template <bool EIGHT> static int launch_any(const struct gk_ctx *ctx, const struct gk_product *l, const prod_args &a)
{
	if (l->gated)
		return launch_gated<EIGHT>(ctx, l, a);
	return l->out.elem == GK_F32 ? launch_kind<EIGHT, PROD_F32>(ctx, l, a)
	                             : launch_kind<EIGHT, PROD_BF16>(ctx, l, a);
}

static bool is_aligned(const void *p)
{
	return ((uintptr_t)p & 15) == 0;
}

int prod_launch(const struct gk_ctx *ctx, const struct gk_product *l)
{
	const struct gk_mat *const w = l->w;
	const bool eight = w[0].type == GK_FP8_128;
	const uint32_t in_16_bytes = eight ? 16 : 8;
	const bool to_view = !l->gated || !eight;
	prod_args a = {};

	if ((!eight && w[0].type != KN_BF16) || w[0].first_row || l->n % 16 || l->ld_x % in_16_bytes ||
	    w[0].ld % in_16_bytes || !is_aligned(l->x) || !is_aligned(w[0].values))
		return -ENOTSUP;
	if (eight && (l->ld_scale % 4 || l->ld_scale < l->rows.bound || !is_aligned(l->x_scale)))
		return -ENOTSUP;
	if (l->gated && (w[1].type != w[0].type || w[1].first_row || w[1].cols != w[0].cols || w[1].ld != w[0].ld ||
	                 l->act != KN_ACT_SILU || !is_aligned(w[1].values)))
		return -ENOTSUP;
	if (l->gated && eight && (l->ld_q % 64 || l->ld_q < l->n || !is_aligned(l->q)))
		return -ENOTSUP;
	if (to_view && ((l->out.elem != GK_BF16 && (l->gated || l->out.elem != GK_F32)) || !gk_view_aligned(l->out)))
		return -ENOTSUP;
	a.x_scale = l->x_scale;
	a.ld_scale = l->ld_scale;
	a.w_across = eight ? gk_mat_scale_stride(&w[0]) : 0;
	a.w_lines = in_parts(l->n, PROD_COLS);
	a.n = l->n;
	a.rows = l->rows;
	a.out = l->out;
	a.accumulate = l->accumulate;
	a.q = (uint8_t *)l->q;
	a.q_scale = l->q_scale;
	a.ld_q = l->ld_q;
	a.ld_q_scale = l->ld_q_scale;
	return eight ? launch_any<true>(ctx, l, a) : launch_any<false>(ctx, l, a);
}
