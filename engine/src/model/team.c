/* Each thread has a rank and no other thread takes it: devices are bound to threads, and ranks wait for each other.
 * Idle threads sleep. */
#include "model/team.h"

#include <errno.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdlib.h>

struct member {
	struct team *team;
	uint32_t rank;
	pthread_t thread;
};

struct team {
	uint32_t n, n_started;
	pthread_mutex_t lock;
	pthread_cond_t begin, end;
	/* protected by lock */
	uint64_t turn;   /* jobs so far */
	uint32_t n_busy; /* of this one */
	bool ends;
	void (*fn)(void *arg, uint32_t rank);
	void *arg;
	struct member members[];
};

static void *serve(void *arg)
{
	const struct member *me = arg;
	struct team *t = me->team;
	uint64_t seen = 0;

	(void)pthread_mutex_lock(&t->lock);
	for (;;) {
		while (t->turn == seen && !t->ends)
			(void)pthread_cond_wait(&t->begin, &t->lock);
		if (t->ends)
			break;
		seen = t->turn;
		(void)pthread_mutex_unlock(&t->lock);
		t->fn(t->arg, me->rank);
		(void)pthread_mutex_lock(&t->lock);
		if (--t->n_busy == 0)
			(void)pthread_cond_signal(&t->end);
	}
	(void)pthread_mutex_unlock(&t->lock);
	return NULL;
}

int runner_team_new(uint32_t n, struct team **ret_team)
{
	struct team *t = calloc(1, sizeof(*t) + n * sizeof(t->members[0]));
	int r = 0;

	if (!t)
		return -ENOMEM;
	t->n = n;
	(void)pthread_mutex_init(&t->lock, NULL);
	(void)pthread_cond_init(&t->begin, NULL);
	(void)pthread_cond_init(&t->end, NULL);
	t->n_started = 1;
	for (uint32_t i = 1; i < n && r == 0; i++) {
		t->members[i] = (struct member){ .team = t, .rank = i };
		r = -pthread_create(&t->members[i].thread, NULL, serve, &t->members[i]);
		t->n_started += r == 0;
	}
	if (r < 0) {
		runner_team_free(t);
		return r;
	}
	*ret_team = t;
	return 0;
}

void runner_team_free(struct team *t)
{
	if (!t)
		return;
	(void)pthread_mutex_lock(&t->lock);
	t->ends = true;
	(void)pthread_cond_broadcast(&t->begin);
	(void)pthread_mutex_unlock(&t->lock);
	for (uint32_t i = 1; i < t->n_started; i++)
		(void)pthread_join(t->members[i].thread, NULL);
	(void)pthread_cond_destroy(&t->end);
	(void)pthread_cond_destroy(&t->begin);
	(void)pthread_mutex_destroy(&t->lock);
	free(t);
}

void runner_team_run(struct team *t, void (*fn)(void *arg, uint32_t rank), void *arg)
{
	(void)pthread_mutex_lock(&t->lock);
	t->fn = fn;
	t->arg = arg;
	t->n_busy = t->n - 1;
	t->turn++;
	(void)pthread_cond_broadcast(&t->begin);
	(void)pthread_mutex_unlock(&t->lock);
	fn(arg, 0);
	(void)pthread_mutex_lock(&t->lock);
	while (t->n_busy > 0)
		(void)pthread_cond_wait(&t->end, &t->lock);
	(void)pthread_mutex_unlock(&t->lock);
}
