/* Products with many tokens by tile registers of bfloat16: weights of any type become bfloat16 in the order that a tile
 * wants, and meet all tokens of the block, whose sums stay in the tiles along the columns. Weights and activations are
 * rounded to bfloat16.
 *
 * Unpacking a block costs as much as some five tiles of tokens, and saves storing and scaling integer sums at every 32
 * columns, which costs three times the product itself (qpanel_amx.c). So this is faster from 12 tokens on.
 *
 * Up to 32 tokens it is the weights that take the time: they stream through a small ring, unpacked while the products
 * of earlier columns are under way. More tokens meet pieces of 32 rows (two tiles) by SPAN columns, which stay in the
 * first-level cache; the tokens stream from the second, and wait there for the next span with what they have so far. */
#include <string.h>

#include "cpu/amx.h"
#include "cpu/cpu.h"
#include "cpu/tile_amx.h"

enum {
	SIDE = 16,  /* rows or tokens of a tile */
	STEP = 32,  /* columns of a tile */
	SPAN = 256, /* columns of a piece */
	TILE = TILE_VALUES,
	LEAD = 4,            /* steps that weights are unpacked ahead, where tokens are few */
	FAR = 12,            /* and asked for ahead of that */
	STREAM_TOKENS = 128, /* many results: see streams() */
	STREAM_VALUES = 1 << 20
};

/* In the thread's scratch. */
struct scratch {
	uint16_t w[2][SIDE * SPAN];                             /* [row tile][step][pair][row][2] */
	float sums[CPU_MAX_ITEM_TOKENS / SIDE][2][SIDE * SIDE]; /* [token tile][row tile][token][row] */
};

_Static_assert(sizeof(struct scratch) <= CPU_SCRATCH_BYTES, "a thread's scratch");

/* Rows [16 r, 16 r + 16) of the block, columns [32 i, 32 i + 32), fewer at the end of the rows. Panels ask for the
 * block at `next` meanwhile. */
typedef void (*unpack_fn)(uint16_t *dst, const struct cpu_block *b, size_t r, size_t i, const char *next);

/* Two tiles of rows that are computed together: r and r + 1, or rows r of gate and of up, which are two matrices. */
struct pair {
	const struct cpu_block *b[2];
	size_t step; /* from a pair's r to that of the next */
};

ALWAYS_INLINE size_t tile_of(const struct pair *p, size_t r, size_t j)
{
	return p->step == 2 ? r + j : r;
}

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

	UNROLL
	for (size_t g = 0; g < 8; g++) {
		__m512i q = _mm512_loadu_si512(v + g * 64);

		_mm_prefetch(next + g * 64, _MM_HINT_T1);
		put_bytes(dst + g * 64, q, q, 0xff00, l);
	}
}

/* A block of nibbles: q d + c. */
ALWAYS_INLINE void put_nibbles(uint16_t *dst, const char *v, __m512 d, __m512 c, const char *next)
{
	struct line low = line_of(d, c, LOW_SCALE), high = line_of(d, c, HIGH_SCALE);
	const __m512i m = _mm512_set1_epi8(15);

	UNROLL
	for (size_t g = 0; g < 4; g++) {
		__m512i two = _mm512_loadu_si512(v + g * 64);

		_mm_prefetch(next + g * 64, _MM_HINT_T1);
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

	UNROLL
	for (size_t h = 0; h < 2; h++) {
		__m512 d = _mm512_mul_ps(scales_f16(s), int8_to_float(s + 64 + (i % 8 * 2 + h) * 16));
		struct line l = line_of(d, _mm512_mul_ps(d, _mm512_set1_ps(-32)), BYTE_SCALE);
		__m512i high = _mm512_loadu_si512(v + 256 + h * 64);

		UNROLL
		for (size_t g = 0; g < 3; g++)
			_mm_prefetch(next + h * 192 + g * 64, _MM_HINT_T1);
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

	(void)next;
	UNROLL
	for (size_t j = 0; j < SIDE; j++)
		v[j] = j < rows ? _mm512_maskz_loadu_epi16(m, w + j * b->ld_w) : _mm512_setzero_si512();
	tile_transpose(dst, v);
}

ALWAYS_INLINE void unpack_f16(uint16_t *dst, const struct cpu_block *b, size_t r, size_t i, const char *next)
{
	size_t rows = b->rows - r * SIDE < SIDE ? b->rows - r * SIDE : SIDE;
	const char *w = b->w + r * SIDE * b->ld_w + i * STEP * 2;
	__mmask32 m = columns(b, i);
	__m512i v[SIDE];

	(void)next;
	UNROLL
	for (size_t j = 0; j < SIDE; j++) {
		__m512i h = j < rows ? _mm512_maskz_loadu_epi16(m, w + j * b->ld_w) : _mm512_setzero_si512();

		v[j] = tile_bf16_of_f16(h);
	}
	tile_transpose(dst, v);
}

/* ---- Products ---- */

/* All columns of a piece: T token tiles by R row tiles. Tile numbers are part of the instruction: four shapes. */
ALWAYS_INLINE void piece_run(size_t T, size_t R, const struct scratch *s, const char *x, size_t ld_x, size_t steps,
                             bool begin, float (*sums)[2][SIDE * SIDE])
{
	const char *x1 = x + SIDE * ld_x;
	const uint16_t *w0 = s->w[0], *w1 = s->w[1];

	if (begin) {
		_tile_zero(0);
		_tile_zero(1);
		_tile_zero(2);
		_tile_zero(3);
	} else {
		_tile_loadd(0, sums[0][0], 64);
		if (R > 1)
			_tile_loadd(1, sums[0][1], 64);
		if (T > 1)
			_tile_loadd(2, sums[1][0], 64);
		if (T > 1 && R > 1)
			_tile_loadd(3, sums[1][1], 64);
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
	_tile_stored(0, sums[0][0], 64);
	if (R > 1)
		_tile_stored(1, sums[0][1], 64);
	if (T > 1)
		_tile_stored(2, sums[1][0], 64);
	if (T > 1 && R > 1)
		_tile_stored(3, sums[1][1], 64);
}

/* Many results are written past the caches: to write them there, what they replace would be read first, and by the time
 * somebody asks for them they would have left again. */
static bool streams(const struct cpu_block *b)
{
	return !b->accumulate && (b->n >= STREAM_TOKENS || b->n * b->ld_out >= STREAM_VALUES) &&
	       (uintptr_t)b->out % 64 == 0 && b->ld_out % SIDE == 0;
}

/* Sums of a tile, where they were kept, to the results. */
static void finish(const struct cpu_block *b, const float *sums, size_t row, size_t tok)
{
	size_t n_rows = b->rows - row < SIDE ? b->rows - row : SIDE, n = b->n - tok < SIDE ? b->n - tok : SIDE;
	__mmask16 m = (__mmask16)((1u << n_rows) - 1);
	__m512 bias = b->bias ? _mm512_maskz_loadu_ps(m, b->bias + row) : _mm512_setzero_ps();

	if (streams(b) && n_rows == SIDE) {
		for (size_t i = 0; i < n; i++)
			_mm512_stream_ps(b->out + (tok + i) * b->ld_out + row,
			                 _mm512_add_ps(_mm512_load_ps(sums + i * SIDE), bias));
		return;
	}
	for (size_t i = 0; i < n; i++) {
		float *out = b->out + (tok + i) * b->ld_out + row;
		__m512 y = _mm512_add_ps(_mm512_load_ps(sums + i * SIDE), bias);

		if (b->accumulate)
			y = _mm512_add_ps(_mm512_maskz_loadu_ps(m, out), y);
		_mm512_mask_storeu_ps(out, m, y);
	}
}

/* Two tiles of sums, of the same rows of gate and up, to what down takes. */
static void finish_gated(const struct pair *p, float (*sums)[SIDE * SIDE], size_t row, size_t tok)
{
	const struct cpu_block *b = p->b[0];
	const struct cpu_gate *g = b->gate;
	size_t n = b->n - tok < SIDE ? b->n - tok : SIDE;

	for (size_t j = 0; j < 2; j++) {
		__m512 bias;

		if (!p->b[j]->bias)
			continue;
		bias = _mm512_loadu_ps(p->b[j]->bias + row);
		for (size_t i = 0; i < n; i++)
			_mm512_store_ps(sums[j] + i * SIDE, _mm512_add_ps(_mm512_load_ps(sums[j] + i * SIDE), bias));
	}
	g->isa->act_mul(g->act, sums[0], sums[0], sums[1], n * SIDE);
	for (size_t i = 0; i < n; i++)
		g->isa->store[KN_BF16](g->h + (tok + i) * g->ld_h + row * sizeof(uint16_t), sums[0] + i * SIDE, SIDE);
}

/* The sums of a token tile and the pair's row tiles, of which there are n. */
ALWAYS_INLINE void finish_pair(const struct pair *p, float (*sums)[SIDE * SIDE], size_t r, size_t n, size_t tok)
{
	if (p->b[0]->gate) {
		finish_gated(p, sums, r * SIDE, tok);
		return;
	}
	for (size_t j = 0; j < n; j++)
		finish(p->b[0], sums[j], (r + j) * SIDE, tok);
}

/* Columns [k, k + n) of row tile r and, if R is 2, its partner, for all tokens. */
ALWAYS_INLINE void span_run(size_t R, const struct pair *p, struct scratch *s, size_t r, size_t k, size_t n)
{
	const struct cpu_block *b = p->b[0];
	size_t n_tiles = (b->n + SIDE - 1) / SIDE, steps = (n + STEP - 1) / STEP;
	bool last = k + n == b->cols;

	for (size_t t = 0; t < n_tiles; t += 2) {
		const char *x = cpu_block_x(b, t * SIDE) + k * 2;
		bool two = t + 1 < n_tiles;

		if (two)
			piece_run(2, R, s, x, b->ld_x, steps, k == 0, &s->sums[t]);
		else
			piece_run(1, R, s, x, b->ld_x, steps, k == 0, &s->sums[t]);
		for (size_t i = 0; last && i < (two ? 2 : 1); i++)
			finish_pair(p, s->sums[t + i], r, R, (t + i) * SIDE);
	}
}

/* Where the panel's block i comes to lie in memory, about; behind the last one, that of the next pair. */
ALWAYS_INLINE const char *block_at(const struct pair *p, size_t r, size_t j, size_t i, size_t steps)
{
	const struct cpu_block *b = p->b[j];
	const char *w = b->w + tile_of(p, r, j) * b->ld_w;

	return i < steps ? w + b->ld_w / steps * i : w + p->step * b->ld_w + b->ld_w / steps * (i - steps);
}

/* More than two tiles of tokens: a piece at a time. */
ALWAYS_INLINE void pieces_run(const struct pair *p, unpack_fn unpack)
{
	const struct cpu_block *b = p->b[0];
	struct scratch *s = b->scratch;
	size_t n_rows = ((size_t)b->rows + SIDE - 1) / SIDE, steps = ((size_t)b->cols + STEP - 1) / STEP;

	for (size_t r = 0; r < n_rows; r += p->step) {
		bool two = tile_of(p, r, 1) < n_rows;

		for (size_t k = 0; k < b->cols; k += SPAN) {
			size_t n = b->cols - k < SPAN ? b->cols - k : SPAN, first = k / STEP;

			for (size_t j = 0; j < (two ? 2 : 1); j++) {
				for (size_t i = first; i * STEP < k + n; i++)
					unpack(s->w[j] + (i - first) * TILE, p->b[j], tile_of(p, r, j), i,
					       block_at(p, r, j, i + SPAN / STEP, steps));
			}
			if (two)
				span_run(2, p, s, r, k, n);
			else
				span_run(1, p, s, r, k, n);
		}
	}
}

/* Weights being unpacked ahead of the products: block i of row tile r and its partner, to `put` of the ring that w is.
 */
struct ahead {
	size_t r, i, put;
};

ALWAYS_INLINE void unpack_ahead(struct ahead *a, const struct pair *p, unpack_fn unpack, size_t n_rows, size_t steps)
{
	struct scratch *s = p->b[0]->scratch;

	if (a->r >= n_rows)
		return;
	unpack(s->w[0] + a->put, p->b[0], a->r, a->i, block_at(p, a->r, 0, a->i + FAR, steps));
	if (tile_of(p, a->r, 1) < n_rows)
		unpack(s->w[1] + a->put, p->b[1], tile_of(p, a->r, 1), a->i, block_at(p, a->r, 1, a->i + FAR, steps));
	a->put = (a->put + TILE) % (SIDE * SPAN);
	if (++a->i == steps) {
		a->i = 0;
		a->r += p->step;
	}
}

/* T, at most two, tiles of tokens: their sums stay in tiles all along the rows, and while products are under way the
 * weights are unpacked some steps ahead, for it is that what takes the time. */
ALWAYS_INLINE void stream_run(size_t T, const struct pair *p, unpack_fn unpack)
{
	const struct cpu_block *b = p->b[0];
	struct scratch *s = b->scratch;
	size_t n_rows = ((size_t)b->rows + SIDE - 1) / SIDE, steps = ((size_t)b->cols + STEP - 1) / STEP, take = 0;
	const char *x0 = cpu_block_x(b, 0), *x1 = x0 + SIDE * b->ld_x;
	struct ahead a = { 0 };

	for (size_t i = 0; i < LEAD; i++)
		unpack_ahead(&a, p, unpack, n_rows, steps);
	for (size_t r = 0; r < n_rows; r += p->step) {
		_tile_zero(0);
		_tile_zero(1);
		_tile_zero(2);
		_tile_zero(3);
		for (size_t i = 0; i < steps; i++, take = (take + TILE) % (SIDE * SPAN)) {
			_tile_loadd(6, s->w[0] + take, 64);
			_tile_loadd(4, x0 + i * 2 * STEP, b->ld_x);
			_tile_dpbf16ps(0, 4, 6);
			if (T > 1) {
				_tile_loadd(5, x1 + i * 2 * STEP, b->ld_x);
				_tile_dpbf16ps(2, 5, 6);
			}
			/* Of rows that there are not: of what was there before. Nobody looks at the sums. */
			_tile_loadd(7, s->w[1] + take, 64);
			_tile_dpbf16ps(1, 4, 7);
			if (T > 1)
				_tile_dpbf16ps(3, 5, 7);
			unpack_ahead(&a, p, unpack, n_rows, steps);
		}
		_tile_stored(0, s->sums[0][0], 64);
		_tile_stored(1, s->sums[0][1], 64);
		_tile_stored(2, s->sums[1][0], 64);
		_tile_stored(3, s->sums[1][1], 64);
		for (size_t i = 0; i < T; i++)
			finish_pair(p, s->sums[i], r, tile_of(p, r, 1) < n_rows ? 2 : 1, i * SIDE);
	}
}

ALWAYS_INLINE void block_run(const struct cpu_block *b, unpack_fn unpack)
{
	struct cpu_block up = *b;
	struct pair p = { .b = { b, b->gate ? &up : b }, .step = b->gate ? 1 : 2 };

	if (b->gate) {
		up.w = b->gate->up;
		up.bias = b->gate->up_bias;
	}
	amx_configure(64);
	if (b->n > 2 * SIDE)
		pieces_run(&p, unpack);
	else if (b->n > SIDE)
		stream_run(2, &p, unpack);
	else
		stream_run(1, &p, unpack);
	amx_release();
	_mm_sfence();
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
