/* Command lines of POSIX sh and bash, parsed into a tree by recursive descent (POSIX.1-2024 Shell Command Language
 * section 2.10 is the grammar; bash adds [[ ]], (( )), for (( )), select, function, coproc, arrays, &>, <<<, |&).
 *
 * The text comes from models and people: it is bounded in length, in depth and in the memory of its tree, and what is
 * not understood is an error, which the gate treats as "could be anything". Left out on purpose: aliases (risk.c knows
 * those of the same line) and ${ cmd; } of bash 5.3. Looser than the shell where that hides nothing. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "shell_internal.h"

struct block {
	struct block *next;
	size_t used, size;
	max_align_t data[];
};

struct ag_gate_tree {
	struct block *blocks;
	size_t total;
	struct ag_gate_node *root;
};

void *ag_gate_tree_alloc(struct gate_parser *p, size_t size)
{
	struct ag_gate_tree *t = p->tree;
	struct block *b = t->blocks;
	size_t block_size = size > 8192 ? size : 8192;
	void *at;

	if (p->error)
		return NULL;
	size = (size + sizeof(max_align_t) - 1) / sizeof(max_align_t) * sizeof(max_align_t);
	if (block_size < size)
		block_size = size;
	if (!b || b->size - b->used < size) {
		if (t->total + block_size > GATE_MAX_TREE_BYTES) {
			ag_gate_parse_fail(p, "the line is too long");
			return NULL;
		}
		b = malloc(sizeof(*b) + block_size);
		if (!b) {
			p->error = err_set(p->err, -ENOMEM, "out of memory");
			return NULL;
		}
		b->next = t->blocks;
		b->used = 0;
		b->size = block_size;
		t->blocks = b;
		t->total += block_size;
	}
	at = (char *)b->data + b->used;
	b->used += size;
	return memset(at, 0, size);
}

const char *ag_gate_tree_text(struct gate_parser *p, const char *text, size_t len)
{
	char *copy = ag_gate_tree_alloc(p, len + 1);

	if (!copy)
		return "";
	memcpy(copy, text, len);
	return copy;
}

void ag_gate_parse_fail(struct gate_parser *p, const char *what)
{
	if (!p->error)
		p->error = err_set(p->err, -EBADMSG, "byte %zu: %s", p->pos + 1, what);
}

bool ag_gate_parse_enter(struct gate_parser *p)
{
	if (p->depth >= AG_GATE_MAX_DEPTH)
		ag_gate_parse_fail(p, "nested too deep");
	if (p->error)
		return false;
	p->depth++;
	return true;
}

static struct ag_gate_node *node_new(struct gate_parser *p, enum ag_gate_node_kind kind)
{
	struct ag_gate_node *n = ag_gate_tree_alloc(p, sizeof(*n));

	if (n)
		n->kind = kind;
	return n;
}

/* ---- Between the words ------------------------------------------------------------------------------- */

static void skip_blanks(struct gate_parser *p)
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

static void skip_newlines(struct gate_parser *p)
{
	skip_blanks(p);
	while (gate_peek(p, 0) == '\n' && !p->error) {
		p->pos++;
		if (p->n_heredocs)
			ag_gate_parse_heredocs(p);
		skip_blanks(p);
	}
}

static bool at_word(const struct gate_parser *p, const char *word)
{
	size_t len = strlen(word);

	return len <= gate_left(p) && memcmp(p->s + p->pos, word, len) == 0 && gate_is_meta(gate_peek(p, len));
}

static bool take_word(struct gate_parser *p, const char *word)
{
	if (!at_word(p, word))
		return false;
	p->pos += strlen(word);
	return true;
}

static void want_word(struct gate_parser *p, const char *word)
{
	char text[64];

	skip_newlines(p);
	if (p->error || take_word(p, word))
		return;
	(void)snprintf(text, sizeof(text), "\"%s\" is missing", word);
	ag_gate_parse_fail(p, text);
}

static bool at_list_end(const struct gate_parser *p)
{
	static const char *const enders[] = { "then", "do", "done", "fi", "elif", "else", "esac", "}", NULL };
	int c = gate_peek(p, 0);

	if (c < 0 || c == ')' || (c == ';' && (gate_peek(p, 1) == ';' || gate_peek(p, 1) == '&')))
		return true;
	for (size_t i = 0; enders[i]; i++)
		if (at_word(p, enders[i]))
			return true;
	return false;
}

static bool at_process_substitution(const struct gate_parser *p)
{
	return (gate_peek(p, 0) == '<' || gate_peek(p, 0) == '>') && gate_peek(p, 1) == '(';
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
	skip_blanks(p);
	if (gate_is_meta(gate_peek(p, 0)) && !at_process_substitution(p)) {
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

static void parse_redirs(struct gate_parser *p, struct ag_gate_node *n)
{
	struct ag_gate_redir **tail = &n->redirs;

	do {
		skip_blanks(p);
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
		skip_newlines(p);
		if (p->error || gate_peek(p, 0) == ')')
			break;
		if (gate_is_meta(gate_peek(p, 0)) && !at_process_substitution(p)) {
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

static struct ag_gate_node *parse_command(struct gate_parser *p);

static struct ag_gate_node *parse_function_body(struct gate_parser *p, const char *name)
{
	struct ag_gate_node *n = node_new(p, AG_GATE_FUNCTION);

	skip_newlines(p);
	if (!n || p->error)
		return NULL;
	n->name = name;
	n->children = parse_command(p);
	if (!p->error && n->children->kind == AG_GATE_SIMPLE)
		ag_gate_parse_fail(p, "a function's body is not a compound command");
	return n;
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

static struct ag_gate_node *parse_simple(struct gate_parser *p)
{
	struct ag_gate_node *n = node_new(p, AG_GATE_SIMPLE);
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

		skip_blanks(p);
		c = gate_peek(p, 0);
		if (p->error)
			return NULL;
		if (parse_redir(p, &redirs))
			continue;
		if (p->error)
			return NULL;
		if (c == '(' && n->words && !n->words->next && !n->assigns && gate_peek(p, 1) == ')') {
			p->pos += 2;
			return parse_function_body(p, plain_text(n->words));
		}
		if (gate_is_meta(c) && !at_process_substitution(p))
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

/* ---- Compound commands -------------------------------------------------------------------------------------- */

/* A list that must hold a command. */
static struct ag_gate_node *parse_body(struct gate_parser *p)
{
	struct ag_gate_node *list = ag_gate_parse_list(p);

	if (list && !list->children)
		ag_gate_parse_fail(p, "a command is missing");
	return list;
}

static void append_child(struct ag_gate_node *n, struct ag_gate_node *child)
{
	struct ag_gate_node **at = &n->children;

	while (*at)
		at = &(*at)->next;
	*at = child;
}

static struct ag_gate_node *parse_if(struct gate_parser *p)
{
	struct ag_gate_node *n = node_new(p, AG_GATE_IF);

	while (n && !p->error) {
		append_child(n, parse_body(p));
		want_word(p, "then");
		append_child(n, p->error ? NULL : parse_body(p));
		if (take_word(p, "elif"))
			continue;
		if (take_word(p, "else"))
			append_child(n, parse_body(p));
		want_word(p, "fi");
		break;
	}
	return n;
}

static struct ag_gate_node *parse_loop(struct gate_parser *p)
{
	struct ag_gate_node *n = node_new(p, AG_GATE_LOOP);

	if (!n)
		return NULL;
	append_child(n, parse_body(p));
	want_word(p, "do");
	append_child(n, p->error ? NULL : parse_body(p));
	want_word(p, "done");
	return n;
}

/* (( ... )); p->pos is on it. NULL without an error when the parentheses are those of a subshell. */
static struct ag_gate_node *parse_arith(struct gate_parser *p)
{
	size_t end = ag_gate_arith_end(p, p->pos + 2);
	struct ag_gate_node *n;

	if (end == 0)
		return NULL;
	n = node_new(p, AG_GATE_COND);
	if (n)
		n->words = ag_gate_parse_range(p, p->pos + 2, end);
	p->pos = end + 2;
	return n;
}

static struct ag_gate_node *parse_for(struct gate_parser *p)
{
	struct ag_gate_node *n = node_new(p, AG_GATE_FOR);
	struct ag_gate_word **tail;
	size_t len = 0;

	if (!n)
		return NULL;
	n->name = "";
	skip_blanks(p);
	if (gate_peek(p, 0) == '(' && gate_peek(p, 1) == '(') {
		append_child(n, parse_arith(p));
		if (!n->children)
			ag_gate_parse_fail(p, "no \"))\" closes the loop's expression");
	} else {
		while (gate_is_name(gate_peek(p, len)))
			len++;
		if (len == 0)
			ag_gate_parse_fail(p, "the loop names no variable");
		n->name = ag_gate_tree_text(p, p->s + p->pos, len);
		p->pos += len;
	}
	skip_newlines(p);
	tail = &n->words;
	if (!p->error && take_word(p, "in")) {
		for (skip_blanks(p); !p->error; skip_blanks(p)) {
			if (gate_is_meta(gate_peek(p, 0)) && !at_process_substitution(p))
				break;
			*tail = ag_gate_parse_word(p, GATE_WORD_PLAIN, false);
			if (!*tail || (!(*tail)->parts && !(*tail)->quoted)) {
				ag_gate_parse_fail(p, "an operator stands in the loop's words");
				break;
			}
			tail = &(*tail)->next;
		}
	}
	skip_blanks(p);
	if (gate_peek(p, 0) == ';')
		p->pos++;
	skip_newlines(p);
	if (!p->error && take_word(p, "{")) {
		append_child(n, parse_body(p));
		want_word(p, "}");
		return n;
	}
	want_word(p, "do");
	append_child(n, p->error ? NULL : parse_body(p));
	want_word(p, "done");
	return n;
}

static struct ag_gate_word *parse_case_patterns(struct gate_parser *p, struct ag_gate_word *last)
{
	skip_blanks(p);
	if (gate_peek(p, 0) == '(')
		p->pos++;
	while (!p->error) {
		skip_blanks(p);
		last->next = ag_gate_parse_word(p, GATE_WORD_PLAIN, false);
		if (!last->next)
			break;
		last = last->next;
		skip_blanks(p);
		if (gate_peek(p, 0) != '|')
			break;
		p->pos++;
	}
	if (!p->error && gate_peek(p, 0) != ')')
		ag_gate_parse_fail(p, "no ')' ends the pattern of case");
	p->pos++;
	return last;
}

static struct ag_gate_node *parse_case(struct gate_parser *p)
{
	struct ag_gate_node *n = node_new(p, AG_GATE_CASE);
	struct ag_gate_word *last;

	skip_blanks(p);
	if (!n || !(n->words = last = ag_gate_parse_word(p, GATE_WORD_PLAIN, false)))
		return NULL;
	want_word(p, "in");
	for (skip_newlines(p); !p->error && !take_word(p, "esac"); skip_newlines(p)) {
		last = parse_case_patterns(p, last);
		if (p->error)
			break;
		append_child(n, ag_gate_parse_list(p));
		skip_newlines(p);
		if (!p->error && gate_peek(p, 0) == ';') {
			p->pos += gate_peek(p, 1) == ';' && gate_peek(p, 2) == '&' ? 3 : 2;
		} else if (!p->error && !at_word(p, "esac")) {
			ag_gate_parse_fail(p, "\";;\" or \"esac\" is missing");
		}
	}
	return n;
}

/* [[ ... ]]: its operators are skipped, its words kept. */
static struct ag_gate_node *parse_cond(struct gate_parser *p)
{
	struct ag_gate_node *n = node_new(p, AG_GATE_COND);
	struct ag_gate_word **tail;

	if (!n)
		return NULL;
	for (tail = &n->words; !p->error;) {
		skip_newlines(p);
		if (gate_peek(p, 0) < 0) {
			ag_gate_parse_fail(p, "\"]]\" is missing");
			break;
		}
		if (take_word(p, "]]"))
			break;
		if (gate_is_meta(gate_peek(p, 0)) && !at_process_substitution(p)) {
			p->pos++;
			continue;
		}
		*tail = ag_gate_parse_word(p, GATE_WORD_PLAIN, false);
		if (*tail)
			tail = &(*tail)->next;
	}
	return n;
}

static struct ag_gate_node *parse_function(struct gate_parser *p)
{
	const char *name;
	size_t len = 0;

	skip_blanks(p);
	while (!gate_is_meta(gate_peek(p, len)))
		len++;
	if (len == 0)
		ag_gate_parse_fail(p, "the function has no name");
	name = ag_gate_tree_text(p, p->s + p->pos, len);
	p->pos += len;
	skip_blanks(p);
	if (gate_peek(p, 0) == '(' && gate_peek(p, 1) == ')')
		p->pos += 2;
	return p->error ? NULL : parse_function_body(p, name);
}

static struct ag_gate_node *parse_group(struct gate_parser *p, enum ag_gate_node_kind kind)
{
	struct ag_gate_node *n = node_new(p, kind);

	if (!n)
		return NULL;
	n->children = parse_body(p);
	if (kind == AG_GATE_GROUP) {
		want_word(p, "}");
	} else {
		if (!p->error && gate_peek(p, 0) != ')')
			ag_gate_parse_fail(p, "no ')' closes the subshell");
		p->pos++;
	}
	return n;
}

/* NULL without an error when a simple command stands here. */
static struct ag_gate_node *parse_compound(struct gate_parser *p)
{
	struct ag_gate_node *n = NULL;

	if (gate_peek(p, 0) == '(') {
		if (gate_peek(p, 1) == '(')
			n = parse_arith(p);
		if (n || p->error)
			return n;
		p->pos++;
		return parse_group(p, AG_GATE_SUBSHELL);
	}
	if (take_word(p, "{"))
		return parse_group(p, AG_GATE_GROUP);
	if (take_word(p, "if"))
		return parse_if(p);
	if (take_word(p, "while") || take_word(p, "until"))
		return parse_loop(p);
	if (take_word(p, "for") || take_word(p, "select"))
		return parse_for(p);
	if (take_word(p, "case"))
		return parse_case(p);
	if (take_word(p, "[["))
		return parse_cond(p);
	if (take_word(p, "function"))
		return parse_function(p);
	if (take_word(p, "coproc")) {
		skip_blanks(p);
		return parse_command(p);
	}
	return NULL;
}

static struct ag_gate_node *parse_command(struct gate_parser *p)
{
	struct ag_gate_node *n;

	if (!ag_gate_parse_enter(p))
		return NULL;
	n = parse_compound(p);
	if (n && !p->error && n->kind != AG_GATE_FUNCTION)
		parse_redirs(p, n);
	else if (!n && !p->error)
		n = parse_simple(p);
	p->depth--;
	return p->error ? NULL : n;
}

/* ---- Pipelines and lists ------------------------------------------------------------------------------------- */

static struct ag_gate_node *parse_pipeline(struct gate_parser *p)
{
	struct ag_gate_node *first, *last, *n;

	for (skip_blanks(p);; skip_blanks(p)) {
		if (take_word(p, "time")) {
			skip_blanks(p);
			(void)take_word(p, "-p");
		} else if (!take_word(p, "!")) {
			break;
		}
	}
	first = last = parse_command(p);
	while (first && !p->error) {
		skip_blanks(p);
		if (gate_peek(p, 0) != '|' || gate_peek(p, 1) == '|')
			break;
		(void)snprintf(last->after, sizeof(last->after), "%s", gate_peek(p, 1) == '&' ? "|&" : "|");
		p->pos += strlen(last->after);
		skip_newlines(p);
		last->next = p->error ? NULL : parse_command(p);
		if (last->next)
			last = last->next;
	}
	if (p->error || first == last)
		return p->error ? NULL : first;
	n = node_new(p, AG_GATE_PIPELINE);
	if (n)
		n->children = first;
	return n;
}

/* The operator behind a pipeline, consumed; "" when none. */
static const char *take_separator(struct gate_parser *p)
{
	int c = gate_peek(p, 0), d = gate_peek(p, 1);
	const char *op = "";

	if ((c == '&' && d == '&') || (c == '|' && d == '|'))
		op = c == '&' ? "&&" : "||";
	else if (c == ';' && d != ';' && d != '&')
		op = ";";
	else if (c == '&')
		op = "&";
	else if (c == '\n')
		return ";"; /* skip_newlines() takes it, with the here-documents */
	p->pos += strlen(op);
	return op;
}

struct ag_gate_node *ag_gate_parse_list(struct gate_parser *p)
{
	struct ag_gate_node *list = node_new(p, AG_GATE_LIST), **tail;
	const char *op;

	if (!list)
		return NULL;
	tail = &list->children;
	for (;;) {
		skip_newlines(p);
		if (p->error || at_list_end(p))
			break;
		*tail = parse_pipeline(p);
		if (!*tail)
			break;
		skip_blanks(p);
		op = take_separator(p);
		if (!*op)
			break;
		(void)snprintf((*tail)->after, sizeof((*tail)->after), "%s", op);
		tail = &(*tail)->next;
		if (op[1]) { /* && and || want a command */
			skip_newlines(p);
			if (!p->error && at_list_end(p))
				ag_gate_parse_fail(p, "a command is missing behind && or ||");
		}
	}
	return p->error ? NULL : list;
}

/* ---- Entry --------------------------------------------------------------------------------------------------- */

int ag_gate_parse(const char *line, size_t len, struct ag_gate_tree **ret_tree, struct err *err)
{
	struct gate_parser p = { .s = line, .len = len, .err = err };
	struct ag_gate_node *root;

	if (len > AG_GATE_MAX_LINE)
		return err_set(err, -EBADMSG, "the line has %zu bytes, more than %d", len, AG_GATE_MAX_LINE);
	if (len && memchr(line, '\0', len))
		return err_set(err, -EBADMSG, "the line holds a NUL byte");
	p.tree = calloc(1, sizeof(*p.tree));
	if (!p.tree)
		return err_set(err, -ENOMEM, "out of memory");
	base_buf_init(&p.scratch, (size_t)AG_GATE_MAX_LINE * 16);
	root = ag_gate_parse_list(&p);
	if (!p.error && p.pos < p.len)
		ag_gate_parse_fail(&p, "an operator or word stands where none can");
	base_buf_done(&p.scratch);
	if (p.error) {
		ag_gate_tree_free(p.tree);
		return p.error;
	}
	p.tree->root = root;
	*ret_tree = p.tree;
	return 0;
}

const struct ag_gate_node *ag_gate_tree_root(const struct ag_gate_tree *tree)
{
	return tree->root;
}

void ag_gate_tree_free(struct ag_gate_tree *tree)
{
	struct block *next;

	if (!tree)
		return;
	for (struct block *b = tree->blocks; b; b = next) {
		next = b->next;
		free(b);
	}
	free(tree);
}
