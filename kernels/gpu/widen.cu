/* Matrices as bfloat16, row-major: what a library's product of many rows takes. One thread for what one lane would load. */
#include <errno.h>

#include "gpu/mat.h"
#include "gpu/view.h"

/* Eight values from element 0 of lane group t in chunk c, where they belong in the row. */
GPU_FN void put_piece(gpu_bf16 *row, uint32_t order, uint32_t first, uint32_t c, uint32_t t, const uint32_t *w)
{
	const uint32_t k0 = first + gk_column(order, c, t, 0), k1 = first + gk_column(order, c, t, 4);
	uint2 a = make_uint2(w[0], w[1]), b = make_uint2(w[2], w[3]);

	if (order == 2) { /* elements 0 2 1 3 back into line */
		a = make_uint2((w[0] & 0xffffu) | w[1] << 16, w[0] >> 16 | (w[1] & 0xffff0000u));
		b = make_uint2((w[2] & 0xffffu) | w[3] << 16, w[2] >> 16 | (w[3] & 0xffff0000u));
	}
	*(uint2 *)(row + k0) = a;
	*(uint2 *)(row + k1) = b;
}

template <uint32_t TYPE> static __global__ void widen_kernel(gk_mat m, gpu_bf16 *dst, uint32_t ld)
{
	typedef gk_format<TYPE> F;
	const uint32_t n_units = gk_n_units(m);
	const size_t i = (size_t)blockIdx.x * blockDim.x + threadIdx.x;
	const uint32_t t = i & 3, unit = (uint32_t)(i >> 2) % n_units, row = (uint32_t)((i >> 2) / n_units);
	typename F::raw raw;
	typename F::scale scale;

	gpu_dependents_may_start();
	gpu_dependency_wait();
	if (row >= m.rows)
		return;
	F::fetch(raw, F::where(m, row, t, n_units), unit);
	if ((int)F::SCALED != 0)
		F::fetch_scale(scale, F::scale_where(m, row, n_units), unit);
#pragma unroll
	for (int c = 0; c < F::CHUNKS; c++) {
		const uint4 v = F::piece(raw, c);
		uint32_t w[4] = { v.x, v.y, v.z, v.w };

		if ((int)F::SCALED != 0) {
			float d[2], min[2];

			F::get_scale(scale, unit, c, 0, &d[0], &min[0]);
			F::get_scale(scale, unit, c, 1, &d[1], &min[1]);
#pragma unroll
			for (int j = 0; j < 4; j++)
				w[j] = gpu_pack_bf16(gpu_bf16_low(w[j]) * d[j >> 1] - min[j >> 1],
				                     gpu_bf16_high(w[j]) * d[j >> 1] - min[j >> 1]);
		}
		/* Whole eights of columns are written; a last chunk may reach beyond the row's end. */
		if (unit * F::UNIT + 32 * (uint32_t)c + 32 <= ld || (int)F::ORDER == 2)
			put_piece(dst + (size_t)row * ld, F::ORDER, unit * F::UNIT, (uint32_t)c, t, w);
		else if ((int)F::ORDER == 0 && unit * F::UNIT + 32 * (uint32_t)c + 8 * t + 8 <= ld)
			put_piece(dst + (size_t)row * ld, F::ORDER, unit * F::UNIT, (uint32_t)c, t, w);
	}
}

template <uint32_t TYPE> static int widen(const struct gk_ctx *ctx, const struct gk_mat *m, void *dst, uint32_t ld)
{
	const size_t n = (size_t)m->rows * gk_n_units(*m) * 4;

	gpu_launch(widen_kernel<TYPE>, dim3((unsigned)((n + 255) / 256)), dim3(256), 0, ctx->stream, ctx->overlap, *m,
	           (gpu_bf16 *)dst, ld);
	return gk_launched();
}

int gk_mat_widen(const struct gk_ctx *ctx, const struct gk_mat *mat, void *dst, uint32_t ld)
{
	if (ld < mat->cols || ld % 8 || (mat->type == GK_FP8_128 && ld < (mat->cols + 63) / 64 * 64))
		return -EINVAL;
	switch (mat->type) {
	case KN_F16:
		return widen<KN_F16>(ctx, mat, dst, ld);
	case KN_BF16:
		return widen<KN_BF16>(ctx, mat, dst, ld);
	case GK_FP8_128:
		return widen<GK_FP8_128>(ctx, mat, dst, ld);
	case KN_Q8_0:
		return widen<KN_Q8_0>(ctx, mat, dst, ld);
	case KN_MXFP4:
		return widen<KN_MXFP4>(ctx, mat, dst, ld);
	case KN_Q4_0:
		return widen<KN_Q4_0>(ctx, mat, dst, ld);
	case KN_Q4_1:
		return widen<KN_Q4_1>(ctx, mat, dst, ld);
	case KN_Q5_0:
		return widen<KN_Q5_0>(ctx, mat, dst, ld);
	case KN_Q5_1:
		return widen<KN_Q5_1>(ctx, mat, dst, ld);
	case KN_Q4_K:
		return widen<KN_Q4_K>(ctx, mat, dst, ld);
	case KN_Q5_K:
		return widen<KN_Q5_K>(ctx, mat, dst, ld);
	case KN_Q6_K:
		return widen<KN_Q6_K>(ctx, mat, dst, ld);
	default:
		return -ENOTSUP;
	}
}
