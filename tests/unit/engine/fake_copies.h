/* How the fake of fake_exec.h copies pages beside its steps: as late as it may, in random order between the ways, with
 * failures where told. */
#ifndef FAKE_COPIES_H
#define FAKE_COPIES_H

#include <time.h>

#include "fake_model.h"

static inline uint64_t fake_now_ns(void)
{
	struct timespec ts;

	(void)clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000000000u + (uint64_t)ts.tv_nsec;
}

static inline void fake_do_copy(struct fake_exec *f, enum kn_way to)
{
	struct fake_way *way = &f->ways[to];
	struct fake_copy *c = &way->copies[way->n_done++ % FAKE_MAX_COPIES];
	char *cells = (char *)(f->cells + (size_t)c->page * FAKE_PAGE);

	if (to == KN_FROM_PEER) {
		size_t bytes = c->n * FAKE_PAGE * sizeof(*f->cells);
		int32_t *between = malloc(bytes);

		(void)pthread_mutex_lock(&f->peer->lock);
		memcpy(between, f->peer->cells + (size_t)c->from * FAKE_PAGE, bytes);
		(void)pthread_mutex_unlock(&f->peer->lock);
		(void)pthread_mutex_lock(&f->lock);
		if (!c->fails)
			memcpy(cells, between, bytes);
		(void)pthread_mutex_unlock(&f->lock);
		free(between);
		return;
	}
	(void)pthread_mutex_lock(&f->lock);
	if (!c->fails)
		memcpy(to == KN_TO_HOST ? c->host : cells, to == KN_TO_HOST ? cells : c->host,
		       FAKE_PAGE * sizeof(*f->cells));
	(void)pthread_mutex_unlock(&f->lock);
}

/* Those out that later operations go behind. */
static inline void fake_do_fenced(struct fake_exec *f)
{
	struct fake_way *way = &f->ways[KN_TO_HOST];
	uint64_t end = way->n_done;

	for (uint64_t n = way->n_done; n < way->n_begun; n++) {
		if (way->copies[n % FAKE_MAX_COPIES].is_fenced)
			end = n + 1;
	}
	while (way->n_done < end)
		fake_do_copy(f, KN_TO_HOST);
}

/* At once, steps under way or not. */
static inline bool fake_may_come(struct fake_exec *f, const struct fake_copy *c)
{
	return fake_now_ns() - c->begin_ns >= atomic_load(&f->copy_us) * (uint64_t)1000;
}

static inline int fake_begin_copy(struct fake_exec *f, struct fake_copy copy, enum kn_way to, uint64_t *ret_ticket)
{
	struct fake_way *way = &f->ways[to];
	unsigned every = atomic_load(&f->fail_every);

	if (way->n_begun - way->n_done == (to == KN_TO_HOST ? FAKE_MAX_OUT : FAKE_MAX_COPIES))
		return -EBUSY;
	f->coin = f->coin * 1664525u + 1013904223u;
	if (every && f->coin >> 8 & 1 && (f->coin >> 9) % every == 0)
		return -EIO;
	copy.follows = way->follows;
	copy.begin_ns = fake_now_ns();
	copy.fails = every && (f->coin >> 9) % every == 0;
	way->copies[way->n_begun % FAKE_MAX_COPIES] = copy;
	atomic_fetch_add(to == KN_TO_HOST ? &f->n_out : &f->n_in, 1);
	*ret_ticket = way->n_begun++ << 2 | (uint64_t)to;
	return 0;
}

static inline int fake_page_copy(void *ctx, uint32_t page, void *host, enum kn_way to, uint64_t *ret_ticket)
{
	return fake_begin_copy(ctx, (struct fake_copy){ .page = page, .host = host }, to, ret_ticket);
}

static inline int fake_page_fetch(void *ctx, uint32_t page, uint32_t from, uint32_t n, uint64_t *ret_ticket)
{
	return fake_begin_copy(ctx, (struct fake_copy){ .page = page, .from = from, .n = n }, KN_FROM_PEER, ret_ticket);
}

static inline int fake_copy_poll(void *ctx, uint64_t ticket)
{
	struct fake_exec *f = ctx;
	enum kn_way to = (enum kn_way)(ticket & 3);
	struct fake_way *way = &f->ways[to];
	uint64_t n = ticket >> 2;

	f->coin = f->coin * 1664525u + 1013904223u;
	if (n >= way->n_done && (f->coin >> 16 & 3) == 0)
		return 0;
	while (n >= way->n_done) {
		if (to == KN_TO_DEVICE || to == KN_FROM_PEER) {
			const struct fake_copy *c = &way->copies[way->n_done % FAKE_MAX_COPIES];

			if (!fake_may_come(f, c))
				return 0;
			while (f->ways[KN_TO_HOST].n_done < c->follows)
				fake_do_copy(f, KN_TO_HOST);
		}
		fake_do_copy(f, to);
	}
	return way->copies[n % FAKE_MAX_COPIES].fails ? -EIO : 1;
}

static inline int fake_copy_wait(void *ctx, uint64_t ticket)
{
	int r;

	while ((r = fake_copy_poll(ctx, ticket)) == 0)
		(void)usleep(20);
	return r < 0 ? r : 0;
}

static inline int fake_copy_fence(void *ctx, uint64_t ticket)
{
	struct fake_exec *f = ctx;
	struct fake_way *way = &f->ways[ticket & 3];

	if (ticket >> 2 >= way->n_done)
		way->copies[(ticket >> 2) % FAKE_MAX_COPIES].is_fenced = true;
	return 0;
}

static inline int fake_copy_follow(void *ctx, uint64_t ticket)
{
	struct fake_exec *f = ctx;

	f->ways[KN_TO_DEVICE].follows = (ticket >> 2) + 1;
	return 0;
}

static inline void *fake_host_alloc(void *ctx, size_t bytes)
{
	struct fake_exec *f = ctx;
	char *p = NULL;

	if (atomic_load(&f->host_bytes) + bytes <= atomic_load(&f->host_limit))
		p = calloc(1, bytes);
	if (p)
		atomic_fetch_add(&f->host_bytes, bytes);
	atomic_store(&f->host_memory, p);
	return p;
}

static inline void fake_host_free(void *ctx, void *p)
{
	(void)ctx;
	free(p);
}

#endif
