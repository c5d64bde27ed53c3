/* Speculation without a second model: the last tokens of a sequence are looked up in what it has said before
 * (prompt included), and what followed there is the draft (prompt look-up decoding, Saxena 2023). Answers that
 * quote, correct or continue their input hit often; others pay for a look-up of one hash a token, and for a draft
 * now and then, rarer each time that it was wrong.
 *
 * Whether a draft is right is decided by sampling the model's own distribution at every position: the output is
 * that of sampling without drafts, token for token. */
#ifndef ENG_DRAFT_H
#define ENG_DRAFT_H

#include <stdbool.h>
#include <stdint.h>

struct eng_draft; /* of one sequence */

enum { ENG_DRAFT_MAX = 12 };

/* For a sequence of at most max_tokens tokens. */
int eng_draft_new(uint32_t max_tokens, struct eng_draft **ret_draft);
void eng_draft_free(struct eng_draft *d);

/* A draft of at most `max` tokens behind tokens[0, n_tokens), which only grows from call to call; written to
 * ret_ids. row_cost: what computing one drafted token costs, relative to what a token gained is worth. */
uint32_t eng_draft_make(struct eng_draft *d, const int32_t *tokens, uint32_t n_tokens, uint32_t max, double row_cost,
                        int32_t *ret_ids);
/* A draft would be made behind these tokens, which may lack the newest ones. */
bool eng_draft_is_likely(struct eng_draft *d, const int32_t *tokens, uint32_t n_tokens, double row_cost);
/* How the last draft went. */
void eng_draft_learn(struct eng_draft *d, uint32_t n_drafted, uint32_t n_right);

#endif
