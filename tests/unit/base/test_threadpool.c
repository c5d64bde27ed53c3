/* Every item exactly once, whatever the shape of the loop; late workers do nothing; an idle pool uses no CPU. The
 * same binary under SAN=thread is the proof that the loop descriptor is never read while it changes. */
#include "base/threadpool.h"

#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "cpu_internal.h"
#include "test.h"

struct tally {
	_Atomic uint32_t *hits; /* per item */
	size_t n_items;
	size_t grain;
	unsigned n_threads;
	_Atomic uint32_t n_wrong;
	_Atomic int running[64]; /* per worker */
};

static void count_items(void *arg, size_t begin, size_t end, unsigned worker)
{
	struct tally *t = arg;

	if (begin >= end || end > t->n_items || end - begin > t->grain || worker >= t->n_threads) {
		atomic_fetch_add(&t->n_wrong, 1);
		return;
	}
	if (atomic_fetch_add(&t->running[worker], 1) != 0)
		atomic_fetch_add(&t->n_wrong, 1); /* two at once with the same number */
	for (size_t i = begin; i < end; i++)
		atomic_fetch_add(&t->hits[i], 1);
	atomic_fetch_sub(&t->running[worker], 1);
}

static void check_loop(struct base_threadpool *pool, size_t n_items, size_t grain)
{
	struct tally t = { .n_items = n_items, .grain = grain ? grain : 1, .n_threads = base_threadpool_size(pool) };

	t.hits = calloc(n_items ? n_items : 1, sizeof(*t.hits));
	assert_non_null(t.hits);
	base_threadpool_for(pool, n_items, grain, count_items, &t);
	assert_int_equal(t.n_wrong, 0);
	for (size_t i = 0; i < n_items; i++)
		assert_int_equal(t.hits[i], 1);
	free(t.hits);
}

static void every_item_runs_exactly_once(void **state)
{
	static const size_t sizes[] = { 0, 1, 2, 3, 7, 64, 1000, 4097 };
	static const size_t grains[] = { 0, 1, 2, 3, 64, 5000, SIZE_MAX };

	(void)state;
	for (unsigned n = 1; n <= 9; n += 2) {
		struct base_threadpool *pool = NULL;

		assert_int_equal(base_threadpool_new(n, &pool, NULL), 0);
		assert_int_equal(base_threadpool_size(pool), n);
		for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
			for (size_t j = 0; j < sizeof(grains) / sizeof(grains[0]); j++)
				check_loop(pool, sizes[i], grains[j]);
		}
		base_threadpool_free(pool);
	}
}

/* Each loop's arguments live on the stack of one call and die with it, so that a worker that took a chunk too late
 * or twice would write into the frame of a later call. */
static void short_loops_in_a_row_do_not_mix(void **state)
{
	struct base_threadpool *pool = NULL;

	(void)state;
	assert_int_equal(base_threadpool_new(6, &pool, NULL), 0);
	for (size_t round = 0; round < 20000; round++) {
		_Atomic uint32_t hits[8] = { 0 };
		struct tally t = { .hits = hits, .n_items = 2 + round % 7, .grain = 1, .n_threads = 6 };

		base_threadpool_for(pool, t.n_items, 1, count_items, &t);
		assert_int_equal(t.n_wrong, 0);
		for (size_t i = 0; i < t.n_items; i++)
			assert_int_equal(hits[i], 1);
	}
	base_threadpool_free(pool);
}

static void sleep_us(long us)
{
	const struct timespec ts = { us / 1000000, us % 1000000 * 1000 };

	(void)nanosleep(&ts, NULL);
}

/* Pauses around the spin time put workers at every stage of falling asleep when the next loop begins. */
static void loops_after_pauses_lose_no_wakeup(void **state)
{
	struct base_threadpool *pool = NULL;

	(void)state;
	assert_int_equal(base_threadpool_new(4, &pool, NULL), 0);
	for (long round = 0; round < 400; round++) {
		check_loop(pool, 64, 1);
		sleep_us(round % 40 * 3);
	}
	base_threadpool_free(pool);
}

/* Holds the chunk of item 0 until all others are done; alone in a loop, or run in order, it would never end. */
struct rendezvous {
	_Atomic unsigned n_others;
	unsigned n_wanted;
};

static void wait_in_item_zero(void *arg, size_t begin, size_t end, unsigned worker)
{
	struct rendezvous *rv = arg;

	(void)end;
	(void)worker;
	if (begin != 0) {
		atomic_fetch_add(&rv->n_others, 1);
		return;
	}
	while (atomic_load(&rv->n_others) < rv->n_wanted)
		sleep_us(50);
}

static void a_held_chunk_delays_no_other(void **state)
{
	struct base_threadpool *pool = NULL;

	(void)state;
	assert_int_equal(base_threadpool_new(2, &pool, NULL), 0);
	for (int i = 0; i < 50; i++) {
		struct rendezvous rv = { .n_wanted = 99 };

		base_threadpool_for(pool, 100, 1, wait_in_item_zero, &rv);
		assert_int_equal(rv.n_others, 99);
	}
	base_threadpool_free(pool);
}

struct slow_worker {
	_Atomic bool worker_has_one;
};

/* The caller's chunks wait until a worker holds one; that one is slow, so that the caller goes to sleep. */
static void slow_for_workers(void *arg, size_t begin, size_t end, unsigned worker)
{
	struct slow_worker *s = arg;

	(void)begin;
	(void)end;
	if (worker != 0) {
		atomic_store(&s->worker_has_one, true);
		sleep_us(5000);
		return;
	}
	while (!atomic_load(&s->worker_has_one))
		sleep_us(20);
}

static void the_caller_sleeps_through_a_slow_chunk(void **state)
{
	struct base_threadpool *pool = NULL;

	(void)state;
	assert_int_equal(base_threadpool_new(3, &pool, NULL), 0);
	for (int i = 0; i < 20; i++) {
		struct slow_worker s = { false };

		base_threadpool_for(pool, 3, 1, slow_for_workers, &s);
		assert_true(s.worker_has_one);
	}
	base_threadpool_free(pool);
}

/* Workers that are late, as those whose core was taken: they stay away, every item still runs, and they return. */
static void late_workers_are_sent_away_and_return(void **state)
{
	struct base_threadpool *pool = NULL;
	unsigned least = 4;

	(void)state;
	assert_int_equal(base_threadpool_new(4, &pool, NULL), 0);
	base_threadpool_yield(pool);
	for (int i = 0; i < 400 && least == 4; i++) {
		struct slow_worker s = { false };

		base_threadpool_for(pool, 4, 1, slow_for_workers, &s);
		least = base_threadpool_active(pool);
	}
	assert_int_equal(least, 3);
	for (int i = 0; i < 200000 && base_threadpool_active(pool) < 4; i++)
		check_loop(pool, 64, 1);
	assert_int_equal(base_threadpool_active(pool), 4);
	/* Freed while one is away. */
	for (int i = 0; i < 400 && base_threadpool_active(pool) == 4; i++) {
		struct slow_worker s = { false };

		base_threadpool_for(pool, 4, 1, slow_for_workers, &s);
	}
	base_threadpool_free(pool);
}

static double cpu_seconds(void)
{
	struct timespec ts;

	(void)clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &ts);
	return (double)ts.tv_sec + (double)ts.tv_nsec * 1e-9;
}

static void an_idle_pool_uses_no_cpu(void **state)
{
	struct base_threadpool *pool = NULL;
	double before, used = 1;

	(void)state;
	assert_int_equal(base_threadpool_new(4, &pool, NULL), 0);
	check_loop(pool, 1000, 1);
	/* Past the spinning, which takes longer where others have the cores; who does not sleep does not in any window.
	 */
	for (int i = 0; i < 20 && used >= 0.03; i++) {
		before = cpu_seconds();
		sleep_us(300000);
		used = cpu_seconds() - before;
	}
	assert_true(used < 0.03);
	base_threadpool_free(pool);
}

static void a_pool_is_freed_in_any_state(void **state)
{
	(void)state;
	base_threadpool_free(NULL);
	for (int i = 0; i < 200; i++) {
		struct base_threadpool *pool = NULL;

		assert_int_equal(base_threadpool_new(4, &pool, NULL), 0);
		if (i % 2)
			check_loop(pool, 16, 1);
		if (i % 4 == 3)
			sleep_us(100);
		base_threadpool_free(pool);
	}
}

static void too_many_threads_are_refused(void **state)
{
	struct base_threadpool *pool = NULL;
	struct err err = { 0 };

	(void)state;
	assert_int_equal(base_threadpool_new(1000000, &pool, &err), -EINVAL);
	assert_null(pool);
	assert_non_null(strstr(err_text(&err), "1000000"));
}

static void *count_on_one_core(void *arg)
{
	cpu_set_t set;
	unsigned *ret = arg;

	CPU_ZERO(&set);
	(void)sched_getaffinity(0, sizeof(set), &set);
	for (int i = 0, kept = 0; i < CPU_SETSIZE; i++) {
		if (CPU_ISSET(i, &set) && kept++)
			CPU_CLR(i, &set);
	}
	if (sched_setaffinity(0, sizeof(set), &set) == 0)
		*ret = base_cpu_count();
	return NULL;
}

static void cpu_count_follows_affinity(void **state)
{
	unsigned n = 0;
	pthread_t thread;

	(void)state;
	assert_true(base_cpu_count() >= 1);
	assert_int_equal(pthread_create(&thread, NULL, count_on_one_core, &n), 0);
	assert_int_equal(pthread_join(thread, NULL), 0);
	assert_int_equal(n, 1);
}

static void put(const char *dir, const char *name, const char *text)
{
	char path[512];
	FILE *f;

	(void)snprintf(path, sizeof(path), "%s/%s", dir, name);
	f = fopen(path, "w");
	assert_non_null(f);
	assert_true(fputs(text, f) >= 0);
	assert_int_equal(fclose(f), 0);
}

static void the_tightest_cgroup_quota_counts(void **state)
{
	char dir[] = "/tmp/test-cgroup-XXXXXX", sub[128], leaf[160], list[128], cmd[160];

	(void)state;
	assert_non_null(mkdtemp(dir));
	(void)snprintf(sub, sizeof(sub), "%s/a", dir);
	(void)snprintf(leaf, sizeof(leaf), "%s/b", sub);
	(void)snprintf(list, sizeof(list), "%s/list", dir);
	assert_int_equal(mkdir(sub, 0700), 0);
	assert_int_equal(mkdir(leaf, 0700), 0);

	put(dir, "list", "4:memory:/x\n0::/a/b\n");
	assert_int_equal(base_cgroup_cpus(list, dir), 0);
	put(leaf, "cpu.max", "max 100000\n");
	assert_int_equal(base_cgroup_cpus(list, dir), 0);
	put(sub, "cpu.max", "250000 100000\n");
	assert_int_equal(base_cgroup_cpus(list, dir), 3);
	put(dir, "cpu.max", "50000 100000\n");
	assert_int_equal(base_cgroup_cpus(list, dir), 1);
	put(dir, "cpu.max", "0 0\n");
	assert_int_equal(base_cgroup_cpus(list, dir), 3);
	put(dir, "list", "garbage");
	assert_int_equal(base_cgroup_cpus(list, dir), 0);

	(void)snprintf(cmd, sizeof(cmd), "rm -rf %s", dir);
	assert_int_equal(system(cmd), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(every_item_runs_exactly_once),
		cmocka_unit_test(short_loops_in_a_row_do_not_mix),
		cmocka_unit_test(loops_after_pauses_lose_no_wakeup),
		cmocka_unit_test(a_held_chunk_delays_no_other),
		cmocka_unit_test(the_caller_sleeps_through_a_slow_chunk),
		cmocka_unit_test(late_workers_are_sent_away_and_return),
		cmocka_unit_test(an_idle_pool_uses_no_cpu),
		cmocka_unit_test(a_pool_is_freed_in_any_state),
		cmocka_unit_test(too_many_threads_are_refused),
		cmocka_unit_test(cpu_count_follows_affinity),
		cmocka_unit_test(the_tightest_cgroup_quota_counts),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
