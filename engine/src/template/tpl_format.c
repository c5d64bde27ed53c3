/* Python's two ways to format: "%5.2f" % x, and "{:>5.2f}".format(x).
 *
 * Both end in one struct spec and one function per kind of value. Of .format(), fields may be numbered,
 * automatic or named, with attributes and items behind them and !s or !r; nested fields in a
 * specification are left out. */
#include "tpl_interp.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_WIDTH = 4096, MAX_PRECISION = 300 };

struct spec {
	uint32_t fill;
	char align; /* '<', '>', '^', '=' or 0 */
	char sign;  /* '+', ' ' or 0 */
	bool alt, comma;
	int width, precision; /* precision -1: none */
	char type;            /* 0: none */
};

static const struct spec spec_init = { .fill = ' ', .precision = -1 };

static void put_padded(struct base_buf *out, const struct spec *s, const char *text, size_t len, size_t n_sign)
{
	size_t n = eng_tpl_utf8_count(text, len), pad = s->width > 0 && (size_t)s->width > n ? (size_t)s->width - n : 0;
	size_t before = s->align == '>' ? pad : s->align == '^' ? pad / 2 : 0, after = pad - before;

	if (s->align == '=') {
		(void)base_buf_append(out, text, n_sign);
		text += n_sign;
		len -= n_sign;
		before = pad;
		after = 0;
	}
	while (before-- > 0)
		eng_tpl_utf8_put(out, s->fill);
	(void)base_buf_append(out, text, len);
	while (after-- > 0)
		eng_tpl_utf8_put(out, s->fill);
}

static void put_text(struct base_buf *out, const struct spec *spec, const char *text, size_t len)
{
	struct spec s = *spec;

	if (s.precision >= 0)
		len = eng_tpl_utf8_offset(text, len, (size_t)s.precision);
	if (!s.align || s.align == '=')
		s.align = '<';
	put_padded(out, &s, text, len, 0);
}

/* Commas between groups of three digits of the integer part that starts at text[begin]. */
static void add_commas(char *text, size_t size, size_t begin)
{
	size_t end = begin, len = strlen(text);

	while (text[end] >= '0' && text[end] <= '9')
		end++;
	for (; end > begin + 3; len++) {
		end -= 3;
		if (len + 2 > size)
			return;
		memmove(text + end + 1, text + end, len - end + 1);
		text[end] = ',';
	}
}

static void put_number(struct base_buf *out, const struct spec *spec, bool negative, const char *prefix,
                       const char *digits)
{
	struct spec s = *spec;
	char text[1024];
	size_t n_sign;

	(void)snprintf(text, sizeof(text), "%s%s%s",
	               negative        ? "-"
	               : s.sign == '+' ? "+"
	               : s.sign == ' ' ? " "
	                               : "",
	               prefix, digits);
	n_sign = (negative || s.sign) + strlen(prefix);
	if (s.comma)
		add_commas(text, sizeof(text), n_sign);
	if (!s.align)
		s.align = '>';
	put_padded(out, &s, text, strlen(text), n_sign);
}

static void put_int(struct base_buf *out, const struct spec *s, int64_t i)
{
	uint64_t u = i < 0 ? 0 - (uint64_t)i : (uint64_t)i;
	const char *prefix = "";
	char digits[80];
	int n = 0;

	switch (s->type) {
	case 'x':
	case 'X':
		(void)snprintf(digits, sizeof(digits), s->type == 'x' ? "%llx" : "%llX", (unsigned long long)u);
		prefix = s->alt ? (s->type == 'x' ? "0x" : "0X") : "";
		break;
	case 'o':
		(void)snprintf(digits, sizeof(digits), "%llo", (unsigned long long)u);
		prefix = s->alt ? "0o" : "";
		break;
	case 'b':
		for (int bit = 63; bit >= 0; bit--) {
			if (n || u >> bit & 1 || bit == 0)
				digits[n++] = (char)('0' + (u >> bit & 1));
		}
		digits[n] = '\0';
		prefix = s->alt ? "0b" : "";
		break;
	default:
		(void)snprintf(digits, sizeof(digits), "%llu", (unsigned long long)u);
		break;
	}
	put_number(out, s, i < 0, prefix, digits);
}

static void put_float(struct base_buf *out, const struct spec *s, double f)
{
	char fmt[8] = "%", digits[700];
	size_t n = 1;
	char type = s->type == 'n' ? 'g' : s->type;
	int precision = s->precision;
	bool percent = type == '%';

	if (isnan(f) || isinf(f)) {
		(void)snprintf(digits, sizeof(digits), "%s", isnan(f) ? "nan" : "inf");
	} else if (!type && precision < 0) {
		eng_tpl_format_float(fabs(f), digits);
	} else {
		type = percent ? 'f' : type ? type : 'g';
		if (s->alt)
			fmt[n++] = '#';
		fmt[n++] = '.';
		fmt[n++] = '*';
		fmt[n] = type;
		(void)snprintf(digits, sizeof(digits), fmt, precision < 0 ? 6 : precision,
		               percent ? fabs(f) * 100 : fabs(f));
	}
	n = strlen(digits);
	if (percent && n + 1 < sizeof(digits))
		memcpy(digits + n, "%", 2);
	put_number(out, s, signbit(f) && !isnan(f), "", digits);
}

/* A number under a numeric type letter; -EINVAL when v is none. */
static int put_as_number(struct tpl_rt *rt, struct base_buf *out, struct spec *s, const struct tpl_value *v)
{
	bool wants_int = s->type && strchr("diuxXobc", s->type);

	if (!tpl_is_number(v))
		return v->type == TPL_UNDEF
		               ? eng_tpl_fail_undefined(rt, v)
		               : eng_tpl_fail(rt, -EINVAL, "%%%c format: a real number is required, not %s", s->type,
		                              eng_tpl_type_name(v));
	if (!wants_int) {
		put_float(out, s, tpl_as_double(v));
		return 0;
	}
	if (v->type == TPL_FLOAT && !(fabs(v->u.f) < 9.2e18))
		return eng_tpl_fail(rt, -ERANGE, "cannot convert float to a 64-bit integer");
	put_int(out, s, v->type == TPL_FLOAT ? (int64_t)v->u.f : tpl_as_int(v));
	return 0;
}

/* ---- % ------------------------------------------------------------------------------------------------------ */

struct percent {
	const struct tpl_value *fmt, *args;
	const struct tpl_list *list; /* a tuple's items */
	size_t next;                 /* of them, or 1 once a single argument is used */
	size_t at;
};

static int next_arg(struct tpl_rt *rt, struct percent *p, struct tpl_value *ret)
{
	if (p->list ? p->next >= p->list->n : p->next > 0)
		return eng_tpl_fail(rt, -EINVAL, "not enough arguments for format string");
	*ret = p->list ? p->list->v[p->next] : *p->args;
	p->next++;
	return 0;
}

/* %(name)s: the argument of that name. */
static int mapped_arg(struct tpl_rt *rt, struct percent *p, struct tpl_value *ret)
{
	const char *s = p->fmt->u.s + p->at + 1, *end = memchr(s, ')', p->fmt->len - p->at - 1);
	struct tpl_value *found;

	if (p->args->type != TPL_DICT)
		return eng_tpl_fail(rt, -EINVAL, "format requires a mapping");
	if (!end)
		return eng_tpl_fail(rt, -EINVAL, "incomplete format key");
	found = eng_tpl_dict_get_text(p->args->u.dict, s, (size_t)(end - s));
	if (!found)
		return eng_tpl_fail(rt, -EINVAL, "no value for the format key '%.*s'",
		                    (int)(end - s < 80 ? end - s : 80), s);
	p->at += (size_t)(end - s) + 2;
	*ret = *found;
	return 0;
}

static int percent_number(struct tpl_rt *rt, struct percent *p, int max, int *ret)
{
	struct tpl_value v;
	int64_t n = 0;
	int r;

	if (p->at < p->fmt->len && p->fmt->u.s[p->at] == '*') {
		p->at++;
		r = next_arg(rt, p, &v);
		if (r == 0)
			r = eng_tpl_arg_int(rt, &v, "* in a format", 0, &n);
		if (r < 0)
			return r;
	}
	for (; p->at < p->fmt->len && p->fmt->u.s[p->at] >= '0' && p->fmt->u.s[p->at] <= '9' && n <= max; p->at++)
		n = n * 10 + p->fmt->u.s[p->at] - '0';
	if (n > max || n < -max)
		return eng_tpl_fail(rt, -E2BIG, "width or precision in a format is larger than %d", max);
	*ret = (int)n;
	return 0;
}

/* Flags, width, precision, length letters and the type. */
static int percent_spec(struct tpl_rt *rt, struct percent *p, struct spec *s)
{
	bool zero = false, left = false;
	int r;

	for (; p->at < p->fmt->len && strchr("-+ #0", p->fmt->u.s[p->at]) && p->fmt->u.s[p->at]; p->at++) {
		left |= p->fmt->u.s[p->at] == '-';
		zero |= p->fmt->u.s[p->at] == '0';
		s->alt |= p->fmt->u.s[p->at] == '#';
		if (p->fmt->u.s[p->at] == '+' || (p->fmt->u.s[p->at] == ' ' && !s->sign))
			s->sign = p->fmt->u.s[p->at];
	}
	r = percent_number(rt, p, MAX_WIDTH, &s->width);
	if (r == 0 && p->at < p->fmt->len && p->fmt->u.s[p->at] == '.') {
		p->at++;
		r = percent_number(rt, p, MAX_PRECISION, &s->precision);
		if (s->precision < 0)
			s->precision = 0;
	}
	if (r < 0)
		return r;
	while (p->at < p->fmt->len && strchr("hlL", p->fmt->u.s[p->at]) && p->fmt->u.s[p->at])
		p->at++;
	if (p->at >= p->fmt->len)
		return eng_tpl_fail(rt, -EINVAL, "incomplete format");
	s->type = p->fmt->u.s[p->at++];
	left |= s->width < 0;
	s->width = abs(s->width);
	s->align = left ? '<' : zero && strchr("diuxXoeEfFgG", s->type) ? '=' : '>';
	s->fill = s->align == '=' ? '0' : ' ';
	return 0;
}

static int percent_text(struct tpl_rt *rt, struct base_buf *out, struct spec *s, const struct tpl_value *v)
{
	struct base_buf buf = BASE_BUF_INIT((size_t)TPL_MAX_OUTPUT_MIB << 20);
	int r = s->type == 's' ? eng_tpl_str(rt, v, &buf) : eng_tpl_repr(rt, v, &buf);

	if (r == 0)
		put_text(out, s, base_buf_text(&buf), buf.len);
	base_buf_done(&buf);
	return r;
}

static int percent_char(struct tpl_rt *rt, struct base_buf *out, struct spec *s, const struct tpl_value *v)
{
	struct base_buf buf = BASE_BUF_INIT(8);

	if (v->type == TPL_INT && v->u.i >= 0 && v->u.i < 0x110000)
		eng_tpl_utf8_put(&buf, (uint32_t)v->u.i);
	else if (v->type == TPL_STR && eng_tpl_utf8_count(v->u.s, v->len) == 1)
		(void)base_buf_append(&buf, v->u.s, v->len);
	else
		return eng_tpl_fail(rt, -EINVAL, "%%c requires int or char");
	s->precision = -1;
	put_text(out, s, base_buf_text(&buf), buf.len);
	base_buf_done(&buf);
	return 0;
}

static int percent_one(struct tpl_rt *rt, struct percent *p, struct base_buf *out)
{
	struct spec s = spec_init;
	struct tpl_value v;
	bool mapped = p->at < p->fmt->len && p->fmt->u.s[p->at] == '(';
	int r = 0;

	if (mapped)
		r = mapped_arg(rt, p, &v);
	if (r == 0)
		r = percent_spec(rt, p, &s);
	if (r < 0)
		return r;
	if (s.type == '%') {
		(void)base_buf_putc(out, '%');
		return 0;
	}
	if (!s.type || !strchr("diouxXeEfFgGcrsa", s.type))
		return eng_tpl_fail(rt, -EINVAL, "unsupported format character '%c'", s.type >= 32 ? s.type : '?');
	if (!mapped)
		r = next_arg(rt, p, &v);
	if (r < 0)
		return r;
	if (strchr("rsa", s.type))
		return percent_text(rt, out, &s, &v);
	return s.type == 'c' ? percent_char(rt, out, &s, &v) : put_as_number(rt, out, &s, &v);
}

int eng_tpl_format_percent(struct tpl_rt *rt, const struct tpl_value *fmt, const struct tpl_value *args,
                           struct tpl_value *ret)
{
	struct base_buf out = BASE_BUF_INIT((size_t)TPL_MAX_OUTPUT_MIB << 20);
	struct percent p = { .fmt = fmt, .args = args };
	const char *next;
	int r = 0;

	if (tpl_is_kind(args, TPL_KIND_TUPLE) || tpl_is_kind(args, TPL_KIND_GROUP))
		p.list = args->u.list;
	while (r == 0 && p.at < fmt->len) {
		next = memchr(fmt->u.s + p.at, '%', fmt->len - p.at);
		(void)base_buf_append(&out, fmt->u.s + p.at, next ? (size_t)(next - fmt->u.s) - p.at : fmt->len - p.at);
		if (!next)
			break;
		p.at = (size_t)(next - fmt->u.s) + 1;
		r = percent_one(rt, &p, &out);
	}
	if (r == 0 && args->type != TPL_DICT && (p.list ? p.next < p.list->n : p.next == 0))
		r = eng_tpl_fail(rt, -EINVAL, "not all arguments converted during string formatting");
	if (r == 0)
		r = eng_tpl_text_from_buf(rt, &out, ret);
	base_buf_done(&out);
	return r;
}

/* ---- {} ------------------------------------------------------------------------------------------------------ */

struct braces {
	const struct tpl_args *args;
	size_t next; /* automatic numbering */
};

static int parse_uint(const char *s, size_t len, size_t *i, int max)
{
	int n = 0;

	for (; *i < len && s[*i] >= '0' && s[*i] <= '9' && n <= max; (*i)++)
		n = n * 10 + s[*i] - '0';
	return n;
}

/* [[fill]align][sign][#][0][width][,][.precision][type] */
static int braces_spec(struct tpl_rt *rt, const char *s, size_t len, struct spec *spec)
{
	uint32_t cp;
	size_t i = 0, n = len ? eng_tpl_utf8_next(s, len, &cp) : 0;

	if (n && n < len && strchr("<>^=", s[n])) {
		spec->fill = cp;
		spec->align = s[n];
		i = n + 1;
	} else if (len && strchr("<>^=", s[0])) {
		spec->align = s[i++];
	}
	if (i < len && (s[i] == '+' || s[i] == '-' || s[i] == ' ')) {
		spec->sign = s[i] == '-' ? 0 : s[i];
		i++;
	}
	if (i < len && s[i] == '#') {
		spec->alt = true;
		i++;
	}
	if (i < len && s[i] == '0' && !spec->align) {
		spec->fill = '0';
		spec->align = '=';
	}
	spec->width = parse_uint(s, len, &i, MAX_WIDTH);
	if (i < len && s[i] == ',') {
		spec->comma = true;
		i++;
	}
	if (i < len && s[i] == '.') {
		i++;
		spec->precision = parse_uint(s, len, &i, MAX_PRECISION);
	}
	if (i < len)
		spec->type = s[i++];
	if (i < len || spec->width > MAX_WIDTH || spec->precision > MAX_PRECISION)
		return eng_tpl_fail(rt, -EINVAL, "Invalid format specifier '%.*s'", (int)(len < 80 ? len : 80), s);
	return 0;
}

static int braces_value(struct tpl_rt *rt, const struct tpl_value *v, const char *text, size_t len,
                        struct base_buf *out)
{
	struct base_buf buf = BASE_BUF_INIT((size_t)TPL_MAX_OUTPUT_MIB << 20);
	struct spec s = spec_init;
	int r = braces_spec(rt, text, len, &s);

	if (r < 0)
		return r;
	if ((v->type == TPL_INT || v->type == TPL_BOOL || v->type == TPL_FLOAT) && len &&
	    !(v->type == TPL_BOOL && !s.type)) {
		if (s.type && !strchr(v->type == TPL_FLOAT ? "eEfFgGn%" : "dxXobneEfFgG%", s.type))
			return eng_tpl_fail(rt, -EINVAL, "Unknown format code '%c' for object of type '%s'", s.type,
			                    eng_tpl_type_name(v));
		if (v->type != TPL_FLOAT && (!s.type || s.type == 'n'))
			s.type = 'd';
		return put_as_number(rt, out, &s, v);
	}
	if (s.type && s.type != 's')
		return eng_tpl_fail(rt, -EINVAL, "Unknown format code '%c' for object of type '%s'", s.type,
		                    eng_tpl_type_name(v));
	r = eng_tpl_str(rt, v, &buf);
	if (r == 0)
		put_text(out, &s, base_buf_text(&buf), buf.len);
	base_buf_done(&buf);
	return r;
}

/* The argument a field names: empty, a number or a word. */
static int braces_arg(struct tpl_rt *rt, struct braces *b, const char *s, size_t len, struct tpl_value *ret)
{
	size_t at = 0, i;

	if (len && (s[0] < '0' || s[0] > '9')) {
		for (i = 0; i < b->args->n_kw; i++) {
			if (b->args->kw_names[i].len == len && memcmp(b->args->kw_names[i].u.s, s, len) == 0) {
				*ret = b->args->kw_vals[i];
				return 0;
			}
		}
		return eng_tpl_fail(rt, -EINVAL, "format(): no argument '%.*s'", (int)(len < 80 ? len : 80), s);
	}
	i = len ? (size_t)parse_uint(s, len, &at, 1000) : b->next++;
	if (at != len || i >= b->args->n_pos)
		return eng_tpl_fail(rt, -EINVAL, "Replacement index %zu out of range for positional args tuple", i);
	*ret = b->args->pos[i];
	return 0;
}

/* name.attr[item]... */
static int braces_field(struct tpl_rt *rt, struct braces *b, const char *s, size_t len, struct tpl_value *ret)
{
	size_t i = 0, begin, digits;
	struct tpl_value key;
	int r;

	while (i < len && s[i] != '.' && s[i] != '[')
		i++;
	r = braces_arg(rt, b, s, i, ret);
	while (r == 0 && i < len) {
		begin = i + 1;
		if (s[i] == '.') {
			for (i = begin; i < len && s[i] != '.' && s[i] != '[';)
				i++;
			r = eng_tpl_get_attr(rt, ret, s + begin, i - begin, ret);
			continue;
		}
		for (i = begin; i < len && s[i] != ']';)
			i++;
		digits = begin;
		key = tpl_int(parse_uint(s, i, &digits, 1000000));
		if (digits != i || i == begin)
			key = tpl_text(s + begin, i - begin);
		r = eng_tpl_get_item(rt, ret, &key, ret);
		i++;
	}
	return r;
}

/* What is between the braces: field[!r][:spec]. */
static int braces_one(struct tpl_rt *rt, struct braces *b, const char *s, size_t len, struct base_buf *out)
{
	const char *colon = memchr(s, ':', len);
	size_t name_len = colon ? (size_t)(colon - s) : len;
	struct base_buf buf = BASE_BUF_INIT((size_t)TPL_MAX_OUTPUT_MIB << 20);
	struct tpl_value v;
	char conversion = 0;
	int r;

	if (name_len >= 2 && s[name_len - 2] == '!') {
		conversion = s[name_len - 1];
		name_len -= 2;
	}
	r = braces_field(rt, b, s, name_len, &v);
	if (r == 0 && conversion) {
		r = conversion == 's' ? eng_tpl_str(rt, &v, &buf) : eng_tpl_repr(rt, &v, &buf);
		if (r == 0)
			r = eng_tpl_text_from_buf(rt, &buf, &v);
		base_buf_done(&buf);
	}
	return r < 0 ? r : braces_value(rt, &v, colon ? colon + 1 : "", colon ? len - (size_t)(colon + 1 - s) : 0, out);
}

int eng_tpl_format_braces(struct tpl_rt *rt, const struct tpl_value *fmt, const struct tpl_args *args,
                          struct tpl_value *ret)
{
	struct base_buf out = BASE_BUF_INIT((size_t)TPL_MAX_OUTPUT_MIB << 20);
	struct braces b = { .args = args };
	const char *s = fmt->u.s, *end;
	int r = 0;

	for (size_t i = 0; r == 0 && i < fmt->len; i++) {
		if ((s[i] == '{' || s[i] == '}') && i + 1 < fmt->len && s[i + 1] == s[i]) {
			(void)base_buf_putc(&out, s[i++]);
		} else if (s[i] == '{') {
			end = memchr(s + i, '}', fmt->len - i);
			if (!end)
				r = eng_tpl_fail(rt, -EINVAL, "expected '}' before end of string");
			else if (memchr(s + i + 1, '{', (size_t)(end - s) - i - 1))
				r = eng_tpl_fail(rt, -ENOTSUP, "nested fields in format() are not supported");
			else
				r = braces_one(rt, &b, s + i + 1, (size_t)(end - s) - i - 1, &out);
			i = end ? (size_t)(end - s) : i;
		} else if (s[i] == '}') {
			r = eng_tpl_fail(rt, -EINVAL, "Single '}' encountered in format string");
		} else {
			(void)base_buf_putc(&out, s[i]);
		}
	}
	if (r == 0)
		r = eng_tpl_text_from_buf(rt, &out, ret);
	base_buf_done(&out);
	return r;
}
