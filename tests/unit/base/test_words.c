/* Words of a command line. */
#include "base/words.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "test.h"

static void words_are_split_as_a_shell_does(void **state)
{
	static const struct {
		const char *text;
		size_t n;
		const char *words[4];
	} cases[] = {
		{ "", 0, { NULL } },
		{ " \t\n ", 0, { NULL } },
		{ "a", 1, { "a" } },
		{ "  a  b\tc ", 3, { "a", "b", "c" } },
		{ "'a b' \"c d\"", 2, { "a b", "c d" } },
		{ "a'b'\"c\"d", 1, { "abcd" } },
		{ "'' x", 2, { "", "x" } },
		{ "a\\ b", 1, { "a b" } },
		{ "'a\\b' \"a\\b\" \"a\\\"b\"", 3, { "a\\b", "a\\b", "a\"b" } },
		{ "$HOME ${X} `y` *", 4, { "$HOME", "${X}", "`y`", "*" } },
		{ "a\\", 1, { "a\\" } },
	};

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		char **words = NULL;
		size_t n = 99;

		assert_int_equal(base_words_split(cases[i].text, &words, &n), 0);
		assert_int_equal(n, cases[i].n);
		for (size_t k = 0; k < n; k++)
			assert_string_equal(words[k], cases[i].words[k]);
		assert_null(words[n]);
		base_words_free(words);
	}
}

static void an_open_quote_and_too_many_words_are_refused(void **state)
{
	char **words = NULL, *many;
	size_t n = 7;

	(void)state;
	assert_int_equal(base_words_split("a 'b", &words, &n), -EINVAL);
	assert_int_equal(base_words_split("\"", &words, &n), -EINVAL);
	many = malloc(2 * 4096 + 1);
	assert_non_null(many);
	for (size_t i = 0; i < 4096; i++)
		memcpy(many + 2 * i, "x ", 2);
	many[2 * 4096] = 0;
	assert_int_equal(base_words_split(many, &words, &n), -E2BIG);
	assert_null(words);
	assert_int_equal(n, 7); /* outputs stay untouched on failure */
	many[2 * 4095] = 0;
	assert_int_equal(base_words_split(many, &words, &n), 0);
	assert_int_equal(n, 4095);
	base_words_free(words);
	free(many);
	base_words_free(NULL);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(words_are_split_as_a_shell_does),
		cmocka_unit_test(an_open_quote_and_too_many_words_are_refused),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
