/* From logits to a token. Order: logit bias, penalties, (raw logprobs are taken before any of this),
 * temperature, top-k, top-p, min-p, draw. temperature 0 is greedy: the highest logit, ties to the lowest
 * id. Seeded per request: the same seed and logits give the same tokens. */
#ifndef ENG_SAMPLER_H
#define ENG_SAMPLER_H

#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "engine.h"
#include "kernels.h"

struct eng_sampler; /* one per sequence: random state, counts for penalties, scratch */

int eng_sampler_new(const struct eng_sampling *sampling, uint32_t n_vocab, struct eng_sampler **ret_sampler);
void eng_sampler_free(struct eng_sampler *s);
/* Counts a token of prompt or output, for the penalties. */
void eng_sampler_accept(struct eng_sampler *s, int32_t id, bool is_output);
/* logits [n_vocab] are not changed. */
int32_t eng_sampler_pick(struct eng_sampler *s, const float *logits);

/* Log-probabilities of the distribution that eng_sampler_pick() draws from for these logits, before the token is
 * accepted: after bias, penalties, temperature and filters. Greedy: 0 for the best id, minus infinity for others.
 * Entries beyond the candidates have id -1. */
float eng_sampler_logprobs(struct eng_sampler *s, const float *logits, int32_t id, uint32_t n_top,
                           struct eng_top *ret_top);

/* The same of n ids at once. */
void eng_sampler_logprobs_of(struct eng_sampler *s, const float *logits, const int32_t *ids, size_t n, float *ret);

/* log-softmax of one row: the log-probability of id, and the n_top best (ids and logprobs, best first,
 * ties to the lowest id). ret_top may be NULL when n_top is 0. */
float eng_logprobs(const float *logits, uint32_t n_vocab, int32_t id, uint32_t n_top, struct eng_top *ret_top);
void eng_logprobs_of(const float *logits, uint32_t n_vocab, const int32_t *ids, size_t n, float *ret);

/* ---- Rows that stay with the backend ---- */

/* One row of logits: in host memory, or with the backend, which picked the best of it (see kn_ops.pick). */
struct eng_row {
	const float *logits;            /* [n_vocab]; NULL: not here yet */
	const struct kn_picked *picked; /* NULL: nothing was picked */
	const struct kn_best *best;     /* [n_best] */
	uint32_t n_best;
	const float *(*fetch)(void *ctx, uint32_t index); /* the whole row; needed where logits is NULL */
	void *ctx;
	uint32_t index;
};

/* What n tokens are picked by, after `skip` that were picked before but not taken yet. False: whole rows are needed.
 * Draws no random numbers: the same are drawn when the tokens are taken. */
bool eng_sampler_wants(const struct eng_sampler *s, uint32_t skip, uint32_t n, struct kn_pick *ret_picks);
/* As eng_sampler_pick(), of what was picked where that suffices. */
int32_t eng_sampler_pick_row(struct eng_sampler *s, struct eng_row *row);
/* As eng_logprobs(), likewise. */
float eng_row_logprobs(struct eng_row *row, uint32_t n_vocab, int32_t id, uint32_t n_top, struct eng_top *ret_top);
/* The whole row, fetched where it has to be. */
const float *eng_row_logits(struct eng_row *row);

#endif
