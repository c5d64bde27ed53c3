/* The host tier's slots: a hash table by key, a list in the order of use, and threads that ask for memory and sum pages
 * up. One lock: what is done under it is a few stores, the sums and the memory are made outside. A bus moves 50 GB/s
 * and a core sums 8 at best, so that half of the cores do it when there is something to sum; the one that asks for
 * memory does nothing else until all is there. */
#include "kv/host.h"

#include <assert.h>
#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "base/threadpool.h"
#include "promptcache/page_sum.h"

enum { LEAST_SUMMING = 2, MOST_SUMMING = 8, MOST_WORKERS = MOST_SUMMING + 1, NONE = ENG_KV_NO_SLOT };

static const uint64_t chunk_bytes = 256ull << 20; /* asked for at a time */

enum slot_state {
	SLOT_NONE, /* no memory yet */
	SLOT_FREE,
	SLOT_FILLING,
	SLOT_SEALING,
	SLOT_COMPLETE,
};

enum slot_job { JOB_NONE, JOB_SEAL, JOB_COMPARE };

struct slot {
	struct eng_kv_host_page page;
	uint8_t state, job;
	bool is_known;      /* in the table and, complete, in the list */
	bool is_good;       /* by the last comparison */
	uint32_t n_holders; /* of a complete one */
	uint32_t next;      /* in the table's chain */
	uint32_t older, newer;
	uint64_t sum;
};

struct eng_kv_host {
	struct eng_kv_host_config config;
	uint32_t n_most; /* slots in the budget */
	int32_t *ids;    /* [n_most][page_tokens] */
	void (*ready)(void *arg);
	void *ready_arg;
	pthread_t workers[MOST_WORKERS];
	uint32_t n_workers;
	void **chunks; /* [n_most] at most; the growing thread's, then close's */
	uint32_t n_chunks;

	pthread_mutex_t lock;
	pthread_cond_t work;
	/* protected by lock */
	struct slot *slots; /* [n_most] */
	uint32_t n_slots, n_free, n_cached;
	uint32_t *free;    /* [n_most] */
	uint32_t *buckets; /* [n_buckets], a power of two */
	uint32_t n_buckets;
	uint32_t oldest, newest;
	uint32_t *jobs; /* ring of [n_most]: a slot has one job at a time */
	uint32_t first_job, n_jobs;
	uint64_t n_given_up, n_damaged;
	bool is_short, is_stopping;
};

/* ---- The table and the list; locked ---- */

static uint32_t *bucket_of(const struct eng_kv_host *h, const struct eng_pc_key *key)
{
	uint32_t hash;

	memcpy(&hash, key->b, sizeof(hash));
	return &h->buckets[hash & (h->n_buckets - 1)];
}

static uint32_t find(const struct eng_kv_host *h, const struct eng_pc_key *key)
{
	uint32_t at = *bucket_of(h, key);

	while (at != NONE && memcmp(&h->slots[at].page.key, key, sizeof(*key)) != 0)
		at = h->slots[at].next;
	return at;
}

static void unlist(struct eng_kv_host *h, uint32_t at)
{
	struct slot *s = &h->slots[at];

	*(s->older == NONE ? &h->oldest : &h->slots[s->older].newer) = s->newer;
	*(s->newer == NONE ? &h->newest : &h->slots[s->newer].older) = s->older;
}

static void list_newest(struct eng_kv_host *h, uint32_t at)
{
	struct slot *s = &h->slots[at];

	s->older = h->newest;
	s->newer = NONE;
	*(h->newest == NONE ? &h->oldest : &h->slots[h->newest].newer) = at;
	h->newest = at;
}

static void set_free(struct eng_kv_host *h, uint32_t at)
{
	h->slots[at].state = SLOT_FREE;
	h->free[h->n_free++] = at;
}

/* Nobody finds it any more. */
static void forget(struct eng_kv_host *h, uint32_t at)
{
	struct slot *s = &h->slots[at];
	uint32_t *link = bucket_of(h, &s->page.key);

	if (!s->is_known)
		return;
	while (*link != at)
		link = &h->slots[*link].next;
	*link = s->next;
	s->is_known = false;
	if (s->state != SLOT_COMPLETE)
		return;
	unlist(h, at);
	if (s->n_holders > 0)
		return;
	h->n_cached--;
	set_free(h, at);
}

/* ---- The threads ---- */

static void add_job(struct eng_kv_host *h, uint32_t at, enum slot_job job)
{
	assert(h->slots[at].job == JOB_NONE && h->n_jobs < h->n_most);
	h->slots[at].job = job;
	h->jobs[(h->first_job + h->n_jobs++) % h->n_most] = at;
	(void)pthread_cond_signal(&h->work);
}

static void finish_job(struct eng_kv_host *h, uint32_t at, uint64_t sum)
{
	struct slot *s = &h->slots[at];
	enum slot_job job = s->job;

	s->job = JOB_NONE;
	if (job == JOB_COMPARE) {
		s->is_good = sum == s->sum;
		if (s->is_good)
			return;
		h->n_damaged++;
		forget(h, at);
		return;
	}
	s->sum = sum;
	if (!s->is_known) { /* forgotten meanwhile */
		set_free(h, at);
		return;
	}
	s->state = SLOT_COMPLETE;
	h->n_cached++;
	list_newest(h, at);
}

static void tell(struct eng_kv_host *h)
{
	void (*ready)(void *arg);
	void *arg;

	(void)pthread_mutex_lock(&h->lock);
	ready = h->ready;
	arg = h->ready_arg;
	(void)pthread_mutex_unlock(&h->lock);
	if (ready)
		ready(arg);
}

static void *work(void *arg)
{
	struct eng_kv_host *h = arg;

	(void)pthread_mutex_lock(&h->lock);
	for (;;) {
		uint32_t at;
		uint64_t sum;

		while (h->n_jobs == 0 && !h->is_stopping)
			(void)pthread_cond_wait(&h->work, &h->lock);
		if (h->is_stopping)
			break;
		at = h->jobs[h->first_job];
		h->first_job = (h->first_job + 1) % h->n_most;
		h->n_jobs--;
		(void)pthread_mutex_unlock(&h->lock);
		sum = eng_pc_page_sum(h->slots[at].page.bytes, h->config.page_bytes);
		(void)pthread_mutex_lock(&h->lock);
		finish_job(h, at, sum);
		(void)pthread_mutex_unlock(&h->lock);
		tell(h);
		(void)pthread_mutex_lock(&h->lock);
	}
	(void)pthread_mutex_unlock(&h->lock);
	return NULL;
}

static bool is_stopping(struct eng_kv_host *h)
{
	bool stopping;

	(void)pthread_mutex_lock(&h->lock);
	stopping = h->is_stopping;
	(void)pthread_mutex_unlock(&h->lock);
	return stopping;
}

/* All memory of the budget, a chunk after the other; then as the others. */
static void *grow_and_work(void *arg)
{
	struct eng_kv_host *h = arg;
	uint64_t bytes = h->config.page_bytes;
	uint32_t per_chunk = bytes < chunk_bytes ? (uint32_t)(chunk_bytes / bytes) : 1, n;

	for (uint32_t made = 0; made < h->n_most && !is_stopping(h); made += n) {
		uint8_t *chunk;

		n = h->n_most - made < per_chunk ? h->n_most - made : per_chunk;
		chunk = h->config.alloc(h->config.ctx, n * bytes);
		(void)pthread_mutex_lock(&h->lock);
		h->is_short = !chunk;
		if (chunk)
			h->chunks[h->n_chunks++] = chunk;
		for (uint32_t i = n; chunk && i > 0; i--) {
			h->slots[made + i - 1].page.bytes = chunk + (i - 1) * bytes;
			set_free(h, made + i - 1);
			h->n_slots++;
		}
		(void)pthread_mutex_unlock(&h->lock);
		if (!chunk)
			break;
		tell(h);
	}
	return work(h);
}

/* ---- Life ---- */

static int alloc_all(struct eng_kv_host *h)
{
	uint32_t n = h->n_most;

	h->n_buckets = 1;
	while (h->n_buckets < n && h->n_buckets < 1u << 31)
		h->n_buckets *= 2;
	h->slots = calloc(n, sizeof(*h->slots));
	h->ids = calloc(n, h->config.page_tokens * sizeof(*h->ids));
	h->free = calloc(n, sizeof(*h->free));
	h->jobs = calloc(n, sizeof(*h->jobs));
	h->chunks = calloc(n, sizeof(*h->chunks));
	h->buckets = malloc(h->n_buckets * sizeof(*h->buckets));
	if (!h->slots || !h->ids || !h->free || !h->jobs || !h->chunks || !h->buckets)
		return -ENOMEM;
	memset(h->buckets, 0xff, h->n_buckets * sizeof(*h->buckets)); /* NONE */
	for (uint32_t i = 0; i < n; i++)
		h->slots[i].page.ids = h->ids + (size_t)i * h->config.page_tokens;
	return 0;
}

int eng_kv_host_new(const struct eng_kv_host_config *config, struct eng_kv_host **ret_host, struct err *err)
{
	uint64_t n = config->page_bytes ? config->budget_bytes / config->page_bytes : 0;
	unsigned cores = base_cpu_count() / 2, n_workers;
	struct eng_kv_host *h;
	int r;

	if (n == 0)
		return err_set(err, -EINVAL, "the host cache of %llu bytes does not hold one page of %llu bytes",
		               (unsigned long long)config->budget_bytes, (unsigned long long)config->page_bytes);
	h = calloc(1, sizeof(*h));
	if (!h)
		return err_set(err, -ENOMEM, "out of memory");
	h->config = *config;
	h->n_most = n < NONE ? (uint32_t)n : NONE - 1;
	h->oldest = h->newest = NONE;
	(void)pthread_mutex_init(&h->lock, NULL);
	(void)pthread_cond_init(&h->work, NULL);
	r = alloc_all(h);
	n_workers = 1 + (cores < LEAST_SUMMING ? LEAST_SUMMING : cores > MOST_SUMMING ? MOST_SUMMING : cores);
	for (; r == 0 && h->n_workers < n_workers; h->n_workers += r == 0)
		r = -pthread_create(&h->workers[h->n_workers], NULL, h->n_workers ? work : grow_and_work, h);
	if (r < 0) {
		eng_kv_host_free(h);
		return err_set(err, r, "host cache: %s", strerror(-r));
	}
	for (uint32_t i = 0; i < h->n_workers; i++)
		(void)pthread_setname_np(h->workers[i], "eng-host");
	*ret_host = h;
	return 0;
}

void eng_kv_host_free(struct eng_kv_host *h)
{
	if (!h)
		return;
	(void)pthread_mutex_lock(&h->lock);
	h->is_stopping = true;
	(void)pthread_cond_broadcast(&h->work);
	(void)pthread_mutex_unlock(&h->lock);
	for (uint32_t i = 0; i < h->n_workers; i++)
		(void)pthread_join(h->workers[i], NULL);
	for (uint32_t i = 0; i < h->n_chunks; i++)
		h->config.free(h->config.ctx, h->chunks[i]);
	free(h->slots);
	free(h->ids);
	free(h->free);
	free(h->jobs);
	free(h->chunks);
	free(h->buckets);
	(void)pthread_mutex_destroy(&h->lock);
	(void)pthread_cond_destroy(&h->work);
	free(h);
}

void eng_kv_host_set_ready(struct eng_kv_host *h, void (*fn)(void *arg), void *arg)
{
	(void)pthread_mutex_lock(&h->lock);
	h->ready = fn;
	h->ready_arg = arg;
	(void)pthread_mutex_unlock(&h->lock);
}

void eng_kv_host_counts(struct eng_kv_host *h, struct eng_kv_host_counts *ret_counts)
{
	(void)pthread_mutex_lock(&h->lock);
	*ret_counts = (struct eng_kv_host_counts){ .n_free = h->n_free,
		                                   .n_cached = h->n_cached,
		                                   .n_used = h->n_slots - h->n_free - h->n_cached,
		                                   .n_slots = h->n_slots,
		                                   .n_given_up = h->n_given_up,
		                                   .n_damaged = h->n_damaged,
		                                   .bytes = h->n_slots * h->config.page_bytes,
		                                   .is_short = h->is_short };
	(void)pthread_mutex_unlock(&h->lock);
}

bool eng_kv_host_is_dead(struct eng_kv_host *h)
{
	bool dead;

	(void)pthread_mutex_lock(&h->lock);
	dead = h->is_short && h->n_slots == 0;
	(void)pthread_mutex_unlock(&h->lock);
	return dead;
}

/* ---- Slots ---- */

uint32_t eng_kv_host_find(struct eng_kv_host *h, const struct eng_pc_key *key)
{
	uint32_t at;

	(void)pthread_mutex_lock(&h->lock);
	at = find(h, key);
	(void)pthread_mutex_unlock(&h->lock);
	return at;
}

bool eng_kv_host_is_complete(struct eng_kv_host *h, uint32_t slot)
{
	bool complete;

	(void)pthread_mutex_lock(&h->lock);
	complete = h->slots[slot].state == SLOT_COMPLETE;
	(void)pthread_mutex_unlock(&h->lock);
	return complete;
}

void eng_kv_host_touch(struct eng_kv_host *h, uint32_t slot)
{
	(void)pthread_mutex_lock(&h->lock);
	if (h->slots[slot].is_known && h->slots[slot].state == SLOT_COMPLETE) {
		unlist(h, slot);
		list_newest(h, slot);
	}
	(void)pthread_mutex_unlock(&h->lock);
}

void eng_kv_host_page(struct eng_kv_host *h, uint32_t slot, struct eng_kv_host_page *ret_page)
{
	(void)pthread_mutex_lock(&h->lock);
	*ret_page = h->slots[slot].page;
	(void)pthread_mutex_unlock(&h->lock);
}

void eng_kv_host_set_saved(struct eng_kv_host *h, uint32_t slot, bool is_saved)
{
	(void)pthread_mutex_lock(&h->lock);
	h->slots[slot].page.is_saved = is_saved;
	(void)pthread_mutex_unlock(&h->lock);
}

void eng_kv_host_clear_from_disk(struct eng_kv_host *h, uint32_t slot)
{
	(void)pthread_mutex_lock(&h->lock);
	h->slots[slot].page.from_disk = false;
	(void)pthread_mutex_unlock(&h->lock);
}

/* Locked. The oldest that nobody holds becomes free. */
static void give_one_up(struct eng_kv_host *h)
{
	uint32_t at = h->oldest;

	while (at != NONE && h->slots[at].n_holders > 0)
		at = h->slots[at].newer;
	if (at == NONE)
		return;
	forget(h, at);
	h->n_given_up++;
}

uint32_t eng_kv_host_take(struct eng_kv_host *h, const struct eng_kv_host_page *page)
{
	uint32_t at = NONE, *bucket;

	(void)pthread_mutex_lock(&h->lock);
	assert(find(h, &page->key) == NONE);
	if (h->n_free == 0)
		give_one_up(h);
	if (h->n_free > 0) {
		struct slot *s;

		at = h->free[--h->n_free];
		s = &h->slots[at];
		bucket = bucket_of(h, &page->key);
		memcpy((int32_t *)s->page.ids, page->ids, h->config.page_tokens * sizeof(*page->ids));
		s->page.key = page->key;
		s->page.before = page->before;
		s->page.family = page->family;
		s->page.is_saved = page->is_saved;
		s->page.from_disk = page->from_disk;
		s->state = SLOT_FILLING;
		s->n_holders = 0;
		s->is_known = true;
		s->next = *bucket;
		*bucket = at;
	}
	(void)pthread_mutex_unlock(&h->lock);
	return at;
}

void eng_kv_host_filled(struct eng_kv_host *h, uint32_t slot, bool is_good)
{
	(void)pthread_mutex_lock(&h->lock);
	assert(h->slots[slot].state == SLOT_FILLING);
	if (is_good && h->slots[slot].is_known) {
		h->slots[slot].state = SLOT_SEALING;
		add_job(h, slot, JOB_SEAL);
	} else {
		forget(h, slot);
		set_free(h, slot);
	}
	(void)pthread_mutex_unlock(&h->lock);
}

void eng_kv_host_hold(struct eng_kv_host *h, uint32_t slot)
{
	(void)pthread_mutex_lock(&h->lock);
	assert(h->slots[slot].state == SLOT_COMPLETE && h->slots[slot].is_known);
	if (h->slots[slot].n_holders++ == 0)
		h->n_cached--;
	(void)pthread_mutex_unlock(&h->lock);
}

void eng_kv_host_release(struct eng_kv_host *h, uint32_t slot)
{
	struct slot *s = &h->slots[slot];

	(void)pthread_mutex_lock(&h->lock);
	assert(s->state == SLOT_COMPLETE && s->n_holders > 0);
	if (--s->n_holders == 0 && s->is_known)
		h->n_cached++;
	else if (s->n_holders == 0)
		set_free(h, slot);
	(void)pthread_mutex_unlock(&h->lock);
}

void eng_kv_host_compare(struct eng_kv_host *h, uint32_t slot)
{
	(void)pthread_mutex_lock(&h->lock);
	assert(h->slots[slot].n_holders > 0);
	if (h->slots[slot].job == JOB_NONE)
		add_job(h, slot, JOB_COMPARE);
	(void)pthread_mutex_unlock(&h->lock);
}

int eng_kv_host_compared(struct eng_kv_host *h, uint32_t slot)
{
	int r;

	(void)pthread_mutex_lock(&h->lock);
	r = h->slots[slot].job != JOB_NONE ? 0 : h->slots[slot].is_good ? 1 : -EBADMSG;
	(void)pthread_mutex_unlock(&h->lock);
	return r;
}

uint32_t eng_kv_host_unsaved(struct eng_kv_host *h, uint32_t *io_at, uint32_t *io_look)
{
	uint32_t found = NONE;

	(void)pthread_mutex_lock(&h->lock);
	for (; *io_look > 0 && found == NONE; (*io_look)--) {
		uint32_t at = *io_at < h->n_most ? *io_at : 0;
		const struct slot *s = &h->slots[at];

		*io_at = at + 1;
		if (s->state == SLOT_COMPLETE && s->is_known && !s->page.is_saved && s->page.family == 0)
			found = at;
	}
	(void)pthread_mutex_unlock(&h->lock);
	return found;
}

void eng_kv_host_flush(struct eng_kv_host *h)
{
	(void)pthread_mutex_lock(&h->lock);
	for (uint32_t i = 0; i < h->n_most; i++)
		forget(h, i);
	(void)pthread_mutex_unlock(&h->lock);
}

/* ---- Integrity ---- */

static int check_slot(const struct eng_kv_host *h, uint32_t at, struct err *err)
{
	const struct slot *s = &h->slots[at];
	bool is_free = s->state == SLOT_FREE || s->state == SLOT_NONE;

	if (is_free && (s->is_known || s->job != JOB_NONE))
		return err_set(err, -EIO, "host cache: slot %u is free and known, or being summed up", at);
	if (s->is_known && find(h, &s->page.key) != at)
		return err_set(err, -EIO, "host cache: slot %u is not found by its key", at);
	if (s->state != SLOT_COMPLETE && !is_free && s->n_holders > 0)
		return err_set(err, -EIO, "host cache: slot %u is held and not complete", at);
	if (s->state == SLOT_COMPLETE && s->n_holders == 0 && !s->is_known)
		return err_set(err, -EIO, "host cache: slot %u is lost", at);
	return 0;
}

int eng_kv_host_check(struct eng_kv_host *h, struct err *err)
{
	uint32_t n_free = 0, n_cached = 0, n_memory = 0, n_listed = 0, n_known = 0;
	int r = 0;

	(void)pthread_mutex_lock(&h->lock);
	for (uint32_t i = 0; i < h->n_most && r == 0; i++) {
		const struct slot *s = &h->slots[i];

		r = check_slot(h, i, err);
		n_free += s->state == SLOT_FREE;
		n_memory += s->state != SLOT_NONE;
		n_cached += s->state == SLOT_COMPLETE && s->n_holders == 0;
		n_known += s->state == SLOT_COMPLETE && s->is_known;
	}
	for (uint32_t at = h->oldest; at != NONE && n_listed <= h->n_most; at = h->slots[at].newer)
		n_listed++;
	if (r == 0 && (n_free != h->n_free || n_cached != h->n_cached || n_memory != h->n_slots || n_listed != n_known))
		r = err_set(
		        err, -EIO,
		        "host cache: of %u slots %u are free, counted %u; %u cached, counted %u; %u complete, %u in "
		        "the list",
		        n_memory, n_free, h->n_free, n_cached, h->n_cached, n_known, n_listed);
	(void)pthread_mutex_unlock(&h->lock);
	return r;
}
