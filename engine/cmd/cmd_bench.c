/* ocai-engine bench: prefill and decode speed of a model, through the same path that serving uses.
 *
 * Decode of one sequence reads every weight once per token, so its bound is the read bandwidth of memory,
 * which is measured here, in the same run and with the same number of threads. Each figure is the median
 * of several repetitions after one that warms up. */
#include "common.h"

#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "base/threadpool.h"

enum { MAX_REPS = 100, MAX_BATCH = 256, SPARE_TOKENS = 64 };

struct bench {
	struct model_options m;
	const char *random, *type;
	uint32_t n_prompt, n_gen, depth, batch, reps, top_k;
	double temperature, top_p;
	bool json, speculation, no_ahead;
};

const struct opt cmd_bench_opts[] = {
	MODEL_OPTS(struct bench, m),
	{ "random", 0, OPT_STR, offsetof(struct bench, random), "SHAPE",
	  "random weights of a known shape: qwen3-0.6b, qwen3-1.7b, qwen3-8b, qwen3-30b-a3b", NULL },
	{ "type", 0, OPT_STR, offsetof(struct bench, type), "TYPE",
	  "type of the random weights: bf16, q8_0, q4_k, fp8 (on a GPU) ... [bf16]", NULL },
	{ "prompt", 'p', OPT_UINT, offsetof(struct bench, n_prompt), "N",
	  "prompt tokens of the prefill test; 0: none [512]", NULL },
	{ "gen", 'n', OPT_UINT, offsetof(struct bench, n_gen), "N", "tokens of the decode test; 0: none [128]", NULL },
	{ "depth", 'd', OPT_UINT, offsetof(struct bench, depth), "N", "tokens in the cache before the decode test [1]",
	  NULL },
	{ "batch", 'b', OPT_UINT, offsetof(struct bench, batch), "N", "sequences at a time [1]", NULL },
	{ "reps", 0, OPT_UINT, offsetof(struct bench, reps), "N", "repetitions [5]", NULL },
	{ "temperature", 'T', OPT_DOUBLE, offsetof(struct bench, temperature), "X",
	  "sample; 0: the likeliest token always [0]", NULL },
	{ "top-p", 0, OPT_DOUBLE, offsetof(struct bench, top_p), "X", "of sampling [1]", NULL },
	{ "top-k", 0, OPT_UINT, offsetof(struct bench, top_k), "N", "of sampling; 0: all [0]", NULL },
	{ "speculation", 0, OPT_FLAG, offsetof(struct bench, speculation), NULL,
	  "guess tokens as serve does; random weights repeat themselves [no]", NULL },
	{ "no-ahead", 0, OPT_FLAG, offsetof(struct bench, no_ahead), NULL,
	  "on a GPU, begin no step before the tokens of the one before it are known [no]", NULL },
	{ "json", 0, OPT_FLAG, offsetof(struct bench, json), NULL, "one JSON object per line", NULL },
	{ 0 }
};

static int compare_doubles(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;

	return x < y ? -1 : x > y;
}

static double median(double *v, size_t n)
{
	qsort(v, n, sizeof(*v), compare_doubles);
	return n % 2 ? v[n / 2] : (v[n / 2 - 1] + v[n / 2]) / 2;
}

/* ---- Read bandwidth ---- */

enum { READ_BYTES = 512 << 20, READ_CHUNK = 1 << 20 };

typedef uint64_t line __attribute__((vector_size(64)));

struct reader {
	const line *data;
	line sums[64]; /* by worker; keeps the reads from being optimized away */
};

static void read_chunk(void *arg, size_t begin, size_t end, unsigned worker)
{
	struct reader *r = arg;
	const size_t lines = READ_CHUNK / sizeof(line);
	line a = { 0 }, b = { 0 };

	for (size_t i = begin * lines; i < end * lines; i += 2) {
		a += r->data[i];
		b += r->data[i + 1];
	}
	r->sums[worker % 64] += a + b;
}

/* Bytes per second of reading memory once, all threads together; 0 when it could not be measured. */
static double measure_bandwidth(uint32_t n_threads)
{
	struct base_threadpool *pool = NULL;
	struct reader *r = aligned_alloc(sizeof(line), sizeof(*r));
	double best = 0;
	void *data = mmap(NULL, READ_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	if (r && data != MAP_FAILED && base_threadpool_new(n_threads, &pool, NULL) == 0) {
		memset(r, 0, sizeof(*r));
		(void)madvise(data, READ_BYTES, MADV_HUGEPAGE); /* as repacked weights have */
		memset(data, 1, READ_BYTES);
		r->data = data;
		for (int i = 0; i < 6; i++) {
			double t = base_now_s();

			base_threadpool_for(pool, READ_BYTES / READ_CHUNK, 1, read_chunk, r);
			t = base_now_s() - t;
			if (READ_BYTES / t > best)
				best = READ_BYTES / t;
		}
	}
	base_threadpool_free(pool);
	if (data != MAP_FAILED)
		(void)munmap(data, READ_BYTES);
	free(r);
	return best;
}

/* ---- One measurement ---- */

struct timing {
	pthread_mutex_t lock;
	pthread_cond_t cond;
	uint32_t n_open, last;  /* position of a sequence's last token */
	bool is_over;           /* a sequence has its last token */
	double first_s, last_s; /* the last first token of all sequences; the last token while all of them decode */
	uint64_t n_tokens;      /* between the two */
	struct err error;
};

static void on_event(void *arg, const struct eng_event *ev)
{
	struct timing *t = arg;

	(void)pthread_mutex_lock(&t->lock);
	if (ev->kind == ENG_EV_TOKEN) {
		/* The step that gives the first sequence its last token is left out as a whole: what it gives the
		 * others is told only behind that. */
		t->is_over |= t->last > 0 && ev->position == t->last;
		if (ev->position == 0) {
			t->first_s = base_now_s();
			t->n_tokens = 0;
		} else if (!t->is_over) {
			t->last_s = base_now_s();
			t->n_tokens++;
		}
	}
	if (ev->kind == ENG_EV_DONE) {
		if (ev->error)
			t->error = *ev->error;
		t->n_open--;
		(void)pthread_cond_signal(&t->cond);
	}
	(void)pthread_mutex_unlock(&t->lock);
}

/* Runs `batch` sequences of n_prompt random tokens and one output, and n_gen more while all of them are there (0:
 * none). ret_decode_s: for a token of them all; 0: they were never all there. */
static int measure(const struct bench *o, struct eng_engine *e, uint32_t n_prompt, uint32_t n_gen,
                   double *ret_prefill_s, double *ret_decode_s, struct err *err)
{
	struct timing t = { .lock = PTHREAD_MUTEX_INITIALIZER,
		            .cond = PTHREAD_COND_INITIALIZER,
		            .last = n_gen ? n_gen + 1 : 0 };
	CLEANUP(freep) int32_t *ids = calloc(n_prompt, sizeof(*ids));
	struct eng_request req = { .ids = ids,
		                   .n_ids = n_prompt,
		                   .max_new = t.last + 1,
		                   .ignore_eos = true,
		                   .logprob_start = -1,
		                   .on_event = on_event,
		                   .arg = &t,
		                   .sampling = { .temperature = (float)o->temperature,
		                                 .top_p = (float)o->top_p,
		                                 .top_k = o->top_k,
		                                 .repetition_penalty = 1 } };
	uint32_t n_vocab = eng_engine_info(e)->n_vocab, seed = 12345;
	double start;
	int r = 0;

	if (!ids)
		return err_set(err, -ENOMEM, "out of memory");
	start = base_now_s();
	for (uint32_t k = 0; k < o->batch && r == 0; k++) {
		uint64_t id;

		for (uint32_t i = 0; i < n_prompt; i++) {
			seed = seed * 1664525u + 1013904223u;
			ids[i] = (int32_t)((seed >> 8) % n_vocab);
		}
		(void)pthread_mutex_lock(&t.lock);
		t.n_open++;
		(void)pthread_mutex_unlock(&t.lock);
		r = eng_submit(e, &req, &id, err);
		if (r < 0)
			t.n_open--;
	}
	(void)pthread_mutex_lock(&t.lock);
	while (t.n_open > 0)
		(void)pthread_cond_wait(&t.cond, &t.lock);
	(void)pthread_mutex_unlock(&t.lock);
	if (r < 0)
		return r;
	if (t.error.code)
		return err_set(err, t.error.code, "%s", err_text(&t.error));
	*ret_prefill_s = t.first_s - start;
	*ret_decode_s = t.n_tokens ? (t.last_s - t.first_s) / (double)t.n_tokens : 0;
	return 0;
}

/* ret_busy: the share of the time that a device computed; 0: not known. */
static int measure_median(const struct bench *o, struct eng_engine *e, uint32_t n_prompt, uint32_t n_gen,
                          double *ret_prefill_s, double *ret_decode_s, double *ret_busy, struct err *err)
{
	double prefill[MAX_REPS], decode[MAX_REPS], busy[MAX_REPS] = { 0 }, a, b;
	struct eng_stats before, after;
	int r;

	(void)eng_flush_cache(e);
	r = measure(o, e, n_prompt, n_gen, &a, &b, err); /* warms up */
	for (uint32_t i = 0; i < o->reps && r == 0; i++) {
		/* Repetitions have the same prompts. What is to be computed is computed again; what only is to be
		 * there is taken from the cache, or the sequences would begin one by one and never be a batch. */
		if (n_gen == 0)
			(void)eng_flush_cache(e);
		eng_engine_stats(e, &before);
		r = measure(o, e, n_prompt, n_gen, &prefill[i], &decode[i], err);
		eng_engine_stats(e, &after);
		if (r == 0 && n_gen > 0 && decode[i] == 0)
			r = err_set(err, -EAGAIN,
			            "of %u sequences the first had ended before the last one began: -n %u is too few, "
			            "or --kv-bytes too little to keep all prompts",
			            o->batch, n_gen);
		if (after.active_ns > before.active_ns)
			busy[i] = (double)(after.device_busy_ns - before.device_busy_ns) /
			          (double)(after.active_ns - before.active_ns);
	}
	if (r < 0)
		return r;
	*ret_prefill_s = median(prefill, o->reps);
	*ret_decode_s = median(decode, o->reps);
	*ret_busy = median(busy, o->reps);
	return 0;
}

/* ---- Reports ---- */

static void report(const struct bench *o, const char *what, const char *name, double value, double limit)
{
	if (o->json) {
		(void)printf("{\"bench\":\"engine\",\"case\":\"%s %s", name, what);
		if (o->batch > 1)
			(void)printf(" batch %u", o->batch);
		(void)printf("\",\"value\":%.2f,\"unit\":\"tok/s\",", value);
		if (limit > 0)
			(void)printf("\"limit\":%.2f,\"share\":%.3f,", limit, value / limit);
		else
			(void)printf("\"limit\":null,\"share\":null,");
		(void)printf("\"peer\":null,\"ratio\":null}\n");
	} else {
		(void)printf("%-24s %-10s %10.2f tok/s", name, what, value);
		if (limit > 0)
			(void)printf("   %5.1f %% of the %.1f tok/s that memory allows", 100 * value / limit, limit);
		(void)putchar('\n');
	}
	(void)fflush(stdout);
}

/* How much of the time between the first step and the last token a device was computing. */
static void report_busy(const struct bench *o, const char *what, const char *name, double share)
{
	if (share <= 0)
		return;
	if (o->json) {
		(void)printf("{\"bench\":\"engine\",\"case\":\"%s %s", name, what);
		if (o->batch > 1)
			(void)printf(" batch %u", o->batch);
		(void)printf(" device busy\",\"value\":%.4f,\"unit\":\"share of time\",\"limit\":1,\"share\":%.4f,"
		             "\"peer\":null,\"ratio\":null}\n",
		             share, share);
	} else {
		(void)printf("%-24s %-10s %10.1f %% of the time the device was busy\n", name, what, 100 * share);
	}
	(void)fflush(stdout);
}

static void report_bandwidth(const struct bench *o, double bytes_per_s)
{
	if (o->json)
		(void)printf("{\"bench\":\"engine\",\"case\":\"memory read\",\"value\":%.2f,\"unit\":\"GB/s\","
		             "\"limit\":null,\"share\":null,\"peer\":null,\"ratio\":null}\n",
		             bytes_per_s / 1e9);
	else
		(void)printf("%-24s %-10s %10.2f GB/s\n", "memory", "read", bytes_per_s / 1e9);
	(void)fflush(stdout);
}

/* Tokens per second that reading weights and K/V allows: a step reads the weights once for the batch, and
 * each sequence's own cache, here half of it on average. 0: a GPU's memory is not measured here. */
static double decode_limit(const struct bench *o, const struct eng_info *info, double bytes_per_s)
{
	bool on_host = strcmp(info->backend, "cuda") != 0 && strcmp(info->backend, "hip") != 0;
	double kv = (double)info->kv_bytes_per_token * (o->depth + (double)o->n_gen / 2) * o->batch;
	double step = (double)info->weight_bytes + kv;

	return step > 0 && on_host ? bytes_per_s / step * o->batch : 0;
}

static int bench(const struct bench *o, struct eng_engine *e, struct err *err)
{
	const struct eng_info *info = eng_engine_info(e);
	char what[32], name[160];
	double prefill_s, decode_s, bandwidth, again, busy;
	int r;

	(void)snprintf(name, sizeof(name), "%s%s%s", info->served_name, o->random ? " " : "",
	               o->random ? (o->type ? o->type : "bf16") : "");
	if (o->n_prompt > 0) {
		r = measure_median(o, e, o->n_prompt, 0, &prefill_s, &decode_s, &busy, err);
		if (r < 0)
			return r;
		(void)snprintf(what, sizeof(what), "pp%u", o->n_prompt);
		report(o, what, name, (double)o->n_prompt * o->batch / prefill_s, 0);
		report_busy(o, what, name, busy);
	}
	if (o->n_gen == 0)
		return 0;
	/* Before and after: on a shared machine the bound must not be taken in a bad moment. */
	bandwidth = measure_bandwidth(o->m.n_threads);
	/* One more than are cached, for the last token of a prompt is computed always. */
	r = measure_median(o, e, o->depth + 1, o->n_gen, &prefill_s, &decode_s, &busy, err);
	if (r < 0)
		return r;
	again = measure_bandwidth(o->m.n_threads);
	if (again > bandwidth)
		bandwidth = again;
	report_bandwidth(o, bandwidth);
	if (o->depth > 1)
		(void)snprintf(what, sizeof(what), "tg%u d%u", o->n_gen, o->depth);
	else
		(void)snprintf(what, sizeof(what), "tg%u", o->n_gen);
	report(o, what, name, 1 / decode_s, decode_limit(o, info, bandwidth));
	report_busy(o, what, name, busy);
	return 0;
}

static int check(const struct bench *o, struct err *err)
{
	if (o->reps == 0 || o->reps > MAX_REPS)
		return err_set(err, -EINVAL, "--reps must be from 1 to %d", MAX_REPS);
	if (o->batch == 0 || o->batch > MAX_BATCH)
		return err_set(err, -EINVAL, "--batch must be from 1 to %d", MAX_BATCH);
	if (o->temperature < 0 || o->top_p <= 0 || o->top_p > 1)
		return err_set(err, -EINVAL, "--temperature is at least 0, --top-p above 0 and at most 1");
	if (o->depth == 0)
		return err_set(err, -EINVAL, "--depth must be at least 1");
	if (o->n_prompt > 1 << 20 || o->n_gen > 1 << 20 || o->depth > 1 << 20)
		return err_set(err, -EINVAL, "too many tokens");
	if (o->random && o->m.model)
		return err_set(err, -EINVAL, "--model and --random exclude each other");
	return 0;
}

int cmd_bench(int argc, char **argv)
{
	struct bench o = {
		.n_prompt = 512, .n_gen = 128, .depth = 1, .batch = 1, .reps = 5, .top_p = 1, .m.log_level = "warn"
	};
	struct eng_engine *engine = NULL;
	struct eng_options options;
	struct err err = { 0 };
	uint32_t longest;
	int r, n_args = 0, exit_code = 0;

	if (command_parse(argc, argv, &o, &n_args, &exit_code) != OPT_RUN)
		return exit_code;
	if (check(&o, &err) < 0)
		return command_usage("bench", &err);
	/* With a page to spare: the prompts of one repetition are to be there in the next. */
	longest = (o.n_prompt > o.n_gen + o.depth ? o.n_prompt : o.n_gen + o.depth) + 3 + SPARE_TOKENS;
	model_options_apply(&o.m, &options);
	options.random_shape = o.random;
	options.random_dtype = o.type;
	options.max_running = o.batch;
	options.no_speculation = !o.speculation;
	options.no_ahead = o.no_ahead;
	if (options.n_ctx == 0)
		options.n_ctx = longest;
	r = eng_engine_open(&options, &engine, &err);
	if (r == 0)
		r = bench(&o, engine, &err);
	eng_engine_close(engine);
	return r < 0 ? command_failed(&err) : 0;
}
