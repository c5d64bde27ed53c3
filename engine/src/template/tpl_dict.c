/* The ordered dict: two parallel arrays in insertion order, searched linearly while small, by an open
 * addressing index of entry numbers beyond that. Numbers that are equal are the same key, as in Python
 * (1, 1.0, True); lists and dicts cannot be keys. */
#include "tpl_interp.h"

#include <errno.h>
#include <math.h>
#include <string.h>

enum { LINEAR_MAX = 8, TUPLE_HASH_DEPTH = 16 };

static uint64_t mix(uint64_t h)
{
	h ^= h >> 33;
	h *= 0xff51afd7ed558ccdull;
	h ^= h >> 33;
	return h;
}

static uint64_t hash_text(const char *s, size_t len)
{
	uint64_t h = 0xcbf29ce484222325ull; /* FNV-1a */

	for (size_t i = 0; i < len; i++)
		h = (h ^ (unsigned char)s[i]) * 0x100000001b3ull;
	return mix(h);
}

static uint64_t hash_value(const struct tpl_value *v, unsigned depth)
{
	uint64_t h = 17;
	double d;

	switch (v->type) {
	case TPL_STR:
		return hash_text(v->u.s, v->len);
	case TPL_BOOL:
	case TPL_INT:
		return mix((uint64_t)tpl_as_int(v));
	case TPL_FLOAT:
		d = v->u.f;
		if (d == floor(d) && fabs(d) < 9e18)
			return mix((uint64_t)(int64_t)d);
		memcpy(&h, &d, sizeof(h));
		return mix(h);
	case TPL_LIST:
		for (size_t i = 0; depth < TUPLE_HASH_DEPTH && i < v->u.list->n; i++)
			h = mix(h * 31 + hash_value(&v->u.list->v[i], depth + 1));
		return h;
	default:
		return v->type;
	}
}

static int check_hashable(struct tpl_rt *rt, const struct tpl_value *key, unsigned depth)
{
	int r = 0;

	if (key->type == TPL_DICT ||
	    (key->type == TPL_LIST && key->u.list->kind != TPL_KIND_TUPLE && key->u.list->kind != TPL_KIND_GROUP))
		return eng_tpl_fail(rt, -EINVAL, "unhashable type: '%s'", eng_tpl_type_name(key));
	if (key->type != TPL_LIST)
		return 0;
	if (depth >= TUPLE_HASH_DEPTH)
		return eng_tpl_fail(rt, -E2BIG, "a dict key is nested deeper than %d levels", TUPLE_HASH_DEPTH);
	for (size_t i = 0; r == 0 && i < key->u.list->n; i++)
		r = check_hashable(rt, &key->u.list->v[i], depth + 1);
	return r;
}

static int find(struct tpl_rt *rt, const struct tpl_dict *d, const struct tpl_value *key, size_t *ret)
{
	uint64_t slot;
	bool same;
	int r;

	*ret = d->n;
	if (!d->index) {
		for (size_t i = 0; i < d->n; i++) {
			r = eng_tpl_equal(rt, &d->keys[i], key, &same);
			if (r < 0)
				return r;
			if (same) {
				*ret = i;
				return 0;
			}
		}
		return 0;
	}
	for (slot = hash_value(key, 0); d->index[slot & (d->n_index - 1)]; slot++) {
		r = eng_tpl_equal(rt, &d->keys[d->index[slot & (d->n_index - 1)] - 1], key, &same);
		if (r < 0)
			return r;
		if (same) {
			*ret = d->index[slot & (d->n_index - 1)] - 1;
			return 0;
		}
	}
	return 0;
}

static void index_add(struct tpl_dict *d, size_t entry)
{
	uint64_t slot = hash_value(&d->keys[entry], 0);

	while (d->index[slot & (d->n_index - 1)])
		slot++;
	d->index[slot & (d->n_index - 1)] = (uint32_t)entry + 1;
}

static int reindex(struct tpl_rt *rt, struct tpl_dict *d)
{
	size_t n = 32;
	int r;

	d->index = NULL;
	if (d->n <= LINEAR_MAX)
		return 0;
	while (n < d->cap * 2)
		n *= 2;
	r = eng_tpl_step(rt, d->n);
	if (r < 0)
		return r;
	d->index = eng_tpl_arena_array(&rt->arena, n, sizeof(*d->index));
	if (!d->index)
		return eng_tpl_fail_memory(rt);
	d->n_index = n;
	for (size_t i = 0; i < d->n; i++)
		index_add(d, i);
	return 0;
}

static int grow(struct tpl_rt *rt, struct tpl_dict *d)
{
	size_t cap = d->cap ? d->cap * 2 : 4;
	struct tpl_value *keys, *vals;

	if (cap > UINT32_MAX / 4)
		return eng_tpl_fail_memory(rt);
	keys = eng_tpl_arena_array(&rt->arena, cap, sizeof(*keys));
	vals = eng_tpl_arena_array(&rt->arena, cap, sizeof(*vals));
	if (!keys || !vals)
		return eng_tpl_fail_memory(rt);
	if (d->n) {
		memcpy(keys, d->keys, d->n * sizeof(*keys));
		memcpy(vals, d->vals, d->n * sizeof(*vals));
	}
	d->keys = keys;
	d->vals = vals;
	d->cap = cap;
	return reindex(rt, d);
}

int eng_tpl_dict_new(struct tpl_rt *rt, struct tpl_dict **ret)
{
	struct tpl_dict *d = eng_tpl_arena_alloc(&rt->arena, sizeof(*d));

	if (!d)
		return eng_tpl_fail_memory(rt);
	*ret = d;
	return 0;
}

int eng_tpl_dict_get(struct tpl_rt *rt, const struct tpl_dict *d, const struct tpl_value *key, struct tpl_value **ret)
{
	size_t i;
	int r;

	r = check_hashable(rt, key, 0);
	if (r == 0)
		r = find(rt, d, key, &i);
	if (r < 0)
		return r;
	*ret = i < d->n ? &d->vals[i] : NULL;
	return 0;
}

struct tpl_value *eng_tpl_dict_get_text(const struct tpl_dict *d, const char *s, size_t len)
{
	const struct tpl_value *k;
	uint64_t slot;

	if (!d->index) {
		for (size_t i = 0; i < d->n; i++) {
			k = &d->keys[i];
			if (k->type == TPL_STR && k->len == len && memcmp(k->u.s, s, len) == 0)
				return &d->vals[i];
		}
		return NULL;
	}
	for (slot = hash_text(s, len); d->index[slot & (d->n_index - 1)]; slot++) {
		k = &d->keys[d->index[slot & (d->n_index - 1)] - 1];
		if (k->type == TPL_STR && k->len == len && memcmp(k->u.s, s, len) == 0)
			return &d->vals[d->index[slot & (d->n_index - 1)] - 1];
	}
	return NULL;
}

int eng_tpl_dict_set(struct tpl_rt *rt, struct tpl_dict *d, struct tpl_value key, struct tpl_value v)
{
	size_t i;
	int r;

	r = check_hashable(rt, &key, 0);
	if (r == 0)
		r = find(rt, d, &key, &i);
	if (r < 0)
		return r;
	if (i < d->n) {
		d->vals[i] = v;
		return 0;
	}
	if (d->n == d->cap) {
		r = grow(rt, d);
		if (r < 0)
			return r;
	}
	d->keys[d->n] = key;
	d->vals[d->n] = v;
	d->n++;
	if (!d->index)
		return d->n > LINEAR_MAX ? reindex(rt, d) : 0;
	index_add(d, d->n - 1);
	return 0;
}

int eng_tpl_dict_remove(struct tpl_rt *rt, struct tpl_dict *d, const struct tpl_value *key)
{
	size_t i;
	int r;

	r = find(rt, d, key, &i);
	if (r < 0 || i == d->n)
		return r;
	memmove(&d->keys[i], &d->keys[i + 1], (d->n - i - 1) * sizeof(*d->keys));
	memmove(&d->vals[i], &d->vals[i + 1], (d->n - i - 1) * sizeof(*d->vals));
	d->n--;
	return reindex(rt, d);
}
