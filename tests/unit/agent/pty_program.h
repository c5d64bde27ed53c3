/* What a program on a pseudo-terminal finds there, and its end. */
#ifndef PTY_PROGRAM_H
#define PTY_PROGRAM_H

#include <stdlib.h>

#include "pty_test.h"

struct program {
	const char *lang, *term;
	struct ag_term_edit edit;
	bool no_color;
	bool quiet;
	int n_keys; /* that come in the quiet */
};

static inline void set_up(const struct program *p)
{
	(void)unsetenv("LC_ALL");
	(void)unsetenv("LC_CTYPE");
	(void)unsetenv("NO_COLOR");
	(void)setenv("LANG", p->lang ? p->lang : "en_US.UTF-8", 1);
	(void)setenv("TERM", p->term ? p->term : "xterm-256color", 1);
	if (p->no_color)
		(void)setenv("NO_COLOR", "1", 1);
}

static inline void expect_exit(struct pty *p, int code)
{
	int status = pty_finish(p);

	assert_true(WIFEXITED(status));
	assert_int_equal(WEXITSTATUS(status), code);
}

#endif
