/* Causal attention over paged keys and values on matrix units (online softmax: Milakov and Gimelshein, 2018; tiles:
 * Dao, 2023).
 *
 * Rows of a block are pairs (new token, query head) that share a K/V head, token by token. Two ways to share the work:
 *   SPLIT  16 rows a block; each wave takes 32 keys of a tile, and the waves' results are merged at the end. For
 * decode, where reading keys and values is all that counts. else   16 rows a wave; all waves walk the same tile of 64
 * keys. Tiles begin at multiples of their size, so that a row meets its keys in the same order wherever its neighbours
 * are. Keys and values that are no bfloat16 are rounded to it on the way into shared memory. */
#ifndef GPU_ATTENTION_H
#define GPU_ATTENTION_H

#include "gpu/gpu_mma.h"
#include "gpu/kv.h"

struct attn_args {
	gk_view out, q;
	gk_kv kv;
	gk_batch batch;
	const gk_work *work;
	const uint32_t *n_work;
	uint32_t n_head, group, row_blocks; /* blocks of rows of one item */
	uint32_t window;
	float scale, softcap;
	const float *sinks;
	bool direct;    /* keys and values are bfloat16, in 16-byte steps */
	bool whole;     /* queries may be read 16 bytes at a time */
	int page_shift; /* log2 of page_tokens, or -1 */
	float *parts;   /* [slot][head][v_dim + 2]: sums, their maximum (of log2), their mass */
};

GPU_FN float attn_exp2(float x)
{
#if GPU_PTX
	float r;

	asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(r) : "f"(x));
	return r;
#else
	return exp2f(x);
#endif
}

enum { LOG2E_BITS = 0x3fb8aa3b };

/* Tile of TOKENS tokens from `token` on of one head, DIM values each (zeros beyond `dim`, and beyond token `end`), by
 * THREADS threads. Page numbers are read for several copies at once: each is a trip to memory. */
template <int DIM, int TOKENS, int THREADS>
GPU_FN void attn_copy_tile(uint4 *tile, const attn_args &a, const void *pool, uint32_t dim, const uint32_t *pages,
                           uint32_t head, uint32_t token, uint32_t end)
{
	enum {
		CHUNKS = DIM / 8,
		N = TOKENS * CHUNKS / THREADS,
		AT_ONCE = N % 8 == 0   ? 8
		          : N % 6 == 0 ? 6
		          : N % 4 == 0 ? 4
		                       : 1
	};
	static_assert(TOKENS * CHUNKS % THREADS == 0, "every thread copies as much");

	for (int n0 = 0; n0 < N; n0 += AT_ONCE) {
		uint32_t page[AT_ONCE];

#pragma unroll
		for (int b = 0; b < AT_ONCE; b++) {
			const uint32_t t = token + (threadIdx.x + (n0 + b) * THREADS) / CHUNKS;

			page[b] = t < end ? pages[a.page_shift >= 0 ? t >> a.page_shift : t / a.kv.page_tokens] : 0;
		}
#pragma unroll
		for (int b = 0; b < AT_ONCE; b++) {
			const uint32_t i = threadIdx.x + (n0 + b) * THREADS, r = i / CHUNKS, c = i % CHUNKS,
			               t = token + r;
			const uint32_t slot = a.page_shift >= 0 ? t & ((1u << a.page_shift) - 1) : t % a.kv.page_tokens;
			const bool there = t < end && c * 8 < dim;
			const size_t at =
			        there ? (size_t)((page[b] * a.kv.n_kv_head + head) * a.kv.page_tokens + slot) * dim +
			                        c * 8
			              : 0;
			uint4 *to = tile + gpu_tile_at(r, c, CHUNKS);

			if (a.direct) {
				gpu_copy16(to, (const gpu_bf16 *)pool + at, there ? 16 : 0);
			} else {
				uint32_t w[4];

#pragma unroll
				for (uint32_t k = 0; k < 4; k++) {
					const bool first = there && c * 8 + 2 * k < dim,
					           second = there && c * 8 + 2 * k + 1 < dim;

					w[k] = gpu_pack_bf16(first ? gk_kv_get(a.kv.dtype, pool, at + 2 * k) : 0.0f,
					                     second ? gk_kv_get(a.kv.dtype, pool, at + 2 * k + 1)
					                            : 0.0f);
				}
				*to = make_uint4(w[0], w[1], w[2], w[3]);
			}
		}
	}
}

/* One row's result: out = sums / mass with the sink's share, or a part of it. */
struct attn_row {
	uint32_t token; /* of the item */
	uint32_t head, pos;
	bool there;
};

GPU_FN attn_row attn_row_at(const attn_args &a, const gk_seq &seq, const gk_work &work, uint32_t kv_head, uint32_t r)
{
	attn_row row;

	row.token = r / a.group;
	row.head = kv_head * a.group + r % a.group;
	row.there = row.token < work.n_q;
	row.pos = seq.kv_len - seq.n_q + work.q + row.token;
	return row;
}

/* Eight values of a row's query from column 8 c on, as bfloat16. */
GPU_FN uint4 attn_query(const attn_args &a, const gk_seq &seq, const gk_work &work, const attn_row &row, uint32_t c)
{
	const uint32_t first = row.head * a.kv.k_dim, col = first + c * 8, end = first + a.kv.k_dim;
	float v[8];

	if (!row.there || c * 8 >= a.kv.k_dim)
		return make_uint4(0, 0, 0, 0);
	gk_get8(a.q, seq.row + work.q + row.token, col, end, a.whole, v);
	return make_uint4(gpu_pack_bf16(v[0], v[1]), gpu_pack_bf16(v[2], v[3]), gpu_pack_bf16(v[4], v[5]),
	                  gpu_pack_bf16(v[6], v[7]));
}

/* What a row's sums are multiplied by at the end. m: maximum in log2. */
GPU_FN float attn_final_scale(const attn_args &a, uint32_t head, float m, float mass)
{
	const float log2e = gpu_float(LOG2E_BITS);
	float top = m, w;

	if (a.sinks)
		top = fmaxf(top, a.sinks[head] * log2e);
	if (top == -INFINITY)
		return 0.0f;
	w = attn_exp2(m - top);
	mass *= w;
	if (a.sinks)
		mass += attn_exp2(a.sinks[head] * log2e - top);
	return w / mass;
}

template <int KD, int VD, int WAVES, bool SPLIT>
static __global__ void __launch_bounds__(WAVES *GPU_WAVE) attn_kernel(GPU_PARAM attn_args a)
{
	enum {
		TILE = SPLIT ? 32 * WAVES : 64,
		SLICE = SPLIT ? 32 : 64, /* keys that a wave takes at once */
		ROWS = SPLIT ? 16 : 16 * WAVES,
		KC = KD / 8,
		VC = VD / 8,
		STAGE = TILE * (KC + VC),
		Q_STAYS = KD <= 128, /* in registers */
		THREADS = WAVES * GPU_WAVE,
	};
	GPU_DYN_SHARED(uint4, shared);
	uint4 *const tile_q = shared, *const stages = tile_q + ROWS * KC;
	gpu_bf16 *const exchange = (gpu_bf16 *)(stages + 2 * STAGE) + threadIdx.x / GPU_WAVE * 512;
	const uint32_t wave = threadIdx.x / GPU_WAVE;
	const float to_log2 = gpu_float(LOG2E_BITS) * (a.softcap > 0.0f ? 1.0f : a.scale);

	gpu_dependents_may_start();
	gpu_dependency_wait();

	const uint32_t n_items = *a.n_work * a.kv.n_kv_head * a.row_blocks;

	for (uint32_t item = blockIdx.x; item < n_items; item += gridDim.x) {
		const uint32_t kv_head = item / a.row_blocks % a.kv.n_kv_head, row0 = item % a.row_blocks * ROWS;
		const gk_work work = a.work[item / a.row_blocks / a.kv.n_kv_head];
		const gk_seq seq = a.batch.seqs[work.seq];
		const uint32_t *pages = a.batch.pages + seq.first_page;
		const uint32_t n_rows = work.n_q * a.group;

		if (row0 >= n_rows)
			continue;

		/* Keys that any row of the block sees. */
		const uint32_t last_row = row0 + ROWS < n_rows ? row0 + ROWS - 1 : n_rows - 1;
		const uint32_t first_pos = attn_row_at(a, seq, work, kv_head, row0).pos;
		const uint32_t last_pos = attn_row_at(a, seq, work, kv_head, last_row).pos;
		uint32_t begin = work.kv_begin, end = work.kv_end < last_pos + 1 ? work.kv_end : last_pos + 1;

		if (a.window && first_pos + 1 > a.window + begin)
			begin = first_pos + 1 - a.window;
		begin -= begin % TILE;
		end = end > begin ? end : begin;

		__syncthreads(); /* the last item's shared memory is free */
		for (uint32_t i = threadIdx.x; i < ROWS * KC; i += THREADS)
			tile_q[gpu_tile_at(i / KC, i % KC, KC)] =
			        attn_query(a, seq, work, attn_row_at(a, seq, work, kv_head, row0 + i / KC), i % KC);

		auto fetch = [&](uint32_t token, uint32_t stage) {
			if (token < end) {
				uint4 *k = stages + stage * STAGE, *v = k + TILE * KC;

				attn_copy_tile<KD, TILE, THREADS>(k, a, a.kv.k, a.kv.k_dim, pages, kv_head, token, end);
				attn_copy_tile<VD, TILE, THREADS>(v, a, a.kv.v, a.kv.v_dim, pages, kv_head, token, end);
			}
			gpu_copy_commit();
		};

		const uint32_t tile_row0 = SPLIT ? 0 : wave * 16;
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
				q[c] = gpu_tile_frag(tile_q, tile_row0, 4 * c, KC);
		}
		for (uint32_t token = begin, stage = 0; token < end; token += TILE, stage ^= 1) {
			const uint4 *tile_k = stages + stage * STAGE, *tile_v = tile_k + TILE * KC;
			const uint32_t first = SPLIT ? wave * SLICE : 0, key0 = token + first;
			/* Whether every row of the block sees all keys of the tile. */
			const bool all = token + TILE <= first_pos + 1 && token + TILE <= end &&
			                 (a.window == 0 || token + a.window > last_pos);
			gpu_acc s[SLICE / 16];

			fetch(token + TILE, stage ^ 1);
			gpu_copy_wait<1>();
			__syncthreads();
#pragma unroll
			for (int n = 0; n < SLICE / 16; n++)
				s[n] = gpu_acc_zero();
#pragma unroll
			for (int c = 0; c < KD / 32; c++) {
				const gpu_frag f =
				        Q_STAYS ? q[Q_STAYS ? c : 0] : gpu_tile_frag(tile_q, tile_row0, 4 * c, KC);

#pragma unroll
				for (int n = 0; n < SLICE / 16; n++)
					gpu_mma<false>(s[n], f, gpu_tile_frag(tile_k, first + 16 * n, 4 * c, KC));
			}

			if (a.softcap > 0.0f) {
#pragma unroll
				for (int n = 0; n < SLICE / 16; n++) {
#pragma unroll
					for (int i = 0; i < GPU_ACC; i++)
						s[n].v[i] = a.softcap * tanhf(s[n].v[i] * a.scale / a.softcap);
				}
			}
			if (!all) {
#pragma unroll
				for (int n = 0; n < SLICE / 16; n++) {
#pragma unroll
					for (int i = 0; i < GPU_ACC; i++) {
						const uint32_t key = key0 + 16 * n + gpu_acc_col(i),
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
			for (int n = 0; n < SLICE / 16; n++) {
#pragma unroll
				for (int i = 0; i < GPU_ACC; i++)
					fresh[gpu_acc_slot(i)] = fmaxf(fresh[gpu_acc_slot(i)], s[n].v[i]);
			}

			float shrink[GPU_ACC_ROWS];

#pragma unroll
			for (int r = 0; r < GPU_ACC_ROWS; r++) {
				fresh[r] = fmaxf(top[r], gpu_row_max(fresh[r]) * to_log2);
				shrink[r] = fresh[r] == -INFINITY ? 1.0f : attn_exp2(top[r] - fresh[r]);
				top[r] = fresh[r];
				mass[r] *= shrink[r];
				if (fresh[r] == -INFINITY)
					fresh[r] = 0.0f; /* nothing seen yet: every weight becomes 0 */
			}
#pragma unroll
			for (int n = 0; n < SLICE / 16; n++) {
#pragma unroll
				for (int i = 0; i < GPU_ACC; i++) {
					const float p = attn_exp2(s[n].v[i] * to_log2 - fresh[gpu_acc_slot(i)]);

					s[n].v[i] = p;
					mass[gpu_acc_slot(i)] += p;
				}
			}
#pragma unroll
			for (int d = 0; d < VD / 16; d++) {
#pragma unroll
				for (int i = 0; i < GPU_ACC; i++)
					acc[d].v[i] *= shrink[gpu_acc_slot(i)];
			}
#pragma unroll
			for (int n = 0; n < SLICE / 32; n++) {
				const gpu_frag p = gpu_acc_frag(s[2 * n], s[2 * n + 1], exchange);

#pragma unroll
				for (int d = 0; d < VD / 16; d++)
					gpu_mma<false>(acc[d], p, gpu_tile_frag_t(tile_v, first + 32 * n, d * 16, VC));
			}
			__syncthreads(); /* the stage may be filled again */
		}
		gpu_copy_wait<0>();
#pragma unroll
		for (int r = 0; r < GPU_ACC_ROWS; r++)
			mass[r] = gpu_row_sum(mass[r]);

		if (!SPLIT) {
#pragma unroll
			for (int i = 0; i < GPU_ACC; i++) {
				const int slot = gpu_acc_slot(i);
				const attn_row row =
				        attn_row_at(a, seq, work, kv_head, row0 + tile_row0 + gpu_acc_row(i));

				if (!row.there)
					continue;
				if (work.part == GK_WHOLE) {
					const float scale = attn_final_scale(a, row.head, top[slot], mass[slot]);

#pragma unroll
					for (int d = 0; d < VD / 16; d++) {
						const uint32_t col = d * 16 + gpu_acc_col(i);

						if (col < a.kv.v_dim)
							gk_put(a.out, seq.row + work.q + row.token,
							       (size_t)row.head * a.kv.v_dim + col,
							       acc[d].v[i] * scale);
					}
				} else {
					float *part =
					        a.parts + ((size_t)(work.part + row.token) * a.n_head + row.head) *
					                          (a.kv.v_dim + 2);

#pragma unroll
					for (int d = 0; d < VD / 16; d++) {
						const uint32_t col = d * 16 + gpu_acc_col(i);

						if (col < a.kv.v_dim)
							part[col] = acc[d].v[i];
					}
					part[a.kv.v_dim] = top[slot];
					part[a.kv.v_dim + 1] = mass[slot];
				}
			}
			continue;
		}

		/* The waves' results, merged in their order. */
		enum { LINE = VD + 1 };
		float *const sums = (float *)stages, *const tops = sums + WAVES * 16 * LINE,
		             *const masses = tops + WAVES * 16;

		__syncthreads();
#pragma unroll
		for (int i = 0; i < GPU_ACC; i++) {
			const int r = wave * 16 + gpu_acc_row(i);

#pragma unroll
			for (int d = 0; d < VD / 16; d++)
				sums[r * LINE + d * 16 + gpu_acc_col(i)] = acc[d].v[i];
			tops[r] = top[gpu_acc_slot(i)];
			masses[r] = mass[gpu_acc_slot(i)];
		}
		__syncthreads();
		for (uint32_t i = threadIdx.x; i < 16 * VD; i += blockDim.x) {
			const uint32_t r = i / VD, col = i % VD;
			const attn_row row = attn_row_at(a, seq, work, kv_head, row0 + r);
			float best = -INFINITY, sum = 0.0f, total = 0.0f;

			if (!row.there || col >= a.kv.v_dim)
				continue;
#pragma unroll
			for (int w = 0; w < WAVES; w++)
				best = fmaxf(best, tops[w * 16 + r]);
#pragma unroll
			for (int w = 0; w < WAVES; w++) {
				const float f =
				        tops[w * 16 + r] == -INFINITY ? 0.0f : attn_exp2(tops[w * 16 + r] - best);

				sum += sums[(w * 16 + r) * LINE + col] * f;
				total += masses[w * 16 + r] * f;
			}
			if (work.part == GK_WHOLE) {
				gk_put(a.out, seq.row + work.q + row.token, (size_t)row.head * a.kv.v_dim + col,
				       sum * attn_final_scale(a, row.head, best, total));
			} else {
				float *part = a.parts + ((size_t)(work.part + row.token) * a.n_head + row.head) *
				                                (a.kv.v_dim + 2);

				part[col] = sum;
				if (col == 0) {
					part[a.kv.v_dim] = best;
					part[a.kv.v_dim + 1] = total;
				}
			}
		}
	}
}

/* Two stages of keys and values, the rows' queries, and room for exchanges; the merge reuses the stages. */
template <int KD, int VD, int WAVES, bool SPLIT> static inline size_t attn_shared_bytes()
{
	const size_t tile = SPLIT ? 32 * WAVES : 64, rows = SPLIT ? 16 : 16 * WAVES;
	const size_t stages = 2 * tile * (KD + VD) * 2, merge = (size_t)WAVES * 16 * (VD + 3) * 4;

	return rows * KD * 2 + (stages > merge ? stages : merge) + WAVES * 1024;
}

#endif
