/* Attention of few rows on Hopper: what a block has in shared memory, and the warp that brings it. The whole of it:
 * attention_few_sm90.cu. */
#ifndef GPU_BROUGHT_ATTENTION_H
#define GPU_BROUGHT_ATTENTION_H

#include "gpu/attention_few.h"
#include "gpu/sm90.h"

enum {
	BROUGHT_TILE = 32,    /* keys */
	BROUGHT_WAVES = 4,    /* that compute */
	BROUGHT_PASS = 8,     /* rows whose sums the waves exchange at a time */
	BROUGHT_AT_ONCE = 16, /* parts */
	BROUGHT_ITEMS = 4,    /* that are known ahead */
	BROUGHT_TOGETHER = 1, /* named barrier: all that compute */
	BROUGHT_SIGNALS = 2048,
	BROUGHT_RING = 80 << 10,
};

struct brought_args {
	attn_args a;
	sm90_map k, v;
	uint32_t max_work; /* entries of the list that may be looked at */
};

/* Bytes. Rows of a tile are 128 bytes: halves of keys of 128 bfloat16 lie one after the other. */
template <int HD, int BYTES> struct brought_sizes {
	enum {
		HALVES = HD * BYTES / SM90_TILE_ROW,
		HALF = BROUGHT_TILE * SM90_TILE_ROW,
		TILE = HALVES * HALF,
		STAGE = 2 * TILE, /* keys, values */
		STAGES = BROUGHT_RING / STAGE,
		QUERIES = FEW_ROWS * HD * 2,
		LINE = HD + 8, /* floats of a row's sums with their maximum and mass: lanes of a wave meet every bank */
		SUMS = BROUGHT_WAVES * BROUGHT_PASS * LINE * 4,
#if defined(GPU_CUDA)
		EXCHANGE = 0,
#else
		EXCHANGE = BROUGHT_WAVES * 1024,
#endif
		SHARED = STAGES * STAGE + QUERIES + SUMS + EXCHANGE + BROUGHT_SIGNALS + SM90_ALIGN,
	};
	static_assert(HALVES * SM90_TILE_ROW == HD * BYTES && STAGES >= 3, "whole tiles");
};

#if SM90_CODE

enum { BROUGHT_MOST_STAGES = 20 };

struct brought_signals {
	sm90_bar full[BROUGHT_MOST_STAGES], empty[BROUGHT_MOST_STAGES], item_full[BROUGHT_ITEMS],
	        item_empty[BROUGHT_ITEMS];
	attn_span items[BROUGHT_ITEMS]; /* no rows: there are no more */
	uint32_t n_before;
};
static_assert(sizeof(brought_signals) <= BROUGHT_SIGNALS, "they have room");

template <int HD, int BYTES> struct brought_memory {
	typedef brought_sizes<HD, BYTES> size;
	uint8_t *base;

	__device__ __forceinline__ uint8_t *stage(uint32_t n) const
	{
		return base + n * size::STAGE;
	}
	__device__ __forceinline__ uint4 *queries() const
	{
		return (uint4 *)(base + size::STAGES * size::STAGE);
	}
	/* Of a row of the pass, as a wave has them. */
	__device__ __forceinline__ float *sums(uint32_t wave, uint32_t r) const
	{
		return (float *)(base + size::STAGES * size::STAGE + size::QUERIES) +
		       (wave * BROUGHT_PASS + r) * size::LINE;
	}
	__device__ __forceinline__ gpu_bf16 *exchange(uint32_t wave) const
	{
		return (gpu_bf16 *)(base + size::STAGES * size::STAGE + size::QUERIES + size::SUMS) + wave * 512;
	}
	__device__ __forceinline__ brought_signals *signals() const
	{
		return (brought_signals *)(base + size::SHARED - SM90_ALIGN - BROUGHT_SIGNALS);
	}
};

struct brought_place {
	uint32_t row0, kv_head, share;
};

GPU_FN brought_place brought_where(const attn_args &a)
{
	return { blockIdx.x % a.row_blocks * FEW_ROWS, blockIdx.x / a.row_blocks % a.kv.n_kv_head,
		 blockIdx.x / a.row_blocks / a.kv.n_kv_head };
}

/* ---- Who brings -------------------------------------------------------------------------------------------------- */

GPU_FN void brought_show(brought_signals *s, uint32_t n, const attn_span &it)
{
	const uint32_t slot = n % BROUGHT_ITEMS;

	sm90_bar_wait(&s->item_empty[slot], (n / BROUGHT_ITEMS & 1) ^ 1);
	if (threadIdx.x == BROUGHT_WAVES * GPU_WAVE) {
		s->items[slot] = it;
		sm90_bar_arrive(&s->item_full[slot]);
	}
	gpu_sync_wave();
}

/* One warp: 32 lanes, also where a wave has more. */
template <int HD, int BYTES> GPU_FN void brought_bring(const brought_args &args, const brought_memory<HD, BYTES> &m)
{
	typedef brought_sizes<HD, BYTES> size;
	const attn_args &a = args.a;
	const brought_place place = brought_where(a);
	const uint32_t lane = threadIdx.x & 31, which = lane / size::HALVES, half = lane % size::HALVES,
	               share = place.share;
	brought_signals *const s = m.signals();
	bool waited = !a.early;
	uint32_t n = 0, at = 0;
	attn_span it;

	if (waited)
		gpu_dependency_wait();

	/* All in one trip: a share begins with the item of its own number, where no share before it has several. */
	const uint32_t n_shares = a.batch.counts[GK_N_SHARES], n_few = a.batch.counts[GK_N_FEW];
	const uint32_t behind = a.work[share + 1 < args.max_work ? share + 1 : share].first;
	gk_work work = a.work[share];
	const uint32_t first = work.first, last = share + 1 < n_shares ? behind : n_few;

	for (uint32_t index = first; share < n_shares && index < last; index++) {
		if (index != share)
			work = a.work[index];
		if (!attn_span_of(a, work, place.kv_head, place.row0, FEW_ROWS, BROUGHT_TILE, &it))
			continue;
		brought_show(s, n++, it);

		const uint32_t begin = it.begin / BROUGHT_TILE, end = (it.end + BROUGHT_TILE - 1) / BROUGHT_TILE,
		               old = it.seq.kv_len - it.seq.n_q;

		for (uint32_t t0 = begin; t0 < end; t0 += 32) {
			const uint32_t mine = (t0 + lane) * BROUGHT_TILE, behind_t = t0 + 32 < end ? t0 + 32 : end;
			const uint32_t page = t0 + lane < end ? it.pages[mine >> a.page_shift] : 0;

			for (uint32_t t = t0; t < behind_t; t++, at++) {
				const uint32_t stage = at % size::STAGES, token = t * BROUGHT_TILE;
				const uint32_t row = (gpu_shfl(page, (int)(t - t0)) * a.kv.n_kv_head + place.kv_head) *
				                             a.kv.page_tokens +
				                     (token & (a.kv.page_tokens - 1));

				sm90_bar_wait(&s->empty[stage], (at / size::STAGES & 1) ^ 1);
				if (!waited && token + BROUGHT_TILE > old) {
					gpu_dependency_wait();
					waited = true;
				}
				if (lane == 0)
					sm90_bar_expect(&s->full[stage], size::STAGE);
				gpu_sync_wave();
				if (lane < 2 * size::HALVES)
					sm90_copy_box(m.stage(stage) + which * size::TILE + half * size::HALF,
					              which ? &args.v : &args.k, half * (SM90_TILE_ROW / BYTES), row,
					              &s->full[stage]);
			}
		}
	}
	it = {};
	brought_show(s, n, it);
	if (!waited)
		gpu_dependency_wait();
}

#endif
#endif
