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

#include "gpu/few_columns.h"

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

		gpu_hold();
		few_operands(lane, chunk, x);
		if (F::MINS) {
#pragma unroll
			for (int nb = 0; nb < NB; nb++) {
#pragma unroll
				for (int i = 0; i < GPU_ACC; i++)
					sums[nb][i] = !NARROW || i < GPU_ACC_NARROW ? lane.sums[nb][i][chunk] : 0.0f;
			}
		}
#pragma unroll
		for (int r = 0; r < RT; r++) {
			gpu_frag w;

			gpu_hold();
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
 * (eight waves do not keep up), and to let the next kernel begin only when a block has asked for its last weights.
 * gfx11 has every row twice in a wave's registers, so half as many units. */
template <class F, int NT, int RT> struct few_depth {
	enum {
		MOST = (int)F::SCALED == 0   ? 4 / RT
		       : (int)F::UNIT == 128 ? 2 / RT
		                             : 4 / RT,
		U = GPU_MMA_WMMA == 11 && MOST > 1 ? MOST / 2 : MOST,
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
