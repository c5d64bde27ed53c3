/* Between the files of mixtures. */
#ifndef GPU_MOE_H
#define GPU_MOE_H

#include <stddef.h>
#include <stdint.h>

/* For pairs of a row and an expert. */
size_t moe_scratch_bytes(size_t n_pairs, uint32_t n_expert, uint32_t n_ff, uint32_t dim);

#endif
