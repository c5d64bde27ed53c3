/* What a command line may do: the tree is walked as the shell would run it, every command on every branch is judged,
 * and the worst one decides. Functions are judged where they are defined and again where they are called, with the
 * arguments of the call; loops over known words once per word. Steps, depth and memory are bounded; a line that meets
 * a bound is "unknown", as is one that cannot be parsed. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/mapfile.h"
#include "risk_internal.h"

/* ---- Commands ------------------------------------------------------------------------------------------- */

static void eval_node(struct gate_eval *ev, const struct ag_gate_node *n);

static void eval_list(struct gate_eval *ev, const struct ag_gate_node *n)
{
	for (; n && !ev->error && !ev->cut; n = n->next)
		eval_node(ev, n);
}

/* The commands inside words: substitutions, wherever they stand. */
static void eval_word(struct gate_eval *ev, const struct ag_gate_word *w)
{
	bool piped = ev->piped;
	const char *text = ev->stdin_text;

	if (++ev->depth > 2 * AG_GATE_MAX_DEPTH)
		ev->cut = true;
	for (; w && !ev->cut && !ev->error; w = w->next) {
		for (const struct ag_gate_part *p = w->parts; p; p = p->next) {
			ev->piped = false;
			ev->stdin_text = NULL;
			if (p->node)
				eval_node(ev, p->node);
			if (p->word)
				eval_word(ev, p->word);
		}
	}
	ev->depth--;
	ev->piped = piped;
	ev->stdin_text = text;
}

static bool is_dup(const struct ag_gate_redir *r, const char *target)
{
	return (strcmp(r->op, ">&") == 0 || strcmp(r->op, "<&") == 0) &&
	       (*target == '-' || strspn(target, "0123456789-") == strlen(target));
}

/* empties: nothing is written, so an existing file loses all it has (": > file"). */
static void eval_redirs(struct gate_eval *ev, const struct ag_gate_redir *r, bool empties)
{
	for (; r && !ev->error && !ev->cut; r = r->next) {
		struct gate_opinion o = { 0 };
		const char *target;
		char *argv[3] = { NULL, NULL, NULL };

		if (r->target)
			eval_word(ev, r->target);
		target = ag_gate_expand_one(ev, r->target);
		if (r->op[0] == '<') {
			ev->piped = r->op[1] != '&' || *target != '-';
			ev->stdin_text = r->op[1] == '<' && gate_is_known(target) ? target : NULL;
			if (r->op[1] == '\0' && ag_gate_is_secret_path(target)) {
				ag_gate_opinion_raise(&o, AG_GATE_READ, AG_GATE_SECRET, "reads a secret", target);
				argv[0] = ag_gate_pool_text(ev, "<", 1);
				argv[1] = ag_gate_pool_text(ev, target, strlen(target));
				ag_gate_add(ev, argv, 2, &o, false);
			}
			if (r->op[1] != '>')
				continue;
		}
		if (is_dup(r, target))
			continue;
		ag_gate_write_target(ev, target, strstr(r->op, ">>") != NULL || r->op[0] == '<', &o);
		if (o.class == AG_GATE_READ)
			continue;
		if (empties && o.class == AG_GATE_CHANGE && !strstr(r->op, ">>"))
			ag_gate_opinion_raise(&o, AG_GATE_DESTRUCTIVE, 0, "empties a file", target);
		argv[0] = ag_gate_pool_text(ev, ">", 1);
		argv[1] = ag_gate_pool_text(ev, target, strlen(target));
		ag_gate_add(ev, argv, 2, &o, false);
	}
}

/* Variables that make the next program load code. */
static bool is_loader_variable(const char *name)
{
	return ag_gate_glob("LD_PRELOAD|LD_LIBRARY_PATH|LD_AUDIT|PATH|BASH_ENV|ENV|PROMPT_COMMAND|PYTHONPATH|"
	                    "PYTHONSTARTUP|PERL5OPT|PERL5LIB|NODE_OPTIONS|GIT_SSH_COMMAND|GIT_PAGER|PAGER|"
	                    "MANPAGER|EDITOR|VISUAL|LESSOPEN|SHELLOPTS|IFS",
	                    name) &&
	       strcmp(name, "IFS") != 0;
}

static void eval_assigns(struct gate_eval *ev, const struct ag_gate_assign *a)
{
	for (; a && !ev->error && !ev->cut; a = a->next) {
		struct base_buf b = BASE_BUF_INIT(64 * 1024);
		const struct gate_var *old = ag_gate_var_get(ev, a->name);

		eval_word(ev, a->value);
		if (a->append && old)
			(void)base_buf_puts(&b, old->value);
		for (const struct ag_gate_word *w = a->value; w; w = w->next) {
			if (a->array && b.len)
				(void)base_buf_putc(&b, ' ');
			(void)base_buf_puts(&b, ag_gate_expand_one(ev, w));
		}
		ag_gate_var_set(ev, a->name, ag_gate_pool_take(ev, &b), a->array);
		if (is_loader_variable(a->name) && !ag_gate_glob("PAGER|MANPAGER|GIT_PAGER", a->name)) {
			struct gate_opinion o = { AG_GATE_CHANGE, 0, "changes what programs load", a->name };
			char *argv[2] = { ag_gate_pool_text(ev, a->name, strlen(a->name)), NULL };

			ag_gate_add(ev, argv, 1, &o, false);
		} else if (is_loader_variable(a->name)) {
			const char *pager = ev->vars ? ev->vars->value : "";

			if (!ag_gate_glob("|cat|less|more|*/cat|*/less", pager))
				ag_gate_eval_text(ev, pager);
		}
	}
}

static struct gate_function *find_function(const struct gate_eval *ev, const char *name)
{
	for (struct gate_function *f = ev->functions; f; f = f->next)
		if (strcmp(f->name, name) == 0)
			return f;
	return NULL;
}

static void define(struct gate_eval *ev, const char *name, const struct ag_gate_node *body, const char *alias)
{
	struct gate_function *f = ag_gate_pool_alloc(ev, sizeof(*f));

	if (!f)
		return;
	*f = (struct gate_function){ name, body, alias, false, ev->functions };
	ev->functions = f;
}

static void set_arguments(struct gate_eval *ev, char **argv, size_t argc)
{
	struct base_buf all = BASE_BUF_INIT(64 * 1024);
	char name[8], *text;

	for (size_t i = 1; i < argc && i < 100; i++) {
		(void)snprintf(name, sizeof(name), "%zu", i);
		ag_gate_var_set(ev, ag_gate_pool_text(ev, name, strlen(name)), argv[i], false);
		(void)base_buf_printf(&all, "%s%s", i > 1 ? " " : "", argv[i]);
	}
	text = ag_gate_pool_take(ev, &all);
	ag_gate_var_set(ev, "@", text, true);
	ag_gate_var_set(ev, "*", text, true);
}

/* A call of what the line itself defined. */
static bool call(struct gate_eval *ev, char **argv, size_t argc)
{
	struct gate_function *f = find_function(ev, argv[0]);
	struct gate_var *vars = ev->vars;

	if (!f || f->busy)
		return f != NULL;
	f->busy = true;
	if (f->alias) {
		struct base_buf b = BASE_BUF_INIT(64 * 1024);

		(void)base_buf_puts(&b, f->alias);
		for (size_t i = 1; i < argc; i++)
			(void)base_buf_printf(&b, " %s", argv[i]);
		ag_gate_eval_text(ev, ag_gate_pool_take(ev, &b));
	} else {
		set_arguments(ev, argv, argc);
		eval_node(ev, f->body);
		ev->vars = vars;
	}
	f->busy = false;
	return true;
}

/* cd, alias, export x=..., read x, set: they change what later words of the line mean. */
static void note_state(struct gate_eval *ev, char **argv, size_t argc)
{
	const char *eq;

	if (strcmp(argv[0], "cd") == 0 || strcmp(argv[0], "pushd") == 0) {
		const char *to = argc > 1 ? argv[argc - 1] : ev->home;

		if (!to || !gate_is_known(to) || strcmp(to, "-") == 0 || (*to != '/' && !ev->cwd)) {
			ev->cwd = NULL;
		} else if (*to == '/') {
			ev->cwd = to;
		} else {
			struct base_buf b = BASE_BUF_INIT(64 * 1024);

			(void)base_buf_printf(&b, "%s/%s", ev->cwd, to);
			ev->cwd = ag_gate_pool_take(ev, &b);
		}
		return;
	}
	for (size_t i = 1; i < argc; i++) {
		eq = strchr(argv[i], '=');
		if (strcmp(argv[0], "alias") == 0 && eq)
			define(ev, ag_gate_pool_text(ev, argv[i], (size_t)(eq - argv[i])), NULL, eq + 1);
		else if (ag_gate_glob("export|declare|local|readonly|typeset", argv[0]) && eq)
			ag_gate_var_set(ev, ag_gate_pool_text(ev, argv[i], (size_t)(eq - argv[i])), eq + 1, false);
		else if (ag_gate_glob("read|mapfile|readarray", argv[0]) && argv[i][0] != '-')
			ag_gate_var_set(ev, argv[i], "\1", false);
		else if (strcmp(argv[0], "set") == 0 && strcmp(argv[i], "--") == 0)
			set_arguments(ev, argv + i, argc - i);
		else if (strcmp(argv[0], "unset") == 0)
			ag_gate_var_set(ev, argv[i], "", false);
	}
}

/* A glob as the program's name: /bin/r?. The dangerous ones it may mean are tried. */
static const char *guess_program(const char *name)
{
	static const char *const names[] = { "rm",    "dd", "mkfs", "shred", "wipefs", "chmod",
		                             "chown", "mv", "bash", "sh",    NULL };

	if (!strpbrk(name, "*?["))
		return name;
	for (size_t i = 0; names[i]; i++)
		if (ag_gate_glob(name, names[i]))
			return names[i];
	return name;
}

static void judge(struct gate_eval *ev, char **argv, size_t argc)
{
	struct gate_opinion o = { 0 };
	const char *full = argv[0];

	argv[0] = ag_gate_pool_text(ev, strrchr(full, '/') ? strrchr(full, '/') + 1 : full,
	                            strlen(full) - (strrchr(full, '/') ? (size_t)(strrchr(full, '/') + 1 - full) : 0));
	if (!*argv[0])
		argv[0] = ag_gate_pool_text(ev, full, strlen(full));
	argv[0] = (char *)guess_program(argv[0]);
	if (!gate_is_known(full)) {
		ag_gate_opinion_raise(&o, AG_GATE_CHANGE, AG_GATE_UNKNOWN, "its name is only known when it runs", full);
	} else if (strchr(full, '/') &&
	           !ag_gate_glob(
	                   "/bin/*|/sbin/*|/usr/bin/*|/usr/sbin/*|/usr/local/bin/*|/usr/local/sbin/*|/usr/libexec/*|"
	                   "/*/bin/[a-z]|/[*?]*",
	                   full)) {
		ag_gate_opinion_raise(&o, AG_GATE_CHANGE, AG_GATE_UNKNOWN,
		                      "runs a program or script that is not the system's", full);
	}
	if (!ag_gate_target(ev, argv, argc, &o) && !ag_gate_table(argv, argc, &o))
		ag_gate_opinion_raise(&o, AG_GATE_CHANGE, AG_GATE_UNKNOWN, "a program that is not in the gate's table",
		                      argv[0]);
	for (size_t i = 1;
	     i < argc && !ag_gate_glob("ls|stat|test|[[]|echo|printf|chmod|chown|ssh|ssh-add|find|rpm|cd", argv[0]);
	     i++) {
		const char *eq = strchr(argv[i], '=');

		if (ag_gate_is_secret_path(argv[i]) || (eq && ag_gate_is_secret_path(eq + 1)))
			ag_gate_opinion_raise(&o, o.class, AG_GATE_SECRET, "touches keys or passwords", argv[i]);
	}
	ag_gate_add(ev, argv, argc, &o, false);
}

void ag_gate_eval_argv(struct gate_eval *ev, char **argv, size_t argc)
{
	unsigned inherited = ev->inherited;

	if (argc == 0 || ev->error || ev->cut)
		return;
	if (++ev->steps > GATE_MAX_STEPS || ++ev->depth > GATE_MAX_EVAL_DEPTH * 2) {
		ev->cut = true;
		return;
	}
	if (!call(ev, argv, argc) && !ag_gate_wrapper(ev, argv, argc)) {
		note_state(ev, argv, argc);
		judge(ev, argv, argc);
	}
	ev->inherited = inherited;
	ev->depth--;
}

/* Judges the tree and keeps it until the end. */
static void eval_kept(struct gate_eval *ev, struct ag_gate_tree *tree)
{
	if (ag_gate_keep_tree(ev, tree))
		eval_node(ev, ag_gate_tree_root(tree));
}

void ag_gate_eval_text(struct gate_eval *ev, const char *text)
{
	struct ag_gate_tree *tree = NULL;
	int r;

	if (++ev->depth > GATE_MAX_EVAL_DEPTH) {
		ev->cut = true;
		return;
	}
	r = ag_gate_parse(text, strlen(text), &tree, NULL);
	if (r == -ENOMEM)
		ev->error = r;
	else if (r < 0)
		ag_gate_add_cut(ev, "an inner command line that cannot be parsed", text);
	else
		eval_kept(ev, tree);
	ev->depth--;
}

/* ---- Nodes ---------------------------------------------------------------------------------------------- */

static void eval_simple(struct gate_eval *ev, const struct ag_gate_node *n)
{
	bool piped = ev->piped;
	const char *text = ev->stdin_text;
	size_t argc = 0;
	char **argv;

	eval_word(ev, n->words);
	eval_assigns(ev, n->assigns);
	argv = ag_gate_expand(ev, n->words, &argc);
	eval_redirs(ev, n->redirs, argc == 0 || ag_gate_glob(":|true|false", argv ? argv[0] : ""));
	if (argv && argc)
		ag_gate_eval_argv(ev, argv, argc);
	else if (n->words && !ev->error)
		ag_gate_add_cut(ev, "its name is only known when it runs", "?");
	ev->piped = piped;
	ev->stdin_text = text;
}

/* What "echo TEXT |" or "cat <<EOF |" feeds to the next stage, when that is known. */
static const char *known_output(struct gate_eval *ev, const struct ag_gate_node *n)
{
	struct base_buf b = BASE_BUF_INIT(64 * 1024);
	size_t argc = 0;
	char **argv;

	if (n->kind != AG_GATE_SIMPLE)
		return NULL;
	argv = ag_gate_expand(ev, n->words, &argc);
	if (!argv || argc == 0)
		return NULL;
	if (strcmp(argv[0], "cat") == 0 && argc == 1 && n->redirs && n->redirs->op[0] == '<' && n->redirs->op[1] == '<')
		return ag_gate_expand_one(ev, n->redirs->target);
	if (strcmp(argv[0], "echo") != 0 && strcmp(argv[0], "printf") != 0)
		return NULL;
	for (size_t i = 1; i < argc; i++)
		if (argv[i][0] != '-')
			(void)base_buf_printf(&b, "%s ", argv[i]);
	return ag_gate_pool_take(ev, &b);
}

static void eval_pipeline(struct gate_eval *ev, const struct ag_gate_node *n)
{
	bool piped = ev->piped;
	const char *text = ev->stdin_text, *cwd = ev->cwd;

	for (const struct ag_gate_node *stage = n->children; stage && !ev->error && !ev->cut; stage = stage->next) {
		eval_node(ev, stage);
		ev->piped = true;
		ev->stdin_text = known_output(ev, stage);
		if (ev->stdin_text && !gate_is_known(ev->stdin_text))
			ev->stdin_text = NULL;
	}
	ev->piped = piped;
	ev->stdin_text = text;
	ev->cwd = cwd;
}

/* The body calls its own function and goes on beside it: the processes double until nothing is left. */
static bool calls(const struct ag_gate_node *n, const char *name, bool beside, unsigned *n_calls, unsigned depth)
{
	for (; n && depth < AG_GATE_MAX_DEPTH * 2; n = n->next) {
		bool side = beside || strcmp(n->after, "&") == 0 || n->kind == AG_GATE_PIPELINE;

		if (n->kind == AG_GATE_SIMPLE && n->words && n->words->parts &&
		    n->words->parts->kind == AG_GATE_PART_TEXT && strcmp(n->words->parts->text, name) == 0 && side)
			++*n_calls;
		(void)calls(n->children, name, side, n_calls, depth + 1);
	}
	return *n_calls > 0;
}

static void eval_function(struct gate_eval *ev, const struct ag_gate_node *n)
{
	unsigned n_calls = 0;
	struct gate_var *vars = ev->vars;

	define(ev, ag_gate_pool_text(ev, n->name, strlen(n->name)), n->children, NULL);
	if (ev->functions && calls(n->children, n->name, false, &n_calls, 0)) {
		struct gate_opinion o = { AG_GATE_DESTRUCTIVE, AG_GATE_HARD, "starts itself without end (fork bomb)",
			                  n->name };
		char *argv[2] = { ag_gate_pool_text(ev, n->name, strlen(n->name)), NULL };

		ag_gate_add(ev, argv, 1, &o, false);
		return;
	}
	if (ev->functions) {
		struct gate_function *f = ev->functions;

		f->busy = true;
		eval_node(ev, n->children);
		f->busy = false;
	}
	ev->vars = vars;
}

static void eval_for(struct gate_eval *ev, const struct ag_gate_node *n)
{
	size_t count = 0;
	char **values;

	eval_word(ev, n->words);
	values = ag_gate_expand(ev, n->words, &count);
	for (size_t i = 0; values && i < count && i < 8 && *n->name; i++) {
		ag_gate_var_set(ev, n->name, strpbrk(values[i], "*?[") && values[i][1] == '\0' ? "\1" : values[i],
		                false);
		eval_list(ev, n->children);
	}
	if (count == 0 || count > 8 || !*n->name) {
		ag_gate_var_set(ev, n->name, "\1", false);
		eval_list(ev, n->children);
	}
}

static void eval_node(struct gate_eval *ev, const struct ag_gate_node *n)
{
	const char *cwd = ev->cwd;
	bool piped = ev->piped;
	const char *text = ev->stdin_text;

	if (++ev->depth > 3 * AG_GATE_MAX_DEPTH || ++ev->steps > 4 * GATE_MAX_STEPS)
		ev->cut = true;
	if (ev->error || ev->cut)
		return;
	if (n->kind != AG_GATE_SIMPLE)
		eval_redirs(ev, n->redirs, false);
	switch (n->kind) {
	case AG_GATE_SIMPLE:
		eval_simple(ev, n);
		break;
	case AG_GATE_PIPELINE:
		eval_pipeline(ev, n);
		break;
	case AG_GATE_FUNCTION:
		eval_function(ev, n);
		break;
	case AG_GATE_FOR:
		eval_for(ev, n);
		break;
	default:
		eval_word(ev, n->words);
		eval_list(ev, n->children);
		if (n->kind == AG_GATE_SUBSHELL)
			ev->cwd = cwd;
	}
	if (n->kind != AG_GATE_SIMPLE) {
		ev->piped = piped;
		ev->stdin_text = text;
	}
	ev->depth--;
}

/* ---- Entry ---------------------------------------------------------------------------------------------- */

int ag_gate_assess(const char *line, size_t len, const struct ag_gate_context *context, struct ag_gate_risk **ret_risk)
{
	static const struct ag_gate_context nothing;
	struct gate_eval ev = { .risk = ag_gate_risk_new() };
	struct ag_gate_tree *tree = NULL;
	struct base_buf mounts = BASE_BUF_INIT(1024 * 1024);
	struct err err = { 0 };
	int r;

	if (!ev.risk)
		return -ENOMEM;
	context = context ? context : &nothing;
	ev.home = context->home ? context->home : getenv("HOME");
	ev.cwd = context->cwd;
	ev.mounts = context->mounts;
	if (!ev.mounts && base_read_file("/proc/self/mounts", &mounts, NULL) >= 0)
		ev.mounts = base_buf_text(&mounts);
	r = ag_gate_parse(line, len, &tree, &err);
	if (r == -ENOMEM)
		ev.error = r;
	else if (r < 0)
		ag_gate_add_cut(&ev, "the line cannot be parsed", err_text(&err));
	else
		eval_node(&ev, ag_gate_tree_root(tree));
	if (ev.cut) {
		ag_gate_pool_anew(&ev); /* room for the last word */
		ev.cut = false;
		ag_gate_add_cut(&ev, "the line is too intricate to judge", "?");
	}
	ag_gate_tree_free(tree);
	ag_gate_trees_free(&ev);
	base_buf_done(&mounts);
	if (ev.error) {
		ag_gate_risk_free(ev.risk);
		return ev.error;
	}
	*ret_risk = ev.risk;
	return 0;
}

const char *ag_gate_class_name(enum ag_gate_class class)
{
	static const char *const names[] = { "read", "change", "destructive" };

	return names[class];
}
