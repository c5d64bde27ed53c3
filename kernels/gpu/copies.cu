/* Rows from one place to another by a kernel, of which one side may be pinned memory of the host: what copy engines do
 * for themselves, where many short rows are slow with them. A bus of 50 GB/s and 2 us wants 100 KB under way: few blocks
 * are enough, and steps beside them keep the other multiprocessors. */
#include <errno.h>

#include "gpu/view.h"

enum { COPY_THREADS = 512, UNIT = 16, AHEAD = 4 /* units of a thread under way */ };

static __global__ void __launch_bounds__(COPY_THREADS) copy_kernel(char *dst, size_t dst_step, const char *src, size_t src_step,
                                                                   uint32_t units, uint32_t n)
{
	const uint32_t step = gridDim.x * COPY_THREADS;

	gpu_dependency_wait();
	for (uint32_t first = blockIdx.x * COPY_THREADS + threadIdx.x; first < n; first += AHEAD * step) {
		uint4 u[AHEAD];

#pragma unroll
		for (uint32_t k = 0; k < AHEAD; k++) {
			const uint32_t i = first + k * step;

			if (i < n)
				u[k] = *(const uint4 *)(src + i / units * src_step + (size_t)(i % units) * UNIT);
		}
#pragma unroll
		for (uint32_t k = 0; k < AHEAD; k++) {
			const uint32_t i = first + k * step;

			if (i < n)
				*(uint4 *)(dst + i / units * dst_step + (size_t)(i % units) * UNIT) = u[k];
		}
	}
}

int gk_copy_rows(void *stream, uint32_t n_blocks, void *dst, size_t dst_step, const void *src, size_t src_step, size_t bytes,
                 size_t n_rows)
{
	const size_t n = bytes / UNIT * n_rows;

	if (((uintptr_t)dst | (uintptr_t)src | dst_step | src_step | bytes) % UNIT || n > 1u << 31)
		return -ENOTSUP;
	if (n > 0)
		gpu_launch(copy_kernel, dim3(n_blocks), dim3(COPY_THREADS), 0, stream, false, (char *)dst, dst_step,
		           (const char *)src, src_step, (uint32_t)(bytes / UNIT), (uint32_t)n);
	return gk_launched();
}
