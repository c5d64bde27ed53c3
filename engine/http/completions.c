/* OpenAI's text completions: the JSON of replies and of stream chunks. */
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

/* ---- Text completions ---- */

static void forget_sent(struct choice *c)
{
	base_buf_reset(&c->text);
	for (int i = 0; i < GEN_N_LP; i++)
		base_buf_reset(&c->lp[i]);
}

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
		gen_head(c->gen, "text_completion", &out);
		completion_choice(c, NULL, &out);
		gen_tail(c->gen, &out);
		gen_send(c->gen, &out);
		forget_sent(c);
	}
	if (!last)
		return;
	gen_head(c->gen, "text_completion", &out);
	(void)base_buf_printf(&out, "{\"index\":%u,\"text\":\"\",\"logprobs\":null,\"finish_reason\":\"%s\"}", c->index,
	                      gen_finish_name(c));
	gen_tail(c->gen, &out);
	gen_send(c->gen, &out);
}

static void completion_end(struct gen *g)
{
	gen_send_usage(g, "text_completion");
}

static void completion_reply(struct gen *g, struct base_buf *out)
{
	gen_head(g, "text_completion", out);
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

void handle_completion(struct exchange *x)
{
	gen_handle(x, http_parse_completion, &completion_api, "cmpl-");
}
