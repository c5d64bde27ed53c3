/* Values that stand in a table as text: times, digests, bytes in base 64. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "lazy_internal.h"

/* `n` digits at *p. */
static int digits(const char **p, const char *end, int n, int64_t *ret)
{
	int64_t v = 0;

	if (end - *p < n)
		return -EBADMSG;
	for (int i = 0; i < n; i++) {
		char c = *(*p)++;

		if (c < '0' || c > '9')
			return -EBADMSG;
		v = v * 10 + (c - '0');
	}
	*ret = v;
	return 0;
}

static int one_of(const char **p, const char *end, const char *set)
{
	if (*p >= end || !**p || !strchr(set, **p))
		return -EBADMSG;
	return *(*p)++;
}

/* Days since 1970-01-01 of a day in the Gregorian calendar: years begin in March, so that the leap day is the last. */
static int64_t days_of(int64_t year, int64_t month, int64_t day)
{
	int64_t y = month <= 2 ? year - 1 : year, era, yoe, doy;

	era = (y >= 0 ? y : y - 399) / 400;
	yoe = y - era * 400;
	doy = (153 * (month + (month > 2 ? -3 : 9)) + 2) / 5 + day - 1;
	return era * 146097 + yoe * 365 + yoe / 4 - yoe / 100 + doy - 719468;
}

/* "Z" or "+hh:mm": seconds east of Greenwich. */
static int zone(const char **p, const char *end, int64_t *ret_s)
{
	int64_t h, m;
	int c = one_of(p, end, "Zz+-");

	*ret_s = 0;
	if (c < 0 || c == 'Z' || c == 'z')
		return c < 0 ? c : 0;
	if (digits(p, end, 2, &h) < 0 || one_of(p, end, ":") < 0 || digits(p, end, 2, &m) < 0 || h > 23 || m > 59)
		return -EBADMSG;
	*ret_s = (h * 60 + m) * (c == '-' ? -60 : 60);
	return 0;
}

int flip_time_parse(const struct flip_text *text, int64_t *ret_s, uint32_t *ret_ns)
{
	const char *p = text->p, *end = text->p + text->n;
	int64_t year, month, day, h, m, s, east;
	uint32_t ns = 0, unit = 100000000;

	if (digits(&p, end, 4, &year) < 0 || one_of(&p, end, "-") < 0 || digits(&p, end, 2, &month) < 0 ||
	    one_of(&p, end, "-") < 0 || digits(&p, end, 2, &day) < 0 || one_of(&p, end, "Tt ") < 0 ||
	    digits(&p, end, 2, &h) < 0 || one_of(&p, end, ":") < 0 || digits(&p, end, 2, &m) < 0 ||
	    one_of(&p, end, ":") < 0 || digits(&p, end, 2, &s) < 0)
		return -EBADMSG;
	if (month < 1 || month > 12 || day < 1 || day > 31 || h > 23 || m > 59 || s > 60)
		return -EBADMSG;
	if (p < end && *p == '.') {
		for (p++; p < end && *p >= '0' && *p <= '9'; p++, unit /= 10)
			ns += unit * (uint32_t)(*p - '0');
	}
	if (zone(&p, end, &east) < 0 || p != end)
		return -EBADMSG;
	/* The year 1 is how Go writes "no time". */
	*ret_s = year <= 1 ? 0 : days_of(year, month, day) * 86400 + h * 3600 + m * 60 + s - east;
	*ret_ns = ns;
	return 0;
}

/* Value of a lower-case hexadecimal digit + 1; 0: none. There are two digests for each chunk. */
static const uint8_t hex_values[256] = {
	['0'] = 1, ['1'] = 2,  ['2'] = 3,  ['3'] = 4,  ['4'] = 5,  ['5'] = 6,  ['6'] = 7,  ['7'] = 8,
	['8'] = 9, ['9'] = 10, ['a'] = 11, ['b'] = 12, ['c'] = 13, ['d'] = 14, ['e'] = 15, ['f'] = 16,
};

int flip_digest_parse(const char *text, size_t size, uint8_t ret_digest[32])
{
	static const char prefix[] = "sha256:";
	uint8_t digest[32];

	if (size != sizeof(prefix) - 1 + 64 || memcmp(text, prefix, sizeof(prefix) - 1) != 0)
		return -EBADMSG;
	text += sizeof(prefix) - 1;
	for (size_t i = 0; i < 32; i++) {
		unsigned high = hex_values[(uint8_t)text[2 * i]], low = hex_values[(uint8_t)text[2 * i + 1]];

		if (!high || !low)
			return -EBADMSG;
		digest[i] = (uint8_t)((high - 1) << 4 | (low - 1));
	}
	memcpy(ret_digest, digest, 32);
	return 0;
}

static int base64_value(char c)
{
	if (c >= 'A' && c <= 'Z')
		return c - 'A';
	if (c >= 'a' && c <= 'z')
		return c - 'a' + 26;
	if (c >= '0' && c <= '9')
		return c - '0' + 52;
	return c == '+' ? 62 : c == '/' ? 63 : -1;
}

int flip_base64_parse(const struct flip_text *text, void **ret_data, size_t *ret_size)
{
	size_t n = text->n, out = 0;
	uint32_t bits = 0;
	uint8_t *data;

	if (n % 4)
		return -EBADMSG;
	while (n && text->n - n < 2 && text->p[n - 1] == '=')
		n--;
	data = malloc(n / 4 * 3 + 3);
	if (!data)
		return -ENOMEM;
	for (size_t i = 0; i < n; i++) {
		int v = base64_value(text->p[i]);

		if (v < 0) {
			free(data);
			return -EBADMSG;
		}
		bits = bits << 6 | (uint32_t)v;
		if (i % 4 != 0)
			data[out++] = (uint8_t)(bits >> (6 - 2 * (i % 4)));
	}
	*ret_data = data;
	*ret_size = out;
	return 0;
}
