/* Attention of few rows (decode, drafts): at most 16 rows of a K/V head, where reading keys and values is all that
 * counts. A block takes one share of the plan for one K/V head; each of its waves takes every WAVES-th tile of 32 keys
 * and walks alone, with a ring of RING tiles of its own that are under way (keys and values in turn, so that 32 keys
 * need half the room): no barrier but at the ends of items, where the waves' results are merged. A tile belongs to
 * the same wave wherever an item begins, so a row's sums have one order.
 *
 * Of a row whose keys are cut into parts, the block that writes the last part merges them, in their order. */
#include "gpu/attention_few.h"

enum { FEW_TILE = 32, NO_LINE = UINT32_MAX };

/* ---- Copies ---------------------------------------------------------------------------------------------------- */

/* How keys and values come to shared memory: converted; as they are, each token from where it lies; as they are, all
 * tokens of a tile from one place (a page holds whole tiles, and vectors are as long as the kernel's). */
enum few_way { CONVERTED, BY_TOKEN, BY_TILE };

/* Keys or values of 32 tokens as chunks of 16 bytes, by one wave. line: place in the pool, in vectors, of token
 * threadIdx.x % 32, NO_LINE: zeros; or of the first of them (BY_TILE), of which n_there are there. */
template <int CHUNKS, int BYTES, few_way WAY>
GPU_FN void attn_copy_lines(uint4 *tile, const attn_args &a, const void *pool, uint32_t dim, uint32_t line,
                            uint32_t n_there)
{
	enum { PER = 16 / BYTES, N = FEW_TILE * CHUNKS / GPU_WAVE, AT_ONCE = WAY == CONVERTED ? ATTN_CONVERTED_AT_ONCE(N) : GPU_MMA_WMMA && N > 8 ? 8 : N };
	const uint32_t lane = (uint32_t)gpu_lane();
	const uint8_t *const first = (const uint8_t *)pool + (WAY == BY_TILE ? ((size_t)line * CHUNKS + lane) * 16 : 0);

#pragma unroll AT_ONCE
	for (int n = 0; n < N; n++) {
		const uint32_t i = lane + n * GPU_WAVE, r = i / CHUNKS, c = i % CHUNKS;
		uint4 *const to = tile + gpu_tile_at(r, c, CHUNKS);

		if (WAY == BY_TILE) {
			gpu_copy16(to, first + n * GPU_WAVE * 16, r < n_there ? 16 : 0);
		} else {
			const uint32_t from = gpu_shfl(line, (int)r);
			const bool there = from != NO_LINE && c * PER < dim;
			const size_t at = there ? (size_t)from * dim + c * PER : 0;

			if (WAY == BY_TOKEN)
				gpu_copy16(to, (const uint8_t *)pool + at * BYTES, there ? 16 : 0);
			else
				*to = attn_to_bf16(a, pool, at, there ? dim - c * PER : 0);
		}
	}
}

/* ---- The kernel -------------------------------------------------------------------------------------------------- */

/* Bytes of shared memory: queries, the waves' rings, room for exchanges where lanes need it. At the end of an item a
 * wave's ring takes its sums. */
template <int KD, int VD, int WAVES, int RING, int BYTES, bool STREAM> struct few_sizes {
	enum {
		PER = 16 / BYTES,
		KC = KD / PER,
		VC = VD / PER,
		QC = KD / 8,
		ENTRY = FEW_TILE * (KC > VC ? KC : VC),
		LINE = VD + 1,
		ROWS = STREAM ? 8 : (int)FEW_ROWS,
		SUMS = (ROWS * (LINE + 2) + 3) / 4, /* in 16 bytes */
		RING_CHUNKS = RING * ENTRY > SUMS || STREAM ? RING * ENTRY : SUMS,
#if defined(GPU_CUDA)
		EXCHANGE = 0,
#else
		EXCHANGE = 64,
#endif
		FRONT = STREAM && WAVES * SUMS > FEW_ROWS * QC ? WAVES * SUMS : FEW_ROWS * QC, /* queries; then sums */
		TOTAL = FRONT + WAVES * (RING_CHUNKS + EXCHANGE),
	};
	static_assert(KC % 8 == 0 && VC % 8 == 0, "rows of whole swizzles");
};

/* BYTES of a key's value in shared memory: 2, bfloat16, or 1, e4m3. BLOCKS on a
 * multiprocessor. The loop over tiles must stay small: its code comes from a cache that holds little more. */
template <int KD, int VD, int WAVES, int RING, int BYTES, few_way WAY, int BLOCKS, bool STREAM>
static __global__ void __launch_bounds__(WAVES *GPU_WAVE, BLOCKS) attn_few_kernel(GPU_PARAM attn_args a)
{
	typedef few_sizes<KD, VD, WAVES, RING, BYTES, STREAM> size;
	enum {
		KC = size::KC,
		VC = size::VC,
		QC = size::QC,
		LINE = size::LINE,
		Q_STAYS = KD * GPU_PIECES <= 256, /* in registers */
		THREADS = WAVES * GPU_WAVE,
		ROWS = size::ROWS,
		TURNS = FEW_ROWS / ROWS,
		ACC = STREAM ? (int)GPU_TURNED_ACC : (int)GPU_ACC,
		SLOTS = STREAM ? (int)GPU_TURNED_SLOTS : (int)GPU_ACC_ROWS,
	};
	constexpr bool WIDENED = BYTES == 1;
	GPU_DYN_SHARED(uint4, shared);
	__shared__ uint32_t n_before;
	const uint32_t wave = threadIdx.x / GPU_WAVE;
	uint4 *const tile_q = shared, *const rings = shared + size::FRONT, *const ring = rings + wave * size::RING_CHUNKS;
	gpu_bf16 *const exchange = (gpu_bf16 *)(rings + WAVES * size::RING_CHUNKS + wave * size::EXCHANGE);
	const uint32_t block_row0 = blockIdx.x % a.row_blocks * FEW_ROWS, kv_head = blockIdx.x / a.row_blocks % a.kv.n_kv_head;
	const uint32_t share = blockIdx.x / a.row_blocks / a.kv.n_kv_head, n_shares = a.batch.counts[GK_N_SHARES];

	gpu_dependents_may_start();
	if (share >= n_shares) { /* the kernel ends after the one before it all the same: the first block waits */
		if (blockIdx.x == 0)
			gpu_dependency_wait();
		return;
	}

	/* Tables of the step and keys of steps before are there already: the ring fills while the kernel before ends. */
	const uint32_t last = share + 1 < n_shares ? a.work[share + 1].first : a.batch.counts[GK_N_FEW];
	const float scale = a.scale * attn_k_scale(a, kv_head), v_scale = attn_v_scale(a, kv_head);
	const float to_log2 = gpu_float(LOG2E_BITS) * (a.softcap > 0.0f ? 1.0f : scale);
	bool waited = !a.early;

	if (waited)
		gpu_dependency_wait();

	/* What is asked for next: tiles of this wave, of one item after the other (STREAM), or of one only. Of this lane,
	 * or of all (BY_TILE). A page number is asked for one tile ahead. */
	struct {
		uint32_t item, until; /* items from there on are still to come */
		uint32_t tile, n_tiles, end, old;
		const uint32_t *pages;
		uint32_t page, line, n_there;
		bool keys; /* were asked for last */
	} ask = {};
	uint32_t into = 0, from = 0;

	const auto token_of = [&](uint32_t tile) {
		return tile * FEW_TILE + (WAY == BY_TILE ? 0 : threadIdx.x & 31);
	};
	const auto page_of = [&](uint32_t tile) {
		const uint32_t t = token_of(tile);

		return t < ask.end ? ask.pages[a.page_shift >= 0 ? t >> a.page_shift : t / a.kv.page_tokens]
		                   : (uint32_t)NO_LINE;
	};
	const auto first_of = [&](uint32_t begin) { /* of this wave */
		const uint32_t tile = begin / FEW_TILE;

		return tile + (wave + WAVES - tile % WAVES) % WAVES;
	};
	const auto tiles_of = [&](uint32_t tile, uint32_t end) {
		const uint32_t end_tile = (end + FEW_TILE - 1) / FEW_TILE;

		return tile < end_tile ? (end_tile - tile + WAVES - 1) / WAVES : 0;
	};
	const auto next_item = [&]() {
		while (ask.n_tiles == 0 && ask.item < ask.until) {
			const uint32_t index = ask.item / TURNS, row0 = block_row0 + ask.item % TURNS * ROWS;
			attn_span it;

			ask.item++;
			if (!attn_span_of(a, a.work[index], kv_head, row0, ROWS, FEW_TILE, &it))
				continue;
			ask.end = it.end;
			ask.old = it.seq.kv_len - it.seq.n_q;
			ask.pages = it.pages;
			ask.tile = first_of(it.begin);
			ask.n_tiles = tiles_of(ask.tile, it.end);
			ask.page = page_of(ask.tile);
		}
	};
	const auto asked = [&]() {
		gpu_copy_commit();
		into = into + 1 < RING ? into + 1 : 0;
	};
	const auto ask_keys = [&]() {
		if (STREAM)
			next_item();
		ask.keys = ask.n_tiles > 0;
		if (ask.keys) {
			const uint32_t t = token_of(ask.tile);
			uint32_t line = a.page_shift >= 0 ? t & ((1u << a.page_shift) - 1) : t % a.kv.page_tokens;

			line = ask.page == NO_LINE ? (uint32_t)NO_LINE
			                           : (ask.page * a.kv.n_kv_head + kv_head) * a.kv.page_tokens + line;
			ask.line = line;
			ask.n_there = ask.end - ask.tile * FEW_TILE;
			ask.page = page_of(ask.tile + WAVES);
			if (!waited && (ask.tile + 1) * FEW_TILE > ask.old) {
				gpu_dependency_wait();
				waited = true;
			}
			ask.tile += WAVES;
			ask.n_tiles--;
			attn_copy_lines<KC, BYTES, WAY>(ring + into * size::ENTRY, a, a.kv.k, a.kv.k_dim, ask.line, ask.n_there);
		}
		asked();
	};
	const auto ask_values = [&]() { /* of the tile whose keys were asked for last */
		if (ask.keys)
			attn_copy_lines<VC, BYTES, WAY>(ring + into * size::ENTRY, a, a.kv.v, a.kv.v_dim, ask.line, ask.n_there);
		asked();
	};
	const auto fill = [&](uint32_t item, uint32_t until) {
		ask.item = item;
		ask.until = until;
		into = from = 0;
		if (!STREAM)
			next_item();
#pragma unroll 1
		for (int n = 0; n < RING - 1; n += 2) {
			ask_keys();
			if (n + 1 < RING - 1)
				ask_values();
		}
		if (!waited) {
			gpu_dependency_wait();
			waited = true;
		}
	};

	if (STREAM)
		fill(a.work[share].first * TURNS, last * TURNS);
	for (uint32_t item = a.work[share].first * TURNS; item < last * TURNS; item++) {
		const uint32_t row0 = block_row0 + item % TURNS * ROWS;
		attn_span it;

		if (!attn_span_of(a, a.work[item / TURNS], kv_head, row0, ROWS, FEW_TILE, &it))
			continue;

		const gk_work &work = it.work;
		const gk_seq &seq = it.seq;
		const uint32_t end = it.end, tile0 = first_of(it.begin), n_tiles = tiles_of(tile0, end);
		const uint32_t n_rows = it.n_rows - row0 < ROWS ? it.n_rows - row0 : (uint32_t)ROWS;

		if (!STREAM)
			fill(item, item + 1);
		attn_put_queries<ROWS, QC, THREADS, WIDENED>(tile_q, a, it);
		__syncthreads();

		const auto query = [&](int c) {
			return WIDENED ? gpu_tile_frag_wide(tile_q, 0, 32 * c, QC) : gpu_tile_frag(tile_q, 0, 4 * c, QC);
		};
		gpu_acc acc[VD / 16];
		gpu_frag q[Q_STAYS ? KD / 32 : 1];
		float top[SLOTS], mass[SLOTS];
		uint32_t pos[SLOTS];

		if (Q_STAYS) {
#pragma unroll
			for (int c = 0; c < (Q_STAYS ? KD / 32 : 1); c++)
				q[c] = query(c);
		}
#pragma unroll
		for (int d = 0; d < VD / 16; d++)
			acc[d] = gpu_acc_zero();
#pragma unroll
		for (int s = 0; s < SLOTS; s++) {
			top[s] = -INFINITY;
			mass[s] = 0.0f;
			pos[s] = attn_row_at(a, seq, work, kv_head, row0 + (STREAM ? gpu_acc_col(s) : gpu_slot_row(s))).pos;
		}
		const auto slot_of = [](int k) { return STREAM ? k % (int)GPU_TURNED_SLOTS : gpu_acc_slot(k); };
		/* The oldest entry of the ring, once it is there; the one used before is free then. */
		const auto next_entry = [&]() {
			const uint4 *entry = ring + from * size::ENTRY;

			gpu_copy_wait<RING - 2>();
			gpu_sync_wave();
			from = from + 1 < RING ? from + 1 : 0;
			return entry;
		};

#pragma unroll 1
		for (uint32_t i = 0; i < n_tiles; i++) {
			const uint32_t token = (tile0 + i * WAVES) * FEW_TILE;
			/* Whether every row sees all keys of the tile. */
			const bool all = token + FEW_TILE <= it.first_pos + 1 && token + FEW_TILE <= end &&
			                 (a.window == 0 || token + a.window > it.last_pos);
			gpu_acc s[2];
			const uint4 *tile = next_entry();

			if (RING % 2)
				ask_keys();
			else
				ask_values();
			s[0] = s[1] = gpu_acc_zero();
#pragma unroll
			for (int c = 0; c < KD / 32; c++) {
				const gpu_frag f = Q_STAYS ? q[Q_STAYS ? c : 0] : query(c);

#pragma unroll
				for (int n = 0; n < 2; n++) {
					const gpu_frag k = WIDENED ? gpu_tile8_frag(tile, 16 * n, 32 * c, KC)
					                           : gpu_tile_frag(tile, 16 * n, 4 * c, KC);

					if (STREAM)
						gpu_mma<true, WIDENED>(s[n], k, f);
					else
						gpu_mma<false, WIDENED>(s[n], f, k);
				}
				gpu_hold();
			}
			if (a.softcap > 0.0f) {
#pragma unroll
				for (int n = 0; n < 2; n++) {
#pragma unroll
					for (int k = 0; k < ACC; k++)
						s[n].v[k] = attn_softcap(a.softcap, s[n].v[k] * scale);
				}
			}
			if (!all) {
#pragma unroll
				for (int n = 0; n < 2; n++) {
#pragma unroll
					for (int k = 0; k < ACC; k++) {
						const uint32_t key = token + 16 * n + (STREAM ? gpu_acc_row(k) : gpu_acc_col(k)),
						               p = pos[slot_of(k)];

						if (key > p || key >= end || (a.window && key + a.window <= p))
							s[n].v[k] = -INFINITY;
					}
				}
			}

			float fresh[SLOTS], shrink[SLOTS];

#pragma unroll
			for (int r = 0; r < SLOTS; r++)
				fresh[r] = -INFINITY;
#pragma unroll
			for (int n = 0; n < 2; n++) {
#pragma unroll
				for (int k = 0; k < ACC; k++)
					fresh[slot_of(k)] = fmaxf(fresh[slot_of(k)], s[n].v[k]);
			}
#pragma unroll
			for (int r = 0; r < SLOTS; r++) {
				fresh[r] = fmaxf(top[r], (STREAM ? gpu_col_max(fresh[r]) : gpu_row_max(fresh[r])) * to_log2);
				shrink[r] = attn_raise_top(&top[r], &mass[r], &fresh[r]);
			}
#pragma unroll
			for (int n = 0; n < 2; n++) {
#pragma unroll
				for (int k = 0; k < ACC; k++) {
					const float p = attn_exp2(s[n].v[k] * to_log2 - fresh[slot_of(k)]);

					s[n].v[k] = p;
					mass[slot_of(k)] += p;
				}
			}
#pragma unroll
			for (int d = 0; d < VD / 16; d++) {
#pragma unroll
				for (int k = 0; k < ACC; k++)
					acc[d].v[k] *= shrink[slot_of(k)];
			}

			const gpu_frag p = STREAM ? gpu_turned_frag<WIDENED>(s[0], s[1], exchange)
			                          : gpu_acc_frag<WIDENED>(s[0], s[1], exchange);


			tile = next_entry();
			if (RING % 2)
				ask_values();
			else
				ask_keys();
#pragma unroll
			for (int d = 0; d < VD / 16; d++) {
				const gpu_frag v = WIDENED ? gpu_tile8_frag_t(tile, 0, 16 * d, VC)
				                           : gpu_tile_frag_t(tile, 0, 16 * d, VC);

				if (STREAM)
					gpu_mma<true, WIDENED>(acc[d], v, p);
				else
					gpu_mma<false, WIDENED>(acc[d], p, v);
				gpu_hold();
			}
		}
		if (STREAM) {
			__syncthreads(); /* every wave has its queries */
		} else {
			gpu_copy_wait<0>();
			gpu_sync_wave();
		}

		/* The waves' results, merged in their order. */
		enum {
			STEP = (STREAM ? (int)size::SUMS : (int)size::RING_CHUNKS) * 4,
			TOPS = ROWS * LINE,
			MASSES = TOPS + ROWS,
		};
		float *const all_sums = (float *)(STREAM ? shared : rings), *const sums = all_sums + wave * STEP;

#pragma unroll
		for (int r = 0; r < SLOTS; r++)
			mass[r] = STREAM ? gpu_col_sum(mass[r]) : gpu_row_sum(mass[r]);
#pragma unroll
		for (int k = 0; k < ACC; k++) {
			const uint32_t r = STREAM ? gpu_acc_col(k) : gpu_acc_row(k);

			if (r >= n_rows)
				continue;
#pragma unroll
			for (int d = 0; d < VD / 16; d++) {
				const uint32_t col = STREAM ? gpu_acc_row(k) : gpu_acc_col(k);

				sums[r * LINE + d * 16 + (WIDENED ? gpu_turned_col(col) : col)] = acc[d].v[k];
			}
			sums[TOPS + r] = top[slot_of(k)];
			sums[MASSES + r] = mass[slot_of(k)];
		}
		__syncthreads();
		for (uint32_t i = threadIdx.x; i < n_rows * VD; i += THREADS) {
			const uint32_t r = i / VD, col = i % VD;
			const attn_row row = attn_row_at(a, seq, work, kv_head, row0 + r);
			float best = -INFINITY, sum = 0.0f, total = 0.0f;

			if (col >= a.kv.v_dim)
				continue;
#pragma unroll
			for (int w = 0; w < WAVES; w++)
				best = fmaxf(best, all_sums[w * STEP + TOPS + r]);
#pragma unroll
			for (int w = 0; w < WAVES; w++) {
				const float t = all_sums[w * STEP + TOPS + r], f = t == -INFINITY ? 0.0f : attn_exp2(t - best);

				sum += all_sums[w * STEP + r * LINE + col] * f;
				total += all_sums[w * STEP + MASSES + r] * f;
			}
			sum *= v_scale;
			if (work.part == GK_WHOLE) {
				gk_put(a.out, seq.row + work.q + row.token, (size_t)row.head * a.kv.v_dim + col,
				       sum * attn_final_scale(a, row.head, best, total));
			} else {
				float *part = a.parts + ((size_t)(work.part + row.token) * a.n_head + row.head) *
				                                attn_part_floats(a);

				part[col] = sum;
				if (col == 0) {
					part[a.kv.v_dim] = best;
					part[a.kv.v_dim + 1] = total;
				}
			}
		}
		__syncthreads(); /* the sums' place is free */
		if (work.part == GK_WHOLE || !a.counters || (STREAM && row0 + ROWS < it.n_rows))
			continue;

		const gk_merge m = a.batch.merge[work.merge];
		uint32_t *const counter = a.counters + (work.merge * a.kv.n_kv_head + kv_head) * a.row_blocks +
		                          blockIdx.x % a.row_blocks;

		if (threadIdx.x == 0) {
			__threadfence();
			n_before = atomicAdd(counter, 1u);
			__threadfence();
		}
		__syncthreads();
		if (n_before + 1 == m.n_parts) {
			if (threadIdx.x == 0)
				*counter = 0;
			attn_merge(a, m, kv_head, block_row0, (float *)shared, (STREAM ? (int)size::FRONT : (int)size::TOTAL) * 4);
		}
		__syncthreads();
	}
	if (!waited)
		gpu_dependency_wait();
}

/* ---- Launches ----------------------------------------------------------------------------------------------------- */

template <int KD, int VD, int WAVES, int RING, int BYTES, few_way WAY, int BLOCKS, bool STREAM = false>
static void launch(const struct gk_ctx *ctx, const attn_args &a, uint32_t max_work)
{
	const uint32_t shares = gk_plan_shares(ctx, a.kv.n_kv_head, a.group), most = shares < max_work ? shares : max_work;

	gpu_launch(attn_few_kernel<KD, VD, WAVES, RING, BYTES, WAY, BLOCKS, STREAM>, dim3(most * a.kv.n_kv_head * a.row_blocks),
	           dim3(WAVES * ctx->warp), few_sizes<KD, VD, WAVES, RING, BYTES, STREAM>::TOTAL * sizeof(uint4), ctx->stream,
	           ctx->overlap, a);
}

/* As the plan says (gk_plan_shape()) where there is much shared memory and pages are as the engine makes them; else blocks
 * that fit 64 KiB. The products before and after run beside this kernel, and what they have under way goes through the
 * first-level cache, from which shared memory is taken: with 200 KiB of rings a step of one sequence takes 14 % longer. */
template <int KD, int VD, int WAVES, int DEEP_WAVES, int RING, int SMALL_WAVES, int BYTES>
static void launch_by_plan(const struct gk_ctx *ctx, const attn_args &a, uint32_t max_work)
{
	constexpr int DEEP_RING = DEEP_WAVES == WAVES ? RING : RING - 1;
	constexpr bool all_shapes = KD == 128 && VD == 128; /* what most models have */
	const bool by_tile = a.page_shift >= 0 && a.kv.page_tokens % FEW_TILE == 0 && a.kv.k_dim == KD && a.kv.v_dim == VD;
	const size_t deep_bytes = few_sizes<KD, VD, DEEP_WAVES, DEEP_RING, BYTES, false>::TOTAL * sizeof(uint4) + 1024;
	uint32_t shape = gk_plan_shape(ctx, a.kv.n_kv_head, a.group, a.batch.max_seqs, BYTES);

	if ((shape == GK_SHAPE_DEEP && (DEEP_WAVES == WAVES || ctx->smem_bytes < deep_bytes)) ||
	    (shape == GK_SHAPE_SHORT && !all_shapes) ||
	    (shape == GK_SHAPE_STREAM && (!all_shapes || !GPU_TURNS || a.group > 8 || ctx->smem_bytes < 227u << 10)))
		shape = GK_SHAPE_MANY;
	if (!by_tile || (ctx->smem_bytes < 128u << 10 && shape != GK_SHAPE_DEEP)) {
		launch<KD, VD, SMALL_WAVES, 2, BYTES, BY_TOKEN, 1>(ctx, a, max_work);
		return;
	}
	if constexpr (all_shapes && GPU_TURNS) {
		if (shape == GK_SHAPE_STREAM) {
			launch<KD, VD, WAVES, RING, BYTES, BY_TILE, 2, true>(ctx, a, max_work);
			return;
		}
	}
	if (shape == GK_SHAPE_DEEP)
		launch<KD, VD, DEEP_WAVES, DEEP_RING, BYTES, BY_TILE, DEEP_WAVES == WAVES ? 2 : 1>(ctx, a, max_work);
	else if (shape == GK_SHAPE_SHORT)
		launch<KD, VD, WAVES, all_shapes ? 2 : RING, BYTES, BY_TILE, 2>(ctx, a, max_work);
	else
		launch<KD, VD, WAVES, RING, BYTES, BY_TILE, 2>(ctx, a, max_work);
}

/* What no device of the kind has the memory for is not made. */
template <int KD, int VD, int WAVES, int DEEP_WAVES, int RING, int SMALL_WAVES, int BYTES>
static void launch_direct(const struct gk_ctx *ctx, const attn_args &a, uint32_t max_work)
{
	if constexpr ((int)GPU_MOST_SHARED < (128 << 10))
		launch<KD, VD, SMALL_WAVES, 2, BYTES, BY_TOKEN, 1>(ctx, a, max_work);
	else
		launch_by_plan<KD, VD, WAVES, DEEP_WAVES, RING, SMALL_WAVES, BYTES>(ctx, a, max_work);
}

void attn_few_launch(const struct gk_ctx *ctx, const attn_args &a, uint32_t max_work)
{
	const uint32_t k = a.kv.k_dim, v = a.kv.v_dim;
	const bool small = k <= 128 && v <= 128;

	if (!a.direct)
		(small ? launch<128, 128, 2, 2, 2, CONVERTED, 1> : launch<256, 256, 1, 2, 2, CONVERTED, 1>)(ctx, a, max_work);
	else if (a.kv.dtype == KN_F8_E4M3)
		(small ? launch_direct<128, 128, 4, 8, 5, 4, 1> : launch_direct<256, 256, 4, 4, 3, 2, 1>)(ctx, a, max_work);
	else if (k <= 64 && v <= 64)
		launch_direct<64, 64, 4, 8, 5, 4, 2>(ctx, a, max_work);
	else if (small)
		launch_direct<128, 128, 4, 8, 3, 2, 2>(ctx, a, max_work);
	else if (k <= 192 && v <= 128)
		launch_direct<192, 128, 4, 4, 2, 2, 2>(ctx, a, max_work);
	else
		launch_direct<256, 256, 2, 2, 3, 1, 2>(ctx, a, max_work);
}
