/* Request bodies: the first byte picks the route, the rest is what a client sends. */
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "params.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static const http_parse_fn parsers[] = { http_parse_chat,      http_parse_completion, http_parse_generate,
	                                 http_parse_embedding, http_parse_messages,   http_parse_responses,
	                                 http_parse_rerank };

/* Reads everything that a handler would read, so that a sanitizer sees a bad pointer. */
static size_t touch(const struct http_params *p)
{
	size_t sum = p->n + p->max_new + json_array_size(p->messages) + json_array_size(p->tools);

	for (size_t i = 0; i < p->n_prompts; i++) {
		for (size_t k = 0; k < p->prompts[i].text_len; k++)
			sum += (unsigned char)p->prompts[i].text[k];
		for (size_t k = 0; k < p->prompts[i].n_ids; k++)
			sum += (size_t)p->prompts[i].ids[k];
	}
	for (size_t i = 0; i < p->query_len; i++)
		sum += (unsigned char)p->query[i];
	for (size_t i = 0; i < p->n_stops; i++)
		sum += strlen(p->stops[i]);
	for (size_t i = 0; i < p->n_stop_ids; i++)
		sum += (size_t)p->stop_ids[i];
	for (size_t i = 0; i < p->sampling.n_logit_bias; i++)
		sum += (size_t)p->sampling.logit_bias[i].id;
	if (p->reasoning_effort)
		sum += strlen(p->reasoning_effort);
	return sum;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	const struct eng_sampling defaults = { .temperature = 1, .top_p = 1, .repetition_penalty = 1 };
	struct http_error e = { 0 };
	struct http_params p;
	volatile size_t sink;

	if (size == 0)
		return 0;
	if (parsers[data[0] % (sizeof(parsers) / sizeof(parsers[0]))]((const char *)data + 1, size - 1, &defaults, &p,
	                                                              &e) == 0) {
		sink = touch(&p);
		(void)sink;
		/* What the handlers rely on. */
		if (p.n == 0 || p.n > HTTP_MAX_CHOICES || p.n_top > HTTP_MAX_TOP || (!p.messages && p.n_prompts == 0))
			abort();
		http_params_done(&p);
	} else if (e.status < 400 || e.message[0] == '\0' || !e.type) {
		abort(); /* a refusal without words */
	}
	return 0;
}
