/* Inside calls whose arguments are keys and values in marks; told as a JSON object. What a value is, text or JSON,
 * is in the tool's schema: only a string is told while it comes. */
#include <string.h>

#include "base/cleanup.h"
#include "base/json.h"
#include "chatformat/chatformat.h"

static bool is_space(char c)
{
	return c == ' ' || c == '\t' || c == '\n' || c == '\r';
}

/* ---- Types ---- */

static const json_t *schema_of(const struct eng_chat_parser *p)
{
	CLEANUP(base_buf_done) struct base_buf key = BASE_BUF_INIT(CHAT_MAX_BYTES);
	const json_t *tool;
	size_t i;

	(void)base_buf_append(&key, base_buf_text(&p->key), p->key.len);
	json_array_foreach((json_t *)p->config.tools, i, tool)
	{
		const json_t *f = json_object_get(tool, "function"), *own = json_object_get(f, "name");

		if (json_string_length(own) == p->name.len &&
		    memcmp(json_string_value(own), base_buf_text(&p->name), p->name.len) == 0)
			return json_object_get(json_object_get(json_object_get(f, "parameters"), "properties"),
			                       base_buf_text(&key));
	}
	return NULL;
}

static bool says_string(const json_t *type)
{
	const json_t *item;
	size_t i;

	if (json_is_string(type))
		return strcmp(json_string_value(type), "string") == 0;
	json_array_foreach((json_t *)type, i, item)
	{
		if (says_string(item))
			return true;
	}
	return false;
}

/* Without a type a value is text, but for schemas that list what it may be. */
static bool wants_string(const json_t *schema)
{
	const json_t *type = json_object_get(schema, "type"), *any = json_object_get(schema, "anyOf"), *item;
	size_t i;

	if (type)
		return says_string(type);
	if (!any)
		any = json_object_get(schema, "oneOf");
	if (!any)
		any = json_object_get(schema, "enum");
	json_array_foreach((json_t *)any, i, item)
	{
		if (json_is_string(item) || wants_string(item))
			return true;
	}
	return json_array_size(any) == 0;
}

/* ---- Telling ---- */

static void tell_escaped(struct eng_chat_parser *p, const char *text, size_t len)
{
	static const char hex[] = "0123456789abcdef";

	for (size_t i = 0; i < len; i++) {
		unsigned char c = (unsigned char)text[i];
		char code[6] = { '\\', 'u', '0', '0', hex[c >> 4], hex[c & 15] };

		if (c == '"' || c == '\\') {
			code[1] = (char)c;
			eng_chat_tell(p, ENG_PART_ARGS, code, 2);
		} else if (c == '\n') {
			eng_chat_tell(p, ENG_PART_ARGS, "\\n", 2);
		} else if (c < 0x20) {
			eng_chat_tell(p, ENG_PART_ARGS, code, 6);
		} else {
			eng_chat_tell(p, ENG_PART_ARGS, text + i, 1);
		}
	}
}

static void tell(struct eng_chat_parser *p, const char *text)
{
	eng_chat_tell(p, ENG_PART_ARGS, text, strlen(text));
}

/* kind: 1 it is text, 2 it is not, 0 the schema knows. */
static void begin_value(struct eng_chat_parser *p, int kind)
{
	tell(p, p->n_pairs++ ? ", \"" : "{\"");
	tell_escaped(p, base_buf_text(&p->key), p->key.len);
	tell(p, "\": ");
	p->is_string = kind == 0 ? wants_string(schema_of(p)) : kind == 1;
	if (p->is_string)
		tell(p, "\"");
	base_buf_reset(&p->value);
	p->begins_value = true;
	p->state = S_VALUE;
}

/* What is no JSON is a string after all; True, False and None are Python's. */
static void tell_value(struct eng_chat_parser *p)
{
	static const char *const words[][2] = { { "True", "true" }, { "False", "false" }, { "None", "null" } };
	const char *text = base_buf_text(&p->value);
	json_t *v = NULL;

	for (size_t i = 0; i < 3; i++) {
		if (strcmp(text, words[i][0]) == 0 && p->value.len == strlen(text)) {
			tell(p, words[i][1]);
			return;
		}
	}
	if (p->value.len > 0)
		v = json_loadb(text, p->value.len, JSON_DECODE_ANY | JSON_ALLOW_NUL, NULL);
	if (v) {
		CLEANUP(base_buf_done) struct base_buf out = BASE_BUF_INIT(CHAT_MAX_BYTES);

		(void)base_json_append(&out, v);
		eng_chat_tell(p, ENG_PART_ARGS, base_buf_text(&out), out.len);
		json_decref(v);
		return;
	}
	tell(p, "\"");
	tell_escaped(p, text, p->value.len);
	tell(p, "\"");
}

/* ---- Steps ---- */

static void pairs_ended(struct eng_chat_parser *p, enum chat_state next)
{
	tell(p, p->n_pairs ? "}" : "{}");
	p->state = next;
	eng_chat_end_call(p);
}

bool eng_chat_step_pair(struct eng_chat_parser *p)
{
	const struct tool_format *t = p->tools;
	const char *const marks[] = { t->key_open, t->body_close, t->call_close, t->close };
	int m = eng_chat_match(p, marks, 4);

	if (m == -1)
		return false;
	if (m == -2) {
		if (is_space(p->hold.data[0]))
			eng_chat_consume(p, 1);
		else
			eng_chat_give_up(p);
		return true;
	}
	if (m == 0) {
		eng_chat_consume(p, strlen(marks[0]));
		base_buf_reset(&p->key);
		p->state = S_KEY;
		return true;
	}
	/* The end of the whole is for the next state to see. */
	if (m == 1)
		eng_chat_consume(p, strlen(marks[1]));
	pairs_ended(p, S_AFTER);
	return true;
}

static void trim(struct base_buf *b)
{
	size_t from = 0;

	while (b->len > 0 && is_space(b->data[b->len - 1]))
		b->len--;
	while (from < b->len && is_space(b->data[from]))
		from++;
	if (!b->data)
		return;
	memmove(b->data, b->data + from, b->len - from);
	b->len -= from;
	b->data[b->len] = '\0';
}

bool eng_chat_step_key(struct eng_chat_parser *p)
{
	const char *const *marks = p->tools->key_close;
	int m = eng_chat_match(p, marks, 3);

	if (m == -1)
		return false;
	if (m == -2) {
		(void)base_buf_putc(&p->key, p->hold.data[0]);
		eng_chat_consume(p, 1);
		return true;
	}
	eng_chat_consume(p, strlen(marks[m]));
	trim(&p->key);
	if (p->tools->value_open)
		p->state = S_BEFORE_VALUE;
	else
		begin_value(p, m);
	return true;
}

bool eng_chat_step_before_value(struct eng_chat_parser *p)
{
	const char *const marks[] = { p->tools->value_open };
	int m = eng_chat_match(p, marks, 1);

	if (m == -1)
		return false;
	if (m == 0) {
		eng_chat_consume(p, strlen(marks[0]));
		begin_value(p, 0);
	} else if (is_space(p->hold.data[0])) {
		eng_chat_consume(p, 1);
	} else {
		eng_chat_give_up(p);
	}
	return true;
}

bool eng_chat_step_value(struct eng_chat_parser *p)
{
	const struct tool_format *t = p->tools;
	char with_newline[64] = { '\n' };
	const char *const marks[] = { t->value_close, t->trims_newlines ? with_newline : NULL };
	char c = p->hold.data[0];
	int m;

	(void)memcpy(with_newline + 1, t->value_close, strlen(t->value_close) + 1);
	/* The first newline belongs to the mark in front, even when the one behind follows at once. */
	if (p->begins_value && t->trims_newlines && c == '\n') {
		p->begins_value = false;
		eng_chat_consume(p, 1);
		return true;
	}
	p->begins_value = false;
	m = eng_chat_match(p, marks, 2);
	if (m == -1)
		return false;
	if (m >= 0) {
		eng_chat_consume(p, strlen(marks[m]));
		if (p->is_string)
			tell(p, "\"");
		else
			tell_value(p);
		p->state = S_PAIR;
		return true;
	}
	if (p->is_string)
		tell_escaped(p, &c, 1);
	else
		(void)base_buf_putc(&p->value, c);
	eng_chat_consume(p, 1);
	return true;
}
