/* Shared by sampler.c (the order of things, selection, log-probabilities) and rows.c (rows that stay with a backend).
 */
#ifndef ENG_SAMPLER_INTERNAL_H
#define ENG_SAMPLER_INTERNAL_H

#include "sampler/sampler.h"

struct cand {
	float logit;
	int32_t id;
};

struct eng_sampler {
	struct eng_sampling p; /* logit_bias points at our own copy */
	struct eng_logit_bias *bias;
	uint32_t n_vocab;
	uint64_t rng[4];
	uint32_t *n_out, *n_all; /* occurrences per id; NULL unless a penalty is on */
	float *logits;           /* [n_vocab] scratch */
	struct cand *cands;      /* [n_vocab] scratch; NULL when greedy */
};

/* Uniform in [0, 1). */
double sampler_unit(uint64_t rng[4]);

#endif
