/* The library of products in plain loops: the paths that give it work are tested without a device. */
#include <errno.h>

#include "gpu/gemm.h"
#include "plain.h"

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

static void widen(float *to, const uint16_t *from, size_t n)
{
	for (size_t i = 0; i < n; i++)
		to[i] = wide(from[i]);
}

static uint16_t narrow(float f)
{
	uint32_t bits;

	memcpy(&bits, &f, sizeof(bits));
	return (uint16_t)(isnan(f) ? bits >> 16 | 0x40 : (bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}

static void put(void *out, bool is_f32, bool accumulate, size_t at, float y)
{
	if (is_f32)
		((float *)out)[at] = y + (accumulate ? ((float *)out)[at] : 0);
	else
		((uint16_t *)out)[at] = narrow(y + (accumulate ? wide(((uint16_t *)out)[at]) : 0));
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
	float *x = malloc((d->rows + 1) * (size_t)d->k * sizeof(*x)), *w = x + d->rows * (size_t)d->k;

	(void)g;
	for (size_t i = 0; i < d->rows; i++)
		widen(x + i * d->k, (const uint16_t *)d->x + i * d->ld_x, d->k);
	for (size_t o = 0; o < d->n; o++) {
		widen(w, (const uint16_t *)d->w + o * d->ld_w, d->k);
		for (size_t i = 0; i < d->rows; i++)
			put(d->out, d->out_is_f32, d->accumulate, i * d->ld_out + o,
			    (float)plain_sum(x + i * d->k, w, d->k));
	}
	free(x);
	return 0;
}

/* Row i of e4m3 as floats, each 128 of them times a scale; scales are `step` apart. */
static void widen8(float *to, const void *values, size_t i, size_t ld, size_t n, const float *scale, size_t step)
{
	kn_dequantize(KN_FP8_128, (const char *)values + i * ld, to, n);
	for (size_t k = 0; k < n; k++)
		to[k] *= scale[k / 128 * step];
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
	float *x, *w;
	size_t cols;

	(void)g;
	/* As if there were no kernel for some outputs: the way around is taken as well. */
	if (d->out_is_f32 && d->n % 128 == 0)
		return -ENOTSUP;
	/* Zeros behind W's columns, which matrices do not have here. */
	cols = d->w->cols;
	x = malloc((d->rows + 1) * cols * sizeof(*x));
	w = x + d->rows * cols;
	for (size_t i = 0; i < d->rows; i++)
		widen8(x + i * cols, d->x, i, d->ld_x, cols, d->x_scale + i, d->rows);
	for (size_t o = 0; o < d->n; o++) {
		widen8(w, d->w->values, o, d->w->ld, cols,
		       (const float *)d->w->scales + o / 128 * gk_mat_scale_stride(d->w), 1);
		for (size_t i = 0; i < d->rows; i++)
			put(d->out, d->out_is_f32, d->accumulate, i * d->ld_out + o,
			    (float)plain_sum(x + i * cols, w, cols));
	}
	free(x);
	return 0;
}

bool gpu_gemm_is_steady(void)
{
	return true;
}
