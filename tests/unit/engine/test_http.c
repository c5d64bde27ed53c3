/* The HTTP front over a small real model: the shapes of answers and streams, refusals, clients that
 * misbehave, many at once, and the end of the server. */
#include <openssl/evp.h>
#include <math.h>
#include <pthread.h>

#include "http_test.h"

static struct served server; /* shared by the tests that leave no trace in it */

static int start_server(void **state)
{
	(void)state;
	serve_model(&server, "models/qwen3", "ref");
	return 0;
}

static int stop_server(void **state)
{
	(void)state;
	serve_end(&server);
	return 0;
}

/* A prompt of n token ids as a JSON array, in a static buffer. */
static const char *long_ids(size_t n)
{
	static char text[64 * 1024];
	size_t len = 0;

	for (size_t i = 0; i < n; i++)
		len += (size_t)snprintf(text + len, sizeof(text) - len, "%s%zu", i ? "," : "[", 5 + i * 7 % 500);
	(void)snprintf(text + len, sizeof(text) - len, "]");
	return text;
}

static void append(char *text, size_t size, const char *more)
{
	size_t len = strlen(text);

	assert_true(strlen(more) < size - len);
	(void)snprintf(text + len, size - len, "%s", more);
}

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

/* ---- Whole answers ---- */

static void completions_take_every_kind_of_prompt(void **state)
{
	struct answer a, b;

	(void)state;
	ask_ok(&server, "/v1/completions", "{\"prompt\":[\"a\",\"b c\"],\"max_tokens\":3,\"n\":2,\"temperature\":0}",
	       &a);
	assert_int_equal(json_array_size(at(a.json, "choices")), 4);
	assert_int_equal(int_at(a.json, "choices.3.index"), 3);
	assert_int_equal(int_at(a.json, "usage.completion_tokens"), 12);
	answer_done(&a);
	ask_ok(&server, "/completions", "{\"prompt\":[67],\"max_tokens\":3,\"temperature\":0}", &a);
	ask_ok(&server, "/v1/completions", "{\"prompt\":[[67]],\"max_tokens\":3,\"temperature\":0}", &b);
	assert_string_equal(str_at(a.json, "choices.0.text"), str_at(b.json, "choices.0.text"));
	answer_done(&a);
	answer_done(&b);
}

static void echo_with_logprobs_scores_the_prompt(void **state)
{
	struct answer a;
	json_t *lp;

	(void)state;
	ask_ok(&server, "/v1/completions",
	       "{\"prompt\":\"restart nginx\",\"max_tokens\":0,\"echo\":true,\"logprobs\":2,\"temperature\":0}", &a);
	assert_string_equal(str_at(a.json, "choices.0.text"), "restart nginx");
	assert_int_equal(int_at(a.json, "usage.completion_tokens"), 0);
	lp = at(a.json, "choices.0.logprobs");
	assert_int_equal(json_array_size(at(lp, "tokens")), int_at(a.json, "usage.prompt_tokens"));
	assert_int_equal(json_array_size(at(lp, "text_offset")), json_array_size(at(lp, "tokens")));
	assert_true(json_is_null(at(lp, "token_logprobs.0")));
	assert_true(json_is_null(at(lp, "top_logprobs.0")));
	assert_true(json_number_value(at(lp, "token_logprobs.1")) < 0);
	answer_done(&a);
}

static void a_seed_repeats_and_n_answers_differ(void **state)
{
	static const char body[] = "{\"prompt\":\"a\",\"max_tokens\":12,\"temperature\":2,\"seed\":5,\"n\":2}";
	struct answer a, b;

	(void)state;
	ask_ok(&server, "/v1/completions", body, &a);
	ask_ok(&server, "/v1/completions", body, &b);
	assert_string_equal(str_at(a.json, "choices.0.text"), str_at(b.json, "choices.0.text"));
	assert_string_equal(str_at(a.json, "choices.1.text"), str_at(b.json, "choices.1.text"));
	assert_string_not_equal(str_at(a.json, "choices.0.text"), str_at(a.json, "choices.1.text"));
	answer_done(&a);
	answer_done(&b);
}

static void embeddings_come_as_numbers_and_as_base64_at_unit_length(void **state)
{
	struct answer a, b, c;
	unsigned char bytes[4096];
	const char *text;
	double sum = 0;
	float v;

	(void)state;
	ask_ok(&server, "/v1/embeddings", "{\"input\":[\"a b\",\"c\"]}", &a);
	ask_ok(&server, "/v1/embeddings", "{\"input\":\"a b\",\"encoding_format\":\"base64\"}", &b);
	ask_ok(&server, "/v1/embeddings", "{\"input\":\"a b\",\"dimensions\":16}", &c);
	assert_int_equal(int_at(a.json, "data.1.index"), 1);
	text = str_at(b.json, "data.0.embedding");
	assert_int_equal(EVP_DecodeBlock(bytes, (const unsigned char *)text, (int)strlen(text)) / 4, 64);
	for (size_t i = 0; i < 64; i++) {
		memcpy(&v, bytes + i * 4, 4);
		assert_float_equal(v, json_number_value(json_array_get(at(a.json, "data.0.embedding"), i)), 1e-6);
		sum += (double)v * v;
	}
	assert_float_equal(sum, 1, 1e-5);
	assert_int_equal(json_array_size(at(c.json, "data.0.embedding")), 16);
	sum = 0;
	for (size_t i = 0; i < 16; i++)
		sum += pow(json_number_value(json_array_get(at(c.json, "data.0.embedding"), i)), 2);
	assert_float_equal(sum, 1, 1e-5);
	answer_done(&a);
	answer_done(&b);
	answer_done(&c);
}

static void a_long_list_of_embeddings_does_not_fill_the_queue(void **state)
{
	char body[16 * 1024] = "{\"input\":[";
	struct answer a;

	(void)state;
	for (int i = 0; i < 600; i++)
		(void)snprintf(body + strlen(body), sizeof(body) - strlen(body), "%s\"t %d\"", i ? "," : "", i);
	append(body, sizeof(body), "]}");
	ask_ok(&server, "/v1/embeddings", body, &a);
	assert_int_equal(json_array_size(at(a.json, "data")), 600);
	answer_done(&a);
}

static void tokens_go_both_ways_in_both_dialects(void **state)
{
	struct answer a;

	(void)state;
	ask_ok(&server, "/tokenize", "{\"prompt\":\"hello\"}", &a);
	assert_int_equal(int_at(a.json, "count"), 4);
	assert_int_equal(int_at(a.json, "tokens.0"), 278);
	answer_done(&a);
	ask_ok(&server, "/tokenize", "{\"content\":\"hello\",\"with_pieces\":true}", &a);
	assert_string_equal(str_at(a.json, "tokens.0.piece"), "he");
	answer_done(&a);
	ask_ok(&server, "/detokenize", "{\"tokens\":[278,78,78,81]}", &a);
	assert_string_equal(str_at(a.json, "content"), "hello");
	assert_string_equal(str_at(a.json, "prompt"), "hello");
	answer_done(&a);
}

static void health_models_and_metrics_answer(void **state)
{
	struct answer a;

	(void)state;
	ask_ok(&server, "/health", NULL, &a);
	assert_string_equal(str_at(a.json, "status"), "ok");
	answer_done(&a);
	ask_ok(&server, "/v1/models", NULL, &a);
	assert_string_equal(str_at(a.json, "data.0.id"), "qwen3");
	answer_done(&a);
	ask_ok(&server, "/v1/models/qwen3", NULL, &a);
	assert_string_equal(str_at(a.json, "object"), "model");
	answer_done(&a);
	ask(&server, "/metrics", NULL, &a);
	assert_non_null(strstr(a.text, "\nocai_engine_prompt_tokens_total "));
	assert_non_null(strstr(a.text, "# TYPE ocai_engine_requests_running gauge\n"));
	answer_done(&a);
}

/* ---- Refusals ---- */

static void mistakes_are_refused_and_name_the_field(void **state)
{
#define CHAT "\"messages\":[{\"role\":\"user\",\"content\":\"hi\"}]"
	static const struct {
		const char *path, *body;
		long status;
		const char *param;
	} cases[] = {
		{ "/v1/chat/completions", "", 400, NULL },
		{ "/v1/chat/completions", "{", 400, NULL },
		{ "/v1/chat/completions", "[]", 400, NULL },
		{ "/v1/chat/completions", "{\"a\":1,\"a\":2}", 400, NULL },
		{ "/v1/chat/completions", "{}", 400, "messages" },
		{ "/v1/chat/completions", "{\"messages\":[]}", 400, "messages" },
		{ "/v1/chat/completions", "{\"messages\":[1]}", 400, "messages[0]" },
		{ "/v1/chat/completions", "{\"messages\":[{\"role\":\"x\",\"content\":\"\"}]}", 400,
		  "messages[0].role" },
		{ "/v1/chat/completions", "{\"messages\":[{\"role\":\"user\"}]}", 400, "messages[0].content" },
		{ "/v1/chat/completions",
		  "{\"messages\":[{\"role\":\"user\",\"content\":[{\"type\":\"image_url\",\"image_url\":{}}]}]}", 400,
		  "messages[0].content[0]" },
		{ "/v1/chat/completions", "{" CHAT ",\"temperature\":\"hot\"}", 400, "temperature" },
		{ "/v1/chat/completions", "{" CHAT ",\"temperature\":3}", 400, "temperature" },
		{ "/v1/chat/completions", "{" CHAT ",\"temperature\":-1}", 400, "temperature" },
		{ "/v1/chat/completions", "{" CHAT ",\"top_p\":1.5}", 400, "top_p" },
		{ "/v1/chat/completions", "{" CHAT ",\"n\":0}", 400, "n" },
		{ "/v1/chat/completions", "{" CHAT ",\"n\":1.5}", 400, "n" },
		{ "/v1/chat/completions", "{" CHAT ",\"max_tokens\":-1}", 400, "max_tokens" },
		{ "/v1/chat/completions", "{" CHAT ",\"max_tokens\":99999999999}", 400, "max_tokens" },
		{ "/v1/chat/completions", "{" CHAT ",\"stop\":[1]}", 400, "stop" },
		{ "/v1/chat/completions", "{" CHAT ",\"stop\":{}}", 400, "stop" },
		{ "/v1/chat/completions", "{" CHAT ",\"stream\":\"yes\"}", 400, "stream" },
		{ "/v1/chat/completions", "{" CHAT ",\"stream_options\":1}", 400, "stream_options" },
		{ "/v1/chat/completions", "{" CHAT ",\"logit_bias\":{\"x\":1}}", 400, "logit_bias" },
		{ "/v1/chat/completions", "{" CHAT ",\"logit_bias\":{\"1\":1000}}", 400, "logit_bias" },
		{ "/v1/chat/completions", "{" CHAT ",\"top_logprobs\":5}", 400, "top_logprobs" },
		{ "/v1/chat/completions", "{" CHAT ",\"logprobs\":true,\"top_logprobs\":21}", 400, "top_logprobs" },
		{ "/v1/chat/completions", "{" CHAT ",\"response_format\":{\"type\":\"json_schema\"}}", 400,
		  "response_format.json_schema" },
		{ "/v1/chat/completions",
		  "{" CHAT
		  ",\"response_format\":{\"type\":\"json_schema\",\"json_schema\":{\"schema\":{\"contains\":{}}}}}",
		  400, "response_format.json_schema.schema" },
		{ "/v1/chat/completions", "{" CHAT ",\"response_format\":{\"type\":\"poem\"}}", 400,
		  "response_format" },
		{ "/v1/chat/completions", "{" CHAT ",\"tool_choice\":\"required\"}", 400, "tool_choice" },
		{ "/v1/chat/completions", "{" CHAT ",\"tools\":[1]}", 400, "tools" },
		{ "/v1/chat/completions", "{" CHAT ",\"regex\":\"a(\"}", 400, "regex" },
		{ "/v1/chat/completions", "{" CHAT ",\"regex\":\"a\",\"ebnf\":\"root ::= [a]\"}", 400, "ebnf" },
		{ "/v1/completions", "{\"prompt\":\"a\",\"grammar\":\"x ::= [a]\"}", 400, "grammar" },
		{ "/v1/completions", "{\"prompt\":\"a\",\"structural_tag\":{}}", 400, "structural_tag" },
		{ "/v1/completions", "{\"prompt\":\"a\",\"structural_tag\":[]}", 400, "structural_tag" },
		{ "/v1/completions", "{\"prompt\":\"a\",\"response_format\":{\"type\":\"structural_tag\"}}", 400,
		  "response_format" },
		{ "/generate", "{\"text\":\"a\",\"sampling_params\":{\"json_schema\":\"{\"}}", 400, "json_schema" },
		{ "/v1/chat/completions", "{" CHAT ",\"chat_template_kwargs\":[]}", 400, "chat_template_kwargs" },
		{ "/v1/chat/completions", "{" CHAT ",\"model\":7}", 400, "model" },
		{ "/v1/completions", "{}", 400, "prompt" },
		{ "/v1/completions", "{\"prompt\":[]}", 400, "prompt" },
		{ "/v1/completions", "{\"prompt\":[1,\"a\"]}", 400, "prompt" },
		{ "/v1/completions", "{\"prompt\":[-1]}", 400, "prompt" },
		{ "/v1/completions", "{\"prompt\":[99999]}", 400, NULL },
		{ "/v1/completions", "{\"prompt\":\"\"}", 400, NULL },
		{ "/v1/completions", "{\"prompt\":\"a\",\"best_of\":3}", 400, "best_of" },
		{ "/v1/completions", "{\"prompt\":\"a\",\"suffix\":\"b\"}", 400, "suffix" },
		{ "/v1/completions", "{\"prompt\":\"a\",\"logprobs\":true}", 400, "logprobs" },
		{ "/generate", "{}", 400, "text" },
		{ "/generate", "{\"text\":\"a\",\"input_ids\":[1]}", 400, "input_ids" },
		{ "/generate", "{\"input_ids\":\"a\"}", 400, "input_ids" },
		{ "/generate", "{\"text\":\"a\",\"image_data\":\"data:image/png;base64,\"}", 400, "image_data" },
		{ "/v1/responses", "{\"input\":[{\"role\":\"user\",\"content\":[{\"type\":\"input_image\"}]}]}", 400,
		  "input[0]" },
		{ "/generate", "{\"text\":\"a\",\"sampling_params\":[]}", 400, "sampling_params" },
		{ "/generate", "{\"text\":\"a\",\"return_logprob\":true,\"top_logprobs_num\":21}", 400,
		  "top_logprobs_num" },
		{ "/v1/embeddings", "{}", 400, "input" },
		{ "/v1/embeddings", "{\"input\":\"\"}", 400, "input" },
		{ "/v1/embeddings", "{\"input\":[]}", 400, "input" },
		{ "/v1/embeddings", "{\"input\":\"a\",\"encoding_format\":\"hex\"}", 400, "encoding_format" },
		{ "/v1/embeddings", "{\"input\":\"a\",\"dimensions\":65}", 400, "dimensions" },
		{ "/tokenize", "{\"content\":1}", 400, "content" },
		{ "/detokenize", "{\"tokens\":\"a\"}", 400, "tokens" },
		{ "/v1/nothing", "{}", 404, NULL },
		{ "/v1/models", "{}", 405, NULL },
	};

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		struct answer a;

		ask(&server, cases[i].path, cases[i].body, &a);
		if (a.status != cases[i].status || !json_is_string(at(a.json, "error.message")) ||
		    (cases[i].param && strcmp(str_at(a.json, "error.param"), cases[i].param) != 0))
			fail_msg("%s %s: %ld %s", cases[i].path, cases[i].body, a.status, a.text);
		assert_string_equal(str_at(a.json, "error.type"), "invalid_request_error");
		answer_done(&a);
	}
}

static void a_prompt_beyond_the_context_is_refused_with_the_counts(void **state)
{
	char body[80 * 1024];
	struct answer a;

	(void)state;
	(void)snprintf(body, sizeof(body), "{\"prompt\":%s,\"max_tokens\":4,\"stream\":true}", long_ids(2049));
	ask(&server, "/v1/completions", body, &a);
	assert_int_equal(a.status, 400);
	assert_non_null(strstr(a.text, "2049"));
	assert_non_null(strstr(a.text, "2048"));
	answer_done(&a);
}

/* ---- Clients that misbehave ---- */

/* The status line's number, after reading until the connection closes or `n` bytes came. */
static int raw_status(int fd)
{
	char buf[4096];
	ssize_t n = recv(fd, buf, sizeof(buf) - 1, 0);
	int status = 0;

	if (n <= 0)
		return (int)n;
	buf[n] = '\0';
	(void)sscanf(buf, "HTTP/1.1 %d", &status);
	return status;
}

static void broken_requests_leave_the_server_healthy(void **state)
{
	static const char *const junk[] = {
		"\r\n\r\n",
		"GET\r\n\r\n",
		"POST /generate HTTP/1.1\r\nContent-Length: -5\r\n\r\n",
		"POST /generate HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999999999999999\r\n\r\n{",
		"POST /generate HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
		"POST /generate HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n{\"text\":",
		"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
	};
	struct answer a;

	(void)state;
	for (size_t i = 0; i < sizeof(junk) / sizeof(junk[0]); i++) {
		int fd = raw_connect(&server);
		struct timeval soon = { .tv_usec = 100000 };

		/* Some wait for the rest that never comes, until the connection's time is over. */
		(void)setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &soon, sizeof(soon));
		raw_send(fd, junk[i]);
		(void)shutdown(fd, SHUT_WR);
		(void)raw_status(fd);
		(void)close(fd);
	}
	ask_ok(&server, "/health", NULL, &a);
	answer_done(&a);
}

static void deep_and_hostile_json_is_refused(void **state)
{
	char *deep = malloc(200001);
	struct answer a;

	(void)state;
	memset(deep, '[', 200000);
	deep[200000] = '\0';
	ask(&server, "/v1/chat/completions", deep, &a);
	assert_int_equal(a.status, 400);
	answer_done(&a);
	ask(&server, "/v1/chat/completions", "{\"messages\":[{\"role\":\"user\",\"content\":\"\\ud800\"}]}", &a);
	assert_int_equal(a.status, 400);
	answer_done(&a);
	ask_ok(&server, "/v1/completions", "{\"prompt\":\"a\\u0000b\",\"max_tokens\":2}", &a);
	answer_done(&a);
	free(deep);
}

/* Sends what is in front and fill up to n bytes, then what is behind; the whole answer is the caller's. */
static char *send_large(const char *front, const char *fill, size_t n, const char *behind)
{
	char *text = malloc(n + 1024), *answer = calloc(1, 16384);
	int fd = raw_connect(&server);
	size_t len = (size_t)snprintf(text, 512, "%s", front), got = 0;
	ssize_t r;

	while (len < n)
		len += (size_t)snprintf(text + len, 512, "%s", fill);
	len += (size_t)snprintf(text + len, 512, "%s", behind);
	(void)send(fd, text, len, MSG_NOSIGNAL);
	(void)shutdown(fd, SHUT_WR);
	while (got < 16383 && (r = recv(fd, answer + got, 16383 - got, 0)) > 0)
		got += (size_t)r;
	(void)close(fd);
	free(text);
	return answer;
}

static void headers_beyond_the_limit_are_refused(void **state)
{
	static const char head[] = "GET /health HTTP/1.1\r\nHost: x\r\n";
	static const struct {
		const char *front, *fill, *behind;
		size_t n;
		bool is_refused, is_ours;
	} cases[] = {
		{ "GET /health HTTP/1.1\r\nHost: x\r\nX-Long: ", "aaaaaaaa", "\r\n\r\n", 60000, false, true },
		{ "GET /health HTTP/1.1\r\nHost: x\r\nX-Long: ", "aaaaaaaa", "\r\n\r\n", 90000, true, true },
		{ head, "A: bbbbbbbbbbbbbbbbbbbbb\r\n", "\r\n", 50000, false, true },
		{ head, "A: bbbbbbbbbbbbbbbbbbbbb\r\n", "\r\n", 70000, true, true },
		{ "GET /", "aaaaaaaa", " HTTP/1.1\r\nHost: x\r\n\r\n", 90000, true, true },
		/* So much that the library itself ends it: a refusal or nothing, but never an answer. */
		{ "GET /health HTTP/1.1\r\nHost: x\r\nX-Long: ", "aaaaaaaa", "\r\n\r\n", 600000, true, false },
	};

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		char *answer = send_large(cases[i].front, cases[i].fill, cases[i].n, cases[i].behind);

		if (!cases[i].is_refused && strncmp(answer, "HTTP/1.1 200", 12) != 0)
			fail_msg("%zu: %.200s", i, answer);
		if (cases[i].is_refused && cases[i].is_ours &&
		    (strncmp(answer, "HTTP/1.1 431", 12) != 0 || !strstr(answer, "\"code\":\"header_too_large\"")))
			fail_msg("%zu: %.400s", i, answer);
		if (cases[i].is_refused && !cases[i].is_ours && *answer && strncmp(answer, "HTTP/1.1 431", 12) != 0)
			fail_msg("%zu: %.400s", i, answer);
		free(answer);
	}
}

static void a_body_beyond_the_limit_is_refused(void **state)
{
	const struct eng_options options = { .model_path = test_fixture("models/llama"), .backend = "ref" };
	char body[3000];
	struct served s;
	struct answer a;
	int fd;

	(void)state;
	serve_with(&s, &options, (struct eng_http_config){ .max_body_bytes = 1000 });
	memset(body, ' ', sizeof(body) - 1);
	body[sizeof(body) - 1] = '\0';
	ask(&s, "/generate", body, &a);
	assert_int_equal(a.status, 413);
	assert_string_equal(str_at(a.json, "error.code"), "request_too_large");
	answer_done(&a);
	/* In chunks, without saying how much will come. */
	fd = raw_connect(&s);
	raw_send(fd, "POST /generate HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n");
	raw_send(fd, "bb7\r\n");
	raw_send(fd, body);
	raw_send(fd, "\r\n0\r\n\r\n");
	assert_int_equal(raw_status(fd), 413);
	(void)close(fd);
	ask_ok(&s, "/health", NULL, &a);
	answer_done(&a);
	serve_end(&s);
}

static bool one_is_running(const struct eng_stats *st)
{
	return st->n_running > 0;
}

static bool none_is_running(const struct eng_stats *st)
{
	return st->n_running + st->n_queued == 0 && st->kv_pages_used == 0;
}

static bool was_aborted(const struct eng_stats *st)
{
	return st->n_aborted > 0 && none_is_running(st);
}

static void a_client_that_leaves_a_stream_cancels_it(void **state)
{
	struct served s;
	char buf[256];
	int fd;

	(void)state;
	serve_model(&s, "models/deepseek_v3", "ref");
	fd = raw_connect(&s);
	raw_post(fd, "/v1/completions",
	         "{\"prompt\":\"a\",\"max_tokens\":2000,\"n\":8,\"ignore_eos\":true,\"stream\":true}");
	assert_true(recv(fd, buf, sizeof(buf), 0) > 0);
	(void)close(fd);
	assert_true(wait_stats(&s, was_aborted));
	serve_end(&s);
}

static void a_client_that_leaves_while_it_waits_cancels_its_request(void **state)
{
	struct served s;
	int fd;

	(void)state;
	serve_model(&s, "models/deepseek_v3", "ref");
	fd = raw_connect(&s);
	raw_post(fd, "/v1/completions", "{\"prompt\":\"a\",\"max_tokens\":2000,\"n\":8,\"ignore_eos\":true}");
	assert_true(wait_stats(&s, one_is_running));
	(void)close(fd);
	assert_true(wait_stats(&s, was_aborted));
	serve_end(&s);
}

static void a_reader_that_does_not_read_is_dropped_and_delays_nobody(void **state)
{
	const struct eng_options options = { .model_path = test_fixture("models/deepseek_v3"), .backend = "ref" };
	struct served s;
	struct answer a;
	int fd;

	(void)state;
	serve_with(&s, &options, (struct eng_http_config){ .stream_buffer_bytes = 64 * 1024 });
	fd = raw_connect_with(&s, 4096);
	raw_post(fd, "/v1/chat/completions",
	         "{\"messages\":[{\"role\":\"user\",\"content\":\"a\"}],\"n\":7,\"ignore_eos\":true,\"stream\":true,"
	         "\"logprobs\":true,\"top_logprobs\":20}");
	assert_true(wait_stats(&s, one_is_running));
	ask_ok(&s, "/v1/completions", "{\"prompt\":\"a\",\"max_tokens\":5}", &a);
	answer_done(&a);
	assert_true(wait_stats(&s, was_aborted));
	(void)close(fd);
	serve_end(&s);
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

/* ---- Many at once, and the end ---- */

struct worker {
	pthread_t thread;
	int i;
	long status;
	char text[1024];
};

static void *work(void *arg)
{
	struct worker *w = arg;
	struct base_http *client = NULL;
	struct answer a;
	char body[256];

	(void)base_http_new(&client, NULL);
	(void)snprintf(body, sizeof(body), "{\"prompt\":[%d],\"max_tokens\":24,\"temperature\":0,\"ignore_eos\":true}",
	               10 + w->i % 10);
	ask_with(client, server.url, "/v1/completions", body, &a);
	w->status = a.status;
	(void)snprintf(w->text, sizeof(w->text), "%s", str_at(a.json, "choices.0.text"));
	answer_done(&a);
	base_http_free(client);
	return NULL;
}

static void fifty_clients_at_once_get_what_each_would_get_alone(void **state)
{
	enum { N = 50 };
	static struct worker w[N];

	(void)state;
	for (int i = 0; i < N; i++) {
		w[i].i = i;
		assert_int_equal(pthread_create(&w[i].thread, NULL, work, &w[i]), 0);
	}
	for (int i = 0; i < N; i++)
		(void)pthread_join(w[i].thread, NULL);
	for (int i = 0; i < N; i++) {
		struct worker alone = { .i = i };

		assert_int_equal(w[i].status, 200);
		if (i < 10) {
			(void)work(&alone);
			assert_string_equal(w[i].text, alone.text);
		} else {
			assert_string_equal(w[i].text, w[i % 10].text);
		}
	}
}

static void logprobs_are_raw_or_processed_as_asked(void **state)
{
	struct served s;
	struct answer a;

	(void)state;
	serve_model(&s, "models/deepseek_v3", "ref");
	ask_ok(&s, "/generate",
	       "{\"text\":\"a\",\"return_logprob\":true,\"sampling_params\":{\"max_new_tokens\":2,\"temperature\":0}}",
	       &a);
	assert_non_null(strstr(a.text, "\"output_token_logprobs\":[[-"));
	answer_done(&a);
	/* Greedy is certain of what it takes. */
	ask_ok(&s, "/generate",
	       "{\"text\":\"a\",\"return_logprob\":true,\"logprobs_mode\":\"processed_logprobs\","
	       "\"sampling_params\":{\"max_new_tokens\":2,\"temperature\":0}}",
	       &a);
	assert_non_null(strstr(a.text, "\"output_token_logprobs\":[[0"));
	answer_done(&a);
	ask(&s, "/v1/completions", "{\"prompt\":\"a\",\"logprobs\":1,\"logprobs_mode\":\"both\"}", &a);
	assert_int_equal(a.status, 400);
	answer_done(&a);
	serve_end(&s);
}

static void a_full_queue_is_429(void **state)
{
	const struct eng_options options = {
		.model_path = test_fixture("models/deepseek_v3"), .backend = "ref", .max_running = 1, .max_queued = 2
	};
	struct served s;
	struct answer a;
	char head[4096];
	int fd, refused, seconds = 0;
	ssize_t n;

	(void)state;
	serve_with(&s, &options, (struct eng_http_config){ 0 });
	fd = raw_connect(&s);
	raw_post(fd, "/v1/completions",
	         "{\"prompt\":\"a\",\"max_tokens\":2000,\"n\":2,\"ignore_eos\":true,\"stream\":true}");
	assert_true(wait_stats(&s, one_is_running));
	ask(&s, "/v1/completions", "{\"prompt\":\"a\",\"n\":4}", &a);
	assert_int_equal(a.status, 429);
	assert_string_equal(str_at(a.json, "error.code"), "queue_full");
	answer_done(&a);
	refused = raw_connect(&s);
	raw_post(refused, "/v1/completions", "{\"prompt\":\"a\",\"n\":4}");
	n = recv(refused, head, sizeof(head) - 1, 0);
	assert_true(n > 0);
	head[n] = '\0';
	assert_non_null(strstr(head, "Retry-After: "));
	assert_int_equal(sscanf(strstr(head, "Retry-After: "), "Retry-After: %d", &seconds), 1);
	assert_in_range(seconds, 1, 60);
	(void)close(refused);
	(void)close(fd);
	assert_true(wait_stats(&s, none_is_running));
	ask_ok(&s, "/v1/completions", "{\"prompt\":\"a\",\"max_tokens\":2}", &a);
	answer_done(&a);
	serve_end(&s);
}

static void draining_finishes_a_stream_and_refuses_new_work(void **state)
{
	struct served s;
	struct answer a;
	char buf[65536];
	size_t len = 0;
	ssize_t n;
	int fd;

	(void)state;
	serve_model(&s, "models/qwen3", "ref");
	fd = raw_connect(&s);
	raw_post(fd, "/v1/completions", "{\"prompt\":\"a\",\"max_tokens\":300,\"ignore_eos\":true,\"stream\":true}");
	assert_true(recv(fd, buf, 1, 0) == 1);
	ask_ok(&s, "/health", NULL, &a); /* keeps this client's connection open */
	answer_done(&a);
	eng_http_quiesce(s.http);
	eng_engine_drain(s.engine, 20000);
	ask(&s, "/health", NULL, &a);
	assert_int_equal(a.status, 503);
	assert_string_equal(str_at(a.json, "error.type"), "unavailable_error");
	answer_done(&a);
	while ((n = recv(fd, buf + len, sizeof(buf) - 1 - len, 0)) > 0) {
		len += (size_t)n;
		if (len > 4096) {
			memmove(buf, buf + len - 2048, 2048);
			len = 2048;
		}
		buf[len] = '\0';
		if (strstr(buf, "[DONE]"))
			break;
	}
	assert_non_null(strstr(buf, "data: [DONE]"));
	(void)close(fd);
	serve_end(&s);
}

static void an_idle_server_uses_no_cpu(void **state)
{
	struct timespec before, after;

	(void)state;
	(void)usleep(200000);
	(void)clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &before);
	(void)usleep(500000);
	(void)clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &after);
	assert_true((after.tv_sec - before.tv_sec) * 1000000000L + after.tv_nsec - before.tv_nsec < 5000000);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_chat_stream_keeps_the_rules_and_equals_the_whole_answer),
		cmocka_unit_test(without_include_usage_there_is_no_usage_chunk),
		cmocka_unit_test(a_stop_string_never_leaks_into_a_stream),
		cmocka_unit_test(native_streams_are_cumulative),
		cmocka_unit_test(completions_take_every_kind_of_prompt),
		cmocka_unit_test(echo_with_logprobs_scores_the_prompt),
		cmocka_unit_test(a_seed_repeats_and_n_answers_differ),
		cmocka_unit_test(embeddings_come_as_numbers_and_as_base64_at_unit_length),
		cmocka_unit_test(a_long_list_of_embeddings_does_not_fill_the_queue),
		cmocka_unit_test(tokens_go_both_ways_in_both_dialects),
		cmocka_unit_test(health_models_and_metrics_answer),
		cmocka_unit_test(mistakes_are_refused_and_name_the_field),
		cmocka_unit_test(a_prompt_beyond_the_context_is_refused_with_the_counts),
		cmocka_unit_test(broken_requests_leave_the_server_healthy),
		cmocka_unit_test(deep_and_hostile_json_is_refused),
		cmocka_unit_test(headers_beyond_the_limit_are_refused),
		cmocka_unit_test(a_body_beyond_the_limit_is_refused),
		cmocka_unit_test(a_client_that_leaves_a_stream_cancels_it),
		cmocka_unit_test(a_client_that_leaves_while_it_waits_cancels_its_request),
		cmocka_unit_test(a_reader_that_does_not_read_is_dropped_and_delays_nobody),
		cmocka_unit_test(a_silent_stream_is_kept_alive_by_comments),
		cmocka_unit_test(fifty_clients_at_once_get_what_each_would_get_alone),
		cmocka_unit_test(logprobs_are_raw_or_processed_as_asked),
		cmocka_unit_test(a_full_queue_is_429),
		cmocka_unit_test(draining_finishes_a_stream_and_refuses_new_work),
		cmocka_unit_test(an_idle_server_uses_no_cpu),
	};

	return cmocka_run_group_tests(tests, start_server, stop_server);
}
