/* few8.h: which kernel. */
#include "gpu/few8.h"

template <uint32_t TYPE> static bool launch(const struct gk_ctx *ctx, const few_args &a, size_t shared)
{
	const uint32_t most = ctx->n_sm * FEW8_BLOCKS, rounds = (a.n_tiles + most - 1) / most;
	const dim3 grid((a.n_tiles + rounds - 1) / rounds), block(FEW_THREADS);

	if (a.gated)
		gpu_launch(few8_kernel<TYPE, true>, grid, block, shared, ctx->stream, ctx->overlap, a);
	else
		gpu_launch(few8_kernel<TYPE, false>, grid, block, shared, ctx->stream, ctx->overlap, a);
	return true;
}

bool few8_launch(uint32_t type, const struct gk_ctx *ctx, few_args a)
{
	enum { MOST_BYTES = 60 << 10 /* 20,480 columns */ };
	const size_t shared = few8_row_bytes(a.cols.n_chunks);
	const uint32_t per_tile = a.gated ? 8 : 16;

	if (a.n_rows != 1 || shared > MOST_BYTES)
		return false;
	a.n_tiles = 0;
	for (uint32_t j = 0; j < (a.gated ? 1 : a.n_jobs); j++) {
		a.job[j].first_tile = a.n_tiles;
		a.n_tiles += (a.job[j].w.rows + per_tile - 1) / per_tile;
	}
	switch (type) {
	case KN_Q4_0:
		return launch<KN_Q4_0>(ctx, a, shared);
	case KN_Q4_K:
		return launch<KN_Q4_K>(ctx, a, shared);
	case KN_Q8_0:
		return launch<KN_Q8_0>(ctx, a, shared);
	default:
		return false;
	}
}
