/* Values as text: Python's str() and repr(), and the operations on text that filters and methods share.
 *
 * repr() matters because templates print lists and dicts now and then, and the model was trained on what
 * Python printed: quotes are single unless that needs escapes, floats are the shortest digits that read
 * back the same. Case mapping is utf8proc's, one code point to one, plus the German sharp s. */
#include "tpl_interp.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <utf8proc.h>

/* ---- Numbers ---------------------------------------------------------------------------------------------- */

void eng_tpl_format_float(double f, char out[40])
{
	char digits[40], *e;
	int precision = 1, exp;

	if (isnan(f) || isinf(f)) {
		(void)snprintf(out, 40, "%s", isnan(f) ? "nan" : f < 0 ? "-inf" : "inf");
		return;
	}
	do {
		(void)snprintf(digits, sizeof(digits), "%.*e", precision - 1, f);
	} while (strtod(digits, NULL) != f && precision++ < 17);
	e = strchr(digits, 'e');
	exp = e ? (int)strtol(e + 1, NULL, 10) : 0;
	if (exp >= -4 && exp < 16) {
		/* Positional, at least one digit after the point. */
		int after = precision - 1 - exp;

		(void)snprintf(out, 40, "%.*f", after > 1 ? after : 1, f);
		return;
	}
	if (e)
		*e = '\0';
	(void)snprintf(out, 40, "%.24se%c%02d", digits, exp < 0 ? '-' : '+', abs(exp) % 1000);
}

/* ---- repr() ----------------------------------------------------------------------------------------------- */

static bool is_printable(uint32_t cp)
{
	switch (utf8proc_category((utf8proc_int32_t)cp)) {
	case UTF8PROC_CATEGORY_CN:
	case UTF8PROC_CATEGORY_CC:
	case UTF8PROC_CATEGORY_CF:
	case UTF8PROC_CATEGORY_CS:
	case UTF8PROC_CATEGORY_CO:
	case UTF8PROC_CATEGORY_ZL:
	case UTF8PROC_CATEGORY_ZP:
	case UTF8PROC_CATEGORY_ZS:
		return cp == ' ';
	default:
		return true;
	}
}

static void repr_text(const struct tpl_value *v, struct base_buf *out)
{
	bool has_single = memchr(v->u.s, '\'', v->len), has_double = memchr(v->u.s, '"', v->len);
	char quote = has_single && !has_double ? '"' : '\'';
	uint32_t cp;
	size_t n;

	(void)base_buf_putc(out, quote);
	for (size_t i = 0; i < v->len; i += n) {
		n = eng_tpl_utf8_next(v->u.s + i, v->len - i, &cp);
		if (cp == (uint32_t)quote || cp == '\\')
			(void)base_buf_printf(out, "\\%c", (char)cp);
		else if (cp == '\n' || cp == '\r' || cp == '\t')
			(void)base_buf_puts(out, cp == '\n' ? "\\n" : cp == '\r' ? "\\r" : "\\t");
		else if (is_printable(cp))
			(void)base_buf_append(out, v->u.s + i, n);
		else
			(void)base_buf_printf(out, cp < 0x100 ? "\\x%02x" : cp < 0x10000 ? "\\u%04x" : "\\U%08x", cp);
	}
	(void)base_buf_putc(out, quote);
}

static int repr_items(struct tpl_rt *rt, const struct tpl_list *l, struct base_buf *out)
{
	int r = 0;

	for (size_t i = 0; r == 0 && i < l->n; i++) {
		if (i)
			(void)base_buf_puts(out, ", ");
		r = eng_tpl_repr(rt, &l->v[i], out);
	}
	return r;
}

static int repr_range(const struct tpl_list *l, struct base_buf *out)
{
	(void)base_buf_printf(out, l->step == 1 ? "range(%lld, %lld)" : "range(%lld, %lld, %lld)", (long long)l->start,
	                      (long long)l->stop, (long long)l->step);
	return 0;
}

static int repr_list(struct tpl_rt *rt, const struct tpl_value *v, struct base_buf *out)
{
	const struct tpl_list *l = v->u.list;
	int r;

	switch (l->kind) {
	case TPL_KIND_LIST:
		(void)base_buf_putc(out, '[');
		r = repr_items(rt, l, out);
		(void)base_buf_putc(out, ']');
		return r;
	case TPL_KIND_TUPLE:
	case TPL_KIND_GROUP:
		(void)base_buf_putc(out, '(');
		r = repr_items(rt, l, out);
		(void)base_buf_puts(out, l->n == 1 ? ",)" : ")");
		return r;
	case TPL_KIND_RANGE:
		return repr_range(l, out);
	case TPL_KIND_GENERATOR:
		(void)base_buf_puts(out, "<generator object>");
		return 0;
	default:
		(void)base_buf_printf(out, "%s([", eng_tpl_type_name(v));
		r = repr_items(rt, l, out);
		(void)base_buf_puts(out, "])");
		return r;
	}
}

static int repr_dict(struct tpl_rt *rt, const struct tpl_dict *d, struct base_buf *out)
{
	int r = 0;

	(void)base_buf_putc(out, '{');
	for (size_t i = 0; r == 0 && i < d->n; i++) {
		if (i)
			(void)base_buf_puts(out, ", ");
		r = eng_tpl_repr(rt, &d->keys[i], out);
		(void)base_buf_puts(out, ": ");
		if (r == 0)
			r = eng_tpl_repr(rt, &d->vals[i], out);
	}
	(void)base_buf_putc(out, '}');
	return r;
}

static int repr_nested(struct tpl_rt *rt, const struct tpl_value *v, struct base_buf *out)
{
	int r = eng_tpl_enter(rt);

	if (r < 0)
		return r;
	if (v->type == TPL_NS)
		(void)base_buf_puts(out, "<Namespace ");
	r = v->type == TPL_LIST ? repr_list(rt, v, out) : repr_dict(rt, v->u.dict, out);
	if (v->type == TPL_NS)
		(void)base_buf_putc(out, '>');
	tpl_leave(rt);
	return r;
}

int eng_tpl_repr(struct tpl_rt *rt, const struct tpl_value *v, struct base_buf *out)
{
	char number[40];
	int r = eng_tpl_step(rt, 1 + (v->type == TPL_STR ? v->len >> 6 : 0));

	if (r < 0)
		return r;
	switch (v->type) {
	case TPL_UNDEF:
		(void)base_buf_puts(out, "Undefined");
		break;
	case TPL_NONE:
		(void)base_buf_puts(out, "None");
		break;
	case TPL_BOOL:
		(void)base_buf_puts(out, v->u.b ? "True" : "False");
		break;
	case TPL_INT:
		(void)base_buf_printf(out, "%lld", (long long)v->u.i);
		break;
	case TPL_FLOAT:
		eng_tpl_format_float(v->u.f, number);
		(void)base_buf_puts(out, number);
		break;
	case TPL_STR:
		if (v->markup)
			(void)base_buf_puts(out, "Markup(");
		repr_text(v, out);
		if (v->markup)
			(void)base_buf_putc(out, ')');
		break;
	case TPL_LIST:
	case TPL_DICT:
	case TPL_NS:
		r = repr_nested(rt, v, out);
		break;
	case TPL_MACRO:
		(void)base_buf_printf(out, "<Macro '%.*s'>", (int)v->u.macro->node->value.len,
		                      v->u.macro->node->value.u.s);
		break;
	case TPL_LOOP:
		(void)base_buf_printf(out, "<LoopContext %zu/%zu>", v->u.loop->index + 1, v->u.loop->items->n);
		break;
	default:
		(void)base_buf_printf(out, "<%s>", eng_tpl_type_name(v));
		break;
	}
	if (r == 0 && base_buf_error(out))
		r = eng_tpl_fail(rt, -E2BIG, "the output is larger than allowed");
	return r;
}

int eng_tpl_str(struct tpl_rt *rt, const struct tpl_value *v, struct base_buf *out)
{
	if (v->type == TPL_UNDEF)
		return 0;
	if (v->type != TPL_STR)
		return eng_tpl_repr(rt, v, out);
	if (base_buf_append(out, v->u.s, v->len) < 0)
		return eng_tpl_fail(rt, -E2BIG, "the output is larger than allowed");
	return eng_tpl_step(rt, v->len >> 6);
}

int eng_tpl_to_text(struct tpl_rt *rt, const struct tpl_value *v, struct tpl_value *ret)
{
	struct base_buf buf = BASE_BUF_INIT((size_t)TPL_MAX_OUTPUT_MIB << 20);
	int r;

	if (v->type == TPL_STR) {
		*ret = *v;
		return 0;
	}
	if (v->type == TPL_UNDEF) {
		*ret = tpl_text("", 0);
		return 0;
	}
	r = eng_tpl_repr(rt, v, &buf);
	if (r == 0)
		r = eng_tpl_text_from_buf(rt, &buf, ret);
	base_buf_done(&buf);
	return r;
}

/* ---- Shared operations ------------------------------------------------------------------------------------ */

int eng_tpl_escape_html(struct tpl_rt *rt, const struct tpl_value *text, struct tpl_value *ret)
{
	static const char from[] = "&<>'\"";
	static const char *const to[] = { "&amp;", "&lt;", "&gt;", "&#39;", "&#34;" };
	struct base_buf buf = BASE_BUF_INIT((size_t)TPL_MAX_OUTPUT_MIB << 20);
	const char *p;
	int r;

	for (size_t i = 0; i < text->len; i++) {
		p = text->u.s[i] ? strchr(from, text->u.s[i]) : NULL;
		if (p)
			(void)base_buf_puts(&buf, to[p - from]);
		else
			(void)base_buf_putc(&buf, text->u.s[i]);
	}
	r = eng_tpl_text_from_buf(rt, &buf, ret);
	ret->markup = true;
	base_buf_done(&buf);
	return r;
}

static void put_case(struct base_buf *out, uint32_t cp, bool upper)
{
	if (upper && cp == 0xdf)
		(void)base_buf_puts(out, "SS");
	else
		eng_tpl_utf8_put(out, (uint32_t)(upper ? utf8proc_toupper((utf8proc_int32_t)cp)
		                                       : utf8proc_tolower((utf8proc_int32_t)cp)));
}

int eng_tpl_text_case(struct tpl_rt *rt, const struct tpl_value *v, bool upper, struct tpl_value *ret)
{
	struct base_buf buf = BASE_BUF_INIT((size_t)TPL_MAX_OUTPUT_MIB << 20);
	uint32_t cp;
	int r;

	for (size_t i = 0; i < v->len;) {
		i += eng_tpl_utf8_next(v->u.s + i, v->len - i, &cp);
		put_case(&buf, cp, upper);
	}
	r = eng_tpl_text_from_buf(rt, &buf, ret);
	base_buf_done(&buf);
	return r;
}

int eng_tpl_text_capitalize(struct tpl_rt *rt, const struct tpl_value *v, struct tpl_value *ret)
{
	struct base_buf buf = BASE_BUF_INIT((size_t)TPL_MAX_OUTPUT_MIB << 20);
	uint32_t cp;
	int r;

	for (size_t i = 0, n; i < v->len; i += n) {
		n = eng_tpl_utf8_next(v->u.s + i, v->len - i, &cp);
		put_case(&buf, cp, i == 0);
	}
	r = eng_tpl_text_from_buf(rt, &buf, ret);
	base_buf_done(&buf);
	return r;
}

static bool strips(uint32_t cp, const struct tpl_value *chars)
{
	uint32_t c;

	if (chars->type != TPL_STR)
		return eng_tpl_is_space(cp);
	for (size_t i = 0; i < chars->len;) {
		i += eng_tpl_utf8_next(chars->u.s + i, chars->len - i, &c);
		if (c == cp)
			return true;
	}
	return false;
}

/* chars: a text, or anything else for whitespace. */
struct tpl_value eng_tpl_text_strip(const struct tpl_value *v, const struct tpl_value *chars, bool left, bool right)
{
	const char *s = v->u.s;
	size_t len = v->len, n;
	uint32_t cp;

	while (left && len) {
		n = eng_tpl_utf8_next(s, len, &cp);
		if (!strips(cp, chars))
			break;
		s += n;
		len -= n;
	}
	while (right && len) {
		n = eng_tpl_utf8_prev(s, len);
		(void)eng_tpl_utf8_next(s + len - n, n, &cp);
		if (!strips(cp, chars))
			break;
		len -= n;
	}
	return tpl_text(s, len);
}

/* An empty `from` is found before each character and at the end, as in Python. */
static void replace_empty(const struct tpl_value *v, const struct tpl_value *to, int64_t count, struct base_buf *out)
{
	int64_t done = 0;
	uint32_t cp;
	size_t n;

	for (size_t i = 0;; i += n) {
		if (count < 0 || done++ < count)
			(void)base_buf_append(out, to->u.s, to->len);
		if (i >= v->len)
			break;
		n = eng_tpl_utf8_next(v->u.s + i, v->len - i, &cp);
		(void)base_buf_append(out, v->u.s + i, n);
	}
}

int eng_tpl_text_replace(struct tpl_rt *rt, const struct tpl_value *v, const struct tpl_value *from,
                         const struct tpl_value *to, int64_t count, struct tpl_value *ret)
{
	struct base_buf buf = BASE_BUF_INIT((size_t)TPL_MAX_OUTPUT_MIB << 20);
	size_t at = 0;
	int64_t next;
	int r;

	if (from->len == 0) {
		replace_empty(v, to, count, &buf);
	} else {
		while (count != 0 && (next = eng_tpl_find(v->u.s, v->len, from->u.s, from->len, at)) >= 0) {
			(void)base_buf_append(&buf, v->u.s + at, (size_t)next - at);
			(void)base_buf_append(&buf, to->u.s, to->len);
			at = (size_t)next + from->len;
			count--;
		}
		(void)base_buf_append(&buf, v->u.s + at, v->len - at);
	}
	r = eng_tpl_text_from_buf(rt, &buf, ret);
	base_buf_done(&buf);
	return r;
}
