/* OpenAI's chat and text completions: the JSON of replies and of stream chunks.
 *
 * A stream sends per choice: a chunk with the role, chunks with non-empty content, one chunk with the
 * finish reason and no content; then, when asked for, one with the usage and no choices. */
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/json.h"
#include "gen.h"

/* ---- Log-probabilities ---- */

static void token_string(const struct gen *g, int32_t id, struct base_buf *bytes, struct base_buf *out)
{
	base_buf_reset(bytes);
	(void)eng_token_bytes(g->x->http->engine, id, bytes);
	(void)base_json_append_string(out, base_buf_text(bytes), bytes->len);
}

/* "token":..,"logprob":..,"bytes":[..] */
static void chat_token(const struct gen *g, int32_t id, float logprob, struct base_buf *out)
{
	CLEANUP(base_buf_done) struct base_buf bytes = BASE_BUF_INIT(4096);

	(void)base_buf_puts(out, "\"token\":");
	token_string(g, id, &bytes, out);
	(void)base_buf_puts(out, ",\"logprob\":");
	gen_number(out, logprob);
	(void)base_buf_puts(out, ",\"bytes\":[");
	for (size_t i = 0; i < bytes.len; i++)
		(void)base_buf_printf(out, "%s%u", i ? "," : "", (unsigned char)bytes.data[i]);
	(void)base_buf_putc(out, ']');
}

static void chat_logprob(struct choice *c, const struct eng_event *ev, struct base_buf *dst)
{
	(void)base_buf_putc(dst, '{');
	chat_token(c->gen, ev->id, ev->logprob, dst);
	(void)base_buf_puts(dst, ",\"top_logprobs\":[");
	for (uint32_t i = 0; i < ev->n_top; i++) {
		(void)base_buf_puts(dst, i ? ",{" : "{");
		chat_token(c->gen, ev->top[i].id, ev->top[i].logprob, dst);
		(void)base_buf_putc(dst, '}');
	}
	(void)base_buf_puts(dst, "]},");
}

static void chat_logprobs(struct choice *c, struct base_buf *out)
{
	if (!c->gen->p.logprobs) {
		(void)base_buf_puts(out, "null");
		return;
	}
	(void)base_buf_puts(out, "{\"content\":");
	gen_list(out, &c->lp[0]);
	(void)base_buf_puts(out, ",\"refusal\":null}");
}

/* The four arrays of text completions: 0 tokens, 1 token_logprobs, 2 top_logprobs, 3 text_offset. */
enum { LP_TOKENS, LP_LOGPROBS, LP_TOP, LP_OFFSETS };

/* An object keyed by the token's text; of tokens that spell the same the likelier one stands. Keys are
 * compared as the JSON that they become: different invalid bytes look alike there. */
static void completion_top(const struct gen *g, const struct eng_event *ev, struct base_buf *out)
{
	CLEANUP(base_buf_done) struct base_buf bytes = BASE_BUF_INIT(4096);
	CLEANUP(base_buf_done) struct base_buf key = BASE_BUF_INIT(64 * 1024);
	json_t *seen = json_object();
	bool first = true;

	(void)base_buf_putc(out, '{');
	for (uint32_t i = 0; i < ev->n_top && seen; i++) {
		base_buf_reset(&key);
		token_string(g, ev->top[i].id, &bytes, &key);
		if (json_object_get(seen, base_buf_text(&key)))
			continue;
		(void)json_object_set_new(seen, base_buf_text(&key), json_true());
		if (!first)
			(void)base_buf_putc(out, ',');
		first = false;
		(void)base_buf_append(out, base_buf_text(&key), key.len);
		(void)base_buf_putc(out, ':');
		gen_number(out, ev->top[i].logprob);
	}
	(void)base_buf_puts(out, "},");
	json_decref(seen);
}

static void completion_logprob(struct choice *c, const struct eng_event *ev, struct base_buf *dst)
{
	CLEANUP(base_buf_done) struct base_buf bytes = BASE_BUF_INIT(4096);

	token_string(c->gen, ev->id, &bytes, &dst[LP_TOKENS]);
	(void)base_buf_putc(&dst[LP_TOKENS], ',');
	(void)base_buf_printf(&dst[LP_OFFSETS], "%llu,", (unsigned long long)c->text_offset);
	c->text_offset += gen_chars(base_buf_text(&bytes), bytes.len);
	if (!ev->has_logprob) {
		(void)base_buf_puts(&dst[LP_LOGPROBS], "null,");
		(void)base_buf_puts(&dst[LP_TOP], "null,");
		return;
	}
	gen_number(&dst[LP_LOGPROBS], ev->logprob);
	(void)base_buf_putc(&dst[LP_LOGPROBS], ',');
	completion_top(c->gen, ev, &dst[LP_TOP]);
}

static void completion_logprobs(struct choice *c, struct base_buf *out)
{
	if (!c->gen->p.logprobs) {
		(void)base_buf_puts(out, "null");
		return;
	}
	(void)base_buf_puts(out, "{\"tokens\":");
	gen_list(out, &c->lp[LP_TOKENS]);
	(void)base_buf_puts(out, ",\"token_logprobs\":");
	gen_list(out, &c->lp[LP_LOGPROBS]);
	(void)base_buf_puts(out, ",\"top_logprobs\":");
	if (c->gen->p.n_top > 0)
		gen_list(out, &c->lp[LP_TOP]);
	else
		(void)base_buf_puts(out, "null");
	(void)base_buf_puts(out, ",\"text_offset\":");
	gen_list(out, &c->lp[LP_OFFSETS]);
	(void)base_buf_putc(out, '}');
}

/* ---- Common parts ---- */

static void head(const struct gen *g, const char *object, struct base_buf *out)
{
	const char *model = gen_model(g->x);

	(void)base_buf_printf(out, "{\"id\":\"%s\",\"object\":\"%s\",\"created\":%lld,\"model\":", g->id, object,
	                      (long long)g->created);
	(void)base_json_append_string(out, model, strlen(model));
	(void)base_buf_puts(out, ",\"choices\":[");
}

/* Closes a chunk; usage is null in every chunk but the last when it was asked for. */
static void tail(const struct gen *g, struct base_buf *out)
{
	(void)base_buf_putc(out, ']');
	if (g->p.continuous_usage) {
		(void)base_buf_puts(out, ",\"usage\":");
		gen_usage(g, out);
	} else if (g->p.include_usage) {
		(void)base_buf_puts(out, ",\"usage\":null");
	}
	(void)base_buf_putc(out, '}');
}

static void forget_sent(struct choice *c)
{
	base_buf_reset(&c->text);
	for (int i = 0; i < GEN_N_LP; i++)
		base_buf_reset(&c->lp[i]);
}

static void send_usage(struct gen *g, const char *object)
{
	CLEANUP(base_buf_done) struct base_buf out = BASE_BUF_INIT(HTTP_MAX_RESPONSE);

	if (!g->p.include_usage)
		return;
	head(g, object, &out);
	(void)base_buf_puts(&out, "],\"usage\":");
	gen_usage(g, &out);
	(void)base_buf_putc(&out, '}');
	gen_send(g, &out);
}

/* ---- Chat ---- */

static void chat_delta(struct choice *c, struct base_buf *out)
{
	head(c->gen, "chat.completion.chunk", out);
	(void)base_buf_printf(out, "{\"index\":%u,\"delta\":", c->index);
}

static void chat_begin(struct choice *c, struct base_buf *out)
{
	c->has_begun = true;
	chat_delta(c, out);
	(void)base_buf_puts(out, "{\"role\":\"assistant\",\"content\":\"\"},\"logprobs\":null,\"finish_reason\":null}");
	tail(c->gen, out);
	gen_send(c->gen, out);
}

static void chat_chunk(struct choice *c, bool last)
{
	CLEANUP(base_buf_done) struct base_buf out = BASE_BUF_INIT(HTTP_MAX_RESPONSE);

	if (!c->has_begun)
		chat_begin(c, &out);
	if (c->text.len > 0) {
		chat_delta(c, &out);
		(void)base_buf_puts(&out, "{\"content\":");
		(void)base_json_append_string(&out, c->text.data, c->text.len);
		(void)base_buf_puts(&out, "},\"logprobs\":");
		chat_logprobs(c, &out);
		(void)base_buf_puts(&out, ",\"finish_reason\":null}");
		tail(c->gen, &out);
		gen_send(c->gen, &out);
		forget_sent(c);
	}
	if (!last)
		return;
	chat_delta(c, &out);
	(void)base_buf_printf(&out, "{},\"logprobs\":null,\"finish_reason\":\"%s\"}", gen_finish_name(c));
	tail(c->gen, &out);
	gen_send(c->gen, &out);
}

static void chat_end(struct gen *g)
{
	send_usage(g, "chat.completion.chunk");
}

static void chat_reply(struct gen *g, struct base_buf *out)
{
	head(g, "chat.completion", out);
	for (uint32_t i = 0; i < g->n_choices; i++) {
		struct choice *c = &g->choices[i];

		(void)base_buf_printf(out,
		                      "%s{\"index\":%u,\"message\":{\"role\":\"assistant\",\"content\":", i ? "," : "",
		                      c->index);
		(void)base_json_append_string(out, base_buf_text(&c->text), c->text.len);
		(void)base_buf_puts(out, ",\"refusal\":null},\"logprobs\":");
		chat_logprobs(c, out);
		(void)base_buf_printf(out, ",\"finish_reason\":\"%s\"}", gen_finish_name(c));
	}
	(void)base_buf_puts(out, "],\"usage\":");
	gen_usage(g, out);
	(void)base_buf_putc(out, '}');
}

static const struct gen_api chat_api = {
	.logprob = chat_logprob, .chunk = chat_chunk, .end = chat_end, .reply = chat_reply
};

/* ---- Text completions ---- */

static void completion_choice(struct choice *c, const char *finish, struct base_buf *out)
{
	(void)base_buf_printf(out, "{\"index\":%u,\"text\":", c->index);
	(void)base_json_append_string(out, base_buf_text(&c->text), c->text.len);
	(void)base_buf_puts(out, ",\"logprobs\":");
	completion_logprobs(c, out);
	if (finish)
		(void)base_buf_printf(out, ",\"finish_reason\":\"%s\"}", finish);
	else
		(void)base_buf_puts(out, ",\"finish_reason\":null}");
}

static void completion_chunk(struct choice *c, bool last)
{
	CLEANUP(base_buf_done) struct base_buf out = BASE_BUF_INIT(HTTP_MAX_RESPONSE);

	if (c->text.len > 0) {
		head(c->gen, "text_completion", &out);
		completion_choice(c, NULL, &out);
		tail(c->gen, &out);
		gen_send(c->gen, &out);
		forget_sent(c);
	}
	if (!last)
		return;
	head(c->gen, "text_completion", &out);
	(void)base_buf_printf(&out, "{\"index\":%u,\"text\":\"\",\"logprobs\":null,\"finish_reason\":\"%s\"}", c->index,
	                      gen_finish_name(c));
	tail(c->gen, &out);
	gen_send(c->gen, &out);
}

static void completion_end(struct gen *g)
{
	send_usage(g, "text_completion");
}

static void completion_reply(struct gen *g, struct base_buf *out)
{
	head(g, "text_completion", out);
	for (uint32_t i = 0; i < g->n_choices; i++) {
		if (i > 0)
			(void)base_buf_putc(out, ',');
		completion_choice(&g->choices[i], gen_finish_name(&g->choices[i]), out);
	}
	(void)base_buf_puts(out, "],\"usage\":");
	gen_usage(g, out);
	(void)base_buf_putc(out, '}');
}

static const struct gen_api completion_api = {
	.logprob = completion_logprob, .chunk = completion_chunk, .end = completion_end, .reply = completion_reply
};

/* ---- Handlers ---- */

static void handle(struct exchange *x, http_parse_fn parse, const struct gen_api *api, const char *id_prefix)
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
	gen_start(x, api, &p, id_prefix);
}

void handle_chat(struct exchange *x)
{
	handle(x, http_parse_chat, &chat_api, "chatcmpl-");
}

void handle_completion(struct exchange *x)
{
	handle(x, http_parse_completion, &completion_api, "cmpl-");
}
