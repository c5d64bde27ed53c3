/* What SGLang's users do with a running server: abort, flush, pause, change the weights. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/json.h"
#include "gen.h"

static void reply_json(struct exchange *x, unsigned status, json_t *v)
{
	struct base_buf out = BASE_BUF_INIT(HTTP_MAX_RESPONSE);

	(void)base_json_append(&out, v);
	json_decref(v);
	exchange_lock(x);
	exchange_reply(x, status, &out);
	exchange_unlock(x);
	base_buf_done(&out);
}

static void reply_error(struct exchange *x, const struct http_error *e)
{
	exchange_lock(x);
	exchange_reply_error(x, e);
	exchange_unlock(x);
}

/* The body of a POST, or an empty object when there is none. */
static int read_body(struct exchange *x, json_t **ret, struct http_error *e)
{
	*ret = NULL;
	if (x->body.len > 0)
		return http_parse_object(base_buf_text(&x->body), x->body.len, ret, e);
	*ret = json_object();
	return 0;
}

/* ---- Telling ---- */

static json_t *model_info(const struct exchange *x)
{
	const struct eng_info *info = eng_engine_info(x->http->engine);
	char version[256];

	eng_weight_version(x->http->engine, version, sizeof(version));
	return json_pack("{s:s, s:s, s:s, s:b, s:i, s:s, s:s, s:s, s:s}", "model_path", info->model_path,
	                 "tokenizer_path", info->model_path, "served_model_name", info->served_name, "is_generation",
	                 !info->is_embedding, "max_model_len", (int)info->n_ctx, "weight_version", version,
	                 "model_type", info->arch, "tool_call_parser", x->http->tool_format, "reasoning_parser",
	                 x->http->reasoning_format);
}

void handle_model_info(struct exchange *x)
{
	reply_json(x, 200, model_info(x));
}

void handle_server_info(struct exchange *x)
{
	const struct eng_info *info = eng_engine_info(x->http->engine);
	json_t *v = model_info(x);
	struct eng_stats s;

	eng_engine_stats(x->http->engine, &s);
	(void)json_object_update_new(
	        v, json_pack("{s:s, s:s, s:i, s:i, s:i, s:[{s:i, s:i, s:i, s:i, s:i}]}", "version", OCAI_VERSION,
	                     "backend", info->backend, "max_running_requests", (int)info->max_running, "context_length",
	                     (int)info->n_ctx, "vocab_size", (int)info->n_vocab, "internal_states", "running",
	                     (int)s.n_running, "queued", (int)s.n_queued, "kv_pages", (int)s.kv_pages_total,
	                     "kv_pages_used", (int)s.kv_pages_used, "kv_pages_cached", (int)s.kv_pages_cached));
	reply_json(x, 200, v);
}

void handle_weight_version(struct exchange *x)
{
	char version[256];

	eng_weight_version(x->http->engine, version, sizeof(version));
	reply_json(x, 200, json_pack("{s:s}", "weight_version", version));
}

/* ---- Ending and holding ---- */

void handle_flush_cache(struct exchange *x)
{
	int r = eng_flush_cache(x->http->engine);
	struct http_error e = { .status = 400, .type = "invalid_request_error", .code = "requests_pending" };

	if (r < 0) {
		(void)snprintf(e.message, sizeof(e.message), "requests run or wait: the cache was not flushed");
		reply_error(x, &e);
		return;
	}
	reply_json(x, 200, json_pack("{s:b, s:s}", "success", 1, "message", "the cache was flushed"));
}

/* Every request whose id begins with rid, as those of a batch do. */
static size_t abort_matching(struct eng_http *http, const struct exchange *self, const char *rid, bool all)
{
	uint64_t next = 0;
	struct exchange *x;
	size_t n = 0;

	while ((x = exchange_next_active(http, &next))) {
		exchange_lock(x);
		if (x != self && x->work && (all || (x->rid && strncmp(x->rid, rid, strlen(rid)) == 0))) {
			x->is_aborted = true;
			exchange_cancel(x);
			n++;
		}
		exchange_unlock(x);
		exchange_unref(x);
	}
	return n;
}

void handle_abort(struct exchange *x)
{
	struct http_error e = { 0 };
	json_t *body = NULL;
	bool all = false;
	const char *rid;
	int r = read_body(x, &body, &e);

	if (r == 0)
		r = http_opt_bool(body, "abort_all", &all, &e);
	rid = json_string_value(json_object_get(body, "rid"));
	if (r >= 0 && !all && (!rid || !*rid))
		r = http_bad_field(&e, "rid", "a request's id, or `abort_all`, is needed");
	if (r < 0)
		reply_error(x, &e);
	else
		reply_json(x, 200,
		           json_pack("{s:b, s:I}", "success", 1, "n_aborted",
		                     (json_int_t)abort_matching(x->http, x, rid, all)));
	json_decref(body);
}

void handle_pause(struct exchange *x)
{
	static const struct {
		const char *name;
		enum eng_pause how;
	} modes[] = { { "abort", ENG_PAUSE_ABORT }, { "retract", ENG_PAUSE_RETRACT }, { "in_place", ENG_PAUSE_HOLD } };
	struct http_error e = { 0 };
	json_t *body = NULL;
	const char *mode = "abort";
	int r = read_body(x, &body, &e);

	if (r == 0 && json_object_get(body, "mode"))
		mode = json_string_value(json_object_get(body, "mode"));
	for (size_t i = 0; r == 0 && mode && i < 3; i++) {
		if (strcmp(mode, modes[i].name) != 0)
			continue;
		/* Its requests end as aborted ones, with what they have so far. */
		if (modes[i].how == ENG_PAUSE_ABORT)
			(void)abort_matching(x->http, x, "", true);
		eng_pause(x->http->engine, modes[i].how);
		reply_json(x, 200, json_pack("{s:s, s:s}", "status", "ok", "message", "generation is paused"));
		json_decref(body);
		return;
	}
	if (r == 0)
		(void)http_bad_field(&e, "mode", "must be \"abort\", \"retract\" or \"in_place\"");
	reply_error(x, &e);
	json_decref(body);
}

void handle_continue(struct exchange *x)
{
	eng_continue(x->http->engine);
	reply_json(x, 200, json_pack("{s:s, s:s}", "status", "ok", "message", "generation goes on"));
}

/* ---- A token, to see that all works ---- */

struct probe {
	struct exchange *x;
	uint64_t request_id;
};

static void probe_cancel(void *work)
{
	struct probe *p = work;

	eng_cancel(p->x->http->engine, p->request_id);
}

static void probe_event(void *arg, const struct eng_event *ev)
{
	struct exchange *x = ((struct probe *)arg)->x;
	struct base_buf out = BASE_BUF_INIT(4096);

	if (ev->kind != ENG_EV_DONE)
		return;
	exchange_lock(x);
	if (ev->finish == ENG_FINISH_ERROR || ev->finish == ENG_FINISH_ABORT) {
		exchange_fail(x, 503, "unavailable_error", NULL, "no token was computed: %s",
		              ev->error ? err_text(ev->error) : "the request was cancelled");
	} else {
		(void)base_buf_puts(&out, "{\"status\":\"ok\"}");
		exchange_reply(x, 200, &out);
	}
	exchange_unlock(x);
	exchange_unref(x);
}

void handle_health_generate(struct exchange *x)
{
	const struct eng_info *info = eng_engine_info(x->http->engine);
	int32_t id = info->bos_id >= 0 ? info->bos_id : 0;
	struct eng_request req = { .kind = info->is_embedding ? ENG_EMBED : ENG_GENERATE,
		                   .ids = &id,
		                   .n_ids = 1,
		                   .max_new = 1,
		                   .ignore_eos = true,
		                   .logprob_start = -1,
		                   .on_event = probe_event };
	struct probe *p = calloc(1, sizeof(*p));
	struct http_error e = { 0 };
	struct err err = { 0 };
	int r = -ENOMEM;

	eng_sampling_defaults(x->http->engine, &req.sampling);
	exchange_lock(x);
	if (p) {
		p->x = x;
		req.arg = p;
		exchange_ref(x);
		r = eng_submit(x->http->engine, &req, &p->request_id, &err);
	}
	if (r == 0) {
		x->work = p;
		x->cancel = probe_cancel;
		x->free_work = free;
		watch_add(x);
	} else {
		if (p)
			exchange_unref(x);
		free(p);
		gen_error_of(r, &err, &e);
		e.status = 503;
		exchange_reply_error(x, &e);
	}
	exchange_unlock(x);
}

/* ---- Weights ---- */

struct update {
	struct exchange *x;
	char *path, *version;
};

static void update_free(struct update *u)
{
	free(u->path);
	free(u->version);
	free(u);
}

/* A thread of its own: it waits for the requests that run. */
static void *update_run(void *arg)
{
	struct update *u = arg;
	struct exchange *x = u->x;
	struct eng_http *http = x->http;
	struct err err = { 0 };
	int r = eng_update_weights(http->engine, u->path, u->version, &err);

	reply_json(x, r < 0 ? 400 : 200,
	           json_pack("{s:b, s:s, s:i}", "success", r == 0, "message",
	                     r < 0 ? err_text(&err) : "the weights were changed", "num_paused_requests", 0));
	update_free(u);
	exchange_unref(x);
	atomic_fetch_sub(&http->n_workers, 1);
	return NULL;
}

static int start_update(struct exchange *x, const json_t *body, struct http_error *e)
{
	const char *path = json_string_value(json_object_get(body, "model_path"));
	const char *version = json_string_value(json_object_get(body, "weight_version"));
	struct update *u;
	bool abort_all = false;
	pthread_attr_t attr;
	pthread_t thread;
	int r;

	if (!path || !*path)
		return http_bad_field(e, "model_path", "missing or not a string");
	if (http_opt_bool(body, "abort_all_requests", &abort_all, e) < 0)
		return -EINVAL;
	u = calloc(1, sizeof(*u));
	if (!u)
		return -ENOMEM;
	*u = (struct update){ x, strdup(path), version ? strdup(version) : NULL };
	if (!u->path || (version && !u->version)) {
		update_free(u);
		return -ENOMEM;
	}
	if (abort_all)
		(void)abort_matching(x->http, x, "", true);
	exchange_ref(x);
	atomic_fetch_add(&x->http->n_workers, 1);
	(void)pthread_attr_init(&attr);
	(void)pthread_attr_setdetachstate(&attr, PTHREAD_CREATE_DETACHED);
	r = -pthread_create(&thread, &attr, update_run, u);
	(void)pthread_attr_destroy(&attr);
	if (r < 0) {
		atomic_fetch_sub(&x->http->n_workers, 1);
		exchange_unref(x);
		update_free(u);
	}
	return r;
}

void handle_update_weights(struct exchange *x)
{
	struct http_error e = { 0 };
	json_t *body = NULL;
	int r = http_parse_object(base_buf_text(&x->body), x->body.len, &body, &e);

	if (r == 0)
		r = start_update(x, body, &e);
	json_decref(body);
	if (r < 0) {
		gen_error_of(r, &(struct err){ 0 }, &e);
		reply_error(x, &e);
	}
}
