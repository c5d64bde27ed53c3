/* Stdio: the server is a child process, one message per line each way.
 *
 * The child leads a process group of its own, so that Ctrl-C at the terminal reaches this program alone and the whole
 * group can be ended. Its standard error is read all the time, its last bytes kept for the message when it fails.
 * Closing is what the protocol asks for: end of input, a while to leave, SIGTERM, SIGKILL. */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "base/json.h"
#include "mcp/mcp_internal.h"

enum { STDERR_KEPT = 400, LEAVE_MS = 1000, TERM_MS = 1000, POLL_MS = 100 };

struct stdio {
	struct ag_mcp_transport t;
	const struct ag_mcp_config *config;
	const volatile sig_atomic_t *cancel;
	pid_t pid;
	int to, from, errors;
	struct ag_mcp_lines lines;
	char tail[STDERR_KEPT + 1]; /* the end of what the child complained */
	size_t n_tail;
};

static void keep_tail(struct stdio *s, const char *data, size_t n)
{
	size_t keep;

	if (n > STDERR_KEPT) {
		data += n - STDERR_KEPT;
		n = STDERR_KEPT;
	}
	keep = s->n_tail + n > STDERR_KEPT ? STDERR_KEPT - n : s->n_tail;
	memmove(s->tail, s->tail + s->n_tail - keep, keep);
	memcpy(s->tail + keep, data, n);
	s->n_tail = keep + n;
}

static void read_errors(struct stdio *s)
{
	char piece[4096];
	ssize_t n;

	while (s->errors >= 0 && (n = read(s->errors, piece, sizeof(piece))) != 0) {
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0 && errno == EAGAIN)
			return;
		if (n < 0)
			break;
		keep_tail(s, piece, (size_t)n);
	}
	close_fdp(&s->errors);
	s->errors = -1;
}

/* "NAME: the server ended: its last line of standard error". */
static int ended(struct stdio *s, struct err *err)
{
	char *line = s->tail;

	read_errors(s);
	while (s->n_tail && (s->tail[s->n_tail - 1] == '\n' || s->tail[s->n_tail - 1] == '\r'))
		s->n_tail--;
	s->tail[s->n_tail] = '\0';
	for (char *p = s->tail; *p; p++) {
		if (*p == '\n' && p[1])
			line = p + 1;
	}
	for (char *p = line; *p; p++) {
		if ((unsigned char)*p < 32 || *p == 127)
			*p = ' ';
	}
	return err_set(err, -EPIPE, "%s: the server ended%s%s", s->config->name, *line ? ": " : "", line);
}

/* Waits for one of the descriptors: 0 when something happened or a moment passed. */
static int wait_for(struct stdio *s, bool writing, int64_t deadline, struct err *err)
{
	struct pollfd p[3] = { { .fd = s->from, .events = POLLIN },
		               { .fd = s->errors, .events = POLLIN },
		               { .fd = writing ? s->to : -1, .events = POLLOUT } };
	int64_t left = deadline - base_now_ms();

	if (s->cancel && *s->cancel)
		return err_set(err, -ECANCELED, "%s: cancelled", s->config->name);
	if (left <= 0)
		return err_set(err, -ETIMEDOUT, "%s: no answer in time", s->config->name);
	if (poll(p, 3, left < POLL_MS ? (int)left : POLL_MS) < 0 && errno != EINTR)
		return err_set(err, -errno, "%s: %s", s->config->name, strerror(errno));
	read_errors(s);
	return 0;
}

/* 1: something came; 0: nothing now; -EPIPE: the end. */
static int read_some(struct stdio *s, struct err *err)
{
	char piece[32768];
	ssize_t n = read(s->from, piece, sizeof(piece));
	int r;

	if (n < 0 && (errno == EINTR || errno == EAGAIN))
		return 0;
	if (n <= 0)
		return ended(s, err);
	r = ag_mcp_lines_add(&s->lines, piece, (size_t)n);
	if (r < 0)
		return err_set(err, r, "%s: a message is longer than %d bytes", s->config->name, AG_MCP_MAX_MESSAGE);
	return 1;
}

static int stdio_send(struct ag_mcp_transport *t, const char *data, size_t len, int64_t deadline, struct err *err)
{
	struct stdio *s = (struct stdio *)t;
	CLEANUP(base_buf_done) struct base_buf out = BASE_BUF_INIT(AG_MCP_MAX_MESSAGE + 1);
	size_t pos = 0;
	int r = 0;

	(void)base_buf_append(&out, data, len);
	if (base_buf_putc(&out, '\n') < 0)
		return err_set(err, base_buf_error(&out), "%s: the message is too long", s->config->name);
	while (pos < out.len && r >= 0) {
		ssize_t n = write(s->to, out.data + pos, out.len - pos);

		if (n > 0) {
			pos += (size_t)n;
			continue;
		}
		if (n < 0 && errno == EPIPE)
			return ended(s, err);
		if (n < 0 && errno != EAGAIN && errno != EINTR)
			return err_set(err, -errno, "%s: %s", s->config->name, strerror(errno));
		r = wait_for(s, true, deadline, err);
		if (r == 0) /* it may wait for us to read before it reads */
			r = read_some(s, err);
	}
	return r < 0 ? r : 0;
}

static int stdio_receive(struct ag_mcp_transport *t, int64_t deadline, json_t **ret_message, struct err *err)
{
	struct stdio *s = (struct stdio *)t;
	const char *line;
	size_t len;
	int r = 0;

	for (;;) {
		while (ag_mcp_lines_next(&s->lines, &line, &len)) {
			if (len && line[len - 1] == '\r')
				len--;
			if (len)
				return base_json_parse(s->config->name, line, len, ret_message, err);
		}
		r = read_some(s, err);
		if (r == 0)
			r = wait_for(s, false, deadline, err);
		if (r < 0)
			return r;
	}
}

static bool has_left(struct stdio *s, int64_t ms)
{
	int64_t deadline = base_now_ms() + ms;

	do {
		if (waitpid(s->pid, NULL, WNOHANG) != 0)
			return true;
		read_errors(s);
		(void)poll(NULL, 0, 5);
	} while (base_now_ms() < deadline);
	return false;
}

static void stdio_close(struct ag_mcp_transport *t)
{
	struct stdio *s = (struct stdio *)t;

	close_fdp(&s->to);
	if (s->pid > 0 && !has_left(s, LEAVE_MS)) {
		(void)kill(-s->pid, SIGTERM);
		if (!has_left(s, TERM_MS)) {
			(void)kill(-s->pid, SIGKILL);
			(void)waitpid(s->pid, NULL, 0);
		}
	}
	close_fdp(&s->from);
	close_fdp(&s->errors);
	ag_mcp_lines_done(&s->lines);
	free(s);
}

/* In the child: nothing but what may be called between fork and exec in a threaded program. */
static _Noreturn void become_server(char *const *argv, char *const *env, int in, int out, int errors, int report)
{
	sigset_t none;
	int error;

	(void)setpgid(0, 0);
	(void)sigemptyset(&none);
	(void)sigprocmask(SIG_SETMASK, &none, NULL);
	(void)signal(SIGPIPE, SIG_DFL);
	(void)signal(SIGINT, SIG_DFL);
	if (dup2(in, 0) >= 0 && dup2(out, 1) >= 0 && dup2(errors, 2) >= 0)
		(void)execvpe(argv[0], argv, env);
	error = errno;
	(void)!write(report, &error, sizeof(error));
	_exit(127);
}

/* This environment with the configured names replaced; the strings are borrowed. */
static char **merge_env(char **extra)
{
	size_t n = 0, n_extra = 0, out = 0;
	char **env;

	while (environ[n])
		n++;
	while (extra && extra[n_extra])
		n_extra++;
	env = calloc(n + n_extra + 1, sizeof(*env));
	for (size_t i = 0; env && i < n; i++) {
		bool replaced = false;

		for (size_t k = 0; k < n_extra; k++) {
			size_t name = strcspn(extra[k], "=") + 1;

			replaced = replaced || strncmp(environ[i], extra[k], name) == 0;
		}
		if (!replaced)
			env[out++] = environ[i];
	}
	for (size_t k = 0; env && k < n_extra; k++)
		env[out++] = extra[k];
	return env;
}

static int start(struct stdio *s, const int in[2], const int out[2], const int errors[2], const int report[2],
                 struct err *err)
{
	CLEANUP(freep) char **env = merge_env(s->config->env);
	int error = 0;
	ssize_t n;

	s->pid = env ? fork() : -1;
	if (s->pid < 0) {
		error = env ? errno : ENOMEM;
		(void)close(report[1]);
		return err_set(err, -error, "%s: %s", s->config->name, strerror(error));
	}
	if (s->pid == 0)
		become_server(s->config->argv, env, in[0], out[1], errors[1], report[1]);
	(void)close(report[1]);
	do
		n = read(report[0], &error, sizeof(error));
	while (n < 0 && errno == EINTR);
	if (n == (ssize_t)sizeof(error))
		return err_set(err, -error, "%s: %s: %s", s->config->name, s->config->argv[0], strerror(error));
	return 0;
}

int ag_mcp_stdio_open(const struct ag_mcp_config *config, const volatile sig_atomic_t *cancel,
                      struct ag_mcp_transport **ret_transport, struct err *err)
{
	int pipes[4][2] = { { -1, -1 }, { -1, -1 }, { -1, -1 }, { -1, -1 } }, r = 0;
	struct stdio *s = calloc(1, sizeof(*s));

	if (!s)
		return err_set(err, -ENOMEM, "out of memory");
	*s = (struct stdio){ .t = { stdio_send, stdio_receive, NULL, stdio_close },
		             .config = config,
		             .cancel = cancel };
	s->to = s->from = s->errors = -1;
	ag_mcp_lines_init(&s->lines);
	/* A server that ends must not end this program. */
	(void)signal(SIGPIPE, SIG_IGN);
	for (size_t i = 0; i < 4 && r == 0; i++)
		r = pipe2(pipes[i], O_CLOEXEC) < 0 ? err_set(err, -errno, "%s: %s", config->name, strerror(errno)) : 0;
	if (r == 0) {
		r = start(s, pipes[0], pipes[1], pipes[2], pipes[3], err);
		pipes[3][1] = -1; /* closed there */
	}
	s->to = pipes[0][1];
	s->from = pipes[1][0];
	s->errors = pipes[2][0];
	close_fdp(&pipes[0][0]);
	close_fdp(&pipes[1][1]);
	close_fdp(&pipes[2][1]);
	close_fdp(&pipes[3][0]);
	close_fdp(&pipes[3][1]);
	if (r == 0 && (fcntl(s->to, F_SETFL, O_NONBLOCK) < 0 || fcntl(s->from, F_SETFL, O_NONBLOCK) < 0 ||
	               fcntl(s->errors, F_SETFL, O_NONBLOCK) < 0))
		r = err_set(err, -errno, "%s: %s", config->name, strerror(errno));
	if (r < 0) {
		stdio_close(&s->t);
		return r;
	}
	*ret_transport = &s->t;
	return 0;
}
