/* Activations and rows as kernels read them. */
#ifndef GPU_VIEW_H
#define GPU_VIEW_H

#include "gpu/gpu.h"
#include "gpu/launch.h"

GPU_FN float gk_get(const gk_view &v, size_t row, size_t col)
{
	const size_t at = row * v.ld + col;

	if (v.elem == GK_F32)
		return ((const float *)v.p)[at];
	return v.elem == GK_BF16 ? gpu_from_bf16(((const gpu_bf16 *)v.p)[at])
	                         : gpu_from_f16(((const gpu_f16 *)v.p)[at]);
}

GPU_FN void gk_put(const gk_view &v, size_t row, size_t col, float f)
{
	const size_t at = row * v.ld + col;

	if (v.elem == GK_F32)
		((float *)v.p)[at] = f;
	else if (v.elem == GK_BF16)
		((gpu_bf16 *)v.p)[at] = gpu_to_bf16(f);
	else
		((gpu_f16 *)v.p)[at] = gpu_to_f16(f);
}

GPU_FN uint32_t gk_n_rows(const gk_rows &rows)
{
	return rows.n ? *rows.n : rows.bound;
}

/* Eight consecutive values; `whole`: they exist and may be read 16 bytes at a time, else those at and beyond `end` are
 * zero. */
GPU_FN void gk_get8(const gk_view &v, size_t row, uint32_t col, uint32_t end, bool whole, float *ret)
{
	if (!whole) {
#pragma unroll
		for (uint32_t i = 0; i < 8; i++)
			ret[i] = col + i < end ? gk_get(v, row, col + i) : 0.0f;
	} else if (v.elem == GK_F32) {
		const float4 *p = (const float4 *)((const float *)v.p + row * v.ld + col);
		const float4 a = p[0], b = p[1];

		ret[0] = a.x, ret[1] = a.y, ret[2] = a.z, ret[3] = a.w;
		ret[4] = b.x, ret[5] = b.y, ret[6] = b.z, ret[7] = b.w;
	} else {
		const uint4 u = *(const uint4 *)((const uint16_t *)v.p + row * v.ld + col);
		const uint32_t w[4] = { u.x, u.y, u.z, u.w };

		if (v.elem == GK_BF16) {
#pragma unroll
			for (int i = 0; i < 4; i++) {
				ret[2 * i] = gpu_bf16_low(w[i]);
				ret[2 * i + 1] = gpu_bf16_high(w[i]);
			}
			return;
		}
#pragma unroll
		for (int i = 0; i < 4; i++) {
			ret[2 * i] = gpu_from_f16((gpu_f16)w[i]);
			ret[2 * i + 1] = gpu_from_f16((gpu_f16)(w[i] >> 16));
		}
	}
}

GPU_FN void gk_get4(const gk_view &v, size_t row, uint32_t col, uint32_t end, bool whole, float *ret)
{
	if (!whole || col + 4 > end) {
#pragma unroll
		for (uint32_t i = 0; i < 4; i++)
			ret[i] = col + i < end ? gk_get(v, row, col + i) : 0.0f;
	} else if (v.elem == GK_F32) {
		const float4 a = *(const float4 *)((const float *)v.p + row * v.ld + col);

		ret[0] = a.x, ret[1] = a.y, ret[2] = a.z, ret[3] = a.w;
	} else {
		const uint2 u = *(const uint2 *)((const uint16_t *)v.p + row * v.ld + col);
		const bool bf16 = v.elem == GK_BF16;

		ret[0] = bf16 ? gpu_bf16_low(u.x) : gpu_from_f16((gpu_f16)u.x);
		ret[1] = bf16 ? gpu_bf16_high(u.x) : gpu_from_f16((gpu_f16)(u.x >> 16));
		ret[2] = bf16 ? gpu_bf16_low(u.y) : gpu_from_f16((gpu_f16)u.y);
		ret[3] = bf16 ? gpu_bf16_high(u.y) : gpu_from_f16((gpu_f16)(u.y >> 16));
	}
}

/* Eight from element `at` on, 16 bytes at a time. */
GPU_FN void gk_put8_at(const gk_view &v, size_t at, const float *f)
{
	if (v.elem == GK_F32) {
		float4 *p = (float4 *)((float *)v.p + at);

		p[0] = make_float4(f[0], f[1], f[2], f[3]);
		p[1] = make_float4(f[4], f[5], f[6], f[7]);
	} else if (v.elem == GK_BF16) {
		*(uint4 *)((uint16_t *)v.p + at) = make_uint4(gpu_pack_bf16(f[0], f[1]), gpu_pack_bf16(f[2], f[3]),
		                                              gpu_pack_bf16(f[4], f[5]), gpu_pack_bf16(f[6], f[7]));
	} else {
		uint32_t w[4];

#pragma unroll
		for (int i = 0; i < 4; i++)
			w[i] = gpu_to_f16(f[2 * i]) | (uint32_t)gpu_to_f16(f[2 * i + 1]) << 16;
		*(uint4 *)((uint16_t *)v.p + at) = make_uint4(w[0], w[1], w[2], w[3]);
	}
}

GPU_FN void gk_put8(const gk_view &v, size_t row, uint32_t col, uint32_t end, bool whole, const float *f)
{
	if (whole) {
		gk_put8_at(v, row * v.ld + col, f);
		return;
	}
#pragma unroll
	for (uint32_t i = 0; i < 8; i++) {
		if (col + i < end)
			gk_put(v, row, col + i, f[i]);
	}
}

/* Whether gk_get8() may take all but a last ragged part of rows 16 bytes at a time. Absent views do. */
static inline bool gk_view_aligned(const gk_view &v)
{
	const uint32_t bytes = v.elem == GK_F32 ? 4 : 2;

	return ((uintptr_t)v.p & 15) == 0 && v.ld * bytes % 16 == 0;
}

GPU_FN float gk_sigmoid(float x)
{
	return gpu_inverse(1.0f + gpu_exp(-x));
}

/* As kn_ops.act_mul. */
GPU_FN float gk_act(uint32_t act, float g, float u)
{
	const float limit = 7.0f;

	switch (act) {
	case KN_ACT_SILU:
		return g * gk_sigmoid(g) * u;
	case KN_ACT_GELU_TANH:
		return 0.5f * g * (1.0f + tanhf(0.79788456080286535588f * (g + 0.044715f * g * g * g))) * u;
	case KN_ACT_SWIGLU_OSS:
		g = fminf(g, limit);
		u = fminf(fmaxf(u, -limit), limit);
		return g * gk_sigmoid(1.702f * g) * (u + 1.0f);
	case KN_ACT_SIGMOID:
		return gk_sigmoid(g) * u;
	default:
		return 0.5f * g * (1.0f + erff(g * 0.70710678118654752440f));
	}
}

/* What a launcher returns: -EIO with the device's words kept for gk_error_text(). */
int gk_launched(void);

#endif
