/* Rows of activations in eight bits, for products with FP8 weights: each 128 columns of a row are divided by a scale of
 * their own, so that the greatest of them becomes the greatest value of the type. What makes the rows (a norm, an
 * activation) can be done on the way. */
#include <errno.h>

#include "gpu/mat.h"
#include "gpu/view.h"

enum {
	QUANT_THREADS = 256,
	NORM_THREADS = 512,
	QUANT_BLOCK = 128,             /* columns that share a scale */
	QUANT_LANES = QUANT_BLOCK / 8, /* that share a block */
};

/* Two values in the low half, the first in the lowest byte. */
GPU_FN uint32_t pack_e4m3(float a, float b)
{
#if GPU_PTX && __CUDA_ARCH__ >= 890
	uint16_t r;

	asm("cvt.rn.satfinite.e4m3x2.f32 %0, %1, %2;" : "=h"(r) : "f"(b), "f"(a));
	return r;
#else
	return gpu_to_e4m3(a) | (uint32_t)gpu_to_e4m3(b) << 8;
#endif
}

/* PLAIN as it is, ACT activated: QUANT_THREADS * 8 columns of a row for each block. NORM: a row for each block of
 * NORM_THREADS, whose first columns stay in registers until their norm is known. */
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

	const float by = 448.0f / most;

	if (k < a.ld)
		*(uint2 *)((uint8_t *)a.q + (size_t)row * a.ld + k) =
		        make_uint2(pack_e4m3(v[0] * by, v[1] * by) | pack_e4m3(v[2] * by, v[3] * by) << 16,
		                   pack_e4m3(v[4] * by, v[5] * by) | pack_e4m3(v[6] * by, v[7] * by) << 16);
	if (k % QUANT_BLOCK == 0 && k < a.dim)
		a.scale[(size_t)(k / QUANT_BLOCK) * a.ld_scale + row] = most * (1.0f / 448.0f);
}

template <int KIND> static __global__ void __launch_bounds__(QUANT_THREADS) quantize_kernel(GPU_PARAM gk_quantize a, bool whole)
{
	const uint32_t row = blockIdx.x, k = (blockIdx.y * QUANT_THREADS + threadIdx.x) * 8;
	float v[8];

	gpu_dependents_may_start();
	gpu_dependency_wait();
	if (row >= gk_n_rows(a.rows))
		return;
	quantize_get<KIND>(a, row, k, whole, v);
	quantize_put(a, row, k, v);
}

static __global__ void __launch_bounds__(NORM_THREADS) quantize_normed(GPU_PARAM gk_quantize a, bool whole)
{
	enum { KEPT = 2 };
	__shared__ float scratch[32];
	const uint32_t row = blockIdx.x;
	const gk_view norm_w = { (void *)a.norm_w, GK_F32, 0 };
	const bool w_whole = ((uintptr_t)a.norm_w & 15) == 0;
	float kept[KEPT][8], v[8], w[8] = { 1, 1, 1, 1, 1, 1, 1, 1 }, square = 0.0f;

	gpu_dependents_may_start();
	gpu_dependency_wait();
	if (row >= gk_n_rows(a.rows))
		return;
#pragma unroll
	for (int n = 0; n < KEPT; n++) {
		quantize_get<NORM>(a, row, (n * NORM_THREADS + threadIdx.x) * 8, whole, kept[n]);
#pragma unroll
		for (int e = 0; e < 8; e++)
			square += kept[n][e] * kept[n][e];
	}
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
		if (a.norm_w && k < a.dim)
			gk_get8(norm_w, 0, k, a.dim, w_whole && k + 8 <= a.dim, w);
#pragma unroll
		for (int e = 0; e < 8; e++)
			v[e] *= factor * w[e];
		quantize_put(a, row, k, v);
	}
}

int gk_quantize_rows(const struct gk_ctx *ctx, const struct gk_quantize *a)
{
	const dim3 grid(a->rows.bound, (a->dim + QUANT_THREADS * 8 - 1) / (QUANT_THREADS * 8));
	const bool whole = gk_view_aligned(a->x) && (!a->is_act || gk_view_aligned(a->up));

	if (a->dim == 0 || a->ld < a->dim || a->ld % 64 || a->ld_scale < a->rows.bound || (a->is_act && a->norm))
		return -EINVAL;
	if (a->is_act)
		gpu_launch(quantize_kernel<ACT>, grid, dim3(QUANT_THREADS), 0, ctx->stream, ctx->overlap, *a, whole);
	else if (a->norm)
		gpu_launch(quantize_normed, dim3(a->rows.bound), dim3(NORM_THREADS), 0, ctx->stream, ctx->overlap, *a,
		           whole);
	else
		gpu_launch(quantize_kernel<PLAIN>, grid, dim3(QUANT_THREADS), 0, ctx->stream, ctx->overlap, *a, whole);
	return gk_launched();
}
