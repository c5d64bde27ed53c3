/* A matcher's way through a text: to the end, within its limits, by several threads. */
#include <jansson.h>
#include <pthread.h>

#include "grammar_test.h"

static void a_text_follows_its_grammar_to_the_end(void **state)
{
	struct eng_grammar *g =
	        compile(ENG_GRAMMAR_JSON_SCHEMA,
	                "{\"type\":\"object\",\"properties\":{\"a\":{\"type\":\"string\",\"maxLength\":3},"
	                "\"b\":{\"type\":\"array\",\"items\":{\"enum\":[1,\"x\"]},\"maxItems\":2}},"
	                "\"required\":[\"a\",\"b\"],\"additionalProperties\":false}");

	(void)state;
	for (uint32_t seed = 1; seed < 200; seed++) {
		struct eng_matcher *m = NULL;
		char text[4096];
		size_t len = 0;
		uint32_t n = 0, x = seed;
		json_t *v;

		assert_int_equal(eng_matcher_new(g, &m), 0);
		while (!eng_matcher_must_end(m)) {
			const uint64_t *mask = eng_matcher_mask(m, &n);
			int32_t id;

			assert_non_null(mask);
			assert_true(n > 0 && len < sizeof(text) - 32);
			do {
				x = x * 1664525u + 1013904223u;
				id = (int32_t)((x >> 8) % N_VOCAB);
			} while (!has(mask, id));
			assert_int_equal(eng_matcher_accept(m, id), 0);
			memcpy(text + len, tokens[id], lens[id]);
			len += lens[id];
		}
		v = json_loadb(text, len, 0, NULL);
		assert_non_null(v);
		assert_true(json_string_length(json_object_get(v, "a")) <= 12 &&
		            json_array_size(json_object_get(v, "b")) <= 2);
		assert_int_equal(json_object_size(v), 2);
		json_decref(v);
		eng_matcher_free(m);
	}
	eng_grammar_unref(g);
}

/* How many bytes of the text are taken. */
static size_t accepted_bytes(struct eng_grammar *g, const char *text)
{
	struct eng_matcher *m = NULL;
	size_t n;

	assert_int_equal(eng_matcher_new(g, &m), 0);
	n = eng_matcher_accept_bytes(m, text, strlen(text));
	eng_matcher_free(m);
	return n;
}

static void white_space_is_bounded(void **state)
{
	static const char *const wrong[] = { "\n\n1",   "\n 1",    "  1",         "\r1",         "1 ",
		                             "{\n\n}",  "{  }",    "{\"a\"\n:1}", "{\"a\":\n1}", "{\"a\":1\n,\"b\":2}",
		                             "[1\n,2]", "[1,  2]", "[\r1]",       "{\"a\":  1}" };
	static const char *const right[] = {
		"\n{\r\n\t\"a\" : [ 1 , 2 ]\n}", " 1", "{}", "{ }", "[\n]", "{\"a\":1\r\n}"
	};
	struct eng_grammar *g = compile(ENG_GRAMMAR_JSON_SCHEMA, "{}");
	char text[128];

	(void)state;
	for (size_t i = 0; i < sizeof(right) / sizeof(right[0]); i++)
		assert_true(accepts(g, right[i]));
	for (size_t i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++) {
		if (accepts(g, wrong[i]))
			fail_msg("%s", wrong[i]);
	}
	(void)snprintf(text, sizeof(text), "[\n%24s1,\n%24s2\n%24s]", "", "", "");
	assert_true(accepts(g, text));
	(void)snprintf(text, sizeof(text), "[\n%25s1]", "");
	assert_false(accepts(g, text));
	eng_grammar_unref(g);
	/* A line does not end where what has to follow may not stand on the next one. */
	g = compile(ENG_GRAMMAR_JSON_SCHEMA,
	            "{\"type\":\"object\",\"required\":[\"a\",\"b\"],\"properties\":{\"a\":{\"type\":"
	            "\"array\",\"minItems\":2}}}");
	assert_true(accepts(g, "{\n \"a\": [\n  1,\n  2\n ],\n \"b\": 1\n}"));
	assert_int_equal(accepted_bytes(g, "{\"a\":[1,2]\n"), 10);
	assert_int_equal(accepted_bytes(g, "{\"a\":[1\n"), 7);
	eng_grammar_unref(g);
}

static void nesting_ends_at_a_limit(void **state)
{
	struct eng_grammar *g = compile(ENG_GRAMMAR_JSON_SCHEMA, "{}");
	struct eng_matcher *m = NULL;
	size_t n = 0;

	(void)state;
	assert_int_equal(eng_matcher_new(g, &m), 0);
	while (n < 10000 && eng_matcher_accept_bytes(m, "[", 1) == 1)
		n++;
	assert_in_range(n, 100, 1000);
	/* and the way back is open */
	for (size_t i = 0; i < n; i++)
		assert_int_equal(eng_matcher_accept_bytes(m, "]", 1), 1);
	assert_true(eng_matcher_must_end(m));
	assert_int_equal(eng_matcher_error(m), 0);
	eng_matcher_free(m);
	eng_grammar_unref(g);
}

/* Right recursion needs no depth, ambiguity no exponential time. */
static void long_outputs_stay_cheap(void **state)
{
	struct eng_grammar *g =
	        compile(ENG_GRAMMAR_EBNF, "root ::= s\ns ::= \"a\" s | t s | \"\"\nt ::= \"(\" s \")\" | [b]");
	struct eng_matcher *m = NULL;
	uint32_t n = 0;

	(void)state;
	assert_int_equal(eng_matcher_new(g, &m), 0);
	for (int i = 0; i < 3000; i++) {
		assert_non_null(eng_matcher_mask(m, &n));
		assert_int_equal(eng_matcher_accept(m, i % 2 ? 'a' : 'b'), 0);
	}
	assert_true(eng_matcher_can_end(m));
	eng_matcher_free(m);
	eng_grammar_unref(g);
}

static void what_the_vocabulary_cannot_spell_is_an_error(void **state)
{
	const uint8_t *few[] = { (const uint8_t *)"a", (const uint8_t *)"" };
	const uint32_t few_lens[] = { 1, 0 };
	float logits[3] = { 1, 2, 3 };
	struct grammar_vocab *v = NULL;
	struct eng_grammar *g = NULL;
	struct eng_matcher *m = NULL;
	struct err err = { 0 };

	(void)state;
	assert_int_equal(gr_grammar_vocab_from(few, few_lens, 2, &v), 0);
	assert_int_equal(gr_grammar_compile(v, ENG_GRAMMAR_REGEX, "ab?c", 4, &g, &err), 0);
	assert_int_equal(eng_matcher_new(g, &m), 0);
	assert_int_equal(eng_matcher_apply(m, logits, 3, &err), 0);
	assert_true(logits[0] == 1 && logits[1] < -1e30f && logits[2] < -1e30f);
	assert_int_equal(eng_matcher_accept(m, 1), -EINVAL); /* no text */
	assert_int_equal(eng_matcher_accept(m, 0), 0);
	assert_int_equal(eng_matcher_apply(m, logits, 3, &err), -EILSEQ);
	eng_matcher_free(m);
	eng_grammar_unref(g);
	gr_grammar_vocab_unref(v);
}

static void *use(void *arg)
{
	struct eng_grammar *g = arg;

	for (int i = 0; i < 60; i++) {
		struct eng_matcher *m = NULL;
		static const char text[] = "{\"name\": [\"ab\", {\"k\": 1.5}], \"other\": null}";
		uint32_t n = 0;

		if (eng_matcher_new(g, &m) < 0)
			return g;
		for (size_t k = 0; k + 1 < sizeof(text); k++) {
			const uint64_t *mask = eng_matcher_mask(m, &n);

			if (!mask || !has(mask, (uint8_t)text[k]) || eng_matcher_accept(m, (uint8_t)text[k]) < 0)
				return g;
		}
		eng_matcher_free(m);
	}
	return NULL;
}

static void a_grammar_serves_several_threads(void **state)
{
	struct eng_grammar *g = compile(ENG_GRAMMAR_JSON_SCHEMA,
	                                "{\"type\":\"object\",\"properties\":{\"name\":{\"type\":\"array\"}}}");
	pthread_t threads[4];
	void *result;

	(void)state;
	for (int i = 0; i < 4; i++)
		assert_int_equal(pthread_create(&threads[i], NULL, use, g), 0);
	for (int i = 0; i < 4; i++) {
		assert_int_equal(pthread_join(threads[i], &result), 0);
		assert_null(result);
	}
	eng_grammar_unref(g);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_text_follows_its_grammar_to_the_end),
		cmocka_unit_test(white_space_is_bounded),
		cmocka_unit_test(nesting_ends_at_a_limit),
		cmocka_unit_test(long_outputs_stay_cheap),
		cmocka_unit_test(what_the_vocabulary_cannot_spell_is_an_error),
		cmocka_unit_test(a_grammar_serves_several_threads),
	};

	return cmocka_run_group_tests(tests, grammar_setup, grammar_teardown);
}
