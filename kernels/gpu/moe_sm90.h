/* Grouped products of many rows by Hopper's warpgroup instructions: 128 rows of W (gated: 64 of each of two matrices)
 * times up to 128 rows of x that share an expert, 64 columns at a time, in three stages of shared memory that
 * asynchronous copies fill. Weights of any type become bfloat16 on their way. The tiles lie as the instructions'
 * descriptors want them (128-byte swizzle), which is gpu_tile_at() of 8 chunks.
 *
 * Rows of W are the first operand: a group of few rows of x takes a narrower instruction. Gated: rows of the tile are
 * in turn 8 of one matrix and 8 of the other, so that a thread holds what belongs together. */
#ifndef GPU_MOE_SM90_H
#define GPU_MOE_SM90_H

#include "gpu/many.h"
#include "gpu/moe.h"
#include "gpu/sm90.h"

/* Threads, rows of W, columns and stages are those of many.h. */
enum { WIDE_STAGE_BYTES = (MANY_ROWS + WIDE_TILE) * 128 };

#if SM90_CODE
/* acc [64 x N] += A [64 x 16] B [N x 16]^T; one warpgroup. */
template <int N> GPU_FN void wide_mma(float *acc, sm90_desc a, sm90_desc b)
{
	if (N == 32)
		asm volatile("wgmma.mma_async.sync.aligned.m64n32k16.f32.bf16.bf16 "
		             "{%0,%1,%2,%3,%4,%5,%6,%7,%8,%9,%10,%11,%12,%13,%14,%15}, %16, %17, 1, 1, 1, 0, 0;"
		             : SM90_F8(acc, 0), SM90_F8(acc, 8)
		             : "l"(a), "l"(b));
	else if (N == 64)
		asm volatile("wgmma.mma_async.sync.aligned.m64n64k16.f32.bf16.bf16 "
		             "{%0,%1,%2,%3,%4,%5,%6,%7,%8,%9,%10,%11,%12,%13,%14,%15,%16,%17,%18,%19,%20,%21,%22,%23,"
		             "%24,%25,%26,%27,%28,%29,%30,%31}, %32, %33, 1, 1, 1, 0, 0;"
		             : SM90_F32(acc, 0)
		             : "l"(a), "l"(b));
	else
		asm volatile(
		        "wgmma.mma_async.sync.aligned.m64n128k16.f32.bf16.bf16 "
		        "{%0,%1,%2,%3,%4,%5,%6,%7,%8,%9,%10,%11,%12,%13,%14,%15,%16,%17,%18,%19,%20,%21,%22,%23,"
		        "%24,%25,%26,%27,%28,%29,%30,%31,%32,%33,%34,%35,%36,%37,%38,%39,%40,%41,%42,%43,%44,%45,"
		        "%46,%47,%48,%49,%50,%51,%52,%53,%54,%55,%56,%57,%58,%59,%60,%61,%62,%63}, %64, %65, 1, 1, 1, "
		        "0, 0;"
		        : SM90_F32(acc, 0), SM90_F32(acc, 32)
		        : "l"(a), "l"(b));
}

/* 64 columns, one group of instructions. */
template <int N> GPU_FN void wide_step(float *acc, const uint4 *tile_w, const uint4 *tile_x)
{
	sm90_desc a = sm90_desc_of(tile_w, 16, 1024), b = sm90_desc_of(tile_x, 16, 1024);

	sm90_products_begin();
#pragma unroll
	for (int k = 0; k < 4; k++, a += 2, b += 2)
		wide_mma<N>(acc, a, b);
	sm90_products_end();
}

/* The instructions are over: what they read may be filled again, what they add up may be looked at. */
GPU_FN void wide_wait(float *acc)
{
	asm volatile("wgmma.wait_group.sync.aligned 0;" : SM90_F32(acc, 0), SM90_F32(acc, 32)::"memory");
}
#endif

template <uint32_t TYPE, bool GATED>
static __global__ void __launch_bounds__(MANY_THREADS, 2) wide_kernel(GPU_PARAM wide_args a)
{
#if SM90_CODE
	typedef gk_format<TYPE> F;
	enum {
		DIRECT = TYPE == KN_BF16,
		ITEMS = MANY_ROWS * 4 / MANY_THREADS, /* pieces of W that a thread turns */
		PER_UNIT = F::CHUNKS / 2,             /* steps that a unit lasts */
		ROW_STEP = MANY_THREADS / MANY_CHUNKS,
		N_W = MANY_ROWS / ROW_STEP,
		N_X = WIDE_TILE / ROW_STEP,
		FEATURES = GATED ? MANY_ROWS / 2 : MANY_ROWS,
		OUT_LINE = FEATURES + 8, /* bfloat16 of a row of results on their way out */
	};
	GPU_DYN_SHARED(uint4, shared);
	const uint32_t misaligned = (uint32_t)(__cvta_generic_to_shared(shared) & 1023);
	uint4 *const tiles = shared + (misaligned ? (1024 - misaligned) / 16 : 0);
	const uint32_t group = threadIdx.x / 128, row0 = blockIdx.x * FEATURES;

	gpu_dependency_wait();
	gpu_dependents_may_start();
	if (blockIdx.y >= *a.n_tiles)
		return;

	const few_group tile = a.tiles[blockIdx.y];
	const gk_mat w = a.mats[0][tile.expert];
	gk_mat second = w;

	if (GATED)
		second = a.mats[1][tile.expert];

	const uint32_t n_units = gk_n_units(w), n_steps = n_units * PER_UNIT, last_row = w.rows - 1, n_cols = w.cols;
	const uint32_t n = a.fixed ? (uint32_t)WIDE_TILE : tile.n;

	auto matrix_row = [&](uint32_t r) {
		const uint32_t row = row0 + (GATED ? r / 16 * 8 + r % 8 : r);

		return row < last_row ? row : last_row;
	};
	/* Rows that a thread turns, or copies, are all of one matrix. */
	gk_mat turned = w;
	const uint8_t *copied = (const uint8_t *)w.values;

	if (GATED && (threadIdx.x >> 5 & 1)) {
		turned.values = second.values;
		turned.scales = second.scales;
		turned.first_row = second.first_row;
		turned.high = second.high;
	}
	if (GATED && (threadIdx.x >> 6 & 1))
		copied = (const uint8_t *)second.values;

	auto tile_w = [&](uint32_t step) { return tiles + step % MANY_STAGES * (WIDE_STAGE_BYTES / 16); };
	auto tile_x = [&](uint32_t step) { return tile_w(step) + MANY_ROWS * MANY_CHUNKS; };

	typename F::raw raw[ITEMS];
	typename F::scale scale[ITEMS];

	auto load_raw = [&](uint32_t step) {
		if (step % PER_UNIT != 0 || step >= n_steps)
			return;
#pragma unroll
		for (int i = 0; i < ITEMS; i++) {
			const uint32_t item = threadIdx.x + i * MANY_THREADS, r = item >> 2;

			F::fetch(raw[i], F::where(turned, matrix_row(r), item & 3, n_units), step / PER_UNIT);
			if ((int)F::SCALED != 0)
				F::fetch_scale(scale[i], F::scale_where(turned, matrix_row(r), n_units),
				               step / PER_UNIT);
		}
	};
	auto put_raw = [&](uint32_t step) {
		if (step >= n_steps)
			return;
#pragma unroll
		for (int i = 0; i < ITEMS; i++) {
			const uint32_t item = threadIdx.x + i * MANY_THREADS;

#pragma unroll
			for (int c = 0; c < 2; c++) {
				if (PER_UNIT == 1 || step % PER_UNIT == 0)
					many_put_piece<F>(tile_w(step), item >> 2, item & 3, c, c, raw[i], scale[i],
					                  step / PER_UNIT);
				else
					many_put_piece<F>(tile_w(step), item >> 2, item & 3, PER_UNIT == 1 ? 0 : c + 2,
					                  c, raw[i], scale[i], step / PER_UNIT);
			}
		}
	};
	/* What this thread copies: chunk c of every 32nd row. */
	const uint32_t c = threadIdx.x % MANY_CHUNKS, r0 = threadIdx.x / MANY_CHUNKS,
	               at0 = gpu_tile_at(r0, c, MANY_CHUNKS);
	const uint32_t n_x = n > WIDE_TILE / 2 ? N_X : n > WIDE_TILE / 4 ? N_X / 2 : N_X / 4;
	const uint8_t *from_w[DIRECT ? N_W : 1];
	const gpu_bf16 *from_x[N_X];

#pragma unroll
	for (int i = 0; DIRECT && i < N_W; i++) {
		const uint32_t r = r0 + i * ROW_STEP;

		from_w[DIRECT ? i : 0] = copied + ((size_t)matrix_row(r) * w.ld + c * 8) * 2;
	}
#pragma unroll
	for (int i = 0; i < N_X; i++) {
		const uint32_t r = r0 + i * ROW_STEP, place = tile.first + (r < tile.n ? r : tile.n - 1);

		from_x[i] = (const gpu_bf16 *)a.x.p + (size_t)(a.row_of ? a.row_of[place] : place) * a.x.ld;
	}

	auto copy = [&](uint32_t step) {
		uint4 *to = tile_x(step) + at0;
		const uint32_t k = step * MANY_COLS + c * 8;
		const int bytes = k + 8 <= n_cols ? 16 : k < n_cols ? (int)(n_cols - k) * 2 : 0;

#pragma unroll
		for (int i = 0; DIRECT && i < N_W; i++)
			gpu_copy16(tile_w(step) + at0 + i * ROW_STEP * MANY_CHUNKS,
			           from_w[DIRECT ? i : 0] + (size_t)step * MANY_COLS * 2, 16);
#pragma unroll
		for (uint32_t i = 0; i < N_X; i++) {
			if (i < n_x)
				gpu_copy16(to + i * ROW_STEP * MANY_CHUNKS, from_x[i] + (bytes ? k : 0), bytes);
		}
	};

	float acc[64];

#pragma unroll
	for (int i = 0; i < 64; i++)
		acc[i] = 0.0f;
	for (uint32_t s = 0; s < MANY_STAGES - 1; s++) {
		if (!DIRECT) {
			load_raw(s);
			put_raw(s);
		}
		if (s < n_steps)
			copy(s);
		gpu_copy_commit();
	}
	if (!DIRECT)
		load_raw(MANY_STAGES - 1);
	for (uint32_t step = 0; step < n_steps; step++) {
		const uint32_t ahead = step + MANY_STAGES - 1;
		const uint4 *at_w = tile_w(step) + group * 64 * MANY_CHUNKS;

		gpu_copy_wait<MANY_STAGES - 2>();
		sm90_publish();
		wide_wait(acc); /* of the step before, whose tiles are filled next */
		__syncthreads();
		if (n > WIDE_TILE / 2)
			wide_step<128>(acc, at_w, tile_x(step));
		else if (n > WIDE_TILE / 4)
			wide_step<64>(acc, at_w, tile_x(step));
		else
			wide_step<32>(acc, at_w, tile_x(step));
		if (ahead < n_steps)
			copy(ahead);
		gpu_copy_commit();
		if (!DIRECT) {
			put_raw(ahead);
			load_raw(ahead + 1);
		}
	}
	wide_wait(acc);
	__syncthreads();

	/* Results by way of shared memory, so that rows leave in whole pieces. */
	gpu_bf16 *const out = (gpu_bf16 *)tiles;
	const uint32_t lane = threadIdx.x & 31, warp = threadIdx.x / 32;
	const uint32_t f0 = GATED ? warp * 8 + (lane >> 2) : warp * 16 + (lane >> 2);
	float bias[2];

#pragma unroll
	for (int i = 0; i < 2; i++) {
		const uint32_t row = row0 + f0 + (GATED ? 0 : 8 * i);
		const float *from = a.bias[GATED ? i : 0];

		bias[i] = from && row <= last_row ? from[(size_t)tile.expert * w.rows + row] : 0.0f;
	}
#pragma unroll
	for (int i = 0; i < 64; i += 4) {
#pragma unroll
		for (int j = 0; j < 2; j++) {
			const uint32_t col = 2 * i + (lane & 3) * 2 + j;
			const float y = acc[i + j] + bias[0], u = acc[i + 2 + j] + bias[1];

			if (col >= tile.n)
				continue;
			if (GATED) {
				out[col * OUT_LINE + f0] = gpu_to_bf16(gk_act(a.act, y, u));
			} else {
				out[col * OUT_LINE + f0] = gpu_to_bf16(y);
				out[col * OUT_LINE + f0 + 8] = gpu_to_bf16(u);
			}
		}
	}
	__syncthreads();
	for (uint32_t i = threadIdx.x; i < tile.n * (FEATURES / 8); i += MANY_THREADS) {
		const uint32_t m = i / (FEATURES / 8), f = i % (FEATURES / 8) * 8, row = row0 + f;
		gpu_bf16 *to = (gpu_bf16 *)a.out.p + (size_t)(tile.first + m) * a.out.ld + row;

		if (row + 8 <= w.rows) {
			*(uint4 *)to = *(const uint4 *)(out + m * OUT_LINE + f);
		} else {
			for (uint32_t e = 0; row + e < w.rows; e++)
				to[e] = out[m * OUT_LINE + f + e];
		}
	}
#endif
}

template <uint32_t TYPE> static inline bool wide_launch_type(const wide_launch &l)
{
	const uint32_t features = l.gated ? MANY_ROWS / 2 : MANY_ROWS;
	const dim3 grid((l.n_rows_w + features - 1) / features, l.n_tiles);
	const size_t shared = (size_t)MANY_STAGES * WIDE_STAGE_BYTES + 1024;

	if (l.gated)
		gpu_launch(wide_kernel<TYPE, true>, grid, dim3(MANY_THREADS), shared, l.ctx->stream, l.ctx->overlap,
		           *l.args);
	else
		gpu_launch(wide_kernel<TYPE, false>, grid, dim3(MANY_THREADS), shared, l.ctx->stream, l.ctx->overlap,
		           *l.args);
	return true;
}

#endif
