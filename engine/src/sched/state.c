/* Recurrent states: a sequence's own, and checkpoints beside the prefix tree.
 *
 * A state cannot be cut back, so a prefix can be taken over only where somebody kept a copy as it passed: every
 * checkpoint_pages pages of a prompt, at its last page's end that leaves a token to be computed, where a prompt that
 * waits or came before takes another way, and at the newest full page of an answer (which the next turn of a
 * conversation begins with). The step that passes the place leaves the copy, one for each sequence: it ends before a
 * second one. What the tree has of pages behind its last checkpoint is computed again. */
#include "sched/sched_internal.h"

static bool has_states(const struct eng_sched *s)
{
	return s->exec.kv.n_states > 0 && !s->config.no_prefix_cache;
}

static uint32_t interval(const struct eng_sched *s)
{
	uint32_t pages = s->exec.kv.checkpoint_pages;

	return (pages ? pages : 1) * s->exec.kv.page_tokens;
}

static uint32_t earlier(uint32_t after, uint32_t first, uint32_t at)
{
	return at > after && at < first ? at : first;
}

/* The first place behind `after` tokens where a checkpoint is wanted; UINT32_MAX: none. */
static uint32_t next_place(const struct eng_sched *s, const struct sreq *r, uint32_t after)
{
	uint32_t page = s->exec.kv.page_tokens, last = r->n_tokens - 1, at;

	at = (after / interval(s) + 1) * interval(s);
	at = earlier(after, at, last / page * page);
	at = earlier(after, at, r->mark);
	if (sreq_is_decoding(r)) { /* an answer: with its newest token it may fill a page */
		last = r->n_tokens;
		at = (after / page + 1) * page;
	}
	/* Where answers are told from prompts, the tree holds no pages of answers. */
	if (s->exec.tells_prompts && last > r->n_prompt)
		last = r->n_prompt;
	return at <= last ? at : UINT32_MAX;
}

uint32_t sched_step_end(const struct eng_sched *s, const struct sreq *r, uint32_t end)
{
	uint32_t first, second;

	if (!has_states(s))
		return end;
	first = next_place(s, r, r->n_computed);
	if (!s->exec.kv.keeps_in_step)
		return first < end ? first : end;
	second = first < end ? next_place(s, r, first) : UINT32_MAX;
	return second <= end ? first : end;
}

void sched_plan_keep(struct eng_sched *s, struct sreq *r, struct eng_step_seq *q)
{
	uint32_t at, slot;

	if (!has_states(s))
		return;
	at = next_place(s, r, q->pos);
	slot = at <= q->pos + q->n_ids ? eng_kv_seq_keep(s->pool, &r->kv) : 0;
	if (slot && s->exec.kv.keeps_in_step) {
		q->keep = slot - 1;
		q->keep_after = at - q->pos;
	}
}

void sched_keep(struct eng_sched *s, struct sreq *r, const struct eng_step_seq *q, bool is_prefill)
{
	uint32_t at = q->pos + (q->keep_after ? q->keep_after : q->n_ids);

	if (!r->kv.keep)
		return;
	if (!q->keep_after)
		s->exec.state_copy(s->exec.ctx, r->kv.keep - 1, r->kv.state - 1);
	eng_kv_seq_checkpoint(s->pool, &r->kv, at / s->exec.kv.page_tokens, !is_prefill && at % interval(s) != 0);
}

void sreq_mark(struct sreq *r, uint32_t at)
{
	if (r->mark <= r->n_computed || at < r->mark)
		r->mark = at;
}

int sched_begin_state(struct eng_sched *s, struct sreq *r)
{
	uint32_t from = 0;
	int e;

	if (s->exec.kv.n_states == 0)
		return 0;
	e = eng_kv_seq_take_state(s->pool, &r->kv, &from);
	if (e < 0)
		return e;
	if (from)
		s->exec.state_copy(s->exec.ctx, r->kv.state - 1, from - 1);
	return 0;
}
