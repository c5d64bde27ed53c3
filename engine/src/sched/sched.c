/* The scheduler's life, and what the other threads ask of it: opening and closing, its queue, flushing.
 *
 * A request waits in the queue until a running slot is free and the page pool can hold its prompt (admit.c). What
 * was computed stays in the pool's prefix tree until its pages are needed. The work is done by one thread (loop.c). */
#include "sched/sched.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "sched/disk.h"
#include "sched/sched_internal.h"

enum { DEFAULT_STEP_MS = 100, DEFAULT_REST_MS = 20000, MAX_RETRY_S = 60 };

static const struct eng_pc_key no_identity;

static int alloc_all(struct eng_sched *s, const struct eng_sched_config *config)
{
	uint32_t n = s->config.max_running;
	bool has_steps = true;
	int r;

	s->running = calloc(n, sizeof(struct sreq *));
	for (int i = 0; i < 2; i++) {
		s->steps[i].seqs = calloc(n, sizeof(*s->steps[i].seqs));
		s->steps[i].parts = calloc(n, sizeof(*s->steps[i].parts));
		has_steps = has_steps && s->steps[i].seqs && s->steps[i].parts;
	}
	s->next = &s->steps[0];
	s->picks = calloc(s->exec.max_outputs, sizeof(*s->picks));
	if (s->split.front) {
		s->split.link = s->split.front->split.link;
		s->split.open = calloc(s->split.link->n, sizeof(struct passage *));
		s->split.copies = calloc(SPLIT_COPIES, sizeof(*s->split.copies));
		if (!s->split.open || !s->split.copies)
			return -ENOMEM;
	}
	s->masked = calloc(s->exec.n_vocab, sizeof(*s->masked));
	r = sched_masks_init(&s->masks, n);
	s->eos_ids = calloc(config->n_eos_ids ? config->n_eos_ids : 1, sizeof(*s->eos_ids));
	if (!s->running || !has_steps || !s->picks || !s->masked || !s->eos_ids || r < 0)
		return -ENOMEM;
	if (config->n_eos_ids)
		memcpy(s->eos_ids, config->eos_ids, config->n_eos_ids * sizeof(*s->eos_ids));
	r = eng_kv_pool_new(s->exec.n_pages, s->exec.kv.page_tokens, &s->pool);
	if (r == 0 && s->exec.kv.n_states)
		r = eng_kv_pool_add_states(s->pool, s->exec.kv.n_states);
	if (r == 0 && (config->cache || config->host_bytes))
		r = eng_kv_pool_set_keys(s->pool, config->cache ? eng_pc_identity(config->cache) : &no_identity);
	if (r < 0)
		return r;
	s->stats.kv_pages_total = s->exec.n_pages;
	s->stats.states_total = s->exec.kv.n_states;
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
	uint64_t pool_tokens = (uint64_t)exec->n_pages * exec->kv.page_tokens;
	int r;

	if (exec->n_vocab == 0 || exec->n_ctx == 0 || exec->max_tokens == 0 || exec->max_outputs == 0 ||
	    pool_tokens == 0 || config->max_running == 0) {
		eng_pc_close(config->cache);
		return err_set(err, -EINVAL, "scheduler: a limit is zero");
	}
	s = calloc(1, sizeof(*s));
	if (!s) {
		eng_pc_close(config->cache);
		return err_set(err, -ENOMEM, "out of memory");
	}
	s->exec = *exec;
	s->config = *config;
	s->split.front = config->front;
	/* A state cannot be taken back: a sequence that ended may not have been a token further. */
	s->exec.runs_ahead = exec->runs_ahead && !config->no_ahead && exec->kv.n_states == 0;
	s->config.no_prefix_cache |= config->whole_prompts;
	/* A step must hold a token and a row of every decoding sequence and still have room for a prompt:
	 * no more sequences than rows. */
	s->config.max_running = min_u32(config->max_running, min_u32(exec->max_tokens, exec->max_outputs));
	if (exec->kv.n_states) /* each has a state */
		s->config.max_running = min_u32(s->config.max_running, exec->kv.n_states);
	s->n_ctx = pool_tokens < exec->n_ctx ? (uint32_t)pool_tokens : exec->n_ctx;
	s->config.step_ms = config->step_ms ? config->step_ms : DEFAULT_STEP_MS;
	s->config.rest_ms = config->rest_ms ? config->rest_ms : DEFAULT_REST_MS;
	s->next_id = 1;
	s->disk_patience = 1;
	if (config->cache)
		eng_pc_set_ready(config->cache, sched_cache_is_ready, s);
	sched_disk_open(s);
	init_locks(s);
	r = alloc_all(s, config);
	if (r == 0) {
		r = sched_tier_open(s, err);
		if (r == 0 && config->answers)
			r = sched_split_open(s, config, err);
		if (r < 0) {
			eng_sched_free(s);
			return r;
		}
	}
	if (r == 0)
		r = -pthread_create(&s->thread, NULL, sched_run, s);
	if (r < 0) {
		eng_sched_free(s);
		return err_set(err, r, "scheduler: %s", strerror(-r));
	}
	s->has_thread = true;
	(void)pthread_setname_np(s->thread, config->front ? "eng-answers" : "eng-sched");
	*ret_sched = s;
	return 0;
}

int eng_sched_drain(struct eng_sched *s, uint32_t timeout_ms)
{
	struct timespec until = sched_in_ms(timeout_ms);
	int r = 0;

	if (s->split.answers)
		eng_sched_continue(s->split.answers);
	(void)pthread_mutex_lock(&s->lock);
	s->is_draining = true;
	s->is_paused = false; /* what was held goes on to its end */
	s->has_news = true;
	(void)pthread_cond_signal(&s->wake);
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
	if (s->split.answers) {
		eng_sched_continue(s->split.answers);
		sched_split_cancel(s, 0);
	}
	if (s->has_thread)
		(void)pthread_join(s->thread, NULL);
	sched_split_close(s);
	eng_pc_close(s->config.cache); /* it calls sched_cache_is_ready() until then */
	sched_tier_close(s);           /* likewise; the disk has read from its memory */
	sched_masks_done(&s->masks);
	eng_kv_pool_free(s->pool);
	free(s->running);
	for (int i = 0; i < 2; i++) {
		free(s->steps[i].seqs);
		free(s->steps[i].parts);
	}
	free(s->split.open);
	free(s->split.copies);
	free(s->picks);
	free(s->masked);
	free(s->eos_ids);
	(void)pthread_cond_destroy(&s->wake);
	(void)pthread_cond_destroy(&s->idle);
	(void)pthread_mutex_destroy(&s->lock);
	free(s);
}

/* Half the queue may be one client's; what is left is for the others. Locked. */
static bool is_greedy(const struct eng_sched *s, uint64_t client)
{
	uint32_t n_own = 0;

	if (s->n_queued < s->config.max_queued - s->config.max_queued / 4)
		return false;
	for (const struct sreq *r = s->queue; r; r = r->next)
		n_own += r->req.client == client;
	return n_own < s->n_queued && n_own >= s->config.max_queued / 2;
}

/* Locked. */
static int enqueue(struct eng_sched *s, struct sreq *r, struct err *err)
{
	struct sreq **link = &s->queue;

	if (s->is_draining)
		return err_set(err, -ESHUTDOWN, "the engine is shutting down");
	if (s->n_queued >= s->config.max_queued || is_greedy(s, r->req.client)) {
		s->stats.n_rejected++;
		return err_set(err, -EBUSY, "the queue is full (%u requests wait)", s->n_queued);
	}
	while (*link)
		link = &(*link)->next;
	r->id = s->next_id++;
	*link = r;
	s->n_queued++;
	s->n_live++;
	s->stats.n_requests++;
	s->has_news = true;
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
	if (s->split.answers) {
		sched_split_cancel(s, id);
		return;
	}
	(void)pthread_mutex_lock(&s->lock);
	for (struct sreq *r = s->queue; r; r = r->next) {
		if (r->id == id)
			atomic_store(&r->cancelled, true);
	}
	for (uint32_t i = 0; i < s->n_running; i++) {
		if (s->running[i]->id == id)
			atomic_store(&s->running[i]->cancelled, true);
	}
	s->wants_sweep = s->has_news = true;
	(void)pthread_cond_signal(&s->wake);
	(void)pthread_mutex_unlock(&s->lock);
}

/* A quarter of the queue, at the rate at which requests end. */
uint32_t eng_sched_retry_s(struct eng_sched *s)
{
	double seconds;

	(void)pthread_mutex_lock(&s->lock);
	seconds = s->end_interval_ns * (s->n_queued / 4 + 1) / 1e9;
	(void)pthread_mutex_unlock(&s->lock);
	return seconds < 1 ? 1 : seconds > MAX_RETRY_S ? MAX_RETRY_S : (uint32_t)(seconds + 0.5);
}

/* -EBUSY: somebody runs or waits. */
static int flush_one(struct eng_sched *s)
{
	int r = 0;

	(void)pthread_mutex_lock(&s->lock);
	/* Not n_live: who has just been told its end may flush. */
	if (s->n_running > 0 || s->queue) {
		r = -EBUSY;
	} else if (!s->is_stopping) {
		s->wants_flush = s->has_news = true;
		(void)pthread_cond_signal(&s->wake);
		while (s->wants_flush)
			(void)pthread_cond_wait(&s->idle, &s->lock);
	}
	(void)pthread_mutex_unlock(&s->lock);
	return r;
}

int eng_sched_flush(struct eng_sched *s)
{
	struct eng_stats st;
	int r = 0;

	if (s->split.answers) {
		eng_sched_stats(s, &st);
		if (st.n_running + st.n_queued > 0)
			return -EBUSY;
		r = flush_one(s->split.answers); /* first: then it reads nothing in front any more */
	}
	return r < 0 ? r : flush_one(s);
}
