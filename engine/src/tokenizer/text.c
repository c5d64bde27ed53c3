/* UTF-8 and the character classes that tokenizer.json's components are defined by.
 *
 * Invalid bytes follow the Unicode recommendation (Unicode 15, section 3.9, "maximal subparts"): each
 * longest beginning of a well-formed sequence becomes one U+FFFD, which is what the reference does too.
 * Categories come from utf8proc. The byte-level alphabet is GPT-2's: printable bytes of Latin-1 stand for
 * themselves, the others for U+0100 and on, in order. */
#include <errno.h>
#include <string.h>

#include <utf8proc.h>

#include "base/chars.h"
#include "tokenizer/tok_internal.h"

int tok_utf8_next(const unsigned char *p, size_t n, size_t *ret_len)
{
	unsigned char lo = 0x80, hi = 0xbf;
	size_t need;

	*ret_len = 1;
	if (n == 0)
		return -1;
	if (p[0] < 0x80)
		return 1;
	if (p[0] < 0xc2 || p[0] > 0xf4)
		return 0;
	need = p[0] >= 0xf0 ? 4 : p[0] >= 0xe0 ? 3 : 2;
	if (p[0] == 0xe0)
		lo = 0xa0;
	else if (p[0] == 0xed)
		hi = 0x9f;
	else if (p[0] == 0xf0)
		lo = 0x90;
	else if (p[0] == 0xf4)
		hi = 0x8f;
	for (size_t i = 1; i < need; i++) {
		*ret_len = i;
		if (i == n)
			return -1;
		if (p[i] < lo || p[i] > hi)
			return 0;
		lo = 0x80;
		hi = 0xbf;
	}
	*ret_len = need;
	return 1;
}

bool tok_utf8_is_valid(const char *text, size_t n)
{
	const unsigned char *p = (const unsigned char *)text;
	size_t i = 0, len;
	uint64_t word;

	while (i < n) {
		if (n - i >= sizeof(word)) {
			memcpy(&word, p + i, sizeof(word));
			if (!(word & UINT64_C(0x8080808080808080))) {
				i += sizeof(word);
				continue;
			}
		}
		if (tok_utf8_next(p + i, n - i, &len) != 1)
			return false;
		i += len;
	}
	return true;
}

uint32_t tok_utf8_get(const char *text, size_t n, size_t *ret_len)
{
	const unsigned char *p = (const unsigned char *)text;

	if (p[0] < 0x80 || n < 2) {
		*ret_len = 1;
		return p[0];
	}
	if (p[0] < 0xe0 || n < 3) {
		*ret_len = 2;
		return (uint32_t)(p[0] & 0x1f) << 6 | (p[1] & 0x3f);
	}
	if (p[0] < 0xf0 || n < 4) {
		*ret_len = 3;
		return (uint32_t)(p[0] & 0x0f) << 12 | (uint32_t)(p[1] & 0x3f) << 6 | (p[2] & 0x3f);
	}
	*ret_len = 4;
	return (uint32_t)(p[0] & 0x07) << 18 | (uint32_t)(p[1] & 0x3f) << 12 | (uint32_t)(p[2] & 0x3f) << 6 |
	       (p[3] & 0x3f);
}

size_t tok_utf8_back(const char *text, size_t at)
{
	at--;
	while (at > 0 && ((unsigned char)text[at] & 0xc0) == 0x80)
		at--;
	return at;
}

int tok_utf8_append(struct base_buf *buf, uint32_t cp)
{
	char c[4];

	return base_buf_append(buf, c, base_utf8_put(cp, c));
}

int tok_utf8_append_lossy(struct base_buf *buf, const char *bytes, size_t n)
{
	const unsigned char *p = (const unsigned char *)bytes;
	size_t done = 0, i = 0, len;

	while (i < n) {
		if (tok_utf8_next(p + i, n - i, &len) != 1) {
			(void)base_buf_append(buf, bytes + done, i - done);
			(void)base_buf_append(buf, "\xef\xbf\xbd", 3);
			done = i + len;
		}
		i += len;
	}
	return base_buf_append(buf, bytes + done, n - done);
}

bool tok_is_space(uint32_t cp)
{
	if (cp < 0x80)
		return cp == ' ' || (cp >= '\t' && cp <= '\r');
	return cp == 0x85 || cp == 0xa0 || cp == 0x1680 || (cp >= 0x2000 && cp <= 0x200a) || cp == 0x2028 ||
	       cp == 0x2029 || cp == 0x202f || cp == 0x205f || cp == 0x3000;
}

static utf8proc_category_t category(uint32_t cp)
{
	return utf8proc_category((utf8proc_int32_t)cp);
}

bool tok_is_mark(uint32_t cp)
{
	utf8proc_category_t c = category(cp);

	return c == UTF8PROC_CATEGORY_MN || c == UTF8PROC_CATEGORY_MC || c == UTF8PROC_CATEGORY_ME;
}

bool tok_is_nonspacing_mark(uint32_t cp)
{
	return category(cp) == UTF8PROC_CATEGORY_MN;
}

bool tok_is_numeric(uint32_t cp)
{
	utf8proc_category_t c = category(cp);

	return c == UTF8PROC_CATEGORY_ND || c == UTF8PROC_CATEGORY_NL || c == UTF8PROC_CATEGORY_NO;
}

bool tok_is_word(uint32_t cp)
{
	switch (category(cp)) {
	case UTF8PROC_CATEGORY_LU:
	case UTF8PROC_CATEGORY_LL:
	case UTF8PROC_CATEGORY_LT:
	case UTF8PROC_CATEGORY_LM:
	case UTF8PROC_CATEGORY_LO:
	case UTF8PROC_CATEGORY_MN:
	case UTF8PROC_CATEGORY_MC:
	case UTF8PROC_CATEGORY_ME:
	case UTF8PROC_CATEGORY_ND:
	case UTF8PROC_CATEGORY_NL:
	case UTF8PROC_CATEGORY_PC:
		return true;
	default:
		/* Join_Control, and the circled letters that are Alphabetic symbols. */
		return cp == 0x200c || cp == 0x200d || (cp >= 0x24b6 && cp <= 0x24e9) ||
		       (cp >= 0x1f130 && cp <= 0x1f149) || (cp >= 0x1f150 && cp <= 0x1f169) ||
		       (cp >= 0x1f170 && cp <= 0x1f189);
	}
}

bool tok_is_punctuation(uint32_t cp)
{
	utf8proc_category_t c;

	if (cp < 0x80)
		return (cp >= '!' && cp <= '/') || (cp >= ':' && cp <= '@') || (cp >= '[' && cp <= '`') ||
		       (cp >= '{' && cp <= '~');
	c = category(cp);
	return c >= UTF8PROC_CATEGORY_PC && c <= UTF8PROC_CATEGORY_PO;
}

bool tok_is_control(uint32_t cp)
{
	utf8proc_category_t c = category(cp);

	return c == UTF8PROC_CATEGORY_CC || c == UTF8PROC_CATEGORY_CF || c == UTF8PROC_CATEGORY_CS ||
	       c == UTF8PROC_CATEGORY_CO;
}

bool tok_is_cjk(uint32_t cp)
{
	return (cp >= 0x4e00 && cp <= 0x9fff) || (cp >= 0x3400 && cp <= 0x4dbf) || (cp >= 0x20000 && cp <= 0x2a6df) ||
	       (cp >= 0x2a700 && cp <= 0x2b73f) || (cp >= 0x2b740 && cp <= 0x2b81f) ||
	       (cp >= 0x2b920 && cp <= 0x2ceaf) || (cp >= 0xf900 && cp <= 0xfaff) || (cp >= 0x2f800 && cp <= 0x2fa1f);
}

size_t tok_lower(uint32_t cp, uint32_t ret[2])
{
	if (cp == 0x130) { /* the one character whose full lower case has two */
		ret[0] = 'i';
		ret[1] = 0x307;
		return 2;
	}
	ret[0] = (uint32_t)utf8proc_tolower((utf8proc_int32_t)cp);
	return 1;
}

static bool stands_for_itself(uint32_t byte)
{
	return (byte >= '!' && byte <= '~') || (byte >= 0xa1 && byte <= 0xac) || byte >= 0xae;
}

static uint32_t byte_char(uint8_t byte)
{
	if (stands_for_itself(byte))
		return byte;
	if (byte <= 0x20)
		return 0x100u + byte;
	return byte == 0xad ? 0x143 : 0x100u + 0x21 + (byte - 0x7fu);
}

int tok_char_byte(uint32_t cp)
{
	if (cp < 0x100)
		return stands_for_itself(cp) ? (int)cp : -1;
	if (cp <= 0x120)
		return (int)(cp - 0x100);
	if (cp <= 0x142)
		return (int)(cp - 0x121 + 0x7f);
	return cp == 0x143 ? 0xad : -1;
}

int tok_append_byte_level(struct base_buf *buf, const char *text, size_t n)
{
	char *out;
	int r;

	/* Every byte takes one or two; reserving once keeps the loop to stores. */
	r = base_buf_reserve(buf, 2 * n);
	if (r < 0)
		return r;
	if (!buf->data)
		return 0;
	out = buf->data + buf->len;
	for (size_t i = 0; i < n; i++)
		out += base_utf8_put(byte_char((uint8_t)text[i]), out);
	*out = '\0';
	buf->len = (size_t)(out - buf->data);
	return 0;
}
