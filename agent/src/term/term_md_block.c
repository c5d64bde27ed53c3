/* Markdown blocks to lines, from the tree that libcmark makes (CommonMark 0.30). Quotes and lists put a prefix in
 * front of what they hold; paragraphs are wrapped to what is left of the width; code is never wrapped. Raw HTML is
 * shown as the text it is. */
#include <cmark.h>
#include <stdlib.h>
#include <string.h>

#include "term_md.h"

enum {
	MAX_DEPTH = 24, /* of quotes and lists; deeper ones are shown as one paragraph */
	MIN_COLUMNS = 8,
	PREFIX_MAX = 4096,
	CODE_TAB = 4,
};

struct renderer {
	const struct ag_term_look *look;
	struct base_buf *out;
	struct base_buf prefix; /* of each line */
	struct base_buf first;  /* of the next line instead, when not empty (a list's marker) */
	unsigned depth;
};

unsigned md_columns(const struct ag_term_look *look)
{
	return look->columns > MIN_COLUMNS ? look->columns - 1 : MIN_COLUMNS;
}

/* ---- Text of a block ---- */

struct inlines {
	struct md_text *to;
	const struct ag_term_look *look;
	unsigned bold, italic, link;
	size_t link_start;
	unsigned base;
};

static unsigned style_of(const struct inlines *in)
{
	return in->base | (in->bold ? MD_BOLD : 0u) | (in->italic ? MD_ITALIC : 0u) | (in->link ? MD_LINK : 0u);
}

static void add(struct inlines *in, const char *s, unsigned style)
{
	if (s)
		md_text_add(in->to, s, strlen(s), style, in->look);
}

/* Where a link goes, unless its text says so already. */
static void add_target(struct inlines *in, const char *url)
{
	struct base_buf clean = BASE_BUF_INIT(1 << 20);
	const char *shown = base_buf_text(&in->to->text) + in->link_start;
	const char *bare = url && strncmp(url, "mailto:", 7) == 0 ? url + 7 : url;

	if (!bare || !*bare || ag_term_sanitize(&clean, bare, strlen(bare), in->look->ascii_only) < 0) {
		base_buf_done(&clean);
		return;
	}
	if (strcmp(shown, base_buf_text(&clean)) != 0) {
		add(in, " (", in->base);
		add(in, bare, in->base | MD_DIM);
		add(in, ")", in->base);
	}
	base_buf_done(&clean);
}

static void add_code(struct inlines *in, const char *code)
{
	const char *tick = in->look->color ? "" : "`"; /* colour tells it as well */

	add(in, tick, style_of(in));
	add(in, code, style_of(in) | MD_CODE);
	add(in, tick, style_of(in));
}

static void add_html(struct inlines *in, const char *html)
{
	if (html && (strcmp(html, "<br>") == 0 || strcmp(html, "<br/>") == 0 || strcmp(html, "<br />") == 0))
		md_text_break(in->to);
	else
		add(in, html, style_of(in) | MD_DIM);
}

static void add_node(struct inlines *in, cmark_node *node, bool enter)
{
	switch (cmark_node_get_type(node)) {
	case CMARK_NODE_TEXT:
		add(in, cmark_node_get_literal(node), style_of(in));
		break;
	case CMARK_NODE_CODE:
		add_code(in, cmark_node_get_literal(node));
		break;
	case CMARK_NODE_HTML_INLINE:
	case CMARK_NODE_HTML_BLOCK:
	case CMARK_NODE_CODE_BLOCK: /* only when nested too deep */
		add_html(in, cmark_node_get_literal(node));
		break;
	case CMARK_NODE_SOFTBREAK:
		in->to->joint = true;
		break;
	case CMARK_NODE_LINEBREAK:
		md_text_break(in->to);
		break;
	case CMARK_NODE_STRONG:
		in->bold += enter ? 1u : -1u;
		break;
	case CMARK_NODE_EMPH:
		in->italic += enter ? 1u : -1u;
		break;
	case CMARK_NODE_LINK:
		if (enter)
			in->link_start = in->to->text.len;
		in->link += enter ? 1u : -1u;
		if (!enter)
			add_target(in, cmark_node_get_url(node));
		break;
	case CMARK_NODE_IMAGE:
		add(in, enter ? "[" : "]", style_of(in));
		break;
	case CMARK_NODE_PARAGRAPH: /* several of them: only when nested too deep */
		in->to->joint = true;
		break;
	default:
		break;
	}
}

/* Without recursion: emphasis and quotes may be nested as deep as the text is long. */
static void collect(cmark_node *root, struct md_text *to, unsigned base, const struct ag_term_look *look)
{
	struct inlines in = { .to = to, .look = look, .base = base };
	cmark_iter *iter = cmark_iter_new(root);
	cmark_event_type event;

	while ((event = cmark_iter_next(iter)) != CMARK_EVENT_DONE)
		add_node(&in, cmark_iter_get_node(iter), event == CMARK_EVENT_ENTER);
	cmark_iter_free(iter);
}

void md_text_parse(struct md_text *t, const char *s, size_t len, const struct ag_term_look *look)
{
	/* A sign in front, taken away again, so that "- x" or "# x" in a cell is text; a punctuation sign, so that
	 * emphasis right after it is seen as at the start of a line. */
	struct base_buf source = BASE_BUF_INIT(1 << 20);
	cmark_node *root;

	(void)base_buf_puts(&source, "\\&");
	(void)base_buf_append(&source, s, len);
	root = cmark_parse_document(base_buf_text(&source), source.len, CMARK_OPT_DEFAULT);
	if (root)
		collect(root, t, 0, look);
	cmark_node_free(root);
	base_buf_done(&source);
	if (t->text.len && t->text.data[0] == '&') {
		memmove(t->text.data, t->text.data + 1, t->text.len);
		memmove(t->style.data, t->style.data + 1, t->style.len);
		t->text.len--;
		t->style.len--;
	}
}

/* ---- Lines ---- */

static void put_prefix(struct renderer *r)
{
	const struct base_buf *use = r->first.len ? &r->first : &r->prefix;

	(void)base_buf_append(r->out, base_buf_text(use), use->len);
	base_buf_reset(&r->first);
}

static void trim_end(struct base_buf *out)
{
	while (out->len && out->data[out->len - 1] == ' ')
		out->data[--out->len] = '\0';
}

static void put_blank(struct renderer *r)
{
	put_prefix(r);
	trim_end(r->out);
	(void)base_buf_putc(r->out, '\n');
}

static void put_text(struct renderer *r, const struct md_text *t)
{
	unsigned used = term_drawn_columns(base_buf_text(&r->prefix), r->prefix.len), all = md_columns(r->look);
	unsigned columns = all > used + MIN_COLUMNS ? all - used : MIN_COLUMNS;
	size_t at = 0, end, next, len;

	while (at < t->text.len) {
		const char *nl = memchr(t->text.data + at, '\n', t->text.len - at);

		end = nl ? (size_t)(nl - t->text.data) : t->text.len;
		do {
			len = ag_term_wrap(t->text.data + at, end - at, columns, &next);
			put_prefix(r);
			md_text_put(t, at, at + len, r->look, r->out);
			trim_end(r->out);
			(void)base_buf_putc(r->out, '\n');
			at += next;
		} while (at < end);
		at = end + (nl ? 1 : 0);
	}
}

static void put_paragraph(struct renderer *r, cmark_node *node, unsigned base, const char *before)
{
	struct md_text t;

	md_text_init(&t);
	md_text_add(&t, before, strlen(before), base, r->look);
	collect(node, &t, base, r->look);
	if (t.text.len)
		put_text(r, &t);
	else if (r->first.len)
		put_blank(r);
	md_text_done(&t);
}

static void put_heading(struct renderer *r, cmark_node *node)
{
	static const char signs[] = "###### ";
	int level = cmark_node_get_heading_level(node);

	/* Where a heading cannot be told by its weight, its signs stay. */
	put_paragraph(r, node, MD_HEADING, r->look->color || level < 1 || level > 6 ? "" : signs + 6 - level);
}

static void put_rule(struct renderer *r)
{
	unsigned used = term_drawn_columns(base_buf_text(&r->prefix), r->prefix.len), all = md_columns(r->look);

	put_prefix(r);
	(void)base_buf_puts(r->out, ag_term_sgr(r->look, AG_TERM_DIM));
	for (unsigned i = 0; i < (all > used + MIN_COLUMNS ? all - used : MIN_COLUMNS); i++)
		(void)base_buf_puts(r->out, r->look->utf8 ? "─" : "-");
	(void)base_buf_puts(r->out, ag_term_sgr(r->look, AG_TERM_RESET));
	(void)base_buf_putc(r->out, '\n');
}

/* Clean, and tabs as blanks: what stands in front of the line would move them. */
static void put_code(const struct ag_term_look *look, const char *line, size_t len, struct base_buf *out)
{
	struct base_buf clean = BASE_BUF_INIT(1 << 20);
	unsigned column = 0;

	(void)ag_term_sanitize(&clean, line, len, look->ascii_only);
	if (clean.len) {
		(void)base_buf_puts(out, "    ");
		(void)base_buf_puts(out, ag_term_sgr(look, AG_TERM_CODE));
		for (size_t i = 0; i < clean.len;) {
			struct ag_term_cell cell = ag_term_cell_at(clean.data + i, clean.len - i);
			unsigned width = clean.data[i] == '\t' ? CODE_TAB - column % CODE_TAB : cell.width;

			(void)base_buf_append(out, clean.data[i] == '\t' ? "    " : clean.data + i,
			                      clean.data[i] == '\t' ? width : cell.len);
			column += width;
			i += cell.len;
		}
		(void)base_buf_puts(out, ag_term_sgr(look, AG_TERM_RESET));
	}
	base_buf_done(&clean);
	(void)base_buf_putc(out, '\n');
}

void md_put_code_line(const struct ag_term_look *look, const char *line, size_t len, struct base_buf *out)
{
	put_code(look, line, len, out);
}

static void put_code_block(struct renderer *r, const char *text)
{
	const char *nl;

	for (; text && *text; text = nl ? nl + 1 : NULL) {
		nl = strchr(text, '\n');
		put_prefix(r);
		put_code(r->look, text, nl ? (size_t)(nl - text) : strlen(text), r->out);
	}
}

/* ---- Containers ---- */

static void put_children(struct renderer *r, cmark_node *parent, bool is_tight);

/* What is inside has `marker` in front of its first line and `rest` in front of the others. */
static void put_inside(struct renderer *r, cmark_node *node, const char *marker, const char *rest, bool is_tight)
{
	size_t prefix_len = r->prefix.len;

	if (!r->first.len)
		(void)base_buf_append(&r->first, base_buf_text(&r->prefix), r->prefix.len);
	(void)base_buf_puts(&r->first, marker);
	(void)base_buf_puts(&r->prefix, rest);
	r->depth++;
	if (cmark_node_first_child(node))
		put_children(r, node, is_tight);
	if (r->first.len) /* nothing used the marker */
		put_blank(r);
	r->depth--;
	r->prefix.len = prefix_len;
	if (r->prefix.data)
		r->prefix.data[prefix_len] = '\0';
}

static void put_quote(struct renderer *r, cmark_node *node)
{
	struct base_buf bar = BASE_BUF_INIT(64);

	(void)base_buf_printf(&bar, "%s%s%s ", ag_term_sgr(r->look, AG_TERM_DIM), r->look->utf8 ? "│" : "|",
	                      ag_term_sgr(r->look, AG_TERM_RESET));
	put_inside(r, node, base_buf_text(&bar), base_buf_text(&bar), false);
	base_buf_done(&bar);
}

static void put_list(struct renderer *r, cmark_node *list)
{
	bool is_tight = cmark_node_get_list_tight(list),
	     is_ordered = cmark_node_get_list_type(list) == CMARK_ORDERED_LIST;
	int number = cmark_node_get_list_start(list);
	char marker[32], rest[32];

	for (cmark_node *item = cmark_node_first_child(list); item; item = cmark_node_next(item)) {
		if (is_ordered)
			(void)snprintf(marker, sizeof(marker), "%d. ", number++);
		else
			(void)snprintf(marker, sizeof(marker), "%s ", r->look->utf8 ? "•" : "-");
		memset(rest, ' ', sizeof(rest));
		rest[ag_term_columns(marker, strlen(marker), 0)] = '\0';
		put_inside(r, item, marker, rest, is_tight);
		if (!is_tight && cmark_node_next(item))
			put_blank(r);
	}
}

static void put_node(struct renderer *r, cmark_node *node)
{
	cmark_node_type type = cmark_node_get_type(node);

	if (r->depth >= MAX_DEPTH && (type == CMARK_NODE_BLOCK_QUOTE || type == CMARK_NODE_LIST)) {
		put_paragraph(r, node, 0, "");
		return;
	}
	switch (type) {
	case CMARK_NODE_BLOCK_QUOTE:
		put_quote(r, node);
		break;
	case CMARK_NODE_LIST:
		put_list(r, node);
		break;
	case CMARK_NODE_CODE_BLOCK:
	case CMARK_NODE_HTML_BLOCK:
		put_code_block(r, cmark_node_get_literal(node));
		break;
	case CMARK_NODE_HEADING:
		put_heading(r, node);
		break;
	case CMARK_NODE_THEMATIC_BREAK:
		put_rule(r);
		break;
	default:
		put_paragraph(r, node, 0, "");
		break;
	}
}

static void put_children(struct renderer *r, cmark_node *parent, bool is_tight)
{
	for (cmark_node *node = cmark_node_first_child(parent); node; node = cmark_node_next(node)) {
		put_node(r, node);
		if (!is_tight && cmark_node_next(node))
			put_blank(r);
	}
}

void md_put_blocks(const struct ag_term_look *look, const char *markdown, size_t len, struct base_buf *out)
{
	struct renderer r = {
		.look = look, .out = out, .prefix = BASE_BUF_INIT(PREFIX_MAX), .first = BASE_BUF_INIT(PREFIX_MAX)
	};
	cmark_node *root = cmark_parse_document(markdown, len, CMARK_OPT_DEFAULT);

	if (root)
		put_children(&r, root, false);
	cmark_node_free(root);
	base_buf_done(&r.prefix);
	base_buf_done(&r.first);
}
