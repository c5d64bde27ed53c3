/* Streams of the HTTP front over a small real model: they keep the rules and say what whole answers say. */
#include "http_shared.h"

/* ---- Streams ---- */

struct stream {
	char *text;     /* all bytes of the body */
	json_t *events; /* the parsed data lines */
	bool is_done;   /* [DONE] was the last */
	size_t n_comments;
};

static void parse_stream(const char *body, struct stream *ret)
{
	char *copy = strdup(body), *save = NULL;

	memset(ret, 0, sizeof(*ret));
	ret->text = strdup(body);
	ret->events = json_array();
	for (char *line = strtok_r(copy, "\n", &save); line; line = strtok_r(NULL, "\n", &save)) {
		assert_false(ret->is_done); /* nothing comes after it */
		if (line[0] == ':') {
			ret->n_comments++;
			continue;
		}
		assert_memory_equal(line, "data: ", 6);
		if (strcmp(line + 6, "[DONE]") == 0) {
			ret->is_done = true;
		} else {
			json_t *v = json_loads(line + 6, JSON_REJECT_DUPLICATES, NULL);

			assert_non_null(v);
			(void)json_array_append_new(ret->events, v);
		}
	}
	free(copy);
}

static void ask_stream(struct served *s, const char *path, const char *body, struct stream *ret)
{
	struct answer a;

	ask(s, path, body, &a);
	assert_int_equal(a.status, 200);
	assert_non_null(strstr(a.type, "text/event-stream"));
	parse_stream(a.text, ret);
	answer_done(&a);
}

static void stream_done(struct stream *st)
{
	free(st->text);
	json_decref(st->events);
}

static void a_chat_stream_keeps_the_rules_and_equals_the_whole_answer(void **state)
{
	static const char whole[] = "{\"messages\":[{\"role\":\"user\",\"content\":\"uptime?\"}],\"max_tokens\":40,"
	                            "\"temperature\":0,\"n\":2}";
	static const char streamed[] =
	        "{\"messages\":[{\"role\":\"user\",\"content\":\"uptime?\"}],\"max_tokens\":40,\"temperature\":0,"
	        "\"n\":2,\"stream\":true,\"stream_options\":{\"include_usage\":true},\"logprobs\":true,\"top_"
	        "logprobs\":3}";
	struct answer a;
	struct stream st;
	char text[2][4096] = { "", "" };
	size_t n_role[2] = { 0 }, n_finish[2] = { 0 }, n_usage = 0, i;
	json_t *ev;

	(void)state;
	ask_ok(&server, "/v1/chat/completions", whole, &a);
	assert_string_equal(str_at(a.json, "object"), "chat.completion");
	assert_string_equal(str_at(a.json, "choices.1.message.role"), "assistant");
	ask_stream(&server, "/v1/chat/completions", streamed, &st);
	assert_true(st.is_done);
	json_array_foreach(st.events, i, ev)
	{
		json_t *choice = at(ev, "choices.0"), *content = at(choice, "delta.content");
		long long k = int_at(choice, "index");

		assert_string_equal(str_at(ev, "id"), str_at(json_array_get(st.events, 0), "id"));
		assert_string_equal(str_at(ev, "object"), "chat.completion.chunk");
		if (!choice) {
			assert_int_equal(i, json_array_size(st.events) - 1);
			assert_int_equal(int_at(ev, "usage.completion_tokens"),
			                 int_at(a.json, "usage.completion_tokens"));
			assert_int_equal(int_at(ev, "usage.prompt_tokens"), int_at(a.json, "usage.prompt_tokens"));
			n_usage++;
			continue;
		}
		assert_in_range(k, 0, 1);
		assert_true(json_is_null(json_object_get(ev, "usage")));
		if (at(choice, "delta.role")) {
			assert_int_equal(n_role[k]++, 0);
			assert_string_equal(json_string_value(content), "");
		} else if (json_is_string(at(choice, "finish_reason"))) {
			assert_null(content);
			n_finish[k]++;
		} else {
			json_t *entries = at(choice, "logprobs.content"), *entry;
			size_t e;

			assert_int_equal(n_role[k], 1);
			assert_int_equal(n_finish[k], 0);
			assert_true(json_string_length(content) > 0);
			assert_true(json_array_size(entries) > 0);
			json_array_foreach(entries, e, entry)
			{
				assert_int_equal(json_array_size(at(entry, "top_logprobs")), 3);
				assert_true(json_is_array(at(entry, "bytes")));
			}
			append(text[k], sizeof(text[k]), json_string_value(content));
		}
	}
	for (int k = 0; k < 2; k++) {
		char path[64];

		(void)snprintf(path, sizeof(path), "choices.%d.message.content", k);
		assert_string_equal(text[k], str_at(a.json, path));
		assert_int_equal(n_role[k], 1);
		assert_int_equal(n_finish[k], 1);
	}
	assert_int_equal(n_usage, 1);
	stream_done(&st);
	answer_done(&a);
}

static void without_include_usage_there_is_no_usage_chunk(void **state)
{
	struct stream st;

	(void)state;
	ask_stream(&server, "/v1/completions", "{\"prompt\":\"a\",\"max_tokens\":5,\"stream\":true}", &st);
	assert_true(st.is_done);
	assert_null(strstr(st.text, "usage"));
	assert_string_equal(str_at(json_array_get(st.events, 0), "object"), "text_completion");
	stream_done(&st);
}

static void a_stop_string_never_leaks_into_a_stream(void **state)
{
	struct answer a, b;
	struct stream st;
	const char *text;
	char stop[64], joined[1024] = "";
	json_t *req, *ev;
	size_t i;
	char *dumped;

	(void)state;
	ask_ok(&server, "/v1/completions",
	       "{\"prompt\":\"nginx\",\"max_tokens\":60,\"temperature\":0,\"ignore_eos\":true}", &a);
	/* Six bytes out of the middle, whole characters, so that the stop spans tokens. */
	text = str_at(a.json, "choices.0.text");
	text += strlen(text) / 2;
	while ((*text & 0xc0) == 0x80)
		text++;
	(void)snprintf(stop, sizeof(stop), "%.12s", text);
	while (strlen(stop) > 0 && ((unsigned char)stop[strlen(stop) - 1] & 0x80))
		stop[strlen(stop) - 1] = '\0';
	if (strlen(stop) == 0)
		(void)snprintf(stop, sizeof(stop), "%s", "\xef\xbf\xbd");
	req = json_pack("{s:s, s:i, s:f, s:b, s:b, s:s}", "prompt", "nginx", "max_tokens", 60, "temperature", 0.0,
	                "ignore_eos", 1, "stream", 1, "stop", stop);
	dumped = json_dumps(req, 0);
	ask_stream(&server, "/v1/completions", dumped, &st);
	json_array_foreach(st.events, i, ev) append(joined, sizeof(joined), str_at(ev, "choices.0.text"));
	assert_null(strstr(joined, stop));
	assert_memory_equal(joined, str_at(a.json, "choices.0.text"), strlen(joined));
	assert_string_equal(str_at(json_array_get(st.events, i - 1), "choices.0.finish_reason"), "stop");
	(void)json_object_del(req, "stream");
	free(dumped);
	dumped = json_dumps(req, 0);
	ask_ok(&server, "/v1/completions", dumped, &b);
	assert_string_equal(str_at(b.json, "choices.0.text"), joined);
	answer_done(&a);
	answer_done(&b);
	stream_done(&st);
	free(dumped);
	json_decref(req);
}

static void native_streams_are_cumulative(void **state)
{
	struct stream st;
	const char *before = "";
	json_t *ev;
	size_t i;

	(void)state;
	ask_stream(&server, "/generate",
	           "{\"text\":\"a b\",\"stream\":true,\"sampling_params\":{\"temperature\":0,\"max_new_tokens\":12}}",
	           &st);
	json_array_foreach(st.events, i, ev)
	{
		assert_memory_equal(str_at(ev, "text"), before, strlen(before));
		before = str_at(ev, "text");
	}
	assert_true(st.is_done);
	assert_string_equal(str_at(json_array_get(st.events, i - 1), "meta_info.finish_reason.type"), "length");
	assert_int_equal(int_at(json_array_get(st.events, i - 1), "meta_info.finish_reason.length"), 12);
	stream_done(&st);
}

static void a_silent_stream_is_kept_alive_by_comments(void **state)
{
	const struct eng_options options = { .model_path = test_fixture("models/deepseek_v3"), .backend = "ref" };
	char body[80 * 1024];
	struct served s;
	struct stream st;
	struct answer a;

	(void)state;
	serve_with(&s, &options, (struct eng_http_config){ .keepalive_ms = 10 });
	(void)snprintf(body, sizeof(body), "{\"prompt\":%s,\"max_tokens\":2,\"stream\":true}", long_ids(700));
	ask(&s, "/v1/completions", body, &a);
	assert_int_equal(a.status, 200);
	parse_stream(a.text, &st);
	assert_true(st.n_comments > 0);
	assert_true(st.is_done);
	assert_int_equal(a.text[0], ':'); /* before the first token */
	stream_done(&st);
	answer_done(&a);
	serve_end(&s);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_chat_stream_keeps_the_rules_and_equals_the_whole_answer),
		cmocka_unit_test(without_include_usage_there_is_no_usage_chunk),
		cmocka_unit_test(a_stop_string_never_leaks_into_a_stream),
		cmocka_unit_test(native_streams_are_cumulative),
		cmocka_unit_test(a_silent_stream_is_kept_alive_by_comments),
	};

	return cmocka_run_group_tests(tests, start_server, stop_server);
}
