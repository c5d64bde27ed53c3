/* Chat: from messages to a prompt, and from an answer's text to its parts (text, reasoning, tool calls). */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/json.h"
#include "gen.h"

enum { MAX_CALLS = 1024 };

/* ---- The prompt ---- */

static bool is_constrained(const struct http_params *p)
{
	/* Tags come after text, and after reasoning. */
	return (p->grammar_param && p->grammar_kind != ENG_GRAMMAR_STRUCTURAL_TAG) || p->tool_choice >= TOOLS_REQUIRED;
}

static json_t *template_variables(const struct http_params *p)
{
	json_t *kwargs = p->kwargs ? json_copy((json_t *)p->kwargs) : json_object();

	if (p->reasoning_effort) {
		if (!json_object_get(kwargs, "reasoning_effort"))
			(void)json_object_set_new(kwargs, "reasoning_effort", json_string(p->reasoning_effort));
		if (strcmp(p->reasoning_effort, "none") == 0 && !json_object_get(kwargs, "enable_thinking"))
			(void)json_object_set_new(kwargs, "enable_thinking", json_false());
	}
	/* What is constrained is so from its first byte: there is no room for reasoning. */
	if (is_constrained(p))
		(void)json_object_set_new(kwargs, "enable_thinking", json_false());
	return kwargs;
}

int gen_render_chat(struct exchange *x, const struct http_params *p, struct base_buf *out, struct http_error *e)
{
	json_t *kwargs = template_variables(p);
	const json_t *tools = p->tool_choice == TOOLS_NONE ? NULL : p->tools;
	struct err err = { 0 };
	const char *close;
	int r;

	r = kwargs ? eng_render_chat(x->http->engine, p->messages, tools, kwargs, p->add_generation_prompt, out, &err)
	           : -ENOMEM;
	json_decref(kwargs);
	if (r < 0)
		gen_error_of(r, &err, e);
	if (r < 0 && e->status == 400)
		(void)snprintf(e->param, sizeof(e->param), "messages");
	/* A template that opens reasoning in any case: it is closed again. */
	if (r == 0 && is_constrained(p) &&
	    eng_chat_is_open_reasoning(x->http->reasoning_format, base_buf_text(out), out->len, &close))
		r = base_buf_printf(out, "\n%s\n\n", close);
	return r;
}

/* ---- Constraints ---- */

int gen_constrain_calls(struct gen *g, struct http_error *e)
{
	struct http_params *p = &g->p;
	bool is_named = p->tool_choice == TOOLS_NAMED;
	json_t *schema;

	if (p->tool_choice < TOOLS_REQUIRED)
		return 0;
	if (p->grammar_param)
		return http_bad_field(e, p->grammar_param,
		                      "cannot be combined with a `tool_choice` that forces a call");
	schema = eng_chat_call_schema(p->tools, is_named ? p->tool_name : NULL, is_named ? 1 : p->max_calls);
	p->grammar_text = schema ? json_dumps(schema, JSON_COMPACT) : NULL;
	json_decref(schema);
	if (!p->grammar_text)
		return -ENOMEM;
	p->grammar_len = strlen(p->grammar_text);
	p->grammar_kind = ENG_GRAMMAR_JSON_SCHEMA;
	p->grammar_param = "tools";
	return 0;
}

/* ---- The answer ---- */

static struct gen_call *add_call(struct choice *c)
{
	struct gen_call *calls, *call;

	if (c->n_calls >= MAX_CALLS)
		return NULL;
	calls = realloc(c->calls, (c->n_calls + 1) * sizeof(*calls));
	if (!calls)
		return NULL;
	c->calls = calls;
	call = &calls[c->n_calls++];
	memset(call, 0, sizeof(*call));
	base_buf_init(&call->name, GEN_TEXT_MAX);
	base_buf_init(&call->args, GEN_TEXT_MAX);
	eng_chat_call_id(c->gen->x->http->tool_format, call->id, sizeof(call->id));
	return call;
}

static void keep_part(struct choice *c, const struct eng_part *part)
{
	struct gen_call *call;

	switch (part->kind) {
	case ENG_PART_TEXT:
		(void)base_buf_append(&c->text, part->text, part->len);
		break;
	case ENG_PART_REASONING:
		(void)base_buf_append(&c->reasoning, part->text, part->len);
		break;
	case ENG_PART_CALL:
		call = add_call(c);
		if (call)
			(void)base_buf_append(&call->name, part->text, part->len);
		break;
	case ENG_PART_ARGS:
		if (part->call < c->n_calls)
			(void)base_buf_append(&c->calls[part->call].args, part->text, part->len);
		break;
	case ENG_PART_CALL_END:
		break;
	}
}

static void on_part(void *arg, const struct eng_part *part)
{
	struct choice *c = arg;

	if (part->kind >= ENG_PART_CALL && part->call >= MAX_CALLS)
		return;
	keep_part(c, part);
	if (part->kind >= ENG_PART_CALL && part->call >= c->n_calls)
		return; /* out of memory */
	if (c->gen->p.stream || c->gen->api->wants_parts)
		c->gen->api->part(c, part);
}

void gen_speak(struct choice *c, const char *text, size_t len)
{
	struct eng_part part = { .kind = ENG_PART_TEXT, .text = text, .len = len };

	if (len == 0)
		return;
	if (!c->parser) {
		on_part(c, &part);
		return;
	}
	eng_chat_parser_feed(c->parser, text, len);
	/* No more calls are wanted: the rest need not be computed. */
	if (eng_chat_parser_is_full(c->parser) && !c->is_cut && !c->is_done) {
		c->is_cut = true;
		eng_cancel(c->gen->x->http->engine, c->request_id);
	}
}

void gen_speak_end(struct choice *c)
{
	if (c->parser)
		eng_chat_parser_finish(c->parser);
}

int gen_open_parsers(struct gen *g, const char *prompt, size_t len, struct http_error *e)
{
	const struct eng_http *http = g->x->http;
	const char *tools = g->p.tools && g->p.tool_choice != TOOLS_NONE ? http->tool_format : "none";
	const char *reasoning = g->p.joins_reasoning ? "none" : http->reasoning_format;
	struct err err = { 0 };
	int r = 0;

	if (g->p.tool_choice >= TOOLS_REQUIRED)
		tools = "json";
	if (is_constrained(&g->p))
		reasoning = "none";
	if (strcmp(tools, "none") == 0 && strcmp(http->reasoning_format, "none") == 0)
		return 0;
	g->p.keep_special = g->p.keep_special || eng_chat_needs_special(tools, http->reasoning_format);
	for (uint32_t i = 0; i < g->n_choices && r == 0; i++) {
		struct choice *c = &g->choices[i];
		struct eng_chat_parser_config config = { .tool_format = tools,
			                                 .reasoning_format = reasoning,
			                                 .tools = g->p.tools,
			                                 .prompt = prompt,
			                                 .prompt_len = len,
			                                 .max_calls = g->p.max_calls,
			                                 .on_part = on_part,
			                                 .arg = c };

		if (g->p.tool_choice == TOOLS_NAMED)
			config.max_calls = 1;
		r = eng_chat_parser_new(&config, &c->parser, &err);
	}
	if (r < 0)
		gen_error_of(r, &err, e);
	return r;
}

const char *gen_chat_finish(const struct choice *c)
{
	return c->finish == ENG_FINISH_STOP && c->n_calls > 0 ? "tool_calls" : gen_finish_name(c);
}

void gen_speak_done(struct choice *c)
{
	for (size_t i = 0; i < c->n_calls; i++) {
		base_buf_done(&c->calls[i].name);
		base_buf_done(&c->calls[i].args);
	}
	free(c->calls);
	base_buf_done(&c->reasoning);
	base_buf_done(&c->unsent);
	eng_chat_parser_free(c->parser);
}
