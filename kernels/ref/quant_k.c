/* The 256-value super-block formats of GGUF (ggml's K types).
 *
 * Q4_K, 144 bytes:  0 f16 d, 2 f16 dmin, 4 u8 scales[12], 16 u8 qs[128]
 * Q5_K, 176 bytes:  0 f16 d, 2 f16 dmin, 4 u8 scales[12], 16 u8 qh[32], 48 u8 qs[128]
 *   Eight sub-blocks s of 32 values: x = d * sc[s] * q - dmin * mn[s], sc and mn of six bits.
 *   scales: bytes 0-3 hold sc[0..3] in their low six bits, bytes 4-7 mn[0..3]; the low halves of bytes
 *   8-11 are the low four bits of sc[4..7], their high halves those of mn[4..7]; the two bits on top come
 *   from the top of bytes 0-3 (sc) and 4-7 (mn).
 *   qs: 32 bytes for each pair of sub-blocks, the even one in the low four bits. Bit s of qh[l] is the
 *   fifth bit of value l of sub-block s.
 *
 * Q6_K, 210 bytes:  0 u8 ql[128], 128 u8 qh[64], 192 int8 sc[16], 208 f16 d
 *   Sixteen sub-blocks of 16 values: x = d * sc * (q - 32), q of six bits. In each half of 128 values,
 *   value 32 k + l (k 0..3, l 0..31) has its low four bits in ql[64 half + 32 (k & 1) + l] (low nibble for
 *   k < 2) and its top two in bits 2k of qh[32 half + l].
 *
 * Encoding: every sub-block gets its best scale (quant_fit.c); those are rounded to the super-block's
 * unit, with their neighbours tried; then the unit itself is solved by least squares for the chosen
 * integers, and the choice is made once more. */
#include "ref/quant.h"

#include <math.h>
#include <string.h>

#include "ref/half.h"
#include "ref/quant_fit.h"

enum { SUBS = 8, SUB = KN_SUPER / SUBS, SUBS6 = 16, SUB6 = KN_SUPER / SUBS6, ROUNDS = 3 };

static void unpack_scales(const uint8_t *p, uint8_t sc[SUBS], uint8_t mn[SUBS])
{
	for (int i = 0; i < 4; i++) {
		sc[i] = p[i] & 63u;
		mn[i] = p[i + 4] & 63u;
		sc[i + 4] = (uint8_t)((p[i + 8] & 15u) | (p[i] >> 6) << 4);
		mn[i + 4] = (uint8_t)(p[i + 8] >> 4 | (p[i + 4] >> 6) << 4);
	}
}

static void pack_scales(const uint8_t sc[SUBS], const uint8_t mn[SUBS], uint8_t *p)
{
	for (int i = 0; i < 4; i++) {
		p[i] = (uint8_t)(sc[i] | (sc[i + 4] >> 4) << 6);
		p[i + 4] = (uint8_t)(mn[i] | (mn[i + 4] >> 4) << 6);
		p[i + 8] = (uint8_t)((sc[i + 4] & 15u) | (mn[i + 4] & 15u) << 4);
	}
}

/* qh NULL: no fifth bit. */
static void decode_affine(const uint8_t *src, const uint8_t *qh, const uint8_t *qs, float *dst)
{
	float d = kn_load_f16(src), dmin = kn_load_f16(src + 2);
	uint8_t sc[SUBS], mn[SUBS];

	unpack_scales(src + 4, sc, mn);
	for (int s = 0; s < SUBS; s++) {
		float scale = d * (float)sc[s], min = dmin * (float)mn[s];

		for (int l = 0; l < SUB; l++) {
			unsigned q = qs[s / 2 * SUB + l] >> (s % 2 * 4) & 15u;

			if (qh)
				q |= (qh[l] >> s & 1u) << 4;
			dst[s * SUB + l] = scale * (float)q - min;
		}
	}
}

void kn_q4_k_decode(const uint8_t *src, float *dst)
{
	decode_affine(src, NULL, src + 16, dst);
}

void kn_q5_k_decode(const uint8_t *src, float *dst)
{
	decode_affine(src, src + 16, src + 48, dst);
}

void kn_q6_k_decode(const uint8_t *src, float *dst)
{
	const uint8_t *ql = src, *qh = src + 128, *sc = src + 192;
	float d = kn_load_f16(src + 208);

	for (int i = 0; i < KN_SUPER; i++) {
		int half = i / 128, k = i / 32 % 4, l = i % 32;
		unsigned low = ql[64 * half + 32 * (k & 1) + l] >> (k / 2 * 4) & 15u;
		unsigned high = qh[32 * half + l] >> (2 * k) & 3u;

		dst[i] = d * (float)(int8_t)sc[i / SUB6] * (float)((int)(low | high << 4) - 32);
	}
}

/* ---- Encoding Q4_K and Q5_K ---------------------------------------------------------------------- */

struct affine {
	float d, dmin; /* as stored */
	uint8_t sc[SUBS], mn[SUBS];
	float error;
};

static float clamp_nearest(float v, float lo, float hi)
{
	return kn_nearest(fminf(fmaxf(v, lo), hi));
}

/* The best (sc, mn) of one sub-block near its ideal scale and minimum. */
static float choose_affine(const struct kn_grid *grid, const float *x, float d, float dmin, float ideal_d,
                           float ideal_m, uint8_t *ret_sc, uint8_t *ret_mn)
{
	float sc0 = d > 0.0f ? clamp_nearest(ideal_d / d, 0.0f, 63.0f) : 0.0f;
	float mn0 = dmin > 0.0f ? clamp_nearest(ideal_m / dmin, 0.0f, 63.0f) : 0.0f;
	float best = INFINITY;

	for (float sc = fmaxf(sc0 - 1.0f, 0.0f); sc <= fminf(sc0 + 1.0f, 63.0f); sc += 1.0f) {
		for (float mn = fmaxf(mn0 - 1.0f, 0.0f); mn <= fminf(mn0 + 1.0f, 63.0f); mn += 1.0f) {
			float error = kn_grid_error(grid, x, SUB, d * sc, -dmin * mn);

			if (error < best) {
				best = error;
				*ret_sc = (uint8_t)sc;
				*ret_mn = (uint8_t)mn;
			}
		}
	}
	return best;
}

/* Least squares for (d, dmin) over the whole super-block, its integers given. */
static void refit_units(const struct kn_grid *grid, const float *x, const struct affine *a, float *d, float *dmin)
{
	double ss = 0, sm = 0, mm = 0, xs = 0, xm = 0, det;
	int8_t q[SUB];

	for (int s = 0; s < SUBS; s++) {
		kn_grid_quantize(grid, x + s * SUB, SUB, a->d * a->sc[s], -a->dmin * a->mn[s], q);
		for (int l = 0; l < SUB; l++) {
			double u = (double)a->sc[s] * q[l], v = -(double)a->mn[s], xi = x[s * SUB + l];

			ss += u * u;
			sm += u * v;
			mm += v * v;
			xs += xi * u;
			xm += xi * v;
		}
	}
	det = ss * mm - sm * sm;
	if (det > 1e-12 * ss * mm) {
		*d = (float)((xs * mm - xm * sm) / det);
		*dmin = (float)((ss * xm - sm * xs) / det);
	} else if (ss > 0) {
		*d = (float)(xs / ss);
	} else if (mm > 0) {
		*dmin = (float)(xm / mm);
	}
	*d = fmaxf(*d, 0.0f);
	*dmin = fmaxf(*dmin, 0.0f);
}

static void encode_affine(const float *x, float hi, struct affine *best)
{
	const struct kn_grid grid = { 0.0f, hi };
	float ideal_d[SUBS], ideal_m[SUBS], max_d = 0.0f, max_m = 0.0f, d, dmin;

	for (int s = 0; s < SUBS; s++) {
		kn_fit_affine(&grid, x + s * SUB, SUB, false, true, &ideal_d[s], &ideal_m[s]);
		ideal_m[s] = -ideal_m[s];
		max_d = fmaxf(max_d, ideal_d[s]);
		max_m = fmaxf(max_m, ideal_m[s]);
	}
	d = max_d / 63.0f;
	dmin = max_m / 63.0f;
	best->error = INFINITY;
	for (int round = 0; round < ROUNDS; round++) {
		struct affine a = { .d = kn_as_half(d), .dmin = kn_as_half(dmin) };

		for (int s = 0; s < SUBS; s++)
			a.error += choose_affine(&grid, x + s * SUB, a.d, a.dmin, ideal_d[s], ideal_m[s], &a.sc[s],
			                         &a.mn[s]);
		if (a.error < best->error)
			*best = a;
		refit_units(&grid, x, &a, &d, &dmin);
	}
}

static void store_affine(const float *x, float hi, const struct affine *a, uint8_t *dst, uint8_t *qh, uint8_t *qs)
{
	const struct kn_grid grid = { 0.0f, hi };
	int8_t q[SUB];

	kn_store_u16(dst, kn_f32_to_f16(a->d));
	kn_store_u16(dst + 2, kn_f32_to_f16(a->dmin));
	pack_scales(a->sc, a->mn, dst + 4);
	memset(qs, 0, KN_SUPER / 2);
	if (qh)
		memset(qh, 0, SUB);
	for (int s = 0; s < SUBS; s++) {
		kn_grid_quantize(&grid, x + s * SUB, SUB, a->d * a->sc[s], -a->dmin * a->mn[s], q);
		for (int l = 0; l < SUB; l++) {
			qs[s / 2 * SUB + l] |= (uint8_t)((q[l] & 15) << (s % 2 * 4));
			if (qh)
				qh[l] |= (uint8_t)(q[l] >> 4 << s);
		}
	}
}

void kn_q4_k_encode(const float *src, uint8_t *dst)
{
	struct affine a = { 0 };

	encode_affine(src, 15.0f, &a);
	store_affine(src, 15.0f, &a, dst, NULL, dst + 16);
}

void kn_q5_k_encode(const float *src, uint8_t *dst)
{
	struct affine a = { 0 };

	encode_affine(src, 31.0f, &a);
	store_affine(src, 31.0f, &a, dst, dst + 16, dst + 48);
}

/* ---- Encoding Q6_K ------------------------------------------------------------------------------- */

struct symmetric {
	float d; /* as stored */
	int8_t sc[SUBS6];
	float error;
};

static const struct kn_grid grid6 = { -32.0f, 31.0f };

static float choose_scale(const float *x, float d, float ideal, int8_t *ret_sc)
{
	float sc0 = d != 0.0f ? clamp_nearest(ideal / d, -128.0f, 127.0f) : 0.0f, best = INFINITY;

	for (float sc = fmaxf(sc0 - 1.0f, -128.0f); sc <= fminf(sc0 + 1.0f, 127.0f); sc += 1.0f) {
		float error = kn_grid_error(&grid6, x, SUB6, d * sc, 0.0f);

		if (error < best) {
			best = error;
			*ret_sc = (int8_t)sc;
		}
	}
	return best;
}

static float refit_unit(const float *x, const struct symmetric *a)
{
	double uu = 0, xu = 0;
	int8_t q[SUB6];

	for (int s = 0; s < SUBS6; s++) {
		kn_grid_quantize(&grid6, x + s * SUB6, SUB6, a->d * a->sc[s], 0.0f, q);
		for (int l = 0; l < SUB6; l++) {
			double u = (double)a->sc[s] * q[l];

			uu += u * u;
			xu += u * x[s * SUB6 + l];
		}
	}
	return uu > 0 ? (float)(xu / uu) : a->d;
}

static void encode_symmetric(const float *x, struct symmetric *best)
{
	float ideal[SUBS6], widest = 0.0f, d;

	for (int s = 0; s < SUBS6; s++) {
		ideal[s] = kn_fit_scale(&grid6, x + s * SUB6, SUB6, false);
		if (fabsf(ideal[s]) > fabsf(widest))
			widest = ideal[s];
	}
	d = widest / -128.0f;
	best->error = INFINITY;
	for (int round = 0; round < ROUNDS; round++) {
		struct symmetric a = { .d = kn_as_half(d) };

		for (int s = 0; s < SUBS6; s++)
			a.error += choose_scale(x + s * SUB6, a.d, ideal[s], &a.sc[s]);
		if (a.error < best->error)
			*best = a;
		d = refit_unit(x, &a);
	}
}

void kn_q6_k_encode(const float *src, uint8_t *dst)
{
	struct symmetric a = { 0 };
	int8_t q[KN_SUPER];

	encode_symmetric(src, &a);
	memset(dst, 0, 192);
	memcpy(dst + 192, a.sc, sizeof(a.sc));
	kn_store_u16(dst + 208, kn_f32_to_f16(a.d));
	for (int s = 0; s < SUBS6; s++)
		kn_grid_quantize(&grid6, src + s * SUB6, SUB6, a.d * a.sc[s], 0.0f, q + s * SUB6);
	for (int i = 0; i < KN_SUPER; i++) {
		int half = i / 128, k = i / 32 % 4, l = i % 32;
		unsigned v = (unsigned)(q[i] + 32);

		dst[64 * half + 32 * (k & 1) + l] |= (uint8_t)((v & 15u) << (k / 2 * 4));
		dst[128 + 32 * half + l] |= (uint8_t)((v >> 4) << (2 * k));
	}
}
