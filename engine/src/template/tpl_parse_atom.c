/* Expressions, the inner part: atoms, and what may follow one: calls, attributes, subscripts, filters, tests. The
 * operators are in tpl_parse_expr.c. Filters and tests are looked up here: an unknown one fails at parse time. */
#include "tpl_ast.h"
#include "tpl_interp.h"

#include <errno.h>
#include <string.h>

/* ---- Atoms ---------------------------------------------------------------------------------------------- */

static int const_node(struct tpl_parser *p, struct tpl_value v, struct tpl_node **ret)
{
	struct tpl_node *n = eng_tpl_node_new(p, TPL_N_CONST);

	if (!n)
		return eng_tpl_no_memory(p);
	n->value = v;
	*ret = n;
	return 0;
}

int eng_tpl_parse_name(struct tpl_parser *p, struct tpl_node **ret)
{
	static const struct {
		const char *name;
		struct tpl_value value;
	} consts[] = {
		{ "true", { .type = TPL_BOOL, .u.b = true } },
		{ "True", { .type = TPL_BOOL, .u.b = true } },
		{ "false", { .type = TPL_BOOL, .u.b = false } },
		{ "False", { .type = TPL_BOOL, .u.b = false } },
		{ "none", { .type = TPL_NONE } },
		{ "None", { .type = TPL_NONE } },
	};
	const struct tpl_value *name = &p->tok->value;
	struct tpl_node *n;
	int r;

	for (size_t i = 0; i < sizeof(consts) / sizeof(*consts); i++) {
		if (!tpl_is_text(name, consts[i].name))
			continue;
		r = const_node(p, consts[i].value, ret);
		p->tok++;
		return r;
	}
	n = eng_tpl_node_new(p, TPL_N_NAME);
	if (!n)
		return eng_tpl_no_memory(p);
	r = eng_tpl_intern(p, name, &n->name);
	if (r < 0)
		return r;
	p->macro_uses |= tpl_is_text(name, "varargs")  ? TPL_USES_VARARGS
	                 : tpl_is_text(name, "kwargs") ? TPL_USES_KWARGS
	                 : tpl_is_text(name, "caller") ? TPL_USES_CALLER
	                                               : 0;
	p->tok++;
	*ret = n;
	return 0;
}

/* Adjacent strings are one. */
static int parse_string(struct tpl_parser *p, struct tpl_node **ret)
{
	const struct tpl_token *t;
	size_t len = 0, at = 0;
	char *s;

	for (t = p->tok; t->kind == TPL_TOK_STR; t++)
		len += t->value.len;
	if (t == p->tok + 1) {
		p->tok = t;
		return const_node(p, t[-1].value, ret);
	}
	s = eng_tpl_arena_alloc(&p->tmpl->arena, len);
	if (!s)
		return eng_tpl_no_memory(p);
	for (; p->tok < t; p->tok++) {
		if (p->tok->value.len)
			memcpy(s + at, p->tok->value.u.s, p->tok->value.len);
		at += p->tok->value.len;
	}
	return const_node(p, tpl_text(s, len), ret);
}

/* [a, b] or {k: v}: items up to the closing bracket. */
static int parse_display(struct tpl_parser *p, bool dict, struct tpl_node **ret)
{
	enum tpl_op close = dict ? TPL_OP_RBRACE : TPL_OP_RBRACKET;
	struct tpl_node *n = eng_tpl_node_new(p, dict ? TPL_N_DICT : TPL_N_LIST), *item;
	struct tpl_nodes items = { 0 };
	int r;

	if (!n)
		return eng_tpl_no_memory(p);
	p->tok++;
	while (!tpl_at_op(p, close)) {
		if (items.n) {
			r = eng_tpl_expect_op(p, TPL_OP_COMMA, "','");
			if (r < 0)
				return r;
			if (tpl_at_op(p, close))
				break;
		}
		for (int part = 0; part <= dict; part++) {
			r = part ? eng_tpl_expect_op(p, TPL_OP_COLON, "':'") : 0;
			if (r == 0)
				r = eng_tpl_parse_expr(p, &item);
			if (r == 0)
				r = eng_tpl_nodes_push(p, &items, item);
			if (r < 0)
				return r;
		}
	}
	p->tok++;
	n->items = items.v;
	n->n_items = items.n;
	*ret = n;
	return 0;
}

int eng_tpl_parse_primary(struct tpl_parser *p, struct tpl_node **ret)
{
	int r;

	switch (p->tok->kind) {
	case TPL_TOK_NAME:
		return eng_tpl_parse_name(p, ret);
	case TPL_TOK_STR:
		return parse_string(p, ret);
	case TPL_TOK_INT:
	case TPL_TOK_FLOAT:
		r = const_node(p, p->tok->value, ret);
		p->tok++;
		return r;
	case TPL_TOK_OP:
		break;
	default:
		return eng_tpl_unexpected(p, NULL);
	}
	switch (p->tok->op) {
	case TPL_OP_LPAREN:
		p->tok++;
		r = eng_tpl_parse_tuple(p, TPL_TUPLE_COND | TPL_TUPLE_PARENS, ret);
		return r < 0 ? r : eng_tpl_expect_op(p, TPL_OP_RPAREN, "')'");
	case TPL_OP_LBRACKET:
		return parse_display(p, false, ret);
	case TPL_OP_LBRACE:
		return parse_display(p, true, ret);
	default:
		return eng_tpl_unexpected(p, NULL);
	}
}

/* ---- Calls, subscripts, filters, tests --------------------------------------------------------------- */

static int parse_call_arg(struct tpl_parser *p, struct tpl_call_args *args, struct tpl_nodes *pos,
                          struct tpl_nodes *kw_vals, struct tpl_nodes *kw_names)
{
	struct tpl_node *n, *name = NULL;
	bool star_star;
	int r;

	if (tpl_at_op(p, TPL_OP_MUL) || tpl_at_op(p, TPL_OP_POW)) {
		star_star = tpl_at_op(p, TPL_OP_POW);
		if (args->star_star || (!star_star && args->star))
			return eng_tpl_syntax_error(p, "invalid syntax for function call expression");
		p->tok++;
		return eng_tpl_parse_expr(p, star_star ? &args->star_star : &args->star);
	}
	if (p->tok->kind == TPL_TOK_NAME && p->tok[1].kind == TPL_TOK_OP && p->tok[1].op == TPL_OP_ASSIGN) {
		if (args->star_star)
			return eng_tpl_syntax_error(p, "invalid syntax for function call expression");
		r = const_node(p, p->tok->value, &name);
		if (r < 0)
			return r;
		p->tok += 2;
		r = eng_tpl_parse_expr(p, &n);
		if (r == 0)
			r = eng_tpl_nodes_push(p, kw_names, name);
		return r < 0 ? r : eng_tpl_nodes_push(p, kw_vals, n);
	}
	if (args->star || args->star_star || kw_vals->n)
		return eng_tpl_syntax_error(p, "invalid syntax for function call expression");
	r = eng_tpl_parse_expr(p, &n);
	return r < 0 ? r : eng_tpl_nodes_push(p, pos, n);
}

static int parse_call_args(struct tpl_parser *p, const struct tpl_call_args **ret)
{
	struct tpl_call_args *args = eng_tpl_arena_alloc(&p->tmpl->arena, sizeof(*args));
	struct tpl_nodes pos = { 0 }, names = { 0 }, vals = { 0 };
	bool first = true;
	int r;

	if (!args)
		return eng_tpl_no_memory(p);
	for (p->tok++; !tpl_at_op(p, TPL_OP_RPAREN); first = false) {
		if (!first) {
			r = eng_tpl_expect_op(p, TPL_OP_COMMA, "','");
			if (r < 0)
				return r;
			if (tpl_at_op(p, TPL_OP_RPAREN))
				break;
		}
		r = parse_call_arg(p, args, &pos, &vals, &names);
		if (r < 0)
			return r;
	}
	p->tok++;
	args->pos = pos.v;
	args->n_pos = pos.n;
	args->kw_vals = vals.v;
	args->n_kw = vals.n;
	args->kw_names = eng_tpl_arena_array(&p->tmpl->arena, names.n, sizeof(*args->kw_names));
	if (!args->kw_names)
		return eng_tpl_no_memory(p);
	for (uint32_t i = 0; i < names.n; i++)
		args->kw_names[i] = names.v[i]->value;
	*ret = args;
	return 0;
}

int eng_tpl_parse_call(struct tpl_parser *p, struct tpl_node *callee, struct tpl_node **ret)
{
	struct tpl_node *n = eng_tpl_node_new(p, TPL_N_CALL);

	if (!n)
		return eng_tpl_no_memory(p);
	n->a = callee;
	*ret = n;
	return parse_call_args(p, &n->args);
}

static int parse_attr(struct tpl_parser *p, struct tpl_node *of, struct tpl_node **ret)
{
	struct tpl_node *n = eng_tpl_node_new(p, TPL_N_ATTR);
	int r;

	if (!n)
		return eng_tpl_no_memory(p);
	p->tok++;
	n->a = of;
	*ret = n;
	if (p->tok->kind == TPL_TOK_INT) { /* x.0 is x[0] */
		n->kind = TPL_N_ITEM;
		r = const_node(p, p->tok->value, &n->b);
		p->tok++;
		return r;
	}
	return eng_tpl_take_name(p, "name or number", &n->value);
}

/* One bound of a slice, or nothing; then the colon when there is one. */
static int parse_slice_bound(struct tpl_parser *p, struct tpl_node **bound, bool *more)
{
	int r = 0;

	if (!tpl_at_op(p, TPL_OP_COLON) && !tpl_at_op(p, TPL_OP_RBRACKET))
		r = eng_tpl_parse_expr(p, bound);
	*more = r == 0 && tpl_at_op(p, TPL_OP_COLON);
	if (*more)
		p->tok++;
	return r;
}

static int parse_subscript(struct tpl_parser *p, struct tpl_node *of, struct tpl_node **ret)
{
	struct tpl_node *n = eng_tpl_node_new(p, TPL_N_ITEM), *tuple, *item;
	struct tpl_nodes items = { 0 };
	bool more = false;
	int r;

	if (!n)
		return eng_tpl_no_memory(p);
	n->a = of;
	*ret = n;
	p->tok++;
	if (tpl_at_op(p, TPL_OP_RBRACKET))
		return eng_tpl_syntax_error(p, "expected subscript expression");
	r = parse_slice_bound(p, &n->b, &more);
	if (r < 0)
		return r;
	if (more) {
		n->kind = TPL_N_SLICE;
		r = parse_slice_bound(p, &n->c, &more);
		if (r == 0 && more)
			r = parse_slice_bound(p, &n->d, &more);
		return r < 0 ? r : eng_tpl_expect_op(p, TPL_OP_RBRACKET, "']'");
	}
	if (!tpl_at_op(p, TPL_OP_COMMA))
		return eng_tpl_expect_op(p, TPL_OP_RBRACKET, "']'");
	tuple = eng_tpl_node_new(p, TPL_N_TUPLE); /* x[a, b] */
	if (!tuple)
		return eng_tpl_no_memory(p);
	r = eng_tpl_nodes_push(p, &items, n->b);
	while (r == 0 && tpl_at_op(p, TPL_OP_COMMA)) {
		p->tok++;
		r = eng_tpl_parse_expr(p, &item);
		if (r == 0)
			r = eng_tpl_nodes_push(p, &items, item);
	}
	tuple->items = items.v;
	tuple->n_items = items.n;
	n->b = tuple;
	return r < 0 ? r : eng_tpl_expect_op(p, TPL_OP_RBRACKET, "']'");
}

int eng_tpl_parse_postfix(struct tpl_parser *p, struct tpl_node *node, struct tpl_node **ret)
{
	int r = 0;

	while (r == 0 && p->tok->kind == TPL_TOK_OP) {
		if (p->tok->op == TPL_OP_DOT)
			r = parse_attr(p, node, &node);
		else if (p->tok->op == TPL_OP_LBRACKET)
			r = parse_subscript(p, node, &node);
		else if (p->tok->op == TPL_OP_LPAREN)
			r = eng_tpl_parse_call(p, node, &node);
		else
			break;
	}
	*ret = node;
	return r;
}

/* At the filter's name. */
int eng_tpl_parse_filter(struct tpl_parser *p, struct tpl_node *input, struct tpl_node **ret)
{
	static const struct tpl_call_args none;
	struct tpl_node *n = eng_tpl_node_new(p, TPL_N_FILTER);

	if (!n)
		return eng_tpl_no_memory(p);
	if (p->tok->kind != TPL_TOK_NAME)
		return eng_tpl_unexpected(p, "a filter's name");
	n->a = input;
	n->filter = eng_tpl_find_filter(p->tok->value.u.s, p->tok->value.len);
	if (!n->filter)
		return eng_tpl_unsupported(p, "filter '%.*s' is not supported", (int)p->tok->value.len,
		                           p->tok->value.u.s);
	n->args = &none;
	p->tok++;
	*ret = n;
	return tpl_at_op(p, TPL_OP_LPAREN) ? parse_call_args(p, &n->args) : 0;
}

int eng_tpl_parse_filter_chain(struct tpl_parser *p, struct tpl_node *input, struct tpl_node **ret)
{
	int r = 0;

	*ret = input;
	while (r == 0 && tpl_at_op(p, TPL_OP_PIPE)) {
		p->tok++;
		r = eng_tpl_parse_filter(p, *ret, ret);
	}
	return r;
}

/* A test's argument may come without parentheses: `x is divisibleby 3`. */
static int parse_test_args(struct tpl_parser *p, struct tpl_node *n)
{
	struct tpl_call_args *args;
	struct tpl_node **pos;
	int r;

	if (tpl_at_op(p, TPL_OP_LPAREN))
		return parse_call_args(p, &n->args);
	if (p->tok->kind == TPL_TOK_OP) {
		if (p->tok->op != TPL_OP_LBRACKET && p->tok->op != TPL_OP_LBRACE)
			return 0;
	} else if (p->tok->kind == TPL_TOK_NAME) {
		if (tpl_at_name(p, "else") || tpl_at_name(p, "or") || tpl_at_name(p, "and"))
			return 0;
		if (tpl_at_name(p, "is"))
			return eng_tpl_syntax_error(p, "You cannot chain multiple tests with is");
	} else if (p->tok->kind != TPL_TOK_STR && p->tok->kind != TPL_TOK_INT && p->tok->kind != TPL_TOK_FLOAT) {
		return 0;
	}
	args = eng_tpl_arena_alloc(&p->tmpl->arena, sizeof(*args));
	pos = eng_tpl_arena_array(&p->tmpl->arena, 1, sizeof(struct tpl_node *));
	if (!args || !pos)
		return eng_tpl_no_memory(p);
	r = eng_tpl_parse_primary(p, &pos[0]);
	if (r == 0)
		r = eng_tpl_parse_postfix(p, pos[0], &pos[0]);
	args->pos = pos;
	args->n_pos = 1;
	n->args = args;
	return r;
}

int eng_tpl_parse_test(struct tpl_parser *p, struct tpl_node *input, struct tpl_node **ret)
{
	static const struct tpl_call_args none;
	struct tpl_node *n = eng_tpl_node_new(p, TPL_N_TEST), *not ;
	bool negated;
	int r;

	if (!n)
		return eng_tpl_no_memory(p);
	p->tok++;
	negated = tpl_at_name(p, "not");
	if (negated)
		p->tok++;
	if (p->tok->kind != TPL_TOK_NAME)
		return eng_tpl_unexpected(p, "a test's name");
	n->a = input;
	n->args = &none;
	n->test = eng_tpl_find_test(p->tok->value.u.s, p->tok->value.len);
	if (!n->test)
		return eng_tpl_unsupported(p, "test '%.*s' is not supported", (int)p->tok->value.len,
		                           p->tok->value.u.s);
	p->tok++;
	r = parse_test_args(p, n);
	if (r < 0)
		return r;
	if (n->args->n_kw || n->args->star || n->args->star_star || n->args->n_pos != n->test->n_args)
		return eng_tpl_syntax_error(p, "test '%s' takes %u argument%s", n->test->name, n->test->n_args,
		                            n->test->n_args == 1 ? "" : "s");
	*ret = n;
	if (!negated)
		return 0;
	not = eng_tpl_node_new(p, TPL_N_NOT);
	if (!not )
		return eng_tpl_no_memory(p);
	not ->a = n;
	*ret = not ;
	return 0;
}
