/* What this machine can do at best, measured in the run that uses it: reading memory, and the arithmetic that the
 * kernels are made of, from registers. Each loop keeps twenty chains under way, more than latency times rate of any
 * of these instructions. */
#ifndef BENCH_LIMITS_H
#define BENCH_LIMITS_H

#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>

#include "base/threadpool.h"

struct bench_limits {
	double read_gb_s;   /* all threads, from memory */
	double read_1_gb_s; /* one thread */
	double fma_gop_s;   /* float multiply-add, two operations each */
	double bf16_gop_s;  /* vdpbf16ps; 0 where there is none */
	double int8_gop_s;  /* vpdpbusd; 0 where there is none */
};

/* What time means: CLOCK_PROCESS_CPUTIME_ID with one thread gives figures of a busy machine that can be compared. */
static clockid_t bench_clock = CLOCK_MONOTONIC;

/* Seconds. */
static double bench_now(void)
{
	struct timespec t;

	clock_gettime(bench_clock, &t);
	return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

static int by_seconds(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;

	return x < y ? -1 : x > y;
}

/* Median seconds of a loop, as everything here: on a shared machine the best and the worst are both luck. */
static double median_of(struct base_threadpool *pool, size_t items, base_threadpool_fn fn, void *arg)
{
	enum { RUNS = 7 };
	double t[RUNS];

	for (int i = 0; i < RUNS; i++) {
		t[i] = bench_now();
		base_threadpool_for(pool, items, 1, fn, arg);
		t[i] = bench_now() - t[i];
	}
	qsort(t, RUNS, sizeof(*t), by_seconds);
	return t[RUNS / 2];
}

enum { READ_BYTES = 1 << 30, READ_ITEM = 1 << 20, LOOPS = 2000000, CHAINS = 20 };

static void read_items(void *arg, size_t begin, size_t end, unsigned worker)
{
	typedef uint64_t line __attribute__((vector_size(64)));
	const line *p = (const line *)((const char *)arg + begin * READ_ITEM);
	line a = { 0 }, b = { 0 };

	(void)worker;
	for (size_t i = 0; i < (end - begin) * READ_ITEM / sizeof(line); i += 2) {
		a += p[i];
		b += p[i + 1];
	}
	a += b;
	__asm__ volatile("" ::"m"(a));
}

#if defined(__x86_64__)
#include <immintrin.h>

/* The chains begin as values that the compiler cannot know to be the same, or it would compute one of them. */
#define PEAK(name, isa, type, zero, operation)                                                              \
	static __attribute__((target(isa))) void name(void *arg, size_t begin, size_t end, unsigned worker) \
	{                                                                                                   \
		type x = zero, y = zero;                                                                    \
		type a0 = zero, a1 = zero, a2 = zero, a3 = zero, a4 = zero;                                 \
		type a5 = zero, a6 = zero, a7 = zero, a8 = zero, a9 = zero;                                 \
		type a10 = zero, a11 = zero, a12 = zero, a13 = zero, a14 = zero;                            \
		type a15 = zero, a16 = zero, a17 = zero, a18 = zero, a19 = zero;                            \
		(void)arg;                                                                                  \
		(void)begin;                                                                                \
		(void)end;                                                                                  \
		(void)worker;                                                                               \
		__asm__ volatile("" : "+v"(a0), "+v"(a1), "+v"(a2), "+v"(a3), "+v"(a4));                    \
		__asm__ volatile("" : "+v"(a5), "+v"(a6), "+v"(a7), "+v"(a8), "+v"(a9));                    \
		__asm__ volatile("" : "+v"(a10), "+v"(a11), "+v"(a12), "+v"(a13), "+v"(a14));               \
		__asm__ volatile("" : "+v"(a15), "+v"(a16), "+v"(a17), "+v"(a18), "+v"(a19));               \
		for (long i = 0; i < LOOPS; i++) {                                                          \
			__asm__ volatile("" : "+v"(x), "+v"(y));                                            \
			operation(a0);                                                                      \
			operation(a1);                                                                      \
			operation(a2);                                                                      \
			operation(a3);                                                                      \
			operation(a4);                                                                      \
			operation(a5);                                                                      \
			operation(a6);                                                                      \
			operation(a7);                                                                      \
			operation(a8);                                                                      \
			operation(a9);                                                                      \
			operation(a10);                                                                     \
			operation(a11);                                                                     \
			operation(a12);                                                                     \
			operation(a13);                                                                     \
			operation(a14);                                                                     \
			operation(a15);                                                                     \
			operation(a16);                                                                     \
			operation(a17);                                                                     \
			operation(a18);                                                                     \
			operation(a19);                                                                     \
		}                                                                                           \
		__asm__ volatile("" ::"v"(a0), "v"(a1), "v"(a2), "v"(a3), "v"(a4));                         \
		__asm__ volatile("" ::"v"(a5), "v"(a6), "v"(a7), "v"(a8), "v"(a9));                         \
		__asm__ volatile("" ::"v"(a10), "v"(a11), "v"(a12), "v"(a13), "v"(a14));                    \
		__asm__ volatile("" ::"v"(a15), "v"(a16), "v"(a17), "v"(a18), "v"(a19));                    \
	}
#define OP_FMA256(a) a = _mm256_fmadd_ps(x, y, a)
#define OP_FMA512(a) a = _mm512_fmadd_ps(x, y, a)
#define OP_BF16(a) a = _mm512_dpbf16_ps(a, (__m512bh)x, (__m512bh)y)
#define OP_INT8(a) a = _mm512_dpbusd_epi32(a, x, y)

/* AVX2 has sixteen registers: ten chains, enough for two a cycle with a latency of five. */
static __attribute__((target("avx2,fma"))) void peak_fma256(void *arg, size_t begin, size_t end, unsigned worker)
{
	__m256 a[10] = { 0 }, x = _mm256_setzero_ps(), y = _mm256_setzero_ps();

	(void)arg;
	(void)begin;
	(void)end;
	(void)worker;
	__asm__ volatile("" : "+x"(a[0]), "+x"(a[1]), "+x"(a[2]), "+x"(a[3]), "+x"(a[4]));
	__asm__ volatile("" : "+x"(a[5]), "+x"(a[6]), "+x"(a[7]), "+x"(a[8]), "+x"(a[9]));
	for (long i = 0; i < 2 * LOOPS; i++) {
		__asm__ volatile("" : "+x"(x), "+x"(y));
		OP_FMA256(a[0]);
		OP_FMA256(a[1]);
		OP_FMA256(a[2]);
		OP_FMA256(a[3]);
		OP_FMA256(a[4]);
		OP_FMA256(a[5]);
		OP_FMA256(a[6]);
		OP_FMA256(a[7]);
		OP_FMA256(a[8]);
		OP_FMA256(a[9]);
	}
	__asm__ volatile("" ::"x"(a[0]), "x"(a[1]), "x"(a[2]), "x"(a[3]), "x"(a[4]));
	__asm__ volatile("" ::"x"(a[5]), "x"(a[6]), "x"(a[7]), "x"(a[8]), "x"(a[9]));
}

PEAK(peak_fma512, "avx512f", __m512, _mm512_setzero_ps(), OP_FMA512)
PEAK(peak_bf16, "avx512f,avx512bf16", __m512, _mm512_setzero_ps(), OP_BF16)
PEAK(peak_int8, "avx512f,avx512vnni", __m512i, _mm512_setzero_si512(), OP_INT8)

static double peak(struct base_threadpool *pool, base_threadpool_fn fn, double ops)
{
	size_t n = base_threadpool_size(pool) * 4;

	return (double)n * LOOPS * CHAINS * ops / median_of(pool, n, fn, NULL) * 1e-9;
}

static void measure_arithmetic(struct base_threadpool *pool, struct bench_limits *l)
{
	if (__builtin_cpu_supports("avx512f"))
		l->fma_gop_s = peak(pool, peak_fma512, 32);
	else if (__builtin_cpu_supports("fma"))
		l->fma_gop_s = peak(pool, peak_fma256, 16);
	if (__builtin_cpu_supports("avx512bf16"))
		l->bf16_gop_s = peak(pool, peak_bf16, 64);
	if (__builtin_cpu_supports("avx512vnni"))
		l->int8_gop_s = peak(pool, peak_int8, 128);
}
#else
static void measure_arithmetic(struct base_threadpool *pool, struct bench_limits *l)
{
	(void)pool;
	(void)l;
}
#endif

static void bench_limits_measure(struct base_threadpool *pool, struct bench_limits *ret_limits)
{
	struct base_threadpool *one = NULL;
	char *p = mmap(NULL, READ_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	memset(ret_limits, 0, sizeof(*ret_limits));
	measure_arithmetic(pool, ret_limits);
	if (p == MAP_FAILED)
		return;
	(void)madvise(p, READ_BYTES, MADV_HUGEPAGE);
	memset(p, 1, READ_BYTES);
	ret_limits->read_gb_s = READ_BYTES / median_of(pool, READ_BYTES / READ_ITEM, read_items, p) * 1e-9;
	if (base_threadpool_new(1, &one, NULL) == 0)
		ret_limits->read_1_gb_s = READ_BYTES / median_of(one, READ_BYTES / READ_ITEM, read_items, p) * 1e-9;
	base_threadpool_free(one);
	(void)munmap(p, READ_BYTES);
}

#endif
