/* Products of one row with matrices of Q4_0, Q4_K and Q8_0 by dot products of bytes, which take a third of the
 * instructions that making bfloat16 of the weights does (few.h). Several rows are matrix units'.
 *
 * The row x is, for each 8 columns, an integer of 16 bits a value and a scale: 15 bits of the largest are
 * kept, as two parts of bfloat16 keep 16. Everything else is as in few.h: 32 lanes take 8 rows of W twice (gated:
 * of two matrices) and four groups of columns, a block's eight such groups take units in turn, first loads go out
 * before the kernel waits for the one before. What a lane holds of 32 columns is 4 t .. 4 t + 3 and 16 + those (mat.h),
 * in the order in which bytes come out of its words.
 *
 * Taken where gk_ctx.bytes says so. */
#ifndef GPU_FEW8_H
#define GPU_FEW8_H

#include "gpu/few.h"

enum { FEW8_BLOCKS = 2 /* of a multiprocessor */ };

/* Two signed halves times the first two (SECOND: the last two) signed bytes of b, plus c. */
template <bool SECOND> GPU_FN int few8_dot(uint32_t halves, uint32_t b, int c)
{
#if GPU_PTX
	return SECOND ? __dp2a_hi((int)halves, (int)b, c) : __dp2a_lo((int)halves, (int)b, c);
#else
	b >>= SECOND ? 16 : 0;
	return c + (int16_t)halves * (int8_t)b + (int16_t)(halves >> 16) * (int8_t)(b >> 8);
#endif
}

/* Four halves times four bytes. */
GPU_FN int few8_dot4(uint32_t first, uint32_t second, uint32_t b, int c)
{
	return few8_dot<true>(second, b, few8_dot<false>(first, b, c));
}

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

/* x in shared memory, in pieces of eight values, four for each chunk of 32 columns: integers of 16 bits in the order of
 * the words of W, and behind all of them, for each piece, their scale d and what its zero or minimum is multiplied by:
 * the integers' sum times the zero, as an integer, or times d. */
struct few8_row {
	uint4 *values;
	float2 *scales;
	uint32_t n_chunks;
};

static __host__ __device__ __forceinline__ size_t few8_row_bytes(uint32_t n_chunks)
{
	return (size_t)n_chunks * 4 * (sizeof(uint4) + sizeof(float2));
}

/* The lower halves of two words. */
GPU_FN uint32_t few8_low_halves(uint32_t a, uint32_t b)
{
#if GPU_PTX
	return __byte_perm(a, b, 0x5410);
#else
	return (a & 0xffffu) | b << 16;
#endif
}

/* Piece i of 8 values. All blocks wait for this, so it is made of few instructions: what is added to ROUND is rounded
 * to an integer, which its lower half then is. */
template <uint32_t TYPE> GPU_FN void few8_put(const few8_row &to, uint32_t i, const float *v)
{
	typedef few8_format<TYPE> format;
	const float ROUND = 12582912.0f /* 1.5 * 2^23 */, LEAST = 1e-30f, LARGEST = 32767.0f;
	const uint32_t ONES = 0x01010101u;
	uint32_t q[8], words[4];
	float most = 0.0f, scale, d;
	int sum = 0;

#pragma unroll
	for (int e = 0; e < 8; e++)
		most = fmaxf(most, fabsf(v[e]));
	scale = most > LEAST ? LARGEST * gpu_inverse(most) : 0.0f;
	d = most * (1.0f / LARGEST);
#pragma unroll
	for (int e = 0; e < 8; e++)
		q[e] = gpu_bits(fmaf(v[e], scale, ROUND));
#pragma unroll
	for (int w = 0; w < 4; w++) {
		const int order = (w < 2 ? (int)format::FIRST : (int)format::SECOND) >> (w & 1) * 8;

		words[w] = few8_low_halves(q[order & 7], q[order >> 4 & 7]);
		sum = few8_dot<false>(words[w], ONES, sum);
	}
	to.values[i] = make_uint4(words[0], words[1], words[2], words[3]);
	to.scales[i] =
	        make_float2(d, format::F::MINS ? d * (float)sum : gpu_float((uint32_t)(sum * -(int)format::ZERO)));
}

/* Makes the row; all threads of the block. Returns this thread's part of the sum of squares. */
template <uint32_t TYPE> GPU_FN float few8_make_row(const few8_row &to, const few_args &a)
{
	const uint32_t n_cols = a.job[0].w.cols, n_pieces = to.n_chunks * 4;
	float square = 0.0f;

#pragma unroll 1
	for (uint32_t i = threadIdx.x; i < n_pieces; i += FEW_THREADS) {
		float v[8], w[8];

#pragma unroll
		for (int e = 0; e < 8; e += 4) {
			const uint32_t k = gk_column(1, i >> 2, i & 3, e);

			gk_get4(a.x, 0, k, n_cols, a.whole, v + e);
			if (a.norm_w.p)
				gk_get4(a.norm_w, 0, k, n_cols, a.whole, w + e);
		}
#pragma unroll
		for (int e = 0; e < 8; e++) {
			square += v[e] * v[e];
			v[e] *= a.norm_w.p ? w[e] : 1.0f;
		}
		few8_put<TYPE>(to, i, v);
	}
	return square;
}

/* The same where x and the norm's weights are float32 and may be read four at a time: several pieces are asked for
 * before the first is used. */
template <uint32_t TYPE> GPU_FN float few8_ask_row(const few8_row &to, const few_args &a)
{
	enum { AT_ONCE = 2 };
	const uint32_t n_cols = a.job[0].w.cols, n_pieces = to.n_chunks * 4;
	const float *const p = (const float *)a.x.p, *const norm = (const float *)a.norm_w.p;
	float square = 0.0f;

#pragma unroll 1
	for (uint32_t base = threadIdx.x; base < n_pieces; base += AT_ONCE * FEW_THREADS) {
		float4 v[AT_ONCE][2], w[AT_ONCE][2];

#pragma unroll
		for (uint32_t b = 0; b < AT_ONCE; b++) {
			const uint32_t i = base + b * FEW_THREADS;

#pragma unroll
			for (int h = 0; h < 2; h++) {
				const uint32_t k = gk_column(1, i >> 2, i & 3, 4 * h);

				v[b][h] = make_float4(0.0f, 0.0f, 0.0f, 0.0f);
				w[b][h] = make_float4(1.0f, 1.0f, 1.0f, 1.0f);
				if (i < n_pieces && k < n_cols) {
					v[b][h] = *(const float4 *)(p + k);
					if (norm)
						w[b][h] = *(const float4 *)(norm + k);
				}
			}
		}
#pragma unroll
		for (uint32_t b = 0; b < AT_ONCE; b++) {
			const uint32_t i = base + b * FEW_THREADS;
			float x[8];

#pragma unroll
			for (int h = 0; h < 2; h++) {
				const float4 y = v[b][h], z = w[b][h];

				square += y.x * y.x + y.y * y.y + y.z * y.z + y.w * y.w;
				x[4 * h] = y.x * z.x, x[4 * h + 1] = y.y * z.y;
				x[4 * h + 2] = y.z * z.z, x[4 * h + 3] = y.w * z.w;
			}
			if (i < n_pieces)
				few8_put<TYPE>(to, i, x);
		}
	}
	return square;
}

/* The same where x is bfloat16, whole and not normed. */
template <uint32_t TYPE> GPU_FN void few8_move_row(const few8_row &to, const few_args &a)
{
	enum { AT_ONCE = 6 };
	const uint32_t n_cols = a.job[0].w.cols, n_pieces = to.n_chunks * 4;
	const uint16_t *p = (const uint16_t *)a.x.p;

#pragma unroll 1
	for (uint32_t base = threadIdx.x; base < n_pieces; base += AT_ONCE * FEW_THREADS) {
		uint2 raw[AT_ONCE][2];

#pragma unroll
		for (uint32_t b = 0; b < AT_ONCE; b++) {
			const uint32_t i = base + b * FEW_THREADS;

#pragma unroll
			for (int h = 0; h < 2; h++) {
				const uint32_t k = gk_column(1, i >> 2, i & 3, 4 * h);

				raw[b][h] =
				        i < n_pieces && k + 4 <= n_cols ? *(const uint2 *)(p + k) : make_uint2(0, 0);
			}
		}
#pragma unroll
		for (uint32_t b = 0; b < AT_ONCE; b++) {
			const uint32_t i = base + b * FEW_THREADS;
			float v[8];

			if (i >= n_pieces)
				break;
#pragma unroll
			for (int h = 0; h < 2; h++) {
				v[4 * h] = gpu_bf16_low(raw[b][h].x);
				v[4 * h + 1] = gpu_bf16_high(raw[b][h].x);
				v[4 * h + 2] = gpu_bf16_low(raw[b][h].y);
				v[4 * h + 3] = gpu_bf16_high(raw[b][h].y);
			}
			few8_put<TYPE>(to, i, v);
		}
	}
}

template <uint32_t TYPE, bool GATED>
static __global__ void __launch_bounds__(FEW_THREADS, FEW8_BLOCKS) few8_kernel(GPU_PARAM few_args a)
{
	typedef gk_format<TYPE> F;
	typedef few8_format<TYPE> format;
	enum {
		U = (int)F::UNIT == 128 ? 4 : 8, /* units under way */
		GROUPS = FEW_THREADS / 32,
		OUT_ROWS = GATED ? 8 : 16,
	};
	__shared__ float sums[2][GROUPS][16], squares[GROUPS], row_scale;
	GPU_DYN_SHARED(uint4, shared);
	const uint32_t lane = threadIdx.x & 31, group = threadIdx.x >> 5, g = lane >> 2, t = lane & 3;
	const uint32_t n_units = gk_n_units(a.job[0].w), n_steps = (n_units + U * GROUPS - 1) / (U * GROUPS);
	const few8_row x = { shared, (float2 *)(shared + (size_t)a.cols.n_chunks * 4), a.cols.n_chunks };
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

	uint32_t tile = blockIdx.x, half = 0;

	point(tile);
#pragma unroll
	for (int u = 0; u < U; u++)
		load(u, group + u * GROUPS);
	if (a.norm_w.p)
		few_prefetch_norm(a);
	gpu_dependents_may_start();
	gpu_dependency_wait();
	if (a.move) {
		few8_move_row<TYPE>(x, a);
	} else {
		const bool quick = a.whole && a.x.elem == GK_F32 && a.job[0].w.cols % 4 == 0;
		const float square = gpu_group_sum(quick ? few8_ask_row<TYPE>(x, a) : few8_make_row<TYPE>(x, a));

		if (lane == 0)
			squares[group] = square;
	}
	__syncthreads();
	if (threadIdx.x == 0) { /* seen behind the next barrier */
		float square = 0.0f;

		for (int i = 0; a.norm && i < GROUPS; i++)
			square += squares[i];
		row_scale = a.norm ? 1.0f / sqrtf(square / (float)a.job[0].w.cols + a.eps) : 1.0f;
	}

	for (bool more = true; more; half ^= 1) {
		const uint32_t j = job_of(tile), row = row_of(tile, j) + threadIdx.x;
		const few_job &job = a.job[j];
		const bool writes = threadIdx.x < OUT_ROWS && row < job.w.rows;
		/* What is added to has come until then. */
		const float old = writes && job.accumulate ? gk_get(job.out, 0, row) : 0.0f;
		float acc[2] = { 0.0f, 0.0f };

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
						const uint4 v = x.values[(unit * F::CHUNKS + c) * 4 + t];
						const float2 s = x.scales[(unit * F::CHUNKS + c) * 4 + t];

#pragma unroll
						for (int r = 0; r < 2; r++) {
							uint32_t w[2];
							float d, m;
							int sum = (int)format::ZERO != 0 ? (int)gpu_bits(s.y) : 0;

							format::words(raw[u][r], c, w);
							F::get_scale(scale[u][r], unit, c, 0, &d, &m);
							sum = few8_dot4(v.x, v.y, w[0], sum);
							sum = few8_dot4(v.z, v.w, w[1], sum);
							acc[r] += d * s.x * (float)sum;
							if (F::MINS)
								acc[r] -= m * s.y;
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
			float s = acc[r];

			s += gpu_shfl_xor(s, 1);
			s += gpu_shfl_xor(s, 2);
			if (t == 0)
				sums[half][group][r * 8 + g] = s;
		}
		/* Whoever comes to the next one has read the sums of the tile before. */
		__syncthreads();
		if (writes) {
			float y[2] = { 0.0f, 0.0f };

#pragma unroll
			for (int side = 0; side < (GATED ? 2 : 1); side++) {
				const float *bias = a.job[GATED ? side : j].bias;

#pragma unroll
				for (int k = 0; k < GROUPS; k++)
					y[side] += sums[half][k][side * 8 + threadIdx.x];
				y[side] = y[side] * row_scale + (bias ? bias[row] : 0.0f);
			}
			if (GATED)
				y[0] = gk_act(a.act, y[0], y[1]);
			gk_put(job.out, 0, row, old + y[0]);
		}
	}
}

/* False, nothing launched: not a type of it, several rows, or one too long for a block's memory. args as for few.h, but
 * for the tiles. */
bool few8_launch(uint32_t type, const struct gk_ctx *ctx, few_args a);

#endif
