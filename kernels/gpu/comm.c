/* A group of ranks, and which way a message takes; see comm.h. */
#include <errno.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "gpu/comm_internal.h"
#include "gpu/issue.h"

/* Up to ONE_SHOT bytes our own launch is the quicker way, or so others have measured; a slot holds what is larger in
 * pieces where the library is not here. A program with a sum beyond CAPTURED (prompts of more than 256 rows or so)
 * gives all that are not small to the library, and is launched one by one every time: a graph that holds the library's
 * launches of several threads of a process has been seen to wait for ever. In all others every sum goes our way,
 * whether they are launched for the first time, captured or replayed: a rank that cannot capture when the others can
 * would wait for them in the library while they wait for it in a kernel. */
enum { ONE_SHOT = 512 << 10, CAPTURED = 2 << 20, SLOT_BYTES = 8 << 20 };

/* ---- Making it ---- */

static bool all_reach_all(struct gpu_backend *const *ranks, uint32_t n)
{
	bool all = true;

	for (uint32_t a = 0; a < n; a++) {
		for (uint32_t b = 0; b < n; b++)
			all = all && (a == b || gpu_rt_reach(&ranks[a]->rt, ranks[b]->rt.device) == 0);
	}
	return all;
}

static int make_spaces(struct gpu_comm *comm)
{
	char *spaces[KN_MAX_RANKS] = { NULL };
	size_t bytes = gk_comm_bytes(SLOT_BYTES);
	int r = 0;

	for (uint32_t i = 0; i < comm->n && r == 0; i++) {
		spaces[i] = gpu_rt_shared_alloc(&comm->ranks[i]->rt, bytes);
		comm->kernel[i].spaces[i] = spaces[i]; /* to be given back */
		r = spaces[i] ? gpu_rt_clear(&comm->ranks[i]->rt, spaces[i], bytes) : -ENOMEM;
		r = r < 0 ? r : gpu_rt_sync(&comm->ranks[i]->rt);
	}
	for (uint32_t i = 0; i < comm->n && r == 0; i++) {
		comm->kernel[i].rank = i;
		comm->kernel[i].n_ranks = comm->n;
		comm->kernel[i].slot_bytes = SLOT_BYTES;
		comm->kernel[i].broken = comm->broken;
		memcpy(comm->kernel[i].spaces, spaces, sizeof(spaces));
	}
	return r;
}

int gpu_comm_new(struct gpu_backend *const *ranks, uint32_t n, const struct gpu_open *o, struct err *err)
{
	struct gpu_comm *comm = calloc(1, sizeof(*comm));
	const char *kind = ranks[0]->ops.name;
	char reason[160] = "", text[320];
	int devices[KN_MAX_RANKS];

	if (!comm)
		return err_set(err, -ENOMEM, "backend %s: no memory", kind);
	comm->n = n;
	comm->note = o ? o->on_note : NULL;
	comm->one_shot_bytes = o && o->one_shot_bytes ? o->one_shot_bytes : ONE_SHOT;
	comm->captured_bytes = o && o->captured_bytes ? o->captured_bytes : CAPTURED;
	memcpy(comm->ranks, ranks, n * sizeof(ranks[0]));
	for (uint32_t i = 0; i < n; i++) {
		devices[i] = ranks[i]->rt.device;
		(void)pthread_mutex_init(&comm->state[i].lock, NULL);
	}
	comm->broken = gpu_rt_host_alloc(&ranks[0]->rt, 256);
	comm->has_peers = all_reach_all(ranks, n);
	if (comm->broken)
		*comm->broken = 0;
	if (!comm->broken || (comm->has_peers && make_spaces(comm) < 0)) {
		gpu_comm_free(comm);
		return err_set(err, -ENOMEM, "backend %s: no memory for what %u devices tell each other", kind, n);
	}
	if (getenv("OCAI_GPU_NCCL") && strcmp(getenv("OCAI_GPU_NCCL"), "0") == 0)
		(void)snprintf(reason, sizeof(reason), "OCAI_GPU_NCCL is 0");
	else if (ranks[0]->rt.stream)
		comm->nccl = gpu_nccl_open(kind, devices, n, reason, sizeof(reason));
	else
		(void)snprintf(reason, sizeof(reason), "these are no devices of a library's"); /* the host shim's */
	if (!comm->nccl && !comm->has_peers) {
		gpu_comm_free(comm);
		return err_set(err, -ENOTSUP, "backend %s: its devices cannot read each other's memory, and %s", kind,
		               reason);
	}
	if (!comm->nccl && comm->note) {
		(void)snprintf(text, sizeof(text), "%s: prompts go from device to device by kernels of our own",
		               reason);
		comm->note(kind, text);
	}
	for (uint32_t i = 0; i < n; i++)
		ranks[i]->comm = comm;
	gpu_comm_watch_start(comm, o ? o->watch_ms : 0);
	return 0;
}

void gpu_comm_free(struct gpu_comm *comm)
{
	if (!comm)
		return;
	gpu_comm_watch_stop(comm);
	/* Whoever still waits for another rank waits no longer. */
	if (comm->broken)
		__atomic_store_n(comm->broken, 1, __ATOMIC_SEQ_CST);
	for (uint32_t i = 0; i < comm->n; i++)
		(void)gpu_rt_sync(&comm->ranks[i]->rt);
	gpu_nccl_close(comm->nccl);
	for (uint32_t i = 0; i < comm->n; i++) {
		struct gpu_rt *rt = &comm->ranks[i]->rt;

		gpu_rt_shared_free(rt, comm->kernel[i].spaces[i]);
		gpu_rt_free(rt, comm->parts[i]);
		comm->ranks[i]->comm = NULL;
		(void)pthread_mutex_destroy(&comm->state[i].lock);
	}
	if (comm->broken)
		gpu_rt_host_free(&comm->ranks[0]->rt, comm->broken);
	free(comm);
}

void gpu_comm_break(struct gpu_comm *comm)
{
	if (__atomic_exchange_n(comm->broken, 1, __ATOMIC_SEQ_CST))
		return;
	gpu_nccl_abort(comm->nccl);
}

/* Ranks are some microseconds apart. */
static void meet(struct gpu_backend *be, enum gpu_comm_doing afterwards)
{
	struct gpu_comm *comm = be->comm;
	uint64_t all = ++comm->meets[be->base.rank] * comm->n;

	gpu_comm_says(be, COMM_MEETS);
	atomic_fetch_add(&comm->n_met, 1);
	while (atomic_load(&comm->n_met) < all && !comm_is_broken(comm))
		(void)sched_yield();
	gpu_comm_says(be, afterwards);
}

/* Who is one meeting ahead writes beside what is compared here, and nobody is two. */
int gpu_comm_meet(struct gpu_backend *be, const struct gpu_program *p, bool *ret_is_first)
{
	struct gpu_comm *comm = be->comm;
	uint64_t turn = comm->meets[be->base.rank] % 2;
	bool is_first = false;

	atomic_store(&comm->forms[turn][be->base.rank], p->form);
	atomic_store(&comm->firsts[turn][be->base.rank], p->n_runs == 0);
	meet(be, COMM_IDLE);
	for (uint32_t i = 0; i < comm->n && !comm_is_broken(comm); i++) {
		if (atomic_load(&comm->forms[turn][i]) != p->form)
			return -EPROTO;
		is_first |= atomic_load(&comm->firsts[turn][i]);
	}
	*ret_is_first = comm->by_step[be->base.rank] = is_first;
	return 0;
}

/* ---- What is planned ---- */

static bool is_for_library(const struct gpu_comm *comm, const struct rec_comm *r, struct gk_view x)
{
	return comm->nccl && (r->kind == COMM_GATHER || x.ld == r->dim);
}

static uint64_t mix(uint64_t h, uint64_t v)
{
	h = (h ^ v) * 0xbf58476d1ce4e5b9ull;
	return h ^ h >> 31;
}

int gpu_comm_plan(struct gpu_backend *be, struct gpu_program *p)
{
	const struct gpu_comm *comm = be->comm;
	if (!comm)
		return 0;
	p->messages = calloc(p->n_recs ? p->n_recs : 1, sizeof(*p->messages));
	if (!p->messages)
		return -ENOMEM;
	for (uint32_t i = 0; i < p->n_recs; i++) {
		const struct rec_comm *r = &p->recs[i]->comm;
		struct gpu_message *m = &p->messages[p->n_messages];
		struct gk_view x;
		uint64_t bytes;

		if (r->h.op != OP_COMM || r->kind == COMM_CLEAR)
			continue;
		x = gpu_view_of(be, p, &r->x);
		*m = (struct gpu_message){
			.kind = r->kind, .elem = x.elem, .rows = gpu_rows_of(be, r->h.rows).bound, .dim = r->dim
		};
		bytes = (uint64_t)m->rows * m->dim * (x.elem == GK_F32 ? 4 : 2);
		p->n_messages++;
		p->form = mix(mix(mix(p->form, r->kind << 8 | x.elem), (uint64_t)m->rows << 32 | r->dim), r->width);
		p->by_library |= is_for_library(comm, r, x) &&
		                 (!comm->has_peers ||
		                  (r->kind == COMM_REDUCE && bytes > comm->captured_bytes && !be->deterministic));
	}
	p->form = mix(p->form, p->by_library);
	for (uint32_t i = 0; i < p->n_messages; i++) {
		struct gpu_message *m = &p->messages[i];
		uint64_t bytes = (uint64_t)m->rows * m->dim * (m->elem == GK_F32 ? 4 : 2);

		m->sum = p->n_sums;
		if (!p->by_library || (comm->has_peers && (m->kind == COMM_GATHER || bytes <= comm->one_shot_bytes)))
			p->n_sums += gk_comm_launches(SLOT_BYTES, m->elem, m->rows, m->dim);
	}
	return 0;
}

/* ---- Messages ---- */

/* The library puts the ranks' parts behind each other, rows of x have them side by side. */
static int gather_by_library(struct gpu_backend *be, const struct rec_comm *g, struct gk_view x, struct gk_rows rows)
{
	struct gpu_comm *comm = be->comm;
	uint32_t rank = be->base.rank, elem_bytes = x.elem == GK_F32 ? 4 : 2;
	size_t part = (size_t)rows.bound * g->width;
	int r = gpu_room(be, &comm->parts[rank], &comm->parts_bytes[rank], part * elem_bytes * (comm->n + 1));

	for (uint32_t step = 0; step <= comm->n && r == 0; step++) {
		uint32_t who = step == 0 ? rank : step - 1, first = who * g->width;
		uint32_t n = first >= g->dim ? 0 : g->dim - first < g->width ? g->dim - first : g->width;
		struct gk_view columns = x, at = { .elem = x.elem, .ld = g->width };

		at.p = comm->parts[rank] + (step == 0 ? 0 : (1 + who) * part * elem_bytes);
		columns.p = (char *)x.p + (size_t)first * elem_bytes;
		if (n > 0 && step == 0)
			r = gk_convert(&be->ctx, at, columns, rows, n);
		else if (n > 0 && who != rank)
			r = gk_convert(&be->ctx, columns, at, rows, n);
		if (step == 0)
			r = r < 0 ? r
			          : gpu_nccl_all_gather(comm->nccl, rank, comm->parts[rank],
			                                comm->parts[rank] + part * elem_bytes, part, x.elem,
			                                be->rt.stream);
	}
	return r;
}

/* Rows beyond the actual ones are summed, too, and read by nobody. */
static int reduce(struct gpu_backend *be, const struct gpu_program *p, const struct rec_comm *s, struct gk_view x,
                  struct gk_rows rows)
{
	struct gpu_comm *comm = be->comm;
	size_t n = (size_t)rows.bound * s->dim, bytes = n * (x.elem == GK_F32 ? 4 : 2);

	if (p->by_library && is_for_library(comm, s, x) && (!comm->has_peers || bytes > comm->one_shot_bytes))
		return gpu_nccl_all_reduce(comm->nccl, be->base.rank, x.p, n, x.elem, be->rt.stream);
	return comm->has_peers ? gk_all_reduce(&be->ctx, &comm->kernel[be->base.rank], x, rows, s->dim) : -ENOTSUP;
}

static int gather(struct gpu_backend *be, const struct rec_comm *r, struct gk_view x, struct gk_rows rows)
{
	struct gpu_comm *comm = be->comm;

	return comm->has_peers ? gk_all_gather(&be->ctx, &comm->kernel[be->base.rank], x, rows, r->width, r->dim)
	                       : gather_by_library(be, r, x, rows);
}

int gpu_comm_issue(struct gpu_backend *be, const struct gpu_program *p, const struct rec_comm *r, struct gk_view x,
                   struct gk_rows rows)
{
	struct gpu_comm *comm = be->comm;
	bool by_step = comm && comm->by_step[be->base.rank] && !be->capturing;
	int e = 0;

	if (r->kind == COMM_CLEAR)
		return gk_clear(&be->ctx, x, rows, r->dim);
	if (!comm)
		return -EINVAL;
	if (by_step) {
		e = gpu_rt_sync(&be->rt);
		if (e == 0)
			meet(be, COMM_LAUNCHES);
	}
	if (e == 0 && comm_is_broken(comm))
		e = -EIO;
	if (e == 0)
		e = r->kind == COMM_REDUCE ? reduce(be, p, r, x, rows) : gather(be, r, x, rows);
	if (e == 0 && by_step)
		meet(be, COMM_LAUNCHES);
	return e;
}
