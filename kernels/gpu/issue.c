/* Launches of a compiled program: records become the structs of launch.h, with real addresses and element types. */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "gpu/backend.h"
#include "gpu/comm.h"
#include "gpu/issue.h"

static const char *const op_names[N_OPS] = { "embed",      "norm",          "matmul",    "rope",
	                                     "kv_store",   "attention",     "act_mul",   "add",
	                                     "route",      "moe",           "pick",      "conv_silu",
	                                     "delta_rule", "gated_rmsnorm", "gate_rows", "comm" };

struct gk_view gpu_view_of(const struct gpu_backend *be, const struct gpu_program *p, const struct gpu_act *a)
{
	struct gk_view v = { .ld = a->ld };

	if (a->alloc == NO_ACT)
		return v;
	if (p->place[a->alloc].ld) {
		const struct gpu_place *at = &p->place[a->alloc];

		v.elem = GK_BF16;
		v.p = be->heap.allocs[at->home].base + (size_t)at->column * 2;
		v.ld = at->ld;
		return v;
	}
	v.elem = p->is_bf16[a->alloc] ? GK_BF16 : GK_F32;
	v.p = be->heap.allocs[a->alloc].base + a->off * (v.elem == GK_BF16 ? 2 : 4);
	return v;
}

int gpu_issue_norm(struct gpu_backend *be, const struct gpu_program *p, const struct rec_norm *n)
{
	struct gk_norm k = { .out = gpu_view_of(be, p, &n->out),
		             .x = gpu_view_of(be, p, &n->x),
		             .src = gpu_ints_of(be, n->h.ints),
		             .w = n->w,
		             .b = n->b,
		             .rows = gpu_rows_of(be, n->h.rows),
		             .n_head = n->n_head,
		             .dim = n->dim,
		             .eps = n->eps };

	return n->is_layernorm ? gk_layernorm(&be->ctx, &k) : gk_rmsnorm(&be->ctx, &k);
}

int gpu_issue_maker(struct gpu_backend *be, const struct gpu_program *p, const union gpu_rec *rec)
{
	if (rec->h.op == OP_NORM)
		return gpu_issue_norm(be, p, &rec->norm);
	return gk_act_mul(&be->ctx, rec->act.act, gpu_view_of(be, p, &rec->act.out), gpu_view_of(be, p, &rec->act.gate),
	                  gpu_view_of(be, p, &rec->act.up), gpu_rows_of(be, rec->h.rows), rec->act.dim);
}

static int issue_embed(struct gpu_backend *be, const struct gpu_program *p, const struct rec_embed *e)
{
	return gk_embed(&be->ctx, gpu_view_of(be, p, &e->out), &e->m->m, gpu_ints_of(be, e->h.ints), e->picked,
	                gpu_rows_of(be, e->h.rows), e->scale);
}

static int issue_rope(struct gpu_backend *be, const struct gpu_program *p, const struct rec_rope *r)
{
	return gk_rope(&be->ctx, gpu_view_of(be, p, &r->x), gpu_rows_of(be, r->h.rows), r->n_head, r->head_dim,
	               &r->rope, gpu_ints_of(be, r->h.ints));
}

static int issue_kv_store(struct gpu_backend *be, const struct gpu_program *p, const struct rec_kv_store *s)
{
	struct gk_batch batch;

	gpu_batch_of(be, s->h.batch, &batch);
	return gk_kv_store(&be->ctx, &s->kv, gpu_view_of(be, p, &s->k), gpu_view_of(be, p, &s->v), &batch);
}

/* Whether what attention number `index` reads, but for its sequences' new tokens, was stored before this program: it
 * asks for the sequences that were stored (an encoder's rows are sequences of their own). */
static bool keys_are_older(const struct gpu_program *p, uint32_t index)
{
	const struct rec_attention *a = &p->recs[index]->attention;

	while (index-- > 0) {
		const union gpu_rec *rec = p->recs[index];

		if (rec->h.op == OP_KV_STORE && rec->kv_store.kv.k == a->kv.k)
			return rec->h.batch == a->h.batch;
	}
	return false;
}

static int issue_attention(struct gpu_backend *be, const struct gpu_program *p, uint32_t index)
{
	const struct rec_attention *a = &p->recs[index]->attention;
	struct gk_batch batch;
	struct gk_attention k = { .out = gpu_view_of(be, p, &a->out),
		                  .q = gpu_view_of(be, p, &a->q),
		                  .kv = a->kv,
		                  .batch = &batch,
		                  .n_head = a->n_head,
		                  .window = a->window,
		                  .scale = a->scale,
		                  .softcap = a->softcap,
		                  .sinks = a->sinks,
		                  .exact = be->exact,
		                  .keys_are_older = keys_are_older(p, index) };

	gpu_batch_of(be, a->h.batch, &batch);
	return gk_attention(&be->ctx, &k);
}

static struct kn_router router_of(const struct rec_route *r)
{
	return (struct kn_router){ .kind = r->kind,
		                   .n_expert = r->n_expert,
		                   .top_k = r->top_k,
		                   .n_group = r->n_group,
		                   .top_group = r->top_group,
		                   .normalize = r->normalize,
		                   .scale = r->scale,
		                   .bias = r->bias };
}

static int issue_route(struct gpu_backend *be, const struct gpu_program *p, const struct rec_route *r)
{
	const struct kn_router router = router_of(r);

	return gk_route(&be->ctx, &router, gpu_view_of(be, p, &r->logits).p, gpu_rows_of(be, r->h.rows), r->ids,
	                r->weights);
}

static struct gk_moe moe_of(const struct gpu_backend *be, const struct gpu_program *p, const struct rec_moe *m)
{
	return (struct gk_moe){ .x = gpu_view_of(be, p, &m->x),
		                .out = gpu_view_of(be, p, &m->out),
		                .rows = gpu_rows_of(be, m->h.rows),
		                .n_expert = m->n_expert,
		                .first_expert = m->first_expert,
		                .n_ff = m->n_ff,
		                .dim = m->dim,
		                .top_k = m->top_k,
		                .act = m->act,
		                .type_gate = m->type_gate,
		                .type_up = m->type_up,
		                .type_down = m->type_down,
		                .gate = m->gate,
		                .up = m->up,
		                .down = m->down,
		                .gate_bias = m->gate_bias,
		                .up_bias = m->up_bias,
		                .down_bias = m->down_bias,
		                .ids = m->ids,
		                .weights = m->weights,
		                .exact = be->exact };
}

static int issue_moe(struct gpu_backend *be, const struct gpu_program *p, const struct rec_moe *m)
{
	const struct gk_moe k = moe_of(be, p, m);

	return gk_moe(&be->ctx, &k);
}

static int issue_pick(struct gpu_backend *be, const struct gpu_program *p, const struct rec_pick *r)
{
	const struct gk_pick k = { .logits = gpu_view_of(be, p, &r->logits),
		                   .rows = gpu_rows_of(be, r->h.rows),
		                   .n_vocab = r->n_vocab,
		                   .n_best = r->n_best,
		                   .softcap = r->softcap,
		                   .filters = r->filters,
		                   .picks = r->picks,
		                   .best = r->best,
		                   .picked = r->picked };

	return gk_pick_rows(&be->ctx, &k);
}

static int issue_conv(struct gpu_backend *be, const struct gpu_program *p, const struct rec_conv *r)
{
	struct gk_batch batch;
	const struct gk_conv k = { .out = gpu_view_of(be, p, &r->out),
		                   .x = gpu_view_of(be, p, &r->x),
		                   .batch = &batch,
		                   .n_channels = r->n_channels,
		                   .kernel = r->kernel,
		                   .w = r->w,
		                   .state = r->state,
		                   .ld_state = r->ld_state };

	gpu_batch_of(be, r->h.batch, &batch);
	return gk_conv_silu(&be->ctx, &k);
}

static int issue_delta(struct gpu_backend *be, const struct gpu_program *p, const struct rec_delta *r)
{
	struct gk_batch batch;
	const struct gk_delta k = { .out = gpu_view_of(be, p, &r->out),
		                    .qkv = gpu_view_of(be, p, &r->qkv),
		                    .ba = gpu_view_of(be, p, &r->ba),
		                    .batch = &batch,
		                    .n_k_head = r->n_k_head,
		                    .n_v_head = r->n_v_head,
		                    .k_dim = r->k_dim,
		                    .v_dim = r->v_dim,
		                    .decay = r->decay,
		                    .dt_bias = r->dt_bias,
		                    .eps = r->eps,
		                    .state = r->state,
		                    .ld_state = r->ld_state };

	gpu_batch_of(be, r->h.batch, &batch);
	return gk_delta_rule(&be->ctx, &k);
}

static int issue_gated_norm(struct gpu_backend *be, const struct gpu_program *p, const struct rec_gated_norm *r)
{
	const struct gk_gated_norm k = { .out = gpu_view_of(be, p, &r->out),
		                         .x = gpu_view_of(be, p, &r->x),
		                         .gate = gpu_view_of(be, p, &r->gate),
		                         .w = r->w,
		                         .rows = gpu_rows_of(be, r->h.rows),
		                         .n_head = r->n_head,
		                         .dim = r->dim,
		                         .eps = r->eps };

	return gk_gated_rmsnorm(&be->ctx, &k);
}

static int issue_add_norm(struct gpu_backend *be, const struct gpu_program *p, const struct gpu_launch *launch)
{
	const struct rec_add *a = &p->recs[launch->first]->add;
	const struct rec_norm *n = &p->recs[launch->first + 1]->norm;
	const struct gk_norm k = { .out = gpu_view_of(be, p, &n->out),
		                   .x = gpu_view_of(be, p, &n->x),
		                   .w = n->w,
		                   .rows = gpu_rows_of(be, n->h.rows),
		                   .n_head = 1,
		                   .dim = n->dim,
		                   .eps = n->eps,
		                   .add = gpu_view_of(be, p, &a->y),
		                   .add_scale = a->scale };

	return gk_rmsnorm(&be->ctx, &k);
}

static int issue_one(struct gpu_backend *be, const struct gpu_program *p, const struct gpu_launch *launch)
{
	const union gpu_rec *rec = p->recs[launch->first];
	struct gk_rows rows = gpu_rows_of(be, rec->h.rows);

	switch ((enum gpu_op)rec->h.op) {
	case OP_EMBED:
		return issue_embed(be, p, &rec->embed);
	case OP_NORM:
		return gpu_issue_norm(be, p, &rec->norm);
	case OP_MATMUL:
		return gpu_issue_matmul(be, p, launch);
	case OP_ROPE:
		return issue_rope(be, p, &rec->rope);
	case OP_KV_STORE:
		return issue_kv_store(be, p, &rec->kv_store);
	case OP_ATTENTION:
		return issue_attention(be, p, launch->first);
	case OP_ACT:
		return gk_act_mul(&be->ctx, rec->act.act, gpu_view_of(be, p, &rec->act.out),
		                  gpu_view_of(be, p, &rec->act.gate), gpu_view_of(be, p, &rec->act.up), rows,
		                  rec->act.dim);
	case OP_ADD:
		return gk_add(&be->ctx, gpu_view_of(be, p, &rec->add.x), gpu_view_of(be, p, &rec->add.y), rows,
		              rec->add.dim, rec->add.scale);
	case OP_ROUTE:
		return issue_route(be, p, &rec->route);
	case OP_MOE:
		return issue_moe(be, p, &rec->moe);
	case OP_PICK:
		return issue_pick(be, p, &rec->pick);
	case OP_CONV:
		return issue_conv(be, p, &rec->conv);
	case OP_DELTA:
		return issue_delta(be, p, &rec->delta);
	case OP_GATED_NORM:
		return issue_gated_norm(be, p, &rec->gated_norm);
	case OP_GATE_ROWS:
		return gk_gate_rows(&be->ctx, gpu_view_of(be, p, &rec->gate_rows.x),
		                    gpu_view_of(be, p, &rec->gate_rows.gate), rows, (uint32_t)rec->gate_rows.dim);
	case OP_COMM:
		return gpu_comm_issue(be, p, &rec->comm, gpu_view_of(be, p, &rec->comm.x), rows);
	case N_OPS:
		break;
	}
	return -EINVAL;
}

static int issue_parts(struct gpu_backend *be, const struct gpu_program *p, const struct gpu_launch *launch)
{
	int r = 0;

	for (uint32_t i = 0; i < launch->n && r == 0; i++) {
		const struct gpu_launch one = { .first = launch->first + i, .norm = UINT32_MAX };

		r = issue_one(be, p, &one);
	}
	return r;
}

static int issue_qkv(struct gpu_backend *be, const struct gpu_program *p, const struct gpu_launch *launch)
{
	struct gpu_qkv_parts q;
	struct gk_batch batch;
	struct gk_qkv k;
	int r;

	(void)gpu_qkv_parts(p->recs, launch->first, p->n_recs, &q);
	gpu_batch_of(be, q.store->h.batch, &batch);
	k = (struct gk_qkv){ .q = gpu_view_of(be, p, &q.rope_q->x),
		             .k = gpu_view_of(be, p, &q.store->k),
		             .v = gpu_view_of(be, p, &q.store->v),
		             .n_head = q.rope_q->n_head,
		             .head_dim = q.rope_q->head_dim,
		             .q_norm = q.q_norm ? q.q_norm->w : NULL,
		             .k_norm = q.k_norm ? q.k_norm->w : NULL,
		             .norm_after_rope = q.norm_after_rope,
		             .eps = q.q_norm ? q.q_norm->eps : 0,
		             .rope = q.rope_q->rope,
		             .pos = gpu_ints_of(be, q.rope_q->h.ints),
		             .kv = q.store->kv,
		             .batch = &batch,
		             .rows = gpu_rows_of(be, q.rope_q->h.rows) };
	r = gk_qkv_store(&be->ctx, &k);
	return r == -ENOTSUP ? issue_parts(be, p, launch) : r;
}

/* The mixture that a launch is and that takes this choice. */
static const struct rec_moe *moe_after(const struct gpu_program *p, const struct gpu_launch *next,
                                       const struct rec_route *choice)
{
	const struct rec_moe *m = &p->recs[next->first]->moe;

	return next->kind == F_ONE && m->h.op == OP_MOE && m->ids == choice->ids && m->weights == choice->weights &&
	                       m->h.rows == choice->h.rows
	               ? m
	               : NULL;
}

/* next: the launch behind it, or NULL. *ret_n: how many of the two this was. */
static int issue_router(struct gpu_backend *be, const struct gpu_program *p, const struct gpu_launch *launch,
                        const struct gpu_launch *next, uint32_t *ret_n)
{
	const union gpu_rec *const *recs = p->recs + launch->first;
	const struct rec_norm *norm = launch->n == 3 ? &recs[0]->norm : NULL;
	const struct rec_matmul *m = &recs[launch->n - 2]->matmul;
	const struct rec_route *choice = &recs[launch->n - 1]->route;
	struct gk_router k = { .x = gpu_view_of(be, p, norm ? &norm->x : &m->x),
		               .rows = gpu_rows_of(be, m->h.rows),
		               .w = m->job[0].m->m,
		               .bias = m->job[0].bias,
		               .logits = gpu_view_of(be, p, &choice->logits).p,
		               .router = router_of(choice),
		               .ids = choice->ids,
		               .weights = choice->weights };
	const struct rec_moe *mixture = next ? moe_after(p, next, choice) : NULL;
	const struct gk_choice later = {
		.router = k.router, .logits = k.logits, .ids = choice->ids, .weights = choice->weights
	};
	struct gk_moe moe;
	int r;

	*ret_n = 1;
	if (mixture) {
		moe = moe_of(be, p, mixture);
		moe.choice = &later;
		if (gk_moe_chooses(&be->ctx, &moe))
			k.ids = NULL;
	}
	if (norm) {
		k.norm = true;
		k.norm_w = norm->w;
		k.eps = norm->eps;
		k.normed = gpu_view_of(be, p, &norm->out);
	}
	r = gk_route_product(&be->ctx, &k);
	if (r == -ENOTSUP)
		return issue_parts(be, p, launch);
	if (r < 0 || k.ids)
		return r;
	*ret_n = 2;
	return gk_moe(&be->ctx, &moe);
}

/* Which launch of how many. */
static void fail_at(struct gpu_backend *be, int error, const struct gpu_program *p, uint32_t launch)
{
	const struct rec_head *h = &p->recs[p->launches[launch].first]->h;
	char what[64];

	(void)snprintf(what, sizeof(what), "%s (launch %u of %u)", op_names[h->op], launch + 1, p->n_launches);
	gpu_fail(be, error, what);
}

int gpu_issue(struct gpu_backend *be, const struct gpu_program *p)
{
	int r = 0;

	for (uint32_t i = 0, n; i < p->n_launches && r == 0; i += n) {
		const struct gpu_launch *l = &p->launches[i];

		n = 1;
		if (l->kind == F_QKV)
			r = issue_qkv(be, p, l);
		else if (l->kind == F_ADD_NORM)
			r = issue_add_norm(be, p, l);
		else if (l->kind == F_ROUTER)
			r = issue_router(be, p, l, i + 1 < p->n_launches ? l + 1 : NULL, &n);
		else if (l->kind == F_BATCH)
			r = gpu_issue_batch(be, p, l);
		else
			r = issue_one(be, p, l);
		if (r < 0)
			fail_at(be, r, p, i);
	}
	return r;
}
