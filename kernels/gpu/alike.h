/* Values by which it shows in what order a kernel adds up a product (gemm_alike.h). Launchers as in launch.h.
 *
 * The second half of a row of x is the first half with the other sign, and a row of W has the same values in both, with
 * equal scales: each sum is 0 but for what rounding leaves of it, all of which is seen. Values have any sign and
 * fraction and several exponents, and no two rows are alike; row i's are the same whatever the number of rows is. */
#ifndef GPU_ALIKE_H
#define GPU_ALIKE_H

#include "gpu/launch.h"

#ifdef __cplusplus
extern "C" {
#endif

struct gk_alike {
	void *p;
	bool eight_bits; /* e4m3, else bfloat16 */
	bool is_x;
	uint32_t rows, cols, ld; /* in elements; what lies between cols and ld becomes 0 */
};
int gk_alike_values(const struct gk_ctx *ctx, const struct gk_alike *a);
/* Scales of 128 x 128 values of W, `ld` floats from one line of them to the next: rows and cols are blocks of 128.
 * is_x: of 128 values of each of `cols` rows, `rows` lines of those side by side. */
int gk_alike_scales(const struct gk_ctx *ctx, const struct gk_alike *a);
/* Rows of ld numbers of either element type to add to. */
int gk_alike_summands(const struct gk_ctx *ctx, void *p, uint32_t elem, uint32_t rows, uint32_t ld);
/* *ret_n, device memory, becomes the number of words of 4 bytes that differ, of n. */
int gk_alike_count(const struct gk_ctx *ctx, const void *a, const void *b, size_t n, uint32_t *ret_n);

#ifdef __cplusplus
}
#endif

#endif
