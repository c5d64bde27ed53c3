/* The 32-value block formats of GGUF (ggml's block_q8_0, block_q4_0, ... ):
 *
 *   Q8_0   f16 d, int8 q[32]                     x = d * q
 *   Q4_0   f16 d, u8 qs[16]                      x = d * (q - 8)
 *   Q4_1   f16 d, f16 m, u8 qs[16]               x = d * q + m
 *   Q5_0   f16 d, u32 qh, u8 qs[16]              x = d * (q - 16)
 *   Q5_1   f16 d, f16 m, u32 qh, u8 qs[16]       x = d * q + m
 *
 * Byte j of qs holds value j in its low four bits and value j + 16 in its high four; bit i of qh is the
 * fifth bit of value i. All little endian. Encoding searches the scale (quant_fit.c); the format is the
 * usual one. Q8_0 keeps to [-127, 127]: -128 has no positive twin, which integer kernels rely on. */
#include "ref/quant.h"

#include "ref/half.h"
#include "ref/quant_fit.h"

enum { HALF = KN_BLOCK / 2 };

/* The unsigned q of each value. */
static void unpack(const uint8_t *qs, uint32_t qh, uint8_t q[KN_BLOCK])
{
	for (int j = 0; j < HALF; j++) {
		q[j] = (uint8_t)((qs[j] & 15u) | (qh >> j & 1u) << 4);
		q[j + HALF] = (uint8_t)(qs[j] >> 4 | (qh >> (j + HALF) & 1u) << 4);
	}
}

static uint32_t pack(const int8_t q[KN_BLOCK], int offset, uint8_t *qs)
{
	uint32_t qh = 0;

	for (int j = 0; j < HALF; j++) {
		unsigned a = (unsigned)(q[j] + offset), b = (unsigned)(q[j + HALF] + offset);

		qs[j] = (uint8_t)((a & 15u) | (b & 15u) << 4);
		qh |= (uint32_t)(a >> 4 & 1u) << j | (uint32_t)(b >> 4 & 1u) << (j + HALF);
	}
	return qh;
}

static uint32_t load_u32(const uint8_t *p)
{
	return (uint32_t)p[0] | (uint32_t)p[1] << 8 | (uint32_t)p[2] << 16 | (uint32_t)p[3] << 24;
}

static void store_u32(uint8_t *p, uint32_t v)
{
	for (int i = 0; i < 4; i++)
		p[i] = (uint8_t)(v >> (8 * i));
}

static void decode_symmetric(const uint8_t *qs, uint32_t qh, float d, int offset, float *dst)
{
	uint8_t q[KN_BLOCK];

	unpack(qs, qh, q);
	for (int i = 0; i < KN_BLOCK; i++)
		dst[i] = d * (float)((int)q[i] - offset);
}

static void decode_affine(const uint8_t *qs, uint32_t qh, float d, float m, float *dst)
{
	uint8_t q[KN_BLOCK];

	unpack(qs, qh, q);
	for (int i = 0; i < KN_BLOCK; i++)
		dst[i] = d * (float)q[i] + m;
}

void kn_q8_0_decode(const uint8_t *src, float *dst)
{
	float d = kn_load_f16(src);

	for (int i = 0; i < KN_BLOCK; i++)
		dst[i] = d * (float)(int8_t)src[2 + i];
}

void kn_q4_0_decode(const uint8_t *src, float *dst)
{
	decode_symmetric(src + 2, 0, kn_load_f16(src), 8, dst);
}

void kn_q4_1_decode(const uint8_t *src, float *dst)
{
	decode_affine(src + 4, 0, kn_load_f16(src), kn_load_f16(src + 2), dst);
}

void kn_q5_0_decode(const uint8_t *src, float *dst)
{
	decode_symmetric(src + 6, load_u32(src + 2), kn_load_f16(src), 16, dst);
}

void kn_q5_1_decode(const uint8_t *src, float *dst)
{
	decode_affine(src + 8, load_u32(src + 4), kn_load_f16(src), kn_load_f16(src + 2), dst);
}

/* Searches d, stores it, and leaves q in [lo, hi]. */
static void encode_symmetric(const float *src, float lo, float hi, uint8_t *ret_d, int8_t q[KN_BLOCK])
{
	const struct kn_grid grid = { lo, hi };
	float d = kn_fit_scale(&grid, src, KN_BLOCK, true);

	kn_store_u16(ret_d, kn_f32_to_f16(d));
	kn_grid_quantize(&grid, src, KN_BLOCK, d, 0.0f, q);
}

static void encode_affine(const float *src, float hi, uint8_t *ret_dm, int8_t q[KN_BLOCK])
{
	const struct kn_grid grid = { 0.0f, hi };
	float d, m;

	kn_fit_affine(&grid, src, KN_BLOCK, true, false, &d, &m);
	kn_store_u16(ret_dm, kn_f32_to_f16(d));
	kn_store_u16(ret_dm + 2, kn_f32_to_f16(m));
	kn_grid_quantize(&grid, src, KN_BLOCK, d, m, q);
}

void kn_q8_0_encode(const float *src, uint8_t *dst)
{
	int8_t q[KN_BLOCK];

	encode_symmetric(src, -127.0f, 127.0f, dst, q);
	memcpy(dst + 2, q, sizeof(q));
}

void kn_q4_0_encode(const float *src, uint8_t *dst)
{
	int8_t q[KN_BLOCK];

	encode_symmetric(src, -8.0f, 7.0f, dst, q);
	(void)pack(q, 8, dst + 2); /* four bits: the fifth is always clear */
}

void kn_q4_1_encode(const float *src, uint8_t *dst)
{
	int8_t q[KN_BLOCK];

	encode_affine(src, 15.0f, dst, q);
	(void)pack(q, 0, dst + 4);
}

void kn_q5_0_encode(const float *src, uint8_t *dst)
{
	int8_t q[KN_BLOCK];

	encode_symmetric(src, -16.0f, 15.0f, dst, q);
	store_u32(dst + 2, pack(q, 16, dst + 6));
}

void kn_q5_1_encode(const float *src, uint8_t *dst)
{
	int8_t q[KN_BLOCK];

	encode_affine(src, 31.0f, dst, q);
	store_u32(dst + 4, pack(q, 0, dst + 8));
}
