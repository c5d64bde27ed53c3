/* Mixture-of-experts layers: the router, the shared expert, and the experts as folders keep them: one tensor each, all
 * in one, gate and up in alternating columns, or MXFP4. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "model/load.h"

/* A router, as float whatever the file has: it is small, and a rounded score changes which experts a
 * token takes. Float types stay exact. */
static int load_router(struct loader *l, enum slot slot, uint32_t il, uint32_t rows, struct linear *ret)
{
	const struct hparams *hp = l->hp;
	uint64_t shape[2] = { rows, hp->n_embd };
	size_t n = (size_t)rows * hp->n_embd;
	const struct eng_tensor *t;
	char name[NAME_SIZE];
	float *copy;
	int r;

	(void)model_load_tensor_name(l, slot, il, 0, name);
	/* GGUF has a matrix of one row as a vector. */
	r = rows == 1 && l->gguf ? model_load_need(l, name, 1, &shape[1], &t) : model_load_need(l, name, 2, shape, &t);
	if (r < 0)
		return r;
	copy = model_host_alloc(l->m, n * sizeof(*copy));
	if (!copy)
		return model_load_no_memory(l, name);
	kn_dequantize(t->dtype, t->data, copy, n);
	ret->w = (struct kn_mat){ .dtype = KN_F32, .rows = rows, .cols = hp->n_embd, .data = copy };
	l->m->info.weight_bytes += n * sizeof(*copy);
	r = model_mat(l->m, name, &ret->w, l->err);
	return r < 0 ? r : model_load_bias(l, name, hp->arch->router_linear_bias, rows, 0, &ret->bias);
}

static int load_shared(struct loader *l, uint32_t il, struct layer *y)
{
	uint32_t n_ff = l->hp->layer[il].n_ff, dim = l->hp->n_embd;
	int r;

	if (n_ff == 0)
		return 0;
	r = model_load_linear(l, S_SH_GATE, il, n_ff, dim, false, &y->gate);
	r = r < 0 ? r : model_load_linear(l, S_SH_UP, il, n_ff, dim, false, &y->up);
	r = r < 0 ? r : model_load_linear(l, S_SH_DOWN, il, dim, n_ff, false, &y->down);
	return r < 0 || !arch_tensor_name(l->hp->arch, S_SH_ROUTER, l->gguf)
	               ? r
	               : load_router(l, S_SH_ROUTER, il, 1, &y->shared_router);
}

/* [n_expert] matrices [rows, cols], one tensor each or all in one; with a bias [n_expert, rows] beside the
 * one when there is one. */
static int load_expert_set(struct loader *l, enum slot slot, uint32_t il, uint32_t rows, uint32_t cols,
                           const struct kn_mat **ret_mats, const float **ret_bias)
{
	uint32_t n = l->hp->n_expert;
	uint64_t each[2] = { rows, cols }, all[3] = { n, rows, cols }, biases[2] = { n, rows };
	struct kn_mat *mats = model_load_mats_new(l, n);
	const struct eng_tensor *t;
	char name[NAME_SIZE], bias[NAME_SIZE];
	float *b = NULL;
	int r = 0;

	if (!mats)
		return model_load_no_memory(l, "experts");
	*ret_mats = mats;
	if (strstr(arch_tensor_name(l->hp->arch, slot, l->gguf), "{}")) {
		for (uint32_t e = 0; e < n && r == 0; e++) {
			(void)model_load_tensor_name(l, slot, il, e, name);
			r = model_load_need_mat(l, name, 2, each, &t);
			r = r < 0 ? r : model_load_rows(l, name, t, 0, rows, cols, &mats[e]);
		}
		return r;
	}
	(void)model_load_tensor_name(l, slot, il, 0, name);
	r = model_load_need(l, name, 3, all, &t);
	for (uint64_t e = 0; e < n && r == 0; e++)
		r = model_load_rows(l, name, t, e * rows, rows, cols, &mats[e]);
	model_load_bias_name(name, bias);
	if (r == 0 && eng_weights_find(l->m->weights, bias)) {
		r = model_load_floats(l, bias, 2, biases, 0, &b);
		*ret_bias = b;
	}
	return r;
}

/* The biases of experts whose gate and up alternate: [n_expert, 2 * n_ff] and [n_expert, dim]. */
static int load_alternating_biases(struct loader *l, const char *gu_name, const char *d_name, struct kn_moe *moe)
{
	size_t n_values = (size_t)moe->n_expert * moe->n_ff;
	uint64_t gu_shape[2] = { moe->n_expert, 2 * (uint64_t)moe->n_ff },
	         d_shape[2] = { moe->n_expert, l->hp->n_embd };
	CLEANUP(freep) float *values = NULL;
	CLEANUP(freep) float *split = NULL;
	const struct eng_tensor *b;
	char name[NAME_SIZE];
	float *down_bias = NULL;
	int r;

	model_load_bias_name(d_name, name);
	r = model_load_floats(l, name, 2, d_shape, 0, &down_bias);
	model_load_bias_name(gu_name, name);
	r = r < 0 ? r : model_load_need(l, name, 2, gu_shape, &b);
	if (r < 0)
		return r;
	values = malloc(2 * n_values * sizeof(*values));
	split = malloc(2 * n_values * sizeof(*split));
	if (!values || !split)
		return model_load_no_memory(l, name);
	kn_dequantize(b->dtype, b->data, values, 2 * n_values);
	for (size_t i = 0; i < n_values; i++) {
		split[i] = values[2 * i];
		split[n_values + i] = values[2 * i + 1];
	}
	moe->down_bias = down_bias;
	moe->gate_bias = model_upload(l->m, split, 2 * n_values);
	if (!moe->gate_bias)
		return model_load_no_memory(l, name);
	moe->up_bias = moe->gate_bias + n_values;
	return 0;
}

/* [n_expert, dim, 2 * n_ff] and [n_expert, n_ff, dim], input features first: turned round. */
static int load_turned_experts(struct loader *l, const char *gu_name, const char *d_name, const struct kn_moe *moe,
                               struct kn_mat *gate, struct kn_mat *up, struct kn_mat *down)
{
	uint32_t n = moe->n_expert, n_ff = moe->n_ff, dim = l->hp->n_embd;
	uint64_t gu_shape[3] = { n, dim, 2 * (uint64_t)n_ff }, d_shape[3] = { n, n_ff, dim };
	const struct eng_tensor *gu, *d;
	int r;

	r = model_load_need(l, gu_name, 3, gu_shape, &gu);
	r = r < 0 ? r : model_load_need(l, d_name, 3, d_shape, &d);
	for (size_t e = 0; e < n && r == 0; e++) {
		const char *gu_data = (const char *)gu->data + e * dim * kn_row_bytes(gu->dtype, gu_shape[2]);
		const char *d_data = (const char *)d->data + e * n_ff * kn_row_bytes(d->dtype, dim);

		r = model_load_turned(l, gu_name, gu->dtype, gu_data, n_ff, dim, 0, 2, gu_shape[2], &gate[e]);
		r = r < 0 ? r : model_load_turned(l, gu_name, gu->dtype, gu_data, n_ff, dim, 1, 2, gu_shape[2], &up[e]);
		r = r < 0 ? r : model_load_turned(l, d_name, d->dtype, d_data, dim, n_ff, 0, 1, dim, &down[e]);
	}
	return r;
}

/* [n_expert, 2 * n_ff, dim] and [n_expert, dim, n_ff] in MXFP4, output features first. */
static int load_mxfp4_experts(struct loader *l, const char *gu_name, const char *d_name, const struct kn_moe *moe,
                              struct kn_mat *gate, struct kn_mat *up, struct kn_mat *down)
{
	uint32_t n = moe->n_expert, n_ff = moe->n_ff, dim = l->hp->n_embd;
	uint64_t gu_shape[3] = { n, 2 * (uint64_t)n_ff, dim }, d_shape[3] = { n, dim, n_ff };
	int r = 0;

	for (size_t e = 0; e < n && r == 0; e++) {
		r = model_expand_mxfp4(l, gu_name, gu_shape, e, 0, 2, n_ff, &gate[e]);
		r = r < 0 ? r : model_expand_mxfp4(l, gu_name, gu_shape, e, 1, 2, n_ff, &up[e]);
		r = r < 0 ? r : model_expand_mxfp4(l, d_name, d_shape, e, 0, 1, dim, &down[e]);
	}
	return r;
}

/* gpt-oss's folders: gate and up of all experts in one tensor, alternating; a bias for each. */
static int load_alternating_experts(struct loader *l, uint32_t il, struct kn_moe *moe)
{
	uint32_t n = moe->n_expert;
	struct kn_mat *gate = model_load_mats_new(l, n), *up = model_load_mats_new(l, n),
	              *down = model_load_mats_new(l, n);
	char gu_name[NAME_SIZE], d_name[NAME_SIZE];
	int r;

	if (!gate || !up || !down)
		return model_load_no_memory(l, "experts");
	(void)model_load_tensor_name(l, S_EXP_GATE_UP, il, 0, gu_name);
	(void)model_load_tensor_name(l, S_EXP_DOWN, il, 0, d_name);
	if (model_expand_has_mxfp4(l, gu_name))
		r = load_mxfp4_experts(l, gu_name, d_name, moe, gate, up, down);
	else
		r = load_turned_experts(l, gu_name, d_name, moe, gate, up, down);
	if (r < 0)
		return r;
	moe->gate = gate;
	moe->up = up;
	moe->down = down;
	return load_alternating_biases(l, gu_name, d_name, moe);
}

uint64_t model_count_experts(struct eng_model_info *info, const struct hparams *hp, uint32_t il, uint64_t all_bytes)
{
	uint64_t used = all_bytes / hp->n_expert * hp->layer[il].top_k;

	info->n_expert = hp->n_expert;
	info->n_expert_used = hp->layer[il].top_k;
	info->n_expert_params += (uint64_t)3 * hp->n_expert * hp->n_ff_exp * hp->n_embd;
	info->expert_bytes += used;
	return used;
}

int model_load_moe(struct loader *l, uint32_t il, struct layer *y)
{
	const struct hparams *hp = l->hp;
	struct kn_moe *moe = &y->moe;
	struct eng_model_info *info = &l->m->info;
	uint64_t before, n_expert = hp->n_expert;
	char name[NAME_SIZE];
	int r;

	moe->n_expert = hp->n_expert;
	moe->n_ff = hp->n_ff_exp;
	moe->act = hp->act;
	r = load_router(l, S_ROUTER, il, hp->n_expert, &y->router);
	/* Newer converters leave a bias of zeros out. */
	if (r == 0 && hp->router == KN_ROUTE_SIGMOID && model_load_tensor_name(l, S_ROUTER_BIAS, il, 0, name) &&
	    (!l->gguf || eng_weights_find(l->m->weights, name)))
		r = model_load_floats(l, name, 1, &n_expert, 0, &y->router_bias);
	r = r < 0 ? r : load_shared(l, il, y);
	if (r < 0)
		return r;

	before = info->weight_bytes;
	if (model_load_tensor_name(l, S_EXP_GATE_UP, il, 0, name)) {
		r = load_alternating_experts(l, il, moe);
	} else {
		r = load_expert_set(l, S_EXP_GATE, il, moe->n_ff, hp->n_embd, &moe->gate, &moe->gate_bias);
		r = r < 0 ? r : load_expert_set(l, S_EXP_UP, il, moe->n_ff, hp->n_embd, &moe->up, &moe->up_bias);
		r = r < 0 ? r : load_expert_set(l, S_EXP_DOWN, il, hp->n_embd, moe->n_ff, &moe->down, &moe->down_bias);
	}
	/* A token reads only the experts that it takes. */
	before += model_count_experts(info, hp, il, info->weight_bytes - before);
	info->weight_bytes = before;
	return r;
}
