#include "base/json.h"

#include <errno.h>

#include "test.h"

static int parse(const char *text, json_t **ret, struct err *err)
{
	return base_json_parse("here", text, strlen(text), ret, err);
}

static void any_value_is_a_document(void **state)
{
	static const char *const texts[] = { "1", "\"x\"", "null", "[1,2]", "{\"a\":{\"b\":[true]}}", " 2.5 " };

	(void)state;
	for (size_t i = 0; i < sizeof(texts) / sizeof(texts[0]); i++) {
		json_t *v = NULL;

		assert_int_equal(parse(texts[i], &v, NULL), 0);
		json_decref(v);
	}
}

static void the_length_ends_the_text(void **state)
{
	json_t *v = NULL;

	(void)state;
	assert_int_equal(base_json_parse("here", "12]", 2, &v, NULL), 0);
	assert_int_equal(json_integer_value(v), 12);
	json_decref(v);
}

static void what_is_not_json_is_refused(void **state)
{
	static const char *const texts[] = { "",         "{",        "[1,]",     "{\"a\":1,\"a\":2}",
		                             "1 2",      "nul",      "\"\xff\"", "\"\\ud800\"",
		                             "{\"a\"1}", "\"a\nb\"", "[1}",      "{\"\\u00\":1}" };

	(void)state;
	for (size_t i = 0; i < sizeof(texts) / sizeof(texts[0]); i++) {
		struct err err = { 0 };
		json_t *v = NULL;

		assert_int_equal(parse(texts[i], &v, &err), -EBADMSG);
		assert_null(v);
		assert_memory_equal(err_text(&err), "here: line ", 11);
	}
}

static void nesting_has_a_limit(void **state)
{
	char text[2048];
	struct err err = { 0 };
	json_t *v = NULL;

	(void)state;
	memset(text, '[', 512);
	memset(text + 512, ']', 512);
	assert_int_equal(base_json_parse("here", text, 1024, &v, NULL), 0);
	json_decref(v);
	v = NULL;
	memset(text, '[', 513);
	memset(text + 513, ']', 513);
	assert_int_equal(base_json_parse("here", text, 1026, &v, &err), -EBADMSG);
	assert_non_null(strstr(err_text(&err), "512 levels"));
	/* Brackets in strings are no nesting. */
	memset(text, '[', 1000);
	text[0] = '"';
	text[999] = '"';
	assert_int_equal(base_json_parse("here", text, 1000, &v, NULL), 0);
	json_decref(v);
}

static void strings_are_written_so_that_they_can_be_read(void **state)
{
	static const char text[] = "q\" b\\ n\n t\t nul\0 del\x7f 中 \xf0\x9f\x98\x80 \xff\xed\xa0\x80 end";
	static const char want[] = "q\" b\\ n\n t\t nul\0 del\x7f 中 \xf0\x9f\x98\x80 "
	                           "\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd end";
	struct base_buf b = BASE_BUF_INIT(1000);
	json_t *v = NULL;

	(void)state;
	assert_int_equal(base_json_append_string(&b, text, sizeof(text) - 1), 0);
	assert_int_equal(base_json_parse("here", b.data, b.len, &v, NULL), 0);
	assert_int_equal(json_string_length(v), sizeof(want) - 1);
	assert_memory_equal(json_string_value(v), want, sizeof(want) - 1);
	json_decref(v);
	base_buf_done(&b);
}

static void written_json_is_compact(void **state)
{
	struct base_buf b = BASE_BUF_INIT(1000);
	json_t *v = NULL;

	(void)state;
	assert_int_equal(parse("{ \"a\" : [ 1, \"中/\" ] }", &v, NULL), 0);
	assert_int_equal(base_json_append(&b, v), 0);
	assert_string_equal(base_buf_text(&b), "{\"a\":[1,\"中/\"]}");
	base_buf_done(&b);
	base_buf_init(&b, 3);
	assert_int_equal(base_json_append(&b, v), -EFBIG);
	base_buf_done(&b);
	json_decref(v);
}

static json_t *object(void)
{
	json_t *v = NULL;

	assert_int_equal(
	        parse("{\"u\":7,\"f\":64.0,\"half\":0.5,\"neg\":-1,\"big\":4294967296,\"huge\":1e300,\"s\":\"x\","
	              "\"b\":true,\"n\":null,\"o\":{},\"a\":[]}",
	              &v, NULL),
	        0);
	return v;
}

static void getters_read_what_is_there(void **state)
{
	json_t *v = object(), *child = NULL;
	const char *s = NULL;
	uint32_t u = 0;
	int64_t i = 0;
	double d = 0;
	bool b = false;

	(void)state;
	assert_int_equal(base_json_get_u32(v, "here", "u", &u, NULL), 0);
	assert_int_equal(u, 7);
	assert_int_equal(base_json_opt_u32(v, "here", "f", &u, NULL), 1); /* 64.0 is what some languages send for 64 */
	assert_int_equal(u, 64);
	assert_int_equal(base_json_opt_i64(v, "here", "neg", &i, NULL), 1);
	assert_int_equal(i, -1);
	assert_int_equal(base_json_opt_double(v, "here", "u", &d, NULL), 1);
	assert_true(d == 7);
	assert_int_equal(base_json_opt_bool(v, "here", "b", &b, NULL), 1);
	assert_true(b);
	assert_int_equal(base_json_get_string(v, "here", "s", &s, NULL), 0);
	assert_string_equal(s, "x");
	assert_int_equal(base_json_get_object(v, "here", "o", &child, NULL), 0);
	assert_int_equal(base_json_get_array(v, "here", "a", &child, NULL), 0);
	assert_int_equal(base_json_opt_object(v, "here", "o", &child, NULL), 1);
	assert_int_equal(base_json_opt_array(v, "here", "a", &child, NULL), 1);
	json_decref(v);
}

static void missing_and_null_leave_the_default(void **state)
{
	json_t *v = object();
	struct err err = { 0 };
	uint32_t u = 5;
	const char *s = "kept";

	(void)state;
	assert_int_equal(base_json_opt_u32(v, "here", "absent", &u, NULL), 0);
	assert_int_equal(base_json_opt_u32(v, "here", "n", &u, NULL), 0);
	assert_int_equal(base_json_opt_string(v, "here", "n", &s, NULL), 0);
	assert_int_equal(u, 5);
	assert_string_equal(s, "kept");
	assert_int_equal(base_json_get_u32(v, "here", "absent", &u, &err), -ENOENT);
	assert_string_equal(err_text(&err), "here: absent: missing");
	/* Of no object nothing is to be had. */
	assert_int_equal(base_json_opt_u32(NULL, "here", "u", &u, NULL), 0);
	json_decref(v);
}

static void the_wrong_type_is_named(void **state)
{
	json_t *v = object();
	struct err err = { 0 };
	const char *s = NULL;
	uint32_t u = 5;
	int64_t i = 6;

	(void)state;
	assert_int_equal(base_json_get_u32(v, "here", "s", &u, &err), -EINVAL);
	assert_string_equal(err_text(&err), "here: s: expected an integer, got a string");
	assert_int_equal(base_json_opt_u32(v, "here", "half", &u, NULL), -EINVAL);
	assert_int_equal(base_json_opt_i64(v, "here", "huge", &i, NULL), -EINVAL);
	assert_int_equal(base_json_opt_u32(v, "here", "neg", &u, NULL), -ERANGE);
	assert_int_equal(base_json_opt_u32(v, "here", "big", &u, NULL), -ERANGE);
	assert_int_equal(base_json_opt_string(v, "here", "o", &s, &err), -EINVAL);
	assert_string_equal(err_text(&err), "here: o: expected a string, got an object");
	assert_int_equal(u, 5);
	assert_int_equal(i, 6);
	json_decref(v);
}

static void files_are_read_with_a_limit(void **state)
{
	const char *path = test_fixture("models/qwen3/config.json");
	struct err err = { 0 };
	json_t *v = NULL;

	(void)state;
	assert_int_equal(base_json_read_file(path, 1 << 20, &v, NULL), 0);
	assert_true(json_is_object(v));
	json_decref(v);
	assert_int_equal(base_json_read_file(path, 10, &v, &err), -EFBIG);
	assert_non_null(strstr(err_text(&err), "10 bytes"));
	assert_int_equal(base_json_read_file("/nonexistent.json", 10, &v, &err), -ENOENT);
	assert_non_null(strstr(err_text(&err), "/nonexistent.json"));
}

static void an_integer_beyond_64_bits_makes_numbers_reals(void **state)
{
	static const char text[] = "{\"model_max_length\":1000000000000000019884624838656,\"n\":12,\"s\":\"x\"}";
	json_t *v = NULL;
	uint32_t n = 0;

	(void)state;
	assert_int_equal(base_json_parse("t", text, sizeof(text) - 1, &v, NULL), 0);
	assert_int_equal(base_json_get_u32(v, "t", "n", &n, NULL), 0);
	assert_int_equal(n, 12);
	assert_int_equal(base_json_get_u32(v, "t", "model_max_length", &n, NULL), -EINVAL);
	json_decref(v);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(any_value_is_a_document),
		cmocka_unit_test(the_length_ends_the_text),
		cmocka_unit_test(what_is_not_json_is_refused),
		cmocka_unit_test(nesting_has_a_limit),
		cmocka_unit_test(an_integer_beyond_64_bits_makes_numbers_reals),
		cmocka_unit_test(strings_are_written_so_that_they_can_be_read),
		cmocka_unit_test(written_json_is_compact),
		cmocka_unit_test(getters_read_what_is_there),
		cmocka_unit_test(missing_and_null_leave_the_default),
		cmocka_unit_test(the_wrong_type_is_named),
		cmocka_unit_test(files_are_read_with_a_limit),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
