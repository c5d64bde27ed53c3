/* What the shapes of answers (chat.c, completions.c, generate.c, ...) are made of: ids, counts, numbers, lists, events,
 * and the fields that OpenAI's replies and chunks share. */
#include <math.h>
#include <stdio.h>
#include <string.h>
#include <sys/random.h>

#include "base/cleanup.h"
#include "base/json.h"
#include "gen.h"

const char *gen_finish_name(const struct choice *c)
{
	switch (c->finish) {
	case ENG_FINISH_STOP:
		return "stop";
	case ENG_FINISH_LENGTH:
		return "length";
	case ENG_FINISH_ABORT:
		return "abort";
	case ENG_FINISH_ERROR:
		return "error";
	}
	return "error";
}

static uint32_t all_prompt_tokens(const struct gen *g)
{
	uint32_t n = 0;

	for (uint32_t i = 0; i < g->n_choices / g->p.n; i++)
		n += g->n_prompt[i];
	return n;
}

static uint32_t all_output_tokens(const struct gen *g)
{
	uint32_t n = 0;

	for (uint32_t i = 0; i < g->n_choices; i++)
		n += g->choices[i].n_output;
	return n;
}

void gen_usage(const struct gen *g, struct base_buf *out)
{
	uint32_t n_prompt = all_prompt_tokens(g), n_output = all_output_tokens(g), n_cached = 0, n_reasoning = 0;

	for (uint32_t i = 0; i < g->n_choices; i++) {
		n_cached += i % g->p.n == 0 ? g->choices[i].n_cached : 0;
		n_reasoning += g->choices[i].n_reasoning;
	}
	(void)base_buf_printf(out,
	                      "{\"prompt_tokens\":%u,\"completion_tokens\":%u,\"total_tokens\":%u,"
	                      "\"prompt_tokens_details\":{\"cached_tokens\":%u},"
	                      "\"completion_tokens_details\":{\"reasoning_tokens\":%u}}",
	                      n_prompt, n_output, n_prompt + n_output, n_cached, n_reasoning);
}

void gen_string(struct base_buf *out, const struct base_buf *text)
{
	(void)base_json_append_string(out, base_buf_text(text), text->len);
}

void gen_send_event(struct gen *g, const char *name, struct base_buf *out)
{
	CLEANUP(base_buf_done) struct base_buf line = BASE_BUF_INIT(HTTP_MAX_RESPONSE);

	http_event(name, out, &line);
	if (base_buf_error(out) || base_buf_error(&line))
		exchange_fail(g->x, 500, "server_error", NULL, "out of memory");
	else
		exchange_stream(g->x, line.data, line.len);
	base_buf_reset(out);
}

void gen_send(struct gen *g, struct base_buf *out)
{
	gen_send_event(g, NULL, out);
}

void gen_list(struct base_buf *out, const struct base_buf *elements)
{
	(void)base_buf_putc(out, '[');
	if (elements->len > 0)
		(void)base_buf_append(out, elements->data, elements->len - 1); /* without the last comma */
	(void)base_buf_putc(out, ']');
}

void gen_number(struct base_buf *out, float x)
{
	if (isfinite(x))
		(void)base_buf_printf(out, "%.9g", (double)x);
	else
		(void)base_buf_puts(out, x > 0 ? "9999.0" : "-9999.0");
}

size_t gen_chars(const char *text, size_t len)
{
	size_t n = 0;

	for (size_t i = 0; i < len; i++)
		n += ((unsigned char)text[i] & 0xc0) != 0x80;
	return n;
}

const char *gen_model(const struct exchange *x)
{
	return x->adapter ? eng_engine_adapter_name(x->http->engine, x->adapter)
	                  : eng_engine_info(x->http->engine)->served_name;
}

void gen_make_id(const char *prefix, char *ret_id, size_t size)
{
	uint64_t r[2] = { 0 };

	(void)!getrandom(r, sizeof(r), 0);
	(void)snprintf(ret_id, size, "%s%016llx%08llx", prefix, (unsigned long long)r[0],
	               (unsigned long long)(r[1] >> 32));
}

/* ---- OpenAI's common parts ---- */

void gen_head(const struct gen *g, const char *object, struct base_buf *out)
{
	const char *model = gen_model(g->x);

	(void)base_buf_printf(out, "{\"id\":\"%s\",\"object\":\"%s\",\"created\":%lld,\"model\":", g->id, object,
	                      (long long)g->created);
	(void)base_json_append_string(out, model, strlen(model));
	(void)base_buf_puts(out, ",\"choices\":[");
}

void gen_tail(const struct gen *g, struct base_buf *out)
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

void gen_send_usage(struct gen *g, const char *object)
{
	CLEANUP(base_buf_done) struct base_buf out = BASE_BUF_INIT(HTTP_MAX_RESPONSE);

	if (!g->p.include_usage)
		return;
	gen_head(g, object, &out);
	(void)base_buf_puts(&out, "],\"usage\":");
	gen_usage(g, &out);
	(void)base_buf_putc(&out, '}');
	gen_send(g, &out);
}
