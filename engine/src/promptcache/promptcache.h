/* Pages of K and V on disk, by what they are the K and V of: they survive the process. A folder per model and
 * precision inside the cache folder, one file per page; what does not read back as it was written is removed and
 * computed again. Threads of its own read and write; whoever computes only copies pages from and to its slots.
 *
 * A slot is memory for one file, or, where the owner has memory for its page, only the order to read or write it. The
 * owner's calls are for one thread (the scheduler's); what eng_pc_set_ready() was given is called on
 * the cache's threads and must not block. */
#ifndef ENG_PROMPTCACHE_H
#define ENG_PROMPTCACHE_H

#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"
#include "promptcache/page_file.h"
#include "promptcache/speed.h"

struct eng_pc;

struct eng_pc_config {
	const char *dir; /* made when it is not there, for its owner only */
	uint64_t budget_bytes;
	struct eng_pc_key identity; /* of model, precision, and how pages are laid out */
	uint32_t page_tokens;
	uint64_t page_bytes;
};

struct eng_pc_stats {
	uint64_t pages_read, pages_written, pages_evicted;
	uint64_t n_damaged;      /* files refused and removed */
	uint64_t n_write_errors; /* the disk was full, or worse */
	uint64_t bytes;          /* on disk, of this model */
	double read_ns; /* from one page to the next, with its check, smoothed, at first the last process's; 0: not
	                   known */
};

/* -EBUSY: another process has this model's folder; -EINVAL: the budget holds no page. */
int eng_pc_open(const struct eng_pc_config *config, struct eng_pc **ret_pc, struct err *err);
/* Finishes what was given to it. */
void eng_pc_close(struct eng_pc *pc);
/* fn is called when a slot became free or a page was read. Before the first store or load. */
void eng_pc_set_ready(struct eng_pc *pc, void (*fn)(void *arg), void *arg);

const struct eng_pc_key *eng_pc_identity(const struct eng_pc *pc);
int eng_pc_key(const struct eng_pc *pc, const struct eng_pc_key *parent, const int32_t *ids,
               struct eng_pc_key *ret_key);
/* The folder's list is read in the background after opening; the first call may wait for that. */
bool eng_pc_has(struct eng_pc *pc, const struct eng_pc_key *key);
void eng_pc_get_stats(struct eng_pc *pc, struct eng_pc_stats *ret_stats);
/* What the process before this one kept, or this one. False: nothing was kept. */
bool eng_pc_get_speed(struct eng_pc *pc, struct eng_pc_speed *ret_speed);
/* Keeps it in the folder, with what reading a page takes by then. */
void eng_pc_keep_speed(struct eng_pc *pc, const struct eng_pc_speed *speed);

/* Room for a page's bytes, or NULL when all slots for writing are in use. Then eng_pc_store() with the bytes in it,
 * once. */
void *eng_pc_store_slot(struct eng_pc *pc);
void eng_pc_store(struct eng_pc *pc, void *slot, const struct eng_pc_key *parent, const int32_t *ids,
                  uint64_t compute_ns);

/* Asks for a page; false when all slots for reading are in use. */
bool eng_pc_load(struct eng_pc *pc, const struct eng_pc_key *parent, const struct eng_pc_key *key, uint64_t tag);
struct eng_pc_loaded {
	uint64_t tag;
	const void *page; /* NULL: it could not be read; else until eng_pc_release() */
	uint64_t compute_ns;
	uint32_t slot;
};
/* What was asked for, in that order. False: nothing yet. */
bool eng_pc_take(struct eng_pc *pc, struct eng_pc_loaded *ret_loaded);
void eng_pc_release(struct eng_pc *pc, const struct eng_pc_loaded *loaded);

/* The same where the owner has memory for pages itself, which is the cache's until the page was taken: a page comes to
 * `into`, and one is stored from `from`. False: too many are under way. */
bool eng_pc_load_into(struct eng_pc *pc, const struct eng_pc_key *parent, const struct eng_pc_key *key, uint64_t tag,
                      void *into);
bool eng_pc_store_from(struct eng_pc *pc, const struct eng_pc_key *parent, const int32_t *ids, uint64_t compute_ns,
                       uint64_t tag, const void *from);
/* What was given by _store_from() is not looked at any more. False: nothing yet. */
bool eng_pc_take_stored(struct eng_pc *pc, uint64_t *ret_tag);

#endif
