/* The read-only tools over the system's facts, on the fixture trees and on a journal made here. */
#include "test.h"

#include <errno.h>
#include <sys/stat.h>
#include <unistd.h>

#include "tools/tools.h"

/* Runs a tool with JSON arguments; what it says, or the error's words, in a static buffer. */
static const char *run(const char *name, const char *args_text, const char *root, bool chinese, int want)
{
	static char said[AG_TOOLS_MAX_OUTPUT + 1];
	const struct ag_tools_context context = { .root = root, .chinese = chinese };
	struct base_buf out = BASE_BUF_INIT(AG_TOOLS_MAX_OUTPUT);
	json_t *args = json_loads(args_text, 0, NULL);
	struct err err = { 0 };
	int r = ag_tools_run(&context, name, args, &out, &err);

	(void)snprintf(said, sizeof(said), "%s", r < 0 ? err_text(&err) : base_buf_text(&out));
	if (r != want)
		print_error("%s %s: %d %s\n", name, args_text, r, said);
	assert_int_equal(r, want);
	json_decref(args);
	base_buf_done(&out);
	return said;
}

static void assert_holds(const char *text, const char *part)
{
	if (!strstr(text, part))
		print_error("expected \"%s\" in:\n%s\n", part, text);
	assert_non_null(strstr(text, part));
}

static void sections_are_shown_with_their_units(void **state)
{
	const char *said;

	(void)state;
	said = run("system_facts", "{\"section\":\"storage\"}", test_fixture("sys/server"), false, 0);
	assert_holds(said, "mounts");
	assert_holds(said, "GiB");
	said = run("system_facts", "{\"section\":\"host\"}", test_fixture("sys/server"), true, 0);
	assert_holds(said, "内核");
	assert_null(strchr(said, '\033'));
}

static void bad_arguments_are_words_for_the_model(void **state)
{
	static const struct {
		const char *tool, *args, *words;
	} cases[] = {
		{ "system_facts", "{}", "'section' is missing" },
		{ "system_facts", "{\"section\":\"everything\"}", "not one of the choices" },
		{ "perf_sample", "{\"seconds\":3600}", "out of range" },
		{ "perf_sample", "{\"seconds\":\"2\"}", "expected integer" },
		{ "unit_log", "{\"unit\":\"../../etc\"}", "is not the name of a unit" },
		{ "unit_log", "{\"unit\":\"x\",\"lines\":0}", "out of range" },
		{ "package_owner", "{\"path\":\"bin/sh\"}", "absolute path" },
		{ "package_history", "{\"n\":1}", "unknown argument" },
	};

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++)
		assert_holds(run(cases[i].tool, cases[i].args, NULL, false, -EINVAL), cases[i].words);
	assert_holds(run("nothing", "{}", NULL, false, -ENOENT), "there is no tool");
}

static void packages_without_a_database_are_a_note(void **state)
{
	const char *root = test_fixture("sys/server");

	(void)state;
	for (size_t i = 0; i < 2; i++) {
		(void)run("package_info", "{\"package\":\"bash\"}", root, i, 0);
		(void)run("package_owner", "{\"path\":\"/bin/sh\"}", root, i, 0);
		(void)run("package_verify", "{\"package\":\"bash\"}", root, i, 0);
		assert_true(strlen(run("package_history", "{}", root, i, 0)) > 20);
	}
}

static void a_units_lines_come_from_the_journal_oldest_first(void **state)
{
	static const char remote[] = "/lib/systemd/systemd-journal-remote";
	char dir[] = "/tmp/ocai-journal-XXXXXX", command[512], path[128];
	const char *said;
	FILE *f;

	(void)state;
	if (access(remote, X_OK) < 0)
		skip(); /* nothing here makes a journal */
	assert_non_null(mkdtemp(dir));
	(void)snprintf(path, sizeof(path), "%s/export", dir);
	f = fopen(path, "we");
	assert_non_null(f);
	for (int i = 1; i <= 60; i++)
		(void)fprintf(f,
		              "__REALTIME_TIMESTAMP=%d000000\n__MONOTONIC_TIMESTAMP=%d000000\n"
		              "_BOOT_ID=0123456789abcdef0123456789abcdef\n_SYSTEMD_UNIT=%s\nMESSAGE=line %d\n\n",
		              i, i, i % 2 ? "web.service" : "db.service", i);
	assert_int_equal(fclose(f), 0);
	(void)snprintf(command, sizeof(command),
	               "mkdir -p %s/var/log/journal %s/proc && %s -o %s/var/log/journal/x.journal %s >/dev/null 2>&1",
	               dir, dir, remote, dir, path);
	assert_int_equal(system(command), 0);
	said = run("unit_log", "{\"unit\":\"web\",\"lines\":3}", dir, false, 0);
	assert_string_equal(said, "line 55\nline 57\nline 59\n");
	said = run("unit_log", "{\"unit\":\"cron.service\"}", dir, true, 0);
	assert_string_equal(said, "cron.service 没有日志。\n");
	(void)snprintf(command, sizeof(command), "rm -rf %s/var/log/journal", dir);
	assert_int_equal(system(command), 0);
	assert_holds(run("unit_log", "{\"unit\":\"web\"}", dir, false, -ENOENT), "no journal here");
	(void)snprintf(command, sizeof(command), "rm -rf %s", dir);
	assert_int_equal(system(command), 0);
}

static void a_sample_of_this_machine_ends_in_findings(void **state)
{
	(void)state;
	assert_holds(run("perf_sample", "{\"seconds\":1}", NULL, false, 0), "findings");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(sections_are_shown_with_their_units),
		cmocka_unit_test(bad_arguments_are_words_for_the_model),
		cmocka_unit_test(packages_without_a_database_are_a_note),
		cmocka_unit_test(a_units_lines_come_from_the_journal_oldest_first),
		cmocka_unit_test(a_sample_of_this_machine_ends_in_findings),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
