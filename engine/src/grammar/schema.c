/* JSON Schema -> nodes.
 *
 * A value of the output has to satisfy a set of subschemas (a conj): what a property's schema says, what an allOf adds,
 * a pattern that matches the name. Every distinct set becomes one value node; sets refer to each other through
 * properties and items, so recursion through $ref closes by itself and each set is worked on once, from a list, without
 * recursion.
 *
 * Working on a set: $ref, allOf, anyOf and oneOf are multiplied out into cases (sets of "own" keywords); from each case
 * comes at most one alternative per JSON type (schema_scalar.c, schema_object.c, schema_array.c).
 *
 * oneOf is exact: two alternatives must exclude each other, which they do when the set of both has no value. That, like
 * every other question of what is possible, is answered at the end: a fixed point finds the values that have an
 * instance; what has none is cut off, so that no way leads into a trap.
 *
 * Keywords that are not supported are errors with their JSON pointer; unknown ones are ignored, as the standard says.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/json.h"
#include "grammar/schema_internal.h"

/* ---- Helpers ---- */

int gr_schema_grow(void *array, uint32_t n, uint32_t *cap, size_t size)
{
	uint32_t want = *cap ? *cap * 2 : 16;
	void *p;

	if (n < *cap)
		return 0;
	p = realloc(*(void **)array, want * size);
	if (!p)
		return -ENOMEM;
	*(void **)array = p;
	*cap = want;
	return 0;
}

int gr_schema_fail(struct schema *s, uint32_t raw, const char *key, int code, const char *why)
{
	return err_set(s->err, code, "schema: %s%s%s: %s", s->raws[raw].pointer, key ? "/" : "", key ? key : "", why);
}

const json_t *gr_schema_get(const struct schema *s, uint32_t raw, const char *key)
{
	return json_object_get(s->raws[raw].json, key);
}

/* ---- Subschemas ---- */

static uint32_t pointer_slot(const struct schema *s, const json_t *json)
{
	uint32_t i = (uint32_t)((uintptr_t)json / 16 * 0x9e3779b97f4a7c15u >> 20) & (s->raw_size - 1);

	while (s->raw_table[i] && s->raws[s->raw_table[i] - 1].json != json)
		i = (i + 1) & (s->raw_size - 1);
	return i;
}

static int grow_raw_table(struct schema *s)
{
	uint32_t *old = s->raw_table, size = s->raw_size ? s->raw_size * 2 : 256;

	if (s->n_raws * 2 < s->raw_size)
		return 0;
	s->raw_table = calloc(size, sizeof(*s->raw_table));
	if (!s->raw_table) {
		s->raw_table = old;
		return -ENOMEM;
	}
	s->raw_size = size;
	free(old);
	for (uint32_t i = 0; i < s->n_raws; i++)
		s->raw_table[pointer_slot(s, s->raws[i].json)] = i + 1;
	return 0;
}

static char *join_pointer(const char *parent, const char *key)
{
	struct base_buf out = BASE_BUF_INIT(4096);

	(void)base_buf_printf(&out, "%s%s%s", parent, key ? "/" : "", key ? key : "");
	if (base_buf_error(&out)) {
		base_buf_done(&out);
		return strdup("(a deep place)");
	}
	return base_buf_take(&out);
}

int gr_schema_raw(struct schema *s, const json_t *json, const char *parent, const char *key, uint32_t *ret)
{
	uint32_t slot;

	if (grow_raw_table(s) < 0)
		return err_set(s->err, -ENOMEM, "out of memory");
	slot = pointer_slot(s, json);
	if (s->raw_table[slot]) {
		*ret = s->raw_table[slot] - 1;
		return 0;
	}
	if (gr_schema_grow(&s->raws, s->n_raws, &s->cap_raws, sizeof(*s->raws)) < 0)
		return err_set(s->err, -ENOMEM, "out of memory");
	s->raws[s->n_raws] = (struct raw){ .json = json, .pointer = join_pointer(parent, key) };
	if (!s->raws[s->n_raws].pointer)
		return err_set(s->err, -ENOMEM, "out of memory");
	s->raw_table[slot] = ++s->n_raws;
	*ret = s->n_raws - 1;
	return gr_schema_check(s, *ret);
}

int gr_schema_made(struct schema *s, json_t *json, uint32_t *ret_raw)
{
	if (!json || json_array_append_new(s->made, json) < 0)
		return err_set(s->err, -ENOMEM, "out of memory");
	return gr_schema_raw(s, json, "#", "(const)", ret_raw);
}

/* ---- $ref ---- */

/* One step of a JSON pointer, decoded into name. */
static int pointer_step(const char *p, size_t n, char *name, size_t size)
{
	size_t k = 0;

	for (size_t i = 0; i < n; i++) {
		char c = p[i];
		unsigned byte;

		if (c == '~' && i + 1 < n && (p[i + 1] == '0' || p[i + 1] == '1')) {
			c = p[++i] == '0' ? '~' : '/';
		} else if (c == '%' && i + 2 < n && sscanf(p + i + 1, "%2x", &byte) == 1) {
			c = (char)byte;
			i += 2;
		}
		if (k + 1 >= size)
			return -E2BIG;
		name[k++] = c;
	}
	name[k] = '\0';
	return 0;
}

static const json_t *follow(const json_t *at, const char *pointer)
{
	char name[256];

	while (*pointer == '/' && at) {
		size_t n = strcspn(pointer + 1, "/");

		if (pointer_step(pointer + 1, n, name, sizeof(name)) < 0)
			return NULL;
		pointer += n + 1;
		if (json_is_array(at)) {
			char *end;
			unsigned long i = strtoul(name, &end, 10);

			at = *end || !*name ? NULL : json_array_get(at, i);
		} else {
			at = json_object_get(at, name);
		}
	}
	return *pointer ? NULL : at;
}

static const json_t *find_anchor(const json_t *at, const char *name, unsigned depth)
{
	const json_t *v, *hit;
	const char *key;
	size_t i;

	if (depth > 64)
		return NULL;
	if (json_is_object(at) && json_is_string(json_object_get(at, "$anchor")) &&
	    strcmp(json_string_value(json_object_get(at, "$anchor")), name) == 0)
		return at;
	json_object_foreach((json_t *)at, key, v)
	{
		hit = find_anchor(v, name, depth + 1);
		if (hit)
			return hit;
	}
	json_array_foreach((json_t *)at, i, v)
	{
		hit = find_anchor(v, name, depth + 1);
		if (hit)
			return hit;
	}
	return NULL;
}

int gr_schema_resolve(struct schema *s, uint32_t raw, const json_t *ref, uint32_t *ret)
{
	const char *text = json_string_value(ref), *id = json_string_value(json_object_get(s->root, "$id"));
	const json_t *target = NULL;
	size_t n = id ? strcspn(id, "#") : 0;

	if (id && strncmp(text, id, n) == 0 && (text[n] == '#' || text[n] == '\0'))
		text += n;
	if (*text == '\0' || strcmp(text, "#") == 0)
		target = s->root;
	else if (text[0] == '#' && text[1] == '/')
		target = follow(s->root, text + 1);
	else if (text[0] == '#')
		target = find_anchor(s->root, text + 1, 0);
	else
		return gr_schema_fail(s, raw, "$ref", -EINVAL,
		                      "only references within the schema (\"#...\") are supported");
	if (!target)
		return gr_schema_fail(s, raw, "$ref", -EINVAL, "there is nothing in that place");
	return gr_schema_raw(s, target, text, NULL, ret);
}

/* ---- Sets of subschemas ---- */

static int compare_u32(const void *a, const void *b)
{
	uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;

	return x < y ? -1 : x > y;
}

static uint32_t unique(uint32_t *parts, uint32_t n)
{
	uint32_t k = 0;

	if (n > 0)
		qsort(parts, n, sizeof(*parts), compare_u32);
	for (uint32_t i = 0; i < n; i++) {
		if (k == 0 || parts[i] != parts[k - 1])
			parts[k++] = parts[i];
	}
	return k;
}

static uint32_t conj_slot(const struct schema *s, const uint32_t *parts, uint32_t n)
{
	uint64_t h = 0x9e3779b97f4a7c15u;
	uint32_t i;

	for (i = 0; i < n; i++)
		h = (h ^ parts[i]) * 0xff51afd7ed558ccdu, h ^= h >> 32;
	for (i = (uint32_t)h & (s->conj_size - 1); s->conj_table[i]; i = (i + 1) & (s->conj_size - 1)) {
		const struct conj *c = &s->conjs[s->conj_table[i] - 1];

		if (c->n == n && (n == 0 || memcmp(c->parts, parts, n * sizeof(*parts)) == 0))
			break;
	}
	return i;
}

static int grow_conj_table(struct schema *s)
{
	uint32_t *old = s->conj_table, size = s->conj_size ? s->conj_size * 2 : 256;

	if (s->n_conjs * 2 < s->conj_size)
		return 0;
	s->conj_table = calloc(size, sizeof(*s->conj_table));
	if (!s->conj_table) {
		s->conj_table = old;
		return -ENOMEM;
	}
	s->conj_size = size;
	free(old);
	for (uint32_t i = 0; i < s->n_conjs; i++)
		s->conj_table[conj_slot(s, s->conjs[i].parts, s->conjs[i].n)] = i + 1;
	return 0;
}

int gr_schema_value(struct schema *s, uint32_t *parts, uint32_t n, uint32_t *ret)
{
	uint32_t k = 0, slot;
	struct conj *c;
	int r;

	for (uint32_t i = 0; i < n; i++) {
		const json_t *json = s->raws[parts[i] >> 1].json;

		if (json_is_false(json)) {
			*ret = GR_NONE;
			return 0;
		}
		if (!json_is_true(json))
			parts[k++] = parts[i];
	}
	n = unique(parts, k);
	if (n > SCHEMA_MAX_ATOMS)
		return err_set(s->err, -E2BIG, "schema: more than %d subschemas meet in one value", SCHEMA_MAX_ATOMS);
	s->work += n + 1;
	if (grow_conj_table(s) < 0)
		return err_set(s->err, -ENOMEM, "out of memory");
	slot = conj_slot(s, parts, n);
	if (s->conj_table[slot]) {
		*ret = s->conjs[s->conj_table[slot] - 1].value;
		return 0;
	}
	if (gr_schema_grow(&s->conjs, s->n_conjs, &s->cap_conjs, sizeof(*s->conjs)) < 0)
		return err_set(s->err, -ENOMEM, "out of memory");
	c = &s->conjs[s->n_conjs];
	*c = (struct conj){ .n = n, .parts = malloc((n + 1) * sizeof(*parts)) };
	if (!c->parts)
		return err_set(s->err, -ENOMEM, "out of memory");
	if (n > 0)
		memcpy(c->parts, parts, n * sizeof(*parts));
	s->n_conjs++;
	r = gr_grammar_node(s->g, NODE_VALUE, &c->value);
	if (r < 0)
		return err_set(s->err, r, "schema: too large");
	s->conj_table[slot] = s->n_conjs;
	*ret = c->value;
	return 0;
}

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

static int too_many(struct schema *s, const char *what)
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
		return too_many(s, "subschemas that meet in one value");
	list[(*n)++] = x;
	return 0;
}

static int member(struct schema *s, uint32_t raw, const char *key, size_t i, uint32_t *ret)
{
	char where[64];

	(void)snprintf(where, sizeof(where), "%s/%zu", key, i);
	return gr_schema_raw(s, json_array_get(gr_schema_get(s, raw, key), i), s->raws[raw].pointer, where, ret);
}

static int add_overlap(struct schema *s, uint32_t raw, uint32_t i, uint32_t j)
{
	uint32_t parts[3] = { raw << 1 | 1, 0, 0 }, value = 0;
	int r = member(s, raw, "oneOf", i, &parts[1]);

	if (r == 0)
		r = member(s, raw, "oneOf", j, &parts[2]);
	parts[1] <<= 1;
	parts[2] <<= 1;
	if (r == 0)
		r = gr_schema_value(s, parts, 3, &value);
	if (r < 0 || value == GR_NONE)
		return r;
	if (gr_schema_grow(&s->overlaps, s->n_overlaps, &s->cap_overlaps, sizeof(*s->overlaps)) < 0)
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
			return too_many(s, "anyOf and oneOf that meet in one value");
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
			return too_many(s, "it multiplies out to too much");
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
		return too_many(c->s, "anyOf and oneOf that meet in one value");
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

/* const and enum of one case: the values that satisfy all of it. */
static int listed_values(struct schema *s, const struct state *st, const json_t *list, json_t *fits)
{
	const json_t *v;
	size_t i;

	json_array_foreach((json_t *)list, i, v)
	{
		int ok = 1;

		for (uint32_t k = 0; k < st->n_atoms && ok == 1; k++)
			ok = gr_schema_valid(s, st->atoms[k], v, true, 0);
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
		return too_many(s, "alternatives of one value");
	for (uint32_t i = 0; i < st->n_atoms; i++) {
		const json_t *list = gr_schema_get(s, st->atoms[i], "enum"),
		             *one = gr_schema_get(s, st->atoms[i], "const");
		json_t *fits, *own;

		if (!list && !one)
			continue;
		fits = json_array();
		own = list ? json_incref((json_t *)list) : json_pack("[O]", one);
		r = fits && own ? listed_values(s, st, own, fits) : err_set(s->err, -ENOMEM, "out of memory");
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

static int work_on(struct schema *s, uint32_t i)
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

/* ---- What is possible ---- */

static bool is_possible(const uint8_t *possible, uint32_t node)
{
	return node != GR_NONE && possible[node];
}

static bool object_possible(const struct object *o, const uint8_t *possible)
{
	uint64_t n_can = 0, n_must = 0;

	for (uint32_t i = 0; i < o->n_props; i++) {
		bool can = is_possible(possible, o->props[i].value);

		n_can += can;
		n_must += o->props[i].is_required;
		if (o->props[i].is_required && !can)
			return false;
	}
	for (uint32_t m = 0; m < 1u << o->n_patterns; m++) {
		if (is_possible(possible, o->other[m]))
			n_can = UINT32_MAX;
	}
	return n_must <= o->max && o->min <= o->max && o->min <= n_can;
}

static bool array_possible(const struct array *a, const uint8_t *possible)
{
	if (a->min > a->max)
		return false;
	for (uint32_t i = 0; i < a->min && i <= a->n_prefix; i++) {
		if (!is_possible(possible, i < a->n_prefix ? a->prefix[i] : a->items))
			return false;
	}
	return true;
}

static bool node_possible(struct eng_grammar *g, uint32_t i, const uint8_t *possible)
{
	struct node *n = &g->nodes[i];

	switch (n->kind) {
	case NODE_VALUE:
		for (uint32_t k = 0; k < n->value.n; k++) {
			if (possible[n->value.alternatives[k]])
				return true;
		}
		return false;
	case NODE_LEX:
		return gr_lex_at_begin(&n->lex) != LEX_DEAD;
	case NODE_OBJECT:
		return object_possible(&n->object, possible);
	case NODE_ARRAY:
		return array_possible(&n->array, possible);
	default:
		return true;
	}
}

static void forbid_impossible(struct node *n, const uint8_t *possible)
{
	uint32_t k = 0;

	switch (n->kind) {
	case NODE_VALUE:
		for (uint32_t i = 0; i < n->value.n; i++) {
			if (possible[n->value.alternatives[i]])
				n->value.alternatives[k++] = n->value.alternatives[i];
		}
		n->value.n = k;
		break;
	case NODE_OBJECT:
		for (uint32_t i = 0; i < n->object.n_props; i++) {
			if (!is_possible(possible, n->object.props[i].value))
				n->object.props[i].value = GR_NONE;
		}
		for (uint32_t m = 0; m < 1u << n->object.n_patterns; m++) {
			if (!is_possible(possible, n->object.other[m]))
				n->object.other[m] = GR_NONE;
		}
		break;
	case NODE_ARRAY:
		for (uint32_t i = 0; i < n->array.n_prefix; i++) {
			if (!is_possible(possible, n->array.prefix[i]))
				n->array.prefix[i] = GR_NONE;
		}
		if (!is_possible(possible, n->array.items))
			n->array.items = GR_NONE;
		break;
	default:
		break;
	}
}

/* A property that demands an impossible one is impossible itself; over chains of them. */
static void forbid_dependents(struct object *o)
{
	bool changed = true;

	while (changed) {
		changed = false;
		for (uint32_t i = 0; i < o->n_dependencies; i++) {
			const struct dependency *d = &o->dependencies[i];

			for (uint32_t k = 0; k < d->n_needed && o->props[d->given].value != GR_NONE; k++) {
				if (o->props[d->needed[k]].value == GR_NONE) {
					o->props[d->given].value = GR_NONE;
					changed = true;
				}
			}
		}
	}
}

static int cut_impossible(struct schema *s, uint32_t root)
{
	struct eng_grammar *g = s->g;
	uint8_t *possible = calloc(g->n_nodes, 1);
	bool changed = true;
	int r = 0;

	if (!possible)
		return err_set(s->err, -ENOMEM, "out of memory");
	while (changed) {
		changed = false;
		for (uint32_t i = g->n_nodes; i-- > 0;) {
			if (!possible[i] && node_possible(g, i, possible))
				possible[i] = changed = true;
		}
	}
	for (uint32_t i = 0; i < g->n_nodes; i++)
		forbid_impossible(&g->nodes[i], possible);
	for (uint32_t i = 0; i < g->n_nodes; i++) {
		if (g->nodes[i].kind == NODE_OBJECT)
			forbid_dependents(&g->nodes[i].object);
	}
	if (!is_possible(possible, root))
		r = err_set(s->err, -EINVAL, "schema: no value can satisfy it");
	for (uint32_t i = 0; i < s->n_overlaps && r == 0; i++) {
		const struct overlap *o = &s->overlaps[i];

		if (possible[o->value])
			r = err_set(
			        s->err, -EINVAL,
			        "schema: %s/oneOf: alternatives %u and %u can both hold, which cannot be kept apart "
			        "while the text is written; use anyOf, or make them exclude each other",
			        s->raws[o->raw].pointer, o->i, o->j);
	}
	free(possible);
	return r;
}

/* ---- The whole ---- */

static void schema_done(struct schema *s)
{
	for (uint32_t i = 0; i < s->n_raws; i++)
		free(s->raws[i].pointer);
	for (uint32_t i = 0; i < s->n_conjs; i++)
		free(s->conjs[i].parts);
	for (uint32_t i = 0; i < s->n_pending; i++)
		gr_dfa_builder_done(&s->pending[i].builder);
	for (uint32_t i = 0; i < s->n_memos; i++)
		free(s->memos[i].key);
	free(s->raws);
	free(s->raw_table);
	free(s->conjs);
	free(s->conj_table);
	free(s->overlaps);
	free(s->pending);
	free(s->memos);
	json_decref(s->made);
	json_decref(s->root);
}

static int compile(struct schema *s, uint32_t *ret_root)
{
	uint32_t raw = 0, part;
	int r;

	r = gr_grammar_node(s->g, NODE_LEX, &s->g->free_string);
	if (r < 0)
		return r;
	s->g->nodes[s->g->free_string].lex = (struct lex){ .is_string = true, .max = UINT32_MAX };
	if ((r = gr_schema_raw(s, s->root, "#", NULL, &raw)) < 0)
		return r;
	part = raw << 1;
	r = gr_schema_value(s, &part, 1, ret_root);
	while (r == 0 && s->n_done < s->n_conjs) {
		r = work_on(s, s->n_done++);
		if (r == 0 && s->work > SCHEMA_MAX_WORK)
			r = too_many(s, "it multiplies out to too much");
	}
	if (r == 0)
		r = cut_impossible(s, *ret_root);
	for (uint32_t i = 0; i < s->n_pending && r == 0; i++)
		r = gr_schema_finish_names(s, &s->pending[i]);
	return r;
}

int gr_schema_compile(struct eng_grammar *g, const char *text, size_t len, struct err *err)
{
	struct schema s = { .g = g, .err = err, .made = json_array() };
	uint32_t root = 0;
	int r = base_json_parse("schema", text, len, &s.root, err);

	if (r == 0 && !json_is_object(s.root) && !json_is_boolean(s.root))
		r = err_set(err, -EINVAL, "schema: expected an object, got %s", base_json_type_name(s.root));
	if (r == 0)
		r = compile(&s, &root);
	if (r == 0) {
		r = gr_grammar_node(g, NODE_DOCUMENT, &g->root);
		if (r == 0)
			g->nodes[g->root].document = root;
	}
	schema_done(&s);
	return r == -EBADMSG ? -EINVAL : r;
}
