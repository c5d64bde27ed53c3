/* The fetcher against a registry: how much of a link it fills.
 *
 *   fetch ranges REF DIGEST SIZE N RANGE_BYTES   N ranges that are spread over the blob, in random order, as prefetch
 *   fetch touch REF DIGEST SIZE N RANGE_BYTES    the same, each one awaited before the next: what a reader sees
 *   fetch mix REF DIGEST SIZE N RANGE_BYTES      the same, while all the rest of the blob is being prefetched
 *   fetch blob REF DIGEST SIZE                   all of it, in order
 *
 * FETCH_CASE names the case, FETCH_LIMIT is the link's bytes per second. FETCH_CA is a file of certificates. One JSON
 * line; bench_fetch.sh sets up registry, link and delay. Without arguments (`make bench`) there is nothing to do. */
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#include "base/clock.h"
#include "fetch/fetch.h"

struct told {
	pthread_mutex_t lock;
	pthread_cond_t cond;
	size_t n, n_failed;
};

static double cpu_s(void)
{
	struct rusage u;

	(void)getrusage(RUSAGE_SELF, &u);
	return (double)(u.ru_utime.tv_sec + u.ru_stime.tv_sec) +
	       (double)(u.ru_utime.tv_usec + u.ru_stime.tv_usec) / 1e6;
}

static void on_range(void *arg, size_t i, int r, const void *data, size_t size, const struct err *err)
{
	struct told *t = arg;

	(void)i;
	(void)data;
	(void)size;
	(void)pthread_mutex_lock(&t->lock);
	t->n++;
	if (r < 0 && t->n_failed++ == 0)
		(void)fprintf(stderr, "%s\n", err_text(err));
	(void)pthread_cond_signal(&t->cond);
	(void)pthread_mutex_unlock(&t->lock);
}

/* One range in each of n equal pieces of the blob, somewhere in it, in random order. */
static struct flip_range *spread(uint64_t size, size_t n, uint64_t range_bytes)
{
	struct flip_range *ranges = calloc(n, sizeof(*ranges));
	uint64_t piece = size / n;

	if (!ranges || piece < range_bytes) {
		(void)fprintf(stderr, "%zu ranges of %llu bytes do not fit\n", n, (unsigned long long)range_bytes);
		exit(2);
	}
	srandom(1);
	for (size_t i = 0; i < n; i++)
		ranges[i] = (struct flip_range){
			piece * i + (piece > range_bytes ? (uint64_t)random() % (piece - range_bytes) : 0), range_bytes
		};
	for (size_t i = n - 1; i > 0; i--) {
		size_t k = (size_t)random() % (i + 1);
		struct flip_range t = ranges[i];

		ranges[i] = ranges[k];
		ranges[k] = t;
	}
	return ranges;
}

static int read_all(struct flip_blob *b, const struct flip_range *ranges, size_t n, struct err *err)
{
	struct told t = { .lock = PTHREAD_MUTEX_INITIALIZER, .cond = PTHREAD_COND_INITIALIZER };
	int64_t number = flip_blob_read(b, ranges, n, FLIP_PREFETCH, on_range, &t, err);

	if (number < 0)
		return (int)number;
	(void)pthread_mutex_lock(&t.lock);
	while (t.n < n)
		(void)pthread_cond_wait(&t.cond, &t.lock);
	(void)pthread_mutex_unlock(&t.lock);
	return t.n_failed ? err_set(err, -1, "%zu of %zu ranges failed", t.n_failed, n) : 0;
}

static int touch_each(struct flip_blob *b, const struct flip_range *ranges, size_t n, struct err *err)
{
	int r = 0;

	for (size_t i = 0; i < n && r == 0; i++) {
		void *data = malloc(ranges[i].size);

		if (!data)
			return err_set(err, -1, "out of memory");
		r = flip_blob_read_wait(b, ranges[i].offset, ranges[i].size, data, FLIP_FOREGROUND, err);
		free(data);
	}
	return r;
}

static int touch_meanwhile(struct flip_blob *b, const struct flip_range *ranges, size_t n, uint64_t size,
                           struct err *err)
{
	enum { PIECE = 1 << 20 };
	static struct told t = { .lock = PTHREAD_MUTEX_INITIALIZER, .cond = PTHREAD_COND_INITIALIZER };
	size_t n_rest = size / PIECE;
	struct flip_range *rest = calloc(n_rest, sizeof(*rest));
	int64_t number;

	if (!rest)
		return err_set(err, -1, "out of memory");
	for (size_t i = 0; i < n_rest; i++)
		rest[i] = (struct flip_range){ i * PIECE, PIECE };
	number = flip_blob_read(b, rest, n_rest, FLIP_PREFETCH, on_range, &t, err);
	free(rest);
	return number < 0 ? (int)number : touch_each(b, ranges, n, err);
}

static int pass(void *arg, const void *data, size_t size, struct err *err)
{
	(void)data;
	(void)err;
	*(uint64_t *)arg += size;
	return 0;
}

/* What stays when the work is done. */
static double resident_mb(void)
{
	unsigned long pages = 0;
	FILE *f = fopen("/proc/self/statm", "re");

	if (f) {
		if (fscanf(f, "%*u %lu", &pages) != 1)
			pages = 0;
		(void)fclose(f);
	}
	return (double)pages * (double)sysconf(_SC_PAGESIZE) / (1 << 20);
}

static void report(const char *name, uint64_t bytes, double wall, const struct flip_fetch_stat *s)
{
	const char *limit_text = getenv("FETCH_LIMIT");
	double rate = (double)bytes / wall, limit = limit_text ? strtod(limit_text, NULL) : 0;
	struct rusage u;

	(void)getrusage(RUSAGE_SELF, &u);
	printf("{\"bench\":\"fetch\",\"case\":\"%s\",\"value\":%.2f,\"unit\":\"MB/s\",", name, rate / 1e6);
	if (limit > 0)
		printf("\"limit\":%.2f,\"share\":%.4f,", limit / 1e6, (double)s->wire_bytes / wall / limit);
	else
		printf("\"limit\":null,\"share\":null,");
	printf("\"peer\":null,\"ratio\":null,\"wall_s\":%.3f,\"cpu_s\":%.3f,\"rss_mb\":%.1f,\"rss_after_mb\":%.1f,"
	       "\"requests\":%llu,"
	       "\"wire_mb\":%.1f,"
	       "\"gap_mb\":%.1f,\"rtt_us\":%u}\n",
	       wall, cpu_s(), (double)u.ru_maxrss / 1024, resident_mb(), (unsigned long long)s->n_requests,
	       (double)s->wire_bytes / 1e6, (double)s->gap_bytes / 1e6, s->rtt_us);
}

int main(int argc, char **argv)
{
	const char *name = getenv("FETCH_CASE");
	struct flip_fetch_opts o = { .ca_file = getenv("FETCH_CA") };
	struct flip_range *ranges = NULL;
	struct flip_fetch *f = NULL;
	struct flip_blob *b = NULL;
	struct flip_fetch_stat stat;
	struct err err = { 0 };
	uint64_t size = argc > 4 ? strtoull(argv[4], NULL, 10) : 0, bytes = 0;
	size_t n = argc > 6 ? strtoul(argv[5], NULL, 10) : 0;
	double begin;
	int r;

	if (argc < 5 || (strcmp(argv[1], "blob") != 0 && argc < 7)) {
		(void)fprintf(stderr, "fetch: tests/bench/bench_fetch.sh says what to fetch\n");
		return 0;
	}
	/* A registry of one's own on another address of this machine. */
	o.insecure = !o.ca_file;
	if (n) {
		ranges = spread(size, n, strtoull(argv[6], NULL, 10));
		bytes = n * ranges[0].size;
	}
	r = flip_fetch_new(&o, &f, &err);
	if (r == 0)
		r = flip_blob_open(f, argv[2], argv[3], size, &b, &err);
	begin = base_now_s();
	if (r == 0 && strcmp(argv[1], "blob") == 0)
		r = flip_blob_stream(b, FLIP_FOREGROUND, pass, &bytes, &err);
	else if (r == 0 && strcmp(argv[1], "mix") == 0)
		r = touch_meanwhile(b, ranges, n, size, &err);
	else if (r == 0)
		r = argv[1][0] == 't' ? touch_each(b, ranges, n, &err) : read_all(b, ranges, n, &err);
	if (r < 0) {
		(void)fprintf(stderr, "fetch: %s\n", err_text(&err));
		return 1;
	}
	flip_fetch_stat(f, &stat);
	report(name ? name : argv[1], bytes, base_now_s() - begin, &stat);
	flip_blob_close(b);
	flip_fetch_free(f);
	free(ranges);
	return 0;
}
