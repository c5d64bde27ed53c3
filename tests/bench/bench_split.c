/* What answers that stream lose while long prompts arrive, with prompts and answers on one device and on two: the time
 * between the tokens of the streams, and the time to the first and from there to the second token of the prompts.
 *
 *   bench_split [BACKEND [SHAPE|PATH [STREAMS [TOKENS [PROMPTS [PREFILL DECODE]]]]]]
 *
 * cuda, qwen3-8b (random weights; a name with '/' is a model), 32, 8192, 8, devices 0 and 1, which may be the same,
 * with the weights twice. First together on the first device, then apart. Streams begin with 64 tokens each; when all
 * stream, they do so alone for a second, then the prompts come, two at a time, each answered by 16 tokens. One JSON
 * object per line: milliseconds; peer is together in the same run, ratio how many times less it is apart. Without the
 * plugin or the devices: says so and succeeds. */
#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "engine.h"
#include "random_prompt.h"

enum { MAX_STREAMS = 256, STREAM_PROMPT = 64, STREAM_TOKENS = 1900, MAX_PROMPTS = 64, ANSWER = 16, AT_ONCE = 2 };

struct asked {
	pthread_mutex_t lock;
	pthread_cond_t cond;
	bool is_done;
	uint64_t id;
	double begin_s;
	double *times; /* [max]: of its tokens */
	uint32_t n, max;
	struct err error;
};

struct bench {
	const char *backend, *shape, *prefill, *decode;
	uint32_t n_streams, n_tokens, n_prompts;
	struct eng_engine *e;
	struct asked streams[MAX_STREAMS], prompts[MAX_PROMPTS];
};

/* Milliseconds. */
struct figures {
	double quiet, mean, p99, longest; /* between the tokens of streams: alone; while prompts come */
	double first, second;             /* medians over the prompts */
};

/* ---- Requests ---- */

static void on_event(void *arg, const struct eng_event *ev)
{
	struct asked *a = arg;

	(void)pthread_mutex_lock(&a->lock);
	if (ev->kind == ENG_EV_TOKEN && a->n < a->max)
		a->times[a->n++] = base_now_s();
	if (ev->kind == ENG_EV_DONE) {
		if (ev->error)
			a->error = *ev->error;
		a->is_done = true;
	}
	(void)pthread_cond_signal(&a->cond);
	(void)pthread_mutex_unlock(&a->lock);
}

static int begin(struct bench *b, uint32_t seed, uint32_t n, uint32_t max_new, struct asked *a, struct err *err)
{
	*a = (struct asked){ .lock = PTHREAD_MUTEX_INITIALIZER,
		             .cond = PTHREAD_COND_INITIALIZER,
		             .times = calloc(max_new, sizeof(double)),
		             .max = max_new,
		             .begin_s = base_now_s() };
	if (!a->times)
		return err_set(err, -ENOMEM, "out of memory");
	return submit_random(b->e, seed, n, max_new, on_event, a, &a->id, err);
}

/* Until it has n tokens or is done. */
static int await(struct asked *a, uint32_t n, struct err *err)
{
	int r = 0;

	(void)pthread_mutex_lock(&a->lock);
	while (!a->is_done && a->n < n)
		(void)pthread_cond_wait(&a->cond, &a->lock);
	if (a->error.code)
		r = err_set(err, a->error.code, "%s", err_text(&a->error));
	(void)pthread_mutex_unlock(&a->lock);
	return r;
}

/* ---- Figures ---- */

static int by_value(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;

	return (x > y) - (x < y);
}

/* Between the tokens of all streams whose second one came within the time; how many. */
static size_t gaps(struct bench *b, double from_s, double to_s, double **ret)
{
	double *all = calloc((size_t)b->n_streams * STREAM_TOKENS, sizeof(*all));
	size_t n = 0;

	for (uint32_t i = 0; all && i < b->n_streams; i++) {
		struct asked *a = &b->streams[i];

		(void)pthread_mutex_lock(&a->lock);
		for (uint32_t k = 1; k < a->n; k++) {
			if (a->times[k] > from_s && a->times[k] <= to_s)
				all[n++] = 1e3 * (a->times[k] - a->times[k - 1]);
		}
		(void)pthread_mutex_unlock(&a->lock);
	}
	if (n > 0)
		qsort(all, n, sizeof(*all), by_value);
	*ret = all;
	return n;
}

static double mean_of(const double *x, size_t n)
{
	double sum = 0;

	for (size_t i = 0; i < n; i++)
		sum += x[i];
	return n ? sum / (double)n : 0;
}

static void take_figures(struct bench *b, double quiet_s, double start_s, double end_s, struct figures *ret)
{
	double first[MAX_PROMPTS], second[MAX_PROMPTS], *g = NULL;
	size_t n = gaps(b, quiet_s, start_s, &g);

	ret->quiet = mean_of(g, n);
	free(g);
	n = gaps(b, start_s, end_s, &g);
	ret->mean = mean_of(g, n);
	ret->p99 = n ? g[n * 99 / 100] : 0;
	ret->longest = n ? g[n - 1] : 0;
	free(g);
	for (uint32_t i = 0; i < b->n_prompts; i++) {
		const struct asked *a = &b->prompts[i];

		first[i] = 1e3 * (a->times[0] - a->begin_s);
		second[i] = 1e3 * (a->times[1] - a->times[0]);
	}
	qsort(first, b->n_prompts, sizeof(first[0]), by_value);
	qsort(second, b->n_prompts, sizeof(second[0]), by_value);
	ret->first = first[b->n_prompts / 2];
	ret->second = second[b->n_prompts / 2];
}

/* ---- Measuring ---- */

static int measure(struct bench *b, struct figures *ret, struct err *err)
{
	uint32_t n_streams = 0, n_prompts = 0;
	double quiet_s, start_s;
	int r = begin(b, 7, b->n_tokens, 2, &b->prompts[0], err); /* code, graphs and paces */

	r = r < 0 ? r : await(&b->prompts[0], 3, err);
	free(b->prompts[0].times);
	for (; n_streams < b->n_streams && r == 0; n_streams += r == 0)
		r = begin(b, 1000 + n_streams, STREAM_PROMPT, STREAM_TOKENS, &b->streams[n_streams], err);
	for (uint32_t i = 0; i < n_streams && r == 0; i++)
		r = await(&b->streams[i], 32, err);
	quiet_s = base_now_s();
	(void)usleep(1000000);
	start_s = base_now_s();
	for (; n_prompts < b->n_prompts && r == 0; n_prompts += r == 0) {
		if (n_prompts >= AT_ONCE)
			r = await(&b->prompts[n_prompts - AT_ONCE], 1, err);
		r = r < 0 ? r : begin(b, 50 + n_prompts, b->n_tokens, ANSWER, &b->prompts[n_prompts], err);
	}
	for (uint32_t i = 0; i < n_prompts && r == 0; i++)
		r = await(&b->prompts[i], ANSWER + 1, err);
	if (r == 0)
		take_figures(b, quiet_s, start_s, base_now_s(), ret);
	for (uint32_t i = 0; i < n_streams; i++) {
		eng_cancel(b->e, b->streams[i].id);
		(void)await(&b->streams[i], STREAM_TOKENS + 1, NULL);
		free(b->streams[i].times);
	}
	for (uint32_t i = 0; i < n_prompts; i++) {
		(void)await(&b->prompts[i], ANSWER + 1, NULL);
		free(b->prompts[i].times);
	}
	return r;
}

static void on_note(void *arg, const char *text)
{
	(void)arg;
	(void)fprintf(stderr, "%s\n", text);
}

static int open_engine(struct bench *b, bool split, struct err *err)
{
	bool is_path = strchr(b->shape, '/') != NULL;
	uint32_t longest = b->n_tokens > STREAM_TOKENS ? b->n_tokens : STREAM_TOKENS;
	struct eng_options o = { .model_path = is_path ? b->shape : NULL,
		                 .random_shape = is_path ? NULL : b->shape,
		                 .backend = b->backend,
		                 .devices = split ? NULL : b->prefill,
		                 .prefill_devices = split ? b->prefill : NULL,
		                 .decode_devices = split ? b->decode : NULL,
		                 .n_ctx = longest + STREAM_PROMPT,
		                 .max_running = b->n_streams + 2 * AT_ONCE,
		                 .kv_bytes = strcmp(b->prefill, b->decode) == 0 ? 16ull << 30 : 0,
		                 .no_speculation = true,
		                 .on_note = on_note };

	return eng_engine_open(&o, &b->e, err);
}

static void print_one(const struct bench *b, const char *what, bool split, double value, double peer)
{
	(void)printf("{\"bench\":\"gpu-split\",\"case\":\"%s, %u streams, %u prompts of %u, %s: %s\",\"value\":%.2f,"
	             "\"unit\":\"ms\",\"limit\":null,\"share\":null,",
	             b->shape, b->n_streams, b->n_prompts, b->n_tokens, split ? "prompts apart" : "together", what,
	             value);
	if (split && value > 0)
		(void)printf("\"peer\":%.2f,\"ratio\":%.3f}\n", peer, peer / value);
	else
		(void)printf("\"peer\":null,\"ratio\":null}\n");
	(void)fflush(stdout);
}

static void print(const struct bench *b, bool split, const struct figures *f, const struct figures *one)
{
	print_one(b, "between tokens of streams, no prompts", split, f->quiet, one->quiet);
	print_one(b, "between tokens of streams, mean", split, f->mean, one->mean);
	print_one(b, "between tokens of streams, 99 of 100 below", split, f->p99, one->p99);
	print_one(b, "between tokens of streams, longest", split, f->longest, one->longest);
	print_one(b, "to a prompt's first token, median", split, f->first, one->first);
	print_one(b, "from its first to its second token, median", split, f->second, one->second);
}

static void print_transfers(const struct bench *b)
{
	struct eng_stats st;

	eng_engine_stats(b->e, &st);
	(void)printf(
	        "{\"bench\":\"gpu-split\",\"case\":\"%s, handed over\",\"value\":%.3f,\"unit\":\"GB\",\"limit\":null,"
	        "\"share\":null,\"peer\":null,\"ratio\":null,\"requests\":%llu,\"ms_each\":%.2f}\n",
	        b->shape, (double)st.handed_bytes / 1e9, (unsigned long long)st.n_handed,
	        (double)st.handed_ns / 1e6 / (double)(st.n_handed ? st.n_handed : 1));
	(void)fflush(stdout);
}

static bool is_missing(int r)
{
	return r == -ENOENT || r == -ENODEV || r == -ELIBACC || r == -ENOTSUP;
}

int main(int argc, char **argv)
{
	static struct bench b;
	struct figures f[2] = { 0 };
	struct err err = { 0 };
	int r = 0;

	b.backend = argc > 1 ? argv[1] : "cuda";
	b.shape = argc > 2 ? argv[2] : "qwen3-8b";
	b.n_streams = argc > 3 ? (uint32_t)strtoul(argv[3], NULL, 10) : 32;
	b.n_tokens = argc > 4 ? (uint32_t)strtoul(argv[4], NULL, 10) : 8192;
	b.n_prompts = argc > 5 ? (uint32_t)strtoul(argv[5], NULL, 10) : 8;
	b.prefill = argc > 6 ? argv[6] : "0";
	b.decode = argc > 7 ? argv[7] : "1";
	if (b.n_streams == 0 || b.n_streams > MAX_STREAMS || b.n_prompts == 0 || b.n_prompts > MAX_PROMPTS ||
	    b.n_tokens < 64) {
		(void)fprintf(stderr, "bench_split: 1 to %d streams, 1 to %d prompts of at least 64 tokens\n",
		              MAX_STREAMS, MAX_PROMPTS);
		return 2;
	}
	for (int split = 0; split < 2 && r == 0; split++) {
		r = open_engine(&b, split, &err);
		if (is_missing(r)) {
			(void)fprintf(stderr, "bench_split: skipped: %s\n", err_text(&err));
			return 0;
		}
		r = r < 0 ? r : measure(&b, &f[split], &err);
		if (r == 0)
			print(&b, split, &f[split], &f[0]);
		if (r == 0 && split)
			print_transfers(&b);
		eng_engine_close(b.e);
		b.e = NULL;
	}
	if (r < 0)
		(void)fprintf(stderr, "bench_split: %s\n", err_text(&err));
	return r < 0;
}
