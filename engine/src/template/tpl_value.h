/* The values a chat template computes with, and the arena they live in.
 *
 * A value is 24 bytes, passed by copy; what it points to (text, lists, dicts, objects) lives in the
 * render's arena and is freed with it, all at once: a render is short, and a ceiling on the arena is
 * the ceiling on what a template can hold. Text from the JSON context is borrowed, not copied. */
#ifndef ENG_TPL_VALUE_H
#define ENG_TPL_VALUE_H

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/buf.h"
#include "base/err.h"

struct tpl_rt; /* one render: tpl_interp.h */

/* ---- Arena -------------------------------------------------------------------------------------- */

struct tpl_chunk;

struct tpl_arena {
	struct tpl_chunk *head;
	char *p, *end;   /* free room in the newest chunk */
	char *last_text; /* exact end of the newest allocation when it is text: it can grow in place */
	size_t used, max;
};

/* Zeroed memory, or NULL beyond the ceiling (or without memory). */
void *eng_tpl_arena_alloc(struct tpl_arena *arena, size_t size);
/* n * size with overflow check. */
void *eng_tpl_arena_array(struct tpl_arena *arena, size_t n, size_t size);
void eng_tpl_arena_done(struct tpl_arena *arena);

/* ---- Values ------------------------------------------------------------------------------------- */

enum tpl_type {
	TPL_MISSING, /* an argument not given, a name not set; templates never see it */
	TPL_UNDEF,   /* text: why it is undefined */
	TPL_NONE,
	TPL_BOOL,
	TPL_INT,
	TPL_FLOAT,
	TPL_STR, /* UTF-8, not NUL-terminated */
	TPL_LIST,
	TPL_DICT,
	TPL_NS, /* namespace(): a dict that `set ns.x` may change */
	TPL_MACRO,
	TPL_LOOP,
	TPL_FUNC,   /* a built-in function */
	TPL_METHOD, /* a built-in method, bound to its object */
	TPL_CYCLER,
	TPL_JOINER,
};

/* What Python would call the sequence: it decides how it prints and what may be asked of it. */
enum tpl_list_kind {
	TPL_KIND_LIST,
	TPL_KIND_TUPLE,
	TPL_KIND_GROUP, /* a tuple whose two items are also called grouper and list */
	TPL_KIND_RANGE,
	TPL_KIND_GENERATOR, /* what select, map, batch, ... return: iterable, without a length */
	TPL_KIND_KEYS,
	TPL_KIND_VALUES,
	TPL_KIND_ITEMS,
};

struct tpl_value {
	uint8_t type;
	bool markup; /* TPL_STR: went through escape or safe */
	union {
		bool b;
		int64_t i;
		double f;
		const char *s;
		struct tpl_list *list;
		struct tpl_dict *dict; /* TPL_DICT and TPL_NS */
		struct tpl_macro *macro;
		struct tpl_loop *loop;
		const struct tpl_func *func;
		const struct tpl_bound *bound;
		struct tpl_cycler *cycler; /* TPL_CYCLER and TPL_JOINER */
	} u;
	size_t len; /* TPL_STR, TPL_UNDEF: bytes */
};

struct tpl_list {
	enum tpl_list_kind kind;
	size_t n, cap;
	struct tpl_value *v;
	int64_t start, stop, step; /* TPL_KIND_RANGE, as it prints */
};

/* Insertion-ordered; an index is built once linear search would hurt. */
struct tpl_dict {
	size_t n, cap;
	struct tpl_value *keys, *vals;
	uint32_t *index; /* open addressing, entry + 1; NULL while small */
	size_t n_index;  /* power of two */
};

struct tpl_cycler {
	struct tpl_value *items;
	size_t n, pos;
};

static inline struct tpl_value tpl_none(void)
{
	return (struct tpl_value){ .type = TPL_NONE };
}

static inline struct tpl_value tpl_bool(bool b)
{
	return (struct tpl_value){ .type = TPL_BOOL, .u.b = b };
}

static inline struct tpl_value tpl_int(int64_t i)
{
	return (struct tpl_value){ .type = TPL_INT, .u.i = i };
}

static inline struct tpl_value tpl_float(double f)
{
	return (struct tpl_value){ .type = TPL_FLOAT, .u.f = f };
}

/* Borrows the bytes. */
static inline struct tpl_value tpl_text(const char *s, size_t len)
{
	return (struct tpl_value){ .type = TPL_STR, .u.s = s, .len = len };
}

static inline struct tpl_value tpl_list_value(struct tpl_list *list)
{
	return (struct tpl_value){ .type = TPL_LIST, .u.list = list };
}

static inline bool tpl_is_text(const struct tpl_value *v, const char *s)
{
	size_t n = __builtin_strlen(s);

	return v->type == TPL_STR && v->len == n && __builtin_memcmp(v->u.s, s, n) == 0;
}

static inline bool tpl_is_kind(const struct tpl_value *v, enum tpl_list_kind kind)
{
	return v->type == TPL_LIST && v->u.list->kind == kind;
}

static inline bool tpl_is_number(const struct tpl_value *v)
{
	return v->type == TPL_INT || v->type == TPL_FLOAT || v->type == TPL_BOOL;
}

/* Bools count as 0 and 1 in arithmetic. */
static inline int64_t tpl_as_int(const struct tpl_value *v)
{
	return v->type == TPL_BOOL ? v->u.b : v->u.i;
}

static inline double tpl_as_double(const struct tpl_value *v)
{
	return v->type == TPL_FLOAT ? v->u.f : (double)tpl_as_int(v);
}

/* Python's name of its type: "str", "NoneType", ... */
const char *eng_tpl_type_name(const struct tpl_value *v);

/* All below return 0 or a negative errno with the render's error filled. */
int eng_tpl_undef(struct tpl_rt *rt, struct tpl_value *ret, const char *fmt, ...) __attribute__((format(printf, 3, 4)));
int eng_tpl_text_copy(struct tpl_rt *rt, const char *s, size_t len, struct tpl_value *ret);
/* left + right; extends left in place when it is the arena's newest text. */
int eng_tpl_text_concat(struct tpl_rt *rt, const struct tpl_value *left, const char *s, size_t len,
                        struct tpl_value *ret);
/* Copies the buffer's text; its pending error becomes the render's. */
int eng_tpl_text_from_buf(struct tpl_rt *rt, const struct base_buf *buf, struct tpl_value *ret);

int eng_tpl_list_new(struct tpl_rt *rt, enum tpl_list_kind kind, size_t cap, struct tpl_list **ret);
int eng_tpl_list_push(struct tpl_rt *rt, struct tpl_list *list, struct tpl_value v);
int eng_tpl_tuple2(struct tpl_rt *rt, struct tpl_value a, struct tpl_value b, struct tpl_value *ret);

int eng_tpl_dict_new(struct tpl_rt *rt, struct tpl_dict **ret);
/* NULL in *ret when the key is absent. */
int eng_tpl_dict_get(struct tpl_rt *rt, const struct tpl_dict *d, const struct tpl_value *key, struct tpl_value **ret);
struct tpl_value *eng_tpl_dict_get_text(const struct tpl_dict *d, const char *s, size_t len);
int eng_tpl_dict_set(struct tpl_rt *rt, struct tpl_dict *d, struct tpl_value key, struct tpl_value v);
int eng_tpl_dict_remove(struct tpl_rt *rt, struct tpl_dict *d, const struct tpl_value *key);

bool eng_tpl_truth(const struct tpl_value *v);
int eng_tpl_equal(struct tpl_rt *rt, const struct tpl_value *a, const struct tpl_value *b, bool *ret);
/* -1, 0, 1 as Python orders them; an error when it does not. `op` is for the message. */
int eng_tpl_order(struct tpl_rt *rt, const struct tpl_value *a, const struct tpl_value *b, const char *op, int *ret);
int eng_tpl_contains(struct tpl_rt *rt, const struct tpl_value *item, const struct tpl_value *in, bool *ret);

/* Items of anything iterable (text by code point, a dict's keys, Undefined as nothing); *ret may be the
 * value's own list: do not change it. */
int eng_tpl_iterate(struct tpl_rt *rt, const struct tpl_value *v, struct tpl_list **ret);
/* len(); an error for what has none. */
int eng_tpl_length(struct tpl_rt *rt, const struct tpl_value *v, int64_t *ret);

int eng_tpl_from_json(struct tpl_rt *rt, const json_t *json, struct tpl_value *ret);

#endif
