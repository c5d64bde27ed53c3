/* The forward pass, the same for every architecture: a layer is two blocks, and each reads the residual
 * stream (through a norm or not) and adds to it (through a norm or not).
 *
 * Without an output norm the block's last matrix adds straight to the residual. On a group of devices each
 * one's block gives a summand of the output. */
#include "model/internal.h"

typedef void (*block_fn)(struct eng_runner *r, uint32_t il, const struct block_in *in, float *dest, unsigned flags);

const float *model_block_rows(struct eng_runner *r, const struct block_in *in)
{
	const struct hparams *hp = &r->model->hp;

	if (!in->norm)
		return in->x;
	r->ops->rmsnorm(r->be, r->buf[B_H], hp->n_embd, in->x, hp->n_embd, in->norm, r->n_tokens, 1, hp->n_embd,
	                hp->eps);
	return r->buf[B_H];
}

static void run_block(struct eng_runner *r, uint32_t il, block_fn block, const float *in_norm, const float *out_norm)
{
	const struct hparams *hp = &r->model->hp;
	size_t dim = hp->n_embd, n = r->n_tokens;
	const struct block_in in = { .x = r->buf[B_X], .norm = in_norm };

	if (!out_norm && !runner_is_divided(r)) {
		block(r, il, &in, r->buf[B_X], KN_ACCUMULATE);
		return;
	}
	block(r, il, &in, r->buf[B_T], 0);
	if (runner_is_divided(r))
		r->ops->all_reduce(r->be, r->buf[B_T], dim, n, dim);
	if (out_norm)
		r->ops->rmsnorm(r->be, r->buf[B_T], dim, r->buf[B_T], dim, out_norm, n, 1, dim, hp->eps);
	r->ops->add(r->be, r->buf[B_X], dim, r->buf[B_T], dim, n, dim, 1);
}

void forward(struct eng_runner *r)
{
	const struct eng_model *m = r->model;
	block_fn full = m->hp.arch->attn == ATTN_MLA ? attention_mla : attention_gqa;

	if (m->hp.arch->encoder) {
		model_forward_encoder(r);
		return;
	}
	r->ops->embed(r->be, r->buf[B_X], m->hp.n_embd, &m->embed, r->ids, r->n_tokens, m->hp.embed_scale);
	for (uint32_t il = 0; il < m->hp.n_layer; il++) {
		const struct layer *l = &m->layers[il];

		run_block(r, il, m->hp.layer[il].linear ? attention_linear : full, l->attn_in_norm, l->attn_out_norm);
		run_block(r, il, ffn, l->ffn_in_norm, l->ffn_out_norm);
	}
}
