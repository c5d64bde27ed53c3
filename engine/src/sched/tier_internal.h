/* Shared by tier.c (life, what is on its way), tier_out.c (to the host and the disk) and tier_in.c (back). */
#ifndef ENG_SCHED_TIER_INTERNAL_H
#define ENG_SCHED_TIER_INTERNAL_H

#include "kv/host.h"
#include "sched/sched_internal.h"

static inline struct tier_copy *tier_first(struct tier_ring *ring)
{
	return &ring->copies[ring->first];
}

static inline void tier_push(struct tier_ring *ring, struct tier_copy copy)
{
	ring->copies[(ring->first + ring->n++) % ring->cap] = copy;
}

static inline void tier_pop(struct tier_ring *ring)
{
	ring->first = (ring->first + 1) % ring->cap;
	ring->n--;
	ring->n_ended++;
}

/* The n-th that ever was in it, from 1 on, if it still is; NULL: it has ended. */
static inline struct tier_copy *tier_nth(struct tier_ring *ring, uint64_t n)
{
	return n > ring->n_ended ? &ring->copies[(ring->first + (n - 1 - ring->n_ended)) % ring->cap] : NULL;
}

/* tier_out.c */
void sched_tier_page_published(void *s, uint32_t page);
void sched_tier_page_evicted(void *s, uint32_t page);
void sched_tier_take_out(struct eng_sched *s);
/* Orders that the disk has written. */
void sched_tier_take_stored(struct eng_sched *s);

/* tier_in.c */
void sched_tier_take_in(struct eng_sched *s);
/* Orders that the disk has read. */
void sched_tier_take_read(struct eng_sched *s);
/* Of all that load: asks for more, or ends it. */
void sched_tier_go_on(struct eng_sched *s);

#endif
