/* The kernels of experts.h for a row or a few and matrices of 16 bits, where copies run by themselves (NVIDIA; the host
 * shim for tests): what is under way lies in shared memory instead of registers.
 *
 * A thread copies its own pieces into its own places and reads them back, so nothing is waited for but its own copies.
 * Both kernels take half of a multiprocessor: the blocks of chosen_ring, which know their experts long before what
 * they multiply is there, fill their rings beside the blocks of experts_ring, and memory has no pause between the
 * two. */
#ifndef GPU_EXPERTS_RING_H
#define GPU_EXPERTS_RING_H

#include "gpu/experts.h"

enum {
	RING_EXPERTS_THREADS = 256,
	RING_EXPERTS_DEPTH = 3,     /* units of two matrices that a thread has under way */
	RING_CHOSEN_DEPTH = 5,      /* of one */
	RING_LANE = 2 * GPU_PIECES, /* 16 bytes of a unit, of one matrix */
	RING_LANE_MOST = 4,         /* on devices that this is for */
};

/* This thread's part of a unit into places RING_EXPERTS_THREADS apart. */
template <class F> GPU_FN void ring_copy(uint4 *to, const few_at<F> &a, uint32_t unit)
{
#pragma unroll
	for (int p = 0; p < GPU_PIECES; p++) {
		const uint8_t *from =
		        a.at.values + (GPU_PIECES_BY_ROW ? p * a.step8_values : p * 16) + (size_t)unit * F::VALUE_STEP;

		gpu_copy16(to + (2 * p) * RING_EXPERTS_THREADS, from, 16);
		gpu_copy16(to + (2 * p + 1) * RING_EXPERTS_THREADS, from + 64, 16);
	}
}

template <class F> GPU_FN void ring_take(few_raw<F> &r, const uint4 *from)
{
#pragma unroll
	for (int p = 0; p < GPU_PIECES; p++) {
		r.v[p].v[0] = from[(2 * p) * RING_EXPERTS_THREADS];
		r.v[p].v[1] = from[(2 * p + 1) * RING_EXPERTS_THREADS];
	}
}

template <class F> GPU_FN void ring_operands(few_lane<F, 1> &lane, const few_columns &cols, uint32_t n_cols)
{
	lane.exists = 0;
#pragma unroll
	for (int p = 0; p < GPU_PIECES; p++) {
		const bool exists = gpu_piece_row(p) < (int)n_cols;

		lane.col[0][p] =
		        cols.data + (size_t)(exists ? gpu_piece_row(p) : 0) * cols.col_stride + (gpu_piece_col(p) >> 3);
		lane.exists |= (uint32_t)exists << p;
	}
}

/* Gate, up and the activation of pairs. */
template <uint32_t TYPE>
static __global__ void __launch_bounds__(RING_EXPERTS_THREADS, 2) experts_ring_kernel(GPU_PARAM experts_args a)
{
	typedef gk_format<TYPE> F;
	enum { WAVES = RING_EXPERTS_THREADS / GPU_WAVE, LINE = 3, SLOT = 2 * RING_LANE * RING_EXPERTS_THREADS };
	GPU_DYN_SHARED(uint4, shared);
	uint4 *const ring = shared + threadIdx.x;
	const uint32_t wave = threadIdx.x / GPU_WAVE, pair = blockIdx.y, row = pair / a.top_k;

	/* The next kernel looks at what the kernel before this one wrote: it may start when that has ended. */
	gpu_dependency_wait();
	gpu_dependents_may_start();
	if (row >= gk_n_rows(a.rows))
		return;

	const uint32_t expert = (uint32_t)a.ids[pair];

	if (expert >= a.n_expert)
		return;

	const gk_mat mats[2] = { a.mats[0][expert], a.mats[1][expert] };
	const uint32_t n_units = gk_n_units(mats[0]);
	const uint32_t n_mine = n_units > wave ? (n_units - wave + WAVES - 1) / WAVES : 0; /* of each tile */
	few_columns cols = a.cols;
	float *sums;

	cols.data = shared + RING_EXPERTS_DEPTH * SLOT;
	cols.sums = nullptr;
	sums = (float *)(cols.data + cols.parts * cols.col_stride);

	/* Copies go over tiles and units as the sums do. */
	uint32_t copied_tile = blockIdx.x, copied = 0, slot_in = 0, slot_out = 0;
	few_at<F> at[2] = { few_point<F>(mats[0], copied_tile * FEW_TILE, n_units),
		            few_point<F>(mats[1], copied_tile * FEW_TILE, n_units) };
	auto copy_next = [&]() {
		if (n_mine && copied_tile < a.n_tiles) {
			uint4 *to = ring + slot_in * SLOT;

			ring_copy<F>(to, at[0], wave + copied * WAVES);
			ring_copy<F>(to + RING_LANE * RING_EXPERTS_THREADS, at[1], wave + copied * WAVES);
			if (++copied == n_mine) {
				copied = 0;
				copied_tile += gridDim.x;
				at[0] = few_point<F>(mats[0], copied_tile * FEW_TILE, n_units);
				at[1] = few_point<F>(mats[1], copied_tile * FEW_TILE, n_units);
			}
		}
		slot_in = slot_in + 1 == RING_EXPERTS_DEPTH ? 0 : slot_in + 1;
		gpu_copy_commit();
	};

	for (int d = 0; d < RING_EXPERTS_DEPTH; d++)
		copy_next();
	(void)few_make_columns(cols, F::ORDER, 0, a.x, row, mats[0].cols, gk_view{ nullptr, 0, 0 }, a.whole);
	__syncthreads();

	few_lane<F, 1> lane;

	ring_operands<F>(lane, cols, cols.parts);
	for (uint32_t tile = blockIdx.x; tile < a.n_tiles; tile += gridDim.x) {
		gpu_acc acc[2][1] = { { gpu_acc_zero() }, { gpu_acc_zero() } };

		for (uint32_t i = 0; i < n_mine; i++) {
			few_raw<F> raw[2];

			gpu_copy_wait<RING_EXPERTS_DEPTH - 1>();
			ring_take<F>(raw[0], ring + slot_out * SLOT);
			ring_take<F>(raw[1], ring + slot_out * SLOT + RING_LANE * RING_EXPERTS_THREADS);
			slot_out = slot_out + 1 == RING_EXPERTS_DEPTH ? 0 : slot_out + 1;
			few_unit<TYPE, F, 1, true, 2>(acc, raw, lane, wave + i * WAVES);
			copy_next();
		}
#pragma unroll
		for (int g = 0; g < 2; g++) {
#pragma unroll
			for (int i = 0; i < GPU_ACC; i++) {
				if (gpu_acc_col(i) < 2)
					sums[((wave * 2 + g) * FEW_TILE + gpu_acc_row(i)) * LINE + gpu_acc_col(i)] =
					        acc[g][0].v[i];
			}
		}
		__syncthreads();
		if (threadIdx.x < FEW_TILE && tile * FEW_TILE + threadIdx.x < a.n_rows_w) {
			const uint32_t r = tile * FEW_TILE + threadIdx.x;
			float y[2] = { 0.0f, 0.0f };

#pragma unroll
			for (int g = 0; g < 2; g++) {
				for (uint32_t v = 0; v < WAVES; v++) {
					const float *s = sums + ((v * 2 + g) * FEW_TILE + threadIdx.x) * LINE;

					y[g] += cols.parts == 2 ? s[0] + s[1] : s[0];
				}
				if (a.bias[g])
					y[g] += a.bias[g][(size_t)expert * a.n_rows_w + r];
			}
			gk_put(a.out, pair, r, gk_act(a.act, y[0], y[1]));
		}
		__syncthreads();
	}
}

/* Down and the weighted sum. */
template <uint32_t TYPE>
static __global__ void __launch_bounds__(RING_EXPERTS_THREADS, 2) chosen_ring_kernel(GPU_PARAM chosen_args a)
{
	typedef gk_format<TYPE> F;
	enum { WAVES = RING_EXPERTS_THREADS / GPU_WAVE, LINE = 3, SLOT = RING_LANE * RING_EXPERTS_THREADS };
	__shared__ gk_mat mats[MAX_CHOSEN];
	__shared__ float weights[MAX_CHOSEN];
	__shared__ int32_t experts[MAX_CHOSEN];
	GPU_DYN_SHARED(uint4, shared);
	uint4 *const ring = shared + threadIdx.x;
	const uint32_t wave = threadIdx.x / GPU_WAVE, row = blockIdx.y, row0 = blockIdx.x * FEW_TILE,
	               first = row * a.top_k;

	gpu_dependents_may_start();
	if (row >= gk_n_rows(a.rows)) {
		gpu_dependency_wait();
		return;
	}
	chosen_experts_of(a, first, mats, weights, experts);
	__syncthreads();

	const uint32_t n_units = gk_n_units(mats[0]), n_all = n_units * a.top_k;
	uint32_t copied = wave, slot_in = 0, slot_out = 0;
	auto copy_next = [&]() {
		if (copied < n_all) {
			const uint32_t k = copied / n_units;

			ring_copy<F>(ring + slot_in * SLOT, few_point<F>(mats[k], row0, n_units), copied - k * n_units);
		}
		copied += WAVES;
		slot_in = slot_in + 1 == RING_CHOSEN_DEPTH ? 0 : slot_in + 1;
		gpu_copy_commit();
	};

	for (int d = 0; d < RING_CHOSEN_DEPTH; d++)
		copy_next();
	gpu_dependency_wait();

	few_columns cols = a.cols;
	few_lane<F, 1> lane;
	gpu_acc acc[1][1] = { { gpu_acc_zero() } };
	float *sums;

	cols.data = shared + RING_CHOSEN_DEPTH * SLOT;
	cols.sums = nullptr;
	sums = (float *)(cols.data + 2 * cols.col_stride);
	chosen_columns<RING_EXPERTS_THREADS>(cols, F::ORDER, n_units * F::CHUNKS, first, a, weights);
	__syncthreads();
	ring_operands<F>(lane, cols, 2);
	for (uint32_t unit = wave; unit < n_all; unit += WAVES) {
		few_raw<F> raw[1];

		gpu_copy_wait<RING_CHOSEN_DEPTH - 1>();
		ring_take<F>(raw[0], ring + slot_out * SLOT);
		slot_out = slot_out + 1 == RING_CHOSEN_DEPTH ? 0 : slot_out + 1;
		few_unit<TYPE, F, 1, true, 1>(acc, raw, lane, unit);
		copy_next();
	}
	chosen_sum<WAVES>(a, acc[0][0], sums, weights, experts);
}

static inline size_t experts_ring_bytes(const few_columns &cols)
{
	return (size_t)RING_EXPERTS_DEPTH * 2 * RING_LANE_MOST * RING_EXPERTS_THREADS * 16 +
	       (size_t)cols.parts * cols.col_stride * 16 +
	       (size_t)(RING_EXPERTS_THREADS / 32) * 2 * FEW_TILE * 3 * sizeof(float);
}

static inline size_t chosen_ring_bytes(const few_columns &cols)
{
	return (size_t)RING_CHOSEN_DEPTH * RING_LANE_MOST * RING_EXPERTS_THREADS * 16 +
	       (size_t)2 * cols.col_stride * 16 + (size_t)(RING_EXPERTS_THREADS / 32) * FEW_TILE * 3 * sizeof(float);
}

/* Not on AMD, whose copies into shared memory go by way of registers. */
static inline bool ring_takes(const gk_ctx *ctx, size_t shared)
{
	return ctx->sm < 0x900 && shared + 4096 <= ctx->smem_bytes;
}

template <uint32_t TYPE> static inline bool experts_ring_launch(const experts_launch &l)
{
	const uint32_t n_tiles = l.args->n_tiles, all = n_tiles * l.n_groups,
	               rounds = (all + l.ctx->n_sm - 1) / l.ctx->n_sm;

	gpu_launch(experts_ring_kernel<TYPE>, dim3((n_tiles + rounds - 1) / rounds, l.n_groups),
	           dim3(RING_EXPERTS_THREADS), experts_ring_bytes(l.args->cols), l.ctx->stream, l.ctx->overlap,
	           *l.args);
	return true;
}

template <uint32_t TYPE> static inline bool chosen_ring_launch(const gk_ctx *ctx, const chosen_args &a)
{
	gpu_launch(chosen_ring_kernel<TYPE>, dim3((a.n_rows_w + FEW_TILE - 1) / FEW_TILE, a.rows.bound),
	           dim3(RING_EXPERTS_THREADS), chosen_ring_bytes(a.cols), ctx->stream, ctx->overlap, a);
	return true;
}

#endif
