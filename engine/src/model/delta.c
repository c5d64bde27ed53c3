/* Linear attention: a gated delta net. Instead of K and V of all tokens, a state of fixed size per sequence. */
#include "model/internal.h"

/* The state of a sequence is that of its linear layers, one after the other: the convolution's, then the rule's. */
static float *state_of(const struct eng_runner *r, uint32_t il)
{
	const struct hparams *hp = &r->model->hp;
	size_t per_layer = hparams_conv_state(hp) + hparams_delta_state(hp), before = 0;

	for (uint32_t i = 0; i < il; i++)
		before += hp->layer[i].linear;
	return r->states + before * per_layer;
}

void attention_linear(struct eng_runner *r, uint32_t il, const struct block_in *in, float *dest, unsigned flags)
{
	const struct hparams *hp = &r->model->hp;
	const struct delta_net *l = &r->model->layers[il].delta;
	size_t n_mix = hparams_linear_channels(hp), n_v = (size_t)hp->linear.n_v_head * hp->linear.v_dim,
	       n_ba = 2 * (size_t)hp->linear.n_v_head, n = r->n_tokens;
	float *mix = r->buf[B_MIX], *conved = r->buf[B_CONV], *ba = r->buf[B_BA], *z = r->buf[B_Z],
	      *att = r->buf[B_ATT];
	const struct kn_matmul in_jobs[] = {
		{ .w = &l->qkv.w, .out = mix, .ld_out = n_mix },
		{ .w = &l->z.w, .out = z, .ld_out = n_v },
		{ .w = &l->ba.w, .out = ba, .ld_out = n_ba },
	};
	const struct kn_matmul out_job = { .w = &l->o.w, .out = dest, .ld_out = hp->n_embd, .flags = flags };
	const struct kn_conv conv = { .n_channels = (uint32_t)n_mix,
		                      .kernel = hp->linear.conv,
		                      .w = l->conv,
		                      .state = state_of(r, il),
		                      .ld_state = hparams_state(hp) };
	const struct kn_delta delta = { .n_k_head = hp->linear.n_k_head,
		                        .n_v_head = hp->linear.n_v_head,
		                        .k_dim = hp->linear.k_dim,
		                        .v_dim = hp->linear.v_dim,
		                        .decay = l->decay,
		                        .dt_bias = l->dt_bias,
		                        .eps = 1e-6f, /* whatever the model's norms have */
		                        .state = conv.state + hparams_conv_state(hp),
		                        .ld_state = conv.ld_state };

	r->ops->matmul(r->be, in_jobs, 3, model_block_rows(r, in), hp->n_embd, n);
	r->ops->conv_silu(r->be, conved, n_mix, mix, n_mix, &conv, r->seqs, r->n_seqs);
	r->ops->delta_rule(r->be, att, n_v, conved, n_mix, ba, n_ba, &delta, r->seqs, r->n_seqs);
	r->ops->gated_rmsnorm(r->be, att, n_v, att, n_v, z, n_v, l->norm, n, hp->linear.n_v_head, hp->linear.v_dim,
	                      hp->eps);
	r->ops->matmul(r->be, &out_job, 1, att, n_v, n);
}
