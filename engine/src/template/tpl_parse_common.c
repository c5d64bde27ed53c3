/* What the statement and the expression parser share: errors with their line, nodes, the table of names,
 * and taking one expected token. */
#include "tpl_ast.h"
#include "tpl_interp.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int parse_error(struct tpl_parser *p, int code, const char *fmt, va_list ap)
{
	char text[ERR_MSG_SIZE];

	(void)vsnprintf(text, sizeof(text), fmt, ap);
	return err_set(p->err, code, "%s:%u: %s", p->tmpl->where, p->tok->line, text);
}

int eng_tpl_syntax_error(struct tpl_parser *p, const char *fmt, ...)
{
	va_list ap;
	int r;

	va_start(ap, fmt);
	r = parse_error(p, -EBADMSG, fmt, ap);
	va_end(ap);
	return r;
}

int eng_tpl_unsupported(struct tpl_parser *p, const char *fmt, ...)
{
	va_list ap;
	int r;

	va_start(ap, fmt);
	r = parse_error(p, -ENOTSUP, fmt, ap);
	va_end(ap);
	return r;
}

int eng_tpl_no_memory(struct tpl_parser *p)
{
	return err_set(p->err, -ENOMEM, "%s: out of memory for the parsed template", p->tmpl->where);
}

int eng_tpl_parse_enter(struct tpl_parser *p)
{
	if (p->depth >= TPL_MAX_NESTING)
		return err_set(p->err, -E2BIG, "%s:%u: nested deeper than %d levels", p->tmpl->where, p->tok->line,
		               TPL_MAX_NESTING);
	p->depth++;
	return 0;
}

struct tpl_node *eng_tpl_node_new(struct tpl_parser *p, enum tpl_node_kind kind)
{
	struct tpl_node *n = eng_tpl_arena_alloc(&p->tmpl->arena, sizeof(*n));

	if (!n)
		return NULL;
	n->kind = (uint8_t)kind;
	n->line = p->tok->line;
	return n;
}

int eng_tpl_nodes_push(struct tpl_parser *p, struct tpl_nodes *list, struct tpl_node *node)
{
	struct tpl_node **v;
	uint32_t cap;

	if (list->n == list->cap) {
		cap = list->cap ? list->cap * 2 : 4;
		v = eng_tpl_arena_array(&p->tmpl->arena, cap, sizeof(struct tpl_node *));
		if (!v)
			return eng_tpl_no_memory(p);
		if (list->n)
			memcpy(v, list->v, list->n * sizeof(struct tpl_node *));
		list->v = v;
		list->cap = cap;
	}
	list->v[list->n++] = node;
	return 0;
}

int eng_tpl_intern(struct tpl_parser *p, const struct tpl_value *name, uint32_t *ret)
{
	struct eng_template *t = p->tmpl;
	uint32_t slot = 2166136261u, *entry;

	for (size_t i = 0; i < name->len; i++)
		slot = (slot ^ (unsigned char)name->u.s[i]) * 16777619u;
	for (;; slot++) {
		entry = &p->name_index[slot % (2 * TPL_MAX_NAMES)];
		if (!*entry)
			break;
		if (t->names[*entry - 1].len == name->len &&
		    memcmp(t->names[*entry - 1].u.s, name->u.s, name->len) == 0) {
			*ret = *entry - 1;
			return 0;
		}
	}
	if (t->n_names == TPL_MAX_NAMES)
		return err_set(p->err, -E2BIG, "%s:%u: more than %d variable names", t->where, p->tok->line,
		               TPL_MAX_NAMES);
	if (!t->names) {
		t->names = eng_tpl_arena_array(&t->arena, TPL_MAX_NAMES, sizeof(*t->names));
		if (!t->names)
			return eng_tpl_no_memory(p);
	}
	t->names[t->n_names] = *name;
	*ret = t->n_names++;
	*entry = t->n_names;
	return 0;
}

static const char *token_words(const struct tpl_token *tok, char buf[64])
{
	static const char *const ops[] = {
		[TPL_OP_ADD] = "+",       [TPL_OP_SUB] = "-",    [TPL_OP_MUL] = "*",      [TPL_OP_DIV] = "/",
		[TPL_OP_FLOORDIV] = "//", [TPL_OP_MOD] = "%",    [TPL_OP_POW] = "**",     [TPL_OP_TILDE] = "~",
		[TPL_OP_EQ] = "==",       [TPL_OP_NE] = "!=",    [TPL_OP_LT] = "<",       [TPL_OP_LE] = "<=",
		[TPL_OP_GT] = ">",        [TPL_OP_GE] = ">=",    [TPL_OP_ASSIGN] = "=",   [TPL_OP_DOT] = ".",
		[TPL_OP_COLON] = ":",     [TPL_OP_PIPE] = "|",   [TPL_OP_COMMA] = ",",    [TPL_OP_SEMICOLON] = ";",
		[TPL_OP_LPAREN] = "(",    [TPL_OP_RPAREN] = ")", [TPL_OP_LBRACKET] = "[", [TPL_OP_RBRACKET] = "]",
		[TPL_OP_LBRACE] = "{",    [TPL_OP_RBRACE] = "}",
	};

	switch (tok->kind) {
	case TPL_TOK_OP:
		(void)snprintf(buf, 64, "'%s'", ops[tok->op]);
		return buf;
	case TPL_TOK_NAME:
		(void)snprintf(buf, 64, "'%.*s'", (int)(tok->value.len < 50 ? tok->value.len : 50), tok->value.u.s);
		return buf;
	case TPL_TOK_STR:
		return "a string";
	case TPL_TOK_INT:
	case TPL_TOK_FLOAT:
		return "a number";
	case TPL_TOK_VAR_END:
		return "end of print statement";
	case TPL_TOK_BLOCK_END:
		return "end of statement block";
	case TPL_TOK_EOF:
		return "end of template";
	default:
		return "template text";
	}
}

int eng_tpl_unexpected(struct tpl_parser *p, const char *expected)
{
	char buf[64];

	if (!expected)
		return eng_tpl_syntax_error(p, "unexpected %s", token_words(p->tok, buf));
	return eng_tpl_syntax_error(p, "expected %s, got %s", expected, token_words(p->tok, buf));
}

int eng_tpl_expect_op(struct tpl_parser *p, enum tpl_op op, const char *what)
{
	if (!tpl_at_op(p, op))
		return eng_tpl_unexpected(p, what);
	p->tok++;
	return 0;
}

int eng_tpl_take_name(struct tpl_parser *p, const char *what, struct tpl_value *ret)
{
	if (p->tok->kind != TPL_TOK_NAME)
		return eng_tpl_unexpected(p, what);
	*ret = p->tok->value;
	p->tok++;
	return 0;
}
