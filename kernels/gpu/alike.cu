/* Values that tell orders of sums apart, and their comparison: see alike.h. */
#include "gpu/alike.h"
#include "gpu/view.h"

enum { THREADS = 256, BLOCKS_EACH = 8 };

GPU_FN uint32_t mixed(uint32_t a, uint32_t b)
{
	uint64_t v = ((uint64_t)a << 32 | b) * 0xbf58476d1ce4e5b9ull;

	v = (v ^ v >> 31) * 0x94d049bb133111ebull;
	return (uint32_t)(v >> 32);
}

GPU_FN size_t first_of()
{
	return (size_t)blockIdx.x * blockDim.x + threadIdx.x;
}

GPU_FN size_t step_of()
{
	return (size_t)gridDim.x * blockDim.x;
}

/* What rows of x and rows of W begin to count with. */
GPU_FN uint32_t seed_of(bool is_x)
{
	return is_x ? 1u << 30 : 0;
}

static __global__ void values_kernel(GPU_PARAM gk_alike a)
{
	const uint32_t half = a.cols / 2;

	gpu_dependents_may_start();
	gpu_dependency_wait();
	for (size_t i = first_of(); i < (size_t)a.rows * a.ld; i += step_of()) {
		const uint32_t row = (uint32_t)(i / a.ld), col = (uint32_t)(i % a.ld), at = col < half ? col : col - half;
		const uint32_t v = mixed(seed_of(a.is_x) + row, at), sign = (v >> 31) ^ (a.is_x && col >= half);
		const bool none = col >= 2 * half;

		/* Exponents of -7 to -2 (bfloat16) and -4 to 4 (e4m3, which has no more than 8). */
		if (a.eight_bits)
			((uint8_t *)a.p)[i] = none ? 0 : (uint8_t)(sign << 7 | (3 + v % 9) << 3 | (v >> 16 & 7));
		else
			((uint16_t *)a.p)[i] = none ? 0 : (uint16_t)(sign << 15 | (120 + v % 6) << 7 | (v >> 16 & 127));
	}
}

static __global__ void scales_kernel(GPU_PARAM gk_alike a)
{
	gpu_dependents_may_start();
	gpu_dependency_wait();
	for (size_t i = first_of(); i < (size_t)a.rows * a.ld; i += step_of()) {
		const uint32_t row = (uint32_t)(i / a.ld), col = (uint32_t)(i % a.ld), n = a.is_x ? a.rows : a.cols;
		const uint32_t half = n > 1 ? n / 2 : 1, block = (a.is_x ? row : col) % half, of = a.is_x ? col : row;

		((float *)a.p)[i] = (65536.0f + (float)(mixed(seed_of(a.is_x) + of, ~block) & 0xffff)) / 4194304.0f;
	}
}

static __global__ void summands_kernel(gk_view v, uint32_t rows)
{
	gpu_dependents_may_start();
	gpu_dependency_wait();
	for (size_t i = first_of(); i < (size_t)rows * v.ld; i += step_of()) {
		const uint32_t row = (uint32_t)(i / v.ld), col = (uint32_t)(i % v.ld);

		gk_put(v, row, col, ((float)(mixed(~row, col) >> 8) - 8388608.0f) / 8589934592.0f);
	}
}

static __global__ void count_kernel(const uint32_t *a, const uint32_t *b, size_t n, uint32_t *ret)
{
	uint32_t d = 0;

	gpu_dependents_may_start();
	gpu_dependency_wait();
	for (size_t i = first_of(); i < n; i += step_of())
		d += a[i] != b[i];
	if (d)
		(void)atomicAdd(ret, d);
}

static __global__ void zero_kernel(uint32_t *p)
{
	gpu_dependents_may_start();
	gpu_dependency_wait();
	*p = 0;
}

static dim3 blocks_for(const struct gk_ctx *ctx, size_t n)
{
	const size_t all = (n + THREADS - 1) / THREADS, most = (size_t)ctx->n_sm * BLOCKS_EACH;

	return dim3((unsigned)(all < most ? all : most));
}

int gk_alike_values(const struct gk_ctx *ctx, const struct gk_alike *a)
{
	gpu_launch(values_kernel, blocks_for(ctx, (size_t)a->rows * a->ld), dim3(THREADS), 0, ctx->stream, ctx->overlap, *a);
	return gk_launched();
}

int gk_alike_scales(const struct gk_ctx *ctx, const struct gk_alike *a)
{
	gpu_launch(scales_kernel, blocks_for(ctx, (size_t)a->rows * a->ld), dim3(THREADS), 0, ctx->stream, ctx->overlap, *a);
	return gk_launched();
}

int gk_alike_summands(const struct gk_ctx *ctx, void *p, uint32_t elem, uint32_t rows, uint32_t ld)
{
	const gk_view v = { p, elem, ld };

	gpu_launch(summands_kernel, blocks_for(ctx, (size_t)rows * ld), dim3(THREADS), 0, ctx->stream, ctx->overlap, v, rows);
	return gk_launched();
}

int gk_alike_count(const struct gk_ctx *ctx, const void *a, const void *b, size_t n, uint32_t *ret_n)
{
	gpu_launch(zero_kernel, dim3(1), dim3(1), 0, ctx->stream, ctx->overlap, ret_n);
	gpu_launch(count_kernel, blocks_for(ctx, n), dim3(THREADS), 0, ctx->stream, ctx->overlap, (const uint32_t *)a,
	           (const uint32_t *)b, n, ret_n);
	return gk_launched();
}
