/* Attention of prompts on all devices (Hopper's own: attention_sm90.cu): each wave of a block has 16 rows, and all
 * waves walk the same tiles of keys. */
#ifndef GPU_ATTENTION_PROMPTS_H
#define GPU_ATTENTION_PROMPTS_H

#include "gpu/attention.h"

/* BYTES of a key's value in shared memory: 2, bfloat16, or 1, e4m3. DIRECT: as it is in the pool. TILE keys at a time,
 * STAGES 2: the next ones on their way meanwhile. */
template <int KD, int VD, int BYTES, bool DIRECT, int WAVES, int TILE, int STAGES>
static __global__ void __launch_bounds__(WAVES *GPU_WAVE) attn_kernel(GPU_PARAM attn_args a)
{
	enum {
		ROWS = 16 * WAVES,
		QC = KD / 8,
		KC = KD * BYTES / 16,
		VC = VD * BYTES / 16,
		STAGE = TILE * (KC + VC),
		Q_STAYS = KD * GPU_PIECES <= 256, /* in registers */
		THREADS = WAVES * GPU_WAVE,
	};
	constexpr bool WIDENED = BYTES == 1;
	GPU_DYN_SHARED(uint4, shared);
	uint4 *const tile_q = shared, *const stages = tile_q + ROWS * QC;
	gpu_bf16 *const exchange = (gpu_bf16 *)(stages + STAGES * STAGE) + threadIdx.x / GPU_WAVE * 512;
	const uint32_t tile_row0 = threadIdx.x / GPU_WAVE * 16;

	gpu_dependents_may_start();
	gpu_dependency_wait();

	const uint32_t n_items = *a.n_work * a.kv.n_kv_head * a.row_blocks;

	for (uint32_t item = blockIdx.x; item < n_items; item += gridDim.x) {
		attn_span it;

		if (!attn_take(a, item, ROWS, TILE, &it))
			continue;

		const gk_work &work = it.work;
		const gk_seq &seq = it.seq;
		const uint32_t kv_head = it.kv_head, row0 = it.row0, begin = it.begin, end = it.end;
		const float scale = a.scale * attn_k_scale(a, kv_head), v_scale = attn_v_scale(a, kv_head);
		const float to_log2 = gpu_float(LOG2E_BITS) * (a.softcap > 0.0f ? 1.0f : scale);

		__syncthreads(); /* the last item's shared memory is free */
		attn_put_queries<ROWS, QC, THREADS, WIDENED>(tile_q, a, it);

		auto fetch = [&](uint32_t token, uint32_t stage) {
			if (token < end) {
				uint4 *k = stages + stage * STAGE, *v = k + TILE * KC;

				attn_copy_tile<KD, TILE, THREADS, BYTES, DIRECT>(k, a, a.kv.k, a.kv.k_dim, it.pages,
				                                                 kv_head, token, end);
				attn_copy_tile<VD, TILE, THREADS, BYTES, DIRECT>(v, a, a.kv.v, a.kv.v_dim, it.pages,
				                                                 kv_head, token, end);
			}
			gpu_copy_commit();
		};

		const auto query = [&](int c) {
			return WIDENED ? gpu_tile_frag_wide(tile_q, tile_row0, 32 * c, QC)
			               : gpu_tile_frag(tile_q, tile_row0, 4 * c, QC);
		};
		gpu_acc acc[VD / 16];
		gpu_frag q[Q_STAYS ? KD / 32 : 1];
		float top[GPU_ACC_ROWS], mass[GPU_ACC_ROWS];
		uint32_t pos[GPU_ACC_ROWS];

#pragma unroll
		for (int d = 0; d < VD / 16; d++)
			acc[d] = gpu_acc_zero();
#pragma unroll
		for (int s = 0; s < GPU_ACC_ROWS; s++) {
			top[s] = -INFINITY;
			mass[s] = 0.0f;
			pos[s] = attn_row_at(a, seq, work, kv_head, row0 + tile_row0 + gpu_slot_row(s)).pos;
		}
		fetch(begin, 0);
		__syncthreads();
		if (Q_STAYS) {
#pragma unroll
			for (int c = 0; c < (Q_STAYS ? KD / 32 : 1); c++)
				q[c] = query(c);
		}
		for (uint32_t token = begin, stage = 0; token < end; token += TILE, stage ^= STAGES - 1) {
			const uint4 *tile_k = stages + stage * STAGE, *tile_v = tile_k + TILE * KC;
			/* Whether every row of the block sees all keys of the tile. */
			const bool all = token + TILE <= it.first_pos + 1 && token + TILE <= end &&
			                 (a.window == 0 || token + a.window > it.last_pos);
			gpu_acc s[TILE / 16];

			if (STAGES == 2)
				fetch(token + TILE, stage ^ 1);
			gpu_copy_wait<STAGES - 1>();
			__syncthreads();
#pragma unroll
			for (int n = 0; n < TILE / 16; n++)
				s[n] = gpu_acc_zero();
#pragma unroll
			for (int c = 0; c < KD / 32; c++) {
				const gpu_frag f = Q_STAYS ? q[Q_STAYS ? c : 0] : query(c);

#pragma unroll
				for (int n = 0; n < TILE / 16; n++)
					gpu_mma<false, WIDENED>(s[n], f,
					                        WIDENED ? gpu_tile8_frag(tile_k, 16 * n, 32 * c, KC)
					                                : gpu_tile_frag(tile_k, 16 * n, 4 * c, KC));
				gpu_hold();
			}

			if (a.softcap > 0.0f) {
#pragma unroll
				for (int n = 0; n < TILE / 16; n++) {
#pragma unroll
					for (int i = 0; i < GPU_ACC; i++)
						s[n].v[i] = attn_softcap(a.softcap, s[n].v[i] * scale);
				}
			}
			if (!all) {
#pragma unroll
				for (int n = 0; n < TILE / 16; n++) {
#pragma unroll
					for (int i = 0; i < GPU_ACC; i++) {
						const uint32_t key = token + 16 * n + gpu_acc_col(i),
						               p = pos[gpu_acc_slot(i)];

						if (key > p || key >= end || (a.window && key + a.window <= p))
							s[n].v[i] = -INFINITY;
					}
				}
			}

			float fresh[GPU_ACC_ROWS];

#pragma unroll
			for (int r = 0; r < GPU_ACC_ROWS; r++)
				fresh[r] = -INFINITY;
#pragma unroll
			for (int n = 0; n < TILE / 16; n++) {
#pragma unroll
				for (int i = 0; i < GPU_ACC; i++)
					fresh[gpu_acc_slot(i)] = fmaxf(fresh[gpu_acc_slot(i)], s[n].v[i]);
			}

			float shrink[GPU_ACC_ROWS];

#pragma unroll
			for (int r = 0; r < GPU_ACC_ROWS; r++) {
				fresh[r] = fmaxf(top[r], gpu_row_max(fresh[r]) * to_log2);
				shrink[r] = attn_raise_top(&top[r], &mass[r], &fresh[r]);
			}
#pragma unroll
			for (int n = 0; n < TILE / 16; n++) {
#pragma unroll
				for (int i = 0; i < GPU_ACC; i++) {
					const float p = attn_exp2(s[n].v[i] * to_log2 - fresh[gpu_acc_slot(i)]);

					s[n].v[i] = p;
					mass[gpu_acc_slot(i)] += p;
				}
			}
			attn_shrink_sums(acc, shrink);
#pragma unroll
			for (int n = 0; n < TILE / 32; n++) {
				const gpu_frag p = gpu_acc_frag<WIDENED>(s[2 * n], s[2 * n + 1], exchange);

#pragma unroll
				for (int d = 0; d < VD / 16; d++) {
					gpu_mma<false, WIDENED>(acc[d], p,
					                        WIDENED ? gpu_tile8_frag_t(tile_v, 32 * n, 16 * d, VC)
					                                : gpu_tile_frag_t(tile_v, 32 * n, 16 * d, VC));
					gpu_hold();
				}
			}
			__syncthreads(); /* the stage may be filled again */
			if (STAGES == 1)
				fetch(token + TILE, 0);
		}
		gpu_copy_wait<0>();
#pragma unroll
		for (int r = 0; r < GPU_ACC_ROWS; r++)
			mass[r] = gpu_row_sum(mass[r]);

		GPU_EACH_RESULT
		for (int i = 0; i < GPU_ACC; i++) {
			const int slot = gpu_acc_slot(i);
			const attn_row row = attn_row_at(a, seq, work, kv_head, row0 + tile_row0 + gpu_acc_row(i));

			if (!row.there)
				continue;

			const float last = attn_final_scale(a, row.head, top[slot], mass[slot]) * v_scale;

#pragma unroll
			for (int d = 0; d < VD / 16; d++) {
				const uint32_t turned = gpu_acc_col(i),
				               col = d * 16 + (WIDENED ? gpu_turned_col(turned) : turned);

				if (col < a.kv.v_dim)
					gk_put(a.out, seq.row + work.q + row.token, (size_t)row.head * a.kv.v_dim + col,
					       gpu_acc_at(acc[d], i) * last);
			}
		}
	}
}

/* A form of it: the rows' queries, stages of keys and values, and room for exchanges are what a block needs. */
template <int KD, int VD, int BYTES, bool DIRECT, int WAVES, int TILE, int STAGES> struct attn_form {
	enum { SHARED = 16 * WAVES * KD * 2 + STAGES * TILE * (KD + VD) * BYTES + WAVES * 1024 };

	static void launch(const struct gk_ctx *ctx, attn_args a, uint32_t max_work)
	{
		enum { ROWS = 16 * WAVES };

		a.row_blocks = (GK_TILE_TOKENS * a.group + ROWS - 1) / ROWS;
		gpu_launch(attn_kernel<KD, VD, BYTES, DIRECT, WAVES, TILE, STAGES>,
		           dim3(max_work * a.kv.n_kv_head * a.row_blocks), dim3(WAVES * ctx->warp), SHARED, ctx->stream,
		           ctx->overlap, a);
	}
};

#endif
