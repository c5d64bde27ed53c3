/* Recurrent states: a sequence's own, and checkpoints beside the prefix tree.
 *
 * A state cannot be cut back, so a prefix can be taken over only where somebody kept a copy as it passed: every
 * checkpoint_pages pages of a prompt, at its last full page, where a prompt that waits or came before takes another
 * way, and at the newest full page of an answer (which the next turn of a conversation begins with). Steps of a prompt
 * end at those places. What the tree has of pages behind its last checkpoint is computed again. */
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

/* The last page's end that leaves a token to be computed. */
static uint32_t prompt_end(const struct eng_sched *s, const struct sreq *r)
{
	return (r->n_tokens - 1) / s->exec.kv.page_tokens * s->exec.kv.page_tokens;
}

static uint32_t earlier(const struct sreq *r, uint32_t stop, uint32_t at)
{
	return at > r->n_computed && at < stop ? at : stop;
}

uint32_t sreq_next_stop(const struct eng_sched *s, const struct sreq *r)
{
	uint32_t stop = r->n_tokens;

	if (!has_states(s))
		return stop;
	stop = earlier(r, stop, (r->n_computed / interval(s) + 1) * interval(s));
	stop = earlier(r, stop, prompt_end(s, r));
	return earlier(r, stop, r->mark);
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

void sched_keep_state(struct eng_sched *s, struct sreq *r, bool is_prefill)
{
	uint32_t slot;
	bool usual = r->n_computed % interval(s) == 0;

	/* Where answers are told from prompts, the tree holds no pages of answers. */
	if (s->exec.tells_prompts && r->n_computed > r->n_prompt)
		return;
	if (!has_states(s) || r->n_computed == 0 || r->n_computed % s->exec.kv.page_tokens != 0)
		return;
	/* A step that was cut short by chance leaves none. */
	if (is_prefill && !usual && r->n_computed != r->mark && r->n_computed != prompt_end(s, r))
		return;
	slot = eng_kv_seq_checkpoint(s->pool, &r->kv, !is_prefill && !usual);
	if (slot)
		s->exec.state_copy(s->exec.ctx, slot - 1, r->kv.state - 1);
}
