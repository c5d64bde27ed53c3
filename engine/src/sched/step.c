/* Forming a step. All decoding sequences first, one token each and drafts where they pay; then prompts, as many
 * tokens as the step has left, or, while answers stream, as fit its time. The oldest prompt gets half of them, the
 * others share the rest evenly: a short prompt is not stuck behind a long one, and the long one goes on.
 * A step gives logits or hidden states, never both: when requests of both kinds run, steps alternate.
 *
 * Where the backend tells prompts from answers, a chunk holds tokens of one of them, so that an answer that is
 * computed again, after its request was set back, is computed as it was. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "sched/sched_internal.h"

struct budget {
	uint32_t tokens, rows;
};

static void add_part(struct eng_sched *s, size_t *n, struct sreq *r, uint32_t end, uint32_t n_out, bool is_prefill)
{
	s->parts[*n] = (struct step_part){ .r = r, .is_prefill = is_prefill };
	s->seqs[*n] = (struct eng_step_seq){ .pages = r->kv.pages,
		                             .ids = r->tokens + r->n_computed,
		                             .n_ids = end - r->n_computed,
		                             .pos = r->n_computed,
		                             .n_out = n_out,
		                             .adapter = r->req.adapter,
		                             .is_answer = r->n_computed >= r->n_prompt,
		                             .state = r->kv.state ? r->kv.state - 1 : 0,
		                             .output = r->req.kind == ENG_EMBED ? ENG_OUT_HIDDEN : ENG_OUT_LOGITS };
	sched_plan_keep(s, r, &s->seqs[*n]);
	(*n)++;
}

static bool takes_part(const struct sreq *r, enum eng_request_kind kind, bool decoding)
{
	return r->req.kind == kind && !r->is_done && !r->load_tag && sreq_is_decoding(r) == decoding;
}

/* ---- Decoding ---- */

static uint32_t min_u32(uint32_t a, uint32_t b)
{
	return a < b ? a : b;
}

/* Drafts go behind the newest token, where the answer would be written. */
static void add_draft(struct eng_sched *s, struct step_part *part, struct eng_step_seq *q, struct budget *b,
                      double row_cost)
{
	struct sreq *r = part->r;
	uint32_t most = min_u32(min_u32(b->tokens, b->rows), r->max_new - r->n_output - 1), n;

	if (!r->draft || most == 0)
		return;
	n = eng_draft_make(r->draft, r->tokens, r->n_tokens, most, row_cost, r->tokens + r->n_tokens);
	/* A guess is not worth anybody's pages but cached ones. */
	while (n > 0 && eng_kv_seq_reserve(s->pool, &r->kv, r->n_tokens + n) < 0)
		n--;
	part->n_draft = n;
	q->pages = r->kv.pages;
	q->n_ids += n;
	q->n_out += n;
	b->tokens -= n;
	b->rows -= n;
}

/* Those of one adapter next to each other: the backend takes their rows together. */
static void by_adapter(struct eng_sched *s, size_t n)
{
	for (size_t i = 1; i < n; i++) {
		struct eng_step_seq q = s->seqs[i];
		struct step_part part = s->parts[i];
		size_t at = i;

		for (; at > 0 && s->seqs[at - 1].adapter > q.adapter; at--) {
			s->seqs[at] = s->seqs[at - 1];
			s->parts[at] = s->parts[at - 1];
		}
		s->seqs[at] = q;
		s->parts[at] = part;
	}
}

static size_t add_decodes(struct eng_sched *s, enum eng_request_kind kind, struct budget *b)
{
	size_t n = 0;
	double row_cost;

	for (uint32_t k = 0; k < s->n_running && b->tokens > 0 && b->rows > 0; k++) {
		struct sreq *r = s->running[(k + s->first_decode) % s->n_running];

		if (!takes_part(r, kind, true))
			continue;
		add_part(s, &n, r, r->n_tokens, 1, false);
		b->tokens--;
		b->rows--;
	}
	by_adapter(s, n);
	row_cost = eng_pace_row_cost(&s->pace, (uint32_t)n);
	for (size_t i = 0; i < n; i++)
		add_draft(s, &s->parts[i], &s->seqs[i], b, row_cost);
	return n;
}

/* ---- Prompts ---- */

/* How many of `tokens` each prompt gets, into sreq.take. */
static void share_out(struct eng_sched *s, enum eng_request_kind kind, uint32_t tokens)
{
	uint32_t n_prompts = 0, first = tokens, each = 0;

	if (s->config.whole_prompts) {
		for (uint32_t k = 0; k < s->n_running; k++) {
			struct sreq *r = s->running[k];

			r->take = takes_part(r, kind, false) && r->n_tokens <= tokens ? r->n_tokens : 0;
			tokens -= r->take;
		}
		return;
	}
	for (uint32_t k = 0; k < s->n_running; k++)
		n_prompts += takes_part(s->running[k], kind, false);
	if (n_prompts > 1) {
		first = tokens / 2;
		each = (tokens - first) / (n_prompts - 1);
	}
	for (uint32_t k = 0, seen = 0; k < s->n_running; k++) {
		struct sreq *r = s->running[k];

		r->take = 0;
		if (!takes_part(r, kind, false))
			continue;
		r->take = min_u32(seen++ == 0 ? first : each, r->n_tokens - r->n_computed);
		tokens -= r->take;
	}
	/* What short prompts left over, the oldest first. */
	for (uint32_t k = 0; k < s->n_running && tokens > 0; k++) {
		struct sreq *r = s->running[k];
		uint32_t more;

		if (!takes_part(r, kind, false))
			continue;
		more = min_u32(tokens, r->n_tokens - r->n_computed - r->take);
		r->take += more;
		tokens -= more;
	}
}

static void add_prefill(struct eng_sched *s, size_t *n, struct sreq *r, struct budget *b)
{
	uint32_t from = r->n_computed, end = from + r->take, row = sreq_first_row(r), rows = 0;

	if (s->exec.tells_prompts && from < r->n_prompt)
		end = min_u32(end, r->n_prompt);
	end = sched_step_end(s, r, end);
	if (end > row) {
		rows = end - (from > row ? from : row);
		if (rows > b->rows) {
			end -= rows - b->rows;
			rows = b->rows;
		}
	}
	if (end <= from)
		return;
	add_part(s, n, r, end, rows, true);
	b->tokens -= end - from;
	b->rows -= rows;
}

static size_t form_step(struct eng_sched *s, enum eng_request_kind kind)
{
	struct budget b = { s->exec.max_tokens, s->exec.max_outputs };
	size_t n = add_decodes(s, kind, &b);
	uint32_t tokens = b.tokens;

	if (n > 0)
		tokens = min_u32(tokens, eng_pace_prompt_tokens(&s->pace, s->config.step_ms * (uint64_t)1000000));
	share_out(s, kind, tokens);
	/* Answers that are computed again, then prompts. */
	for (int prompts = 0; prompts < 2; prompts++) {
		for (uint32_t k = 0; k < s->n_running; k++) {
			struct sreq *r = s->running[k];

			if (r->take > 0 && (r->n_computed < r->n_prompt) == prompts)
				add_prefill(s, &n, r, &b);
		}
	}
	return n;
}

/* Rows of which the best entries are enough for the sampler need not leave the backend. */
static void ask_for_picks(struct eng_sched *s, size_t n)
{
	struct kn_pick *picks = s->picks;

	for (size_t i = 0; i < n && s->exec.row; i++) {
		struct eng_step_seq *q = &s->seqs[i];

		if (q->output == ENG_OUT_LOGITS && q->n_out > 0 &&
		    sreq_wants_picks(s->parts[i].r, q->n_out, picks, &q->n_best))
			q->picks = picks;
		picks += q->n_out;
	}
}

/* ---- Results ---- */

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

static void hand_out(struct eng_sched *s, size_t n, const float *all, size_t stride)
{
	struct rows rows = { .all = all, .stride = stride };

	for (size_t i = 0; i < n; i++) {
		const struct eng_step_seq q = s->seqs[i];
		struct sreq *r = s->parts[i].r;

		rows.next += i > 0 ? s->seqs[i - 1].n_out : 0;
		/* Its text ended it, or its client went, while this was computed. */
		if (r->is_done || atomic_load(&r->cancelled))
			continue;
		r->n_computed = q.pos + q.n_ids;
		if (s->parts[i].is_prefill)
			finish_prefill(s, &q, r, &rows);
		else
			finish_decode(s, &s->parts[i], &rows);
		r->kv.n_tokens = r->n_computed;
		if (!s->config.no_prefix_cache)
			eng_kv_seq_publish(s->pool, &r->kv, r->tokens,
			                   s->exec.tells_prompts ? min_u32(r->n_computed, r->n_prompt) : r->n_computed);
		sched_keep(s, r, &q, s->parts[i].is_prefill);
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
	eng_pace_learn(&s->pace, (uint32_t)n_prefill, (uint32_t)n_decode, ns);
	(void)pthread_mutex_lock(&s->lock);
	s->stats.prompt_tokens += n_prefill;
	s->stats.prefill_ns += prefill_ns;
	s->stats.decode_ns += ns - prefill_ns;
	s->stats.mask_wait_ns = s->masks.wait_ns;
	(void)pthread_mutex_unlock(&s->lock);
}

static int compute(struct eng_sched *s, size_t n, const float **ret_rows, struct err *err)
{
	int e;

	if (!s->exec.begin)
		return s->exec.step(s->exec.ctx, s->seqs, n, ret_rows, err);
	e = s->exec.begin(s->exec.ctx, s->seqs, n, err);
	sched_say(s);
	return e < 0 ? e : s->exec.wait(s->exec.ctx, ret_rows, err);
}

/* Of those that get a token in this step. */
static void begin_masks(struct eng_sched *s, size_t n)
{
	for (size_t i = 0; i < n; i++) {
		if (s->parts[i].r->matcher && s->seqs[i].n_out > 0)
			sched_masks_add(&s->masks, s->parts[i].r->matcher);
	}
	sched_masks_begin(&s->masks);
}

bool sched_step(struct eng_sched *s)
{
	enum eng_request_kind kind = s->last_was_embed ? ENG_GENERATE : ENG_EMBED;
	const float *rows = NULL;
	struct err why = { 0 };
	uint64_t begin, ns;
	size_t n;
	int e;

	n = form_step(s, kind);
	if (n == 0) {
		kind = kind == ENG_EMBED ? ENG_GENERATE : ENG_EMBED;
		n = form_step(s, kind);
	}
	if (n == 0)
		return false;
	s->last_was_embed = kind == ENG_EMBED;
	s->first_decode = s->first_decode + 1 < s->n_running ? s->first_decode + 1 : 0;

	ask_for_picks(s, n);
	begin = sched_now_ns();
	begin_masks(s, n);
	e = compute(s, n, &rows, &why);
	ns = sched_now_ns() - begin;
	sched_masks_end(&s->masks);
	if (e < 0) {
		fail_parts(s, n, e, &why);
		return true;
	}
	s->has_touched = true;
	count_step(s, n, ns);
	hand_out(s, n, rows, kind == ENG_EMBED ? s->exec.n_embd : s->exec.n_vocab);
	if (!s->exec.begin)
		sched_say(s);
	sched_count_pages(s);
	return true;
}
