/* Causal attention over paged keys and values on matrix units (online softmax: Milakov and Gimelshein, 2018; tiles:
 * Dao, 2023): what all kernels share. Prompts: attention_prompts.h (on Hopper attention_sm90.cu); few rows:
 * attention_few.h; latents: attention_mla.h.
 *
 * Rows of a block are pairs (new token, query head) that share a K/V head, token by token. Tiles of keys begin at
 * multiples of their size, so that a row meets its keys in the same order wherever its neighbours are. Keys and values
 * that are no bfloat16 are rounded to it on the way into shared memory. */
#ifndef GPU_ATTENTION_H
#define GPU_ATTENTION_H

#include "gpu/gpu_tile.h"
#include "gpu/kv.h"

struct attn_args {
	gk_view out, q;
	gk_kv kv;
	gk_batch batch;
	const gk_work *work;
	const uint32_t *n_work;
	uint32_t n_head, group, row_blocks; /* blocks of rows of one item */
	uint32_t *counters; /* the last of a row's parts to be written merges them; NULL: a kernel does */
	uint32_t window;
	float scale, softcap;
	const float *sinks;
	bool direct;    /* keys and values are bfloat16 or e4m3 in 16-byte steps */
	bool whole;     /* queries may be read 16 bytes at a time */
	bool early;     /* keys before a sequence's new ones are older than the kernel before this one */
	int page_shift; /* log2 of page_tokens, or -1 */
	float *parts;   /* [place][head][attn_part_floats()]: sums, their maximum (of log2), their mass */
};

GPU_FN float attn_exp2(float x)
{
#if GPU_PTX
	float r;

	asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(r) : "f"(x));
	return r;
#elif GPU_AMD
	return __builtin_amdgcn_exp2f(x);
#else
	return exp2f(x);
#endif
}

enum { LOG2E_BITS = 0x3fb8aa3b };

/* What is capped to (-cap, cap). Not tanhf(), and no division: a dozen of those are more code than a multiprocessor's
 * cache of it holds. */
GPU_FN float attn_softcap(float cap, float x)
{
	const float to_log2 = 2.0f * gpu_float(LOG2E_BITS) * gpu_inverse(cap);

	return cap - 2.0f * cap * gpu_inverse(1.0f + attn_exp2(x * to_log2));
}

/* Eight values of the pool as bfloat16; those from `left` on are zero. */
GPU_FN uint4 attn_to_bf16(const attn_args &a, const void *pool, size_t at, uint32_t left)
{
	uint32_t w[4];

	if (a.direct && a.kv.dtype == KN_F8_E4M3) { /* eight at a time */
		const uint2 u = left ? *(const uint2 *)((const uint8_t *)pool + at) : make_uint2(0, 0);

#pragma unroll
		for (int k = 0; k < 4; k++) {
			const uint32_t two = (k < 2 ? u.x : u.y) >> 16 * (k & 1);

			w[k] = gpu_pack_bf16(gpu_from_e4m3((uint8_t)two), gpu_from_e4m3((uint8_t)(two >> 8)));
		}
		return make_uint4(w[0], w[1], w[2], w[3]);
	}
#pragma unroll
	for (uint32_t k = 0; k < 4; k++)
		w[k] = gpu_pack_bf16(2 * k < left ? gk_kv_get(a.kv.dtype, pool, at + 2 * k) : 0.0f,
		                     2 * k + 1 < left ? gk_kv_get(a.kv.dtype, pool, at + 2 * k + 1) : 0.0f);
	return make_uint4(w[0], w[1], w[2], w[3]);
}

/* Converting is hundreds of instructions, which AMD's compiler would have once for every copy of a thread. */
#if defined(GPU_HIP)
#define ATTN_CONVERTED_AT_ONCE(n) 1
#else
#define ATTN_CONVERTED_AT_ONCE(n) (n)
#endif

/* Tile of TOKENS tokens from `token` on of one head, DIM values each (zeros beyond `dim`, and beyond token `end`), by
 * THREADS threads. Page numbers are read for several copies at once: each is a trip to memory. */
template <int DIM, int TOKENS, int THREADS, int BYTES, bool DIRECT>
GPU_FN void attn_copy_tile(uint4 *tile, const attn_args &a, const void *pool, uint32_t dim, const uint32_t *pages,
                           uint32_t head, uint32_t token, uint32_t end)
{
	enum {
		PER = 16 / BYTES,
		CHUNKS = DIM / PER,
		N = TOKENS * CHUNKS / THREADS,
		MOST = DIRECT ? (int)N : (int)ATTN_CONVERTED_AT_ONCE(N),
		AT_ONCE = MOST == 1    ? 1
		          : N % 8 == 0 ? 8
		          : N % 6 == 0 ? 6
		          : N % 4 == 0 ? 4
		          : N % 3 == 0 ? 3
		                       : 1
	};
	static_assert(TOKENS * CHUNKS % THREADS == 0, "every thread copies as much");

#if defined(GPU_HIP)
#pragma unroll 1
#endif
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
			const bool there = t < end && c * PER < dim;
			const size_t at =
			        there ? (size_t)((page[b] * a.kv.n_kv_head + head) * a.kv.page_tokens + slot) * dim +
			                        c * PER
			              : 0;
			uint4 *to = tile + gpu_tile_at(r, c, CHUNKS);

			if (DIRECT)
				gpu_copy16(to, (const uint8_t *)pool + at * BYTES, there ? 16 : 0);
			else
				*to = attn_to_bf16(a, pool, at, there ? dim - c * PER : 0);
		}
	}
}

/* From one part to the next: whole steps of 16 bytes. */
GPU_FN uint32_t attn_part_floats(const attn_args &a)
{
	return (a.kv.v_dim + 5) & ~3u;
}

/* What e4m3 of a head stand for, times. */
GPU_FN float attn_k_scale(const attn_args &a, uint32_t kv_head)
{
	return a.kv.k_scale ? a.kv.k_scale[kv_head] : 1.0f;
}

GPU_FN float attn_v_scale(const attn_args &a, uint32_t kv_head)
{
	const float *scales = a.kv.v ? a.kv.v_scale : a.kv.k_scale;

	return scales ? scales[kv_head] : 1.0f;
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

/* Eight values of a row's query from column 8 c on, as bfloat16 or what goes with widened e4m3. */
template <bool WIDENED = false>
GPU_FN uint4 attn_query(const attn_args &a, const gk_seq &seq, const gk_work &work, const attn_row &row, uint32_t c)
{
	const uint32_t first = row.head * a.kv.k_dim, col = first + c * 8, end = first + a.kv.k_dim;
	float v[8];

	if (!row.there || c * 8 >= a.kv.k_dim)
		return make_uint4(0, 0, 0, 0);
	gk_get8(a.q, seq.row + work.q + row.token, col, end, a.whole, v);
	return make_uint4(gpu_pack<WIDENED>(v[0], v[1]), gpu_pack<WIDENED>(v[2], v[3]), gpu_pack<WIDENED>(v[4], v[5]),
	                  gpu_pack<WIDENED>(v[6], v[7]));
}

/* Rows [row0, row0 + rows) of an item for one K/V head, and the keys that any of them sees. */
struct attn_span {
	gk_work work;
	gk_seq seq;
	const uint32_t *pages;
	uint32_t kv_head, row0, n_rows; /* n_rows: of the whole item */
	uint32_t first_pos, last_pos;
	uint32_t begin, end; /* begin at a multiple of `tile` */
};

/* False: the item has no such rows. */
GPU_FN bool attn_span_of(const attn_args &a, const gk_work &work, uint32_t kv_head, uint32_t row0, uint32_t rows,
                         uint32_t tile, attn_span *s)
{
	s->work = work;
	s->kv_head = kv_head;
	s->row0 = row0;
	s->n_rows = work.n_q * a.group;
	if (row0 >= s->n_rows)
		return false;
	s->seq = a.batch.seqs[work.seq];
	s->pages = a.batch.pages + s->seq.first_page;

	const uint32_t last_row = row0 + rows < s->n_rows ? row0 + rows - 1 : s->n_rows - 1;

	s->first_pos = attn_row_at(a, s->seq, work, kv_head, row0).pos;
	s->last_pos = attn_row_at(a, s->seq, work, kv_head, last_row).pos;
	s->begin = work.kv_begin;
	s->end = work.kv_end < s->last_pos + 1 ? work.kv_end : s->last_pos + 1;
	if (a.window && s->first_pos + 1 > a.window + s->begin)
		s->begin = s->first_pos + 1 - a.window;
	s->begin -= s->begin % tile;
	s->end = s->end > s->begin ? s->end : s->begin;
	return true;
}

/* Number `item` of all items' K/V heads and blocks of rows. */
GPU_FN bool attn_take(const attn_args &a, uint32_t item, uint32_t rows, uint32_t tile, attn_span *s)
{
	return attn_span_of(a, a.work[item / a.row_blocks / a.kv.n_kv_head], item / a.row_blocks % a.kv.n_kv_head,
	                    item % a.row_blocks * rows, rows, tile, s);
}

/* The queries of an item's rows from it.row0 on as a tile, by THREADS threads; CHUNKS of 16 bytes a row. */
template <int ROWS, int CHUNKS, int THREADS, bool WIDENED = false>
GPU_FN void attn_put_queries(uint4 *tile, const attn_args &a, const attn_span &it)
{
	for (uint32_t i = threadIdx.x; i < ROWS * CHUNKS; i += THREADS)
		tile[gpu_tile_at(i / CHUNKS, i % CHUNKS, CHUNKS)] = attn_query<WIDENED>(
		        a, it.seq, it.work, attn_row_at(a, it.seq, it.work, it.kv_head, it.row0 + i / CHUNKS),
		        i % CHUNKS);
}

/* ---- Online softmax ---------------------------------------------------------------------------------------------- */

/* A row's greatest score so far, in log2, becomes *fresh. Returns what its sums are multiplied by for that, and in
 * *fresh what its new scores are less: where nothing was seen yet 0, so that every weight becomes 0. */
GPU_FN float attn_raise_top(float *top, float *mass, float *fresh)
{
	const float shrink = *fresh == -INFINITY ? 1.0f : attn_exp2(*top - *fresh);

	*top = *fresh;
	*mass *= shrink;
	if (*fresh == -INFINITY)
		*fresh = 0.0f;
	return shrink;
}

/* Every row's sums, shrink[slot] times. */
template <int N> GPU_FN void attn_shrink_sums(gpu_acc (&acc)[N], const float *shrink)
{
#pragma unroll
	for (int d = 0; d < N; d++) {
#pragma unroll
		for (int i = 0; i < GPU_ACC; i++)
			acc[d].v[i] *= shrink[gpu_acc_slot(i)];
	}
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

/* The first of these forms of a kernel that the device has the shared memory for. What comes behind one that all
 * devices of the kind have it for is not made, nor what none of them has it for. */
template <class F, class... Others>
static inline void attn_launch_first(const struct gk_ctx *ctx, const attn_args &a, uint32_t max_work)
{
	if constexpr ((int)F::SHARED <= (int)GPU_LEAST_SHARED) {
		F::launch(ctx, a, max_work);
	} else {
		if constexpr ((int)F::SHARED <= (int)GPU_MOST_SHARED) {
			if ((uint32_t)F::SHARED <= ctx->smem_bytes) {
				F::launch(ctx, a, max_work);
				return;
			}
		}
		attn_launch_first<Others...>(ctx, a, max_work);
	}
}

#endif
