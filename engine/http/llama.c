/* llama-server's routes that clients look at: what is served, who is busy, what a chat looks like as a prompt. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/json.h"
#include "gen.h"

static void reply_json(struct exchange *x, json_t *v)
{
	struct base_buf out = BASE_BUF_INIT(HTTP_MAX_RESPONSE);

	(void)base_json_append(&out, v);
	json_decref(v);
	exchange_lock(x);
	exchange_reply(x, 200, &out);
	exchange_unlock(x);
	base_buf_done(&out);
}

static json_t *token_text(const struct exchange *x, int32_t id)
{
	CLEANUP(base_buf_done) struct base_buf bytes = BASE_BUF_INIT(4096);
	json_t *v;

	if (id >= 0)
		(void)eng_token_bytes(x->http->engine, id, &bytes);
	v = json_stringn(base_buf_text(&bytes), bytes.len); /* NULL for half a character */
	return v ? v : json_string("");
}

void handle_props(struct exchange *x)
{
	const struct eng_info *info = eng_engine_info(x->http->engine);
	struct eng_sampling s;
	json_t *params;

	eng_sampling_defaults(x->http->engine, &s);
	params = json_pack("{s:f, s:f, s:f, s:i, s:f, s:s, s:s}", "temperature", (double)s.temperature, "top_p",
	                   (double)s.top_p, "min_p", (double)s.min_p, "top_k", (int)s.top_k, "repeat_penalty",
	                   (double)s.repetition_penalty, "chat_format", x->http->tool_format, "reasoning_format",
	                   x->http->reasoning_format);
	reply_json(x, json_pack("{s:{s:i, s:o}, s:i, s:s, s:s, s:s, s:{s:b}, s:o, s:o, s:{s:b, s:b}, s:s, s:b}",
	                        "default_generation_settings", "n_ctx", (int)info->n_ctx, "params", params,
	                        "total_slots", (int)info->max_running, "model_path", info->model_path, "model_alias",
	                        info->served_name, "chat_template", info->chat_template ? info->chat_template : "",
	                        "chat_template_caps", "supports_tool_calls", strcmp(x->http->tool_format, "none") != 0,
	                        "bos_token", token_text(x, info->bos_id), "eos_token",
	                        token_text(x, info->n_eos_ids > 0 ? info->eos_ids[0] : -1), "modalities", "vision", 0,
	                        "audio", 0, "build_info", "ocai-engine " OCAI_VERSION, "is_sleeping", 0));
}

/* There are no fixed slots: as many entries as requests can run, the first ones busy. */
void handle_slots(struct exchange *x)
{
	const struct eng_info *info = eng_engine_info(x->http->engine);
	const char *fail = MHD_lookup_connection_value(x->conn, MHD_GET_ARGUMENT_KIND, "fail_on_no_slot");
	json_t *v = json_array();
	struct eng_stats s;

	eng_engine_stats(x->http->engine, &s);
	if (fail && strcmp(fail, "1") == 0 && s.n_running >= info->max_running) {
		json_decref(v);
		exchange_lock(x);
		exchange_fail(x, 503, "unavailable_error", "no_slot", "all %u requests that run together do",
		              s.n_running);
		exchange_unlock(x);
		return;
	}
	for (uint32_t i = 0; i < info->max_running; i++)
		(void)json_array_append_new(v, json_pack("{s:i, s:i, s:b}", "id", (int)i, "n_ctx", (int)info->n_ctx,
		                                         "is_processing", i < s.n_running));
	reply_json(x, v);
}

void handle_apply_template(struct exchange *x)
{
	CLEANUP(base_buf_done) struct base_buf text = BASE_BUF_INIT(GEN_TEXT_MAX);
	struct http_params p;
	struct http_error e = { 0 };
	struct eng_sampling defaults;
	int r;

	eng_sampling_defaults(x->http->engine, &defaults);
	r = http_parse_chat(base_buf_text(&x->body), x->body.len, &defaults, &p, &e);
	if (r == 0) {
		r = gen_render_chat(x, &p, &text, &e);
		http_params_done(&p);
	}
	if (r < 0) {
		exchange_lock(x);
		exchange_reply_error(x, &e);
		exchange_unlock(x);
		return;
	}
	reply_json(x, json_pack("{s:o}", "prompt", json_stringn_nocheck(base_buf_text(&text), text.len)));
}
