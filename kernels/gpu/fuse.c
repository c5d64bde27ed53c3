/* Records that one launch does at once.
 *
 *   norm, product            few rows: each block norms its input again, which costs less than a launch
 *   gate and up, activation  one product writes the activated values only
 *   norm or activation, product by eight bits  what is normed or activated is written in eight bits only
 *   gate and up, activation, product by eight bits  likewise, by the first product (our own kernels only)
 *   q and k norms, rotation, store of K and V
 *   a sum, its norm
 *   (few rows) norm, the router's product, its choice
 *   a product per head       (latent attention) one launch for all heads
 *
 * What a fused launch leaves out must be written again before anybody reads it, within the same program: the last layer
 * keeps its intermediate values, in case somebody downloads them. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "gpu/backend.h"
#include "gpu/gemm.h"

enum {
	NONE = UINT32_MAX,
	MIN_BATCH = 4,
	MAX_CLASSES = 8,
	EXACT_FEW_ROWS = 4, /* up to here gk_linear_few() keeps inputs in two parts, beyond it rounds them */
};

struct fuser {
	struct gpu_backend *be;
	struct gpu_program *p;
	uint32_t *norm_of; /* [n_recs] norm that a product begins with, or NONE */
	bool *gone;        /* done by another record's launch */
	bool *gated;
	bool *made;           /* the record before it makes its input in eight bits */
	bool *hands, *handed; /* as gpu_launch has them */
	bool *batched;
};

static bool same(const struct gpu_act *a, const struct gpu_act *b)
{
	return a->alloc == b->alloc && a->off == b->off && a->ld == b->ld;
}

/* The first thing that happens to the values after record i is that all of them are written. */
static bool is_overwritten(const struct gpu_program *p, uint32_t i, const struct gpu_act *act, uint32_t width,
                           uint16_t rows)
{
	struct gpu_access list[MAX_ACCESSES];

	for (uint32_t j = i + 1; j < p->n_recs; j++) {
		uint32_t n = gpu_accesses(p->recs[j], list);

		for (uint32_t k = 0; k < n; k++) {
			if (list[k].act->alloc != act->alloc)
				continue;
			if (list[k].flags & ACCESS_READ)
				return false;
			if (same(list[k].act, act) && list[k].width >= width && p->recs[j]->h.rows == rows)
				return true;
		}
	}
	return false;
}

bool gpu_is_few(const struct gpu_backend *be, const union gpu_rec *rec)
{
	uint32_t most = be->exact ? EXACT_FEW_ROWS : GK_FEW_ROWS;

	return be->step.rows[rec->h.rows].bound <= most && !be->deterministic;
}

/* ---- Norm and product ---- */

static bool writes(const struct gpu_access *list, uint32_t n, uint32_t alloc)
{
	for (uint32_t k = 0; k < n; k++) {
		if (list[k].act->alloc == alloc && (list[k].flags & ACCESS_WRITE))
			return true;
	}
	return false;
}

/* Every reader of the normed values is a product of all of them, nobody changes x before the last (nor does it: blocks
 * of one launch would read x while others add to it), and then they are written anew. Collects the readers. */
static uint32_t norm_readers(const struct fuser *f, uint32_t i, uint32_t *readers, uint32_t max)
{
	const struct rec_norm *norm = &f->p->recs[i]->norm;
	struct gpu_access list[MAX_ACCESSES];
	bool x_changed = false;
	uint32_t n_readers = 0;

	for (uint32_t j = i + 1; j < f->p->n_recs; j++) {
		const union gpu_rec *rec = f->p->recs[j];
		uint32_t n = gpu_accesses(rec, list);

		x_changed |= writes(list, n, norm->x.alloc);
		for (uint32_t k = 0; k < n; k++) {
			const struct gpu_access *a = &list[k];
			bool all = same(a->act, &norm->out) && rec->h.rows == norm->h.rows;

			if (a->act->alloc != norm->out.alloc)
				continue;
			if (a->flags == ACCESS_WRITE)
				return all && a->width >= norm->dim ? n_readers : 0;
			if (a->flags != ACCESS_READ || !all || a->width != norm->dim || rec->h.op != OP_MATMUL ||
			    f->batched[j] || f->norm_of[j] != NONE || x_changed || n_readers == max)
				return 0;
			readers[n_readers++] = j;
		}
	}
	return 0;
}

static void fuse_norm(struct fuser *f, uint32_t i)
{
	const struct rec_norm *norm = &f->p->recs[i]->norm;
	uint32_t readers[8], n;

	if (norm->is_layernorm || norm->n_head != 1 || norm->h.ints != NO_SLOT || norm->out.alloc == norm->x.alloc ||
	    !gpu_is_few(f->be, f->p->recs[i]))
		return;
	n = norm_readers(f, i, readers, sizeof(readers) / sizeof(readers[0]));
	for (uint32_t k = 0; k < n; k++)
		f->norm_of[readers[k]] = i;
	f->gone[i] = n > 0;
}

/* ---- Gate, up and the activation ---- */

static void fuse_gated(struct fuser *f, uint32_t i)
{
	const union gpu_rec *m = f->p->recs[i], *next = i + 1 < f->p->n_recs ? f->p->recs[i + 1] : NULL;
	const struct rec_job *gate = &m->matmul.job[0], *up = &m->matmul.job[1];

	if (!next || next->h.op != OP_ACT || m->h.n_jobs != 2 || f->batched[i] || gate->accumulate || up->accumulate ||
	    next->h.rows != m->h.rows || next->act.up.alloc == NO_ACT || !same(&next->act.gate, &gate->out) ||
	    !same(&next->act.up, &up->out) || !same(&next->act.out, &gate->out) || gate->m->m.rows != next->act.dim ||
	    up->m->m.rows != next->act.dim || gate->m->m.type != up->m->m.type)
		return;
	if (!is_overwritten(f->p, i + 1, &up->out, next->act.dim, m->h.rows))
		return;
	/* Deterministic: answers' rows are the same bits in all programs, so their kernels are; see issue_steady(). */
	if (!f->be->base.tells_prompts && !gpu_is_few(f->be, m) &&
	    !(gpu_own16_takes(f->be, m, gate, true) && gpu_own16_takes(f->be, m, up, true) &&
	      next->act.act == KN_ACT_SILU) &&
	    (gpu_gemm_takes(f->be, f->p, m, gate) || gpu_gemm8_takes(f->be, m, gate) || gpu_widens(f->be, m, gate)))
		return;
	f->gated[i] = true;
	f->gone[i + 1] = true;
}

/* ---- Norm or activation, product by eight bits ---- */

/* The record makes all of the product's input, and nothing else. */
static bool makes_input(const union gpu_rec *rec, const union gpu_rec *m)
{
	uint32_t cols = m->matmul.job[0].m->m.cols;

	if (rec->h.rows != m->h.rows)
		return false;
	if (rec->h.op == OP_ACT)
		return same(&rec->act.out, &m->matmul.x) && rec->act.dim == cols;
	return rec->h.op == OP_NORM && !rec->norm.is_layernorm && rec->norm.n_head == 1 && rec->h.ints == NO_SLOT &&
	       rec->norm.out.alloc != rec->norm.x.alloc && same(&rec->norm.out, &m->matmul.x) && rec->norm.dim == cols;
}

static void fuse_maker(struct fuser *f, uint32_t i)
{
	const union gpu_rec *m = f->p->recs[i];

	if (f->be->base.tells_prompts || i == 0 || f->gone[i - 1] || f->batched[i] || f->gated[i] ||
	    f->norm_of[i] != NONE || gpu_is_few(f->be, m) || !makes_input(f->p->recs[i - 1], m))
		return;
	for (uint32_t k = 0; k < m->h.n_jobs; k++) {
		if (!gpu_gemm8_takes(f->be, m, &m->matmul.job[k]) || m->matmul.job[k].out.alloc == m->matmul.x.alloc)
			return;
	}
	if (!is_overwritten(f->p, i, &m->matmul.x, m->matmul.job[0].m->m.cols, m->h.rows))
		return;
	f->made[i] = true;
	f->gone[i - 1] = true;
}

/* Gate, up, the activation that makes the input of product i: gate and up are written nowhere. */
static void fuse_hands(struct fuser *f, uint32_t i)
{
	const union gpu_rec *down = f->p->recs[i], *act = i >= 2 ? f->p->recs[i - 1] : NULL,
	                    *m = act ? f->p->recs[i - 2] : NULL;
	const struct rec_job *gate = act ? &m->matmul.job[0] : NULL, *up = act ? &m->matmul.job[1] : NULL;

	if (!act || !f->made[i] || act->h.op != OP_ACT || m->h.op != OP_MATMUL || m->h.n_jobs != 2 ||
	    m->h.rows != act->h.rows || f->batched[i - 2] || f->gone[i - 2] || act->act.act != KN_ACT_SILU ||
	    act->act.up.alloc == NO_ACT || !same(&act->act.gate, &gate->out) || !same(&act->act.up, &up->out) ||
	    !same(&act->act.out, &gate->out) || gate->m->m.rows != act->act.dim || up->m->m.rows != act->act.dim ||
	    !gpu_own8_takes(f->be, m, gate) || !gpu_own8_takes(f->be, m, up) ||
	    !gpu_own8_takes(f->be, down, &down->matmul.job[0]) ||
	    !is_overwritten(f->p, i - 1, &up->out, act->act.dim, m->h.rows))
		return;
	f->hands[i - 2] = f->handed[i] = true;
}

/* ---- Head norms, rotation, store ---- */

static bool is_head_norm(const union gpu_rec *r, const struct gpu_act *x, uint32_t n_head, uint32_t dim)
{
	return r->h.op == OP_NORM && !r->norm.is_layernorm && same(&r->norm.x, x) && same(&r->norm.out, x) &&
	       r->norm.n_head == n_head && r->norm.dim == dim && r->norm.w && r->h.ints == NO_SLOT;
}

/* The records from i on that are one gk_qkv_store(): 0, or how many. */
uint32_t gpu_qkv_parts(const union gpu_rec *const *recs, uint32_t i, uint32_t n, struct gpu_qkv_parts *ret)
{
	struct gpu_qkv_parts q = { 0 };
	uint32_t at = i;
	bool norms_first = recs[at]->h.op == OP_NORM;
	const struct rec_rope *rope_q, *rope_k;

	if (n - i < 3 || (norms_first && n - i < 5))
		return 0;
	if (norms_first) {
		q.q_norm = &recs[at++]->norm;
		q.k_norm = &recs[at++]->norm;
	}
	if (recs[at]->h.op != OP_ROPE || recs[at + 1]->h.op != OP_ROPE)
		return 0;
	rope_q = q.rope_q = &recs[at++]->rope;
	rope_k = q.rope_k = &recs[at++]->rope;
	if (!norms_first && n - at >= 3 && recs[at]->h.op == OP_NORM) {
		q.q_norm = &recs[at++]->norm;
		q.k_norm = &recs[at++]->norm;
		q.norm_after_rope = true;
	}
	if (at >= n || recs[at]->h.op != OP_KV_STORE)
		return 0;
	q.store = &recs[at++]->kv_store;
	if (memcmp(&rope_q->rope, &rope_k->rope, sizeof(rope_q->rope)) != 0 || rope_q->h.ints != rope_k->h.ints ||
	    rope_q->h.rows != rope_k->h.rows || rope_q->h.rows != q.store->h.rows ||
	    rope_q->head_dim != rope_k->head_dim || rope_k->head_dim != q.store->kv.k_dim ||
	    rope_k->n_head != q.store->kv.n_kv_head || !same(&rope_k->x, &q.store->k))
		return 0;
	if (q.q_norm && (!is_head_norm((const union gpu_rec *)q.q_norm, &rope_q->x, rope_q->n_head, rope_q->head_dim) ||
	                 !is_head_norm((const union gpu_rec *)q.k_norm, &rope_k->x, rope_k->n_head, rope_k->head_dim) ||
	                 q.q_norm->eps != q.k_norm->eps || q.q_norm->h.rows != rope_q->h.rows ||
	                 q.k_norm->h.rows != rope_q->h.rows))
		return 0;
	*ret = q;
	return at - i;
}

static uint32_t fuse_qkv(struct fuser *f, uint32_t i)
{
	struct gpu_qkv_parts q;
	uint32_t n = gpu_qkv_parts(f->p->recs, i, f->p->n_recs, &q);

	if (n == 0 ||
	    !is_overwritten(f->p, i + n - 1, &q.store->k, q.store->kv.n_kv_head * q.store->kv.k_dim, q.store->h.rows))
		return 0;
	for (uint32_t k = 1; k < n; k++)
		f->gone[i + k] = true;
	return n;
}

/* ---- A sum that is normed next ---- */

static bool adds_and_norms(const struct fuser *f, uint32_t i)
{
	const union gpu_rec *a = f->p->recs[i], *n = i + 1 < f->p->n_recs ? f->p->recs[i + 1] : NULL;

	return a->h.op == OP_ADD && n && n->h.op == OP_NORM && !f->gone[i + 1] && !n->norm.is_layernorm &&
	       n->norm.n_head == 1 && n->h.ints == NO_SLOT && n->h.rows == a->h.rows && same(&n->norm.x, &a->add.x) &&
	       n->norm.out.alloc != a->add.x.alloc && n->norm.out.alloc != a->add.y.alloc && n->norm.dim == a->add.dim;
}

/* ---- The router ---- */

/* Records from i on that are one gk_route_product(): a norm (few rows) or none, the product, the choice. 0: none.
 * Nothing is left out. */
static uint32_t router_parts(const struct fuser *f, uint32_t i)
{
	const union gpu_rec *const *recs = f->p->recs;
	const struct rec_norm *norm = recs[i]->h.op == OP_NORM ? &recs[i]->norm : NULL;
	uint32_t at = norm ? i + 1 : i;
	const struct rec_job *job;

	if (at + 1 >= f->p->n_recs || recs[at]->h.op != OP_MATMUL || recs[at]->h.n_jobs != 1 ||
	    recs[at + 1]->h.op != OP_ROUTE || f->batched[at] || f->norm_of[at] != NONE ||
	    (!gpu_is_few(f->be, recs[at]) && (norm || f->be->exact)))
		return 0;
	job = &recs[at]->matmul.job[0];
	if (job->m->m.type != KN_F32 || job->accumulate || job->m->m.rows != recs[at + 1]->route.n_expert ||
	    !same(&job->out, &recs[at + 1]->route.logits) || recs[at + 1]->h.rows != recs[at]->h.rows)
		return 0;
	if (norm &&
	    (norm->is_layernorm || norm->n_head != 1 || norm->h.ints != NO_SLOT || norm->h.rows != recs[at]->h.rows ||
	     norm->out.alloc == norm->x.alloc || norm->dim != job->m->m.cols || !same(&norm->out, &recs[at]->matmul.x)))
		return 0;
	return at + 2 - i;
}

/* ---- One product per head ---- */

/* Products of one shape whose inputs and outputs lie at steady distances. */
struct class
{
	const struct rec_matmul *first;
	const struct rec_job *job; /* of the first */
	uint64_t x_off, out_off;   /* of the latest */
	int64_t x_step, out_step;
	uint32_t n;
};

static bool joins(struct class *c, const struct rec_matmul *m, const struct rec_job *j)
{
	int64_t x_step = (int64_t)(m->x.off - c->x_off), out_step = (int64_t)(j->out.off - c->out_off);

	if (m->x.alloc != c->first->x.alloc || m->x.ld != c->first->x.ld || j->out.alloc != c->job->out.alloc ||
	    j->out.ld != c->job->out.ld || j->m->m.type != c->job->m->m.type || j->m->m.rows != c->job->m->m.rows ||
	    j->m->m.cols != c->job->m->m.cols || x_step < 0 || out_step <= 0 ||
	    (c->n > 1 && (x_step != c->x_step || out_step != c->out_step)))
		return false;
	c->x_step = x_step;
	c->out_step = out_step;
	c->x_off = m->x.off;
	c->out_off = j->out.off;
	c->n++;
	return true;
}

static bool classes_touch(const struct class *reader, const struct class *writer)
{
	return reader->first->x.alloc == writer->job->out.alloc;
}

/* Writes of two classes to one allocation must interleave without meeting: same distances, and the columns of one step
 * apart. */
static bool writes_are_apart(const struct class *a, const struct class *b)
{
	uint64_t off_a, off_b, step = (uint64_t)a->out_step;

	if (a->job->out.alloc != b->job->out.alloc)
		return true;
	if (a->out_step != b->out_step || a->job->out.ld != b->job->out.ld)
		return false;
	off_a = a->job->out.off % step;
	off_b = b->job->out.off % step;
	if (off_a + a->job->m->m.rows > step || off_b + b->job->m->m.rows > step)
		return false;
	return off_a + a->job->m->m.rows <= off_b || off_b + b->job->m->m.rows <= off_a;
}

static uint32_t sort_classes(const struct fuser *f, uint32_t i, uint32_t n, struct class *classes, uint32_t *ret_of)
{
	uint32_t n_classes = 0, at = 0;

	for (uint32_t r = 0; r < n; r++) {
		const struct rec_matmul *m = &f->p->recs[i + r]->matmul;

		for (uint32_t k = 0; k < m->h.n_jobs; k++, at++) {
			const struct rec_job *j = &m->job[k];
			uint32_t c = 0;

			while (c < n_classes && !joins(&classes[c], m, j))
				c++;
			if (c == n_classes) {
				if (n_classes == MAX_CLASSES)
					return 0;
				classes[n_classes++] = (struct class){
					.first = m, .job = j, .x_off = m->x.off, .out_off = j->out.off, .n = 1
				};
			}
			ret_of[at] = c;
		}
	}
	for (uint32_t a = 0; a < n_classes; a++) {
		if (classes[a].n < MIN_BATCH / 2)
			return 0;
		for (uint32_t b = 0; b < n_classes; b++) {
			/* A class may read what an earlier one writes, never what a later one does. */
			if ((b >= a && classes_touch(&classes[a], &classes[b])) ||
			    (b > a && !writes_are_apart(&classes[a], &classes[b])))
				return 0;
		}
	}
	return n_classes;
}

static int add_batch(struct fuser *f, uint32_t i, const uint32_t *of, uint32_t c, const struct class *class)
{
	struct gpu_program *p = f->p;
	struct gk_mat *mats = calloc(class->n, sizeof(*mats));
	uint32_t n = 0, at = 0;
	const struct gk_mat *table;

	if (!mats)
		return -ENOMEM;
	for (uint32_t r = i; n < class->n; r++) {
		const struct rec_matmul *m = &p->recs[r]->matmul;

		for (uint32_t k = 0; k < m->h.n_jobs; k++, at++) {
			if (of[at] == c)
				memcpy(&mats[n++], &m->job[k].m->m, sizeof(*mats));
		}
	}
	table = gpu_mat_table(f->be, mats, class->n);
	free(mats);
	if (!table)
		return -ENOMEM;
	p->batches[p->n_batches] = (struct gpu_mat_batch){ .x = class->first->x,
		                                           .out = class->job->out,
		                                           .x_step = (uint64_t) class->x_step,
		                                           .out_step = (uint64_t) class->out_step,
		                                           .mats = table,
		                                           .n_mats = class->n,
		                                           .shape = class->job->m->m };
	p->launches[p->n_launches++] = (struct gpu_launch){ .kind = F_BATCH, .first = i, .batch = p->n_batches++ };
	return 0;
}

static bool can_batch(const union gpu_rec *r, uint16_t rows)
{
	if (r->h.op != OP_MATMUL || r->h.rows != rows)
		return false;
	for (uint32_t k = 0; k < r->h.n_jobs; k++) {
		if (r->matmul.job[k].bias || r->matmul.job[k].accumulate)
			return false;
	}
	return true;
}

/* Length of the run of products that begins at i and can be a few launches; their classes' sizes. */
static uint32_t batch_run(const struct fuser *f, uint32_t i, uint32_t *ret_jobs)
{
	uint32_t n = 0;

	*ret_jobs = 0;
	while (i + n < f->p->n_recs && can_batch(f->p->recs[i + n], f->p->recs[i]->h.rows))
		*ret_jobs += f->p->recs[i + n++]->h.n_jobs;
	return n >= MIN_BATCH ? n : 0;
}

/* The run's launches; 0: it is none. */
static int emit_batches(struct fuser *f, uint32_t i, uint32_t *ret_n)
{
	struct class classes[MAX_CLASSES];
	uint32_t n_jobs, n = batch_run(f, i, &n_jobs), n_classes;
	uint32_t *of;
	int r = 0;

	*ret_n = 0;
	if (n == 0)
		return 0;
	of = calloc(n_jobs, sizeof(*of));
	if (!of)
		return -ENOMEM;
	n_classes = sort_classes(f, i, n, classes, of);
	for (uint32_t c = 0; c < n_classes && r == 0; c++)
		r = add_batch(f, i, of, c, &classes[c]);
	free(of);
	*ret_n = n_classes ? n : 0;
	return r;
}

static void mark_batches(struct fuser *f)
{
	struct class classes[MAX_CLASSES];

	for (uint32_t i = 0; i < f->p->n_recs; i++) {
		uint32_t n_jobs, n = batch_run(f, i, &n_jobs);
		uint32_t *of = n ? calloc(n_jobs, sizeof(*of)) : NULL;

		if (of && sort_classes(f, i, n, classes, of)) {
			memset(f->batched + i, true, n);
			i += n - 1;
		}
		free(of);
	}
}

/* ---- All ---- */

static void plain(struct fuser *f)
{
	for (uint32_t i = 0; i < f->p->n_recs; i++)
		f->p->launches[f->p->n_launches++] =
		        (struct gpu_launch){ .kind = F_ONE, .first = i, .n = 1, .norm = NONE };
}

static int emit(struct fuser *f)
{
	struct gpu_program *p = f->p;
	int r = 0;

	for (uint32_t i = 0; i < p->n_recs && r == 0; i++) {
		const union gpu_rec *rec = p->recs[i];
		struct gpu_launch l = { .kind = F_ONE, .first = i, .n = 1, .norm = NONE };

		if (f->gone[i])
			continue;
		if (f->batched[i]) {
			uint32_t n;

			r = emit_batches(f, i, &n);
			i += n ? n - 1 : 0;
			continue;
		}
		l.n = rec->h.op == OP_NORM || rec->h.op == OP_MATMUL ? router_parts(f, i) : 0;
		if (l.n) {
			l.kind = F_ROUTER;
			for (uint32_t k = 1; k < l.n; k++)
				f->gone[i + k] = true;
			p->launches[p->n_launches++] = l;
			continue;
		}
		l.n = 1;
		if (rec->h.op == OP_MATMUL) {
			l.norm = f->norm_of[i];
			l.gated = f->gated[i];
			l.maker = f->made[i] ? i : 0;
			l.hands = f->hands[i];
			l.handed = f->handed[i];
			l.n = l.gated ? 2 : 1;
		} else if (adds_and_norms(f, i)) {
			l.kind = F_ADD_NORM;
			l.n = 2;
			f->gone[i + 1] = true;
		} else if (rec->h.op == OP_NORM || rec->h.op == OP_ROPE) {
			uint32_t n = fuse_qkv(f, i);

			if (n) {
				l.kind = F_QKV;
				l.n = n;
			}
		}
		p->launches[p->n_launches++] = l;
	}
	return r;
}

int gpu_fuse(struct gpu_backend *be, struct gpu_program *p)
{
	struct fuser f = { .be = be, .p = p };
	uint32_t n = p->n_recs ? p->n_recs : 1;
	int r = -ENOMEM;

	p->n_launches = p->n_batches = 0;
	if (be->no_fusion) {
		plain(&f);
		return 0;
	}
	f.norm_of = malloc(n * sizeof(*f.norm_of));
	f.gone = calloc(n, sizeof(*f.gone));
	f.gated = calloc(n, sizeof(*f.gated));
	f.made = calloc(n, sizeof(*f.made));
	f.hands = calloc(n, sizeof(*f.hands));
	f.handed = calloc(n, sizeof(*f.handed));
	f.batched = calloc(n, sizeof(*f.batched));
	if (f.norm_of && f.gone && f.gated && f.made && f.hands && f.handed && f.batched) {
		memset(f.norm_of, 0xff, n * sizeof(*f.norm_of));
		mark_batches(&f);
		for (uint32_t i = 0; i < p->n_recs; i++) {
			if (p->recs[i]->h.op == OP_NORM)
				fuse_norm(&f, i);
			else if (p->recs[i]->h.op == OP_MATMUL)
				fuse_gated(&f, i);
		}
		for (uint32_t i = 0; i < p->n_recs; i++) {
			if (p->recs[i]->h.op == OP_MATMUL)
				fuse_maker(&f, i);
		}
		for (uint32_t i = 0; i < p->n_recs; i++) {
			if (p->recs[i]->h.op == OP_MATMUL)
				fuse_hands(&f, i);
		}
		r = emit(&f);
	}
	free(f.norm_of);
	free(f.gone);
	free(f.gated);
	free(f.made);
	free(f.hands);
	free(f.handed);
	free(f.batched);
	return r;
}
