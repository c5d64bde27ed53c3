/* The values' own operations: truth, equality, order, iteration, reading JSON.
 *
 * Semantics are Python's, for the types a template can hold. Integers have 64 bits; what would not fit
 * is an error where Python would go on with a longer number. Every walk into nested values goes through
 * eng_tpl_enter(), because a template can nest a list in itself. */
#include "tpl_interp.h"

#include <errno.h>
#include <math.h>
#include <string.h>

/* ---- Truth, equality, order ------------------------------------------------------------------------- */

bool eng_tpl_truth(const struct tpl_value *v)
{
	switch (v->type) {
	case TPL_MISSING:
	case TPL_UNDEF:
	case TPL_NONE:
		return false;
	case TPL_BOOL:
		return v->u.b;
	case TPL_INT:
		return v->u.i != 0;
	case TPL_FLOAT:
		return v->u.f != 0;
	case TPL_STR:
		return v->len > 0;
	case TPL_LIST:
		return v->u.list->kind == TPL_KIND_GENERATOR || v->u.list->n > 0;
	case TPL_DICT:
		return v->u.dict->n > 0;
	default:
		return true;
	}
}

static int compare_numbers(const struct tpl_value *a, const struct tpl_value *b)
{
	double x, y;
	int64_t i, k;

	if (a->type != TPL_FLOAT && b->type != TPL_FLOAT) {
		i = tpl_as_int(a);
		k = tpl_as_int(b);
		return i < k ? -1 : i > k;
	}
	x = tpl_as_double(a);
	y = tpl_as_double(b);
	return x < y ? -1 : x > y;
}

static int compare_text(const struct tpl_value *a, const struct tpl_value *b)
{
	size_t n = a->len < b->len ? a->len : b->len;
	int c = n ? memcmp(a->u.s, b->u.s, n) : 0; /* byte order is code point order */

	if (c)
		return c < 0 ? -1 : 1;
	return a->len < b->len ? -1 : a->len > b->len;
}

static bool same_sequence_type(const struct tpl_value *a, const struct tpl_value *b)
{
	enum tpl_list_kind x = a->u.list->kind, y = b->u.list->kind;

	x = x == TPL_KIND_GROUP ? TPL_KIND_TUPLE : x;
	y = y == TPL_KIND_GROUP ? TPL_KIND_TUPLE : y;
	return x == y;
}

static int equal_lists(struct tpl_rt *rt, const struct tpl_list *a, const struct tpl_list *b, bool *ret)
{
	int r;

	*ret = a->n == b->n;
	for (size_t i = 0; *ret && i < a->n && i < b->n; i++) {
		r = eng_tpl_equal(rt, &a->v[i], &b->v[i], ret);
		if (r < 0)
			return r;
	}
	return 0;
}

static int equal_dicts(struct tpl_rt *rt, const struct tpl_dict *a, const struct tpl_dict *b, bool *ret)
{
	struct tpl_value *other;
	int r;

	*ret = a->n == b->n;
	for (size_t i = 0; *ret && i < a->n; i++) {
		r = eng_tpl_dict_get(rt, b, &a->keys[i], &other);
		if (r < 0)
			return r;
		if (!other) {
			*ret = false;
			return 0;
		}
		r = eng_tpl_equal(rt, &a->vals[i], other, ret);
		if (r < 0)
			return r;
	}
	return 0;
}

int eng_tpl_equal(struct tpl_rt *rt, const struct tpl_value *a, const struct tpl_value *b, bool *ret)
{
	int r;

	if (tpl_is_number(a) && tpl_is_number(b)) {
		*ret = a->type == TPL_FLOAT || b->type == TPL_FLOAT ? tpl_as_double(a) == tpl_as_double(b)
		                                                    : tpl_as_int(a) == tpl_as_int(b);
		return 0;
	}
	*ret = false;
	if (a->type != b->type)
		return 0;
	r = eng_tpl_step(rt, 1);
	if (r < 0)
		return r;
	switch (a->type) {
	case TPL_UNDEF:
	case TPL_NONE:
		*ret = true;
		return 0;
	case TPL_STR:
		*ret = a->len == b->len && compare_text(a, b) == 0;
		return 0;
	case TPL_LIST:
		if (a->u.list == b->u.list) {
			*ret = true;
			return 0;
		}
		if (!same_sequence_type(a, b) || a->u.list->kind == TPL_KIND_GENERATOR)
			return 0;
		r = eng_tpl_enter(rt);
		if (r < 0)
			return r;
		r = equal_lists(rt, a->u.list, b->u.list, ret);
		tpl_leave(rt);
		return r;
	case TPL_DICT:
		r = eng_tpl_enter(rt);
		if (r < 0)
			return r;
		r = equal_dicts(rt, a->u.dict, b->u.dict, ret);
		tpl_leave(rt);
		return r;
	case TPL_METHOD:
		*ret = a->u.bound == b->u.bound;
		return 0;
	default:
		*ret = a->u.macro == b->u.macro; /* objects: the same one */
		return 0;
	}
}

static int order_lists(struct tpl_rt *rt, const struct tpl_list *a, const struct tpl_list *b, const char *op, int *ret)
{
	bool same;
	int r;

	for (size_t i = 0; i < a->n && i < b->n; i++) {
		r = eng_tpl_equal(rt, &a->v[i], &b->v[i], &same);
		if (r < 0)
			return r;
		if (!same)
			return eng_tpl_order(rt, &a->v[i], &b->v[i], op, ret);
	}
	*ret = a->n < b->n ? -1 : a->n > b->n;
	return 0;
}

int eng_tpl_order(struct tpl_rt *rt, const struct tpl_value *a, const struct tpl_value *b, const char *op, int *ret)
{
	int r;

	r = eng_tpl_step(rt, 1);
	if (r < 0)
		return r;
	if (tpl_is_number(a) && tpl_is_number(b)) {
		*ret = compare_numbers(a, b);
		return 0;
	}
	if (a->type == TPL_STR && b->type == TPL_STR) {
		*ret = compare_text(a, b);
		return 0;
	}
	if (a->type == TPL_UNDEF || b->type == TPL_UNDEF)
		return eng_tpl_fail_undefined(rt, a->type == TPL_UNDEF ? a : b);
	if (a->type == TPL_LIST && b->type == TPL_LIST && same_sequence_type(a, b) &&
	    a->u.list->kind <= TPL_KIND_GROUP) {
		r = eng_tpl_enter(rt);
		if (r < 0)
			return r;
		r = order_lists(rt, a->u.list, b->u.list, op, ret);
		tpl_leave(rt);
		return r;
	}
	return eng_tpl_fail(rt, -EINVAL, "'%s' not supported between instances of '%s' and '%s'", op,
	                    eng_tpl_type_name(a), eng_tpl_type_name(b));
}

int eng_tpl_contains(struct tpl_rt *rt, const struct tpl_value *item, const struct tpl_value *in, bool *ret)
{
	struct tpl_value *found;
	int r;

	*ret = false;
	switch (in->type) {
	case TPL_STR:
		if (item->type == TPL_UNDEF)
			return eng_tpl_fail(rt, -EINVAL,
			                    "'in <string>' requires string as left operand, not Undefined");
		if (item->type != TPL_STR)
			return eng_tpl_fail(rt, -EINVAL, "'in <string>' requires string as left operand, not %s",
			                    eng_tpl_type_name(item));
		r = eng_tpl_step(rt, in->len >> 6);
		if (r < 0)
			return r;
		*ret = eng_tpl_find(in->u.s, in->len, item->u.s, item->len, 0) >= 0;
		return 0;
	case TPL_LIST:
		for (size_t i = 0; !*ret && i < in->u.list->n; i++) {
			r = eng_tpl_equal(rt, item, &in->u.list->v[i], ret);
			if (r < 0)
				return r;
		}
		return 0;
	case TPL_DICT:
		r = eng_tpl_dict_get(rt, in->u.dict, item, &found);
		*ret = r == 0 && found;
		return r;
	case TPL_UNDEF:
		return 0;
	default:
		return eng_tpl_fail(rt, -EINVAL, "argument of type '%s' is not iterable", eng_tpl_type_name(in));
	}
}

/* ---- Iteration -------------------------------------------------------------------------------------- */

static int iterate_text(struct tpl_rt *rt, const struct tpl_value *v, struct tpl_list *list)
{
	uint32_t cp;
	size_t n;
	int r;

	for (size_t i = 0; i < v->len; i += n) {
		n = eng_tpl_utf8_next(v->u.s + i, v->len - i, &cp);
		r = eng_tpl_list_push(rt, list, tpl_text(v->u.s + i, n));
		if (r < 0)
			return r;
	}
	return 0;
}

int eng_tpl_iterate(struct tpl_rt *rt, const struct tpl_value *v, struct tpl_list **ret)
{
	struct tpl_list *l = NULL;
	int r;

	switch (v->type) {
	case TPL_LIST:
		*ret = v->u.list;
		return 0;
	case TPL_UNDEF:
		return eng_tpl_list_new(rt, TPL_KIND_LIST, 0, ret);
	case TPL_STR:
		r = eng_tpl_list_new(rt, TPL_KIND_LIST, 0, &l);
		if (r == 0)
			r = iterate_text(rt, v, l);
		break;
	case TPL_DICT:
		r = eng_tpl_list_new(rt, TPL_KIND_LIST, v->u.dict->n, &l);
		for (size_t i = 0; r == 0 && i < v->u.dict->n; i++)
			r = eng_tpl_list_push(rt, l, v->u.dict->keys[i]);
		break;
	default:
		return eng_tpl_fail(rt, -EINVAL, "'%s' object is not iterable", eng_tpl_type_name(v));
	}
	if (r < 0)
		return r;
	*ret = l;
	return 0;
}

int eng_tpl_length(struct tpl_rt *rt, const struct tpl_value *v, int64_t *ret)
{
	switch (v->type) {
	case TPL_UNDEF:
		*ret = 0;
		return 0;
	case TPL_STR:
		*ret = (int64_t)eng_tpl_utf8_count(v->u.s, v->len);
		return eng_tpl_step(rt, v->len >> 6);
	case TPL_DICT:
		*ret = (int64_t)v->u.dict->n;
		return 0;
	case TPL_LIST:
		if (v->u.list->kind == TPL_KIND_GENERATOR)
			break;
		*ret = (int64_t)v->u.list->n;
		return 0;
	default:
		break;
	}
	return eng_tpl_fail(rt, -EINVAL, "object of type '%s' has no len()", eng_tpl_type_name(v));
}

/* ---- From JSON -------------------------------------------------------------------------------------- */

static int list_from_json(struct tpl_rt *rt, const json_t *json, struct tpl_value *ret)
{
	struct tpl_list *l;
	struct tpl_value v;
	size_t n = json_array_size(json);
	int r = eng_tpl_list_new(rt, TPL_KIND_LIST, n, &l);

	for (size_t i = 0; r == 0 && i < n; i++) {
		r = eng_tpl_from_json(rt, json_array_get(json, i), &v);
		if (r == 0)
			r = eng_tpl_list_push(rt, l, v);
	}
	if (r < 0)
		return r;
	*ret = tpl_list_value(l);
	return 0;
}

static int dict_from_json(struct tpl_rt *rt, const json_t *json, struct tpl_value *ret)
{
	struct tpl_dict *d;
	struct tpl_value v;
	const char *key;
	json_t *member;
	int r;

	r = eng_tpl_dict_new(rt, &d);
	if (r < 0)
		return r;
	json_object_foreach((json_t *)json, key, member)
	{
		r = eng_tpl_from_json(rt, member, &v);
		if (r == 0)
			r = eng_tpl_dict_set(rt, d, tpl_text(key, strlen(key)), v);
		if (r < 0)
			return r;
	}
	*ret = (struct tpl_value){ .type = TPL_DICT, .u.dict = d };
	return 0;
}

int eng_tpl_from_json(struct tpl_rt *rt, const json_t *json, struct tpl_value *ret)
{
	int r;

	switch (json_typeof(json)) {
	case JSON_STRING:
		*ret = tpl_text(json_string_value(json), json_string_length(json));
		return 0;
	case JSON_INTEGER:
		*ret = tpl_int(json_integer_value(json));
		return 0;
	case JSON_REAL:
		*ret = tpl_float(json_real_value(json));
		return 0;
	case JSON_TRUE:
	case JSON_FALSE:
		*ret = tpl_bool(json_is_true(json));
		return 0;
	case JSON_NULL:
		*ret = tpl_none();
		return 0;
	case JSON_ARRAY:
	case JSON_OBJECT:
		break;
	}
	r = eng_tpl_enter(rt);
	if (r < 0)
		return r;
	r = json_is_array(json) ? list_from_json(rt, json, ret) : dict_from_json(rt, json, ret);
	tpl_leave(rt);
	return r;
}
