/* Products of panels (pack.c) with int8 activations by tile registers: 16 rows meet 16 tokens, a block of 32 columns
 * (16 of PANEL_6K) at a time.
 *
 * The integer sums of a block of columns are exact, and the floats made of them are those of qpanel_avx512.c in the
 * same order: results are the same bit by bit, so that few tokens, for which a tile would be mostly empty, can take
 * the vector code.
 *
 * What a tile costs was measured: its product and its store exclude each other, 16 cycles each, and beside tile
 * instructions the processor multiplies and converts 16 floats a cycle, not 32: 48 cycles for scaling the sums of a
 * tile. All else happens in the shadow of that. Columns go in spans of eight blocks; each tile of tokens meets a span
 * before the next one's turn, and meanwhile the next span is read and unpacked to signed bytes in the order that a
 * tile wants. So memory is read evenly, once, and what is at work stays in the first-level cache. */
#include <string.h>

#include "cpu/amx.h"
#include "cpu/cpu.h"
#include "cpu/tile_amx.h"

enum {
	TOKENS = 16, /* rows of a tile of activations */
	SPAN = 8,    /* steps, each of 32 or 16 columns */
	FOUR = 4,    /* products under way while sums are scaled */
	FEW = 4,     /* up to as many tokens the vector code is faster */
	GROUP = 4,   /* tiles of tokens that meet a span while it is unpacked */
	FAR = 4096,  /* bytes that weights are asked for ahead */
};

/* Some steps of a panel, unpacked. */
struct span {
	_Alignas(64) int8_t q[SPAN * 32 * 16]; /* [SPAN][depth / 4][16 rows][4] */
	float d[SPAN * 16], m[SPAN * 16];      /* [SPAN][16] scales and minimums */
};

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

/* Step i of `steps` of the panel at w. */
typedef void (*unpack_fn)(int8_t *q, float *d, float *m, const char *w, size_t i, size_t steps);

ALWAYS_INLINE void unpack_8(int8_t *q, float *d, float *m, const char *w, size_t i, size_t steps)
{
	const char *v = w + (steps * 32 + 63) / 64 * 64 + i * 512;

	(void)m;
	_mm512_store_ps(d, scales_f16(w + i * 32));
	UNROLL
	for (size_t g = 0; g < 8; g++) {
		_mm_prefetch(v + g * 64 + FAR, _MM_HINT_T1);
		_mm512_store_si512(q + g * 64,
		                   _mm512_xor_si512(_mm512_loadu_si512(v + g * 64), _mm512_set1_epi8(-128)));
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

ALWAYS_INLINE void unpack_4(int8_t *q, float *d, float *m, const char *w, size_t i, size_t steps)
{
	(void)m;
	_mm512_store_ps(d, scales_f16(w + i * 32));
	unpack_nibbles(q, w + (steps * 32 + 63) / 64 * 64 + i * 256, 8);
}

ALWAYS_INLINE void unpack_4k(int8_t *q, float *d, float *m, const char *w, size_t i, size_t steps)
{
	const char *s = w + i / 8 * (320 + 8 * 256);

	(void)steps;
	_mm512_store_ps(d, _mm512_mul_ps(scales_f16(s), bytes_to_float(s + 64 + i % 8 * 16)));
	_mm512_store_ps(m, _mm512_mul_ps(scales_f16(s + 32), bytes_to_float(s + 192 + i % 8 * 16)));
	unpack_nibbles(q, s + 320 + i % 8 * 256, 0);
}

ALWAYS_INLINE void unpack_6k(int8_t *q, float *d, float *m, const char *w, size_t i, size_t steps)
{
	const __m512i m4 = _mm512_set1_epi8(15), m2 = _mm512_set1_epi8(0x30), less = _mm512_set1_epi8(32);
	size_t j8 = i / 2 % 8, h = i % 2;
	const char *s = w + i / 16 * (320 + 8 * 384), *v = s + 320 + j8 * 384;
	__m512i high = _mm512_loadu_si512(v + 256 + h * 64);

	(void)m;
	(void)steps;
	_mm512_store_ps(d, _mm512_mul_ps(scales_f16(s), int8_to_float(s + 64 + (j8 * 2 + h) * 16)));
	UNROLL
	for (size_t g = 0; g < 3; g++)
		_mm_prefetch(v + h * 192 + g * 64 + FAR, _MM_HINT_T1);
	UNROLL
	for (size_t g = 0; g < 4; g++) {
		__m512i low = _mm512_loadu_si512(v + g * 64);
		__m512i top = g < 2 ? _mm512_slli_epi16(high, g == 0 ? 4 : 2) : _mm512_srli_epi16(high, g == 2 ? 0 : 2);

		if (h)
			low = _mm512_srli_epi16(low, 4);
		_mm512_store_si512(
		        q + g * 64,
		        _mm512_sub_epi8(_mm512_or_si512(_mm512_and_si512(low, m4), _mm512_and_si512(top, m2)), less));
	}
}

/* ---- Tokens ---- */

/* Scale (or sum) b of each of 16 prepared rows, to dst[b][16]; x: those of the first row. */
static void gather(float *dst, const char *x, size_t ld_x, size_t blocks)
{
	for (size_t b = 0; b < blocks; b += 16) {
		__mmask16 m = blocks - b < 16 ? (__mmask16)((1u << (blocks - b)) - 1) : (__mmask16)-1;
		__m512i v[16], t[16];

		UNROLL
		for (size_t i = 0; i < 16; i++)
			v[i] = _mm512_maskz_loadu_epi32(m, x + i * ld_x + b * 4);
		tile_transpose((uint16_t *)t, v);
		for (size_t i = 0; i < 16 && b + i < blocks; i++)
			_mm512_store_si512(dst + (b + i) * 16, t[i]);
	}
}

/* ---- Products ---- */

/* A span of a panel and a tile of tokens. */
struct run {
	const struct span *span;
	const char *x;
	const float *dx, *dsum;
	float *f;             /* [16][16] sums so far */
	size_t panel, tok, n; /* the first of n tokens */
};

/* A product of a step into tile c, and its sums to memory. A macro, for tile numbers are part of the instruction. */
#define PRODUCT(c, a, t)                   \
	do {                               \
		_tile_zero(c);             \
		_tile_loadd(t, q, 64);     \
		_tile_loadd(a, x, ld_x);   \
		_tile_dpbssd(c, a, t);     \
		_tile_stored(c, sums, 64); \
	} while (0)

/* One step of a panel, at q, times R (8 or 16) tokens at x; odd: the other one of two sets of tiles. */
ALWAYS_INLINE void product(size_t R, bool odd, const int8_t *q, const char *x, size_t ld_x, int32_t *sums)
{
	if (R == 16 && odd)
		PRODUCT(1, 4, 7);
	else if (R == 16)
		PRODUCT(0, 4, 6);
	else if (odd)
		PRODUCT(3, 5, 7);
	else
		PRODUCT(2, 5, 6);
}

/* Step `step` of the run, as number i of its four. */
ALWAYS_INLINE void product_of(const struct run *r, size_t depth, size_t ld_x, size_t step, size_t i, int32_t *sums)
{
	const int8_t *q = r->span->q + step * depth * 16;
	const char *x = r->x + step * depth;

	if (r->n > 8)
		product(16, i % 2, q, x, ld_x, sums + i * 256);
	else
		product(8, i % 2, q, x, ld_x, sums + i * 256);
}

/* Joins the sums of a step, scaled, to the chains of R tokens. */
ALWAYS_INLINE void join(size_t R, bool minimums, const float *d, const float *m, const float *dx, const float *dsum,
                        const int32_t *sums, __m512 *f)
{
	__m512 dw = _mm512_load_ps(d), mw = _mm512_setzero_ps();

	if (minimums)
		mw = _mm512_load_ps(m);
	UNROLL
	for (size_t i = 0; i < R; i++) {
		__m512 sum = _mm512_cvtepi32_ps(_mm512_load_si512(sums + i * 16));

		if (minimums)
			f[i] = _mm512_fmadd_ps(mw, _mm512_set1_ps(dsum[i]), f[i]);
		f[i] = _mm512_fmadd_ps(sum, _mm512_mul_ps(dw, _mm512_set1_ps(dx[i])), f[i]);
	}
}

/* The results of R tokens, of which r->n count. */
ALWAYS_INLINE void put(size_t R, const struct cpu_block *b, const struct run *r, const __m512 *f)
{
	size_t row = r->panel * CPU_PANEL_ROWS;
	size_t n_rows = b->rows - row < CPU_PANEL_ROWS ? b->rows - row : CPU_PANEL_ROWS;
	__mmask16 m = (__mmask16)((1u << n_rows) - 1);
	__m512 bias = b->bias ? _mm512_maskz_loadu_ps(m, b->bias + row) : _mm512_setzero_ps();

	UNROLL
	for (size_t i = 0; i < R; i++) {
		float *out = b->out + (r->tok + i) * b->ld_out + row;
		__m512 y = _mm512_add_ps(f[i], bias);

		if (i >= r->n)
			break;
		if (b->accumulate)
			y = _mm512_add_ps(_mm512_maskz_loadu_ps(m, out), y);
		_mm512_mask_storeu_ps(out, m, y);
	}
}

/* All rows of a block for some tokens. The sums: half of 4096 bytes between the two, for a load is held up by stores
 * before it to an address that is the same modulo 4096. */
struct work {
	_Alignas(64) int32_t even[FOUR * 256], gap[512], odd[FOUR * 256];
	struct span spans[2];
	float f[GROUP][16 * 16];
	const struct cpu_block *b;
	size_t tok, n, n_tiles, steps, n_spans; /* whole ones, of a panel */
	size_t n_panels, blocks;                /* cols / 32 */
	float *dx, *dsum;                       /* [GROUP][blocks][16 tokens] */
};

/* Tile t and span i of a panel. */
ALWAYS_INLINE void run_at(struct run *r, struct work *k, size_t depth, const struct span *span, size_t panel, size_t i,
                          size_t t)
{
	size_t at = (t * k->blocks + i * SPAN * depth / 32) * 16;

	r->span = span;
	r->panel = panel;
	r->tok = k->tok + t * TOKENS;
	r->n = k->n - t * TOKENS < TOKENS ? k->n - t * TOKENS : TOKENS;
	r->x = cpu_block_x(k->b, r->tok) + i * SPAN * depth;
	r->dx = k->dx + at;
	r->dsum = k->dsum + at;
	r->f = k->f[t];
}

/* What is to be unpacked during a run: steps [at, to) of span `s`, whose first one is number `first` of the panel w. */
struct unpacking {
	struct span *s;
	const char *w;
	size_t first, at, to;
};

/* A whole span. While sums of four steps are scaled, the products of the next four are under way: the run's own, or
 * the first ones of the next run; its own first ones were begun by the run before. `unpack` goes on by the way. */
ALWAYS_INLINE void span_run(size_t R, struct work *k, size_t depth, bool minimums, unpack_fn unpack,
                            const struct run *r, const struct run *next, bool begin, bool end, struct unpacking u)
{
	size_t ld_x = k->b->ld_x;
	__m512 f[16];

	UNROLL
	for (size_t i = 0; i < R; i++)
		f[i] = begin ? _mm512_setzero_ps() : _mm512_load_ps(r->f + i * 16);
	UNROLL
	for (size_t i = 0; i < SPAN; i += FOUR) {
		UNROLL
		for (size_t j = 0; j < FOUR; j++) {
			if (i == 0)
				product_of(r, depth, ld_x, FOUR + j, j, k->odd);
			else if (next)
				product_of(next, depth, ld_x, j, j, k->even);
			if (u.at < u.to) {
				unpack(u.s->q + u.at * depth * 16, u.s->d + u.at * 16, u.s->m + u.at * 16, u.w,
				       u.first + u.at, k->steps);
				u.at++;
			}
			join(R, minimums, r->span->d + (i + j) * 16, r->span->m + (i + j) * 16,
			     r->dx + (i + j) * depth / 32 * 16, r->dsum + (i + j) * depth / 32 * 16,
			     (i == 0 ? k->even : k->odd) + j * 256, f);
		}
	}
	if (end) {
		put(R, k->b, r, f);
		return;
	}
	UNROLL
	for (size_t i = 0; i < R; i++)
		_mm512_store_ps(r->f + i * 16, f[i]);
}

/* The steps of a panel that do not fill a span, one by one. */
ALWAYS_INLINE void rest_run(size_t R, struct work *k, size_t depth, bool minimums, const struct span *s,
                            const struct run *r)
{
	__m512 f[16];

	UNROLL
	for (size_t i = 0; i < R; i++)
		f[i] = k->n_spans ? _mm512_load_ps(r->f + i * 16) : _mm512_setzero_ps();
	for (size_t i = 0; i < k->steps % SPAN; i++) {
		product(R, false, s->q + i * depth * 16, r->x + i * depth, k->b->ld_x, k->gap);
		join(R, minimums, s->d + i * 16, s->m + i * 16, r->dx + i * depth / 32 * 16,
		     r->dsum + i * depth / 32 * 16, k->gap, f);
	}
	put(R, k->b, r, f);
}

ALWAYS_INLINE void rest_of_panel(struct work *k, size_t depth, bool minimums, unpack_fn unpack, size_t panel)
{
	size_t first = k->n_spans * SPAN;
	struct span s;

	for (size_t i = 0; first + i < k->steps; i++)
		unpack(s.q + i * depth * 16, s.d + i * 16, s.m + i * 16, k->b->w + panel * k->b->ld_w, first + i,
		       k->steps);
	for (size_t t = 0; t < k->n_tiles; t++) {
		size_t at = (t * k->blocks + first * depth / 32) * 16;
		struct run r = { .x = cpu_block_x(k->b, k->tok + t * TOKENS) + first * depth,
			         .dx = k->dx + at,
			         .dsum = k->dsum + at,
			         .f = k->f[t],
			         .panel = panel,
			         .tok = k->tok + t * TOKENS,
			         .n = k->n - t * TOKENS < TOKENS ? k->n - t * TOKENS : TOKENS };

		if (r.n > 8)
			rest_run(16, k, depth, minimums, &s, &r);
		else
			rest_run(8, k, depth, minimums, &s, &r);
	}
}

/* Panel by panel, span by span, tile by tile. */
ALWAYS_INLINE void panels_run(struct work *k, size_t depth, bool minimums, unpack_fn unpack)
{
	size_t n_tiles = k->n_tiles, turn = 0, number = 0, unpacked_at[GROUP + 1];
	bool rest = k->steps % SPAN;
	struct run at[2];

	if (k->n_spans) {
		for (size_t j = 0; j < SPAN; j++)
			unpack(k->spans[0].q + j * depth * 16, k->spans[0].d + j * 16, k->spans[0].m + j * 16, k->b->w,
			       j, k->steps);
		run_at(&at[0], k, depth, &k->spans[0], 0, 0, 0);
		UNROLL
		for (size_t j = 0; j < FOUR; j++)
			product_of(&at[0], depth, k->b->ld_x, j, j, k->even);
	}
	/* Each tile's share in unpacking the next span. */
	for (size_t t = 0; t <= n_tiles; t++)
		unpacked_at[t] = SPAN * t / n_tiles;
	for (size_t panel = 0; panel < k->n_panels; panel++) {
		for (size_t i = 0; i < k->n_spans; i++, turn = !turn) {
			bool last = i + 1 == k->n_spans, end = last && panel + 1 == k->n_panels;
			size_t next_i = last ? 0 : i + 1, next = panel + last;
			struct unpacking u = { .s = &k->spans[!turn],
				               .w = k->b->w + next * k->b->ld_w,
				               .first = next_i * SPAN };

			for (size_t t = 0; t < n_tiles; t++, number = !number) {
				struct run *r = &at[number], *then = &at[!number];

				u.at = end ? 0 : unpacked_at[t];
				u.to = end ? 0 : unpacked_at[t + 1];
				if (t + 1 < n_tiles)
					run_at(then, k, depth, &k->spans[turn], panel, i, t + 1);
				else if (!end)
					run_at(then, k, depth, &k->spans[!turn], next, next_i, 0);
				else
					then = NULL;
				if (r->n > 8)
					span_run(16, k, depth, minimums, unpack, r, then, i == 0, last && !rest, u);
				else
					span_run(8, k, depth, minimums, unpack, r, then, i == 0, last && !rest, u);
			}
		}
		if (rest)
			rest_of_panel(k, depth, minimums, unpack, panel);
	}
}

ALWAYS_INLINE void block_run(const struct cpu_block *b, size_t depth, bool minimums, unpack_fn unpack,
                             cpu_block_fn vector)
{
	size_t blocks = b->cols / 32, n_panels = ((size_t)b->rows + CPU_PANEL_ROWS - 1) / CPU_PANEL_ROWS;
	struct work k;

	if (b->n <= FEW) {
		vector(b);
		return;
	}
	for (size_t i = 0; i < FAR && i < n_panels * b->ld_w; i += 64)
		_mm_prefetch(b->w + i, _MM_HINT_T1);
	k.b = b;
	k.n_panels = n_panels;
	k.steps = b->cols / depth;
	k.n_spans = k.steps / SPAN;
	k.blocks = blocks;
	k.dx = b->scratch;
	k.dsum = k.dx + GROUP * blocks * 16;
	amx_configure_ints((unsigned)depth);
	for (k.tok = 0; k.tok < b->n; k.tok += GROUP * TOKENS) {
		k.n = b->n - k.tok < GROUP * TOKENS ? b->n - k.tok : GROUP * TOKENS;
		k.n_tiles = (k.n + TOKENS - 1) / TOKENS;
		for (size_t t = 0; t < k.n_tiles; t++) {
			const char *x = cpu_block_x(b, k.tok + t * TOKENS) + b->cols;

			gather(k.dx + t * blocks * 16, x, b->ld_x, blocks);
			if (minimums)
				gather(k.dsum + t * blocks * 16, x + blocks * 4, b->ld_x, blocks);
		}
		panels_run(&k, depth, minimums, unpack);
	}
	amx_release();
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
