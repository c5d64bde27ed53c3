/* Rotary positions, and keys and values into their pages: apart, or in one pass with the norms of heads. */
#include <errno.h>

#include "gpu/kv.h"

enum { THREADS = 128, GROUPS = THREADS / GPU_GROUP };

struct pair {
	uint32_t a, b;
	float c, s;
};

/* Pair j of a head at a position. The angle is a float product, as in kn_ops.rope. */
GPU_FN pair pair_of(const struct gk_rope &r, uint32_t j, int32_t pos)
{
	const float angle = (float)pos * r.inv_freq[j];
	pair p;

	p.a = r.offset + (r.interleaved ? 2 * j : j);
	p.b = r.interleaved ? p.a + 1 : p.a + r.n_rot / 2;
	p.c = cosf(angle) * r.scale;
	p.s = sinf(angle) * r.scale;
	return p;
}

/* ---- Rotation alone: one thread for each row, head and pair ------------------------------------------------------ */

static __global__ void rope_kernel(gk_view x, gk_rows rows, uint32_t n_head, uint32_t head_dim, struct gk_rope rope,
                                   const int32_t *pos)
{
	const uint32_t half = rope.n_rot / 2;
	const size_t i = (size_t)blockIdx.x * blockDim.x + threadIdx.x;
	const uint32_t j = (uint32_t)(i % half), head = (uint32_t)(i / half % n_head), row = (uint32_t)(i / half / n_head);

	gpu_dependents_may_start();
	gpu_dependency_wait();
	if (row >= gk_n_rows(rows))
		return;

	const pair p = pair_of(rope, j, pos[row]);
	const size_t first = (size_t)head * head_dim;
	const float a = gk_get(x, row, first + p.a), b = gk_get(x, row, first + p.b);

	gk_put(x, row, first + p.a, a * p.c - b * p.s);
	gk_put(x, row, first + p.b, b * p.c + a * p.s);
}

int gk_rope(const struct gk_ctx *ctx, struct gk_view x, struct gk_rows rows, uint32_t n_head, uint32_t head_dim,
            const struct gk_rope *rope, const int32_t *pos)
{
	const size_t n = (size_t)rows.bound * n_head * (rope->n_rot / 2);

	if (rope->n_rot % 2 || rope->offset + rope->n_rot > head_dim)
		return -EINVAL;
	if (n == 0)
		return 0;
	gpu_launch(rope_kernel, dim3((unsigned)((n + 255) / 256)), dim3(256), 0, ctx->stream, ctx->overlap, x, rows, n_head,
	           head_dim, *rope, pos);
	return gk_launched();
}

/* ---- The store alone: 32 lanes for each row and head --------------------------------------------------------------- */

static __global__ void kv_store_kernel(gk_kv kv, gk_view k, gk_view v, gk_batch batch)
{
	const uint32_t item = blockIdx.x * GROUPS + threadIdx.x / GPU_GROUP, lane = threadIdx.x & 31;
	const uint32_t row = item / kv.n_kv_head, head = item % kv.n_kv_head;
	gk_place place;

	gpu_dependents_may_start();
	gpu_dependency_wait();
	if (row >= batch.counts[GK_N_ROWS] || !gk_place_of_row(batch, row, &place))
		return;

	const size_t k_at = gk_kv_at(kv, place.pages, place.token, head, kv.k_dim);
	const size_t v_at = gk_kv_at(kv, place.pages, place.token, head, kv.v_dim);

	const float k_scale = gk_kv_scale(kv.k_scale, head), v_scale = gk_kv_scale(kv.v_scale, head);

	for (uint32_t d = lane; d < kv.k_dim; d += GPU_GROUP)
		gk_kv_put(kv.dtype, kv.k, k_at + d, gk_get(k, row, head * kv.k_dim + d) / k_scale);
	for (uint32_t d = lane; kv.v && d < kv.v_dim; d += GPU_GROUP)
		gk_kv_put(kv.dtype, kv.v, v_at + d, gk_get(v, row, head * kv.v_dim + d) / v_scale);
}

int gk_kv_store(const struct gk_ctx *ctx, const struct gk_kv *kv, struct gk_view k, struct gk_view v,
                const struct gk_batch *batch)
{
	if (!gk_kv_takes(kv) || (kv->v && !v.p))
		return -EINVAL;
	gpu_launch(kv_store_kernel, dim3((batch->max_rows * kv->n_kv_head + GROUPS - 1) / GROUPS), dim3(THREADS), 0,
	           ctx->stream, ctx->overlap, *kv, k, v, *batch);
	return gk_launched();
}

/* ---- All in one: 32 lanes for each row and head of q, k and v ------------------------------------------------------- */

struct head_source {
	gk_view x;
	uint32_t row;
	size_t first;
};

/* Pair j, after its norm (norm_after_rope: before). */
GPU_FN void rotate(const gk_qkv &a, const head_source &h, uint32_t j, int32_t pos, const float *w, float scale,
                   pair *p, float *ret_a, float *ret_b)
{
	*p = pair_of(a.rope, j, pos);

	float xa = gk_get(h.x, h.row, h.first + p->a) * scale, xb = gk_get(h.x, h.row, h.first + p->b) * scale;

	if (w) {
		xa *= w[p->a];
		xb *= w[p->b];
	}
	*ret_a = xa * p->c - xb * p->s;
	*ret_b = xb * p->c + xa * p->s;
}

static __global__ void qkv_kernel(gk_qkv a, gk_batch batch)
{
	const uint32_t n_kv = a.kv.n_kv_head, n_heads = a.n_head + n_kv + (a.v.p ? n_kv : 0);
	const uint32_t item = blockIdx.x * GROUPS + threadIdx.x / GPU_GROUP, lane = threadIdx.x & 31;
	const uint32_t row = item / n_heads, which = item % n_heads;
	gk_place place = { nullptr, 0 };

	gpu_dependents_may_start();
	gpu_dependency_wait();
	if (row >= gk_n_rows(a.rows))
		return;

	const bool is_q = which < a.n_head, is_v = which >= a.n_head + n_kv;
	const uint32_t head = is_q ? which : is_v ? which - a.n_head - n_kv : which - a.n_head;
	const bool placed = gk_place_of_row(batch, row, &place);

	if (!is_q && !placed)
		return;
	if (is_v) {
		const size_t at = gk_kv_at(a.kv, place.pages, place.token, head, a.kv.v_dim);

		const float scale = gk_kv_scale(a.kv.v_scale, head);

		for (uint32_t d = lane; d < a.kv.v_dim; d += GPU_GROUP)
			gk_kv_put(a.kv.dtype, a.kv.v, at + d, gk_get(a.v, row, head * a.kv.v_dim + d) / scale);
		return;
	}

	const head_source h = { is_q ? a.q : a.k, row, (size_t)head * a.head_dim };
	const float *w = is_q ? a.q_norm : a.k_norm, *before = a.norm_after_rope ? nullptr : w;
	const float *after = a.norm_after_rope ? w : nullptr;
	const uint32_t half = a.rope.n_rot / 2, rot_end = a.rope.offset + a.rope.n_rot;
	const int32_t pos = a.pos[row];
	const size_t at = is_q ? 0 : gk_kv_at(a.kv, place.pages, place.token, head, a.kv.k_dim);
	const float k_scale = is_q ? 1.0f : gk_kv_scale(a.kv.k_scale, head);
	float sum = 0.0f, xa, xb;
	pair p;

	if (w) {
		for (uint32_t j = lane; after && j < half; j += GPU_GROUP) {
			rotate(a, h, j, pos, nullptr, 1.0f, &p, &xa, &xb);
			sum += xa * xa + xb * xb;
		}
		for (uint32_t d = lane; d < a.head_dim; d += GPU_GROUP) {
			const float x = gk_get(h.x, row, h.first + d);

			if (before || d < a.rope.offset || d >= rot_end)
				sum += x * x;
		}
		sum = 1.0f / sqrtf(gpu_group_sum(sum) / (float)a.head_dim + a.eps);
	} else {
		sum = 1.0f;
	}
	for (uint32_t j = lane; j < half; j += GPU_GROUP) {
		rotate(a, h, j, pos, before, before ? sum : 1.0f, &p, &xa, &xb);
		if (after) {
			xa *= sum * after[p.a];
			xb *= sum * after[p.b];
		}
		if (is_q) {
			gk_put(a.q, row, h.first + p.a, xa);
			gk_put(a.q, row, h.first + p.b, xb);
		} else {
			gk_kv_put(a.kv.dtype, a.kv.k, at + p.a, xa / k_scale);
			gk_kv_put(a.kv.dtype, a.kv.k, at + p.b, xb / k_scale);
		}
	}
	for (uint32_t d = lane; d < a.head_dim; d += GPU_GROUP) {
		if (d >= a.rope.offset && d < rot_end)
			continue;

		const float x = gk_get(h.x, row, h.first + d) * (w ? sum * w[d] : 1.0f);

		if (is_q)
			gk_put(a.q, row, h.first + d, x);
		else
			gk_kv_put(a.kv.dtype, a.kv.k, at + d, x / k_scale);
	}
}

/* ---- The same for heads of 64, 128 and 256 that are rotated as a whole, halves against each other ---------------
 *
 * LANES of 32 share a head, 16 values each: eight of the first half and their partners of the second, in 16-byte
 * accesses. A block has one row, whose sines and cosines are computed once, and blockIdx.y is a share of its heads.
 * What no kernel of the step writes is read before the kernel before this one has ended. */
template <int LANES>
static __global__ void __launch_bounds__(THREADS) qkv_halves(GPU_PARAM gk_qkv a, GPU_PARAM gk_batch batch)
{
	enum { HALF = LANES * 8, AT_ONCE = THREADS / LANES };
	__shared__ float cosines[HALF], sines[HALF];
	const uint32_t row = blockIdx.x, n_kv = a.kv.n_kv_head, n_heads = a.n_head + 2 * n_kv;
	const uint32_t d = threadIdx.x % LANES * 8;
	gk_place place = { nullptr, 0 };
	bool placed = false;

	gpu_dependents_may_start();
	if (row >= gk_n_rows(a.rows)) {
		gpu_dependency_wait();
		return;
	}
	placed = gk_place_of_row(batch, row, &place);
	for (uint32_t j = threadIdx.x; j < HALF; j += THREADS) {
		const pair p = pair_of(a.rope, j, a.pos[row]);

		cosines[j] = p.c;
		sines[j] = p.s;
	}
	__syncthreads();

	float c[8], s[8];

#pragma unroll
	for (int e = 0; e < 8; e++) {
		c[e] = cosines[d + e];
		s[e] = sines[d + e];
	}
	gpu_dependency_wait();
	for (uint32_t base = blockIdx.y * AT_ONCE; base < n_heads; base += gridDim.y * AT_ONCE) {
		const uint32_t which = base + threadIdx.x / LANES;
		const bool is_q = which < a.n_head, is_v = which >= a.n_head + n_kv, is_k = !is_q && !is_v;
		const uint32_t head = is_q ? which : is_v ? which - a.n_head - n_kv : which - a.n_head;
		const bool taken = which < n_heads && (is_q || placed);
		const gk_view &x = is_q ? a.q : is_k ? a.k : a.v;
		const float *norm = is_v ? nullptr : is_q ? a.q_norm : a.k_norm;
		float v[2][8], w[2][8], sum = 0.0f;

#pragma unroll
		for (int h = 0; h < 2; h++) {
#pragma unroll
			for (int e = 0; e < 8; e++)
				v[h][e] = 0.0f, w[h][e] = 1.0f;
			if (taken)
				gk_get8(x, row, head * 2 * HALF + h * HALF + d, 0, true, v[h]);
			if (norm)
				gk_get8(gk_view{ (void *)norm, GK_F32, 0 }, 0, h * HALF + d, 0, true, w[h]);
		}
#pragma unroll
		for (int e = 0; e < 8; e++)
			sum += v[0][e] * v[0][e] + v[1][e] * v[1][e];
#pragma unroll
		for (int m = 1; m < LANES; m <<= 1)
			sum += gpu_shfl_xor(sum, m);
		if (!taken)
			continue; /* nobody exchanges anything from here on */
		sum = norm ? 1.0f / sqrtf(sum / (float)(2 * HALF) + a.eps) : 1.0f;
		if (!is_v) {
#pragma unroll
			for (int e = 0; e < 8; e++) {
				const float xa = v[0][e] * sum * w[0][e], xb = v[1][e] * sum * w[1][e];

				v[0][e] = xa * c[e] - xb * s[e];
				v[1][e] = xb * c[e] + xa * s[e];
			}
		}
		if (is_q) {
#pragma unroll
			for (int h = 0; h < 2; h++)
				gk_put8(a.q, row, head * 2 * HALF + h * HALF + d, 0, true, v[h]);
			continue;
		}

		const size_t at = gk_kv_at(a.kv, place.pages, place.token, head, 2 * HALF);
		const float *const scales = is_k ? a.kv.k_scale : a.kv.v_scale;
		const float scale = gk_kv_scale(scales, head);

#pragma unroll
		for (int h = 0; h < 2; h++) {
#pragma unroll
			for (int e = 0; scales && e < 8; e++)
				v[h][e] /= scale;
			gk_kv_put8(a.kv.dtype, is_k ? a.kv.k : a.kv.v, at + h * HALF + d, v[h]);
		}
	}
}

static bool in_halves(const struct gk_qkv *a)
{
	const uint32_t dim = a->head_dim;
	const uintptr_t all = (uintptr_t)a->kv.k | (uintptr_t)a->kv.v | (uintptr_t)a->q_norm | (uintptr_t)a->k_norm;

	return (dim == 64 || dim == 128 || dim == 256) && a->rope.n_rot == dim && a->rope.offset == 0 &&
	       !a->rope.interleaved && (!a->norm_after_rope || (!a->q_norm && !a->k_norm)) && a->v.p && a->kv.v &&
	       a->kv.v_dim == dim && all % 16 == 0 && gk_view_aligned(a->q) && gk_view_aligned(a->k) &&
	       gk_view_aligned(a->v);
}

static void launch_halves(const struct gk_ctx *ctx, const struct gk_qkv *a, uint32_t n_heads)
{
	const uint32_t lanes = a->head_dim / 16, at_once = THREADS / lanes;
	/* Few rows: a block for each heads that it takes at once. */
	const uint32_t shares = a->rows.bound > ctx->n_sm ? 1 : (n_heads + at_once - 1) / at_once;
	const dim3 grid(a->rows.bound, shares), block(THREADS);

	if (lanes == 4)
		gpu_launch(qkv_halves<4>, grid, block, 0, ctx->stream, ctx->overlap, *a, *a->batch);
	else if (lanes == 8)
		gpu_launch(qkv_halves<8>, grid, block, 0, ctx->stream, ctx->overlap, *a, *a->batch);
	else
		gpu_launch(qkv_halves<16>, grid, block, 0, ctx->stream, ctx->overlap, *a, *a->batch);
}

int gk_qkv_store(const struct gk_ctx *ctx, const struct gk_qkv *a)
{
	const uint32_t n_heads = a->n_head + a->kv.n_kv_head * (a->v.p ? 2 : 1);
	const size_t n_items = (size_t)a->rows.bound * n_heads;

	if (!gk_kv_takes(&a->kv) || a->kv.k_dim != a->head_dim || a->rope.offset + a->rope.n_rot > a->head_dim ||
	    (a->kv.v && !a->v.p))
		return -EINVAL;
	if (in_halves(a)) {
		launch_halves(ctx, a, n_heads);
		return gk_launched();
	}
	gpu_launch(qkv_kernel, dim3((unsigned)((n_items + GROUPS - 1) / GROUPS)), dim3(THREADS), 0, ctx->stream,
	           ctx->overlap, *a, *a->batch);
	return gk_launched();
}
