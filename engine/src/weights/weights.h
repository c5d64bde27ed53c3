/* Tensors by name out of safetensors (one file or shards with an index) and GGUF v3 (one or split),
 * memory-mapped. Knows nothing of models. Everything handed out is borrowed and lives until close. */
#ifndef ENG_WEIGHTS_H
#define ENG_WEIGHTS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "kernels.h"

enum { ENG_TENSOR_MAX_DIMS = 8 }; /* 3D convolutions of vision towers have five */

struct eng_tensor {
	const char *name;
	/* The element type where kernels know it; otherwise dtype is KN_N_DTYPES and dtype_name tells. */
	enum kn_dtype dtype;
	const char *dtype_name; /* as the file says: "BF16", "F8_E4M3", "I64", "Q4_K" */
	uint32_t n_dims;
	uint64_t shape[ENG_TENSOR_MAX_DIMS]; /* row-major, slowest first (GGUF's order is reversed here) */
	const void *data;                    /* may be unaligned */
	const void *scales;                  /* NULL but for what a model's loader has made KN_FP8_128 */
	uint64_t size_bytes;
};

struct eng_weights;

/* Opens a folder with model.safetensors or model.safetensors.index.json, one .safetensors file, or a
 * .gguf file (any part of a split set opens the whole). Every header is checked here: offsets within
 * the file, no overlap, sizes that match shape and type, else -EBADMSG naming file and tensor. */
int eng_weights_open(const char *path, struct eng_weights **ret_weights, struct err *err);
/* The same from memory, which stays the caller's and must outlive the weights: a safetensors or GGUF file,
 * told apart by the magic number. `where` names the source in errors. */
int eng_weights_parse(const char *where, const void *data, size_t size, struct eng_weights **ret_weights,
                      struct err *err);
void eng_weights_close(struct eng_weights *weights);

size_t eng_weights_count(const struct eng_weights *weights);
const struct eng_tensor *eng_weights_at(const struct eng_weights *weights, size_t i);
/* NULL when there is none of that name. */
const struct eng_tensor *eng_weights_find(const struct eng_weights *weights, const char *name);
/* To be called before a tensor's bytes are used: of a model that is still arriving (weights/flip.h) they are waited
 * for, in the order in which they are asked for. Elsewhere it costs nothing and always succeeds. -EIO: they do not
 * come, where touching them would have ended the process. */
int eng_weights_await(const struct eng_weights *weights, const struct eng_tensor *t, struct err *err);
/* Tells a backend that reads files by itself which ones are mapped here; NULL weights: it is to have read all that it
 * was given. Those of a model that is still arriving are left out. */
int eng_weights_tell_sources(const struct eng_weights *weights, struct kn_backend *be, struct err *err);
uint64_t eng_weights_bytes(const struct eng_weights *weights);
/* [data, data + size) of a tensor was copied and will hardly be read again: it no longer counts as this process's
 * memory. What is not in a mapped file is left alone. */
void eng_weights_cool(const struct eng_weights *weights, const void *data, size_t size);

/* ---- GGUF metadata; all return -ENOENT when the file is not GGUF or lacks the key ---- */

bool eng_weights_is_gguf(const struct eng_weights *weights);
/* -EINVAL: the key has a value of another kind. Any integer type; -ERANGE when it does not fit. */
int eng_gguf_get_u32(const struct eng_weights *weights, const char *key, uint32_t *ret, struct err *err);
int eng_gguf_get_f32(const struct eng_weights *weights, const char *key, float *ret, struct err *err);
int eng_gguf_get_bool(const struct eng_weights *weights, const char *key, bool *ret, struct err *err);
/* Not NUL-terminated in the file; len is returned. */
int eng_gguf_get_string(const struct eng_weights *weights, const char *key, const char **ret_text, size_t *ret_len,
                        struct err *err);
/* Array of strings: calls fn for each in order; a non-zero return stops and is returned. */
int eng_gguf_each_string(const struct eng_weights *weights, const char *key,
                         int (*fn)(void *arg, uint64_t i, const char *text, size_t len), void *arg, struct err *err);
/* Arrays of numbers, converted (bools read as 0 and 1 in the first); *ret is malloc'd, the caller's. A scalar reads as
 * an array of one. */
int eng_gguf_get_i32_array(const struct eng_weights *weights, const char *key, int32_t **ret, uint64_t *ret_n,
                           struct err *err);
int eng_gguf_get_f32_array(const struct eng_weights *weights, const char *key, float **ret, uint64_t *ret_n,
                           struct err *err);

/* Adds what tells these files from others: sizes, times of change, the first bytes (where the headers are) and samples
 * of the rest. */
struct base_sha256;
void eng_weights_fingerprint(const struct eng_weights *w, struct base_sha256 *sha);

#endif
