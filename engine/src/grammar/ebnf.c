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
#include "base/chars.h"
#include "base/cleanup.h"
#include "grammar/ebnf_internal.h"

/* ---- Characters ---- */

int gr_ebnf_fail(struct ebnf *e, int code, const char *what)
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
	if (n >= EBNF_MAX_NAME)
		return gr_ebnf_fail(e, -E2BIG, "a rule's name is too long");
	for (uint32_t i = 0; i < e->n; i++) {
		if (strncmp(e->rules[i].name, e->text + begin, n) == 0 && e->rules[i].name[n] == '\0') {
			*ret = i;
			return 0;
		}
	}
	if (e->n == EBNF_MAX_RULES)
		return gr_ebnf_fail(e, -E2BIG, "too many rules");
	if (e->n == e->cap) {
		uint32_t cap = e->cap ? e->cap * 2 : 32;
		struct named_rule *rules = realloc(e->rules, cap * sizeof(*rules));

		if (!rules)
			return gr_ebnf_fail(e, -ENOMEM, "out of memory");
		e->rules = rules;
		e->cap = cap;
	}
	e->rules[e->n] = (struct named_rule){ .pos = begin };
	memcpy(e->rules[e->n].name, e->text + begin, n);
	*ret = e->n++;
	return 0;
}

struct ast *gr_ebnf_new_ast(struct ebnf *e, enum ast_kind kind)
{
	struct ast *a = gr_ast_new(&e->pool, kind);

	if (!a)
		(void)gr_ebnf_fail(e, -E2BIG, "the grammar is too large");
	return a;
}

static int parse_alternatives(struct ebnf *e, struct ast **ret);

/* An escape that stands for characters; the ends of texts have no place within a literal. */
static int characters_of(struct ast **tree)
{
	while (((*tree)->kind == AST_CAT || (*tree)->kind == AST_ALT) && (*tree)->first && !(*tree)->first->next)
		*tree = (*tree)->first;
	return (*tree)->kind == AST_SET ? 0 : -EINVAL;
}

/* Within quotes; the regular expressions' parser knows all escapes. */
static int parse_literal(struct ebnf *e, struct ast **ret)
{
	char quote = e->text[e->pos++];
	struct ast *cat = gr_ebnf_new_ast(e, AST_CAT);

	while (cat && e->pos < e->len && e->text[e->pos] != quote) {
		struct ast *c = gr_ebnf_new_ast(e, AST_SET), *tree = NULL;
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
					return gr_ebnf_fail(e, -ENOMEM, "out of memory");
			} else {
				int r = gr_ast_parse_regex(&e->pool, e->text + e->pos, end - e->pos, &tree, e->err);

				if (r == 0)
					r = characters_of(&tree);
				if (r < 0)
					return gr_ebnf_fail(e, r, "a wrong escape in a literal");
				c = tree;
			}
			e->pos = end;
		} else {
			n = base_utf8_get(e->text + e->pos, e->len - e->pos, &cp);
			if (n == 0)
				return gr_ebnf_fail(e, -EINVAL, "invalid UTF-8");
			if (gr_charset_add(&c->set, cp, cp) < 0)
				return gr_ebnf_fail(e, -ENOMEM, "out of memory");
			e->pos += n;
		}
		gr_ast_append(cat, c);
	}
	if (!cat)
		return -E2BIG;
	if (e->pos >= e->len)
		return gr_ebnf_fail(e, -EINVAL, "a literal without its closing quote");
	e->pos++;
	*ret = cat;
	return 0;
}

/* The W3C writes characters in classes as #x20. */
static int parse_class(struct ebnf *e, struct ast **ret)
{
	CLEANUP(base_buf_done) struct base_buf body = BASE_BUF_INIT(1 << 20);
	struct err why = { 0 };
	struct ast *a = gr_ebnf_new_ast(e, AST_SET);
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
		return gr_ebnf_fail(e, -EINVAL, "a class without its \"]\"");
	r = gr_ast_parse_class(base_buf_text(&body), body.len, &pos, &a->set, &why);
	if (r < 0)
		return gr_ebnf_fail(e, r, err_text(&why));
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
		return gr_ebnf_fail(e, -EINVAL, "no such character");
	*ret = gr_ast_char(&e->pool, cp);
	return *ret ? 0 : gr_ebnf_fail(e, -E2BIG, "the grammar is too large");
}

static int parse_group(struct ebnf *e, struct ast **ret)
{
	int r;

	if (++e->depth > AST_MAX_DEPTH)
		return gr_ebnf_fail(e, -E2BIG, "groups nest too deep");
	e->pos++;
	r = parse_alternatives(e, ret);
	if (r < 0)
		return r;
	if (!next_is(e, ")"))
		return gr_ebnf_fail(e, -EINVAL, "expected \")\"");
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
		*ret = gr_ebnf_new_ast(e, AST_SET);
		e->pos++;
		return *ret && gr_charset_add(&(*ret)->set, 0, CS_MAX) == 0 ? 0 : -E2BIG;
	}
	if (c == '-')
		return gr_ebnf_fail(e, -EINVAL, "exclusion (A - B) is not supported");
	n = name_length(e, e->pos, &begin, &skip);
	if (n == 0)
		return gr_ebnf_fail(e, -EINVAL, "expected a literal, a class, a group or a rule's name");
	r = rule_named(e, begin, n, &rule);
	if (r < 0)
		return r;
	e->pos += skip;
	*ret = gr_ebnf_new_ast(e, AST_CALL);
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
			return gr_ebnf_fail(e, -E2BIG, "too many repetitions");
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
		return gr_ebnf_fail(e, -EINVAL, "expected \"}\"");
	if (*max < *min)
		return gr_ebnf_fail(e, -EINVAL, "a repeat whose maximum is below its minimum");
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
			return gr_ebnf_fail(e, -E2BIG, "repeats nest too deep");
		*atom = gr_ast_repeat(&e->pool, *atom, min, max);
		if (!*atom)
			return gr_ebnf_fail(e, -E2BIG, "the grammar is too large");
	}
}

static int parse_sequence(struct ebnf *e, struct ast **ret)
{
	struct ast *cat = gr_ebnf_new_ast(e, AST_CAT), *atom = NULL;
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
	struct ast *alt = gr_ebnf_new_ast(e, AST_ALT), *seq = NULL;
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
		return gr_ebnf_fail(e, -EINVAL, "expected a rule (name ::= ...)");
	n = name_length(e, e->pos, &begin, &skip);
	r = rule_named(e, begin, n, &rule);
	if (r < 0)
		return r;
	if (e->rules[rule].tree)
		return gr_ebnf_fail(e, -EINVAL, "a rule of this name was there before");
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

int gr_ebnf_compile(struct eng_grammar *g, const char *text, size_t len, struct err *err)
{
	struct ebnf e = { .g = g, .text = text, .len = len, .err = err };
	int r = 0;

	skip_blanks(&e);
	if (e.pos >= len)
		r = gr_ebnf_fail(&e, -EINVAL, "it is empty");
	while (r == 0 && e.pos < len)
		r = parse_rule(&e);
	for (uint32_t i = 0; i < e.n && r == 0; i++) {
		if (e.rules[i].tree)
			r = gr_ebnf_turn_left_recursion(&e, i);
	}
	if (r == 0)
		r = gr_ebnf_analyse(&e);
	if (r == 0)
		r = gr_ebnf_build(&e);
	gr_ast_pool_done(&e.pool);
	free(e.rules);
	return r;
}
