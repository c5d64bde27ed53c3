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
#include "many.h"

enum { MAX_QUESTION = 64 << 20 };

/* ---- The answer ---- */

/* The better first, and of equal ones the earlier. */
static int compare(const void *a, const void *b)
{
	const struct many_part *x = *(const struct many_part *const *)a, *y = *(const struct many_part *const *)b;

	if (x->score != y->score)
		return x->score < y->score ? 1 : -1;
	return x < y ? -1 : x > y;
}

static void append_result(const struct many *m, const struct many_part *d, struct base_buf *out)
{
	const struct http_prompt *text = &m->p.prompts[d - m->parts];

	(void)base_buf_printf(out, "{\"index\":%zu,\"relevance_score\":%.9g", (size_t)(d - m->parts), d->score);
	if (m->p.return_documents) {
		(void)base_buf_puts(out, ",\"document\":{\"text\":");
		(void)base_json_append_string(out, text->text, text->text_len);
		(void)base_buf_putc(out, '}');
	}
	(void)base_buf_putc(out, '}');
}

static int reply(struct many *m, struct base_buf *out)
{
	CLEANUP(freep) struct many_part **order = calloc(m->n, sizeof(struct many_part *));
	size_t n = m->p.top_n && m->p.top_n < m->n ? m->p.top_n : m->n, n_tokens = 0;
	const char *model = gen_model(m->x);

	if (!order)
		return -ENOMEM;
	for (size_t i = 0; i < m->n; i++) {
		order[i] = &m->parts[i];
		n_tokens += m->parts[i].n_ids;
	}
	qsort(order, m->n, sizeof(*order), compare);
	(void)base_buf_puts(out, "{\"object\":\"list\",\"model\":");
	(void)base_json_append_string(out, model, strlen(model));
	(void)base_buf_puts(out, ",\"results\":[");
	for (size_t i = 0; i < n; i++) {
		(void)base_buf_puts(out, i ? "," : "");
		append_result(m, order[i], out);
	}
	(void)base_buf_printf(out, "],\"usage\":{\"prompt_tokens\":%zu,\"total_tokens\":%zu}}", n_tokens, n_tokens);
	return 0;
}

static void take_score(struct many_part *part, const struct eng_event *ev)
{
	if (ev->kind != ENG_EV_TOKEN || !ev->scored || part->has_result)
		return;
	part->score = 1 / (1 + exp((double)ev->scored[1] - (double)ev->scored[0]));
	part->has_result = true;
}

/* ---- Questions ---- */

/* The first token of a word. */
static int token_of(struct many *m, const char *word, int32_t *ret_id, struct http_error *e)
{
	CLEANUP(freep) int32_t *ids = NULL;
	struct err err = { 0 };
	size_t n = 0;
	int r = eng_tokenize(m->x->http->engine, word, strlen(word), false, false, &ids, &n, &err);

	if (r < 0 || n == 0) {
		gen_error_of(r < 0 ? r : -ENOTSUP, &err, e);
		return -ENOTSUP;
	}
	*ret_id = ids[0];
	return 0;
}

static int find_answers(struct many *m, struct http_error *e)
{
	const struct eng_info *info = eng_engine_info(m->x->http->engine);

	if (info->is_embedding || !info->has_chat_template)
		return http_bad_field(e, "model",
		                      "this model does not rerank: it has no chat template to be asked with");
	if (token_of(m, "yes", &m->answers[0], e) < 0 || token_of(m, "no", &m->answers[1], e) < 0)
		return -ENOTSUP;
	if (m->answers[0] == m->answers[1])
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

static int word_question(struct many *m, struct many_part *d, const struct http_prompt *text, struct http_error *e)
{
	CLEANUP(base_buf_done) struct base_buf prompt = BASE_BUF_INIT(MAX_QUESTION);
	json_t *messages = question(&m->p, text), *kwargs = json_pack("{s:b}", "enable_thinking", 0);
	struct err err = { 0 };
	int r = messages && kwargs ? eng_render_chat(m->x->http->engine, messages, NULL, kwargs, true, &prompt, &err)
	                           : -ENOMEM;

	json_decref(messages);
	json_decref(kwargs);
	if (r == 0)
		r = eng_tokenize(m->x->http->engine, base_buf_text(&prompt), prompt.len, false, true, &d->ids,
		                 &d->n_ids, &err);
	if (r < 0)
		gen_error_of(r, &err, e);
	return r;
}

static int make_questions(struct many *m, struct http_error *e)
{
	int r = find_answers(m, e);

	for (size_t i = 0; i < m->n && r == 0; i++)
		r = word_question(m, &m->parts[i], &m->p.prompts[i], e);
	return r;
}

static void ask(const struct many *m, struct eng_request *req)
{
	req->kind = ENG_GENERATE;
	req->sampling = (struct eng_sampling){ .top_p = 1, .repetition_penalty = 1 };
	req->max_new = 1;
	req->ignore_eos = true;
	req->logprobs = true;
	req->scored = m->answers;
	req->n_scored = 2;
}

void handle_rerank(struct exchange *x)
{
	static const struct many_api api = { .parse = http_parse_rerank,
		                             .prepare = make_questions,
		                             .request = ask,
		                             .result = take_score,
		                             .reply = reply };

	http_handle_many(x, &api);
}
