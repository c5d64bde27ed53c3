/* What a parser tells, joined: reasoning, text, and calls as "name(arguments)" with '!' behind a call that has no
 * end. */
#ifndef CHAT_PARTS_H
#define CHAT_PARTS_H

#include <stdlib.h>
#include <string.h>

#include "engine_chat.h"

struct told {
	struct base_buf text, reasoning, calls, trace; /* trace: the order of kinds */
	bool is_open, is_bad;
	size_t args_at; /* where the arguments of the latest call begin */
	uint32_t n_calls;
};

static inline void told_init(struct told *t)
{
	memset(t, 0, sizeof(*t));
	base_buf_init(&t->text, 1 << 24);
	base_buf_init(&t->reasoning, 1 << 24);
	base_buf_init(&t->calls, 1 << 24);
	base_buf_init(&t->trace, 1 << 24);
}

static inline void told_done(struct told *t)
{
	base_buf_done(&t->text);
	base_buf_done(&t->reasoning);
	base_buf_done(&t->calls);
	base_buf_done(&t->trace);
}

static inline bool is_utf8(const char *s, size_t len)
{
	for (size_t i = 0; i < len;) {
		unsigned char c = (unsigned char)s[i];
		size_t n = c < 0x80 ? 1 : c >= 0xf0 ? 4 : c >= 0xe0 ? 3 : c >= 0xc0 ? 2 : 0;

		if (n == 0 || i + n > len)
			return false;
		for (size_t k = 1; k < n; k++) {
			if (((unsigned char)s[i + k] & 0xc0) != 0x80)
				return false;
		}
		i += n;
	}
	return true;
}

/* Arguments that are whole are a JSON object. Numbers and escapes that no C type holds are the model's own business. */
static inline bool is_object(const char *text, size_t len)
{
	static const char *const excused[] = { "too big integer", "real number overflow", "NUL byte", "\\u0000",
		                               "invalid Unicode" };
	json_error_t error;
	json_t *v = json_loadb(text, len, JSON_ALLOW_NUL, &error);
	bool is_good = json_is_object(v);

	for (size_t i = 0; i < sizeof(excused) / sizeof(excused[0]) && !v; i++)
		is_good = is_good || strstr(error.text, excused[i]);
	json_decref(v);
	return is_good;
}

static inline void told_trace(struct told *t, char kind)
{
	if (t->trace.len == 0 || t->trace.data[t->trace.len - 1] != kind)
		(void)base_buf_putc(&t->trace, kind);
}

static inline void told_part(void *arg, const struct eng_part *part)
{
	struct told *t = arg;

	if (!is_utf8(part->text, part->len) || (part->len == 0 && part->kind != ENG_PART_CALL_END))
		t->is_bad = true;
	switch (part->kind) {
	case ENG_PART_TEXT:
		told_trace(t, 't');
		(void)base_buf_append(&t->text, part->text, part->len);
		break;
	case ENG_PART_REASONING:
		told_trace(t, 'r');
		(void)base_buf_append(&t->reasoning, part->text, part->len);
		break;
	case ENG_PART_CALL:
		(void)base_buf_putc(&t->trace, 'c');
		if (t->is_open)
			(void)base_buf_putc(&t->calls, '!');
		if (part->call != t->n_calls++)
			t->is_bad = true;
		(void)base_buf_append(&t->calls, part->text, part->len);
		(void)base_buf_putc(&t->calls, '(');
		t->args_at = t->calls.len;
		t->is_open = true;
		break;
	case ENG_PART_ARGS:
		if (!t->is_open || part->call + 1 != t->n_calls)
			t->is_bad = true;
		(void)base_buf_append(&t->calls, part->text, part->len);
		break;
	case ENG_PART_CALL_END:
		if (!t->is_open || !is_object(base_buf_text(&t->calls) + t->args_at, t->calls.len - t->args_at))
			t->is_bad = true;
		(void)base_buf_putc(&t->calls, ')');
		t->is_open = false;
		break;
	}
}

/* Parses text cut at random places (seed 0: whole; 1: into single bytes). */
static inline void tell_all(const struct eng_chat_parser_config *config, const char *text, size_t len, unsigned seed,
                            struct told *ret)
{
	struct eng_chat_parser_config c = *config;
	struct eng_chat_parser *p = NULL;

	told_init(ret);
	c.on_part = told_part;
	c.arg = ret;
	if (eng_chat_parser_new(&c, &p, NULL) < 0)
		abort();
	for (size_t at = 0; at < len;) {
		size_t n = seed == 0 ? len : seed == 1 ? 1 : 1 + (size_t)rand_r(&seed) % (seed % 3 ? 4 : 24);

		if (n > len - at)
			n = len - at;
		eng_chat_parser_feed(p, text + at, n);
		at += n;
	}
	eng_chat_parser_finish(p);
	eng_chat_parser_free(p);
	if (ret->is_open)
		(void)base_buf_putc(&ret->calls, '!');
}

#endif
