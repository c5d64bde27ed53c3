/* Between load.c (attention, feed-forward, the whole), load_mat.c (one tensor), load_moe.c (experts), load_delta.c,
 * load_encoder.c and expand.c (foreign quantizations). Functions return 0 or a negative errno with words in l->err;
 * what they allocate is the model's (memory.c). */
#ifndef ENG_MODEL_LOAD_H
#define ENG_MODEL_LOAD_H

#include "model/internal.h"
#include "weights/weights.h"

enum { NAME_SIZE = 192 };

struct base_threadpool;

struct loader {
	struct eng_model *m;
	const struct hparams *hp; /* of the whole model */
	struct share share;
	const char *path;   /* for errors */
	const char *prefix; /* "model." or "" */
	const char *layers; /* "layers.": before a layer's number */
	bool gguf;
	bool exact;                    /* what kernels do not know becomes float32 rather than Q8_0 */
	struct base_threadpool **pool; /* for expanding; made when something is, the caller's to free */
	struct err *err;
};

/* ---- load_mat.c ---- */

/* name[NAME_SIZE] for a slot; expert fills {}. false: this architecture has no such tensor. */
bool model_load_tensor_name(const struct loader *l, enum slot slot, uint32_t layer, uint32_t expert, char *name);
/* The name of the bias that belongs to a weight. */
void model_load_bias_name(const char *weight, char *name);
/* The tensor, of exactly this shape and of a type that kernels know: what has another is expanded. */
int model_load_need(const struct loader *l, const char *name, uint32_t n_dims, const uint64_t *shape,
                    const struct eng_tensor **ret_tensor);
/* The same for callers that pass it to model_load_rows() or model_load_groups(): FP8 stays so where the backend takes
 * it. */
int model_load_need_mat(const struct loader *l, const char *name, uint32_t n_dims, const uint64_t *shape,
                        const struct eng_tensor **ret_tensor);
int model_load_no_memory(const struct loader *l, const char *name);
/* n values as float in backend memory, `plus` added to each. */
int model_load_floats(struct loader *l, const char *name, uint32_t n_dims, const uint64_t *shape, float plus,
                      float **ret);
/* A vector's slot as floats; nothing to do for one that the architecture does not have. */
int model_load_vector(struct loader *l, enum slot slot, uint32_t layer, uint64_t n, float plus, float **ret);
/* Bias values [from, from + n) of the bias beside `weight`, which has `total`. */
int model_load_bias(struct loader *l, const char *weight, bool required, uint64_t total, uint64_t from, float **ret);
/* Rows [from, from + rows) of a matrix with `cols` columns. */
int model_load_rows(struct loader *l, const char *name, const struct eng_tensor *t, uint64_t from, uint32_t rows,
                    uint32_t cols, struct kn_mat *ret);
/* Rows [take.first, take.first + take.n) of a matrix [rows, cols], with their bias. */
int model_load_linear(struct loader *l, enum slot slot, uint32_t layer, uint32_t rows, struct span take, uint32_t cols,
                      bool has_bias, struct linear *ret);
/* A linear layer that is [rows, cols] of a tensor with more of them behind each other. */
struct load_part {
	struct linear *linear;
	uint32_t rows;
	struct span take; /* of those rows */
};
/* One tensor whose rows belong to several linear layers, in order, with its bias. */
int model_load_parts(struct loader *l, const char *name, const struct load_part *parts, size_t n_parts, uint32_t cols,
                     bool has_bias);
static inline struct span model_load_all(uint32_t n)
{
	return (struct span){ .n = n };
}
/* Columns `take` of rows [from, from + rows) of a matrix with `cols` columns. -ENOTSUP: they do not begin and end with
 * whole blocks of the tensor's type. */
int model_load_cols(struct loader *l, const char *name, const struct eng_tensor *t, uint64_t from, uint32_t rows,
                    uint32_t cols, struct span take, struct kn_mat *ret);
/* The same of a matrix by itself, whose output is one summand of all ranks': the first one's has the bias. */
int model_load_summand(struct loader *l, enum slot slot, uint32_t layer, uint32_t rows, uint32_t cols, struct span take,
                       bool has_bias, struct linear *ret);
/* A matrix [cols, rows] of the file, turned round: exact in the file's own type when that is a float type,
 * as float when it is quantized. `stride` values from one of its rows to the next. */
int model_load_turned(struct loader *l, const char *name, enum kn_dtype dtype, const void *data, uint32_t rows,
                      uint32_t cols, size_t first, size_t step, size_t stride, struct kn_mat *ret);
/* Rows out of each of a span of groups of `of` rows: parts[0].n from parts[0].first on of every group, then those of
 * parts[1], ... as one matrix in the file's own type, which lives as long as the model. */
int model_load_groups(struct loader *l, const char *name, const struct eng_tensor *t, struct span groups, uint32_t of,
                      const struct span *parts, size_t n_parts, uint32_t cols, struct kn_mat *ret);
/* A norm's weights; nothing to do for one that the architecture does not have. */
int model_load_norm(struct loader *l, enum slot slot, uint32_t layer, uint64_t n, float **ret);
/* n empty matrices that live as long as the model; NULL when there is no memory. */
struct kn_mat *model_load_mats_new(struct loader *l, size_t n);

/* ---- load_moe.c ---- */

int model_load_moe(struct loader *l, uint32_t il, struct layer *y);

/* ---- load_delta.c ---- */

int model_load_delta(struct loader *l, uint32_t il, struct delta_net *y);
/* Q's rows and the gate's, which alternate by heads. */
int model_load_gated_q(struct loader *l, uint32_t il, struct layer *y);

/* ---- expand.c ---- */

/* A matrix of F8_E4M3 with its scales, one for each block (NAME_scale_inv), as KN_FP8_128 although the blocks may have
 * another size. *ret lives as long as the model. The file is outside data: shapes are checked. */
int model_find_fp8(const struct loader *l, const struct eng_tensor *t, struct eng_tensor **ret);
/* Whether the backend computes with it as it is. */
bool model_keeps_fp8(const struct loader *l);
/* Rows [from, from + rows) of what model_find_fp8() gave, in a type that all kernels take. */
int model_expand_fp8(const struct loader *l, const struct eng_tensor *t, uint64_t from, uint64_t rows,
                     const struct eng_tensor **ret_tensor);
/* Whether NAME is there as MXFP4: NAME_blocks and NAME_scales. */
bool model_expand_has_mxfp4(const struct loader *l, const char *name);
/* Rows first, first + step, ... of expert e out of MXFP4 [n_expert, total_rows, cols]; `rows` of them, and of those
 * columns `take`, whole blocks or -ENOTSUP. */
int model_expand_mxfp4(struct loader *l, const char *name, const uint64_t shape[3], uint64_t e, uint64_t first,
                       uint64_t step, uint32_t rows, struct span take, struct kn_mat *ret);

#endif
