/* UTF-8 walking for text that is indexed by code point, and byte search.
 *
 * Context text is valid UTF-8 (jansson checks), but a template file need not be: an invalid byte counts
 * as one code point of its own, so that slices and loops always advance and never read past the end. */
#include "tpl_interp.h"

#include <string.h>

#include "base/chars.h"

size_t eng_tpl_utf8_next(const char *s, size_t len, uint32_t *ret_cp)
{
	size_t n = base_utf8_get(s, len, ret_cp);

	if (n > 0)
		return n;
	*ret_cp = 0xfffd;
	return 1;
}

size_t eng_tpl_utf8_prev(const char *s, size_t len)
{
	uint32_t cp;

	for (size_t n = 2; n <= 4 && n <= len; n++) {
		if (((unsigned char)s[len - n] & 0xc0) == 0xc0)
			return eng_tpl_utf8_next(s + len - n, n, &cp) == n ? n : 1;
	}
	return 1;
}

size_t eng_tpl_utf8_count(const char *s, size_t len)
{
	size_t count = 0;
	uint32_t cp;

	for (size_t i = 0; i < len; count++)
		i += eng_tpl_utf8_next(s + i, len - i, &cp);
	return count;
}

size_t eng_tpl_utf8_offset(const char *s, size_t len, size_t n)
{
	uint32_t cp;
	size_t i = 0;

	while (n-- > 0 && i < len)
		i += eng_tpl_utf8_next(s + i, len - i, &cp);
	return i;
}

void eng_tpl_utf8_put(struct base_buf *out, uint32_t cp)
{
	char b[4];

	if (cp >= 0x110000 || (cp >= 0xd800 && cp < 0xe000))
		cp = 0xfffd;
	(void)base_buf_append(out, b, base_utf8_put(cp, b)); /* sticky: seen when the buffer is used */
}

/* What Python's str.isspace() accepts. */
bool eng_tpl_is_space(uint32_t cp)
{
	if (cp < 0x80)
		return cp == ' ' || (cp >= 9 && cp <= 13) || (cp >= 0x1c && cp <= 0x1f);
	return cp == 0x85 || cp == 0xa0 || cp == 0x1680 || (cp >= 0x2000 && cp <= 0x200a) || cp == 0x2028 ||
	       cp == 0x2029 || cp == 0x202f || cp == 0x205f || cp == 0x3000;
}

int64_t eng_tpl_find(const char *hay, size_t hay_len, const char *needle, size_t len, size_t from)
{
	const char *p;

	if (from > hay_len)
		return -1;
	if (len == 0)
		return (int64_t)from;
	p = memmem(hay + from, hay_len - from, needle, len);
	return p ? p - hay : -1;
}

int64_t eng_tpl_rfind(const char *hay, size_t end, const char *needle, size_t len)
{
	if (len > end)
		return -1;
	for (size_t i = end - len + 1; i-- > 0;) {
		if (memcmp(hay + i, needle, len) == 0)
			return (int64_t)i;
	}
	return -1;
}
