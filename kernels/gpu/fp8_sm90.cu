/* Products of FP8 weights with rows in eight bits by Hopper's warpgroup instructions, and what is done with them before
 * they reach memory: a sum onto the residual stream, or the activation of gate and up in eight bits again.
 *
 *   out [rows, n] (+)= x W^T          of each 128 columns of x and W a partial sum on the matrix units, which keep some
 *                                     14 bits of it, times the scale of those of x's row and of W's block, in float32
 *
 * A block stays for the whole launch, one on each multiprocessor, and takes tiles in a fixed order: 128 rows of x and
 * HALVES times 128 of W, so that each half of the columns has one scale. One thread brings 128 columns of both at a
 * time into a ring; two warpgroups compute 64 rows each, one half after the other (their sums and a half's partial sum
 * fill the registers), one multiplying while the other one scales. Two blocks of a cluster have rows of x that follow
 * each other and the same rows of W, of which each brings one half for both: at 128 x 256 a multiprocessor then asks
 * the second-level cache for 32 KB in 1,024 cycles of its matrix units, without that for 48, and at 128 x 128 for twice
 * as much. Tiles go along x's rows first, 2,048 of them (8 MB of 4,096 columns), so that these stay in that cache and
 * weights come from memory once for 2,048 rows.
 *
 * Weights are brought before the kernel before has ended, as far as the ring goes; x is not. With gate and up the two
 * halves are the same 128 columns of both, so that a thread has what belongs together and four threads have all of what
 * shares a scale. Results leave by way of a piece of shared memory for each wave, in whole lines. */
#include <errno.h>

#include "gpu/fp8_sm90.h"
#include "gpu/gpu_mma.h"
#include "gpu/sm90_launch.h"
#include "gpu/view.h"

enum {
	EIGHT_ROWS = 128, /* of x, of a tile; half of them for each warpgroup */
	EIGHT_COLS = 128, /* of W, of half a tile */
	EIGHT_DEPTH = SM90_TILE_ROW,
	EIGHT_GROUPS = 2,
	EIGHT_COMPUTE = EIGHT_GROUPS * SM90_GROUP,
	EIGHT_THREADS = EIGHT_COMPUTE + SM90_GROUP,
	EIGHT_WAVES = EIGHT_COMPUTE / 32,
	EIGHT_NEAR = 16, /* tiles of x's rows whose products are computed together */
	EIGHT_TURN = 1,  /* named barriers: a warpgroup may begin its products */
	EIGHT_LEAN = 40, /* registers of a thread that brings, and of one that computes: 65,536 in all */
	EIGHT_RICH = 232,
	EIGHT_SIGNALS = 256,                   /* bytes for barriers */
	EIGHT_HALF = EIGHT_COLS * EIGHT_DEPTH, /* bytes of a half's weights in the ring; x's as many */
	EIGHT_SCALES = EIGHT_ROWS * 4,
	EIGHT_PIECE = 16 * 128, /* 16 rows of 128 bytes on their way out */
};

/* What becomes of the sums. */
enum { EIGHT_BF16, EIGHT_F32, EIGHT_GATED };

struct eight_args {
	sm90_map x, w[2]; /* w[1]: up's, if gated; else as w[0] */
	const float *x_scale, *w_scale[2];
	uint32_t ld_scale, w_across, w_lines; /* floats of a line of W's scales; lines */
	uint32_t n, depth;                    /* columns of the result; steps of 128 columns of x */
	uint32_t across, down, splits;        /* tiles along n; pairs (alone: tiles) of x's; parts of depth */
	gk_rows rows;
	gk_view out;
	bool accumulate, turns;
	uint8_t *q;
	float *q_scale;
	uint32_t ld_q, ld_q_scale;
};

template <int HALVES, int CLUSTER> struct eight_sizes {
	enum {
		STAGES = HALVES == 2 ? 4 : 6,
		STAGE = (1 + HALVES) * EIGHT_HALF,
		PIECES = STAGES * (STAGE + EIGHT_SCALES),
		SIGNALS = PIECES + EIGHT_WAVES * EIGHT_PIECE,
		TOTAL = SIGNALS + EIGHT_SIGNALS + SM90_ALIGN,
		BOX = HALVES < CLUSTER ? 64 : 128, /* rows of W of one copy */
	};
};

#if SM90_CODE

template <int HALVES, int CLUSTER> struct eight_memory {
	typedef eight_sizes<HALVES, CLUSTER> size;
	enum { STAGES = size::STAGES };
	struct signals_of {
		sm90_bar full[STAGES], empty[STAGES];
	};
	static_assert(sizeof(signals_of) <= EIGHT_SIGNALS, "they have room");
	uint8_t *base;

	__device__ __forceinline__ uint8_t *x(uint32_t stage) const
	{
		return base + stage * size::STAGE;
	}
	__device__ __forceinline__ uint8_t *w(uint32_t stage, uint32_t half) const
	{
		return base + stage * size::STAGE + (1 + half) * EIGHT_HALF;
	}
	__device__ __forceinline__ float *scales(uint32_t stage) const
	{
		return (float *)(base + STAGES * size::STAGE + stage * EIGHT_SCALES);
	}
	__device__ __forceinline__ uint4 *piece(uint32_t wave) const
	{
		return (uint4 *)(base + size::PIECES + wave * EIGHT_PIECE);
	}
	__device__ __forceinline__ signals_of *signals() const
	{
		return (signals_of *)(base + size::SIGNALS);
	}
};

/* A place in the ring, and how often it has come round. */
template <int STAGES> struct eight_ring {
	uint32_t stage, parity;

	__device__ __forceinline__ void next()
	{
		if (++stage == STAGES) {
			stage = 0;
			parity ^= 1;
		}
	}
};

/* What a block computes at a time. */
struct eight_tile {
	uint32_t row, rows_of_all; /* x's first, and that of the cluster's first block */
	uint32_t w_row[2], col;    /* W's first row of each half; the result's first column */
	uint32_t begin, end;       /* of depth */
};

template <int HALVES, int KIND, int CLUSTER>
GPU_FN eight_tile eight_tile_of(const eight_args &a, uint32_t item, uint32_t rank)
{
	const uint32_t split = item % a.splits, at = item / a.splits, band = at / (EIGHT_NEAR / CLUSTER * a.across);
	const uint32_t first = band * (EIGHT_NEAR / CLUSTER), left = a.down - first,
	               here = left < EIGHT_NEAR / CLUSTER ? left : (uint32_t)(EIGHT_NEAR / CLUSTER);
	const uint32_t in_band = at - band * (EIGHT_NEAR / CLUSTER) * a.across, across = in_band / here;
	eight_tile t;

	t.rows_of_all = (first + in_band % here) * CLUSTER * EIGHT_ROWS;
	t.row = t.rows_of_all + rank * EIGHT_ROWS;
	t.col = across * (KIND == EIGHT_GATED ? 1 : HALVES) * EIGHT_COLS;
	t.w_row[0] = t.col;
	t.w_row[1] = KIND == EIGHT_GATED ? t.col : t.col + EIGHT_COLS;
	t.begin = (uint32_t)((uint64_t)a.depth * split / a.splits);
	t.end = (uint32_t)((uint64_t)a.depth * (split + 1) / a.splits);
	return t;
}

/* Blocks of clusters take every so manieth item. The first one is computed whether its rows are there or not, since its
 * weights are asked for before that is known. */
template <int CLUSTER> struct eight_items {
	uint32_t at, n, step;

	__device__ __forceinline__ explicit eight_items(const eight_args &a)
	    : at(blockIdx.x / CLUSTER), n(a.across * a.down * a.splits), step(gridDim.x / CLUSTER)
	{
	}
	/* Steps over tiles without rows. */
	template <int HALVES, int KIND>
	__device__ __forceinline__ bool next(const eight_args &a, uint32_t n_rows, uint32_t rank, eight_tile *ret)
	{
		for (at += step; at < n; at += step) {
			*ret = eight_tile_of<HALVES, KIND, CLUSTER>(a, at, rank);
			if (ret->rows_of_all < n_rows)
				return true;
		}
		return false;
	}
};

/* ---- Who brings -------------------------------------------------------------------------------------------------- */

/* Of x's scales, whose last tile may be short. */
GPU_FN uint32_t eight_scale_bytes(const eight_args &a, const eight_tile &t)
{
	const uint32_t left = t.row < a.ld_scale ? a.ld_scale - t.row : 0;

	return (left < EIGHT_ROWS ? left : (uint32_t)EIGHT_ROWS) * 4;
}

template <int HALVES, int CLUSTER>
GPU_FN void eight_bring_w(const eight_args &a, const eight_memory<HALVES, CLUSTER> &m, const eight_tile &t, uint32_t k,
                          uint32_t stage, uint32_t rank)
{
	sm90_bar *const full = &m.signals()->full[stage];

	sm90_bar_expect(full, (1 + HALVES) * EIGHT_HALF + eight_scale_bytes(a, t));
	if (CLUSTER == 1) {
#pragma unroll
		for (int h = 0; h < HALVES; h++)
			sm90_copy_box(m.w(stage, h), &a.w[h], k * EIGHT_DEPTH, t.w_row[h], full);
	} else if (HALVES == 2) {
		sm90_copy_box_to(m.w(stage, rank), &a.w[rank], k * EIGHT_DEPTH, rank ? t.w_row[1] : t.w_row[0], full,
		                 3);
	} else {
		sm90_copy_box_to(m.w(stage, 0) + rank * 64 * SM90_TILE_ROW, &a.w[0], k * EIGHT_DEPTH,
		                 t.w_row[0] + rank * 64, full, 3);
	}
}

template <int HALVES, int CLUSTER>
GPU_FN void eight_bring_x(const eight_args &a, const eight_memory<HALVES, CLUSTER> &m, const eight_tile &t, uint32_t k,
                          uint32_t stage)
{
	sm90_bar *const full = &m.signals()->full[stage];
	const uint32_t bytes = eight_scale_bytes(a, t);

	sm90_copy_box(m.x(stage), &a.x, k * EIGHT_DEPTH, t.row, full);
	if (bytes)
		sm90_copy_bytes(m.scales(stage), a.x_scale + (size_t)k * a.ld_scale + t.row, bytes, full);
}

/* One thread. */
template <int HALVES, int KIND, int CLUSTER>
GPU_FN void eight_bring(const eight_args &a, const eight_memory<HALVES, CLUSTER> &m, uint32_t rank)
{
	enum { STAGES = eight_memory<HALVES, CLUSTER>::STAGES };
	eight_items<CLUSTER> items(a);
	eight_tile t = eight_tile_of<HALVES, KIND, CLUSTER>(a, items.at, rank);
	const uint32_t ready = t.end - t.begin < STAGES ? t.end - t.begin : (uint32_t)STAGES;
	eight_ring<STAGES> ring = { 0, 1 };
	uint32_t n_rows;

	for (uint32_t i = 0; i < ready; i++)
		eight_bring_w(a, m, t, t.begin + i, i, rank);
	gpu_dependency_wait();
	n_rows = gk_n_rows(a.rows);
	for (uint32_t i = 0; i < ready; i++) {
		eight_bring_x(a, m, t, t.begin + i, i);
		ring.next();
	}
	t.begin += ready;
	do {
		for (uint32_t k = t.begin; k < t.end; k++) {
			sm90_bar_wait(&m.signals()->empty[ring.stage], ring.parity);
			eight_bring_w(a, m, t, k, ring.stage, rank);
			eight_bring_x(a, m, t, k, ring.stage);
			ring.next();
		}
	} while (items.template next<HALVES, KIND>(a, n_rows, rank, &t));
}

/* ---- What becomes of the sums ------------------------------------------------------------------------------------ */

/* d[i] of a thread, as sm90_product() gives it: piece of 8 columns j, row h (8 below the other one), element e. */
GPU_FN constexpr int eight_at(int j, int h, int e)
{
	return 4 * j + 2 * h + e;
}

/* A wave's rows [row, row + 16), of which it has `there`. Lane l of a line out: its row l / 8 and 4 i more, 16 bytes
 * l % 8 of it. */
struct eight_way_out {
	uint4 *piece;
	uint32_t row, n_rows, lane;

	__device__ __forceinline__ uint32_t line(int i) const
	{
		return i * 4 + lane / 8;
	}
	__device__ __forceinline__ bool has(int i) const
	{
		return row + line(i) < n_rows;
	}
};

/* Where 16 bytes of a row of float32 lie in the piece: lanes that write 8 of them meet every bank once. */
GPU_FN uint32_t eight_swizzle_f32(uint32_t row, uint32_t c)
{
	return row * 8 + (c ^ ((row << 1 & 6) | (row >> 2 & 1)));
}

/* What the sums of 32 columns are added onto, lines as they leave. */
template <int CHUNK>
GPU_FN void eight_get_f32(const eight_args &a, const eight_tile &t, const eight_way_out &o, float4 (&old)[4])
{
	const uint32_t col = t.col + CHUNK * 32 + o.lane % 8 * 4;

#pragma unroll
	for (int i = 0; i < 4; i++)
		old[i] = o.has(i) && col < a.n ? *(const float4 *)((const float *)a.out.p +
		                                                   (size_t)(o.row + o.line(i)) * a.out.ld + col)
		                               : make_float4(0.0f, 0.0f, 0.0f, 0.0f);
}

/* Several blocks add parts of a sum. */
GPU_FN void eight_add_f32(float *to, const float4 &v)
{
#if GPU_PTX
	asm volatile("red.relaxed.gpu.global.add.v4.f32 [%0], {%1, %2, %3, %4};" ::"l"(to), "f"(v.x), "f"(v.y),
	             "f"(v.z), "f"(v.w)
	             : "memory");
#else
	to[0] += v.x, to[1] += v.y, to[2] += v.z, to[3] += v.w;
#endif
}

template <int CHUNK>
GPU_FN void eight_put_chunk_f32(const eight_args &a, const eight_tile &t, const eight_way_out &o, const float (&d)[64],
                                const float4 (&old)[4])
{
	const uint32_t col = t.col + CHUNK * 32 + o.lane % 8 * 4, two = o.lane % 4;

#pragma unroll
	for (int j = 0; j < 4; j++) {
#pragma unroll
		for (int h = 0; h < 2; h++) {
			const int i = eight_at(CHUNK % 4 * 4 + j, h, 0);

			*((float2 *)(o.piece + eight_swizzle_f32(o.lane / 4 + 8 * h, 2 * j + two / 2)) + two % 2) =
			        make_float2(d[i], d[i + 1]);
		}
	}
	gpu_sync_wave();
#pragma unroll
	for (int i = 0; i < 4; i++) {
		float4 v = *(const float4 *)(o.piece + eight_swizzle_f32(o.line(i), o.lane % 8));
		float *const to = (float *)a.out.p + (size_t)(o.row + o.line(i)) * a.out.ld + col;

		if (!o.has(i) || col >= a.n)
			continue;
		if (a.splits > 1) {
			eight_add_f32(to, v);
			continue;
		}
		v.x += old[i].x, v.y += old[i].y, v.z += old[i].z, v.w += old[i].w;
		*(float4 *)to = v;
	}
	gpu_sync_wave();
}

/* What is added onto is asked for a piece ahead. */
template <int CHUNK, int HALVES>
GPU_FN void eight_put_f32(const eight_args &a, const eight_tile &t, const eight_way_out &o,
                          const float (&d)[HALVES][64], const float4 (&old)[4])
{
	if constexpr (CHUNK < 4 * HALVES) {
		float4 next[4] = {};

		if (CHUNK + 1 < 4 * HALVES && a.accumulate && a.splits == 1)
			eight_get_f32<CHUNK + 1>(a, t, o, next);
		eight_put_chunk_f32<CHUNK>(a, t, o, d[CHUNK / 4], old);
		eight_put_f32<CHUNK + 1, HALVES>(a, t, o, d, next);
	}
}

GPU_FN uint32_t eight_add_bf16(uint32_t a, uint32_t b)
{
	return gpu_pack_bf16(gpu_bf16_low(a) + gpu_bf16_low(b), gpu_bf16_high(a) + gpu_bf16_high(b));
}

template <int HALVES>
GPU_FN void eight_put_bf16(const eight_args &a, const eight_tile &t, const eight_way_out &o,
                           const float (&d)[HALVES][64])
{
#pragma unroll
	for (int chunk = 0; chunk < 2 * HALVES; chunk++) {
		const uint32_t col = t.col + chunk * 64 + o.lane % 8 * 8;

#pragma unroll
		for (int c = 0; c < 8; c++) {
#pragma unroll
			for (int h = 0; h < 2; h++) {
				const int i = eight_at(chunk % 2 * 8 + c, h, 0);

				((uint32_t *)(o.piece + gpu_tile_at(o.lane / 4 + 8 * h, c, 8)))[o.lane % 4] =
				        gpu_pack_bf16(d[chunk / 2][i], d[chunk / 2][i + 1]);
			}
		}
		gpu_sync_wave();
#pragma unroll
		for (int i = 0; i < 4; i++) {
			uint4 v = o.piece[gpu_tile_at(o.line(i), o.lane % 8, 8)];
			uint4 *const to = (uint4 *)((gpu_bf16 *)a.out.p + (size_t)(o.row + o.line(i)) * a.out.ld + col);

			if (!o.has(i) || col >= a.n)
				continue;
			if (a.accumulate) {
				const uint4 old = *to;

				v.x = eight_add_bf16(v.x, old.x), v.y = eight_add_bf16(v.y, old.y);
				v.z = eight_add_bf16(v.z, old.z), v.w = eight_add_bf16(v.w, old.w);
			}
			*to = v;
		}
		gpu_sync_wave();
	}
}

/* Gate and up: the greatest of a row's 128 columns is known to the four lanes that have them. */
GPU_FN void eight_put_gated(const eight_args &a, const eight_tile &t, const eight_way_out &o, float (&gate)[64],
                            const float (&up)[64])
{
	const uint32_t col = t.col + o.lane % 8 * 16;
	float most[2] = { 0.0f, 0.0f };

#pragma unroll
	for (int i = 0; i < 64; i++) {
		gate[i] = gk_act(KN_ACT_SILU, gate[i], up[i]);
		most[i / 2 % 2] = fmaxf(most[i / 2 % 2], fabsf(gate[i]));
	}
#pragma unroll
	for (int h = 0; h < 2; h++) {
		const uint32_t row = o.row + o.lane / 4 + 8 * h;

		most[h] = fmaxf(most[h], gpu_shfl_xor(most[h], 1));
		most[h] = fmaxf(most[h], gpu_shfl_xor(most[h], 2));
		most[h] = fmaxf(most[h], 1e-20f); /* as quantize_put() */
		if (o.lane % 4 == 0 && row < o.n_rows)
			a.q_scale[(size_t)(t.col / EIGHT_COLS) * a.ld_q_scale + row] = most[h] * (1.0f / 448.0f);
		most[h] = 448.0f * gpu_inverse(most[h]);
	}
#pragma unroll
	for (int j = 0; j < 16; j++) {
#pragma unroll
		for (int h = 0; h < 2; h++)
			((uint16_t *)(o.piece + gpu_tile_at(o.lane / 4 + 8 * h, j / 2, 8)))[j % 2 * 4 + o.lane % 4] =
			        (uint16_t)gpu_pack_e4m3(gate[eight_at(j, h, 0)] * most[h],
			                                gate[eight_at(j, h, 1)] * most[h]);
	}
	gpu_sync_wave();
#pragma unroll
	for (int i = 0; i < 4; i++) {
		if (o.has(i) && col < a.ld_q)
			*(uint4 *)(a.q + (size_t)(o.row + o.line(i)) * a.ld_q + col) =
			        o.piece[gpu_tile_at(o.line(i), o.lane % 8, 8)];
	}
	gpu_sync_wave();
}

template <int HALVES, int KIND>
GPU_FN void eight_put(const eight_args &a, const eight_tile &t, const eight_way_out &o, float (&d)[HALVES][64])
{
	if constexpr (KIND == EIGHT_GATED) {
		eight_put_gated(a, t, o, d[0], d[HALVES - 1]);
	} else if constexpr (KIND == EIGHT_BF16) {
		eight_put_bf16<HALVES>(a, t, o, d);
	} else {
		float4 old[4] = {};

		if (a.accumulate && a.splits == 1)
			eight_get_f32<0>(a, t, o, old);
		eight_put_f32<0, HALVES>(a, t, o, d, old);
	}
}

/* ---- Who computes ------------------------------------------------------------------------------------------------ */

/* part = 64 rows of x times 128 of W, 128 columns of both. */
GPU_FN void eight_product(float (&part)[64], const uint8_t *x, const uint8_t *w)
{
	const sm90_desc dx = sm90_desc_of(x, 16, 8 * SM90_TILE_ROW), dw = sm90_desc_of(w, 16, 8 * SM90_TILE_ROW);

	sm90_product8<false>(part, dx, dw);
#pragma unroll
	for (int i = 1; i < EIGHT_DEPTH / 32; i++)
		sm90_product8<true>(part, sm90_desc_add(dx, i * 32), sm90_desc_add(dw, i * 32));
}

/* A warpgroup. */
template <int HALVES, int KIND, int CLUSTER>
GPU_FN void eight_compute(const eight_args &a, const eight_memory<HALVES, CLUSTER> &m, uint32_t rank)
{
	enum { STAGES = eight_memory<HALVES, CLUSTER>::STAGES };
	const uint32_t group = threadIdx.x / SM90_GROUP, lane = threadIdx.x & 31, wave = threadIdx.x / 32;
	const uint32_t mine = wave * 16 + lane / 4; /* of a tile's rows, the first of this thread's two */
	eight_items<CLUSTER> items(a);
	eight_tile t = eight_tile_of<HALVES, KIND, CLUSTER>(a, items.at, rank);
	eight_ring<STAGES> ring = { 0, 0 };
	float sum[HALVES][64], part[64];
	uint32_t n_rows;

	gpu_dependency_wait();
	n_rows = gk_n_rows(a.rows);
#pragma unroll
	for (int i = 0; i < 64; i++)
		part[i] = 0.0f;
	if (a.turns && group == 1)
		sm90_named_arrive(EIGHT_TURN, EIGHT_COMPUTE);
	do {
		const float *w_scale[HALVES];

#pragma unroll
		for (int h = 0; h < HALVES; h++) {
			const uint32_t line = t.w_row[h] / EIGHT_COLS;

			w_scale[h] = a.w_scale[h] + (size_t)(line < a.w_lines ? line : a.w_lines - 1) * a.w_across;
#pragma unroll
			for (int i = 0; i < 64; i++)
				sum[h][i] = 0.0f;
		}
		for (uint32_t k = t.begin; k < t.end; k++) {
			const float *const scales = m.scales(ring.stage) + mine;
			float by_w[HALVES], by_x[2];

#pragma unroll
			for (int h = 0; h < HALVES; h++)
				by_w[h] = w_scale[h][k];
			sm90_bar_wait(&m.signals()->full[ring.stage], ring.parity);
			by_x[0] = scales[0];
			by_x[1] = scales[8];
#pragma unroll
			for (int h = 0; h < HALVES; h++) {
				float by[2];

				if (a.turns)
					sm90_named_sync(EIGHT_TURN + group, EIGHT_COMPUTE);
				sm90_pin(part);
				sm90_products_begin();
				eight_product(part, m.x(ring.stage) + group * (EIGHT_HALF / EIGHT_GROUPS),
				              m.w(ring.stage, h));
				sm90_products_end();
				if (a.turns)
					sm90_named_arrive(EIGHT_TURN + 1 - group, EIGHT_COMPUTE);
				by[0] = by_x[0] * by_w[h];
				by[1] = by_x[1] * by_w[h];
				sm90_products_wait<0>();
				sm90_pin(part);
				if (h == HALVES - 1 && lane < CLUSTER)
					sm90_bar_arrive_at(&m.signals()->empty[ring.stage], lane);
#pragma unroll
				for (int i = 0; i < 64; i++)
					sum[h][i] = fmaf(by[i / 2 % 2], part[i], sum[h][i]);
			}
			ring.next();
		}

		const eight_way_out out = { m.piece(wave), t.row + wave * 16, n_rows, lane };

		eight_put<HALVES, KIND>(a, t, out, sum);
	} while (items.template next<HALVES, KIND>(a, n_rows, rank, &t));
	if (a.turns && group == 0) /* as often as it was arrived at */
		sm90_named_sync(EIGHT_TURN, EIGHT_COMPUTE);
}
#endif

template <int HALVES, int KIND, int CLUSTER>
static __global__ void __launch_bounds__(EIGHT_THREADS, 1) eight_kernel(GPU_PARAM eight_args a)
{
#if SM90_CODE
	GPU_DYN_SHARED(uint8_t, shared);
#if defined(GPU_HOST)
	const uint32_t misaligned = (uint32_t)((uintptr_t)shared & (SM90_ALIGN - 1));
#else
	const uint32_t misaligned = sm90_shared(shared) & (SM90_ALIGN - 1);
#endif
	const eight_memory<HALVES, CLUSTER> m = { shared + (misaligned ? SM90_ALIGN - misaligned : 0) };
	const uint32_t rank = CLUSTER == 1 ? 0 : sm90_cluster_rank();

	if (threadIdx.x == 0) {
		for (int i = 0; i < m.STAGES; i++) {
			sm90_bar_init(&m.signals()->full[i], 1);
			sm90_bar_init(&m.signals()->empty[i], CLUSTER * EIGHT_WAVES);
		}
		sm90_bars_ready();
	}
	if (CLUSTER == 1)
		__syncthreads();
	else
		sm90_cluster_sync(); /* nobody brings anything to whom is not ready */
	gpu_dependents_may_start();
	/* In this order: see attention_sm90.cu. */
	if (threadIdx.x < EIGHT_COMPUTE) {
		sm90_more_registers<EIGHT_RICH>();
		eight_compute<HALVES, KIND, CLUSTER>(a, m, rank);
	} else {
		sm90_fewer_registers<EIGHT_LEAN>();
		if (threadIdx.x == EIGHT_COMPUTE)
			eight_bring<HALVES, KIND, CLUSTER>(a, m, rank);
	}
	if (CLUSTER > 1)
		sm90_cluster_sync(); /* nobody goes to whom something is brought */
#endif
}

/* ---- Launches ---------------------------------------------------------------------------------------------------- */

static uint32_t parts_of(uint32_t n, uint32_t each)
{
	return (n + each - 1) / each;
}

template <int HALVES, int KIND, int CLUSTER>
static int launch(const struct gk_ctx *ctx, const struct gk_linear8 *l, eight_args a)
{
	typedef eight_sizes<HALVES, CLUSTER> size;
	const uint32_t k = l->w[0].cols, bound = l->rows.bound;
	uint32_t items, most;

	for (int h = 0; h < 2; h++) {
		if (!sm90_map_of(&a.w[h], l->w[l->gated ? h : 0].values, 1, l->n, k, l->w[0].ld, size::BOX))
			return -ENOTSUP;
		a.w_scale[h] = (const float *)l->w[l->gated ? h : 0].scales;
	}
	if (!sm90_map_of(&a.x, l->x, 1, bound, k, l->ld_x, EIGHT_ROWS) || (size_t)size::TOTAL > ctx->smem_bytes)
		return -ENOTSUP;
	a.across = parts_of(l->n, l->gated ? (uint32_t)EIGHT_COLS : HALVES * EIGHT_COLS);
	a.down = parts_of(bound, EIGHT_ROWS * CLUSTER);
	items = a.across * a.down * a.splits;
	most = ctx->n_sm / CLUSTER ? ctx->n_sm / CLUSTER : 1;
	sm90_launch(eight_kernel<HALVES, KIND, CLUSTER>, (items < most ? items : most) * CLUSTER, EIGHT_THREADS,
	            CLUSTER, size::TOTAL, ctx->stream, ctx->overlap, a);
	return gk_launched();
}

template <int HALVES, int KIND>
static int launch_with(const struct gk_ctx *ctx, const struct gk_linear8 *l, const eight_args &a, bool pairs)
{
	return pairs ? launch<HALVES, KIND, 2>(ctx, l, a) : launch<HALVES, KIND, 1>(ctx, l, a);
}

template <int KIND>
static int launch_wide(const struct gk_ctx *ctx, const struct gk_linear8 *l, const eight_args &a, bool wide, bool pairs)
{
	return wide ? launch_with<2, KIND>(ctx, l, a, pairs) : launch_with<1, KIND>(ctx, l, a, pairs);
}

/* Whichever takes the fewest rounds of tiles; a narrow tile takes half as long, and a tenth more than that. */
static bool wide_is_better(const struct gk_ctx *ctx, const struct gk_linear8 *l)
{
	const uint32_t down = parts_of(l->rows.bound, EIGHT_ROWS);

	return 20 * parts_of(down * parts_of(l->n, 2 * EIGHT_COLS), ctx->n_sm) <=
	       11 * parts_of(down * parts_of(l->n, EIGHT_COLS), ctx->n_sm);
}

enum { MOST_SPLITS = 8, LEAST_DEPTH = 8 /* of a part */ };

/* Few tiles: several blocks add parts of each sum, in whatever order. */
static uint32_t splits_for(const struct gk_ctx *ctx, const struct gk_linear8 *l, uint32_t depth)
{
	const uint32_t tiles = parts_of(l->rows.bound, EIGHT_ROWS) * parts_of(l->n, EIGHT_COLS);
	uint32_t most = depth / LEAST_DEPTH;

	if (!l->accumulate || l->out.elem != GK_F32 || ctx->fixed)
		return 1;
	most = most < MOST_SPLITS ? most : (uint32_t)MOST_SPLITS;
	return tiles * 2 > ctx->n_sm || most < 2 ? 1 : ctx->n_sm / tiles < most ? ctx->n_sm / tiles : most;
}

int eight_launch(const struct gk_ctx *ctx, const struct gk_linear8 *l)
{
	const struct gk_mat *const w = l->w;
	eight_args a = {};
	bool wide, pairs;

	if (w[0].type != GK_FP8_128 || w[0].first_row || l->n % 16 || l->ld_x % 16 || l->ld_scale % 4 ||
	    l->ld_scale < l->rows.bound || w[0].ld % 16 ||
	    (((uintptr_t)l->x | (uintptr_t)w[0].values | (uintptr_t)l->x_scale) & 15))
		return -ENOTSUP;
	if (l->gated ? w[1].type != GK_FP8_128 || w[1].first_row || w[1].cols != w[0].cols || w[1].ld != w[0].ld ||
	                       l->act != KN_ACT_SILU || l->ld_q % 64 || l->ld_q < l->n ||
	                       (((uintptr_t)l->q | (uintptr_t)w[1].values) & 15)
	             : (l->out.elem != GK_BF16 && l->out.elem != GK_F32) || !gk_view_aligned(l->out))
		return -ENOTSUP;
	a.x_scale = l->x_scale;
	a.ld_scale = l->ld_scale;
	a.w_across = gk_mat_scale_stride(&w[0]);
	a.w_lines = parts_of(l->n, EIGHT_COLS);
	a.n = l->n;
	a.depth = parts_of(w[0].cols, EIGHT_DEPTH);
	a.rows = l->rows;
	a.out = l->out;
	a.accumulate = l->accumulate;
	a.turns = l->tiles.turns;
	a.q = (uint8_t *)l->q;
	a.q_scale = l->q_scale;
	a.ld_q = l->ld_q;
	a.ld_q_scale = l->ld_q_scale;
	a.splits = l->tiles.splits ? l->tiles.splits : l->gated ? 1 : splits_for(ctx, l, a.depth);
	if (a.splits > a.depth || (a.splits > 1 && (l->gated || !l->accumulate || l->out.elem != GK_F32)))
		return -EINVAL;
	pairs = l->tiles.alone ? false : l->rows.bound > EIGHT_ROWS;
	wide = l->tiles.columns ? l->tiles.columns == 256 : a.splits == 1 && wide_is_better(ctx, l);
	if (l->gated)
		return launch_with<2, EIGHT_GATED>(ctx, l, a, pairs);
	return l->out.elem == GK_F32 ? launch_wide<EIGHT_F32>(ctx, l, a, wide, pairs)
	                             : launch_wide<EIGHT_BF16>(ctx, l, a, wide, pairs);
}
