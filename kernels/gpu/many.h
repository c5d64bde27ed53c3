/* Products of many rows by tiles on matrix units: 128 rows of W times 64 or 128 rows of x, 64 columns at a time, copies
 * running two steps ahead (one on AMD, whose blocks have 64 KiB). Weights of any type become bfloat16 on their way into
 * shared memory.
 *
 * Split: where tiles are fewer than the device holds at once, blockIdx.z is a share of the columns; the shares' results
 * are added by a kernel of their own (many.cu), in their order.
 *
 * Gated: the tile is 64 rows of each of two matrices, in turn 16 of one and 16 of the other, so that a wave holds what
 * belongs together. Grouped (mixtures): blockIdx.y is a piece of the rows of one expert. */
#ifndef GPU_MANY_H
#define GPU_MANY_H

#include "gpu/few.h"
#include "gpu/gpu_tile.h"

enum {
	MANY_THREADS = 256,
	MANY_ROWS = 128, /* of W */
	MANY_COLS = 64,
	MANY_CHUNKS = MANY_COLS / 8,
	MANY_STAGES = (int)GPU_MOST_SHARED > (64 << 10) ? 3 : 2,
	MANY_FEATURE_WAVES = 2,
};

struct many_args {
	few_job job[2]; /* the second when gated */
	uint32_t act;
	bool gated, x_async; /* x is bfloat16, in 16-byte steps */
	gk_view x;
	gk_rows rows;
	/* grouped */
	const few_group *groups; /* at most BN rows each */
	const uint32_t *n_groups;
	const gk_mat *mats[2];
	const float *mat_bias[2];
	const uint32_t *row_of; /* [place] row of x; NULL: the place */
	/* split: results of share z, matrix g, row i of x at ((z * (gated ? 2 : 1) + g) * rows.bound + i) * w.rows */
	float *parts; /* NULL: not split */
};

/* Blocks that a multiprocessor shall hold: with few rows of x a block waits more than it computes. */
template <int BN> struct many_blocks {
	enum { PER_SM = BN == 64 ? 2 : 1 };
};

/* The 8 values of lane group t in chunk c of a row's unit, with scales, in their natural places of a tile. */
template <class F>
GPU_FN void many_put_piece(uint4 *tile, uint32_t tile_row, uint32_t t, int c, int c_in_tile, const typename F::raw &raw,
                           const typename F::scale &scale, uint32_t unit)
{
	uint4 v = F::piece(raw, c);
	uint32_t w[4] = { v.x, v.y, v.z, v.w };

	if ((int)F::SCALED != 0) {
		float d[2], m[2];

		F::get_scale(scale, unit, c, 0, &d[0], &m[0]);
		F::get_scale(scale, unit, c, 1, &d[1], &m[1]);
#pragma unroll
		for (int j = 0; j < 4; j++)
			w[j] = gpu_pack_bf16(gpu_bf16_low(w[j]) * d[j >> 1] - m[j >> 1],
			                     gpu_bf16_high(w[j]) * d[j >> 1] - m[j >> 1]);
	}
	if ((int)F::ORDER == 1) {
		uint2 *low = (uint2 *)(tile + gpu_tile_at(tile_row, 4 * c_in_tile + (t >> 1), MANY_CHUNKS));
		uint2 *high = (uint2 *)(tile + gpu_tile_at(tile_row, 4 * c_in_tile + 2 + (t >> 1), MANY_CHUNKS));

		low[t & 1] = make_uint2(w[0], w[1]);
		high[t & 1] = make_uint2(w[2], w[3]);
	} else if ((int)F::ORDER == 2) {
		/* elements 0 2 1 3 back into line */
		const uint4 o = make_uint4((w[0] & 0xffffu) | w[1] << 16, w[0] >> 16 | (w[1] & 0xffff0000u),
		                           (w[2] & 0xffffu) | w[3] << 16, w[2] >> 16 | (w[3] & 0xffff0000u));

		tile[gpu_tile_at(tile_row, 2 * t + c_in_tile, MANY_CHUNKS)] = o;
	} else {
		tile[gpu_tile_at(tile_row, 4 * c_in_tile + t, MANY_CHUNKS)] = make_uint4(w[0], w[1], w[2], w[3]);
	}
}

template <uint32_t TYPE, int BN, bool GATED, bool GROUPED>
static __global__ void __launch_bounds__(MANY_THREADS, (many_blocks<BN>::PER_SM)) many_kernel(GPU_PARAM many_args a)
{
	typedef gk_format<TYPE> F;
	enum {
		WAVES = MANY_THREADS / GPU_WAVE,
		TM = MANY_ROWS / 16 / MANY_FEATURE_WAVES,
		TN = BN / 16 / (WAVES / MANY_FEATURE_WAVES),
		DIRECT = TYPE == KN_BF16,
		ITEMS = MANY_ROWS * 4 / MANY_THREADS, /* pieces of W that a thread turns */
		PER_UNIT = F::CHUNKS / 2,             /* steps that a unit lasts */
	};
	GPU_DYN_SHARED(uint4, shared);
	uint4 *const tiles_w = shared, *const tiles_x = shared + MANY_STAGES * MANY_ROWS * MANY_CHUNKS;
	const uint32_t wave = threadIdx.x / GPU_WAVE, wave_f = wave % MANY_FEATURE_WAVES,
	               wave_t = wave / MANY_FEATURE_WAVES;
	uint32_t expert = 0, first = blockIdx.y * BN, n_rows;
	gk_mat w[GATED ? 2 : 1];

	gpu_dependents_may_start();
	gpu_dependency_wait();
	if (GROUPED) {
		if (blockIdx.y >= *a.n_groups)
			return;
		expert = a.groups[blockIdx.y].expert;
		first = a.groups[blockIdx.y].first;
		n_rows = a.groups[blockIdx.y].n;
		w[0] = a.mats[0][expert];
		if (GATED)
			w[GATED ? 1 : 0] = a.mats[1][expert];
	} else {
		n_rows = gk_n_rows(a.rows);
		if (first >= n_rows)
			return;
		n_rows = n_rows - first < BN ? n_rows - first : BN;
		w[0] = a.job[0].w;
		if (GATED)
			w[GATED ? 1 : 0] = a.job[1].w;
	}

	const uint32_t row0 = blockIdx.x * (GATED ? MANY_ROWS / 2 : MANY_ROWS), n_units = gk_n_units(w[0]);
	const uint32_t last_row = w[0].rows - 1, n_cols = w[0].cols;
	/* This block's share of the columns. */
	const uint32_t share = (n_units + gridDim.z - 1) / gridDim.z, unit0 = blockIdx.z * share;
	const uint32_t n_steps = (unit0 >= n_units ? 0 : n_units - unit0 < share ? n_units - unit0 : share) * PER_UNIT;

	if (row0 > last_row)
		return;

	/* A row of the tile: which matrix, which row of it. */
	auto matrix_row = [&](uint32_t r) {
		const uint32_t row = row0 + (GATED ? r / 32 * 16 + r % 16 : r);

		return row < last_row ? row : last_row;
	};
	auto matrix_of = [&](uint32_t r) {
		gk_mat m = w[0];

		if (GATED && (r / 16 & 1))
			m = w[GATED ? 1 : 0];
		return m;
	};

	typename F::raw raw[ITEMS];
	typename F::scale scale[ITEMS];

	auto load_raw = [&](uint32_t step) GPU_INLINE {
		if (step % PER_UNIT != 0 || step >= n_steps)
			return;
#pragma unroll
		for (int i = 0; i < ITEMS; i++) {
			const uint32_t item = threadIdx.x + i * MANY_THREADS, r = item >> 2;

			F::fetch(raw[i], F::where(matrix_of(r), matrix_row(r), item & 3, n_units),
			         unit0 + step / PER_UNIT);
			if ((int)F::SCALED != 0)
				F::fetch_scale(scale[i], F::scale_where(matrix_of(r), matrix_row(r), n_units),
				               unit0 + step / PER_UNIT);
		}
	};
	auto put_raw = [&](uint32_t step) GPU_INLINE {
		uint4 *tile = tiles_w + step % MANY_STAGES * MANY_ROWS * MANY_CHUNKS;

		if (step >= n_steps)
			return;
#pragma unroll
		for (int i = 0; i < ITEMS; i++) {
			const uint32_t item = threadIdx.x + i * MANY_THREADS;

#pragma unroll
			for (int c = 0; c < 2; c++) {
				if (PER_UNIT == 1 || step % PER_UNIT == 0)
					many_put_piece<F>(tile, item >> 2, item & 3, c, c, raw[i], scale[i],
					                  unit0 + step / PER_UNIT);
				else
					many_put_piece<F>(tile, item >> 2, item & 3, PER_UNIT == 1 ? 0 : c + 2, c,
					                  raw[i], scale[i], unit0 + step / PER_UNIT);
			}
		}
	};
	/* What this thread copies: chunk c of every 32nd row, from pointers that move on by a step's columns. */
	enum { ROW_STEP = MANY_THREADS / MANY_CHUNKS, N_W = MANY_ROWS / ROW_STEP, N_X = BN / ROW_STEP };
	const uint32_t c = threadIdx.x % MANY_CHUNKS, r0 = threadIdx.x / MANY_CHUNKS,
	               at0 = gpu_tile_at(r0, c, MANY_CHUNKS);
	const uint8_t *from_w[DIRECT ? N_W : 1];
	const gpu_bf16 *from_x[N_X];
	uint32_t row_x[N_X];

#pragma unroll
	for (int n = 0; DIRECT && n < N_W; n++) {
		const uint32_t r = r0 + n * ROW_STEP;

		from_w[DIRECT ? n : 0] = (const uint8_t *)matrix_of(r).values +
		                         ((size_t)matrix_row(r) * w[0].ld + unit0 * F::UNIT + c * 8) * 2;
	}
#pragma unroll
	for (int n = 0; n < N_X; n++) {
		const uint32_t r = r0 + n * ROW_STEP, place = first + (r < n_rows ? r : n_rows - 1);

		row_x[n] = GROUPED && a.row_of ? a.row_of[place] : place;
		from_x[n] = (const gpu_bf16 *)a.x.p + (size_t)row_x[n] * a.x.ld;
	}

	auto copy_w = [&](uint32_t step) {
		uint4 *tile = tiles_w + step % MANY_STAGES * MANY_ROWS * MANY_CHUNKS + at0;

#pragma unroll
		for (int n = 0; n < N_W; n++)
			gpu_copy16(tile + n * ROW_STEP * MANY_CHUNKS,
			           from_w[DIRECT ? n : 0] + (size_t)step * MANY_COLS * 2, 16);
	};
	auto copy_x = [&](uint32_t step) {
		uint4 *tile = tiles_x + step % MANY_STAGES * BN * MANY_CHUNKS + at0;
		const uint32_t k = unit0 * F::UNIT + step * MANY_COLS + c * 8;
		const int bytes = k + 8 <= n_cols ? 16 : k < n_cols ? (int)(n_cols - k) * 2 : 0;

#pragma unroll
		for (int n = 0; n < N_X; n++) {
			uint4 *to = tile + n * ROW_STEP * MANY_CHUNKS;

			if (a.x_async) {
				gpu_copy16(to, from_x[n] + (bytes ? k : 0), bytes);
			} else {
				float v[8];

				gk_get8(a.x, row_x[n], k, n_cols, false, v);
				*to = make_uint4(gpu_pack_bf16(v[0], v[1]), gpu_pack_bf16(v[2], v[3]),
				                 gpu_pack_bf16(v[4], v[5]), gpu_pack_bf16(v[6], v[7]));
			}
		}
	};

	gpu_acc acc[TM][TN];

#pragma unroll
	for (int m = 0; m < TM; m++) {
#pragma unroll
		for (int n = 0; n < TN; n++)
			acc[m][n] = gpu_acc_zero();
	}
	/* Steps under way. Turned weights are loaded one step before they are put. */
	for (uint32_t s = 0; s < MANY_STAGES - 1; s++) {
		if (DIRECT) {
			if (s < n_steps)
				copy_w(s);
		} else {
			load_raw(s);
			put_raw(s);
		}
		if (s < n_steps)
			copy_x(s);
		gpu_copy_commit();
	}
	if (!DIRECT)
		load_raw(MANY_STAGES - 1);
	for (uint32_t step = 0; step < n_steps; step++) {
		const uint4 *tile_w = tiles_w + step % MANY_STAGES * MANY_ROWS * MANY_CHUNKS;
		const uint4 *tile_x = tiles_x + step % MANY_STAGES * BN * MANY_CHUNKS;
		const uint32_t ahead = step + MANY_STAGES - 1;

		gpu_copy_wait<MANY_STAGES - 2>();
		__syncthreads(); /* this step's tiles are there, and nobody reads the ones that are filled next */
		if (ahead < n_steps) {
			if (DIRECT)
				copy_w(ahead);
			copy_x(ahead);
		}
		gpu_copy_commit();
		if (!DIRECT) {
			put_raw(ahead);
			load_raw(ahead + 1);
		}
#pragma unroll
		for (int half = 0; half < 2; half++) {
			gpu_frag x[TN], f[TM];

#pragma unroll
			for (int n = 0; n < TN; n++)
				x[n] = gpu_tile_frag(tile_x, (wave_t * TN + n) * 16, 4 * half, MANY_CHUNKS);
#pragma unroll
			for (int m = 0; m < TM && !GPU_MMA_WMMA; m++)
				f[m] = gpu_tile_frag(tile_w, (wave_f * TM + m) * 16, 4 * half, MANY_CHUNKS);
#pragma unroll
			for (int m = 0; m < TM; m++) {
				if (GPU_MMA_WMMA) { /* no registers for more */
					gpu_hold();
					f[m] = gpu_tile_frag(tile_w, (wave_f * TM + m) * 16, 4 * half, MANY_CHUNKS);
				}
#pragma unroll
				for (int n = 0; n < TN; n++)
					gpu_mma<false>(acc[m][n], f[m], x[n]);
			}
		}
	}

	const float *bias[2] = { nullptr, nullptr };

#pragma unroll
	for (int g = 0; g < (GATED ? 2 : 1); g++) {
		if (GROUPED)
			bias[g] = a.mat_bias[g] ? a.mat_bias[g] + (size_t)expert * w[0].rows : nullptr;
		else
			bias[g] = a.job[g].bias;
	}
#pragma unroll
	for (int m = 0; m < TM; m += GATED ? 2 : 1) {
#pragma unroll
		for (int n = 0; n < TN; n++) {
			GPU_EACH_RESULT
			for (int i = 0; i < GPU_ACC; i++) {
				const uint32_t r = GATED ? (wave_f * TM + m) / 2 * 16 + gpu_acc_row(i)
				                         : (wave_f * TM + m) * 16 + gpu_acc_row(i);
				const uint32_t row = row0 + r, col = (wave_t * TN + n) * 16 + gpu_acc_col(i);
				float y = gpu_acc_at(acc[m][n], i);

				if (row > last_row || col >= n_rows)
					continue;
				if (!GROUPED && a.parts) {
					const size_t at = ((size_t)blockIdx.z * (GATED ? 2 : 1) * a.rows.bound + first +
					                   col) * w[0].rows +
					                  row;

					a.parts[at] = y;
					if (GATED)
						a.parts[at + (size_t)a.rows.bound * w[0].rows] =
						        gpu_acc_at(acc[GATED ? m + 1 : m][n], i);
					continue;
				}
				if (bias[0])
					y += bias[0][row];
				if (GATED) {
					float u = gpu_acc_at(acc[GATED ? m + 1 : m][n], i);

					if (bias[1])
						u += bias[1][row];
					y = gk_act(a.act, y, u);
				}
				gk_put(a.job[0].out, first + col, row,
				       a.job[0].accumulate ? gk_get(a.job[0].out, first + col, row) + y : y);
			}
		}
	}
}

struct many_launch {
	const gk_ctx *ctx;
	const many_args *args;
	uint32_t rows, n_tiles; /* of W; of rows of x, or groups */
	bool wide, grouped;     /* tiles of 128 rows of x instead of 64 */
	uint32_t n_shares;      /* of the columns; 0: one */
};
bool many_launch_16bit(uint32_t type, const many_launch &l);
bool many_launch_blocks(uint32_t type, const many_launch &l);
bool many_launch_k(uint32_t type, const many_launch &l);
bool many_launch_any(uint32_t type, const many_launch &l);

template <uint32_t TYPE, int BN, bool GATED, bool GROUPED> static inline void many_launch_one(const many_launch &l)
{
	const uint32_t per_tile = GATED ? MANY_ROWS / 2 : MANY_ROWS;

	gpu_launch(many_kernel<TYPE, BN, GATED, GROUPED>,
	           dim3((l.rows + per_tile - 1) / per_tile, l.n_tiles, l.n_shares ? l.n_shares : 1), dim3(MANY_THREADS),
	           (size_t)MANY_STAGES * (MANY_ROWS + BN) * MANY_CHUNKS * 16, l.ctx->stream, l.ctx->overlap, *l.args);
}

template <uint32_t TYPE> static inline bool many_launch_type(const many_launch &l)
{
	if (l.grouped) {
		if (l.args->gated)
			many_launch_one<TYPE, 64, true, true>(l);
		else
			many_launch_one<TYPE, 64, false, true>(l);
	} else if (l.args->gated) {
		if (l.wide)
			many_launch_one<TYPE, 128, true, false>(l);
		else
			many_launch_one<TYPE, 64, true, false>(l);
	} else {
		if (l.wide)
			many_launch_one<TYPE, 128, false, false>(l);
		else
			many_launch_one<TYPE, 64, false, false>(l);
	}
	return true;
}

#endif
