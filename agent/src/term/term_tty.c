/* The terminal device: raw mode, signals, bytes in and out.
 *
 * Raw mode is a debt that is always paid. While it lasts, every signal that ends or stops the program, a crash
 * included, first puts the terminal back (tcsetattr and write may be called in a handler), then goes on to what it
 * would have done; a program that comes back from it (continued, or with a handler of its own) has raw mode again
 * and draws anew. Only the process that entered raw mode leaves it: a child between fork and exec does not.
 *
 * Modes are set without waiting for output to drain (TCSANOW): a terminal that is stopped must not hold a handler up.
 *
 * A handler wakes the reader through a pipe, so that no signal falls between looking and waiting. */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <termios.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "term_internal.h"

enum { ESCAPE_WAIT_MS = 50 };

static const char enter_text[] = "\033[?2004h";                 /* bracketed paste */
static const char leave_text[] = "\033[?2004l\033[?25h\033[0m"; /* no bracketed paste, cursor, plain style */

struct ag_term {
	int fd;
	const char *color;
	struct ag_term_look look;
	struct ag_term_keys keys;
	bool at_end;
};

/* ---- Raw mode and signals ---- */

static const int fatal_signals[] = { SIGINT, SIGTERM, SIGHUP, SIGQUIT, SIGABRT, SIGSEGV, SIGBUS, SIGFPE, SIGILL };
enum { N_FATAL = sizeof(fatal_signals) / sizeof(fatal_signals[0]) };

/* The one raw terminal of the process; read by handlers. */
static struct {
	volatile sig_atomic_t active;
	unsigned depth; /* questions within questions: a form and its fields */
	bool quiet;     /* no question: see ag_term_quiet_begin() */
	int fd;
	pid_t pid;
	bool can_move;
	struct termios saved, now;
	struct sigaction old_fatal[N_FATAL], old_stop, old_cont, old_winch;
	int wake[2];
	volatile sig_atomic_t changed; /* draw again */
} raw = { .fd = -1, .wake = { -1, -1 } };

static void put_back(void)
{
	if (!raw.active || raw.pid != getpid())
		return;
	if (raw.can_move)
		(void)!write(raw.fd, leave_text, sizeof(leave_text) - 1);
	(void)tcsetattr(raw.fd, TCSANOW, &raw.saved);
}

static void enter_again(void)
{
	if (!raw.active || raw.pid != getpid())
		return;
	(void)tcsetattr(raw.fd, TCSANOW, &raw.now);
	if (raw.can_move)
		(void)!write(raw.fd, enter_text, sizeof(enter_text) - 1);
}

static void wake(void)
{
	raw.changed = 1;
	(void)!write(raw.wake[1], "", 1);
}

/* Lets the signal do what it would have done without us; returns when the program lives on. */
static void deliver(int signo, const struct sigaction *old)
{
	struct sigaction ours;
	sigset_t one, mask;

	(void)sigaction(signo, old, &ours);
	(void)sigemptyset(&one);
	(void)sigaddset(&one, signo);
	(void)raise(signo);
	(void)pthread_sigmask(SIG_UNBLOCK, &one, &mask); /* delivered here */
	(void)pthread_sigmask(SIG_SETMASK, &mask, NULL);
	(void)sigaction(signo, &ours, NULL);
}

static void on_signal(int signo)
{
	const struct sigaction *old = &raw.old_stop;
	int saved_errno = errno;

	for (size_t i = 0; i < N_FATAL; i++) {
		if (fatal_signals[i] == signo)
			old = &raw.old_fatal[i];
	}
	put_back();
	deliver(signo, old);
	enter_again();
	wake();
	errno = saved_errno;
}

/* After a stop that could not be seen coming (SIGSTOP), the shell has put its own modes in place. */
static void on_continue(int signo)
{
	int saved_errno = errno;

	(void)signo;
	enter_again();
	wake();
	errno = saved_errno;
}

static void on_resize(int signo)
{
	int saved_errno = errno;

	(void)signo;
	wake();
	errno = saved_errno;
}

static void catch_signal(int signo, void (*handler)(int), struct sigaction *ret_old)
{
	struct sigaction action = { .sa_handler = handler, .sa_flags = SA_RESTART };

	(void)sigemptyset(&action.sa_mask);
	(void)sigaction(signo, NULL, ret_old);
	/* What the program ignores (nohup) stays ignored. A window's change and a continuation do nothing by default.
	 */
	if (ret_old->sa_handler != SIG_IGN || signo == SIGWINCH || signo == SIGCONT)
		(void)sigaction(signo, &action, NULL);
}

static void catch_signals(void)
{
	for (size_t i = 0; i < N_FATAL; i++)
		catch_signal(fatal_signals[i], on_signal, &raw.old_fatal[i]);
	catch_signal(SIGTSTP, on_signal, &raw.old_stop);
	catch_signal(SIGCONT, on_continue, &raw.old_cont);
	catch_signal(SIGWINCH, on_resize, &raw.old_winch);
}

static void release_signals(void)
{
	for (size_t i = 0; i < N_FATAL; i++)
		(void)sigaction(fatal_signals[i], &raw.old_fatal[i], NULL);
	(void)sigaction(SIGTSTP, &raw.old_stop, NULL);
	(void)sigaction(SIGCONT, &raw.old_cont, NULL);
	(void)sigaction(SIGWINCH, &raw.old_winch, NULL);
}

/* Lives as long as the process: a handler may write to it at any time. */
static int make_wake_pipe(struct err *err)
{
	if (raw.wake[0] >= 0)
		return 0;
	if (pipe2(raw.wake, O_CLOEXEC | O_NONBLOCK) < 0)
		return err_set(err, -errno, "terminal: pipe: %s", strerror(errno));
	(void)atexit(put_back);
	return 0;
}

static void forget_keys(struct ag_term *t)
{
	(void)tcflush(t->fd, TCIFLUSH);
	ag_term_keys_done(&t->keys);
	ag_term_keys_init(&t->keys);
}

static void make_raw(struct termios *mode)
{
	mode->c_iflag &= ~(tcflag_t)(BRKINT | ICRNL | INLCR | IGNCR | INPCK | ISTRIP | IXON);
	mode->c_lflag &= ~(tcflag_t)(ECHO | ECHONL | ICANON | IEXTEN | ISIG);
	mode->c_cflag |= CS8;
	mode->c_cc[VMIN] = 1;
	mode->c_cc[VTIME] = 0;
}

static void feed(struct ag_term *t, const char *bytes, size_t n)
{
	(void)ag_term_keys_feed(&t->keys, bytes, n); /* what is too much is lost, as in the kernel's queue */
}

/* One read of a cooked terminal as the keys that were typed: its newline was Enter, nothing at all was Ctrl-D. (Ctrl-D
 * behind text only hands the text over, and does nothing in the editor either. Bytes that came in an earlier raw mode
 * are one line without a newline.) */
static void feed_cooked(struct ag_term *t, char *bytes, size_t n)
{
	for (size_t i = 0; i < n; i++) {
		if (bytes[i] == '\n' && (raw.saved.c_iflag & ICRNL))
			bytes[i] = '\r';
	}
	feed(t, n ? bytes : "\x04", n ? n : 1);
}

/* What was typed while the terminal was cooked, between two questions, lies in the kernel's queue as a cooked reader
 * would get it. A raw reader would find newlines in the place of Enter, and a zero byte in the place of Ctrl-D, which
 * would then be lost. So whole lines are taken while it is cooked still; half a line can wait. What comes meanwhile
 * is raw already in all but name, for no key means anything to the kernel any more. */
static void take_typed_ahead(struct ag_term *t)
{
	static const int meanings[] = { VEOF, VEOL, VEOL2, VERASE, VKILL };
	struct pollfd p = { .fd = t->fd, .events = POLLIN };
	struct termios mode = raw.saved;
	int flags = fcntl(t->fd, F_GETFL);
	char bytes[4096]; /* a line is no longer there */
	ssize_t n = 0;

	if (!(raw.saved.c_lflag & ICANON) || flags < 0)
		return;
	make_raw(&mode);
	mode.c_lflag |= ICANON;
	for (size_t i = 0; i < sizeof(meanings) / sizeof(*meanings); i++)
		mode.c_cc[meanings[i]] = _POSIX_VDISABLE;
	(void)tcsetattr(t->fd, TCSANOW, &mode);
	(void)fcntl(t->fd, F_SETFL, flags | O_NONBLOCK); /* the line may have gone again: Ctrl-C */
	while (n >= 0 && poll(&p, 1, 0) > 0 && !(p.revents & (POLLHUP | POLLERR))) {
		n = read(t->fd, bytes, sizeof(bytes));
		if (n >= 0)
			feed_cooked(t, bytes, (size_t)n);
	}
	(void)fcntl(t->fd, F_SETFL, flags);
}

/* ---- Modes ------------------------------------------------------------------------------------------------------- */

static int begin(struct ag_term *t, struct err *err)
{
	int r = make_wake_pipe(err);

	if (r < 0)
		return r;
	if (tcgetattr(t->fd, &raw.saved) < 0)
		return err_set(err, -errno, "terminal: %s", strerror(errno));
	raw.now = raw.saved;
	raw.fd = t->fd;
	raw.pid = getpid();
	raw.can_move = t->look.can_move;
	raw.changed = 0;
	raw.depth = 0;
	catch_signals();
	raw.active = 1;
	return 0;
}

static void end(void)
{
	put_back();
	raw.active = 0;
	raw.quiet = false;
	release_signals();
}

int term_raw_begin(struct ag_term *t, bool fresh, struct err *err)
{
	int r = 0;

	ag_term_quiet_end(t);
	if (raw.active && raw.fd != t->fd)
		return err_set(err, -EBUSY, "terminal: a question is open already");
	if (!raw.active)
		r = begin(t, err);
	if (r < 0)
		return r;
	if (raw.depth++ == 0) { /* the outermost question */
		if (!fresh)
			take_typed_ahead(t);
		make_raw(&raw.now);
		if (tcsetattr(t->fd, TCSANOW, &raw.now) < 0) {
			r = -errno;
			term_raw_end(t);
			return err_set(err, r, "terminal: %s", strerror(-r));
		}
	}
	if (fresh)
		forget_keys(t);
	enter_again(); /* from here on a question is seen to be open */
	term_look_at_size(t->fd, &t->look);
	return 0;
}

void term_raw_end(struct ag_term *t)
{
	(void)t;
	if (--raw.depth == 0)
		end();
}

void ag_term_quiet_begin(struct ag_term *t)
{
	/* A job in the background would be stopped for touching the terminal. */
	if (raw.active || !t->look.can_move || tcgetpgrp(t->fd) != getpgrp() || begin(t, NULL) < 0)
		return;
	raw.quiet = true;
	raw.now.c_lflag &= ~(tcflag_t)(ECHO | ECHONL | ICANON | IEXTEN); /* Ctrl-C and Ctrl-Z act at once */
	raw.now.c_cc[VMIN] = 1;
	raw.now.c_cc[VTIME] = 0;
	enter_again();
}

void ag_term_quiet_end(struct ag_term *t)
{
	if (raw.active && raw.quiet && raw.fd == t->fd)
		end();
}

void term_suspend(void)
{
	(void)raise(SIGTSTP); /* on_signal does the rest, and wakes the reader afterwards */
}

/* ---- Interruption of what is no question ---- */

static volatile sig_atomic_t interrupted;
static struct sigaction old_interrupt;

static void on_interrupt(int signo)
{
	(void)signo;
	interrupted = 1;
}

static void note_interrupts(struct sigaction *ret_old)
{
	struct sigaction action = { .sa_handler = on_interrupt }; /* no SA_RESTART: waiting calls return */

	(void)sigemptyset(&action.sa_mask);
	interrupted = 0;
	(void)sigaction(SIGINT, &action, ret_old);
}

void ag_term_interrupt_begin(void)
{
	note_interrupts(&old_interrupt);
}

bool ag_term_interrupt_asked(void)
{
	return interrupted != 0;
}

const volatile sig_atomic_t *ag_term_interrupt_flag(void)
{
	return &interrupted;
}

void ag_term_interrupt_end(void)
{
	(void)sigaction(SIGINT, &old_interrupt, NULL);
}

/* ---- The device ---- */

/* Without a controlling terminal a container may still have one on a standard stream. */
static int open_standard_stream(void)
{
	static const int streams[] = { STDIN_FILENO, STDERR_FILENO, STDOUT_FILENO };

	for (size_t i = 0; i < sizeof(streams) / sizeof(streams[0]); i++) {
		if (isatty(streams[i]) && (fcntl(streams[i], F_GETFL) & O_ACCMODE) == O_RDWR)
			return fcntl(streams[i], F_DUPFD_CLOEXEC, 3);
	}
	return -1;
}

int ag_term_open(const char *device, const char *color, struct ag_term **ret_term, struct err *err)
{
	const char *path = device ? device : "/dev/tty";
	CLEANUP(close_fdp) int fd = open(path, O_RDWR | O_CLOEXEC | O_NOCTTY);
	struct ag_term *t;

	if (fd < 0 && !device)
		fd = open_standard_stream();
	if (fd < 0 || !isatty(fd))
		return err_set(err, -ENOTTY, "%s: no terminal to ask on", path);
	t = calloc(1, sizeof(*t));
	if (!t)
		return err_set(err, -ENOMEM, "out of memory");
	t->fd = fd;
	fd = -1;
	ag_term_look_at(t->fd, color, &t->look);
	ag_term_keys_init(&t->keys);
	*ret_term = t;
	return 0;
}

void ag_term_close(struct ag_term *t)
{
	if (!t)
		return;
	if (raw.active && raw.fd == t->fd)
		end();
	(void)close(t->fd);
	ag_term_keys_done(&t->keys);
	free(t);
}

const struct ag_term_look *ag_term_get_look(struct ag_term *t)
{
	term_look_at_size(t->fd, &t->look);
	return &t->look;
}

static int write_all(struct ag_term *t, const char *bytes, size_t len)
{
	while (len) {
		ssize_t n = write(t->fd, bytes, len);

		if (n < 0 && errno == EAGAIN) {
			struct pollfd p = { .fd = t->fd, .events = POLLOUT };

			(void)poll(&p, 1, -1);
			continue;
		}
		if (n < 0 && errno != EINTR)
			return -errno;
		if (n > 0) {
			bytes += n;
			len -= (size_t)n;
		}
	}
	return 0;
}

int ag_term_puts(struct ag_term *t, const char *text)
{
	return write_all(t, text, strlen(text));
}

int term_flush_buf(struct ag_term *t, struct base_buf *out)
{
	int r = base_buf_error(out);

	if (r == 0 && out->len)
		r = write_all(t, out->data, out->len);
	base_buf_reset(out);
	return r;
}

/* Waits for bytes or a signal's word: 1 when bytes were fed, 0 for neither in time, negative at the end (-ENODATA)
 * or on errors. */
static int fill(struct ag_term *t, int timeout_ms)
{
	struct pollfd p[2] = { { .fd = t->fd, .events = POLLIN }, { .fd = raw.wake[0], .events = POLLIN } };
	char bytes[4096];
	ssize_t n;

	if (poll(p, 2, timeout_ms) < 0)
		return errno == EINTR ? 0 : -errno;
	if (p[1].revents) {
		while (read(raw.wake[0], bytes, sizeof(bytes)) > 0)
			;
	}
	if (!p[0].revents)
		return 0;
	n = read(t->fd, bytes, sizeof(bytes));
	if (n < 0 && (errno == EINTR || errno == EAGAIN))
		return 0;
	if (n <= 0) /* hung up: EIO as well */
		return -ENODATA;
	n = ag_term_keys_feed(&t->keys, bytes, (size_t)n);
	return n < 0 ? (int)n : 1;
}

int term_read_key(struct ag_term *t, struct ag_term_key *ret_key)
{
	int r = 1;

	for (;;) {
		if (raw.changed) {
			raw.changed = 0;
			term_look_at_size(t->fd, &t->look);
			*ret_key = (struct ag_term_key){ .type = AG_KEY_RESIZE };
			return 1;
		}
		if (ag_term_keys_next(&t->keys, r == 0, ret_key))
			return 1;
		if (t->at_end)
			return 0;
		r = fill(t, ag_term_keys_is_waiting(&t->keys) ? ESCAPE_WAIT_MS : -1);
		if (r == -ENODATA)
			t->at_end = true;
		else if (r < 0)
			return r;
	}
}

bool term_has_more_keys(const struct ag_term *t)
{
	return ag_term_keys_is_waiting(&t->keys);
}

/* ---- Lines without moving the cursor ---- */

/* waiting: the signals blocked while a line is waited for; SIGINT must be blocked outside of that. */
static int read_cooked(struct ag_term *t, size_t max_bytes, const sigset_t *waiting, struct base_buf *line)
{
	bool any = false;
	char c;

	for (;;) {
		struct pollfd p = { .fd = t->fd, .events = POLLIN };
		ssize_t n = ppoll(&p, 1, NULL, waiting);

		if (ag_term_interrupt_asked())
			return -ECANCELED;
		if (n > 0)
			n = read(t->fd, &c, 1);
		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return any;
		if (c == '\n')
			return 1;
		any = true;
		if (line->len < max_bytes)
			(void)base_buf_putc(line, c);
	}
}

int term_read_line(struct ag_term *t, struct base_buf *prompt, bool fresh, bool secret, size_t max_bytes,
                   struct base_buf *ret_line, struct err *err)
{
	struct base_buf line = BASE_BUF_INIT(max_bytes + 1);
	struct termios saved, cooked;
	struct sigaction old;
	sigset_t interrupt, mask, waiting;
	sig_atomic_t before = interrupted; /* the caller may be between begin and end */
	int r;

	if (tcgetattr(t->fd, &saved) < 0)
		return err_set(err, -errno, "terminal: %s", strerror(errno));
	cooked = saved;
	cooked.c_iflag |= IUTF8 | ICRNL; /* the kernel's own Backspace takes whole characters */
	cooked.c_lflag |= ICANON | ISIG | (secret ? 0 : ECHO);
	if (secret)
		cooked.c_lflag &= ~(tcflag_t)ECHO;
	/* Only waiting lets Ctrl-C in, so that it is not missed between looking and waiting. */
	(void)sigemptyset(&interrupt);
	(void)sigaddset(&interrupt, SIGINT);
	(void)pthread_sigmask(SIG_BLOCK, &interrupt, &mask);
	waiting = mask;
	(void)sigdelset(&waiting, SIGINT);
	note_interrupts(&old);
	(void)tcsetattr(t->fd, TCSANOW, &cooked);
	if (fresh)
		(void)tcflush(t->fd, TCIFLUSH);
	r = term_flush_buf(t, prompt);
	if (r >= 0)
		r = read_cooked(t, max_bytes, &waiting, &line);
	(void)tcsetattr(t->fd, TCSANOW, &saved);
	(void)sigaction(SIGINT, &old, NULL);
	(void)pthread_sigmask(SIG_SETMASK, &mask, NULL);
	interrupted = before;
	if (r <= 0 || secret)
		(void)ag_term_puts(t, "\n");
	if (r < 0 && r != -ECANCELED)
		(void)err_set(err, r, "terminal: %s", strerror(-r));
	if (r > 0 &&
	    (base_buf_error(&line) < 0 || ag_term_sanitize(ret_line, base_buf_text(&line), line.len, false) < 0))
		r = err_set(err, -ENOMEM, "out of memory");
	base_buf_done(&line);
	return r;
}
