/* Bringing values into the order of a right operand: 16 pairs of consecutive depth in rows, each of 16 columns.
 * Included by *_amx.c only. */
#ifndef CPU_TILE_AMX_H
#define CPU_TILE_AMX_H

#include <immintrin.h>
#include <stddef.h>
#include <stdint.h>

#include "cpu/unroll.h"

enum { TILE_VALUES = 16 * 32 /* of bfloat16 in a tile */ };

/* Two values for each of 16 columns, rounded to the nearest, a below b. */
ALWAYS_INLINE __m512i tile_pairs_of(__m512 a, __m512 b)
{
	const __m512i half = _mm512_set1_epi32(0x8000);
	__m512i lo = _mm512_srli_epi32(_mm512_add_epi32(_mm512_castps_si512(a), half), 16);
	__m512i hi = _mm512_add_epi32(_mm512_castps_si512(b), half);

	/* The upper halves of hi, the lower ones of lo. */
	return _mm512_ternarylogic_epi32(_mm512_set1_epi32((int)0xffff0000), hi, lo, 0xca);
}

/* The same, cut off instead of rounded. */
ALWAYS_INLINE __m512i tile_pairs_cut(__m512 a, __m512 b)
{
	/* The lower halves of lanes of b become the upper ones of a. */
	return _mm512_mask_shuffle_epi8(_mm512_castps_si512(b), 0x3333333333333333, _mm512_castps_si512(a),
	                                _mm512_set4_epi32(0x0f0e0f0e, 0x0b0a0b0a, 0x07060706, 0x03020302));
}

ALWAYS_INLINE __m512i tile_bf16_of_f16(__m512i h)
{
	return (__m512i)_mm512_cvtne2ps_pbh(_mm512_cvtph_ps(_mm512_extracti64x4_epi64(h, 1)),
	                                    _mm512_cvtph_ps(_mm512_castsi512_si256(h)));
}

/* 16 x 16 pairs: dst[p][c] = v[c][p]. v is used up. */
ALWAYS_INLINE void tile_transpose(uint16_t *dst, __m512i *v)
{
	__m512i t[16];

	UNROLL
	for (size_t i = 0; i < 16; i += 2) {
		t[i] = _mm512_unpacklo_epi32(v[i], v[i + 1]);
		t[i + 1] = _mm512_unpackhi_epi32(v[i], v[i + 1]);
	}
	UNROLL
	for (size_t i = 0; i < 16; i += 4) {
		v[i] = _mm512_unpacklo_epi64(t[i], t[i + 2]);
		v[i + 1] = _mm512_unpackhi_epi64(t[i], t[i + 2]);
		v[i + 2] = _mm512_unpacklo_epi64(t[i + 1], t[i + 3]);
		v[i + 3] = _mm512_unpackhi_epi64(t[i + 1], t[i + 3]);
	}
	UNROLL
	for (size_t j = 0; j < 4; j++) {
		__m512i a = _mm512_shuffle_i32x4(v[j], v[j + 4], 0x88), b = _mm512_shuffle_i32x4(v[j], v[j + 4], 0xdd);
		__m512i c = _mm512_shuffle_i32x4(v[j + 8], v[j + 12], 0x88);
		__m512i d = _mm512_shuffle_i32x4(v[j + 8], v[j + 12], 0xdd);

		_mm512_store_si512(dst + j * 32, _mm512_shuffle_i32x4(a, c, 0x88));
		_mm512_store_si512(dst + (j + 4) * 32, _mm512_shuffle_i32x4(b, d, 0x88));
		_mm512_store_si512(dst + (j + 8) * 32, _mm512_shuffle_i32x4(a, c, 0xdd));
		_mm512_store_si512(dst + (j + 12) * 32, _mm512_shuffle_i32x4(b, d, 0xdd));
	}
}

#endif
