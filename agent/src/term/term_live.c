/* A part of the screen that is drawn over: the line being edited, a menu, the paragraph that is still arriving.
 *
 * The cursor's place within it is known, and so is the width of each row as drawn. Drawing goes up to the first
 * row, overwrites row by row and clears only what is left of each, in one write: nothing flickers. When the
 * window becomes narrower, terminals (VTE, tmux, kitty, the consoles) fold long rows, so the way up is counted
 * with the new width. */
#include <stdlib.h>
#include <string.h>

#include "term_internal.h"

void term_live_done(struct term_live *live)
{
	free(live->widths);
	*live = (struct term_live){ 0 };
}

/* Rows of the screen that the cursor is below the first one, in a window of this width. */
static size_t rows_above(const struct term_live *live, unsigned columns)
{
	size_t n = 0;

	if (!live->n_rows)
		return 0;
	for (size_t i = 0; i < live->cursor_row && i < live->n_rows; i++)
		n += live->widths[i] > columns ? (live->widths[i] + columns - 1) / columns : 1;
	return n + live->cursor_column / columns;
}

static bool note_row(struct term_live *live, unsigned width)
{
	if (live->n_rows == live->cap_rows) {
		size_t cap = live->cap_rows ? live->cap_rows * 2 : 16;
		unsigned *grown = reallocarray(live->widths, cap, sizeof(*grown));

		if (!grown)
			return false;
		live->widths = grown;
		live->cap_rows = cap;
	}
	live->widths[live->n_rows++] = width;
	return true;
}

static void go_to_first(const struct term_live *live, struct base_buf *out, unsigned columns)
{
	size_t up = rows_above(live, columns);

	(void)base_buf_putc(out, '\r');
	if (up)
		(void)base_buf_printf(out, "\033[%zuA", up);
}

void term_live_draw(struct term_live *live, struct base_buf *out, const char *rows, size_t len, size_t cursor_row,
                    unsigned cursor_column, unsigned columns)
{
	const char *end = rows + len, *nl;

	columns = columns > 2 ? columns : 2;
	go_to_first(live, out, columns);
	live->n_rows = 0;
	for (;; rows = nl + 1) {
		unsigned width;

		nl = memchr(rows, '\n', (size_t)(end - rows));
		width = term_drawn_columns(rows, (size_t)((nl ? nl : end) - rows));
		term_append_drawn(out, rows, (size_t)((nl ? nl : end) - rows), columns - 1);
		(void)base_buf_puts(out, "\033[K");
		if (!note_row(live, width < columns ? width : columns - 1) || !nl)
			break;
		(void)base_buf_puts(out, "\r\n");
	}
	(void)base_buf_puts(out, "\033[J\r");
	if (cursor_row >= live->n_rows)
		cursor_row = live->n_rows ? live->n_rows - 1 : 0;
	if (live->n_rows && cursor_row < live->n_rows - 1)
		(void)base_buf_printf(out, "\033[%zuA", live->n_rows - 1 - cursor_row);
	if (cursor_column >= columns)
		cursor_column = columns - 1;
	if (cursor_column)
		(void)base_buf_printf(out, "\033[%uC", cursor_column);
	live->cursor_row = cursor_row;
	live->cursor_column = cursor_column;
}

void term_live_erase(struct term_live *live, struct base_buf *out, unsigned columns)
{
	if (!live->n_rows)
		return;
	go_to_first(live, out, columns > 2 ? columns : 2);
	(void)base_buf_puts(out, "\033[J");
	live->n_rows = live->cursor_row = 0;
	live->cursor_column = 0;
}

void term_live_leave(struct term_live *live, struct base_buf *out)
{
	if (!live->n_rows)
		return;
	if (live->cursor_row < live->n_rows - 1)
		(void)base_buf_printf(out, "\033[%zuB", live->n_rows - 1 - live->cursor_row);
	(void)base_buf_puts(out, "\r\n");
	live->n_rows = live->cursor_row = 0;
	live->cursor_column = 0;
}
