/* What fp8_sm90.cu does with a tile's sums: how its shared memory is divided, and how results leave. */
#ifndef GPU_FP8_OUT_SM90_H
#define GPU_FP8_OUT_SM90_H

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
	EIGHT_LEAD = 3,  /* the first one is ahead */
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
	uint32_t across, down;                /* tiles along n, and along x's rows (pairs of them) */
	gk_rows rows;
	gk_view out;
	bool accumulate, turns;
	uint32_t lead; /* steps that the first warpgroup is ahead of the other one */
	uint8_t *q;
	float *q_scale;
	uint32_t ld_q, ld_q_scale;
};

/* A kernel: halves of a tile, what becomes of it, blocks that share rows of W, and blocks that have a part of each sum.
 * One of the last two is 1, their product a cluster. */
template <int HALVES_, int KIND_, int SHARE_, int PARTS_> struct eight_form {
	enum {
		HALVES = HALVES_,
		KIND = KIND_,
		SHARE = SHARE_,
		PARTS = PARTS_,
		CLUSTER = SHARE * PARTS,
		TILE_COLS = KIND == EIGHT_GATED ? EIGHT_COLS : HALVES * EIGHT_COLS, /* of the result */
		BOX = HALVES < SHARE ? 64 : 128,                                    /* rows of W of one copy */
		STAGES = HALVES == 2 || PARTS > 1 ? 4 : 6,
		OWN = 64 / PARTS, /* sums of a thread that a block adds up, of its part of the columns */
		/* In shared memory. */
		STAGE = (1 + HALVES) * EIGHT_HALF,
		AT_SCALES = STAGES * STAGE,
		AT_PIECES = AT_SCALES + STAGES * EIGHT_SCALES,
		AT_OTHERS = AT_PIECES + EIGHT_WAVES * EIGHT_PIECE,
		AT_SIGNALS = AT_OTHERS + (PARTS - 1) * OWN * EIGHT_COMPUTE * 4,
		BYTES = AT_SIGNALS + EIGHT_SIGNALS + SM90_ALIGN,
	};
};

#if SM90_CODE

template <class F> struct eight_memory {
	struct signals_of {
		sm90_bar full[F::STAGES], empty[F::STAGES];
		sm90_bar others; /* PARTS: what the other blocks have of this one's columns is there */
	};
	static_assert(sizeof(signals_of) <= EIGHT_SIGNALS, "they have room");
	uint8_t *base;

	__device__ __forceinline__ uint8_t *x(uint32_t stage) const
	{
		return base + stage * F::STAGE;
	}
	__device__ __forceinline__ uint8_t *w(uint32_t stage, uint32_t half) const
	{
		return base + stage * F::STAGE + (1 + half) * EIGHT_HALF;
	}
	__device__ __forceinline__ float *scales(uint32_t stage) const
	{
		return (float *)(base + F::AT_SCALES + stage * EIGHT_SCALES);
	}
	__device__ __forceinline__ uint4 *piece(uint32_t wave) const
	{
		return (uint4 *)(base + F::AT_PIECES + wave * EIGHT_PIECE);
	}
	/* Four sums of each thread, of those that block `from` of the cluster left for block `to`. */
	__device__ __forceinline__ float4 *others(uint32_t from, uint32_t to, uint32_t four) const
	{
		return (float4 *)(base + F::AT_OTHERS) +
		       ((from < to ? from : from - 1) * (F::OWN / 4) + four) * EIGHT_COMPUTE + threadIdx.x;
	}
	__device__ __forceinline__ signals_of *signals() const
	{
		return (signals_of *)(base + F::AT_SIGNALS);
	}
};

/* What a block computes at a time. */
struct eight_tile {
	uint32_t row, rows_of_all; /* x's first, and that of the cluster's first block */
	uint32_t w_row[2], col;    /* W's first row of each half; the result's first column */
	uint32_t begin, end;       /* of depth */
};

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
		v.x += old[i].x, v.y += old[i].y, v.z += old[i].z, v.w += old[i].w;
		*(float4 *)to = v;
	}
	gpu_sync_wave();
}

/* What is added onto is asked for a piece ahead. */
template <int CHUNK, int CHUNKS, int HALVES>
GPU_FN void eight_put_f32(const eight_args &a, const eight_tile &t, const eight_way_out &o,
                          const float (&d)[HALVES][64], const float4 (&old)[4])
{
	if constexpr (CHUNK < CHUNKS) {
		float4 next[4] = {};

		if (CHUNK + 1 < CHUNKS && a.accumulate)
			eight_get_f32<CHUNK + 1>(a, t, o, next);
		eight_put_chunk_f32<CHUNK>(a, t, o, d[CHUNK / 4], old);
		eight_put_f32<CHUNK + 1, CHUNKS>(a, t, o, d, next);
	}
}

GPU_FN uint32_t eight_add_bf16(uint32_t a, uint32_t b)
{
	return gpu_pack_bf16(gpu_bf16_low(a) + gpu_bf16_low(b), gpu_bf16_high(a) + gpu_bf16_high(b));
}

template <int CHUNKS, int HALVES>
GPU_FN void eight_put_bf16(const eight_args &a, const eight_tile &t, const eight_way_out &o,
                           const float (&d)[HALVES][64])
{
#pragma unroll
	for (int chunk = 0; chunk < CHUNKS; chunk++) {
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

/* Of a tile; PARTS: this block's part of its columns, whose sums are the first of d. */
template <class F>
GPU_FN void eight_put(const eight_args &a, const eight_tile &t, const eight_way_out &o, float (&d)[F::HALVES][64])
{
	if constexpr ((int)F::KIND == EIGHT_GATED) {
		eight_put_gated(a, t, o, d[0], d[F::HALVES - 1]);
	} else if constexpr ((int)F::KIND == EIGHT_BF16) {
		eight_put_bf16<2 * F::HALVES / F::PARTS>(a, t, o, d);
	} else {
		float4 old[4] = {};

		if (a.accumulate)
			eight_get_f32<0>(a, t, o, old);
		eight_put_f32<0, 4 * F::HALVES / F::PARTS>(a, t, o, d, old);
	}
}

/* ---- Parts of sums ----------------------------------------------------------------------------------------------- */

/* Each block gets what the others have of its part of the columns, and adds it up in the order of the parts: then the
 * first OWN of its sums are those. Once in a launch. */
template <class F> GPU_FN void eight_join(const eight_memory<F> &m, uint32_t rank, float (&d)[64])
{
	float own[F::OWN];

#pragma unroll
	for (int to = 0; to < F::PARTS; to++) {
		if (to == (int)rank) {
#pragma unroll
			for (int i = 0; i < F::OWN; i++)
				own[i] = d[to * F::OWN + i];
			continue;
		}
#pragma unroll
		for (int i = 0; i < F::OWN; i += 4) {
			const float *const v = d + to * F::OWN + i;

			sm90_store_at(m.others(rank, (uint32_t)to, (uint32_t)i / 4), (uint32_t)to,
			              make_float4(v[0], v[1], v[2], v[3]));
		}
	}
	gpu_sync_wave();
	if ((threadIdx.x & 31) < F::PARTS && (threadIdx.x & 31) != rank)
		sm90_bar_arrive_at(&m.signals()->others, threadIdx.x & 31);
	sm90_bar_wait_for_all(&m.signals()->others, 0);
#pragma unroll
	for (int i = 0; i < F::OWN; i++)
		d[i] = 0.0f;
#pragma unroll
	for (int from = 0; from < F::PARTS; from++) {
#pragma unroll
		for (int i = 0; i < F::OWN; i += 4) {
			const float4 v = from == (int)rank ? make_float4(own[i], own[i + 1], own[i + 2], own[i + 3])
			                                   : *m.others((uint32_t)from, rank, (uint32_t)i / 4);

			d[i] += v.x, d[i + 1] += v.y, d[i + 2] += v.z, d[i + 3] += v.w;
		}
	}
}

#endif
#endif
