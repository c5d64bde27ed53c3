/* The launchers of kernels/gpu/launch.h in plain loops over ordinary memory: what the host side of the GPU backend is
 * tested with, whatever the kernels do. Rows between the actual number and the bound are filled with what is no number,
 * so that whoever reads them is found; matrices stay as they are in files. Here: the device and weights; the others by
 * theme. */
#include "plain.h"

#include <errno.h>
#include <stdatomic.h>

_Atomic uint32_t plain_n_launched;
bool plain_in_floats;

uint32_t plain_launches(void);
uint32_t plain_launches(void)
{
	return atomic_exchange(&plain_n_launched, 0);
}

/* ---- The device ---- */

int gk_ctx_init(struct gk_ctx *ctx, int device)
{
	(void)device;
	ctx->n_sm = 4;
	ctx->warp = 32;
	ctx->sm = 90; /* whose kernels there are, all others too */
	return 0;
}

const char *gk_error_text(void)
{
	return "none";
}

size_t gk_scratch_bytes(const struct gk_ctx *ctx, const struct gk_limits *limits)
{
	(void)ctx;
	(void)limits;
	return 256;
}

/* ---- Weights ---- */

size_t gk_mat_bytes(uint32_t type, uint32_t rows, uint32_t cols)
{
	size_t bytes = rows * kn_row_bytes((enum kn_dtype)type, cols);

	return type == KN_FP8_128 ? (bytes + 255) / 256 * 256 + (size_t)(rows / 128 + 2) * (cols / 128 + 1) * 4 : bytes;
}

size_t gk_mat_value_bytes(uint32_t type, uint32_t rows, uint32_t cols)
{
	return rows * kn_row_bytes((enum kn_dtype)type, cols);
}

int gk_mat_describe(struct gk_mat *mat, uint32_t type, uint32_t rows, uint32_t cols, void *packed)
{
	size_t bytes = rows * kn_row_bytes((enum kn_dtype)type, cols);

	*mat = (struct gk_mat){ .type = type, .rows = rows, .cols = cols, .ld = cols, .values = packed };
	if (type == KN_FP8_128)
		mat->scales = (char *)packed + (bytes + 255) / 256 * 256;
	return 0;
}

uint32_t gk_mat_scale_lines(const struct gk_mat *mat)
{
	return (mat->first_row + mat->rows + 127) / 128;
}

uint32_t gk_mat_scale_stride(const struct gk_mat *mat)
{
	return mat->cols / 128 + 1;
}

int gk_mat_pack(const struct gk_ctx *ctx, const struct gk_mat *mat, const void *raw, uint32_t row, uint32_t n)
{
	size_t bytes = kn_row_bytes((enum kn_dtype)mat->type, mat->cols);

	(void)ctx;
	memcpy((char *)mat->values + row * bytes, raw, n * bytes);
	return 0;
}

float *plain_row_of(const struct gk_mat *m, size_t row)
{
	float *w = malloc(m->cols * sizeof(*w));
	size_t bytes = kn_row_bytes((enum kn_dtype)m->type, m->cols);

	kn_dequantize((enum kn_dtype)m->type, (const char *)m->values + row * bytes, w, m->cols);
	for (uint32_t k = 0; m->type == KN_FP8_128 && k < m->cols; k++)
		w[k] *= ((const float *)m->scales)[(m->first_row + row) / 128 * gk_mat_scale_stride(m) + k / 128];
	return w;
}

int gk_mat_widen(const struct gk_ctx *ctx, const struct gk_mat *mat, void *dst, uint32_t ld)
{
	const struct gk_view to = { .p = dst, .elem = GK_BF16, .ld = ld };

	(void)ctx;
	for (uint32_t r = 0; r < mat->rows; r++) {
		float *w = plain_row_of(mat, r);

		for (uint32_t k = 0; k < mat->cols; k++)
			plain_put(&to, r, k, w[k]);
		free(w);
	}
	return 0;
}
