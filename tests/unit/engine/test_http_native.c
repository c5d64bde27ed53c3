/* What SGLang's and llama-server's users ask of a running server, over real small models: abort, flush, pause, other
 * weights, and what is told about them. */
#include <math.h>
#include <ftw.h>
#include <pthread.h>
#include <sys/stat.h>

#include "engine_quantize.h"
#include "http_shared.h"

/* ---- A request in another thread ---- */

struct pending {
	pthread_t thread;
	char path[64], body[5000];
	struct base_http *client;
	struct answer answer;
};

static void *pending_run(void *arg)
{
	struct pending *p = arg;

	ask_with(p->client, server.url, p->path, p->body, &p->answer);
	return NULL;
}

static bool is_running(const struct eng_stats *st)
{
	return st->n_running == 1;
}

static bool is_waiting(const struct eng_stats *st)
{
	return st->n_running == 0 && st->n_queued == 1;
}

static void begin(struct pending *p, const char *path, const char *body)
{
	(void)snprintf(p->path, sizeof(p->path), "%s", path);
	(void)snprintf(p->body, sizeof(p->body), "%s", body);
	assert_int_equal(base_http_new(&p->client, NULL), 0);
	assert_int_equal(pthread_create(&p->thread, NULL, pending_run, p), 0);
}

static void end(struct pending *p)
{
	assert_int_equal(pthread_join(p->thread, NULL), 0);
	base_http_free(p->client);
}

static const char long_one[] =
        "{\"text\":\"a\",\"rid\":\"job-7\",\"sampling_params\":{\"max_new_tokens\":100000,\"ignore_eos\":true,"
        "\"temperature\":0}}";

/* ---- Tests ---- */

static void it_tells_what_it_serves(void **state)
{
	struct answer a;

	(void)state;
	ask_ok(&server, "/get_model_info", NULL, &a);
	assert_string_equal(str_at(a.json, "weight_version"), "default");
	assert_string_equal(str_at(a.json, "tool_call_parser"), "none");
	answer_done(&a);
	ask_ok(&server, "/get_server_info", NULL, &a);
	assert_true(int_at(a.json, "internal_states.0.kv_pages") > 0);
	answer_done(&a);
	ask_ok(&server, "/props", NULL, &a);
	assert_true(int_at(a.json, "total_slots") > 0);
	assert_non_null(strstr(str_at(a.json, "chat_template"), "{%"));
	assert_true(int_at(a.json, "default_generation_settings.n_ctx") > 0);
	answer_done(&a);
	ask(&server, "/slots", NULL, &a);
	assert_true(json_array_size(a.json) > 0);
	answer_done(&a);
	ask_ok(&server, "/apply-template", "{\"messages\":[{\"role\":\"user\",\"content\":\"uptime?\"}]}", &a);
	assert_non_null(strstr(str_at(a.json, "prompt"), "uptime?"));
	answer_done(&a);
	ask_ok(&server, "/health_generate", NULL, &a);
	answer_done(&a);
	ask(&server, "/", NULL, &a);
	assert_int_equal(a.status, 200);
	assert_non_null(strstr(a.type, "text/html"));
	assert_null(strstr(a.text, "http://")); /* nothing from elsewhere */
	assert_null(strstr(a.text, "https://"));
	answer_done(&a);
	ask(&server, "/metrics", NULL, &a);
	assert_non_null(strstr(a.text, "ocai_engine_time_to_first_token_seconds_bucket{le=\"+Inf\"}"));
	assert_non_null(strstr(a.text, "ocai_engine_kv_pages_cached"));
	answer_done(&a);
}

static void a_request_is_aborted_by_its_name(void **state)
{
	struct pending p;
	struct answer a;

	(void)state;
	begin(&p, "/generate", long_one);
	assert_true(wait_stats(&server, is_running));
	ask(&server, "/flush_cache", NULL, &a);
	assert_int_equal(a.status, 400);
	answer_done(&a);
	ask_ok(&server, "/abort_request", "{\"rid\":\"job-8\"}", &a);
	assert_int_equal(int_at(a.json, "n_aborted"), 0);
	answer_done(&a);
	ask_ok(&server, "/abort_request", "{\"rid\":\"job-7\"}", &a);
	assert_int_equal(int_at(a.json, "n_aborted"), 1);
	answer_done(&a);
	end(&p);
	assert_int_equal(p.answer.status, 200);
	assert_string_equal(str_at(p.answer.json, "meta_info.finish_reason.type"), "abort");
	assert_string_equal(str_at(p.answer.json, "meta_info.id"), "job-7");
	assert_string_equal(str_at(p.answer.json, "meta_info.weight_version"), "default");
	answer_done(&p.answer);
	ask_ok(&server, "/flush_cache", "", &a);
	answer_done(&a);
	ask(&server, "/abort_request", "{}", &a);
	assert_int_equal(a.status, 400);
	answer_done(&a);
}

/* The same ids, whether it was held, set back, or left alone. */
static void a_pause_changes_no_answer(void **state)
{
	static const char body[] =
	        "{\"text\":\"pause me\",\"sampling_params\":{\"max_new_tokens\":300,\"ignore_eos\":true,"
	        "\"temperature\":0}}";
	static const char *const modes[] = { "{\"mode\":\"in_place\"}", "{\"mode\":\"retract\"}" };
	struct pending p;
	struct answer a, undisturbed;

	(void)state;
	ask_ok(&server, "/generate", body, &undisturbed);
	for (int i = 0; i < 2; i++) {
		begin(&p, "/generate", body);
		assert_true(wait_stats(&server, is_running));
		ask_ok(&server, "/pause_generation", modes[i], &a);
		answer_done(&a);
		assert_true(wait_stats(&server, i == 0 ? is_running : is_waiting));
		if (i == 0) { /* what is held has pages that other weights would not fit */
			ask(&server, "/update_weights_from_disk", "{\"model_path\":\"/nonexistent\"}", &a);
			assert_int_equal(a.status, 400);
			assert_non_null(strstr(str_at(a.json, "message"), "held"));
			answer_done(&a);
		}
		ask_ok(&server, "/continue_generation", "{}", &a);
		answer_done(&a);
		end(&p);
		assert_true(json_equal(at(p.answer.json, "output_ids"), at(undisturbed.json, "output_ids")));
		answer_done(&p.answer);
	}
	answer_done(&undisturbed);
	begin(&p, "/generate", long_one);
	assert_true(wait_stats(&server, is_running));
	ask_ok(&server, "/pause_generation", "", &a); /* abort */
	answer_done(&a);
	end(&p);
	assert_string_equal(str_at(p.answer.json, "meta_info.finish_reason.type"), "abort");
	answer_done(&p.answer);
	begin(&p, "/generate", "{\"text\":\"b\",\"sampling_params\":{\"max_new_tokens\":2}}");
	assert_true(wait_stats(&server, is_waiting));
	ask_ok(&server, "/continue_generation", "", &a);
	answer_done(&a);
	end(&p);
	assert_int_equal(p.answer.status, 200);
	answer_done(&p.answer);
	ask(&server, "/pause_generation", "{\"mode\":\"maybe\"}", &a);
	assert_int_equal(a.status, 400);
	answer_done(&a);
}

/* The model knows nothing of tools; the grammar makes it call one. */
static void a_forced_call_is_one(void **state)
{
	struct answer a;
	json_t *args;

	(void)state;
	for (int seed = 0; seed < 4; seed++) {
		char body[1024];

		(void)snprintf(
		        body, sizeof(body),
		        "{\"messages\":[{\"role\":\"user\",\"content\":\"weather?\"}],\"seed\":%d,\"max_tokens\":400,"
		        "\"tools\":[{\"type\":\"function\",\"function\":{\"name\":\"get_weather\",\"parameters\":{"
		        "\"type\":"
		        "\"object\",\"properties\":{\"days\":{\"enum\":[1,2,3]}},\"required\":[\"days\"],"
		        "\"additionalProperties\":false}}},{\"type\":\"function\",\"function\":{\"name\":\"now\"}}],"
		        "\"tool_choice\":{\"type\":\"function\",\"function\":{\"name\":\"get_weather\"}}}",
		        seed);
		ask_ok(&server, "/v1/chat/completions", body, &a);
		assert_string_equal(str_at(a.json, "choices.0.message.tool_calls.0.function.name"), "get_weather");
		args = json_loads(str_at(a.json, "choices.0.message.tool_calls.0.function.arguments"), 0, NULL);
		assert_in_range(int_at(args, "days"), 1, 3);
		assert_string_equal(str_at(a.json, "choices.0.finish_reason"), "tool_calls");
		json_decref(args);
		answer_done(&a);
	}
}

/* The text begins with the tag, holds a value of its schema, and ends behind it. */
static void a_structural_tag_holds_its_schema(void **state)
{
	static const char *const bodies[] = { "{\"messages\":[{\"role\":\"user\",\"content\":\"weather?\"}],\"max_"
		                              "tokens\":200,\"response_format\":{\"type\":"
		                              "\"structural_tag\",\"format\":{\"type\":\"triggered_tags\",\"triggers\":"
		                              "[\"<f\"],\"at_least_one\":true,"
		                              "\"stop_after_first\":true,\"tags\":[{\"begin\":\"<f=a>\",\"content\":{"
		                              "\"type\":\"json_schema\",\"json_schema\":{"
		                              "\"enum\":[17,42]}},\"end\":\"</f>\"}]}}}",
		                              "{\"text\":\"weather?\",\"sampling_params\":{\"max_new_tokens\":200,"
		                              "\"structural_tag\":\"{\\\"format\\\":{\\\"type\\\":"
		                              "\\\"triggered_tags\\\",\\\"triggers\\\":[\\\"<f\\\"],\\\"at_least_"
		                              "one\\\":true,\\\"stop_after_first\\\":true,"
		                              "\\\"tags\\\":[{\\\"begin\\\":\\\"<f=a>\\\",\\\"content\\\":{"
		                              "\\\"type\\\":\\\"json_schema\\\",\\\"json_schema\\\":{"
		                              "\\\"enum\\\":[17,42]}},\\\"end\\\":\\\"</f>\\\"}]}}\"}}" };

	struct eng_stats stats;

	(void)state;
	for (int i = 0; i < 2; i++) {
		struct answer a;
		const char *text;
		int value = 0, n = 0;

		ask_ok(&server, i ? "/generate" : "/v1/chat/completions", bodies[i], &a);
		text = str_at(a.json, i ? "text" : "choices.0.message.content");
		assert_int_equal(sscanf(text, "<f=a> %d</f>%n", &value, &n), 1);
		assert_true(value == 17 || value == 42);
		assert_int_equal(n, strlen(text));
		answer_done(&a);
	}
	/* Their masks were computed beside the model's steps. */
	eng_engine_stats(server.engine, &stats);
	assert_true(stats.mask_ns > 0);
}

/* ---- Log-probabilities of tokens by their ids ---- */

/* [logprob, id, null] of one of the entries at a position. */
static double logprob_of(json_t *position, int64_t id)
{
	json_t *entry;
	size_t i;

	json_array_foreach(position, i, entry)
	{
		if (json_integer_value(json_array_get(entry, 1)) == id)
			return json_number_value(json_array_get(entry, 0));
	}
	return -9999;
}

/* Of the ids that are among the best anyway, at every position: the same values. */
static void check_scored(json_t *answer, int64_t a, int64_t b)
{
	static const char *const names[][2] = { { "input_token_ids_logprobs", "input_top_logprobs" },
		                                { "output_token_ids_logprobs", "output_top_logprobs" } };
	size_t n_found = 0;

	for (size_t k = 0; k < 2; k++) {
		json_t *scored = json_object_get(at(answer, "meta_info"), names[k][0]), *position;
		json_t *top = json_object_get(at(answer, "meta_info"), names[k][1]);
		size_t i;

		assert_int_equal(json_array_size(scored), json_array_size(top));
		assert_true(json_array_size(scored) > 0);
		json_array_foreach(scored, i, position)
		{
			json_t *best = json_array_get(top, i);

			if (json_is_null(best)) {
				assert_true(json_is_null(position));
				continue;
			}
			assert_int_equal(json_array_size(position), 2);
			assert_int_equal(json_integer_value(json_array_get(json_array_get(position, 0), 1)), a);
			assert_int_equal(json_integer_value(json_array_get(json_array_get(position, 1), 1)), b);
			for (int c = 0; c < 2; c++) {
				double value = logprob_of(best, c ? b : a);

				if (value > -9999) {
					assert_float_equal(logprob_of(position, c ? b : a), value, 1e-5);
					n_found++;
				} else {
					assert_true(logprob_of(position, c ? b : a) <=
					            json_number_value(json_array_get(json_array_get(best, 19), 0)) +
					                    1e-5);
				}
			}
		}
	}
	assert_true(n_found > 0);
}

static void logprobs_of_wanted_ids_are_told(void **state)
{
	static const char format[] =
	        "{\"input_ids\":%s,\"sampling_params\":{\"max_new_tokens\":5,\"temperature\":0,\"ignore_eos\":true},"
	        "\"return_logprob\":true,\"logprob_start_len\":0,\"top_logprobs_num\":20%s%s}";
	char body[1024], wanted[128];
	struct answer a;
	int64_t best;

	(void)state;
	(void)snprintf(body, sizeof(body), format, "[65,66,67,68]", "", "");
	ask_ok(&server, "/generate", body, &a);
	assert_null(at(a.json, "meta_info.output_token_ids_logprobs"));
	best = int_at(a.json, "output_ids.0");
	answer_done(&a);

	(void)snprintf(wanted, sizeof(wanted), ",\"token_ids_logprob\":[%lld,7]", (long long)best);
	(void)snprintf(body, sizeof(body), format, "[65,66,67,68]", wanted, "");
	ask_ok(&server, "/generate", body, &a);
	check_scored(a.json, best, 7);
	answer_done(&a);
	/* Of several prompts: one list for all, or one each. */
	(void)snprintf(body, sizeof(body), format, "[[65,66,67,68],[70,71]]", wanted, "");
	ask_ok(&server, "/generate", body, &a);
	check_scored(json_array_get(a.json, 0), best, 7);
	assert_int_equal(json_array_size(at(a.json, "1.meta_info.output_token_ids_logprobs.0")), 2);
	answer_done(&a);
	(void)snprintf(wanted, sizeof(wanted), ",\"token_ids_logprob\":[[%lld,7],[9]]", (long long)best);
	(void)snprintf(body, sizeof(body), format, "[[65,66,67,68],[70,71]]", wanted, "");
	ask_ok(&server, "/generate", body, &a);
	check_scored(json_array_get(a.json, 0), best, 7);
	assert_int_equal(int_at(a.json, "1.meta_info.output_token_ids_logprobs.4.0.1"), 9);
	answer_done(&a);
	/* Of the distribution that was drawn from: greedy is certain. */
	(void)snprintf(wanted, sizeof(wanted), ",\"token_ids_logprob\":[%lld,7]", (long long)best);
	(void)snprintf(body, sizeof(body), format, "[65,66,67,68]", wanted,
	               ",\"logprobs_mode\":\"processed_logprobs\"");
	ask_ok(&server, "/generate", body, &a);
	assert_float_equal(logprob_of(at(a.json, "meta_info.output_token_ids_logprobs.0"), best), 0, 0);
	assert_float_equal(logprob_of(at(a.json, "meta_info.output_token_ids_logprobs.0"), 7), -9999, 0);
	answer_done(&a);
	for (int i = 0; i < 3; i++) {
		static const char *const wrong[] = { ",\"token_ids_logprob\":[99999]",
			                             ",\"token_ids_logprob\":[[1],[2]]", ",\"token_ids_logprob\":7" };

		(void)snprintf(body, sizeof(body), format, "[65]", wrong[i], "");
		ask(&server, "/generate", body, &a);
		assert_int_equal(a.status, 400);
		answer_done(&a);
	}
}

/* ---- Reranking ---- */

static json_t *ids_of(const char *text)
{
	json_t *body = json_pack("{s:s, s:b, s:b}", "content", text, "add_special", 0, "parse_special", 1), *ids;
	char *dumped = json_dumps(body, 0);
	struct answer a;

	ask_ok(&server, "/tokenize", dumped, &a);
	ids = json_incref(at(a.json, "tokens"));
	answer_done(&a);
	free(dumped);
	json_decref(body);
	return ids;
}

/* The definition, by other routes: the probability of yes beside no behind the question. */
static double score_of(const char *query, const char *document, json_t *yes_no)
{
	static const char judge[] =
	        "Judge whether the Document meets the requirements based on the Query and the Instruct "
	        "provided. Note that the answer can only be \"yes\" or \"no\".";
	char user[1024];
	json_t *body, *ids;
	struct answer a;
	char *dumped;
	double yes, no;

	(void)snprintf(
	        user, sizeof(user),
	        "<Instruct>: Given a web search query, retrieve relevant passages that answer the query\n<Query>: "
	        "%s\n<Document>: %s",
	        query, document);
	body = json_pack("{s:[{s:s, s:s}, {s:s, s:s}], s:{s:b}}", "messages", "role", "system", "content", judge,
	                 "role", "user", "content", user, "chat_template_kwargs", "enable_thinking", 0);
	dumped = json_dumps(body, 0);
	ask_ok(&server, "/apply-template", dumped, &a);
	ids = ids_of(str_at(a.json, "prompt"));
	answer_done(&a);
	free(dumped);
	json_decref(body);
	body = json_pack("{s:o, s:b, s:O, s:{s:i, s:f}}", "input_ids", ids, "return_logprob", 1, "token_ids_logprob",
	                 yes_no, "sampling_params", "max_new_tokens", 1, "temperature", 0.0);
	dumped = json_dumps(body, 0);
	ask_ok(&server, "/generate", dumped, &a);
	yes = json_number_value(at(a.json, "meta_info.output_token_ids_logprobs.0.0.0"));
	no = json_number_value(at(a.json, "meta_info.output_token_ids_logprobs.0.1.0"));
	answer_done(&a);
	free(dumped);
	json_decref(body);
	return exp(yes) / (exp(yes) + exp(no));
}

static void documents_are_ranked_by_what_the_model_would_say(void **state)
{
	static const char *const documents[] = { "restart nginx", "a", "\xe9\x87\x8d\xe5\x90\xaf", "restart nginx",
		                                 "disk" };
	static const char *const wrong[] = { "{\"documents\":[\"a\"]}", "{\"query\":\"a\",\"documents\":[]}",
		                             "{\"query\":\"a\",\"documents\":[1]}",
		                             "{\"query\":\"a\",\"documents\":[\"b\"],\"top_n\":0}" };
	json_t *yes = ids_of("yes"), *no = ids_of("no"), *yes_no, *body, *result;
	double before = 2, scores[5];
	struct answer a;
	char *dumped;
	size_t i;

	(void)state;
	yes_no = json_pack("[O,O]", json_array_get(yes, 0), json_array_get(no, 0));
	for (i = 0; i < 5; i++)
		scores[i] = score_of("how?", documents[i], yes_no);
	body = json_pack("{s:s, s:[s,{s:s},s,s,s], s:b}", "query", "how?", "documents", documents[0], "text",
	                 documents[1], documents[2], documents[3], documents[4], "return_documents", 1);
	dumped = json_dumps(body, 0);
	ask_ok(&server, "/v1/rerank", dumped, &a);
	assert_int_equal(json_array_size(at(a.json, "results")), 5);
	json_array_foreach(at(a.json, "results"), i, result)
	{
		long long index = int_at(result, "index");
		double score = json_number_value(at(result, "relevance_score"));

		assert_in_range(index, 0, 4);
		assert_float_equal(score, scores[index], 1e-5);
		assert_true(score <= before);
		assert_string_equal(str_at(result, "document.text"), documents[index]);
		before = score;
	}
	assert_true(int_at(a.json, "usage.total_tokens") > 0);
	answer_done(&a);
	free(dumped);
	(void)json_object_set_new(body, "top_n", json_integer(2));
	(void)json_object_set_new(body, "return_documents", json_false());
	dumped = json_dumps(body, 0);
	ask_ok(&server, "/rerank", dumped, &a);
	assert_int_equal(json_array_size(at(a.json, "results")), 2);
	assert_null(at(a.json, "results.0.document"));
	answer_done(&a);
	free(dumped);
	for (i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++) {
		ask(&server, "/v1/rerank", wrong[i], &a);
		assert_int_equal(a.status, 400);
		answer_done(&a);
	}
	json_decref(body);
	json_decref(yes_no);
	json_decref(yes);
	json_decref(no);
}

/* ---- Weights ---- */

static int remove_one(const char *path, const struct stat *st, int kind, struct FTW *at)
{
	return remove(path);
}

static void copy_file(const char *from, const char *to)
{
	char command[12000];

	(void)snprintf(command, sizeof(command), "cp '%s' '%s'", from, to);
	assert_int_equal(system(command), 0);
}

/* The fixture with its first matrix of the last layer's values halved: same shape, other answers. */
static void make_other(const char *dir)
{
	static const char *const files[] = { "config.json", "tokenizer.json", "tokenizer_config.json",
		                             "model.safetensors" };
	char from[5000], to[5000];
	unsigned char bytes[4096];
	FILE *f;
	long size;

	for (size_t i = 0; i < 4; i++) {
		(void)snprintf(from, sizeof(from), "%s/%s", test_fixture("models/qwen3"), files[i]);
		(void)snprintf(to, sizeof(to), "%s/%s", dir, files[i]);
		copy_file(from, to);
	}
	f = fopen(to, "r+b");
	assert_non_null(f);
	assert_int_equal(fseek(f, 0, SEEK_END), 0);
	size = ftell(f);
	/* The second half of the data turned round in blocks, which keeps every value a sane number. */
	for (long at = size / 2 / 4096 * 4096 + 4096; at + 4096 <= size; at += 4096) {
		assert_int_equal(fseek(f, at, SEEK_SET), 0);
		assert_int_equal(fread(bytes, 1, 4096, f), 4096);
		for (int i = 0; i < 1024; i += 4) {
			unsigned char t[4];

			memcpy(t, bytes + i, 4);
			memcpy(bytes + i, bytes + 4092 - i, 4);
			memcpy(bytes + 4092 - i, t, 4);
		}
		assert_int_equal(fseek(f, at, SEEK_SET), 0);
		assert_int_equal(fwrite(bytes, 1, 4096, f), 4096);
	}
	assert_int_equal(fclose(f), 0);
}

static const char probe[] =
        "{\"text\":\"which weights answer?\",\"sampling_params\":{\"max_new_tokens\":24,\"ignore_eos\":true,"
        "\"temperature\":0}}";

static void update(struct served *s, const char *path, const char *version, long status, struct answer *ret)
{
	char body[8192];

	(void)snprintf(body, sizeof(body), "{\"model_path\":\"%s\",\"weight_version\":\"%s\"}", path, version);
	ask(s, "/update_weights_from_disk", body, ret);
	if (ret->status != status)
		fail_msg("%ld: %s", ret->status, ret->text);
}

static void check_updates(struct served *s, const char *own, const char *other)
{
	struct answer before, after, again, a;

	ask_ok(s, "/generate", probe, &before);
	/* Refused: the old ones stay, and so does their name. */
	update(s, test_fixture("models/llama"), "v9", 400, &a);
	assert_true(json_is_false(at(a.json, "success")));
	assert_non_null(strstr(str_at(a.json, "message"), "shape"));
	answer_done(&a);
	update(s, "/nonexistent", "v9", 400, &a);
	answer_done(&a);
	ask_ok(s, "/generate", probe, &again);
	assert_true(json_equal(at(before.json, "output_ids"), at(again.json, "output_ids")));
	assert_string_equal(str_at(again.json, "meta_info.weight_version"), "default");
	answer_done(&again);

	update(s, other, "v2", 200, &a);
	assert_true(json_is_true(at(a.json, "success")));
	answer_done(&a);
	ask_ok(s, "/generate", probe, &after);
	assert_false(json_equal(at(before.json, "output_ids"), at(after.json, "output_ids")));
	assert_int_equal(int_at(after.json, "meta_info.cached_tokens"), 0); /* nothing of the old ones is left */
	assert_string_equal(str_at(after.json, "meta_info.weight_version"), "v2");
	ask_ok(s, "/get_weight_version", NULL, &a);
	assert_string_equal(str_at(a.json, "weight_version"), "v2");
	answer_done(&a);

	update(s, own, "v3", 200, &a);
	answer_done(&a);
	ask_ok(s, "/generate", probe, &again);
	assert_true(json_equal(at(before.json, "output_ids"), at(again.json, "output_ids")));
	assert_string_equal(str_at(again.json, "text"), str_at(before.json, "text"));
	answer_done(&before);
	answer_done(&after);
	answer_done(&again);
}

static void weights_are_changed_while_it_serves(void **state)
{
	char dir[] = "/tmp/ocai-weights-XXXXXX", own[4096];
	struct served s;

	(void)state;
	assert_non_null(mkdtemp(dir));
	make_other(dir);
	serve_model(&s, "models/qwen3", "ref");
	(void)snprintf(own, sizeof(own), "%s", test_fixture("models/qwen3"));
	check_updates(&s, own, dir);
	serve_end(&s);
	assert_int_equal(nftw(dir, remove_one, 8, FTW_DEPTH | FTW_PHYS), 0);
}

static void quantize(const char *model, const char *output)
{
	struct eng_quantize_options options = { .model_path = model,
		                                .output_path = output,
		                                .dtype = KN_Q8_0,
		                                .embed_dtype = KN_N_DTYPES,
		                                .output_dtype = KN_N_DTYPES,
		                                .n_threads = 2 };
	struct eng_quantize_result result;
	struct err err = { 0 };

	if (eng_quantize(&options, &result, &err) < 0)
		fail_msg("%s", err_text(&err));
}

/* The tokenizer of a GGUF file outlives its weights. */
static void weights_of_a_gguf_file_too(void **state)
{
	char dir[] = "/tmp/ocai-weights-XXXXXX", one[4096], two[4096], other[4096];
	struct eng_options options = { .model_path = one, .backend = "ref", .n_threads = 2 };
	struct served s;

	(void)state;
	assert_non_null(mkdtemp(dir));
	(void)snprintf(other, sizeof(other), "%s/other", dir);
	assert_int_equal(mkdir(other, 0700), 0);
	make_other(other);
	(void)snprintf(one, sizeof(one), "%s/one.gguf", dir);
	(void)snprintf(two, sizeof(two), "%s/two.gguf", dir);
	quantize(test_fixture("models/qwen3"), one);
	quantize(other, two);
	serve_with(&s, &options, (struct eng_http_config){ 0 });
	check_updates(&s, one, two);
	serve_end(&s);
	assert_int_equal(nftw(dir, remove_one, 8, FTW_DEPTH | FTW_PHYS), 0);
}

/* An update waits for what runs, and what comes meanwhile waits for it. */
static void an_update_waits_for_answers_that_run(void **state)
{
	struct pending p, q;
	struct answer a;
	char body[5000];

	(void)state;
	begin(&p, "/generate",
	      "{\"text\":\"x\",\"sampling_params\":{\"max_new_tokens\":400,\"ignore_eos\":true,\"temperature\":0}}");
	assert_true(wait_stats(&server, is_running));
	(void)snprintf(body, sizeof(body), "{\"model_path\":\"%s\",\"weight_version\":\"same\"}",
	               test_fixture("models/qwen3"));
	begin(&q, "/update_weights_from_disk", body);
	ask_ok(&server, "/generate", "{\"text\":\"y\",\"sampling_params\":{\"max_new_tokens\":2}}", &a);
	answer_done(&a);
	end(&q);
	end(&p);
	assert_int_equal(int_at(p.answer.json, "meta_info.completion_tokens"), 400);
	assert_int_equal(q.answer.status, 200);
	answer_done(&p.answer);
	answer_done(&q.answer);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(it_tells_what_it_serves),
		cmocka_unit_test(a_request_is_aborted_by_its_name),
		cmocka_unit_test(a_forced_call_is_one),
		cmocka_unit_test(a_structural_tag_holds_its_schema),
		cmocka_unit_test(documents_are_ranked_by_what_the_model_would_say),
		cmocka_unit_test(logprobs_of_wanted_ids_are_told),
		cmocka_unit_test(a_pause_changes_no_answer),
		cmocka_unit_test(weights_are_changed_while_it_serves),
		cmocka_unit_test(weights_of_a_gguf_file_too),
		cmocka_unit_test(an_update_waits_for_answers_that_run),
	};

	return cmocka_run_group_tests(tests, start_server, stop_server);
}
