/* The scheduler's side of the prompt cache on disk: which pages are written and read, and when. */
#ifndef ENG_SCHED_DISK_H
#define ENG_SCHED_DISK_H

#include <stdbool.h>

struct eng_sched;
struct sreq;

/* What the process before kept of its speed is this one's, until it knows better: when there is a cache, or another. */
void sched_disk_open(struct eng_sched *s);
/* Keeps it, now and then. */
void sched_disk_keep(struct eng_sched *s);
/* After admission: begins to read what follows the pages that r took over, when that is faster than computing. */
void sched_disk_begin(struct eng_sched *s, struct sreq *r);
/* Forgets what r waits for. */
void sched_disk_forget(struct sreq *r);
/* Takes what was read into the pool, and asks for more. */
void sched_disk_take(struct eng_sched *s);
/* Gives pages to be written: those that were used again; when idle, all. True when there is more to give, but no
 * room for it yet. */
bool sched_disk_give(struct eng_sched *s, bool idle);
/* At the end: what is left, for a short while. */
void sched_disk_finish(struct eng_sched *s);

#endif
