/* Between the files of products. */
#ifndef GPU_LINEAR_H
#define GPU_LINEAR_H

#include "gpu/few.h"
#include "gpu/launch.h"

bool few_launch_any(uint32_t type, const few_launch &l);

/* Job j by tiles on matrix units; with l->gated both jobs at once. */
int many_of_job(const struct gk_ctx *ctx, const struct gk_linear *l, uint32_t j);

#endif
