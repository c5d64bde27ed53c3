/* Products with many tokens by tile registers of bfloat16: weights of any type become bfloat16 a piece at a time, in
 * the order that a tile wants, and meet all tokens of the block, whose sums stay in the tiles along the columns.
 *
 * Unpacking costs as much as some eighty tokens, and saves scaling integer sums at every 32 columns, which costs
 * three times the product itself (qpanel_amx.c). Weights and activations are rounded to bfloat16.
 *
 * A piece is 32 rows (two tiles) by SPAN columns and stays in the first-level cache; the tokens stream from the
 * second, and wait there for the next span with what they have so far. */
#include <string.h>

#include "cpu/amx.h"
#include "cpu/cpu.h"
#include "cpu/tile_amx.h"

enum {
	SIDE = 16,  /* rows or tokens of a tile */
	STEP = 32,  /* columns of a tile */
	SPAN = 256, /* columns of a piece */
	TILE = TILE_VALUES
};

/* In the thread's scratch. */
struct scratch {
	uint16_t w[2][SIDE * SPAN];                             /* [row tile][step][pair][row][2] */
	float sums[CPU_MAX_ITEM_TOKENS / SIDE][2][SIDE * SIDE]; /* [token tile][row tile][token][row] */
};

_Static_assert(sizeof(struct scratch) <= CPU_SCRATCH_BYTES, "a thread's scratch");

/* Rows [16 r, 16 r + 16) of the block, columns [k, k + n), n a multiple of 32 but at the end of the rows. */
typedef void (*unpack_fn)(uint16_t *dst, const struct cpu_block *b, size_t r, size_t k, size_t n);

/* ---- Unpacking ---- */

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

/* Byte i of each lane, times d, plus c. */
ALWAYS_INLINE __m512 byte_of(__m512i v, unsigned i, __m512 d, __m512 c)
{
	__m512i b = i ? _mm512_srli_epi32(v, 8 * i) : v;

	return _mm512_fmadd_ps(_mm512_cvtepi32_ps(_mm512_and_si512(b, _mm512_set1_epi32(255))), d, c);
}

/* Four columns of 16 rows: two pairs. */
ALWAYS_INLINE void put_bytes(uint16_t *dst, __m512i v, __m512 d, __m512 c)
{
	_mm512_store_si512(dst, tile_pairs_of(byte_of(v, 0, d, c), byte_of(v, 1, d, c)));
	_mm512_store_si512(dst + 32, tile_pairs_of(byte_of(v, 2, d, c), byte_of(v, 3, d, c)));
}

static void unpack_8(uint16_t *dst, const struct cpu_block *b, size_t r, size_t k, size_t n)
{
	const char *w = b->w + r * b->ld_w, *v = w + (b->cols + 63) / 64 * 64;

	for (size_t i = k / 32; i < (k + n) / 32; i++, dst += TILE) {
		__m512 d = scales_f16(w + i * 32), c = _mm512_mul_ps(d, _mm512_set1_ps(-128));

		UNROLL
		for (size_t g = 0; g < 8; g++)
			put_bytes(dst + g * 64, _mm512_loadu_si512(v + i * 512 + g * 64), d, c);
	}
}

/* A block of nibbles: q d + c. */
ALWAYS_INLINE void put_nibbles(uint16_t *dst, const char *v, __m512 d, __m512 c)
{
	const __m512i mask = _mm512_set1_epi8(15);

	UNROLL
	for (size_t g = 0; g < 4; g++) {
		__m512i two = _mm512_loadu_si512(v + g * 64);

		put_bytes(dst + g * 64, _mm512_and_si512(two, mask), d, c);
		put_bytes(dst + (g + 4) * 64, _mm512_and_si512(_mm512_srli_epi32(two, 4), mask), d, c);
	}
}

static void unpack_4(uint16_t *dst, const struct cpu_block *b, size_t r, size_t k, size_t n)
{
	const char *w = b->w + r * b->ld_w, *v = w + (b->cols + 63) / 64 * 64;

	for (size_t i = k / 32; i < (k + n) / 32; i++, dst += TILE) {
		__m512 d = scales_f16(w + i * 32);

		put_nibbles(dst, v + i * 256, d, _mm512_mul_ps(d, _mm512_set1_ps(-8)));
	}
}

static void unpack_4k(uint16_t *dst, const struct cpu_block *b, size_t r, size_t k, size_t n)
{
	const char *w = b->w + r * b->ld_w;

	for (size_t i = k / 32; i < (k + n) / 32; i++, dst += TILE) {
		const char *s = w + i / 8 * (320 + 8 * 256);
		size_t j8 = i % 8;
		__m512 d = _mm512_mul_ps(scales_f16(s), bytes_to_float(s + 64 + j8 * 16));
		__m512 m = _mm512_mul_ps(scales_f16(s + 32), bytes_to_float(s + 192 + j8 * 16));

		put_nibbles(dst, s + 320 + j8 * 256, d, _mm512_sub_ps(_mm512_setzero_ps(), m));
	}
}

static void unpack_6k(uint16_t *dst, const struct cpu_block *b, size_t r, size_t k, size_t n)
{
	const __m512i m4 = _mm512_set1_epi8(15), m2 = _mm512_set1_epi8(0x30);
	const char *w = b->w + r * b->ld_w;

	for (size_t i = k / 16; i < (k + n) / 16; i++, dst += TILE / 2) {
		size_t j8 = i / 2 % 8, h = i % 2;
		const char *s = w + i / 16 * (320 + 8 * 384), *v = s + 320 + j8 * 384;
		__m512 d = _mm512_mul_ps(scales_f16(s), int8_to_float(s + 64 + (j8 * 2 + h) * 16));
		__m512 c = _mm512_mul_ps(d, _mm512_set1_ps(-32));
		__m512i high = _mm512_loadu_si512(v + 256 + h * 64);

		UNROLL
		for (size_t g = 0; g < 4; g++) {
			__m512i low = _mm512_loadu_si512(v + g * 64);
			__m512i top = g < 2 ? _mm512_slli_epi16(high, g == 0 ? 4 : 2)
			                    : _mm512_srli_epi16(high, g == 2 ? 0 : 2);

			if (h)
				low = _mm512_srli_epi16(low, 4);
			put_bytes(dst + g * 64, _mm512_or_si512(_mm512_and_si512(low, m4), _mm512_and_si512(top, m2)),
			          d, c);
		}
	}
}

static void unpack_bf16(uint16_t *dst, const struct cpu_block *b, size_t r, size_t k, size_t n)
{
	size_t rows = b->rows - r * SIDE < SIDE ? b->rows - r * SIDE : SIDE;
	const char *w = b->w + r * SIDE * b->ld_w;

	for (size_t i = k; i < k + n; i += STEP, dst += TILE) {
		__mmask32 m = b->cols - i < STEP ? (__mmask32)((1ull << (b->cols - i)) - 1) : (__mmask32)-1;
		__m512i v[SIDE];

		UNROLL
		for (size_t j = 0; j < SIDE; j++) {
			const uint16_t *p = (const uint16_t *)(w + j * b->ld_w) + i;

			v[j] = j < rows ? _mm512_maskz_loadu_epi16(m, p) : _mm512_setzero_si512();
		}
		tile_transpose(dst, v);
	}
}

static void unpack_f16(uint16_t *dst, const struct cpu_block *b, size_t r, size_t k, size_t n)
{
	size_t rows = b->rows - r * SIDE < SIDE ? b->rows - r * SIDE : SIDE;
	const char *w = b->w + r * SIDE * b->ld_w;

	for (size_t i = k; i < k + n; i += STEP, dst += TILE) {
		__mmask32 m = b->cols - i < STEP ? (__mmask32)((1ull << (b->cols - i)) - 1) : (__mmask32)-1;
		__m512i v[SIDE];

		UNROLL
		for (size_t j = 0; j < SIDE; j++) {
			const uint16_t *p = (const uint16_t *)(w + j * b->ld_w) + i;
			__m512i h = j < rows ? _mm512_maskz_loadu_epi16(m, p) : _mm512_setzero_si512();

			v[j] = tile_bf16_of_f16(h);
		}
		tile_transpose(dst, v);
	}
}

/* ---- Products ---- */

/* Where the sums of a tile come from and go to. */
struct place {
	float *p;
	size_t ld;
};

/* All columns of a piece: T token tiles by R row tiles. Tile numbers are part of the instruction: four shapes. */
ALWAYS_INLINE void piece_run(size_t T, size_t R, const struct scratch *s, const char *x, size_t ld_x, size_t steps,
                             bool begin, const struct place *from, const struct place *to)
{
	const char *x1 = x + SIDE * ld_x;
	const uint16_t *w0 = s->w[0], *w1 = s->w[1];

	if (begin) {
		_tile_zero(0);
		_tile_zero(1);
		_tile_zero(2);
		_tile_zero(3);
	} else {
		_tile_loadd(0, from[0].p, from[0].ld * 4);
		if (R > 1)
			_tile_loadd(1, from[1].p, from[1].ld * 4);
		if (T > 1)
			_tile_loadd(2, from[2].p, from[2].ld * 4);
		if (T > 1 && R > 1)
			_tile_loadd(3, from[3].p, from[3].ld * 4);
	}
	for (size_t i = 0; i < steps; i++, x += 2 * STEP, x1 += 2 * STEP, w0 += TILE, w1 += TILE) {
		_tile_loadd(6, w0, 64);
		_tile_loadd(4, x, ld_x);
		_tile_dpbf16ps(0, 4, 6);
		if (R > 1) {
			_tile_loadd(7, w1, 64);
			_tile_dpbf16ps(1, 4, 7);
		}
		if (T > 1) {
			_tile_loadd(5, x1, ld_x);
			_tile_dpbf16ps(2, 5, 6);
		}
		if (T > 1 && R > 1)
			_tile_dpbf16ps(3, 5, 7);
	}
	_tile_stored(0, to[0].p, to[0].ld * 4);
	if (R > 1)
		_tile_stored(1, to[1].p, to[1].ld * 4);
	if (T > 1)
		_tile_stored(2, to[2].p, to[2].ld * 4);
	if (T > 1 && R > 1)
		_tile_stored(3, to[3].p, to[3].ld * 4);
}

/* Sums of a tile, where they were kept, to the results. */
static void finish(const struct cpu_block *b, const float *sums, size_t row, size_t tok)
{
	size_t n_rows = b->rows - row < SIDE ? b->rows - row : SIDE, n = b->n - tok < SIDE ? b->n - tok : SIDE;
	__mmask16 m = (__mmask16)((1u << n_rows) - 1);
	__m512 bias = b->bias ? _mm512_maskz_loadu_ps(m, b->bias + row) : _mm512_setzero_ps();

	for (size_t i = 0; i < n; i++) {
		float *out = b->out + (tok + i) * b->ld_out + row;
		__m512 y = _mm512_add_ps(_mm512_load_ps(sums + i * SIDE), bias);

		if (b->accumulate)
			y = _mm512_add_ps(_mm512_maskz_loadu_ps(m, out), y);
		_mm512_mask_storeu_ps(out, m, y);
	}
}

/* Columns [k, k + n) of row tiles r and, if R is 2, r + 1, for all tokens. */
ALWAYS_INLINE void span_run(size_t R, const struct cpu_block *b, struct scratch *s, size_t r, size_t k, size_t n)
{
	size_t n_tiles = (b->n + SIDE - 1) / SIDE, steps = (n + STEP - 1) / STEP;
	bool last = k + n == b->cols, whole = (r + R) * SIDE <= b->rows && !b->bias && !b->accumulate;

	for (size_t t = 0; t < n_tiles; t += 2) {
		const char *x = cpu_block_x(b, t * SIDE) + k * 2;
		bool two = t + 1 < n_tiles, direct = last && whole && (t + (two ? 2 : 1)) * SIDE <= b->n;
		struct place kept[4], to[4];

		for (size_t i = 0; i < 4; i++) {
			size_t ti = t + i / 2, ri = i % 2;

			kept[i] = (struct place){ s->sums[two ? ti : t][ri], SIDE };
			to[i] = kept[i];
			if (direct)
				to[i] = (struct place){ b->out + ti * SIDE * b->ld_out + (r + ri) * SIDE, b->ld_out };
		}
		if (two)
			piece_run(2, R, s, x, b->ld_x, steps, k == 0, kept, to);
		else
			piece_run(1, R, s, x, b->ld_x, steps, k == 0, kept, to);
		if (last && !direct) {
			for (size_t i = 0; i < (two ? 4 : 2); i++) {
				if (i % 2 < R)
					finish(b, to[i].p, (r + i % 2) * SIDE, (t + i / 2) * SIDE);
			}
		}
	}
}

ALWAYS_INLINE void block_run(const struct cpu_block *b, unpack_fn unpack)
{
	struct scratch *s = b->scratch;
	size_t n_rows = ((size_t)b->rows + SIDE - 1) / SIDE;

	amx_configure(64);
	for (size_t r = 0; r < n_rows; r += 2) {
		for (size_t k = 0; k < b->cols; k += SPAN) {
			size_t n = b->cols - k < SPAN ? b->cols - k : SPAN;

			unpack(s->w[0], b, r, k, n);
			if (r + 1 < n_rows) {
				unpack(s->w[1], b, r + 1, k, n);
				span_run(2, b, s, r, k, n);
			} else {
				span_run(1, b, s, r, k, n);
			}
		}
	}
	amx_release();
}

void cpu_many_panel_8_amx(const struct cpu_block *b)
{
	block_run(b, unpack_8);
}

void cpu_many_panel_4_amx(const struct cpu_block *b)
{
	block_run(b, unpack_4);
}

void cpu_many_panel_4k_amx(const struct cpu_block *b)
{
	block_run(b, unpack_4k);
}

void cpu_many_panel_6k_amx(const struct cpu_block *b)
{
	block_run(b, unpack_6k);
}

void cpu_many_bf16_amx(const struct cpu_block *b)
{
	block_run(b, unpack_bf16);
}

void cpu_many_f16_amx(const struct cpu_block *b)
{
	block_run(b, unpack_f16);
}
