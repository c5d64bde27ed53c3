/* The subset construction, lazily.
 *
 * Code points are grouped into classes that no pattern tells apart; a state has one transition per class, computed when
 * it is first needed. `^` edges are followed from the start state only and `$` edges only to find out whether a text
 * may end, which is all they can do in a text of one line.
 *
 * A state of the lazy automaton is never a trap: subset members that cannot reach acceptance are dropped, so an
 * intersection of patterns, a forbidden one or a minimum of length are what needs the whole automaton at once: there,
 * states are (subset, length) pairs, computed to the end and pruned backwards. A maximum needs only the distance to
 * acceptance, which both kinds know. */
#include "grammar/dfa_internal.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "grammar/trie.h"

/* ---- Building ---- */

void gr_dfa_builder_init(struct dfa_builder *b)
{
	memset(b, 0, sizeof(*b));
}

void gr_dfa_builder_done(struct dfa_builder *b)
{
	gr_nfa_done(&b->nfa);
}

int gr_dfa_builder_add_states(struct dfa_builder *b, uint32_t start, uint32_t accept)
{
	if (b->n == DFA_MAX_PATTERNS)
		return -E2BIG;
	b->starts[b->n] = start;
	b->accepts[b->n++] = accept;
	return 0;
}

static int any_loop(struct nfa *a, uint32_t state)
{
	struct charset any = { 0 };
	uint32_t set = 0;
	int r = gr_charset_add(&any, 0, CS_MAX);

	if (r == 0)
		r = gr_nfa_set(a, &any, &set);
	if (r == 0)
		r = gr_nfa_edge(a, state, NFA_SET, set, state);
	gr_charset_done(&any);
	return r;
}

int gr_dfa_builder_add(struct dfa_builder *b, const struct ast *tree, bool is_search)
{
	uint32_t start = 0, begin = 0, end = 0, accept = 0;
	int r;

	if ((r = gr_nfa_state(&b->nfa, &start)) < 0 || (r = gr_nfa_state(&b->nfa, &begin)) < 0 ||
	    (r = gr_nfa_edge(&b->nfa, start, NFA_EPS, 0, begin)) < 0)
		return r;
	if (is_search && (r = any_loop(&b->nfa, start)) < 0)
		return r;
	if ((r = gr_nfa_emit(&b->nfa, tree, begin, &end)) < 0 || (r = gr_nfa_state(&b->nfa, &accept)) < 0 ||
	    (r = gr_nfa_edge(&b->nfa, end, NFA_EPS, 0, accept)) < 0)
		return r;
	if (is_search && (r = any_loop(&b->nfa, accept)) < 0)
		return r;
	return gr_dfa_builder_add_states(b, start, accept);
}

/* ---- Classes of code points ---- */

static int compare_u32(const void *a, const void *b)
{
	uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;

	return x < y ? -1 : x > y;
}

uint32_t gr_dfa_class_of(const struct dfa *d, uint32_t cp)
{
	uint32_t lo = 0, hi = d->n_classes;

	if (cp < 128)
		return d->ascii[cp];
	while (hi - lo > 1) {
		uint32_t mid = (lo + hi) / 2;

		if (d->class_lo[mid] <= cp)
			lo = mid;
		else
			hi = mid;
	}
	return lo;
}

/* The kinds of the characters of a class. */
static uint16_t kinds_of(const struct dfa *d, uint32_t c)
{
	uint32_t hi = c + 1 < d->n_classes ? d->class_lo[c + 1] - 1 : CS_MAX;
	uint16_t kinds = hi >= 0x80 && d->class_lo[c] != 0xd800 ? CHAR_BEYOND : 0;

	for (uint32_t cp = d->class_lo[c]; cp <= hi && cp < 0x80; cp++)
		kinds |= gr_char_kind(cp);
	return kinds;
}

static int make_classes(struct dfa *d)
{
	size_t n = 3, k = 0;

	for (uint32_t i = 0; i < d->nfa.n_sets; i++)
		n += 2 * (size_t)d->nfa.sets[i].n;
	d->class_lo = calloc(n, sizeof(*d->class_lo));
	if (!d->class_lo)
		return -ENOMEM;
	d->class_lo[k++] = 0;
	/* Surrogates are no characters: in a class that gr_dfa_meets() is never asked about. */
	d->class_lo[k++] = 0xd800;
	d->class_lo[k++] = 0xe000;
	for (uint32_t i = 0; i < d->nfa.n_sets; i++) {
		for (uint32_t j = 0; j < d->nfa.sets[i].n; j++) {
			d->class_lo[k++] = d->nfa.sets[i].ranges[j].lo;
			d->class_lo[k++] = d->nfa.sets[i].ranges[j].hi + 1;
		}
	}
	qsort(d->class_lo, k, sizeof(*d->class_lo), compare_u32);
	for (size_t i = 0; i < k; i++) {
		if (d->class_lo[i] > CS_MAX || (i > 0 && d->class_lo[i] == d->class_lo[i - 1]))
			continue;
		d->class_lo[d->n_classes++] = d->class_lo[i];
	}
	if (d->n_classes > UINT16_MAX)
		return -E2BIG;
	for (uint32_t cp = 0, c = 0; cp < 128; cp++) {
		while (c + 1 < d->n_classes && d->class_lo[c + 1] <= cp)
			c++;
		d->ascii[cp] = (uint16_t)c;
	}
	d->class_kinds = calloc(d->n_classes, sizeof(*d->class_kinds));
	if (!d->class_kinds)
		return -ENOMEM;
	for (uint32_t c = 0; c < d->n_classes; c++)
		d->class_kinds[c] = kinds_of(d, c);
	return 0;
}

static int make_set_classes(struct dfa *d)
{
	d->class_words = (d->n_classes + 63) / 64;
	d->set_classes = calloc((size_t)d->nfa.n_sets * d->class_words + 1, sizeof(*d->set_classes));
	if (!d->set_classes)
		return -ENOMEM;
	for (uint32_t i = 0; i < d->nfa.n_sets; i++) {
		const struct charset *s = &d->nfa.sets[i];
		uint64_t *bits = d->set_classes + (size_t)i * d->class_words;

		for (uint32_t j = 0; j < s->n; j++) {
			for (uint32_t c = gr_dfa_class_of(d, s->ranges[j].lo);
			     c < d->n_classes && d->class_lo[c] <= s->ranges[j].hi; c++)
				bits[c / 64] |= 1ull << (c % 64);
		}
	}
	return 0;
}

/* ---- What can end, what can get there ---- */

/* The automaton's edges turned round: those into state s are edges[begin[s] .. begin[s + 1]). */
struct backwards {
	uint32_t *begin, *edges, *from; /* from: per edge */
	uint32_t *stack, *next;         /* [n_states + 1] scratch */
};

static void backwards_done(struct backwards *b)
{
	free(b->begin);
	free(b->edges);
	free(b->from);
	free(b->stack);
	free(b->next);
}

static int backwards_init(struct backwards *b, const struct nfa *a)
{
	size_t n = a->n_states + 2u;

	b->begin = calloc(n, sizeof(*b->begin));
	b->edges = calloc(a->n_edges + 1u, sizeof(*b->edges));
	b->from = calloc(a->n_edges + 1u, sizeof(*b->from));
	b->stack = calloc(n, sizeof(*b->stack));
	b->next = calloc(n, sizeof(*b->next));
	if (!b->begin || !b->edges || !b->from || !b->stack || !b->next)
		return -ENOMEM;
	for (uint32_t s = 0; s < a->n_states; s++) {
		for (uint32_t e = a->heads[s]; e != NFA_NONE; e = a->edges[e].next) {
			b->from[e] = s;
			b->begin[a->edges[e].to + 2]++;
		}
	}
	for (uint32_t s = 0; s < a->n_states; s++)
		b->begin[s + 1] += b->begin[s];
	for (uint32_t e = 0; e < a->n_edges; e++)
		b->edges[b->begin[a->edges[e].to + 1]++] = e;
	return 0;
}

static void find_ends(struct dfa *d, const struct dfa_builder *builder, struct backwards *b)
{
	for (uint32_t i = 0; i < builder->n; i++) {
		uint32_t n = 0;

		b->stack[n++] = builder->accepts[i];
		d->ends[builder->accepts[i]] |= 1u << i;
		while (n > 0) {
			uint32_t s = b->stack[--n];

			for (uint32_t k = b->begin[s]; k < b->begin[s + 1]; k++) {
				const struct nfa_edge *edge = &d->nfa.edges[b->edges[k]];
				uint32_t from = b->from[b->edges[k]];

				if ((edge->kind != NFA_EPS && edge->kind != NFA_END) || (d->ends[from] >> i & 1))
					continue;
				d->ends[from] |= 1u << i;
				b->stack[n++] = from;
			}
		}
	}
}

/* One level of distance: what costs nothing joins the level, what costs a character the next one. */
static uint32_t find_level(struct dfa *d, struct backwards *b, uint32_t n, uint32_t distance)
{
	uint32_t n_next = 0;

	while (n > 0) {
		uint32_t s = b->stack[--n];

		for (uint32_t k = b->begin[s]; d->far[s] == distance && k < b->begin[s + 1]; k++) {
			const struct nfa_edge *edge = &d->nfa.edges[b->edges[k]];
			uint32_t from = b->from[b->edges[k]];

			if (edge->kind == NFA_EPS && d->far[from] > distance) {
				d->far[from] = distance;
				b->stack[n++] = from;
			} else if (edge->kind == NFA_SET && d->nfa.sets[edge->arg].n > 0 &&
			           d->far[from] > distance + 1) {
				d->far[from] = distance + 1;
				b->next[n_next++] = from;
			}
		}
	}
	return n_next;
}

static void find_distances(struct dfa *d, struct backwards *b)
{
	uint32_t n = 0;

	for (uint32_t s = 0; s < d->nfa.n_states; s++) {
		d->far[s] = d->ends[s] ? 0 : DFA_UNKNOWN;
		if (d->ends[s])
			b->stack[n++] = s;
	}
	for (uint32_t distance = 0; n > 0; distance++) {
		uint32_t *level = b->next;

		d->farthest = distance;
		n = find_level(d, b, n, distance);
		b->next = b->stack;
		b->stack = level;
	}
}

static int look_backwards(struct dfa *d, const struct dfa_builder *builder)
{
	struct backwards b = { 0 };
	int r = backwards_init(&b, &d->nfa);

	if (r == 0) {
		find_ends(d, builder, &b);
		find_distances(d, &b);
	}
	backwards_done(&b);
	return r;
}

/* ---- States ---- */

static uint64_t hash_members(const uint32_t *members, uint32_t n)
{
	uint64_t h = 0xcbf29ce484222325u;

	for (uint32_t i = 0; i < n; i++)
		h = (h ^ members[i]) * 0x100000001b3u;
	return h ^ h >> 29;
}

static int grow_table(struct dfa *d)
{
	uint32_t size = d->table_size ? d->table_size * 2 : 64;
	uint32_t *table = calloc(size, sizeof(*table));

	if (!table)
		return -ENOMEM;
	for (uint32_t i = 1; i < d->n_states; i++) {
		uint64_t h = hash_members(d->states[i].members, d->states[i].n) & (size - 1);

		while (table[h])
			h = (h + 1) & (size - 1);
		table[h] = i + 1;
	}
	free(d->table);
	d->table = table;
	d->table_size = size;
	return 0;
}

static int new_state(struct dfa *d, const uint32_t *members, uint32_t n, uint32_t *ret)
{
	struct dfa_state *s;

	if (d->n_states >= DFA_MAX_STATES || (uint64_t)d->n_states * d->n_classes > DFA_MAX_CELLS)
		return -E2BIG;
	if (d->n_states == d->cap_states) {
		uint32_t cap = d->cap_states ? d->cap_states * 2 : 16;

		s = realloc(d->states, cap * sizeof(*s));
		if (!s)
			return -ENOMEM;
		d->states = s;
		d->cap_states = cap;
	}
	s = &d->states[d->n_states];
	*s = (struct dfa_state){ .n = n };
	s->members = malloc((n ? n : 1) * sizeof(*s->members));
	s->next = malloc(d->n_classes * sizeof(*s->next));
	if (!s->members || !s->next) {
		free(s->members);
		free(s->next);
		return -ENOMEM;
	}
	if (n > 0)
		memcpy(s->members, members, n * sizeof(*members));
	for (uint32_t c = 0; c < d->n_classes; c++)
		s->next[c] = DFA_UNKNOWN;
	*ret = d->n_states++;
	return 0;
}

static bool is_accepted(const struct dfa *d, uint32_t matches)
{
	if (d->has_allowed)
		return d->allowed >> (matches & 63) & 1;
	return (matches & d->need) == d->need && (matches & d->forbid) == 0;
}

static int intern(struct dfa *d, const uint32_t *members, uint32_t n, uint32_t matches, uint32_t *ret)
{
	uint64_t h;
	int r;

	/* Where no match is a result too, a text that nothing can match any more goes on. */
	if (n == 0 && !d->has_allowed) {
		*ret = DFA_DEAD;
		return 0;
	}
	if ((d->n_states + 1) * 2 > d->table_size && grow_table(d) < 0)
		return -ENOMEM;
	for (h = hash_members(members, n) & (d->table_size - 1); d->table[h]; h = (h + 1) & (d->table_size - 1)) {
		const struct dfa_state *s = &d->states[d->table[h] - 1];

		if (s->n == n && s->matches == matches && memcmp(s->members, members, n * sizeof(*members)) == 0) {
			*ret = d->table[h] - 1;
			return 0;
		}
	}
	r = new_state(d, members, n, ret);
	if (r < 0)
		return r;
	d->states[*ret].matches = matches;
	d->states[*ret].distance = DFA_UNKNOWN;
	for (uint32_t i = 0; i < n; i++) {
		if (d->far[members[i]] < d->states[*ret].distance)
			d->states[*ret].distance = d->far[members[i]];
	}
	d->states[*ret].accepts = is_accepted(d, matches);
	d->table[h] = *ret + 1;
	return 0;
}

static void push(struct dfa *d, uint32_t s, uint32_t *n_stack)
{
	if (d->marks[s] == d->mark)
		return;
	d->marks[s] = d->mark;
	d->stack[(*n_stack)++] = s;
}

static void begin_closure(struct dfa *d)
{
	if (++d->mark == 0) {
		memset(d->marks, 0, d->nfa.n_states * sizeof(*d->marks));
		d->mark = 1;
	}
}

/* Follows what costs no character from the states pushed so far, and interns what counts. */
static int close_over(struct dfa *d, uint32_t n_stack, bool at_begin, uint32_t *ret)
{
	uint32_t n = 0, matches = 0;

	while (n_stack > 0) {
		uint32_t s = d->stack[--n_stack];
		bool counts = false;

		matches |= d->ends[s];
		for (uint32_t e = d->nfa.heads[s]; e != NFA_NONE; e = d->nfa.edges[e].next) {
			const struct nfa_edge *edge = &d->nfa.edges[e];

			counts |= edge->kind == NFA_SET;
			if (edge->kind == NFA_EPS || (edge->kind == NFA_BEGIN && at_begin))
				push(d, edge->to, &n_stack);
		}
		/* One that only ends (no edges, or $) counts too: the subset would be empty without it. */
		counts |= d->ends[s] != 0;
		if (counts && d->far[s] != DFA_UNKNOWN)
			d->members[n++] = s;
	}
	qsort(d->members, n, sizeof(*d->members), compare_u32);
	return intern(d, d->members, n, matches, ret);
}

static int compute_next(struct dfa *d, uint32_t q, uint32_t class, uint32_t *ret)
{
	uint32_t n_stack = 0;

	begin_closure(d);
	for (uint32_t i = 0; i < d->states[q].n; i++) {
		for (uint32_t e = d->nfa.heads[d->states[q].members[i]]; e != NFA_NONE; e = d->nfa.edges[e].next) {
			const struct nfa_edge *edge = &d->nfa.edges[e];

			if (edge->kind == NFA_SET &&
			    (d->set_classes[(size_t)edge->arg * d->class_words + class / 64] >> (class % 64) & 1))
				push(d, edge->to, &n_stack);
		}
	}
	return close_over(d, n_stack, false, ret);
}

uint32_t gr_dfa_next_of_class(struct dfa *d, uint32_t q, uint32_t class)
{
	uint32_t to = d->states[q].next[class];
	int r;

	if (to != DFA_UNKNOWN)
		return to;
	r = compute_next(d, q, class, &to);
	if (r < 0) {
		d->error = r;
		return DFA_DEAD;
	}
	d->states[q].next[class] = to;
	return to;
}

/* ---- Life ---- */

void gr_dfa_free_states(struct dfa *d)
{
	for (uint32_t i = 0; i < d->n_states; i++) {
		free(d->states[i].members);
		free(d->states[i].next);
	}
	free(d->states);
	d->states = NULL;
	d->n_states = d->cap_states = 0;
}

static int prepare(struct dfa *d, const struct dfa_builder *b)
{
	size_t n = d->nfa.n_states ? d->nfa.n_states : 1;
	uint32_t dead = 0, n_stack = 0;
	int r;

	d->ends = calloc(n, sizeof(*d->ends));
	d->far = calloc(n, sizeof(*d->far));
	d->marks = calloc(n, sizeof(*d->marks));
	d->stack = calloc(n, sizeof(*d->stack));
	d->members = calloc(n, sizeof(*d->members));
	if (!d->ends || !d->far || !d->marks || !d->stack || !d->members)
		return -ENOMEM;
	if ((r = make_classes(d)) < 0 || (r = make_set_classes(d)) < 0)
		return r;
	r = look_backwards(d, b);
	if (r < 0)
		return r;
	r = new_state(d, NULL, 0, &dead);
	for (uint32_t c = 0; c < d->n_classes && r == 0; c++)
		d->states[dead].next[c] = DFA_DEAD;
	if (r < 0)
		return r;
	begin_closure(d);
	for (uint32_t i = 0; i < b->n; i++)
		push(d, b->starts[i], &n_stack);
	return close_over(d, n_stack, true, &d->start);
}

int gr_dfa_finish(struct dfa_builder *b, struct dfa **ret, struct err *err)
{
	struct dfa *d = calloc(1, sizeof(*d));
	bool is_plain = b->n == 1 && b->need == 1 && !b->forbid && !b->has_allowed && b->min_chars == 0;
	int r;

	if (!d) {
		gr_dfa_builder_done(b);
		return err_set(err, -ENOMEM, "out of memory");
	}
	d->nfa = b->nfa;
	memset(&b->nfa, 0, sizeof(b->nfa));
	d->need = b->need;
	d->forbid = b->forbid;
	d->has_allowed = b->has_allowed;
	d->allowed = b->allowed;
	r = prepare(d, b);
	if (r == 0 && !is_plain)
		r = gr_dfa_complete(d, b->min_chars);
	if (r < 0) {
		gr_dfa_free(d);
		return err_set(err, r, "%s", r == -ENOMEM ? "out of memory" : "the pattern is too large");
	}
	*ret = d;
	return 0;
}

void gr_dfa_free(struct dfa *d)
{
	if (!d)
		return;
	gr_dfa_free_states(d);
	gr_nfa_done(&d->nfa);
	free(d->class_lo);
	free(d->class_kinds);
	free(d->set_classes);
	free(d->ends);
	free(d->far);
	free(d->marks);
	free(d->stack);
	free(d->members);
	free(d->table);
	free(d);
}
