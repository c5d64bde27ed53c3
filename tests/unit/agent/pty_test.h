/* A program on a pseudo-terminal and the screen that a person would see.
 *
 * The screen understands what is written here: printable text with wide characters, CR, LF, BS, cursor
 * up/down/right/left, home, erase in line and below, and it notes modes (?25, ?2004). It does not fold long lines, it
 * wraps as terminals do, and scrolls. Anything else it is sent fails the test: nothing unexpected may reach a terminal.
 */
#ifndef PTY_TEST_H
#define PTY_TEST_H

#include "test.h"

#include "../src/term/term.h"

#include <poll.h>
#include <pty.h>
#include <signal.h>
#include <sys/ioctl.h>
#include <sys/wait.h>
#include <termios.h>
#include <time.h>
#include <unistd.h>
#include <utf8proc.h>

enum { CELL_BYTES = 24, ROW_BYTES = 8192 };

struct screen {
	unsigned columns, rows, x, y;
	char *cells;       /* rows x columns of CELL_BYTES: text, "" for a blank; "\1" behind a wide one */
	bool wrap_pending; /* the last column was written */
	bool cursor_hidden, paste_mode;
	unsigned n_raw;   /* how often raw mode began: it asks for bracketed paste */
	char pending[64]; /* half a sequence or character */
	size_t n_pending;
	char row_text[ROW_BYTES];
};

static inline void screen_init(struct screen *s, unsigned columns, unsigned rows)
{
	memset(s, 0, sizeof(*s));
	s->columns = columns;
	s->rows = rows;
	s->cells = calloc((size_t)columns * rows, CELL_BYTES);
	assert_non_null(s->cells);
}

static inline void screen_done(struct screen *s)
{
	free(s->cells);
}

static inline char *screen_cell(struct screen *s, unsigned x, unsigned y)
{
	return s->cells + ((size_t)y * s->columns + x) * CELL_BYTES;
}

/* What is in a row, without the blanks at its end; valid until the next call for this screen. */
static inline const char *screen_row(struct screen *s, unsigned y)
{
	size_t n = 0, end = 0;

	for (unsigned x = 0; x < s->columns && n + CELL_BYTES < ROW_BYTES; x++) {
		const char *c = screen_cell(s, x, y);

		if (*c == '\1')
			continue;
		n += (size_t)snprintf(s->row_text + n, ROW_BYTES - n, "%s", *c ? c : " ");
		if (*c && strcmp(c, " ") != 0)
			end = n;
	}
	s->row_text[end] = '\0';
	return s->row_text;
}

static inline bool screen_has(struct screen *s, const char *text)
{
	for (unsigned y = 0; y < s->rows; y++) {
		if (strstr(screen_row(s, y), text))
			return true;
	}
	return false;
}

static inline void screen_erase(struct screen *s, unsigned x, unsigned y, unsigned n)
{
	memset(screen_cell(s, x, y), 0, (size_t)n * CELL_BYTES);
}

static inline void screen_line_feed(struct screen *s)
{
	s->wrap_pending = false;
	if (s->y + 1 < s->rows) {
		s->y++;
		return;
	}
	memmove(s->cells, screen_cell(s, 0, 1), (size_t)s->columns * (s->rows - 1) * CELL_BYTES);
	screen_erase(s, 0, s->rows - 1, s->columns);
}

static inline void screen_put(struct screen *s, const char *text, size_t len, unsigned width)
{
	char *cell;

	if (!width) { /* belongs to the character before */
		unsigned x = s->wrap_pending ? s->x : s->x ? s->x - 1 : 0;

		while (x && *screen_cell(s, x, s->y) == '\1')
			x--;
		cell = screen_cell(s, x, s->y);
		if (strlen(cell) + len < CELL_BYTES)
			strncat(cell, text, len);
		return;
	}
	if (s->wrap_pending || s->x + width > s->columns) {
		s->x = 0;
		screen_line_feed(s);
	}
	cell = screen_cell(s, s->x, s->y);
	memset(cell, 0, CELL_BYTES);
	memcpy(cell, text, len);
	if (width == 2)
		memcpy(screen_cell(s, s->x + 1, s->y), "\1", 2);
	s->wrap_pending = s->x + width == s->columns;
	s->x += s->wrap_pending ? width - 1 : width;
}

static inline void screen_csi(struct screen *s, const char *params, char last)
{
	unsigned n = (unsigned)strtoul(params, NULL, 10), move = n ? n : 1;

	s->wrap_pending = last == 'm' ? s->wrap_pending : false;
	if (last == 'A')
		s->y -= move < s->y ? move : s->y;
	else if (last == 'B')
		s->y = s->y + move < s->rows ? s->y + move : s->rows - 1;
	else if (last == 'C')
		s->x = s->x + move < s->columns ? s->x + move : s->columns - 1;
	else if (last == 'D')
		s->x -= move < s->x ? move : s->x;
	else if (last == 'H')
		s->x = s->y = 0;
	else if (last == 'K' && !n)
		screen_erase(s, s->x, s->y, s->columns - s->x);
	else if (last == 'J' && (!n || n == 2)) {
		unsigned from = n == 2 ? 0 : s->y * s->columns + s->x;

		memset(s->cells + (size_t)from * CELL_BYTES, 0, ((size_t)s->columns * s->rows - from) * CELL_BYTES);
	} else if (strcmp(params, "?25") == 0)
		s->cursor_hidden = last == 'l';
	else if (strcmp(params, "?2004") == 0) {
		s->paste_mode = last == 'h';
		s->n_raw += s->paste_mode;
	} else if (last != 'm')
		fail_msg("unexpected sequence ESC [ %s %c", params, last);
}

/* One byte more of what is pending: true when it is used up. */
static inline bool screen_step(struct screen *s)
{
	const char *p = s->pending;
	utf8proc_int32_t cp;

	if (p[0] == '\r') {
		s->x = 0;
		s->wrap_pending = false;
	} else if (p[0] == '\n') {
		screen_line_feed(s);
	} else if (p[0] == '\b') { /* the kernel's echo of an erased character */
		s->x -= s->x && !s->wrap_pending;
		s->wrap_pending = false;
	} else if (p[0] == '\033') {
		char params[64] = "";

		if (s->n_pending < 3)
			return false;
		if (p[1] != '[')
			fail_msg("unexpected sequence ESC %c", p[1]);
		if (p[s->n_pending - 1] < 0x40)
			return false;
		memcpy(params, p + 2, s->n_pending - 3);
		screen_csi(s, params, p[s->n_pending - 1]);
	} else if ((unsigned char)p[0] < 0x20 || p[0] == 0x7F) {
		fail_msg("unexpected control character %02x", (unsigned char)p[0]);
	} else {
		if (utf8proc_iterate((const utf8proc_uint8_t *)p, (utf8proc_ssize_t)s->n_pending, &cp) < 0) {
			assert_true(s->n_pending < 4);
			return false;
		}
		screen_put(s, p, s->n_pending, (unsigned)utf8proc_charwidth(cp));
	}
	return true;
}

static inline void screen_feed(struct screen *s, const char *bytes, size_t len)
{
	for (size_t i = 0; i < len; i++) {
		assert_true(s->n_pending + 1 < sizeof(s->pending));
		s->pending[s->n_pending++] = bytes[i];
		if (screen_step(s))
			s->n_pending = 0;
	}
}

/* ---- A program behind it --------------------------------------------------------------------------------------- */

struct pty {
	int master;
	pid_t pid;
	struct screen screen;
};

/* Runs child(arg) with a terminal of this size as its controlling one; its return is the exit status. */
static inline void pty_start(struct pty *p, unsigned columns, unsigned rows, int (*child)(void *), void *arg)
{
	struct winsize size = { .ws_col = (unsigned short)columns, .ws_row = (unsigned short)rows };

	screen_init(&p->screen, columns, rows);
	p->pid = forkpty(&p->master, NULL, NULL, &size);
	assert_true(p->pid >= 0);
	if (p->pid == 0) {
		/* A shell without job control starts its background jobs with these ignored. */
		(void)signal(SIGINT, SIG_DFL);
		(void)signal(SIGQUIT, SIG_DFL);
		(void)alarm(600); /* a program whose test failed and went away does not stay */
		_exit(child(arg));
	}
}

static inline void pty_type(struct pty *p, const char *keys)
{
	assert_int_equal(write(p->master, keys, strlen(keys)), (ssize_t)strlen(keys));
}

static inline int64_t pty_now_ms(void)
{
	struct timespec ts;

	(void)clock_gettime(CLOCK_MONOTONIC, &ts);
	return ts.tv_sec * 1000 + ts.tv_nsec / 1000000;
}

/* Takes in what comes within the time; false at the end of the program's output. */
static inline bool pty_read(struct pty *p, int timeout_ms)
{
	struct pollfd fd = { .fd = p->master, .events = POLLIN };
	char bytes[4096];
	ssize_t n;

	if (poll(&fd, 1, timeout_ms) <= 0)
		return true;
	n = read(p->master, bytes, sizeof(bytes));
	if (n <= 0)
		return false;
	screen_feed(&p->screen, bytes, (size_t)n);
	return true;
}

/* The time is far beyond what a loaded machine needs: only a test that fails takes it. */
enum { PTY_PATIENCE_MS = 120000 };

static inline void pty_give_up(struct pty *p, const char *what)
{
	for (unsigned y = 0; y < p->screen.rows; y++)
		print_message("|%s\n", screen_row(&p->screen, y));
	print_message("cursor at row %u, column %u\n", p->screen.y, p->screen.x);
	(void)kill(p->pid, SIGKILL);
	(void)waitpid(p->pid, NULL, 0);
	fail_msg("did not happen: %s", what);
}

/* Reads until the condition holds, which may look at p; fails the test when it does not come true. */
#define PTY_UNTIL(p, condition, what)                                                      \
	do {                                                                               \
		int64_t until_ = pty_now_ms() + PTY_PATIENCE_MS;                           \
                                                                                           \
		while (!(condition)) {                                                     \
			if (pty_now_ms() > until_ || (!pty_read((p), 20) && !(condition))) \
				pty_give_up((p), (what));                                  \
		}                                                                          \
	} while (0)

/* Until the text is on the screen. */
static inline void pty_expect(struct pty *p, const char *text)
{
	PTY_UNTIL(p, screen_has(&p->screen, text), text);
}

static inline void pty_expect_row(struct pty *p, unsigned y, const char *text)
{
	PTY_UNTIL(p, strcmp(screen_row(&p->screen, y), text) == 0, text);
}

static inline void pty_expect_cursor(struct pty *p, unsigned x, unsigned y)
{
	PTY_UNTIL(p, p->screen.x == x && p->screen.y == y, "cursor at its place");
}

/* Until the program waits for keys: its prompt is in the cursor's row, and nothing else, and the cursor behind it. */
static inline void pty_expect_prompt(struct pty *p, const char *prompt)
{
	PTY_UNTIL(p,
	          strcmp(screen_row(&p->screen, p->screen.y), prompt) == 0 &&
	                  p->screen.x >= ag_term_columns(prompt, strlen(prompt), 0),
	          prompt);
}

/* Reads for a while: for what must not happen. */
static inline void pty_watch(struct pty *p, int ms)
{
	int64_t until = pty_now_ms() + ms;

	while (pty_now_ms() < until && pty_read(p, 20))
		;
}

/* Reads to the end of the program, which must come, and returns the wait status. The terminal stays. */
static inline int pty_reap(struct pty *p)
{
	int64_t until = pty_now_ms() + PTY_PATIENCE_MS;
	int status;

	while (waitpid(p->pid, &status, WNOHANG) != p->pid) {
		if (pty_now_ms() > until)
			pty_give_up(p, "the end of the program");
		if (!pty_read(p, 20))
			(void)usleep(1000); /* its terminal is closed, it is not quite gone */
	}
	return status;
}

static inline int pty_finish(struct pty *p)
{
	int status = pty_reap(p);

	(void)close(p->master);
	screen_done(&p->screen);
	return status;
}

/* The modes of the terminal: is it cooked, as a shell wants it back? */
static inline bool pty_is_cooked(struct pty *p)
{
	struct termios t;

	assert_int_equal(tcgetattr(p->master, &t), 0);
	return (t.c_lflag & ICANON) && (t.c_lflag & ECHO) && (t.c_lflag & ISIG);
}

#endif
