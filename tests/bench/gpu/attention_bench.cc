/* How near attention of one new token per sequence comes to reading its keys and values, and what prompts' multiplies:
 * JSON lines.
 *
 *   attention_bench [--fast] [--only=TEXT]
 *
 * 32 query heads, 8 for keys and values, head size 128 (Qwen3-8B), pages of 32 tokens in scattered order, bfloat16 and
 * e4m3; of prompts other models' heads, too, by the kernel for all devices and by Hopper's in turn. --only takes cases
 * whose names have the text. The limit is a kernel that only reads, measured in the same run. Each case is a graph of
 * several launches over different pools, more than the second-level cache holds; the median of its replays counts, and
 * with --fast there are fewer of them. Before it is timed, one launch is compared with kernels of float32 arithmetic.
 * Of prompts, a product and a sum for each key that a row sees count, of the scores and of the values; the limit is
 * left to the reader. */
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

static void attention(uint32_t n_seqs, uint32_t kv_len, uint32_t fewer, bool e4m3, const char *only)
{
	const uint32_t bytes = e4m3 ? 1 : 2;
	const uint32_t width = HEADS * DIM;
	struct gk_attention a = {};
	struct batch b;
	size_t step;
	uint8_t *k, *v;
	uint16_t *q, *out;
	char name[128], least[32] = "";
	uint32_t copies;
	double us, read;

	if (fewer)
		(void)snprintf(least, sizeof(least), "%u to ", kv_len - fewer);
	(void)snprintf(name, sizeof(name), "%u x %s%u keys %s", n_seqs, least, kv_len, e4m3 ? "e4m3" : "bf16");
	if (only && !strstr(name, only))
		return;
	make_batch(&b, n_seqs, kv_len, 1, fewer);
	read = 2.0 * b.n_keys * KV_HEADS * DIM * bytes;
	copies = (uint32_t)(300e6 / read) + 1;
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

/* A model's. */
struct heads {
	const char *name;
	uint32_t n, n_kv, dim, window;
	float softcap;
	bool e4m3;
};

static const struct heads qwen3 = { "", HEADS, KV_HEADS, DIM, 0, 0.0f, false };

/* Keys that the new tokens see, together. */
static double seen(const struct heads *h, uint32_t kv_len, uint32_t n_q)
{
	double sum = 0;

	for (uint32_t i = kv_len - n_q; i < kv_len; i++)
		sum += h->window && i + 1 > h->window ? h->window : i + 1;
	return sum;
}

/* n_q new tokens for each sequence, behind kv_len - n_q older ones; by Hopper's kernel or the one for all devices. */
static void prompts(const struct heads *h, uint32_t n_seqs, uint32_t kv_len, uint32_t n_q, bool hopper,
                    const char *only)
{
	const uint32_t width = h->n * h->dim, bytes = h->e4m3 ? 1 : 2;
	const struct gk_ctx before = ctx;
	struct gk_attention a = {};
	struct batch b;
	size_t pool_size;
	uint16_t *q, *out;
	uint8_t *k, *v;
	char name[128];
	double us;

	(void)snprintf(name, sizeof(name), "prompts of %u x %u behind %u %s%s%s", n_seqs, n_q, kv_len - n_q,
	               h->e4m3 ? "e4m3" : "bf16", h->name, hopper ? "" : " all devices'");
	if (only && !strstr(name, only))
		return;
	make_batch(&b, n_seqs, kv_len, n_q);
	pool_size = (size_t)b.n_pages * h->n_kv * PAGE * h->dim * bytes;
	k = pool(pool_size, h->e4m3);
	v = pool(pool_size, h->e4m3);
	q = (uint16_t *)pool((size_t)b.n_rows * width * 2, false);
	out = (uint16_t *)pool((size_t)b.n_rows * width * 2, false);
	a.out = { out, GK_BF16, width };
	a.q = { q, GK_BF16, width };
	a.kv = kv_of(h->e4m3 ? KN_F8_E4M3 : KN_BF16, k, v);
	a.kv.n_kv_head = h->n_kv;
	a.kv.k_dim = a.kv.v_dim = h->dim;
	a.batch = &b.b;
	a.n_head = h->n;
	a.scale = 1.0f / sqrtf((float)h->dim);
	a.window = h->window;
	a.softcap = h->softcap;
	a.keys_are_older = true;
	if (!hopper)
		ctx.sm = 0;
	if (h == &qwen3 || kv_len <= 2048) /* float32 takes its time */
		compare(name, a, (size_t)b.n_rows * width);
	us = measure(8, [&](int) { return gk_attention(&ctx, &a); });
	ctx = before;
	printf("{\"bench\":\"attention\",\"case\":\"%s\",\"value\":%.1f,\"unit\":\"TFLOP/s\",\"us\":%.2f}\n", name,
	       4.0 * seen(h, kv_len, n_q) * n_seqs * h->n * h->dim / us * 1e-6, us);
	(void)fflush(stdout);
	for (void *p : { (void *)k, (void *)v, (void *)q, (void *)out })
		(void)gpu_free(p);
	drop_batch(&b);
}

int main(int argc, char **argv)
{
	static const uint32_t cases[][3] = { { 128, 576, 0 },  { 128, 640, 128 }, { 64, 1024, 900 }, { 32, 576, 0 },
		                             { 256, 1500, 0 }, { 8, 2048, 0 },    { 1, 4096, 0 },    { 1, 16384, 0 },
		                             { 1, 576, 0 } };
	static const uint32_t prompt_cases[][3] = { { 1, 2048, 2048 }, { 4, 512, 512 },  { 128, 512, 512 },
		                                    { 1, 8192, 8192 }, { 1, 8192, 512 }, { 4, 8192, 512 } };
	/* What Hopper's kernel learnt since its first figures. */
	static const struct heads kinds[] = {
		{ " gpt-oss, window 128", 64, 8, 64, 128, 0.0f, false },
		{ " mistral, window 4096", 32, 8, 128, 4096, 0.0f, false },
		{ " capped", 32, 8, 128, 0, 50.0f, false },
		{ "", 32, 8, 128, 0, 0.0f, true },
		{ " gemma, heads of 256", 16, 8, 256, 0, 0.0f, false },
		{ " gemma, window 1024", 16, 8, 256, 1024, 0.0f, false },
		{ " gemma, heads of 256", 16, 8, 256, 0, 0.0f, true },
	};
	static const uint32_t kind_cases[][3] = { { 1, 2048, 2048 }, { 32, 512, 512 }, { 1, 8192, 8192 } };
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
			attention(c[0], c[1], c[2], e4m3, only);
	}
	for (const uint32_t *c : prompt_cases)
		prompts(&qwen3, c[0], c[1], c[2], true, only);
	for (const struct heads &h : kinds) {
		for (const uint32_t *c : kind_cases) {
			prompts(&h, c[0], c[1], c[2], false, only);
			if (ctx.sm == 90)
				prompts(&h, c[0], c[1], c[2], true, only);
		}
	}
	return n_failed != 0;
}
