/* The paged K/V pool: who holds which page. Knows no backend: pages are numbers, the memory behind them
 * belongs to the model's runner. Not thread-safe; the scheduler's thread owns it.
 * Invariant, checked by eng_kv_pool_check(): free + used = total. */
#ifndef ENG_KV_H
#define ENG_KV_H

#include <stdint.h>

#include "base/err.h"

struct eng_kv_pool;

struct eng_kv_seq {
	uint32_t *pages; /* page of token t is pages[t / page_tokens] */
	uint32_t n_pages, cap_pages;
	uint32_t n_tokens; /* tokens stored */
};

int eng_kv_pool_new(uint32_t n_pages, uint32_t page_tokens, struct eng_kv_pool **ret_pool);
void eng_kv_pool_free(struct eng_kv_pool *pool);
uint32_t eng_kv_pool_page_tokens(const struct eng_kv_pool *pool);
uint32_t eng_kv_pool_n_free(const struct eng_kv_pool *pool);
uint32_t eng_kv_pool_n_pages(const struct eng_kv_pool *pool);
int eng_kv_pool_check(const struct eng_kv_pool *pool, struct err *err);

/* Room for n_tokens tokens in all. -ENOSPC leaves the sequence as it was. */
int eng_kv_seq_reserve(struct eng_kv_pool *pool, struct eng_kv_seq *seq, uint32_t n_tokens);
/* Forgets the tokens from n_tokens on, and frees the pages that held only those. */
void eng_kv_seq_truncate(struct eng_kv_pool *pool, struct eng_kv_seq *seq, uint32_t n_tokens);
void eng_kv_seq_done(struct eng_kv_pool *pool, struct eng_kv_seq *seq);

#endif
