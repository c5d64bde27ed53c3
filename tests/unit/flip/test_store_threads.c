/* Many threads on few objects: opened, written, put, collected, checked and synced at the same time. */
#include <pthread.h>
#include <stdatomic.h>
#include <time.h>

#include "store_test.h"

enum { N = 40, N_WORKERS = 4, ROUNDS = 1500, UPKEEP_ROUNDS = 25 };

static uint8_t digests[N][32];
static uint8_t *data[N];
static size_t sizes[N];
static struct flip_store *store;
static atomic_uint n_working;
static atomic_uint_fast64_t n_completed;

static uint32_t next_random(uint32_t *x)
{
	*x = *x * 1664525 + 1013904223;
	return *x >> 8;
}

/* cmocka's own leave the thread by a jump into another's stack. */
#define must_be(x, y)                                                                                 \
	do {                                                                                          \
		long long must_x = (long long)(x);                                                    \
		if (must_x != (long long)(y)) {                                                       \
			(void)fprintf(stderr, "%s:%d: %s is %lld\n", __FILE__, __LINE__, #x, must_x); \
			abort();                                                                      \
		}                                                                                     \
	} while (0)

static void use_object(size_t i, uint32_t *random)
{
	uint8_t back[60000];
	struct flip_object *o;
	size_t offset = next_random(random) % sizes[i], size = 1 + next_random(random) % 20000;
	uint64_t missing, n_missing;
	int fd;

	must_be(sizes[i] <= sizeof(back), true);
	if (size > sizes[i] - offset)
		size = sizes[i] - offset;
	must_be(flip_object_open(store, digests[i], sizes[i], &o, NULL), 0);
	if (flip_object_has(o, offset, size)) {
		fd = flip_object_fd(o);
		must_be(fd >= 0, true);
		must_be(pread(fd, back, size, (off_t)offset), size);
		must_be(memcmp(back, data[i] + offset, size), 0);
	} else {
		must_be(flip_object_write(o, data[i] + offset, size, offset, next_random(random) % 2, NULL), 0);
	}
	if (next_random(random) % 8 == 0) { /* the rest */
		while (flip_object_next_missing(o, 0, &missing, &n_missing) == 1)
			must_be(flip_object_write(o, data[i] + missing, n_missing, missing, true, NULL), 0);
		must_be(flip_object_is_complete(o), true);
		atomic_fetch_add(&n_completed, 1);
	}
	flip_object_unref(o);
}

static void *work(void *arg)
{
	uint32_t random = (uint32_t)(uintptr_t)arg;
	bool was_there;

	for (int round = 0; round < ROUNDS; round++) {
		size_t i = next_random(&random) % N;

		if (next_random(&random) % 10 == 0)
			must_be(flip_store_put(store, digests[i], data[i], sizes[i], &was_there, NULL), 0);
		else
			use_object(i, &random);
	}
	atomic_fetch_sub(&n_working, 1);
	return NULL;
}

static void print_line(void *arg, const char *line)
{
	(void)fprintf(stderr, "fsck: %s\n", line);
}

static void *keep_up(void *arg)
{
	uintptr_t which = (uintptr_t)arg;

	for (int round = 0; round < UPKEEP_ROUNDS || atomic_load(&n_working) > 0; round++) {
		struct flip_fsck_result result;
		struct flip_store_stat stat;

		if (which == 0) {
			must_be(flip_store_gc(store, 0, false, walk_index, NULL, NULL, NULL), 0);
		} else if (which == 1) {
			must_be(flip_store_sync(store, NULL), 0);
			must_be(flip_store_stat(store, &stat, NULL), 0);
		} else {
			must_be(flip_store_fsck(store, false, print_line, NULL, &result, NULL), 0);
			must_be(result.n_bad + result.n_leftover, 0);
		}
	}
	return NULL;
}

static void all_at_once(void **state)
{
	struct home *h = *state;
	pthread_t workers[N_WORKERS], upkeep[3];
	struct flip_fsck_result result;

	for (size_t i = 0; i < N; i++) {
		sizes[i] = 1 + i * 1409;
		data[i] = content(i, sizes[i], digests[i]);
	}
	store = home_open(h, NULL);
	assert_int_equal(try_add_layer(store, '1', FLIP_LAYER_LAZY, 0, digests, N / 2), 0);
	{
		struct flip_snapshot sn = { .kind = FLIP_SNAPSHOT_COMMITTED, .name = "sn" };

		sn.layer = (char *)layer_digest('1');
		assert_int_equal(flip_store_snapshot_add(store, &sn, NULL), 0);
	}
	atomic_store(&n_working, N_WORKERS);
	for (uintptr_t i = 0; i < N_WORKERS; i++)
		assert_int_equal(pthread_create(&workers[i], NULL, work, (void *)(i + 1)), 0);
	for (uintptr_t i = 0; i < 3; i++)
		assert_int_equal(pthread_create(&upkeep[i], NULL, keep_up, (void *)i), 0);
	for (size_t i = 0; i < N_WORKERS; i++)
		assert_int_equal(pthread_join(workers[i], NULL), 0);
	for (size_t i = 0; i < 3; i++)
		assert_int_equal(pthread_join(upkeep[i], NULL), 0);
	assert_true(atomic_load(&n_completed) > N);
	assert_int_equal(flip_store_fsck(store, false, print_line, NULL, &result, NULL), 0);
	assert_int_equal(result.n_bad + result.n_leftover, 0);
	for (size_t i = 0; i < N; i++)
		free(data[i]);
}

/* More putters than there are temporary names. */
static void *put_all(void *arg)
{
	bool was_there;

	for (size_t i = 0; i < N; i++)
		must_be(flip_store_put(store, digests[i], data[i], sizes[i], &was_there, NULL), 0);
	return NULL;
}

static void a_hundred_putters(void **state)
{
	struct home *h = *state;
	pthread_t threads[100];
	struct flip_store_stat stat;

	store = home_open(h, NULL);
	for (size_t i = 0; i < N; i++) {
		sizes[i] = 3000;
		data[i] = content(500 + i, sizes[i], digests[i]);
	}
	for (size_t i = 0; i < 100; i++)
		assert_int_equal(pthread_create(&threads[i], NULL, put_all, NULL), 0);
	for (size_t i = 0; i < 100; i++)
		assert_int_equal(pthread_join(threads[i], NULL), 0);
	assert_int_equal(flip_store_stat(store, &stat, NULL), 0);
	assert_int_equal(stat.n_objects, N);
	for (size_t i = 0; i < N; i++) {
		assert_true(file_is(object_path(h, "objects", digests[i]), data[i], sizes[i]));
		free(data[i]);
	}
}

enum { MANY = 6000 };

/* Small contents, all different: [from, to). */
static void put_numbers(size_t from, size_t to)
{
	for (size_t i = from; i < to; i++) {
		uint8_t digest[32];
		bool was_there;

		(void)base_sha256_bytes(&i, sizeof(i), digest);
		must_be(flip_store_put(store, digest, &i, sizeof(i), &was_there, NULL), 0);
	}
}

static void *put_more(void *arg)
{
	size_t from = (size_t)(uintptr_t)arg;

	put_numbers(from, from + MANY);
	return NULL;
}

static void *ask_for_numbers(void *arg)
{
	struct flip_store_stat stat;

	must_be(flip_store_stat(store, &stat, NULL), 0);
	return NULL;
}

/* After a crash nobody knows how many there are: who asks first counts, while contents come. */
static void counting_while_contents_come_is_exact(void **state)
{
	struct home *h = *state;
	pthread_t putters[2], askers[2];
	struct flip_store_stat stat;
	pid_t pid = fork();
	int status;

	if (pid == 0) {
		store = home_open(h, NULL);
		put_numbers(0, MANY);
		_exit(0); /* nothing is closed */
	}
	assert_true(pid > 0);
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_int_equal(status, 0);
	store = home_open(h, NULL);
	for (uintptr_t i = 0; i < 2; i++)
		assert_int_equal(pthread_create(&putters[i], NULL, put_more, (void *)((i + 1) * MANY)), 0);
	for (uintptr_t i = 0; i < 2; i++)
		assert_int_equal(pthread_create(&askers[i], NULL, ask_for_numbers, NULL), 0);
	for (size_t i = 0; i < 2; i++) {
		assert_int_equal(pthread_join(askers[i], NULL), 0);
		assert_int_equal(pthread_join(putters[i], NULL), 0);
	}
	assert_int_equal(flip_store_stat(store, &stat, NULL), 0);
	assert_int_equal(stat.n_objects, 3 * MANY);
	assert_int_equal(stat.object_bytes, 3 * MANY * sizeof(size_t));
}

int main(void)
{
#define ON_STORE(test) cmocka_unit_test_setup_teardown(test, home_setup, home_teardown)
	const struct CMUnitTest tests[] = {
		ON_STORE(all_at_once),
		ON_STORE(a_hundred_putters),
		ON_STORE(counting_while_contents_come_is_exact),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
