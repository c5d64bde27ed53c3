/* The tojson filter as transformers defines it for chat templates: Python's json.dumps() with
 * ensure_ascii=False, keys in their order, nothing escaped for HTML (Jinja's own filter would). */
#include "tpl_interp.h"

#include <errno.h>
#include <math.h>
#include <string.h>

struct dump {
	struct tpl_rt *rt;
	struct base_buf out;
	bool ascii, sort_keys, has_indent;
	struct tpl_value indent; /* text of one level */
	struct tpl_value item_sep, key_sep;
	unsigned level;
};

static int dump_value(struct dump *d, const struct tpl_value *v);

static void dump_text(struct dump *d, const struct tpl_value *v)
{
	static const char from[] = "\"\\\n\r\t\f\b", to[] = "\"\\nrtfb";
	const char *p;
	uint32_t cp;
	size_t n;

	(void)base_buf_putc(&d->out, '"');
	for (size_t i = 0; i < v->len; i += n) {
		n = eng_tpl_utf8_next(v->u.s + i, v->len - i, &cp);
		p = cp && cp < 0x80 ? strchr(from, (int)cp) : NULL;
		if (p)
			(void)base_buf_printf(&d->out, "\\%c", to[p - from]);
		else if (cp < 0x20)
			(void)base_buf_printf(&d->out, "\\u%04x", cp);
		else if (d->ascii && cp >= 0x10000)
			(void)base_buf_printf(&d->out, "\\u%04x\\u%04x", 0xd800 + ((cp - 0x10000) >> 10),
			                      0xdc00 + ((cp - 0x10000) & 0x3ff));
		else if (d->ascii && cp >= 0x7f)
			(void)base_buf_printf(&d->out, cp == 0x7f ? "%c" : "\\u%04x", cp);
		else
			(void)base_buf_append(&d->out, v->u.s + i, n);
	}
	(void)base_buf_putc(&d->out, '"');
}

static void dump_float(struct dump *d, double f)
{
	char text[40];

	eng_tpl_format_float(f, text);
	(void)base_buf_puts(&d->out, isnan(f) ? "NaN" : isinf(f) ? (f < 0 ? "-Infinity" : "Infinity") : text);
}

static void newline(struct dump *d)
{
	if (!d->has_indent)
		return;
	(void)base_buf_putc(&d->out, '\n');
	for (unsigned i = 0; i < d->level; i++)
		(void)base_buf_append(&d->out, d->indent.u.s, d->indent.len);
}

/* Before item i of a container: the separator, the line break. */
static void begin_item(struct dump *d, size_t i)
{
	if (i)
		(void)base_buf_append(&d->out, d->item_sep.u.s, d->item_sep.len);
	newline(d);
}

static int dump_list(struct dump *d, const struct tpl_value *v)
{
	const struct tpl_list *l = v->u.list;
	int r = 0;

	if (l->kind > TPL_KIND_GROUP)
		return eng_tpl_fail(d->rt, -EINVAL, "Object of type %s is not JSON serializable", eng_tpl_type_name(v));
	(void)base_buf_putc(&d->out, '[');
	d->level++;
	for (size_t i = 0; r == 0 && i < l->n; i++) {
		begin_item(d, i);
		r = dump_value(d, &l->v[i]);
	}
	d->level--;
	if (l->n)
		newline(d);
	(void)base_buf_putc(&d->out, ']');
	return r;
}

static int dump_key(struct dump *d, const struct tpl_value *k)
{
	switch (k->type) {
	case TPL_STR:
		dump_text(d, k);
		return 0;
	case TPL_INT:
	case TPL_FLOAT:
	case TPL_BOOL:
	case TPL_NONE:
		(void)base_buf_putc(&d->out, '"');
		(void)dump_value(d, k);
		(void)base_buf_putc(&d->out, '"');
		return 0;
	default:
		return eng_tpl_fail(d->rt, -EINVAL, "keys must be str, int, float, bool or None, not %s",
		                    eng_tpl_type_name(k));
	}
}

/* Entry numbers in the order of their keys. */
static int sorted_entries(struct dump *d, const struct tpl_dict *dict, size_t *order)
{
	size_t k;
	int r, c;

	for (size_t i = 0; i < dict->n; i++) {
		for (k = i; k > 0; k--) {
			r = eng_tpl_order(d->rt, &dict->keys[i], &dict->keys[order[k - 1]], "<", &c);
			if (r < 0)
				return r;
			if (c >= 0)
				break;
			order[k] = order[k - 1];
		}
		order[k] = i;
	}
	return 0;
}

static int dump_dict(struct dump *d, const struct tpl_dict *dict)
{
	size_t *order = NULL, k;
	int r = 0;

	if (d->sort_keys) {
		order = eng_tpl_arena_array(&d->rt->arena, dict->n, sizeof(*order));
		if (!order)
			return eng_tpl_fail_memory(d->rt);
		r = sorted_entries(d, dict, order);
	}
	(void)base_buf_putc(&d->out, '{');
	d->level++;
	for (size_t i = 0; r == 0 && i < dict->n; i++) {
		k = order ? order[i] : i;
		begin_item(d, i);
		r = dump_key(d, &dict->keys[k]);
		(void)base_buf_append(&d->out, d->key_sep.u.s, d->key_sep.len);
		if (r == 0)
			r = dump_value(d, &dict->vals[k]);
	}
	d->level--;
	if (dict->n)
		newline(d);
	(void)base_buf_putc(&d->out, '}');
	return r;
}

static int dump_value(struct dump *d, const struct tpl_value *v)
{
	int r = eng_tpl_step(d->rt, 1 + (v->type == TPL_STR ? v->len >> 6 : 0));

	if (r < 0)
		return r;
	switch (v->type) {
	case TPL_NONE:
		return base_buf_puts(&d->out, "null");
	case TPL_BOOL:
		return base_buf_puts(&d->out, v->u.b ? "true" : "false");
	case TPL_INT:
		return base_buf_printf(&d->out, "%lld", (long long)v->u.i);
	case TPL_FLOAT:
		dump_float(d, v->u.f);
		return 0;
	case TPL_STR:
		dump_text(d, v);
		return 0;
	case TPL_LIST:
	case TPL_DICT:
		r = eng_tpl_enter(d->rt);
		if (r < 0)
			return r;
		r = v->type == TPL_LIST ? dump_list(d, v) : dump_dict(d, v->u.dict);
		tpl_leave(d->rt);
		return r;
	default:
		return eng_tpl_fail(d->rt, -EINVAL, "Object of type %s is not JSON serializable", eng_tpl_type_name(v));
	}
}

/* indent: a number of blanks, a text, or None. */
static int read_indent(struct dump *d, const struct tpl_value *v)
{
	static const char blanks[] = "                ";

	if (v->type == TPL_MISSING || v->type == TPL_NONE)
		return 0;
	d->has_indent = true;
	if (v->type == TPL_STR) {
		d->indent = *v;
		return 0;
	}
	if (v->type != TPL_INT || v->u.i > (int64_t)sizeof(blanks) - 1)
		return eng_tpl_fail(d->rt, -EINVAL, "tojson: indent must be a string or a number up to %zu",
		                    sizeof(blanks) - 1);
	d->indent = tpl_text(blanks, v->u.i > 0 ? (size_t)v->u.i : 0);
	return 0;
}

static int read_separators(struct dump *d, const struct tpl_value *v)
{
	d->item_sep = tpl_text(",", d->has_indent ? 1 : 0);
	if (!d->has_indent)
		d->item_sep = tpl_text(", ", 2);
	d->key_sep = tpl_text(": ", 2);
	if (v->type == TPL_MISSING || v->type == TPL_NONE)
		return 0;
	if (v->type != TPL_LIST || v->u.list->n != 2 || v->u.list->v[0].type != TPL_STR ||
	    v->u.list->v[1].type != TPL_STR)
		return eng_tpl_fail(d->rt, -EINVAL, "tojson: separators must be two strings");
	d->item_sep = v->u.list->v[0];
	d->key_sep = v->u.list->v[1];
	return 0;
}

int eng_tpl_tojson(struct tpl_rt *rt, const struct tpl_value *in, const struct tpl_args *args, struct tpl_value *ret)
{
	struct dump d = { .rt = rt, .out = BASE_BUF_INIT((size_t)TPL_MAX_OUTPUT_MIB << 20) };
	const struct tpl_value *a = args->pos;
	int r;

	d.ascii = eng_tpl_arg_bool(&a[0], false);
	d.sort_keys = eng_tpl_arg_bool(&a[3], false);
	r = read_indent(&d, &a[1]);
	if (r == 0)
		r = read_separators(&d, &a[2]);
	if (r == 0)
		r = dump_value(&d, in);
	if (r == 0)
		r = eng_tpl_text_from_buf(rt, &d.out, ret);
	else if (base_buf_error(&d.out))
		r = eng_tpl_fail_memory(rt);
	base_buf_done(&d.out);
	return r;
}
