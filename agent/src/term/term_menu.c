/* Menus, yes-or-no questions and forms.
 *
 * Titles and labels often come from a model (the command that would run): they are made harmless, and a style cannot
 * be smuggled in to hide a part of them. What was typed before a menu was on the screen is thrown away, so that an
 * impatient Enter does not run a command that nobody has read. */
#include <ctype.h>
#include <errno.h>
#include <string.h>
#include <strings.h>

#include "term_internal.h"

enum { DRAWN_MAX = 4 << 20, ANSWER_MAX = 1024 };

struct menu {
	struct ag_term *t;
	const struct ag_term_menu *o;
	size_t at;
	struct term_live live;
	struct base_buf out, rows;
};

static void clean(struct base_buf *out, const char *text, const struct ag_term_look *look)
{
	(void)ag_term_sanitize(out, text, strlen(text), look->ascii_only);
}

/* On one line. */
static void clean_line(struct base_buf *out, const char *text, const struct ag_term_look *look)
{
	size_t from = out->len;

	clean(out, text, look);
	for (size_t i = from; i < out->len; i++) {
		if (out->data[i] == '\n' || out->data[i] == '\t')
			out->data[i] = ' ';
	}
}

/* The item that can be chosen next to `from` in this direction; from itself when there is no other. */
static size_t step(const struct ag_term_menu *o, size_t from, bool down)
{
	size_t at = from;

	for (size_t i = 0; i < o->n_items; i++) {
		at = down ? (at + 1) % o->n_items : (at + o->n_items - 1) % o->n_items;
		if (!o->items[at].disabled)
			return at;
	}
	return from;
}

static bool find_key(const struct ag_term_menu *o, uint32_t ch, size_t *ret_item)
{
	for (size_t i = 0; i < o->n_items; i++) {
		char key = o->items[i].key;

		if (key && ch < 0x80 && tolower((unsigned char)key) == tolower((int)ch) && !o->items[i].disabled) {
			*ret_item = i;
			return true;
		}
	}
	return false;
}

static int print_title(struct ag_term *t, const char *title)
{
	const struct ag_term_look *look = ag_term_get_look(t);
	struct base_buf out = BASE_BUF_INIT(DRAWN_MAX);
	int r;

	if (!title || !*title)
		return 0;
	clean(&out, title, look);
	if (out.len && out.data[out.len - 1] != '\n')
		(void)base_buf_putc(&out, '\n');
	r = term_flush_buf(t, &out);
	base_buf_done(&out);
	return r;
}

/* ---- With arrow keys ---- */

static void put_item(struct menu *m, size_t i, bool is_chosen)
{
	const struct ag_term_look *look = ag_term_get_look(m->t);
	const struct ag_term_item *item = &m->o->items[i];
	const char *mark = is_chosen ? (look->utf8 ? "❯ " : "> ") : "  ";

	(void)base_buf_puts(&m->rows, ag_term_sgr(look, item->disabled ? AG_TERM_DIM
	                                                : is_chosen    ? AG_TERM_REVERSE
	                                                               : AG_TERM_RESET));
	(void)base_buf_puts(&m->rows, mark);
	if (item->key)
		(void)base_buf_printf(&m->rows, "[%c] ", item->key);
	clean_line(&m->rows, item->label, look);
	if (is_chosen)
		(void)base_buf_putc(&m->rows, ' ');
	(void)base_buf_puts(&m->rows, ag_term_sgr(look, AG_TERM_RESET));
}

static int draw(struct menu *m)
{
	const struct ag_term_look *look = ag_term_get_look(m->t);
	const char *about = m->o->items[m->at].about;
	size_t height = look->rows > 3 ? look->rows - 2 : 1, top = 0;

	base_buf_reset(&m->rows);
	if (m->o->n_items > height)
		top = m->at < height ? 0 : m->at - height + 1;
	for (size_t i = top; i < m->o->n_items && i < top + height; i++) {
		if (i > top)
			(void)base_buf_putc(&m->rows, '\n');
		put_item(m, i, i == m->at);
	}
	if (about && *about && look->rows > 3) {
		(void)base_buf_printf(&m->rows, "\n  %s", ag_term_sgr(look, AG_TERM_DIM));
		clean_line(&m->rows, about, look);
		(void)base_buf_puts(&m->rows, ag_term_sgr(look, AG_TERM_RESET));
	}
	(void)base_buf_puts(&m->out, "\033[?25l");
	term_live_draw(&m->live, &m->out, base_buf_text(&m->rows), m->rows.len, m->at - top, 0, look->columns);
	return term_flush_buf(m->t, &m->out);
}

/* 1 when the menu is over: *ret_choice is an item, or negative. */
static int handle(struct menu *m, const struct ag_term_key *k, int *ret_choice)
{
	bool is_plain = k->type == AG_KEY_CHAR && !k->mods, is_ctrl = k->type == AG_KEY_CHAR && k->mods == AG_MOD_CTRL;
	size_t item;

	if (is_plain && find_key(m->o, k->ch, &item)) {
		m->at = item;
		*ret_choice = (int)item;
		return 1;
	}
	if (k->type == AG_KEY_ENTER || (is_ctrl && k->ch == 'j')) {
		*ret_choice = (int)m->at;
		return 1;
	}
	if (k->type == AG_KEY_ESCAPE || (is_ctrl && (k->ch == 'c' || k->ch == 'd' || k->ch == 'g')) ||
	    (is_plain && k->ch == 'q')) {
		*ret_choice = -ECANCELED;
		return 1;
	}
	if (k->type == AG_KEY_UP || k->type == AG_KEY_LEFT || (is_ctrl && k->ch == 'p') || (is_plain && k->ch == 'k') ||
	    (k->type == AG_KEY_TAB && (k->mods & AG_MOD_SHIFT)))
		m->at = step(m->o, m->at, false);
	else if (k->type == AG_KEY_DOWN || k->type == AG_KEY_RIGHT || k->type == AG_KEY_TAB ||
	         (is_ctrl && k->ch == 'n') || (is_plain && k->ch == 'j'))
		m->at = step(m->o, m->at, true);
	else if (k->type == AG_KEY_HOME || k->type == AG_KEY_PAGE_UP)
		m->at = step(m->o, m->o->n_items - 1, true);
	else if (k->type == AG_KEY_END || k->type == AG_KEY_PAGE_DOWN)
		m->at = step(m->o, 0, false);
	else if (is_ctrl && k->ch == 'z')
		term_suspend();
	return 0;
}

static int menu_raw(struct menu *m, int *ret_choice)
{
	const struct ag_term_look *look = ag_term_get_look(m->t);
	struct ag_term_key k;
	int r = draw(m), over = 0;

	while (r >= 0 && !over) {
		r = term_read_key(m->t, &k);
		if (r < 0)
			return r;
		if (!r)
			*ret_choice = -ECANCELED;
		over = r ? handle(m, &k, ret_choice) : 1;
		if (!over && !term_has_more_keys(m->t))
			r = draw(m);
	}
	if (r < 0)
		return r;
	term_live_erase(&m->live, &m->out, ag_term_get_look(m->t)->columns);
	if (*ret_choice >= 0) {
		(void)base_buf_puts(&m->out, look->utf8 ? "❯ " : "> ");
		clean_line(&m->out, m->o->items[*ret_choice].label, look);
		(void)base_buf_puts(&m->out, "\r\n");
	}
	(void)base_buf_puts(&m->out, "\033[?25h");
	return term_flush_buf(m->t, &m->out);
}

/* ---- On a dumb terminal ---- */

static void put_numbered(struct base_buf *out, struct ag_term *t, const struct ag_term_menu *o, size_t at)
{
	const struct ag_term_look *look = ag_term_get_look(t);

	for (size_t i = 0; i < o->n_items; i++) {
		if (o->items[i].disabled)
			continue;
		(void)base_buf_printf(out, "  %zu) ", i + 1);
		clean_line(out, o->items[i].label, look);
		if (o->items[i].about && *o->items[i].about) {
			(void)base_buf_puts(out, " - ");
			clean_line(out, o->items[i].about, look);
		}
		(void)base_buf_putc(out, '\n');
	}
	(void)base_buf_printf(out, "%s [%zu]: ", term_is_chinese() ? "请选择" : "choice", at + 1);
}

/* The item that the answer names by number or by key; negative when none or a disabled one. */
static int item_of_answer(const struct ag_term_menu *o, size_t at, const char *answer)
{
	size_t n = 0, i = 0, item;

	while (isspace((unsigned char)*answer))
		answer++;
	if (!*answer)
		return (int)at;
	if (!answer[1] && find_key(o, (unsigned char)*answer, &item))
		return (int)item;
	for (; isdigit((unsigned char)answer[i]) && i < 6; i++)
		n = n * 10 + (size_t)(answer[i] - '0');
	if (answer[i] || !n || n > o->n_items || o->items[n - 1].disabled)
		return !strcmp(answer, "q") ? -ECANCELED : -EINVAL;
	return (int)(n - 1);
}

static int menu_dumb(struct ag_term *t, const struct ag_term_menu *o, size_t at, struct err *err)
{
	struct base_buf line = BASE_BUF_INIT(4 * ANSWER_MAX), out = BASE_BUF_INIT(DRAWN_MAX);
	int r, choice = -EINVAL;
	bool fresh = true;

	do {
		base_buf_reset(&line);
		put_numbered(&out, t, o, at);
		r = term_read_line(t, &out, fresh, false, ANSWER_MAX, &line, err);
		fresh = false;
		choice = r > 0 ? item_of_answer(o, at, base_buf_text(&line)) : r ? r : -ECANCELED;
	} while (choice == -EINVAL);
	base_buf_done(&out);
	base_buf_done(&line);
	return choice;
}

int ag_term_menu(struct ag_term *t, const struct ag_term_menu *menu, struct err *err)
{
	struct menu m = { .t = t, .o = menu, .out = BASE_BUF_INIT(DRAWN_MAX), .rows = BASE_BUF_INIT(DRAWN_MAX) };
	int r, choice = -ECANCELED;

	m.at = menu->start < menu->n_items ? menu->start : 0;
	if (menu->n_items && menu->items[m.at].disabled)
		m.at = step(menu, m.at, true);
	if (!menu->n_items || menu->n_items > 9999 || menu->items[m.at].disabled)
		return err_set(err, -EINVAL, "a menu without anything to choose");
	r = print_title(t, menu->title);
	if (r < 0)
		return err_set(err, r, "terminal: %s", strerror(-r));
	if (!ag_term_get_look(t)->can_move)
		return menu_dumb(t, menu, m.at, err);
	r = term_raw_begin(t, true, err);
	if (r < 0)
		return r;
	r = menu_raw(&m, &choice);
	term_raw_end(t);
	term_live_done(&m.live);
	base_buf_done(&m.out);
	base_buf_done(&m.rows);
	return r < 0 ? err_set(err, r, "terminal: %s", strerror(-r)) : choice;
}

/* ---- Yes or no ---- */

/* y, n or nothing: 1, 0, or -EINVAL for another answer. */
static int yes_or_no(const char *s, bool otherwise)
{
	static const char *const yes[] = { "y", "yes", "是", "好" }, *const no[] = { "n", "no", "否", "不" };

	if (!*s)
		return otherwise;
	for (size_t i = 0; i < sizeof(yes) / sizeof(yes[0]); i++) {
		if (strcasecmp(s, yes[i]) == 0)
			return 1;
		if (strcasecmp(s, no[i]) == 0)
			return 0;
	}
	return -EINVAL;
}

static int confirm_raw(struct ag_term *t, struct base_buf *question, bool otherwise)
{
	struct ag_term_key k;
	int r = term_flush_buf(t, question), answer = -EINVAL;

	if (r < 0)
		return r;
	while (answer == -EINVAL) {
		r = term_read_key(t, &k);
		if (r < 0)
			return r;
		if (!r || k.type == AG_KEY_ESCAPE)
			answer = 0;
		else if (k.type == AG_KEY_ENTER)
			answer = otherwise;
		else if (k.type == AG_KEY_CHAR && k.mods == AG_MOD_CTRL && (k.ch == 'c' || k.ch == 'd'))
			answer = 0;
		else if (k.type == AG_KEY_CHAR && !k.mods && k.ch < 0x80)
			answer = yes_or_no((char[]){ (char)k.ch, '\0' }, otherwise);
		else if (k.type == AG_KEY_CHAR && k.ch == 'z' && k.mods == AG_MOD_CTRL)
			term_suspend();
	}
	(void)ag_term_puts(t, answer ? "y\n" : "n\n");
	return answer;
}

static int confirm_dumb(struct ag_term *t, struct base_buf *question, bool otherwise, struct err *err)
{
	struct base_buf line = BASE_BUF_INIT(4 * ANSWER_MAX);
	int r = term_read_line(t, question, true, false, ANSWER_MAX, &line, err);

	if (r > 0)
		r = yes_or_no(base_buf_text(&line), otherwise);
	else if (r == -ECANCELED)
		r = 0;
	base_buf_done(&line);
	return r == -EINVAL ? 0 : r; /* what is no clear yes is a no */
}

int ag_term_confirm(struct ag_term *t, const char *question, bool is_yes_default, struct err *err)
{
	const struct ag_term_look *look = ag_term_get_look(t);
	struct base_buf out = BASE_BUF_INIT(DRAWN_MAX);
	int r;

	/* Shown when keys count, not before: an answer to what is on the screen is never thrown away. */
	clean(&out, question, look);
	(void)base_buf_puts(&out, is_yes_default ? " [Y/n] " : " [y/N] ");
	if (!look->can_move) {
		r = confirm_dumb(t, &out, is_yes_default, err);
	} else {
		r = term_raw_begin(t, true, err);
		if (r >= 0) {
			r = confirm_raw(t, &out, is_yes_default);
			term_raw_end(t);
			if (r < 0)
				(void)err_set(err, r, "terminal: %s", strerror(-r));
		}
	}
	base_buf_done(&out);
	return r;
}

/* ---- Form
 * ------------------------------------------------------------------------------------------------------------------------
 */

static int complain(struct ag_term *t, const char *words)
{
	const struct ag_term_look *look = ag_term_get_look(t);
	struct base_buf out = BASE_BUF_INIT(DRAWN_MAX);
	int r;

	(void)base_buf_printf(&out, "  %s", ag_term_sgr(look, AG_TERM_WARN));
	clean_line(&out, words, look);
	(void)base_buf_printf(&out, "%s\n", ag_term_sgr(look, AG_TERM_RESET));
	r = term_flush_buf(t, &out);
	base_buf_done(&out);
	return r;
}

static int check_field(struct ag_term *t, const struct ag_term_field *field, const char *value)
{
	struct err why = { 0 };

	if (!*value && !field->optional) {
		(void)complain(t, term_is_chinese() ? "不能为空" : "may not be empty");
		return -EINVAL;
	}
	if (*value && field->check && field->check(field->ctx, value, &why) < 0) {
		(void)complain(t, err_text(&why));
		return -EINVAL;
	}
	return 0;
}

static int ask_field(struct ag_term *t, const struct ag_term_field *field, struct base_buf *value, struct err *err)
{
	const struct ag_term_look *look = ag_term_get_look(t);
	struct base_buf prompt = BASE_BUF_INIT(64 * 1024), tried = BASE_BUF_INIT(64 * 1024);
	struct ag_term_edit edit = { .text = field->text };
	int r;

	(void)base_buf_puts(&prompt, ag_term_sgr(look, AG_TERM_BOLD));
	clean_line(&prompt, field->label, look);
	(void)base_buf_printf(&prompt, "%s: ", ag_term_sgr(look, AG_TERM_RESET));
	edit.prompt = base_buf_text(&prompt);
	do {
		base_buf_reset(value);
		r = ag_term_edit(t, &edit, value, err);
		if (r <= 0) {
			r = r ? r : -ECANCELED;
			break;
		}
		r = check_field(t, field, base_buf_text(value));
		base_buf_reset(&tried); /* what was refused is there to be mended */
		(void)base_buf_append(&tried, base_buf_text(value), value->len);
		edit.text = base_buf_text(&tried);
	} while (r == -EINVAL);
	base_buf_done(&prompt);
	base_buf_done(&tried);
	return r;
}

static int ask_fields(struct ag_term *t, const struct ag_term_field *fields, size_t n_fields, struct base_buf *values,
                      struct err *err)
{
	int r;

	for (size_t i = 0; i < n_fields; i++) {
		if (fields[i].about && *fields[i].about) {
			r = print_title(t, fields[i].about);
			if (r < 0)
				return err_set(err, r, "terminal: %s", strerror(-r));
		}
		base_buf_reset(&values[i]);
		r = ask_field(t, &fields[i], &values[i], err);
		if (r < 0)
			return r;
	}
	return 0;
}

int ag_term_form(struct ag_term *t, const char *title, const struct ag_term_field *fields, size_t n_fields,
                 struct base_buf *values, struct err *err)
{
	bool can_move = ag_term_get_look(t)->can_move;
	int r = print_title(t, title);

	if (r < 0)
		return err_set(err, r, "terminal: %s", strerror(-r));
	r = can_move ? term_raw_begin(t, false, err) : 0;
	if (r < 0)
		return r;
	r = ask_fields(t, fields, n_fields, values, err);
	if (can_move)
		term_raw_end(t);
	return r;
}
