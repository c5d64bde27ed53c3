/* Tables, which CommonMark does not have: the pipe tables that models write. Columns are as wide as their widest cell;
 * when that is too much, the widest are narrowed and their cells wrapped; when even that leaves too little, each row
 * is shown as a list of "head: cell". Cells are parsed as they are drawn, so that no table is held in memory. */
#include <string.h>

#include "term_md.h"

enum { MAX_CELLS = 32, NARROWEST = 6, GAP = 3 };

struct span {
	const char *s;
	size_t len;
};

enum align { LEFT, CENTER, RIGHT };

struct table {
	const struct ag_term_look *look;
	struct base_buf *out;
	size_t n_cells;
	enum align align[MAX_CELLS];
	unsigned width[MAX_CELLS];
};

static struct span trim(const char *s, size_t len)
{
	while (len && (*s == ' ' || *s == '\t'))
		s++, len--;
	while (len && (s[len - 1] == ' ' || s[len - 1] == '\t'))
		len--;
	return (struct span){ s, len };
}

/* Cells between bars that are not escaped, without the bars at both ends. */
static size_t split(const char *line, size_t len, struct span *cells, size_t max)
{
	struct span all = trim(line, len);
	size_t n = 0, start = 0;
	bool has_bar = false;

	if (all.len && all.s[0] == '|') {
		start = 1;
		has_bar = true;
	}
	for (size_t i = start; i <= all.len; i++) {
		if (i < all.len && all.s[i] == '\\') {
			i++;
			continue;
		}
		if (i < all.len && all.s[i] != '|')
			continue;
		has_bar = has_bar || i < all.len;
		if (i >= all.len && start >= all.len && n) /* the bar at the end */
			break;
		if (n < max && cells)
			cells[n] = trim(all.s + start, (i < all.len ? i : all.len) - start);
		n++;
		start = i + 1;
	}
	return has_bar ? n : 0;
}

size_t md_table_cells(const char *line, size_t len)
{
	return split(line, len, NULL, 0);
}

bool md_is_table_rule(const char *line, size_t len)
{
	struct span cells[MAX_CELLS];
	size_t n = split(line, len, cells, MAX_CELLS);

	if (!n || n > MAX_CELLS)
		return false;
	for (size_t i = 0; i < n; i++) {
		struct span c = cells[i];

		if (c.len && c.s[0] == ':')
			c.s++, c.len--;
		if (c.len && c.s[c.len - 1] == ':')
			c.len--;
		if (!c.len || strspn(c.s, "-") < c.len)
			return false;
	}
	return true;
}

static bool next_line(struct span *rest, struct span *ret_line)
{
	const char *nl;

	if (!rest->len)
		return false;
	nl = memchr(rest->s, '\n', rest->len);
	*ret_line = (struct span){ rest->s, nl ? (size_t)(nl - rest->s) : rest->len };
	rest->s += ret_line->len + (nl ? 1 : 0);
	rest->len -= ret_line->len + (nl ? 1 : 0);
	return true;
}

/* Parses the cells of a row; those that it lacks are empty. */
static void parse_row(const struct table *t, struct span line, struct md_text *cells, bool is_head)
{
	struct span parts[MAX_CELLS] = { 0 };
	size_t n = split(line.s, line.len, parts, t->n_cells);

	for (size_t i = 0; i < t->n_cells; i++) {
		md_text_init(&cells[i]);
		if (i < n)
			md_text_parse(&cells[i], parts[i].s, parts[i].len, t->look);
		for (size_t b = 0; b < cells[i].text.len; b++) {
			if (cells[i].text.data[b] == '\n') /* <br> */
				cells[i].text.data[b] = ' ';
			if (is_head)
				cells[i].style.data[b] = (char)(cells[i].style.data[b] | MD_BOLD);
		}
	}
}

static void done_row(const struct table *t, struct md_text *cells)
{
	for (size_t i = 0; i < t->n_cells; i++)
		md_text_done(&cells[i]);
}

static void measure(struct table *t, struct span rest)
{
	struct md_text cells[MAX_CELLS];
	struct span line;

	for (size_t row = 0; next_line(&rest, &line); row++) {
		if (row == 1)
			continue;
		parse_row(t, line, cells, false);
		for (size_t i = 0; i < t->n_cells; i++) {
			unsigned width = ag_term_columns(base_buf_text(&cells[i].text), cells[i].text.len, 0);

			if (width > t->width[i])
				t->width[i] = width;
		}
		done_row(t, cells);
	}
}

/* Makes the widest columns equally narrow, until all fit. False when that is too narrow to read. */
static bool fit(struct table *t)
{
	unsigned all = md_columns(t->look), gaps = (unsigned)(t->n_cells - 1) * GAP, limit = all, sum;

	do {
		sum = gaps;
		for (size_t i = 0; i < t->n_cells; i++)
			sum += t->width[i] < limit ? t->width[i] : limit;
		if (sum <= all)
			break;
	} while (--limit >= NARROWEST);
	if (sum > all)
		return false;
	for (size_t i = 0; i < t->n_cells; i++) {
		if (t->width[i] > limit)
			t->width[i] = limit;
	}
	return true;
}

static void put_blanks(struct base_buf *out, unsigned n)
{
	while (n--)
		(void)base_buf_putc(out, ' ');
}

static void put_bar(const struct table *t)
{
	(void)base_buf_printf(t->out, " %s%s%s ", ag_term_sgr(t->look, AG_TERM_DIM), t->look->utf8 ? "│" : "|",
	                      ag_term_sgr(t->look, AG_TERM_RESET));
}

static void trim_end(struct base_buf *out)
{
	while (out->len && out->data[out->len - 1] == ' ')
		out->data[--out->len] = '\0';
}

/* One line of a row: of each cell the part from at[i] on that fits. */
static void put_row_line(const struct table *t, const struct md_text *cells, size_t *at)
{
	for (size_t i = 0; i < t->n_cells; i++) {
		const char *s = base_buf_text(&cells[i].text) + at[i];
		size_t left = cells[i].text.len - at[i], next = 0,
		       len = left ? ag_term_wrap(s, left, t->width[i], &next) : 0;
		unsigned used = ag_term_columns(s, len, 0), spare = t->width[i] > used ? t->width[i] - used : 0;
		unsigned before = t->align[i] == RIGHT ? spare : t->align[i] == CENTER ? spare / 2 : 0;

		if (i)
			put_bar(t);
		put_blanks(t->out, before);
		md_text_put(&cells[i], at[i], at[i] + len, t->look, t->out);
		put_blanks(t->out, spare - before);
		at[i] += next;
	}
	trim_end(t->out);
	(void)base_buf_putc(t->out, '\n');
}

static void put_row(const struct table *t, struct span line, bool is_head)
{
	struct md_text cells[MAX_CELLS];
	size_t at[MAX_CELLS] = { 0 };
	bool more;

	parse_row(t, line, cells, is_head);
	do {
		put_row_line(t, cells, at);
		more = false;
		for (size_t i = 0; i < t->n_cells; i++)
			more = more || at[i] < cells[i].text.len;
	} while (more);
	done_row(t, cells);
}

static void put_rule(const struct table *t)
{
	(void)base_buf_puts(t->out, ag_term_sgr(t->look, AG_TERM_DIM));
	for (size_t i = 0; i < t->n_cells; i++) {
		if (i)
			(void)base_buf_puts(t->out, t->look->utf8 ? "─┼─" : "-+-");
		for (unsigned n = 0; n < t->width[i]; n++)
			(void)base_buf_puts(t->out, t->look->utf8 ? "─" : "-");
	}
	(void)base_buf_puts(t->out, ag_term_sgr(t->look, AG_TERM_RESET));
	(void)base_buf_putc(t->out, '\n');
}

static void put_pair(const struct table *t, const struct md_text *head, const struct md_text *cell)
{
	unsigned columns = md_columns(t->look) - 2;
	struct md_text pair;
	size_t next, len;

	md_text_init(&pair);
	md_text_add(&pair, base_buf_text(&head->text), head->text.len, MD_BOLD, t->look);
	md_text_add(&pair, ": ", 2, MD_BOLD, t->look);
	md_text_add(&pair, base_buf_text(&cell->text), cell->text.len, 0, t->look);
	for (size_t at = 0; at < pair.text.len; at += next) {
		len = ag_term_wrap(pair.text.data + at, pair.text.len - at, columns, &next);
		put_blanks(t->out, at ? 2 : 0);
		md_text_put(&pair, at, at + len, t->look, t->out);
		trim_end(t->out);
		(void)base_buf_putc(t->out, '\n');
	}
	md_text_done(&pair);
}

static void put_as_list(const struct table *t, struct span head, struct span rest)
{
	struct md_text heads[MAX_CELLS], cells[MAX_CELLS];
	struct span line;
	bool first = true;

	parse_row(t, head, heads, true);
	while (next_line(&rest, &line)) {
		if (!first)
			(void)base_buf_putc(t->out, '\n');
		first = false;
		parse_row(t, line, cells, false);
		for (size_t i = 0; i < t->n_cells; i++)
			put_pair(t, &heads[i], &cells[i]);
		done_row(t, cells);
	}
	done_row(t, heads);
}

void md_put_table(const struct ag_term_look *look, const char *markdown, size_t len, struct base_buf *out)
{
	struct table t = { .look = look, .out = out };
	struct span rest = { markdown, len }, head, rule, line, cells[MAX_CELLS];
	size_t n_rule;

	if (!next_line(&rest, &head) || !next_line(&rest, &rule))
		return;
	n_rule = split(rule.s, rule.len, cells, MAX_CELLS);
	t.n_cells = n_rule < MAX_CELLS ? n_rule : MAX_CELLS;
	if (!t.n_cells)
		return;
	for (size_t i = 0; i < t.n_cells; i++) {
		bool left = cells[i].len && cells[i].s[0] == ':',
		     right = cells[i].len && cells[i].s[cells[i].len - 1] == ':';

		t.align[i] = right ? (left ? CENTER : RIGHT) : LEFT;
		t.width[i] = 1;
	}
	measure(&t, (struct span){ markdown, len });
	if (!fit(&t)) {
		put_as_list(&t, head, rest);
		return;
	}
	put_row(&t, head, true);
	put_rule(&t);
	while (next_line(&rest, &line))
		put_row(&t, line, false);
}
