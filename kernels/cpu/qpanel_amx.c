/* Products of panels (pack.c) with int8 activations by tile registers: 16 rows meet 16 tokens, a block of 32 columns
 * (16 of PANEL_6K) at a time.
 *
 * A panel is unpacked once to signed bytes, which lie in the order that a tile wants, and meets all tokens of the
 * block. The integer sums of a block of columns are exact, and the floats made of them are those of qpanel_avx512.c
 * in the same order: results are the same bit by bit, so that few tokens, for which a tile would be mostly empty,
 * can take the vector code. */
#include <string.h>

#include "cpu/amx.h"
#include "cpu/cpu.h"
#include "cpu/unroll.h"

enum {
	TOKENS = 16, /* rows of a tile of activations */
	AHEAD = 4,   /* products under way while sums are scaled */
	FEW = 7,     /* up to as many tokens the vector code is faster */
	FAR = 4096,  /* bytes that weights are asked for ahead: with few tokens memory is waited for */
};

/* A panel in scratch: `steps` of `depth` columns each. */
struct unpacked {
	int8_t *q;    /* [steps][depth / 4][16 rows][4] */
	float *d, *m; /* [steps][16] scales and minimums */
	size_t steps;
};

static struct unpacked unpacked_at(void *scratch, size_t cols, size_t depth)
{
	struct unpacked u = { .q = scratch, .steps = cols / depth };

	u.d = (float *)(u.q + 16 * cols);
	u.m = u.d + u.steps * 16;
	return u;
}

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

/* ---- Unpacking ---- */

static void unpack_8(const struct unpacked *u, const char *w)
{
	const char *v = w + (u->steps * 32 + 63) / 64 * 64;

	for (size_t b = 0; b < u->steps; b++) {
		_mm512_storeu_ps(u->d + b * 16, scales_f16(w + b * 32));
		UNROLL
		for (size_t g = 0; g < 8; g++) {
			_mm_prefetch(v + b * 512 + g * 64 + FAR, _MM_HINT_T1);
			_mm512_store_si512(
			        u->q + b * 512 + g * 64,
			        _mm512_xor_si512(_mm512_loadu_si512(v + b * 512 + g * 64), _mm512_set1_epi8(-128)));
		}
	}
}

/* 32 columns of nibbles, less an offset. */
ALWAYS_INLINE void unpack_nibbles(int8_t *q, const char *v, int8_t offset)
{
	const __m512i mask = _mm512_set1_epi8(15), less = _mm512_set1_epi8(offset);

	UNROLL
	for (size_t g = 0; g < 4; g++) {
		__m512i two = _mm512_loadu_si512(v + g * 64);
		__m512i low = _mm512_and_si512(two, mask), high = _mm512_and_si512(_mm512_srli_epi16(two, 4), mask);

		_mm_prefetch(v + g * 64 + FAR, _MM_HINT_T1);
		_mm512_store_si512(q + g * 64, _mm512_sub_epi8(low, less));
		_mm512_store_si512(q + 256 + g * 64, _mm512_sub_epi8(high, less));
	}
}

static void unpack_4(const struct unpacked *u, const char *w)
{
	const char *v = w + (u->steps * 32 + 63) / 64 * 64;

	for (size_t b = 0; b < u->steps; b++) {
		_mm512_storeu_ps(u->d + b * 16, scales_f16(w + b * 32));
		unpack_nibbles(u->q + b * 512, v + b * 256, 8);
	}
}

static void unpack_4k(const struct unpacked *u, const char *w)
{
	for (size_t b = 0; b < u->steps; b++) {
		const char *s = w + b / 8 * (320 + 8 * 256);
		size_t j8 = b % 8;

		_mm512_storeu_ps(u->d + b * 16, _mm512_mul_ps(scales_f16(s), bytes_to_float(s + 64 + j8 * 16)));
		_mm512_storeu_ps(u->m + b * 16, _mm512_mul_ps(scales_f16(s + 32), bytes_to_float(s + 192 + j8 * 16)));
		unpack_nibbles(u->q + b * 512, s + 320 + j8 * 256, 0);
	}
}

static void unpack_6k(const struct unpacked *u, const char *w)
{
	const __m512i m4 = _mm512_set1_epi8(15), m2 = _mm512_set1_epi8(0x30), less = _mm512_set1_epi8(32);

	for (size_t i = 0; i < u->steps; i++) {
		size_t j8 = i / 2 % 8, h = i % 2;
		const char *s = w + i / 16 * (320 + 8 * 384), *v = s + 320 + j8 * 384;
		__m512i high = _mm512_loadu_si512(v + 256 + h * 64);

		_mm512_storeu_ps(u->d + i * 16,
		                 _mm512_mul_ps(scales_f16(s), int8_to_float(s + 64 + (j8 * 2 + h) * 16)));
		UNROLL
		for (size_t g = 0; g < 4; g++) {
			__m512i low = _mm512_loadu_si512(v + g * 64);
			__m512i top = g < 2 ? _mm512_slli_epi16(high, g == 0 ? 4 : 2)
			                    : _mm512_srli_epi16(high, g == 2 ? 0 : 2);

			if (h)
				low = _mm512_srli_epi16(low, 4);
			_mm512_store_si512(
			        u->q + i * 256 + g * 64,
			        _mm512_sub_epi8(_mm512_or_si512(_mm512_and_si512(low, m4), _mm512_and_si512(top, m2)),
			                        less));
		}
	}
}

/* ---- Products ---- */

/* A product of a step into tile c, and its sums to memory. A macro, for tile numbers are part of the instruction. */
#define PRODUCT(c, a, w, s)                                  \
	do {                                                 \
		_tile_zero(c);                               \
		_tile_loadd(a, x + (s)*depth, ld_x);         \
		_tile_loadd(w, u->q + (s)*depth * 16, 64);   \
		_tile_dpbssd(c, a, w);                       \
		_tile_stored(c, sums + (c)*16 * TOKENS, 64); \
	} while (0)

/* Step s + i of the panel times 16 tokens; i < AHEAD, s a multiple of it. */
ALWAYS_INLINE void product(const struct unpacked *u, size_t depth, const char *x, size_t ld_x, size_t s, size_t i,
                           int32_t *sums)
{
	if (i == 0)
		PRODUCT(0, 4, 6, s);
	else if (i == 1)
		PRODUCT(1, 5, 7, s + 1);
	else if (i == 2)
		PRODUCT(2, 4, 6, s + 2);
	else
		PRODUCT(3, 5, 7, s + 3);
}

/* Joins the sums of step s, scaled, to the chains of 16 tokens; dx: the first token's scale of the step. */
ALWAYS_INLINE void join(const struct unpacked *u, size_t s, bool minimums, const int32_t *sums, const char *dx,
                        size_t ld_x, size_t to_dsum, __m512 *f)
{
	__m512 dw = _mm512_loadu_ps(u->d + s * 16), mw = _mm512_setzero_ps();

	if (minimums)
		mw = _mm512_loadu_ps(u->m + s * 16);
	UNROLL
	for (size_t i = 0; i < TOKENS; i += 4, dx += 4 * ld_x) {
		UNROLL
		for (size_t j = 0; j < 4; j++) {
			const float *d = (const float *)(dx + j * ld_x);
			__m512 sum = _mm512_cvtepi32_ps(_mm512_load_si512(sums + (i + j) * 16));

			if (minimums)
				f[i + j] = _mm512_fmadd_ps(mw, _mm512_set1_ps(d[to_dsum]), f[i + j]);
			f[i + j] = _mm512_fmadd_ps(sum, _mm512_mul_ps(dw, _mm512_set1_ps(*d)), f[i + j]);
		}
	}
}

/* One panel and the 16 tokens from tok on, of which n count. */
ALWAYS_INLINE void tile_run(const struct unpacked *u, size_t depth, bool minimums, const struct cpu_block *b,
                            size_t panel, size_t tok, size_t n)
{
	/* Half of 4096 bytes between the two: a load is held up by stores before it to an address that is the same
	 * modulo 4096. */
	_Alignas(64) int32_t kept[(2 * AHEAD + 2) * 16 * TOKENS];
	int32_t *even = kept, *odd = kept + (AHEAD + 2) * 16 * TOKENS;
	const char *x = cpu_block_x(b, tok), *dx = x + b->cols;
	size_t ld_x = b->ld_x, to_dsum = b->cols / 32, row = panel * CPU_PANEL_ROWS;
	size_t n_rows = b->rows - row < CPU_PANEL_ROWS ? b->rows - row : CPU_PANEL_ROWS, full = u->steps / AHEAD;
	__mmask16 m = (__mmask16)((1u << n_rows) - 1);
	__m512 f[TOKENS], bias = b->bias ? _mm512_maskz_loadu_ps(m, b->bias + row) : _mm512_setzero_ps();

	UNROLL
	for (size_t i = 0; i < TOKENS; i++)
		f[i] = _mm512_setzero_ps();
	/* Sums come back from memory only once they are there: the next products are under way meanwhile. */
	UNROLL
	for (size_t j = 0; full && j < AHEAD; j++)
		product(u, depth, x, ld_x, 0, j, even);
	for (size_t i = 0; i < full; i++) {
		const int32_t *sums = i % 2 ? odd : even;

		UNROLL
		for (size_t j = 0; j < AHEAD; j++) {
			if (i + 1 < full)
				product(u, depth, x, ld_x, (i + 1) * AHEAD, j, i % 2 ? even : odd);
			join(u, i * AHEAD + j, minimums, sums + j * 16 * TOKENS, dx + (i * AHEAD + j) * depth / 32 * 4,
			     ld_x, to_dsum, f);
		}
	}
	for (size_t s = full * AHEAD; s < u->steps; s++) {
		int32_t *sums = even;

		PRODUCT(0, 4, 6, s);
		join(u, s, minimums, sums, dx + s * depth / 32 * 4, ld_x, to_dsum, f);
	}
	UNROLL
	for (size_t i = 0; i < TOKENS; i++) {
		float *out = b->out + (tok + i) * b->ld_out + row;
		__m512 y = _mm512_add_ps(f[i], bias);

		if (i >= n)
			break;
		if (b->accumulate)
			y = _mm512_add_ps(_mm512_maskz_loadu_ps(m, out), y);
		_mm512_mask_storeu_ps(out, m, y);
	}
}

typedef void (*unpack_fn)(const struct unpacked *u, const char *w);

/* Tokens in sixteens; a small rest goes to the vector code. */
ALWAYS_INLINE void block_run(const struct cpu_block *b, size_t depth, bool minimums, unpack_fn unpack,
                             cpu_block_fn vector)
{
	struct unpacked u = unpacked_at(b->scratch, b->cols, depth);
	size_t rest = b->n % TOKENS > FEW ? 0 : b->n % TOKENS, n = b->n - rest;

	if (n) {
		amx_configure((unsigned)depth);
		for (size_t panel = 0; panel * CPU_PANEL_ROWS < b->rows; panel++) {
			unpack(&u, b->w + panel * b->ld_w);
			for (size_t tok = 0; tok < n; tok += TOKENS)
				tile_run(&u, depth, minimums, b, panel, tok, n - tok < TOKENS ? n - tok : TOKENS);
		}
		amx_release();
	}
	if (rest) {
		struct cpu_block part = *b;

		part.first += n;
		part.n = rest;
		part.out += n * b->ld_out;
		vector(&part);
	}
}

void cpu_panel_8_amx(const struct cpu_block *b)
{
	block_run(b, 32, false, unpack_8, cpu_panel_8_avx512);
}

void cpu_panel_4_amx(const struct cpu_block *b)
{
	block_run(b, 32, false, unpack_4, cpu_panel_4_avx512);
}

void cpu_panel_4k_amx(const struct cpu_block *b)
{
	block_run(b, 32, true, unpack_4k, cpu_panel_4k_avx512);
}

void cpu_panel_6k_amx(const struct cpu_block *b)
{
	block_run(b, 16, false, unpack_6k, cpu_panel_6k_avx512);
}
