#include <errno.h>
#include <string.h>

#include "base/library.h"
#include "test.h"

static double (*cosine)(double);
static double (*root)(double);

static void functions_are_found_by_name(void **state)
{
	const struct base_symbol symbols[] = { { "cos", &cosine }, { "sqrt", &root } };
	struct err err = { 0 };

	(void)state;
	assert_int_equal(base_library_load("libm.so.6", symbols, 2, &err), 0);
	assert_true(cosine(0) == 1 && root(9) == 3);
	assert_int_equal(err.code, 0);
}

static void a_library_that_is_not_there_is_named(void **state)
{
	const struct base_symbol symbols[] = { { "cos", &cosine } };
	struct err err = { 0 };

	(void)state;
	assert_int_equal(base_library_load("libnothere.so.0", symbols, 1, &err), -ELIBACC);
	assert_non_null(strstr(err_text(&err), "libnothere.so.0"));
}

static void a_function_that_is_not_there_is_named(void **state)
{
	void *slot = NULL;
	const struct base_symbol symbols[] = { { "no_such_function", &slot } };
	struct err err = { 0 };

	(void)state;
	assert_int_equal(base_library_load("libm.so.6", symbols, 1, &err), -ELIBACC);
	assert_string_equal(err_text(&err), "libm.so.6 has no no_such_function");
	assert_null(slot);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(functions_are_found_by_name),
		cmocka_unit_test(a_library_that_is_not_there_is_named),
		cmocka_unit_test(a_function_that_is_not_there_is_named),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
