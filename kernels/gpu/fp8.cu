/* Rows of activations in eight bits, for products with FP8 weights: each 128 columns of a row are divided by a scale of
 * their own, so that the greatest of them becomes the greatest value of the type. What makes the rows (a norm, an
 * activation) can be done on the way. */
#include <errno.h>

#include "gpu/product_sm90.h"
#include "gpu/mat.h"
#include "gpu/view.h"

enum {
	QUANT_THREADS = 256,
	QUANT_EIGHTS = 2, /* of columns for each thread */
	NORM_THREADS = 512,
	QUANT_BLOCK = 128,             /* columns that share a scale */
	QUANT_LANES = QUANT_BLOCK / 8, /* that share a block */
};

/* PLAIN as it is, ACT activated: QUANT_EIGHTS times QUANT_THREADS * 8 columns of a row for each block. NORM: a row for
 * each block, whose first columns stay in registers until their norm is known. Whether a row is there at all is asked
 * for together with what it holds: memory is there for all of them. */
enum { PLAIN, ACT, NORM };

/* What a thread has of a row: 8 values from column k on, as they are before a norm. */
template <int KIND> GPU_FN void quantize_get(const gk_quantize &a, uint32_t row, uint32_t k, bool whole, float *v)
{
	const bool eight = whole && k + 8 <= a.dim;

#pragma unroll
	for (int e = 0; e < 8; e++)
		v[e] = 0.0f;
	if (k >= a.dim)
		return;
	gk_get8(a.x, row, k, a.dim, eight, v);
	if (KIND == ACT) {
		float u[8] = { 0, 0, 0, 0, 0, 0, 0, 0 };

		if (a.up.p)
			gk_get8(a.up, row, k, a.dim, eight, u);
		if (a.act == KN_ACT_SILU) {
#pragma unroll
			for (int e = 0; e < 8; e++)
				v[e] = gk_act(KN_ACT_SILU, v[e], u[e]);
			return;
		}
#pragma unroll
		for (int e = 0; e < 8; e++)
			v[e] = k + e < a.dim ? gk_act(a.act, v[e], u[e]) : 0.0f;
	}
}

/* Lanes in groups that share 128 columns, all of them here or none. */
GPU_FN void quantize_put(const gk_quantize &a, uint32_t row, uint32_t k, const float *v)
{
	float most = 0.0f;

#pragma unroll
	for (int e = 0; e < 8; e++)
		most = fmaxf(most, fabsf(v[e]));
#pragma unroll
	for (int m = 1; m < QUANT_LANES; m <<= 1)
		most = fmaxf(most, gpu_shfl_xor(most, m));
	most = fmaxf(most, 1e-20f); /* of zeros alone: anything whose inverse is a number */

	const float by = 448.0f * gpu_inverse(most);

	if (k < a.ld)
		*(uint2 *)((uint8_t *)a.q + (size_t)row * a.ld + k) =
		        make_uint2(gpu_pack_e4m3(v[0] * by, v[1] * by) | gpu_pack_e4m3(v[2] * by, v[3] * by) << 16,
		                   gpu_pack_e4m3(v[4] * by, v[5] * by) | gpu_pack_e4m3(v[6] * by, v[7] * by) << 16);
	if (k % QUANT_BLOCK == 0 && k < a.dim)
		a.scale[(size_t)(k / QUANT_BLOCK) * a.ld_scale + row] = most * (1.0f / 448.0f);
}

template <int KIND> static __global__ void __launch_bounds__(QUANT_THREADS) quantize_kernel(GPU_PARAM gk_quantize a, bool whole)
{
	const uint32_t row = blockIdx.x, k = (blockIdx.y * QUANT_EIGHTS * QUANT_THREADS + threadIdx.x) * 8;
	float v[QUANT_EIGHTS][8];
	uint32_t n_rows;

	gpu_dependents_may_start();
	gpu_dependency_wait();
	n_rows = gk_n_rows(a.rows);
#pragma unroll
	for (uint32_t n = 0; n < QUANT_EIGHTS; n++)
		quantize_get<KIND>(a, row, k + n * QUANT_THREADS * 8, whole, v[n]);
	if (row >= n_rows)
		return;
#pragma unroll
	for (uint32_t n = 0; n < QUANT_EIGHTS; n++)
		quantize_put(a, row, k + n * QUANT_THREADS * 8, v[n]);
}

/* KEPT eights of a thread stay in registers. */
template <int KEPT>
static __global__ void __launch_bounds__(NORM_THREADS, KEPT == 1 ? 3 : 2)
        quantize_normed(GPU_PARAM gk_quantize a, bool whole)
{
	__shared__ float scratch[32];
	const uint32_t row = blockIdx.x;
	const gk_view norm_w = { (void *)a.norm_w, GK_F32, 0 };
	const bool w_whole = ((uintptr_t)a.norm_w & 15) == 0;
	float kept[KEPT][8], v[8], w[8] = { 1, 1, 1, 1, 1, 1, 1, 1 }, square = 0.0f;
	uint32_t n_rows;

	gpu_dependents_may_start();
	if (KEPT == 1 && a.norm_w && threadIdx.x * 8 < a.dim) /* long before they are needed */
		gk_get8(norm_w, 0, threadIdx.x * 8, a.dim, w_whole && threadIdx.x * 8 + 8 <= a.dim, w);
	gpu_dependency_wait();
	n_rows = gk_n_rows(a.rows);
#pragma unroll
	for (int n = 0; n < KEPT; n++) {
		quantize_get<NORM>(a, row, (n * NORM_THREADS + threadIdx.x) * 8, whole, kept[n]);
#pragma unroll
		for (int e = 0; e < 8; e++)
			square += kept[n][e] * kept[n][e];
	}
	if (row >= n_rows)
		return;
	for (uint32_t k = (KEPT * NORM_THREADS + threadIdx.x) * 8; k < a.dim; k += NORM_THREADS * 8) {
		quantize_get<NORM>(a, row, k, whole, v);
#pragma unroll
		for (int e = 0; e < 8; e++)
			square += v[e] * v[e];
	}

	const float factor = 1.0f / sqrtf(gpu_block_sum(square, scratch) / (float)a.dim + a.eps);

	/* All lanes of a group as long as one of them has columns. */
	for (uint32_t n = 0; n * NORM_THREADS * 8 < a.dim; n++) {
		const uint32_t k = (n * NORM_THREADS + threadIdx.x) * 8;

		if (n < KEPT) {
#pragma unroll
			for (int e = 0; e < 8; e++)
				v[e] = n == 0 ? kept[0][e] : kept[KEPT - 1][e];
		} else {
			quantize_get<NORM>(a, row, k, whole, v);
		}
		if (KEPT > 1 && a.norm_w && k < a.dim)
			gk_get8(norm_w, 0, k, a.dim, w_whole && k + 8 <= a.dim, w);
#pragma unroll
		for (int e = 0; e < 8; e++)
			v[e] *= factor * w[e];
		quantize_put(a, row, k, v);
	}
}

int gk_quantize_rows(const struct gk_ctx *ctx, const struct gk_quantize *a)
{
	const uint32_t at_once = QUANT_THREADS * 8 * QUANT_EIGHTS;
	const dim3 grid(a->rows.bound, (a->dim + at_once - 1) / at_once);
	const bool whole = gk_view_aligned(a->x) && (!a->is_act || gk_view_aligned(a->up));

	if (a->dim == 0 || a->ld < a->dim || a->ld % 64 || a->ld_scale < a->rows.bound || (a->is_act && a->norm))
		return -EINVAL;
	if (a->is_act)
		gpu_launch(quantize_kernel<ACT>, grid, dim3(QUANT_THREADS), 0, ctx->stream, ctx->overlap, *a, whole);
	else if (a->norm && a->dim <= NORM_THREADS * 8)
		gpu_launch(quantize_normed<1>, dim3(a->rows.bound), dim3(NORM_THREADS), 0, ctx->stream, ctx->overlap,
		           *a, whole);
	else if (a->norm)
		gpu_launch(quantize_normed<2>, dim3(a->rows.bound), dim3(NORM_THREADS), 0, ctx->stream, ctx->overlap,
		           *a, whole);
	else
		gpu_launch(quantize_kernel<PLAIN>, grid, dim3(QUANT_THREADS), 0, ctx->stream, ctx->overlap, *a, whole);
	return gk_launched();
}

int gk_product_hopper(const struct gk_ctx *ctx, const struct gk_product *l)
{
#if defined(GPU_HIP)
	(void)ctx, (void)l;
	return -ENOTSUP;
#else
	return ctx->sm == 90 ? prod_launch(ctx, l) : -ENOTSUP;
#endif
}
