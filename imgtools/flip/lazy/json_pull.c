/* JSON (RFC 8259) pulled value by value out of a text in memory. Bytes of strings are passed on as they are: names in
 * a tar are bytes, and a table made by us holds those of names that are no UTF-8. Numbers are unsigned integers, as
 * nothing else stands in a table of contents. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/chars.h"
#include "lazy_internal.h"

void flip_json_init(struct flip_json *j, const void *text, size_t size)
{
	*j = (struct flip_json){ .begin = text, .p = text, .end = (const char *)text + size };
}

void flip_json_done(struct flip_json *j)
{
	free(j->scratch);
	j->scratch = NULL;
}

char flip_json_peek(struct flip_json *j)
{
	while (j->p < j->end && (*j->p == ' ' || *j->p == '\n' || *j->p == '\t' || *j->p == '\r'))
		j->p++;
	return j->p < j->end ? *j->p : '\0';
}

static int take(struct flip_json *j, char c)
{
	if (flip_json_peek(j) != c)
		return -EBADMSG;
	j->p++;
	return 0;
}

int flip_json_open(struct flip_json *j, char bracket)
{
	return take(j, bracket);
}

/* 1: one more, 0: the closing bracket is passed. */
static int next(struct flip_json *j, bool *first, char close)
{
	char c = flip_json_peek(j);

	if (c == close) {
		j->p++;
		return 0;
	}
	if (!*first && take(j, ',') < 0)
		return -EBADMSG;
	*first = false;
	return 1;
}

int flip_json_member(struct flip_json *j, bool *first, struct flip_text *ret_key)
{
	int r = next(j, first, '}');

	if (r <= 0)
		return r;
	if (flip_json_string(j, ret_key) < 0 || take(j, ':') < 0)
		return -EBADMSG;
	return 1;
}

int flip_json_item(struct flip_json *j, bool *first)
{
	return next(j, first, ']');
}

static int hex4(struct flip_json *j, uint32_t *ret)
{
	int32_t v = j->end - j->p < 4 ? -1 : base_hex4(j->p);

	if (v < 0)
		return -EBADMSG;
	j->p += 4;
	*ret = (uint32_t)v;
	return 0;
}

/* What follows a backslash. */
static int escape(struct flip_json *j, char *out, size_t *n)
{
	static const char from[] = "\"\\/bfnrt", to[] = "\"\\/\b\f\n\r\t";
	uint32_t c, low;
	const char *k;

	if (j->p >= j->end)
		return -EBADMSG;
	if (*j->p != 'u') {
		k = *j->p ? strchr(from, *j->p) : NULL;
		if (!k)
			return -EBADMSG;
		j->p++;
		out[(*n)++] = to[k - from];
		return 0;
	}
	j->p++;
	if (hex4(j, &c) < 0)
		return -EBADMSG;
	if (c >= 0xd800 && c < 0xdc00) {
		if (j->end - j->p < 2 || j->p[0] != '\\' || j->p[1] != 'u')
			return -EBADMSG;
		j->p += 2;
		if (hex4(j, &low) < 0 || low < 0xdc00 || low > 0xdfff)
			return -EBADMSG;
		c = 0x10000 + ((c - 0xd800) << 10) + (low - 0xdc00);
	} else if (c >= 0xdc00 && c < 0xe000) {
		return -EBADMSG;
	}
	*n += base_utf8_put(c, out + *n);
	return 0;
}

/* A string with escapes, whose closing quote is at `close` or later, from `begin`: into the scratch. */
static int unescape(struct flip_json *j, const char *begin, struct flip_text *ret_text)
{
	const char *close = j->p;
	size_t n = 0;

	/* Never longer than what is written. */
	while (close < j->end && *close != '"')
		close += *close == '\\' ? 2 : 1;
	if (close >= j->end)
		return -EBADMSG;
	if ((size_t)(close - begin) + 4 > j->scratch_size) {
		size_t size = ((size_t)(close - begin) + 4) * 2;
		char *p = realloc(j->scratch, size);

		if (!p)
			return -ENOMEM;
		j->scratch = p;
		j->scratch_size = size;
	}
	j->p = begin;
	while (j->p < close) {
		if ((unsigned char)*j->p < 0x20)
			return -EBADMSG;
		if (*j->p != '\\') {
			j->scratch[n++] = *j->p++;
			continue;
		}
		j->p++;
		if (escape(j, j->scratch, &n) < 0 || j->p > close)
			return -EBADMSG;
	}
	j->p++;
	*ret_text = (struct flip_text){ j->scratch, n };
	return 0;
}

int flip_json_string(struct flip_json *j, struct flip_text *ret_text)
{
	const char *begin;

	if (take(j, '"') < 0)
		return -EBADMSG;
	begin = j->p;
	while (j->p < j->end && *j->p != '"' && *j->p != '\\') {
		if ((unsigned char)*j->p < 0x20)
			return -EBADMSG;
		j->p++;
	}
	if (j->p >= j->end)
		return -EBADMSG;
	if (*j->p == '\\')
		return unescape(j, begin, ret_text);
	*ret_text = (struct flip_text){ begin, (size_t)(j->p - begin) };
	j->p++;
	return 0;
}

int flip_json_unsigned(struct flip_json *j, uint64_t *ret)
{
	uint64_t v = 0;
	const char *begin;

	(void)flip_json_peek(j);
	begin = j->p;
	while (j->p < j->end && *j->p >= '0' && *j->p <= '9') {
		if (__builtin_mul_overflow(v, 10u, &v) || __builtin_add_overflow(v, (uint64_t)(*j->p - '0'), &v))
			return -EBADMSG;
		j->p++;
	}
	if (j->p == begin || (j->p - begin > 1 && *begin == '0'))
		return -EBADMSG;
	if (j->p < j->end && (*j->p == '.' || *j->p == 'e' || *j->p == 'E'))
		return -EBADMSG;
	*ret = v;
	return 0;
}

/* true, false, null, or a number of any kind: letters, digits and what numbers have. */
static int skip_word(struct flip_json *j)
{
	static const char *const words[] = { "true", "false", "null" };
	size_t left = (size_t)(j->end - j->p), n = 0;

	for (size_t i = 0; i < 3; i++) {
		if (left >= strlen(words[i]) && memcmp(j->p, words[i], strlen(words[i])) == 0) {
			j->p += strlen(words[i]);
			return 0;
		}
	}
	while (n < left && j->p[n] && strchr("+-.0123456789eE", j->p[n]))
		n++;
	j->p += n;
	return n ? 0 : -EBADMSG;
}

/* Nesting is kept in the bits of a word: no recursion over a hostile text. Bit set: an object. */
int flip_json_skip(struct flip_json *j)
{
	uint64_t kinds = 0;
	bool first[FLIP_JSON_DEPTH];
	int depth = 0;

	for (;;) {
		struct flip_text text;
		char c = flip_json_peek(j);
		int r;

		if (c == '{' || c == '[') {
			if (depth == FLIP_JSON_DEPTH)
				return -EBADMSG;
			j->p++;
			kinds = kinds << 1 | (c == '{');
			first[depth++] = true;
		} else if ((c == '"' ? flip_json_string(j, &text) : skip_word(j)) < 0) {
			return -EBADMSG;
		}
		do {
			if (depth == 0)
				return 0;
			r = kinds & 1 ? flip_json_member(j, &first[depth - 1], &text)
			              : flip_json_item(j, &first[depth - 1]);
			if (r < 0)
				return r;
			if (r == 0) {
				depth--;
				kinds >>= 1;
			}
		} while (r == 0);
	}
}

int flip_json_end(struct flip_json *j)
{
	(void)flip_json_peek(j);
	return j->p == j->end ? 0 : -EBADMSG;
}
