/* Whether a value of enum or const satisfies a schema: an ordinary validator, for the few values that a schema itself
 * holds. */
#include <errno.h>
#include <math.h>
#include <string.h>

#include "base/chars.h"
#include "grammar/schema_internal.h"

enum { MAX_DEPTH = 64 };

static bool same(const json_t *a, const json_t *b)
{
	const json_t *v;
	const char *key;
	size_t i;

	if (json_is_number(a) && json_is_number(b)) {
		if (json_is_integer(a) && json_is_integer(b))
			return json_integer_value(a) == json_integer_value(b);
		return json_number_value(a) == json_number_value(b);
	}
	if (json_typeof(a) != json_typeof(b) || json_array_size(a) != json_array_size(b) ||
	    json_object_size(a) != json_object_size(b))
		return false;
	json_array_foreach((json_t *)a, i, v)
	{
		if (!same(v, json_array_get(b, i)))
			return false;
	}
	json_object_foreach((json_t *)a, key, v)
	{
		if (!json_object_get(b, key) || !same(v, json_object_get(b, key)))
			return false;
	}
	return json_is_array(a) || json_is_object(a) || json_equal(a, b);
}

int gr_schema_pattern_matches(struct schema *s, uint32_t raw, const char *key, const char *pattern, bool is_search,
                              const char *text, size_t len)
{
	struct dfa_builder b;
	struct dfa *d = NULL;
	uint32_t q = 0, cp = 0;
	size_t step;
	int r;

	s->work += len + strlen(pattern);
	gr_dfa_builder_init(&b);
	b.need = 1;
	r = gr_schema_add_regex(s, raw, key, pattern, is_search, &b);
	if (r < 0) {
		gr_dfa_builder_done(&b);
		return r;
	}
	r = gr_dfa_finish(&b, &d, s->err);
	if (r < 0)
		return r;
	q = gr_dfa_start(d);
	for (size_t i = 0; i < len && q != DFA_DEAD; i += step) {
		step = base_utf8_get(text + i, len - i, &cp);
		q = step ? gr_dfa_next(d, q, cp) : DFA_DEAD;
		step = step ? step : 1;
	}
	r = gr_dfa_error(d) ? gr_dfa_error(d) : gr_dfa_accepts(d, q);
	gr_dfa_free(d);
	return r < 0 ? gr_schema_fail(s, raw, key, r, "the pattern is too large") : r;
}

static size_t count_chars(const char *p, size_t len)
{
	size_t n = 0;

	for (size_t i = 0; i < len; i++)
		n += ((unsigned char)p[i] & 0xc0) != 0x80;
	return n;
}

/* Missing keywords give the default. */
static double limit(const struct schema *s, uint32_t raw, const char *key, double def)
{
	const json_t *v = gr_schema_get(s, raw, key);

	return json_is_number(v) ? json_number_value(v) : def;
}

static int valid_string(struct schema *s, uint32_t raw, const json_t *v)
{
	const json_t *pattern = gr_schema_get(s, raw, "pattern"), *format = gr_schema_get(s, raw, "format");
	const char *text = json_string_value(v), *regex = format ? gr_schema_format(json_string_value(format)) : NULL;
	size_t len = json_string_length(v), n = count_chars(text, len);
	int r = 1;

	if ((double)n < limit(s, raw, "minLength", 0) || (double)n > limit(s, raw, "maxLength", INFINITY))
		return 0;
	if (pattern)
		r = gr_schema_pattern_matches(s, raw, "pattern", json_string_value(pattern), true, text, len);
	if (r == 1 && regex && *regex)
		r = gr_schema_pattern_matches(s, raw, "format", regex, false, text, len);
	return r;
}

static bool is_multiple(double x, double step)
{
	double q = x / step;

	return fabs(q - round(q)) <= 1e-9 * fmax(1, fabs(q));
}

static int valid_number(struct schema *s, uint32_t raw, const json_t *v)
{
	bool strict_min = json_is_true(gr_schema_get(s, raw, "exclusiveMinimum"));
	bool strict_max = json_is_true(gr_schema_get(s, raw, "exclusiveMaximum"));
	double x = json_number_value(v), min = limit(s, raw, "minimum", -INFINITY),
	       max = limit(s, raw, "maximum", INFINITY);

	return (strict_min ? x > min : x >= min) && (strict_max ? x < max : x <= max) &&
	       x > limit(s, raw, "exclusiveMinimum", -INFINITY) && x < limit(s, raw, "exclusiveMaximum", INFINITY) &&
	       (!gr_schema_get(s, raw, "multipleOf") || is_multiple(x, limit(s, raw, "multipleOf", 1)));
}

static int valid_by(struct schema *s, uint32_t raw, const json_t *sub, const char *key, const json_t *v, unsigned depth)
{
	uint32_t id = 0;
	int r = gr_schema_raw(s, sub, s->raws[raw].pointer, key, &id);

	return r < 0 ? r : gr_schema_valid(s, id, v, 0, depth + 1);
}

static int valid_array(struct schema *s, uint32_t raw, const json_t *v, unsigned depth)
{
	const json_t *items = gr_schema_get(s, raw, "items"), *prefix = gr_schema_get(s, raw, "prefixItems"), *e;
	size_t n = json_array_size(v), i;
	int r = 1;

	if (json_is_array(items)) {
		prefix = items;
		items = gr_schema_get(s, raw, "additionalItems");
	}
	if ((double)n < limit(s, raw, "minItems", 0) || (double)n > limit(s, raw, "maxItems", INFINITY))
		return 0;
	json_array_foreach((json_t *)v, i, e)
	{
		const json_t *sub = i < json_array_size(prefix) ? json_array_get(prefix, i) : items;

		if (sub && r == 1)
			r = valid_by(s, raw, sub, "items", e, depth);
		for (size_t k = 0; json_is_true(gr_schema_get(s, raw, "uniqueItems")) && k < i && r == 1; k++)
			r = !same(e, json_array_get(v, k));
	}
	return r;
}

static int valid_property(struct schema *s, uint32_t raw, const char *name, const json_t *v, unsigned depth)
{
	const json_t *own = json_object_get(gr_schema_get(s, raw, "properties"), name), *sub;
	const json_t *others = gr_schema_get(s, raw, "additionalProperties"),
	             *names = gr_schema_get(s, raw, "propertyNames");
	const char *pattern;
	bool is_known = own != NULL;
	json_t *text;
	int r = 1;

	if (own)
		r = valid_by(s, raw, own, "properties", v, depth);
	json_object_foreach((json_t *)gr_schema_get(s, raw, "patternProperties"), pattern, sub)
	{
		int hit = r == 1 ? gr_schema_pattern_matches(s, raw, "patternProperties", pattern, true, name,
		                                             strlen(name))
		                 : 0;

		if (hit < 0)
			return hit;
		is_known = is_known || hit;
		if (hit)
			r = valid_by(s, raw, sub, "patternProperties", v, depth);
	}
	if (r == 1 && !is_known && others)
		r = valid_by(s, raw, others, "additionalProperties", v, depth);
	if (r == 1 && names) {
		text = json_string(name);
		r = text ? valid_by(s, raw, names, "propertyNames", text, depth) : -ENOMEM;
		json_decref(text);
	}
	return r;
}

static int valid_object(struct schema *s, uint32_t raw, const json_t *v, unsigned depth)
{
	static const char *const depends[] = { "dependentRequired", "dependencies" };
	const json_t *name, *e, *list;
	size_t n = json_object_size(v), i;
	const char *key;
	int r = 1;

	if ((double)n < limit(s, raw, "minProperties", 0) || (double)n > limit(s, raw, "maxProperties", INFINITY))
		return 0;
	json_array_foreach((json_t *)gr_schema_get(s, raw, "required"), i, name)
	{
		if (!json_object_get(v, json_string_value(name)))
			return 0;
	}
	for (int k = 0; k < 2; k++) {
		json_object_foreach((json_t *)gr_schema_get(s, raw, depends[k]), key, list)
		{
			json_array_foreach((json_t *)list, i, name)
			{
				if (json_object_get(v, key) && !json_object_get(v, json_string_value(name)))
					return 0;
			}
		}
	}
	json_object_foreach((json_t *)v, key, e)
	{
		if (r == 1)
			r = valid_property(s, raw, key, e, depth);
	}
	return r;
}

static int valid_list(struct schema *s, uint32_t raw, const json_t *v)
{
	const json_t *list = gr_schema_get(s, raw, "enum"), *one = gr_schema_get(s, raw, "const"), *e;
	bool hit = !list;
	size_t i;

	s->work += json_array_size(list);
	json_array_foreach((json_t *)list, i, e) hit = hit || same(e, v);
	return hit && (!one || same(one, v));
}

/* How many of a list of subschemas hold. */
static int count_valid(struct schema *s, uint32_t raw, const char *key, const json_t *v, unsigned depth)
{
	const json_t *sub;
	int n = 0, r;
	size_t i;

	json_array_foreach((json_t *)gr_schema_get(s, raw, key), i, sub)
	{
		r = valid_by(s, raw, sub, key, v, depth);
		if (r < 0)
			return r;
		n += r;
	}
	return n;
}

static int valid_applied(struct schema *s, uint32_t raw, const json_t *v, unsigned depth)
{
	const json_t *ref = gr_schema_get(s, raw, "$ref");
	uint32_t target = 0;
	int n, r = 1;

	if (ref) {
		r = gr_schema_resolve(s, raw, ref, &target);
		if (r == 0)
			r = gr_schema_valid(s, target, v, 0, depth + 1);
	}
	if (r == 1 && gr_schema_get(s, raw, "allOf")) {
		n = count_valid(s, raw, "allOf", v, depth);
		r = n < 0 ? n : (size_t)n == json_array_size(gr_schema_get(s, raw, "allOf"));
	}
	if (r == 1 && gr_schema_get(s, raw, "anyOf")) {
		n = count_valid(s, raw, "anyOf", v, depth);
		r = n < 0 ? n : n > 0;
	}
	if (r == 1 && gr_schema_get(s, raw, "oneOf")) {
		n = count_valid(s, raw, "oneOf", v, depth);
		r = n < 0 ? n : n == 1;
	}
	return r;
}

int gr_schema_valid(struct schema *s, uint32_t raw, const json_t *v, unsigned flags, unsigned depth)
{
	const json_t *schema = s->raws[raw].json, *type, *no;
	int r = 1;

	if (depth > MAX_DEPTH || ++s->work > SCHEMA_MAX_WORK)
		return gr_schema_fail(s, raw, NULL, -E2BIG, "too deep to check the values of enum and const");
	if (json_is_boolean(schema))
		return json_is_true(schema);
	type = gr_schema_get(s, raw, "type");
	no = gr_schema_get(s, raw, "not");
	if (type && !(gr_schema_types(type) & gr_schema_type_of(v)) &&
	    !(json_is_null(v) && json_is_true(gr_schema_get(s, raw, "nullable"))))
		return 0;
	if (!(flags & SCHEMA_UNLISTED) && !valid_list(s, raw, v))
		return 0;
	if (json_is_string(v))
		r = valid_string(s, raw, v);
	else if (json_is_number(v))
		r = valid_number(s, raw, v);
	else if (json_is_array(v))
		r = valid_array(s, raw, v, depth);
	else if (json_is_object(v))
		r = valid_object(s, raw, v, depth);
	if (r == 1 && no) {
		r = valid_by(s, raw, no, "not", v, depth);
		r = r < 0 ? r : !r;
	}
	return r == 1 && !(flags & SCHEMA_OWN) ? valid_applied(s, raw, v, depth) : r;
}
