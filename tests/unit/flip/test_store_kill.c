/* A process that works on the store is killed at any point, a hundred times and more; what it was told is done is done,
 * what is readable is right, and nothing is left over. */
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <sys/mman.h>
#include <time.h>

#include "store_test.h"

enum {
	ROUNDS = 120,
	N = 160,      /* contents: every third is named by a layer and may not be lost */
	N_NAMES = 64, /* snapshots at once */
	N_PUTTERS = 2,
};

struct shared { /* written by the child, read after its death */
	_Atomic uint8_t is_put[N];
	_Atomic uint64_t n_added, n_removing; /* snapshots: numbered, removed in order */
	_Atomic uint64_t n_synced, n_gc, n_layers, n_opened;
};

static struct shared *shared;
static uint8_t digests[N][32], named[N][32];
static uint8_t *data[N];
static size_t sizes[N], n_named;

static void make_contents(void)
{
	for (size_t i = 0; i < N; i++) {
		sizes[i] = i % 10 == 0 ? 100000 + 4096 * i : i % 7 == 0 ? 0 + i : (i * 7919) % 30000;
		if (sizes[i] == 0)
			sizes[i] = 1;
		data[i] = content(i, sizes[i], digests[i]);
		if (i % 3 == 0)
			memcpy(named[n_named++], digests[i], 32);
	}
}

static uint32_t next_random(uint32_t *x)
{
	*x = *x * 1664525 + 1013904223;
	return *x >> 8;
}

/* ---- The child ------------------------------------------------------------------------------------------------ */

struct worker {
	struct flip_store *store;
	uint32_t random;
};

static void put_one(struct flip_store *s, size_t i)
{
	bool was_there;

	if (flip_store_put(s, digests[i], data[i], sizes[i], &was_there, NULL) == 0 && i % 3 == 0)
		atomic_store(&shared->is_put[i], 1);
}

/* Some pieces, in any order, of any borders. */
static void write_some(struct flip_store *s, size_t i, uint32_t *random)
{
	struct flip_object *o;

	if (flip_object_open(s, digests[i], sizes[i], &o, NULL) < 0)
		return;
	for (int n = 0; n < 8; n++) {
		size_t offset = next_random(random) % sizes[i], size = 1 + next_random(random) % 40000;

		if (size > sizes[i] - offset)
			size = sizes[i] - offset;
		(void)flip_object_write(o, data[i] + offset, size, offset, n % 2 == 0, NULL);
	}
	if (flip_object_is_complete(o) && i % 3 == 0)
		atomic_store(&shared->is_put[i], 1);
	flip_object_unref(o);
}

static void *put_main(void *arg)
{
	struct worker *w = arg;

	for (;;) {
		size_t i = next_random(&w->random) % N;

		if (next_random(&w->random) % 3 == 0)
			put_one(w->store, i);
		else
			write_some(w->store, i, &w->random);
	}
	return NULL;
}

static void *row_main(void *arg)
{
	struct worker *w = arg;
	char name[32];

	for (;;) {
		struct flip_snapshot sn = { .kind = FLIP_SNAPSHOT_ACTIVE, .name = name };
		uint64_t n = atomic_load(&shared->n_added), removing = atomic_load(&shared->n_removing);

		(void)snprintf(name, sizeof(name), "sn-%llu", (unsigned long long)n);
		/* The one before may have been killed between the change and our note of it. */
		if (flip_store_snapshot_add(w->store, &sn, NULL) != -EIO)
			atomic_store(&shared->n_added, n + 1);
		if (n - removing > N_NAMES) {
			atomic_store(&shared->n_removing, removing + 1);
			(void)snprintf(name, sizeof(name), "sn-%llu", (unsigned long long)removing);
			(void)flip_store_snapshot_remove(w->store, name, NULL);
		}
	}
	return NULL;
}

static void *upkeep_main(void *arg)
{
	struct worker *w = arg;

	for (;;) {
		switch (next_random(&w->random) % 3) {
		case 0:
			atomic_fetch_add(&shared->n_gc,
			                 flip_store_gc(w->store, 0, false, walk_index, NULL, NULL, NULL) == 0);
			break;
		case 1:
			atomic_fetch_add(&shared->n_synced, flip_store_sync(w->store, NULL) == 0);
			break;
		default:
			atomic_fetch_add(&shared->n_layers,
			                 try_add_layer(w->store, '1', FLIP_LAYER_UNPACKED, 0, named, n_named) == 0);
		}
	}
	return NULL;
}

static void child_main(const char *path, uint32_t seed)
{
	static const struct flip_store_opts opts = { .min_free_bytes = 1 };
	struct worker workers[N_PUTTERS + 2];
	struct flip_store *s;
	struct err err = { 0 };
	pthread_t thread;

	if (flip_store_open(path, &opts, &s, &err) < 0) {
		(void)fprintf(stderr, "child: %s\n", err_text(&err));
		_exit(1);
	}
	atomic_fetch_add(&shared->n_opened, 1);
	for (size_t i = 0; i < N_PUTTERS + 2; i++) {
		void *(*fn)(void *) = i < N_PUTTERS ? put_main : i == N_PUTTERS ? row_main : upkeep_main;

		workers[i] = (struct worker){ s, seed * 7 + (uint32_t)i };
		if (pthread_create(&thread, NULL, fn, &workers[i]) != 0)
			_exit(1);
	}
	for (;;)
		(void)pause();
}

/* ---- The survivor --------------------------------------------------------------------------------------------- */

static void print_line(void *arg, const char *line)
{
	print_message("fsck: %s\n", line);
}

static void check_snapshots(struct home *h)
{
	for (uint64_t n = atomic_load(&shared->n_removing); n < atomic_load(&shared->n_added); n++) {
		struct flip_snapshot sn = { 0 };
		char name[32];

		(void)snprintf(name, sizeof(name), "sn-%llu", (unsigned long long)n);
		assert_int_equal(flip_store_snapshot_get(h->store, name, &sn, NULL), 0);
		flip_snapshot_done(&sn);
	}
}

/* Every block that is said to be there is right. Returns how many bytes were. */
static uint64_t check_object(struct home *h, size_t i)
{
	uint8_t *back = malloc(sizes[i]);
	struct flip_object *o;
	uint64_t n = 0;
	int fd;

	assert_int_equal(flip_object_open(h->store, digests[i], sizes[i], &o, NULL), 0);
	fd = flip_object_fd(o);
	assert_true(fd >= 0);
	assert_int_equal(pread(fd, back, sizes[i], 0), sizes[i]);
	for (uint64_t at = 0; at < sizes[i]; at += 4096) {
		size_t size = sizes[i] - at < 4096 ? sizes[i] - at : 4096;

		if (flip_object_has(o, at, size)) {
			assert_memory_equal(back + at, data[i] + at, size);
			n += size;
		}
	}
	if (atomic_load(&shared->is_put[i]))
		assert_true(flip_object_is_complete(o));
	flip_object_unref(o);
	free(back);
	return n;
}

static uint64_t check_store(struct home *h)
{
	struct flip_fsck_result result = { 0 };
	uint64_t n = 0;

	home_open(h, NULL);
	assert_int_equal(flip_store_fsck(h->store, false, print_line, NULL, &result, NULL), 0);
	assert_int_equal(result.n_bad, 0);
	assert_int_equal(result.n_leftover, 0);
	check_snapshots(h);
	for (size_t i = 0; i < N; i++)
		n += check_object(h, i);
	return n;
}

static void killed_at_any_point_nothing_is_wrong(void **state)
{
	struct home *h = *state;
	uint32_t random = (uint32_t)time(NULL);
	uint64_t n_bytes = 0;

	print_message("seed %u\n", random);
	make_contents();
	shared = mmap(NULL, sizeof(*shared), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	assert_ptr_not_equal(shared, MAP_FAILED);
	home_open(h, NULL);
	assert_int_equal(try_add_layer(h->store, '1', FLIP_LAYER_UNPACKED, 0, named, n_named), 0);
	{
		struct flip_snapshot sn = { .kind = FLIP_SNAPSHOT_COMMITTED, .name = "base" };

		sn.layer = (char *)layer_digest('1');
		assert_int_equal(flip_store_snapshot_add(h->store, &sn, NULL), 0);
	}
	home_close(h);
	for (int round = 0; round < ROUNDS; round++) {
		uint32_t seed = next_random(&random);
		struct timespec pause = { .tv_nsec = (long)(next_random(&random) % 120000 + 200) * 1000 };
		uint64_t n_opened = atomic_load(&shared->n_opened);
		pid_t pid = fork();
		int status;

		assert_true(pid >= 0);
		if (pid == 0)
			child_main(h->path, seed);
		/* One in four may die while it opens the store; no machine is too slow for the others to work. */
		for (int i = 0; round % 4 != 0 && i < 20000 && atomic_load(&shared->n_opened) == n_opened; i++)
			(void)usleep(1000);
		/* Nor for one collection between the first round and the last. */
		for (int i = 0; round == ROUNDS - 1 && i < 20000 && atomic_load(&shared->n_gc) == 0; i++)
			(void)usleep(1000);
		(void)nanosleep(&pause, NULL);
		assert_int_equal(kill(pid, SIGKILL), 0);
		assert_int_equal(waitpid(pid, &status, 0), pid);
		assert_true(WIFSIGNALED(status)); /* by us, not by its own end */
		if (round % 4 != 0)               /* else the next one finds what two have left */
			n_bytes += check_store(h);
		home_close(h);
	}
	n_bytes += check_store(h);
	print_message("%llu bytes, %llu snapshots, %llu syncs, %llu gcs, %llu layers\n", (unsigned long long)n_bytes,
	              (unsigned long long)shared->n_added, (unsigned long long)shared->n_synced,
	              (unsigned long long)shared->n_gc, (unsigned long long)shared->n_layers);
	assert_true(n_bytes > 0 && shared->n_added > 0 && shared->n_gc > 0);
	for (size_t i = 0; i < N; i++)
		free(data[i]);
	(void)munmap(shared, sizeof(*shared));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(killed_at_any_point_nothing_is_wrong, home_setup, home_teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
