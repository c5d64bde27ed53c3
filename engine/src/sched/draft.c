/* The index: a hash table from the last GRAM tokens to the latest position where they were followed by something.
 * It holds positions only; a look-up compares the tokens themselves.
 *
 * The length of a draft: position i is right with probability p^i (p learned per sequence), so one more token is
 * drafted while p^i is worth more than the row it costs. Where drafts keep failing, the next attempt waits twice
 * as long, up to REST_MAX tokens. */
#include "sched/draft.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

enum { GRAM = 3, REST_MIN = 16, REST_MAX = 1024 };

struct eng_draft {
	uint32_t *ends; /* [n_slots], a power of two: position behind the gram, 0 for none */
	uint32_t n_slots;
	uint32_t n_indexed; /* grams that end before this position are in */
	double p;           /* that a drafted token is right when those before it were */
	uint32_t rest;      /* the length at which the next attempt is made */
	uint32_t pause;     /* how long the next rest is */
};

int eng_draft_new(uint32_t max_tokens, struct eng_draft **ret_draft)
{
	struct eng_draft *d = calloc(1, sizeof(*d));

	if (!d)
		return -ENOMEM;
	for (d->n_slots = 64; d->n_slots < max_tokens && d->n_slots < 1u << 30;)
		d->n_slots *= 2;
	d->ends = calloc(d->n_slots, sizeof(*d->ends));
	if (!d->ends) {
		free(d);
		return -ENOMEM;
	}
	d->n_indexed = GRAM;
	d->p = 0.5;
	d->pause = REST_MIN;
	*ret_draft = d;
	return 0;
}

void eng_draft_free(struct eng_draft *d)
{
	if (!d)
		return;
	free(d->ends);
	free(d);
}

static uint32_t *slot_of(struct eng_draft *d, const int32_t *end)
{
	uint64_t h = 0;

	for (int i = 1; i <= GRAM; i++)
		h = (h ^ (uint32_t)end[-i]) * 0x9e3779b97f4a7c15u;
	return &d->ends[(h >> 32) & (d->n_slots - 1)];
}

/* Where the last GRAM tokens occurred before; 0: nowhere. Indexes what came since the last call. */
static uint32_t look_up(struct eng_draft *d, const int32_t *tokens, uint32_t n)
{
	uint32_t at;

	if (n < GRAM + 1)
		return 0;
	for (; d->n_indexed < n; d->n_indexed++)
		*slot_of(d, tokens + d->n_indexed) = d->n_indexed;
	at = *slot_of(d, tokens + n);
	if (at == 0 || memcmp(tokens + at - GRAM, tokens + n - GRAM, GRAM * sizeof(*tokens)) != 0)
		return 0;
	return at;
}

uint32_t eng_draft_make(struct eng_draft *d, const int32_t *tokens, uint32_t n_tokens, uint32_t max, double row_cost,
                        int32_t *ret_ids)
{
	uint32_t at = look_up(d, tokens, n_tokens), n = 0;
	double chance = d->p;

	/* Not even a draft that is always right would pay. */
	if (at == 0 || n_tokens < d->rest || row_cost >= 1)
		return 0;
	if (max > ENG_DRAFT_MAX)
		max = ENG_DRAFT_MAX;
	/* One token at least: else nothing would be learned any more. */
	while (n < max && (n == 0 || chance > row_cost)) {
		/* Behind the end of the sequence the draft repeats itself. */
		ret_ids[n] = at + n < n_tokens ? tokens[at + n] : ret_ids[at + n - n_tokens];
		chance *= d->p;
		n++;
	}
	d->rest = n_tokens; /* set on by eng_draft_learn() when it was wrong */
	return n;
}

bool eng_draft_is_likely(struct eng_draft *d, const int32_t *tokens, uint32_t n_tokens, double row_cost)
{
	return n_tokens >= d->rest && row_cost < 1 && look_up(d, tokens, n_tokens) > 0;
}

void eng_draft_learn(struct eng_draft *d, uint32_t n_drafted, uint32_t n_right)
{
	/* Tokens behind the first wrong one tell nothing. */
	uint32_t n_judged = n_right < n_drafted ? n_right + 1 : n_drafted;

	for (uint32_t i = 0; i < n_judged; i++)
		d->p += 0.15 * ((i < n_right ? 1.0 : 0.0) - d->p);
	if (n_right > 0) {
		d->pause = REST_MIN;
		return;
	}
	d->rest += d->pause;
	d->pause = d->pause * 2 < REST_MAX ? d->pause * 2 : REST_MAX;
}
