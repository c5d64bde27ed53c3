/* Shared by the two files that turn Oniguruma's regex syntax into PCRE2's: regex_translate.c has the grammar,
 * regex_escape.c the escapes and properties that mean one character or a set of them. */
#ifndef ENG_TOK_REGEX_TRANSLATE_H
#define ENG_TOK_REGEX_TRANSLATE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/buf.h"
#include "base/err.h"

enum { TOK_TR_MAX_DEPTH = 100 };

/* Contents of classes, without brackets. Each ends so that a following '-' cannot make a range of it. */
#define SPACE_SET \
	"\\t-\\r\\x{20}\\x{85}\\x{a0}\\x{1680}\\x{202f}\\x{205f}\\x{3000}\\x{2000}-\\x{200a}\\x{2028}-\\x{2029}"
#define WORD_SET                                                                                         \
	"\\p{L}\\p{M}\\p{Nd}\\p{Nl}\\p{Pc}\\x{24b6}-\\x{24e9}\\x{1f130}-\\x{1f149}\\x{1f150}-\\x{1f169}" \
	"\\x{1f170}-\\x{1f189}"
#define ALPHA_SET "\\p{L}\\p{M}\\p{Nl}\\x{24b6}-\\x{24e9}"
#define HEX_SET "0-9A-Fa-f"

struct tok_tr {
	const char *where, *pattern, *p, *end;
	struct base_buf *out;
	struct err *err;
	size_t group[TOK_TR_MAX_DEPTH]; /* where each open group began in out */
	size_t depth;
	size_t atom;   /* where the last repeatable thing began; SIZE_MAX: none */
	bool repeated; /* and it already has a quantifier */
};

/* A set of characters: the inside of a class, taken as it is or as its complement. */
struct tok_tr_set {
	struct base_buf text;
	bool negated;
};

void tok_tr_set_done(struct tok_tr_set *set);

/* Errors that quote the pattern. */
int tok_tr_unsupported(struct tok_tr *t, const char *what, const char *at);
int tok_tr_malformed(struct tok_tr *t, const char *what);

/* A character so written that PCRE2 cannot read it as syntax. */
void tok_tr_put_cp(struct base_buf *out, uint32_t cp);
uint32_t tok_tr_take_cp(struct tok_tr *t);

/* \p{name}. */
int tok_tr_property(struct tok_tr *t, const char *name, size_t n, struct tok_tr_set *set);
/* The escape after a backslash as a character (returns 0, *ret_cp) or a set (1). Other kinds: 2, not taken. */
int tok_tr_escape(struct tok_tr *t, uint32_t *ret_cp, struct tok_tr_set *set);

#endif
