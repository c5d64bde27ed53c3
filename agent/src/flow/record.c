/* History that may fail: a read-only home or a full disk is said once, and the work goes on without. */
#include "flow/flow.h"

#include <string.h>

#include "base/cleanup.h"

static void give_up(struct ag_record *r, const struct err *err)
{
	(void)fprintf(r->err, "ocai: no history is kept: %s\n", err_text(err));
	ag_history_close(r->history);
	r->history = NULL;
}

void ag_record_open(struct ag_record *r, const struct ag_settings *s, FILE *err_out)
{
	CLEANUP(base_buf_done) struct base_buf note = BASE_BUF_INIT(8192);
	struct err err = { 0 };

	*r = (struct ag_record){ .err = err_out };
	if (s->no_history || !s->keep_history)
		return;
	if (ag_history_open(NULL, &r->history, &note, &err) < 0)
		give_up(r, &err);
	if (note.len)
		(void)fprintf(err_out, "ocai: %s\n", base_buf_text(&note));
}

void ag_record_begin(struct ag_record *r, const char *kind, const char *model, const char *title)
{
	struct err err = { 0 };

	if (r->history && ag_history_begin(r->history, kind, model, title, &r->session, &err) < 0)
		give_up(r, &err);
}

void ag_record_add(struct ag_record *r, const char *role, const char *text, size_t len)
{
	struct err err = { 0 };

	if (r->history && r->session && ag_history_add(r->history, r->session, role, text, len, &err) < 0)
		give_up(r, &err);
}

void ag_record_close(struct ag_record *r)
{
	ag_history_close(r->history);
	r->history = NULL;
}
