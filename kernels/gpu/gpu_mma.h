/* Matrix units behind one shape: acc [16 x 16, float32] += A [16 x 32] B [16 x 32]^T, bfloat16, one wave.
 *
 * An operand of 16 rows and 32 columns (k) is cut into pieces of 8 columns, 16 bytes; each lane holds GPU_PIECES of
 * them, and gpu_piece_row(p), gpu_piece_col(p) say which. A sum does not mind the order of its terms, so both operands
 * may name their columns as they like as long as it is the same for both: that is why a lane can fetch a piece with
 * one 16-byte load from a row in memory. gpu_mma_half() takes the first or the last four columns of every piece, for
 * formats whose scale changes after 16 columns (see "order of columns" in mat.h).
 *
 * Result: element i of a lane is row gpu_acc_row(i), column gpu_acc_col(i); i runs over GPU_ACC elements that lie in
 * GPU_ACC_ROWS distinct rows, gpu_acc_slot(i) counting them; gpu_row_sum() and gpu_row_max() reduce over the lanes that
 * share a row.
 *
 * On AMD the two operands change places on their way into the instruction, whose layouts of them are the same: so a
 * lane's results are of one row of A, one scale or one maximum serves them all, and neighbouring lanes have
 * neighbouring rows.
 *
 *   NVIDIA           mma.sync m16n8k16, twice across          wave 32
 *   gfx90a, gfx942   mfma 16x16x16 bf16                       wave 64
 *   gfx950           mfma 16x16x32 bf16, halves as gfx942     wave 64
 *   gfx11, gfx12     wmma 16x16x16 bf16                       wave 32
 *   host             a model: of mma.sync for waves of 32, of mfma for 64 (of wmma with GPU_HOST_WMMA)
 *
 * Layouts: the vendors' instruction set manuals; those of AMD were checked in an emulator of the instructions. Operands
 * from shared memory and from results: gpu_tile.h. */
#ifndef GPU_MMA_H
#define GPU_MMA_H

#include "gpu/gpu.h"

#if defined(GPU_HOST)
#define GPU_MMA_MFMA (GPU_WAVE == 64)
#elif defined(GPU_HIP) && defined(__GFX9__)
#define GPU_MMA_MFMA 1
#else
#define GPU_MMA_MFMA 0
#endif
#if defined(GPU_HOST_WMMA) /* 11 or 12: the host stands for RDNA, with waves of 32 */
#define GPU_MMA_WMMA GPU_HOST_WMMA
#elif defined(GPU_HIP) && defined(__GFX11__)
#define GPU_MMA_WMMA 11
#elif defined(GPU_HIP) && defined(__GFX12__)
#define GPU_MMA_WMMA 12
#else
#define GPU_MMA_WMMA 0
#endif

#if GPU_MMA_MFMA
enum { GPU_PIECES = 1, GPU_ACC = 4, GPU_ACC_ROWS = 1 };
#elif GPU_MMA_WMMA == 11
enum { GPU_PIECES = 4, GPU_ACC = 8, GPU_ACC_ROWS = 1 };
#elif GPU_MMA_WMMA == 12
enum { GPU_PIECES = 2, GPU_ACC = 8, GPU_ACC_ROWS = 1 };
#else
enum { GPU_PIECES = 2, GPU_ACC = 8, GPU_ACC_ROWS = 2 };
#endif

/* Pieces of a lane lie in rows 8 apart; else in columns 8 apart. */
#if GPU_MMA_MFMA || GPU_MMA_WMMA
enum { GPU_PIECES_BY_ROW = 0 };
#else
enum { GPU_PIECES_BY_ROW = 1 };
#endif

struct gpu_frag {
	uint4 p[GPU_PIECES];
};
struct gpu_acc {
	float v[GPU_ACC];
};

/* Nothing is moved across it by the compiler, which on RDNA brings forward more loads than there are registers for. */
GPU_FN void gpu_hold()
{
#if GPU_AMD && GPU_MMA_WMMA
	__builtin_amdgcn_sched_barrier(0);
#endif
}

GPU_FN int gpu_lane()
{
	return (int)(threadIdx.x & (GPU_WAVE - 1));
}

GPU_FN int gpu_piece_row(int p)
{
#if GPU_MMA_MFMA || GPU_MMA_WMMA
	(void)p;
	return gpu_lane() & 15;
#else
	return (gpu_lane() >> 2) + 8 * p;
#endif
}

/* First column of piece p: 0, 8, 16 or 24. */
GPU_FN int gpu_piece_col(int p)
{
#if GPU_MMA_MFMA
	(void)p;
	return gpu_lane() >> 4 << 3;
#elif GPU_MMA_WMMA == 11
	return 8 * p;
#elif GPU_MMA_WMMA == 12
	return (gpu_lane() >> 4 << 4) + 8 * p;
#else
	(void)p;
	return (gpu_lane() & 3) << 3;
#endif
}

GPU_FN int gpu_acc_row(int i)
{
#if GPU_MMA_MFMA || GPU_MMA_WMMA
	(void)i;
	return gpu_lane() & 15;
#else
	return (gpu_lane() >> 2) + (i >> 1 & 1) * 8;
#endif
}

GPU_FN int gpu_acc_col(int i)
{
#if GPU_MMA_MFMA
	return (gpu_lane() >> 4 << 2) + i;
#elif GPU_MMA_WMMA == 11
	return 2 * i + (gpu_lane() >> 4);
#elif GPU_MMA_WMMA == 12
	return (gpu_lane() >> 4 << 3) + i;
#else
	return (gpu_lane() & 3) * 2 + (i & 1) + (i >> 2) * 8;
#endif
}

GPU_FN constexpr int gpu_acc_slot(int i)
{
#if GPU_MMA_MFMA || GPU_MMA_WMMA
	return (void)i, 0;
#else
	return i >> 1 & 1;
#endif
}

/* The row that slot s stands for. */
GPU_FN int gpu_slot_row(int s)
{
	return gpu_acc_row(2 * s);
}

/* Its distance from the row of slot 0, the same in all lanes. */
GPU_FN constexpr int gpu_slot_step(int s)
{
	return 8 * s;
}

/* Elements that are of columns 8 to 15 in every lane, which NARROW products leave out, begin here. */
#if GPU_MMA_MFMA || GPU_MMA_WMMA
enum { GPU_ACC_NARROW = GPU_ACC };
#else
enum { GPU_ACC_NARROW = GPU_ACC / 2 };
#endif

/* What the lane has that is `mask` away from this one within its wave. */
GPU_FN float gpu_wave_xor(float v, int mask)
{
#if GPU_AMD
	return __shfl_xor(v, mask, GPU_WAVE);
#elif defined(GPU_HOST)
	return gpu_host::exchange_wave(v, (gpu_host::current & (GPU_WAVE - 1)) ^ mask, GPU_WAVE);
#else
	return gpu_shfl_xor(v, mask);
#endif
}

/* The lanes of a row are this far apart, from 1 or 16 on. */
#if GPU_MMA_MFMA || GPU_MMA_WMMA
enum { GPU_ROW_NEAR = 16, GPU_ROW_END = GPU_WAVE };
#else
enum { GPU_ROW_NEAR = 1, GPU_ROW_END = 4 };
#endif

GPU_FN float gpu_row_sum(float v)
{
	for (int m = GPU_ROW_NEAR; m < GPU_ROW_END; m <<= 1)
		v += gpu_wave_xor(v, m);
	return v;
}

GPU_FN float gpu_row_max(float v)
{
	for (int m = GPU_ROW_NEAR; m < GPU_ROW_END; m <<= 1)
		v = fmaxf(v, gpu_wave_xor(v, m));
	return v;
}

/* Loops over the elements of results whose body is long, for gpu_acc_at(): code for each of them on NVIDIA, once on
 * AMD, whose branches reach 128 KiB. */
#if defined(GPU_HIP)
#define GPU_EACH_RESULT _Pragma("unroll 1")
#else
#define GPU_EACH_RESULT _Pragma("unroll")
#endif

GPU_FN float gpu_acc_at(const gpu_acc &c, int i)
{
#if GPU_AMD
	typedef float vec __attribute__((ext_vector_type(GPU_ACC)));

	return __builtin_bit_cast(vec, c)[i];
#else
	return c.v[i];
#endif
}

GPU_FN gpu_acc gpu_acc_zero()
{
	gpu_acc z;

#pragma unroll
	for (int i = 0; i < GPU_ACC; i++)
		z.v[i] = 0.0f;
	return z;
}

/* ---- The product -------------------------------------------------------------------------------------------- */

#if GPU_PTX
template <bool WIDENED>
GPU_FN void gpu_mma8(float *d, uint32_t a0, uint32_t a1, uint32_t a2, uint32_t a3, uint32_t b0, uint32_t b1)
{
	if (WIDENED)
		asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, "
		             "{%0,%1,%2,%3};"
		             : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
		             : "r"(a0), "r"(a1), "r"(a2), "r"(a3), "r"(b0), "r"(b1));
	else
		asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, "
		             "{%8,%9}, {%0,%1,%2,%3};"
		             : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
		             : "r"(a0), "r"(a1), "r"(a2), "r"(a3), "r"(b0), "r"(b1));
}

/* half 0 or 1; columns 0..7 of B only when `narrow` (rows 8..15 of its operand are not looked at). WIDENED: operands of
 * the type that e4m3 is widened to (below). */
template <int HALF, bool NARROW, bool WIDENED = false>
GPU_FN void gpu_mma_half(gpu_acc &c, const gpu_frag &a, const gpu_frag &b)
{
	if (HALF == 0) {
		gpu_mma8<WIDENED>(c.v, a.p[0].x, a.p[1].x, a.p[0].y, a.p[1].y, b.p[0].x, b.p[0].y);
		if (!NARROW)
			gpu_mma8<WIDENED>(c.v + 4, a.p[0].x, a.p[1].x, a.p[0].y, a.p[1].y, b.p[1].x, b.p[1].y);
	} else {
		gpu_mma8<WIDENED>(c.v, a.p[0].z, a.p[1].z, a.p[0].w, a.p[1].w, b.p[0].z, b.p[0].w);
		if (!NARROW)
			gpu_mma8<WIDENED>(c.v + 4, a.p[0].z, a.p[1].z, a.p[0].w, a.p[1].w, b.p[1].z, b.p[1].w);
	}
}
#elif defined(GPU_HIP) && (GPU_MMA_MFMA || GPU_MMA_WMMA)
#if GPU_MMA_MFMA
typedef short gpu_s4 __attribute__((ext_vector_type(4)));
typedef float gpu_f4 __attribute__((ext_vector_type(4)));

template <int HALF, bool NARROW, bool WIDENED = false>
GPU_FN void gpu_mma_half(gpu_acc &c, const gpu_frag &a, const gpu_frag &b)
{
	const uint2 ua = HALF ? make_uint2(a.p[0].z, a.p[0].w) : make_uint2(a.p[0].x, a.p[0].y);
	const uint2 ub = HALF ? make_uint2(b.p[0].z, b.p[0].w) : make_uint2(b.p[0].x, b.p[0].y);
	gpu_f4 acc = { c.v[0], c.v[1], c.v[2], c.v[3] };

	acc = __builtin_amdgcn_mfma_f32_16x16x16bf16_1k(__builtin_bit_cast(gpu_s4, ub), __builtin_bit_cast(gpu_s4, ua),
	                                                acc, 0, 0, 0);
	for (int i = 0; i < 4; i++)
		c.v[i] = acc[i];
}
#else
typedef float gpu_f8 __attribute__((ext_vector_type(8)));
#if GPU_MMA_WMMA == 11
typedef short gpu_s16 __attribute__((ext_vector_type(16)));
#else
typedef short gpu_s8 __attribute__((ext_vector_type(8)));
#endif

template <int HALF, bool NARROW, bool WIDENED = false>
GPU_FN void gpu_mma_half(gpu_acc &c, const gpu_frag &a, const gpu_frag &b)
{
	struct half {
		uint2 v[GPU_PIECES];
	} ha, hb;
	gpu_f8 acc;

	for (int p = 0; p < GPU_PIECES; p++) {
		ha.v[p] = HALF ? make_uint2(a.p[p].z, a.p[p].w) : make_uint2(a.p[p].x, a.p[p].y);
		hb.v[p] = HALF ? make_uint2(b.p[p].z, b.p[p].w) : make_uint2(b.p[p].x, b.p[p].y);
	}
	for (int i = 0; i < 8; i++)
		acc[i] = c.v[i];
#if GPU_MMA_WMMA == 11
	acc = __builtin_amdgcn_wmma_f32_16x16x16_bf16_w32(__builtin_bit_cast(gpu_s16, hb),
	                                                  __builtin_bit_cast(gpu_s16, ha), acc);
#else
	acc = __builtin_amdgcn_wmma_f32_16x16x16_bf16_w32_gfx12(__builtin_bit_cast(gpu_s8, hb),
	                                                        __builtin_bit_cast(gpu_s8, ha), acc);
#endif
	for (int i = 0; i < 8; i++)
		c.v[i] = acc[i];
}
#endif
#elif defined(GPU_HOST)
/* Who holds the piece of columns 8 k to 8 k + 7 of a row. */
struct gpu_place {
	int lane, piece;
};
static inline gpu_place gpu_place_of(int row, int k)
{
	if (GPU_MMA_MFMA)
		return { k * 16 + row, 0 };
	if (GPU_MMA_WMMA == 11)
		return { row, k }; /* and lane row + 16 */
	if (GPU_MMA_WMMA == 12)
		return { (k >> 1) * 16 + row, k & 1 };
	return { (row & 7) * 4 + k, row >> 3 };
}

/* The model: every lane shows its pieces, then sums its own elements. Only its own accessors say who holds what, as on
 * the device. */
template <int HALF, bool NARROW, bool WIDENED = false>
GPU_FN void gpu_mma_half(gpu_acc &c, const gpu_frag &a, const gpu_frag &b)
{
	using namespace gpu_host;
	int me = current, first = me & ~(GPU_WAVE - 1), parity_now = parity[me] ^= 1;
	const int n_cols = NARROW && GPU_PIECES_BY_ROW ? 8 : 16;

	static_assert(2 * sizeof(gpu_frag) <= SLOT, "both operands fit a slot");
	memcpy(slots[parity_now][me], &a, sizeof(a));
	memcpy(slots[parity_now][me] + sizeof(a), &b, sizeof(b));
	wait_group(GPU_WAVE);
	for (int i = 0; i < GPU_ACC; i++) {
		int row = gpu_acc_row(i), col = gpu_acc_col(i);

		if (col >= n_cols)
			continue;
		for (int group = 0; group < 4; group++) { /* pieces of a row */
			const gpu_place at_a = gpu_place_of(row, group), at_b = gpu_place_of(col, group);
			gpu_bf16 va[4], vb[4];

			memcpy(va, slots[parity_now][first + at_a.lane] + 16 * at_a.piece + 8 * HALF, 8);
			memcpy(vb, slots[parity_now][first + at_b.lane] + sizeof(a) + 16 * at_b.piece + 8 * HALF, 8);
			for (int k = 0; k < 4; k++)
				c.v[i] += gpu_from_bf16(va[k]) * gpu_from_bf16(vb[k]);
		}
	}
}
#else /* the host's pass over device code: never runs */
template <int HALF, bool NARROW, bool WIDENED = false>
GPU_FN void gpu_mma_half(gpu_acc &c, const gpu_frag &a, const gpu_frag &b)
{
	(void)c, (void)a, (void)b;
}
#endif

template <bool NARROW, bool WIDENED = false> GPU_FN void gpu_mma(gpu_acc &c, const gpu_frag &a, const gpu_frag &b)
{
#if defined(GPU_HIP) && defined(__gfx950__)
	typedef __bf16 b8 __attribute__((ext_vector_type(8)));
	gpu_f4 acc = { c.v[0], c.v[1], c.v[2], c.v[3] };

	acc = __builtin_amdgcn_mfma_f32_16x16x32_bf16(__builtin_bit_cast(b8, b.p[0]), __builtin_bit_cast(b8, a.p[0]),
	                                              acc, 0, 0, 0);
	for (int i = 0; i < 4; i++)
		c.v[i] = acc[i];
#else
	gpu_mma_half<0, NARROW, WIDENED>(c, a, b);
	gpu_mma_half<1, NARROW, WIDENED>(c, a, b);
#endif
}

/* ---- Operands of e4m3 --------------------------------------------------------------------------------------------
 *
 * They are widened on the way from shared memory, exactly: to binary16 where one instruction does it (NVIDIA), to
 * bfloat16 elsewhere. The other operand of such a product comes from gpu_pack<true>() and gpu_tile_frag_wide() or
 * gpu_acc_frag<true>() (gpu_tile.h). */

/* Two floats as an operand holds them; those beyond binary16 end at its largest where it is the type. */
template <bool WIDENED> GPU_FN uint32_t gpu_pack(float low, float high)
{
#if GPU_PTX
	if (WIDENED) {
		const float most = 65504.0f;
		uint32_t r;

		low = fminf(fmaxf(low, -most), most);
		high = fminf(fmaxf(high, -most), most);
		asm("cvt.rn.f16x2.f32 %0, %1, %2;" : "=r"(r) : "f"(high), "f"(low));
		return r;
	}
#endif
	return gpu_pack_bf16(low, high);
}

/* The two e4m3 in the low half, or in the high half, of `four`. */
#if GPU_PTX
template <int HALF> GPU_FN uint32_t gpu_widen2(uint32_t four)
{
	uint32_t r;
#if __CUDA_ARCH__ >= 890
	asm("cvt.rn.f16x2.e4m3x2 %0, %1;" : "=r"(r) : "h"((uint16_t)(HALF ? four >> 16 : four)));
#else
	/* Their bits read as binary16 are 2^-8 times the value. */
	const uint32_t u = __byte_perm(four, 0, HALF ? 0x3424 : 0x1404), v = (u & 0x80008000u) | (u >> 1 & 0x3f803f80u);

	asm("mul.rn.f16x2 %0, %1, %2;" : "=r"(r) : "r"(v), "r"(0x5c005c00u));
#endif
	return r;
}
#else
template <int HALF> GPU_FN uint32_t gpu_widen2(uint32_t four)
{
#if GPU_AMD && (defined(__gfx950__) || GPU_MMA_WMMA == 12)
	const auto v = __builtin_amdgcn_cvt_pk_f32_fp8((int)four, HALF);

	return gpu_pack_exact(v[0], v[1]);
#else
	/* Their bits, moved, are a bfloat16 2^-120 times the value. */
	const uint32_t two = HALF ? four >> 16 : four, u = (two & 0xffu) | (two & 0xff00u) << 8;
	const uint32_t v = (u << 8 & 0x80008000u) | (u << 4 & 0x07f007f0u);

	return gpu_pack_exact(gpu_bf16_low(v) * 1.329227995784916e36f, gpu_bf16_high(v) * 1.329227995784916e36f);
#endif
}
#endif

#endif
