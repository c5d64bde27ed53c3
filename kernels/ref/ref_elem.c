/* Row by row: norms, rotary positions, activations, sums. */
#include <math.h>

#include "ref/ref.h"

void ref_layernorm(struct kn_backend *be, float *out, size_t ld_out, const float *x, size_t ld_x, const float *w,
                   const float *b, size_t n, size_t dim, float eps)
{
	(void)be;
	for (size_t i = 0; i < n; i++) {
		const float *row = x + i * ld_x;
		double mean = 0, variance = 0;
		float scale;

		for (size_t d = 0; d < dim; d++)
			mean += row[d];
		mean /= (double)dim;
		for (size_t d = 0; d < dim; d++)
			variance += (row[d] - mean) * (row[d] - mean);
		scale = (float)(1 / sqrt(variance / (double)dim + eps));
		for (size_t d = 0; d < dim; d++)
			out[i * ld_out + d] = (float)(row[d] - mean) * scale * w[d] + b[d];
	}
}

void ref_rmsnorm(struct kn_backend *be, float *out, size_t ld_out, const float *x, size_t ld_x, const float *w,
                 size_t n, size_t n_head, size_t dim, float eps)
{
	(void)be;
	for (size_t i = 0; i < n; i++) {
		for (size_t h = 0; h < n_head; h++) {
			const float *src = x + i * ld_x + h * dim;
			float *dst = out + i * ld_out + h * dim;
			double sum = 0;
			float scale;

			for (size_t d = 0; d < dim; d++)
				sum += (double)src[d] * src[d];
			scale = (float)(1.0 / sqrt(sum / (double)dim + eps));
			for (size_t d = 0; d < dim; d++)
				dst[d] = src[d] * scale * (w ? w[d] : 1.0f);
		}
	}
}

/* The angle is a float product, as in the implementations that models are trained with: at far positions
 * its rounding is part of the model. */
void ref_rope(struct kn_backend *be, float *x, size_t ld_x, size_t n, size_t n_head, size_t head_dim,
              const struct kn_rope *rope, const int32_t *pos)
{
	size_t half = rope->n_rot / 2;

	(void)be;
	for (size_t i = 0; i < n; i++) {
		for (size_t j = 0; j < half; j++) {
			float angle = (float)pos[i] * rope->inv_freq[j];
			float c = (float)cos(angle) * rope->scale, s = (float)sin(angle) * rope->scale;
			size_t a = rope->offset + (rope->interleaved ? 2 * j : j);
			size_t b = rope->interleaved ? a + 1 : a + half;

			for (size_t h = 0; h < n_head; h++) {
				float *head = x + i * ld_x + h * head_dim;
				float xa = head[a], xb = head[b];

				head[a] = xa * c - xb * s;
				head[b] = xb * c + xa * s;
			}
		}
	}
}

static float sigmoid(float x)
{
	return 1.0f / (1.0f + expf(-x));
}

static float gelu_tanh(float x)
{
	const float sqrt_2_over_pi = 0.79788456080286535588f;

	return 0.5f * x * (1.0f + tanhf(sqrt_2_over_pi * (x + 0.044715f * x * x * x)));
}

/* gpt-oss: both sides clamped, the gate only from above. */
static float swiglu_oss(float g, float u)
{
	const float limit = 7.0f, alpha = 1.702f;

	g = g > limit ? limit : g;
	u = u > limit ? limit : u < -limit ? -limit : u;
	return g * sigmoid(alpha * g) * (u + 1.0f);
}

void ref_act_mul(struct kn_backend *be, enum kn_act act, float *out, size_t ld_out, const float *gate, size_t ld_gate,
                 const float *up, size_t ld_up, size_t n, size_t dim)
{
	(void)be;
	for (size_t i = 0; i < n; i++) {
		for (size_t d = 0; d < dim; d++) {
			float g = gate[i * ld_gate + d], u = up ? up[i * ld_up + d] : 1, y = 0;

			switch (act) {
			case KN_ACT_SILU:
				y = g * sigmoid(g) * u;
				break;
			case KN_ACT_GELU_TANH:
				y = gelu_tanh(g) * u;
				break;
			case KN_ACT_SWIGLU_OSS:
				y = swiglu_oss(g, u);
				break;
			case KN_ACT_GELU:
				y = 0.5f * g * (1.0f + erff(g * (float)M_SQRT1_2));
				break;
			}
			out[i * ld_out + d] = y;
		}
	}
}

void ref_add(struct kn_backend *be, float *x, size_t ld_x, const float *y, size_t ld_y, size_t n, size_t dim,
             float scale)
{
	(void)be;
	for (size_t i = 0; i < n; i++) {
		for (size_t d = 0; d < dim; d++)
			x[i * ld_x + d] += scale * y[i * ld_y + d];
	}
}

void ref_argmax(struct kn_backend *be, const float *x, size_t ld_x, size_t n, size_t dim, int32_t *ret_ids)
{
	(void)be;
	for (size_t i = 0; i < n; i++) {
		const float *row = x + i * ld_x;
		size_t best = 0;

		for (size_t k = 1; k < dim; k++) {
			if (row[k] > row[best] || (isnan(row[best]) && !isnan(row[k])))
				best = k;
		}
		ret_ids[i] = (int32_t)best;
	}
}
