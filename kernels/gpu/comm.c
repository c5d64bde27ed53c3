/* A group of ranks, and which way a message takes; see comm.h. */
#include <errno.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "gpu/comm.h"
#include "gpu/issue.h"
#include "gpu/nccl.h"

/* Up to ONE_SHOT bytes our own launch is the quicker way, or so others have measured; a slot holds what is larger in
 * pieces where the library is not here. */
enum { ONE_SHOT = 512 << 10, SLOT_BYTES = 8 << 20 };

struct gpu_comm {
	uint32_t n;
	struct gpu_backend *ranks[KN_MAX_RANKS];
	struct gk_comm kernel[KN_MAX_RANKS]; /* of each rank; spaces NULL: devices do not reach each other */
	bool has_peers;
	struct gpu_nccl *nccl;        /* NULL: not here */
	uint32_t *broken;             /* pinned; written by gpu_comm_break() */
	_Atomic uint64_t n_met;       /* arrivals at gpu_comm_meet() of all ranks */
	uint64_t meets[KN_MAX_RANKS]; /* each rank's own */
	/* For gathers by the library, of each rank: its own part, then everybody's. */
	char *parts[KN_MAX_RANKS];
	size_t parts_bytes[KN_MAX_RANKS];
};

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

int gpu_comm_new(struct gpu_backend *const *ranks, uint32_t n, void (*note)(const char *kind, const char *text),
                 struct err *err)
{
	struct gpu_comm *comm = calloc(1, sizeof(*comm));
	const char *kind = ranks[0]->ops.name;
	char reason[160] = "", text[320];
	int devices[KN_MAX_RANKS];

	if (!comm)
		return err_set(err, -ENOMEM, "backend %s: no memory", kind);
	comm->n = n;
	memcpy(comm->ranks, ranks, n * sizeof(ranks[0]));
	for (uint32_t i = 0; i < n; i++)
		devices[i] = ranks[i]->rt.device;
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
	if (!comm->nccl && note) {
		(void)snprintf(text, sizeof(text), "%s: prompts go from device to device by kernels of our own",
		               reason);
		note(kind, text);
	}
	for (uint32_t i = 0; i < n; i++)
		ranks[i]->comm = comm;
	return 0;
}

void gpu_comm_free(struct gpu_comm *comm)
{
	if (!comm)
		return;
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

static bool is_broken(const struct gpu_comm *comm)
{
	return __atomic_load_n(comm->broken, __ATOMIC_ACQUIRE);
}

/* Ranks are some microseconds apart. */
void gpu_comm_meet(struct gpu_backend *be)
{
	struct gpu_comm *comm = be->comm;
	uint64_t all = ++comm->meets[be->base.rank] * comm->n;

	atomic_fetch_add(&comm->n_met, 1);
	while (atomic_load(&comm->n_met) < all && !is_broken(comm))
		(void)sched_yield();
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

static int reduce(struct gpu_backend *be, const struct rec_comm *s, struct gk_view x, struct gk_rows rows)
{
	struct gpu_comm *comm = be->comm;
	size_t n = (size_t)rows.bound * s->dim, bytes = n * (x.elem == GK_F32 ? 4 : 2);

	/* Rows beyond the actual ones are summed, too, and read by nobody. In graphs sums go our way: one that holds
	 * the library's launches of several threads of a process has been seen to wait for ever. */
	if (comm->nccl && x.ld == s->dim &&
	    (!comm->has_peers || (bytes > ONE_SHOT && !be->deterministic && !be->capturing)))
		return gpu_nccl_all_reduce(comm->nccl, be->base.rank, x.p, n, x.elem, be->rt.stream);
	return comm->has_peers ? gk_all_reduce(&be->ctx, &comm->kernel[be->base.rank], x, rows, s->dim) : -ENOTSUP;
}

int gpu_comm_issue(struct gpu_backend *be, const struct rec_comm *r, struct gk_view x, struct gk_rows rows)
{
	struct gpu_comm *comm = be->comm;

	if (r->kind == COMM_CLEAR)
		return gk_clear(&be->ctx, x, rows, r->dim);
	if (!comm)
		return -EINVAL;
	if (is_broken(comm))
		return -EIO;
	if (r->kind == COMM_REDUCE)
		return reduce(be, r, x, rows);
	return comm->has_peers ? gk_all_gather(&be->ctx, &comm->kernel[be->base.rank], x, rows, r->width, r->dim)
	                       : gather_by_library(be, r, x, rows);
}
