/* Two lists, one lock: the urgent list is emptied first. Threads sleep when there is nothing to do. */
#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "node/work.h"

struct job {
	struct job *next;
	void (*fn)(void *arg);
	void *arg;
};

struct flip_work {
	pthread_mutex_t lock;
	pthread_cond_t wake;
	struct job *first[2], **last[2]; /* 0 urgent; protected by lock */
	bool stops;                      /* protected by lock */
	unsigned n_threads;
	pthread_t threads[];
};

static void *worker(void *arg)
{
	struct flip_work *w = arg;

	pthread_mutex_lock(&w->lock);
	for (;;) {
		int list = w->first[0] ? 0 : 1;
		struct job *j = w->first[list];

		if (!j && w->stops)
			break;
		if (!j) {
			pthread_cond_wait(&w->wake, &w->lock);
			continue;
		}
		w->first[list] = j->next;
		if (!j->next)
			w->last[list] = &w->first[list];
		pthread_mutex_unlock(&w->lock);
		j->fn(j->arg);
		free(j);
		pthread_mutex_lock(&w->lock);
	}
	pthread_mutex_unlock(&w->lock);
	return NULL;
}

int flip_work_new(unsigned n_threads, struct flip_work **ret_work, struct err *err)
{
	struct flip_work *w = calloc(1, sizeof(*w) + n_threads * sizeof(*w->threads));

	if (!w)
		return err_set(err, -ENOMEM, "out of memory");
	(void)pthread_mutex_init(&w->lock, NULL);
	(void)pthread_cond_init(&w->wake, NULL);
	w->last[0] = &w->first[0];
	w->last[1] = &w->first[1];
	for (; w->n_threads < n_threads; w->n_threads++) {
		int r = pthread_create(&w->threads[w->n_threads], NULL, worker, w);

		if (r) {
			flip_work_free(w);
			return err_set(err, -r, "a thread: %s", strerror(r));
		}
	}
	*ret_work = w;
	return 0;
}

void flip_work_free(struct flip_work *w)
{
	if (!w)
		return;
	pthread_mutex_lock(&w->lock);
	w->stops = true;
	pthread_cond_broadcast(&w->wake);
	pthread_mutex_unlock(&w->lock);
	for (unsigned i = 0; i < w->n_threads; i++)
		(void)pthread_join(w->threads[i], NULL);
	(void)pthread_cond_destroy(&w->wake);
	(void)pthread_mutex_destroy(&w->lock);
	free(w);
}

int flip_work_add(struct flip_work *w, void (*fn)(void *arg), void *arg, bool urgent)
{
	struct job *j = malloc(sizeof(*j));
	int list = urgent ? 0 : 1;

	if (!j)
		return -ENOMEM;
	*j = (struct job){ NULL, fn, arg };
	pthread_mutex_lock(&w->lock);
	*w->last[list] = j;
	w->last[list] = &j->next;
	pthread_cond_signal(&w->wake);
	pthread_mutex_unlock(&w->lock);
	return 0;
}
