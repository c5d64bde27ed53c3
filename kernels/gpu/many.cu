/* Products of many rows: which tiles (many.h). */
#include <errno.h>

#include "gpu/linear.h"
#include "gpu/many.h"

bool many_launch_any(uint32_t type, const many_launch &l)
{
	return many_launch_16bit(type, l) || many_launch_blocks(type, l) || many_launch_k(type, l);
}

int many_of_job(const struct gk_ctx *ctx, const struct gk_linear *l, uint32_t j)
{
	many_args a = {};
	many_launch m = {};

	for (uint32_t i = 0; i < (l->gated ? 2u : 1u); i++) {
		const gk_job *job = &l->jobs[l->gated ? i : j];

		if (job->w.type != l->jobs[j].w.type)
			return -ENOTSUP;
		a.job[i].w = job->w;
		a.job[i].out = job->out;
		a.job[i].bias = job->bias;
		a.job[i].accumulate = job->accumulate;
	}
	a.act = l->act;
	a.gated = l->gated;
	a.x = l->x;
	a.x_async = l->x.elem == GK_BF16 && gk_view_aligned(l->x);
	a.rows = l->rows;
	m.ctx = ctx;
	m.args = &a;
	m.rows = l->jobs[j].w.rows;
	m.wide = l->rows.bound > 64;
	m.n_tiles = (l->rows.bound + (m.wide ? 127 : 63)) / (m.wide ? 128 : 64);
	if (!many_launch_any(l->jobs[j].w.type, m))
		return -EINVAL;
	return gk_launched();
}
