/* Attention of many query rows by tile registers of bfloat16: keys and values of one step (64 keys) are brought into
 * the order of a tile once and meet all rows of the query tile. Scores and weighted values are float32 as ever;
 * queries, keys, probabilities and values are rounded to bfloat16 on their way into a product. */
#include <float.h>

#include "cpu/amx.h"
#include "cpu/cpu.h"
#include "cpu/tile_amx.h"

enum { KEYS = CPU_ATTN_TOKENS };

/* ---- Keys and values in order ---- */

/* Values [d, d + 32) of a row, zero beyond n. */
ALWAYS_INLINE __m512i load32(enum kn_dtype dtype, const void *row, size_t d, size_t n)
{
	__mmask32 m = n - d < 32 ? (__mmask32)((1ull << (n - d)) - 1) : (__mmask32)-1;

	if (dtype == KN_F32) {
		const float *p = (const float *)row + d;

		return (__m512i)_mm512_cvtne2ps_pbh(_mm512_maskz_loadu_ps((__mmask16)(m >> 16), p + 16),
		                                    _mm512_maskz_loadu_ps((__mmask16)m, p));
	}
	if (dtype == KN_F16)
		return tile_bf16_of_f16(_mm512_maskz_loadu_epi16(m, (const uint16_t *)row + d));
	return _mm512_maskz_loadu_epi16(m, (const uint16_t *)row + d);
}

/* Values [d, d + 16) of a row as floats, zero beyond n. */
ALWAYS_INLINE __m512 load16(enum kn_dtype dtype, const void *row, size_t d, size_t n)
{
	__mmask16 m = n - d < 16 ? (__mmask16)((1u << (n - d)) - 1) : (__mmask16)-1;
	__m256i h;

	if (!row)
		return _mm512_setzero_ps();
	if (dtype == KN_F32)
		return _mm512_maskz_loadu_ps(m, (const float *)row + d);
	h = _mm256_maskz_loadu_epi16(m, (const uint16_t *)row + d);
	if (dtype == KN_F16)
		return _mm512_cvtph_ps(h);
	return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(h), 16));
}

ALWAYS_INLINE void pack_keys(enum kn_dtype dtype, uint16_t *dst, const void *const *rows, size_t dim)
{
	for (size_t g = 0; g < KEYS / 16; g++) {
		for (size_t d = 0; d < dim; d += 32, dst += TILE_VALUES) {
			__m512i v[16];

			UNROLL
			for (size_t j = 0; j < 16; j++)
				v[j] = rows[g * 16 + j] ? load32(dtype, rows[g * 16 + j], d, dim)
				                        : _mm512_setzero_si512();
			tile_transpose(dst, v);
		}
	}
}

ALWAYS_INLINE void pack_values(enum kn_dtype dtype, uint16_t *dst, const void *const *rows, size_t dim)
{
	for (size_t d = 0; d < dim; d += 16) {
		for (size_t t = 0; t < KEYS; t += 2, dst += 32)
			_mm512_store_si512(
			        dst, tile_pairs_of(load16(dtype, rows[t], d, dim), load16(dtype, rows[t + 1], d, dim)));
	}
}

void cpu_many_keys_amx(enum kn_dtype dtype, uint16_t *dst, const void *const *rows, size_t dim)
{
	if (dtype == KN_F32)
		pack_keys(KN_F32, dst, rows, dim);
	else if (dtype == KN_F16)
		pack_keys(KN_F16, dst, rows, dim);
	else
		pack_keys(KN_BF16, dst, rows, dim);
}

void cpu_many_values_amx(enum kn_dtype dtype, uint16_t *dst, const void *const *rows, size_t dim)
{
	if (dtype == KN_F32)
		pack_values(KN_F32, dst, rows, dim);
	else if (dtype == KN_F16)
		pack_values(KN_F16, dst, rows, dim);
	else
		pack_values(KN_BF16, dst, rows, dim);
}

/* ---- Softmax ---- */

/* 2^t for t <= 0, 0 for minus infinity: the fraction above floor(t) by a polynomial, to 2e-7 of the result. */
ALWAYS_INLINE __m512 exp2_of(__m512 t)
{
	__m512 r = _mm512_reduce_ps(t, _MM_FROUND_TO_NEG_INF), p = _mm512_set1_ps(1.8775767e-3f);

	p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(8.9893397e-3f));
	p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(5.5826318e-2f));
	p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(2.4015361e-1f));
	p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(6.9315308e-1f));
	p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(9.9999994e-1f));
	return _mm512_scalef_ps(p, t);
}

/* 16 vectors to one: what their lanes come to, by a sum or as the greatest. */
ALWAYS_INLINE __m512 across(const __m512 *v, bool sum)
{
	_Alignas(64) float t[16 * 16];
	__m512i rows[16];
	__m512 all;

	UNROLL
	for (size_t j = 0; j < 16; j++)
		rows[j] = _mm512_castps_si512(v[j]);
	tile_transpose((uint16_t *)t, rows);
	all = _mm512_load_ps(t);
	UNROLL
	for (size_t j = 1; j < 16; j++) {
		__m512 a = _mm512_load_ps(t + j * 16);

		all = sum ? _mm512_add_ps(all, a) : _mm512_max_ps(all, a);
	}
	return all;
}

/* Sixteen rows at a time, so that one's latencies are another's work. */
void cpu_many_softmax_amx(uint16_t *p, size_t ld_p, const float *s, size_t ld_s, size_t n_q, float *m, float *l,
                          float *fade)
{
	const __m512 log2e = _mm512_set1_ps(1.44269504f);

	for (size_t r = 0; r < n_q; r += 16, s += 16 * ld_s, p += 16 * ld_p) {
		__mmask16 rows = n_q - r < 16 ? (__mmask16)((1u << (n_q - r)) - 1) : (__mmask16)-1;
		__m512 before = _mm512_maskz_loadu_ps(rows, m + r), now, loss, v[16];
		_Alignas(64) float minus[16];

		UNROLL
		for (size_t j = 0; j < 16; j++) {
			const float *row = s + j * ld_s;

			v[j] = _mm512_max_ps(_mm512_max_ps(_mm512_loadu_ps(row), _mm512_loadu_ps(row + 16)),
			                     _mm512_max_ps(_mm512_loadu_ps(row + 32), _mm512_loadu_ps(row + 48)));
		}
		now = _mm512_max_ps(across(v, false), before);
		_mm512_mask_storeu_ps(m + r, rows, now);
		/* A row that sees nothing yet has minus infinity, from which nothing can be taken. */
		now = _mm512_mul_ps(_mm512_max_ps(now, _mm512_set1_ps(-FLT_MAX / 2)), log2e);
		loss = exp2_of(_mm512_fmsub_ps(before, log2e, now));
		_mm512_mask_storeu_ps(fade + r, rows, loss);
		_mm512_store_ps(minus, now);
		for (size_t j = 0; j < 16; j++) {
			const __m512 top = _mm512_set1_ps(minus[j]);
			__m512 e[4];

			UNROLL
			for (size_t i = 0; i < 4; i++)
				e[i] = exp2_of(_mm512_fmsub_ps(_mm512_loadu_ps(s + j * ld_s + i * 16), log2e, top));
			v[j] = _mm512_add_ps(_mm512_add_ps(e[0], e[1]), _mm512_add_ps(e[2], e[3]));
			_mm512_storeu_si512(p + j * ld_p, (__m512i)_mm512_cvtne2ps_pbh(e[1], e[0]));
			_mm512_storeu_si512(p + j * ld_p + 32, (__m512i)_mm512_cvtne2ps_pbh(e[3], e[2]));
		}
		_mm512_mask_storeu_ps(l + r, rows,
		                      _mm512_fmadd_ps(_mm512_maskz_loadu_ps(rows, l + r), loss, across(v, true)));
	}
}

/* ---- Products ---- */

/* out (+)= a b: two tiles of rows of a, `two` tiles of columns of b, `steps` deep. */
ALWAYS_INLINE void products(bool two, float *out, size_t ld_out, bool add, const uint16_t *a, size_t ld_a,
                            const uint16_t *b, size_t tile_b, size_t steps)
{
	float *out1 = out + 16 * ld_out;
	const uint16_t *a1 = a + 16 * ld_a, *b1 = b + tile_b;

	if (add) {
		_tile_loadd(0, out, ld_out * 4);
		_tile_loadd(2, out1, ld_out * 4);
		if (two) {
			_tile_loadd(1, out + 16, ld_out * 4);
			_tile_loadd(3, out1 + 16, ld_out * 4);
		}
	} else {
		_tile_zero(0);
		_tile_zero(1);
		_tile_zero(2);
		_tile_zero(3);
	}
	for (size_t i = 0; i < steps; i++, a += 32, a1 += 32, b += TILE_VALUES, b1 += TILE_VALUES) {
		_tile_loadd(6, b, 64);
		_tile_loadd(4, a, ld_a * 2);
		_tile_dpbf16ps(0, 4, 6);
		_tile_loadd(5, a1, ld_a * 2);
		_tile_dpbf16ps(2, 5, 6);
		if (two) {
			_tile_loadd(7, b1, 64);
			_tile_dpbf16ps(1, 4, 7);
			_tile_dpbf16ps(3, 5, 7);
		}
	}
	_tile_stored(0, out, ld_out * 4);
	_tile_stored(2, out1, ld_out * 4);
	if (two) {
		_tile_stored(1, out + 16, ld_out * 4);
		_tile_stored(3, out1 + 16, ld_out * 4);
	}
}

void cpu_many_qk_amx(float *s, size_t ld_s, const uint16_t *q, size_t ld_q, size_t n_q, const uint16_t *keys,
                     size_t dim)
{
	size_t steps = (dim + 31) / 32, tile = steps * TILE_VALUES;

	amx_configure(64);
	for (size_t r = 0; r < n_q; r += 32) {
		for (size_t g = 0; g < KEYS / 16; g += 2)
			products(true, s + r * ld_s + g * 16, ld_s, false, q + r * ld_q, ld_q, keys + g * tile, tile,
			         steps);
	}
	amx_release();
}

void cpu_many_pv_amx(float *o, size_t ld_o, const uint16_t *p, size_t ld_p, size_t n_q, const uint16_t *values,
                     size_t dim)
{
	enum { DEEP = KEYS / 32 };
	size_t n_tiles = (dim + 15) / 16;

	amx_configure(64);
	for (size_t r = 0; r < n_q; r += 32) {
		size_t d = 0;

		for (; d + 2 <= n_tiles; d += 2)
			products(true, o + r * ld_o + d * 16, ld_o, true, p + r * ld_p, ld_p,
			         values + d * DEEP * TILE_VALUES, DEEP * TILE_VALUES, DEEP);
		if (d < n_tiles)
			products(false, o + r * ld_o + d * 16, ld_o, true, p + r * ld_p, ld_p,
			         values + d * DEEP * TILE_VALUES, DEEP * TILE_VALUES, DEEP);
	}
	amx_release();
}
