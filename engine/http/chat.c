/* OpenAI's chat completions: the JSON of replies and of stream chunks.
 *
 * A stream sends per choice: a chunk with the role, chunks with non-empty content, reasoning or pieces of tool calls,
 * one chunk with the finish reason and no content; then, when asked for, one with the usage and no choices. */
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/json.h"
#include "gen.h"

/* ---- Log-probabilities ---- */

/* "token":..,"logprob":..,"bytes":[..] */
static void chat_token(const struct gen *g, int32_t id, float logprob, struct base_buf *out)
{
	CLEANUP(base_buf_done) struct base_buf bytes = BASE_BUF_INIT(4096);

	(void)base_buf_puts(out, "\"token\":");
	(void)eng_token_bytes(g->x->http->engine, id, &bytes);
	(void)base_json_append_string(out, base_buf_text(&bytes), bytes.len);
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

static void chat_logprobs(const struct choice *c, const struct base_buf *entries, struct base_buf *out)
{
	if (!c->gen->p.logprobs) {
		(void)base_buf_puts(out, "null");
		return;
	}
	(void)base_buf_puts(out, "{\"content\":");
	gen_list(out, entries);
	(void)base_buf_puts(out, ",\"refusal\":null}");
}

/* ---- Chunks ---- */

static void open_delta(struct choice *c, struct base_buf *out)
{
	gen_head(c->gen, "chat.completion.chunk", out);
	(void)base_buf_printf(out, "{\"index\":%u,\"delta\":{", c->index);
}

/* Closes the delta; its log-probabilities go with it. */
static void send_delta(struct choice *c, struct base_buf *entries, const char *finish, struct base_buf *out)
{
	(void)base_buf_puts(out, "},\"logprobs\":");
	if (entries->len > 0)
		chat_logprobs(c, entries, out);
	else
		(void)base_buf_puts(out, "null");
	base_buf_reset(entries);
	if (finish)
		(void)base_buf_printf(out, ",\"finish_reason\":\"%s\"}", finish);
	else
		(void)base_buf_puts(out, ",\"finish_reason\":null}");
	gen_tail(c->gen, out);
	gen_send(c->gen, out);
}

/* With log-probabilities a text waits for the next one: what the parser held back of it comes without entries of its
 * own, and every chunk of text has some. lp[1] has those of the text that waits. */
static void send_unsent(struct choice *c, struct base_buf *out)
{
	if (c->unsent.len == 0)
		return;
	open_delta(c, out);
	(void)base_buf_puts(out, "\"content\":");
	gen_string(out, &c->unsent);
	base_buf_reset(&c->unsent);
	send_delta(c, &c->lp[1], NULL, out);
}

static void keep_unsent(struct choice *c, const struct eng_part *part, struct base_buf *out)
{
	if (c->lp[0].len > 0) {
		send_unsent(c, out);
		(void)base_buf_append(&c->lp[1], c->lp[0].data, c->lp[0].len);
		base_buf_reset(&c->lp[0]);
	}
	(void)base_buf_append(&c->unsent, part->text, part->len);
}

static void chat_begin(struct choice *c, struct base_buf *out)
{
	c->has_begun = true;
	gen_head(c->gen, "chat.completion.chunk", out);
	(void)base_buf_printf(out,
	                      "{\"index\":%u,\"delta\":{\"role\":\"assistant\",\"content\":\"\"},\"logprobs\":null,"
	                      "\"finish_reason\":null}",
	                      c->index);
	gen_tail(c->gen, out);
	gen_send(c->gen, out);
}

static void chat_part(struct choice *c, const struct eng_part *part)
{
	CLEANUP(base_buf_done) struct base_buf out = BASE_BUF_INIT(HTTP_MAX_RESPONSE);

	if (part->kind == ENG_PART_CALL_END)
		return;
	if (!c->has_begun)
		chat_begin(c, &out);
	if (part->kind == ENG_PART_TEXT && c->gen->p.logprobs) {
		keep_unsent(c, part, &out);
		return;
	}
	send_unsent(c, &out);
	open_delta(c, &out);
	switch (part->kind) {
	case ENG_PART_CALL:
		(void)base_buf_printf(&out, "\"tool_calls\":[{\"index\":%u,\"id\":\"%s\",\"type\":\"function\",",
		                      part->call, c->calls[part->call].id);
		(void)base_buf_puts(&out, "\"function\":{\"name\":");
		(void)base_json_append_string(&out, part->text, part->len);
		(void)base_buf_puts(&out, ",\"arguments\":\"\"}}]");
		break;
	case ENG_PART_ARGS:
		(void)base_buf_printf(&out, "\"tool_calls\":[{\"index\":%u,\"function\":{\"arguments\":", part->call);
		(void)base_json_append_string(&out, part->text, part->len);
		(void)base_buf_puts(&out, "}}]");
		break;
	default:
		(void)base_buf_puts(&out, part->kind == ENG_PART_TEXT ? "\"content\":" : "\"reasoning_content\":");
		(void)base_json_append_string(&out, part->text, part->len);
		break;
	}
	send_delta(c, &c->lp[0], NULL, &out);
}

static void chat_chunk(struct choice *c, bool last)
{
	CLEANUP(base_buf_done) struct base_buf out = BASE_BUF_INIT(HTTP_MAX_RESPONSE);

	if (!last)
		return;
	if (!c->has_begun)
		chat_begin(c, &out);
	send_unsent(c, &out);
	open_delta(c, &out);
	send_delta(c, &c->lp[0], gen_chat_finish(c), &out);
}

static void chat_end(struct gen *g)
{
	gen_send_usage(g, "chat.completion.chunk");
}

/* ---- The whole reply ---- */

static void append_calls(const struct choice *c, struct base_buf *out)
{
	(void)base_buf_puts(out, ",\"tool_calls\":[");
	for (size_t i = 0; i < c->n_calls; i++) {
		const struct gen_call *call = &c->calls[i];

		(void)base_buf_printf(
		        out, "%s{\"id\":\"%s\",\"type\":\"function\",\"function\":{\"name\":", i ? "," : "", call->id);
		gen_string(out, &call->name);
		(void)base_buf_puts(out, ",\"arguments\":");
		gen_string(out, &call->args);
		(void)base_buf_puts(out, "}}");
	}
	(void)base_buf_putc(out, ']');
}

static void append_message(const struct choice *c, struct base_buf *out)
{
	(void)base_buf_puts(out, "{\"role\":\"assistant\",\"content\":");
	if (c->text.len == 0 && c->n_calls > 0)
		(void)base_buf_puts(out, "null");
	else
		gen_string(out, &c->text);
	if (c->reasoning.len > 0) {
		(void)base_buf_puts(out, ",\"reasoning_content\":");
		gen_string(out, &c->reasoning);
	}
	if (c->n_calls > 0)
		append_calls(c, out);
	(void)base_buf_puts(out, ",\"refusal\":null}");
}

static void chat_reply(struct gen *g, struct base_buf *out)
{
	gen_head(g, "chat.completion", out);
	for (uint32_t i = 0; i < g->n_choices; i++) {
		struct choice *c = &g->choices[i];

		(void)base_buf_printf(out, "%s{\"index\":%u,\"message\":", i ? "," : "", c->index);
		append_message(c, out);
		(void)base_buf_puts(out, ",\"logprobs\":");
		chat_logprobs(c, &c->lp[0], out);
		(void)base_buf_printf(out, ",\"finish_reason\":\"%s\"}", gen_chat_finish(c));
	}
	(void)base_buf_puts(out, "],\"usage\":");
	gen_usage(g, out);
	(void)base_buf_putc(out, '}');
}

static const struct gen_api chat_api = { .logprob = chat_logprob,
	                                 .chunk = chat_chunk,
	                                 .part = chat_part,
	                                 .end = chat_end,
	                                 .reply = chat_reply,
	                                 .is_chat = true };

void handle_chat(struct exchange *x)
{
	gen_handle(x, http_parse_chat, &chat_api, "chatcmpl-");
}
