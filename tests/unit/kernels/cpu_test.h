/* For the tests of the cpu backend: repeatable numbers, backends to compare, and comparisons that say where
 * they failed. */
#ifndef CPU_TEST_H
#define CPU_TEST_H

#include <errno.h>
#include <math.h>
#include <stdbool.h>

#include "kernels.h"
#include "test.h"

#define COUNT(a) (sizeof(a) / sizeof(*(a)))

static uint64_t rng_state = 1;

static inline uint32_t rng_u32(void)
{
	/* splitmix64 */
	uint64_t z = (rng_state += 0x9e3779b97f4a7c15ull);

	z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ull;
	z = (z ^ (z >> 27)) * 0x94d049bb133111ebull;
	return (uint32_t)(z >> 32);
}

/* About normal: the sum of four uniform values. */
static inline float rng_gauss(void)
{
	float s = 0;

	for (int i = 0; i < 4; i++)
		s += (float)rng_u32() / 4294967296.0f - 0.5f;
	return s * 1.7320508f;
}

static inline float *gauss(size_t n)
{
	float *p = malloc((n ? n : 1) * sizeof(*p));

	assert_non_null(p);
	for (size_t i = 0; i < n; i++)
		p[i] = rng_gauss();
	return p;
}

static inline float *copy_of(const float *src, size_t n)
{
	float *p = malloc((n ? n : 1) * sizeof(*p));

	assert_non_null(p);
	memcpy(p, src, n * sizeof(*p));
	return p;
}

static inline struct kn_backend *open_ref(void)
{
	struct kn_config config = { .n_threads = 1, .max_tokens = 64 };
	struct kn_backend *be = NULL;

	assert_int_equal(kn_ref_open(&config, &be, NULL), 0);
	return be;
}

static inline struct kn_backend *open_cpu(const char *isa, unsigned n_threads, uint32_t max_tokens)
{
	struct kn_config config = { .n_threads = n_threads, .max_tokens = max_tokens, .isa = isa };
	struct kn_backend *be = NULL;

	assert_int_equal(kn_cpu_open(&config, &be, NULL), 0);
	return be;
}

/* |got - want| <= atol + rtol * |want| everywhere. */
static inline void assert_close(const char *what, const float *got, const float *want, size_t n, float atol, float rtol)
{
	for (size_t i = 0; i < n; i++) {
		if (!(fabsf(got[i] - want[i]) <= atol + rtol * fabsf(want[i])))
			fail_msg("%s: value %zu is %.9g, expected %.9g", what, i, (double)got[i], (double)want[i]);
	}
}

/* Bit for bit. */
static inline void assert_same(const char *what, const float *got, const float *want, size_t n)
{
	for (size_t i = 0; i < n; i++) {
		if (memcmp(&got[i], &want[i], sizeof(*got)) != 0)
			fail_msg("%s: value %zu is %.9g, expected exactly %.9g", what, i, (double)got[i],
			         (double)want[i]);
	}
}

#endif
