/* The scanner. Grammar: RFC 8259. Strings without escapes, all of them in practice, are copied whole. */
#include "weights/jsonscan.h"

#include <errno.h>
#include <string.h>

#include "base/chars.h"

enum { MAX_DEPTH = 32 };

static int fail(struct eng_scan *s, const char *what)
{
	return err_set(s->err, -EBADMSG, "%s: byte %zu: %s", s->where, (size_t)(s->p - s->begin), what);
}

static void skip_space(struct eng_scan *s)
{
	while (s->p < s->end && (*s->p == ' ' || *s->p == '\n' || *s->p == '\t' || *s->p == '\r'))
		s->p++;
}

int eng_scan_expect(struct eng_scan *s, char c)
{
	char what[] = "expected ' '";

	skip_space(s);
	if (s->p < s->end && *s->p == c) {
		s->p++;
		return 0;
	}
	what[10] = c;
	return fail(s, what);
}

int eng_scan_next(struct eng_scan *s, char close, bool *first)
{
	bool was_first = *first;

	skip_space(s);
	*first = false;
	if (s->p < s->end && *s->p == close) {
		s->p++;
		return 0;
	}
	if (was_first)
		return 1;
	if (s->p < s->end && *s->p == ',') {
		s->p++;
		return 1;
	}
	return fail(s, "expected ',' or the end of the list");
}

int eng_scan_end(struct eng_scan *s)
{
	skip_space(s);
	return s->p == s->end ? 0 : fail(s, "something follows the closing brace");
}

static int hex4(struct eng_scan *s, uint32_t *ret)
{
	int32_t v;

	if (s->end - s->p < 4)
		return fail(s, "unfinished \\u escape");
	v = base_hex4(s->p);
	if (v < 0)
		return fail(s, "bad \\u escape");
	s->p += 4;
	*ret = (uint32_t)v;
	return 0;
}

/* After "\u": one code point, of two escapes when it is a surrogate pair. */
static int unicode_escape(struct eng_scan *s, char **out)
{
	uint32_t c = 0, low = 0;
	int r = hex4(s, &c);

	if (r < 0)
		return r;
	if (c >= 0xd800 && c < 0xdc00) {
		if (s->end - s->p < 2 || s->p[0] != '\\' || s->p[1] != 'u')
			return fail(s, "half a surrogate pair");
		s->p += 2;
		r = hex4(s, &low);
		if (r < 0)
			return r;
		if (low < 0xdc00 || low > 0xdfff)
			return fail(s, "half a surrogate pair");
		c = 0x10000 + ((c - 0xd800) << 10 | (low - 0xdc00));
	} else if (c >= 0xdc00 && c < 0xe000) {
		return fail(s, "half a surrogate pair");
	}
	*out += base_utf8_put(c, *out);
	return 0;
}

static int escape(struct eng_scan *s, char **out)
{
	static const char from[] = "\"\\/bfnrt", to[] = "\"\\/\b\f\n\r\t";
	const char *hit;

	if (s->p == s->end)
		return fail(s, "unfinished string");
	if (*s->p == 'u') {
		s->p++;
		return unicode_escape(s, out);
	}
	hit = *s->p ? strchr(from, *s->p) : NULL;
	if (!hit)
		return fail(s, "unknown escape");
	s->p++;
	*(*out)++ = to[hit - from];
	return 0;
}

/* The end of the string that starts at s->p (after the quote), or NULL; *escaped when it has any. */
static const char *find_quote(const struct eng_scan *s, bool *escaped)
{
	*escaped = false;
	for (const char *p = s->p; p < s->end; p++) {
		if (*p == '"')
			return p;
		if (*p == '\\') {
			*escaped = true;
			if (++p == s->end)
				return NULL;
		}
	}
	return NULL;
}

int eng_scan_string(struct eng_scan *s, const char **ret_text, size_t *ret_len)
{
	const char *close;
	char *text, *out;
	bool escaped;
	int r;

	r = eng_scan_expect(s, '"');
	if (r < 0)
		return r;
	close = find_quote(s, &escaped);
	if (!close)
		return fail(s, "unfinished string");
	/* Decoding never lengthens: the shortest escape, two bytes, gives one. */
	text = out = eng_arena_alloc(s->arena, (size_t)(close - s->p) + 1);
	if (!text)
		return err_set(s->err, -ENOMEM, "%s: out of memory", s->where);
	if (!escaped) {
		memcpy(out, s->p, (size_t)(close - s->p));
		out += close - s->p;
		s->p = close;
	}
	while (s->p < close) {
		if (*s->p != '\\') {
			*out++ = *s->p++;
			continue;
		}
		s->p++;
		r = escape(s, &out);
		if (r < 0)
			return r;
	}
	s->p = close + 1;
	*out = '\0';
	if (!eng_name_is_printable(text, (size_t)(out - text)))
		return fail(s, "string is not printable UTF-8");
	*ret_text = text;
	if (ret_len)
		*ret_len = (size_t)(out - text);
	return 0;
}

int eng_scan_u64(struct eng_scan *s, uint64_t *ret)
{
	uint64_t v = 0;
	const char *start;

	skip_space(s);
	start = s->p;
	for (; s->p < s->end && *s->p >= '0' && *s->p <= '9'; s->p++) {
		if (__builtin_mul_overflow(v, (uint64_t)10, &v) ||
		    __builtin_add_overflow(v, (uint64_t)(*s->p - '0'), &v))
			return fail(s, "number too large");
	}
	if (s->p == start)
		return fail(s, "expected a whole number");
	if (*start == '0' && s->p - start > 1)
		return fail(s, "number with a leading zero");
	if (s->p < s->end && (*s->p == '.' || *s->p == 'e' || *s->p == 'E'))
		return fail(s, "expected a whole number");
	*ret = v;
	return 0;
}

/* Past a number, true, false or null; their exact spelling does not matter where they are skipped. */
static int skip_word(struct eng_scan *s)
{
	const char *start = s->p;

	while (s->p < s->end && *s->p && strchr("+-.0123456789aeflnrstuE", *s->p))
		s->p++;
	return s->p > start ? 0 : fail(s, "expected a value");
}

static int skip_string(struct eng_scan *s)
{
	bool escaped;
	const char *close;

	s->p++;
	close = find_quote(s, &escaped);
	if (!close)
		return fail(s, "unfinished string");
	s->p = close + 1;
	return 0;
}

static int skip_value(struct eng_scan *s, int depth)
{
	bool first = true, is_object;
	int r;

	skip_space(s);
	if (s->p == s->end)
		return fail(s, "expected a value");
	if (*s->p == '"')
		return skip_string(s);
	if (*s->p != '{' && *s->p != '[')
		return skip_word(s);
	if (depth == MAX_DEPTH)
		return fail(s, "nested too deeply");
	is_object = *s->p++ == '{';
	while ((r = eng_scan_next(s, is_object ? '}' : ']', &first)) > 0) {
		if (is_object) {
			skip_space(s);
			if (s->p == s->end || *s->p != '"')
				return fail(s, "expected a name");
			r = skip_string(s);
			if (r == 0)
				r = eng_scan_expect(s, ':');
		}
		if (r >= 0)
			r = skip_value(s, depth + 1);
		if (r < 0)
			return r;
	}
	return r;
}

int eng_scan_skip(struct eng_scan *s)
{
	return skip_value(s, 0);
}
