/* A plan: every tensor of the file to be written, and where its rows come from. */
#ifndef ENG_QUANTIZE_INTERNAL_H
#define ENG_QUANTIZE_INTERNAL_H

#include <jansson.h>

#include "engine_quantize.h"
#include "weights/gguf_write.h"
#include "weights/names.h"
#include "weights/weights.h"

/* Row r of the target is computed from `parts[r / part_rows]`: with i = r % part_rows (after permuting),
 * its element c is the source's element
 *   offset + i / block_rows * block_stride + i % block_rows * row_stride + c * col_stride. */
struct qz_view {
	uint64_t part_rows, block_rows;
	uint64_t offset, block_stride, row_stride, col_stride;
	uint32_t permute; /* rows per head to be put in interleaved order; 0: none */
	float add;        /* to every value */
};

struct qz_tensor {
	const char *name;
	uint32_t n_dims;
	uint64_t shape[4], rows, cols;
	enum kn_dtype dtype;
	int64_t layer; /* -1: before all layers, INT64_MAX: after them; orders the file */
	size_t order;
	/* One of these three. */
	const struct eng_tensor **parts;
	size_t n_parts;
	const float *values;
	uint64_t random_seed; /* not 0 */

	uint32_t *source_row; /* [rows] the source's row for each, ours; NULL: the same */
	struct qz_view view;
	struct qz_plan *plan;
};

struct qz_plan {
	const struct eng_quantize_options *options;
	struct eng_weights *weights; /* NULL for random shapes */
	struct eng_gguf_writer *writer;
	struct qz_tensor *tensors;
	size_t n_tensors, cap_tensors;
	struct eng_arena arena;
	struct base_threadpool *pool;
	float *scratch; /* a row per worker */
	uint64_t max_cols;
	uint32_t n_layer;
	bool tied; /* the embedding table is the output matrix too */
};

void qz_note(const struct qz_plan *plan, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

/* Appends a tensor of this shape (the name is copied); the caller says where its values come from.
 * NULL when there is no memory. The pointer is good until the next call. */
struct qz_tensor *qz_plan_add(struct qz_plan *plan, const char *name, uint32_t n_dims, const uint64_t *shape);
/* The source as it is: the shape's rows one after the other. */
int qz_from_tensor(struct qz_tensor *t, const struct eng_tensor *source);
/* A vector of the plan's own. */
int qz_plan_add_values(struct qz_plan *plan, const char *name, const float *values, uint64_t n);

/* Writes all tensors, their types decided. */
int qz_plan_write(struct qz_plan *plan, struct err *err);

/* What an architecture calls its tensors and parameters. NULL when the model_type is not known. */
struct qz_arch;
const struct qz_arch *qz_arch_find(const char *model_type);
/* Plans every tensor of a Hugging Face model. */
int qz_map_tensors(struct qz_plan *plan, const struct qz_arch *arch, const json_t *config, struct err *err);
/* Writes ARCH.* keys; rope_freqs and the like are added to the plan. */
int qz_write_params(struct qz_plan *plan, const struct qz_arch *arch, const json_t *config, struct err *err);
/* Writes tokenizer.*, general.sampling.* and ocai.* keys from the files of the folder. */
int qz_write_vocab(struct qz_plan *plan, const char *folder, const json_t *config, struct err *err);

/* A model of a known shape: keys and tensors. -EINVAL lists the shapes. */
int qz_plan_random(struct qz_plan *plan, struct err *err);
/* n values of the tensor's row, Gaussian with standard deviation 0.02. */
void qz_random_row(uint64_t seed, uint64_t row, float *dst, uint64_t n);

/* Shared by the key writers: "ARCH.rest". 0, or the writer's error. */
int qz_key_u32(struct qz_plan *plan, const char *arch, const char *rest, uint32_t value);
int qz_key_f32(struct qz_plan *plan, const char *arch, const char *rest, double value);
int qz_key_text(struct qz_plan *plan, const char *arch, const char *rest, const char *value);

#endif
