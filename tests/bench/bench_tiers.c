/* What the tiers behind a GPU's K/V pool are worth: the time to the first token of a long prompt that is computed,
 * whose keys and values come from host memory, or from disk after a restart; by itself and beside others, and how many
 * tokens per second those get meanwhile.
 *
 *   bench_tiers [BACKEND [SHAPE|PATH [TOKENS [OTHERS [POLICY [FOLDER]]]]]]
 *
 * cuda, qwen3-8b (random weights; a name with '/' is a model), 8192, 8, write-back (or write-through), a folder in
 * $TMPDIR. The pool holds one such prompt beside the others, so that the three that take turns always come from
 * elsewhere; the folder needs room for six. One JSON object per line: the median of three, the least and the most, and
 * which part of the prompt came from where. Without the plugin or a device: says so and succeeds. */
#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "engine.h"
#include "random_prompt.h"

enum { MAX_OTHERS = 64, OTHER_PROMPT = 64, OTHER_TOKENS = 384, REPS = 3, HOST_PROMPTS = 8 };

struct bench {
	const char *backend, *shape, *policy;
	uint32_t n_tokens, n_others;
	char dir[256];
	uint64_t page_bytes;
	uint32_t page_tokens;
	struct eng_engine *e;
	double computed_s[2]; /* alone, beside others */
};

/* ---- Requests ---- */

struct asked {
	pthread_mutex_t lock;
	pthread_cond_t cond;
	bool is_done;
	uint64_t id;
	uint32_t n_cached;
	double first_s;
	atomic_uint n_tokens;
	struct err error;
};

static void on_event(void *arg, const struct eng_event *ev)
{
	struct asked *a = arg;

	if (ev->kind == ENG_EV_TOKEN && atomic_fetch_add(&a->n_tokens, 1) == 0)
		a->first_s = base_now_s();
	if (ev->kind != ENG_EV_DONE)
		return;
	(void)pthread_mutex_lock(&a->lock);
	if (ev->error)
		a->error = *ev->error;
	a->n_cached = ev->n_cached;
	a->is_done = true;
	(void)pthread_cond_signal(&a->cond);
	(void)pthread_mutex_unlock(&a->lock);
}

static int begin(struct bench *b, uint32_t seed, uint32_t n, uint32_t max_new, struct asked *a, struct err *err)
{
	*a = (struct asked){ .lock = PTHREAD_MUTEX_INITIALIZER, .cond = PTHREAD_COND_INITIALIZER };
	return submit_random(b->e, seed, n, max_new, on_event, a, &a->id, err);
}

static void await(struct asked *a)
{
	(void)pthread_mutex_lock(&a->lock);
	while (!a->is_done)
		(void)pthread_cond_wait(&a->cond, &a->lock);
	(void)pthread_mutex_unlock(&a->lock);
}

/* ---- Measuring ---- */

struct sample {
	double first_s, others; /* time to the first token; tokens per second of the others meanwhile */
	double host, disk;      /* shares of the prompt */
	/* Meanwhile: gigabytes to the host and back; pages lost on the way there; loads that computing was taken to be
	 * faster than; steps, and of the time in which there was something to compute what the device was busy. */
	double out, in, busy;
	uint64_t lost, refused, steps;
};

static int measure(struct bench *b, uint32_t seed, bool beside, struct sample *ret, struct err *err)
{
	static struct asked others[MAX_OTHERS], a;
	static uint32_t n_asked;
	struct eng_stats before, after;
	uint32_t n = beside ? b->n_others : 0, begun = 0, tokens = 0;
	double start;
	int r = 0;

	for (; begun < n && r == 0; begun += r == 0)
		r = begin(b, 100000 + n_asked++, OTHER_PROMPT, OTHER_TOKENS, &others[begun], err);
	for (uint32_t i = 0; i < begun; i++) {
		while (atomic_load(&others[i].n_tokens) == 0 && !others[i].is_done)
			(void)usleep(200);
		tokens += atomic_load(&others[i].n_tokens);
	}
	eng_engine_stats(b->e, &before);
	start = base_now_s();
	if (r == 0) {
		r = begin(b, seed, b->n_tokens, 1, &a, err);
		if (r == 0)
			await(&a);
		if (r == 0 && a.error.code)
			r = err_set(err, a.error.code, "%s", err_text(&a.error));
	}
	ret->first_s = a.first_s - start;
	ret->others = -(double)tokens;
	for (uint32_t i = 0; i < begun; i++)
		ret->others += atomic_load(&others[i].n_tokens);
	ret->others /= base_now_s() - start;
	eng_engine_stats(b->e, &after);
	ret->host = (double)(after.host_tokens - before.host_tokens) / b->n_tokens;
	ret->disk = (double)(after.disk_tokens - before.disk_tokens) / b->n_tokens;
	ret->out = (double)(after.host_bytes_out - before.host_bytes_out) * 1e-9;
	ret->in = (double)(after.host_bytes_in - before.host_bytes_in) * 1e-9;
	ret->lost = after.host_pages_lost - before.host_pages_lost;
	ret->refused = after.n_loads_refused - before.n_loads_refused;
	ret->steps = after.n_steps - before.n_steps;
	ret->busy = (double)(after.device_busy_ns - before.device_busy_ns) * 1e-9;
	for (uint32_t i = 0; i < begun; i++) {
		eng_cancel(b->e, others[i].id);
		await(&others[i]);
	}
	return r;
}

static int by_time(const void *a, const void *b)
{
	double x = ((const struct sample *)a)->first_s, y = ((const struct sample *)b)->first_s;

	return (x > y) - (x < y);
}

/* Three prompts in turn. */
static int measure_case(struct bench *b, const char *what, uint32_t first_seed, bool beside, struct err *err)
{
	struct sample s[REPS];
	const struct sample *m = &s[REPS / 2];
	int r = 0;

	for (uint32_t i = 0; i < REPS && r == 0; i++)
		r = measure(b, first_seed + i, beside, &s[i], err);
	if (r < 0)
		return r;
	qsort(s, REPS, sizeof(s[0]), by_time);
	if (strcmp(what, "computed") == 0)
		b->computed_s[beside] = m->first_s;
	(void)printf("{\"bench\":\"tiers\",\"case\":\"%s %u tokens %s%s, %s\",\"value\":%.4f,\"unit\":\"s to first "
	             "token\",\"limit\":null,\"share\":null,\"peer\":null,\"ratio\":null,\"least\":%.4f,\"most\":%.4f,"
	             "\"of_computed\":%.3f,\"tok_per_s\":%.0f,\"from_host\":%.2f,\"from_disk\":%.2f,"
	             "\"others_tok_per_s\":%.1f,\"gb_out\":%.2f,\"gb_in\":%.2f,\"pages_lost\":%llu,\"refused\":%llu,"
	             "\"steps\":%llu,\"busy_s\":%.4f}\n",
	             b->shape, b->n_tokens, what, beside ? " beside others" : "", b->policy, m->first_s, s[0].first_s,
	             s[REPS - 1].first_s, m->first_s / b->computed_s[beside], b->n_tokens / m->first_s, m->host,
	             m->disk, m->others, m->out, m->in, (unsigned long long)m->lost, (unsigned long long)m->refused,
	             (unsigned long long)m->steps, m->busy);
	(void)fflush(stdout);
	return 0;
}

/* ---- Engines ---- */

static void on_plan(void *arg, const struct eng_memory_plan *plan)
{
	struct bench *b = arg;

	b->page_bytes = plan->kv_bytes / plan->kv_pages;
	b->page_tokens = plan->page_tokens;
}

static void on_note(void *arg, const char *text)
{
	(void)arg;
	(void)fprintf(stderr, "%s\n", text);
}

/* The first time without tiers, to learn how large a page is. */
static int open_engine(struct bench *b, struct err *err)
{
	bool is_path = strchr(b->shape, '/') != NULL;
	struct eng_options o = { .model_path = is_path ? b->shape : NULL,
		                 .random_shape = is_path ? NULL : b->shape,
		                 .backend = b->backend,
		                 .n_ctx = b->n_tokens + OTHER_PROMPT + OTHER_TOKENS,
		                 .max_running = b->n_others + 2,
		                 .no_speculation = true,
		                 .on_plan = on_plan,
		                 .on_note = on_note,
		                 .plan_arg = b };

	if (b->page_bytes) {
		uint64_t prompt = (uint64_t)(b->n_tokens / b->page_tokens + 2) * b->page_bytes;
		uint64_t other = (uint64_t)((OTHER_PROMPT + OTHER_TOKENS) / b->page_tokens + 2) * b->page_bytes;

		o.kv_bytes = prompt + prompt / 8 + b->n_others * other;
		o.host_cache_bytes = HOST_PROMPTS * prompt + 2 * b->n_others * other;
		o.host_write_through = strcmp(b->policy, "write-through") == 0;
		o.cache_dir = b->dir;
		o.cache_bytes = 4 * o.host_cache_bytes;
	}
	return eng_engine_open(&o, &b->e, err);
}

static void close_engine(struct bench *b)
{
	eng_engine_close(b->e);
	b->e = NULL;
}

/* Until pinned memory is there, and until what was computed is on disk: both are made beside. */
static void settle(struct bench *b)
{
	struct eng_stats st, last = { 0 };

	for (int quiet = 0; quiet < 6; quiet++) {
		(void)usleep(200000);
		eng_engine_stats(b->e, &st);
		if (st.disk_pages_written != last.disk_pages_written || st.host_pages_total != last.host_pages_total)
			quiet = 0;
		last = st;
	}
}

static int bench(struct bench *b, struct err *err)
{
	int r;

	close_engine(b);
	r = open_engine(b, err);
	if (r < 0)
		return r;
	settle(b);
	r = measure_case(b, "computed", 1, false, err);
	r = r < 0 ? r : measure_case(b, "from host", 1, false, err);
	r = r < 0 ? r : measure_case(b, "computed", 11, true, err);
	r = r < 0 ? r : measure_case(b, "from host", 11, true, err);
	if (r < 0)
		return r;
	settle(b);
	close_engine(b);
	r = open_engine(b, err);
	if (r < 0)
		return r;
	settle(b);
	r = measure_case(b, "from disk", 1, false, err);
	return r < 0 ? r : measure_case(b, "from disk", 11, true, err);
}

int main(int argc, char **argv)
{
	struct bench b = { .backend = argc > 1 ? argv[1] : "cuda",
		           .shape = argc > 2 ? argv[2] : "qwen3-8b",
		           .n_tokens = argc > 3 ? (uint32_t)strtoul(argv[3], NULL, 10) : 8192,
		           .n_others = argc > 4 ? (uint32_t)strtoul(argv[4], NULL, 10) : 8,
		           .policy = argc > 5 ? argv[5] : "write-back" };
	const char *tmp = getenv("TMPDIR");
	bool is_own_dir = argc <= 6;
	char cmd[300];
	struct err err = { 0 };
	int r;

	if (b.n_others > MAX_OTHERS || b.n_tokens < 64) {
		(void)fprintf(stderr, "bench_tiers: at most %d others, at least 64 tokens\n", MAX_OTHERS);
		return 2;
	}
	(void)snprintf(b.dir, sizeof(b.dir), "%s/ocai-bench-tiers-XXXXXX", tmp && *tmp ? tmp : "/tmp");
	if (argc > 6)
		(void)snprintf(b.dir, sizeof(b.dir), "%s", argv[6]);
	r = open_engine(&b, &err);
	if (r == -ENOENT || r == -ENODEV || r == -ELIBACC || r == -ENOTSUP) {
		(void)fprintf(stderr, "bench_tiers: skipped: %s\n", err_text(&err));
		return 0;
	}
	if (r == 0 && is_own_dir && !mkdtemp(b.dir))
		r = err_set(&err, -errno, "%s: %s", b.dir, strerror(errno));
	r = r < 0 ? r : bench(&b, &err);
	close_engine(&b);
	if (is_own_dir && b.page_bytes) {
		(void)snprintf(cmd, sizeof(cmd), "rm -rf '%s'", b.dir);
		(void)system(cmd);
	}
	if (r < 0)
		(void)fprintf(stderr, "bench_tiers: %s\n", err_text(&err));
	return r < 0;
}
