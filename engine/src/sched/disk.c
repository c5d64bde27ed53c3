/* Pages from and to the disk (promptcache/). A request that was admitted and finds the continuation of its cached
 * prefix on disk is "loading": it takes part in no step until its pages are there, one after the other, or one
 * cannot be read or would be computed sooner; then it goes on as a prompt of which so much is cached. Others with
 * the same prompt wait for it as for any prefix in the making.
 *
 * What another request took over is written at once, a page beside each step; what was computed for one request
 * only, when there is nothing else to do. Copying a page into the cache's memory is all that this thread does. */
#include "sched/disk.h"

#include <assert.h>
#include <time.h>

#include "sched/sched_internal.h"

enum { LOADS_AHEAD = 3, FINISH_MS = 3000 };

static const struct eng_pc_key no_key;

/* ---- How fast it was ---- */

static_assert((int)ENG_PACE_SIZES == (int)ENG_PC_SPEED_STEPS, "a step of each size");

void sched_disk_open(struct eng_sched *s)
{
	struct eng_pc_speed speed;

	s->n_kept = s->pace.n_prompts;
	s->was_elsewhere = false;
	if (!s->config.cache || !eng_pc_get_speed(s->config.cache, &speed))
		return;
	s->was_elsewhere = speed.device != s->exec.device;
	for (int i = 0; i < ENG_PACE_SIZES && !s->was_elsewhere; i++) {
		if (s->pace.steps[i].n <= 0 && speed.steps[i].n > 0 && speed.steps[i].ns > 0)
			s->pace.steps[i] = (struct eng_pace_steps){ speed.steps[i].n, speed.steps[i].ns };
	}
}

void sched_disk_keep(struct eng_sched *s)
{
	struct eng_pc_speed speed = { .device = s->exec.device };

	if (!s->config.cache || s->pace.n_prompts <= 2 * s->n_kept)
		return;
	s->n_kept = s->pace.n_prompts;
	for (int i = 0; i < ENG_PACE_SIZES; i++) {
		speed.steps[i].n = s->pace.steps[i].n;
		speed.steps[i].ns = s->pace.steps[i].ns;
	}
	eng_pc_keep_speed(s->config.cache, &speed);
}

/* ---- Reading ---- */

double sched_compute_ns(const struct eng_sched *s, uint64_t then_ns)
{
	double now_ns = s->pace.prompt_token_ns * s->exec.kv.page_tokens;

	return now_ns > 0 ? now_ns : (double)then_ns;
}

/* Of n pages. Before this process has computed a prompt, what the one before kept counts, then what the page itself
 * says. */
static bool is_worth_it(struct eng_sched *s, uint32_t n, uint64_t then_ns)
{
	double kept = eng_pace_prompt_ns(&s->pace, (uint64_t)n * s->exec.kv.page_tokens, s->exec.max_tokens) / n;
	double compute = sched_compute_ns(s, kept > 0 ? (uint64_t)kept : then_ns);
	struct eng_pc_stats st;

	eng_pc_get_stats(s->config.cache, &st);
	if (s->config.always_load)
		return true;
	if (compute <= 0 && s->was_elsewhere) /* nothing is known of this device: what it computes now will tell */
		return false;
	if (st.read_ns <= 0 || compute <= 0 || st.read_ns * s->disk_patience < compute)
		return true;
	/* The disk may have been slow for a moment only: it gets another chance, later. */
	s->disk_patience *= 0.95;
	return false;
}

bool sreq_keys(struct eng_sched *s, struct sreq *r, uint32_t n)
{
	struct eng_pc_key root, *grown;

	if (n <= r->n_keys)
		return true;
	grown = realloc(r->keys, n * sizeof(*grown));
	if (!grown)
		return false;
	r->keys = grown;
	eng_kv_key_root(r->req.adapter, &root);
	for (; r->n_keys < n; r->n_keys++) {
		uint32_t i = r->n_keys;

		if (eng_kv_key_next(s->pool, i > 0 ? &r->keys[i - 1] : &root,
		                    r->tokens + (size_t)i * s->exec.kv.page_tokens, &r->keys[i]) < 0)
			return false;
	}
	return true;
}

void sched_disk_begin(struct eng_sched *s, struct sreq *r)
{
	uint32_t page = s->exec.kv.page_tokens, first = r->n_computed / page, last = first, most;

	if (!s->config.cache || s->config.no_prefix_cache || r->req.adapter)
		return;
	most = sreq_first_row(r) < r->n_prompt ? sreq_first_row(r) / page : r->n_prompt / page;
	if (most <= first || !sreq_keys(s, r, most))
		return;
	while (last < most && eng_pc_has(s->config.cache, &r->keys[last]))
		last++;
	if (last > first && !is_worth_it(s, last - first, 0)) {
		(void)pthread_mutex_lock(&s->lock);
		s->stats.n_loads_refused++;
		(void)pthread_mutex_unlock(&s->lock);
		return;
	}
	if (last == first)
		return;
	r->load_tag = ++s->n_load_tags;
	r->load_next = r->load_done = first;
	r->load_end = last;
}

void sched_disk_forget(struct sreq *r)
{
	r->load_tag = 0;
}

static void ask_for_more(struct eng_sched *s, struct sreq *r)
{
	while (r->load_next < r->load_end && r->load_next - r->load_done < LOADS_AHEAD) {
		uint32_t i = r->load_next;

		if (!eng_pc_load(s->config.cache, i > 0 ? &r->keys[i - 1] : &no_key, &r->keys[i], r->load_tag))
			return;
		r->load_next++;
	}
}

/* One page for r has been read, or not. */
static void take_one(struct eng_sched *s, struct sreq *r, const struct eng_pc_loaded *loaded)
{
	uint32_t page = s->exec.kv.page_tokens, i = r->load_done++;

	s->disk_patience = 1;

	/* Behind a page that is missing nothing is of use. */
	if (!loaded->page || i >= r->load_end) {
		r->load_end = i < r->load_end ? i : r->load_end;
		return;
	}
	s->exec.page_write(s->exec.ctx, r->kv.pages[i], loaded->page);
	r->n_computed = r->kv.n_tokens = (i + 1) * page;
	eng_kv_seq_publish(s->pool, &r->kv, r->tokens, r->kv.n_tokens);
	eng_kv_page_set_saved(s->pool, r->kv.pages[i]);
	if (!r->was_preempted) {
		r->n_cached += page;
		(void)pthread_mutex_lock(&s->lock);
		s->stats.cached_tokens += page;
		s->stats.disk_tokens += page;
		(void)pthread_mutex_unlock(&s->lock);
	}
	if (i + 1 < r->load_end && !is_worth_it(s, r->load_end - i - 1, loaded->compute_ns))
		r->load_end = r->load_next; /* what was asked for comes; no more */
}

void sched_disk_take(struct eng_sched *s)
{
	struct eng_pc_loaded loaded;

	if (s->tier.host)
		return;
	while (s->config.cache && eng_pc_take(s->config.cache, &loaded)) {
		for (uint32_t i = 0; i < s->n_running; i++) {
			if (s->running[i]->load_tag == loaded.tag && !s->running[i]->is_done)
				take_one(s, s->running[i], &loaded);
		}
		eng_pc_release(s->config.cache, &loaded);
	}
	for (uint32_t i = 0; i < s->n_running; i++) {
		struct sreq *r = s->running[i];

		if (!r->load_tag)
			continue;
		ask_for_more(s, r);
		if (r->load_done >= r->load_end)
			sched_disk_forget(r);
	}
}

/* ---- Writing ---- */

/* False: no page wants to be written. */
static bool give_one(struct eng_sched *s, uint32_t min_hits, bool *ret_full)
{
	uint32_t page = eng_kv_pool_unsaved(s->pool, min_hits);
	const struct eng_pc_key *key;
	struct eng_pc_key before;
	void *slot;

	if (page == ENG_KV_NO_PAGE)
		return false;
	key = eng_kv_page_key(s->pool, page, &before);
	if (key && !eng_pc_has(s->config.cache, key)) {
		slot = eng_pc_store_slot(s->config.cache);
		*ret_full = !slot;
		if (!slot)
			return false;
		s->exec.page_read(s->exec.ctx, page, slot);
		eng_pc_store(s->config.cache, slot, &before, eng_kv_page_ids(s->pool, page),
		             (uint64_t)sched_compute_ns(s, 0));
	}
	eng_kv_page_set_saved(s->pool, page);
	return true;
}

bool sched_disk_give(struct eng_sched *s, bool idle)
{
	bool is_full = false;

	if (!s->config.cache || s->config.no_prefix_cache)
		return false;
	if (s->tier.host)
		return sched_tier_give(s, idle);
	while (give_one(s, idle ? 0 : 1, &is_full) && idle)
		;
	return is_full;
}

void sched_disk_finish(struct eng_sched *s)
{
	const struct timespec nap = { .tv_nsec = 1000000 };

	s->n_kept = 0;
	sched_disk_keep(s);
	for (int ms = 0; ms < FINISH_MS && sched_disk_give(s, true); ms++) {
		sched_tier_settle(s);
		(void)nanosleep(&nap, NULL);
	}
}
