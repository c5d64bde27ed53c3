/* Products of few rows with the experts that they chose: every weight is read once, straight into the registers from
 * which matrix units take it (few.h has the pieces).
 *
 * experts_kernel: gate and up with the activation, or down. blockIdx.y is an expert that has rows, or, with `ids`, one
 * pair of a row and an expert, for so few rows that sorting them first would cost more than it saves. A block makes 16
 * rows of the result (gated: of two matrices), then the next 16, its first loads for those under way before the last
 * sums are made; its waves take the units of the sum in turn and their results are added in order of wave.
 *
 * chosen_kernel: down and the weighted sum in one. The matrices of a row's experts, side by side, are one wide matrix;
 * what was activated, each expert's part times its weight, one long column. So a row of the result is one sum, again in
 * units that waves take in turn. */
#ifndef GPU_EXPERTS_H
#define GPU_EXPERTS_H

#include "gpu/few.h"

enum { PAIR_THREADS = 512, CHOSEN_THREADS = 512, MAX_CHOSEN = 32 /* experts of a row */ };

struct experts_args {
	gk_view x, out; /* out: row of the place or pair */
	gk_rows rows;
	uint32_t act, n_expert, first_expert, n_rows_w, n_tiles, top_k;
	bool gated, whole; /* whole: x may be read 16 bytes at a time */
	few_columns cols;  /* data NULL */
	const gk_mat *mats[2];
	const float *bias[2]; /* [expert][rows] or NULL */
	const int32_t *ids;   /* by pairs, gated: [row, top_k]; NULL: by groups */
	/* by groups: */
	const few_group *groups;
	const uint32_t *n_groups;
	const uint32_t *row_of; /* [place] row of x; NULL: the place */
};

template <uint32_t TYPE, int NT, int RT, int THREADS>
static __global__ void __launch_bounds__(THREADS,
                                         (THREADS > FEW_THREADS ? 1 : (int)few_depth<gk_format<TYPE>, NT, RT>::BLOCKS))
        experts_kernel(GPU_PARAM experts_args a)
{
	typedef gk_format<TYPE> F;
	enum {
		NB = (NT + 1) / 2,
		NARROW = NT == 1,
		U = few_depth<F, NT, RT>::U,
		NC = NARROW ? 8 : NB * 16,
		LINE = NC + 1,
		WAVES = THREADS / GPU_WAVE,
		GATED = RT == 2,
	};
	GPU_DYN_SHARED(float, shared);
	float *const sums = shared;
	const uint32_t wave = threadIdx.x / GPU_WAVE;
	few_group group = { 0, blockIdx.y, 1 };

	/* The next kernel looks at what the kernel before this one wrote: it may start when that has ended. */
	gpu_dependency_wait();
	gpu_dependents_may_start();
	if (a.ids) {
		if (blockIdx.y / a.top_k >= gk_n_rows(a.rows))
			return;
		group.expert = (uint32_t)a.ids[blockIdx.y] - a.first_expert;
		if (group.expert >= a.n_expert)
			return;
	} else {
		if (blockIdx.y >= *a.n_groups)
			return;
		group = a.groups[blockIdx.y];
	}

	const gk_mat mat = a.mats[0][group.expert];
	gk_mat second = mat;

	if (GATED)
		second = a.mats[1][group.expert];

	const uint32_t n_units = gk_n_units(mat), n_steps = (n_units + U * WAVES - 1) / (U * WAVES);
	few_raw<F> raw[U][RT];
	few_at<F> at[RT];

	auto point = [&](uint32_t tile) {
		at[0] = few_point<F>(mat, tile * FEW_TILE, n_units);
		if (GATED)
			at[RT - 1] = few_point<F>(second, tile * FEW_TILE, n_units);
	};
	auto load = [&](int u, uint32_t unit) {
		if (unit < n_units) {
#pragma unroll
			for (int r = 0; r < RT; r++)
				few_load<F>(raw[u][r], at[r], unit);
		}
	};

	for (uint32_t pass = 0; pass < group.n; pass += NC / a.cols.parts) {
		few_columns cols = a.cols;
		uint32_t tile = blockIdx.x, n = group.n - pass, n_cols;

		point(tile);
#pragma unroll
		for (int u = 0; u < U; u++)
			load(u, wave + u * WAVES);
		if (n > NC / cols.parts)
			n = NC / cols.parts;
		n_cols = n * cols.parts;
		cols.data = (uint4 *)(shared + WAVES * RT * FEW_TILE * LINE);
		cols.sums = F::MINS ? (float *)(cols.data + (size_t)n_cols * cols.col_stride) : nullptr;
		for (uint32_t i = 0; i < n; i++) {
			const uint32_t place = group.first + pass + i;
			const uint32_t row = a.ids ? place / a.top_k : a.row_of ? a.row_of[place] : place;

			(void)few_make_columns(cols, F::ORDER, i, a.x, row, mat.cols, gk_view{ nullptr, 0, 0 },
			                       a.whole);
		}
		__syncthreads();

		few_lane<F, NB> lane;

		lane.exists = 0;
#pragma unroll
		for (int nb = 0; nb < NB; nb++) {
#pragma unroll
			for (int p = 0; p < GPU_PIECES; p++) {
				const uint32_t col = nb * 16 + gpu_piece_row(p);
				const bool exists = col < n_cols;

				lane.col[nb][p] = cols.data + (size_t)(exists ? col : 0) * cols.col_stride +
				                  (gpu_piece_col(p) >> 3);
				lane.exists |= (uint32_t)exists << (nb * GPU_PIECES + p);
			}
#pragma unroll
			for (int i = 0; F::MINS && i < GPU_ACC;
			     i++) { /* results of columns that are not there go nowhere */
				const uint32_t col = nb * 16 + gpu_acc_col(i);

				lane.sums[nb][i] = cols.sums + (size_t)(col < n_cols ? col : 0) * cols.n_chunks;
			}
		}
		for (;;) {
			const uint32_t row0 = tile * FEW_TILE;
			gpu_acc acc[RT][NB];
			bool more;

			tile += gridDim.x;
			more = tile < a.n_tiles;
#pragma unroll
			for (int r = 0; r < RT; r++) {
#pragma unroll
				for (int nb = 0; nb < NB; nb++)
					acc[r][nb] = gpu_acc_zero();
			}
			for (uint32_t step = 0; step < n_steps; step++) {
				const uint32_t base = step * U * WAVES + wave;
				const bool last = step + 1 == n_steps;

				if (last && more)
					point(tile);
#pragma unroll
				for (int u = 0; u < U; u++) {
					if (base + u * WAVES < n_units)
						few_unit<TYPE, F, NB, NARROW, RT>(acc, raw[u], lane, base + u * WAVES);
					if (!last)
						load(u, base + (u + U) * WAVES);
					else if (more)
						load(u, wave + u * WAVES);
				}
			}
#pragma unroll
			for (int r = 0; r < RT; r++) {
#pragma unroll
				for (int nb = 0; nb < NB; nb++) {
#pragma unroll
					for (int i = 0; i < GPU_ACC; i++) {
						const int col = nb * 16 + gpu_acc_col(i);

						if (col < NC)
							sums[((wave * RT + r) * FEW_TILE + gpu_acc_row(i)) * LINE +
							     col] = acc[r][nb].v[i];
					}
				}
			}
			__syncthreads();
			for (uint32_t i = threadIdx.x; i < FEW_TILE * n; i += THREADS) {
				const uint32_t r = i % FEW_TILE, m = i / FEW_TILE, row = row0 + r;
				float y[2] = { 0.0f, 0.0f };

				if (row >= a.n_rows_w)
					continue;
#pragma unroll
				for (int g = 0; g < RT; g++) {
					for (uint32_t v = 0; v < WAVES; v++) {
						const float *s = sums + ((size_t)(v * RT + g) * FEW_TILE + r) * LINE +
						                 m * cols.parts;

						y[g] += cols.parts == 2 ? s[0] + s[1] : s[0];
					}
					if (a.bias[g])
						y[g] += a.bias[g][(size_t)group.expert * a.n_rows_w + row];
				}
				gk_put(a.out, group.first + pass + m, row, GATED ? gk_act(a.act, y[0], y[1]) : y[0]);
			}
			__syncthreads();
			if (!more)
				break;
		}
	}
}

/* ---- Down and the sum -----------------------------------------------------------------------------------------------
 */

struct chosen_args {
	gk_view h, out; /* h: a row for each pair; out +=, float32 */
	gk_rows rows;
	uint32_t n_expert, first_expert, n_rows_w, n_ff, top_k;
	bool whole;
	few_columns cols; /* of all experts side by side; data NULL */
	const gk_mat *mats;
	const float *bias;
	const int32_t *ids; /* written by the kernel before the one before this, or earlier */
	const float *weights;
};

/* A row's experts, by threads [0, top_k). */
GPU_FN void chosen_experts_of(const chosen_args &a, uint32_t first, gk_mat *mats, float *weights, int32_t *experts)
{
	if (threadIdx.x < a.top_k) {
		const int32_t e = *(const volatile int32_t *)(a.ids + first + threadIdx.x) - (int32_t)a.first_expert;
		const bool valid = (uint32_t)e < a.n_expert;

		experts[threadIdx.x] = valid ? e : 0;
		weights[threadIdx.x] = valid ? *(const volatile float *)(a.weights + first + threadIdx.x) : 0.0f;
		mats[threadIdx.x] = a.mats[valid ? e : 0];
	}
}

/* Rows of one expert after the other as two columns, each times its weight. */
template <int THREADS>
GPU_FN void chosen_columns(const few_columns &cols, uint32_t order, uint32_t n_chunks, uint32_t first,
                           const chosen_args &a, const float *weights)
{
	const uint32_t n_pieces = cols.n_chunks * 4, per_row = n_chunks * 4;

	for (uint32_t base = 0; base < n_pieces; base += THREADS) {
		const uint32_t i = base + threadIdx.x, k = i / per_row, chunk = i % per_row >> 2, t = i & 3;
		const uint32_t k0 = gk_column(order, chunk, t, 0), k1 = gk_column(order, chunk, t, 4);
		float v[8] = { 0, 0, 0, 0, 0, 0, 0, 0 }, sum_high = 0.0f, sum_low = 0.0f;
		uint32_t high[4], low[4];

		if (i < n_pieces) {
			const float weight = weights[k];

			gk_get4(a.h, first + k, k0, a.n_ff, a.whole, v);
			gk_get4(a.h, first + k, k1, a.n_ff, a.whole, v + 4);
#pragma unroll
			for (int e = 0; e < 8; e++)
				v[e] = weight != 0.0f ? v[e] * weight : 0.0f;
		}
		if (order == 2) {
			float s = v[1];

			v[1] = v[2], v[2] = s;
			s = v[5], v[5] = v[6], v[6] = s;
		}
#pragma unroll
		for (int j = 0; j < 4; j++) {
			high[j] = gpu_pack_bf16(v[2 * j], v[2 * j + 1]);
			low[j] = gpu_pack_bf16(v[2 * j] - gpu_bf16_low(high[j]), v[2 * j + 1] - gpu_bf16_high(high[j]));
			sum_high += gpu_bf16_low(high[j]) + gpu_bf16_high(high[j]);
			sum_low += gpu_bf16_low(low[j]) + gpu_bf16_high(low[j]);
		}
		if (i < n_pieces) {
			cols.data[i] = make_uint4(high[0], high[1], high[2], high[3]);
			cols.data[cols.col_stride + i] = make_uint4(low[0], low[1], low[2], low[3]);
		}
		if (cols.sums) {
			sum_high += gpu_shfl_xor(sum_high, 1);
			sum_high += gpu_shfl_xor(sum_high, 2);
			sum_low += gpu_shfl_xor(sum_low, 1);
			sum_low += gpu_shfl_xor(sum_low, 2);
			if (i < n_pieces && t == 0) {
				cols.sums[i >> 2] = sum_high;
				cols.sums[cols.n_chunks + (i >> 2)] = sum_low;
			}
		}
	}
}

/* The waves' sums, in their order, onto the output. sums: WAVES x 16 x 3. */
template <int WAVES>
GPU_FN void chosen_sum(const chosen_args &a, const gpu_acc &acc, float *sums, const float *weights,
                       const int32_t *experts)
{
	enum { LINE = 3 };
	const uint32_t wave = threadIdx.x / GPU_WAVE, row = blockIdx.y, at = blockIdx.x * FEW_TILE + threadIdx.x;
	float y = 0.0f;

#pragma unroll
	for (int i = 0; i < GPU_ACC; i++) {
		const int col = gpu_acc_col(i);

		if (col < 2)
			sums[(wave * FEW_TILE + gpu_acc_row(i)) * LINE + col] = acc.v[i];
	}
	__syncthreads();
	if (threadIdx.x >= FEW_TILE || at >= a.n_rows_w)
		return;
	for (uint32_t v = 0; v < WAVES; v++) {
		const float *s = sums + (v * FEW_TILE + threadIdx.x) * LINE;

		y += s[0] + s[1];
	}
	for (uint32_t k = 0; a.bias && k < a.top_k; k++)
		y += weights[k] * a.bias[(size_t)experts[k] * a.n_rows_w + at];
	gk_put(a.out, row, at, gk_get(a.out, row, at) + y);
}

template <uint32_t TYPE>
static __global__ void __launch_bounds__(CHOSEN_THREADS, 1) chosen_kernel(GPU_PARAM chosen_args a)
{
	typedef gk_format<TYPE> F;
	enum {
		U = (int)F::SCALED == 0   ? 4
		    : (int)F::UNIT == 128 ? 2
		                          : 4,
		LINE = 3, /* two parts */
		WAVES = CHOSEN_THREADS / GPU_WAVE,
	};
	__shared__ gk_mat mats[MAX_CHOSEN];
	__shared__ float weights[MAX_CHOSEN];
	__shared__ int32_t experts[MAX_CHOSEN];
	GPU_DYN_SHARED(float, shared);
	float *const sums = shared;
	const uint32_t wave = threadIdx.x / GPU_WAVE, row = blockIdx.y, row0 = blockIdx.x * FEW_TILE,
	               first = row * a.top_k;
	few_raw<F> raw[U][1];

	gpu_dependents_may_start();
	if (row >= gk_n_rows(a.rows)) {
		gpu_dependency_wait();
		return;
	}
	/* Weights are asked for before what is to be multiplied by them is there. */
	chosen_experts_of(a, first, mats, weights, experts);
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
	gpu_dependency_wait();

	few_columns cols = a.cols;
	few_lane<F, 1> lane;
	gpu_acc acc[1][1];

	cols.data = (uint4 *)(shared + ((WAVES * FEW_TILE * LINE + 3) & ~3));
	cols.sums = F::MINS ? (float *)(cols.data + (size_t)2 * cols.col_stride) : nullptr;
	chosen_columns<CHOSEN_THREADS>(cols, F::ORDER, n_units * F::CHUNKS, first, a, weights);
	__syncthreads();
	lane.exists = 0;
#pragma unroll
	for (int p = 0; p < GPU_PIECES; p++) {
		const bool exists = gpu_piece_row(p) < 2;

		lane.col[0][p] =
		        cols.data + (size_t)(exists ? gpu_piece_row(p) : 0) * cols.col_stride + (gpu_piece_col(p) >> 3);
		lane.exists |= (uint32_t)exists << p;
	}
#pragma unroll
	for (int i = 0; F::MINS && i < GPU_ACC; i++)
		lane.sums[0][i] = cols.sums + (size_t)(gpu_acc_col(i) < 2 ? gpu_acc_col(i) : 0) * cols.n_chunks;
	acc[0][0] = gpu_acc_zero();
	for (uint32_t base = wave; base < n_all; base += U * WAVES) {
#pragma unroll
		for (int u = 0; u < U; u++) {
			if (base + u * WAVES < n_all)
				few_unit<TYPE, F, 1, true, 1>(acc, raw[u], lane, base + u * WAVES);
			load(u, base + (u + U) * WAVES);
		}
	}
	chosen_sum<WAVES>(a, acc[0][0], sums, weights, experts);
}

static inline size_t chosen_shared_bytes(const few_columns &cols)
{
	return (size_t)(CHOSEN_THREADS / 32) * FEW_TILE * 3 * sizeof(float) + 16 + (size_t)2 * cols.col_stride * 16 +
	       (size_t)2 * cols.n_chunks * sizeof(float);
}

/* ---- Launches
 * --------------------------------------------------------------------------------------------------------- */

struct experts_launch {
	const gk_ctx *ctx;
	const experts_args *args;
	uint32_t n_groups; /* bound */
	int nt;            /* 1, 2, 4: 8, 16, 32 columns at a time */
	size_t shared;
};

/* One file for a few types each defines these; false: not its type. */
bool experts_launch_16bit(uint32_t type, const experts_launch &l);
bool experts_launch_blocks(uint32_t type, const experts_launch &l);
bool experts_launch_k(uint32_t type, const experts_launch &l);
bool chosen_launch_16bit(uint32_t type, const gk_ctx *ctx, const chosen_args &a);
bool chosen_launch_blocks(uint32_t type, const gk_ctx *ctx, const chosen_args &a);
bool chosen_launch_k(uint32_t type, const gk_ctx *ctx, const chosen_args &a);

template <uint32_t TYPE, int NT, int RT, int THREADS> static inline void experts_launch_one(const experts_launch &l)
{
	/* Pairs: as many blocks as the device holds, which then have no pause between their tiles. Groups have
	 * different numbers of rows: many blocks are better placed. */
	const uint32_t most =
	        THREADS > FEW_THREADS ? l.ctx->n_sm : 16 * l.ctx->n_sm * few_depth<gk_format<TYPE>, NT, RT>::BLOCKS;
	const uint32_t n_tiles = l.args->n_tiles, all = n_tiles * l.n_groups, rounds = (all + most - 1) / most;

	gpu_launch(experts_kernel<TYPE, NT, RT, THREADS>, dim3((n_tiles + rounds - 1) / rounds, l.n_groups),
	           dim3(THREADS), l.shared, l.ctx->stream, l.ctx->overlap, *l.args);
}

template <uint32_t TYPE> static inline bool experts_launch_type(const experts_launch &l)
{
	if (l.args->ids)
		experts_launch_one<TYPE, 1, 2, PAIR_THREADS>(l);
	else if (l.args->gated && l.nt == 1)
		experts_launch_one<TYPE, 1, 2, FEW_THREADS>(l);
	else if (l.args->gated && l.nt == 2)
		experts_launch_one<TYPE, 2, 2, FEW_THREADS>(l);
	else if (l.args->gated)
		experts_launch_one<TYPE, 4, 2, FEW_THREADS>(l);
	else if (l.nt == 1)
		experts_launch_one<TYPE, 1, 1, FEW_THREADS>(l);
	else if (l.nt == 2)
		experts_launch_one<TYPE, 2, 1, FEW_THREADS>(l);
	else
		experts_launch_one<TYPE, 4, 1, FEW_THREADS>(l);
	return true;
}

template <uint32_t TYPE> static inline bool chosen_launch_type(const gk_ctx *ctx, const chosen_args &a)
{
	gpu_launch(chosen_kernel<TYPE>, dim3((a.n_rows_w + FEW_TILE - 1) / FEW_TILE, a.rows.bound),
	           dim3(CHOSEN_THREADS), chosen_shared_bytes(a.cols), ctx->stream, ctx->overlap, a);
	return true;
}

#endif
