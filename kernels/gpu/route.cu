/* Routers: which experts a row goes to, and the product that decides it.
 *
 * A choice is made by rank: every expert counts those that are better, and the ones with the lowest counts are taken in
 * that order. Equal ones go by number, so no two have the same rank. */
#include <errno.h>

#include "gpu/gpu_mma.h"
#include "gpu/view.h"

enum { ROUTE_THREADS = 256, ROUTE_WAVES = ROUTE_THREADS / 32 };

GPU_FN float route_sigmoid(float x)
{
	return 1.0f / (1.0f + expf(-x));
}

/* The sum of the two best choices of a group. */
GPU_FN float group_score(const float *choices, uint32_t size)
{
	float best = -INFINITY, second = -INFINITY;

	for (uint32_t e = 0; e < size; e++) {
		if (choices[e] > best) {
			second = best;
			best = choices[e];
		} else if (choices[e] > second) {
			second = choices[e];
		}
	}
	return size > 1 ? best + second : best;
}

/* Leaves the best groups open. scores: n_group floats. */
GPU_FN void close_groups(const kn_router &r, float *choices, float *scores)
{
	const uint32_t size = r.n_expert / r.n_group;

	for (uint32_t g = threadIdx.x; g < r.n_group; g += ROUTE_THREADS)
		scores[g] = group_score(choices + g * size, size);
	__syncthreads();
	for (uint32_t g = threadIdx.x; g < r.n_group; g += ROUTE_THREADS) {
		uint32_t n_better = 0;

		for (uint32_t o = 0; o < r.n_group; o++)
			n_better += scores[o] > scores[g] || (scores[o] == scores[g] && o < g);
		for (uint32_t e = 0; e < size && n_better >= r.top_group; e++)
			choices[g * size + e] = -INFINITY;
	}
	__syncthreads();
}

/* What a block needs for one row: choices in whole float4. */
static size_t choose_shared_bytes(uint32_t n_expert)
{
	return (size_t)3 * ((n_expert + 3) & ~3u) * sizeof(float);
}

/* One row, by all threads of a block. */
GPU_FN void choose(const kn_router &r, const float *logits, int32_t *ids, float *weights, float *shared)
{
	__shared__ float scratch[32];
	const uint32_t n = r.n_expert, n4 = (n + 3) / 4, lane = threadIdx.x & 31, wave = threadIdx.x / 32;
	float *const choices = shared, *const scores = shared + 4 * n4, *const known = scores + 4 * n4;
	float top = -INFINITY, sum = 0.0f, total = 0.0f;

	for (uint32_t e = threadIdx.x; e < 4 * n4; e += ROUTE_THREADS) {
		float c = -INFINITY;

		if (e < n) {
			/* past the first-level cache: other blocks may have written it */
			const float l = *(const volatile float *)(logits + e);

			known[e] = l;
			c = r.kind == KN_ROUTE_SIGMOID ? route_sigmoid(l) + (r.bias ? r.bias[e] : 0.0f) : l;
			if (c != c) /* no number: never taken, but as the first one of all always */
				c = e == 0 ? INFINITY : -INFINITY;
			top = fmaxf(top, l);
		}
		choices[e] = c;
	}
	top = gpu_group_max(top);
	if (lane == 0)
		scratch[wave] = top;
	__syncthreads();
	top = gpu_group_max(lane < ROUTE_WAVES ? scratch[lane] : -INFINITY);
	__syncthreads();
	if (r.n_group > 1 && r.top_group < r.n_group)
		close_groups(r, choices, scores);
	for (uint32_t e = threadIdx.x; e < n; e += ROUTE_THREADS) {
		const float mine = choices[e];
		uint32_t rank = 0;

		for (uint32_t q = 0; q < n4; q++) {
			const float4 o = ((const float4 *)choices)[q];

			rank += o.x > mine || (o.x == mine && 4 * q < e);
			rank += o.y > mine || (o.y == mine && 4 * q + 1 < e);
			rank += o.z > mine || (o.z == mine && 4 * q + 2 < e);
			rank += o.w > mine || (o.w == mine && 4 * q + 3 < e);
		}
		if (rank < r.top_k) {
			const uint32_t id = mine == -INFINITY ? 0 : e; /* nothing left to choose: the first */
			const float l = known[id];

			ids[rank] = (int32_t)id;
			scores[rank] = r.kind == KN_ROUTE_SIGMOID ? route_sigmoid(l) : expf(l - top);
		}
	}
	for (uint32_t e = threadIdx.x; r.kind == KN_ROUTE_SOFTMAX && e < n; e += ROUTE_THREADS)
		sum += expf(known[e] - top);
	__syncthreads();
	if (r.kind == KN_ROUTE_SOFTMAX)
		sum = gpu_block_sum(sum, scratch);
	else if (r.kind == KN_ROUTE_SIGMOID)
		sum = 1.0f;
	for (uint32_t k = 0; r.kind == KN_ROUTE_TOPK_SOFTMAX && k < r.top_k; k++)
		sum += scores[k];
	for (uint32_t k = 0; r.normalize && k < r.top_k; k++)
		total += scores[k] / sum;
	for (uint32_t k = threadIdx.x; k < r.top_k; k += ROUTE_THREADS)
		weights[k] = scores[k] / sum / (r.normalize ? total + 1e-20f : 1.0f) * r.scale;
}

/* ---- From logits ------------------------------------------------------------------------------------------------------ */

static __global__ void __launch_bounds__(ROUTE_THREADS) route_kernel(kn_router r, const float *logits, gk_rows rows,
                                                                     int32_t *ids, float *weights)
{
	GPU_DYN_SHARED(float, shared);
	const uint32_t row = blockIdx.x;

	gpu_dependents_may_start();
	gpu_dependency_wait();
	if (row < gk_n_rows(rows))
		choose(r, logits + (size_t)row * r.n_expert, ids + (size_t)row * r.top_k, weights + (size_t)row * r.top_k, shared);
}

static bool is_router(const kn_router *r)
{
	return r->n_expert > 0 && r->n_expert <= KN_MAX_EXPERTS && r->top_k <= r->n_expert;
}

int gk_route(const struct gk_ctx *ctx, const struct kn_router *router, const float *logits, struct gk_rows rows,
             int32_t *ret_ids, float *ret_weights)
{
	if (!is_router(router))
		return -EINVAL;
	gpu_launch(route_kernel, dim3(rows.bound), dim3(ROUTE_THREADS), choose_shared_bytes(router->n_expert), ctx->stream,
	           ctx->overlap, *router, logits, rows, ret_ids, ret_weights);
	return gk_launched();
}

/* ---- Norm, product and choice at once ------------------------------------------------------------------------------------ */

enum { KEPT = 16 }; /* of four weights each, that a lane asks for ahead */

struct router_args {
	gk_router r;
	uint32_t *counters; /* gk_ctx.counters: one for each row */
	bool whole; /* x may be read 16 bytes at a time */
};

/* Weights times the norm's: lane's columns [base, base + KEPT * 128) of row e. */
GPU_FN void router_weights(const gk_router &a, uint32_t e, uint32_t base, float4 *w)
{
	const uint32_t lane = threadIdx.x & 31;
	const float *from = (const float *)a.w.values + (size_t)e * a.w.ld;

#pragma unroll
	for (int i = 0; i < KEPT; i++) {
		const uint32_t k = base + (i * 32 + lane) * 4;

		w[i] = k < a.w.cols ? *(const float4 *)(from + k) : make_float4(0, 0, 0, 0);
	}
#pragma unroll
	for (int i = 0; i < KEPT && a.norm_w; i++) {
		const uint32_t k = base + (i * 32 + lane) * 4;
		const float4 n = k < a.w.cols ? *(const float4 *)(a.norm_w + k) : make_float4(0, 0, 0, 0);

		w[i] = make_float4(w[i].x * n.x, w[i].y * n.y, w[i].z * n.z, w[i].w * n.w);
	}
}

/* 32 lanes for each expert and row; the blocks behind the last expert write the normed rows. The last block of a row to
 * come to its end chooses. */
static __global__ void __launch_bounds__(ROUTE_THREADS) router_kernel(GPU_PARAM router_args args)
{
	const gk_router &a = args.r;
	__shared__ uint32_t is_last;
	GPU_DYN_SHARED(float, shared);
	const uint32_t lane = threadIdx.x & 31, wave = threadIdx.x / 32, row = blockIdx.y, n = a.router.n_expert;
	const uint32_t e = blockIdx.x * ROUTE_WAVES + wave, cols = a.w.cols;
	const bool norms = blockIdx.x * ROUTE_WAVES >= n;
	float4 w[KEPT];
	float dot = 0.0f, square = 0.0f;

	if (e < n)
		router_weights(a, e, 0, w);
	gpu_dependents_may_start();
	gpu_dependency_wait();
	if (row >= gk_n_rows(a.rows))
		return;
	for (uint32_t base = 0; base < cols; base += KEPT * 128) {
		if (base > 0 && e < n)
			router_weights(a, e, base, w);
#pragma unroll
		for (int i = 0; i < KEPT; i++) {
			const uint32_t k = base + (i * 32 + lane) * 4;
			float v[4];

			if (k >= cols)
				continue;
			gk_get4(a.x, row, k, cols, args.whole, v);
			square += v[0] * v[0] + v[1] * v[1] + v[2] * v[2] + v[3] * v[3];
			if (e < n)
				dot += v[0] * w[i].x + v[1] * w[i].y + v[2] * w[i].z + v[3] * w[i].w;
		}
	}
	dot = gpu_group_sum(dot);
	square = gpu_group_sum(square);

	const float scale = a.norm ? 1.0f / sqrtf(square / (float)cols + a.eps) : 1.0f;

	if (e < n && lane == 0)
		a.logits[(size_t)row * n + e] = dot * scale + (a.bias ? a.bias[e] : 0.0f);
	for (uint32_t k = threadIdx.x; norms && k < cols; k += ROUTE_THREADS)
		gk_put(a.normed, row, k, gk_get(a.x, row, k) * scale * (a.norm_w ? a.norm_w[k] : 1.0f));
	if (norms)
		return;
	__threadfence();
	__syncthreads();
	if (threadIdx.x == 0) {
		const uint32_t n_blocks = (n + ROUTE_WAVES - 1) / ROUTE_WAVES;

		is_last = atomicAdd(&args.counters[row], 1u) == n_blocks - 1;
		if (is_last)
			args.counters[row] = 0; /* for the next launch */
	}
	__syncthreads();
	if (!is_last)
		return;
	__threadfence();
	choose(a.router, a.logits + (size_t)row * n, a.ids + (size_t)row * a.router.top_k,
	       a.weights + (size_t)row * a.router.top_k, shared);
}

/* ---- The product of many rows -------------------------------------------------------------------------------------------- */

enum { PRODUCT_THREADS = 256, PRODUCT_ROWS = 64, PRODUCT_LINE = PRODUCT_ROWS + 1 };

/* Eight float32 values as three operands: their sum has all 24 bits. */
GPU_FN void split_three(float *v, uint4 *ret)
{
#pragma unroll
	for (int part = 0; part < 3; part++) {
		uint32_t w[4];

#pragma unroll
		for (int i = 0; i < 4; i++) {
			w[i] = gpu_pack_bf16(v[2 * i], v[2 * i + 1]);
			v[2 * i] -= gpu_bf16_low(w[i]);
			v[2 * i + 1] -= gpu_bf16_high(w[i]);
		}
		ret[part] = make_uint4(w[0], w[1], w[2], w[3]);
	}
}

/* 16 experts, 64 rows: operands come straight from memory (what the blocks share is in its caches), waves take chunks of
 * 32 columns in turn, and their sums are added in order of wave. */
static __global__ void __launch_bounds__(PRODUCT_THREADS, 2) product_kernel(GPU_PARAM gk_router a)
{
	enum { WAVES = PRODUCT_THREADS / GPU_WAVE, NB = PRODUCT_ROWS / 16 };
	GPU_DYN_SHARED(float, sums);
	const uint32_t wave = threadIdx.x / GPU_WAVE, e0 = blockIdx.x * 16, first = blockIdx.y * PRODUCT_ROWS;
	const uint32_t cols = a.w.cols, n = a.router.n_expert, n_chunks = (cols + 31) / 32;
	gpu_acc acc[NB];

	gpu_dependents_may_start();
	gpu_dependency_wait();

	const uint32_t n_rows = gk_n_rows(a.rows);

	if (first >= n_rows)
		return;
#pragma unroll
	for (int nb = 0; nb < NB; nb++)
		acc[nb] = gpu_acc_zero();
	for (uint32_t chunk = wave; chunk < n_chunks; chunk += WAVES) {
		gpu_frag w[3], x[NB];

#pragma unroll
		for (int p = 0; p < GPU_PIECES; p++) {
			const uint32_t row = e0 + gpu_piece_row(p), col = chunk * 32 + gpu_piece_col(p);
			const float *from = (const float *)a.w.values + (size_t)(row < n ? row : 0) * a.w.ld + col;
			float v[8] = { 0, 0, 0, 0, 0, 0, 0, 0 };
			uint4 parts[3];

			if (col < cols) { /* rows of W are padded with zeros */
				const float4 lo = *(const float4 *)from, hi = *(const float4 *)(from + 4);

				v[0] = lo.x, v[1] = lo.y, v[2] = lo.z, v[3] = lo.w;
				v[4] = hi.x, v[5] = hi.y, v[6] = hi.z, v[7] = hi.w;
			}
			split_three(v, parts);
#pragma unroll
			for (int part = 0; part < 3; part++)
				w[part].p[p] = parts[part];
#pragma unroll
			for (int nb = 0; nb < NB; nb++) {
				const uint32_t at = first + nb * 16 + gpu_piece_row(p);

				x[nb].p[p] = make_uint4(0, 0, 0, 0);
				if (at < n_rows && col + 8 <= cols) {
					x[nb].p[p] = *(const uint4 *)((const gpu_bf16 *)a.x.p + (size_t)at * a.x.ld + col);
				} else if (at < n_rows && col < cols) {
					gk_get8(a.x, at, col, cols, false, v);
					x[nb].p[p] = make_uint4(gpu_pack_bf16(v[0], v[1]), gpu_pack_bf16(v[2], v[3]),
					                        gpu_pack_bf16(v[4], v[5]), gpu_pack_bf16(v[6], v[7]));
				}
			}
		}
#pragma unroll
		for (int part = 2; part >= 0; part--) {
#pragma unroll
			for (int nb = 0; nb < NB; nb++)
				gpu_mma<false>(acc[nb], w[part], x[nb]);
		}
	}
#pragma unroll
	for (int nb = 0; nb < NB; nb++) {
#pragma unroll
		for (int i = 0; i < GPU_ACC; i++)
			sums[(wave * 16 + gpu_acc_row(i)) * PRODUCT_LINE + nb * 16 + gpu_acc_col(i)] = acc[nb].v[i];
	}
	__syncthreads();
	for (uint32_t i = threadIdx.x; i < 16 * PRODUCT_ROWS; i += PRODUCT_THREADS) {
		const uint32_t e = e0 + i % 16, row = first + i / 16;
		float y = 0.0f;

		if (e >= n || row >= n_rows)
			continue;
		for (uint32_t v = 0; v < WAVES; v++)
			y += sums[(v * 16 + i % 16) * PRODUCT_LINE + i / 16];
		a.logits[(size_t)row * n + e] = y + (a.bias ? a.bias[e] : 0.0f);
	}
}

static int route_many(const struct gk_ctx *ctx, const struct gk_router *r)
{
	const uint32_t n = r->router.n_expert;

	if (r->norm || r->x.elem != GK_BF16 || !gk_view_aligned(r->x))
		return -ENOTSUP;
	gpu_launch(product_kernel, dim3((n + 15) / 16, (r->rows.bound + PRODUCT_ROWS - 1) / PRODUCT_ROWS), dim3(PRODUCT_THREADS),
	           (size_t)(PRODUCT_THREADS / 32) * 16 * PRODUCT_LINE * sizeof(float), ctx->stream, ctx->overlap, *r);
	return gk_route(ctx, &r->router, r->logits, r->rows, r->ids, r->weights);
}

int gk_route_product(const struct gk_ctx *ctx, const struct gk_router *r)
{
	const uint32_t n = r->router.n_expert;
	const router_args a = { *r, ctx->counters, gk_view_aligned(r->x) };

	if (!is_router(&r->router) || r->w.rows != n)
		return -EINVAL;
	if (r->w.type != KN_F32)
		return -ENOTSUP;
	if (ctx->fixed || r->rows.bound > GK_FEW_ROWS)
		return route_many(ctx, r);
	if (!ctx->counters || (r->norm_w && (r->w.cols % 4 != 0 || ((uintptr_t)r->norm_w & 15) != 0)))
		return -ENOTSUP;
	gpu_launch(router_kernel, dim3((n + ROUTE_WAVES - 1) / ROUTE_WAVES + (r->norm ? 1 : 0), r->rows.bound),
	           dim3(ROUTE_THREADS), choose_shared_bytes(n), ctx->stream, ctx->overlap, a);
	return gk_launched();
}
