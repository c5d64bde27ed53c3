/* Forming a step. All decoding sequences first, one token each and drafts where they pay; then prompts, as many
 * tokens as the step has left, or, while answers stream, as fit its time. The oldest prompt gets half of them, the
 * others share the rest evenly: a short prompt is not stuck behind a long one, and the long one goes on.
 * A step gives logits or hidden states, never both: when requests of both kinds run, steps alternate.
 *
 * Where the backend tells prompts from answers, a chunk holds tokens of one of them, so that an answer that is
 * computed again, after its request was set back, is computed as it was.
 *
 * Where the backend takes it, a step stays in the air while the next one is formed and begun behind it: the sequences
 * are taken as they will be when it has landed, and a token that it draws is named by its row. So the backend always
 * has something to do. It is landed first when that cannot be: where it gives rows, when a draft is likely to pay,
 * which needs the tokens, when pages run out, and for whatever an operator asks. Whoever turns out to have ended in it
 * is computed one token too far, which nobody looks at. */
#include "base/clock.h"
#include "sched/sched_internal.h"

struct budget {
	uint32_t tokens, rows;
};

static void add_part(struct eng_sched *s, size_t *n, struct sreq *r, uint32_t end, uint32_t n_out, bool is_prefill)
{
	struct sched_step *next = s->next;
	uint32_t at = sreq_at(r);

	next->parts[*n] = (struct step_part){ .r = r, .is_prefill = is_prefill };
	next->seqs[*n] = (struct eng_step_seq){ .pages = r->kv.pages,
		                                .ids = r->tokens + at,
		                                .n_ids = end - at,
		                                .from_row = at == r->n_tokens ? r->flying_row + 1 : 0,
		                                .pos = at,
		                                .n_out = n_out,
		                                .adapter = r->req.adapter,
		                                .is_answer = at >= r->n_prompt,
		                                .state = r->kv.state ? r->kv.state - 1 : 0,
		                                .output = r->req.kind == ENG_EMBED ? ENG_OUT_HIDDEN : ENG_OUT_LOGITS };
	sched_plan_keep(s, r, &next->seqs[*n]);
	(*n)++;
}

static bool takes_part(const struct eng_sched *s, const struct sreq *r, enum eng_request_kind kind, bool decoding)
{
	return r->req.kind == kind && !r->is_done && !r->load_tag && !sreq_will_end(r) &&
	       sreq_is_decoding(r) == decoding && !(decoding && s->split.answers);
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

	if (!r->draft || most == 0 || r->n_pending > 0)
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
	struct eng_step_seq *seqs = s->next->seqs;
	struct step_part *parts = s->next->parts;

	for (size_t i = 1; i < n; i++) {
		struct eng_step_seq q = seqs[i];
		struct step_part part = parts[i];
		size_t at = i;

		for (; at > 0 && seqs[at - 1].adapter > q.adapter; at--) {
			seqs[at] = seqs[at - 1];
			parts[at] = parts[at - 1];
		}
		seqs[at] = q;
		parts[at] = part;
	}
}

static size_t add_decodes(struct eng_sched *s, enum eng_request_kind kind, struct budget *b)
{
	size_t n = 0;
	double row_cost;

	for (uint32_t k = 0; k < s->n_running && b->tokens > 0 && b->rows > 0; k++) {
		struct sreq *r = s->running[(k + s->first_decode) % s->n_running];

		if (!takes_part(s, r, kind, true))
			continue;
		add_part(s, &n, r, sreq_len(r), 1, false);
		b->tokens--;
		b->rows--;
	}
	by_adapter(s, n);
	row_cost = eng_pace_row_cost(&s->pace, (uint32_t)n);
	for (size_t i = 0; i < n; i++)
		add_draft(s, &s->next->parts[i], &s->next->seqs[i], b, row_cost);
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

			r->take = takes_part(s, r, kind, false) && r->n_tokens <= tokens ? r->n_tokens : 0;
			tokens -= r->take;
		}
		return;
	}
	for (uint32_t k = 0; k < s->n_running; k++)
		n_prompts += takes_part(s, s->running[k], kind, false);
	if (n_prompts > 1) {
		first = tokens / 2;
		each = (tokens - first) / (n_prompts - 1);
	}
	for (uint32_t k = 0, seen = 0; k < s->n_running; k++) {
		struct sreq *r = s->running[k];

		r->take = 0;
		if (!takes_part(s, r, kind, false))
			continue;
		r->take = min_u32(seen++ == 0 ? first : each, r->n_tokens - sreq_at(r));
		tokens -= r->take;
	}
	/* What short prompts left over, the oldest first. */
	for (uint32_t k = 0; k < s->n_running && tokens > 0; k++) {
		struct sreq *r = s->running[k];
		uint32_t more;

		if (!takes_part(s, r, kind, false))
			continue;
		more = min_u32(tokens, r->n_tokens - sreq_at(r) - r->take);
		r->take += more;
		tokens -= more;
	}
}

static void add_prefill(struct eng_sched *s, size_t *n, struct sreq *r, struct budget *b)
{
	uint32_t from = sreq_at(r), end = from + r->take, row = sreq_first_row(r), rows = 0;

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

			if (r->take > 0 && (sreq_at(r) < r->n_prompt) == prompts)
				add_prefill(s, &n, r, &b);
		}
	}
	return n;
}

/* ---- Beginning it ---- */

/* Rows of which the best entries are enough for the sampler need not leave the backend. */
static void ask_for_picks(struct eng_sched *s, struct sched_step *step)
{
	struct kn_pick *picks = s->picks;

	for (size_t i = 0; i < step->n && s->exec.row; i++) {
		struct eng_step_seq *q = &step->seqs[i];

		if (q->output == ENG_OUT_LOGITS && q->n_out > 0 &&
		    sreq_wants_picks(step->parts[i].r, q->n_out, picks, &q->n_best))
			q->picks = picks;
		picks += q->n_out;
	}
}

/* Another step can be formed and begun before this one's results are known. */
static bool can_stay_up(const struct eng_sched *s, const struct sched_step *step)
{
	if (!s->exec.runs_ahead || step->is_embed)
		return false;
	for (size_t i = 0; i < step->n; i++) {
		if ((step->seqs[i].n_out > 0 && !step->seqs[i].picks) || step->parts[i].n_draft > 0)
			return false;
	}
	return true;
}

/* A draft is worth more than running ahead, and needs all tokens. */
static bool wants_tokens(struct eng_sched *s)
{
	double row_cost = eng_pace_row_cost(&s->pace, (uint32_t)s->flight->n);

	for (size_t i = 0; i < s->flight->n; i++) {
		struct sreq *r = s->flight->parts[i].r;

		if (r && r->draft && !r->is_done && r->n_pending > 0 && !sreq_will_end(r) &&
		    eng_draft_is_likely(r->draft, r->tokens, r->n_tokens, row_cost))
			return true;
	}
	return false;
}

/* Of those that get a token in this step. */
static void begin_masks(struct eng_sched *s, struct sched_step *step)
{
	step->has_masks = false;
	for (size_t i = 0; i < step->n; i++) {
		if (!step->parts[i].r->matcher || step->seqs[i].n_out == 0)
			continue;
		sched_masks_add(&s->masks, step->parts[i].r->matcher);
		step->has_masks = true;
	}
	sched_masks_begin(&s->masks);
}

static int begin(struct eng_sched *s, struct sched_step *step)
{
	struct err why = { 0 };
	int e;

	ask_for_picks(s, step);
	step->is_ahead = s->flight != NULL;
	step->begin_ns = (uint64_t)base_now_ns();
	if (!s->active_since_ns)
		s->active_since_ns = step->begin_ns;
	begin_masks(s, step);
	sched_tier_before(s, step->seqs, step->n);
	e = s->exec.begin(s->exec.ctx, step->seqs, step->n, &why);
	if (e < 0) {
		if (step->has_masks)
			sched_masks_end(&s->masks);
		sched_fail(step, e, &why);
	}
	return e;
}

/* Into s->next; false: there is nothing to compute. */
static bool form(struct eng_sched *s)
{
	enum eng_request_kind kind = s->last_was_embed ? ENG_GENERATE : ENG_EMBED;

	s->next->n = form_step(s, kind);
	if (s->next->n == 0) {
		kind = kind == ENG_EMBED ? ENG_GENERATE : ENG_EMBED;
		s->next->n = form_step(s, kind);
	}
	if (s->next->n == 0)
		return false;
	s->next->is_embed = s->last_was_embed = kind == ENG_EMBED;
	s->first_decode = s->first_decode + 1 < s->n_running ? s->first_decode + 1 : 0;
	return true;
}

bool sched_step(struct eng_sched *s)
{
	struct sched_step *step = s->next, *before;
	bool was_up = s->flight != NULL;

	if (was_up && !s->split.answers && wants_tokens(s))
		sched_come_down(s);
	if (!form(s)) {
		sched_come_down(s);
		sched_say(s);
		return was_up;
	}
	if (begin(s, step) < 0)
		return true;
	/* Meanwhile the tokens of the step before are said. */
	if (s->exec.is_async)
		sched_say(s);
	before = s->flight;
	if (before)
		sched_land(s, before, true);
	if (can_stay_up(s, step))
		sched_take_off(s, step);
	else
		sched_land(s, step, false);
	if (!s->exec.is_async)
		sched_say(s);
	sched_count_pages(s);
	return true;
}
