/* Markdown for the terminal: what the stream (term_markdown.c), the blocks (term_md_block.c), the tables
 * (term_md_table.c) and the styled text (term_md_text.c) share. */
#ifndef TERM_MD_H
#define TERM_MD_H

#include "term_internal.h"

/* ---- Styled text --------------------------------------------------------------------------------------------- */

enum {
	MD_BOLD = 1u << 0,
	MD_ITALIC = 1u << 1,
	MD_CODE = 1u << 2,
	MD_LINK = 1u << 3,
	MD_HEADING = 1u << 4,
	MD_DIM = 1u << 5
};

/* Clean text, and the style of each of its bytes. A newline in it is a line break that the author wants. */
struct md_text {
	struct base_buf text;
	struct base_buf style;
	bool joint; /* a line end of the source: a blank, unless between Chinese characters */
};

void md_text_init(struct md_text *t);
void md_text_done(struct md_text *t);
void md_text_add(struct md_text *t, const char *s, size_t len, unsigned style, const struct ag_term_look *look);
void md_text_break(struct md_text *t);
/* Appends the bytes [from, to) with their style sequences. */
void md_text_put(const struct md_text *t, size_t from, size_t to, const struct ag_term_look *look,
                 struct base_buf *out);
/* The content of Markdown in one line (a table's cell). */
void md_text_parse(struct md_text *t, const char *s, size_t len, const struct ag_term_look *look);

/* ---- Blocks ------------------------------------------------------------------------------------------------------ */

/* Each appends whole lines. */
void md_put_blocks(const struct ag_term_look *look, const char *markdown, size_t len, struct base_buf *out);
void md_put_table(const struct ag_term_look *look, const char *markdown, size_t len, struct base_buf *out);
void md_put_code_line(const struct ag_term_look *look, const char *line, size_t len, struct base_buf *out);

/* Columns for text: the last one stays empty, so that no terminal wraps by itself. */
unsigned md_columns(const struct ag_term_look *look);

/* ---- Tables ------------------------------------------------------------------------------------------------------ */

/* Cells of a line, 0 when it has no bar. */
size_t md_table_cells(const char *line, size_t len);
/* The line under a table's head ("|---|:-:|"). */
bool md_is_table_rule(const char *line, size_t len);

#endif
