/* Queues of jobs: each is done once, urgent ones first, and all of them before the end. */
#include "test.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>

#include "node/work.h"

enum { N_JOBS = 2000, N_ADDERS = 4 };

struct gate { /* holds the only thread until it is opened */
	pthread_mutex_t lock;
	pthread_cond_t opened;
	bool is_open, is_reached;
};

struct journal {
	struct gate gate;
	int items[64];
	size_t n; /* written by the only thread */
};

struct note {
	struct journal *journal;
	int number;
};

static void wait_at_gate(void *arg)
{
	struct gate *g = arg;

	pthread_mutex_lock(&g->lock);
	g->is_reached = true;
	pthread_cond_broadcast(&g->opened);
	while (!g->is_open)
		pthread_cond_wait(&g->opened, &g->lock);
	pthread_mutex_unlock(&g->lock);
}

static void gate_init(struct gate *g)
{
	*g = (struct gate){ .is_open = false };
	(void)pthread_mutex_init(&g->lock, NULL);
	(void)pthread_cond_init(&g->opened, NULL);
}

static void gate_reached(struct gate *g)
{
	pthread_mutex_lock(&g->lock);
	while (!g->is_reached)
		pthread_cond_wait(&g->opened, &g->lock);
	pthread_mutex_unlock(&g->lock);
}

static void gate_open(struct gate *g)
{
	pthread_mutex_lock(&g->lock);
	g->is_open = true;
	pthread_cond_broadcast(&g->opened);
	pthread_mutex_unlock(&g->lock);
}

static void write_down(void *arg)
{
	struct note *note = arg;

	note->journal->items[note->journal->n++] = note->number;
}

static void urgent_first(void **state)
{
	static const int expected[] = { 100, 101, 102, 0, 1, 2 };
	struct journal j = { .n = 0 };
	struct note notes[6];
	struct flip_work *w;
	struct err err;

	(void)state;
	gate_init(&j.gate);
	assert_int_equal(flip_work_new(1, &w, &err), 0);
	assert_int_equal(flip_work_add(w, wait_at_gate, &j.gate, false), 0);
	gate_reached(&j.gate);
	for (int i = 0; i < 3; i++) {
		notes[2 * i] = (struct note){ &j, i };
		notes[2 * i + 1] = (struct note){ &j, 100 + i };
		assert_int_equal(flip_work_add(w, write_down, &notes[2 * i], false), 0);
		assert_int_equal(flip_work_add(w, write_down, &notes[2 * i + 1], true), 0);
	}
	gate_open(&j.gate);
	flip_work_free(w);
	assert_int_equal(j.n, 6);
	assert_memory_equal(j.items, expected, sizeof(expected));
}

struct crowd {
	struct flip_work *work;
	atomic_uint done[N_JOBS];
	atomic_uint next;
	atomic_int failed;
};

static void count(void *arg)
{
	atomic_fetch_add((atomic_uint *)arg, 1);
}

static void *add_some(void *arg)
{
	struct crowd *c = arg;
	unsigned i;

	while ((i = atomic_fetch_add(&c->next, 1)) < N_JOBS) {
		if (flip_work_add(c->work, count, &c->done[i], i % 3 == 0) < 0)
			atomic_store(&c->failed, 1);
	}
	return NULL;
}

static void each_once(void **state)
{
	static struct crowd c;
	pthread_t adders[N_ADDERS];
	struct err err;

	(void)state;
	assert_int_equal(flip_work_new(3, &c.work, &err), 0);
	for (int i = 0; i < N_ADDERS; i++)
		assert_int_equal(pthread_create(&adders[i], NULL, add_some, &c), 0);
	for (int i = 0; i < N_ADDERS; i++)
		assert_int_equal(pthread_join(adders[i], NULL), 0);
	flip_work_free(c.work);
	assert_int_equal(c.failed, 0);
	for (int i = 0; i < N_JOBS; i++)
		assert_int_equal(c.done[i], 1);
}

struct chain {
	struct flip_work *work;
	struct gate gate;
	atomic_int left;
};

static void add_another(void *arg)
{
	struct chain *c = arg;

	if (atomic_fetch_sub(&c->left, 1) > 1)
		assert_int_equal(flip_work_add(c->work, add_another, c, false), 0);
}

/* A job may add jobs, also while the queue is being ended. */
static void jobs_of_jobs(void **state)
{
	struct chain c = { .left = 50 };
	struct err err;

	(void)state;
	assert_int_equal(flip_work_new(1, &c.work, &err), 0);
	assert_int_equal(flip_work_add(c.work, add_another, &c, true), 0);
	flip_work_free(c.work);
	assert_int_equal(c.left, 0);
}

static void ends_idle(void **state)
{
	struct flip_work *w;
	struct err err;

	(void)state;
	assert_int_equal(flip_work_new(8, &w, &err), 0);
	flip_work_free(w);
	flip_work_free(NULL);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(urgent_first),
		cmocka_unit_test(each_once),
		cmocka_unit_test(jobs_of_jobs),
		cmocka_unit_test(ends_idle),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
