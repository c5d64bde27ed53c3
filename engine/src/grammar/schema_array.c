/* Arrays of a schema: the items of all subschemas that meet in one case, merged position by position. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include "grammar/schema_internal.h"

/* The schemas by position: prefixItems, or items as older drafts have it. */
static const json_t *prefix_of(const struct schema *s, uint32_t raw)
{
	const json_t *items = gr_schema_get(s, raw, "items");

	return json_is_array(items) ? items : gr_schema_get(s, raw, "prefixItems");
}

static const json_t *rest_of(const struct schema *s, uint32_t raw)
{
	return gr_schema_get(s, raw, json_is_array(gr_schema_get(s, raw, "items")) ? "additionalItems" : "items");
}

/* i SIZE_MAX: behind every prefix */
static int item_at(struct schema *s, const uint32_t *atoms, uint32_t n, size_t i, uint32_t *ret)
{
	uint32_t parts[SCHEMA_MAX_ATOMS], n_parts = 0;
	char where[64];
	int r = 0;

	for (uint32_t k = 0; k < n && r == 0; k++) {
		const json_t *prefix = prefix_of(s, atoms[k]), *item = rest_of(s, atoms[k]);

		(void)snprintf(where, sizeof(where), "items");
		if (i < json_array_size(prefix)) {
			item = json_array_get(prefix, i);
			(void)snprintf(where, sizeof(where), "prefixItems/%zu", i);
		}
		if (!item)
			continue;
		r = gr_schema_raw(s, item, s->raws[atoms[k]].pointer, where, &parts[n_parts]);
		parts[n_parts++] <<= 1;
	}
	return r < 0 ? r : gr_schema_value(s, parts, n_parts, ret);
}

static int narrow(struct schema *s, uint32_t raw, struct array *a, bool *unique)
{
	const json_t *min = gr_schema_get(s, raw, "minItems"), *max = gr_schema_get(s, raw, "maxItems");

	if (json_number_value(min) > SCHEMA_MAX_LENGTH)
		return gr_schema_fail(s, raw, "minItems", -E2BIG, "too large");
	if (min && json_number_value(min) > a->min)
		a->min = (uint32_t)json_number_value(min);
	if (max && json_number_value(max) < a->max)
		a->max = (uint32_t)json_number_value(max);
	*unique = *unique || json_is_true(gr_schema_get(s, raw, "uniqueItems"));
	return 0;
}

int gr_schema_array(struct schema *s, const uint32_t *atoms, uint32_t n, uint32_t *ret)
{
	struct array a = { .max = UINT32_MAX };
	bool unique = false;
	int r = 0;

	*ret = GR_NONE;
	for (uint32_t k = 0; k < n && r == 0; k++) {
		size_t size = json_array_size(prefix_of(s, atoms[k]));

		if (size > a.n_prefix)
			a.n_prefix = (uint32_t)size;
		r = narrow(s, atoms[k], &a, &unique);
	}
	if (r < 0)
		return r;
	a.prefix = calloc(a.n_prefix + 1u, sizeof(*a.prefix));
	if (!a.prefix)
		return err_set(s->err, -ENOMEM, "out of memory");
	for (uint32_t i = 0; i < a.n_prefix && r == 0; i++)
		r = item_at(s, atoms, n, i, &a.prefix[i]);
	if (r == 0)
		r = item_at(s, atoms, n, SIZE_MAX, &a.items);
	if (r == 0 && unique && a.max > 1 && !(a.items == GR_NONE && a.n_prefix < 2))
		r = gr_schema_fail(s, atoms[0], "uniqueItems", -EINVAL, "not supported");
	if (r == 0) {
		r = gr_grammar_node(s->g, NODE_ARRAY, ret);
		if (r < 0)
			(void)err_set(s->err, r, "schema: too large");
	}
	if (r < 0) {
		free(a.prefix);
		return r;
	}
	s->g->nodes[*ret].array = a;
	return 0;
}
