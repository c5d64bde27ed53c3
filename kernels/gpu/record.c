/* The table's operations: each puts down what it was asked for and returns. Pointers are resolved to allocations,
 * numbers of rows and host arrays to slots of the step, so that two steps of one form give the same bytes here. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "gpu/backend.h"

enum { PICK_ROOM = 512 }; /* scratch for picks grows by so many rows: whenever it does, programs are made anew */

/* ---- Putting down ---- */

static void finish_gather(struct gpu_backend *be);

/* A zeroed record behind the others; its place may move with the next. NULL: no memory. */
static void *push(struct gpu_backend *be, enum gpu_op op, size_t bytes)
{
	size_t words = (bytes + 7) / 8;
	struct rec_head *h;

	if (be->n_words + words > be->cap_words) {
		size_t cap = be->cap_words ? 2 * be->cap_words : 1 << 14;
		uint64_t *grown = realloc(be->words, cap * sizeof(*grown));

		if (!grown) {
			gpu_fail(be, -ENOMEM, "recording");
			return NULL;
		}
		be->words = grown;
		be->cap_words = cap;
	}
	h = (struct rec_head *)(be->words + be->n_words);
	memset(h, 0, words * 8);
	h->op = (uint8_t)op;
	h->rows = h->ints = h->batch = NO_SLOT;
	h->words = (uint32_t)words;
	be->last_rec = (uint32_t)be->n_words;
	be->n_words += words;
	return h;
}

/* Where slots or places run out, what there is so far is run. */
static uint16_t rows_slot(struct gpu_backend *be, size_t n)
{
	uint16_t slot = gpu_step_rows(be, n);

	if (slot == NO_SLOT) {
		gpu_flush(be);
		slot = gpu_step_rows(be, n);
	}
	return slot;
}

/* A record of n rows, behind what waited for it. NULL: nothing to do, or no memory. */
void *gpu_record_rows(struct gpu_backend *be, enum gpu_op op, size_t bytes, size_t n)
{
	struct rec_head *h;
	uint16_t rows;

	finish_gather(be);
	if (n == 0)
		return NULL;
	rows = rows_slot(be, n);
	h = push(be, op, bytes);
	if (h)
		h->rows = rows;
	return h;
}

/* The same with an array of one value for each row. */
static void *record_ints(struct gpu_backend *be, enum gpu_op op, size_t bytes, const int32_t *values, size_t n)
{
	struct rec_head *h;
	uint16_t rows, ints;

	finish_gather(be);
	if (n == 0)
		return NULL;
	rows = rows_slot(be, n);
	ints = gpu_step_ints(be, values, n, rows);
	if (ints == NO_SLOT) {
		gpu_flush(be);
		rows = rows_slot(be, n);
		ints = gpu_step_ints(be, values, n, rows);
	}
	h = push(be, op, bytes);
	if (h) {
		h->rows = rows;
		h->ints = ints;
	}
	return h;
}

/* The same for the rows of sequences. kv NULL: its pages are not asked for. */
static void *record_batch(struct gpu_backend *be, enum gpu_op op, size_t bytes, const struct kn_seq *seqs,
                          size_t n_seqs, const struct kn_kv *kv, uint32_t group)
{
	uint32_t page_tokens = kv ? kv->page_tokens : 0, n_kv_head = group ? kv->n_kv_head : 0;
	struct rec_head *h;
	uint16_t rows, batch;
	size_t n = 0;

	finish_gather(be);
	if (n_seqs == 0)
		return NULL;
	for (size_t i = 0; i < n_seqs; i++)
		n = seqs[i].row + seqs[i].n_q > n ? seqs[i].row + seqs[i].n_q : n;
	rows = rows_slot(be, n);
	batch = gpu_step_batch(be, seqs, n_seqs, page_tokens, n_kv_head, group);
	if (batch == NO_SLOT) {
		gpu_flush(be);
		rows = rows_slot(be, n);
		batch = gpu_step_batch(be, seqs, n_seqs, page_tokens, n_kv_head, group);
	}
	h = push(be, op, bytes);
	if (h) {
		h->rows = rows;
		h->batch = batch;
	}
	return h;
}

/* The rows' bound may not be beyond what the allocation holds. */
static struct gpu_act act(struct gpu_backend *be, const float *p, size_t ld, size_t width, uint16_t rows,
                          const char *op)
{
	struct gpu_act a = { .alloc = gpu_heap_find(&be->heap, p), .ld = (uint32_t)ld };
	const struct gpu_alloc *alloc;
	uint64_t room;

	if (a.alloc == UINT32_MAX) {
		gpu_fail(be, -EFAULT, op);
		return (struct gpu_act){ .alloc = NO_ACT };
	}
	alloc = &be->heap.allocs[a.alloc];
	a.off = (uint64_t)((const char *)p - alloc->base) / sizeof(float);
	if (rows == NO_SLOT)
		return a;
	room = alloc->bytes / sizeof(float) - a.off;
	room = room < width ? 0 : (room - width) / (ld ? ld : 1) + 1;
	if (room < be->step.rows[rows].least_room)
		be->step.rows[rows].least_room = (uint32_t)room;
	return a;
}

static const struct gpu_mat *mat_of(const struct kn_mat *m)
{
	return m->packed;
}

static void set_kv(struct gk_kv *to, const struct kn_kv *kv)
{
	to->dtype = kv->dtype;
	to->n_kv_head = kv->n_kv_head;
	to->k_dim = kv->k_dim;
	to->v_dim = kv->v_dim;
	to->page_tokens = kv->page_tokens;
	to->k = kv->k;
	to->v = kv->v;
	to->k_scale = kv->k_scale;
	to->v_scale = kv->v_scale;
}

static uint32_t max_u32(uint32_t a, uint32_t b)
{
	return a > b ? a : b;
}

/* ---- Operations ---- */

static void rec_embed(struct kn_backend *base, float *out, size_t ld_out, const struct kn_mat *m, const int32_t *ids,
                      size_t n, float scale)
{
	struct gpu_backend *be = gpu_of(base);
	struct rec_embed *r = record_ints(be, OP_EMBED, sizeof(*r), ids, n);

	if (!r)
		return;
	r->out = act(be, out, ld_out, m->cols, r->h.rows, "embed");
	r->m = mat_of(m);
	r->m_id = r->m->id;
	r->picked = gpu_picks_drawn(be);
	r->scale = scale;
}

/* Norms of rows here and there, one after the other, into rows that follow each other (the outputs of a step) become
 * one with a list of the rows that they come from. The number of rows is known when something else comes: until then
 * the record has a list but no number. */
static struct rec_norm *last_norm(struct gpu_backend *be)
{
	union gpu_rec *last = be->last_rec == UINT32_MAX ? NULL : (union gpu_rec *)(be->words + be->last_rec);

	return last && last->h.op == OP_NORM ? &last->norm : NULL;
}

static bool is_open(const struct rec_norm *r)
{
	return r && r->h.ints != NO_SLOT && r->h.rows == NO_SLOT;
}

static void finish_gather(struct gpu_backend *be)
{
	struct rec_norm *r = last_norm(be);
	struct gpu_ints_slot *ints;

	if (!is_open(r))
		return;
	ints = &be->step.ints[r->h.ints];
	r->h.rows = ints->rows = gpu_step_rows(be, ints->n);
	if (r->h.rows == NO_SLOT) { /* start_gather() has kept one */
		gpu_fail(be, -ENOSPC, "rmsnorm");
		r->h.rows = ints->rows = 0;
		return;
	}
	(void)act(be, (const float *)be->heap.allocs[r->out.alloc].base + r->out.off, r->out.ld, r->dim, r->h.rows,
	          "rmsnorm");
}

static void append_rows(struct gpu_backend *be, uint16_t slot, uint64_t first, uint64_t n)
{
	for (uint64_t i = 0; i < n; i++)
		gpu_step_ints_append(be, slot, (int32_t)(first + i));
}

/* The slot of a list yet to be filled, with a place for its number of rows. NO_SLOT: there is none left. */
static uint16_t start_gather(struct gpu_backend *be)
{
	return be->step.n_rows + 1 < MAX_ROW_SLOTS ? gpu_step_ints(be, NULL, 0, 0) : NO_SLOT;
}

/* The norm `next` goes on where the last one ended. */
static bool extends(const struct gpu_backend *be, const struct rec_norm *last, const struct rec_norm *next)
{
	uint32_t n;

	if (!last)
		return false;
	n = is_open(last) ? be->step.ints[last->h.ints].n : be->step.rows[last->h.rows].n;
	return last->out.alloc == next->out.alloc && last->out.ld == next->out.ld && last->x.alloc == next->x.alloc &&
	       last->x.ld == next->x.ld && last->w == next->w && last->b == next->b && last->n_head == 1 &&
	       last->dim == next->dim && last->eps == next->eps && last->is_layernorm == next->is_layernorm &&
	       (is_open(last) || last->h.ints == NO_SLOT) &&
	       last->out.off + (uint64_t)n * last->out.ld == next->out.off;
}

static bool extend(struct gpu_backend *be, const struct rec_norm *next, size_t n)
{
	struct rec_norm *last = last_norm(be);

	if (!extends(be, last, next))
		return false;
	if (!is_open(last)) {
		uint32_t had = be->step.rows[last->h.rows].n;
		uint64_t first = last->x.off / last->x.ld;
		uint16_t slot = start_gather(be);

		if (slot == NO_SLOT)
			return false;
		append_rows(be, slot, first, had);
		last->h.ints = slot;
		last->h.rows = NO_SLOT;
		last->x.off = 0;
	}
	append_rows(be, last->h.ints, next->x.off / next->x.ld, n);
	return true;
}

static void record_norm(struct gpu_backend *be, struct rec_norm *next, const float *out, const float *x, size_t n)
{
	const char *op = next->is_layernorm ? "layernorm" : "rmsnorm";
	size_t width = (size_t)next->n_head * next->dim;
	uint16_t ints = NO_SLOT, rows = NO_SLOT;
	struct rec_norm *r;
	bool gathers;

	if (n == 0)
		return;
	next->out = act(be, out, next->out.ld, width, NO_SLOT, op);
	next->x = act(be, x, next->x.ld, width, NO_SLOT, op);
	if (next->out.alloc == NO_ACT || next->x.alloc == NO_ACT)
		return;
	/* Rows of x are counted from the beginning of its allocation. */
	gathers = next->out.alloc != next->x.alloc && next->n_head == 1 && next->x.ld > 0 &&
	          next->x.off % next->x.ld == 0;
	if (gathers && extend(be, next, n))
		return;
	finish_gather(be);
	if (gathers && next->x.off > 0)
		ints = start_gather(be);
	if (ints == NO_SLOT) {
		rows = rows_slot(be, n);
		(void)act(be, out, next->out.ld, width, rows, op);
		(void)act(be, x, next->x.ld, width, rows, op);
	}
	r = push(be, OP_NORM, sizeof(*r));
	if (!r)
		return;
	next->h = r->h;
	*r = *next;
	r->h.rows = rows;
	r->h.ints = ints;
	if (ints != NO_SLOT) {
		append_rows(be, ints, r->x.off / r->x.ld, n);
		r->x.off = 0;
	}
}

static void rec_rmsnorm(struct kn_backend *base, float *out, size_t ld_out, const float *x, size_t ld_x, const float *w,
                        size_t n, size_t n_head, size_t dim, float eps)
{
	struct rec_norm r = { .out.ld = (uint32_t)ld_out,
		              .x.ld = (uint32_t)ld_x,
		              .w = w,
		              .n_head = (uint32_t)n_head,
		              .dim = (uint32_t)dim,
		              .eps = eps };

	record_norm(gpu_of(base), &r, out, x, n);
}

static void rec_layernorm(struct kn_backend *base, float *out, size_t ld_out, const float *x, size_t ld_x,
                          const float *w, const float *b, size_t n, size_t dim, float eps)
{
	struct rec_norm r = { .out.ld = (uint32_t)ld_out,
		              .x.ld = (uint32_t)ld_x,
		              .w = w,
		              .b = b,
		              .n_head = 1,
		              .dim = (uint32_t)dim,
		              .eps = eps,
		              .is_layernorm = true };

	record_norm(gpu_of(base), &r, out, x, n);
}

static void rec_matmul(struct kn_backend *base, const struct kn_matmul *jobs, size_t n_jobs, const float *x,
                       size_t ld_x, size_t n)
{
	struct gpu_backend *be = gpu_of(base);

	for (size_t first = 0; first < n_jobs; first += GK_MAX_JOBS) {
		size_t n_here = n_jobs - first < GK_MAX_JOBS ? n_jobs - first : GK_MAX_JOBS;
		struct rec_matmul *r = gpu_record_rows(be, OP_MATMUL, sizeof(*r) + n_here * sizeof(r->job[0]), n);

		if (!r)
			return;
		r->h.n_jobs = (uint8_t)n_here;
		r->answer_rows = base->tells_prompts && base->n_answer_rows < n ? base->n_answer_rows : ALL_ANSWERS;
		r->x = act(be, x, ld_x, jobs[first].w->cols, r->h.rows, "matmul");
		for (size_t i = 0; i < n_here; i++) {
			const struct kn_matmul *j = &jobs[first + i];

			r->job[i].m = mat_of(j->w);
			r->job[i].m_id = r->job[i].m->id;
			r->job[i].out = act(be, j->out, j->ld_out, j->w->rows, r->h.rows, "matmul");
			r->job[i].bias = j->bias;
			r->job[i].accumulate = (j->flags & KN_ACCUMULATE) != 0;
			if (j->flags & KN_AMONG_ROWS)
				be->step.rows[r->h.rows].is_exact = true;
		}
	}
}

static void rec_rope(struct kn_backend *base, float *x, size_t ld_x, size_t n, size_t n_head, size_t head_dim,
                     const struct kn_rope *rope, const int32_t *pos)
{
	struct gpu_backend *be = gpu_of(base);
	struct rec_rope *r = record_ints(be, OP_ROPE, sizeof(*r), pos, n);

	if (!r)
		return;
	r->x = act(be, x, ld_x, n_head * head_dim, r->h.rows, "rope");
	r->n_head = (uint32_t)n_head;
	r->head_dim = (uint32_t)head_dim;
	r->rope.inv_freq = rope->inv_freq;
	r->rope.n_rot = rope->n_rot;
	r->rope.offset = rope->offset;
	r->rope.scale = rope->scale;
	r->rope.interleaved = rope->interleaved;
}

static void rec_kv_store(struct kn_backend *base, const struct kn_kv *kv, const float *k, size_t ld_k, const float *v,
                         size_t ld_v, const struct kn_seq *seqs, size_t n_seqs)
{
	struct gpu_backend *be = gpu_of(base);
	struct rec_kv_store *r = record_batch(be, OP_KV_STORE, sizeof(*r), seqs, n_seqs, kv, 0);

	if (!r)
		return;
	r->k = act(be, k, ld_k, (size_t)kv->n_kv_head * kv->k_dim, r->h.rows, "kv_store");
	r->v.alloc = NO_ACT;
	if (kv->v)
		r->v = act(be, v, ld_v, (size_t)kv->n_kv_head * kv->v_dim, r->h.rows, "kv_store");
	set_kv(&r->kv, kv);
}

static void rec_attention(struct kn_backend *base, float *out, size_t ld_out, const float *q, size_t ld_q,
                          const struct kn_kv *kv, const struct kn_seq *seqs, size_t n_seqs, const struct kn_attn *attn)
{
	struct gpu_backend *be = gpu_of(base);
	struct rec_attention *r =
	        record_batch(be, OP_ATTENTION, sizeof(*r), seqs, n_seqs, kv, attn->n_head / kv->n_kv_head);

	if (!r)
		return;
	r->out = act(be, out, ld_out, (size_t)attn->n_head * kv->v_dim, r->h.rows, "attention");
	r->q = act(be, q, ld_q, (size_t)attn->n_head * kv->k_dim, r->h.rows, "attention");
	set_kv(&r->kv, kv);
	r->sinks = attn->sinks;
	r->n_head = attn->n_head;
	r->window = attn->window;
	r->scale = attn->scale;
	r->softcap = attn->softcap;
	be->limits.n_head = max_u32(be->limits.n_head, attn->n_head);
	be->limits.n_kv_head = max_u32(be->limits.n_kv_head, kv->n_kv_head);
	be->limits.k_dim = max_u32(be->limits.k_dim, kv->k_dim);
	be->limits.v_dim = max_u32(be->limits.v_dim, kv->v_dim);
}

static void rec_act_mul(struct kn_backend *base, enum kn_act kind, float *out, size_t ld_out, const float *gate,
                        size_t ld_gate, const float *up, size_t ld_up, size_t n, size_t dim)
{
	struct gpu_backend *be = gpu_of(base);
	struct rec_act *r = gpu_record_rows(be, OP_ACT, sizeof(*r), n);

	if (!r)
		return;
	r->out = act(be, out, ld_out, dim, r->h.rows, "act_mul");
	r->gate = act(be, gate, ld_gate, dim, r->h.rows, "act_mul");
	r->up.alloc = NO_ACT;
	if (up && kind != KN_ACT_GELU)
		r->up = act(be, up, ld_up, dim, r->h.rows, "act_mul");
	r->act = kind;
	r->dim = (uint32_t)dim;
}

static void rec_add(struct kn_backend *base, float *x, size_t ld_x, const float *y, size_t ld_y, size_t n, size_t dim,
                    float scale)
{
	struct gpu_backend *be = gpu_of(base);
	struct rec_add *r = gpu_record_rows(be, OP_ADD, sizeof(*r), n);

	if (!r)
		return;
	r->x = act(be, x, ld_x, dim, r->h.rows, "add");
	r->y = act(be, y, ld_y, dim, r->h.rows, "add");
	r->dim = (uint32_t)dim;
	r->scale = scale;
}

static void rec_route(struct kn_backend *base, const struct kn_router *router, const float *logits, size_t n,
                      int32_t *ret_ids, float *ret_weights)
{
	struct gpu_backend *be = gpu_of(base);
	struct rec_route *r = gpu_record_rows(be, OP_ROUTE, sizeof(*r), n);

	if (!r)
		return;
	r->logits = act(be, logits, router->n_expert, router->n_expert, r->h.rows, "route");
	/* Chosen experts and their weights are never typed, but take part in how many rows there is room for. */
	(void)act(be, (const float *)ret_ids, router->top_k, router->top_k, r->h.rows, "route");
	(void)act(be, ret_weights, router->top_k, router->top_k, r->h.rows, "route");
	r->ids = ret_ids;
	r->weights = ret_weights;
	r->bias = router->bias;
	r->kind = router->kind;
	r->n_expert = router->n_expert;
	r->top_k = router->top_k;
	r->n_group = router->n_group;
	r->top_group = router->top_group;
	r->normalize = router->normalize;
	r->scale = router->scale;
}

static void rec_moe(struct kn_backend *base, const struct kn_moe *moe, float *out, size_t ld_out, const float *x,
                    size_t ld_x, size_t n, size_t dim, uint32_t top_k, const int32_t *ids, const float *weights)
{
	struct gpu_backend *be = gpu_of(base);
	const struct gk_mat *gate, *up, *down;
	struct rec_moe *r;

	finish_gather(be);
	if (n == 0)
		return;
	gate = gpu_mat_table_of(be, moe->gate, moe->n_expert);
	up = gpu_mat_table_of(be, moe->up, moe->n_expert);
	down = gpu_mat_table_of(be, moe->down, moe->n_expert);
	if (!gate || !up || !down) {
		gpu_fail(be, -ENOMEM, "moe");
		return;
	}
	r = gpu_record_rows(be, OP_MOE, sizeof(*r), n);
	if (!r)
		return;
	r->out = act(be, out, ld_out, dim, r->h.rows, "moe");
	r->x = act(be, x, ld_x, dim, r->h.rows, "moe");
	r->gate = gate;
	r->up = up;
	r->down = down;
	r->gate_bias = moe->gate_bias;
	r->up_bias = moe->up_bias;
	r->down_bias = moe->down_bias;
	r->ids = ids;
	r->weights = weights;
	r->n_expert = moe->n_expert;
	r->first_expert = moe->first_expert;
	r->n_ff = moe->n_ff;
	r->dim = (uint32_t)dim;
	r->top_k = top_k;
	r->act = moe->act;
	r->type_gate = moe->gate[0].dtype;
	r->type_up = moe->up[0].dtype;
	r->type_down = moe->down[0].dtype;
	be->limits.dim = max_u32(be->limits.dim, (uint32_t)dim);
	be->limits.n_ff = max_u32(be->limits.n_ff, moe->n_ff);
	be->limits.n_expert = max_u32(be->limits.n_expert, moe->n_expert);
	be->limits.top_k = max_u32(be->limits.top_k, top_k);
}

static void rec_pick(struct kn_backend *base, const float *logits, size_t ld, size_t n, size_t n_vocab, float softcap,
                     const struct kn_pick *picks, uint32_t n_best, struct kn_best *ret_best, struct kn_picked *ret)
{
	struct gpu_backend *be = gpu_of(base);
	struct gk_pick at = { 0 };
	uint16_t rows;
	struct rec_pick *r;
	int e;

	finish_gather(be);
	if (n == 0)
		return;
	if (gpu_picks_collide(be, n))
		gpu_flush(be);
	rows = rows_slot(be, n);
	e = gpu_picks_begin(be, picks, n, n_best, ret_best, ret, &at);
	if (e < 0) {
		gpu_fail(be, e, "pick");
		return;
	}
	r = push(be, OP_PICK, sizeof(*r));
	if (!r)
		return;
	r->h.rows = rows;
	r->logits = act(be, logits, ld, n_vocab, rows, "pick");
	r->picks = at.picks;
	r->best = at.best;
	r->picked = at.picked;
	r->n_vocab = (uint32_t)n_vocab;
	r->n_best = n_best;
	r->softcap = softcap;
	for (size_t i = 0; i < n; i++)
		r->filters |= kn_pick_filters(&picks[i]);
	be->limits.pick_rows = max_u32(be->limits.pick_rows, ((uint32_t)n + PICK_ROOM - 1) / PICK_ROOM * PICK_ROOM);
	be->limits.pick_vocab = max_u32(be->limits.pick_vocab, (uint32_t)n_vocab);
	be->limits.pick_best = max_u32(be->limits.pick_best, r->filters ? KN_MAX_BEST : n_best);
}

/* ---- For record_recurrent.c ---- */

void *gpu_record_batch(struct gpu_backend *be, enum gpu_op op, size_t bytes, const struct kn_seq *seqs, size_t n_seqs)
{
	return record_batch(be, op, bytes, seqs, n_seqs, NULL, 0);
}

struct gpu_act gpu_record_act(struct gpu_backend *be, const float *p, size_t ld, size_t width, uint16_t rows,
                              const char *op)
{
	return act(be, p, ld, width, rows, op);
}

void gpu_record_finish(struct gpu_backend *be)
{
	finish_gather(be);
}

void gpu_record_ops(struct kn_ops *ops)
{
	ops->embed = rec_embed;
	ops->rmsnorm = rec_rmsnorm;
	ops->layernorm = rec_layernorm;
	ops->matmul = rec_matmul;
	ops->rope = rec_rope;
	ops->kv_store = rec_kv_store;
	ops->attention = rec_attention;
	ops->act_mul = rec_act_mul;
	ops->add = rec_add;
	ops->route = rec_route;
	ops->moe = rec_moe;
	ops->pick = rec_pick;
	gpu_record_recurrent_ops(ops);
	gpu_record_comm_ops(ops);
}
