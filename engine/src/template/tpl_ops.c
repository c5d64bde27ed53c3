/* Arithmetic, subscripts, slices and attributes, as Python does them for the types a template can hold.
 *
 * Attribute access and subscripts differ in what they try first, and both fall back to the other:
 * message.items is the dict's method, message['items'] the entry of that name. */
#include "tpl_interp.h"

#include <errno.h>
#include <math.h>
#include <string.h>

/* ---- Arithmetic ---------------------------------------------------------------------------------------- */

static const char *op_sign(enum tpl_op op)
{
	static const char *const signs[] = {
		[TPL_OP_ADD] = "+",       [TPL_OP_SUB] = "-", [TPL_OP_MUL] = "*",          [TPL_OP_DIV] = "/",
		[TPL_OP_FLOORDIV] = "//", [TPL_OP_MOD] = "%", [TPL_OP_POW] = "** or pow()"
	};

	return signs[op];
}

static int overflow(struct tpl_rt *rt)
{
	return eng_tpl_fail(rt, -ERANGE, "integer overflow: more than 64 bits");
}

static int int_pow(struct tpl_rt *rt, int64_t base, int64_t exp, struct tpl_value *ret)
{
	int64_t v = 1;

	if (exp < 0) {
		if (base == 0)
			return eng_tpl_fail(rt, -EINVAL, "0.0 cannot be raised to a negative power");
		*ret = tpl_float(pow((double)base, (double)exp));
		return 0;
	}
	while (exp) {
		if ((exp & 1) && __builtin_mul_overflow(v, base, &v))
			return overflow(rt);
		exp >>= 1;
		if (exp && __builtin_mul_overflow(base, base, &base))
			return overflow(rt);
	}
	*ret = tpl_int(v);
	return 0;
}

static int int_binary(struct tpl_rt *rt, enum tpl_op op, int64_t a, int64_t b, struct tpl_value *ret)
{
	int64_t v = 0;
	bool over = false;

	switch (op) {
	case TPL_OP_ADD:
		over = __builtin_add_overflow(a, b, &v);
		break;
	case TPL_OP_SUB:
		over = __builtin_sub_overflow(a, b, &v);
		break;
	case TPL_OP_MUL:
		over = __builtin_mul_overflow(a, b, &v);
		break;
	case TPL_OP_POW:
		return int_pow(rt, a, b, ret);
	default: /* the divisions */
		if (b == 0)
			return eng_tpl_fail(rt, -EINVAL,
			                    op == TPL_OP_DIV   ? "division by zero"
			                    : op == TPL_OP_MOD ? "integer modulo by zero"
			                                       : "integer division or modulo by zero");
		if (op == TPL_OP_DIV) {
			*ret = tpl_float((double)a / (double)b);
			return 0;
		}
		if (b == -1) { /* INT64_MIN / -1 would trap */
			over = op == TPL_OP_FLOORDIV && __builtin_sub_overflow(0, a, &v);
			break;
		}
		v = op == TPL_OP_MOD ? a % b : a / b;
		if (a % b != 0 && (a % b < 0) != (b < 0))
			v += op == TPL_OP_MOD ? b : -1; /* towards minus infinity */
		break;
	}
	if (over)
		return overflow(rt);
	*ret = tpl_int(v);
	return 0;
}

static int float_binary(struct tpl_rt *rt, enum tpl_op op, double a, double b, struct tpl_value *ret)
{
	double v;

	switch (op) {
	case TPL_OP_ADD:
		v = a + b;
		break;
	case TPL_OP_SUB:
		v = a - b;
		break;
	case TPL_OP_MUL:
		v = a * b;
		break;
	case TPL_OP_POW:
		if (a == 0 && b < 0)
			return eng_tpl_fail(rt, -EINVAL, "0.0 cannot be raised to a negative power");
		if (a < 0 && b != floor(b))
			return eng_tpl_fail(rt, -EINVAL, "complex numbers are not supported");
		v = pow(a, b);
		if (isinf(v) && !isinf(a) && !isinf(b))
			return eng_tpl_fail(rt, -ERANGE, "float overflow");
		break;
	default:
		if (b == 0)
			return eng_tpl_fail(rt, -EINVAL,
			                    op == TPL_OP_DIV   ? "float division by zero"
			                    : op == TPL_OP_MOD ? "float modulo"
			                                       : "float floor division by zero");
		if (op == TPL_OP_DIV) {
			v = a / b;
			break;
		}
		v = fmod(a, b);
		if (v != 0 && (v < 0) != (b < 0))
			v += b;
		if (op == TPL_OP_FLOORDIV)
			v = round((a - v) / b);
		else if (v == 0)
			v = copysign(0.0, b);
		break;
	}
	*ret = tpl_float(v);
	return 0;
}

static int repeat_text(struct tpl_rt *rt, const struct tpl_value *text, int64_t n, struct tpl_value *ret)
{
	struct tpl_value sum = tpl_text("", 0);
	size_t total;
	int r = 0;

	if (n <= 0 || text->len == 0) {
		*ret = sum;
		return 0;
	}
	if (__builtin_mul_overflow(text->len, (size_t)n, &total) || total > ((size_t)TPL_MAX_VALUE_MIB << 20))
		return eng_tpl_fail_memory(rt);
	r = eng_tpl_text_copy(rt, text->u.s, text->len, &sum);
	/* Doubling: few copies, whatever the count. */
	while (r == 0 && sum.len < total)
		r = eng_tpl_text_concat(rt, &sum, sum.u.s, sum.len < total - sum.len ? sum.len : total - sum.len, &sum);
	*ret = sum;
	return r;
}

static int repeat_list(struct tpl_rt *rt, const struct tpl_list *list, int64_t n, struct tpl_value *ret)
{
	struct tpl_list *l;
	size_t total = 0;
	int r;

	if (n > 0 && list->n &&
	    (__builtin_mul_overflow(list->n, (size_t)n, &total) || total > ((size_t)TPL_MAX_VALUE_MIB << 16)))
		return eng_tpl_fail_memory(rt);
	r = eng_tpl_step(rt, total);
	if (r == 0)
		r = eng_tpl_list_new(rt, list->kind == TPL_KIND_LIST ? TPL_KIND_LIST : TPL_KIND_TUPLE, total, &l);
	if (r < 0)
		return r;
	for (; l->n < total; l->n++)
		l->v[l->n] = list->v[l->n % list->n];
	*ret = tpl_list_value(l);
	return 0;
}

static int add_lists(struct tpl_rt *rt, const struct tpl_list *a, const struct tpl_list *b, struct tpl_value *ret)
{
	struct tpl_list *l;
	int r = eng_tpl_step(rt, (a->n + b->n) / 4);

	if (r == 0)
		r = eng_tpl_list_new(rt, a->kind == TPL_KIND_LIST ? TPL_KIND_LIST : TPL_KIND_TUPLE, a->n + b->n, &l);
	if (r < 0)
		return r;
	if (a->n)
		memcpy(l->v, a->v, a->n * sizeof(*l->v));
	if (b->n)
		memcpy(l->v + a->n, b->v, b->n * sizeof(*l->v));
	l->n = a->n + b->n;
	*ret = tpl_list_value(l);
	return 0;
}

static bool is_plain_sequence(const struct tpl_value *v)
{
	return v->type == TPL_LIST && v->u.list->kind <= TPL_KIND_GROUP;
}

static int add_text(struct tpl_rt *rt, const struct tpl_value *a, const struct tpl_value *b, struct tpl_value *ret)
{
	struct tpl_value left = *a, right = *b;
	bool markup = a->markup || b->markup;
	int r = 0;

	if (markup && !a->markup)
		r = eng_tpl_escape_html(rt, a, &left);
	if (r == 0 && markup && !b->markup)
		r = eng_tpl_escape_html(rt, b, &right);
	if (r == 0)
		r = eng_tpl_text_concat(rt, &left, right.u.s, right.len, ret);
	ret->markup = markup;
	return r;
}

int eng_tpl_binary(struct tpl_rt *rt, enum tpl_op op, const struct tpl_value *a, const struct tpl_value *b,
                   struct tpl_value *ret)
{
	if (op == TPL_OP_MOD && a->type == TPL_STR)
		return eng_tpl_format_percent(rt, a, b, ret);
	if (tpl_is_number(a) && tpl_is_number(b)) {
		if (a->type == TPL_FLOAT || b->type == TPL_FLOAT)
			return float_binary(rt, op, tpl_as_double(a), tpl_as_double(b), ret);
		return int_binary(rt, op, tpl_as_int(a), tpl_as_int(b), ret);
	}
	if (a->type == TPL_UNDEF || b->type == TPL_UNDEF)
		return eng_tpl_fail_undefined(rt, a->type == TPL_UNDEF ? a : b);
	if (op == TPL_OP_ADD && a->type == TPL_STR && b->type == TPL_STR)
		return add_text(rt, a, b, ret);
	if (op == TPL_OP_ADD && is_plain_sequence(a) && is_plain_sequence(b) &&
	    (a->u.list->kind == TPL_KIND_LIST) == (b->u.list->kind == TPL_KIND_LIST))
		return add_lists(rt, a->u.list, b->u.list, ret);
	if (op == TPL_OP_MUL && (a->type == TPL_INT || a->type == TPL_BOOL)) {
		const struct tpl_value *swap = a;

		a = b;
		b = swap;
	}
	if (op == TPL_OP_MUL && (b->type == TPL_INT || b->type == TPL_BOOL)) {
		if (a->type == TPL_STR)
			return repeat_text(rt, a, tpl_as_int(b), ret);
		if (is_plain_sequence(a))
			return repeat_list(rt, a->u.list, tpl_as_int(b), ret);
	}
	if (op == TPL_OP_ADD && a->type == TPL_STR)
		return eng_tpl_fail(rt, -EINVAL, "can only concatenate str (not \"%s\") to str", eng_tpl_type_name(b));
	return eng_tpl_fail(rt, -EINVAL, "unsupported operand type(s) for %s: '%s' and '%s'", op_sign(op),
	                    eng_tpl_type_name(a), eng_tpl_type_name(b));
}

int eng_tpl_negate(struct tpl_rt *rt, const struct tpl_value *v, bool plus, struct tpl_value *ret)
{
	int64_t i;

	if (v->type == TPL_FLOAT) {
		*ret = tpl_float(plus ? v->u.f : -v->u.f);
		return 0;
	}
	if (v->type == TPL_INT || v->type == TPL_BOOL) {
		if (__builtin_sub_overflow(0, tpl_as_int(v), &i))
			return overflow(rt);
		*ret = tpl_int(plus ? tpl_as_int(v) : i);
		return 0;
	}
	if (v->type == TPL_UNDEF)
		return eng_tpl_fail_undefined(rt, v);
	return eng_tpl_fail(rt, -EINVAL, "bad operand type for unary %c: '%s'", plus ? '+' : '-', eng_tpl_type_name(v));
}

/* ---- Attributes and items -------------------------------------------------------------------------------- */

static int bind_method(struct tpl_rt *rt, const struct tpl_value *self, const struct tpl_method *m,
                       struct tpl_value *ret)
{
	struct tpl_bound *b = eng_tpl_arena_alloc(&rt->arena, sizeof(*b));

	if (!b)
		return eng_tpl_fail_memory(rt);
	b->method = m;
	b->self = *self;
	*ret = (struct tpl_value){ .type = TPL_METHOD, .u.bound = b };
	return 0;
}

static bool name_is(const char *name, size_t len, const char *what)
{
	return len == strlen(what) && memcmp(name, what, len) == 0;
}

/* loop.index and its like; false when there is no such attribute. */
static bool loop_attr(const struct tpl_loop *l, const char *name, size_t len, struct tpl_value *ret)
{
	int64_t i = (int64_t)l->index, n = (int64_t)l->items->n;
	const struct {
		const char *name;
		struct tpl_value value;
	} attrs[] = {
		{ "index", tpl_int(i + 1) },
		{ "index0", tpl_int(i) },
		{ "first", tpl_bool(i == 0) },
		{ "last", tpl_bool(i == n - 1) },
		{ "length", tpl_int(n) },
		{ "revindex", tpl_int(n - i) },
		{ "revindex0", tpl_int(n - 1 - i) },
		{ "depth", tpl_int(l->depth) },
		{ "depth0", tpl_int(l->depth - 1) },
	};

	for (size_t k = 0; k < sizeof(attrs) / sizeof(*attrs); k++) {
		if (name_is(name, len, attrs[k].name)) {
			*ret = attrs[k].value;
			return true;
		}
	}
	if (name_is(name, len, "previtem") && i > 0) {
		*ret = l->items->v[i - 1];
		return true;
	}
	if (name_is(name, len, "nextitem") && i + 1 < n) {
		*ret = l->items->v[i + 1];
		return true;
	}
	return false;
}

/* What Python's getattr() finds, entries of dicts apart. */
static int own_attr(struct tpl_rt *rt, const struct tpl_value *v, const char *name, size_t len, struct tpl_value *ret)
{
	const struct tpl_method *m;
	const struct tpl_value *found;

	ret->type = TPL_MISSING;
	m = eng_tpl_find_method(v, name, len);
	if (m)
		return bind_method(rt, v, m, ret);
	if (v->type == TPL_LOOP) {
		(void)loop_attr(v->u.loop, name, len, ret);
	} else if (v->type == TPL_NS) {
		found = eng_tpl_dict_get_text(v->u.dict, name, len);
		if (found)
			*ret = *found;
	} else if (tpl_is_kind(v, TPL_KIND_GROUP) && (name_is(name, len, "grouper") || name_is(name, len, "list"))) {
		*ret = v->u.list->v[name[0] == 'l'];
	} else if (v->type == TPL_CYCLER && name_is(name, len, "current")) {
		*ret = v->u.cycler->items[v->u.cycler->pos];
	} else if (v->type == TPL_MACRO && name_is(name, len, "name")) {
		*ret = v->u.macro->node->value;
	}
	return 0;
}

static int no_attr(struct tpl_rt *rt, const struct tpl_value *v, const char *name, size_t len, struct tpl_value *ret)
{
	return eng_tpl_undef(rt, ret, "'%s object' has no attribute '%.*s'",
	                     v->type == TPL_NONE ? "None" : eng_tpl_type_name(v), (int)(len < 120 ? len : 120), name);
}

int eng_tpl_get_attr(struct tpl_rt *rt, const struct tpl_value *v, const char *name, size_t len, struct tpl_value *ret)
{
	const struct tpl_value *found;
	int r;

	if (v->type == TPL_UNDEF)
		return eng_tpl_fail_undefined(rt, v);
	r = own_attr(rt, v, name, len, ret);
	if (r < 0 || ret->type != TPL_MISSING)
		return r;
	if (v->type == TPL_DICT) {
		found = eng_tpl_dict_get_text(v->u.dict, name, len);
		if (found) {
			*ret = *found;
			return 0;
		}
	}
	return no_attr(rt, v, name, len, ret);
}

static int sequence_item(struct tpl_rt *rt, const struct tpl_value *v, int64_t i, struct tpl_value *ret)
{
	int64_t n = 0;
	size_t at;
	uint32_t cp;
	int r;

	r = eng_tpl_length(rt, v, &n);
	if (r < 0)
		return r;
	if (i < 0)
		i += n;
	if (i < 0 || i >= n)
		return eng_tpl_undef(rt, ret, "'%s object' has no element %lld", eng_tpl_type_name(v), (long long)i);
	if (v->type == TPL_LIST) {
		*ret = v->u.list->v[i];
		return 0;
	}
	at = eng_tpl_utf8_offset(v->u.s, v->len, (size_t)i);
	*ret = tpl_text(v->u.s + at, eng_tpl_utf8_next(v->u.s + at, v->len - at, &cp));
	return 0;
}

int eng_tpl_get_item(struct tpl_rt *rt, const struct tpl_value *v, const struct tpl_value *key, struct tpl_value *ret)
{
	struct tpl_value *found;
	struct tpl_value text;
	int r;

	if (v->type == TPL_UNDEF)
		return eng_tpl_fail_undefined(rt, v);
	if (v->type == TPL_DICT) {
		if (key->type == TPL_DICT || tpl_is_kind(key, TPL_KIND_LIST)) /* unhashable: no such item */
			found = NULL, r = 0;
		else
			r = eng_tpl_dict_get(rt, v->u.dict, key, &found);
		if (r < 0)
			return r;
		if (found) {
			*ret = *found;
			return 0;
		}
	}
	if ((key->type == TPL_INT || key->type == TPL_BOOL) &&
	    (v->type == TPL_STR || (v->type == TPL_LIST && v->u.list->kind <= TPL_KIND_RANGE)))
		return sequence_item(rt, v, tpl_as_int(key), ret);
	if (key->type == TPL_STR) {
		r = own_attr(rt, v, key->u.s, key->len, ret);
		if (r < 0 || ret->type != TPL_MISSING)
			return r;
		return no_attr(rt, v, key->u.s, key->len, ret);
	}
	r = eng_tpl_to_text(rt, key, &text);
	if (r < 0)
		return r;
	return eng_tpl_undef(rt, ret, "'%s object' has no element %.*s", eng_tpl_type_name(v),
	                     (int)(text.len < 120 ? text.len : 120), text.u.s);
}

/* ---- Slices ---------------------------------------------------------------------------------------------- */

struct range {
	int64_t start, stop, step;
};

static int slice_bound(struct tpl_rt *rt, const struct tpl_value *v, int64_t def, int64_t low, int64_t high, int64_t n,
                       int64_t *ret)
{
	int64_t i;

	if (v->type == TPL_NONE) {
		*ret = def;
		return 0;
	}
	if (v->type == TPL_UNDEF)
		return eng_tpl_fail_undefined(rt, v);
	if (v->type != TPL_INT && v->type != TPL_BOOL)
		return eng_tpl_fail(rt, -EINVAL, "slice indices must be integers or None, not %s",
		                    eng_tpl_type_name(v));
	i = tpl_as_int(v);
	if (i < 0)
		i += n;
	*ret = i < low ? low : i > high ? high : i;
	return 0;
}

/* Start, stop and step over n items as Python clips them. */
static int slice_range(struct tpl_rt *rt, const struct tpl_value bounds[3], int64_t n, struct range *ret)
{
	bool back;
	int r;

	r = slice_bound(rt, &bounds[2], 1, INT64_MIN, INT64_MAX, 0, &ret->step);
	if (r < 0)
		return r;
	if (ret->step == 0)
		return eng_tpl_fail(rt, -EINVAL, "slice step cannot be zero");
	back = ret->step < 0;
	/* A longer step than the sequence takes one item; clipping it keeps the sums below from overflowing. */
	ret->step = ret->step > n + 1 ? n + 1 : ret->step < -(n + 1) ? -(n + 1) : ret->step;
	r = slice_bound(rt, &bounds[0], back ? n - 1 : 0, back ? -1 : 0, back ? n - 1 : n, n, &ret->start);
	if (r == 0)
		r = slice_bound(rt, &bounds[1], back ? -1 : n, back ? -1 : 0, back ? n - 1 : n, n, &ret->stop);
	return r;
}

static int slice_text(struct tpl_rt *rt, const struct tpl_value *v, const struct range *s, struct tpl_value *ret)
{
	struct base_buf buf = BASE_BUF_INIT(v->len);
	size_t begin, end;
	uint32_t cp;
	int r;

	if (s->step == 1) {
		begin = eng_tpl_utf8_offset(v->u.s, v->len, (size_t)s->start);
		end = s->stop > s->start ? begin + eng_tpl_utf8_offset(v->u.s + begin, v->len - begin,
		                                                       (size_t)(s->stop - s->start))
		                         : begin;
		*ret = tpl_text(v->u.s + begin, end - begin);
		return 0;
	}
	if (s->step > 0) {
		begin = eng_tpl_utf8_offset(v->u.s, v->len, (size_t)s->start);
		for (int64_t i = s->start; i < s->stop; i += s->step) {
			end = eng_tpl_utf8_next(v->u.s + begin, v->len - begin, &cp);
			(void)base_buf_append(&buf, v->u.s + begin, end);
			begin += eng_tpl_utf8_offset(v->u.s + begin, v->len - begin, (size_t)s->step);
		}
	} else if (s->start >= 0) {
		end = eng_tpl_utf8_offset(v->u.s, v->len, (size_t)s->start + 1);
		for (int64_t i = s->start; i > s->stop; i += s->step) {
			begin = end - eng_tpl_utf8_prev(v->u.s, end);
			(void)base_buf_append(&buf, v->u.s + begin, end - begin);
			for (int64_t k = 0; k > s->step && end > 0; k--)
				end -= eng_tpl_utf8_prev(v->u.s, end);
		}
	}
	r = eng_tpl_text_from_buf(rt, &buf, ret);
	base_buf_done(&buf);
	return r;
}

int eng_tpl_slice(struct tpl_rt *rt, const struct tpl_value *v, const struct tpl_value bounds[3], struct tpl_value *ret)
{
	struct tpl_list *l;
	struct range s;
	int64_t n;
	int r;

	if (v->type == TPL_UNDEF)
		return eng_tpl_fail_undefined(rt, v);
	if (v->type != TPL_STR && (v->type != TPL_LIST || v->u.list->kind > TPL_KIND_RANGE))
		return eng_tpl_undef(rt, ret, "'%s object' cannot be sliced", eng_tpl_type_name(v));
	r = eng_tpl_length(rt, v, &n);
	if (r == 0)
		r = slice_range(rt, bounds, n, &s);
	if (r < 0)
		return r;
	if (v->type == TPL_STR)
		return slice_text(rt, v, &s, ret);
	r = eng_tpl_list_new(rt, v->u.list->kind == TPL_KIND_GROUP ? TPL_KIND_TUPLE : v->u.list->kind, 0, &l);
	for (int64_t i = s.start; r == 0 && (s.step > 0 ? i < s.stop : i > s.stop); i += s.step)
		r = eng_tpl_list_push(rt, l, v->u.list->v[i]);
	if (r < 0)
		return r;
	/* Wrapping, not overflowing: these only print. */
	l->start = (int64_t)((uint64_t)v->u.list->start + (uint64_t)s.start * (uint64_t)v->u.list->step);
	l->stop = (int64_t)((uint64_t)v->u.list->start + (uint64_t)s.stop * (uint64_t)v->u.list->step);
	l->step = (int64_t)((uint64_t)v->u.list->step * (uint64_t)s.step);
	*ret = tpl_list_value(l);
	return 0;
}
