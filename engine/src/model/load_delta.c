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
	const struct row_part q = { 0, hp->head_dim }, gate = { hp->head_dim, hp->head_dim };
	uint64_t shape[2] = { 2ull * hp->n_head * hp->head_dim, hp->n_embd };
	const struct eng_tensor *t;
	char name[NAME_SIZE];
	int r;

	if (hp->qkv_bias)
		return err_set(l->err, -ENOTSUP, "%s: attention_bias is not supported beside a gate of the attention",
		               l->path);
	(void)model_load_tensor_name(l, S_Q, il, 0, name);
	r = model_load_need_mat(l, name, 2, shape, &t);
	r = r < 0 ? r : model_load_groups(l, name, t, hp->n_head, 2 * hp->head_dim, &q, 1, hp->n_embd, &y->q.w);
	return r < 0 ? r
	             : model_load_groups(l, name, t, hp->n_head, 2 * hp->head_dim, &gate, 1, hp->n_embd, &y->q_gate.w);
}

/* Q, K, V and the output gate: together, by K heads, or the gate apart from the others. */
static int load_in(struct loader *l, uint32_t il, struct delta_net *y)
{
	const struct hparams *hp = l->hp;
	uint32_t k = hp->linear.k_dim, v = hp->linear.n_v_head / hp->linear.n_k_head * hp->linear.v_dim;
	uint32_t n_qkv = hparams_linear_channels(hp), n_z = hp->linear.n_v_head * hp->linear.v_dim;
	const struct row_part qkv[] = { { 0, k }, { k, k }, { 2 * k, v } }, z = { 2 * k + v, v };
	uint64_t shape[2] = { (uint64_t)n_qkv + n_z, hp->n_embd };
	const struct eng_tensor *t;
	char name[NAME_SIZE];
	int r;

	if (model_load_tensor_name(l, S_LIN_QKV, il, 0, name) && eng_weights_find(l->m->weights, name)) {
		r = model_load_linear(l, S_LIN_QKV, il, n_qkv, hp->n_embd, false, &y->qkv);
		return r < 0 ? r : model_load_linear(l, S_LIN_Z, il, n_z, hp->n_embd, false, &y->z);
	}
	(void)model_load_tensor_name(l, S_LIN_QKVZ, il, 0, name);
	r = model_load_need_mat(l, name, 2, shape, &t);
	r = r < 0 ? r
	          : model_load_groups(l, name, t, hp->linear.n_k_head, 2 * k + 2 * v, qkv, 3, hp->n_embd, &y->qkv.w);
	return r < 0 ? r
	             : model_load_groups(l, name, t, hp->linear.n_k_head, 2 * k + 2 * v, &z, 1, hp->n_embd, &y->z.w);
}

/* As float whatever the file has: they are small, and what they say of a state is said at every token. */
static int load_gates(struct loader *l, uint32_t il, struct delta_net *y)
{
	const struct hparams *hp = l->hp;
	uint32_t share = hp->linear.n_v_head / hp->linear.n_k_head;
	const struct row_part parts[] = { { 0, share }, { share, share } };
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
	return model_load_groups(l, name, &wide, hp->linear.n_k_head, 2 * share, parts, 2, hp->n_embd, &y->ba.w);
}

/* The file has a row of weights for each channel. Hugging Face's has a dimension of one between. */
static int load_conv(struct loader *l, uint32_t il, struct delta_net *y)
{
	uint32_t n_channels = hparams_linear_channels(l->hp), n = l->hp->linear.conv;
	uint64_t wide[3] = { n_channels, 1, n }, flat[2] = { n_channels, n };
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
	for (size_t c = 0; c < n_channels; c++) {
		for (size_t j = 0; j < n; j++)
			turned[j * n_channels + c] = values[c * n + j];
	}
	y->conv = model_upload(l->m, turned, (size_t)n_channels * n);
	l->m->info.weight_bytes += (uint64_t)n_channels * n * sizeof(*turned);
	return y->conv ? 0 : model_load_no_memory(l, name);
}

/* How fast a head forgets: -e^A_log, which GGUF's converters have computed. */
static int load_decay(struct loader *l, uint32_t il, struct delta_net *y)
{
	uint64_t n = l->hp->linear.n_v_head;
	float values[HP_MAX_HEADS];
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
	y->decay = model_upload(l->m, values, n);
	return y->decay ? 0 : model_load_no_memory(l, name);
}

int model_load_delta(struct loader *l, uint32_t il, struct delta_net *y)
{
	const struct hparams *hp = l->hp;
	int r;

	r = load_in(l, il, y);
	r = r < 0 ? r : load_gates(l, il, y);
	r = r < 0 ? r : load_conv(l, il, y);
	r = r < 0 ? r : load_decay(l, il, y);
	r = r < 0 ? r : model_load_vector(l, S_LIN_DT_BIAS, il, hp->linear.n_v_head, 0, &y->dt_bias);
	/* This norm's weights are what it multiplies by, unlike those of the others. */
	r = r < 0 ? r : model_load_vector(l, S_LIN_NORM, il, hp->linear.v_dim, 0, &y->norm);
	return r < 0 ? r
	             : model_load_linear(l, S_LIN_O, il, hp->n_embd, hp->linear.n_v_head * hp->linear.v_dim, false,
	                                 &y->o);
}
