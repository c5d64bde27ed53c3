/* The body of a chat completion, and what other protocols' bodies are turned into (convert_*.c). */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "base/json.h"
#include "params_internal.h"

static int check_role(const json_t *message, size_t i, struct http_error *e)
{
	static const char *const roles[] = { "system", "developer", "user", "assistant", "tool", "function" };
	const char *role = json_string_value(json_object_get(message, "role"));
	char where[64];

	(void)snprintf(where, sizeof(where), "messages[%zu].role", i);
	if (!role)
		return http_bad_field(e, where, "missing or not a string");
	for (size_t k = 0; k < sizeof(roles) / sizeof(roles[0]); k++) {
		if (strcmp(role, roles[k]) == 0)
			return 0;
	}
	return http_bad_field(e, where, "unknown role \"%.32s\"", role);
}

static int check_content(const json_t *message, size_t i, struct http_error *e)
{
	const json_t *content = json_object_get(message, "content"), *part;
	bool has_calls = json_array_size(json_object_get(message, "tool_calls")) > 0;
	char where[64];
	size_t k;

	(void)snprintf(where, sizeof(where), "messages[%zu].content", i);
	if (!content || json_is_null(content))
		return has_calls ? 0 : http_bad_field(e, where, "missing");
	if (json_is_string(content))
		return 0;
	if (!json_is_array(content))
		return http_bad_field(e, where, "expected a string or an array of parts, got %s",
		                      base_json_type_name(content));
	json_array_foreach((json_t *)content, k, part)
	{
		const char *type = json_string_value(json_object_get(part, "type"));

		(void)snprintf(where, sizeof(where), "messages[%zu].content[%zu]", i, k);
		if (!type)
			return http_bad_field(e, where, "expected an object with a string `type`");
		if (strcmp(type, "text") != 0)
			return http_bad_field(e, where, "parts of type \"%.32s\" are not supported by this model",
			                      type);
		if (!json_is_string(json_object_get(part, "text")))
			return http_bad_field(e, where, "`text` is missing or not a string");
	}
	return 0;
}

static int parse_messages(const json_t *obj, struct http_params *p, struct http_error *e)
{
	const json_t *m;
	size_t i;
	int r;

	p->messages = http_field(obj, "messages");
	if (!p->messages)
		return http_bad_field(e, "messages", "missing");
	if (!json_is_array(p->messages))
		return http_bad_field(e, "messages", "expected an array, got %s", base_json_type_name(p->messages));
	if (json_array_size(p->messages) == 0)
		return http_bad_field(e, "messages", "is empty");
	json_array_foreach((json_t *)p->messages, i, m)
	{
		char where[64];

		(void)snprintf(where, sizeof(where), "messages[%zu]", i);
		if (!json_is_object(m))
			return http_bad_field(e, where, "expected an object, got %s", base_json_type_name(m));
		if ((r = check_role(m, i, e)) < 0 || (r = check_content(m, i, e)) < 0)
			return r;
	}
	/* An assistant's message at the end is the beginning of the answer. */
	m = json_array_get(p->messages, json_array_size(p->messages) - 1);
	p->add_generation_prompt = strcmp(json_string_value(json_object_get(m, "role")), "assistant") != 0;
	return 0;
}

static bool has_tool(const json_t *tools, const char *name)
{
	const json_t *t;
	size_t i;

	json_array_foreach((json_t *)tools, i, t)
	{
		const char *own = json_string_value(json_object_get(json_object_get(t, "function"), "name"));

		if (own && strcmp(own, name) == 0)
			return true;
	}
	return false;
}

static int parse_tool_choice(const json_t *obj, struct http_params *p, struct http_error *e)
{
	static const char *const words[] = { "auto", "none", "required" };
	const json_t *choice = http_field(obj, "tool_choice");
	const char *word = json_string_value(choice);

	p->tool_choice = p->tools ? TOOLS_AUTO : TOOLS_NONE;
	if (!choice)
		return 0;
	for (int i = 0; word && i < 3; i++) {
		if (strcmp(word, words[i]) == 0) {
			p->tool_choice = (enum http_tool_choice)i;
			return i == TOOLS_REQUIRED && !p->tools
			               ? http_bad_field(e, "tool_choice", "\"required\" needs `tools`")
			               : 0;
		}
	}
	if (word)
		return http_bad_field(e, "tool_choice", "unknown value \"%.32s\"", word);
	p->tool_name = json_string_value(json_object_get(json_object_get(choice, "function"), "name"));
	if (!p->tool_name)
		return http_bad_field(e, "tool_choice", "expected a word or an object with a `function` and its name");
	if (!has_tool(p->tools, p->tool_name))
		return http_bad_field(e, "tool_choice", "there is no tool \"%.64s\" in `tools`", p->tool_name);
	p->tool_choice = TOOLS_NAMED;
	return 0;
}

static int parse_tools(const json_t *obj, struct http_params *p, struct http_error *e)
{
	bool parallel = true;
	const json_t *t;
	size_t i;

	p->tools = http_field(obj, "tools");
	if (p->tools && !json_is_array(p->tools))
		return http_bad_field(e, "tools", "expected an array, got %s", base_json_type_name(p->tools));
	json_array_foreach((json_t *)p->tools, i, t)
	{
		const json_t *f = json_object_get(t, "function");

		if (!json_is_object(t) || !json_is_object(f))
			return http_bad_field(e, "tools", "element %zu is not an object with a `function`", i);
		if (json_string_length(json_object_get(f, "name")) == 0)
			return http_bad_field(e, "tools", "element %zu has no name", i);
	}
	if (json_array_size(p->tools) == 0)
		p->tools = NULL;
	if (http_opt_bool(obj, "parallel_tool_calls", &parallel, e) < 0)
		return -EINVAL;
	p->max_calls = parallel ? 0 : 1;
	return parse_tool_choice(obj, p, e);
}

/* SGLang's separate_reasoning and llama-server's reasoning_format. */
static int parse_reasoning(const json_t *obj, struct http_params *p, struct http_error *e)
{
	const json_t *format = http_field(obj, "reasoning_format");
	bool separate = true;

	if (http_opt_bool(obj, "separate_reasoning", &separate, e) < 0)
		return -EINVAL;
	if (format && !json_is_string(format))
		return http_bad_field(e, "reasoning_format", "expected a string, got %s", base_json_type_name(format));
	p->joins_reasoning = !separate || (format && strcmp(json_string_value(format), "none") == 0);
	return 0;
}

static int parse_chat_logprobs(const json_t *obj, struct http_params *p, struct http_error *e)
{
	int64_t n = 0;
	int r = http_opt_bool(obj, "logprobs", &p->logprobs, e);

	if (r < 0)
		return r;
	r = http_opt_int(obj, "top_logprobs", 0, HTTP_MAX_TOP, &n, e);
	if (r < 0)
		return r;
	if (n > 0 && !p->logprobs)
		return http_bad_field(e, "top_logprobs", "needs `logprobs` to be true");
	p->n_top = (uint32_t)n;
	return 0;
}

static int parse_chat_rest(const json_t *obj, struct http_params *p, struct http_error *e)
{
	const json_t *effort = http_field(obj, "reasoning_effort");
	int r;

	p->kwargs = http_field(obj, "chat_template_kwargs");
	if (p->kwargs && !json_is_object(p->kwargs))
		return http_bad_field(e, "chat_template_kwargs", "expected an object, got %s",
		                      base_json_type_name(p->kwargs));
	if (effort && !json_is_string(effort))
		return http_bad_field(e, "reasoning_effort", "expected a string, got %s", base_json_type_name(effort));
	p->reasoning_effort = json_string_value(effort);
	r = parse_reasoning(obj, p, e);
	if (r == 0)
		r = http_parse_max_new(obj, "max_tokens", 1, p, e);
	if (r == 0)
		r = http_parse_max_new(obj, "max_completion_tokens", 1, p, e); /* the newer name wins */
	return r;
}

static int parse_chat_body(const struct eng_sampling *defaults, struct http_params *ret, struct http_error *e)
{
	int r;

	ret->sampling = *defaults;
	if ((r = parse_messages(ret->body, ret, e)) == 0 && (r = http_parse_common(ret->body, ret, e)) == 0 &&
	    (r = parse_tools(ret->body, ret, e)) == 0 && (r = parse_chat_logprobs(ret->body, ret, e)) == 0)
		r = parse_chat_rest(ret->body, ret, e);
	return http_params_finish(ret, r);
}

int http_parse_chat(const char *data, size_t len, const struct eng_sampling *defaults, struct http_params *ret,
                    struct http_error *e)
{
	int r = http_params_begin(data, len, defaults, ret, e);

	return r < 0 ? r : parse_chat_body(defaults, ret, e);
}

int http_parse_converted(json_t *body, http_convert_fn convert, const json_t *before,
                         const struct eng_sampling *defaults, struct http_params *ret, struct http_error *e)
{
	int r;

	memset(ret, 0, sizeof(*ret));
	ret->made = body;
	ret->body = json_object();
	ret->logprob_start = -1;
	ret->n = 1;
	if (!ret->body)
		return http_params_finish(ret, http_out_of_memory(e));
	r = convert(body, before, ret->body, e);
	return r < 0 ? http_params_finish(ret, r) : parse_chat_body(defaults, ret, e);
}

static int parse_other(const char *data, size_t len, http_convert_fn convert, const struct eng_sampling *defaults,
                       struct http_params *ret, struct http_error *e)
{
	json_t *body = NULL;
	int r = http_parse_object(data, len, &body, e);

	return r < 0 ? r : http_parse_converted(body, convert, NULL, defaults, ret, e);
}

int http_parse_messages(const char *data, size_t len, const struct eng_sampling *defaults, struct http_params *ret,
                        struct http_error *e)
{
	return parse_other(data, len, http_convert_messages, defaults, ret, e);
}

int http_parse_responses(const char *data, size_t len, const struct eng_sampling *defaults, struct http_params *ret,
                         struct http_error *e)
{
	return parse_other(data, len, http_convert_responses, defaults, ret, e);
}
