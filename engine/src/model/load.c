/* Tensors to matrices. Every tensor's type and shape is checked against the hyperparameters, and errors
 * name the tensor. Weights stay where they are mapped: fused tensors are cut into row ranges, stacked
 * experts into slices; only what lies the wrong way round in the file is copied. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/threadpool.h"
#include "base/cleanup.h"
#include "model/load.h"

/* ---- Finding and checking one tensor ---- */

/* name[] for a slot; expert fills {}. false: this architecture has no such tensor. */
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

/* n values as float in backend memory, `plus` added to each. */
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

/* Rows [from, from + rows) of a matrix that is [total, cols]. */
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

/* Bias values [from, from + n) of a bias that has `total`. */
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

struct part {
	struct linear *linear;
	uint32_t rows;
	struct span take; /* of those rows */
};

/* One tensor whose rows belong to several linear layers, in order. */
static int load_parts(struct loader *l, const char *name, const struct part *parts, size_t n_parts, uint32_t cols,
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
	const struct part part = { ret, rows, take };
	char name[NAME_SIZE];

	return model_load_tensor_name(l, slot, layer, 0, name) ? load_parts(l, name, &part, 1, cols, has_bias) : 0;
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

/* ---- Attention ---- */

static int load_gqa(struct loader *l, uint32_t il, struct layer *y)
{
	const struct hparams *hp = l->hp;
	uint32_t n_q = hp->n_head * hp->head_dim, n_kv = hp->n_kv_head * hp->head_dim;
	struct span heads = model_share_even(l->share, hp->n_head),
	            kv_heads = model_share_kv_heads(l->share, hp->n_kv_head);
	struct span q = { heads.first * hp->head_dim, heads.n * hp->head_dim },
	            kv = { kv_heads.first * hp->head_dim, kv_heads.n * hp->head_dim };
	const struct part parts[] = { { &y->q, n_q, q }, { &y->k, n_kv, kv }, { &y->v, n_kv, kv } };
	bool all = hp->arch->qk_norm == QK_NORM_ALL;
	char name[NAME_SIZE];
	int r;

	if (model_load_tensor_name(l, S_QKV, il, 0, name)) {
		r = load_parts(l, name, parts, 3, hp->n_embd, hp->qkv_bias);
	} else {
		r = hp->arch->gated_attn ? model_load_gated_q(l, il, y)
		                         : model_load_linear(l, S_Q, il, n_q, q, hp->n_embd, hp->qkv_bias, &y->q);
		r = r < 0 ? r : model_load_linear(l, S_K, il, n_kv, kv, hp->n_embd, hp->qkv_bias, &y->k);
		r = r < 0 ? r : model_load_linear(l, S_V, il, n_kv, kv, hp->n_embd, hp->qkv_bias, &y->v);
	}
	r = r < 0 ? r : model_load_summand(l, S_O, il, hp->n_embd, n_q, q, hp->o_bias, &y->o);
	if (r == 0 && hp->qk_norm) {
		r = model_load_norm(l, S_Q_NORM, il, all ? n_q : hp->head_dim, &y->q_norm);
		r = r < 0 ? r : model_load_norm(l, S_K_NORM, il, all ? n_kv : hp->head_dim, &y->k_norm);
	}
	if (r == 0 && hp->arch->sinks)
		r = model_load_vector(l, S_SINKS, il, hp->n_head, 0, &y->sinks);
	if (r == 0 && y->sinks)
		y->sinks += heads.first;
	return r;
}

/* A matrix [cols, rows] of the file, turned round: exact in the file's own type when that is a float type,
 * as float when it is quantized. `stride` values from one of its rows to the next. */
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

/* K and V expansion of each head: together in one tensor, or apart with K turned already (GGUF). */
static int load_mla_expansion(struct loader *l, uint32_t il, struct mla *a)
{
	const struct hparams *hp = l->hp;
	uint32_t per_head = hp->qk_nope + hp->v_head;
	uint64_t both[2] = { (uint64_t)hp->n_head * per_head, hp->kv_lora };
	uint64_t k_shape[3] = { hp->n_head, hp->kv_lora, hp->qk_nope };
	uint64_t v_shape[3] = { hp->n_head, hp->v_head, hp->kv_lora };
	struct span heads = model_share_even(l->share, hp->n_head);
	const struct eng_tensor *t, *v;
	char name[NAME_SIZE], v_name[NAME_SIZE];
	int r = 0;

	if (model_load_tensor_name(l, S_K_B, il, 0, name) && model_load_tensor_name(l, S_V_B, il, 0, v_name) &&
	    eng_weights_find(l->m->weights, name)) {
		r = model_load_need(l, name, 3, k_shape, &t);
		r = r < 0 ? r : model_load_need(l, v_name, 3, v_shape, &v);
		for (uint32_t i = 0; i < heads.n && r == 0; i++) {
			uint64_t h = heads.first + i;

			r = model_load_rows(l, name, t, h * hp->kv_lora, hp->kv_lora, hp->qk_nope, &a->k_b[i]);
			if (r == 0)
				r = model_load_rows(l, v_name, v, h * hp->v_head, hp->v_head, hp->kv_lora, &a->v_b[i]);
		}
		return r;
	}
	(void)model_load_tensor_name(l, S_KV_B, il, 0, name);
	r = model_load_need(l, name, 2, both, &t);
	for (uint32_t i = 0; i < heads.n && r == 0; i++) {
		uint64_t h = heads.first + i;
		const char *head = (const char *)t->data + h * per_head * kn_row_bytes(t->dtype, hp->kv_lora);

		r = model_load_turned(l, name, t->dtype, head, hp->kv_lora, hp->qk_nope, 0, 1, hp->kv_lora, &a->k_b[i]);
		if (r == 0)
			r = model_load_rows(l, name, t, h * per_head + hp->qk_nope, hp->v_head, hp->kv_lora,
			                    &a->v_b[i]);
	}
	return r;
}

static int load_mla(struct loader *l, uint32_t il, struct layer *y)
{
	const struct hparams *hp = l->hp;
	struct mla *a = &y->mla;
	uint32_t per_head = hp->qk_nope + hp->qk_rope, q_cols = hp->q_lora ? hp->q_lora : hp->n_embd;
	uint64_t q_shape[2] = { (uint64_t)hp->n_head * per_head, q_cols };
	struct span heads = model_share_even(l->share, hp->n_head),
	            values = { heads.first * hp->v_head, heads.n * hp->v_head };
	uint32_t n_latent = hp->kv_lora + hp->qk_rope;
	const struct eng_tensor *t;
	char name[NAME_SIZE];
	int r = 0;

	a->q_nope = model_load_mats_new(l, heads.n);
	a->q_rope = model_load_mats_new(l, heads.n);
	a->k_b = model_load_mats_new(l, heads.n);
	a->v_b = model_load_mats_new(l, heads.n);
	if (!a->q_nope || !a->q_rope || !a->k_b || !a->v_b)
		return model_load_no_memory(l, "attention");
	if (hp->q_lora) {
		r = model_load_linear(l, S_Q_A, il, hp->q_lora, model_load_all(hp->q_lora), hp->n_embd, hp->qkv_bias,
		                      &a->q_a);
		r = r < 0 ? r : model_load_norm(l, S_Q_A_NORM, il, hp->q_lora, &a->q_a_norm);
	}
	r = r < 0 ? r
	          : model_load_linear(l, S_KV_A, il, n_latent, model_load_all(n_latent), hp->n_embd, hp->qkv_bias,
	                              &a->kv_a);
	r = r < 0 ? r : model_load_norm(l, S_KV_A_NORM, il, hp->kv_lora, &a->kv_a_norm);
	r = r < 0 ? r : model_load_summand(l, S_O, il, hp->n_embd, hp->n_head * hp->v_head, values, hp->o_bias, &y->o);
	if (r < 0)
		return r;

	(void)model_load_tensor_name(l, hp->q_lora ? S_Q_B : S_Q, il, 0, name);
	r = model_load_need_mat(l, name, 2, q_shape, &t);
	for (uint32_t i = 0; i < heads.n && r == 0; i++) {
		uint64_t h = heads.first + i;

		r = model_load_rows(l, name, t, h * per_head, hp->qk_nope, q_cols, &a->q_nope[i]);
		if (r == 0)
			r = model_load_rows(l, name, t, h * per_head + hp->qk_nope, hp->qk_rope, q_cols, &a->q_rope[i]);
	}
	return r < 0 ? r : load_mla_expansion(l, il, a);
}

/* ---- Feed-forward ---- */

static int load_dense(struct loader *l, uint32_t il, struct layer *y)
{
	const struct hparams *hp = l->hp;
	uint32_t n_ff = hp->layer[il].n_ff;
	struct span take = model_share_even(l->share, n_ff);
	const struct part parts[] = { { &y->gate, n_ff, take }, { &y->up, n_ff, take } };
	char name[NAME_SIZE];
	int r;

	if (model_load_tensor_name(l, S_GATE_UP, il, 0, name)) {
		r = load_parts(l, name, parts, 2, hp->n_embd, hp->mlp_bias);
	} else {
		r = model_load_linear(l, S_GATE, il, n_ff, take, hp->n_embd, hp->mlp_bias, &y->gate);
		r = r < 0 ? r : model_load_linear(l, S_UP, il, n_ff, take, hp->n_embd, hp->mlp_bias, &y->up);
	}
	return r < 0 ? r : model_load_summand(l, S_DOWN, il, hp->n_embd, n_ff, take, hp->mlp_bias, &y->down);
}

/* ---- The whole ---- */

static int load_layer(struct loader *l, uint32_t il)
{
	const struct hparams *hp = l->hp;
	struct layer *y = &l->m->layers[il];
	int r;

	r = model_load_norm(l, S_ATTN_IN_NORM, il, hp->n_embd, &y->attn_in_norm);
	r = r < 0 ? r : model_load_norm(l, S_ATTN_OUT_NORM, il, hp->n_embd, &y->attn_out_norm);
	r = r < 0 ? r : model_load_norm(l, S_FFN_IN_NORM, il, hp->n_embd, &y->ffn_in_norm);
	r = r < 0 ? r : model_load_norm(l, S_FFN_OUT_NORM, il, hp->n_embd, &y->ffn_out_norm);
	if (r == 0 && hp->layer[il].linear)
		r = model_load_delta(l, il, &y->delta);
	else if (r == 0)
		r = hp->arch->attn == ATTN_MLA ? load_mla(l, il, y) : load_gqa(l, il, y);
	if (r == 0)
		r = hp->layer[il].top_k ? model_load_moe(l, il, y) : load_dense(l, il, y);
	return r;
}

static int load_tables(struct loader *l)
{
	struct eng_model *m = l->m;
	uint64_t shape[2] = { l->hp->n_vocab, l->hp->n_embd }, embed_bytes;
	const struct eng_tensor *t;
	struct span rows;
	char name[NAME_SIZE];
	bool is_tied;
	int r;

	(void)model_load_tensor_name(l, S_EMBED, 0, 0, name);
	r = model_load_need_mat(l, name, 2, shape, &t);
	r = r < 0 ? r : model_load_rows(l, name, t, 0, l->hp->n_vocab, l->hp->n_embd, &m->embed);
	if (r < 0)
		return r;
	embed_bytes = m->info.weight_bytes;
	r = model_load_norm(l, S_OUT_NORM, 0, l->hp->n_embd, &m->out_norm);
	if (r < 0)
		return r;
	(void)model_load_tensor_name(l, S_HEAD, 0, 0, name);
	is_tied = l->hp->tied || (l->gguf && !eng_weights_find(m->weights, name));
	if (is_tied && l->share.n == 1) {
		m->head = &m->embed;
		return 0;
	}
	m->info.weight_bytes -= embed_bytes;
	if (!is_tied && l->hp->headless && !eng_weights_find(m->weights, name))
		return 0;
	if (!is_tied)
		r = model_load_need_mat(l, name, 2, shape, &t);
	rows = model_share_vocab(l->share, l->hp->n_vocab);
	r = r < 0 ? r
	          : model_load_rows(l, is_tied ? "the embedding" : name, t, rows.first, rows.n, l->hp->n_embd,
	                            &m->head_own);
	m->head = &m->head_own;
	return r;
}

static int load_all(struct eng_model *m, struct loader *l)
{
	const struct arch *arch = m->hp.arch;
	int r;

	l->gguf = eng_weights_is_gguf(m->weights);
	l->layers = l->gguf ? "blk." : arch->hf_layer ? arch->hf_layer : "layers.";
	/* Embedding models are saved without the outer module. */
	l->prefix = eng_weights_find(m->weights, arch_tensor_name(arch, S_EMBED, false)) ? ""
	            : arch->hf_prefix                                                    ? arch->hf_prefix
	                                                                                 : "model.";
	m->layers = calloc(m->hp.n_layer, sizeof(*m->layers));
	if (!m->layers)
		return model_load_no_memory(l, "layers");
	if (arch->encoder)
		return model_load_encoder(l);
	r = load_tables(l);
	for (uint32_t i = 0; i < m->hp.n_layer && r == 0; i++)
		r = load_layer(l, i);
	return r;
}

int model_load(struct eng_model *m, const struct hparams *whole, const char *path, bool exact, struct err *err)
{
	struct base_threadpool *pool = NULL;
	struct loader l = {
		.m = m, .hp = whole, .share = m->share, .path = path, .exact = exact, .pool = &pool, .err = err
	};
	int r = load_all(m, &l);

	base_threadpool_free(pool);
	return r;
}
