/* What the files that read manual pages share: kb_roff.c the macros, kb_roff_words.c the words between them. */
#ifndef AG_KB_ROFF_H
#define AG_KB_ROFF_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/buf.h"
#include "kb/kb_internal.h"

enum { KB_ROFF_MAX_STRINGS = 32, KB_ROFF_FILL_BYTES = 400 /* of a line */ };

struct kb_roff {
	struct ag_kb_doc *doc;
	struct base_buf text; /* the line being filled */
	uint32_t line, text_line;
	bool para, literal, name_wanted, table, no_space;
	int skip_blocks;  /* depth of a \{ that is not taken */
	bool last_if;     /* for .el */
	char end_mark[8]; /* a definition is skipped until ".MARK" */
	char page[64];    /* the name in .Nm */
	struct {
		char name[8], value[24];
	} strings[KB_ROFF_MAX_STRINGS];
	size_t n_strings;
};

/* All give 0 or a negative errno. */

int kb_roff_flush(struct kb_roff *r);                               /* the line being filled is done */
int kb_roff_paragraph(struct kb_roff *r);                           /* and so is its paragraph */
int kb_roff_put(struct kb_roff *r, const char *s, size_t len);      /* escapes become their characters */
int kb_roff_put_word(struct kb_roff *r, const char *s, size_t len); /* behind a blank, where one is due */
int kb_roff_text_line(struct kb_roff *r, const char *s, size_t len);

#endif
