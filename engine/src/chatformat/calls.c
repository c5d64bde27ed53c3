/* Inside calls whose arguments are JSON: objects with a name in them, and names in front of objects. */
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/json.h"
#include "chatformat/chatformat.h"

static bool is_space(char c)
{
	return c == ' ' || c == '\t' || c == '\n' || c == '\r';
}

/* ---- Names ---- */

static bool is_name_char(char c)
{
	return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || strchr("_-.:/", c);
}

static bool is_known(const struct eng_chat_parser *p)
{
	const json_t *tool;
	size_t i;

	json_array_foreach((json_t *)p->config.tools, i, tool)
	{
		const json_t *own = json_object_get(json_object_get(tool, "function"), "name");

		if (json_string_length(own) == p->name.len &&
		    memcmp(json_string_value(own), base_buf_text(&p->name), p->name.len) == 0)
			return true;
	}
	return p->config.tools == NULL;
}

static bool has_good_name(const struct eng_chat_parser *p)
{
	if (p->name.len == 0 || p->name.len > CHAT_MAX_NAME)
		return false;
	for (size_t i = 0; i < p->name.len; i++) {
		if (p->name.data[i] == '\0' || !is_name_char(p->name.data[i]))
			return false;
	}
	return !p->tools->is_bare || is_known(p);
}

/* ---- Arguments ---- */

void eng_chat_tell_args_byte(struct eng_chat_parser *p, char c, bool in_string)
{
	static const char hex[] = "0123456789abcdef";
	unsigned char u = (unsigned char)c;
	char text[6] = { '\\', 'u', '0', '0', hex[u >> 4], hex[u & 15] };

	if (in_string && u < 0x20)
		eng_chat_tell(p, ENG_PART_ARGS, text, sizeof(text));
	else
		eng_chat_tell(p, ENG_PART_ARGS, &c, 1);
}

/* One byte of arguments that are told as they come. */
static enum walk_result args_byte(struct eng_chat_parser *p, char c)
{
	bool in_string = eng_walk_in_string(&p->walk);
	enum walk_result r = eng_walk_byte(&p->walk, (unsigned char)c);

	if (r == WALK_MORE || r == WALK_END)
		eng_chat_tell_args_byte(p, c, in_string);
	return r;
}

bool eng_chat_step_args(struct eng_chat_parser *p)
{
	enum walk_result r = args_byte(p, p->hold.data[0]);

	if (r == WALK_ERROR || r == WALK_END_BEFORE) {
		eng_chat_give_up(p);
		return true;
	}
	eng_chat_consume(p, 1);
	if (r == WALK_END) {
		p->state = p->tools->call_close ? S_AFTER : S_SECTION;
		eng_chat_end_call(p);
	}
	return true;
}

/* ---- Objects with a name ---- */

/* Arguments that could not be told while they came: before the name, or written as a string. */
static bool tell_kept_args(struct eng_chat_parser *p)
{
	json_t *v = NULL, *inner = NULL;
	bool is_good = true;

	if (p->value.len > 0 && base_json_parse("arguments", p->value.data, p->value.len, &v, NULL) < 0)
		return false;
	if (json_is_string(v)) {
		if (base_json_parse("arguments", json_string_value(v), json_string_length(v), &inner, NULL) == 0 &&
		    json_is_object(inner)) {
			(void)eng_chat_begin_call(p);
			eng_chat_tell(p, ENG_PART_ARGS, json_string_value(v), json_string_length(v));
		} else {
			is_good = false;
		}
	} else if (json_is_object(v)) {
		(void)eng_chat_begin_call(p);
		eng_chat_tell(p, ENG_PART_ARGS, p->value.data, p->value.len);
	} else if (!v || json_is_null(v)) {
		(void)eng_chat_begin_call(p);
		eng_chat_tell(p, ENG_PART_ARGS, "{}", 2);
	} else {
		is_good = false;
	}
	json_decref(inner);
	json_decref(v);
	return is_good;
}

/* The object is over; its last byte is consumed. */
static void object_ended(struct eng_chat_parser *p)
{
	enum chat_state next = p->tools->call_close ? S_AFTER : S_SECTION;

	if (p->streams_args) {
		base_buf_reset(&p->raw);
		p->state = next;
		return;
	}
	if (!has_good_name(p) || !tell_kept_args(p)) {
		eng_chat_give_up(p);
		return;
	}
	p->state = next;
	eng_chat_end_call(p);
}

/* What comes behind whole arguments need not be well formed. */
static bool object_broken(struct eng_chat_parser *p)
{
	if (p->streams_args && !p->is_committed && p->tools->call_close)
		p->state = S_AFTER;
	else
		eng_chat_give_up(p);
	return true;
}

static bool is_key(const struct eng_chat_parser *p, const char *key)
{
	return p->key.len == strlen(key) && memcmp(base_buf_text(&p->key), key, p->key.len) == 0;
}

static void begin_value(struct eng_chat_parser *p, char c)
{
	p->target = V_OTHER;
	if (is_key(p, "name") && p->name.len == 0)
		p->target = V_NAME;
	else if ((is_key(p, "arguments") || is_key(p, "parameters")) && !p->streams_args && p->value.len == 0)
		p->target = V_ARGS;
	base_buf_reset(&p->key);
	eng_walk_init(&p->walk);
	p->object = O_VALUE;
	if (p->target == V_ARGS && c == '{' && has_good_name(p))
		p->streams_args = eng_chat_begin_call(p);
}

static void keep_value_byte(struct eng_chat_parser *p, char c)
{
	if (p->target == V_NAME)
		(void)base_buf_putc(&p->key, c);
	else if (p->target == V_ARGS)
		(void)base_buf_putc(&p->value, c);
}

static void value_ended(struct eng_chat_parser *p)
{
	json_t *v;

	p->object = O_COMMA;
	if (p->is_committed) {
		eng_chat_end_call(p);
	} else if (p->target == V_NAME) {
		v = json_loadb(base_buf_text(&p->key), p->key.len, JSON_DECODE_ANY | JSON_ALLOW_NUL, NULL);
		if (json_is_string(v))
			(void)base_buf_append(&p->name, json_string_value(v), json_string_length(v));
		json_decref(v);
		base_buf_reset(&p->key);
	}
}

static bool step_value_byte(struct eng_chat_parser *p, char c)
{
	enum walk_result r;

	if (p->is_committed) {
		r = args_byte(p, c);
	} else {
		r = eng_walk_byte(&p->walk, (unsigned char)c);
		if (r == WALK_MORE || r == WALK_END)
			keep_value_byte(p, c);
	}
	if (r == WALK_ERROR)
		return object_broken(p);
	if (r != WALK_END_BEFORE)
		eng_chat_consume(p, 1);
	if (r != WALK_MORE)
		value_ended(p);
	return true;
}

/* Constrained models with nothing to say write keys in any of the ways that JSON has. */
static void decode_key(struct eng_chat_parser *p)
{
	CLEANUP(base_buf_done) struct base_buf quoted = BASE_BUF_INIT(CHAT_MAX_BYTES);
	json_t *v;

	if (p->key.len == 0 || !memchr(p->key.data, '\\', p->key.len))
		return;
	(void)base_buf_putc(&quoted, '"');
	(void)base_buf_append(&quoted, p->key.data, p->key.len);
	(void)base_buf_putc(&quoted, '"');
	v = json_loadb(base_buf_text(&quoted), quoted.len, JSON_DECODE_ANY | JSON_ALLOW_NUL, NULL);
	if (json_is_string(v)) {
		base_buf_reset(&p->key);
		(void)base_buf_append(&p->key, json_string_value(v), json_string_length(v));
	}
	json_decref(v);
}

static bool step_key_byte(struct eng_chat_parser *p, char c)
{
	if (c == '"' && !p->is_escaped) {
		decode_key(p);
		p->object = O_COLON;
	} else {
		(void)base_buf_putc(&p->key, c);
		p->is_escaped = c == '\\' && !p->is_escaped;
	}
	eng_chat_consume(p, 1);
	return true;
}

bool eng_chat_step_object(struct eng_chat_parser *p)
{
	char c = p->hold.data[0];

	if (p->object == O_VALUE)
		return step_value_byte(p, c);
	if (p->object == O_IN_KEY)
		return step_key_byte(p, c);
	if (p->object == O_VALUE_START && !is_space(c)) {
		begin_value(p, c);
		return true;
	}
	if (is_space(c)) {
		eng_chat_consume(p, 1);
	} else if (p->object == O_KEY && c == '"') {
		base_buf_reset(&p->key);
		p->is_escaped = false;
		p->object = O_IN_KEY;
		eng_chat_consume(p, 1);
	} else if (p->object == O_COLON && c == ':') {
		p->object = O_VALUE_START;
		eng_chat_consume(p, 1);
	} else if (p->object == O_COMMA && c == ',') {
		p->object = O_KEY;
		eng_chat_consume(p, 1);
	} else if ((p->object == O_COMMA || p->object == O_KEY) && c == '}') {
		eng_chat_consume(p, 1);
		object_ended(p);
	} else {
		return object_broken(p);
	}
	return true;
}

/* ---- Between calls ---- */

static void leave(struct eng_chat_parser *p, enum chat_state state)
{
	base_buf_reset(&p->raw);
	p->state = state;
}

/* "[]" in Python is an answer as good as any. */
static bool is_empty_list(const struct eng_chat_parser *p)
{
	return p->tools->body == BODY_PYTHON && p->raw.len > 0 && memchr(p->raw.data, '[', p->raw.len);
}

/* A single byte that is no mark. */
static bool section_byte(struct eng_chat_parser *p, char c)
{
	const struct tool_format *t = p->tools;
	bool takes_objects = t->body == BODY_JSON || (t->body == BODY_NAMED && !t->call_open);
	bool takes_list = takes_objects || t->body == BODY_PYTHON;

	if (is_space(c)) {
		eng_chat_consume(p, 1);
	} else if (takes_objects && c == '{') {
		eng_chat_reset_call(p);
		eng_chat_consume(p, 1);
		p->state = S_OBJECT;
	} else if (takes_list && c == '[' && !p->is_listed) {
		p->is_listed = true;
		eng_chat_consume(p, 1);
	} else if (takes_list && c == ']' && p->is_listed && !is_empty_list(p)) {
		p->is_listed = false;
		eng_chat_consume(p, 1);
		base_buf_reset(&p->raw);
	} else if (takes_list && (c == ',' || c == ';') && p->n_calls > 0) {
		eng_chat_consume(p, 1);
	} else if (t->body == BODY_NAMED && !t->call_open && !p->is_listed && is_name_char(c) && p->raw.len > 0) {
		eng_chat_reset_call(p);
		p->state = S_NAME;
	} else if (t->body == BODY_PYTHON && p->is_listed && is_name_char(c)) {
		eng_chat_reset_call(p);
		p->state = S_NAME;
	} else {
		eng_chat_give_up(p);
	}
	return true;
}

bool eng_chat_step_section(struct eng_chat_parser *p)
{
	const struct tool_format *t = p->tools;
	const char *const marks[] = { t->call_open, t->close, t->name_open, t->open, t->call_close };
	int m = eng_chat_match(p, marks, sizeof(marks) / sizeof(marks[0]));

	if (m == -1)
		return false;
	if (m == -2)
		return section_byte(p, p->hold.data[0]);
	if (m == 0 || m == 2)
		eng_chat_reset_call(p);
	eng_chat_consume(p, strlen(marks[m]));
	if (m == 0 && (t->body == BODY_NAMED || t->body == BODY_PAIRS) && !t->name_open)
		p->state = S_NAME;
	else if (m == 1)
		leave(p, S_TEXT);
	else if (m == 2)
		p->state = S_NAME;
	else if (m == 4)
		leave(p, t->open ? S_SECTION : S_TEXT);
	return true;
}

/* Whether what was read behind the arguments says anything. */
static bool says_something(const struct base_buf *b)
{
	for (size_t i = 0; i < b->len; i++) {
		if ((unsigned char)b->data[i] >= 0x80 || (b->data[i] != ':' && b->data[i] != '/' && b->data[i] != '-' &&
		                                          b->data[i] != '.' && is_name_char(b->data[i])))
			return true;
	}
	return false;
}

bool eng_chat_step_after(struct eng_chat_parser *p)
{
	const struct tool_format *t = p->tools;
	const char *const marks[] = { t->call_close, t->close, t->call_open, t->open };
	int m = eng_chat_match(p, marks, sizeof(marks) / sizeof(marks[0]));

	if (m == -1)
		return false;
	if (m == -2) {
		if (p->raw.len >= CHAT_MAX_JUNK)
			eng_chat_give_up(p);
		else
			eng_chat_consume(p, 1);
		return true;
	}
	if (m >= 2) { /* the mark at the end is missing */
		if (says_something(&p->raw)) {
			eng_chat_give_up(p);
			return true;
		}
		leave(p, S_SECTION);
		return true;
	}
	eng_chat_consume(p, strlen(marks[m]));
	leave(p, m == 0 && t->open ? S_SECTION : S_TEXT);
	return true;
}

/* ---- Names in front of arguments ---- */

static bool name_ended(struct eng_chat_parser *p)
{
	if (!has_good_name(p)) {
		eng_chat_give_up(p);
		return true;
	}
	if (p->tools->body == BODY_PAIRS) {
		(void)eng_chat_begin_call(p);
		p->state = S_PAIR;
	} else if (p->tools->body == BODY_PYTHON) {
		(void)eng_chat_begin_call(p);
		eng_chat_begin_python(p);
	} else {
		p->state = S_BEFORE_ARGS;
	}
	return true;
}

static bool name_mark(struct eng_chat_parser *p, int m)
{
	const struct tool_format *t = p->tools;

	/* In a list of pairs the later marks begin something that the next state wants to see. */
	if (m == 0 || (t->body == BODY_NAMED && m < 3))
		eng_chat_consume(p, strlen(t->name_end[m]));
	if (m == 0 && t->body == BODY_NAMED && !p->says_function && p->name.len == 8 &&
	    memcmp(p->name.data, "function", 8) == 0) {
		p->says_function = true;
		base_buf_reset(&p->name);
		return true;
	}
	return name_ended(p);
}

bool eng_chat_step_name(struct eng_chat_parser *p)
{
	const struct tool_format *t = p->tools;
	const char *const marks[] = { t->name_end[0], t->name_end[1], t->name_end[2], t->call_close };
	char c = p->hold.data[0];
	int m = eng_chat_match(p, marks, sizeof(marks) / sizeof(marks[0]));

	if (m == -1)
		return false;
	if (m >= 0 && !(m == 0 && c == '\n' && p->name.len == 0)) /* a line that is still empty */
		return name_mark(p, m);
	if (t->body == BODY_NAMED && c == '{') {
		if (p->says_function && p->name.len == 0) /* a tool of that name */
			(void)base_buf_puts(&p->name, "function");
		return name_ended(p);
	}
	if (p->says_function && c == '\n' && p->name.len > 0)
		return name_ended(p);
	if (is_name_char(c) && c != '\0' && p->name.len < CHAT_MAX_NAME) {
		(void)base_buf_putc(&p->name, c);
		eng_chat_consume(p, 1);
	} else if (is_space(c)) {
		eng_chat_consume(p, 1);
	} else {
		eng_chat_give_up(p);
	}
	return true;
}

bool eng_chat_step_before_args(struct eng_chat_parser *p)
{
	const struct tool_format *t = p->tools;
	const char *const marks[] = { t->name_end[0], t->name_end[1], t->call_close };
	char c = p->hold.data[0];
	int m = eng_chat_match(p, marks, sizeof(marks) / sizeof(marks[0]));

	if (m == -1)
		return false;
	if (m == 2) {
		(void)eng_chat_begin_call(p);
		eng_chat_tell(p, ENG_PART_ARGS, "{}", 2);
		p->state = S_AFTER;
		eng_chat_end_call(p);
	} else if (m >= 0) {
		eng_chat_consume(p, strlen(marks[m]));
	} else if (c == '{') {
		(void)eng_chat_begin_call(p);
		eng_walk_init(&p->walk);
		p->state = S_ARGS;
	} else if ((is_space(c) || c == '`' || is_name_char(c)) && p->raw.len < CHAT_MAX_HEADER + CHAT_MAX_NAME) {
		eng_chat_consume(p, 1); /* a fence, an id */
	} else {
		eng_chat_give_up(p);
	}
	return true;
}
