/* Products of so few rows with the experts that they chose that each pair of a row and an expert is by itself (few.h
 * has the pieces). All of it is a chain of two launches, whose blocks wait for the last word of the kernel before: so
 * they choose the experts themselves, from the router's logits, each anew, which is quicker than a kernel that does it
 * once.
 *
 * pairs_kernel: gate and up with the activation. A block makes 16 rows of both matrices of a pair, then the next 16,
 * its first loads for those under way before the last sums are made.
 *
 * chosen_kernel: down and the weighted sum in one. The matrices of a row's experts, side by side, are one wide matrix;
 * what was activated, each expert's part times its weight, one long column. So a row of the result is one sum.
 *
 * In both waves take the units of a sum in turn, and 32 lanes add the waves' results. */
#ifndef GPU_PAIRS_H
#define GPU_PAIRS_H

#include "gpu/choose.h"
#include "gpu/few.h"

enum { PAIR_THREADS = 512, MAX_CHOSEN = 32 /* experts of a row */, PAIR_PARTS = 2 /* columns of a row at most */ };

struct pairs_args {
	gk_view x, out; /* chosen: a row of x for each pair; out +=, float32. Else a row of out for each pair */
	gk_rows rows;
	uint32_t act, n_expert, first_expert, n_rows_w, n_cols, top_k;
	bool whole;       /* x may be read 16 bytes at a time */
	bool chooses;     /* logits are there, ids and weights are not: the second kernel writes them */
	few_columns cols; /* of a row (chosen: of all its experts side by side); data NULL */
	const gk_mat *mats[2];
	const float *bias[2]; /* [expert][rows] or NULL */
	int32_t *ids;
	float *weights;
	kn_router router;
	const float *logits;
};

/* Shared memory behind the waves' sums: columns of a row, their sums, room for a choice. */
GPU_FN choose_room pairs_rooms(const pairs_args &a, float *shared, bool mins, few_columns &cols)
{
	float *sums;

	cols = a.cols;
	cols.data = (uint4 *)shared;
	sums = (float *)(cols.data + (size_t)cols.parts * cols.col_stride);
	cols.sums = mins ? sums : nullptr;
	return choose_room_at(sums + ((cols.parts * cols.n_chunks + 3) & ~3u), a.router.n_expert);
}

/* Where a lane finds the columns of one row. */
template <class F> GPU_FN void pairs_look(few_lane<F, 1> &lane, const few_columns &cols)
{
	lane.exists = 0;
#pragma unroll
	for (int p = 0; p < GPU_PIECES; p++) {
		const bool exists = (uint32_t)gpu_piece_row(p) < cols.parts;

		lane.col[0][p] =
		        cols.data + (size_t)(exists ? gpu_piece_row(p) : 0) * cols.col_stride + (gpu_piece_col(p) >> 3);
		lane.exists |= (uint32_t)exists << p;
	}
#pragma unroll
	for (int i = 0; F::MINS && i < GPU_ACC; i++) /* results of columns that are not there go nowhere */
		lane.sums[0][i] = cols.sums +
		                  (size_t)((uint32_t)gpu_acc_col(i) < cols.parts ? gpu_acc_col(i) : 0) * cols.n_chunks;
}

/* ---- Sums of the waves ---------------------------------------------------------------------------------------------
 *
 * In shared memory: [wave][RT][16 rows] of PAIR_LINE, and one more for each wave, so that 16 waves meet all banks. */

enum { PAIR_LINE = PAIR_PARTS + 1 };

template <int RT> struct pairs_sums {
	enum { WAVE = RT * FEW_TILE * PAIR_LINE + 1, ALL = (PAIR_THREADS / 32 * WAVE + 3) & ~3 /* floats */ };
};

template <int RT> GPU_FN void pairs_put(float *sums, uint32_t wave, const gpu_acc (*acc)[1])
{
#pragma unroll
	for (int r = 0; r < RT; r++) {
#pragma unroll
		for (int i = 0; i < GPU_ACC; i++) {
			const int col = gpu_acc_col(i);

			if (col < PAIR_PARTS)
				sums[wave * pairs_sums<RT>::WAVE + (r * FEW_TILE + gpu_acc_row(i)) * PAIR_LINE + col] =
				        acc[r][0].v[i];
		}
	}
}

/* Row threadIdx.x / 32: of tile 0 to lanes [0, 16) and, RT 2, of tile 1 to the others. */
template <int RT> GPU_FN float pairs_sum(const float *sums, uint32_t parts)
{
	enum { WAVES = PAIR_THREADS / GPU_WAVE };
	static_assert(PAIR_THREADS / 32 == FEW_TILE, "32 lanes for each row");
	const uint32_t wave = threadIdx.x & 15, half = threadIdx.x >> 4 & 1, r = threadIdx.x / 32;
	float y = 0.0f;

	if (wave < WAVES) {
		const float *s = sums + wave * pairs_sums<RT>::WAVE + ((RT == 2 ? half * FEW_TILE : 0) + r) * PAIR_LINE;

		if (RT == 2)
			y = parts == 2 ? s[0] + s[1] : s[0];
		else
			y = half < parts ? s[half] : 0.0f;
	}
#pragma unroll
	for (int m = RT == 2 ? 8 : 16; m > 0; m >>= 1)
		y += gpu_shfl_xor(y, m);
	return y;
}

/* ---- Gate and up ---------------------------------------------------------------------------------------------------
 */

template <uint32_t TYPE> static __global__ void __launch_bounds__(PAIR_THREADS, 1) pairs_kernel(GPU_PARAM pairs_args a)
{
	typedef gk_format<TYPE> F;
	enum { U = few_depth<F, 1, 2>::U, WAVES = PAIR_THREADS / GPU_WAVE };
	__shared__ gk_mat mats[2];
	__shared__ uint32_t chosen;
	GPU_DYN_SHARED(float, shared);
	const uint32_t wave = threadIdx.x / GPU_WAVE, pair = blockIdx.y, row = pair / a.top_k, slot = pair % a.top_k;
	const uint32_t own = threadIdx.x - a.first_expert; /* the expert that this thread speaks for, as a matrix */
	few_columns cols;
	const choose_room room = pairs_rooms(a, shared + 2 * pairs_sums<2>::ALL, F::MINS, cols);
	choose_logits<PAIR_THREADS> logits;
	gk_mat gate = {}, up = {};
	uint32_t expert = 0;

	if (a.chooses && own < a.n_expert) {
		gate = a.mats[0][own];
		up = a.mats[1][own];
	}
	/* The next kernel looks at what the kernel before this one wrote: it may start when that has ended. */
	gpu_dependency_wait();
	gpu_dependents_may_start();
	if (row >= gk_n_rows(a.rows))
		return;
	if (a.chooses)
		choose_load(logits, a.logits + (size_t)row * a.router.n_expert, a.router.n_expert);
	else
		expert = (uint32_t)a.ids[pair] - a.first_expert;
	(void)few_make_columns(cols, F::ORDER, 0, a.x, row, a.n_cols, gk_view{ nullptr, 0, 0 }, a.whole);
	if (a.chooses) {
		choose_ids(a.router, logits, room, [&](uint32_t rank, uint32_t id, bool is_own) {
			const uint32_t e = id - a.first_expert;

			if (rank != slot)
				return;
			chosen = e;
			if (e < a.n_expert) {
				mats[0] = is_own ? gate : a.mats[0][e];
				mats[1] = is_own ? up : a.mats[1][e];
			}
		});
	} else if (threadIdx.x == 0) {
		chosen = expert;
		if (expert < a.n_expert) {
			mats[0] = a.mats[0][expert];
			mats[1] = a.mats[1][expert];
		}
	}
	__syncthreads();
	expert = chosen;
	if (expert >= a.n_expert)
		return;

	const uint32_t n_tiles = (a.n_rows_w + FEW_TILE - 1) / FEW_TILE, n_units = gk_n_units(mats[0]);
	const uint32_t n_steps = (n_units + U * WAVES - 1) / (U * WAVES);
	few_raw<F> raw[U][2];
	few_at<F> at[2];
	few_lane<F, 1> lane;

	auto point = [&](uint32_t tile) {
		at[0] = few_point<F>(mats[0], tile * FEW_TILE, n_units);
		at[1] = few_point<F>(mats[1], tile * FEW_TILE, n_units);
	};
	auto load = [&](int u, uint32_t unit) {
		if (unit < n_units) {
			few_load<F>(raw[u][0], at[0], unit);
			few_load<F>(raw[u][1], at[1], unit);
		}
	};

	point(blockIdx.x);
#pragma unroll
	for (int u = 0; u < U; u++)
		load(u, wave + u * WAVES);
	pairs_look(lane, cols);
	for (uint32_t tile = blockIdx.x, round = 0; tile < n_tiles; round++) {
		float *const sums = shared + (round & 1) * pairs_sums<2>::ALL;
		const uint32_t at_row = tile * FEW_TILE + threadIdx.x / 32;
		gpu_acc acc[2][1];
		bool more;
		float y, y_up;

		tile += gridDim.x;
		more = tile < n_tiles;
		acc[0][0] = acc[1][0] = gpu_acc_zero();
		for (uint32_t step = 0; step < n_steps; step++) {
			const uint32_t base = step * U * WAVES + wave;
			const bool last = step + 1 == n_steps;

			if (last && more)
				point(tile);
#pragma unroll
			for (int u = 0; u < U; u++) {
				if (base + u * WAVES < n_units)
					few_unit<TYPE, F, 1, true, 2>(acc, raw[u], lane, base + u * WAVES);
				if (!last)
					load(u, base + (u + U) * WAVES);
				else if (more)
					load(u, wave + u * WAVES);
			}
		}
		pairs_put<2>(sums, wave, acc);
		__syncthreads(); /* one a tile: the next one's sums go elsewhere */
		y = pairs_sum<2>(sums, cols.parts);
		y_up = gpu_shfl_xor(y, 16);
		if ((threadIdx.x & 31) == 0 && at_row < a.n_rows_w) {
			if (a.bias[0])
				y += a.bias[0][(size_t)expert * a.n_rows_w + at_row];
			if (a.bias[1])
				y_up += a.bias[1][(size_t)expert * a.n_rows_w + at_row];
			gk_put(a.out, pair, at_row, gk_act(a.act, y, y_up));
		}
	}
}

/* ---- Down and the sum ----------------------------------------------------------------------------------------------
 */

/* Rows of one expert after the other as two columns, each times its weight. */
GPU_FN void chosen_columns(const few_columns &cols, uint32_t order, uint32_t n_chunks, uint32_t first,
                           const pairs_args &a, const float *weights)
{
	enum { AT_ONCE = 2 }; /* all blocks wait for this */
	const uint32_t n_pieces = cols.n_chunks * 4, per_row = n_chunks * 4;

	for (uint32_t base = 0; base < n_pieces; base += AT_ONCE * PAIR_THREADS) {
		float all[AT_ONCE][8];

#pragma unroll
		for (int b = 0; b < AT_ONCE; b++) {
			const uint32_t i = base + b * PAIR_THREADS + threadIdx.x, k = i / per_row;
			const uint32_t chunk = i % per_row >> 2, t = i & 3;

#pragma unroll
			for (int e = 0; e < 8; e++)
				all[b][e] = 0.0f;
			if (i < n_pieces) {
				gk_get4(a.x, first + k, gk_column(order, chunk, t, 0), a.n_cols, a.whole, all[b]);
				gk_get4(a.x, first + k, gk_column(order, chunk, t, 4), a.n_cols, a.whole, all[b] + 4);
			}
		}
#pragma unroll
		for (int b = 0; b < AT_ONCE; b++) {
			const uint32_t i = base + b * PAIR_THREADS + threadIdx.x;
			const float weight = i < n_pieces ? weights[i / per_row] : 0.0f;
			float *const v = all[b];

#pragma unroll
			for (int e = 0; e < 8; e++)
				v[e] = weight != 0.0f ? v[e] * weight : 0.0f;

			const few_eight eight = few_pack_eight(order, v);

			if (i < n_pieces) {
				cols.data[i] = make_uint4(eight.high[0], eight.high[1], eight.high[2], eight.high[3]);
				cols.data[cols.col_stride + i] =
				        make_uint4(eight.low[0], eight.low[1], eight.low[2], eight.low[3]);
			}
			if (cols.sums)
				few_put_sums(cols, 0, i, eight.sum_high, eight.sum_low);
		}
	}
}

template <uint32_t TYPE> static __global__ void __launch_bounds__(PAIR_THREADS, 1) chosen_kernel(GPU_PARAM pairs_args a)
{
	typedef gk_format<TYPE> F;
	enum {
		U = (int)F::SCALED == 0   ? 4
		    : (int)F::UNIT == 128 ? 2
		                          : 4,
		WAVES = PAIR_THREADS / GPU_WAVE,
	};
	__shared__ gk_mat mats[MAX_CHOSEN];
	__shared__ float weights[MAX_CHOSEN], scratch[32];
	__shared__ int32_t experts[MAX_CHOSEN]; /* of matrices, or -1: on another device */
	GPU_DYN_SHARED(float, shared);
	const uint32_t wave = threadIdx.x / GPU_WAVE, row = blockIdx.y, row0 = blockIdx.x * FEW_TILE;
	const uint32_t first = row * a.top_k, own = threadIdx.x - a.first_expert, at_row = row0 + threadIdx.x / 32;
	few_columns cols;
	const choose_room room = pairs_rooms(a, shared + pairs_sums<1>::ALL, F::MINS, cols);
	choose_logits<PAIR_THREADS> logits;
	few_raw<F> raw[U][1];
	gk_mat down = {};
	float old = 0.0f;

	gpu_dependents_may_start();
	if (row >= gk_n_rows(a.rows)) {
		gpu_dependency_wait();
		return;
	}
	/* Which experts they are, and what is added to, was there before the kernel before this one began: weights are
	 * asked for before what is to be multiplied by them is there. */
	const auto found = [&](uint32_t rank, uint32_t id, bool is_own) {
		const uint32_t e = id - a.first_expert;

		experts[rank] = e < a.n_expert ? (int32_t)e : -1;
		mats[rank] = e >= a.n_expert ? a.mats[0][0] : is_own ? down : a.mats[0][e];
	};

	if (a.chooses) {
		choose_load(logits, a.logits + (size_t)row * a.router.n_expert, a.router.n_expert);
		if (own < a.n_expert)
			down = a.mats[0][own];
		choose_ids(a.router, logits, room, found);
	} else if (threadIdx.x < a.top_k) {
		found(threadIdx.x, *(const volatile uint32_t *)(a.ids + first + threadIdx.x), false);
		weights[threadIdx.x] =
		        experts[threadIdx.x] < 0 ? 0.0f : *(const volatile float *)(a.weights + first + threadIdx.x);
	}
	__syncthreads();

	const uint32_t n_units = gk_n_units(mats[0]), n_all = n_units * a.top_k;
	auto load = [&](int u, uint32_t unit) {
		if (unit < n_all) {
			const uint32_t k = unit / n_units;

			few_load<F>(raw[u][0], few_point<F>(mats[k], row0, n_units), unit - k * n_units);
		}
	};

#pragma unroll
	for (int u = 0; u < U; u++)
		load(u, wave + u * WAVES);
	if ((threadIdx.x & 31) == 0 && at_row < a.n_rows_w)
		old = gk_get(a.out, row, at_row);
	if (a.chooses) {
		choose_weights(a.router, logits, room, scratch, [&](uint32_t rank, float weight) {
			weights[rank] = experts[rank] < 0 ? 0.0f : weight;
			if (blockIdx.x == 0) {
				a.ids[first + rank] = room.ids[rank];
				a.weights[first + rank] = weight;
			}
		});
		__syncthreads();
	}
	gpu_dependency_wait();
	chosen_columns(cols, F::ORDER, n_units * F::CHUNKS, first, a, weights);
	__syncthreads();

	few_lane<F, 1> lane;
	gpu_acc acc[1][1];
	float y;

	pairs_look(lane, cols);
	acc[0][0] = gpu_acc_zero();
	for (uint32_t base = wave; base < n_all; base += U * WAVES) {
#pragma unroll
		for (int u = 0; u < U; u++) {
			if (base + u * WAVES < n_all)
				few_unit<TYPE, F, 1, true, 1>(acc, raw[u], lane, base + u * WAVES);
			load(u, base + (u + U) * WAVES);
		}
	}
	pairs_put<1>(shared, wave, acc);
	__syncthreads();
	y = pairs_sum<1>(shared, 2);
	if ((threadIdx.x & 31) != 0 || at_row >= a.n_rows_w)
		return;
	for (uint32_t k = 0; a.bias[0] && k < a.top_k; k++) {
		if (experts[k] >= 0)
			y += weights[k] * a.bias[0][(size_t)experts[k] * a.n_rows_w + at_row];
	}
	gk_put(a.out, row, at_row, old + y);
}

/* ---- Launches ------------------------------------------------------------------------------------------------------
 */

struct pairs_launch {
	const gk_ctx *ctx;
	const pairs_args *args;
	bool gated; /* pairs_kernel */
};

/* Columns of one row of x, in shared memory with the rest. */
static inline size_t pairs_shared_bytes(const pairs_launch &l)
{
	const few_columns &c = l.args->cols;

	return (l.gated ? 2 * (size_t)pairs_sums<2>::ALL : (size_t)pairs_sums<1>::ALL) * sizeof(float) +
	       (size_t)c.parts * c.col_stride * 16 + ((size_t)c.parts * c.n_chunks + 3) / 4 * 16 +
	       choose_shared_bytes(l.args->router.n_expert);
}

/* One file for a few types each defines these; false: not its type. */
bool pairs_launch_16bit(uint32_t type, const pairs_launch &l);
bool pairs_launch_blocks(uint32_t type, const pairs_launch &l);
bool pairs_launch_k(uint32_t type, const pairs_launch &l);

template <uint32_t TYPE> static inline bool pairs_launch_type(const pairs_launch &l)
{
	const uint32_t n_tiles = (l.args->n_rows_w + FEW_TILE - 1) / FEW_TILE,
	               n_pairs = l.args->rows.bound * l.args->top_k;
	/* As many blocks as the device holds, which then have no pause between their tiles. */
	const uint32_t rounds = (n_tiles * n_pairs + l.ctx->n_sm - 1) / l.ctx->n_sm;

	if (l.gated)
		gpu_launch(pairs_kernel<TYPE>, dim3((n_tiles + rounds - 1) / rounds, n_pairs), dim3(PAIR_THREADS),
		           pairs_shared_bytes(l), l.ctx->stream, l.ctx->overlap, *l.args);
	else
		gpu_launch(chosen_kernel<TYPE>, dim3(n_tiles, l.args->rows.bound), dim3(PAIR_THREADS),
		           pairs_shared_bytes(l), l.ctx->stream, l.ctx->overlap, *l.args);
	return true;
}

#endif
