/* The tier in host memory: its life, and waiting for what is on its way. Pages leave the pool when they are evicted
 * (tier_out.c) and come back when a prompt begins with them (tier_in.c); copies go on beside the steps, and this thread
 * begins them, looks between two steps which have ended, and does nothing else for them. */
#include "sched/tier.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "sched/tier_internal.h"

static bool can_copy(const struct eng_sched *s)
{
	return s->exec.page_copy && s->exec.kv.page_bytes && s->exec.kv.n_states == 0 && !s->config.no_prefix_cache;
}

static int new_ring(struct tier_ring *ring, uint32_t cap)
{
	ring->cap = cap;
	ring->copies = calloc(cap, sizeof(*ring->copies));
	return ring->copies ? 0 : -ENOMEM;
}

int sched_tier_open(struct eng_sched *s, struct err *err)
{
	struct eng_kv_host_config config = { .budget_bytes = s->config.host_bytes,
		                             .page_bytes = s->exec.kv.page_bytes,
		                             .page_tokens = s->exec.kv.page_tokens,
		                             .alloc = s->exec.host_alloc,
		                             .free = s->exec.host_free,
		                             .ctx = s->exec.ctx };
	const struct eng_kv_hooks hooks = { s, sched_tier_page_published, sched_tier_page_evicted };
	struct sched_tier *t = &s->tier;
	int r;

	sched_worth_init(&t->worth);
	if (s->config.host_bytes == 0 || !can_copy(s))
		return 0;
	r = new_ring(&t->out, TIER_MAX_OUT);
	r = r < 0 ? r : new_ring(&t->in, TIER_MAX_IN);
	t->leaving = calloc(s->exec.n_pages, sizeof(*t->leaving));
	r = r == 0 && !t->leaving ? -ENOMEM : r;
	if (r < 0)
		return err_set(err, r, "out of memory");
	r = eng_kv_host_new(&config, &t->host, err);
	if (r < 0)
		return r;
	eng_kv_host_set_ready(t->host, sched_cache_is_ready, s);
	eng_kv_pool_set_hooks(s->pool, &hooks);
	return 0;
}

void sched_tier_close(struct eng_sched *s)
{
	eng_kv_host_free(s->tier.host);
	free(s->tier.out.copies);
	free(s->tier.in.copies);
	free(s->tier.leaving);
}

/* No memory could be had: the tier is closed, and the disk is asked without it. */
static void give_up(struct eng_sched *s)
{
	struct eng_kv_host *host = s->tier.host;
	const struct eng_kv_hooks none = { 0 };

	sched_tier_stop(s);
	eng_kv_pool_set_hooks(s->pool, &none);
	(void)pthread_mutex_lock(&s->lock);
	s->tier.host = NULL;
	(void)pthread_mutex_unlock(&s->lock);
	for (uint32_t i = 0; i < s->n_running; i++)
		s->running[i]->load_tag = 0;
	eng_kv_host_free(host);
	if (s->config.on_note)
		s->config.on_note(s->config.note_arg, "no host cache: no memory could be had for it");
}

void sched_tier_take(struct eng_sched *s)
{
	if (!s->tier.host)
		return;
	if (eng_kv_host_is_dead(s->tier.host)) {
		give_up(s);
		return;
	}
	sched_tier_take_out(s);
	sched_tier_take_read(s);
	sched_tier_take_stored(s);
	sched_tier_take_in(s);
	sched_tier_go_on(s);
}

/* ---- Waiting ---- */

/* For the first that is on its way between device and host; false: nothing is. */
static bool wait_for_copy(struct eng_sched *s)
{
	struct sched_tier *t = &s->tier;

	/* What fails shows when it is taken. */
	if (t->in.n > 0 && !tier_first(&t->in)->is_in)
		(void)s->exec.copy_wait(s->exec.ctx, tier_first(&t->in)->ticket);
	else if (t->out.n > 0)
		(void)s->exec.copy_wait(s->exec.ctx, tier_first(&t->out)->ticket);
	else
		return false;
	return true;
}

void sched_tier_wait(struct eng_sched *s)
{
	if (!s->tier.host || !wait_for_copy(s))
		sched_wait_for_news(s);
}

/* Threads of the tier or the disk have something; they take fractions of a millisecond. */
static void nap(void)
{
	const struct timespec ts = { .tv_nsec = 200000 };

	(void)nanosleep(&ts, NULL);
}

/* Until nothing comes into the pool any more; no new ones are begun. */
static void wait_for_all_in(struct eng_sched *s)
{
	struct sched_tier *t = &s->tier;

	while (t->in.n > 0) {
		sched_tier_take_in(s);
		if (t->in.n > 0 && !tier_first(&t->in)->is_in)
			(void)s->exec.copy_wait(s->exec.ctx, tier_first(&t->in)->ticket);
		else if (t->in.n > 0)
			nap(); /* it is being compared */
	}
}

void sched_tier_settle(struct eng_sched *s)
{
	if (!s->tier.host)
		return;
	wait_for_all_in(s);
	while (s->tier.out.n > 0) {
		(void)s->exec.copy_wait(s->exec.ctx, tier_first(&s->tier.out)->ticket);
		sched_tier_take_out(s);
	}
}

/* ---- Giving back ---- */

void sched_tier_drop(struct eng_sched *s, struct sreq *r)
{
	if (r->kv.n_pages == 0 && !r->load_tag)
		return;
	r->load_tag = 0;
	r->n_computed = r->n_host = r->n_disk = 0;
	eng_kv_seq_done(s->pool, &r->kv); /* pages that something comes into stay until it has */
}

/* Only this thread takes from the queue, and others append: what is seen under the lock stays. */
static bool drop_waiting(struct eng_sched *s, const struct sreq *but)
{
	struct sreq *r;
	bool any = false;

	(void)pthread_mutex_lock(&s->lock);
	r = s->queue;
	(void)pthread_mutex_unlock(&s->lock);
	while (r) {
		if (r != but && (r->kv.n_pages > 0 || r->load_tag)) {
			sched_tier_drop(s, r);
			any = true;
		}
		(void)pthread_mutex_lock(&s->lock);
		r = r->next;
		(void)pthread_mutex_unlock(&s->lock);
	}
	return any;
}

bool sched_tier_yield(struct eng_sched *s, const struct sreq *r)
{
	bool any;

	if (!s->tier.host)
		return false;
	any = drop_waiting(s, r);
	if (s->tier.in.n == 0)
		return any;
	wait_for_all_in(s);
	return true;
}

void sched_tier_stop(struct eng_sched *s)
{
	if (!s->tier.host)
		return;
	(void)drop_waiting(s, NULL);
	sched_tier_settle(s);
	while (s->tier.n_reads > 0 || s->tier.n_stores > 0) {
		sched_tier_take_read(s);
		sched_tier_take_stored(s);
		nap();
	}
}

void sched_tier_flush(struct eng_sched *s)
{
	if (s->tier.host)
		eng_kv_host_flush(s->tier.host);
}
