/* Sixteen floats in a register: the vector vocabulary of the templates (dense.inc.h, attn.inc.h,
 * elem.inc.h) for AVX-512. Included by *_avx512*.c only. */
#ifndef CPU_VEC_AVX512_H
#define CPU_VEC_AVX512_H

#include <immintrin.h>
#include <stddef.h>
#include <stdint.h>

enum { VL = 16 };
typedef __m512 vf;

static inline __mmask16 v_mask(size_t n)
{
	return (__mmask16)((1u << n) - 1);
}

static inline vf v_set1(float a)
{
	return _mm512_set1_ps(a);
}

static inline vf v_load(const float *p)
{
	return _mm512_loadu_ps(p);
}

/* The first n < VL values, the rest zero; nothing beyond them is read. */
static inline vf v_load_part(const float *p, size_t n)
{
	return _mm512_maskz_loadu_ps(v_mask(n), p);
}

static inline void v_store(float *p, vf a)
{
	_mm512_storeu_ps(p, a);
}

static inline void v_store_part(float *p, vf a, size_t n)
{
	_mm512_mask_storeu_ps(p, v_mask(n), a);
}

static inline vf v_load_f16(const uint16_t *p)
{
	return _mm512_cvtph_ps(_mm256_loadu_si256((const __m256i *)p));
}

static inline vf v_load_f16_part(const uint16_t *p, size_t n)
{
	return _mm512_cvtph_ps(_mm256_maskz_loadu_epi16(v_mask(n), p));
}

static inline vf v_widen_bf16(__m256i h)
{
	return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(h), 16));
}

static inline vf v_load_bf16(const uint16_t *p)
{
	return v_widen_bf16(_mm256_loadu_si256((const __m256i *)p));
}

static inline vf v_load_bf16_part(const uint16_t *p, size_t n)
{
	return v_widen_bf16(_mm256_maskz_loadu_epi16(v_mask(n), p));
}

static inline void v_store_f16(uint16_t *p, vf a)
{
	_mm256_storeu_si256((__m256i *)p, _mm512_cvtps_ph(a, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC));
}

/* Round to nearest even; what is not a number stays one. By the instruction, where there is one, what is too small for
 * a normal number becomes zero. */
static inline __m256i v_narrow_bf16(vf a)
{
#ifdef __AVX512BF16__
	return (__m256i)_mm512_cvtneps_pbh(a);
#else
	__m512i x = _mm512_castps_si512(a);
	__m512i odd = _mm512_and_si512(_mm512_srli_epi32(x, 16), _mm512_set1_epi32(1));
	__m512i r = _mm512_srli_epi32(_mm512_add_epi32(x, _mm512_add_epi32(odd, _mm512_set1_epi32(0x7fff))), 16);
	__mmask16 nan = _mm512_cmp_ps_mask(a, a, _CMP_UNORD_Q);

	r = _mm512_mask_or_epi32(r, nan, _mm512_srli_epi32(x, 16), _mm512_set1_epi32(0x40));
	return _mm512_cvtepi32_epi16(r);
#endif
}

static inline void v_store_bf16(uint16_t *p, vf a)
{
	_mm256_storeu_si256((__m256i *)p, v_narrow_bf16(a));
}

static inline vf v_add(vf a, vf b)
{
	return _mm512_add_ps(a, b);
}

static inline vf v_sub(vf a, vf b)
{
	return _mm512_sub_ps(a, b);
}

static inline vf v_mul(vf a, vf b)
{
	return _mm512_mul_ps(a, b);
}

static inline vf v_div(vf a, vf b)
{
	return _mm512_div_ps(a, b);
}

/* a * b + c */
static inline vf v_fma(vf a, vf b, vf c)
{
	return _mm512_fmadd_ps(a, b, c);
}

static inline vf v_max(vf a, vf b)
{
	return _mm512_max_ps(a, b);
}

static inline vf v_min(vf a, vf b)
{
	return _mm512_min_ps(a, b);
}

/* a where x < limit is false, else zero. */
static inline vf v_zero_below(vf a, vf x, float limit)
{
	return _mm512_maskz_mov_ps(_mm512_cmp_ps_mask(x, _mm512_set1_ps(limit), _CMP_NLT_UQ), a);
}

/* 2^n for t = 1.5 * 2^23 + n: n sits in the low mantissa bits. */
static inline vf v_pow2_of_magic(vf t)
{
	return _mm512_castsi512_ps(
	        _mm512_slli_epi32(_mm512_add_epi32(_mm512_castps_si512(t), _mm512_set1_epi32(127)), 23));
}

/* Sums of four vectors. Lanes are paired at distance 8, 4, 2, 1, in every function here: a sum does not
 * depend on how many were taken together. */
static inline __m128 v_hsum4(vf a, vf b, vf c, vf d)
{
	vf ab = _mm512_add_ps(_mm512_shuffle_f32x4(a, b, 0x44), _mm512_shuffle_f32x4(a, b, 0xee));
	vf cd = _mm512_add_ps(_mm512_shuffle_f32x4(c, d, 0x44), _mm512_shuffle_f32x4(c, d, 0xee));
	/* ab: a0 a1 b0 b1 in quarters; now one quarter each of a b c d */
	vf s = _mm512_add_ps(_mm512_shuffle_f32x4(ab, cd, 0x88), _mm512_shuffle_f32x4(ab, cd, 0xdd));

	s = _mm512_add_ps(s, _mm512_permute_ps(s, 0x4e));
	s = _mm512_add_ps(s, _mm512_permute_ps(s, 0xb1));
	return _mm512_castps512_ps128(
	        _mm512_permutexvar_ps(_mm512_setr_epi32(0, 4, 8, 12, 0, 4, 8, 12, 0, 4, 8, 12, 0, 4, 8, 12), s));
}

static inline float v_hsum(vf a)
{
	__m256 s8 = _mm256_add_ps(_mm512_castps512_ps256(a), _mm512_extractf32x8_ps(a, 1));
	__m128 s4 = _mm_add_ps(_mm256_castps256_ps128(s8), _mm256_extractf128_ps(s8, 1));

	s4 = _mm_add_ps(s4, _mm_permute_ps(s4, 0x4e));
	return _mm_cvtss_f32(_mm_add_ps(s4, _mm_permute_ps(s4, 0xb1)));
}

static inline float v_hmax(vf a)
{
	return _mm512_reduce_max_ps(a);
}

/* Sixteen values times inv, rounded to nearest even, as int8; returns their sum. */
static inline int32_t v_quantize16(int8_t *q, const float *x, float inv)
{
	__m512i i = _mm512_cvtps_epi32(_mm512_mul_ps(_mm512_loadu_ps(x), _mm512_set1_ps(inv)));

	__m128i bytes = _mm512_cvtepi32_epi8(i);

	_mm_storeu_si128((__m128i *)q, bytes);
	/* Of the bytes: what is not a number is any integer in i, and would overflow. */
	return _mm512_reduce_add_epi32(_mm512_cvtepi8_epi32(bytes));
}

static inline void v_hsum4_store(float *dst, vf a, vf b, vf c, vf d)
{
	_mm_storeu_ps(dst, v_hsum4(a, b, c, d));
}

#endif
