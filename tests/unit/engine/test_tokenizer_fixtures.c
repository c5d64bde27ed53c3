/* The tokenizer against what the reference implementation made of the same files: ids and decoded text, and
 * the streaming detokenizer against decoding everything at once. */
#include "test.h"

#include "base/buf.h"
#include "base/cleanup.h"
#include "base/json.h"
#include "tokenizer/tokenizer.h"

static void tok_freep(struct eng_tokenizer **tok)
{
	eng_tokenizer_free(*tok);
}

static struct eng_tokenizer *open_tokenizer(const char *rest)
{
	struct eng_tokenizer *tok = NULL;
	struct err err = { 0 };
	int r = eng_tokenizer_open(test_fixture(rest), &tok, &err);

	if (r < 0)
		fail_msg("%s: %s", rest, err_text(&err));
	return tok;
}

static json_t *read_json(const char *rest)
{
	json_t *v = NULL;
	struct err err = { 0 };

	if (base_json_read_file(test_fixture(rest), 64 << 20, &v, &err) < 0)
		fail_msg("%s: %s", rest, err_text(&err));
	return v;
}

static void expect_ids(const char *what, const json_t *expected, const struct eng_ids *ids)
{
	if (json_array_size(expected) != ids->n)
		fail_msg("%s: %zu ids, expected %zu", what, ids->n, json_array_size(expected));
	for (size_t i = 0; i < ids->n; i++) {
		if (json_integer_value(json_array_get(expected, i)) != ids->ids[i])
			fail_msg("%s: id %zu is %d, expected %lld", what, i, (int)ids->ids[i],
			         (long long)json_integer_value(json_array_get(expected, i)));
	}
}

/* The fixtures' long prompt is the text's ids over and over, cut to a length. */
static void expect_repeated_ids(const char *what, const json_t *expected, const struct eng_ids *ids)
{
	assert_true(ids->n > 0 && json_array_size(expected) >= ids->n);
	for (size_t i = 0; i < json_array_size(expected); i++) {
		if (json_integer_value(json_array_get(expected, i)) != ids->ids[i % ids->n])
			fail_msg("%s: id %zu is %d, expected %lld", what, i, (int)ids->ids[i % ids->n],
			         (long long)json_integer_value(json_array_get(expected, i)));
	}
}

static void expect_text(const char *what, const json_t *expected, const struct base_buf *text)
{
	if (json_string_length(expected) != text->len ||
	    memcmp(json_string_value(expected), base_buf_text(text), text->len) != 0)
		fail_msg("%s: decoded \"%s\", expected \"%s\"", what, base_buf_text(text), json_string_value(expected));
}

/* Whole, and token by token with every part valid UTF-8. */
static void decode_both_ways(const char *what, const struct eng_tokenizer *tok, const struct eng_ids *ids,
                             const json_t *expected)
{
	CLEANUP(base_buf_done) struct base_buf whole = BASE_BUF_INIT(1 << 20);
	CLEANUP(base_buf_done) struct base_buf parts = BASE_BUF_INIT(1 << 20);
	struct eng_detok *detok;

	assert_int_equal(eng_tokenizer_decode(tok, ids->ids, ids->n, false, &whole), 0);
	expect_text(what, expected, &whole);
	assert_int_equal(eng_detok_new(tok, false, &detok), 0);
	for (size_t i = 0; i < ids->n; i++) {
		size_t before = parts.len;
		json_t *piece;

		assert_int_equal(eng_detok_push(detok, ids->ids[i], &parts), 0);
		piece = json_stringn(base_buf_text(&parts) + before, parts.len - before); /* checks UTF-8 */
		assert_non_null(piece);
		json_decref(piece);
	}
	assert_int_equal(eng_detok_flush(detok, &parts), 0);
	eng_detok_free(detok);
	expect_text(what, expected, &parts);
}

static void check_family(const char *name)
{
	CLEANUP(tok_freep) struct eng_tokenizer *tok = NULL;
	json_t *cases, *c;
	char path[256];
	size_t i;

	(void)snprintf(path, sizeof(path), "tokenizers/%s.json", name);
	tok = open_tokenizer(path);
	(void)snprintf(path, sizeof(path), "tokenizers/%s.expected.json", name);
	cases = read_json(path);
	assert_true(json_array_size(cases) > 20);
	json_array_foreach(cases, i, c)
	{
		const json_t *text = json_object_get(c, "text");
		CLEANUP(eng_ids_done) struct eng_ids ids = { 0 };
		struct err err = { 0 };
		char what[128];

		(void)snprintf(what, sizeof(what), "%s, case %zu", name, i);
		if (eng_tokenizer_encode(tok, json_string_value(text), json_string_length(text), ENG_TOK_PARSE_SPECIAL,
		                         &ids, &err) < 0)
			fail_msg("%s: %s", what, err_text(&err));
		expect_ids(what, json_object_get(c, "ids"), &ids);
		decode_both_ways(what, tok, &ids, json_object_get(c, "decoded"));
	}
	json_decref(cases);
}

static void the_qwen_family_agrees_with_the_reference(void **state)
{
	check_family("qwen");
}

static void the_llama3_family_agrees_with_the_reference(void **state)
{
	check_family("llama3");
}

static void the_llama2_family_agrees_with_the_reference(void **state)
{
	check_family("llama2");
}

static void the_gemma_family_agrees_with_the_reference(void **state)
{
	check_family("gemma");
}

static void the_xlmr_family_agrees_with_the_reference(void **state)
{
	check_family("xlmr");
}

static void the_gpt2_family_agrees_with_the_reference(void **state)
{
	check_family("gpt2");
}

static void the_deepseek_family_agrees_with_the_reference(void **state)
{
	check_family("deepseek");
}

static void check_model(const char *folder)
{
	CLEANUP(tok_freep) struct eng_tokenizer *tok = NULL;
	json_t *expected, *p;
	char path[512];
	size_t i, k;

	(void)snprintf(path, sizeof(path), "%s/tokenizer.json", folder);
	tok = open_tokenizer(path);
	(void)snprintf(path, sizeof(path), "%s/expected.json", folder);
	expected = read_json(path);
	json_array_foreach(json_object_get(expected, "prompts"), i, p)
	{
		CLEANUP(eng_ids_done) struct eng_ids ids = { 0 };
		CLEANUP(eng_ids_done) struct eng_ids gen = { 0 };
		const json_t *text = json_object_get(p, "text");
		json_t *id;

		if (!text)
			continue;
		assert_int_equal(eng_tokenizer_encode(tok, json_string_value(text), json_string_length(text),
		                                      ENG_TOK_ADD_SPECIAL | ENG_TOK_PARSE_SPECIAL, &ids, NULL),
		                 0);
		expect_repeated_ids(folder, json_object_get(p, "ids"), &ids);
		if (!json_object_get(p, "gen_text"))
			continue;
		json_array_foreach(json_object_get(p, "gen"), k, id)
		        assert_int_equal(eng_ids_push(&gen, (int32_t)json_integer_value(id)), 0);
		decode_both_ways(folder, tok, &gen, json_object_get(p, "gen_text"));
	}
	assert_true(i >= 3);
	json_decref(expected);
}

static void prompts_of_all_model_fixtures_agree_with_the_reference(void **state)
{
	static const char *const folders[] = {
		"deepseek_v3",    "ernie4_5",   "gemma3_text", "glm4_moe", "gpt_oss", "hunyuan_v1_dense",
		"hunyuan_v1_moe", "llama",      "mistral",     "olmo2",    "phi3",    "qwen2",
		"qwen3",          "qwen3-yarn", "qwen3_moe",
	};
	char path[256];

	for (size_t i = 0; i < sizeof(folders) / sizeof(*folders); i++) {
		(void)snprintf(path, sizeof(path), "models/%s", folders[i]);
		check_model(path);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(the_qwen_family_agrees_with_the_reference),
		cmocka_unit_test(the_llama3_family_agrees_with_the_reference),
		cmocka_unit_test(the_llama2_family_agrees_with_the_reference),
		cmocka_unit_test(the_gemma_family_agrees_with_the_reference),
		cmocka_unit_test(the_xlmr_family_agrees_with_the_reference),
		cmocka_unit_test(the_gpt2_family_agrees_with_the_reference),
		cmocka_unit_test(the_deepseek_family_agrees_with_the_reference),
		cmocka_unit_test(prompts_of_all_model_fixtures_agree_with_the_reference),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
