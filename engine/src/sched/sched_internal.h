/* Shared by the scheduler's files: sched.c (life, queue, what other threads ask), loop.c (its thread), counts.c
 * (statistics), admit.c (who runs and who is set back), request.c (one request's copies and events), step.c (forming a
 * step), land.c (handing its results out), split.c and split_in.c (prompts on one backend, answers on another). */
#ifndef ENG_SCHED_INTERNAL_H
#define ENG_SCHED_INTERNAL_H

#include <pthread.h>
#include <stdatomic.h>

#include "kv/kv.h"
#include "sampler/sampler.h"
#include "sched/draft.h"
#include "sched/masks.h"
#include "sched/pace.h"
#include "sched/sched.h"
#include "sched/split.h"
#include "sched/textout.h"
#include "sched/tier.h"

enum { ENG_MAX_TOP = 20, ENG_MAX_SCORED = 1024 };

/* A token that was chosen; its text is made and handed out later, while the next step is computed. */
struct sreq_token {
	int32_t id;
	uint32_t position; /* in the output */
	bool is_stop;      /* by its id: it ends the output */
	bool may_stop;     /* stop strings count from here on */
	float logprob;
	struct eng_top top[ENG_MAX_TOP];
};

struct sreq {
	struct sreq *next; /* in the queue */
	uint64_t id;
	struct eng_request req; /* every pointer in it is ours */
	atomic_bool cancelled;
	uint64_t *prefix_hash;   /* [n_prompt / page_tokens]: of the prompt up to the end of that page */
	struct eng_pc_key *keys; /* [n_keys] of its first pages, see sreq_keys() */
	uint32_t n_keys;

	/* Below: only the scheduler's thread, from admission on. */
	bool was_preempted;
	int32_t *tokens; /* prompt, then output, then drafts */
	uint32_t n_prompt, n_tokens, n_computed, n_cached;
	/* In the step that is in the air: so many of its tokens, and whether that draws its next one (0 or 1), in which
	 * row. Who forms a step behind it goes by sreq_at() and sreq_len(). */
	uint32_t n_flying, n_pending, flying_row;
	uint32_t max_new, n_output;
	uint32_t next_prompt_lp; /* first position whose prompt log-probability is still owed; n_prompt: none */
	uint32_t take;           /* prompt tokens given to it in the step being formed */
	uint32_t mark;           /* recurrent models: where a checkpoint is wanted beside the usual ones; 0: nowhere */
	struct eng_kv_seq kv;
	/* Pages [load_done, load_next) are on their way from disk or host memory, those up to load_end shall be; tag 0:
	 * none. While it waits in the queue, kv holds what has come (tier.c). */
	uint64_t load_tag;
	uint32_t load_done, load_next, load_end;
	/* tier.c: where that began and when, pages whose reading from disk was asked for, and how often in vain */
	uint32_t load_first, load_asked, load_retries;
	uint32_t load_read; /* pages that the disk was asked for */
	uint64_t load_ns;
	bool load_is_pure;       /* nothing of it came from disk */
	bool was_prefetched;     /* or it was seen that there is nothing to load */
	uint32_t n_host, n_disk; /* tokens that came while it waited */
	struct passage *passage; /* to who answers, while it is computed in front; NULL: none */
	struct eng_sampler *sampler;
	struct eng_draft *draft;                     /* NULL: no speculation */
	struct eng_matcher *matcher;                 /* NULL: free text */
	struct sreq_token chosen[1 + ENG_DRAFT_MAX]; /* not yet said */
	uint32_t n_chosen;
	struct eng_textout text;
	struct base_buf piece; /* text of the current event */
	float *scored;         /* [req.n_scored] of the current event */

	float *pooled; /* [n_embd]: sum of the hidden states so far, when their mean is asked for; NULL: none yet */

	bool is_done;
	enum eng_finish finish;
	int32_t stop_id;
	const char *stop_text;
	struct err error;
};

/* One sequence's part of a step. */
struct step_part {
	struct sreq *r; /* NULL: it ended, and nobody waits for this any more */
	bool is_prefill;
	uint32_t n_draft; /* of its tokens */
};

/* A step that is formed or in the air; seqs[i] and parts[i] belong together. */
struct sched_step {
	struct eng_step_seq *seqs; /* [max_running] */
	struct step_part *parts;   /* [max_running] */
	size_t n;
	bool is_embed, has_masks;
	bool is_ahead; /* was begun behind one that was in the air */
	uint64_t begin_ns;
};

struct eng_sched {
	struct eng_exec exec;
	struct eng_sched_config config;
	int32_t *eos_ids;
	uint32_t n_ctx; /* most tokens of one sequence, also bounded by the pool */

	pthread_t thread;
	bool has_thread;
	pthread_mutex_t lock;
	pthread_cond_t wake; /* the scheduler: work or stop */
	pthread_cond_t idle; /* drain: n_live became 0; flush: done */
	/* protected by lock */
	struct sreq *queue;    /* in the order of arrival, those set back in front */
	struct sreq **running; /* [max_running], in the order of admission; changed by the thread only */
	uint32_t n_running, n_queued;
	uint32_t n_live; /* submitted and DONE not yet delivered */
	uint64_t next_id;
	uint64_t last_end_ns;
	double end_interval_ns; /* between requests that end, smoothed; 0: not known */
	bool is_draining, is_stopping, wants_flush;
	bool has_news; /* something came that may let the thread go on */
	/* control.c */
	bool is_paused, wants_sweep, wants_retract;
	struct sched_task *task; /* runs when nobody does; until then nobody is admitted */
	struct eng_stats stats;
	struct eng_pc_stats disk_before; /* of caches that were closed */

	/* the scheduler's thread only */
	struct eng_kv_pool *pool;
	struct sched_step steps[2];
	struct sched_step *next;   /* the one of them to be formed */
	struct sched_step *flight; /* the one that is in the air while the next is formed; NULL: none */
	uint64_t landed_ns;        /* when the last one landed */
	uint64_t active_since_ns;  /* time is counted as active from here on; 0: nothing to do */
	struct kn_pick *picks;     /* [exec.max_outputs], of the parts in their order */
	float *masked;             /* [n_vocab] */
	struct sched_masks masks;
	bool last_was_embed;
	bool has_touched;      /* pages, since the memory of free ones was given back */
	uint32_t first_decode; /* rotates, so that nobody starves when a step cannot hold all */
	struct eng_pace pace;
	uint64_t n_load_tags;
	double disk_patience; /* the factor by which reading counts as slow; 1 at first */
	bool was_elsewhere;   /* another device wrote what is on disk, and how fast that was */
	uint64_t n_kept;      /* prompts of the pace that was kept beside the cache */
	struct sched_tier tier;
	struct sched_split split;
};

/* Whose counters a request's are: those of who took it. */
static inline struct eng_sched *sched_book(struct eng_sched *s)
{
	return s->split.front ? s->split.front : s;
}

/* Tokens computed, and tokens, as they are when what is in the air has landed. */
static inline uint32_t sreq_at(const struct sreq *r)
{
	return r->n_computed + r->n_flying;
}

static inline uint32_t sreq_len(const struct sreq *r)
{
	return r->n_tokens + r->n_pending;
}

static inline bool sreq_is_decoding(const struct sreq *r)
{
	return r->n_output + r->n_pending > 0 && sreq_at(r) + 1 == sreq_len(r) && !r->load_tag;
}

/* Its last token is in the air. */
static inline bool sreq_will_end(const struct sreq *r)
{
	return r->n_pending > 0 && r->n_output + r->n_pending >= r->max_new;
}

/* Position of the first token whose output row is needed. */
static inline uint32_t sreq_first_row(const struct sreq *r)
{
	if (r->next_prompt_lp >= r->n_prompt)
		return r->n_tokens - 1;
	/* The log-probability of position p comes from the row of p - 1. */
	return r->next_prompt_lp > 0 ? r->next_prompt_lp - 1 : 0;
}

/* request.c */
int sreq_new(const struct eng_sched *s, const struct eng_request *req, struct sreq **ret_r, struct err *err);
void sreq_free(struct sreq *r);
/* What only a running request needs: sampler, detokenizer. */
int sreq_start(const struct eng_sched *s, struct sreq *r);
void sreq_end(struct sreq *r, enum eng_finish finish);
void sreq_emit_prompt(struct sreq *r, uint32_t position, const float *logits, uint32_t n_vocab);
void sreq_emit_embedding(struct sreq *r, const float *hidden, uint32_t n_embd);
void sreq_emit_done(struct sreq *r);
/* The next n_out tokens can be taken from what a backend picks by ret_picks; false: whole rows are needed. */
bool sreq_wants_picks(const struct sreq *r, uint32_t n_out, struct kn_pick *ret_picks, uint32_t *ret_n_best);
/* Samples from a row and decides whether the request ends by the token's id or the number of tokens. */
void sreq_take_token(struct eng_sched *s, struct sreq *r, struct eng_row *row);
/* Hands the chosen tokens out, with their text, which may end the request too; how many. */
uint32_t sreq_say(struct sreq *r);

/* disk.c: the keys of its first n pages are in r->keys; false: no memory. */
bool sreq_keys(struct eng_sched *s, struct sreq *r, uint32_t n);
/* What computing a page takes here, or then_ns when that is not known; 0: not known either. */
double sched_compute_ns(const struct eng_sched *s, uint64_t then_ns);

/* state.c: checkpoints of recurrent models; for others all of it is nothing. */

/* Where a step of r that could go to `end` ends: not behind a second place for a checkpoint. */
uint32_t sched_step_end(const struct eng_sched *s, const struct sreq *r, uint32_t end);
/* The step q of r passes a place for a checkpoint: it shall leave a copy of the state. */
void sched_plan_keep(struct eng_sched *s, struct sreq *r, struct eng_step_seq *q);
/* After the step, pages published: what it left is a checkpoint. */
void sched_keep(struct eng_sched *s, struct sreq *r, const struct eng_step_seq *q, bool is_prefill);
/* A checkpoint is wanted at `at` tokens, where r has not been yet. */
void sreq_mark(struct sreq *r, uint32_t at);
/* After admission: a slot, with the state that belongs to the prefix that was taken over. */
int sched_begin_state(struct eng_sched *s, struct sreq *r);

/* loop.c */
/* The scheduler's thread: a struct eng_sched, until it is stopping and nothing is left. NULL. */
void *sched_run(void *s);
/* The time, on the clock of the scheduler's conditions, at which so much will have passed. */
struct timespec sched_in_ms(uint32_t ms);
/* A cache read a page or has room for one; on its thread. */
void sched_cache_is_ready(void *s);
/* Sleeps until something came. */
void sched_wait_for_news(struct eng_sched *s);
/* Hands out what was chosen, of one and of all running requests. */
void sched_say_one(struct eng_sched *s, struct sreq *r);
void sched_say(struct eng_sched *s);
/* Takes those that ended out of the running ones. */
void sched_retire_done(struct eng_sched *s);
/* r is in no list any more. Its DONE comes after its pages are free and the counters tell so. */
void sched_retire(struct eng_sched *s, struct sreq *r);

/* counts.c */
/* Copies the pool's counts to the statistics. */
void sched_count_pages(struct eng_sched *s);
/* Locked: r ends. */
void sched_count_end(struct eng_sched *s, const struct sreq *r);
/* Something that is no request keeps the engine from being idle, or does not any more. */
void sched_count_live(struct eng_sched *s, bool is_live);

/* admit.c */
/* Tokens of r that may come from a cache: all before the first row that is needed. */
uint32_t sched_reusable(const struct eng_sched *s, const struct sreq *r);
/* Pages that begin both prompts. */
uint32_t sched_common_pages(const struct sreq *a, const struct sreq *b, uint32_t page_tokens);
/* Somebody computes a part of r's prompt that r could take over, and leaves a checkpoint there. */
bool sched_waits_for_prefix(struct eng_sched *s, const struct sreq *r);
/* Moves requests from the queue to the running ones while there is room. */
void sched_admit(struct eng_sched *s);
/* Room for one more token of every decoding sequence; the youngest are set back when it runs out. */
void sched_make_room(struct eng_sched *s);

/* admit.c: the i-th running request waits again and gives its pages back. */
void sched_set_back(struct eng_sched *s, uint32_t i);

/* control.c. Locked: there is something to do although nothing is to be computed. */
bool sched_is_controlled(const struct eng_sched *s);
/* Does what was asked. False: nothing is to be computed now. */
bool sched_control(struct eng_sched *s, bool *ret_may_admit);

/* step.c: begins a step over the running requests, and lands it, or the one before it and leaves this one in the air;
 * those that ended have is_done set. False: nobody could take part, all wait for the disk. */
bool sched_step(struct eng_sched *s);

/* land.c */
/* Waits for a step that was begun and hands its results out. has_follower: another one was begun behind it. */
void sched_land(struct eng_sched *s, struct sched_step *step, bool has_follower);
/* The requests of a step end with the reason, the others go on. */
void sched_fail(struct sched_step *step, int code, const struct err *why);
/* The step that was just begun stays in the air. */
void sched_take_off(struct eng_sched *s, struct sched_step *step);
/* Nothing is in the air afterwards. */
void sched_come_down(struct eng_sched *s);
/* r is about to be freed. */
void sched_forget_flying(struct eng_sched *s, const struct sreq *r);

#endif
