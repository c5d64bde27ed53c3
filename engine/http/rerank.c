/* /v1/rerank, as Jina's and llama-server's clients ask: which documents answer a query.
 *
 * Generative rerankers (Qwen3-Reranker) are asked one question for each document, whether it answers the query, and the
 * score is the probability of "yes" where only "yes" and "no" can come next. The question is worded as those models
 * were trained with it and put into the model's own chat template, without reasoning; what questions have in common,
 * the query above all, is computed once (the prefix cache). */
#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/json.h"
#include "gen.h"

enum { IN_FLIGHT = 16, MAX_QUESTION = 64 << 20 };

struct rerank;

struct document {
	struct rerank *re;
	int32_t *ids;
	size_t n_ids;
	uint64_t request_id;
	bool is_running, has_score;
	double score;
};

struct rerank {
	struct exchange *x;
	struct http_params p;
	struct document *documents;
	size_t n, n_submitted, n_running;
	int32_t answers[2]; /* yes, no */
	struct http_error error;
};

static void rerank_free(void *work)
{
	struct rerank *re = work;

	for (size_t i = 0; i < re->n; i++)
		free(re->documents[i].ids);
	free(re->documents);
	http_params_done(&re->p);
	free(re);
}

static void rerank_cancel(void *work)
{
	struct rerank *re = work;

	for (size_t i = 0; i < re->n; i++) {
		if (re->documents[i].is_running)
			eng_cancel(re->x->http->engine, re->documents[i].request_id);
	}
}

/* ---- The answer ---- */

/* The better first, and of equal ones the earlier. */
static int compare(const void *a, const void *b)
{
	const struct document *x = *(const struct document *const *)a, *y = *(const struct document *const *)b;

	if (x->score != y->score)
		return x->score < y->score ? 1 : -1;
	return x < y ? -1 : x > y;
}

static void append_result(const struct rerank *re, const struct document *d, struct base_buf *out)
{
	const struct http_prompt *text = &re->p.prompts[d - re->documents];

	(void)base_buf_printf(out, "{\"index\":%zu,\"relevance_score\":%.9g", (size_t)(d - re->documents), d->score);
	if (re->p.return_documents) {
		(void)base_buf_puts(out, ",\"document\":{\"text\":");
		(void)base_json_append_string(out, text->text, text->text_len);
		(void)base_buf_putc(out, '}');
	}
	(void)base_buf_putc(out, '}');
}

static void rerank_finish(struct rerank *re)
{
	CLEANUP(base_buf_done) struct base_buf out = BASE_BUF_INIT(HTTP_MAX_RESPONSE);
	CLEANUP(freep) struct document **order = calloc(re->n, sizeof(struct document *));
	size_t n = re->p.top_n && re->p.top_n < re->n ? re->p.top_n : re->n, n_tokens = 0;
	const char *model = gen_model(re->x);

	/* Cancelled between two of them. */
	if (re->n_submitted < re->n || !order)
		gen_error_of(order ? -ESHUTDOWN : -ENOMEM, &(struct err){ 0 }, &re->error);
	if (re->error.status) {
		exchange_reply_error(re->x, &re->error);
		return;
	}
	for (size_t i = 0; i < re->n; i++) {
		order[i] = &re->documents[i];
		n_tokens += re->documents[i].n_ids;
	}
	qsort(order, re->n, sizeof(*order), compare);
	(void)base_buf_puts(&out, "{\"object\":\"list\",\"model\":");
	(void)base_json_append_string(&out, model, strlen(model));
	(void)base_buf_puts(&out, ",\"results\":[");
	for (size_t i = 0; i < n; i++) {
		(void)base_buf_puts(&out, i ? "," : "");
		append_result(re, order[i], &out);
	}
	(void)base_buf_printf(&out, "],\"usage\":{\"prompt_tokens\":%zu,\"total_tokens\":%zu}}", n_tokens, n_tokens);
	exchange_reply(re->x, 200, &out);
}

/* ---- Requests ---- */

static void rerank_submit(struct rerank *re);

static void on_event(void *arg, const struct eng_event *ev)
{
	struct document *d = arg;
	struct rerank *re = d->re;
	struct exchange *x = re->x;

	exchange_lock(x);
	if (ev->kind == ENG_EV_TOKEN && ev->scored && !d->has_score) {
		d->score = 1 / (1 + exp((double)ev->scored[1] - (double)ev->scored[0]));
		d->has_score = true;
	} else if (ev->kind == ENG_EV_DONE) {
		d->is_running = false;
		re->n_running--;
		if (!d->has_score)
			gen_error_of(ev->error ? ev->error->code : -ESHUTDOWN,
			             ev->error ? ev->error : &(struct err){ 0 }, &re->error);
		rerank_submit(re);
		if (re->n_running == 0)
			rerank_finish(re);
	}
	exchange_unlock(x);
	if (ev->kind == ENG_EV_DONE)
		exchange_unref(x);
}

/* Locked. Submits up to the limit; after the first failure nothing more. */
static void rerank_submit(struct rerank *re)
{
	while (re->n_submitted < re->n && re->n_running < IN_FLIGHT && !re->error.status && !re->x->is_canceled) {
		struct document *d = &re->documents[re->n_submitted];
		struct eng_request req = { .kind = ENG_GENERATE,
			                   .adapter = re->x->adapter,
			                   .ids = d->ids,
			                   .n_ids = d->n_ids,
			                   .sampling = { .top_p = 1, .repetition_penalty = 1 },
			                   .max_new = 1,
			                   .ignore_eos = true,
			                   .logprobs = true,
			                   .logprob_start = -1,
			                   .scored = re->answers,
			                   .n_scored = 2,
			                   .client = re->x->client,
			                   .on_event = on_event,
			                   .arg = d };
		struct err err = { 0 };
		int r;

		exchange_ref(re->x);
		r = eng_submit(re->x->http->engine, &req, &d->request_id, &err);
		if (r < 0) {
			exchange_unref(re->x);
			gen_error_of(r, &err, &re->error);
			return;
		}
		d->is_running = true;
		re->n_submitted++;
		re->n_running++;
	}
}

/* ---- Questions ---- */

/* The first token of a word. */
static int token_of(struct rerank *re, const char *word, int32_t *ret_id, struct http_error *e)
{
	CLEANUP(freep) int32_t *ids = NULL;
	struct err err = { 0 };
	size_t n = 0;
	int r = eng_tokenize(re->x->http->engine, word, strlen(word), false, false, &ids, &n, &err);

	if (r < 0 || n == 0) {
		gen_error_of(r < 0 ? r : -ENOTSUP, &err, e);
		return -ENOTSUP;
	}
	*ret_id = ids[0];
	return 0;
}

static int find_answers(struct rerank *re, struct http_error *e)
{
	const struct eng_info *info = eng_engine_info(re->x->http->engine);

	if (info->is_embedding || !info->has_chat_template)
		return http_bad_field(e, "model",
		                      "this model does not rerank: it has no chat template to be asked with");
	if (token_of(re, "yes", &re->answers[0], e) < 0 || token_of(re, "no", &re->answers[1], e) < 0)
		return -ENOTSUP;
	if (re->answers[0] == re->answers[1])
		return http_bad_field(e, "model",
		                      "this model does not rerank: yes and no begin alike in its vocabulary");
	return 0;
}

static json_t *question(const struct http_params *p, const struct http_prompt *text)
{
	static const char judge[] =
	        "Judge whether the Document meets the requirements based on the Query and the Instruct "
	        "provided. Note that the answer can only be \"yes\" or \"no\".";
	static const char usual[] = "Given a web search query, retrieve relevant passages that answer the query";
	CLEANUP(base_buf_done) struct base_buf user = BASE_BUF_INIT(MAX_QUESTION);

	(void)base_buf_printf(&user, "<Instruct>: %s\n<Query>: ", p->instruction ? p->instruction : usual);
	(void)base_buf_append(&user, p->query, p->query_len);
	(void)base_buf_puts(&user, "\n<Document>: ");
	(void)base_buf_append(&user, text->text, text->text_len);
	if (base_buf_error(&user))
		return NULL;
	return json_pack("[{s:s, s:s}, {s:s, s:o}]", "role", "system", "content", judge, "role", "user", "content",
	                 json_stringn(base_buf_text(&user), user.len));
}

static int ask(struct rerank *re, struct document *d, const struct http_prompt *text, struct http_error *e)
{
	CLEANUP(base_buf_done) struct base_buf prompt = BASE_BUF_INIT(MAX_QUESTION);
	json_t *messages = question(&re->p, text), *kwargs = json_pack("{s:b}", "enable_thinking", 0);
	struct err err = { 0 };
	int r = messages && kwargs ? eng_render_chat(re->x->http->engine, messages, NULL, kwargs, true, &prompt, &err)
	                           : -ENOMEM;

	json_decref(messages);
	json_decref(kwargs);
	if (r == 0)
		r = eng_tokenize(re->x->http->engine, base_buf_text(&prompt), prompt.len, false, true, &d->ids,
		                 &d->n_ids, &err);
	if (r < 0)
		gen_error_of(r, &err, e);
	return r;
}

static int make_questions(struct rerank *re, struct http_error *e)
{
	int r = find_answers(re, e);

	if (r < 0)
		return r;
	re->documents = calloc(re->p.n_prompts, sizeof(*re->documents));
	if (!re->documents)
		return -ENOMEM;
	re->n = re->p.n_prompts;
	for (size_t i = 0; i < re->n && r == 0; i++) {
		re->documents[i].re = re;
		r = ask(re, &re->documents[i], &re->p.prompts[i], e);
	}
	return r;
}

void handle_rerank(struct exchange *x)
{
	struct rerank *re = calloc(1, sizeof(*re));
	struct http_error e = { 0 };
	struct eng_sampling defaults;
	int r = -ENOMEM;

	eng_sampling_defaults(x->http->engine, &defaults);
	if (re) {
		re->x = x;
		r = http_parse_rerank(base_buf_text(&x->body), x->body.len, &defaults, &re->p, &e);
	}
	if (r == 0)
		r = http_pick_adapter(x, re->p.body, &e);
	if (r == 0)
		r = make_questions(re, &e);
	exchange_lock(x);
	if (re) {
		x->work = re;
		x->cancel = rerank_cancel;
		x->free_work = rerank_free;
		watch_add(x);
	}
	if (r == 0 && !x->is_ready) { /* else the server ends, and has said so meanwhile */
		rerank_submit(re);
		e = re->error;
		r = re->n_running > 0 ? 0 : -EBUSY;
	}
	if (r < 0) {
		gen_error_of(r, &(struct err){ 0 }, &e);
		exchange_reply_error(x, &e);
	}
	exchange_unlock(x);
}
