/* What the rules of a grammar can do: match nothing, end at all, stay regular; left recursion; and what they become. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "grammar/ebnf_internal.h"

/* ---- What rules can do ---- */

typedef bool (*property_fn)(const struct ebnf *e, const struct ast *a);

/* Whether a has what its parts have: a sequence when all do, a choice when one does, a repetition also when it may be
 * left out. */
static bool by_parts(const struct ebnf *e, const struct ast *a, property_fn has)
{
	bool any = false, all = true;

	for (const struct ast *c = a->first; c; c = c->next) {
		bool is = has(e, c);

		any = any || is;
		all = all && is;
	}
	return a->kind == AST_ALT ? any : all || (a->kind == AST_REPEAT && a->min == 0);
}

/* Over a tree: whether it matches nothing (nullable), or anything finite (productive). */
static bool is_nullable(const struct ebnf *e, const struct ast *a)
{
	switch (a->kind) {
	case AST_CAT:
	case AST_ALT:
	case AST_REPEAT:
		return by_parts(e, a, is_nullable);
	case AST_CALL:
		return e->rules[a->rule].is_nullable;
	default:
		return false;
	}
}

static bool is_productive(const struct ebnf *e, const struct ast *a)
{
	switch (a->kind) {
	case AST_SET:
		return a->set.n > 0;
	case AST_CAT:
	case AST_ALT:
	case AST_REPEAT:
		return by_parts(e, a, is_productive);
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
int gr_ebnf_turn_left_recursion(struct ebnf *e, uint32_t rule)
{
	struct ast *tree = e->rules[rule].tree, *tails, *heads, *out, *next, *loop;
	bool found = false;

	for (const struct ast *c = tree->first; c; c = c->next)
		found = found || (c->first && c->first->kind == AST_CALL && c->first->rule == rule);
	if (!found)
		return 0;
	tails = gr_ebnf_new_ast(e, AST_ALT);
	heads = gr_ebnf_new_ast(e, AST_ALT);
	out = gr_ebnf_new_ast(e, AST_CAT);
	loop = tails ? gr_ast_repeat(&e->pool, tails, 0, AST_INFINITE) : NULL;
	if (!tails || !heads || !out || !loop)
		return gr_ebnf_fail(e, -E2BIG, "the grammar is too large");
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
	if (n->mark == 1 || depth > EBNF_MAX_RULES)
		return err_set(e->err, -EINVAL,
		               "grammar: rule \"%s\" is left-recursive through other rules, which is not "
		               "supported",
		               n->name);
	n->mark = 1;
	r = left_calls(e, n->tree, depth + 1);
	n->mark = 2;
	return r;
}

int gr_ebnf_analyse(struct ebnf *e)
{
	bool changed = true;
	int r = 0;

	for (uint32_t i = 0; i < e->n; i++) {
		if (!e->rules[i].tree) {
			e->pos = e->rules[i].pos;
			(void)gr_ebnf_fail(e, -EINVAL, "a rule that is not defined");
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

	if (e->n_inlined > EBNF_MAX_ALL_INLINED)
		return false;
	/* A pool of its own: what does not fit is forgotten. */
	e->pool = (struct ast_pool){ .n = AST_MAX_NODES - EBNF_MAX_INLINED };
	gr_dfa_builder_init(&b);
	b.need = 1;
	tree = inlined(e, e->rules[rule].tree);
	if (!tree || gr_dfa_builder_add(&b, tree, false) < 0)
		gr_dfa_builder_done(&b);
	else
		(void)gr_dfa_finish(&b, &d, NULL);
	e->n_inlined += e->pool.n - (AST_MAX_NODES - EBNF_MAX_INLINED);
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

int gr_ebnf_build(struct ebnf *e)
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
