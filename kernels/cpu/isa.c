/* Which instruction sets this machine can run: what the processor has (CPUID) and what the system saves
 * across task switches (XGETBV). Intel SDM volume 1, chapters 13.2 and 14.3; volume 2, CPUID leaf 7. */
#include <pthread.h>
#include <stdbool.h>
#include <string.h>
#include <time.h>

#include "cpu/cpu.h"

enum { MAX_LEVELS = 6 };

static struct {
	const struct cpu_isa *isas[MAX_LEVELS];
	const char *names[MAX_LEVELS + 1];
	size_t n;
} levels; /* written once, under pthread_once */

static void add(const struct cpu_isa *isa)
{
	levels.isas[levels.n] = isa;
	levels.names[levels.n++] = isa->name;
}

#if defined(__x86_64__)
#include <cpuid.h>
#include <sys/syscall.h>
#include <unistd.h>

static uint64_t xgetbv0(void)
{
	uint32_t lo, hi;

	__asm__ volatile("xgetbv" : "=a"(lo), "=d"(hi) : "c"(0));
	return (uint64_t)hi << 32 | lo;
}

static bool bits(uint32_t reg, uint32_t mask)
{
	return (reg & mask) == mask;
}

/* The time of one pass over a small product of bfloat16 rows that lie in the first-level cache. */
static uint64_t time_bf16(const struct cpu_isa *isa)
{
	enum { ROWS = 8, TOKENS = 6, COLS = 512 };
	static uint16_t w[ROWS * COLS];
	static _Alignas(64) char prepared[TOKENS * (COLS * 4 + 128)];
	static float x[COLS], results[TOKENS * ROWS];
	enum cpu_xform form = isa->dense_form[KN_BF16];
	struct cpu_block b = { .w = (const char *)w,
		               .ld_w = COLS * 2,
		               .rows = ROWS,
		               .cols = COLS,
		               .x = prepared,
		               .ld_x = cpu_xform_stride(form, COLS),
		               .n = TOKENS,
		               .out = results,
		               .ld_out = ROWS };
	uint64_t best = UINT64_MAX;

	for (int t = 0; t < TOKENS; t++)
		isa->prepare[form](prepared + t * b.ld_x, x, COLS);
	for (int i = 0; i < 20; i++) {
		struct timespec a, z;
		uint64_t ns;

		clock_gettime(CLOCK_MONOTONIC, &a);
		isa->dense[KN_BF16](&b);
		clock_gettime(CLOCK_MONOTONIC, &z);
		ns = (uint64_t)(z.tv_sec - a.tv_sec) * 1000000000u + (uint64_t)(z.tv_nsec - a.tv_nsec);
		best = ns < best ? ns : best;
	}
	return best;
}

/* Tiles are 8 KiB that the system saves only for processes that asked for them. */
static bool may_use_tiles(void)
{
	enum { REQ_XCOMP_PERM = 0x1023, TILE_DATA = 18 }; /* asm/prctl.h of Linux 5.16 */

	return syscall(SYS_arch_prctl, REQ_XCOMP_PERM, TILE_DATA) == 0;
}

static void detect(void)
{
	enum { AMX = 1u << 22 | 1u << 24 | 1u << 25 /* bfloat16, tiles, int8 */, TILE_STATE = 0x60000 };
	uint32_t a, b, c, d, b7 = 0, c7 = 0, d7 = 0, a71 = 0;
	bool ymm, zmm, bf16;

	if (__get_cpuid(1, &a, &b, &c, &d) && bits(c, bit_OSXSAVE)) {
		uint64_t saved = xgetbv0();
		bool avx = bits(c, bit_AVX | bit_FMA | bit_F16C);

		if (__get_cpuid_count(7, 0, &a, &b7, &c7, &d7) && a >= 1)
			(void)__get_cpuid_count(7, 1, &a71, &b, &c, &d);
		ymm = avx && (saved & 0x6) == 0x6 && bits(b7, bit_AVX2);
		zmm = ymm && (saved & 0xe6) == 0xe6 &&
		      bits(b7, bit_AVX512F | bit_AVX512BW | bit_AVX512VL | bit_AVX512DQ) && bits(c7, bit_AVX512VNNI);
		bf16 = zmm && bits(a71, bit_AVX512BF16);
		if (bf16 && (saved & TILE_STATE) == TILE_STATE && bits(d7, AMX) && may_use_tiles()) {
			add(&cpu_isa_amxbf16);
			add(&cpu_isa_amx);
		}
		/* vdpbf16ps has twice the rate of float products on one core and half of it on another. */
		if (bf16 && time_bf16(&cpu_isa_avx512bf16) < time_bf16(&cpu_isa_avx512)) {
			add(&cpu_isa_avx512bf16);
			bf16 = false;
		}
		if (zmm)
			add(&cpu_isa_avx512);
		if (bf16)
			add(&cpu_isa_avx512bf16);
		if (ymm)
			add(&cpu_isa_avx2);
	}
	add(&cpu_isa_scalar);
}
#else
static void detect(void)
{
	add(&cpu_isa_scalar);
}
#endif

static void detect_once(void)
{
	static pthread_once_t once = PTHREAD_ONCE_INIT;

	(void)pthread_once(&once, detect);
}

const char *const *kn_cpu_isas(void)
{
	detect_once();
	return levels.names;
}

const struct cpu_isa *cpu_isa_find(const char *name, bool exact, bool deterministic)
{
	detect_once();
	for (size_t i = 0; i < levels.n; i++) {
		const struct cpu_isa *isa = levels.isas[i];
		bool floats = isa->dense_form[KN_BF16] == CPU_X_F32; /* the others' place in the list was measured */

		if (name ? strcmp(isa->name, name) == 0
		         : (floats || !(exact || deterministic)) && !(exact && isa->many_tokens))
			return isa;
	}
	return NULL;
}
