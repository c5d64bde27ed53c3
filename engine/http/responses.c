/* OpenAI's responses: an answer is a list of items (reasoning, messages, function calls), each with a life of its own
 * in a stream. What was answered lately is kept, so that previous_response_id continues it. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/json.h"
#include "gen.h"
#include "store.h"

struct item {
	enum eng_part_kind kind; /* TEXT, REASONING, CALL */
	char id[40];
	uint32_t call;
	struct base_buf text; /* arguments of a call */
};

struct responses {
	struct item *items;
	size_t n_items;
	bool is_open; /* the last item */
	bool stores;
};

static void responses_free(void *extra)
{
	struct responses *r = extra;

	for (size_t i = 0; i < r->n_items; i++)
		base_buf_done(&r->items[i].text);
	free(r->items);
	free(r);
}

static void no_logprob(struct choice *c, const struct eng_event *ev, struct base_buf *dst)
{
}

static json_t *text_of(const struct base_buf *b)
{
	return json_stringn_nocheck(base_buf_text(b), b->len);
}

/* ---- Objects ---- */

static json_t *item_part(const struct item *it, bool is_empty)
{
	json_t *text = is_empty ? json_string("") : text_of(&it->text);

	if (it->kind == ENG_PART_REASONING)
		return json_pack("{s:s, s:o}", "type", "reasoning_text", "text", text);
	return json_pack("{s:s, s:o, s:[], s:[]}", "type", "output_text", "text", text, "annotations", "logprobs");
}

/* is_begun: as it is when it is added, without content. */
static json_t *item_object(const struct choice *c, const struct item *it, bool is_begun, const char *status)
{
	json_t *parts = is_begun ? json_array() : json_pack("[o]", item_part(it, false));
	json_t *v;

	switch (it->kind) {
	case ENG_PART_REASONING:
		v = json_pack("{s:s, s:s, s:[], s:O, s:s}", "type", "reasoning", "id", it->id, "summary", "content",
		              parts, "status", status);
		break;
	case ENG_PART_CALL:
		v = json_pack("{s:s, s:s, s:s, s:o, s:o, s:s}", "type", "function_call", "id", it->id, "call_id",
		              c->calls[it->call].id, "name", text_of(&c->calls[it->call].name), "arguments",
		              is_begun ? json_string("") : text_of(&it->text), "status", status);
		break;
	default:
		v = json_pack("{s:s, s:s, s:s, s:s, s:O}", "type", "message", "id", it->id, "status", status, "role",
		              "assistant", "content", parts);
		break;
	}
	json_decref(parts);
	return v;
}

static json_t *usage(const struct gen *g)
{
	const struct choice *c = &g->choices[0];

	return json_pack("{s:i, s:{s:i}, s:i, s:{s:i}, s:i}", "input_tokens", (int)g->n_prompt[0],
	                 "input_tokens_details", "cached_tokens", (int)c->n_cached, "output_tokens", (int)c->n_output,
	                 "output_tokens_details", "reasoning_tokens", (int)c->n_reasoning, "total_tokens",
	                 (int)(g->n_prompt[0] + c->n_output));
}

/* What was asked, as the reply repeats it. */
static void repeat(const struct gen *g, json_t *v)
{
	static const struct {
		const char *key;
		const char *def; /* JSON */
	} fields[] = { { "instructions", "null" },
		       { "max_output_tokens", "null" },
		       { "metadata", "{}" },
		       { "parallel_tool_calls", "true" },
		       { "previous_response_id", "null" },
		       { "reasoning", "{\"effort\":null,\"summary\":null}" },
		       { "store", "true" },
		       { "text", "{\"format\":{\"type\":\"text\"}}" },
		       { "tool_choice", "\"auto\"" },
		       { "tools", "[]" },
		       { "truncation", "\"disabled\"" },
		       { "user", "null" } };

	for (size_t i = 0; i < sizeof(fields) / sizeof(fields[0]); i++) {
		json_t *given = json_object_get(g->p.made, fields[i].key);

		if (given)
			(void)json_object_set(v, fields[i].key, given);
		else
			(void)json_object_set_new(v, fields[i].key, json_loads(fields[i].def, JSON_DECODE_ANY, NULL));
	}
	(void)json_object_set_new(v, "temperature", json_real((double)g->p.sampling.temperature));
	(void)json_object_set_new(v, "top_p", json_real((double)g->p.sampling.top_p));
}

static const char *item_status(const struct gen *g)
{
	return g->choices[0].finish == ENG_FINISH_LENGTH ? "incomplete" : "completed";
}

/* status: "in_progress", "completed", "incomplete", "failed". */
static json_t *response_object(const struct gen *g, const char *status)
{
	const struct responses *r = g->extra;
	bool is_over = strcmp(status, "in_progress") != 0;
	json_t *output = json_array(), *v;

	for (size_t i = 0; i < r->n_items && is_over; i++)
		(void)json_array_append_new(output, item_object(&g->choices[0], &r->items[i], false,
		                                                i + 1 == r->n_items ? item_status(g) : "completed"));
	v = json_pack("{s:s, s:s, s:I, s:s, s:s, s:n, s:n, s:o}", "id", g->id, "object", "response", "created_at",
	              (json_int_t)g->created, "status", status, "model", gen_model(g->x), "error", "incomplete_details",
	              "output", output);
	if (!v)
		return NULL;
	if (strcmp(status, "incomplete") == 0)
		(void)json_object_set_new(v, "incomplete_details", json_pack("{s:s}", "reason", "max_output_tokens"));
	if (strcmp(status, "failed") == 0)
		(void)json_object_set_new(v, "error",
		                          json_pack("{s:s, s:s}", "code", "server_error", "message", g->error.message));
	(void)json_object_set_new(v, "usage", is_over ? usage(g) : json_null());
	repeat(g, v);
	return v;
}

static const char *end_status(const struct gen *g)
{
	return g->choices[0].finish == ENG_FINISH_LENGTH ? "incomplete" : "completed";
}

/* ---- Events ---- */

/* v (the caller's reference goes) gets the type and the number. */
static void send_event(struct gen *g, const char *type, json_t *v)
{
	CLEANUP(base_buf_done) struct base_buf out = BASE_BUF_INIT(HTTP_MAX_RESPONSE);

	if (!v) {
		exchange_fail(g->x, 500, "server_error", NULL, "out of memory");
		return;
	}
	(void)json_object_set_new(v, "type", json_string(type));
	(void)json_object_set_new(v, "sequence_number", json_integer((json_int_t)g->sequence++));
	(void)base_json_append(&out, v);
	json_decref(v);
	gen_send_event(g, type, &out);
}

static void send_part(struct gen *g, const char *type, const struct item *it, size_t index, json_t *part)
{
	send_event(g, type,
	           json_pack("{s:s, s:i, s:i, s:o}", "item_id", it->id, "output_index", (int)index, "content_index", 0,
	                     "part", part));
}

static void send_text(struct gen *g, const char *type, const struct item *it, size_t index, const char *key,
                      json_t *text)
{
	json_t *v = json_pack("{s:s, s:i, s:o}", "item_id", it->id, "output_index", (int)index, key, text);

	if (it->kind != ENG_PART_CALL)
		(void)json_object_set_new(v, "content_index", json_integer(0));
	if (it->kind == ENG_PART_TEXT)
		(void)json_object_set_new(v, "logprobs", json_array());
	send_event(g, type, v);
}

static void close_item(struct gen *g, const char *status)
{
	struct responses *r = g->extra;
	struct item *it = r->n_items ? &r->items[r->n_items - 1] : NULL;
	size_t index = r->n_items - 1;

	if (!r->is_open)
		return;
	r->is_open = false;
	if (!g->p.stream)
		return;
	if (it->kind == ENG_PART_CALL) {
		json_t *v =
		        json_pack("{s:s, s:i, s:o, s:o}", "item_id", it->id, "output_index", (int)index, "arguments",
		                  text_of(&it->text), "name", text_of(&g->choices[0].calls[it->call].name));

		send_event(g, "response.function_call_arguments.done", v);
	} else {
		bool is_text = it->kind == ENG_PART_TEXT;

		send_text(g, is_text ? "response.output_text.done" : "response.reasoning_text.done", it, index, "text",
		          text_of(&it->text));
		send_part(g, "response.content_part.done", it, index, item_part(it, false));
	}
	send_event(g, "response.output_item.done",
	           json_pack("{s:i, s:o}", "output_index", (int)index, "item",
	                     item_object(&g->choices[0], it, false, status)));
}

static struct item *open_item(struct gen *g, const struct eng_part *part)
{
	static const char *const prefixes[] = {
		[ENG_PART_TEXT] = "msg_", [ENG_PART_REASONING] = "rs_", [ENG_PART_CALL] = "fc_"
	};
	struct responses *r = g->extra;
	struct item *items = realloc(r->items, (r->n_items + 1) * sizeof(*items)), *it;

	if (!items)
		return NULL;
	r->items = items;
	it = &items[r->n_items++];
	memset(it, 0, sizeof(*it));
	it->kind = part->kind;
	it->call = part->call;
	gen_make_id(prefixes[part->kind], it->id, sizeof(it->id));
	base_buf_init(&it->text, GEN_TEXT_MAX);
	r->is_open = true;
	if (!g->p.stream)
		return it;
	send_event(g, "response.output_item.added",
	           json_pack("{s:i, s:o}", "output_index", (int)r->n_items - 1, "item",
	                     item_object(&g->choices[0], it, true, "in_progress")));
	if (it->kind != ENG_PART_CALL)
		send_part(g, "response.content_part.added", it, r->n_items - 1, item_part(it, true));
	return it;
}

static void part(struct choice *c, const struct eng_part *p)
{
	static const char *const deltas[] = { [ENG_PART_TEXT] = "response.output_text.delta",
		                              [ENG_PART_REASONING] = "response.reasoning_text.delta",
		                              [ENG_PART_ARGS] = "response.function_call_arguments.delta" };
	struct gen *g = c->gen;
	struct responses *r = g->extra;
	struct item *it = r->is_open ? &r->items[r->n_items - 1] : NULL;

	if (p->kind == ENG_PART_CALL_END) {
		close_item(g, "completed");
		return;
	}
	if (p->kind != ENG_PART_ARGS && (!it || it->kind != p->kind || p->kind == ENG_PART_CALL)) {
		close_item(g, "completed");
		it = open_item(g, p);
	}
	if (!it || p->kind == ENG_PART_CALL)
		return;
	(void)base_buf_append(&it->text, p->text, p->len);
	if (g->p.stream)
		send_text(g, deltas[p->kind], it, r->n_items - 1, "delta", json_stringn_nocheck(p->text, p->len));
}

static void send_response(struct gen *g, const char *type, const char *status)
{
	send_event(g, type, json_pack("{s:o}", "response", response_object(g, status)));
}

static void begin(struct gen *g)
{
	send_response(g, "response.created", "in_progress");
	send_response(g, "response.in_progress", "in_progress");
}

static void chunk(struct choice *c, bool last)
{
	if (last)
		close_item(c->gen, item_status(c->gen));
}

/* ---- The end ---- */

static void add_assistant(const struct choice *c, json_t *messages)
{
	json_t *m = json_pack("{s:s, s:o}", "role", "assistant", "content", text_of(&c->text)), *calls;

	if (c->reasoning.len > 0)
		(void)json_object_set_new(m, "reasoning_content", text_of(&c->reasoning));
	if (c->n_calls > 0) {
		calls = json_array();
		for (size_t i = 0; i < c->n_calls; i++)
			(void)json_array_append_new(calls, json_pack("{s:s, s:s, s:{s:o, s:o}}", "id", c->calls[i].id,
			                                             "type", "function", "function", "name",
			                                             text_of(&c->calls[i].name), "arguments",
			                                             text_of(&c->calls[i].args)));
		(void)json_object_set_new(m, "tool_calls", calls);
	}
	(void)json_array_append_new(messages, m);
}

/* Without the instructions, which do not carry over. */
static void keep(const struct gen *g, const json_t *response)
{
	const struct responses *r = g->extra;
	json_t *messages;
	char *reply, *text;

	if (!r->stores)
		return;
	messages = json_copy((json_t *)g->p.messages);
	if (json_is_string(json_object_get(g->p.made, "instructions")))
		(void)json_array_remove(messages, 0);
	add_assistant(&g->choices[0], messages);
	reply = json_dumps(response, JSON_COMPACT);
	text = json_dumps(messages, JSON_COMPACT);
	if (reply && text)
		http_store_put(g->x->http->store, g->id, reply, text);
	free(reply);
	free(text);
	json_decref(messages);
}

static void reply(struct gen *g, struct base_buf *out)
{
	json_t *v = response_object(g, end_status(g));

	(void)base_json_append(out, v);
	keep(g, v);
	json_decref(v);
}

static void end(struct gen *g)
{
	const char *status = end_status(g);
	json_t *v = response_object(g, status);

	keep(g, v);
	send_event(g, strcmp(status, "completed") == 0 ? "response.completed" : "response.incomplete",
	           json_pack("{s:o}", "response", v));
}

static void fail(struct gen *g)
{
	send_response(g, "response.failed", "failed");
}

static const struct gen_api responses_api = { .logprob = no_logprob,
	                                      .chunk = chunk,
	                                      .part = part,
	                                      .begin = begin,
	                                      .end = end,
	                                      .fail = fail,
	                                      .reply = reply,
	                                      .is_chat = true,
	                                      .wants_parts = true,
	                                      .has_no_done = true };

/* ---- Routes ---- */

static int not_found(const char *id, const char *param, struct http_error *e)
{
	(void)http_bad_field(e, param, "there is no response \"%.64s\" any more, or there never was", id);
	e->status = 404;
	e->code = "previous_response_not_found";
	return -EINVAL;
}

/* The messages that previous_response_id stands for. */
static int find_previous(struct exchange *x, const json_t *body, json_t **ret, struct http_error *e)
{
	const json_t *v = json_object_get(body, "previous_response_id");
	CLEANUP(freep) char *text = NULL;

	if (!v || json_is_null(v))
		return 0;
	if (!json_is_string(v))
		return http_bad_field(e, "previous_response_id", "expected a string, got %s", base_json_type_name(v));
	if (http_store_get(x->http->store, json_string_value(v), NULL, &text) < 0 || !text)
		return not_found(json_string_value(v), "previous_response_id", e);
	*ret = json_loads(text, JSON_ALLOW_NUL, NULL);
	return *ret ? 0 : -ENOMEM;
}

static int parse(struct exchange *x, struct http_params *p, bool *ret_stores, struct http_error *e)
{
	struct eng_sampling defaults;
	json_t *body = NULL, *before = NULL;
	int r = http_parse_object(base_buf_text(&x->body), x->body.len, &body, e);

	if (r < 0)
		return r;
	eng_sampling_defaults(x->http->engine, &defaults);
	r = http_opt_bool(body, "store", ret_stores, e);
	if (r >= 0)
		r = find_previous(x, body, &before, e);
	if (r < 0)
		json_decref(body);
	else
		r = http_parse_converted(body, http_convert_responses, before, &defaults, p, e);
	json_decref(before);
	return r;
}

void handle_responses(struct exchange *x)
{
	struct responses *extra = calloc(1, sizeof(*extra));
	struct http_params p;
	struct http_error e = { 0 };
	bool stores = true;
	int r = extra ? parse(x, &p, &stores, &e) : -ENOMEM;

	if (r < 0) {
		free(extra);
		exchange_lock(x);
		gen_error_of(r, &(struct err){ 0 }, &e);
		exchange_reply_error(x, &e);
		exchange_unlock(x);
		return;
	}
	base_buf_done(&x->body);
	extra->stores = stores;
	gen_start(x, &responses_api, &p, "resp_", extra, responses_free);
}

static const char *id_of(const struct exchange *x)
{
	return strrchr(x->url, '/') + 1;
}

static void answer_stored(struct exchange *x, int r, struct base_buf *out)
{
	struct http_error e = { 0 };

	exchange_lock(x);
	if (r < 0) {
		(void)not_found(id_of(x), NULL, &e);
		exchange_reply_error(x, &e);
	} else {
		exchange_reply(x, 200, out);
	}
	exchange_unlock(x);
	base_buf_done(out);
}

void handle_response_get(struct exchange *x)
{
	struct base_buf out = BASE_BUF_INIT(HTTP_MAX_RESPONSE);
	CLEANUP(freep) char *reply = NULL;
	int r = http_store_get(x->http->store, id_of(x), &reply, NULL);

	if (reply)
		(void)base_buf_puts(&out, reply);
	answer_stored(x, r, &out);
}

void handle_response_delete(struct exchange *x)
{
	struct base_buf out = BASE_BUF_INIT(4096);
	int r = http_store_remove(x->http->store, id_of(x));

	(void)base_buf_puts(&out, "{\"id\":");
	(void)base_json_append_string(&out, id_of(x), strlen(id_of(x)));
	(void)base_buf_puts(&out, ",\"object\":\"response\",\"deleted\":true}");
	answer_stored(x, r, &out);
}
