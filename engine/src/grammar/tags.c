/* Structural tags: free text, and where it says a trigger, what a tag begins with, a value of the tag's schema and what
 * the tag ends with; then text again. As SGLang, vLLM and xgrammar take them:
 *
 *   {"structures": [{"begin", "schema", "end"}], "triggers": [".."]}
 *   {"format": {"type": "triggered_tags", "triggers": [".."], "at_least_one", "stop_after_first",
 *               "tags": [{"begin", "content": {"type": "json_schema", "json_schema"}, "end"}]}}
 *
 * The text is an automaton that knows how much of a trigger was just said (Aho and Corasick, 1975), as states of the
 * rule automaton; the schemas are nodes that its rule calls. Other formats are refused by name. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/buf.h"
#include "base/cleanup.h"
#include "base/json.h"
#include "grammar/grammar_internal.h"

enum { MAX_TAGS = 512, MAX_TRIGGER_CHARS = 1024, MAX_SCHEMA_TEXT = 1 << 20 };

struct tag {
	const char *begin, *end; /* borrowed */
	size_t begin_len, end_len;
	const json_t *schema;
	uint32_t trigger; /* index */
};

/* How much of a trigger was said. */
struct said {
	uint32_t parent, cp;
	uint32_t fail;    /* the longest other beginning that was said as well */
	uint32_t trigger; /* that is whole here, GR_NONE: none */
	uint32_t depth;
	uint32_t state; /* of the rule automaton */
};

struct tags {
	struct eng_grammar *g;
	struct err *err;
	struct tag tags[MAX_TAGS];
	uint32_t n;
	const json_t *triggers;
	bool at_least_one, stop_after_first;
	struct said said[MAX_TRIGGER_CHARS + 1]; /* [0]: nothing; parents come first */
	uint32_t n_said;
	uint32_t accept;
};

/* ---- Reading ---- */

static int refuse(struct tags *t, const char *what)
{
	return err_set(t->err, -EINVAL, "structural tag: %s", what);
}

static int read_tag(struct tags *t, const json_t *v, const json_t *schema)
{
	const json_t *begin = json_object_get(v, "begin"), *end = json_object_get(v, "end");
	struct tag *tag = &t->tags[t->n];

	if (t->n == MAX_TAGS)
		return err_set(t->err, -E2BIG, "structural tag: at most %d tags are taken", MAX_TAGS);
	/* Several ends to choose from are not offered. */
	if (json_is_array(end) && json_array_size(end) == 1)
		end = json_array_get(end, 0);
	if (json_string_length(begin) == 0 || !json_is_string(end))
		return refuse(t, "a tag needs strings as `begin` and `end`");
	if (!schema)
		return refuse(t, "a tag without a schema");
	*tag = (struct tag){ json_string_value(begin),
		             json_string_value(end),
		             json_string_length(begin),
		             json_string_length(end),
		             schema,
		             GR_NONE };
	t->n++;
	return 0;
}

static int read_structures(struct tags *t, const json_t *root)
{
	const json_t *list = json_object_get(root, "structures"), *v;
	size_t i;
	int r = 0;

	t->triggers = json_object_get(root, "triggers");
	json_array_foreach((json_t *)list, i, v)
	{
		r = r < 0 ? r : read_tag(t, v, json_object_get(v, "schema"));
	}
	return r;
}

static bool is(const json_t *obj, const char *key, const char *value)
{
	const char *text = json_string_value(json_object_get(obj, key));

	return text && strcmp(text, value) == 0;
}

static int read_format(struct tags *t, const json_t *format)
{
	const json_t *list = json_object_get(format, "tags"), *v;
	size_t i;
	int r = 0;

	if (!is(format, "type", "triggered_tags"))
		return refuse(t, "of `format` only the type \"triggered_tags\" is supported");
	t->triggers = json_object_get(format, "triggers");
	t->at_least_one = json_is_true(json_object_get(format, "at_least_one"));
	t->stop_after_first = json_is_true(json_object_get(format, "stop_after_first"));
	json_array_foreach((json_t *)list, i, v)
	{
		const json_t *content = json_object_get(v, "content");

		if (r == 0 && !is(content, "type", "json_schema"))
			r = refuse(t, "of `content` only the type \"json_schema\" is supported");
		r = r < 0 ? r : read_tag(t, v, json_object_get(content, "json_schema"));
	}
	return r;
}

/* ---- What was said ---- */

/* One code point of valid UTF-8, as jansson has checked it. */
static size_t decode(const char *text, uint32_t *ret)
{
	const unsigned char *p = (const unsigned char *)text;
	size_t n = p[0] < 0x80 ? 1 : p[0] < 0xe0 ? 2 : p[0] < 0xf0 ? 3 : 4;
	uint32_t cp = n == 1 ? p[0] : p[0] & (0x7fu >> n);

	for (size_t i = 1; i < n; i++)
		cp = cp << 6 | (p[i] & 0x3f);
	*ret = cp;
	return n;
}

static uint32_t child_of(const struct tags *t, uint32_t parent, uint32_t cp)
{
	for (uint32_t i = 1; i < t->n_said; i++) {
		if (t->said[i].parent == parent && t->said[i].cp == cp)
			return i;
	}
	return GR_NONE;
}

static int add_trigger(struct tags *t, uint32_t trigger, const char *text, size_t len)
{
	uint32_t at = 0, cp, next;

	for (size_t i = 0; i < len; at = next) {
		i += decode(text + i, &cp);
		next = child_of(t, at, cp);
		if (next != GR_NONE)
			continue;
		if (t->n_said > MAX_TRIGGER_CHARS)
			return err_set(t->err, -E2BIG, "structural tag: triggers of more than %d characters",
			               MAX_TRIGGER_CHARS);
		next = t->n_said++;
		t->said[next] =
		        (struct said){ .parent = at, .cp = cp, .trigger = GR_NONE, .depth = t->said[at].depth + 1 };
	}
	if (t->said[at].trigger == GR_NONE)
		t->said[at].trigger = trigger;
	return 0;
}

static uint32_t follow(const struct tags *t, uint32_t at, uint32_t cp)
{
	uint32_t next = child_of(t, at, cp);

	while (next == GR_NONE && at != 0) {
		at = t->said[at].fail;
		next = child_of(t, at, cp);
	}
	return next == GR_NONE ? 0 : next;
}

static int compare_depth(const void *a, const void *b, void *arg)
{
	const struct said *said = arg;
	uint32_t x = said[*(const uint32_t *)a].depth, y = said[*(const uint32_t *)b].depth;

	return (x > y) - (x < y);
}

/* Shorter beginnings first: what they fall back to is known then. */
static void add_fails(struct tags *t)
{
	uint32_t order[MAX_TRIGGER_CHARS + 1];

	for (uint32_t i = 0; i < t->n_said; i++)
		order[i] = i;
	qsort_r(order, t->n_said, sizeof(*order), compare_depth, t->said);
	for (uint32_t i = 1; i < t->n_said; i++) {
		struct said *s = &t->said[order[i]];

		s->fail = s->parent == 0 ? 0 : follow(t, t->said[s->parent].fail, s->cp);
		if (s->trigger == GR_NONE)
			s->trigger = t->said[s->fail].trigger;
	}
}

static int read_triggers(struct tags *t)
{
	const json_t *v;
	size_t i;
	int r = 0;

	t->said[0] = (struct said){ .trigger = GR_NONE };
	t->n_said = 1;
	if (json_array_size(t->triggers) == 0)
		return refuse(t, "`triggers` is missing or empty");
	json_array_foreach((json_t *)t->triggers, i, v)
	{
		uint32_t n_tags = 0;

		if (json_string_length(v) == 0)
			return refuse(t, "a trigger is not a string, or empty");
		for (uint32_t k = 0; k < t->n; k++) {
			struct tag *tag = &t->tags[k];

			if (tag->trigger == GR_NONE && tag->begin_len >= json_string_length(v) &&
			    memcmp(tag->begin, json_string_value(v), json_string_length(v)) == 0)
				tag->trigger = (uint32_t)i;
			n_tags += tag->trigger == i;
		}
		if (n_tags == 0)
			return err_set(t->err, -EINVAL,
			               "structural tag: no tag is left that begins with the trigger \"%.64s\"",
			               json_string_value(v));
		r = add_trigger(t, (uint32_t)i, json_string_value(v), json_string_length(v));
		if (r < 0)
			return r;
	}
	for (uint32_t k = 0; k < t->n; k++) {
		if (t->tags[k].trigger == GR_NONE)
			return err_set(t->err, -EINVAL, "structural tag: \"%.64s\" begins with no trigger",
			               t->tags[k].begin);
	}
	add_fails(t);
	return 0;
}

/* ---- Building ---- */

static int add_char(struct nfa *a, uint32_t from, uint32_t cp, uint32_t to)
{
	struct charset set = { 0 };
	uint32_t index = 0;
	int r = gr_charset_add(&set, cp, cp);

	if (r == 0)
		r = gr_nfa_set(a, &set, &index);
	if (r == 0)
		r = gr_nfa_edge(a, from, NFA_SET, index, to);
	gr_charset_done(&set);
	return r;
}

/* A chain of states that spells the text; *at moves to its end. */
static int add_literal(struct nfa *a, uint32_t *at, const char *text, size_t len)
{
	int r = 0;

	for (size_t i = 0; i < len && r == 0;) {
		uint32_t cp, next = 0;

		i += decode(text + i, &cp);
		r = gr_nfa_state(a, &next);
		if (r == 0)
			r = add_char(a, *at, cp, next);
		*at = next;
	}
	return r;
}

/* From state `from`, where `skip` bytes of its beginning are said, through the tag. */
static int add_tag(struct tags *t, uint32_t k, uint32_t from, size_t skip)
{
	const struct tag *tag = &t->tags[k];
	struct nfa *a = &t->g->rules;
	uint32_t at = 0, back = 0;
	int r = gr_nfa_state(a, &at);

	if (r == 0)
		r = gr_nfa_edge(a, from, NFA_EPS, 0, at);
	if (r == 0)
		r = add_literal(a, &at, tag->begin + skip, tag->begin_len - skip);
	if (r == 0)
		r = gr_nfa_state(a, &back);
	if (r == 0)
		r = gr_nfa_edge(a, at, NFA_CALL, k + 1, back);
	if (r == 0)
		r = add_literal(a, &back, tag->end, tag->end_len);
	return r < 0 ? r : gr_nfa_edge(a, back, NFA_EPS, 0, t->stop_after_first ? t->accept : t->said[0].state);
}

/* The text goes on with a character that leads to a longer beginning, or with any other to nothing said. */
static int add_text(struct tags *t, uint32_t i)
{
	struct nfa *a = &t->g->rules;
	struct charset others = { 0 };
	uint32_t index = 0;
	int r = gr_nfa_edge(a, t->said[i].state, NFA_EPS, 0, t->accept);

	for (uint32_t k = 1; k < t->n_said && r == 0; k++) {
		uint32_t cp = t->said[k].cp;

		/* Each character once: where its first appearance is. */
		for (uint32_t j = 1; j < k && cp != GR_NONE; j++)
			cp = t->said[j].cp == cp ? GR_NONE : cp;
		if (cp == GR_NONE || follow(t, i, cp) == 0)
			continue;
		r = gr_charset_add(&others, cp, cp);
		if (r == 0)
			r = add_char(a, t->said[i].state, cp, t->said[follow(t, i, cp)].state);
	}
	gr_charset_finish(&others);
	if (r == 0)
		r = gr_charset_invert(&others);
	if (r == 0)
		r = gr_nfa_set(a, &others, &index);
	if (r == 0)
		r = gr_nfa_edge(a, t->said[i].state, NFA_SET, index, t->said[0].state);
	gr_charset_done(&others);
	return r;
}

static int add_rule(struct tags *t, uint32_t *ret_start)
{
	struct nfa *a = &t->g->rules;
	int r = gr_nfa_state(a, &t->accept);

	for (uint32_t i = 0; i < t->n_said && r == 0; i++)
		r = gr_nfa_state(a, &t->said[i].state);
	for (uint32_t i = 0; i < t->n_said && r == 0; i++) {
		const struct said *s = &t->said[i];

		if (s->trigger == GR_NONE)
			r = add_text(t, i);
		for (uint32_t k = 0; k < t->n && r == 0 && s->trigger != GR_NONE; k++) {
			const json_t *trigger = json_array_get(t->triggers, s->trigger);

			if (t->tags[k].trigger == s->trigger)
				r = add_tag(t, k, s->state, json_string_length(trigger));
		}
	}
	*ret_start = t->said[0].state;
	if (r == 0 && t->at_least_one)
		r = gr_nfa_state(a, ret_start);
	for (uint32_t k = 0; k < t->n && r == 0 && t->at_least_one; k++)
		r = add_tag(t, k, *ret_start, 0);
	return r < 0 ? err_set(t->err, r, "structural tag: too large") : 0;
}

static int add_schema(struct tags *t, uint32_t k)
{
	CLEANUP(base_buf_done) struct base_buf text = BASE_BUF_INIT(MAX_SCHEMA_TEXT);
	int r = base_json_append(&text, t->tags[k].schema);

	if (r < 0)
		return err_set(t->err, -E2BIG, "structural tag: the schema of \"%.64s\" is too large",
		               t->tags[k].begin);
	r = gr_schema_compile(t->g, base_buf_text(&text), text.len, t->err);
	if (r < 0)
		return err_prefix(t->err, r, "structural tag \"%.64s\": ", t->tags[k].begin);
	t->g->rule_nodes[k + 1] = t->g->root;
	return 0;
}

static int build(struct tags *t)
{
	struct eng_grammar *g = t->g;
	uint32_t start = 0;
	int r = 0;

	g->n_rules = t->n + 1;
	g->rule_nodes = calloc(g->n_rules, sizeof(*g->rule_nodes));
	if (!g->rule_nodes)
		return err_set(t->err, -ENOMEM, "out of memory");
	for (uint32_t k = 0; k < t->n && r == 0; k++)
		r = add_schema(t, k);
	if (r == 0)
		r = add_rule(t, &start);
	if (r == 0)
		r = gr_grammar_node(g, NODE_RULE, &g->rule_nodes[0]);
	if (r < 0)
		return r;
	g->root = g->rule_nodes[0];
	g->nodes[g->root].rule = (struct rule){ start, t->accept };
	g->closures = calloc(g->rules.n_states + 1u, sizeof(*g->closures));
	return g->closures ? 0 : err_set(t->err, -ENOMEM, "out of memory");
}

int gr_tags_compile(struct eng_grammar *g, const char *text, size_t len, struct err *err)
{
	CLEANUP(freep) struct tags *t = calloc(1, sizeof(*t));
	json_t *root = NULL;
	int r = t ? base_json_parse("structural tag", text, len, &root, err) : -ENOMEM;

	if (r < 0)
		return r == -EBADMSG ? -EINVAL : r;
	t->g = g;
	t->err = err;
	r = json_object_get(root, "format") ? read_format(t, json_object_get(root, "format"))
	                                    : read_structures(t, root);
	if (r == 0 && t->n == 0)
		r = refuse(t, "there are no tags");
	if (r == 0)
		r = read_triggers(t);
	if (r == 0)
		r = build(t);
	json_decref(root);
	return r;
}
