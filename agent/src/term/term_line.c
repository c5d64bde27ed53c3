/* See term_line.h. */
#include "term_line.h"

#include <ctype.h>
#include <string.h>
#include <utf8proc.h>

#include "term_internal.h"

char *term_line_at(const struct term_line *l, size_t at)
{
	return l->text.data + at;
}

void term_line_delete(struct term_line *l, size_t from, size_t to)
{
	if (from >= to)
		return;
	memmove(term_line_at(l, from), term_line_at(l, to), l->text.len - to + 1);
	l->text.len -= to - from;
	if (l->cursor > to)
		l->cursor -= to - from;
	else if (l->cursor > from)
		l->cursor = from;
}

/* As much of clean text as there is room for. */
void term_line_insert_clean(struct term_line *l, const char *s, size_t len)
{
	size_t room = l->text.max - l->text.len;

	while (len > room)
		len -= ag_term_cell_before(s, len);
	if (!len || base_buf_reserve(&l->text, len) < 0)
		return;
	memmove(term_line_at(l, l->cursor + len), term_line_at(l, l->cursor), l->text.len - l->cursor + 1);
	memcpy(term_line_at(l, l->cursor), s, len);
	l->text.len += len;
	l->cursor += len;
}

void term_line_insert(struct term_line *l, const char *s, size_t len)
{
	struct base_buf clean = BASE_BUF_INIT(3 * len + 1);

	if (len && ag_term_sanitize(&clean, s, len, false) == 0) {
		for (size_t i = 0; i < clean.len && l->is_one_line; i++) {
			if (clean.data[i] == '\n')
				clean.data[i] = ' ';
		}
		term_line_insert_clean(l, base_buf_text(&clean), clean.len);
	}
	base_buf_done(&clean);
}

void term_line_insert_char(struct term_line *l, uint32_t ch)
{
	utf8proc_uint8_t bytes[4];
	utf8proc_ssize_t n = utf8proc_encode_char((utf8proc_int32_t)ch, bytes);

	if (n > 0)
		term_line_insert(l, (const char *)bytes, (size_t)n);
}

void term_line_set(struct term_line *l, const char *s, size_t len)
{
	base_buf_reset(&l->text);
	(void)base_buf_reserve(&l->text, 1); /* there is text from now on, be it empty */
	l->cursor = 0;
	term_line_insert(l, s, len);
}

/* ---- Places in the text -------------------------------------------------------------------------------------- */

size_t term_line_next(const struct term_line *l, size_t at)
{
	return at < l->text.len ? at + ag_term_cell_at(term_line_at(l, at), l->text.len - at).len : at;
}

size_t term_line_before(const struct term_line *l, size_t at)
{
	return at - ag_term_cell_before(l->text.data, at);
}

static bool is_word(const struct term_line *l, size_t at)
{
	unsigned char c = (unsigned char)*term_line_at(l, at);
	utf8proc_int32_t cp;

	if (c < 0x80)
		return isalnum(c) || c == '_';
	if (utf8proc_iterate((const utf8proc_uint8_t *)term_line_at(l, at), (utf8proc_ssize_t)(l->text.len - at),
	                     &cp) <= 0)
		return false;
	switch (utf8proc_category(cp)) {
	case UTF8PROC_CATEGORY_PC:
	case UTF8PROC_CATEGORY_PD:
	case UTF8PROC_CATEGORY_PS:
	case UTF8PROC_CATEGORY_PE:
	case UTF8PROC_CATEGORY_PI:
	case UTF8PROC_CATEGORY_PF:
	case UTF8PROC_CATEGORY_PO:
	case UTF8PROC_CATEGORY_ZS:
		return false;
	default:
		return true;
	}
}

size_t term_line_word_after(const struct term_line *l, size_t at)
{
	while (at < l->text.len && !is_word(l, at))
		at = term_line_next(l, at);
	while (at < l->text.len && is_word(l, at))
		at = term_line_next(l, at);
	return at;
}

size_t term_line_word_before(const struct term_line *l, size_t at)
{
	while (at && !is_word(l, term_line_before(l, at)))
		at = term_line_before(l, at);
	while (at && is_word(l, term_line_before(l, at)))
		at = term_line_before(l, at);
	return at;
}

/* Ctrl-W takes what is between blanks, as shells do. */
size_t term_line_blank_before(const struct term_line *l, size_t at)
{
	while (at && isspace((unsigned char)*term_line_at(l, at - 1)))
		at--;
	while (at && !isspace((unsigned char)*term_line_at(l, at - 1)))
		at--;
	return at;
}

size_t term_line_start(const struct term_line *l, size_t at)
{
	while (at && *term_line_at(l, at - 1) != '\n')
		at--;
	return at;
}

size_t term_line_end(const struct term_line *l, size_t at)
{
	while (at < l->text.len && *term_line_at(l, at) != '\n')
		at++;
	return at;
}

/* The place in the line [start, end) at this column, or before it. */
size_t term_line_at_column(const struct term_line *l, size_t start, size_t end, unsigned column)
{
	return start + ag_term_prefix(term_line_at(l, start), end - start, column);
}

/* ---- Kill and yank ------------------------------------------------------------------------------------------- */

void term_line_kill(struct term_line *l, size_t from, size_t to)
{
	if (from >= to)
		return;
	base_buf_reset(&l->killed);
	(void)base_buf_append(&l->killed, term_line_at(l, from), to - from);
	term_line_delete(l, from, to);
}

void term_line_transpose(struct term_line *l)
{
	size_t at = l->cursor == l->text.len ? term_line_before(l, l->cursor) : l->cursor;
	size_t left = term_line_before(l, at), right = term_line_next(l, at);
	char bytes[1024];

	if (left == at || right == at || right - left > sizeof(bytes) || *term_line_at(l, at) == '\n' ||
	    *term_line_at(l, left) == '\n')
		return;
	memcpy(bytes, term_line_at(l, at), right - at);
	memcpy(bytes + (right - at), term_line_at(l, left), at - left);
	memcpy(term_line_at(l, left), bytes, right - left);
	l->cursor = right;
}
