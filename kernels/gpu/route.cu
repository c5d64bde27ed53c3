/* Routers: which experts a row goes to, and the product that decides it.
 *
 * A choice is made by rank: every expert counts those that are better, and the ones with the lowest counts are taken in
 * that order. Equal ones go by number, so no two have the same rank. */
#include <errno.h>

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
	return (size_t)2 * ((n_expert + 3) & ~3u) * sizeof(float);
}

/* One row, by all threads of a block. */
GPU_FN void choose(const kn_router &r, const float *logits, int32_t *ids, float *weights, float *shared)
{
	__shared__ float scratch[32];
	const uint32_t n = r.n_expert, n4 = (n + 3) / 4, lane = threadIdx.x & 31, wave = threadIdx.x / 32;
	float *const choices = shared, *const scores = shared + 4 * n4;
	float top = -INFINITY, sum = 0.0f, total = 0.0f;

	for (uint32_t e = threadIdx.x; e < 4 * n4; e += ROUTE_THREADS) {
		float c = -INFINITY;

		if (e < n) {
			/* past the first-level cache: other blocks may have written it */
			const float l = *(const volatile float *)(logits + e);

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
			const float l = *(const volatile float *)(logits + id);

			ids[rank] = (int32_t)id;
			scores[rank] = r.kind == KN_ROUTE_SIGMOID ? route_sigmoid(l) : expf(l - top);
		}
	}
	for (uint32_t e = threadIdx.x; r.kind == KN_ROUTE_SOFTMAX && e < n; e += ROUTE_THREADS)
		sum += expf(*(const volatile float *)(logits + e) - top);
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

		is_last = atomicAdd(&a.tickets[row], 1u) == n_blocks - 1;
		if (is_last)
			a.tickets[row] = 0; /* for the next launch */
	}
	__syncthreads();
	if (!is_last)
		return;
	__threadfence();
	choose(a.router, a.logits + (size_t)row * n, a.ids + (size_t)row * a.router.top_k,
	       a.weights + (size_t)row * a.router.top_k, shared);
}

int gk_route_few(const struct gk_ctx *ctx, const struct gk_router *r)
{
	const uint32_t n = r->router.n_expert;
	const router_args a = { *r, gk_view_aligned(r->x) };

	if (!is_router(&r->router) || r->rows.bound > GK_FEW_ROWS || r->w.rows != n)
		return -EINVAL;
	if (r->w.type != KN_F32 || !r->tickets || ctx->fixed ||
	    (r->norm_w && (r->w.cols % 4 != 0 || ((uintptr_t)r->norm_w & 15) != 0)))
		return -ENOTSUP;
	gpu_launch(router_kernel, dim3((n + ROUTE_WAVES - 1) / ROUTE_WAVES + (r->norm ? 1 : 0), r->rows.bound),
	           dim3(ROUTE_THREADS), choose_shared_bytes(n), ctx->stream, ctx->overlap, a);
	return gk_launched();
}
