/* The forward pass of an encoder: x = norm(x + block(x)) twice a layer, every token seeing all of its text.
 *
 * The attention of kernels.h is causal. Once all K and V of a text are stored, each of its tokens is given as a
 * sequence of its own that ends with the text: so it sees everything, on every backend. */
#include "model/internal.h"

static void attention(struct eng_runner *r, const struct layer *l, uint32_t il)
{
	const struct hparams *hp = &r->model->hp;
	size_t dim = hp->n_embd, n = r->n_tokens;
	float *q = r->buf[B_Q], *k = r->buf[B_K], *v = r->buf[B_V], *att = r->buf[B_ATT];
	const struct kn_matmul in_jobs[] = {
		{ .w = &l->q.w, .out = q, .ld_out = dim, .bias = l->q.bias },
		{ .w = &l->k.w, .out = k, .ld_out = dim, .bias = l->k.bias },
		{ .w = &l->v.w, .out = v, .ld_out = dim, .bias = l->v.bias },
	};
	const struct kn_matmul out_job = {
		.w = &l->o.w, .out = r->buf[B_X], .ld_out = dim, .bias = l->o.bias, .flags = KN_ACCUMULATE
	};
	const struct kn_attn attn = { .n_head = hp->n_head, .scale = hp->attn_scale };

	r->ops->matmul(r->be, in_jobs, 3, r->buf[B_X], dim, n);
	r->ops->kv_store(r->be, &r->kv[il], k, dim, v, dim, r->seqs, r->n_seqs);
	r->be->n_answer_rows = UINT32_MAX; /* each row by itself: as an answer's */
	r->ops->attention(r->be, att, dim, q, dim, &r->kv[il], r->row_seqs, n, &attn);
	r->be->n_answer_rows = r->n_answer_rows;
	r->ops->matmul(r->be, &out_job, 1, att, dim, n);
}

static void feed_forward(struct eng_runner *r, const struct layer *l, uint32_t il)
{
	const struct hparams *hp = &r->model->hp;
	size_t dim = hp->n_embd, n_ff = hp->layer[il].n_ff, n = r->n_tokens;
	float *h = r->buf[B_UP];
	const struct kn_matmul up = { .w = &l->up.w, .out = h, .ld_out = n_ff, .bias = l->up.bias };
	const struct kn_matmul down = {
		.w = &l->down.w, .out = r->buf[B_X], .ld_out = dim, .bias = l->down.bias, .flags = KN_ACCUMULATE
	};

	r->ops->matmul(r->be, &up, 1, r->buf[B_X], dim, n);
	r->ops->act_mul(r->be, hp->act, h, n_ff, h, n_ff, NULL, 0, n, n_ff);
	r->ops->matmul(r->be, &down, 1, h, n_ff, n);
}

void model_forward_encoder(struct eng_runner *r)
{
	const struct eng_model *m = r->model;
	size_t dim = m->hp.n_embd, n = r->n_tokens;
	float *x = r->buf[B_X];

	for (size_t i = 0; i < r->n_seqs; i++) {
		const struct kn_seq *s = &r->seqs[i];

		for (uint32_t t = 0; t < s->n_q; t++)
			r->row_seqs[s->row + t] =
			        (struct kn_seq){ .pages = s->pages, .kv_len = s->kv_len, .n_q = 1, .row = s->row + t };
	}
	r->ops->embed(r->be, x, dim, &m->embed, r->ids, n, 1);
	r->ops->embed(r->be, r->buf[B_T], dim, &m->pos_embed, r->pos, n, 1);
	r->ops->add(r->be, x, dim, r->buf[B_T], dim, n, dim, 1);
	r->ops->layernorm(r->be, x, dim, x, dim, m->embed_norm, m->embed_norm_bias, n, dim, m->hp.eps);
	for (uint32_t il = 0; il < m->hp.n_layer; il++) {
		const struct layer *l = &m->layers[il];

		attention(r, l, il);
		r->ops->layernorm(r->be, x, dim, x, dim, l->attn_out_norm, l->attn_out_bias, n, dim, m->hp.eps);
		feed_forward(r, l, il);
		if (il + 1 < m->hp.n_layer)
			r->ops->layernorm(r->be, x, dim, x, dim, l->ffn_out_norm, l->ffn_out_bias, n, dim, m->hp.eps);
	}
}
