/* What the files of the terminal room share. */
#ifndef TERM_INTERNAL_H
#define TERM_INTERNAL_H

#include "term.h"

/* ---- Text with our own style sequences (term_width.c) ------------------------------------------------------ */

unsigned term_drawn_columns(const char *text, size_t len);
/* As much as fits in columns; styles are ended when it is cut. Errors stay in out. */
void term_append_drawn(struct base_buf *out, const char *text, size_t len, unsigned columns);
/* ag_term_sanitize that lets style sequences pass: only for prompts of the program's own. */
void term_sanitize_drawn(struct base_buf *out, const char *text, size_t len, bool ascii_only);

/* ---- A part of the screen that is drawn over (term_live.c) -------------------------------------------------- */

struct term_live {
	unsigned *widths; /* columns of each row that was drawn */
	size_t n_rows, cap_rows;
	size_t cursor_row;
	unsigned cursor_column;
};

void term_live_done(struct term_live *live);
/* Appends what draws rows ("\n" between them, no newline at the end) over what is there and puts the cursor. Rows are
 * cut to columns - 1, so that the terminal never wraps by itself. */
void term_live_draw(struct term_live *live, struct base_buf *out, const char *rows, size_t len, size_t cursor_row,
                    unsigned cursor_column, unsigned columns);
/* Appends what takes it off the screen; the cursor is where it began. */
void term_live_erase(struct term_live *live, struct base_buf *out, unsigned columns);
/* Appends what leaves it on the screen and goes to a fresh line below. */
void term_live_leave(struct term_live *live, struct base_buf *out);

/* ---- What a place can show (term_look.c) ---------------------------------------------------------------------- */

/* Columns and rows of the terminal at fd, or the environment's; look->is_terminal is set. */
void term_look_at_size(int fd, struct ag_term_look *look);
/* Chinese words for the room's own few ones. */
bool term_is_chinese(void);

/* ---- The device (term_tty.c) ---------------------------------------------------------------------------------- */

/* A question begins and ends: raw mode and bracketed paste. Calls nest (a form stays raw between its fields: what is
 * typed ahead reaches the next one as it was typed). fresh: what was typed before is thrown away; else it counts. */
int term_raw_begin(struct ag_term *t, bool fresh, struct err *err);
void term_raw_end(struct ag_term *t);
/* The next key: 1, or 0 at the end of input, or a negative error. AG_KEY_RESIZE also when all must be drawn again
 * (the program was stopped and goes on). */
int term_read_key(struct ag_term *t, struct ag_term_key *ret_key);
/* Bytes of more keys are here: drawing can wait for them. */
bool term_has_more_keys(const struct ag_term *t);
/* Ctrl-Z: stops the program as the shell expects, returns when it goes on. */
void term_suspend(void);
int term_flush_buf(struct ag_term *t, struct base_buf *out); /* writes and empties it */
/* One line by the terminal's own editing, for dumb terminals: 1 and the line, 0 at the end, -ECANCELED. The prompt is
 * written (and emptied) when all is ready for the answer: whoever sees it can type, and Ctrl-C cancels the line. */
int term_read_line(struct ag_term *t, struct base_buf *prompt, bool fresh, bool secret, size_t max_bytes,
                   struct base_buf *ret_line, struct err *err);

#endif
