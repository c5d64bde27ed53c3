/* What this machine can do at best, measured in the run that uses it: reading memory, and the arithmetic that the
 * kernels are made of, from registers. Each loop keeps twelve chains under way, more than latency times rate of any
 * of these instructions. */
#ifndef BENCH_LIMITS_H
#define BENCH_LIMITS_H

#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
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

/* Seconds. */
static double bench_now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

static double best_of(struct base_threadpool *pool, size_t items, base_threadpool_fn fn, void *arg)
{
	double best = 1e30;

	for (int i = 0; i < 5; i++) {
		double t = bench_now();

		base_threadpool_for(pool, items, 1, fn, arg);
		t = bench_now() - t;
		best = t < best ? t : best;
	}
	return best;
}

enum { READ_BYTES = 1 << 30, READ_ITEM = 1 << 20, LOOPS = 2000000, CHAINS = 12 };

static void read_items(void *arg, size_t begin, size_t end, unsigned worker)
{
	const uint64_t *p = (const uint64_t *)((const char *)arg + begin * READ_ITEM);
	uint64_t s[8] = { 0 };

	(void)worker;
	for (size_t i = 0; i < (end - begin) * READ_ITEM / 8; i += 8) {
		for (size_t j = 0; j < 8; j++)
			s[j] += p[i + j];
	}
	__asm__ volatile("" ::"r"(s) : "memory");
}

#if defined(__x86_64__)
#include <immintrin.h>

#define PEAK(name, isa, type, zero, operation)                                                               \
	static __attribute__((target(isa))) void name(void *arg, size_t begin, size_t end, unsigned worker)  \
	{                                                                                                    \
		type a0 = zero, a1 = zero, a2 = zero, a3 = zero, a4 = zero, a5 = zero, a6 = zero, a7 = zero; \
		type a8 = zero, a9 = zero, a10 = zero, a11 = zero, x = zero, y = zero;                       \
		(void)arg;                                                                                   \
		(void)begin;                                                                                 \
		(void)end;                                                                                   \
		(void)worker;                                                                                \
		for (long i = 0; i < LOOPS; i++) {                                                           \
			__asm__ volatile("" : "+v"(x), "+v"(y));                                             \
			operation(a0);                                                                       \
			operation(a1);                                                                       \
			operation(a2);                                                                       \
			operation(a3);                                                                       \
			operation(a4);                                                                       \
			operation(a5);                                                                       \
			operation(a6);                                                                       \
			operation(a7);                                                                       \
			operation(a8);                                                                       \
			operation(a9);                                                                       \
			operation(a10);                                                                      \
			operation(a11);                                                                      \
		}                                                                                            \
		__asm__ volatile("" ::"v"(a0), "v"(a1), "v"(a2), "v"(a3), "v"(a4), "v"(a5));                 \
		__asm__ volatile("" ::"v"(a6), "v"(a7), "v"(a8), "v"(a9), "v"(a10), "v"(a11));               \
	}
#define OP_FMA256(a) a = _mm256_fmadd_ps(x, y, a)
#define OP_FMA512(a) a = _mm512_fmadd_ps(x, y, a)
#define OP_BF16(a) a = _mm512_dpbf16_ps(a, (__m512bh)x, (__m512bh)y)
#define OP_INT8(a) a = _mm512_dpbusd_epi32(a, x, y)

PEAK(peak_fma256, "avx2,fma", __m256, _mm256_setzero_ps(), OP_FMA256)
PEAK(peak_fma512, "avx512f", __m512, _mm512_setzero_ps(), OP_FMA512)
PEAK(peak_bf16, "avx512f,avx512bf16", __m512, _mm512_setzero_ps(), OP_BF16)
PEAK(peak_int8, "avx512f,avx512vnni", __m512i, _mm512_setzero_si512(), OP_INT8)

static double peak(struct base_threadpool *pool, base_threadpool_fn fn, double ops)
{
	size_t n = base_threadpool_size(pool) * 4;

	return (double)n * LOOPS * CHAINS * ops / best_of(pool, n, fn, NULL) * 1e-9;
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
	ret_limits->read_gb_s = READ_BYTES / best_of(pool, READ_BYTES / READ_ITEM, read_items, p) * 1e-9;
	if (base_threadpool_new(1, &one, NULL) == 0)
		ret_limits->read_1_gb_s = READ_BYTES / best_of(one, READ_BYTES / READ_ITEM, read_items, p) * 1e-9;
	base_threadpool_free(one);
	(void)munmap(p, READ_BYTES);
}

#endif
