/* Statements: text, {{ }}, and the {% %} blocks, each with its own small parser in one table.
 *
 * Left out on purpose: what needs other templates (extends, include, import) or other settings than
 * chat templates get (autoescape, do, trans): those are refused by name. */
#include "tpl_ast.h"
#include "tpl_interp.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

static int parse_body(struct tpl_parser *p, const char *const *ends, struct tpl_node **ret);

static int expect_block_end(struct tpl_parser *p)
{
	if (p->tok->kind != TPL_TOK_BLOCK_END)
		return eng_tpl_syntax_error(p, "expected end of statement block");
	p->tok++;
	return 0;
}

/* The rest of a block tag, its body, and its end tag. */
static int parse_block_body(struct tpl_parser *p, const char *end, struct tpl_node **ret)
{
	const char *const ends[] = { end, NULL };
	int r;

	r = expect_block_end(p);
	if (r == 0)
		r = parse_body(p, ends, ret);
	if (r < 0)
		return r;
	p->tok++; /* the end's name */
	return expect_block_end(p);
}

/* A body that becomes a text of its own: a break cannot leave it. */
static int parse_captured_body(struct tpl_parser *p, const char *end, struct tpl_node **ret)
{
	unsigned n_loops = p->n_loops;
	int r;

	p->n_loops = 0;
	r = parse_block_body(p, end, ret);
	p->n_loops = n_loops;
	return r;
}

static int parse_if(struct tpl_parser *p, struct tpl_node *n)
{
	static const char *const branch_ends[] = { "elif", "else", "endif", NULL }, *const else_ends[] = { "endif",
		                                                                                           NULL };
	int r;

	r = eng_tpl_parse_tuple(p, 0, &n->a);
	if (r == 0)
		r = expect_block_end(p);
	if (r == 0)
		r = parse_body(p, branch_ends, &n->b);
	if (r < 0)
		return r;
	/* A chain of elifs nests in c, without recursion here: long chains are common. */
	while (tpl_at_name(p, "elif")) {
		n->c = eng_tpl_node_new(p, TPL_N_IF);
		if (!n->c)
			return eng_tpl_no_memory(p);
		n = n->c;
		p->tok++;
		r = eng_tpl_parse_tuple(p, 0, &n->a);
		if (r == 0)
			r = expect_block_end(p);
		if (r == 0)
			r = parse_body(p, branch_ends, &n->b);
		if (r < 0)
			return r;
	}
	if (tpl_at_name(p, "else")) {
		p->tok++;
		r = expect_block_end(p);
		if (r == 0)
			r = parse_body(p, else_ends, &n->c);
		if (r < 0)
			return r;
	}
	p->tok++;
	return expect_block_end(p);
}

static int parse_for(struct tpl_parser *p, struct tpl_node *n)
{
	static const char *const ends[] = { "else", "endfor", NULL }, *const else_ends[] = { "endfor", NULL };
	int r;

	r = eng_tpl_parse_target(p, &n->a);
	if (r < 0)
		return r;
	if (!tpl_at_name(p, "in"))
		return eng_tpl_syntax_error(p, "expected 'in' in a for loop");
	p->tok++;
	r = eng_tpl_parse_tuple(p, 0, &n->b);
	if (r == 0 && tpl_at_name(p, "if")) {
		p->tok++;
		r = eng_tpl_parse_expr(p, &n->c);
	}
	if (r == 0 && tpl_at_name(p, "recursive"))
		return eng_tpl_unsupported(p, "recursive for loops are not supported");
	if (r == 0)
		r = expect_block_end(p);
	if (r < 0)
		return r;
	p->n_loops++;
	r = parse_body(p, ends, &n->d);
	p->n_loops--;
	if (r == 0 && tpl_at_name(p, "else")) {
		p->tok++;
		r = expect_block_end(p);
		if (r == 0)
			r = parse_body(p, else_ends, &n->e);
	}
	if (r < 0)
		return r;
	p->tok++;
	return expect_block_end(p);
}

static int parse_set(struct tpl_parser *p, struct tpl_node *n)
{
	int r;

	r = eng_tpl_parse_target(p, &n->a);
	if (r < 0)
		return r;
	if (tpl_at_op(p, TPL_OP_ASSIGN)) {
		p->tok++;
		r = eng_tpl_parse_tuple(p, TPL_TUPLE_COND, &n->b);
		return r < 0 ? r : expect_block_end(p);
	}
	n->kind = TPL_N_SET_BLOCK;
	r = eng_tpl_parse_filter_chain(p, NULL, &n->b);
	return r < 0 ? r : parse_captured_body(p, "endset", &n->d);
}

/* (a, b=1): names and the defaults of the last ones. */
static int parse_signature(struct tpl_parser *p, struct tpl_node *n)
{
	struct tpl_nodes params = { 0 }, defaults = { 0 };
	struct tpl_node *item;
	int r;

	r = eng_tpl_expect_op(p, TPL_OP_LPAREN, "'('");
	if (r < 0)
		return r;
	while (!tpl_at_op(p, TPL_OP_RPAREN)) {
		r = params.n ? eng_tpl_expect_op(p, TPL_OP_COMMA, "','") : 0;
		if (r < 0)
			return r;
		item = eng_tpl_node_new(p, TPL_N_NAME);
		if (!item)
			return eng_tpl_no_memory(p);
		r = eng_tpl_take_name(p, "a parameter's name", &item->value);
		if (r == 0)
			r = eng_tpl_intern(p, &item->value, &item->name);
		if (r == 0)
			r = eng_tpl_nodes_push(p, &params, item);
		if (r < 0)
			return r;
		if (tpl_at_op(p, TPL_OP_ASSIGN)) {
			p->tok++;
			r = eng_tpl_parse_expr(p, &item);
			if (r == 0)
				r = eng_tpl_nodes_push(p, &defaults, item);
			if (r < 0)
				return r;
		} else if (defaults.n) {
			return eng_tpl_syntax_error(p, "non-default argument follows default argument");
		}
	}
	p->tok++;
	n->items = params.v;
	n->n_items = params.n;
	n->defaults = defaults.v;
	n->n_defaults = defaults.n;
	return 0;
}

/* Body of a macro or a call block: what it mentions decides what a call may pass. */
static int parse_macro_body(struct tpl_parser *p, const char *end, struct tpl_node *n)
{
	unsigned outer = p->macro_uses;
	int r;

	p->macro_uses = 0;
	r = parse_captured_body(p, end, &n->d);
	n->op = (uint8_t)p->macro_uses;
	p->macro_uses |= outer;
	return r;
}

static int parse_macro(struct tpl_parser *p, struct tpl_node *n)
{
	int r;

	r = eng_tpl_take_name(p, "a macro's name", &n->value);
	if (r == 0)
		r = eng_tpl_intern(p, &n->value, &n->name);
	if (r == 0)
		r = parse_signature(p, n);
	return r < 0 ? r : parse_macro_body(p, "endmacro", n);
}

static int parse_call_block(struct tpl_parser *p, struct tpl_node *n)
{
	struct tpl_node *caller = eng_tpl_node_new(p, TPL_N_MACRO);
	int r = 0;

	if (!caller)
		return eng_tpl_no_memory(p);
	caller->value = tpl_text("caller", 6);
	caller->name = p->tmpl->name_caller;
	n->b = caller;
	if (tpl_at_op(p, TPL_OP_LPAREN))
		r = parse_signature(p, caller);
	if (r == 0)
		r = eng_tpl_parse_expr(p, &n->a);
	if (r < 0)
		return r;
	if (n->a->kind != TPL_N_CALL)
		return eng_tpl_syntax_error(p, "expected call");
	return parse_macro_body(p, "endcall", caller);
}

static int parse_filter_block(struct tpl_parser *p, struct tpl_node *n)
{
	struct tpl_node *first;
	int r;

	r = eng_tpl_parse_filter(p, NULL, &first);
	if (r == 0)
		r = eng_tpl_parse_filter_chain(p, first, &n->b);
	return r < 0 ? r : parse_captured_body(p, "endfilter", &n->d);
}

static int parse_with(struct tpl_parser *p, struct tpl_node *n)
{
	struct tpl_nodes items = { 0 };
	struct tpl_node *item;
	int r = 0;

	while (r == 0 && p->tok->kind != TPL_TOK_BLOCK_END) {
		r = items.n ? eng_tpl_expect_op(p, TPL_OP_COMMA, "','") : 0;
		if (r == 0)
			r = eng_tpl_parse_target(p, &item);
		if (r == 0)
			r = eng_tpl_nodes_push(p, &items, item);
		if (r == 0)
			r = eng_tpl_expect_op(p, TPL_OP_ASSIGN, "'='");
		if (r == 0)
			r = eng_tpl_parse_expr(p, &item);
		if (r == 0)
			r = eng_tpl_nodes_push(p, &items, item);
	}
	n->items = items.v;
	n->n_items = items.n;
	return r < 0 ? r : parse_block_body(p, "endwith", &n->d);
}

/* transformers marks the assistant's part with it; the text is the body's. */
static int parse_generation(struct tpl_parser *p, struct tpl_node *n)
{
	return parse_captured_body(p, "endgeneration", &n->d);
}

/* {% print a, b %}: each of them. */
static int parse_print(struct tpl_parser *p, struct tpl_node *n)
{
	struct tpl_nodes items = { 0 };
	struct tpl_node *out;
	int r = 0;

	while (r == 0 && (items.n == 0 || tpl_at_op(p, TPL_OP_COMMA))) {
		if (items.n)
			p->tok++;
		out = eng_tpl_node_new(p, TPL_N_OUTPUT);
		if (!out)
			return eng_tpl_no_memory(p);
		r = eng_tpl_parse_expr(p, &out->a);
		if (r == 0)
			r = eng_tpl_nodes_push(p, &items, out);
	}
	n->items = items.v;
	n->n_items = items.n;
	return r < 0 ? r : expect_block_end(p);
}

static int parse_jump(struct tpl_parser *p, struct tpl_node *n)
{
	(void)n;
	if (!p->n_loops)
		return eng_tpl_syntax_error(p, "break and continue work only inside a for loop");
	return expect_block_end(p);
}

static const struct {
	const char *name;
	enum tpl_node_kind kind;
	int (*parse)(struct tpl_parser *p, struct tpl_node *n);
} blocks[] = {
	{ "if", TPL_N_IF, parse_if },
	{ "for", TPL_N_FOR, parse_for },
	{ "set", TPL_N_SET, parse_set },
	{ "macro", TPL_N_MACRO, parse_macro },
	{ "call", TPL_N_CALL_BLOCK, parse_call_block },
	{ "filter", TPL_N_FILTER_BLOCK, parse_filter_block },
	{ "with", TPL_N_WITH, parse_with },
	{ "generation", TPL_N_SCOPE, parse_generation },
	{ "print", TPL_N_BODY, parse_print },
	{ "break", TPL_N_BREAK, parse_jump },
	{ "continue", TPL_N_CONTINUE, parse_jump },
};

/* After "{%", at the block's name. */
static int parse_block(struct tpl_parser *p, struct tpl_node **ret)
{
	const struct tpl_value *name = &p->tok->value;
	struct tpl_node *n;
	int r;

	if (p->tok->kind != TPL_TOK_NAME)
		return eng_tpl_syntax_error(p, "tag name expected");
	for (size_t i = 0; i < sizeof(blocks) / sizeof(*blocks); i++) {
		if (!tpl_is_text(name, blocks[i].name))
			continue;
		r = eng_tpl_parse_enter(p);
		if (r < 0)
			return r;
		n = eng_tpl_node_new(p, blocks[i].kind);
		if (!n)
			return eng_tpl_no_memory(p);
		p->tok++;
		*ret = n;
		r = blocks[i].parse(p, n);
		p->depth--;
		return r;
	}
	if ((name->len > 3 && memcmp(name->u.s, "end", 3) == 0) || tpl_is_text(name, "else") ||
	    tpl_is_text(name, "elif"))
		return eng_tpl_syntax_error(p, "unexpected '%.*s'", (int)name->len, name->u.s);
	return eng_tpl_unsupported(p, "block '%.*s' is not supported", (int)name->len, name->u.s);
}

static bool at_end_name(const struct tpl_parser *p, const char *const *ends)
{
	for (; ends && *ends; ends++) {
		if (tpl_at_name(p, *ends))
			return true;
	}
	return false;
}

static int parse_output(struct tpl_parser *p, struct tpl_node **ret)
{
	struct tpl_node *n = eng_tpl_node_new(p, TPL_N_OUTPUT);
	int r;

	if (!n)
		return eng_tpl_no_memory(p);
	p->tok++;
	r = eng_tpl_parse_tuple(p, TPL_TUPLE_COND, &n->a);
	if (r < 0)
		return r;
	if (p->tok->kind != TPL_TOK_VAR_END)
		return eng_tpl_syntax_error(p, "expected end of print statement");
	p->tok++;
	*ret = n;
	return 0;
}

/* Statements until {% one of ends, leaving its name as the current token; ends NULL: until the template's end. */
static int parse_body(struct tpl_parser *p, const char *const *ends, struct tpl_node **ret)
{
	struct tpl_node *body = eng_tpl_node_new(p, TPL_N_BODY), *n = NULL;
	struct tpl_nodes items = { 0 };
	int r = 0;

	if (!body)
		return eng_tpl_no_memory(p);
	while (r == 0) {
		if (p->tok->kind == TPL_TOK_EOF) {
			if (ends)
				return eng_tpl_syntax_error(p, "unexpected end of template, expected '%s'", ends[0]);
			break;
		}
		if (p->tok->kind == TPL_TOK_TEXT) {
			n = eng_tpl_node_new(p, TPL_N_TEXT);
			if (!n)
				return eng_tpl_no_memory(p);
			n->value = p->tok->value;
			p->tok++;
		} else if (p->tok->kind == TPL_TOK_VAR_BEGIN) {
			r = parse_output(p, &n);
		} else {
			p->tok++;
			if (at_end_name(p, ends))
				break;
			r = parse_block(p, &n);
		}
		if (r == 0)
			r = eng_tpl_nodes_push(p, &items, n);
	}
	body->items = items.v;
	body->n_items = items.n;
	*ret = body;
	return r;
}

int eng_tpl_parse(struct eng_template *tmpl, struct err *err)
{
	static const char *const special[] = { "loop", "caller", "varargs", "kwargs" };
	uint32_t *const ids[] = { &tmpl->name_loop, &tmpl->name_caller, &tmpl->name_varargs, &tmpl->name_kwargs };
	struct tpl_parser *p = calloc(1, sizeof(*p));
	struct tpl_value name;
	int r = 0;

	if (!p)
		return err_set(err, -ENOMEM, "%s: out of memory", tmpl->where);
	p->tmpl = tmpl;
	p->err = err;
	p->tok = tmpl->tokens;
	for (size_t i = 0; r == 0 && i < 4; i++) {
		name = tpl_text(special[i], strlen(special[i]));
		r = eng_tpl_intern(p, &name, ids[i]);
	}
	if (r == 0)
		r = parse_body(p, NULL, &tmpl->body);
	free(p);
	return r;
}
