/* Styled text: one clean string with a style for each byte, so that width and wrapping are those of plain text. */
#include <cmark.h>
#include <string.h>

#include "term_md.h"

enum { TEXT_MAX = 1 << 20 };

void md_text_init(struct md_text *t)
{
	*t = (struct md_text){ .text = BASE_BUF_INIT(TEXT_MAX), .style = BASE_BUF_INIT(TEXT_MAX) };
}

void md_text_done(struct md_text *t)
{
	base_buf_done(&t->text);
	base_buf_done(&t->style);
}

static void fill_style(struct md_text *t, unsigned style)
{
	while (t->style.len < t->text.len && base_buf_putc(&t->style, (char)style) == 0)
		;
	if (t->text.len > t->style.len) { /* out of memory: what has no style is not shown */
		t->text.len = t->style.len;
		if (t->text.data)
			t->text.data[t->text.len] = '\0';
	}
}

/* Two lines of the source become one: with a blank, as in English, or without, as in Chinese. */
static void join(struct md_text *t, const char *s, size_t len, unsigned style)
{
	size_t last = t->text.len ? ag_term_cell_before(t->text.data, t->text.len) : 0;
	bool wide = last && ag_term_cell_at(t->text.data + t->text.len - last, last).width == 2 &&
	            ag_term_cell_at(s, len).width == 2;

	t->joint = false;
	if (!wide && last && t->text.data[t->text.len - 1] != '\n')
		(void)base_buf_putc(&t->text, ' ');
	fill_style(t, style);
}

void md_text_add(struct md_text *t, const char *s, size_t len, unsigned style, const struct ag_term_look *look)
{
	size_t from;

	if (!len)
		return;
	if (t->joint)
		join(t, s, len, style);
	from = t->text.len;
	(void)ag_term_sanitize(&t->text, s, len, look->ascii_only);
	for (size_t i = from; i < t->text.len; i++) {
		if (t->text.data[i] == '\n' || t->text.data[i] == '\t')
			t->text.data[i] = ' ';
	}
	fill_style(t, style);
}

void md_text_break(struct md_text *t)
{
	t->joint = false;
	(void)base_buf_putc(&t->text, '\n');
	fill_style(t, 0);
}

static void put_style(unsigned style, const struct ag_term_look *look, struct base_buf *out)
{
	static const struct {
		unsigned bit;
		enum ag_term_style style;
	} table[] = {
		{ MD_DIM, AG_TERM_DIM },   { MD_HEADING, AG_TERM_HEADING }, { MD_CODE, AG_TERM_CODE },
		{ MD_LINK, AG_TERM_LINK }, { MD_BOLD, AG_TERM_BOLD },       { MD_ITALIC, AG_TERM_ITALIC },
	};

	(void)base_buf_puts(out, ag_term_sgr(look, AG_TERM_RESET));
	for (size_t i = 0; i < sizeof(table) / sizeof(table[0]); i++) {
		if (style & table[i].bit)
			(void)base_buf_puts(out, ag_term_sgr(look, table[i].style));
	}
}

void md_text_put(const struct md_text *t, size_t from, size_t to, const struct ag_term_look *look, struct base_buf *out)
{
	unsigned now = 0;

	while (from < to) {
		unsigned style = (unsigned char)t->style.data[from];
		size_t end = from;

		while (end < to && (unsigned char)t->style.data[end] == style)
			end++;
		if (style != now)
			put_style(style, look, out);
		now = style;
		(void)base_buf_append(out, t->text.data + from, end - from);
		from = end;
	}
	if (now)
		(void)base_buf_puts(out, ag_term_sgr(look, AG_TERM_RESET));
}
