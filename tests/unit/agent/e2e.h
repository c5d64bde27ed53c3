/* The real ocai program as a person meets it: on a pseudo-terminal, or with pipes, against a scripted server.
 *
 * Every test has a folder of its own for home, configuration, history and run time files, and an environment made from
 * nothing, so that neither the machine's settings nor another test is seen. Nothing sleeps to be in time: e2e_expect()
 * waits for text, e2e_ask() for a question that reads keys already (what is typed before is thrown away by menus), and
 * each has a limit that only a program that hangs reaches. The program is the one that was built beside the test. */
#ifndef E2E_H
#define E2E_H

#include "fake_server.h"
#include "term/term.h"
#include "pty_test.h"

#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <sys/stat.h>

enum { E2E_LIMIT_MS = 180000, E2E_LOG = 1 << 20, E2E_ENV = 48, E2E_ARGS = 24, E2E_PATH = 4096 };

struct e2e {
	char dir[E2E_PATH / 4]; /* removed at the end */
	char program[E2E_PATH];
	struct fake_server server;
	bool has_server;
	char *env[E2E_ENV + 1];
	const char *argv[E2E_ARGS + 1];
	struct pty pty;
	bool has_pty;
	char *log; /* every byte that came from the terminal */
	size_t n_log;
	char *out, *err; /* of e2e_run() */
};

/* ---- Environment ---- */

/* value: NULL takes it away. */
static inline void e2e_env(struct e2e *t, const char *name, const char *value)
{
	size_t len = strlen(name), i, n;
	char *entry = NULL;

	for (i = 0; t->env[i] && (strncmp(t->env[i], name, len) != 0 || t->env[i][len] != '='); i++)
		;
	if (value && asprintf(&entry, "%s=%s", name, value) < 0)
		fail();
	if (!t->env[i]) {
		assert_true(i < E2E_ENV);
		t->env[i] = entry;
		return;
	}
	free(t->env[i]);
	for (n = i; t->env[n + 1]; n++)
		;
	t->env[i] = entry ? entry : t->env[n];
	if (!entry)
		t->env[n] = NULL;
}

/* "<the test's folder>/<rest>" in one of a few buffers. */
static inline const char *e2e_path(const struct e2e *t, const char *rest)
{
	static char path[4][E2E_PATH];
	static unsigned next;

	next = (next + 1) % 4;
	(void)snprintf(path[next], sizeof(path[next]), "%s/%s", t->dir, rest);
	return path[next];
}

static inline void e2e_env_path(struct e2e *t, const char *name, const char *rest)
{
	(void)mkdir(e2e_path(t, rest), 0700);
	e2e_env(t, name, e2e_path(t, rest));
}

/* The program beside this test: build/CONFIG/tests/unit/agent/test_x -> build/CONFIG/bin/ocai. */
static inline void e2e_find_program(struct e2e *t)
{
	char self[E2E_PATH - 32];
	ssize_t n = readlink("/proc/self/exe", self, sizeof(self) - 1);
	char *slash;

	assert_true(n > 0);
	self[n] = '\0';
	for (int i = 0; i < 4; i++) {
		slash = strrchr(self, '/');
		assert_non_null(slash);
		*slash = '\0';
	}
	(void)snprintf(t->program, sizeof(t->program), "%s/bin/ocai", self);
	if (access(t->program, X_OK) < 0)
		fail_msg("%s is not built", t->program);
}

static inline int e2e_setup(void **state)
{
	static const char *const kept[] = { "PATH", "LSAN_OPTIONS" };
	static const char *const sanitizers[] = { "ASAN_OPTIONS", "UBSAN_OPTIONS", "TSAN_OPTIONS" };
	struct e2e *t = calloc(1, sizeof(*t));
	const char *tmp = getenv("TMPDIR");

	assert_non_null(t);
	*state = t;
	/* The engine's socket is below it, and a socket's path is short. */
	(void)snprintf(t->dir, sizeof(t->dir), "%s/e2e-XXXXXX", tmp && *tmp && strlen(tmp) < 60 ? tmp : "/tmp");
	assert_non_null(mkdtemp(t->dir));
	t->log = calloc(1, E2E_LOG);
	assert_non_null(t->log);
	e2e_find_program(t);
	for (size_t i = 0; i < sizeof(kept) / sizeof(*kept); i++)
		e2e_env(t, kept[i], getenv(kept[i]));
	/* What a sanitizer finds in the program is an exit code that no test expects. */
	for (size_t i = 0; i < sizeof(sanitizers) / sizeof(*sanitizers); i++) {
		const char *given = getenv(sanitizers[i]);
		char text[1024];

		(void)snprintf(text, sizeof(text), "%s:exitcode=99", given ? given : "");
		e2e_env(t, sanitizers[i], text + (given ? 0 : 1));
	}
	e2e_env_path(t, "HOME", "home");
	e2e_env_path(t, "XDG_RUNTIME_DIR", "run");
	e2e_env_path(t, "XDG_CONFIG_HOME", "config");
	e2e_env_path(t, "XDG_DATA_HOME", "data");
	e2e_env_path(t, "XDG_STATE_HOME", "state");
	e2e_env(t, "LANG", "en_US.UTF-8");
	e2e_env(t, "TERM", "xterm-256color");
	e2e_env(t, "SHELL", "/bin/sh");
	/* One request for one answer: the model need not be asked for, and no catalogue answers in its place. */
	e2e_env(t, "OCAI_MODEL", "test-model");
	e2e_env(t, "OCAI_KNOWLEDGE_DIR", "/nonexistent");
	e2e_env(t, "OCAI_ENGINE", "/nonexistent/engine");
	return 0;
}

static inline void e2e_stop_server(struct e2e *t)
{
	if (t->has_server)
		fake_stop(&t->server);
	t->has_server = false;
}

static inline int e2e_teardown(void **state)
{
	struct e2e *t = *state;
	char command[E2E_PATH];

	if (t->has_pty) { /* the test failed */
		(void)kill(t->pty.pid, SIGKILL);
		(void)close(t->pty.master);
		(void)waitpid(t->pty.pid, NULL, 0);
	}
	screen_done(&t->pty.screen);
	e2e_stop_server(t);
	for (size_t i = 0; t->env[i]; i++)
		free(t->env[i]);
	free(t->log);
	free(t->out);
	free(t->err);
	(void)snprintf(command, sizeof(command), "rm -rf '%s'", t->dir);
	free(t);
	return system(command);
}

#define E2E_TEST(f) cmocka_unit_test_setup_teardown(f, e2e_setup, e2e_teardown)

/* ---- Server ---- */

/* answers: as in fake_server.h; they stay the caller's until the test ends. */
static inline void e2e_serve(struct e2e *t, const char *const *answers)
{
	e2e_stop_server(t);
	fake_start(&t->server, answers);
	t->has_server = true;
	e2e_env(t, "OCAI_URL", t->server.url);
}

#define E2E_SERVE(t, ...)                                                       \
	do {                                                                    \
		static const char *const e2e_answers[] = { __VA_ARGS__, NULL }; \
		e2e_serve(t, e2e_answers);                                      \
	} while (0)

#define E2E_SAY(text) FAKE_SSE(FAKE_DELTA(text) FAKE_DONE)

static inline void e2e_wait_count(const atomic_int *counter, int n, const char *what)
{
	int64_t until = pty_now_ms() + E2E_LIMIT_MS;

	while (atomic_load(counter) < n) {
		if (pty_now_ms() > until)
			fail_msg("%s: %d, expected %d", what, atomic_load(counter), n);
		(void)usleep(2000);
	}
}

/* The request of this number, from 0, once it is there. */
static inline const char *e2e_request(struct e2e *t, int i)
{
	e2e_wait_count(&t->server.n_requests, i + 1, "requests");
	return t->server.requests[i];
}

static inline void e2e_request_has(struct e2e *t, int i, const char *text)
{
	const char *request = e2e_request(t, i);

	if (!strstr(request, text))
		fail_msg("request %d does not hold '%s':\n%s", i, text, request);
}

/* ---- On a terminal ---- */

static inline int e2e_exec(void *arg)
{
	struct e2e *t = arg;

	(void)chdir(t->dir);
	(void)execve(t->argv[0], (char *const *)t->argv, t->env);
	return 126;
}

static inline void e2e_set_args(struct e2e *t, const char *program, const char *const *args)
{
	size_t n = 0;

	t->argv[n++] = program;
	for (; *args; args++) {
		assert_true(n < E2E_ARGS);
		t->argv[n++] = *args;
	}
	t->argv[n] = NULL;
}

static inline void e2e_start(struct e2e *t, unsigned columns, unsigned rows, const char *program,
                             const char *const *args)
{
	e2e_set_args(t, program, args);
	t->n_log = 0;
	t->log[0] = '\0';
	screen_done(&t->pty.screen); /* that of the program before */
	memset(&t->pty, 0, sizeof(t->pty));
	pty_start(&t->pty, columns, rows, e2e_exec, t);
	(void)fcntl(t->pty.master, F_SETFD, FD_CLOEXEC);
	t->has_pty = true;
}

/* ocai with these words on a terminal of 80 x 40. */
#define E2E_OCAI(t, ...) e2e_start(t, 80, 40, (t)->program, (const char *const[]){ __VA_ARGS__, NULL })
/* A shell line on the terminal, in which "$OCAI" is the program. */
#define E2E_SHELL(t, line)                                                                  \
	do {                                                                                \
		e2e_env(t, "OCAI", (t)->program);                                           \
		e2e_start(t, 80, 40, "/bin/sh", (const char *const[]){ "-c", line, NULL }); \
	} while (0)

static inline bool e2e_read(struct e2e *t, int timeout_ms)
{
	struct pollfd fd = { .fd = t->pty.master, .events = POLLIN };
	size_t room = E2E_LOG - 1 - t->n_log;
	ssize_t n;

	if (poll(&fd, 1, timeout_ms) <= 0)
		return true;
	assert_true(room > 0);
	n = read(t->pty.master, t->log + t->n_log, room < 4096 ? room : 4096);
	if (n < 0 && errno == EINTR)
		return true;
	if (n <= 0)
		return false;
	screen_feed(&t->pty.screen, t->log + t->n_log, (size_t)n);
	t->n_log += (size_t)n;
	t->log[t->n_log] = '\0';
	return true;
}

static inline void e2e_show(struct e2e *t)
{
	unsigned last = 0;

	for (unsigned y = 0; y < t->pty.screen.rows; y++)
		last = *screen_row(&t->pty.screen, y) ? y : last;
	for (unsigned y = 0; y <= last; y++)
		print_error("|%s\n", screen_row(&t->pty.screen, y));
}

/* Waits until is_there(t, text). */
static inline void e2e_until(struct e2e *t, bool (*is_there)(struct e2e *t, const char *text), const char *text,
                             const char *what)
{
	int64_t until = pty_now_ms() + E2E_LIMIT_MS;
	bool more = true;

	while (!is_there(t, text)) {
		if (!more || pty_now_ms() > until) {
			e2e_show(t);
			fail_msg("%s: %s%s", what, text, more ? "" : " (the program has ended)");
		}
		more = e2e_read(t, 50);
	}
}

static inline bool e2e_is_shown(struct e2e *t, const char *text)
{
	return screen_has(&t->pty.screen, text);
}

static inline bool e2e_is_gone(struct e2e *t, const char *text)
{
	return !screen_has(&t->pty.screen, text);
}

/* ">" is the prompt of a conversation: alone in the cursor's row, for it stands before every question, too. */
static inline bool e2e_is_asked(struct e2e *t, const char *text)
{
	struct screen *s = &t->pty.screen;
	struct termios mode;

	/* While an answer streams pastes are bracketed, too, but Ctrl-C is a signal. */
	return s->paste_mode && tcgetattr(t->pty.master, &mode) == 0 && !(mode.c_lflag & ISIG) &&
	       (strcmp(text, ">") == 0 ? strcmp(screen_row(s, s->y), ">") == 0 : screen_has(s, text));
}

static inline void e2e_expect(struct e2e *t, const char *text)
{
	e2e_until(t, e2e_is_shown, text, "not on the screen");
}

/* A question that shows this text and reads keys now. A dumb terminal is not told so: there the text has to do. */
static inline void e2e_ask(struct e2e *t, const char *text)
{
	e2e_until(t, e2e_is_asked, text, "not asked");
}

static inline void e2e_type(struct e2e *t, const char *keys)
{
	pty_type(&t->pty, keys);
}

/* Text of the screen so far is no longer of interest. */
static inline void e2e_wipe(struct e2e *t)
{
	struct screen *s = &t->pty.screen;

	memset(s->cells, 0, (size_t)s->columns * s->rows * CELL_BYTES);
}

/* Types when it is asked. What was on the screen is taken away first, so that what is expected next is new. */
static inline void e2e_reply(struct e2e *t, const char *question, const char *keys)
{
	e2e_ask(t, question);
	e2e_wipe(t);
	e2e_type(t, keys);
}

/* Reads to the end and wants this exit status; the screen stays to be looked at. */
static inline void e2e_ends(struct e2e *t, int code)
{
	int64_t until = pty_now_ms() + E2E_LIMIT_MS;
	int status = 0;
	pid_t pid = 0;

	/* The end of output is the end of the program; what it left running may hold the terminal open. */
	while (e2e_read(t, 20) && (pid = waitpid(t->pty.pid, &status, WNOHANG)) == 0) {
		if (pty_now_ms() > until) {
			e2e_show(t);
			fail_msg("the program does not end");
		}
	}
	if (pid == 0)
		pid = waitpid(t->pty.pid, &status, 0);
	assert_int_equal(pid, t->pty.pid);
	for (int i = 0; i < 100; i++) { /* what is still on its way */
		struct pollfd fd = { .fd = t->pty.master, .events = POLLIN };

		if (poll(&fd, 1, 0) <= 0 || !e2e_read(t, 0))
			break;
	}
	if (!WIFEXITED(status) || WEXITSTATUS(status) != code) {
		e2e_show(t);
		fail_msg("ended with wait status %x, expected exit code %d", (unsigned)status, code);
	}
	(void)close(t->pty.master);
	t->has_pty = false;
}

static inline bool e2e_saw(struct e2e *t, const char *bytes)
{
	return memmem(t->log, t->n_log, bytes, strlen(bytes)) != NULL;
}

/* ---- With pipes ---- */

static inline int e2e_temp(void)
{
	char path[] = "/tmp/e2e-out-XXXXXX";
	int fd = mkostemp(path, O_CLOEXEC);

	assert_true(fd >= 0);
	(void)unlink(path);
	return fd;
}

static inline char *e2e_slurp(int fd)
{
	off_t size = lseek(fd, 0, SEEK_END);
	char *text = calloc(1, (size_t)size + 1);

	assert_non_null(text);
	assert_int_equal(pread(fd, text, (size_t)size, 0), size);
	(void)close(fd);
	return text;
}

/* Runs the program without any terminal; input: what is piped in, NULL for /dev/null. The exit status; what it wrote is
 * in t->out and t->err. */
static inline int e2e_run(struct e2e *t, const char *input, const char *const *args)
{
	int fd_out = e2e_temp(), fd_err = e2e_temp(), fds[2], status = 0;
	pid_t pid;

	e2e_set_args(t, t->program, args);
	assert_int_equal(pipe2(fds, O_CLOEXEC), 0);
	pid = fork();
	assert_true(pid >= 0);
	if (pid == 0) {
		(void)setsid(); /* no terminal, even where the test has one */
		(void)alarm(300);
		(void)dup2(input ? fds[0] : open("/dev/null", O_RDONLY), STDIN_FILENO);
		(void)dup2(fd_out, STDOUT_FILENO);
		(void)dup2(fd_err, STDERR_FILENO);
		_exit(e2e_exec(t));
	}
	(void)close(fds[0]);
	if (input)
		assert_int_equal(write(fds[1], input, strlen(input)), (ssize_t)strlen(input));
	(void)close(fds[1]);
	assert_int_equal(waitpid(pid, &status, 0), pid);
	free(t->out);
	free(t->err);
	t->out = e2e_slurp(fd_out);
	t->err = e2e_slurp(fd_err);
	return WIFEXITED(status) ? WEXITSTATUS(status) : 1000 + WTERMSIG(status);
}

#define E2E_RUN(t, input, ...) e2e_run(t, input, (const char *const[]){ __VA_ARGS__, NULL })

/* Standard output of the last run is this, standard error holds this. */
static inline void e2e_out_is(struct e2e *t, const char *want)
{
	assert_string_equal(t->out, want);
}

static inline void e2e_err_has(struct e2e *t, const char *text)
{
	if (!strstr(t->err, text))
		fail_msg("standard error does not hold '%s': %s", text, t->err);
}

/* ---- Files ---- */

static inline void e2e_write(struct e2e *t, const char *rest, const char *text, size_t len)
{
	char path[E2E_PATH];
	FILE *f;

	(void)snprintf(path, sizeof(path), "%s/%s", t->dir, rest);
	for (char *p = strchr(path + strlen(t->dir) + 1, '/'); p; p = strchr(p + 1, '/')) {
		*p = '\0';
		(void)mkdir(path, 0700);
		*p = '/';
	}
	f = fopen(path, "we");
	assert_non_null(f);
	assert_int_equal(fwrite(text, 1, len, f), len);
	assert_int_equal(fclose(f), 0);
}

static inline void e2e_write_text(struct e2e *t, const char *rest, const char *text)
{
	e2e_write(t, rest, text, strlen(text));
}

static inline bool e2e_exists(struct e2e *t, const char *rest)
{
	struct stat st;

	return lstat(e2e_path(t, rest), &st) == 0;
}

#endif
