/* Weight matrices on the device: how each type lies in memory, and how a lane turns what it loads into bfloat16.
 *
 * F32, F16, BF16   row-major, ld a multiple of 64 with zeros beyond the columns.
 * FP8              the same, a byte each; scales: a line of gk_fp8_across() floats for each 128 rows, first_row first.
 * Block types      rows in blocks of 8, columns in units (64 for Q8_0, else 128), so that a wave's loads are
 *                  consecutive:
 *   values  [row block][unit][8 rows][4 lanes] of 16 bytes
 *   high    Q5: [row block][unit][8][4] of 4 bytes; Q6_K: of 8
 *   scales  [row block][unit][8] of gk_scale_bytes() each; Q4_K and Q5_K: [row block][unit / 2][8] of 16, the first
 *           16 bytes of the file's block as they are
 *
 * Order of columns. Lane group t (0..3) of a chunk of 32 columns holds 8 of them, elements e = 0..7:
 *   order 0 (16 bits)  column 8 t + e
 *   order 1 (blocks)   column 4 t + e for e < 4, 16 + 4 t + e - 4 beyond: each half belongs to 16 columns (Q6_K's
 * scale) order 2 (FP8)      chunks come in pairs: column 16 t + 8 c + e of 64, e being 0 2 1 3 4 6 5 7
 *   order 3 (FP8 widened two at a time)  the same in line, e being 0 1 2 3 4 5 6 7
 * Values of a product's other side are put into the same order (gk_column()).
 *
 * 4-bit elements of a chunk lie in one word: element 2 j in nibble j, 2 j + 1 in nibble j + 4. Fifth bits of chunk c:
 * element 2 j in bit 4 c + j, 2 j + 1 in bit 16 + 4 c + j. Q6_K's high pairs: the same with two bits each, chunks 0 and
 * 1 in the first word. 8-bit elements of a chunk: two words, elements 0..3 in bytes 0 2 1 3 of the first. */
#ifndef GPU_MAT_H
#define GPU_MAT_H

#include "gpu/gpu.h"
#include "gpu/gpu_mma.h"
#include "gpu/launch.h"

#define GK_HD static __host__ __device__ inline __attribute__((unused))

/* FP8_128 whose rows are multiples of 128 bytes, as products of few rows take it on CUDA: widened by one instruction
 * for two values, to binary16, which the other side then is too. Not a type of matrices. */
enum { GK_FP8_WIDE = 0x200 };

GK_HD bool gk_is_blocks(uint32_t type)
{
	return (type >= KN_Q8_0 && type < KN_N_DTYPES) || type == KN_MXFP4;
}

/* Columns that a wave takes at a time. */
GK_HD uint32_t gk_unit(uint32_t type)
{
	if (type == KN_F32)
		return 32;
	return (gk_is_blocks(type) && type != KN_Q8_0) || type == GK_FP8_WIDE ? 128 : 64;
}

GK_HD uint32_t gk_order(uint32_t type)
{
	return type == GK_FP8_WIDE ? 3 : type == GK_FP8_128 ? 2 : gk_is_blocks(type) ? 1 : 0;
}

GK_HD uint32_t gk_n_units(const gk_mat &m)
{
	return (m.cols + gk_unit(m.type) - 1) / gk_unit(m.type);
}

/* Of one row and unit (Q4_K, Q5_K: of two units). */
GK_HD uint32_t gk_scale_bytes(uint32_t type)
{
	switch (type) {
	case KN_Q8_0:
	case KN_MXFP4:
		return 4;
	case KN_Q4_0:
	case KN_Q5_0:
		return 8;
	case KN_Q6_K:
		return 12;
	default:
		return 16;
	}
}

/* Of one row, unit and lane. */
GK_HD uint32_t gk_high_bytes(uint32_t type)
{
	return type == KN_Q6_K ? 8 : type == KN_Q5_0 || type == KN_Q5_1 || type == KN_Q5_K ? 4 : 0;
}

/* Column, within its unit, of element e of lane group t in chunk c. */
GK_HD uint32_t gk_column(uint32_t order, uint32_t c, uint32_t t, uint32_t e)
{
	if (order == 0)
		return 32 * c + 8 * t + e;
	if (order == 1)
		return 32 * c + (e & 4) * 4 + 4 * t + (e & 3);
	if (order == 3)
		return 64 * (c >> 1) + 16 * t + 8 * (c & 1) + e;
	return 64 * (c >> 1) + 16 * t + 8 * (c & 1) + (e & 4) + ((e & 1) << 1 | (e >> 1 & 1));
}

/* FP8: floats of a line of scales, as the library that multiplies by them wants it. */
GK_HD uint32_t gk_fp8_across(uint32_t cols)
{
	return ((cols + 127) / 128 + 3) & ~3u;
}

/* ---- One lane's elements ------------------------------------------------------------------------------------- */

/* a - b of two pairs of bfloat16, exact here. */
GPU_FN uint32_t gk_sub_bf16(uint32_t a, uint32_t b)
{
#if GPU_PTX
	uint32_t r;

	/* -1 times b, plus a: one rounding, and sm_80 has it */
	asm("fma.rn.bf16x2 %0, %1, %2, %3;" : "=r"(r) : "r"(b), "r"(0xbf80bf80u), "r"(a));
	return r;
#else
	return gpu_pack_exact(gpu_bf16_low(a) - gpu_bf16_low(b), gpu_bf16_high(a) - gpu_bf16_high(b));
#endif
}

enum { GK_RAISED = 128 };
/* GK_RAISED + q of small integers is 0x4300 | q in bfloat16. */
template <int ZERO> GPU_FN uint32_t gk_small_to_bf16(uint32_t pair)
{
	const uint32_t zero = 0x4300u + ZERO;

	return gk_sub_bf16(pair | 0x43004300u, zero | zero << 16);
}

/* Signed bytes in the low halves of a word's two parts. */
GPU_FN uint32_t gk_bytes_to_bf16(uint32_t pair)
{
	return gk_sub_bf16((pair & 0x007f007fu) | 0x43004300u, (pair & 0x00800080u) | 0x43004300u);
}

/* e4m3 in the same places: its bits, moved, are a bfloat16 2^120 times too small. */
GPU_FN uint32_t gk_e4m3_to_bf16(uint32_t pair)
{
	const uint32_t bits = (pair << 4 & 0x07f007f0u) | (pair << 8 & 0x80008000u);
#if GPU_PTX
	uint32_t r;

	asm("fma.rn.bf16x2 %0, %1, %2, %3;" : "=r"(r) : "r"(bits), "r"(0x7b807b80u), "r"(0x80008000u));
	return r;
#else
	return gpu_pack_exact(gpu_bf16_low(bits) * 1.329227995784916e36f, gpu_bf16_high(bits) * 1.329227995784916e36f);
#endif
}

/* e2m1 in the lowest bits of a word's two parts: their bits, moved, are a bfloat16 2^126 times too small. */
GPU_FN uint32_t gk_e2m1_to_bf16(uint32_t pair)
{
	const uint32_t bits = (pair << 6 & 0x01c001c0u) | (pair << 12 & 0x80008000u);
#if GPU_PTX
	uint32_t r;

	asm("fma.rn.bf16x2 %0, %1, %2, %3;" : "=r"(r) : "r"(bits), "r"(0x7e807e80u), "r"(0x80008000u));
	return r;
#else
	return gpu_pack_exact(gpu_bf16_low(bits) * 8.507059173023462e37f, gpu_bf16_high(bits) * 8.507059173023462e37f);
#endif
}

/* 2 to the power of an e8m0, where 2^-127 counts as nothing. */
GPU_FN float gk_e8m0(uint32_t b)
{
	return gpu_float(b << 23);
}

/* Sub-scale s of a Q4_K or Q5_K block: x = *d q - *m. */
GPU_FN void gk_k_scale(const uint4 &head, uint32_t s, float *d, float *m)
{
	const uint32_t low = s & 3, shift = 8 * low;
	uint32_t sc, mn;

	if (s < 4) {
		sc = head.y >> shift & 63u;
		mn = head.z >> shift & 63u;
	} else {
		sc = (head.w >> shift & 15u) | (head.y >> shift >> 6 & 3u) << 4;
		mn = (head.w >> shift >> 4 & 15u) | (head.z >> shift >> 6 & 3u) << 4;
	}
	*d = gpu_from_f16((gpu_f16)head.x) * (float)sc;
	*m = gpu_from_f16((gpu_f16)(head.x >> 16)) * (float)mn;
}

/* Where a lane finds its part of a row: unit u lies u * VALUE_STEP (HIGH_STEP) bytes further, and the row 8 below
 * step8_values() (step8_high()) further, which for block types is the next row block. */
struct gk_at {
	const uint8_t *values, *high;
};

struct gk_no_scale {
};

/* Per type:
 *   where(mat, row, t, n_units), fetch(raw, at, unit)   what lane group t holds of a row's unit
 *   piece(raw, c)                  its 8 values of chunk c, before scales
 *   scale_where(mat, row, n_units), fetch_scale(scale, p, unit): SCALE_ROW bytes from a row to the next of its 8,
 *                                  step8_scale() to the row 8 below
 *   get_scale(scale, unit, c, half, &d, &m)             value = d * piece - m
 *   raised(raw, c)                 types with MINS: GK_RAISED more than piece(), for fewer instructions
 * SCALED: 0 no scales, 1 one for each chunk, 2 for each half of it, 3 one for each unit. MINS: m is not 0. */
template <uint32_t TYPE> struct gk_format;

/* Their scales are packed too. */
constexpr bool gk_is_k(uint32_t type)
{
	return type == KN_Q4_K || type == KN_Q5_K || type == KN_Q6_K;
}

#define GK_METHOD static __device__ __forceinline__

/* Types that lie row-major, BYTES each. */
template <int BYTES> struct gk_row_major {
	enum { UNIT = 64, CHUNKS = 2, VALUE_STEP = 64 * BYTES, HIGH_LANE = 0 };
	GK_METHOD gk_at where(const gk_mat &m, uint32_t row, uint32_t t, uint32_t)
	{
		gk_at at = { (const uint8_t *)m.values + (size_t)row * m.ld * BYTES + t * 16, nullptr };

		return at;
	}
	GK_METHOD uint32_t step8_values(const gk_mat &m, uint32_t)
	{
		return m.ld * 8 * BYTES;
	}
	GK_METHOD uint32_t step8_high(uint32_t)
	{
		return 0;
	}
};

template <> struct gk_format<KN_BF16> : gk_row_major<2> {
	enum { ORDER = 0, SCALED = 0, MINS = 0, SCALE_ROW = 0 };
	struct raw {
		uint4 v[2];
	};
	typedef gk_no_scale scale;
	GK_METHOD void fetch(raw &r, const gk_at &at, uint32_t unit)
	{
		r.v[0] = gpu_load_stream(at.values + (size_t)unit * VALUE_STEP);
		r.v[1] = gpu_load_stream(at.values + (size_t)unit * VALUE_STEP + 64);
	}
	GK_METHOD uint4 piece(const raw &r, int c)
	{
		return r.v[c];
	}
	GK_METHOD const uint8_t *scale_where(const gk_mat &, uint32_t, uint32_t)
	{
		return nullptr;
	}
	GK_METHOD uint32_t step8_scale(uint32_t)
	{
		return 0;
	}
	GK_METHOD void fetch_scale(scale &, const uint8_t *, uint32_t)
	{
	}
	GK_METHOD void get_scale(const scale &, uint32_t, int, int, float *d, float *m)
	{
		*d = 1.0f, *m = 0.0f;
	}
};

/* Rounded to bfloat16 here; piece_rest() gives what that loses. */
template <> struct gk_format<KN_F16> : gk_format<KN_BF16> {
	GK_METHOD uint4 piece(const raw &r, int c)
	{
		const uint32_t w[4] = { r.v[c].x, r.v[c].y, r.v[c].z, r.v[c].w };
		uint32_t o[4];

#pragma unroll
		for (int i = 0; i < 4; i++)
			o[i] = gpu_pack_bf16(gpu_from_f16((gpu_f16)w[i]), gpu_from_f16((gpu_f16)(w[i] >> 16)));
		return make_uint4(o[0], o[1], o[2], o[3]);
	}
	GK_METHOD uint4 piece_rest(const raw &r, int c)
	{
		const uint4 head = piece(r, c);
		const uint32_t w[4] = { r.v[c].x, r.v[c].y, r.v[c].z, r.v[c].w };
		const uint32_t h[4] = { head.x, head.y, head.z, head.w };
		uint32_t o[4];

#pragma unroll
		for (int i = 0; i < 4; i++)
			o[i] = gpu_pack_bf16(gpu_from_f16((gpu_f16)w[i]) - gpu_bf16_low(h[i]),
			                     gpu_from_f16((gpu_f16)(w[i] >> 16)) - gpu_bf16_high(h[i]));
		return make_uint4(o[0], o[1], o[2], o[3]);
	}
};

template <> struct gk_format<GK_FP8_128> : gk_row_major<1> {
	enum { ORDER = 2, SCALED = 3, MINS = 0, SCALE_ROW = 0 };
	struct raw {
		uint4 v;
	};
	typedef float scale;
	GK_METHOD void fetch(raw &r, const gk_at &at, uint32_t unit)
	{
		r.v = gpu_load_stream(at.values + (size_t)unit * VALUE_STEP);
	}
	GK_METHOD uint4 piece(const raw &r, int c)
	{
		const uint32_t a = c ? r.v.z : r.v.x, b = c ? r.v.w : r.v.y;

		return make_uint4(gk_e4m3_to_bf16(a), gk_e4m3_to_bf16(a >> 8), gk_e4m3_to_bf16(b),
		                  gk_e4m3_to_bf16(b >> 8));
	}
	/* The 16 rows of a tile lie in one block of 128. */
	GK_METHOD const uint8_t *scale_where(const gk_mat &m, uint32_t row, uint32_t)
	{
		return (const uint8_t *)((const float *)m.scales +
		                         (size_t)((m.first_row + row) >> 7) * gk_fp8_across(m.cols));
	}
	GK_METHOD uint32_t step8_scale(uint32_t)
	{
		return 0;
	}
	GK_METHOD void fetch_scale(scale &s, const uint8_t *p, uint32_t unit)
	{
		s = ((const float *)p)[unit >> 1];
	}
	GK_METHOD void get_scale(const scale &s, uint32_t, int, int, float *d, float *m)
	{
		*d = s, *m = 0.0f;
	}
};

/* A unit is the 128 columns that share a scale: 16 bytes of each 64. */
template <> struct gk_format<GK_FP8_WIDE> : gk_row_major<1> {
	enum { UNIT = 128, CHUNKS = 4, VALUE_STEP = 128, ORDER = 3, SCALED = 3, MINS = 0, SCALE_ROW = 0 };
	struct raw {
		uint4 v[2];
	};
	typedef float scale;
	GK_METHOD void fetch(raw &r, const gk_at &at, uint32_t unit)
	{
		r.v[0] = gpu_load_stream(at.values + (size_t)unit * VALUE_STEP);
		r.v[1] = gpu_load_stream(at.values + (size_t)unit * VALUE_STEP + 64);
	}
	/* Four in line, as gpu_mma<.., true>() takes them. */
	template <int HALF> static __device__ __forceinline__ uint32_t two(uint32_t four)
	{
		return gpu_widen2<HALF>(four);
	}
	GK_METHOD uint4 piece(const raw &r, int c)
	{
		const uint4 v = r.v[c >> 1];
		const uint32_t a = c & 1 ? v.z : v.x, b = c & 1 ? v.w : v.y;

		return make_uint4(two<0>(a), two<1>(a), two<0>(b), two<1>(b));
	}
	GK_METHOD const uint8_t *scale_where(const gk_mat &m, uint32_t row, uint32_t n_units)
	{
		return gk_format<GK_FP8_128>::scale_where(m, row, n_units);
	}
	GK_METHOD uint32_t step8_scale(uint32_t)
	{
		return 0;
	}
	GK_METHOD void fetch_scale(scale &s, const uint8_t *p, uint32_t unit)
	{
		s = ((const float *)p)[unit];
	}
	GK_METHOD void get_scale(const scale &s, uint32_t, int, int, float *d, float *m)
	{
		*d = s, *m = 0.0f;
	}
};

/* Types of blocks, HIGH bytes of each lane's unit apart, SCALE bytes of each row's (K: of two units'). */
template <int COLUMNS, int HIGH, int SCALE, bool K> struct gk_row_blocks {
	enum {
		UNIT = COLUMNS,
		CHUNKS = COLUMNS / 32,
		ORDER = 1,
		VALUE_STEP = 512,
		HIGH_STEP = 32 * HIGH,
		HIGH_LANE = HIGH,
		SCALE_STEP = 8 * SCALE,
		SCALE_ROW = SCALE,
	};
	GK_METHOD gk_at where(const gk_mat &m, uint32_t row, uint32_t t, uint32_t n_units)
	{
		const size_t lane = ((size_t)(row >> 3) * n_units * 8 + (row & 7)) * 4 + t;
		gk_at at = { (const uint8_t *)m.values + lane * 16,
			     HIGH ? (const uint8_t *)m.high + lane * HIGH : nullptr };

		return at;
	}
	GK_METHOD uint32_t step8_values(const gk_mat &, uint32_t n_units)
	{
		return n_units * VALUE_STEP;
	}
	GK_METHOD uint32_t step8_high(uint32_t n_units)
	{
		return n_units * HIGH_STEP;
	}
	GK_METHOD const uint8_t *scale_where(const gk_mat &m, uint32_t row, uint32_t n_units)
	{
		return (const uint8_t *)m.scales +
		       ((size_t)(row >> 3) * (K ? n_units / 2 : n_units) * 8 + (row & 7)) * SCALE;
	}
	GK_METHOD uint32_t step8_scale(uint32_t n_units)
	{
		return (K ? n_units / 2 : n_units) * SCALE_STEP;
	}
	GK_METHOD const uint8_t *scale_at(const uint8_t *p, uint32_t unit)
	{
		return p + (size_t)(K ? unit / 2 : unit) * SCALE_STEP;
	}
};

template <> struct gk_format<KN_Q8_0> : gk_row_blocks<64, 0, 4, false> {
	enum { SCALED = 1, MINS = 0 };
	struct raw {
		uint4 v;
	};
	typedef uint32_t scale;
	GK_METHOD void fetch(raw &r, const gk_at &at, uint32_t unit)
	{
		r.v = gpu_load_stream(at.values + (size_t)unit * VALUE_STEP);
	}
	GK_METHOD uint4 piece(const raw &r, int c)
	{
		const uint32_t a = c ? r.v.z : r.v.x, b = c ? r.v.w : r.v.y;

		return make_uint4(gk_bytes_to_bf16(a), gk_bytes_to_bf16(a >> 8), gk_bytes_to_bf16(b),
		                  gk_bytes_to_bf16(b >> 8));
	}
	GK_METHOD void fetch_scale(scale &s, const uint8_t *p, uint32_t unit)
	{
		s = gpu_load_stream4(scale_at(p, unit));
	}
	GK_METHOD void get_scale(const scale &s, uint32_t, int c, int, float *d, float *m)
	{
		*d = gpu_from_f16((gpu_f16)(c ? s >> 16 : s)), *m = 0.0f;
	}
};

/* What the 4-, 5- and 6-bit types share. BITS beyond four come from `high`; ZERO is what a stored 0 stands for,
 * negated. */
template <int BITS, int ZERO, int SCALE, bool K>
struct gk_nibbles : gk_row_blocks<128,
                                  BITS == 6   ? 8
                                  : BITS == 5 ? 4
                                              : 0,
                                  SCALE, K> {
	typedef gk_row_blocks<128, BITS == 6 ? 8 : BITS == 5 ? 4 : 0, SCALE, K> base;
	struct raw {
		uint4 v;
		uint32_t h[BITS == 6 ? 2 : 1];
	};
	GK_METHOD void fetch(raw &r, const gk_at &at, uint32_t unit)
	{
		r.v = gpu_load_stream(at.values + (size_t)unit * base::VALUE_STEP);
		if (BITS == 5) {
			r.h[0] = gpu_load_stream4(at.high + (size_t)unit * base::HIGH_STEP);
		} else if (BITS == 6) {
			const uint2 h = gpu_load_stream8(at.high + (size_t)unit * base::HIGH_STEP);

			r.h[0] = h.x, r.h[BITS == 6] = h.y;
		}
	}
	/* Pair j of chunk c, an integer in each half. (A choice of values, +x, not of places, which would need
	 * addresses.) */
	GK_METHOD uint32_t pair(const raw &r, int c, int j)
	{
		const uint32_t v = c == 0 ? +r.v.x : c == 1 ? +r.v.y : c == 2 ? +r.v.z : +r.v.w;
		uint32_t q = v >> (4 * j) & 0x000f000fu;

		if (BITS == 5)
			q |= (r.h[0] >> (4 * c + j) & 0x00010001u) << 4;
		if (BITS == 6)
			q |= ((c & 2 ? +r.h[BITS == 6] : +r.h[0]) >> (8 * (c & 1) + 2 * j) & 0x00030003u) << 4;
		return q;
	}
	GK_METHOD uint4 piece(const raw &r, int c)
	{
		return make_uint4(gk_small_to_bf16<ZERO>(pair(r, c, 0)), gk_small_to_bf16<ZERO>(pair(r, c, 1)),
		                  gk_small_to_bf16<ZERO>(pair(r, c, 2)), gk_small_to_bf16<ZERO>(pair(r, c, 3)));
	}
	GK_METHOD uint4 raised(const raw &r, int c)
	{
		return make_uint4(pair(r, c, 0) | 0x43004300u, pair(r, c, 1) | 0x43004300u, pair(r, c, 2) | 0x43004300u,
		                  pair(r, c, 3) | 0x43004300u);
	}
};

template <int BITS, int ZERO> struct gk_symmetric : gk_nibbles<BITS, ZERO, 8, false> {
	enum { SCALED = 1, MINS = 0 };
	typedef uint2 scale;
	GK_METHOD void fetch_scale(scale &s, const uint8_t *p, uint32_t unit)
	{
		s = gpu_load_stream8(gk_symmetric::scale_at(p, unit));
	}
	GK_METHOD void get_scale(const scale &s, uint32_t, int c, int, float *d, float *m)
	{
		const uint32_t w = c & 2 ? +s.y : +s.x;

		*d = gpu_from_f16((gpu_f16)(c & 1 ? w >> 16 : w)), *m = 0.0f;
	}
};

template <int BITS> struct gk_affine : gk_nibbles<BITS, 0, 16, false> {
	enum { SCALED = 1, MINS = 1 };
	typedef uint4 scale;
	GK_METHOD void fetch_scale(scale &s, const uint8_t *p, uint32_t unit)
	{
		s = gpu_load_stream(gk_affine::scale_at(p, unit));
	}
	GK_METHOD void get_scale(const scale &s, uint32_t, int c, int, float *d, float *m)
	{
		const uint32_t w = c == 0 ? +s.x : c == 1 ? +s.y : c == 2 ? +s.z : +s.w;

		*d = gpu_from_f16((gpu_f16)w), *m = -gpu_from_f16((gpu_f16)(w >> 16));
	}
};

/* A unit is half a block: the first four sub-scales or the last, four in a word. */
template <int BITS> struct gk_k_affine : gk_nibbles<BITS, 0, 16, true> {
	enum { SCALED = 1, MINS = 1 };
	typedef uint4 scale;
	GK_METHOD void fetch_scale(scale &s, const uint8_t *p, uint32_t unit)
	{
		const uint4 v = *(const uint4 *)gk_k_affine::scale_at(p, unit);

		s = make_uint4(v.x, v.y, v.z, v.w); /* for AMD's compiler a copy of a whole struct is one of memory */
	}
	GK_METHOD void get_scale(const scale &s, uint32_t unit, int c, int, float *d, float *m)
	{
		const bool second = unit & 1;
		const uint32_t sc = second ? (s.w & 0x0f0f0f0fu) | (s.y >> 2 & 0x30303030u) : s.y & 0x3f3f3f3fu;
		const uint32_t mn = second ? (s.w >> 4 & 0x0f0f0f0fu) | (s.z >> 2 & 0x30303030u) : s.z & 0x3f3f3f3fu;

		*d = gpu_from_f16((gpu_f16)s.x) * (float)(sc >> (8 * c) & 0xffu);
		*m = gpu_from_f16((gpu_f16)(s.x >> 16)) * (float)(mn >> (8 * c) & 0xffu);
	}
};

template <> struct gk_format<KN_Q4_0> : gk_symmetric<4, 8> {
};
template <> struct gk_format<KN_Q5_0> : gk_symmetric<5, 16> {
};
template <> struct gk_format<KN_Q4_1> : gk_affine<4> {
};
template <> struct gk_format<KN_Q5_1> : gk_affine<5> {
};
template <> struct gk_format<KN_Q4_K> : gk_k_affine<4> {
};
template <> struct gk_format<KN_Q5_K> : gk_k_affine<5> {
};

template <> struct gk_format<KN_Q6_K> : gk_nibbles<6, 32, 12, false> {
	enum { SCALED = 2, MINS = 0 };
	struct scale {
		uint32_t sc[2], d; /* int8 for each 16 columns; binary16 */
	};
	GK_METHOD void fetch_scale(scale &s, const uint8_t *at, uint32_t unit)
	{
		const uint32_t *p = (const uint32_t *)scale_at(at, unit);

		s.sc[0] = p[0], s.sc[1] = p[1], s.d = p[2];
	}
	GK_METHOD void get_scale(const scale &s, uint32_t, int c, int half, float *d, float *m)
	{
		const uint32_t w = GPU_CHOOSE_OPERANDS ? (c & 2 ? +s.sc[1] : +s.sc[0]) : s.sc[c >> 1];
		const int sc = (int8_t)(w >> (16 * (c & 1) + 8 * half));

		*d = gpu_from_f16((gpu_f16)s.d) * (float)sc, *m = 0.0f;
	}
};

template <> struct gk_format<KN_MXFP4> : gk_nibbles<4, 0, 4, false> {
	enum { SCALED = 1, MINS = 0 };
	typedef uint32_t scale;
	GK_METHOD uint4 piece(const raw &r, int c)
	{
		const uint32_t v = c == 0 ? +r.v.x : c == 1 ? +r.v.y : c == 2 ? +r.v.z : +r.v.w;

		return make_uint4(gk_e2m1_to_bf16(v), gk_e2m1_to_bf16(v >> 4), gk_e2m1_to_bf16(v >> 8),
		                  gk_e2m1_to_bf16(v >> 12));
	}
	GK_METHOD void fetch_scale(scale &s, const uint8_t *p, uint32_t unit)
	{
		s = gpu_load_stream4(scale_at(p, unit));
	}
	GK_METHOD void get_scale(const scale &s, uint32_t, int c, int, float *d, float *m)
	{
		*d = gk_e8m0(s >> (8 * c) & 0xffu), *m = 0.0f;
	}
};

#endif
