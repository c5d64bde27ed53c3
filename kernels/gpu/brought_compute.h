/* Attention of few rows on Hopper: the waves that compute. Weights are made as in attention_few.cu, which stays as it
 * was timed. */
#ifndef GPU_BROUGHT_COMPUTE_H
#define GPU_BROUGHT_COMPUTE_H

#include "gpu/brought_attention.h"

#if SM90_CODE

/* Four floats that another multiprocessor wrote. */
GPU_FN float4 brought_load4(const float *p)
{
#if GPU_PTX
	float4 v;

	asm volatile("ld.global.cg.v4.f32 {%0,%1,%2,%3}, [%4];"
	             : "=f"(v.x), "=f"(v.y), "=f"(v.z), "=f"(v.w)
	             : "l"(p)
	             : "memory");
	return v;
#else
	return *(const float4 *)p;
#endif
}

/* Two likewise. */
GPU_FN float2 brought_load2(const float *p)
{
#if GPU_PTX
	float2 v;

	asm volatile("ld.global.cg.v2.f32 {%0,%1}, [%2];" : "=f"(v.x), "=f"(v.y) : "l"(p) : "memory");
	return v;
#else
	return *(const float2 *)p;
#endif
}

/* The parts of n_rows rows from row0 on, in their order, by all that compute: a thread has four columns of a row. */
template <int HD> GPU_FN void brought_merge(const attn_args &a, const gk_merge &m, const attn_span &it, uint32_t n_rows)
{
	const uint32_t line = attn_part_floats(a);
	const size_t step = (size_t)m.n_q * a.n_head * line;

	for (uint32_t i = threadIdx.x; i < n_rows * (HD / 4); i += BROUGHT_WAVES * GPU_WAVE) {
		const uint32_t r = it.row0 + i / (HD / 4), col = i % (HD / 4) * 4, token = r / a.group,
		               head = it.kv_head * a.group + r % a.group;
		const float *const from = a.parts + ((size_t)(m.part + token) * a.n_head + head) * line;
		float4 sum = make_float4(0.0f, 0.0f, 0.0f, 0.0f);
		float best = -INFINITY, total = 0.0f, last;

		for (uint32_t p0 = 0; p0 < m.n_parts; p0 += BROUGHT_AT_ONCE) {
			float4 v[BROUGHT_AT_ONCE];
			float2 t[BROUGHT_AT_ONCE];
			float fresh = best, base, shrink;

#pragma unroll
			for (int p = 0; p < BROUGHT_AT_ONCE; p++) {
				v[p] = make_float4(0.0f, 0.0f, 0.0f, 0.0f);
				t[p] = make_float2(-INFINITY, 0.0f);
				if (p0 + p < m.n_parts) {
					v[p] = brought_load4(from + (p0 + p) * step + col);
					t[p] = brought_load2(from + (p0 + p) * step + HD);
				}
			}
#pragma unroll
			for (int p = 0; p < BROUGHT_AT_ONCE; p++)
				fresh = fmaxf(fresh, t[p].x);
			base = fresh == -INFINITY ? 0.0f : fresh;
			shrink = attn_exp2(best - base);
			best = fresh;
			total *= shrink;
			sum.x *= shrink;
			sum.y *= shrink;
			sum.z *= shrink;
			sum.w *= shrink;
#pragma unroll
			for (int p = 0; p < BROUGHT_AT_ONCE; p++) {
				const float w = attn_exp2(t[p].x - base);

				total += t[p].y * w;
				sum.x += v[p].x * w;
				sum.y += v[p].y * w;
				sum.z += v[p].z * w;
				sum.w += v[p].w * w;
			}
		}
		last = attn_final_scale(a, head, best, total);

		const size_t row = it.seq.row + it.work.q + token, at = (size_t)head * HD + col;

		gk_put(a.out, row, at, sum.x * last);
		gk_put(a.out, row, at + 1, sum.y * last);
		gk_put(a.out, row, at + 2, sum.z * last);
		gk_put(a.out, row, at + 3, sum.w * last);
	}
}

/* What a wave has of its rows. */
template <int HD> struct brought_rows {
	gpu_acc acc[HD / 16];
	float top[GPU_ACC_ROWS], mass[GPU_ACC_ROWS];
	uint32_t pos[GPU_ACC_ROWS];
};

/* Scores of a tile become weights, an operand; the rows' state and sums go along. exchange: as for gpu_acc_frag(). */
template <bool WIDENED, int HD>
GPU_FN gpu_frag brought_weights(const attn_args &a, const attn_span &it, gpu_acc (&s)[2], brought_rows<HD> &rows,
                                uint32_t token, float scale, float to_log2, gpu_bf16 *exchange)
{
	/* Whether every row sees all keys of it. */
	const bool all = token + BROUGHT_TILE <= it.first_pos + 1 && token + BROUGHT_TILE <= it.end &&
	                 (a.window == 0 || token + a.window > it.last_pos);

	if (a.softcap > 0.0f) {
#pragma unroll
		for (int n = 0; n < 2; n++) {
#pragma unroll
			for (int k = 0; k < GPU_ACC; k++)
				s[n].v[k] = attn_softcap(a.softcap, s[n].v[k] * scale);
		}
	}
	if (!all) {
#pragma unroll
		for (int n = 0; n < 2; n++) {
#pragma unroll
			for (int k = 0; k < GPU_ACC; k++) {
				const uint32_t key = token + 16 * n + gpu_acc_col(k), p = rows.pos[gpu_acc_slot(k)];

				if (key > p || key >= it.end || (a.window && key + a.window <= p))
					s[n].v[k] = -INFINITY;
			}
		}
	}

	float fresh[GPU_ACC_ROWS], shrink[GPU_ACC_ROWS];

#pragma unroll
	for (int r = 0; r < GPU_ACC_ROWS; r++)
		fresh[r] = -INFINITY;
#pragma unroll
	for (int n = 0; n < 2; n++) {
#pragma unroll
		for (int k = 0; k < GPU_ACC; k++)
			fresh[gpu_acc_slot(k)] = fmaxf(fresh[gpu_acc_slot(k)], s[n].v[k]);
	}
#pragma unroll
	for (int r = 0; r < GPU_ACC_ROWS; r++) {
		fresh[r] = fmaxf(rows.top[r], gpu_row_max(fresh[r]) * to_log2);
		shrink[r] = fresh[r] == -INFINITY ? 1.0f : attn_exp2(rows.top[r] - fresh[r]);
		rows.top[r] = fresh[r];
		rows.mass[r] *= shrink[r];
		if (fresh[r] == -INFINITY)
			fresh[r] = 0.0f; /* nothing seen yet: every weight becomes 0 */
	}
#pragma unroll
	for (int n = 0; n < 2; n++) {
#pragma unroll
		for (int k = 0; k < GPU_ACC; k++) {
			const float p = attn_exp2(s[n].v[k] * to_log2 - fresh[gpu_acc_slot(k)]);

			s[n].v[k] = p;
			rows.mass[gpu_acc_slot(k)] += p;
		}
	}
#pragma unroll
	for (int d = 0; d < HD / 16; d++) {
#pragma unroll
		for (int k = 0; k < GPU_ACC; k++)
			rows.acc[d].v[k] *= shrink[gpu_acc_slot(k)];
	}

	return gpu_acc_frag<WIDENED>(s[0], s[1], exchange);
}

/* The waves' results of an item, merged in their order, to rows or to a part of them. */
template <int HD, int BYTES>
GPU_FN void brought_put(const attn_args &a, const brought_memory<HD, BYTES> &m, const attn_span &it,
                        const brought_rows<HD> &rows, uint32_t n_rows)
{
	enum { THREADS = BROUGHT_WAVES * GPU_WAVE };
	const float v_scale = attn_v_scale(a, it.kv_head);
	const uint32_t wave = threadIdx.x / GPU_WAVE;
	float mass[GPU_ACC_ROWS];

#pragma unroll
	for (int r = 0; r < GPU_ACC_ROWS; r++)
		mass[r] = gpu_row_sum(rows.mass[r]);
	for (uint32_t r0 = 0; r0 < n_rows; r0 += BROUGHT_PASS) {
		const uint32_t n = n_rows - r0 < BROUGHT_PASS ? n_rows - r0 : (uint32_t)BROUGHT_PASS;

#pragma unroll
		for (int k = 0; k < GPU_ACC; k++) {
			const uint32_t r = gpu_acc_row(k) - r0, col = gpu_acc_col(k);
			float *const sums = m.sums(wave, r);

			if (r >= n)
				continue;
#pragma unroll
			for (int d = 0; d < HD / 16; d++)
				sums[d * 16 + (BYTES == 1 ? gpu_turned_col(col) : col)] = rows.acc[d].v[k];
			sums[HD] = rows.top[gpu_acc_slot(k)];
			sums[HD + 1] = mass[gpu_acc_slot(k)];
		}
		sm90_named_sync(BROUGHT_TOGETHER, THREADS);
		for (uint32_t i = threadIdx.x; i < n * HD; i += THREADS) {
			const uint32_t r = i / HD, col = i % HD;
			const attn_row row = attn_row_at(a, it.seq, it.work, it.kv_head, it.row0 + r0 + r);
			float best = -INFINITY, sum = 0.0f, total = 0.0f;

#pragma unroll
			for (int w = 0; w < BROUGHT_WAVES; w++)
				best = fmaxf(best, m.sums(w, r)[HD]);
#pragma unroll
			for (int w = 0; w < BROUGHT_WAVES; w++) {
				const float *const from = m.sums(w, r);
				const float f = from[HD] == -INFINITY ? 0.0f : attn_exp2(from[HD] - best);

				sum += from[col] * f;
				total += from[HD + 1] * f;
			}
			sum *= v_scale;
			if (it.work.part == GK_WHOLE) {
				gk_put(a.out, it.seq.row + it.work.q + row.token, (size_t)row.head * HD + col,
				       sum * attn_final_scale(a, row.head, best, total));
			} else {
				float *const part =
				        a.parts + ((size_t)(it.work.part + row.token) * a.n_head + row.head) *
				                          attn_part_floats(a);

				part[col] = sum;
				if (col == 0) {
					part[HD] = best;
					part[HD + 1] = total;
				}
			}
		}
		sm90_named_sync(BROUGHT_TOGETHER, THREADS);
	}
}

/* Whether this block wrote the last part of the item's rows. */
GPU_FN bool brought_is_last(const attn_args &a, brought_signals *s, const attn_span &it, uint32_t n_parts)
{
	uint32_t *const counter =
	        a.counters + (it.work.merge * a.kv.n_kv_head + it.kv_head) * a.row_blocks + blockIdx.x % a.row_blocks;
	bool last;

	if (threadIdx.x == 0) {
		__threadfence();
		s->n_before = atomicAdd(counter, 1u);
		__threadfence();
		if (s->n_before + 1 == n_parts)
			*counter = 0;
	}
	sm90_named_sync(BROUGHT_TOGETHER, BROUGHT_WAVES * GPU_WAVE);
	last = s->n_before + 1 == n_parts;
	sm90_named_sync(BROUGHT_TOGETHER, BROUGHT_WAVES * GPU_WAVE);
	return last;
}

template <int HD, int BYTES> GPU_FN void brought_compute(const brought_args &args, const brought_memory<HD, BYTES> &m)
{
	typedef brought_sizes<HD, BYTES> size;
	enum { THREADS = BROUGHT_WAVES * GPU_WAVE, QC = HD / 8 };
	constexpr bool WIDENED = BYTES == 1;
	const attn_args &a = args.a;
	brought_signals *const s = m.signals();
	const uint32_t wave = threadIdx.x / GPU_WAVE;
	const bool first_lane = threadIdx.x % GPU_WAVE == 0;
	const float to_score = a.scale * attn_k_scale(a, brought_where(a).kv_head);
	const float to_log2 = gpu_float(LOG2E_BITS) * (a.softcap > 0.0f ? 1.0f : to_score);
	bool waited = false;

	for (uint32_t n = 0, before = 0;; n++) {
		const uint32_t slot = n % BROUGHT_ITEMS;
		/* Left where it is: what of it a loop needs is read there, which costs less than registers. */
		const attn_span &it = s->items[slot];

		sm90_bar_wait(&s->item_full[slot], n / BROUGHT_ITEMS & 1);

		const uint32_t n_rows = it.n_rows - it.row0 < FEW_ROWS ? it.n_rows - it.row0 : (uint32_t)FEW_ROWS;
		const uint32_t begin = it.begin / BROUGHT_TILE, end = (it.end + BROUGHT_TILE - 1) / BROUGHT_TILE;
		uint4 *const tile_q = m.queries();
		gpu_frag q[WIDENED ? 1 : HD / 32]; /* widened keys leave no registers for it */
		brought_rows<HD> rows;

		if (!waited) {
			gpu_dependency_wait();
			waited = true;
		}
		if (it.n_rows == 0)
			break;
		for (uint32_t i = threadIdx.x; i < FEW_ROWS * QC; i += THREADS)
			tile_q[gpu_tile_at(i / QC, i % QC, QC)] = attn_query<WIDENED>(
			        a, it.seq, it.work, attn_row_at(a, it.seq, it.work, it.kv_head, it.row0 + i / QC),
			        i % QC);
		sm90_named_sync(BROUGHT_TOGETHER, THREADS);
#pragma unroll
		for (int c = 0; !WIDENED && c < HD / 32; c++)
			q[WIDENED ? 0 : c] = gpu_tile_frag(tile_q, 0, 4 * c, QC);
#pragma unroll
		for (int d = 0; d < HD / 16; d++)
			rows.acc[d] = gpu_acc_zero();
#pragma unroll
		for (int r = 0; r < GPU_ACC_ROWS; r++) {
			rows.top[r] = -INFINITY;
			rows.mass[r] = 0.0f;
			rows.pos[r] = attn_row_at(a, it.seq, it.work, it.kv_head, it.row0 + gpu_slot_row(r)).pos;
		}

		/* A tile belongs to the same wave wherever an item begins. */
#pragma unroll 1
		for (uint32_t t = begin + (wave + BROUGHT_WAVES - begin % BROUGHT_WAVES) % BROUGHT_WAVES; t < end;
		     t += BROUGHT_WAVES) {
			const uint32_t use = before + t - begin, stage = use % size::STAGES, token = t * BROUGHT_TILE;
			const uint4 *const tile_k = (const uint4 *)m.stage(stage);
			uint4 *const tile_v = (uint4 *)(m.stage(stage) + size::TILE);
			enum { HALF = size::HALF / 16 /* chunks */ };
			gpu_acc sc[2];

			sm90_bar_wait(&s->full[stage], use / size::STAGES & 1);
			sc[0] = sc[1] = gpu_acc_zero();
#pragma unroll
			for (int c = 0; c < HD / 32; c++) {
				const gpu_frag f =
				        WIDENED ? gpu_tile_frag_wide(tile_q, 0, 32 * c, QC) : q[WIDENED ? 0 : c];

#pragma unroll
				for (int h = 0; h < 2; h++)
					gpu_mma<false, WIDENED>(
					        sc[h], f,
					        WIDENED ? gpu_tile8_frag(tile_k + c / 4 * HALF, 16 * h, 32 * (c % 4), 8)
					                : gpu_tile_frag(tile_k + c / 2 * HALF, 16 * h, 4 * (c % 2), 8));
			}
			/* What is behind the last key may be anything, and no weight of zero makes a number of what is
			 * none. */
			if (token + BROUGHT_TILE > it.end) {
				const uint32_t there = it.end - token, lane = threadIdx.x % GPU_WAVE;

				for (uint32_t i = there * 8 + lane; i < BROUGHT_TILE * 8; i += GPU_WAVE) {
#pragma unroll
					for (int h = 0; h < size::HALVES; h++)
						tile_v[h * HALF + i] = make_uint4(0, 0, 0, 0);
				}
				sm90_publish();
				gpu_sync_wave();
			}

			const gpu_frag p =
			        brought_weights<WIDENED>(a, it, sc, rows, token, to_score, to_log2, m.exchange(wave));

#pragma unroll
			for (int d = 0; d < HD / 16; d++)
				gpu_mma<false, WIDENED>(
				        rows.acc[d], p,
				        WIDENED ? gpu_tile8_frag_t(tile_v + d / 8 * HALF, 0, 16 * (d % 8), 8)
				                : gpu_tile_frag_t(tile_v + d / 4 * HALF, 0, 16 * (d % 4), 8));
			gpu_sync_wave();
			if (first_lane)
				sm90_bar_arrive(&s->empty[stage]);
		}
		before += end - begin;
		brought_put<HD, BYTES>(a, m, it, rows, n_rows);
		if (it.work.part != GK_WHOLE) {
			const gk_merge merge = a.batch.merge[it.work.merge];

			if (brought_is_last(a, s, it, merge.n_parts))
				brought_merge<HD>(a, merge, it, n_rows);
		}
		gpu_sync_wave();
		if (first_lane)
			sm90_bar_arrive(&s->item_empty[slot]);
	}
}
#endif

#endif
