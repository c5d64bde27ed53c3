/* The machine: text, reasoning, and where calls begin. Every byte is decided on what came before it alone. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "chatformat/chatformat.h"

/* ---- What is told ---- */

/* Bytes at the end that begin a character and lack the rest. */
static size_t incomplete_tail(const char *text, size_t len)
{
	for (size_t back = 1; back <= 3 && back <= len; back++) {
		unsigned char c = (unsigned char)text[len - back];
		size_t need = c >= 0xf0 ? 4 : c >= 0xe0 ? 3 : c >= 0xc0 ? 2 : 1;

		if ((c & 0xc0) != 0x80)
			return need > back ? back : 0;
	}
	return 0;
}

static void flush(struct eng_chat_parser *p, bool all)
{
	size_t tail = all ? 0 : incomplete_tail(base_buf_text(&p->out), p->out.len), n = p->out.len - tail;
	struct eng_part part = { .kind = p->kind, .call = p->n_calls, .text = base_buf_text(&p->out), .len = n };

	if (n == 0)
		return;
	p->config.on_part(p->config.arg, &part);
	memmove(p->out.data, p->out.data + n, tail + 1);
	p->out.len = tail;
}

void eng_chat_tell(struct eng_chat_parser *p, enum eng_part_kind kind, const char *text, size_t len)
{
	if (kind != p->kind)
		flush(p, true);
	p->kind = kind;
	if (kind == ENG_PART_CALL || kind == ENG_PART_CALL_END) {
		struct eng_part part = { .kind = kind, .call = p->n_calls, .text = text, .len = len };

		p->config.on_part(p->config.arg, &part);
		return;
	}
	(void)base_buf_append(&p->out, text, len);
}

static bool is_space(char c)
{
	return c == ' ' || c == '\t' || c == '\n' || c == '\r';
}

/* White space waits: what is between two parts belongs to neither. */
static void tell_spaced(struct eng_chat_parser *p, enum eng_part_kind kind, char c)
{
	if (is_space(c)) {
		(void)base_buf_putc(&p->space, c);
		return;
	}
	if (p->space.len > 0)
		eng_chat_tell(p, kind, p->space.data, p->space.len);
	base_buf_reset(&p->space);
	eng_chat_tell(p, kind, &c, 1);
}

/* Behind reasoning or a call the white space in front of the text is not told. */
static void text_byte(struct eng_chat_parser *p, char c)
{
	if (!is_space(c)) {
		p->at_start = false;
		if (!p->has_text)
			base_buf_reset(&p->space);
		p->has_text = true;
	}
	tell_spaced(p, ENG_PART_TEXT, c);
}

static void reasoning_byte(struct eng_chat_parser *p, char c)
{
	if (!is_space(c)) {
		if (!p->has_reasoning)
			base_buf_reset(&p->space);
		p->has_reasoning = true;
	}
	tell_spaced(p, ENG_PART_REASONING, c);
}

void eng_chat_text(struct eng_chat_parser *p, const char *text, size_t len)
{
	for (size_t i = 0; i < len; i++)
		text_byte(p, text[i]);
}

/* ---- Bytes that wait ---- */

int eng_chat_match(const struct eng_chat_parser *p, const char *const *marks, size_t n)
{
	int r = -2;

	for (size_t i = 0; i < n; i++) {
		size_t len = marks[i] ? strlen(marks[i]) : 0;

		if (len == 0)
			continue;
		if (len <= p->hold.len && memcmp(p->hold.data, marks[i], len) == 0)
			return (int)i;
		if (len > p->hold.len && memcmp(p->hold.data, marks[i], p->hold.len) == 0)
			r = -1;
	}
	return r;
}

void eng_chat_consume(struct eng_chat_parser *p, size_t n)
{
	if (p->state != S_TEXT && p->state != S_REASONING && !p->is_committed)
		(void)base_buf_append(&p->raw, p->hold.data, n);
	memmove(p->hold.data, p->hold.data + n, p->hold.len - n + 1);
	p->hold.len -= n;
}

/* ---- Calls begin and end ---- */

void eng_chat_reset_call(struct eng_chat_parser *p)
{
	base_buf_reset(&p->name);
	base_buf_reset(&p->key);
	base_buf_reset(&p->value);
	eng_walk_init(&p->walk);
	p->object = O_KEY;
	p->is_escaped = p->streams_args = p->says_function = false;
	p->n_pairs = 0;
}

bool eng_chat_begin_call(struct eng_chat_parser *p)
{
	base_buf_reset(&p->raw);
	base_buf_reset(&p->space);
	p->at_start = p->has_text = false;
	p->is_committed = true;
	eng_chat_tell(p, ENG_PART_CALL, base_buf_text(&p->name), p->name.len);
	return true;
}

/* What follows a call is text only when it is more than white space. */
static void after_call(struct eng_chat_parser *p)
{
	flush(p, true); /* under the call's own number */
	p->n_calls++;
	p->is_committed = p->has_text = false;
	base_buf_reset(&p->raw);
	if (p->config.max_calls > 0 && p->n_calls >= p->config.max_calls)
		p->state = S_DROP;
}

void eng_chat_end_call(struct eng_chat_parser *p)
{
	eng_chat_tell(p, ENG_PART_CALL_END, "", 0);
	after_call(p);
}

void eng_chat_give_up(struct eng_chat_parser *p)
{
	size_t len = p->raw.len;
	char *raw = base_buf_take(&p->raw);

	p->state = S_TEXT;
	p->at_start = p->is_listed = false;
	if (p->is_committed)
		after_call(p);
	/* With calls used up nothing more is told. */
	if (raw && p->state == S_TEXT)
		eng_chat_text(p, raw, len);
	free(raw);
}

/* ---- Text and reasoning ---- */

static bool begins_bare(const struct eng_chat_parser *p, char c)
{
	if (!p->tools || !p->tools->is_bare || !p->at_start)
		return false;
	if (p->tools->body == BODY_PYTHON)
		return c == '[';
	return c == '{' || (c == '[' && !p->tools->open);
}

static void enter(struct eng_chat_parser *p, enum chat_state state, size_t n)
{
	p->state = state;
	base_buf_reset(&p->raw);
	eng_chat_reset_call(p);
	if (n > 0)
		eng_chat_consume(p, n);
}

static void begin_reasoning(struct eng_chat_parser *p)
{
	p->state = S_REASONING;
	base_buf_reset(&p->space);
}

static bool step_text(struct eng_chat_parser *p)
{
	const struct tool_format *t = p->tools;
	const struct reasoning_format *r = p->reasoning;
	const char *const marks[] = { r && p->at_start && !p->has_reasoning ? r->open : NULL,
		                      r ? r->drop[0] : NULL,
		                      r ? r->drop[1] : NULL,
		                      t ? t->open : NULL,
		                      t && !t->open ? t->call_open : NULL,
		                      t ? t->name_open : NULL,
		                      p->is_harmony ? "<|channel|>" : NULL,
		                      p->is_harmony ? "<|start|>" : NULL };
	int m = eng_chat_match(p, marks, sizeof(marks) / sizeof(marks[0]));

	switch (m) {
	case -1:
		return false;
	case -2:
		if (begins_bare(p, p->hold.data[0])) {
			enter(p, S_SECTION, 0);
			return true;
		}
		text_byte(p, p->hold.data[0]);
		eng_chat_consume(p, 1);
		return true;
	case 0:
		eng_chat_consume(p, strlen(marks[0]));
		begin_reasoning(p);
		return true;
	case 1:
	case 2:
		eng_chat_consume(p, strlen(marks[m]));
		return true;
	case 5:
		enter(p, S_NAME, strlen(marks[m]));
		return true;
	case 6:
	case 7:
		enter(p, S_HEADER, 0);
		return true;
	default:
		/* A call without the mark around all of them. */
		enter(p, m == 4 && t->body == BODY_PAIRS && !t->name_open ? S_NAME : S_SECTION, strlen(marks[m]));
		return true;
	}
}

static bool step_reasoning(struct eng_chat_parser *p)
{
	const char *const marks[] = { p->reasoning->close };
	int m = eng_chat_match(p, marks, 1);

	if (m == -1)
		return false;
	if (m == 0) {
		eng_chat_consume(p, strlen(marks[0]));
		p->state = S_TEXT;
		p->has_reasoning = true;
		p->has_text = false;
		base_buf_reset(&p->space);
		return true;
	}
	reasoning_byte(p, p->hold.data[0]);
	eng_chat_consume(p, 1);
	return true;
}

static bool step(struct eng_chat_parser *p)
{
	switch (p->state) {
	case S_TEXT:
		return step_text(p);
	case S_REASONING:
		return step_reasoning(p);
	case S_SECTION:
		return eng_chat_step_section(p);
	case S_OBJECT:
		return eng_chat_step_object(p);
	case S_NAME:
		return eng_chat_step_name(p);
	case S_BEFORE_ARGS:
		return eng_chat_step_before_args(p);
	case S_ARGS:
		return eng_chat_step_args(p);
	case S_AFTER:
		return eng_chat_step_after(p);
	case S_PAIR:
		return eng_chat_step_pair(p);
	case S_KEY:
		return eng_chat_step_key(p);
	case S_BEFORE_VALUE:
		return eng_chat_step_before_value(p);
	case S_VALUE:
		return eng_chat_step_value(p);
	case S_PYTHON:
		return eng_chat_step_python(p);
	case S_HEADER:
		return eng_chat_step_header(p);
	case S_BODY:
		return eng_chat_step_body(p);
	case S_DROP:
		base_buf_reset(&p->hold);
		return false;
	}
	return false;
}

void eng_chat_parser_feed(struct eng_chat_parser *p, const char *text, size_t len)
{
	if (!p->tools && !p->reasoning && !p->is_harmony) {
		eng_chat_tell(p, ENG_PART_TEXT, text, len);
		flush(p, false);
		return;
	}
	for (size_t i = 0; i < len && p->state != S_DROP; i++) {
		(void)base_buf_putc(&p->hold, text[i]);
		while (p->hold.len > 0 && step(p))
			;
	}
	flush(p, false);
}

/* ---- The end ---- */

/* Only the syntax around calls, which nobody wants to read. */
static bool is_only_syntax(const struct base_buf *b)
{
	for (size_t i = 0; i < b->len; i++) {
		if (!is_space(b->data[i]) && !strchr("}],;`", b->data[i]))
			return false;
	}
	return true;
}

static void finish_held(struct eng_chat_parser *p)
{
	switch (p->state) {
	case S_TEXT:
		eng_chat_text(p, base_buf_text(&p->hold), p->hold.len);
		break;
	case S_REASONING:
		for (size_t i = 0; i < p->hold.len; i++)
			reasoning_byte(p, p->hold.data[i]);
		break;
	case S_HEADER:
	case S_BODY:
		(void)base_buf_append(&p->raw, base_buf_text(&p->hold), p->hold.len);
		eng_chat_finish_header(p);
		break;
	case S_DROP:
		break;
	default:
		if (p->is_committed)
			break; /* half a mark at the end of a call that has no end */
		(void)base_buf_append(&p->raw, base_buf_text(&p->hold), p->hold.len);
		if (p->n_calls > 0 && (p->state == S_SECTION || p->state == S_AFTER) && is_only_syntax(&p->raw))
			break;
		eng_chat_give_up(p);
		break;
	}
	base_buf_reset(&p->hold);
}

void eng_chat_parser_finish(struct eng_chat_parser *p)
{
	enum eng_part_kind kind = p->state == S_REASONING ? ENG_PART_REASONING : ENG_PART_TEXT;

	finish_held(p);
	/* White space at the end of a text is part of it. */
	if (p->space.len > 0 && kind == ENG_PART_TEXT && p->state != S_DROP && (p->has_text || p->at_start))
		eng_chat_tell(p, kind, p->space.data, p->space.len);
	base_buf_reset(&p->space);
	flush(p, true);
}

bool eng_chat_parser_is_full(const struct eng_chat_parser *p)
{
	return p->state == S_DROP;
}

/* ---- Life ---- */

static bool is_named(const char *name)
{
	return name && strcmp(name, "none") != 0;
}

static int set_formats(struct eng_chat_parser *p, struct err *err)
{
	const struct eng_chat_parser_config *c = &p->config;

	p->tools = eng_chat_find_tools(c->tool_format);
	p->reasoning = eng_chat_find_reasoning(c->reasoning_format);
	if (is_named(c->tool_format) && !p->tools)
		return err_set(err, -EINVAL, "unknown format of tool calls \"%.32s\"", c->tool_format);
	if (is_named(c->reasoning_format) && !p->reasoning)
		return err_set(err, -EINVAL, "unknown format of reasoning \"%.32s\"", c->reasoning_format);
	p->is_harmony = (p->tools && p->tools->body == BODY_HARMONY) || (p->reasoning && !p->reasoning->open);
	p->keeps_reasoning = p->reasoning != NULL;
	if (p->is_harmony)
		p->reasoning = NULL;
	return 0;
}

int eng_chat_parser_new(const struct eng_chat_parser_config *config, struct eng_chat_parser **ret_parser,
                        struct err *err)
{
	struct eng_chat_parser *p = calloc(1, sizeof(*p));
	const char *close;
	int r;

	if (!p)
		return err_set(err, -ENOMEM, "out of memory");
	p->config = *config;
	r = set_formats(p, err);
	if (r < 0) {
		free(p);
		return r;
	}
	base_buf_init(&p->hold, CHAT_MAX_BYTES);
	base_buf_init(&p->raw, CHAT_MAX_BYTES);
	base_buf_init(&p->space, CHAT_MAX_BYTES);
	base_buf_init(&p->out, CHAT_MAX_BYTES);
	base_buf_init(&p->name, CHAT_MAX_BYTES);
	base_buf_init(&p->key, CHAT_MAX_BYTES);
	base_buf_init(&p->value, CHAT_MAX_BYTES);
	base_buf_init(&p->channel, CHAT_MAX_BYTES);
	p->at_start = true;
	p->has_text = true; /* white space at the very beginning is told */
	if (p->is_harmony)
		p->state = S_HEADER;
	else if (p->reasoning &&
	         eng_chat_is_open_reasoning(config->reasoning_format, config->prompt, config->prompt_len, &close))
		begin_reasoning(p);
	*ret_parser = p;
	return 0;
}

void eng_chat_parser_free(struct eng_chat_parser *p)
{
	if (!p)
		return;
	base_buf_done(&p->hold);
	base_buf_done(&p->raw);
	base_buf_done(&p->space);
	base_buf_done(&p->out);
	base_buf_done(&p->name);
	base_buf_done(&p->key);
	base_buf_done(&p->value);
	base_buf_done(&p->channel);
	free(p);
}
