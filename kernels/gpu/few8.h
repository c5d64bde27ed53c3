/* Products of very few rows with matrices of Q4_0, Q4_K and Q8_0 by dot products of bytes, which take a third of the
 * instructions that making bfloat16 of the weights does (few.h).
 *
 * A row of x is, for each 32 columns, two bytes a value and a scale: x = d (h + l / 254), so that 15 bits of the
 * largest are kept, as two parts of bfloat16 keep 16. Everything else is as in few.h: 32 lanes take 8 rows of W and
 * four groups of columns, a block's eight such groups take units in turn, first loads go out before the kernel waits
 * for the one before. What a lane holds of 32 columns is 4 t .. 4 t + 3 and 16 + those (mat.h), in the order in which
 * bytes come out of its words.
 *
 * Taken where gk_ctx.bytes says so. */
#ifndef GPU_FEW8_H
#define GPU_FEW8_H

#include "gpu/few.h"

enum { FEW8_MOST_ROWS = 4, FEW8_PER_STEP = 254 };

/* a . b of four signed bytes, plus c. */
GPU_FN int few8_dot(uint32_t a, uint32_t b, int c)
{
#if GPU_PTX
	return __dp4a((int)a, (int)b, c);
#elif defined(GPU_HIP) && defined(__GFX9__)
	return __builtin_amdgcn_sdot4((int)a, (int)b, c, false);
#elif defined(GPU_HIP) && (defined(__GFX11__) || defined(__GFX12__))
	return __builtin_amdgcn_sudot4(true, (int)a, true, (int)b, c, false);
#else
	for (int i = 0; i < 32; i += 8)
		c += (int)(int8_t)(a >> i) * (int)(int8_t)(b >> i);
	return c;
#endif
}

/* One lane's part of a chunk of a row of x: bytes h and l in the order of the words of W; d / 254, and the sum of
 * 254 h + l. */
struct few8_x {
	uint4 bytes;
	float d;
	int sum;
};

/* Order of a lane's elements in a word of W, four bits each: which element the byte is. */
template <uint32_t TYPE> struct few8_format {
	enum { FIRST = 0x5140, SECOND = 0x7362, ZERO = TYPE == KN_Q4_0 ? 8 : 0 };
	typedef gk_format<TYPE> F;
	/* The two words of chunk c. */
	static __device__ __forceinline__ void words(const typename F::raw &r, int c, uint32_t *ret)
	{
		const uint32_t v = c == 0 ? r.v.x : c == 1 ? r.v.y : c == 2 ? r.v.z : r.v.w;

		ret[0] = v & 0x0f0f0f0fu;
		ret[1] = v >> 4 & 0x0f0f0f0fu;
	}
};
template <> struct few8_format<KN_Q8_0> {
	enum { FIRST = 0x3120, SECOND = 0x7564, ZERO = 0 };
	typedef gk_format<KN_Q8_0> F;
	static __device__ __forceinline__ void words(const F::raw &r, int c, uint32_t *ret)
	{
		ret[0] = c ? r.v.z : r.v.x;
		ret[1] = c ? r.v.w : r.v.y;
	}
};

/* Makes one row of x; all threads of the block. Returns this thread's part of the sum of squares. */
template <uint32_t TYPE> GPU_FN float few8_make_row(few8_x *to, const few_args &a, uint32_t row)
{
	typedef few8_format<TYPE> format;
	const uint32_t n_cols = a.job[0].w.cols, n_pieces = a.cols.n_chunks * 4;
	float square = 0.0f;

	for (uint32_t base = 0; base < n_pieces; base += FEW_THREADS) {
		const uint32_t i = base + threadIdx.x, k0 = gk_column(1, i >> 2, i & 3, 0),
		               k1 = gk_column(1, i >> 2, i & 3, 4);
		float v[8] = { 0, 0, 0, 0, 0, 0, 0, 0 }, w[8], most = 0.0f, scale;
		uint32_t words[4] = { 0, 0, 0, 0 };
		int sum = 0;

		if (i < n_pieces) {
			gk_get4(a.x, row, k0, n_cols, a.whole, v);
			gk_get4(a.x, row, k1, n_cols, a.whole, v + 4);
			if (a.norm_w.p) {
				gk_get4(a.norm_w, 0, k0, n_cols, a.whole, w);
				gk_get4(a.norm_w, 0, k1, n_cols, a.whole, w + 4);
			}
		}
#pragma unroll
		for (int e = 0; e < 8; e++) {
			square += v[e] * v[e];
			if (a.norm_w.p)
				v[e] *= w[e];
			most = fmaxf(most, fabsf(v[e]));
		}
		most = fmaxf(most, gpu_shfl_xor(most, 1));
		most = fmaxf(most, gpu_shfl_xor(most, 2));
		scale = most > 0.0f ? 127.0f / most : 0.0f;
#pragma unroll
		for (int b = 0; b < 8; b++) {
			const int e = (b < 4 ? (int)format::FIRST : (int)format::SECOND) >> (b & 3) * 4 & 7;
			const float x = v[e] * scale, h = rintf(x), l = rintf((x - h) * (float)FEW8_PER_STEP);

			words[b >> 2] |= ((uint32_t)(int)h & 0xffu) << (b & 3) * 8;
			words[2 + (b >> 2)] |= ((uint32_t)(int)l & 0xffu) << (b & 3) * 8;
			sum += (int)h * FEW8_PER_STEP + (int)l;
		}
		if (i < n_pieces)
			to[i] = few8_x{ make_uint4(words[0], words[1], words[2], words[3]),
				        most * (1.0f / (127.0f * (float)FEW8_PER_STEP)), sum };
	}
	return square;
}

template <uint32_t TYPE> struct few8_depth {
	enum { U = (int)gk_format<TYPE>::UNIT == 128 ? 2 : 4 };
};

template <uint32_t TYPE, int NX, bool GATED>
static __global__ void __launch_bounds__(FEW_THREADS, NX == 4 ? 2 : 3) few8_kernel(GPU_PARAM few_args a)
{
	typedef gk_format<TYPE> F;
	typedef few8_format<TYPE> format;
	enum { U = few8_depth<TYPE>::U, GROUPS = FEW_THREADS / 32, OUT_ROWS = GATED ? 8 : 16 };
	__shared__ float sums[GROUPS][16][NX], squares[NX][GROUPS], row_scale[NX];
	GPU_DYN_SHARED(few8_x, x);
	const uint32_t lane = threadIdx.x & 31, group = threadIdx.x >> 5, g = lane >> 2, t = lane & 3;
	const uint32_t n_units = gk_n_units(a.job[0].w), n_steps = (n_units + U * GROUPS - 1) / (U * GROUPS);
	const uint32_t x_line = a.cols.n_chunks * 4;
	typename F::raw raw[U][2];
	typename F::scale scale[U][2];
	gk_at at[2];
	const uint8_t *scale_at[2];

	const auto job_of = [&](uint32_t tile) {
		uint32_t j = 0;

		while (!GATED && j + 1 < a.n_jobs && tile >= a.job[j + 1].first_tile)
			j++;
		return j;
	};
	const auto row_of = [&](uint32_t tile, uint32_t j) { return (tile - a.job[j].first_tile) * OUT_ROWS; };
	/* Packed rows come in eights; those beyond the last are there. */
	const auto point = [&](uint32_t tile) {
		const uint32_t j = job_of(tile), row0 = row_of(tile, j), blocks = (a.job[j].w.rows + 7) / 8;

#pragma unroll
		for (int r = 0; r < 2; r++) {
			const gk_mat &w = a.job[GATED ? r : j].w;
			const uint32_t block = row0 / 8 + (GATED ? 0 : r),
			               row = (block < blocks ? block : blocks - 1) * 8 + g;

			at[r] = F::where(w, row, t, n_units);
			scale_at[r] = F::scale_where(w, row, n_units);
		}
	};
	const auto load = [&](int u, uint32_t unit) {
		if (unit >= n_units)
			return;
#pragma unroll
		for (int r = 0; r < 2; r++) {
			F::fetch(raw[u][r], at[r], unit);
			F::fetch_scale(scale[u][r], scale_at[r], unit);
		}
	};

	uint32_t tile = blockIdx.x;

	point(tile);
#pragma unroll
	for (int u = 0; u < U; u++)
		load(u, group + u * GROUPS);
	if (a.norm_w.p)
		few_prefetch_norm(a);
	gpu_dependents_may_start();
	gpu_dependency_wait();
	for (uint32_t i = 0; i < a.n_rows; i++) {
		const float square = gpu_group_sum(few8_make_row<TYPE>(x + (size_t)i * x_line, a, i));

		if (lane == 0)
			squares[i][group] = square;
	}
	__syncthreads();
	if (threadIdx.x < a.n_rows) { /* seen behind the next barrier */
		float square = 0.0f;

#pragma unroll
		for (int i = 0; i < GROUPS; i++)
			square += squares[threadIdx.x][i];
		row_scale[threadIdx.x] = a.norm ? 1.0f / sqrtf(square / (float)a.job[0].w.cols + a.eps) : 1.0f;
	}

	for (bool more = true; more;) {
		const uint32_t j = job_of(tile), row0 = row_of(tile, j);
		const few_job &job = a.job[j];
		float acc[2][NX];

#pragma unroll
		for (int i = 0; i < NX; i++)
			acc[0][i] = acc[1][i] = 0.0f;
		tile += gridDim.x;
		more = tile < a.n_tiles;
		for (uint32_t step = 0; step < n_steps; step++) {
			const uint32_t base = step * U * GROUPS + group;
			const bool last = step + 1 == n_steps;

			if (last && more)
				point(tile);
#pragma unroll
			for (int u = 0; u < U; u++) {
				const uint32_t unit = base + u * GROUPS;

				if (unit < n_units) {
#pragma unroll
					for (int c = 0; c < F::CHUNKS; c++) {
						uint32_t w[2][2];
						float d[2], m[2];

#pragma unroll
						for (int r = 0; r < 2; r++) {
							format::words(raw[u][r], c, w[r]);
							F::get_scale(scale[u][r], unit, c, 0, &d[r], &m[r]);
						}
#pragma unroll
						for (int i = 0; i < NX; i++) {
							const few8_x v = x[(i < (int)a.n_rows ? i : 0) * x_line +
							                   (unit * F::CHUNKS + c) * 4 + t];

#pragma unroll
							for (int r = 0; r < 2; r++) {
								const int high =
								        few8_dot(w[r][1], v.bytes.y,
								                 few8_dot(w[r][0], v.bytes.x, 0));
								const int low =
								        few8_dot(w[r][1], v.bytes.w,
								                 few8_dot(w[r][0], v.bytes.z, 0));
								const int both = high * FEW8_PER_STEP + low -
								                 (int)format::ZERO * v.sum;

								acc[r][i] += d[r] * v.d * (float)both;
								if (F::MINS)
									acc[r][i] -= m[r] * v.d * (float)v.sum;
							}
						}
					}
				}
				if (!last)
					load(u, base + (u + U) * GROUPS);
				else if (more)
					load(u, group + u * GROUPS);
			}
		}
#pragma unroll
		for (int r = 0; r < 2; r++) {
#pragma unroll
			for (int i = 0; i < NX; i++) {
				float s = acc[r][i];

				s += gpu_shfl_xor(s, 1);
				s += gpu_shfl_xor(s, 2);
				if (t == 0)
					sums[group][r * 8 + g][i] = s;
			}
		}
		__syncthreads();
		for (uint32_t i = threadIdx.x; i < OUT_ROWS * a.n_rows; i += FEW_THREADS) {
			const uint32_t r = i % OUT_ROWS, n = i / OUT_ROWS, row = row0 + r;
			float y[2] = { 0.0f, 0.0f };

			if (row >= job.w.rows)
				continue;
#pragma unroll
			for (int side = 0; side < (GATED ? 2 : 1); side++) {
				const float *bias = a.job[GATED ? side : j].bias;

#pragma unroll
				for (int k = 0; k < GROUPS; k++)
					y[side] += sums[k][side * 8 + r][n];
				y[side] = y[side] * row_scale[n] + (bias ? bias[row] : 0.0f);
			}
			if (GATED)
				y[0] = gk_act(a.act, y[0], y[1]);
			gk_put(job.out, n, row, job.accumulate ? gk_get(job.out, n, row) + y[0] : y[0]);
		}
		__syncthreads();
	}
}

/* False, nothing launched: not a type of it, too many rows, or rows too long for a block's memory. args as for few.h,
 * but for the tiles. */
bool few8_launch(uint32_t type, const struct gk_ctx *ctx, few_args a);

#endif
