/* Launches of matrix products: which kernels multiply them, ours or the library's, and what has to be made for those
 * first. */
#include <errno.h>
#include <string.h>

#include "gpu/backend.h"
#include "gpu/gemm.h"
#include "gpu/issue.h"

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

bool gpu_own8_takes(const struct gpu_backend *be, const union gpu_rec *rec, const struct rec_job *job)
{
	const struct gk_mat *w = &job->m->m;
	uint32_t rows = be->step.rows[rec->h.rows].bound;

	return be->ctx.sm == 90 && !be->deterministic && !be->exact && !job->bias && w->type == KN_FP8_128 &&
	       w->first_row == 0 && w->rows % 16 == 0 && rows >= be->library_rows.own &&
	       rows >= be->library_rows.eight_bits;
}

static bool library8_takes(const struct gpu_backend *be, const union gpu_rec *rec, const struct rec_job *job)
{
	const struct gk_mat *w = &job->m->m;

	return w->type == KN_FP8_128 && is_for_library(be, rec, job, be->library_rows.eight_bits) &&
	       gpu_gemm8_known(be->gemm) && w->first_row == 0 && w->rows % 16 == 0 &&
	       (be->deterministic ? !job->bias : be->step.rows[rec->h.rows].bound % FP8_STEP == 0);
}

bool gpu_gemm8_takes(const struct gpu_backend *be, const union gpu_rec *rec, const struct rec_job *job)
{
	return gpu_own8_takes(be, rec, job) || library8_takes(be, rec, job);
}

/* Beside the library: rows, a tile's; where there are few tiles it has less between their begin and their end. */
enum { OWN16_MOST = 128, OWN16_LEAST_OUT = 16384 };

bool gpu_own16_takes(const struct gpu_backend *be, const union gpu_rec *rec, const struct rec_job *job, bool gated)
{
	uint32_t rows = be->step.rows[rec->h.rows].bound;

	return be->ctx.sm == 90 && !be->deterministic && !be->exact && !job->bias && job->m->m.type == KN_BF16 &&
	       rows >= be->library_rows.own &&
	       (!be->gemm || (rows <= OWN16_MOST && (gated || job->m->m.rows >= OWN16_LEAST_OUT)));
}

int gpu_room(struct gpu_backend *be, char **p, size_t *have, size_t bytes)
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

static uint32_t padded(uint32_t cols)
{
	return (cols + 7) & ~7u;
}

/* x in another element type. */
static int convert_x(struct gpu_backend *be, struct gk_view *x, struct gk_rows rows, uint32_t width, uint32_t elem)
{
	uint32_t ld = padded(width);
	struct gk_view to = { .elem = elem, .ld = ld };
	int r = gpu_room(be, &be->xbuf, &be->xbuf_bytes, (size_t)rows.bound * ld * 4);

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
	to->out = gpu_view_of(be, p, &from->out);
	to->bias = from->bias;
	to->accumulate = from->accumulate;
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

static struct gpu_gemm_desc gemm_of(const struct gk_job *j, const struct gk_view *x, uint32_t rows, uint32_t n)
{
	return (struct gpu_gemm_desc){ .rows = rows,
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
}

static int issue_gemm(struct gpu_backend *be, const struct gk_job *j, const struct gk_view *x, uint32_t rows,
                      uint32_t n)
{
	const struct gpu_gemm_desc d = gemm_of(j, x, rows, n);

	return gpu_gemm_run(be->gemm, &d);
}

/* x in eight bits, its scales behind it; once for all jobs of a product. */
struct rows8 {
	void *q;
	float *scale;
	uint32_t ld; /* 0: not made yet */
	uint32_t n;  /* rows with those that are none */
};

static uint32_t stride8(uint32_t cols)
{
	return (cols + 63) & ~63u;
}

static uint32_t rows8_of(uint32_t rows)
{
	return (rows + FP8_STEP - 1) / FP8_STEP * FP8_STEP;
}

/* Room for them in a buffer that grows. */
static int place_rows8(struct gpu_backend *be, char **buf, size_t *have, struct gk_rows rows, uint32_t cols,
                       struct rows8 *ret)
{
	uint32_t ld = stride8(cols), bound = rows8_of(rows.bound);
	size_t bytes = ((size_t)bound * ld + 255) & ~(size_t)255;
	int r = gpu_room(be, buf, have, bytes + (size_t)((cols + 127) / 128) * bound * sizeof(float));

	if (r == 0)
		*ret = (struct rows8){ .q = *buf, .scale = (float *)(*buf + bytes), .ld = ld, .n = bound };
	return r;
}

/* maker: the record that makes x on the way, or NULL. */
static int quantize_to(struct gpu_backend *be, const struct gpu_program *p, const struct gk_linear *l, uint32_t cols,
                       const union gpu_rec *maker, const struct rows8 *to)
{
	struct gk_quantize k = {
		.q = to->q, .scale = to->scale, .ld = to->ld, .ld_scale = to->n, .x = l->x, .rows = l->rows, .dim = cols
	};

	if (maker && maker->h.op == OP_ACT) {
		k.x = gpu_view_of(be, p, &maker->act.gate);
		k.up = gpu_view_of(be, p, &maker->act.up);
		k.is_act = true;
		k.act = maker->act.act;
	} else if (maker) {
		k.x = gpu_view_of(be, p, &maker->norm.x);
		k.norm = true;
		k.norm_w = maker->norm.w;
		k.eps = maker->norm.eps;
	}
	return gk_quantize_rows(&be->ctx, &k);
}

static int quantize_x(struct gpu_backend *be, const struct gpu_program *p, const struct gk_linear *l, uint32_t cols,
                      const union gpu_rec *maker, struct rows8 *ret)
{
	int r = place_rows8(be, &be->qbuf, &be->qbuf_bytes, l->rows, cols, ret);

	return r < 0 ? r : quantize_to(be, p, l, cols, maker, ret);
}

/* Through a buffer of elements `elem`, from which the rows that there are go where they belong. */
static int issue_gemm8_aside(struct gpu_backend *be, const struct gpu_gemm8_desc *d, struct gk_view out,
                             struct gk_rows rows, uint32_t elem)
{
	struct gk_view aside = { .elem = elem, .ld = padded(d->n) };
	struct gpu_gemm8_desc a = *d;
	int r = gpu_room(be, &be->wbuf, &be->wbuf_bytes, (size_t)d->rows * aside.ld * (elem == GK_F32 ? 4 : 2));

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

static struct gk_product own8(const struct gk_job *j, const struct rows8 *x, struct gk_rows rows, uint32_t n_out)
{
	return (struct gk_product){ .x = x->q,
		                    .x_scale = x->scale,
		                    .ld_x = x->ld,
		                    .ld_scale = x->n,
		                    .rows = rows,
		                    .n = n_out,
		                    .w = { j->w },
		                    .out = j->out,
		                    .accumulate = j->accumulate };
}

static struct gpu_gemm8_desc gemm8_of(const struct gk_job *j, const struct rows8 *x, uint32_t n)
{
	return (struct gpu_gemm8_desc){ .rows = x->n,
		                        .n = n,
		                        .k = x->ld,
		                        .w = &j->w,
		                        .x = x->q,
		                        .x_scale = x->scale,
		                        .out = j->out.p,
		                        .ld_x = x->ld,
		                        .ld_out = j->out.ld,
		                        .out_is_f32 = j->out.elem == GK_F32,
		                        .accumulate = j->accumulate };
}

static int issue_gemm8(struct gpu_backend *be, const struct gk_job *j, const struct rows8 *x, struct gk_rows rows,
                       uint32_t n_out)
{
	const struct gk_view out = j->out;
	const struct gpu_gemm8_desc d = gemm8_of(j, x, n_out);
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

	r = gpu_room(be, &be->wbuf, &be->wbuf_bytes, bytes);
	r = r < 0 ? r : gk_mat_widen(&be->ctx, w, be->wbuf, ld);
	d.w = be->wbuf;
	return r < 0 ? r : gpu_gemm_run(be->gemm, &d);
}

/* Where rows in eight bits come from: the product before left them (gpu_launch.handed), or they are made, by the record
 * that makes x on the way or of x. */
struct source8 {
	const union gpu_rec *maker;
	bool handed;
};

/* FP8 weights: ours where that is asked for, or the library's, as far as there are kernels. jobs: l's. */
static int issue_eight_bits(struct gpu_backend *be, const struct gpu_program *p, const struct rec_matmul *m,
                            const struct gk_linear *l, struct gk_job *jobs, const struct source8 *from, bool *ret_done)
{
	struct rows8 x = { 0 };
	int r = 0;

	if (from->handed)
		r = place_rows8(be, &be->handed, &be->handed_bytes, l->rows, m->job[0].m->m.cols, &x);
	for (uint32_t i = 0, step; i < m->h.n_jobs && r == 0; i += step) {
		uint32_t n_out;

		step = 1;
		if (l->gated || !gpu_gemm8_takes(be, (const union gpu_rec *)m, &m->job[i]))
			continue;
		if (!x.ld)
			r = quantize_x(be, p, l, m->job[0].m->m.cols, from->maker, &x);
		if (r < 0)
			return r;
		step = joined(m, jobs, i, &n_out);
		r = -ENOTSUP;
		if (gpu_own8_takes(be, (const union gpu_rec *)m, &m->job[i])) {
			const struct gk_product k = own8(&jobs[i], &x, l->rows, n_out);

			r = gk_product_hopper(&be->ctx, &k);
		}
		if (r == -ENOTSUP && library8_takes(be, (const union gpu_rec *)m, &m->job[i])) {
			r = put_biases(be, jobs + i, step, l->rows);
			r = r < 0 ? r : issue_gemm8(be, &jobs[i], &x, l->rows, n_out);
		}
		memset(ret_done + i, r == 0, step);
		r = r == -ENOTSUP ? 0 : r;
	}
	return r;
}

/* n_out rows of weights from j's on; gated: with `up`. */
static int issue_own16(struct gpu_backend *be, const struct gk_linear *l, const struct gk_job *j, uint32_t n_out,
                       const struct gk_job *up)
{
	const struct gk_product k = { .x = l->x.p,
		                      .ld_x = l->x.ld,
		                      .rows = l->rows,
		                      .n = n_out,
		                      .w = { j->w, up ? up->w : j->w },
		                      .out = j->out,
		                      .accumulate = j->accumulate,
		                      .gated = up != NULL,
		                      .act = l->act };

	return gk_product_hopper(&be->ctx, &k);
}

/* Rows beyond GK_FEW_ROWS: the library's, job by job, and the rest in one launch of our own. jobs: l's. */
static int issue_many(struct gpu_backend *be, const struct gpu_program *p, const struct rec_matmul *m,
                      struct gk_linear *l, struct gk_job *jobs, const struct source8 *from)
{
	const union gpu_rec *const maker = from->maker;
	struct gk_job left[GK_MAX_JOBS];
	uint32_t cols = m->job[0].m->m.cols, n = 0;
	bool exact = be->exact, done8[GK_MAX_JOBS] = { 0 }, all = true;
	int r = 0;

	/* Weights in float32 are few and matter (routers): they are not rounded. */
	for (uint32_t i = 0; i < m->h.n_jobs; i++)
		exact |= m->job[i].m->m.type == KN_F32;
	if (!exact)
		r = issue_eight_bits(be, p, m, l, jobs, from, done8);
	for (uint32_t i = 0; i < m->h.n_jobs; i++)
		all &= done8[i];
	if (all || r < 0)
		return r;
	if (maker)
		r = gpu_issue_maker(be, p, maker);
	if (r == 0 && exact && l->x.elem != GK_F32)
		r = convert_x(be, &l->x, l->rows, cols, GK_F32);
	else if (r == 0 && !exact && l->x.elem == GK_F32)
		r = convert_x(be, &l->x, l->rows, cols, GK_BF16);
	for (uint32_t i = 0, step; i < m->h.n_jobs && r == 0; i += step) {
		int done = done8[i] ? 0 : -ENOTSUP;
		uint32_t n_out;

		step = 1;
		if (done == -ENOTSUP && !exact && gpu_own16_takes(be, (const union gpu_rec *)m, &m->job[i], l->gated)) {
			step = l->gated ? m->h.n_jobs : joined(m, jobs, i, &n_out);
			done = issue_own16(be, l, &jobs[i], l->gated ? jobs[i].w.rows : n_out,
			                   l->gated ? &jobs[i + 1] : NULL);
		}
		if (done == -ENOTSUP && !exact && !l->gated &&
		    gpu_gemm_takes(be, p, (const union gpu_rec *)m, &m->job[i])) {
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

/* Gate and up: what is activated, in eight bits, for the product behind. jobs: l's. */
static int issue_handing(struct gpu_backend *be, const struct gpu_program *p, const struct rec_matmul *m,
                         struct gk_linear *l, struct gk_job *jobs, const struct source8 *from, const union gpu_rec *act)
{
	struct rows8 x, y;
	struct gk_product k;
	int r = quantize_x(be, p, l, m->job[0].m->m.cols, from->maker, &x);

	r = r < 0 ? r : place_rows8(be, &be->handed, &be->handed_bytes, l->rows, act->act.dim, &y);
	if (r < 0)
		return r;
	k = own8(&jobs[0], &x, l->rows, jobs[0].w.rows);
	k.w[1] = jobs[1].w;
	k.gated = true;
	k.act = act->act.act;
	k.q = y.q;
	k.q_scale = y.scale;
	k.ld_q = y.ld;
	k.ld_q_scale = y.n;
	r = gk_product_hopper(&be->ctx, &k);
	if (r != -ENOTSUP)
		return r;
	r = issue_many(be, p, m, l, jobs, from);
	return r < 0 ? r : quantize_to(be, p, l, act->act.dim, act, &y);
}

static struct gk_view rows_from(struct gk_view v, uint32_t row)
{
	v.p = (char *)v.p + (size_t)row * v.ld * (v.elem == GK_F32 ? 4 : 2);
	return v;
}

/* Deterministic mode: whether the library gives all rows of these products the same bits, however many they are: then
 * rows of prompts and of answers are one product. As gpu_gemm_is_alike(). */
static int are_alike(struct gpu_backend *be, const struct rec_matmul *m, const struct gk_linear *l,
                     const struct gk_job *jobs)
{
	const uint32_t cols = jobs[0].w.cols, type = jobs[0].w.type;
	const struct gk_view x = { .elem = GK_BF16, .ld = l->x.elem == GK_BF16 ? l->x.ld : padded(cols) };
	const struct rows8 x8 = { .ld = stride8(cols), .n = rows8_of(l->rows.bound) };
	int r = be->gemm != NULL;

	for (uint32_t i = 0; i < l->n_jobs && r == 1; i++)
		r = jobs[i].w.type == type &&
		    (type == KN_BF16 ? !jobs[i].bias : gpu_gemm8_takes(be, (const union gpu_rec *)m, &m->job[i]));
	for (uint32_t i = 0, step; i < l->n_jobs && r == 1; i += step) {
		struct gpu_gemm8_desc d8;
		struct gpu_gemm_desc d;
		uint32_t n_out;

		step = joined(m, jobs, i, &n_out);
		d = gemm_of(&jobs[i], &x, l->rows.bound, n_out);
		d8 = gemm8_of(&jobs[i], &x8, n_out);
		r = type == KN_BF16 ? gpu_gemm_is_alike(be->gemm, &d) : gpu_gemm8_is_alike(be->gemm, &d8);
	}
	return r;
}

/* Deterministic mode: all rows by the library, where it gives the same bits for any number of them. Elsewhere rows of
 * answers by kernels of ours that do so and are quick for few rows, rows of prompts by the library, which has one
 * kernel for any number of rows there, or by tiles. jobs: l's. */
static int issue_steady(struct gpu_backend *be, const struct gpu_program *p, const struct rec_matmul *m,
                        struct gk_linear *l, struct gk_job *jobs)
{
	const struct rec_job *job = &m->job[0];
	const union gpu_rec *rec = (const union gpu_rec *)m;
	const uint32_t dim = job->m->m.rows;
	uint32_t answers = (uint32_t)m->answer_rows; /* that are not multiplied as prompts are */
	struct gk_linear part = *l;
	struct gk_rows rows = l->rows;
	bool activates;
	int r = are_alike(be, m, l, jobs);

	if (r < 0)
		return r;
	answers = r > 0 ? 0 : answers;
	r = 0;
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
	r = r < 0 ? r : issue_many(be, p, m, &part, jobs, &(struct source8){ 0 });
	return r < 0 || !activates ? r : gk_act_mul(&be->ctx, l->act, jobs[0].out, jobs[0].out, jobs[1].out, rows, dim);
}

int gpu_issue_matmul(struct gpu_backend *be, const struct gpu_program *p, const struct gpu_launch *launch)
{
	const struct rec_matmul *m = &p->recs[launch->first]->matmul;
	struct gk_job jobs[GK_MAX_JOBS] = { 0 };
	struct gk_linear l = { .x = gpu_view_of(be, p, &m->x),
		               .rows = gpu_rows_of(be, m->h.rows),
		               .gated = launch->gated,
		               .n_jobs = m->h.n_jobs,
		               .jobs = jobs };
	const struct source8 from = { .maker = launch->maker ? p->recs[launch->maker - 1] : NULL,
		                      .handed = launch->handed };
	int r = -ENOTSUP;

	for (uint32_t i = 0; i < m->h.n_jobs; i++)
		set_job(be, p, &m->job[i], &jobs[i]);
	if (launch->gated)
		l.act = p->recs[launch->first + 1]->act.act;
	if (be->base.tells_prompts)
		return issue_steady(be, p, m, &l, jobs);
	if (!gpu_is_few(be, (const union gpu_rec *)m))
		return launch->hands ? issue_handing(be, p, m, &l, jobs, &from, p->recs[launch->first + 1])
		                     : issue_many(be, p, m, &l, jobs, &from);
	if (launch->norm != UINT32_MAX) {
		const struct rec_norm *norm = &p->recs[launch->norm]->norm;
		struct gk_linear normed = l;

		normed.x = gpu_view_of(be, p, &norm->x);
		normed.norm = true;
		normed.norm_w = norm->w;
		normed.eps = norm->eps;
		r = gk_linear_few(&be->ctx, &normed);
		if (r != -ENOTSUP)
			return r;
		r = gpu_issue_norm(be, p, norm); /* again by each that begins with it */
		if (r < 0)
			return r;
	}
	r = gk_linear_few(&be->ctx, &l);
	return r == -ENOTSUP ? issue_many(be, p, m, &l, jobs, &from) : r;
}

int gpu_issue_batch(struct gpu_backend *be, const struct gpu_program *p, const struct gpu_launch *launch)
{
	const struct gpu_mat_batch *b = &p->batches[launch->batch];
	struct gk_linear_batch l = { .x = gpu_view_of(be, p, &b->x),
		                     .out = gpu_view_of(be, p, &b->out),
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
