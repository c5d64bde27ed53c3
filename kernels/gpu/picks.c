/* Picks of logits: what samplers ask goes over before the program runs, what they get comes back behind it, and is with
 * the caller after the next wait for it. What was drawn also stays on the device until the next call runs, so that a
 * step can begin with tokens that the host does not know yet. */
#include <errno.h>
#include <string.h>

#include "gpu/backend.h"

enum { ROW_SLACK = 128 }; /* rows are bounded by the next bucket */

static void release(struct gpu_backend *be)
{
	struct gpu_picks *p = &be->picks;

	gpu_rt_free(&be->rt, p->device);
	p->device = NULL;
	for (int i = 0; i < KN_MAX_AHEAD; i++) {
		gpu_rt_host_free(&be->rt, p->call[i].host);
		p->call[i] = (struct gpu_pick_call){ 0 };
	}
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

const struct kn_picked *gpu_picks_drawn(const struct gpu_backend *be)
{
	struct kn_pick *asked;
	struct kn_picked *got;
	struct kn_best *best;

	if (!be->picks.device)
		return NULL;
	places(&be->picks, be->picks.device, &asked, &got, &best);
	return got;
}

static int make_room(struct gpu_backend *be, size_t n)
{
	struct gpu_picks *p = &be->picks;
	uint32_t cap = 2 * ROW_SLACK;
	bool has_all;
	int r;

	if (n + ROW_SLACK <= p->cap)
		return 0;
	while (cap < n + ROW_SLACK)
		cap *= 2;
	r = gpu_flights_end(be);
	if (r < 0)
		return r;
	gpu_programs_forget(be); /* they know the old place */
	release(be);
	p->device = gpu_rt_alloc(&be->rt, bytes_for(cap));
	has_all = p->device != NULL;
	for (int i = 0; i < KN_MAX_AHEAD; i++) {
		p->call[i].host = gpu_rt_host_alloc(&be->rt, bytes_for(cap));
		has_all = has_all && p->call[i].host;
	}
	if (!has_all) {
		release(be);
		return -ENOMEM;
	}
	p->cap = cap;
	return 0;
}

static struct gpu_pick_call *call_in(struct gpu_backend *be, int state)
{
	for (int i = 0; i < KN_MAX_AHEAD; i++) {
		if ((int)be->picks.call[i].state == state)
			return &be->picks.call[i];
	}
	return NULL;
}

/* A program holds one call, and may read what the one before it drew, where that lies. */
bool gpu_picks_collide(const struct gpu_backend *be, size_t n)
{
	bool collides = n + ROW_SLACK > be->picks.cap;

	for (int i = 0; i < KN_MAX_AHEAD; i++)
		collides = collides || be->picks.call[i].state == PICKS_RECORDED;
	return collides;
}

int gpu_picks_begin(struct gpu_backend *be, const struct kn_pick *picks, size_t n, uint32_t n_best,
                    struct kn_best *ret_best, struct kn_picked *ret, struct gk_pick *ret_pick)
{
	struct gpu_picks *p = &be->picks;
	struct gpu_pick_call *c;
	struct kn_pick *asked;
	struct kn_picked *got;
	struct kn_best *best;
	int r;

	r = make_room(be, n);
	if (r == 0 && !call_in(be, PICKS_NONE))
		r = gpu_flights_end(be);
	if (r < 0)
		return r;
	c = call_in(be, PICKS_NONE);
	if (!c)
		return -EBUSY;
	places(p, c->host, &asked, &got, &best);
	memcpy(asked, picks, n * sizeof(*picks));
	*c = (struct gpu_pick_call){ .state = PICKS_RECORDED,
		                     .host = c->host,
		                     .flight = be->n_submitted,
		                     .n = (uint32_t)n,
		                     .n_best = n_best,
		                     .ret_best = ret_best,
		                     .ret = ret };
	places(p, p->device, &asked, &got, &best);
	ret_pick->picks = asked;
	ret_pick->picked = got;
	ret_pick->best = best;
	return 0;
}

int gpu_picks_send(struct gpu_backend *be)
{
	const struct gpu_pick_call *c = call_in(be, PICKS_RECORDED);

	return c ? gpu_rt_to_device(&be->rt, be->picks.device, c->host, c->n * sizeof(struct kn_pick)) : 0;
}

int gpu_picks_fetch(struct gpu_backend *be)
{
	struct gpu_picks *p = &be->picks;
	struct gpu_pick_call *c = call_in(be, PICKS_RECORDED);
	struct kn_pick *asked;
	struct kn_picked *from, *to;
	struct kn_best *best_from, *best_to;
	int r;

	if (!c)
		return 0;
	places(p, p->device, &asked, &from, &best_from);
	places(p, c->host, &asked, &to, &best_to);
	r = gpu_rt_to_host(&be->rt, to, from, c->n * sizeof(*to));
	if (r == 0 && c->n_best)
		r = gpu_rt_to_host(&be->rt, best_to, best_from, (size_t)c->n * c->n_best * sizeof(*best_to));
	c->state = r == 0 ? PICKS_COMING : PICKS_NONE;
	return r;
}

void gpu_picks_drop(struct gpu_backend *be)
{
	struct gpu_pick_call *c = call_in(be, PICKS_RECORDED);

	if (c)
		c->state = PICKS_NONE;
}

void gpu_picks_deliver(struct gpu_backend *be, uint64_t flight)
{
	struct gpu_picks *p = &be->picks;
	struct kn_pick *asked;
	struct kn_picked *got;
	struct kn_best *best;

	for (int i = 0; i < KN_MAX_AHEAD; i++) {
		struct gpu_pick_call *c = &p->call[i];

		if (c->state != PICKS_COMING || c->flight >= flight)
			continue;
		places(p, c->host, &asked, &got, &best);
		memcpy(c->ret, got, c->n * sizeof(*got));
		if (c->n_best)
			memcpy(c->ret_best, best, (size_t)c->n * c->n_best * sizeof(*best));
		c->state = PICKS_NONE;
	}
}
