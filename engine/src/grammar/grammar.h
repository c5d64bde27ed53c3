/* Structured output: a grammar, compiled once, tells after each token which tokens may come next.
 *
 *   schema.c, schema_cases.c   JSON Schema: sets of subschemas that meet in a value -> cases -> nodes
 *   schema_object.c _array.c _scalar.c number.c format.c    one case of one type -> a node
 *   schema_check.c _valid.c _possible.c    which keywords; listed values; what has an instance at all
 *   ebnf.c, ebnf_rules.c       EBNF -> rules -> nodes
 *   tags.c                     free text with tags that hold values of schemas
 *   regex.c, ast.c             regular expressions -> trees
 *   charset.c, nfa.c, dfa*.c   trees -> automata over characters, made deterministic as they are walked
 *   lex.c                      bytes -> characters -> an automaton: a terminal
 *   machine.c, object.c        sets of stacks, one byte at a time: a pushdown automaton followed as a set
 *   trie.c, vocab.c            tokens by their bytes
 *   mask.c                     a set of stacks x the trie -> tokens
 *   matcher.c, grammar.c       one output's way through a grammar; life and sharing
 *
 * A mask is the union over the set's stacks. What the innermost node of a stack allows by itself does not depend on the
 * stack, so it is computed once per state of the node and kept with the grammar (for free strings: with the
 * vocabulary); tokens that run over the node's end are kept as a small trie of their rests, which is walked with the
 * real stack.
 *
 * A state is only entered when the text can still be completed: automata are pruned, objects count what is missing. So
 * a mask without tokens means that the vocabulary cannot spell what is needed, or a limit, and is an error.
 *
 * Threads: a grammar may be used by several at once (it locks itself); a matcher has one user. */
#ifndef ENG_GRAMMAR_GRAMMAR_H
#define ENG_GRAMMAR_GRAMMAR_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "engine.h"

struct eng_tokenizer;
struct grammar_vocab;

/* The tokens of a tokenizer by their bytes; special ones are no text and left out. Counted. */
int gr_grammar_vocab_new(const struct eng_tokenizer *tok, struct grammar_vocab **ret, struct err *err);
/* The same from n byte strings (tests, benchmarks); len 0: a token that is no text. */
int gr_grammar_vocab_from(const uint8_t *const *tokens, const uint32_t *lens, uint32_t n, struct grammar_vocab **ret);
struct grammar_vocab *gr_grammar_vocab_ref(struct grammar_vocab *v);
void gr_grammar_vocab_unref(struct grammar_vocab *v);

/* As eng_grammar_compile(). The grammar holds a reference of vocab. */
int gr_grammar_compile(struct grammar_vocab *vocab, enum eng_grammar_kind kind, const char *text, size_t len,
                       struct eng_grammar **ret, struct err *err);
/* Whether it was made of this. */
bool gr_grammar_is(const struct eng_grammar *g, enum eng_grammar_kind kind, const char *text, size_t len);

/* ---- One output ---- */

struct eng_matcher;

/* Takes a reference of its own. */
int eng_matcher_new(struct eng_grammar *g, struct eng_matcher **ret);
void eng_matcher_free(struct eng_matcher *m);
/* Bit i: token i may come next. *ret_n: how many. Borrowed until the next call. NULL: a limit was met (-E2BIG) or
 * memory ran out: eng_matcher_error(). */
const uint64_t *eng_matcher_mask(struct eng_matcher *m, uint32_t *ret_n);
bool eng_matcher_has_mask(const struct eng_matcher *m); /* of where the output is now */
/* 0; -EINVAL: it is not in the mask, and nothing changed. */
int eng_matcher_accept(struct eng_matcher *m, int32_t token);
/* Bytes instead of a token. The number of bytes taken: fewer than len when the next one is refused; those stay taken.
 */
size_t eng_matcher_accept_bytes(struct eng_matcher *m, const void *bytes, size_t len);
bool eng_matcher_can_end(const struct eng_matcher *m);  /* the output may end here */
bool eng_matcher_must_end(const struct eng_matcher *m); /* and nothing else may come */
int eng_matcher_error(const struct eng_matcher *m);
/* Bit b: byte b may come next. For messages. */
void eng_matcher_bytes(struct eng_matcher *m, uint64_t ret_bits[4]);
/* logits [n_vocab]: what may not come next becomes minus infinity. -EILSEQ: the vocabulary cannot spell what must come,
 * and the output cannot end here. */
int eng_matcher_apply(struct eng_matcher *m, float *logits, uint32_t n_vocab, struct err *err);

#endif
