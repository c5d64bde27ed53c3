/* Automata over code points, made deterministic as they are walked. One automaton runs several patterns at once and
 * knows which of them match. */
#ifndef ENG_GRAMMAR_DFA_H
#define ENG_GRAMMAR_DFA_H

#include "grammar/nfa.h"

enum {
	DFA_DEAD = 0, /* the state that nothing leads out of */
	DFA_MAX_PATTERNS = 32,
	DFA_MAX_STATES = 20000,
	DFA_MAX_CELLS = 2 << 20, /* states times classes of code points */
};

struct dfa;

/* Patterns are added to the builder's automaton; then gr_dfa_finish() takes it over. */
struct dfa_builder {
	struct nfa nfa;
	uint32_t starts[DFA_MAX_PATTERNS], accepts[DFA_MAX_PATTERNS];
	uint32_t n;
	/* A text is accepted when all patterns of need match and none of forbid, and it has min_chars. */
	uint32_t need, forbid;
	/* Instead, for at most six patterns: bit m is set when a text that exactly the patterns of mask m match is
	 * accepted. */
	bool has_allowed;
	uint64_t allowed;
	uint32_t min_chars;
};

void gr_dfa_builder_init(struct dfa_builder *b);
void gr_dfa_builder_done(struct dfa_builder *b);
/* is_search: the pattern may match anywhere in the text. It becomes bit n - 1. */
int gr_dfa_builder_add(struct dfa_builder *b, const struct ast *tree, bool is_search);
/* One that was emitted into b->nfa by hand. */
int gr_dfa_builder_add_states(struct dfa_builder *b, uint32_t start, uint32_t accept);

/* Takes the builder's content, also on failure. With one pattern and no minimum it stays lazy; otherwise it is computed
 * here, and states that cannot reach acceptance are removed, so that a live state always has a way to the end.
 * -E2BIG: too large. */
int gr_dfa_finish(struct dfa_builder *b, struct dfa **ret, struct err *err);
void gr_dfa_free(struct dfa *d);

uint32_t gr_dfa_start(const struct dfa *d); /* DFA_DEAD: accepts nothing */
uint32_t gr_dfa_next(struct dfa *d, uint32_t q, uint32_t cp);
/* What has been computed of it so far: states times classes of code points. */
size_t gr_dfa_cells(const struct dfa *d);
/* The fewest characters to acceptance. */
uint32_t gr_dfa_distance(const struct dfa *d, uint32_t q);
/* No state is farther from it. */
uint32_t gr_dfa_farthest(const struct dfa *d);
/* Whether some code point of lo..hi (no surrogates) leads to a state at most `within` away from acceptance. */
bool gr_dfa_meets(struct dfa *d, uint32_t q, uint32_t lo, uint32_t hi, uint32_t within);
bool gr_dfa_accepts(const struct dfa *d, uint32_t q);
uint32_t gr_dfa_matches(const struct dfa *d, uint32_t q); /* mask of the patterns that match when the text ends here */
/* Whether no text of up to n characters of these kinds (trie.h) leads to a dead end; false may also mean that it is too
 * much to find out. */
bool gr_dfa_takes(struct dfa *d, uint32_t q, uint16_t kinds, uint32_t n);
/* Every character leads back to q: what matches is decided. */
bool gr_dfa_is_settled(struct dfa *d, uint32_t q);
/* Sticky: a limit was met or memory ran out while walking; what was answered since is not to be relied on. */
int gr_dfa_error(const struct dfa *d);

#endif
