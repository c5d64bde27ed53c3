/* Request bodies of the generating routes but chats (params_chat.c), and what all share. Unknown fields are ignored, as
 * the services that clients were written for do; a known field of the wrong type or range is refused, and so is what is
 * known and not offered, because ignoring that would give wrong results silently. */
#include "params_internal.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/json.h"

void http_params_done(struct http_params *p)
{
	for (size_t i = 0; i < p->n_prompts; i++) {
		free(p->prompts[i].ids);
		free(p->prompts[i].scored);
	}
	free(p->prompts);
	free(p->logit_bias);
	free(p->stops);
	free(p->stop_ids);
	free(p->grammar_text);
	json_decref(p->made);
	json_decref(p->body);
	memset(p, 0, sizeof(*p));
}

int http_out_of_memory(struct http_error *e)
{
	(void)http_bad_field(e, NULL, "out of memory");
	e->status = 500;
	e->type = "server_error";
	return -ENOMEM;
}

/* ---- Sampling ---- */

static int parse_logit_bias(const json_t *obj, struct http_params *p, struct http_error *e)
{
	const json_t *bias = http_field(obj, "logit_bias"), *v;
	const char *key;

	if (!bias)
		return 0;
	if (!json_is_object(bias))
		return http_bad_field(e, "logit_bias", "expected an object, got %s", base_json_type_name(bias));
	p->logit_bias = calloc(json_object_size(bias) + 1, sizeof(*p->logit_bias));
	if (!p->logit_bias)
		return http_out_of_memory(e);
	json_object_foreach((json_t *)bias, key, v)
	{
		char *end;
		long id = strtol(key, &end, 10);
		double b = json_number_value(v);

		if (*key == '\0' || *end || id < 0 || id > INT32_MAX)
			return http_bad_field(e, "logit_bias", "\"%.32s\" is not a token id", key);
		if (!json_is_number(v) || !(b >= -100 && b <= 100))
			return http_bad_field(e, "logit_bias",
			                      "the bias of token %ld must be a number from -100 to 100", id);
		p->logit_bias[p->sampling.n_logit_bias++] = (struct eng_logit_bias){ (int32_t)id, (float)b };
	}
	p->sampling.logit_bias = p->logit_bias;
	return 0;
}

static int parse_seed(const json_t *obj, const char *key, struct http_params *p, struct http_error *e)
{
	int64_t seed = 0;
	int r = http_opt_int(obj, key, INT64_MIN, INT64_MAX, &seed, e);

	if (r == 1) {
		p->sampling.has_seed = true;
		p->sampling.seed = (uint64_t)seed;
	}
	return r < 0 ? r : 0;
}

/* What log-probabilities of the answer are of; the words are vLLM's. */
static int parse_logprobs_mode(const json_t *obj, struct http_params *p, struct http_error *e)
{
	const json_t *v = json_object_get(obj, "logprobs_mode");
	const char *mode = json_string_value(v);

	if (!v || json_is_null(v))
		return 0;
	p->processed_logprobs = mode && strcmp(mode, "processed_logprobs") == 0;
	if (!p->processed_logprobs && !(mode && strcmp(mode, "raw_logprobs") == 0))
		return http_bad_field(e, "logprobs_mode", "must be \"raw_logprobs\" or \"processed_logprobs\"");
	return 0;
}

static int parse_top_k(const json_t *obj, struct http_params *p, struct http_error *e)
{
	int64_t k = 0;
	int r = http_opt_int(obj, "top_k", -1, INT32_MAX, &k, e);

	if (r == 1)
		p->sampling.top_k = k > 0 ? (uint32_t)k : 0; /* -1 and 0: off */
	return r < 0 ? r : 0;
}

static int parse_sampling(const json_t *obj, double max_temperature, struct http_params *p, struct http_error *e)
{
	struct eng_sampling *s = &p->sampling;
	int r;

	if ((r = http_opt_float(obj, "temperature", 0, max_temperature, &s->temperature, e)) < 0 ||
	    (r = http_opt_float(obj, "top_p", 0, 1, &s->top_p, e)) < 0 ||
	    (r = http_opt_float(obj, "min_p", 0, 1, &s->min_p, e)) < 0 ||
	    (r = http_opt_float(obj, "repetition_penalty", 0.01, 10, &s->repetition_penalty, e)) < 0 ||
	    (r = http_opt_float(obj, "presence_penalty", -2, 2, &s->presence_penalty, e)) < 0 ||
	    (r = http_opt_float(obj, "frequency_penalty", -2, 2, &s->frequency_penalty, e)) < 0)
		return r;
	r = parse_top_k(obj, p, e);
	return r < 0 ? r : parse_logit_bias(obj, p, e);
}

/* ---- Ends ---- */

static int add_stop(const json_t *v, struct http_params *p, struct http_error *e)
{
	if (!json_is_string(v))
		return http_bad_field(e, "stop", "expected a string or an array of strings, got %s in it",
		                      base_json_type_name(v));
	if (strlen(json_string_value(v)) != json_string_length(v))
		return http_bad_field(e, "stop", "a stop string holds a zero byte");
	if (json_string_length(v) > 1024)
		return http_bad_field(e, "stop", "a stop string is longer than 1024 bytes");
	if (json_string_length(v) > 0)
		p->stops[p->n_stops++] = json_string_value(v);
	return 0;
}

static int parse_stop(const json_t *obj, struct http_params *p, struct http_error *e)
{
	const json_t *stop = http_field(obj, "stop");
	size_t n = json_is_array(stop) ? json_array_size(stop) : 1;
	int r = 0;

	if (!stop)
		return 0;
	if (!json_is_string(stop) && !json_is_array(stop))
		return http_bad_field(e, "stop", "expected a string or an array of strings, got %s",
		                      base_json_type_name(stop));
	if (n > HTTP_MAX_STOPS)
		return http_bad_field(e, "stop", "at most %d stop strings are taken, got %zu", HTTP_MAX_STOPS, n);
	p->stops = calloc(n + 1, sizeof(*p->stops));
	if (!p->stops)
		return http_out_of_memory(e);
	if (json_is_string(stop))
		return add_stop(stop, p, e);
	for (size_t i = 0; i < n && r == 0; i++)
		r = add_stop(json_array_get(stop, i), p, e);
	return r;
}

static int parse_stop_ids(const json_t *obj, struct http_params *p, struct http_error *e)
{
	const json_t *v = http_field(obj, "stop_token_ids");
	int r;

	if (!v)
		return 0;
	r = http_ids(v, "stop_token_ids", &p->stop_ids, &p->n_stop_ids, e);
	if (r == 0 && p->n_stop_ids > HTTP_MAX_STOPS)
		return http_bad_field(e, "stop_token_ids", "at most %d are taken", HTTP_MAX_STOPS);
	return r;
}

int http_parse_max_new(const json_t *obj, const char *key, int64_t min, struct http_params *p, struct http_error *e)
{
	int64_t n = 0;
	int r = http_opt_int(obj, key, min, INT32_MAX, &n, e);

	if (r == 1) {
		p->no_output = n == 0;
		p->max_new = n == 0 ? 1 : (uint32_t)n;
	}
	return r < 0 ? r : 0;
}

static int parse_min_new(const json_t *obj, const char *key, struct http_params *p, struct http_error *e)
{
	int64_t n = 0;
	int r = http_opt_int(obj, key, 0, INT32_MAX, &n, e);

	if (r == 1)
		p->min_new = (uint32_t)n;
	return r < 0 ? r : 0;
}

static int parse_special(const json_t *obj, struct http_params *p, struct http_error *e)
{
	bool skip = true;
	int r;

	if ((r = http_opt_bool(obj, "ignore_eos", &p->ignore_eos, e)) < 0 ||
	    (r = http_opt_bool(obj, "skip_special_tokens", &skip, e)) < 0 ||
	    (r = http_opt_bool(obj, "include_stop_str_in_output", &p->include_stop, e)) < 0 ||
	    (r = http_opt_bool(obj, "no_stop_trim", &p->include_stop, e)) < 0)
		return r;
	p->keep_special = !skip;
	return 0;
}

static int parse_n(const json_t *obj, struct http_params *p, struct http_error *e)
{
	int64_t n = 1;
	int r = http_opt_int(obj, "n", 1, HTTP_MAX_CHOICES, &n, e);

	p->n = (uint32_t)n;
	return r < 0 ? r : 0;
}

static int parse_stream(const json_t *obj, struct http_params *p, struct http_error *e)
{
	const json_t *options = http_field(obj, "stream_options");
	int r = http_opt_bool(obj, "stream", &p->stream, e);

	if (r < 0 || !options)
		return r < 0 ? r : 0;
	if (!json_is_object(options))
		return http_bad_field(e, "stream_options", "expected an object, got %s", base_json_type_name(options));
	if ((r = http_opt_bool(options, "include_usage", &p->include_usage, e)) < 0 ||
	    (r = http_opt_bool(options, "continuous_usage_stats", &p->continuous_usage, e)) < 0)
		return r;
	return 0;
}

int http_parse_common(const json_t *obj, struct http_params *p, struct http_error *e)
{
	const json_t *model = http_field(obj, "model");
	int r;

	p->rid = json_string_value(http_field(obj, "rid"));
	if (model && !json_is_string(model))
		return http_bad_field(e, "model", "expected a string, got %s", base_json_type_name(model));
	if ((r = parse_sampling(obj, 2, p, e)) < 0 || (r = parse_seed(obj, "seed", p, e)) < 0 ||
	    (r = parse_logprobs_mode(obj, p, e)) < 0 || (r = parse_stop(obj, p, e)) < 0 ||
	    (r = parse_stop_ids(obj, p, e)) < 0 || (r = parse_min_new(obj, "min_tokens", p, e)) < 0 ||
	    (r = parse_special(obj, p, e)) < 0 || (r = parse_n(obj, p, e)) < 0 || (r = parse_stream(obj, p, e)) < 0 ||
	    (r = http_parse_constrained(obj, p, e)) < 0)
		return r;
	return 0;
}

int http_params_begin(const char *data, size_t len, const struct eng_sampling *defaults, struct http_params *p,
                      struct http_error *e)
{
	memset(p, 0, sizeof(*p));
	p->sampling = *defaults;
	p->logprob_start = -1;
	p->n = 1;
	return http_parse_object(data, len, &p->body, e);
}

int http_params_finish(struct http_params *p, int r)
{
	if (r < 0)
		http_params_done(p);
	return r < 0 ? r : 0;
}

/* ---- Prompts: a string, ids, or a list of either ---- */

static int add_prompt(const json_t *v, const char *param, struct http_params *p, struct http_error *e)
{
	struct http_prompt *q = &p->prompts[p->n_prompts++];

	if (json_is_string(v)) {
		q->text = json_string_value(v);
		q->text_len = json_string_length(v);
		return 0;
	}
	return http_ids(v, param, &q->ids, &q->n_ids, e);
}

static int parse_prompts(const json_t *v, const char *param, struct http_params *p, struct http_error *e)
{
	size_t n = json_array_size(v);
	bool is_list = json_is_array(v) && n > 0 && !json_is_number(json_array_get(v, 0));
	int r = 0;

	if (!json_is_string(v) && !json_is_array(v))
		return http_bad_field(e, param, "expected a string or an array, got %s", base_json_type_name(v));
	if (json_is_array(v) && n == 0)
		return http_bad_field(e, param, "is empty");
	if (is_list && n > 2048)
		return http_bad_field(e, param, "has %zu elements, at most 2048 are taken", n);
	p->prompts = calloc(is_list ? n : 1, sizeof(*p->prompts));
	if (!p->prompts)
		return http_out_of_memory(e);
	if (!is_list)
		return add_prompt(v, param, p, e);
	p->is_batch = true;
	for (size_t i = 0; i < n && r == 0; i++)
		r = add_prompt(json_array_get(v, i), param, p, e);
	return r;
}

static int check_choices(const struct http_params *p, const char *param, struct http_error *e)
{
	if (p->n_prompts * p->n > HTTP_MAX_CHOICES)
		return http_bad_field(e, param, "%zu prompts times n = %u makes more than %d answers", p->n_prompts,
		                      p->n, HTTP_MAX_CHOICES);
	return 0;
}

/* ---- Text completions ---- */

static int parse_completion_rest(const json_t *obj, struct http_params *p, struct http_error *e)
{
	const json_t *suffix = http_field(obj, "suffix");
	int64_t n = 0, best_of = 1;
	int r;

	if ((r = http_opt_bool(obj, "echo", &p->echo, e)) < 0 ||
	    (r = http_opt_int(obj, "best_of", 1, HTTP_MAX_CHOICES, &best_of, e)) < 0)
		return r;
	if (best_of > p->n)
		return http_bad_field(e, "best_of", "more than n is not supported by this server");
	if (json_string_length(suffix) > 0)
		return http_bad_field(e, "suffix", "not supported by this server");
	r = http_opt_int(obj, "logprobs", 0, HTTP_MAX_TOP, &n, e);
	if (r < 0)
		return r;
	p->logprobs = r == 1;
	p->n_top = (uint32_t)n;
	if (p->echo && p->logprobs)
		p->logprob_start = 0;
	p->max_new = 16; /* the API's default */
	return http_parse_max_new(obj, "max_tokens", 0, p, e);
}

int http_parse_completion(const char *data, size_t len, const struct eng_sampling *defaults, struct http_params *ret,
                          struct http_error *e)
{
	int r = http_params_begin(data, len, defaults, ret, e);

	if (r < 0)
		return r;
	if (!http_field(ret->body, "prompt"))
		return http_params_finish(ret, http_bad_field(e, "prompt", "missing"));
	if ((r = http_parse_common(ret->body, ret, e)) == 0 &&
	    (r = parse_prompts(http_field(ret->body, "prompt"), "prompt", ret, e)) == 0 &&
	    (r = check_choices(ret, "prompt", e)) == 0)
		r = parse_completion_rest(ret->body, ret, e);
	return http_params_finish(ret, r);
}

/* ---- SGLang's /generate ---- */

static int parse_generate_sampling(const json_t *sp, struct http_params *p, struct http_error *e)
{
	int r;

	p->max_new = 128; /* the API's default */
	if (!sp)
		return 0;
	if (!json_is_object(sp))
		return http_bad_field(e, "sampling_params", "expected an object, got %s", base_json_type_name(sp));
	if ((r = parse_sampling(sp, 1e6, p, e)) < 0 || (r = parse_seed(sp, "sampling_seed", p, e)) < 0 ||
	    (r = parse_seed(sp, "seed", p, e)) < 0 || (r = parse_stop(sp, p, e)) < 0 ||
	    (r = parse_stop_ids(sp, p, e)) < 0 || (r = http_parse_max_new(sp, "max_new_tokens", 0, p, e)) < 0 ||
	    (r = parse_min_new(sp, "min_new_tokens", p, e)) < 0 || (r = parse_special(sp, p, e)) < 0 ||
	    (r = parse_n(sp, p, e)) < 0)
		return r;
	return http_parse_constrained(sp, p, e);
}

static int parse_generate_prompts(const json_t *obj, struct http_params *p, struct http_error *e)
{
	static const char *const others[] = { "input_embeds", "image_data", "audio_data", "video_data" };
	const json_t *text = http_field(obj, "text"), *ids = http_field(obj, "input_ids");

	for (size_t i = 0; i < sizeof(others) / sizeof(others[0]); i++) {
		if (http_field(obj, others[i]))
			return http_bad_field(e, others[i], "not supported: this model takes text only");
	}
	if (text && ids)
		return http_bad_field(e, "input_ids", "`text` is given too; only one can be the prompt");
	if (text && !json_is_string(text) && !json_is_string(json_array_get(text, 0)))
		return http_bad_field(e, "text", "expected a string or an array of strings");
	if (ids && json_is_string(ids))
		return http_bad_field(e, "input_ids", "expected an array of token ids, got a string");
	if (!text && !ids)
		return http_bad_field(e, "text", "`text` or `input_ids` is needed");
	return text ? parse_prompts(text, "text", p, e) : parse_prompts(ids, "input_ids", p, e);
}

/* One list for all prompts, or one for each. */
static int parse_scored(const json_t *obj, struct http_params *p, struct http_error *e)
{
	static const char name[] = "token_ids_logprob";
	const json_t *v = http_field(obj, name);
	bool is_nested = json_is_array(json_array_get(v, 0));
	int r = 0;

	if (!v || !p->logprobs)
		return 0;
	if (is_nested && json_array_size(v) != p->n_prompts)
		return http_bad_field(e, name, "has %zu lists for %zu prompts", json_array_size(v), p->n_prompts);
	for (size_t i = 0; i < p->n_prompts && r == 0; i++) {
		struct http_prompt *q = &p->prompts[i];

		r = http_ids(is_nested ? json_array_get(v, i) : v, name, &q->scored, &q->n_scored, e);
		if (r == 0 && q->n_scored > HTTP_MAX_SCORED)
			r = http_bad_field(e, name, "at most %d are taken", HTTP_MAX_SCORED);
	}
	return r;
}

static int parse_generate_rest(const json_t *obj, struct http_params *p, struct http_error *e)
{
	int64_t start = -1, n_top = 0;
	int r;

	if ((r = http_opt_bool(obj, "stream", &p->stream, e)) < 0 ||
	    (r = http_opt_bool(obj, "return_logprob", &p->logprobs, e)) < 0 ||
	    (r = parse_logprobs_mode(obj, p, e)) < 0 ||
	    (r = http_opt_bool(obj, "return_text_in_logprobs", &p->logprob_text, e)) < 0 ||
	    (r = http_opt_int(obj, "logprob_start_len", -1, INT32_MAX, &start, e)) < 0 ||
	    (r = http_opt_int(obj, "top_logprobs_num", 0, HTTP_MAX_TOP, &n_top, e)) < 0)
		return r;
	if (p->logprobs) {
		p->logprob_start = start;
		p->n_top = (uint32_t)n_top;
	}
	return parse_scored(obj, p, e);
}

int http_parse_generate(const char *data, size_t len, const struct eng_sampling *defaults, struct http_params *ret,
                        struct http_error *e)
{
	int r = http_params_begin(data, len, defaults, ret, e);

	if (r < 0)
		return r;
	if ((r = parse_generate_prompts(ret->body, ret, e)) == 0 &&
	    (r = parse_generate_sampling(http_field(ret->body, "sampling_params"), ret, e)) == 0 &&
	    (r = check_choices(ret, "sampling_params.n", e)) == 0 && (r = parse_generate_rest(ret->body, ret, e)) == 0)
		r = http_parse_constrained(ret->body, ret, e);
	ret->rid = json_string_value(http_field(ret->body, "rid"));
	ret->is_batch = ret->is_batch || ret->n > 1;
	return http_params_finish(ret, r);
}

/* ---- Embeddings ---- */

int http_parse_embedding(const char *data, size_t len, const struct eng_sampling *defaults, struct http_params *ret,
                         struct http_error *e)
{
	const char *format;
	int64_t dimensions = 0;
	int r = http_params_begin(data, len, defaults, ret, e);

	if (r < 0)
		return r;
	if (!http_field(ret->body, "input"))
		return http_params_finish(ret, http_bad_field(e, "input", "missing"));
	format = json_string_value(http_field(ret->body, "encoding_format"));
	if (http_field(ret->body, "encoding_format") &&
	    (!format || (strcmp(format, "float") != 0 && strcmp(format, "base64") != 0)))
		return http_params_finish(ret, http_bad_field(e, "encoding_format", "must be \"float\" or \"base64\""));
	ret->base64 = format && strcmp(format, "base64") == 0;
	r = http_opt_int(ret->body, "dimensions", 1, INT32_MAX, &dimensions, e);
	if (r < 0)
		return http_params_finish(ret, r);
	ret->dimensions = (uint32_t)dimensions;
	return http_params_finish(ret, parse_prompts(http_field(ret->body, "input"), "input", ret, e));
}

/* ---- Reranking ---- */

/* Texts, or objects with one. */
static int parse_documents(const json_t *list, struct http_params *p, struct http_error *e)
{
	size_t n = json_array_size(list);

	if (!json_is_array(list) || n == 0)
		return http_bad_field(e, "documents", "expected an array with at least one document");
	if (n > 2048)
		return http_bad_field(e, "documents", "has %zu elements, at most 2048 are taken", n);
	p->prompts = calloc(n, sizeof(*p->prompts));
	if (!p->prompts)
		return http_out_of_memory(e);
	for (size_t i = 0; i < n; i++) {
		const json_t *v = json_array_get(list, i);

		if (json_is_object(v))
			v = json_object_get(v, "text");
		if (!json_is_string(v))
			return http_bad_field(e, "documents", "element %zu is neither a text nor an object with one",
			                      i);
		p->prompts[p->n_prompts].text = json_string_value(v);
		p->prompts[p->n_prompts++].text_len = json_string_length(v);
	}
	return 0;
}

int http_parse_rerank(const char *data, size_t len, const struct eng_sampling *defaults, struct http_params *ret,
                      struct http_error *e)
{
	const json_t *query, *instruction;
	int64_t top_n = 0;
	int r = http_params_begin(data, len, defaults, ret, e);

	if (r < 0)
		return r;
	query = http_field(ret->body, "query");
	instruction = http_field(ret->body, "instruction");
	if (!json_is_string(query) || json_string_length(query) == 0)
		return http_params_finish(ret, http_bad_field(e, "query", "expected a text"));
	if (instruction && !json_is_string(instruction))
		return http_params_finish(ret, http_bad_field(e, "instruction", "expected a text"));
	ret->query = json_string_value(query);
	ret->query_len = json_string_length(query);
	ret->instruction = json_string_value(instruction);
	r = http_opt_int(ret->body, "top_n", 1, INT32_MAX, &top_n, e);
	ret->top_n = (uint32_t)top_n;
	if (r >= 0)
		r = http_opt_bool(ret->body, "return_documents", &ret->return_documents, e);
	return http_params_finish(ret, r < 0 ? r : parse_documents(http_field(ret->body, "documents"), ret, e));
}
