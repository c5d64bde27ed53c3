/* Four floats in a compiler vector: the vector vocabulary of the templates for any machine. What has no
 * vector form is done lane by lane. The functions are described in vec_avx512.h. */
#ifndef CPU_VEC_SCALAR_H
#define CPU_VEC_SCALAR_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "ref/half.h"

enum { VL = 4 };
typedef float vf __attribute__((vector_size(16)));
typedef int32_t vi __attribute__((vector_size(16)));

static inline vf v_set1(float a)
{
	return (vf){ a, a, a, a };
}

static inline vf v_load(const float *p)
{
	vf a;

	memcpy(&a, p, sizeof(a));
	return a;
}

static inline vf v_load_part(const float *p, size_t n)
{
	vf a = { 0 };

	memcpy(&a, p, n * sizeof(*p));
	return a;
}

static inline void v_store(float *p, vf a)
{
	memcpy(p, &a, sizeof(a));
}

static inline void v_store_part(float *p, vf a, size_t n)
{
	memcpy(p, &a, n * sizeof(*p));
}

static inline vf v_load_f16_part(const uint16_t *p, size_t n)
{
	float tmp[4] = { 0 };

	for (size_t i = 0; i < n; i++) {
		uint16_t h;

		memcpy(&h, p + i, sizeof(h));
		tmp[i] = kn_f16_to_f32(h);
	}
	return v_load(tmp);
}

static inline vf v_load_f16(const uint16_t *p)
{
	return v_load_f16_part(p, 4);
}

static inline vf v_load_bf16_part(const uint16_t *p, size_t n)
{
	float tmp[4] = { 0 };

	for (size_t i = 0; i < n; i++) {
		uint16_t h;

		memcpy(&h, p + i, sizeof(h));
		tmp[i] = kn_bf16_to_f32(h);
	}
	return v_load(tmp);
}

static inline vf v_load_bf16(const uint16_t *p)
{
	return v_load_bf16_part(p, 4);
}

static inline void v_store_f16(uint16_t *p, vf a)
{
	for (int i = 0; i < 4; i++)
		p[i] = kn_f32_to_f16(a[i]);
}

static inline void v_store_bf16(uint16_t *p, vf a)
{
	for (int i = 0; i < 4; i++)
		p[i] = kn_f32_to_bf16(a[i]);
}

static inline vf v_add(vf a, vf b)
{
	return a + b;
}

static inline vf v_sub(vf a, vf b)
{
	return a - b;
}

static inline vf v_mul(vf a, vf b)
{
	return a * b;
}

static inline vf v_div(vf a, vf b)
{
	return a / b;
}

static inline vf v_fma(vf a, vf b, vf c)
{
	return a * b + c;
}

static inline vf v_max(vf a, vf b)
{
	vi m = a > b;

	return (vf)((m & (vi)a) | (~m & (vi)b));
}

static inline vf v_min(vf a, vf b)
{
	vi m = a < b;

	return (vf)((m & (vi)a) | (~m & (vi)b));
}

static inline vf v_zero_below(vf a, vf x, float limit)
{
	vi below = x < v_set1(limit);

	return (vf)((vi)a & ~below);
}

static inline vf v_pow2_of_magic(vf t)
{
	typedef uint32_t vu __attribute__((vector_size(16)));

	return (vf)(((vu)t + 127u) << 23);
}

static inline float v_hsum(vf a)
{
	return (a[0] + a[2]) + (a[1] + a[3]);
}

static inline int32_t v_quantize16(int8_t *q, const float *x, float inv)
{
	int32_t sum = 0;

	for (int i = 0; i < 16; i++) {
		/* Adding 1.5 * 2^23 leaves the nearest integer in the low bits. */
		q[i] = (int8_t)(kn_f32_bits(x[i] * inv + 12582912.0f) & 0xff);
		sum += q[i];
	}
	return sum;
}

static inline void v_hsum4_store(float *dst, vf a, vf b, vf c, vf d)
{
	dst[0] = v_hsum(a);
	dst[1] = v_hsum(b);
	dst[2] = v_hsum(c);
	dst[3] = v_hsum(d);
}

static inline float v_hmax(vf a)
{
	float m = a[0];

	for (int i = 1; i < 4; i++)
		m = a[i] > m ? a[i] : m;
	return m;
}

#endif
