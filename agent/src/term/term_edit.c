/* The line editor.
 *
 * The text is UTF-8 without control characters but newline and tab (what is typed, pasted, prefilled or taken from
 * the history is cleaned on its way in); the cursor stands between graphemes. Each change is drawn as a whole by
 * term_live.c: rows are laid out here by display width, so that a wide character never straddles the edge. Text
 * with more rows than the screen shows those around the cursor. Keys are those of Emacs and of the arrow block. */
#include <ctype.h>
#include <errno.h>
#include <string.h>
#include <utf8proc.h>

#include "term_internal.h"

enum { DEFAULT_MAX = 64 * 1024, PATTERN_MAX = 256, DRAWN_MAX = 8 << 20, TAB = 8 };

enum outcome { GO_ON, SUBMIT, END, CANCEL };

struct editor {
	struct ag_term *t;
	const struct ag_term_edit *o;
	struct base_buf text;
	size_t cursor;
	struct base_buf killed;
	struct base_buf draft; /* the new line, while an entry of the history is shown */
	size_t back;           /* 0: the new line; n: entry n - 1 of the history */
	bool searching;
	struct base_buf pattern;
	size_t found; /* entry of the history that matches */
	bool failed;
	struct term_live live;
	struct base_buf out, rows;
};

/* ---- Changing the text ----------------------------------------------------------------------------------------------
 */

static char *text_at(const struct editor *e, size_t at)
{
	return e->text.data + at;
}

static void delete_range(struct editor *e, size_t from, size_t to)
{
	if (from >= to)
		return;
	memmove(text_at(e, from), text_at(e, to), e->text.len - to + 1);
	e->text.len -= to - from;
	if (e->cursor > to)
		e->cursor -= to - from;
	else if (e->cursor > from)
		e->cursor = from;
}

/* As much of clean text as there is room for. */
static void insert_clean(struct editor *e, const char *s, size_t len)
{
	size_t room = e->text.max - e->text.len;

	while (len > room)
		len -= ag_term_cell_before(s, len);
	if (!len || base_buf_reserve(&e->text, len) < 0)
		return;
	memmove(text_at(e, e->cursor + len), text_at(e, e->cursor), e->text.len - e->cursor + 1);
	memcpy(text_at(e, e->cursor), s, len);
	e->text.len += len;
	e->cursor += len;
}

static void insert(struct editor *e, const char *s, size_t len)
{
	struct base_buf clean = BASE_BUF_INIT(3 * len + 1);

	if (len && ag_term_sanitize(&clean, s, len, false) == 0) {
		for (size_t i = 0; i < clean.len && !e->o->multi_line; i++) {
			if (clean.data[i] == '\n')
				clean.data[i] = ' ';
		}
		insert_clean(e, base_buf_text(&clean), clean.len);
	}
	base_buf_done(&clean);
}

static void insert_char(struct editor *e, uint32_t ch)
{
	utf8proc_uint8_t bytes[4];
	utf8proc_ssize_t n = utf8proc_encode_char((utf8proc_int32_t)ch, bytes);

	if (n > 0)
		insert(e, (const char *)bytes, (size_t)n);
}

static void set_text(struct editor *e, const char *s, size_t len)
{
	base_buf_reset(&e->text);
	(void)base_buf_reserve(&e->text, 1); /* there is text from now on, be it empty */
	e->cursor = 0;
	insert(e, s, len);
}

/* ---- Places in the text
 * ------------------------------------------------------------------------------------------------ */

static size_t next_cell(const struct editor *e, size_t at)
{
	return at < e->text.len ? at + ag_term_cell_at(text_at(e, at), e->text.len - at).len : at;
}

static size_t before_cell(const struct editor *e, size_t at)
{
	return at - ag_term_cell_before(e->text.data, at);
}

static bool is_word(const struct editor *e, size_t at)
{
	unsigned char c = (unsigned char)*text_at(e, at);
	utf8proc_int32_t cp;

	if (c < 0x80)
		return isalnum(c) || c == '_';
	if (utf8proc_iterate((const utf8proc_uint8_t *)text_at(e, at), (utf8proc_ssize_t)(e->text.len - at), &cp) <= 0)
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

static size_t word_after(const struct editor *e, size_t at)
{
	while (at < e->text.len && !is_word(e, at))
		at = next_cell(e, at);
	while (at < e->text.len && is_word(e, at))
		at = next_cell(e, at);
	return at;
}

static size_t word_before(const struct editor *e, size_t at)
{
	while (at && !is_word(e, before_cell(e, at)))
		at = before_cell(e, at);
	while (at && is_word(e, before_cell(e, at)))
		at = before_cell(e, at);
	return at;
}

/* Ctrl-W takes what is between blanks, as shells do. */
static size_t blank_word_before(const struct editor *e, size_t at)
{
	while (at && isspace((unsigned char)*text_at(e, at - 1)))
		at--;
	while (at && !isspace((unsigned char)*text_at(e, at - 1)))
		at--;
	return at;
}

static size_t line_start(const struct editor *e, size_t at)
{
	while (at && *text_at(e, at - 1) != '\n')
		at--;
	return at;
}

static size_t line_end(const struct editor *e, size_t at)
{
	while (at < e->text.len && *text_at(e, at) != '\n')
		at++;
	return at;
}

/* The place in the line [start, end) at this column, or before it. */
static size_t at_column(const struct editor *e, size_t start, size_t end, unsigned column)
{
	return start + ag_term_prefix(text_at(e, start), end - start, column);
}

/* ---- Kill and yank
 * ------------------------------------------------------------------------------------------------------ */

static void kill_range(struct editor *e, size_t from, size_t to)
{
	if (from >= to)
		return;
	base_buf_reset(&e->killed);
	(void)base_buf_append(&e->killed, text_at(e, from), to - from);
	delete_range(e, from, to);
}

static void transpose(struct editor *e)
{
	size_t at = e->cursor == e->text.len ? before_cell(e, e->cursor) : e->cursor;
	size_t left = before_cell(e, at), right = next_cell(e, at);
	char bytes[1024];

	if (left == at || right == at || right - left > sizeof(bytes) || *text_at(e, at) == '\n' ||
	    *text_at(e, left) == '\n')
		return;
	memcpy(bytes, text_at(e, at), right - at);
	memcpy(bytes + (right - at), text_at(e, left), at - left);
	memcpy(text_at(e, left), bytes, right - left);
	e->cursor = right;
}

/* ---- History
 * -------------------------------------------------------------------------------------------------------------- */

/* Entry `back` (0 is the newest) into entry: true when there is one. */
static bool history_entry(struct editor *e, size_t back, struct base_buf *entry)
{
	base_buf_reset(entry);
	return e->o->history && !e->o->secret && e->o->history(e->o->ctx, back, entry) > 0;
}

static void history_go(struct editor *e, size_t back)
{
	struct base_buf entry = BASE_BUF_INIT(e->text.max);

	if (back && !history_entry(e, back - 1, &entry)) {
		base_buf_done(&entry);
		return;
	}
	if (!e->back) {
		base_buf_reset(&e->draft);
		(void)base_buf_append(&e->draft, e->text.data, e->text.len);
	}
	if (back)
		set_text(e, base_buf_text(&entry), entry.len);
	else
		set_text(e, base_buf_text(&e->draft), e->draft.len);
	e->back = back;
	base_buf_done(&entry);
}

/* Up and down go through the lines of the text first, then through the history. */
static void go_up(struct editor *e)
{
	size_t start = line_start(e, e->cursor), above;

	if (start) {
		above = line_start(e, start - 1);
		e->cursor = at_column(e, above, start - 1, ag_term_columns(text_at(e, start), e->cursor - start, 0));
	} else {
		history_go(e, e->back + 1);
	}
}

static void go_down(struct editor *e)
{
	size_t start = line_start(e, e->cursor), end = line_end(e, e->cursor);

	if (end < e->text.len)
		e->cursor = at_column(e, end + 1, line_end(e, end + 1),
		                      ag_term_columns(text_at(e, start), e->cursor - start, 0));
	else if (e->back)
		history_go(e, e->back - 1);
}

/* ---- Search in the history
 * -------------------------------------------------------------------------------------------------- */

static void search_from(struct editor *e, size_t back)
{
	struct base_buf entry = BASE_BUF_INIT(e->text.max);

	e->failed = false;
	if (e->pattern.len) {
		for (; history_entry(e, back, &entry); back++) {
			const char *hit = strstr(base_buf_text(&entry), base_buf_text(&e->pattern));

			if (hit) {
				set_text(e, base_buf_text(&entry), entry.len);
				e->found = back;
				e->back = back + 1;
				base_buf_done(&entry);
				return;
			}
		}
		e->failed = true;
	}
	base_buf_done(&entry);
}

static void search_begin(struct editor *e)
{
	if (!e->o->history || e->o->secret)
		return;
	if (!e->back) {
		base_buf_reset(&e->draft);
		(void)base_buf_append(&e->draft, e->text.data, e->text.len);
	}
	e->searching = true;
	e->failed = false;
	e->found = 0;
	base_buf_reset(&e->pattern);
}

/* A key while searching: true when it was used up. Any other key takes the entry and then does its own work. */
static bool search_key(struct editor *e, const struct ag_term_key *k)
{
	utf8proc_uint8_t bytes[4];
	utf8proc_ssize_t n;

	if (k->type == AG_KEY_CHAR && !k->mods) {
		n = utf8proc_encode_char((utf8proc_int32_t)k->ch, bytes);
		if (n > 0 && e->pattern.len + (size_t)n < PATTERN_MAX)
			(void)ag_term_sanitize(&e->pattern, (const char *)bytes, (size_t)n, false);
		search_from(e, e->found);
		return true;
	}
	if (k->type == AG_KEY_BACKSPACE) {
		e->pattern.len -= ag_term_cell_before(base_buf_text(&e->pattern), e->pattern.len);
		if (e->pattern.data)
			e->pattern.data[e->pattern.len] = '\0';
		search_from(e, 0);
		return true;
	}
	if (k->type == AG_KEY_CHAR && k->mods == AG_MOD_CTRL && k->ch == 'r') {
		search_from(e, e->found + 1);
		return true;
	}
	if (k->type == AG_KEY_RESIZE || k->type == AG_KEY_UNKNOWN || k->type == AG_KEY_INVALID)
		return true;
	e->searching = false;
	if (k->type == AG_KEY_CHAR && k->mods == AG_MOD_CTRL && (k->ch == 'g' || k->ch == 'c')) {
		set_text(e, base_buf_text(&e->draft), e->draft.len);
		e->back = 0;
		return true;
	}
	return k->type == AG_KEY_ESCAPE;
}

/* ---- Drawing
 * --------------------------------------------------------------------------------------------------------------------
 */

struct layout {
	size_t row, cursor_row;
	unsigned column, cursor_column, limit;
	bool ascii_only;
};

static void next_row(struct editor *e, struct layout *l, unsigned indent)
{
	(void)base_buf_putc(&e->rows, '\n');
	for (unsigned i = 0; i < indent; i++)
		(void)base_buf_putc(&e->rows, ' ');
	l->row++;
	l->column = indent;
}

static void lay_out_cell(struct editor *e, struct layout *l, const char *s, struct ag_term_cell cell, bool at_cursor)
{
	bool hidden = e->o->secret || (l->ascii_only && (unsigned char)*s >= 0x80);
	unsigned width = hidden ? 1 : *s == '\t' ? TAB - l->column % TAB : cell.width;

	if (l->column + width > l->limit)
		next_row(e, l, 0);
	if (at_cursor) {
		l->cursor_row = l->row;
		l->cursor_column = l->column;
	}
	if (hidden)
		(void)base_buf_putc(&e->rows, e->o->secret ? '*' : '?');
	else if (*s == '\t')
		(void)base_buf_append(&e->rows, "        ", width);
	else
		(void)base_buf_append(&e->rows, s, cell.len);
	l->column += width;
}

static void put_prompt(struct editor *e, struct layout *l)
{
	const struct ag_term_look *look = ag_term_get_look(e->t);
	const char *word = term_is_chinese() ? (e->failed ? "没有找到" : "搜索") : (e->failed ? "not found" : "search");
	struct base_buf prompt = BASE_BUF_INIT(64 * 1024);

	if (e->searching)
		(void)base_buf_printf(&prompt, "(%s: %s) ", word, base_buf_text(&e->pattern));
	else if (e->o->prompt)
		term_sanitize_drawn(&prompt, e->o->prompt, strlen(e->o->prompt), look->ascii_only);
	for (size_t i = 0; i < prompt.len; i++) {
		if (prompt.data[i] == '\n' || prompt.data[i] == '\t')
			prompt.data[i] = ' ';
	}
	term_append_drawn(&e->rows, base_buf_text(&prompt), prompt.len, l->limit);
	l->column = term_drawn_columns(base_buf_text(&prompt), prompt.len);
	if (l->column > l->limit)
		l->column = l->limit;
	base_buf_done(&prompt);
}

/* The rows [from, from + n) of the layout. */
static const char *window(const struct base_buf *rows, size_t from, size_t n, size_t *ret_len)
{
	const char *start = base_buf_text(rows), *end = start + rows->len, *p, *nl;

	for (; from && (nl = memchr(start, '\n', (size_t)(end - start))); from--)
		start = nl + 1;
	for (p = start; n && (nl = memchr(p, '\n', (size_t)(end - p))); n--)
		p = nl + 1;
	*ret_len = n ? (size_t)(end - start) : (size_t)(p - 1 - start);
	return start;
}

static int draw(struct editor *e)
{
	const struct ag_term_look *look = ag_term_get_look(e->t);
	struct layout l = { .limit = look->columns > 4 ? look->columns - 1 : 3, .ascii_only = look->ascii_only };
	size_t len, top = 0, height = look->rows > 1 ? look->rows : 1;
	const char *shown;
	unsigned indent;

	base_buf_reset(&e->rows);
	put_prompt(e, &l);
	indent = l.column <= l.limit / 3 ? l.column : 0;
	for (size_t i = 0; i < e->text.len;) {
		struct ag_term_cell cell = ag_term_cell_at(text_at(e, i), e->text.len - i);

		if (*text_at(e, i) == '\n') {
			if (i == e->cursor) {
				l.cursor_row = l.row;
				l.cursor_column = l.column;
			}
			next_row(e, &l, indent);
		} else {
			lay_out_cell(e, &l, text_at(e, i), cell, i == e->cursor);
		}
		i += cell.len;
	}
	if (e->cursor == e->text.len) {
		l.cursor_row = l.row;
		l.cursor_column = l.column;
	}
	if (l.row + 1 > height)
		top = l.cursor_row < height ? 0 : l.cursor_row - height + 1;
	shown = window(&e->rows, top, height, &len);
	term_live_draw(&e->live, &e->out, shown, len, l.cursor_row - top, l.cursor_column, look->columns);
	return term_flush_buf(e->t, &e->out);
}

/* ---- Keys
 * -------------------------------------------------------------------------------------------------------------------------
 */

static enum outcome enter(struct editor *e, unsigned mods)
{
	bool continued = e->cursor && e->cursor == e->text.len && *text_at(e, e->cursor - 1) == '\\';

	if (!e->o->multi_line)
		return SUBMIT;
	if (continued)
		delete_range(e, e->cursor - 1, e->cursor);
	if (!continued && !(mods & AG_MOD_ALT))
		return SUBMIT;
	insert(e, "\n", 1);
	return GO_ON;
}

static enum outcome control(struct editor *e, uint32_t ch)
{
	switch (ch) {
	case 'a':
		e->cursor = line_start(e, e->cursor);
		break;
	case 'b':
		e->cursor = before_cell(e, e->cursor);
		break;
	case 'c':
		return CANCEL;
	case 'd':
		if (!e->text.len)
			return END;
		delete_range(e, e->cursor, next_cell(e, e->cursor));
		break;
	case 'e':
		e->cursor = line_end(e, e->cursor);
		break;
	case 'f':
		e->cursor = next_cell(e, e->cursor);
		break;
	case 'j':
		return enter(e, AG_MOD_ALT);
	case 'k': { /* at its end, the newline itself */
		size_t end = line_end(e, e->cursor);

		kill_range(e, e->cursor, end == e->cursor ? next_cell(e, end) : end);
		break;
	}
	case 'l':
		(void)base_buf_puts(&e->out, "\033[H\033[2J");
		e->live.n_rows = 0;
		break;
	case 'n':
		go_down(e);
		break;
	case 'p':
		go_up(e);
		break;
	case 'r':
		search_begin(e);
		break;
	case 't':
		transpose(e);
		break;
	case 'u':
		kill_range(e, line_start(e, e->cursor), e->cursor);
		break;
	case 'w':
		kill_range(e, blank_word_before(e, e->cursor), e->cursor);
		break;
	case 'y':
		insert_clean(e, base_buf_text(&e->killed), e->killed.len);
		break;
	case 'z':
		term_suspend();
		break;
	default:
		break;
	}
	return GO_ON;
}

static void alt(struct editor *e, uint32_t ch)
{
	if (ch == 'b')
		e->cursor = word_before(e, e->cursor);
	else if (ch == 'f')
		e->cursor = word_after(e, e->cursor);
	else if (ch == 'd')
		kill_range(e, e->cursor, word_after(e, e->cursor));
	else if (ch == '<')
		e->cursor = 0;
	else if (ch == '>')
		e->cursor = e->text.len;
}

static enum outcome handle(struct editor *e, const struct ag_term_key *k)
{
	bool by_word = k->mods & (AG_MOD_CTRL | AG_MOD_ALT);

	if (e->searching && search_key(e, k))
		return GO_ON;
	switch (k->type) {
	case AG_KEY_CHAR:
		if (k->mods & AG_MOD_CTRL)
			return control(e, k->ch);
		if (k->mods & AG_MOD_ALT)
			alt(e, k->ch);
		else
			insert_char(e, k->ch);
		break;
	case AG_KEY_ENTER:
		return enter(e, k->mods);
	case AG_KEY_BACKSPACE:
		if (by_word)
			kill_range(e, word_before(e, e->cursor), e->cursor);
		else
			delete_range(e, before_cell(e, e->cursor), e->cursor);
		break;
	case AG_KEY_DELETE:
		if (by_word)
			kill_range(e, e->cursor, word_after(e, e->cursor));
		else
			delete_range(e, e->cursor, next_cell(e, e->cursor));
		break;
	case AG_KEY_LEFT:
		e->cursor = by_word ? word_before(e, e->cursor) : before_cell(e, e->cursor);
		break;
	case AG_KEY_RIGHT:
		e->cursor = by_word ? word_after(e, e->cursor) : next_cell(e, e->cursor);
		break;
	case AG_KEY_HOME:
		e->cursor = line_start(e, e->cursor);
		break;
	case AG_KEY_END:
		e->cursor = line_end(e, e->cursor);
		break;
	case AG_KEY_UP:
		go_up(e);
		break;
	case AG_KEY_DOWN:
		go_down(e);
		break;
	case AG_KEY_PASTE:
		insert(e, k->text, k->len);
		break;
	default: /* Tab, Escape, Page keys and unknown ones do nothing here */
		break;
	}
	return GO_ON;
}

static int edit_raw(struct editor *e, enum outcome *ret_outcome)
{
	enum outcome outcome = GO_ON;
	struct ag_term_key k;
	int r = draw(e);

	while (r >= 0 && outcome == GO_ON) {
		r = term_read_key(e->t, &k);
		if (r < 0)
			break;
		outcome = r ? handle(e, &k) : END;
		if (outcome == GO_ON && !term_has_more_keys(e->t))
			r = draw(e);
	}
	if (r < 0)
		return r;
	e->cursor = e->text.len;
	e->searching = false;
	r = draw(e);
	if (outcome == CANCEL)
		(void)base_buf_puts(&e->out, "^C");
	term_live_leave(&e->live, &e->out);
	*ret_outcome = outcome;
	return r < 0 ? r : term_flush_buf(e->t, &e->out);
}

/* ---- A dumb terminal
 * ------------------------------------------------------------------------------------------------------------------ */

/* The text given before is shown in brackets; an empty line keeps it. */
static int edit_dumb(struct ag_term *t, const struct ag_term_edit *o, size_t max, struct base_buf *ret, struct err *err)
{
	const struct ag_term_look *look = ag_term_get_look(t);
	struct base_buf line = BASE_BUF_INIT(3 * max + 3), shown = BASE_BUF_INIT(64 * 1024);
	size_t start;
	int r;

	if (o->prompt)
		term_sanitize_drawn(&shown, o->prompt, strlen(o->prompt), look->ascii_only);
	if (o->text && *o->text && !o->secret) {
		(void)base_buf_putc(&shown, '[');
		(void)ag_term_sanitize(&shown, o->text, strlen(o->text), look->ascii_only);
		(void)base_buf_puts(&shown, "] ");
	}
	do {
		start = line.len;
		r = term_read_line(t, &shown, false, o->secret, max, &line, err);
		if (r <= 0 || !o->multi_line || line.len == start || line.data[line.len - 1] != '\\')
			break;
		line.data[line.len - 1] = '\n';
	} while (true);
	if (r > 0 && !line.len && o->text)
		(void)ag_term_sanitize(ret, o->text, strlen(o->text), false);
	else if (r > 0)
		(void)base_buf_append(ret, base_buf_text(&line), line.len);
	base_buf_done(&line);
	base_buf_done(&shown);
	return r > 0 && base_buf_error(ret) < 0 ? err_set(err, base_buf_error(ret), "the text is too long") : r;
}

int ag_term_edit(struct ag_term *t, const struct ag_term_edit *edit, struct base_buf *ret_text, struct err *err)
{
	size_t max = edit->max_bytes ? edit->max_bytes : DEFAULT_MAX;
	struct editor e = {
		.t = t,
		.o = edit,
		.text = BASE_BUF_INIT(max),
		.killed = BASE_BUF_INIT(max),
		.draft = BASE_BUF_INIT(max),
		.pattern = BASE_BUF_INIT(PATTERN_MAX),
		.out = BASE_BUF_INIT(DRAWN_MAX),
		.rows = BASE_BUF_INIT(DRAWN_MAX),
	};
	enum outcome outcome = END;
	int r;

	if (!ag_term_get_look(t)->can_move)
		return edit_dumb(t, edit, max, ret_text, err);
	r = term_raw_begin(t, false, err);
	if (r < 0)
		return r;
	set_text(&e, edit->text ? edit->text : "", edit->text ? strlen(edit->text) : 0);
	r = edit_raw(&e, &outcome);
	term_raw_end(t);
	if (r >= 0 && outcome == SUBMIT)
		r = base_buf_append(ret_text, e.text.data, e.text.len);
	if (r < 0)
		(void)err_set(err, r, "terminal: %s", strerror(-r));
	term_live_done(&e.live);
	base_buf_done(&e.text);
	base_buf_done(&e.killed);
	base_buf_done(&e.draft);
	base_buf_done(&e.pattern);
	base_buf_done(&e.out);
	base_buf_done(&e.rows);
	return r < 0 ? r : outcome == SUBMIT ? 1 : outcome == CANCEL ? -ECANCELED : 0;
}
