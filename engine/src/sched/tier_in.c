/* From the host, and by way of it from the disk, back into the pool.
 *
 * A request finds the continuation of its cached prefix in the host or on disk: it is "loading". Pages of the disk come
 * into slots of the host, those of the host into the request's own pages, many at a time, and are published one after
 * the other as they come; meanwhile others are computed. What cannot be had or is damaged ends the load, and the
 * request goes on as a prompt of which so much is cached. The first ones in the queue load already while they wait,
 * into pages that are given back when somebody who runs needs them.
 *
 * Never slower than computing: how long a load of so many pages takes is learned from those that were made, and
 * compared with what prompts take; what is refused is tried again, rarely, since either may have been slow for a moment
 * only. */
#include <errno.h>

#include "base/clock.h"
#include "sched/tier_internal.h"

enum {
	PREFETCH = 2,   /* waiting requests at a time */
	MAX_READS = 16, /* orders that the disk has */
	MAX_RETRIES = 8,
};

/* ---- Is it worth it? ---- */

/* Of n pages from now on; 0: not known. What was written on another device says nothing. */
static double compute_ns(const struct eng_sched *s, uint32_t n)
{
	double ns = eng_pace_prompt_ns(&s->pace, (uint64_t)n * s->exec.kv.page_tokens, s->exec.max_tokens);

	return ns > 0 || s->was_elsewhere ? ns : s->tier.then_page_ns * n;
}

static double disk_page_ns(struct eng_sched *s)
{
	struct eng_pc_stats st = { 0 };

	if (s->config.cache)
		eng_pc_get_stats(s->config.cache, &st);
	return st.read_ns;
}

/* Pages that another device wrote, before this one has computed a prompt: it computes that, and knows. */
static bool is_worth_it(struct eng_sched *s, uint32_t n_pages, uint32_t n_disk)
{
	double compute = compute_ns(s, n_pages);

	if (s->config.always_load)
		return true;
	if (n_disk > 0 && compute <= 0 && s->was_elsewhere)
		return false;
	return sched_worth_begins(&s->tier.worth, compute, n_pages, n_disk, n_disk ? disk_page_ns(s) : 0);
}

/* How many of n pages, of which those from the n_host-th on are on disk at best; 0: none. */
static uint32_t how_many(struct eng_sched *s, uint32_t n, uint32_t n_host, uint32_t n_disk)
{
	if (n == 0 || is_worth_it(s, n, n_disk))
		return n;
	(void)pthread_mutex_lock(&s->lock);
	s->stats.n_loads_refused++;
	(void)pthread_mutex_unlock(&s->lock);
	return n_host < n && n_host > 0 && is_worth_it(s, n_host, 0) ? n_host : 0;
}

/* ---- Beginning ---- */

static bool on_disk(struct eng_sched *s, const struct sreq *r, uint32_t i)
{
	return s->config.cache && !r->req.adapter && eng_pc_has(s->config.cache, &r->keys[i]);
}

/* The end of what can be loaded from page `first` on; r has keys that far. */
static uint32_t find_end(struct eng_sched *s, struct sreq *r, uint32_t first, bool *ret_is_pure)
{
	uint32_t most = sched_reusable(s, r) / s->exec.kv.page_tokens, end = first, n_host = 0, n_disk = 0;

	if (most <= first || s->config.no_prefix_cache || !sreq_keys(s, r, most))
		return first;
	for (; end < most; end++) {
		if (eng_kv_host_find(s->tier.host, &r->keys[end]) == ENG_KV_NO_SLOT) {
			if (!on_disk(s, r, end))
				break;
			n_disk++;
		}
		n_host += n_disk == 0;
	}
	end = first + how_many(s, end - first, n_host, n_disk);
	*ret_is_pure = end - first <= n_host;
	for (uint32_t i = end; i > first; i--) {
		uint32_t slot = eng_kv_host_find(s->tier.host, &r->keys[i - 1]);

		if (slot != ENG_KV_NO_SLOT)
			eng_kv_host_touch(s->tier.host, slot);
	}
	return end;
}

static void begin_load(struct eng_sched *s, struct sreq *r, uint32_t first, uint32_t end, bool is_pure)
{
	r->load_tag = ++s->n_load_tags;
	r->load_first = r->load_done = r->load_next = r->load_asked = first;
	r->load_end = end;
	r->load_retries = r->load_read = 0;
	r->load_is_pure = is_pure;
	r->load_ns = (uint64_t)base_now_ns();
}

void sched_tier_begin(struct eng_sched *s, struct sreq *r)
{
	uint32_t first = r->n_computed / s->exec.kv.page_tokens, end;
	bool is_pure = true;

	if (r->load_tag) /* it has begun in the queue */
		return;
	end = find_end(s, r, first, &is_pure);
	if (end > first)
		begin_load(s, r, first, end, is_pure);
}

/* ---- Ahead ---- */

/* Another one that waits brings the same pages, or an earlier one of them. */
static bool is_brought(struct eng_sched *s, struct sreq *const *waiting, uint32_t n, const struct sreq *r)
{
	for (uint32_t i = 0; i < n && waiting[i] != r; i++) {
		if (waiting[i]->load_tag && waiting[i]->req.adapter == r->req.adapter &&
		    sched_common_pages(waiting[i], r, s->exec.kv.page_tokens) > 0)
			return true;
	}
	return false;
}

static void prefetch_one(struct eng_sched *s, struct sreq *r)
{
	uint32_t page = s->exec.kv.page_tokens, spare = 2 * s->n_running + 1, first, end, room;
	bool is_pure = true;

	first = eng_kv_pool_peek(s->pool, r->req.adapter, r->tokens, sched_reusable(s, r)) / page;
	room = eng_kv_pool_n_available(s->pool);
	if (room < spare + first)
		return; /* later, perhaps */
	room -= spare + first;
	r->was_prefetched = true;
	end = find_end(s, r, first, &is_pure);
	end = end - first > room ? first + room : end;
	if (end == first)
		return;
	r->kv.family = r->req.adapter;
	if (eng_kv_seq_match(s->pool, &r->kv, r->tokens, first * page) < 0 ||
	    eng_kv_seq_reserve(s->pool, &r->kv, end * page) < 0) {
		eng_kv_seq_done(s->pool, &r->kv);
		return;
	}
	begin_load(s, r, first, end, is_pure);
}

void sched_tier_prefetch(struct eng_sched *s)
{
	struct sreq *waiting[PREFETCH];
	uint32_t n = 0;

	if (!s->tier.host || s->n_running == 0)
		return;
	(void)pthread_mutex_lock(&s->lock);
	for (struct sreq *r = s->queue; r && n < PREFETCH; r = r->next)
		waiting[n++] = r;
	(void)pthread_mutex_unlock(&s->lock);
	for (uint32_t i = 0; i < n; i++) {
		struct sreq *r = waiting[i];

		if (!r->was_prefetched && !atomic_load(&r->cancelled) && r->kv.n_pages == 0 &&
		    !is_brought(s, waiting, n, r) && !sched_waits_for_prefix(s, r))
			prefetch_one(s, r);
	}
}

/* ---- From the disk into the host ---- */

static const struct eng_pc_key *key_before(const struct sreq *r, uint32_t i, struct eng_pc_key *room)
{
	if (i > 0)
		return &r->keys[i - 1];
	eng_kv_key_root(r->req.adapter, room);
	return room;
}

/* False: not now. */
static bool read_page(struct eng_sched *s, struct sreq *r, uint32_t i)
{
	struct eng_pc_key root;
	const struct eng_pc_key *before = key_before(r, i, &root);
	struct eng_kv_host_page p = { .key = r->keys[i],
		                      .before = *before,
		                      .ids = r->tokens + (size_t)i * s->exec.kv.page_tokens,
		                      .is_saved = true,
		                      .from_disk = true };
	uint32_t slot = eng_kv_host_take(s->tier.host, &p);

	if (slot == ENG_KV_NO_SLOT)
		return false;
	eng_kv_host_page(s->tier.host, slot, &p);
	if (!eng_pc_load_into(s->config.cache, before, &r->keys[i], slot, p.bytes)) {
		eng_kv_host_filled(s->tier.host, slot, false);
		return false;
	}
	s->tier.n_reads++;
	return true;
}

void sched_tier_take_read(struct eng_sched *s)
{
	struct eng_pc_loaded loaded;

	while (s->tier.n_reads > 0 && eng_pc_take(s->config.cache, &loaded)) {
		eng_kv_host_filled(s->tier.host, (uint32_t)loaded.tag, loaded.page != NULL);
		if (loaded.compute_ns > 0)
			s->tier.then_page_ns = (double)loaded.compute_ns;
		eng_pc_release(s->config.cache, &loaded);
		s->tier.n_reads--;
	}
}

/* What is left may be computed sooner, now that the disk has shown what it takes. How many pages it may be asked for.
 */
static uint32_t n_to_ask(struct eng_sched *s, struct sreq *r, uint32_t from)
{
	uint32_t n = r->load_end - from, may;
	bool is_slow;

	if (s->config.always_load)
		return n;
	may = sched_worth_goes_on(&s->tier.worth, compute_ns(s, n), n, n, disk_page_ns(s), r->load_read, &is_slow);
	/* When all that was asked for has come, there is nothing left that could tell more. */
	if (may > 0 || (!is_slow && s->tier.n_reads > 0))
		return may;
	r->load_end = from;
	(void)pthread_mutex_lock(&s->lock);
	s->stats.n_loads_refused++;
	(void)pthread_mutex_unlock(&s->lock);
	return 0;
}

/* No further ahead than that what comes does not drive out what came before it. */
static void ask_disk(struct eng_sched *s, struct sreq *r)
{
	uint32_t i = r->load_asked > r->load_next ? r->load_asked : r->load_next, end = r->load_end, ahead,
	         may = UINT32_MAX;
	struct eng_kv_host_counts c;

	if (r->load_end <= r->load_next) /* cut, while what is behind it was on its way */
		return;
	eng_kv_host_counts(s->tier.host, &c);
	ahead = c.n_slots / 4 > 1 ? c.n_slots / 4 : 1;
	end = end - r->load_next > ahead ? r->load_next + ahead : end;
	for (; i < end && s->tier.n_reads < MAX_READS; i++) {
		if (eng_kv_host_find(s->tier.host, &r->keys[i]) == ENG_KV_NO_SLOT) {
			may = may == UINT32_MAX ? n_to_ask(s, r, i) : may;
			if (may == 0 || !on_disk(s, r, i) || !read_page(s, r, i))
				return;
			may--;
			r->load_read++;
		}
		r->load_asked = i + 1;
	}
}

/* ---- From the host into the pool ---- */

/* The next page is not in the host: its reading failed, or it was given up for another, or there is no slot for it.
 * Behind a page that is missing nothing is of use. True: the disk is to be asked again. */
static bool miss(struct eng_sched *s, struct sreq *r)
{
	bool was_asked = r->load_asked > r->load_next;
	struct eng_kv_host_counts c;

	if (was_asked && r->load_retries++ < MAX_RETRIES && on_disk(s, r, r->load_next)) {
		r->load_asked = r->load_next;
		return true;
	}
	eng_kv_host_counts(s->tier.host, &c);
	if (was_asked || !on_disk(s, r, r->load_next) || c.n_used == 0)
		r->load_end = r->load_next;
	return false; /* what uses slots now gives news when it has done */
}

/* False: not now, or never. */
static bool bring(struct eng_sched *s, struct sreq *r, bool *ret_again)
{
	uint32_t i = r->load_next, slot = eng_kv_host_find(s->tier.host, &r->keys[i]);
	struct tier_copy copy = { .load_tag = r->load_tag, .slot = slot, .page = r->kv.pages[i] };
	struct tier_copy *before;
	struct eng_kv_host_page p;
	int e;

	if (slot == ENG_KV_NO_SLOT) {
		*ret_again = miss(s, r);
		return false;
	}
	if (!eng_kv_host_is_complete(s->tier.host, slot))
		return false;
	eng_kv_host_page(s->tier.host, slot, &p);
	before = tier_nth(&s->tier.out, s->tier.leaving[copy.page]);
	if (before && s->exec.copy_follow(s->exec.ctx, before->ticket) < 0)
		before->is_bad = true; /* written over while it is read */
	e = s->exec.page_copy(s->exec.ctx, copy.page, p.bytes, KN_TO_DEVICE, &copy.ticket);
	if (e < 0) {
		if (e != -EBUSY)
			r->load_end = i;
		return false;
	}
	eng_kv_host_hold(s->tier.host, slot);
	eng_kv_host_compare(s->tier.host, slot);
	eng_kv_page_pin(s->pool, copy.page);
	if (s->tier.in.n == 0)
		sched_count_live(s, true);
	tier_push(&s->tier.in, copy);
	r->load_next++;
	return true;
}

static void finish_load(struct eng_sched *s, struct sreq *r)
{
	uint32_t n = r->load_done - r->load_first;

	if (r->load_is_pure && n > 0 && r->load_done == r->load_end)
		sched_worth_learn(&s->tier.worth, n, (double)((uint64_t)base_now_ns() - r->load_ns));
	r->load_tag = 0;
}

static void go_on(struct eng_sched *s, struct sreq *r)
{
	bool again;

	do {
		again = false;
		ask_disk(s, r);
		while (r->load_next < r->load_end && s->tier.in.n < s->tier.in.cap && bring(s, r, &again))
			;
	} while (again);
	/* Pages behind the end may still be on their way into what r would compute into. */
	if (r->load_next >= r->load_end && r->load_done == r->load_next)
		finish_load(s, r);
}

void sched_tier_go_on(struct eng_sched *s)
{
	struct sreq *waiting[PREFETCH];
	uint32_t n = 0;

	for (uint32_t i = 0; i < s->n_running; i++) {
		if (s->running[i]->load_tag && !s->running[i]->is_done)
			go_on(s, s->running[i]);
	}
	(void)pthread_mutex_lock(&s->lock);
	for (struct sreq *r = s->queue; r && n < PREFETCH; r = r->next) {
		if (r->load_tag)
			waiting[n++] = r;
	}
	(void)pthread_mutex_unlock(&s->lock);
	for (uint32_t i = 0; i < n; i++)
		go_on(s, waiting[i]);
}

/* ---- What has come ---- */

/* Whose it is, if it still waits for it. */
static struct sreq *whose(struct eng_sched *s, uint64_t tag, bool *ret_is_running)
{
	struct sreq *r;

	*ret_is_running = true;
	for (uint32_t i = 0; i < s->n_running; i++) {
		if (s->running[i]->load_tag == tag && !s->running[i]->is_done)
			return s->running[i];
	}
	*ret_is_running = false;
	(void)pthread_mutex_lock(&s->lock);
	for (r = s->queue; r && r->load_tag != tag; r = r->next)
		;
	(void)pthread_mutex_unlock(&s->lock);
	return r;
}

static void count(struct eng_sched *s, struct sreq *r, bool is_running, bool from_disk)
{
	uint32_t page = s->exec.kv.page_tokens;

	if (!is_running) { /* when it is admitted */
		*(from_disk ? &r->n_disk : &r->n_host) += page;
		return;
	}
	if (r->was_preempted)
		return;
	r->n_cached += page;
	(void)pthread_mutex_lock(&s->lock);
	s->stats.cached_tokens += page;
	*(from_disk ? &s->stats.disk_tokens : &s->stats.host_tokens) += page;
	(void)pthread_mutex_unlock(&s->lock);
}

static void take_one(struct eng_sched *s, const struct tier_copy *c, bool is_good)
{
	struct eng_kv_host_page p;
	bool is_running;
	struct sreq *r = whose(s, c->load_tag, &is_running);
	uint32_t i;

	if (!r)
		return;
	i = r->load_done++;
	if (!is_good || i >= r->load_end) {
		r->load_end = i < r->load_end ? i : r->load_end;
		return;
	}
	eng_kv_host_page(s->tier.host, c->slot, &p);
	r->n_computed = r->kv.n_tokens = (i + 1) * s->exec.kv.page_tokens;
	eng_kv_seq_publish(s->pool, &r->kv, r->tokens, r->kv.n_tokens);
	if (p.is_saved)
		eng_kv_page_set_saved(s->pool, r->kv.pages[i]);
	count(s, r, is_running, p.from_disk);
	if (p.from_disk)
		eng_kv_host_clear_from_disk(s->tier.host, c->slot);
}

void sched_tier_take_in(struct eng_sched *s)
{
	struct sched_tier *t = &s->tier;
	uint64_t bytes = 0;
	bool had_any = t->in.n > 0;

	while (t->in.n > 0) {
		struct tier_copy *c = tier_first(&t->in);
		int r = c->is_in ? 1 : s->exec.copy_poll(s->exec.ctx, c->ticket);

		if (r == 0)
			break;
		c->is_bad = c->is_bad || r < 0;
		c->is_in = true;
		r = eng_kv_host_compared(t->host, c->slot);
		if (r == 0)
			break;
		bytes += s->exec.kv.page_bytes;
		eng_kv_page_unpin(s->pool, c->page);
		take_one(s, c, r > 0 && !c->is_bad);
		eng_kv_host_release(t->host, c->slot);
		tier_pop(&t->in);
	}
	if (bytes > 0) {
		(void)pthread_mutex_lock(&s->lock);
		s->stats.host_bytes_in += bytes;
		(void)pthread_mutex_unlock(&s->lock);
		sched_count_pages(s);
	}
	if (had_any && t->in.n == 0)
		sched_count_live(s, false);
}
