/* Walking the automaton, and what masks want to know of its states: what is certainly taken, what is decided. */
#include "grammar/dfa_internal.h"

uint32_t gr_dfa_start(const struct dfa *d)
{
	return d->start;
}

uint32_t gr_dfa_next(struct dfa *d, uint32_t q, uint32_t cp)
{
	return gr_dfa_next_of_class(d, q, gr_dfa_class_of(d, cp));
}

size_t gr_dfa_cells(const struct dfa *d)
{
	return (size_t)d->n_states * d->n_classes;
}

uint32_t gr_dfa_distance(const struct dfa *d, uint32_t q)
{
	return d->states[q].distance;
}

uint32_t gr_dfa_farthest(const struct dfa *d)
{
	return d->farthest;
}

bool gr_dfa_meets(struct dfa *d, uint32_t q, uint32_t lo, uint32_t hi, uint32_t within)
{
	for (uint32_t c = gr_dfa_class_of(d, lo); c < d->n_classes && d->class_lo[c] <= hi; c++) {
		uint32_t to = d->class_lo[c] != 0xd800 ? gr_dfa_next_of_class(d, q, c) : DFA_DEAD;

		if (to != DFA_DEAD && d->states[to].distance <= within)
			return true;
	}
	return false;
}

bool gr_dfa_accepts(const struct dfa *d, uint32_t q)
{
	return d->states[q].accepts;
}

uint32_t gr_dfa_matches(const struct dfa *d, uint32_t q)
{
	return d->states[q].matches;
}

/* Adds where characters of these kinds lead from q to the set: false when one leads nowhere, or there are too many. */
static bool add_nexts(struct dfa *d, uint32_t q, uint16_t kinds, uint32_t *set, uint32_t *n)
{
	for (uint32_t c = 0; c < d->n_classes; c++) {
		uint32_t to, i = 0;

		if (!(d->class_kinds[c] & kinds))
			continue;
		to = gr_dfa_next_of_class(d, q, c);
		while (i < *n && set[i] != to)
			i++;
		if (to == DFA_DEAD || i == DFA_MAX_TAKEN)
			return false;
		if (i == *n)
			set[(*n)++] = to;
	}
	return true;
}

/* Breadth first over the states that can be reached, until no new ones come or n characters are read. *ret_far: how
 * many characters are certainly taken. */
static bool find_taken(struct dfa *d, uint32_t q, uint16_t kinds, uint32_t n, uint32_t *ret_far)
{
	uint32_t set[DFA_MAX_TAKEN] = { q }, n_set = 1, done = 0;

	for (*ret_far = 0; *ret_far < n; (*ret_far)++) {
		uint32_t end = n_set;

		for (; done < end; done++) {
			if (!add_nexts(d, set[done], kinds, set, &n_set))
				return false;
		}
		if (n_set == end) {
			*ret_far = UINT32_MAX;
			return true;
		}
	}
	return true;
}

bool gr_dfa_takes(struct dfa *d, uint32_t q, uint16_t kinds, uint32_t n)
{
	struct dfa_taken *t = &d->taken[(q * 31u + kinds * 7u) % DFA_KEPT_TAKEN];
	uint32_t far = 0;
	bool ok;

	if (q == DFA_DEAD)
		return n == 0;
	if (t->q != q || t->kinds != kinds)
		*t = (struct dfa_taken){ .q = q, .kinds = kinds, .fails = UINT32_MAX };
	if (n <= t->takes)
		return true;
	if (n >= t->fails)
		return false;
	ok = find_taken(d, q, kinds, n, &far);
	if (far > t->takes)
		t->takes = far;
	if (!ok)
		t->fails = n;
	return ok;
}

bool gr_dfa_is_settled(struct dfa *d, uint32_t q)
{
	bool is = q != DFA_DEAD;

	if (d->states[q].settled)
		return d->states[q].settled == 2;
	for (uint32_t c = 0; c < d->n_classes && is; c++)
		is = d->class_lo[c] == 0xd800 || gr_dfa_next_of_class(d, q, c) == q;
	d->states[q].settled = is ? 2 : 1;
	return is;
}

int gr_dfa_error(const struct dfa *d)
{
	return d->error;
}
