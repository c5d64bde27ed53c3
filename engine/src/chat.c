/* Messages to the prompt's text by the model's own template.
 *
 * Before rendering, messages are brought into the form that templates are written for: content parts
 * become one string, `developer` is `system`, arguments of earlier tool calls are objects, or texts for a template
 * that joins them with other text. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/json.h"
#include "engine_internal.h"
#include "template/template.h"

enum { MAX_CONTENT_BYTES = 64 << 20 };

static void decref_p(json_t **v)
{
	json_decref(*v);
}

/* ---- Messages ---- */

static int join_parts(const json_t *parts, size_t at, struct base_buf *out, struct err *err)
{
	const json_t *part;
	size_t i;

	json_array_foreach((json_t *)parts, i, part)
	{
		const char *type = json_string_value(json_object_get(part, "type"));
		const json_t *text = json_object_get(part, "text");

		if (!type || strcmp(type, "text") != 0)
			return err_set(err, -EINVAL,
			               "messages[%zu].content[%zu]: parts of type \"%.32s\" are not supported", at, i,
			               type ? type : "?");
		if (!json_is_string(text))
			return err_set(err, -EINVAL, "messages[%zu].content[%zu]: text: expected a string, got %s", at,
			               i, base_json_type_name(text));
		if (i > 0)
			(void)base_buf_putc(out, '\n');
		(void)base_buf_append(out, json_string_value(text), json_string_length(text));
	}
	return base_buf_error(out);
}

static int join_content(json_t *message, size_t at, struct err *err)
{
	CLEANUP(base_buf_done) struct base_buf text = BASE_BUF_INIT(MAX_CONTENT_BYTES);
	const json_t *content = json_object_get(message, "content");
	int r;

	if (!json_is_array(content))
		return 0;
	r = join_parts(content, at, &text, err);
	if (r < 0)
		return r;
	return json_object_set_new(message, "content", json_stringn(base_buf_text(&text), text.len)) < 0 ? -ENOMEM : 0;
}

static void arguments_as_text(json_t *function, const json_t *args)
{
	char *text = json_is_string(args) ? NULL : json_dumps(args, JSON_ENCODE_ANY);

	if (text)
		(void)json_object_set_new(function, "arguments", json_string(text));
	free(text);
}

/* Clients send arguments as JSON text; most templates write them with tojson. */
static void shape_arguments(json_t *message, bool as_text)
{
	json_t *calls = json_object_get(message, "tool_calls"), *call;
	size_t i;

	json_array_foreach(calls, i, call)
	{
		json_t *function = json_object_get(call, "function"), *args = json_object_get(function, "arguments");
		json_t *parsed = NULL;

		if (as_text && args)
			arguments_as_text(function, args);
		if (as_text || !json_is_string(args) ||
		    base_json_parse("arguments", json_string_value(args), json_string_length(args), &parsed, NULL) < 0)
			continue;
		if (json_is_object(parsed))
			(void)json_object_set(function, "arguments", parsed);
		json_decref(parsed);
	}
}

static int normalize_message(const struct eng_meta *meta, json_t *message, size_t at, struct err *err)
{
	const char *role = json_string_value(json_object_get(message, "role"));
	int r;

	if (!json_is_object(message) || !role)
		return err_set(err, -EINVAL, "messages[%zu]: expected an object with a string role", at);
	r = join_content(message, at, err);
	if (r < 0)
		return r;
	if (strcmp(role, "developer") == 0)
		(void)json_object_set_new(message, "role", json_string("system"));
	if (!json_object_get(message, "content") || json_is_null(json_object_get(message, "content")))
		(void)json_object_set_new(message, "content", meta->null_as_empty ? json_string("") : json_null());
	shape_arguments(message, meta->args_as_text);
	return 0;
}

static int normalize(const struct eng_meta *meta, const json_t *messages, json_t **ret, struct err *err)
{
	CLEANUP(decref_p) json_t *copy = json_deep_copy(messages);
	json_t *m;
	size_t i;
	int r;

	if (!json_is_array(copy))
		return err_set(err, -EINVAL, "messages: expected an array, got %s", base_json_type_name(messages));
	json_array_foreach(copy, i, m)
	{
		r = normalize_message(meta, m, i, err);
		if (r < 0)
			return r;
	}
	*ret = copy;
	copy = NULL;
	return 0;
}

/* ---- Rendering ---- */

static json_t *make_context(const struct eng_engine *e, json_t *messages, const json_t *tools, const json_t *kwargs,
                            bool add_generation_prompt)
{
	json_t *ctx = json_copy(e->meta.special);

	if (!ctx)
		return NULL;
	(void)json_object_set(ctx, "messages", messages);
	if (tools)
		(void)json_object_set(ctx, "tools", (json_t *)tools);
	else
		(void)json_object_set_new(ctx, "tools", json_null());
	(void)json_object_set_new(ctx, "documents", json_null());
	if (kwargs)
		(void)json_object_update(ctx, (json_t *)kwargs);
	(void)json_object_set_new(ctx, "add_generation_prompt", json_boolean(add_generation_prompt));
	return ctx;
}

static bool is_space(char c)
{
	return c == ' ' || c == '\t' || c == '\n' || c == '\r';
}

/* To continue the last message, what the template puts behind its content (the end token) is cut off. */
static int cut_after_last(const json_t *messages, struct base_buf *out, struct err *err)
{
	const json_t *last = json_array_get(messages, json_array_size(messages) - 1);
	const json_t *content = json_object_get(last, "content");
	const char *text = json_string_value(content);
	size_t len = json_string_length(content);
	const char *found = NULL;

	/* Many templates trim what they insert. */
	while (len > 0 && is_space(*text)) {
		text++;
		len--;
	}
	while (len > 0 && is_space(text[len - 1]))
		len--;
	if (len == 0)
		return 0;
	for (size_t i = out->len; i-- > 0 && !found;) {
		if (out->len - i >= len && memcmp(out->data + i, text, len) == 0)
			found = out->data + i;
	}
	if (!found)
		return err_set(err, -EINVAL, "the last message cannot be continued: the template changes its content");
	out->len = (size_t)(found - out->data) + len;
	out->data[out->len] = '\0';
	return 0;
}

int eng_render_chat(const struct eng_engine *e, const json_t *messages, const json_t *tools, const json_t *kwargs,
                    bool add_generation_prompt, struct base_buf *out, struct err *err)
{
	const struct eng_template *tmpl = tools && e->meta.chat_tools ? e->meta.chat_tools : e->meta.chat;
	CLEANUP(decref_p) json_t *copy = NULL;
	CLEANUP(decref_p) json_t *ctx = NULL;
	int r;

	if (!tmpl)
		return err_set(err, -ENOTSUP, "the model %s has no chat template", e->served_name);
	r = normalize(&e->meta, messages, &copy, err);
	if (r < 0)
		return r;
	ctx = make_context(e, copy, tools, kwargs, add_generation_prompt);
	if (!ctx)
		return err_set(err, -ENOMEM, "out of memory");
	r = eng_template_render(tmpl, ctx, out, err);
	if (r < 0)
		return r;
	return add_generation_prompt ? 0 : cut_after_last(copy, out, err);
}

/* ---- The shape of earlier calls ---- */

static bool probe(const struct eng_engine *e, struct base_buf *out)
{
	CLEANUP(decref_p)
	json_t *messages =
	        json_pack("[{s:s, s:s}, {s:s, s:n, s:[{s:s, s:s, s:{s:s, s:{s:s}}}]}, {s:s, s:s, s:s, s:s}]", "role",
	                  "user", "content", "x", "role", "assistant", "content", "tool_calls", "id", "abcdefghi",
	                  "type", "function", "function", "name", "probe_fn", "arguments", "probe_key", "probe_value",
	                  "role", "tool", "tool_call_id", "abcdefghi", "name", "probe_fn", "content", "y");

	base_buf_reset(out);
	if (!messages || eng_render_chat(e, messages, NULL, NULL, true, out, NULL) < 0)
		return false;
	return strstr(base_buf_text(out), "probe_key") && !strstr(base_buf_text(out), "'probe_key'");
}

/* Templates differ in whether they want arguments as an object or as text, and some cannot write a message without
 * content: what works on a small conversation is used. When nothing does, a template has no tools. */
void eng_chat_probe(struct eng_engine *e)
{
	CLEANUP(base_buf_done) struct base_buf out = BASE_BUF_INIT(MAX_CONTENT_BYTES);
	static const bool shapes[][2] = { { false, false }, { false, true }, { true, false }, { true, true } };
	bool is_good = false;

	for (size_t i = 0; i < 4 && e->meta.chat && !is_good; i++) {
		e->meta.args_as_text = shapes[i][0];
		e->meta.null_as_empty = shapes[i][1];
		is_good = probe(e, &out) && (e->meta.null_as_empty || !strstr(base_buf_text(&out), "None"));
	}
	if (!is_good)
		e->meta.args_as_text = e->meta.null_as_empty = false;
}
