/* Attention of few rows on Hopper, keys and values brought by the tensor engine; not timed on a device yet, so only
 * GK_SHAPE_BROUGHT asks for it. The plan and the arithmetic are those of attention_few.cu. What is otherwise:
 *
 * One warp of a block walks through all tiles of its share and has each copied, keys and values, as soon as a stage of
 * a ring is free. So copies go on while the others are at the end of an item, wait for the next one's queries or merge,
 * and the chain of tables (share, item, sequence, pages) is walked ahead of them; in attention_few.cu every item begins
 * with an empty ring. The others compute, each wave every fourth tile.
 *
 * A block takes less than half of a multiprocessor's shared memory, also where there is only one on each: a kernel that
 * may start early finds room beside it, and begins with its keys.
 *
 * The last part of a row to be written merges all in one trip to memory: maxima, masses and sums are asked for
 * together, 16 parts at a time. */
#include <errno.h>

#include "gpu/attention_sm90.h"
#include "gpu/brought_compute.h"
#include "gpu/sm90_launch.h"

template <int HD, int BYTES>
static __global__ void __launch_bounds__(BROUGHT_WAVES *GPU_WAVE + 32, 2) brought_attention(GPU_PARAM brought_args args)
{
#if SM90_CODE
	GPU_DYN_SHARED(uint8_t, shared);
#if defined(GPU_HOST)
	const uint32_t misaligned = (uint32_t)((uintptr_t)shared & (SM90_ALIGN - 1));
#else
	const uint32_t misaligned = sm90_shared(shared) & (SM90_ALIGN - 1);
#endif
	const brought_memory<HD, BYTES> m = { shared + (misaligned ? SM90_ALIGN - misaligned : 0) };

	gpu_dependents_may_start();
	if (threadIdx.x == 0) {
		brought_signals *const s = m.signals();

		for (int i = 0; i < brought_sizes<HD, BYTES>::STAGES; i++) {
			sm90_bar_init(&s->full[i], 1);
			sm90_bar_init(&s->empty[i], 1);
		}
		for (int i = 0; i < BROUGHT_ITEMS; i++) {
			sm90_bar_init(&s->item_full[i], 1);
			sm90_bar_init(&s->item_empty[i], BROUGHT_WAVES);
		}
		sm90_bars_ready();
	}
	__syncthreads();
	if (threadIdx.x < BROUGHT_WAVES * GPU_WAVE)
		brought_compute<HD, BYTES>(args, m);
	else
		brought_bring<HD, BYTES>(args, m);
#endif
}

/* ---- Launches ---------------------------------------------------------------------------------------------------- */

/* Nobody says how many pages a pool has; no row beyond them is asked for. */
static bool map_of(sm90_map *map, void *pool, uint32_t dim, uint32_t bytes)
{
	return sm90_map_of(map, pool, bytes, 1u << 30, dim, (size_t)dim * bytes, BROUGHT_TILE);
}

bool attn_brought_takes(const struct gk_ctx *ctx, const attn_args &a)
{
	const uint32_t dim = a.kv.k_dim;
	const bool eight = a.kv.dtype == KN_F8_E4M3;
	sm90_map map;

	return ctx->sm == 90 && (eight ? dim == 128 : dim == 64 || dim == 128) && a.kv.v_dim == dim && a.kv.v &&
	       a.direct && a.page_shift >= 0 && a.kv.page_tokens % BROUGHT_TILE == 0 && a.counters &&
	       brought_sizes<128, 2>::SHARED <= ctx->smem_bytes && map_of(&map, a.kv.k, dim, eight ? 1 : 2);
}

template <int HD, int BYTES> static void launch(const struct gk_ctx *ctx, const brought_args &args, uint32_t shares)
{
	gpu_launch(brought_attention<HD, BYTES>, dim3(shares * args.a.kv.n_kv_head * args.a.row_blocks),
	           dim3(BROUGHT_WAVES * ctx->warp + 32), brought_sizes<HD, BYTES>::SHARED, ctx->stream, ctx->overlap,
	           args);
}

int attn_brought_launch(const struct gk_ctx *ctx, const attn_args &a, uint32_t max_work)
{
	const uint32_t shares = gk_plan_shares(ctx, a.kv.n_kv_head, a.group),
	               most = shares < max_work ? shares : max_work;
	const uint32_t dim = a.kv.k_dim, bytes = a.kv.dtype == KN_F8_E4M3 ? 1 : 2;
	brought_args args = {};

	args.a = a;
	args.max_work = max_work;
	if (!map_of(&args.k, a.kv.k, dim, bytes) || !map_of(&args.v, a.kv.v, dim, bytes))
		return -EINVAL;
	(bytes == 1 ? launch<128, 1> : dim == 64 ? launch<64, 2> : launch<128, 2>)(ctx, args, most);
	return 0;
}
