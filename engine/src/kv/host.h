/* Pages of K and V in host memory, behind the pool of a backend that has memory of its own: what the pool gives up is
 * copied here, and comes back when its prefix is asked for again. Knows no backend: memory comes from a function, and
 * whoever owns it copies.
 *
 * A slot is memory for one page, which is known by its key (kv.h). It is
 *   free    on a list
 *   used    being filled, sealed, or held by somebody who reads it
 *   cached  complete, and read by nobody; given up, least recently used first, when a slot is needed
 * Invariant, checked by eng_kv_host_check(): free + cached + used = total. The total grows to the budget while memory
 * comes, which a thread of its own asks for, since pinning gigabytes takes seconds; where there is no more, it stays.
 *
 * A page is sealed by a sum over its bytes when it has come, and compared with it when it goes back, beside the copy.
 *
 * Functions may be called by any thread, but one at a time decides what is filled, read and given up. */
#ifndef ENG_KV_HOST_H
#define ENG_KV_HOST_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "promptcache/page_file.h"

struct eng_kv_host;

struct eng_kv_host_config {
	uint64_t budget_bytes, page_bytes;
	uint32_t page_tokens;
	/* alloc comes from the tier's thread; NULL: there is no more memory. */
	void *(*alloc)(void *ctx, size_t bytes);
	void (*free)(void *ctx, void *p);
	void *ctx;
};

enum { ENG_KV_NO_SLOT = UINT32_MAX };

struct eng_kv_host_counts {
	uint32_t n_free, n_cached, n_used, n_slots;
	uint64_t n_given_up, n_damaged; /* so far */
	uint64_t bytes;                 /* of all slots */
	bool is_short;                  /* memory ended before the budget did */
};

/* What a slot holds. */
struct eng_kv_host_page {
	struct eng_pc_key key, before;
	uint32_t family;
	const int32_t *ids; /* [page_tokens], until the slot is given up */
	uint8_t *bytes;     /* [page_bytes], likewise */
	bool is_saved;      /* somebody keeps a copy elsewhere, or was asked to */
	bool from_disk;
};

/* -EINVAL: the budget holds no page. */
int eng_kv_host_new(const struct eng_kv_host_config *config, struct eng_kv_host **ret_host, struct err *err);
void eng_kv_host_free(struct eng_kv_host *h);
/* fn is called, on a thread of the tier's, when memory came and when a page was sealed or compared. */
void eng_kv_host_set_ready(struct eng_kv_host *h, void (*fn)(void *arg), void *arg);
void eng_kv_host_counts(struct eng_kv_host *h, struct eng_kv_host_counts *ret_counts);
/* There was no memory at all. */
bool eng_kv_host_is_dead(struct eng_kv_host *h);
int eng_kv_host_check(struct eng_kv_host *h, struct err *err);
/* Forgets every page; slots that are in use are free when they are let go. */
void eng_kv_host_flush(struct eng_kv_host *h);

/* The slot that has a page, or will have it; ENG_KV_NO_SLOT: none. */
uint32_t eng_kv_host_find(struct eng_kv_host *h, const struct eng_pc_key *key);
bool eng_kv_host_is_complete(struct eng_kv_host *h, uint32_t slot);
/* It was used now. Who uses a prefix uses its last page first: so its end goes before its beginning. */
void eng_kv_host_touch(struct eng_kv_host *h, uint32_t slot);
void eng_kv_host_page(struct eng_kv_host *h, uint32_t slot, struct eng_kv_host_page *ret_page);
void eng_kv_host_set_saved(struct eng_kv_host *h, uint32_t slot, bool is_saved);
/* Its page was read from disk and has now been of use. */
void eng_kv_host_clear_from_disk(struct eng_kv_host *h, uint32_t slot);

/* A slot to be filled with the page of this key, which none has: of `page` all but bytes is heeded. ENG_KV_NO_SLOT: all
 * are in use. */
uint32_t eng_kv_host_take(struct eng_kv_host *h, const struct eng_kv_host_page *page);
/* Its bytes are there, or will not come: then it is free. */
void eng_kv_host_filled(struct eng_kv_host *h, uint32_t slot, bool is_good);

/* Holds a complete page: it stays. */
void eng_kv_host_hold(struct eng_kv_host *h, uint32_t slot);
void eng_kv_host_release(struct eng_kv_host *h, uint32_t slot);
/* Begins to compare a held page with its sum. 1: it is as it was; 0: not known yet; -EBADMSG: it is not, and nobody
 * will find it any more. */
void eng_kv_host_compare(struct eng_kv_host *h, uint32_t slot);
int eng_kv_host_compared(struct eng_kv_host *h, uint32_t slot);

/* The next complete page of family 0 that nobody saved, among at most *io_look slots from *io_at on; both go on by the
 * slots that were looked at. */
uint32_t eng_kv_host_unsaved(struct eng_kv_host *h, uint32_t *io_at, uint32_t *io_look);

#endif
