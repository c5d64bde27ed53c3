/* One request inside the scheduler: deep copies at birth, its events, and when it ends. */
#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "grammar/grammar.h"
#include "sched/sched_internal.h"

enum { PIECE_MAX = 1 << 20, MAX_STOPS = 256 };

/* ---- Checks and copies ---- */

static int check_ids(const int32_t *ids, size_t n, uint32_t n_vocab, struct err *err)
{
	for (size_t i = 0; i < n; i++) {
		if (ids[i] < 0 || (uint32_t)ids[i] >= n_vocab)
			return err_set(err, -EINVAL, "token id %d at position %zu is outside the vocabulary of %u",
			               ids[i], i, n_vocab);
	}
	return 0;
}

static int check_request(const struct eng_sched *s, const struct eng_request *req, struct err *err)
{
	int r;

	if (!req->on_event)
		return err_set(err, -EINVAL, "a request needs an event function");
	if (req->n_ids == 0 || !req->ids)
		return err_set(err, -EINVAL, "the prompt is empty");
	if (req->n_ids > s->n_ctx)
		return err_set(err, -EINVAL, "the prompt has %zu tokens, the context holds %u", req->n_ids, s->n_ctx);
	if (req->n_top > ENG_MAX_TOP)
		return err_set(err, -EINVAL, "%u alternatives per token asked for, at most %d are given", req->n_top,
		               ENG_MAX_TOP);
	if (req->n_scored > ENG_MAX_SCORED)
		return err_set(err, -EINVAL, "log-probabilities of %zu tokens asked for, at most %d are given",
		               req->n_scored, ENG_MAX_SCORED);
	r = check_ids(req->scored, req->n_scored, s->exec.n_vocab, err);
	if (r < 0)
		return r;
	if (req->n_stops > MAX_STOPS || req->n_stop_ids > MAX_STOPS)
		return err_set(err, -EINVAL, "more than %d stop strings or stop ids", MAX_STOPS);
	return check_ids(req->ids, req->n_ids, s->exec.n_vocab, err);
}

static void *copy_array(const void *src, size_t n, size_t size)
{
	void *p = calloc(n ? n : 1, size);

	if (p && n)
		memcpy(p, src, n * size);
	return p;
}

static int copy_stops(struct sreq *r, const struct eng_request *req)
{
	char **stops = calloc(req->n_stops ? req->n_stops : 1, sizeof(*stops));

	if (!stops)
		return -ENOMEM;
	r->req.stops = (const char *const *)stops;
	r->req.n_stops = req->n_stops;
	for (size_t i = 0; i < req->n_stops; i++) {
		stops[i] = strdup(req->stops[i]);
		if (!stops[i])
			return -ENOMEM;
	}
	return 0;
}

static int copy_request(struct sreq *r, const struct eng_request *req)
{
	r->req = *req;
	r->req.ids = NULL; /* tokens has them */
	r->req.stops = NULL;
	r->req.n_stops = 0;
	if (req->grammar)
		r->req.grammar = eng_grammar_ref(req->grammar);
	r->req.stop_ids = copy_array(req->stop_ids, req->n_stop_ids, sizeof(*req->stop_ids));
	r->req.scored = copy_array(req->scored, req->n_scored, sizeof(*req->scored));
	r->scored = calloc(req->n_scored + 1, sizeof(*r->scored));
	r->req.sampling.logit_bias =
	        copy_array(req->sampling.logit_bias, req->sampling.n_logit_bias, sizeof(*req->sampling.logit_bias));
	if (!r->req.stop_ids || !r->req.sampling.logit_bias || !r->req.scored || !r->scored)
		return -ENOMEM;
	return copy_stops(r, req);
}

/* Tokens of output that fit behind the prompt. The last one is never fed back, so a prompt that fills the
 * context still has room for one. */
static uint32_t clip_max_new(const struct eng_sched *s, const struct eng_request *req)
{
	uint32_t room = s->n_ctx - (uint32_t)req->n_ids;

	if (req->kind == ENG_EMBED)
		return 0;
	if (room == 0)
		room = 1;
	return req->max_new == 0 || req->max_new > room ? room : req->max_new;
}

/* One running hash, noted at each page's end: equal hashes, equal beginnings. A collision only makes a request wait
 * for another one without need. */
static int hash_prefixes(struct sreq *r, uint32_t page_tokens)
{
	uint64_t h = r->req.adapter;

	r->prefix_hash = calloc(r->n_prompt / page_tokens + 1, sizeof(*r->prefix_hash));
	if (!r->prefix_hash)
		return -ENOMEM;
	for (uint32_t i = 0; i < r->n_prompt; i++) {
		h = (h ^ (uint32_t)r->tokens[i]) * 0x9e3779b97f4a7c15u + 1;
		h ^= h >> 29;
		if ((i + 1) % page_tokens == 0)
			r->prefix_hash[i / page_tokens] = h;
	}
	return 0;
}

int sreq_new(const struct eng_sched *s, const struct eng_request *req, struct sreq **ret_r, struct err *err)
{
	struct sreq *r;
	int e;

	e = check_request(s, req, err);
	if (e < 0)
		return e;
	r = calloc(1, sizeof(*r));
	if (!r)
		return err_set(err, -ENOMEM, "out of memory");
	r->stop_id = -1;
	r->n_prompt = r->n_tokens = (uint32_t)req->n_ids;
	r->max_new = clip_max_new(s, req);
	base_buf_init(&r->piece, PIECE_MAX);
	r->tokens = calloc((size_t)r->n_prompt + r->max_new, sizeof(*r->tokens));
	if (!r->tokens || copy_request(r, req) < 0) {
		sreq_free(r);
		return err_set(err, -ENOMEM, "out of memory");
	}
	memcpy(r->tokens, req->ids, req->n_ids * sizeof(*req->ids));
	r->next_prompt_lp = r->n_prompt;
	if (req->kind == ENG_GENERATE && req->logprob_start >= 0 && req->logprob_start < (int64_t)r->n_prompt)
		r->next_prompt_lp = (uint32_t)req->logprob_start;
	/* The last token's state needs one row, others all of them. */
	if (req->kind == ENG_EMBED && (s->config.pooling == ENG_POOL_MEAN || s->config.pooling == ENG_POOL_CLS))
		r->next_prompt_lp = 0;
	if (hash_prefixes(r, s->exec.kv.page_tokens) < 0) {
		sreq_free(r);
		return err_set(err, -ENOMEM, "out of memory");
	}
	*ret_r = r;
	return 0;
}

void sreq_free(struct sreq *r)
{
	if (!r)
		return;
	for (size_t i = 0; i < r->req.n_stops; i++)
		free((char *)r->req.stops[i]);
	free((void *)r->req.stops);
	free((void *)r->req.stop_ids);
	free((void *)r->req.scored);
	free(r->scored);
	free((void *)r->req.sampling.logit_bias);
	free(r->prefix_hash);
	free(r->pooled);
	free(r->keys);
	eng_draft_free(r->draft);
	eng_matcher_free(r->matcher);
	eng_grammar_unref(r->req.grammar);
	eng_sampler_free(r->sampler);
	eng_textout_done(&r->text);
	base_buf_done(&r->piece);
	free(r->tokens);
	free(r);
}

int sreq_start(const struct eng_sched *s, struct sreq *r)
{
	int e;

	if (r->req.kind == ENG_EMBED)
		return 0;
	/* The n answers of one prompt have different seeds even when none was given. */
	if (s->config.deterministic)
		r->req.sampling.has_seed = true;
	if (!s->config.no_speculation && !s->exec.kv.cannot_rewind && r->max_new > 1) {
		e = eng_draft_new(r->n_prompt + r->max_new, &r->draft);
		if (e < 0)
			return e;
	}
	e = r->req.grammar ? eng_matcher_new(r->req.grammar, &r->matcher) : 0;
	if (e == 0)
		e = eng_sampler_new(&r->req.sampling, s->exec.n_vocab, &r->sampler);
	if (e < 0)
		return e;
	for (uint32_t i = 0; i < r->n_prompt; i++)
		eng_sampler_accept(r->sampler, r->tokens[i], false);
	return eng_textout_init(&r->text, s->config.tokenizer, &r->req);
}

/* ---- Events ---- */

void sreq_end(struct sreq *r, enum eng_finish finish)
{
	if (r->is_done)
		return;
	r->is_done = true;
	r->finish = finish;
}

static void end_with_error(struct sreq *r, int code)
{
	if (r->error.code == 0)
		(void)err_set(&r->error, code, "%s", strerror(-code));
	sreq_end(r, ENG_FINISH_ERROR);
}

void sreq_emit_prompt(struct sreq *r, uint32_t position, const float *logits, uint32_t n_vocab)
{
	struct eng_top top[ENG_MAX_TOP];
	struct eng_event ev = { .kind = ENG_EV_PROMPT,
		                .request_id = r->id,
		                .id = r->tokens[position],
		                .position = position,
		                .stop_id = -1 };

	if (logits) {
		ev.has_logprob = true;
		ev.logprob = eng_logprobs(logits, n_vocab, ev.id, r->req.n_top, top);
		ev.top = top;
		ev.n_top = r->req.n_top;
		if (r->req.n_scored > 0) {
			eng_logprobs_of(logits, n_vocab, r->req.scored, r->req.n_scored, r->scored);
			ev.scored = r->scored;
		}
	}
	r->req.on_event(r->req.arg, &ev);
}

void sreq_emit_embedding(struct sreq *r, const float *hidden, uint32_t n_embd)
{
	float *unit = calloc(n_embd, sizeof(*unit));
	struct eng_event ev = { .kind = ENG_EV_EMBED, .request_id = r->id, .n_embedding = n_embd, .stop_id = -1 };
	double sum = 0;

	if (!unit) {
		end_with_error(r, -ENOMEM);
		return;
	}
	for (uint32_t i = 0; i < n_embd; i++)
		sum += (double)hidden[i] * hidden[i];
	for (uint32_t i = 0; i < n_embd; i++)
		unit[i] = sum > 0 ? (float)(hidden[i] / sqrt(sum)) : 0.0f;
	ev.embedding = unit;
	r->req.on_event(r->req.arg, &ev);
	free(unit);
	sreq_end(r, ENG_FINISH_STOP);
}

void sreq_emit_done(struct sreq *r)
{
	struct eng_event ev = { .kind = ENG_EV_DONE,
		                .request_id = r->id,
		                .finish = r->finish,
		                .stop_id = r->stop_id,
		                .stop_text = r->stop_text,
		                .n_prompt = r->n_prompt,
		                .n_output = r->n_output,
		                .n_cached = r->n_cached,
		                .error = r->finish == ENG_FINISH_ERROR ? &r->error : NULL };
	const char *stop = NULL;

	/* What was held back is final now; it may still complete a stop string (a character that came in
	 * several tokens). */
	base_buf_reset(&r->piece);
	if (r->sampler && !r->stop_text) {
		(void)eng_textout_flush(&r->text, r->n_output >= r->req.min_new, &r->piece, &stop);
		if (stop && r->finish != ENG_FINISH_ERROR && r->finish != ENG_FINISH_ABORT) {
			ev.finish = ENG_FINISH_STOP;
			ev.stop_text = stop;
		}
	}
	ev.text = base_buf_text(&r->piece);
	ev.text_len = r->piece.len;
	r->req.on_event(r->req.arg, &ev);
}

/* ---- One more token ---- */

static bool in_list(const int32_t *ids, size_t n, int32_t id)
{
	for (size_t i = 0; i < n; i++) {
		if (ids[i] == id)
			return true;
	}
	return false;
}

static bool is_stop_id(const struct eng_sched *s, const struct sreq *r, int32_t id)
{
	return in_list(r->req.stop_ids, r->req.n_stop_ids, id) ||
	       (!r->req.ignore_eos && in_list(s->eos_ids, s->config.n_eos_ids, id));
}

static void forbid(const struct eng_sched *s, const int32_t *ids, size_t n)
{
	for (size_t i = 0; i < n; i++) {
		if (ids[i] >= 0 && (uint32_t)ids[i] < s->exec.n_vocab)
			s->masked[ids[i]] = -INFINITY;
	}
}

static void permit(const struct eng_sched *s, const float *logits, const int32_t *ids, size_t n)
{
	for (size_t i = 0; i < n; i++) {
		if (ids[i] >= 0 && (uint32_t)ids[i] < s->exec.n_vocab)
			s->masked[ids[i]] = logits[ids[i]];
	}
}

/* What ends the output is no text of the grammar: it may come where the grammar can end. */
static int apply_grammar(struct eng_sched *s, struct sreq *r, const float *logits)
{
	int e = eng_matcher_apply(r->matcher, s->masked, s->exec.n_vocab, &r->error);

	if (e < 0 || !eng_matcher_can_end(r->matcher))
		return e;
	permit(s, logits, r->req.stop_ids, r->req.n_stop_ids);
	if (!r->req.ignore_eos)
		permit(s, logits, s->eos_ids, s->config.n_eos_ids);
	return 0;
}

/* Its next token may be any. n_output: of tokens before that one. */
static bool takes_all(const struct sreq *r, uint32_t n_output)
{
	return n_output >= r->req.min_new && !r->matcher;
}

bool sreq_wants_picks(const struct sreq *r, uint32_t n_out, struct kn_pick *ret_picks, uint32_t *ret_n_best)
{
	*ret_n_best = r->req.logprobs ? r->req.n_top : 0;
	if (r->req.kind != ENG_GENERATE || !takes_all(r, r->n_output + r->n_pending) ||
	    r->next_prompt_lp < r->n_prompt || r->req.n_scored > 0 || (r->req.logprobs && r->req.processed_logprobs))
		return false;
	if (!eng_sampler_wants(r->sampler, r->n_pending, n_out, ret_picks))
		return false;
	for (uint32_t i = 0; i < n_out; i++)
		ret_picks[i].no_log_sum = !r->req.logprobs;
	return true;
}

/* The row that the token is taken from: the model's, or *masked, a copy without what must not come. NULL: the request
 * ended with an error. */
static struct eng_row *allowed(struct eng_sched *s, struct sreq *r, struct eng_row *row, struct eng_row *masked)
{
	const float *logits;
	int e = 0;

	if (takes_all(r, r->n_output))
		return row;
	logits = eng_row_logits(row);
	memcpy(s->masked, logits, s->exec.n_vocab * sizeof(*logits));
	if (r->matcher)
		e = apply_grammar(s, r, logits);
	if (r->n_output < r->req.min_new) {
		forbid(s, r->req.stop_ids, r->req.n_stop_ids);
		if (!r->req.ignore_eos)
			forbid(s, s->eos_ids, s->config.n_eos_ids);
	}
	if (e < 0) {
		end_with_error(r, e);
		return NULL;
	}
	*masked = (struct eng_row){ .logits = s->masked };
	return masked;
}

static void add_logprobs(struct eng_sched *s, struct sreq *r, struct eng_row *row, struct eng_row *from,
                         struct eng_top *top, struct eng_event *ev)
{
	uint32_t n_vocab = s->exec.n_vocab, n_top = r->req.n_top;

	ev->top = top;
	ev->n_top = n_top;
	ev->logprob = r->req.processed_logprobs
	                      ? eng_sampler_logprobs(r->sampler, eng_row_logits(from), ev->id, n_top, top)
	                      : eng_row_logprobs(row, n_vocab, ev->id, n_top, top);
	if (r->req.n_scored == 0)
		return;
	if (r->req.processed_logprobs)
		eng_sampler_logprobs_of(r->sampler, eng_row_logits(from), r->req.scored, r->req.n_scored, r->scored);
	else
		eng_logprobs_of(eng_row_logits(row), n_vocab, r->req.scored, r->req.n_scored, r->scored);
	ev->scored = r->scored;
}

void sreq_take_token(struct eng_sched *s, struct sreq *r, struct eng_row *row)
{
	struct eng_row masked, *from = allowed(s, r, row, &masked);
	struct sreq_token *t = &r->chosen[r->n_chosen];
	struct eng_event ev = { 0 };
	int e = 0;

	if (!from)
		return;
	*t = (struct sreq_token){ .id = eng_sampler_pick_row(r->sampler, from), .position = r->n_output };
	/* Before the token counts for penalties. */
	ev.id = t->id;
	if (r->req.logprobs)
		add_logprobs(s, r, row, from, t->top, &ev);
	t->logprob = ev.logprob;
	r->tokens[r->n_tokens++] = t->id;
	r->n_output++;
	r->n_chosen++;
	eng_sampler_accept(r->sampler, t->id, true);

	t->may_stop = r->n_output >= r->req.min_new;
	t->is_stop = is_stop_id(s, r, t->id);
	if (r->matcher && !t->is_stop)
		e = eng_matcher_accept(r->matcher, t->id);
	if (e < 0) {
		end_with_error(r, e);
	} else if (t->is_stop) {
		r->stop_id = t->id;
		sreq_end(r, ENG_FINISH_STOP);
	} else if (r->matcher && eng_matcher_must_end(r->matcher)) {
		sreq_end(r, ENG_FINISH_STOP);
	} else if (r->n_output >= r->max_new) {
		sreq_end(r, ENG_FINISH_LENGTH);
	}
	/* There is room for one token's. */
	if (r->req.n_scored > 0)
		sched_say_one(s, r);
}

/* A stop string was completed by t: it is the last token, whatever was chosen after it. */
static void end_with_text(struct sreq *r, const struct sreq_token *t)
{
	if (r->is_done && (r->finish == ENG_FINISH_ABORT || r->finish == ENG_FINISH_ERROR))
		return;
	r->is_done = true;
	r->finish = ENG_FINISH_STOP;
	r->stop_id = t->is_stop ? t->id : -1;
	r->n_output = t->position + 1;
}

uint32_t sreq_say(struct sreq *r)
{
	uint32_t n = 0;

	while (n < r->n_chosen && !r->stop_text) {
		const struct sreq_token *t = &r->chosen[n++];
		struct eng_event ev = { .kind = ENG_EV_TOKEN,
			                .request_id = r->id,
			                .id = t->id,
			                .position = t->position,
			                .has_logprob = r->req.logprobs,
			                .logprob = t->logprob,
			                .top = t->top,
			                .n_top = r->req.logprobs ? r->req.n_top : 0,
			                .scored = r->req.n_scored > 0 && r->req.logprobs ? r->scored : NULL,
			                .stop_id = -1 };
		int e = 0;

		base_buf_reset(&r->piece);
		/* The token that ends the output is not part of the text, unless it was asked for. */
		if (!t->is_stop || (r->req.include_stop && r->req.keep_special))
			e = eng_textout_push(&r->text, t->id, t->may_stop, &r->piece, &r->stop_text);
		if (e < 0) {
			end_with_error(r, e);
			break;
		}
		ev.text = base_buf_text(&r->piece);
		ev.text_len = r->piece.len;
		r->req.on_event(r->req.arg, &ev);
		if (r->stop_text)
			end_with_text(r, t);
	}
	r->n_chosen = 0;
	return n;
}
