/* Products of many rows: which tiles (many.h). */
#include <errno.h>

#include "gpu/linear.h"
#include "gpu/many.h"

bool many_launch_any(uint32_t type, const many_launch &l)
{
	return many_launch_16bit(type, l) || many_launch_blocks(type, l) || many_launch_k(type, l);
}

/* Sums of the shares' results, and what follows a product. One thread for a row of W and a row of x. */
static __global__ void shares_kernel(GPU_PARAM many_args a, uint32_t n_shares)
{
	const uint32_t row = blockIdx.x * blockDim.x + threadIdx.x, i = blockIdx.y, n_out = a.job[0].w.rows;
	const uint32_t planes = a.gated ? 2 : 1;
	const size_t plane = (size_t)a.rows.bound * n_out, at = (size_t)i * n_out + row;
	float y[2] = { 0.0f, 0.0f };

	gpu_dependents_may_start();
	gpu_dependency_wait();
	if (row >= n_out || i >= gk_n_rows(a.rows))
		return;
	for (uint32_t s = 0; s < n_shares; s++) {
		y[0] += a.parts[s * planes * plane + at];
		if (a.gated)
			y[1] += a.parts[(s * planes + 1) * plane + at];
	}
	for (uint32_t g = 0; g < planes; g++)
		y[g] += a.job[g].bias ? a.job[g].bias[row] : 0.0f;
	if (a.gated)
		y[0] = gk_act(a.act, y[0], y[1]);
	gk_put(a.job[0].out, i, row, a.job[0].accumulate ? gk_get(a.job[0].out, i, row) + y[0] : y[0]);
}

/* Shares of the columns: as many as fill the device, of which each has enough to do and its results a place. */
static uint32_t shares_of(const struct gk_ctx *ctx, const many_launch &m, uint32_t n_units)
{
	enum { LEAST_UNITS = 8 };
	const uint32_t per_tile = m.args->gated ? MANY_ROWS / 2 : MANY_ROWS;
	const uint32_t n_blocks = (m.rows + per_tile - 1) / per_tile * m.n_tiles;
	const size_t each = (size_t)m.args->rows.bound * m.rows * (m.args->gated ? 2 : 1) * sizeof(float);
	uint32_t n = ctx->n_sm * (m.wide ? (uint32_t)many_blocks<128>::PER_SM : (uint32_t)many_blocks<64>::PER_SM) /
	             n_blocks;

	if (ctx->fixed || n < 2)
		return 1;
	if (n > n_units / LEAST_UNITS)
		n = n_units / LEAST_UNITS;
	if (n * each > ctx->scratch_bytes)
		n = (uint32_t)(ctx->scratch_bytes / each);
	return n < 2 ? 1 : n;
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
	m.n_shares = shares_of(ctx, m, gk_n_units(a.job[0].w));
	a.parts = m.n_shares > 1 ? (float *)ctx->scratch : nullptr;
	if (!many_launch_any(l->jobs[j].w.type, m))
		return -EINVAL;
	if (m.n_shares > 1)
		gpu_launch(shares_kernel, dim3((m.rows + 255) / 256, a.rows.bound), dim3(256), 0, ctx->stream,
		           ctx->overlap, a, m.n_shares);
	return gk_launched();
}
