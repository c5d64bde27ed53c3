/* The scheduler's side of the tier in host memory (kv/host.h): what goes there, what comes back, and when. */
#ifndef ENG_SCHED_TIER_H
#define ENG_SCHED_TIER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "sched/worth.h"

struct eng_kv_host;
struct eng_sched;
struct eng_step_seq;
struct sreq;

enum { TIER_MAX_OUT = 1024, TIER_MAX_IN = 512 };

/* A page on its way. */
struct tier_copy {
	uint64_t ticket, load_tag; /* load_tag: whose it is, in */
	uint32_t slot, page;
	bool is_in, is_bad;
};

/* Both ways end in the order of their beginnings. */
struct tier_ring {
	struct tier_copy *copies; /* [cap] */
	uint32_t cap, first, n;
	uint64_t n_ended; /* so many came before the first */
};

struct sched_tier {
	struct eng_kv_host *host; /* NULL: there is no such tier */
	struct tier_ring out, in;
	uint64_t *leaving; /* [n_pages]: the number, in the out ring, of the copy of what was in it last; 0: none */
	uint32_t n_reads, n_stores; /* orders that the disk has */
	uint32_t save_at;           /* slot at which pages to be written are looked for */
	struct worth worth;
	double then_page_ns; /* what computing a page took when the disk's were written; 0: not known */
};

/* At the beginning, when the pool is there. Failing leaves the scheduler without the tier. */
int sched_tier_open(struct eng_sched *s, struct err *err);
void sched_tier_close(struct eng_sched *s);

/* Pages of those that will run next begin to come. */
void sched_tier_prefetch(struct eng_sched *s);
/* After admission: what follows the pages that r has begins to come, when that is faster than computing. */
void sched_tier_begin(struct eng_sched *s, struct sreq *r);
/* Takes what has come into the pool and gives what has gone to the host, and asks for more. */
void sched_tier_take(struct eng_sched *s);
/* Before a step of these sequences is begun: it goes behind copies of what was in the pages that it writes. */
void sched_tier_before(struct eng_sched *s, const struct eng_step_seq *seqs, size_t n);
/* Nothing can be computed: waits for what is on its way, or for news. */
void sched_tier_wait(struct eng_sched *s);
/* Pages are short: gives back what waiting requests hold, but r's (or NULL), and waits for what is on its way into
 * pages that were given back. False: there was nothing. */
bool sched_tier_yield(struct eng_sched *s, const struct sreq *r);
/* Nothing is on its way between host and device afterwards. */
void sched_tier_settle(struct eng_sched *s);
/* Waiting requests hold nothing and nothing is on its way afterwards, not even to and from the disk. */
void sched_tier_stop(struct eng_sched *s);
/* What r waits for in the queue is of no use any more. */
void sched_tier_drop(struct eng_sched *s, struct sreq *r);
/* Forgets all pages. */
void sched_tier_flush(struct eng_sched *s);
/* As sched_disk_give(), by way of the host. */
bool sched_tier_give(struct eng_sched *s, bool idle);

#endif
