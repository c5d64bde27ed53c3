/* A router's choice for one row, by all threads of a block.
 *
 * It is made by rank: every expert counts those that are better, and the ones with the lowest counts are taken in that
 * order. Equal ones go by number, so no two have the same rank. Which experts they are is known first (choose_ids());
 * whoever only has to know where weights lie goes on with that. */
#ifndef GPU_CHOOSE_H
#define GPU_CHOOSE_H

#include "gpu/gpu.h"
#include "gpu/launch.h"

/* Shared memory for one row: arrays of n_expert, in whole float4. */
struct choose_room {
	float *choices, *scores, *known;
	int32_t *ids; /* of the best, in their order */
};

static inline size_t choose_shared_bytes(uint32_t n_expert)
{
	return (size_t)4 * ((n_expert + 3) & ~3u) * sizeof(float);
}

GPU_FN choose_room choose_room_at(float *shared, uint32_t n_expert)
{
	const uint32_t n = (n_expert + 3) & ~3u;
	const choose_room room = { shared, shared + n, shared + 2 * n, (int32_t *)(shared + 3 * n) };

	return room;
}

/* Of experts threadIdx.x, threadIdx.x + THREADS, ...; minus infinity beyond the last. */
template <int THREADS> struct choose_logits {
	enum { N = (KN_MAX_EXPERTS + THREADS - 1) / THREADS };
	float v[N];
};

/* Past the first-level cache: other blocks may have written them. */
template <int THREADS> GPU_FN void choose_load(choose_logits<THREADS> &l, const float *logits, uint32_t n)
{
#pragma unroll
	for (int i = 0; i < choose_logits<THREADS>::N; i++) {
		const uint32_t e = i * THREADS + threadIdx.x;

		l.v[i] = e < n ? *(const volatile float *)(logits + e) : -INFINITY;
	}
}

GPU_FN float choose_sigmoid(float x)
{
	return 1.0f / (1.0f + expf(-x));
}

/* The sum of the two best choices of a group. */
GPU_FN float choose_group_score(const float *choices, uint32_t size)
{
	float best = -INFINITY, second = -INFINITY;

	for (uint32_t e = 0; e < size; e++) {
		if (choices[e] > best) {
			second = best;
			best = choices[e];
		} else if (choices[e] > second) {
			second = choices[e];
		}
	}
	return size > 1 ? best + second : best;
}

/* Leaves the best groups open. */
template <int THREADS> GPU_FN void choose_close_groups(const kn_router &r, float *choices, float *scores)
{
	const uint32_t size = r.n_expert / r.n_group;

	for (uint32_t g = threadIdx.x; g < r.n_group; g += THREADS)
		scores[g] = choose_group_score(choices + g * size, size);
	__syncthreads();
	for (uint32_t g = threadIdx.x; g < r.n_group; g += THREADS) {
		uint32_t n_better = 0;

		for (uint32_t o = 0; o < r.n_group; o++)
			n_better += scores[o] > scores[g] || (scores[o] == scores[g] && o < g);
		for (uint32_t e = 0; e < size && n_better >= r.top_group; e++)
			choices[g * size + e] = -INFINITY;
	}
	__syncthreads();
}

/* room.ids, seen behind the next barrier. found(rank, expert, own) is called for each by one thread; own: the expert is
 * number threadIdx.x. */
template <int THREADS, class F>
GPU_FN void choose_ids(const kn_router &r, const choose_logits<THREADS> &l, const choose_room &room, F found)
{
	const uint32_t n = r.n_expert, n4 = (n + 3) / 4;

#pragma unroll
	for (int i = 0; i < choose_logits<THREADS>::N; i++) {
		const uint32_t e = i * THREADS + threadIdx.x;
		float c = -INFINITY;

		if (e < n) {
			room.known[e] = l.v[i];
			c = r.kind == KN_ROUTE_SIGMOID ? choose_sigmoid(l.v[i]) + (r.bias ? r.bias[e] : 0.0f) : l.v[i];
			if (c != c) /* no number: never taken, but as the first one of all always */
				c = e == 0 ? INFINITY : -INFINITY;
		}
		if (e < 4 * n4)
			room.choices[e] = c;
	}
	__syncthreads();
	if (r.n_group > 1 && r.top_group < r.n_group)
		choose_close_groups<THREADS>(r, room.choices, room.scores);
#pragma unroll 1
	for (uint32_t e = threadIdx.x; e < n; e += THREADS) {
		const float mine = room.choices[e];
		uint32_t rank = 0;

#pragma unroll 8
		for (uint32_t q = 0; q < n4; q++) {
			const float4 o = ((const float4 *)room.choices)[q];

			rank += o.x > mine || (o.x == mine && 4 * q < e);
			rank += o.y > mine || (o.y == mine && 4 * q + 1 < e);
			rank += o.z > mine || (o.z == mine && 4 * q + 2 < e);
			rank += o.w > mine || (o.w == mine && 4 * q + 3 < e);
		}
		if (rank < r.top_k) {
			const uint32_t id = mine == -INFINITY ? 0 : e; /* nothing left to choose: the first */

			room.ids[rank] = (int32_t)id;
			found(rank, id, id == threadIdx.x);
		}
	}
}

/* Weights of room.ids, which are seen already, each by one thread that calls found(rank, weight). scratch: 32 floats.
 */
template <int THREADS, class F>
GPU_FN void choose_weights(const kn_router &r, const choose_logits<THREADS> &l, const choose_room &room, float *scratch,
                           F found)
{
	enum { N = choose_logits<THREADS>::N, GROUPS = THREADS / 32 };
	const uint32_t lane = threadIdx.x & 31;
	float top = -INFINITY, sum = 0.0f, total = 0.0f;

#pragma unroll
	for (int i = 0; i < N; i++)
		top = fmaxf(top, l.v[i]);
	top = gpu_group_max(top);
	if (lane == 0)
		scratch[threadIdx.x / 32] = top;
	__syncthreads();
	top = gpu_group_max(lane < GROUPS ? scratch[lane] : -INFINITY);
	__syncthreads();
	for (uint32_t k = threadIdx.x; k < r.top_k; k += THREADS) {
		const float x = room.known[room.ids[k]];

		room.scores[k] = r.kind == KN_ROUTE_SIGMOID ? choose_sigmoid(x) : expf(x - top);
	}
#pragma unroll
	for (int i = 0; i < N; i++) {
		if (r.kind == KN_ROUTE_SOFTMAX && i * THREADS + threadIdx.x < r.n_expert)
			sum += expf(l.v[i] - top);
	}
	__syncthreads();
	if (r.kind == KN_ROUTE_SOFTMAX)
		sum = gpu_block_sum(sum, scratch);
	else if (r.kind == KN_ROUTE_SIGMOID)
		sum = 1.0f;
	for (uint32_t k = 0; r.kind == KN_ROUTE_TOPK_SOFTMAX && k < r.top_k; k++)
		sum += room.scores[k];
	for (uint32_t k = 0; r.normalize && k < r.top_k; k++)
		total += room.scores[k] / sum;
	for (uint32_t k = threadIdx.x; k < r.top_k; k += THREADS)
		found(k, room.scores[k] / sum / (r.normalize ? total + 1e-20f : 1.0f) * r.scale);
}

#endif
