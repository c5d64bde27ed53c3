/* Pages are handed out from a stack of free numbers; a bitmap of what is free makes a page that is
 * returned twice an error that eng_kv_pool_check() sees instead of silent sharing. */
#include "kv/kv.h"

#include <assert.h>
#include <errno.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

struct eng_kv_pool {
	uint32_t n_pages, page_tokens;
	uint32_t n_free;
	uint32_t *free; /* [n_pages], the first n_free are free */
	bool *is_free;  /* [n_pages] */
};

int eng_kv_pool_new(uint32_t n_pages, uint32_t page_tokens, struct eng_kv_pool **ret_pool)
{
	struct eng_kv_pool *pool;

	if (n_pages == 0 || page_tokens == 0)
		return -EINVAL;
	pool = calloc(1, sizeof(*pool));
	if (!pool)
		return -ENOMEM;
	pool->free = calloc(n_pages, sizeof(*pool->free));
	pool->is_free = calloc(n_pages, sizeof(*pool->is_free));
	if (!pool->free || !pool->is_free) {
		eng_kv_pool_free(pool);
		return -ENOMEM;
	}
	pool->n_pages = pool->n_free = n_pages;
	pool->page_tokens = page_tokens;
	for (uint32_t i = 0; i < n_pages; i++) {
		pool->free[i] = n_pages - 1 - i; /* page 0 first */
		pool->is_free[i] = true;
	}
	*ret_pool = pool;
	return 0;
}

void eng_kv_pool_free(struct eng_kv_pool *pool)
{
	if (!pool)
		return;
	free(pool->free);
	free(pool->is_free);
	free(pool);
}

uint32_t eng_kv_pool_page_tokens(const struct eng_kv_pool *pool)
{
	return pool->page_tokens;
}

uint32_t eng_kv_pool_n_free(const struct eng_kv_pool *pool)
{
	return pool->n_free;
}

uint32_t eng_kv_pool_n_pages(const struct eng_kv_pool *pool)
{
	return pool->n_pages;
}

int eng_kv_pool_check(const struct eng_kv_pool *pool, struct err *err)
{
	uint32_t n_marked = 0;

	for (uint32_t i = 0; i < pool->n_pages; i++)
		n_marked += pool->is_free[i];
	if (n_marked != pool->n_free)
		return err_set(err, -EIO, "K/V pool: %u pages on the free list, %u marked free", pool->n_free,
		               n_marked);
	for (uint32_t i = 0; i < pool->n_free; i++) {
		if (pool->free[i] >= pool->n_pages || !pool->is_free[pool->free[i]])
			return err_set(err, -EIO, "K/V pool: page %u is on the free list but in use", pool->free[i]);
	}
	return 0;
}

static uint32_t pages_for(const struct eng_kv_pool *pool, uint32_t n_tokens)
{
	return n_tokens / pool->page_tokens + (n_tokens % pool->page_tokens != 0);
}

/* Doubles, so that decoding one token at a time rarely comes here. */
static int grow_table(const struct eng_kv_pool *pool, struct eng_kv_seq *seq, uint32_t n_pages)
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

int eng_kv_seq_reserve(struct eng_kv_pool *pool, struct eng_kv_seq *seq, uint32_t n_tokens)
{
	uint32_t n_pages = pages_for(pool, n_tokens);
	int r;

	if (n_pages > seq->n_pages) {
		if (n_pages - seq->n_pages > pool->n_free)
			return -ENOSPC;
		r = grow_table(pool, seq, n_pages);
		if (r < 0)
			return r;
	}
	while (seq->n_pages < n_pages) {
		uint32_t page = pool->free[--pool->n_free];

		pool->is_free[page] = false;
		seq->pages[seq->n_pages++] = page;
	}
	return 0;
}

void eng_kv_seq_truncate(struct eng_kv_pool *pool, struct eng_kv_seq *seq, uint32_t n_tokens)
{
	uint32_t keep = pages_for(pool, n_tokens);

	while (seq->n_pages > keep) {
		uint32_t page = seq->pages[--seq->n_pages];

		assert(page < pool->n_pages && !pool->is_free[page] && pool->n_free < pool->n_pages);
		pool->is_free[page] = true;
		pool->free[pool->n_free++] = page;
	}
	if (seq->n_tokens > n_tokens)
		seq->n_tokens = n_tokens;
}

void eng_kv_seq_done(struct eng_kv_pool *pool, struct eng_kv_seq *seq)
{
	eng_kv_seq_truncate(pool, seq, 0);
	free(seq->pages);
	memset(seq, 0, sizeof(*seq));
}
