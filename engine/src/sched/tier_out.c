/* To the host, and from there to the disk.
 *
 * A page that is evicted is copied as it goes (write-back): whoever gets it next computes behind that copy, which the
 * device sees to, mostly during the step that is in the air anyway. With write-through it is copied as soon as it is
 * complete, and goes for nothing. A page stays in the host when it comes back to the pool, so that it goes for nothing
 * the next time, too. Where there is no slot or no way, it is lost, which is what happened without this tier.
 *
 * The disk takes pages from the host alone, the beginning of a prefix before its end: those of the pool that were used
 * again, or, idle, all, by way of a slot; and those that are in the host only. */
#include <string.h>

#include "sched/tier_internal.h"

enum { LOOK = 64 }; /* slots that are looked at beside a step */

/* ---- To the host ---- */

static void count_lost(struct eng_sched *s)
{
	(void)pthread_mutex_lock(&s->lock);
	s->stats.host_pages_lost++;
	(void)pthread_mutex_unlock(&s->lock);
}

/* Begins to copy a page that the host does not have; the copy, or NULL. */
static struct tier_copy *send_out(struct eng_sched *s, uint32_t page)
{
	struct sched_tier *t = &s->tier;
	struct eng_kv_host_page p = { .family = eng_kv_page_family(s->pool, page),
		                      .ids = eng_kv_page_ids(s->pool, page),
		                      .is_saved = eng_kv_page_is_saved(s->pool, page) };
	const struct eng_pc_key *key = eng_kv_page_key(s->pool, page, &p.before);
	struct tier_copy copy = { .page = page };

	if (t->out.n == t->out.cap)
		sched_tier_take_out(s);
	if (!key || t->out.n == t->out.cap)
		return NULL;
	p.key = *key;
	copy.slot = eng_kv_host_take(t->host, &p);
	if (copy.slot == ENG_KV_NO_SLOT)
		return NULL;
	eng_kv_host_page(t->host, copy.slot, &p);
	if (s->exec.page_copy(s->exec.ctx, page, p.bytes, KN_TO_HOST, &copy.ticket) < 0) {
		eng_kv_host_filled(t->host, copy.slot, false);
		return NULL;
	}
	tier_push(&t->out, copy);
	return &t->out.copies[(t->out.first + t->out.n - 1) % t->out.cap];
}

static struct tier_copy *find_out(struct sched_tier *t, uint32_t slot)
{
	for (uint32_t i = 0; i < t->out.n; i++) {
		struct tier_copy *c = &t->out.copies[(t->out.first + i) % t->out.cap];

		if (c->slot == slot)
			return c;
	}
	return NULL;
}

static uint32_t find_slot(struct eng_sched *s, uint32_t page)
{
	struct eng_pc_key before;
	const struct eng_pc_key *key = eng_kv_page_key(s->pool, page, &before);

	return key ? eng_kv_host_find(s->tier.host, key) : ENG_KV_NO_SLOT;
}

void sched_tier_page_published(void *arg, uint32_t page)
{
	struct eng_sched *s = arg;

	if (s->config.write_through && find_slot(s, page) == ENG_KV_NO_SLOT)
		(void)send_out(s, page); /* if not now, then when it is evicted */
}

void sched_tier_page_evicted(void *arg, uint32_t page)
{
	struct eng_sched *s = arg;
	uint32_t slot = find_slot(s, page);
	struct tier_copy *c;

	if (slot == ENG_KV_NO_SLOT) {
		c = send_out(s, page);
		if (!c)
			count_lost(s);
	} else {
		eng_kv_host_touch(s->tier.host, slot);
		c = find_out(&s->tier, slot);
	}
	if (c && s->exec.copy_fence(s->exec.ctx, c->ticket) < 0)
		c->is_bad = true; /* it is written over while it is read */
}

void sched_tier_take_out(struct eng_sched *s)
{
	struct sched_tier *t = &s->tier;
	uint32_t n = 0;
	int r;

	while (t->out.n > 0 && (r = s->exec.copy_poll(s->exec.ctx, tier_first(&t->out)->ticket)) != 0) {
		bool is_good = r > 0 && !tier_first(&t->out)->is_bad;

		eng_kv_host_filled(t->host, tier_first(&t->out)->slot, is_good);
		n += is_good;
		tier_pop(&t->out);
	}
	if (n == 0)
		return;
	(void)pthread_mutex_lock(&s->lock);
	s->stats.host_bytes_out += n * s->exec.kv.page_bytes;
	(void)pthread_mutex_unlock(&s->lock);
}

/* ---- To the disk ---- */

void sched_tier_take_stored(struct eng_sched *s)
{
	uint64_t slot;

	while (s->tier.n_stores > 0 && eng_pc_take_stored(s->config.cache, &slot)) {
		eng_kv_host_release(s->tier.host, (uint32_t)slot);
		s->tier.n_stores--;
	}
}

/* False: the disk has no room for the order yet. */
static bool store(struct eng_sched *s, uint32_t slot)
{
	struct eng_kv_host_page p;

	eng_kv_host_page(s->tier.host, slot, &p);
	if (p.is_saved)
		return true;
	if (!eng_pc_store_from(s->config.cache, &p.before, p.ids, (uint64_t)sched_compute_ns(s, 0), slot, p.bytes))
		return false;
	eng_kv_host_hold(s->tier.host, slot);
	eng_kv_host_set_saved(s->tier.host, slot, true);
	s->tier.n_stores++;
	return true;
}

/* False: no page of the pool wants to be written, or one that does is not in the host yet. */
static bool give_one(struct eng_sched *s, uint32_t min_hits, bool *ret_more)
{
	uint32_t page = eng_kv_pool_unsaved(s->pool, min_hits), slot;
	struct eng_pc_key before;
	const struct eng_pc_key *key;

	if (page == ENG_KV_NO_PAGE)
		return false;
	key = eng_kv_page_key(s->pool, page, &before);
	if (key && !eng_pc_has(s->config.cache, key)) {
		slot = eng_kv_host_find(s->tier.host, key);
		*ret_more = true;
		if (slot == ENG_KV_NO_SLOT) {
			*ret_more = send_out(s, page) != NULL;
			return false;
		}
		if (!eng_kv_host_is_complete(s->tier.host, slot) || !store(s, slot))
			return false;
	}
	eng_kv_page_set_saved(s->pool, page);
	return true;
}

/* Of a page that only the host has: the one before it is there already. False: none was found, or there is no room. */
static bool give_from_host(struct eng_sched *s, uint32_t *io_look, bool *ret_more)
{
	static const struct eng_pc_key none;
	uint32_t slot = eng_kv_host_unsaved(s->tier.host, &s->tier.save_at, io_look);
	struct eng_kv_host_page p;

	if (slot == ENG_KV_NO_SLOT)
		return false;
	eng_kv_host_page(s->tier.host, slot, &p);
	if (eng_pc_has(s->config.cache, &p.key)) {
		eng_kv_host_set_saved(s->tier.host, slot, true);
		return true;
	}
	if (memcmp(&p.before, &none, sizeof(none)) != 0 && !eng_pc_has(s->config.cache, &p.before))
		return true; /* its turn comes when that one was written, if ever */
	if (store(s, slot))
		return true;
	*ret_more = true;
	return false;
}

bool sched_tier_give(struct eng_sched *s, bool idle)
{
	struct eng_kv_host_counts c;
	uint32_t n_look = LOOK;
	bool more = false;

	sched_tier_take_stored(s);
	while (give_one(s, idle ? 0 : 1, &more) && idle)
		;
	eng_kv_host_counts(s->tier.host, &c);
	n_look = idle ? c.n_slots : LOOK;
	while (give_from_host(s, &n_look, &more) && idle)
		;
	return more || s->tier.n_stores > 0;
}
