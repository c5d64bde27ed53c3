/* What a model may do with tools, and what a person is asked first.
 *
 *   reading facts            free
 *   reading a file           free when the person's own words name it, or when it lies in a folder of the configuration
 *   calling an MCP tool      free when mcp.conf allows it
 *   a command                as the gate says: what only reads runs when the configuration says run-read, a change
 * asks, what destroys asks twice, what is denied never runs
 *
 * Anything else is a question to the person. The answer Enter gives is "no". Where nobody can be asked, the answer is
 * no, and the model is told so. A command that reads secrets, leaves the host or asks for another user's rights is
 * asked about even when it only reads: what it prints goes to the model. */
#include "flow/flow.h"

#include <errno.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/json.h"
#include "tools/tools.h"

enum { TITLE_BYTES = 64 << 10, NO = 0, YES = 1, ALWAYS = 2 };

static const char *tr(const struct ag_consent *c, const char *en, const char *zh)
{
	return c->io->chinese ? zh : en;
}

/* NO, YES, ALWAYS; -ECANCELED stops the whole answer. */
static int ask(const struct ag_consent *c, const char *title, bool has_always, struct err *err)
{
	const struct ag_term_item items[] = {
		{ tr(c, "no", "否"), tr(c, "the model is told that it may not", "告诉模型不允许"), 'n', false },
		{ tr(c, "yes", "是"), tr(c, "this once", "仅此一次"), 'y', false },
		{ tr(c, "always", "始终"), tr(c, "until this answer or conversation ends", "直到本次回答或会话结束"),
		  'a', false },
	};
	CLEANUP(base_buf_done) struct base_buf clean = BASE_BUF_INIT(4 * TITLE_BYTES);
	struct ag_term_menu menu = { .items = items, .n_items = has_always ? 3 : 2 };
	int r;

	if (ag_term_sanitize(&clean, title, strlen(title), false) < 0)
		return err_set(err, -EFBIG, "the call is too long to be shown");
	menu.title = base_buf_text(&clean);
	r = c->io->ui->menu(c->io->ui->arg, &menu, err);
	return r == -ECANCELED ? err_set(err, r, "stopped") : r;
}

/* 1, or 0 with the words for the model. */
static int verdict(int answer, bool *always, struct err *err)
{
	if (answer == ALWAYS)
		*always = true;
	if (answer == NO)
		(void)err_set(err, -EACCES, "the user said no");
	return answer < 0 ? answer : answer != NO;
}

static int nobody(struct err *err, const char *what)
{
	(void)err_set(err, -EACCES, "%s needs the user's permission, and nobody can be asked here", what);
	return 0;
}

/* ---- Files ------------------------------------------------------------------------------------------------------- */

static bool is_below(const char *path, const char *folder)
{
	CLEANUP(freep) char *real = realpath(folder, NULL);
	size_t n = real ? strlen(real) : 0;

	while (n > 1 && real[n - 1] == '/')
		n--;
	return n && strncmp(path, real, n) == 0 && (path[n] == '/' || path[n] == '\0' || n == 1);
}

int ag_consent_file(struct ag_consent *c, const char *path, struct err *err)
{
	CLEANUP(base_buf_done) struct base_buf title = BASE_BUF_INIT(TITLE_BYTES);
	const struct ag_settings *s = c->settings;

	if (ag_tools_is_secret_path(path)) {
		(void)err_set(err, -EACCES, "%s: refused, it may hold secrets", path);
		return 0;
	}
	for (size_t i = 0; c->named && i < c->named->n; i++) {
		if (strcmp(c->named->items[i], path) == 0)
			return 1;
	}
	for (size_t i = 0; i < s->tool_folders.n; i++) {
		if (is_below(path, s->tool_folders.items[i]))
			return 1;
	}
	if (c->always_files)
		return 1;
	if (!c->io->ui)
		return nobody(err, "a file that the user did not name");
	(void)base_buf_printf(&title, tr(c, "The model wants to read %s. Allow it?", "模型想读取 %s,允许吗?"), path);
	return verdict(ask(c, base_buf_text(&title), true, err), &c->always_files, err);
}

/* ---- Tools of others ---- */

int ag_consent_mcp(struct ag_consent *c, const char *server, const char *tool, const json_t *args, struct err *err)
{
	CLEANUP(base_buf_done)
	struct base_buf title = BASE_BUF_INIT(TITLE_BYTES), words = BASE_BUF_INIT(TITLE_BYTES / 2);

	if (c->always_mcp)
		return 1;
	if (!c->io->ui)
		return nobody(err, "a tool of another program");
	if (base_json_append(&words, args) < 0)
		return err_set(err, -EFBIG, "the arguments are too long to be shown");
	(void)base_buf_printf(&title,
	                      tr(c, "The model wants to call %s of the MCP server %s with\n  %s\nAllow it?",
	                         "模型想调用 MCP 服务器 %2$s 的工具 %1$s,参数:\n  %3$s\n允许吗?"),
	                      tool, server, base_buf_text(&words));
	return verdict(ask(c, base_buf_text(&title), true, err), &c->always_mcp, err);
}

/* ---- Commands ---- */

static bool runs_unasked(const struct ag_consent *c, const struct ag_gate_decision *d)
{
	const unsigned touchy =
	        AG_GATE_UNKNOWN | AG_GATE_SECRET | AG_GATE_NETWORK | AG_GATE_ROOT | AG_GATE_REMOTE | AG_GATE_HARD;

	if (d->verdict != AG_GATE_RUN)
		return false;
	/* A change that runs is one that a rule of the user allows. */
	if (d->risk->class != AG_GATE_READ)
		return true;
	return c->settings->run_read && !(d->risk->flags & touchy);
}

static int ask_command(const struct ag_consent *c, const struct ag_gate_decision *d, const char *command,
                       struct err *err)
{
	CLEANUP(base_buf_done) struct base_buf title = BASE_BUF_INIT(2 * TITLE_BYTES);
	const enum ag_gate_class class = d->risk->class;
	int r;

	(void)base_buf_printf(&title, "%s\n\n    %s\n\n  %s", tr(c, "The model wants to run:", "模型想执行:"), command,
	                      class == AG_GATE_READ     ? tr(c, "only reads", "只读")
	                      : class == AG_GATE_CHANGE ? tr(c, "changes the system", "会修改系统")
	                                                : tr(c, "DESTRUCTIVE", "危险:可能造成损失"));
	for (size_t i = 0; i < d->risk->n_findings && i < 3; i++)
		(void)base_buf_printf(&title, "%s %s: %s", i ? ";" : " -", d->risk->findings[i].word,
		                      d->risk->findings[i].why);
	r = ask(c, base_buf_text(&title), false, err);
	if (r == YES && d->verdict == AG_GATE_ASK_TWICE)
		r = ask(c, tr(c, "Data or service may be lost. Really run it?", "可能丢失数据或中断服务,真的要执行吗?"),
		        false, err);
	return r;
}

int ag_consent_command(struct ag_consent *c, const struct ag_gate_rules *rules, const char *command,
                       struct ag_gate_decision **ret_decision, struct err *err)
{
	CLEANUP(freep) char *cwd = getcwd(NULL, 0);
	const struct ag_gate_context context = { .cwd = cwd };
	struct ag_gate_decision *d;
	bool unused = false;
	int r = ag_gate_decide(rules, command, strlen(command), &context, &d);

	if (r < 0)
		return err_set(err, r, "out of memory");
	*ret_decision = d;
	if (d->verdict == AG_GATE_DENY) {
		(void)err_set(err, -EACCES, "not allowed: %s", d->reason);
		return 0;
	}
	if (runs_unasked(c, d))
		return 1;
	if (!c->io->ui)
		return nobody(err, "this command");
	return verdict(ask_command(c, d, command, err), &unused, err);
}
