/* A model for tests of everything above the runner: it stores the ids it is given in the pages it is
 * told to use, and predicts the next token from what it reads back, so that a wrong page table, position
 * or chunk changes the output; one that tells prompts, also a token of an answer taken for a prompt's or the other way
 * round. With recurrent states it also keeps a hash of what each slot has seen, and a step from a slot that has seen
 * anything else fails. Knobs: delay, failure, and scripts (a prompt that begins with a script's tag is answered by the
 * script's ids). One that runs ahead computes on a thread of its own, up to two steps behind what it was given, and
 * aborts when a step writes where one that is not waited for does. One that copies pages beside its steps (fake_copies)
 * does so as late as it may: what reads too early, or takes a page away that is still being read, sees other tokens.
 *
 * Here: steps as they are begun and waited for, pages, making and ending one. fake_model.h computes, fake_copies.h
 * copies. */
#ifndef FAKE_EXEC_H
#define FAKE_EXEC_H

#include "fake_copies.h"
#include "fake_model.h"

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
		f->exec.copy_follow = fake_copy_follow;
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
