/* The body of OpenAI's /v1/responses as the body of a chat completion. */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/json.h"
#include "params.h"

enum { MAX_TEXT = 64 << 20 };

static bool is(const json_t *obj, const char *key, const char *value)
{
	const char *text = json_string_value(json_object_get(obj, key));

	return text && strcmp(text, value) == 0;
}

/* ---- Items ---- */

struct conversion {
	json_t *messages;
	struct base_buf reasoning; /* goes with the next message of the assistant */
};

/* A string, or parts with a text; the names of the parts differ by who speaks. */
static int join_parts(const json_t *v, const char *where, struct base_buf *out, struct http_error *e)
{
	const json_t *part;
	size_t i;

	if (json_is_string(v)) {
		(void)base_buf_append(out, json_string_value(v), json_string_length(v));
		return 0;
	}
	if (!json_is_array(v))
		return http_bad_field(e, where, "expected a string or an array of parts, got %s",
		                      base_json_type_name(v));
	json_array_foreach((json_t *)v, i, part)
	{
		const json_t *text = json_object_get(part, is(part, "type", "refusal") ? "refusal" : "text");

		if (!json_is_string(text))
			return http_bad_field(e, where, "part %zu is not text, which is all that this model takes", i);
		if (i > 0)
			(void)base_buf_putc(out, '\n');
		(void)base_buf_append(out, json_string_value(text), json_string_length(text));
	}
	return 0;
}

static json_t *add_message(struct conversion *c, const char *role, json_t *content)
{
	json_t *m = json_pack("{s:s, s:o}", "role", role, "content", content);

	if (m && strcmp(role, "assistant") == 0 && c->reasoning.len > 0) {
		(void)json_object_set_new(m, "reasoning_content",
		                          json_stringn(base_buf_text(&c->reasoning), c->reasoning.len));
		base_buf_reset(&c->reasoning);
	}
	(void)json_array_append_new(c->messages, m);
	return m;
}

static int convert_message(struct conversion *c, const json_t *item, const char *where, struct http_error *e)
{
	CLEANUP(base_buf_done) struct base_buf text = BASE_BUF_INIT(MAX_TEXT);
	const char *role = json_string_value(json_object_get(item, "role"));
	int r;

	if (!role)
		return http_bad_field(e, where, "`role` is missing or not a string");
	r = join_parts(json_object_get(item, "content"), where, &text, e);
	if (r == 0)
		(void)add_message(c, role, json_stringn(base_buf_text(&text), text.len));
	return r;
}

/* Calls that follow each other, or a text of the assistant, are one message. */
static int convert_call(struct conversion *c, const json_t *item, const char *where, struct http_error *e)
{
	const char *id = json_string_value(json_object_get(item, "call_id"));
	const char *name = json_string_value(json_object_get(item, "name"));
	const json_t *args = json_object_get(item, "arguments");
	json_t *last = json_array_get(c->messages, json_array_size(c->messages) - 1), *calls;

	if (!id || !name || !json_is_string(args))
		return http_bad_field(e, where, "a function_call needs `call_id`, `name` and `arguments`, all strings");
	if (!is(last, "role", "assistant") || c->reasoning.len > 0)
		last = add_message(c, "assistant", json_null());
	calls = json_object_get(last, "tool_calls");
	if (!calls) {
		calls = json_array();
		(void)json_object_set_new(last, "tool_calls", calls);
	}
	(void)json_array_append_new(calls, json_pack("{s:s, s:s, s:{s:s, s:O}}", "id", id, "type", "function",
	                                             "function", "name", name, "arguments", args));
	return 0;
}

static int convert_output(struct conversion *c, const json_t *item, const char *where, struct http_error *e)
{
	CLEANUP(base_buf_done) struct base_buf text = BASE_BUF_INIT(MAX_TEXT);
	const char *id = json_string_value(json_object_get(item, "call_id"));
	json_t *m;
	int r;

	if (!id)
		return http_bad_field(e, where, "`call_id` is missing or not a string");
	r = join_parts(json_object_get(item, "output"), where, &text, e);
	if (r < 0)
		return r;
	m = add_message(c, "tool", json_stringn(base_buf_text(&text), text.len));
	(void)json_object_set_new(m, "tool_call_id", json_string(id));
	return 0;
}

static int convert_item(struct conversion *c, const json_t *item, const char *where, struct http_error *e)
{
	const json_t *type = json_object_get(item, "type"), *content = json_object_get(item, "content");

	if (!json_is_object(item))
		return http_bad_field(e, where, "expected an object, got %s", base_json_type_name(item));
	if (!type || is(item, "type", "message"))
		return convert_message(c, item, where, e);
	if (is(item, "type", "function_call"))
		return convert_call(c, item, where, e);
	if (is(item, "type", "function_call_output"))
		return convert_output(c, item, where, e);
	if (is(item, "type", "reasoning"))
		return json_is_array(content) ? join_parts(content, where, &c->reasoning, e) : 0;
	return http_bad_field(e, where, "items of type \"%.32s\" are not supported",
	                      json_is_string(type) ? json_string_value(type) : "?");
}

static int convert_input(struct conversion *c, const json_t *input, struct http_error *e)
{
	const json_t *item;
	char where[64];
	size_t i;
	int r = 0;

	if (json_is_string(input)) {
		(void)add_message(c, "user", json_copy((json_t *)input));
		return 0;
	}
	if (!json_is_array(input) || json_array_size(input) == 0)
		return http_bad_field(e, "input", "expected a string or an array of items, got %s",
		                      json_is_array(input) ? "an empty one" : base_json_type_name(input));
	json_array_foreach((json_t *)input, i, item)
	{
		(void)snprintf(where, sizeof(where), "input[%zu]", i);
		r = r < 0 ? r : convert_item(c, item, where, e);
	}
	return r;
}

/* ---- The rest ---- */

/* Functions are flat here. Tools that the service itself would run are left out: a model cannot call them. */
static void convert_tools(const json_t *body, json_t *chat)
{
	const json_t *tools = json_object_get(body, "tools"), *tool;
	json_t *out;
	size_t i;

	if (!json_is_array(tools)) {
		http_copy_field(chat, "tools", body, "tools"); /* refused there */
		return;
	}
	out = json_array();
	json_array_foreach((json_t *)tools, i, tool)
	{
		static const char *const keys[] = { "name", "description", "parameters", "strict" };
		json_t *f = json_object();

		for (size_t k = 0; k < 4; k++)
			http_copy_field(f, keys[k], tool, keys[k]);
		if (is(tool, "type", "function"))
			(void)json_array_append_new(out, json_pack("{s:s, s:O}", "type", "function", "function", f));
		json_decref(f);
	}
	(void)json_object_set_new(chat, "tools", out);
}

static void convert_format(const json_t *body, json_t *chat)
{
	json_t *format = json_object_get(json_object_get(body, "text"), "format"), *schema;

	if (!json_is_object(format))
		return;
	if (!is(format, "type", "json_schema")) {
		(void)json_object_set(chat, "response_format", format);
		return;
	}
	schema = json_copy(format);
	(void)json_object_del(schema, "type");
	(void)json_object_set_new(chat, "response_format",
	                          json_pack("{s:s, s:o}", "type", "json_schema", "json_schema", schema));
}

int http_convert_responses(const json_t *body, const json_t *before, json_t *chat, struct http_error *e)
{
	static const char *const same[] = { "model",  "temperature",         "top_p", "top_k",
		                            "stream", "parallel_tool_calls", "seed",  "chat_template_kwargs",
		                            "min_p",  "ignore_eos",          "regex", "ebnf" };
	struct conversion c = { .messages = json_array(), .reasoning = BASE_BUF_INIT(MAX_TEXT) };
	const json_t *instructions = json_object_get(body, "instructions"), *effort;
	const json_t *choice = json_object_get(body, "tool_choice");
	int r;

	(void)json_object_set_new(chat, "messages", c.messages);
	if (instructions && !json_is_string(instructions) && !json_is_null(instructions))
		return http_bad_field(e, "instructions", "expected a string, got %s",
		                      base_json_type_name(instructions));
	if (json_is_string(instructions))
		(void)add_message(&c, "system", json_incref((json_t *)instructions));
	if (before)
		(void)json_array_extend(c.messages, (json_t *)before);
	r = convert_input(&c, json_object_get(body, "input"), e);
	base_buf_done(&c.reasoning);
	if (r < 0)
		return r;
	for (size_t i = 0; i < sizeof(same) / sizeof(same[0]); i++)
		http_copy_field(chat, same[i], body, same[i]);
	http_copy_field(chat, "max_tokens", body, "max_output_tokens");
	convert_tools(body, chat);
	if (json_is_object(choice) && is(choice, "type", "function"))
		(void)json_object_set_new(chat, "tool_choice",
		                          json_pack("{s:s, s:{s:O?}}", "type", "function", "function", "name",
		                                    json_object_get(choice, "name")));
	else
		http_copy_field(chat, "tool_choice", body, "tool_choice");
	effort = json_object_get(json_object_get(body, "reasoning"), "effort");
	if (json_is_string(effort))
		(void)json_object_set(chat, "reasoning_effort", (json_t *)effort);
	convert_format(body, chat);
	return 0;
}
