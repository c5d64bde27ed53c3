/* Rows of x for steady_sm90.h: a kernel puts them into memory as instructions want them in shared memory, and a ring
 * there that they come into, 64 columns a step. */
#ifndef GPU_STEADY_SM90_ROWS_H
#define GPU_STEADY_SM90_ROWS_H

#include "gpu/gpu_tile.h"
#include "gpu/sm90.h"
#include "gpu/steady.h"

/* A block for 64 columns of N rows: tile blockIdx.x + blockIdx.y * gridDim.x of `image`. Rows that are not there are
 * like the last one. */
template <int N> static __global__ void s90_image_kernel(GPU_PARAM steady_args a, bool whole)
{
	const uint32_t unit = blockIdx.x, first = blockIdx.y * N, t = threadIdx.x % 4, q = threadIdx.x % 8;
	uint4 *const tile = (uint4 *)a.image + ((size_t)blockIdx.y * gridDim.x + unit) * N * 8;

	gpu_dependents_may_start();
	gpu_dependency_wait();
#pragma unroll
	for (uint32_t r = threadIdx.x / 8; r < N; r += STEADY_THREADS / 8) {
		const uint32_t row = first + r < a.n_rows ? first + r : a.n_rows - 1, k = unit * 64 + q * 8;
		uint32_t w[4];

		if (a.cols.data) {
			const uint4 v = a.cols.data[(size_t)row * a.cols.col_stride + unit * 8 + q];

			w[0] = v.x, w[1] = v.y, w[2] = v.z, w[3] = v.w;
		} else {
			float f[8];

			gk_get8(a.x, row, k, a.job[0].w.cols, whole && k + 8 <= a.job[0].w.cols, f);
#pragma unroll
			for (int j = 0; j < 4; j++)
				w[j] = gpu_pack_bf16(f[2 * j], f[2 * j + 1]);
		}
		/* Word j of the four pieces of 32 columns becomes piece j of the line. */
#pragma unroll
		for (int d = 1; d <= 2; d *= 2) {
			const bool odd = t & d;

#pragma unroll
			for (int j = 0; j < 4; j++) {
				if (j & d)
					continue;

				const uint32_t got = gpu_shfl_xor(odd ? w[j] : w[j + d], d);

				w[j] = odd ? got : w[j];
				w[j + d] = odd ? w[j + d] : got;
			}
		}
		tile[gpu_tile_at(r, (q & 4) + t, 8)] = make_uint4(w[0], w[1], w[2], w[3]);
	}
}

#if SM90_CODE
/* The ring that tiles of x come into. */
template <int N, int STAGES, bool DEEP> struct s90_ring {
	sm90_bar full[STAGES], empty[STAGES];

	__device__ __forceinline__ void begin()
	{
		if (threadIdx.x == 0) {
			for (int s = 0; s < STAGES; s++) {
				sm90_bar_init(&full[s], 1);
				sm90_bar_init(&empty[s], STEADY_THREADS / 32);
			}
			sm90_bars_ready();
		}
		__syncthreads();
	}
	/* So many steps ahead; unless DEEP waves that are a step behind are not waited for. */
	enum { AHEAD = DEEP ? STAGES - 1 : STAGES - 2 };
	/* One thread: the step's tile, where the one STAGES steps before was. */
	__device__ __forceinline__ void bring(uint4 *tiles, const uint4 *from, uint32_t step)
	{
		const uint32_t s = step % STAGES;

		if (step >= STAGES)
			sm90_bar_wait(&empty[s], (step / STAGES - 1) & 1);
		sm90_bar_expect(&full[s], N * 128);
		sm90_copy_bytes(tiles + s * (N * 8), from, N * 128, &full[s]);
	}
	__device__ __forceinline__ void wait(uint32_t step)
	{
		sm90_bar_wait(&full[step % STAGES], step / STAGES & 1);
	}
	/* A wave has done with it. */
	__device__ __forceinline__ void release(uint32_t step)
	{
		if (threadIdx.x % 32 == 0)
			sm90_bar_arrive(&empty[step % STAGES]);
	}
};
#endif

#endif
