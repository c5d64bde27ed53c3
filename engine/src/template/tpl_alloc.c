/* The arena of one render, its limits and error words, and making texts and lists in it.
 *
 * Chunks grow with what is asked; the newest text can be extended where it stands, which makes the usual
 * `x = x ~ y` in a loop cost what it appends. */
#include "base/clock.h"
#include "tpl_interp.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

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

void *eng_tpl_arena_alloc(struct tpl_arena *arena, size_t size)
{
	char *p = arena_take(arena, size ? size : 1);

	if (p)
		memset(p, 0, size);
	return p;
}

void *eng_tpl_arena_array(struct tpl_arena *arena, size_t n, size_t size)
{
	size_t bytes;

	if (__builtin_mul_overflow(n, size, &bytes))
		return NULL;
	return eng_tpl_arena_alloc(arena, bytes);
}

void eng_tpl_arena_done(struct tpl_arena *arena)
{
	struct tpl_chunk *c, *next;

	for (c = arena->head; c; c = next) {
		next = c->next;
		free(c);
	}
	*arena = (struct tpl_arena){ .max = arena->max };
}

/* ---- Errors and limits ---------------------------------------------------------------------------- */

int eng_tpl_fail(struct tpl_rt *rt, int code, const char *fmt, ...)
{
	char text[ERR_MSG_SIZE];
	va_list ap;

	va_start(ap, fmt);
	(void)vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	return err_set(rt->err, code, "%s:%u: %s", rt->tmpl->where, rt->line, text);
}

int eng_tpl_fail_memory(struct tpl_rt *rt)
{
	return eng_tpl_fail(rt, -E2BIG, "the template's values need more than %d MiB", TPL_MAX_VALUE_MIB);
}

int eng_tpl_fail_undefined(struct tpl_rt *rt, const struct tpl_value *v)
{
	return eng_tpl_fail(rt, -EINVAL, "%.*s", (int)v->len, v->u.s);
}

int eng_tpl_step(struct tpl_rt *rt, size_t n)
{
	uint64_t before = rt->steps;

	rt->steps += n;
	if (rt->steps > TPL_MAX_STEPS)
		return eng_tpl_fail(rt, -E2BIG, "the template takes more than %d steps", TPL_MAX_STEPS);
	if (before >> 14 != rt->steps >> 14) {
		if (rt->deadline_ns == 0)
			rt->deadline_ns = base_now_ns() + (int64_t)TPL_MAX_MS * 1000000;
		else if (base_now_ns() > rt->deadline_ns)
			return eng_tpl_fail(rt, -E2BIG, "the template takes more than %d seconds", TPL_MAX_MS / 1000);
	}
	return 0;
}

int eng_tpl_enter(struct tpl_rt *rt)
{
	if (rt->depth >= TPL_MAX_DEPTH)
		return eng_tpl_fail(rt, -E2BIG, "nested deeper than %d levels", TPL_MAX_DEPTH);
	rt->depth++;
	return 0;
}

/* ---- Construction --------------------------------------------------------------------------------- */

const char *eng_tpl_type_name(const struct tpl_value *v)
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

int eng_tpl_text_copy(struct tpl_rt *rt, const char *s, size_t len, struct tpl_value *ret)
{
	char *p = arena_take(&rt->arena, len ? len : 1);
	int r;

	if (!p)
		return eng_tpl_fail_memory(rt);
	r = eng_tpl_step(rt, len >> 6);
	if (r < 0)
		return r;
	if (len)
		memcpy(p, s, len);
	rt->arena.last_text = p + len;
	*ret = tpl_text(p, len);
	return 0;
}

int eng_tpl_text_concat(struct tpl_rt *rt, const struct tpl_value *left, const char *s, size_t len,
                        struct tpl_value *ret)
{
	struct tpl_arena *arena = &rt->arena;
	size_t total, rounded;
	char *p;
	int r;

	if (__builtin_add_overflow(left->len, len, &total))
		return eng_tpl_fail_memory(rt);
	if (left->len && left->u.s + left->len == arena->last_text &&
	    (size_t)(arena->end - arena->last_text) >= len + 8) {
		r = eng_tpl_step(rt, len >> 6);
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
	r = eng_tpl_step(rt, total >> 6);
	if (r < 0)
		return r;
	p = arena_take(arena, total ? total : 1);
	if (!p)
		return eng_tpl_fail_memory(rt);
	if (left->len)
		memcpy(p, left->u.s, left->len);
	if (len)
		memcpy(p + left->len, s, len);
	arena->last_text = p + total;
	*ret = tpl_text(p, total);
	return 0;
}

int eng_tpl_text_from_buf(struct tpl_rt *rt, const struct base_buf *buf, struct tpl_value *ret)
{
	if (base_buf_error(buf))
		return eng_tpl_fail_memory(rt);
	return eng_tpl_text_copy(rt, base_buf_text(buf), buf->len, ret);
}

int eng_tpl_undef(struct tpl_rt *rt, struct tpl_value *ret, const char *fmt, ...)
{
	char text[256];
	va_list ap;
	int r;

	va_start(ap, fmt);
	(void)vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	r = eng_tpl_text_copy(rt, text, strlen(text), ret);
	if (r < 0)
		return r;
	ret->type = TPL_UNDEF;
	return 0;
}

int eng_tpl_list_new(struct tpl_rt *rt, enum tpl_list_kind kind, size_t cap, struct tpl_list **ret)
{
	struct tpl_list *l = eng_tpl_arena_alloc(&rt->arena, sizeof(*l));

	if (!l)
		return eng_tpl_fail_memory(rt);
	l->kind = kind;
	if (cap) {
		l->v = eng_tpl_arena_array(&rt->arena, cap, sizeof(*l->v));
		if (!l->v)
			return eng_tpl_fail_memory(rt);
		l->cap = cap;
	}
	*ret = l;
	return 0;
}

int eng_tpl_list_push(struct tpl_rt *rt, struct tpl_list *list, struct tpl_value v)
{
	struct tpl_value *p;
	size_t cap;
	int r;

	if (list->n == list->cap) {
		cap = list->cap ? list->cap * 2 : 4;
		r = eng_tpl_step(rt, list->n >> 2);
		if (r < 0)
			return r;
		p = eng_tpl_arena_array(&rt->arena, cap, sizeof(*p));
		if (!p)
			return eng_tpl_fail_memory(rt);
		if (list->n)
			memcpy(p, list->v, list->n * sizeof(*p));
		list->v = p;
		list->cap = cap;
	}
	list->v[list->n++] = v;
	return 0;
}

int eng_tpl_tuple2(struct tpl_rt *rt, struct tpl_value a, struct tpl_value b, struct tpl_value *ret)
{
	struct tpl_list *l;
	int r = eng_tpl_list_new(rt, TPL_KIND_TUPLE, 2, &l);

	if (r < 0)
		return r;
	l->v[0] = a;
	l->v[1] = b;
	l->n = 2;
	*ret = tpl_list_value(l);
	return 0;
}
