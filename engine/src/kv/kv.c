/* Pages are handed out from a stack of free numbers, then from the tree's least recently used leaves; a state
 * per page makes one that is returned twice an error that eng_kv_pool_check() sees instead of silent sharing. */
#include "kv/kv.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "kv/kv_internal.h"

static uint32_t bucket_count(uint32_t n_pages)
{
	uint32_t n = 1;

	while (n < n_pages && n < 1u << 31)
		n *= 2;
	return n;
}

int eng_kv_pool_new(uint32_t n_pages, uint32_t page_tokens, struct eng_kv_pool **ret_pool)
{
	struct eng_kv_pool *pool;

	if (n_pages == 0 || page_tokens == 0 || n_pages > ENG_KV_NO_PAGE - ENG_KV_MAX_FAMILIES)
		return -EINVAL;
	pool = calloc(1, sizeof(*pool));
	if (!pool)
		return -ENOMEM;
	pool->n_buckets = bucket_count(n_pages);
	pool->free = calloc(n_pages, sizeof(*pool->free));
	pool->held = calloc(n_pages, sizeof(*pool->held));
	pool->pages = calloc(n_pages, sizeof(*pool->pages));
	pool->ids = calloc(n_pages, page_tokens * sizeof(*pool->ids));
	pool->buckets = calloc(pool->n_buckets, sizeof(*pool->buckets));
	pool->heap = calloc(n_pages, sizeof(*pool->heap));
	if (!pool->free || !pool->held || !pool->pages || !pool->ids || !pool->buckets || !pool->heap) {
		eng_kv_pool_free(pool);
		return -ENOMEM;
	}
	pool->n_pages = pool->n_free = n_pages;
	pool->page_tokens = page_tokens;
	for (uint32_t i = 0; i < n_pages; i++)
		pool->free[i] = n_pages - 1 - i; /* page 0 first */
	for (uint32_t i = 0; i < pool->n_buckets; i++)
		pool->buckets[i] = ENG_KV_NO_PAGE;
	*ret_pool = pool;
	return 0;
}

void eng_kv_pool_free(struct eng_kv_pool *pool)
{
	if (!pool)
		return;
	free(pool->free);
	free(pool->held);
	free(pool->pages);
	free(pool->ids);
	free(pool->buckets);
	free(pool->heap);
	free(pool->keys);
	free(pool->slots);
	free(pool->free_states);
	free(pool);
}

void eng_kv_pool_counts(const struct eng_kv_pool *pool, struct eng_kv_counts *ret_counts)
{
	*ret_counts =
	        (struct eng_kv_counts){ .n_free = pool->n_free,
		                        .n_cached = pool->n_cached,
		                        .n_used = pool->n_pages - pool->n_free - pool->n_cached,
		                        .n_pages = pool->n_pages,
		                        .n_evicted = pool->n_evicted,
		                        .n_duplicates = pool->n_duplicates,
		                        .n_states = pool->n_states,
		                        .n_running_states = pool->n_states - pool->n_free_states - pool->n_checkpoints,
		                        .n_checkpoints = pool->n_checkpoints,
		                        .n_checkpoints_lost = pool->n_checkpoints_lost };
}

uint32_t eng_kv_pool_n_available(const struct eng_kv_pool *pool)
{
	return pool->n_free + pool->n_cached;
}

uint32_t eng_kv_pool_free_run(const struct eng_kv_pool *pool, uint32_t from, uint32_t *ret_first)
{
	uint32_t n = 0;

	while (from < pool->n_pages && pool->pages[from].state != PAGE_FREE)
		from++;
	*ret_first = from;
	while (from + n < pool->n_pages && pool->pages[from + n].state == PAGE_FREE)
		n++;
	return n;
}

int eng_kv_pool_check(const struct eng_kv_pool *pool, struct err *err)
{
	uint32_t n_marked = 0;
	int r;

	for (uint32_t i = 0; i < pool->n_pages; i++)
		n_marked += pool->pages[i].state == PAGE_FREE;
	if (n_marked != pool->n_free)
		return err_set(err, -EIO, "K/V pool: %u pages on the free list, %u marked free", pool->n_free,
		               n_marked);
	for (uint32_t i = 0; i < pool->n_free; i++) {
		if (pool->free[i] >= pool->n_pages || pool->pages[pool->free[i]].state != PAGE_FREE)
			return err_set(err, -EIO, "K/V pool: page %u is on the free list but in use", pool->free[i]);
	}
	r = eng_kv_tree_check(pool, err);
	return r < 0 ? r : eng_kv_state_check(pool, err);
}

static uint32_t pages_for(const struct eng_kv_pool *pool, uint32_t n_tokens)
{
	return n_tokens / pool->page_tokens + (n_tokens % pool->page_tokens != 0);
}

/* Doubles, so that decoding one token at a time rarely comes here. */
int eng_kv_seq_grow(const struct eng_kv_pool *pool, struct eng_kv_seq *seq, uint32_t n_pages)
{
	uint32_t cap = seq->cap_pages ? seq->cap_pages : 8;
	uint32_t *pages;

	if (n_pages <= seq->cap_pages)
		return 0;
	while (cap < n_pages)
		cap = cap > UINT32_MAX / 2 ? n_pages : cap * 2;
	if (cap > pool->n_pages)
		cap = pool->n_pages;
	pages = realloc(seq->pages, cap * sizeof(*pages));
	if (!pages)
		return -ENOMEM;
	seq->pages = pages;
	seq->cap_pages = cap;
	return 0;
}

static uint32_t take_page(struct eng_kv_pool *pool)
{
	bool is_free = pool->n_free > 0;
	uint32_t page = is_free ? pool->free[--pool->n_free] : eng_kv_tree_evict(pool);

	if (!is_free && pool->hooks.evicted)
		pool->hooks.evicted(pool->hooks.ctx, page);
	pool->pages[page] = (struct page){ .state = PAGE_OWN };
	return page;
}

static void set_free(struct eng_kv_pool *pool, uint32_t page)
{
	pool->pages[page].state = PAGE_FREE;
	pool->free[pool->n_free++] = page;
}

void eng_kv_page_give_back(struct eng_kv_pool *pool, uint32_t page)
{
	assert(page < pool->n_pages && pool->n_free < pool->n_pages);
	assert(pool->pages[page].state == PAGE_OWN || pool->pages[page].state == PAGE_TREE);
	if (pool->pages[page].state == PAGE_OWN && pool->pages[page].is_pinned) {
		pool->pages[page].state = PAGE_PINNED;
	} else if (pool->is_holding) {
		pool->pages[page].state = PAGE_HELD;
		pool->held[pool->n_held++] = page;
	} else {
		set_free(pool, page);
	}
}

void eng_kv_page_pin(struct eng_kv_pool *pool, uint32_t page)
{
	assert(pool->pages[page].state == PAGE_OWN && !pool->pages[page].is_pinned);
	pool->pages[page].is_pinned = true;
}

void eng_kv_page_unpin(struct eng_kv_pool *pool, uint32_t page)
{
	assert(pool->pages[page].is_pinned);
	pool->pages[page].is_pinned = false;
	if (pool->pages[page].state == PAGE_PINNED) /* no step ever saw it */
		set_free(pool, page);
}

void eng_kv_pool_set_hooks(struct eng_kv_pool *pool, const struct eng_kv_hooks *hooks)
{
	pool->hooks = *hooks;
}

void eng_kv_pool_hold(struct eng_kv_pool *pool, bool hold)
{
	pool->is_holding = hold;
}

void eng_kv_pool_let_go(struct eng_kv_pool *pool)
{
	while (pool->n_held > 0)
		set_free(pool, pool->held[--pool->n_held]);
}

int eng_kv_seq_reserve(struct eng_kv_pool *pool, struct eng_kv_seq *seq, uint32_t n_tokens)
{
	uint32_t n_pages = pages_for(pool, n_tokens);
	int r;

	if (n_pages <= seq->n_pages)
		return 0;
	if (n_pages - seq->n_pages > eng_kv_pool_n_available(pool))
		return -ENOSPC;
	r = eng_kv_seq_grow(pool, seq, n_pages);
	if (r < 0)
		return r;
	while (seq->n_pages < n_pages)
		seq->pages[seq->n_pages++] = take_page(pool);
	return 0;
}

void eng_kv_seq_truncate(struct eng_kv_pool *pool, struct eng_kv_seq *seq, uint32_t n_tokens)
{
	uint32_t keep = pages_for(pool, n_tokens);

	assert(n_tokens >= (uint64_t)seq->n_shared * pool->page_tokens || n_tokens % pool->page_tokens == 0);
	pool->clock++;
	while (seq->n_pages > keep) {
		uint32_t page = seq->pages[--seq->n_pages];

		if (seq->n_pages < seq->n_shared) {
			eng_kv_tree_release(pool, page);
			seq->n_shared--;
		} else {
			eng_kv_page_give_back(pool, page);
		}
	}
	if (seq->n_tokens > n_tokens)
		seq->n_tokens = n_tokens;
}

void eng_kv_seq_done(struct eng_kv_pool *pool, struct eng_kv_seq *seq)
{
	eng_kv_seq_truncate(pool, seq, 0);
	eng_kv_state_release(pool, seq);
	free(seq->pages);
	memset(seq, 0, sizeof(*seq));
}
