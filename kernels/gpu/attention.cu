/* Attention: how a step is cut into items, which kernel takes them, float32 arithmetic, and the merge of parts. */
#include <errno.h>

#include "gpu/attention.h"
#include "gpu/attention_mla.h"

/* ---- Merge --------------------------------------------------------------------------------------------------------- */

enum { MERGE_THREADS = 128, MERGE_PARTS = 1024 /* whose weights are kept; more are unlikely */ };

/* One block for each merge entry, head and token: weights of the parts first, then their sum, several parts read at a
 * time, added in their order. */
static __global__ void merge_kernel(GPU_PARAM attn_args a)
{
	__shared__ float weights[MERGE_PARTS], scratch[32];
	const uint32_t head = blockIdx.y;

	gpu_dependents_may_start();
	gpu_dependency_wait();
	if (blockIdx.x >= a.batch.counts[GK_N_MERGE])
		return;

	const gk_merge m = a.batch.merge[blockIdx.x];
	const gk_seq seq = a.batch.seqs[m.seq];
	const uint32_t n_parts = m.n_parts < MERGE_PARTS ? m.n_parts : (uint32_t)MERGE_PARTS;
	const size_t line = a.kv.v_dim + 2, step = (size_t)m.n_q * a.n_head * line;

	for (uint32_t token = blockIdx.z; token < m.n_q; token += gridDim.z) {
		const float *first = a.parts + ((size_t)(m.part + token) * a.n_head + head) * line;
		float best = -INFINITY, total = 0.0f, scale;

		for (uint32_t p = threadIdx.x; p < n_parts; p += MERGE_THREADS)
			best = fmaxf(best, first[p * step + a.kv.v_dim]);
		best = gpu_group_max(best);
		if ((threadIdx.x & 31) == 0)
			scratch[threadIdx.x >> 5] = best;
		__syncthreads();
		for (uint32_t g = 0; g < MERGE_THREADS / 32; g++)
			best = fmaxf(best, scratch[g]);
		for (uint32_t p = threadIdx.x; p < n_parts; p += MERGE_THREADS) {
			const float top = first[p * step + a.kv.v_dim];

			weights[p] = top == -INFINITY ? 0.0f : attn_exp2(top - best);
		}
		__syncthreads();
		/* The same order for any number of parts: those that see nothing add zeros. */
#pragma unroll 8
		for (uint32_t p = 0; p < n_parts; p++)
			total += weights[p] != 0.0f ? first[p * step + a.kv.v_dim + 1] * weights[p] : 0.0f;
		scale = attn_final_scale(a, head, best, total);
		for (uint32_t d = threadIdx.x; d < a.kv.v_dim; d += MERGE_THREADS) {
			float sum = 0.0f;

#pragma unroll 8
			for (uint32_t p = 0; p < n_parts; p++) {
				const float v = first[p * step + d];

				sum += weights[p] != 0.0f ? v * weights[p] : 0.0f;
			}
			gk_put(a.out, seq.row + m.q + token, (size_t)head * a.kv.v_dim + d, sum * scale);
		}
		__syncthreads();
	}
}

/* ---- float32 arithmetic: 32 lanes for each row and head --------------------------------------------------------- */

enum { EXACT_THREADS = 128 };

static __global__ void exact_attention(GPU_PARAM attn_args a)
{
	GPU_DYN_SHARED(float, shared);
	const uint32_t lane = threadIdx.x & 31, group = threadIdx.x / 32;
	const uint32_t item = blockIdx.x * (EXACT_THREADS / 32) + group, row = item / a.n_head, head = item % a.n_head;
	const uint32_t k_dim = a.kv.k_dim, v_dim = a.kv.v_dim, kv_head = head / a.group;
	float *const q = shared + (size_t)group * (k_dim + v_dim), *const acc = q + k_dim;
	const void *values = a.kv.v ? a.kv.v : a.kv.k;
	const uint32_t value_stride = a.kv.v ? v_dim : k_dim;
	float top = a.sinks ? a.sinks[head] : -INFINITY, mass = a.sinks ? 1.0f : 0.0f;
	gk_place place;

	gpu_dependents_may_start();
	gpu_dependency_wait();
	if (row >= a.batch.counts[GK_N_ROWS] || !gk_place_of_row(a.batch, row, &place))
		return;
	for (uint32_t d = lane; d < k_dim; d += 32)
		q[d] = gk_get(a.q, row, (size_t)head * k_dim + d);
	for (uint32_t d = lane; d < v_dim; d += 32)
		acc[d] = 0.0f;
	gpu_sync_wave();

	const uint32_t first = a.window && place.token + 1 > a.window ? place.token + 1 - a.window : 0;

	for (uint32_t t = first; t <= place.token; t += 32) {
		const bool there = t + lane <= place.token;
		float s = -INFINITY, best, w, shrink;

		if (there) {
			const size_t at = gk_kv_at(a.kv, place.pages, t + lane, kv_head, k_dim);

			s = 0.0f;
			for (uint32_t d = 0; d < k_dim; d++)
				s += q[d] * gk_kv_get(a.kv.dtype, a.kv.k, at + d);
			s *= a.scale;
			if (a.softcap > 0.0f)
				s = a.softcap * tanhf(s / a.softcap);
		}
		best = fmaxf(top, gpu_group_max(s));
		shrink = expf(top - best);
		w = there ? expf(s - best) : 0.0f;
		mass = mass * shrink + gpu_group_sum(w);
		top = best;
		for (uint32_t d0 = 0; d0 < v_dim; d0 += 32) {
			const uint32_t d = d0 + lane;
			float sum = 0.0f;

			for (uint32_t j = 0; j < 32 && t + j <= place.token; j++) {
				const float wj = gpu_shfl(w, (int)j);

				if (d < v_dim)
					sum += wj * gk_kv_get(a.kv.dtype, values,
					                      gk_kv_at(a.kv, place.pages, t + j, kv_head, value_stride) + d);
			}
			if (d < v_dim)
				acc[d] = acc[d] * shrink + sum;
		}
	}
	for (uint32_t d = lane; d < v_dim; d += 32)
		gk_put(a.out, row, (size_t)head * v_dim + d, acc[d] / mass);
}

/* ---- Launches --------------------------------------------------------------------------------------------------------- */

template <int KD, int VD, int WAVES, bool SPLIT>
static void launch_tiles(const struct gk_ctx *ctx, attn_args a, uint32_t max_work)
{
	const uint32_t rows = SPLIT ? 16 : 16 * WAVES, tokens = SPLIT ? GK_WORK_TOKENS : GK_TILE_TOKENS;
	uint32_t n_blocks;

	a.row_blocks = (tokens * a.group + rows - 1) / rows;
	n_blocks = max_work * a.kv.n_kv_head * a.row_blocks;
	/* Enough to fill the device; each takes items until none is left. */
	if (SPLIT && n_blocks > ctx->n_sm * 4)
		n_blocks = ctx->n_sm * 4;
	gpu_launch(attn_kernel<KD, VD, WAVES, SPLIT>, dim3(n_blocks), dim3(WAVES * ctx->warp),
	           attn_shared_bytes<KD, VD, WAVES, SPLIT>(), ctx->stream, ctx->overlap, a);
}

/* A wave of 64 lanes has no more registers a lane than one of 32, and half the rows of results in each. */
static bool launch_by_size(const struct gk_ctx *ctx, const attn_args &a, uint32_t max_work, bool split)
{
	const uint32_t k = a.kv.k_dim, v = a.kv.v_dim;

#define SIZES(KD, VD, SPLIT_WAVES, WAVES)                                                                              \
	if (k <= KD && v <= VD) {                                                                                      \
		if (split)                                                                                             \
			launch_tiles<KD, VD, SPLIT_WAVES, true>(ctx, a, max_work);                                     \
		else                                                                                                   \
			launch_tiles<KD, VD, WAVES, false>(ctx, a, max_work);                                          \
		return true;                                                                                           \
	}
	SIZES(64, 64, 4, 4)
	SIZES(128, 128, 4, 4)
	SIZES(192, 128, 4, 4)
	SIZES(256, 256, 2, 4)
#undef SIZES
	return false;
}

int gk_attention(const struct gk_ctx *ctx, const struct gk_attention *in)
{
	const struct gk_batch *b = in->batch;
	const bool latent = !in->kv.v, sizes = in->kv.k_dim <= 256 && in->kv.v_dim <= 256;
	attn_args a = {};

	if (in->n_head == 0 || in->kv.n_kv_head == 0 || in->n_head % in->kv.n_kv_head || in->kv.dtype > KN_BF16 ||
	    in->kv.k_dim > KN_MAX_HEAD || in->kv.v_dim > KN_MAX_HEAD)
		return -EINVAL;
	a.out = in->out;
	a.q = in->q;
	a.kv = in->kv;
	a.batch = *b;
	a.n_head = in->n_head;
	a.group = in->n_head / in->kv.n_kv_head;
	a.window = in->window;
	a.scale = in->scale;
	a.softcap = in->softcap;
	a.sinks = in->sinks;
	a.direct = in->kv.dtype == KN_BF16 && in->kv.k_dim % 8 == 0 && in->kv.v_dim % 8 == 0 &&
	           ((uintptr_t)in->kv.k & 15) == 0 && ((uintptr_t)in->kv.v & 15) == 0;
	a.whole = gk_view_aligned(in->q) && in->kv.k_dim % 8 == 0;
	a.page_shift = -1;
	for (int bit = 0; bit < 16; bit++) {
		if (in->kv.page_tokens == 1u << bit)
			a.page_shift = bit;
	}
	a.parts = (float *)ctx->scratch;
	if (in->exact || (latent ? !attn_mla_takes(a) : !sizes)) {
		const size_t items = (size_t)b->max_rows * in->n_head;

		gpu_launch(exact_attention, dim3((unsigned)((items + EXACT_THREADS / 32 - 1) / (EXACT_THREADS / 32))),
		           dim3(EXACT_THREADS), EXACT_THREADS / 32 * (size_t)(in->kv.k_dim + in->kv.v_dim) * sizeof(float),
		           ctx->stream, ctx->overlap, a);
		return gk_launched();
	}
	if (b->max_few) {
		a.work = b->few;
		a.n_work = b->counts + GK_N_FEW;
		if (latent)
			attn_mla_launch(ctx, a, b->max_few, GK_WORK_TOKENS);
		else
			(void)launch_by_size(ctx, a, b->max_few, true);
	}
	if (b->max_many) {
		a.work = b->many;
		a.n_work = b->counts + GK_N_MANY;
		if (latent)
			attn_mla_launch(ctx, a, b->max_many, GK_TILE_TOKENS);
		else
			(void)launch_by_size(ctx, a, b->max_many, false);
	}
	if (b->max_merge)
		gpu_launch(merge_kernel, dim3(b->max_merge, in->n_head), dim3(MERGE_THREADS), 0, ctx->stream, ctx->overlap, a);
	return gk_launched();
}
