#include "base/err.h"

#include <errno.h>

#include "test.h"

static void prefix_goes_in_front(void **state)
{
	struct err err = { 0 };

	(void)state;
	assert_int_equal(err_set(&err, -ENOENT, "config.json: %s", "missing"), -ENOENT);
	assert_int_equal(err_prefix(&err, -ENOENT, "model %s: ", "x"), -ENOENT);
	assert_string_equal(err_text(&err), "model x: config.json: missing");
}

static void null_err_is_accepted(void **state)
{
	(void)state;
	assert_int_equal(err_set(NULL, -EIO, "x"), -EIO);
	assert_int_equal(err_prefix(NULL, -EIO, "x"), -EIO);
}

static void a_long_message_is_cut_between_characters(void **state)
{
	struct err err = { 0 };
	char text[ERR_MSG_SIZE * 2];

	(void)state;
	for (size_t i = 0; i + 3 < sizeof(text); i += 3)
		memcpy(text + i, "\xe4\xbd\xa0", 4);
	err_set(&err, -EINVAL, "%s", text);
	assert_int_equal(strlen(err.msg) % 3, 0);
	assert_true(strlen(err.msg) > ERR_MSG_SIZE - 5);
}

static void prefix_without_words_uses_the_code(void **state)
{
	struct err err = { 0 };

	(void)state;
	err_prefix(&err, -ENOENT, "a: ");
	assert_string_equal(err_text(&err), "a: No such file or directory");
}

static void what_acts_on_a_terminal_is_taken_out(void **state)
{
	struct err err = { 0 };

	(void)state;
	err_set(&err, -EIO, "%s", "a\033[2Jb\nc\td\177e\302\233f 中文");
	assert_string_equal(err_text(&err), "a [2Jb c d?e?f 中文");
	err_prefix(&err, -EIO, "%s: ", "x\ry");
	assert_string_equal(err_text(&err), "x y: a [2Jb c d?e?f 中文");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(prefix_goes_in_front),
		cmocka_unit_test(null_err_is_accepted),
		cmocka_unit_test(a_long_message_is_cut_between_characters),
		cmocka_unit_test(prefix_without_words_uses_the_code),
		cmocka_unit_test(what_acts_on_a_terminal_is_taken_out),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
