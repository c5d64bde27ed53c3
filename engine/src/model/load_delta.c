/* Layers with linear attention (a gated delta net), and full attention whose Q carries a gate. */
#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "model/load.h"

int model_load_gated_q(struct loader *l, uint32_t il, struct layer *y)
{
	const struct hparams *hp = l->hp;
	const struct span q = { 0, hp->head_dim }, gate = { hp->head_dim, hp->head_dim };
	struct span heads = model_share_even(l->share, hp->n_head);
	uint64_t shape[2] = { 2ull * hp->n_head * hp->head_dim, hp->n_embd };
	const struct eng_tensor *t;
	char name[NAME_SIZE];
	int r;

	if (hp->qkv_bias)
		return err_set(l->err, -ENOTSUP, "%s: attention_bias is not supported beside a gate of the attention",
		               l->path);
	(void)model_load_tensor_name(l, S_Q, il, 0, name);
	r = model_load_need_mat(l, name, 2, shape, &t);
	r = r < 0 ? r : model_load_groups(l, name, t, heads, 2 * hp->head_dim, &q, 1, hp->n_embd, &y->q.w);
	return r < 0 ? r : model_load_groups(l, name, t, heads, 2 * hp->head_dim, &gate, 1, hp->n_embd, &y->q_gate.w);
}

/* Which of the rows of Q, K and V, one after the other, this rank has. */
static void qkv_rows(const struct loader *l, struct span ret[3])
{
	const struct hparams *hp = l->hp;
	struct span heads = model_share_even(l->share, hp->linear.n_k_head);
	uint32_t k = hp->linear.k_dim, v = hp->linear.n_v_head / hp->linear.n_k_head * hp->linear.v_dim;

	ret[0] = (struct span){ heads.first * k, heads.n * k };
	ret[1] = (struct span){ (hp->linear.n_k_head + heads.first) * k, heads.n * k };
	ret[2] = (struct span){ 2 * hp->linear.n_k_head * k + heads.first * v, heads.n * v };
}

/* They lie apart from each other unless it has all. */
static int load_qkv(struct loader *l, uint32_t il, const char *name, struct delta_net *y)
{
	uint32_t n_qkv = hparams_linear_channels(l->hp);
	uint64_t shape[2] = { n_qkv, l->hp->n_embd };
	const struct span once = { .n = 1 };
	const struct eng_tensor *t;
	struct span rows[3];
	int r;

	if (l->share.n == 1)
		return model_load_linear(l, S_LIN_QKV, il, n_qkv, model_load_all(n_qkv), l->hp->n_embd, false, &y->qkv);
	qkv_rows(l, rows);
	r = model_load_need_mat(l, name, 2, shape, &t);
	return r < 0 ? r : model_load_groups(l, name, t, once, n_qkv, rows, 3, l->hp->n_embd, &y->qkv.w);
}

/* Q, K, V and the output gate: together, by K heads, or the gate apart from the others. */
static int load_in(struct loader *l, uint32_t il, struct delta_net *y)
{
	const struct hparams *hp = l->hp;
	uint32_t k = hp->linear.k_dim, v = hp->linear.n_v_head / hp->linear.n_k_head * hp->linear.v_dim;
	uint32_t n_qkv = hparams_linear_channels(hp), n_z = hp->linear.n_v_head * hp->linear.v_dim;
	const struct span qkv[] = { { 0, k }, { k, k }, { 2 * k, v } }, z = { 2 * k + v, v };
	struct span heads = model_share_even(l->share, hp->linear.n_k_head);
	uint64_t shape[2] = { (uint64_t)n_qkv + n_z, hp->n_embd };
	const struct eng_tensor *t;
	char name[NAME_SIZE];
	int r;

	if (model_load_tensor_name(l, S_LIN_QKV, il, 0, name) && eng_weights_find(l->m->weights, name)) {
		r = load_qkv(l, il, name, y);
		return r < 0 ? r
		             : model_load_linear(l, S_LIN_Z, il, n_z, model_share_even(l->share, n_z), hp->n_embd,
		                                 false, &y->z);
	}
	(void)model_load_tensor_name(l, S_LIN_QKVZ, il, 0, name);
	r = model_load_need_mat(l, name, 2, shape, &t);
	r = r < 0 ? r : model_load_groups(l, name, t, heads, 2 * k + 2 * v, qkv, 3, hp->n_embd, &y->qkv.w);
	return r < 0 ? r : model_load_groups(l, name, t, heads, 2 * k + 2 * v, &z, 1, hp->n_embd, &y->z.w);
}

/* As float whatever the file has: they are small, and what they say of a state is said at every token. */
static int load_gates(struct loader *l, uint32_t il, struct delta_net *y)
{
	const struct hparams *hp = l->hp;
	uint32_t share = hp->linear.n_v_head / hp->linear.n_k_head;
	const struct span parts[] = { { 0, share }, { share, share } };
	uint64_t shape[2] = { 2ull * hp->linear.n_v_head, hp->n_embd };
	CLEANUP(freep) float *values = NULL;
	struct eng_tensor wide;
	const struct eng_tensor *t;
	char name[NAME_SIZE];
	int r;

	(void)model_load_tensor_name(l, S_LIN_BA, il, 0, name);
	r = model_load_need(l, name, 2, shape, &t);
	if (r < 0)
		return r;
	values = malloc(shape[0] * shape[1] * sizeof(*values));
	if (!values)
		return model_load_no_memory(l, name);
	kn_dequantize(t->dtype, t->data, values, shape[0] * shape[1]);
	wide = *t;
	wide.dtype = KN_F32;
	wide.data = values;
	return model_load_groups(l, name, &wide, model_share_even(l->share, hp->linear.n_k_head), 2 * share, parts, 2,
	                         hp->n_embd, &y->ba.w);
}

/* The file has a row of weights for each channel. Hugging Face's has a dimension of one between. */
static int load_conv(struct loader *l, uint32_t il, struct delta_net *y)
{
	uint32_t n_channels = hparams_linear_channels(l->hp), n = l->hp->linear.conv;
	uint64_t wide[3] = { n_channels, 1, n }, flat[2] = { n_channels, n };
	size_t n_here = hparams_linear_channels(&l->m->hp), at = 0;
	struct span rows[3];
	CLEANUP(freep) float *values = NULL;
	CLEANUP(freep) float *turned = NULL;
	const struct eng_tensor *t;
	char name[NAME_SIZE];
	int r;

	(void)model_load_tensor_name(l, S_LIN_CONV, il, 0, name);
	r = l->gguf ? model_load_need(l, name, 2, flat, &t) : model_load_need(l, name, 3, wide, &t);
	if (r < 0)
		return r;
	values = malloc((size_t)n_channels * n * sizeof(*values));
	turned = malloc((size_t)n_channels * n * sizeof(*turned));
	if (!values || !turned)
		return model_load_no_memory(l, name);
	kn_dequantize(t->dtype, t->data, values, (size_t)n_channels * n);
	qkv_rows(l, rows);
	for (int p = 0; p < 3; p++) {
		for (size_t c = rows[p].first; c < rows[p].first + rows[p].n; c++, at++) {
			for (size_t j = 0; j < n; j++)
				turned[j * n_here + at] = values[c * n + j];
		}
	}
	y->conv = model_upload(l->m, turned, n_here * n);
	l->m->info.weight_bytes += (uint64_t)n_here * n * sizeof(*turned);
	return y->conv ? 0 : model_load_no_memory(l, name);
}

/* How fast a head forgets: -e^A_log, which GGUF's converters have computed. */
static int load_decay(struct loader *l, uint32_t il, struct delta_net *y)
{
	uint64_t n = l->hp->linear.n_v_head;
	float values[HP_MAX_HEADS];
	struct span heads = model_share_even(l->share, l->hp->linear.n_v_head);
	const struct eng_tensor *t;
	char name[NAME_SIZE];
	int r;

	(void)model_load_tensor_name(l, S_LIN_A, il, 0, name);
	r = model_load_need(l, name, 1, &n, &t);
	if (r < 0)
		return r;
	kn_dequantize(t->dtype, t->data, values, n);
	for (size_t i = 0; i < n && !l->gguf; i++)
		values[i] = -expf(values[i]);
	y->decay = model_upload(l->m, values + heads.first, heads.n);
	return y->decay ? 0 : model_load_no_memory(l, name);
}

int model_load_delta(struct loader *l, uint32_t il, struct delta_net *y)
{
	const struct hparams *hp = l->hp;
	uint32_t n_v = hp->linear.n_v_head * hp->linear.v_dim;
	int r;

	r = load_in(l, il, y);
	r = r < 0 ? r : load_gates(l, il, y);
	r = r < 0 ? r : load_conv(l, il, y);
	r = r < 0 ? r : load_decay(l, il, y);
	r = r < 0 ? r : model_load_vector(l, S_LIN_DT_BIAS, il, hp->linear.n_v_head, 0, &y->dt_bias);
	if (r == 0)
		y->dt_bias += model_share_even(l->share, hp->linear.n_v_head).first;
	/* This norm's weights are what it multiplies by, unlike those of the others. */
	r = r < 0 ? r : model_load_vector(l, S_LIN_NORM, il, hp->linear.v_dim, 0, &y->norm);
	return r < 0 ? r
	             : model_load_summand(l, S_LIN_O, il, hp->n_embd, n_v, model_share_even(l->share, n_v), false,
	                                  &y->o);
}
