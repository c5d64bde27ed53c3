/* Rules and the verdict. A rule is a pattern of words; it is held against every command of the line, as it would run:
 * after sudo and its like, quotes and variables. The format is described in docs/formats/gate-rules.md.
 *
 * Deny and ask patterns fit generously (more words may follow, options may stand anywhere, and a word that is only
 * known at run time may be the denied one); allow patterns fit strictly (every word must be covered). */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/mapfile.h"
#include "risk_internal.h"

enum { MAX_RULES = 4096, MAX_RULE_WORDS = 32, MAX_RULES_FILE = 1024 * 1024 };

struct rule {
	enum ag_gate_rule_kind kind;
	char *pattern, *where;
	char *text; /* the pattern cut into words */
	char *words[MAX_RULE_WORDS];
	size_t n_words;
};

struct ag_gate_rules {
	struct rule **items;
	size_t n;
};

enum fit { FIT_NO, FIT_MAYBE, FIT_YES };

int ag_gate_rules_new(struct ag_gate_rules **ret_rules)
{
	struct ag_gate_rules *r = calloc(1, sizeof(*r));

	if (!r)
		return -ENOMEM;
	*ret_rules = r;
	return 0;
}

static void rule_free(struct rule *rule)
{
	if (!rule)
		return;
	free(rule->pattern);
	free(rule->where);
	free(rule->text);
	free(rule);
}

void ag_gate_rules_free(struct ag_gate_rules *rules)
{
	if (!rules)
		return;
	for (size_t i = 0; i < rules->n; i++)
		rule_free(rules->items[i]);
	free(rules->items);
	free(rules);
}

static int check_pattern(const char *pattern, struct err *err)
{
	if (pattern[strspn(pattern, " \t")] == '\0')
		return err_set(err, -EINVAL, "the rule has no words");
	for (const char *c = pattern; *c; c++)
		if ((unsigned char)*c < ' ' && *c != '\t')
			return err_set(err, -EINVAL, "the rule holds a control character");
	return 0;
}

int ag_gate_rules_add(struct ag_gate_rules *rules, enum ag_gate_rule_kind kind, const char *pattern, const char *where,
                      struct err *err)
{
	struct rule *rule, **more;
	char *save = NULL;
	int r = check_pattern(pattern, err);

	if (r < 0)
		return r;
	if (rules->n == MAX_RULES)
		return err_set(err, -EINVAL, "more than %d rules", MAX_RULES);
	more = realloc(rules->items, (rules->n + 1) * sizeof(struct rule *));
	if (more)
		rules->items = more;
	rule = calloc(1, sizeof(*rule));
	if (!more || !rule)
		goto no_memory;
	rule->kind = kind;
	rule->pattern = strdup(pattern + strspn(pattern, " \t"));
	rule->text = strdup(pattern);
	rule->where = strdup(where ? where : "");
	if (!rule->pattern || !rule->text || !rule->where)
		goto no_memory;
	for (char *w = strtok_r(rule->text, " \t", &save); w; w = strtok_r(NULL, " \t", &save)) {
		if (rule->n_words == MAX_RULE_WORDS) {
			rule_free(rule);
			return err_set(err, -EINVAL, "the rule has more than %d words", MAX_RULE_WORDS);
		}
		rule->words[rule->n_words++] = w;
	}
	rules->items[rules->n++] = rule;
	return 0;
no_memory:
	rule_free(rule);
	return err_set(err, -ENOMEM, "out of memory");
}

static const char *const kind_names[] = { "allow", "ask", "deny" };

static int parse_line(struct ag_gate_rules *rules, const char *line, const char *where, struct err *err)
{
	line += strspn(line, " \t\r");
	if (*line == '\0' || *line == '#')
		return 0;
	for (unsigned k = 0; k < 3; k++) {
		size_t len = strlen(kind_names[k]);

		if (strncmp(line, kind_names[k], len) == 0 && (line[len] == ' ' || line[len] == '\t'))
			return ag_gate_rules_add(rules, (enum ag_gate_rule_kind)k, line + len + 1, where, err);
	}
	return err_set(err, -EINVAL, "a rule starts with allow, ask or deny");
}

int ag_gate_rules_parse(struct ag_gate_rules *rules, const char *text, size_t len, const char *where, struct err *err)
{
	unsigned n = 0;

	for (size_t at = 0; at < len;) {
		const char *nl = memchr(text + at, '\n', len - at);
		size_t end = nl ? (size_t)(nl - text) : len, cut = end;
		CLEANUP(freep) char *line = NULL;
		char place[300];
		int r;

		while (cut > at && (text[cut - 1] == '\r' || text[cut - 1] == ' ' || text[cut - 1] == '\t'))
			cut--;
		line = strndup(text + at, cut - at);
		if (!line)
			return err_set(err, -ENOMEM, "out of memory");
		(void)snprintf(place, sizeof(place), "%.256s:%u", where ? where : "", ++n);
		r = strlen(line) == cut - at ? parse_line(rules, line, place, err)
		                             : err_set(err, -EINVAL, "the line holds a NUL byte");
		if (r < 0)
			return err_prefix(err, r, "%s: ", place);
		at = end + 1;
	}
	return 0;
}

int ag_gate_rules_read(struct ag_gate_rules *rules, const char *path, struct err *err)
{
	struct base_buf b = BASE_BUF_INIT(MAX_RULES_FILE);
	struct stat st;
	int r;

	if (stat(path, &st) < 0)
		return errno == ENOENT || errno == ENOTDIR ? 0 : err_set(err, -errno, "%s: %s", path, strerror(errno));
	if ((st.st_mode & (S_IWGRP | S_IWOTH)) || (st.st_uid != 0 && st.st_uid != geteuid()))
		return err_set(err, -EPERM, "%s: others may write it, so its rules are not used", path);
	r = base_read_file(path, &b, err);
	if (r >= 0)
		r = ag_gate_rules_parse(rules, base_buf_text(&b), b.len, path, err);
	base_buf_done(&b);
	return r < 0 ? r : 0;
}

int ag_gate_rules_load(struct ag_gate_rules **ret_rules, struct err *err)
{
	const char *xdg = getenv("XDG_CONFIG_HOME"), *home = getenv("HOME");
	CLEANUP(base_buf_done) struct base_buf user = BASE_BUF_INIT(8192);
	struct ag_gate_rules *rules = NULL;
	int r = ag_gate_rules_new(&rules);

	if (r < 0)
		return err_set(err, r, "out of memory");
	if (xdg && *xdg)
		(void)base_buf_printf(&user, "%s/ocai/gate.rules", xdg);
	else if (home && *home)
		(void)base_buf_printf(&user, "%s/.config/ocai/gate.rules", home);
	r = ag_gate_rules_read(rules, "/usr/lib/ocai/gate.rules", err);
	if (r == 0)
		r = ag_gate_rules_read(rules, "/etc/ocai/gate.rules", err);
	if (r == 0 && user.len)
		r = ag_gate_rules_read(rules, base_buf_text(&user), err);
	if (r < 0) {
		ag_gate_rules_free(rules);
		return r;
	}
	*ret_rules = rules;
	return 0;
}

int ag_gate_rules_save(const char *path, enum ag_gate_rule_kind kind, const char *pattern, struct err *err)
{
	struct base_buf b = BASE_BUF_INIT(MAX_RULES_FILE);
	int r = check_pattern(pattern, err);

	if (r >= 0)
		r = base_make_parents(path, 0700, err);
	if (r >= 0 && access(path, F_OK) == 0)
		r = base_read_file(path, &b, err);
	if (r >= 0) {
		if (b.len && b.data[b.len - 1] != '\n')
			(void)base_buf_putc(&b, '\n');
		(void)base_buf_printf(&b, "%s %s\n", kind_names[kind], pattern);
		r = base_buf_error(&b) ? err_set(err, base_buf_error(&b), "%s: too large", path)
		                       : base_write_file_atomic(path, base_buf_text(&b), b.len, 0600, err);
	}
	base_buf_done(&b);
	return r < 0 ? r : 0;
}

/* ---- Fitting ------------------------------------------------------------------------------------------- */

static enum fit fit_word(const char *pattern, const char *word)
{
	if (ag_gate_glob(pattern, word))
		return gate_is_known(word) || strcmp(pattern, "*") == 0 ? FIT_YES : FIT_MAYBE;
	return gate_is_known(word) ? FIT_NO : FIT_MAYBE;
}

static bool is_option(const char *word)
{
	return word[0] == '-' && word[1];
}

/* Allow: every word of the command is covered, in order; a last "*" covers the rest. */
static bool fits_strictly(const struct rule *rule, const struct ag_gate_command *c)
{
	size_t k = 0;

	for (size_t i = 0; i < c->argc; i++, k++) {
		if (k == rule->n_words)
			return false;
		if (k > 0 && k + 1 == rule->n_words && strcmp(rule->words[k], "*") == 0)
			return true;
		if (fit_word(rule->words[k], c->argv[i]) != FIT_YES)
			return false;
	}
	return k == rule->n_words || (k + 1 == rule->n_words && strcmp(rule->words[k], "*") == 0);
}

/* Deny, ask: the plain words fit in order from the first on, the options stand anywhere. */
static enum fit fits_generously(const struct rule *rule, const struct ag_gate_command *c)
{
	enum fit fit = fit_word(rule->words[0], c->argv[0]), one;
	size_t i = 1;

	for (size_t k = 1; k < rule->n_words && fit != FIT_NO; k++) {
		const char *w = rule->words[k];

		if (is_option(w)) {
			one = ag_gate_has_option(c->argv, c->argc, w) ? FIT_YES : FIT_NO;
			for (size_t j = 1; one == FIT_NO && j < c->argc; j++)
				if (ag_gate_glob(w, c->argv[j]))
					one = FIT_YES;
				else if (!gate_is_known(c->argv[j]))
					one = FIT_MAYBE;
		} else if (strcmp(w, "*") == 0 && k + 1 == rule->n_words) {
			one = FIT_YES;
		} else {
			/* the subcommand may stand behind an option's value; what it works on, among others */
			one = FIT_NO;
			for (size_t j = i; j < c->argc && one != FIT_YES; j++) {
				enum fit f = is_option(c->argv[j]) ? FIT_NO : fit_word(w, c->argv[j]);

				if (f > one) {
					one = f;
					i = j + 1;
				}
				if (k == 1 && f == FIT_NO && !is_option(c->argv[j]) && !is_option(c->argv[j - 1]))
					break;
			}
		}
		fit = one < fit ? one : fit;
	}
	return fit;
}

static enum fit fits(const struct ag_gate_rules *rules, enum ag_gate_rule_kind kind, const struct ag_gate_command *c,
                     const struct rule **ret_rule)
{
	enum fit best = FIT_NO;

	for (size_t i = 0; rules && c->argc && i < rules->n && best != FIT_YES; i++) {
		const struct rule *rule = rules->items[i];
		enum fit f = FIT_NO;

		if (rule->kind != kind)
			continue;
		f = kind == AG_GATE_ALLOW ? (fits_strictly(rule, c) ? FIT_YES : FIT_NO) : fits_generously(rule, c);
		if (f > best) {
			best = f;
			*ret_rule = rule;
		}
	}
	return best;
}

/* ---- Verdict ------------------------------------------------------------------------------------------- */

/* What stands for the whole line so far. */
struct verdict {
	enum ag_gate_verdict verdict;
	const struct rule *rule;
	const struct ag_gate_command *command;
	bool maybe;
};

static void raise_to(struct verdict *v, enum ag_gate_verdict to, const struct rule *rule,
                     const struct ag_gate_command *command, bool maybe)
{
	if (to <= v->verdict && v->command)
		return;
	*v = (struct verdict){ to > v->verdict ? to : v->verdict, rule, command, maybe };
}

static void judge_command(struct verdict *v, const struct ag_gate_rules *rules, const struct ag_gate_command *c)
{
	const struct rule *rule = NULL;
	enum ag_gate_verdict own = c->class == AG_GATE_READ     ? AG_GATE_RUN
	                           : c->class == AG_GATE_CHANGE ? AG_GATE_ASK
	                                                        : AG_GATE_ASK_TWICE;
	enum fit denied = fits(rules, AG_GATE_DENIES, c, &rule);

	if (denied == FIT_YES || (c->flags & AG_GATE_HARD)) {
		raise_to(v, AG_GATE_DENY, denied == FIT_YES ? rule : NULL, c, false);
		return;
	}
	if (denied == FIT_MAYBE)
		raise_to(v, AG_GATE_ASK_TWICE, rule, c, true);
	if (own == AG_GATE_RUN && (c->flags & (AG_GATE_SECRET | AG_GATE_ROOT | AG_GATE_REMOTE)) && !c->wrapper)
		own = c->flags & AG_GATE_SECRET ? AG_GATE_ASK : own;
	if (fits(rules, AG_GATE_ASKS, c, &rule) != FIT_NO) {
		raise_to(v, own > AG_GATE_ASK ? own : AG_GATE_ASK, rule, c, false);
		return;
	}
	if (!c->wrapper && fits(rules, AG_GATE_ALLOW, c, &rule) == FIT_YES)
		own = own == AG_GATE_ASK_TWICE ? AG_GATE_ASK : AG_GATE_RUN;
	raise_to(v, own, NULL, c, false);
}

/* A pattern for exactly this command; false when a word of it cannot stand in one. */
static bool put_pattern(struct base_buf *b, const struct ag_gate_command *c)
{
	for (size_t i = 0; i < c->argc; i++) {
		if (!*c->argv[i] || strpbrk(c->argv[i], " \t\n\r*?[|\1#"))
			return false;
		(void)base_buf_printf(b, "%s%s", i ? " " : "", c->argv[i]);
	}
	return c->argc > 0 && !base_buf_error(b);
}

static void put_reason(struct base_buf *b, const struct verdict *v, const struct ag_gate_risk *risk)
{
	static const char *const says[] = { "runs", "asks", "asks twice", "is refused" };

	if (v->rule)
		(void)base_buf_printf(b, "%s %s the rule \"%s %s\" (%s)", v->command->argv[0],
		                      v->maybe ? "may turn out to be what is denied by" : "is covered by",
		                      kind_names[v->rule->kind], v->rule->pattern, v->rule->where);
	else if (risk->n_findings)
		(void)base_buf_printf(b, "%s: %s", risk->findings[0].word, risk->findings[0].why);
	else
		(void)base_buf_puts(b, "it only looks");
	(void)base_buf_printf(b, "; it %s", says[v->verdict]);
}

static void put_permit(struct base_buf *b, const struct verdict *v, const char *rule)
{
	if (v->verdict == AG_GATE_RUN)
		return;
	if (v->verdict == AG_GATE_DENY && !v->rule)
		(void)base_buf_puts(b, "no rule permits this; who means it types it into a shell");
	else if (v->rule)
		(void)base_buf_printf(b, "take the rule \"%s %s\" out of %s", kind_names[v->rule->kind],
		                      v->rule->pattern, *v->rule->where ? v->rule->where : "the configuration");
	else if (rule)
		(void)base_buf_printf(b, "add the rule \"allow %s\"", rule);
	else
		(void)base_buf_puts(
		        b, "confirm it, or write it as single plain commands and allow each of them by a rule");
}

int ag_gate_decide(const struct ag_gate_rules *rules, const char *line, size_t len,
                   const struct ag_gate_context *context, struct ag_gate_decision **ret_decision)
{
	struct base_buf reason = BASE_BUF_INIT(16 * 1024), permit = BASE_BUF_INIT(16 * 1024),
	                pattern = BASE_BUF_INIT(8 * 1024);
	struct ag_gate_decision *d = calloc(1, sizeof(*d));
	struct verdict v = { 0 };
	const struct ag_gate_command *only = NULL;
	size_t n_open = 0;
	int r = d ? ag_gate_assess(line, len, context, &d->risk) : -ENOMEM;

	if (r < 0) {
		free(d);
		return r;
	}
	for (size_t i = 0; i < d->risk->n_commands; i++) {
		const struct ag_gate_command *c = &d->risk->commands[i];

		judge_command(&v, rules, c);
		if (c->argc == 1 && strcmp(c->argv[0], "?") == 0) /* could be anything, also what is denied */
			raise_to(&v, AG_GATE_ASK_TWICE, NULL, c, false);
		if (!c->wrapper && (c->class != AG_GATE_READ || (c->flags & AG_GATE_SECRET))) {
			only = c;
			n_open++;
		}
	}
	d->verdict = v.verdict;
	if (n_open == 1 && v.verdict != AG_GATE_DENY && v.verdict != AG_GATE_RUN && !v.rule &&
	    put_pattern(&pattern, only))
		d->rule = base_buf_take(&pattern);
	put_reason(&reason, &v, d->risk);
	put_permit(&permit, &v, d->rule);
	d->reason = base_buf_take(&reason);
	d->permit = permit.len ? base_buf_take(&permit) : strdup("");
	base_buf_done(&pattern);
	base_buf_done(&reason);
	base_buf_done(&permit);
	if (!d->reason || !d->permit) {
		ag_gate_decision_free(d);
		return -ENOMEM;
	}
	*ret_decision = d;
	return 0;
}

void ag_gate_decision_free(struct ag_gate_decision *decision)
{
	if (!decision)
		return;
	free(decision->reason);
	free(decision->permit);
	free(decision->rule);
	ag_gate_risk_free(decision->risk);
	free(decision);
}

const char *ag_gate_verdict_name(enum ag_gate_verdict verdict)
{
	static const char *const names[] = { "run", "ask", "ask-twice", "deny" };

	return names[verdict];
}
