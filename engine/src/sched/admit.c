/* Who runs: admission, and setting back when pages run out.
 *
 * A request is admitted when the pool has the pages of its prompt that are not cached, and a page for each answer
 * that already runs; its answer takes pages as it grows. When they run out, the youngest request is set back: its
 * full pages stay cached, it returns to the front of the queue, and what was evicted meanwhile is computed again.
 * Nothing is aborted; the oldest always goes on, and one request alone always fits.
 *
 * In the queue those set back come first, then clients go round: the one with the fewest running requests, then
 * the order of arrival. Who finds no room is waited for, not overtaken. A request whose prompt begins like one that
 * is being computed waits for that part instead of computing it too; meanwhile others pass. */
#include <assert.h>
#include <errno.h>
#include <string.h>

#include "sched/disk.h"
#include "sched/sched_internal.h"

/* ---- Prefixes ---- */

uint32_t sched_reusable(const struct eng_sched *s, const struct sreq *r)
{
	uint32_t most = sreq_first_row(r);

	if (s->exec.tells_prompts && most > r->n_prompt)
		most = r->n_prompt;
	return s->config.no_prefix_cache ? 0 : most;
}

uint32_t sched_common_pages(const struct sreq *a, const struct sreq *b, uint32_t page_tokens)
{
	uint32_t lo = 0, hi = a->n_prompt < b->n_prompt ? a->n_prompt / page_tokens : b->n_prompt / page_tokens;

	while (lo < hi) {
		uint32_t mid = hi - (hi - lo) / 2;

		if (a->prefix_hash[mid - 1] == b->prefix_hash[mid - 1])
			lo = mid;
		else
			hi = mid - 1;
	}
	return lo;
}

bool sched_waits_for_prefix(struct eng_sched *s, const struct sreq *r)
{
	uint32_t page = s->exec.kv.page_tokens, most = sched_reusable(s, r) / page * page;

	for (uint32_t i = 0; i < s->n_running && most > 0; i++) {
		struct sreq *q = s->running[i];
		uint32_t common;

		if (q->is_done || q->n_computed >= q->n_prompt)
			continue;
		common = sched_common_pages(r, q, page) * page;
		common = common < most ? common : most;
		if (common > q->n_computed && eng_kv_pool_peek(s->pool, r->req.adapter, r->tokens, most) < common) {
			sreq_mark(q, common);
			return true;
		}
	}
	return false;
}

/* ---- Admission ---- */

static uint32_t n_running_of(struct eng_sched *s, uint64_t client)
{
	uint32_t n = sched_split_running_of(s, client);

	for (uint32_t i = 0; i < s->n_running; i++)
		n += s->running[i]->req.client == client;
	return n;
}

/* The next one to run; NULL when all wait for a prefix or nobody waits. Only this thread takes from the queue, and
 * submitters only append, so that what was seen under the lock stays there. */
static struct sreq *choose(struct eng_sched *s)
{
	struct sreq *best = NULL, *r;
	uint32_t best_cost = UINT32_MAX;

	(void)pthread_mutex_lock(&s->lock);
	for (r = s->n_running + s->split.n_left < s->config.max_running ? s->queue : NULL; r && best_cost > 0;
	     r = r->next) {
		uint32_t cost = r->was_preempted ? 0 : 1 + n_running_of(s, r->req.client);

		if (cost >= best_cost || sched_waits_for_prefix(s, r))
			continue;
		best = r;
		best_cost = cost;
		if (cost == 1) /* nobody has less than none */
			break;
	}
	(void)pthread_mutex_unlock(&s->lock);
	return best;
}

/* Pages that began to come while it waited are its own already. */
static int take_the_rest(struct eng_sched *s, struct sreq *r, uint32_t spare)
{
	uint32_t page = s->exec.kv.page_tokens, need = (r->n_tokens + page - 1) / page;

	need = need > r->kv.n_pages ? need - r->kv.n_pages : 0;
	if (s->n_running > 0 && need + spare > eng_kv_pool_n_available(s->pool))
		return -ENOSPC;
	return eng_kv_seq_reserve(s->pool, &r->kv, r->n_tokens);
}

/* Takes over what is cached and reserves the rest of the prompt; -ENOSPC when others have to end first. */
static int take_pages(struct eng_sched *s, struct sreq *r)
{
	uint32_t most = sched_reusable(s, r);
	/* Whoever was set back asks for more, or it would be set back again at once. */
	uint32_t spare = s->n_running * (r->was_preempted ? 2 : 1);
	int e;

	if (r->load_tag)
		return take_the_rest(s, r, spare);
	if (s->n_running > 0 && eng_kv_pool_need(s->pool, r->req.adapter, r->tokens, most, r->n_tokens) + spare >
	                                eng_kv_pool_n_available(s->pool))
		return -ENOSPC;
	eng_kv_seq_done(s->pool, &r->kv); /* what came while it waited is cached */
	r->kv.family = r->req.adapter;
	e = eng_kv_seq_match(s->pool, &r->kv, r->tokens, most);
	if (e == 0)
		e = eng_kv_seq_reserve(s->pool, &r->kv, r->n_tokens);
	if (e == 0)
		e = sched_begin_state(s, r);
	if (e < 0) {
		eng_kv_seq_done(s->pool, &r->kv);
		return e;
	}
	r->n_computed = r->kv.n_tokens;
	/* Where its own way begins, others may turn off, too. */
	r->mark = most ? eng_kv_pool_peek_pages(s->pool, r->req.adapter, r->tokens, most) : 0;
	return 0;
}

static void unqueue(struct eng_sched *s, struct sreq *r)
{
	struct sreq **link = &s->queue;

	while (*link != r)
		link = &(*link)->next;
	*link = r->next;
	r->next = NULL;
	s->n_queued--;
}

/* Locked. What came while it waited, as far as it has it still. */
static void count_loaded(struct eng_sched *s, struct sreq *r)
{
	uint32_t n_disk = r->n_disk < r->n_cached ? r->n_disk : r->n_cached;
	uint32_t left = r->n_cached - n_disk;

	s->stats.disk_tokens += n_disk;
	s->stats.host_tokens += r->n_host < left ? r->n_host : left;
}

static bool admit_one(struct eng_sched *s)
{
	struct sreq *r = choose(s);
	int e;

	if (!r)
		return false;
	e = take_pages(s, r);
	if (e == -ENOSPC && sched_tier_yield(s, r))
		e = take_pages(s, r);
	if (e == -ENOSPC && (s->n_running > 0 || sched_split_holds(&s->split)))
		return false;
	if (e == 0 && !r->was_preempted)
		e = sreq_start(s, r);

	(void)pthread_mutex_lock(&s->lock);
	unqueue(s, r);
	if (e == 0) {
		s->running[s->n_running++] = r;
		if (!r->was_preempted) {
			r->n_cached = r->n_computed;
			s->stats.cached_tokens += r->n_cached;
			count_loaded(s, r);
		}
	}
	(void)pthread_mutex_unlock(&s->lock);
	sched_count_pages(s);
	if (e == 0 && s->tier.host)
		sched_tier_begin(s, r);
	else if (e == 0)
		sched_disk_begin(s, r);
	if (e < 0) {
		(void)err_set(&r->error, e, "the request could not start: %s", strerror(-e));
		sreq_end(r, ENG_FINISH_ERROR);
		sched_retire(s, r);
	}
	return true;
}

void sched_admit(struct eng_sched *s)
{
	while (admit_one(s))
		;
}

/* ---- Setting back ---- */

static uint32_t youngest(const struct eng_sched *s)
{
	uint32_t at = 0;

	for (uint32_t i = 1; i < s->n_running; i++) {
		if (s->running[i]->id > s->running[at]->id)
			at = i;
	}
	return at;
}

void sched_set_back(struct eng_sched *s, uint32_t at)
{
	struct sreq *r = s->running[at];

	struct eng_sched *to = sched_book(s);

	sched_split_leave(s, r);
	eng_kv_seq_done(s->pool, &r->kv);
	r->n_computed = 0;
	r->was_preempted = true;
	free(r->pooled);
	r->pooled = NULL;
	sched_disk_forget(r);
	r->was_prefetched = false;
	(void)pthread_mutex_lock(&to->lock);
	if (to != s)
		(void)pthread_mutex_lock(&s->lock);
	memmove(s->running + at, s->running + at + 1, (s->n_running - at - 1) * sizeof(*s->running));
	s->n_running--;
	s->stats.n_preempted++;
	r->next = to->queue;
	to->queue = r;
	to->n_queued++;
	if (to != s) {
		to->has_news = true;
		(void)pthread_cond_signal(&to->wake);
		(void)pthread_mutex_unlock(&s->lock);
	}
	(void)pthread_mutex_unlock(&to->lock);
}

/* The first decoding sequence that has no room for its newest token; n_running: none. */
static uint32_t without_room(struct eng_sched *s)
{
	uint32_t i;

	for (i = 0; i < s->n_running; i++) {
		struct sreq *r = s->running[i];
		int e = 0;

		if (!s->split.answers && !r->is_done && sreq_is_decoding(r) && !sreq_will_end(r))
			e = eng_kv_seq_reserve(s->pool, &r->kv, sreq_len(r));
		if (e == -ENOSPC)
			break;
		if (e < 0) {
			(void)err_set(&r->error, e, "%s", strerror(-e));
			sreq_end(r, ENG_FINISH_ERROR);
		}
	}
	return i;
}

void sched_make_room(struct eng_sched *s)
{
	if (without_room(s) == s->n_running)
		return;
	/* What is in the air and what is still to be said may end requests, and they give their pages back. */
	sched_come_down(s);
	sched_say(s);
	sched_retire_done(s);
	(void)sched_tier_yield(s, NULL);
	(void)sched_split_yield(s);
	while (without_room(s) < s->n_running) {
		/* One alone has the whole pool, which holds a full context. */
		assert(s->n_running > 1);
		sched_set_back(s, youngest(s));
		(void)sched_tier_yield(s, NULL); /* something may still be coming into its pages */
	}
}
