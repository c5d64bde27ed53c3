/* Expressions: recursive descent, one function per level of precedence, lowest first:
 *
 *   x if c else y | or | and | not | comparisons, in | + - | ~ | * / // % | ** | unary, postfix, filters, tests
 *
 * as Jinja has them: ** groups from the left and binds weaker than a sign, filters and tests bind
 * tighter than any operator. Those and the atoms are in tpl_parse_atom.c. */
#include "tpl_ast.h"
#include "tpl_interp.h"

#include <errno.h>
#include <string.h>

/* ---- Operators ------------------------------------------------------------------------------------------ */

static int parse_unary(struct tpl_parser *p, bool with_filter, struct tpl_node **ret)
{
	struct tpl_node *n;
	int r;

	r = eng_tpl_parse_enter(p);
	if (r < 0)
		return r;
	if (tpl_at_op(p, TPL_OP_SUB) || tpl_at_op(p, TPL_OP_ADD)) {
		n = eng_tpl_node_new(p, tpl_at_op(p, TPL_OP_SUB) ? TPL_N_NEG : TPL_N_POS);
		if (!n)
			return eng_tpl_no_memory(p);
		p->tok++;
		r = parse_unary(p, false, &n->a);
	} else {
		r = eng_tpl_parse_primary(p, &n);
	}
	if (r == 0)
		r = eng_tpl_parse_postfix(p, n, &n);
	while (r == 0 && with_filter) {
		if (tpl_at_op(p, TPL_OP_PIPE))
			r = eng_tpl_parse_filter_chain(p, n, &n);
		else if (tpl_at_name(p, "is"))
			r = eng_tpl_parse_test(p, n, &n);
		else if (tpl_at_op(p, TPL_OP_LPAREN))
			r = eng_tpl_parse_call(p, n, &n);
		else
			break;
	}
	p->depth--;
	*ret = n;
	return r;
}

static int make_binary(struct tpl_parser *p, enum tpl_node_kind kind, enum tpl_op op, struct tpl_node *a,
                       struct tpl_node *b, struct tpl_node **ret)
{
	struct tpl_node *n = eng_tpl_node_new(p, kind);

	if (!n)
		return eng_tpl_no_memory(p);
	n->op = (uint8_t)op;
	n->a = a;
	n->b = b;
	*ret = n;
	return 0;
}

static int parse_pow(struct tpl_parser *p, struct tpl_node **ret)
{
	struct tpl_node *right;
	int r = parse_unary(p, true, ret);

	while (r == 0 && tpl_at_op(p, TPL_OP_POW)) {
		p->tok++;
		r = parse_unary(p, true, &right);
		if (r == 0)
			r = make_binary(p, TPL_N_BINARY, TPL_OP_POW, *ret, right, ret);
	}
	return r;
}

static int parse_product(struct tpl_parser *p, struct tpl_node **ret)
{
	struct tpl_node *right;
	enum tpl_op op;
	int r = parse_pow(p, ret);

	while (r == 0 && p->tok->kind == TPL_TOK_OP && p->tok->op >= TPL_OP_MUL && p->tok->op <= TPL_OP_MOD) {
		op = p->tok->op;
		p->tok++;
		r = parse_pow(p, &right);
		if (r == 0)
			r = make_binary(p, TPL_N_BINARY, op, *ret, right, ret);
	}
	return r;
}

static int parse_concat(struct tpl_parser *p, struct tpl_node **ret)
{
	struct tpl_nodes items = { 0 };
	struct tpl_node *n;
	int r = parse_product(p, ret);

	if (r < 0 || !tpl_at_op(p, TPL_OP_TILDE))
		return r;
	n = eng_tpl_node_new(p, TPL_N_CONCAT);
	if (!n)
		return eng_tpl_no_memory(p);
	r = eng_tpl_nodes_push(p, &items, *ret);
	while (r == 0 && tpl_at_op(p, TPL_OP_TILDE)) {
		p->tok++;
		r = parse_product(p, ret);
		if (r == 0)
			r = eng_tpl_nodes_push(p, &items, *ret);
	}
	n->items = items.v;
	n->n_items = items.n;
	*ret = n;
	return r;
}

static int parse_sum(struct tpl_parser *p, struct tpl_node **ret)
{
	struct tpl_node *right;
	enum tpl_op op;
	int r = parse_concat(p, ret);

	while (r == 0 && (tpl_at_op(p, TPL_OP_ADD) || tpl_at_op(p, TPL_OP_SUB))) {
		op = p->tok->op;
		p->tok++;
		r = parse_concat(p, &right);
		if (r == 0)
			r = make_binary(p, TPL_N_BINARY, op, *ret, right, ret);
	}
	return r;
}

/* The comparison at the current token, or TPL_OP_NONE; *ret_n tokens long. */
static enum tpl_op comparison_here(const struct tpl_parser *p, unsigned *ret_n)
{
	*ret_n = 1;
	if (p->tok->kind == TPL_TOK_OP)
		return p->tok->op >= TPL_OP_EQ && p->tok->op <= TPL_OP_GE ? p->tok->op : TPL_OP_NONE;
	if (tpl_at_name(p, "in"))
		return TPL_OP_IN;
	if (tpl_at_name(p, "not") && p->tok[1].kind == TPL_TOK_NAME && tpl_is_text(&p->tok[1].value, "in")) {
		*ret_n = 2;
		return TPL_OP_NOT_IN;
	}
	return TPL_OP_NONE;
}

static int parse_comparison(struct tpl_parser *p, struct tpl_node **ret)
{
	struct tpl_nodes items = { 0 };
	struct tpl_node *n, *right;
	enum tpl_op op;
	unsigned n_tokens;
	int r = parse_sum(p, ret);

	if (r < 0 || comparison_here(p, &n_tokens) == TPL_OP_NONE)
		return r;
	n = eng_tpl_node_new(p, TPL_N_COMPARE);
	if (!n)
		return eng_tpl_no_memory(p);
	n->a = *ret;
	while (r == 0 && (op = comparison_here(p, &n_tokens)) != TPL_OP_NONE) {
		p->tok += n_tokens;
		r = parse_sum(p, &right);
		if (r == 0)
			r = make_binary(p, TPL_N_OPERAND, op, right, NULL, &right);
		if (r == 0)
			r = eng_tpl_nodes_push(p, &items, right);
	}
	n->items = items.v;
	n->n_items = items.n;
	*ret = n;
	return r;
}

static int parse_not(struct tpl_parser *p, struct tpl_node **ret)
{
	struct tpl_node *n;
	int r;

	if (!tpl_at_name(p, "not"))
		return parse_comparison(p, ret);
	r = eng_tpl_parse_enter(p);
	if (r < 0)
		return r;
	n = eng_tpl_node_new(p, TPL_N_NOT);
	if (!n)
		return eng_tpl_no_memory(p);
	p->tok++;
	r = parse_not(p, &n->a);
	p->depth--;
	*ret = n;
	return r;
}

static int parse_logic(struct tpl_parser *p, bool is_or, struct tpl_node **ret)
{
	struct tpl_node *right;
	int r = is_or ? parse_logic(p, false, ret) : parse_not(p, ret);

	while (r == 0 && tpl_at_name(p, is_or ? "or" : "and")) {
		p->tok++;
		r = is_or ? parse_logic(p, false, &right) : parse_not(p, &right);
		if (r == 0)
			r = make_binary(p, is_or ? TPL_N_OR : TPL_N_AND, TPL_OP_NONE, *ret, right, ret);
	}
	return r;
}

int eng_tpl_parse_expr(struct tpl_parser *p, struct tpl_node **ret)
{
	struct tpl_node *n;
	int r = eng_tpl_parse_enter(p);

	if (r < 0)
		return r;
	r = parse_logic(p, true, ret);
	while (r == 0 && tpl_at_name(p, "if")) {
		n = eng_tpl_node_new(p, TPL_N_COND);
		if (!n)
			return eng_tpl_no_memory(p);
		p->tok++;
		n->a = *ret;
		r = parse_logic(p, true, &n->b);
		if (r == 0 && tpl_at_name(p, "else")) {
			p->tok++;
			r = eng_tpl_parse_expr(p, &n->c);
		}
		*ret = n;
	}
	p->depth--;
	return r;
}

/* ---- Tuples and targets --------------------------------------------------------------------------------- */

static bool at_tuple_end(const struct tpl_parser *p, unsigned flags)
{
	return p->tok->kind == TPL_TOK_VAR_END || p->tok->kind == TPL_TOK_BLOCK_END || tpl_at_op(p, TPL_OP_RPAREN) ||
	       ((flags & TPL_TUPLE_TARGET) && (tpl_at_name(p, "in") || tpl_at_op(p, TPL_OP_ASSIGN))) ||
	       tpl_at_name(p, "recursive");
}

static int parse_tuple_item(struct tpl_parser *p, unsigned flags, struct tpl_node **ret)
{
	struct tpl_node *n;
	int r;

	if (flags & TPL_TUPLE_COND)
		return eng_tpl_parse_expr(p, ret);
	if (!(flags & TPL_TUPLE_TARGET))
		return parse_logic(p, true, ret);
	if (tpl_at_op(p, TPL_OP_LPAREN)) {
		r = eng_tpl_parse_enter(p);
		if (r < 0)
			return r;
		p->tok++;
		r = eng_tpl_parse_tuple(p, TPL_TUPLE_TARGET, ret);
		p->depth--;
		return r < 0 ? r : eng_tpl_expect_op(p, TPL_OP_RPAREN, "')'");
	}
	if (p->tok->kind != TPL_TOK_NAME)
		return eng_tpl_unexpected(p, "a name to assign to");
	r = eng_tpl_parse_name(p, ret);
	if (r < 0 || !tpl_at_op(p, TPL_OP_DOT))
		return r;
	n = *ret;
	if (n->kind != TPL_N_NAME)
		return eng_tpl_syntax_error(p, "can't assign to a constant");
	n->kind = TPL_N_NSREF;
	p->tok++;
	return eng_tpl_take_name(p, "an attribute's name", &n->value);
}

int eng_tpl_parse_tuple(struct tpl_parser *p, unsigned flags, struct tpl_node **ret)
{
	struct tpl_nodes items = { 0 };
	struct tpl_node *n, *item;
	bool is_tuple = false;
	int r;

	n = eng_tpl_node_new(p, TPL_N_TUPLE);
	if (!n)
		return eng_tpl_no_memory(p);
	while (!at_tuple_end(p, flags)) {
		r = parse_tuple_item(p, flags, &item);
		if (r == 0)
			r = eng_tpl_nodes_push(p, &items, item);
		if (r < 0)
			return r;
		if (!tpl_at_op(p, TPL_OP_COMMA))
			break;
		is_tuple = true;
		p->tok++;
	}
	if (!is_tuple && items.n) {
		*ret = items.v[0];
		return 0;
	}
	if (!items.n && !(flags & TPL_TUPLE_PARENS))
		return eng_tpl_unexpected(p, "an expression");
	n->items = items.v;
	n->n_items = items.n;
	*ret = n;
	return 0;
}

static int check_target(struct tpl_parser *p, const struct tpl_node *n)
{
	int r = 0;

	if (n->kind == TPL_N_NAME || n->kind == TPL_N_NSREF)
		return 0;
	if (n->kind != TPL_N_TUPLE)
		return eng_tpl_syntax_error(p, "can't assign to a constant");
	for (uint32_t i = 0; r == 0 && i < n->n_items; i++)
		r = check_target(p, n->items[i]);
	return r;
}

int eng_tpl_parse_target(struct tpl_parser *p, struct tpl_node **ret)
{
	int r = eng_tpl_parse_tuple(p, TPL_TUPLE_TARGET, ret);

	return r < 0 ? r : check_target(p, *ret);
}
