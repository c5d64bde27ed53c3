/* The caller's side of a run: prepares everything the child needs, starts it in its namespaces, lets the watcher in,
 * waits, and collects what is to be told. A thread of its own reads the captured output and keeps the time; the thread
 * that called waits for the child (a tracer must be the one thread that waits). */
#include "runtime.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/clock.h"

#include "runtime_internal.h"

static const char default_path[] = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/* One run from start to end. */
struct job {
	struct img_run run; /* a copy whose roots are absolute */
	struct img_run_child child;
	struct img_run_result *result;
	struct err *err;
	char **roots;
	char *scratch;
	char **exec_paths, **env;
	char *home; /* "HOME=..." */
	int sockets[2];
	int out[2], errors[2], wake[2]; /* pipes; [0] is read here */
	int root_fd, upper_fd;
	pid_t pid;
	pthread_t minder;
	bool has_minder;
	atomic_bool timed_out; /* written by the minder */
};

const char *img_change_kind_name(enum img_change_kind kind)
{
	static const char *const names[] = { "added", "modified", "deleted" };

	return (unsigned)kind < 3 ? names[kind] : "unknown";
}

static void add_note(struct img_run_result *result, const char *note)
{
	size_t len = strlen(result->notes);

	(void)snprintf(result->notes + len, sizeof(result->notes) - len, "%s%s", len ? "; " : "", note);
}

/* ---- Preparation ------------------------------------------------------------------------------------------ */

static int prepare_roots(struct job *j)
{
	if (j->run.n_roots > IMG_RUN_MAX_ROOTS || j->run.n_mounts > IMG_RUN_MAX_MOUNTS)
		return err_set(j->err, -E2BIG, "more than %d layers or %d mounts", IMG_RUN_MAX_ROOTS,
		               IMG_RUN_MAX_MOUNTS);
	j->roots = calloc(j->run.n_roots + 1, sizeof(*j->roots));
	if (!j->roots)
		return err_set(j->err, -ENOMEM, "out of memory");
	for (size_t i = 0; i < j->run.n_roots; i++) {
		struct stat st;

		j->roots[i] = realpath(j->run.roots[i], NULL);
		if (!j->roots[i] || stat(j->roots[i], &st) < 0)
			return err_set(j->err, -errno, "%s: %s", j->run.roots[i], strerror(errno));
		if (!S_ISDIR(st.st_mode))
			return err_set(j->err, -ENOTDIR, "%s: not a directory", j->run.roots[i]);
	}
	j->run.roots = (const char *const *)j->roots;
	return 0;
}

/* A name for a folder that is made when the upper directory cannot be in memory. */
static int prepare_scratch(struct job *j)
{
	const char *places[] = { j->run.scratch, getenv("TMPDIR"), "/var/tmp", "/tmp" };
	static atomic_uint n_runs;

	for (size_t i = 0; i < sizeof(places) / sizeof(places[0]); i++) {
		if (!places[i] || places[i][0] != '/' || access(places[i], W_OK | X_OK) < 0)
			continue;
		if (asprintf(&j->scratch, "%s/slimtrace-run-%d-%u-%llx", places[i], (int)getpid(),
		             atomic_fetch_add(&n_runs, 1), (unsigned long long)(uint64_t)base_now_ns()) < 0) {
			j->scratch = NULL;
			return err_set(j->err, -ENOMEM, "out of memory");
		}
		j->child.scratch = j->scratch;
		return 0;
	}
	return err_set(j->err, -EACCES, "no temporary folder can be written to");
}

static int prepare_user(struct job *j)
{
	static const char *const host[] = { "/" };
	const char *user = j->run.user ? j->run.user : "0";

	if (!j->run.n_roots && !j->run.user)
		return 0;
	j->child.must_set_user = true;
	return img_run_find_user(j->run.n_roots ? j->run.roots : host, j->run.n_roots ? j->run.n_roots : 1, user,
	                         &j->child.user, j->err);
}

static bool has_variable(const char *const *env, const char *name)
{
	size_t len = strlen(name);

	for (; *env; env++) {
		if (strncmp(*env, name, len) == 0 && (*env)[len] == '=')
			return true;
	}
	return false;
}

/* The environment, in a root with PATH and HOME if they are missing. */
static int prepare_env(struct job *j)
{
	const char *const *env = j->run.env ? j->run.env : (const char *const *)environ;
	size_t n = 0;

	while (env[n])
		n++;
	j->env = calloc(n + 3, sizeof(*j->env));
	if (!j->env)
		return err_set(j->err, -ENOMEM, "out of memory");
	memcpy(j->env, env, n * sizeof(*env));
	if (j->run.n_roots && !has_variable(env, "PATH"))
		j->env[n++] = (char *)default_path;
	if (j->run.n_roots && !has_variable(env, "HOME")) {
		if (asprintf(&j->home, "HOME=%s", j->child.user.home) < 0) {
			j->home = NULL;
			return err_set(j->err, -ENOMEM, "out of memory");
		}
		j->env[n++] = j->home;
	}
	j->child.env = (const char *const *)j->env;
	return 0;
}

/* All that argv[0] may mean: itself, or each directory of PATH in front of it. */
static int prepare_exec_paths(struct job *j)
{
	const char *name = j->run.argv[0], *path = default_path + 5;
	size_t n = 0, max = 2;

	for (char **e = j->env; *e; e++) {
		if (strncmp(*e, "PATH=", 5) == 0)
			path = *e + 5;
	}
	for (const char *p = path; *p; p++)
		max += *p == ':';
	j->exec_paths = calloc(max + 1, sizeof(*j->exec_paths));
	if (!j->exec_paths)
		return err_set(j->err, -ENOMEM, "out of memory");
	j->child.exec_paths = (const char *const *)j->exec_paths;
	if (strchr(name, '/')) {
		j->exec_paths[0] = strdup(name);
		return j->exec_paths[0] ? 0 : err_set(j->err, -ENOMEM, "out of memory");
	}
	for (const char *p = path;; p++) {
		size_t len = strcspn(p, ":");

		if (asprintf(&j->exec_paths[n++], "%.*s/%s", len ? (int)len : 1, len ? p : ".", name) < 0)
			return err_set(j->err, -ENOMEM, "out of memory");
		p += len;
		if (!*p)
			return 0;
	}
}

static int prepare_pipes(struct job *j)
{
	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, j->sockets) < 0)
		return err_set(j->err, -errno, "socketpair: %s", strerror(errno));
	if (pipe2(j->wake, O_CLOEXEC) < 0 ||
	    (j->run.capture && (pipe2(j->out, O_CLOEXEC) < 0 || pipe2(j->errors, O_CLOEXEC) < 0)))
		return err_set(j->err, -errno, "pipe: %s", strerror(errno));
	j->child.socket = j->sockets[1];
	j->child.out_fd = j->out[1];
	j->child.errors_fd = j->errors[1];
	if (j->run.null_stdin) {
		j->child.in_fd = open("/dev/null", O_RDONLY | O_CLOEXEC);
		if (j->child.in_fd < 0)
			return err_set(j->err, -errno, "/dev/null: %s", strerror(errno));
	}
	return 0;
}

static int prepare(struct job *j)
{
	int r = prepare_roots(j);

	if (r == 0 && j->run.n_roots)
		r = prepare_scratch(j);
	if (r == 0)
		r = prepare_user(j);
	if (r == 0)
		r = prepare_env(j);
	if (r == 0)
		r = prepare_exec_paths(j);
	if (r == 0)
		r = prepare_pipes(j);
	return r;
}

/* ---- Signals ---------------------------------------------------------------------------------------------- */

/* One run at a time forwards signals: they belong to the process. */
static const int forwarded[] = { SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGUSR1, SIGUSR2 };
enum { N_FORWARDED = 6 };
static struct sigaction old_actions[N_FORWARDED];
static volatile sig_atomic_t forward_pid;

static void on_signal(int sig, siginfo_t *info, void *context)
{
	int saved = errno;

	/* What the terminal sends, it sends to the command too. */
	if (info->si_code != SI_KERNEL && forward_pid > 0)
		(void)kill(forward_pid, sig);
	errno = saved;
}

static void begin_forwarding(pid_t pid)
{
	struct sigaction sa = { .sa_sigaction = on_signal, .sa_flags = SA_SIGINFO };

	forward_pid = pid;
	for (int i = 0; i < N_FORWARDED; i++) {
		if (sigaction(forwarded[i], NULL, &old_actions[i]) == 0 && old_actions[i].sa_handler != SIG_IGN)
			(void)sigaction(forwarded[i], &sa, NULL);
	}
}

static void end_forwarding(void)
{
	for (int i = 0; i < N_FORWARDED; i++)
		(void)sigaction(forwarded[i], &old_actions[i], NULL);
	forward_pid = 0;
}

/* ---- Start ------------------------------------------------------------------------------------------------ */

static int write_text(const char *dir, const char *name, const char *text)
{
	CLEANUP(close_fdp) int fd = -1;
	char path[64];

	(void)snprintf(path, sizeof(path), "%s/%s", dir, name);
	fd = open(path, O_WRONLY | O_CLOEXEC);
	if (fd < 0 || write(fd, text, strlen(text)) < 0)
		return -errno;
	return 0;
}

/* The one user that an ordinary user may map: itself, as the one the command runs as. */
static int write_maps(struct job *j)
{
	char dir[32], text[64];
	int r;

	(void)snprintf(dir, sizeof(dir), "/proc/%d", (int)j->pid);
	r = write_text(dir, "setgroups", "deny");
	if (r == 0) {
		(void)snprintf(text, sizeof(text), "%u %u 1", j->child.user.uid, geteuid());
		r = write_text(dir, "uid_map", text);
	}
	if (r == 0) {
		(void)snprintf(text, sizeof(text), "%u %u 1", j->child.user.gid, getegid());
		r = write_text(dir, "gid_map", text);
	}
	return r < 0 ? err_set(j->err, r, "mapping the user: %s", strerror(-r)) : 0;
}

/* fork(), with namespaces; the child never returns. */
static int start_child(struct job *j, unsigned long flags)
{
	sigset_t all, old;
	long pid;

	(void)sigfillset(&all);
	(void)pthread_sigmask(SIG_SETMASK, &all, &old);
	j->child.mask = old;
	j->child.run = &j->run;
	j->child.has_user_namespace = flags & CLONE_NEWUSER;
	if (j->child.has_user_namespace)
		j->child.must_set_user = false;
	pid = syscall(SYS_clone, flags | SIGCHLD, NULL, NULL, NULL, NULL);
	if (pid == 0) {
		(void)close(j->sockets[0]);
		if (j->run.n_roots)
			img_run_container_main(&j->child);
		img_run_host_main(&j->child);
	}
	j->pid = (pid_t)pid;
	if (pid > 0 && j->run.forward_signals)
		begin_forwarding(j->pid);
	(void)pthread_sigmask(SIG_SETMASK, &old, NULL);
	return pid < 0 ? -errno : 0;
}

/* What the child says went wrong; `fallback` when it could not even say that. */
static int take_failure(struct job *j, const struct img_run_message *m, const char *fallback)
{
	int r = m->code < 0 ? m->code : -EIO;

	if (m->type != IMG_RUN_FAILED)
		return err_set(j->err, -EIO, "%s", fallback);
	return err_set(j->err, r, "%.*s: %s", (int)sizeof(m->text) - 1, m->text, strerror(-r));
}

static int say_go(struct job *j)
{
	struct img_run_message go = { .type = IMG_RUN_GO };

	/* A child that is gone has left a message, which is read later. */
	(void)img_run_send(j->sockets[0], &go, NULL, 0);
	return 0;
}

static int start_in_namespaces(struct job *j)
{
	const unsigned long flags = CLONE_NEWNS | CLONE_NEWPID | CLONE_NEWUTS | CLONE_NEWIPC;
	struct img_run_message m = { 0 };
	int fds[2] = { -1, -1 }, r;

	r = geteuid() == 0 ? start_child(j, flags) : -EPERM;
	if (r == -EPERM) {
		r = start_child(j, flags | CLONE_NEWUSER);
		if (r < 0)
			return err_set(j->err, r, "this needs root, or user namespaces: %s", strerror(-r));
		r = write_maps(j);
	} else if (r < 0) {
		return err_set(j->err, r, "new namespaces: %s", strerror(-r));
	}
	(void)close(j->sockets[1]);
	j->sockets[1] = -1;
	if (r < 0)
		return r;
	(void)say_go(j);
	r = img_run_receive(j->sockets[0], &m, fds, 0);
	if (r < 0 || m.type != IMG_RUN_READY)
		return take_failure(j, &m, "the root could not be made");
	j->root_fd = fds[0];
	j->upper_fd = fds[1];
	if (m.text[0])
		add_note(j->result, m.text);
	if (j->child.has_user_namespace)
		add_note(j->result, "as an ordinary user: one user in the root, files of others belong to nobody");
	return 0;
}

static int start_on_host(struct job *j)
{
	int r;

	j->root_fd = open("/", O_PATH | O_DIRECTORY | O_CLOEXEC);
	if (j->root_fd < 0)
		return err_set(j->err, -errno, "/: %s", strerror(errno));
	r = start_child(j, 0);
	(void)close(j->sockets[1]);
	j->sockets[1] = -1;
	return r < 0 ? err_set(j->err, r, "fork: %s", strerror(-r)) : 0;
}

/* ---- While it runs ---------------------------------------------------------------------------------------- */

/* Takes what a pipe holds; false at its end. Beyond the ceiling it is read and thrown away: the command goes on. */
static bool drain(int fd, struct base_buf *b, bool *was_cut)
{
	char chunk[65536];
	ssize_t n = read(fd, chunk, sizeof(chunk));

	if (n < 0)
		return errno == EINTR || errno == EAGAIN;
	if (n > 0 && base_buf_append(b, chunk, (size_t)n) < 0) {
		size_t room = b->max - b->len;

		b->error = 0;
		if (!*was_cut && room)
			(void)base_buf_append(b, chunk, room < (size_t)n ? room : (size_t)n);
		b->error = 0;
		*was_cut = true;
	}
	return n > 0;
}

static void kill_all(struct job *j)
{
	j->timed_out = true;
	if (!j->run.n_roots && j->run.null_stdin)
		(void)kill(-j->pid, SIGKILL);
	(void)kill(j->pid, SIGKILL);
}

/* After the end: what lies in the pipes, without waiting for those who still hold them open. */
static void drain_rest(int fd, struct base_buf *b, bool *was_cut)
{
	struct pollfd p = { .fd = fd, .events = POLLIN };

	while (fd >= 0 && poll(&p, 1, 0) > 0) {
		if (!drain(fd, b, was_cut))
			break;
	}
}

static void *mind(void *arg)
{
	struct job *j = arg;
	struct img_run_result *res = j->result;
	uint64_t deadline = j->run.timeout_ms ? (uint64_t)base_now_ns() + j->run.timeout_ms * 1000000u : 0;
	struct pollfd p[3] = { { .fd = j->wake[0], .events = POLLIN },
		               { .fd = j->out[0], .events = POLLIN },
		               { .fd = j->errors[0], .events = POLLIN } };

	for (;;) {
		int wait_ms = -1;

		if (deadline && !j->timed_out) {
			uint64_t now = (uint64_t)base_now_ns();

			if (now >= deadline) {
				kill_all(j);
				continue;
			}
			wait_ms = (deadline - now) / 1000000u < 60000 ? (int)((deadline - now) / 1000000u) + 1 : 60000;
		}
		if (poll(p, 3, wait_ms) < 0 && errno != EINTR)
			break;
		if (p[1].revents && !drain(p[1].fd, &res->out, &res->out_was_cut))
			p[1].fd = -1;
		if (p[2].revents && !drain(p[2].fd, &res->errors, &res->errors_was_cut))
			p[2].fd = -1;
		if (p[0].revents)
			break;
	}
	drain_rest(p[1].fd, &res->out, &res->out_was_cut);
	drain_rest(p[2].fd, &res->errors, &res->errors_was_cut);
	return NULL;
}

static int start_minder(struct job *j)
{
	int r;

	if (!j->run.capture && !j->run.timeout_ms)
		return 0;
	r = pthread_create(&j->minder, NULL, mind, j);
	if (r != 0)
		return err_set(j->err, -r, "a thread: %s", strerror(r));
	j->has_minder = true;
	return 0;
}

static int await_child(struct job *j, int *ret_status)
{
	if (j->run.watch && j->run.watch->wait)
		return j->run.watch->wait(j->run.watch_arg, j->pid, &j->timed_out, ret_status, &j->result->usage,
		                          j->err);
	while (wait4(j->pid, ret_status, __WALL, &j->result->usage) < 0) {
		if (errno != EINTR)
			return err_set(j->err, -errno, "waiting for the command: %s", strerror(errno));
	}
	return 0;
}

static void kill_child(struct job *j)
{
	int status;

	(void)kill(j->pid, SIGKILL);
	while (waitpid(j->pid, &status, __WALL) < 0 && errno == EINTR)
		;
}

/* What the child had to say: that the command could not be executed, or how it ended. */
static int take_status(struct job *j, int status)
{
	struct img_run_message m = { 0 };

	while (img_run_receive(j->sockets[0], &m, NULL, MSG_DONTWAIT) == 0) {
		if (m.type == IMG_RUN_FAILED)
			return take_failure(j, &m, "");
		if (m.type == IMG_RUN_STATUS)
			status = m.code;
	}
	j->result->signal = WIFSIGNALED(status) ? WTERMSIG(status) : 0;
	j->result->exit_code = WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status);
	j->result->timed_out = j->timed_out;
	return 0;
}

static int run_job(struct job *j)
{
	int status = 0, r;
	uint64_t begin;

	r = j->run.n_roots ? start_in_namespaces(j) : start_on_host(j);
	if (r == 0 && j->run.watch && j->run.watch->attach)
		r = j->run.watch->attach(j->run.watch_arg, j->pid, j->root_fd, j->err);
	if (r == 0)
		r = start_minder(j);
	if (r < 0) {
		if (j->pid > 0)
			kill_child(j);
		return r;
	}
	/* Only the child holds them now, so that their end is seen. */
	for (int i = 0; i < 2; i++) {
		int *fd = i ? &j->errors[1] : &j->out[1];

		if (*fd >= 0)
			(void)close(*fd);
		*fd = -1;
	}
	begin = (uint64_t)base_now_ns();
	(void)say_go(j);
	r = await_child(j, &status);
	j->result->wall_ns = (uint64_t)base_now_ns() - begin;
	if (r < 0)
		kill_child(j);
	if (j->has_minder) {
		(void)!write(j->wake[1], "", 1);
		(void)pthread_join(j->minder, NULL);
	}
	if (r == 0)
		r = take_status(j, status);
	if (r == 0 && j->run.want_changes && j->upper_fd >= 0)
		r = img_run_read_changes(j->upper_fd, &j->run, j->result, j->err);
	return r;
}

static void close_pair(int pair[2])
{
	for (int i = 0; i < 2; i++) {
		if (pair[i] >= 0)
			(void)close(pair[i]);
	}
}

static void job_done(struct job *j)
{
	if (j->run.forward_signals && j->pid > 0)
		end_forwarding();
	close_pair(j->sockets);
	close_pair(j->out);
	close_pair(j->errors);
	close_pair(j->wake);
	close_pair((int[]){ j->root_fd, j->upper_fd });
	if (j->child.in_fd >= 0)
		(void)close(j->child.in_fd);
	if (j->scratch)
		img_run_remove_tree(j->scratch);
	for (size_t i = 0; j->roots && j->roots[i]; i++)
		free(j->roots[i]);
	for (size_t i = 0; j->exec_paths && j->exec_paths[i]; i++)
		free(j->exec_paths[i]);
	free(j->roots);
	free(j->exec_paths);
	free(j->env);
	free(j->home);
	free(j->scratch);
}

int img_run(const struct img_run *run, struct img_run_result *ret_result, struct err *err)
{
	struct img_run_result result = { 0 };
	struct job j = { .run = *run,
		         .result = &result,
		         .err = err,
		         .sockets = { -1, -1 },
		         .out = { -1, -1 },
		         .errors = { -1, -1 },
		         .wake = { -1, -1 },
		         .root_fd = -1,
		         .upper_fd = -1,
		         .child = { .in_fd = -1, .socket = -1, .out_fd = -1, .errors_fd = -1 } };
	int r;

	if (!run->argv || !run->argv[0])
		return err_set(err, -EINVAL, "no command");
	base_buf_init(&result.out, run->capture_bytes ? run->capture_bytes : 16u << 20);
	base_buf_init(&result.errors, run->capture_bytes ? run->capture_bytes : 16u << 20);
	r = prepare(&j);
	if (r == 0)
		r = run_job(&j);
	job_done(&j);
	if (r < 0) {
		img_run_result_done(&result);
		return r;
	}
	*ret_result = result;
	return 0;
}

void img_run_result_done(struct img_run_result *result)
{
	base_buf_done(&result->out);
	base_buf_done(&result->errors);
	for (size_t i = 0; i < result->n_changes; i++) {
		free(result->changes[i].path);
		free(result->changes[i].target);
	}
	free(result->changes);
	*result = (struct img_run_result){ 0 };
}
