/* Strongly connected components by Tarjan's algorithm ("Depth-first search and linear graph algorithms", 1972), with a
 * stack of its own instead of recursion: a chain of needs may be as long as a repository is large. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "slices.h"

struct frame {
	uint32_t node;
	size_t next; /* edge */
};

struct search {
	const size_t *first;
	const uint32_t *edges;
	uint32_t *number, *low; /* number 0: not visited */
	uint32_t *stack;        /* nodes whose group is not known yet */
	struct frame *frames;
	size_t n_stack, n_frames;
	uint32_t counter;
	uint32_t *group, n_groups;
};

static void visit(struct search *s, uint32_t node)
{
	s->number[node] = s->low[node] = ++s->counter;
	s->stack[s->n_stack++] = node;
	s->frames[s->n_frames++] = (struct frame){ node, s->first[node] };
}

/* All that was reached from `node` and reaches it: a group. */
static void close_group(struct search *s, uint32_t node)
{
	uint32_t member;

	do {
		member = s->stack[--s->n_stack];
		s->group[member] = s->n_groups;
	} while (member != node);
	s->n_groups++;
}

static void search_from(struct search *s, uint32_t root)
{
	visit(s, root);
	while (s->n_frames) {
		struct frame *f = &s->frames[s->n_frames - 1];
		const uint32_t node = f->node;

		if (f->next < s->first[node + 1]) {
			const uint32_t to = s->edges[f->next++];

			if (!s->number[to])
				visit(s, to);
			else if (s->group[to] == UINT32_MAX && s->number[to] < s->low[node])
				s->low[node] = s->number[to];
			continue;
		}
		if (s->low[node] == s->number[node])
			close_group(s, node);
		if (--s->n_frames && s->low[node] < s->low[s->frames[s->n_frames - 1].node])
			s->low[s->frames[s->n_frames - 1].node] = s->low[node];
	}
}

int img_scc(size_t n, const size_t *first, const uint32_t *edges, uint32_t *ret_group, uint32_t *ret_n_groups)
{
	struct search s = { .first = first, .edges = edges, .group = ret_group };
	int r = 0;

	s.number = calloc(n + 1, sizeof(*s.number));
	s.low = calloc(n + 1, sizeof(*s.low));
	s.stack = calloc(n + 1, sizeof(*s.stack));
	s.frames = calloc(n + 1, sizeof(*s.frames));
	if (!s.number || !s.low || !s.stack || !s.frames)
		r = -ENOMEM;
	for (size_t i = 0; r == 0 && i < n; i++)
		ret_group[i] = UINT32_MAX;
	for (size_t i = 0; r == 0 && i < n; i++) {
		if (!s.number[i])
			search_from(&s, (uint32_t)i);
	}
	if (r == 0)
		*ret_n_groups = s.n_groups;
	free(s.number);
	free(s.low);
	free(s.stack);
	free(s.frames);
	return r;
}
