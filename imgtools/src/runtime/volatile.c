/* What changes from run to run, in text and among files (compare.h). One pass over the text; at each word's beginning
 * the patterns are tried in turn, and what matches becomes one '?'. Two texts that differ only there become the same.
 */
#include <string.h>

#include "compare.h"

struct scan {
	const char *at, *end, *begin;
};

static bool is_digit(char c)
{
	return c >= '0' && c <= '9';
}

static bool is_hex(char c)
{
	return is_digit(c) || (c >= 'a' && c <= 'f') || (c >= 'A' && c <= 'F');
}

static bool is_word(char c)
{
	return is_digit(c) || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_';
}

static size_t run_of(const struct scan *s, size_t from, bool (*is)(char))
{
	size_t n = 0;

	while (s->at + from + n < s->end && is(s->at[from + n]))
		n++;
	return n;
}

static bool has(const struct scan *s, size_t from, const char *text)
{
	size_t len = strlen(text);

	return (size_t)(s->end - s->at) >= from + len && memcmp(s->at + from, text, len) == 0;
}

static char peek(const struct scan *s, size_t i)
{
	return s->at + i < s->end ? s->at[i] : '\0';
}

/* Digits in groups of the given lengths, with one separator: 2026-01-31 is "4-2-2". 0: no. */
static size_t digits_as(const struct scan *s, const char *shape)
{
	size_t len = 0;

	for (; *shape; shape++) {
		if (is_digit(*shape)) {
			for (int i = 0; i < *shape - '0'; i++) {
				if (!is_digit(peek(s, len++)))
					return 0;
			}
		} else if (peek(s, len++) != *shape) {
			return 0;
		}
	}
	return len;
}

/* Each returns how much of the text at s->at it covers, 0 for nothing. */

static size_t match_address(const struct scan *s)
{
	size_t n = has(s, 0, "0x") ? run_of(s, 2, is_hex) : 0;

	return n >= 5 ? 2 + n : 0;
}

static size_t match_uuid(const struct scan *s)
{
	static const size_t groups[] = { 8, 4, 4, 4, 12 };
	size_t len = 0;

	for (int i = 0; i < 5; i++) {
		if (i && peek(s, len++) != '-')
			return 0;
		if (run_of(s, len, is_hex) != groups[i])
			return 0;
		len += groups[i];
	}
	return len;
}

static size_t match_date(const struct scan *s)
{
	size_t len = digits_as(s, "4-2-2");

	return len ? len : digits_as(s, "4/2/2");
}

static size_t match_clock(const struct scan *s)
{
	size_t len = digits_as(s, "2:2:2"), more;

	if (!len)
		return 0;
	if (peek(s, len) == '.' || peek(s, len) == ',') {
		more = run_of(s, len + 1, is_digit);
		len += more ? more + 1 : 0;
	}
	return len;
}

/* 1.5 ms, 12 seconds, 0.3s: the number; the unit must follow. */
static size_t match_duration(const struct scan *s)
{
	static const char *const units[] = { "ns",  "us",   "\xc2\xb5s", "ms",      "s",
		                             "sec", "secs", "second",    "seconds", "min" };
	size_t len = run_of(s, 0, is_digit), blank;

	if (!len)
		return 0;
	if (peek(s, len) == '.')
		len += 1 + run_of(s, len + 1, is_digit);
	blank = len + (peek(s, len) == ' ');
	for (size_t i = 0; i < sizeof(units) / sizeof(units[0]); i++) {
		if (has(s, blank, units[i]) && !is_word(peek(s, blank + strlen(units[i]))))
			return len;
	}
	return 0;
}

static size_t match_long_number(const struct scan *s)
{
	size_t len = run_of(s, 0, is_digit), more;

	if (len < 10)
		return 0;
	if (peek(s, len) == '.') {
		more = run_of(s, len + 1, is_digit);
		len += more ? more + 1 : 0;
	}
	return len;
}

/* The number of "pid 123", "PID: 123", "pid=123". */
static size_t match_pid(const struct scan *s)
{
	size_t back = (size_t)(s->at - s->begin), len = run_of(s, 0, is_digit);
	const char *p = s->at;

	if (!len)
		return 0;
	while (back > 0 && strchr(" :=#(", p[-1])) {
		p--;
		back--;
	}
	if (p == s->at || back < 3 || (back > 3 && is_word(p[-4])))
		return 0;
	return strncmp(p - 3, "pid", 3) == 0 || strncmp(p - 3, "PID", 3) == 0 ? len : 0;
}

static bool is_name(char c)
{
	return is_word(c) || c == '-' || c == '.';
}

/* The name behind /tmp/ or /var/tmp/. */
static size_t match_temporary(const struct scan *s)
{
	static const char *const folders[] = { "/tmp/", "/var/tmp/" };

	for (int i = 0; i < 2; i++) {
		size_t len = strlen(folders[i]);

		if (has(s, 0, folders[i]))
			return len + run_of(s, len, is_name);
	}
	return 0;
}

static size_t (*const patterns[])(const struct scan *) = {
	match_address, match_uuid,     match_date,        match_clock,
	match_pid,     match_duration, match_long_number, match_temporary,
};

int img_volatile_mask(const char *text, size_t size, struct base_buf *ret)
{
	struct scan s = { text, text + size, text };

	while (s.at < s.end) {
		bool begins = s.at == s.begin || !is_word(s.at[-1]) || *s.at == '/';
		size_t len = 0;

		for (size_t i = 0; begins && len == 0 && i < sizeof(patterns) / sizeof(patterns[0]); i++)
			len = patterns[i](&s);
		if (len) {
			(void)base_buf_putc(ret, '?');
			s.at += len;
		} else {
			(void)base_buf_putc(ret, *s.at++);
		}
	}
	return base_buf_error(ret);
}

bool img_volatile_path(const char *path)
{
	static const char *const below[] = { "/tmp", "/var/tmp", "/run", "/var/run", "/var/cache", "/dev" };
	static const char *const parts[] = { "/__pycache__", "/.cache" };

	for (size_t i = 0; i < sizeof(below) / sizeof(below[0]); i++) {
		size_t len = strlen(below[i]);

		if (strncmp(path, below[i], len) == 0 && (path[len] == '/' || path[len] == '\0'))
			return true;
	}
	for (size_t i = 0; i < 2; i++) {
		size_t len = strlen(parts[i]);

		for (const char *p = path; (p = strstr(p, parts[i])); p += len) {
			if (p[len] == '/' || p[len] == '\0')
				return true;
		}
	}
	return false;
}
