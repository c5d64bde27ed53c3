/* JSON Schema -> nodes.
 *
 * A value of the output has to satisfy a set of subschemas (a conj): what a property's schema says, what an allOf adds,
 * a pattern that matches the name. Every distinct set becomes one value node; sets refer to each other through
 * properties and items, so recursion through $ref closes by itself and each set is worked on once, from a list, without
 * recursion.
 *
 * Working on a set (schema_cases.c): $ref, allOf, anyOf and oneOf are multiplied out into cases (sets of "own"
 * keywords); from each case comes at most one alternative per JSON type (schema_scalar.c, schema_object.c,
 * schema_array.c).
 *
 * oneOf is exact: two alternatives must exclude each other, which they do when the set of both has no value. That, like
 * every other question of what is possible, is answered at the end (schema_possible.c): a fixed point finds the values
 * that have an instance; what has none is cut off, so that no way leads into a trap.
 *
 * Keywords that are not supported are errors with their JSON pointer; unknown ones are ignored, as the standard says.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/json.h"
#include "grammar/schema_internal.h"

/* ---- Helpers ---- */

int gr_schema_fail(struct schema *s, uint32_t raw, const char *key, int code, const char *why)
{
	return err_set(s->err, code, "schema: %s%s%s: %s", s->raws[raw].pointer, key ? "/" : "", key ? key : "", why);
}

const json_t *gr_schema_get(const struct schema *s, uint32_t raw, const char *key)
{
	return json_object_get(s->raws[raw].json, key);
}

/* ---- Subschemas ---- */

static uint32_t pointer_slot(const struct schema *s, const json_t *json)
{
	uint32_t i = (uint32_t)((uintptr_t)json / 16 * 0x9e3779b97f4a7c15u >> 20) & (s->raw_size - 1);

	while (s->raw_table[i] && s->raws[s->raw_table[i] - 1].json != json)
		i = (i + 1) & (s->raw_size - 1);
	return i;
}

static int grow_raw_table(struct schema *s)
{
	uint32_t *old = s->raw_table, size = s->raw_size ? s->raw_size * 2 : 256;

	if (s->n_raws * 2 < s->raw_size)
		return 0;
	s->raw_table = calloc(size, sizeof(*s->raw_table));
	if (!s->raw_table) {
		s->raw_table = old;
		return -ENOMEM;
	}
	s->raw_size = size;
	free(old);
	for (uint32_t i = 0; i < s->n_raws; i++)
		s->raw_table[pointer_slot(s, s->raws[i].json)] = i + 1;
	return 0;
}

static char *join_pointer(const char *parent, const char *key)
{
	struct base_buf out = BASE_BUF_INIT(4096);

	(void)base_buf_printf(&out, "%s%s%s", parent, key ? "/" : "", key ? key : "");
	if (base_buf_error(&out)) {
		base_buf_done(&out);
		return strdup("(a deep place)");
	}
	return base_buf_take(&out);
}

int gr_schema_raw(struct schema *s, const json_t *json, const char *parent, const char *key, uint32_t *ret)
{
	uint32_t slot;

	if (grow_raw_table(s) < 0)
		return err_set(s->err, -ENOMEM, "out of memory");
	slot = pointer_slot(s, json);
	if (s->raw_table[slot]) {
		*ret = s->raw_table[slot] - 1;
		return 0;
	}
	if (gr_grow(&s->raws, s->n_raws, &s->cap_raws, sizeof(*s->raws)) < 0)
		return err_set(s->err, -ENOMEM, "out of memory");
	s->raws[s->n_raws] = (struct raw){ .json = json, .pointer = join_pointer(parent, key) };
	if (!s->raws[s->n_raws].pointer)
		return err_set(s->err, -ENOMEM, "out of memory");
	s->raw_table[slot] = ++s->n_raws;
	*ret = s->n_raws - 1;
	return gr_schema_check(s, *ret);
}

int gr_schema_made(struct schema *s, json_t *json, uint32_t *ret_raw)
{
	if (!json || json_array_append_new(s->made, json) < 0)
		return err_set(s->err, -ENOMEM, "out of memory");
	return gr_schema_raw(s, json, "#", "(const)", ret_raw);
}

/* ---- $ref ---- */

/* One step of a JSON pointer, decoded into name. */
static int pointer_step(const char *p, size_t n, char *name, size_t size)
{
	size_t k = 0;

	for (size_t i = 0; i < n; i++) {
		char c = p[i];
		unsigned byte;

		if (c == '~' && i + 1 < n && (p[i + 1] == '0' || p[i + 1] == '1')) {
			c = p[++i] == '0' ? '~' : '/';
		} else if (c == '%' && i + 2 < n && sscanf(p + i + 1, "%2x", &byte) == 1) {
			c = (char)byte;
			i += 2;
		}
		if (k + 1 >= size)
			return -E2BIG;
		name[k++] = c;
	}
	name[k] = '\0';
	return 0;
}

static const json_t *follow(const json_t *at, const char *pointer)
{
	char name[256];

	while (*pointer == '/' && at) {
		size_t n = strcspn(pointer + 1, "/");

		if (pointer_step(pointer + 1, n, name, sizeof(name)) < 0)
			return NULL;
		pointer += n + 1;
		if (json_is_array(at)) {
			char *end;
			unsigned long i = strtoul(name, &end, 10);

			at = *end || !*name ? NULL : json_array_get(at, i);
		} else {
			at = json_object_get(at, name);
		}
	}
	return *pointer ? NULL : at;
}

static const json_t *find_anchor(const json_t *at, const char *name, unsigned depth)
{
	const json_t *v, *hit;
	const char *key;
	size_t i;

	if (depth > 64)
		return NULL;
	if (json_is_object(at) && json_is_string(json_object_get(at, "$anchor")) &&
	    strcmp(json_string_value(json_object_get(at, "$anchor")), name) == 0)
		return at;
	json_object_foreach((json_t *)at, key, v)
	{
		hit = find_anchor(v, name, depth + 1);
		if (hit)
			return hit;
	}
	json_array_foreach((json_t *)at, i, v)
	{
		hit = find_anchor(v, name, depth + 1);
		if (hit)
			return hit;
	}
	return NULL;
}

int gr_schema_resolve(struct schema *s, uint32_t raw, const json_t *ref, uint32_t *ret)
{
	const char *text = json_string_value(ref), *id = json_string_value(json_object_get(s->root, "$id"));
	const json_t *target = NULL;
	size_t n = id ? strcspn(id, "#") : 0;

	if (id && strncmp(text, id, n) == 0 && (text[n] == '#' || text[n] == '\0'))
		text += n;
	if (*text == '\0' || strcmp(text, "#") == 0)
		target = s->root;
	else if (text[0] == '#' && text[1] == '/')
		target = follow(s->root, text + 1);
	else if (text[0] == '#')
		target = find_anchor(s->root, text + 1, 0);
	else
		return gr_schema_fail(s, raw, "$ref", -EINVAL,
		                      "only references within the schema (\"#...\") are supported");
	if (!target)
		return gr_schema_fail(s, raw, "$ref", -EINVAL, "there is nothing in that place");
	return gr_schema_raw(s, target, text, NULL, ret);
}

/* ---- Sets of subschemas ---- */

static int compare_u32(const void *a, const void *b)
{
	uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;

	return x < y ? -1 : x > y;
}

static uint32_t unique(uint32_t *parts, uint32_t n)
{
	uint32_t k = 0;

	if (n > 0)
		qsort(parts, n, sizeof(*parts), compare_u32);
	for (uint32_t i = 0; i < n; i++) {
		if (k == 0 || parts[i] != parts[k - 1])
			parts[k++] = parts[i];
	}
	return k;
}

static uint32_t conj_slot(const struct schema *s, const uint32_t *parts, uint32_t n)
{
	uint64_t h = 0x9e3779b97f4a7c15u;
	uint32_t i;

	for (i = 0; i < n; i++)
		h = (h ^ parts[i]) * 0xff51afd7ed558ccdu, h ^= h >> 32;
	for (i = (uint32_t)h & (s->conj_size - 1); s->conj_table[i]; i = (i + 1) & (s->conj_size - 1)) {
		const struct conj *c = &s->conjs[s->conj_table[i] - 1];

		if (c->n == n && (n == 0 || memcmp(c->parts, parts, n * sizeof(*parts)) == 0))
			break;
	}
	return i;
}

static int grow_conj_table(struct schema *s)
{
	uint32_t *old = s->conj_table, size = s->conj_size ? s->conj_size * 2 : 256;

	if (s->n_conjs * 2 < s->conj_size)
		return 0;
	s->conj_table = calloc(size, sizeof(*s->conj_table));
	if (!s->conj_table) {
		s->conj_table = old;
		return -ENOMEM;
	}
	s->conj_size = size;
	free(old);
	for (uint32_t i = 0; i < s->n_conjs; i++)
		s->conj_table[conj_slot(s, s->conjs[i].parts, s->conjs[i].n)] = i + 1;
	return 0;
}

int gr_schema_value(struct schema *s, uint32_t *parts, uint32_t n, uint32_t *ret)
{
	uint32_t k = 0, slot;
	struct conj *c;
	int r;

	for (uint32_t i = 0; i < n; i++) {
		const json_t *json = s->raws[parts[i] >> 1].json;

		if (json_is_false(json)) {
			*ret = GR_NONE;
			return 0;
		}
		if (!json_is_true(json))
			parts[k++] = parts[i];
	}
	n = unique(parts, k);
	if (n > SCHEMA_MAX_ATOMS)
		return err_set(s->err, -E2BIG, "schema: more than %d subschemas meet in one value", SCHEMA_MAX_ATOMS);
	s->work += n + 1;
	if (grow_conj_table(s) < 0)
		return err_set(s->err, -ENOMEM, "out of memory");
	slot = conj_slot(s, parts, n);
	if (s->conj_table[slot]) {
		*ret = s->conjs[s->conj_table[slot] - 1].value;
		return 0;
	}
	if (gr_grow(&s->conjs, s->n_conjs, &s->cap_conjs, sizeof(*s->conjs)) < 0)
		return err_set(s->err, -ENOMEM, "out of memory");
	c = &s->conjs[s->n_conjs];
	*c = (struct conj){ .n = n, .parts = malloc((n + 1) * sizeof(*parts)) };
	if (!c->parts)
		return err_set(s->err, -ENOMEM, "out of memory");
	if (n > 0)
		memcpy(c->parts, parts, n * sizeof(*parts));
	s->n_conjs++;
	r = gr_grammar_node(s->g, NODE_VALUE, &c->value);
	if (r < 0)
		return err_set(s->err, r, "schema: too large");
	s->conj_table[slot] = s->n_conjs;
	*ret = c->value;
	return 0;
}

/* ---- The whole ---- */

static void schema_done(struct schema *s)
{
	for (uint32_t i = 0; i < s->n_raws; i++)
		free(s->raws[i].pointer);
	for (uint32_t i = 0; i < s->n_conjs; i++)
		free(s->conjs[i].parts);
	for (uint32_t i = 0; i < s->n_pending; i++)
		gr_dfa_builder_done(&s->pending[i].builder);
	for (uint32_t i = 0; i < s->n_memos; i++)
		free(s->memos[i].key);
	free(s->raws);
	free(s->raw_table);
	free(s->conjs);
	free(s->conj_table);
	free(s->overlaps);
	free(s->pending);
	free(s->memos);
	json_decref(s->made);
	json_decref(s->root);
}

static int compile(struct schema *s, uint32_t *ret_root)
{
	uint32_t raw = 0, part;
	int r;

	r = gr_grammar_node(s->g, NODE_LEX, &s->g->free_string);
	if (r < 0)
		return r;
	s->g->nodes[s->g->free_string].lex = (struct lex){ .is_string = true, .max = UINT32_MAX };
	if ((r = gr_schema_raw(s, s->root, "#", NULL, &raw)) < 0)
		return r;
	part = raw << 1;
	r = gr_schema_value(s, &part, 1, ret_root);
	while (r == 0 && s->n_done < s->n_conjs) {
		r = gr_schema_work_on(s, s->n_done++);
		if (r == 0 && s->work > SCHEMA_MAX_WORK)
			r = gr_schema_too_many(s, "it multiplies out to too much");
	}
	if (r == 0)
		r = gr_schema_cut_impossible(s, *ret_root);
	for (uint32_t i = 0; i < s->n_pending && r == 0; i++) {
		r = gr_schema_finish_names(s, &s->pending[i]);
		if (r == 0 && s->work > SCHEMA_MAX_WORK)
			r = gr_schema_too_many(s, "its patterns of names");
	}
	return r;
}

int gr_schema_compile(struct eng_grammar *g, const char *text, size_t len, struct err *err)
{
	struct schema s = { .g = g, .err = err, .made = json_array() };
	uint32_t root = 0;
	int r = base_json_parse("schema", text, len, &s.root, err);

	if (r == 0 && !json_is_object(s.root) && !json_is_boolean(s.root))
		r = err_set(err, -EINVAL, "schema: expected an object, got %s", base_json_type_name(s.root));
	if (r == 0)
		r = compile(&s, &root);
	if (r == 0) {
		r = gr_grammar_node(g, NODE_DOCUMENT, &g->root);
		if (r == 0)
			g->nodes[g->root].document = root;
	}
	schema_done(&s);
	return r == -EBADMSG ? -EINVAL : r;
}
