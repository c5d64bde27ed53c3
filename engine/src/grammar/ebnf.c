/* EBNF -> rules and nodes: GBNF as llama.cpp and SGLang's users write it, and the W3C's notation.
 *
 *   root   ::= "{" ws pair ("," ws pair)* "}"     literals "..." '...', classes [a-z] [^"], any character .
 *   pair   ::= string ":" ws value                groups ( ), alternatives |, repeats * + ? {n} {n,m}
 *   # or // to the end of the line, or slash-star  characters as #x20; a rule ends where the next `name ::=` begins
 *
 * A rule that calls nothing recursive becomes a terminal: one automaton with everything it calls built in. The others
 * become one automaton with calls, run on the stack. Left recursion of a rule by itself is turned into a loop (the
 * language is the same); left recursion through others is refused, as is what never ends. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/buf.h"
#include "base/cleanup.h"
#include "grammar/grammar_internal.h"

enum { MAX_RULES = 2000, MAX_NAME = 64, MAX_INLINED = 20000, MAX_ALL_INLINED = 400000 };

struct named_rule {
	char name[MAX_NAME];
	size_t pos; /* where it was first mentioned */
	struct ast *tree;
	bool is_nullable, is_productive, is_regular;
	uint8_t mark; /* search for left recursion */
};

struct ebnf {
	struct eng_grammar *g;
	struct ast_pool pool;
	const char *text;
	size_t len, pos;
	unsigned depth;
	size_t n_inlined; /* nodes copied so far */
	struct named_rule *rules;
	uint32_t n, cap;
	struct err *err;
};

/* ---- Characters ---- */

static int fail(struct ebnf *e, int code, const char *what)
{
	unsigned line = 1;

	for (size_t i = 0; i < e->pos && i < e->len; i++)
		line += e->text[i] == '\n';
	return err_set(e->err, code, "grammar: line %u (position %zu): %s", line, e->pos, what);
}

static bool next_is(const struct ebnf *e, const char *word)
{
	size_t n = strlen(word);

	return e->len - e->pos >= n && memcmp(e->text + e->pos, word, n) == 0;
}

static bool is_hex(char c)
{
	return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'f') || (c >= 'A' && c <= 'F');
}

/* #x20 */
static bool is_char_code(const struct ebnf *e, size_t at)
{
	return e->len - at >= 3 && e->text[at] == '#' && e->text[at + 1] == 'x' && is_hex(e->text[at + 2]);
}

static void skip_until(struct ebnf *e, const char *end)
{
	while (e->pos < e->len && !next_is(e, end))
		e->pos++;
	if (e->pos < e->len)
		e->pos += strlen(end);
}

static void skip_blanks(struct ebnf *e)
{
	while (e->pos < e->len) {
		char c = e->text[e->pos];

		if (c == ' ' || c == '\t' || c == '\n' || c == '\r')
			e->pos++;
		else if ((c == '#' && !is_char_code(e, e->pos)) || next_is(e, "//"))
			skip_until(e, "\n");
		else if (next_is(e, "/*"))
			skip_until(e, "*/");
		else if (next_is(e, "(*"))
			skip_until(e, "*)");
		else
			return;
	}
}

static bool is_name_char(char c, bool is_first)
{
	return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_' ||
	       (!is_first && ((c >= '0' && c <= '9') || c == '-' || c == '.'));
}

/* The length of the name at pos, 0: none; *ret_skip what it takes with its brackets. */
static size_t name_length(const struct ebnf *e, size_t at, size_t *ret_begin, size_t *ret_skip)
{
	bool angled = at < e->len && e->text[at] == '<';
	size_t begin = at + angled, end = begin;

	while (end < e->len && is_name_char(e->text[end], end == begin))
		end++;
	if (angled && (end >= e->len || e->text[end] != '>'))
		return 0;
	*ret_begin = begin;
	*ret_skip = end + angled - at;
	return end - begin;
}

static bool begins_rule(struct ebnf *e)
{
	size_t mark = e->pos, begin, skip;
	bool is = false;

	if (name_length(e, e->pos, &begin, &skip) > 0) {
		e->pos += skip;
		skip_blanks(e);
		is = next_is(e, "::=");
	}
	e->pos = mark;
	return is;
}

/* ---- Rules ---- */

static int rule_named(struct ebnf *e, size_t begin, size_t n, uint32_t *ret)
{
	if (n >= MAX_NAME)
		return fail(e, -E2BIG, "a rule's name is too long");
	for (uint32_t i = 0; i < e->n; i++) {
		if (strncmp(e->rules[i].name, e->text + begin, n) == 0 && e->rules[i].name[n] == '\0') {
			*ret = i;
			return 0;
		}
	}
	if (e->n == MAX_RULES)
		return fail(e, -E2BIG, "too many rules");
	if (e->n == e->cap) {
		uint32_t cap = e->cap ? e->cap * 2 : 32;
		struct named_rule *rules = realloc(e->rules, cap * sizeof(*rules));

		if (!rules)
			return fail(e, -ENOMEM, "out of memory");
		e->rules = rules;
		e->cap = cap;
	}
	e->rules[e->n] = (struct named_rule){ .pos = begin };
	memcpy(e->rules[e->n].name, e->text + begin, n);
	*ret = e->n++;
	return 0;
}

static struct ast *new_ast(struct ebnf *e, enum ast_kind kind)
{
	struct ast *a = gr_ast_new(&e->pool, kind);

	if (!a)
		(void)fail(e, -E2BIG, "the grammar is too large");
	return a;
}

static int parse_alternatives(struct ebnf *e, struct ast **ret);

/* An escape within quotes, "\" consumed; the regular expressions' parser knows them all. */
static int parse_literal(struct ebnf *e, struct ast **ret)
{
	char quote = e->text[e->pos++];
	struct ast *cat = new_ast(e, AST_CAT);

	while (cat && e->pos < e->len && e->text[e->pos] != quote) {
		struct ast *c = new_ast(e, AST_SET), *tree = NULL;
		uint32_t cp = 0;
		size_t n;

		if (!c)
			return -E2BIG;
		if (e->text[e->pos] == '\\' && e->pos + 1 < e->len) {
			size_t end = e->pos + 2;

			if (strchr("xuU", e->text[e->pos + 1]) && e->text[e->pos + 1]) {
				size_t digits = e->text[e->pos + 1] == 'x' ? 2 : e->text[e->pos + 1] == 'u' ? 4 : 8;

				end = end + digits <= e->len ? end + digits : e->len;
			}
			if (strchr("\"'/", e->text[e->pos + 1]) && e->text[e->pos + 1]) {
				if (gr_charset_add(&c->set, (unsigned char)e->text[e->pos + 1],
				                   (unsigned char)e->text[e->pos + 1]) < 0)
					return fail(e, -ENOMEM, "out of memory");
			} else {
				int r = gr_ast_parse_regex(&e->pool, e->text + e->pos, end - e->pos, &tree, e->err);

				if (r < 0)
					return fail(e, r, "a wrong escape in a literal");
				c = tree;
			}
			e->pos = end;
		} else {
			n = gr_ast_utf8(e->text + e->pos, e->len - e->pos, &cp);
			if (n == 0)
				return fail(e, -EINVAL, "invalid UTF-8");
			if (gr_charset_add(&c->set, cp, cp) < 0)
				return fail(e, -ENOMEM, "out of memory");
			e->pos += n;
		}
		gr_ast_append(cat, c);
	}
	if (!cat)
		return -E2BIG;
	if (e->pos >= e->len)
		return fail(e, -EINVAL, "a literal without its closing quote");
	e->pos++;
	*ret = cat;
	return 0;
}

/* The W3C writes characters in classes as #x20. */
static int parse_class(struct ebnf *e, struct ast **ret)
{
	CLEANUP(base_buf_done) struct base_buf body = BASE_BUF_INIT(1 << 20);
	struct err why = { 0 };
	struct ast *a = new_ast(e, AST_SET);
	size_t end = e->pos + 1, pos = 0;
	int r;

	if (!a)
		return -E2BIG;
	for (bool is_first = true; end < e->len && (e->text[end] != ']' || is_first); end++) {
		if (e->text[end] != '^')
			is_first = false;
		if (e->text[end] == '\\' && end + 1 < e->len)
			(void)base_buf_putc(&body, e->text[end++]);
		if (is_char_code(e, end) && end + 3 < e->len && is_hex(e->text[end + 3])) {
			(void)base_buf_puts(&body, "\\u{");
			for (end += 2; end < e->len && is_hex(e->text[end]); end++)
				(void)base_buf_putc(&body, e->text[end]);
			(void)base_buf_putc(&body, '}');
			end--;
			continue;
		}
		(void)base_buf_putc(&body, e->text[end]);
	}
	(void)base_buf_putc(&body, ']');
	if (end >= e->len || base_buf_error(&body))
		return fail(e, -EINVAL, "a class without its \"]\"");
	r = gr_ast_parse_class(base_buf_text(&body), body.len, &pos, &a->set, &why);
	if (r < 0)
		return fail(e, r, err_text(&why));
	e->pos = end + 1;
	*ret = a;
	return 0;
}

static int parse_char_code(struct ebnf *e, struct ast **ret)
{
	uint32_t cp = 0;
	size_t n = 0;

	for (e->pos += 2; e->pos < e->len && is_hex(e->text[e->pos]) && n < 6; e->pos++, n++) {
		char c = e->text[e->pos];

		cp = cp * 16 + (uint32_t)(c <= '9' ? c - '0' : (c | 32) - 'a' + 10);
	}
	if (cp > CS_MAX || (cp >= 0xd800 && cp <= 0xdfff))
		return fail(e, -EINVAL, "no such character");
	*ret = gr_ast_char(&e->pool, cp);
	return *ret ? 0 : fail(e, -E2BIG, "the grammar is too large");
}

static int parse_group(struct ebnf *e, struct ast **ret)
{
	int r;

	if (++e->depth > AST_MAX_DEPTH)
		return fail(e, -E2BIG, "groups nest too deep");
	e->pos++;
	r = parse_alternatives(e, ret);
	if (r < 0)
		return r;
	if (!next_is(e, ")"))
		return fail(e, -EINVAL, "expected \")\"");
	e->pos++;
	e->depth--;
	return 0;
}

static int parse_atom(struct ebnf *e, struct ast **ret)
{
	size_t begin, skip, n;
	uint32_t rule = 0;
	char c = e->text[e->pos];
	int r;

	if (c == '"' || c == '\'')
		return parse_literal(e, ret);
	if (c == '[')
		return parse_class(e, ret);
	if (c == '(')
		return parse_group(e, ret);
	if (is_char_code(e, e->pos))
		return parse_char_code(e, ret);
	if (c == '.') {
		*ret = new_ast(e, AST_SET);
		e->pos++;
		return *ret && gr_charset_add(&(*ret)->set, 0, CS_MAX) == 0 ? 0 : -E2BIG;
	}
	if (c == '-')
		return fail(e, -EINVAL, "exclusion (A - B) is not supported");
	n = name_length(e, e->pos, &begin, &skip);
	if (n == 0)
		return fail(e, -EINVAL, "expected a literal, a class, a group or a rule's name");
	r = rule_named(e, begin, n, &rule);
	if (r < 0)
		return r;
	e->pos += skip;
	*ret = new_ast(e, AST_CALL);
	if (!*ret)
		return -E2BIG;
	(*ret)->rule = rule;
	return 0;
}

static int parse_count(struct ebnf *e, uint32_t *ret)
{
	uint32_t v = 0;
	int n = 0;

	skip_blanks(e);
	for (; e->pos < e->len && e->text[e->pos] >= '0' && e->text[e->pos] <= '9'; e->pos++, n++) {
		v = v * 10 + (uint32_t)(e->text[e->pos] - '0');
		if (v > AST_MAX_REPEAT)
			return fail(e, -E2BIG, "too many repetitions");
	}
	skip_blanks(e);
	*ret = n ? v : *ret;
	return n > 0;
}

static int parse_braces(struct ebnf *e, uint32_t *min, uint32_t *max)
{
	int r;

	e->pos++;
	*min = 0;
	r = parse_count(e, min);
	if (r < 0)
		return r;
	*max = r ? *min : AST_INFINITE;
	if (next_is(e, ",")) {
		e->pos++;
		*max = AST_INFINITE;
		r = parse_count(e, max);
		if (r < 0)
			return r;
	}
	if (!next_is(e, "}"))
		return fail(e, -EINVAL, "expected \"}\"");
	if (*max < *min)
		return fail(e, -EINVAL, "a repeat whose maximum is below its minimum");
	e->pos++;
	return 0;
}

static int parse_repeats(struct ebnf *e, struct ast **atom)
{
	for (;;) {
		uint32_t min = 0, max = AST_INFINITE;
		int r = 0;

		if (next_is(e, "{")) {
			r = parse_braces(e, &min, &max);
		} else if (next_is(e, "+")) {
			min = 1;
			e->pos++;
		} else if (next_is(e, "?")) {
			max = 1;
			e->pos++;
		} else if (next_is(e, "*")) {
			e->pos++;
		} else {
			return 0;
		}
		if (r < 0)
			return r;
		if (++e->depth > AST_MAX_DEPTH)
			return fail(e, -E2BIG, "repeats nest too deep");
		*atom = gr_ast_repeat(&e->pool, *atom, min, max);
		if (!*atom)
			return fail(e, -E2BIG, "the grammar is too large");
	}
}

static int parse_sequence(struct ebnf *e, struct ast **ret)
{
	struct ast *cat = new_ast(e, AST_CAT), *atom = NULL;
	unsigned depth = e->depth;
	int r = cat ? 0 : -E2BIG;

	skip_blanks(e);
	while (r == 0 && e->pos < e->len && !next_is(e, "|") && !next_is(e, ")") && !next_is(e, ";") &&
	       !begins_rule(e)) {
		r = parse_atom(e, &atom);
		if (r == 0)
			r = parse_repeats(e, &atom);
		if (r == 0)
			gr_ast_append(cat, atom);
		e->depth = depth;
		skip_blanks(e);
	}
	*ret = cat;
	return r;
}

static int parse_alternatives(struct ebnf *e, struct ast **ret)
{
	struct ast *alt = new_ast(e, AST_ALT), *seq = NULL;
	int r;

	if (!alt)
		return -E2BIG;
	for (;;) {
		r = parse_sequence(e, &seq);
		if (r < 0)
			return r;
		gr_ast_append(alt, seq);
		if (!next_is(e, "|"))
			break;
		e->pos++;
	}
	*ret = alt;
	return 0;
}

static int parse_rule(struct ebnf *e)
{
	size_t begin, skip, n;
	struct ast *tree = NULL;
	uint32_t rule = 0;
	int r;

	if (!begins_rule(e))
		return fail(e, -EINVAL, "expected a rule (name ::= ...)");
	n = name_length(e, e->pos, &begin, &skip);
	r = rule_named(e, begin, n, &rule);
	if (r < 0)
		return r;
	if (e->rules[rule].tree)
		return fail(e, -EINVAL, "a rule of this name was there before");
	e->pos += skip;
	skip_blanks(e);
	e->pos += 3;
	r = parse_alternatives(e, &tree);
	if (r < 0)
		return r;
	e->rules[rule].tree = tree;
	if (next_is(e, ";"))
		e->pos++;
	skip_blanks(e);
	return 0;
}

/* ---- What rules can do ---- */

/* Over a tree: whether it matches nothing (nullable), or anything finite (productive). */
static bool is_nullable(const struct ebnf *e, const struct ast *a)
{
	bool any = false, all = true;

	for (const struct ast *c = a->first; c; c = c->next) {
		bool is = is_nullable(e, c);

		any = any || is;
		all = all && is;
	}
	switch (a->kind) {
	case AST_CAT:
		return all;
	case AST_ALT:
		return any;
	case AST_REPEAT:
		return a->min == 0 || all;
	case AST_CALL:
		return e->rules[a->rule].is_nullable;
	default:
		return false;
	}
}

static bool is_productive(const struct ebnf *e, const struct ast *a)
{
	bool any = false, all = true;

	for (const struct ast *c = a->first; c; c = c->next) {
		bool is = is_productive(e, c);

		any = any || is;
		all = all && is;
	}
	switch (a->kind) {
	case AST_SET:
		return a->set.n > 0;
	case AST_CAT:
		return all;
	case AST_ALT:
		return any;
	case AST_REPEAT:
		return a->min == 0 || all;
	case AST_CALL:
		return e->rules[a->rule].is_productive;
	default:
		return true;
	}
}

static bool is_regular(const struct ebnf *e, const struct ast *a)
{
	for (const struct ast *c = a->first; c; c = c->next) {
		if (!is_regular(e, c))
			return false;
	}
	return a->kind != AST_CALL || e->rules[a->rule].is_regular;
}

/* What never ends becomes a set without characters, which the automata know how to avoid. */
static void cut_endless(const struct ebnf *e, struct ast *a)
{
	struct ast *last = NULL, *next;

	for (struct ast *c = a->first; c; c = next) {
		next = c->next;
		cut_endless(e, c);
		if (a->kind == AST_ALT && !is_productive(e, c)) {
			if (last)
				last->next = next;
			else
				a->first = next;
		} else {
			last = c;
		}
	}
	a->last = last;
	if (a->kind == AST_REPEAT && a->first && !is_productive(e, a->first)) {
		a->kind = AST_CAT; /* min is 0: nothing */
		a->first = a->last = NULL;
	}
}

/* A ::= A x | y   ->   A ::= y x* */
static int turn_left_recursion(struct ebnf *e, uint32_t rule)
{
	struct ast *tree = e->rules[rule].tree, *tails, *heads, *out, *next, *loop;
	bool found = false;

	for (const struct ast *c = tree->first; c; c = c->next)
		found = found || (c->first && c->first->kind == AST_CALL && c->first->rule == rule);
	if (!found)
		return 0;
	tails = new_ast(e, AST_ALT);
	heads = new_ast(e, AST_ALT);
	out = new_ast(e, AST_CAT);
	loop = tails ? gr_ast_repeat(&e->pool, tails, 0, AST_INFINITE) : NULL;
	if (!tails || !heads || !out || !loop)
		return fail(e, -E2BIG, "the grammar is too large");
	for (struct ast *c = tree->first; c; c = next) {
		next = c->next;
		c->next = NULL;
		if (c->first && c->first->kind == AST_CALL && c->first->rule == rule) {
			c->first = c->first->next;
			if (c->first)
				gr_ast_append(tails, c);
		} else {
			gr_ast_append(heads, c);
		}
	}
	gr_ast_append(out, heads);
	if (tails->first)
		gr_ast_append(out, loop);
	tree->first = tree->last = NULL;
	gr_ast_append(tree, out);
	return 0;
}

static int visit_left(struct ebnf *e, uint32_t rule, unsigned depth);

/* Calls that may happen before a character is read. True in *ret_passes: the tree may match nothing. */
static int left_calls(struct ebnf *e, const struct ast *a, unsigned depth)
{
	int r = 0;

	switch (a->kind) {
	case AST_CALL:
		return visit_left(e, a->rule, depth);
	case AST_CAT:
		for (const struct ast *c = a->first; c && r == 0; c = c->next) {
			r = left_calls(e, c, depth);
			if (!is_nullable(e, c))
				break;
		}
		return r;
	default:
		for (const struct ast *c = a->first; c && r == 0; c = c->next)
			r = left_calls(e, c, depth);
		return r;
	}
}

static int visit_left(struct ebnf *e, uint32_t rule, unsigned depth)
{
	struct named_rule *n = &e->rules[rule];
	int r;

	if (n->mark == 2)
		return 0;
	if (n->mark == 1 || depth > MAX_RULES)
		return err_set(e->err, -EINVAL,
		               "grammar: rule \"%s\" is left-recursive through other rules, which is not "
		               "supported",
		               n->name);
	n->mark = 1;
	r = left_calls(e, n->tree, depth + 1);
	n->mark = 2;
	return r;
}

static int analyse(struct ebnf *e)
{
	bool changed = true;
	int r = 0;

	for (uint32_t i = 0; i < e->n; i++) {
		if (!e->rules[i].tree) {
			e->pos = e->rules[i].pos;
			(void)fail(e, -EINVAL, "a rule that is not defined");
			return err_prefix(e->err, -EINVAL, "\"%s\": ", e->rules[i].name);
		}
	}
	while (changed) {
		changed = false;
		for (uint32_t i = 0; i < e->n; i++) {
			struct named_rule *n = &e->rules[i];
			bool nullable = is_nullable(e, n->tree), productive = is_productive(e, n->tree);
			bool regular = is_regular(e, n->tree);

			changed = changed || nullable != n->is_nullable || productive != n->is_productive ||
			          regular != n->is_regular;
			n->is_nullable = nullable;
			n->is_productive = productive;
			n->is_regular = regular;
		}
	}
	for (uint32_t i = 0; i < e->n; i++)
		cut_endless(e, e->rules[i].tree);
	for (uint32_t i = 0; i < e->n && r == 0; i++)
		r = visit_left(e, i, 0);
	return r;
}

/* ---- Nodes ---- */

/* A copy with the trees of called rules in place of the calls. */
static struct ast *inlined(struct ebnf *e, const struct ast *a)
{
	struct ast *out;

	if (a->kind == AST_CALL)
		return inlined(e, e->rules[a->rule].tree);
	out = gr_ast_new(&e->pool, a->kind);
	if (!out)
		return NULL;
	out->min = a->min;
	out->max = a->max;
	if (gr_charset_add_set(&out->set, &a->set) < 0)
		return NULL;
	for (const struct ast *c = a->first; c; c = c->next) {
		struct ast *child = inlined(e, c);

		if (!child)
			return NULL;
		gr_ast_append(out, child);
	}
	return out;
}

/* False: it is too large for that and stays a rule. */
static bool make_terminal(struct ebnf *e, uint32_t rule, uint32_t node)
{
	struct ast_pool rest = e->pool;
	struct dfa_builder b;
	struct dfa *d = NULL;
	struct ast *tree;

	if (e->n_inlined > MAX_ALL_INLINED)
		return false;
	/* A pool of its own: what does not fit is forgotten. */
	e->pool = (struct ast_pool){ .n = AST_MAX_NODES - MAX_INLINED };
	gr_dfa_builder_init(&b);
	b.need = 1;
	tree = inlined(e, e->rules[rule].tree);
	if (!tree || gr_dfa_builder_add(&b, tree, false) < 0)
		gr_dfa_builder_done(&b);
	else
		(void)gr_dfa_finish(&b, &d, NULL);
	e->n_inlined += e->pool.n - (AST_MAX_NODES - MAX_INLINED);
	gr_ast_pool_done(&e->pool);
	e->pool = rest;
	if (!d)
		return false;
	e->g->nodes[node].kind = NODE_LEX;
	e->g->nodes[node].lex = (struct lex){ .dfa = d, .max = UINT32_MAX };
	return true;
}

static int make_rule(struct ebnf *e, uint32_t rule, uint32_t node)
{
	struct nfa *a = &e->g->rules;
	uint32_t start = 0, end = 0, accept = 0;
	int r = gr_nfa_state(a, &start);

	if (r == 0)
		r = gr_nfa_emit(a, e->rules[rule].tree, start, &end);
	if (r == 0)
		r = gr_nfa_state(a, &accept);
	if (r == 0)
		r = gr_nfa_edge(a, end, NFA_EPS, 0, accept);
	if (r < 0)
		return err_set(e->err, r, "grammar: rule \"%s\" is too large", e->rules[rule].name);
	e->g->nodes[node].rule = (struct rule){ start, accept };
	return 0;
}

static int build(struct ebnf *e)
{
	struct eng_grammar *g = e->g;
	uint32_t root = GR_NONE;
	int r = 0;

	for (uint32_t i = 0; i < e->n; i++) {
		if (strcmp(e->rules[i].name, "root") == 0)
			root = i;
	}
	if (root == GR_NONE)
		return err_set(e->err, -EINVAL, "grammar: there is no rule \"root\"");
	if (!e->rules[root].is_productive)
		return err_set(e->err, -EINVAL, "grammar: \"root\" never ends");
	g->n_rules = e->n;
	g->rule_nodes = calloc(e->n, sizeof(*g->rule_nodes));
	if (!g->rule_nodes)
		return err_set(e->err, -ENOMEM, "out of memory");
	for (uint32_t i = 0; i < e->n && r == 0; i++) {
		r = gr_grammar_node(g, NODE_RULE, &g->rule_nodes[i]);
		if (r == 0 && (!e->rules[i].is_regular || !make_terminal(e, i, g->rule_nodes[i])))
			r = make_rule(e, i, g->rule_nodes[i]);
	}
	if (r < 0)
		return r;
	g->root = g->rule_nodes[root];
	g->closures = calloc(g->rules.n_states + 1u, sizeof(*g->closures));
	return g->closures ? 0 : err_set(e->err, -ENOMEM, "out of memory");
}

int gr_ebnf_compile(struct eng_grammar *g, const char *text, size_t len, struct err *err)
{
	struct ebnf e = { .g = g, .text = text, .len = len, .err = err };
	int r = 0;

	skip_blanks(&e);
	if (e.pos >= len)
		r = fail(&e, -EINVAL, "it is empty");
	while (r == 0 && e.pos < len)
		r = parse_rule(&e);
	for (uint32_t i = 0; i < e.n && r == 0; i++) {
		if (e.rules[i].tree)
			r = turn_left_recursion(&e, i);
	}
	if (r == 0)
		r = analyse(&e);
	if (r == 0)
		r = build(&e);
	gr_ast_pool_done(&e.pool);
	free(e.rules);
	return r;
}
