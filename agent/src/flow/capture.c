/* A function in a child process: what it prints is kept, and it ends when its time is up or when the person says so.
 *
 * Tools run here because they may take long in places that cannot be interrupted (a package's verification, a library
 * waiting for a bus), and because a file or database they read may be broken in ways that end a process. The child
 * leads a session of its own, so that a command has no terminal to ask at, and all it started can be ended with it. */
#include "flow/flow.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/clock.h"

enum { POLL_MS = 20, NOTE_BYTES = 64, LAST_READS = 1024 };

static void child(int (*fn)(void *arg), void *arg, int output)
{
	int null = open("/dev/null", O_RDONLY | O_CLOEXEC);

	(void)setsid();
	(void)signal(SIGINT, SIG_DFL);
	(void)signal(SIGQUIT, SIG_DFL);
	(void)signal(SIGPIPE, SIG_DFL);
	if (null < 0 || dup2(null, STDIN_FILENO) < 0 || dup2(output, STDOUT_FILENO) < 0 ||
	    dup2(output, STDERR_FILENO) < 0)
		_exit(127);
	_exit(fn(arg)); /* nothing of ours is flushed or freed twice */
}

struct output {
	struct base_buf *text;
	size_t room; /* bytes that still fit, with place left for the note */
	size_t n_lost;
};

/* False at the end of the output. */
static bool pump(int fd, struct output *o)
{
	char piece[8192];
	ssize_t n = read(fd, piece, sizeof(piece));
	size_t keep;

	if (n < 0)
		return errno == EAGAIN || errno == EINTR;
	keep = (size_t)n < o->room ? (size_t)n : o->room;
	(void)base_buf_append(o->text, piece, keep);
	o->room -= keep;
	o->n_lost += (size_t)n - keep;
	return n > 0;
}

/* Waits for the child's end, or ends it. */
static int wait_for(pid_t pid, int fd, int64_t deadline, struct output *o, int *ret_status)
{
	bool is_open = true;
	int status = 0, r = 0;

	for (;;) {
		struct pollfd p = { .fd = is_open ? fd : -1, .events = POLLIN };
		siginfo_t end = { 0 };

		(void)poll(&p, 1, POLL_MS);
		if (is_open && p.revents)
			is_open = pump(fd, o);
		if (waitid(P_PID, (id_t)pid, &end, WEXITED | WNOHANG | WNOWAIT) < 0 ? errno != EINTR
		                                                                    : end.si_pid == pid)
			break;
		if (r == 0 && ag_term_interrupt_asked())
			r = -ECANCELED;
		else if (r == 0 && base_now_ms() > deadline)
			r = -ETIMEDOUT;
		if (r < 0)
			(void)kill(pid, SIGKILL);
	}
	/* What it left running, while its number is still its own. */
	(void)kill(-pid, SIGKILL);
	while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
		;
	for (int i = 0; is_open && i < LAST_READS; i++) {
		struct pollfd p = { .fd = fd, .events = POLLIN };

		is_open = poll(&p, 1, 0) > 0 && pump(fd, o);
	}
	*ret_status = WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status);
	return r;
}

int ag_capture(int (*fn)(void *arg), void *arg, uint32_t timeout_ms, struct base_buf *out, int *ret_status,
               struct err *err)
{
	struct output o = { .text = out };
	int fds[2], r;
	pid_t pid;

	o.room = out->max - out->len > NOTE_BYTES ? out->max - out->len - NOTE_BYTES : 0;
	if (pipe2(fds, O_CLOEXEC) < 0)
		return err_set(err, -errno, "pipe: %s", strerror(errno));
	(void)fcntl(fds[0], F_SETFL, O_NONBLOCK);
	(void)fflush(NULL);
	pid = fork();
	if (pid == 0)
		child(fn, arg, fds[1]);
	(void)close(fds[1]);
	if (pid < 0)
		r = err_set(err, -EAGAIN, "cannot start a process");
	else
		r = wait_for(pid, fds[0], base_now_ms() + timeout_ms, &o, ret_status);
	(void)close(fds[0]);
	if (o.n_lost)
		(void)base_buf_printf(out, "\n[cut: %zu more bytes]\n", o.n_lost);
	if (r == -ETIMEDOUT)
		return err_set(err, r, "it did not end within %u.%u s and was stopped", timeout_ms / 1000,
		               timeout_ms % 1000 / 100);
	return r == -ECANCELED ? err_set(err, r, "stopped") : r;
}
