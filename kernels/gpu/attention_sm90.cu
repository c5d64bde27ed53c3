/* Attention of prompts by Hopper's warpgroup instructions (online softmax as in attention.h; keys and values by the
 * tensor engine, two warpgroups in turns, each beginning a tile's scores before the weights of the one before are
 * multiplied: Shah and others, 2024).
 *
 * A block stays for the whole launch, one on each multiprocessor, and takes items until there are none. An item is 128
 * rows, pairs of a new token and a query head of one K/V head, token by token, and all keys that they see, 128 at a
 * time from the first one on: a row meets its keys in the same order and by the same instructions wherever its
 * neighbours are, and keys that it must not see change none of its bits. So its result is the same in any pieces.
 *
 * A third warpgroup does nothing but bring: one warp takes items and copies boxes of pages, two others the rows of
 * queries of the next item. What is in shared memory changes hands by barriers: full when it has come, empty when all
 * eight computing warps have read it; each exists twice, and uses number n of it have parity n / 2 % 2.
 *
 * Left to attention.h: windows, caps, keys and values that are no bfloat16, other sizes of heads. */
#include <errno.h>

#include "gpu/attention_sm90.h"
#include "gpu/sm90_launch.h"

enum {
	HOPPER_ROWS = 128, /* of an item; half of them for each warpgroup */
	HOPPER_KEYS = 128, /* of a tile */
	HOPPER_GROUPS = 2,
	HOPPER_COMPUTE = HOPPER_GROUPS * SM90_GROUP,
	HOPPER_THREADS = HOPPER_COMPUTE + SM90_GROUP,
	HOPPER_BRING = HOPPER_COMPUTE,      /* first thread of the warp that takes items */
	HOPPER_QUERIES = HOPPER_BRING + 64, /* and of the two that copy queries */
	HOPPER_READERS = HOPPER_COMPUTE / 32,
	HOPPER_ITEM_READERS = HOPPER_READERS + 2,
	HOPPER_TURN = 1,  /* named barriers: a warpgroup may begin its products */
	HOPPER_ALONE = 3, /* the threads of one warpgroup */
	HOPPER_LEAN = 40, /* registers of a thread that brings, and of one that computes: 65,536 in all */
	HOPPER_RICH = 232,
	HOPPER_SIGNALS = 512, /* bytes for barriers */
};

struct hopper_args {
	attn_args a;
	sm90_map k, v;
	int box_shift;  /* log2 of the tokens of a box: those of a page, at most a tile's */
	uint32_t *next; /* items taken so far beyond each block's first; zero before and after. NULL: in fixed order */
	bool whole_out; /* results may be written 16 bytes at a time, and are bfloat16 */
};

#if SM90_CODE

struct hopper_item {
	uint32_t token_row;                              /* of activations: the first token's */
	uint32_t pos;                                    /* of it, in the sequence */
	uint32_t row0, n_rows, kv_head, kv_len, n_tiles; /* no tiles: there are no more items */
};

struct hopper_signals {
	sm90_bar k_full[2], k_empty[2], v_full[2], v_empty[2], q_full[2], q_empty[2], item_full[2], item_empty[2];
	hopper_item items[2];
};
static_assert(sizeof(hopper_signals) <= HOPPER_SIGNALS, "they have room");

/* Of use number n of what exists twice. */
GPU_FN uint32_t hopper_parity(uint32_t n)
{
	return n >> 1 & 1;
}

template <int HD> struct hopper_memory {
	enum {
		HALVES = HD / 64,
		CHUNKS = HD / 8,
		Q_HALF = SM90_GROUP / 2 * SM90_TILE_ROW, /* bytes: 64 rows, 64 columns */
		KV_HALF = HOPPER_KEYS * SM90_TILE_ROW,
		Q_BYTES = HOPPER_ROWS * HD * 2,
		KV_BYTES = HOPPER_KEYS * HD * 2,
	};
	uint8_t *base;

	/* Of one warpgroup. */
	__device__ __forceinline__ uint8_t *q(uint32_t slot, uint32_t group) const
	{
		return base + slot * Q_BYTES + group * (Q_BYTES / HOPPER_GROUPS);
	}
	__device__ __forceinline__ uint8_t *k(uint32_t stage) const
	{
		return base + 2 * Q_BYTES + stage * KV_BYTES;
	}
	__device__ __forceinline__ uint8_t *v(uint32_t stage) const
	{
		return base + 2 * Q_BYTES + 2 * KV_BYTES + stage * KV_BYTES;
	}
	__device__ __forceinline__ hopper_signals *signals() const
	{
		return (hopper_signals *)(base + 2 * (Q_BYTES + 2 * KV_BYTES));
	}
};

/* ---- Who brings -------------------------------------------------------------------------------------------------- */

/* What the block takes after `item`. The one that takes the last number leaves zero. */
GPU_FN uint32_t hopper_next(const hopper_args &args, uint32_t item, uint32_t n_items)
{
	uint32_t taken;

	if (!args.next)
		return item + gridDim.x;
	taken = atomicAdd(args.next, 1u);
	if (taken == n_items - 1)
		*args.next = 0;
	return taken + gridDim.x;
}

GPU_FN void hopper_show(hopper_signals *s, uint32_t n, const hopper_item &item)
{
	sm90_bar_wait(&s->item_empty[n & 1], hopper_parity(n) ^ 1);
	if (threadIdx.x == HOPPER_BRING) {
		s->items[n & 1] = item;
		sm90_bar_arrive(&s->item_full[n & 1]);
	}
	gpu_sync_wave();
}

/* One warp: every lane copies a box of each tile, if there are so many. */
template <int HD> GPU_FN void hopper_bring(const hopper_args &args, const hopper_memory<HD> &m)
{
	enum { HALVES = hopper_memory<HD>::HALVES };
	const attn_args &a = args.a;
	hopper_signals *const s = m.signals();
	const uint32_t lane = threadIdx.x & 31, half = lane % HALVES, box = (lane / HALVES) << args.box_shift;
	const uint32_t n_items = *a.n_work * a.kv.n_kv_head * a.row_blocks;
	uint32_t n = 0, at = 0;

	for (uint32_t item = blockIdx.x; item < n_items;) {
		uint32_t next = 0;
		attn_span it;

		if (lane == 0)
			next = hopper_next(args, item, n_items);
		if (attn_take(a, item, HOPPER_ROWS, HOPPER_KEYS, &it)) {
			const uint32_t kv_len = it.seq.kv_len, n_tiles = (it.end + HOPPER_KEYS - 1) / HOPPER_KEYS;
			const hopper_item shown = { it.seq.row + it.work.q,
				                    kv_len - it.seq.n_q + it.work.q,
				                    it.row0,
				                    it.n_rows,
				                    it.kv_head,
				                    kv_len,
				                    n_tiles };

			hopper_show(s, n++, shown);
			for (uint32_t t = 0; t < n_tiles; t++, at++) {
				const uint32_t stage = at & 1, free = hopper_parity(at) ^ 1,
				               token = t * HOPPER_KEYS + box;
				const uint32_t left = kv_len - t * HOPPER_KEYS,
				               there = left < HOPPER_KEYS ? left : (uint32_t)HOPPER_KEYS;
				const uint32_t boxes = (there + (1u << args.box_shift) - 1) >> args.box_shift;
				const bool mine = box < there;
				uint32_t row = 0;

				if (mine)
					row = (it.pages[token >> a.page_shift] * a.kv.n_kv_head + it.kv_head) *
					              a.kv.page_tokens +
					      (token & (a.kv.page_tokens - 1));
				sm90_bar_wait(&s->k_empty[stage], free);
				if (lane == 0)
					sm90_bar_expect(&s->k_full[stage], (boxes << args.box_shift) * HD * 2);
				gpu_sync_wave();
				if (mine)
					sm90_copy_box(m.k(stage) + half * m.KV_HALF + box * SM90_TILE_ROW, &args.k,
					              half * 64, row, &s->k_full[stage]);
				sm90_bar_wait(&s->v_empty[stage], free);
				if (lane == 0)
					sm90_bar_expect(&s->v_full[stage], (boxes << args.box_shift) * HD * 2);
				gpu_sync_wave();
				if (mine)
					sm90_copy_box(m.v(stage) + half * m.KV_HALF + box * SM90_TILE_ROW, &args.v,
					              half * 64, row, &s->v_full[stage]);
			}
		}
		item = gpu_shfl(next, 0);
	}
	hopper_show(s, n, hopper_item());
}

/* Two warps: rows of queries as they lie, zeros for those that are not there. */
template <int HD> GPU_FN void hopper_bring_queries(const hopper_args &args, const hopper_memory<HD> &m)
{
	enum { CHUNKS = hopper_memory<HD>::CHUNKS, STEP = 64 / CHUNKS };
	const attn_args &a = args.a;
	hopper_signals *const s = m.signals();
	const uint32_t thread = threadIdx.x - HOPPER_QUERIES, c = thread % CHUNKS;
	const uint32_t more_tokens = STEP / a.group, more_heads = STEP % a.group;

	for (uint32_t n = 0;; n++) {
		const uint32_t slot = n & 1, parity = hopper_parity(n);

		sm90_bar_wait(&s->item_full[slot], parity);

		const hopper_item it = s->items[slot];
		uint32_t r = thread / CHUNKS, token = (it.row0 + r) / a.group, head = (it.row0 + r) % a.group;

		gpu_sync_wave();
		if ((threadIdx.x & 31) == 0)
			sm90_bar_arrive(&s->item_empty[slot]);
		if (it.n_tiles == 0)
			return;
		sm90_bar_wait(&s->q_empty[slot], parity ^ 1);
		for (; r < HOPPER_ROWS; r += STEP) {
			const bool there = it.row0 + r < it.n_rows;
			const size_t row = it.token_row + (there ? token : 0);
			uint8_t *const to = m.q(slot, r / 64) + c / 8 * m.Q_HALF;

			gpu_copy16((uint4 *)to + gpu_tile_at(r % 64, c % 8, 8),
			           (const gpu_bf16 *)a.q.p + row * a.q.ld + (it.kv_head * a.group + head) * HD + c * 8,
			           there ? 16 : 0);
			token += more_tokens;
			head += more_heads;
			if (head >= a.group) {
				head -= a.group;
				token++;
			}
		}
		gpu_copy_commit();
		gpu_copy_wait<0>();
		sm90_publish();
		sm90_bar_arrive(&s->q_full[slot]);
	}
}

/* ---- Who computes ------------------------------------------------------------------------------------------------ */

/* d = the queries of a warpgroup times a tile's keys. */
template <int HD> GPU_FN void hopper_scores(float (&d)[HOPPER_KEYS / 2], const uint8_t *q, const uint8_t *k)
{
	const sm90_desc dq = sm90_desc_of(q, 16, 8 * SM90_TILE_ROW), dk = sm90_desc_of(k, 16, 8 * SM90_TILE_ROW);

	sm90_product<false>(d, dq, dk);
#pragma unroll
	for (int i = 1; i < HD / 16; i++)
		sm90_product<true>(d, sm90_desc_add(dq, i / 4 * hopper_memory<HD>::Q_HALF + i % 4 * 32),
		                   sm90_desc_add(dk, i / 4 * hopper_memory<HD>::KV_HALF + i % 4 * 32));
}

/* d += weights times a tile's values. */
template <int HD> GPU_FN void hopper_sums(float (&d)[HD / 2], const uint32_t (&p)[HOPPER_KEYS / 4], const uint8_t *v)
{
	const sm90_desc dv = sm90_desc_of(v, hopper_memory<HD>::KV_HALF, 8 * SM90_TILE_ROW);

#pragma unroll
	for (int i = 0; i < HOPPER_KEYS / 16; i++)
		sm90_product_across(d, p + 4 * i, sm90_desc_add(dv, i * 16 * SM90_TILE_ROW));
}

/* The state of a thread's two rows. */
struct hopper_rows {
	uint32_t pos[2]; /* the last key that each sees */
	float top[2];    /* greatest score so far, in log2 */
	float mass[2];   /* this thread's share of the sum of weights */
	float shrink[2]; /* what earlier sums are multiplied by, since `top` grew */
};

GPU_FN void hopper_mask(float (&s)[HOPPER_KEYS / 2], const hopper_rows &r, uint32_t token)
{
#pragma unroll
	for (int i = 0; i < HOPPER_KEYS / 2; i++) {
		const uint32_t key = token + i / 4 * 8 + (threadIdx.x & 3) * 2 + i % 2;

		if (key > r.pos[i / 2 % 2])
			s[i] = -INFINITY;
	}
}

GPU_FN float hopper_row_max(float v)
{
	v = fmaxf(v, gpu_shfl_xor(v, 1));
	return fmaxf(v, gpu_shfl_xor(v, 2));
}

GPU_FN float hopper_row_sum(float v)
{
	v += gpu_shfl_xor(v, 1);
	return v + gpu_shfl_xor(v, 2);
}

/* Scores become weights. The first tile has a key that each row sees, so that `top` is finite from then on. */
GPU_FN void hopper_weights(float (&s)[HOPPER_KEYS / 2], hopper_rows &r, float to_log2)
{
	float best[4], sum[4];

#pragma unroll
	for (int i = 0; i < 4; i++) {
		best[i] = s[i];
		sum[i] = 0.0f;
	}
#pragma unroll
	for (int i = 4; i < HOPPER_KEYS / 2; i++)
		best[i % 4] = fmaxf(best[i % 4], s[i]);
#pragma unroll
	for (int h = 0; h < 2; h++) {
		const float fresh = fmaxf(r.top[h], hopper_row_max(fmaxf(best[2 * h], best[2 * h + 1])) * to_log2);

		r.shrink[h] = attn_exp2(r.top[h] - fresh);
		r.top[h] = fresh;
	}
#pragma unroll
	for (int i = 0; i < HOPPER_KEYS / 2; i++) {
		s[i] = attn_exp2(s[i] * to_log2 - r.top[i / 2 % 2]);
		sum[i % 4] += s[i];
	}
#pragma unroll
	for (int h = 0; h < 2; h++)
		r.mass[h] = r.mass[h] * r.shrink[h] + (sum[2 * h] + sum[2 * h + 1]);
}

GPU_FN void hopper_pack(uint32_t (&p)[HOPPER_KEYS / 4], const float (&s)[HOPPER_KEYS / 2])
{
#pragma unroll
	for (int i = 0; i < HOPPER_KEYS / 4; i++)
		p[i] = gpu_pack_bf16(s[2 * i], s[2 * i + 1]);
}

/* Values of tokens that the sequence does not have yet may be anything, and no weight of zero makes a number of what
 * is none. By one warpgroup; the other one writes the same zeros. */
template <int HD> GPU_FN void hopper_clear(uint8_t *v, uint32_t first, uint32_t group)
{
	enum { CHUNKS = hopper_memory<HD>::CHUNKS };

	for (uint32_t i = first * CHUNKS + threadIdx.x % SM90_GROUP; i < HOPPER_KEYS * CHUNKS; i += SM90_GROUP) {
		const uint32_t c = i % CHUNKS;

		((uint4 *)(v + c / 8 * hopper_memory<HD>::KV_HALF))[gpu_tile_at(i / CHUNKS, c % 8, 8)] =
		        make_uint4(0, 0, 0, 0);
	}
	sm90_publish();
	sm90_named_sync(HOPPER_ALONE + group, SM90_GROUP);
}

/* A warp's 16 rows; through the rows' queries, which nobody needs any more, so that they leave in whole pieces. */
template <int HD>
GPU_FN void hopper_put(const hopper_args &args, const hopper_item &it, const float (&o)[HD / 2],
                       const hopper_rows &rows, uint8_t *q, uint32_t group)
{
	enum { CHUNKS = hopper_memory<HD>::CHUNKS, Q_HALF = hopper_memory<HD>::Q_HALF };
	const attn_args &a = args.a;
	const uint32_t lane = threadIdx.x & 31, warp_row = threadIdx.x / 32 % 4 * 16,
	               first = it.row0 + group * 64 + warp_row;

#pragma unroll
	for (int h = 0; h < 2; h++) {
		const uint32_t r = first + lane / 4 + 8 * h, local = warp_row + lane / 4 + 8 * h;
		const uint32_t head = it.kv_head * a.group + r % a.group;
		const float last = attn_final_scale(a, head, rows.top[h], hopper_row_sum(rows.mass[h])) *
		                   attn_v_scale(a, it.kv_head);

#pragma unroll
		for (int c = 0; c < CHUNKS; c++) {
			const float low = o[4 * c + 2 * h] * last, high = o[4 * c + 2 * h + 1] * last;

			if (args.whole_out) {
				((uint32_t *)(q + c / 8 * Q_HALF))[gpu_tile_at(local, c % 8, 8) * 4 + (lane & 3)] =
				        gpu_pack_bf16(low, high);
			} else if (r < it.n_rows) {
				const size_t row = it.token_row + r / a.group, col = head * HD + c * 8 + (lane & 3) * 2;

				gk_put(a.out, row, col, low);
				gk_put(a.out, row, col + 1, high);
			}
		}
	}
	gpu_sync_wave();
	for (uint32_t i = lane; args.whole_out && i < 16 * CHUNKS; i += 32) {
		const uint32_t c = i % CHUNKS, local = i / CHUNKS, r = first + local;
		gpu_bf16 *const to = (gpu_bf16 *)a.out.p + (size_t)(it.token_row + r / a.group) * a.out.ld +
		                     (it.kv_head * a.group + r % a.group) * HD + c * 8;

		if (r < it.n_rows)
			*(uint4 *)to = ((const uint4 *)(q + c / 8 * Q_HALF))[gpu_tile_at(warp_row + local, c % 8, 8)];
	}
}

/* A warpgroup. The two issue products one after the other, so that one's weights are made while the other's products
 * run. */
template <int HD> GPU_FN void hopper_compute(const hopper_args &args, const hopper_memory<HD> &m)
{
	const attn_args &a = args.a;
	hopper_signals *const sig = m.signals();
	const uint32_t group = threadIdx.x / SM90_GROUP, lane = threadIdx.x & 31;
	float s[HOPPER_KEYS / 2], o[HD / 2];
	uint32_t p[HOPPER_KEYS / 4];

#pragma unroll
	for (int i = 0; i < HOPPER_KEYS / 2; i++)
		s[i] = 0.0f;
	if (group == 1)
		sm90_named_arrive(HOPPER_TURN, HOPPER_COMPUTE);
	for (uint32_t n = 0, at = 0;; n++) {
		const uint32_t slot = n & 1, parity = hopper_parity(n);

		sm90_bar_wait(&sig->item_full[slot], parity);

		const hopper_item it = sig->items[slot];

		gpu_sync_wave();
		if (lane == 0)
			sm90_bar_arrive(&sig->item_empty[slot]);
		if (it.n_tiles == 0)
			break;

		const uint32_t row0 = it.row0 + group * 64, row = row0 + threadIdx.x % SM90_GROUP / 32 * 16 + lane / 4;
		const uint32_t newest = it.kv_len - 1;
		const float to_log2 = gpu_float(LOG2E_BITS) * a.scale * attn_k_scale(a, it.kv_head);
		uint8_t *const q = m.q(slot, group);
		/* Keys up to here are seen by all rows of the warpgroup; those behind the item's last see the last key.
		 */
		const uint32_t all = it.pos + row0 / a.group < newest ? it.pos + row0 / a.group : newest;
		hopper_rows r;

#pragma unroll
		for (int h = 0; h < 2; h++) {
			const uint32_t pos = it.pos + (row + 8 * h) / a.group;

			r.pos[h] = pos < newest ? pos : newest;
			r.top[h] = -INFINITY;
			r.mass[h] = 0.0f;
		}
#pragma unroll
		for (int i = 0; i < HD / 2; i++)
			o[i] = 0.0f;

		sm90_bar_wait(&sig->q_full[slot], parity);
		sm90_bar_wait(&sig->k_full[at & 1], hopper_parity(at));
		sm90_pin(s);
		sm90_products_begin();
		hopper_scores<HD>(s, q, m.k(at & 1));
		sm90_products_end();
		sm90_products_wait<0>();
		sm90_pin(s);
		if (lane == 0)
			sm90_bar_arrive(&sig->k_empty[at & 1]);
		if (HOPPER_KEYS > all + 1)
			hopper_mask(s, r, 0);
		hopper_weights(s, r, to_log2);
		hopper_pack(p, s);

		for (uint32_t t = 1; t < it.n_tiles; t++, at++) {
			const uint32_t stage = (at + 1) & 1;

			sm90_bar_wait(&sig->v_full[at & 1], hopper_parity(at));
			sm90_bar_wait(&sig->k_full[stage], hopper_parity(at + 1));
			sm90_named_sync(HOPPER_TURN + group, HOPPER_COMPUTE);
			sm90_pin(s);
			sm90_pin(o);
			sm90_pin(p);
			sm90_products_begin();
			hopper_scores<HD>(s, q, m.k(stage));
			sm90_products_end();
			hopper_sums<HD>(o, p, m.v(at & 1));
			sm90_products_end();
			sm90_named_arrive(HOPPER_TURN + 1 - group, HOPPER_COMPUTE);
			sm90_products_wait<1>();
			sm90_pin(s);
			if (lane == 0)
				sm90_bar_arrive(&sig->k_empty[stage]);
			if ((t + 1) * HOPPER_KEYS > all + 1)
				hopper_mask(s, r, t * HOPPER_KEYS);
			hopper_weights(s, r, to_log2);
			sm90_products_wait<0>();
			sm90_pin(o);
			sm90_pin(p);
			if (lane == 0)
				sm90_bar_arrive(&sig->v_empty[at & 1]);
#pragma unroll
			for (int i = 0; i < HD / 2; i++)
				o[i] *= r.shrink[i / 2 % 2];
			hopper_pack(p, s);
		}

		sm90_bar_wait(&sig->v_full[at & 1], hopper_parity(at));
		if (it.n_tiles * HOPPER_KEYS > it.kv_len)
			hopper_clear<HD>(m.v(at & 1), it.kv_len - (it.n_tiles - 1) * HOPPER_KEYS, group);
		sm90_pin(o);
		sm90_pin(p);
		sm90_products_begin();
		hopper_sums<HD>(o, p, m.v(at & 1));
		sm90_products_end();
		sm90_products_wait<0>();
		sm90_pin(o);
		sm90_pin(p);
		if (lane == 0)
			sm90_bar_arrive(&sig->v_empty[at & 1]);
		at++;
		hopper_put<HD>(args, it, o, r, q, group);
		gpu_sync_wave();
		if (lane == 0)
			sm90_bar_arrive(&sig->q_empty[slot]);
	}
	if (group == 0) /* as often as it was arrived at */
		sm90_named_sync(HOPPER_TURN, HOPPER_COMPUTE);
}
#endif

template <int HD>
static __global__ void __launch_bounds__(HOPPER_THREADS, 1) hopper_attention(GPU_PARAM hopper_args args)
{
#if SM90_CODE
	GPU_DYN_SHARED(uint8_t, shared);
#if defined(GPU_HOST)
	const uint32_t misaligned = (uint32_t)((uintptr_t)shared & (SM90_ALIGN - 1));
#else
	const uint32_t misaligned = sm90_shared(shared) & (SM90_ALIGN - 1);
#endif
	const hopper_memory<HD> m = { shared + (misaligned ? SM90_ALIGN - misaligned : 0) };

	if (threadIdx.x == 0) {
		hopper_signals *const s = m.signals();

		for (int i = 0; i < 2; i++) {
			sm90_bar_init(&s->k_full[i], 1);
			sm90_bar_init(&s->v_full[i], 1);
			sm90_bar_init(&s->k_empty[i], HOPPER_READERS);
			sm90_bar_init(&s->v_empty[i], HOPPER_READERS);
			sm90_bar_init(&s->q_full[i], HOPPER_THREADS - HOPPER_QUERIES);
			sm90_bar_init(&s->q_empty[i], HOPPER_READERS);
			sm90_bar_init(&s->item_full[i], 1);
			sm90_bar_init(&s->item_empty[i], HOPPER_ITEM_READERS);
		}
		sm90_bars_ready();
	}
	__syncthreads();
	gpu_dependents_may_start();
	gpu_dependency_wait();
	/* In this order: with the other branch first, the compiler (13.0) gives both of them what a thread begins with.
	 */
	if (threadIdx.x < HOPPER_COMPUTE) {
		sm90_more_registers<HOPPER_RICH>();
		hopper_compute<HD>(args, m);
	} else {
		sm90_fewer_registers<HOPPER_LEAN>();
		if (threadIdx.x < HOPPER_BRING + 32)
			hopper_bring<HD>(args, m);
		else if (threadIdx.x >= HOPPER_QUERIES)
			hopper_bring_queries<HD>(args, m);
	}
#endif
}

/* ---- Launches ---------------------------------------------------------------------------------------------------- */

/* Nobody says how many pages a pool has; no row beyond them is asked for. */
static bool map_of(sm90_map *map, void *pool, uint32_t dim, uint32_t box_rows)
{
	return sm90_map_of(map, pool, 2, 1u << 30, dim, (size_t)dim * 2, box_rows);
}

enum { MIN_PAGE_SHIFT = 3 /* a tile's swizzle repeats every eight rows */, TILE_SHIFT = 7 };

static size_t shared_bytes(uint32_t dim)
{
	return 2 * (size_t)(HOPPER_ROWS + 2 * HOPPER_KEYS) * dim * 2 + HOPPER_SIGNALS + SM90_ALIGN;
}

bool attn_hopper_takes(const struct gk_ctx *ctx, const attn_args &a)
{
	const uint32_t dim = a.kv.k_dim;
	sm90_map map;

	return ctx->sm == 90 && (dim == 64 || dim == 128) && a.kv.v_dim == dim && a.kv.v && a.kv.dtype == KN_BF16 &&
	       a.direct && a.page_shift >= MIN_PAGE_SHIFT && !a.window && a.softcap == 0.0f && a.scale > 0.0f &&
	       a.q.elem == GK_BF16 && a.whole && shared_bytes(dim) <= ctx->smem_bytes && map_of(&map, a.kv.k, dim, 8);
}

int attn_hopper_launch(const struct gk_ctx *ctx, const attn_args &a, uint32_t max_work)
{
	const uint32_t dim = a.kv.k_dim;
	hopper_args args = {};
	uint32_t items, grid;

	args.a = a;
	args.a.row_blocks = (GK_TILE_TOKENS * a.group + HOPPER_ROWS - 1) / HOPPER_ROWS;
	args.box_shift = a.page_shift < TILE_SHIFT ? a.page_shift : (int)TILE_SHIFT;
	args.next = ctx->counters;
	args.whole_out = a.out.elem == GK_BF16 && gk_view_aligned(a.out);
	if (!map_of(&args.k, a.kv.k, dim, 1u << args.box_shift) || !map_of(&args.v, a.kv.v, dim, 1u << args.box_shift))
		return -EINVAL;
	items = max_work * a.kv.n_kv_head * args.a.row_blocks;
	grid = items < ctx->n_sm ? items : ctx->n_sm;
	gpu_launch(dim == 64 ? hopper_attention<64> : hopper_attention<128>, dim3(grid), dim3(HOPPER_THREADS),
	           shared_bytes(dim), ctx->stream, ctx->overlap, args);
	return 0;
}
