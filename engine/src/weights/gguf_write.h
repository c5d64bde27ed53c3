/* Writing GGUF v3: metadata first, then tensors in the order added. Used by `ocai-engine quantize`. */
#ifndef ENG_GGUF_WRITE_H
#define ENG_GGUF_WRITE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "kernels.h"

struct eng_gguf_writer;

/* The add functions return 0, -EEXIST for a key or tensor of that name, -EINVAL for a shape that is not whole blocks,
 * or -ENOMEM. Keys, names and values are copied. */
int eng_gguf_writer_new(struct eng_gguf_writer **ret_writer);
void eng_gguf_writer_free(struct eng_gguf_writer *w);

int eng_gguf_add_u32(struct eng_gguf_writer *w, const char *key, uint32_t value);
int eng_gguf_add_f32(struct eng_gguf_writer *w, const char *key, float value);
int eng_gguf_add_bool(struct eng_gguf_writer *w, const char *key, int value);
int eng_gguf_add_string(struct eng_gguf_writer *w, const char *key, const char *text, size_t len);
int eng_gguf_add_strings(struct eng_gguf_writer *w, const char *key, const char *const *texts, const size_t *lens,
                         uint64_t n);
int eng_gguf_add_u64(struct eng_gguf_writer *w, const char *key, uint64_t value);
int eng_gguf_add_bools(struct eng_gguf_writer *w, const char *key, const bool *values, uint64_t n);
int eng_gguf_add_u32s(struct eng_gguf_writer *w, const char *key, const uint32_t *values, uint64_t n);
int eng_gguf_add_i32s(struct eng_gguf_writer *w, const char *key, const int32_t *values, uint64_t n);
int eng_gguf_add_f32s(struct eng_gguf_writer *w, const char *key, const float *values, uint64_t n);
/* shape is row-major, slowest first; data is borrowed until eng_gguf_write(). */
int eng_gguf_add_tensor(struct eng_gguf_writer *w, const char *name, enum kn_dtype dtype, uint32_t n_dims,
                        const uint64_t *shape, const void *data);
/* Fills size bytes with the tensor's data; a negative return ends the writing with it. */
typedef int (*eng_gguf_make_fn)(void *arg, void *dst, uint64_t size, struct err *err);
/* The same, but the data is made when its turn to be written comes, one tensor in memory at a time. */
int eng_gguf_add_tensor_made(struct eng_gguf_writer *w, const char *name, enum kn_dtype dtype, uint32_t n_dims,
                             const uint64_t *shape, eng_gguf_make_fn make, void *arg);
/* Written beside the target and renamed over it. */
int eng_gguf_write(struct eng_gguf_writer *w, const char *path, struct err *err);

#endif
