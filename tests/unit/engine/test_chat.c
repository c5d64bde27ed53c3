/* What the facade makes of a model's text files: templates, special tokens, sampling defaults, end tokens;
 * and of messages. The folders are made here around a fixture's tokenizer; no weights are read. */
#include <errno.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/json.h"
#include "base/mapfile.h"
#include "engine.h"
#include "test.h"

static char folder[64];

static void put(const char *name, const char *text)
{
	char path[128];

	(void)snprintf(path, sizeof(path), "%s/%s", folder, name);
	(void)unlink(path);
	if (text)
		assert_int_equal(base_write_file_atomic(path, text, strlen(text), 0644, NULL), 0);
}

/* A folder with the qwen3 fixture's tokenizer (<|im_end|> is id 2, <|endoftext|> 0) and the given files. */
static int open_with(const char *tokenizer_config, const char *jinja, const char *generation, const char *config,
                     struct eng_engine **ret_engine, struct err *err)
{
	const struct eng_options options = { .model_path = folder, .text_only = true };
	struct base_buf tok = BASE_BUF_INIT(16 << 20);
	char path[128];

	(void)snprintf(folder, sizeof(folder), "/tmp/ocai-test-chat-XXXXXX");
	assert_non_null(mkdtemp(folder));
	assert_int_equal(base_read_file(test_fixture("models/qwen3/tokenizer.json"), &tok, NULL), 0);
	(void)snprintf(path, sizeof(path), "%s/tokenizer.json", folder);
	assert_int_equal(base_write_file_atomic(path, tok.data, tok.len, 0644, NULL), 0);
	base_buf_done(&tok);
	put("tokenizer_config.json", tokenizer_config);
	put("chat_template.jinja", jinja);
	put("generation_config.json", generation);
	put("config.json", config);
	return eng_engine_open(&options, ret_engine, err);
}

static void close_all(struct eng_engine *e)
{
	static const char *const files[] = { "tokenizer_config.json", "chat_template.jinja", "generation_config.json",
		                             "config.json" };
	char path[128];

	for (size_t i = 0; i < 4; i++)
		put(files[i], NULL);
	(void)snprintf(path, sizeof(path), "%s/tokenizer.json", folder);
	(void)unlink(path);
	(void)rmdir(folder);
	eng_engine_close(e);
}

static struct eng_engine *open_ok(const char *tokenizer_config, const char *jinja, const char *generation,
                                  const char *config)
{
	struct eng_engine *e = NULL;
	struct err err = { 0 };

	if (open_with(tokenizer_config, jinja, generation, config, &e, &err) < 0)
		fail_msg("%s", err_text(&err));
	return e;
}

static int render(struct eng_engine *e, const char *messages, const char *tools, const char *kwargs, bool add_prompt,
                  char *out, size_t size, struct err *err)
{
	struct base_buf buf = BASE_BUF_INIT(1 << 20);
	json_t *m = json_loads(messages, 0, NULL), *t = tools ? json_loads(tools, 0, NULL) : NULL;
	json_t *k = kwargs ? json_loads(kwargs, 0, NULL) : NULL;
	int r = eng_render_chat(e, m, t, k, add_prompt, &buf, err);

	(void)snprintf(out, size, "%s", base_buf_text(&buf));
	base_buf_done(&buf);
	json_decref(m);
	json_decref(t);
	json_decref(k);
	return r;
}

static const char list_template[] = "{% for m in messages %}[{{ m.role }}:{{ m.content }}]{{ eos_token }}{% endfor %}"
                                    "{% if add_generation_prompt %}>{% endif %}";

static void the_jinja_file_wins_and_special_tokens_may_be_objects(void **state)
{
	struct eng_engine *e =
	        open_ok("{\"chat_template\":\"no\",\"eos_token\":{\"content\":\"<|im_end|>\",\"lstrip\":false}}",
	                list_template, NULL, NULL);
	char text[256];

	(void)state;
	assert_true(eng_engine_info(e)->has_chat_template);
	assert_int_equal(
	        render(e, "[{\"role\":\"user\",\"content\":\"hi\"}]", NULL, NULL, true, text, sizeof(text), NULL), 0);
	assert_string_equal(text, "[user:hi]<|im_end|>>");
	/* No other file names an end token. */
	assert_int_equal(eng_engine_info(e)->n_eos_ids, 1);
	assert_int_equal(eng_engine_info(e)->eos_ids[0], 2);
	close_all(e);
}

static void named_templates_are_chosen_by_tools(void **state)
{
	struct eng_engine *e =
	        open_ok("{\"chat_template\":[{\"name\":\"tool_use\",\"template\":\"T{{ tools|length }}\"},"
	                "{\"name\":\"default\",\"template\":\"D{{ k }}\"}]}",
	                NULL, NULL, NULL);
	static const char m[] = "[{\"role\":\"user\",\"content\":\"hi\"}]";
	char text[256];

	(void)state;
	assert_int_equal(render(e, m, "[{},{}]", NULL, true, text, sizeof(text), NULL), 0);
	assert_string_equal(text, "T2");
	assert_int_equal(render(e, m, NULL, "{\"k\":7}", true, text, sizeof(text), NULL), 0);
	assert_string_equal(text, "D7");
	close_all(e);
}

static void content_parts_are_joined_and_developer_is_system(void **state)
{
	struct eng_engine *e = open_ok("{}", list_template, NULL, NULL);
	char text[256];
	struct err err = { 0 };

	(void)state;
	assert_int_equal(render(e,
	                        "[{\"role\":\"developer\",\"content\":[{\"type\":\"text\",\"text\":\"a\"},"
	                        "{\"type\":\"text\",\"text\":\"b\"}]}]",
	                        NULL, NULL, false, text, sizeof(text), NULL),
	                 0);
	assert_string_equal(text, "[system:a\nb");
	assert_int_equal(render(e, "[{\"role\":\"user\",\"content\":[{\"type\":\"input_audio\"}]}]", NULL, NULL, true,
	                        text, sizeof(text), &err),
	                 -EINVAL);
	assert_non_null(strstr(err.msg, "input_audio"));
	close_all(e);
}

static void a_last_assistant_message_is_continued(void **state)
{
	struct eng_engine *e = open_ok("{\"eos_token\":\"<|im_end|>\"}", list_template, NULL, NULL);
	char text[256];

	(void)state;
	assert_int_equal(
	        render(e, "[{\"role\":\"user\",\"content\":\"Sure\"},{\"role\":\"assistant\",\"content\":\"Sure, \"}]",
	               NULL, NULL, false, text, sizeof(text), NULL),
	        0);
	assert_string_equal(text, "[user:Sure]<|im_end|>[assistant:Sure,");
	close_all(e);
}

static void arguments_of_earlier_calls_reach_the_template_as_objects(void **state)
{
	struct eng_engine *e = open_ok("{}", "{{ messages[0].tool_calls[0].function.arguments.path }}", NULL, NULL);
	char text[256];

	(void)state;
	assert_int_equal(
	        render(e,
	               "[{\"role\":\"assistant\",\"content\":\"\",\"tool_calls\":[{\"type\":\"function\",\"function\":"
	               "{\"name\":\"ls\",\"arguments\":\"{\\\"path\\\":\\\"/etc\\\"}\"}}]}]",
	               NULL, NULL, true, text, sizeof(text), NULL),
	        0);
	assert_string_equal(text, "/etc");
	close_all(e);
}

static void without_a_template_chat_is_not_supported(void **state)
{
	struct eng_engine *e = open_ok(NULL, NULL, NULL, NULL);
	char text[256];

	(void)state;
	assert_false(eng_engine_info(e)->has_chat_template);
	assert_int_equal(
	        render(e, "[{\"role\":\"user\",\"content\":\"hi\"}]", NULL, NULL, true, text, sizeof(text), NULL),
	        -ENOTSUP);
	close_all(e);
}

static void generation_config_gives_defaults_and_several_ends(void **state)
{
	struct eng_engine *e = open_ok("{}", NULL,
	                               "{\"temperature\":0.6,\"top_p\":0.95,\"top_k\":20,\"min_p\":0.05,"
	                               "\"repetition_penalty\":1.1,\"do_sample\":true,\"eos_token_id\":[2,0,2]}",
	                               "{\"eos_token_id\":5}");
	struct eng_sampling s;

	(void)state;
	eng_sampling_defaults(e, &s);
	assert_float_equal(s.temperature, 0.6, 1e-6);
	assert_float_equal(s.top_p, 0.95, 1e-6);
	assert_float_equal(s.min_p, 0.05, 1e-6);
	assert_float_equal(s.repetition_penalty, 1.1, 1e-6);
	assert_int_equal(s.top_k, 20);
	assert_int_equal(eng_engine_info(e)->n_eos_ids, 2);
	close_all(e);

	e = open_ok("{}", NULL, "{\"do_sample\":false}", "{\"text_config\":{\"eos_token_id\":5}}");
	eng_sampling_defaults(e, &s);
	assert_float_equal(s.temperature, 0, 0);
	assert_int_equal(eng_engine_info(e)->eos_ids[0], 5);
	close_all(e);
}

static void broken_files_are_errors_that_name_the_file(void **state)
{
	static const struct {
		const char *tokenizer_config, *jinja, *generation;
	} cases[] = {
		{ "{", NULL, NULL }, { "[]", NULL, NULL }, { NULL, "{% for %}", NULL }, { NULL, NULL, "{\"a\"" }
	};
	static const char *const names[] = { "tokenizer_config.json", "tokenizer_config.json", "chat_template.jinja",
		                             "generation_config.json" };

	(void)state;
	for (size_t i = 0; i < 4; i++) {
		struct eng_engine *e = NULL;
		struct err err = { 0 };

		assert_true(open_with(cases[i].tokenizer_config, cases[i].jinja, cases[i].generation, NULL, &e, &err) <
		            0);
		assert_null(e);
		assert_non_null(strstr(err.msg, names[i]));
		close_all(NULL);
	}
}

static void requests_without_weights_are_refused(void **state)
{
	const int32_t ids[] = { 1 };
	struct eng_request req = { .ids = ids, .n_ids = 1 };
	struct eng_engine *e = open_ok(NULL, NULL, NULL, NULL);
	uint64_t id;

	(void)state;
	assert_int_equal(eng_submit(e, &req, &id, NULL), -ENOTSUP);
	eng_cancel(e, 1);
	eng_engine_drain(e, 10);
	close_all(e);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(the_jinja_file_wins_and_special_tokens_may_be_objects),
		cmocka_unit_test(named_templates_are_chosen_by_tools),
		cmocka_unit_test(content_parts_are_joined_and_developer_is_system),
		cmocka_unit_test(a_last_assistant_message_is_continued),
		cmocka_unit_test(arguments_of_earlier_calls_reach_the_template_as_objects),
		cmocka_unit_test(without_a_template_chat_is_not_supported),
		cmocka_unit_test(generation_config_gives_defaults_and_several_ends),
		cmocka_unit_test(broken_files_are_errors_that_name_the_file),
		cmocka_unit_test(requests_without_weights_are_refused),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
