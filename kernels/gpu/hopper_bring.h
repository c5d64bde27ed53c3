/* Attention of prompts on Hopper: who brings. One warp takes items and has boxes of pages copied, two copy rows of
 * queries; a warpgroup of its own widens keys and values of e4m3. */
#ifndef GPU_HOPPER_BRING_H
#define GPU_HOPPER_BRING_H

#include "gpu/hopper_attention.h"

#if SM90_CODE

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

template <int KIND> GPU_FN void hopper_show(hopper_signals *s, uint32_t n, const hopper_item &item, uint32_t first_tile)
{
	sm90_bar_wait(&s->item_empty[n & 1], hopper_parity(n) ^ 1);
	if (threadIdx.x == HOPPER_BRING) {
		s->items[n & 1] = item;
		if (KIND & HOPPER_WINDOW)
			s->first_tile[n & 1] = first_tile;
		sm90_bar_arrive(&s->item_full[n & 1]);
	}
	gpu_sync_wave();
}

/* One warp: every lane copies a box of each tile, if there are so many. */
template <int HD, int KIND> GPU_FN void hopper_bring(const hopper_args &args, const hopper_memory<HD, KIND> &m)
{
	typedef hopper_shape<HD, KIND> shape;
	/* Boxes side by side: bytes of e4m3 are copied as they lie. */
	enum { HALVES = shape::EIGHT ? 1 : (int)shape::HALVES, KEYS = shape::KEYS };
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
		if (attn_take(a, item, HOPPER_ROWS, KEYS, &it)) {
			const uint32_t kv_len = it.seq.kv_len, n_tiles = (it.end + KEYS - 1) / KEYS;
			const uint32_t first_tile = shape::WINDOW ? it.begin / KEYS : 0;
			const hopper_item shown = { it.seq.row + it.work.q,
				                    kv_len - it.seq.n_q + it.work.q,
				                    it.row0,
				                    it.n_rows,
				                    it.kv_head,
				                    kv_len,
				                    n_tiles };

			hopper_show<KIND>(s, n++, shown, first_tile);
			for (uint32_t t = first_tile; t < n_tiles; t++, at++) {
				const uint32_t stage = at & 1, free = hopper_parity(at) ^ 1, token = t * KEYS + box;
				const uint32_t left = kv_len - t * KEYS, there = left < KEYS ? left : (uint32_t)KEYS;
				const uint32_t boxes = (there + (1u << args.box_shift) - 1) >> args.box_shift;
				const bool mine = box < there;
				uint32_t row = 0;

				if (mine)
					row = (it.pages[token >> a.page_shift] * a.kv.n_kv_head + it.kv_head) *
					              a.kv.page_tokens +
					      (token & (a.kv.page_tokens - 1));
				if (shape::EIGHT) {
					const uint32_t bytes = HD << args.box_shift;

#pragma unroll
					for (uint32_t which = 0; which < 2; which++) {
						const uint8_t *const pool = (const uint8_t *)(which ? a.kv.v : a.kv.k);

						sm90_bar_wait(&s->raw_empty[which], (at & 1) ^ 1);
						if (lane == 0)
							sm90_bar_expect(&s->raw_full[which], boxes * bytes);
						gpu_sync_wave();
						if (mine)
							sm90_copy_bytes(m.raw(which) + box * HD,
							                pool + (size_t)row * HD, bytes,
							                &s->raw_full[which]);
					}
					continue;
				}
				sm90_bar_wait(&s->k_empty[stage], free);
				if (lane == 0)
					sm90_bar_expect(&s->k_full[stage], (boxes << args.box_shift) * HD * 2);
				gpu_sync_wave();
				if (mine)
					sm90_copy_box(m.k(stage) + half * shape::KV_HALF + box * SM90_TILE_ROW, &args.k,
					              half * 64, row, &s->k_full[stage]);
				sm90_bar_wait(&s->v_empty[stage], free);
				if (lane == 0)
					sm90_bar_expect(&s->v_full[stage], (boxes << args.box_shift) * HD * 2);
				gpu_sync_wave();
				if (mine)
					sm90_copy_box(m.v(stage) + half * shape::KV_HALF + box * SM90_TILE_ROW, &args.v,
					              half * 64, row, &s->v_full[stage]);
			}
		}
		item = gpu_shfl(next, 0);
	}
	hopper_show<KIND>(s, n, hopper_item(), 0);
}

/* ---- binary16 ---------------------------------------------------------------------------------------------------- */

/* Two floats as binary16, the first in the low half. */
GPU_FN uint32_t hopper_pack_half(float low, float high)
{
#if GPU_PTX
	uint32_t r;

	asm("cvt.rn.f16x2.f32 %0, %1, %2;" : "=r"(r) : "f"(high), "f"(low));
	return r;
#else
	return gpu_to_f16(low) | (uint32_t)gpu_to_f16(high) << 16;
#endif
}

/* Two bfloat16 of a query likewise; what is beyond its largest ends there. */
GPU_FN uint32_t hopper_query_half(uint32_t two)
{
	const float most = 65504.0f;

	return hopper_pack_half(fminf(fmaxf(gpu_bf16_low(two), -most), most),
	                        fminf(fmaxf(gpu_bf16_high(two), -most), most));
}

/* Eight e4m3. */
GPU_FN uint4 hopper_widen(uint32_t first, uint32_t second)
{
#if GPU_PTX
	return make_uint4(gpu_widen2<0>(first), gpu_widen2<1>(first), gpu_widen2<0>(second), gpu_widen2<1>(second));
#else
	uint32_t w[4];

	for (int i = 0; i < 4; i++) {
		const uint32_t two = (i < 2 ? first : second) >> 16 * (i & 1);

		w[i] = hopper_pack_half(gpu_from_e4m3((uint8_t)two), gpu_from_e4m3((uint8_t)(two >> 8)));
	}
	return make_uint4(w[0], w[1], w[2], w[3]);
#endif
}

/* ---- Queries ----------------------------------------------------------------------------------------------------- */

/* Two warps: rows of queries as they lie (for e4m3: as binary16), zeros for those that are not there. */
template <int HD, int KIND> GPU_FN void hopper_bring_queries(const hopper_args &args, const hopper_memory<HD, KIND> &m)
{
	typedef hopper_shape<HD, KIND> shape;
	enum { CHUNKS = shape::CHUNKS, STEP = HOPPER_QUERY_THREADS / CHUNKS };
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
		sm90_bar_wait(&s->q_empty[m.q_slot(n)], m.q_parity(n) ^ 1);

		if (shape::EIGHT) {
			enum { AT_ONCE = 4 };
			static_assert(HOPPER_ROWS % (STEP * AT_ONCE) == 0, "every thread has as many rows");

			while (r < HOPPER_ROWS) {
				uint4 v[AT_ONCE];

#pragma unroll
				for (int i = 0; i < AT_ONCE; i++) {
					const uint32_t row = it.row0 + r + i * STEP;
					const size_t at = (size_t)(it.token_row + row / a.group) * a.q.ld +
					                  (it.kv_head * a.group + row % a.group) * HD + c * 8;

					v[i] = row < it.n_rows ? *(const uint4 *)((const gpu_bf16 *)a.q.p + at)
					                       : make_uint4(0, 0, 0, 0);
				}
#pragma unroll
				for (int i = 0; i < AT_ONCE; i++, r += STEP)
					((uint4 *)(m.q(n, r / 64) +
					           c / 8 * shape::Q_HALF))[gpu_tile_at(r % 64, c % 8, 8)] =
					        make_uint4(hopper_query_half(v[i].x), hopper_query_half(v[i].y),
					                   hopper_query_half(v[i].z), hopper_query_half(v[i].w));
			}
		} else {
			for (; r < HOPPER_ROWS; r += STEP) {
				const bool there = it.row0 + r < it.n_rows;
				const size_t row = it.token_row + (there ? token : 0);
				uint8_t *const to = m.q(n, r / 64) + c / 8 * shape::Q_HALF;

				gpu_copy16((uint4 *)to + gpu_tile_at(r % 64, c % 8, 8),
				           (const gpu_bf16 *)a.q.p + row * a.q.ld + (it.kv_head * a.group + head) * HD +
				                   c * 8,
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
		}
		sm90_publish();
		sm90_bar_arrive(&s->q_full[m.q_slot(n)]);
	}
}

/* ---- Keys and values of e4m3 ------------------------------------------------------------------------------------- */

/* A tile of either, from where it came to where products read it. A thread's 16 bytes become two chunks; of eight
 * lanes, which store together, those in one half of a row begin with the other chunk, so that they meet every bank
 * once. */
template <int HD, int KIND> GPU_FN void hopper_convert_tile(uint8_t *to, const uint8_t *raw)
{
	typedef hopper_shape<HD, KIND> shape;
	enum { PER_ROW = HD / 16, N = shape::KEYS * PER_ROW / SM90_GROUP };
	const uint32_t thread = threadIdx.x - HOPPER_CONVERT, c = thread % PER_ROW;
	const bool turned = PER_ROW > 4 && (c & 4);
	uint8_t *const half = to + c / 4 * shape::KV_HALF;

#pragma unroll 4
	for (int i = 0; i < N; i++) {
		const uint32_t r = thread / PER_ROW + i * (SM90_GROUP / PER_ROW), low = c % 4 * 2 + turned;
		const uint4 v = ((const uint4 *)raw)[thread + i * SM90_GROUP];
		uint4 *const tile = (uint4 *)half;

		tile[gpu_tile_at(r, low, 8)] = hopper_widen(turned ? v.z : v.x, turned ? v.w : v.y);
		tile[gpu_tile_at(r, low ^ 1, 8)] = hopper_widen(turned ? v.x : v.z, turned ? v.y : v.w);
	}
}

/* A warpgroup. */
template <int HD, int KIND> GPU_FN void hopper_convert(const hopper_memory<HD, KIND> &m)
{
	hopper_signals *const s = m.signals();
	const bool first_lane = (threadIdx.x & 31) == 0;

	for (uint32_t n = 0, at = 0;; n++) {
		const uint32_t slot = n & 1;
		uint32_t first_tile = 0, n_tiles;

		sm90_bar_wait(&s->item_full[slot], hopper_parity(n));
		n_tiles = s->items[slot].n_tiles;
		if (KIND & HOPPER_WINDOW)
			first_tile = s->first_tile[slot];
		gpu_sync_wave();
		if (first_lane)
			sm90_bar_arrive(&s->item_empty[slot]);
		if (n_tiles == 0)
			return;
		for (uint32_t t = first_tile; t < n_tiles; t++, at++) {
			const uint32_t stage = at & 1;

#pragma unroll
			for (uint32_t which = 0; which < 2; which++) {
				sm90_bar_wait(&s->raw_full[which], at & 1);
				sm90_bar_wait(which ? &s->v_empty[stage] : &s->k_empty[stage], hopper_parity(at) ^ 1);
				hopper_convert_tile<HD, KIND>(which ? m.v(stage) : m.k(stage), m.raw(which));
				sm90_publish();
				gpu_sync_wave();
				if (first_lane) {
					sm90_bar_arrive(&s->raw_empty[which]);
					sm90_bar_arrive(which ? &s->v_full[stage] : &s->k_full[stage]);
				}
			}
		}
	}
}

#endif
#endif
