/* Picks of logits: what samplers ask goes over before the program runs, what they get comes back behind it, and is with
 * the caller after the next sync. One call of it is under way at a time. */
#include <errno.h>
#include <string.h>

#include "gpu/backend.h"

enum { ROW_SLACK = 128 }; /* rows are bounded by the next bucket */

static void release(struct gpu_backend *be)
{
	struct gpu_picks *p = &be->picks;

	gpu_rt_free(&be->rt, p->device);
	gpu_rt_host_free(&be->rt, p->host);
	p->device = p->host = NULL;
	p->cap = 0;
}

void gpu_picks_close(struct gpu_backend *be)
{
	release(be);
}

static size_t bytes_for(uint32_t rows)
{
	return rows * (sizeof(struct kn_pick) + sizeof(struct kn_picked) + KN_MAX_BEST * sizeof(struct kn_best));
}

/* Places in either copy of the memory: what is asked, what is got, the best. */
static void places(const struct gpu_picks *p, char *base, struct kn_pick **ret_asked, struct kn_picked **ret_got,
                   struct kn_best **ret_best)
{
	*ret_asked = (struct kn_pick *)base;
	*ret_got = (struct kn_picked *)(base + p->cap * sizeof(struct kn_pick));
	*ret_best = (struct kn_best *)(base + p->cap * (sizeof(struct kn_pick) + sizeof(struct kn_picked)));
}

static int make_room(struct gpu_backend *be, size_t n)
{
	struct gpu_picks *p = &be->picks;
	uint32_t cap = 2 * ROW_SLACK;
	int r;

	if (n + ROW_SLACK <= p->cap)
		return 0;
	while (cap < n + ROW_SLACK)
		cap *= 2;
	r = gpu_rt_sync(&be->rt);
	if (r < 0)
		return r;
	gpu_programs_forget(be); /* they know the old place */
	release(be);
	p->device = gpu_rt_alloc(&be->rt, bytes_for(cap));
	p->host = gpu_rt_host_alloc(&be->rt, bytes_for(cap));
	if (!p->device || !p->host) {
		release(be);
		return -ENOMEM;
	}
	p->cap = cap;
	return 0;
}

int gpu_picks_begin(struct gpu_backend *be, const struct kn_pick *picks, size_t n, uint32_t n_best,
                    struct kn_best *ret_best, struct kn_picked *ret, struct gk_pick *ret_pick)
{
	struct gpu_picks *p = &be->picks;
	struct kn_pick *asked;
	struct kn_picked *got;
	struct kn_best *best;
	int r = make_room(be, n);

	if (r < 0)
		return r;
	places(p, p->host, &asked, &got, &best);
	memcpy(asked, picks, n * sizeof(*picks));
	p->n = (uint32_t)n;
	p->n_best = n_best;
	p->ret_best = ret_best;
	p->ret = ret;
	p->state = PICKS_RECORDED;
	places(p, p->device, &asked, &got, &best);
	ret_pick->picks = asked;
	ret_pick->picked = got;
	ret_pick->best = best;
	return 0;
}

int gpu_picks_send(struct gpu_backend *be)
{
	struct gpu_picks *p = &be->picks;

	if (p->state != PICKS_RECORDED)
		return 0;
	return gpu_rt_to_device(&be->rt, p->device, p->host, p->n * sizeof(struct kn_pick));
}

int gpu_picks_fetch(struct gpu_backend *be)
{
	struct gpu_picks *p = &be->picks;
	struct kn_pick *asked;
	struct kn_picked *from, *to;
	struct kn_best *best_from, *best_to;
	int r;

	if (p->state != PICKS_RECORDED)
		return 0;
	places(p, p->device, &asked, &from, &best_from);
	places(p, p->host, &asked, &to, &best_to);
	r = gpu_rt_to_host(&be->rt, to, from, p->n * sizeof(*to));
	if (r == 0 && p->n_best)
		r = gpu_rt_to_host(&be->rt, best_to, best_from, (size_t)p->n * p->n_best * sizeof(*best_to));
	p->state = r == 0 ? PICKS_COMING : PICKS_NONE;
	return r;
}

void gpu_picks_deliver(struct gpu_backend *be)
{
	struct gpu_picks *p = &be->picks;
	struct kn_pick *asked;
	struct kn_picked *got;
	struct kn_best *best;

	if (p->state == PICKS_COMING) {
		places(p, p->host, &asked, &got, &best);
		memcpy(p->ret, got, p->n * sizeof(*got));
		if (p->n_best)
			memcpy(p->ret_best, best, (size_t)p->n * p->n_best * sizeof(*best));
	}
	p->state = PICKS_NONE;
}
