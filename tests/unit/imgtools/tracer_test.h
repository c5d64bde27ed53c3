/* What the tests of the tracer share: a test program runs itself as the traced command, once per scenario, and looks
 * whether the records tell what the scenario did. All of it once with calls told of by notifications and once by stops.
 */
#ifndef TRACER_TEST_H
#define TRACER_TEST_H

#include <errno.h>
#include <fcntl.h>
#include <unistd.h>

#include "test_root.h"

#include "trace/tracer.h"

static char self[4096], base[64]; /* this program; the folder of a scenario */
static struct img_trace *trace;
static struct img_run_result result;
static enum img_trace_method method; /* of the tests at hand */

/* ---- Looking at the records --------------------------------------------------------------------------------- */

static inline const struct img_trace_record *find(enum img_access access, const char *path)
{
	for (size_t i = 0; i < img_trace_count(trace); i++) {
		const struct img_trace_record *r = img_trace_at(trace, i);

		if (r->access == access && strcmp(r->path, path) == 0)
			return r;
	}
	return NULL;
}

/* The same, below the folder of the scenario. */
static inline const struct img_trace_record *find_here(enum img_access access, const char *name)
{
	char path[4200];

	(void)snprintf(path, sizeof(path), "%s/%s", base, name);
	return find(access, path);
}

#define HAS(access, name) assert_non_null(find_here(IMG_ACCESS_##access, name))
#define HAS_NOT(access, name) assert_null(find_here(IMG_ACCESS_##access, name))

/* ---- Running ---------------------------------------------------------------------------------------------- */

static inline int run_method(const char *const *argv, struct img_run run)
{
	struct err err = { 0 };
	int r;

	run.argv = argv;
	run.capture = true;
	run.timeout_ms = run.timeout_ms ? run.timeout_ms : 60000;
	r = img_trace_run(&run, method, &trace, &result, &err);
	if (r < 0)
		print_message("%s\n", err_text(&err));
	return r;
}

/* Runs one scenario of this binary; its exit status must be 0. */
static inline void run_scenario(const char *name)
{
	const char *argv[] = { self, "--scenario", name, base, NULL };

	assert_int_equal(run_method(argv, (struct img_run){ .null_stdin = true }), 0);
	if (result.exit_code != 0)
		fail_msg("scenario %s: status %d: %s%s", name, result.exit_code, base_buf_text(&result.out),
		         base_buf_text(&result.errors));
}

static inline int set_up(void **state)
{
	char command[1024];

	(void)state;
	(void)snprintf(base, sizeof(base), "/tmp/test-tracer-XXXXXX");
	if (!mkdtemp(base))
		return -1;
	(void)snprintf(
	        command, sizeof(command),
	        "cd %s && mkdir -p dir/sub jail/etc && echo data >file && echo x >dir/inner && echo y >dir/sub/deep && "
	        "ln -s dir link && ln -s link/sub chain && ln -s %s/file absolute && ln -s loop loop && "
	        "echo in >jail/etc/inside && ln -s /etc/inside jail/inside && chmod 755 .",
	        base, base);
	return test_shell(command) == 0 ? 0 : -1;
}

static inline int tear_down(void **state)
{
	char command[128];

	(void)state;
	img_trace_free(trace);
	trace = NULL;
	img_run_result_done(&result);
	(void)snprintf(command, sizeof(command), "rm -rf %s", base);
	return test_shell(command) == 0 ? 0 : -1;
}

static inline int touch(const char *path)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC);

	if (fd < 0)
		return -1;
	(void)close(fd);
	return 0;
}

/* A thread, or a process, that ends only by a signal. */
static inline void *wait_here(void *arg)
{
	while (pause() < 0)
		;
	return NULL;
}

/* ---- The program's main --------------------------------------------------------------------------------------- */

struct scenario {
	const char *name;
	int (*run)(void); /* 0: it did what it should */
};

/* The traced command: in its folder, without the leak check at the end, which is a tracer itself. */
static inline int be_scenario(const struct scenario *scenarios, size_t n, const char *name, const char *dir)
{
	if (chdir(dir) < 0)
		_exit(99);
	for (size_t i = 0; i < n; i++) {
		if (strcmp(scenarios[i].name, name) == 0)
			_exit(scenarios[i].run());
	}
	_exit(98);
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, set_up, tear_down)

/* `scenarios` may be empty. */
static inline int tracer_main(int argc, char **argv, const struct scenario *scenarios, size_t n_scenarios,
                              const struct CMUnitTest *tests, size_t n_tests)
{
	int failed;

	if (argc == 4 && strcmp(argv[1], "--scenario") == 0)
		return be_scenario(scenarios, n_scenarios, argv[2], argv[3]);
	if (readlink("/proc/self/exe", self, sizeof(self) - 1) <= 0)
		return 1;
	method = IMG_TRACE_PTRACE;
	failed = _cmocka_run_group_tests("by notifications", tests, n_tests, NULL, NULL);
	method = IMG_TRACE_STOPS;
	return failed + _cmocka_run_group_tests("by stops", tests, n_tests, NULL, NULL);
}

#define TRACER_MAIN(argc, argv)                                                             \
	tracer_main(argc, argv, scenarios, sizeof(scenarios) / sizeof(scenarios[0]), tests, \
	            sizeof(tests) / sizeof(tests[0]))

#endif
