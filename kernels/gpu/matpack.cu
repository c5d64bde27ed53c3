/* Matrices from the file's bytes into the layouts of mat.h. One thread makes what one lane will load. */
#include <errno.h>

#include "gpu/mat.h"
#include "gpu/view.h"

enum { ROWS_THERE = 32 };

static size_t align_up(size_t n, size_t to)
{
	return (n + to - 1) / to * to;
}

struct parts {
	size_t values, scales, high, total;
	uint32_t ld;
};

static uint32_t block_cols(uint32_t type)
{
	return type < KN_N_DTYPES || type == KN_FP8_128 || type == KN_MXFP4 ? kn_dtype_info((enum kn_dtype)type)->block_elems : 0;
}

static bool measure(uint32_t type, uint32_t rows, uint32_t cols, parts *p)
{
	gk_mat m = {};
	size_t lines, scales;

	if (block_cols(type) == 0 || rows == 0 || cols == 0 || cols % block_cols(type))
		return false;
	m.type = type;
	m.cols = cols;
	p->high = 0;
	p->ld = (uint32_t)align_up(cols, 64);
	rows = (uint32_t)align_up(rows, ROWS_THERE); /* tiles may read beyond the last row, never write */
	if (!gk_is_blocks(type)) {
		const size_t bytes = type == KN_F32 ? 4 : type == GK_FP8_128 ? 1 : 2;

		p->values = align_up((size_t)rows * p->ld * bytes, 256);
		/* One line more: rows may begin within a block. */
		p->scales = type == GK_FP8_128 ? (((size_t)rows + 127) / 128 + 1) * gk_fp8_across(cols) * sizeof(float)
		                               : 0;
	} else {
		lines = (size_t)rows * gk_n_units(m);
		scales = type == KN_Q4_K || type == KN_Q5_K ? lines / 2 : lines;
		p->values = lines * 64;
		p->scales = align_up(scales * gk_scale_bytes(type), 256);
		p->high = lines * 4 * gk_high_bytes(type);
	}
	p->total = align_up(p->values + p->scales + p->high, 256);
	return true;
}

size_t gk_mat_bytes(uint32_t type, uint32_t rows, uint32_t cols)
{
	parts p;

	return measure(type, rows, cols, &p) ? p.total : 0;
}

size_t gk_mat_value_bytes(uint32_t type, uint32_t rows, uint32_t cols)
{
	parts p;

	return measure(type, rows, cols, &p) ? p.values : 0;
}

int gk_mat_describe(struct gk_mat *mat, uint32_t type, uint32_t rows, uint32_t cols, void *packed)
{
	parts p;

	if (!measure(type, rows, cols, &p))
		return -EINVAL;
	mat->type = type;
	mat->rows = rows;
	mat->cols = cols;
	mat->ld = p.ld;
	mat->values = packed;
	mat->scales = p.scales ? (const uint8_t *)packed + p.values : nullptr;
	mat->high = p.high ? (const uint8_t *)packed + p.values + p.scales : nullptr;
	mat->first_row = 0;
	return 0;
}

uint32_t gk_mat_scale_lines(const struct gk_mat *mat)
{
	return (mat->first_row + mat->rows + 127) / 128;
}

uint32_t gk_mat_scale_stride(const struct gk_mat *mat)
{
	return gk_fp8_across(mat->cols);
}

/* ---- Row-major types: bytes move, the end of each row becomes zeros ---------------------------------------------- */

static __global__ void pack_rows(uint8_t *dst, const uint8_t *src, uint32_t dst_bytes, uint32_t src_bytes)
{
	const uint8_t *from = src + (size_t)blockIdx.x * src_bytes;
	uint8_t *to = dst + (size_t)blockIdx.x * dst_bytes;
	const bool wide = src_bytes % 16 == 0 && ((uintptr_t)from & 15) == 0;

	gpu_dependency_wait();
	for (uint32_t i = threadIdx.x * 16; i < dst_bytes; i += blockDim.x * 16) {
		if (wide && i + 16 <= src_bytes) {
			*(uint4 *)(to + i) = *(const uint4 *)(from + i);
			continue;
		}
		for (uint32_t k = i; k < i + 16 && k < dst_bytes; k++)
			to[k] = k < src_bytes ? from[k] : 0;
	}
}

/* ---- Block types --------------------------------------------------------------------------------------------------- */

GPU_FN uint32_t load16(const uint8_t *p)
{
	return p[0] | (uint32_t)p[1] << 8;
}

/* The stored integer of column k of a row. */
GPU_FN uint32_t stored(uint32_t type, const uint8_t *row, uint32_t k)
{
	const uint32_t i = k % 32, i256 = k % 256;
	const uint8_t *b;

	switch (type) {
	case KN_Q8_0:
		return row[k / 32 * 34 + 2 + i];
	case KN_Q4_0:
		return row[k / 32 * 18 + 2 + i % 16] >> (i / 16 * 4) & 15u;
	case KN_Q4_1:
		return row[k / 32 * 20 + 4 + i % 16] >> (i / 16 * 4) & 15u;
	case KN_Q5_0:
		b = row + k / 32 * 22;
		return (b[6 + i % 16] >> (i / 16 * 4) & 15u) | (b[2 + i / 8] >> (i % 8) & 1u) << 4;
	case KN_Q5_1:
		b = row + k / 32 * 24;
		return (b[8 + i % 16] >> (i / 16 * 4) & 15u) | (b[4 + i / 8] >> (i % 8) & 1u) << 4;
	case KN_MXFP4:
		return row[k / 32 * 17 + 1 + i % 16] >> (i / 16 * 4) & 15u;
	case KN_Q4_K:
		b = row + k / 256 * 144;
		return b[16 + i256 / 64 * 32 + i] >> (i256 / 32 % 2 * 4) & 15u;
	case KN_Q5_K:
		b = row + k / 256 * 176;
		return (b[48 + i256 / 64 * 32 + i] >> (i256 / 32 % 2 * 4) & 15u) | (b[16 + i] >> (i256 / 32) & 1u) << 4;
	default: { /* Q6_K */
		const uint32_t half = i256 / 128, group = i256 / 32 % 4;

		b = row + k / 256 * 210;
		return (b[64 * half + 32 * (group & 1) + i] >> (group / 2 * 4) & 15u) |
		       (b[128 + 32 * half + i] >> (2 * group) & 3u) << 4;
	}
	}
}

/* Scales of a row's unit, as words. */
GPU_FN void pack_scale(const gk_mat &m, const uint8_t *row, uint32_t unit, uint32_t *out)
{
	const uint32_t n_blocks = m.cols / 32;
	uint16_t *half = (uint16_t *)out;
	const uint8_t *b;

	switch (m.type) {
	case KN_Q8_0:
		for (uint32_t c = 0; c < 2; c++)
			half[c] = (uint16_t)(2 * unit + c < n_blocks ? load16(row + (2 * unit + c) * 34) : 0);
		break;
	case KN_MXFP4:
		for (uint32_t c = 0; c < 4; c++)
			((uint8_t *)out)[c] = (uint8_t)(4 * unit + c < n_blocks ? row[(4 * unit + c) * 17] : 0);
		break;
	case KN_Q4_0:
	case KN_Q5_0:
		for (uint32_t c = 0; c < 4; c++)
			half[c] = (uint16_t)(4 * unit + c < n_blocks
			                             ? load16(row + (4 * unit + c) * (m.type == KN_Q4_0 ? 18 : 22))
			                             : 0);
		break;
	case KN_Q4_1:
	case KN_Q5_1:
		for (uint32_t c = 0; c < 4; c++) {
			b = row + (size_t)(4 * unit + c) * (m.type == KN_Q4_1 ? 20 : 24);
			half[2 * c] = (uint16_t)(4 * unit + c < n_blocks ? load16(b) : 0);
			half[2 * c + 1] = (uint16_t)(4 * unit + c < n_blocks ? load16(b + 2) : 0);
		}
		break;
	case KN_Q4_K:
	case KN_Q5_K:
		b = row + (size_t)(unit / 2) * (m.type == KN_Q4_K ? 144 : 176);
		for (uint32_t i = 0; i < 4; i++)
			out[i] = load16(b + 4 * i) | load16(b + 4 * i + 2) << 16;
		break;
	default: /* Q6_K */
		b = row + (size_t)(unit / 2) * 210;
		for (uint32_t i = 0; i < 2; i++)
			out[i] = load16(b + 192 + unit % 2 * 8 + 4 * i) | load16(b + 194 + unit % 2 * 8 + 4 * i) << 16;
		out[2] = load16(b + 208);
		break;
	}
}

/* One thread for each row, unit and lane group. */
static __global__ void pack_blocks(gk_mat m, const uint8_t *raw, uint32_t row_bytes, uint32_t first, uint32_t n)
{
	const uint32_t n_units = gk_n_units(m), n_chunks = gk_unit(m.type) / 32;
	const size_t i = (size_t)blockIdx.x * blockDim.x + threadIdx.x;
	const uint32_t t = i & 3, unit = (uint32_t)(i >> 2) % n_units, r = (uint32_t)((i >> 2) / n_units);
	uint32_t v[4] = { 0, 0, 0, 0 }, h[2] = { 0, 0 };

	gpu_dependency_wait();
	if (r >= n)
		return;

	const uint32_t row = first + r;
	const uint8_t *src = raw + (size_t)r * row_bytes;
	const size_t entry = ((size_t)(row >> 3) * n_units + unit) * 8 + (row & 7), lane = entry * 4 + t;
	/* What a stored 0 would be: columns beyond the end must count nothing, and their scale is 0 as well. */
	for (uint32_t c = 0; c < n_chunks; c++) {
		for (uint32_t e = 0; e < 8; e++) {
			const uint32_t k = unit * gk_unit(m.type) + gk_column(1, c, t, e);
			const uint32_t q = k < m.cols ? stored(m.type, src, k) : 0;

			if (m.type == KN_Q8_0) {
				v[2 * c + e / 4] |= q << (8 * ((e & 1) << 1 | (e >> 1 & 1)));
			} else {
				v[c] |= (q & 15u) << (4 * (e / 2 + 4 * (e & 1)));
				if (m.type == KN_Q6_K)
					h[c / 2] |= (q >> 4) << (8 * (c & 1) + 2 * (e / 2) + 16 * (e & 1));
				else
					h[0] |= (q >> 4) << (4 * c + e / 2 + 16 * (e & 1));
			}
		}
	}
	((uint4 *)m.values)[lane] = make_uint4(v[0], v[1], v[2], v[3]);
	if (gk_high_bytes(m.type) == 4)
		((uint32_t *)m.high)[lane] = h[0];
	if (gk_high_bytes(m.type) == 8)
		((uint2 *)m.high)[lane] = make_uint2(h[0], h[1]);
	if (t != 0)
		return;

	const bool super = m.type == KN_Q4_K || m.type == KN_Q5_K;
	const uint32_t n_words = gk_scale_bytes(m.type) / 4;
	const size_t at = super ? ((size_t)(row >> 3) * (n_units / 2) + unit / 2) * 8 + (row & 7) : entry;
	uint32_t words[4] = { 0, 0, 0, 0 };

	if (super && unit % 2)
		return;
	pack_scale(m, src, unit, words);
	for (uint32_t w = 0; w < n_words; w++)
		((uint32_t *)m.scales)[at * n_words + w] = words[w];
}

int gk_mat_pack(const struct gk_ctx *ctx, const struct gk_mat *mat, const void *raw, uint32_t row, uint32_t n)
{
	const uint32_t elem = mat->type == KN_F32 ? 4 : mat->type == GK_FP8_128 ? 1 : 2;
	uint32_t row_bytes;

	if (row % GK_PACK_ROWS || row + n > mat->rows || n == 0)
		return -EINVAL;
	if (!gk_is_blocks(mat->type)) {
		gpu_launch(pack_rows, dim3(n), dim3(256), 0, ctx->stream, false,
		           (uint8_t *)mat->values + (size_t)row * mat->ld * elem, (const uint8_t *)raw, mat->ld * elem,
		           mat->cols * elem);
		return gk_launched();
	}
	row_bytes = (uint32_t)kn_row_bytes((enum kn_dtype)mat->type, mat->cols);
	gpu_launch(pack_blocks, dim3((unsigned)(((size_t)n * gk_n_units(*mat) * 4 + 255) / 256)), dim3(256), 0,
	           ctx->stream, false, *mat, (const uint8_t *)raw, row_bytes, row, n);
	return gk_launched();
}
