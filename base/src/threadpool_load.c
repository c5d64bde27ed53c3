/* Sending threads away that would hold the others up.
 *
 * A thread whose core another process uses half of the time stops in the middle of a chunk, for some milliseconds each
 * time, and a loop of some tens of microseconds waits for it: with one core of four taken, a third of the time. No
 * size of chunk mends that. With that thread asleep the system moves those that are left to the free cores, and only
 * its own share is missing. So, when time after time more is lost by such waits than the fraction a thread is worth,
 * one is sent away. It is asked back after a rest, for a window, to see whether the core is free again; each time that
 * it is not doubles the rest. */
#include "threadpool_load.h"

enum {
	LEAST_REST_NS = 250000000,
	MOST_REST_NS = 2000000000,
	SMOOTH = 8, /* windows: a single interruption is nothing */
	/* A chunk may take longer than the caller's without anything being wrong. */
	SLOW_CHUNKS = 4,
	LEAST_STALL_NS = 400000,
	LEAST_LOSS_PERCENT = 6,
};

void base_load_init(struct pool_load *l, unsigned n_threads)
{
	*l = (struct pool_load){ .n_threads = n_threads, .n_active = n_threads, .rest_ns = LEAST_REST_NS };
}

int64_t base_load_lost(int64_t wait_ns, int64_t chunk_ns)
{
	int64_t usual = chunk_ns * SLOW_CHUNKS;

	usual = usual > LEAST_STALL_NS ? usual : LEAST_STALL_NS;
	return wait_ns > usual ? wait_ns - chunk_ns : 0;
}

/* What a thread is worth, in percent of the time; the waits are counted rather too low, so three quarters of it. */
static int64_t worth(const struct pool_load *l)
{
	int64_t percent = 75 / l->n_active;

	return percent > LEAST_LOSS_PERCENT ? percent : LEAST_LOSS_PERCENT;
}

void base_load_add(struct pool_load *l, int64_t busy_ns, int64_t lost_ns)
{
	/* Fewer than half would be slower than the worst neighbour. */
	unsigned least = l->n_threads / 2 + 1;

	l->calm_ns += busy_ns;
	l->loss += ((double)lost_ns / (double)busy_ns - l->loss) / SMOOTH;
	if (l->loss * 100 > worth(l) && l->n_active > least) {
		/* Soon after one was asked back: it is still not welcome. */
		if (l->calm_ns < LEAST_REST_NS)
			l->rest_ns = l->rest_ns < MOST_REST_NS / 2 ? l->rest_ns * 2 : MOST_REST_NS;
		l->n_active--;
		l->calm_ns = 0;
		l->loss = 0;
	} else if (l->n_active < l->n_threads && l->calm_ns > l->rest_ns) {
		l->n_active++;
		l->calm_ns = 0;
		l->loss = 0;
	} else if (l->n_active == l->n_threads && l->calm_ns > LEAST_REST_NS) {
		l->rest_ns = LEAST_REST_NS;
	}
}
