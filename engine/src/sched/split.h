/* Prompts computed by one backend, answers by another: two schedulers, each with a thread, a pool and a prefix tree of
 * its own. The front has the queue, computes prompts up to their first token and hands the request over; the other one
 * copies the prompt's pages from pool to pool, begun while the prompt is still being computed, and answers.
 *
 * Between them stands a passage for each request, from its admission in front until nobody reads its pages there any
 * more. Locks are taken in this order: the front's, the other's, the passages'. */
#ifndef ENG_SCHED_SPLIT_H
#define ENG_SCHED_SPLIT_H

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"
#include "kv/kv.h"

struct eng_sched;
struct eng_sched_config;
struct sreq;

enum { SPLIT_COPIES = 128 };

enum passage_state {
	PASSAGE_FREE,
	PASSAGE_OPEN,
	PASSAGE_OVER /* nothing is read in front any more: the front takes it back */
};

struct passage {
	/* protected by the lock */
	enum passage_state state;
	uint64_t opened, handed; /* in which order; handed 0: not yet */
	uint64_t handed_ns;
	uint32_t n_ready; /* tokens whose K and V are in front, and do not change */
	bool is_dropped;  /* nobody wants it */
	struct sreq *r;   /* handed over: the other side's from now on, until it runs there */
	/* written before it is opened; from: before n_ready grows over it */
	int32_t *tokens; /* [n_tokens]: a copy */
	uint32_t *from;  /* the front's page of each page of tokens */
	uint32_t n_tokens, n_prompt, family;
	/* the front's thread */
	struct eng_kv_seq held; /* what was r's in front, until it is over */
	/* the other's thread */
	struct eng_kv_seq kv;
	bool has_room, has_failed; /* has_room: kv has all pages of tokens and one more token */
	uint32_t n_begun, n_done;  /* pages: those that were there count as done */
	uint32_t n_flying;         /* copies */
	uint64_t tag;              /* of those that are for kv */
	uint32_t ready, n_total;   /* as seen last: tokens; pages to come, 0: not known yet */
	struct sreq *seen;
	bool is_gone;
};

/* What both sides share; the front's. */
struct sched_link {
	pthread_mutex_t lock;
	struct passage *passages; /* [n] */
	uint32_t n;
	uint64_t n_opened, n_handed;
};

struct split_copy {
	struct passage *p;
	uint64_t ticket, tag;
	uint32_t first, page, n; /* the first one's place in the prompt and number, and how many follow */
};

struct sched_split {
	struct eng_sched *answers; /* of the front: the other one; NULL: it answers itself */
	struct eng_sched *front;   /* of the other one */
	struct sched_link *link;   /* NULL: there is only one scheduler */
	uint32_t n_left;           /* the front's: passages whose requests do not run there any more */
	struct passage **open;     /* the other's: [link->n], as it looks at them */
	struct split_copy *copies; /* the other's: [SPLIT_COPIES], a ring: they end in the order of their beginnings */
	uint32_t first_copy, n_copies;
	uint64_t n_tags;
};

/* ---- Life: split.c ---- */

/* The front gets its other side, by config->answers; before its thread begins. */
int sched_split_open(struct eng_sched *s, const struct eng_sched_config *config, struct err *err);
/* The front's thread has ended. */
void sched_split_close(struct eng_sched *s);

/* ---- Both sides, on their threads ---- */

/* Takes what is over, or was dropped or has come; always, also while nothing may be computed. */
void sched_split_tend(struct eng_sched *s);
/* Opens passages and hands over; or finds room for what comes, copies it and lets it run. */
void sched_split_go_on(struct eng_sched *s);
/* Nobody runs here: waits for copies or news when something is to come from the other side. */
void sched_split_wait(struct eng_sched *s);
/* Nothing is being copied afterwards. */
void sched_split_settle(struct eng_sched *s);
/* The other side: something is to come. Any thread. */
bool sched_split_is_busy(struct eng_sched *s);

/* ---- The front ---- */

/* r ends or waits again: its pages are nobody's when they are not read any more. */
void sched_split_leave(struct eng_sched *s, struct sreq *r);
/* Requests of a client beyond the front's own. The front's lock is held. */
uint32_t sched_split_running_of(struct eng_sched *s, uint64_t client);
/* Pages, or places, are the other side's. */
static inline bool sched_split_holds(const struct sched_split *split)
{
	return split->n_left > 0;
}
/* Who was handed over and waits; a request is cancelled wherever it is (id 0: all). Any thread; no lock is held. */
uint32_t sched_split_waiting(struct eng_sched *s);
void sched_split_cancel(struct eng_sched *s, uint64_t id);

/* ---- The other side: split_in.c ---- */

/* Pages are short: what has not begun to run gives its back. False: there was nothing. */
bool sched_split_yield(struct eng_sched *s);
/* Who waits here waits in front again. */
void sched_split_retract(struct eng_sched *s);

void sched_split_take_copies(struct eng_sched *s);
void sched_split_tend_in(struct eng_sched *s);
void sched_split_go_on_in(struct eng_sched *s);

#endif
