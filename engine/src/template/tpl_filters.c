/* Filters that call other filters and tests (map, select, ...), those over numbers, default, and the
 * lookup by name. */
#include "tpl_interp.h"
#include "tpl_select.h"

#include <ctype.h>
#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define FILTER(name)                                                                                \
	static int name(struct tpl_rt *rt, const struct tpl_value *in, const struct tpl_args *args, \
	                struct tpl_value *ret)

/* ---- Attribute paths ---------------------------------------------------------------------------------------- */

static struct tpl_value path_part(const char *s, size_t len)
{
	int64_t n = 0;

	for (size_t i = 0; i < len; i++) {
		if (!isdigit((unsigned char)s[i]) || i > 9)
			return tpl_text(s, len);
		n = n * 10 + s[i] - '0';
	}
	return len ? tpl_int(n) : tpl_text(s, len);
}

int eng_tpl_attr_path(struct tpl_rt *rt, const struct tpl_value *item, const struct tpl_value *path,
                      const struct tpl_value *def, struct tpl_value *ret)
{
	struct tpl_value v = *item, part;
	size_t begin = 0, end;
	const char *dot;
	int r = 0;

	if (path->type == TPL_MISSING || path->type == TPL_NONE) {
		*ret = v;
		return 0;
	}
	if (path->type != TPL_STR) {
		r = eng_tpl_get_item(rt, &v, path, &v);
	} else {
		while (r == 0 && begin <= path->len) {
			dot = memchr(path->u.s + begin, '.', path->len - begin);
			end = dot ? (size_t)(dot - path->u.s) : path->len;
			part = path_part(path->u.s + begin, end - begin);
			r = eng_tpl_get_item(rt, &v, &part, &v);
			if (r == 0 && def && v.type == TPL_UNDEF)
				v = *def;
			begin = end + 1;
		}
	}
	*ret = v;
	return r;
}

int eng_tpl_dict_items(struct tpl_rt *rt, const struct tpl_dict *d, enum tpl_list_kind kind, struct tpl_list **ret)
{
	struct tpl_list *l;
	struct tpl_value v;
	int r = eng_tpl_list_new(rt, kind, d->n, &l);

	for (size_t i = 0; r == 0 && i < d->n; i++) {
		r = eng_tpl_tuple2(rt, d->keys[i], d->vals[i], &v);
		if (r == 0)
			r = eng_tpl_list_push(rt, l, v);
	}
	if (r < 0)
		return r;
	*ret = l;
	return 0;
}

/* ---- map, select, reject ---------------------------------------------------------------------------------- */

static const struct tpl_value *keyword(const struct tpl_args *args, const char *name)
{
	for (size_t i = 0; i < args->n_kw; i++) {
		if (tpl_is_text(&args->kw_names[i], name))
			return &args->kw_vals[i];
	}
	return NULL;
}

/* map(attribute="a.b", default=x) or map("filter", arguments of the filter). */
FILTER(f_map)
{
	const struct tpl_value *attr = args->n_pos ? NULL : keyword(args, "attribute"), *def = keyword(args, "default");
	const struct tpl_filter *filter = NULL;
	struct tpl_args rest = *args;
	struct tpl_list *items, *l;
	struct tpl_value v;
	int r = eng_tpl_list_new(rt, TPL_KIND_GENERATOR, 0, &l);

	if (r == 0 && !attr && (!args->n_pos || args->pos[0].type != TPL_STR))
		r = eng_tpl_fail(rt, -EINVAL, "map requires a filter argument");
	if (r == 0 && !attr) {
		filter = eng_tpl_find_filter(args->pos[0].u.s, args->pos[0].len);
		if (!filter)
			r = eng_tpl_fail(rt, -ENOTSUP, "filter '%.*s' is not supported", (int)args->pos[0].len,
			                 args->pos[0].u.s);
		rest.pos++;
		rest.n_pos--;
	}
	if (r == 0)
		r = eng_tpl_truth(in) ? eng_tpl_iterate(rt, in, &items)
		                      : eng_tpl_list_new(rt, TPL_KIND_LIST, 0, &items);
	if (r == 0)
		r = eng_tpl_enter(rt);
	if (r < 0)
		return r;
	for (size_t i = 0; r == 0 && i < items->n; i++) {
		r = attr ? eng_tpl_attr_path(rt, &items->v[i], attr, def && def->type != TPL_NONE ? def : NULL, &v)
		         : eng_tpl_call_filter(rt, filter, &items->v[i], &rest, &v);
		if (r == 0)
			r = eng_tpl_list_push(rt, l, v);
	}
	tpl_leave(rt);
	*ret = tpl_list_value(l);
	return r;
}

/* The test that pos[at] names with its argument, or plain truth when there is none. */
static int test_from_args(struct tpl_rt *rt, const struct tpl_args *args, size_t at, const struct tpl_test **ret_test,
                          struct tpl_value *ret_arg)
{
	const struct tpl_value *name;

	*ret_test = NULL;
	ret_arg->type = TPL_MISSING;
	if (args->n_kw)
		return eng_tpl_fail(rt, -EINVAL, "tests take no keyword arguments");
	if (args->n_pos <= at)
		return 0;
	name = &args->pos[at];
	if (name->type == TPL_STR)
		*ret_test = eng_tpl_find_test(name->u.s, name->len);
	if (!*ret_test)
		return eng_tpl_fail(rt, -ENOTSUP, "test '%.*s' is not supported",
		                    name->type == TPL_STR ? (int)name->len : 0, name->type == TPL_STR ? name->u.s : "");
	if (args->n_pos - at - 1 != (*ret_test)->n_args)
		return eng_tpl_fail(rt, -EINVAL, "test '%s' takes %u arguments", (*ret_test)->name,
		                    (*ret_test)->n_args);
	if ((*ret_test)->n_args)
		*ret_arg = args->pos[at + 1];
	return 0;
}

static int select_items(struct tpl_rt *rt, const struct tpl_value *in, const struct tpl_args *args, bool by_attr,
                        bool keep, struct tpl_value *ret)
{
	const struct tpl_test *test = NULL;
	struct tpl_value arg, v;
	struct tpl_list *items, *l;
	bool holds = false;
	int r = eng_tpl_list_new(rt, TPL_KIND_GENERATOR, 0, &l);

	if (r == 0 && by_attr && !args->n_pos)
		r = eng_tpl_fail(rt, -EINVAL, "Missing parameter for attribute name");
	if (r == 0)
		r = test_from_args(rt, args, by_attr, &test, &arg);
	if (r == 0)
		r = eng_tpl_truth(in) ? eng_tpl_iterate(rt, in, &items)
		                      : eng_tpl_list_new(rt, TPL_KIND_LIST, 0, &items);
	for (size_t i = 0; r == 0 && i < items->n; i++) {
		v = items->v[i];
		if (by_attr)
			r = eng_tpl_attr_path(rt, &items->v[i], &args->pos[0], NULL, &v);
		if (r == 0 && test)
			r = test->fn(rt, &v, &arg, &holds);
		else
			holds = eng_tpl_truth(&v);
		if (r == 0 && holds == keep)
			r = eng_tpl_list_push(rt, l, items->v[i]);
		if (r == 0)
			r = eng_tpl_step(rt, 1);
	}
	*ret = tpl_list_value(l);
	return r;
}

FILTER(f_select)
{
	return select_items(rt, in, args, false, true, ret);
}

FILTER(f_reject)
{
	return select_items(rt, in, args, false, false, ret);
}

FILTER(f_selectattr)
{
	return select_items(rt, in, args, true, true, ret);
}

FILTER(f_rejectattr)
{
	return select_items(rt, in, args, true, false, ret);
}

/* ---- Any value ------------------------------------------------------------------------------------------------ */

FILTER(f_default)
{
	bool absent = in->type == TPL_UNDEF || (eng_tpl_arg_bool(&args->pos[1], false) && !eng_tpl_truth(in));

	(void)rt;
	*ret = !absent ? *in : args->pos[0].type == TPL_MISSING ? tpl_text("", 0) : args->pos[0];
	return 0;
}

FILTER(f_attr)
{
	struct tpl_value name, bare = *in;
	int r = eng_tpl_to_text(rt, &args->pos[0], &name);

	if (r < 0)
		return r;
	if (bare.type == TPL_DICT) { /* attributes only: not the entries */
		if (!eng_tpl_find_method(&bare, name.u.s, name.len))
			return eng_tpl_undef(rt, ret, "'dict object' has no attribute '%.*s'",
			                     (int)(name.len < 120 ? name.len : 120), name.u.s);
	}
	return eng_tpl_get_attr(rt, in, name.u.s, name.len, ret);
}

/* ---- Numbers -------------------------------------------------------------------------------------------------- */

FILTER(f_abs)
{
	struct tpl_value zero = tpl_int(0);
	int order, r;

	(void)args;
	if (!tpl_is_number(in))
		return in->type == TPL_UNDEF
		               ? eng_tpl_fail_undefined(rt, in)
		               : eng_tpl_fail(rt, -EINVAL, "bad operand type for abs(): '%s'", eng_tpl_type_name(in));
	r = eng_tpl_order(rt, in, &zero, "<", &order);
	if (r < 0)
		return r;
	return eng_tpl_negate(rt, in, order >= 0 && !(in->type == TPL_FLOAT && signbit(in->u.f)), ret);
}

/* A number in text: digits without underscores, blanks around them allowed; empty when it is too long. */
static void number_text(const struct tpl_value *v, char out[128])
{
	struct tpl_value s = eng_tpl_text_strip(v, &(struct tpl_value){ 0 }, true, true);
	size_t n = 0;

	out[0] = '\0';
	if (s.len >= 128 || memchr(s.u.s, 0, s.len))
		return;
	for (size_t i = 0; i < s.len; i++) {
		if (s.u.s[i] == '_' && i && i + 1 < s.len && isalnum((unsigned char)s.u.s[i - 1]) &&
		    isalnum((unsigned char)s.u.s[i + 1]))
			continue;
		out[n++] = s.u.s[i];
	}
	out[n] = '\0';
}

static bool parse_float(const struct tpl_value *v, double *ret)
{
	char text[128], *end;

	number_text(v, text);
	if (!text[0] || strpbrk(text, "xX(") || isspace((unsigned char)text[0]))
		return false;
	*ret = strtod(text, &end);
	return *end == '\0';
}

static bool parse_int(const struct tpl_value *v, int base, int64_t *ret)
{
	char text[128], *end;

	number_text(v, text);
	if (!text[0] || isspace((unsigned char)text[0]))
		return false;
	if ((base == 2 || base == 8) && text[0] == '0' && (text[1] | 0x20) == (base == 2 ? 'b' : 'o'))
		memmove(text, text + 2, strlen(text) - 1);
	errno = 0;
	*ret = strtoll(text, &end, base);
	return *end == '\0' && end != text && errno != ERANGE;
}

static bool float_to_int(double f, int64_t *ret)
{
	if (!(fabs(f) < 9.2e18))
		return false;
	*ret = (int64_t)f;
	return true;
}

FILTER(f_int)
{
	int64_t base, i;
	double f;
	int r = eng_tpl_arg_int(rt, &args->pos[1], "int", 10, &base);

	if (r < 0)
		return r;
	if (in->type == TPL_UNDEF)
		return eng_tpl_fail_undefined(rt, in);
	if (base != 0 && (base < 2 || base > 36))
		return eng_tpl_fail(rt, -EINVAL, "int() base must be >= 2 and <= 36, or 0");
	if (in->type == TPL_INT || in->type == TPL_BOOL)
		*ret = tpl_int(tpl_as_int(in));
	else if (in->type == TPL_FLOAT && float_to_int(in->u.f, &i))
		*ret = tpl_int(i);
	else if (in->type == TPL_STR && (parse_int(in, (int)base, &i) || (parse_float(in, &f) && float_to_int(f, &i))))
		*ret = tpl_int(i);
	else
		*ret = args->pos[0].type == TPL_MISSING ? tpl_int(0) : args->pos[0];
	return 0;
}

FILTER(f_float)
{
	double f;

	if (in->type == TPL_UNDEF)
		return eng_tpl_fail_undefined(rt, in);
	if (tpl_is_number(in))
		*ret = tpl_float(tpl_as_double(in));
	else if (in->type == TPL_STR && parse_float(in, &f))
		*ret = tpl_float(f);
	else
		*ret = args->pos[0].type == TPL_MISSING ? tpl_float(0) : args->pos[0];
	return 0;
}

/* Half to even on the exact binary value, as Python's round() does; printf rounds the same way. */
static double round_common(double f, int64_t precision)
{
	char text[512];
	double scale;

	if (isnan(f) || isinf(f) || precision > 17 + 308)
		return f;
	if (precision < 0) {
		scale = pow(10, (double)(precision < -308 ? 308 : -precision));
		return rint(f / scale) * scale;
	}
	if (precision > 100)
		return f;
	(void)snprintf(text, sizeof(text), "%.*f", (int)precision, f);
	return strtod(text, NULL);
}

FILTER(f_round)
{
	const struct tpl_value *method = &args->pos[1];
	int64_t precision, i;
	double scale, f;
	int r = eng_tpl_arg_int(rt, &args->pos[0], "round", 0, &precision);

	if (r < 0)
		return r;
	if (in->type == TPL_UNDEF)
		return eng_tpl_fail_undefined(rt, in);
	if (!tpl_is_number(in))
		return eng_tpl_fail(rt, -EINVAL, "type %s doesn't define __round__ method", eng_tpl_type_name(in));
	if (method->type == TPL_MISSING || tpl_is_text(method, "common")) {
		if (in->type == TPL_FLOAT)
			*ret = tpl_float(round_common(in->u.f, precision));
		else if (precision >= 0)
			*ret = tpl_int(tpl_as_int(in));
		else
			*ret = tpl_int(float_to_int(round_common(tpl_as_double(in), precision), &i) ? i : 0);
		return 0;
	}
	if (!tpl_is_text(method, "ceil") && !tpl_is_text(method, "floor"))
		return eng_tpl_fail(rt, -EINVAL, "method must be common, ceil or floor");
	scale = pow(10, (double)precision);
	f = tpl_as_double(in) * scale;
	*ret = tpl_float((tpl_is_text(method, "ceil") ? ceil(f) : floor(f)) / scale);
	return 0;
}

const struct tpl_filter eng_tpl_select_filters[] = {
	{ "map", NULL, 0, f_map },
	{ "reject", NULL, 0, f_reject },
	{ "rejectattr", NULL, 0, f_rejectattr },
	{ "select", NULL, 0, f_select },
	{ "selectattr", NULL, 0, f_selectattr },
	{ 0 },
};

const struct tpl_filter eng_tpl_number_filters[] = {
	{ "abs", "", 0, f_abs },
	{ "attr", "name", 1, f_attr },
	{ "d", "default_value boolean", 0, f_default },
	{ "default", "default_value boolean", 0, f_default },
	{ "float", "default", 0, f_float },
	{ "int", "default base", 0, f_int },
	{ "round", "precision method", 0, f_round },
	{ 0 },
};

const struct tpl_filter *eng_tpl_find_filter(const char *name, size_t len)
{
	const struct tpl_filter *const tables[] = { eng_tpl_text_filters, eng_tpl_seq_filters, eng_tpl_select_filters,
		                                    eng_tpl_number_filters };

	for (size_t i = 0; i < sizeof(tables) / sizeof(*tables); i++) {
		for (const struct tpl_filter *f = tables[i]; f->name; f++) {
			if (strlen(f->name) == len && memcmp(f->name, name, len) == 0)
				return f;
		}
	}
	return NULL;
}
