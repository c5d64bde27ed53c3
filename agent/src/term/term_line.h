/* The text that is edited, and the place in it: UTF-8 without control characters but newline and tab, whatever is put
 * in; the cursor stands between graphemes. Knows no keys and draws nothing (term_edit.c). Places are bytes. */
#ifndef AG_TERM_LINE_H
#define AG_TERM_LINE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/buf.h"

struct term_line { /* buffers are its user's, with their ceilings */
	struct base_buf text;
	size_t cursor;
	struct base_buf killed; /* what was killed last */
	bool is_one_line;       /* newlines become blanks */
};

char *term_line_at(const struct term_line *l, size_t at);

/* What there is no room for is left out. */
void term_line_insert(struct term_line *l, const char *s, size_t len);
void term_line_insert_char(struct term_line *l, uint32_t ch);
void term_line_insert_clean(struct term_line *l, const char *s, size_t len); /* text of ours */
void term_line_set(struct term_line *l, const char *s, size_t len);          /* in place of all; cursor at its end */
void term_line_delete(struct term_line *l, size_t from, size_t to);
void term_line_kill(struct term_line *l, size_t from, size_t to);
void term_line_transpose(struct term_line *l); /* the graphemes around the cursor */

size_t term_line_next(const struct term_line *l, size_t at); /* grapheme */
size_t term_line_before(const struct term_line *l, size_t at);
size_t term_line_word_after(const struct term_line *l, size_t at);
size_t term_line_word_before(const struct term_line *l, size_t at);
/* Ctrl-W takes what is between blanks, as shells do. */
size_t term_line_blank_before(const struct term_line *l, size_t at);
size_t term_line_start(const struct term_line *l, size_t at); /* of the line that the place is in */
size_t term_line_end(const struct term_line *l, size_t at);
/* The place in the line [start, end) at this column, or before it. */
size_t term_line_at_column(const struct term_line *l, size_t start, size_t end, unsigned column);

#endif
