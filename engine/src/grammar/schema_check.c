/* The keywords: which are known, what they must look like, which are not supported. */
#include <errno.h>
#include <math.h>
#include <string.h>

#include "grammar/schema_internal.h"

enum want {
	UNSUPPORTED,
	IS_STRING,
	IS_NUMBER,
	IS_COUNT,
	IS_BOOL,
	IS_SCHEMA,
	IS_SCHEMAS,    /* an array, not empty */
	IS_SCHEMA_MAP, /* an object of schemas */
	IS_NAMES,      /* an array of strings */
	IS_NAMES_MAP,  /* an object of those */
	IS_LIST,       /* an array, not empty */
	IS_TYPE,
	IS_ITEMS, /* a schema, or an array of them (older drafts) */
	IS_LIMIT, /* a number, or a boolean (draft 4) */
	IS_NOT,
	IS_ANYTHING,
};

static const struct {
	const char *name;
	enum want want;
} keywords[] = {
	{ "type", IS_TYPE },
	{ "enum", IS_LIST },
	{ "const", IS_ANYTHING },
	{ "properties", IS_SCHEMA_MAP },
	{ "patternProperties", IS_SCHEMA_MAP },
	{ "additionalProperties", IS_SCHEMA },
	{ "unevaluatedProperties", IS_BOOL },
	{ "propertyNames", IS_SCHEMA },
	{ "required", IS_NAMES },
	{ "dependentRequired", IS_NAMES_MAP },
	{ "dependencies", IS_NAMES_MAP },
	{ "minProperties", IS_COUNT },
	{ "maxProperties", IS_COUNT },
	{ "items", IS_ITEMS },
	{ "prefixItems", IS_SCHEMAS },
	{ "additionalItems", IS_SCHEMA },
	{ "minItems", IS_COUNT },
	{ "maxItems", IS_COUNT },
	{ "uniqueItems", IS_BOOL },
	{ "minLength", IS_COUNT },
	{ "maxLength", IS_COUNT },
	{ "pattern", IS_STRING },
	{ "format", IS_STRING },
	{ "minimum", IS_NUMBER },
	{ "maximum", IS_NUMBER },
	{ "exclusiveMinimum", IS_LIMIT },
	{ "exclusiveMaximum", IS_LIMIT },
	{ "multipleOf", IS_NUMBER },
	{ "anyOf", IS_SCHEMAS },
	{ "oneOf", IS_SCHEMAS },
	{ "allOf", IS_SCHEMAS },
	{ "not", IS_NOT },
	{ "$ref", IS_STRING },
	{ "nullable", IS_BOOL },
	{ "if", UNSUPPORTED },
	{ "contains", UNSUPPORTED },
	{ "dependentSchemas", UNSUPPORTED },
	{ "unevaluatedItems", UNSUPPORTED },
	{ "$dynamicRef", UNSUPPORTED },
	{ "$recursiveRef", UNSUPPORTED },
};

static const struct {
	const char *name;
	uint32_t bit;
} types[] = {
	{ "null", TYPE_NULL },     { "boolean", TYPE_BOOLEAN }, { "object", TYPE_OBJECT },   { "array", TYPE_ARRAY },
	{ "string", TYPE_STRING }, { "number", TYPE_NUMBER },   { "integer", TYPE_INTEGER },
};

static uint32_t type_bit(const json_t *name)
{
	for (size_t i = 0; json_is_string(name) && i < sizeof(types) / sizeof(types[0]); i++) {
		if (strcmp(types[i].name, json_string_value(name)) == 0)
			return types[i].bit;
	}
	return 0;
}

uint32_t gr_schema_types(const json_t *type)
{
	uint32_t bits = 0;
	const json_t *v;
	size_t i;

	if (!json_is_array(type))
		return type_bit(type);
	json_array_foreach((json_t *)type, i, v)
	{
		if (!type_bit(v))
			return 0;
		bits |= type_bit(v);
	}
	return bits;
}

uint32_t gr_schema_type_of(const json_t *value)
{
	switch (json_typeof(value)) {
	case JSON_OBJECT:
		return TYPE_OBJECT;
	case JSON_ARRAY:
		return TYPE_ARRAY;
	case JSON_STRING:
		return TYPE_STRING;
	case JSON_INTEGER:
		return TYPE_INTEGER;
	case JSON_REAL:
		return floor(json_real_value(value)) == json_real_value(value) ? TYPE_INTEGER : TYPE_FRACTION;
	case JSON_TRUE:
	case JSON_FALSE:
		return TYPE_BOOLEAN;
	case JSON_NULL:
		break;
	}
	return TYPE_NULL;
}

static bool is_schema(const json_t *v)
{
	return json_is_object(v) || json_is_boolean(v);
}

static bool is_names(const json_t *v)
{
	const json_t *e;
	size_t i;

	json_array_foreach((json_t *)v, i, e)
	{
		if (!json_is_string(e))
			return false;
	}
	return json_is_array(v);
}

static bool all_of(const json_t *v, bool (*is)(const json_t *))
{
	const json_t *e;
	const char *key;
	size_t i;

	json_array_foreach((json_t *)v, i, e)
	{
		if (!is(e))
			return false;
	}
	json_object_foreach((json_t *)v, key, e)
	{
		if (!is(e))
			return false;
	}
	return true;
}

/* Lengths beyond what is told apart: never reached as a maximum, refused as a minimum where they are used. */
static bool is_count(const json_t *v)
{
	double d = json_number_value(v);

	return json_is_number(v) && d >= 0 && (d > 1e15 || d == (double)(int64_t)d);
}

/* The negations that can be kept to while the text is written. */
static bool is_simple_not(const json_t *v)
{
	const json_t *e, *type = json_object_get(v, "type");
	size_t i, n = json_object_size(v) - (type ? 1 : 0);
	uint32_t bits = gr_schema_types(type);

	if (json_is_boolean(v) || (json_is_object(v) && json_object_size(v) == 0))
		return true;
	if (!json_is_object(v) || n > 1)
		return false;
	if (n == 0)
		return bits && ((bits & TYPE_NUMBER) == 0 || (bits & TYPE_NUMBER) == TYPE_NUMBER);
	if (json_object_get(v, "required"))
		return (!type || bits == TYPE_OBJECT) && json_array_size(json_object_get(v, "required")) == 1;
	if (json_is_string(json_object_get(v, "pattern")))
		return !type || bits == TYPE_STRING;
	if (json_object_get(v, "const"))
		return !type &&
		       (json_is_string(json_object_get(v, "const")) || json_is_null(json_object_get(v, "const")));
	json_array_foreach(json_object_get(v, "enum"), i, e)
	{
		if (!json_is_string(e) && !json_is_null(e))
			return false;
	}
	return !type && json_object_get(v, "enum");
}

/* NULL: as it should be. */
static const char *wrong(enum want want, const json_t *v)
{
	switch (want) {
	case UNSUPPORTED:
		return "not supported";
	case IS_STRING:
		return json_is_string(v) ? NULL : "expected a string";
	case IS_NUMBER:
		return json_is_number(v) ? NULL : "expected a number";
	case IS_COUNT:
		return is_count(v) ? NULL : "expected an integer that is not negative";
	case IS_BOOL:
		return json_is_boolean(v) ? NULL : "only true and false are supported";
	case IS_SCHEMA:
		return is_schema(v) ? NULL : "expected a schema";
	case IS_SCHEMAS:
		return json_array_size(v) > 0 && all_of(v, is_schema) ? NULL : "expected an array of schemas";
	case IS_SCHEMA_MAP:
		return json_is_object(v) && all_of(v, is_schema) ? NULL : "expected an object of schemas";
	case IS_NAMES:
		return is_names(v) ? NULL : "expected an array of strings";
	case IS_NAMES_MAP:
		return json_is_object(v) && all_of(v, is_names)
		               ? NULL
		               : "only lists of names are supported (an object of arrays of strings)";
	case IS_LIST:
		return json_array_size(v) > 0 ? NULL : "expected an array that is not empty";
	case IS_TYPE:
		return gr_schema_types(v) ? NULL : "unknown type";
	case IS_ITEMS:
		return is_schema(v) || (json_is_array(v) && all_of(v, is_schema)) ? NULL : "expected a schema";
	case IS_LIMIT:
		return json_is_number(v) || json_is_boolean(v) ? NULL : "expected a number";
	case IS_NOT:
		if (!is_schema(v))
			return "expected a schema";
		return is_simple_not(v) ? NULL
		                        : "not supported but for {\"type\"}, {\"const\"} and {\"enum\"} of strings and "
		                          "null, {\"pattern\"}, {\"required\": [one name]}";
	case IS_ANYTHING:
		break;
	}
	return NULL;
}

int gr_schema_check(struct schema *s, uint32_t raw)
{
	const json_t *schema = s->raws[raw].json, *v;

	if (json_is_boolean(schema))
		return 0;
	if (!json_is_object(schema))
		return gr_schema_fail(s, raw, NULL, -EINVAL, "expected a schema (an object, true or false)");
	for (size_t i = 0; i < sizeof(keywords) / sizeof(keywords[0]); i++) {
		const char *why;

		v = json_object_get(schema, keywords[i].name);
		why = v ? wrong(keywords[i].want, v) : NULL;
		if (why)
			return gr_schema_fail(s, raw, keywords[i].name, -EINVAL, why);
	}
	v = json_object_get(schema, "multipleOf");
	if (v && !(json_number_value(v) > 0))
		return gr_schema_fail(s, raw, "multipleOf", -EINVAL, "expected a number above 0");
	return 0;
}
