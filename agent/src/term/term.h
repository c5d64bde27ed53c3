/* The terminal: keys, width of text, a line editor, menus, forms, and Markdown as it streams in.
 *
 * Two sides, which a pipe separates. Questions are asked on the terminal device (/dev/tty), whatever stdin and
 * stdout are: struct ag_term. Results go to a descriptor of the caller, usually stdout: struct ag_term_look
 * says what may be written there. Raw mode lasts only as long as a question does and is left in any case: on
 * return, on SIGINT, SIGTERM, SIGHUP, SIGQUIT, SIGTSTP (and entered again on SIGCONT), on exit and on a crash.
 *
 * Text that comes from outside (a model, a file) is made harmless by whatever draws it here: no control
 * character and no escape sequence passes. One thread; one question at a time in a process. */
#ifndef AG_TERM_H
#define AG_TERM_H

#include <signal.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/buf.h"
#include "base/err.h"

/* ---- What a place can show ------------------------------------------------------------------------------ */

struct ag_term_look {
	bool is_terminal; /* a terminal, even a dumb one */
	bool can_move;    /* the cursor can be moved: a terminal, and TERM is not "dumb" or empty */
	bool color;       /* escape sequences for colour and weight may be written */
	bool utf8;        /* else ASCII frames and arrows */
	bool ascii_only;  /* the locale names another charset than UTF-8 (not the plain C locale): '?' for what is not
	                     ASCII */
	unsigned columns, rows; /* 80 x 24 when nobody knows */
};

/* color: "auto" (or NULL), "always" or "never". auto is a terminal that can move, unless NO_COLOR is set and not
 * empty; "always" holds on pipes and against NO_COLOR too. fd may be -1: nothing but the locale is known. */
void ag_term_look_at(int fd, const char *color, struct ag_term_look *ret_look);

enum ag_term_style {
	AG_TERM_RESET,
	AG_TERM_BOLD,
	AG_TERM_DIM,
	AG_TERM_ITALIC,
	AG_TERM_UNDERLINE,
	AG_TERM_REVERSE,
	AG_TERM_HEADING,
	AG_TERM_CODE,
	AG_TERM_LINK,
	AG_TERM_OK,
	AG_TERM_WARN,
	AG_TERM_BAD,
};

/* The sequence that starts the style, "" where colour is not allowed. */
const char *ag_term_sgr(const struct ag_term_look *look, enum ag_term_style style);

/* ---- The terminal device -------------------------------------------------------------------------------- */

struct ag_term;

/* device: NULL for /dev/tty. -ENOTTY when there is no terminal to ask (cron, a service). */
int ag_term_open(const char *device, const char *color, struct ag_term **ret_term, struct err *err);
void ag_term_close(struct ag_term *t);
/* As it is now: sizes follow the window. */
const struct ag_term_look *ag_term_get_look(struct ag_term *t);
/* Writes text to the device as it is (caller's own words and ag_term_sgr sequences). */
int ag_term_puts(struct ag_term *t, const char *text);

/* While something is written that takes its time (an answer): keys are not echoed into it, and a paste stays one.
 * They wait for the next question (which ends it), or for the shell. Does nothing where that cannot be. */
void ag_term_quiet_begin(struct ag_term *t);
void ag_term_quiet_end(struct ag_term *t);

/* Between begin and end, SIGINT (Ctrl-C while no question is open) is only noted; asked() tells whether it came
 * since begin, from any thread. end puts back what was there. */
void ag_term_interrupt_begin(void);
bool ag_term_interrupt_asked(void);
void ag_term_interrupt_end(void);
/* What asked() looks at, for functions that take a flag: not 0 once it came. */
const volatile sig_atomic_t *ag_term_interrupt_flag(void);

/* ---- Width of text ---------------------------------------------------------------------------------------- */

struct ag_term_cell {   /* one user-perceived character */
	size_t len;     /* bytes, at least 1 */
	unsigned width; /* 0, 1 or 2 columns; an invalid byte is 1 */
};

/* The grapheme at the start of text; len must not be 0. Tabs and other control characters have width 0. */
struct ag_term_cell ag_term_cell_at(const char *text, size_t len);
/* Bytes of the last grapheme of text; 0 only for the empty text. */
size_t ag_term_cell_before(const char *text, size_t len);
/* Columns of text on one line. Tabs go to the next multiple of 8, starting at column. */
unsigned ag_term_columns(const char *text, size_t len, unsigned column);
/* Bytes of the longest prefix that fits in columns, never inside a grapheme. */
size_t ag_term_prefix(const char *text, size_t len, unsigned columns);
/* Appends text, or as much as fits in columns with an ellipsis ("…", or "..." without utf8) at its end. */
int ag_term_clip(struct base_buf *out, const char *text, size_t len, unsigned columns, bool utf8);
/* The next line of text (without newlines) that fits in columns: returns its bytes, without the blanks it ends
 * in, and in ret_next where the following line begins. Breaks at blanks, between Chinese characters where the
 * rules for punctuation allow (no 。 at a line's start, no 《 at its end), and inside a word only when it must. */
size_t ag_term_wrap(const char *text, size_t len, unsigned columns, size_t *ret_next);
/* Appends text without what could act on a terminal: control characters (C0 but newline and tab, DEL, C1),
 * bidirectional overrides, and bytes that are no UTF-8 (shown as U+FFFD, or '?' when ascii_only, like all that is not
 * ASCII). */
int ag_term_sanitize(struct base_buf *out, const char *text, size_t len, bool ascii_only);

/* ---- Keys ------------------------------------------------------------------------------------------------- */

enum ag_term_key_type {
	AG_KEY_CHAR, /* ch; with AG_MOD_CTRL ch is the small letter or the sign */
	AG_KEY_ENTER,
	AG_KEY_TAB,
	AG_KEY_BACKSPACE,
	AG_KEY_ESCAPE,
	AG_KEY_UP,
	AG_KEY_DOWN,
	AG_KEY_LEFT,
	AG_KEY_RIGHT,
	AG_KEY_HOME,
	AG_KEY_END,
	AG_KEY_PAGE_UP,
	AG_KEY_PAGE_DOWN,
	AG_KEY_INSERT,
	AG_KEY_DELETE,
	AG_KEY_FUNCTION, /* ch: 1..24 */
	AG_KEY_PASTE,    /* text, len: all of it; carriage returns are newlines, no other control but tab */
	AG_KEY_INVALID,  /* ch: a byte that is no UTF-8 */
	AG_KEY_UNKNOWN,  /* a whole sequence without a meaning here */
	AG_KEY_RESIZE,   /* only from ag_term_read_key */
};

enum { AG_MOD_SHIFT = 1u << 0, AG_MOD_ALT = 1u << 1, AG_MOD_CTRL = 1u << 2 };

struct ag_term_key {
	enum ag_term_key_type type;
	unsigned mods;
	uint32_t ch;
	const char *text; /* a paste's, valid until the decoder is fed again */
	size_t len;
};

/* Bytes to keys: no I/O, no clock. Fields are the decoder's own. */
struct ag_term_keys {
	struct base_buf in; /* bytes not decoded yet */
	size_t pos;
	struct base_buf raw; /* a paste, as it comes */
	struct base_buf paste;
	bool in_paste;
};

void ag_term_keys_init(struct ag_term_keys *k);
void ag_term_keys_done(struct ag_term_keys *k);
int ag_term_keys_feed(struct ag_term_keys *k, const void *bytes, size_t n);
/* 1 and a key, or 0 when more bytes are needed. timed_out: no more came for a while, so that an ESC or a half
 * sequence is taken for what it is (a paste is still waited for). */
int ag_term_keys_next(struct ag_term_keys *k, bool timed_out, struct ag_term_key *ret_key);
/* Bytes are waiting that only time can explain: call again with timed_out after some 50 ms. */
bool ag_term_keys_is_waiting(const struct ag_term_keys *k);

/* ---- Line editor ------------------------------------------------------------------------------------------ */

struct ag_term_edit {
	const char *prompt; /* one line of text; may hold ag_term_sgr sequences */
	const char *text;   /* what is in the line at first; NULL for nothing */
	bool multi_line;    /* Alt-Enter, Ctrl-J, a backslash before Enter and pastes make new lines */
	bool secret;        /* shows a star for each character, no history */
	size_t max_bytes;   /* 0: 64 KiB */
	/* The entry `back` steps before now (0 is the newest), appended: 1, or 0 when there is none. May be NULL. */
	int (*history)(void *ctx, size_t back, struct base_buf *ret_entry);
	void *ctx;
};

/* 1 and the text appended; 0 for the end (Ctrl-D on an empty line, end of file); -ECANCELED for Ctrl-C (the line
 * is gone, the program goes on). The cursor is left at the start of a fresh line. */
int ag_term_edit(struct ag_term *t, const struct ag_term_edit *edit, struct base_buf *ret_text, struct err *err);

/* ---- Menu, question, form --------------------------------------------------------------------------------- */

struct ag_term_item {
	const char *label;
	const char *about; /* one line shown while it is chosen; NULL for none */
	char key;          /* ASCII letter or digit that picks it at once; 0 for none */
	bool disabled;
};

struct ag_term_menu {
	const char *title; /* may have several lines; NULL for none */
	const struct ag_term_item *items;
	size_t n_items;
	size_t start; /* chosen at first: Enter takes it */
};

/* Index of the item; -ECANCELED for Esc, q when no item has it, Ctrl-C, Ctrl-D and end of file. Keys typed before the
 * menu was there do not count. The title stays on the screen, the items are replaced by the chosen one. On a dumb
 * terminal a numbered list and a question. */
int ag_term_menu(struct ag_term *t, const struct ag_term_menu *menu, struct err *err);

/* 1 yes, 0 no (and for a cancelled question): no sooner than a key y or n, or Enter for the default. */
int ag_term_confirm(struct ag_term *t, const char *question, bool is_yes_default, struct err *err);

struct ag_term_field {
	const char *label;
	const char *about; /* NULL for none */
	const char *text;  /* filled in before; NULL for nothing */
	bool optional;     /* may be left empty */
	/* NULL, or whether the value will do: 0, or an error whose words are shown before it is asked again. */
	int (*check)(void *ctx, const char *value, struct err *err);
	void *ctx;
};

/* Fills values[i] (set up by the caller) for each field: 0, or -ECANCELED when one of them was. */
int ag_term_form(struct ag_term *t, const char *title, const struct ag_term_field *fields, size_t n_fields,
                 struct base_buf *values, struct err *err);

/* ---- Markdown ----------------------------------------------------------------------------------------------- */

struct ag_term_md;

/* Takes rendered bytes; negative stops the rendering and is returned by feed or finish. */
typedef int (*ag_term_write_fn)(void *ctx, const char *bytes, size_t len);

/* The look decides all: width, colours, frames, and whether the block that is still growing is shown and drawn
 * over when it changes (can_move) or held back until it is final. The final output is the same for every way to
 * cut the text into pieces. The look is copied. */
int ag_term_md_new(const struct ag_term_look *look, ag_term_write_fn write, void *ctx, struct ag_term_md **ret_md);
/* The window has another width: counts from the next block on. */
void ag_term_md_resize(struct ag_term_md *md, unsigned columns, unsigned rows);
int ag_term_md_feed(struct ag_term_md *md, const char *text, size_t len);
/* What is left; the last line is ended. The renderer can then be fed a new text. */
int ag_term_md_finish(struct ag_term_md *md);
void ag_term_md_free(struct ag_term_md *md);

#endif
