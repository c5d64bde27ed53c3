/* Shared by ebnf.c (parsing) and ebnf_rules.c (what rules can do, and nodes of them). */
#ifndef ENG_GRAMMAR_EBNF_INTERNAL_H
#define ENG_GRAMMAR_EBNF_INTERNAL_H

#include "grammar/grammar_internal.h"

enum { EBNF_MAX_RULES = 2000, EBNF_MAX_NAME = 64, EBNF_MAX_INLINED = 20000, EBNF_MAX_ALL_INLINED = 400000 };

struct named_rule {
	char name[EBNF_MAX_NAME];
	size_t pos; /* where it was first mentioned */
	struct ast *tree;
	bool is_nullable, is_productive, is_regular;
	uint8_t mark; /* search for left recursion */
};

struct ebnf {
	struct eng_grammar *g;
	struct ast_pool pool;
	const char *text;
	size_t len, pos;
	unsigned depth;
	size_t n_inlined; /* nodes copied so far */
	struct named_rule *rules;
	uint32_t n, cap;
	struct err *err;
};

/* Names the line and position where parsing is. Returns code. */
int gr_ebnf_fail(struct ebnf *e, int code, const char *what);
struct ast *gr_ebnf_new_ast(struct ebnf *e, enum ast_kind kind);
/* ebnf_rules.c, in this order, once all rules are there. */
int gr_ebnf_turn_left_recursion(struct ebnf *e, uint32_t rule);
int gr_ebnf_analyse(struct ebnf *e);
int gr_ebnf_build(struct ebnf *e);

#endif
