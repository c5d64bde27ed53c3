/* Attention of prompts by Hopper's warpgroup instructions (online softmax as in attention.h; keys and values by the
 * tensor engine, two warpgroups in turns, each beginning a tile's scores before the weights of the one before are
 * multiplied: Shah and others, 2024).
 *
 * A block stays for the whole launch, one on each multiprocessor, and takes items until there are none. An item is 128
 * rows, pairs of a new token and a query head of one K/V head, token by token, and all keys that they see, a tile at a
 * time from the first one on (with a window: the first that any of them sees): a row meets its keys in the same order
 * and by the same instructions wherever its neighbours are, and keys that it must not see change none of its bits. So
 * its result is the same in any pieces.
 *
 * A third warpgroup does nothing but bring: one warp takes items and copies boxes of pages, two others the rows of
 * queries of the next item. What is in shared memory changes hands by barriers: full when it has come, empty when all
 * eight computing warps have read it; each exists twice, and uses number n of it have parity n / 2 % 2. */
#ifndef GPU_HOPPER_KERNEL_H
#define GPU_HOPPER_KERNEL_H

#include "gpu/hopper_compute.h"

template <int HD, int KIND>
static __global__ void __launch_bounds__(hopper_shape<HD, KIND>::THREADS, 1)
        hopper_attention(GPU_PARAM hopper_args args)
{
#if SM90_CODE
	typedef hopper_shape<HD, KIND> shape;
	GPU_DYN_SHARED(uint8_t, shared);
	const hopper_memory<HD, KIND> m = { sm90_first_tile(shared) };

	if (threadIdx.x == 0) {
		hopper_signals *const s = m.signals();

		for (int i = 0; i < 2; i++) {
			sm90_bar_init(&s->k_full[i], shape::EIGHT ? (int)HOPPER_CONVERTERS : 1);
			sm90_bar_init(&s->v_full[i], shape::EIGHT ? (int)HOPPER_CONVERTERS : 1);
			sm90_bar_init(&s->k_empty[i], HOPPER_READERS);
			sm90_bar_init(&s->v_empty[i], HOPPER_READERS);
			sm90_bar_init(&s->q_full[i], HOPPER_QUERY_THREADS);
			sm90_bar_init(&s->q_empty[i], HOPPER_READERS);
			sm90_bar_init(&s->item_full[i], 1);
			sm90_bar_init(&s->item_empty[i], shape::ITEM_READERS);
			if (shape::EIGHT) {
				sm90_bar_init(&s->raw_full[i], 1);
				sm90_bar_init(&s->raw_empty[i], HOPPER_CONVERTERS);
			}
		}
		sm90_bars_ready();
	}
	__syncthreads();
	gpu_dependents_may_start();
	gpu_dependency_wait();
	/* In this order: with the other branch first, the compiler (13.0) gives both of them what a thread begins with.
	 */
	if (threadIdx.x < HOPPER_COMPUTE) {
		sm90_more_registers<shape::RICH>();
		hopper_compute<HD, KIND>(args, m);
	} else {
		sm90_fewer_registers<shape::LEAN>();
		if (shape::EIGHT && threadIdx.x >= HOPPER_CONVERT)
			hopper_convert<HD, KIND>(m);
		else if (threadIdx.x < HOPPER_BRING + 32)
			hopper_bring<HD, KIND>(args, m);
		else if (threadIdx.x >= HOPPER_QUERIES)
			hopper_bring_queries<HD, KIND>(args, m);
	}
#endif
}

template <int HD, int KIND> static void hopper_launch(const struct gk_ctx *ctx, const hopper_args &args, uint32_t grid)
{
	typedef hopper_shape<HD, KIND> shape;

	gpu_launch(hopper_attention<HD, KIND>, dim3(grid), dim3(shape::THREADS), shape::SHARED, ctx->stream,
	           ctx->overlap, args);
}

#endif
