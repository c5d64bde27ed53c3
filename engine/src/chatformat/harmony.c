/* gpt-oss's answers: messages with a header (role, recipient, channel, kind of content) and a body, between special
 * tokens. analysis is reasoning, a recipient makes it a call, the rest is text. */
#include <string.h>

#include "chatformat/chatformat.h"

static const char *const header_marks[] = { "<|start|>", "<|channel|>", "<|constrain|>", "<|message|>",
	                                    "<|end|>",   "<|return|>",  "<|call|>" };
static const char *const body_marks[] = { "<|end|>", "<|return|>", "<|call|>", "<|start|>", "<|channel|>" };

enum { PART_BEGIN, PART_HEAD, PART_CHANNEL, PART_KIND };

static bool is_space(char c)
{
	return c == ' ' || c == '\t' || c == '\n' || c == '\r';
}

/* ---- Header ---- */

/* The word behind "to=". */
static bool find_recipient(const struct base_buf *b, const char **ret, size_t *ret_len)
{
	const char *at = b->len ? memmem(b->data, b->len, "to=", 3) : NULL;
	const char *end = base_buf_text(b) + b->len;

	if (!at)
		return false;
	at += 3;
	*ret = at;
	while (at < end && !is_space(*at))
		at++;
	*ret_len = (size_t)(at - *ret);
	return *ret_len > 0 && *ret_len <= CHAT_MAX_NAME;
}

static bool is_channel(const struct eng_chat_parser *p, const char *name)
{
	const char *c = base_buf_text(&p->channel);

	while (is_space(*c))
		c++;
	return strncmp(c, name, strlen(name)) == 0;
}

static void begin_body(struct eng_chat_parser *p)
{
	struct base_buf to = BASE_BUF_INIT(CHAT_MAX_BYTES);
	const char *name;
	size_t len;

	p->state = S_BODY;
	p->has_args = false;
	p->body_is_call =
	        p->tools && (find_recipient(&p->name, &name, &len) || find_recipient(&p->channel, &name, &len));
	p->body_kind = is_channel(p, "analysis") && p->keeps_reasoning ? ENG_PART_REASONING : ENG_PART_TEXT;
	if (p->body_is_call) {
		if (len > 10 && memcmp(name, "functions.", 10) == 0) {
			name += 10;
			len -= 10;
		}
		(void)base_buf_append(&to, name, len);
		base_buf_reset(&p->name);
		(void)base_buf_append(&p->name, base_buf_text(&to), to.len);
		base_buf_done(&to);
	}
	base_buf_reset(&p->raw);
	base_buf_reset(&p->space);
	p->has_text = false;
}

/* Only "to=" can stand in front of the first mark: anything else is an answer without channels. */
static bool may_be_header(const struct eng_chat_parser *p)
{
	const char *text = base_buf_text(&p->name);
	size_t len = p->name.len;

	while (len > 0 && is_space(*text)) {
		text++;
		len--;
	}
	return p->raw.len <= CHAT_MAX_HEADER &&
	       (p->header_part != PART_BEGIN || memcmp(text, "to=", len < 3 ? len : 3) == 0);
}

static void header_mark(struct eng_chat_parser *p, int m)
{
	eng_chat_consume(p, strlen(header_marks[m]));
	switch (m) {
	case 0:
		base_buf_reset(&p->name);
		base_buf_reset(&p->channel);
		p->header_part = PART_HEAD;
		break;
	case 1:
		base_buf_reset(&p->channel);
		p->header_part = PART_CHANNEL;
		break;
	case 2:
		p->header_part = PART_KIND;
		break;
	case 3:
		begin_body(p);
		break;
	default: /* the end of a message that had no body */
		base_buf_reset(&p->raw);
		p->header_part = PART_BEGIN;
		break;
	}
}

bool eng_chat_step_header(struct eng_chat_parser *p)
{
	int m = eng_chat_match(p, header_marks, sizeof(header_marks) / sizeof(header_marks[0]));
	char c = p->hold.data[0];

	if (m == -1)
		return false;
	if (m >= 0) {
		header_mark(p, m);
		return true;
	}
	eng_chat_consume(p, 1);
	if (p->header_part == PART_CHANNEL)
		(void)base_buf_putc(&p->channel, c);
	else if (p->header_part != PART_KIND)
		(void)base_buf_putc(&p->name, c);
	if (!may_be_header(p))
		eng_chat_give_up(p);
	return true;
}

/* ---- Body ---- */

static void new_message(struct eng_chat_parser *p)
{
	base_buf_reset(&p->raw);
	base_buf_reset(&p->space);
	eng_chat_reset_call(p);
	base_buf_reset(&p->channel);
	p->header_part = PART_BEGIN;
	p->state = S_HEADER;
}

static void spoken(struct eng_chat_parser *p, char c)
{
	if (p->body_kind == ENG_PART_TEXT)
		eng_chat_text(p, &c, 1);
	else
		eng_chat_tell(p, ENG_PART_REASONING, &c, 1);
}

/* Arguments, and what stands in front of and behind them. */
static void call_byte(struct eng_chat_parser *p, char c)
{
	enum walk_result r;
	bool in_string = eng_walk_in_string(&p->walk);

	if (p->has_args)
		return;
	if (!p->is_committed) {
		if (is_space(c))
			return;
		if (c != '{') { /* a tool of the model's own that takes text */
			p->body_is_call = false;
			spoken(p, c);
			return;
		}
		eng_walk_init(&p->walk);
		(void)eng_chat_begin_call(p);
		in_string = false;
	}
	r = eng_walk_byte(&p->walk, (unsigned char)c);
	if (r == WALK_ERROR || r == WALK_END_BEFORE) {
		eng_chat_give_up(p);
		if (p->state == S_TEXT) {
			p->state = S_BODY;
			p->body_is_call = false;
			p->body_kind = ENG_PART_TEXT;
			spoken(p, c);
		}
		return;
	}
	eng_chat_tell_args_byte(p, c, in_string);
	if (r == WALK_END) {
		p->has_args = true;
		eng_chat_end_call(p);
	}
}

bool eng_chat_step_body(struct eng_chat_parser *p)
{
	int m = eng_chat_match(p, body_marks, sizeof(body_marks) / sizeof(body_marks[0]));
	char c = p->hold.data[0];

	if (m == -1)
		return false;
	if (m >= 0) {
		if (p->is_committed) { /* its arguments broke off */
			base_buf_reset(&p->raw);
			eng_chat_give_up(p);
			if (p->state == S_DROP)
				return true;
		}
		p->state = S_BODY;
		if (m < 3)
			eng_chat_consume(p, strlen(body_marks[m]));
		new_message(p);
		return true;
	}
	eng_chat_consume(p, 1);
	base_buf_reset(&p->raw);
	if (p->body_is_call)
		call_byte(p, c);
	else
		spoken(p, c);
	return true;
}

void eng_chat_finish_header(struct eng_chat_parser *p)
{
	bool was_body = p->state == S_BODY;

	if (p->is_committed)
		return;
	/* Half a mark at the end, or an answer without channels that looked like a header. A header without a body
	 * says nothing. */
	if (was_body) {
		for (size_t i = 0; i < p->hold.len && !p->body_is_call; i++)
			spoken(p, p->hold.data[i]);
	} else if (p->header_part == PART_BEGIN && p->raw.len > 0) {
		eng_chat_give_up(p);
	}
}
