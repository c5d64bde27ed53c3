/* How near attention of one new token per sequence comes to reading its keys and values, and what prompts' multiplies:
 * JSON lines.
 *
 *   attention_bench [--fast] [--only=TEXT]
 *
 * 32 query heads, 8 for keys and values, head size 128 (Qwen3-8B), pages of 32 tokens in scattered order, bfloat16 and
 * e4m3. The limit is a kernel that only reads, measured in the same run. Each case is a graph of several launches over
 * different pools, more than the second-level cache holds; the median of its replays counts, and with --fast there are
 * fewer of them. Before it is timed, one launch is compared with kernels of float32 arithmetic. Of prompts, a product
 * and a sum for each key that a row sees count, of the scores and of the values; the limit is left to the reader. */
#include <math.h>

#include "bench.h"

static void report(const char *name, double us, double bytes)
{
	printf("{\"bench\":\"attention\",\"case\":\"%s\",\"value\":%.1f,\"unit\":\"GB/"
	       "s\",\"limit\":%.1f,\"share\":%.3f,"
	       "\"us\":%.2f}\n",
	       name, bytes / us * 1e-3, limit_gbytes, bytes / us * 1e-3 / limit_gbytes, us);
	(void)fflush(stdout);
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
	check(BENCH_GPU(StreamSynchronize)(stream), name);
	got = rows_of(a.out.p, n);
	a.exact = true;
	if (gk_attention(&ctx, &a) < 0)
		n_failed++;
	check(BENCH_GPU(StreamSynchronize)(stream), name);
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
	make_batch(&b, n_seqs, kv_len, 1);
	step = pool_bytes(&b, bytes);
	k = pool(step * copies, e4m3);
	v = pool(step * copies, e4m3);
	q = (uint16_t *)pool((size_t)n_seqs * width * 2, false);
	out = (uint16_t *)pool((size_t)n_seqs * width * 2, false);
	a.out = { out, GK_BF16, width };
	a.q = { q, GK_BF16, width };
	a.kv = kv_of(e4m3 ? KN_F8_E4M3 : KN_BF16, k, v);
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

/* n_q new tokens for each sequence, behind kv_len - n_q older ones. */
static void prompts(uint32_t n_seqs, uint32_t kv_len, uint32_t n_q, const char *only)
{
	const uint32_t width = HEADS * DIM;
	const double seen = (double)n_q * (kv_len - n_q) + 0.5 * n_q * (n_q + 1.0);
	struct gk_attention a = {};
	struct batch b;
	uint16_t *q, *out;
	uint8_t *k, *v;
	char name[128];
	double us;

	(void)snprintf(name, sizeof(name), "prompts of %u x %u behind %u bf16", n_seqs, n_q, kv_len - n_q);
	if (only && !strstr(name, only))
		return;
	make_batch(&b, n_seqs, kv_len, n_q);
	k = pool(pool_bytes(&b, 2), false);
	v = pool(pool_bytes(&b, 2), false);
	q = (uint16_t *)pool((size_t)b.n_rows * width * 2, false);
	out = (uint16_t *)pool((size_t)b.n_rows * width * 2, false);
	a.out = { out, GK_BF16, width };
	a.q = { q, GK_BF16, width };
	a.kv = kv_of(KN_BF16, k, v);
	a.batch = &b.b;
	a.n_head = HEADS;
	a.scale = 0.088f;
	a.keys_are_older = true;
	compare(name, a, (size_t)b.n_rows * width);
	us = measure(8, [&](int) { return gk_attention(&ctx, &a); });
	printf("{\"bench\":\"attention\",\"case\":\"%s\",\"value\":%.1f,\"unit\":\"TFLOP/s\",\"us\":%.2f}\n", name,
	       4.0 * seen * n_seqs * HEADS * DIM / us * 1e-6, us);
	(void)fflush(stdout);
	for (void *p : { (void *)k, (void *)v, (void *)q, (void *)out })
		(void)gpu_free(p);
	drop_batch(&b);
}

int main(int argc, char **argv)
{
	static const uint32_t cases[][2] = { { 128, 576 }, { 32, 576 },   { 8, 2048 }, { 1, 4096 },
		                             { 1, 16384 }, { 256, 1500 }, { 1, 576 } };
	static const uint32_t prompt_cases[][3] = { { 1, 2048, 2048 }, { 4, 512, 512 },  { 128, 512, 512 },
		                                    { 1, 8192, 8192 }, { 1, 8192, 512 }, { 4, 8192, 512 } };
	const size_t limit_bytes = (size_t)4 << 30;
	const char *only = nullptr;

	n_replays = 21;
	for (int i = 1; i < argc; i++) {
		if (!strncmp(argv[i], "--only=", 7))
			only = argv[i] + 7;
		if (!strcmp(argv[i], "--fast"))
			n_replays = 9;
	}
	if (!bench_open(256u << 20))
		return 77;
	report("reading", measure_limit(limit_bytes), (double)limit_bytes);
	for (int e4m3 = 0; e4m3 < 2; e4m3++) {
		for (const uint32_t *c : cases)
			attention(c[0], c[1], e4m3, only);
	}
	for (const uint32_t *c : prompt_cases)
		prompts(c[0], c[1], c[2], only);
	return n_failed != 0;
}
