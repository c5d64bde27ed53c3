/* The table's operations between the ranks of a group; see record.c and comm.h. */
#include "gpu/backend.h"

static void record(struct kn_backend *base, enum gpu_comm_op kind, float *x, size_t ld_x, size_t n, size_t width,
                   size_t total, const char *op)
{
	struct gpu_backend *be = gpu_of(base);
	struct rec_comm *r = gpu_record_rows(be, OP_COMM, sizeof(*r), n);

	if (!r)
		return;
	r->kind = kind;
	r->x = gpu_record_act(be, x, ld_x, total, r->h.rows, op);
	r->width = (uint32_t)width;
	r->dim = (uint32_t)total;
}

static void rec_clear(struct kn_backend *base, float *x, size_t ld_x, size_t n, size_t dim)
{
	record(base, COMM_CLEAR, x, ld_x, n, dim, dim, "clear");
}

static void rec_all_reduce(struct kn_backend *base, float *x, size_t ld_x, size_t n, size_t dim)
{
	record(base, COMM_REDUCE, x, ld_x, n, dim, dim, "all_reduce");
}

static void rec_all_gather(struct kn_backend *base, float *x, size_t ld_x, size_t n, size_t width, size_t total)
{
	record(base, COMM_GATHER, x, ld_x, n, width, total, "all_gather");
}

void gpu_record_comm_ops(struct kn_ops *ops)
{
	ops->clear = rec_clear;
	ops->all_reduce = rec_all_reduce;
	ops->all_gather = rec_all_gather;
}
