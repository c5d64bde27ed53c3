/* Filters over text. As in Jinja, most take any value and work on its str(). */
#include "tpl_interp.h"

#include <ctype.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <utf8proc.h>

#define FILTER(name)                                                                                \
	static int name(struct tpl_rt *rt, const struct tpl_value *in, const struct tpl_args *args, \
	                struct tpl_value *ret)

#define OUT_BUF BASE_BUF_INIT((size_t)TPL_MAX_OUTPUT_MIB << 20)

static int finish(struct tpl_rt *rt, struct base_buf *buf, int r, struct tpl_value *ret)
{
	if (r == 0)
		r = eng_tpl_text_from_buf(rt, buf, ret);
	base_buf_done(buf);
	return r;
}

FILTER(f_string)
{
	(void)args;
	return eng_tpl_to_text(rt, in, ret);
}

FILTER(f_upper)
{
	struct tpl_value v;
	int r = eng_tpl_to_text(rt, in, &v);

	(void)args;
	return r < 0 ? r : eng_tpl_text_case(rt, &v, true, ret);
}

FILTER(f_lower)
{
	struct tpl_value v;
	int r = eng_tpl_to_text(rt, in, &v);

	(void)args;
	return r < 0 ? r : eng_tpl_text_case(rt, &v, false, ret);
}

FILTER(f_capitalize)
{
	struct tpl_value v;
	int r = eng_tpl_to_text(rt, in, &v);

	(void)args;
	return r < 0 ? r : eng_tpl_text_capitalize(rt, &v, ret);
}

/* A word begins after blanks, hyphens and opening brackets (unlike the method, not after quotes). */
FILTER(f_title)
{
	struct base_buf buf = OUT_BUF;
	struct tpl_value v;
	bool begin = true;
	uint32_t cp;
	int r = eng_tpl_to_text(rt, in, &v);

	(void)args;
	for (size_t i = 0; r == 0 && i < v.len;) {
		i += eng_tpl_utf8_next(v.u.s + i, v.len - i, &cp);
		eng_tpl_utf8_put(&buf, (uint32_t)(begin ? utf8proc_toupper((utf8proc_int32_t)cp)
		                                        : utf8proc_tolower((utf8proc_int32_t)cp)));
		begin = eng_tpl_is_space(cp) || (cp < 0x80 && cp && strchr("-({[<", (int)cp));
	}
	return finish(rt, &buf, r, ret);
}

FILTER(f_trim)
{
	struct tpl_value v;
	int r = eng_tpl_to_text(rt, in, &v);

	if (r == 0)
		*ret = eng_tpl_text_strip(&v, &args->pos[0], true, true);
	return r;
}

FILTER(f_replace)
{
	struct tpl_value v, from, to;
	int64_t count = -1;
	int r = eng_tpl_to_text(rt, in, &v);

	if (r == 0)
		r = eng_tpl_to_text(rt, &args->pos[0], &from);
	if (r == 0)
		r = eng_tpl_to_text(rt, &args->pos[1], &to);
	if (r == 0 && args->pos[2].type != TPL_NONE)
		r = eng_tpl_arg_int(rt, &args->pos[2], "replace", -1, &count);
	return r < 0 ? r : eng_tpl_text_replace(rt, &v, &from, &to, count, ret);
}

FILTER(f_escape)
{
	struct tpl_value v;
	int r = eng_tpl_to_text(rt, in, &v);

	(void)args;
	*ret = v;
	return r < 0 || v.markup ? r : eng_tpl_escape_html(rt, &v, ret);
}

FILTER(f_safe)
{
	int r = eng_tpl_to_text(rt, in, ret);

	(void)args;
	ret->markup = true;
	return r;
}

FILTER(f_format)
{
	struct tpl_value v, values;
	struct tpl_list *l;
	struct tpl_dict *d;
	int r = eng_tpl_to_text(rt, in, &v);

	if (r == 0 && args->n_pos && args->n_kw)
		r = eng_tpl_fail(rt, -EINVAL, "can't handle positional and keyword arguments at the same time");
	if (r < 0)
		return r;
	if (args->n_kw) {
		r = eng_tpl_dict_new(rt, &d);
		for (size_t i = 0; r == 0 && i < args->n_kw; i++)
			r = eng_tpl_dict_set(rt, d, args->kw_names[i], args->kw_vals[i]);
		values = (struct tpl_value){ .type = TPL_DICT, .u.dict = d };
	} else {
		r = eng_tpl_list_new(rt, TPL_KIND_TUPLE, 0, &l);
		for (size_t i = 0; r == 0 && i < args->n_pos; i++)
			r = eng_tpl_list_push(rt, l, args->pos[i]);
		values = tpl_list_value(l);
	}
	return r < 0 ? r : eng_tpl_format_percent(rt, &v, &values, ret);
}

FILTER(f_truncate)
{
	struct tpl_value v, end, none[3] = { tpl_none(), tpl_none(), tpl_none() };
	int64_t length, leeway = 5, n, n_end, keep;
	size_t cut;
	int r = eng_tpl_to_text(rt, in, &v);

	if (r == 0)
		r = eng_tpl_arg_int(rt, &args->pos[0], "truncate", 255, &length);
	if (r == 0)
		r = eng_tpl_arg_text(rt, &args->pos[2], "truncate", "...", &end);
	if (r == 0 && args->pos[3].type != TPL_NONE)
		r = eng_tpl_arg_int(rt, &args->pos[3], "truncate", 5, &leeway);
	if (r < 0)
		return r;
	n = (int64_t)eng_tpl_utf8_count(v.u.s, v.len);
	n_end = (int64_t)eng_tpl_utf8_count(end.u.s, end.len);
	if (length < n_end || leeway < 0)
		return eng_tpl_fail(rt, -EINVAL, "truncate: expected length >= %lld and leeway >= 0", (long long)n_end);
	if (n <= length || n - length <= leeway) {
		*ret = v;
		return 0;
	}
	keep = length - n_end;
	none[1] = tpl_int(keep);
	r = eng_tpl_slice(rt, &v, none, &v);
	if (r == 0 && !eng_tpl_arg_bool(&args->pos[1], false)) { /* not in the middle of a word */
		for (cut = v.len; cut > 0 && v.u.s[cut - 1] != ' ';)
			cut--;
		v.len = cut ? cut - 1 : v.len;
	}
	return r < 0 ? r : eng_tpl_text_concat(rt, &v, end.u.s, end.len, ret);
}

/* Every line but the first moves right; empty lines stay empty unless `blank`. */
FILTER(f_indent)
{
	struct tpl_value b[TPL_MAX_PARAMS] = { 0 }, text, width = tpl_text("", 0), lines, space = tpl_text(" ", 1);
	const struct tpl_args no_args = { .pos = b };
	bool first = eng_tpl_arg_bool(&args->pos[1], false), blank = eng_tpl_arg_bool(&args->pos[2], false);
	struct base_buf buf = OUT_BUF;
	const struct tpl_value *line;
	int r = eng_tpl_to_text(rt, in, &text);

	if (r == 0 && args->pos[0].type == TPL_STR)
		width = args->pos[0];
	else if (r == 0)
		r = eng_tpl_binary(rt, TPL_OP_MUL, &space,
		                   args->pos[0].type == TPL_MISSING ? &(struct tpl_value){ .type = TPL_INT, .u.i = 4 }
		                                                    : &args->pos[0],
		                   &width);
	if (r == 0)
		r = eng_tpl_text_concat(rt, &text, "\n", 1, &text); /* so that a last empty line counts */
	if (r == 0)
		r = eng_tpl_find_method(&text, "splitlines", 10)->fn(rt, &text, &no_args, &lines);
	for (size_t i = 0; r == 0 && i < lines.u.list->n; i++) {
		line = &lines.u.list->v[i];
		if (i)
			(void)base_buf_putc(&buf, '\n');
		if (i ? blank || line->len : first)
			(void)base_buf_append(&buf, width.u.s, width.len);
		(void)base_buf_append(&buf, line->u.s, line->len);
	}
	return finish(rt, &buf, r, ret);
}

FILTER(f_center)
{
	struct tpl_value v, b[TPL_MAX_PARAMS] = { 0 };
	const struct tpl_args width = { .pos = b };
	int r = eng_tpl_to_text(rt, in, &v);

	b[0] = args->pos[0].type == TPL_MISSING ? tpl_int(80) : args->pos[0];
	return r < 0 ? r : eng_tpl_find_method(&v, "center", 6)->fn(rt, &v, &width, ret);
}

FILTER(f_wordcount)
{
	struct tpl_value v;
	bool in_word = false, word;
	int64_t n = 0;
	uint32_t cp;
	int r = eng_tpl_to_text(rt, in, &v);

	(void)args;
	for (size_t i = 0; r == 0 && i < v.len; in_word = word) {
		i += eng_tpl_utf8_next(v.u.s + i, v.len - i, &cp);
		utf8proc_category_t c = utf8proc_category((utf8proc_int32_t)cp);

		word = cp == '_' || (c >= UTF8PROC_CATEGORY_LU && c <= UTF8PROC_CATEGORY_LO) ||
		       (c >= UTF8PROC_CATEGORY_ND && c <= UTF8PROC_CATEGORY_NO);
		n += word && !in_word;
	}
	*ret = tpl_int(n);
	return r;
}

/* One HTML entity at s ("&...;"); returns its bytes or 0. */
static size_t entity(const char *s, size_t len, uint32_t *ret_cp)
{
	static const struct {
		const char *name;
		uint32_t cp;
	} named[] = { { "&amp;", '&' },  { "&lt;", '<' },    { "&gt;", '>' },
		      { "&quot;", '"' }, { "&apos;", '\'' }, { "&nbsp;", 0xa0 } };
	const char *end = memchr(s, ';', len < 12 ? len : 12);
	char *stop;

	for (size_t i = 0; i < sizeof(named) / sizeof(*named); i++) {
		if (len >= strlen(named[i].name) && memcmp(s, named[i].name, strlen(named[i].name)) == 0) {
			*ret_cp = named[i].cp;
			return strlen(named[i].name);
		}
	}
	if (!end || end - s < 3 || s[1] != '#')
		return 0;
	*ret_cp = (uint32_t)(s[2] == 'x' || s[2] == 'X' ? strtoul(s + 3, &stop, 16) : strtoul(s + 2, &stop, 10));
	return stop == end ? (size_t)(end - s) + 1 : 0;
}

/* Comments and tags go, blanks collapse, entities are decoded. */
FILTER(f_striptags)
{
	struct base_buf plain = OUT_BUF, buf = OUT_BUF;
	struct tpl_value v, collapsed;
	const char *end;
	bool blank = false;
	uint32_t cp;
	size_t n;
	int r = eng_tpl_to_text(rt, in, &v);

	(void)args;
	for (size_t i = 0; r == 0 && i < v.len; i++) {
		bool comment = v.len - i >= 4 && memcmp(v.u.s + i, "<!--", 4) == 0;

		end = v.u.s[i] != '<' ? NULL
		      : comment       ? memmem(v.u.s + i + 4, v.len - i - 4, "-->", 3)
		                      : memchr(v.u.s + i, '>', v.len - i);
		if (end)
			i = (size_t)(end - v.u.s) + (comment ? 2 : 0);
		else
			(void)base_buf_putc(&plain, v.u.s[i]);
	}
	r = finish(rt, &plain, r, &collapsed);
	if (r < 0)
		return r;
	collapsed = eng_tpl_text_strip(&collapsed, &(struct tpl_value){ 0 }, true, true);
	for (size_t i = 0; i < collapsed.len; i += n) {
		n = eng_tpl_utf8_next(collapsed.u.s + i, collapsed.len - i, &cp);
		if (eng_tpl_is_space(cp)) {
			blank = true;
			continue;
		}
		if (blank)
			(void)base_buf_putc(&buf, ' ');
		blank = false;
		if (cp == '&' && entity(collapsed.u.s + i, collapsed.len - i, &cp)) {
			n = entity(collapsed.u.s + i, collapsed.len - i, &cp);
			eng_tpl_utf8_put(&buf, cp);
		} else {
			(void)base_buf_append(&buf, collapsed.u.s + i, n);
		}
	}
	return finish(rt, &buf, 0, ret);
}

static int quote_url(struct tpl_rt *rt, const struct tpl_value *in, bool query, struct base_buf *out)
{
	struct tpl_value v;
	unsigned char c;
	int r = eng_tpl_to_text(rt, in, &v);

	for (size_t i = 0; r == 0 && i < v.len; i++) {
		c = (unsigned char)v.u.s[i];
		if ((c < 0x80 && isalnum(c)) || (c && strchr("_.-~", c)) || (c == '/' && !query))
			(void)base_buf_putc(out, (char)c);
		else if (c == ' ' && query)
			(void)base_buf_putc(out, '+');
		else
			(void)base_buf_printf(out, "%%%02X", c);
	}
	return r;
}

/* A text is quoted; a dict or list of pairs becomes a query string. */
FILTER(f_urlencode)
{
	struct base_buf buf = OUT_BUF;
	struct tpl_value v = *in;
	struct tpl_list *pairs, *pair;
	const struct tpl_args none = { 0 };
	int r = 0;

	(void)args;
	if (in->type != TPL_DICT && in->type != TPL_LIST)
		return finish(rt, &buf, quote_url(rt, in, false, &buf), ret);
	if (in->type == TPL_DICT)
		r = eng_tpl_find_method(in, "items", 5)->fn(rt, in, &none, &v);
	if (r == 0)
		r = eng_tpl_iterate(rt, &v, &pairs);
	for (size_t i = 0; r == 0 && i < pairs->n; i++) {
		r = eng_tpl_iterate(rt, &pairs->v[i], &pair);
		if (r == 0 && pair->n != 2)
			r = eng_tpl_fail(rt, -EINVAL, "urlencode needs pairs");
		if (i)
			(void)base_buf_putc(&buf, '&');
		if (r == 0)
			r = quote_url(rt, &pair->v[0], true, &buf);
		(void)base_buf_putc(&buf, '=');
		if (r == 0)
			r = quote_url(rt, &pair->v[1], true, &buf);
	}
	return finish(rt, &buf, r, ret);
}

const struct tpl_filter eng_tpl_text_filters[] = {
	{ "capitalize", "", 0, f_capitalize },
	{ "center", "width", 0, f_center },
	{ "e", "", 0, f_escape },
	{ "escape", "", 0, f_escape },
	{ "format", NULL, 0, f_format },
	{ "indent", "width first blank", 0, f_indent },
	{ "lower", "", 0, f_lower },
	{ "replace", "old new count", 2, f_replace },
	{ "safe", "", 0, f_safe },
	{ "string", "", 0, f_string },
	{ "striptags", "", 0, f_striptags },
	{ "title", "", 0, f_title },
	{ "tojson", "ensure_ascii indent separators sort_keys", 0, eng_tpl_tojson },
	{ "trim", "chars", 0, f_trim },
	{ "truncate", "length killwords end leeway", 0, f_truncate },
	{ "upper", "", 0, f_upper },
	{ "urlencode", "", 0, f_urlencode },
	{ "wordcount", "", 0, f_wordcount },
	{ 0 },
};
