/* SGLang's native /generate: token ids or text in, text, ids and log-probabilities out; what rollouts of
 * reinforcement learning and evaluation harnesses use. Log-probabilities are [logprob, id, text or null];
 * a streamed event repeats everything so far. */
#include <stdio.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/json.h"
#include "gen.h"

enum { LP_INPUT, LP_OUTPUT, LP_INPUT_TOP, LP_OUTPUT_TOP, LP_INPUT_IDS, LP_OUTPUT_IDS };

static void triple(const struct gen *g, bool has_logprob, float logprob, int32_t id, struct base_buf *out)
{
	CLEANUP(base_buf_done) struct base_buf bytes = BASE_BUF_INIT(4096);

	(void)base_buf_putc(out, '[');
	if (has_logprob)
		gen_number(out, logprob);
	else
		(void)base_buf_puts(out, "null");
	(void)base_buf_printf(out, ",%d,", id);
	if (g->p.logprob_text) {
		(void)eng_token_bytes(g->x->http->engine, id, &bytes);
		(void)base_json_append_string(out, base_buf_text(&bytes), bytes.len);
	} else {
		(void)base_buf_puts(out, "null");
	}
	(void)base_buf_putc(out, ']');
}

/* Those of the ids that were asked for. */
static void add_scored(struct choice *c, const struct eng_event *ev, struct base_buf *out)
{
	const struct http_prompt *q = &c->gen->p.prompts[c->prompt];

	if (q->n_scored == 0)
		return;
	if (!ev->has_logprob) {
		(void)base_buf_puts(out, "null,");
		return;
	}
	for (size_t i = 0; i < q->n_scored; i++) {
		(void)base_buf_putc(out, i ? ',' : '[');
		triple(c->gen, true, ev->scored[i], q->scored[i], out);
	}
	(void)base_buf_puts(out, "],");
}

static void logprob(struct choice *c, const struct eng_event *ev, struct base_buf *dst)
{
	bool is_input = ev->kind == ENG_EV_PROMPT;
	struct base_buf *one = &dst[is_input ? LP_INPUT : LP_OUTPUT],
	                *top = &dst[is_input ? LP_INPUT_TOP : LP_OUTPUT_TOP];

	triple(c->gen, ev->has_logprob, ev->logprob, ev->id, one);
	(void)base_buf_putc(one, ',');
	add_scored(c, ev, &dst[is_input ? LP_INPUT_IDS : LP_OUTPUT_IDS]);
	if (!ev->has_logprob) {
		(void)base_buf_puts(top, "null,");
		return;
	}
	(void)base_buf_putc(top, '[');
	for (uint32_t i = 0; i < ev->n_top; i++) {
		if (i > 0)
			(void)base_buf_putc(top, ',');
		triple(c->gen, true, ev->top[i].logprob, ev->top[i].id, top);
	}
	(void)base_buf_puts(top, "],");
}

static void finish_reason(const struct choice *c, struct base_buf *out)
{
	if (!c->is_done) {
		(void)base_buf_puts(out, "null");
	} else if (c->finish == ENG_FINISH_LENGTH) {
		(void)base_buf_printf(out, "{\"type\":\"length\",\"length\":%u}", c->n_output);
	} else if (c->finish == ENG_FINISH_STOP) {
		(void)base_buf_puts(out, "{\"type\":\"stop\",\"matched\":");
		if (c->stop_text)
			(void)base_json_append_string(out, c->stop_text, strlen(c->stop_text));
		else
			(void)base_buf_printf(out, "%d", c->stop_id);
		(void)base_buf_putc(out, '}');
	} else {
		(void)base_buf_puts(out, "{\"type\":\"abort\",\"message\":\"the request was cancelled\"}");
	}
}

static void list_field(const char *name, const struct base_buf *elements, struct base_buf *out)
{
	(void)base_buf_printf(out, ",\"%s\":", name);
	gen_list(out, elements);
}

static void meta_info(const struct choice *c, struct base_buf *out)
{
	const struct gen *g = c->gen;

	char version[256], id[512];

	(void)snprintf(id, sizeof(id), g->p.is_batch ? "%.480s-%u" : "%.480s", g->p.rid ? g->p.rid : g->id, c->index);
	eng_weight_version(g->x->http->engine, version, sizeof(version));
	(void)base_buf_puts(out, "{\"id\":");
	(void)base_json_append_string(out, id, strlen(id));
	(void)base_buf_puts(out, ",\"weight_version\":");
	(void)base_json_append_string(out, version, strlen(version));
	(void)base_buf_puts(out, ",\"finish_reason\":");
	finish_reason(c, out);
	(void)base_buf_printf(out, ",\"prompt_tokens\":%u,\"completion_tokens\":%u,\"cached_tokens\":%u",
	                      g->n_prompt[c->prompt], c->n_output, c->n_cached);
	if (g->p.logprobs) {
		list_field("input_token_logprobs", &c->lp[LP_INPUT], out);
		list_field("output_token_logprobs", &c->lp[LP_OUTPUT], out);
	}
	if (g->p.logprobs && g->p.n_top > 0) {
		list_field("input_top_logprobs", &c->lp[LP_INPUT_TOP], out);
		list_field("output_top_logprobs", &c->lp[LP_OUTPUT_TOP], out);
	}
	if (g->p.prompts[c->prompt].n_scored > 0) {
		list_field("input_token_ids_logprobs", &c->lp[LP_INPUT_IDS], out);
		list_field("output_token_ids_logprobs", &c->lp[LP_OUTPUT_IDS], out);
	}
	if (c->is_done)
		(void)base_buf_printf(out, ",\"e2e_latency\":%.3f", (double)(http_now_ms() - g->start_ms) / 1000.0);
	(void)base_buf_putc(out, '}');
}

static void answer(const struct choice *c, struct base_buf *out)
{
	(void)base_buf_puts(out, "{\"text\":");
	(void)base_json_append_string(out, base_buf_text(&c->text), c->text.len);
	(void)base_buf_puts(out, ",\"output_ids\":");
	gen_list(out, &c->ids);
	if (c->gen->p.is_batch)
		(void)base_buf_printf(out, ",\"index\":%u", c->index);
	(void)base_buf_puts(out, ",\"meta_info\":");
	meta_info(c, out);
	(void)base_buf_putc(out, '}');
}

static void chunk(struct choice *c, bool last)
{
	CLEANUP(base_buf_done) struct base_buf out = BASE_BUF_INIT(HTTP_MAX_RESPONSE);

	answer(c, &out);
	gen_send(c->gen, &out);
}

static void end(struct gen *g)
{
}

static void reply(struct gen *g, struct base_buf *out)
{
	if (g->p.is_batch)
		(void)base_buf_putc(out, '[');
	for (uint32_t i = 0; i < g->n_choices; i++) {
		if (i > 0)
			(void)base_buf_putc(out, ',');
		answer(&g->choices[i], out);
	}
	if (g->p.is_batch)
		(void)base_buf_putc(out, ']');
}

static const struct gen_api generate_api = {
	.logprob = logprob, .chunk = chunk, .end = end, .reply = reply, .cumulative = true, .lp_all = true
};

void handle_generate(struct exchange *x)
{
	gen_handle(x, http_parse_generate, &generate_api, "");
}
