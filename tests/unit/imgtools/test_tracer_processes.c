/* The tracer: many processes, signals, programs that trace or listen themselves, time-outs. */
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <signal.h>
#include <spawn.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/time.h>

#include "tracer_test.h"

static int scenario_children(void)
{
	char *cat[] = { "cat", "dir/inner", NULL };
	int status, n_ok = 0;
	pid_t pid;

	for (int i = 0; i < 100; i++) {
		/* By vfork or clone, whichever the library takes. */
		if (posix_spawn(&pid, "/bin/cat", NULL, NULL, cat, environ) != 0)
			return 2;
		pid = fork();
		if (pid == 0)
			_exit(touch("file") < 0);
	}
	while (wait(&status) > 0)
		n_ok += status == 0;
	return n_ok == 200 ? 0 : 1;
}

static void children_are_told_apart(void **state)
{
	size_t files = 0, inner = 0;

	(void)state;
	run_scenario("children");
	assert_int_equal(img_trace_n_processes(trace), 201);
	for (size_t i = 0; i < img_trace_n_processes(trace); i++) {
		const struct img_trace_process *p = img_trace_process_at(trace, i);

		assert_int_equal(p->exit_code, 0);
		assert_int_equal(p->parent, i == 0 ? 0 : 1);
	}
	for (size_t i = 0; i < img_trace_count(trace); i++) {
		const struct img_trace_record *r = img_trace_at(trace, i);

		files += r->access == IMG_ACCESS_OPEN && strstr(r->path, "/file") != NULL;
		inner += r->access == IMG_ACCESS_OPEN && strstr(r->path, "/inner") != NULL;
	}
	assert_int_equal(files, 100);
	assert_int_equal(inner, 100);
}

static int scenario_signals(void)
{
	int status;
	pid_t pid = fork();

	if (pid == 0) {
		(void)raise(SIGSTOP);
		_exit(touch("file") < 0 ? 1 : 44);
	}
	if (waitpid(pid, &status, WUNTRACED) != pid || !WIFSTOPPED(status) || WSTOPSIG(status) != SIGSTOP)
		return 1;
	if (kill(pid, SIGCONT) < 0 || waitpid(pid, &status, 0) != pid || WEXITSTATUS(status) != 44)
		return 2;
	pid = fork();
	if (pid == 0)
		wait_here(NULL);
	if (kill(pid, SIGKILL) < 0 || waitpid(pid, &status, 0) != pid || !WIFSIGNALED(status))
		return 3;
	pid = fork();
	if (pid == 0) {
		(void)raise(SIGUSR1);
		_exit(0);
	}
	return waitpid(pid, &status, 0) == pid && WIFSIGNALED(status) && WTERMSIG(status) == SIGUSR1 ? 0 : 4;
}

static void signals_and_stops_reach_their_processes(void **state)
{
	(void)state;
	run_scenario("signals");
	HAS(OPEN, "file");
	assert_int_equal(img_trace_n_processes(trace), 4);
	assert_int_equal(img_trace_process_at(trace, 1)->exit_code, 44);
	assert_int_equal(img_trace_process_at(trace, 2)->exit_code, 128 + SIGKILL);
	assert_int_equal(img_trace_process_at(trace, 3)->exit_code, 128 + SIGUSR1);
}

static int scenario_ptrace(void)
{
	return ptrace(PTRACE_TRACEME, 0, 0, 0) == 0;
}

static void a_program_that_traces_is_named(void **state)
{
	(void)state;
	run_scenario("ptrace");
	assert_non_null(strstr(result.notes, "ptrace is used by the command itself"));
	assert_non_null(strstr(result.notes, "test_tracer"));
}

static void on_alarm(int sig)
{
}

/* A timer whose handler interrupts what can be interrupted. */
static void set_timer(long us)
{
	struct itimerval timer = { { 0, us }, { 0, us } };

	(void)sigaction(SIGALRM, &(struct sigaction){ .sa_handler = on_alarm }, NULL);
	(void)setitimer(ITIMER_REAL, &timer, NULL);
}

/* Several processes at once, so that calls wait to be told of while signals come. */
static int scenario_interrupted(void)
{
	enum { N_PROCESSES = 4, N_CALLS = 400 };
	int status, n_ok = 0, fd;
	struct stat st;

	for (int i = 0; i < N_PROCESSES; i++) {
		if (fork() > 0)
			continue;
		set_timer(500);
		for (int k = 0; k < N_CALLS; k++) {
			if (stat("file", &st) < 0 || access("dir/inner", R_OK) < 0 || touch("file") < 0)
				_exit(1);
		}
		_exit(0);
	}
	while (wait(&status) > 0)
		n_ok += status == 0;
	if (n_ok != N_PROCESSES)
		return 1;
	/* What waits for others is interrupted as ever. */
	if (mkfifo("pipe", 0600) < 0)
		return 2;
	set_timer(20000);
	for (int i = 0; i < 3; i++) {
		fd = open("pipe", O_RDONLY);
		if (fd >= 0 || errno != EINTR)
			return 3;
	}
	return 0;
}

static void signals_do_not_fail_calls(void **state)
{
	(void)state;
	run_scenario("interrupted");
	HAS(OPEN, "file");
	HAS(CREATE, "pipe");
}

/* A filter that would tell of one call that nobody makes. */
static int scenario_listener(void)
{
	struct sock_filter code[] = {
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_acct, 0, 1),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_USER_NOTIF),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
	};
	struct sock_fprog prog = { 4, code };
	long fd;

	if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0)
		return 1;
	fd = syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, SECCOMP_FILTER_FLAG_NEW_LISTENER, &prog);
	if (fd < 0)
		return errno == EBUSY ? 10 : 2;
	return touch("file") < 0 ? 3 : 11;
}

static void a_program_that_listens_needs_stops(void **state)
{
	const char *argv[] = { self, "--scenario", "listener", base, NULL };

	(void)state;
	assert_int_equal(run_method(argv, (struct img_run){ .null_stdin = true }), 0);
	if (result.exit_code == 10) {
		assert_int_equal(method, IMG_TRACE_PTRACE);
		assert_non_null(strstr(result.notes, "seccomp notifications are used by the command itself"));
		assert_non_null(strstr(result.notes, "--method stops"));
	} else {
		assert_int_equal(result.exit_code, 11);
		assert_string_equal(result.notes, "");
		HAS(OPEN, "file");
	}
	if (method == IMG_TRACE_STOPS)
		assert_int_equal(result.exit_code, 11);
}

static int scenario_leftovers(void)
{
	if (fork() == 0) {
		(void)sleep(600);
		_exit(0);
	}
	return 0;
}

static void a_time_out_ends_all_processes_of_the_host(void **state)
{
	const char *argv[] = { self, "--scenario", "leftovers", base, NULL };
	const char *shell[] = { "sh", "-c", "sleep 600 & sleep 600", NULL };

	(void)state;
	(void)argv;
	assert_int_equal(run_method(shell, (struct img_run){ .timeout_ms = 300, .null_stdin = true }), 0);
	assert_true(result.timed_out);
	assert_int_equal(result.exit_code, 128 + SIGKILL);
}

static const struct scenario scenarios[] = {
	{ "children", scenario_children },       { "signals", scenario_signals },   { "ptrace", scenario_ptrace },
	{ "interrupted", scenario_interrupted }, { "listener", scenario_listener }, { "leftovers", scenario_leftovers },
};

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
		TEST(children_are_told_apart),
		TEST(signals_and_stops_reach_their_processes),
		TEST(a_program_that_traces_is_named),
		TEST(signals_do_not_fail_calls),
		TEST(a_program_that_listens_needs_stops),
		TEST(a_time_out_ends_all_processes_of_the_host),
	};

	return TRACER_MAIN(argc, argv);
}
