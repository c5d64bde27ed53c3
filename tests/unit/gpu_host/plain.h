/* What the launchers in plain loops (*_plain.c) share: values of any element type, rows, counting. */
#ifndef PLAIN_H
#define PLAIN_H

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "gpu/launch.h"

extern _Atomic uint32_t plain_n_launched; /* ranks of a group count together */
extern _Atomic uint32_t plain_n_gated8;   /* calls of gk_product_hopper() with an activation, of FP8 */
extern bool plain_no_eight;               /* as on devices that have none of these */
extern bool plain_in_floats;              /* as plain_dot() sums */

static inline float plain_get(const struct gk_view *v, size_t row, size_t i)
{
	size_t at = row * v->ld + i;

	if (v->elem == GK_BF16) {
		uint32_t bits = (uint32_t)((const uint16_t *)v->p)[at] << 16;
		float f;

		memcpy(&f, &bits, sizeof(f));
		return f;
	}
	return ((const float *)v->p)[at];
}

static inline void plain_put(const struct gk_view *v, size_t row, size_t i, float f)
{
	size_t at = row * v->ld + i;
	uint32_t bits;

	if (v->elem != GK_BF16) {
		((float *)v->p)[at] = f;
		return;
	}
	memcpy(&bits, &f, sizeof(bits));
	if (!isnan(f))
		bits += 0x7fff + (bits >> 16 & 1);
	((uint16_t *)v->p)[at] = (uint16_t)(bits >> 16);
}

static inline uint32_t plain_rows(struct gk_rows rows)
{
	return rows.n ? *rows.n : rows.bound;
}

static inline void plain_poison(const struct gk_view *v, struct gk_rows rows, size_t width)
{
	for (size_t i = plain_rows(rows); i < rows.bound; i++) {
		for (size_t k = 0; k < width; k++)
			plain_put(v, i, k, NAN);
	}
}

/* Row `row` of a matrix as floats; the caller's. */
float *plain_row_of(const struct gk_mat *m, size_t row);

static inline float plain_act(uint32_t act, float g, float u)
{
	switch ((enum kn_act)act) {
	case KN_ACT_SILU:
		return g / (1 + expf(-g)) * u;
	case KN_ACT_GELU_TANH:
		return 0.5f * g * (1 + tanhf(0.7978845608f * (g + 0.044715f * g * g * g))) * u;
	case KN_ACT_SWIGLU_OSS:
		g = fminf(g, 7);
		u = fmaxf(fminf(u, 7), -7);
		return g / (1 + expf(-1.702f * g)) * (u + 1);
	case KN_ACT_GELU:
		return 0.5f * g * (1 + erff(g * 0.7071067812f));
	case KN_ACT_SIGMOID:
		return u / (1 + expf(-g));
	}
	return NAN;
}

/* Of lines that the caller alone has: most of the time of whole models, so ThreadSanitizer need not look. */
__attribute__((no_sanitize("thread"))) static inline double plain_sum(const float *a, const float *b, size_t n)
{
	double s = 0;

	for (size_t i = 0; i < n; i++)
		s += (double)a[i] * b[i];
	return s;
}

__attribute__((no_sanitize("thread"))) static inline float plain_float_sum(const float *a, const float *b, size_t n)
{
	float s = 0;

	for (size_t i = 0; i < n; i++)
		s += a[i] * b[i];
	return s;
}

__attribute__((no_sanitize("thread"))) static inline void plain_add(double *to, double by, const float *a, size_t n)
{
	for (size_t i = 0; i < n; i++)
		to[i] += by * a[i];
}

static inline float plain_dot(const float *a, const float *b, size_t n)
{
	return plain_in_floats ? plain_float_sum(a, b, n) : (float)plain_sum(a, b, n);
}

#endif
