/* Terminals of a schema: strings, numbers, listed values, null and booleans. Equal ones share a node, and with it the
 * masks. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "grammar/schema_internal.h"

enum { MAX_MEMOS = 512 }; /* looked through one by one */

#define INTEGER_REGEX "-?(0|[1-9]\\d*)"
#define DECIMAL_REGEX INTEGER_REGEX "(\\.\\d+)?"
#define NUMBER_REGEX DECIMAL_REGEX "([eE][+-]?\\d+)?"

/* ---- Automata ---- */

int gr_schema_add_regex(struct schema *s, uint32_t raw, const char *key, const char *regex, bool is_search,
                        struct dfa_builder *b)
{
	struct ast_pool pool = { 0 };
	struct ast *tree = NULL;
	struct err why = { 0 };
	int r;

	s->work += strlen(regex);
	r = gr_ast_parse_regex(&pool, regex, strlen(regex), &tree, &why);
	if (r == 0)
		r = gr_dfa_builder_add(b, tree, is_search);
	gr_ast_pool_done(&pool);
	if (r == 0)
		return 0;
	return gr_schema_fail(s, raw, key, r, why.code ? err_text(&why) : "the pattern is too large");
}

int gr_schema_finish_lex(struct schema *s, struct dfa_builder *b, bool is_string, uint32_t *ret)
{
	uint32_t node = 0;
	int r = gr_grammar_node(s->g, NODE_LEX, &node);

	if (r < 0) {
		gr_dfa_builder_done(b);
		return err_set(s->err, r, "schema: too large");
	}
	s->g->nodes[node].lex = (struct lex){ .is_string = is_string, .max = UINT32_MAX };
	r = gr_dfa_finish(b, &s->g->nodes[node].lex.dfa, s->err);
	if (r < 0)
		return err_prefix(s->err, r, "schema: ");
	s->work += gr_dfa_cells(s->g->nodes[node].lex.dfa) / 16;
	*ret = node;
	return 0;
}

/* ---- Equal terminals ---- */

/* The key's node, or GR_NONE. */
static uint32_t memo_find(const struct schema *s, const struct base_buf *key)
{
	for (uint32_t i = 0; i < s->n_memos; i++) {
		if (strcmp(s->memos[i].key, base_buf_text(key)) == 0)
			return s->memos[i].node;
	}
	return GR_NONE;
}

static int memo_add(struct schema *s, struct base_buf *key, uint32_t node)
{
	if (s->n_memos == MAX_MEMOS)
		return 0;
	if (gr_grow(&s->memos, s->n_memos, &s->cap_memos, sizeof(*s->memos)) < 0)
		return err_set(s->err, -ENOMEM, "out of memory");
	s->memos[s->n_memos].key = strdup(base_buf_text(key));
	s->memos[s->n_memos].node = node;
	if (!s->memos[s->n_memos].key)
		return err_set(s->err, -ENOMEM, "out of memory");
	s->n_memos++;
	return 0;
}

int gr_schema_plain(struct schema *s, const char *regex, uint32_t *ret)
{
	CLEANUP(base_buf_done) struct base_buf key = BASE_BUF_INIT(4096);
	struct dfa_builder b;
	int r;

	(void)base_buf_printf(&key, "plain %s", regex);
	*ret = memo_find(s, &key);
	if (*ret != GR_NONE)
		return 0;
	gr_dfa_builder_init(&b);
	b.need = 1;
	r = gr_schema_add_regex(s, 0, NULL, regex, false, &b);
	if (r < 0) {
		gr_dfa_builder_done(&b);
		return r;
	}
	r = gr_schema_finish_lex(s, &b, false, ret);
	return r < 0 ? r : memo_add(s, &key, *ret);
}

/* ---- Strings ---- */

/* What a case says of strings. */
struct text {
	struct schema *s;
	struct dfa_builder b;
	struct base_buf key; /* all of it, for the memo */
	uint32_t min, max;
};

static int narrow(struct text *t, uint32_t raw)
{
	const json_t *min = gr_schema_get(t->s, raw, "minLength"), *max = gr_schema_get(t->s, raw, "maxLength");

	if (json_number_value(min) > SCHEMA_MAX_LENGTH)
		return gr_schema_fail(t->s, raw, "minLength", -E2BIG, "too large");
	if (min && json_number_value(min) > t->min)
		t->min = (uint32_t)json_number_value(min);
	if (max && json_number_value(max) < t->max)
		t->max = (uint32_t)json_number_value(max);
	return 0;
}

static int add_text_pattern(struct text *t, uint32_t raw, const char *key, const char *regex, bool is_search,
                            bool forbid)
{
	uint32_t bit = t->b.n;
	int r;

	(void)base_buf_printf(&t->key, "%s%s%s\n", forbid ? "not " : "", is_search ? "some " : "", regex);
	if (bit == DFA_MAX_PATTERNS)
		return gr_schema_fail(t->s, raw, key, -E2BIG, "too many patterns meet in one string");
	r = gr_schema_add_regex(t->s, raw, key, regex, is_search, &t->b);
	if (r < 0)
		return r;
	if (forbid)
		t->b.forbid |= 1u << bit;
	else
		t->b.need |= 1u << bit;
	return 0;
}

static int add_literals(struct schema *s, const json_t *const *values, size_t n, struct dfa_builder *b)
{
	struct ast_pool pool = { 0 };
	struct ast *alt = gr_ast_new(&pool, AST_ALT), *one;
	int r = alt ? 0 : -ENOMEM;

	for (size_t i = 0; i < n && r == 0; i++) {
		one = gr_ast_literal(&pool, json_string_value(values[i]), json_string_length(values[i]));
		r = one ? 0 : -E2BIG;
		if (one)
			gr_ast_append(alt, one);
		s->work += json_string_length(values[i]);
	}
	if (r == 0)
		r = gr_dfa_builder_add(b, alt, false);
	gr_ast_pool_done(&pool);
	return r < 0 ? err_set(s->err, r, "schema: a list of values is too large") : 0;
}

/* not: const, enum, pattern */
static int add_not(struct text *t, uint32_t raw)
{
	const json_t *no = gr_schema_get(t->s, raw, "not"), *pattern = json_object_get(no, "pattern"), *v;
	const json_t *one = json_object_get(no, "const"), *list = json_object_get(no, "enum");
	size_t n = one ? 1 : json_array_size(list), k = 0, i;
	const json_t **values;
	uint32_t bit = t->b.n;
	int r;

	if (pattern)
		return add_text_pattern(t, raw, "not", json_string_value(pattern), true, true);
	if (n == 0)
		return 0;
	values = calloc(n, sizeof(*values));
	if (!values)
		return err_set(t->s->err, -ENOMEM, "out of memory");
	if (json_is_string(one))
		values[k++] = one;
	json_array_foreach((json_t *)list, i, v)
	{
		if (json_is_string(v))
			values[k++] = v;
	}
	(void)base_buf_printf(&t->key, "not at %u\n", raw);
	r = bit == DFA_MAX_PATTERNS ? -E2BIG : add_literals(t->s, values, k, &t->b);
	t->b.forbid |= 1u << (bit & 31);
	free(values);
	return r;
}

static int add_text_atom(struct text *t, uint32_t raw)
{
	const json_t *pattern = gr_schema_get(t->s, raw, "pattern"), *format = gr_schema_get(t->s, raw, "format");
	const char *regex = format ? gr_schema_format(json_string_value(format)) : NULL;
	int r = narrow(t, raw);

	if (r == 0 && pattern && strlen(json_string_value(pattern)) != json_string_length(pattern))
		return gr_schema_fail(t->s, raw, "pattern", -EINVAL, "it holds a zero byte");
	if (r == 0 && pattern)
		r = add_text_pattern(t, raw, "pattern", json_string_value(pattern), true, false);
	if (r == 0 && regex && !*regex)
		return gr_schema_fail(t->s, raw, "format", -EINVAL, "this format is not supported");
	if (r == 0 && regex)
		r = add_text_pattern(t, raw, "format", regex, false, false);
	return r < 0 ? r : add_not(t, raw);
}

static int make_string(struct text *t, uint32_t *ret)
{
	int r;

	if (t->b.n > 0) {
		t->b.min_chars = t->min;
		/* Nothing but forbidden ones: all the same an automaton, over everything. */
		r = gr_schema_finish_lex(t->s, &t->b, true, ret);
		if (r == 0)
			t->s->g->nodes[*ret].lex.max = t->max;
		return r;
	}
	r = gr_grammar_node(t->s->g, NODE_LEX, ret);
	if (r < 0)
		return err_set(t->s->err, r, "schema: too large");
	t->s->g->nodes[*ret].lex = (struct lex){ .is_string = true, .min = t->min, .max = t->max };
	return 0;
}

int gr_schema_string(struct schema *s, const uint32_t *atoms, uint32_t n, uint32_t *ret)
{
	struct text t = { .s = s, .key = BASE_BUF_INIT(1 << 20), .max = UINT32_MAX };
	int r = 0;

	gr_dfa_builder_init(&t.b);
	(void)base_buf_puts(&t.key, "string\n");
	for (uint32_t i = 0; i < n && r == 0; i++)
		r = add_text_atom(&t, atoms[i]);
	(void)base_buf_printf(&t.key, "%u %u", t.min, t.max);
	if (r == 0 && t.b.n > 0 && !t.b.need) /* forbidden ones only: everything else */
		r = add_text_pattern(&t, 0, "not", "[\\s\\S]*", false, false);
	*ret = GR_NONE;
	if (r == 0 && t.min <= t.max) {
		*ret = base_buf_error(&t.key) ? GR_NONE : memo_find(s, &t.key);
		if (*ret == GR_NONE) {
			r = make_string(&t, ret);
			if (r == 0 && !base_buf_error(&t.key))
				r = memo_add(s, &t.key, *ret);
		}
	}
	gr_dfa_builder_done(&t.b);
	base_buf_done(&t.key);
	if (r == -E2BIG && n > 0)
		return gr_schema_fail(s, atoms[0], NULL, r,
		                      "patterns and lengths of this string are too large together");
	return r;
}

int gr_schema_strings(struct schema *s, const json_t *const *values, size_t n, uint32_t *ret)
{
	struct dfa_builder b;
	int r;

	gr_dfa_builder_init(&b);
	b.need = 1;
	r = add_literals(s, values, n, &b);
	if (r < 0) {
		gr_dfa_builder_done(&b);
		return r;
	}
	return gr_schema_finish_lex(s, &b, true, ret);
}

/* ---- Other listed values ---- */

/* A number as it may be written: as JSON libraries do, and plainly. */
static int print_number(const json_t *v, struct base_buf *out)
{
	char text[48], *plain = NULL;
	int r = gr_number_decimal(v, &plain);

	if (r < 0)
		return r;
	for (int precision = 1; precision <= 17 && json_is_real(v); precision++) {
		(void)snprintf(text, sizeof(text), "%.*g", precision, json_real_value(v));
		if (strtod(text, NULL) == json_real_value(v))
			break;
	}
	for (const char *p = json_is_real(v) ? text : plain; *p; p++)
		(void)base_buf_printf(out, "%s%c", *p == '.' || *p == '+' ? "\\" : "", *p);
	if (json_is_real(v)) {
		(void)base_buf_puts(out, "|");
		for (const char *p = plain; *p; p++)
			(void)base_buf_printf(out, "%s%c", *p == '.' ? "\\" : "", *p);
		if (!strchr(plain, '.'))
			(void)base_buf_puts(out, "(\\.0)?");
	}
	free(plain);
	return 0;
}

int gr_schema_scalars(struct schema *s, const json_t *const *values, size_t n, uint32_t *ret)
{
	CLEANUP(base_buf_done) struct base_buf regex = BASE_BUF_INIT(4 << 20);
	struct dfa_builder b;
	int r = 0;

	for (size_t i = 0; i < n && r == 0; i++) {
		(void)base_buf_puts(&regex, i ? "|" : "");
		if (json_is_number(values[i]))
			r = print_number(values[i], &regex);
		else
			(void)base_buf_puts(&regex, json_is_true(values[i])    ? "true"
			                            : json_is_false(values[i]) ? "false"
			                                                       : "null");
	}
	if (r < 0 || base_buf_error(&regex))
		return err_set(s->err, r < 0 ? r : -E2BIG, "schema: a listed number is too large");
	gr_dfa_builder_init(&b);
	b.need = 1;
	r = gr_schema_add_regex(s, 0, "enum", base_buf_text(&regex), false, &b);
	if (r < 0) {
		gr_dfa_builder_done(&b);
		return r;
	}
	return gr_schema_finish_lex(s, &b, false, ret);
}

/* ---- Numbers ---- */

struct range {
	struct schema *s;
	struct dfa_builder b;
	struct base_buf key;
};

static int add_range_regex(struct range *g, uint32_t raw, const char *key, const char *regex)
{
	int r = gr_schema_add_regex(g->s, raw, key, regex, false, &g->b);

	g->b.need |= 1u << (g->b.n - 1);
	return r;
}

static int add_bound(struct range *g, uint32_t raw, const char *key, const json_t *bound, bool is_lower, bool is_strict)
{
	CLEANUP(base_buf_done) struct base_buf regex = BASE_BUF_INIT(1 << 20);
	CLEANUP(freep) char *decimal = NULL;
	int r = gr_number_decimal(bound, &decimal);

	/* Beyond what is written out: no bound in practice when it does not exclude everything. */
	if (r == -ERANGE)
		return gr_schema_fail(g->s, raw, key, -E2BIG, "a number of so many digits is not supported");
	if (r == 0)
		r = gr_number_bound(&regex, decimal, is_lower, is_strict);
	if (r < 0)
		return gr_schema_fail(g->s, raw, key, r, "a bound that is not supported");
	(void)base_buf_printf(&g->key, "%s %s %d\n", key, decimal, is_strict);
	if (g->b.n == DFA_MAX_PATTERNS)
		return gr_schema_fail(g->s, raw, key, -E2BIG, "too many bounds meet in one number");
	return add_range_regex(g, raw, key, base_buf_text(&regex));
}

/* minimum with draft 4's exclusiveMinimum: true, or exclusiveMinimum with its own number */
static int add_side(struct range *g, uint32_t raw, bool is_lower)
{
	const char *plain = is_lower ? "minimum" : "maximum",
	           *strict = is_lower ? "exclusiveMinimum" : "exclusiveMaximum";
	const json_t *bound = gr_schema_get(g->s, raw, plain), *other = gr_schema_get(g->s, raw, strict);
	int r = 0;

	if (bound)
		r = add_bound(g, raw, plain, bound, is_lower, json_is_true(other));
	if (r == 0 && json_is_number(other))
		r = add_bound(g, raw, strict, other, is_lower, true);
	return r;
}

/* int32 and its like are OpenAPI's; they bound integers */
static int add_number_format(struct range *g, uint32_t raw)
{
	const char *name = json_string_value(gr_schema_get(g->s, raw, "format"));
	static const struct {
		const char *name;
		json_int_t lo, hi;
	} table[] = {
		{ "int32", INT32_MIN, INT32_MAX }, { "int64", INT64_MIN, INT64_MAX }, { "uint32", 0, UINT32_MAX },
		{ "int8", INT8_MIN, INT8_MAX },    { "uint8", 0, UINT8_MAX },         { "int16", INT16_MIN, INT16_MAX },
		{ "uint16", 0, UINT16_MAX },
	};
	int r = 0;

	for (size_t i = 0; name && i < sizeof(table) / sizeof(table[0]) && r == 0; i++) {
		json_t *lo, *hi;

		if (strcmp(table[i].name, name) != 0)
			continue;
		lo = json_integer(table[i].lo);
		hi = json_integer(table[i].hi);
		r = add_bound(g, raw, "format", lo, true, false);
		if (r == 0)
			r = add_bound(g, raw, "format", hi, false, false);
		json_decref(lo);
		json_decref(hi);
	}
	return r;
}

static int add_multiple(struct range *g, uint32_t raw)
{
	const json_t *step = gr_schema_get(g->s, raw, "multipleOf");
	CLEANUP(freep) char *decimal = NULL;
	int r;

	if (!step)
		return 0;
	r = gr_number_decimal(step, &decimal);
	if (r == 0 && g->b.n < DFA_MAX_PATTERNS)
		r = gr_number_multiple(&g->b, decimal);
	if (r < 0)
		return gr_schema_fail(g->s, raw, "multipleOf", r, "a step of so many digits is not supported");
	(void)base_buf_printf(&g->key, "multipleOf %s\n", decimal);
	g->b.need |= 1u << (g->b.n - 1);
	return 0;
}

int gr_schema_number(struct schema *s, const uint32_t *atoms, uint32_t n, bool is_integer, uint32_t *ret)
{
	struct range g = { .s = s, .key = BASE_BUF_INIT(1 << 20) };
	int r;

	gr_dfa_builder_init(&g.b);
	(void)base_buf_printf(&g.key, "number %d\n", is_integer);
	/* Within bounds there are no exponents. */
	r = add_range_regex(&g, 0, NULL, is_integer ? INTEGER_REGEX : DECIMAL_REGEX);
	for (uint32_t i = 0; i < n && r == 0; i++) {
		if ((r = add_side(&g, atoms[i], true)) == 0 && (r = add_side(&g, atoms[i], false)) == 0 &&
		    (r = add_multiple(&g, atoms[i])) == 0 && is_integer)
			r = add_number_format(&g, atoms[i]);
	}
	*ret = base_buf_error(&g.key) ? GR_NONE : memo_find(s, &g.key);
	if (r == 0 && *ret == GR_NONE) {
		if (g.b.n == 1)
			r = gr_schema_plain(s, is_integer ? INTEGER_REGEX : NUMBER_REGEX, ret);
		else
			r = gr_schema_finish_lex(s, &g.b, false, ret);
		if (r == 0 && !base_buf_error(&g.key))
			r = memo_add(s, &g.key, *ret);
	}
	gr_dfa_builder_done(&g.b);
	base_buf_done(&g.key);
	return r;
}
