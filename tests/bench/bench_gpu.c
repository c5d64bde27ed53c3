/* Decode and prefill of a model of a known shape with random weights on a GPU, step by step, without the scheduler:
 * what the device does at each number of sequences and depth, and which share of its limits that is. The limits are
 * measured in the same run: memory by a sum over two arrays far larger than its caches, arithmetic by a product of 8192
 * x 8192 matrices through the same operations.
 *
 *   bench_gpu [--deterministic] [--eight-bits=ROWS] [--widened=ROWS] [--biased=ROWS] [--own=ROWS]
 *             [BACKEND [SHAPE [TYPE [CASE]]]]
 *
 * cuda, qwen3-8b, bf16 (fp8, q4_k, ...), all cases; CASE: only those with this in their names, without limits, for a
 * profiler. The options are those of struct kn_gpu_rows: from how many rows on the library multiplies, to find where
 * that pays (q4_0 with --widened=17, 33, 65, 129: "decode 32", "decode 64", "decode 128"); --own: from how many on our
 * own kernels multiply instead of the library (fp8, some products of bf16; --own=999999: never).
 *
 * One JSON object per line. Without the plugin or a device: says so and succeeds. */
#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "kernels.h"
#include "model/model.h"

enum { PAGE = 32, STEP = 2048, MAX_SEQS = 128, SEQ_TOKENS = 640, N_PAGES = MAX_SEQS * SEQ_TOKENS / PAGE, REPS = 24 };

static double now_s(void)
{
	struct timespec ts;

	(void)clock_gettime(CLOCK_MONOTONIC, &ts);
	return (double)ts.tv_sec + (double)ts.tv_nsec / 1e9;
}

static int by_value(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;

	return (x > y) - (x < y);
}

static double median(double *v, size_t n)
{
	qsort(v, n, sizeof(*v), by_value);
	return v[n / 2];
}

static void report(const char *what, double value, const char *unit, double limit)
{
	(void)printf("{\"bench\":\"gpu\",\"case\":\"%s\",\"value\":%.2f,\"unit\":\"%s\",", what, value, unit);
	if (limit > 0)
		(void)printf("\"limit\":%.2f,\"share\":%.3f,", limit, value / limit);
	else
		(void)printf("\"limit\":null,\"share\":null,");
	(void)printf("\"peer\":null,\"ratio\":null}\n");
	(void)fflush(stdout);
}

/* ---- Limits ---- */

/* Bytes per second of x += y over float32 arrays of half a gigabyte. */
static double measure_memory(struct kn_backend *be)
{
	const size_t dim = 8192, rows = 16384 / 8;
	const size_t bytes = dim * rows * sizeof(float);
	float *x[8], *y[8], *zero = calloc(1, bytes);
	double times[9];
	double best;

	for (int i = 0; i < 8; i++) {
		x[i] = be->ops->alloc(be, bytes);
		y[i] = be->ops->alloc(be, bytes);
		if (!x[i] || !y[i] || !zero)
			return 0;
		be->ops->upload(be, x[i], zero, bytes);
		be->ops->upload(be, y[i], zero, bytes);
	}
	for (int t = 0; t < 9; t++) {
		double begin;

		(void)be->ops->sync(be);
		begin = now_s();
		for (int rep = 0; rep < 4; rep++) {
			for (int i = 0; i < 8; i++)
				be->ops->add(be, x[i], dim, y[i], dim, rows, dim, 0.5f);
		}
		(void)be->ops->sync(be);
		times[t] = now_s() - begin;
	}
	best = 4 * 8 * 3.0 * (double)bytes / median(times, 9);
	for (int i = 0; i < 8; i++) {
		be->ops->free(be, x[i]);
		be->ops->free(be, y[i]);
	}
	free(zero);
	return best;
}

/* Operations per second of a product in bfloat16. */
static double measure_product(struct kn_backend *be)
{
	const uint32_t n = 8192, rows = 2048;
	uint16_t *w = malloc((size_t)n * n * sizeof(*w));
	float *x = malloc((size_t)rows * n * sizeof(*x)), *dev_x = be->ops->alloc(be, (size_t)rows * n * sizeof(*x));
	float *normed = be->ops->alloc(be, (size_t)rows * n * sizeof(*x));
	float *out = be->ops->alloc(be, (size_t)rows * n * sizeof(*x));
	struct kn_mat m = { .dtype = KN_BF16, .rows = n, .cols = n, .data = w };
	struct kn_matmul job = { .w = &m, .out = out, .ld_out = n };
	uint64_t s = 1;
	double times[7];

	if (!w || !x || !dev_x || !normed || !out)
		return 0;
	for (size_t i = 0; i < (size_t)n * n; i++) {
		s = s * 6364136223846793005ull + 1442695040888963407ull;
		w[i] = (uint16_t)(0x3c00 | (s >> 40 & 0x83ff)); /* +-0.008 .. 0.03 */
	}
	for (size_t i = 0; i < (size_t)rows * n; i++)
		x[i] = (float)(i * 2654435761u % 1000) / 500 - 1;
	be->ops->upload(be, dev_x, x, (size_t)rows * n * sizeof(*x));
	if (be->ops->mat_init(be, &m) < 0)
		return 0;
	for (int t = 0; t < 7; t++) {
		double begin;

		(void)be->ops->sync(be);
		begin = now_s();
		be->ops->rmsnorm(be, normed, n, dev_x, n, NULL, rows, 1, n, 1e-6f);
		for (int rep = 0; rep < 16; rep++)
			be->ops->matmul(be, &job, 1, normed, n, rows);
		(void)be->ops->sync(be);
		times[t] = now_s() - begin;
	}
	be->ops->mat_done(be, &m);
	be->ops->free(be, dev_x);
	be->ops->free(be, normed);
	be->ops->free(be, out);
	free(w);
	free(x);
	return 16 * 2.0 * n * n * rows / median(times, 7);
}

/* ---- Steps ---- */

struct bench {
	struct eng_model *model;
	struct eng_runner *runner;
	const struct eng_model_info *info;
	uint32_t pages[N_PAGES];
	int32_t ids[STEP];
	struct kn_pick picks[MAX_SEQS]; /* the best of each row, as a greedy request wants */
	double bytes_per_s, flops;
	const char *only;
};

static double step_s(struct bench *b, const struct eng_step_seq *seqs, size_t n)
{
	const float *rows;
	struct err err = { 0 };
	double begin = now_s();

	if (eng_runner_step(b->runner, seqs, n, &rows, &err) < 0) {
		(void)fprintf(stderr, "bench_gpu: %s\n", err_text(&err));
		exit(1);
	}
	return now_s() - begin;
}

static double steps_median(struct bench *b, const struct eng_step_seq *seqs, size_t n, int reps)
{
	double times[REPS];

	for (int i = 0; i < 3; i++)
		(void)step_s(b, seqs, n); /* compiles, captures */
	for (int i = 0; i < reps; i++)
		times[i] = step_s(b, seqs, n);
	return median(times, (size_t)reps);
}

/* Bytes of weights that a step of n tokens reads: of experts those that some token takes, if tokens choose evenly. */
static double weight_bytes(const struct eng_model_info *i, uint32_t n)
{
	double each, taken;

	if (i->n_expert == 0)
		return (double)i->weight_bytes;
	each = (double)i->expert_bytes / i->n_expert_used;
	taken = i->n_expert * (1 - pow(1 - (double)i->n_expert_used / i->n_expert, n));
	return (double)(i->weight_bytes - i->expert_bytes) + each * taken;
}

/* Weights that a token is multiplied with. The output matrix is used for one token a prompt. */
static double active_params(const struct eng_model_info *i)
{
	double experts = (double)i->n_expert_params;

	if (i->n_expert)
		experts *= 1 - (double)i->n_expert_used / i->n_expert;
	return (double)(i->n_params - 2ull * i->n_vocab * i->n_embd) - experts;
}

/* n sequences with `depth` tokens each in the cache take one more. Sequences have pages of their own. */
static void decode(struct bench *b, uint32_t n, uint32_t depth)
{
	struct eng_step_seq seqs[MAX_SEQS];
	uint32_t per_seq = (depth + PAGE) / PAGE;
	char what[64];
	double t, bytes;

	(void)snprintf(what, sizeof(what), "decode %u depth %u", n, depth);
	if (b->only && !strstr(what, b->only))
		return;
	for (uint32_t i = 0; i < n; i++)
		seqs[i] = (struct eng_step_seq){ .pages = b->pages + i * per_seq,
			                         .ids = b->ids + i,
			                         .n_ids = 1,
			                         .pos = depth,
			                         .n_out = 1,
			                         .is_answer = true,
			                         .picks = b->picks };
	t = steps_median(b, seqs, n, REPS);
	bytes = weight_bytes(b->info, n) + (double)b->info->kv_bytes_per_token * depth * n;
	report(what, n / t, "tok/s", b->bytes_per_s / bytes * n);
}

/* n_seqs prompts of n_tokens each in one step. */
static void prefill(struct bench *b, uint32_t n_seqs, uint32_t n_tokens)
{
	struct eng_step_seq seqs[MAX_SEQS];
	uint32_t per_seq = (n_tokens + PAGE - 1) / PAGE;
	/* Two operations a weight and token, or reading the weights where that takes longer. */
	double flops = 2.0 * active_params(b->info) * n_tokens * n_seqs;
	double bytes = weight_bytes(b->info, n_tokens * n_seqs), least = 0;
	char what[64];
	double t;

	(void)snprintf(what, sizeof(what), "prefill %u x %u", n_seqs, n_tokens);
	if (b->only && !strstr(what, b->only))
		return;
	for (uint32_t i = 0; i < n_seqs; i++)
		seqs[i] = (struct eng_step_seq){
			.pages = b->pages + i * per_seq, .ids = b->ids, .n_ids = n_tokens, .n_out = 1, .picks = b->picks
		};
	t = steps_median(b, seqs, n_seqs, 7);
	if (b->flops > 0)
		least = flops / b->flops > bytes / b->bytes_per_s ? flops / b->flops : bytes / b->bytes_per_s;
	report(what, (double)n_seqs * n_tokens / t, "tok/s", least > 0 ? n_seqs * n_tokens / least : 0);
}

static void fill_pages(struct bench *b)
{
	for (uint32_t at = 0; at < N_PAGES; at += STEP / PAGE) {
		const struct eng_step_seq seq = { .pages = b->pages + at, .ids = b->ids, .n_ids = STEP, .n_out = 1 };

		if (at + STEP / PAGE <= N_PAGES)
			(void)step_s(b, &seq, 1);
	}
}

static void run(struct bench *b)
{
	fill_pages(b);
	prefill(b, 1, 512);
	prefill(b, 1, 2048);
	prefill(b, 4, 512);
	for (uint32_t n = 1; n <= MAX_SEQS; n *= n == 1 ? 8 : 2) {
		if (n == 1 || n == 8 || n >= 32)
			decode(b, n, 512);
	}
	decode(b, 1, 4096);
	decode(b, 1, 16384);
}

/* The options before the other arguments; how many. */
static int read_options(char **argv, struct kn_config *config)
{
	struct kn_gpu_rows *rows = &config->gpu_rows;
	const struct {
		const char *name;
		uint32_t *to;
	} options[] = { { "--eight-bits=", &rows->eight_bits },
		        { "--widened=", &rows->widened },
		        { "--biased=", &rows->biased },
		        { "--own=", &rows->own } };
	int n = 0;

	for (; argv[1 + n] && argv[1 + n][0] == '-'; n++) {
		config->deterministic |= strcmp(argv[1 + n], "--deterministic") == 0;
		for (size_t i = 0; i < sizeof(options) / sizeof(options[0]); i++) {
			size_t length = strlen(options[i].name);

			if (strncmp(argv[1 + n], options[i].name, length) == 0)
				*options[i].to = (uint32_t)strtoul(argv[1 + n] + length, NULL, 10);
		}
	}
	return n;
}

int main(int argc, char **argv)
{
	struct kn_config config = { .max_tokens = STEP };
	int n_options = read_options(argv, &config);
	const char *kind, *shape;
	const struct eng_runner_config rc = { .n_pages = N_PAGES,
		                              .page_tokens = PAGE,
		                              .max_tokens = STEP,
		                              .max_outputs = MAX_SEQS,
		                              .kv_dtype = KN_BF16 };
	static struct bench b;
	struct kn_backend *be;
	enum kn_dtype dtype = KN_BF16;
	struct err err = { 0 };
	double begin;
	int r;

	argc -= n_options;
	argv += n_options;
	kind = argc > 1 ? argv[1] : "cuda";
	shape = argc > 2 ? argv[2] : "qwen3-8b";
	r = argc > 3 ? kn_dtype_parse(argv[3], &dtype, &err) : 0;
	if (r == 0) {
		r = kn_backend_open(kind, &config, &be, &err);
		if (r == -ENOENT || r == -ENODEV || r == -ELIBACC) {
			(void)fprintf(stderr, "bench_gpu: skipped: %s\n", err_text(&err));
			return 0;
		}
	}
	if (r == 0) {
		b.only = argc > 4 ? argv[4] : NULL;
		b.bytes_per_s = b.only ? 0 : measure_memory(be);
		b.flops = b.only ? 0 : measure_product(be);
		report("memory", b.bytes_per_s / 1e9, "GB/s", 0);
		report("product 2048 x 8192 x 8192", b.flops / 1e12, "TFLOP/s", 0);
		begin = now_s();
		r = eng_model_random(shape, dtype, be, &b.model, &err);
	}
	if (r == 0) {
		report("loading", now_s() - begin, "s", 0);
		r = eng_runner_new(b.model, &rc, &b.runner, &err);
	}
	if (r < 0) {
		(void)fprintf(stderr, "bench_gpu: %s\n", err_text(&err));
		return 1;
	}
	b.info = eng_model_info(b.model);
	for (uint32_t i = 0; i < N_PAGES; i++)
		b.pages[i] = (uint32_t)((uint64_t)i * 1657 % N_PAGES); /* 1657 is prime: all of them, scattered */
	for (uint32_t i = 0; i < STEP; i++)
		b.ids[i] = (int32_t)((i * 2654435761u >> 8) % b.info->n_vocab);
	run(&b);
	eng_runner_free(b.runner);
	eng_model_close(b.model);
	kn_backend_close(be);
	return 0;
}
