/* The end of a block of steady_sm90.h: its sums go to lines of shared memory, and the blocks of a cluster, which are
 * groups of classes of the same rows, add up theirs there. */
#ifndef GPU_STEADY_SM90_END_H
#define GPU_STEADY_SM90_END_H

#include "gpu/sm90.h"
#include "gpu/steady.h"

enum { S90_LINE = STEADY_ROWS + 4 /* floats of a row of x: lanes meet every bank once */ };

/* This thread's sums into the lines of `out`: [row of x][row of the tile]. */
template <int N> GPU_FN void s90_put_sums(float *out, const float *sum)
{
	const uint32_t lane = threadIdx.x & 31, r = threadIdx.x / 32 * 16 + (lane >> 2);

#pragma unroll
	for (int i = 0; i < N / 2; i++)
		out[((i >> 2) * 8 + (lane & 3) * 2 + (i & 1)) * S90_LINE + r + (i >> 1 & 1) * 8] = sum[i];
}

/* Types with scales: the units that a lane has under way are in its registers, what the classes before gave is in
 * shared memory, in the lines of s90_put_sums(). */
template <int N> GPU_FN void s90_add_sums(float *out, float *sum, bool first)
{
	const uint32_t lane = threadIdx.x & 31, r = threadIdx.x / 32 * 16 + (lane >> 2);

#pragma unroll
	for (int i = 0; i < N / 2; i++) {
		float *const to = out + ((i >> 2) * 8 + (lane & 3) * 2 + (i & 1)) * S90_LINE + r + (i >> 1 & 1) * 8;

		*to = (first ? 0.0f : *to) + sum[i];
		sum[i] = 0.0f;
	}
}

#if SM90_CODE
/* Adds the groups' sums in their order and writes what follows: rows of W [row0, ..), rows of x [first, ..). Each block
 * of the cluster takes as many rows of x. ASK: floats of all places are asked for before the first is added. */
template <int N, bool GATED, bool ASK>
GPU_FN void s90_finish(const steady_args &a, const float *out, uint32_t row0, uint32_t first, uint32_t n_rows)
{
	enum { N_OUT = GATED ? STEADY_ROWS / 2 : STEADY_ROWS, AT_ONCE = 8 };
	const few_job &job = a.job[0];
	const uint32_t n_groups = gridDim.z, each = N / n_groups * N_OUT, begin = blockIdx.z * (N / n_groups);

	for (uint32_t base = threadIdx.x; base < each; base += STEADY_THREADS * AT_ONCE) {
		float old[AT_ONCE], sum[AT_ONCE], sum_up[AT_ONCE];

#pragma unroll
		for (uint32_t u = 0; u < AT_ONCE; u++) {
			const uint32_t i = base + u * STEADY_THREADS, row = row0 + i % N_OUT, col = begin + i / N_OUT;

			old[u] = job.accumulate && i < each && row < job.w.rows && col < n_rows
			                 ? gk_get(job.out, first + col, row)
			                 : 0.0f;
			sum[u] = sum_up[u] = 0.0f;
		}
		for (uint32_t z = 0; ASK && z < n_groups; z++) {
			float y[AT_ONCE], up[AT_ONCE];

#pragma unroll
			for (uint32_t u = 0; u < AT_ONCE; u++) {
				/* Beyond the last one: somewhere in the lines, for nobody. */
				const uint32_t i = base + u * STEADY_THREADS, col = begin + i / N_OUT;
				const float *const at = out + (col < N ? col : 0) * S90_LINE + i % N_OUT;

				y[u] = sm90_load_of(at, z);
				up[u] = GATED ? sm90_load_of(at + N_OUT, z) : 0.0f;
			}
#pragma unroll
			for (uint32_t u = 0; u < AT_ONCE; u++) {
				sum[u] += y[u];
				if (GATED)
					sum_up[u] += up[u];
			}
		}
#pragma unroll
		for (uint32_t u = 0; u < AT_ONCE; u++) {
			const uint32_t i = base + u * STEADY_THREADS, r = i % N_OUT, col = begin + i / N_OUT;
			const float *const at = out + col * S90_LINE + r;
			float y = ASK ? sum[u] : 0.0f, up = ASK ? sum_up[u] : 0.0f;

			if (i >= each || row0 + r >= job.w.rows || col >= n_rows)
				continue;
			for (uint32_t z = 0; !ASK && z < n_groups; z++) {
				y += sm90_load_of(at, z);
				if (GATED)
					up += sm90_load_of(at + N_OUT, z);
			}
			steady_put_onto(a, first + col, row0 + r, y, up, old[u]);
		}
	}
}
#endif

#endif
