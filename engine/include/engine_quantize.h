/* Turns a model into a GGUF file with other element types: `ocai-engine quantize` as a library. */
#ifndef ENGINE_QUANTIZE_H
#define ENGINE_QUANTIZE_H

#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"
#include "kernels.h"

struct eng_quantize_options {
	const char *model_path;   /* Hugging Face folder, or GGUF; or */
	const char *random_shape; /* "qwen3-0.6b": a model of that shape with random weights */
	const char *output_path;
	enum kn_dtype dtype;        /* of the matrices */
	enum kn_dtype embed_dtype;  /* of the token embeddings; KN_N_DTYPES: as the mix of `dtype` has it */
	enum kn_dtype output_dtype; /* of the output matrix; the same */
	bool pure;                  /* no mix: every matrix is of `dtype` */
	uint32_t n_threads;         /* 0: one per usable core */
	/* What a person should know and is no failure: a type that had to differ, a tensor left out. */
	void (*note)(void *arg, const char *text);
	void *note_arg;
};

struct eng_quantize_result {
	uint64_t n_tensors, n_params, size_bytes;
};

/* Writes the file beside its name and renames it into place. */
int eng_quantize(const struct eng_quantize_options *options, struct eng_quantize_result *ret_result, struct err *err);

#endif
