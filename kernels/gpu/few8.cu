/* few8.h: which kernel. */
#include "gpu/few8.h"

template <uint32_t TYPE, int NX> static void launch(const struct gk_ctx *ctx, const few_args &a, size_t shared)
{
	enum { BLOCKS = NX == 4 ? 2 : 3 };
	const uint32_t most = ctx->n_sm * BLOCKS, rounds = (a.n_tiles + most - 1) / most;
	const dim3 grid((a.n_tiles + rounds - 1) / rounds), block(FEW_THREADS);

	if (a.gated)
		gpu_launch(few8_kernel<TYPE, NX, true>, grid, block, shared, ctx->stream, ctx->overlap, a);
	else
		gpu_launch(few8_kernel<TYPE, NX, false>, grid, block, shared, ctx->stream, ctx->overlap, a);
}

template <uint32_t TYPE> static void launch_type(const struct gk_ctx *ctx, const few_args &a, size_t shared)
{
	if (a.n_rows == 1)
		launch<TYPE, 1>(ctx, a, shared);
	else if (a.n_rows == 2)
		launch<TYPE, 2>(ctx, a, shared);
	else
		launch<TYPE, 4>(ctx, a, shared);
}

bool few8_launch(uint32_t type, const struct gk_ctx *ctx, few_args a)
{
	enum { MOST_BYTES = 72 << 10 };
	const size_t shared = (size_t)a.n_rows * a.cols.n_chunks * 4 * sizeof(few8_x);
	const uint32_t per_tile = a.gated ? 8 : 16;

	if (a.n_rows > FEW8_MOST_ROWS || shared > MOST_BYTES || shared + 4096 > ctx->smem_bytes)
		return false;
	a.n_tiles = 0;
	for (uint32_t j = 0; j < (a.gated ? 1 : a.n_jobs); j++) {
		a.job[j].first_tile = a.n_tiles;
		a.n_tiles += (a.job[j].w.rows + per_tile - 1) / per_tile;
	}
	switch (type) {
	case KN_Q4_0:
		launch_type<KN_Q4_0>(ctx, a, shared);
		return true;
	case KN_Q4_K:
		launch_type<KN_Q4_K>(ctx, a, shared);
		return true;
	case KN_Q8_0:
		launch_type<KN_Q8_0>(ctx, a, shared);
		return true;
	default:
		return false;
	}
}
