/* See line.h. One lock guards the list; the work between is long enough (a compressed chunk) for that not to matter. */
#include "line.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

struct flip_line {
	const struct flip_line_ops *ops;
	void *arg;
	size_t max_cost;
	unsigned n_workers; /* threads that were started */
	pthread_t *workers, taker;
	pthread_mutex_t lock;
	pthread_cond_t has_room, has_work, has_done;
	/* All below: protected by lock. */
	struct flip_line_item *first, *last;           /* on the line, in order */
	struct flip_line_item *first_work, *last_work; /* not taken by a worker yet */
	size_t cost;
	bool is_closed;
	int error;
	struct err err;
};

/* The first error stays. Wakes everybody. Called with the lock held. */
static void fail(struct flip_line *l, int r, const struct err *err)
{
	if (!l->error) {
		l->error = r;
		l->err = *err;
		if (!l->err.code)
			(void)err_set(&l->err, r, "%s", strerror(-r));
	}
	(void)pthread_cond_broadcast(&l->has_room);
	(void)pthread_cond_broadcast(&l->has_work);
	(void)pthread_cond_broadcast(&l->has_done);
}

static void *worker_main(void *arg)
{
	struct flip_line *l = arg;
	void *worker = l->ops->worker_new(l->arg);
	struct err err = { 0 };

	(void)pthread_mutex_lock(&l->lock);
	if (!worker)
		fail(l, -ENOMEM, &err);
	for (;;) {
		struct flip_line_item *item;
		int r;

		while (!l->first_work && !l->is_closed && !l->error)
			(void)pthread_cond_wait(&l->has_work, &l->lock);
		if (l->error || !l->first_work)
			break;
		item = l->first_work;
		l->first_work = item->next_work;
		(void)pthread_mutex_unlock(&l->lock);
		r = l->ops->work(l->arg, worker, item, &err);
		(void)pthread_mutex_lock(&l->lock);
		item->is_done = true;
		if (r < 0)
			fail(l, r, &err);
		if (item == l->first)
			(void)pthread_cond_signal(&l->has_done);
	}
	(void)pthread_mutex_unlock(&l->lock);
	if (worker)
		l->ops->worker_free(worker);
	return NULL;
}

static void *taker_main(void *arg)
{
	struct flip_line *l = arg;
	struct err err = { 0 };

	(void)pthread_mutex_lock(&l->lock);
	for (;;) {
		struct flip_line_item *item;
		int r;

		while (!l->error && !(l->first && l->first->is_done) && !(l->is_closed && !l->first))
			(void)pthread_cond_wait(&l->has_done, &l->lock);
		if (l->error || !l->first)
			break;
		item = l->first;
		(void)pthread_mutex_unlock(&l->lock);
		r = l->ops->take(l->arg, item, &err);
		(void)pthread_mutex_lock(&l->lock);
		l->first = item->next;
		l->cost -= item->cost;
		(void)pthread_cond_signal(&l->has_room);
		l->ops->item_free(item);
		if (r < 0)
			fail(l, r, &err);
	}
	(void)pthread_mutex_unlock(&l->lock);
	return NULL;
}

static void line_free(struct flip_line *l)
{
	while (l->first) {
		struct flip_line_item *item = l->first;

		l->first = item->next;
		l->ops->item_free(item);
	}
	(void)pthread_mutex_destroy(&l->lock);
	(void)pthread_cond_destroy(&l->has_room);
	(void)pthread_cond_destroy(&l->has_work);
	(void)pthread_cond_destroy(&l->has_done);
	free(l->workers);
	free(l);
}

static void close_and_join(struct flip_line *l, bool has_taker)
{
	(void)pthread_mutex_lock(&l->lock);
	l->is_closed = true;
	(void)pthread_cond_broadcast(&l->has_work);
	(void)pthread_cond_broadcast(&l->has_done);
	(void)pthread_mutex_unlock(&l->lock);
	for (unsigned i = 0; i < l->n_workers; i++)
		(void)pthread_join(l->workers[i], NULL);
	if (has_taker)
		(void)pthread_join(l->taker, NULL);
}

int flip_line_new(const struct flip_line_ops *ops, void *arg, unsigned n_workers, size_t max_cost,
                  struct flip_line **ret_line, struct err *err)
{
	struct flip_line *l = calloc(1, sizeof(*l));
	int r;

	if (!l)
		return err_set(err, -ENOMEM, "out of memory");
	l->ops = ops;
	l->arg = arg;
	l->max_cost = max_cost;
	(void)pthread_mutex_init(&l->lock, NULL);
	(void)pthread_cond_init(&l->has_room, NULL);
	(void)pthread_cond_init(&l->has_work, NULL);
	(void)pthread_cond_init(&l->has_done, NULL);
	l->workers = calloc(n_workers, sizeof(*l->workers));
	r = l->workers ? -pthread_create(&l->taker, NULL, taker_main, l) : -ENOMEM;
	if (r < 0) {
		line_free(l);
		return err_set(err, r, "no thread: %s", strerror(-r));
	}
	for (; r == 0 && l->n_workers < n_workers; l->n_workers += r == 0)
		r = -pthread_create(&l->workers[l->n_workers], NULL, worker_main, l);
	if (l->n_workers == 0) { /* fewer than wanted will do */
		close_and_join(l, true);
		line_free(l);
		return err_set(err, r, "no thread: %s", strerror(-r));
	}
	*ret_line = l;
	return 0;
}

int flip_line_push(struct flip_line *l, struct flip_line_item *item, size_t cost, struct err *err)
{
	int r;

	item->next = item->next_work = NULL;
	item->cost = cost;
	item->is_done = false;
	(void)pthread_mutex_lock(&l->lock);
	while (!l->error && l->first && l->cost + cost > l->max_cost)
		(void)pthread_cond_wait(&l->has_room, &l->lock);
	r = l->error;
	if (r == 0) {
		if (l->first)
			l->last->next = item;
		else
			l->first = item;
		l->last = item;
		if (l->first_work)
			l->last_work->next_work = item;
		else
			l->first_work = item;
		l->last_work = item;
		l->cost += cost;
		(void)pthread_cond_signal(&l->has_work);
	} else if (err) {
		*err = l->err;
	}
	(void)pthread_mutex_unlock(&l->lock);
	if (r < 0)
		l->ops->item_free(item);
	return r;
}

int flip_line_finish(struct flip_line *l, struct err *err)
{
	int r;

	if (!l)
		return 0;
	close_and_join(l, true);
	r = l->error;
	if (r < 0 && err)
		*err = l->err;
	line_free(l);
	return r;
}
