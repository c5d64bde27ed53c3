/* Numbers in a model's answer that no fact holds.
 *
 * A model that explains measurements may invent one. Every number of the answer is looked for among the numbers of the
 * facts (tool results, the question, what was piped in). It is there when a fact gives it, gives it when rounded to as
 * many digits as the answer shows, or gives it in another unit of bytes, bits or time (factors of 1000, 1024 and 60).
 * Not looked at: the numbers of lists, 0 and 1, code, and digits that are part of a word or a version (sda1,
 * x86_64, 5.14.0); of those the whole word is looked for when it has more than one dot, for an address may be invented
 * too.
 *
 * This is a check against slips, not a proof: a number may be right and stand for the wrong thing. */
#include "flow/flow.h"

#include <ctype.h>
#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_NUMBERS = 65536, MAX_TOKEN = 64, MAX_NAMED = 20 };

struct number {
	double value;
	unsigned decimals;
	const char *text;
	size_t len;     /* with its sign of percent or unit, for people */
	bool is_dotted; /* two dots or more: an address, a version */
};

static bool is_digit(char c)
{
	return c >= '0' && c <= '9';
}

static bool is_word_char(char c)
{
	return isalnum((unsigned char)c) || c == '_';
}

/* The number at text[i], a digit: its length, and what it says. Commas that part thousands are passed over. */
static size_t read_number(const char *text, size_t len, size_t i, struct number *n)
{
	char digits[MAX_TOKEN];
	size_t k = i, n_digits = 0, dots = 0, since_dot = 0;

	while (k < len) {
		char c = text[k];
		bool more = k + 1 < len && is_digit(text[k + 1]);

		if (c == ',' && more && k + 3 < len && is_digit(text[k + 2]) && is_digit(text[k + 3]) && dots == 0 &&
		    (k + 4 >= len || !is_digit(text[k + 4]))) {
			k++;
			continue;
		}
		if (c == '.' && more) {
			dots++;
			since_dot = 0;
		} else if (!is_digit(c)) {
			break;
		} else {
			since_dot++;
		}
		if (n_digits + 1 < sizeof(digits))
			digits[n_digits++] = c;
		k++;
	}
	digits[n_digits] = '\0';
	*n = (struct number){ .text = text + i,
		              .value = strtod(digits, NULL),
		              .decimals = dots ? (unsigned)since_dot : 0,
		              .is_dotted = dots > 1 };
	return k - i;
}

/* The unit right behind a number, "%", " GiB", for showing it. */
static size_t unit_length(const char *text, size_t len)
{
	size_t blank = len && text[0] == ' ', n = 0;

	while (blank + n < len && n < 6 && (isalpha((unsigned char)text[blank + n]) || text[blank + n] == '%'))
		n++;
	if (blank && n && text[1] != '%' && !isupper((unsigned char)text[1]) && n > 2)
		return 0; /* the next word */
	return n && n < 6 ? blank + n : 0;
}

/* ---- The facts ---- */

static int by_value(const void *a, const void *b)
{
	const struct number *x = a, *y = b;

	return (x->value > y->value) - (x->value < y->value);
}

/* All numbers of a text, also those within words: what is compared with may be generous. */
static size_t collect(const char *text, size_t len, struct number *list, size_t max)
{
	size_t n = 0;

	for (size_t i = 0; i < len && n < max;) {
		if (!is_digit(text[i])) {
			i++;
			continue;
		}
		i += read_number(text, len, i, &list[n]);
		n += !list[n].is_dotted;
	}
	qsort(list, n, sizeof(*list), by_value);
	return n;
}

/* Whether a fact lies within half of the answer's last digit. */
static bool is_near(const struct number *facts, size_t n, double value, double half)
{
	size_t low = 0, high = n;

	while (low < high) {
		size_t mid = low + (high - low) / 2;

		if (facts[mid].value < value - half)
			low = mid + 1;
		else
			high = mid;
	}
	return low < n && facts[low].value <= value + half;
}

static bool is_known(const struct number *facts, size_t n, const struct number *x)
{
	static const double factors[] = { 1,    1000,          1024, 1e6,  1048576, 1e9, 1073741824,
		                          1e12, 1099511627776, 60,   3600, 86400,   8 };
	double half = 0.5 * pow(10, -(double)x->decimals) * (1 + 1e-9);

	if (is_near(facts, n, x->value, x->decimals ? half : 0.5 * (x->value >= 10)))
		return true;
	/* Another unit: a number of one digit fits too many. */
	for (size_t i = 1; i < sizeof(factors) / sizeof(*factors) && (x->decimals || x->value >= 10); i++) {
		if (is_near(facts, n, x->value * factors[i], half * factors[i]) ||
		    is_near(facts, n, x->value / factors[i], half / factors[i]))
			return true;
	}
	return false;
}

/* ---- The answer ---- */

struct scan {
	const char *text;
	size_t len, i;
	bool at_line_start; /* nothing but blanks and list marks so far */
	char fence;         /* in a block of code */
};

/* Bytes of the code that begins here: a span `...`, or the line that opens or closes a fence. */
static size_t code_length(struct scan *s)
{
	const char *p = s->text + s->i, *end;
	size_t left = s->len - s->i, n = 0;

	while (n < left && p[n] == '`')
		n++;
	if (n >= 3 && s->at_line_start) {
		s->fence = s->fence ? 0 : '`';
		end = memchr(p, '\n', left);
		return end ? (size_t)(end - p) : left;
	}
	/* Code of nothing but a number and its unit is a number all the same. */
	end = n == 1 ? memchr(p + 1, '`', left - 1) : NULL;
	if (!end || memchr(p, '\n', (size_t)(end - p)))
		return n;
	for (const char *c = p + 1; c < end; c++) {
		if (!is_digit(*c) && !strchr(".,% ", *c) &&
		    !(c > p + 1 && isalpha((unsigned char)*c) && is_digit(p[1])))
			return (size_t)(end + 1 - p);
	}
	return 1;
}

/* "1." or "2)" or "3、" at a line's start; "第3", "[1]", "#4". */
static bool is_ordinal(const struct scan *s, size_t len)
{
	const char *p = s->text + s->i, *after = p + len;
	size_t left = s->len - s->i - len;

	if (s->at_line_start && left && (*after == '.' || *after == ')' || (left >= 3 && memcmp(after, "、", 3) == 0)))
		return true;
	if (s->i >= 3 && memcmp(p - 3, "第", 3) == 0)
		return true;
	if (s->i && p[-1] == '#')
		return true;
	return s->i && p[-1] == '[' && left && *after == ']';
}

/* Digits within a word: sda1, x86_64, CVE-2024-1. Minus signs of a range or a date are no letters. */
static bool is_in_word(const struct scan *s)
{
	size_t i = s->i;

	if (i == 0)
		return false;
	if (is_word_char(s->text[i - 1]))
		return true;
	return s->text[i - 1] == '-' && i >= 2 && isalpha((unsigned char)s->text[i - 2]);
}

static bool is_named(const struct base_buf *out, size_t begin, const char *text, size_t len)
{
	return out->len > begin && memmem(out->data + begin, out->len - begin, text, len) != NULL;
}

int ag_numbers_unknown(const char *answer, size_t answer_len, const char *facts, size_t facts_len, struct base_buf *out)
{
	struct number *known = calloc(MAX_NUMBERS, sizeof(*known));
	struct scan s = { .text = answer, .len = answer_len, .at_line_start = true };
	size_t n_known, begin = out->len;
	int n_unknown = 0;

	if (!known)
		return -ENOMEM;
	n_known = collect(facts, facts_len, known, MAX_NUMBERS - 1);
	while (s.i < s.len) {
		char c = s.text[s.i];
		struct number x;
		size_t len;

		if (c == '`') {
			s.i += code_length(&s);
			s.at_line_start = false;
			continue;
		}
		if (!is_digit(c) || s.fence) {
			s.at_line_start = c == '\n' || (s.at_line_start && strchr(" \t*->", c));
			s.i++;
			continue;
		}
		len = read_number(s.text, s.len, s.i, &x);
		x.len = len + unit_length(s.text + s.i + len, s.len - s.i - len);
		if (!is_in_word(&s) && !is_ordinal(&s, len) && !(x.decimals == 0 && x.value <= 1) &&
		    (x.is_dotted ? !memmem(facts, facts_len, x.text, len) : !is_known(known, n_known, &x)) &&
		    n_unknown < MAX_NAMED && !is_named(out, begin, x.text, x.len)) {
			(void)base_buf_puts(out, n_unknown++ ? ", " : "");
			(void)base_buf_append(out, x.text, x.len);
		}
		s.at_line_start = false;
		s.i += len;
	}
	free(known);
	return base_buf_error(out) ? base_buf_error(out) : n_unknown;
}
