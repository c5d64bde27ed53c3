/* Multi-head latent attention (DeepSeek-V2, 2024), in its absorbed form: the cache holds one latent and
 * one rotated key part per token, shared by all heads. Expanding the latent to K is a matrix per head; it
 * is applied to q instead, and the matrix that expands it to V is applied to what attention returns:
 *
 *   q_h . (Wk_h c) = (Wk_h^T q_h) . c        sum_t p_t (Wv_h c_t) = Wv_h (sum_t p_t c_t)
 *
 * so attention runs over vectors of kv_lora + rope dimensions whose first kv_lora are also the values. */
#include "model/internal.h"

/* Q of every head as [latent space, rotated part]. q without position goes through a buffer of its own;
 * the part with position is computed straight into its place. */
static void project_q(struct eng_runner *r, const struct layer *l, const float *in)
{
	const struct hparams *hp = &r->model->hp;
	size_t width = hp->kv_lora + hp->qk_rope, ld_q = hp->n_head * width, ld_nope = (size_t)hp->n_head * hp->qk_nope;
	size_t ld_in = hp->n_embd, n = r->n_tokens;

	if (hp->q_lora) {
		const struct kn_matmul down = {
			.w = &l->mla.q_a.w, .out = r->buf[B_QA], .ld_out = hp->q_lora, .bias = l->mla.q_a.bias
		};

		r->ops->matmul(r->be, &down, 1, in, ld_in, n);
		r->ops->rmsnorm(r->be, r->buf[B_QA], hp->q_lora, r->buf[B_QA], hp->q_lora, l->mla.q_a_norm, n, 1,
		                hp->q_lora, hp->eps);
		in = r->buf[B_QA];
		ld_in = hp->q_lora;
	}
	for (uint32_t h = 0; h < hp->n_head; h++) {
		float *q = r->buf[B_Q] + h * width, *nope = r->buf[B_QN] + (size_t)h * hp->qk_nope;
		const struct kn_matmul up[] = {
			{ .w = &l->mla.q_nope[h], .out = nope, .ld_out = ld_nope },
			{ .w = &l->mla.q_rope[h], .out = q + hp->kv_lora, .ld_out = ld_q },
		};
		const struct kn_matmul absorb = { .w = &l->mla.k_b[h], .out = q, .ld_out = ld_q };

		r->ops->matmul(r->be, up, 2, in, ld_in, n);
		r->ops->matmul(r->be, &absorb, 1, nope, ld_nope, n);
	}
}

void attention_mla(struct eng_runner *r, uint32_t il, const struct block_in *in, float *dest, unsigned flags)
{
	const struct hparams *hp = &r->model->hp;
	const struct layer *l = &r->model->layers[il];
	size_t width = hp->kv_lora + hp->qk_rope, ld_q = hp->n_head * width, n = r->n_tokens;
	size_t ld_att = (size_t)hp->n_head * hp->kv_lora, ld_out = (size_t)hp->n_head * hp->v_head;
	float *q = r->buf[B_Q], *k = r->buf[B_K], *att = r->buf[B_ATT], *out = r->buf[B_MO];
	const float *x = model_block_rows(r, in);
	struct kn_rope rope = r->rope[hp->layer[il].rope];
	const struct kn_matmul latent = { .w = &l->mla.kv_a.w, .out = k, .ld_out = width, .bias = l->mla.kv_a.bias };
	const struct kn_matmul out_job = {
		.w = &l->o.w, .out = dest, .ld_out = hp->n_embd, .bias = l->o.bias, .flags = flags
	};
	const struct kn_attn attn = { .n_head = hp->n_head,
		                      .scale = hp->attn_scale,
		                      .window = hp->layer[il].window,
		                      .softcap = hp->attn_softcap };

	rope.offset = hp->kv_lora;
	project_q(r, l, x);
	r->ops->matmul(r->be, &latent, 1, x, hp->n_embd, n);
	r->ops->rmsnorm(r->be, k, width, k, width, l->mla.kv_a_norm, n, 1, hp->kv_lora, hp->eps);
	r->ops->rope(r->be, q, ld_q, n, hp->n_head, width, &rope, r->pos);
	r->ops->rope(r->be, k, width, n, 1, width, &rope, r->pos);
	r->ops->kv_store(r->be, &r->kv[il], k, width, NULL, 0, r->seqs, r->n_seqs);
	r->ops->attention(r->be, att, ld_att, q, ld_q, &r->kv[il], r->seqs, r->n_seqs, &attn);
	for (uint32_t h = 0; h < hp->n_head; h++) {
		const struct kn_matmul expand = { .w = &l->mla.v_b[h],
			                          .out = out + (size_t)h * hp->v_head,
			                          .ld_out = ld_out };

		r->ops->matmul(r->be, &expand, 1, att + (size_t)h * hp->kv_lora, ld_att, n);
	}
	r->ops->matmul(r->be, &out_job, 1, out, ld_out, n);
}
