/* When each kernel of a CUDA program ran: a library that CUDA loads into it.
 *
 *   CUDA_INJECTION64_PATH=.../libgpu_timeline.so GPU_TIMELINE=FILE [GPU_TIMELINE_LAST=N] PROGRAM...
 *
 * FILE gets a JSON line for each of the last N kernels [400]: begin and length in microseconds, and the gap after the
 * end of the one before (negative: they overlapped); then one for each kernel's name with sums over all of the program.
 * Needs libcupti, which is part of CUDA. */
#include <cupti.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { BUFFER = 8 << 20, MOST = 4 << 20, NAMES = 64 };

struct run {
	uint64_t begin, end;
	char *name;
	int grid, block, registers, shared;
};

static struct run *runs;
static size_t n_runs;

static void CUPTIAPI give(uint8_t **buffer, size_t *size, size_t *max_records)
{
	*buffer = malloc(BUFFER);
	*size = *buffer ? BUFFER : 0;
	*max_records = 0;
}

static void CUPTIAPI take(CUcontext ctx, uint32_t stream, uint8_t *buffer, size_t size, size_t valid)
{
	CUpti_Activity *record = NULL;

	(void)ctx, (void)stream, (void)size;
	while (cuptiActivityGetNextRecord(buffer, valid, &record) == CUPTI_SUCCESS) {
		const CUpti_ActivityKernel9 *k = (const CUpti_ActivityKernel9 *)record;

		if (record->kind != CUPTI_ACTIVITY_KIND_CONCURRENT_KERNEL || n_runs == MOST)
			continue;
		runs[n_runs++] = (struct run){ k->start,
			                       k->end,
			                       strdup(k->name ? k->name : "?"),
			                       k->gridX * k->gridY * k->gridZ,
			                       k->blockX * k->blockY * k->blockZ,
			                       k->registersPerThread,
			                       k->dynamicSharedMemory };
	}
	free(buffer);
}

static int by_begin(const void *a, const void *b)
{
	const struct run *x = a, *y = b;

	return (x->begin > y->begin) - (x->begin < y->begin);
}

static void print_sums(FILE *f)
{
	struct {
		const char *name;
		size_t n;
		double us;
	} sums[NAMES];
	size_t n_sums = 0;

	for (size_t i = 0; i < n_runs; i++) {
		size_t s = 0;

		while (s < n_sums && strcmp(sums[s].name, runs[i].name) != 0)
			s++;
		if (s == NAMES)
			continue;
		if (s == n_sums) {
			sums[s].name = runs[i].name;
			sums[s].n = 0;
			sums[s].us = 0;
			n_sums++;
		}
		sums[s].n++;
		sums[s].us += (double)(runs[i].end - runs[i].begin) * 1e-3;
	}
	for (size_t s = 0; s < n_sums; s++)
		(void)fprintf(f, "{\"kernel\":\"%.100s\",\"n\":%zu,\"us\":%.1f,\"mean\":%.2f}\n", sums[s].name,
		              sums[s].n, sums[s].us, sums[s].us / (double)sums[s].n);
}

static void finish(void)
{
	const char *path = getenv("GPU_TIMELINE"), *last = getenv("GPU_TIMELINE_LAST");
	size_t n = last ? strtoul(last, NULL, 10) : 400;
	FILE *f;

	(void)cuptiActivityFlushAll(CUPTI_ACTIVITY_FLAG_FLUSH_FORCED);
	f = path ? fopen(path, "we") : NULL;
	if (!f)
		return;
	qsort(runs, n_runs, sizeof(*runs), by_begin);
	for (size_t i = n_runs > n ? n_runs - n : 0; i < n_runs; i++)
		(void)fprintf(f,
		              "{\"us\":%.2f,\"length\":%.2f,\"gap\":%.2f,\"grid\":%d,\"block\":%d,\"registers\":%d,"
		              "\"shared\":%d,\"kernel\":\"%.60s\"}\n",
		              (double)(runs[i].begin - runs[n_runs > n ? n_runs - n : 0].begin) * 1e-3,
		              (double)(runs[i].end - runs[i].begin) * 1e-3,
		              i ? ((double)runs[i].begin - (double)runs[i - 1].end) * 1e-3 : 0.0, runs[i].grid,
		              runs[i].block, runs[i].registers, runs[i].shared, runs[i].name);
	print_sums(f);
	(void)fclose(f);
}

__attribute__((visibility("default"))) int InitializeInjection(void);

int InitializeInjection(void)
{
	runs = calloc(MOST, sizeof(*runs));
	if (!runs || cuptiActivityEnable(CUPTI_ACTIVITY_KIND_CONCURRENT_KERNEL) != CUPTI_SUCCESS ||
	    cuptiActivityRegisterCallbacks(give, take) != CUPTI_SUCCESS || atexit(finish) != 0)
		return 0;
	return 1;
}
