/* Products of many rows by the vendor's library, which is opened when the backend is. Without it, or for what it does
 * not take, there are kernels of our own. */
#ifndef GPU_GEMM_H
#define GPU_GEMM_H

#include "gpu/backend.h"

/* out [rows, n] (+)= x [rows, k] w [n, k]^T; x and w bfloat16, out bfloat16 or float32, row strides in elements. */
struct gpu_gemm_desc {
	uint32_t rows, n, k;
	const void *x, *w;
	void *out;
	uint32_t ld_x, ld_w, ld_out;
	bool out_is_f32, accumulate;
};

/* The same of e4m3: w a KN_FP8_128 matrix whose first_row is 0, of which n rows are taken (more than it has where
 * others lie behind it), x as gk_quantize_rows() makes it with ld_scale == rows. k and both strides are multiples of
 * 16, rows of 4. */
struct gpu_gemm8_desc {
	uint32_t rows, n, k;
	const struct gk_mat *w;
	const void *x;
	const float *x_scale;
	void *out;
	uint32_t ld_x, ld_out;
	bool out_is_f32, accumulate;
};

/* NULL with the reason: the library is not here. */
struct gpu_gemm *gpu_gemm_open(struct gpu_backend *be, char *reason, size_t reason_bytes);
void gpu_gemm_close(struct gpu_gemm *g);
/* Onto the backend's stream, safe under capture. -ENOTSUP: this shape is not taken. */
int gpu_gemm_run(struct gpu_gemm *g, const struct gpu_gemm_desc *d);
/* Deterministic mode: 1: it has kernels for few and for many rows of such a product, whatever their number is, and all
 * give a row the same bits; 0: it has not, and one kernel serves all numbers. The device is asked when the kind is
 * first seen; -ENOTSUP: that would be now, and a graph is captured. */
int gpu_gemm_is_alike(struct gpu_gemm *g, const struct gpu_gemm_desc *d);

int gpu_gemm8_run(struct gpu_gemm *g, const struct gpu_gemm8_desc *d);
/* As gpu_gemm_is_alike(); what d points to is not read, but for the matrix' stride. */
int gpu_gemm8_is_alike(struct gpu_gemm *g, const struct gpu_gemm8_desc *d);
/* Whether the library has such products at all on this device. */
bool gpu_gemm8_known(const struct gpu_gemm *g);

/* Whether, in deterministic mode, a row's bits do not depend on the number of rows. */
bool gpu_gemm_is_steady(void);

/* Whether issue.c gives a job of a product of many rows to the library. */
bool gpu_gemm_takes(const struct gpu_backend *be, const struct gpu_program *p, const union gpu_rec *rec,
                    const struct rec_job *job);
/* Whether it does so with FP8 weights, and rows in eight bits. */
bool gpu_gemm8_takes(const struct gpu_backend *be, const union gpu_rec *rec, const struct rec_job *job);
/* Whether kernels of our own multiply what the library would by eight bits, if there are any on this device. */
bool gpu_own8_takes(const struct gpu_backend *be, const union gpu_rec *rec, const struct rec_job *job);
/* bfloat16 by our own kernel for Hopper (gk_product_hopper): gate and up, or many columns, of some rows; all products
 * of more than a few rows where there is no library. */
bool gpu_own16_takes(const struct gpu_backend *be, const union gpu_rec *rec, const struct rec_job *job, bool gated);
/* Whether it writes the job's matrix out in bfloat16 first, so that the library can read it. */
bool gpu_widens(const struct gpu_backend *be, const union gpu_rec *rec, const struct rec_job *job);

#endif
