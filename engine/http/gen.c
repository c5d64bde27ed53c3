/* Generating requests: from parameters to engine requests, and from events to text. See gen.h. */
#include "gen.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/cleanup.h"
#include "base/json.h"

enum { LP_MAX = 128 << 20 };

/* ---- Refusals and prompts ---- */

void gen_error_of(int code, const struct err *err, struct http_error *e)
{
	static const struct {
		int code, status;
		const char *type, *name;
	} table[] = {
		{ -EINVAL, 400, "invalid_request_error", NULL },
		{ -E2BIG, 400, "invalid_request_error", NULL },
		{ -ENOTSUP, 400, "invalid_request_error", "not_supported" },
		{ -EBUSY, 429, "rate_limit_error", "queue_full" },
		{ -ESHUTDOWN, 503, "unavailable_error", "shutting_down" },
	};

	if (e->status)
		return;
	e->status = 500;
	e->type = "server_error";
	for (size_t i = 0; i < sizeof(table) / sizeof(table[0]); i++) {
		if (table[i].code == code) {
			e->status = table[i].status;
			e->type = table[i].type;
			e->code = table[i].name;
		}
	}
	(void)snprintf(e->message, sizeof(e->message), "%s", err->code ? err_text(err) : strerror(-code));
}

int gen_prompt_ids(struct exchange *x, const struct http_prompt *q, bool add_special, int32_t **ret_ids, size_t *ret_n,
                   struct http_error *e)
{
	struct err err = { 0 };
	int r;

	if (q->text) {
		r = eng_tokenize(x->http->engine, q->text, q->text_len, add_special, true, ret_ids, ret_n, &err);
		if (r < 0)
			gen_error_of(r, &err, e);
		return r;
	}
	*ret_ids = calloc(q->n_ids ? q->n_ids : 1, sizeof(**ret_ids));
	if (!*ret_ids) {
		gen_error_of(-ENOMEM, &err, e);
		return -ENOMEM;
	}
	memcpy(*ret_ids, q->ids, q->n_ids * sizeof(**ret_ids));
	*ret_n = q->n_ids;
	return 0;
}

/* ---- Life ---- */

static void choice_done(struct choice *c)
{
	base_buf_done(&c->text);
	base_buf_done(&c->ids);
	for (int i = 0; i < GEN_N_LP; i++) {
		base_buf_done(&c->lp[i]);
		base_buf_done(&c->pending[i]);
	}
	free(c->marks);
	free(c->stop_text);
	gen_speak_done(c);
}

static void gen_free(void *work)
{
	struct gen *g = work;

	for (uint32_t i = 0; i < g->n_choices; i++)
		choice_done(&g->choices[i]);
	free(g->choices);
	free(g->n_prompt);
	eng_grammar_unref(g->grammar);
	if (g->free_extra)
		g->free_extra(g->extra);
	http_params_done(&g->p);
	free(g);
}

static void gen_cancel(void *work)
{
	struct gen *g = work;

	for (uint32_t i = 0; i < g->n_choices; i++) {
		if (g->choices[i].is_submitted && !g->choices[i].is_done)
			eng_cancel(g->x->http->engine, g->choices[i].request_id);
	}
}

static struct gen *gen_new(struct exchange *x, const struct gen_api *api, struct http_params *p, size_t n_prompts,
                           const char *prefix)
{
	struct gen *g = calloc(1, sizeof(*g));

	if (!g)
		return NULL;
	g->x = x;
	g->api = api;
	g->p = *p;
	memset(p, 0, sizeof(*p));
	g->created = (int64_t)time(NULL);
	g->start_ms = http_now_ms();
	g->start_us = http_now_us();
	gen_make_id(prefix, g->id, sizeof(g->id));
	g->choices = calloc(n_prompts * g->p.n, sizeof(*g->choices));
	g->n_prompt = calloc(n_prompts, sizeof(*g->n_prompt));
	if (!g->choices || !g->n_prompt) {
		gen_free(g);
		return NULL;
	}
	g->n_choices = (uint32_t)n_prompts * g->p.n;
	for (uint32_t i = 0; i < g->n_choices; i++) {
		struct choice *c = &g->choices[i];

		c->gen = g;
		c->index = i;
		c->prompt = i / g->p.n;
		c->stop_id = c->item = -1;
		base_buf_init(&c->reasoning, GEN_TEXT_MAX);
		base_buf_init(&c->unsent, GEN_TEXT_MAX);
		base_buf_init(&c->text, GEN_TEXT_MAX);
		base_buf_init(&c->ids, GEN_TEXT_MAX);
		for (int k = 0; k < GEN_N_LP; k++) {
			base_buf_init(&c->lp[k], LP_MAX);
			base_buf_init(&c->pending[k], LP_MAX);
		}
	}
	return g;
}

/* ---- Log-probabilities that wait for their text ---- */

static uint32_t token_bytes(const struct choice *c, int32_t id)
{
	CLEANUP(base_buf_done) struct base_buf bytes = BASE_BUF_INIT(4096);

	(void)eng_token_bytes(c->gen->x->http->engine, id, &bytes);
	return (uint32_t)bytes.len;
}

static void mark(struct choice *c, int32_t id)
{
	struct gen_mark *m;

	if (!c->marks)
		c->marks = calloc(GEN_MAX_MARKS, sizeof(*c->marks));
	if (!c->marks || c->n_marks == GEN_MAX_MARKS)
		return;
	m = &c->marks[c->n_marks++];
	for (int k = 0; k < GEN_N_LP; k++)
		m->offset[k] = (uint32_t)c->pending[k].len;
	m->n_bytes = token_bytes(c, id);
}

static void cut_pending(struct choice *c, size_t mark_index)
{
	for (int k = 0; k < GEN_N_LP && mark_index < c->n_marks; k++) {
		uint32_t at = c->marks[mark_index].offset[k];

		if (at < c->pending[k].len) {
			c->pending[k].len = at;
			c->pending[k].data[at] = '\0';
		}
	}
	if (mark_index < c->n_marks)
		c->n_marks = mark_index;
}

/* The text of the pending tokens is final. */
static void settle_pending(struct choice *c)
{
	for (int k = 0; k < GEN_N_LP; k++) {
		(void)base_buf_append(&c->lp[k], base_buf_text(&c->pending[k]), c->pending[k].len);
		base_buf_reset(&c->pending[k]);
	}
	c->n_marks = 0;
}

/* At the end, tokens whose text did not become part of the answer lose their entries, so that the tokens
 * spell the text: the end token, and those behind the beginning of a stop string. */
static void trim_pending(struct choice *c, const struct eng_event *ev)
{
	size_t spelled = 0, keep = 0;

	if (c->gen->api->lp_all)
		return;
	if (ev->stop_id >= 0 && c->n_marks > 0)
		cut_pending(c, c->n_marks - 1);
	if (!ev->stop_text)
		return;
	while (keep < c->n_marks && spelled < ev->text_len)
		spelled += c->marks[keep++].n_bytes;
	cut_pending(c, keep);
}

/* ---- Events ---- */

static void on_prompt(struct choice *c, const struct eng_event *ev)
{
	c->gen->api->logprob(c, ev, c->lp);
}

static void note_time(struct choice *c)
{
	struct http_times *times = &c->gen->x->http->times;

	c->last_us = http_now_us();
	if (c->n_output > 0)
		return;
	c->first_us = c->last_us;
	http_times_add(&times->first_token, c->first_us - c->gen->start_us);
}

static void on_token(struct choice *c, const struct eng_event *ev)
{
	struct gen *g = c->gen;

	if (g->p.no_output)
		return;
	note_time(c);
	c->n_output++;
	(void)base_buf_printf(&c->ids, "%d,", ev->id);
	if (ev->has_logprob) {
		if (!g->api->lp_all)
			mark(c, ev->id);
		g->api->logprob(c, ev, g->api->lp_all ? c->lp : c->pending);
	}
	if (g->api->is_chat) {
		if (ev->text_len > 0)
			settle_pending(c);
		gen_speak(c, ev->text, ev->text_len);
		/* Reasoning is what comes before any text. */
		c->n_reasoning += c->reasoning.len > 0 && c->text.len == 0 && c->n_calls == 0;
		return;
	}
	if (ev->text_len > 0) {
		(void)base_buf_append(&c->text, ev->text, ev->text_len);
		settle_pending(c);
	}
	if (g->p.stream && (ev->text_len > 0 || g->api->cumulative))
		g->api->chunk(c, false);
}

static void note_failure(struct choice *c, const struct eng_event *ev)
{
	struct gen *g = c->gen;

	if (ev->finish == ENG_FINISH_ERROR)
		gen_error_of(ev->error ? ev->error->code : -EIO, ev->error ? ev->error : &(struct err){ 0 }, &g->error);
	else if (ev->finish == ENG_FINISH_ABORT && !g->x->is_canceled && !c->is_cut && !g->x->is_aborted)
		gen_error_of(-ESHUTDOWN, &(struct err){ 0 }, &g->error);
	/* The engine's own refusals of a running request are not the client's fault. */
	if (g->error.status == 400) {
		g->error.status = 500;
		g->error.type = "server_error";
	}
}

/* All choices are done. */
static void finish(struct gen *g)
{
	CLEANUP(base_buf_done) struct base_buf out = BASE_BUF_INIT(HTTP_MAX_RESPONSE);

	if (g->error.status && g->api->fail && g->x->is_stream && g->x->is_ready) {
		g->api->fail(g);
		exchange_stream_end(g->x);
	} else if (g->error.status) {
		exchange_reply_error(g->x, &g->error);
	} else if (g->p.stream) {
		g->api->end(g);
		if (!g->api->has_no_done)
			exchange_stream(g->x, "data: [DONE]\n\n", 14);
		exchange_stream_end(g->x);
	} else {
		g->api->reply(g, &out);
		exchange_reply(g->x, 200, &out);
	}
}

static void on_done(struct choice *c, const struct eng_event *ev)
{
	struct gen *g = c->gen;

	c->is_done = true;
	c->finish = g->p.no_output && ev->finish == ENG_FINISH_STOP ? ENG_FINISH_LENGTH : ev->finish;
	c->stop_id = g->p.no_output ? -1 : ev->stop_id;
	c->stop_text = ev->stop_text ? strdup(ev->stop_text) : NULL;
	if (c->is_cut && c->finish == ENG_FINISH_ABORT)
		c->finish = ENG_FINISH_STOP;
	c->n_cached = ev->n_cached;
	if (c->n_output > 1)
		http_times_add(&g->x->http->times.per_token, (c->last_us - c->first_us) / (c->n_output - 1));
	http_times_add(&g->x->http->times.whole, http_now_us() - g->start_us);
	note_failure(c, ev);
	if (!g->p.no_output) {
		trim_pending(c, ev);
		if (g->api->is_chat)
			gen_speak(c, ev->text, ev->text_len);
		else
			(void)base_buf_append(&c->text, ev->text, ev->text_len);
		settle_pending(c);
		if (g->api->is_chat)
			gen_speak_end(c);
	}
	if ((g->p.stream || g->api->wants_parts) && !g->error.status)
		g->api->chunk(c, true);
	if (--g->n_open == 0)
		finish(g);
}

static void on_event(void *arg, const struct eng_event *ev)
{
	struct choice *c = arg;
	struct exchange *x = c->gen->x;

	exchange_lock(x);
	switch (ev->kind) {
	case ENG_EV_PROMPT:
		on_prompt(c, ev);
		break;
	case ENG_EV_TOKEN:
		on_token(c, ev);
		break;
	case ENG_EV_EMBED:
		break;
	case ENG_EV_DONE:
		on_done(c, ev);
		break;
	}
	exchange_unlock(x);
	if (ev->kind == ENG_EV_DONE)
		exchange_unref(x);
}

/* ---- Start ---- */

/* The prompts' ids: rows of ids[], their lengths in g->n_prompt. */
static int make_prompts(struct gen *g, int32_t **ids, struct http_error *e)
{
	CLEANUP(base_buf_done) struct base_buf text = BASE_BUF_INIT(GEN_TEXT_MAX);
	size_t n = 0;
	int r;

	if (g->p.messages) {
		struct http_prompt q;

		r = gen_render_chat(g->x, &g->p, &text, e);
		if (r == 0)
			r = gen_open_parsers(g, base_buf_text(&text), text.len, e);
		if (r < 0)
			return r;
		q = (struct http_prompt){ .text = base_buf_text(&text), .text_len = text.len };
		r = gen_prompt_ids(g->x, &q, false, &ids[0], &n, e);
		g->n_prompt[0] = (uint32_t)n;
		return r;
	}
	for (size_t i = 0; i < g->p.n_prompts; i++) {
		r = gen_prompt_ids(g->x, &g->p.prompts[i], true, &ids[i], &n, e);
		if (r < 0)
			return r;
		if (n > UINT32_MAX)
			return http_bad_field(e, "prompt", "too long");
		g->n_prompt[i] = (uint32_t)n;
	}
	return 0;
}

static int compile_grammar(struct gen *g, struct http_error *e)
{
	struct err err = { 0 };
	int r;

	if (!g->p.grammar_param)
		return 0;
	r = eng_grammar_compile(g->x->http->engine, g->p.grammar_kind, g->p.grammar_text, g->p.grammar_len, &g->grammar,
	                        &err);
	if (r < 0) {
		gen_error_of(r, &err, e);
		(void)snprintf(e->param, sizeof(e->param), "%s", g->p.grammar_param);
	}
	return r;
}

/* With echo the answer begins with the prompt. */
static int echo_prompts(struct gen *g, int32_t *const *ids)
{
	struct err err = { 0 };
	int r = 0;

	for (uint32_t i = 0; i < g->n_choices && g->p.echo && r == 0; i++) {
		struct choice *c = &g->choices[i];
		const struct http_prompt *q = &g->p.prompts[c->prompt];

		if (q->text)
			r = base_buf_append(&c->text, q->text, q->text_len);
		else
			r = eng_detokenize(g->x->http->engine, ids[c->prompt], g->n_prompt[c->prompt], false, &c->text,
			                   &err);
	}
	return r;
}

static void request_of(struct choice *c, const int32_t *ids, struct eng_request *req)
{
	const struct http_params *p = &c->gen->p;

	*req = (struct eng_request){
		.kind = ENG_GENERATE,
		.adapter = c->gen->x->adapter,
		.ids = ids,
		.n_ids = c->gen->n_prompt[c->prompt],
		.sampling = p->sampling,
		.max_new = p->max_new,
		.min_new = p->min_new,
		.ignore_eos = p->ignore_eos,
		.keep_special = p->keep_special,
		.stops = p->stops,
		.n_stops = p->n_stops,
		.include_stop = p->include_stop,
		.stop_ids = p->stop_ids,
		.n_stop_ids = p->n_stop_ids,
		.grammar = c->gen->grammar,
		.logprobs = p->logprobs,
		.processed_logprobs = p->processed_logprobs,
		.n_top = p->n_top,
		.scored = p->messages ? NULL : p->prompts[c->prompt].scored,
		.n_scored = p->messages ? 0 : p->prompts[c->prompt].n_scored,
		/* The prompt is scored once, for its first choice. */
		.logprob_start =
		        p->logprobs && (c->index % p->n == 0 || p->echo || p->is_batch) ? p->logprob_start : -1,
		.client = c->gen->x->client,
		.on_event = on_event,
		.arg = c,
	};
	/* n answers to one prompt differ, reproducibly when a seed was given. */
	req->sampling.seed += c->index % p->n;
}

/* Locked, so that no event is handled before all are submitted. */
static void submit_all(struct gen *g, int32_t *const *ids)
{
	struct err err = { 0 };
	int r = 0;

	for (uint32_t i = 0; i < g->n_choices && r == 0; i++) {
		struct choice *c = &g->choices[i];
		struct eng_request req;

		request_of(c, ids[c->prompt], &req);
		exchange_ref(g->x);
		r = eng_submit(g->x->http->engine, &req, &c->request_id, &err);
		if (r < 0) {
			exchange_unref(g->x);
			break;
		}
		c->is_submitted = true;
		g->n_open++;
	}
	if (r == 0)
		return;
	gen_error_of(r, &err, &g->error);
	exchange_cancel(g->x);
	if (g->n_open == 0)
		exchange_reply_error(g->x, &g->error);
}

void gen_start(struct exchange *x, const struct gen_api *api, struct http_params *p, const char *id_prefix, void *extra,
               void (*free_extra)(void *))
{
	size_t n_prompts = p->messages ? 1 : p->n_prompts;
	int32_t **ids = calloc(n_prompts, sizeof(*ids));
	struct gen *g = ids ? gen_new(x, api, p, n_prompts, id_prefix) : NULL;
	struct http_error e = { 0 };
	int r = -ENOMEM;

	if (!g) {
		gen_error_of(-ENOMEM, &(struct err){ 0 }, &e);
		http_params_done(p);
		if (free_extra)
			free_extra(extra);
	} else {
		g->extra = extra;
		g->free_extra = free_extra;
		r = http_pick_adapter(x, g->p.body, &e);
		if (r == 0)
			r = gen_constrain_calls(g, &e);
		if (r == 0)
			r = make_prompts(g, ids, &e);
		if (r == 0)
			r = echo_prompts(g, ids);
		if (r == 0)
			r = compile_grammar(g, &e);
		if (r < 0)
			gen_error_of(r, &(struct err){ 0 }, &e);
	}
	exchange_lock(x);
	if (g) {
		x->work = g;
		x->cancel = gen_cancel;
		x->free_work = gen_free;
		x->rid = g->p.rid ? strdup(g->p.rid) : NULL;
		watch_add(x);
	}
	if (r < 0) {
		exchange_reply_error(x, &e);
	} else if (!x->is_ready) { /* else the server ends, and has said so meanwhile */
		x->is_stream = g->p.stream;
		x->last_write_ms = http_now_ms();
		submit_all(g, ids);
		if (g->p.stream && !g->error.status && g->api->begin)
			g->api->begin(g);
	}
	exchange_unlock(x);
	for (size_t i = 0; ids && i < n_prompts; i++)
		free(ids[i]);
	free(ids);
}

void gen_handle(struct exchange *x, http_parse_fn parse, const struct gen_api *api, const char *id_prefix)
{
	struct http_params p;
	struct http_error e = { 0 };
	struct eng_sampling defaults;

	eng_sampling_defaults(x->http->engine, &defaults);
	if (parse(base_buf_text(&x->body), x->body.len, &defaults, &p, &e) < 0) {
		exchange_lock(x);
		exchange_reply_error(x, &e);
		exchange_unlock(x);
		return;
	}
	base_buf_done(&x->body);
	gen_start(x, api, &p, id_prefix, NULL, NULL);
}
