/* Nondeterministic automata over code points, built from trees (Thompson's construction), with calls of rules. */
#ifndef ENG_GRAMMAR_NFA_H
#define ENG_GRAMMAR_NFA_H

#include "grammar/ast.h"

enum { NFA_MAX_STATES = 100000, NFA_MAX_STEPS = 600000 };
#define NFA_NONE UINT32_MAX

enum nfa_edge_kind {
	NFA_EPS,
	NFA_SET,   /* arg: index into sets */
	NFA_BEGIN, /* passed at the beginning of the text only */
	NFA_END,   /* passed at its end only */
	NFA_CALL,  /* arg: rule */
};

struct nfa_edge {
	enum nfa_edge_kind kind;
	uint32_t arg, to;
	uint32_t next; /* of the same state; NFA_NONE ends */
};

struct nfa {
	uint32_t *heads; /* per state: its first edge */
	uint32_t n_states, cap_states;
	struct nfa_edge *edges;
	uint32_t n_edges, cap_edges;
	struct charset *sets;
	uint32_t n_sets, cap_sets;
	uint32_t single[128]; /* the set of one ASCII character + 1, so that literals share theirs */
	uint32_t n_steps;
};

void gr_nfa_done(struct nfa *a);
/* -E2BIG or -ENOMEM. */
int gr_nfa_state(struct nfa *a, uint32_t *ret);
int gr_nfa_edge(struct nfa *a, uint32_t from, enum nfa_edge_kind kind, uint32_t arg, uint32_t to);
int gr_nfa_set(struct nfa *a, const struct charset *set, uint32_t *ret);
/* From state `from` through the tree to a state of its own in *ret_to. */
int gr_nfa_emit(struct nfa *a, const struct ast *tree, uint32_t from, uint32_t *ret_to);

#endif
