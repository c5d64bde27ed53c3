/* A model for tests of everything above the runner: it stores the ids it is given in the pages it is
 * told to use, and predicts the next token from what it reads back, so that a wrong page table, position
 * or chunk changes the output; one that tells prompts, also a token of an answer taken for a prompt's or the other way
 * round. With recurrent states it also keeps a hash of what each slot has seen, and a step from a slot that has seen
 * anything else fails. Knobs: delay, failure, and scripts (a prompt that begins with a script's tag is answered by the
 * script's ids). */
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

enum { FAKE_PAGE = 4, FAKE_EMBD = 8, FAKE_MAX_SCRIPTS = 8, FAKE_ANSWER = 1 << 24 };

/* Fakes that are made from now on pick. */
static bool fake_picks;

struct fake_script {
	int32_t tag; /* prompt: tag, its length, ... */
	const int32_t *ids;
	size_t n_ids;
};

struct fake_state {
	uint32_t n, hash;
};

struct fake_exec {
	struct eng_exec exec;
	int32_t *cells; /* [n_pages * FAKE_PAGE] */
	float *rows;
	struct fake_state *states; /* [kv.n_states] */
	struct fake_script scripts[FAKE_MAX_SCRIPTS];
	size_t n_scripts;
	atomic_uint delay_us;  /* per step */
	atomic_int fail_on_id; /* a step that is given this id fails; -1: none */
	atomic_uint n_steps, max_seqs, max_step_tokens, n_discarded;

	/* As a GPU does it: what samplers need is picked, and rows are fetched one by one. */
	struct kn_backend *picker; /* NULL: rows are handed out whole */
	struct kn_picked *picked;  /* [max_outputs] */
	struct kn_best *best;      /* [max_outputs, KN_MAX_BEST] */
	uint32_t n_best;
	bool *is_picked; /* [max_outputs] */
	atomic_uint n_fetched, n_picked;
	const float *waiting; /* what wait() gives */
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

static inline const float *fake_fetch(void *ctx, uint32_t index)
{
	struct fake_exec *f = ctx;

	atomic_fetch_add(&f->n_fetched, 1);
	return f->rows + (size_t)index * f->exec.n_vocab;
}

static inline void fake_row(void *ctx, uint32_t index, struct eng_row *ret_row)
{
	struct fake_exec *f = ctx;

	*ret_row = (struct eng_row){ .fetch = fake_fetch, .ctx = f, .index = index };
	if (f->is_picked[index]) {
		ret_row->picked = &f->picked[index];
		ret_row->best = f->best + (size_t)index * f->n_best;
		ret_row->n_best = f->n_best;
	}
}

/* True: rows are to be asked for. */
static inline bool fake_pick(struct fake_exec *f, const struct eng_step_seq *seqs, size_t n_seqs)
{
	uint32_t n = 0;
	bool any = false;

	f->n_best = 0;
	for (size_t i = 0; i < n_seqs && f->picker; i++) {
		any = any || seqs[i].picks;
		f->n_best = seqs[i].picks && seqs[i].n_best > f->n_best ? seqs[i].n_best : f->n_best;
	}
	for (size_t i = 0; i < n_seqs && any; i++) {
		for (uint32_t k = 0; k < seqs[i].n_out; k++, n++) {
			const float *row = f->rows + (size_t)n * f->exec.n_vocab;

			f->is_picked[n] = seqs[i].picks != NULL;
			if (!seqs[i].picks)
				continue;
			atomic_fetch_add(&f->n_picked, 1);
			f->picker->ops->pick(f->picker, row, f->exec.n_vocab, 1, f->exec.n_vocab, 0, &seqs[i].picks[k],
			                     f->n_best, f->best + (size_t)n * f->n_best, &f->picked[n]);
		}
	}
	return any;
}

static inline int fake_step(void *ctx, const struct eng_step_seq *seqs, size_t n_seqs, const float **ret_rows,
                            struct err *err)
{
	struct fake_exec *f = ctx;
	float *row = f->rows;
	unsigned n_tokens = 0, delay = atomic_load(&f->delay_us);

	atomic_fetch_add(&f->n_steps, 1);
	if (n_seqs > atomic_load(&f->max_seqs))
		atomic_store(&f->max_seqs, (unsigned)n_seqs);
	if (delay)
		(void)usleep(delay);
	for (size_t i = 0; i < n_seqs; i++) {
		const struct eng_step_seq *q = &seqs[i];
		uint32_t end = q->pos + q->n_ids;
		int32_t *all = calloc(end, sizeof(*all));

		n_tokens += q->n_ids;
		if (f->exec.tells_prompts && i > 0 && q->is_answer && !q[-1].is_answer) {
			free(all);
			return err_set(err, -EINVAL, "an answer behind a prompt");
		}
		for (uint32_t k = 0; k < q->n_ids; k++) {
			uint32_t t = q->pos + k;

			if (q->ids[k] == atomic_load(&f->fail_on_id)) {
				free(all);
				return err_set(err, -EIO, "the fake failed as told");
			}
			f->cells[q->pages[t / FAKE_PAGE] * FAKE_PAGE + t % FAKE_PAGE] =
			        fake_cell(f, q->ids[k], q->is_answer);
		}
		for (uint32_t t = 0; t < end; t++)
			all[t] = f->cells[q->pages[t / FAKE_PAGE] * FAKE_PAGE + t % FAKE_PAGE];
		if (f->states) {
			struct fake_state *state = &f->states[q->state];
			bool right = q->state < f->exec.kv.n_states &&
			             (q->pos == 0 || (state->n == q->pos && state->hash == fake_hash(all, q->pos)));

			if (!right) {
				free(all);
				return err_set(err, -EIO, "state %u has not seen these %u tokens", q->state, q->pos);
			}
			*state = (struct fake_state){ end, fake_hash(all, end) };
			if (q->keep_after)
				f->states[q->keep] = (struct fake_state){ q->pos + q->keep_after,
					                                  fake_hash(all, q->pos + q->keep_after) };
		}
		for (uint32_t k = 0; k < q->n_out; k++) {
			uint32_t n = end - q->n_out + k + 1;

			if (q->output == ENG_OUT_HIDDEN)
				fake_hidden(all, n, row);
			else
				fake_logits(f, all, n, row);
			row += q->output == ENG_OUT_HIDDEN ? FAKE_EMBD : f->exec.n_vocab;
		}
		free(all);
	}
	if (n_tokens > atomic_load(&f->max_step_tokens))
		atomic_store(&f->max_step_tokens, n_tokens);
	*ret_rows = fake_pick(f, seqs, n_seqs) ? NULL : f->rows;
	return 0;
}

static inline int fake_begin(void *ctx, const struct eng_step_seq *seqs, size_t n_seqs, struct err *err)
{
	struct fake_exec *f = ctx;

	return fake_step(f, seqs, n_seqs, &f->waiting, err);
}

static inline int fake_wait(void *ctx, const float **ret_rows, struct err *err)
{
	struct fake_exec *f = ctx;

	(void)err;
	*ret_rows = f->waiting;
	return 0;
}

static inline void fake_page_read(void *ctx, uint32_t page, void *dst)
{
	struct fake_exec *f = ctx;

	memcpy(dst, f->cells + (size_t)page * FAKE_PAGE, FAKE_PAGE * sizeof(*f->cells));
}

static inline void fake_page_write(void *ctx, uint32_t page, const void *src)
{
	struct fake_exec *f = ctx;

	memcpy(f->cells + (size_t)page * FAKE_PAGE, src, FAKE_PAGE * sizeof(*f->cells));
}

/* What is in a page that was given back is of no use. */
static inline void fake_page_discard(void *ctx, uint32_t first, uint32_t n)
{
	struct fake_exec *f = ctx;

	for (size_t i = (size_t)first * FAKE_PAGE; i < (size_t)(first + n) * FAKE_PAGE; i++)
		f->cells[i] = INT32_MAX;
	atomic_fetch_add(&f->n_discarded, n);
}

static inline void fake_init(struct fake_exec *f, uint32_t n_vocab, uint32_t n_ctx, uint32_t n_pages)
{
	memset(f, 0, sizeof(*f));
	f->exec = (struct eng_exec){ .ctx = f,
		                     .step = fake_step,
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
	f->rows = calloc((size_t)f->exec.max_outputs * n_vocab + FAKE_EMBD * 8, sizeof(*f->rows));
	atomic_store(&f->fail_on_id, -1);
	if (!fake_picks)
		return;
	if (kn_ref_open(&(struct kn_config){ 0 }, &f->picker, NULL) < 0)
		abort();
	f->exec.row = fake_row;
	f->exec.begin = fake_begin;
	f->exec.wait = fake_wait;
	f->picked = calloc(f->exec.max_outputs, sizeof(*f->picked));
	f->best = calloc((size_t)f->exec.max_outputs * KN_MAX_BEST, sizeof(*f->best));
	f->is_picked = calloc(f->exec.max_outputs, sizeof(*f->is_picked));
}

static inline void fake_state_copy(void *ctx, uint32_t dst, uint32_t src)
{
	struct fake_exec *f = ctx;

	f->states[dst] = f->states[src];
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
	free(f->states);
	free(f->cells);
	free(f->rows);
	kn_backend_close(f->picker);
	free(f->picked);
	free(f->best);
	free(f->is_picked);
}

#endif
