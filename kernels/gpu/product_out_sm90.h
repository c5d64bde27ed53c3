/* What product_sm90.cu does with a tile's sums: how its shared memory is divided, and how results leave. */
#ifndef GPU_PRODUCT_OUT_SM90_H
#define GPU_PRODUCT_OUT_SM90_H

#include "gpu/gpu_tile.h"
#include "gpu/sm90_launch.h"
#include "gpu/view.h"

enum {
	PROD_ROWS = 128, /* of x, of a tile; half of them for each warpgroup */
	PROD_COLS = 128, /* of W, of half a tile */
	PROD_GROUPS = 2,
	PROD_COMPUTE = PROD_GROUPS * SM90_GROUP,
	PROD_THREADS = PROD_COMPUTE + SM90_GROUP,
	PROD_WAVES = PROD_COMPUTE / 32,
	PROD_NEAR = 16, /* tiles of x's rows whose products are computed together */
	PROD_LEAN = 40, /* registers of a thread that brings, and of one that computes: 65,536 in all */
	PROD_RICH = 232,
	PROD_SIGNALS = 256,                    /* bytes for barriers */
	PROD_HALF = PROD_COLS * SM90_TILE_ROW, /* bytes of a half's weights in the ring; x's as many */
	PROD_SCALES = PROD_ROWS * 4,
	PROD_PIECE = 16 * 128, /* 16 rows of 128 bytes on their way out */
};

/* What becomes of the sums, and what two blocks of a cluster bring together. */
enum { PROD_BF16, PROD_F32, PROD_GATED };
enum { PROD_ALONE, PROD_SHARES_W, PROD_SHARES_X };

struct prod_args {
	sm90_map x, w[2]; /* w[1]: up's, if gated; else as w[0] */
	const float *x_scale, *w_scale[2];
	uint32_t ld_scale, w_across, w_lines; /* floats of a line of W's scales; lines */
	uint32_t n, depth;                    /* columns of the result; steps of 128 bytes of x's rows */
	uint32_t across, down;                /* tiles along n, and along x's rows, or pairs of them */
	gk_rows rows;
	gk_view out;
	bool accumulate;
	uint8_t *q;
	float *q_scale;
	uint32_t ld_q, ld_q_scale;
};

/* A kernel: rows and weights in eight bits or bfloat16, halves of a tile, what becomes of it, what two blocks share,
 * and blocks that have a part of each sum (they share nothing else). */
template <bool EIGHT_, int HALVES_, int KIND_, int SHARE_, int PARTS_> struct prod_form {
	enum {
		EIGHT = EIGHT_,
		HALVES = HALVES_,
		GATED = KIND_ == PROD_GATED,
		F32 = KIND_ == PROD_F32,
		DOWN = SHARE_ == PROD_SHARES_W ? 2 : 1, /* tiles of a cluster along x's rows, and along n */
		ACROSS = SHARE_ == PROD_SHARES_X ? 2 : 1,
		SHARES = SHARE_ != PROD_ALONE,
		PARTS = PARTS_,
		CLUSTER = SHARES ? 2 : PARTS,
		DEPTH = EIGHT ? SM90_TILE_ROW : SM90_TILE_ROW / 2,  /* columns of x of a step */
		TILE_COLS = GATED ? PROD_COLS : HALVES * PROD_COLS, /* of the result */
		BOX_X = 128 / ACROSS,                               /* rows of one copy */
		STAGES = HALVES == 2 || PARTS > 1 ? 4 : 6,
		PIECES = 4, /* of a half's columns, 32 each; a thread has 16 sums of each */
		OWN = (PIECES + PARTS - 1) / PARTS * 16, /* sums of a thread that a block adds up, at most */
		/* In shared memory. */
		STAGE = (1 + HALVES) * PROD_HALF,
		AT_SCALES = STAGES * STAGE,
		AT_PIECES = AT_SCALES + STAGES * PROD_SCALES,
		AT_OTHERS = AT_PIECES + PROD_WAVES * PROD_PIECE,
		AT_SIGNALS = AT_OTHERS + (PARTS - 1) * OWN * PROD_COMPUTE * 4,
		BYTES = AT_SIGNALS + PROD_SIGNALS + SM90_ALIGN,
	};
	static_assert(!SHARES || PARTS == 1, "a cluster is one of both");
	static_assert(DOWN == 1 || HALVES == 2, "each of two blocks brings a half");
};

#if SM90_CODE

template <class F> struct prod_memory {
	struct signals_of {
		sm90_bar full[F::STAGES], empty[F::STAGES]; /* these two behind each other */
		sm90_bar others; /* PARTS: what the other blocks have of this one's columns is there */
	};
	static_assert(sizeof(signals_of) <= PROD_SIGNALS, "they have room");
	uint8_t *base;

	__device__ __forceinline__ uint8_t *x(uint32_t stage) const
	{
		return base + stage * F::STAGE;
	}
	__device__ __forceinline__ uint8_t *w(uint32_t stage, uint32_t half) const
	{
		return base + stage * F::STAGE + (1 + half) * PROD_HALF;
	}
	__device__ __forceinline__ float *scales(uint32_t stage) const
	{
		return (float *)(base + F::AT_SCALES + stage * PROD_SCALES);
	}
	__device__ __forceinline__ uint4 *piece(uint32_t wave) const
	{
		return (uint4 *)(base + F::AT_PIECES + wave * PROD_PIECE);
	}
	/* Four sums of each thread, of those that block `from` of the cluster left for block `to`. */
	__device__ __forceinline__ float4 *others(uint32_t from, uint32_t to, uint32_t four) const
	{
		return (float4 *)(base + F::AT_OTHERS) +
		       ((from < to ? from : from - 1) * (F::OWN / 4) + four) * PROD_COMPUTE + threadIdx.x;
	}
	__device__ __forceinline__ signals_of *signals() const
	{
		return (signals_of *)(base + F::AT_SIGNALS);
	}
};

/* What a block computes at a time. */
struct prod_tile {
	uint32_t row, rows_of_all; /* x's first, and that of the cluster's first block */
	uint32_t w_row[2];         /* W's first row of each half */
	uint32_t col, col_end;     /* of the result, that this block puts out */
	uint32_t begin, end;       /* of depth */
};

/* ---- What becomes of the sums ------------------------------------------------------------------------------------ */

/* d[i] of a thread, as sm90_product() gives it: piece of 8 columns j, row h (8 below the other one), element e. */
GPU_FN constexpr int prod_at(int j, int h, int e)
{
	return 4 * j + 2 * h + e;
}

/* A wave's rows [row, row + 16), of which it has `there`. Lane l of a line out: its row l / 8 and 4 i more, 16 bytes
 * l % 8 of it. */
struct prod_way_out {
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
GPU_FN uint32_t prod_swizzle_f32(uint32_t row, uint32_t c)
{
	return row * 8 + (c ^ ((row << 1 & 6) | (row >> 2 & 1)));
}

/* What the sums of 32 columns are added onto, lines as they leave. */
template <int CHUNK>
GPU_FN void prod_get_f32(const prod_args &a, const prod_tile &t, const prod_way_out &o, float4 (&old)[4])
{
	const uint32_t col = t.col + CHUNK * 32 + o.lane % 8 * 4;

#pragma unroll
	for (int i = 0; i < 4; i++)
		old[i] = o.has(i) && col < t.col_end ? *(const float4 *)((const float *)a.out.p +
		                                                         (size_t)(o.row + o.line(i)) * a.out.ld + col)
		                                     : make_float4(0.0f, 0.0f, 0.0f, 0.0f);
}

/* Into the second-level cache: all of a tile, a line of 128 bytes for each lane. */
template <class F> GPU_FN void prod_ask_for_old(const prod_args &a, const prod_tile &t, const prod_way_out &o)
{
	enum { LINES = F::TILE_COLS / 32 };

	if (!a.accumulate)
		return;
#pragma unroll
	for (uint32_t i = 0; i < 16 * LINES / 32; i++) {
		const uint32_t at = i * 32 + o.lane, row = o.row + at / LINES, col = t.col + at % LINES * 32;

		if (row < o.n_rows && col < t.col_end)
			gpu_ask_for((const float *)a.out.p + (size_t)row * a.out.ld + col);
	}
}

template <int CHUNK>
GPU_FN void prod_put_chunk_f32(const prod_args &a, const prod_tile &t, const prod_way_out &o, const float (&d)[64],
                               const float4 (&old)[4])
{
	const uint32_t col = t.col + CHUNK * 32 + o.lane % 8 * 4, two = o.lane % 4;

#pragma unroll
	for (int j = 0; j < 4; j++) {
#pragma unroll
		for (int h = 0; h < 2; h++) {
			const int i = prod_at(CHUNK % 4 * 4 + j, h, 0);

			*((float2 *)(o.piece + prod_swizzle_f32(o.lane / 4 + 8 * h, 2 * j + two / 2)) + two % 2) =
			        make_float2(d[i], d[i + 1]);
		}
	}
	gpu_sync_wave();
#pragma unroll
	for (int i = 0; i < 4; i++) {
		float4 v = *(const float4 *)(o.piece + prod_swizzle_f32(o.line(i), o.lane % 8));
		float *const to = (float *)a.out.p + (size_t)(o.row + o.line(i)) * a.out.ld + col;

		if (!o.has(i) || col >= t.col_end)
			continue;
		v.x += old[i].x, v.y += old[i].y, v.z += old[i].z, v.w += old[i].w;
		*(float4 *)to = v;
	}
	gpu_sync_wave();
}

/* What is added onto is asked for a piece ahead. */
template <int CHUNK, int CHUNKS, int HALVES>
GPU_FN void prod_put_f32(const prod_args &a, const prod_tile &t, const prod_way_out &o, const float (&d)[HALVES][64],
                         const float4 (&old)[4])
{
	if constexpr (CHUNK < CHUNKS) {
		float4 next[4] = {};

		if (CHUNK + 1 < CHUNKS && a.accumulate)
			prod_get_f32<CHUNK + 1>(a, t, o, next);
		prod_put_chunk_f32<CHUNK>(a, t, o, d[CHUNK / 4], old);
		prod_put_f32<CHUNK + 1, CHUNKS>(a, t, o, d, next);
	}
}

GPU_FN uint32_t prod_add_bf16(uint32_t a, uint32_t b)
{
	return gpu_pack_bf16(gpu_bf16_low(a) + gpu_bf16_low(b), gpu_bf16_high(a) + gpu_bf16_high(b));
}

template <int CHUNKS, int HALVES>
GPU_FN void prod_put_bf16(const prod_args &a, const prod_tile &t, const prod_way_out &o, const float (&d)[HALVES][64])
{
#pragma unroll
	for (int chunk = 0; chunk < CHUNKS; chunk++) {
		const uint32_t col = t.col + chunk * 64 + o.lane % 8 * 8;

#pragma unroll
		for (int c = 0; c < 8; c++) {
#pragma unroll
			for (int h = 0; h < 2; h++) {
				const int i = prod_at(chunk % 2 * 8 + c, h, 0);

				((uint32_t *)(o.piece + gpu_tile_at(o.lane / 4 + 8 * h, c, 8)))[o.lane % 4] =
				        gpu_pack_bf16(d[chunk / 2][i], d[chunk / 2][i + 1]);
			}
		}
		gpu_sync_wave();
#pragma unroll
		for (int i = 0; i < 4; i++) {
			uint4 v = o.piece[gpu_tile_at(o.line(i), o.lane % 8, 8)];
			uint4 *const to = (uint4 *)((gpu_bf16 *)a.out.p + (size_t)(o.row + o.line(i)) * a.out.ld + col);

			if (!o.has(i) || col >= t.col_end)
				continue;
			if (a.accumulate) {
				const uint4 old = *to;

				v.x = prod_add_bf16(v.x, old.x), v.y = prod_add_bf16(v.y, old.y);
				v.z = prod_add_bf16(v.z, old.z), v.w = prod_add_bf16(v.w, old.w);
			}
			*to = v;
		}
		gpu_sync_wave();
	}
}

/* Gate and up: the greatest of a row's 128 columns is known to the four lanes that have them. */
GPU_FN void prod_put_gated(const prod_args &a, const prod_tile &t, const prod_way_out &o, float (&gate)[64],
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
			a.q_scale[(size_t)(t.col / PROD_COLS) * a.ld_q_scale + row] = most[h] * (1.0f / 448.0f);
		most[h] = 448.0f * gpu_inverse(most[h]);
	}
#pragma unroll
	for (int j = 0; j < 16; j++) {
#pragma unroll
		for (int h = 0; h < 2; h++)
			((uint16_t *)(o.piece + gpu_tile_at(o.lane / 4 + 8 * h, j / 2, 8)))[j % 2 * 4 + o.lane % 4] =
			        (uint16_t)gpu_pack_e4m3(gate[prod_at(j, h, 0)] * most[h],
			                                gate[prod_at(j, h, 1)] * most[h]);
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

/* Of a tile; PARTS: this block's part of its columns, whose sums are the first of d. F32: old as prod_get_f32<0>()
 * gives it. */
template <class F>
GPU_FN void prod_put(const prod_args &a, const prod_tile &t, const prod_way_out &o, float (&d)[F::HALVES][64],
                     const float4 (&old)[4])
{
	if constexpr (F::GATED && F::EIGHT) {
		prod_put_gated(a, t, o, d[0], d[F::HALVES - 1]);
	} else if constexpr ((bool)F::GATED) {
#pragma unroll
		for (int i = 0; i < 64; i++)
			d[0][i] = gk_act(KN_ACT_SILU, d[0][i], d[F::HALVES - 1][i]);
		prod_put_bf16<2>(a, t, o, d);
	} else if constexpr (!F::F32) {
		prod_put_bf16<F::PARTS == 1 ? 2 * F::HALVES : F::OWN / 32>(a, t, o, d);
	} else {
		prod_put_f32<0, F::PARTS == 1 ? 4 * F::HALVES : F::OWN / 16>(a, t, o, d, old);
	}
}

/* ---- Parts of sums ----------------------------------------------------------------------------------------------- */

/* The first of a half's pieces that block `rank` of the cluster adds up. */
template <class F> GPU_FN constexpr uint32_t prod_first_piece(uint32_t rank)
{
	return F::PIECES * rank / F::PARTS;
}

/* Bytes that the others send to block `rank`. */
template <class F> GPU_FN uint32_t prod_bytes_sent_to(uint32_t rank)
{
	return (F::PARTS - 1) * (prod_first_piece<F>(rank + 1) - prod_first_piece<F>(rank)) * 16 * 4 * PROD_COMPUTE;
}

/* Each block sends the others what it has of their parts of the columns, and keeps what it has of its own; the tile
 * becomes its part. */
template <class F>
GPU_FN void prod_send(const prod_memory<F> &m, uint32_t rank, const float (&d)[64], float (&own)[F::OWN], prod_tile *t)
{
	const uint32_t end = t->col + prod_first_piece<F>(rank + 1) * 32;

#pragma unroll
	for (int to = 0; to < F::PARTS; to++) {
		const int first = (int)prod_first_piece<F>((uint32_t)to) * 16,
		          behind = (int)prod_first_piece<F>((uint32_t)to + 1) * 16;

		if (to == (int)rank) {
#pragma unroll
			for (int i = 0; i < F::OWN; i++)
				own[i] = first + i < behind ? d[first + i < 64 ? first + i : 63] : 0.0f;
			continue;
		}
#pragma unroll
		for (int i = first; i < behind; i += 4)
			sm90_send(m.others(rank, (uint32_t)to, (uint32_t)(i - first) / 4), (uint32_t)to,
			          make_float4(d[i], d[i + 1], d[i + 2], d[i + 3]), &m.signals()->others);
	}
	t->col += prod_first_piece<F>(rank) * 32;
	t->col_end = t->col_end < end ? t->col_end : end;
}

/* What all have of this block's part, added up in the order of the parts: the first OWN of its sums. Once in a launch.
 */
template <class F>
GPU_FN void prod_add_up(const prod_memory<F> &m, uint32_t rank, const float (&own)[F::OWN], float (&d)[64])
{
	const int n = (int)(prod_first_piece<F>(rank + 1) - prod_first_piece<F>(rank)) * 16;

	sm90_bar_wait_for_all(&m.signals()->others, 0);
#pragma unroll
	for (int i = 0; i < F::OWN; i++)
		d[i] = 0.0f;
#pragma unroll
	for (int from = 0; from < F::PARTS; from++) {
#pragma unroll
		for (int i = 0; i < F::OWN; i += 4) {
			const float4 v = from == (int)rank ? make_float4(own[i], own[i + 1], own[i + 2], own[i + 3])
			                 : i < n           ? *m.others((uint32_t)from, rank, (uint32_t)i / 4)
			                                   : make_float4(0.0f, 0.0f, 0.0f, 0.0f);

			d[i] += v.x, d[i + 1] += v.y, d[i + 2] += v.z, d[i + 3] += v.w;
		}
	}
}

#endif
#endif
