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

/* Rows [row0, row0 + 16) of a K/V head of one entry, by all threads of a block: weights of the parts first, then
 * their sums, added in the order of the parts. Parts that see nothing add zeros, so that their number does not matter.
 * shared: `room` floats. */
GPU_FN void attn_merge(const attn_args &a, const gk_merge &m, uint32_t kv_head, uint32_t row0, float *shared,
                       uint32_t room)
{
	enum { AT_ONCE = 4 };
	const gk_seq seq = a.batch.seqs[m.seq];
	const uint32_t left = m.n_q * a.group - row0, n_rows = left < FEW_ROWS ? left : (uint32_t)FEW_ROWS;
	const uint32_t lane = threadIdx.x & 31, n_parts = m.n_parts, v_dim = a.kv.v_dim;
	const size_t line = v_dim + 2, step = (size_t)m.n_q * a.n_head * line;
	const uint32_t fit = (room - FEW_ROWS) / n_parts, at_once = fit < n_rows ? fit : n_rows;
	float *const scales = shared, *const weights = shared + FEW_ROWS;

	for (uint32_t r0 = 0; at_once && r0 < n_rows; r0 += at_once) {
		const uint32_t n = n_rows - r0 < at_once ? n_rows - r0 : at_once;
		const auto first_of = [&](uint32_t r, uint32_t *token, uint32_t *head) {
			*token = (row0 + r0 + r) / a.group;
			*head = kv_head * a.group + (row0 + r0 + r) % a.group;
			return a.parts + ((size_t)(m.part + *token) * a.n_head + *head) * line;
		};
		uint32_t token, head;

		for (uint32_t r = threadIdx.x / 32; r < n; r += blockDim.x / 32) {
			const float *first = first_of(r, &token, &head);
			float best = -INFINITY, total = 0.0f;

			for (uint32_t p = lane; p < n_parts; p += 32)
				best = fmaxf(best, first[p * step + v_dim]);
			best = gpu_group_max(best);
			for (uint32_t p = lane; p < n_parts; p += 32) {
				const float top = first[p * step + v_dim],
				            w = top == -INFINITY ? 0.0f : attn_exp2(top - best);

				weights[r * n_parts + p] = w;
				total += w != 0.0f ? first[p * step + v_dim + 1] * w : 0.0f;
			}
			total = gpu_group_sum(total);
			if (lane == 0)
				scales[r] = attn_final_scale(a, head, best, total);
		}
		__syncthreads();
		for (uint32_t base = threadIdx.x; base < n * v_dim; base += AT_ONCE * blockDim.x) {
			const float *first[AT_ONCE], *w[AT_ONCE];
			float sum[AT_ONCE];

#pragma unroll
			for (int k = 0; k < AT_ONCE; k++) {
				const uint32_t i = base + k * blockDim.x < n * v_dim ? base + k * blockDim.x : base;

				first[k] = first_of(i / v_dim, &token, &head) + i % v_dim;
				w[k] = weights + i / v_dim * n_parts;
				sum[k] = 0.0f;
			}
#pragma unroll 4
			for (uint32_t p = 0; p < n_parts; p++) {
#pragma unroll
				for (int k = 0; k < AT_ONCE; k++) {
					const float v = first[k][p * step];

					sum[k] += w[k][p] != 0.0f ? v * w[k][p] : 0.0f;
				}
			}
#pragma unroll
			for (int k = 0; k < AT_ONCE; k++) {
				const uint32_t i = base + k * blockDim.x;

				if (i >= n * v_dim)
					break;
				(void)first_of(i / v_dim, &token, &head);
				gk_put(a.out, seq.row + m.q + token, (size_t)head * v_dim + i % v_dim,
				       sum[k] * scales[i / v_dim]);
			}
		}
		__syncthreads();
	}
}

#endif
