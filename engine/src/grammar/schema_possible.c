/* Which values have an instance: a fixed point over all nodes; what has none is cut off. */
#include <errno.h>
#include <stdlib.h>

#include "grammar/schema_internal.h"

static bool is_possible(const uint8_t *possible, uint32_t node)
{
	return node != GR_NONE && possible[node];
}

static bool object_possible(const struct object *o, const uint8_t *possible)
{
	uint64_t n_can = 0, n_must = 0;

	for (uint32_t i = 0; i < o->n_props; i++) {
		bool can = is_possible(possible, o->props[i].value);

		n_can += can;
		n_must += o->props[i].is_required;
		if (o->props[i].is_required && !can)
			return false;
	}
	for (uint32_t m = 0; m < 1u << o->n_patterns; m++) {
		if (is_possible(possible, o->other[m]))
			n_can = UINT32_MAX;
	}
	return n_must <= o->max && o->min <= o->max && o->min <= n_can;
}

static bool array_possible(const struct array *a, const uint8_t *possible)
{
	if (a->min > a->max)
		return false;
	for (uint32_t i = 0; i < a->min && i <= a->n_prefix; i++) {
		if (!is_possible(possible, i < a->n_prefix ? a->prefix[i] : a->items))
			return false;
	}
	return true;
}

static bool node_possible(struct eng_grammar *g, uint32_t i, const uint8_t *possible)
{
	struct node *n = &g->nodes[i];

	switch (n->kind) {
	case NODE_VALUE:
		for (uint32_t k = 0; k < n->value.n; k++) {
			if (possible[n->value.alternatives[k]])
				return true;
		}
		return false;
	case NODE_LEX:
		return gr_lex_at_begin(&n->lex) != LEX_DEAD;
	case NODE_OBJECT:
		return object_possible(&n->object, possible);
	case NODE_ARRAY:
		return array_possible(&n->array, possible);
	default:
		return true;
	}
}

static void forbid_impossible(struct node *n, const uint8_t *possible)
{
	uint32_t k = 0;

	switch (n->kind) {
	case NODE_VALUE:
		for (uint32_t i = 0; i < n->value.n; i++) {
			if (possible[n->value.alternatives[i]])
				n->value.alternatives[k++] = n->value.alternatives[i];
		}
		n->value.n = k;
		break;
	case NODE_OBJECT:
		for (uint32_t i = 0; i < n->object.n_props; i++) {
			if (!is_possible(possible, n->object.props[i].value))
				n->object.props[i].value = GR_NONE;
		}
		for (uint32_t m = 0; m < 1u << n->object.n_patterns; m++) {
			if (!is_possible(possible, n->object.other[m]))
				n->object.other[m] = GR_NONE;
		}
		break;
	case NODE_ARRAY:
		for (uint32_t i = 0; i < n->array.n_prefix; i++) {
			if (!is_possible(possible, n->array.prefix[i]))
				n->array.prefix[i] = GR_NONE;
		}
		if (!is_possible(possible, n->array.items))
			n->array.items = GR_NONE;
		break;
	default:
		break;
	}
}

/* A property that demands an impossible one is impossible itself; over chains of them. */
static void forbid_dependents(struct object *o)
{
	bool changed = true;

	while (changed) {
		changed = false;
		for (uint32_t i = 0; i < o->n_dependencies; i++) {
			const struct dependency *d = &o->dependencies[i];

			for (uint32_t k = 0; k < d->n_needed && o->props[d->given].value != GR_NONE; k++) {
				if (o->props[d->needed[k]].value == GR_NONE) {
					o->props[d->given].value = GR_NONE;
					changed = true;
				}
			}
		}
	}
}

int gr_schema_cut_impossible(struct schema *s, uint32_t root)
{
	struct eng_grammar *g = s->g;
	uint8_t *possible = calloc(g->n_nodes, 1);
	bool changed = true;
	int r = 0;

	if (!possible)
		return err_set(s->err, -ENOMEM, "out of memory");
	while (changed) {
		changed = false;
		for (uint32_t i = g->n_nodes; i-- > 0;) {
			if (!possible[i] && node_possible(g, i, possible))
				possible[i] = changed = true;
		}
	}
	for (uint32_t i = 0; i < g->n_nodes; i++)
		forbid_impossible(&g->nodes[i], possible);
	for (uint32_t i = 0; i < g->n_nodes; i++) {
		if (g->nodes[i].kind == NODE_OBJECT)
			forbid_dependents(&g->nodes[i].object);
	}
	if (!is_possible(possible, root))
		r = err_set(s->err, -EINVAL, "schema: no value can satisfy it");
	for (uint32_t i = 0; i < s->n_overlaps && r == 0; i++) {
		const struct overlap *o = &s->overlaps[i];

		if (possible[o->value])
			r = err_set(
			        s->err, -EINVAL,
			        "schema: %s/oneOf: alternatives %u and %u can both hold, which cannot be kept apart "
			        "while the text is written; use anyOf, or make them exclude each other",
			        s->raws[o->raw].pointer, o->i, o->j);
	}
	free(possible);
	return r;
}
