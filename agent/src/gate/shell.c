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

struct ag_gate_node *ag_gate_node_new(struct gate_parser *p, enum ag_gate_node_kind kind)
{
	struct ag_gate_node *n = ag_gate_tree_alloc(p, sizeof(*n));

	if (n)
		n->kind = kind;
	return n;
}
/* ---- Between the words ------------------------------------------------------------------------------- */

static void want_word(struct gate_parser *p, const char *word)
{
	char text[64];

	ag_gate_skip_newlines(p);
	if (p->error || ag_gate_take_word(p, word))
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
		if (ag_gate_at_word(p, enders[i]))
			return true;
	return false;
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
	struct ag_gate_node *n = ag_gate_node_new(p, AG_GATE_IF);

	while (n && !p->error) {
		append_child(n, parse_body(p));
		want_word(p, "then");
		append_child(n, p->error ? NULL : parse_body(p));
		if (ag_gate_take_word(p, "elif"))
			continue;
		if (ag_gate_take_word(p, "else"))
			append_child(n, parse_body(p));
		want_word(p, "fi");
		break;
	}
	return n;
}

static struct ag_gate_node *parse_loop(struct gate_parser *p)
{
	struct ag_gate_node *n = ag_gate_node_new(p, AG_GATE_LOOP);

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
	n = ag_gate_node_new(p, AG_GATE_COND);
	if (n)
		n->words = ag_gate_parse_range(p, p->pos + 2, end);
	p->pos = end + 2;
	return n;
}

static struct ag_gate_node *parse_for(struct gate_parser *p)
{
	struct ag_gate_node *n = ag_gate_node_new(p, AG_GATE_FOR);
	struct ag_gate_word **tail;
	size_t len = 0;

	if (!n)
		return NULL;
	n->name = "";
	ag_gate_skip_blanks(p);
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
	ag_gate_skip_newlines(p);
	tail = &n->words;
	if (!p->error && ag_gate_take_word(p, "in")) {
		for (ag_gate_skip_blanks(p); !p->error; ag_gate_skip_blanks(p)) {
			if (gate_is_meta(gate_peek(p, 0)) && !gate_at_process_substitution(p))
				break;
			*tail = ag_gate_parse_word(p, GATE_WORD_PLAIN, false);
			if (!*tail || (!(*tail)->parts && !(*tail)->quoted)) {
				ag_gate_parse_fail(p, "an operator stands in the loop's words");
				break;
			}
			tail = &(*tail)->next;
		}
	}
	ag_gate_skip_blanks(p);
	if (gate_peek(p, 0) == ';')
		p->pos++;
	ag_gate_skip_newlines(p);
	if (!p->error && ag_gate_take_word(p, "{")) {
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
	ag_gate_skip_blanks(p);
	if (gate_peek(p, 0) == '(')
		p->pos++;
	while (!p->error) {
		ag_gate_skip_blanks(p);
		last->next = ag_gate_parse_word(p, GATE_WORD_PLAIN, false);
		if (!last->next)
			break;
		last = last->next;
		ag_gate_skip_blanks(p);
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
	struct ag_gate_node *n = ag_gate_node_new(p, AG_GATE_CASE);
	struct ag_gate_word *last;

	ag_gate_skip_blanks(p);
	if (!n || !(n->words = last = ag_gate_parse_word(p, GATE_WORD_PLAIN, false)))
		return NULL;
	want_word(p, "in");
	for (ag_gate_skip_newlines(p); !p->error && !ag_gate_take_word(p, "esac"); ag_gate_skip_newlines(p)) {
		last = parse_case_patterns(p, last);
		if (p->error)
			break;
		append_child(n, ag_gate_parse_list(p));
		ag_gate_skip_newlines(p);
		if (!p->error && gate_peek(p, 0) == ';') {
			p->pos += gate_peek(p, 1) == ';' && gate_peek(p, 2) == '&' ? 3 : 2;
		} else if (!p->error && !ag_gate_at_word(p, "esac")) {
			ag_gate_parse_fail(p, "\";;\" or \"esac\" is missing");
		}
	}
	return n;
}

/* [[ ... ]]: its operators are skipped, its words kept. */
static struct ag_gate_node *parse_cond(struct gate_parser *p)
{
	struct ag_gate_node *n = ag_gate_node_new(p, AG_GATE_COND);
	struct ag_gate_word **tail;

	if (!n)
		return NULL;
	for (tail = &n->words; !p->error;) {
		ag_gate_skip_newlines(p);
		if (gate_peek(p, 0) < 0) {
			ag_gate_parse_fail(p, "\"]]\" is missing");
			break;
		}
		if (ag_gate_take_word(p, "]]"))
			break;
		if (gate_is_meta(gate_peek(p, 0)) && !gate_at_process_substitution(p)) {
			p->pos++;
			continue;
		}
		*tail = ag_gate_parse_word(p, GATE_WORD_PLAIN, false);
		if (*tail)
			tail = &(*tail)->next;
	}
	return n;
}

struct ag_gate_node *ag_gate_parse_function_body(struct gate_parser *p, const char *name)
{
	struct ag_gate_node *n = ag_gate_node_new(p, AG_GATE_FUNCTION);

	ag_gate_skip_newlines(p);
	if (!n || p->error)
		return NULL;
	n->name = name;
	n->children = ag_gate_parse_command(p);
	if (!p->error && n->children->kind == AG_GATE_SIMPLE)
		ag_gate_parse_fail(p, "a function's body is not a compound command");
	return n;
}

static struct ag_gate_node *parse_function(struct gate_parser *p)
{
	const char *name;
	size_t len = 0;

	ag_gate_skip_blanks(p);
	while (!gate_is_meta(gate_peek(p, len)))
		len++;
	if (len == 0)
		ag_gate_parse_fail(p, "the function has no name");
	name = ag_gate_tree_text(p, p->s + p->pos, len);
	p->pos += len;
	ag_gate_skip_blanks(p);
	if (gate_peek(p, 0) == '(' && gate_peek(p, 1) == ')')
		p->pos += 2;
	return p->error ? NULL : ag_gate_parse_function_body(p, name);
}

static struct ag_gate_node *parse_group(struct gate_parser *p, enum ag_gate_node_kind kind)
{
	struct ag_gate_node *n = ag_gate_node_new(p, kind);

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
	if (ag_gate_take_word(p, "{"))
		return parse_group(p, AG_GATE_GROUP);
	if (ag_gate_take_word(p, "if"))
		return parse_if(p);
	if (ag_gate_take_word(p, "while") || ag_gate_take_word(p, "until"))
		return parse_loop(p);
	if (ag_gate_take_word(p, "for") || ag_gate_take_word(p, "select"))
		return parse_for(p);
	if (ag_gate_take_word(p, "case"))
		return parse_case(p);
	if (ag_gate_take_word(p, "[["))
		return parse_cond(p);
	if (ag_gate_take_word(p, "function"))
		return parse_function(p);
	if (ag_gate_take_word(p, "coproc")) {
		ag_gate_skip_blanks(p);
		return ag_gate_parse_command(p);
	}
	return NULL;
}

struct ag_gate_node *ag_gate_parse_command(struct gate_parser *p)
{
	struct ag_gate_node *n;

	if (!ag_gate_parse_enter(p))
		return NULL;
	n = parse_compound(p);
	if (n && !p->error && n->kind != AG_GATE_FUNCTION)
		ag_gate_parse_redirs(p, n);
	else if (!n && !p->error)
		n = ag_gate_parse_simple(p);
	p->depth--;
	return p->error ? NULL : n;
}

/* ---- Pipelines and lists ------------------------------------------------------------------------------------- */

static struct ag_gate_node *parse_pipeline(struct gate_parser *p)
{
	struct ag_gate_node *first, *last, *n;

	for (ag_gate_skip_blanks(p);; ag_gate_skip_blanks(p)) {
		if (ag_gate_take_word(p, "time")) {
			ag_gate_skip_blanks(p);
			(void)ag_gate_take_word(p, "-p");
		} else if (!ag_gate_take_word(p, "!")) {
			break;
		}
	}
	first = last = ag_gate_parse_command(p);
	while (first && !p->error) {
		ag_gate_skip_blanks(p);
		if (gate_peek(p, 0) != '|' || gate_peek(p, 1) == '|')
			break;
		(void)snprintf(last->after, sizeof(last->after), "%s", gate_peek(p, 1) == '&' ? "|&" : "|");
		p->pos += strlen(last->after);
		ag_gate_skip_newlines(p);
		last->next = p->error ? NULL : ag_gate_parse_command(p);
		if (last->next)
			last = last->next;
	}
	if (p->error || first == last)
		return p->error ? NULL : first;
	n = ag_gate_node_new(p, AG_GATE_PIPELINE);
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
		return ";"; /* ag_gate_skip_newlines() takes it, with the here-documents */
	p->pos += strlen(op);
	return op;
}

struct ag_gate_node *ag_gate_parse_list(struct gate_parser *p)
{
	struct ag_gate_node *list = ag_gate_node_new(p, AG_GATE_LIST), **tail;
	const char *op;

	if (!list)
		return NULL;
	tail = &list->children;
	for (;;) {
		ag_gate_skip_newlines(p);
		if (p->error || at_list_end(p))
			break;
		*tail = parse_pipeline(p);
		if (!*tail)
			break;
		ag_gate_skip_blanks(p);
		op = take_separator(p);
		if (!*op)
			break;
		(void)snprintf((*tail)->after, sizeof((*tail)->after), "%s", op);
		tail = &(*tail)->next;
		if (op[1]) { /* && and || want a command */
			ag_gate_skip_newlines(p);
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
