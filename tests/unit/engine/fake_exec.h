/* A model for tests of everything above the runner: it stores the ids it is given in the pages it is
 * told to use, and predicts the next token from what it reads back, so that a wrong page table, position
 * or chunk changes the output; one that tells prompts, also a token of an answer taken for a prompt's or the other way
 * round. With recurrent states it also keeps a hash of what each slot has seen, and a step from a slot that has seen
 * anything else fails. Knobs: delay, failure, and scripts (a prompt that begins with a script's tag is answered by the
 * script's ids). One that runs ahead computes on a thread of its own, up to two steps behind what it was given, and
 * aborts when a step writes where one that is not waited for does. One that copies pages beside its steps (fake_copies)
 * does so as late as it may: what reads too early, or takes a page away that is still being read, sees other tokens. */
#ifndef FAKE_EXEC_H
#define FAKE_EXEC_H

#include <errno.h>
#include <math.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "sampler/sampler.h"
#include "sched/sched.h"

enum { FAKE_PAGE = 4, FAKE_EMBD = 8, FAKE_MAX_SCRIPTS = 8, FAKE_ANSWER = 1 << 24, FAKE_MAX_COPIES = 400 };

/* Fakes that are made from now on pick; and compute by themselves, also a step ahead. */
static bool fake_picks, fake_ahead;
/* And copy pages beside their steps. */
static bool fake_copies;

struct fake_script {
	int32_t tag; /* prompt: tag, its length, ... */
	const int32_t *ids;
	size_t n_ids;
};

struct fake_state {
	uint32_t n, hash;
};

/* A step: copies of what it was given, and what came out. */
struct fake_flight {
	struct eng_step_seq *seqs;
	size_t n_seqs;
	bool has_all_picks;
	uint32_t n_out, n_best;
	float *rows;
	struct kn_picked *picked; /* [max_outputs] */
	struct kn_best *best;     /* [max_outputs, KN_MAX_BEST] */
	bool *is_picked;          /* [max_outputs] */
	const float *ret_rows;
	int rc;
	struct err err;
};

/* A page on its way beside the steps. */
struct fake_copy {
	uint32_t page, from, n; /* from, n: another fake's pages */
	char *host;
	uint64_t after; /* steps that were begun before it */
	uint64_t begin_ns;
	bool is_fenced, fails;
};

struct fake_way {
	struct fake_copy copies[FAKE_MAX_COPIES]; /* the n-th: [n % FAKE_MAX_COPIES] */
	uint64_t n_begun, n_done;
};

struct fake_exec {
	struct eng_exec exec;
	int32_t *cells;            /* [n_pages * FAKE_PAGE] */
	struct fake_state *states; /* [kv.n_states] */
	struct fake_script scripts[FAKE_MAX_SCRIPTS];
	size_t n_scripts;
	atomic_uint delay_us;  /* per step */
	atomic_bool is_held;   /* steps wait for its end: what a test does meanwhile may take as long as it likes */
	atomic_int fail_on_id; /* a step that is given this id fails; -1: none */
	atomic_uint n_steps, max_seqs, max_step_tokens, n_discarded;

	/* As a GPU does it: what samplers need is picked, and rows are fetched one by one. */
	struct kn_backend *picker; /* NULL: rows are handed out whole */
	atomic_uint n_fetched, n_picked, n_ahead;

	/* Steps by number: [n % KN_MAX_AHEAD]. */
	struct fake_flight flights[KN_MAX_AHEAD];
	uint64_t n_begun, n_computed, n_waited;
	pthread_t thread;
	bool has_thread, is_stopping;
	pthread_mutex_t lock; /* n_begun, n_computed, is_stopping, and the cells where there is a thread */
	pthread_cond_t cond;

	struct fake_way ways[KN_FROM_PEER + 1]; /* by enum kn_way; the scheduler's thread alone */
	struct fake_exec *peer;                 /* whose pages page_fetch() copies */
	unsigned coin;
	atomic_uint copy_us;    /* no page comes back faster */
	atomic_uint fail_every; /* so many copies; 0: none fails */
	atomic_size_t host_bytes, host_limit;
	_Atomic(char *) host_memory; /* what was allocated last */
	atomic_uint n_in, n_out;
};

/* What is stored for a token. */
static inline int32_t fake_cell(const struct fake_exec *f, int32_t id, bool is_answer)
{
	return f->exec.tells_prompts && is_answer ? id | FAKE_ANSWER : id;
}

static inline uint32_t fake_hash(const int32_t *ids, uint32_t n)
{
	uint32_t h = 2166136261u;

	for (uint32_t i = 0; i < n; i++)
		h = (h ^ (uint32_t)ids[i] ^ (uint32_t)ids[i] / (FAKE_ANSWER / 16)) * 16777619u;
	return h;
}

/* What follows the first n tokens of `ids`. */
static inline int32_t fake_next(const struct fake_exec *f, const int32_t *ids, uint32_t n)
{
	for (size_t i = 0; i < f->n_scripts && n > 1; i++) {
		const struct fake_script *sc = &f->scripts[i];
		uint32_t at = n - (uint32_t)ids[1];

		if (ids[0] == sc->tag)
			return at < sc->n_ids ? sc->ids[at] : sc->ids[sc->n_ids - 1];
	}
	return (int32_t)(fake_hash(ids, n) % f->exec.n_vocab);
}

/* The best logit is the next token's; the others fall with the distance from it. */
static inline void fake_logits(const struct fake_exec *f, const int32_t *ids, uint32_t n, float *row)
{
	int32_t next = fake_next(f, ids, n);

	for (uint32_t v = 0; v < f->exec.n_vocab; v++)
		row[v] = -0.1f * (float)(v > (uint32_t)next ? v - (uint32_t)next : (uint32_t)next - v);
	row[next] = 4.0f;
}

static inline void fake_hidden(const int32_t *ids, uint32_t n, float *row)
{
	for (uint32_t i = 0; i < FAKE_EMBD; i++)
		row[i] = 0.25f;
	for (uint32_t i = 0; i < n; i++)
		row[(uint32_t)ids[i] % FAKE_ANSWER % FAKE_EMBD] += 1.0f;
}

/* ---- Rows of the step that was waited for last ---- */

static inline struct fake_flight *fake_landed(struct fake_exec *f)
{
	return &f->flights[(f->n_waited - 1) % KN_MAX_AHEAD];
}

static inline const float *fake_fetch(void *ctx, uint32_t index)
{
	struct fake_exec *f = ctx;

	if (f->n_begun != f->n_waited)
		abort(); /* the next step may have written over it */
	atomic_fetch_add(&f->n_fetched, 1);
	return fake_landed(f)->rows + (size_t)index * f->exec.n_vocab;
}

static inline void fake_row(void *ctx, uint32_t index, struct eng_row *ret_row)
{
	struct fake_exec *f = ctx;
	struct fake_flight *step = fake_landed(f);

	*ret_row = (struct eng_row){ .fetch = fake_fetch, .ctx = f, .index = index };
	if (step->is_picked[index]) {
		ret_row->picked = &step->picked[index];
		ret_row->best = step->best + (size_t)index * step->n_best;
		ret_row->n_best = step->n_best;
	}
}

/* ---- Computing ---- */

/* True: rows are to be asked for. */
static inline bool fake_pick(struct fake_exec *f, struct fake_flight *step)
{
	uint32_t n = 0;
	bool any = false;

	step->n_best = 0;
	for (size_t i = 0; i < step->n_seqs && f->picker; i++) {
		const struct eng_step_seq *q = &step->seqs[i];

		any = any || q->picks;
		step->n_best = q->picks && q->n_best > step->n_best ? q->n_best : step->n_best;
	}
	for (size_t i = 0; i < step->n_seqs && any; i++) {
		const struct eng_step_seq *q = &step->seqs[i];

		for (uint32_t k = 0; k < q->n_out; k++, n++) {
			const float *row = step->rows + (size_t)n * f->exec.n_vocab;

			step->is_picked[n] = q->picks != NULL;
			if (!q->picks)
				continue;
			atomic_fetch_add(&f->n_picked, 1);
			f->picker->ops->pick(f->picker, row, f->exec.n_vocab, 1, f->exec.n_vocab, 0, &q->picks[k],
			                     step->n_best, step->best + (size_t)n * step->n_best, &step->picked[n]);
		}
	}
	return any;
}

/* One sequence's part; *io_row is where its rows go. */
static inline int fake_compute_seq(struct fake_exec *f, struct fake_flight *step, const struct eng_step_seq *q,
                                   const struct fake_flight *before, float **io_row)
{
	uint32_t end = q->pos + q->n_ids;
	int32_t *all = calloc(end, sizeof(*all));
	int rc = 0;

	for (uint32_t k = 0; k < q->n_ids && rc == 0; k++) {
		uint32_t t = q->pos + k;
		int32_t id = q->from_row ? before->picked[q->from_row - 1].drawn : q->ids[k];

		if (id == atomic_load(&f->fail_on_id))
			rc = err_set(&step->err, -EIO, "the fake failed as told");
		f->cells[q->pages[t / FAKE_PAGE] * FAKE_PAGE + t % FAKE_PAGE] = fake_cell(f, id, q->is_answer);
	}
	for (uint32_t t = 0; t < end; t++)
		all[t] = f->cells[q->pages[t / FAKE_PAGE] * FAKE_PAGE + t % FAKE_PAGE];
	if (f->states && rc == 0) {
		struct fake_state *state = &f->states[q->state];
		bool right = q->state < f->exec.kv.n_states &&
		             (q->pos == 0 || (state->n == q->pos && state->hash == fake_hash(all, q->pos)));

		if (!right)
			rc = err_set(&step->err, -EIO, "state %u has not seen these %u tokens", q->state, q->pos);
		*state = (struct fake_state){ end, fake_hash(all, end) };
		if (q->keep_after)
			f->states[q->keep] =
			        (struct fake_state){ q->pos + q->keep_after, fake_hash(all, q->pos + q->keep_after) };
	}
	for (uint32_t k = 0; k < q->n_out && rc == 0; k++) {
		uint32_t n = end - q->n_out + k + 1;

		if (q->output == ENG_OUT_HIDDEN)
			fake_hidden(all, n, *io_row);
		else
			fake_logits(f, all, n, *io_row);
		*io_row += q->output == ENG_OUT_HIDDEN ? FAKE_EMBD : f->exec.n_vocab;
	}
	free(all);
	return rc;
}

static inline void fake_compute(struct fake_exec *f, struct fake_flight *step, const struct fake_flight *before)
{
	float *row = step->rows;
	unsigned delay = atomic_load(&f->delay_us);

	if (delay)
		(void)usleep(delay);
	while (atomic_load(&f->is_held))
		(void)usleep(100);
	if (f->has_thread)
		(void)pthread_mutex_lock(&f->lock);
	for (size_t i = 0; i < step->n_seqs && step->rc == 0; i++)
		step->rc = fake_compute_seq(f, step, &step->seqs[i], before, &row);
	if (step->rc == 0)
		step->ret_rows = fake_pick(f, step) ? NULL : step->rows;
	if (f->has_thread)
		(void)pthread_mutex_unlock(&f->lock);
}

static inline void *fake_run(void *arg)
{
	struct fake_exec *f = arg;

	(void)pthread_mutex_lock(&f->lock);
	while (!f->is_stopping || f->n_computed < f->n_begun) {
		uint64_t n = f->n_computed;

		if (n == f->n_begun) {
			(void)pthread_cond_wait(&f->cond, &f->lock);
			continue;
		}
		(void)pthread_mutex_unlock(&f->lock);
		fake_compute(f, &f->flights[n % KN_MAX_AHEAD], &f->flights[(n + 1) % KN_MAX_AHEAD]);
		(void)pthread_mutex_lock(&f->lock);
		f->n_computed = n + 1;
		(void)pthread_cond_broadcast(&f->cond);
	}
	(void)pthread_mutex_unlock(&f->lock);
	return NULL;
}

/* ---- Copies beside the steps ---- */

static inline uint64_t fake_now_ns(void)
{
	struct timespec ts;

	(void)clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000000000u + (uint64_t)ts.tv_nsec;
}

static inline void fake_do_copy(struct fake_exec *f, enum kn_way to)
{
	struct fake_way *way = &f->ways[to];
	struct fake_copy *c = &way->copies[way->n_done++ % FAKE_MAX_COPIES];
	char *cells = (char *)(f->cells + (size_t)c->page * FAKE_PAGE);

	if (to == KN_FROM_PEER) {
		size_t bytes = c->n * FAKE_PAGE * sizeof(*f->cells);
		int32_t *between = malloc(bytes);

		(void)pthread_mutex_lock(&f->peer->lock);
		memcpy(between, f->peer->cells + (size_t)c->from * FAKE_PAGE, bytes);
		(void)pthread_mutex_unlock(&f->peer->lock);
		(void)pthread_mutex_lock(&f->lock);
		if (!c->fails)
			memcpy(cells, between, bytes);
		(void)pthread_mutex_unlock(&f->lock);
		free(between);
		return;
	}
	(void)pthread_mutex_lock(&f->lock);
	if (!c->fails)
		memcpy(to == KN_TO_HOST ? c->host : cells, to == KN_TO_HOST ? cells : c->host,
		       FAKE_PAGE * sizeof(*f->cells));
	(void)pthread_mutex_unlock(&f->lock);
}

/* Those out that later operations go behind. */
static inline void fake_do_fenced(struct fake_exec *f)
{
	struct fake_way *way = &f->ways[KN_TO_HOST];
	uint64_t end = way->n_done;

	for (uint64_t n = way->n_done; n < way->n_begun; n++) {
		if (way->copies[n % FAKE_MAX_COPIES].is_fenced)
			end = n + 1;
	}
	while (way->n_done < end)
		fake_do_copy(f, KN_TO_HOST);
}

static inline bool fake_may_come(struct fake_exec *f, const struct fake_copy *c)
{
	bool computed;

	(void)pthread_mutex_lock(&f->lock);
	computed = f->n_computed >= c->after;
	(void)pthread_mutex_unlock(&f->lock);
	return computed && fake_now_ns() - c->begin_ns >= atomic_load(&f->copy_us) * (uint64_t)1000;
}

static inline int fake_begin_copy(struct fake_exec *f, struct fake_copy copy, enum kn_way to, uint64_t *ret_ticket)
{
	struct fake_way *way = &f->ways[to];
	unsigned every = atomic_load(&f->fail_every);

	if (way->n_begun - way->n_done == FAKE_MAX_COPIES)
		return -EBUSY;
	f->coin = f->coin * 1664525u + 1013904223u;
	if (every && f->coin >> 8 & 1 && (f->coin >> 9) % every == 0)
		return -EIO;
	copy.after = to == KN_FROM_PEER ? 0 : f->n_begun; /* that may come while a step is computed */
	copy.begin_ns = fake_now_ns();
	copy.fails = every && (f->coin >> 9) % every == 0;
	way->copies[way->n_begun % FAKE_MAX_COPIES] = copy;
	atomic_fetch_add(to == KN_TO_HOST ? &f->n_out : &f->n_in, 1);
	*ret_ticket = way->n_begun++ << 2 | (uint64_t)to;
	return 0;
}

static inline int fake_page_copy(void *ctx, uint32_t page, void *host, enum kn_way to, uint64_t *ret_ticket)
{
	return fake_begin_copy(ctx, (struct fake_copy){ .page = page, .host = host }, to, ret_ticket);
}

static inline int fake_page_fetch(void *ctx, uint32_t page, uint32_t from, uint32_t n, uint64_t *ret_ticket)
{
	return fake_begin_copy(ctx, (struct fake_copy){ .page = page, .from = from, .n = n }, KN_FROM_PEER, ret_ticket);
}

static inline int fake_copy_poll(void *ctx, uint64_t ticket)
{
	struct fake_exec *f = ctx;
	enum kn_way to = (enum kn_way)(ticket & 3);
	struct fake_way *way = &f->ways[to];
	uint64_t n = ticket >> 2;

	f->coin = f->coin * 1664525u + 1013904223u;
	if (n >= way->n_done && (f->coin >> 16 & 3) == 0)
		return 0;
	while (n >= way->n_done) {
		if (to == KN_TO_DEVICE || to == KN_FROM_PEER) {
			if (!fake_may_come(f, &way->copies[way->n_done % FAKE_MAX_COPIES]))
				return 0;
			fake_do_fenced(f);
		}
		fake_do_copy(f, to);
	}
	return way->copies[n % FAKE_MAX_COPIES].fails ? -EIO : 1;
}

static inline int fake_copy_wait(void *ctx, uint64_t ticket)
{
	int r;

	while ((r = fake_copy_poll(ctx, ticket)) == 0)
		(void)usleep(20);
	return r < 0 ? r : 0;
}

static inline int fake_copy_fence(void *ctx, uint64_t ticket)
{
	struct fake_exec *f = ctx;
	struct fake_way *way = &f->ways[ticket & 3];

	if (ticket >> 2 >= way->n_done)
		way->copies[(ticket >> 2) % FAKE_MAX_COPIES].is_fenced = true;
	return 0;
}

static inline void *fake_host_alloc(void *ctx, size_t bytes)
{
	struct fake_exec *f = ctx;
	char *p = NULL;

	if (atomic_load(&f->host_bytes) + bytes <= atomic_load(&f->host_limit))
		p = calloc(1, bytes);
	if (p)
		atomic_fetch_add(&f->host_bytes, bytes);
	atomic_store(&f->host_memory, p);
	return p;
}

static inline void fake_host_free(void *ctx, void *p)
{
	(void)ctx;
	free(p);
}

/* ---- Steps ---- */

static inline void *fake_dup(const void *src, size_t n, size_t size)
{
	void *p = calloc(n ? n : 1, size);

	if (n)
		memcpy(p, src, n * size);
	return p;
}

static inline void fake_forget(struct fake_flight *step)
{
	for (size_t i = 0; i < step->n_seqs; i++) {
		free((void *)step->seqs[i].pages);
		free((void *)step->seqs[i].ids);
		free((void *)step->seqs[i].picks);
	}
	free(step->seqs);
	step->seqs = NULL;
	step->n_seqs = 0;
}

/* What the caller may change as soon as the step is begun. */
static inline void fake_take(struct fake_flight *step, const struct eng_step_seq *seqs, size_t n_seqs)
{
	fake_forget(step);
	step->seqs = fake_dup(seqs, n_seqs, sizeof(*seqs));
	step->n_seqs = n_seqs;
	step->has_all_picks = true;
	step->n_out = 0;
	step->rc = 0;
	step->err = (struct err){ 0 };
	for (size_t i = 0; i < n_seqs; i++) {
		struct eng_step_seq *q = &step->seqs[i];
		uint32_t n_pages = (q->pos + q->n_ids + FAKE_PAGE - 1) / FAKE_PAGE;

		q->pages = fake_dup(q->pages, n_pages, sizeof(*q->pages));
		q->ids = fake_dup(q->ids, q->from_row ? 0 : q->n_ids, sizeof(*q->ids));
		q->picks = q->picks ? fake_dup(q->picks, q->n_out, sizeof(*q->picks)) : NULL;
		step->n_out += q->n_out;
		step->has_all_picks = step->has_all_picks && (q->n_out == 0 || q->picks);
	}
}

/* Where the k-th new token goes. */
static inline size_t fake_target(const struct eng_step_seq *q, uint32_t k)
{
	uint32_t t = q->pos + k;

	return (size_t)q->pages[t / FAKE_PAGE] * FAKE_PAGE + t % FAKE_PAGE;
}

static inline void fake_check_targets(const struct fake_flight *a, const struct eng_step_seq *seqs, size_t n_seqs)
{
	for (size_t i = 0; i < a->n_seqs; i++) {
		for (uint32_t k = 0; k < a->seqs[i].n_ids; k++) {
			for (size_t j = 0; j < n_seqs; j++) {
				for (uint32_t m = 0; m < seqs[j].n_ids; m++) {
					if (fake_target(&a->seqs[i], k) == fake_target(&seqs[j], m)) {
						(void)fprintf(stderr, "a page was handed out twice\n");
						abort();
					}
				}
			}
		}
	}
}

static inline int fake_check(const struct fake_exec *f, const struct eng_step_seq *seqs, size_t n_seqs, struct err *err)
{
	uint64_t n_before = f->n_begun - f->n_waited;
	const struct fake_flight *before = n_before ? &f->flights[(f->n_begun - 1) % KN_MAX_AHEAD] : NULL;

	if (n_before > (f->exec.runs_ahead ? 1 : 0) || (before && !before->has_all_picks))
		return err_set(err, -EINVAL, "the step before was not waited for");
	for (size_t i = 0; i < n_seqs; i++) {
		if (f->exec.tells_prompts && i > 0 && seqs[i].is_answer && !seqs[i - 1].is_answer)
			return err_set(err, -EINVAL, "an answer behind a prompt");
		if (seqs[i].from_row && (!before || seqs[i].from_row > before->n_out || seqs[i].n_ids != 1))
			return err_set(err, -EINVAL, "no such row");
	}
	if (before)
		fake_check_targets(before, seqs, n_seqs);
	return 0;
}

static inline int fake_begin(void *ctx, const struct eng_step_seq *seqs, size_t n_seqs, struct err *err)
{
	struct fake_exec *f = ctx;
	unsigned n_tokens = 0;
	int rc = fake_check(f, seqs, n_seqs, err);

	if (rc < 0)
		return rc;
	atomic_fetch_add(&f->n_steps, 1);
	atomic_fetch_add(&f->n_ahead, f->n_begun > f->n_waited);
	if (n_seqs > atomic_load(&f->max_seqs))
		atomic_store(&f->max_seqs, (unsigned)n_seqs);
	for (size_t i = 0; i < n_seqs; i++)
		n_tokens += seqs[i].n_ids;
	if (n_tokens > atomic_load(&f->max_step_tokens))
		atomic_store(&f->max_step_tokens, n_tokens);
	fake_do_fenced(f);
	fake_take(&f->flights[f->n_begun % KN_MAX_AHEAD], seqs, n_seqs);
	if (!f->has_thread) {
		fake_compute(f, &f->flights[f->n_begun % KN_MAX_AHEAD], NULL);
		f->n_begun++;
		f->n_computed++;
		return 0;
	}
	(void)pthread_mutex_lock(&f->lock);
	f->n_begun++;
	(void)pthread_cond_broadcast(&f->cond);
	(void)pthread_mutex_unlock(&f->lock);
	return 0;
}

static inline int fake_wait(void *ctx, const float **ret_rows, struct err *err)
{
	struct fake_exec *f = ctx;
	const struct fake_flight *step = &f->flights[f->n_waited % KN_MAX_AHEAD];

	if (f->n_waited == f->n_begun)
		abort();
	(void)pthread_mutex_lock(&f->lock);
	while (f->n_computed == f->n_waited)
		(void)pthread_cond_wait(&f->cond, &f->lock);
	(void)pthread_mutex_unlock(&f->lock);
	f->n_waited++;
	if (step->rc < 0) {
		if (err)
			*err = step->err;
		return step->rc;
	}
	*ret_rows = step->ret_rows;
	return 0;
}

/* In order with the steps: what was begun is computed first. The lock is taken. */
static inline void fake_quiesce(struct fake_exec *f)
{
	(void)pthread_mutex_lock(&f->lock);
	while (f->has_thread && f->n_computed < f->n_begun)
		(void)pthread_cond_wait(&f->cond, &f->lock);
}

static inline void fake_page_read(void *ctx, uint32_t page, void *dst)
{
	struct fake_exec *f = ctx;

	fake_quiesce(f);
	memcpy(dst, f->cells + (size_t)page * FAKE_PAGE, FAKE_PAGE * sizeof(*f->cells));
	(void)pthread_mutex_unlock(&f->lock);
}

static inline void fake_page_write(void *ctx, uint32_t page, const void *src)
{
	struct fake_exec *f = ctx;

	fake_quiesce(f);
	memcpy(f->cells + (size_t)page * FAKE_PAGE, src, FAKE_PAGE * sizeof(*f->cells));
	(void)pthread_mutex_unlock(&f->lock);
}

/* What is in a page that was given back is of no use. */
static inline void fake_page_discard(void *ctx, uint32_t first, uint32_t n)
{
	struct fake_exec *f = ctx;

	fake_quiesce(f);
	for (size_t i = (size_t)first * FAKE_PAGE; i < (size_t)(first + n) * FAKE_PAGE; i++)
		f->cells[i] = INT32_MAX;
	(void)pthread_mutex_unlock(&f->lock);
	atomic_fetch_add(&f->n_discarded, n);
}

static inline void fake_init(struct fake_exec *f, uint32_t n_vocab, uint32_t n_ctx, uint32_t n_pages)
{
	memset(f, 0, sizeof(*f));
	f->exec = (struct eng_exec){ .ctx = f,
		                     .begin = fake_begin,
		                     .wait = fake_wait,
		                     .n_vocab = n_vocab,
		                     .n_embd = FAKE_EMBD,
		                     .n_ctx = n_ctx,
		                     .max_tokens = 16,
		                     .max_outputs = 8,
		                     .n_pages = n_pages,
		                     .kv = { .page_tokens = FAKE_PAGE, .page_bytes = FAKE_PAGE * sizeof(int32_t) },
		                     .page_read = fake_page_read,
		                     .page_write = fake_page_write,
		                     .page_discard = fake_page_discard };
	f->cells = calloc((size_t)n_pages * FAKE_PAGE, sizeof(*f->cells));
	atomic_store(&f->fail_on_id, -1);
	atomic_store(&f->host_limit, SIZE_MAX / 2);
	if (fake_copies) {
		f->exec.host_alloc = fake_host_alloc;
		f->exec.host_free = fake_host_free;
		f->exec.page_copy = fake_page_copy;
		f->exec.copy_poll = fake_copy_poll;
		f->exec.copy_wait = fake_copy_wait;
		f->exec.copy_fence = fake_copy_fence;
	}
	(void)pthread_mutex_init(&f->lock, NULL);
	(void)pthread_cond_init(&f->cond, NULL);
	for (int i = 0; i < KN_MAX_AHEAD; i++) {
		struct fake_flight *step = &f->flights[i];

		step->rows = calloc((size_t)f->exec.max_outputs * n_vocab + FAKE_EMBD * 8, sizeof(*step->rows));
		step->picked = calloc(f->exec.max_outputs, sizeof(*step->picked));
		step->best = calloc((size_t)f->exec.max_outputs * KN_MAX_BEST, sizeof(*step->best));
		step->is_picked = calloc(f->exec.max_outputs, sizeof(*step->is_picked));
	}
	if (!fake_picks)
		return;
	if (kn_ref_open(&(struct kn_config){ 0 }, &f->picker, NULL) < 0)
		abort();
	f->exec.row = fake_row;
	f->exec.is_async = true;
	if (!fake_ahead)
		return;
	f->exec.runs_ahead = true;
	f->has_thread = pthread_create(&f->thread, NULL, fake_run, f) == 0;
	if (!f->has_thread)
		abort();
}

/* It answers what the other one has computed the prompts of; before their scheduler is made. */
static inline void fake_answer_for(struct fake_exec *f, struct fake_exec *prompts)
{
	f->peer = prompts;
	f->exec.page_fetch = fake_page_fetch;
	f->exec.copy_poll = fake_copy_poll;
	f->exec.copy_wait = fake_copy_wait;
}

static inline void fake_state_copy(void *ctx, uint32_t dst, uint32_t src)
{
	struct fake_exec *f = ctx;

	fake_quiesce(f);
	f->states[dst] = f->states[src];
	(void)pthread_mutex_unlock(&f->lock);
}

/* Makes it a model with recurrent layers; before its scheduler is made. */
static inline void fake_add_states(struct fake_exec *f, uint32_t n_states, uint32_t checkpoint_pages, bool keeps)
{
	f->states = calloc(n_states, sizeof(*f->states));
	f->exec.kv.n_states = n_states;
	f->exec.kv.checkpoint_pages = checkpoint_pages;
	f->exec.kv.keeps_in_step = keeps;
	f->exec.kv.cannot_rewind = true;
	f->exec.state_copy = fake_state_copy;
}

static inline void fake_done(struct fake_exec *f)
{
	if (f->has_thread) {
		(void)pthread_mutex_lock(&f->lock);
		f->is_stopping = true;
		(void)pthread_cond_broadcast(&f->cond);
		(void)pthread_mutex_unlock(&f->lock);
		(void)pthread_join(f->thread, NULL);
	}
	free(f->states);
	free(f->cells);
	kn_backend_close(f->picker);
	for (int i = 0; i < KN_MAX_AHEAD; i++) {
		fake_forget(&f->flights[i]);
		free(f->flights[i].rows);
		free(f->flights[i].picked);
		free(f->flights[i].best);
		free(f->flights[i].is_picked);
	}
	(void)pthread_cond_destroy(&f->cond);
	(void)pthread_mutex_destroy(&f->lock);
}

#endif
