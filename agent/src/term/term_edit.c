/* The line editor.
 *
 * The text and its cursor are term_line.c's, which cleans what is typed, pasted, prefilled or taken from the history.
 * Each change is drawn as a whole by term_live.c: rows are laid out here by display width, so that a wide character
 * never straddles the edge. Text with more rows than the screen shows those around the cursor. Keys are those of Emacs
 * and of the arrow block. */
#include <errno.h>
#include <string.h>
#include <utf8proc.h>

#include "term_internal.h"
#include "term_line.h"

enum { DEFAULT_MAX = 64 * 1024, PATTERN_MAX = 256, DRAWN_MAX = 8 << 20, TAB = 8 };

enum outcome { GO_ON, SUBMIT, END, CANCEL };

struct editor {
	struct ag_term *t;
	const struct ag_term_edit *o;
	struct term_line line;
	struct base_buf draft; /* the new line, while an entry of the history is shown */
	size_t back;           /* 0: the new line; n: entry n - 1 of the history */
	bool searching;
	struct base_buf pattern;
	size_t found; /* entry of the history that matches */
	bool failed;
	struct term_live live;
	struct base_buf out, rows;
};

/* ---- History ---- */

/* Entry `back` (0 is the newest) into entry: true when there is one. */
static bool history_entry(struct editor *e, size_t back, struct base_buf *entry)
{
	base_buf_reset(entry);
	return e->o->history && !e->o->secret && e->o->history(e->o->ctx, back, entry) > 0;
}

static void history_go(struct editor *e, size_t back)
{
	struct base_buf entry = BASE_BUF_INIT(e->line.text.max);

	if (back && !history_entry(e, back - 1, &entry)) {
		base_buf_done(&entry);
		return;
	}
	if (!e->back) {
		base_buf_reset(&e->draft);
		(void)base_buf_append(&e->draft, e->line.text.data, e->line.text.len);
	}
	if (back)
		term_line_set(&e->line, base_buf_text(&entry), entry.len);
	else
		term_line_set(&e->line, base_buf_text(&e->draft), e->draft.len);
	e->back = back;
	base_buf_done(&entry);
}

/* Up and down go through the lines of the text first, then through the history. */
static void go_up(struct editor *e)
{
	size_t start = term_line_start(&e->line, e->line.cursor), above;

	if (start) {
		above = term_line_start(&e->line, start - 1);
		e->line.cursor =
		        term_line_at_column(&e->line, above, start - 1,
		                            ag_term_columns(term_line_at(&e->line, start), e->line.cursor - start, 0));
	} else {
		history_go(e, e->back + 1);
	}
}

static void go_down(struct editor *e)
{
	size_t start = term_line_start(&e->line, e->line.cursor), end = term_line_end(&e->line, e->line.cursor);

	if (end < e->line.text.len)
		e->line.cursor =
		        term_line_at_column(&e->line, end + 1, term_line_end(&e->line, end + 1),
		                            ag_term_columns(term_line_at(&e->line, start), e->line.cursor - start, 0));
	else if (e->back)
		history_go(e, e->back - 1);
}

/* ---- Search in the history ---- */

static void search_from(struct editor *e, size_t back)
{
	struct base_buf entry = BASE_BUF_INIT(e->line.text.max);

	e->failed = false;
	if (e->pattern.len) {
		for (; history_entry(e, back, &entry); back++) {
			const char *hit = strstr(base_buf_text(&entry), base_buf_text(&e->pattern));

			if (hit) {
				term_line_set(&e->line, base_buf_text(&entry), entry.len);
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
		(void)base_buf_append(&e->draft, e->line.text.data, e->line.text.len);
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
		term_line_set(&e->line, base_buf_text(&e->draft), e->draft.len);
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
	for (size_t i = 0; i < e->line.text.len;) {
		struct ag_term_cell cell = ag_term_cell_at(term_line_at(&e->line, i), e->line.text.len - i);

		if (*term_line_at(&e->line, i) == '\n') {
			if (i == e->line.cursor) {
				l.cursor_row = l.row;
				l.cursor_column = l.column;
			}
			next_row(e, &l, indent);
		} else {
			lay_out_cell(e, &l, term_line_at(&e->line, i), cell, i == e->line.cursor);
		}
		i += cell.len;
	}
	if (e->line.cursor == e->line.text.len) {
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
	bool continued = e->line.cursor && e->line.cursor == e->line.text.len &&
	                 *term_line_at(&e->line, e->line.cursor - 1) == '\\';

	if (!e->o->multi_line)
		return SUBMIT;
	if (continued)
		term_line_delete(&e->line, e->line.cursor - 1, e->line.cursor);
	if (!continued && !(mods & AG_MOD_ALT))
		return SUBMIT;
	term_line_insert(&e->line, "\n", 1);
	return GO_ON;
}

static enum outcome control(struct editor *e, uint32_t ch)
{
	switch (ch) {
	case 'a':
		e->line.cursor = term_line_start(&e->line, e->line.cursor);
		break;
	case 'b':
		e->line.cursor = term_line_before(&e->line, e->line.cursor);
		break;
	case 'c':
		return CANCEL;
	case 'd':
		if (!e->line.text.len)
			return END;
		term_line_delete(&e->line, e->line.cursor, term_line_next(&e->line, e->line.cursor));
		break;
	case 'e':
		e->line.cursor = term_line_end(&e->line, e->line.cursor);
		break;
	case 'f':
		e->line.cursor = term_line_next(&e->line, e->line.cursor);
		break;
	case 'j':
		return enter(e, AG_MOD_ALT);
	case 'k': { /* at its end, the newline itself */
		size_t end = term_line_end(&e->line, e->line.cursor);

		term_line_kill(&e->line, e->line.cursor, end == e->line.cursor ? term_line_next(&e->line, end) : end);
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
		term_line_transpose(&e->line);
		break;
	case 'u':
		term_line_kill(&e->line, term_line_start(&e->line, e->line.cursor), e->line.cursor);
		break;
	case 'w':
		term_line_kill(&e->line, term_line_blank_before(&e->line, e->line.cursor), e->line.cursor);
		break;
	case 'y':
		term_line_insert_clean(&e->line, base_buf_text(&e->line.killed), e->line.killed.len);
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
		e->line.cursor = term_line_word_before(&e->line, e->line.cursor);
	else if (ch == 'f')
		e->line.cursor = term_line_word_after(&e->line, e->line.cursor);
	else if (ch == 'd')
		term_line_kill(&e->line, e->line.cursor, term_line_word_after(&e->line, e->line.cursor));
	else if (ch == '<')
		e->line.cursor = 0;
	else if (ch == '>')
		e->line.cursor = e->line.text.len;
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
			term_line_insert_char(&e->line, k->ch);
		break;
	case AG_KEY_ENTER:
		return enter(e, k->mods);
	case AG_KEY_BACKSPACE:
		if (by_word)
			term_line_kill(&e->line, term_line_word_before(&e->line, e->line.cursor), e->line.cursor);
		else
			term_line_delete(&e->line, term_line_before(&e->line, e->line.cursor), e->line.cursor);
		break;
	case AG_KEY_DELETE:
		if (by_word)
			term_line_kill(&e->line, e->line.cursor, term_line_word_after(&e->line, e->line.cursor));
		else
			term_line_delete(&e->line, e->line.cursor, term_line_next(&e->line, e->line.cursor));
		break;
	case AG_KEY_LEFT:
		e->line.cursor = by_word ? term_line_word_before(&e->line, e->line.cursor)
		                         : term_line_before(&e->line, e->line.cursor);
		break;
	case AG_KEY_RIGHT:
		e->line.cursor = by_word ? term_line_word_after(&e->line, e->line.cursor)
		                         : term_line_next(&e->line, e->line.cursor);
		break;
	case AG_KEY_HOME:
		e->line.cursor = term_line_start(&e->line, e->line.cursor);
		break;
	case AG_KEY_END:
		e->line.cursor = term_line_end(&e->line, e->line.cursor);
		break;
	case AG_KEY_UP:
		go_up(e);
		break;
	case AG_KEY_DOWN:
		go_down(e);
		break;
	case AG_KEY_PASTE:
		term_line_insert(&e->line, k->text, k->len);
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
	e->line.cursor = e->line.text.len;
	e->searching = false;
	r = draw(e);
	if (outcome == CANCEL)
		(void)base_buf_puts(&e->out, "^C");
	term_live_leave(&e->live, &e->out);
	*ret_outcome = outcome;
	return r < 0 ? r : term_flush_buf(e->t, &e->out);
}

/* ---- A dumb terminal ---- */

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
		.line = { .text = BASE_BUF_INIT(max), .killed = BASE_BUF_INIT(max), .is_one_line = !edit->multi_line },
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
	term_line_set(&e.line, edit->text ? edit->text : "", edit->text ? strlen(edit->text) : 0);
	r = edit_raw(&e, &outcome);
	term_raw_end(t);
	if (r >= 0 && outcome == SUBMIT)
		r = base_buf_append(ret_text, e.line.text.data, e.line.text.len);
	if (r < 0)
		(void)err_set(err, r, "terminal: %s", strerror(-r));
	term_live_done(&e.live);
	base_buf_done(&e.line.text);
	base_buf_done(&e.line.killed);
	base_buf_done(&e.draft);
	base_buf_done(&e.pattern);
	base_buf_done(&e.out);
	base_buf_done(&e.rows);
	return r < 0 ? r : outcome == SUBMIT ? 1 : outcome == CANCEL ? -ECANCELED : 0;
}
