/* Deterministic mode with real models: ids and log-probabilities of a request are the same bits whatever runs beside
 * it, is cached, is set back, or is guessed, and however many threads compute. */
#ifndef DETERMINISTIC_H
#define DETERMINISTIC_H

#include <pthread.h>
#include <unistd.h>

#include "engine.h"
#include "test.h"

static const char *deterministic_backend = "cpu";

enum { N_VOCAB = 600, PROMPT = 70, OUTPUT = 24, MAX_NOISE = 9, CTX = 256, MOST_ROUNDS = 40 };

struct client {
	pthread_mutex_t lock;
	pthread_cond_t cond;
	struct eng_engine *engine;
	int32_t ids[CTX];
	float logprobs[CTX], top[CTX], prompt[CTX];
	size_t n, n_prompt;
	uint32_t cancel_after; /* 0: never */
	bool is_done;
	enum eng_finish finish;
	uint32_t n_cached;
};

static inline void record(void *arg, const struct eng_event *ev)
{
	struct client *c = arg;
	bool cancel = false;

	(void)pthread_mutex_lock(&c->lock);
	if (ev->kind == ENG_EV_TOKEN && c->n < CTX) {
		c->top[c->n] = ev->n_top > 1 ? ev->top[1].logprob : 0;
		c->logprobs[c->n] = ev->logprob;
		c->ids[c->n++] = ev->id;
		cancel = c->cancel_after && c->n == c->cancel_after;
	} else if (ev->kind == ENG_EV_PROMPT && c->n_prompt < CTX) {
		c->prompt[c->n_prompt++] = ev->logprob;
	} else if (ev->kind == ENG_EV_DONE) {
		c->is_done = true;
		c->finish = ev->finish;
		c->n_cached = ev->n_cached;
		(void)pthread_cond_signal(&c->cond);
	}
	(void)pthread_mutex_unlock(&c->lock);
	if (cancel)
		eng_cancel(c->engine, ev->request_id);
}

static inline void submit(struct eng_engine *e, struct client *c, const struct eng_request *proto)
{
	struct eng_request req = *proto;
	struct err err = { 0 };
	uint64_t id;

	memset(c, 0, sizeof(*c));
	(void)pthread_mutex_init(&c->lock, NULL);
	(void)pthread_cond_init(&c->cond, NULL);
	c->engine = e;
	c->cancel_after = req.max_new > 20 ? 0 : req.max_new / 2; /* short noise leaves halfway */
	req.on_event = record;
	req.arg = c;
	if (eng_submit(e, &req, &id, &err) < 0)
		fail_msg("%s", err_text(&err));
}

static inline void wait_done(struct client *c)
{
	(void)pthread_mutex_lock(&c->lock);
	while (!c->is_done)
		(void)pthread_cond_wait(&c->cond, &c->lock);
	(void)pthread_mutex_unlock(&c->lock);
}

/* Repeats itself here and there, so that speculation has something to guess. */
static inline void probe_prompt(int32_t *ids)
{
	for (int i = 0; i < PROMPT; i++)
		ids[i] = 5 + (i % 23) * 17 + i / 46;
}

enum { GREEDY, SAMPLED, WITH_PROMPT, N_PROBES };

static inline struct eng_request probe(const int32_t *ids, int kind)
{
	struct eng_request req = { .ids = ids,
		                   .n_ids = PROMPT,
		                   .max_new = OUTPUT,
		                   .ignore_eos = true,
		                   .logprobs = true,
		                   .n_top = 2,
		                   .logprob_start = kind == WITH_PROMPT ? 3 : -1,
		                   .sampling = { .top_p = 1, .repetition_penalty = 1 } };

	if (kind == SAMPLED) {
		req.sampling.temperature = 1.2f; /* no seed: the fixed one */
		req.sampling.top_p = 0.95f;
	}
	return req;
}

static inline void expect_same(const struct client *a, const struct client *b, const char *what)
{
	assert_int_equal(b->finish, ENG_FINISH_LENGTH);
	assert_int_equal(a->n, b->n);
	assert_int_equal(a->n_prompt, b->n_prompt);
	if (memcmp(a->ids, b->ids, sizeof(a->ids)) || memcmp(a->logprobs, b->logprobs, sizeof(a->logprobs)) ||
	    memcmp(a->top, b->top, sizeof(a->top)) || memcmp(a->prompt, b->prompt, sizeof(a->prompt)))
		fail_msg("%s: another result", what);
}

static inline struct eng_engine *open_engine(struct eng_options o)
{
	struct eng_engine *e;
	struct err err = { 0 };

	o.backend = deterministic_backend;
	o.deterministic = true;
	o.n_ctx = CTX;
	if (eng_engine_open(&o, &e, &err) < 0)
		fail_msg("%s", err_text(&err));
	return e;
}

/* Noise around one probe: some share its prompt's beginning, some leave early. */
static inline void one_round(struct eng_engine *e, const struct client *expected, int round)
{
	static struct client noise[MAX_NOISE], c[N_PROBES];
	int32_t ids[PROMPT], other[MAX_NOISE][CTX];
	int n_noise = rand() % MAX_NOISE, kind = round % N_PROBES;
	struct eng_request req;
	char what[64];

	probe_prompt(ids);
	for (int i = 0; i < n_noise; i++) {
		size_t n = 1 + (size_t)rand() % 110, same = rand() % 2 ? 0 : (size_t)rand() % PROMPT;

		for (size_t k = 0; k < n; k++)
			other[i][k] = k < same ? ids[k] : rand() % N_VOCAB;
		req = probe(other[i], SAMPLED);
		req.n_ids = n;
		req.max_new = 4 + (uint32_t)rand() % 50;
		req.sampling.has_seed = true;
		req.sampling.seed = (uint64_t)rand();
		submit(e, &noise[i], &req);
		if (i == n_noise / 2) {
			req = probe(ids, kind);
			submit(e, &c[kind], &req);
		}
	}
	if (n_noise == 0) {
		req = probe(ids, kind);
		submit(e, &c[kind], &req);
	}
	wait_done(&c[kind]);
	for (int i = 0; i < n_noise; i++)
		wait_done(&noise[i]);
	(void)snprintf(what, sizeof(what), "round %d, probe %d", round, kind);
	expect_same(&expected[kind], &c[kind], what);
}

/* Another process' pages, from disk: computed there with other neighbours, read here. */
static inline void after_a_restart(struct eng_options o, const struct client *expected)
{
	static struct client c;
	char dir[] = "/tmp/ocai-deterministic-XXXXXX", cmd[64];
	int32_t ids[PROMPT];

	assert_non_null(mkdtemp(dir));
	probe_prompt(ids);
	o.cache_dir = dir;
	o.kv_bytes = 0;
	for (int life = 0; life < 2; life++) {
		struct eng_engine *e = open_engine(o);
		struct eng_request req = probe(ids, SAMPLED);

		submit(e, &c, &req);
		wait_done(&c);
		assert_int_equal(c.n_cached, life * (PROMPT - 1) / 32 * 32);
		expect_same(&expected[SAMPLED], &c, life ? "from disk" : "before the restart");
		eng_engine_close(e);
	}
	(void)snprintf(cmd, sizeof(cmd), "rm -rf '%s'", dir);
	assert_int_equal(system(cmd), 0);
}

static inline void one_result_under_random_load(struct eng_options o, int repetitions)
{
	static struct client expected[N_PROBES];
	struct eng_engine *e;
	struct eng_stats st = { 0 };
	int32_t ids[PROMPT];

	/* Alone, one thread, nothing cached, nothing guessed. */
	probe_prompt(ids);
	o.no_prefix_cache = o.no_speculation = true;
	o.n_threads = 1;
	o.max_running = 1;
	e = open_engine(o);
	for (int i = 0; i < N_PROBES; i++) {
		struct eng_request req = probe(ids, i);

		submit(e, &expected[i], &req);
		wait_done(&expected[i]);
	}
	/* Little more than one context: some are set back. */
	o.kv_bytes = 9 * CTX / 8 * eng_engine_info(e)->kv_bytes_per_token * (o.precision ? 1 : 2);
	eng_engine_close(e);

	o.no_prefix_cache = o.no_speculation = false;
	o.n_threads = 3;
	o.max_running = 8;
	e = open_engine(o);
	srand(20);
	/* Whether something is found in the cache depends on which requests meet: a few rounds more where nothing was.
	 */
	for (int round = 0; round < repetitions || (st.cached_tokens == 0 && round < MOST_ROUNDS); round++) {
		one_round(e, expected, round);
		if (rand() % 10 == 0)
			(void)eng_flush_cache(e);
		eng_engine_stats(e, &st);
	}
	print_message("%llu tokens cached, %llu set back, %llu of %llu guessed rightly\n",
	              (unsigned long long)st.cached_tokens, (unsigned long long)st.n_preempted,
	              (unsigned long long)st.draft_hits, (unsigned long long)st.drafted_tokens);
	assert_true(st.cached_tokens > 0);
	eng_engine_close(e);
	if (st.states_total == 0) /* recurrent models keep nothing on disk */
		after_a_restart(o, expected);
}

enum { N_TALKS = 5, TALK = 40, ANSWER = 90, AGAIN = 24 };

/* A prompt, its answer, and the prompt of the next turn, which holds both. */
struct talk {
	int32_t ids[CTX];
	struct client first, next;
};

static inline void begin_talk(struct eng_engine *e, struct talk *t, int i, struct client *c)
{
	struct eng_request req;

	for (int k = 0; k < TALK; k++)
		t->ids[k] = 7 + (k * 31 + i * 97) % 500;
	req = probe(t->ids, GREEDY);
	req.n_ids = TALK;
	req.max_new = ANSWER;
	submit(e, c, &req);
}

static inline void go_on(struct eng_engine *e, struct talk *t, const struct client *answer, struct client *c)
{
	struct eng_request req;

	memcpy(t->ids + TALK, answer->ids, ANSWER * sizeof(*t->ids));
	t->ids[TALK + ANSWER] = 11;
	req = probe(t->ids, GREEDY);
	req.n_ids = TALK + ANSWER + 1;
	req.max_new = AGAIN;
	submit(e, c, &req);
}

/* Answers that are computed again because their request was set back, and answers that come back as prompts. */
static inline void answers_are_set_back_and_returned(void)
{
	static struct talk talks[N_TALKS];
	static struct client c[N_TALKS];
	struct eng_options o = { .precision = "fast", .n_threads = 1, .max_running = 1, .no_prefix_cache = true };
	struct eng_engine *e;
	struct eng_stats st;
	char path[4096];

	(void)snprintf(path, sizeof(path), "%s/fixtures/models/qwen3", test_dir());
	o.model_path = path;
	e = open_engine(o);
	for (int i = 0; i < N_TALKS; i++) {
		begin_talk(e, &talks[i], i, &talks[i].first);
		wait_done(&talks[i].first);
		go_on(e, &talks[i], &talks[i].first, &talks[i].next);
		wait_done(&talks[i].next);
	}
	o.kv_bytes = 2 * CTX * eng_engine_info(e)->kv_bytes_per_token;
	eng_engine_close(e);

	o.no_prefix_cache = false;
	o.n_threads = 3;
	o.max_running = N_TALKS;
	e = open_engine(o);
	for (int round = 0; round < 4; round++) {
		for (int i = 0; i < N_TALKS; i++)
			begin_talk(e, &talks[i], i, &c[i]);
		for (int i = 0; i < N_TALKS; i++) {
			wait_done(&c[i]);
			expect_same(&talks[i].first, &c[i], "an answer that was set back");
		}
		for (int i = 0; i < N_TALKS; i++)
			go_on(e, &talks[i], &talks[i].first, &c[i]);
		for (int i = 0; i < N_TALKS; i++) {
			wait_done(&c[i]);
			expect_same(&talks[i].next, &c[i], "an answer that came back");
		}
	}
	eng_engine_stats(e, &st);
	print_message("%llu tokens cached, %llu set back\n", (unsigned long long)st.cached_tokens,
	              (unsigned long long)st.n_preempted);
	assert_true(st.n_preempted > 0 && st.cached_tokens > 0);
	eng_engine_close(e);
}

#endif
