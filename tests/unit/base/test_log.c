#include "base/log.h"

#include <errno.h>
#include <pthread.h>

#include "test.h"

struct seen {
	unsigned n_lines;
	unsigned n_inside; /* the sink is called one line at a time */
	unsigned n_overlaps;
	enum base_log_level level;
	char line[4096];
};

static void collect(void *arg, enum base_log_level level, const char *line)
{
	struct seen *s = arg;

	if (s->n_inside++)
		s->n_overlaps++;
	s->n_lines++;
	s->level = level;
	(void)snprintf(s->line, sizeof(s->line), "%s", line);
	s->n_inside--;
}

static int restore(void **state)
{
	(void)state;
	base_log_set_sink(NULL, NULL);
	base_log_set_level(BASE_LOG_INFO);
	return 0;
}

static void the_sink_gets_finished_lines(void **state)
{
	struct seen s = { 0 };

	(void)state;
	base_log_set_sink(collect, &s);
	base_log(BASE_LOG_WARN, "layer %s: %d", "x", 3);
	assert_int_equal(s.n_lines, 1);
	assert_int_equal(s.level, BASE_LOG_WARN);
	assert_string_equal(s.line, "layer x: 3");
}

static void the_level_decides(void **state)
{
	struct seen s = { 0 };

	(void)state;
	base_log_set_sink(collect, &s);
	base_log(BASE_LOG_DEBUG, "not by default");
	base_log(BASE_LOG_INFO, "by default");
	assert_int_equal(s.n_lines, 1);
	base_log_set_level(BASE_LOG_ERROR);
	assert_false(base_log_enabled(BASE_LOG_WARN));
	assert_true(base_log_enabled(BASE_LOG_ERROR));
	base_log(BASE_LOG_WARN, "not now");
	assert_int_equal(s.n_lines, 1);
}

static void level_words_are_read(void **state)
{
	enum base_log_level level = BASE_LOG_INFO;
	struct err err = { 0 };

	(void)state;
	assert_int_equal(base_log_level_parse("debug", &level, NULL), 0);
	assert_int_equal(level, BASE_LOG_DEBUG);
	assert_int_equal(base_log_level_parse("loud", &level, &err), -EINVAL);
	assert_int_equal(level, BASE_LOG_DEBUG);
	assert_non_null(strstr(err_text(&err), "'loud'"));
}

static void a_very_long_line_is_cut(void **state)
{
	struct seen s = { 0 };
	char text[10000];

	(void)state;
	memset(text, 'x', sizeof(text) - 1);
	text[sizeof(text) - 1] = '\0';
	base_log_set_sink(collect, &s);
	base_log(BASE_LOG_INFO, "%s", text);
	assert_int_equal(s.n_lines, 1);
	assert_true(strlen(s.line) > 1000);
}

static void outside_text_stays_on_its_line(void **state)
{
	struct seen s = { 0 };

	(void)state;
	base_log_set_sink(collect, &s);
	errno = ENOENT;
	base_log(BASE_LOG_INFO, "file '%s'", "a\nerror: b\x1b[31m 中");
	assert_int_equal(errno, ENOENT);
	assert_string_equal(s.line, "file 'a?error: b?[31m 中'");
}

static void *write_lines(void *arg)
{
	(void)arg;
	for (int i = 0; i < 500; i++)
		base_log(BASE_LOG_INFO, "line %d", i);
	return NULL;
}

static void threads_take_turns(void **state)
{
	struct seen s = { 0 };
	pthread_t threads[4];

	(void)state;
	base_log_set_sink(collect, &s);
	for (int i = 0; i < 4; i++)
		assert_int_equal(pthread_create(&threads[i], NULL, write_lines, NULL), 0);
	for (int i = 0; i < 4; i++)
		assert_int_equal(pthread_join(threads[i], NULL), 0);
	assert_int_equal(s.n_lines, 2000);
	assert_int_equal(s.n_overlaps, 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_teardown(the_sink_gets_finished_lines, restore),
		cmocka_unit_test_teardown(the_level_decides, restore),
		cmocka_unit_test_teardown(outside_text_stays_on_its_line, restore),
		cmocka_unit_test(level_words_are_read),
		cmocka_unit_test_teardown(a_very_long_line_is_cut, restore),
		cmocka_unit_test_teardown(threads_take_turns, restore),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
