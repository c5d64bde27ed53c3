/* One engine per user, started when the first question comes and ending itself when idle.
 *
 *   $XDG_RUNTIME_DIR/ocai, else /tmp/ocai-UID     ours alone: checked for owner and mode 0700, because
 *                                                 whoever owns it could answer in the engine's place
 *     engine.sock    the API        engine.lock   held while looking and starting: two callers start one engine
 *     engine.log     its standard error of the last start
 *
 * The engine runs in a session of its own, so that neither Ctrl-C nor the end of the terminal reaches it. */
#include "agent.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>

#include "base/cleanup.h"
#include "base/clock.h"

enum {
	PATH_SIZE = 4096,
	DEFAULT_START_MS = 60000,
	DEFAULT_IDLE_EXIT_S = 900,
	HEALTH_MS = 2000,
	POLL_MIN_MS = 10,
	POLL_MAX_MS = 200,
	LOG_TAIL = 360, /* bytes of the log that fit an error message */
};

struct paths {
	char dir[PATH_SIZE - 64];
	char socket[PATH_SIZE], lock[PATH_SIZE], log[PATH_SIZE];
};

/* ---- The folder ------------------------------------------------------------------------------------- */

static int check_private(const char *dir, struct err *err)
{
	struct stat st;

	if (lstat(dir, &st) < 0)
		return err_set(err, -errno, "%s: %s", dir, strerror(errno));
	if (!S_ISDIR(st.st_mode))
		return err_set(err, -ENOTDIR, "%s: not a folder", dir);
	if (st.st_uid != geteuid())
		return err_set(err, -EPERM, "%s: belongs to user %u, not to you; not using it", dir,
		               (unsigned)st.st_uid);
	if (st.st_mode & 077)
		return err_set(err, -EPERM, "%s: others have access to it (mode %03o, expected 700); not using it", dir,
		               (unsigned)st.st_mode & 0777);
	return 0;
}

static int make_paths(const struct ag_engine_options *o, struct paths *p, struct err *err)
{
	const char *runtime = getenv("XDG_RUNTIME_DIR");
	struct stat st;
	int n;

	if (o->runtime_dir)
		n = snprintf(p->dir, sizeof(p->dir), "%s", o->runtime_dir);
	else if (runtime && runtime[0] == '/' && stat(runtime, &st) == 0 && S_ISDIR(st.st_mode) &&
	         st.st_uid == geteuid())
		n = snprintf(p->dir, sizeof(p->dir), "%s/ocai", runtime);
	else
		n = snprintf(p->dir, sizeof(p->dir), "/tmp/ocai-%u", (unsigned)geteuid());
	if (n < 0 || (size_t)n >= sizeof(p->dir) ||
	    (size_t)n + sizeof("/engine.sock") > sizeof(((struct sockaddr_un *)0)->sun_path))
		return err_set(err, -ENAMETOOLONG, "%.64s...: too long for the path of a socket", p->dir);
	(void)snprintf(p->socket, sizeof(p->socket), "%s/engine.sock", p->dir);
	(void)snprintf(p->lock, sizeof(p->lock), "%s/engine.lock", p->dir);
	(void)snprintf(p->log, sizeof(p->log), "%s/engine.log", p->dir);
	if (mkdir(p->dir, 0700) < 0 && errno != EEXIST)
		return err_set(err, -errno, "%s: %s", p->dir, strerror(errno));
	return check_private(p->dir, err);
}

/* ---- The program ------------------------------------------------------------------------------------ */

static bool is_program(const char *path)
{
	struct stat st;

	return stat(path, &st) == 0 && S_ISREG(st.st_mode) && access(path, X_OK) == 0;
}

static bool beside_this_program(char out[PATH_SIZE])
{
	char self[PATH_SIZE - 16];
	ssize_t n = readlink("/proc/self/exe", self, sizeof(self) - 1);
	char *slash;

	if (n <= 0)
		return false;
	self[n] = '\0';
	slash = strrchr(self, '/');
	if (!slash)
		return false;
	*slash = '\0';
	(void)snprintf(out, PATH_SIZE, "%s/ocai-engine", self);
	return is_program(out);
}

static bool in_path(char out[PATH_SIZE])
{
	const char *path = getenv("PATH"), *end;

	for (; path && *path; path = *end ? end + 1 : end) {
		end = strchrnul(path, ':');
		/* Relative entries would mean another program in another folder. */
		if (*path == '/' && snprintf(out, PATH_SIZE, "%.*s/ocai-engine", (int)(end - path), path) < PATH_SIZE &&
		    is_program(out))
			return true;
	}
	return false;
}

static int find_program(const struct ag_engine_options *o, char out[PATH_SIZE], struct err *err)
{
	if (o->program) {
		if (snprintf(out, PATH_SIZE, "%s", o->program) >= PATH_SIZE || !is_program(out))
			return err_set(err, -ENOENT, "%s: no such program", o->program);
		return 0;
	}
	if (beside_this_program(out) || in_path(out))
		return 0;
	return err_set(err, -ENOENT,
	               "no engine is running, and ocai-engine is neither beside this program nor in PATH; install "
	               "ocai-engine or name a server with --url");
}

/* ---- Starting --------------------------------------------------------------------------------------- */

/* In the child. Only a failed exec comes back, and its errno goes through the pipe; negative when it was the log. */
static void run_child(const char *program, const struct ag_engine_options *o, const struct paths *p, int fd_report)
{
	char idle[16];
	const char *argv[12];
	size_t n = 0;
	int fd_null, fd_log, code;
	sigset_t none;

	(void)snprintf(idle, sizeof(idle), "%u", o->idle_exit_s ? o->idle_exit_s : DEFAULT_IDLE_EXIT_S);
	argv[n++] = program;
	argv[n++] = "serve";
	argv[n++] = "--host=";
	argv[n++] = "--socket";
	argv[n++] = p->socket;
	argv[n++] = "--idle-exit";
	argv[n++] = idle;
	if (o->model) {
		argv[n++] = "--model";
		argv[n++] = o->model;
	}
	argv[n] = NULL;
	(void)setsid();
	(void)sigemptyset(&none);
	(void)sigprocmask(SIG_SETMASK, &none, NULL);
	fd_null = open("/dev/null", O_RDWR | O_CLOEXEC);
	fd_log = open(p->log, O_WRONLY | O_CREAT | O_TRUNC | O_APPEND | O_NOFOLLOW | O_CLOEXEC, 0600);
	code = fd_log < 0 ? -errno : 0;
	if (fd_null >= 0 && fd_log >= 0 && dup2(fd_null, 0) == 0 && dup2(fd_log, 1) == 1 && dup2(fd_log, 2) == 2 &&
	    chdir("/") == 0)
		(void)execv(program, (char *const *)argv);
	code = code ? code : errno;
	(void)!write(fd_report, &code, sizeof(code)); /* nobody else to tell */
	_exit(127);
}

static int spawn(const char *program, const struct ag_engine_options *o, const struct paths *p, pid_t *ret_pid,
                 struct err *err)
{
	int fds[2], code = 0;
	pid_t pid;
	ssize_t n;

	if (pipe2(fds, O_CLOEXEC) < 0)
		return err_set(err, -errno, "starting the engine: %s", strerror(errno));
	pid = fork();
	if (pid == 0)
		run_child(program, o, p, fds[1]);
	code = errno;
	(void)close(fds[1]);
	if (pid < 0) {
		(void)close(fds[0]);
		return err_set(err, -code, "starting the engine: %s", strerror(code));
	}
	do {
		n = read(fds[0], &code, sizeof(code)); /* ends when exec closes the other side */
	} while (n < 0 && errno == EINTR);
	(void)close(fds[0]);
	if (n == (ssize_t)sizeof(code)) {
		(void)waitpid(pid, NULL, 0);
		return err_set(err, -abs(code), "%s: %s", code < 0 ? p->log : program, strerror(abs(code)));
	}
	*ret_pid = pid;
	return 0;
}

/* The last lines of the log, as one line, or nothing. */
static void log_tail(const char *path, char out[LOG_TAIL])
{
	CLEANUP(close_fdp) int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
	struct stat st;
	ssize_t n;
	char *nl;

	out[0] = '\0';
	if (fd < 0 || fstat(fd, &st) < 0)
		return;
	n = pread(fd, out, LOG_TAIL - 1, st.st_size > LOG_TAIL - 1 ? st.st_size - (LOG_TAIL - 1) : 0);
	out[n > 0 ? n : 0] = '\0';
	if (st.st_size > LOG_TAIL - 1 && (nl = strchr(out, '\n'))) /* begin with a whole line */
		memmove(out, nl + 1, strlen(nl + 1) + 1);
	for (char *c = out; *c; c++) {
		if ((unsigned char)*c < 32)
			*c = c[1] ? ' ' : '\0';
	}
}

static int failed(const struct paths *p, int code, const char *what, struct err *err)
{
	char tail[LOG_TAIL];

	log_tail(p->log, tail);
	return tail[0] ? err_set(err, code, "%s; its log ends: %s", what, tail)
	               : err_set(err, code, "%s (log: %s)", what, p->log);
}

static bool is_canceled(const struct ag_engine_options *o)
{
	return o->is_canceled && o->is_canceled(o->is_canceled_arg);
}

/* Nobody listens: it is to be started. */
static int start(const struct ag_engine_options *o, const struct paths *p, pid_t *ret_pid, struct err *err)
{
	char program[PATH_SIZE];
	int r = find_program(o, program, err);

	return r < 0 ? r : spawn(program, o, p, ret_pid, err);
}

/* An engine that answers otherwise than that it is ready is loading or on its way out: when that one has gone, another
 * is started. *ret_pid is the one that was started here, or stays 0. */
static int wait_ready(const struct ag_engine_options *o, struct ag_backend *b, pid_t *ret_pid, const struct paths *p,
                      int64_t deadline, struct err *err)
{
	int pause_ms = POLL_MIN_MS, status, r;
	char what[96];

	for (;;) {
		r = ag_backend_health(b, NULL);
		if (r == 0)
			return 0;
		if (is_canceled(o))
			return err_set(err, -ECANCELED, "stopped");
		if (r == -ECONNREFUSED && *ret_pid == 0) {
			r = start(o, p, ret_pid, err);
			if (r < 0)
				return r;
		}
		if (*ret_pid > 0 && waitpid(*ret_pid, &status, WNOHANG) == *ret_pid) {
			if (WIFSIGNALED(status))
				(void)snprintf(what, sizeof(what), "the engine was ended by signal %d",
				               WTERMSIG(status));
			else
				(void)snprintf(what, sizeof(what), "the engine ended with status %d",
				               WEXITSTATUS(status));
			return failed(p, -ECHILD, what, err);
		}
		if (base_now_ms() >= deadline)
			return failed(p, -ETIMEDOUT, "the engine was not ready in time", err);
		(void)poll(NULL, 0, pause_ms);
		pause_ms = pause_ms * 2 > POLL_MAX_MS ? POLL_MAX_MS : pause_ms * 2;
	}
}

/* Waits for whoever is starting the engine at this moment. */
static int take_lock(const struct ag_engine_options *o, const struct paths *p, int64_t deadline, int *ret_fd,
                     struct err *err)
{
	int fd = open(p->lock, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);

	if (fd < 0)
		return err_set(err, -errno, "%s: %s", p->lock, strerror(errno));
	while (flock(fd, LOCK_EX | LOCK_NB) < 0) {
		if (errno != EWOULDBLOCK && errno != EINTR) {
			int code = errno;

			(void)close(fd);
			return err_set(err, -code, "%s: %s", p->lock, strerror(code));
		}
		if (is_canceled(o)) {
			(void)close(fd);
			return err_set(err, -ECANCELED, "stopped");
		}
		if (base_now_ms() >= deadline) {
			(void)close(fd);
			return err_set(err, -ETIMEDOUT, "%s: another process has been starting the engine for too long",
			               p->lock);
		}
		(void)poll(NULL, 0, 50);
	}
	*ret_fd = fd;
	return 0;
}

static int start_locked(const struct ag_engine_options *o, const struct paths *p, struct ag_backend *b,
                        int64_t deadline, struct err *err)
{
	pid_t pid = 0;
	int r = wait_ready(o, b, &pid, p, deadline, err); /* at once where somebody else was faster */

	/* One that has ended was waited for: its number may be somebody else's by now. */
	if (r < 0 && r != -ECANCELED && r != -ECHILD && pid > 0 && kill(pid, SIGTERM) == 0)
		(void)waitpid(pid, NULL, WNOHANG);
	return r;
}

int ag_engine_ensure(const struct ag_engine_options *options, struct base_buf *ret_url, struct err *err)
{
	int64_t deadline = base_now_ms() + (options->start_timeout_ms ? options->start_timeout_ms : DEFAULT_START_MS);
	CLEANUP(close_fdp) int fd_lock = -1;
	struct ag_backend *b = NULL;
	struct base_buf url = BASE_BUF_INIT(PATH_SIZE + 8);
	struct paths p;
	int r = make_paths(options, &p, err);

	if (r < 0)
		return r;
	(void)base_buf_printf(&url, "unix:%s", p.socket);
	r = ag_backend_open(base_buf_text(&url), NULL, HEALTH_MS, &b, err);
	if (r == 0)
		ag_backend_set_cancel(b, options->is_canceled, options->is_canceled_arg);
	if (r == 0 && ag_backend_health(b, NULL) < 0) {
		r = take_lock(options, &p, deadline, &fd_lock, err);
		if (r == 0)
			r = start_locked(options, &p, b, deadline, err);
	}
	ag_backend_close(b);
	if (r == 0)
		r = base_buf_append(ret_url, url.data, url.len);
	base_buf_done(&url);
	return r;
}
