/* Tile registers (AMX): eight of 16 rows of 64 bytes. Intel SDM volume 1, chapter 19. Included by *_amx.c only. */
#ifndef CPU_AMX_H
#define CPU_AMX_H

#include <immintrin.h>
#include <stddef.h>
#include <stdint.h>

/* The operand of LDTILECFG. */
struct amx_config {
	uint8_t palette, start_row;
	uint8_t reserved[14];
	uint16_t colsb[16]; /* bytes of a row */
	uint8_t rows[16];
};

_Static_assert(sizeof(struct amx_config) == 64, "LDTILECFG reads 64 bytes");

/* Tiles 0 to 3 hold sums, 16 x 16; 4 and 5 left operands, 16 rows of `depth` bytes; 6 and 7 right ones, the same
 * depth in rows of 16 groups of four bytes. Whoever configures releases: tiles in use cost at every task switch. */
static inline void amx_configure(unsigned depth)
{
	struct amx_config c = { .palette = 1 };

	for (int i = 0; i < 8; i++) {
		c.rows[i] = i < 6 ? 16 : (uint8_t)(depth / 4);
		c.colsb[i] = i == 4 || i == 5 ? (uint16_t)depth : 64;
	}
	/* Not _tile_loadconfig(): that of gcc 12 names the first eight bytes only, and the rest is not stored. */
	__asm__ volatile("ldtilecfg %0" : : "m"(c));
}

/* For integers: tiles 0 and 1 hold sums of 16 tokens, 2 and 3 of 8; 4 and 5 are left operands of as many. */
static inline void amx_configure_ints(unsigned depth)
{
	struct amx_config c = { .palette = 1 };

	for (int i = 0; i < 8; i++) {
		c.rows[i] = i < 2 || i == 4 ? 16 : i < 6 ? 8 : (uint8_t)(depth / 4);
		c.colsb[i] = i == 4 || i == 5 ? (uint16_t)depth : 64;
	}
	__asm__ volatile("ldtilecfg %0" : : "m"(c));
}

/* Tiles 0 to 3 hold sums, 16 x some columns; 4 and 5 left operands, 16 x 64 bytes; 6 and 7 right ones of the same
 * columns, whose bytes, four each, are given. */
static inline void amx_configure_left(unsigned columns)
{
	struct amx_config c = { .palette = 1 };

	for (int i = 0; i < 8; i++) {
		c.rows[i] = 16;
		c.colsb[i] = i == 4 || i == 5 ? 64 : (uint16_t)columns;
	}
	__asm__ volatile("ldtilecfg %0" : : "m"(c));
}

static inline void amx_release(void)
{
	_tile_release();
}

#endif
