/* Products of panels (pack.c) with int8 activations by vpdpbusd: P panels of 16 rows meet T tokens in
 * registers. Within a block of 32 columns everything is exact integers; block by block, in column order, the
 * sums become floats, are scaled by weight and activation, and join one float chain per output. So a result
 * depends neither on the tile nor on the number of tokens. */
#include <immintrin.h>

#include "cpu/cpu.h"
#include "cpu/unroll.h"

enum {
	MAX_P = 4,
	MAX_T = 6,
	FAR = 2048 /* bytes that weights are asked for ahead, to the second-level cache, when few tokens wait for them
	            */
};

struct tile {
	const char *w[MAX_P];
	struct cpu_q8 x[MAX_T];
	size_t cols;
	size_t bytes, jump; /* of a panel; from the end of one to the one that is read after it */
};

/* What is read FAR bytes after byte `at` of a panel. */
ALWAYS_INLINE size_t far_from(const struct tile *t, size_t at)
{
	return at + FAR < t->bytes ? at + FAR : at + FAR + t->jump;
}

ALWAYS_INLINE void ask(const char *p, size_t lines)
{
	UNROLL
	for (size_t i = 0; i < lines; i++)
		_mm_prefetch(p + i * 64, _MM_HINT_T1);
}

/* Block b of T tokens into sums of P panels, from vector registers of 8 weights each. */
ALWAYS_INLINE __m512i four_of(const struct cpu_q8 *x, size_t b, size_t g)
{
	int32_t v;

	__builtin_memcpy(&v, x->q + b * 32 + g * 4, 4);
	return _mm512_set1_epi32(v);
}

ALWAYS_INLINE __m512 scales_f16(const char *p)
{
	return _mm512_cvtph_ps(_mm256_loadu_si256((const __m256i *)p));
}

/* f += float(sum) * (dw * dx) */
ALWAYS_INLINE __m512 scale_add(__m512 f, __m512i sum, __m512 dw, float dx)
{
	return _mm512_fmadd_ps(_mm512_cvtepi32_ps(sum), _mm512_mul_ps(dw, _mm512_set1_ps(dx)), f);
}

ALWAYS_INLINE void panel_8(const struct tile *t, size_t P, size_t T, __m512 *f)
{
	size_t blocks = t->cols / 32, skip = (blocks * 32 + 63) / 64 * 64;

	for (size_t b = 0; b < blocks; b++) {
		size_t far = far_from(t, skip + b * 512);
		__m512i sum[MAX_P * MAX_T];

		UNROLL
		for (size_t j = 0; j < T; j++) {
			__m512i start = _mm512_slli_epi32(_mm512_set1_epi32(t->x[j].nsum32[b]), 7);

			UNROLL
			for (size_t p = 0; p < P; p++)
				sum[p * T + j] = start;
		}
		UNROLL
		for (size_t g = 0; g < 8; g++) {
			__m512i w[MAX_P];

			UNROLL
			for (size_t p = 0; p < P; p++) {
				w[p] = _mm512_loadu_si512(t->w[p] + skip + b * 512 + g * 64);
				if (T <= 2)
					ask(t->w[p] + far + g * 64, 1);
			}
			UNROLL
			for (size_t j = 0; j < T; j++) {
				__m512i x = four_of(&t->x[j], b, g);

				UNROLL
				for (size_t p = 0; p < P; p++)
					sum[p * T + j] = _mm512_dpbusd_epi32(sum[p * T + j], w[p], x);
			}
		}
		UNROLL
		for (size_t p = 0; p < P; p++) {
			__m512 dw = scales_f16(t->w[p] + b * 32);

			UNROLL
			for (size_t j = 0; j < T; j++)
				f[p * T + j] = scale_add(f[p * T + j], sum[p * T + j], dw, t->x[j].d[b]);
		}
	}
}

/* Adds a block of nibbles, at byte `at` of each panel, to the sums. */
ALWAYS_INLINE void nibbles(const struct tile *t, size_t P, size_t T, size_t b, size_t at, __m512i *sum)
{
	size_t far = far_from(t, at);
	const __m512i mask = _mm512_set1_epi8(15);

	UNROLL
	for (size_t g = 0; g < 4; g++) {
		__m512i low[MAX_P], high[MAX_P];

		UNROLL
		for (size_t p = 0; p < P; p++) {
			__m512i v = _mm512_loadu_si512(t->w[p] + at + g * 64);

			if (T <= 2)
				ask(t->w[p] + far + g * 64, 1);
			low[p] = _mm512_and_si512(v, mask);
			high[p] = _mm512_and_si512(_mm512_srli_epi16(v, 4), mask);
		}
		UNROLL
		for (size_t j = 0; j < T; j++) {
			__m512i xl = four_of(&t->x[j], b, g), xh = four_of(&t->x[j], b, g + 4);

			UNROLL
			for (size_t p = 0; p < P; p++) {
				sum[p * T + j] = _mm512_dpbusd_epi32(sum[p * T + j], low[p], xl);
				sum[p * T + j] = _mm512_dpbusd_epi32(sum[p * T + j], high[p], xh);
			}
		}
	}
}

ALWAYS_INLINE void panel_4(const struct tile *t, size_t P, size_t T, __m512 *f)
{
	size_t blocks = t->cols / 32, skip = (blocks * 32 + 63) / 64 * 64;

	for (size_t b = 0; b < blocks; b++) {
		__m512i sum[MAX_P * MAX_T];

		UNROLL
		for (size_t j = 0; j < T; j++) {
			__m512i start = _mm512_slli_epi32(_mm512_set1_epi32(t->x[j].nsum32[b]), 3);

			UNROLL
			for (size_t p = 0; p < P; p++)
				sum[p * T + j] = start;
		}
		nibbles(t, P, T, b, skip + b * 256, sum);
		UNROLL
		for (size_t p = 0; p < P; p++) {
			__m512 dw = scales_f16(t->w[p] + b * 32);

			UNROLL
			for (size_t j = 0; j < T; j++)
				f[p * T + j] = scale_add(f[p * T + j], sum[p * T + j], dw, t->x[j].d[b]);
		}
	}
}

ALWAYS_INLINE __m512 bytes_to_float(const char *p)
{
	return _mm512_cvtepi32_ps(_mm512_cvtepu8_epi32(_mm_loadu_si128((const __m128i *)p)));
}

ALWAYS_INLINE __m512 int8_to_float(const char *p)
{
	return _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128((const __m128i *)p)));
}

ALWAYS_INLINE void panel_4k(const struct tile *t, size_t P, size_t T, __m512 *f)
{
	for (size_t b = 0; b < t->cols / 32; b++) {
		size_t j8 = b % 8, super = b / 8 * (320 + 8 * 256);
		__m512i sum[MAX_P * MAX_T];

		UNROLL
		for (size_t i = 0; i < P * T; i++)
			sum[i] = _mm512_setzero_si512();
		if (T <= 2 && j8 == 0) {
			UNROLL
			for (size_t p = 0; p < P; p++)
				ask(t->w[p] + far_from(t, super), 5);
		}
		nibbles(t, P, T, b, super + 320 + j8 * 256, sum);
		UNROLL
		for (size_t p = 0; p < P; p++) {
			const char *s = t->w[p] + super;
			__m512 dw = _mm512_mul_ps(scales_f16(s), bytes_to_float(s + 64 + j8 * 16));
			__m512 mw = _mm512_mul_ps(scales_f16(s + 32), bytes_to_float(s + 192 + j8 * 16));

			UNROLL
			for (size_t j = 0; j < T; j++) {
				/* minus the minimum times the sum of the block's activations */
				__m512 xs = _mm512_set1_ps(t->x[j].dsum[b]);

				f[p * T + j] = scale_add(_mm512_fmadd_ps(mw, xs, f[p * T + j]), sum[p * T + j], dw,
				                         t->x[j].d[b]);
			}
		}
	}
}

/* Half h (16 columns) of a 6-bit block: vectors 4h .. 4h + 3. */
ALWAYS_INLINE void six_bits(const struct tile *t, size_t P, size_t T, size_t b, size_t h, const char *const *w,
                            __m512i *sum)
{
	const __m512i m4 = _mm512_set1_epi8(15), m2 = _mm512_set1_epi8(0x30);
	__m512i high[MAX_P];

	UNROLL
	for (size_t j = 0; j < T; j++) {
		__m512i start = _mm512_slli_epi32(_mm512_set1_epi32(t->x[j].nsum16[2 * b + h]), 5);

		UNROLL
		for (size_t p = 0; p < P; p++)
			sum[p * T + j] = start;
	}
	UNROLL
	for (size_t p = 0; p < P; p++)
		high[p] = _mm512_loadu_si512(w[p] + 256 + h * 64);
	UNROLL
	for (size_t g = 0; g < 4; g++) {
		__m512i q[MAX_P];

		UNROLL
		for (size_t p = 0; p < P; p++) {
			__m512i low = _mm512_loadu_si512(w[p] + g * 64);
			__m512i top = g < 2 ? _mm512_slli_epi16(high[p], g == 0 ? 4 : 2)
			                    : _mm512_srli_epi16(high[p], g == 2 ? 0 : 2);

			if (h)
				low = _mm512_srli_epi16(low, 4);
			q[p] = _mm512_or_si512(_mm512_and_si512(low, m4), _mm512_and_si512(top, m2));
		}
		UNROLL
		for (size_t j = 0; j < T; j++) {
			__m512i x = four_of(&t->x[j], b, 4 * h + g);

			UNROLL
			for (size_t p = 0; p < P; p++)
				sum[p * T + j] = _mm512_dpbusd_epi32(sum[p * T + j], q[p], x);
		}
	}
}

ALWAYS_INLINE void panel_6k(const struct tile *t, size_t P, size_t T, __m512 *f)
{
	for (size_t b = 0; b < t->cols / 32; b++) {
		size_t j8 = b % 8, super = b / 8 * (320 + 8 * 384);
		const char *w[MAX_P];

		UNROLL
		for (size_t p = 0; p < P; p++) {
			w[p] = t->w[p] + super + 320 + j8 * 384;
			if (T <= 2)
				ask(t->w[p] + far_from(t, super + 320 + j8 * 384), 6);
			if (T <= 2 && j8 == 0)
				ask(t->w[p] + far_from(t, super), 5);
		}
		UNROLL
		for (size_t h = 0; h < 2; h++) {
			__m512i sum[MAX_P * MAX_T];

			six_bits(t, P, T, b, h, w, sum);
			UNROLL
			for (size_t p = 0; p < P; p++) {
				const char *s = t->w[p] + super;
				__m512 dw = _mm512_mul_ps(scales_f16(s), int8_to_float(s + 64 + (j8 * 2 + h) * 16));

				UNROLL
				for (size_t j = 0; j < T; j++)
					f[p * T + j] = scale_add(f[p * T + j], sum[p * T + j], dw, t->x[j].d[b]);
			}
		}
	}
}

/* ---- Tiles ---- */

/* Which template: constant at every call. */
ALWAYS_INLINE void tile_run(enum cpu_panel kind, const struct cpu_block *b, size_t P, size_t T, size_t panel,
                            size_t tok)
{
	struct tile t;
	__m512 f[MAX_P * MAX_T];

	t.cols = b->cols;
	t.bytes = b->ld_w;
	t.jump = (P - 1) * b->ld_w;
	UNROLL
	for (size_t p = 0; p < P; p++)
		t.w[p] = b->w + (panel + p) * b->ld_w;
	UNROLL
	for (size_t j = 0; j < T; j++)
		t.x[j] = cpu_q8_row(cpu_block_x(b, tok + j), b->cols);
	UNROLL
	for (size_t i = 0; i < P * T; i++)
		f[i] = _mm512_setzero_ps();
	if (kind == CPU_PANEL_8)
		panel_8(&t, P, T, f);
	else if (kind == CPU_PANEL_4)
		panel_4(&t, P, T, f);
	else if (kind == CPU_PANEL_4K)
		panel_4k(&t, P, T, f);
	else
		panel_6k(&t, P, T, f);

	for (size_t p = 0; p < P; p++) {
		size_t row = (panel + p) * CPU_PANEL_ROWS;
		size_t n = b->rows - row < CPU_PANEL_ROWS ? b->rows - row : CPU_PANEL_ROWS;
		__mmask16 m = (__mmask16)((1u << n) - 1);
		__m512 bias = b->bias ? _mm512_maskz_loadu_ps(m, b->bias + row) : _mm512_setzero_ps();

		for (size_t j = 0; j < T; j++) {
			float *out = b->out + (tok + j) * b->ld_out + row;
			__m512 y = _mm512_add_ps(f[p * T + j], bias);

			if (b->accumulate)
				y = _mm512_add_ps(_mm512_maskz_loadu_ps(m, out), y);
			_mm512_mask_storeu_ps(out, m, y);
		}
	}
}

/* Two panels and six tokens fill the registers (12 integer and 12 float sums). A single token waits for memory:
 * with 8 bits four panels at once read fastest, with nibbles two (36 against 51 GB/s on four Zen 5 cores). */
ALWAYS_INLINE void block_run(enum cpu_panel kind, const struct cpu_block *b)
{
	size_t n_panels = (b->rows + CPU_PANEL_ROWS - 1) / CPU_PANEL_ROWS, panel = 0;

	if (b->n == 1 && kind == CPU_PANEL_8) {
		for (; panel + 4 <= n_panels; panel += 4)
			tile_run(kind, b, 4, 1, panel, 0);
	}
	for (; panel + 2 <= n_panels; panel += 2) {
		size_t tok = 0;

		for (; tok + 6 <= b->n; tok += 6)
			tile_run(kind, b, 2, 6, panel, tok);
		for (; tok + 3 <= b->n; tok += 3)
			tile_run(kind, b, 2, 3, panel, tok);
		for (; tok + 2 <= b->n; tok += 2)
			tile_run(kind, b, 2, 2, panel, tok);
		for (; tok < b->n; tok++)
			tile_run(kind, b, 2, 1, panel, tok);
	}
	for (; panel < n_panels; panel++) {
		size_t tok = 0;

		for (; tok + 6 <= b->n; tok += 6)
			tile_run(kind, b, 1, 6, panel, tok);
		for (; tok < b->n; tok++)
			tile_run(kind, b, 1, 1, panel, tok);
	}
}

void cpu_panel_8_avx512(const struct cpu_block *b)
{
	block_run(CPU_PANEL_8, b);
}

void cpu_panel_4_avx512(const struct cpu_block *b)
{
	block_run(CPU_PANEL_4, b);
}

void cpu_panel_4k_avx512(const struct cpu_block *b)
{
	block_run(CPU_PANEL_4K, b);
}

void cpu_panel_6k_avx512(const struct cpu_block *b)
{
	block_run(CPU_PANEL_6K, b);
}
