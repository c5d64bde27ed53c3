/* Anthropic's messages: replies, streams of content blocks, and the count of a prompt's tokens. */
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/json.h"
#include "gen.h"

static void no_logprob(struct choice *c, const struct eng_event *ev, struct base_buf *dst)
{
}

/* ---- Common parts ---- */

static void stop_reason(const struct choice *c, struct base_buf *out)
{
	const char *reason = "end_turn";

	if (c->finish == ENG_FINISH_LENGTH)
		reason = "max_tokens";
	else if (c->n_calls > 0)
		reason = "tool_use";
	else if (c->stop_text)
		reason = "stop_sequence";
	(void)base_buf_printf(out, "\"stop_reason\":\"%s\",\"stop_sequence\":", reason);
	if (c->stop_text)
		(void)base_json_append_string(out, c->stop_text, strlen(c->stop_text));
	else
		(void)base_buf_puts(out, "null");
}

static void usage(const struct gen *g, struct base_buf *out)
{
	const struct choice *c = &g->choices[0];

	(void)base_buf_printf(out,
	                      "\"usage\":{\"input_tokens\":%u,\"cache_creation_input_tokens\":0,"
	                      "\"cache_read_input_tokens\":%u,\"output_tokens\":%u}",
	                      g->n_prompt[0] - c->n_cached, c->n_cached, c->n_output);
}

static void head(const struct gen *g, struct base_buf *out)
{
	const char *model = gen_model(g->x);

	(void)base_buf_printf(out, "{\"id\":\"%s\",\"type\":\"message\",\"role\":\"assistant\",\"model\":", g->id);
	(void)base_json_append_string(out, model, strlen(model));
}

/* ---- The whole reply ---- */

static void append_call(const struct gen_call *call, struct base_buf *out)
{
	json_t *args = NULL;
	bool is_object = base_json_parse("arguments", base_buf_text(&call->args), call->args.len, &args, NULL) == 0 &&
	                 json_is_object(args);

	(void)base_buf_printf(out, "{\"type\":\"tool_use\",\"id\":\"%s\",\"name\":", call->id);
	gen_string(out, &call->name);
	/* Arguments that broke off cannot be given as the object that the protocol wants. */
	(void)base_buf_puts(out, ",\"input\":");
	if (is_object)
		(void)base_json_append(out, args);
	else
		(void)base_buf_puts(out, "{}");
	(void)base_buf_putc(out, '}');
	json_decref(args);
}

static void reply(struct gen *g, struct base_buf *out)
{
	const struct choice *c = &g->choices[0];
	bool first = true;

	head(g, out);
	(void)base_buf_puts(out, ",\"content\":[");
	if (c->reasoning.len > 0) {
		(void)base_buf_puts(out, "{\"type\":\"thinking\",\"thinking\":");
		gen_string(out, &c->reasoning);
		(void)base_buf_puts(out, ",\"signature\":\"\"}");
		first = false;
	}
	if (c->text.len > 0) {
		(void)base_buf_printf(out, "%s{\"type\":\"text\",\"text\":", first ? "" : ",");
		gen_string(out, &c->text);
		(void)base_buf_putc(out, '}');
		first = false;
	}
	for (size_t i = 0; i < c->n_calls; i++) {
		if (!first)
			(void)base_buf_putc(out, ',');
		append_call(&c->calls[i], out);
		first = false;
	}
	(void)base_buf_puts(out, "],");
	stop_reason(c, out);
	(void)base_buf_putc(out, ',');
	usage(g, out);
	(void)base_buf_putc(out, '}');
}

/* ---- Streams ---- */

static void begin(struct gen *g)
{
	CLEANUP(base_buf_done) struct base_buf out = BASE_BUF_INIT(HTTP_MAX_RESPONSE);

	(void)base_buf_puts(&out, "{\"type\":\"message_start\",\"message\":");
	head(g, &out);
	(void)base_buf_puts(&out, ",\"content\":[],\"stop_reason\":null,\"stop_sequence\":null,");
	usage(g, &out);
	(void)base_buf_puts(&out, "}}");
	gen_send_event(g, "message_start", &out);
	(void)base_buf_puts(&out, "{\"type\":\"ping\"}");
	gen_send_event(g, "ping", &out);
}

static void close_block(struct choice *c)
{
	CLEANUP(base_buf_done) struct base_buf out = BASE_BUF_INIT(4096);

	if (c->item < 0)
		return;
	if (c->item == ENG_PART_REASONING) {
		(void)base_buf_printf(&out,
		                      "{\"type\":\"content_block_delta\",\"index\":%d,\"delta\":{\"type\":"
		                      "\"signature_delta\",\"signature\":\"\"}}",
		                      c->n_items);
		gen_send_event(c->gen, "content_block_delta", &out);
	}
	(void)base_buf_printf(&out, "{\"type\":\"content_block_stop\",\"index\":%d}", c->n_items);
	gen_send_event(c->gen, "content_block_stop", &out);
	c->n_items++;
	c->item = -1;
}

static void open_block(struct choice *c, const struct eng_part *part)
{
	CLEANUP(base_buf_done) struct base_buf out = BASE_BUF_INIT(HTTP_MAX_RESPONSE);

	c->item = (int)part->kind;
	(void)base_buf_printf(&out, "{\"type\":\"content_block_start\",\"index\":%d,\"content_block\":", c->n_items);
	if (part->kind == ENG_PART_CALL) {
		(void)base_buf_printf(&out, "{\"type\":\"tool_use\",\"id\":\"%s\",\"name\":", c->calls[part->call].id);
		(void)base_json_append_string(&out, part->text, part->len);
		(void)base_buf_puts(&out, ",\"input\":{}}}");
	} else if (part->kind == ENG_PART_TEXT) {
		(void)base_buf_puts(&out, "{\"type\":\"text\",\"text\":\"\"}}");
	} else {
		(void)base_buf_puts(&out, "{\"type\":\"thinking\",\"thinking\":\"\",\"signature\":\"\"}}");
	}
	gen_send_event(c->gen, "content_block_start", &out);
}

static void part(struct choice *c, const struct eng_part *p)
{
	static const char *const deltas[][2] = { [ENG_PART_TEXT] = { "text_delta", "text" },
		                                 [ENG_PART_REASONING] = { "thinking_delta", "thinking" },
		                                 [ENG_PART_ARGS] = { "input_json_delta", "partial_json" } };
	CLEANUP(base_buf_done) struct base_buf out = BASE_BUF_INIT(HTTP_MAX_RESPONSE);
	bool is_args = p->kind == ENG_PART_ARGS;

	if (p->kind == ENG_PART_CALL_END) {
		close_block(c);
		return;
	}
	if (!is_args && (c->item != (int)p->kind || p->kind == ENG_PART_CALL)) {
		close_block(c);
		open_block(c, p);
	}
	if (p->kind == ENG_PART_CALL)
		return;
	(void)base_buf_printf(&out, "{\"type\":\"content_block_delta\",\"index\":%d,\"delta\":{\"type\":\"%s\",\"%s\":",
	                      c->n_items, deltas[p->kind][0], deltas[p->kind][1]);
	(void)base_json_append_string(&out, p->text, p->len);
	(void)base_buf_puts(&out, "}}");
	gen_send_event(c->gen, "content_block_delta", &out);
}

static void chunk(struct choice *c, bool last)
{
	if (last)
		close_block(c);
}

static void end(struct gen *g)
{
	CLEANUP(base_buf_done) struct base_buf out = BASE_BUF_INIT(HTTP_MAX_RESPONSE);

	(void)base_buf_puts(&out, "{\"type\":\"message_delta\",\"delta\":{");
	stop_reason(&g->choices[0], &out);
	(void)base_buf_puts(&out, "},");
	usage(g, &out);
	(void)base_buf_putc(&out, '}');
	gen_send_event(g, "message_delta", &out);
	(void)base_buf_puts(&out, "{\"type\":\"message_stop\"}");
	gen_send_event(g, "message_stop", &out);
}

static const struct gen_api messages_api = { .logprob = no_logprob,
	                                     .chunk = chunk,
	                                     .part = part,
	                                     .begin = begin,
	                                     .end = end,
	                                     .reply = reply,
	                                     .is_chat = true,
	                                     .has_no_done = true };

void handle_messages(struct exchange *x)
{
	gen_handle(x, http_parse_messages, &messages_api, "msg_");
}

/* ---- Counting ---- */

void handle_count_tokens(struct exchange *x)
{
	CLEANUP(base_buf_done) struct base_buf text = BASE_BUF_INIT(GEN_TEXT_MAX);
	struct base_buf out = BASE_BUF_INIT(4096);
	struct http_prompt q;
	struct http_params p;
	struct http_error e = { 0 };
	struct eng_sampling defaults;
	int32_t *ids = NULL;
	size_t n = 0;
	int r;

	eng_sampling_defaults(x->http->engine, &defaults);
	r = http_parse_messages(base_buf_text(&x->body), x->body.len, &defaults, &p, &e);
	if (r == 0) {
		r = gen_render_chat(x, &p, &text, &e);
		q = (struct http_prompt){ .text = base_buf_text(&text), .text_len = text.len };
		if (r == 0)
			r = gen_prompt_ids(x, &q, false, &ids, &n, &e);
		http_params_done(&p);
	}
	free(ids);
	exchange_lock(x);
	if (r < 0) {
		exchange_reply_error(x, &e);
	} else {
		(void)base_buf_printf(&out, "{\"input_tokens\":%zu}", n);
		exchange_reply(x, 200, &out);
	}
	exchange_unlock(x);
}
