/* The whole automaton at once: states are pairs of a subset and a count of characters up to the minimum, found
 * forwards, and pruned backwards from acceptance, so that what is left always has a way to the end. */
#include "grammar/dfa_internal.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

struct pair {
	uint32_t q, count;
};

struct product {
	struct dfa *d;
	uint32_t min; /* counts above it are not told apart */
	struct pair *pairs;
	uint32_t n, cap;
	uint32_t *index; /* [q * (min + 1) + count] -> product state, 0: none yet; grows by q */
	size_t n_index;
	uint32_t *next; /* [n][n_classes] */
	size_t cap_next;
	uint32_t *far; /* DFA_UNKNOWN: no way to acceptance */
};

static int product_state(struct product *p, uint32_t q, uint32_t count, uint32_t *ret)
{
	size_t at = (size_t)q * (p->min + 1u) + count;

	if (at >= p->n_index) {
		size_t n = (at + 1) * 2;
		uint32_t *index;

		if (n > 4 * DFA_MAX_CELLS)
			return -E2BIG;
		index = realloc(p->index, n * sizeof(*index));
		if (!index)
			return -ENOMEM;
		memset(index + p->n_index, 0, (n - p->n_index) * sizeof(*index));
		p->index = index;
		p->n_index = n;
	}
	if (p->index[at]) {
		*ret = p->index[at];
		return 0;
	}
	if ((uint64_t)p->n * p->d->n_classes > DFA_MAX_CELLS)
		return -E2BIG;
	if (p->n == p->cap) {
		uint32_t cap = p->cap ? p->cap * 2 : 64;
		struct pair *pairs = realloc(p->pairs, cap * sizeof(*pairs));

		if (!pairs)
			return -ENOMEM;
		p->pairs = pairs;
		p->cap = cap;
	}
	p->pairs[p->n] = (struct pair){ q, count };
	p->index[at] = *ret = p->n++;
	return 0;
}

static int expand(struct product *p, uint32_t s)
{
	struct dfa *d = p->d;
	const struct pair at = p->pairs[s];
	uint32_t count = at.count < p->min ? at.count + 1 : at.count;

	if (((size_t)s + 1) * d->n_classes > p->cap_next) {
		size_t cap = ((size_t)s + 64) * 2 * d->n_classes;
		uint32_t *next = realloc(p->next, cap * sizeof(*next));

		if (!next)
			return -ENOMEM;
		p->next = next;
		p->cap_next = cap;
	}
	for (uint32_t c = 0; c < d->n_classes; c++) {
		uint32_t q = DFA_DEAD, to = DFA_DEAD;
		int r = 0;

		if (s != DFA_DEAD)
			q = gr_dfa_next_of_class(d, at.q, c);
		if (d->error)
			return d->error;
		if (q != DFA_DEAD)
			r = product_state(p, q, count, &to);
		if (r < 0)
			return r;
		p->next[(size_t)s * d->n_classes + c] = to;
	}
	return 0;
}

static bool product_accepts(const struct product *p, uint32_t s)
{
	return s != DFA_DEAD && p->d->states[p->pairs[s].q].accepts && p->pairs[s].count >= p->min;
}

/* Backwards from acceptance, over the edges turned round (counted, then filled: a bucket per target). */
static int prune(struct product *p)
{
	size_t n_cells = (size_t)p->n * p->d->n_classes;
	uint32_t *begin = calloc((size_t)p->n + 2, sizeof(*begin)), *from = calloc(n_cells + 1, sizeof(*from));
	uint32_t *queue = calloc((size_t)p->n + 1, sizeof(*queue)), head = 0, tail = 0;
	int r = -ENOMEM;

	p->far = calloc((size_t)p->n + 1, sizeof(*p->far));
	if (!begin || !from || !queue || !p->far)
		goto out;
	r = 0;
	for (size_t i = 0; i < n_cells; i++)
		begin[p->next[i] + 2]++;
	for (uint32_t s = 0; s < p->n; s++)
		begin[s + 1] += begin[s];
	for (size_t i = 0; i < n_cells; i++)
		from[begin[p->next[i] + 1]++] = (uint32_t)(i / p->d->n_classes);
	for (uint32_t s = 0; s < p->n; s++) {
		p->far[s] = product_accepts(p, s) ? 0 : DFA_UNKNOWN;
		if (p->far[s] == 0)
			queue[tail++] = s;
	}
	while (head < tail) {
		uint32_t s = queue[head++];

		for (uint32_t i = begin[s]; i < begin[s + 1]; i++) {
			if (p->far[from[i]] == DFA_UNKNOWN) {
				p->far[from[i]] = p->far[s] + 1;
				queue[tail++] = from[i];
			}
		}
	}
out:
	free(begin);
	free(from);
	free(queue);
	return r;
}

/* The pruned product takes the place of the lazy states. */
static int adopt(struct product *p, uint32_t start)
{
	struct dfa *d = p->d;
	struct dfa_state *states = calloc(p->n, sizeof(*states));
	int r = 0;

	if (!states)
		return -ENOMEM;
	for (uint32_t s = 0; s < p->n; s++) {
		states[s].matches = s ? d->states[p->pairs[s].q].matches : 0;
		states[s].accepts = product_accepts(p, s);
		states[s].next = malloc(d->n_classes * sizeof(uint32_t));
		if (!states[s].next)
			r = -ENOMEM;
		for (uint32_t c = 0; c < d->n_classes && r == 0; c++) {
			uint32_t to = p->next[(size_t)s * d->n_classes + c];

			states[s].next[c] = p->far[to] != DFA_UNKNOWN ? to : DFA_DEAD;
		}
		states[s].distance = p->far[s];
		if (p->far[s] != DFA_UNKNOWN && p->far[s] > d->farthest)
			d->farthest = p->far[s];
	}
	start = p->far[start] != DFA_UNKNOWN ? start : DFA_DEAD;
	gr_dfa_free_states(d);
	d->states = states;
	d->n_states = d->cap_states = p->n;
	d->start = start;
	return r;
}

int gr_dfa_complete(struct dfa *d, uint32_t min_chars)
{
	struct product p = { .d = d, .min = min_chars };
	uint32_t start = 0;
	int r;

	if (min_chars > DFA_MAX_CELLS)
		return -E2BIG;
	r = product_state(&p, DFA_DEAD, 0, &start); /* state 0: never asked for again */
	if (r == 0 && d->start != DFA_DEAD)
		r = product_state(&p, d->start, 0, &start);
	for (uint32_t s = 0; s < p.n && r == 0; s++)
		r = expand(&p, s);
	if (r == 0)
		r = prune(&p);
	if (r == 0)
		r = adopt(&p, start);
	free(p.pairs);
	free(p.index);
	free(p.next);
	free(p.far);
	return r;
}
