/* The scheduler's thread: sleeping and waking, a round of its work, and the end of a request.
 *
 * The thread sleeps on a condition while there is nothing to do. Only it changes what it computes with; the lock covers
 * the queue, the list of running requests and the counters. Event functions are called without the lock. */
#include <string.h>
#include <time.h>

#include "sched/disk.h"
#include "sched/sched_internal.h"

/* ---- Ending requests ---- */

void sched_say_one(struct eng_sched *s, struct sreq *r)
{
	uint32_t n = sreq_say(r);

	if (n == 0)
		return;
	(void)pthread_mutex_lock(&s->lock);
	s->stats.output_tokens += n;
	(void)pthread_mutex_unlock(&s->lock);
}

void sched_say(struct eng_sched *s)
{
	for (uint32_t i = 0; i < s->n_running; i++)
		sched_say_one(s, s->running[i]);
}

void sched_retire(struct eng_sched *s, struct sreq *r)
{
	struct eng_sched *book = sched_book(s);

	sched_say_one(s, r);
	sched_forget_flying(s, r);
	sched_split_leave(s, r);
	eng_kv_seq_done(s->pool, &r->kv);
	sched_count_pages(s);
	(void)pthread_mutex_lock(&book->lock);
	sched_count_end(book, r);
	(void)pthread_mutex_unlock(&book->lock);

	sreq_emit_done(r);
	sreq_free(r);
	sched_count_live(s, false);
}

void sched_retire_done(struct eng_sched *s)
{
	for (uint32_t i = 0; i < s->n_running;) {
		struct sreq *r = s->running[i];

		if (!r->is_done) {
			i++;
			continue;
		}
		(void)pthread_mutex_lock(&s->lock);
		memmove(s->running + i, s->running + i + 1, (s->n_running - i - 1) * sizeof(*s->running));
		s->n_running--;
		(void)pthread_mutex_unlock(&s->lock);
		sched_retire(s, r);
	}
}

/* Takes the cancelled ones (or all, when stopping) out of the queue; a list of them. Locked. */
static struct sreq *unqueue_cancelled(struct eng_sched *s)
{
	struct sreq **link = &s->queue, *out = NULL;

	while (*link) {
		struct sreq *r = *link;

		if (!s->is_stopping && !atomic_load(&r->cancelled)) {
			link = &r->next;
			continue;
		}
		*link = r->next;
		r->next = out;
		out = r;
		s->n_queued--;
	}
	return out;
}

static void sweep_cancelled(struct eng_sched *s)
{
	struct sreq *gone, *next;
	bool stopping;

	(void)pthread_mutex_lock(&s->lock);
	s->wants_sweep = false;
	gone = unqueue_cancelled(s);
	stopping = s->is_stopping;
	(void)pthread_mutex_unlock(&s->lock);
	for (; gone; gone = next) {
		next = gone->next;
		sreq_end(gone, ENG_FINISH_ABORT);
		sched_retire(s, gone);
	}
	for (uint32_t i = 0; i < s->n_running; i++) {
		if (stopping || atomic_load(&s->running[i]->cancelled))
			sreq_end(s->running[i], ENG_FINISH_ABORT);
	}
	sched_retire_done(s);
}

/* ---- The thread ---- */

void sched_wait_for_news(struct eng_sched *s)
{
	(void)pthread_mutex_lock(&s->lock);
	while (!s->is_stopping && !s->has_news)
		(void)pthread_cond_wait(&s->wake, &s->lock);
	s->has_news = false;
	(void)pthread_mutex_unlock(&s->lock);
}

/* The cache read a page or has room for one; on its thread. */
void sched_cache_is_ready(void *arg)
{
	struct eng_sched *s = arg;

	(void)pthread_mutex_lock(&s->lock);
	s->has_news = true;
	(void)pthread_cond_signal(&s->wake);
	(void)pthread_mutex_unlock(&s->lock);
}

struct timespec sched_in_ms(uint32_t ms)
{
	struct timespec ts;

	(void)clock_gettime(CLOCK_MONOTONIC, &ts);
	ts.tv_sec += ms / 1000;
	ts.tv_nsec += (long)(ms % 1000) * 1000000L;
	if (ts.tv_nsec >= 1000000000L) {
		ts.tv_sec++;
		ts.tv_nsec -= 1000000000L;
	}
	return ts;
}

/* The memory of free pages, which the next sequences take again. */
static void give_memory_back(struct eng_sched *s)
{
	uint32_t first, n;

	for (uint32_t at = 0; s->exec.page_discard && (n = eng_kv_pool_free_run(s->pool, at, &first)) > 0;
	     at = first + n)
		s->exec.page_discard(s->exec.ctx, first, n);
	s->has_touched = false;
}

/* Sleeps until something came; when nothing does for long, gives memory back and sleeps on. */
static void rest(struct eng_sched *s)
{
	struct timespec until = sched_in_ms(s->config.rest_ms);
	bool has_news;
	int r = 0;

	(void)pthread_mutex_lock(&s->lock);
	while (s->has_touched && !s->is_stopping && !s->has_news && r == 0)
		r = pthread_cond_timedwait(&s->wake, &s->lock, &until);
	has_news = s->is_stopping || s->has_news;
	(void)pthread_mutex_unlock(&s->lock);
	if (!has_news && s->has_touched && s->n_running == 0)
		give_memory_back(s);
	sched_wait_for_news(s);
}

static bool is_idle(struct eng_sched *s)
{
	bool idle;

	(void)pthread_mutex_lock(&s->lock);
	idle = !s->is_stopping && !s->wants_flush && !sched_is_controlled(s) && !s->flight &&
	       (s->is_paused || (!s->queue && s->n_running == 0 && !sched_split_is_busy(s)));
	(void)pthread_mutex_unlock(&s->lock);
	return idle;
}

/* False when it is time to stop and nothing is left. */
static bool wait_for_work(struct eng_sched *s)
{
	bool more;

	while (is_idle(s)) {
		s->active_since_ns = 0;
		sched_tier_take(s);
		(void)sched_disk_give(s, true);
		sched_disk_keep(s);
		sched_tier_settle(s);
		sched_split_settle(s);
		rest(s);
	}
	(void)pthread_mutex_lock(&s->lock);
	more = s->queue || s->n_running > 0 || s->flight || !s->is_stopping;
	/* Until the last one has ended on the other side, it may come back. */
	more = more || (s->split.answers && s->n_live > 0) || sched_split_is_busy(s);
	(void)pthread_mutex_unlock(&s->lock);
	return more;
}

static void flush_if_asked(struct eng_sched *s)
{
	bool wanted;

	(void)pthread_mutex_lock(&s->lock);
	wanted = s->wants_flush;
	(void)pthread_mutex_unlock(&s->lock);
	if (!wanted)
		return;
	sched_come_down(s);
	sched_tier_stop(s);
	sched_split_settle(s);
	eng_kv_pool_flush(s->pool);
	sched_tier_flush(s);
	give_memory_back(s);
	sched_count_pages(s);
	(void)pthread_mutex_lock(&s->lock);
	s->wants_flush = false;
	(void)pthread_cond_broadcast(&s->idle);
	(void)pthread_mutex_unlock(&s->lock);
}

void *sched_run(void *arg)
{
	struct eng_sched *s = arg;
	bool may_admit;

	while (wait_for_work(s)) {
		flush_if_asked(s);
		sched_split_tend(s);
		sweep_cancelled(s);
		if (!sched_control(s, &may_admit)) {
			sched_say(s);
			sched_retire_done(s);
			continue;
		}
		if (s->n_running == 0) /* all of them ended: what is in the air has pages that the next ones need */
			sched_come_down(s);
		if (may_admit)
			sched_admit(s);
		if (may_admit)
			sched_tier_prefetch(s);
		sched_tier_take(s);
		sched_disk_take(s);
		sched_split_go_on(s);
		sched_split_wait(s);
		if (s->n_running > 0) {
			sched_make_room(s);
			if (s->n_running > 0 && !sched_step(s))
				sched_tier_wait(s);
			(void)sched_disk_give(s, false);
		}
		sched_retire_done(s);
	}
	sched_tier_stop(s);
	sched_disk_finish(s);
	sched_tier_stop(s);
	return NULL;
}
