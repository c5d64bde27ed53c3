/* Products of many rows whose bits are those of few.h: what a row gives does not depend on how many there are.
 *
 * There a block's waves take the units of the sum in turn, each unit into the wave's own accumulators, and the waves'
 * results are added in groups (few_job.group_mask). Here all waves of a block work on the same unit, 128 rows of W
 * times 64 or 128 rows of x, and units come in the order of those waves: first all that the first one takes there (a
 * class of units), whose sum is then added to the total, and so on. Operands are the same pieces in the same places of
 * the same instructions, and scales are applied by the same lines, so every sum is made of the same terms in the same
 * order.
 *
 * blockIdx.z is a group of classes; with several of them, their totals go through memory and are added by a kernel of
 * their own (steady.cu). How many there are follows from the matrix and the device alone. */
#ifndef GPU_STEADY_H
#define GPU_STEADY_H

#include <errno.h>

#include "gpu/few.h"

enum {
	STEADY_THREADS = FEW_THREADS,
	STEADY_ROWS = 128, /* of W */
	STEADY_CHUNKS = 8, /* of 16 bytes: columns of a step */
	STEADY_FEATURE_WAVES = 2,
	STEADY_MOST_ROWS = 256, /* of x, in one launch */
};

struct steady_args {
	few_job job[2]; /* the second when gated */
	uint32_t act;
	bool gated;
	gk_view x;        /* bfloat16 in 16-byte steps, if cols.data is NULL */
	few_columns cols; /* one part */
	uint32_t n_rows, n_groups;
	void *image;  /* steady_sm90.h: x as it is in shared memory there */
	float *parts; /* several groups: total of group z, matrix g, row i of x at ((z * matrices + g) * n_rows + i) *
	                 w.rows */
};

/* Chunk of a row of a tile. Reading the four pieces of two rows, or one chunk of eight rows, meets every bank once. */
GPU_FN uint32_t steady_at(uint32_t row, uint32_t chunk)
{
	return row * STEADY_CHUNKS + (chunk ^ ((row & 1) << 2 | (row >> 1 & 3)));
}

/* Rows [row, row + 16) and chunks [chunk, chunk + 4) as lanes of few.h hold them. */
GPU_FN gpu_frag steady_frag(const uint4 *tile, uint32_t row, uint32_t chunk)
{
	gpu_frag f;

#pragma unroll
	for (int p = 0; p < GPU_PIECES; p++)
		f.p[p] = tile[steady_at(row + gpu_piece_row(p), chunk + ((uint32_t)gpu_piece_col(p) >> 3))];
	return f;
}

/* Sizes, in 16 bytes. */
template <uint32_t TYPE, int BN> struct steady_sizes {
	typedef gk_format<TYPE> F;
	enum {
		HALVES = TYPE == KN_F16 ? 2 : 1, /* binary16 is two bfloat16 */
		W = STEADY_ROWS * STEADY_CHUNKS,
		X = BN * STEADY_CHUNKS,
		SCALES = (int)F::SCALED == 0 ? 0 : STEADY_ROWS * (int)sizeof(typename F::scale) / 16,
		STAGE = HALVES * W + X + SCALES,
		STAGES = HALVES == 2 || (int)GPU_MOST_SHARED <= (64 << 10) ? 2 : 3,
		TOTAL = STAGES * STAGE,
	};
};

/* What follows a product, as at the end of few_kernel(); old: what is added up onto, or 0. */
GPU_FN void steady_put_onto(const steady_args &a, uint32_t i, uint32_t row, float y, float up, float old)
{
	const few_job &job = a.job[0];

	if (job.bias)
		y += job.bias[row];
	if (a.gated && a.job[1].bias)
		up += a.job[1].bias[row];
	gk_put(job.out, i, row, gpu_add(old, a.gated ? gk_act(a.act, y, up) : y));
}

GPU_FN void steady_put(const steady_args &a, uint32_t i, uint32_t row, float y, float up)
{
	steady_put_onto(a, i, row, y, up, a.job[0].accumulate ? gk_get(a.job[0].out, i, row) : 0.0f);
}

/* Units, class by class. */
template <int CLASSES, int PER_UNIT> struct steady_walk {
	uint32_t unit, cls, sub, n_units;

	__device__ __forceinline__ void begin(uint32_t first_class, uint32_t units)
	{
		unit = cls = first_class;
		sub = 0;
		n_units = units;
	}
	/* Whether the step is the last of its class. */
	__device__ __forceinline__ bool ends_class() const
	{
		return sub + 1 == PER_UNIT && unit + CLASSES >= n_units;
	}
	__device__ __forceinline__ void next()
	{
		if (PER_UNIT > 1 && ++sub < PER_UNIT)
			return;
		sub = 0;
		unit += CLASSES;
		if (unit >= n_units)
			unit = ++cls;
	}
};

template <uint32_t TYPE, int BN, bool GATED>
static __global__ void __launch_bounds__(STEADY_THREADS, BN == 64 ? 2 : 1) steady_kernel(GPU_PARAM steady_args a)
{
	typedef gk_format<TYPE> F;
	typedef steady_sizes<TYPE, BN> size;
	enum {
		WAVES = STEADY_THREADS / GPU_WAVE,
		TM = STEADY_ROWS / 16 / STEADY_FEATURE_WAVES,
		TN = BN / 16 / (WAVES / STEADY_FEATURE_WAVES),
		DIRECT = TYPE == KN_BF16,
		STAGES = size::STAGES,
		ITEMS = STEADY_ROWS * 4 / STEADY_THREADS, /* pieces of W that a thread turns */
		PER_UNIT = F::CHUNKS / 2,                 /* steps that a unit lasts */
		RAISED = (int)F::MINS != 0,
		SCALED = F::SCALED,
	};
	typedef steady_walk<WAVES, PER_UNIT> walk;
	GPU_DYN_SHARED(uint4, shared);
	const uint32_t wave = threadIdx.x / GPU_WAVE, wave_f = wave % STEADY_FEATURE_WAVES,
	               wave_t = wave / STEADY_FEATURE_WAVES;
	const gk_mat &shape = a.job[0].w;
	const uint32_t first = blockIdx.y * BN, left = a.n_rows - first, n_rows = left < BN ? left : (uint32_t)BN;
	const uint32_t row0 = blockIdx.x * (GATED ? STEADY_ROWS / 2 : STEADY_ROWS), last_row = shape.rows - 1;
	const uint32_t n_units = gk_n_units(shape), n_cols = shape.cols;
	const uint32_t n_classes = WAVES / gridDim.z, class0 = blockIdx.z * n_classes;
	uint32_t n_steps = 0;

	for (uint32_t c = class0; c < class0 + n_classes && c < n_units; c++)
		n_steps += ((n_units - c + WAVES - 1) / WAVES) * PER_UNIT;

	const auto stage = [&](uint32_t step) { return shared + step % STAGES * size::STAGE; };
	/* A row of the tile: which matrix, which row of it. */
	const auto matrix_row = [&](uint32_t r) {
		const uint32_t row = row0 + (GATED ? r / 32 * 16 + r % 16 : r);

		return row < last_row ? row : last_row;
	};
	const auto matrix_of = [&](uint32_t r) -> const gk_mat & { return a.job[GATED ? r / 16 & 1 : 0].w; };

	gpu_dependents_may_start();
	gpu_dependency_wait();

	/* What this thread copies: chunk c of every 32nd row. */
	enum { ROW_STEP = STEADY_THREADS / STEADY_CHUNKS, N_W = STEADY_ROWS / ROW_STEP, N_X = BN / ROW_STEP };
	const uint32_t c = threadIdx.x % STEADY_CHUNKS, r0 = threadIdx.x / STEADY_CHUNKS;
	const uint8_t *from_w[DIRECT ? N_W : 1], *from_x[N_X];
	walk ahead;

#pragma unroll
	for (int n = 0; DIRECT && n < N_W; n++) {
		const uint32_t r = r0 + n * ROW_STEP;

		from_w[DIRECT ? n : 0] =
		        (const uint8_t *)matrix_of(r).values + ((size_t)matrix_row(r) * shape.ld + c * 8) * 2;
	}
#pragma unroll
	for (int n = 0; n < N_X; n++) {
		const uint32_t r = r0 + n * ROW_STEP, row = first + (r < n_rows ? r : n_rows - 1);

		from_x[n] = a.cols.data ? (const uint8_t *)(a.cols.data + (size_t)row * a.cols.col_stride + c)
		                        : (const uint8_t *)((const gpu_bf16 *)a.x.p + (size_t)row * a.x.ld + c * 8);
	}
	ahead.begin(class0, n_units);

	/* The step at `ahead`, which moves on. */
	const auto copy = [&](uint32_t step) {
		uint4 *const to = stage(step);
		const uint32_t k = ahead.unit * F::UNIT + ahead.sub * 64;
		const int bytes = a.cols.data || k + c * 8 + 8 <= n_cols ? 16
		                  : k + c * 8 < n_cols                   ? (int)(n_cols - k - c * 8) * 2
		                                                         : 0;

		if (step < n_steps) {
#pragma unroll
			for (int n = 0; DIRECT && n < N_W; n++)
				gpu_copy16(to + steady_at(r0 + n * ROW_STEP, c), from_w[DIRECT ? n : 0] + (size_t)k * 2,
				           16);
#pragma unroll
			for (int n = 0; n < N_X; n++)
				gpu_copy16(to + size::HALVES * size::W + steady_at(r0 + n * ROW_STEP, c),
				           from_x[n] + (bytes ? (size_t)k * 2 : 0), bytes);
			ahead.next();
		}
		gpu_copy_commit();
	};

	/* Other types go through registers: a unit is loaded one step before it is put. */
	typename F::raw raw[ITEMS];
	typename F::scale scale[ITEMS];
	walk loads, puts;

	loads.begin(class0, n_units);
	puts.begin(class0, n_units);

	const auto load_raw = [&](uint32_t step) {
		if (step >= n_steps)
			return;
		if (loads.sub == 0) {
#pragma unroll
			for (int i = 0; i < ITEMS; i++) {
				const uint32_t item = threadIdx.x + i * STEADY_THREADS, r = item >> 2;

				F::fetch(raw[i], F::where(matrix_of(r), matrix_row(r), item & 3, n_units), loads.unit);
				if (SCALED != 0)
					F::fetch_scale(scale[i], F::scale_where(matrix_of(r), matrix_row(r), n_units),
					               loads.unit);
			}
		}
		loads.next();
	};
	const auto put_raw = [&](uint32_t step) {
		uint4 *const tile = stage(step);
		typename F::scale *const scales = (typename F::scale *)(tile + size::HALVES * size::W + size::X);

		if (step >= n_steps)
			return;
#pragma unroll
		for (int i = 0; i < ITEMS; i++) {
			const uint32_t item = threadIdx.x + i * STEADY_THREADS, r = item >> 2, t = item & 3;

#pragma unroll
			for (int h = 0; h < 2; h++) {
				uint4 *const to = tile + steady_at(r, 4 * h + t);

				if (PER_UNIT > 1 && GPU_CHOOSE_OPERANDS)
					*to = few_unpack<RAISED, F>::piece(raw[i],
					                                   PER_UNIT == 1 ? 0 : h + 2 * (int)puts.sub);
				else if (PER_UNIT == 1 || puts.sub == 0)
					*to = few_unpack<RAISED, F>::piece(raw[i], h);
				else
					*to = few_unpack<RAISED, F>::piece(raw[i], PER_UNIT == 1 ? 0 : h + 2);
				if (size::HALVES == 2)
					to[size::W] = few_rest<TYPE, F>::piece(raw[i], h);
			}
			if (SCALED != 0 && t == 0)
				scales[r] = scale[i];
		}
		puts.next();
	};

	gpu_acc acc[TM][TN], total[TM][TN];
	walk now;

#pragma unroll
	for (int m = 0; m < TM; m++) {
#pragma unroll
		for (int n = 0; n < TN; n++)
			acc[m][n] = total[m][n] = gpu_acc_zero();
	}
	now.begin(class0, n_units);
	for (uint32_t s = 0; s < STAGES - 1; s++) {
		if (!DIRECT) {
			load_raw(s);
			put_raw(s);
		}
		copy(s);
	}
	if (!DIRECT)
		load_raw(STAGES - 1);
	for (uint32_t step = 0; step < n_steps; step++) {
		const uint4 *const tile_w = stage(step), *const tile_x = tile_w + size::HALVES * size::W;
		const typename F::scale *const scales = (const typename F::scale *)(tile_x + size::X);

		gpu_copy_wait<STAGES - 2>();
		__syncthreads(); /* this step's tiles are there, and nobody reads the ones that are filled next */
		copy(step + STAGES - 1);
		if (!DIRECT) {
			put_raw(step + STAGES - 1);
			load_raw(step + STAGES);
		}

		gpu_frag x[2][TN];
		float sums[2][TN][GPU_ACC];

#pragma unroll
		for (int h = 0; h < 2; h++) {
#pragma unroll
			for (int n = 0; n < TN; n++) {
				x[h][n] = steady_frag(tile_x, (wave_t * TN + n) * 16, 4 * h);
#pragma unroll
				for (int i = 0; F::MINS && i < GPU_ACC; i++) {
					const uint32_t col = (wave_t * TN + n) * 16 + gpu_acc_col(i);

					sums[h][n][i] = a.cols.sums[(size_t)(first + (col < n_rows ? col : 0)) *
					                                    a.cols.n_chunks +
					                            now.unit * F::CHUNKS + now.sub * 2 + h];
				}
			}
		}
#pragma unroll
		for (int m = 0; m < TM; m++) {
			const uint32_t r = (wave_f * TM + m) * 16;
			gpu_acc part[TN];

#pragma unroll
			for (int h = 0; h < 2; h++) {
				gpu_hold();

				const gpu_frag w = steady_frag(tile_w, r, 4 * h);
				float d[GPU_ACC_ROWS], low[GPU_ACC_ROWS];
				const auto add_scaled = [&](int half) {
#pragma unroll
					for (int s = 0; s < GPU_ACC_ROWS; s++)
						F::get_scale(scales[r + gpu_slot_row(s)], now.unit,
						             (int)now.sub * 2 + h, half, &d[s], &low[s]);
					few_add_scaled<F, TN>(acc[m], part, d, low, sums[h]);
				};

				if (SCALED == 0) {
#pragma unroll
					for (int n = 0; n < TN; n++)
						gpu_mma<false>(acc[m][n], w, x[h][n]);
					if (size::HALVES == 2) {
						const gpu_frag rest =
						        steady_frag(tile_w + (size::HALVES - 1) * size::W, r, 4 * h);

#pragma unroll
						for (int n = 0; n < TN; n++)
							gpu_mma<false>(acc[m][n], rest, x[h][n]);
					}
					continue;
				}
				if (SCALED != 3 || h == 0) {
#pragma unroll
					for (int n = 0; n < TN; n++) {
#pragma unroll
						for (int i = 0; i < GPU_ACC; i++)
							part[n].v[i] =
							        RAISED ? -(float)GK_RAISED * sums[h][n][i] : 0.0f;
					}
				}
				if (SCALED == 2) {
#pragma unroll
					for (int n = 0; n < TN; n++)
						gpu_mma_half<0, false>(part[n], w, x[h][n]);
					add_scaled(0);
#pragma unroll
					for (int n = 0; n < TN; n++) {
						part[n] = gpu_acc_zero();
						gpu_mma_half<1, false>(part[n], w, x[h][n]);
					}
					add_scaled(1);
				} else {
#pragma unroll
					for (int n = 0; n < TN; n++)
						gpu_mma<false>(part[n], w, x[h][n]);
					if (SCALED == 1 || h == 1)
						add_scaled(0);
				}
			}
		}
		if (now.ends_class()) {
#pragma unroll
			for (int m = 0; m < TM; m++) {
#pragma unroll
				for (int n = 0; n < TN; n++) {
#pragma unroll
					for (int i = 0; i < GPU_ACC; i++)
						total[m][n].v[i] += acc[m][n].v[i];
					acc[m][n] = gpu_acc_zero();
				}
			}
		}
		now.next();
	}

#pragma unroll
	for (int m = 0; m < TM; m += GATED ? 2 : 1) {
#pragma unroll
		for (int n = 0; n < TN; n++) {
			GPU_EACH_RESULT
			for (int i = 0; i < GPU_ACC; i++) {
				const uint32_t r =
				        (GATED ? (wave_f * TM + m) / 2 * 16 : (wave_f * TM + m) * 16) + gpu_acc_row(i);
				const uint32_t row = row0 + r, col = (wave_t * TN + n) * 16 + gpu_acc_col(i);
				const float y = gpu_acc_at(total[m][n], i),
				            up = gpu_acc_at(total[GATED ? m + 1 : m][n], i);

				if (row > last_row || col >= n_rows)
					continue;
				if (a.parts) {
					float *const to = a.parts +
					                  ((size_t)blockIdx.z * (GATED ? 2 : 1) * a.n_rows + first +
					                   col) * shape.rows +
					                  row;

					to[0] = y;
					if (GATED)
						to[(size_t)a.n_rows * shape.rows] = up;
				} else {
					steady_put(a, first + col, row, y, up);
				}
			}
		}
	}
}

struct steady_launch {
	const gk_ctx *ctx;
	const steady_args *args;
	bool wide;   /* tiles of 128 rows of x instead of 64 */
	size_t room; /* bytes of args->image */
};
/* -ENOTSUP: not a type of this file; -E2BIG: a block has not the memory for it. */
int steady_launch_16bit(uint32_t type, const steady_launch &l);
int steady_launch_blocks(uint32_t type, const steady_launch &l);
int steady_launch_k(uint32_t type, const steady_launch &l);
/* The same on Hopper's own instructions (steady_sm90.h); the groups add up their sums by themselves. */
int steady_launch_sm90(uint32_t type, const steady_launch &l);

template <uint32_t TYPE, int BN, bool GATED> static inline int steady_launch_one(const steady_launch &l)
{
	const uint32_t per_tile = GATED ? STEADY_ROWS / 2 : STEADY_ROWS;
	const size_t shared = (size_t)steady_sizes<TYPE, BN>::TOTAL * sizeof(uint4);

	if (shared + 1024 > l.ctx->smem_bytes)
		return -E2BIG;
	gpu_launch(steady_kernel<TYPE, BN, GATED>,
	           dim3((l.args->job[0].w.rows + per_tile - 1) / per_tile, (l.args->n_rows + BN - 1) / BN,
	                l.args->n_groups),
	           dim3(STEADY_THREADS), shared, l.ctx->stream, l.ctx->overlap, *l.args);
	return 0;
}

/* BN: 128, or 64 for types that are bound by unpacking rather than by reading x. */
template <uint32_t TYPE, int BN> static inline int steady_launch_type(const steady_launch &l)
{
	int r = -E2BIG;

	if (BN == 128 && l.wide)
		r = l.args->gated ? steady_launch_one<TYPE, BN, true>(l) : steady_launch_one<TYPE, BN, false>(l);
	if (r == -E2BIG)
		r = l.args->gated ? steady_launch_one<TYPE, 64, true>(l) : steady_launch_one<TYPE, 64, false>(l);
	return r;
}

#endif
