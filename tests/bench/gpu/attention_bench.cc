/* How near attention of one new token per sequence comes to reading its keys and values: JSON lines.
 *
 *   attention_bench [--fast] [--only=TEXT]
 *
 * 32 query heads, 8 for keys and values, head size 128 (Qwen3-8B), pages of 32 tokens in scattered order, bfloat16 and
 * e4m3. The limit is a kernel that only reads, measured in the same run. Each case is a graph of several launches over
 * different pools, more than the second-level cache holds; the median of its replays counts, and with --fast there are
 * fewer of them. Before it is timed, one launch is compared with kernels of float32 arithmetic. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "gpu/gpu.h"
#include "gpu/launch.h"

#if defined(GPU_CUDA)
#define gpuGraph_t cudaGraph_t
#define gpuGraphExec_t cudaGraphExec_t
#define gpuStreamCreate cudaStreamCreate
#define gpuStreamSynchronize cudaStreamSynchronize
#define gpuBegin(s) cudaStreamBeginCapture((s), cudaStreamCaptureModeThreadLocal)
#define gpuEnd cudaStreamEndCapture
#define gpuInstantiate(e, g) cudaGraphInstantiate((e), (g), 0)
#define gpuGraphLaunch cudaGraphLaunch
#else
#define gpuGraph_t hipGraph_t
#define gpuGraphExec_t hipGraphExec_t
#define gpuStreamCreate hipStreamCreate
#define gpuStreamSynchronize hipStreamSynchronize
#define gpuBegin(s) hipStreamBeginCapture((s), hipStreamCaptureModeThreadLocal)
#define gpuEnd hipStreamEndCapture
#define gpuInstantiate(e, g) hipGraphInstantiate((e), (g), nullptr, nullptr, 0)
#define gpuGraphLaunch hipGraphLaunch
#endif

enum { HEADS = 32, KV_HEADS = 8, DIM = 128, PAGE = 32, MAX_REPLAYS = 21 };

static struct gk_ctx ctx;
static gpu_stream stream;
static int n_failed, n_replays = MAX_REPLAYS;
static double limit_gbytes;

static double now()
{
	struct timespec t;

	(void)clock_gettime(CLOCK_MONOTONIC, &t);
	return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static int by_value(const void *a, const void *b)
{
	const double x = *(const double *)a, y = *(const double *)b;

	return (x > y) - (x < y);
}

static void check(gpu_error e, const char *what)
{
	if (e != GPU_OK) {
		fprintf(stderr, "%s: %s\n", what, gpu_error_string(e));
		exit(1);
	}
}

/* Microseconds of one `launch(i)` of n. */
template <class F> static double measure(int n, F launch)
{
	gpuGraph_t graph;
	gpuGraphExec_t exec;
	double t[MAX_REPLAYS];

	check(gpuBegin(stream), "capture");
	for (int i = 0; i < n; i++) {
		if (launch(i) < 0) {
			n_failed++;
			fprintf(stderr, "refused: %s\n", gk_error_text());
		}
	}
	check(gpuEnd(stream, &graph), "capture");
	check(gpuInstantiate(&exec, graph), "graph");
	for (int r = -3; r < n_replays; r++) {
		const double begin = now();

		check(gpuGraphLaunch(exec, stream), "launch");
		check(gpuStreamSynchronize(stream), "replay");
		if (r >= 0)
			t[r] = now() - begin;
	}
	qsort(t, (size_t)n_replays, sizeof(*t), by_value);
	return t[n_replays / 2] / n * 1e6;
}

static void report(const char *name, double us, double bytes)
{
	printf("{\"bench\":\"attention\",\"case\":\"%s\",\"value\":%.1f,\"unit\":\"GB/s\",\"limit\":%.1f,\"share\":%.3f,"
	       "\"us\":%.2f}\n",
	       name, bytes / us * 1e-3, limit_gbytes, bytes / us * 1e-3 / limit_gbytes, us);
	(void)fflush(stdout);
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

/* ---- The limit -------------------------------------------------------------------------------------------------- */

static __global__ void read_kernel(const uint4 *p, size_t n, uint32_t *sum)
{
	enum { AT_ONCE = 8 };
	uint32_t x = 0;

	for (size_t i = (size_t)blockIdx.x * blockDim.x * AT_ONCE + threadIdx.x; i < n;
	     i += (size_t)gridDim.x * blockDim.x * AT_ONCE) {
		uint4 v[AT_ONCE];

#pragma unroll
		for (int k = 0; k < AT_ONCE; k++)
			v[k] = i + k * blockDim.x < n ? gpu_load_stream(p + i + k * blockDim.x) : make_uint4(0, 0, 0, 0);
#pragma unroll
		for (int k = 0; k < AT_ONCE; k++)
			x ^= v[k].x ^ v[k].y ^ v[k].z ^ v[k].w;
	}
	if (x == 0x12345678)
		*sum = x;
}

static void read_limit()
{
	const size_t bytes = (size_t)4 << 30;
	uint8_t *p = device<uint8_t>(bytes);
	uint32_t *sum = device<uint32_t>(1);
	double us;

	check(gpu_fill(p, 0x5a, bytes), "fill");
	us = measure(1, [&](int) {
		gpu_launch(read_kernel, dim3(ctx.n_sm * 16), dim3(256), 0, (void *)stream, false, (const uint4 *)p,
		           bytes / sizeof(uint4), sum);
		return 0;
	});
	limit_gbytes = (double)bytes / us * 1e-3;
	report("reading", us, (double)bytes);
	(void)gpu_free(p);
	(void)gpu_free(sum);
}

/* ---- Attention ---------------------------------------------------------------------------------------------------- */

struct batch {
	struct gk_batch b;
	struct gk_plan plan;
	uint32_t n_pages;
};

static void make_batch(struct batch *b, uint32_t n_seqs, uint32_t kv_len)
{
	const uint32_t per = (kv_len + PAGE - 1) / PAGE, room = gk_plan_room(&ctx, n_seqs, n_seqs, kv_len);
	struct gk_seq *seqs = (struct gk_seq *)calloc(n_seqs, sizeof(*seqs));
	uint32_t *pages = (uint32_t *)calloc((size_t)n_seqs * per, 4), counts[GK_N_COUNTS] = { 0 };
	uint32_t *row_seq = (uint32_t *)calloc(n_seqs, 4);

	memset(b, 0, sizeof(*b));
	b->n_pages = n_seqs * per;
	for (uint32_t i = 0; i < n_seqs; i++) {
		seqs[i].kv_len = kv_len;
		seqs[i].n_q = 1;
		seqs[i].row = i;
		seqs[i].first_page = i * per;
		row_seq[i] = i;
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
	if (gk_plan_attention(&ctx, KV_HEADS, HEADS / KV_HEADS, seqs, n_seqs, &b->plan) < 0)
		exit(1);
	counts[GK_N_ROWS] = counts[GK_N_SEQS] = n_seqs;
	counts[GK_N_FEW] = b->plan.n_few;
	counts[GK_N_MERGE] = b->plan.n_merge;
	counts[GK_N_SHARES] = b->plan.n_shares;
	b->b.counts = put(counts, GK_N_COUNTS);
	b->b.seqs = put(seqs, n_seqs);
	b->b.pages = put(pages, b->n_pages);
	b->b.row_seq = put(row_seq, n_seqs);
	b->b.few = put(b->plan.few, b->plan.n_few);
	b->b.many = put(b->plan.many, 1);
	b->b.merge = put(b->plan.merge, b->plan.n_merge);
	b->b.max_rows = b->b.max_seqs = n_seqs;
	b->b.max_few = b->plan.n_few;
	b->b.max_merge = b->plan.n_merge;
	free(seqs);
	free(pages);
	free(row_seq);
}

static void drop_batch(struct batch *b)
{
	const void *const all[] = { b->b.counts, b->b.seqs, b->b.pages, b->b.row_seq, b->b.few, b->b.many, b->b.merge };

	for (const void *p : all)
		(void)gpu_free((void *)p);
	free(b->plan.few);
	free(b->plan.many);
	free(b->plan.merge);
}

/* Random values of about 1 (e4m3: any byte but those that are no number). */
static uint8_t *pool(size_t bytes, bool e4m3)
{
	enum { PATTERN = (1 << 20) + 1022 }; /* no multiple of a page */
	static uint16_t pattern[2][PATTERN / 2];
	uint8_t *p = device<uint8_t>(bytes);

	if (!pattern[0][0]) {
		for (int i = 0; i < PATTERN / 2; i++)
			pattern[0][i] = (uint16_t)(((unsigned)rand() & 0x81ff) + 0x3e80);
		for (int i = 0; i < PATTERN; i++)
			((uint8_t *)pattern[1])[i] = (uint8_t)((((unsigned)rand() & 0x8f) + 0x30));
	}
	for (size_t at = 0; at < bytes; at += PATTERN)
		check(gpu_copy_in(p + at, pattern[e4m3], bytes - at < PATTERN ? bytes - at : (size_t)PATTERN), "copy");
	return p;
}

static float *rows_of(const void *from, size_t n)
{
	uint16_t *raw = (uint16_t *)malloc(n * 2);
	float *f = (float *)malloc(n * sizeof(float));

	check(gpu_copy_out(raw, from, n * 2), "copy");
	for (size_t i = 0; i < n; i++) {
		const uint32_t u = (uint32_t)raw[i] << 16;

		memcpy(&f[i], &u, 4);
	}
	free(raw);
	return f;
}

static void compare(const char *name, struct gk_attention a, size_t n)
{
	double err = 0, norm = 0;
	float *got, *want;

	if (gk_attention(&ctx, &a) < 0)
		n_failed++;
	check(gpuStreamSynchronize(stream), name);
	got = rows_of(a.out.p, n);
	a.exact = true;
	if (gk_attention(&ctx, &a) < 0)
		n_failed++;
	check(gpuStreamSynchronize(stream), name);
	want = rows_of(a.out.p, n);
	for (size_t i = 0; i < n; i++) {
		err += ((double)got[i] - want[i]) * ((double)got[i] - want[i]);
		norm += (double)want[i] * want[i];
	}
	if (!(sqrt(err / norm) < 1e-2)) {
		n_failed++;
		fprintf(stderr, "%s: wrong by %g\n", name, sqrt(err / norm));
	}
	free(got);
	free(want);
}

static void attention(uint32_t n_seqs, uint32_t kv_len, bool e4m3, const char *only)
{
	const uint32_t bytes = e4m3 ? 1 : 2;
	const double read = 2.0 * n_seqs * kv_len * KV_HEADS * DIM * bytes;
	const uint32_t copies = (uint32_t)(300e6 / read) + 1, width = HEADS * DIM;
	struct gk_attention a = {};
	struct batch b;
	size_t step;
	uint8_t *k, *v;
	uint16_t *q, *out;
	char name[128];
	double us;

	(void)snprintf(name, sizeof(name), "%u x %u keys %s", n_seqs, kv_len, e4m3 ? "e4m3" : "bf16");
	if (only && !strstr(name, only))
		return;
	make_batch(&b, n_seqs, kv_len);
	step = (size_t)b.n_pages * KV_HEADS * PAGE * DIM * bytes;
	k = pool(step * copies, e4m3);
	v = pool(step * copies, e4m3);
	q = (uint16_t *)pool((size_t)n_seqs * width * 2, false);
	out = (uint16_t *)pool((size_t)n_seqs * width * 2, false);
	a.out = { out, GK_BF16, width };
	a.q = { q, GK_BF16, width };
	a.kv.dtype = e4m3 ? KN_F8_E4M3 : KN_BF16;
	a.kv.n_kv_head = KV_HEADS;
	a.kv.k_dim = a.kv.v_dim = DIM;
	a.kv.page_tokens = PAGE;
	a.kv.k = k;
	a.kv.v = v;
	a.batch = &b.b;
	a.n_head = HEADS;
	a.scale = 0.088f;
	a.keys_are_older = true;
	compare(name, a, (size_t)n_seqs * width);
	us = measure((int)copies * (read < 1e8 ? 8 : 2), [&](int i) {
		a.kv.k = k + step * ((uint32_t)i % copies);
		a.kv.v = v + step * ((uint32_t)i % copies);
		return gk_attention(&ctx, &a);
	});
	report(name, us, read);
	for (void *p : { (void *)k, (void *)v, (void *)q, (void *)out })
		(void)gpu_free(p);
	drop_batch(&b);
}

int main(int argc, char **argv)
{
	static const uint32_t cases[][2] = { { 128, 576 }, { 32, 576 },  { 8, 2048 },  { 1, 4096 },
		                             { 1, 16384 }, { 256, 1500 }, { 1, 576 } };
	const char *only = nullptr;

	for (int i = 1; i < argc; i++) {
		if (!strncmp(argv[i], "--only=", 7))
			only = argv[i] + 7;
		if (!strcmp(argv[i], "--fast"))
			n_replays = 9;
	}
	if (gk_ctx_init(&ctx, 0) < 0 || gpuStreamCreate(&stream) != GPU_OK) {
		fprintf(stderr, "no device: %s\n", gk_error_text());
		return 77;
	}
	ctx.stream = (void *)stream;
	ctx.scratch_bytes = 256u << 20;
	ctx.scratch = device<uint8_t>(ctx.scratch_bytes);
	ctx.counters = device<uint32_t>(GK_COUNTERS);
	check(gpu_fill(ctx.counters, 0, GK_COUNTERS * sizeof(uint32_t)), "fill");
	read_limit();
	for (int e4m3 = 0; e4m3 < 2; e4m3++) {
		for (const uint32_t *c : cases)
			attention(c[0], c[1], e4m3, only);
	}
	return n_failed != 0;
}
