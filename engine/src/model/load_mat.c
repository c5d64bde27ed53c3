/* From a tensor of the file to a matrix or a vector of the model: found by its slot's name, checked, and cut into the
 * rows or columns that are wanted. Rows stay where they are mapped; columns, groups and what lies the wrong way round
 * are copied. FP8's scales go along with the blocks that they are for. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "model/load.h"

/* ---- Finding and checking one tensor ---- */

bool model_load_tensor_name(const struct loader *l, enum slot slot, uint32_t layer, uint32_t expert, char *name)
{
	const char *own = arch_tensor_name(l->hp->arch, slot, l->gguf);
	const char *hole = own ? strstr(own, "{}") : NULL;
	char where[64];

	if (!own)
		return false;
	if (slot < S_FIRST_IN_LAYER) /* the output matrix stands outside of "model." */
		(void)snprintf(where, sizeof(where), "%s", l->gguf || slot == S_HEAD ? "" : l->prefix);
	else
		(void)snprintf(where, sizeof(where), "%s%s%u.", l->gguf ? "" : l->prefix, l->layers, layer);
	if (hole)
		(void)snprintf(name, NAME_SIZE, "%s%.*s%u%s", where, (int)(hole - own), own, expert, hole + 2);
	else
		(void)snprintf(name, NAME_SIZE, "%s%s", where, own);
	return true;
}

/* x.weight -> x.bias; gpt-oss's experts have x_bias beside x. */
void model_load_bias_name(const char *weight, char *name)
{
	size_t len = strlen(weight), suffix = strlen(".weight");

	if (len > suffix && strcmp(weight + len - suffix, ".weight") == 0)
		(void)snprintf(name, NAME_SIZE, "%.*s.bias", (int)(len - suffix), weight);
	else
		(void)snprintf(name, NAME_SIZE, "%s_bias", weight);
}

static void shape_text(const uint64_t *shape, uint32_t n_dims, char *text, size_t size)
{
	size_t len = 0;

	text[0] = '\0';
	for (uint32_t i = 0; i < n_dims && len < size; i++)
		len += (size_t)snprintf(text + len, size - len, i ? ", %llu" : "%llu", (unsigned long long)shape[i]);
}

/* FP8 with its scales, expanded unless it may and can stay. */
static int take_fp8(const struct loader *l, bool may_stay, const struct eng_tensor **t)
{
	struct eng_tensor *found = NULL;
	int r = model_find_fp8(l, *t, &found);

	if (r < 0)
		return r;
	*t = found;
	return may_stay && model_keeps_fp8(l) ? 0 : model_expand_fp8(l, found, 0, found->shape[0], t);
}

/* The tensor, of a type that kernels know and of exactly this shape. */
static int need(const struct loader *l, const char *name, uint32_t n_dims, const uint64_t *shape, bool fp8_may_stay,
                const struct eng_tensor **ret_tensor)
{
	const struct eng_tensor *t = eng_weights_find(l->m->weights, name);
	char got[96], want[96];
	int r;

	if (!t)
		return err_set(l->err, -ENOENT, "%s: tensor %s is missing", l->path, name);
	r = eng_weights_await(l->m->weights, t, l->err);
	if (r == 0 && t->dtype == KN_N_DTYPES && strcmp(t->dtype_name, "F8_E4M3") == 0)
		r = take_fp8(l, fp8_may_stay, &t);
	if (r < 0)
		return r;
	if (t->dtype == KN_N_DTYPES)
		return err_set(l->err, -ENOTSUP, "%s: %s: type %s is not supported", l->path, name, t->dtype_name);
	if (t->n_dims != n_dims || memcmp(t->shape, shape, n_dims * sizeof(*shape)) != 0) {
		shape_text(t->shape, t->n_dims, got, sizeof(got));
		shape_text(shape, n_dims, want, sizeof(want));
		return err_set(l->err, -EINVAL, "%s: %s: shape [%s], the configuration asks for [%s]", l->path, name,
		               got, want);
	}
	if (kn_row_bytes(t->dtype, shape[n_dims - 1]) == 0)
		return err_set(l->err, -EINVAL, "%s: %s: rows of %llu values are not whole %s blocks", l->path, name,
		               (unsigned long long)shape[n_dims - 1], t->dtype_name);
	l->m->info.n_params +=
	        t->size_bytes / kn_dtype_info(t->dtype)->block_bytes * kn_dtype_info(t->dtype)->block_elems;
	*ret_tensor = t;
	return 0;
}

int model_load_need(const struct loader *l, const char *name, uint32_t n_dims, const uint64_t *shape,
                    const struct eng_tensor **ret_tensor)
{
	return need(l, name, n_dims, shape, false, ret_tensor);
}

int model_load_need_mat(const struct loader *l, const char *name, uint32_t n_dims, const uint64_t *shape,
                        const struct eng_tensor **ret_tensor)
{
	return need(l, name, n_dims, shape, true, ret_tensor);
}

int model_load_no_memory(const struct loader *l, const char *name)
{
	return err_set(l->err, -ENOMEM, "%s: %s: no memory", l->path, name);
}

int model_load_floats(struct loader *l, const char *name, uint32_t n_dims, const uint64_t *shape, float plus,
                      float **ret)
{
	CLEANUP(freep) float *values = NULL;
	const struct eng_tensor *t;
	size_t n = 1;
	int r = model_load_need(l, name, n_dims, shape, &t);

	if (r < 0)
		return r;
	for (uint32_t i = 0; i < n_dims; i++)
		n *= shape[i]; /* the tensor is mapped: this cannot overflow */
	values = malloc(n * sizeof(*values));
	if (!values)
		return model_load_no_memory(l, name);
	kn_dequantize(t->dtype, t->data, values, n);
	for (size_t i = 0; i < n; i++)
		values[i] += plus;
	*ret = model_upload(l->m, values, n);
	l->m->info.weight_bytes += n * sizeof(**ret);
	return *ret ? 0 : model_load_no_memory(l, name);
}

int model_load_vector(struct loader *l, enum slot slot, uint32_t layer, uint64_t n, float plus, float **ret)
{
	char name[NAME_SIZE];

	return model_load_tensor_name(l, slot, layer, 0, name) ? model_load_floats(l, name, 1, &n, plus, ret) : 0;
}

int model_load_norm(struct loader *l, enum slot slot, uint32_t layer, uint64_t n, float **ret)
{
	/* GGUF's converters have added the one already. */
	return model_load_vector(l, slot, layer, n, l->hp->arch->norm_plus_one && !l->gguf ? 1 : 0, ret);
}

enum { FP8_BLOCK = 128, FP8_ROWS = 16 };

static size_t fp8_scale_bytes(uint64_t rows, uint32_t cols)
{
	return (rows + FP8_BLOCK - 1) / FP8_BLOCK * ((cols + FP8_BLOCK - 1) / FP8_BLOCK) * sizeof(float);
}

/* Those of the block that row `from` is in, and of the next ones. */
static const void *fp8_scales(const struct eng_tensor *t, uint64_t from, uint32_t cols)
{
	return (const char *)t->scales + fp8_scale_bytes(from / FP8_BLOCK * FP8_BLOCK, cols);
}

int model_load_rows(struct loader *l, const char *name, const struct eng_tensor *t, uint64_t from, uint32_t rows,
                    uint32_t cols, struct kn_mat *ret)
{
	int r = 0;

	/* Kernels take 16 rows at a time, which share their scales. */
	if (t->dtype == KN_FP8_128 && from % FP8_ROWS != 0) {
		r = model_expand_fp8(l, t, from, rows, &t);
		from = 0;
	}
	if (r < 0)
		return r;
	*ret = (struct kn_mat){ .dtype = t->dtype, .rows = rows, .cols = cols };
	if (t->dtype == KN_FP8_128) {
		ret->first_row = (uint32_t)(from % FP8_BLOCK);
		ret->scales = fp8_scales(t, from, cols);
		l->m->info.weight_bytes += fp8_scale_bytes(ret->first_row + rows, cols);
	}
	ret->data = (const char *)t->data + from * kn_row_bytes(t->dtype, cols);
	l->m->info.weight_bytes += rows * kn_row_bytes(t->dtype, cols);
	return model_mat(l->m, name, ret, l->err);
}

int model_load_bias(struct loader *l, const char *weight, bool required, uint64_t total, uint64_t from, float **ret)
{
	char name[NAME_SIZE];
	int r;

	model_load_bias_name(weight, name);
	/* GGUF has no key for it: what is there counts. */
	if (l->gguf ? !eng_weights_find(l->m->weights, name) : !required)
		return 0;
	r = model_load_floats(l, name, 1, &total, 0, ret);
	if (r == 0)
		*ret += from;
	return r;
}

int model_load_parts(struct loader *l, const char *name, const struct load_part *parts, size_t n_parts, uint32_t cols,
                     bool has_bias)
{
	uint64_t shape[2] = { 0, cols }, from = 0;
	const struct eng_tensor *t;
	int r;

	for (size_t i = 0; i < n_parts; i++)
		shape[0] += parts[i].rows;
	r = model_load_need_mat(l, name, 2, shape, &t);
	for (size_t i = 0; i < n_parts && r == 0; i++) {
		uint64_t first = from + parts[i].take.first;

		r = model_load_rows(l, name, t, first, parts[i].take.n, cols, &parts[i].linear->w);
		if (r == 0)
			r = model_load_bias(l, name, has_bias, shape[0], first, &parts[i].linear->bias);
		from += parts[i].rows;
	}
	return r;
}

int model_load_linear(struct loader *l, enum slot slot, uint32_t layer, uint32_t rows, struct span take, uint32_t cols,
                      bool has_bias, struct linear *ret)
{
	const struct load_part part = { ret, rows, take };
	char name[NAME_SIZE];

	return model_load_tensor_name(l, slot, layer, 0, name) ? model_load_parts(l, name, &part, 1, cols, has_bias)
	                                                       : 0;
}

/* Bytes [from, from + n) of each of `lines` lines, one behind the other. */
static char *cut(struct loader *l, const void *data, size_t line_bytes, size_t lines, size_t from, size_t n)
{
	char *copy = model_host_alloc(l->m, lines * n);

	for (size_t i = 0; copy && i < lines; i++)
		memcpy(copy + i * n, (const char *)data + i * line_bytes + from, n);
	return copy;
}

/* Scales of columns `take` of rows that begin within the block that `from` is in. */
static char *cut_scales(struct loader *l, const struct eng_tensor *t, uint64_t from, uint32_t rows, uint32_t cols,
                        struct span take)
{
	size_t line = fp8_scale_bytes(FP8_BLOCK, cols), n = fp8_scale_bytes(FP8_BLOCK, take.n);

	l->m->info.weight_bytes += fp8_scale_bytes(from % FP8_BLOCK + rows, take.n);
	return cut(l, fp8_scales(t, from, cols), line, (from % FP8_BLOCK + rows + FP8_BLOCK - 1) / FP8_BLOCK,
	           take.first / FP8_BLOCK * sizeof(float), n);
}

int model_load_cols(struct loader *l, const char *name, const struct eng_tensor *t, uint64_t from, uint32_t rows,
                    uint32_t cols, struct span take, struct kn_mat *ret)
{
	uint32_t block = t->dtype == KN_FP8_128 ? FP8_BLOCK : kn_dtype_info(t->dtype)->block_elems, end;
	char *data, *scales = NULL;
	int r = 0;

	if (take.n == cols)
		return model_load_rows(l, name, t, from, rows, cols, ret);
	end = take.first + take.n;
	if (t->dtype == KN_FP8_128 &&
	    (take.first % block || (end % block && end != cols) || from % FP8_ROWS)) { /* a type of smaller blocks */
		r = model_expand_fp8(l, t, from, rows, &t);
		if (r < 0)
			return r;
		from = 0;
		block = kn_dtype_info(t->dtype)->block_elems;
	}
	if (t->dtype != KN_FP8_128 && (take.first % block || end % block))
		return err_set(l->err, -ENOTSUP,
		               "%s: %s: rows of %u values in %s, %u to a block, cannot be divided among %u devices",
		               l->path, name, cols, kn_dtype_info(t->dtype)->name, block, l->share.n);
	data = cut(l, (const char *)t->data + from * kn_row_bytes(t->dtype, cols), kn_row_bytes(t->dtype, cols), rows,
	           kn_row_bytes(t->dtype, take.first), kn_row_bytes(t->dtype, take.n));
	if (data && t->dtype == KN_FP8_128)
		scales = cut_scales(l, t, from, rows, cols, take);
	if (!data || (t->dtype == KN_FP8_128 && !scales))
		return model_load_no_memory(l, name);
	*ret = (struct kn_mat){ .dtype = t->dtype, .rows = rows, .cols = take.n, .data = data, .scales = scales };
	ret->first_row = t->dtype == KN_FP8_128 ? (uint32_t)(from % FP8_BLOCK) : 0;
	l->m->info.weight_bytes += rows * kn_row_bytes(t->dtype, take.n);
	r = model_mat(l->m, name, ret, l->err);
	if (r == 0 && ret->packed) { /* the device has its own: a model's worth of copies would stay */
		ret->data = ret->scales = NULL;
		model_host_free(l->m, scales);
		model_host_free(l->m, data);
	}
	return r;
}

int model_load_summand(struct loader *l, enum slot slot, uint32_t layer, uint32_t rows, uint32_t cols, struct span take,
                       bool has_bias, struct linear *ret)
{
	const uint64_t shape[2] = { rows, cols };
	const struct eng_tensor *t;
	char name[NAME_SIZE];
	int r;

	if (!model_load_tensor_name(l, slot, layer, 0, name))
		return 0;
	r = model_load_need_mat(l, name, 2, shape, &t);
	r = r < 0 ? r : model_load_cols(l, name, t, 0, rows, cols, take, &ret->w);
	return r < 0 || l->share.rank > 0 ? r : model_load_bias(l, name, has_bias, rows, 0, &ret->bias);
}

int model_load_turned(struct loader *l, const char *name, enum kn_dtype dtype, const void *data, uint32_t rows,
                      uint32_t cols, size_t first, size_t step, size_t stride, struct kn_mat *ret)
{
	CLEANUP(freep) float *line = NULL;
	CLEANUP(freep) float *turned = NULL;
	bool exact = dtype == KN_F32 || dtype == KN_F16 || dtype == KN_BF16;
	size_t n = (size_t)rows * cols, row_bytes = kn_row_bytes(dtype, stride);
	void *copy;

	*ret = (struct kn_mat){ .dtype = exact ? dtype : KN_F32, .rows = rows, .cols = cols };
	line = malloc(stride * sizeof(*line));
	turned = malloc(n * sizeof(*turned));
	copy = model_host_alloc(l->m, kn_row_bytes(ret->dtype, n));
	if (!line || !turned || !copy)
		return model_load_no_memory(l, name);
	for (uint32_t c = 0; c < cols; c++) {
		kn_dequantize(dtype, (const char *)data + c * row_bytes, line, stride);
		for (uint32_t r = 0; r < rows; r++)
			turned[(size_t)r * cols + c] = line[first + r * step];
	}
	kn_quantize(ret->dtype, turned, copy, n);
	ret->data = copy;
	l->m->info.weight_bytes += kn_row_bytes(ret->dtype, n);
	return model_mat(l->m, name, ret, l->err);
}

/* Whether all groups' parts are whole blocks of FP8. */
static bool are_blocks(uint32_t of, const struct span *parts, size_t n_parts)
{
	for (size_t p = 0; p < n_parts; p++) {
		if (parts[p].first % FP8_BLOCK || parts[p].n % FP8_BLOCK)
			return false;
	}
	return of % FP8_BLOCK == 0;
}

/* line_bytes for each `unit` rows, which the groups and parts are multiples of. */
static void *gather(struct loader *l, const void *data, size_t line_bytes, uint32_t unit, uint32_t n_groups,
                    uint32_t of, const struct span *parts, size_t n_parts, size_t n_rows)
{
	char *copy = model_host_alloc(l->m, n_rows / unit * line_bytes), *to = copy;

	for (size_t p = 0; copy && p < n_parts; p++) {
		size_t bytes = parts[p].n / unit * line_bytes;

		for (size_t g = 0; g < n_groups; g++) {
			memcpy(to, (const char *)data + (g * of + parts[p].first) / unit * line_bytes, bytes);
			to += bytes;
		}
	}
	return copy;
}

int model_load_groups(struct loader *l, const char *name, const struct eng_tensor *t, struct span groups, uint32_t of,
                      const struct span *parts, size_t n_parts, uint32_t cols, struct kn_mat *ret)
{
	uint64_t first = (uint64_t)groups.first * of;
	size_t row_bytes, n = 0;
	int r = 0;

	if (t->dtype == KN_FP8_128 && !are_blocks(of, parts, n_parts))
		r = model_expand_fp8(l, t, 0, first + (uint64_t)groups.n * of, &t);
	if (r < 0)
		return r;
	row_bytes = kn_row_bytes(t->dtype, cols);
	for (size_t p = 0; p < n_parts; p++)
		n += (size_t)groups.n * parts[p].n;
	*ret = (struct kn_mat){ .dtype = t->dtype, .rows = (uint32_t)n, .cols = cols };
	ret->data = gather(l, (const char *)t->data + first * row_bytes, row_bytes, 1, groups.n, of, parts, n_parts, n);
	if (t->dtype == KN_FP8_128)
		ret->scales = gather(l, fp8_scales(t, first, cols), fp8_scale_bytes(FP8_BLOCK, cols), FP8_BLOCK,
		                     groups.n, of, parts, n_parts, n);
	if (!ret->data || (t->dtype == KN_FP8_128 && !ret->scales))
		return model_load_no_memory(l, name);
	l->m->info.weight_bytes += n * row_bytes;
	return model_mat(l->m, name, ret, l->err);
}

struct kn_mat *model_load_mats_new(struct loader *l, size_t n)
{
	struct kn_mat *m = model_host_alloc(l->m, n * sizeof(*m));

	if (m)
		memset(m, 0, n * sizeof(*m));
	return m;
}
