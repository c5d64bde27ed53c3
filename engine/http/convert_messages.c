/* Anthropic's /v1/messages as the body of a chat completion. */
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

/* ---- Text in blocks ---- */

static int add_text(struct base_buf *out, const json_t *text, const char *where, struct http_error *e)
{
	if (!json_is_string(text))
		return http_bad_field(e, where, "`text` is missing or not a string");
	if (out->len > 0)
		(void)base_buf_putc(out, '\n');
	(void)base_buf_append(out, json_string_value(text), json_string_length(text));
	return 0;
}

/* A string, or blocks of text. skip: blocks that begin so are left out. */
static int join_text(const json_t *v, const char *where, const char *skip, struct base_buf *out, struct http_error *e)
{
	const json_t *block;
	size_t i;
	int r = 0;

	if (json_is_string(v))
		return add_text(out, v, where, e);
	if (!json_is_array(v))
		return http_bad_field(e, where, "expected a string or an array of blocks, got %s",
		                      base_json_type_name(v));
	json_array_foreach((json_t *)v, i, block)
	{
		const char *text = json_string_value(json_object_get(block, "text"));

		if (!is(block, "type", "text"))
			return http_bad_field(e, where, "block %zu is not text, which is all that this model takes", i);
		if (skip && text && strncmp(text, skip, strlen(skip)) == 0)
			continue;
		r = r < 0 ? r : add_text(out, json_object_get(block, "text"), where, e);
	}
	return r;
}

static json_t *string_of(const struct base_buf *text)
{
	return json_stringn(base_buf_text(text), text->len);
}

/* An agent's billing header changes with every request and would spoil the prefix cache. */
static int convert_system(const json_t *body, json_t *messages, struct http_error *e)
{
	CLEANUP(base_buf_done) struct base_buf text = BASE_BUF_INIT(MAX_TEXT);
	const json_t *system = json_object_get(body, "system");
	int r;

	if (!system || json_is_null(system))
		return 0;
	r = join_text(system, "system", "x-anthropic-billing-header", &text, e);
	if (r == 0 && text.len > 0)
		(void)json_array_append_new(messages,
		                            json_pack("{s:s, s:o}", "role", "system", "content", string_of(&text)));
	return r;
}

/* ---- Messages ---- */

/* The result of a tool becomes a message of its own. */
static int convert_result(const json_t *block, const char *where, json_t *messages, struct http_error *e)
{
	CLEANUP(base_buf_done) struct base_buf text = BASE_BUF_INIT(MAX_TEXT);
	const json_t *content = json_object_get(block, "content");
	const char *id = json_string_value(json_object_get(block, "tool_use_id"));
	int r = 0;

	if (!id)
		return http_bad_field(e, where, "`tool_use_id` is missing or not a string");
	if (content && !json_is_null(content))
		r = join_text(content, where, NULL, &text, e);
	if (r == 0)
		(void)json_array_append_new(messages, json_pack("{s:s, s:s, s:o}", "role", "tool", "tool_call_id", id,
		                                                "content", string_of(&text)));
	return r;
}

static int convert_use(const json_t *block, const char *where, json_t *calls, struct http_error *e)
{
	const char *id = json_string_value(json_object_get(block, "id"));
	const char *name = json_string_value(json_object_get(block, "name"));
	json_t *input = json_object_get(block, "input");
	CLEANUP(freep) char *args = json_is_object(input) ? json_dumps(input, JSON_COMPACT) : NULL;

	if (!id || !name || !args)
		return http_bad_field(e, where, "a tool_use needs `id`, `name` and an object as `input`");
	(void)json_array_append_new(calls, json_pack("{s:s, s:s, s:{s:s, s:s}}", "id", id, "type", "function",
	                                             "function", "name", name, "arguments", args));
	return 0;
}

struct parts {
	struct base_buf text, thinking;
	json_t *calls;
};

static int convert_block(const json_t *block, const char *where, bool is_user, struct parts *parts, json_t *messages,
                         struct http_error *e)
{
	if (is(block, "type", "text"))
		return add_text(&parts->text, json_object_get(block, "text"), where, e);
	if (is_user && is(block, "type", "tool_result"))
		return convert_result(block, where, messages, e);
	if (!is_user && is(block, "type", "tool_use"))
		return convert_use(block, where, parts->calls, e);
	if (!is_user && is(block, "type", "thinking")) {
		const json_t *text = json_object_get(block, "thinking");

		(void)base_buf_append(&parts->thinking, json_string_value(text), json_string_length(text));
		return 0;
	}
	if (!is_user && is(block, "type", "redacted_thinking"))
		return 0;
	return http_bad_field(e, where, "blocks of type \"%.32s\" are not supported here",
	                      json_is_string(json_object_get(block, "type"))
	                              ? json_string_value(json_object_get(block, "type"))
	                              : "?");
}

static void add_message(const char *role, struct parts *parts, json_t *messages)
{
	json_t *m = json_pack("{s:s}", "role", role);
	bool has_calls = json_array_size(parts->calls) > 0;

	(void)json_object_set_new(m, "content",
	                          parts->text.len > 0 || !has_calls ? string_of(&parts->text) : json_null());
	if (parts->thinking.len > 0)
		(void)json_object_set_new(m, "reasoning_content", string_of(&parts->thinking));
	if (has_calls)
		(void)json_object_set(m, "tool_calls", parts->calls);
	(void)json_array_append_new(messages, m);
}

static int convert_message(const json_t *message, size_t at, json_t *messages, struct http_error *e)
{
	const json_t *content = json_object_get(message, "content"), *block;
	bool is_user = is(message, "role", "user"), is_system = is(message, "role", "system");
	struct parts parts = { BASE_BUF_INIT(MAX_TEXT), BASE_BUF_INIT(MAX_TEXT), json_array() };
	size_t before = json_array_size(messages), i;
	char where[96];
	int r = 0;

	(void)snprintf(where, sizeof(where), "messages[%zu]", at);
	if (!is_user && !is_system && !is(message, "role", "assistant"))
		r = http_bad_field(e, where, "the role must be \"user\" or \"assistant\"");
	else if (json_is_string(content))
		r = add_text(&parts.text, content, where, e);
	else if (!json_is_array(content))
		r = http_bad_field(e, where, "content: expected a string or an array of blocks");
	json_array_foreach((json_t *)content, i, block)
	{
		(void)snprintf(where, sizeof(where), "messages[%zu].content[%zu]", at, i);
		r = r < 0 ? r : convert_block(block, where, is_user, &parts, messages, e);
	}
	/* A user's message of results alone has nothing more to say. */
	if (r == 0 && !(is_user && parts.text.len == 0 && json_array_size(messages) > before))
		add_message(is_user ? "user" : is_system ? "system" : "assistant", &parts, messages);
	base_buf_done(&parts.text);
	base_buf_done(&parts.thinking);
	json_decref(parts.calls);
	return r;
}

/* ---- Tools ---- */

static int convert_tools(const json_t *body, json_t *chat, struct http_error *e)
{
	const json_t *tools = json_object_get(body, "tools"), *tool;
	json_t *out;
	size_t i;

	if (!tools || json_is_null(tools))
		return 0;
	if (!json_is_array(tools))
		return http_bad_field(e, "tools", "expected an array, got %s", base_json_type_name(tools));
	out = json_array();
	(void)json_object_set_new(chat, "tools", out);
	json_array_foreach((json_t *)tools, i, tool)
	{
		json_t *f = json_object();
		const json_t *type = json_object_get(tool, "type");

		(void)json_array_append_new(out, json_pack("{s:s, s:o}", "type", "function", "function", f));
		if (type && !json_is_null(type) && !is(tool, "type", "custom"))
			return http_bad_field(e, "tools", "element %zu is a tool of the server's, there are none here",
			                      i);
		if (!json_is_string(json_object_get(tool, "name")))
			return http_bad_field(e, "tools", "element %zu has no name", i);
		http_copy_field(f, "name", tool, "name");
		http_copy_field(f, "description", tool, "description");
		http_copy_field(f, "parameters", tool, "input_schema");
	}
	return 0;
}

static int convert_choice(const json_t *body, json_t *chat, struct http_error *e)
{
	const json_t *choice = json_object_get(body, "tool_choice");

	if (!choice || json_is_null(choice))
		return 0;
	if (json_is_true(json_object_get(choice, "disable_parallel_tool_use")))
		(void)json_object_set_new(chat, "parallel_tool_calls", json_false());
	if (is(choice, "type", "auto") || is(choice, "type", "none"))
		http_copy_field(chat, "tool_choice", choice, "type");
	else if (is(choice, "type", "any"))
		(void)json_object_set_new(chat, "tool_choice", json_string("required"));
	else if (is(choice, "type", "tool") && json_is_string(json_object_get(choice, "name")))
		(void)json_object_set_new(chat, "tool_choice",
		                          json_pack("{s:s, s:{s:O}}", "type", "function", "function", "name",
		                                    json_object_get(choice, "name")));
	else
		return http_bad_field(e, "tool_choice",
		                      "expected an object with a type: auto, any, tool with a name, none");
	return 0;
}

/* output_config.format, or the older output_format. */
static int convert_format(const json_t *body, json_t *chat, struct http_error *e)
{
	const json_t *config = json_object_get(body, "output_config"), *format = json_object_get(config, "format");
	const char *where = "output_config.format";
	json_t *schema;

	if (!format || json_is_null(format)) {
		format = json_object_get(body, "output_format");
		where = "output_format";
	}
	if (!format || json_is_null(format))
		return 0;
	schema = json_object_get(format, "schema");
	if (!is(format, "type", "json_schema") || !json_is_object(schema))
		return http_bad_field(e, where, "expected an object of the type \"json_schema\" with a `schema`");
	(void)json_object_set_new(chat, "response_format",
	                          json_pack("{s:s, s:{s:s, s:O}}", "type", "json_schema", "json_schema", "name",
	                                    "output", "schema", schema));
	return 0;
}

int http_convert_messages(const json_t *body, const json_t *before, json_t *chat, struct http_error *e)
{
	static const char *const same[] = { "model",
		                            "max_tokens",
		                            "temperature",
		                            "top_p",
		                            "top_k",
		                            "stream",
		                            "chat_template_kwargs",
		                            "reasoning_effort",
		                            "seed",
		                            "min_p",
		                            "regex",
		                            "ebnf",
		                            "ignore_eos",
		                            "response_format" };
	const json_t *list = json_object_get(body, "messages"), *m, *thinking = json_object_get(body, "thinking");
	json_t *messages = json_array();
	size_t i;
	int r;

	(void)before;
	(void)json_object_set_new(chat, "messages", messages);
	if (!json_is_array(list) || json_array_size(list) == 0)
		return http_bad_field(e, "messages", "expected an array with at least one message");
	r = convert_system(body, messages, e);
	json_array_foreach((json_t *)list, i, m) r = r < 0 ? r : convert_message(m, i, messages, e);
	if (r == 0)
		r = convert_tools(body, chat, e);
	if (r == 0)
		r = convert_choice(body, chat, e);
	for (i = 0; i < sizeof(same) / sizeof(same[0]); i++)
		http_copy_field(chat, same[i], body, same[i]);
	if (r == 0)
		r = convert_format(body, chat, e);
	http_copy_field(chat, "stop", body, "stop_sequences");
	if (thinking && !json_object_get(chat, "chat_template_kwargs"))
		(void)json_object_set_new(chat, "chat_template_kwargs",
		                          json_pack("{s:b}", "enable_thinking", !is(thinking, "type", "disabled")));
	return r;
}
