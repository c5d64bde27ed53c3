/* Attention of few rows: what its kernels (attention_few.cu) and those for latents share, the merge of parts. */
#ifndef GPU_ATTENTION_FEW_H
#define GPU_ATTENTION_FEW_H

#include "gpu/attention.h"

enum { FEW_ROWS = 16 /* of a block */ };

static inline bool attn_few_takes(const attn_args &a)
{
	return a.kv.k_dim <= 256 && a.kv.v_dim <= 256;
}

/* Over the list `few`; work, row_blocks and counters are set. */
void attn_few_launch(const struct gk_ctx *ctx, const attn_args &a, uint32_t max_work);

/* ---- Merge of parts ---------------------------------------------------------------------------------------------- */

/* Weights of the parts of n rows from row0 on, [row][part], and what the rows are multiplied by at the end. A group of
 * 32 lanes takes a row. */
GPU_FN void attn_merge_weights(const attn_args &a, const gk_merge &m, uint32_t kv_head, uint32_t row0, uint32_t n,
                               float *weights, float *scales)
{
	const uint32_t lane = threadIdx.x & 31, line = attn_part_floats(a);
	const size_t step = (size_t)m.n_q * a.n_head * line;

	for (uint32_t r = threadIdx.x / 32; r < n; r += blockDim.x / 32) {
		const uint32_t token = (row0 + r) / a.group, head = kv_head * a.group + (row0 + r) % a.group;
		const float *const top = a.parts + ((size_t)(m.part + token) * a.n_head + head) * line + a.kv.v_dim;
		float best = -INFINITY, total = 0.0f;

		for (uint32_t p = lane; p < m.n_parts; p += 32)
			best = fmaxf(best, top[p * step]);
		best = gpu_group_max(best);
		for (uint32_t p = lane; p < m.n_parts; p += 32) {
			const float t = top[p * step], w = t == -INFINITY ? 0.0f : attn_exp2(t - best);

			weights[r * m.n_parts + p] = w;
			total += top[p * step + 1] * w;
		}
		total = gpu_group_sum(total);
		if (lane == 0)
			scales[r] = attn_final_scale(a, head, best, total);
	}
}

/* Rows [row0, row0 + 16) of a K/V head of one entry, by all threads of a block. A group of 32 lanes sums every
 * MERGE_GROUPS-th part, several loads under way, and the groups' sums are added in their order: the same order for any
 * number of parts, since those that see nothing add zeros. shared: `room` floats. */
enum { MERGE_GROUPS = 4 };

GPU_FN void attn_merge(const attn_args &a, const gk_merge &m, uint32_t kv_head, uint32_t row0, float *shared,
                       uint32_t room)
{
	const gk_seq seq = a.batch.seqs[m.seq];
	const uint32_t left = m.n_q * a.group - row0, n_rows = left < FEW_ROWS ? left : (uint32_t)FEW_ROWS;
	const uint32_t v_dim = a.kv.v_dim, line = attn_part_floats(a), each = (v_dim + 3) & ~3u;
	const uint32_t fit = (room - FEW_ROWS) / (m.n_parts + MERGE_GROUPS * each + 3),
	               at_once = fit < n_rows ? fit : n_rows;
	const size_t step = (size_t)m.n_q * a.n_head * line;
	float *const scales = shared, *const sums = scales + FEW_ROWS;

	for (uint32_t r0 = row0; at_once && r0 < row0 + n_rows; r0 += at_once) {
		const uint32_t n = row0 + n_rows - r0 < at_once ? row0 + n_rows - r0 : at_once;
		float *const weights = sums + MERGE_GROUPS * n * each;

		attn_merge_weights(a, m, kv_head, r0, n, weights, scales);
		__syncthreads();
		for (uint32_t i = threadIdx.x; i < MERGE_GROUPS * 32 * ((n * each / 4 + 31) / 32); i += blockDim.x) {
			const uint32_t group = i / 32 % MERGE_GROUPS;
			const uint32_t col4 = i / (32 * MERGE_GROUPS) * 32 + i % 32, r = col4 / (each / 4);
			const uint32_t token = (r0 + r) / a.group, head = kv_head * a.group + (r0 + r) % a.group;
			const float *from =
			        a.parts + ((size_t)(m.part + token) * a.n_head + head) * line + col4 % (each / 4) * 4;
			float4 sum = make_float4(0.0f, 0.0f, 0.0f, 0.0f);

			if (r >= n)
				continue;
#pragma unroll 8
			for (uint32_t p = group; p < m.n_parts; p += MERGE_GROUPS) {
				const float4 v = *(const float4 *)(from + p * step);
				const float w = weights[r * m.n_parts + p];

				sum.x += v.x * w;
				sum.y += v.y * w;
				sum.z += v.z * w;
				sum.w += v.w * w;
			}
			((float4 *)sums)[group * n * each / 4 + col4] = sum;
		}
		__syncthreads();
		for (uint32_t i = threadIdx.x; i < n * each; i += blockDim.x) {
			const uint32_t r = i / each, col = i % each;
			const uint32_t token = (r0 + r) / a.group, head = kv_head * a.group + (r0 + r) % a.group;
			float sum = 0.0f;

			if (col >= v_dim)
				continue;
#pragma unroll
			for (uint32_t g = 0; g < MERGE_GROUPS; g++)
				sum += sums[g * n * each + i];
			gk_put(a.out, seq.row + m.q + token, (size_t)head * v_dim + col, sum * scales[r]);
		}
		__syncthreads();
	}
}

#endif
