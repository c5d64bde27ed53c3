/* Thompson's construction (1968). A loop gets a state of its own, so that trees compose without looking inside each
 * other. The recursion is as deep as groups nest, which the parsers bound. */
#include "grammar/nfa.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "grammar/grow.h"

void gr_nfa_done(struct nfa *a)
{
	for (uint32_t i = 0; i < a->n_sets; i++)
		gr_charset_done(&a->sets[i]);
	free(a->sets);
	free(a->edges);
	free(a->heads);
	*a = (struct nfa){ 0 };
}

int gr_nfa_state(struct nfa *a, uint32_t *ret)
{
	if (a->n_states >= NFA_MAX_STATES)
		return -E2BIG;
	if (gr_grow(&a->heads, a->n_states, &a->cap_states, sizeof(*a->heads)) < 0)
		return -ENOMEM;
	a->heads[a->n_states] = NFA_NONE;
	*ret = a->n_states++;
	return 0;
}

int gr_nfa_edge(struct nfa *a, uint32_t from, enum nfa_edge_kind kind, uint32_t arg, uint32_t to)
{
	if (a->n_edges >= 4 * NFA_MAX_STATES)
		return -E2BIG;
	if (gr_grow(&a->edges, a->n_edges, &a->cap_edges, sizeof(*a->edges)) < 0)
		return -ENOMEM;
	a->edges[a->n_edges] = (struct nfa_edge){ kind, arg, to, a->heads[from] };
	a->heads[from] = a->n_edges++;
	return 0;
}

int gr_nfa_set(struct nfa *a, const struct charset *set, uint32_t *ret)
{
	bool is_single = set->n == 1 && set->ranges[0].lo == set->ranges[0].hi && set->ranges[0].lo < 128;
	struct charset *s;

	if (is_single && a->single[set->ranges[0].lo]) {
		*ret = a->single[set->ranges[0].lo] - 1;
		return 0;
	}
	if (gr_grow(&a->sets, a->n_sets, &a->cap_sets, sizeof(*a->sets)) < 0)
		return -ENOMEM;
	s = &a->sets[a->n_sets++];
	*s = (struct charset){ 0 };
	if (gr_charset_add_set(s, set) < 0)
		return -ENOMEM;
	gr_charset_finish(s);
	if (is_single)
		a->single[set->ranges[0].lo] = a->n_sets;
	*ret = a->n_sets - 1;
	return 0;
}

static int emit_edge(struct nfa *a, enum nfa_edge_kind kind, uint32_t arg, uint32_t from, uint32_t *ret_to)
{
	int r = gr_nfa_state(a, ret_to);

	return r < 0 ? r : gr_nfa_edge(a, from, kind, arg, *ret_to);
}

static int emit_alternatives(struct nfa *a, const struct ast *tree, uint32_t from, uint32_t *ret_to)
{
	int r = gr_nfa_state(a, ret_to);

	for (const struct ast *c = tree->first; c && r == 0; c = c->next) {
		uint32_t begin = 0, end = 0;

		r = emit_edge(a, NFA_EPS, 0, from, &begin);
		if (r == 0)
			r = gr_nfa_emit(a, c, begin, &end);
		if (r == 0)
			r = gr_nfa_edge(a, end, NFA_EPS, 0, *ret_to);
	}
	return r;
}

static int emit_loop(struct nfa *a, const struct ast *child, uint32_t from, uint32_t *ret_to)
{
	uint32_t loop = 0, end = 0;
	int r = emit_edge(a, NFA_EPS, 0, from, &loop);

	if (r == 0)
		r = gr_nfa_emit(a, child, loop, &end);
	if (r == 0)
		r = gr_nfa_edge(a, end, NFA_EPS, 0, loop);
	return r < 0 ? r : emit_edge(a, NFA_EPS, 0, loop, ret_to);
}

static int emit_repeat(struct nfa *a, const struct ast *tree, uint32_t from, uint32_t *ret_to)
{
	uint32_t at = from, end = 0;
	int r = 0;

	for (uint32_t i = 0; i < tree->min && r == 0; i++)
		r = gr_nfa_emit(a, tree->first, at, &at);
	if (r < 0)
		return r;
	if (tree->max == AST_INFINITE)
		return emit_loop(a, tree->first, at, ret_to);
	r = gr_nfa_state(a, &end);
	for (uint32_t i = tree->min; i < tree->max && r == 0; i++) {
		r = gr_nfa_edge(a, at, NFA_EPS, 0, end);
		if (r == 0)
			r = emit_edge(a, NFA_EPS, 0, at, &at);
		if (r == 0)
			r = gr_nfa_emit(a, tree->first, at, &at);
	}
	if (r == 0)
		r = gr_nfa_edge(a, at, NFA_EPS, 0, end);
	*ret_to = end;
	return r;
}

static int emit_set(struct nfa *a, const struct ast *tree, uint32_t from, uint32_t *ret_to)
{
	uint32_t set = 0;
	int r = gr_nfa_set(a, &tree->set, &set);

	return r < 0 ? r : emit_edge(a, NFA_SET, set, from, ret_to);
}

int gr_nfa_emit(struct nfa *a, const struct ast *tree, uint32_t from, uint32_t *ret_to)
{
	int r = 0;

	if (++a->n_steps > NFA_MAX_STEPS)
		return -E2BIG;
	switch (tree->kind) {
	case AST_SET:
		return emit_set(a, tree, from, ret_to);
	case AST_CAT:
		for (const struct ast *c = tree->first; c && r == 0; c = c->next)
			r = gr_nfa_emit(a, c, from, &from);
		*ret_to = from;
		return r;
	case AST_ALT:
		return emit_alternatives(a, tree, from, ret_to);
	case AST_REPEAT:
		return emit_repeat(a, tree, from, ret_to);
	case AST_BEGIN:
		return emit_edge(a, NFA_BEGIN, 0, from, ret_to);
	case AST_END:
		return emit_edge(a, NFA_END, 0, from, ret_to);
	case AST_CALL:
		return emit_edge(a, NFA_CALL, tree->rule, from, ret_to);
	}
	return -EINVAL;
}
