/* The tracer against real programs: this binary runs itself as the traced command, once per scenario, and looks whether
 * the records tell what the scenario did. Scenarios run in the host's own root, some (of root only) in roots and
 * namespaces that they make. All of it once with calls told of by notifications and once by stops. */
#include <errno.h>
#include <fcntl.h>
#include <linux/filter.h>
#include <linux/openat2.h>
#include <linux/seccomp.h>
#include <pthread.h>
#include <signal.h>
#include <spawn.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/un.h>

#include "test_root.h"

#include "trace/tracer.h"

static char self[4096], base[64]; /* this program; the folder of a scenario */
static struct img_trace *trace;
static struct img_run_result result;
static enum img_trace_method method; /* of the tests at hand */

/* ---- Looking at the records --------------------------------------------------------------------------------- */

static const struct img_trace_record *find(enum img_access access, const char *path)
{
	for (size_t i = 0; i < img_trace_count(trace); i++) {
		const struct img_trace_record *r = img_trace_at(trace, i);

		if (r->access == access && strcmp(r->path, path) == 0)
			return r;
	}
	return NULL;
}

/* The same, below the folder of the scenario. */
static const struct img_trace_record *find_here(enum img_access access, const char *name)
{
	char path[4200];

	(void)snprintf(path, sizeof(path), "%s/%s", base, name);
	return find(access, path);
}

#define HAS(access, name) assert_non_null(find_here(IMG_ACCESS_##access, name))
#define HAS_NOT(access, name) assert_null(find_here(IMG_ACCESS_##access, name))

/* ---- Running ---------------------------------------------------------------------------------------------- */

static int run_method(const char *const *argv, struct img_run run)
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
static void run_scenario(const char *name)
{
	const char *argv[] = { self, "--scenario", name, base, NULL };

	assert_int_equal(run_method(argv, (struct img_run){ .null_stdin = true }), 0);
	if (result.exit_code != 0)
		fail_msg("scenario %s: status %d: %s%s", name, result.exit_code, base_buf_text(&result.out),
		         base_buf_text(&result.errors));
}

static int set_up(void **state)
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

static int tear_down(void **state)
{
	char command[128];

	(void)state;
	img_trace_free(trace);
	trace = NULL;
	img_run_result_done(&result);
	(void)snprintf(command, sizeof(command), "rm -rf %s", base);
	return test_shell(command) == 0 ? 0 : -1;
}

/* ---- Scenarios, each with its test -------------------------------------------------------------------------- */

static int touch(const char *path)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC);

	if (fd < 0)
		return -1;
	(void)close(fd);
	return 0;
}

static int scenario_paths(void)
{
	struct stat st;
	int dir, fd;

	if (chdir("dir") < 0 || touch("../dir/./sub//deep") < 0 || touch("inner") < 0)
		return 1;
	dir = open("..", O_RDONLY | O_DIRECTORY);
	if (dir < 0 || fchdir(dir) < 0 || touch("file") < 0 || stat("chain/deep", &st) < 0)
		return 2;
	fd = openat(dir, "absolute", O_RDONLY);
	if (fd < 0 || fstatat(dir, "link", &st, AT_SYMLINK_NOFOLLOW) < 0)
		return 3;
	if (touch("nothing/at/all") == 0 || touch("file/below") == 0 || touch("loop") == 0 || touch("") == 0)
		return 4;
	return access("dir/sub", R_OK) < 0 ? 5 : 0;
}

static void paths_are_followed_as_the_kernel_does(void **state)
{
	(void)state;
	run_scenario("paths");
	HAS(OPEN, "dir/sub/deep");
	HAS(OPEN, "dir/inner");
	HAS(OPEN, "file");
	HAS(STAT, "dir/sub/deep");
	HAS(READLINK, "chain");
	HAS(READLINK, "link");
	HAS(READLINK, "absolute");
	HAS(STAT, "link");
	HAS(STAT, "dir/sub");
	HAS(MISS, "nothing/at/all");
	HAS(MISS, "file/below");
	assert_int_equal(find_here(IMG_ACCESS_MISS, "nothing/at/all")->error, ENOENT);
	assert_int_equal(find_here(IMG_ACCESS_MISS, "file/below")->error, ENOTDIR);
	assert_int_equal(find_here(IMG_ACCESS_OPEN, "dir/inner")->size, 2);
	HAS_NOT(OPEN, "dir");
}

static int scenario_descriptors(void)
{
	struct open_how how = { .flags = O_RDONLY, .resolve = RESOLVE_IN_ROOT };
	int dir = open("dir", O_PATH | O_DIRECTORY), jail = open("jail", O_PATH | O_DIRECTORY), fd;
	char buf[4096], path[64];
	struct stat st;

	if (dir < 0 || jail < 0 || openat(dir, "sub/deep", O_RDONLY) < 0)
		return 1;
	if (fstatat(dir, "../file", &st, 0) < 0 || faccessat(dir, "inner", R_OK, 0) < 0)
		return 2;
	if (syscall(SYS_openat2, jail, "inside", &how, sizeof(how)) < 0)
		return 3;
	fd = open("dir", O_RDONLY | O_DIRECTORY);
	if (syscall(SYS_getdents64, fd, buf, sizeof(buf)) <= 0)
		return 4;
	fd = open("absolute", O_RDONLY);
	(void)snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	if (touch(path) < 0)
		return 5;
	(void)snprintf(path, sizeof(path), "/dev/fd/%d/sub/deep", dir);
	if (access("/dev/fd", F_OK) == 0 && touch(path) < 0)
		return 6;
	return readlink("link", buf, sizeof(buf)) < 0 ? 7 : 0;
}

static void descriptors_lead_to_their_paths(void **state)
{
	(void)state;
	run_scenario("descriptors");
	HAS(OPEN, "dir/sub/deep");
	HAS(STAT, "file");
	HAS(STAT, "dir/inner");
	HAS(READLINK, "jail/inside");
	HAS(OPEN, "jail/etc/inside");
	HAS(READDIR, "dir");
	assert_int_equal(find_here(IMG_ACCESS_OPEN, "file")->count, 2);
	HAS(READLINK, "link");
	for (size_t i = 0; i < img_trace_count(trace); i++)
		assert_null(strstr(img_trace_at(trace, i)->path, "/proc/"));
}

static int scenario_created(void)
{
	int fd = open("new", O_WRONLY | O_CREAT, 0644);

	if (fd < 0 || touch("new") < 0 || rename("new", "renamed") < 0 || touch("renamed") < 0 || touch("new") == 0)
		return 1;
	if (mkdir("made", 0755) < 0 || open("made/in", O_WRONLY | O_CREAT, 0644) < 0 || touch("made/in") < 0)
		return 2;
	if (symlink("../file", "made/link") < 0 || touch("made/link") < 0 || link("file", "hard") < 0 ||
	    touch("hard") < 0)
		return 3;
	if (unlink("renamed") < 0 || touch("renamed") == 0 || rename("dir", "moved") < 0 || touch("moved/inner") < 0)
		return 4;
	if (touch("link/inner") == 0 || open("dir/inner", O_WRONLY | O_TRUNC) >= 0)
		return 5;
	return open("file", O_WRONLY | O_CREAT | O_TRUNC, 0644) < 0 || touch("file") < 0 ? 6 : 0;
}

static void what_the_command_makes_is_no_need(void **state)
{
	(void)state;
	run_scenario("created");
	HAS(CREATE, "new");
	HAS(CREATE, "renamed");
	HAS(CREATE, "made");
	HAS(CREATE, "made/in");
	HAS(CREATE, "made/link");
	HAS(CREATE, "hard");
	HAS_NOT(OPEN, "new");
	HAS_NOT(OPEN, "renamed");
	HAS_NOT(OPEN, "made/in");
	HAS_NOT(OPEN, "hard");
	HAS(MISS, "new");
	HAS(MISS, "renamed");
	HAS(MISS, "dir/inner");
	HAS(CREATE, "moved");
	HAS(CREATE, "moved/inner");
	HAS(OPEN, "file"); /* through made/link and for the hard link, before it was overwritten */
	HAS(CREATE, "file");
}

static void *exec_here(void *arg)
{
	execl("/bin/sh", "sh", "-c", "cat file >/dev/null", NULL);
	return NULL;
}

static void *wait_here(void *arg)
{
	while (pause() < 0)
		;
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

static int scenario_sockets(void)
{
	struct sockaddr_un sun = { .sun_family = AF_UNIX, .sun_path = "socket" };
	int fd = socket(AF_UNIX, SOCK_STREAM, 0);

	if (bind(fd, (struct sockaddr *)&sun, sizeof(sun)) < 0 || listen(fd, 1) < 0)
		return 1;
	fd = socket(AF_UNIX, SOCK_STREAM, 0);
	(void)snprintf(sun.sun_path, sizeof(sun.sun_path), "no-socket");
	if (connect(fd, (struct sockaddr *)&sun, sizeof(sun)) == 0)
		return 2;
	(void)snprintf(sun.sun_path, sizeof(sun.sun_path), "old-socket");
	return connect(fd, (struct sockaddr *)&sun, sizeof(sun)) < 0 ? 3 : 0;
}

static void sockets_are_recorded(void **state)
{
	struct sockaddr_un sun = { .sun_family = AF_UNIX };
	int fd = socket(AF_UNIX, SOCK_STREAM, 0);

	(void)state;
	(void)snprintf(sun.sun_path, sizeof(sun.sun_path), "%s/old-socket", base);
	assert_int_equal(bind(fd, (struct sockaddr *)&sun, sizeof(sun)), 0);
	assert_int_equal(listen(fd, 1), 0);
	run_scenario("sockets");
	HAS(CREATE, "socket");
	HAS(MISS, "no-socket");
	HAS(CONNECT, "old-socket");
	(void)close(fd);
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

static int scenario_chroot(void)
{
	int status;
	pid_t pid = fork();

	if (pid == 0) {
		if (chroot("jail") < 0 || chdir("/") < 0)
			_exit(1);
		_exit(touch("/inside") < 0 || touch("etc/../../../etc/inside") < 0);
	}
	return waitpid(pid, &status, 0) == pid && status == 0 && touch("file") == 0 ? 0 : 1;
}

static void a_childs_chroot_is_seen_from_outside(void **state)
{
	(void)state;
	if (geteuid() != 0)
		skip();
	run_scenario("chroot");
	HAS(STAT, "jail");
	HAS(READLINK, "jail/inside");
	HAS(OPEN, "jail/etc/inside");
	HAS(OPEN, "file");
}

static int scenario_namespace(void)
{
	int status;
	pid_t pid = fork();

	if (pid == 0) {
		if (unshare(CLONE_NEWNS) < 0 || mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0)
			_exit(77);
		if (mount("dir", "jail", NULL, MS_BIND, NULL) < 0 || touch("jail/inner") < 0)
			_exit(1);
		if (mount("tmpfs", "dir/sub", "tmpfs", 0, NULL) < 0 || touch("dir/sub/deep") == 0 ||
		    open("dir/sub/fresh", O_WRONLY | O_CREAT, 0600) < 0)
			_exit(2);
		if (chroot("jail") < 0 || chdir("/") < 0 || touch("/sub/deep") < 0)
			_exit(3);
		_exit(0);
	}
	if (waitpid(pid, &status, 0) != pid || status != 0)
		return WIFEXITED(status) ? WEXITSTATUS(status) : 4;
	return touch("dir/sub/deep") < 0;
}

static void a_mount_namespace_of_a_child_is_mapped_back(void **state)
{
	const char *argv[] = { self, "--scenario", "namespace", base, NULL };

	(void)state;
	if (geteuid() != 0)
		skip();
	assert_int_equal(run_method(argv, (struct img_run){ .null_stdin = true }), 0);
	if (result.exit_code == 77)
		skip();
	assert_int_equal(result.exit_code, 0);
	HAS(OPEN, "dir/inner"); /* was opened as jail/inner */
	HAS_NOT(OPEN, "jail/inner");
	HAS_NOT(MISS, "dir/sub/deep"); /* hidden by a file system of the child's own */
	HAS_NOT(CREATE, "dir/sub/fresh");
	HAS(OPEN, "dir/sub/deep"); /* by the parent, and below the child's new root */
	assert_int_equal(find_here(IMG_ACCESS_OPEN, "dir/sub/deep")->pid != 0, 1);
}

static int scenario_user(void)
{
	if (setgid(65534) < 0 || setuid(65534) < 0)
		return 1;
	return touch("file") < 0;
}

static int scenario_own_namespace(void)
{
	if (unshare(CLONE_NEWNS) < 0 || mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0)
		return 77;
	if (mount("dir", "jail", NULL, MS_BIND, NULL) < 0 || mount("tmpfs", "dir/sub", "tmpfs", 0, NULL) < 0)
		return 1;
	return touch("jail/inner") < 0 || touch("dir/inner") < 0 || touch("dir/sub/deep") == 0;
}

static void a_command_that_leaves_its_namespace_is_mapped_back(void **state)
{
	const char *argv[] = { self, "--scenario", "own_namespace", base, NULL };

	(void)state;
	if (geteuid() != 0)
		skip();
	assert_int_equal(run_method(argv, (struct img_run){ .null_stdin = true }), 0);
	if (result.exit_code == 77)
		skip();
	assert_int_equal(result.exit_code, 0);
	assert_int_equal(find_here(IMG_ACCESS_OPEN, "dir/inner")->count, 2);
	HAS_NOT(OPEN, "jail/inner");
	HAS_NOT(MISS, "dir/sub/deep");
}

static void another_user_can_be_traced(void **state)
{
	(void)state;
	if (geteuid() != 0)
		skip();
	run_scenario("user");
	HAS(OPEN, "file");
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

static void a_command_in_a_root_is_traced_in_its_paths(void **state)
{
	const char *roots[1] = { test_root_dir }, *argv[] = { "script", NULL };

	(void)state;
	if (!test_has_namespaces() || test_root_make() < 0)
		skip();
	assert_int_equal(run_method(argv, (struct img_run){ .roots = roots, .n_roots = 1 }), 0);
	assert_int_equal(result.exit_code, 0);
	assert_string_equal(base_buf_text(&result.out), "deep\n");
	assert_non_null(find(IMG_ACCESS_EXEC, "/bin/script"));
	assert_non_null(find(IMG_ACCESS_KERNEL, "/bin/sh"));
	assert_non_null(find(IMG_ACCESS_EXEC, "/bin/cat"));
	assert_non_null(find(IMG_ACCESS_READLINK, "/data/absolute"));
	assert_non_null(find(IMG_ACCESS_READLINK, "/data/link"));
	assert_non_null(find(IMG_ACCESS_OPEN, "/data/deep/file"));
	assert_int_equal(find(IMG_ACCESS_OPEN, "/data/deep/file")->size, 5);
	assert_int_equal(img_trace_process_at(trace, 0)->pid, 1);
	assert_string_equal(img_trace_process_at(trace, 0)->program, "/bin/script");
	for (size_t i = 0; i < img_trace_count(trace); i++)
		assert_null(strstr(img_trace_at(trace, i)->path, test_root_dir));
	test_root_remove();
}

static void a_command_that_is_not_there_is_an_error(void **state)
{
	const char *argv[] = { "/no/such/command", NULL };

	(void)state;
	assert_int_equal(run_method(argv, (struct img_run){ 0 }), -ENOENT);
}

static const struct {
	const char *name;
	int (*run)(void);
} scenarios[] = {
	{ "paths", scenario_paths },
	{ "descriptors", scenario_descriptors },
	{ "created", scenario_created },
	{ "thread_exec", scenario_thread_exec },
	{ "children", scenario_children },
	{ "signals", scenario_signals },
	{ "ptrace", scenario_ptrace },
	{ "interrupted", scenario_interrupted },
	{ "listener", scenario_listener },
	{ "sockets", scenario_sockets },
	{ "fexecve", scenario_fexecve },
	{ "script", scenario_script },
	{ "compat", scenario_compat },
	{ "failing_exec", scenario_failing_exec },
	{ "chroot", scenario_chroot },
	{ "namespace", scenario_namespace },
	{ "own_namespace", scenario_own_namespace },
	{ "user", scenario_user },
	{ "leftovers", scenario_leftovers },
};

/* The traced command: in its folder, without the leak check at the end, which is a tracer itself. */
static int be_scenario(const char *name, const char *dir)
{
	if (chdir(dir) < 0)
		_exit(99);
	for (size_t i = 0; i < sizeof(scenarios) / sizeof(scenarios[0]); i++) {
		if (strcmp(scenarios[i].name, name) == 0)
			_exit(scenarios[i].run());
	}
	_exit(98);
}

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
#define TEST(f) cmocka_unit_test_setup_teardown(f, set_up, tear_down)
		TEST(paths_are_followed_as_the_kernel_does),
		TEST(descriptors_lead_to_their_paths),
		TEST(what_the_command_makes_is_no_need),
		TEST(an_exec_by_a_thread_is_the_processes_exec),
		TEST(children_are_told_apart),
		TEST(signals_and_stops_reach_their_processes),
		TEST(a_program_that_traces_is_named),
		TEST(signals_do_not_fail_calls),
		TEST(a_program_that_listens_needs_stops),
		TEST(sockets_are_recorded),
		TEST(an_exec_by_descriptor_has_a_path),
		TEST(what_the_kernel_opens_is_recorded),
		TEST(an_exec_that_fails_is_only_a_look),
		TEST(calls_of_32_bit_programs_are_seen),
		TEST(a_childs_chroot_is_seen_from_outside),
		TEST(a_mount_namespace_of_a_child_is_mapped_back),
		TEST(a_command_that_leaves_its_namespace_is_mapped_back),
		TEST(another_user_can_be_traced),
		TEST(a_time_out_ends_all_processes_of_the_host),
		TEST(a_command_in_a_root_is_traced_in_its_paths),
		TEST(a_command_that_is_not_there_is_an_error),
	};

	int failed;

	if (argc == 4 && strcmp(argv[1], "--scenario") == 0)
		return be_scenario(argv[2], argv[3]);
	if (readlink("/proc/self/exe", self, sizeof(self) - 1) <= 0)
		return 1;
	method = IMG_TRACE_PTRACE;
	failed = cmocka_run_group_tests_name("by notifications", tests, NULL, NULL);
	method = IMG_TRACE_STOPS;
	return failed + cmocka_run_group_tests_name("by stops", tests, NULL, NULL);
}
