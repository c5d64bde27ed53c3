/* Numbers as texts: which decimals lie on one side of a bound, and which are multiples of a step.
 *
 * A bound becomes a regular expression over digits: more digits, or a larger digit behind an equal prefix, or equal and
 * then the fraction decides in the same way. The multiples of M/10^k are an automaton whose states are remainders. */
#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "grammar/schema_internal.h"

enum { MAX_DIGITS = 400, MAX_REMAINDERS = 8192 };

/* ---- Decimals ---- */

/* "1.25e-3" -> "0.00125" */
static int plain_decimal(const char *g, char **ret)
{
	char digits[32] = "", *out;
	int n = 0, exponent = 0, point = -1, k = 0;
	const char *p = g;
	bool is_negative = *p == '-';

	for (p += is_negative; *p && *p != 'e' && n < 30; p++) {
		if (*p == '.')
			point = n;
		else
			digits[n++] = *p;
	}
	if (*p == 'e')
		exponent = (int)strtol(p + 1, NULL, 10);
	point = (point < 0 ? n : point) + exponent;
	if (point > MAX_DIGITS || point < -MAX_DIGITS)
		return -ERANGE;
	out = calloc(1, (size_t)(n + abs(point) + 8));
	if (!out)
		return -ENOMEM;
	if (is_negative)
		out[k++] = '-';
	if (point <= 0) {
		out[k++] = '0';
		out[k++] = '.';
	}
	for (int i = point; i < 0; i++)
		out[k++] = '0';
	for (int i = 0; i < n; i++) {
		if (i == point && i > 0)
			out[k++] = '.';
		out[k++] = digits[i];
	}
	for (int i = n; i < point; i++)
		out[k++] = '0';
	*ret = out;
	return 0;
}

int gr_number_decimal(const json_t *number, char **ret)
{
	char text[48];
	double d = json_real_value(number);

	if (json_is_integer(number)) {
		(void)snprintf(text, sizeof(text), "%lld", (long long)json_integer_value(number));
		*ret = strdup(text);
		return *ret ? 0 : -ENOMEM;
	}
	if (!isfinite(d))
		return -ERANGE;
	for (int precision = 1; precision <= 17; precision++) {
		(void)snprintf(text, sizeof(text), "%.*g", precision, d);
		if (strtod(text, NULL) == d)
			break;
	}
	return plain_decimal(text, ret);
}

struct decimal {
	bool is_negative, is_zero;
	char whole[MAX_DIGITS + 40], fraction[MAX_DIGITS + 40]; /* no superfluous zeros */
};

static int split(const char *text, struct decimal *d)
{
	const char *point;
	size_t n, f;

	d->is_negative = *text == '-';
	text += d->is_negative;
	while (text[0] == '0' && text[1] >= '0' && text[1] <= '9')
		text++;
	point = strchr(text, '.');
	n = point ? (size_t)(point - text) : strlen(text);
	f = point ? strlen(point + 1) : 0;
	while (f > 0 && point[f] == '0')
		f--;
	if (n >= sizeof(d->whole) || f >= sizeof(d->fraction))
		return -E2BIG;
	memcpy(d->whole, text, n);
	d->whole[n] = '\0';
	if (f > 0)
		memcpy(d->fraction, point + 1, f);
	d->fraction[f] = '\0';
	d->is_zero = f == 0 && strcmp(d->whole, "0") == 0;
	return 0;
}

/* ---- Bounds ---- */

static void prefix(struct base_buf *out, const char *digits, size_t n)
{
	(void)base_buf_append(out, digits, n);
}

/* Whole parts beyond w, with any fraction; every alternative ends in "|". */
static void whole_beyond(struct base_buf *out, const char *w, bool above)
{
	size_t n = strlen(w);

	if (above)
		(void)base_buf_printf(out, "[1-9]\\d{%zu,}(\\.\\d+)?|", strcmp(w, "0") == 0 ? n - 1 : n);
	else if (n > 1)
		(void)base_buf_printf(out, "(0|[1-9]\\d{0,%zu})(\\.\\d+)?|", n - 2);
	for (size_t i = 0; i < n && strcmp(w, "0") != 0; i++) {
		char least = i == 0 && n > 1 ? '1' : '0';

		if (above ? w[i] == '9' : w[i] <= least)
			continue;
		prefix(out, w, i);
		(void)base_buf_printf(out, "[%c-%c]\\d{%zu}(\\.\\d+)?|", above ? w[i] + 1 : least,
		                      above ? '9' : w[i] - 1, n - i - 1);
	}
}

/* The whole parts are equal: what may stand behind; nothing at all is told by false. */
static bool fraction_beyond(struct base_buf *out, const char *f, bool above, bool is_strict)
{
	size_t n = strlen(f);

	if (n == 0 && above) {
		(void)base_buf_puts(out, is_strict ? "\\.\\d*[1-9]\\d*" : "(\\.\\d+)?");
		return true;
	}
	if (n == 0) {
		(void)base_buf_puts(out, "(\\.0+)?");
		return !is_strict;
	}
	(void)base_buf_puts(out, "(\\.(");
	for (size_t i = 0; i < n; i++) {
		if (above ? f[i] < '9' : f[i] > '0') {
			prefix(out, f, i);
			(void)base_buf_printf(out, "[%c-%c]\\d*|", above ? f[i] + 1 : '0', above ? '9' : f[i] - 1);
		}
		if (!above && i > 0) { /* shorter and so smaller */
			prefix(out, f, i);
			(void)base_buf_puts(out, "|");
		}
	}
	if (above) {
		(void)base_buf_printf(out, "%s\\d*%s", f, is_strict ? "[1-9]\\d*" : "");
	} else if (!is_strict) {
		(void)base_buf_printf(out, "%s0*", f);
	} else {
		out->len--; /* the last "|": one alternative is there, as the last digit is no 0 */
		out->data[out->len] = '\0';
	}
	(void)base_buf_puts(out, above ? "))" : "))?");
	return true;
}

/* Decimals without sign on one side of |d|, in brackets. */
static void beyond(struct base_buf *out, const struct decimal *d, bool above, bool is_strict)
{
	size_t mark;

	(void)base_buf_puts(out, "(");
	whole_beyond(out, d->whole, above);
	mark = out->len;
	(void)base_buf_puts(out, d->whole);
	if (!fraction_beyond(out, d->fraction, above, is_strict) && !base_buf_error(out)) {
		out->len = mark;
		(void)base_buf_puts(out, "[^\\x00-\\U0010ffff]"); /* not even then */
	}
	(void)base_buf_puts(out, ")");
}

int gr_number_bound(struct base_buf *out, const char *decimal, bool is_lower, bool is_strict)
{
	static const char any[] = "(0|[1-9]\\d*)(\\.\\d+)?";
	struct decimal d;
	int r = split(decimal, &d);
	bool negative = d.is_negative && !d.is_zero;

	if (r < 0)
		return r;
	if (is_lower && negative) {
		(void)base_buf_printf(out, "%s|-", any);
		beyond(out, &d, false, is_strict);
	} else if (is_lower) {
		beyond(out, &d, true, is_strict);
		if (d.is_zero && !is_strict)
			(void)base_buf_puts(out, "|-0(\\.0+)?");
	} else if (negative) {
		(void)base_buf_puts(out, "-");
		beyond(out, &d, true, is_strict);
	} else {
		beyond(out, &d, false, is_strict);
		(void)base_buf_puts(out, "|-");
		if (d.is_zero && is_strict)
			beyond(out, &d, true, true);
		else
			(void)base_buf_puts(out, any);
	}
	return base_buf_error(out);
}

/* ---- Multiples ---- */

struct multiple {
	struct nfa *a;
	uint32_t digits[10]; /* sets */
	uint32_t base, step; /* state of (place, remainder): base + place * step + remainder */
	uint32_t places;     /* of the fraction */
};

static int add_digit_edges(const struct multiple *m, uint32_t place, uint32_t remainder)
{
	uint32_t from = m->base + place * m->step + remainder;
	int r = 0;

	for (uint32_t d = 0; d < 10 && r == 0; d++) {
		uint32_t to;

		if (place == m->places + 1) { /* behind the last place that counts: zeros */
			if (d == 0)
				r = gr_nfa_edge(m->a, from, NFA_SET, m->digits[d], from);
			continue;
		}
		to = (uint32_t)(((uint64_t)remainder * 10 + d) % m->step);
		r = gr_nfa_edge(m->a, from, NFA_SET, m->digits[d], m->base + (place ? place + 1 : 0) * m->step + to);
	}
	return r;
}

/* Places: 0 the whole part, 1 .. places + 1 behind the point with so many digits - 1 read. */
static int build_multiple(struct multiple *m, uint32_t dot, uint32_t accept)
{
	int r = 0;

	for (uint32_t place = 0; place <= m->places + 1 && r == 0; place++) {
		uint32_t left = place ? m->places + 1 - place : m->places;
		uint64_t scale = 1;

		for (uint32_t i = 0; i < left; i++)
			scale = scale * 10 % m->step;
		for (uint32_t rest = 0; rest < m->step && r == 0; rest++) {
			uint32_t from = m->base + place * m->step + rest;

			r = add_digit_edges(m, place, rest);
			if (r == 0 && place == 0)
				r = gr_nfa_edge(m->a, from, NFA_SET, dot, m->base + m->step + rest);
			if (r == 0 && rest * scale % m->step == 0)
				r = gr_nfa_edge(m->a, from, NFA_EPS, 0, accept);
		}
	}
	return r;
}

static int one_char(struct nfa *a, uint32_t cp, uint32_t *ret)
{
	struct charset_range range = { cp, cp };

	return gr_nfa_set(a, &(struct charset){ .ranges = &range, .n = 1 }, ret);
}

int gr_number_multiple(struct dfa_builder *b, const char *decimal)
{
	struct multiple m = { .a = &b->nfa };
	struct decimal d;
	uint32_t start = 0, accept = 0, minus = 0, dot = 0, state = 0;
	uint64_t step;
	int r = split(decimal, &d);

	if (r < 0)
		return r;
	m.places = (uint32_t)strlen(d.fraction);
	if (strlen(d.whole) + m.places > 15)
		return -E2BIG;
	step = strtoull(d.whole, NULL, 10);
	for (const char *p = d.fraction; *p; p++)
		step = step * 10 + (uint64_t)(*p - '0');
	if (step == 0 || step * (m.places + 2) > MAX_REMAINDERS)
		return -E2BIG;
	m.step = (uint32_t)step;
	for (uint32_t i = 0; i < 10 && r == 0; i++)
		r = one_char(m.a, '0' + i, &m.digits[i]);
	if (r < 0 || (r = one_char(m.a, '-', &minus)) < 0 || (r = one_char(m.a, '.', &dot)) < 0 ||
	    (r = gr_nfa_state(m.a, &start)) < 0 || (r = gr_nfa_state(m.a, &accept)) < 0)
		return r;
	for (uint32_t i = 0; i < m.step * (m.places + 2) && r == 0; i++) {
		r = gr_nfa_state(m.a, &state);
		if (i == 0)
			m.base = state;
	}
	if (r < 0 || (r = gr_nfa_edge(m.a, start, NFA_EPS, 0, m.base)) < 0 ||
	    (r = gr_nfa_edge(m.a, start, NFA_SET, minus, m.base)) < 0 || (r = build_multiple(&m, dot, accept)) < 0)
		return r;
	return gr_dfa_builder_add_states(b, start, accept);
}
