/* Masks of structured output beside the forward pass: what may come behind the newest token is known as soon as that
 * token is, before the model has said anything of it. A thread of its own computes the masks of a step's sequences
 * while the step is computed; what it has not finished is waited for. It exists from the first grammar on. */
#ifndef ENG_SCHED_MASKS_H
#define ENG_SCHED_MASKS_H

#include <pthread.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct eng_matcher;

struct sched_masks {
	pthread_t thread;
	bool has_thread;
	pthread_mutex_t lock;
	pthread_cond_t wake, done;
	/* protected by lock */
	struct eng_matcher **list;
	uint32_t n; /* to be done; 0: the thread waits */
	bool is_stopping;
	uint64_t work_ns; /* all that it has worked */
	/* the scheduler's */
	uint32_t n_begun;
	uint64_t wait_ns; /* all that it was waited for */
};

/* max: most matchers at once. -ENOMEM. */
int sched_masks_init(struct sched_masks *m, uint32_t max);
void sched_masks_done(struct sched_masks *m);
/* Between the two calls the matchers that were added are the thread's. */
void sched_masks_add(struct sched_masks *m, struct eng_matcher *matcher);
void sched_masks_begin(struct sched_masks *m);
void sched_masks_end(struct sched_masks *m);

#endif
