/* What happens with a suggested command at the terminal:
 *
 *   form for <placeholders> -> gate -> menu: run, edit, explain, exit
 *        run: as the gate says (at once, after one yes, after two, never) -> exit code
 *             not 0: explain it and suggest a fix, which goes the same way from the start
 *
 * The gate judges the line again each time it has changed, so that no edit goes past it, and everything that was run or
 * refused is in the audit log before and after nobody else has a say. */
#include "flow/flow.h"

#include <ctype.h>
#include <errno.h>
#include <string.h>

#include "base/cleanup.h"
#include "kb/kb.h"

enum { MAX_PLACEHOLDERS = 8, MAX_COMMAND = 64 << 10, MAX_FIXES = 5 };

struct act {
	const struct ag_settings *s;
	const struct ag_io *io;
	const char *question;
	struct ag_suggestion *g;
	struct ag_record *record;
	struct ag_gate_rules *rules;
	struct ag_gate_decision *decision;
	int exit_code;
};

static const char *tr(const struct act *a, const char *en, const char *zh)
{
	return a->io->chinese ? zh : en;
}

/* ---- Placeholders -------------------------------------------------------------------------------------------- */

static size_t collect_names(const char *command, char names[][64])
{
	size_t n = 0, at = 0, len = 0, i;

	while (n < MAX_PLACEHOLDERS && ag_find_placeholder(command, at, &at, &len)) {
		char name[64];

		(void)snprintf(name, sizeof(name), "%.*s", (int)(len - 2), command + at + 1);
		for (i = 0; i < n && strcmp(names[i], name) != 0; i++)
			;
		if (i == n)
			memcpy(names[n++], name, sizeof(name));
		at += len;
	}
	return n;
}

static int fill_form(struct act *a, struct err *err)
{
	CLEANUP(base_buf_done) struct base_buf filled = BASE_BUF_INIT(MAX_COMMAND);
	struct base_buf values[MAX_PLACEHOLDERS];
	struct ag_term_field fields[MAX_PLACEHOLDERS] = { 0 };
	const char *name_list[MAX_PLACEHOLDERS], *value_list[MAX_PLACEHOLDERS];
	char names[MAX_PLACEHOLDERS][64];
	size_t n = collect_names(base_buf_text(&a->g->command), names);
	int r;

	if (n == 0)
		return 0;
	for (size_t i = 0; i < n; i++) {
		base_buf_init(&values[i], 4096);
		name_list[i] = fields[i].label = names[i];
	}
	r = a->io->ui->form(a->io->ui->arg, base_buf_text(&a->g->command), fields, n, values, err);
	for (size_t i = 0; i < n; i++)
		value_list[i] = base_buf_text(&values[i]);
	if (r >= 0)
		r = ag_fill_placeholders(base_buf_text(&a->g->command), name_list, value_list, n, &filled);
	if (r >= 0) {
		base_buf_reset(&a->g->command);
		r = base_buf_puts(&a->g->command, base_buf_text(&filled));
	}
	for (size_t i = 0; i < n; i++)
		base_buf_done(&values[i]);
	return r;
}

/* ---- Gate ------------------------------------------------------------------------------------------------------ */

static int judge(struct act *a, struct err *err)
{
	CLEANUP(freep) char *cwd = getcwd(NULL, 0);
	const struct ag_gate_context context = { .cwd = cwd };
	int r;

	ag_gate_decision_free(a->decision);
	a->decision = NULL;
	r = ag_gate_decide(a->rules, base_buf_text(&a->g->command), a->g->command.len, &context, &a->decision);
	return r < 0 ? err_set(err, r, "out of memory") : 0;
}

static void audit(struct act *a, bool ran)
{
	CLEANUP(base_buf_done) struct base_buf path = BASE_BUF_INIT(8192);
	const struct ag_gate_audit_entry entry = { .command = base_buf_text(&a->g->command),
		                                   .origin = "cmd",
		                                   .class = a->decision->risk->class,
		                                   .verdict = a->decision->verdict,
		                                   .ran = ran,
		                                   .exit_code = ran ? a->exit_code : 0 };
	struct err err = { 0 };
	int r = ag_gate_audit_path(&path, &err);

	if (r == 0)
		r = ag_gate_audit(base_buf_text(&path), &entry, 0, &err);
	if (r < 0)
		(void)fprintf(a->io->err, "ocai: %s: %s\n", tr(a, "not in the audit log", "没有写入审计日志"),
		              err_text(&err));
}

/* Words that may quote the model's command: nothing in them acts on the terminal. */
static void put_words(const struct act *a, FILE *to, const char *text)
{
	CLEANUP(base_buf_done) struct base_buf clean = BASE_BUF_INIT(4 * MAX_COMMAND);

	(void)ag_term_sanitize(&clean, text, strlen(text), a->io->look.ascii_only);
	(void)fputs(base_buf_text(&clean), to);
}

static void put_finding(const struct act *a, const char *before, const struct ag_gate_finding *f)
{
	(void)fputs(before, a->io->out);
	put_words(a, a->io->out, f->word);
	(void)fputs(": ", a->io->out);
	put_words(a, a->io->out, f->why);
}

static const char *class_words(const struct act *a)
{
	switch (a->decision->risk->class) {
	case AG_GATE_READ:
		return tr(a, "only reads", "只读");
	case AG_GATE_CHANGE:
		return tr(a, "changes the system", "会修改系统");
	default:
		return tr(a, "DESTRUCTIVE", "危险:可能造成损失");
	}
}

static void show_command(const struct act *a)
{
	const struct ag_term_look *look = &a->io->look;
	const enum ag_gate_class class = a->decision->risk->class;
	const enum ag_term_style style = class == AG_GATE_READ     ? AG_TERM_OK
	                                 : class == AG_GATE_CHANGE ? AG_TERM_WARN
	                                                           : AG_TERM_BAD;
	CLEANUP(base_buf_done) struct base_buf clean = BASE_BUF_INIT(4 * MAX_COMMAND);

	(void)ag_term_sanitize(&clean, base_buf_text(&a->g->command), a->g->command.len, look->ascii_only);
	(void)fprintf(a->io->out, "\n    %s", ag_term_sgr(look, AG_TERM_BOLD));
	for (const char *p = base_buf_text(&clean); *p; p++)
		(void)fprintf(a->io->out, *p == '\n' ? "%c    " : "%c", *p);
	(void)fprintf(a->io->out, "%s\n\n  %s%s%s", ag_term_sgr(look, AG_TERM_RESET), ag_term_sgr(look, style),
	              class_words(a), ag_term_sgr(look, AG_TERM_RESET));
	for (size_t i = 0; i < a->decision->risk->n_findings && i < 3; i++)
		put_finding(a, i ? "; " : " - ", &a->decision->risk->findings[i]);
	if (a->decision->verdict == AG_GATE_DENY) {
		(void)fprintf(a->io->out, "\n  %s%s: ", ag_term_sgr(look, AG_TERM_BAD),
		              tr(a, "will not be run", "不会执行"));
		put_words(a, a->io->out, a->decision->reason);
		(void)fputs(ag_term_sgr(look, AG_TERM_RESET), a->io->out);
	}
	(void)fputs(a->g->note.len ? "\n  " : "", a->io->out);
	put_words(a, a->io->out, base_buf_text(&a->g->note));
	(void)fputc('\n', a->io->out);
	(void)fflush(a->io->out);
}

/* 1 when it may run now. */
static int get_consent(struct act *a, struct err *err)
{
	const struct ag_ui *ui = a->io->ui;
	int r = 1;

	if (a->decision->verdict == AG_GATE_DENY) {
		(void)fputs("ocai: ", a->io->err);
		put_words(a, a->io->err, a->decision->reason);
		(void)fputc(' ', a->io->err);
		put_words(a, a->io->err, a->decision->permit);
		(void)fputc('\n', a->io->err);
		r = 0;
	}
	if (r > 0 && a->decision->verdict != AG_GATE_RUN)
		r = ui->confirm(ui->arg, tr(a, "This changes the system. Run it?", "这会修改系统,确定执行吗?"), false,
		                err);
	if (r > 0 && a->decision->verdict == AG_GATE_ASK_TWICE)
		r = ui->confirm(
		        ui->arg,
		        tr(a, "Data or service may be lost. Really run it?", "可能丢失数据或中断服务,真的要执行吗?"),
		        false, err);
	if (r <= 0)
		audit(a, false);
	return r;
}

/* ---- Running ---------------------------------------------------------------------------------------------------- */

static int explain_failure(struct act *a, const struct ag_run_result *result, struct err *err)
{
	CLEANUP(base_buf_done) struct base_buf q = BASE_BUF_INIT(64 << 10);
	struct ag_settings s = *a->s;

	s.tools_enabled = false;
	s.no_history = true; /* it belongs to this session, which records the command and its end */
	s.files.n = 0;
	(void)base_buf_printf(&q,
	                      tr(a, "The command `%s` failed with exit code %d. Why? Answer in two sentences.",
	                         "命令 `%s` 失败,退出码 %d。为什么?用两句话回答。"),
	                      base_buf_text(&a->g->command), result->exit_code);
	return ag_answer(&s, ag_settings_assistant(&s, "chat"), a->io, base_buf_text(&q),
	                 base_buf_text(&result->errors), err);
}

/* 1: there is a new command to go on with; 0: enough. */
static int offer_fix(struct act *a, const struct ag_run_result *result, struct err *err)
{
	const struct ag_term_item items[] = {
		{ tr(a, "explain and fix", "解释并修复"),
		  tr(a, "asks the model with the real error", "把真实的错误交给模型"), 'f', false },
		{ tr(a, "exit", "退出"), NULL, 'q', false },
	};
	char title[128];
	struct ag_term_menu menu = { .title = title, .items = items, .n_items = 2 };
	struct ag_suggestion fix;
	int r;

	(void)snprintf(title, sizeof(title), tr(a, "The command failed (exit code %d)", "命令失败(退出码 %d)"),
	               result->exit_code);
	r = a->io->ui->menu(a->io->ui->arg, &menu, err);
	if (r != 0)
		return 0;
	r = explain_failure(a, result, err);
	if (r < 0 && r != -ECANCELED) {
		if (r != -ENOTSUP) /* the embedded model suggests a fix, and no words about it */
			(void)fprintf(a->io->err, "ocai: %s\n", err_text(err)); /* a fix may come all the same */
		memset(err, 0, sizeof(*err));
	}
	ag_suggestion_init(&fix);
	r = ag_suggest_fix(a->s, a->question, base_buf_text(&a->g->command), result->exit_code,
	                   base_buf_text(&result->errors), &fix, a->io->err, err);
	if (r == 0) {
		ag_suggestion_done(a->g);
		*a->g = fix;
		ag_record_add(a->record, "assistant", base_buf_text(&a->g->command), a->g->command.len);
		return 1;
	}
	ag_suggestion_done(&fix);
	return r;
}

static void record_run(struct act *a, const struct ag_run_result *result)
{
	CLEANUP(base_buf_done) struct base_buf text = BASE_BUF_INIT(2 * MAX_COMMAND);

	(void)base_buf_printf(&text, "%s\n[exit code %d]\n%s", base_buf_text(&a->g->command), result->exit_code,
	                      base_buf_text(&result->errors));
	ag_record_add(a->record, "ran", base_buf_text(&text), text.len);
}

/* 1: go on with a fix; 0: done; 2: back to the menu. */
static int run(struct act *a, struct err *err)
{
	struct ag_run_result result = { 0 };
	int r = get_consent(a, err);

	if (r <= 0)
		return r == 0 || r == -ECANCELED ? 2 : r;
	r = ag_run_command(base_buf_text(&a->g->command), &result, err);
	if (r < 0)
		return r;
	a->exit_code = result.exit_code;
	audit(a, true);
	record_run(a, &result);
	r = result.exit_code && result.exit_code != 130 ? offer_fix(a, &result, err) : 0;
	base_buf_done(&result.errors);
	return r;
}

/* ---- Menu -------------------------------------------------------------------------------------------------------- */

static int edit(struct act *a, struct err *err)
{
	CLEANUP(base_buf_done) struct base_buf text = BASE_BUF_INIT(MAX_COMMAND);
	const struct ag_term_edit e = { .prompt = "$ ", .text = base_buf_text(&a->g->command), .multi_line = true };
	int r = a->io->ui->edit(a->io->ui->arg, &e, &text, err);

	if (r > 0 && strspn(base_buf_text(&text), " \t\n") < text.len) {
		base_buf_reset(&a->g->command);
		r = base_buf_puts(&a->g->command, base_buf_text(&text));
	}
	return r == -ECANCELED ? 0 : r;
}

/* Without a model that explains: what the manual says that each program is, and what the gate found. */
static void explain_by_code(const struct act *a)
{
	const struct ag_gate_risk *risk = a->decision->risk;

	for (size_t i = 0; i < risk->n_commands; i++) {
		CLEANUP(base_buf_done) struct base_buf text = BASE_BUF_INIT(4 << 20), clean = BASE_BUF_INIT(8192);
		const char *name = risk->commands[i].argc ? risk->commands[i].argv[0] : "", *at, *line;

		if (!isalnum((unsigned char)name[0]) || ag_kb_man_text(name, NULL, &text, NULL) < 0)
			continue;
		/* "NAME", then "ls - list directory contents" */
		at = strstr(base_buf_text(&text), "NAME");
		line = at ? strchr(at, '\n') : NULL;
		if (!line)
			continue;
		line += strspn(line, " \t\n");
		(void)ag_term_sanitize(&clean, line, strcspn(line, "\n"), a->io->look.ascii_only);
		(void)fprintf(a->io->out, "  %s\n", base_buf_text(&clean));
	}
	for (size_t i = 0; i < risk->n_findings; i++) {
		put_finding(a, "  ", &risk->findings[i]);
		(void)fputc('\n', a->io->out);
	}
	(void)fprintf(a->io->out, "  %s\n",
	              tr(a, "(the embedded model does not explain; this is from the manual and the gate)",
	                 "(内置模型不会解释;以上来自手册和安全检查)"));
	(void)fflush(a->io->out);
}

static int explain(struct act *a, struct err *err)
{
	CLEANUP(base_buf_done) struct base_buf q = BASE_BUF_INIT(MAX_COMMAND + 256);
	struct ag_settings s = *a->s;
	int r;

	s.tools_enabled = false;
	s.no_history = true;
	s.files.n = 0;
	(void)base_buf_printf(&q, tr(a, "Explain this command, part by part: `%s`", "逐部分解释这条命令: `%s`"),
	                      base_buf_text(&a->g->command));
	r = ag_answer(&s, ag_settings_assistant(&s, "chat"), a->io, base_buf_text(&q), NULL, err);
	if (r == -ENOTSUP) {
		explain_by_code(a);
		memset(err, 0, sizeof(*err));
	} else if (r < 0) {
		(void)fprintf(a->io->err, r == -ECANCELED ? "%s\n" : "ocai: %s\n",
		              r == -ECANCELED ? tr(a, "(stopped)", "(已停止)") : err_text(err));
		memset(err, 0, sizeof(*err));
	}
	return 0;
}

enum { RUN, EDIT, EXPLAIN, EXIT };

static int ask_menu(struct act *a, struct err *err)
{
	const bool denied = a->decision->verdict == AG_GATE_DENY;
	const struct ag_term_item items[] = {
		[RUN] = { tr(a, "run", "执行"), NULL, 'r', denied },
		[EDIT] = { tr(a, "edit", "编辑"), NULL, 'e', false },
		[EXPLAIN] = { tr(a, "explain", "解释"), NULL, 'x', false },
		[EXIT] = { tr(a, "exit", "退出"), NULL, 'q', false },
	};
	const struct ag_term_menu menu = { .items = items,
		                           .n_items = 4,
		                           .start = a->decision->verdict == AG_GATE_RUN ? RUN : EXIT };
	int r = a->io->ui->menu(a->io->ui->arg, &menu, err);

	return r == -ECANCELED ? EXIT : r;
}

static int loop(struct act *a, struct err *err)
{
	bool is_shown = false;
	int n_fixes = 0, r;

	for (;;) {
		if (!is_shown) {
			r = fill_form(a, err);
			if (r == -ECANCELED)
				return 0;
			if (r == 0)
				r = judge(a, err);
			if (r < 0)
				return r;
			show_command(a);
		}
		is_shown = true;
		switch (r = ask_menu(a, err)) {
		case RUN:
			r = run(a, err);
			if (r != 2 && (r <= 0 || ++n_fixes > MAX_FIXES))
				return r < 0 ? r : 0;
			is_shown = r == 2;
			break;
		case EDIT:
			r = edit(a, err);
			is_shown = false;
			break;
		case EXPLAIN:
			r = explain(a, err);
			break;
		default:
			return r < 0 ? r : 0;
		}
		if (r < 0)
			return r;
	}
}

int ag_act(const struct ag_settings *s, const struct ag_io *io, const char *question, struct ag_suggestion *g,
           struct ag_record *record, struct err *err)
{
	struct act a = { .s = s, .io = io, .question = question, .g = g, .record = record };
	int r = ag_gate_rules_load(&a.rules, err);

	/* Rules that cannot be read may forbid this very command: nothing runs. */
	if (r == 0)
		r = loop(&a, err);
	ag_gate_rules_free(a.rules);
	ag_gate_decision_free(a.decision);
	return r < 0 ? r : a.exit_code;
}
