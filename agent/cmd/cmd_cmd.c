/* ocai cmd: one command for one question. At a terminal a menu follows; elsewhere the command alone is printed. */
#include <errno.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/json.h"
#include "front.h"

const struct opt cmd_opts[] = {
	{ "print", 'p', OPT_FLAG, offsetof(struct ag_settings, print), NULL, "print the command alone", NULL },
	{ "json", 0, OPT_FLAG, offsetof(struct ag_settings, json), NULL, "print one JSON object", NULL },
	FRONT_BACKEND_OPTS,
	{ 0 }
};

/* Judged as it would be before it runs, with the user's rules. */
static int print_json(const struct front *f, const struct ag_suggestion *g, struct err *err)
{
	CLEANUP(base_buf_done) struct base_buf out = BASE_BUF_INIT(4 << 20);
	CLEANUP(freep) char *cwd = getcwd(NULL, 0);
	const struct ag_gate_context context = { .cwd = cwd };
	struct ag_gate_rules *rules = NULL;
	struct ag_gate_decision *d = NULL;
	json_t *json = NULL;
	int r = ag_gate_rules_load(&rules, err);

	if (r < 0)
		return r;
	r = ag_gate_decide(rules, base_buf_text(&g->command), g->command.len, &context, &d);
	if (r == 0) {
		json = json_pack("{s:s, s:s, s:s, s:f, s:s, s:s, s:s, s:s}", "question", base_buf_text(&f->question),
		                 "command", base_buf_text(&g->command), "model", base_buf_text(&g->model), "seconds",
		                 g->seconds, "class", ag_gate_class_name(d->risk->class), "verdict",
		                 ag_gate_verdict_name(d->verdict), "reason", d->reason, "permit", d->permit);
		r = json ? base_json_append(&out, json) : -EINVAL;
	}
	json_decref(json);
	ag_gate_decision_free(d);
	ag_gate_rules_free(rules);
	if (r < 0)
		return err_set(err, r, "the answer is not valid UTF-8 text");
	(void)printf("%s\n", base_buf_text(&out));
	return 0;
}

int front_cmd(struct front *f)
{
	const char *question = base_buf_text(&f->question);
	struct ag_suggestion g;
	struct ag_record record;
	struct err err = { 0 };
	int r;

	ag_suggestion_init(&g);
	front_open_asking(f);
	r = ag_suggest(&f->s, question, f->has_input ? base_buf_text(&f->input) : NULL, &g, stderr, &err);
	if (r < 0 && g.note.len && !f->s.quiet)
		(void)fprintf(stderr, "%s\n%s",
		              f->io.chinese ? "最接近的任务:" : "Nearest tasks:", base_buf_text(&g.note));
	if (r == 0) {
		ag_record_open(&record, &f->s, stderr);
		ag_record_begin(&record, "cmd", base_buf_text(&g.model), question);
		ag_record_add(&record, "user", question, f->question.len);
		ag_record_add(&record, "assistant", base_buf_text(&g.command), g.command.len);
		if (f->s.json)
			r = print_json(f, &g, &err);
		else if (f->io.ui)
			r = ag_act(&f->s, &f->io, question, &g, &record, &err);
		else
			(void)printf("%s\n", base_buf_text(&g.command));
		ag_record_close(&record);
	}
	ag_suggestion_done(&g);
	return front_end(f, r, &err);
}

int cmd_cmd(int argc, char **argv)
{
	struct front f;
	int code;

	if (front_begin(&f, "cmd", argc, argv, &code) || front_read_question(&f, argv, f.n_words, &code))
		return code;
	return front_cmd(&f);
}
