/* Rows of activations in eight bits, for products with FP8 weights: each 128 columns of a row are divided by a scale of
 * their own, so that the greatest of them becomes the greatest value of the type. */
#include <errno.h>

#include "gpu/mat.h"
#include "gpu/view.h"

enum {
	QUANT_THREADS = 256,
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

static __global__ void quantize_kernel(uint8_t *q, uint32_t ld, float *scale, uint32_t ld_scale, gk_view x, gk_rows rows,
                                       uint32_t dim, uint32_t n_blocks, bool whole)
{
	const size_t i = ((size_t)blockIdx.x * QUANT_THREADS + threadIdx.x) / QUANT_LANES;
	const uint32_t row = (uint32_t)(i / n_blocks), block = (uint32_t)(i % n_blocks);
	const uint32_t lane = threadIdx.x % QUANT_LANES, k = block * QUANT_BLOCK + lane * 8;
	float v[8] = { 0, 0, 0, 0, 0, 0, 0, 0 }, most = 0.0f;
	bool there;

	gpu_dependents_may_start();
	gpu_dependency_wait();
	there = row < gk_n_rows(rows);
	if (there && k < dim)
		gk_get8(x, row, k, dim, whole && k + 8 <= dim, v);
#pragma unroll
	for (int e = 0; e < 8; e++)
		most = fmaxf(most, fabsf(v[e]));
#pragma unroll
	for (int m = 1; m < QUANT_LANES; m <<= 1)
		most = fmaxf(most, gpu_shfl_xor(most, m));
	if (!there)
		return;
	most = fmaxf(most, 1e-20f); /* of zeros alone: anything whose inverse is a number */

	const float by = 448.0f / most;

	if (k < ld)
		*(uint2 *)(q + (size_t)row * ld + k) =
		        make_uint2(pack_e4m3(v[0] * by, v[1] * by) | pack_e4m3(v[2] * by, v[3] * by) << 16,
		                   pack_e4m3(v[4] * by, v[5] * by) | pack_e4m3(v[6] * by, v[7] * by) << 16);
	if (lane == 0)
		scale[(size_t)block * ld_scale + row] = most * (1.0f / 448.0f);
}

int gk_quantize_rows(const struct gk_ctx *ctx, void *q, uint32_t ld, float *scale, uint32_t ld_scale, struct gk_view x,
                     struct gk_rows rows, uint32_t dim)
{
	const uint32_t n_blocks = (dim + QUANT_BLOCK - 1) / QUANT_BLOCK;
	const size_t n = (size_t)rows.bound * n_blocks * QUANT_LANES;

	if (dim == 0 || ld < dim || ld % 64 || ld_scale < rows.bound)
		return -EINVAL;
	gpu_launch(quantize_kernel, dim3((unsigned)((n + QUANT_THREADS - 1) / QUANT_THREADS)), dim3(QUANT_THREADS), 0,
	           ctx->stream, ctx->overlap, (uint8_t *)q, ld, scale, ld_scale, x, rows, dim, n_blocks,
	           gk_view_aligned(x));
	return gk_launched();
}
