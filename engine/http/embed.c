/* /v1/embeddings: one engine request per input, some at a time so that a long list does not fill the
 * queue; vectors as numbers or as base64 of little-endian float32. */
#include <errno.h>
#include <math.h>
#include <openssl/evp.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/json.h"
#include "gen.h"

enum { IN_FLIGHT = 16 };

struct embed;

struct input {
	struct embed *em;
	int32_t *ids;
	size_t n_ids;
	uint64_t request_id;
	bool is_running;
	float *vector;
};

struct embed {
	struct exchange *x;
	struct http_params p;
	struct input *inputs;
	size_t n_inputs, n_submitted, n_running;
	uint32_t n_dims;
	struct http_error error;
};

static void embed_free(void *work)
{
	struct embed *em = work;

	for (size_t i = 0; i < em->n_inputs; i++) {
		free(em->inputs[i].ids);
		free(em->inputs[i].vector);
	}
	free(em->inputs);
	http_params_done(&em->p);
	free(em);
}

static void embed_cancel(void *work)
{
	struct embed *em = work;

	for (size_t i = 0; i < em->n_inputs; i++) {
		if (em->inputs[i].is_running)
			eng_cancel(em->x->http->engine, em->inputs[i].request_id);
	}
}

static void append_vector(const struct embed *em, const float *v, struct base_buf *out)
{
	size_t n_bytes = em->n_dims * sizeof(float), n_text = (n_bytes + 2) / 3 * 4;
	char *text;

	if (!em->p.base64) {
		(void)base_buf_putc(out, '[');
		for (uint32_t i = 0; i < em->n_dims; i++) {
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

static void embed_finish(struct embed *em)
{
	CLEANUP(base_buf_done) struct base_buf out = BASE_BUF_INIT(HTTP_MAX_RESPONSE);
	const char *model = gen_model(em->x);
	size_t n_tokens = 0;

	/* Cancelled between two of them. */
	if (em->n_submitted < em->n_inputs)
		gen_error_of(-ESHUTDOWN, &(struct err){ 0 }, &em->error);
	if (em->error.status) {
		exchange_reply_error(em->x, &em->error);
		return;
	}
	(void)base_buf_puts(&out, "{\"object\":\"list\",\"data\":[");
	for (size_t i = 0; i < em->n_inputs; i++) {
		(void)base_buf_printf(&out, "%s{\"object\":\"embedding\",\"index\":%zu,\"embedding\":", i ? "," : "",
		                      i);
		append_vector(em, em->inputs[i].vector, &out);
		(void)base_buf_putc(&out, '}');
		n_tokens += em->inputs[i].n_ids;
	}
	(void)base_buf_puts(&out, "],\"model\":");
	(void)base_json_append_string(&out, model, strlen(model));
	(void)base_buf_printf(&out, ",\"usage\":{\"prompt_tokens\":%zu,\"total_tokens\":%zu}}", n_tokens, n_tokens);
	exchange_reply(em->x, 200, &out);
}

/* Keeps the first n_dims values, at unit length again. */
static void take_vector(struct input *in, const float *v)
{
	uint32_t n = in->em->n_dims;
	double sum = 0;

	in->vector = calloc(n, sizeof(*in->vector));
	if (!in->vector)
		return;
	for (uint32_t i = 0; i < n; i++)
		sum += (double)v[i] * v[i];
	for (uint32_t i = 0; i < n; i++)
		in->vector[i] = sum > 0 ? (float)(v[i] / sqrt(sum)) : 0.0f;
}

static void embed_submit(struct embed *em);

static void on_event(void *arg, const struct eng_event *ev)
{
	struct input *in = arg;
	struct embed *em = in->em;
	struct exchange *x = em->x;

	exchange_lock(x);
	if (ev->kind == ENG_EV_EMBED) {
		take_vector(in, ev->embedding);
	} else if (ev->kind == ENG_EV_DONE) {
		in->is_running = false;
		em->n_running--;
		if (!in->vector)
			gen_error_of(ev->error ? ev->error->code : -ESHUTDOWN,
			             ev->error ? ev->error : &(struct err){ 0 }, &em->error);
		embed_submit(em);
		if (em->n_running == 0)
			embed_finish(em);
	}
	exchange_unlock(x);
	if (ev->kind == ENG_EV_DONE)
		exchange_unref(x);
}

/* Locked. Submits up to the limit; after the first failure nothing more. */
static void embed_submit(struct embed *em)
{
	while (em->n_submitted < em->n_inputs && em->n_running < IN_FLIGHT && !em->error.status &&
	       !em->x->is_canceled) {
		struct input *in = &em->inputs[em->n_submitted];
		struct eng_request req = { .kind = ENG_EMBED,
			                   .adapter = em->x->adapter,
			                   .ids = in->ids,
			                   .n_ids = in->n_ids,
			                   .sampling = em->p.sampling,
			                   .logprob_start = -1,
			                   .client = em->x->client,
			                   .on_event = on_event,
			                   .arg = in };
		struct err err = { 0 };
		int r;

		exchange_ref(em->x);
		r = eng_submit(em->x->http->engine, &req, &in->request_id, &err);
		if (r < 0) {
			exchange_unref(em->x);
			gen_error_of(r, &err, &em->error);
			return;
		}
		in->is_running = true;
		em->n_submitted++;
		em->n_running++;
	}
}

static int make_inputs(struct embed *em, struct http_error *e)
{
	const struct eng_info *info = eng_engine_info(em->x->http->engine);
	int r;

	em->n_dims = em->p.dimensions ? em->p.dimensions : info->n_embd;
	if (em->n_dims > info->n_embd)
		return http_bad_field(e, "dimensions", "the model's vectors have %u, %u asked for", info->n_embd,
		                      em->n_dims);
	em->inputs = calloc(em->p.n_prompts, sizeof(*em->inputs));
	if (!em->inputs)
		return -ENOMEM;
	em->n_inputs = em->p.n_prompts;
	for (size_t i = 0; i < em->n_inputs; i++) {
		struct input *in = &em->inputs[i];

		in->em = em;
		r = gen_prompt_ids(em->x, &em->p.prompts[i], true, &in->ids, &in->n_ids, e);
		if (r < 0)
			return r;
		if (in->n_ids == 0)
			return http_bad_field(e, "input", "element %zu is empty", i);
	}
	return 0;
}

void handle_embeddings(struct exchange *x)
{
	struct embed *em = calloc(1, sizeof(*em));
	struct http_error e = { 0 };
	struct eng_sampling defaults;
	int r = -ENOMEM;

	eng_sampling_defaults(x->http->engine, &defaults);
	if (em) {
		em->x = x;
		r = http_parse_embedding(base_buf_text(&x->body), x->body.len, &defaults, &em->p, &e);
	}
	if (r == 0)
		r = http_pick_adapter(x, em->p.body, &e);
	if (r == 0)
		r = make_inputs(em, &e);
	exchange_lock(x);
	if (em) {
		x->work = em;
		x->cancel = embed_cancel;
		x->free_work = embed_free;
		watch_add(x);
	}
	if (r == 0 && !x->is_ready) { /* else the server ends, and has said so meanwhile */
		embed_submit(em);
		e = em->error;
		r = em->n_running > 0 ? 0 : -EBUSY;
	}
	if (r < 0) {
		gen_error_of(r, &(struct err){ 0 }, &e);
		exchange_reply_error(x, &e);
	}
	exchange_unlock(x);
}
