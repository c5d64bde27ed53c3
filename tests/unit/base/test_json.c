/* JSON glue: numbers that do not fit. */
#include "test.h"

#include <errno.h>

#include "base/json.h"

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

static void an_ordinary_document_keeps_its_integers(void **state)
{
	json_t *v = NULL;

	(void)state;
	assert_int_equal(base_json_parse("t", "[12]", 4, &v, NULL), 0);
	assert_true(json_is_integer(json_array_get(v, 0)));
	json_decref(v);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(an_integer_beyond_64_bits_makes_numbers_reals),
		cmocka_unit_test(an_ordinary_document_keeps_its_integers),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
