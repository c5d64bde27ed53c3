/* Requests of random prompts, for benchmarks of an engine. */
#ifndef BENCH_RANDOM_PROMPT_H
#define BENCH_RANDOM_PROMPT_H

#include <errno.h>
#include <stdlib.h>

#include "engine.h"

/* A greedy request of n tokens that follow from the seed; its events go to on_event(arg). ret_id may be in arg. */
static inline int submit_random(struct eng_engine *e, uint32_t seed, uint32_t n, uint32_t max_new,
                                eng_event_fn on_event, void *arg, uint64_t *ret_id, struct err *err)
{
	uint32_t n_vocab = eng_engine_info(e)->n_vocab;
	int32_t *ids = calloc(n, sizeof(*ids));
	struct eng_request req = { .ids = ids,
		                   .n_ids = n,
		                   .max_new = max_new,
		                   .ignore_eos = true,
		                   .logprob_start = -1,
		                   .on_event = on_event,
		                   .arg = arg,
		                   .sampling = { .top_p = 1, .repetition_penalty = 1 } };
	int r;

	if (!ids)
		return err_set(err, -ENOMEM, "out of memory");
	seed = seed * 2654435761u + 12345;
	for (uint32_t i = 0; i < n; i++) {
		seed = seed * 1664525u + 1013904223u;
		ids[i] = (int32_t)((seed >> 8) % n_vocab);
	}
	r = eng_submit(e, &req, ret_id, err);
	free(ids);
	return r;
}

#endif
