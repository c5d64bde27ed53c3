/* Several matrices on one input are one product where they lie behind one another in memory, if only their outputs
 * stood side by side: q, k and v, gate and up. Callers have a buffer for each. Kept in bfloat16 each buffer is half
 * empty, so all of a row's outputs fit into the first one's memory: there they are put, and everybody else of the
 * program looks for them there. */
#include <stdlib.h>
#include <string.h>

#include "gpu/backend.h"
#include "gpu/gemm.h"

/* The product's outputs can stand side by side: whole rows each, in bfloat16, beginning where their allocations do. */
static bool can_join(const struct gpu_backend *be, const struct gpu_program *p, const union gpu_rec *rec)
{
	uint64_t width = 0;

	if (rec->h.op != OP_MATMUL || rec->h.n_jobs < 2 || gpu_is_few(be, rec))
		return false;
	for (uint32_t i = 0; i < rec->h.n_jobs; i++) {
		const struct rec_job *j = &rec->matmul.job[i];

		if (!(gpu_gemm_takes(be, p, rec, j) || gpu_gemm8_takes(be, rec, j)) || j->accumulate ||
		    !p->is_bf16[j->out.alloc] || j->out.off != 0 || j->out.ld != j->m->m.rows || j->m->m.rows % 8 != 0)
			return false;
		for (uint32_t k = 0; k < i; k++) {
			if (rec->matmul.job[k].out.alloc == j->out.alloc)
				return false;
		}
		width += j->m->m.rows;
	}
	return width <= 2ull * rec->matmul.job[0].m->m.rows;
}

/* Gives the outputs their places, or finds that they have the same ones already. */
static bool place(struct gpu_program *p, const union gpu_rec *rec)
{
	uint32_t home = rec->matmul.job[0].out.alloc, column = 0, ld = 0;
	bool fresh = p->place[home].ld == 0, same = true;

	for (uint32_t i = 0; i < rec->h.n_jobs; i++)
		ld += rec->matmul.job[i].m->m.rows;
	for (uint32_t i = 0; i < rec->h.n_jobs; i++) {
		const struct rec_job *j = &rec->matmul.job[i];
		struct gpu_place *at = &p->place[j->out.alloc];
		const struct gpu_place want = { home, column, ld, j->m->m.rows };

		if (fresh && at->ld == 0)
			*at = want;
		same &= at->home == want.home && at->column == want.column && at->ld == ld && at->width == want.width;
		column += j->m->m.rows;
	}
	return same;
}

/* Nobody may see a placed allocation otherwise than as its rows from the first value on. */
static bool agrees(const struct gpu_program *p, const union gpu_rec *rec)
{
	struct gpu_access list[MAX_ACCESSES];
	uint32_t n = gpu_accesses(rec, list);

	for (uint32_t k = 0; k < n; k++) {
		const struct gpu_place *at = &p->place[list[k].act->alloc];

		if (at->ld && (list[k].act->off != 0 || list[k].act->ld != at->width || list[k].width > at->width))
			return false;
	}
	return true;
}

void gpu_join_outputs(struct gpu_backend *be, struct gpu_program *p)
{
	bool all = true;

	if (be->no_fusion)
		return;
	for (uint32_t i = 0; i < p->n_recs && all; i++)
		all = !can_join(be, p, p->recs[i]) || place(p, p->recs[i]);
	for (uint32_t i = 0; i < p->n_recs && all; i++)
		all = agrees(p, p->recs[i]);
	if (!all)
		memset(p->place, 0, p->n_allocs * sizeof(*p->place));
}
