#include "base/buf.h"

#include <errno.h>

#include "test.h"

static void pieces_add_up(void **state)
{
	struct base_buf b = BASE_BUF_INIT(100);

	(void)state;
	assert_string_equal(base_buf_text(&b), "");
	assert_int_equal(base_buf_append(&b, "abc", 2), 0);
	assert_int_equal(base_buf_puts(&b, "cd"), 0);
	assert_int_equal(base_buf_putc(&b, 'e'), 0);
	assert_int_equal(base_buf_printf(&b, "%d-%s", 42, "x"), 0);
	assert_string_equal(base_buf_text(&b), "abcde42-x");
	assert_int_equal(b.len, 9);
	base_buf_done(&b);
}

static void the_ceiling_is_exact(void **state)
{
	struct base_buf b;

	(void)state;
	base_buf_init(&b, 4);
	assert_int_equal(base_buf_puts(&b, "abcd"), 0);
	assert_int_equal(base_buf_putc(&b, 'e'), -EFBIG);
	assert_string_equal(base_buf_text(&b), "abcd");
	base_buf_done(&b);
}

static void errors_stick_until_reset(void **state)
{
	struct base_buf b = BASE_BUF_INIT(4);

	(void)state;
	assert_int_equal(base_buf_puts(&b, "ab"), 0);
	assert_int_equal(base_buf_printf(&b, "%s", "too long"), -EFBIG);
	/* This one would fit, but a text with a hole is worse than none. */
	assert_int_equal(base_buf_putc(&b, 'c'), -EFBIG);
	assert_int_equal(base_buf_error(&b), -EFBIG);
	assert_string_equal(base_buf_text(&b), "ab");
	assert_null(base_buf_take(&b));
	base_buf_reset(&b);
	assert_int_equal(base_buf_puts(&b, "wxyz"), 0);
	assert_string_equal(base_buf_text(&b), "wxyz");
	base_buf_done(&b);
}

static void sizes_near_the_end_of_the_range_do_not_wrap(void **state)
{
	struct base_buf b = BASE_BUF_INIT(100);

	(void)state;
	assert_int_equal(base_buf_puts(&b, "x"), 0);
	assert_int_equal(base_buf_reserve(&b, SIZE_MAX), -EFBIG);
	base_buf_done(&b);
}

static void reserved_room_is_already_text(void **state)
{
	struct base_buf b = BASE_BUF_INIT(100);

	(void)state;
	assert_int_equal(base_buf_reserve(&b, 50), 0);
	assert_string_equal(base_buf_text(&b), "");
	assert_int_equal(b.len, 0);
	base_buf_done(&b);
}

static void taken_memory_is_the_callers(void **state)
{
	struct base_buf b = BASE_BUF_INIT(10);
	char *text;

	(void)state;
	text = base_buf_take(&b);
	assert_string_equal(text, "");
	free(text);
	assert_int_equal(base_buf_append(&b, "a\0b", 3), 0);
	text = base_buf_take(&b);
	assert_memory_equal(text, "a\0b", 4);
	assert_int_equal(b.len, 0);
	free(text);
	base_buf_done(&b);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(pieces_add_up),
		cmocka_unit_test(the_ceiling_is_exact),
		cmocka_unit_test(errors_stick_until_reset),
		cmocka_unit_test(sizes_near_the_end_of_the_range_do_not_wrap),
		cmocka_unit_test(reserved_room_is_already_text),
		cmocka_unit_test(taken_memory_is_the_callers),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
