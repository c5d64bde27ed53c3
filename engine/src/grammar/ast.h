/* Regular expressions and rules as trees: what the parsers (regex, EBNF, number ranges) make and the automata are
 * built of. Trees live in a pool and die with it. */
#ifndef ENG_GRAMMAR_AST_H
#define ENG_GRAMMAR_AST_H

#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "grammar/charset.h"

enum {
	AST_MAX_NODES = 200000,
	AST_MAX_DEPTH = 100,    /* of groups */
	AST_MAX_REPEAT = 10000, /* x{n,m} */
};
#define AST_INFINITE UINT32_MAX

enum ast_kind {
	AST_SET,
	AST_CAT,
	AST_ALT,
	AST_REPEAT, /* of the first child */
	AST_BEGIN,  /* ^ */
	AST_END,    /* $ */
	AST_CALL,   /* of a rule (EBNF) */
};

struct ast {
	enum ast_kind kind;
	struct ast *first, *last, *next; /* children; the next sibling */
	uint32_t min, max;               /* REPEAT */
	uint32_t rule;                   /* CALL */
	struct charset set;              /* SET */
	struct ast *all;                 /* the pool's list */
};

struct ast_pool {
	struct ast *all;
	size_t n;
};

void gr_ast_pool_done(struct ast_pool *pool);
/* NULL: out of memory, or the pool is full. */
struct ast *gr_ast_new(struct ast_pool *pool, enum ast_kind kind);
void gr_ast_append(struct ast *parent, struct ast *child);
struct ast *gr_ast_repeat(struct ast_pool *pool, struct ast *child, uint32_t min, uint32_t max);
struct ast *gr_ast_char(struct ast_pool *pool, uint32_t cp);
/* The characters of valid UTF-8, one after another. */
struct ast *gr_ast_literal(struct ast_pool *pool, const char *text, size_t len);

/* A regular expression: classes, groups, alternation, repeats, anchors. Errors name what is not supported, and where.
 * -EINVAL, -E2BIG, -ENOMEM. */
int gr_ast_parse_regex(struct ast_pool *pool, const char *text, size_t len, struct ast **ret, struct err *err);

/* What stands between the brackets of a character class, "[" consumed, up to and including "]"; shared with EBNF. */
int gr_ast_parse_class(const char *text, size_t len, size_t *pos, struct charset *ret, struct err *err);

#endif
