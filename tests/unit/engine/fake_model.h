/* The inside of the fake of fake_exec.h: what it keeps, what it predicts from the ids that lie in its pages, and how a
 * step is computed, on the caller's thread or on its own. */
#ifndef FAKE_MODEL_H
#define FAKE_MODEL_H

#include <errno.h>
#include <math.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "sampler/sampler.h"
#include "sched/sched.h"

enum {
	FAKE_PAGE = 4,
	FAKE_EMBD = 8,
	FAKE_MAX_SCRIPTS = 8,
	FAKE_ANSWER = 1 << 24,
	FAKE_MAX_COPIES = 400,
	FAKE_MAX_OUT = 8
};

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
	uint64_t follows; /* copies out that were begun before the last one that it goes behind, and that one */
	uint64_t begin_ns;
	bool is_fenced, fails;
};

struct fake_way {
	struct fake_copy copies[FAKE_MAX_COPIES]; /* the n-th: [n % FAKE_MAX_COPIES] */
	uint64_t n_begun, n_done;
	uint64_t follows; /* of those that are begun from now on */
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

#endif
