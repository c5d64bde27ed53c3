/* The library of products in plain loops: the paths that give it work are tested without a device. */
#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "gpu/gemm.h"

struct gpu_gemm {
	int unused;
};

struct gpu_gemm *gpu_gemm_open(struct gpu_backend *be, char *reason, size_t reason_bytes)
{
	(void)be;
	(void)reason;
	(void)reason_bytes;
	return calloc(1, sizeof(struct gpu_gemm));
}

void gpu_gemm_close(struct gpu_gemm *g)
{
	free(g);
}

static float wide(uint16_t v)
{
	uint32_t bits = (uint32_t)v << 16;
	float f;

	memcpy(&f, &bits, sizeof(f));
	return f;
}

static uint16_t narrow(float f)
{
	uint32_t bits;

	memcpy(&bits, &f, sizeof(bits));
	return (uint16_t)(isnan(f) ? bits >> 16 | 0x40 : (bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}

/* It is, but tests may want the way of libraries that are not. */
int gpu_gemm_is_alike(struct gpu_gemm *g, const struct gpu_gemm_desc *d)
{
	(void)g;
	(void)d;
	return getenv("PLAIN_NOT_ALIKE") == NULL;
}

int gpu_gemm_run(struct gpu_gemm *g, const struct gpu_gemm_desc *d)
{
	const uint16_t *x = d->x, *w = d->w;

	(void)g;
	for (size_t i = 0; i < d->rows; i++) {
		for (size_t o = 0; o < d->n; o++) {
			size_t at = i * d->ld_out + o;
			double s = 0;

			for (size_t k = 0; k < d->k; k++)
				s += (double)wide(x[i * d->ld_x + k]) * wide(w[o * d->ld_w + k]);
			if (d->out_is_f32)
				((float *)d->out)[at] = (float)s + (d->accumulate ? ((float *)d->out)[at] : 0);
			else
				((uint16_t *)d->out)[at] =
				        narrow((float)s + (d->accumulate ? wide(((uint16_t *)d->out)[at]) : 0));
		}
	}
	return 0;
}

/* Row i of e4m3 without scales, as floats. */
static float *unscaled(const void *values, size_t i, size_t ld, size_t n)
{
	float *row = malloc(n * sizeof(*row));

	kn_dequantize(KN_FP8_128, (const char *)values + i * ld, row, n);
	return row;
}

/* Product of one row with one row of W: each 128 columns by themselves, then times both scales. */
static float dot8(const struct gpu_gemm8_desc *d, size_t i, size_t o, const float *x, const float *w)
{
	const float *w_scale = (const float *)d->w->scales + o / 128 * gk_mat_scale_stride(d->w);
	double s = 0;

	for (size_t k = 0; k < d->w->cols; k++) /* zeros behind them, which matrices do not have here */
		s += (double)x[k] * w[k] * d->x_scale[k / 128 * d->rows + i] * w_scale[k / 128];
	return (float)s;
}

bool gpu_gemm8_known(const struct gpu_gemm *g)
{
	(void)g;
	return true;
}

int gpu_gemm8_is_alike(struct gpu_gemm *g, const struct gpu_gemm8_desc *d)
{
	(void)g;
	(void)d;
	return getenv("PLAIN_NOT_ALIKE") == NULL;
}

int gpu_gemm8_run(struct gpu_gemm *g, const struct gpu_gemm8_desc *d)
{
	(void)g;
	/* As if there were no kernel for some outputs: the way around is taken as well. */
	if (d->out_is_f32 && d->n % 128 == 0)
		return -ENOTSUP;
	for (size_t i = 0; i < d->rows; i++) {
		float *x = unscaled(d->x, i, d->ld_x, d->k);

		for (size_t o = 0; o < d->n; o++) {
			float *w = unscaled(d->w->values, o, d->w->ld, d->w->cols), y = dot8(d, i, o, x, w);
			size_t at = i * d->ld_out + o;

			if (d->out_is_f32)
				((float *)d->out)[at] = y + (d->accumulate ? ((float *)d->out)[at] : 0);
			else
				((uint16_t *)d->out)[at] =
				        narrow(y + (d->accumulate ? wide(((uint16_t *)d->out)[at]) : 0));
			free(w);
		}
		free(x);
	}
	return 0;
}

bool gpu_gemm_is_steady(void)
{
	return true;
}
