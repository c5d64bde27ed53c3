/* Panels: weights of 4 to 8 bits repacked so that the int8 dot-product instruction eats them as they lie.
 *
 * A panel holds 16 rows. Columns go in blocks of 32; "vector g" of a block is 64 bytes, four bytes for each
 * row: the row's values 4g .. 4g + 3. One instruction multiplies it with four activations, broadcast, and
 * sums into one 32-bit lane per row, so that no sum across lanes is ever needed and one vector of 16 scales
 * serves a block. Values are stored unsigned (value + offset); see struct cpu_q8 for the correction.
 *
 *   PANEL_8   (Q8_0, offset 128; Q5_0, whose values fit: 112 + its code)
 *             f16 scale[blocks][16], padded to 64 bytes; u8 vector[blocks][8][64]
 *   PANEL_4   (Q4_0, offset 8)
 *             f16 scale[blocks][16], padded to 64 bytes; u8 vector[blocks][4][64]:
 *             vector g in the low nibbles, vector g + 4 in the high ones
 *   PANEL_4K  (Q4_K: value = d sc q - dmin m, no offset), for each 256 columns:
 *             f16 d[16], f16 dmin[16], u8 sc[8][16], u8 m[8][16], u8 vector[8][4][64] as PANEL_4
 *   PANEL_6K  (Q6_K: value = d sc (q - 32), offset 32), for each 256 columns:
 *             f16 d[16], 32 bytes unused, i8 sc[16][16], then for each block of 32 u8 low[4][64] as PANEL_4
 *             and u8 high[2][64]: bits 2g, 2g + 1 of high[h] are the top bits of vector 4h + g
 *
 * The source layouts are those of the GGUF specification. */
#include <string.h>

#include "cpu/cpu.h"

enum panel_size {
	SUPER_4K = 32 + 32 + 128 + 128 + 8 * 256,
	SUPER_6K = 64 + 256 + 8 * 384,
};

enum cpu_panel cpu_panel_of(enum kn_dtype dtype)
{
	switch (dtype) {
	case KN_Q8_0:
	case KN_Q5_0:
		return CPU_PANEL_8;
	case KN_Q4_0:
		return CPU_PANEL_4;
	case KN_Q4_K:
		return CPU_PANEL_4K;
	case KN_Q6_K:
		return CPU_PANEL_6K;
	default:
		return CPU_PANEL_NONE;
	}
}

static size_t scales_bytes(size_t cols)
{
	return (cols / 32 * 32 + 63) / 64 * 64;
}

size_t cpu_panel_bytes(enum cpu_panel panel, size_t cols)
{
	switch (panel) {
	case CPU_PANEL_8:
		return scales_bytes(cols) + cols * 16;
	case CPU_PANEL_4:
		return scales_bytes(cols) + cols * 8;
	case CPU_PANEL_4K:
		return cols / 256 * SUPER_4K;
	case CPU_PANEL_6K:
		return cols / 256 * SUPER_6K;
	default:
		return 0;
	}
}

/* One row's four values in vector g. */
static void put4(uint8_t *block, size_t g, size_t row, uint32_t four)
{
	memcpy(block + g * 64 + row * 4, &four, 4);
}

static uint32_t get4(const uint8_t *q, size_t g)
{
	uint32_t four;

	memcpy(&four, q + g * 4, 4);
	return four;
}

/* Q8_0: f16 d, int8 q[32]. */
static void pack_q8_0(const uint8_t *src, size_t blocks, size_t row, uint8_t *scales, uint8_t *vectors)
{
	for (size_t b = 0; b < blocks; b++, src += 34) {
		memcpy(scales + b * 32 + row * 2, src, 2);
		for (size_t g = 0; g < 8; g++)
			put4(vectors + b * 512, g, row, get4(src + 2, g) ^ 0x80808080u);
	}
}

/* Q5_0: f16 d, u32 fifth bits, u8 nibbles[16]: value i in the low nibble of byte i, value i + 16 in the high. */
static void pack_q5_0(const uint8_t *src, size_t blocks, size_t row, uint8_t *scales, uint8_t *vectors)
{
	for (size_t b = 0; b < blocks; b++, src += 22) {
		uint32_t fifth;
		uint8_t q[32];

		memcpy(scales + b * 32 + row * 2, src, 2);
		memcpy(&fifth, src + 2, 4);
		for (size_t i = 0; i < 16; i++) {
			uint8_t byte = src[6 + i];

			q[i] = (uint8_t)(112 + ((byte & 15) | (fifth >> i & 1) << 4));
			q[i + 16] = (uint8_t)(112 + ((byte >> 4) | (fifth >> (i + 16) & 1) << 4));
		}
		for (size_t g = 0; g < 8; g++)
			put4(vectors + b * 512, g, row, get4(q, g));
	}
}

/* Q4_0: f16 d, u8 nibbles[16] in the order of Q5_0: already a row's part of PANEL_4. */
static void pack_q4_0(const uint8_t *src, size_t blocks, size_t row, uint8_t *scales, uint8_t *vectors)
{
	for (size_t b = 0; b < blocks; b++, src += 18) {
		memcpy(scales + b * 32 + row * 2, src, 2);
		for (size_t g = 0; g < 4; g++)
			put4(vectors + b * 256, g, row, get4(src + 2, g));
	}
}

/* Sub-scale and sub-minimum j of the twelve bytes: 6 bits each; the last four keep their top bits in those of
 * the first. */
static void q4k_scale_min(const uint8_t *s, size_t j, uint8_t *ret_scale, uint8_t *ret_min)
{
	if (j < 4) {
		*ret_scale = s[j] & 63;
		*ret_min = s[j + 4] & 63;
	} else {
		*ret_scale = (uint8_t)((s[j + 4] & 15) | (s[j - 4] >> 6) << 4);
		*ret_min = (uint8_t)((s[j + 4] >> 4) | (s[j] >> 6) << 4);
	}
}

/* Q4_K: f16 d, f16 dmin, u8 scales[12], u8 nibbles[128]: 32 bytes for two sub-blocks, the even one low. */
static void pack_q4_k(const uint8_t *src, size_t supers, size_t row, uint8_t *dst)
{
	for (size_t b = 0; b < supers; b++, src += 144, dst += SUPER_4K) {
		memcpy(dst + row * 2, src, 2);
		memcpy(dst + 32 + row * 2, src + 2, 2);
		for (size_t j = 0; j < 8; j++) {
			const uint8_t *two = src + 16 + j / 2 * 32;
			uint8_t *block = dst + 320 + j * 256;

			q4k_scale_min(src + 4, j, dst + 64 + j * 16 + row, dst + 192 + j * 16 + row);
			for (size_t g = 0; g < 4; g++) {
				uint32_t low = get4(two, g), high = get4(two, g + 4);

				if (j % 2) {
					low >>= 4;
					high >>= 4;
				}
				put4(block, g, row, (low & 0x0f0f0f0fu) | (high & 0x0f0f0f0fu) << 4);
			}
		}
	}
}

/* Q6_K: u8 low[128], u8 high[64], i8 scales[16], f16 d. Each half of 128 values: low nibbles of 64 bytes are
 * values 0-63, high ones 64-127; byte l of the 32 high ones has two bits for values l, l + 32, l + 64, l + 96. */
static void q6k_values(const uint8_t *src, uint8_t q[256])
{
	for (size_t half = 0; half < 2; half++) {
		const uint8_t *low = src + half * 64, *high = src + 128 + half * 32;

		for (size_t l = 0; l < 128; l++) {
			unsigned nibble = l < 64 ? low[l] & 15 : low[l - 64] >> 4;

			q[half * 128 + l] = (uint8_t)(nibble | (high[l % 32] >> (l / 32 * 2) & 3) << 4);
		}
	}
}

static void pack_q6_k(const uint8_t *src, size_t supers, size_t row, uint8_t *dst)
{
	for (size_t b = 0; b < supers; b++, src += 210, dst += SUPER_6K) {
		uint8_t q[256];

		q6k_values(src, q);
		memcpy(dst + row * 2, src + 208, 2);
		for (size_t j = 0; j < 16; j++)
			dst[64 + j * 16 + row] = src[192 + j];
		for (size_t j = 0; j < 8; j++) {
			uint8_t *block = dst + 320 + j * 384;
			uint32_t top[2] = { 0, 0 };

			for (size_t g = 0; g < 8; g++)
				top[g / 4] |= (get4(q + j * 32, g) >> 4 & 0x03030303u) << (g % 4 * 2);
			for (size_t g = 0; g < 4; g++)
				put4(block, g, row,
				     (get4(q + j * 32, g) & 0x0f0f0f0fu) | (get4(q + j * 32, g + 4) & 0x0f0f0f0fu)
				                                                   << 4);
			put4(block + 256, 0, row, top[0]);
			put4(block + 256, 1, row, top[1]);
		}
	}
}

void cpu_panel_pack(enum cpu_panel panel, const struct kn_mat *m, size_t p, void *dst)
{
	size_t row_bytes = kn_row_bytes(m->dtype, m->cols), first = p * CPU_PANEL_ROWS;
	size_t n = m->rows - first < CPU_PANEL_ROWS ? m->rows - first : CPU_PANEL_ROWS;
	const uint8_t *src = (const uint8_t *)m->data + first * row_bytes;
	uint8_t *vectors = (uint8_t *)dst + scales_bytes(m->cols);

	if (n < CPU_PANEL_ROWS)
		memset(dst, 0, cpu_panel_bytes(panel, m->cols));
	for (size_t r = 0; r < n; r++, src += row_bytes) {
		switch (m->dtype) {
		case KN_Q8_0:
			pack_q8_0(src, m->cols / 32, r, dst, vectors);
			break;
		case KN_Q5_0:
			pack_q5_0(src, m->cols / 32, r, dst, vectors);
			break;
		case KN_Q4_0:
			pack_q4_0(src, m->cols / 32, r, dst, vectors);
			break;
		case KN_Q4_K:
			pack_q4_k(src, m->cols / 256, r, dst);
			break;
		case KN_Q6_K:
			pack_q6_k(src, m->cols / 256, r, dst);
			break;
		default:
			break;
		}
	}
}
