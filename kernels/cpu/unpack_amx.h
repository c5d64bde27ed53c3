/* Weights of any type to tiles of bfloat16, in the order of a right operand, and what comes later asked for meanwhile.
 * For many_amx.c. */
#ifndef CPU_UNPACK_AMX_H
#define CPU_UNPACK_AMX_H

#include "cpu/cpu.h"
#include "cpu/tile_amx.h"

enum {
	SIDE = 16, /* rows or tokens of a tile */
	STEP = 32, /* columns of a tile */
	TILE = TILE_VALUES
};

/* Rows [16 r, 16 r + 16) of the block, columns [32 i, 32 i + 32), fewer at the end of the rows. As
 * many bytes at `next` are asked for meanwhile. */
typedef void (*unpack_fn)(uint16_t *dst, const struct cpu_block *b, size_t r, size_t i, const char *next);

static inline __m512 scales_f16(const char *p)
{
	return _mm512_cvtph_ps(_mm256_loadu_si256((const __m256i *)p));
}

static inline __m512 bytes_to_float(const char *p)
{
	return _mm512_cvtepi32_ps(_mm512_cvtepu8_epi32(_mm_loadu_si128((const __m128i *)p)));
}

static inline __m512 int8_to_float(const char *p)
{
	return _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128((const __m128i *)p)));
}

/* Small integers become floats without a conversion, of which beside tile instructions there is one a cycle only: as
 * bits of the fraction of a number between 1 and 2, 1 + q / 2^n, which a product-and-sum takes to q d + c.
 *
 * bfloat16 is then the upper half, cut off, which costs a third of rounding it: CUT makes up for the half unit that is
 * lost on average (of a fraction that is 1.44 on average). A weight is off by at most 0.7 units instead of 0.5. */
#define CUT (1 + 0.7f / 256)

struct line {
	__m512 d, c; /* 2^n d, c - 2^n d */
};

ALWAYS_INLINE struct line line_of(__m512 d, __m512 c, float scale)
{
	struct line l;

	l.d = _mm512_mul_ps(d, _mm512_set1_ps(CUT * scale));
	l.c = _mm512_fmsub_ps(c, _mm512_set1_ps(CUT), l.d);
	return l;
}

/* The byte of v in bits 8 to 15 of each lane that is byte i of it; of i = 1 only the bits of the mask. Shuffles have
 * one port, other logic two. */
ALWAYS_INLINE __m512 value_of(__m512i v, unsigned i, int mask, struct line l)
{
	const __m512i one = _mm512_set1_epi32(0x3f800000);
	int at = (int)i << 8;
	__m512i x;

	if (i == 1) /* v & mask | one */
		x = _mm512_ternarylogic_epi32(v, _mm512_set1_epi32(mask), one, 0xea);
	else
		x = _mm512_mask_shuffle_epi8(one, 0x2222222222222222, v,
		                             _mm512_set4_epi32(at + (12 << 8), at + (8 << 8), at + (4 << 8), at));
	return _mm512_fmadd_ps(_mm512_castsi512_ps(x), l.d, l.c);
}

/* All lines of a block's share of its panel, scales and all: one that is left out is waited for, and where the
 * processor guesses badly what comes next, that is as long as all others take. */
ALWAYS_INLINE void ask(const char *next, size_t bytes)
{
	UNROLL
	for (size_t i = 0; i < bytes; i += 64)
		_mm_prefetch(next + i, _MM_HINT_T1);
}

enum { BYTE_SCALE = 1 << 15, LOW_SCALE = 1 << 15, HIGH_SCALE = 1 << 11 };

/* Four columns of 16 rows, a byte each, of which those bits count that are in `mask` in each byte: two pairs. */
ALWAYS_INLINE void put_bytes(uint16_t *dst, __m512i v, __m512i masked, int mask, struct line l)
{
	__m512 f[4];

	UNROLL
	for (unsigned i = 0; i < 4; i++)
		f[i] = value_of(i == 1 ? v : masked, i, mask, l);
	_mm512_store_si512(dst, tile_pairs_cut(f[0], f[1]));
	_mm512_store_si512(dst + 32, tile_pairs_cut(f[2], f[3]));
}

ALWAYS_INLINE void unpack_8(uint16_t *dst, const struct cpu_block *b, size_t r, size_t i, const char *next)
{
	const char *w = b->w + r * b->ld_w, *v = w + (b->cols + 63) / 64 * 64 + i * 512;
	__m512 d = scales_f16(w + i * 32);
	struct line l = line_of(d, _mm512_mul_ps(d, _mm512_set1_ps(-128)), BYTE_SCALE);

	ask(next, 512 + 32);
	UNROLL
	for (size_t g = 0; g < 8; g++) {
		__m512i q = _mm512_loadu_si512(v + g * 64);

		put_bytes(dst + g * 64, q, q, 0xff00, l);
	}
}

/* A block of nibbles: q d + c. */
ALWAYS_INLINE void put_nibbles(uint16_t *dst, const char *v, __m512 d, __m512 c, const char *next)
{
	struct line low = line_of(d, c, LOW_SCALE), high = line_of(d, c, HIGH_SCALE);
	const __m512i m = _mm512_set1_epi8(15);

	ask(next, 256 + 40);
	UNROLL
	for (size_t g = 0; g < 4; g++) {
		__m512i two = _mm512_loadu_si512(v + g * 64);

		put_bytes(dst + g * 64, two, _mm512_and_si512(two, m), 0x0f00, low);
		put_bytes(dst + (g + 4) * 64, two, _mm512_andnot_si512(m, two), 0xf000, high);
	}
}

ALWAYS_INLINE void unpack_4(uint16_t *dst, const struct cpu_block *b, size_t r, size_t i, const char *next)
{
	const char *w = b->w + r * b->ld_w;
	__m512 d = scales_f16(w + i * 32);

	put_nibbles(dst, w + (b->cols + 63) / 64 * 64 + i * 256, d, _mm512_mul_ps(d, _mm512_set1_ps(-8)), next);
}

ALWAYS_INLINE void unpack_4k(uint16_t *dst, const struct cpu_block *b, size_t r, size_t i, const char *next)
{
	const char *s = b->w + r * b->ld_w + i / 8 * (320 + 8 * 256);
	__m512 d = _mm512_mul_ps(scales_f16(s), bytes_to_float(s + 64 + i % 8 * 16));
	__m512 m = _mm512_mul_ps(scales_f16(s + 32), bytes_to_float(s + 192 + i % 8 * 16));

	put_nibbles(dst, s + 320 + i % 8 * 256, d, _mm512_sub_ps(_mm512_setzero_ps(), m), next);
}

ALWAYS_INLINE void unpack_6k(uint16_t *dst, const struct cpu_block *b, size_t r, size_t i, const char *next)
{
	const __m512i m4 = _mm512_set1_epi8(15), m2 = _mm512_set1_epi8(0x30);
	const char *s = b->w + r * b->ld_w + i / 8 * (320 + 8 * 384), *v = s + 320 + i % 8 * 384;

	ask(next, 384 + 40);
	UNROLL
	for (size_t h = 0; h < 2; h++) {
		__m512 d = _mm512_mul_ps(scales_f16(s), int8_to_float(s + 64 + (i % 8 * 2 + h) * 16));
		struct line l = line_of(d, _mm512_mul_ps(d, _mm512_set1_ps(-32)), BYTE_SCALE);
		__m512i high = _mm512_loadu_si512(v + 256 + h * 64);

		UNROLL
		for (size_t g = 0; g < 4; g++) {
			__m512i low = _mm512_loadu_si512(v + g * 64);
			__m512i top = g < 2 ? _mm512_slli_epi16(high, g == 0 ? 4 : 2)
			                    : _mm512_srli_epi16(high, g == 2 ? 0 : 2);

			if (h)
				low = _mm512_srli_epi16(low, 4);
			low = _mm512_or_si512(_mm512_and_si512(low, m4), _mm512_and_si512(top, m2));
			put_bytes(dst + h * (TILE / 2) + g * 64, low, low, 0xff00, l);
		}
	}
}

/* Columns [32 i, 32 i + 32) of those that there are. */
ALWAYS_INLINE __mmask32 columns(const struct cpu_block *b, size_t i)
{
	return b->cols - i * STEP < STEP ? (__mmask32)((1ull << (b->cols - i * STEP)) - 1) : (__mmask32)-1;
}

ALWAYS_INLINE void unpack_bf16(uint16_t *dst, const struct cpu_block *b, size_t r, size_t i, const char *next)
{
	size_t rows = b->rows - r * SIDE < SIDE ? b->rows - r * SIDE : SIDE;
	const char *w = b->w + r * SIDE * b->ld_w + i * STEP * 2;
	__mmask32 m = columns(b, i);
	__m512i v[SIDE];

	UNROLL
	for (size_t j = 0; j < SIDE; j++) {
		_mm_prefetch(next + j * 64, _MM_HINT_T1);
		v[j] = j < rows ? _mm512_maskz_loadu_epi16(m, w + j * b->ld_w) : _mm512_setzero_si512();
	}
	tile_transpose(dst, v);
}

ALWAYS_INLINE void unpack_f16(uint16_t *dst, const struct cpu_block *b, size_t r, size_t i, const char *next)
{
	size_t rows = b->rows - r * SIDE < SIDE ? b->rows - r * SIDE : SIDE;
	const char *w = b->w + r * SIDE * b->ld_w + i * STEP * 2;
	__mmask32 m = columns(b, i);
	__m512i v[SIDE];

	UNROLL
	for (size_t j = 0; j < SIDE; j++) {
		__m512i h = j < rows ? _mm512_maskz_loadu_epi16(m, w + j * b->ld_w) : _mm512_setzero_si512();

		_mm_prefetch(next + j * 64, _MM_HINT_T1);
		v[j] = tile_bf16_of_f16(h);
	}
	tile_transpose(dst, v);
}

#endif
