/* What a node is for: workload cpu N SECONDS, workload disk N SECONDS FILE. N threads compute, or read blocks of 64 KiB
 * of the file at random places past the page cache; prints how many units of work were done a second. */
#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

enum { BLOCK = 64 << 10, MAX_THREADS = 64 };

static atomic_bool is_over;
static int fd = -1;
static uint64_t n_blocks;

static double now(void)
{
	struct timespec ts;

	(void)clock_gettime(CLOCK_MONOTONIC, &ts);
	return (double)ts.tv_sec + (double)ts.tv_nsec / 1e9;
}

static uint64_t next(uint64_t *x)
{
	*x ^= *x << 13;
	*x ^= *x >> 7;
	return *x ^= *x << 17;
}

static void *compute(void *arg)
{
	uint64_t x = 88172645463325252ull + (uint64_t)(uintptr_t)arg, n = 0;

	while (!atomic_load_explicit(&is_over, memory_order_relaxed)) {
		for (int i = 0; i < 10000; i++)
			(void)next(&x);
		n += x != 0;
	}
	return (void *)(uintptr_t)n;
}

static void *read_blocks(void *arg)
{
	uint64_t x = 88172645463325252ull + (uint64_t)(uintptr_t)arg * 7919, n = 0;
	void *data = NULL;

	if (posix_memalign(&data, 4096, BLOCK))
		return NULL;
	while (!atomic_load_explicit(&is_over, memory_order_relaxed))
		n += pread(fd, data, BLOCK, (off_t)(next(&x) % n_blocks * BLOCK)) == BLOCK;
	free(data);
	return (void *)(uintptr_t)n;
}

int main(int argc, char **argv)
{
	pthread_t threads[MAX_THREADS];
	int n = argc > 3 ? (int)strtol(argv[2], NULL, 10) : 0;
	double seconds = n ? strtod(argv[3], NULL) : 0, start;
	int is_disk = n && strcmp(argv[1], "disk") == 0;
	uint64_t done = 0;
	struct stat st;

	if (n < 1 || n > MAX_THREADS || (is_disk && argc < 5))
		return 2;
	if (is_disk) {
		fd = open(argv[4], O_RDONLY | O_DIRECT | O_CLOEXEC);
		if (fd < 0 || fstat(fd, &st) < 0 || st.st_size < BLOCK) {
			perror(argv[4]);
			return 1;
		}
		n_blocks = (uint64_t)st.st_size / BLOCK;
	}
	start = now();
	for (int i = 0; i < n; i++) {
		if (pthread_create(&threads[i], NULL, is_disk ? read_blocks : compute, (void *)(uintptr_t)i))
			return 1;
	}
	(void)usleep((useconds_t)(seconds * 1e6));
	atomic_store(&is_over, true);
	for (int i = 0; i < n; i++) {
		void *units;

		(void)pthread_join(threads[i], &units);
		done += (uint64_t)(uintptr_t)units;
	}
	printf("%.1f\n", (double)done / (now() - start));
	return 0;
}
