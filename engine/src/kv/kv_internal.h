/* Shared by kv.c (pages and sequences), prefix.c (the tree) and state.c (slots for recurrent states). */
#ifndef ENG_KV_INTERNAL_H
#define ENG_KV_INTERNAL_H

#include "kv/kv.h"

enum page_state { PAGE_FREE, PAGE_OWN, PAGE_TREE, PAGE_HELD, PAGE_PINNED /* and given back */ };

enum { NOT_IN_HEAP = UINT32_MAX };

/* One per page; what is below is_pinned counts for PAGE_TREE only. */
struct page {
	uint8_t state;
	bool is_saved;
	bool is_pinned; /* PAGE_OWN and PAGE_PINNED */
	uint32_t family;
	uint32_t hits;         /* sequences that took it over */
	uint32_t parent, next; /* page numbers; next: in the hash chain */
	uint32_t hash;
	uint32_t n_children, n_holders;
	uint32_t heap_at;    /* leaves that nobody holds are in the heap */
	uint64_t last_use;   /* never older than a child's */
	uint32_t checkpoint; /* slot; 0: none */
};

enum slot_use { SLOT_FREE, SLOT_RUNNING, SLOT_CHECKPOINT };

struct slot {
	uint8_t use;
	bool is_used;      /* a checkpoint that a sequence has begun with */
	uint32_t page;     /* of a checkpoint */
	uint64_t last_use; /* of a checkpoint */
};

struct eng_kv_pool {
	uint32_t n_pages, page_tokens;
	uint32_t n_free, n_cached;
	uint32_t *free; /* [n_pages], the first n_free are free */
	uint32_t *held; /* [n_pages], the first n_held were given back while a step may still use them */
	uint32_t n_held;
	bool is_holding;
	struct page *pages;
	int32_t *ids;      /* [n_pages][page_tokens], the tree's edges */
	uint32_t *buckets; /* [n_buckets], a power of two; first page of a chain */
	uint32_t n_buckets;
	uint32_t *heap; /* [n_heap], least recently used first */
	uint32_t n_heap;
	uint64_t clock;
	uint64_t n_evicted, n_duplicates;
	struct eng_kv_hooks hooks;
	struct eng_pc_key identity;
	struct eng_pc_key *keys; /* [n_pages], all zero: not known; NULL: nobody asks for keys */

	uint32_t n_states, n_free_states, n_checkpoints;
	struct slot *slots;    /* [n_states + 1], from 1 on */
	uint32_t *free_states; /* [n_states], the first n_free_states are free */
	uint64_t n_checkpoints_lost;
};

/* prefix.c */
void eng_kv_tree_release(struct eng_kv_pool *pool, uint32_t page);
/* Takes the least recently used leaf out of the tree and returns it; there is one while n_cached > 0. */
uint32_t eng_kv_tree_evict(struct eng_kv_pool *pool);
int eng_kv_tree_check(const struct eng_kv_pool *pool, struct err *err);

/* state.c */
/* The page leaves the tree. */
void eng_kv_state_forget(struct eng_kv_pool *pool, uint32_t page);
void eng_kv_state_release(struct eng_kv_pool *pool, struct eng_kv_seq *seq);
int eng_kv_state_check(const struct eng_kv_pool *pool, struct err *err);

/* kv.c */
void eng_kv_page_give_back(struct eng_kv_pool *pool, uint32_t page);
int eng_kv_seq_grow(const struct eng_kv_pool *pool, struct eng_kv_seq *seq, uint32_t n_pages);

#endif
