/* Layers with a state per sequence instead of K and V: the short causal convolution and the gated delta rule, with what goes
 * with them. */
#include <errno.h>

#include "gpu/view.h"

enum { THREADS = 256 };

GPU_FN float silu(float x)
{
	return x * gk_sigmoid(x);
}

/* ---- The convolution -------------------------------------------------------------------------------------------- */

/* Input t of a sequence's new tokens; those before the first come from the state, or are zero where it begins. */
GPU_FN float conv_input(const gk_conv &a, const gk_seq &seq, const float *state, int t, uint32_t c)
{
	if (t >= 0)
		return gk_get(a.x, seq.row + (uint32_t)t, c);
	if (seq.n_q == seq.kv_len)
		return 0.0f;
	return state[(size_t)((int)a.kernel - 1 + t) * a.n_channels + c];
}

static __global__ void conv_rows(gk_conv a, gk_batch batch)
{
	const uint32_t row = blockIdx.x, c = blockIdx.y * blockDim.x + threadIdx.x;
	float sum = 0.0f;

	gpu_dependents_may_start();
	gpu_dependency_wait();
	if (row >= batch.counts[GK_N_ROWS] || c >= a.n_channels || batch.row_seq[row] == GK_WHOLE)
		return;

	const gk_seq seq = batch.seqs[batch.row_seq[row]];
	const float *state = a.state + seq.state * a.ld_state;
	const int before = (int)a.kernel - 1, t = (int)(row - seq.row);

	for (int j = 0; j <= before; j++)
		sum += a.w[(size_t)j * a.n_channels + c] * conv_input(a, seq, state, t - before + j, c);
	gk_put(a.out, row, c, silu(sum));
}

/* Behind it: each thread moves its channel's inputs, the oldest first, so that what it reads lies behind what it wrote. */
static __global__ void conv_states(gk_conv a, gk_batch batch)
{
	const uint32_t s = blockIdx.x, c = blockIdx.y * blockDim.x + threadIdx.x;

	gpu_dependents_may_start();
	gpu_dependency_wait();
	if (s >= batch.counts[GK_N_SEQS] || c >= a.n_channels)
		return;

	const gk_seq seq = batch.seqs[s];
	float *state = a.state + seq.state * a.ld_state;
	float *keep = a.state + seq.keep * a.ld_state;
	const int before = (int)a.kernel - 1;

	for (int j = 0; j < before && seq.keep_after > 0; j++)
		keep[(size_t)j * a.n_channels + c] = conv_input(a, seq, state, (int)seq.keep_after - before + j, c);
	for (int j = 0; j < before; j++)
		state[(size_t)j * a.n_channels + c] = conv_input(a, seq, state, (int)seq.n_q - before + j, c);
}

int gk_conv_silu(const struct gk_ctx *ctx, const struct gk_conv *a)
{
	const unsigned blocks = (a->n_channels + THREADS - 1) / THREADS;

	if (a->kernel < 2 || a->kernel > KN_MAX_CONV)
		return -EINVAL;
	gpu_launch(conv_rows, dim3(a->batch->max_rows, blocks), dim3(THREADS), 0, ctx->stream, ctx->overlap, *a, *a->batch);
	gpu_launch(conv_states, dim3(a->batch->max_seqs, blocks), dim3(THREADS), 0, ctx->stream, ctx->overlap, *a,
	           *a->batch);
	return gk_launched();
}

/* ---- The gated delta rule ------------------------------------------------------------------------------------------- */

/* A block has 32 columns of one head's state: lane j of each of its four groups holds column j, group g the rows
 * g, g + 4, g + 8, ... of it, in registers from the sequence's first new token to its last. */
enum { COLUMNS = 32, GROUPS = 4, DELTA_THREADS = COLUMNS * GROUPS, MAX_K = 256 };

struct delta_shared {
	float k[MAX_K], q[MAX_K];
	float sums[GROUPS][COLUMNS];
	float norms[32];
};

/* x of length 1, times scale, to every thread's shared copy. */
GPU_FN void load_unit(const gk_view &v, uint32_t row, uint32_t col, uint32_t n, float eps, float scale, float *to,
                      float *scratch)
{
	float sum = 0.0f;

	for (uint32_t i = threadIdx.x; i < n; i += blockDim.x) {
		const float x = gk_get(v, row, col + i);

		to[i] = x;
		sum += x * x;
	}
	sum = gpu_block_sum(sum, scratch);
	for (uint32_t i = threadIdx.x; i < n; i += blockDim.x)
		to[i] *= scale / sqrtf(sum + eps);
}

GPU_FN float over_groups(delta_shared *sh, float v)
{
	const uint32_t lane = threadIdx.x & 31, group = threadIdx.x >> 5;
	float sum = 0.0f;

	sh->sums[group][lane] = v;
	__syncthreads();
	for (int g = 0; g < GROUPS; g++)
		sum += sh->sums[g][lane];
	__syncthreads();
	return sum;
}

GPU_FN float softplus(float x)
{
	return x > 20.0f ? x : log1pf(expf(x));
}

template <int ROWS>
GPU_FN void store_state(const gk_delta &a, const float *S, uint32_t slot, uint32_t head, uint32_t column)
{
	float *state = a.state + slot * a.ld_state + (size_t)head * a.k_dim * a.v_dim;

#pragma unroll
	for (int i = 0; i < ROWS; i++) {
		const uint32_t r = (uint32_t)i * GROUPS + (threadIdx.x >> 5);

		if (r < a.k_dim && column < a.v_dim)
			state[(size_t)r * a.v_dim + column] = S[i];
	}
}

template <int ROWS> static __global__ void __launch_bounds__(DELTA_THREADS) delta_kernel(gk_delta a, gk_batch batch)
{
	__shared__ delta_shared sh;
	const uint32_t s = blockIdx.x, head = blockIdx.y, lane = threadIdx.x & 31, group = threadIdx.x >> 5;
	const uint32_t column = blockIdx.z * COLUMNS + lane, n_k = a.n_k_head * a.k_dim;
	const uint32_t k_head = head / (a.n_v_head / a.n_k_head);
	const float q_scale = 1.0f / sqrtf((float)a.k_dim);
	float S[ROWS];

	gpu_dependents_may_start();
	gpu_dependency_wait();
	if (s >= batch.counts[GK_N_SEQS])
		return;

	const gk_seq seq = batch.seqs[s];
	const float *state = a.state + seq.state * a.ld_state + (size_t)head * a.k_dim * a.v_dim;

#pragma unroll
	for (int i = 0; i < ROWS; i++) {
		const uint32_t r = (uint32_t)i * GROUPS + group;
		const bool known = seq.n_q != seq.kv_len && r < a.k_dim && column < a.v_dim;

		S[i] = known ? state[(size_t)r * a.v_dim + column] : 0.0f;
	}
	for (uint32_t t = 0; t < seq.n_q; t++) {
		const uint32_t row = seq.row + t;
		const float b = gk_get(a.ba, row, head), da = gk_get(a.ba, row, a.n_v_head + head);
		const float decay = expf(a.decay[head] * softplus(da + a.dt_bias[head])), beta = gk_sigmoid(b);
		const float v = column < a.v_dim ? gk_get(a.qkv, row, 2 * n_k + head * a.v_dim + column) : 0.0f;
		float known = 0.0f, got = 0.0f, change;

		load_unit(a.qkv, row, k_head * a.k_dim, a.k_dim, a.eps, q_scale, sh.q, sh.norms);
		load_unit(a.qkv, row, n_k + k_head * a.k_dim, a.k_dim, a.eps, 1.0f, sh.k, sh.norms);
		__syncthreads();
#pragma unroll
		for (int i = 0; i < ROWS; i++) {
			const uint32_t r = (uint32_t)i * GROUPS + group;

			S[i] *= decay;
			if (r < a.k_dim)
				known += sh.k[r] * S[i];
		}
		known = over_groups(&sh, known);
		change = beta * (v - known);
#pragma unroll
		for (int i = 0; i < ROWS; i++) {
			const uint32_t r = (uint32_t)i * GROUPS + group;

			if (r < a.k_dim) {
				S[i] += sh.k[r] * change;
				got += sh.q[r] * S[i];
			}
		}
		got = over_groups(&sh, got);
		if (group == 0 && column < a.v_dim)
			gk_put(a.out, row, head * a.v_dim + column, got);
		if (t + 1 == seq.keep_after)
			store_state<ROWS>(a, S, seq.keep, head, column);
	}
	store_state<ROWS>(a, S, seq.state, head, column);
}

template <int ROWS> static void delta_launch(const struct gk_ctx *ctx, const struct gk_delta *a)
{
	const dim3 grid(a->batch->max_seqs, a->n_v_head, (a->v_dim + COLUMNS - 1) / COLUMNS);

	gpu_launch(delta_kernel<ROWS>, grid, dim3(DELTA_THREADS), 0, ctx->stream, ctx->overlap, *a, *a->batch);
}

int gk_delta_rule(const struct gk_ctx *ctx, const struct gk_delta *a)
{
	if (a->k_dim > MAX_K || a->n_k_head == 0 || a->n_v_head % a->n_k_head != 0)
		return -EINVAL;
	if (a->k_dim <= 8 * GROUPS)
		delta_launch<8>(ctx, a);
	else if (a->k_dim <= 16 * GROUPS)
		delta_launch<16>(ctx, a);
	else if (a->k_dim <= 32 * GROUPS)
		delta_launch<32>(ctx, a);
	else
		delta_launch<64>(ctx, a);
	return gk_launched();
}

/* ---- Gates ------------------------------------------------------------------------------------------------------------ */

/* 32 lanes for each row and head. */
static __global__ void gated_norm_kernel(gk_gated_norm a)
{
	const uint32_t row = blockIdx.x, lane = threadIdx.x & 31;
	const uint32_t head = blockIdx.y * (blockDim.x >> 5) + (threadIdx.x >> 5), first = head * a.dim;
	float sum = 0.0f;

	gpu_dependents_may_start();
	gpu_dependency_wait();
	if (row >= gk_n_rows(a.rows) || head >= a.n_head)
		return;
	for (uint32_t c = lane; c < a.dim; c += 32) {
		const float x = gk_get(a.x, row, first + c);

		sum += x * x;
	}

	const float scale = 1.0f / sqrtf(gpu_group_sum(sum) / (float)a.dim + a.eps);

	for (uint32_t c = lane; c < a.dim; c += 32) {
		const float w = a.w ? a.w[c] : 1.0f;

		gk_put(a.out, row, first + c, gk_get(a.x, row, first + c) * scale * w * silu(gk_get(a.gate, row, first + c)));
	}
}

int gk_gated_rmsnorm(const struct gk_ctx *ctx, const struct gk_gated_norm *a)
{
	const unsigned per_block = 4;

	gpu_launch(gated_norm_kernel, dim3(a->rows.bound, (a->n_head + per_block - 1) / per_block), dim3(32 * per_block), 0,
	           ctx->stream, ctx->overlap, *a);
	return gk_launched();
}

static __global__ void gate_rows_kernel(gk_view x, gk_view gate, gk_rows rows, uint32_t dim)
{
	const uint32_t row = blockIdx.x;

	gpu_dependents_may_start();
	gpu_dependency_wait();
	if (row >= gk_n_rows(rows))
		return;

	const float g = gk_sigmoid(gk_get(gate, row, 0));

	for (uint32_t c = blockIdx.y * blockDim.x + threadIdx.x; c < dim; c += gridDim.y * blockDim.x)
		gk_put(x, row, c, gk_get(x, row, c) * g);
}

int gk_gate_rows(const struct gk_ctx *ctx, struct gk_view x, struct gk_view gate, struct gk_rows rows, uint32_t dim)
{
	gpu_launch(gate_rows_kernel, dim3(rows.bound, (dim + 4 * THREADS - 1) / (4 * THREADS)), dim3(THREADS), 0,
	           ctx->stream, ctx->overlap, x, gate, rows, dim);
	return gk_launched();
}
