/* The scheduler's thread, its queue and its life.
 *
 * A request waits in the queue until a running slot is free and the page pool can hold its prompt and all
 * of its output; from then on it cannot run out of memory. Requests are admitted in order: a large one at
 * the head is not overtaken for ever. The thread sleeps on a condition while there is nothing to do.
 *
 * Only the thread changes what it computes with; the lock covers the queue, the list of running requests
 * and the counters. Event functions are called without the lock. */
#include "sched/sched.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "sched/sched_internal.h"

/* ---- Ending requests ---- */

static void count_end(struct eng_sched *s, const struct sreq *r)
{
	s->stats.n_done++;
	if (r->finish == ENG_FINISH_ABORT)
		s->stats.n_aborted++;
	else if (r->finish == ENG_FINISH_ERROR)
		s->stats.n_failed++;
}

/* r is in no list any more. Its DONE comes after its pages are free and the counters tell so. */
static void retire(struct eng_sched *s, struct sreq *r)
{
	eng_kv_seq_done(s->pool, &r->kv);
	(void)pthread_mutex_lock(&s->lock);
	count_end(s, r);
	s->stats.kv_pages_used = eng_kv_pool_n_pages(s->pool) - eng_kv_pool_n_free(s->pool);
	(void)pthread_mutex_unlock(&s->lock);

	sreq_emit_done(r);
	sreq_free(r);

	(void)pthread_mutex_lock(&s->lock);
	if (--s->n_live == 0)
		(void)pthread_cond_broadcast(&s->idle);
	(void)pthread_mutex_unlock(&s->lock);
}

static void retire_running(struct eng_sched *s)
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
		retire(s, r);
	}
}

/* Takes the cancelled ones (or all, when stopping) out of the queue; a list of them. Locked. */
static struct sreq *unqueue_cancelled(struct eng_sched *s)
{
	struct sreq **link = &s->queue_head, *out = NULL;

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
	s->queue_tail = link;
	return out;
}

static void sweep_cancelled(struct eng_sched *s)
{
	struct sreq *gone, *next;
	bool stopping;

	(void)pthread_mutex_lock(&s->lock);
	gone = unqueue_cancelled(s);
	stopping = s->is_stopping;
	(void)pthread_mutex_unlock(&s->lock);
	for (; gone; gone = next) {
		next = gone->next;
		sreq_end(gone, ENG_FINISH_ABORT);
		retire(s, gone);
	}
	for (uint32_t i = 0; i < s->n_running; i++) {
		if (stopping || atomic_load(&s->running[i]->cancelled))
			sreq_end(s->running[i], ENG_FINISH_ABORT);
	}
	retire_running(s);
}

/* ---- Admission ---- */

static struct sreq *pop_queue(struct eng_sched *s)
{
	struct sreq *r = s->queue_head;

	s->queue_head = r->next;
	if (!s->queue_head)
		s->queue_tail = &s->queue_head;
	r->next = NULL;
	s->n_queued--;
	return r;
}

/* The last output token is never fed back, so it needs no room. */
static uint32_t tokens_stored(const struct sreq *r)
{
	return r->n_prompt + (r->max_new > 0 ? r->max_new - 1 : 0);
}

/* Moves one request from the queue to the running ones. False: nothing to move or no room yet. */
static bool admit_one(struct eng_sched *s)
{
	struct sreq *r;
	int e;

	(void)pthread_mutex_lock(&s->lock);
	r = s->n_running < s->config.max_running ? s->queue_head : NULL;
	(void)pthread_mutex_unlock(&s->lock);
	if (!r)
		return false;
	/* Only this thread takes from the queue, so r is still its head. */
	e = eng_kv_seq_reserve(s->pool, &r->kv, tokens_stored(r));
	if (e == -ENOSPC && s->n_running > 0)
		return false;
	if (e == 0)
		e = sreq_start(s, r);

	(void)pthread_mutex_lock(&s->lock);
	(void)pop_queue(s);
	if (e == 0)
		s->running[s->n_running++] = r;
	s->stats.kv_pages_used = eng_kv_pool_n_pages(s->pool) - eng_kv_pool_n_free(s->pool);
	(void)pthread_mutex_unlock(&s->lock);
	if (e < 0) {
		(void)err_set(&r->error, e, "the request could not start: %s", strerror(-e));
		sreq_end(r, ENG_FINISH_ERROR);
		retire(s, r);
	}
	return true;
}

/* ---- The thread ---- */

/* False when it is time to stop and nothing is left. */
static bool wait_for_work(struct eng_sched *s)
{
	bool more;

	(void)pthread_mutex_lock(&s->lock);
	while (!s->is_stopping && !s->queue_head && s->n_running == 0)
		(void)pthread_cond_wait(&s->wake, &s->lock);
	more = s->queue_head || s->n_running > 0;
	(void)pthread_mutex_unlock(&s->lock);
	return more;
}

static void *run(void *arg)
{
	struct eng_sched *s = arg;

	while (wait_for_work(s)) {
		sweep_cancelled(s);
		while (admit_one(s))
			;
		if (s->n_running > 0)
			sched_step(s);
		retire_running(s);
	}
	return NULL;
}

/* ---- Public ---- */

static int alloc_all(struct eng_sched *s, const struct eng_sched_config *config)
{
	uint32_t n = s->config.max_running;
	int r;

	s->running = calloc(n, sizeof(struct sreq *));
	s->seqs = calloc(n, sizeof(*s->seqs));
	s->parts = calloc(n, sizeof(*s->parts));
	s->masked = calloc(s->exec.n_vocab, sizeof(*s->masked));
	s->eos_ids = calloc(config->n_eos_ids ? config->n_eos_ids : 1, sizeof(*s->eos_ids));
	if (!s->running || !s->seqs || !s->parts || !s->masked || !s->eos_ids)
		return -ENOMEM;
	if (config->n_eos_ids)
		memcpy(s->eos_ids, config->eos_ids, config->n_eos_ids * sizeof(*s->eos_ids));
	r = eng_kv_pool_new(s->exec.n_pages, s->exec.page_tokens, &s->pool);
	if (r < 0)
		return r;
	s->stats.kv_pages_total = s->exec.n_pages;
	return 0;
}

static void init_locks(struct eng_sched *s)
{
	pthread_condattr_t attr;

	(void)pthread_mutex_init(&s->lock, NULL);
	(void)pthread_condattr_init(&attr);
	(void)pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
	(void)pthread_cond_init(&s->wake, &attr);
	(void)pthread_cond_init(&s->idle, &attr);
	(void)pthread_condattr_destroy(&attr);
}

static uint32_t min_u32(uint32_t a, uint32_t b)
{
	return a < b ? a : b;
}

int eng_sched_new(const struct eng_exec *exec, const struct eng_sched_config *config, struct eng_sched **ret_sched,
                  struct err *err)
{
	struct eng_sched *s;
	uint64_t pool_tokens = (uint64_t)exec->n_pages * exec->page_tokens;
	int r;

	if (exec->n_vocab == 0 || exec->n_ctx == 0 || exec->max_tokens == 0 || exec->max_outputs == 0 ||
	    pool_tokens == 0 || config->max_running == 0)
		return err_set(err, -EINVAL, "scheduler: a limit is zero");
	s = calloc(1, sizeof(*s));
	if (!s)
		return err_set(err, -ENOMEM, "out of memory");
	s->exec = *exec;
	s->config = *config;
	/* A step must hold a token and a row of every decoding sequence and still have room for a prompt:
	 * no more sequences than rows. */
	s->config.max_running = min_u32(config->max_running, min_u32(exec->max_tokens, exec->max_outputs));
	s->n_ctx = pool_tokens < exec->n_ctx ? (uint32_t)pool_tokens : exec->n_ctx;
	s->queue_tail = &s->queue_head;
	s->next_id = 1;
	init_locks(s);
	r = alloc_all(s, config);
	if (r == 0)
		r = -pthread_create(&s->thread, NULL, run, s);
	if (r < 0) {
		eng_sched_free(s);
		return err_set(err, r, "scheduler: %s", strerror(-r));
	}
	s->has_thread = true;
	(void)pthread_setname_np(s->thread, "eng-sched");
	*ret_sched = s;
	return 0;
}

int eng_sched_drain(struct eng_sched *s, uint32_t timeout_ms)
{
	struct timespec until;
	int r = 0;

	(void)clock_gettime(CLOCK_MONOTONIC, &until);
	until.tv_sec += timeout_ms / 1000;
	until.tv_nsec += (long)(timeout_ms % 1000) * 1000000L;
	if (until.tv_nsec >= 1000000000L) {
		until.tv_sec++;
		until.tv_nsec -= 1000000000L;
	}
	(void)pthread_mutex_lock(&s->lock);
	s->is_draining = true;
	while (s->n_live > 0 && r == 0)
		r = -pthread_cond_timedwait(&s->idle, &s->lock, &until);
	r = s->n_live == 0 ? 0 : r;
	(void)pthread_mutex_unlock(&s->lock);
	return r;
}

void eng_sched_free(struct eng_sched *s)
{
	if (!s)
		return;
	(void)pthread_mutex_lock(&s->lock);
	s->is_draining = s->is_stopping = true;
	(void)pthread_cond_broadcast(&s->wake);
	(void)pthread_mutex_unlock(&s->lock);
	if (s->has_thread)
		(void)pthread_join(s->thread, NULL);
	eng_kv_pool_free(s->pool);
	free(s->running);
	free(s->seqs);
	free(s->parts);
	free(s->masked);
	free(s->eos_ids);
	(void)pthread_cond_destroy(&s->wake);
	(void)pthread_cond_destroy(&s->idle);
	(void)pthread_mutex_destroy(&s->lock);
	free(s);
}

/* Locked. */
static int enqueue(struct eng_sched *s, struct sreq *r, struct err *err)
{
	if (s->is_draining)
		return err_set(err, -ESHUTDOWN, "the engine is shutting down");
	if (s->n_queued >= s->config.max_queued) {
		s->stats.n_rejected++;
		return err_set(err, -EBUSY, "the queue is full (%u requests wait)", s->n_queued);
	}
	r->id = s->next_id++;
	*s->queue_tail = r;
	s->queue_tail = &r->next;
	s->n_queued++;
	s->n_live++;
	s->stats.n_requests++;
	(void)pthread_cond_signal(&s->wake);
	return 0;
}

int eng_sched_submit(struct eng_sched *s, const struct eng_request *req, uint64_t *ret_id, struct err *err)
{
	struct sreq *r = NULL;
	int e;

	e = sreq_new(s, req, &r, err);
	if (e < 0)
		return e;
	(void)pthread_mutex_lock(&s->lock);
	e = enqueue(s, r, err);
	if (e == 0)
		*ret_id = r->id;
	(void)pthread_mutex_unlock(&s->lock);
	if (e < 0)
		sreq_free(r);
	return e;
}

void eng_sched_cancel(struct eng_sched *s, uint64_t id)
{
	(void)pthread_mutex_lock(&s->lock);
	for (struct sreq *r = s->queue_head; r; r = r->next) {
		if (r->id == id)
			atomic_store(&r->cancelled, true);
	}
	for (uint32_t i = 0; i < s->n_running; i++) {
		if (s->running[i]->id == id)
			atomic_store(&s->running[i]->cancelled, true);
	}
	(void)pthread_cond_signal(&s->wake);
	(void)pthread_mutex_unlock(&s->lock);
}

void eng_sched_stats(struct eng_sched *s, struct eng_stats *ret_stats)
{
	(void)pthread_mutex_lock(&s->lock);
	*ret_stats = s->stats;
	ret_stats->n_running = s->n_running;
	ret_stats->n_queued = s->n_queued;
	(void)pthread_mutex_unlock(&s->lock);
}
