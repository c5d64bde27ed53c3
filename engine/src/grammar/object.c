/* Objects: properties in any order, each once. A conf remembers which of the named ones were there (a set, interned),
 * how many there are, and while a name is read, where it is in the trie of names and in the automaton of patterns. A
 * name is decoded before it is compared, so that no spelling of it slips through as another one.
 *
 * A property is only begun when all that is still missing finds room below maxProperties. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/chars.h"
#include "grammar/grammar_internal.h"

enum { START, FIRST, NEXT, KEY, COLON, VALUE, AFTER };
#define OFF_TRIE UINT32_MAX

/* ---- Sets of seen properties ---- */

bool gr_seen_has(const struct eng_grammar *g, uint32_t seen, uint32_t prop)
{
	return seen != 0 && (g->seen[seen - 1]->words[prop / 64] >> (prop % 64) & 1);
}

static uint32_t bucket_of(const uint64_t *words, uint32_t n)
{
	uint64_t h = 0x9e3779b97f4a7c15u;

	for (uint32_t i = 0; i < n; i++)
		h = (h ^ words[i]) * 0xff51afd7ed558ccdu;
	return (uint32_t)(h >> 40) % 1024;
}

static int grow_seen(struct eng_grammar *g)
{
	uint32_t cap = g->cap_seen ? g->cap_seen * 2 : 64;
	struct seen_set **seen;

	if (g->n_seen < g->cap_seen)
		return 0;
	if (g->n_seen >= GR_MAX_SETS)
		return -E2BIG;
	seen = realloc(g->seen, cap * sizeof(struct seen_set *));
	if (!seen)
		return -ENOMEM;
	g->seen = seen;
	g->cap_seen = cap;
	return 0;
}

uint32_t gr_seen_with(struct eng_grammar *g, const struct object *o, uint32_t seen, uint32_t prop)
{
	struct seen_set *s = calloc(1, sizeof(*s) + o->n_words * sizeof(uint64_t));
	uint32_t bucket;

	if (!s)
		return GR_NONE;
	s->n_words = o->n_words;
	if (seen)
		memcpy(s->words, g->seen[seen - 1]->words, o->n_words * sizeof(uint64_t));
	s->words[prop / 64] |= 1ull << (prop % 64);
	bucket = bucket_of(s->words, s->n_words);
	for (uint32_t i = g->seen_buckets[bucket]; i; i = g->seen[i - 1]->next) {
		if (g->seen[i - 1]->n_words == s->n_words &&
		    memcmp(g->seen[i - 1]->words, s->words, s->n_words * sizeof(uint64_t)) == 0) {
			free(s);
			return i;
		}
	}
	if (grow_seen(g) < 0) {
		free(s);
		return GR_NONE;
	}
	s->next = g->seen_buckets[bucket];
	g->seen[g->n_seen++] = s;
	g->seen_buckets[bucket] = g->n_seen;
	return g->n_seen;
}

/* ---- What still fits ---- */

static uint32_t n_missing(const struct eng_grammar *g, const struct object *o, uint32_t seen)
{
	uint32_t n = 0;

	for (uint32_t i = 0; i < o->n_words; i++)
		n += (uint32_t)__builtin_popcountll(o->required[i] & ~(seen ? g->seen[seen - 1]->words[i] : 0));
	return n;
}

static bool has_room(const struct eng_grammar *g, const struct object *o, const struct conf *c, bool for_required)
{
	if (o->max == UINT32_MAX)
		return true;
	return c->c + 1 + n_missing(g, o, c->b) - (for_required ? 1 : 0) <= o->max;
}

static bool fits(const struct eng_grammar *g, const struct object *o, const struct conf *c, uint32_t prop)
{
	const struct prop *p = &o->props[prop];

	return p->value != GR_NONE && !gr_seen_has(g, c->b, prop) && has_room(g, o, c, p->is_required);
}

static bool any_fits(const struct eng_grammar *g, const struct object *o, const struct conf *c, uint32_t lo,
                     uint32_t hi)
{
	for (uint32_t i = lo; i < hi; i++) {
		if (fits(g, o, c, i))
			return true;
	}
	return false;
}

/* Names that no property has. */
static bool others_fit(const struct eng_grammar *g, const struct object *o, const struct conf *c)
{
	return (o->patterns ? gr_dfa_start(o->patterns) != DFA_DEAD : o->other[0] != GR_NONE) &&
	       has_room(g, o, c, false);
}

static bool can_grow(const struct eng_grammar *g, const struct object *o, const struct conf *c)
{
	return others_fit(g, o, c) || any_fits(g, o, c, 0, o->n_props);
}

static bool has_all(const struct eng_grammar *g, uint32_t seen, const uint32_t *props, uint32_t n)
{
	for (uint32_t i = 0; i < n; i++) {
		if (!gr_seen_has(g, seen, props[i]))
			return false;
	}
	return true;
}

static bool can_close(const struct eng_grammar *g, const struct object *o, const struct conf *c)
{
	if (c->c < o->min || n_missing(g, o, c->b) > 0)
		return false;
	for (uint32_t i = 0; i < o->n_dependencies; i++) {
		const struct dependency *d = &o->dependencies[i];

		if (gr_seen_has(g, c->b, d->given) && !has_all(g, c->b, d->needed, d->n_needed))
			return false;
	}
	return true;
}

/* ---- Names ---- */

static uint32_t child(const struct object *o, uint32_t at, uint32_t cp)
{
	const struct name_node *n = &o->names[at];
	uint32_t lo = n->first, hi = n->first + n->n;

	while (lo < hi) {
		uint32_t mid = (lo + hi) / 2;

		if (o->names[mid].cp < cp)
			lo = mid + 1;
		else
			hi = mid;
	}
	return lo < n->first + n->n && o->names[lo].cp == cp ? lo : OFF_TRIE;
}

/* Whether the name, with one more character of lo..hi, can become that of a property. */
static bool trie_leads_on(const struct eng_grammar *g, const struct object *o, const struct conf *c, uint32_t lo,
                          uint32_t hi)
{
	const struct name_node *n;

	if (c->e == OFF_TRIE)
		return false;
	n = &o->names[c->e];
	for (uint32_t i = n->first; i < n->first + n->n; i++) {
		if (o->names[i].cp >= lo && o->names[i].cp <= hi && any_fits(g, o, c, o->names[i].lo, o->names[i].hi))
			return true;
	}
	return false;
}

static bool name_leads_on(const struct eng_grammar *g, const struct object *o, const struct conf *c,
                          const struct decode_out *out)
{
	bool others = others_fit(g, o, c);

	if (others && !o->patterns)
		return true;
	for (unsigned i = 0; i < out->n_ranges; i++) {
		uint32_t lo = out->ranges[i].lo, hi = out->ranges[i].hi;

		if (trie_leads_on(g, o, c, lo, hi) || (others && gr_dfa_meets(o->patterns, c->f, lo, hi, UINT32_MAX)))
			return true;
	}
	return false;
}

static uint32_t counted(const struct object *o, uint32_t count)
{
	return count < (o->max != UINT32_MAX ? o->max : o->min) ? count + 1 : count;
}

/* The name is none of the properties' and what patterns say of it is decided: the rest of it is a free string, with the
 * object below it waiting for the colon. So all such names share the masks of free strings. */
static bool free_name(struct machine *m, const struct object *o, const struct conf *c, struct conf *ret)
{
	struct conf below = { .stack = c->stack,
		              .node = c->node,
		              .a = COLON,
		              .b = c->b,
		              .c = counted(o, c->c),
		              .e = o->other[o->patterns ? gr_dfa_matches(o->patterns, c->f) : 0] };
	uint32_t stack;

	if (!others_fit(m->g, o, c) || below.e == GR_NONE)
		return false;
	stack = gr_machine_push(m, &below);
	*ret = (struct conf){ .stack = stack, .node = m->g->free_string };
	return stack != GR_NONE;
}

static bool is_decided(const struct object *o, const struct conf *c)
{
	return !o->patterns || gr_dfa_is_settled(o->patterns, c->f);
}

bool gr_object_is_in_name(const struct machine *m, const struct conf *c)
{
	return c->node != GR_NONE && m->g->nodes[c->node].kind == NODE_OBJECT && c->a == KEY && c->e != OFF_TRIE;
}

bool gr_object_free_name(struct machine *m, const struct conf *c, struct conf *ret)
{
	const struct object *o;

	if (!gr_object_is_in_name(m, c) || c->d != DECODE_NONE)
		return false;
	o = &m->g->nodes[c->node].object;
	return is_decided(o, c) && free_name(m, o, c, ret);
}

/* Names that patterns look at, where no property's name is left. */
bool gr_object_takes(struct machine *m, const struct conf *c, uint16_t kinds, uint32_t n)
{
	const struct object *o = &m->g->nodes[c->node].object;

	if (c->a != KEY || c->e != OFF_TRIE || c->d != DECODE_NONE || !o->patterns || (kinds & CHAR_SPECIAL))
		return false;
	return others_fit(m->g, o, c) && gr_dfa_takes(o->patterns, c->f, kinds, n);
}

static void name_char(struct machine *m, const struct object *o, struct conf *c, uint32_t cp)
{
	struct conf rest;

	if (o->patterns)
		c->f = gr_dfa_next(o->patterns, c->f, cp);
	c->e = c->e != OFF_TRIE ? child(o, c->e, cp) : OFF_TRIE;
	if (c->e == OFF_TRIE && is_decided(o, c)) {
		if (free_name(m, o, c, &rest))
			gr_machine_emit(m, &rest);
		return;
	}
	if ((c->e != OFF_TRIE && any_fits(m->g, o, c, o->names[c->e].lo, o->names[c->e].hi)) ||
	    (others_fit(m->g, o, c) && (!o->patterns || c->f != DFA_DEAD)))
		gr_machine_emit(m, c);
}

static void name_end(struct machine *m, const struct object *o, struct conf *c)
{
	bool is_prop = c->e != OFF_TRIE && o->names[c->e].is_name;
	uint32_t value, prop = is_prop ? o->names[c->e].lo : 0;

	if (is_prop) {
		if (!fits(m->g, o, c, prop))
			return;
		value = o->props[prop].value;
		c->b = gr_seen_with(m->g, o, c->b, prop);
		if (c->b == GR_NONE) {
			m->error = m->error ? m->error : -E2BIG;
			return;
		}
	} else {
		if (!others_fit(m->g, o, c) || (o->patterns && !gr_dfa_accepts(o->patterns, c->f)))
			return;
		value = o->other[o->patterns ? gr_dfa_matches(o->patterns, c->f) : 0];
	}
	c->a = COLON;
	c->c = counted(o, c->c);
	c->d = c->f = 0;
	c->e = value;
	if (value != GR_NONE)
		gr_machine_emit(m, c);
}

static void name_step(struct machine *m, const struct object *o, struct conf *c, uint8_t byte)
{
	struct decode_out out;

	switch (gr_decode_step(&c->d, byte, true, &out)) {
	case DECODE_MORE:
		if (name_leads_on(m->g, o, c, &out))
			gr_machine_emit(m, c);
		break;
	case DECODE_CHAR:
		name_char(m, o, c, out.cp);
		break;
	case DECODE_QUOTE:
		name_end(m, o, c);
		break;
	case DECODE_DEAD:
		break;
	}
	if (o->patterns && gr_dfa_error(o->patterns))
		m->error = m->error ? m->error : gr_dfa_error(o->patterns);
}

/* ---- Structure ---- */

static void value_step(struct machine *m, const struct conf *c, uint8_t byte)
{
	struct conf after = *c;
	uint32_t stack;

	after.a = AFTER;
	after.e = 0;
	stack = gr_machine_push(m, &after);
	if (stack != GR_NONE)
		gr_machine_value(m, c->e, stack, byte);
}

static void begin_name(struct machine *m, const struct object *o, const struct conf *c)
{
	struct conf next = *c;

	next.a = KEY;
	next.f = o->patterns ? gr_dfa_start(o->patterns) : 0;
	if (can_grow(m->g, o, c))
		gr_machine_emit(m, &next);
}

void gr_object_step(struct machine *m, const struct conf *c, uint8_t byte)
{
	const struct object *o = &m->g->nodes[c->node].object;
	uint32_t phase = c->a & 0xff;
	struct conf next = *c;
	bool line_may_end = phase == FIRST || phase == NEXT || (phase == AFTER && can_close(m->g, o, c));
	int gap =
	        phase == KEY || phase == START ? 0 : gr_machine_gap(&next.a, byte, line_may_end ? GAP_LINE : GAP_BLANK);

	if (phase == KEY) {
		name_step(m, o, &next, byte);
	} else if (gap != 0) {
		if (gap > 0)
			gr_machine_emit(m, &next);
	} else if (phase == START && byte == '{') {
		next.a = FIRST;
		if (can_close(m->g, o, c) || can_grow(m->g, o, c))
			gr_machine_emit(m, &next);
	} else if ((phase == FIRST || phase == NEXT) && byte == '"') {
		next.a = 0;
		begin_name(m, o, &next);
	} else if ((phase == FIRST || phase == AFTER) && byte == '}') {
		if (can_close(m->g, o, c))
			gr_machine_leave(m, c->stack);
	} else if (phase == AFTER && byte == ',') {
		next.a = NEXT;
		if (can_grow(m->g, o, c) && !gr_machine_gap_has_line(c->a))
			gr_machine_emit(m, &next);
	} else if (phase == COLON && byte == ':') {
		next.a = VALUE;
		gr_machine_emit(m, &next);
	} else if (phase == VALUE) {
		value_step(m, c, byte);
	}
}

/* ---- Building ---- */

static int compare_props(const void *a, const void *b)
{
	const struct prop *x = a, *y = b;
	uint32_t n = x->len < y->len ? x->len : y->len;
	int c = memcmp(x->name, y->name, n); /* the order of UTF-8 bytes is that of code points */

	return c != 0 ? c : x->len < y->len ? -1 : x->len > y->len;
}

struct name_cursor {
	uint32_t node, pos; /* bytes of the name that lead to node */
};

/* Breadth first, so that the children of a node lie together. */
static int build_names(struct object *o, struct name_cursor *queue, size_t max)
{
	uint32_t n = 1;

	queue[0] = (struct name_cursor){ 0, 0 };
	o->names[0] = (struct name_node){ .hi = o->n_props };
	for (uint32_t i = 0; i < n; i++) {
		struct name_node *at = &o->names[queue[i].node];
		uint32_t pos = queue[i].pos, p = at->lo;

		if (p < at->hi && o->props[p].len == pos) {
			at->is_name = true;
			p++;
		}
		at->first = n;
		while (p < at->hi) {
			const struct prop *prop = &o->props[p];
			uint32_t cp = 0, begin = p;
			size_t step = base_utf8_get(prop->name + pos, prop->len - pos, &cp);

			if (step == 0 || n >= max)
				return -EINVAL;
			while (p < at->hi && o->props[p].len - pos >= step &&
			       memcmp(o->props[p].name + pos, prop->name + pos, step) == 0)
				p++;
			o->names[n] = (struct name_node){ .cp = cp, .lo = begin, .hi = p };
			queue[n] = (struct name_cursor){ n, pos + (uint32_t)step };
			n++;
			at->n++;
		}
	}
	o->n_names = n;
	return 0;
}

int gr_object_finish(struct object *o)
{
	struct name_cursor *queue;
	size_t max = 1;
	int r;

	if (o->n_props > 0)
		qsort(o->props, o->n_props, sizeof(*o->props), compare_props);
	for (uint32_t i = 0; i < o->n_props; i++)
		max += o->props[i].len;
	o->n_words = (o->n_props + 63) / 64;
	o->names = calloc(max, sizeof(*o->names));
	o->required = calloc(o->n_words + 1, sizeof(*o->required));
	queue = calloc(max, sizeof(*queue));
	r = o->names && o->required && queue ? build_names(o, queue, max) : -ENOMEM;
	for (uint32_t i = 0; i < o->n_props && r == 0; i++) {
		if (o->props[i].is_required)
			o->required[i / 64] |= 1ull << (i % 64);
	}
	free(queue);
	return r;
}
