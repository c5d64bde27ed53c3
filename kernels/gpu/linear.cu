/* Products of rows with matrices: which kernel for how many rows, and float32 arithmetic where it is asked for. */
#include <errno.h>

#include "gpu/few8.h"
#include "gpu/linear.h"
#include "gpu/mat_value.h"

/* ---- Few rows --------------------------------------------------------------------------------------------------- */

/* Columns in the scratch, for many rows or long ones: one block for each row. */
static __global__ void columns_kernel(few_columns cols, uint32_t order, gk_view x, uint32_t n_cols, bool norm,
                                      gk_view norm_w, float eps, bool whole)
{
	__shared__ float scratch[32];
	float square;

	gpu_dependents_may_start();
	gpu_dependency_wait();
	square = few_make_columns(cols, order, blockIdx.x, x, blockIdx.x, n_cols, norm_w, whole);
	if (norm) {
		square = gpu_block_sum(square, scratch);
		if (threadIdx.x == 0)
			cols.scale[blockIdx.x] = 1.0f / sqrtf(square / (float)n_cols + eps);
	}
}

void linear_columns(const struct gk_ctx *ctx, const few_columns &cols, uint32_t type, uint32_t n_rows, const gk_view &x,
                    uint32_t n_cols)
{
	gpu_launch(columns_kernel, dim3(n_rows), dim3(512), 0, ctx->stream, ctx->overlap, cols, gk_order(type), x, n_cols, false,
	           gk_view{}, 0.0f, gk_view_aligned(x));
}

bool few_launch_any(uint32_t type, const few_launch &l)
{
	return few_launch_16bit(type, l) || few_launch_fp8(type, l) || few_launch_blocks(type, l) ||
	       few_launch_k(type, l);
}

static bool has_mins(uint32_t type)
{
	return type == KN_Q4_1 || type == KN_Q5_1 || type == KN_Q4_K || type == KN_Q5_K;
}

/* The type that these matrices are taken as. */
static uint32_t few_type(const struct gk_ctx *ctx, const struct gk_linear *l, uint32_t begin, uint32_t end)
{
	enum { FIRST_AMD = 0x900 };
	const uint32_t type = l->jobs[begin].w.type;

	if (type != GK_FP8_128 || ctx->fixed || ctx->sm >= FIRST_AMD)
		return type;
	for (uint32_t i = begin; i < end; i++) {
		if (l->jobs[i].w.ld % 128)
			return type;
	}
	return GK_FP8_WIDE;
}

/* The jobs [begin, end), all of one type; gated: both. */
static int few_of_type(const struct gk_ctx *ctx, const struct gk_linear *l, uint32_t begin, uint32_t end)
{
	enum { MADE_HERE_ROWS = 2, MADE_HERE_BYTES = 72 << 10, TWO_PARTS_ROWS = 4 };
	const uint32_t type = few_type(ctx, l, begin, end), unit = gk_unit(type),
	               n_units = (l->jobs[begin].w.cols + unit - 1) / unit;
	const bool exact16 = l->x.elem == GK_BF16 && !l->norm; /* nothing is lost in one part */
	few_args a = {};
	few_launch f = {};
	uint32_t n_cols;
	bool made_here;

	a.n_rows = l->rows.bound;
	a.act = l->act;
	a.gated = l->gated;
	a.norm = l->norm;
	a.eps = l->eps;
	a.x = l->x;
	a.norm_w = gk_view{ (void *)(l->norm ? l->norm_w : nullptr), GK_F32, 0 };
	a.whole = gk_view_aligned(l->x) && gk_view_aligned(a.norm_w);
	a.cols.n_chunks = n_units * unit / 32;
	a.cols.col_stride = (a.cols.n_chunks | 1) * 4;
	a.cols.parts = exact16 || ctx->fixed || a.n_rows > TWO_PARTS_ROWS ? 1 : 2;
	a.move = exact16 && a.whole && a.cols.parts == 1 && l->jobs[begin].w.cols % 8 == 0;
	n_cols = a.n_rows * a.cols.parts;
	f.nt = n_cols <= 8 ? 1 : 2;
	/* Two tiles a block where operands of x are many and there are blocks enough. */
	f.rt = l->gated || (f.nt > 1 && l->jobs[begin].w.rows >= 64 * ctx->n_sm) ? 2 : 1;
	for (uint32_t i = begin; i < end; i++) {
		few_job *job = &a.job[a.n_jobs++];

		job->w = l->jobs[i].w;
		job->out = l->jobs[i].out;
		job->bias = l->jobs[i].bias;
		job->accumulate = l->jobs[i].accumulate;
		job->group_mask = FEW_THREADS / ctx->warp / (ctx->fixed ? steady_groups(ctx, &job->w, l->gated) : 1) - 1;
		job->first_tile = a.n_tiles;
		if (!l->gated || i == begin)
			a.n_tiles += (job->w.rows + FEW_TILE * (l->gated ? 1 : (uint32_t)f.rt) - 1) /
			             (FEW_TILE * (l->gated ? 1 : (uint32_t)f.rt));
	}
	if (ctx->bytes && !ctx->fixed && few8_launch(type, ctx, a))
		return gk_launched();
	made_here = a.n_rows <= MADE_HERE_ROWS &&
	            few_shared_bytes(n_cols, a.cols, true, has_mins(type), f.nt, f.rt) <=
	                    (ctx->smem_bytes < MADE_HERE_BYTES + 2048 ? ctx->smem_bytes - 2048 : (uint32_t)MADE_HERE_BYTES);
	if (!made_here) {
		const size_t data = (size_t)n_cols * a.cols.col_stride * 16,
		             sums = ((size_t)n_cols * a.cols.n_chunks + 15) / 16 * 64;

		if (data + sums + 64 > ctx->scratch_bytes)
			return -EINVAL;
		a.cols.data = (uint4 *)ctx->scratch;
		a.cols.sums = (float *)((uint8_t *)ctx->scratch + data);
		a.cols.scale = (float *)((uint8_t *)ctx->scratch + data + sums);
		gpu_launch(columns_kernel, dim3(a.n_rows), dim3(512), 0, ctx->stream, ctx->overlap, a.cols, gk_order(type),
		           l->x, l->jobs[begin].w.cols, l->norm, a.norm_w, l->eps, a.whole);
	}
	f.ctx = ctx;
	f.args = &a;
	f.shared = few_shared_bytes(n_cols, a.cols, made_here, has_mins(type), f.nt, f.rt);
	if (!few_launch_any(type, f))
		return -EINVAL;
	return gk_launched();
}

/* ---- float32 arithmetic -------------------------------------------------------------------------------------------- */

enum { EXACT_THREADS = 128, EXACT_ROWS = 4 /* of x at a time */ };

/* Norm factors of rows of x, one block each. */
static __global__ void norm_scales(gk_view x, uint32_t n_cols, float eps, float *scale)
{
	__shared__ float scratch[32];
	float square = 0.0f;

	gpu_dependents_may_start();
	gpu_dependency_wait();
	for (uint32_t k = threadIdx.x; k < n_cols; k += blockDim.x) {
		const float v = gk_get(x, blockIdx.x, k);

		square += v * v;
	}
	square = gpu_block_sum(square, scratch);
	if (threadIdx.x == 0)
		scale[blockIdx.x] = 1.0f / sqrtf(square / (float)n_cols + eps);
}

struct exact_args {
	gk_job job[2];
	gk_view x;
	const float *norm_w, *scale; /* scale NULL: no norm */
	uint32_t n_rows, act;
	bool gated;
	/* a batch of matrices: blockIdx.z */
	const gk_mat *mats;
	size_t x_step, out_step;
};

GPU_FN gk_view view_at(gk_view v, size_t elements)
{
	v.p = (uint8_t *)v.p + elements * (v.elem == GK_F32 ? 4 : 2);
	return v;
}

/* 32 lanes for one row of W; the lanes share its sum. Any type, one element at a time. */
static __global__ void exact_kernel(GPU_PARAM exact_args a)
{
	const uint32_t lane = threadIdx.x & 31, r = blockIdx.x * (EXACT_THREADS / 32) + threadIdx.x / 32;
	const uint32_t first = blockIdx.y * EXACT_ROWS;
	const gk_mat w0 = a.mats ? a.mats[blockIdx.z] : a.job[0].w, &w1 = a.job[1].w;
	const gk_view x = view_at(a.x, blockIdx.z * a.x_step), out = view_at(a.job[0].out, blockIdx.z * a.out_step);
	float sum[EXACT_ROWS] = { 0, 0, 0, 0 }, sum_up[EXACT_ROWS] = { 0, 0, 0, 0 };

	gpu_dependents_may_start();
	gpu_dependency_wait();
	if (r >= w0.rows)
		return;
	for (uint32_t k = lane; k < w0.cols; k += 32) {
		const float w = gk_value(w0, r, k), u = a.gated ? gk_value(w1, r, k) : 0.0f;
		const float norm = a.norm_w ? a.norm_w[k] : 1.0f;

#pragma unroll
		for (uint32_t i = 0; i < EXACT_ROWS; i++) {
			if (first + i < a.n_rows) {
				const float v = gk_get(x, first + i, k) * norm;

				sum[i] += v * w;
				sum_up[i] += v * u;
			}
		}
	}
#pragma unroll
	for (uint32_t i = 0; i < EXACT_ROWS; i++) {
		const float scale = a.scale && first + i < a.n_rows ? a.scale[first + i] : 1.0f;
		float y = gpu_group_sum(sum[i]) * scale, u;

		if (a.job[0].bias)
			y += a.job[0].bias[r];
		if (a.gated) {
			u = gpu_group_sum(sum_up[i]) * scale + (a.job[1].bias ? a.job[1].bias[r] : 0.0f);
			y = gk_act(a.act, y, u);
		}
		if (lane == 0 && first + i < a.n_rows)
			gk_put(out, first + i, r, a.job[0].accumulate ? gk_get(out, first + i, r) + y : y);
	}
}

static int exact_of_job(const struct gk_ctx *ctx, const struct gk_linear *l, uint32_t j)
{
	exact_args a = {};

	a.job[0] = l->jobs[j];
	if (l->gated)
		a.job[1] = l->jobs[1];
	a.x = l->x;
	a.n_rows = l->rows.bound;
	a.act = l->act;
	a.gated = l->gated;
	if (l->norm) {
		if (a.n_rows * sizeof(float) > ctx->scratch_bytes)
			return -EINVAL;
		a.norm_w = l->norm_w;
		a.scale = (const float *)ctx->scratch;
		gpu_launch(norm_scales, dim3(a.n_rows), dim3(256), 0, ctx->stream, ctx->overlap, l->x, a.job[0].w.cols,
		           l->eps, (float *)ctx->scratch);
	}
	gpu_launch(exact_kernel, dim3((a.job[0].w.rows + EXACT_THREADS / 32 - 1) / (EXACT_THREADS / 32),
	                              (a.n_rows + EXACT_ROWS - 1) / EXACT_ROWS),
	           dim3(EXACT_THREADS), 0, ctx->stream, ctx->overlap, a);
	return gk_launched();
}

int gk_linear_few(const struct gk_ctx *ctx, const struct gk_linear *l)
{
	if (l->n_jobs == 0 || l->n_jobs > GK_MAX_JOBS || l->rows.bound == 0 || l->rows.bound > GK_FEW_ROWS ||
	    (l->gated && (l->n_jobs != 2 || l->jobs[0].w.rows != l->jobs[1].w.rows)))
		return -EINVAL;
	if (l->gated && l->jobs[0].w.type != l->jobs[1].w.type)
		return -ENOTSUP;
	for (uint32_t begin = 0, end; begin < l->n_jobs; begin = end) {
		int r;

		for (end = begin + 1; end < l->n_jobs && l->jobs[end].w.type == l->jobs[begin].w.type;)
			end++;
		if (l->jobs[begin].w.type == KN_F32) {
			end = l->gated ? 2 : begin + 1;
			r = exact_of_job(ctx, l, begin);
		} else {
			r = few_of_type(ctx, l, begin, end);
		}
		if (r < 0)
			return r;
	}
	return 0;
}

/* ---- Any number of rows ----------------------------------------------------------------------------------------------- */

int gk_linear_many(const struct gk_ctx *ctx, const struct gk_linear *l, bool exact)
{
	if (l->n_jobs == 0 || l->n_jobs > GK_MAX_JOBS || l->rows.bound == 0 ||
	    (l->gated && (l->n_jobs != 2 || l->jobs[0].w.rows != l->jobs[1].w.rows)))
		return -EINVAL;
	if (l->norm)
		return -ENOTSUP;
	for (uint32_t j = 0; j < (l->gated ? 1 : l->n_jobs); j++) {
		const bool simple = exact || l->jobs[j].w.type == KN_F32 || (l->gated && l->jobs[1].w.type == KN_F32);
		const int r = simple ? exact_of_job(ctx, l, j) : many_of_job(ctx, l, j);

		if (r < 0)
			return r;
	}
	return 0;
}

int gk_linear_batch(const struct gk_ctx *ctx, const struct gk_linear_batch *l, bool exact)
{
	exact_args a = {};

	(void)exact; /* small matrices: float32 arithmetic is quick enough */
	a.job[0].w.rows = l->mat_rows;
	a.job[0].w.cols = l->mat_cols;
	a.job[0].out = l->out;
	a.job[0].accumulate = l->accumulate;
	a.x = l->x;
	a.n_rows = l->rows.bound;
	a.mats = l->mats;
	a.x_step = l->x_step;
	a.out_step = l->out_step;
	gpu_launch(exact_kernel, dim3((l->mat_rows + EXACT_THREADS / 32 - 1) / (EXACT_THREADS / 32),
	                              (a.n_rows + EXACT_ROWS - 1) / EXACT_ROWS, l->n_mats),
	           dim3(EXACT_THREADS), 0, ctx->stream, ctx->overlap, a);
	return gk_launched();
}
