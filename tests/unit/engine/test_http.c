/* The HTTP front over a small real model: the shapes of answers, and refusals. */
#include <openssl/evp.h>
#include <math.h>

#include "http_shared.h"

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

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(completions_take_every_kind_of_prompt),
		cmocka_unit_test(echo_with_logprobs_scores_the_prompt),
		cmocka_unit_test(a_seed_repeats_and_n_answers_differ),
		cmocka_unit_test(embeddings_come_as_numbers_and_as_base64_at_unit_length),
		cmocka_unit_test(a_long_list_of_embeddings_does_not_fill_the_queue),
		cmocka_unit_test(tokens_go_both_ways_in_both_dialects),
		cmocka_unit_test(health_models_and_metrics_answer),
		cmocka_unit_test(logprobs_are_raw_or_processed_as_asked),
		cmocka_unit_test(mistakes_are_refused_and_name_the_field),
		cmocka_unit_test(a_prompt_beyond_the_context_is_refused_with_the_counts),
	};

	return cmocka_run_group_tests(tests, start_server, stop_server);
}
