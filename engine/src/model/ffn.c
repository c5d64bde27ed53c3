/* Feed-forward: dense, or experts chosen by a router with or without one that every token takes. */
#include "model/lora.h"

static void gated(struct eng_runner *r, uint32_t il, uint32_t n_ff, const struct block_in *in, float *dest,
                  unsigned flags)
{
	const struct hparams *hp = &r->model->hp;
	const struct layer *l = &r->model->layers[il];
	float *gate = r->buf[B_GATE], *up = r->buf[B_UP];
	const float *x;
	const struct kn_matmul in_jobs[] = {
		{ .w = &l->gate.w, .out = gate, .ld_out = n_ff, .bias = l->gate.bias },
		{ .w = &l->up.w, .out = up, .ld_out = n_ff, .bias = l->up.bias },
	};
	const struct kn_matmul out_job = {
		.w = &l->down.w, .out = dest, .ld_out = hp->n_embd, .bias = l->down.bias, .flags = flags
	};

	if (r->ops->gated && !r->runs && !l->shared_router.w.rows) {
		const struct kn_gated g = { .gate = &l->gate.w,
			                    .up = &l->up.w,
			                    .down = &l->down.w,
			                    .gate_bias = l->gate.bias,
			                    .up_bias = l->up.bias,
			                    .down_bias = l->down.bias,
			                    .act = hp->act,
			                    .norm = in->norm,
			                    .eps = hp->eps,
			                    .gate_out = gate,
			                    .up_out = up,
			                    .flags = flags };

		r->ops->gated(r->be, &g, dest, hp->n_embd, in->x, hp->n_embd, r->n_tokens);
		return;
	}
	x = model_block_rows(r, in);
	r->ops->matmul(r->be, in_jobs, 2, x, hp->n_embd, r->n_tokens);
	model_lora_add(r, il, LORA_GATE, x, hp->n_embd, gate, n_ff);
	model_lora_add(r, il, LORA_UP, x, hp->n_embd, up, n_ff);
	r->ops->act_mul(r->be, hp->act, gate, n_ff, gate, n_ff, up, n_ff, r->n_tokens, n_ff);
	if (l->shared_router.w.rows) {
		const struct kn_matmul share_job = { .w = &l->shared_router.w, .out = r->buf[B_SHARE], .ld_out = 1 };

		r->ops->matmul(r->be, &share_job, 1, x, hp->n_embd, r->n_tokens);
		r->ops->gate_rows(r->be, gate, n_ff, r->buf[B_SHARE], r->n_tokens, n_ff);
	}
	r->ops->matmul(r->be, &out_job, 1, gate, n_ff, r->n_tokens);
	model_lora_add(r, il, LORA_DOWN, gate, n_ff, dest, hp->n_embd);
}

void ffn(struct eng_runner *r, uint32_t il, const struct block_in *in, float *dest, unsigned flags)
{
	const struct hparams *hp = &r->model->hp;
	const struct layer *l = &r->model->layers[il];
	const struct kn_router router = {
		.kind = hp->router,
		.n_expert = hp->n_expert,
		.top_k = hp->layer[il].top_k,
		.n_group = hp->n_group,
		.top_group = hp->top_group,
		.normalize = hp->normalize,
		.scale = hp->route_scale,
		.bias = l->router_bias,
	};
	const struct kn_matmul route_job = {
		.w = &l->router.w, .out = r->buf[B_ROUTE], .ld_out = hp->n_expert, .bias = l->router.bias
	};
	struct block_in rows = *in;

	if (router.top_k)
		rows = (struct block_in){ .x = model_block_rows(r, in) };
	if (hp->layer[il].n_ff)
		gated(r, il, hp->layer[il].n_ff, &rows, dest, flags);
	if (!router.top_k)
		return;
	if (!hp->layer[il].n_ff && !(flags & KN_ACCUMULATE)) /* what experts add to */
		r->ops->clear(r->be, dest, hp->n_embd, r->n_tokens, hp->n_embd);
	r->ops->matmul(r->be, &route_job, 1, rows.x, hp->n_embd, r->n_tokens);
	r->ops->route(r->be, &router, r->buf[B_ROUTE], r->n_tokens, r->expert_ids, r->buf[B_WEIGHTS]);
	r->ops->moe(r->be, &l->moe, dest, hp->n_embd, rows.x, hp->n_embd, r->n_tokens, hp->n_embd, router.top_k,
	            r->expert_ids, r->buf[B_WEIGHTS]);
}
