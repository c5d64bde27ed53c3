/* Routers: which experts a row goes to (choose.h), and the product that decides it. */
#include <errno.h>

#include "gpu/choose.h"
#include "gpu/gpu_mma.h"
#include "gpu/view.h"

enum { ROUTE_THREADS = 256 };

/* One row, by all threads of a block. shared: choose_shared_bytes(). */
GPU_FN void choose(const kn_router &r, const float *logits, int32_t *ids, float *weights, float *shared)
{
	__shared__ float scratch[32];
	const choose_room room = choose_room_at(shared, r.n_expert);
	choose_logits<ROUTE_THREADS> l;

	choose_load(l, logits, r.n_expert);
	choose_ids(r, l, room, [&](uint32_t rank, uint32_t expert, bool) { ids[rank] = (int32_t)expert; });
	__syncthreads();
	choose_weights(r, l, room, scratch, [&](uint32_t rank, float weight) { weights[rank] = weight; });
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

enum {
	ROUTE_WAVES = ROUTE_THREADS / 32,
	KEPT = 4, /* of four weights each, that a thread asks for ahead */
	KEPT_COLS = KEPT * 4 * ROUTE_THREADS,
};

struct router_args {
	gk_router r;
	uint32_t *counters; /* gk_ctx.counters: one for each row */
	uint32_t rows_each; /* of a block */
	bool whole;         /* x may be read 16 bytes at a time */
};

/* Weights times the norm's: this thread's columns of [base, base + KEPT_COLS) of row e. */
GPU_FN void router_weights(const gk_router &a, uint32_t e, uint32_t base, float4 *w)
{
	const float *from = (const float *)a.w.values + (size_t)e * a.w.ld;

#pragma unroll
	for (int i = 0; i < KEPT; i++) {
		const uint32_t k = base + (i * ROUTE_THREADS + threadIdx.x) * 4;

		w[i] = k < a.w.cols ? *(const float4 *)(from + k) : make_float4(0, 0, 0, 0);
	}
#pragma unroll
	for (int i = 0; i < KEPT && a.norm_w; i++) {
		const uint32_t k = base + (i * ROUTE_THREADS + threadIdx.x) * 4;
		const float4 n = k < a.w.cols ? *(const float4 *)(a.norm_w + k) : make_float4(0, 0, 0, 0);

		w[i] = make_float4(w[i].x * n.x, w[i].y * n.y, w[i].z * n.z, w[i].w * n.w);
	}
}

/* A block for each expert, and for some rows one after the other: all of them wait for x, so a thread has little of it
 * to fetch. Each writes its share of the normed row. Where a choice is asked for, the last block of a row to come to its
 * end makes it. */
static __global__ void __launch_bounds__(ROUTE_THREADS) router_kernel(GPU_PARAM router_args args)
{
	const gk_router &a = args.r;
	__shared__ float parts[2][ROUTE_WAVES];
	__shared__ uint32_t is_last;
	GPU_DYN_SHARED(float, shared);
	const uint32_t e = blockIdx.x, cols = a.w.cols, n = a.router.n_expert;
	const uint32_t first = blockIdx.y * args.rows_each;
	float4 w[KEPT];

	router_weights(a, e, 0, w);
	gpu_dependents_may_start();
	gpu_dependency_wait();

	const uint32_t n_rows = gk_n_rows(a.rows);

	for (uint32_t row = first; row < first + args.rows_each && row < n_rows; row++) {
		float dot = 0.0f, square = 0.0f;

		for (uint32_t base = 0; base < cols; base += KEPT_COLS) {
			float v[KEPT][4];

			if (cols > KEPT_COLS && (base > 0 || row > first))
				router_weights(a, e, base, w);
#pragma unroll
			for (int i = 0; i < KEPT; i++) {
				const uint32_t k = base + (i * ROUTE_THREADS + threadIdx.x) * 4;

				v[i][0] = v[i][1] = v[i][2] = v[i][3] = 0.0f;
				if (k < cols)
					gk_get4(a.x, row, k, cols, args.whole, v[i]);
			}
#pragma unroll
			for (int i = 0; i < KEPT; i++) {
				square += v[i][0] * v[i][0] + v[i][1] * v[i][1] + v[i][2] * v[i][2] + v[i][3] * v[i][3];
				dot += v[i][0] * w[i].x + v[i][1] * w[i].y + v[i][2] * w[i].z + v[i][3] * w[i].w;
			}
		}
		dot = gpu_group_sum(dot);
		square = gpu_group_sum(square);
		if ((threadIdx.x & 31) == 0) {
			parts[0][threadIdx.x / 32] = dot;
			parts[1][threadIdx.x / 32] = square;
		}
		__syncthreads();
		dot = square = 0.0f;
#pragma unroll
		for (int v = 0; v < ROUTE_WAVES; v++) {
			dot += parts[0][v];
			square += parts[1][v];
		}

		const float scale = a.norm ? 1.0f / sqrtf(square / (float)cols + a.eps) : 1.0f;

		if (threadIdx.x == 0)
			a.logits[(size_t)row * n + e] = dot * scale + (a.bias ? a.bias[e] : 0.0f);
		for (uint32_t k = (e + threadIdx.x * n) * 4; a.norm && k < cols; k += ROUTE_THREADS * n * 4) {
			float v[4];

			gk_get4(a.x, row, k, cols, args.whole, v);
#pragma unroll
			for (uint32_t i = 0; i < 4; i++) {
				if (k + i < cols)
					gk_put(a.normed, row, k + i, v[i] * scale * (a.norm_w ? a.norm_w[k + i] : 1.0f));
			}
		}
		if (a.ids) {
			__threadfence();
			__syncthreads();
			if (threadIdx.x == 0) {
				is_last = atomicAdd(&args.counters[row], 1u) == n - 1;
				if (is_last)
					args.counters[row] = 0; /* for the next launch */
			}
			__syncthreads();
			if (is_last) {
				__threadfence();
				choose(a.router, a.logits + (size_t)row * n, a.ids + (size_t)row * a.router.top_k,
				       a.weights + (size_t)row * a.router.top_k, shared);
			}
		}
		__syncthreads(); /* parts */
	}
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
	return r->ids ? gk_route(ctx, &r->router, r->logits, r->rows, r->ids, r->weights) : gk_launched();
}

int gk_route_product(const struct gk_ctx *ctx, const struct gk_router *r)
{
	enum { AT_ONCE = 4 /* rows that blocks of their own take */ };
	const uint32_t n = r->router.n_expert, rows_each = (r->rows.bound + AT_ONCE - 1) / AT_ONCE;
	const router_args a = { *r, ctx->counters, rows_each, gk_view_aligned(r->x) };

	if (!is_router(&r->router) || r->w.rows != n)
		return -EINVAL;
	if (r->w.type != KN_F32)
		return -ENOTSUP;
	if (ctx->fixed || r->rows.bound > GK_FEW_ROWS)
		return route_many(ctx, r);
	if (!ctx->counters || (r->norm_w && (r->w.cols % 4 != 0 || ((uintptr_t)r->norm_w & 15) != 0)))
		return -ENOTSUP;
	gpu_launch(router_kernel, dim3(n, (r->rows.bound + rows_each - 1) / rows_each), dim3(ROUTE_THREADS),
	           r->ids ? choose_shared_bytes(n) : 0, ctx->stream, ctx->overlap, a);
	return gk_launched();
}
