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
#include "cpu/unpack_amx.h"

enum {
	SPAN = 256,          /* columns of a piece */
	LEAD = 6,            /* steps that weights are unpacked ahead, where tokens are few */
	FAR = 12,            /* and asked for ahead of that */
	LEFT_TOKENS = SIDE,  /* up to so many meet weights of bfloat16 as they lie */
	STREAM_TOKENS = 128, /* many results: see streams() */
	STREAM_VALUES = 1 << 20
};

/* In the thread's scratch. */
struct scratch {
	uint16_t w[2][SIDE * SPAN];                             /* [row tile][step][pair][row][2] */
	float sums[CPU_MAX_ITEM_TOKENS / SIDE][2][SIDE * SIDE]; /* [token tile][row tile][token][row] */
};

_Static_assert(sizeof(struct scratch) <= CPU_SCRATCH_BYTES, "a thread's scratch");

/* Two tiles of rows that are computed together: r and r + 1, or rows r of gate and of up, which are two matrices. */
struct pair {
	const struct cpu_block *b[2];
	size_t step;       /* from a pair's r to that of the next */
	size_t tile_bytes; /* from a row tile's weights to the next one's */
	size_t far;        /* steps that weights are asked for ahead, where tokens are few */
};

ALWAYS_INLINE size_t tile_of(const struct pair *p, size_t r, size_t j)
{
	return p->step == 2 ? r + j : r;
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
	const char *w = b->w + tile_of(p, r, j) * p->tile_bytes;

	return i < steps ? w + p->tile_bytes / steps * i
	                 : w + p->step * p->tile_bytes + p->tile_bytes / steps * (i - steps);
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

ALWAYS_INLINE void unpack_ahead(struct ahead *a, const struct pair *p, size_t j, unpack_fn unpack, size_t n_rows,
                                size_t steps)
{
	struct scratch *s = p->b[0]->scratch;

	if (tile_of(p, a->r, j) < n_rows)
		unpack(s->w[j] + a->put, p->b[j], tile_of(p, a->r, j), a->i,
		       block_at(p, a->r, j, a->i + p->far, steps));
	if (j == 0)
		return;
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

	for (size_t i = 0; i < LEAD; i++) {
		unpack_ahead(&a, p, 0, unpack, n_rows, steps);
		unpack_ahead(&a, p, 1, unpack, n_rows, steps);
	}
	for (size_t r = 0; r < n_rows; r += p->step) {
		_tile_zero(0);
		_tile_zero(1);
		_tile_zero(2);
		_tile_zero(3);
		for (size_t i = 0; i < steps; i++, take = (take + TILE) % (SIDE * SPAN)) {
			/* Of rows that there are not: of what was there before. Nobody looks at the sums. */
			_tile_loadd(6, s->w[0] + take, 64);
			_tile_loadd(4, x0 + i * 2 * STEP, b->ld_x);
			_tile_dpbf16ps(0, 4, 6);
			unpack_ahead(&a, p, 0, unpack, n_rows, steps);
			_tile_loadd(7, s->w[1] + take, 64);
			_tile_dpbf16ps(1, 4, 7);
			if (T > 1) {
				_tile_loadd(5, x1 + i * 2 * STEP, b->ld_x);
				_tile_dpbf16ps(2, 5, 6);
			}
			unpack_ahead(&a, p, 1, unpack, n_rows, steps);
			if (T > 1)
				_tile_dpbf16ps(3, 5, 7);
		}
		_tile_stored(0, s->sums[0][0], 64);
		_tile_stored(1, s->sums[0][1], 64);
		_tile_stored(2, s->sums[1][0], 64);
		_tile_stored(3, s->sums[1][1], 64);
		for (size_t i = 0; i < T; i++)
			finish_pair(p, s->sums[i], r, tile_of(p, r, 1) < n_rows ? 2 : 1, i * SIDE);
	}
}

/* Rows of the block, or of gate's and up's, for which `up` is room. */
ALWAYS_INLINE struct pair pair_of(const struct cpu_block *b, struct cpu_block *up)
{
	struct pair p = { .b = { b, b }, .step = 2, .tile_bytes = b->ld_w, .far = b->n > 2 * SIDE ? SPAN / STEP : FAR };

	if (b->gate) {
		*up = *b;
		up->w = b->gate->up;
		up->bias = b->gate->up_bias;
		p.b[1] = up;
		p.step = 1;
	}
	return p;
}

/* in_place: weights row by row, of which the whole next tile is asked for ahead, in the order in which it lies in
 * memory. */
ALWAYS_INLINE void block_run(const struct cpu_block *b, bool in_place, unpack_fn unpack)
{
	struct cpu_block up;
	struct pair p = pair_of(b, &up);

	if (in_place) {
		p.tile_bytes = SIDE * b->ld_w;
		p.far = (b->cols + STEP - 1) / STEP;
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

/* ---- Weights of bfloat16 as they lie ----
 *
 * For a few tokens unpacking is what takes the time. As rows of a left operand weights need none: tokens are the right
 * one, and results come out with rows for columns. A sum has the same products in the same order as above, so its bits
 * are the same: how many tokens there are cannot be told from a result. */

/* T tiles of tokens in the order of right operands: [step][T]. */
ALWAYS_INLINE void pack_tokens(size_t T, uint16_t *dst, const struct cpu_block *b, size_t steps)
{
	for (size_t i = 0; i < steps; i++) {
		for (size_t t = 0; t < T; t++, dst += TILE) {
			const char *x = cpu_block_x(b, t * SIDE) + i * 2 * STEP;
			__m512i v[SIDE];

			UNROLL
			for (size_t j = 0; j < SIDE; j++)
				v[j] = _mm512_loadu_si512(x + j * b->ld_x);
			tile_transpose(dst, v);
		}
	}
}

/* A tile of sums [row][token] to [token][row]. */
ALWAYS_INLINE void turn_sums(float *sums)
{
	__m512i v[SIDE];

	UNROLL
	for (size_t j = 0; j < SIDE; j++)
		v[j] = _mm512_load_si512(sums + j * SIDE);
	tile_transpose((uint16_t *)sums, v);
}

/* x: right operands of a step, ld_x bytes from one row of theirs to the next, then those of the next step. */
ALWAYS_INLINE void left_run(size_t T, bool one, const struct pair *p, const char *x, size_t ld_x)
{
	const struct cpu_block *b = p->b[0];
	struct scratch *s = b->scratch;
	size_t n_rows = b->rows / SIDE, steps = b->cols / STEP, x_step = one ? 2 * STEP : T * TILE * 2;

	for (size_t r = 0; r < n_rows; r += p->step) {
		bool two = tile_of(p, r, 1) < n_rows;
		const char *w0 = p->b[0]->w + r * p->tile_bytes;
		const char *w1 = two ? p->b[1]->w + tile_of(p, r, 1) * p->tile_bytes : w0;
		const char *next0 = w0 + p->step * p->tile_bytes, *next1 = w1 + p->step * p->tile_bytes;

		_tile_zero(0);
		_tile_zero(1);
		_tile_zero(2);
		_tile_zero(3);
		for (size_t i = 0; i < steps; i++, next0 += 2 * TILE, next1 += 2 * TILE) {
			UNROLL
			for (size_t j = 0; j < SIDE; j++) {
				_mm_prefetch(next0 + j * 64, _MM_HINT_T1);
				_mm_prefetch(next1 + j * 64, _MM_HINT_T1);
			}
			_tile_loadd(6, x + i * x_step, ld_x);
			_tile_loadd(4, w0 + i * 2 * STEP, b->ld_w);
			_tile_dpbf16ps(0, 4, 6);
			_tile_loadd(5, w1 + i * 2 * STEP, b->ld_w);
			_tile_dpbf16ps(1, 5, 6);
			if (T > 1) {
				_tile_loadd(7, x + i * x_step + TILE * 2, ld_x);
				_tile_dpbf16ps(2, 4, 7);
				_tile_dpbf16ps(3, 5, 7);
			}
		}
		_tile_stored(0, s->sums[0][0], ld_x);
		_tile_stored(1, s->sums[0][1], ld_x);
		if (T > 1) {
			_tile_stored(2, s->sums[1][0], ld_x);
			_tile_stored(3, s->sums[1][1], ld_x);
		}
		for (size_t t = 0; t < T; t++) {
			if (!one) {
				turn_sums(s->sums[t][0]);
				turn_sums(s->sums[t][1]);
			}
			finish_pair(p, s->sums[t], r, two ? 2 : 1, t * SIDE);
		}
	}
}

static void left_block(const struct cpu_block *b)
{
	uint16_t *x = (uint16_t *)((char *)b->scratch + CPU_SCRATCH_BYTES);
	size_t steps = b->cols / STEP;
	struct cpu_block up;
	struct pair p = pair_of(b, &up);

	p.tile_bytes = SIDE * b->ld_w;
	if (b->n == 1) {
		amx_configure_left(4);
		left_run(1, true, &p, cpu_block_x(b, 0), 4);
	} else if (b->n <= SIDE) {
		pack_tokens(1, x, b, steps);
		amx_configure_left(64);
		left_run(1, false, &p, (char *)x, 64);
	} else {
		pack_tokens(2, x, b, steps);
		amx_configure_left(64);
		left_run(2, false, &p, (char *)x, 64);
	}
	amx_release();
	_mm_sfence();
}

void cpu_many_panel_8_amx(const struct cpu_block *b)
{
	block_run(b, false, unpack_8);
}

void cpu_many_panel_4_amx(const struct cpu_block *b)
{
	block_run(b, false, unpack_4);
}

void cpu_many_panel_4k_amx(const struct cpu_block *b)
{
	block_run(b, false, unpack_4k);
}

void cpu_many_panel_6k_amx(const struct cpu_block *b)
{
	block_run(b, false, unpack_6k);
}

void cpu_many_bf16_amx(const struct cpu_block *b)
{
	struct cpu_block whole = *b, rest = *b;

	whole.rows = b->rows / SIDE * SIDE;
	if (b->n > LEFT_TOKENS || b->cols % STEP != 0 || whole.rows == 0) {
		block_run(b, true, unpack_bf16);
		return;
	}
	left_block(&whole);
	rest.rows -= whole.rows;
	if (rest.rows == 0)
		return;
	rest.w += whole.rows * b->ld_w;
	rest.out += whole.rows;
	if (b->bias)
		rest.bias += whole.rows;
	block_run(&rest, true, unpack_bf16);
}

void cpu_many_f16_amx(const struct cpu_block *b)
{
	block_run(b, true, unpack_f16);
}
