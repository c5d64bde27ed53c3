/* Products by eight bits on Hopper: fp8_sm90.cu. */
#ifndef GPU_FP8_SM90_H
#define GPU_FP8_SM90_H

#include "gpu/launch.h"

/* As gk_linear_eight(), with compute capability 9.0. */
int eight_launch(const struct gk_ctx *ctx, const struct gk_linear8 *l);

#endif
