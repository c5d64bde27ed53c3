/* Markdown as it streams in.
 *
 * Bytes are put together to lines, lines to blocks; a block is final when the line after it says so (a blank line, a
 * heading, a fence), and is then rendered by itself and written once. Only whole lines decide, so that the output does
 * not depend on how the text was cut. Lines of a fenced code block are final one by one.
 *
 * On a terminal the block that still grows is shown as it would look if it ended here, and drawn over; of one that is
 * taller than the window, its end. What that costs is bounded: long blocks are drawn again only after they have grown
 * by a part of their length. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "term_md.h"

enum {
	BLOCK_MAX = 64 * 1024, /* a longer block, or line, is ended there */
	OUT_MAX = 64 << 20,
	PREVIEW_SHARE = 64, /* drawn again after 1/64 of a block is new */
	WIDEST_TEXT = 100,  /* columns; longer lines are hard to read */
};

enum state { NONE, PARAGRAPH, LIST, QUOTE, INDENTED, TABLE, FENCE };

enum kind { IS_BLANK, IS_TEXT, IS_FENCE, IS_HEADING, IS_RULE, IS_LIST, IS_QUOTE, IS_INDENTED };

struct ag_term_md {
	struct ag_term_look look;
	ag_term_write_fn write;
	void *ctx;
	struct base_buf line;  /* not ended yet */
	struct base_buf block; /* whole lines of a block that is not final */
	enum state state;
	bool after_blank; /* the last line of the block is blank */
	char fence;
	size_t fence_len, fence_indent;
	bool has_output; /* the next block wants a blank line in front */
	struct term_live live;
	size_t unseen; /* bytes fed since the preview was drawn */
	struct base_buf out, preview;
};

/* ---- Lines ---- */

static size_t indent_of(const char *s, size_t len)
{
	size_t columns = 0;

	for (size_t i = 0; i < len && (s[i] == ' ' || s[i] == '\t'); i++)
		columns += s[i] == '\t' ? 4 - columns % 4 : 1;
	return columns;
}

static size_t run_of(const char *s, size_t len, char c)
{
	size_t n = 0;

	while (n < len && s[n] == c)
		n++;
	return n;
}

static bool is_blank(const char *s, size_t len)
{
	return run_of(s, len, ' ') == len || strspn(s, " \t\r") >= len;
}

/* Three or more of *, - or _ and nothing else but blanks. */
static bool is_rule(const char *s, size_t len)
{
	size_t n = 0;

	if (!len || !strchr("*-_", s[0]))
		return false;
	for (size_t i = 0; i < len; i++) {
		if (s[i] == s[0])
			n++;
		else if (s[i] != ' ' && s[i] != '\t')
			return false;
	}
	return n >= 3;
}

static bool is_list_marker(const char *s, size_t len)
{
	size_t n = 0;

	if (len && strchr("-*+", s[0]))
		return len == 1 || s[1] == ' ' || s[1] == '\t';
	while (n < len && n < 9 && s[n] >= '0' && s[n] <= '9')
		n++;
	return n && n < len && (s[n] == '.' || s[n] == ')') && (n + 1 == len || s[n + 1] == ' ' || s[n + 1] == '\t');
}

static bool is_fence(const char *s, size_t len)
{
	size_t n = len ? run_of(s, len, s[0]) : 0;

	if (n < 3 || (s[0] != '`' && s[0] != '~'))
		return false;
	return s[0] == '~' || !memchr(s + n, '`', len - n); /* else it is inline code */
}

static enum kind kind_of(const char *s, size_t len)
{
	size_t skip = 0, n;

	if (is_blank(s, len))
		return IS_BLANK;
	if (indent_of(s, len) >= 4)
		return IS_INDENTED;
	while (s[skip] == ' ')
		skip++;
	s += skip;
	len -= skip;
	n = run_of(s, len, '#');
	if (n >= 1 && n <= 6 && (n == len || s[n] == ' ' || s[n] == '\t'))
		return IS_HEADING;
	if (is_fence(s, len))
		return IS_FENCE;
	if (is_rule(s, len))
		return IS_RULE;
	if (s[0] == '>')
		return IS_QUOTE;
	return is_list_marker(s, len) ? IS_LIST : IS_TEXT;
}

/* The line under a heading: only = or only - . */
static bool is_underline(const char *s, size_t len)
{
	while (len && *s == ' ')
		s++, len--;
	while (len && (s[len - 1] == ' ' || s[len - 1] == '\t'))
		len--;
	return len && (s[0] == '=' || s[0] == '-') && run_of(s, len, s[0]) == len;
}

/* ---- Final blocks ---- */

static void render(const struct ag_term_md *md, enum state state, const char *text, size_t len, struct base_buf *out)
{
	struct ag_term_look look = md->look;

	if (state != TABLE && look.columns > WIDEST_TEXT)
		look.columns = WIDEST_TEXT;
	if (state == TABLE)
		md_put_table(&look, text, len, out);
	else
		md_put_blocks(&look, text, len, out);
}

static void separate(struct ag_term_md *md)
{
	if (md->has_output)
		(void)base_buf_putc(&md->out, '\n');
	md->has_output = true;
}

static void finish_block(struct ag_term_md *md)
{
	struct base_buf rendered = BASE_BUF_INIT(OUT_MAX);

	render(md, md->state, base_buf_text(&md->block), md->block.len, &rendered);
	if (rendered.len) { /* a definition of a link shows nothing */
		separate(md);
		(void)base_buf_append(&md->out, rendered.data, rendered.len);
	}
	base_buf_done(&rendered);
	base_buf_reset(&md->block);
	md->state = NONE;
	md->after_blank = false;
}

static void keep(struct ag_term_md *md, enum state state, const char *s, size_t len)
{
	md->state = state;
	(void)base_buf_append(&md->block, s, len);
	(void)base_buf_putc(&md->block, '\n');
	if (md->block.len >= BLOCK_MAX)
		finish_block(md);
}

static void open_fence(struct ag_term_md *md, const char *s, size_t len)
{
	size_t indent = indent_of(s, len);

	separate(md);
	md->state = FENCE;
	md->fence_indent = indent;
	md->fence = s[indent];
	md->fence_len = run_of(s + indent, len - indent, md->fence);
}

static bool closes_fence(const struct ag_term_md *md, const char *s, size_t len)
{
	size_t indent = run_of(s, len, ' '), n;

	if (indent > 3)
		return false;
	n = run_of(s + indent, len - indent, md->fence);
	return n >= md->fence_len && is_blank(s + indent + n, len - indent - n);
}

/* The line without the blanks that its fence has in front. */
static void put_fenced(const struct ag_term_md *md, const char *s, size_t len, struct base_buf *out)
{
	size_t n = 0;

	while (n < len && n < md->fence_indent && s[n] == ' ')
		n++;
	md_put_code_line(&md->look, s + n, len - n, out);
}

/* The last line of the block is a table's head when this one is the rule under it: what is before is a paragraph. */
static bool begin_table(struct ag_term_md *md, const char *s, size_t len)
{
	size_t start = md->block.len - 1, cells = md_table_cells(s, len);
	char *head;
	size_t head_len;

	while (start && md->block.data[start - 1] != '\n')
		start--;
	if (!md_is_table_rule(s, len) || md_table_cells(md->block.data + start, md->block.len - 1 - start) != cells)
		return false;
	head_len = md->block.len - 1 - start;
	head = malloc(head_len + 1);
	if (!head)
		return false;
	memcpy(head, md->block.data + start, head_len);
	md->block.len = start;
	md->block.data[start] = '\0';
	if (start)
		finish_block(md);
	keep(md, TABLE, head, head_len);
	free(head);
	if (md->state == TABLE)
		keep(md, TABLE, s, len);
	return true;
}

/* ---- Which block a line belongs to ---- */

static void begin_block(struct ag_term_md *md, enum kind kind, const char *s, size_t len)
{
	static const enum state states[] = {
		[IS_TEXT] = PARAGRAPH,
		[IS_LIST] = LIST,
		[IS_QUOTE] = QUOTE,
		[IS_INDENTED] = INDENTED,
	};

	if (kind == IS_BLANK)
		return;
	if (kind == IS_FENCE) {
		open_fence(md, s, len);
	} else if (kind == IS_HEADING || kind == IS_RULE) {
		keep(md, PARAGRAPH, s, len);
		if (md->state != NONE)
			finish_block(md);
	} else {
		keep(md, states[kind], s, len);
	}
}

static bool starts_at_one(const char *s, size_t len)
{
	while (len && *s == ' ')
		s++, len--;
	return len && (strchr("-*+", *s) || (*s == '1' && len > 1 && (s[1] == '.' || s[1] == ')')));
}

/* True when the line continues the block (and is kept). */
static bool continues(struct ag_term_md *md, enum kind kind, const char *s, size_t len)
{
	bool is_lazy = kind == IS_TEXT || kind == IS_INDENTED;

	switch (md->state) {
	case PARAGRAPH:
		if (begin_table(md, s, len))
			return true;
		if (is_underline(s, len) && indent_of(s, len) < 4) {
			keep(md, PARAGRAPH, s, len);
			if (md->state != NONE)
				finish_block(md);
			return true;
		}
		if (!is_lazy && !(kind == IS_LIST && !starts_at_one(s, len)))
			return false;
		keep(md, PARAGRAPH, s, len);
		return true;
	case LIST:
		if (kind != IS_BLANK && kind != IS_LIST && indent_of(s, len) < 2 && (!is_lazy || md->after_blank))
			return false;
		md->after_blank = kind == IS_BLANK;
		keep(md, LIST, s, len);
		return true;
	case QUOTE:
		if (kind != IS_QUOTE && !is_lazy)
			return false;
		keep(md, QUOTE, s, len);
		return true;
	case INDENTED:
		if (kind != IS_INDENTED && kind != IS_BLANK)
			return false;
		keep(md, INDENTED, s, len);
		return true;
	case TABLE:
		if (kind == IS_BLANK || !md_table_cells(s, len))
			return false;
		keep(md, TABLE, s, len);
		return true;
	default:
		return false;
	}
}

static void take_line(struct ag_term_md *md, const char *s, size_t len)
{
	enum kind kind;

	if (len && s[len - 1] == '\r')
		len--;
	if (md->state == FENCE) {
		if (closes_fence(md, s, len))
			md->state = NONE;
		else
			put_fenced(md, s, len, &md->out);
		return;
	}
	kind = kind_of(s, len);
	if (md->state != NONE) {
		if (continues(md, kind, s, len))
			return;
		finish_block(md);
	}
	begin_block(md, kind, s, len);
}

/* ---- The block that grows ---- */

/* Without the beginning of a character whose other bytes are still to come. */
static size_t whole_characters(const char *s, size_t len)
{
	size_t back = 1;

	while (back <= 3 && back <= len && ((unsigned char)s[len - back] & 0xC0) == 0x80)
		back++;
	if (back > len || back > 4)
		return len;
	unsigned char lead = (unsigned char)s[len - back];
	size_t need = lead >= 0xF0 ? 4 : lead >= 0xE0 ? 3 : lead >= 0xC0 ? 2 : 1;

	return need > back ? len - back : len;
}

static void render_preview(struct ag_term_md *md)
{
	size_t len = whole_characters(base_buf_text(&md->line), md->line.len);
	const char *s = base_buf_text(&md->line);
	struct base_buf text = BASE_BUF_INIT(4 * BLOCK_MAX);
	size_t indent = run_of(s, len, ' ');

	base_buf_reset(&md->preview);
	if (md->state == FENCE) { /* nothing of what may become its end */
		if (len && run_of(s + indent, len - indent, md->fence) < len - indent)
			put_fenced(md, s, len, &md->preview);
	} else if (md->block.len || (len && s[indent] != '`' && s[indent] != '~')) {
		(void)base_buf_append(&text, base_buf_text(&md->block), md->block.len);
		(void)base_buf_append(&text, s, len);
		if (md->has_output)
			(void)base_buf_putc(&md->preview, '\n');
		render(md, md->state, base_buf_text(&text), text.len, &md->preview);
	}
	base_buf_done(&text);
	while (md->preview.len && md->preview.data[md->preview.len - 1] == '\n')
		md->preview.len--;
}

/* The last n rows of text. */
static size_t tail_start(const char *text, size_t len, size_t n)
{
	while (len) {
		if (text[len - 1] == '\n' && !--n)
			return len;
		len--;
	}
	return 0;
}

static void draw_preview(struct ag_term_md *md)
{
	const char *rows, *nl;
	size_t from, len, height = md->look.rows > 1 ? md->look.rows - 1 : 1, row = 0;

	render_preview(md);
	md->unseen = 0;
	if (!md->preview.len) {
		term_live_erase(&md->live, &md->out, md->look.columns);
		return;
	}
	from = tail_start(md->preview.data, md->preview.len, height);
	rows = md->preview.data + from;
	len = md->preview.len - from;
	for (const char *p = rows; (nl = memchr(p, '\n', (size_t)(rows + len - p))); p = nl + 1)
		row++;
	nl = memrchr(rows, '\n', len);
	nl = nl ? nl + 1 : rows;
	term_live_draw(&md->live, &md->out, rows, len, row, term_drawn_columns(nl, (size_t)(rows + len - nl)),
	               md->look.columns);
}

/* ---- The stream
 * --------------------------------------------------------------------------------------------------------------------
 */

int ag_term_md_new(const struct ag_term_look *look, ag_term_write_fn write, void *ctx, struct ag_term_md **ret_md)
{
	struct ag_term_md *md = calloc(1, sizeof(*md));

	if (!md)
		return -ENOMEM;
	md->look = *look;
	md->write = write;
	md->ctx = ctx;
	base_buf_init(&md->line, 2 * BLOCK_MAX);
	base_buf_init(&md->block, 4 * BLOCK_MAX);
	base_buf_init(&md->out, OUT_MAX);
	base_buf_init(&md->preview, OUT_MAX);
	*ret_md = md;
	return 0;
}

void ag_term_md_free(struct ag_term_md *md)
{
	if (!md)
		return;
	base_buf_done(&md->line);
	base_buf_done(&md->block);
	base_buf_done(&md->out);
	base_buf_done(&md->preview);
	term_live_done(&md->live);
	free(md);
}

void ag_term_md_resize(struct ag_term_md *md, unsigned columns, unsigned rows)
{
	md->look.columns = columns ? columns : 80;
	md->look.rows = rows ? rows : 24;
}

static int pass_on(struct ag_term_md *md)
{
	int r = base_buf_error(&md->out);

	if (r == 0 && md->out.len)
		r = md->write(md->ctx, md->out.data, md->out.len);
	base_buf_reset(&md->out);
	return r < 0 ? r : 0;
}

static void end_line(struct ag_term_md *md)
{
	take_line(md, base_buf_text(&md->line), md->line.len);
	base_buf_reset(&md->line);
}

/* Cuts a line that is too long, between characters. */
static void cut_line(struct ag_term_md *md)
{
	size_t len = whole_characters(md->line.data, md->line.len), rest = md->line.len - len;
	char kept[4];

	memcpy(kept, md->line.data + len, rest);
	md->line.len = len;
	md->line.data[len] = '\0';
	end_line(md);
	(void)base_buf_append(&md->line, kept, rest);
}

static void take_bytes(struct ag_term_md *md, const char *text, size_t len)
{
	while (len) {
		const char *nl = memchr(text, '\n', len);
		size_t take = nl ? (size_t)(nl - text) : len, room = BLOCK_MAX - md->line.len;

		if (take > room) {
			take = room;
			nl = NULL;
		}
		(void)base_buf_append(&md->line, text, take);
		if (nl)
			end_line(md);
		else if (md->line.len == BLOCK_MAX)
			cut_line(md);
		text += take + (nl ? 1 : 0);
		len -= take + (nl ? 1 : 0);
	}
}

/* What is final goes where the preview was, and the new preview under it. */
int ag_term_md_feed(struct ag_term_md *md, const char *text, size_t len)
{
	struct base_buf final = BASE_BUF_INIT(OUT_MAX);
	int r;

	take_bytes(md, text, len);
	md->unseen += len;
	if (!md->look.can_move)
		return pass_on(md);
	if (md->out.len) {
		(void)base_buf_append(&final, md->out.data, md->out.len);
		base_buf_reset(&md->out);
		term_live_erase(&md->live, &md->out, md->look.columns);
		(void)base_buf_append(&md->out, base_buf_text(&final), final.len);
		draw_preview(md);
	} else if (md->unseen && md->unseen >= (md->block.len + md->line.len) / PREVIEW_SHARE) {
		draw_preview(md);
	}
	r = base_buf_error(&final);
	base_buf_done(&final);
	return r < 0 ? r : pass_on(md);
}

int ag_term_md_finish(struct ag_term_md *md)
{
	struct base_buf final = BASE_BUF_INIT(OUT_MAX);
	int r;

	if (md->line.len)
		end_line(md);
	if (md->state != NONE && md->state != FENCE)
		finish_block(md);
	(void)base_buf_append(&final, base_buf_text(&md->out), md->out.len);
	base_buf_reset(&md->out);
	term_live_erase(&md->live, &md->out, md->look.columns);
	(void)base_buf_append(&md->out, base_buf_text(&final), final.len);
	r = base_buf_error(&final);
	base_buf_done(&final);
	md->state = NONE;
	md->has_output = false;
	md->unseen = 0;
	return r < 0 ? r : pass_on(md);
}
