/* Shared by the automaton's files: dfa.c (building, states as they are needed), dfa_complete.c (all states at once),
 * dfa_walk.c (questions). */
#ifndef ENG_GRAMMAR_DFA_INTERNAL_H
#define ENG_GRAMMAR_DFA_INTERNAL_H

#include "grammar/dfa.h"

#define DFA_UNKNOWN UINT32_MAX

enum { DFA_MAX_TAKEN = 16, DFA_KEPT_TAKEN = 128 };

/* An answer of gr_dfa_takes(): up to `takes` characters yes, from `fails` on no. */
struct dfa_taken {
	uint32_t q;
	uint16_t kinds;
	uint32_t takes, fails;
};

struct dfa_state {
	uint32_t *members; /* states of the NFA, sorted; NULL once the automaton is complete */
	uint32_t n;
	uint32_t matches;
	uint32_t distance; /* fewest characters to acceptance */
	bool accepts;
	uint8_t settled; /* SETTLED_...: whether every character leads back */
	uint32_t *next;  /* [n_classes], DFA_UNKNOWN: not computed */
};

struct dfa {
	struct nfa nfa;
	uint32_t need, forbid;
	uint64_t allowed; /* see dfa_builder */
	bool has_allowed;

	uint32_t *class_lo; /* first code point of each class */
	uint32_t n_classes;
	uint16_t ascii[128];
	uint16_t *class_kinds; /* [n_classes] */
	struct dfa_taken taken[DFA_KEPT_TAKEN];
	uint64_t *set_classes; /* [n_sets][class_words] */
	uint32_t class_words;

	uint32_t *ends; /* per NFA state: the patterns that match when the text ends here */
	uint32_t *far;  /* per NFA state: fewest characters to acceptance, DFA_UNKNOWN: no way */
	uint32_t farthest;
	uint32_t *marks; /* per NFA state: the last closure that visited it */
	uint32_t mark;
	uint32_t *stack, *members; /* [n_states] scratch */

	struct dfa_state *states;
	uint32_t n_states, cap_states;
	uint32_t *table; /* hash -> state + 1 */
	uint32_t table_size;
	uint32_t start;
	int error;
};

/* The class of a code point; the state that a class leads to, computed when it is not known yet. */
uint32_t gr_dfa_class_of(const struct dfa *d, uint32_t cp);
uint32_t gr_dfa_next_of_class(struct dfa *d, uint32_t q, uint32_t class);
void gr_dfa_free_states(struct dfa *d);
/* dfa_complete.c */
int gr_dfa_complete(struct dfa *d, uint32_t min_chars);

#endif
