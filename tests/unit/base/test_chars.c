#include "base/chars.h"

#include "test.h"

static void hexadecimal_digits_have_values(void **state)
{
	static const char digits[] = "0123456789abcdef", large[] = "0123456789ABCDEF";

	(void)state;
	for (int c = -1; c < 256; c++) {
		const char *a = c > 0 ? strchr(digits, c) : NULL, *b = c > 0 ? strchr(large, c) : NULL;

		assert_int_equal(base_hex_value(c), a ? a - digits : b ? b - large : -1);
	}
	assert_int_equal(base_hex4("0000"), 0);
	assert_int_equal(base_hex4("fFfE"), 0xfffe);
	assert_int_equal(base_hex4("12g4"), -1);
	assert_int_equal(base_hex4("1\xff"
	                           "34"),
	                 -1);
}

static void code_points_become_bytes(void **state)
{
	static const struct {
		uint32_t cp;
		const char *text;
	} cases[] = { { 'a', "a" },
		      { 0x7f, "\x7f" },
		      { 0x80, "\xc2\x80" },
		      { 0x7ff, "\xdf\xbf" },
		      { 0x800, "\xe0\xa0\x80" },
		      { 0xd800, "\xed\xa0\x80" },
		      { 0x4e2d, "\xe4\xb8\xad" },
		      { 0xffff, "\xef\xbf\xbf" },
		      { 0x10000, "\xf0\x90\x80\x80" },
		      { 0x1f600, "\xf0\x9f\x98\x80" },
		      { 0x10ffff, "\xf4\x8f\xbf\xbf" } };
	char out[4];

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		assert_int_equal(base_utf8_put(cases[i].cp, out), strlen(cases[i].text));
		assert_memory_equal(out, cases[i].text, strlen(cases[i].text));
	}
	assert_int_equal(base_utf8_put(0, out), 1);
	assert_int_equal(out[0], 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(hexadecimal_digits_have_values),
		cmocka_unit_test(code_points_become_bytes),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
