/* Arena, limits, and the values' own operations: construction, truth, equality, order, iteration.
 *
 * Semantics are Python's, for the types a template can hold. Integers have 64 bits; what would not fit
 * is an error where Python would go on with a longer number. Every walk into nested values goes through
 * tpl_enter(), because a template can nest a list in itself. */
#include "tpl_interp.h"

#include <errno.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

/* ---- Arena -------------------------------------------------------------------------------------- */

struct tpl_chunk {
	struct tpl_chunk *next;
	size_t size;
};

enum { CHUNK_SIZE = 32 << 10 };

static char *arena_take(struct tpl_arena *arena, size_t size)
{
	size_t rounded = (size + 7) & ~(size_t)7, want;
	struct tpl_chunk *c;
	char *p;

	if (rounded < size || size > arena->max)
		return NULL;
	if ((size_t)(arena->end - arena->p) < rounded) {
		/* Large texts get room to grow in place. */
		want = rounded + rounded / 2 < CHUNK_SIZE ? CHUNK_SIZE : rounded + rounded / 2;
		if (want > arena->max - arena->used)
			want = rounded;
		if (want > arena->max - arena->used)
			return NULL;
		c = malloc(sizeof(*c) + want);
		if (!c)
			return NULL;
		c->next = arena->head;
		c->size = want;
		arena->head = c;
		arena->used += want;
		arena->p = (char *)(c + 1);
		arena->end = arena->p + want;
	}
	p = arena->p;
	arena->p += rounded;
	arena->last_text = NULL;
	return p;
}

void *tpl_arena_alloc(struct tpl_arena *arena, size_t size)
{
	char *p = arena_take(arena, size ? size : 1);

	if (p)
		memset(p, 0, size);
	return p;
}

void *tpl_arena_array(struct tpl_arena *arena, size_t n, size_t size)
{
	size_t bytes;

	if (__builtin_mul_overflow(n, size, &bytes))
		return NULL;
	return tpl_arena_alloc(arena, bytes);
}

void tpl_arena_done(struct tpl_arena *arena)
{
	struct tpl_chunk *c, *next;

	for (c = arena->head; c; c = next) {
		next = c->next;
		free(c);
	}
	*arena = (struct tpl_arena){ .max = arena->max };
}

/* ---- Errors and limits ---------------------------------------------------------------------------- */

int tpl_fail(struct tpl_rt *rt, int code, const char *fmt, ...)
{
	char text[ERR_MSG_SIZE];
	va_list ap;

	va_start(ap, fmt);
	(void)vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	return err_set(rt->err, code, "%s:%u: %s", rt->tmpl->where, rt->line, text);
}

int tpl_fail_memory(struct tpl_rt *rt)
{
	return tpl_fail(rt, -E2BIG, "the template's values need more than %d MiB", TPL_MAX_VALUE_MIB);
}

int tpl_fail_undefined(struct tpl_rt *rt, const struct tpl_value *v)
{
	return tpl_fail(rt, -EINVAL, "%.*s", (int)v->len, v->u.s);
}

static int64_t now_ns(void)
{
	struct timespec ts;

	(void)clock_gettime(CLOCK_MONOTONIC, &ts);
	return (int64_t)ts.tv_sec * 1000000000 + ts.tv_nsec;
}

int tpl_step(struct tpl_rt *rt, size_t n)
{
	uint64_t before = rt->steps;

	rt->steps += n;
	if (rt->steps > TPL_MAX_STEPS)
		return tpl_fail(rt, -E2BIG, "the template takes more than %d steps", TPL_MAX_STEPS);
	if (before >> 14 != rt->steps >> 14) {
		if (rt->deadline_ns == 0)
			rt->deadline_ns = now_ns() + (int64_t)TPL_MAX_MS * 1000000;
		else if (now_ns() > rt->deadline_ns)
			return tpl_fail(rt, -E2BIG, "the template takes more than %d seconds", TPL_MAX_MS / 1000);
	}
	return 0;
}

int tpl_enter(struct tpl_rt *rt)
{
	if (rt->depth >= TPL_MAX_DEPTH)
		return tpl_fail(rt, -E2BIG, "nested deeper than %d levels", TPL_MAX_DEPTH);
	rt->depth++;
	return 0;
}

/* ---- Construction --------------------------------------------------------------------------------- */

const char *tpl_type_name(const struct tpl_value *v)
{
	static const char *const kinds[] = {
		[TPL_KIND_LIST] = "list",          [TPL_KIND_TUPLE] = "tuple",         [TPL_KIND_GROUP] = "tuple",
		[TPL_KIND_RANGE] = "range",        [TPL_KIND_GENERATOR] = "generator", [TPL_KIND_KEYS] = "dict_keys",
		[TPL_KIND_VALUES] = "dict_values", [TPL_KIND_ITEMS] = "dict_items",
	};
	static const char *const types[] = {
		[TPL_MISSING] = "missing",
		[TPL_UNDEF] = "Undefined",
		[TPL_NONE] = "NoneType",
		[TPL_BOOL] = "bool",
		[TPL_INT] = "int",
		[TPL_FLOAT] = "float",
		[TPL_STR] = "str",
		[TPL_DICT] = "dict",
		[TPL_NS] = "Namespace",
		[TPL_MACRO] = "Macro",
		[TPL_LOOP] = "LoopContext",
		[TPL_FUNC] = "function",
		[TPL_METHOD] = "builtin_function_or_method",
		[TPL_CYCLER] = "Cycler",
		[TPL_JOINER] = "Joiner",
	};

	return v->type == TPL_LIST ? kinds[v->u.list->kind] : types[v->type];
}

int tpl_text_copy(struct tpl_rt *rt, const char *s, size_t len, struct tpl_value *ret)
{
	char *p = arena_take(&rt->arena, len ? len : 1);
	int r;

	if (!p)
		return tpl_fail_memory(rt);
	r = tpl_step(rt, len >> 6);
	if (r < 0)
		return r;
	if (len)
		memcpy(p, s, len);
	rt->arena.last_text = p + len;
	*ret = tpl_text(p, len);
	return 0;
}

int tpl_text_concat(struct tpl_rt *rt, const struct tpl_value *left, const char *s, size_t len, struct tpl_value *ret)
{
	struct tpl_arena *arena = &rt->arena;
	size_t total, rounded;
	char *p;
	int r;

	if (__builtin_add_overflow(left->len, len, &total))
		return tpl_fail_memory(rt);
	if (left->len && left->u.s + left->len == arena->last_text &&
	    (size_t)(arena->end - arena->last_text) >= len + 8) {
		r = tpl_step(rt, len >> 6);
		if (r < 0)
			return r;
		p = arena->last_text;
		memmove(p, s, len);
		arena->last_text = p + len;
		rounded = (size_t)(p + len - (char *)(arena->head + 1));
		rounded = (rounded + 7) & ~(size_t)7;
		arena->p = (char *)(arena->head + 1) + rounded;
		*ret = tpl_text(left->u.s, total);
		return 0;
	}
	r = tpl_step(rt, total >> 6);
	if (r < 0)
		return r;
	p = arena_take(arena, total ? total : 1);
	if (!p)
		return tpl_fail_memory(rt);
	if (left->len)
		memcpy(p, left->u.s, left->len);
	if (len)
		memcpy(p + left->len, s, len);
	arena->last_text = p + total;
	*ret = tpl_text(p, total);
	return 0;
}

int tpl_text_from_buf(struct tpl_rt *rt, const struct base_buf *buf, struct tpl_value *ret)
{
	if (base_buf_error(buf))
		return tpl_fail_memory(rt);
	return tpl_text_copy(rt, base_buf_text(buf), buf->len, ret);
}

int tpl_undef(struct tpl_rt *rt, struct tpl_value *ret, const char *fmt, ...)
{
	char text[256];
	va_list ap;
	int r;

	va_start(ap, fmt);
	(void)vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	r = tpl_text_copy(rt, text, strlen(text), ret);
	if (r < 0)
		return r;
	ret->type = TPL_UNDEF;
	return 0;
}

int tpl_list_new(struct tpl_rt *rt, enum tpl_list_kind kind, size_t cap, struct tpl_list **ret)
{
	struct tpl_list *l = tpl_arena_alloc(&rt->arena, sizeof(*l));

	if (!l)
		return tpl_fail_memory(rt);
	l->kind = kind;
	if (cap) {
		l->v = tpl_arena_array(&rt->arena, cap, sizeof(*l->v));
		if (!l->v)
			return tpl_fail_memory(rt);
		l->cap = cap;
	}
	*ret = l;
	return 0;
}

int tpl_list_push(struct tpl_rt *rt, struct tpl_list *list, struct tpl_value v)
{
	struct tpl_value *p;
	size_t cap;
	int r;

	if (list->n == list->cap) {
		cap = list->cap ? list->cap * 2 : 4;
		r = tpl_step(rt, list->n >> 2);
		if (r < 0)
			return r;
		p = tpl_arena_array(&rt->arena, cap, sizeof(*p));
		if (!p)
			return tpl_fail_memory(rt);
		if (list->n)
			memcpy(p, list->v, list->n * sizeof(*p));
		list->v = p;
		list->cap = cap;
	}
	list->v[list->n++] = v;
	return 0;
}

int tpl_tuple2(struct tpl_rt *rt, struct tpl_value a, struct tpl_value b, struct tpl_value *ret)
{
	struct tpl_list *l;
	int r = tpl_list_new(rt, TPL_KIND_TUPLE, 2, &l);

	if (r < 0)
		return r;
	l->v[0] = a;
	l->v[1] = b;
	l->n = 2;
	*ret = tpl_list_value(l);
	return 0;
}

/* ---- Truth, equality, order ------------------------------------------------------------------------- */

bool tpl_truth(const struct tpl_value *v)
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
		r = tpl_equal(rt, &a->v[i], &b->v[i], ret);
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
		r = tpl_dict_get(rt, b, &a->keys[i], &other);
		if (r < 0)
			return r;
		if (!other) {
			*ret = false;
			return 0;
		}
		r = tpl_equal(rt, &a->vals[i], other, ret);
		if (r < 0)
			return r;
	}
	return 0;
}

int tpl_equal(struct tpl_rt *rt, const struct tpl_value *a, const struct tpl_value *b, bool *ret)
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
	r = tpl_step(rt, 1);
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
		r = tpl_enter(rt);
		if (r < 0)
			return r;
		r = equal_lists(rt, a->u.list, b->u.list, ret);
		tpl_leave(rt);
		return r;
	case TPL_DICT:
		r = tpl_enter(rt);
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
		r = tpl_equal(rt, &a->v[i], &b->v[i], &same);
		if (r < 0)
			return r;
		if (!same)
			return tpl_order(rt, &a->v[i], &b->v[i], op, ret);
	}
	*ret = a->n < b->n ? -1 : a->n > b->n;
	return 0;
}

int tpl_order(struct tpl_rt *rt, const struct tpl_value *a, const struct tpl_value *b, const char *op, int *ret)
{
	int r;

	r = tpl_step(rt, 1);
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
		return tpl_fail_undefined(rt, a->type == TPL_UNDEF ? a : b);
	if (a->type == TPL_LIST && b->type == TPL_LIST && same_sequence_type(a, b) &&
	    a->u.list->kind <= TPL_KIND_GROUP) {
		r = tpl_enter(rt);
		if (r < 0)
			return r;
		r = order_lists(rt, a->u.list, b->u.list, op, ret);
		tpl_leave(rt);
		return r;
	}
	return tpl_fail(rt, -EINVAL, "'%s' not supported between instances of '%s' and '%s'", op, tpl_type_name(a),
	                tpl_type_name(b));
}

int tpl_contains(struct tpl_rt *rt, const struct tpl_value *item, const struct tpl_value *in, bool *ret)
{
	struct tpl_value *found;
	int r;

	*ret = false;
	switch (in->type) {
	case TPL_STR:
		if (item->type == TPL_UNDEF)
			return tpl_fail(rt, -EINVAL, "'in <string>' requires string as left operand, not Undefined");
		if (item->type != TPL_STR)
			return tpl_fail(rt, -EINVAL, "'in <string>' requires string as left operand, not %s",
			                tpl_type_name(item));
		r = tpl_step(rt, in->len >> 6);
		if (r < 0)
			return r;
		*ret = tpl_find(in->u.s, in->len, item->u.s, item->len, 0) >= 0;
		return 0;
	case TPL_LIST:
		for (size_t i = 0; !*ret && i < in->u.list->n; i++) {
			r = tpl_equal(rt, item, &in->u.list->v[i], ret);
			if (r < 0)
				return r;
		}
		return 0;
	case TPL_DICT:
		r = tpl_dict_get(rt, in->u.dict, item, &found);
		*ret = r == 0 && found;
		return r;
	case TPL_UNDEF:
		return 0;
	default:
		return tpl_fail(rt, -EINVAL, "argument of type '%s' is not iterable", tpl_type_name(in));
	}
}

/* ---- Iteration -------------------------------------------------------------------------------------- */

static int iterate_text(struct tpl_rt *rt, const struct tpl_value *v, struct tpl_list *list)
{
	uint32_t cp;
	size_t n;
	int r;

	for (size_t i = 0; i < v->len; i += n) {
		n = tpl_utf8_next(v->u.s + i, v->len - i, &cp);
		r = tpl_list_push(rt, list, tpl_text(v->u.s + i, n));
		if (r < 0)
			return r;
	}
	return 0;
}

int tpl_iterate(struct tpl_rt *rt, const struct tpl_value *v, struct tpl_list **ret)
{
	struct tpl_list *l = NULL;
	int r;

	switch (v->type) {
	case TPL_LIST:
		*ret = v->u.list;
		return 0;
	case TPL_UNDEF:
		return tpl_list_new(rt, TPL_KIND_LIST, 0, ret);
	case TPL_STR:
		r = tpl_list_new(rt, TPL_KIND_LIST, 0, &l);
		if (r == 0)
			r = iterate_text(rt, v, l);
		break;
	case TPL_DICT:
		r = tpl_list_new(rt, TPL_KIND_LIST, v->u.dict->n, &l);
		for (size_t i = 0; r == 0 && i < v->u.dict->n; i++)
			r = tpl_list_push(rt, l, v->u.dict->keys[i]);
		break;
	default:
		return tpl_fail(rt, -EINVAL, "'%s' object is not iterable", tpl_type_name(v));
	}
	if (r < 0)
		return r;
	*ret = l;
	return 0;
}

int tpl_length(struct tpl_rt *rt, const struct tpl_value *v, int64_t *ret)
{
	switch (v->type) {
	case TPL_UNDEF:
		*ret = 0;
		return 0;
	case TPL_STR:
		*ret = (int64_t)tpl_utf8_count(v->u.s, v->len);
		return tpl_step(rt, v->len >> 6);
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
	return tpl_fail(rt, -EINVAL, "object of type '%s' has no len()", tpl_type_name(v));
}

/* ---- From JSON -------------------------------------------------------------------------------------- */

static int list_from_json(struct tpl_rt *rt, const json_t *json, struct tpl_value *ret)
{
	struct tpl_list *l;
	struct tpl_value v;
	size_t n = json_array_size(json);
	int r = tpl_list_new(rt, TPL_KIND_LIST, n, &l);

	for (size_t i = 0; r == 0 && i < n; i++) {
		r = tpl_from_json(rt, json_array_get(json, i), &v);
		if (r == 0)
			r = tpl_list_push(rt, l, v);
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

	r = tpl_dict_new(rt, &d);
	if (r < 0)
		return r;
	json_object_foreach((json_t *)json, key, member)
	{
		r = tpl_from_json(rt, member, &v);
		if (r == 0)
			r = tpl_dict_set(rt, d, tpl_text(key, strlen(key)), v);
		if (r < 0)
			return r;
	}
	*ret = (struct tpl_value){ .type = TPL_DICT, .u.dict = d };
	return 0;
}

int tpl_from_json(struct tpl_rt *rt, const json_t *json, struct tpl_value *ret)
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
	r = tpl_enter(rt);
	if (r < 0)
		return r;
	r = json_is_array(json) ? list_from_json(rt, json, ret) : dict_from_json(rt, json, ret);
	tpl_leave(rt);
	return r;
}
