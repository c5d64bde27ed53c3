/* What steps cost, learned from those that were made: the time of a prompt token, and how a step's time grows with
 * the sequences that decode in it. Guesses only: they decide how much a step holds, never what comes out of it. */
#ifndef ENG_PACE_H
#define ENG_PACE_H

#include <stdbool.h>
#include <stdint.h>

enum { ENG_PACE_SIZES = 16 /* of steps, by powers of two from 16 tokens on */ };

/* Steps with prompts of about one size; n 0: none was seen. */
struct eng_pace_steps {
	double n, ns; /* tokens and time, smoothed */
};

struct eng_pace {
	double prompt_token_ns; /* 0: not known */
	struct eng_pace_steps steps[ENG_PACE_SIZES];
	uint64_t n_prompts; /* steps with prompts so far */
	/* Exponentially weighted means over steps that only decode, of rows, ns, rows^2, rows * ns. */
	double x, y, xx, xy;
	bool has_steps;
};

void eng_pace_learn(struct eng_pace *p, uint32_t n_prefill, uint32_t n_decode, uint64_t ns);
/* Prompt tokens that a step may hold beside running answers; at least 32. */
uint32_t eng_pace_prompt_tokens(const struct eng_pace *p, uint64_t step_ns);
/* What a prompt's n tokens take in steps of at most so many, rather less than more: of sizes beyond those that were
 * seen as much as what was seen makes sure. 0: nothing was seen. */
double eng_pace_prompt_ns(const struct eng_pace *p, uint64_t n, uint32_t most);
/* What one more row costs in a step of n rows, as a part of what one of its tokens costs: near 0 where the step
 * reads weights anyway, 1 where it only computes. */
double eng_pace_row_cost(const struct eng_pace *p, uint32_t n_rows);

#endif
