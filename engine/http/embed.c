/* /v1/embeddings: one engine request per input; vectors as numbers or as base64 of little-endian float32. */
#include <errno.h>
#include <math.h>
#include <openssl/evp.h>
#include <stdlib.h>
#include <string.h>

#include "base/json.h"
#include "many.h"

static void append_vector(const struct many *m, const float *v, struct base_buf *out)
{
	size_t n_bytes = m->n_dims * sizeof(float), n_text = (n_bytes + 2) / 3 * 4;
	char *text;

	if (!m->p.base64) {
		(void)base_buf_putc(out, '[');
		for (uint32_t i = 0; i < m->n_dims; i++) {
			if (i > 0)
				(void)base_buf_putc(out, ',');
			gen_number(out, v[i]);
		}
		(void)base_buf_putc(out, ']');
		return;
	}
	/* Every machine that we build for is little-endian, like the format. */
	text = malloc(n_text + 1);
	if (text) {
		(void)EVP_EncodeBlock((unsigned char *)text, (const unsigned char *)v, (int)n_bytes);
		(void)base_buf_putc(out, '"');
		(void)base_buf_append(out, text, n_text);
		(void)base_buf_putc(out, '"');
	} else {
		out->error = -ENOMEM;
	}
	free(text);
}

static int reply(struct many *m, struct base_buf *out)
{
	const char *model = gen_model(m->x);
	size_t n_tokens = 0;

	(void)base_buf_puts(out, "{\"object\":\"list\",\"data\":[");
	for (size_t i = 0; i < m->n; i++) {
		(void)base_buf_printf(out, "%s{\"object\":\"embedding\",\"index\":%zu,\"embedding\":", i ? "," : "", i);
		append_vector(m, m->parts[i].vector, out);
		(void)base_buf_putc(out, '}');
		n_tokens += m->parts[i].n_ids;
	}
	(void)base_buf_puts(out, "],\"model\":");
	(void)base_json_append_string(out, model, strlen(model));
	(void)base_buf_printf(out, ",\"usage\":{\"prompt_tokens\":%zu,\"total_tokens\":%zu}}", n_tokens, n_tokens);
	return 0;
}

/* Keeps the first n_dims values, at unit length again. */
static void take_vector(struct many_part *part, const struct eng_event *ev)
{
	uint32_t n = part->many->n_dims;
	const float *v = ev->embedding;
	double sum = 0;

	if (ev->kind != ENG_EV_EMBED)
		return;
	part->vector = calloc(n, sizeof(*part->vector));
	if (!part->vector)
		return;
	for (uint32_t i = 0; i < n; i++)
		sum += (double)v[i] * v[i];
	for (uint32_t i = 0; i < n; i++)
		part->vector[i] = sum > 0 ? (float)(v[i] / sqrt(sum)) : 0.0f;
	part->has_result = true;
}

static void ask(const struct many *m, struct eng_request *req)
{
	req->kind = ENG_EMBED;
	req->sampling = m->p.sampling;
}

static int make_inputs(struct many *m, struct http_error *e)
{
	const struct eng_info *info = eng_engine_info(m->x->http->engine);
	int r;

	m->n_dims = m->p.dimensions ? m->p.dimensions : info->n_embd;
	if (m->n_dims > info->n_embd)
		return http_bad_field(e, "dimensions", "the model's vectors have %u, %u asked for", info->n_embd,
		                      m->n_dims);
	for (size_t i = 0; i < m->n; i++) {
		struct many_part *part = &m->parts[i];

		r = gen_prompt_ids(m->x, &m->p.prompts[i], true, &part->ids, &part->n_ids, e);
		if (r < 0)
			return r;
		if (part->n_ids == 0)
			return http_bad_field(e, "input", "element %zu is empty", i);
	}
	return 0;
}

void handle_embeddings(struct exchange *x)
{
	static const struct many_api api = { .parse = http_parse_embedding,
		                             .prepare = make_inputs,
		                             .request = ask,
		                             .result = take_vector,
		                             .reply = reply };

	http_handle_many(x, &api);
}
