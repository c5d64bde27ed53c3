/* To the host, and from there to the disk.
 *
 * A page that is evicted is copied as it goes (write-back): who gets it next writes behind that copy, a step or what
 * comes from the host, which the device sees to; mostly it has ended long before. With write-through it is copied as
 * soon as it is complete, and goes for nothing. A page stays in the host when it comes back to the pool, so that it
 * goes for nothing the next time, too. When too many are on their way the first one is waited for: of a prefix its end
 * goes first, and without its beginning it is of no use. Where there is no slot, a page is lost, as without this tier.
 *
 * The disk takes pages from the host alone, the beginning of a prefix before its end: those of the pool that were used
 * again, or, idle, all, by way of a slot; and those that are in the host only. */
#include <errno.h>
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

/* Room for one more, if there can be. */
static bool wait_for_room(struct eng_sched *s)
{
	struct sched_tier *t = &s->tier;

	if (t->out.n == 0)
		return false;
	(void)s->exec.copy_wait(s->exec.ctx, tier_first(&t->out)->ticket);
	sched_tier_take_out(s);
	return true;
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
	int r;

	if (!key)
		return NULL;
	if (t->out.n == t->out.cap)
		(void)wait_for_room(s);
	p.key = *key;
	copy.slot = eng_kv_host_take(t->host, &p);
	if (copy.slot == ENG_KV_NO_SLOT)
		return NULL;
	eng_kv_host_page(t->host, copy.slot, &p);
	do
		r = s->exec.page_copy(s->exec.ctx, page, p.bytes, KN_TO_HOST, &copy.ticket);
	while (r == -EBUSY && wait_for_room(s));
	if (r < 0) {
		eng_kv_host_filled(t->host, copy.slot, false);
		return NULL;
	}
	tier_push(&t->out, copy);
	return tier_nth(&t->out, t->out.n_ended + t->out.n);
}

/* The number of the copy that fills a slot; 0: it has ended. */
static uint64_t find_out(struct sched_tier *t, uint32_t slot)
{
	for (uint64_t n = t->out.n_ended + t->out.n; n > t->out.n_ended; n--) {
		if (tier_nth(&t->out, n)->slot == slot)
			return n;
	}
	return 0;
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
	struct sched_tier *t = &s->tier;
	uint32_t slot = find_slot(s, page);

	if (slot == ENG_KV_NO_SLOT) {
		if (send_out(s, page))
			t->leaving[page] = t->out.n_ended + t->out.n;
		else
			count_lost(s);
	} else {
		eng_kv_host_touch(t->host, slot);
		if (!eng_kv_host_is_complete(t->host, slot))
			t->leaving[page] = find_out(t, slot);
	}
}

/* They end in their order: behind the last one is behind all. */
void sched_tier_before(struct eng_sched *s, const struct eng_step_seq *seqs, size_t n)
{
	uint32_t page_tokens = s->exec.kv.page_tokens;
	struct sched_tier *t = &s->tier;
	uint64_t last = 0;

	for (size_t i = 0; i < n && t->host && t->out.n > 0; i++) {
		const struct eng_step_seq *q = &seqs[i];

		for (uint32_t k = q->pos / page_tokens; k <= (q->pos + q->n_ids - 1) / page_tokens; k++)
			last = t->leaving[q->pages[k]] > last ? t->leaving[q->pages[k]] : last;
	}
	if (!tier_nth(&t->out, last) || s->exec.copy_fence(s->exec.ctx, tier_nth(&t->out, last)->ticket) == 0)
		return;
	for (uint64_t k = t->out.n_ended + 1; k <= last; k++)
		tier_nth(&t->out, k)->is_bad = true; /* written over while they are read */
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
