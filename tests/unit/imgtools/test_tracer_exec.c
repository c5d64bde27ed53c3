/* The tracer: programs that become others, by descriptor, by script, in a thread, in vain; 32-bit ones. */
#include <pthread.h>
#include <sys/mman.h>
#include <sys/syscall.h>

#include "tracer_test.h"

static void *exec_here(void *arg)
{
	execl("/bin/sh", "sh", "-c", "cat file >/dev/null", NULL);
	return NULL;
}

static int scenario_thread_exec(void)
{
	pthread_t t;

	for (int i = 0; i < 5; i++)
		(void)pthread_create(&t, NULL, wait_here, NULL);
	if (pthread_create(&t, NULL, exec_here, NULL) != 0)
		return 1;
	(void)pthread_join(t, NULL);
	return 2;
}

static void an_exec_by_a_thread_is_the_processes_exec(void **state)
{
	const struct img_trace_process *p;

	(void)state;
	run_scenario("thread_exec");
	HAS(OPEN, "file");
	p = img_trace_process_at(trace, 0);
	assert_int_equal(p->pid, 1);
	assert_int_equal(p->exit_code, 0);
	assert_string_equal(p->cmdline, "sh -c 'cat file >/dev/null'");
	/* No thread became a process. */
	assert_true(img_trace_n_processes(trace) <= 2);
}

static int scenario_fexecve(void)
{
	char *argv[] = { "cat", "file", NULL };
	int fd = open("copy-of-cat", O_PATH | O_CLOEXEC);

	(void)fexecve(fd, argv, environ);
	return 1;
}

static void an_exec_by_descriptor_has_a_path(void **state)
{
	char command[128];

	(void)state;
	(void)snprintf(command, sizeof(command), "cp /bin/cat %s/copy-of-cat", base);
	assert_int_equal(test_shell(command), 0);
	run_scenario("fexecve");
	HAS(EXEC, "copy-of-cat");
	HAS(OPEN, "file");
}

static int scenario_script(void)
{
	execl("outer", "outer", NULL);
	return 1;
}

static void what_the_kernel_opens_is_recorded(void **state)
{
	char command[512];
	size_t kernel = 0;

	(void)state;
	(void)snprintf(command, sizeof(command),
	               "cd %s && printf '#! ./inner-script arg\\n' >outer && printf '#!/bin/sh\\nread x <file\\n' "
	               ">inner-script && "
	               "chmod 755 outer inner-script",
	               base);
	assert_int_equal(test_shell(command), 0);
	run_scenario("script");
	HAS(EXEC, "outer");
	HAS(KERNEL, "inner-script");
	HAS(OPEN, "file");
	for (size_t i = 0; i < img_trace_count(trace); i++) {
		const struct img_trace_record *r = img_trace_at(trace, i);

		if (r->access == IMG_ACCESS_KERNEL && !strstr(r->path, base)) {
			kernel++;
			assert_true(r->size > 0);
		}
	}
	/* The loader of this test; the shell, and its loader. Under one process they are the same file. */
	assert_true(kernel >= 2);
}

static int scenario_failing_exec(void)
{
	execl("file", "file", NULL); /* not executable */
	execl("missing", "missing", NULL);
	return touch("dir/inner") < 0;
}

static void an_exec_that_fails_is_only_a_look(void **state)
{
	(void)state;
	run_scenario("failing_exec");
	HAS_NOT(EXEC, "file");
	HAS(STAT, "file");
	HAS(MISS, "missing");
	HAS(OPEN, "dir/inner");
}

static int scenario_compat(void)
{
#ifdef __x86_64__
	/* A system call as 32-bit programs make it. */
	char *low = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_32BIT, -1, 0);
	long fd;

	if (low == MAP_FAILED)
		return 77;
	(void)snprintf(low, 4096, "file");
	__asm__ volatile("int $0x80"
	                 : "=a"(fd)
	                 : "0"(5L), "b"(low), "c"(0L), "d"(0L)
	                 : "memory", "r8", "r9", "r10", "r11");
	return fd == -ENOSYS ? 77 : fd < 0;
#else
	return 77;
#endif
}

static void calls_of_32_bit_programs_are_seen(void **state)
{
	const char *argv[] = { self, "--scenario", "compat", base, NULL };

	(void)state;
	assert_int_equal(run_method(argv, (struct img_run){ .null_stdin = true }), 0);
	if (result.exit_code == 77 || result.signal)
		skip(); /* this kernel has none */
	assert_int_equal(result.exit_code, 0);
	HAS(OPEN, "file");
}

static const struct scenario scenarios[] = {
	{ "thread_exec", scenario_thread_exec },   { "fexecve", scenario_fexecve }, { "script", scenario_script },
	{ "failing_exec", scenario_failing_exec }, { "compat", scenario_compat },
};

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
		TEST(an_exec_by_a_thread_is_the_processes_exec), TEST(an_exec_by_descriptor_has_a_path),
		TEST(what_the_kernel_opens_is_recorded),         TEST(an_exec_that_fails_is_only_a_look),
		TEST(calls_of_32_bit_programs_are_seen),
	};

	return TRACER_MAIN(argc, argv);
}
