/* What the benchmarks of kernels share: a device, launches replayed as a graph, the limit of memory, sequences with
 * keys and values as the engine has them. */
#ifndef GPU_BENCH_H
#define GPU_BENCH_H

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "gpu/gpu.h"
#include "gpu/launch.h"

#if defined(GPU_CUDA)
#define BENCH_GPU(name) cuda##name
#define bench_instantiate(e, g) cudaGraphInstantiate((e), (g), 0)
#else
#define BENCH_GPU(name) hip##name
#define bench_instantiate(e, g) hipGraphInstantiate((e), (g), nullptr, nullptr, 0)
#endif

/* Qwen3-8B's heads, and the engine's pages. */
enum { HEADS = 32, KV_HEADS = 8, DIM = 128, PAGE = 32 };

/* The program's, whichever of its files use them. */
inline struct gk_ctx ctx;
inline gpu_stream stream;
inline int n_failed, n_replays = 15;
inline double limit_gbytes;

static inline void check(gpu_error e, const char *what)
{
	if (e != GPU_OK) {
		fprintf(stderr, "%s: %s\n", what, gpu_error_string(e));
		exit(1);
	}
}

template <class T> static T *device(size_t n)
{
	T *p;

	check(gpu_malloc(&p, (n ? n : 1) * sizeof(T)), "memory");
	return p;
}

template <class T> static T *put(const T *host, size_t n)
{
	T *p = device<T>(n);

	check(gpu_copy_in(p, host, n * sizeof(T)), "copy");
	return p;
}

/* False: there is none, and that was said. */
static inline bool bench_open(size_t scratch_bytes)
{
	if (gk_ctx_init(&ctx, 0) < 0 || BENCH_GPU(StreamCreate)(&stream) != GPU_OK) {
		fprintf(stderr, "no device: %s\n", gk_error_text());
		return false;
	}
	ctx.stream = (void *)stream;
	ctx.scratch_bytes = scratch_bytes;
	ctx.scratch = device<uint8_t>(scratch_bytes);
	ctx.counters = device<uint32_t>(GK_COUNTERS);
	check(gpu_fill(ctx.counters, 0, GK_COUNTERS * sizeof(uint32_t)), "fill");
	return true;
}

/* ---- Times ------------------------------------------------------------------------------------------------------ */

static inline double now()
{
	struct timespec t;

	(void)clock_gettime(CLOCK_MONOTONIC, &t);
	return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static inline int by_value(const void *a, const void *b)
{
	const double x = *(const double *)a, y = *(const double *)b;

	return (x > y) - (x < y);
}

/* Puts all on the stream. False: one was refused, or what was launched failed; the first reason is said, since all
 * after it fail for another one. */
template <class F> static bool launch_all(int n, F launch, const char *when)
{
	for (int i = 0; i < n; i++) {
		if (launch(i) < 0) {
			fprintf(stderr, "refused%s: %s\n", when, gk_error_text());
			n_failed++;
			return false;
		}
	}
	return true;
}

/* Microseconds of one `launch(i)` of n, the median of the replays of a graph of them. They run once before they are
 * captured, as the backend does it too: kernels are loaded when they are launched first, and what the driver does for
 * that may invalidate a capture. */
template <class F> static double measure(int n, F launch)
{
	enum { MOST = 63 };
	const double never = 1e9;
	BENCH_GPU(Graph_t) graph;
	BENCH_GPU(GraphExec_t) exec;
	double t[MOST];
	bool whole;

	if (!launch_all(n, launch, ""))
		return never;
	check(BENCH_GPU(StreamSynchronize)(stream), "the first run");
	check(BENCH_GPU(StreamBeginCapture)(stream, BENCH_GPU(StreamCaptureModeThreadLocal)), "capture");
	whole = launch_all(n, launch, " under capture");
	if (BENCH_GPU(StreamEndCapture)(stream, &graph) != GPU_OK || bench_instantiate(&exec, graph) != GPU_OK) {
		fprintf(stderr, "no graph: %s\n", gpu_error_string(gpu_last_error()));
		n_failed += whole;
		return never;
	}
	for (int r = -3; r < n_replays; r++) {
		const double begin = now();

		check(BENCH_GPU(GraphLaunch)(exec, stream), "launch");
		check(BENCH_GPU(StreamSynchronize)(stream), "replay");
		if (r >= 0)
			t[r] = now() - begin;
	}
	(void)BENCH_GPU(GraphExecDestroy)(exec);
	(void)BENCH_GPU(GraphDestroy)(graph);
	qsort(t, (size_t)n_replays, sizeof(*t), by_value);
	return t[n_replays / 2] / n * 1e6;
}

/* ---- The limit of memory: a kernel that only reads ----------------------------------------------------------------
 */

/* n pieces of 16 bytes; the sum is written where it is never right, so that nothing is left out. */
static __global__ void read_kernel(const uint4 *p, size_t n, uint32_t *sum)
{
	enum { AT_ONCE = 8 };
	uint32_t x = 0;

	for (size_t i = (size_t)blockIdx.x * blockDim.x * AT_ONCE + threadIdx.x; i < n;
	     i += (size_t)gridDim.x * blockDim.x * AT_ONCE) {
		uint4 v[AT_ONCE];

#pragma unroll
		for (int k = 0; k < AT_ONCE; k++)
			v[k] = i + k * blockDim.x < n ? gpu_load_stream(p + i + k * blockDim.x)
			                              : make_uint4(0, 0, 0, 0);
#pragma unroll
		for (int k = 0; k < AT_ONCE; k++)
			x ^= v[k].x ^ v[k].y ^ v[k].z ^ v[k].w;
	}
	if (x == 0x12345678)
		*sum = x;
}

/* Microseconds of reading `bytes` once; sets limit_gbytes. */
static inline double measure_limit(size_t bytes)
{
	uint8_t *p = device<uint8_t>(bytes);
	uint32_t *sum = device<uint32_t>(1);
	double us;

	check(gpu_fill(p, 0x5a, bytes), "fill");
	us = measure(1, [&](int) {
		gpu_launch(read_kernel, dim3(ctx.n_sm * 16), dim3(256), 0, ctx.stream, false, (const uint4 *)p,
		           bytes / sizeof(uint4), sum);
		return gpu_last_error() == GPU_OK ? 0 : -1;
	});
	limit_gbytes = (double)bytes / us * 1e-3;
	(void)gpu_free(p);
	(void)gpu_free(sum);
	return us;
}

/* ---- Sequences ----------------------------------------------------------------------------------------------------
 */

struct batch {
	struct gk_batch b;
	struct gk_plan plan;
	uint32_t n_rows, n_pages, n_keys;
};

/* n_seqs of kv_len tokens each or up to `fewer` fewer, the last n_q of them new, in pages in scattered order. */
static inline void make_batch(struct batch *b, uint32_t n_seqs, uint32_t kv_len, uint32_t n_q, uint32_t fewer = 0)
{
	const uint32_t per = (kv_len + PAGE - 1) / PAGE, room = gk_plan_room(&ctx, n_seqs * n_q, n_seqs, kv_len);
	struct gk_seq *seqs = (struct gk_seq *)calloc(n_seqs, sizeof(*seqs));
	uint32_t *pages = (uint32_t *)calloc((size_t)n_seqs * per, 4), counts[GK_N_COUNTS] = { 0 };
	uint32_t *row_seq = (uint32_t *)calloc((size_t)n_seqs * n_q, 4);

	memset(b, 0, sizeof(*b));
	b->n_rows = n_seqs * n_q;
	b->n_pages = n_seqs * per;
	for (uint32_t i = 0; i < n_seqs; i++) {
		seqs[i].kv_len = kv_len - (uint32_t)rand() % (fewer + 1);
		b->n_keys += seqs[i].kv_len;
		seqs[i].n_q = n_q;
		seqs[i].row = i * n_q;
		seqs[i].first_page = i * per;
		for (uint32_t r = 0; r < n_q; r++)
			row_seq[i * n_q + r] = i;
	}
	for (uint32_t i = 0; i < b->n_pages; i++)
		pages[i] = i;
	for (uint32_t i = b->n_pages; i-- > 1;) {
		const uint32_t j = (uint32_t)rand() % (i + 1), t = pages[i];

		pages[i] = pages[j];
		pages[j] = t;
	}
	b->plan.room = room;
	b->plan.few = (struct gk_work *)calloc(room, sizeof(struct gk_work));
	b->plan.many = (struct gk_work *)calloc(room, sizeof(struct gk_work));
	b->plan.merge = (struct gk_merge *)calloc(room, sizeof(struct gk_merge));
	b->plan.answer_rows = UINT32_MAX;
	if (gk_plan_attention(&ctx, KV_HEADS, HEADS / KV_HEADS, seqs, n_seqs, &b->plan) < 0)
		exit(1);
	counts[GK_N_ROWS] = b->n_rows;
	counts[GK_N_SEQS] = n_seqs;
	counts[GK_N_FEW] = b->plan.n_few;
	counts[GK_N_MANY] = b->plan.n_many;
	counts[GK_N_MERGE] = b->plan.n_merge;
	counts[GK_N_SHARES] = b->plan.n_shares;
	b->b.counts = put(counts, GK_N_COUNTS);
	b->b.seqs = put(seqs, n_seqs);
	b->b.pages = put(pages, b->n_pages);
	b->b.row_seq = put(row_seq, b->n_rows);
	b->b.few = put(b->plan.few, b->plan.n_few);
	b->b.many = put(b->plan.many, b->plan.n_many);
	b->b.merge = put(b->plan.merge, b->plan.n_merge);
	b->b.max_rows = b->n_rows;
	b->b.max_seqs = n_seqs;
	b->b.max_few = b->plan.n_few;
	b->b.max_many = b->plan.n_many;
	b->b.max_merge = b->plan.n_merge;
	free(seqs);
	free(pages);
	free(row_seq);
}

static inline void drop_batch(struct batch *b)
{
	const void *const all[] = { b->b.counts, b->b.seqs, b->b.pages, b->b.row_seq, b->b.few, b->b.many, b->b.merge };

	for (const void *p : all)
		(void)gpu_free((void *)p);
	free(b->plan.few);
	free(b->plan.many);
	free(b->plan.merge);
}

/* Bytes of the keys of all its pages, and as many of values. */
static inline size_t pool_bytes(const struct batch *b, size_t bytes_each)
{
	return (size_t)b->n_pages * KV_HEADS * PAGE * DIM * bytes_each;
}

static inline struct gk_kv kv_of(uint32_t dtype, void *k, void *v)
{
	struct gk_kv kv = {};

	kv.dtype = dtype;
	kv.n_kv_head = KV_HEADS;
	kv.k_dim = kv.v_dim = DIM;
	kv.page_tokens = PAGE;
	kv.k = k;
	kv.v = v;
	return kv;
}

#endif
