/* Attention of prompts on Hopper: who computes. A warpgroup has 64 rows of an item: it issues the next tile's scores
 * and this tile's sums together and makes weights while they run. */
#ifndef GPU_HOPPER_COMPUTE_H
#define GPU_HOPPER_COMPUTE_H

#include "gpu/hopper_bring.h"

#if SM90_CODE

/* d = the queries of a warpgroup times a tile's keys. */
template <int HD, int KIND, int N> GPU_FN void hopper_scores(float (&d)[N], const uint8_t *q, const uint8_t *k)
{
	typedef hopper_shape<HD, KIND> shape;
	const sm90_desc dq = sm90_desc_of(q, 16, 8 * SM90_TILE_ROW), dk = sm90_desc_of(k, 16, 8 * SM90_TILE_ROW);

	sm90_product<false, shape::EIGHT>(d, dq, dk);
#pragma unroll
	for (int i = 1; i < HD / 16; i++)
		sm90_product<true, shape::EIGHT>(d, sm90_desc_add(dq, i / 4 * shape::Q_HALF + i % 4 * 32),
		                                 sm90_desc_add(dk, i / 4 * shape::KV_HALF + i % 4 * 32));
}

/* d += weights times a tile's values. */
template <int HD, int KIND, int N> GPU_FN void hopper_sums(float (&d)[HD / 2], const uint32_t (&p)[N], const uint8_t *v)
{
	typedef hopper_shape<HD, KIND> shape;
	const sm90_desc dv = sm90_desc_of(v, shape::KV_HALF, 8 * SM90_TILE_ROW);

#pragma unroll
	for (int i = 0; i < shape::KEYS / 16; i++) {
		const sm90_desc rows = sm90_desc_add(dv, i * 16 * SM90_TILE_ROW);

		if constexpr (HD <= 128) {
			sm90_product_across<shape::EIGHT>(d, p + 4 * i, rows);
		} else { /* an instruction for all would need more registers than a thread begins with */
			sm90_product_across<shape::EIGHT>((float(&)[64])d[0], p + 4 * i, rows);
			sm90_product_across<shape::EIGHT>((float(&)[64])d[64], p + 4 * i,
			                                  sm90_desc_add(rows, 2 * shape::KV_HALF));
		}
	}
}

/* The state of a thread's two rows. */
struct hopper_rows {
	uint32_t pos[2]; /* the last key that each sees */
	float top[2];    /* greatest score so far, in log2 */
	float mass[2];   /* this thread's share of the sum of weights */
	float shrink[2]; /* what earlier sums are multiplied by, since `top` grew */
};

/* What a row must not see. window: so many of its last keys are seen; 0: all. */
template <bool WINDOW, int N>
GPU_FN void hopper_mask(float (&s)[N], const hopper_rows &r, uint32_t token, uint32_t window)
{
#pragma unroll
	for (int i = 0; i < N; i++) {
		const uint32_t key = token + i / 4 * 8 + (threadIdx.x & 3) * 2 + i % 2;

		if (key > r.pos[i / 2 % 2] || (WINDOW && key + window <= r.pos[i / 2 % 2]))
			s[i] = -INFINITY;
	}
}

/* Scores times `in` become log2 of what they weigh when capped: cap * tanh(y) with y = in / 2 * log(2) times them, and
 * `out` is cap in log2. An exponential and an inverse each: tanh's own instruction has 11 bits only, and a cap of 50
 * would make a score wrong by 0.02. */
template <int N> GPU_FN void hopper_cap(float (&s)[N], float in, float out)
{
#pragma unroll
	for (int i = 0; i < N; i++)
		s[i] = out - 2.0f * out * gpu_inverse(1.0f + attn_exp2(s[i] * in));
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

/* Scores become weights. The first tile has a key that each row sees, so that `top` is finite from then on; with a
 * WINDOW it may have none for the last rows, whose sums are zero until then. */
template <bool WINDOW, int N> GPU_FN void hopper_weights(float (&s)[N], hopper_rows &r, float to_log2)
{
	float best[4], sum[4], base[2];

#pragma unroll
	for (int i = 0; i < 4; i++) {
		best[i] = s[i];
		sum[i] = 0.0f;
	}
#pragma unroll
	for (int i = 4; i < N; i++)
		best[i % 4] = fmaxf(best[i % 4], s[i]);
#pragma unroll
	for (int h = 0; h < 2; h++) {
		const float fresh = fmaxf(r.top[h], hopper_row_max(fmaxf(best[2 * h], best[2 * h + 1])) * to_log2);

		base[h] = WINDOW && fresh == -INFINITY ? 0.0f : fresh;
		r.shrink[h] = attn_exp2(r.top[h] - base[h]);
		r.top[h] = fresh;
	}
#pragma unroll
	for (int i = 0; i < N; i++) {
		s[i] = attn_exp2(s[i] * to_log2 - base[i / 2 % 2]);
		sum[i % 4] += s[i];
	}
#pragma unroll
	for (int h = 0; h < 2; h++)
		r.mass[h] = r.mass[h] * r.shrink[h] + (sum[2 * h] + sum[2 * h + 1]);
}

template <bool HALF, int N> GPU_FN void hopper_pack(uint32_t (&p)[N / 2], const float (&s)[N])
{
#pragma unroll
	for (int i = 0; i < N / 2; i++)
		p[i] = HALF ? hopper_pack_half(s[2 * i], s[2 * i + 1]) : gpu_pack_bf16(s[2 * i], s[2 * i + 1]);
}

/* Values of tokens that the sequence does not have yet may be anything, and no weight of zero makes a number of what
 * is none. By one warpgroup; the other one writes the same zeros. */
template <int HD, int KIND> GPU_FN void hopper_clear(uint8_t *v, uint32_t first, uint32_t group)
{
	typedef hopper_shape<HD, KIND> shape;
	enum { CHUNKS = shape::CHUNKS };

	for (uint32_t i = first * CHUNKS + threadIdx.x % SM90_GROUP; i < shape::KEYS * CHUNKS; i += SM90_GROUP) {
		const uint32_t c = i % CHUNKS;

		((uint4 *)(v + c / 8 * shape::KV_HALF))[gpu_tile_at(i / CHUNKS, c % 8, 8)] = make_uint4(0, 0, 0, 0);
	}
	sm90_publish();
	sm90_named_sync(HOPPER_ALONE + group, SM90_GROUP);
}

/* A warp's 16 rows; through the rows' queries, which nobody needs any more, so that they leave in whole pieces. */
template <int HD>
GPU_FN void hopper_put(const hopper_args &args, const hopper_item &it, const float (&o)[HD / 2],
                       const hopper_rows &rows, uint8_t *q, uint32_t group)
{
	enum { CHUNKS = HD / 8, Q_HALF = SM90_GROUP / 2 * SM90_TILE_ROW };
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
template <int HD, int KIND> GPU_FN void hopper_compute(const hopper_args &args, const hopper_memory<HD, KIND> &m)
{
	typedef hopper_shape<HD, KIND> shape;
	enum { KEYS = shape::KEYS };
	constexpr bool WINDOW = shape::WINDOW, HALF = shape::EIGHT;
	const attn_args &a = args.a;
	hopper_signals *const sig = m.signals();
	const uint32_t group = threadIdx.x / SM90_GROUP, lane = threadIdx.x & 31;
	float s[KEYS / 2], o[HD / 2];
	uint32_t p[KEYS / 4];

#pragma unroll
	for (int i = 0; i < KEYS / 2; i++)
		s[i] = 0.0f;
	if (group == 1)
		sm90_named_arrive(HOPPER_TURN, HOPPER_COMPUTE);
	for (uint32_t n = 0, at = 0;; n++) {
		const uint32_t slot = n & 1, parity = hopper_parity(n);

		sm90_bar_wait(&sig->item_full[slot], parity);

		const hopper_item it = sig->items[slot];
		const uint32_t first_tile = WINDOW ? sig->first_tile[slot] : 0;

		gpu_sync_wave();
		if (lane == 0)
			sm90_bar_arrive(&sig->item_empty[slot]);
		if (it.n_tiles == 0)
			break;

		const uint32_t row0 = it.row0 + group * 64, row = row0 + threadIdx.x % SM90_GROUP / 32 * 16 + lane / 4;
		const uint32_t newest = it.kv_len - 1;
		const float scale = gpu_float(LOG2E_BITS) * a.scale * attn_k_scale(a, it.kv_head);
		const float to_log2 = shape::CAP ? 1.0f : scale;
		const float cap_in = shape::CAP ? 2.0f * scale / a.softcap : 0.0f,
		            cap_out = shape::CAP ? gpu_float(LOG2E_BITS) * a.softcap : 0.0f;
		uint8_t *const q = m.q(n, group);
		/* Keys up to here are seen by all rows of the warpgroup; those behind the item's last see the last key.
		 */
		const uint32_t all = it.pos + row0 / a.group < newest ? it.pos + row0 / a.group : newest;
		/* Of those before it the warpgroup's last row sees some only. */
		uint32_t window = 0, seen = 0;
		hopper_rows r;

		if (WINDOW) {
			const uint32_t last = it.pos + (row0 + SM90_GROUP / 2 - 1) / a.group,
			               end = (last < newest ? last : newest) + 1;

			window = a.window ? a.window : 1u << 30;
			seen = end > window ? end - window : 0;
		}
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

		sm90_bar_wait(&sig->q_full[m.q_slot(n)], m.q_parity(n));
		sm90_bar_wait(&sig->k_full[at & 1], hopper_parity(at));
		sm90_pin(s);
		sm90_products_begin();
		hopper_scores<HD, KIND>(s, q, m.k(at & 1));
		sm90_products_end();
		sm90_products_wait<0>();
		sm90_pin(s);
		if (lane == 0)
			sm90_bar_arrive(&sig->k_empty[at & 1]);
		if (shape::CAP)
			hopper_cap(s, cap_in, cap_out);
		if ((first_tile + 1) * KEYS > all + 1 || first_tile * KEYS < seen)
			hopper_mask<WINDOW>(s, r, first_tile * KEYS, window);
		hopper_weights<WINDOW>(s, r, to_log2);
		hopper_pack<HALF>(p, s);

		for (uint32_t t = first_tile + 1; t < it.n_tiles; t++, at++) {
			const uint32_t stage = (at + 1) & 1;

			sm90_bar_wait(&sig->v_full[at & 1], hopper_parity(at));
			sm90_bar_wait(&sig->k_full[stage], hopper_parity(at + 1));
			sm90_named_sync(HOPPER_TURN + group, HOPPER_COMPUTE);
			sm90_pin(s);
			sm90_pin(o);
			sm90_pin(p);
			sm90_products_begin();
			hopper_scores<HD, KIND>(s, q, m.k(stage));
			sm90_products_end();
			hopper_sums<HD, KIND>(o, p, m.v(at & 1));
			sm90_products_end();
			sm90_named_arrive(HOPPER_TURN + 1 - group, HOPPER_COMPUTE);
			sm90_products_wait<1>();
			sm90_pin(s);
			if (lane == 0)
				sm90_bar_arrive(&sig->k_empty[stage]);
			if (shape::CAP)
				hopper_cap(s, cap_in, cap_out);
			if ((t + 1) * KEYS > all + 1 || t * KEYS < seen)
				hopper_mask<WINDOW>(s, r, t * KEYS, window);
			hopper_weights<WINDOW>(s, r, to_log2);
			sm90_products_wait<0>();
			sm90_pin(o);
			sm90_pin(p);
			if (lane == 0)
				sm90_bar_arrive(&sig->v_empty[at & 1]);
#pragma unroll
			for (int i = 0; i < HD / 2; i++)
				o[i] *= r.shrink[i / 2 % 2];
			hopper_pack<HALF>(p, s);
		}

		sm90_bar_wait(&sig->v_full[at & 1], hopper_parity(at));
		if (it.n_tiles * KEYS > it.kv_len)
			hopper_clear<HD, KIND>(m.v(at & 1), it.kv_len - (it.n_tiles - 1) * KEYS, group);
		sm90_pin(o);
		sm90_pin(p);
		sm90_products_begin();
		hopper_sums<HD, KIND>(o, p, m.v(at & 1));
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
			sm90_bar_arrive(&sig->q_empty[m.q_slot(n)]);
	}
	if (group == 0) /* as often as it was arrived at */
		sm90_named_sync(HOPPER_TURN, HOPPER_COMPUTE);
}
#endif
#endif
