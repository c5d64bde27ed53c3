/* Products of rows, sorted by expert, with the experts that they chose: every weight is read once, straight into the
 * registers from which matrix units take it (few.h has the pieces). pairs.h is for so few rows that sorting them would
 * cost more than it saves.
 *
 * Gate and up with the activation, or down. blockIdx.y is an expert that has rows. A block makes 16 rows of the result
 * (gated: of two matrices), then the next 16, its first loads for those under way before the last sums are made; its
 * waves take the units of the sum in turn and their results are added in order of wave. */
#ifndef GPU_EXPERTS_H
#define GPU_EXPERTS_H

#include "gpu/few.h"

struct experts_args {
	gk_view x, out; /* out: row of the place */
	uint32_t act, n_rows_w, n_tiles;
	bool gated, whole; /* whole: x may be read 16 bytes at a time */
	few_columns cols;  /* data NULL */
	const gk_mat *mats[2];
	const float *bias[2]; /* [expert][rows] or NULL */
	const few_group *groups;
	const uint32_t *n_groups;
	const uint32_t *row_of; /* [place] row of x; NULL: the place */
};

/* Whether there are kernels for 32 columns at a time: a wave of RDNA has no registers for them. */
static inline bool experts_has_32(uint32_t wave)
{
#if defined(GPU_HIP)
	return wave == 64;
#else
	return wave != 0;
#endif
}

template <uint32_t TYPE, int NT, int RT>
static __global__ void __launch_bounds__(FEW_THREADS,
                                         GPU_BLOCKS((few_depth<gk_format<TYPE>, NT, RT>::BLOCKS), gk_is_k(TYPE)))
        experts_kernel(GPU_PARAM experts_args a)
{
#if GPU_AMD && GPU_MMA_WMMA
	if (NT == 4) { /* see experts_has_32() */
		__builtin_trap();
		return;
	}
#endif
	typedef gk_format<TYPE> F;
	enum {
		NB = (NT + 1) / 2,
		NARROW = NT == 1,
		U = few_depth<F, NT, RT>::U,
		NC = NARROW ? 8 : NB * 16,
		LINE = NC + 1,
		WAVES = FEW_THREADS / GPU_WAVE,
		GATED = RT == 2,
	};
	GPU_DYN_SHARED(float, shared);
	float *const sums = shared;
	const uint32_t wave = threadIdx.x / GPU_WAVE;

	gpu_dependency_wait();
	gpu_dependents_may_start();
	if (blockIdx.y >= *a.n_groups)
		return;

	const few_group group = a.groups[blockIdx.y];
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
			const uint32_t row = a.row_of ? a.row_of[place] : place;

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
			for (uint32_t i = threadIdx.x; i < FEW_TILE * n; i += FEW_THREADS) {
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

template <uint32_t TYPE, int NT, int RT> static inline void experts_launch_one(const experts_launch &l)
{
	/* Groups have different numbers of rows: many blocks are better placed. */
	const uint32_t most = 16 * l.ctx->n_sm * few_depth<gk_format<TYPE>, NT, RT>::BLOCKS;
	const uint32_t n_tiles = l.args->n_tiles, all = n_tiles * l.n_groups, rounds = (all + most - 1) / most;

	gpu_launch(experts_kernel<TYPE, NT, RT>, dim3((n_tiles + rounds - 1) / rounds, l.n_groups), dim3(FEW_THREADS),
	           l.shared, l.ctx->stream, l.ctx->overlap, *l.args);
}

template <uint32_t TYPE> static inline bool experts_launch_type(const experts_launch &l)
{
	if (l.args->gated && l.nt == 1)
		experts_launch_one<TYPE, 1, 2>(l);
	else if (l.args->gated && l.nt == 2)
		experts_launch_one<TYPE, 2, 2>(l);
	else if (l.args->gated)
		experts_launch_one<TYPE, 4, 2>(l);
	else if (l.nt == 1)
		experts_launch_one<TYPE, 1, 1>(l);
	else if (l.nt == 2)
		experts_launch_one<TYPE, 2, 1>(l);
	else
		experts_launch_one<TYPE, 4, 1>(l);
	return true;
}

#endif
