/* Launches of a compiled program: records become the structs of launch.h, with real addresses and element types. */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "gpu/backend.h"
#include "gpu/comm.h"
#include "gpu/gemm.h"

static const char *const op_names[N_OPS] = { "embed",      "norm",          "matmul",    "rope",
	                                     "kv_store",   "attention",     "act_mul",   "add",
	                                     "route",      "moe",           "pick",      "conv_silu",
	                                     "delta_rule", "gated_rmsnorm", "gate_rows", "comm" };

static struct gk_view view(const struct gpu_backend *be, const struct gpu_program *p, const struct gpu_act *a)
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

/* ---- Products ---- */

/* Whether the library may have it at all: so many rows; in deterministic mode, any number of rows of prompts. */
static bool is_for_library(const struct gpu_backend *be, const union gpu_rec *rec, const struct rec_job *job,
                           uint32_t from_rows)
{
	uint32_t rows = be->step.rows[rec->h.rows].bound;

	return be->gemm && !be->exact &&
	       (be->deterministic || (rows >= from_rows && (!job->bias || rows >= be->library_rows.biased)));
}

bool gpu_gemm_takes(const struct gpu_backend *be, const struct gpu_program *p, const union gpu_rec *rec,
                    const struct rec_job *job)
{
	(void)p;
	return job->m->m.type == KN_BF16 && is_for_library(be, rec, job, 0);
}

enum { FP8_STEP = 4 }; /* rows; in deterministic mode they are padded to it, and biases have no place there */

bool gpu_gemm8_takes(const struct gpu_backend *be, const union gpu_rec *rec, const struct rec_job *job)
{
	const struct gk_mat *w = &job->m->m;

	return w->type == KN_FP8_128 && is_for_library(be, rec, job, be->library_rows.eight_bits) &&
	       gpu_gemm8_known(be->gemm) && w->first_row == 0 && w->rows % 16 == 0 &&
	       (be->deterministic ? !job->bias : be->step.rows[rec->h.rows].bound % FP8_STEP == 0);
}

/* Memory of the backend's own that a launch needs. Not while a graph is captured: the launches before it would be lost.
 */
static int room(struct gpu_backend *be, char **p, size_t *have, size_t bytes)
{
	int r;

	if (bytes <= *have)
		return 0;
	if (be->capturing)
		return -ENOTSUP;
	r = gpu_rt_sync(&be->rt);
	if (r < 0)
		return r;
	gpu_rt_free(&be->rt, *p);
	*have = 0;
	be->is_stale = true;
	*p = gpu_rt_alloc(&be->rt, bytes);
	if (!*p)
		return -ENOMEM;
	*have = bytes;
	return 0;
}

/* x in another element type. */
static int convert_x(struct gpu_backend *be, struct gk_view *x, struct gk_rows rows, uint32_t width, uint32_t elem)
{
	uint32_t ld = (width + 7) & ~7u;
	struct gk_view to = { .elem = elem, .ld = ld };
	int r = room(be, &be->xbuf, &be->xbuf_bytes, (size_t)rows.bound * ld * 4);

	if (r < 0)
		return r;
	to.p = be->xbuf;
	r = gk_convert(&be->ctx, to, *x, rows, width);
	*x = to;
	return r;
}

static void set_job(const struct gpu_backend *be, const struct gpu_program *p, const struct rec_job *from,
                    struct gk_job *to)
{
	to->w = from->m->m;
	to->out = view(be, p, &from->out);
	to->bias = from->bias;
	to->accumulate = from->accumulate;
}

static int issue_norm(struct gpu_backend *be, const struct gpu_program *p, const struct rec_norm *n)
{
	struct gk_norm k = { .out = view(be, p, &n->out),
		             .x = view(be, p, &n->x),
		             .src = gpu_ints_of(be, n->h.ints),
		             .w = n->w,
		             .b = n->b,
		             .rows = gpu_rows_of(be, n->h.rows),
		             .n_head = n->n_head,
		             .dim = n->dim,
		             .eps = n->eps };

	return n->is_layernorm ? gk_layernorm(&be->ctx, &k) : gk_rmsnorm(&be->ctx, &k);
}

/* The library adds no bias: the output begins with it, or gets it added, and the product is summed up onto that. */
static int put_bias(struct gpu_backend *be, struct gk_job *job, struct gk_rows rows)
{
	const struct gk_view bias = { .p = (void *)job->bias, .elem = GK_F32, .ld = 0 /* the same for all rows */ };
	int r;

	if (!job->bias)
		return 0;
	r = job->accumulate ? gk_add(&be->ctx, job->out, bias, rows, job->w.rows, 1)
	                    : gk_convert(&be->ctx, job->out, bias, rows, job->w.rows);
	job->bias = NULL;
	job->accumulate = true;
	return r;
}

static int put_biases(struct gpu_backend *be, struct gk_job *jobs, uint32_t n, struct gk_rows rows)
{
	int r = 0;

	for (uint32_t i = 0; i < n && r == 0; i++)
		r = put_bias(be, &jobs[i], rows);
	return r;
}

/* b's rows follow a's, in memory as well. */
static bool follows(const struct gk_mat *a, const struct gk_mat *b)
{
	size_t elem = a->type == KN_FP8_128 ? 1 : 2;

	if (b->type != a->type || b->ld != a->ld ||
	    (const char *)b->values != (const char *)a->values + (size_t)a->rows * a->ld * elem)
		return false;
	return a->type == KN_BF16 ||
	       (a->type == KN_FP8_128 && a->rows % 128 == 0 && a->first_row == 0 && b->first_row == 0 &&
	        (const float *)b->scales ==
	                (const float *)a->scales + (size_t)gk_mat_scale_lines(a) * gk_mat_scale_stride(a));
}

/* How many jobs from `first` on are one product: weights behind one another, outputs side by side. Their rows of
 * weights into ret_n. */
static uint32_t joined(const struct rec_matmul *m, const struct gk_job *jobs, uint32_t first, uint32_t *ret_n)
{
	uint32_t i = first;

	*ret_n = jobs[first].w.rows;
	for (; i + 1 < m->h.n_jobs; i++) {
		const struct gk_job *a = &jobs[i], *b = &jobs[i + 1];

		if (!follows(&a->w, &b->w) || !a->bias != !b->bias || b->accumulate || a->accumulate ||
		    a->out.elem != GK_BF16 || b->out.elem != GK_BF16 || b->out.ld != a->out.ld ||
		    (char *)b->out.p != (char *)a->out.p + (size_t)a->w.rows * 2 || *ret_n + b->w.rows > a->out.ld)
			break;
		*ret_n += b->w.rows;
	}
	return i + 1 - first;
}

static int issue_gemm(struct gpu_backend *be, const struct gk_job *j, const struct gk_view *x, uint32_t rows,
                      uint32_t n)
{
	struct gpu_gemm_desc d = { .rows = rows,
		                   .n = n,
		                   .k = j->w.cols,
		                   .x = x->p,
		                   .w = j->w.values,
		                   .out = j->out.p,
		                   .ld_x = x->ld,
		                   .ld_w = j->w.ld,
		                   .ld_out = j->out.ld,
		                   .out_is_f32 = j->out.elem == GK_F32,
		                   .accumulate = j->accumulate };

	return gpu_gemm_run(be->gemm, &d);
}

/* x in eight bits, its scales behind it; once for all jobs of a product. */
struct rows8 {
	const void *q;
	const float *scale;
	uint32_t ld; /* 0: not made yet */
	uint32_t n;  /* rows with those that are none */
};

/* maker: the record that makes x on the way, or NULL. */
static int quantize_x(struct gpu_backend *be, const struct gpu_program *p, const struct gk_linear *l, uint32_t cols,
                      const union gpu_rec *maker, struct rows8 *ret)
{
	uint32_t ld = (cols + 63) & ~63u, bound = (l->rows.bound + FP8_STEP - 1) / FP8_STEP * FP8_STEP;
	size_t bytes = ((size_t)bound * ld + 255) & ~(size_t)255;
	struct gk_quantize k = { .ld = ld, .ld_scale = bound, .x = l->x, .rows = l->rows, .dim = cols };
	int r = room(be, &be->qbuf, &be->qbuf_bytes, bytes + (size_t)((cols + 127) / 128) * bound * sizeof(float));

	if (r < 0)
		return r;
	k.q = be->qbuf;
	k.scale = (float *)(be->qbuf + bytes);
	if (maker && maker->h.op == OP_ACT) {
		k.x = view(be, p, &maker->act.gate);
		k.up = view(be, p, &maker->act.up);
		k.is_act = true;
		k.act = maker->act.act;
	} else if (maker) {
		k.x = view(be, p, &maker->norm.x);
		k.norm = true;
		k.norm_w = maker->norm.w;
		k.eps = maker->norm.eps;
	}
	*ret = (struct rows8){ .q = k.q, .scale = k.scale, .ld = ld, .n = bound };
	return gk_quantize_rows(&be->ctx, &k);
}

/* Through a buffer of elements `elem`, from which the rows that there are go where they belong. */
static int issue_gemm8_aside(struct gpu_backend *be, const struct gpu_gemm8_desc *d, struct gk_view out,
                             struct gk_rows rows, uint32_t elem)
{
	struct gk_view aside = { .elem = elem, .ld = (d->n + 7) & ~7u };
	struct gpu_gemm8_desc a = *d;
	int r = room(be, &be->wbuf, &be->wbuf_bytes, (size_t)d->rows * aside.ld * (elem == GK_F32 ? 4 : 2));

	if (r < 0)
		return r;
	aside.p = a.out = be->wbuf;
	a.ld_out = aside.ld;
	a.out_is_f32 = elem == GK_F32;
	a.accumulate = false;
	r = gpu_gemm8_run(be->gemm, &a);
	if (r < 0)
		return r;
	return d->accumulate ? gk_add(&be->ctx, out, aside, rows, d->n, 1)
	                     : gk_convert(&be->ctx, out, aside, rows, d->n);
}

static int issue_gemm8(struct gpu_backend *be, const struct gk_job *j, const struct rows8 *x, struct gk_rows rows,
                       uint32_t n_out)
{
	const struct gk_view out = j->out;
	const struct gpu_gemm8_desc d = { .rows = x->n,
		                          .n = n_out,
		                          .k = x->ld,
		                          .w = &j->w,
		                          .x = x->q,
		                          .x_scale = x->scale,
		                          .out = out.p,
		                          .ld_x = x->ld,
		                          .ld_out = out.ld,
		                          .out_is_f32 = out.elem == GK_F32,
		                          .accumulate = j->accumulate };
	int r = x->n == rows.bound ? gpu_gemm8_run(be->gemm, &d) : issue_gemm8_aside(be, &d, out, rows, out.elem);

	/* No kernel that gives float32: it is made of bfloat16. */
	return r == -ENOTSUP && d.out_is_f32 ? issue_gemm8_aside(be, &d, out, rows, GK_BF16) : r;
}

static const size_t widest_bytes = 512u << 20;

bool gpu_widens(const struct gpu_backend *be, const union gpu_rec *rec, const struct rec_job *job)
{
	const struct gk_mat *w = &job->m->m;

	return w->type != KN_F32 && w->type != KN_BF16 && is_for_library(be, rec, job, be->library_rows.widened) &&
	       (size_t)w->rows * w->cols * 2 <= widest_bytes;
}

static int issue_widened(struct gpu_backend *be, const struct gk_job *j, const struct gk_view *x, uint32_t rows)
{
	const struct gk_mat *w = &j->w;
	uint32_t ld = (w->cols + 63) & ~63u;
	size_t bytes = (size_t)w->rows * ld * 2;
	struct gpu_gemm_desc d = { .rows = rows,
		                   .n = w->rows,
		                   .k = w->cols,
		                   .x = x->p,
		                   .out = j->out.p,
		                   .ld_x = x->ld,
		                   .ld_w = ld,
		                   .ld_out = j->out.ld,
		                   .out_is_f32 = j->out.elem == GK_F32,
		                   .accumulate = j->accumulate };
	int r;

	r = room(be, &be->wbuf, &be->wbuf_bytes, bytes);
	r = r < 0 ? r : gk_mat_widen(&be->ctx, w, be->wbuf, ld);
	d.w = be->wbuf;
	return r < 0 ? r : gpu_gemm_run(be->gemm, &d);
}

static int issue_maker(struct gpu_backend *be, const struct gpu_program *p, const union gpu_rec *rec)
{
	if (rec->h.op == OP_NORM)
		return issue_norm(be, p, &rec->norm);
	return gk_act_mul(&be->ctx, rec->act.act, view(be, p, &rec->act.out), view(be, p, &rec->act.gate),
	                  view(be, p, &rec->act.up), gpu_rows_of(be, rec->h.rows), rec->act.dim);
}

/* FP8 weights: the library's, as far as it has kernels. jobs: l's. */
static int issue_eight_bits(struct gpu_backend *be, const struct gpu_program *p, const struct rec_matmul *m,
                            const struct gk_linear *l, struct gk_job *jobs, const union gpu_rec *maker, bool *ret_done)
{
	struct rows8 x = { 0 };
	int r = 0;

	for (uint32_t i = 0, step; i < m->h.n_jobs && r == 0; i += step) {
		uint32_t n_out;

		step = 1;
		if (l->gated || !gpu_gemm8_takes(be, (const union gpu_rec *)m, &m->job[i]))
			continue;
		if (!x.ld)
			r = quantize_x(be, p, l, m->job[0].m->m.cols, maker, &x);
		if (r < 0)
			return r;
		step = joined(m, jobs, i, &n_out);
		r = put_biases(be, jobs + i, step, l->rows);
		r = r < 0 ? r : issue_gemm8(be, &jobs[i], &x, l->rows, n_out);
		memset(ret_done + i, r == 0, step);
		r = r == -ENOTSUP ? 0 : r;
	}
	return r;
}

/* Rows beyond GK_FEW_ROWS: the library's, job by job, and the rest in one launch of our own. jobs: l's. */
static int issue_many(struct gpu_backend *be, const struct gpu_program *p, const struct rec_matmul *m,
                      struct gk_linear *l, struct gk_job *jobs, const union gpu_rec *maker)
{
	struct gk_job left[GK_MAX_JOBS];
	uint32_t cols = m->job[0].m->m.cols, n = 0;
	bool exact = be->exact, done8[GK_MAX_JOBS] = { 0 }, all = true;
	int r = 0;

	/* Weights in float32 are few and matter (routers): they are not rounded. */
	for (uint32_t i = 0; i < m->h.n_jobs; i++)
		exact |= m->job[i].m->m.type == KN_F32;
	if (!exact)
		r = issue_eight_bits(be, p, m, l, jobs, maker, done8);
	for (uint32_t i = 0; i < m->h.n_jobs; i++)
		all &= done8[i];
	if (all || r < 0)
		return r;
	if (maker)
		r = issue_maker(be, p, maker);
	if (r == 0 && exact && l->x.elem != GK_F32)
		r = convert_x(be, &l->x, l->rows, cols, GK_F32);
	else if (r == 0 && !exact && l->x.elem == GK_F32)
		r = convert_x(be, &l->x, l->rows, cols, GK_BF16);
	for (uint32_t i = 0, step; i < m->h.n_jobs && r == 0; i += step) {
		int done = done8[i] ? 0 : -ENOTSUP;
		uint32_t n_out;

		step = 1;
		if (!exact && !l->gated && gpu_gemm_takes(be, p, (const union gpu_rec *)m, &m->job[i])) {
			step = joined(m, jobs, i, &n_out);
			r = put_biases(be, jobs + i, step, l->rows);
			done = r < 0 ? r : issue_gemm(be, &jobs[i], &l->x, l->rows.bound, n_out);
		}
		if (done == -ENOTSUP && !exact && !l->gated && gpu_widens(be, (const union gpu_rec *)m, &m->job[i])) {
			r = put_bias(be, &jobs[i], l->rows);
			done = r < 0 ? r : issue_widened(be, &jobs[i], &l->x, l->rows.bound);
		}
		for (uint32_t k = 0; k < step && done == -ENOTSUP; k++)
			left[n++] = jobs[i + k];
		r = done == -ENOTSUP ? 0 : done;
	}
	l->jobs = left;
	l->n_jobs = n;
	return r < 0 || n == 0 ? r : gk_linear_many(&be->ctx, l, exact);
}

static struct gk_view rows_from(struct gk_view v, uint32_t row)
{
	v.p = (char *)v.p + (size_t)row * v.ld * (v.elem == GK_F32 ? 4 : 2);
	return v;
}

/* Deterministic mode: rows of answers by kernels that give the same bits for any number of rows and are quick for few
 * of them, rows of prompts by the library, which has one kernel for any number of rows there, or by tiles. jobs: l's.
 */
static int issue_steady(struct gpu_backend *be, const struct gpu_program *p, const struct rec_matmul *m,
                        struct gk_linear *l, struct gk_job *jobs)
{
	const struct rec_job *job = &m->job[0];
	const union gpu_rec *rec = (const union gpu_rec *)m;
	const uint32_t answers = (uint32_t)m->answer_rows, dim = job->m->m.rows;
	struct gk_linear part = *l;
	struct gk_rows rows = l->rows;
	bool activates;
	int r = 0;

	if (answers == ALL_ANSWERS)
		return gk_linear_steady(&be->ctx, l);
	if (answers > 0) {
		part.rows = (struct gk_rows){ .bound = answers };
		r = gk_linear_steady(&be->ctx, &part);
		rows = (struct gk_rows){ .bound = rows.bound - answers };
	}
	for (uint32_t i = 0; i < l->n_jobs; i++)
		jobs[i].out = rows_from(jobs[i].out, answers);
	part = *l;
	part.rows = rows;
	part.x = rows_from(l->x, answers);
	activates = l->gated &&
	            (gpu_gemm_takes(be, p, rec, job) || gpu_gemm8_takes(be, rec, job) || gpu_widens(be, rec, job));
	part.gated = l->gated && !activates;
	r = r < 0 ? r : issue_many(be, p, m, &part, jobs, NULL);
	return r < 0 || !activates ? r : gk_act_mul(&be->ctx, l->act, jobs[0].out, jobs[0].out, jobs[1].out, rows, dim);
}

static int issue_matmul(struct gpu_backend *be, const struct gpu_program *p, const struct gpu_launch *launch)
{
	const struct rec_matmul *m = &p->recs[launch->first]->matmul;
	struct gk_job jobs[GK_MAX_JOBS] = { 0 };
	struct gk_linear l = { .x = view(be, p, &m->x),
		               .rows = gpu_rows_of(be, m->h.rows),
		               .gated = launch->gated,
		               .n_jobs = m->h.n_jobs,
		               .jobs = jobs };
	int r = -ENOTSUP;

	for (uint32_t i = 0; i < m->h.n_jobs; i++)
		set_job(be, p, &m->job[i], &jobs[i]);
	if (launch->gated)
		l.act = p->recs[launch->first + 1]->act.act;
	if (be->base.tells_prompts)
		return issue_steady(be, p, m, &l, jobs);
	if (!gpu_is_few(be, (const union gpu_rec *)m))
		return issue_many(be, p, m, &l, jobs, launch->maker ? p->recs[launch->maker - 1] : NULL);
	if (launch->norm != UINT32_MAX) {
		const struct rec_norm *norm = &p->recs[launch->norm]->norm;
		struct gk_linear normed = l;

		normed.x = view(be, p, &norm->x);
		normed.norm = true;
		normed.norm_w = norm->w;
		normed.eps = norm->eps;
		r = gk_linear_few(&be->ctx, &normed);
		if (r != -ENOTSUP)
			return r;
		r = issue_norm(be, p, norm); /* again by each that begins with it */
		if (r < 0)
			return r;
	}
	r = gk_linear_few(&be->ctx, &l);
	return r == -ENOTSUP ? issue_many(be, p, m, &l, jobs, NULL) : r;
}

static int issue_batch(struct gpu_backend *be, const struct gpu_program *p, const struct gpu_launch *launch)
{
	const struct gpu_mat_batch *b = &p->batches[launch->batch];
	struct gk_linear_batch l = { .x = view(be, p, &b->x),
		                     .out = view(be, p, &b->out),
		                     .x_step = b->x_step,
		                     .out_step = b->out_step,
		                     .rows = gpu_rows_of(be, p->recs[launch->first]->h.rows),
		                     .n_mats = b->n_mats,
		                     .type = b->shape.type,
		                     .mat_rows = b->shape.rows,
		                     .mat_cols = b->shape.cols,
		                     .mats = b->mats };

	return gk_linear_batch(&be->ctx, &l, be->exact || b->shape.type == KN_F32);
}

/* ---- The others ---- */

static int issue_embed(struct gpu_backend *be, const struct gpu_program *p, const struct rec_embed *e)
{
	return gk_embed(&be->ctx, view(be, p, &e->out), &e->m->m, gpu_ints_of(be, e->h.ints), e->picked,
	                gpu_rows_of(be, e->h.rows), e->scale);
}

static int issue_rope(struct gpu_backend *be, const struct gpu_program *p, const struct rec_rope *r)
{
	return gk_rope(&be->ctx, view(be, p, &r->x), gpu_rows_of(be, r->h.rows), r->n_head, r->head_dim, &r->rope,
	               gpu_ints_of(be, r->h.ints));
}

static int issue_kv_store(struct gpu_backend *be, const struct gpu_program *p, const struct rec_kv_store *s)
{
	struct gk_batch batch;

	gpu_batch_of(be, s->h.batch, &batch);
	return gk_kv_store(&be->ctx, &s->kv, view(be, p, &s->k), view(be, p, &s->v), &batch);
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
	struct gk_attention k = { .out = view(be, p, &a->out),
		                  .q = view(be, p, &a->q),
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

	return gk_route(&be->ctx, &router, view(be, p, &r->logits).p, gpu_rows_of(be, r->h.rows), r->ids, r->weights);
}

static struct gk_moe moe_of(const struct gpu_backend *be, const struct gpu_program *p, const struct rec_moe *m)
{
	return (struct gk_moe){ .x = view(be, p, &m->x),
		                .out = view(be, p, &m->out),
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
	const struct gk_pick k = { .logits = view(be, p, &r->logits),
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
	const struct gk_conv k = { .out = view(be, p, &r->out),
		                   .x = view(be, p, &r->x),
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
	const struct gk_delta k = { .out = view(be, p, &r->out),
		                    .qkv = view(be, p, &r->qkv),
		                    .ba = view(be, p, &r->ba),
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
	const struct gk_gated_norm k = { .out = view(be, p, &r->out),
		                         .x = view(be, p, &r->x),
		                         .gate = view(be, p, &r->gate),
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
	const struct gk_norm k = { .out = view(be, p, &n->out),
		                   .x = view(be, p, &n->x),
		                   .w = n->w,
		                   .rows = gpu_rows_of(be, n->h.rows),
		                   .n_head = 1,
		                   .dim = n->dim,
		                   .eps = n->eps,
		                   .add = view(be, p, &a->y),
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
		return issue_norm(be, p, &rec->norm);
	case OP_MATMUL:
		return issue_matmul(be, p, launch);
	case OP_ROPE:
		return issue_rope(be, p, &rec->rope);
	case OP_KV_STORE:
		return issue_kv_store(be, p, &rec->kv_store);
	case OP_ATTENTION:
		return issue_attention(be, p, launch->first);
	case OP_ACT:
		return gk_act_mul(&be->ctx, rec->act.act, view(be, p, &rec->act.out), view(be, p, &rec->act.gate),
		                  view(be, p, &rec->act.up), rows, rec->act.dim);
	case OP_ADD:
		return gk_add(&be->ctx, view(be, p, &rec->add.x), view(be, p, &rec->add.y), rows, rec->add.dim,
		              rec->add.scale);
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
		return gk_gate_rows(&be->ctx, view(be, p, &rec->gate_rows.x), view(be, p, &rec->gate_rows.gate), rows,
		                    (uint32_t)rec->gate_rows.dim);
	case OP_COMM:
		return gpu_comm_issue(be, &rec->comm, view(be, p, &rec->comm.x), rows);
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
	k = (struct gk_qkv){ .q = view(be, p, &q.rope_q->x),
		             .k = view(be, p, &q.store->k),
		             .v = view(be, p, &q.store->v),
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
	struct gk_router k = { .x = view(be, p, norm ? &norm->x : &m->x),
		               .rows = gpu_rows_of(be, m->h.rows),
		               .w = m->job[0].m->m,
		               .bias = m->job[0].bias,
		               .logits = view(be, p, &choice->logits).p,
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
		k.normed = view(be, p, &norm->out);
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
			r = issue_batch(be, p, l);
		else
			r = issue_one(be, p, l);
		if (r < 0)
			fail_at(be, r, p, i);
	}
	return r;
}
