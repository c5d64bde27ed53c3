/* Structured output in request bodies: which field asks for it, and the grammar's text. response_format is OpenAI's,
 * regex, ebnf and json_schema are SGLang's, grammar and json_schema llama-server's, guided_* vLLM's. Two at once are
 * refused. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/json.h"
#include "params.h"

enum { MAX_GRAMMAR = 1 << 20 };

static int set_grammar(struct http_params *p, const char *param, enum eng_grammar_kind kind, const char *text,
                       size_t len, struct http_error *e)
{
	if (p->grammar_param)
		return http_bad_field(e, param, "`%s` is given too; only one can shape the output", p->grammar_param);
	p->grammar_text = malloc(len + 1);
	if (!p->grammar_text)
		return http_bad_field(e, param, "out of memory");
	if (len > 0)
		memcpy(p->grammar_text, text, len);
	p->grammar_text[len] = '\0';
	p->grammar_len = len;
	p->grammar_kind = kind;
	p->grammar_param = param;
	return 0;
}

/* A schema as JSON, or as a string that holds it. */
static int set_schema(struct http_params *p, const char *param, const json_t *schema, struct http_error *e)
{
	CLEANUP(base_buf_done) struct base_buf text = BASE_BUF_INIT(MAX_GRAMMAR);

	if (json_is_string(schema))
		return set_grammar(p, param, ENG_GRAMMAR_JSON_SCHEMA, json_string_value(schema),
		                   json_string_length(schema), e);
	if (!json_is_object(schema) && !json_is_boolean(schema))
		return http_bad_field(e, param, "expected a schema, got %s", base_json_type_name(schema));
	if (base_json_append(&text, schema) < 0)
		return http_bad_field(e, param, "the schema is larger than %d bytes", MAX_GRAMMAR);
	return set_grammar(p, param, ENG_GRAMMAR_JSON_SCHEMA, base_buf_text(&text), text.len, e);
}

/* Likewise. */
static int set_tags(struct http_params *p, const char *param, const json_t *tags, struct http_error *e)
{
	CLEANUP(base_buf_done) struct base_buf text = BASE_BUF_INIT(MAX_GRAMMAR);

	if (json_is_string(tags))
		return set_grammar(p, param, ENG_GRAMMAR_STRUCTURAL_TAG, json_string_value(tags),
		                   json_string_length(tags), e);
	if (!json_is_object(tags))
		return http_bad_field(e, param, "expected an object, got %s", base_json_type_name(tags));
	if (base_json_append(&text, tags) < 0)
		return http_bad_field(e, param, "larger than %d bytes", MAX_GRAMMAR);
	return set_grammar(p, param, ENG_GRAMMAR_STRUCTURAL_TAG, base_buf_text(&text), text.len, e);
}

static int set_string(struct http_params *p, const char *param, enum eng_grammar_kind kind, const json_t *v,
                      struct http_error *e)
{
	if (!json_is_string(v))
		return http_bad_field(e, param, "expected a string, got %s", base_json_type_name(v));
	return set_grammar(p, param, kind, json_string_value(v), json_string_length(v), e);
}

/* One of several texts, as a regular expression. */
static int set_choice(struct http_params *p, const char *param, const json_t *list, struct http_error *e)
{
	CLEANUP(base_buf_done) struct base_buf regex = BASE_BUF_INIT(MAX_GRAMMAR);
	const json_t *v;
	size_t i;

	if (json_array_size(list) == 0)
		return http_bad_field(e, param, "expected an array of strings");
	json_array_foreach((json_t *)list, i, v)
	{
		if (!json_is_string(v))
			return http_bad_field(e, param, "element %zu is not a string", i);
		(void)base_buf_puts(&regex, i ? "|" : "");
		for (size_t k = 0; k < json_string_length(v); k++) {
			char c = json_string_value(v)[k];

			if (c && strchr("\\^$.|?*+()[]{}", c))
				(void)base_buf_putc(&regex, '\\');
			(void)base_buf_putc(&regex, c);
		}
	}
	if (base_buf_error(&regex))
		return http_bad_field(e, param, "larger than %d bytes", MAX_GRAMMAR);
	return set_grammar(p, param, ENG_GRAMMAR_REGEX, base_buf_text(&regex), regex.len, e);
}

static int parse_response_format(const json_t *v, struct http_params *p, struct http_error *e)
{
	const char *type = json_string_value(json_object_get(v, "type"));
	const json_t *spec = json_object_get(v, "json_schema"), *schema;

	if (!type)
		return http_bad_field(e, "response_format", "expected an object with a string `type`");
	if (strcmp(type, "text") == 0)
		return 0;
	if (strcmp(type, "json_object") == 0) {
		schema = http_field(v, "schema");
		return schema ? set_schema(p, "response_format.schema", schema, e)
		              : set_grammar(p, "response_format", ENG_GRAMMAR_JSON_OBJECT, "", 0, e);
	}
	if (strcmp(type, "structural_tag") == 0)
		return set_tags(p, "response_format", v, e);
	if (strcmp(type, "json_schema") != 0)
		return http_bad_field(e, "response_format", "unknown type \"%.32s\"", type);
	if (!json_is_object(spec))
		return http_bad_field(e, "response_format.json_schema", "missing, or not an object");
	schema = http_field(spec, "schema");
	return schema ? set_schema(p, "response_format.json_schema.schema", schema, e)
	              : set_grammar(p, "response_format", ENG_GRAMMAR_JSON_OBJECT, "", 0, e);
}

int http_parse_constrained(const json_t *obj, struct http_params *p, struct http_error *e)
{
	static const char *const refused[] = { "functions", "structured_outputs" };
	static const struct {
		const char *key;
		enum eng_grammar_kind kind;
	} strings[] = {
		{ "regex", ENG_GRAMMAR_REGEX },  { "guided_regex", ENG_GRAMMAR_REGEX },  { "ebnf", ENG_GRAMMAR_EBNF },
		{ "grammar", ENG_GRAMMAR_EBNF }, { "guided_grammar", ENG_GRAMMAR_EBNF },
	};
	int r = 0;

	for (size_t i = 0; i < sizeof(refused) / sizeof(refused[0]); i++) {
		if (http_field(obj, refused[i]))
			return http_bad_field(e, refused[i], "not supported by this server");
	}
	if (http_field(obj, "response_format"))
		r = parse_response_format(http_field(obj, "response_format"), p, e);
	if (r == 0 && http_field(obj, "json_schema"))
		r = set_schema(p, "json_schema", http_field(obj, "json_schema"), e);
	if (r == 0 && http_field(obj, "guided_json"))
		r = set_schema(p, "guided_json", http_field(obj, "guided_json"), e);
	if (r == 0 && http_field(obj, "structural_tag"))
		r = set_tags(p, "structural_tag", http_field(obj, "structural_tag"), e);
	if (r == 0 && http_field(obj, "guided_choice"))
		r = set_choice(p, "guided_choice", http_field(obj, "guided_choice"), e);
	for (size_t i = 0; i < sizeof(strings) / sizeof(strings[0]) && r == 0; i++) {
		if (http_field(obj, strings[i].key))
			r = set_string(p, strings[i].key, strings[i].kind, http_field(obj, strings[i].key), e);
	}
	return r;
}
