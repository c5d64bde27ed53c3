/* Putting the small files of an image into the store against plain open, write, close, rename of the same into the same
 * 256 folders: 20,000 files of 7.7 kB on average, 4 threads, sides interleaved, medians of 5.
 *
 *   bench_flip_put [FOLDER]     FOLDER: on the file system to measure; $TMPDIR or /var/tmp without
 *
 * Also: opening what is there, without and with its descriptor. One JSON line. */
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/sha256.h"
#include "store/store.h"

enum { N = 20000, N_THREADS = 4, ROUNDS = 5, MAX_SIZE = 15400 };

static uint8_t digests[N][FLIP_DIGEST_SIZE], bytes[MAX_SIZE + N];
static uint32_t sizes[N];
static char dir[200];
static struct flip_store *store;

enum side { STORE_PUT, PLAIN_PUT, STORE_OPEN, STORE_OPEN_FD, N_SIDES };

static void fail(const char *what)
{
	(void)fprintf(stderr, "bench_flip_put: %s\n", what);
	exit(1);
}

static void plain_put(size_t i)
{
	char hex[BASE_SHA256_HEX_SIZE], tmp[300], path[400];
	int fd;

	base_sha256_hex(digests[i], hex);
	(void)snprintf(tmp, sizeof(tmp), "%s/plain/%.2s/.%zu", dir, hex, i);
	(void)snprintf(path, sizeof(path), "%s/plain/%.2s/%s", dir, hex, hex + 2);
	fd = open(tmp, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0444);
	if (fd < 0 || write(fd, bytes + i, sizes[i]) != (ssize_t)sizes[i] || close(fd) < 0 || rename(tmp, path) < 0)
		fail("plain file");
}

static void one(enum side side, size_t i)
{
	struct flip_object *o;
	bool was_there;

	switch (side) {
	case STORE_PUT:
		if (flip_store_put(store, digests[i], bytes + i, sizes[i], &was_there, NULL) < 0 || was_there)
			fail("flip_store_put");
		break;
	case PLAIN_PUT:
		plain_put(i);
		break;
	default:
		if (flip_object_open(store, digests[i], sizes[i], &o, NULL) < 0 || !flip_object_is_complete(o) ||
		    (side == STORE_OPEN_FD && flip_object_fd(o) < 0))
			fail("flip_object_open");
		flip_object_unref(o);
	}
}

struct work {
	enum side side;
	size_t first;
};

static void *work_main(void *arg)
{
	const struct work *w = arg;

	for (size_t i = w->first; i < N; i += N_THREADS)
		one(w->side, i);
	return NULL;
}

static double run(enum side side)
{
	struct work works[N_THREADS];
	pthread_t threads[N_THREADS];
	double begin = base_now_s();

	for (size_t i = 0; i < N_THREADS; i++) {
		works[i] = (struct work){ side, i };
		if (pthread_create(&threads[i], NULL, work_main, &works[i]) != 0)
			fail("thread");
	}
	for (size_t i = 0; i < N_THREADS; i++)
		(void)pthread_join(threads[i], NULL);
	return base_now_s() - begin;
}

static void shell(const char *format)
{
	char command[1000];

	(void)snprintf(command, sizeof(command), format, dir, dir);
	if (system(command) != 0)
		fail(command);
}

static double round_of(enum side side)
{
	static const struct flip_store_opts opts = { .min_free_bytes = 1 };
	char path[300];
	double seconds;

	(void)snprintf(path, sizeof(path), "%s/store", dir);
	if (side == PLAIN_PUT)
		shell("mkdir %s/plain && cd %s/plain && mkdir $(printf '%%02x ' $(seq 0 255)) && sync -f .");
	else if (side == STORE_PUT &&
	         (flip_store_open(path, &opts, &store, NULL) < 0 || flip_store_sync(store, NULL) < 0))
		fail("flip_store_open");
	seconds = run(side);
	if (side == PLAIN_PUT) {
		shell("rm -r %s/plain && sync -f %s");
	} else if (side == STORE_OPEN_FD) {
		flip_store_close(store);
		shell("rm -r %s/store && sync -f %s");
	}
	return seconds;
}

static int by_value(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;

	return x < y ? -1 : x > y;
}

static void make_files(void)
{
	uint64_t total = 0;

	for (size_t i = 0; i < sizeof(bytes); i++)
		bytes[i] = (uint8_t)(i * 2654435761u >> 13);
	for (size_t i = 0; i < N; i++) {
		char name[64];

		sizes[i] = 1 + (uint32_t)(i * 2654435761u % (MAX_SIZE - 1));
		total += sizes[i];
		(void)snprintf(name, sizeof(name), "%zu", i);
		(void)base_sha256_bytes(name, strlen(name),
		                        digests[i]); /* as good as that of the content: the store trusts */
	}
	(void)fprintf(stderr, "bench_flip_put: %d files, %.1f kB on average, in %s\n", N, (double)total / N / 1000,
	              dir);
}

int main(int argc, char **argv)
{
	const char *tmp = argc > 1 ? argv[1] : getenv("TMPDIR");
	double seconds[N_SIDES][ROUNDS];

	(void)snprintf(dir, sizeof(dir), "%.150s/bench-flip-XXXXXX", tmp ? tmp : "/var/tmp");
	if (!mkdtemp(dir))
		fail(dir);
	make_files();
	for (int round = 0; round < ROUNDS; round++) {
		/* Who begins changes. */
		if (round % 2 == 1)
			seconds[PLAIN_PUT][round] = round_of(PLAIN_PUT);
		seconds[STORE_PUT][round] = round_of(STORE_PUT);
		seconds[STORE_OPEN][round] = round_of(STORE_OPEN);
		seconds[STORE_OPEN_FD][round] = round_of(STORE_OPEN_FD);
		if (round % 2 == 0)
			seconds[PLAIN_PUT][round] = round_of(PLAIN_PUT);
	}
	(void)rmdir(dir);
	for (int side = 0; side < N_SIDES; side++)
		qsort(seconds[side], ROUNDS, sizeof(double), by_value);
	(void)printf("{\"bench\":\"flip_put\",\"files\":%d,\"threads\":%d,\"put_per_s\":%.0f,\"plain_per_s\":%.0f,"
	             "\"ratio\":%.2f,\"best_ratio\":%.2f,\"open_per_s\":%.0f,\"open_fd_per_s\":%.0f}\n",
	             N, N_THREADS, N / seconds[STORE_PUT][ROUNDS / 2], N / seconds[PLAIN_PUT][ROUNDS / 2],
	             seconds[PLAIN_PUT][ROUNDS / 2] / seconds[STORE_PUT][ROUNDS / 2],
	             seconds[PLAIN_PUT][0] / seconds[STORE_PUT][0], N / seconds[STORE_OPEN][ROUNDS / 2],
	             N / seconds[STORE_OPEN_FD][ROUNDS / 2]);
	return 0;
}
