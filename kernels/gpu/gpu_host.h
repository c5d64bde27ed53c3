/* Runs kernels on the host, for tests: every thread of a block is a fiber, blocks run one after another, shared
 * memory is static. Barriers and shuffles behave as on the device, and a block in which no thread can go on is
 * reported instead of hanging. GPU_HOST_WARP is the wave: 32 or 64.
 *
 * Blocks of a cluster run together, MAX_THREADS threads in all at the most; each sees its own shared memory.
 *
 * Kernels of several threads take turns: one at a time runs, since shared memory is static. One that waits for another
 * thread's says so by gpu_host::spin(), and has no shared memory. Built with address sanitizer, switches are announced
 * to it; dynamic shared memory is exactly as large as asked for and filled with garbage, so that it sees what leaves
 * it. */
#ifndef GPU_HOST_H
#define GPU_HOST_H

#include <math.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <functional>

#ifndef GPU_HOST_WARP
#define GPU_HOST_WARP 32
#endif

#define __global__
#define __device__
#define __host__
#define __forceinline__ inline __attribute__((unused))
#define __shared__ static
#define __launch_bounds__(...)
#define __restrict__
#define __align__(n) __attribute__((aligned(n)))
#define __grid_constant__

struct dim3 {
	unsigned x, y, z;
	dim3(unsigned a = 1, unsigned b = 1, unsigned c = 1) : x(a), y(b), z(c)
	{
	}
};
struct __attribute__((aligned(8))) uint2 {
	uint32_t x, y;
};
struct __attribute__((aligned(16))) uint4 {
	uint32_t x, y, z, w;
};
struct __attribute__((aligned(8))) float2 {
	float x, y;
};
struct __attribute__((aligned(16))) float4 {
	float x, y, z, w;
};

static inline uint4 make_uint4(uint32_t x, uint32_t y, uint32_t z, uint32_t w)
{
	return uint4{ x, y, z, w };
}
static inline uint2 make_uint2(uint32_t x, uint32_t y)
{
	return uint2{ x, y };
}
static inline float4 make_float4(float x, float y, float z, float w)
{
	return float4{ x, y, z, w };
}
static inline float2 make_float2(float x, float y)
{
	return float2{ x, y };
}

extern thread_local dim3 threadIdx, blockIdx, blockDim, gridDim;

namespace gpu_host
{
enum {
	MAX_BLOCK = 1024,
	MAX_CLUSTER = 4,
	MAX_THREADS = 2 * MAX_BLOCK,
	SLOT = 128,
	MOST_SHARED = (GPU_HOST_WARP == 64 ? 64 : 227) << 10
};

/* Dynamic shared memory that a block may have; tests take some away. A launch that asks for more fails as on a device.
 */
extern size_t shared_bytes;
/* Of this thread's launches since the last call: 0, or 1 when one of them was refused. */
int take_error();

extern thread_local int current; /* the running fiber: linear index of its thread */
extern thread_local void *dynamic_shared;
extern thread_local uint8_t slots[2][MAX_THREADS][SLOT]; /* values under way, by parity of the exchange */
extern thread_local uint8_t parity[MAX_THREADS];

/* cluster: so many blocks, neighbours along x, run together. */
void launch(dim3 grid, dim3 block, size_t shared, const std::function<void()> &body, unsigned cluster = 1);
void wait_block();
void wait_cluster();
/* The running thread's block of its cluster, and the shared memory of all of them, which is aligned alike. */
extern thread_local unsigned rank;
extern thread_local uint8_t *cluster_shared[MAX_CLUSTER];
/* Lets other threads' kernels run for a moment. */
void spin();
/* Until all threads of the aligned group of `width` have come here (or ended). */
void wait_group(int width);
/* Lets the block's other threads go on: this one waits for what one of them will do to memory. */
void pause();

/* Barriers of a part of a block, by number; a block begins with nobody at them. */
struct named {
	uint32_t arrived, phase;
};
extern thread_local named named_barriers[MAX_CLUSTER][16];

/* What thread `lane` of this thread's aligned group of `width` brought. */
template <class T> static inline T exchange_wave(T v, int lane, int width)
{
	int me = current, p = parity[me] ^= 1;
	T r;

	static_assert(sizeof(T) <= SLOT, "values fit a slot");
	memcpy(slots[p][me], &v, sizeof(v));
	wait_group(width);
	memcpy(&r, slots[p][(me & ~(width - 1)) + lane], sizeof(r));
	return r;
}
template <class T> static inline T exchange(T v, int lane)
{
	return exchange_wave(v, lane, 32);
}
} // namespace gpu_host

static inline void __syncthreads()
{
	gpu_host::wait_block();
}
static inline void __threadfence()
{
}
template <class T, class V> static inline T atomicAdd(T *p, V v)
{
	T old = *p;

	*p = (T)(old + v);
	return old;
}
/* The runtime, as far as tests use it. */
typedef int gpu_error;
#define GPU_OK 0
static inline const char *gpu_error_string(gpu_error e)
{
	return e ? "more shared memory than a block may have" : "none";
}
static inline gpu_error gpu_last_error()
{
	return gpu_host::take_error();
}
#define gpu_malloc(p, n) (*(void **)(p) = malloc(n), *(p) ? 0 : 1)
static inline gpu_error gpu_free(void *p)
{
	free(p);
	return 0;
}
#define gpu_copy_in(dst, src, n) (memcpy((dst), (src), (n)), 0)
#define gpu_copy_out(dst, src, n) (memcpy((dst), (src), (n)), 0)
#define gpu_fill(p, v, n) (memset((p), (v), (n)), 0)
#define gpu_sync() 0
#define gpu_memset_async(p, v, n, stream) (memset((p), (v), (n)), 0)

#endif
