/* Routes that answer at once: health, models, tokens, metrics. */
#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/json.h"
#include "gen.h"

static void reply(struct exchange *x, unsigned status, struct base_buf *out)
{
	exchange_lock(x);
	exchange_reply(x, status, out);
	exchange_unlock(x);
}

static void reply_error(struct exchange *x, const struct http_error *e)
{
	exchange_lock(x);
	exchange_reply_error(x, e);
	exchange_unlock(x);
}

/* ---- Health and models ---- */

void handle_health(struct exchange *x)
{
	struct base_buf out = BASE_BUF_INIT(4096);

	if (atomic_load(&x->http->is_closing)) {
		struct http_error e = { .status = 503,
			                .type = "unavailable_error",
			                .code = "shutting_down",
			                .message = "the server is shutting down" };

		reply_error(x, &e);
		return;
	}
	(void)base_buf_puts(&out, "{\"status\":\"ok\"}");
	reply(x, 200, &out);
}

/* The model with one of its adapters; 0: with none. */
static void append_model(const struct exchange *x, uint32_t adapter, struct base_buf *out)
{
	const struct eng_info *info = eng_engine_info(x->http->engine);
	const char *name = adapter ? eng_engine_adapter_name(x->http->engine, adapter) : info->served_name;

	(void)base_buf_puts(out, "{\"id\":");
	(void)base_json_append_string(out, name, strlen(name));
	if (adapter) {
		(void)base_buf_puts(out, ",\"parent\":");
		(void)base_json_append_string(out, info->served_name, strlen(info->served_name));
	}
	(void)base_buf_printf(out, ",\"object\":\"model\",\"created\":%lld,\"owned_by\":\"ocai\",\"max_model_len\":%u",
	                      (long long)x->http->started, info->n_ctx);
	(void)base_buf_printf(
	        out, ",\"meta\":{\"n_vocab\":%u,\"n_ctx\":%u,\"n_embd\":%u,\"n_params\":%llu,\"arch\":\"%s\"}}",
	        info->n_vocab, info->n_ctx, info->n_embd, (unsigned long long)info->n_params, info->arch);
}

void handle_models(struct exchange *x)
{
	struct base_buf out = BASE_BUF_INIT(HTTP_MAX_RESPONSE);

	(void)base_buf_puts(&out, "{\"object\":\"list\",\"data\":[");
	append_model(x, 0, &out);
	for (uint32_t i = 1; eng_engine_adapter_name(x->http->engine, i); i++) {
		(void)base_buf_putc(&out, ',');
		append_model(x, i, &out);
	}
	(void)base_buf_puts(&out, "]}");
	reply(x, 200, &out);
}

void handle_model(struct exchange *x)
{
	const char *models = strstr(x->url, "/models/"), *id = models ? models + strlen("/models/") : "";
	uint32_t adapter = eng_engine_adapter(x->http->engine, id);
	struct base_buf out = BASE_BUF_INIT(64 * 1024);
	struct http_error e;

	if (!adapter && strcmp(id, gen_model(x)) != 0) {
		(void)http_model_not_found(&e, "model", id);
		reply_error(x, &e);
		return;
	}
	append_model(x, adapter, &out);
	reply(x, 200, &out);
}

/* ---- Tokens ---- */

static void append_pieces(const struct exchange *x, const int32_t *ids, size_t n, struct base_buf *out)
{
	CLEANUP(base_buf_done) struct base_buf bytes = BASE_BUF_INIT(4096);

	for (size_t i = 0; i < n; i++) {
		base_buf_reset(&bytes);
		(void)eng_token_bytes(x->http->engine, ids[i], &bytes);
		(void)base_buf_printf(out, "%s{\"id\":%d,\"piece\":", i ? "," : "", ids[i]);
		(void)base_json_append_string(out, base_buf_text(&bytes), bytes.len);
		(void)base_buf_putc(out, '}');
	}
}

struct tokenize {
	const char *text;
	size_t len;
	bool add_special, parse_special, with_pieces;
	struct base_buf chat; /* the rendered messages, when the text comes from there */
};

static int tokenize_messages(struct exchange *x, const json_t *body, struct tokenize *t, struct http_error *e)
{
	struct err err = { 0 };
	bool add_prompt = true;
	int r;

	if (http_opt_bool(body, "add_generation_prompt", &add_prompt, e) < 0)
		return -EINVAL;
	base_buf_init(&t->chat, 16 << 20);
	r = eng_render_chat(x->http->engine, json_object_get(body, "messages"), json_object_get(body, "tools"), NULL,
	                    add_prompt, &t->chat, &err);
	if (r < 0)
		gen_error_of(r, &err, e);
	t->text = base_buf_text(&t->chat);
	t->len = t->chat.len;
	return r;
}

/* llama-server's {content, add_special, with_pieces} and vLLM's {prompt | messages, add_special_tokens}. */
static int parse_tokenize(struct exchange *x, const json_t *body, struct tokenize *t, struct http_error *e)
{
	const json_t *content = json_object_get(body, "content"), *prompt = json_object_get(body, "prompt");
	const json_t *text = content ? content : prompt;

	t->parse_special = true;
	t->add_special = !content && prompt;
	if (http_opt_bool(body, "add_special", &t->add_special, e) < 0 ||
	    http_opt_bool(body, "add_special_tokens", &t->add_special, e) < 0 ||
	    http_opt_bool(body, "parse_special", &t->parse_special, e) < 0 ||
	    http_opt_bool(body, "with_pieces", &t->with_pieces, e) < 0)
		return -EINVAL;
	if (!text && json_is_array(json_object_get(body, "messages")))
		return tokenize_messages(x, body, t, e);
	if (!json_is_string(text))
		return http_bad_field(e, content ? "content" : "prompt", "expected a string, got %s",
		                      base_json_type_name(text));
	t->text = json_string_value(text);
	t->len = json_string_length(text);
	return 0;
}

static void reply_tokens(struct exchange *x, const struct tokenize *t, const int32_t *ids, size_t n)
{
	CLEANUP(base_buf_done) struct base_buf out = BASE_BUF_INIT(HTTP_MAX_RESPONSE);

	(void)base_buf_puts(&out, "{\"tokens\":[");
	if (t->with_pieces)
		append_pieces(x, ids, n, &out);
	for (size_t i = 0; i < n && !t->with_pieces; i++)
		(void)base_buf_printf(&out, "%s%d", i ? "," : "", ids[i]);
	(void)base_buf_printf(&out, "],\"count\":%zu,\"max_model_len\":%u}", n,
	                      eng_engine_info(x->http->engine)->n_ctx);
	reply(x, 200, &out);
}

void handle_tokenize(struct exchange *x)
{
	CLEANUP(freep) int32_t *ids = NULL;
	struct tokenize t = { 0 };
	struct http_error e = { 0 };
	struct err err = { 0 };
	json_t *body = NULL;
	size_t n = 0;
	int r;

	r = http_parse_object(base_buf_text(&x->body), x->body.len, &body, &e);
	if (r == 0)
		r = parse_tokenize(x, body, &t, &e);
	if (r == 0) {
		r = eng_tokenize(x->http->engine, t.text, t.len, t.add_special, t.parse_special, &ids, &n, &err);
		if (r < 0)
			gen_error_of(r, &err, &e);
	}
	if (r < 0)
		reply_error(x, &e);
	else
		reply_tokens(x, &t, ids, n);
	base_buf_done(&t.chat);
	json_decref(body);
}

static int detokenize(struct exchange *x, const json_t *body, struct base_buf *text, struct http_error *e)
{
	CLEANUP(freep) int32_t *ids = NULL;
	const json_t *tokens = json_object_get(body, "tokens");
	struct err err = { 0 };
	bool skip = false;
	size_t n = 0;
	int r;

	if (!tokens)
		return http_bad_field(e, "tokens", "missing");
	if (http_opt_bool(body, "skip_special_tokens", &skip, e) < 0 || http_ids(tokens, "tokens", &ids, &n, e) < 0)
		return -EINVAL;
	r = eng_detokenize(x->http->engine, ids, n, skip, text, &err);
	if (r < 0)
		gen_error_of(r, &err, e);
	return r;
}

/* The text under both of the names that clients read. */
void handle_detokenize(struct exchange *x)
{
	CLEANUP(base_buf_done) struct base_buf text = BASE_BUF_INIT(64 << 20);
	CLEANUP(base_buf_done) struct base_buf out = BASE_BUF_INIT(HTTP_MAX_RESPONSE);
	struct http_error e = { 0 };
	json_t *body = NULL;
	int r;

	r = http_parse_object(base_buf_text(&x->body), x->body.len, &body, &e);
	if (r == 0)
		r = detokenize(x, body, &text, &e);
	json_decref(body);
	if (r < 0) {
		reply_error(x, &e);
		return;
	}
	(void)base_buf_puts(&out, "{\"content\":");
	(void)base_json_append_string(&out, base_buf_text(&text), text.len);
	(void)base_buf_puts(&out, ",\"prompt\":");
	(void)base_json_append_string(&out, base_buf_text(&text), text.len);
	(void)base_buf_putc(&out, '}');
	reply(x, 200, &out);
}

/* ---- Metrics: Prometheus text format ---- */

static void metric(struct base_buf *out, const char *name, const char *type, const char *help, double value)
{
	(void)base_buf_printf(out, "# HELP ocai_engine_%s %s\n# TYPE ocai_engine_%s %s\nocai_engine_%s %.17g\n", name,
	                      help, name, type, name, value);
}

void handle_metrics(struct exchange *x)
{
	struct base_buf out = BASE_BUF_INIT(64 * 1024);
	struct eng_stats s;
	uint64_t n_http, n_errors;

	eng_engine_stats(x->http->engine, &s);
	(void)pthread_mutex_lock(&x->http->lock);
	n_http = x->http->n_http_requests;
	n_errors = x->http->n_http_errors;
	(void)pthread_mutex_unlock(&x->http->lock);
	metric(&out, "http_requests_total", "counter", "HTTP requests received.", (double)n_http);
	metric(&out, "http_errors_total", "counter", "HTTP requests answered by an error.", (double)n_errors);
	metric(&out, "requests_total", "counter", "Requests given to the scheduler.", (double)s.n_requests);
	metric(&out, "requests_done_total", "counter", "Requests that ended, in any way.", (double)s.n_done);
	metric(&out, "requests_aborted_total", "counter", "Requests that were cancelled.", (double)s.n_aborted);
	metric(&out, "requests_failed_total", "counter", "Requests that ended with an error.", (double)s.n_failed);
	metric(&out, "requests_rejected_total", "counter", "Requests refused because the queue was full.",
	       (double)s.n_rejected);
	metric(&out, "prompt_tokens_total", "counter", "Prompt tokens computed.", (double)s.prompt_tokens);
	metric(&out, "cached_tokens_total", "counter", "Prompt tokens taken from the cache.", (double)s.cached_tokens);
	metric(&out, "output_tokens_total", "counter", "Tokens generated.", (double)s.output_tokens);
	metric(&out, "prefill_seconds_total", "counter", "Time spent on prompts.", (double)s.prefill_ns / 1e9);
	metric(&out, "decode_seconds_total", "counter", "Time spent on generation.", (double)s.decode_ns / 1e9);
	metric(&out, "steps_total", "counter", "Steps computed.", (double)s.n_steps);
	metric(&out, "steps_ahead_total", "counter", "Steps begun before the tokens of the one before them were known.",
	       (double)s.n_steps_ahead);
	metric(&out, "active_seconds_total", "counter", "Time in which there was something to compute.",
	       (double)s.active_ns / 1e9);
	metric(&out, "device_busy_seconds_total", "counter", "Time in which a device computed; 0: there is none.",
	       (double)s.device_busy_ns / 1e9);
	metric(&out, "mask_seconds_total", "counter", "Time spent on masks of structured output beside the model.",
	       (double)s.mask_ns / 1e9);
	metric(&out, "mask_wait_seconds_total", "counter", "Time that the model waited for masks.",
	       (double)s.mask_wait_ns / 1e9);
	metric(&out, "requests_running", "gauge", "Requests being computed.", s.n_running);
	metric(&out, "requests_queued", "gauge", "Requests waiting.", s.n_queued);
	metric(&out, "kv_pages_used", "gauge", "Pages of the K/V cache in use.", s.kv_pages_used);
	metric(&out, "kv_pages_cached", "gauge", "Pages that nobody uses and that hold known prefixes.",
	       s.kv_pages_cached);
	metric(&out, "kv_evictions_total", "counter", "Cached pages given up for others.", (double)s.kv_evictions);
	metric(&out, "preemptions_total", "counter", "Requests set back because pages ran out.", (double)s.n_preempted);
	metric(&out, "host_tokens_total", "counter", "Prompt tokens copied back from host memory.",
	       (double)s.host_tokens);
	metric(&out, "host_pages", "gauge", "Pages that host memory has room for.", s.host_pages_total);
	metric(&out, "host_pages_used", "gauge", "Pages of host memory on their way.", s.host_pages_used);
	metric(&out, "host_pages_cached", "gauge", "Pages of host memory that hold known prefixes.",
	       s.host_pages_cached);
	metric(&out, "host_bytes_out_total", "counter", "Bytes of K and V copied to host memory.",
	       (double)s.host_bytes_out);
	metric(&out, "host_bytes_in_total", "counter", "Bytes of K and V copied back.", (double)s.host_bytes_in);
	metric(&out, "host_given_up_total", "counter", "Pages of host memory given up for others.",
	       (double)s.host_pages_given_up);
	metric(&out, "host_lost_total", "counter", "Pages that gave way and found no room in host memory.",
	       (double)s.host_pages_lost);
	metric(&out, "host_damaged_total", "counter", "Pages of host memory refused.", (double)s.host_pages_damaged);
	metric(&out, "loads_refused_total", "counter",
	       "Prompts computed although host memory or disk had them, for that was faster.",
	       (double)s.n_loads_refused);
	metric(&out, "handed_over_total", "counter", "Requests whose prompt one device computed and another answered.",
	       (double)s.n_handed);
	metric(&out, "handed_over_bytes_total", "counter", "Bytes of K and V copied between those devices.",
	       (double)s.handed_bytes);
	metric(&out, "handed_over_seconds_total", "counter",
	       "From their first token to where they could go on on the other device.", (double)s.handed_ns / 1e9);
	metric(&out, "disk_tokens_total", "counter", "Prompt tokens taken from the cache folder.",
	       (double)s.disk_tokens);
	metric(&out, "disk_bytes", "gauge", "Bytes of this model in the cache folder.", (double)s.disk_bytes);
	metric(&out, "disk_damaged_total", "counter", "Files of the cache folder refused and removed.",
	       (double)s.disk_pages_damaged);
	metric(&out, "disk_write_errors_total", "counter", "Pages that could not be written.",
	       (double)s.disk_write_errors);
	metric(&out, "draft_tokens_total", "counter", "Tokens guessed by speculation.", (double)s.drafted_tokens);
	metric(&out, "draft_hits_total", "counter", "Guessed tokens that were right.", (double)s.draft_hits);
	metric(&out, "kv_pages", "gauge", "Pages of the K/V cache.", s.kv_pages_total);
	if (s.states_total) {
		metric(&out, "states", "gauge", "Slots for recurrent states.", s.states_total);
		metric(&out, "states_running", "gauge", "Recurrent states of running requests.", s.states_running);
		metric(&out, "state_checkpoints", "gauge", "Copies of recurrent states that prompts can begin with.",
		       s.state_checkpoints);
	}
	http_times_append(&x->http->times, &out);
	x->content_type = "text/plain; version=0.0.4; charset=utf-8";
	reply(x, 200, &out);
}
