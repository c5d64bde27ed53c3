/* Everything that goes row by row: embedding, norms, sums, activations and conversions. */
#include <errno.h>

#include "gpu/mat_value.h"
#include "gpu/view.h"

enum { THREADS = 256 };

static unsigned blocks_for(size_t n, size_t each)
{
	return (unsigned)((n + each - 1) / each);
}

/* ---- Embedding ---------------------------------------------------------------------------------------------- */

static __global__ void embed_kernel(gk_view out, gk_mat m, const int32_t *ids, const kn_picked *picked, gk_rows rows,
                                    float scale)
{
	const uint32_t row = blockIdx.x;

	gpu_dependents_may_start();
	gpu_dependency_wait();
	if (row >= gk_n_rows(rows))
		return;

	const int32_t given = ids[row], id = given < 0 && picked ? picked[-1 - given].drawn : given;

	for (uint32_t c = blockIdx.y * blockDim.x + threadIdx.x; c < m.cols; c += gridDim.y * blockDim.x)
		gk_put(out, row, c, scale * (id >= 0 && (uint32_t)id < m.rows ? gk_value(m, (uint32_t)id, c) : 0.0f));
}

int gk_embed(const struct gk_ctx *ctx, struct gk_view out, const struct gk_mat *m, const int32_t *ids,
             const struct kn_picked *picked, struct gk_rows rows, float scale)
{
	const unsigned parts = rows.bound < 64 ? blocks_for(m->cols, THREADS * 2) : 1;

	gpu_launch(embed_kernel, dim3(rows.bound, parts), dim3(THREADS), 0, ctx->stream, ctx->overlap, out, *m, ids,
	           picked, rows, scale);
	return gk_launched();
}

/* ---- Norms ---------------------------------------------------------------------------------------------------- */

/* The row that output row `row` is made from. */
GPU_FN uint32_t source_row(const gk_norm &a, uint32_t row)
{
	return a.src ? (uint32_t)a.src[row] : row;
}

/* Eight values more onto those of the row at c, which are stored; the norm is of what was stored. */
GPU_FN void norm_add(const gk_norm &a, uint32_t row, uint32_t c, uint32_t end, bool whole, const float *more, float *x)
{
#pragma unroll
	for (int i = 0; i < 8; i++)
		x[i] += a.add_scale * more[i];
	gk_put8(a.x, row, c, end, whole, x);
	if (a.x.elem != GK_F32)
		gk_get8(a.x, row, c, end, whole, x);
}

/* One block for each row and head; a thread meets the same values in both passes, so the second reads what the first
 * wrote back. Values are taken eight at a time. */
template <bool LAYER> static __global__ void norm_block(gk_norm a, bool whole)
{
	__shared__ float scratch[32];
	const uint32_t row = blockIdx.x, first = blockIdx.y * a.dim, end = first + a.dim;
	float sum = 0.0f, mean = 0.0f;

	gpu_dependents_may_start();
	gpu_dependency_wait();
	if (row >= gk_n_rows(a.rows))
		return;

	const uint32_t from = source_row(a, row);

	for (uint32_t c = first + threadIdx.x * 8; c < end; c += blockDim.x * 8) {
		const bool w8 = whole && c + 8 <= end;
		float x[8];

		gk_get8(a.x, from, c, end, w8, x);
		if (a.add.p) {
			float y[8];

			gk_get8(a.add, row, c, end, w8, y);
			norm_add(a, from, c, end, w8, y, x);
		}
#pragma unroll
		for (int i = 0; i < 8; i++)
			sum += LAYER ? x[i] : x[i] * x[i];
	}
	sum = gpu_block_sum(sum, scratch);
	if (LAYER) {
		mean = sum / (float)a.dim;
		sum = 0.0f;
		for (uint32_t c = first + threadIdx.x * 8; c < end; c += blockDim.x * 8) {
			float x[8];

			gk_get8(a.x, from, c, end, whole && c + 8 <= end, x);
#pragma unroll
			for (uint32_t i = 0; i < 8; i++)
				sum += c + i < end ? (x[i] - mean) * (x[i] - mean) : 0.0f;
		}
		sum = gpu_block_sum(sum, scratch);
	}

	const float scale = 1.0f / sqrtf(sum / (float)a.dim + a.eps);

	for (uint32_t c = first + threadIdx.x * 8; c < end; c += blockDim.x * 8) {
		const bool w8 = whole && c + 8 <= end;
		float x[8];

		gk_get8(a.x, from, c, end, w8, x);
#pragma unroll
		for (uint32_t i = 0; i < 8; i++) {
			const uint32_t d = c + i - first;

			if (c + i >= end)
				break;
			x[i] = (x[i] - mean) * scale * (a.w ? a.w[d] : 1.0f) + (LAYER ? a.b[d] : 0.0f);
		}
		gk_put8(a.out, row, c, end, w8, x);
	}
}

/* RMSNorm of rows that a block has all of: a thread's eight values stay in registers. Whether the row is there is asked
 * for together with its values, as memory is there in any case; but those that `src` names may not be. */
static __global__ void __launch_bounds__(512, 3) norm_kept(GPU_PARAM gk_norm a, bool whole)
{
	__shared__ float scratch[32];
	const uint32_t row = blockIdx.x, d = threadIdx.x * 8, end = (blockIdx.y + 1) * a.dim,
	               c = blockIdx.y * a.dim + d;
	const bool mine = d < a.dim, eight = whole && d + 8 <= a.dim, add = a.add.p;
	float x[8] = { 0, 0, 0, 0, 0, 0, 0, 0 }, y[8] = { 0, 0, 0, 0, 0, 0, 0, 0 }, w[8] = { 1, 1, 1, 1, 1, 1, 1, 1 };
	float sum = 0.0f;
	uint32_t n_rows, from = row;

	gpu_dependents_may_start();
	if (mine && a.w)
		gk_get8(gk_view{ (void *)a.w, GK_F32, 0 }, 0, d, a.dim, eight && ((uintptr_t)a.w & 15) == 0, w);
	gpu_dependency_wait();
	n_rows = gk_n_rows(a.rows);
	if (a.src) {
		if (row >= n_rows)
			return;
		from = (uint32_t)a.src[row];
	}
	if (mine)
		gk_get8(a.x, from, c, end, eight, x);
	if (mine && add)
		gk_get8(a.add, row, c, end, eight, y);
	if (row >= n_rows)
		return;
	if (mine && add)
		norm_add(a, from, c, end, eight, y, x);
#pragma unroll
	for (int i = 0; i < 8; i++)
		sum += x[i] * x[i];
	sum = gpu_block_sum(sum, scratch);

	const float scale = 1.0f / sqrtf(sum / (float)a.dim + a.eps);

	if (!mine)
		return;
#pragma unroll
	for (int i = 0; i < 8; i++)
		x[i] = x[i] * scale * w[i];
	gk_put8(a.out, row, c, end, eight, x);
}

/* Short groups: 32 lanes for each row and head. */
static __global__ void norm_group(gk_norm a)
{
	const uint32_t item = (blockIdx.x * blockDim.x + threadIdx.x) / GPU_GROUP, lane = threadIdx.x & 31;
	const uint32_t row = item / a.n_head, first = item % a.n_head * a.dim;
	float sum = 0.0f;

	gpu_dependents_may_start();
	gpu_dependency_wait();
	if (row >= gk_n_rows(a.rows))
		return;

	const uint32_t from = source_row(a, row);

	for (uint32_t d = lane; d < a.dim; d += GPU_GROUP) {
		const float x = gk_get(a.x, from, first + d);

		sum += x * x;
	}

	const float scale = 1.0f / sqrtf(gpu_group_sum(sum) / (float)a.dim + a.eps);

	for (uint32_t d = lane; d < a.dim; d += GPU_GROUP)
		gk_put(a.out, row, first + d, gk_get(a.x, from, first + d) * scale * (a.w ? a.w[d] : 1.0f));
}

/* A block of as many threads as a row has eights, in steps of 64. */
static unsigned norm_threads(uint32_t dim)
{
	const unsigned eights = (dim + 7) / 8, t = (eights + 63) / 64 * 64;

	return t > 512 ? 512 : t;
}

static bool norm_whole(const gk_norm *n)
{
	return gk_view_aligned(n->x) && gk_view_aligned(n->out) && (!n->add.p || gk_view_aligned(n->add)) &&
	       n->dim % 8 == 0;
}

int gk_rmsnorm(const struct gk_ctx *ctx, const struct gk_norm *n)
{
	if (n->n_head == 0 || n->dim == 0 || (n->add.p && (n->src || n->n_head != 1)))
		return -EINVAL;
	if ((n->dim > 512 || n->add.p) && n->dim <= 8 * norm_threads(n->dim))
		gpu_launch(norm_kept, dim3(n->rows.bound, n->n_head), dim3(norm_threads(n->dim)), 0, ctx->stream,
		           ctx->overlap, *n, norm_whole(n));
	else if (n->dim > 512 || n->add.p)
		gpu_launch(norm_block<false>, dim3(n->rows.bound, n->n_head), dim3(norm_threads(n->dim)), 0, ctx->stream,
		           ctx->overlap, *n, norm_whole(n));
	else
		gpu_launch(norm_group, dim3(blocks_for((size_t)n->rows.bound * n->n_head, 4)), dim3(128), 0, ctx->stream,
		           ctx->overlap, *n);
	return gk_launched();
}

int gk_layernorm(const struct gk_ctx *ctx, const struct gk_norm *n)
{
	if (n->add.p || !n->w || !n->b || n->dim == 0)
		return -EINVAL;
	gpu_launch(norm_block<true>, dim3(n->rows.bound, n->n_head ? n->n_head : 1), dim3(norm_threads(n->dim)), 0,
	           ctx->stream, ctx->overlap, *n, norm_whole(n));
	return gk_launched();
}

/* ---- Sums, activations, conversions: one thread for eight values -------------------------------------------- */

enum pointwise { ADD, ACT, CONVERT };

template <int WHAT>
static __global__ void pointwise_kernel(gk_view out, gk_view x, gk_view y, gk_rows rows, uint32_t dim, uint32_t act,
                                        float scale, bool whole)
{
	const uint32_t n8 = (dim + 7) / 8;
	const size_t i = (size_t)blockIdx.x * blockDim.x + threadIdx.x;
	const uint32_t row = (uint32_t)(i / n8), c = (uint32_t)(i % n8) * 8;
	float a[8], b[8];

	uint32_t n_rows;

	gpu_dependents_may_start();
	gpu_dependency_wait();
	if (row >= rows.bound)
		return;
	n_rows = gk_n_rows(rows); /* asked for together with the values: memory is there for all rows */
	whole = whole && c + 8 <= dim;
	gk_get8(x, row, c, dim, whole, a);
	if (y.p)
		gk_get8(y, row, c, dim, whole, b);
	if (row >= n_rows)
		return;
#pragma unroll
	for (int k = 0; k < 8; k++) {
		if (WHAT == ADD)
			a[k] += scale * b[k];
		if (WHAT == ACT)
			a[k] = gk_act(act, a[k], y.p ? b[k] : 1.0f);
	}
	gk_put8(out, row, c, dim, whole, a);
}

template <int WHAT>
static int pointwise_launch(const struct gk_ctx *ctx, gk_view out, gk_view x, gk_view y, gk_rows rows, uint32_t dim,
                            uint32_t act, float scale)
{
	const bool whole = gk_view_aligned(out) && gk_view_aligned(x) && (!y.p || gk_view_aligned(y));

	gpu_launch(pointwise_kernel<WHAT>, dim3(blocks_for((size_t)rows.bound * ((dim + 7) / 8), THREADS)), dim3(THREADS),
	           0, ctx->stream, ctx->overlap, out, x, y, rows, dim, act, scale, whole);
	return gk_launched();
}

int gk_add(const struct gk_ctx *ctx, struct gk_view x, struct gk_view y, struct gk_rows rows, uint32_t dim, float scale)
{
	return pointwise_launch<ADD>(ctx, x, x, y, rows, dim, 0, scale);
}

int gk_act_mul(const struct gk_ctx *ctx, uint32_t act, struct gk_view out, struct gk_view gate, struct gk_view up,
               struct gk_rows rows, uint32_t dim)
{
	return pointwise_launch<ACT>(ctx, out, gate, up, rows, dim, act, 1.0f);
}

int gk_convert(const struct gk_ctx *ctx, struct gk_view dst, struct gk_view src, struct gk_rows rows, uint32_t dim)
{
	return pointwise_launch<CONVERT>(ctx, dst, src, gk_view{ nullptr, 0, 0 }, rows, dim, 0, 1.0f);
}
