/* Which of a pool's threads take part while others use some of the cores; apart so that it can be tested without
 * any. All times are given by the caller. */
#ifndef BASE_THREADPOOL_LOAD_H
#define BASE_THREADPOOL_LOAD_H

#include <stdint.h>

struct pool_load {
	unsigned n_threads;
	unsigned n_active; /* what the next loop should have: n_threads when nobody disturbs */
	double loss;       /* smoothed share of the time */
	int64_t calm_ns;   /* since the last thread was sent away or asked back */
	int64_t rest_ns;   /* calm time until one is asked back */
};

void base_load_init(struct pool_load *l, unsigned n_threads);
/* Some milliseconds of loops took busy_ns, of which lost_ns were spent waiting for threads that had lost their core. */
void base_load_add(struct pool_load *l, int64_t busy_ns, int64_t lost_ns);
/* What a loop lost: its caller, whose own chunks took chunk_ns on average (0: it had none), then waited wait_ns for
 * the others. */
int64_t base_load_lost(int64_t wait_ns, int64_t chunk_ns);

#endif
