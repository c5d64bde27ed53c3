/* Products of panels (pack.c) with int8 activations for AVX2: half a panel, eight rows, meets T tokens.
 *
 * The byte product of AVX2 (vpmaddubsw) adds pairs into 16 bits with saturation. Nibbles and 6-bit values are
 * small enough for several of them (8 * 2 * 15 * 127 and 2 * 2 * 63 * 127 stay below 2^15); 8-bit weights are
 * made signed again and their sign moved to the activation, 2 * 128 * 127 at most. */
#include <immintrin.h>

#include "cpu/cpu.h"
#include "cpu/unroll.h"

enum { MAX_T = 4, HALF = 8 };

/* Four consecutive activations, for every row. */
ALWAYS_INLINE __m256i four_of(const struct cpu_q8 *x, size_t b, size_t g)
{
	int32_t v;

	__builtin_memcpy(&v, x->q + b * 32 + g * 4, 4);
	return _mm256_set1_epi32(v);
}

ALWAYS_INLINE __m256 scales_f16(const char *p)
{
	return _mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)p));
}

ALWAYS_INLINE __m256 scale_add(__m256 f, __m256i sum, __m256 dw, float dx)
{
	return _mm256_fmadd_ps(_mm256_cvtepi32_ps(sum), _mm256_mul_ps(dw, _mm256_set1_ps(dx)), f);
}

/* start + the pairs of 16-bit sums */
ALWAYS_INLINE __m256i widen(__m256i start, __m256i pairs)
{
	return _mm256_add_epi32(start, _mm256_madd_epi16(pairs, _mm256_set1_epi16(1)));
}

ALWAYS_INLINE void panel_8(const char *w, size_t half, const struct cpu_q8 *x, size_t T, size_t cols, __m256 *f)
{
	size_t blocks = cols / 32, skip = (blocks * 32 + 63) / 64 * 64;

	for (size_t b = 0; b < blocks; b++) {
		__m256 dw = scales_f16(w + b * 32 + half * 16);
		__m256i sum[MAX_T];

		UNROLL
		for (size_t j = 0; j < T; j++)
			sum[j] = _mm256_setzero_si256();
		UNROLL
		for (size_t g = 0; g < 8; g++) {
			const char *p = w + skip + b * 512 + g * 64 + half * 32;
			__m256i v = _mm256_xor_si256(_mm256_loadu_si256((const __m256i *)p), _mm256_set1_epi8(-128));
			__m256i mag = _mm256_abs_epi8(v);

			UNROLL
			for (size_t j = 0; j < T; j++)
				sum[j] = widen(sum[j],
				               _mm256_maddubs_epi16(mag, _mm256_sign_epi8(four_of(&x[j], b, g), v)));
		}
		UNROLL
		for (size_t j = 0; j < T; j++)
			f[j] = scale_add(f[j], sum[j], dw, x[j].d[b]);
	}
}

/* start[j] + the products of a block of nibbles at w. */
ALWAYS_INLINE void nibbles(const char *w, size_t half, const struct cpu_q8 *x, size_t b, size_t T, __m256i *sum)
{
	const __m256i mask = _mm256_set1_epi8(15);
	__m256i pairs[MAX_T];

	UNROLL
	for (size_t j = 0; j < T; j++)
		pairs[j] = _mm256_setzero_si256();
	UNROLL
	for (size_t g = 0; g < 4; g++) {
		__m256i v = _mm256_loadu_si256((const __m256i *)(w + g * 64 + half * 32));
		__m256i low = _mm256_and_si256(v, mask), high = _mm256_and_si256(_mm256_srli_epi16(v, 4), mask);

		UNROLL
		for (size_t j = 0; j < T; j++) {
			__m256i lo = _mm256_maddubs_epi16(low, four_of(&x[j], b, g));
			__m256i hi = _mm256_maddubs_epi16(high, four_of(&x[j], b, g + 4));

			pairs[j] = _mm256_add_epi16(pairs[j], _mm256_add_epi16(lo, hi));
		}
	}
	UNROLL
	for (size_t j = 0; j < T; j++)
		sum[j] = widen(sum[j], pairs[j]);
}

ALWAYS_INLINE void panel_4(const char *w, size_t half, const struct cpu_q8 *x, size_t T, size_t cols, __m256 *f)
{
	size_t blocks = cols / 32, skip = (blocks * 32 + 63) / 64 * 64;

	for (size_t b = 0; b < blocks; b++) {
		__m256 dw = scales_f16(w + b * 32 + half * 16);
		__m256i sum[MAX_T];

		UNROLL
		for (size_t j = 0; j < T; j++)
			sum[j] = _mm256_slli_epi32(_mm256_set1_epi32(x[j].nsum32[b]), 3);
		nibbles(w + skip + b * 256, half, x, b, T, sum);
		UNROLL
		for (size_t j = 0; j < T; j++)
			f[j] = scale_add(f[j], sum[j], dw, x[j].d[b]);
	}
}

ALWAYS_INLINE __m256 bytes_to_float(const char *p)
{
	return _mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(_mm_loadl_epi64((const __m128i *)p)));
}

ALWAYS_INLINE __m256 int8_to_float(const char *p)
{
	return _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_loadl_epi64((const __m128i *)p)));
}

ALWAYS_INLINE void panel_4k(const char *w, size_t half, const struct cpu_q8 *x, size_t T, size_t cols, __m256 *f)
{
	for (size_t b = 0; b < cols / 32; b++) {
		size_t j8 = b % 8;
		const char *s = w + b / 8 * (320 + 8 * 256);
		__m256 dw = _mm256_mul_ps(scales_f16(s + half * 16), bytes_to_float(s + 64 + j8 * 16 + half * 8));
		__m256 mw = _mm256_mul_ps(scales_f16(s + 32 + half * 16), bytes_to_float(s + 192 + j8 * 16 + half * 8));
		__m256i sum[MAX_T];

		UNROLL
		for (size_t j = 0; j < T; j++)
			sum[j] = _mm256_setzero_si256();
		nibbles(s + 320 + j8 * 256, half, x, b, T, sum);
		UNROLL
		for (size_t j = 0; j < T; j++) {
			__m256 xs = _mm256_set1_ps(x[j].dsum[b]);

			f[j] = scale_add(_mm256_fmadd_ps(mw, xs, f[j]), sum[j], dw, x[j].d[b]);
		}
	}
}

/* The six bits of vector 4h + g. */
ALWAYS_INLINE __m256i six_bits(const char *block, size_t half, size_t h, size_t g)
{
	__m256i low = _mm256_loadu_si256((const __m256i *)(block + g * 64 + half * 32));
	__m256i high = _mm256_loadu_si256((const __m256i *)(block + 256 + h * 64 + half * 32));
	__m256i top = g < 2 ? _mm256_slli_epi16(high, g == 0 ? 4 : 2) : _mm256_srli_epi16(high, g == 2 ? 0 : 2);

	if (h)
		low = _mm256_srli_epi16(low, 4);
	return _mm256_or_si256(_mm256_and_si256(low, _mm256_set1_epi8(15)),
	                       _mm256_and_si256(top, _mm256_set1_epi8(0x30)));
}

ALWAYS_INLINE void panel_6k(const char *w, size_t half, const struct cpu_q8 *x, size_t T, size_t cols, __m256 *f)
{
	for (size_t b = 0; b < cols / 32; b++) {
		size_t j8 = b % 8;
		const char *s = w + b / 8 * (320 + 8 * 384), *block = s + 320 + j8 * 384;
		__m256 d = scales_f16(s + half * 16);

		UNROLL
		for (size_t h = 0; h < 2; h++) {
			__m256 dw = _mm256_mul_ps(d, int8_to_float(s + 64 + (j8 * 2 + h) * 16 + half * 8));
			__m256i sum[MAX_T];

			UNROLL
			for (size_t j = 0; j < T; j++)
				sum[j] = _mm256_slli_epi32(_mm256_set1_epi32(x[j].nsum16[2 * b + h]), 5);
			UNROLL
			for (size_t g = 0; g < 4; g += 2) {
				__m256i q0 = six_bits(block, half, h, g), q1 = six_bits(block, half, h, g + 1);

				UNROLL
				for (size_t j = 0; j < T; j++) {
					__m256i a = _mm256_maddubs_epi16(q0, four_of(&x[j], b, 4 * h + g));
					__m256i c = _mm256_maddubs_epi16(q1, four_of(&x[j], b, 4 * h + g + 1));

					sum[j] = widen(sum[j], _mm256_add_epi16(a, c));
				}
			}
			UNROLL
			for (size_t j = 0; j < T; j++)
				f[j] = scale_add(f[j], sum[j], dw, x[j].d[b]);
		}
	}
}

/* ---- Tiles ---- */

/* Rows [row, row + 8) of the results of one token; fewer at the end of the matrix. */
static void put(const struct cpu_block *b, __m256 f, size_t row, size_t tok)
{
	float *out = b->out + tok * b->ld_out + row, y[HALF];
	size_t n = b->rows - row < HALF ? b->rows - row : HALF;

	_mm256_storeu_ps(y, f);
	for (size_t i = 0; i < n; i++) {
		if (b->bias)
			y[i] += b->bias[row + i];
		out[i] = b->accumulate ? out[i] + y[i] : y[i];
	}
}

/* kind and T are constants at every call. */
ALWAYS_INLINE void tile_run(enum cpu_panel kind, const struct cpu_block *b, size_t T, size_t row, size_t tok)
{
	const char *w = b->w + row / CPU_PANEL_ROWS * b->ld_w;
	size_t half = row / HALF % 2;
	struct cpu_q8 x[MAX_T];
	__m256 f[MAX_T];

	UNROLL
	for (size_t j = 0; j < T; j++) {
		x[j] = cpu_q8_row(cpu_block_x(b, tok + j), b->cols);
		f[j] = _mm256_setzero_ps();
	}
	if (kind == CPU_PANEL_8)
		panel_8(w, half, x, T, b->cols, f);
	else if (kind == CPU_PANEL_4)
		panel_4(w, half, x, T, b->cols, f);
	else if (kind == CPU_PANEL_4K)
		panel_4k(w, half, x, T, b->cols, f);
	else
		panel_6k(w, half, x, T, b->cols, f);
	UNROLL
	for (size_t j = 0; j < T; j++)
		put(b, f[j], row, tok + j);
}

ALWAYS_INLINE void block_run(enum cpu_panel kind, const struct cpu_block *b)
{
	for (size_t row = 0; row < b->rows; row += HALF) {
		size_t tok = 0;

		for (; tok + 4 <= b->n; tok += 4)
			tile_run(kind, b, 4, row, tok);
		for (; tok + 2 <= b->n; tok += 2)
			tile_run(kind, b, 2, row, tok);
		for (; tok < b->n; tok++)
			tile_run(kind, b, 1, row, tok);
	}
}

void cpu_panel_8_avx2(const struct cpu_block *b)
{
	block_run(CPU_PANEL_8, b);
}

void cpu_panel_4_avx2(const struct cpu_block *b)
{
	block_run(CPU_PANEL_4, b);
}

void cpu_panel_4k_avx2(const struct cpu_block *b)
{
	block_run(CPU_PANEL_4K, b);
}

void cpu_panel_6k_avx2(const struct cpu_block *b)
{
	block_run(CPU_PANEL_6K, b);
}
