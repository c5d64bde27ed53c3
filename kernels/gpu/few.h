/* Products of few rows with large matrices: every weight is read once, straight into the registers from which matrix
 * units take it; the rows, rounded to bfloat16 (in two parts where that costs nothing), stay near.
 *
 * A block makes RT tiles of 16 rows of W times all columns (rows of x), then the next ones, its first loads for those
 * being under way before the last sums are made; its waves take the units of the sum in turn, and their results are
 * added in shared memory in order of wave, so that the bits do not depend on how many rows there are. Gated: the two
 * tiles are the same rows of two matrices, and the activation is applied at once. The first loads of weights go out
 * before the kernel waits for its predecessor; registers and shared memory leave room for the next kernel's blocks to
 * do the same. */
#ifndef GPU_FEW_H
#define GPU_FEW_H

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

/* Makes the columns of one row; all threads of the block. Returns this thread's part of the sum of squares. */
GPU_FN float few_make_columns(const few_columns &cols, uint32_t order, uint32_t index, const gk_view &x, uint32_t row,
                              uint32_t n_cols, const gk_view &norm_w, bool whole)
{
	const uint32_t n_pieces = cols.n_chunks * 4;
	float square = 0.0f;

	for (uint32_t base = 0; base < n_pieces; base += blockDim.x) {
		const uint32_t i = base + threadIdx.x, chunk = i >> 2, t = i & 3;
		const uint32_t k0 = gk_column(order, chunk, t, 0), k1 = gk_column(order, chunk, t, 4);
		float v[8] = { 0, 0, 0, 0, 0, 0, 0, 0 }, w[8], sum_high = 0.0f, sum_low = 0.0f;
		uint32_t high[4], low[4];

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
			const size_t at = (size_t)index * cols.parts * cols.col_stride + i;

			cols.data[at] = make_uint4(high[0], high[1], high[2], high[3]);
			if (cols.parts == 2)
				cols.data[at + cols.col_stride] = make_uint4(low[0], low[1], low[2], low[3]);
		}
		if (cols.sums) {
			sum_high += gpu_shfl_xor(sum_high, 1);
			sum_high += gpu_shfl_xor(sum_high, 2);
			sum_low += gpu_shfl_xor(sum_low, 1);
			sum_low += gpu_shfl_xor(sum_low, 2);
			if (i < n_pieces && t == 0) {
				float *to = cols.sums + (size_t)index * cols.parts * cols.n_chunks + chunk;

				to[0] = sum_high;
				if (cols.parts == 2)
					to[cols.n_chunks] = sum_low;
			}
		}
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
		asm volatile("prefetch.global.L2 [%0];" ::"l"(w + k));
#else
	(void)a;
#endif
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

/* ---- One unit -------------------------------------------------------------------------------------------------- */

template <class F, int NB> struct few_lane {
	/* Operands of x: where this lane's pieces begin, and whether that column exists. */
	const uint4 *col[NB][GPU_PIECES];
	uint32_t exists; /* bit nb * GPU_PIECES + p */
	/* For types with minimums: the sums of the columns of this lane's results. */
	const float *sums[NB][GPU_ACC];
};

template <class F, int NB> GPU_FN void few_operands(const few_lane<F, NB> &lane, uint32_t chunk, gpu_frag *ret)
{
#pragma unroll
	for (int nb = 0; nb < NB; nb++) {
#pragma unroll
		for (int p = 0; p < GPU_PIECES; p++)
			ret[nb].p[p] = lane.exists >> (nb * GPU_PIECES + p) & 1 ? lane.col[nb][p][chunk * 4]
			                                                        : make_uint4(0, 0, 0, 0);
	}
}

/* What a lane has under way of one unit of one tile. */
template <class F> struct few_raw {
	typename F::raw v[GPU_PIECES];
	typename F::scale s[(int)F::SCALED == 0 || (int)F::SCALE_ROW == 0 ? 1 : GPU_ACC_ROWS];
};

/* Where a lane's part of a tile begins. */
template <class F> struct few_at {
	gk_at at;
	const uint8_t *scale;
	uint32_t step8_values, step8_high, step8_scale;
};

template <class F> GPU_FN few_at<F> few_point(const gk_mat &w, uint32_t row0, uint32_t n_units)
{
	few_at<F> a;

	a.at = F::where(w, row0 + gpu_piece_row(0), (uint32_t)gpu_piece_col(0) >> 3, n_units);
	a.scale = F::scale_where(w, row0 + ((int)F::SCALE_ROW ? gpu_slot_row(0) : 0), n_units);
	a.step8_values = F::step8_values(w, n_units);
	a.step8_high = F::step8_high(n_units);
	a.step8_scale = F::step8_scale(n_units);
	return a;
}

template <class F> GPU_FN void few_load(few_raw<F> &r, const few_at<F> &a, uint32_t unit)
{
#pragma unroll
	for (int p = 0; p < GPU_PIECES; p++) {
		gk_at at = a.at;

		at.values += GPU_PIECES_BY_ROW ? p * a.step8_values : p * 16;
		at.high += GPU_PIECES_BY_ROW ? p * a.step8_high : p * (int)F::HIGH_LANE;
		F::fetch(r.v[p], at, unit);
	}
	if ((int)F::SCALED != 0) {
#pragma unroll
		for (int s = 0; s < ((int)F::SCALE_ROW ? GPU_ACC_ROWS : 1); s++) {
			const uint32_t down = (uint32_t)(gpu_slot_step(s) >> 3),
			               along = (uint32_t)(gpu_slot_step(s) & 7);

			F::fetch_scale(r.s[s], a.scale + down * a.step8_scale + along * F::SCALE_ROW, unit);
		}
	}
}

/* acc += d * part - m * sums, d and m by slot of rows; rounded as it says here, wherever it stands. */
template <class F, int NB>
GPU_FN void few_add_scaled(gpu_acc *acc, const gpu_acc *part, const float *d, const float *m,
                           const float (*sums)[GPU_ACC])
{
#pragma unroll
	for (int nb = 0; nb < NB; nb++) {
#pragma unroll
		for (int i = 0; i < GPU_ACC; i++) {
			acc[nb].v[i] = fmaf(d[gpu_acc_slot(i)], part[nb].v[i], acc[nb].v[i]);
			if (F::MINS)
				acc[nb].v[i] = fmaf(-m[gpu_acc_slot(i)], sums[nb][i], acc[nb].v[i]);
		}
	}
}

template <class F, int NB>
GPU_FN void few_scale(gpu_acc *acc, const gpu_acc *part, const few_raw<F> &r, uint32_t unit, int c, int half,
                      const float (*sums)[GPU_ACC])
{
	float d[GPU_ACC_ROWS], m[GPU_ACC_ROWS];

#pragma unroll
	for (int s = 0; s < GPU_ACC_ROWS; s++)
		F::get_scale(r.s[(int)F::SCALE_ROW ? s : 0], unit, c, half, &d[s], &m[s]);
	few_add_scaled<F, NB>(acc, part, d, m, sums);
}

template <bool RAISED, class F> struct few_unpack {
	static __device__ __forceinline__ uint4 piece(const typename F::raw &r, int c)
	{
		return F::piece(r, c);
	}
};
template <class F> struct few_unpack<true, F> {
	static __device__ __forceinline__ uint4 piece(const typename F::raw &r, int c)
	{
		return F::raised(r, c);
	}
};

template <uint32_t TYPE, class F> struct few_rest {
	static __device__ __forceinline__ uint4 piece(const typename F::raw &, int)
	{
		return make_uint4(0, 0, 0, 0);
	}
};
template <class F> struct few_rest<KN_F16, F> {
	static __device__ __forceinline__ uint4 piece(const typename F::raw &r, int c)
	{
		return F::piece_rest(r, c);
	}
};

template <uint32_t TYPE, class F, int NB, bool NARROW, int RT>
GPU_FN void few_unit(gpu_acc (*acc)[NB], const few_raw<F> *raw, const few_lane<F, NB> &lane, uint32_t unit)
{
	/* Unpacked the short way where sums are there to make up for it. */
	enum { RAISED = (int)F::MINS != 0, WIDENED = (int)F::ORDER == 3 };
	gpu_acc part[RT][NB];

#pragma unroll
	for (int c = 0; c < F::CHUNKS; c++) {
		const uint32_t chunk = unit * F::CHUNKS + c;
		gpu_frag x[NB];
		float sums[NB][GPU_ACC];

		few_operands(lane, chunk, x);
		if (F::MINS) {
#pragma unroll
			for (int nb = 0; nb < NB; nb++) {
#pragma unroll
				for (int i = 0; i < GPU_ACC; i++)
					sums[nb][i] = !NARROW || GPU_ROW_LANES == 16 || i < GPU_ACC / 2
					                      ? lane.sums[nb][i][chunk]
					                      : 0.0f;
			}
		}
#pragma unroll
		for (int r = 0; r < RT; r++) {
			gpu_frag w;

#pragma unroll
			for (int p = 0; p < GPU_PIECES; p++)
				w.p[p] = few_unpack<RAISED, F>::piece(raw[r].v[p], c);
			if (F::SCALED == 0) {
#pragma unroll
				for (int nb = 0; nb < NB; nb++)
					gpu_mma<NARROW>(acc[r][nb], w, x[nb]);
				if (TYPE == KN_F16) {
					gpu_frag rest;

#pragma unroll
					for (int p = 0; p < GPU_PIECES; p++)
						rest.p[p] = few_rest<TYPE, F>::piece(raw[r].v[p], c);
#pragma unroll
					for (int nb = 0; nb < NB; nb++)
						gpu_mma<NARROW>(acc[r][nb], rest, x[nb]);
				}
				continue;
			}
			if (F::SCALED != 3 || c == 0) {
#pragma unroll
				for (int nb = 0; nb < NB; nb++) {
#pragma unroll
					for (int i = 0; i < GPU_ACC; i++)
						part[r][nb].v[i] = RAISED ? -(float)GK_RAISED * sums[nb][i] : 0.0f;
				}
			}
			if (F::SCALED == 2) {
#pragma unroll
				for (int nb = 0; nb < NB; nb++)
					gpu_mma_half<0, NARROW>(part[r][nb], w, x[nb]);
				few_scale<F, NB>(acc[r], part[r], raw[r], unit, c, 0, sums);
#pragma unroll
				for (int nb = 0; nb < NB; nb++) {
					part[r][nb] = gpu_acc_zero();
					gpu_mma_half<1, NARROW>(part[r][nb], w, x[nb]);
				}
				few_scale<F, NB>(acc[r], part[r], raw[r], unit, c, 1, sums);
			} else {
#pragma unroll
				for (int nb = 0; nb < NB; nb++)
					gpu_mma<NARROW, WIDENED>(part[r][nb], w, x[nb]);
				if (F::SCALED == 1 || c == F::CHUNKS - 1)
					few_scale<F, NB>(acc[r], part[r], raw[r], unit, c, 0, sums);
			}
		}
	}
}

/* ---- The block -----------------------------------------------------------------------------------------------------
 */

/* Units under way, and blocks that a multiprocessor shall hold. 16 bits: 256 bytes of values a lane, which was faster
 * on an H100 than half of that with room for a third block; types that must be unpacked have no registers for it.
 * Asking for still more of the weights ahead (into the second-level cache) made it slower: the rows, which all blocks
 * wait for, come behind what was asked for before. So did one block, with room for one of the next kernel beside it
 * (eight waves do not keep up), and to let the next kernel begin only when a block has asked for its last weights. */
template <class F, int NT, int RT> struct few_depth {
	enum {
		U = (int)F::SCALED == 0   ? 4 / RT
		    : (int)F::UNIT == 128 ? 2 / RT
		                          : 4 / RT,
		BLOCKS = NT == 1   ? (RT == 2 || (int)F::SCALED == 0 ? 2 : 3)
		         : NT == 2 ? 2
		                   : 1,
	};
};

/* Widening takes few registers and little time: as much under way as for 16 bits, which is twice as many columns. */
template <int NT, int RT> struct few_depth<gk_format<GK_FP8_WIDE>, NT, RT> {
	enum { U = (NT == 1 ? 4 : 2) / RT, BLOCKS = 2 };
};

template <uint32_t TYPE, int NT, int RT>
static __global__ void __launch_bounds__(FEW_THREADS, GPU_BLOCKS((few_depth<gk_format<TYPE>, NT, RT>::BLOCKS),
                                                                 gk_is_k(TYPE))) few_kernel(GPU_PARAM few_args a)
{
	typedef gk_format<TYPE> F;
	enum {
		NB = (NT + 1) / 2,
		NARROW = NT == 1,
		U = few_depth<F, NT, RT>::U,
		NC = NARROW ? 8 : NB * 16,
		LINE = NC + 1,
		WAVES = FEW_THREADS / GPU_WAVE,
		WIDE = (int)F::ORDER == 3,
		OUT_ROWS = RT * FEW_TILE, /* gated: twice the rows that are written */
	};
	__shared__ float row_scale[GK_FEW_ROWS], squares[GK_FEW_ROWS][FEW_THREADS / 32];
	GPU_DYN_SHARED(float, shared);
	float *const sums = shared;
	const uint32_t wave = threadIdx.x / GPU_WAVE;
	const bool gated = RT == 2 && a.gated;
	const uint32_t n = a.n_rows, n_cols = n * a.cols.parts;

	/* Tile -> job; rows [row0, ..) of its matrix. Gated: of both. */
	auto job_of = [&](uint32_t tile) {
		uint32_t j = 0;

		while (!gated && j + 1 < a.n_jobs && tile >= a.job[j + 1].first_tile)
			j++;
		return j;
	};
	auto row_of = [&](uint32_t tile, uint32_t j) {
		return (tile - a.job[j].first_tile) * FEW_TILE * (gated ? 1 : RT);
	};
	const gk_mat &shape = a.job[0].w;
	const uint32_t n_units = (shape.cols + F::UNIT - 1) / F::UNIT,
	               n_steps = (n_units + U * WAVES - 1) / (U * WAVES);
	few_raw<F> raw[U][RT];
	few_at<F> at[RT];

	auto point = [&](uint32_t tile) {
		const uint32_t j = job_of(tile), row0 = row_of(tile, j);
		const gk_mat &w = a.job[j].w;

		at[0] = few_point<F>(w, row0, n_units);
		if (RT == 2) {
			if (gated)
				at[RT - 1] = few_point<F>(a.job[1].w, row0, n_units);
			else
				at[RT - 1] = few_point<F>(w, row0 + FEW_TILE, n_units);
		}
	};
	auto load = [&](int u, uint32_t unit) {
		if (unit < n_units) {
#pragma unroll
			for (int r = 0; r < RT; r++)
				few_load<F>(raw[u][r], at[r], unit);
		}
	};

	few_columns cols = a.cols;
	uint32_t tile = blockIdx.x;

	point(tile);
#pragma unroll
	for (int u = 0; u < U; u++)
		load(u, wave + u * WAVES);
	if (!cols.data && a.norm_w.p)
		few_prefetch_norm(a);
	gpu_dependents_may_start();
	gpu_dependency_wait();
	if (!cols.data) {
		cols.data = (uint4 *)(shared + WAVES * OUT_ROWS * LINE);
		cols.sums = F::MINS ? (float *)(cols.data + (size_t)n_cols * cols.col_stride) : nullptr;
		for (uint32_t i = 0; i < n; i++) {
			float square;

			if (a.move && !WIDE) {
				few_move_columns<F>(a, cols, i);
				continue;
			}
			square = WIDE ? few_wide_columns(a, cols, i)
			         : (int)F::ORDER == 0 && a.whole
			                 ? few_ask_columns(a, cols, i)
			                 : few_make_columns(cols, F::ORDER, i, a.x, i, shape.cols, a.norm_w, a.whole);
			if (a.norm) {
				square = gpu_group_sum(square);
				if ((threadIdx.x & 31) == 0)
					squares[i][threadIdx.x >> 5] = square;
			}
		}
		__syncthreads();
		if (WIDE && !a.norm && threadIdx.x < n)
			row_scale[threadIdx.x] = (float)FEW_WIDE_DOWN;
		if (a.norm && threadIdx.x < n) { /* seen behind the next barrier */
			float square = 0.0f;

#pragma unroll
			for (int g = 0; g < FEW_THREADS / 32; g++)
				square += squares[threadIdx.x][g];
			row_scale[threadIdx.x] =
			        (WIDE ? (float)FEW_WIDE_DOWN : 1.0f) / sqrtf(square / (float)shape.cols + a.eps);
		}
	} else if ((a.norm || WIDE) && threadIdx.x < n) {
		row_scale[threadIdx.x] =
		        (WIDE ? (float)FEW_WIDE_DOWN : 1.0f) * (a.norm ? cols.scale[threadIdx.x] : 1.0f);
	}

	few_lane<F, NB> lane;

	lane.exists = 0;
#pragma unroll
	for (int nb = 0; nb < NB; nb++) {
#pragma unroll
		for (int p = 0; p < GPU_PIECES; p++) {
			const uint32_t col = nb * 16 + gpu_piece_row(p);
			const bool exists = col < n_cols;

			lane.col[nb][p] =
			        cols.data + (size_t)(exists ? col : 0) * cols.col_stride + (gpu_piece_col(p) >> 3);
			lane.exists |= (uint32_t)exists << (nb * GPU_PIECES + p);
		}
#pragma unroll
		for (int i = 0; F::MINS && i < GPU_ACC; i++) { /* results of columns that are not there go nowhere */
			const uint32_t col = nb * 16 + gpu_acc_col(i);

			lane.sums[nb][i] = cols.sums + (size_t)(col < n_cols ? col : 0) * cols.n_chunks;
		}
	}
	for (;;) {
		const uint32_t j = job_of(tile), row0 = row_of(tile, j),
		               n_out = gated ? (uint32_t)FEW_TILE : (uint32_t)OUT_ROWS;
		const few_job &job = a.job[j];
		float old = 0.0f;
		gpu_acc acc[RT][NB];
		bool more;

		/* What this thread adds its first result to has come until then. */
		if (job.accumulate && threadIdx.x < n_out * n && row0 + threadIdx.x % n_out < job.w.rows)
			old = gk_get(job.out, threadIdx.x / n_out, row0 + threadIdx.x % n_out);
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

		/* Sums of the waves, in their order. */
#pragma unroll
		for (int r = 0; r < RT; r++) {
#pragma unroll
			for (int nb = 0; nb < NB; nb++) {
#pragma unroll
				for (int i = 0; i < GPU_ACC; i++) {
					const int col = nb * 16 + gpu_acc_col(i);

					if (col < NC)
						sums[((wave * RT + r) * FEW_TILE + gpu_acc_row(i)) * LINE + col] =
						        acc[r][nb].v[i];
				}
			}
		}
		__syncthreads();

		for (uint32_t i = threadIdx.x; i < n_out * n; i += FEW_THREADS) {
			const uint32_t r = i % n_out, m = i / n_out, row = row0 + r;
			float y[2] = { 0.0f, 0.0f };

			if (row >= job.w.rows)
				continue;
			if (job.accumulate && i != threadIdx.x)
				old = gk_get(job.out, m, row);
#pragma unroll
			for (int g = 0; g < RT; g++) {
				const float *bias = a.job[gated ? g : j].bias;
				float group = 0.0f;

				if (g == 1 && !gated)
					break;
#pragma unroll
				for (uint32_t v = 0; v < WAVES; v++) {
					const float *s =
					        sums + ((size_t)(v * RT + g) * FEW_TILE + r) * LINE + m * cols.parts;

					group += cols.parts == 2 ? s[0] + s[1] * (WIDE ? 1.0f / FEW_WIDE_LOW : 1.0f)
					                         : s[0];
					if (((v + 1) & job.group_mask) == 0) {
						y[g] += group;
						group = 0.0f;
					}
				}
				if (a.norm || WIDE)
					y[g] *= row_scale[m];
				if (bias)
					y[g] += bias[row];
			}
			gk_put(job.out, m, row, gpu_add(old, gated ? gk_act(a.act, y[0], y[1]) : y[0]));
		}
		__syncthreads();
		if (!more)
			break;
	}
}

/* Shared memory of a block: the waves' sums, then columns and their sums if they are made here. */
static inline size_t few_shared_bytes(uint32_t n_cols, const few_columns &cols, bool made_here, bool mins, int nt,
                                      int rt)
{
	const size_t line = (nt == 1 ? 8 : (nt + 1) / 2 * 16) + 1;
	size_t bytes = (size_t)(FEW_THREADS / 32) * (size_t)rt * FEW_TILE * line * sizeof(float);

	if (made_here)
		bytes += (size_t)n_cols * cols.col_stride * 16 +
		         (mins ? (size_t)n_cols * cols.n_chunks * sizeof(float) : 0);
	return bytes;
}

/* One file for a few types each defines these; false: not its type. */
struct few_launch {
	const gk_ctx *ctx;
	const few_args *args;
	int nt, rt;
	size_t shared;
};
bool few_launch_16bit(uint32_t type, const few_launch &l);
bool few_launch_fp8(uint32_t type, const few_launch &l);
bool few_launch_blocks(uint32_t type, const few_launch &l);
bool few_launch_k(uint32_t type, const few_launch &l);

template <uint32_t TYPE, int NT, int RT> static inline void few_launch_one(const few_launch &l)
{
	/* As many blocks as the device holds at once, or fewer that all have the same number of tiles. */
	typedef few_depth<gk_format<TYPE>, NT, RT> depth;
	const uint32_t most = l.ctx->n_sm * depth::BLOCKS, n_tiles = l.args->n_tiles;
	const uint32_t rounds = (n_tiles + most - 1) / most;

	gpu_launch(few_kernel<TYPE, NT, RT>, dim3((n_tiles + rounds - 1) / rounds), dim3(FEW_THREADS), l.shared,
	           l.ctx->stream, l.ctx->overlap, *l.args);
}

/* Operands of x are 16 at most: GK_FEW_ROWS rows in one part, or four in two. */
template <uint32_t TYPE> static inline bool few_launch_type(const few_launch &l)
{
	if (l.nt == 1 && l.rt == 1)
		few_launch_one<TYPE, 1, 1>(l);
	else if (l.nt == 1)
		few_launch_one<TYPE, 1, 2>(l);
	else if (l.rt == 1)
		few_launch_one<TYPE, 2, 1>(l);
	else
		few_launch_one<TYPE, 2, 2>(l);
	return true;
}

#endif
