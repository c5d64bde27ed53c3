/* Forming a step. All decoding sequences first, one token each, then prompts in the order of admission
 * until the step's tokens or output rows are used up; so a long prompt is computed in chunks beside
 * running decodes. A step gives logits or hidden states, never both: when requests of both kinds run,
 * steps alternate. */
#include <errno.h>
#include <string.h>
#include <time.h>

#include "sched/sched_internal.h"

static uint64_t now_ns(void)
{
	struct timespec ts;

	(void)clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000000000u + (uint64_t)ts.tv_nsec;
}

struct budget {
	uint32_t tokens, rows;
};

static bool is_decoding(const struct sreq *r)
{
	return r->n_computed >= r->n_prompt;
}

/* Position of the first token whose output row is needed. */
static uint32_t first_row(const struct sreq *r)
{
	uint32_t last = r->n_prompt - 1;
	int64_t start = r->req.logprob_start;

	if (r->req.kind == ENG_EMBED || start < 0 || start > (int64_t)last)
		return last;
	/* The logprob of position p comes from the row of p - 1. */
	return start > 0 ? (uint32_t)start - 1 : 0;
}

static void add_part(struct eng_sched *s, size_t *n, struct sreq *r, uint32_t end, uint32_t n_out)
{
	s->parts[*n] = (struct step_part){ r, !is_decoding(r) };
	s->seqs[*n] = (struct eng_step_seq){ .pages = r->kv.pages,
		                             .ids = r->tokens + r->n_computed,
		                             .n_ids = end - r->n_computed,
		                             .pos = r->n_computed,
		                             .n_out = n_out,
		                             .output = r->req.kind == ENG_EMBED ? ENG_OUT_HIDDEN : ENG_OUT_LOGITS };
	(*n)++;
}

static void add_prefill(struct eng_sched *s, size_t *n, struct sreq *r, struct budget *b)
{
	uint32_t from = r->n_computed, end = r->n_prompt, row = first_row(r), rows = 0;

	if (end - from > b->tokens)
		end = from + b->tokens;
	if (end > row) {
		rows = end - (from > row ? from : row);
		if (rows > b->rows) {
			end -= rows - b->rows;
			rows = b->rows;
		}
	}
	if (end <= from)
		return;
	add_part(s, n, r, end, rows);
	b->tokens -= end - from;
	b->rows -= rows;
}

static size_t form_step(struct eng_sched *s, enum eng_request_kind kind)
{
	struct budget b = { s->exec.max_tokens, s->exec.max_outputs };
	size_t n = 0;

	for (uint32_t k = 0; k < s->n_running && b.tokens > 0 && b.rows > 0; k++) {
		struct sreq *r = s->running[(k + s->first_decode) % s->n_running];

		if (r->req.kind != kind || r->is_done || !is_decoding(r))
			continue;
		add_part(s, &n, r, r->n_tokens, 1);
		b.tokens--;
		b.rows--;
	}
	for (uint32_t k = 0; k < s->n_running && b.tokens > 0; k++) {
		struct sreq *r = s->running[k];

		if (r->req.kind == kind && !r->is_done && !is_decoding(r))
			add_prefill(s, &n, r, &b);
	}
	return n;
}

/* Hands the rows of one prefilled chunk out: prompt logprobs, then the first token or the embedding. */
static void finish_prefill(struct eng_sched *s, const struct eng_step_seq *q, struct sreq *r, const float *rows,
                           size_t stride)
{
	uint32_t end = q->pos + q->n_ids;

	if (q->pos == 0 && r->req.kind == ENG_GENERATE && r->req.logprob_start == 0)
		sreq_emit_prompt(r, 0, NULL, s->exec.n_vocab);
	for (uint32_t i = 0; i < q->n_out && !r->is_done; i++) {
		uint32_t at = end - q->n_out + i;

		if (at + 1 < r->n_prompt)
			sreq_emit_prompt(r, at + 1, rows + i * stride, s->exec.n_vocab);
		else if (r->req.kind == ENG_EMBED)
			sreq_emit_embedding(r, rows + i * stride, s->exec.n_embd);
		else
			sreq_take_token(s, r, rows + i * stride);
	}
}

static void hand_out(struct eng_sched *s, size_t n, const float *rows, size_t stride)
{
	for (size_t i = 0; i < n; i++) {
		const struct eng_step_seq q = s->seqs[i];
		struct sreq *r = s->parts[i].r;

		r->n_computed = q.pos + q.n_ids;
		r->kv.n_tokens = r->n_computed;
		if (s->parts[i].is_prefill)
			finish_prefill(s, &q, r, rows, stride);
		else
			sreq_take_token(s, r, rows);
		rows += q.n_out * stride;
	}
}

/* The step failed: the requests in it end with the reason, the others go on. */
static void fail_parts(struct eng_sched *s, size_t n, int code, const struct err *why)
{
	for (size_t i = 0; i < n; i++) {
		struct sreq *r = s->parts[i].r;

		if (why->code)
			r->error = *why;
		else
			(void)err_set(&r->error, code, "%s", strerror(-code));
		sreq_end(r, ENG_FINISH_ERROR);
	}
}

/* Time is shared between prefill and decode by their tokens. */
static void count_step(struct eng_sched *s, size_t n, uint64_t ns)
{
	uint64_t n_prefill = 0, n_decode = 0, prefill_ns;

	for (size_t i = 0; i < n; i++) {
		if (s->parts[i].is_prefill)
			n_prefill += s->seqs[i].n_ids;
		else
			n_decode += s->seqs[i].n_ids;
	}
	prefill_ns = (uint64_t)((double)ns * (double)n_prefill / (double)(n_prefill + n_decode));
	(void)pthread_mutex_lock(&s->lock);
	s->stats.prompt_tokens += n_prefill;
	s->stats.prefill_ns += prefill_ns;
	s->stats.decode_ns += ns - prefill_ns;
	for (size_t i = 0; i < n; i++) {
		const struct eng_step_seq *q = &s->seqs[i];

		/* The row of the last prompt token gives an output token too. */
		if (q->output == ENG_OUT_LOGITS && q->n_out > 0 && q->pos + q->n_ids >= s->parts[i].r->n_prompt)
			s->stats.output_tokens++;
	}
	(void)pthread_mutex_unlock(&s->lock);
}

void sched_step(struct eng_sched *s)
{
	enum eng_request_kind kind = s->last_was_embed ? ENG_GENERATE : ENG_EMBED;
	const float *rows = NULL;
	struct err why = { 0 };
	uint64_t begin;
	size_t n;
	int e;

	n = form_step(s, kind);
	if (n == 0) {
		kind = kind == ENG_EMBED ? ENG_GENERATE : ENG_EMBED;
		n = form_step(s, kind);
	}
	if (n == 0)
		return;
	s->last_was_embed = kind == ENG_EMBED;
	s->first_decode = s->first_decode + 1 < s->n_running ? s->first_decode + 1 : 0;

	begin = now_ns();
	e = s->exec.step(s->exec.ctx, s->seqs, n, &rows, &why);
	if (e < 0) {
		fail_parts(s, n, e, &why);
		return;
	}
	count_step(s, n, now_ns() - begin);
	hand_out(s, n, rows, kind == ENG_EMBED ? s->exec.n_embd : s->exec.n_vocab);
}
