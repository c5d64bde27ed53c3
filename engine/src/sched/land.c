/* Handing a step's results out, once it was waited for, and the step that stays in the air meanwhile. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "sched/sched_internal.h"

/* A step's output rows: in host memory one after the other, or, where `all` is NULL, one by one from whoever has them.
 */
struct rows {
	const float *all;
	size_t stride;
	uint32_t next; /* first row of the part at hand */
};

static struct eng_row row_at(struct eng_sched *s, const struct rows *rows, uint32_t i)
{
	struct eng_row row = { 0 };

	if (rows->all)
		row.logits = rows->all + (rows->next + i) * rows->stride;
	else
		s->exec.row(s->exec.ctx, rows->next + i, &row);
	return row;
}

/* Hidden states of the tokens from `at` on, into what the model's embedding is made of. */
static void take_hidden(struct eng_sched *s, struct sreq *r, const float *rows, uint32_t n_rows, uint32_t at)
{
	uint32_t dim = s->exec.n_embd;

	if (s->config.pooling == ENG_POOL_CLS && at == 0) {
		sreq_emit_embedding(r, rows, dim);
	} else if (s->config.pooling == ENG_POOL_MEAN) {
		if (!r->pooled)
			r->pooled = calloc(dim, sizeof(*r->pooled));
		for (size_t i = 0; r->pooled && i < (size_t)n_rows * dim; i++)
			r->pooled[i % dim] += rows[i];
		if (at + n_rows == r->n_tokens)
			sreq_emit_embedding(r, r->pooled, dim); /* of unit length: the sum is as good as the mean */
	} else if (at + n_rows == r->n_tokens) {
		sreq_emit_embedding(r, rows + (size_t)(n_rows - 1) * dim, dim);
	}
}

/* Hands the rows of one prefilled chunk out: prompt logprobs, then the first token or the embedding. */
static void finish_prefill(struct eng_sched *s, const struct eng_step_seq *q, struct sreq *r, const struct rows *rows)
{
	uint32_t end = q->pos + q->n_ids, n_known = r->n_tokens;

	if (r->req.kind == ENG_EMBED) {
		if (q->n_out > 0)
			take_hidden(s, r, rows->all + rows->next * rows->stride, q->n_out, end - q->n_out);
		return;
	}
	if (q->pos == 0 && r->next_prompt_lp == 0) {
		sreq_emit_prompt(r, 0, NULL, s->exec.n_vocab);
		r->next_prompt_lp = 1;
	}
	for (uint32_t i = 0; i < q->n_out && !r->is_done; i++) {
		struct eng_row row = row_at(s, rows, i);
		uint32_t at = end - q->n_out + i;

		if (at + 1 < r->n_prompt && at + 1 >= r->next_prompt_lp) {
			sreq_emit_prompt(r, at + 1, eng_row_logits(&row), s->exec.n_vocab);
			r->next_prompt_lp = at + 2;
		} else if (at + 1 == n_known) {
			/* All of the prompt is out, whatever its last position was. */
			r->next_prompt_lp = r->n_prompt;
			sreq_take_token(s, r, &row);
		}
	}
}

/* One token, and one more for every draft that is what the model says itself. */
static void finish_decode(struct eng_sched *s, struct step_part *part, const struct rows *rows)
{
	struct sreq *r = part->r;
	uint32_t n_right = 0;
	bool goes_on = true;

	for (uint32_t i = 0; i <= part->n_draft && goes_on; i++) {
		int32_t guess = i < part->n_draft ? r->tokens[r->n_tokens] : -1;
		struct eng_row row = row_at(s, rows, i);

		sreq_take_token(s, r, &row);
		goes_on = !r->is_done && r->tokens[r->n_tokens - 1] == guess;
		n_right += i < part->n_draft && r->tokens[r->n_tokens - 1] == guess;
	}
	/* What was computed for wrong drafts is written over by what comes instead. */
	r->n_computed = r->n_tokens - 1;
	if (part->n_draft == 0)
		return;
	eng_draft_learn(r->draft, part->n_draft, n_right);
	(void)pthread_mutex_lock(&s->lock);
	s->stats.drafted_tokens += part->n_draft;
	s->stats.draft_hits += n_right;
	(void)pthread_mutex_unlock(&s->lock);
}

static uint32_t min_u32(uint32_t a, uint32_t b)
{
	return a < b ? a : b;
}

static void hand_out(struct eng_sched *s, const struct sched_step *step, const float *all)
{
	struct rows rows = { .all = all, .stride = step->is_embed ? s->exec.n_embd : s->exec.n_vocab };

	for (size_t i = 0; i < step->n; i++) {
		const struct eng_step_seq *q = &step->seqs[i];
		struct sreq *r = step->parts[i].r;

		rows.next += i > 0 ? q[-1].n_out : 0;
		/* Its text ended it, or its client went, while this was computed. */
		if (!r || r->is_done || atomic_load(&r->cancelled))
			continue;
		r->n_computed = q->pos + q->n_ids;
		if (step->parts[i].is_prefill)
			finish_prefill(s, q, r, &rows);
		else
			finish_decode(s, &step->parts[i], &rows);
		r->kv.n_tokens = r->n_computed;
		if (!s->config.no_prefix_cache)
			eng_kv_seq_publish(s->pool, &r->kv, r->tokens,
			                   s->exec.tells_prompts ? min_u32(r->n_computed, r->n_prompt) : r->n_computed);
		sched_keep(s, r, q, step->parts[i].is_prefill);
	}
}

void sched_fail(struct sched_step *step, int code, const struct err *why)
{
	for (size_t i = 0; i < step->n; i++) {
		struct sreq *r = step->parts[i].r;

		if (!r || r->is_done)
			continue;
		if (why->code)
			r->error = *why;
		else
			(void)err_set(&r->error, code, "%s", strerror(-code));
		sreq_end(r, ENG_FINISH_ERROR);
	}
}

/* Time is shared between prefill and decode by their tokens. */
static void count_step(struct eng_sched *s, const struct sched_step *step)
{
	uint64_t n_prefill = 0, n_decode = 0, prefill_ns, now = (uint64_t)base_now_ns(), ns;

	/* Behind another step it could not begin before that one had landed. */
	ns = now - (step->begin_ns > s->landed_ns ? step->begin_ns : s->landed_ns);
	s->landed_ns = now;
	for (size_t i = 0; i < step->n; i++) {
		if (step->parts[i].is_prefill)
			n_prefill += step->seqs[i].n_ids;
		else
			n_decode += step->seqs[i].n_ids;
	}
	prefill_ns = (uint64_t)((double)ns * (double)n_prefill / (double)(n_prefill + n_decode));
	eng_pace_learn(&s->pace, (uint32_t)n_prefill, (uint32_t)n_decode, ns);
	(void)pthread_mutex_lock(&s->lock);
	s->stats.prompt_tokens += n_prefill;
	s->stats.prefill_ns += prefill_ns;
	s->stats.decode_ns += ns - prefill_ns;
	s->stats.mask_wait_ns = s->masks.wait_ns;
	s->stats.n_steps++;
	s->stats.n_steps_ahead += step->is_ahead;
	s->stats.active_ns += now - s->active_since_ns;
	s->stats.device_busy_ns = s->exec.busy_ns ? s->exec.busy_ns(s->exec.ctx) : 0;
	(void)pthread_mutex_unlock(&s->lock);
	s->active_since_ns = now;
}

/* ---- In the air ---- */

/* The sequences' numbers are those without this step. */
static void unmark(const struct sched_step *step)
{
	for (size_t i = 0; i < step->n; i++) {
		if (step->parts[i].r)
			step->parts[i].r->n_flying = step->parts[i].r->n_pending = 0;
	}
}

static void set_flight(struct eng_sched *s, struct sched_step *step)
{
	bool was_up = s->flight != NULL, is_up = step != NULL; /* this thread alone changes it */

	/* Who waits for the end of all requests waits for this, too. */
	if (!was_up && is_up)
		sched_count_live(s, true);
	(void)pthread_mutex_lock(&s->lock);
	s->flight = step;
	(void)pthread_mutex_unlock(&s->lock);
	if (was_up && !is_up)
		sched_count_live(s, false);
}

void sched_land(struct eng_sched *s, struct sched_step *step, bool has_follower)
{
	const float *rows = NULL;
	struct err why = { 0 };
	int e = s->exec.wait(s->exec.ctx, &rows, &why);

	if (step->has_masks)
		sched_masks_end(&s->masks);
	/* What was given back while it was in the air is free. What is given back now may be in use by its follower. */
	eng_kv_pool_let_go(s->pool);
	eng_kv_pool_hold(s->pool, has_follower);
	if (step == s->flight)
		unmark(step);
	if (e < 0) {
		sched_fail(step, e, &why);
	} else {
		s->has_touched = true;
		count_step(s, step);
		hand_out(s, step, rows);
	}
	if (!has_follower && s->flight) {
		sched_count_pages(s); /* before anybody hears that all is done */
		set_flight(s, NULL);
	}
}

void sched_take_off(struct eng_sched *s, struct sched_step *step)
{
	uint32_t row = 0;

	for (size_t i = 0; i < step->n; i++) {
		const struct eng_step_seq *q = &step->seqs[i];
		struct sreq *r = step->parts[i].r;

		row += q->n_out;
		r->n_flying = q->n_ids;
		r->n_pending = q->n_out > 0 && q->pos + q->n_ids == r->n_tokens;
		r->flying_row = row - 1;
	}
	eng_kv_pool_hold(s->pool, true);
	set_flight(s, step);
	s->next = step == &s->steps[0] ? &s->steps[1] : &s->steps[0];
}

void sched_come_down(struct eng_sched *s)
{
	if (s->flight)
		sched_land(s, s->flight, false);
}

void sched_forget_flying(struct eng_sched *s, const struct sreq *r)
{
	for (size_t i = 0; s->flight && r->n_flying > 0 && i < s->flight->n; i++) {
		if (s->flight->parts[i].r == r)
			s->flight->parts[i].r = NULL;
	}
}
