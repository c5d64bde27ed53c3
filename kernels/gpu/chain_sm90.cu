/* Products of few rows with matrices of bfloat16, each sum one chain: 16 columns after the other, from the first to the
 * last, are added to one accumulator by one instruction each. That is how a library's kernel makes a sum that it shares
 * with nobody, whatever its tiles are (on Hopper, where sums of 16 products by wgmma have the bits of mma.sync), so a
 * row may have these kernels among few others and the library's among many (ctx->fixed; issue_linear.c).
 *
 * A wave makes 8 rows of W times up to 16 rows of x by itself, then the next 8; W is the instruction's second operand.
 * Nothing is shared and nobody is waited for. Each lane fetches pieces of 8 neighbouring columns, 16 bytes, as in
 * few.h: those of W far ahead and past the first-level cache, those of x, which all waves of a multiprocessor read at
 * about the same time, a few steps ahead. Four lanes that hold 32 columns of a row then exchange words, so that each
 * has what the instruction wants: its first 16 columns, then the others.
 *
 * For NVIDIA's matrix units, which the host stands for with waves of 32. */
#include "gpu/few_columns.h"
#include "gpu/linear.h"

enum { CHAIN_THREADS = 32 /* a wave by itself: which tile it has is known to be the same for all lanes */ };

#if GPU_MMA_MFMA || GPU_MMA_WMMA
#define CHAINS 0
#else
#define CHAINS 1
#endif

#if CHAINS
/* Word j of the pieces of a row's four lanes becomes lane j's piece. */
GPU_FN uint4 chain_turn(const uint4 &v)
{
	uint32_t w[4] = { v.x, v.y, v.z, v.w };

#pragma unroll
	for (int d = 1; d <= 2; d *= 2) {
		const bool odd = threadIdx.x & d;

#pragma unroll
		for (int j = 0; j < 4; j++) {
			if (j & d)
				continue;

			const uint32_t got = gpu_shfl_xor(odd ? w[j] : w[j + d], d);

			w[j] = odd ? got : w[j];
			w[j + d] = odd ? w[j + d] : got;
		}
	}
	return make_uint4(w[0], w[1], w[2], w[3]);
}

/* What a value becomes on its way through memory. */
GPU_FN float chain_stored(uint32_t elem, float f)
{
	return elem == GK_BF16 ? gpu_from_bf16(gpu_to_bf16(f)) : f;
}
#endif

/* NB: 8s of rows of x. DEPTH: pieces of W, of each matrix, that a lane has under way. */
template <int NB, bool GATED, int DEPTH, int BLOCKS>
static __global__ void __launch_bounds__(CHAIN_THREADS, BLOCKS) chain_kernel(GPU_PARAM few_args a)
{
#if CHAINS
	enum {
		MATRICES = GATED ? 2 : 1,
		DEPTH_X = NB == 1 && DEPTH >= 16 ? 8 : 4, /* pieces of x under way */
		PAIR = 2,                                 /* pieces that are fetched together: whole lines */
		BYTES = 64,                               /* from a row's piece to the next */
	};
	static_assert(DEPTH % DEPTH_X == 0 && DEPTH_X % PAIR == 0, "places of pieces are known when compiled");
	const uint32_t group = threadIdx.x >> 2, t = threadIdx.x & 3, n_pieces = a.job[0].w.cols / 32;
	uint4 raw[DEPTH][MATRICES], raw_x[DEPTH_X][NB];
	const uint8_t *from[MATRICES], *x[NB]; /* this lane's first pieces */
	uint32_t tile = blockIdx.x;

	const auto job_of = [&](uint32_t of) {
		uint32_t j = 0;

		while (!GATED && j + 1 < a.n_jobs && of >= a.job[j + 1].first_tile)
			j++;
		return j;
	};
	const auto point = [&](uint32_t of) {
		const uint32_t j = job_of(of), row = (of - a.job[j].first_tile) * CHAIN_TILE + group;

#pragma unroll
		for (int m = 0; m < MATRICES; m++) {
			const gk_mat &w = a.job[GATED ? m : j].w;

			from[m] = (const uint8_t *)w.values +
			          ((size_t)(row < w.rows ? row : w.rows - 1) * w.ld + t * 8) * 2;
		}
	};
	/* A pair to places `place` and the next, from `at` bytes behind the first. */
	const auto load = [&](int place, uint32_t at) {
#pragma unroll
		for (int p = 0; p < PAIR; p++) {
#pragma unroll
			for (int m = 0; m < MATRICES; m++)
				raw[place + p][m] = gpu_load_stream(from[m] + at + (place + p) * BYTES);
		}
	};
	const auto load_x = [&](int piece, uint32_t at) {
#pragma unroll
		for (int p = 0; p < PAIR; p++) {
#pragma unroll
			for (int b = 0; b < NB; b++)
				raw_x[(piece + p) % DEPTH_X][b] = *(const uint4 *)(x[b] + at + (piece + p) * BYTES);
		}
	};

	point(tile);
#pragma unroll
	for (int u = 0; u < DEPTH; u += PAIR) {
		if ((uint32_t)u < n_pieces)
			load(u, 0);
	}
	gpu_dependents_may_start();
	gpu_dependency_wait();
#pragma unroll
	for (int b = 0; b < NB; b++) {
		const uint32_t row = b * 8 + group; /* one that is not there is like the last one, and goes nowhere */

		x[b] = (const uint8_t *)a.x.p + ((size_t)(row < a.n_rows ? row : a.n_rows - 1) * a.x.ld + t * 8) * 2;
	}
	for (;;) {
		const uint32_t j = job_of(tile), row0 = (tile - a.job[j].first_tile) * CHAIN_TILE;
		const few_job &job = a.job[j];
		gpu_acc acc[MATRICES];
		float old[NB * 2];
		bool more;

#pragma unroll
		for (int u = 0; u < DEPTH_X; u += PAIR) {
			if ((uint32_t)u < n_pieces)
				load_x(u, 0);
		}
#pragma unroll
		for (int i = 0; i < NB * 2; i++) {
			const uint32_t of = gpu_acc_row(i), row = row0 + gpu_acc_col(i);

			old[i] = job.accumulate && of < a.n_rows && row < job.w.rows ? gk_get(job.out, of, row) : 0.0f;
		}
#pragma unroll
		for (int m = 0; m < MATRICES; m++)
			acc[m] = gpu_acc_zero();
		tile += gridDim.x;
		more = tile < a.n_tiles;
		for (uint32_t base = 0; base < n_pieces; base += DEPTH) {
			const bool last = base + DEPTH >= n_pieces;
			/* What is asked for next: the next pieces, or the next tile's first. */
			const uint32_t ahead = last ? 0 : base + DEPTH, n_ahead = last && !more ? 0 : n_pieces - ahead;

			if (last && more)
				point(tile);
#pragma unroll
			for (int u = 0; u < DEPTH; u += PAIR) {
#pragma unroll
				for (int p = u; p < u + PAIR && base + u < n_pieces; p++) {
					gpu_frag fx, fw;

					fx.p[0] = chain_turn(raw_x[p % DEPTH_X][0]);
					fx.p[1] = NB == 1 ? make_uint4(0, 0, 0, 0)
					                  : chain_turn(raw_x[p % DEPTH_X][NB - 1]);
					fw.p[1] = make_uint4(0, 0, 0, 0); /* there are no more than 8 */
#pragma unroll
					for (int m = 0; m < MATRICES; m++) {
						fw.p[0] = chain_turn(raw[p][m]);
						gpu_mma<true>(acc[m], fx, fw);
					}
				}
				if (base + u + DEPTH_X < n_pieces)
					load_x(u + DEPTH_X, base * BYTES);
				if ((uint32_t)u < n_ahead)
					load(u, ahead * BYTES);
			}
		}
#pragma unroll
		for (int i = 0; i < NB * 2; i++) {
			const uint32_t of = gpu_acc_row(i), row = row0 + gpu_acc_col(i);
			float y = acc[0].v[i];

			if (of >= a.n_rows || row >= job.w.rows)
				continue;
			if (GATED) /* both have been in memory where the library made them */
				y = gk_act(a.act, chain_stored(job.out.elem, y),
				           chain_stored(a.job[1].out.elem, acc[MATRICES - 1].v[i]));
			gk_put(job.out, of, row, gpu_add(old[i], y));
		}
		if (!more)
			break;
	}
#endif
}

struct chain_launch {
	const gk_ctx *ctx;
	const few_args *args;
};

/* As many blocks as the device holds at once, or fewer whose waves all have the same number of tiles. */
template <int NB, bool GATED, int DEPTH, int BLOCKS> static void launch_one(const chain_launch &l)
{
	const uint32_t most = l.ctx->n_sm * BLOCKS, n_tiles = l.args->n_tiles;
	const uint32_t rounds = (n_tiles + most - 1) / most;

	gpu_launch(chain_kernel<NB, GATED, DEPTH, BLOCKS>, dim3((n_tiles + rounds - 1) / rounds), dim3(CHAIN_THREADS),
	           0, l.ctx->stream, l.ctx->overlap, *l.args);
}

/* Where there are tiles for few waves only, each has more under way: 16 KiB for each of four or six on a
 * multiprocessor, else 8 for each of twelve. */
template <int NB, bool GATED> static void launch_of(const chain_launch &l)
{
	enum { MATRICES = GATED ? 2 : 1, FEW_WAVES = 8, MANY_WAVES = 12 };

	if (l.args->n_tiles <= l.ctx->n_sm * FEW_WAVES)
		launch_one<NB, GATED, 32 / MATRICES, FEW_WAVES>(l);
	else
		launch_one<NB, GATED, 16 / MATRICES, MANY_WAVES>(l);
}

void chain_launch_sm90(const struct gk_ctx *ctx, const few_args &a)
{
	const chain_launch l = { ctx, &a };

	if (a.gated)
		a.n_rows <= 8 ? launch_of<1, true>(l) : launch_of<2, true>(l);
	else
		a.n_rows <= 8 ? launch_of<1, false>(l) : launch_of<2, false>(l);
}
