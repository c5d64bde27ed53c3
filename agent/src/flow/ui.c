/* The terminal room as the table that flows ask through. */
#include "flow/flow.h"

#include <errno.h>
#include <stdlib.h>

#include "base/cleanup.h"

static int menu(void *arg, const struct ag_term_menu *m, struct err *err)
{
	return ag_term_menu(arg, m, err);
}

static int edit(void *arg, const struct ag_term_edit *e, struct base_buf *ret_text, struct err *err)
{
	return ag_term_edit(arg, e, ret_text, err);
}

static int confirm(void *arg, const char *question, bool is_yes_default, struct err *err)
{
	return ag_term_confirm(arg, question, is_yes_default, err);
}

static int form(void *arg, const char *title, const struct ag_term_field *fields, size_t n_fields,
                struct base_buf *values, struct err *err)
{
	return ag_term_form(arg, title, fields, n_fields, values, err);
}

static void quiet(void *arg, bool begins)
{
	if (begins)
		ag_term_quiet_begin(arg);
	else
		ag_term_quiet_end(arg);
}

const struct ag_ui ag_ui_of_term = { .menu = menu, .edit = edit, .confirm = confirm, .form = form, .quiet = quiet };

/* ---- Without a terminal: each line of a stream is one answer --------------------------------------------------- */

static int edit_line(void *arg, const struct ag_term_edit *e, struct base_buf *ret_text, struct err *err)
{
	CLEANUP(freep) char *line = NULL;
	size_t size = 0;
	ssize_t n = getline(&line, &size, arg);

	if (n < 0)
		return 0;
	while (n && (line[n - 1] == '\n' || line[n - 1] == '\r'))
		n--;
	return ag_term_sanitize(ret_text, line, (size_t)n, false) < 0 ? err_set(err, -EFBIG, "the line is too long")
	                                                              : 1;
}

const struct ag_ui ag_ui_of_lines = { .edit = edit_line };
