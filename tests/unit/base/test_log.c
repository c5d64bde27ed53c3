#include "base/log.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "log_internal.h"
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

/* ---- The journal -------------------------------------------------------------------------------------------- */

/* Stands where the journal would: a bound datagram socket. */
struct journal {
	char dir[64], path[96];
	int fd;
};

static void journal_open(struct journal *j)
{
	struct sockaddr_un sun = { .sun_family = AF_UNIX };

	(void)snprintf(j->dir, sizeof(j->dir), "/tmp/test_log.XXXXXX");
	assert_non_null(mkdtemp(j->dir));
	(void)snprintf(j->path, sizeof(j->path), "%s/socket", j->dir);
	(void)snprintf(sun.sun_path, sizeof(sun.sun_path), "%s", j->path);
	j->fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	assert_return_code(bind(j->fd, (struct sockaddr *)&sun, sizeof(sun)), errno);
}

static void journal_close(struct journal *j)
{
	(void)close(j->fd);
	(void)unlink(j->path);
	(void)rmdir(j->dir);
}

/* The entry behind its thread's number, which the test does not know. */
static void expect_entry(struct journal *j, const char *before_tid, const char *after_tid)
{
	char text[65536], *tid, *rest;
	ssize_t n = recv(j->fd, text, sizeof(text) - 1, 0);

	assert_true(n > 0);
	text[n] = '\0';
	tid = strstr(text, "\nTID=");
	assert_non_null(tid);
	rest = strchr(tid + 1, '\n');
	assert_non_null(rest);
	assert_int_equal(atoll(tid + 5), gettid());
	tid[1] = '\0';
	assert_string_equal(text, before_tid);
	assert_string_equal(rest + 1, after_tid);
}

static void the_journal_gets_level_name_and_fields(void **state)
{
	const struct base_log_field fields[] = { { "FLIP_LAYER", "sha256:ab" }, { "FLIP_NONE", NULL }, { 0 } };
	struct journal j;
	char want[256];

	(void)state;
	journal_open(&j);
	assert_int_equal(base_log_journal_send(j.path, BASE_LOG_WARN, "layer: \xe4\xb8\xad", fields), 0);
	(void)snprintf(want, sizeof(want), "MESSAGE=layer: \xe4\xb8\xad\nPRIORITY=4\nSYSLOG_IDENTIFIER=%s\n",
	               program_invocation_short_name);
	expect_entry(&j, want, "FLIP_LAYER=sha256:ab\n");
	assert_int_equal(base_log_journal_send(j.path, BASE_LOG_ERROR, "x", NULL), 0);
	(void)snprintf(want, sizeof(want), "MESSAGE=x\nPRIORITY=3\nSYSLOG_IDENTIFIER=%s\n",
	               program_invocation_short_name);
	expect_entry(&j, want, "");
	journal_close(&j);
}

static void nobody_adds_a_field_to_an_entry(void **state)
{
	char long_value[9000];
	const struct base_log_field fields[] = {
		{ "OCAI_A", "1\nPRIORITY=0" },
		{ "_UID", "0" },
		{ "ocai_b", "2" },
		{ "OCAI=C", "3" },
		{ "", "4" },
		{ "OCAI_LONG", long_value },
		{ "OCAI_D", "5" },
		{ 0 },
	};
	struct journal j;
	char want[256];

	(void)state;
	memset(long_value, 'x', sizeof(long_value) - 1);
	long_value[sizeof(long_value) - 1] = '\0';
	journal_open(&j);
	assert_int_equal(base_log_journal_send(j.path, BASE_LOG_INFO, "a\nPRIORITY=0", fields), 0);
	(void)snprintf(want, sizeof(want), "MESSAGE=a?PRIORITY=0\nPRIORITY=6\nSYSLOG_IDENTIFIER=%s\n",
	               program_invocation_short_name);
	expect_entry(&j, want, "OCAI_A=1?PRIORITY=0\nOCAI_D=5\n");
	journal_close(&j);
}

static void an_absent_journal_is_an_error(void **state)
{
	(void)state;
	assert_int_equal(base_log_journal_send("/nonexistent/socket", BASE_LOG_INFO, "x", NULL), -ENOENT);
}

/* stderr goes to a file while fn runs; what it then holds. */
static void stderr_of(const char *stream, void (*fn)(void), char *text, size_t size)
{
	FILE *f = tmpfile();
	int saved = dup(STDERR_FILENO);
	char own[64];
	struct stat st;
	size_t n;

	assert_non_null(f);
	(void)fflush(stderr);
	assert_return_code(dup2(fileno(f), STDERR_FILENO), errno);
	assert_return_code(fstat(STDERR_FILENO, &st), errno);
	(void)snprintf(own, sizeof(own), "%llu:%llu", (unsigned long long)st.st_dev, (unsigned long long)st.st_ino);
	(void)setenv("JOURNAL_STREAM", stream ? stream : own, 1);
	fn();
	(void)fflush(stderr);
	(void)unsetenv("JOURNAL_STREAM");
	(void)dup2(saved, STDERR_FILENO);
	(void)close(saved);
	rewind(f);
	n = fread(text, 1, size - 1, f);
	text[n] = '\0';
	(void)fclose(f);
}

static void log_one(void)
{
	base_log_with(BASE_LOG_WARN, (const struct base_log_field[]){ { "OCAI_A", "1" }, { 0 } }, "a line");
}

static void stderr_that_is_not_the_journal_gets_words(void **state)
{
	char text[256];

	(void)state;
	stderr_of("1:2", log_one, text, sizeof(text));
	assert_string_equal(text, "warn: a line\n");
	stderr_of("nonsense", log_one, text, sizeof(text));
	assert_string_equal(text, "warn: a line\n");
	/* This one is: but where no journal listens the line is not lost. */
	if (access(BASE_LOG_JOURNAL_SOCKET, F_OK) == 0)
		return;
	stderr_of(NULL, log_one, text, sizeof(text));
	assert_string_equal(text, "<4>a line\n");
}

static void fields_are_for_the_journal_alone(void **state)
{
	struct seen s = { 0 };

	(void)state;
	base_log_set_sink(collect, &s);
	log_one();
	assert_string_equal(s.line, "a line");
	assert_int_equal(s.level, BASE_LOG_WARN);
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
		cmocka_unit_test(the_journal_gets_level_name_and_fields),
		cmocka_unit_test(nobody_adds_a_field_to_an_entry),
		cmocka_unit_test(an_absent_journal_is_an_error),
		cmocka_unit_test(stderr_that_is_not_the_journal_gets_words),
		cmocka_unit_test_teardown(fields_are_for_the_journal_alone, restore),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
