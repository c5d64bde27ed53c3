/* Eight floats in a register: the vector vocabulary of the templates for AVX2, FMA and F16C. Included by
 * *_avx2.c only. The functions are described in vec_avx512.h. */
#ifndef CPU_VEC_AVX2_H
#define CPU_VEC_AVX2_H

#include <immintrin.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

enum { VL = 8 };
typedef __m256 vf;

static inline vf v_set1(float a)
{
	return _mm256_set1_ps(a);
}

static inline vf v_load(const float *p)
{
	return _mm256_loadu_ps(p);
}

static inline vf v_load_part(const float *p, size_t n)
{
	float tmp[8] = { 0 };

	memcpy(tmp, p, n * sizeof(*p));
	return _mm256_loadu_ps(tmp);
}

static inline void v_store(float *p, vf a)
{
	_mm256_storeu_ps(p, a);
}

static inline void v_store_part(float *p, vf a, size_t n)
{
	float tmp[8];

	_mm256_storeu_ps(tmp, a);
	memcpy(p, tmp, n * sizeof(*p));
}

static inline vf v_load_f16(const uint16_t *p)
{
	return _mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)p));
}

static inline vf v_load_f16_part(const uint16_t *p, size_t n)
{
	uint16_t tmp[8] = { 0 };

	memcpy(tmp, p, n * sizeof(*p));
	return v_load_f16(tmp);
}

static inline vf v_load_bf16(const uint16_t *p)
{
	__m128i h = _mm_loadu_si128((const __m128i *)p);

	return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(h), 16));
}

static inline vf v_load_bf16_part(const uint16_t *p, size_t n)
{
	uint16_t tmp[8] = { 0 };

	memcpy(tmp, p, n * sizeof(*p));
	return v_load_bf16(tmp);
}

static inline void v_store_f16(uint16_t *p, vf a)
{
	_mm_storeu_si128((__m128i *)p, _mm256_cvtps_ph(a, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC));
}

static inline void v_store_bf16(uint16_t *p, vf a)
{
	__m256i x = _mm256_castps_si256(a);
	__m256i top = _mm256_srli_epi32(x, 16);
	__m256i odd = _mm256_and_si256(top, _mm256_set1_epi32(1));
	__m256i r = _mm256_srli_epi32(_mm256_add_epi32(x, _mm256_add_epi32(odd, _mm256_set1_epi32(0x7fff))), 16);
	__m256i nan = _mm256_castps_si256(_mm256_cmp_ps(a, a, _CMP_UNORD_Q));

	r = _mm256_blendv_epi8(r, _mm256_or_si256(top, _mm256_set1_epi32(0x40)), nan);
	r = _mm256_permute4x64_epi64(_mm256_packus_epi32(r, r), 0x08);
	_mm_storeu_si128((__m128i *)p, _mm256_castsi256_si128(r));
}

static inline vf v_add(vf a, vf b)
{
	return _mm256_add_ps(a, b);
}

static inline vf v_sub(vf a, vf b)
{
	return _mm256_sub_ps(a, b);
}

static inline vf v_mul(vf a, vf b)
{
	return _mm256_mul_ps(a, b);
}

static inline vf v_div(vf a, vf b)
{
	return _mm256_div_ps(a, b);
}

static inline vf v_fma(vf a, vf b, vf c)
{
	return _mm256_fmadd_ps(a, b, c);
}

static inline vf v_max(vf a, vf b)
{
	return _mm256_max_ps(a, b);
}

static inline vf v_min(vf a, vf b)
{
	return _mm256_min_ps(a, b);
}

static inline vf v_zero_below(vf a, vf x, float limit)
{
	return _mm256_and_ps(a, _mm256_cmp_ps(x, _mm256_set1_ps(limit), _CMP_NLT_UQ));
}

static inline vf v_pow2_of_magic(vf t)
{
	return _mm256_castsi256_ps(
	        _mm256_slli_epi32(_mm256_add_epi32(_mm256_castps_si256(t), _mm256_set1_epi32(127)), 23));
}

static inline float v_hsum(vf a)
{
	__m128 s = _mm_add_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps(a, 1));

	s = _mm_add_ps(s, _mm_permute_ps(s, 0x4e));
	return _mm_cvtss_f32(_mm_add_ps(s, _mm_permute_ps(s, 0xb1)));
}

static inline int32_t v_quantize16(int8_t *q, const float *x, float inv)
{
	__m256i a = _mm256_cvtps_epi32(_mm256_mul_ps(_mm256_loadu_ps(x), _mm256_set1_ps(inv)));
	__m256i b = _mm256_cvtps_epi32(_mm256_mul_ps(_mm256_loadu_ps(x + 8), _mm256_set1_ps(inv)));
	__m256i words = _mm256_permute4x64_epi64(_mm256_packs_epi32(a, b), 0xd8);
	__m256i pairs = _mm256_madd_epi16(words, _mm256_set1_epi16(1));
	__m128i sum = _mm_add_epi32(_mm256_castsi256_si128(pairs), _mm256_extracti128_si256(pairs, 1));

	_mm_storeu_si128((__m128i *)q,
	                 _mm_packs_epi16(_mm256_castsi256_si128(words), _mm256_extracti128_si256(words, 1)));
	sum = _mm_add_epi32(sum, _mm_shuffle_epi32(sum, 0x4e));
	return _mm_cvtsi128_si32(_mm_add_epi32(sum, _mm_shuffle_epi32(sum, 0xb1)));
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
	__m128 s = _mm_max_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps(a, 1));

	s = _mm_max_ps(s, _mm_permute_ps(s, 0x4e));
	return _mm_cvtss_f32(_mm_max_ps(s, _mm_permute_ps(s, 0xb1)));
}

#endif
