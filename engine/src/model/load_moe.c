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
	struct span take = model_share_even(l->share, n_ff);
	int r;

	if (n_ff == 0)
		return 0;
	r = model_load_linear(l, S_SH_GATE, il, n_ff, take, dim, false, &y->gate);
	r = r < 0 ? r : model_load_linear(l, S_SH_UP, il, n_ff, take, dim, false, &y->up);
	r = r < 0 ? r : model_load_summand(l, S_SH_DOWN, il, dim, n_ff, take, false, &y->down);
	return r < 0 || !arch_tensor_name(l->hp->arch, S_SH_ROUTER, l->gguf)
	               ? r
	               : load_router(l, S_SH_ROUTER, il, 1, &y->shared_router);
}

/* What this rank has of a set of matrices: which of the experts, and which rows or columns of each. */
struct part_of_experts {
	struct span experts, rows, cols;
};

static int load_expert(struct loader *l, const char *name, const struct eng_tensor *t, uint64_t from, uint32_t cols,
                       const struct part_of_experts *take, struct kn_mat *ret)
{
	return model_load_cols(l, name, t, from + take->rows.first, take->rows.n, cols, take->cols, ret);
}

/* The part of a bias [n_expert, rows] that goes with the experts and their rows. */
static int load_expert_bias(struct loader *l, const char *name, uint32_t rows, const struct part_of_experts *take,
                            const float **ret)
{
	uint64_t shape[2] = { l->hp->n_expert, rows };
	CLEANUP(freep) float *values = NULL;
	const struct eng_tensor *t;
	size_t n = 0;
	int r = model_load_need(l, name, 2, shape, &t);

	if (r < 0)
		return r;
	values = malloc(shape[0] * rows * sizeof(*values));
	if (!values)
		return model_load_no_memory(l, name);
	kn_dequantize(t->dtype, t->data, values, shape[0] * rows);
	for (size_t e = take->experts.first; e < take->experts.first + take->experts.n; e++) {
		memmove(values + n, values + e * rows + take->rows.first, take->rows.n * sizeof(*values));
		n += take->rows.n;
	}
	*ret = model_upload(l->m, values, n);
	l->m->info.weight_bytes += n * sizeof(**ret);
	return *ret ? 0 : model_load_no_memory(l, name);
}

/* [n_expert] matrices [rows, cols], one tensor each or all in one; with a bias [n_expert, rows] beside the
 * one when there is one. is_summand: the ranks' outputs are added, and the first one's has the bias. */
static int load_expert_set(struct loader *l, enum slot slot, uint32_t il, uint32_t rows, uint32_t cols,
                           const struct part_of_experts *take, bool is_summand, const struct kn_mat **ret_mats,
                           const float **ret_bias)
{
	uint32_t n = l->hp->n_expert;
	uint64_t each[2] = { rows, cols }, all[3] = { n, rows, cols };
	struct kn_mat *mats = model_load_mats_new(l, take->experts.n);
	const struct eng_tensor *t;
	char name[NAME_SIZE], bias[NAME_SIZE];
	int r = 0;

	if (!mats)
		return model_load_no_memory(l, "experts");
	*ret_mats = mats;
	if (strstr(arch_tensor_name(l->hp->arch, slot, l->gguf), "{}")) {
		for (uint32_t e = 0; e < n && r == 0; e++) {
			bool is_here = e - take->experts.first < take->experts.n;

			(void)model_load_tensor_name(l, slot, il, e, name);
			r = model_load_need_mat(l, name, 2, each, &t);
			if (r == 0 && is_here)
				r = load_expert(l, name, t, 0, cols, take, &mats[e - take->experts.first]);
		}
		return r;
	}
	(void)model_load_tensor_name(l, slot, il, 0, name);
	r = model_load_need(l, name, 3, all, &t);
	for (uint32_t i = 0; i < take->experts.n && r == 0; i++)
		r = load_expert(l, name, t, (uint64_t)(take->experts.first + i) * rows, cols, take, &mats[i]);
	model_load_bias_name(name, bias);
	if (r == 0 && eng_weights_find(l->m->weights, bias) && !(is_summand && l->share.rank > 0))
		r = load_expert_bias(l, bias, rows, take, ret_bias);
	return r;
}

/* The biases of experts whose gate and up alternate: [n_expert, 2 * n_ff] and [n_expert, dim]. */
static int load_alternating_biases(struct loader *l, const char *gu_name, const char *d_name, struct span experts,
                                   struct span ff, struct kn_moe *moe)
{
	const struct part_of_experts down = { .experts = experts, .rows = { .n = l->hp->n_embd } };
	uint32_t n_expert = l->hp->n_expert, n_ff = l->hp->n_ff_exp;
	size_t n_values = (size_t)moe->n_expert * moe->n_ff, n = 0;
	uint64_t gu_shape[2] = { n_expert, 2 * (uint64_t)n_ff };
	CLEANUP(freep) float *values = NULL;
	CLEANUP(freep) float *split = NULL;
	const struct eng_tensor *b;
	char name[NAME_SIZE];
	int r = 0;

	model_load_bias_name(d_name, name);
	if (l->share.by_expert || l->share.rank == 0)
		r = load_expert_bias(l, name, l->hp->n_embd, &down, &moe->down_bias);
	model_load_bias_name(gu_name, name);
	r = r < 0 ? r : model_load_need(l, name, 2, gu_shape, &b);
	if (r < 0)
		return r;
	values = malloc(gu_shape[0] * gu_shape[1] * sizeof(*values));
	split = malloc(2 * n_values * sizeof(*split));
	if (!values || !split)
		return model_load_no_memory(l, name);
	kn_dequantize(b->dtype, b->data, values, gu_shape[0] * gu_shape[1]);
	for (size_t e = experts.first; e < experts.first + experts.n; e++) {
		const float *both = values + e * 2 * n_ff + (size_t)2 * ff.first;

		for (size_t i = 0; i < ff.n; i++, n++) {
			split[n] = both[2 * i];
			split[n_values + n] = both[2 * i + 1];
		}
	}
	moe->gate_bias = model_upload(l->m, split, 2 * n_values);
	if (!moe->gate_bias)
		return model_load_no_memory(l, name);
	moe->up_bias = moe->gate_bias + n_values;
	return 0;
}

/* [n_expert, dim, 2 * n_ff] and [n_expert, n_ff, dim], input features first: turned round. */
static int load_turned_experts(struct loader *l, const char *gu_name, const char *d_name, struct span experts,
                               struct span ff, struct kn_mat *gate, struct kn_mat *up, struct kn_mat *down)
{
	uint32_t n = l->hp->n_expert, n_ff = l->hp->n_ff_exp, dim = l->hp->n_embd;
	uint64_t gu_shape[3] = { n, dim, 2 * (uint64_t)n_ff }, d_shape[3] = { n, n_ff, dim };
	const struct eng_tensor *gu, *d;
	int r;

	r = model_load_need(l, gu_name, 3, gu_shape, &gu);
	r = r < 0 ? r : model_load_need(l, d_name, 3, d_shape, &d);
	for (size_t i = 0; i < experts.n && r == 0; i++) {
		size_t e = experts.first + i, first = (size_t)2 * ff.first;
		const char *gu_data = (const char *)gu->data + e * dim * kn_row_bytes(gu->dtype, gu_shape[2]);
		const char *d_data = (const char *)d->data + (e * n_ff + ff.first) * kn_row_bytes(d->dtype, dim);

		r = model_load_turned(l, gu_name, gu->dtype, gu_data, ff.n, dim, first, 2, gu_shape[2], &gate[i]);
		if (r == 0)
			r = model_load_turned(l, gu_name, gu->dtype, gu_data, ff.n, dim, first + 1, 2, gu_shape[2],
			                      &up[i]);
		r = r < 0 ? r : model_load_turned(l, d_name, d->dtype, d_data, dim, ff.n, 0, 1, dim, &down[i]);
	}
	return r;
}

/* [n_expert, 2 * n_ff, dim] and [n_expert, dim, n_ff] in MXFP4, output features first. */
static int load_mxfp4_experts(struct loader *l, const char *gu_name, const char *d_name, struct span experts,
                              struct span ff, struct kn_mat *gate, struct kn_mat *up, struct kn_mat *down)
{
	uint32_t n = l->hp->n_expert, n_ff = l->hp->n_ff_exp, dim = l->hp->n_embd;
	uint64_t first = 2ull * ff.first;
	struct span all = { .n = dim };
	uint64_t gu_shape[3] = { n, 2 * (uint64_t)n_ff, dim }, d_shape[3] = { n, dim, n_ff };
	int r = 0;

	for (size_t i = 0; i < experts.n && r == 0; i++) {
		size_t e = experts.first + i;

		r = model_expand_mxfp4(l, gu_name, gu_shape, e, first, 2, ff.n, all, &gate[i]);
		r = r < 0 ? r : model_expand_mxfp4(l, gu_name, gu_shape, e, first + 1, 2, ff.n, all, &up[i]);
		r = r < 0 ? r : model_expand_mxfp4(l, d_name, d_shape, e, 0, 1, dim, ff, &down[i]);
	}
	return r;
}

/* gpt-oss's folders: gate and up of all experts in one tensor, alternating; a bias for each. */
static int load_alternating_experts(struct loader *l, uint32_t il, struct span experts, struct span ff,
                                    struct kn_moe *moe)
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
		r = load_mxfp4_experts(l, gu_name, d_name, experts, ff, gate, up, down);
	else
		r = load_turned_experts(l, gu_name, d_name, experts, ff, gate, up, down);
	if (r < 0)
		return r;
	moe->gate = gate;
	moe->up = up;
	moe->down = down;
	return load_alternating_biases(l, gu_name, d_name, experts, ff, moe);
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
	struct span experts = model_share_experts(l->share, hp->n_expert),
	            ff = model_share_expert_ff(l->share, hp->n_ff_exp);
	const struct part_of_experts in = { experts, ff, { .n = hp->n_embd } },
	                             out = { experts, { .n = hp->n_embd }, ff };
	uint64_t before, n_expert = hp->n_expert;
	char name[NAME_SIZE];
	int r;

	moe->n_expert = experts.n;
	moe->first_expert = experts.first;
	moe->n_ff = ff.n;
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
		r = load_alternating_experts(l, il, experts, ff, moe);
	} else {
		r = load_expert_set(l, S_EXP_GATE, il, hp->n_ff_exp, hp->n_embd, &in, false, &moe->gate,
		                    &moe->gate_bias);
		if (r == 0)
			r = load_expert_set(l, S_EXP_UP, il, hp->n_ff_exp, hp->n_embd, &in, false, &moe->up,
			                    &moe->up_bias);
		if (r == 0)
			r = load_expert_set(l, S_EXP_DOWN, il, hp->n_embd, hp->n_ff_exp, &out, !l->share.by_expert,
			                    &moe->down, &moe->down_bias);
	}
	/* A token reads only the experts that it takes. */
	before += model_count_experts(info, hp, il, info->weight_bytes - before);
	info->weight_bytes = before;
	return r;
}
