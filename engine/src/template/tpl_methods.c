/* The methods of lists, dicts, loops and cyclers, and the one place that finds a method by name.
 *
 * Lists and dicts may be changed (append, update, ...), which Jinja's immutable sandbox refuses: all a
 * template can change is its own copy of the context, so nothing is protected by refusing. */
#include "tpl_interp.h"

#include <errno.h>
#include <string.h>

/* ---- Lists and tuples ----------------------------------------------------------------------------------- */

static TPL_METHOD(m_append)
{
	*ret = tpl_none();
	return eng_tpl_list_push(rt, self->u.list, args->pos[0]);
}

static TPL_METHOD(m_extend)
{
	struct tpl_list *more;
	int r = eng_tpl_iterate(rt, &args->pos[0], &more);
	size_t n = r == 0 ? more->n : 0; /* may be the same list */

	for (size_t i = 0; r == 0 && i < n; i++)
		r = eng_tpl_list_push(rt, self->u.list, more->v[i]);
	*ret = tpl_none();
	return r;
}

static TPL_METHOD(m_insert)
{
	struct tpl_list *l = self->u.list;
	int64_t at;
	int r = eng_tpl_arg_int(rt, &args->pos[0], "insert()", 0, &at);

	if (r == 0)
		r = eng_tpl_list_push(rt, l, args->pos[1]);
	if (r < 0)
		return r;
	if (at < 0)
		at += (int64_t)l->n - 1;
	at = at < 0 ? 0 : at > (int64_t)l->n - 1 ? (int64_t)l->n - 1 : at;
	memmove(&l->v[at + 1], &l->v[at], (l->n - 1 - (size_t)at) * sizeof(*l->v));
	l->v[at] = args->pos[1];
	*ret = tpl_none();
	return 0;
}

static TPL_METHOD(m_pop)
{
	struct tpl_list *l = self->u.list;
	int64_t at;
	int r = eng_tpl_arg_int(rt, &args->pos[0], "pop()", -1, &at);

	if (r < 0)
		return r;
	if (at < 0)
		at += (int64_t)l->n;
	if (at < 0 || at >= (int64_t)l->n)
		return eng_tpl_fail(rt, -EINVAL, l->n ? "pop index out of range" : "pop from empty list");
	*ret = l->v[at];
	l->n--;
	memmove(&l->v[at], &l->v[at + 1], (l->n - (size_t)at) * sizeof(*l->v));
	return 0;
}

static TPL_METHOD(m_clear)
{
	(void)rt, (void)args;
	self->u.list->n = 0;
	*ret = tpl_none();
	return 0;
}

static TPL_METHOD(m_reverse)
{
	struct tpl_list *l = self->u.list;

	(void)rt, (void)args;
	for (size_t i = 0; i < l->n / 2; i++) {
		struct tpl_value v = l->v[i];

		l->v[i] = l->v[l->n - 1 - i];
		l->v[l->n - 1 - i] = v;
	}
	*ret = tpl_none();
	return 0;
}

static TPL_METHOD(m_copy)
{
	const struct tpl_list *from = self->u.list;
	struct tpl_list *l;
	int r = eng_tpl_list_new(rt, from->kind, from->n, &l);

	(void)args;
	for (size_t i = 0; r == 0 && i < from->n; i++)
		r = eng_tpl_list_push(rt, l, from->v[i]);
	*ret = tpl_list_value(l);
	return r;
}

/* Position of args[0], and how often it is there. */
static int locate(struct tpl_rt *rt, const struct tpl_value *self, const struct tpl_value *item, int64_t *at,
                  int64_t *count)
{
	bool same;
	int r = 0;

	*at = -1;
	*count = 0;
	for (size_t i = 0; r == 0 && i < self->u.list->n; i++) {
		r = eng_tpl_equal(rt, &self->u.list->v[i], item, &same);
		if (r == 0 && same && (*count)++ == 0)
			*at = (int64_t)i;
	}
	return r;
}

static TPL_METHOD(m_index)
{
	int64_t at, count;
	int r = locate(rt, self, &args->pos[0], &at, &count);

	if (r == 0 && at < 0)
		return eng_tpl_fail(rt, -EINVAL, "the value is not in the list");
	*ret = tpl_int(at);
	return r;
}

static TPL_METHOD(m_count)
{
	int64_t at, count;
	int r = locate(rt, self, &args->pos[0], &at, &count);

	*ret = tpl_int(count);
	return r;
}

static TPL_METHOD(m_remove)
{
	struct tpl_value where[TPL_MAX_PARAMS] = { 0 }, ignored;
	const struct tpl_args pop = { .pos = where };
	int r = m_index(rt, self, args, &where[0]);

	if (r == 0)
		r = m_pop(rt, self, &pop, &ignored);
	*ret = tpl_none();
	return r;
}

const struct tpl_method eng_tpl_list_methods[] = {
	{ "index", "value", 1, m_index }, /* the first two are the tuple's too */
	{ "count", "value", 1, m_count },      { "append", "object", 1, m_append },
	{ "clear", "", 0, m_clear },           { "copy", "", 0, m_copy },
	{ "extend", "iterable", 1, m_extend }, { "insert", "index object", 2, m_insert },
	{ "pop", "index", 0, m_pop },          { "remove", "value", 1, m_remove },
	{ "reverse", "", 0, m_reverse },       { 0 },
};

/* ---- Dicts ------------------------------------------------------------------------------------------------ */

static int view(struct tpl_rt *rt, const struct tpl_dict *d, enum tpl_list_kind kind, struct tpl_value *ret)
{
	struct tpl_list *l;
	struct tpl_value v;
	int r = eng_tpl_list_new(rt, kind, d->n, &l);

	for (size_t i = 0; r == 0 && i < d->n; i++) {
		v = kind == TPL_KIND_KEYS ? d->keys[i] : d->vals[i];
		if (kind == TPL_KIND_ITEMS)
			r = eng_tpl_tuple2(rt, d->keys[i], d->vals[i], &v);
		if (r == 0)
			r = eng_tpl_list_push(rt, l, v);
	}
	*ret = tpl_list_value(l);
	return r;
}

static TPL_METHOD(m_keys)
{
	(void)args;
	return view(rt, self->u.dict, TPL_KIND_KEYS, ret);
}

static TPL_METHOD(m_values)
{
	(void)args;
	return view(rt, self->u.dict, TPL_KIND_VALUES, ret);
}

static TPL_METHOD(m_items)
{
	(void)args;
	return view(rt, self->u.dict, TPL_KIND_ITEMS, ret);
}

static TPL_METHOD(m_get)
{
	struct tpl_value *found;
	int r = eng_tpl_dict_get(rt, self->u.dict, &args->pos[0], &found);

	if (r < 0)
		return r;
	*ret = found ? *found : args->pos[1].type == TPL_MISSING ? tpl_none() : args->pos[1];
	return 0;
}

static TPL_METHOD(m_setdefault)
{
	int r = m_get(rt, self, args, ret);
	struct tpl_value *found;

	if (r == 0)
		r = eng_tpl_dict_get(rt, self->u.dict, &args->pos[0], &found);
	return r < 0 || found ? r : eng_tpl_dict_set(rt, self->u.dict, args->pos[0], *ret);
}

static TPL_METHOD(m_dict_pop)
{
	struct tpl_value *found;
	int r = eng_tpl_dict_get(rt, self->u.dict, &args->pos[0], &found);

	if (r < 0)
		return r;
	if (!found && args->pos[1].type == TPL_MISSING)
		return eng_tpl_fail(rt, -EINVAL, "pop(): the key is not in the dict");
	*ret = found ? *found : args->pos[1];
	return found ? eng_tpl_dict_remove(rt, self->u.dict, &args->pos[0]) : 0;
}

static TPL_METHOD(m_update)
{
	struct tpl_dict *d = self->u.dict;
	int r = 0;

	*ret = tpl_none();
	if (args->n_pos > 1 || (args->n_pos && args->pos[0].type != TPL_DICT))
		return eng_tpl_fail(rt, -EINVAL, "update() takes one dict and keywords");
	for (size_t i = 0; r == 0 && args->n_pos && i < args->pos[0].u.dict->n; i++)
		r = eng_tpl_dict_set(rt, d, args->pos[0].u.dict->keys[i], args->pos[0].u.dict->vals[i]);
	for (size_t i = 0; r == 0 && i < args->n_kw; i++)
		r = eng_tpl_dict_set(rt, d, args->kw_names[i], args->kw_vals[i]);
	return r;
}

static TPL_METHOD(m_dict_copy)
{
	struct tpl_dict *d;
	int r = eng_tpl_dict_new(rt, &d);

	(void)args;
	for (size_t i = 0; r == 0 && i < self->u.dict->n; i++)
		r = eng_tpl_dict_set(rt, d, self->u.dict->keys[i], self->u.dict->vals[i]);
	*ret = (struct tpl_value){ .type = TPL_DICT, .u.dict = d };
	return r;
}

static TPL_METHOD(m_dict_clear)
{
	(void)rt, (void)args;
	self->u.dict->n = 0;
	self->u.dict->index = NULL;
	*ret = tpl_none();
	return 0;
}

const struct tpl_method eng_tpl_dict_methods[] = {
	{ "clear", "", 0, m_dict_clear },
	{ "copy", "", 0, m_dict_copy },
	{ "get", "key default", 1, m_get },
	{ "items", "", 0, m_items },
	{ "keys", "", 0, m_keys },
	{ "pop", "key default", 1, m_dict_pop },
	{ "setdefault", "key default", 1, m_setdefault },
	{ "update", NULL, 0, m_update },
	{ "values", "", 0, m_values },
	{ 0 },
};

/* ---- Loops and cyclers ------------------------------------------------------------------------------------ */

static TPL_METHOD(m_cycle)
{
	if (!args->n_pos)
		return eng_tpl_fail(rt, -EINVAL, "no items for cycling given");
	*ret = args->pos[self->u.loop->index % args->n_pos];
	return 0;
}

static TPL_METHOD(m_changed)
{
	struct tpl_loop *loop = self->u.loop;
	struct tpl_list *l;
	struct tpl_value v;
	bool same = false;
	int r = eng_tpl_list_new(rt, TPL_KIND_TUPLE, args->n_pos, &l);

	for (size_t i = 0; r == 0 && i < args->n_pos; i++)
		r = eng_tpl_list_push(rt, l, args->pos[i]);
	if (r < 0)
		return r;
	v = tpl_list_value(l);
	if (loop->changed_seen)
		r = eng_tpl_equal(rt, &v, &loop->changed, &same);
	loop->changed_seen = true;
	loop->changed = v;
	*ret = tpl_bool(!same);
	return r;
}

const struct tpl_method eng_tpl_loop_methods[] = {
	{ "cycle", NULL, 0, m_cycle },
	{ "changed", NULL, 0, m_changed },
	{ 0 },
};

static TPL_METHOD(m_next)
{
	struct tpl_cycler *c = self->u.cycler;

	(void)rt, (void)args;
	*ret = c->items[c->pos];
	c->pos = (c->pos + 1) % c->n;
	return 0;
}

static TPL_METHOD(m_reset)
{
	(void)rt, (void)args;
	self->u.cycler->pos = 0;
	*ret = tpl_none();
	return 0;
}

const struct tpl_method eng_tpl_cycler_methods[] = {
	{ "next", "", 0, m_next },
	{ "reset", "", 0, m_reset },
	{ 0 },
};

/* ---- Lookup ------------------------------------------------------------------------------------------------ */

const struct tpl_method *eng_tpl_find_method(const struct tpl_value *v, const char *name, size_t len)
{
	const struct tpl_method *m = NULL;
	size_t n_max = SIZE_MAX;

	switch (v->type) {
	case TPL_STR:
		m = eng_tpl_text_methods;
		break;
	case TPL_DICT:
		m = eng_tpl_dict_methods;
		break;
	case TPL_LIST:
		if (v->u.list->kind <= TPL_KIND_RANGE)
			m = eng_tpl_list_methods;
		n_max = v->u.list->kind == TPL_KIND_LIST ? SIZE_MAX : 2;
		break;
	case TPL_LOOP:
		m = eng_tpl_loop_methods;
		break;
	case TPL_CYCLER:
		m = eng_tpl_cycler_methods;
		break;
	default:
		break;
	}
	for (; m && m->name && n_max > 0; m++, n_max--) {
		if (strlen(m->name) == len && memcmp(m->name, name, len) == 0)
			return m;
	}
	return NULL;
}
