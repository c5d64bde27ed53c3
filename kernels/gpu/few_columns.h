/* Rows of x as the columns of operands that few.h multiplies: in memory, where a launch of its own has made them, or
 * made by each block in its shared memory. */
#ifndef GPU_FEW_COLUMNS_H
#define GPU_FEW_COLUMNS_H

#include "gpu/mat.h"
#include "gpu/view.h"

enum {
	FEW_THREADS = 256,
	FEW_TILE = 16,
};

struct few_job {
	gk_mat w;
	gk_view out;
	const float *bias;
	uint32_t first_tile; /* of the blocks in x */
	bool accumulate;
	/* Waves of a group, a power of two, less one: the waves' sums are added in groups, and the groups' in their
	 * order. steady.h has a block for each group. */
	uint32_t group_mask;
};

/* The rows of one expert: places [first, first + n) of the lists. */
struct few_group {
	uint32_t expert, first, n;
};

/* Rows of x as columns of operands: column `row * parts + part`, col_stride apart (in 16 bytes), 4 of 16 bytes for
 * each chunk of 32; sums: of each chunk, for types with minimums. */
struct few_columns {
	uint4 *data;
	float *sums;
	float *scale; /* [rows] of the norm */
	uint32_t n_chunks, col_stride, parts;
};

struct few_args {
	few_job job[GK_MAX_JOBS];
	uint32_t n_jobs, act;
	bool gated, norm, whole; /* whole: x and norm_w may be read 16 bytes at a time */
	bool move;               /* x is bfloat16, whole, one part, not normed; columns a multiple of 4 */
	gk_view x, norm_w;
	float eps;
	uint32_t n_rows, n_tiles;
	few_columns cols; /* data NULL: made here, in shared memory */
};

GPU_FN uint32_t few_col_stride(uint32_t n_chunks)
{
	return (n_chunks | 1) * 4; /* odd multiples of 64 bytes: two columns side by side meet all banks */
}

/* ---- Rows for GK_FP8_WIDE -----------------------------------------------------------------------------------------
 *
 * Operands are of the type that e4m3 is widened to, which may be binary16: values are divided by FEW_WIDE_DOWN, so that
 * a million still is one, what is left of them in a second part is multiplied by FEW_WIDE_LOW, and few_kernel() makes
 * up for both. */
enum { FEW_WIDE_DOWN = 16, FEW_WIDE_LOW = 2048 };

/* Two floats; those beyond the type end at its largest. */
GPU_FN uint32_t few_pack_wide(float low, float high)
{
#if GPU_PTX
	uint32_t r;

	asm("{\n\tcvt.rn.f16x2.f32 %0, %1, %2;\n\tmin.NaN.f16x2 %0, %0, %3;\n\tmax.NaN.f16x2 %0, %0, %4;\n\t}"
	    : "=&r"(r)
	    : "f"(high), "f"(low), "r"(0x7bff7bffu), "r"(0xfbfffbffu));
	return r;
#else
	return gpu_pack_bf16(low, high);
#endif
}

/* What is left of two floats. */
GPU_FN uint32_t few_pack_wide_rest(float low, float high, uint32_t packed)
{
#if GPU_PTX
	low -= gpu_from_f16((gpu_f16)packed);
	high -= gpu_from_f16((gpu_f16)(packed >> 16));
#else
	low -= gpu_bf16_low(packed);
	high -= gpu_bf16_high(packed);
#endif
	return few_pack_wide(low * (float)FEW_WIDE_LOW, high * (float)FEW_WIDE_LOW);
}

/* Piece i of a row. */
GPU_FN void few_put_wide(const few_columns &cols, uint32_t index, uint32_t i, const float *v)
{
	const size_t at = (size_t)index * cols.parts * cols.col_stride + i;
	uint32_t high[4], low[4];

#pragma unroll
	for (int j = 0; j < 4; j++) {
		const float a = v[2 * j] * (1.0f / FEW_WIDE_DOWN), b = v[2 * j + 1] * (1.0f / FEW_WIDE_DOWN);

		high[j] = few_pack_wide(a, b);
		low[j] = few_pack_wide_rest(a, b, high[j]);
	}
	cols.data[at] = make_uint4(high[0], high[1], high[2], high[3]);
	if (cols.parts == 2)
		cols.data[at + cols.col_stride] = make_uint4(low[0], low[1], low[2], low[3]);
}

/* Sums of the columns of a piece, over its chunk's four threads. */
GPU_FN void few_put_sums(const few_columns &cols, uint32_t row, uint32_t i, float high, float low)
{
	high += gpu_shfl_xor(high, 1);
	high += gpu_shfl_xor(high, 2);
	low += gpu_shfl_xor(low, 1);
	low += gpu_shfl_xor(low, 2);
	if (i < cols.n_chunks * 4 && (i & 3) == 0) {
		float *to = cols.sums + (size_t)row * cols.parts * cols.n_chunks + (i >> 2);

		to[0] = high;
		if (cols.parts == 2)
			to[cols.n_chunks] = low;
	}
}

/* Eight values as operands: what bfloat16 keeps of them, and of the rest; the sums of both. */
struct few_eight {
	uint32_t high[4], low[4];
	float sum_high, sum_low;
};

/* v is brought into the order of the type's pieces. */
GPU_FN few_eight few_pack_eight(uint32_t order, float *v)
{
	few_eight e;

	e.sum_high = e.sum_low = 0.0f;
	if (order == 2) {
		float s = v[1];

		v[1] = v[2], v[2] = s;
		s = v[5], v[5] = v[6], v[6] = s;
	}
#pragma unroll
	for (int j = 0; j < 4; j++) {
		e.high[j] = gpu_pack_bf16(v[2 * j], v[2 * j + 1]);
		e.low[j] = gpu_pack_bf16(v[2 * j] - gpu_bf16_low(e.high[j]), v[2 * j + 1] - gpu_bf16_high(e.high[j]));
		e.sum_high += gpu_bf16_low(e.high[j]) + gpu_bf16_high(e.high[j]);
		e.sum_low += gpu_bf16_low(e.low[j]) + gpu_bf16_high(e.low[j]);
	}
	return e;
}

/* Makes the columns of one row; all threads of the block. Returns this thread's part of the sum of squares. */
GPU_FN float few_make_columns(const few_columns &cols, uint32_t order, uint32_t index, const gk_view &x, uint32_t row,
                              uint32_t n_cols, const gk_view &norm_w, bool whole)
{
	const uint32_t n_pieces = cols.n_chunks * 4;
	float square = 0.0f;

	for (uint32_t base = 0; base < n_pieces; base += blockDim.x) {
		const uint32_t i = base + threadIdx.x, chunk = i >> 2, t = i & 3;
		const uint32_t k0 = gk_column(order, chunk, t, 0), k1 = gk_column(order, chunk, t, 4);
		float v[8] = { 0, 0, 0, 0, 0, 0, 0, 0 }, w[8];

		if (i < n_pieces) {
			gk_get4(x, row, k0, n_cols, whole, v);
			gk_get4(x, row, k1, n_cols, whole, v + 4);
			if (norm_w.p) {
				gk_get4(norm_w, 0, k0, n_cols, whole, w);
				gk_get4(norm_w, 0, k1, n_cols, whole, w + 4);
			}
		}
#pragma unroll
		for (int e = 0; e < 8; e++) {
			square += v[e] * v[e];
			if (norm_w.p)
				v[e] *= w[e];
		}
		if (order == 3) {
			if (i < n_pieces)
				few_put_wide(cols, index, i, v);
			continue;
		}
		const few_eight e = few_pack_eight(order, v);

		if (i < n_pieces) {
			const size_t at = (size_t)index * cols.parts * cols.col_stride + i;

			cols.data[at] = make_uint4(e.high[0], e.high[1], e.high[2], e.high[3]);
			if (cols.parts == 2)
				cols.data[at + cols.col_stride] = make_uint4(e.low[0], e.low[1], e.low[2], e.low[3]);
		}
		if (cols.sums)
			few_put_sums(cols, index, i, e.sum_high, e.sum_low);
	}
	return square;
}

/* ---- Columns of x in shared memory ------------------------------------------------------------------------------
 *
 * All blocks wait for this, so a thread asks for several pieces before it uses the first. */

/* The norm's weights into the second-level cache, while the kernel before still runs. */
GPU_FN void few_prefetch_norm(const few_args &a)
{
#if GPU_PTX
	const float *w = (const float *)a.norm_w.p;

	for (uint32_t k = threadIdx.x * 32; k < a.job[0].w.cols; k += FEW_THREADS * 32)
		gpu_ask_for(w + k);
#else
	(void)a;
#endif
}

/* x is bfloat16 and stays it: pieces move. */
template <class F> GPU_FN void few_move_columns(const few_args &a, const few_columns &cols, uint32_t row)
{
	enum { AT_ONCE = 3 };
	const uint32_t n_pieces = cols.n_chunks * 4, n_cols = a.job[0].w.cols;
	const uint16_t *p = (const uint16_t *)a.x.p + (size_t)row * a.x.ld;

	for (uint32_t base = threadIdx.x; base < (n_pieces + 31) / 32 * 32; base += AT_ONCE * FEW_THREADS) {
		uint2 v[AT_ONCE][2];

#pragma unroll
		for (uint32_t b = 0; b < AT_ONCE; b++) {
			const uint32_t i = base + b * FEW_THREADS;

#pragma unroll
			for (int h = 0; h < 2; h++) {
				const uint32_t k = gk_column(F::ORDER, i >> 2, i & 3, 4 * h);

				v[b][h] = i < n_pieces && k + 4 <= n_cols ? *(const uint2 *)(p + k) : make_uint2(0, 0);
			}
		}
#pragma unroll
		for (uint32_t b = 0; b < AT_ONCE; b++) {
			const uint32_t i = base + b * FEW_THREADS;
			uint32_t w[4] = { v[b][0].x, v[b][0].y, v[b][1].x, v[b][1].y };

			if (F::ORDER == 2) {
#pragma unroll
				for (int h = 0; h < 4; h += 2) {
					const uint32_t even = (w[h] & 0xffffu) | w[h + 1] << 16;

					w[h + 1] = w[h] >> 16 | (w[h + 1] & 0xffff0000u);
					w[h] = even;
				}
			}
			if (i < n_pieces)
				cols.data[(size_t)row * cols.col_stride + i] = make_uint4(w[0], w[1], w[2], w[3]);
			if (F::MINS && i < (n_pieces + 31) / 32 * 32) {
				float sum = 0.0f;

#pragma unroll
				for (int h = 0; h < 4; h++)
					sum += gpu_bf16_low(w[h]) + gpu_bf16_high(w[h]);
				few_put_sums(cols, row, i, sum, 0.0f);
			}
		}
	}
}

/* few_make_columns() and few_move_columns() for GK_FP8_WIDE: eight columns of a piece lie side by side. */
GPU_FN float few_wide_columns(const few_args &a, const few_columns &cols, uint32_t row)
{
	enum { AT_ONCE = 2, MOVED_AT_ONCE = 3 };
	const uint32_t n_pieces = cols.n_chunks * 4, n_cols = a.job[0].w.cols;
	float square = 0.0f;

	for (uint32_t base = threadIdx.x; a.move && base < n_pieces; base += MOVED_AT_ONCE * FEW_THREADS) {
		uint4 v[MOVED_AT_ONCE];

#pragma unroll
		for (uint32_t b = 0; b < MOVED_AT_ONCE; b++) {
			const uint32_t i = base + b * FEW_THREADS, k = gk_column(3, i >> 2, i & 3, 0);

			v[b] = i < n_pieces && k + 8 <= n_cols
			               ? *(const uint4 *)((const uint16_t *)a.x.p + (size_t)row * a.x.ld + k)
			               : make_uint4(0, 0, 0, 0);
		}
#pragma unroll
		for (uint32_t b = 0; b < MOVED_AT_ONCE; b++) {
			const uint32_t i = base + b * FEW_THREADS;
			uint32_t w[4] = { v[b].x, v[b].y, v[b].z, v[b].w };

#pragma unroll
			for (int j = 0; j < 4; j++)
				w[j] = few_pack_wide(gpu_bf16_low(w[j]) * (1.0f / FEW_WIDE_DOWN),
				                     gpu_bf16_high(w[j]) * (1.0f / FEW_WIDE_DOWN));
			if (i < n_pieces)
				cols.data[(size_t)row * cols.col_stride + i] = make_uint4(w[0], w[1], w[2], w[3]);
		}
	}
	for (uint32_t base = threadIdx.x; !a.move && base < n_pieces; base += AT_ONCE * FEW_THREADS) {
		float v[AT_ONCE][8], w[AT_ONCE][8];

#pragma unroll
		for (uint32_t b = 0; b < AT_ONCE; b++) {
			const uint32_t i = base + b * FEW_THREADS, k = gk_column(3, i >> 2, i & 3, 0);
			const bool whole = a.whole && k + 8 <= n_cols;

#pragma unroll
			for (int e = 0; e < 8; e++)
				v[b][e] = 0.0f, w[b][e] = 1.0f;
			if (i < n_pieces && k < n_cols) {
				gk_get8(a.x, row, k, n_cols, whole, v[b]);
				if (a.norm_w.p)
					gk_get8(a.norm_w, 0, k, n_cols, whole, w[b]);
			}
		}
#pragma unroll
		for (uint32_t b = 0; b < AT_ONCE; b++) {
			const uint32_t i = base + b * FEW_THREADS;

#pragma unroll
			for (int e = 0; e < 8; e++) {
				square += v[b][e] * v[b][e];
				v[b][e] *= w[b][e];
			}
			if (i < n_pieces)
				few_put_wide(cols, row, i, v[b]);
		}
	}
	return square;
}

/* x is whole, and its columns stay in their order. Returns this thread's part of the sum of squares. */
GPU_FN float few_ask_columns(const few_args &a, const few_columns &cols, uint32_t row)
{
	enum { AT_ONCE = 2 };
	const uint32_t n_pieces = cols.n_chunks * 4, n_cols = a.job[0].w.cols;
	float square = 0.0f;

	for (uint32_t base = threadIdx.x; base < n_pieces; base += AT_ONCE * FEW_THREADS) {
		float v[AT_ONCE][8], w[AT_ONCE][8];

#pragma unroll
		for (uint32_t b = 0; b < AT_ONCE; b++) {
			const uint32_t k = (base + b * FEW_THREADS) * 8;

#pragma unroll
			for (int e = 0; e < 8; e++)
				v[b][e] = 0.0f, w[b][e] = 1.0f;
			if (k < n_cols) {
				gk_get8(a.x, row, k, n_cols, k + 8 <= n_cols, v[b]);
				if (a.norm_w.p)
					gk_get8(a.norm_w, 0, k, n_cols, k + 8 <= n_cols, w[b]);
			}
		}
#pragma unroll
		for (uint32_t b = 0; b < AT_ONCE; b++) {
			const uint32_t i = base + b * FEW_THREADS;
			uint32_t high[4], low[4];

#pragma unroll
			for (int e = 0; e < 8; e++) {
				square += v[b][e] * v[b][e];
				v[b][e] *= w[b][e];
			}
#pragma unroll
			for (int j = 0; j < 4; j++) {
				high[j] = gpu_pack_bf16(v[b][2 * j], v[b][2 * j + 1]);
				low[j] = gpu_pack_bf16(v[b][2 * j] - gpu_bf16_low(high[j]),
				                       v[b][2 * j + 1] - gpu_bf16_high(high[j]));
			}
			if (i < n_pieces) {
				uint4 *to = cols.data + (size_t)row * cols.parts * cols.col_stride + i;

				*to = make_uint4(high[0], high[1], high[2], high[3]);
				if (cols.parts == 2)
					to[cols.col_stride] = make_uint4(low[0], low[1], low[2], low[3]);
			}
		}
	}
	return square;
}

#endif
