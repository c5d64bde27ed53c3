/* What the scheduler counts for its statistics, and the check of its books when nobody is in it. Where prompts and
 * answers have an engine each, the numbers are those of both. */
#include <errno.h>

#include "base/clock.h"
#include "kv/host.h"
#include "sched/sched_internal.h"

void sched_count_end(struct eng_sched *s, const struct sreq *r)
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
