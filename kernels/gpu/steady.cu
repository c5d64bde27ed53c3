/* Products whose bits do not depend on the number of rows: few.h up to GK_FEW_ROWS of them, steady.h beyond. */
#include "gpu/steady.h"

#include "gpu/linear.h"

/* The totals of the groups, in their order. One thread for a row of W and a row of x. */
static __global__ void steady_sum_kernel(GPU_PARAM steady_args a)
{
	const uint32_t row = blockIdx.x * blockDim.x + threadIdx.x, i = blockIdx.y, n_out = a.job[0].w.rows;
	const uint32_t planes = a.gated ? 2 : 1;
	const size_t plane = (size_t)a.n_rows * n_out, at = (size_t)i * n_out + row;
	float y = 0.0f, up = 0.0f;

	gpu_dependents_may_start();
	gpu_dependency_wait();
	if (row >= n_out)
		return;
	for (uint32_t z = 0; z < a.n_groups; z++) {
		y += a.parts[z * planes * plane + at];
		if (a.gated)
			up += a.parts[(z * planes + 1) * plane + at];
	}
	steady_put(a, i, row, y, up);
}

/* Whether steady_sm90.h makes these products. */
static bool on_warpgroups(const struct gk_ctx *ctx, uint32_t type)
{
#if defined(GPU_CUDA) || defined(GPU_HOST)
	return ctx->sm == 90 && ctx->warp == 32 &&
	       (type == KN_BF16 || type == GK_FP8_128 || type == KN_Q8_0 || type == KN_Q4_0);
#else
	(void)ctx, (void)type;
	return false;
#endif
}

/* A block of warpgroups asks for enough of the weights ahead to do with a multiprocessor; up to 64 rows of x two of
 * them share one. */
static uint32_t groups_on_warpgroups(const struct gk_ctx *ctx, const struct gk_mat *w, uint32_t n_tiles)
{
	enum { LEAST_UNITS = 16, MOST = 8 };
	uint32_t n = 1;

#if defined(GPU_HOST)
	return n; /* it has no clusters */
#endif
	while (n < MOST && n_tiles * n * 10 < ctx->n_sm * 9 && gk_n_units(*w) >= LEAST_UNITS * 2 * n)
		n *= 2;
	return n;
}

/* As many groups as make the device's blocks busy, where each has something to do: by rounds of blocks that a whole sum
 * takes, and a little for each group's way through memory. */
uint32_t steady_groups(const struct gk_ctx *ctx, const struct gk_mat *w, bool gated)
{
	enum { LEAST_UNITS = 16, PER_SM = 2 };
	const uint32_t per_tile = gated ? STEADY_ROWS / 2 : STEADY_ROWS, n_tiles = (w->rows + per_tile - 1) / per_tile;
	const uint32_t most = STEADY_THREADS / ctx->warp;
	uint32_t best = 1;
	float least = (float)((n_tiles + ctx->n_sm - 1) / ctx->n_sm);

	if (on_warpgroups(ctx, w->type))
		return groups_on_warpgroups(ctx, w, n_tiles);
	for (uint32_t n = 2; n <= most && n_tiles * n <= PER_SM * ctx->n_sm && gk_n_units(*w) >= LEAST_UNITS * n;
	     n *= 2) {
		const uint32_t rounds = (n_tiles * n + ctx->n_sm - 1) / ctx->n_sm;
		const float cost = (float)rounds / (float)n * (1.0f + 0.04f * (float)(n - 1));

		if (cost < least) {
			least = cost;
			best = n;
		}
	}
	return best;
}

/* Totals of groups never take more. */
size_t steady_scratch_bytes(const struct gk_ctx *ctx, uint32_t max_rows, uint32_t max_cols)
{
	const size_t rows = max_rows < STEADY_MOST_ROWS ? max_rows : (size_t)STEADY_MOST_ROWS;
	const size_t columns = rows * ((size_t)max_cols + 512) * 2 + rows * (max_cols / 32 + 64) * 4;
	/* x once more, in whole tiles: steady_sm90.h */
	const size_t image = (rows + 127) / 128 * 128 * ((size_t)max_cols + 512) * 2;

	return columns + image + rows * STEADY_ROWS * 2 * ctx->n_sm * sizeof(float) + 1024;
}

/* Columns of x in the scratch, and what is left of that. */
static uint8_t *make_columns(const struct gk_ctx *ctx, const struct gk_linear *l, steady_args *a)
{
	const size_t data = (size_t)a->n_rows * a->cols.col_stride * 16,
	             sums = ((size_t)a->n_rows * a->cols.n_chunks + 15) / 16 * 64;

	if (data + sums > ctx->scratch_bytes)
		return nullptr;
	a->cols.data = (uint4 *)ctx->scratch;
	a->cols.sums = (float *)((uint8_t *)ctx->scratch + data);
	linear_columns(ctx, a->cols, a->job[0].w.type, a->n_rows, l->x, a->job[0].w.cols);
	return (uint8_t *)ctx->scratch + data + sums;
}

/* Job j, with l->gated both; at most STEADY_MOST_ROWS rows. */
static int steady_of_job(const struct gk_ctx *ctx, const struct gk_linear *l, uint32_t j)
{
	const uint32_t type = l->jobs[j].w.type;
	steady_args a = {};
	steady_launch launch = { ctx, &a, l->rows.bound > 64, 0 };
	uint8_t *room = (uint8_t *)ctx->scratch;
	int r;

	for (uint32_t i = 0; i < (l->gated ? 2u : 1u); i++) {
		const struct gk_job *job = &l->jobs[l->gated ? i : j];

		a.job[i].w = job->w;
		a.job[i].out = job->out;
		a.job[i].bias = job->bias;
		a.job[i].accumulate = job->accumulate;
	}
	a.act = l->act;
	a.gated = l->gated;
	a.x = l->x;
	a.n_rows = l->rows.bound;
	a.n_groups = steady_groups(ctx, &a.job[0].w, l->gated);
	a.cols.n_chunks = gk_n_units(a.job[0].w) * gk_unit(type) / 32;
	a.cols.col_stride = (a.cols.n_chunks | 1) * 4;
	a.cols.parts = 1;
	if (gk_order(type) != 0 || ((l->x.elem != GK_BF16 || !gk_view_aligned(l->x)) && !on_warpgroups(ctx, type))) {
		room = make_columns(ctx, l, &a);
		if (!room)
			return -EINVAL;
	}
#if defined(GPU_CUDA) || defined(GPU_HOST)
	if (on_warpgroups(ctx, type)) {
		a.image = (uint8_t *)ctx->scratch + (((size_t)(room - (uint8_t *)ctx->scratch) + 127) & ~(size_t)127);
		launch.room = ctx->scratch_bytes - (size_t)((uint8_t *)a.image - (uint8_t *)ctx->scratch);
		r = steady_launch_sm90(type, launch);
		return r < 0 ? r : gk_launched();
	}
#endif
	if (a.n_groups > 1) {
		const size_t bytes =
		        (size_t)a.n_groups * (l->gated ? 2 : 1) * a.n_rows * a.job[0].w.rows * sizeof(float);

		if (room + bytes > (uint8_t *)ctx->scratch + ctx->scratch_bytes)
			return -EINVAL;
		a.parts = (float *)room;
	}
	r = steady_launch_16bit(type, launch);
	r = r == -ENOTSUP ? steady_launch_blocks(type, launch) : r;
	r = r == -ENOTSUP ? steady_launch_k(type, launch) : r;
	if (r < 0)
		return r;
	if (a.n_groups > 1)
		gpu_launch(steady_sum_kernel, dim3((a.job[0].w.rows + 255) / 256, a.n_rows), dim3(256), 0, ctx->stream,
		           ctx->overlap, a);
	return gk_launched();
}

static struct gk_view rows_from(struct gk_view v, uint32_t row)
{
	v.p = (uint8_t *)v.p + (size_t)row * v.ld * (v.elem == GK_F32 ? 4 : 2);
	return v;
}

/* `most` rows at a time of these jobs. */
static int in_pieces(const struct gk_ctx *ctx, const struct gk_linear *l, uint32_t most,
                     int (*go)(const struct gk_ctx *ctx, const struct gk_linear *l))
{
	struct gk_job jobs[GK_MAX_JOBS];
	struct gk_linear piece = *l;
	int r = 0;

	for (uint32_t first = 0; first < l->rows.bound && r == 0; first += most) {
		const uint32_t left = l->rows.bound - first;

		piece.x = rows_from(l->x, first);
		piece.rows.bound = left < most ? left : most;
		piece.rows.n = nullptr;
		piece.jobs = jobs;
		for (uint32_t j = 0; j < l->n_jobs; j++) {
			jobs[j] = l->jobs[j];
			jobs[j].out = rows_from(jobs[j].out, first);
		}
		r = go(ctx, &piece);
	}
	return r;
}

static int many_at_once(const struct gk_ctx *ctx, const struct gk_linear *l)
{
	int r = 0;

	for (uint32_t j = 0; j < (l->gated ? 1 : l->n_jobs) && r == 0; j++) {
		struct gk_linear one = *l;

		if (!l->gated) {
			one.jobs = &l->jobs[j];
			one.n_jobs = 1;
		}
		if (one.rows.bound <= GK_FEW_ROWS)
			r = gk_linear_few(ctx, &one);
		else if (one.jobs[0].w.type == KN_F32)
			r = gk_linear_many(ctx, &one, true); /* row by row, as there */
		else
			r = steady_of_job(ctx, &one, 0);
		if (r == -E2BIG) /* the same bits, slower */
			r = in_pieces(ctx, &one, GK_FEW_ROWS, gk_linear_few);
	}
	return r;
}

int gk_linear_steady(const struct gk_ctx *ctx, const struct gk_linear *l)
{
	if (!ctx->fixed || l->norm || l->n_jobs == 0 || l->n_jobs > GK_MAX_JOBS || l->rows.bound == 0 ||
	    (l->gated && (l->n_jobs != 2 || l->jobs[0].w.rows != l->jobs[1].w.rows)))
		return -EINVAL;
	if (l->gated && l->jobs[0].w.type != l->jobs[1].w.type)
		return -ENOTSUP;
	if (l->rows.bound <= GK_FEW_ROWS)
		return gk_linear_few(ctx, l);
	return in_pieces(ctx, l, STEADY_MOST_ROWS, many_at_once);
}
