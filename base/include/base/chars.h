/* Single characters: hexadecimal digits, UTF-8. */
#ifndef BASE_CHARS_H
#define BASE_CHARS_H

#include <stddef.h>
#include <stdint.h>

/* 0 to 15, either case; -1 for what is no digit. */
static inline int base_hex_value(int c)
{
	if (c >= '0' && c <= '9')
		return c - '0';
	c |= 0x20;
	return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

/* Four digits as JSON's \u has them; -1 when one of them is none. */
static inline int32_t base_hex4(const char *text)
{
	int32_t v = 0;

	for (int i = 0; i < 4; i++) {
		int d = base_hex_value((unsigned char)text[i]);

		if (d < 0)
			return -1;
		v = v << 4 | d;
	}
	return v;
}

/* Writes the bytes of a code point below 0x200000, surrogates too; returns how many. */
size_t base_utf8_put(uint32_t cp, char out[4]);
/* The code point that text, of len > 0 bytes, begins with; returns its bytes, or 0 when they are no UTF-8: cut off,
 * longer than needed, a surrogate, or beyond the last code point. */
size_t base_utf8_get(const char *text, size_t len, uint32_t *ret_cp);

#endif
