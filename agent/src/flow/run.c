/* Runs a command line in the user's shell, as system(3) does: the terminal is the command's, Ctrl-C and Ctrl-\ are for
 * it and not for us. Its standard error comes through us: shown as it comes, and the end of it kept, so that a
 * failure can be explained with the real words.
 *
 * Where our standard error is a terminal, so is the command's: a pseudo-terminal of its own, as wide as ours, so that
 * it colours and wraps its words as ever. It is not the controlling one: keys, job control and /dev/tty stay with the
 * real terminal, and nothing but the bytes of standard error passes through here.
 *
 * $SHELL is used when it is a shell whose language the gate has read (sh and its relatives), else /bin/sh. What the
 * command leaves running in the background keeps no one waiting. */
#include "flow/flow.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/wait.h>
#include <termios.h>
#include <unistd.h>

#include "base/cleanup.h"

enum { KEPT_BYTES = 4096, POLL_MS = 50, EXIT_NOT_EXECUTED = 127 };

static const char *user_shell(void)
{
	static const char *const known[] = { "sh", "bash", "dash", "zsh", "ksh", "mksh", "ash" };
	const char *shell = getenv("SHELL"), *name = shell ? strrchr(shell, '/') : NULL;

	if (shell && shell[0] == '/' && access(shell, X_OK) == 0) {
		for (size_t i = 0; i < sizeof(known) / sizeof(*known); i++) {
			if (strcmp(name + 1, known[i]) == 0)
				return shell;
		}
	}
	return "/bin/sh";
}

/* ---- The command's standard error ----------------------------------------------------------------------------- */

/* A pseudo-terminal that changes no byte: fds as pipe() gives them, or false. */
static bool open_terminal(int fds[2])
{
	struct termios modes;
	char name[128];

	fds[0] = posix_openpt(O_RDWR | O_NOCTTY | O_CLOEXEC);
	if (fds[0] < 0)
		return false;
	fds[1] = -1;
	if (grantpt(fds[0]) == 0 && unlockpt(fds[0]) == 0 && ptsname_r(fds[0], name, sizeof(name)) == 0)
		fds[1] = open(name, O_RDWR | O_NOCTTY | O_CLOEXEC);
	if (fds[1] < 0 || tcgetattr(fds[1], &modes) < 0) {
		if (fds[1] >= 0)
			(void)close(fds[1]);
		(void)close(fds[0]);
		return false;
	}
	modes.c_oflag &= ~(tcflag_t)OPOST; /* the real terminal makes CR LF of LF */
	modes.c_lflag &= ~(tcflag_t)(ECHO | ECHONL);
	(void)tcsetattr(fds[1], TCSANOW, &modes);
	return true;
}

/* As wide as ours, also when the window has changed; a pipe has no size, and that is all there is to it. */
static void follow_size(int fd)
{
	struct winsize want, is;

	if (ioctl(fd, TIOCGWINSZ, &is) == 0 && ioctl(STDERR_FILENO, TIOCGWINSZ, &want) == 0 &&
	    memcmp(&is, &want, sizeof(is)) != 0)
		(void)ioctl(fd, TIOCSWINSZ, &want);
}

/* Length of the escape sequence at p: CSI to its final byte, OSC and its like to BEL or ST, else ESC and what it
 * begins. */
static size_t sequence_at(const char *p, size_t n)
{
	size_t i = 2;

	if (n < 2)
		return n;
	if (p[1] == '[') {
		while (i < n && p[i] >= 0x20 && p[i] < 0x40)
			i++;
		return i < n ? i + 1 : n;
	}
	if (strchr("]P^_X", p[1])) {
		while (i < n && p[i] != '\a' && p[i] != '\033')
			i++;
		return i < n && p[i] == '\033' && i + 1 < n ? i + 2 : i < n ? i + 1 : n;
	}
	while (i < n && p[i - 1] >= 0x20 && p[i - 1] < 0x30)
		i++;
	return i;
}

/* The words without what coloured them. */
static int take_words(struct base_buf *out, const char *p, size_t n)
{
	CLEANUP(base_buf_done) struct base_buf plain = BASE_BUF_INIT(KEPT_BYTES);

	while (n) {
		const char *escape = memchr(p, '\033', n);
		size_t k = escape ? (size_t)(escape - p) : n;

		(void)base_buf_append(&plain, p, k);
		k += escape ? sequence_at(escape, n - k) : 0;
		p += k;
		n -= k;
	}
	return ag_term_sanitize(out, base_buf_text(&plain), plain.len, false);
}

/* The last KEPT_BYTES of what comes. */
static void keep(struct base_buf *kept, const char *p, size_t n)
{
	if (n > KEPT_BYTES) {
		p += n - KEPT_BYTES;
		n = KEPT_BYTES;
	}
	if (kept->len + n > KEPT_BYTES) {
		size_t drop = kept->len + n - KEPT_BYTES;

		memmove(kept->data, kept->data + drop, kept->len - drop);
		kept->len -= drop;
	}
	(void)base_buf_append(kept, p, n);
}

static void write_all(int fd, const char *p, size_t n)
{
	while (n) {
		ssize_t k = write(fd, p, n);

		if (k < 0 && errno == EINTR)
			continue;
		if (k <= 0)
			return; /* nobody to show it to; it is kept all the same */
		p += k;
		n -= (size_t)k;
	}
}

/* Shows and keeps what is there; false at the end. */
static bool pump(int fd, struct base_buf *kept)
{
	char buf[4096];
	ssize_t n = read(fd, buf, sizeof(buf));

	if (n < 0)
		return errno == EAGAIN || errno == EINTR;
	if (n == 0)
		return false;
	write_all(STDERR_FILENO, buf, (size_t)n);
	keep(kept, buf, (size_t)n);
	return true;
}

static int wait_for(pid_t pid, int fd, struct base_buf *kept)
{
	bool is_open = true;
	int status = 0;

	for (;;) {
		struct pollfd p = { .fd = is_open ? fd : -1, .events = POLLIN };
		pid_t got;

		follow_size(fd);
		(void)poll(&p, 1, POLL_MS);
		if (is_open && p.revents)
			is_open = pump(fd, kept);
		got = waitpid(pid, &status, is_open ? WNOHANG : 0);
		if (got == pid || (got < 0 && errno != EINTR))
			break;
	}
	/* What was written before the end, but no longer than that: others may hold the pipe open. */
	for (int i = 0; is_open && i < 64; i++) {
		struct pollfd p = { .fd = fd, .events = POLLIN };

		is_open = poll(&p, 1, 0) > 0 && pump(fd, kept);
	}
	return WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status);
}

/* ---- Running ------------------------------------------------------------------------------------------------------
 */

static void child(const char *command, int errors, const struct sigaction *old_int, const struct sigaction *old_quit)
{
	const char *shell = user_shell(), *name = strrchr(shell, '/') + 1;

	(void)sigaction(SIGINT, old_int, NULL);
	(void)sigaction(SIGQUIT, old_quit, NULL);
	(void)signal(SIGPIPE, SIG_DFL);
	/* Our standard input was a pipe that has been read: the terminal, then, as in a shell. */
	if (!isatty(STDIN_FILENO)) {
		int tty = open("/dev/tty", O_RDWR | O_CLOEXEC);

		if (tty < 0)
			tty = open("/dev/null", O_RDWR | O_CLOEXEC);
		if (tty >= 0)
			(void)dup2(tty, STDIN_FILENO);
	}
	(void)dup2(errors, STDERR_FILENO);
	(void)execl(shell, name, "-c", command, (char *)NULL);
	_exit(EXIT_NOT_EXECUTED);
}

int ag_run_command(const char *command, struct ag_run_result *ret, struct err *err)
{
	struct sigaction ignore = { .sa_handler = SIG_IGN }, old_int, old_quit;
	CLEANUP(base_buf_done) struct base_buf raw = BASE_BUF_INIT(KEPT_BYTES);
	int fds[2];
	pid_t pid;

	if (!(isatty(STDERR_FILENO) && open_terminal(fds)) && pipe2(fds, O_CLOEXEC) < 0)
		return err_set(err, -errno, "pipe: %s", strerror(errno));
	follow_size(fds[0]);
	(void)fcntl(fds[0], F_SETFL, O_NONBLOCK);
	(void)fflush(NULL);
	(void)sigaction(SIGINT, &ignore, &old_int);
	(void)sigaction(SIGQUIT, &ignore, &old_quit);
	pid = fork();
	if (pid == 0)
		child(command, fds[1], &old_int, &old_quit);
	(void)close(fds[1]);
	if (pid > 0)
		ret->exit_code = wait_for(pid, fds[0], &raw);
	(void)close(fds[0]);
	(void)sigaction(SIGINT, &old_int, NULL);
	(void)sigaction(SIGQUIT, &old_quit, NULL);
	if (pid < 0)
		return err_set(err, -EAGAIN, "cannot start a process");
	ret->errors = (struct base_buf)BASE_BUF_INIT(4 * KEPT_BYTES);
	(void)take_words(&ret->errors, base_buf_text(&raw), raw.len);
	return 0;
}
