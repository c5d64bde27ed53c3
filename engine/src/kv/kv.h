/* The paged K/V pool: who holds which page, and the prefix tree of pages that can be used again. Knows no
 * backend: pages are numbers, the memory behind them belongs to the model's runner. Not thread-safe; the
 * scheduler's thread owns it. Nothing is allocated after eng_kv_pool_new() but a sequence's own page table.
 *
 * A page is
 *   free    on the free list
 *   used    held by a sequence: its own, or one of the tree's that it shares; or by a step (eng_kv_pool_hold()), or
 *           given back while something is copied into it (eng_kv_page_pin())
 *   cached  in the tree and held by nobody; given up, least recently used leaves first, when free pages run out
 * Invariant, checked by eng_kv_pool_check(): free + cached + used = total.
 *
 * The tree: a node is one full page, its edge the page's tokens, so a path from the root of its family spells a
 * prefix of whole pages. Pages in the tree are never written again. Whoever holds a page holds all pages before it.
 *
 * Models with recurrent layers keep a state per sequence beside the pages, which cannot be cut back to an earlier
 * token. The pool hands out slots for states, too (their memory is the runner's as well). A slot is
 *   free        on a list of its own
 *   running     a sequence's, also for a copy in the making
 *   checkpoint  a copy of a sequence's state as it was at the end of a page of the tree; given up with its page, or
 *               least recently used first when no slot is free
 * and only prefixes that end at a checkpoint are known. Invariant, checked too: free + running + checkpoints = slots.
 */
#ifndef ENG_KV_H
#define ENG_KV_H

#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"
#include "promptcache/page_file.h"

/* What a model's memory of a sequence can do; the scheduler plans by it. Models with attention only: pages,
 * matched and rewound at will. A model with recurrent layers: what was added to the state cannot be taken out again,
 * so nothing is fed that may have to be forgotten. */
struct eng_kv_traits {
	uint32_t page_tokens;
	uint32_t n_states;         /* slots for recurrent states; 0: the model has no recurrent layers */
	uint32_t checkpoint_pages; /* with them: prompts leave a checkpoint every so many pages, beside their end */
	bool keeps_in_step;        /* a step can leave a copy of the state as it was in its middle */
	bool cannot_rewind;        /* no speculation */
	uint64_t page_bytes;       /* of one page in all layers, when pages can be copied out and in; 0: they cannot */
};

enum { ENG_KV_MAX_FAMILIES = 4096 };

struct eng_kv_pool;

struct eng_kv_seq {
	uint32_t *pages; /* page of token t is pages[t / page_tokens] */
	uint32_t n_pages, cap_pages;
	uint32_t n_tokens;      /* tokens stored */
	uint32_t n_shared;      /* the first pages, which are the tree's; not to be written */
	uint32_t family;        /* prefixes are shared within one family only: the same tokens under the same adapter */
	uint32_t state;         /* its slot, from 1 on; 0: none */
	uint32_t keep;          /* slot for a checkpoint in the making; 0: none */
	uint32_t n_provisional; /* pages before its last provisional checkpoint; 0: none */
};

struct eng_kv_counts {
	uint32_t n_free, n_cached, n_used, n_pages;
	uint64_t n_evicted, n_duplicates; /* so far; duplicates: computed twice and freed when that was seen */
	uint32_t n_states, n_running_states, n_checkpoints;
	uint64_t n_checkpoints_lost; /* so far: given up for another one, their pages still there */
};

int eng_kv_pool_new(uint32_t n_pages, uint32_t page_tokens, struct eng_kv_pool **ret_pool);
void eng_kv_pool_free(struct eng_kv_pool *pool);
/* For models with recurrent layers, before anything else: slots 1 to n_states. */
int eng_kv_pool_add_states(struct eng_kv_pool *pool, uint32_t n_states);
void eng_kv_pool_counts(const struct eng_kv_pool *pool, struct eng_kv_counts *ret_counts);
/* Pages that a reservation can get: free and cached ones. */
uint32_t eng_kv_pool_n_available(const struct eng_kv_pool *pool);
/* The first run of free pages at or behind `from`; its length, 0 when there is none. */
uint32_t eng_kv_pool_free_run(const struct eng_kv_pool *pool, uint32_t from, uint32_t *ret_first);
int eng_kv_pool_check(const struct eng_kv_pool *pool, struct err *err);
/* Forgets every cached page. */
void eng_kv_pool_flush(struct eng_kv_pool *pool);
/* While a step is computed that may read or write them, pages that are given back count as used and nobody gets them.
 * let_go() frees those that were held so far. */
void eng_kv_pool_hold(struct eng_kv_pool *pool, bool hold);
void eng_kv_pool_let_go(struct eng_kv_pool *pool);
/* Something is written into a sequence's own page beside the steps: given back, it stays used until it is unpinned.
 * Not to be published before. */
void eng_kv_page_pin(struct eng_kv_pool *pool, uint32_t page);
void eng_kv_page_unpin(struct eng_kv_pool *pool, uint32_t page);

/* Room for n_tokens tokens in all; takes cached pages when no free ones are left. -ENOSPC leaves the sequence as
 * it was. */
int eng_kv_seq_reserve(struct eng_kv_pool *pool, struct eng_kv_seq *seq, uint32_t n_tokens);
/* Forgets the tokens from n_tokens on, and lets go of the pages that held only those. n_tokens is not inside a
 * shared page. */
void eng_kv_seq_truncate(struct eng_kv_pool *pool, struct eng_kv_seq *seq, uint32_t n_tokens);
/* Lets go of everything: own pages are free, shared ones stay cached. */
void eng_kv_seq_done(struct eng_kv_pool *pool, struct eng_kv_seq *seq);

/* ---- The prefix tree ---- */

/* Tokens of the longest known prefix of ids[0, n_ids), whole pages. */
uint32_t eng_kv_pool_peek(const struct eng_kv_pool *pool, uint32_t family, const int32_t *ids, uint32_t n_ids);
/* The same as if there were a checkpoint at every page's end: where a prompt leaves what others have computed. */
uint32_t eng_kv_pool_peek_pages(const struct eng_kv_pool *pool, uint32_t family, const int32_t *ids, uint32_t n_ids);
/* Pages that a sequence of n_tokens tokens would take of those that are available, if it took over the known prefix
 * of ids[0, n_ids). */
uint32_t eng_kv_pool_need(const struct eng_kv_pool *pool, uint32_t family, const int32_t *ids, uint32_t n_ids,
                          uint32_t n_tokens);
/* Takes hold of that prefix for an empty sequence; its n_tokens says how much. -ENOMEM leaves it empty. */
int eng_kv_seq_match(struct eng_kv_pool *pool, struct eng_kv_seq *seq, const int32_t *ids, uint32_t n_ids);
/* Puts the sequence's full pages of its first n tokens, which are ids, into the tree, still held. A page whose tokens
 * the tree has already is freed, and the sequence goes on with the tree's. */
void eng_kv_seq_publish(struct eng_kv_pool *pool, struct eng_kv_seq *seq, const int32_t *ids, uint32_t n);

/* ---- Recurrent states ---- */

/* A slot for a sequence that has its prefix. *ret_from: the slot whose content has to be copied there before the
 * sequence's next token and before anything else is asked of the pool; 0: nothing, the sequence begins. It may be the
 * sequence's own. -ENOSPC: all slots are running. */
int eng_kv_seq_take_state(struct eng_kv_pool *pool, struct eng_kv_seq *seq, uint32_t *ret_from);
/* A slot to which a copy of the sequence's state will be written, as it is at the end of a page to come; 0: none can be
 * had. It is the sequence's until _checkpoint(). A provisional checkpoint that the sequence made before is given up,
 * unless another sequence has begun with it. */
uint32_t eng_kv_seq_keep(struct eng_kv_pool *pool, struct eng_kv_seq *seq);
/* The slot has it: the state after the sequence's first n pages, which are in the tree by now. The slot is given back
 * if the tree has that checkpoint already. */
void eng_kv_seq_checkpoint(struct eng_kv_pool *pool, struct eng_kv_seq *seq, uint32_t n, bool provisional);

/* ---- For whoever keeps copies of the tree's pages elsewhere ---- */

enum { ENG_KV_NO_PAGE = UINT32_MAX };

/* Pages of the tree get keys, by which copies are known: of the tokens up to a page's end, under this identity. While
 * the tree is empty, again for another one. */
int eng_kv_pool_set_keys(struct eng_kv_pool *pool, const struct eng_pc_key *identity);
/* That of a family's empty prefix; and of a prefix continued by one page. */
void eng_kv_key_root(uint32_t family, struct eng_pc_key *ret_key);
int eng_kv_key_next(const struct eng_kv_pool *pool, const struct eng_pc_key *before, const int32_t *ids,
                    struct eng_pc_key *ret_key);
/* Of a page of the tree, borrowed until it is given up, and of what is before it; NULL: there was no memory for it. */
const struct eng_pc_key *eng_kv_page_key(const struct eng_kv_pool *pool, uint32_t page, struct eng_pc_key *ret_before);

/* Told of pages that came into the tree, and of those that were given up for others (not by a flush), whose tokens, key
 * and content are there until the function returns; nothing is asked of the pool meanwhile but these. */
struct eng_kv_hooks {
	void *ctx;
	void (*published)(void *ctx, uint32_t page);
	void (*evicted)(void *ctx, uint32_t page);
};
void eng_kv_pool_set_hooks(struct eng_kv_pool *pool, const struct eng_kv_hooks *hooks);

/* A page of the tree (of family 0) whose copy was not asked for yet (see _set_saved) while that of the page before it
 * was, and which was taken over by at least min_hits sequences; ENG_KV_NO_PAGE: none. */
uint32_t eng_kv_pool_unsaved(const struct eng_kv_pool *pool, uint32_t min_hits);
void eng_kv_page_set_saved(struct eng_kv_pool *pool, uint32_t page);
bool eng_kv_page_is_saved(const struct eng_kv_pool *pool, uint32_t page);
const int32_t *eng_kv_page_ids(const struct eng_kv_pool *pool, uint32_t page); /* [page_tokens], borrowed */
/* The family that a page of the tree belongs to. */
uint32_t eng_kv_page_family(const struct eng_kv_pool *pool, uint32_t page);

#endif
