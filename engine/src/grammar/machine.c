/* The pushdown automaton, followed as a set of stacks.
 *
 * A conf is the innermost node with its state; what goes on when that node has ended are frames, hash-consed so that
 * equal stacks have equal numbers and a set has no twins. Every step reads one byte: each conf of the set moves by the
 * rules of its node, values that ended hand the word to the frame below, without reading. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "grammar/grammar_internal.h"

/* ---- Life ---- */

int gr_machine_init(struct machine *m, struct eng_grammar *g)
{
	memset(m, 0, sizeof(*m));
	m->g = g;
	m->n_frames = 1;
	m->cap_frames = 64;
	m->cap_arena = 64;
	m->frames = calloc(m->cap_frames, sizeof(*m->frames));
	m->arena = calloc(m->cap_arena, sizeof(*m->arena));
	m->visited = calloc(MACHINE_VISITED, sizeof(*m->visited));
	if (!m->frames || !m->arena || !m->visited) {
		gr_machine_done(m);
		return -ENOMEM;
	}
	return 0;
}

void gr_machine_done(struct machine *m)
{
	free(m->frames);
	free(m->arena);
	free(m->visited);
	memset(m, 0, sizeof(*m));
}

static void fail(struct machine *m, int error)
{
	if (m->error == 0)
		m->error = error;
}

/* ---- Sets ---- */

static bool same(const struct conf *x, const struct conf *y)
{
	return memcmp(x, y, sizeof(*x)) == 0;
}

void gr_machine_emit(struct machine *m, const struct conf *c)
{
	for (uint32_t i = m->out; i < m->n_arena; i++) {
		if (same(&m->arena[i], c))
			return;
	}
	if (m->n_arena - m->out >= GR_MAX_CONFS) {
		fail(m, -E2BIG);
		return;
	}
	if (m->n_arena == m->cap_arena) {
		uint32_t cap = m->cap_arena * 2;
		struct conf *arena = realloc(m->arena, cap * sizeof(*arena));

		if (!arena) {
			fail(m, -ENOMEM);
			return;
		}
		m->arena = arena;
		m->cap_arena = cap;
	}
	m->arena[m->n_arena++] = *c;
}

/* ---- Frames ---- */

static uint32_t bucket_of(const struct conf *c)
{
	const uint32_t *w = (const uint32_t *)c;
	uint64_t h = 0x9e3779b97f4a7c15u;

	for (size_t i = 0; i < sizeof(*c) / sizeof(*w); i++)
		h = (h ^ w[i]) * 0xff51afd7ed558ccdu;
	return (uint32_t)(h >> 40) % MACHINE_BUCKETS;
}

uint32_t gr_machine_push(struct machine *m, const struct conf *c)
{
	uint32_t bucket = bucket_of(c), depth = c->stack ? m->frames[c->stack].depth + 1 : 1;
	struct frame *f;

	for (uint32_t i = m->buckets[bucket]; i; i = m->frames[i].next) {
		if (same(&m->frames[i].conf, c))
			return i;
	}
	if (depth > GR_MAX_DEPTH)
		return GR_NONE;
	if (m->n_frames == m->cap_frames) {
		f = realloc(m->frames, 2 * (size_t)m->cap_frames * sizeof(*f));
		if (!f || m->cap_frames > 1 << 24) {
			if (f)
				m->frames = f;
			fail(m, -ENOMEM);
			return GR_NONE;
		}
		m->frames = f;
		m->cap_frames *= 2;
	}
	m->frames[m->n_frames] = (struct frame){ .conf = *c, .next = m->buckets[bucket], .depth = depth };
	m->buckets[bucket] = m->n_frames;
	return m->n_frames++;
}

void gr_machine_cut_frames(struct machine *m, uint32_t n_frames)
{
	/* The last made is the first of its bucket. */
	while (m->n_frames > n_frames) {
		struct frame *f = &m->frames[--m->n_frames];

		m->buckets[bucket_of(&f->conf)] = f->next;
	}
}

int gr_machine_collect(struct machine *m, struct conf *confs, uint32_t n)
{
	uint32_t *to = calloc(m->n_frames, sizeof(*to)), kept = 1;

	if (!to)
		return -ENOMEM;
	for (uint32_t i = 0; i < n; i++) {
		for (uint32_t s = confs[i].stack; s && !to[s]; s = m->frames[s].conf.stack)
			to[s] = 1;
	}
	memset(m->buckets, 0, sizeof(m->buckets));
	/* A frame is younger than the one below it, so that one has its new number already. */
	for (uint32_t i = 1; i < m->n_frames; i++) {
		struct frame f = m->frames[i];
		uint32_t bucket;

		if (!to[i])
			continue;
		f.conf.stack = to[f.conf.stack];
		bucket = bucket_of(&f.conf);
		f.next = m->buckets[bucket];
		m->frames[kept] = f;
		m->buckets[bucket] = kept;
		to[i] = kept++;
	}
	m->n_frames = kept;
	for (uint32_t i = 0; i < n; i++)
		confs[i].stack = to[confs[i].stack];
	free(to);
	return 0;
}

/* ---- Terminals ---- */

static void emit_lex(struct machine *m, uint32_t node, uint32_t stack, const struct lex_state *s, unsigned flags)
{
	if (flags & LEX_GOES_ON)
		gr_machine_emit(
		        m, &(struct conf){ .stack = stack, .node = node, .c = s->count, .d = s->partial, .e = s->q });
	if (flags & LEX_ENDS)
		gr_machine_leave(m, stack);
}

static void check_lex(struct machine *m, const struct lex *lex)
{
	if (lex->dfa && gr_dfa_error(lex->dfa))
		fail(m, gr_dfa_error(lex->dfa));
}

static void lex_node_step(struct machine *m, const struct conf *c, uint8_t byte)
{
	struct lex *lex = &m->g->nodes[c->node].lex;
	struct lex_state s = { .partial = c->d, .q = c->e, .count = c->c };

	emit_lex(m, c->node, c->stack, &s, gr_lex_step(lex, &s, byte));
	check_lex(m, lex);
}

/* A terminal that a rule calls, before its first byte. */
static void enter_lex(struct machine *m, uint32_t node, uint32_t stack)
{
	struct lex *lex = &m->g->nodes[node].lex;
	struct lex_state s;

	gr_lex_begin(lex, &s);
	emit_lex(m, node, stack, &s, gr_lex_at_begin(lex));
	check_lex(m, lex);
}

/* ---- Values ---- */

void gr_machine_value(struct machine *m, uint32_t value, uint32_t stack, uint8_t byte)
{
	const struct node *v = &m->g->nodes[value];

	for (uint32_t i = 0; i < v->value.n; i++) {
		uint32_t id = v->value.alternatives[i];
		struct lex_state s;
		struct conf c = { .stack = stack, .node = id };

		switch (m->g->nodes[id].kind) {
		case NODE_LEX:
			gr_lex_begin(&m->g->nodes[id].lex, &s);
			c.d = s.partial;
			c.e = s.q;
			lex_node_step(m, &c, byte);
			break;
		case NODE_OBJECT:
			if (byte == '{')
				gr_object_step(m, &c, byte);
			break;
		case NODE_ARRAY:
			if (byte == '[') {
				c.a = 1; /* ARRAY_FIRST */
				gr_machine_emit(m, &c);
			}
			break;
		case NODE_VALUE: /* a listed object or array, as a schema of its own */
			gr_machine_value(m, id, stack, byte);
			break;
		default:
			break;
		}
	}
}

/* ---- Arrays: a is the phase and, above it, the white space in a row; c counts the items ---- */

enum { ARRAY_FIRST = 1, ARRAY_NEXT, ARRAY_AFTER };

/* White space between tokens of JSON, as people and programs write it, and no more, for there are models that would say
 * nothing else: a blank, or a line end and an indentation. Lines end behind brackets and commas and in front of closing
 * brackets. In `a`, above the phase: blanks in a row, line ends, whether a line end is half done. */
enum { ONE_BLANK = 1 << 8, BLANKS = 0xff00, ONE_LINE = 1 << 16, HALF_LINE = 1 << 17 };

bool gr_machine_gap_has_line(uint32_t a)
{
	return a & (ONE_LINE | HALF_LINE);
}

int gr_machine_gap(uint32_t *a, uint8_t byte, enum gap_kind kind)
{
	uint32_t most = 1;

	if ((*a & HALF_LINE) && byte != '\n')
		return -1;
	if (byte == '\n' || byte == '\r') {
		if (kind == GAP_BLANK || (*a & ONE_LINE))
			return -1;
		*a = byte == '\r' ? *a | HALF_LINE : (*a & ~(uint32_t)(HALF_LINE | BLANKS)) | ONE_LINE;
		return 1;
	}
	if (byte != ' ' && byte != '\t')
		return 0;
	if (*a & ONE_LINE)
		most = kind == GAP_LINE ? GR_MAX_INDENT : 0;
	if ((*a & BLANKS) / ONE_BLANK == most)
		return -1;
	*a += ONE_BLANK;
	return 1;
}

static uint32_t item_at(const struct array *a, uint32_t count)
{
	if (count >= a->max)
		return GR_NONE;
	return count < a->n_prefix ? a->prefix[count] : a->items;
}

static void array_item(struct machine *m, const struct conf *c, uint8_t byte)
{
	const struct array *a = &m->g->nodes[c->node].array;
	uint32_t most = a->max != UINT32_MAX ? a->max : a->min > a->n_prefix ? a->min : a->n_prefix;
	uint32_t item = item_at(a, c->c), stack;
	struct conf after = *c;

	if (item == GR_NONE)
		return;
	after.a = ARRAY_AFTER;
	after.c = c->c < most ? c->c + 1 : c->c;
	stack = gr_machine_push(m, &after);
	if (stack != GR_NONE)
		gr_machine_value(m, item, stack, byte);
}

static void array_step(struct machine *m, const struct conf *c, uint8_t byte)
{
	const struct array *a = &m->g->nodes[c->node].array;
	uint32_t phase = c->a & 0xff;
	struct conf next = *c;
	bool may_close = phase != ARRAY_NEXT && c->c >= a->min;
	int gap = gr_machine_gap(&next.a, byte, phase != ARRAY_AFTER || may_close ? GAP_LINE : GAP_BLANK);

	if (gap != 0) {
		if (gap > 0)
			gr_machine_emit(m, &next);
	} else if (byte == ']' && phase != ARRAY_NEXT) {
		if (may_close)
			gr_machine_leave(m, c->stack);
	} else if (phase != ARRAY_AFTER) {
		array_item(m, c, byte);
	} else if (byte == ',' && item_at(a, c->c) != GR_NONE && !gr_machine_gap_has_line(c->a)) {
		next.a = ARRAY_NEXT;
		gr_machine_emit(m, &next);
	}
}

/* ---- Rules ---- */

static int append(uint32_t **list, uint32_t *n, uint32_t value)
{
	uint32_t *p = realloc(*list, ((size_t)*n + 1) * sizeof(*p));

	if (!p)
		return -ENOMEM;
	p[(*n)++] = value;
	*list = p;
	return 0;
}

static int close_state(struct eng_grammar *g, uint32_t state, struct rule_closure *c)
{
	uint8_t *seen = calloc(g->rules.n_states, 1);
	uint32_t *stack = calloc(g->rules.n_states, sizeof(*stack)), n = 0;
	int r = seen && stack ? 0 : -ENOMEM;

	if (r == 0) {
		stack[n++] = state;
		seen[state] = 1;
	}
	while (n > 0 && r == 0) {
		uint32_t s = stack[--n];

		c->accepts |= g->rules.heads[s] == NFA_NONE; /* only a rule's last state has no edges */
		for (uint32_t e = g->rules.heads[s]; e != NFA_NONE && r == 0; e = g->rules.edges[e].next) {
			const struct nfa_edge *edge = &g->rules.edges[e];
			uint32_t n_to;

			if (edge->kind == NFA_SET) {
				n_to = c->n_sets;
				r = append(&c->sets, &c->n_sets, edge->arg);
				if (r == 0)
					r = append(&c->set_to, &n_to, edge->to);
			} else if (edge->kind == NFA_CALL) {
				n_to = c->n_calls;
				r = append(&c->calls, &c->n_calls, edge->arg);
				if (r == 0)
					r = append(&c->call_to, &n_to, edge->to);
			} else if (!seen[edge->to]) {
				seen[edge->to] = 1;
				stack[n++] = edge->to;
			}
		}
	}
	free(seen);
	free(stack);
	c->is_known = r == 0;
	return r;
}

static const struct rule_closure *closure_of(struct machine *m, uint32_t state)
{
	struct rule_closure *c = &m->g->closures[state];
	int r = c->is_known ? 0 : close_state(m->g, state, c);

	if (r < 0) {
		fail(m, r);
		return NULL;
	}
	return c;
}

/* False when this step was here before. */
static bool visit(struct machine *m, uint32_t stack, uint32_t node, uint32_t state)
{
	uint32_t h = (stack * 0x9e3779b1u ^ state * 0x85ebca6bu ^ node) >> 7 & (MACHINE_VISITED - 1);

	while (m->visited[h].stamp == m->stamp) {
		if (m->visited[h].stack == stack && m->visited[h].node == node && m->visited[h].state == state)
			return false;
		h = (h + 1) & (MACHINE_VISITED - 1);
	}
	if (++m->n_visited > MACHINE_VISITED / 2) {
		fail(m, -E2BIG);
		return false;
	}
	m->visited[h].stamp = m->stamp;
	m->visited[h].stack = stack;
	m->visited[h].node = node;
	m->visited[h].state = state;
	return true;
}

static void enter_rule(struct machine *m, uint32_t node, uint32_t state, uint32_t stack)
{
	const struct rule_closure *c;

	if (m->error || !visit(m, stack, node, state))
		return;
	c = closure_of(m, state);
	if (!c)
		return;
	if (c->n_sets > 0)
		gr_machine_emit(m, &(struct conf){ .stack = stack, .node = node, .a = state });
	for (uint32_t i = 0; i < c->n_calls && !m->error; i++) {
		uint32_t callee = m->g->rule_nodes[c->calls[i]], back = stack;
		const struct rule_closure *rest = closure_of(m, c->call_to[i]);

		/* Nothing left to do here afterwards: no frame, so that right recursion runs without depth. */
		if (!rest || rest->n_sets || rest->n_calls)
			back = gr_machine_push(m, &(struct conf){ .stack = stack, .node = node, .a = c->call_to[i] });
		if (back == GR_NONE)
			continue;
		if (m->g->nodes[callee].kind == NODE_LEX)
			enter_lex(m, callee, back);
		else if (m->g->nodes[callee].kind == NODE_DOCUMENT)
			gr_machine_emit(m, &(struct conf){ .stack = back, .node = callee });
		else
			enter_rule(m, callee, m->g->nodes[callee].rule.start, back);
	}
	if (c->accepts)
		gr_machine_leave(m, stack);
}

static bool rule_meets(const struct eng_grammar *g, const struct rule_closure *c, const struct decode_out *out)
{
	for (uint32_t i = 0; i < c->n_sets; i++) {
		for (unsigned k = 0; k < out->n_ranges; k++) {
			if (gr_charset_meets(&g->rules.sets[c->sets[i]], out->ranges[k].lo, out->ranges[k].hi))
				return true;
		}
	}
	return false;
}

static void rule_step(struct machine *m, const struct conf *c, uint8_t byte)
{
	const struct rule_closure *cl = closure_of(m, c->a);
	struct decode_out out;
	struct conf next = *c;
	enum decode_result r;

	if (!cl)
		return;
	r = gr_decode_step(&next.d, byte, false, &out);
	if (r == DECODE_MORE && rule_meets(m->g, cl, &out))
		gr_machine_emit(m, &next);
	for (uint32_t i = 0; i < cl->n_sets && r == DECODE_CHAR; i++) {
		if (gr_charset_has(&m->g->rules.sets[cl->sets[i]], out.cp))
			enter_rule(m, c->node, cl->set_to[i], c->stack);
	}
}

/* ---- The whole ---- */

void gr_machine_leave(struct machine *m, uint32_t stack)
{
	struct conf c = { .node = GR_NONE };

	if (stack != 0)
		c = m->frames[stack].conf;
	if (c.node != GR_NONE && m->g->nodes[c.node].kind == NODE_RULE)
		enter_rule(m, c.node, c.a, c.stack);
	else
		gr_machine_emit(m, &c);
}

static void document_step(struct machine *m, const struct conf *c, uint8_t byte)
{
	struct conf next = *c;
	int gap = gr_machine_gap(&next.a, byte, GAP_LEAD);

	if (gap > 0)
		gr_machine_emit(m, &next);
	else if (gap == 0)
		gr_machine_value(m, m->g->nodes[c->node].document, c->stack, byte);
}

static void begin_set(struct machine *m)
{
	m->out = m->n_arena;
	m->n_visited = 0;
	if (++m->stamp == 0) {
		memset(m->visited, 0, MACHINE_VISITED * sizeof(*m->visited));
		m->stamp = 1;
	}
}

static uint32_t set_size(const struct machine *m)
{
	return m->error ? 0 : m->n_arena - m->out;
}

uint32_t gr_machine_start(struct machine *m)
{
	const struct node *root = &m->g->nodes[m->g->root];

	begin_set(m);
	if (root->kind == NODE_LEX)
		enter_lex(m, m->g->root, 0);
	else if (root->kind == NODE_RULE)
		enter_rule(m, m->g->root, root->rule.start, 0);
	else
		gr_machine_emit(m, &(struct conf){ .node = m->g->root });
	return set_size(m);
}

uint32_t gr_machine_pop(struct machine *m, uint32_t stack)
{
	begin_set(m);
	gr_machine_leave(m, stack);
	return set_size(m);
}

uint32_t gr_machine_step(struct machine *m, uint32_t begin, uint32_t n, uint8_t byte)
{
	begin_set(m);
	m->n_steps += n;
	if (m->n_steps > GR_MAX_STEPS)
		fail(m, -E2BIG);
	for (uint32_t i = 0; i < n && !m->error; i++) {
		const struct conf c = m->arena[begin + i];

		if (c.node == GR_NONE)
			continue;
		switch (m->g->nodes[c.node].kind) {
		case NODE_LEX:
			lex_node_step(m, &c, byte);
			break;
		case NODE_OBJECT:
			gr_object_step(m, &c, byte);
			break;
		case NODE_ARRAY:
			array_step(m, &c, byte);
			break;
		case NODE_RULE:
			rule_step(m, &c, byte);
			break;
		case NODE_DOCUMENT:
			document_step(m, &c, byte);
			break;
		case NODE_VALUE:
			break;
		}
	}
	return set_size(m);
}

bool gr_machine_takes(struct machine *m, const struct conf *c, uint16_t kinds, uint32_t n)
{
	struct lex_state s = { .partial = c->d, .q = c->e, .count = c->c };

	if (c->node == GR_NONE)
		return false;
	if (m->g->nodes[c->node].kind == NODE_OBJECT)
		return gr_object_takes(m, c, kinds, n);
	if (m->g->nodes[c->node].kind != NODE_LEX)
		return false;
	/* Plain text may end anywhere, and what surrounds it goes on there: to be walked. A whole regular expression
	 * has no surroundings. */
	if (!m->g->nodes[c->node].lex.is_string && m->g->kind != ENG_GRAMMAR_REGEX)
		return false;
	return gr_lex_takes(&m->g->nodes[c->node].lex, &s, kinds, n);
}
