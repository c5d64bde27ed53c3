/* The scale searches that the block encoders share: values x against a grid d * q (+ m), q integer. */
#ifndef KN_REF_QUANT_FIT_H
#define KN_REF_QUANT_FIT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* The grid: q in [lo, hi]. */
struct kn_grid {
	float lo, hi;
};

/* Sum of squared errors of n values (a multiple of 4) put on the nearest of d * q + m. */
float kn_grid_error(const struct kn_grid *grid, const float *x, size_t n, float d, float m);
/* The q themselves. d of 0 gives q = 0, or the value of the grid nearest to it. */
void kn_grid_quantize(const struct kn_grid *grid, const float *x, size_t n, float d, float m, int8_t *ret_q);

/* Best d for x = d * q. half: d will be stored as binary16, and is rounded before it is judged. */
float kn_fit_scale(const struct kn_grid *grid, const float *x, size_t n, bool half);

/* Best (d >= 0, m) for x = d * q + m, lo being 0. nonpositive: m must be <= 0 (the K types store -m). */
void kn_fit_affine(const struct kn_grid *grid, const float *x, size_t n, bool half, bool nonpositive, float *ret_d,
                   float *ret_m);

/* Nearest integer, ties to even, for |v| < 2^22. */
static inline float kn_nearest(float v)
{
	return (v + 0x1.8p23f) - 0x1.8p23f;
}

/* The value after a round trip through binary16. */
float kn_as_half(float v);

#endif
