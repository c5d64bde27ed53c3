/* Objects of a schema. The keywords of all subschemas that meet in one case are merged by name: a property has to
 * satisfy what each of them says of it (its own schema, that of patterns it matches, else additionalProperties). */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "grammar/schema_internal.h"

struct name_pattern {
	uint32_t raw; /* GR_NONE: of propertyNames, all names must match */
	const char *regex;
	const json_t *schema;
};

struct merge {
	struct schema *s;
	const uint32_t *atoms;
	uint32_t n;
	bool is_closed; /* unevaluatedProperties: false */
	json_t *names;  /* every name that is mentioned: true */
	json_t *required;
	struct name_pattern patterns[GR_MAX_PATTERNS];
	uint32_t n_patterns;
	struct object o;
	struct dfa_builder builder;
};

/* "properties/a~1b" */
static void name_path(char *out, size_t size, const char *keyword, const char *name)
{
	size_t n = (size_t)snprintf(out, size, "%s/", keyword);

	for (; *name && n + 3 < size; name++) {
		if (*name == '~' || *name == '/') {
			out[n++] = '~';
			out[n++] = *name == '~' ? '0' : '1';
		} else {
			out[n++] = *name;
		}
	}
	out[n] = '\0';
}

static int sub(struct merge *m, uint32_t raw, const char *keyword, const char *name, const json_t *json,
               uint32_t *parts, uint32_t *n)
{
	char path[160];
	uint32_t id = 0;
	int r;

	if (*n == 2 * SCHEMA_MAX_ATOMS)
		return gr_schema_fail(m->s, raw, keyword, -E2BIG, "too many subschemas meet in one property");
	if (name)
		name_path(path, sizeof(path), keyword, name);
	r = gr_schema_raw(m->s, json, m->s->raws[raw].pointer, name ? path : keyword, &id);
	parts[(*n)++] = id << 1;
	return r;
}

/* ---- What is mentioned ---- */

static int mention(struct merge *m, json_t *set, const json_t *list)
{
	const json_t *v;
	size_t i;

	json_array_foreach((json_t *)list, i, v)
	{
		if (strlen(json_string_value(v)) != json_string_length(v))
			return err_set(m->s->err, -EINVAL, "schema: a property name holds a zero byte");
		if (json_object_set_new(m->names, json_string_value(v), json_true()) < 0 ||
		    (set && json_object_set_new(set, json_string_value(v), json_true()) < 0))
			return err_set(m->s->err, -ENOMEM, "out of memory");
	}
	return 0;
}

static int mention_keys(struct merge *m, const json_t *map, bool with_lists)
{
	const json_t *v;
	const char *key;
	int r = 0;

	json_object_foreach((json_t *)map, key, v)
	{
		if (json_object_set_new(m->names, key, json_true()) < 0)
			return err_set(m->s->err, -ENOMEM, "out of memory");
		if (r == 0 && with_lists)
			r = mention(m, NULL, v);
	}
	return r;
}

static int add_pattern(struct merge *m, uint32_t raw, uint32_t owner, const char *keyword, const char *regex,
                       bool is_search, const json_t *schema)
{
	int r;

	if (m->n_patterns == GR_MAX_PATTERNS)
		return gr_schema_fail(m->s, raw, keyword, -E2BIG, "too many patterns of names meet in one object");
	r = gr_schema_add_regex(m->s, raw, keyword, regex, is_search, &m->builder);
	m->patterns[m->n_patterns++] = (struct name_pattern){ owner, regex, schema };
	return r;
}

/* Of names that are not mentioned, what can be kept to as patterns. */
static int add_names_schema(struct merge *m, uint32_t raw, const json_t *names)
{
	static const char *const known[] = { "type",  "pattern", "minLength",   "maxLength", "format",
		                             "title", "$id",     "description", "$comment" };
	const json_t *pattern = json_object_get(names, "pattern"), *format = json_object_get(names, "format"), *v;
	const json_t *min = json_object_get(names, "minLength"), *max = json_object_get(names, "maxLength");
	const char *regex = format ? gr_schema_format(json_string_value(format)) : NULL, *key;
	char lengths[64], most[24] = "";
	uint32_t id = 0;
	int r = gr_schema_raw(m->s, names, m->s->raws[raw].pointer, "propertyNames", &id);

	if (r < 0 || json_is_true(names))
		return r;
	if (json_is_false(names) || json_object_get(names, "enum") || json_object_get(names, "const"))
		return add_pattern(m, raw, GR_NONE, "propertyNames", "[^\\x00-\\U0010ffff]", false, NULL);
	json_object_foreach((json_t *)names, key, v)
	{
		bool is_known = false;

		for (size_t i = 0; i < sizeof(known) / sizeof(known[0]); i++)
			is_known = is_known || strcmp(known[i], key) == 0;
		if (!is_known)
			return gr_schema_fail(m->s, id, key, -EINVAL, "not supported within propertyNames");
	}
	if (regex && !*regex)
		return gr_schema_fail(m->s, id, "format", -EINVAL, "this format is not supported");
	if (pattern)
		r = add_pattern(m, id, GR_NONE, "pattern", json_string_value(pattern), true, NULL);
	if (r == 0 && regex)
		r = add_pattern(m, id, GR_NONE, "format", regex, false, NULL);
	if (r == 0 && (min || max)) {
		if (max)
			(void)snprintf(most, sizeof(most), "%.0f", json_number_value(max));
		(void)snprintf(lengths, sizeof(lengths), "[\\s\\S]{%.0f,%s}", json_number_value(min), most);
		r = add_pattern(m, id, GR_NONE, "maxLength", lengths, false, NULL);
	}
	return r;
}

/* The listed names of propertyNames are mentioned; what the list does not hold is forbidden by its pattern. */
static int mention_names_schema(struct merge *m, const json_t *names)
{
	const json_t *one = json_object_get(names, "const"), *v;
	size_t i;

	json_array_foreach(json_object_get(names, "enum"), i, v)
	{
		if (json_is_string(v) && strlen(json_string_value(v)) == json_string_length(v))
			(void)json_object_set_new(m->names, json_string_value(v), json_true());
	}
	if (json_is_string(one) && strlen(json_string_value(one)) == json_string_length(one))
		(void)json_object_set_new(m->names, json_string_value(one), json_true());
	return 0;
}

static int gather(struct merge *m, uint32_t raw, uint32_t alone)
{
	const json_t *patterns = gr_schema_get(m->s, raw, "patternProperties"), *v;
	const json_t *names = gr_schema_get(m->s, raw, "propertyNames");
	const char *regex;
	int r;

	if (json_is_false(gr_schema_get(m->s, raw, "unevaluatedProperties"))) {
		if (raw != alone)
			return gr_schema_fail(m->s, raw, "unevaluatedProperties", -EINVAL,
			                      "not supported where other subschemas apply to the same value");
		m->is_closed = true;
	}
	if ((r = mention_keys(m, gr_schema_get(m->s, raw, "properties"), false)) < 0 ||
	    (r = mention(m, m->required, gr_schema_get(m->s, raw, "required"))) < 0 ||
	    (r = mention(m, NULL, json_object_get(gr_schema_get(m->s, raw, "not"), "required"))) < 0 ||
	    (r = mention_keys(m, gr_schema_get(m->s, raw, "dependentRequired"), true)) < 0 ||
	    (r = mention_keys(m, gr_schema_get(m->s, raw, "dependencies"), true)) < 0 ||
	    (r = mention_names_schema(m, names)) < 0)
		return r;
	json_object_foreach((json_t *)patterns, regex, v)
	{
		if (r == 0)
			r = add_pattern(m, raw, raw, "patternProperties", regex, true, v);
	}
	return r < 0 || !names ? r : add_names_schema(m, raw, names);
}

/* ---- Properties ---- */

/* The subschemas that one atom has for a name; *ret_known when it speaks of it at all. */
static int atom_parts(struct merge *m, uint32_t raw, const char *name, uint32_t mask, uint32_t *parts, uint32_t *n,
                      bool *ret_known)
{
	const json_t *own = name ? json_object_get(gr_schema_get(m->s, raw, "properties"), name) : NULL;
	const json_t *others = gr_schema_get(m->s, raw, "additionalProperties");
	bool is_known = own != NULL;
	int r = own ? sub(m, raw, "properties", name, own, parts, n) : 0;

	for (uint32_t i = 0; i < m->n_patterns && r == 0; i++) {
		if (m->patterns[i].raw == raw && (mask >> i & 1)) {
			is_known = true;
			r = sub(m, raw, "patternProperties", m->patterns[i].regex, m->patterns[i].schema, parts, n);
		}
	}
	if (r == 0 && !is_known && others) {
		is_known = true;
		r = sub(m, raw, "additionalProperties", NULL, others, parts, n);
	}
	*ret_known = *ret_known || is_known;
	return r;
}

/* name NULL: any that is not mentioned and matches the patterns of mask. */
static int value_of(struct merge *m, const char *name, uint32_t mask, uint32_t *ret)
{
	uint32_t parts[2 * SCHEMA_MAX_ATOMS], n = 0;
	bool is_known = false;
	int r = 0;

	*ret = GR_NONE;
	for (uint32_t i = 0; i < m->n && r == 0; i++)
		r = atom_parts(m, m->atoms[i], name, mask, parts, &n, &is_known);
	if (r < 0 || (m->is_closed && !is_known))
		return r;
	return gr_schema_value(m->s, parts, n, ret);
}

/* Patterns and propertyNames, answered for a name that is mentioned. *ret_ok: it may be there at all. */
static int name_mask(struct merge *m, const char *name, uint32_t *ret_mask, bool *ret_ok)
{
	uint32_t id = 0;
	json_t *text;
	int r = 0;

	*ret_mask = 0;
	*ret_ok = true;
	for (uint32_t i = 0; i < m->n_patterns && r >= 0; i++) {
		if (m->patterns[i].raw == GR_NONE)
			continue;
		r = gr_schema_pattern_matches(m->s, m->patterns[i].raw, "patternProperties", m->patterns[i].regex, true,
		                              name, strlen(name));
		if (r == 1)
			*ret_mask |= 1u << i;
	}
	for (uint32_t i = 0; i < m->n && r >= 0; i++) {
		const json_t *names = gr_schema_get(m->s, m->atoms[i], "propertyNames");
		const json_t *no = json_object_get(gr_schema_get(m->s, m->atoms[i], "not"), "required");

		if (no && strcmp(json_string_value(json_array_get(no, 0)), name) == 0)
			*ret_ok = false;
		if (!names)
			continue;
		text = json_string(name);
		r = gr_schema_raw(m->s, names, m->s->raws[m->atoms[i]].pointer, "propertyNames", &id);
		if (r == 0)
			r = text ? gr_schema_valid(m->s, id, text, 0, 0) : -ENOMEM;
		json_decref(text);
		*ret_ok = *ret_ok && r == 1;
	}
	return r < 0 ? r : 0;
}

static int add_props(struct merge *m)
{
	const char *name;
	json_t *v;
	int r = 0;

	m->o.props = calloc(json_object_size(m->names) + 1, sizeof(*m->o.props));
	if (!m->o.props)
		return err_set(m->s->err, -ENOMEM, "out of memory");
	json_object_foreach(m->names, name, v)
	{
		struct prop *p = &m->o.props[m->o.n_props];
		uint32_t mask = 0;
		bool ok = true;

		p->value = GR_NONE;
		p->name = strdup(name);
		if (!p->name)
			return err_set(m->s->err, -ENOMEM, "out of memory");
		p->len = (uint32_t)strlen(name);
		m->o.n_props++;
		r = name_mask(m, name, &mask, &ok);
		if (r == 0 && ok)
			r = value_of(m, name, mask, &p->value);
		if (r < 0)
			return r;
		p->is_required = json_object_get(m->required, name) != NULL;
	}
	r = gr_object_finish(&m->o);
	return r < 0 ? err_set(m->s->err, r, "schema: property names that are no UTF-8, or out of memory") : 0;
}

static int add_others(struct merge *m)
{
	uint32_t values[1u << GR_MAX_PATTERNS], needed = 0, own = 0;
	int r = 0;

	for (uint32_t i = 0; i < m->n_patterns; i++) {
		if (m->patterns[i].raw == GR_NONE)
			needed |= 1u << i;
		else
			own |= 1u << i;
	}
	for (uint32_t mask = 0; mask < 1u << m->n_patterns && r == 0; mask++) {
		values[mask] = GR_NONE;
		/* Patterns of propertyNames say whether, not what. */
		if ((mask & needed) == needed)
			r = value_of(m, NULL, mask & own, &values[mask]);
	}
	if (r == 0)
		memcpy(m->o.other, values, (1u << m->n_patterns) * sizeof(*values));
	m->o.n_patterns = m->n_patterns;
	return r;
}

/* ---- Dependencies and numbers of properties ---- */

/* Every name that is asked for was mentioned. */
static uint32_t prop_of(const struct object *o, const char *name)
{
	uint32_t lo = 0, hi = o->n_props;

	while (hi - lo > 1) {
		uint32_t mid = (lo + hi) / 2;

		if (strcmp(o->props[mid].name, name) <= 0)
			lo = mid;
		else
			hi = mid;
	}
	return lo;
}

static int add_dependencies(struct merge *m, const json_t *map)
{
	const json_t *list, *v;
	const char *name;
	size_t i;

	json_object_foreach((json_t *)map, name, list)
	{
		struct dependency *all = realloc(m->o.dependencies, (m->o.n_dependencies + 1u) * sizeof(*all)), *d;

		if (!all)
			return err_set(m->s->err, -ENOMEM, "out of memory");
		m->o.dependencies = all;
		d = &all[m->o.n_dependencies];
		*d = (struct dependency){ .given = prop_of(&m->o, name) };
		d->needed = calloc(json_array_size(list) + 1, sizeof(*d->needed));
		if (!d->needed)
			return err_set(m->s->err, -ENOMEM, "out of memory");
		m->o.n_dependencies++;
		json_array_foreach((json_t *)list, i, v) d->needed[d->n_needed++] =
		        prop_of(&m->o, json_string_value(v));
	}
	return 0;
}

/* What a required property demands is required too. */
static void require_needed(struct object *o)
{
	bool changed = true;

	while (changed) {
		changed = false;
		for (uint32_t i = 0; i < o->n_dependencies; i++) {
			const struct dependency *d = &o->dependencies[i];

			for (uint32_t k = 0; k < d->n_needed && o->props[d->given].is_required; k++) {
				struct prop *p = &o->props[d->needed[k]];

				changed = changed || !p->is_required;
				p->is_required = true;
				o->required[d->needed[k] / 64] |= 1ull << (d->needed[k] % 64);
			}
		}
	}
}

static void narrow(struct merge *m, uint32_t raw)
{
	const json_t *min = gr_schema_get(m->s, raw, "minProperties"), *max = gr_schema_get(m->s, raw, "maxProperties");

	if (min && json_number_value(min) > m->o.min)
		m->o.min = json_number_value(min) < SCHEMA_MAX_LENGTH ? (uint32_t)json_number_value(min)
		                                                      : SCHEMA_MAX_LENGTH;
	if (max && json_number_value(max) < m->o.max)
		m->o.max = (uint32_t)json_number_value(max);
}

/* What cannot be kept to: a free name may come twice, which is one property to whoever reads it. */
static int check_counts(struct merge *m)
{
	uint32_t n_required = 0;
	bool others = false;

	for (uint32_t i = 0; i < m->o.n_props; i++)
		n_required += m->o.props[i].is_required;
	for (uint32_t mask = 0; mask < 1u << m->n_patterns; mask++)
		others = others || m->o.other[mask] != GR_NONE;
	if (others && m->o.min > 1 && m->o.min > n_required)
		return gr_schema_fail(m->s, m->atoms[0], "minProperties", -EINVAL,
		                      "more than 1 beyond the required ones is not supported where names are free");
	if (m->o.max != UINT32_MAX && m->o.n_dependencies > 0)
		return gr_schema_fail(m->s, m->atoms[0], "maxProperties", -EINVAL,
		                      "not supported together with dependentRequired");
	return 0;
}

static int build(struct merge *m, uint32_t alone)
{
	int r = 0;

	for (uint32_t i = 0; i < m->n && r == 0; i++) {
		r = gather(m, m->atoms[i], alone);
		narrow(m, m->atoms[i]);
	}
	if (r == 0)
		r = add_props(m);
	if (r == 0)
		r = add_others(m);
	for (uint32_t i = 0; i < m->n && r == 0; i++) {
		r = add_dependencies(m, gr_schema_get(m->s, m->atoms[i], "dependentRequired"));
		if (r == 0)
			r = add_dependencies(m, gr_schema_get(m->s, m->atoms[i], "dependencies"));
	}
	require_needed(&m->o);
	return r < 0 || m->n == 0 ? r : check_counts(m);
}

static int keep(struct merge *m, uint32_t *ret)
{
	struct schema *s = m->s;
	struct names_pending *p;
	int r = gr_grammar_node(s->g, NODE_OBJECT, ret);

	if (r < 0)
		return err_set(s->err, r, "schema: too large");
	s->g->nodes[*ret].object = m->o;
	m->o = (struct object){ 0 };
	if (m->n_patterns == 0)
		return 0;
	if (gr_grow(&s->pending, s->n_pending, &s->cap_pending, sizeof(*s->pending)) < 0)
		return err_set(s->err, -ENOMEM, "out of memory");
	p = &s->pending[s->n_pending++];
	p->node = *ret;
	p->builder = m->builder;
	gr_dfa_builder_init(&m->builder);
	return 0;
}

int gr_schema_object(struct schema *s, const uint32_t *atoms, uint32_t n, uint32_t alone, uint32_t *ret)
{
	struct merge *m = calloc(1, sizeof(*m));
	struct node rest = { .kind = NODE_OBJECT };
	int r;

	if (!m)
		return err_set(s->err, -ENOMEM, "out of memory");
	m->s = s;
	m->atoms = atoms;
	m->n = n;
	m->names = json_object();
	m->required = json_object();
	m->o.max = UINT32_MAX;
	gr_dfa_builder_init(&m->builder);
	r = build(m, alone);
	*ret = GR_NONE;
	if (r == 0)
		r = keep(m, ret);
	rest.object = m->o;
	gr_node_done(&rest);
	gr_dfa_builder_done(&m->builder);
	json_decref(m->names);
	json_decref(m->required);
	free(m);
	return r;
}

/* Once it is known which values are possible: names that lead to none are not begun. */
int gr_schema_finish_names(struct schema *s, struct names_pending *p)
{
	struct object *o = &s->g->nodes[p->node].object;
	int r;

	p->builder.has_allowed = true;
	for (uint32_t mask = 0; mask < 1u << o->n_patterns; mask++) {
		if (o->other[mask] != GR_NONE)
			p->builder.allowed |= 1ull << mask;
	}
	r = gr_dfa_finish(&p->builder, &o->patterns, s->err);
	if (r == 0)
		s->work += gr_dfa_cells(o->patterns) / 16;
	return r < 0 ? err_prefix(s->err, r, "schema: patterns of property names: ") : 0;
}
