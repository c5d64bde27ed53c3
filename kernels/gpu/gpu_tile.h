/* Operands of products (gpu_mma.h) from tiles in shared memory, of bfloat16 and of e4m3, and from the results of other
 * products.
 *
 * A tile in shared memory is rows of 16-byte chunks (8 bfloat16); chunk c of row r lies at place c ^ (r & 7) of its
 * row, so that reading eight rows' chunks, or eight chunks of a row, meets every bank once. The number of chunks of a
 * row is a multiple of 8. */
#ifndef GPU_TILE_H
#define GPU_TILE_H

#include "gpu/gpu_mma.h"

GPU_FN uint32_t gpu_tile_at(uint32_t row, uint32_t chunk, uint32_t row_chunks)
{
	return row * row_chunks + (chunk ^ (row & 7));
}

/* Operand of rows [row, row + 16) and chunks [chunk, chunk + 4). All operands of a product must come from here: the
 * order of columns is not that of pieces loaded by the lane. */
GPU_FN gpu_frag gpu_tile_frag(const uint4 *tile, uint32_t row, uint32_t chunk, uint32_t row_chunks)
{
	gpu_frag f;
#if GPU_PTX
	const uint32_t lane = threadIdx.x & 31;

#pragma unroll
	for (int p = 0; p < 2; p++) {
		const uint32_t at = (uint32_t)__cvta_generic_to_shared(
		        tile + gpu_tile_at(row + 8 * p + (lane & 7), chunk + (lane >> 3), row_chunks));

		asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];"
		             : "=r"(f.p[p].x), "=r"(f.p[p].y), "=r"(f.p[p].z), "=r"(f.p[p].w)
		             : "r"(at)
		             : "memory");
	}
#else
#pragma unroll
	for (int p = 0; p < GPU_PIECES; p++)
		f.p[p] = tile[gpu_tile_at(row + gpu_piece_row(p), chunk + (gpu_piece_col(p) >> 3), row_chunks)];
#endif
	return f;
}

/* Row of a transposed tile, counted from the operand's first, that element e of piece p is: where the partner comes
 * from gpu_acc_frag(), as a lane has the results' columns, else as gpu_tile_frag() has the chunks'. */
template <bool FROM_ACC> GPU_FN uint32_t gpu_turned_row(uint32_t p, uint32_t e)
{
#if GPU_MMA_MFMA
	if (FROM_ACC)
		return (e >> 2 << 4) + ((uint32_t)gpu_lane() >> 4 << 2) + (e & 3);
#elif GPU_MMA_WMMA == 12
	if (FROM_ACC)
		return 16 * p + ((uint32_t)gpu_lane() >> 4 << 3) + e;
#endif
	return (uint32_t)gpu_piece_col((int)p) + e;
}

/* Operand of a transposed tile: its 16 rows are columns [col, col + 16) of the tile, its 32 columns the tile's rows
 * [row, row + 32). Goes with gpu_acc_frag(), or else with gpu_tile_frag(). */
template <bool FROM_ACC = true>
GPU_FN gpu_frag gpu_tile_frag_t(const uint4 *tile, uint32_t row, uint32_t col, uint32_t row_chunks)
{
	gpu_frag f;
#if GPU_PTX
	const uint32_t lane = threadIdx.x & 31;

#pragma unroll
	for (int p = 0; p < 2; p++) {
		const uint32_t at =
		        (uint32_t)__cvta_generic_to_shared(tile + gpu_tile_at(row + lane, (col >> 3) + p, row_chunks));

		asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0,%1,%2,%3}, [%4];"
		             : "=r"(f.p[p].x), "=r"(f.p[p].y), "=r"(f.p[p].z), "=r"(f.p[p].w)
		             : "r"(at)
		             : "memory");
	}
#else
#pragma unroll
	for (int p = 0; p < GPU_PIECES; p++) {
		const uint32_t c = col + gpu_piece_row(p);
		uint32_t w[4];

#pragma unroll
		for (int i = 0; i < 4; i++) {
			const uint32_t r = row + gpu_turned_row<FROM_ACC>(p, 2 * i);
			const gpu_bf16 *low = (const gpu_bf16 *)(tile + gpu_tile_at(r, c >> 3, row_chunks));
			const gpu_bf16 *high = (const gpu_bf16 *)(tile + gpu_tile_at(r + 1, c >> 3, row_chunks));

			w[i] = low[c & 7] | (uint32_t)high[c & 7] << 16;
		}
		f.p[p] = make_uint4(w[0], w[1], w[2], w[3]);
	}
#endif
	return f;
}

/* ---- Tiles of e4m3 -----------------------------------------------------------------------------------------------
 *
 * They are rows of 16-byte chunks as above, 16 values each. */

/* Operand of rows [row, row + 16) and columns [col, col + 32) of a tile of e4m3. */
GPU_FN gpu_frag gpu_tile8_frag(const uint4 *tile, uint32_t row, uint32_t col, uint32_t row_chunks)
{
	gpu_frag f;
#if GPU_PTX
	const uint32_t lane = threadIdx.x & 31, chunk = (col >> 4) + (lane >> 3 & 1);
	const uint32_t at = (uint32_t)__cvta_generic_to_shared(
	        tile + gpu_tile_at(row + (lane & 7) + (lane >> 4 << 3), chunk, row_chunks));
	uint32_t m[4];

	asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];"
	             : "=r"(m[0]), "=r"(m[1]), "=r"(m[2]), "=r"(m[3])
	             : "r"(at)
	             : "memory");
#pragma unroll
	for (int p = 0; p < 2; p++)
		f.p[p] = make_uint4(gpu_widen2<0>(m[2 * p]), gpu_widen2<1>(m[2 * p]), gpu_widen2<0>(m[2 * p + 1]),
		                    gpu_widen2<1>(m[2 * p + 1]));
#else
#pragma unroll
	for (int p = 0; p < GPU_PIECES; p++) {
		const uint32_t c = col + gpu_piece_col(p);
		const uint2 from =
		        ((const uint2 *)(tile + gpu_tile_at(row + gpu_piece_row(p), c >> 4, row_chunks)))[c >> 3 & 1];

		f.p[p] = make_uint4(gpu_widen2<0>(from.x), gpu_widen2<1>(from.x), gpu_widen2<0>(from.y),
		                    gpu_widen2<1>(from.y));
	}
#endif
	return f;
}

/* Its partner: rows [row, row + 16) and columns [col, col + 32) of a tile of gpu_pack<true>() pairs. */
GPU_FN gpu_frag gpu_tile_frag_wide(const uint4 *tile, uint32_t row, uint32_t col, uint32_t row_chunks)
{
#if GPU_PTX
	const uint32_t lane = threadIdx.x & 31;
	gpu_frag f;

#pragma unroll
	for (int p = 0; p < 2; p++) {
		const uint32_t r = row + 8 * p + (lane >> 2), c = (col >> 3) + (lane >> 1 & 1);
		const uint2 a = ((const uint2 *)(tile + gpu_tile_at(r, c, row_chunks)))[lane & 1];
		const uint2 b = ((const uint2 *)(tile + gpu_tile_at(r, c + 2, row_chunks)))[lane & 1];

		f.p[p] = make_uint4(a.x, a.y, b.x, b.y);
	}
	return f;
#else
	return gpu_tile_frag(tile, row, col >> 3, row_chunks);
#endif
}

/* As gpu_tile_frag_t() for a tile of e4m3, but that its row i is column col + gpu_turned_col(i) of the tile. Goes with
 * gpu_acc_frag<true>(). */
GPU_FN gpu_frag gpu_tile8_frag_t(const uint4 *tile, uint32_t row, uint32_t col, uint32_t row_chunks)
{
	gpu_frag f;
#if GPU_PTX
	const uint32_t lane = threadIdx.x & 31;
	const uint32_t at = (uint32_t)__cvta_generic_to_shared(tile + gpu_tile_at(row + lane, col >> 4, row_chunks));
	uint32_t m[4];

	asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0,%1,%2,%3}, [%4];"
	             : "=r"(m[0]), "=r"(m[1]), "=r"(m[2]), "=r"(m[3])
	             : "r"(at)
	             : "memory");
	/* A register has two neighbouring columns of two tokens. */
#pragma unroll
	for (int i = 0; i < 4; i++)
		m[i] = __byte_perm(m[i], 0, 0x3120);
	f.p[0] = make_uint4(gpu_widen2<0>(m[0]), gpu_widen2<0>(m[1]), gpu_widen2<0>(m[2]), gpu_widen2<0>(m[3]));
	f.p[1] = make_uint4(gpu_widen2<1>(m[0]), gpu_widen2<1>(m[1]), gpu_widen2<1>(m[2]), gpu_widen2<1>(m[3]));
#else
#pragma unroll
	for (int p = 0; p < GPU_PIECES; p++) {
		const uint32_t c = col + gpu_piece_row(p);
		uint32_t w[4];

#pragma unroll
		for (int i = 0; i < 4; i++) {
			const uint32_t r = row + gpu_turned_row<true>(p, 2 * i);
			const uint8_t *low = (const uint8_t *)(tile + gpu_tile_at(r, c >> 4, row_chunks));
			const uint8_t *high = (const uint8_t *)(tile + gpu_tile_at(r + 1, c >> 4, row_chunks));

			w[i] = gpu_widen2<0>(low[c & 15] | (uint32_t)high[c & 15] << 8);
		}
		f.p[p] = make_uint4(w[0], w[1], w[2], w[3]);
	}
#endif
	return f;
}

/* Column of a product with gpu_tile8_frag_t() that column i of its result is. */
GPU_FN uint32_t gpu_turned_col(uint32_t i)
{
#if GPU_PTX
	return i < 8 ? 2 * i : 2 * (i - 8) + 1;
#else
	return i;
#endif
}

/* ---- Results as operands ----------------------------------------------------------------------------------------- */

/* Two results side by side (columns 0..15 and 16..31) rounded to an operand. scratch: 1 KiB of shared memory of this
 * wave's own, used where lanes must exchange values. */
template <bool WIDENED = false>
GPU_FN gpu_frag gpu_acc_frag(const gpu_acc &left, const gpu_acc &right, gpu_bf16 *scratch)
{
	gpu_frag f;
#if GPU_PTX
	(void)scratch;
#pragma unroll
	for (int p = 0; p < 2; p++)
		f.p[p] = make_uint4(gpu_pack<WIDENED>(left.v[2 * p], left.v[2 * p + 1]),
		                    gpu_pack<WIDENED>(left.v[4 + 2 * p], left.v[5 + 2 * p]),
		                    gpu_pack<WIDENED>(right.v[2 * p], right.v[2 * p + 1]),
		                    gpu_pack<WIDENED>(right.v[4 + 2 * p], right.v[5 + 2 * p]));
#elif GPU_MMA_MFMA
	(void)scratch;
	f.p[0] = make_uint4(gpu_pack_bf16(left.v[0], left.v[1]), gpu_pack_bf16(left.v[2], left.v[3]),
	                    gpu_pack_bf16(right.v[0], right.v[1]), gpu_pack_bf16(right.v[2], right.v[3]));
#elif GPU_MMA_WMMA == 12
	(void)scratch;
#pragma unroll
	for (int p = 0; p < 2; p++) {
		const float *v = p ? right.v : left.v;

		f.p[p] = make_uint4(gpu_pack_bf16(v[0], v[1]), gpu_pack_bf16(v[2], v[3]), gpu_pack_bf16(v[4], v[5]),
		                    gpu_pack_bf16(v[6], v[7]));
	}
#else
	gpu_sync_wave();
#pragma unroll
	for (int i = 0; i < GPU_ACC; i++) {
		scratch[gpu_acc_row(i) * 32 + gpu_acc_col(i)] = gpu_to_bf16(left.v[i]);
		scratch[gpu_acc_row(i) * 32 + 16 + gpu_acc_col(i)] = gpu_to_bf16(right.v[i]);
	}
	gpu_sync_wave();
#pragma unroll
	for (int p = 0; p < GPU_PIECES; p++)
		f.p[p] = *(const uint4 *)(scratch + gpu_piece_row(p) * 32 + gpu_piece_col(p));
#endif
	return f;
}

/* ---- Turned ------------------------------------------------------------------------------------------------------
 *
 * A narrow product whose eight columns are what is otherwise rows: half the instructions and half the registers where
 * there are no more. Only where results lie as those of mma.sync. */

enum { GPU_TURNS = !GPU_MMA_MFMA && !GPU_MMA_WMMA, GPU_TURNED_ACC = 4, GPU_TURNED_SLOTS = 2 };

/* Over the lanes that share columns. */
GPU_FN float gpu_col_sum(float v)
{
	for (int m = 4; m < 32; m <<= 1)
		v += gpu_shfl_xor(v, m);
	return v;
}

GPU_FN float gpu_col_max(float v)
{
	for (int m = 4; m < 32; m <<= 1)
		v = fmaxf(v, gpu_shfl_xor(v, m));
	return v;
}

/* Two narrow results, one above the other, as the operand of a narrow product whose columns are theirs: what
 * gpu_acc_frag() makes of what they are when transposed, but for rows 8 to 15. */
template <bool WIDENED> GPU_FN gpu_frag gpu_turned_frag(const gpu_acc &above, const gpu_acc &below, gpu_bf16 *scratch)
{
	gpu_frag f;
#if GPU_PTX
	uint32_t m[4];

	(void)scratch;
#pragma unroll
	for (int i = 0; i < 4; i++) {
		const gpu_acc &of = i < 2 ? above : below;

		asm volatile("movmatrix.sync.aligned.m8n8.trans.b16 %0, %1;"
		             : "=r"(m[i])
		             : "r"(gpu_pack<WIDENED>(of.v[i % 2 * 2], of.v[i % 2 * 2 + 1])));
	}
	f.p[0] = make_uint4(m[0], m[1], m[2], m[3]);
#else
	gpu_sync_wave();
#pragma unroll
	for (int i = 0; i < GPU_TURNED_ACC; i++) {
		scratch[gpu_acc_col(i) * 32 + gpu_acc_row(i)] = gpu_to_bf16(above.v[i]);
		scratch[gpu_acc_col(i) * 32 + 16 + gpu_acc_row(i)] = gpu_to_bf16(below.v[i]);
	}
	gpu_sync_wave();
	f.p[0] = *(const uint4 *)(scratch + gpu_piece_row(0) * 32 + gpu_piece_col(0));
#endif
	for (int p = 1; p < GPU_PIECES; p++)
		f.p[p] = make_uint4(0, 0, 0, 0);
	return f;
}

#endif
