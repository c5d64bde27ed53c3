/* Between the files of mixtures. */
#ifndef GPU_MOE_H
#define GPU_MOE_H

#include <stddef.h>
#include <stdint.h>

#include "gpu/few.h"

/* For pairs of a row and an expert. */
size_t moe_scratch_bytes(size_t n_pairs, uint32_t n_expert, uint32_t n_ff, uint32_t dim);

/* moe_sm90.h: a grouped product on Hopper. x and out are bfloat16 in 16-byte steps. */
enum { WIDE_TILE = 128 /* rows of x */ };

struct wide_args {
	gk_view x, out;         /* out: rows of places */
	const few_group *tiles; /* at most WIDE_TILE rows each */
	const uint32_t *n_tiles;
	const gk_mat *mats[2];  /* the second: gated */
	const float *bias[2];   /* [expert][rows] or NULL */
	const uint32_t *row_of; /* [place] row of x; NULL: the place */
	uint32_t act;
	bool fixed; /* the same instructions whatever the number of rows */
};

struct wide_launch {
	const gk_ctx *ctx;
	const wide_args *args;
	uint32_t n_rows_w, n_tiles; /* n_tiles: bound */
	bool gated;
};
/* false: not a type of it. */
bool wide_launch_any(uint32_t type, const wide_launch &l);

#endif
