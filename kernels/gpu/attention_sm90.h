/* Attention of prompts on Hopper (attention_sm90.cu). */
#ifndef GPU_ATTENTION_SM90_H
#define GPU_ATTENTION_SM90_H

#include "gpu/attention.h"

/* Whether it knows such heads, pages and rows. The same for all steps of a program. */
bool attn_hopper_takes(const struct gk_ctx *ctx, const attn_args &a);
/* Over the list `many`; work is set. */
int attn_hopper_launch(const struct gk_ctx *ctx, const attn_args &a, uint32_t max_work);

#endif
