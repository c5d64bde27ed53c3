/* The scheduler: takes requests, forms steps, hands results out as events. Knows no backend: it computes
 * through eng_exec, which a runner or a test's fake provides. One thread owns everything inside;
 * submit and cancel may be called from any thread. Idle, it sleeps. */
#ifndef ENG_SCHED_H
#define ENG_SCHED_H

#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"
#include "engine.h"
#include "kv/kv.h"
#include "model/model.h"
#include "promptcache/promptcache.h"

struct eng_row;
struct eng_tokenizer;
struct eng_sched;

/* How a step is computed; the contract is that of the functions eng_runner_*(). */
struct eng_exec {
	void *ctx;
	int (*begin)(void *ctx, const struct eng_step_seq *seqs, size_t n_seqs, struct err *err);
	int (*wait)(void *ctx, const float **ret_rows, struct err *err);
	void (*row)(void *ctx, uint32_t index, struct eng_row *ret_row); /* NULL where steps never pick */
	bool is_async;                  /* begin() returns while the step is computed: meanwhile texts are made */
	bool runs_ahead;                /* a step may be begun behind one that was not waited for */
	uint64_t (*busy_ns)(void *ctx); /* NULL: not known */
	uint32_t n_vocab, n_embd;
	uint32_t n_ctx;       /* most tokens of one sequence */
	uint32_t max_tokens;  /* per step */
	uint32_t max_outputs; /* per step */
	uint32_t n_pages;
	uint64_t device; /* a number for what computes, by which another process knows it again */
	struct eng_kv_traits kv;
	/* The same token gives other bits in a prompt than in an answer (kn_backend.tells_prompts, in deterministic
	 * mode). Steps are given answers first; what an answer was computed to is never taken for a prompt's. */
	bool tells_prompts;
	/* Copies a page of all layers, kv.page_bytes, out of and into the pool's memory; NULL when that is 0. */
	void (*page_read)(void *ctx, uint32_t page, void *dst);
	void (*page_write)(void *ctx, uint32_t page, const void *src);
	/* Copies of pages beside the steps (kn_ops.copy_begin), for a tier in host memory; NULL where the pool's memory
	 * is the host's. host_alloc() and host_free() are called by any thread. */
	void *(*host_alloc)(void *ctx, size_t bytes);
	void (*host_free)(void *ctx, void *p);
	int (*page_copy)(void *ctx, uint32_t page, void *host, enum kn_way way, uint64_t *ret_ticket);
	int (*copy_poll)(void *ctx, uint64_t ticket);
	int (*copy_wait)(void *ctx, uint64_t ticket);
	int (*copy_fence)(void *ctx, uint64_t ticket);
	int (*copy_follow)(void *ctx, uint64_t ticket);
	/* Slot dst becomes a copy of slot src, in order with the steps; NULL when kv.n_states is 0. */
	void (*state_copy)(void *ctx, uint32_t dst, uint32_t src);
	/* Pages [first, first + n) are free and their memory may be given back until they are used; or NULL. */
	void (*page_discard)(void *ctx, uint32_t first, uint32_t n);
	/* Of who answers where another computes prompts (eng_sched_config.answers): copies n pages in a row, from the
	 * other's page `from` on, into those from `page` on; a ticket as of page_copy(). The other's are complete, and
	 * stay as they are until it has ended. NULL: it cannot. */
	int (*page_fetch)(void *ctx, uint32_t page, uint32_t from, uint32_t n, uint64_t *ret_ticket);
};

struct eng_sched_config {
	uint32_t max_running;                  /* sequences decoded together */
	uint32_t max_queued;                   /* beyond it, submit is -EBUSY */
	const struct eng_tokenizer *tokenizer; /* for text events; NULL: ids only */
	const int32_t *eos_ids;                /* end a request unless it says ignore_eos; copied */
	size_t n_eos_ids;
	bool deterministic, no_prefix_cache, no_speculation, no_ahead; /* see eng_options */
	uint32_t step_ms;                                              /* see eng_options */
	uint32_t rest_ms;         /* idle for so long, the memory of free pages is given back; 0: 20 s */
	enum eng_pooling pooling; /* of embeddings */
	bool whole_prompts;       /* an encoder's: a prompt is computed in one step or not at all */
	struct eng_pc *cache;     /* pages on disk, or NULL; the scheduler's from now on, also when it is not made */
	/* Pages that the pool gives up go to host memory, at most so many bytes; 0: none, as where pages cannot be
	 * copied beside steps or models have recurrent layers. write_through: as soon as they are complete. */
	uint64_t host_bytes;
	bool write_through;
	bool always_load; /* pages come back from there although computing may be faster; for tests */
	/* Who answers: a second backend with the same model. The first one computes prompts and first tokens. Then
	 * events come from two threads, those of one request in their order. Not of models with recurrent layers. NULL:
	 * the first one does all of it. */
	const struct eng_exec *answers;
	struct eng_sched *front; /* set by the scheduler for the one that answers */
	/* Told, on the scheduler's thread, what a person should know; NULL: nobody. */
	void (*on_note)(void *arg, const char *text);
	void *note_arg;
};

int eng_sched_new(const struct eng_exec *exec, const struct eng_sched_config *config, struct eng_sched **ret_sched,
                  struct err *err);
/* Refuses new requests (-ESHUTDOWN) and returns when the running ones are done or timeout_ms passed. */
int eng_sched_drain(struct eng_sched *s, uint32_t timeout_ms);
/* Stops now: what still runs ends with ENG_FINISH_ABORT. */
void eng_sched_free(struct eng_sched *s);

int eng_sched_submit(struct eng_sched *s, const struct eng_request *req, uint64_t *ret_id, struct err *err);
/* Idempotent; the request's last event is DONE with ENG_FINISH_ABORT unless it ended before. */
void eng_sched_cancel(struct eng_sched *s, uint64_t id);
uint32_t eng_sched_retry_s(struct eng_sched *s);
/* Forgets cached prefixes; -EBUSY while requests run or wait. */
int eng_sched_flush(struct eng_sched *s);
/* Until it is continued, no step is computed. abort: requests end; retract: those that run wait again and give their
 * pages back; hold: they keep them. New requests wait. */
enum eng_sched_pause { ENG_SCHED_ABORT, ENG_SCHED_RETRACT, ENG_SCHED_HOLD };
void eng_sched_pause(struct eng_sched *s, enum eng_sched_pause how);
void eng_sched_continue(struct eng_sched *s);
/* Runs fn on the scheduler's thread when no request runs; meanwhile none begins. Returns what it returned. Cached
 * prefixes are forgotten when that is 0. -EBUSY: one task at a time, or requests are held by a pause. */
int eng_sched_run_alone(struct eng_sched *s, int (*fn)(void *arg, struct err *err), void *arg, struct err *err);
/* From within such an fn: pages are kept in another cache from now on, or NULL, in none; the scheduler's. The one that
 * it had is closed. Whoever changes what pages depend on has to call it. */
void eng_sched_set_cache(struct eng_sched *s, struct eng_pc *cache);
/* Pages and tree are sound, and none is lost; for tests, while nothing runs (-EBUSY). */
int eng_sched_check(struct eng_sched *s, struct err *err);
void eng_sched_stats(struct eng_sched *s, struct eng_stats *ret_stats);

#endif
