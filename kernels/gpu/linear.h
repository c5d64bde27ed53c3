/* Between the files of products. */
#ifndef GPU_LINEAR_H
#define GPU_LINEAR_H

#include "gpu/few.h"
#include "gpu/launch.h"

bool few_launch_any(uint32_t type, const few_launch &l);
/* Rows of x, not normed, as columns of this type's order. */
void linear_columns(const struct gk_ctx *ctx, const few_columns &cols, uint32_t type, uint32_t n_rows, const gk_view &x,
                    uint32_t n_cols);

/* steady.cu: groups that the sums of a product are made in where ctx->fixed. */
uint32_t steady_groups(const struct gk_ctx *ctx, const struct gk_mat *w, bool gated);
size_t steady_scratch_bytes(const struct gk_ctx *ctx, uint32_t max_rows, uint32_t max_cols);

/* Job j by tiles on matrix units; with l->gated both jobs at once. */
int many_of_job(const struct gk_ctx *ctx, const struct gk_linear *l, uint32_t j);

#endif
