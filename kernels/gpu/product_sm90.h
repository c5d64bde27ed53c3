/* Products on Hopper: product_sm90.cu. */
#ifndef GPU_PRODUCT_SM90_H
#define GPU_PRODUCT_SM90_H

#include "gpu/launch.h"

/* As gk_product_hopper(), with compute capability 9.0. */
int prod_launch(const struct gk_ctx *ctx, const struct gk_product *l);

#endif
