/* Single elements of packed matrices: for the rows of an embedding and for products in float32. */
#ifndef GPU_MAT_VALUE_H
#define GPU_MAT_VALUE_H

#include "gpu/mat.h"

/* Element (row, k) of any type, as kn_dequantize() has it. */
GPU_FN float gk_value(const gk_mat &m, uint32_t row, uint32_t k)
{
	const size_t at = (size_t)row * m.ld + k;

	if (m.type == KN_F32)
		return ((const float *)m.values)[at];
	if (m.type == KN_BF16)
		return gpu_from_bf16(((const gpu_bf16 *)m.values)[at]);
	if (m.type == KN_F16)
		return gpu_from_f16(((const gpu_f16 *)m.values)[at]);
	if (m.type == GK_FP8_128)
		return gpu_from_e4m3(((const uint8_t *)m.values)[at]) *
		       ((const float *)m.scales)[(size_t)((m.first_row + row) >> 7) * gk_fp8_across(m.cols) + (k >> 7)];

	const uint32_t unit_cols = gk_unit(m.type), unit = k / unit_cols, c = k % unit_cols / 32, kk = k % 32;
	const uint32_t t = kk % 16 / 4, e = kk / 16 * 4 + kk % 4, n_units = gk_n_units(m);
	const size_t entry = ((size_t)(row >> 3) * n_units + unit) * 8 + (row & 7), lane = entry * 4 + t;
	const uint8_t *v = (const uint8_t *)m.values + lane * 16;
	const uint8_t *s = (const uint8_t *)m.scales + entry * gk_scale_bytes(m.type);

	if (m.type == KN_Q8_0) {
		const int q = (int8_t)v[8 * c + (e & 4) + ((e & 1) << 1 | (e >> 1 & 1))];

		return gpu_from_f16(((const gpu_f16 *)s)[c]) * (float)q;
	}

	const uint32_t nibble = e / 2 + 4 * (e & 1), bit = e / 2 + 16 * (e & 1);
	uint32_t q = ((const uint32_t *)v)[c] >> (4 * nibble) & 15u;

	switch (m.type) {
	case KN_Q5_0:
	case KN_Q5_1:
	case KN_Q5_K:
		q |= (((const uint32_t *)m.high)[lane] >> (4 * c + bit) & 1u) << 4;
		break;
	case KN_Q6_K:
		q |= (((const uint32_t *)m.high)[2 * lane + c / 2] >> (8 * (c & 1) + 2 * (e / 2) + 16 * (e & 1)) & 3u)
		     << 4;
		return gpu_from_f16((gpu_f16)((const uint32_t *)s)[2]) * (float)(int8_t)s[2 * c + kk / 16] *
		       (float)((int)q - 32);
	default:
		break;
	}
	switch (m.type) {
	case KN_MXFP4:
		return gk_e8m0(s[c]) * gpu_bf16_low(gk_e2m1_to_bf16(q));
	case KN_Q4_0:
		return gpu_from_f16(((const gpu_f16 *)s)[c]) * (float)((int)q - 8);
	case KN_Q5_0:
		return gpu_from_f16(((const gpu_f16 *)s)[c]) * (float)((int)q - 16);
	case KN_Q4_1:
	case KN_Q5_1:
		return gpu_from_f16(((const gpu_f16 *)s)[2 * c]) * (float)q +
		       gpu_from_f16(((const gpu_f16 *)s)[2 * c + 1]);
	default: {
		const size_t super = ((size_t)(row >> 3) * (n_units / 2) + unit / 2) * 8 + (row & 7);
		float d, min;

		gk_k_scale(((const uint4 *)m.scales)[super], (unit & 1) * 4 + c, &d, &min);
		return d * (float)q - min;
	}
	}
}

#endif
