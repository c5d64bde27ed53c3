/* The side that answers: what comes from the front, in the order in which it was handed over; behind that what is still
 * being computed there, whose pages come as they are complete. Each takes all of its pages at once or none, so that
 * two that wait never keep each other from them. Who runs goes before who waits: when pages run out, what waits gives
 * its pages back, and its K and V come again from the front, which keeps them until they were all read.
 *
 * Copies do not wait for the step in the air: whoever ended in it has its own pages until it has landed
 * (eng_kv_pool_hold()), and what it still reads of the tree's counts for nobody. Pages in a row on both sides are one
 * copy. What cannot be copied is computed here, as a prompt. */
#include <errno.h>

#include "base/clock.h"
#include "sched/sched_internal.h"

enum { RUN_PAGES = 64 }; /* in one copy */

static uint32_t min_u32(uint32_t a, uint32_t b)
{
	return a < b ? a : b;
}

static uint32_t pages_of(const struct eng_sched *s, uint32_t n_tokens)
{
	return (n_tokens + s->exec.kv.page_tokens - 1) / s->exec.kv.page_tokens;
}

/* ---- Room ---- */

static void give_room_back(struct eng_sched *s, struct passage *p)
{
	if (!p->has_room)
		return;
	eng_kv_seq_done(s->pool, &p->kv); /* pages that something is copied into stay until it is */
	p->has_room = p->has_failed = false;
	p->tag = 0;
	sched_count_pages(s);
}

/* Of its tokens, what the tree may be asked for, and be given. The last one's K and V may be written here. */
static uint32_t known(const struct eng_sched *s, const struct passage *p)
{
	uint32_t n = p->n_tokens - 1;

	if (s->config.no_prefix_cache)
		return 0;
	return s->exec.tells_prompts ? min_u32(n, p->n_prompt) : n;
}

static bool find_room(struct eng_sched *s, struct passage *p, bool is_alone)
{
	uint32_t most = known(s, p), n = p->n_tokens + 1;

	if (!is_alone &&
	    eng_kv_pool_need(s->pool, p->family, p->tokens, most, n) + s->n_running > eng_kv_pool_n_available(s->pool))
		return false;
	p->kv = (struct eng_kv_seq){ .family = p->family };
	if (eng_kv_seq_match(s->pool, &p->kv, p->tokens, most) < 0 || eng_kv_seq_reserve(s->pool, &p->kv, n) < 0) {
		eng_kv_seq_done(s->pool, &p->kv);
		return false;
	}
	p->n_begun = p->n_done = p->kv.n_shared;
	p->tag = ++s->split.n_tags;
	p->has_room = true;
	return true;
}

/* ---- Copies ---- */

static bool begin_copy(struct eng_sched *s, struct passage *p, uint32_t end)
{
	uint32_t at = p->n_begun, n = 1;
	const uint32_t *to = p->kv.pages, *from = p->from;
	struct split_copy c = { .p = p, .tag = p->tag, .first = at, .page = to[at] };
	int e;

	while (at + n < end && n < RUN_PAGES && to[at + n] == to[at] + n && from[at + n] == from[at] + n)
		n++;
	c.n = n;
	e = s->exec.page_fetch(s->exec.ctx, to[at], from[at], n, &c.ticket);
	if (e < 0) {
		p->has_failed = p->has_failed || e != -EBUSY;
		return false;
	}
	for (uint32_t i = 0; i < n; i++)
		eng_kv_page_pin(s->pool, to[at + i]);
	s->split.copies[(s->split.first_copy + s->split.n_copies++) % SPLIT_COPIES] = c;
	p->n_flying++;
	p->n_begun += n;
	return true;
}

static void begin_copies(struct eng_sched *s, struct passage *p)
{
	uint32_t end = p->n_total ? p->n_total : p->ready / s->exec.kv.page_tokens;

	while (!p->has_failed && p->n_begun < end && s->split.n_copies < SPLIT_COPIES && begin_copy(s, p, end))
		;
}

static void take_one(struct eng_sched *s, const struct split_copy *c, bool is_good)
{
	struct passage *p = c->p;

	p->n_flying--;
	if (c->tag != p->tag)
		return; /* its room was given back meanwhile */
	/* Behind what is missing nothing is of use. */
	p->has_failed = p->has_failed || !is_good;
	if (p->has_failed)
		return;
	p->n_done = c->first + c->n;
	p->kv.n_tokens = min_u32(p->n_done * s->exec.kv.page_tokens, p->ready);
	if (!s->config.no_prefix_cache)
		eng_kv_seq_publish(s->pool, &p->kv, p->tokens, min_u32(p->kv.n_tokens, known(s, p)));
}

void sched_split_take_copies(struct eng_sched *s)
{
	struct sched_split *t = &s->split;
	uint64_t n_pages = 0;

	while (t->n_copies > 0) {
		const struct split_copy *c = &t->copies[t->first_copy];
		int r = s->exec.copy_poll(s->exec.ctx, c->ticket);

		if (r == 0)
			break;
		for (uint32_t i = 0; i < c->n; i++)
			eng_kv_page_unpin(s->pool, c->page + i);
		n_pages += r > 0 ? c->n : 0;
		take_one(s, c, r > 0);
		t->first_copy = (t->first_copy + 1) % SPLIT_COPIES;
		t->n_copies--;
	}
	if (n_pages == 0)
		return;
	(void)pthread_mutex_lock(&s->lock);
	s->stats.handed_bytes += n_pages * s->exec.kv.page_bytes;
	(void)pthread_mutex_unlock(&s->lock);
	sched_count_pages(s);
}

/* ---- What there is ---- */

static bool is_before(const struct passage *a, const struct passage *b)
{
	if (!a->seen != !b->seen)
		return a->seen != NULL;
	return a->seen ? a->handed < b->handed : a->opened < b->opened;
}

/* The open ones, as they are now, those that were handed over first; how many. */
static uint32_t look(struct eng_sched *s)
{
	struct sched_link *link = s->split.link;
	struct passage **open = s->split.open;
	uint32_t n = 0;

	(void)pthread_mutex_lock(&link->lock);
	for (uint32_t i = 0; i < link->n; i++) {
		struct passage *p = &link->passages[i];
		uint32_t at = n;

		if (p->state != PASSAGE_OPEN)
			continue;
		p->ready = p->n_ready;
		p->seen = p->r;
		p->is_gone = p->is_dropped;
		p->n_total = p->seen ? pages_of(s, p->ready) : 0;
		for (; at > 0 && is_before(p, open[at - 1]); at--)
			open[at] = open[at - 1];
		open[at] = p;
		n++;
	}
	(void)pthread_mutex_unlock(&link->lock);
	return n;
}

/* Nothing of it is read in front any more. */
static void end_passage(struct eng_sched *s, struct passage *p)
{
	give_room_back(s, p);
	if (p->n_flying > 0)
		return; /* later */
	(void)pthread_mutex_lock(&s->split.link->lock);
	p->state = PASSAGE_OVER;
	(void)pthread_mutex_unlock(&s->split.link->lock);
	sched_cache_is_ready(s->split.front);
}

/* Its request, which is in no list then. */
static struct sreq *take_request(struct eng_sched *s, struct passage *p)
{
	struct sreq *r = p->seen;

	(void)pthread_mutex_lock(&s->split.link->lock);
	p->r = NULL;
	p->is_dropped = true;
	(void)pthread_mutex_unlock(&s->split.link->lock);
	p->seen = NULL;
	p->is_gone = true;
	return r;
}

void sched_split_tend_in(struct eng_sched *s)
{
	uint32_t n;

	sched_split_take_copies(s);
	n = look(s);
	for (uint32_t i = 0; i < n; i++) {
		struct passage *p = s->split.open[i];

		if (p->seen && atomic_load(&p->seen->cancelled)) {
			struct sreq *r = take_request(s, p);

			sreq_end(r, ENG_FINISH_ABORT);
			sched_retire(s, r);
		}
		if (p->is_gone)
			end_passage(s, p);
	}
}

/* ---- Running ---- */

static bool has_come(const struct passage *p)
{
	return p->has_room && (p->has_failed ? p->n_flying == 0 : p->n_done >= p->n_total);
}

static void run_it(struct eng_sched *s, struct passage *p)
{
	struct sreq *r = p->seen;
	uint64_t ns = (uint64_t)base_now_ns() - p->handed_ns;

	r->kv = p->kv;
	p->kv = (struct eng_kv_seq){ 0 };
	p->has_room = false;
	if (p->has_failed)
		r->n_computed = min_u32(r->n_computed, p->n_done * s->exec.kv.page_tokens);
	r->kv.n_tokens = r->n_computed;
	(void)pthread_mutex_lock(&s->lock);
	(void)pthread_mutex_lock(&s->split.link->lock);
	p->r = NULL;
	p->is_dropped = true;
	s->running[s->n_running++] = r;
	(void)pthread_mutex_unlock(&s->split.link->lock);
	s->stats.n_handed++;
	s->stats.handed_ns += ns;
	(void)pthread_mutex_unlock(&s->lock);
	p->seen = NULL;
	p->is_gone = true;
	end_passage(s, p);
}

/* Room for one that was handed over, at the cost of those that were not. */
static bool make_room(struct eng_sched *s, struct passage *p, uint32_t n)
{
	bool is_alone = s->n_running == 0;

	if (find_room(s, p, false))
		return true;
	for (uint32_t i = n; i > 0; i--) {
		struct passage *q = s->split.open[i - 1];

		if (!q || q == p || !q->has_room)
			continue;
		if (!q->seen) {
			give_room_back(s, q);
			if (find_room(s, p, false))
				return true;
		}
		is_alone = is_alone && !q->has_room;
	}
	return is_alone && find_room(s, p, true);
}

void sched_split_go_on_in(struct eng_sched *s)
{
	uint32_t n = look(s);
	bool is_short = false;

	for (uint32_t i = 0; i < n; i++) {
		struct passage *p = s->split.open[i];

		if (p->is_gone)
			continue;
		/* Who finds no room is waited for, not overtaken. */
		if (!p->has_room && !is_short)
			is_short = !(p->seen ? make_room(s, p, n) : find_room(s, p, false));
		if (!p->has_room)
			continue;
		begin_copies(s, p);
		if (!p->seen || !has_come(p) || s->n_running == s->config.max_running)
			continue;
		run_it(s, p);
		s->split.open[i] = NULL; /* the front's */
	}
	sched_count_pages(s);
}

/* ---- Giving way ---- */

bool sched_split_yield(struct eng_sched *s)
{
	uint32_t n;
	bool any = false;

	if (!s->split.front)
		return false;
	n = look(s);
	for (uint32_t i = 0; i < n; i++) {
		any = any || s->split.open[i]->has_room;
		give_room_back(s, s->split.open[i]);
	}
	any = any || s->split.n_copies > 0;
	sched_split_settle(s);
	return any;
}

void sched_split_retract(struct eng_sched *s)
{
	struct eng_sched *front = s->split.front;
	uint32_t n = front ? look(s) : 0;

	for (uint32_t i = n; i > 0; i--) { /* the first one comes to stand in front */
		struct passage *p = s->split.open[i - 1];
		struct sreq *r = p->seen;

		if (!r)
			continue;
		r->n_computed = 0;
		r->was_preempted = true;
		(void)pthread_mutex_lock(&front->lock);
		(void)pthread_mutex_lock(&s->split.link->lock);
		p->r = NULL;
		p->is_dropped = true;
		r->next = front->queue;
		front->queue = r;
		front->n_queued++;
		front->stats.n_preempted++;
		front->has_news = true;
		(void)pthread_cond_signal(&front->wake);
		(void)pthread_mutex_unlock(&s->split.link->lock);
		(void)pthread_mutex_unlock(&front->lock);
		end_passage(s, p);
	}
}
