/* What lies between the words of a command line, and what a simple command is made of: assignments, words, redirections
 * and the end marks of here-documents (POSIX.1-2024 Shell Command Language section 2.10, rules 5 to 9, with the arrays
 * and redirections that bash adds). Commands within commands are shell.c's, the words themselves shell_word.c's. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "shell_internal.h"

/* ---- Between the words ------------------------------------------------------------------------------- */

void ag_gate_skip_blanks(struct gate_parser *p)
{
	for (;;) {
		int c = gate_peek(p, 0);

		if (c == ' ' || c == '\t' || c == '\r') {
			p->pos++;
		} else if (c == '\\' && gate_peek(p, 1) == '\n') {
			p->pos += 2;
		} else if (c == '#') {
			while (gate_peek(p, 0) >= 0 && gate_peek(p, 0) != '\n')
				p->pos++;
		} else {
			return;
		}
	}
}

void ag_gate_skip_newlines(struct gate_parser *p)
{
	ag_gate_skip_blanks(p);
	while (gate_peek(p, 0) == '\n' && !p->error) {
		p->pos++;
		if (p->n_heredocs)
			ag_gate_parse_heredocs(p);
		ag_gate_skip_blanks(p);
	}
}

bool ag_gate_at_word(const struct gate_parser *p, const char *word)
{
	size_t len = strlen(word);

	return len <= gate_left(p) && memcmp(p->s + p->pos, word, len) == 0 && gate_is_meta(gate_peek(p, len));
}

bool ag_gate_take_word(struct gate_parser *p, const char *word)
{
	if (!ag_gate_at_word(p, word))
		return false;
	p->pos += strlen(word);
	return true;
}

/* ---- Redirections -------------------------------------------------------------------------------------- */

static const char *const redir_ops[] = {
	"&>>", "<<<", "<<-", "&>", ">>", ">|", ">&", "<>", "<&", "<<", "<", ">", NULL
};

/* The operator at pos + skip, or NULL. */
static const char *redir_op(const struct gate_parser *p, size_t skip)
{
	if (skip > gate_left(p))
		return NULL;
	for (size_t i = 0; redir_ops[i]; i++) {
		size_t len = strlen(redir_ops[i]);

		if (len <= gate_left(p) - skip && memcmp(p->s + p->pos + skip, redir_ops[i], len) == 0)
			return (len == 1 && gate_peek(p, skip + 1) == '(') ? NULL : redir_ops[i];
	}
	return NULL;
}

/* Length of what may stand before the operator: a number or {name}. */
static size_t redir_prefix(const struct gate_parser *p)
{
	size_t n = 0;

	if (gate_peek(p, 0) == '{') {
		for (n = 1; gate_is_name(gate_peek(p, n)); n++)
			;
		return n > 1 && gate_peek(p, n) == '}' ? n + 1 : 0;
	}
	while (gate_peek(p, n) >= '0' && gate_peek(p, n) <= '9')
		n++;
	return n;
}

static void add_heredoc(struct gate_parser *p, struct ag_gate_redir *r, const struct ag_gate_word *w)
{
	struct gate_heredoc *doc = &p->heredocs[p->n_heredocs];
	size_t len = 0, at = 0;
	char *text;

	if (p->n_heredocs == GATE_MAX_HEREDOCS) {
		ag_gate_parse_fail(p, "too many here-documents");
		return;
	}
	for (const struct ag_gate_part *part = w->parts; part; part = part->next) {
		if (part->kind != AG_GATE_PART_TEXT) {
			ag_gate_parse_fail(p, "the end mark of a here-document is not plain text");
			return;
		}
		len += part->len;
	}
	text = ag_gate_tree_alloc(p, len + 1);
	if (!text)
		return;
	for (const struct ag_gate_part *part = w->parts; part; part = part->next) {
		memcpy(text + at, part->text, part->len);
		at += part->len;
	}
	*doc = (struct gate_heredoc){ r, text, strcmp(r->op, "<<-") == 0, w->quoted };
	p->n_heredocs++;
}

/* One redirection when one stands here. */
static bool parse_redir(struct gate_parser *p, struct ag_gate_redir ***tail)
{
	size_t prefix = redir_prefix(p);
	const char *op = redir_op(p, prefix);
	struct ag_gate_redir *r;
	struct ag_gate_word *w;

	if (!op || (prefix && op[0] == '&'))
		return false;
	r = ag_gate_tree_alloc(p, sizeof(*r));
	if (!r)
		return false;
	r->fd = -1;
	if (prefix && gate_peek(p, 0) != '{')
		r->fd = prefix > 4 ? 9999 : (int)strtol(ag_gate_tree_text(p, p->s + p->pos, prefix), NULL, 10);
	(void)snprintf(r->op, sizeof(r->op), "%s", op);
	p->pos += prefix + strlen(op);
	ag_gate_skip_blanks(p);
	if (gate_is_meta(gate_peek(p, 0)) && !gate_at_process_substitution(p)) {
		ag_gate_parse_fail(p, "a redirection names no file");
		return false;
	}
	w = ag_gate_parse_word(p, GATE_WORD_PLAIN, false);
	if (!w)
		return false;
	if (strcmp(op, "<<") == 0 || strcmp(op, "<<-") == 0)
		add_heredoc(p, r, w);
	else
		r->target = w;
	**tail = r;
	*tail = &r->next;
	return true;
}

void ag_gate_parse_redirs(struct gate_parser *p, struct ag_gate_node *n)
{
	struct ag_gate_redir **tail = &n->redirs;

	do {
		ag_gate_skip_blanks(p);
	} while (!p->error && parse_redir(p, &tail));
}

/* ---- Simple commands ------------------------------------------------------------------------------------- */

/* Length of "NAME=", "NAME+=" or "NAME[index]=" without the sign; 0 when none stands here. */
static size_t assign_length(const struct gate_parser *p, bool *ret_append)
{
	size_t n = 0;

	if (!gate_is_name_start(gate_peek(p, 0)))
		return 0;
	while (gate_is_name(gate_peek(p, n)))
		n++;
	if (gate_peek(p, n) == '[') {
		while (gate_peek(p, n) >= 0 && gate_peek(p, n) != ']' && gate_peek(p, n) != '\n')
			n++;
		n += gate_peek(p, n) == ']';
	}
	*ret_append = gate_peek(p, n) == '+' && gate_peek(p, n + 1) == '=';
	return gate_peek(p, n + *ret_append) == '=' ? n : 0;
}

/* The words between parentheses; p->pos is on the opening one. */
static struct ag_gate_word *parse_array(struct gate_parser *p)
{
	struct ag_gate_word *first = NULL, **tail = &first;

	p->pos++;
	for (;;) {
		ag_gate_skip_newlines(p);
		if (p->error || gate_peek(p, 0) == ')')
			break;
		if (gate_is_meta(gate_peek(p, 0)) && !gate_at_process_substitution(p)) {
			ag_gate_parse_fail(p, "no ')' closes the array");
			break;
		}
		*tail = ag_gate_parse_word(p, GATE_WORD_PLAIN, false);
		if (!*tail)
			break;
		if (!(*tail)->parts && !(*tail)->quoted) {
			ag_gate_parse_fail(p, "an operator stands in an array");
			break;
		}
		tail = &(*tail)->next;
	}
	p->pos++;
	return first;
}

static void parse_assign(struct gate_parser *p, size_t name_len, bool append, struct ag_gate_assign ***tail)
{
	struct ag_gate_assign *a = ag_gate_tree_alloc(p, sizeof(*a));
	const char *bracket = memchr(p->s + p->pos, '[', name_len);

	if (!a)
		return;
	a->append = append;
	a->name = ag_gate_tree_text(p, p->s + p->pos, bracket ? (size_t)(bracket - p->s) - p->pos : name_len);
	if (bracket) { /* its substitutions are the first word of the value */
		a->array = true;
		a->value = ag_gate_parse_range(p, (size_t)(bracket - p->s), p->pos + name_len);
	}
	p->pos += name_len + append + 1;
	if (gate_peek(p, 0) == '(') {
		a->array = true;
		a->value = parse_array(p);
	} else if (a->value) {
		a->value->next = ag_gate_parse_word(p, GATE_WORD_PLAIN, false);
	} else {
		a->value = ag_gate_parse_word(p, GATE_WORD_PLAIN, false);
	}
	**tail = a;
	*tail = &a->next;
}

static const char *plain_text(const struct ag_gate_word *w)
{
	return w && w->parts && !w->parts->next && w->parts->kind == AG_GATE_PART_TEXT ? w->parts->text : "";
}

static bool declares(const struct ag_gate_word *first)
{
	static const char *const names[] = { "declare", "typeset", "local", "export", "readonly", NULL };
	const char *text = plain_text(first);

	for (size_t i = 0; names[i]; i++)
		if (strcmp(text, names[i]) == 0)
			return true;
	return false;
}

struct ag_gate_node *ag_gate_parse_simple(struct gate_parser *p)
{
	struct ag_gate_node *n = ag_gate_node_new(p, AG_GATE_SIMPLE);
	struct ag_gate_word **words;
	struct ag_gate_assign **assigns;
	struct ag_gate_redir **redirs;
	bool append;
	size_t len;

	if (!n)
		return NULL;
	words = &n->words;
	assigns = &n->assigns;
	redirs = &n->redirs;
	for (;;) {
		int c;

		ag_gate_skip_blanks(p);
		c = gate_peek(p, 0);
		if (p->error)
			return NULL;
		if (parse_redir(p, &redirs))
			continue;
		if (p->error)
			return NULL;
		if (c == '(' && n->words && !n->words->next && !n->assigns && gate_peek(p, 1) == ')') {
			p->pos += 2;
			return ag_gate_parse_function_body(p, plain_text(n->words));
		}
		if (gate_is_meta(c) && !gate_at_process_substitution(p))
			break;
		if (!n->words && (len = assign_length(p, &append)) > 0) {
			parse_assign(p, len, append, &assigns);
		} else if (declares(n->words) && (len = assign_length(p, &append)) > 0 &&
		           gate_peek(p, len + append + 1) == '(') {
			parse_assign(p, len, append, &assigns);
		} else {
			*words = ag_gate_parse_word(p, GATE_WORD_PLAIN, false);
			if (*words)
				words = &(*words)->next;
		}
		if (p->error)
			return NULL;
	}
	if (!n->words && !n->assigns && !n->redirs)
		ag_gate_parse_fail(p, "a command is missing");
	return n;
}
