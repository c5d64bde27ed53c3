/* binary16 and bfloat16 to float and back, in portable C, rounding to nearest even. */
#ifndef KN_REF_HALF_H
#define KN_REF_HALF_H

#include <stdint.h>
#include <string.h>

static inline uint32_t kn_f32_bits(float f)
{
	uint32_t u;

	memcpy(&u, &f, sizeof(u));
	return u;
}

static inline float kn_bits_f32(uint32_t u)
{
	float f;

	memcpy(&f, &u, sizeof(f));
	return f;
}

static inline float kn_f16_to_f32(uint16_t h)
{
	uint32_t sign = (uint32_t)(h & 0x8000u) << 16, exp = (h >> 10) & 0x1fu, mant = h & 0x3ffu;

	if (exp == 0) /* zero and subnormals: mant * 2^-24, exact in float */
		return kn_bits_f32(sign | kn_f32_bits((float)mant * 0x1p-24f));
	if (exp == 31)
		return kn_bits_f32(sign | 0x7f800000u | mant << 13);
	return kn_bits_f32(sign | (exp + 112) << 23 | mant << 13);
}

static inline uint16_t kn_f32_to_f16(float f)
{
	uint32_t u = kn_f32_bits(f), sign = u >> 16 & 0x8000u, a = u & 0x7fffffffu;

	if (a > 0x7f800000u)
		return (uint16_t)(sign | 0x7e00u | (a >> 13 & 0x3ffu));
	if (a >= 0x477ff000u) /* 65520 and more round to infinity */
		return (uint16_t)(sign | 0x7c00u);
	if (a < 0x38800000u) /* below 2^-14: adding 0.5 leaves multiples of 2^-24 in the low bits, rounded */
		return (uint16_t)(sign | (kn_f32_bits(kn_bits_f32(a) + 0.5f) - 0x3f000000u));
	a += 0xfffu + (a >> 13 & 1u);
	return (uint16_t)(sign | (a - 0x38000000u) >> 13);
}

static inline float kn_bf16_to_f32(uint16_t h)
{
	return kn_bits_f32((uint32_t)h << 16);
}

static inline uint16_t kn_f32_to_bf16(float f)
{
	uint32_t u = kn_f32_bits(f);

	if ((u & 0x7fffffffu) > 0x7f800000u)
		return (uint16_t)(u >> 16 | 0x40u); /* a quiet NaN stays one */
	return (uint16_t)((u + 0x7fffu + (u >> 16 & 1u)) >> 16);
}

static inline uint16_t kn_load_u16(const uint8_t *p)
{
	return (uint16_t)(p[0] | p[1] << 8);
}

static inline void kn_store_u16(uint8_t *p, uint16_t v)
{
	p[0] = (uint8_t)v;
	p[1] = (uint8_t)(v >> 8);
}

static inline float kn_load_f16(const uint8_t *p)
{
	return kn_f16_to_f32(kn_load_u16(p));
}

/* e4m3 as OCP defines it: bias 7, no infinity, all ones is no number. */
static inline float kn_e4m3_to_f32(uint8_t b)
{
	uint32_t sign = (uint32_t)(b & 0x80u) << 24, a = b & 0x7fu;

	if (a == 0x7fu)
		return kn_bits_f32(sign | 0x7fc00000u);
	if (a < 8u) /* zero and subnormals */
		return kn_bits_f32(sign | kn_f32_bits((float)a * 0x1p-9f));
	return kn_bits_f32(sign | ((a << 20) + (120u << 23)));
}

/* To nearest even; what is beyond the largest, 448, becomes it. */
static inline uint8_t kn_f32_to_e4m3(float f)
{
	uint32_t u = kn_f32_bits(f), sign = u >> 24 & 0x80u, a = u & 0x7fffffffu;

	if (a > 0x7f800000u)
		return (uint8_t)(sign | 0x7fu);
	if (a >= 0x43e00000u)
		return (uint8_t)(sign | 0x7eu);
	if (a < 0x3c800000u) /* below 2^-6: adding 2^14 leaves multiples of 2^-9 in the low bits, rounded */
		return (uint8_t)(sign | (kn_f32_bits(kn_bits_f32(a) + 0x1p14f) - 0x46800000u));
	a += 0x7ffffu + (a >> 20 & 1u);
	return (uint8_t)(sign | (a - (120u << 23)) >> 20);
}

#endif
