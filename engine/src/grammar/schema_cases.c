/* Working on one set of subschemas: the cases it multiplies out into, and the alternatives that each case gives. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/json.h"
#include "grammar/schema_internal.h"

/* ---- Cases ---- */

struct cases {
	struct schema *s;
	uint32_t value;
	uint32_t alone; /* the only subschema of the value: its unevaluatedProperties can be told; or GR_NONE */
	unsigned n;
};

/* What is still to be multiplied out in one case. */
struct state {
	uint32_t todo[SCHEMA_MAX_ATOMS], n_todo;
	uint32_t atoms[SCHEMA_MAX_ATOMS], n_atoms; /* raws, own keywords */
	uint32_t done[SCHEMA_MAX_ATOMS], n_done;   /* raws that were opened */
	struct {
		uint32_t raw;
		const char *key;
	} choices[SCHEMA_MAX_ATOMS];
	uint32_t n_choices;
};

int gr_schema_too_many(struct schema *s, const char *what)
{
	return err_set(s->err, -E2BIG, "schema: too large: %s", what);
}

static bool holds(const uint32_t *list, uint32_t n, uint32_t x)
{
	for (uint32_t i = 0; i < n; i++) {
		if (list[i] == x)
			return true;
	}
	return false;
}

static int put(struct schema *s, uint32_t *list, uint32_t *n, uint32_t x)
{
	if (holds(list, *n, x))
		return 0;
	if (*n == SCHEMA_MAX_ATOMS)
		return gr_schema_too_many(s, "subschemas that meet in one value");
	list[(*n)++] = x;
	return 0;
}

static int member(struct schema *s, uint32_t raw, const char *key, size_t i, uint32_t *ret)
{
	char where[64];

	(void)snprintf(where, sizeof(where), "%s/%zu", key, i);
	return gr_schema_raw(s, json_array_get(gr_schema_get(s, raw, key), i), s->raws[raw].pointer, where, ret);
}

/* The strings that a property is one of, by const or enum; NULL: not so. */
static const json_t *listed_strings(const json_t *property)
{
	const json_t *one = json_object_get(property, "const"), *list = json_object_get(property, "enum");

	return json_is_string(one) ? one : list;
}

static bool lists_string(const json_t *list, const json_t *text)
{
	const json_t *v;
	size_t i;

	json_array_foreach((json_t *)list, i, v)
	{
		if (json_equal(v, text))
			return true;
	}
	return json_is_string(list) && json_equal(list, text);
}

static bool exclude_each_other(const json_t *a, const json_t *b)
{
	const json_t *v;
	size_t i;

	if (json_is_string(a))
		return !lists_string(b, a);
	if (json_is_string(b))
		return !lists_string(a, b);
	json_array_foreach((json_t *)a, i, v)
	{
		if (!json_is_string(v) || lists_string(b, v))
			return false;
	}
	return true;
}

/* The usual case, seen without merging: both require a property that tells them apart by a string. */
static bool told_apart(struct schema *s, uint32_t a, uint32_t b)
{
	const json_t *name, *x, *y;
	size_t i;

	if (gr_schema_types(gr_schema_get(s, a, "type")) != TYPE_OBJECT ||
	    gr_schema_types(gr_schema_get(s, b, "type")) != TYPE_OBJECT)
		return false;
	json_array_foreach((json_t *)gr_schema_get(s, a, "required"), i, name)
	{
		if (!lists_string(gr_schema_get(s, b, "required"), name))
			continue;
		x = listed_strings(json_object_get(gr_schema_get(s, a, "properties"), json_string_value(name)));
		y = listed_strings(json_object_get(gr_schema_get(s, b, "properties"), json_string_value(name)));
		if (x && y && exclude_each_other(x, y))
			return true;
	}
	return false;
}

static int follow_ref(struct schema *s, uint32_t *raw)
{
	int r = 0;

	for (int i = 0; i < 8 && r == 0 && gr_schema_get(s, *raw, "$ref"); i++)
		r = gr_schema_resolve(s, *raw, gr_schema_get(s, *raw, "$ref"), raw);
	return r;
}

static int add_overlap(struct schema *s, uint32_t raw, uint32_t i, uint32_t j)
{
	uint32_t parts[3] = { raw << 1 | 1, 0, 0 }, value = 0;
	int r = member(s, raw, "oneOf", i, &parts[1]);

	if (r == 0)
		r = member(s, raw, "oneOf", j, &parts[2]);
	if (r == 0) {
		uint32_t a = parts[1], b = parts[2];

		if ((r = follow_ref(s, &a)) == 0 && (r = follow_ref(s, &b)) == 0 && told_apart(s, a, b))
			return 0;
	}
	s->work += 16;
	parts[1] <<= 1;
	parts[2] <<= 1;
	if (r == 0)
		r = gr_schema_value(s, parts, 3, &value);
	if (r < 0 || value == GR_NONE)
		return r;
	if (gr_grow(&s->overlaps, s->n_overlaps, &s->cap_overlaps, sizeof(*s->overlaps)) < 0)
		return err_set(s->err, -ENOMEM, "out of memory");
	s->overlaps[s->n_overlaps++] = (struct overlap){ value, raw, i, j };
	return 0;
}

/* oneOf: [{"required": ["a"]}, {"required": ["b"]}]: exactly one of the names is there. */
static bool is_one_name(const json_t *schema)
{
	return json_object_size(schema) == 1 && json_array_size(json_object_get(schema, "required")) == 1;
}

static bool is_choice_of_names(const json_t *list)
{
	const json_t *v;
	size_t i;

	json_array_foreach((json_t *)list, i, v)
	{
		if (!is_one_name(v))
			return false;
	}
	return json_array_size(list) > 0;
}

/* Alternative i of such a choice, with the other names forbidden. */
static int exclusive_name(struct schema *s, uint32_t raw, size_t i, uint32_t *ret)
{
	json_t *out = json_object(), *others = json_object();
	const json_t *list = gr_schema_get(s, raw, "oneOf"), *v, *name;
	const json_t *own = json_array_get(json_object_get(json_array_get(list, i), "required"), 0);
	size_t k;

	json_array_foreach((json_t *)list, k, v)
	{
		name = json_array_get(json_object_get(v, "required"), 0);
		if (k != i && json_is_string(name) && !json_equal(name, own))
			(void)json_object_set_new(others, json_string_value(name), json_false());
	}
	(void)json_object_set_new(out, "type", json_string("object"));
	(void)json_object_set(out, "required", json_object_get(json_array_get(list, i), "required"));
	(void)json_object_set_new(out, "properties", others);
	return gr_schema_made(s, out, ret);
}

/* Each pair of alternatives must exclude each other: asked at the end. */
static int add_overlaps(struct schema *s, uint32_t raw)
{
	size_t n = json_array_size(gr_schema_get(s, raw, "oneOf"));
	int r = 0;

	if (s->raws[raw].one_of_checked || is_choice_of_names(gr_schema_get(s, raw, "oneOf")))
		return 0;
	s->raws[raw].one_of_checked = true;
	if (n > 64)
		return gr_schema_fail(s, raw, "oneOf", -E2BIG, "more than 64 alternatives");
	for (uint32_t i = 0; i < n && r == 0; i++) {
		for (uint32_t j = i + 1; j < n && r == 0; j++)
			r = add_overlap(s, raw, i, j);
	}
	return r;
}

static int open_raw(struct schema *s, struct state *st, uint32_t raw)
{
	const json_t *ref = gr_schema_get(s, raw, "$ref"), *all = gr_schema_get(s, raw, "allOf");
	static const char *const choices[] = { "anyOf", "oneOf" };
	uint32_t target = 0;
	int r = put(s, st->atoms, &st->n_atoms, raw);

	if (r == 0 && ref) {
		r = gr_schema_resolve(s, raw, ref, &target);
		if (r == 0)
			r = put(s, st->todo, &st->n_todo, target << 1);
	}
	for (size_t i = 0; i < json_array_size(all) && r == 0; i++) {
		r = member(s, raw, "allOf", i, &target);
		if (r == 0)
			r = put(s, st->todo, &st->n_todo, target << 1);
	}
	for (int k = 0; k < 2 && r == 0; k++) {
		if (!gr_schema_get(s, raw, choices[k]))
			continue;
		if (st->n_choices == SCHEMA_MAX_ATOMS)
			return gr_schema_too_many(s, "anyOf and oneOf that meet in one value");
		st->choices[st->n_choices].raw = raw;
		st->choices[st->n_choices++].key = choices[k];
		if (k == 1)
			r = add_overlaps(s, raw);
	}
	return r;
}

static int finish_case(struct cases *c, struct state *st);

/* 0: go on, 1: nothing is possible in this case */
static int open_all(struct schema *s, struct state *st)
{
	int r = 0;

	while (st->n_todo > 0 && r == 0) {
		uint32_t part = st->todo[--st->n_todo], raw = part >> 1;
		const json_t *json = s->raws[raw].json;

		if (++s->work > SCHEMA_MAX_WORK)
			return gr_schema_too_many(s, "it multiplies out to too much");
		if (json_is_false(json))
			return 1;
		if (json_is_true(json))
			continue;
		if (part & 1) {
			r = put(s, st->atoms, &st->n_atoms, raw);
		} else if (!holds(st->done, st->n_done, raw)) {
			r = put(s, st->done, &st->n_done, raw);
			if (r == 0)
				r = open_raw(s, st, raw);
		}
	}
	return r;
}

/* The recursion is as deep as choices meet in one value, each a state of some kilobytes. */
static int expand(struct cases *c, struct state *st, unsigned depth)
{
	uint32_t raw, target = 0;
	struct state *next;
	const char *key;
	size_t n;
	int r = open_all(c->s, st);

	if (r != 0)
		return r < 0 ? r : 0;
	if (st->n_choices == 0)
		return finish_case(c, st);
	if (depth > 32)
		return gr_schema_too_many(c->s, "anyOf and oneOf that meet in one value");
	raw = st->choices[--st->n_choices].raw;
	key = st->choices[st->n_choices].key;
	n = json_array_size(gr_schema_get(c->s, raw, key));
	next = malloc(sizeof(*next));
	if (!next)
		return err_set(c->s->err, -ENOMEM, "out of memory");
	for (size_t i = 0; i < n && r == 0; i++) {
		*next = *st;
		if (strcmp(key, "oneOf") == 0 && is_choice_of_names(gr_schema_get(c->s, raw, key)))
			r = exclusive_name(c->s, raw, i, &target);
		else
			r = member(c->s, raw, key, i, &target);
		if (r == 0)
			r = put(c->s, next->todo, &next->n_todo, target << 1);
		if (r == 0)
			r = expand(c, next, depth + 1);
	}
	free(next);
	return r;
}

/* ---- One case ---- */

static int add_alternative(struct schema *s, uint32_t value, uint32_t node)
{
	struct node *v = &s->g->nodes[value];
	uint32_t *list;

	if (node == GR_NONE)
		return 0;
	list = realloc(v->value.alternatives, ((size_t)v->value.n + 1) * sizeof(*list));
	if (!list)
		return err_set(s->err, -ENOMEM, "out of memory");
	list[v->value.n++] = node;
	v->value.alternatives = list;
	return 0;
}

/* const and enum of one case, listed by the atom `source`: the values that satisfy all of it. */
static int listed_values(struct schema *s, const struct state *st, uint32_t source, const json_t *list, json_t *fits)
{
	bool both = gr_schema_get(s, st->atoms[source], "enum") && gr_schema_get(s, st->atoms[source], "const");
	const json_t *v;
	size_t i;

	json_array_foreach((json_t *)list, i, v)
	{
		int ok = 1;

		for (uint32_t k = 0; k < st->n_atoms && ok == 1; k++)
			ok = gr_schema_valid(s, st->atoms[k], v,
			                     SCHEMA_OWN | (k == source && !both ? SCHEMA_UNLISTED : 0), 0);
		if (ok < 0)
			return ok;
		if (ok && json_array_append(fits, (json_t *)v) < 0)
			return err_set(s->err, -ENOMEM, "out of memory");
	}
	return 0;
}

/* An object or array that is given as a whole becomes a schema of its own. */
static json_t *schema_of_value(const json_t *v)
{
	json_t *out = json_object(), *inner = json_is_array(v) ? json_array() : json_object(), *names = json_array();
	const json_t *e;
	const char *key;
	size_t i;

	json_array_foreach((json_t *)v, i, e)(void) json_array_append_new(inner, json_pack("{s:O}", "const", e));
	json_object_foreach((json_t *)v, key, e)
	{
		(void)json_object_set_new(inner, key, json_pack("{s:O}", "const", e));
		(void)json_array_append_new(names, json_string(key));
	}
	(void)json_object_set_new(out, "type", json_string(json_is_array(v) ? "array" : "object"));
	if (json_is_object(v) || json_array_size(v) > 0)
		(void)json_object_set(out, json_is_array(v) ? "prefixItems" : "properties", inner);
	json_decref(inner);
	(void)json_object_set_new(out, json_is_array(v) ? "items" : "additionalProperties", json_false());
	if (json_is_array(v))
		(void)json_object_set_new(out, "minItems", json_integer((json_int_t)json_array_size(v)));
	else
		(void)json_object_set(out, "required", names);
	json_decref(names);
	return out;
}

static int add_listed(struct schema *s, uint32_t value, const json_t *fits)
{
	size_t n = json_array_size(fits), n_strings = 0, n_scalars = 0;
	const json_t **strings = calloc(2 * n + 1, sizeof(*strings)), **scalars = strings ? strings + n : NULL, *v;
	uint32_t node = 0, raw = 0, part;
	size_t i;
	int r = strings ? 0 : err_set(s->err, -ENOMEM, "out of memory");

	json_array_foreach((json_t *)fits, i, v)
	{
		if (r < 0)
			break;
		if (json_is_string(v)) {
			strings[n_strings++] = v;
		} else if (!json_is_object(v) && !json_is_array(v)) {
			scalars[n_scalars++] = v;
		} else {
			r = gr_schema_made(s, schema_of_value(v), &raw);
			part = raw << 1;
			if (r == 0)
				r = gr_schema_value(s, &part, 1, &node);
			if (r == 0)
				r = add_alternative(s, value, node);
		}
	}
	if (r == 0 && n_strings > 0 && (r = gr_schema_strings(s, strings, n_strings, &node)) == 0)
		r = add_alternative(s, value, node);
	if (r == 0 && n_scalars > 0 && (r = gr_schema_scalars(s, scalars, n_scalars, &node)) == 0)
		r = add_alternative(s, value, node);
	free(strings);
	return r;
}

/* What `not` says of types; strings, patterns and properties are seen to where they matter. A keyword that speaks of
 * one type holds for all others, so that its negation leaves only that type. */
static uint32_t excluded_types(const json_t *no)
{
	const json_t *type = json_object_get(no, "type"), *v;
	uint32_t out = type && json_object_size(no) == 1 ? gr_schema_types(type) : 0;
	size_t i;

	if (json_is_true(no) || (json_is_object(no) && json_object_size(no) == 0))
		return TYPE_ANY;
	if (!type && json_object_get(no, "required"))
		out |= TYPE_ANY & ~(uint32_t)TYPE_OBJECT;
	if (!type && json_object_get(no, "pattern"))
		out |= TYPE_ANY & ~(uint32_t)TYPE_STRING;
	if (json_is_null(json_object_get(no, "const")))
		out |= TYPE_NULL;
	json_array_foreach(json_object_get(no, "enum"), i, v)
	{
		if (json_is_null(v))
			out |= TYPE_NULL;
	}
	return out;
}

/* The types that all of a case allow. */
static uint32_t case_types(struct schema *s, const struct state *st)
{
	uint32_t types = TYPE_ANY;

	for (uint32_t i = 0; i < st->n_atoms; i++) {
		const json_t *type = gr_schema_get(s, st->atoms[i], "type");
		uint32_t t = type ? gr_schema_types(type) : TYPE_ANY;

		if (type && json_is_true(gr_schema_get(s, st->atoms[i], "nullable")))
			t |= TYPE_NULL;
		types &= t & ~excluded_types(gr_schema_get(s, st->atoms[i], "not"));
	}
	return types;
}

static int add_type(struct cases *c, const struct state *st, uint32_t types, uint32_t type)
{
	struct schema *s = c->s;
	uint32_t node = GR_NONE;
	int r = 0;

	switch (type) {
	case TYPE_NULL:
		r = gr_schema_plain(s, "null", &node);
		break;
	case TYPE_BOOLEAN:
		r = gr_schema_plain(s, "true|false", &node);
		break;
	case TYPE_STRING:
		r = gr_schema_string(s, st->atoms, st->n_atoms, &node);
		break;
	case TYPE_INTEGER:
		r = gr_schema_number(s, st->atoms, st->n_atoms, !(types & TYPE_FRACTION), &node);
		break;
	case TYPE_OBJECT:
		r = gr_schema_object(s, st->atoms, st->n_atoms, c->alone, &node);
		break;
	case TYPE_ARRAY:
		r = gr_schema_array(s, st->atoms, st->n_atoms, &node);
		break;
	default:
		break;
	}
	return r < 0 ? r : add_alternative(s, c->value, node);
}

static int finish_case(struct cases *c, struct state *st)
{
	struct schema *s = c->s;
	uint32_t types = case_types(s, st);
	int r = 0;

	if (++c->n > SCHEMA_MAX_CASES)
		return gr_schema_too_many(s, "alternatives of one value");
	for (uint32_t i = 0; i < st->n_atoms; i++) {
		const json_t *list = gr_schema_get(s, st->atoms[i], "enum"),
		             *one = gr_schema_get(s, st->atoms[i], "const");
		json_t *fits, *own;

		if (!list && !one)
			continue;
		fits = json_array();
		own = list ? json_incref((json_t *)list) : json_pack("[O]", one);
		r = fits && own ? listed_values(s, st, i, own, fits) : err_set(s->err, -ENOMEM, "out of memory");
		if (r == 0)
			r = add_listed(s, c->value, fits);
		json_decref(own);
		json_decref(fits);
		return r;
	}
	for (uint32_t type = TYPE_NULL; type <= TYPE_INTEGER && r == 0; type <<= 1) {
		if (types & type)
			r = add_type(c, st, types, type);
	}
	return r;
}

int gr_schema_work_on(struct schema *s, uint32_t i)
{
	const struct conj conj = s->conjs[i];
	struct cases c = { .s = s, .value = conj.value, .alone = conj.n == 1 ? conj.parts[0] >> 1 : GR_NONE };
	struct state *st = calloc(1, sizeof(*st));
	int r;

	if (!st)
		return err_set(s->err, -ENOMEM, "out of memory");
	memcpy(st->todo, conj.parts, conj.n * sizeof(*st->todo));
	st->n_todo = conj.n;
	r = expand(&c, st, 0);
	free(st);
	return r;
}
