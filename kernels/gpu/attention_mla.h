/* Attention over latents (multi-head latent attention, absorbed form): one K/V head, the value of a token is the
 * beginning of its key, up to 576 and 512 values. A block takes 16 or 32 rows; its four waves share the keys of a tile
 * for the scores (two of them where a tile has 32 keys) and the columns of the values for the sums, weights going
 * through shared memory. */
#ifndef GPU_ATTENTION_MLA_H
#define GPU_ATTENTION_MLA_H

#include "gpu/attention.h"

enum { MLA_KEY = 576, MLA_VALUE = 512, MLA_WAVES = 4 };

/* RT times 16 rows, TILE keys at a time; STAGES 2: the next ones on their way meanwhile. */
template <int RT, bool DIRECT, int TILE, int STAGES>
static __global__ void __launch_bounds__(MLA_WAVES *GPU_WAVE) attn_mla_kernel(GPU_PARAM attn_args a)
{
	enum {
		KC = MLA_KEY / 8,
		ROWS = RT * 16,
		PC = 8, /* chunks of a row of weights: a whole swizzle */
		SLICE = MLA_VALUE / MLA_WAVES,
		THREADS = MLA_WAVES * GPU_WAVE
	};
	GPU_DYN_SHARED(uint4, shared);
	uint4 *const tile_q = shared, *const stages = tile_q + ROWS * KC, *const tile_p = stages + STAGES * TILE * KC;
	float *const tops = (float *)(tile_p + ROWS * PC), *const masses = tops + MLA_WAVES * ROWS;
	const uint32_t wave = threadIdx.x / GPU_WAVE;
	const float log2e = gpu_float(LOG2E_BITS);

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
		const float k_scale = attn_k_scale(a, kv_head), v_scale = attn_v_scale(a, kv_head);

		__syncthreads(); /* the last item's shared memory is free */
		attn_put_queries<ROWS, KC, THREADS>(tile_q, a, it);

		auto fetch = [&](uint32_t token, uint32_t stage) {
			if (token < end)
				attn_copy_tile<MLA_KEY, TILE, THREADS, 2, DIRECT>(stages + stage * TILE * KC, a, a.kv.k,
				                                                  a.kv.k_dim, it.pages, kv_head, token,
				                                                  end);
			gpu_copy_commit();
		};

		gpu_acc acc[RT][SLICE / 16];
		float top[RT][GPU_ACC_ROWS], mass[RT][GPU_ACC_ROWS];
		uint32_t pos[RT][GPU_ACC_ROWS];

#pragma unroll
		for (int t = 0; t < RT; t++) {
#pragma unroll
			for (int d = 0; d < SLICE / 16; d++)
				acc[t][d] = gpu_acc_zero();
#pragma unroll
			for (int s = 0; s < GPU_ACC_ROWS; s++) {
				top[t][s] = -INFINITY;
				mass[t][s] = 0.0f;
				pos[t][s] = attn_row_at(a, seq, work, kv_head, row0 + 16 * t + gpu_slot_row(s)).pos;
			}
		}
		fetch(begin, 0);
		for (uint32_t token = begin, stage = 0; token < end; token += TILE, stage ^= STAGES - 1) {
			const uint4 *tile = stages + stage * TILE * KC;
			const uint32_t first = wave * 16;
			const bool has_keys = TILE == 16 * MLA_WAVES || first < TILE;
			gpu_acc s[RT];

			if (STAGES == 2)
				fetch(token + TILE, stage ^ 1);
			gpu_copy_wait<STAGES - 1>();
			__syncthreads();
#pragma unroll
			for (int t = 0; t < RT; t++)
				s[t] = gpu_acc_zero();
#pragma unroll 6
			for (int c = 0; has_keys && c < MLA_KEY / 32; c++) {
				const gpu_frag k = gpu_tile_frag(tile, first, 4 * c, KC);

#pragma unroll
				for (int t = 0; t < RT; t++)
					gpu_mma<false>(s[t], gpu_tile_frag(tile_q, 16 * t, 4 * c, KC), k);
			}
#pragma unroll
			for (int t = 0; t < RT; t++) {
				float best[GPU_ACC_ROWS];

#pragma unroll
				for (int r = 0; r < GPU_ACC_ROWS; r++)
					best[r] = -INFINITY;
#pragma unroll
				for (int i = 0; i < GPU_ACC; i++) {
					const uint32_t key = token + first + gpu_acc_col(i),
					               p = pos[t][gpu_acc_slot(i)];
					float v = s[t].v[i] * a.scale * k_scale;

					if (a.softcap > 0.0f)
						v = attn_softcap(a.softcap, v);
					v = !has_keys || key > p || key >= end || (a.window && key + a.window <= p)
					            ? -INFINITY
					            : v * log2e;
					s[t].v[i] = v;
					best[gpu_acc_slot(i)] = fmaxf(best[gpu_acc_slot(i)], v);
				}
#pragma unroll
				for (int r = 0; r < GPU_ACC_ROWS; r++)
					tops[wave * ROWS + 16 * t + gpu_slot_row(r)] = gpu_row_max(best[r]);
			}
			__syncthreads();
#pragma unroll
			for (int t = 0; t < RT; t++) {
				float fresh[GPU_ACC_ROWS], shrink[GPU_ACC_ROWS];

#pragma unroll
				for (int r = 0; r < GPU_ACC_ROWS; r++) {
					fresh[r] = top[t][r];
#pragma unroll
					for (int w = 0; w < MLA_WAVES; w++)
						fresh[r] = fmaxf(fresh[r], tops[w * ROWS + 16 * t + gpu_slot_row(r)]);
					shrink[r] = attn_raise_top(&top[t][r], &mass[t][r], &fresh[r]);
				}
#pragma unroll
				for (int i = 0; i < GPU_ACC; i++) {
					const float p = attn_exp2(s[t].v[i] - fresh[gpu_acc_slot(i)]);
					const uint32_t row = 16 * t + gpu_acc_row(i), col = first + gpu_acc_col(i);

					mass[t][gpu_acc_slot(i)] += p;
					((gpu_bf16 *)(tile_p + gpu_tile_at(row, col >> 3, PC)))[col & 7] =
					        gpu_to_bf16(p);
				}
				attn_shrink_sums(acc[t], shrink);
			}
			__syncthreads();
#pragma unroll
			for (int n = 0; n < TILE / 32; n++) {
				gpu_frag p[RT];

#pragma unroll
				for (int t = 0; t < RT; t++)
					p[t] = gpu_tile_frag(tile_p, 16 * t, 4 * n, PC);
#pragma unroll
				for (int d = 0; d < SLICE / 16; d++) {
					const gpu_frag v =
					        gpu_tile_frag_t<false>(tile, 32 * n, wave * SLICE + 16 * d, KC);

#pragma unroll
					for (int t = 0; t < RT; t++)
						gpu_mma<false>(acc[t][d], p[t], v);
				}
			}
			__syncthreads(); /* stage and weights may be filled again */
			if (STAGES == 1)
				fetch(token + TILE, 0);
		}
		gpu_copy_wait<0>();

		/* The mass of a row is in four waves. */
#pragma unroll
		for (int t = 0; t < RT; t++) {
#pragma unroll
			for (int r = 0; r < GPU_ACC_ROWS; r++)
				masses[wave * ROWS + 16 * t + gpu_slot_row(r)] = gpu_row_sum(mass[t][r]);
		}
		__syncthreads();
#pragma unroll
		for (int t = 0; t < RT; t++) {
			GPU_EACH_RESULT
			for (int i = 0; i < GPU_ACC; i++) {
				const uint32_t r = 16 * t + gpu_acc_row(i);
				const attn_row row = attn_row_at(a, seq, work, kv_head, row0 + r);
				const float best = top[t][gpu_acc_slot(i)];
				float total = 0.0f;

				if (!row.there)
					continue;
#pragma unroll
				for (int w = 0; w < MLA_WAVES; w++)
					total += masses[w * ROWS + r];

				const bool whole = work.part == GK_WHOLE;
				const float scale =
				        v_scale * (whole ? attn_final_scale(a, row.head, best, total) : 1.0f);
				float *part =
				        a.parts + ((size_t)(whole ? 0 : work.part + row.token) * a.n_head + row.head) *
				                          attn_part_floats(a);

#pragma unroll
				for (int d = 0; d < SLICE / 16; d++) {
					const uint32_t col = wave * SLICE + d * 16 + gpu_acc_col(i);

					if (col >= a.kv.v_dim)
						continue;
					if (whole)
						gk_put(a.out, seq.row + work.q + row.token,
						       (size_t)row.head * a.kv.v_dim + col,
						       gpu_acc_at(acc[t][d], i) * scale);
					else
						part[col] = gpu_acc_at(acc[t][d], i) * scale;
				}
				if (!whole && wave == 0) {
					part[a.kv.v_dim] = best;
					part[a.kv.v_dim + 1] = total;
				}
			}
		}
	}
}

static inline bool attn_mla_takes(const attn_args &a)
{
	return a.kv.k_dim <= MLA_KEY && a.kv.v_dim <= MLA_VALUE && a.kv.v_dim <= a.kv.k_dim;
}

/* A form of it. many: of the list `many`; else an item has 16 rows at most, or one token. */
template <int RT, int TILE, int STAGES, bool MANY> struct attn_mla_form {
	enum {
		ROWS = 16 * RT,
		SHARED = ROWS * MLA_KEY * 2 + STAGES * TILE * MLA_KEY * 2 + ROWS * 128 + MLA_WAVES * ROWS * 8,
	};

	static void launch(const struct gk_ctx *ctx, attn_args a, uint32_t max_work)
	{
		const bool direct = a.direct && a.kv.dtype == KN_BF16;
		uint32_t n_blocks;

		a.row_blocks =
		        MANY || a.group > 16 ? ((MANY ? (uint32_t)GK_TILE_TOKENS : 1u) * a.group + ROWS - 1) / ROWS : 1;
		n_blocks = max_work * a.kv.n_kv_head * a.row_blocks;
		if (n_blocks > ctx->n_sm * 2)
			n_blocks = ctx->n_sm * 2;
		gpu_launch(direct ? attn_mla_kernel<RT, true, TILE, STAGES> : attn_mla_kernel<RT, false, TILE, STAGES>,
		           dim3(n_blocks), dim3(MLA_WAVES * ctx->warp), SHARED, ctx->stream, ctx->overlap, a);
	}
};

static inline void attn_mla_launch(const struct gk_ctx *ctx, const attn_args &a, uint32_t max_work, bool many)
{
	if (many)
		attn_launch_first<attn_mla_form<2, 64, 2, true>, attn_mla_form<2, 32, 1, true>,
		                  attn_mla_form<1, 32, 1, true>>(ctx, a, max_work);
	else if (a.group > 16)
		attn_launch_first<attn_mla_form<2, 64, 2, false>, attn_mla_form<2, 32, 1, false>,
		                  attn_mla_form<1, 32, 1, false>>(ctx, a, max_work);
	else
		attn_launch_first<attn_mla_form<1, 64, 2, false>, attn_mla_form<1, 32, 2, false>,
		                  attn_mla_form<1, 32, 1, false>>(ctx, a, max_work);
}

#endif
