/* The matrices of Qwen3-8B. */
#ifndef GPU_BENCH_SHAPES_H
#define GPU_BENCH_SHAPES_H

#include <stdint.h>

struct model_shape {
	const char *name;
	uint32_t rows, cols;
	bool gated;  /* two of so many rows each */
	bool norm;   /* rows are normed before it; else its results are added to what is there */
	bool is_f32; /* results of the library's product */
};

inline const struct model_shape model_shapes[] = {
	{ "o 4096x4096", 4096, 4096, false, false, true },
	{ "qkv 6144x4096", 6144, 4096, false, true, false },
	{ "gate+up 24576x4096", 12288, 4096, true, true, false },
	{ "down 4096x12288", 4096, 12288, false, false, true },
	{ "head 151936x4096", 151936, 4096, false, true, true },
};

#endif
