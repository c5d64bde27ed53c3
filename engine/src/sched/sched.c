/* The scheduler's thread, its queue and its life.
 *
 * A request waits in the queue until a running slot is free and the page pool can hold its prompt (admit.c). What
 * was computed stays in the pool's prefix tree until its pages are needed. The thread sleeps on a condition while
 * there is nothing to do.
 *
 * Only the thread changes what it computes with; the lock covers the queue, the list of running requests
 * and the counters. Event functions are called without the lock. */
#include "sched/sched.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/clock.h"
#include "kv/host.h"
#include "sched/disk.h"
#include "sched/sched_internal.h"

enum { DEFAULT_STEP_MS = 100, DEFAULT_REST_MS = 20000, MAX_RETRY_S = 60 };

/* ---- Ending requests ---- */

/* Locked. */
static void count_end(struct eng_sched *s, const struct sreq *r)
{
	uint64_t now = (uint64_t)base_now_ns();

	/* Only while others wait does the rate of ends tell how fast the engine is. */
	if (s->last_end_ns && s->n_queued > 0) {
		double gap = (double)(now - s->last_end_ns);

		s->end_interval_ns =
		        s->end_interval_ns > 0 ? s->end_interval_ns + 0.1 * (gap - s->end_interval_ns) : gap;
	}
	s->last_end_ns = now;
	s->stats.n_done++;
	if (r->finish == ENG_FINISH_ABORT)
		s->stats.n_aborted++;
	else if (r->finish == ENG_FINISH_ERROR)
		s->stats.n_failed++;
}

void sched_count_pages(struct eng_sched *s)
{
	struct eng_kv_counts c;

	eng_kv_pool_counts(s->pool, &c);
	(void)pthread_mutex_lock(&s->lock);
	s->stats.kv_pages_used = c.n_used;
	s->stats.kv_pages_cached = c.n_cached;
	s->stats.kv_evictions = c.n_evicted;
	s->stats.states_running = c.n_running_states;
	s->stats.state_checkpoints = c.n_checkpoints;
	(void)pthread_mutex_unlock(&s->lock);
}

void sched_count_live(struct eng_sched *s, bool is_live)
{
	struct eng_sched *book = sched_book(s);

	(void)pthread_mutex_lock(&book->lock);
	if (is_live)
		book->n_live++;
	else if (--book->n_live == 0)
		(void)pthread_cond_broadcast(&book->idle);
	(void)pthread_mutex_unlock(&book->lock);
}

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
	count_end(book, r);
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

static struct timespec in_ms(uint32_t ms)
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
	struct timespec until = in_ms(s->config.rest_ms);
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

static void *run(void *arg)
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

/* ---- Public ---- */

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
		r = -pthread_create(&s->thread, NULL, run, s);
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
	struct timespec until = in_ms(timeout_ms);
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

/* Locked, and nobody is in it. */
static int check_one(struct eng_sched *s, struct err *err)
{
	struct eng_kv_counts c;
	int r = eng_kv_pool_check(s->pool, err);

	if (r == 0 && s->tier.host)
		r = eng_kv_host_check(s->tier.host, err);
	eng_kv_pool_counts(s->pool, &c);
	if (r == 0 && (c.n_used != 0 || c.n_free + c.n_cached != c.n_pages))
		r = err_set(err, -EIO, "K/V pool: %u free + %u cached + %u used of %u pages", c.n_free, c.n_cached,
		            c.n_used, c.n_pages);
	if (r == 0 && c.n_running_states != 0)
		r = err_set(err, -EIO, "recurrent states: %u of %u still running", c.n_running_states, c.n_states);
	return r;
}

int eng_sched_check(struct eng_sched *s, struct err *err)
{
	int r;

	(void)pthread_mutex_lock(&s->lock);
	/* With nobody in it, the thread sleeps and leaves the pool alone. */
	if (s->n_live > 0)
		r = err_set(err, -EBUSY, "%u requests run or wait", s->n_live);
	else
		r = check_one(s, err);
	if (r == 0 && s->split.answers) {
		(void)pthread_mutex_lock(&s->split.answers->lock);
		r = check_one(s->split.answers, err);
		(void)pthread_mutex_unlock(&s->split.answers->lock);
	}
	(void)pthread_mutex_unlock(&s->lock);
	return r;
}

/* What the other side counted of the steps that it computed. */
static void add_stats(struct eng_stats *sum, struct eng_sched *s)
{
	const struct eng_stats *st = &s->stats;

	(void)pthread_mutex_lock(&s->lock);
	sum->prompt_tokens += st->prompt_tokens;
	sum->output_tokens += st->output_tokens;
	sum->prefill_ns += st->prefill_ns;
	sum->decode_ns += st->decode_ns;
	sum->n_steps += st->n_steps;
	sum->n_steps_ahead += st->n_steps_ahead;
	sum->active_ns += st->active_ns;
	sum->device_busy_ns += st->device_busy_ns;
	sum->mask_wait_ns += st->mask_wait_ns;
	(void)pthread_mutex_lock(&s->masks.lock);
	sum->mask_ns += s->masks.work_ns;
	(void)pthread_mutex_unlock(&s->masks.lock);
	sum->n_preempted += st->n_preempted;
	sum->kv_evictions += st->kv_evictions;
	sum->drafted_tokens += st->drafted_tokens;
	sum->draft_hits += st->draft_hits;
	sum->kv_pages_used += st->kv_pages_used;
	sum->kv_pages_cached += st->kv_pages_cached;
	sum->kv_pages_total += st->kv_pages_total;
	sum->n_handed += st->n_handed;
	sum->handed_ns += st->handed_ns;
	sum->handed_bytes += st->handed_bytes;
	sum->n_running += s->n_running + sched_split_waiting(s);
	(void)pthread_mutex_unlock(&s->lock);
}

void eng_sched_stats(struct eng_sched *s, struct eng_stats *ret_stats)
{
	struct eng_pc_stats disk = { 0 }, *before = &s->disk_before;
	struct eng_kv_host_counts host = { 0 };

	(void)pthread_mutex_lock(&s->lock);
	*ret_stats = s->stats;
	(void)pthread_mutex_lock(&s->masks.lock);
	ret_stats->mask_ns = s->masks.work_ns;
	(void)pthread_mutex_unlock(&s->masks.lock);
	ret_stats->n_running = s->n_running;
	ret_stats->n_queued = s->n_queued;
	/* Within the lock: the cache may be changed for another. */
	if (s->config.cache)
		eng_pc_get_stats(s->config.cache, &disk);
	if (s->tier.host)
		eng_kv_host_counts(s->tier.host, &host);
	ret_stats->host_pages_total = host.n_slots;
	ret_stats->host_pages_cached = host.n_cached;
	ret_stats->host_pages_used = host.n_used;
	ret_stats->host_pages_given_up = host.n_given_up;
	ret_stats->host_pages_damaged = host.n_damaged;
	ret_stats->disk_bytes = disk.bytes;
	ret_stats->disk_pages_read = before->pages_read + disk.pages_read;
	ret_stats->disk_pages_written = before->pages_written + disk.pages_written;
	ret_stats->disk_pages_damaged = before->n_damaged + disk.n_damaged;
	ret_stats->disk_write_errors = before->n_write_errors + disk.n_write_errors;
	if (s->split.answers) /* at once: requests go from one to the other */
		add_stats(ret_stats, s->split.answers);
	(void)pthread_mutex_unlock(&s->lock);
}
