/* Attention with grouped K/V heads. */
#include "model/lora.h"

/* A norm over all heads needs those of the other devices, too: rows of Q and K have room for them. */
static bool needs_all_heads(const struct eng_model *m)
{
	return m->hp.qk_norm && m->hp.arch->qk_norm == QK_NORM_ALL;
}

size_t attention_row_heads(const struct eng_model *m, uint32_t n_head)
{
	return (size_t)n_head * (needs_all_heads(m) ? m->share.n : 1);
}

/* Where this device's heads are in such rows. */
static float *own_heads(const struct eng_runner *r, float *rows, size_t width, size_t ld)
{
	return rows + (ld > width ? r->model->share.rank * width : 0);
}

static void norm_heads(struct eng_runner *r, float *x, const float *w, uint32_t n_head)
{
	const struct hparams *hp = &r->model->hp;
	size_t mine = (size_t)n_head * hp->head_dim, width = attention_row_heads(r->model, n_head) * hp->head_dim;

	if (!needs_all_heads(r->model)) {
		r->ops->rmsnorm(r->be, x, width, x, width, w, r->n_tokens, n_head, hp->head_dim, hp->eps);
		return;
	}
	if (mine < width)
		r->ops->all_gather(r->be, x, width, r->n_tokens, mine, width);
	r->ops->rmsnorm(r->be, x, width, x, width, w, r->n_tokens, 1, width, hp->eps);
}

static void norm_qk(struct eng_runner *r, const struct layer *l)
{
	if (!r->model->hp.qk_norm)
		return;
	norm_heads(r, r->buf[B_Q], l->q_norm, r->model->hp.n_head);
	norm_heads(r, r->buf[B_K], l->k_norm, r->model->hp.n_kv_head);
}

/* New rows of q, k and v as attention wants them, K and V in the cache. */
static void store_qkv(struct eng_runner *r, uint32_t il)
{
	const struct hparams *hp = &r->model->hp;
	const struct layer *l = &r->model->layers[il];
	const struct kn_rope *rope = &r->rope[hp->layer[il].rope];
	size_t dim = hp->head_dim, n_q = hp->n_head * dim, n_kv = hp->n_kv_head * dim, n = r->n_tokens;
	size_t ld_q = attention_row_heads(r->model, hp->n_head) * dim,
	       ld_k = attention_row_heads(r->model, hp->n_kv_head) * dim;
	float *q = own_heads(r, r->buf[B_Q], n_q, ld_q), *k = own_heads(r, r->buf[B_K], n_kv, ld_k), *v = r->buf[B_V];
	const struct kn_qkv all = { .q = q,
		                    .k = k,
		                    .v = v,
		                    .ld_q = ld_q,
		                    .ld_k = ld_k,
		                    .ld_v = n_kv,
		                    .n_head = hp->n_head,
		                    .q_norm = hp->qk_norm ? l->q_norm : NULL,
		                    .k_norm = hp->qk_norm ? l->k_norm : NULL,
		                    .eps = hp->eps,
		                    .rope = rope,
		                    .pos = r->pos };

	if (r->ops->qkv_store &&
	    (!hp->qk_norm || (hp->arch->qk_norm != QK_NORM_ALL && !hp->arch->qk_norm_after_rope))) {
		r->ops->qkv_store(r->be, &all, &r->kv[il], r->seqs, r->n_seqs, n);
		return;
	}
	if (!hp->arch->qk_norm_after_rope)
		norm_qk(r, l);
	r->ops->rope(r->be, q, ld_q, n, hp->n_head, dim, rope, r->pos);
	r->ops->rope(r->be, k, ld_k, n, hp->n_kv_head, dim, rope, r->pos);
	if (hp->arch->qk_norm_after_rope)
		norm_qk(r, l);
	r->ops->kv_store(r->be, &r->kv[il], k, ld_k, v, n_kv, r->seqs, r->n_seqs);
}

void attention_gqa(struct eng_runner *r, uint32_t il, const struct block_in *in, float *dest, unsigned flags)
{
	const struct hparams *hp = &r->model->hp;
	const struct layer *l = &r->model->layers[il];
	size_t dim = hp->head_dim, n_q = hp->n_head * dim, n_kv = hp->n_kv_head * dim, n = r->n_tokens;
	size_t n_jobs = l->q_gate.w.rows ? 4 : 3;
	size_t ld_q = attention_row_heads(r->model, hp->n_head) * dim,
	       ld_k = attention_row_heads(r->model, hp->n_kv_head) * dim;
	float *q = own_heads(r, r->buf[B_Q], n_q, ld_q), *k = own_heads(r, r->buf[B_K], n_kv, ld_k);
	float *v = r->buf[B_V], *att = r->buf[B_ATT];
	const struct kn_matmul in_jobs[] = {
		{ .w = &l->q.w, .out = q, .ld_out = ld_q, .bias = l->q.bias },
		{ .w = &l->k.w, .out = k, .ld_out = ld_k, .bias = l->k.bias },
		{ .w = &l->v.w, .out = v, .ld_out = n_kv, .bias = l->v.bias },
		{ .w = &l->q_gate.w, .out = r->buf[B_Z], .ld_out = n_q, .bias = l->q_gate.bias },
	};
	const struct kn_matmul out_job = {
		.w = &l->o.w, .out = dest, .ld_out = hp->n_embd, .bias = l->o.bias, .flags = flags
	};
	const struct kn_attn attn = {
		.n_head = hp->n_head,
		.scale = hp->attn_scale,
		.window = hp->layer[il].window,
		.softcap = hp->attn_softcap,
		.sinks = l->sinks,
	};

	if (in->norm && r->ops->norm_matmul && !r->runs) {
		r->ops->norm_matmul(r->be, in_jobs, n_jobs, in->x, hp->n_embd, n, in->norm, hp->eps);
	} else {
		const float *x = model_block_rows(r, in);

		r->ops->matmul(r->be, in_jobs, n_jobs, x, hp->n_embd, n);
		model_lora_add(r, il, LORA_Q, x, hp->n_embd, q, ld_q);
		model_lora_add(r, il, LORA_K, x, hp->n_embd, k, ld_k);
		model_lora_add(r, il, LORA_V, x, hp->n_embd, v, n_kv);
	}
	store_qkv(r, il);
	r->ops->attention(r->be, att, n_q, q, ld_q, &r->kv[il], r->seqs, r->n_seqs, &attn);
	if (l->q_gate.w.rows)
		r->ops->act_mul(r->be, KN_ACT_SIGMOID, att, n_q, r->buf[B_Z], n_q, att, n_q, n, n_q);
	r->ops->matmul(r->be, &out_job, 1, att, n_q, n);
	model_lora_add(r, il, LORA_O, att, n_q, dest, hp->n_embd);
}
