/* Attention: how a step is cut into items, which kernel takes them, float32 arithmetic, and the merge of parts. */
#include <errno.h>

#include "gpu/attention_few.h"
#include "gpu/attention_mla.h"
#include "gpu/attention_prompts.h"
#include "gpu/attention_sm90.h"

/* ---- Merge, where nobody counts parts --------------------------------------------------------------------------- */

enum { MERGE_THREADS = 128, MERGE_ROOM = 8192 /* floats */ };

/* A block for each entry, K/V head and 16 rows. */
static __global__ void attn_merge_kernel(GPU_PARAM attn_args a)
{
	GPU_DYN_SHARED(float, shared);
	const uint32_t row0 = blockIdx.x % a.row_blocks * FEW_ROWS, kv_head = blockIdx.x / a.row_blocks % a.kv.n_kv_head;
	const uint32_t entry = blockIdx.x / a.row_blocks / a.kv.n_kv_head;

	gpu_dependents_may_start();
	gpu_dependency_wait();
	if (entry >= a.batch.counts[GK_N_MERGE])
		return;

	const gk_merge m = a.batch.merge[entry];

	if (row0 < m.n_q * a.group)
		attn_merge(a, m, kv_head, row0, shared, MERGE_ROOM);
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
	const float scale = a.scale * attn_k_scale(a, kv_head), v_scale = attn_v_scale(a, kv_head);
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
			s *= scale;
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
		gk_put(a.out, row, (size_t)head * v_dim + d, acc[d] * v_scale / mass);
}

/* ---- Launches --------------------------------------------------------------------------------------------------------- */

/* 160 KiB and more hold all of the first forms, 99 KiB all of the second, 64 KiB all of the third. */
template <int KD, int VD, int BYTES, bool DIRECT>
static void launch_many(const struct gk_ctx *ctx, const attn_args &a, uint32_t max_work)
{
	constexpr bool large = KD * BYTES > 384;

	attn_launch_first<attn_form<KD, VD, BYTES, DIRECT, 4, 64, 2>, attn_form<KD, VD, BYTES, DIRECT, large ? 2 : 4, 32, 2>,
	                  attn_form<KD, VD, BYTES, DIRECT, 2, 32, large ? 1 : 2>>(ctx, a, max_work);
}

/* A wave of 64 lanes has no more registers a lane than one of 32, and half the rows of results in each. */
static void launch_many_by_size(const struct gk_ctx *ctx, const attn_args &a, uint32_t max_work)
{
	const uint32_t k = a.kv.k_dim, v = a.kv.v_dim;
	const bool small = k <= 128 && v <= 128;

	if (!a.direct)
		(small ? launch_many<128, 128, 2, false> : launch_many<256, 256, 2, false>)(ctx, a, max_work);
	else if (a.kv.dtype == KN_F8_E4M3)
		(small ? launch_many<128, 128, 1, true> : launch_many<256, 256, 1, true>)(ctx, a, max_work);
	else if (k <= 64 && v <= 64)
		launch_many<64, 64, 2, true>(ctx, a, max_work);
	else if (small)
		launch_many<128, 128, 2, true>(ctx, a, max_work);
	else if (k <= 192 && v <= 128)
		launch_many<192, 128, 2, true>(ctx, a, max_work);
	else
		launch_many<256, 256, 2, true>(ctx, a, max_work);
}

/* Hopper has a kernel of its own. */
static bool launch_hopper(const struct gk_ctx *ctx, const attn_args &a, uint32_t max_work)
{
#if defined(GPU_HIP)
	(void)ctx, (void)a, (void)max_work;
	return false;
#else
	return attn_hopper_takes(ctx, a) && attn_hopper_launch(ctx, a, max_work) == 0;
#endif
}

static bool in_chunks(const struct gk_kv *kv, uint32_t values)
{
	return kv->k_dim % values == 0 && kv->v_dim % values == 0 && ((uintptr_t)kv->k & 15) == 0 &&
	       ((uintptr_t)kv->v & 15) == 0;
}

static int args_of(const struct gk_ctx *ctx, const struct gk_attention *in, attn_args *a)
{
	if (in->n_head == 0 || in->kv.n_kv_head == 0 || in->n_head % in->kv.n_kv_head || !gk_kv_takes(&in->kv))
		return -EINVAL;
	a->out = in->out;
	a->q = in->q;
	a->kv = in->kv;
	a->batch = *in->batch;
	a->n_head = in->n_head;
	a->group = in->n_head / in->kv.n_kv_head;
	a->window = in->window;
	a->scale = in->scale;
	a->softcap = in->softcap;
	a->sinks = in->sinks;
	a->direct = (in->kv.dtype == KN_BF16 && in_chunks(&in->kv, 8)) || (in->kv.dtype == KN_F8_E4M3 && in_chunks(&in->kv, 16));
	a->whole = gk_view_aligned(in->q) && in->kv.k_dim % 8 == 0;
	a->early = ctx->overlap && in->keys_are_older;
	a->page_shift = -1;
	for (int bit = 0; bit < 16; bit++) {
		if (in->kv.page_tokens == 1u << bit)
			a->page_shift = bit;
	}
	a->parts = (float *)ctx->scratch;
	return 0;
}

int gk_attention(const struct gk_ctx *ctx, const struct gk_attention *in)
{
	const struct gk_batch *b = in->batch;
	const bool latent = !in->kv.v;
	attn_args a = {};
	const int r = args_of(ctx, in, &a);

	if (r < 0)
		return r;
	if (in->exact || (latent ? !attn_mla_takes(a) : !attn_few_takes(a))) {
		const size_t items = (size_t)b->max_rows * in->n_head;

		gpu_launch(exact_attention, dim3((unsigned)((items + EXACT_THREADS / 32 - 1) / (EXACT_THREADS / 32))),
		           dim3(EXACT_THREADS), EXACT_THREADS / 32 * (size_t)(in->kv.k_dim + in->kv.v_dim) * sizeof(float),
		           ctx->stream, ctx->overlap, a);
		return gk_launched();
	}

	/* The blocks of 16 rows of an item in the list `few`: several where they are one token's. */
	const uint32_t row_blocks = (a.group + FEW_ROWS - 1) / FEW_ROWS;
	const uint64_t n_merges = (uint64_t)b->max_merge * a.kv.n_kv_head * row_blocks;
	const bool counts = !latent && ctx->counters && n_merges <= GK_COUNTERS;

	if (b->max_few) {
		a.work = b->few;
		a.n_work = b->counts + GK_N_FEW;
		a.row_blocks = row_blocks;
		a.counters = counts ? ctx->counters : nullptr;
		if (latent)
			attn_mla_launch(ctx, a, b->max_few, false);
		else
			attn_few_launch(ctx, a, b->max_few);
	}
	if (b->max_many) {
		a.work = b->many;
		a.n_work = b->counts + GK_N_MANY;
		if (latent)
			attn_mla_launch(ctx, a, b->max_many, true);
		else if (!launch_hopper(ctx, a, b->max_many))
			launch_many_by_size(ctx, a, b->max_many);
	}
	if (b->max_merge && !counts) {
		a.row_blocks = row_blocks;
		gpu_launch(attn_merge_kernel, dim3((unsigned)n_merges), dim3(MERGE_THREADS), MERGE_ROOM * sizeof(float),
		           ctx->stream, ctx->overlap, a);
	}
	return gk_launched();
}
