/* Logits as keys that sort the best first, and the lowest of many such keys; by blocks of PICK_THREADS threads. */
#ifndef GPU_PICK_KEYS_H
#define GPU_PICK_KEYS_H

#include "gpu/view.h"
#include "kernels.h"

/* Keys of each thread that lowest_sorted() chooses among at once. */
enum { PICK_THREADS = 256, PICK_SLICE = 16, PICK_CHUNK = PICK_THREADS * PICK_SLICE };

/* Lowest first: the highest logit, of equal ones the lowest id. */
typedef unsigned long long order_key;
#define NO_KEY (~0ull)

GPU_FN order_key key_of(float x, uint32_t id)
{
	const uint32_t bits = gpu_bits(x), ascending = bits & 0x80000000u ? ~bits : bits | 0x80000000u;

	return (order_key)~ascending << 32 | id;
}

GPU_FN float logit_of(order_key key)
{
	const uint32_t ascending = ~(uint32_t)(key >> 32);

	return gpu_float(ascending & 0x80000000u ? ascending & 0x7fffffffu : ~ascending);
}

GPU_FN order_key lower(order_key a, order_key b)
{
	return a < b ? a : b;
}

/* To every thread. scratch: 32 keys. */
GPU_FN order_key lowest_of_block(order_key k, order_key *scratch)
{
	const uint32_t lane = threadIdx.x & 31, group = threadIdx.x >> 5, n_groups = blockDim.x >> 5;

	for (int m = 16; m > 0; m >>= 1)
		k = lower(k, gpu_shfl_xor(k, m));
	if (lane == 0)
		scratch[group] = k;
	__syncthreads();
	k = scratch[0];
	for (uint32_t g = 1; g < n_groups; g++)
		k = lower(k, scratch[g]);
	__syncthreads();
	return k;
}

/* Batcher's bitonic sort, n a power of two. */
GPU_FN void sort_keys(order_key *keys, uint32_t n)
{
	for (uint32_t size = 2; size <= n; size *= 2) {
		for (uint32_t step = size / 2; step > 0; step /= 2) {
			__syncthreads();
			for (uint32_t t = threadIdx.x; t < n / 2; t += blockDim.x) {
				const uint32_t i = 2 * t - (t & (step - 1)), j = i + step;
				const bool ascending = (i & size) == 0;
				const order_key a = keys[i], b = keys[j];

				if ((a > b) == ascending) {
					keys[i] = b;
					keys[j] = a;
				}
			}
		}
	}
	__syncthreads();
}

/* Shared memory of lowest_sorted(). */
struct lowest_scratch {
	order_key keys[2 * KN_MAX_BEST];
	uint32_t counts[PICK_THREADS / 32];
	uint32_t n;
};

/* How many of the block's keys are not above `most`; to every thread. */
GPU_FN uint32_t count_up_to(const order_key (&mine)[PICK_SLICE], order_key most, uint32_t *counts)
{
	uint32_t n = 0;

#pragma unroll
	for (int i = 0; i < PICK_SLICE; i++)
		n += mine[i] <= most;
	for (int m = 16; m > 0; m >>= 1)
		n += gpu_shfl_xor(n, m);
	if ((threadIdx.x & 31) == 0)
		counts[threadIdx.x >> 5] = n;
	__syncthreads();
	n = 0;
	for (uint32_t g = 0; g < PICK_THREADS / 32; g++)
		n += counts[g];
	__syncthreads();
	return n;
}

/* The `wanted` lowest of all threads' keys, sorted, to s->keys[0, wanted); NO_KEY behind the last of fewer. Keys are
 * distinct but for NO_KEY; wanted <= KN_MAX_BEST.
 *
 * Sorting all of them would take 78 rounds; a bound that some more than the wanted ones keep to is found in a dozen, by
 * halving the range of keys, and then there are at most 512 to sort. Which bound that is cannot be told from the
 * result. */
GPU_FN void lowest_sorted(const order_key (&mine)[PICK_SLICE], uint32_t wanted, lowest_scratch *s)
{
	const uint32_t room = 2 * KN_MAX_BEST;
	/* below < the bound sought <= above: fewer than `wanted` are <= below - 1. */
	order_key below = 0, above = NO_KEY - 1;
	uint32_t n = count_up_to(mine, above, s->counts), size = 2;

	while (n > room) {
		const order_key middle = below + (above - below) / 2;
		const uint32_t n_up_to = count_up_to(mine, middle, s->counts);

		if (n_up_to < wanted) {
			below = middle + 1;
		} else {
			above = middle;
			n = n_up_to;
		}
	}
	if (threadIdx.x == 0)
		s->n = 0;
	while (size < n || size < wanted)
		size *= 2;
	for (uint32_t i = threadIdx.x; i < size; i += PICK_THREADS)
		s->keys[i] = NO_KEY;
	__syncthreads();
#pragma unroll
	for (int i = 0; i < PICK_SLICE; i++) {
		if (mine[i] <= above)
			s->keys[atomicAdd(&s->n, 1u)] = mine[i];
	}
	sort_keys(s->keys, size);
}

#endif
