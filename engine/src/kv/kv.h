/* The paged K/V pool: who holds which page, and the prefix tree of pages that can be used again. Knows no
 * backend: pages are numbers, the memory behind them belongs to the model's runner. Not thread-safe; the
 * scheduler's thread owns it. Nothing is allocated after eng_kv_pool_new() but a sequence's own page table.
 *
 * A page is
 *   free    on the free list
 *   used    held by a sequence: its own, or one of the tree's that it shares
 *   cached  in the tree and held by nobody; given up, least recently used leaves first, when free pages run out
 * Invariant, checked by eng_kv_pool_check(): free + cached + used = total.
 *
 * The tree: a node is one full page, its edge the page's tokens, so a path from the root of its family spells a
 * prefix of whole pages. Pages in the tree are never written again. Whoever holds a page holds all pages before it. */
#ifndef ENG_KV_H
#define ENG_KV_H

#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"

/* What a model's memory of a sequence can do; the scheduler plans by it. Models with attention only: pages,
 * matched and rewound at will. A model with recurrent layers keeps a state per sequence beside the pages and
 * copies (checkpoints) of it at some page ends: only prefixes that end at one can be taken over, and what was
 * added to the state cannot be taken out again, so nothing is fed that may have to be forgotten. */
struct eng_kv_traits {
	uint32_t page_tokens;
	uint32_t checkpoint_pages; /* prefixes are taken over in multiples of it; 0 and 1: any page's end */
	bool cannot_rewind;        /* no speculation */
	uint64_t page_bytes;       /* of one page in all layers, when pages can be copied out and in; 0: they cannot */
};

enum { ENG_KV_MAX_FAMILIES = 4096 };

struct eng_kv_pool;

struct eng_kv_seq {
	uint32_t *pages; /* page of token t is pages[t / page_tokens] */
	uint32_t n_pages, cap_pages;
	uint32_t n_tokens; /* tokens stored */
	uint32_t n_shared; /* the first pages, which are the tree's; not to be written */
	uint32_t family;   /* prefixes are shared within one family only: the same tokens under the same adapter */
};

struct eng_kv_counts {
	uint32_t n_free, n_cached, n_used, n_pages;
	uint64_t n_evicted, n_duplicates; /* so far; duplicates: computed twice and freed when that was seen */
};

int eng_kv_pool_new(uint32_t n_pages, uint32_t page_tokens, struct eng_kv_pool **ret_pool);
void eng_kv_pool_free(struct eng_kv_pool *pool);
uint32_t eng_kv_pool_page_tokens(const struct eng_kv_pool *pool);
void eng_kv_pool_counts(const struct eng_kv_pool *pool, struct eng_kv_counts *ret_counts);
/* Pages that a reservation can get: free and cached ones. */
uint32_t eng_kv_pool_n_available(const struct eng_kv_pool *pool);
/* The first run of free pages at or behind `from`; its length, 0 when there is none. */
uint32_t eng_kv_pool_free_run(const struct eng_kv_pool *pool, uint32_t from, uint32_t *ret_first);
int eng_kv_pool_check(const struct eng_kv_pool *pool, struct err *err);
/* Forgets every cached page. */
void eng_kv_pool_flush(struct eng_kv_pool *pool);

/* Room for n_tokens tokens in all; takes cached pages when no free ones are left. -ENOSPC leaves the sequence as
 * it was. */
int eng_kv_seq_reserve(struct eng_kv_pool *pool, struct eng_kv_seq *seq, uint32_t n_tokens);
/* Forgets the tokens from n_tokens on, and lets go of the pages that held only those. n_tokens is not inside a
 * shared page. */
void eng_kv_seq_truncate(struct eng_kv_pool *pool, struct eng_kv_seq *seq, uint32_t n_tokens);
/* Lets go of everything: own pages are free, shared ones stay cached. */
void eng_kv_seq_done(struct eng_kv_pool *pool, struct eng_kv_seq *seq);

/* ---- The prefix tree ---- */

/* Tokens of the longest known prefix of ids[0, n_ids), whole pages, in multiples of `align` pages. */
uint32_t eng_kv_pool_peek(const struct eng_kv_pool *pool, uint32_t family, const int32_t *ids, uint32_t n_ids,
                          uint32_t align);
/* Pages that a sequence of n_tokens tokens would take of those that are available, if it took over the known prefix
 * of ids[0, n_ids). */
uint32_t eng_kv_pool_need(const struct eng_kv_pool *pool, uint32_t family, const int32_t *ids, uint32_t n_ids,
                          uint32_t align, uint32_t n_tokens);
/* Takes hold of that prefix for an empty sequence; its n_tokens says how much. -ENOMEM leaves it empty. */
int eng_kv_seq_match(struct eng_kv_pool *pool, struct eng_kv_seq *seq, const int32_t *ids, uint32_t n_ids,
                     uint32_t align);
/* Puts the sequence's full pages of its first n tokens, which are ids, into the tree, still held. A page whose tokens
 * the tree has already is freed, and the sequence goes on with the tree's. */
void eng_kv_seq_publish(struct eng_kv_pool *pool, struct eng_kv_seq *seq, const int32_t *ids, uint32_t n);

/* ---- For whoever keeps copies of the tree's pages elsewhere ---- */

enum { ENG_KV_NO_PAGE = UINT32_MAX };

/* A page of the tree (of family 0) whose copy was not asked for yet (see _set_saved) while that of the page before it
 * was, and which was taken over by at least min_hits sequences; ENG_KV_NO_PAGE: none. */
uint32_t eng_kv_pool_unsaved(const struct eng_kv_pool *pool, uint32_t min_hits);
void eng_kv_page_set_saved(struct eng_kv_pool *pool, uint32_t page);
const int32_t *eng_kv_page_ids(const struct eng_kv_pool *pool, uint32_t page); /* [page_tokens], borrowed */
/* The page before it in its prefix; ENG_KV_NO_PAGE for the first. */
uint32_t eng_kv_page_parent(const struct eng_kv_pool *pool, uint32_t page);

#endif
