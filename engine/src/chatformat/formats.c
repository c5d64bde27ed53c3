/* How model families write tool calls and reasoning: one row each. The signs are what their chat templates show
 * when they write earlier calls back, or tell the model how to call. */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/random.h>

#include "chatformat/chatformat.h"

#define DSML                                                                                                          \
	.call_open = "<｜DSML｜invoke name=\"", .call_close = "</｜DSML｜invoke>", .name_end = { "\">" },             \
	.key_open = "<｜DSML｜parameter name=\"",                                                                     \
	.key_close = { "\">", "\" string=\"true\">", "\" string=\"false\">" }, .value_close = "</｜DSML｜parameter>", \
	.is_special = true

/* The first row whose signs a template shows is its format, so the more particular come first. */
static const struct tool_format tool_formats[] = {
	{ .name = "harmony", .body = BODY_HARMONY, .is_special = true, .signs = { "<|channel|>" } },
	{ .name = "qwen3-coder",
	  .body = BODY_PAIRS,
	  .call_open = "<tool_call>",
	  .call_close = "</tool_call>",
	  .name_open = "<function=",
	  .name_end = { ">" },
	  .key_open = "<parameter=",
	  .key_close = { ">" },
	  .value_close = "</parameter>",
	  .body_close = "</function>",
	  .trims_newlines = true,
	  .signs = { "<function=", "<parameter=" } },
	{ .name = "hunyuan-v3",
	  .body = BODY_PAIRS,
	  .open = "<tool_calls>",
	  .close = "</tool_calls>",
	  .call_open = "<tool_call>",
	  .call_close = "</tool_call>",
	  .name_end = { "<tool_sep>", "<arg_key>", "</tool_call>" },
	  .key_open = "<arg_key>",
	  .key_close = { "</arg_key>" },
	  .value_open = "<arg_value>",
	  .value_close = "</arg_value>",
	  .signs = { "<tool_sep>", "<arg_key>" } },
	{ .name = "glm",
	  .body = BODY_PAIRS,
	  .call_open = "<tool_call>",
	  .call_close = "</tool_call>",
	  .name_end = { "\n", "<arg_key>", "</tool_call>" },
	  .key_open = "<arg_key>",
	  .key_close = { "</arg_key>" },
	  .value_open = "<arg_value>",
	  .value_close = "</arg_value>",
	  .signs = { "<arg_key>" } },
	/* DeepSeek V3.2 and V4, which differ in the mark around all calls. */
	{ .name = "deepseek-v4",
	  .body = BODY_PAIRS,
	  .open = "<｜DSML｜tool_calls>",
	  .close = "</｜DSML｜tool_calls>",
	  DSML,
	  .signs = { "｜DSML｜", "tool_calls>" } },
	{ .name = "deepseek-v3.2",
	  .body = BODY_PAIRS,
	  .open = "<｜DSML｜function_calls>",
	  .close = "</｜DSML｜function_calls>",
	  DSML,
	  .signs = { "｜DSML｜" } },
	/* V3 and R1 write "function", the mark, the name and a fenced block; V3.1 the name, the mark and the object. */
	{ .name = "deepseek",
	  .body = BODY_NAMED,
	  .open = "<｜tool▁calls▁begin｜>",
	  .close = "<｜tool▁calls▁end｜>",
	  .call_open = "<｜tool▁call▁begin｜>",
	  .call_close = "<｜tool▁call▁end｜>",
	  .name_end = { "<｜tool▁sep｜>" },
	  .is_special = true,
	  .signs = { "<｜tool▁call▁begin｜>" } },
	/* An array of objects, or (from 2025 on) a name, the mark and the object, each behind the first mark. */
	{ .name = "mistral",
	  .body = BODY_NAMED,
	  .ids = ID_NINE,
	  .open = "[TOOL_CALLS]",
	  .name_end = { "[ARGS]", "[CALL_ID]" },
	  .is_special = true,
	  .signs = { "[TOOL_CALLS]" } },
	{ .name = "hunyuan",
	  .body = BODY_JSON,
	  .open = "<tool_calls>",
	  .close = "</tool_calls>",
	  .signs = { "<tool_calls>" } },
	{ .name = "hermes",
	  .body = BODY_JSON,
	  .call_open = "<tool_call>",
	  .call_close = "</tool_call>",
	  .signs = { "<tool_call>" } },
	{ .name = "pythonic",
	  .body = BODY_PYTHON,
	  .open = "<|python_start|>",
	  .close = "<|python_end|>",
	  .name_end = { "(" },
	  .is_special = true,
	  .is_bare = true,
	  .signs = { "[func_name1(" } },
	{ .name = "llama4",
	  .body = BODY_JSON,
	  .open = "<|python_start|>",
	  .close = "<|python_end|>",
	  .is_special = true,
	  .is_bare = true,
	  .signs = { "<|header_start|>", "\"parameters\"" } },
	{ .name = "llama3",
	  .body = BODY_JSON,
	  .open = "<|python_tag|>",
	  .is_special = true,
	  .is_bare = true,
	  .signs = { "<|start_header_id|>", "\"parameters\"" } },
	/* What constrained generation writes (eng_chat_call_schema). */
	{ .name = "json", .body = BODY_JSON, .is_bare = true },
};

static const struct reasoning_format reasoning_formats[] = {
	{ .name = "harmony", .is_special = true, .signs = { "<|channel|>" } },
	{ .name = "hunyuan",
	  .open = "<think>",
	  .close = "</think>",
	  .drop = { "<answer>", "</answer>" },
	  .signs = { "</think>", "<answer>" } },
	{ .name = "think", .open = "<think>", .close = "</think>", .signs = { "</think>" } },
	{ .name = "mistral", .open = "[THINK]", .close = "[/THINK]", .is_special = true, .signs = { "[THINK]" } },
};

enum {
	N_TOOLS = sizeof(tool_formats) / sizeof(tool_formats[0]),
	N_REASONING = sizeof(reasoning_formats) / sizeof(reasoning_formats[0]),
};

const struct tool_format *eng_chat_find_tools(const char *name)
{
	for (size_t i = 0; name && i < N_TOOLS; i++) {
		if (strcmp(tool_formats[i].name, name) == 0)
			return &tool_formats[i];
	}
	return NULL;
}

const struct reasoning_format *eng_chat_find_reasoning(const char *name)
{
	for (size_t i = 0; name && i < N_REASONING; i++) {
		if (strcmp(reasoning_formats[i].name, name) == 0)
			return &reasoning_formats[i];
	}
	return NULL;
}

const char *eng_chat_tool_format(size_t i)
{
	return i < N_TOOLS ? tool_formats[i].name : NULL;
}

const char *eng_chat_reasoning_format(size_t i)
{
	return i < N_REASONING ? reasoning_formats[i].name : NULL;
}

static bool shows(const char *tmpl, size_t len, const char *const *signs, size_t n)
{
	for (size_t i = 0; i < n && signs[i]; i++) {
		if (!memmem(tmpl, len, signs[i], strlen(signs[i])))
			return false;
	}
	return n > 0 && signs[0];
}

const char *eng_chat_detect_tools(const char *tmpl, size_t len)
{
	for (size_t i = 0; i < N_TOOLS; i++) {
		if (shows(tmpl, len, tool_formats[i].signs, 3))
			return tool_formats[i].name;
	}
	return "none";
}

const char *eng_chat_detect_reasoning(const char *tmpl, size_t len)
{
	for (size_t i = 0; i < N_REASONING; i++) {
		if (shows(tmpl, len, reasoning_formats[i].signs, 2))
			return reasoning_formats[i].name;
	}
	return "none";
}

bool eng_chat_needs_special(const char *tool_format, const char *reasoning_format)
{
	const struct tool_format *t = eng_chat_find_tools(tool_format);
	const struct reasoning_format *r = eng_chat_find_reasoning(reasoning_format);

	return (t && t->is_special) || (r && r->is_special);
}

bool eng_chat_is_open_reasoning(const char *reasoning_format, const char *prompt, size_t len, const char **ret_close)
{
	const struct reasoning_format *r = eng_chat_find_reasoning(reasoning_format);
	size_t n;

	if (!r || !r->open || !prompt)
		return false;
	while (len > 0 && strchr(" \t\r\n", prompt[len - 1]) && prompt[len - 1] != '\0')
		len--;
	n = strlen(r->open);
	if (len < n || memcmp(prompt + len - n, r->open, n) != 0)
		return false;
	*ret_close = r->close;
	return true;
}

void eng_chat_call_id(const char *tool_format, char *ret_id, size_t size)
{
	static const char digits[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789";
	const struct tool_format *t = eng_chat_find_tools(tool_format);
	bool is_short = t && t->ids == ID_NINE;
	unsigned char r[24] = { 0 };
	char text[25];

	(void)!getrandom(r, sizeof(r), 0);
	for (size_t i = 0; i < 24; i++)
		text[i] = digits[r[i] % (sizeof(digits) - 1)];
	text[is_short ? 9 : 24] = '\0';
	(void)snprintf(ret_id, size, "%s%s", is_short ? "" : "call_", text);
}

json_t *eng_chat_call_schema(const json_t *tools, const char *name, uint32_t max_calls)
{
	json_t *any = json_array(), *schema;
	const json_t *tool;
	size_t i;

	json_array_foreach((json_t *)tools, i, tool)
	{
		json_t *f = json_object_get(tool, "function"), *params = json_object_get(f, "parameters");
		const char *own = json_string_value(json_object_get(f, "name"));

		if (!own || (name && strcmp(own, name) != 0))
			continue;
		params = json_is_object(params) ? json_incref(params) : json_pack("{s:s}", "type", "object");
		(void)json_array_append_new(any, json_pack("{s:s, s:{s:{s:[s]}, s:o}, s:[s,s], s:b}", "type", "object",
		                                           "properties", "name", "enum", own, "arguments", params,
		                                           "required", "name", "arguments", "additionalProperties", 0));
	}
	schema = json_pack("{s:s, s:i, s:o}", "type", "array", "minItems", 1, "items",
	                   json_array_size(any) == 1 ? json_incref(json_array_get(any, 0))
	                                             : json_pack("{s:O}", "anyOf", any));
	json_decref(any);
	if (schema && max_calls > 0)
		(void)json_object_set_new(schema, "maxItems", json_integer(max_calls));
	return schema;
}
