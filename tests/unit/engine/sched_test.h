/* A scheduler over the fake model and clients that record what they are told. */
#ifndef SCHED_TEST_H
#define SCHED_TEST_H

#include <math.h>

#include "fake_exec.h"
#include "sampler/sampler.h"
#include "sched/sched.h"
#include "test.h"
#include "tokenizer/tokenizer.h"

enum { V = 512, CTX = 64, PAGES = 64, MAX_IDS = 256 };

/* ---- A client that records ---- */

struct client {
	pthread_mutex_t lock;
	pthread_cond_t cond;
	uint64_t id;
	int32_t ids[MAX_IDS], prompt_ids[MAX_IDS];
	float logprobs[MAX_IDS], prompt_logprobs[MAX_IDS];
	uint32_t prompt_pos[MAX_IDS], top_ids[MAX_IDS];
	size_t n_ids, n_prompt, n_done, n_late;
	char text[4096];
	float embedding[FAKE_EMBD];
	uint32_t n_embedding;
	bool first_prompt_has_logprob;
	struct eng_event done;
	char error[ERR_MSG_SIZE], stop_text[64];
	unsigned end_order;          /* among all clients */
	struct eng_sched *cancel_in; /* cancels itself after cancel_after tokens */
	size_t cancel_after;
};

static atomic_uint n_ended;

static inline void record(void *arg, const struct eng_event *ev)
{
	struct client *c = arg;
	struct eng_sched *cancel_in;

	(void)pthread_mutex_lock(&c->lock);
	if (c->n_done)
		c->n_late++;
	if (ev->text_len) {
		size_t n = strlen(c->text);

		memcpy(c->text + n, ev->text, ev->text_len);
		c->text[n + ev->text_len] = '\0';
	}
	if (ev->kind == ENG_EV_TOKEN && c->n_ids < MAX_IDS) {
		c->top_ids[c->n_ids] = ev->n_top ? (uint32_t)ev->top[0].id : 0;
		c->logprobs[c->n_ids] = ev->logprob;
		c->ids[c->n_ids++] = ev->id;
	} else if (ev->kind == ENG_EV_PROMPT && c->n_prompt < MAX_IDS) {
		if (c->n_prompt == 0)
			c->first_prompt_has_logprob = ev->has_logprob;
		c->prompt_pos[c->n_prompt] = ev->position;
		c->prompt_logprobs[c->n_prompt] = ev->logprob;
		c->prompt_ids[c->n_prompt++] = ev->id;
	} else if (ev->kind == ENG_EV_EMBED) {
		c->n_embedding = ev->n_embedding;
		memcpy(c->embedding, ev->embedding, sizeof(c->embedding));
	} else if (ev->kind == ENG_EV_DONE) {
		c->done = *ev;
		(void)snprintf(c->error, sizeof(c->error), "%s", ev->error ? ev->error->msg : "");
		(void)snprintf(c->stop_text, sizeof(c->stop_text), "%s", ev->stop_text ? ev->stop_text : "");
		c->end_order = atomic_fetch_add(&n_ended, 1);
		c->n_done++;
		(void)pthread_cond_broadcast(&c->cond);
	}
	/* After DONE the client may be somebody else's. */
	cancel_in = ev->kind != ENG_EV_DONE && c->n_ids == c->cancel_after ? c->cancel_in : NULL;
	(void)pthread_mutex_unlock(&c->lock);
	if (cancel_in)
		eng_sched_cancel(cancel_in, ev->request_id);
}

static inline void client_init(struct client *c)
{
	memset(c, 0, sizeof(*c));
	(void)pthread_mutex_init(&c->lock, NULL);
	(void)pthread_cond_init(&c->cond, NULL);
}

/* Waits for DONE; the time is far beyond what a loaded machine needs: only a test that fails takes it. */
static inline void client_wait(struct client *c)
{
	struct timespec until;
	int r = 0;

	(void)clock_gettime(CLOCK_REALTIME, &until);
	until.tv_sec += 300;
	(void)pthread_mutex_lock(&c->lock);
	while (c->n_done == 0 && r == 0)
		r = pthread_cond_timedwait(&c->cond, &c->lock, &until);
	(void)pthread_mutex_unlock(&c->lock);
	assert_int_equal(c->n_done, 1);
}

/* ---- The world ---- */

struct world {
	struct fake_exec f, g; /* g: where worlds are split, who answers */
	struct eng_tokenizer *tok;
	struct eng_sched *s;
};

static const int32_t eos[] = { 500, 501 };

static size_t world_host_limit = SIZE_MAX / 2; /* memory that fakes made from now on give to a tier */
static uint32_t world_answer_pages; /* worlds made from now on have a second fake, with so many pages, that answers */

/* n_vocab: the first one's. */
static inline void world_add_answers(struct world *w, struct eng_sched_config *config)
{
	fake_init(&w->g, w->f.exec.n_vocab, CTX, world_answer_pages);
	w->g.exec.tells_prompts = w->f.exec.tells_prompts;
	fake_answer_for(&w->g, &w->f);
	config->answers = &w->g.exec;
}

/* n_states 0: a model with attention only. */
static inline void world_init_states(struct world *w, struct eng_sched_config config, uint32_t n_pages,
                                     uint32_t n_states, uint32_t checkpoint_pages, bool keeps)
{
	struct err err = { 0 };

	config.eos_ids = eos;
	config.n_eos_ids = 2;

	memset(w, 0, sizeof(*w));
	fake_init(&w->f, V, CTX, n_pages);
	assert_int_equal(eng_tokenizer_open(test_fixture("tokenizers/qwen.json"), &w->tok, &err), 0);
	/* The fake's vocabulary grows to the tokenizer's, so that scripts can be text. */
	if (eng_tokenizer_n_vocab(w->tok) > V) {
		fake_done(&w->f);
		fake_init(&w->f, eng_tokenizer_n_vocab(w->tok), CTX, n_pages);
	}
	if (n_states)
		fake_add_states(&w->f, n_states, checkpoint_pages, keeps);
	config.tokenizer = w->tok;
	w->f.exec.tells_prompts = config.deterministic;
	atomic_store(&w->f.host_limit, world_host_limit);
	if (world_answer_pages)
		world_add_answers(w, &config);
	assert_int_equal(eng_sched_new(&w->f.exec, &config, &w->s, &err), 0);
}

static inline void world_init_as(struct world *w, struct eng_sched_config config, uint32_t n_pages)
{
	world_init_states(w, config, n_pages, 0, 0, false);
}

static inline void world_init(struct world *w, uint32_t max_running, uint32_t max_queued, uint32_t n_pages)
{
	world_init_as(w, (struct eng_sched_config){ .max_running = max_running, .max_queued = max_queued }, n_pages);
}

static inline void world_done(struct world *w)
{
	struct eng_stats st;
	struct err err = { 0 };

	assert_int_equal(eng_sched_drain(w->s, 10000), 0);
	eng_sched_stats(w->s, &st);
	assert_int_equal(st.n_running + st.n_queued, 0);
	assert_int_equal(st.kv_pages_used, 0);
	assert_true(st.kv_pages_cached <= st.kv_pages_total);
	if (eng_sched_check(w->s, &err) < 0)
		fail_msg("%s", err_text(&err));
	assert_int_equal(st.n_requests, st.n_done);
	eng_sched_free(w->s);
	eng_tokenizer_free(w->tok);
	if (w->g.cells)
		fake_done(&w->g);
	fake_done(&w->f);
}

static inline struct eng_request greedy(struct client *c, const int32_t *ids, size_t n, uint32_t max_new)
{
	return (struct eng_request){ .ids = ids,
		                     .n_ids = n,
		                     .max_new = max_new,
		                     .ignore_eos = true,
		                     .keep_special = true,
		                     .sampling = { .top_p = 1, .repetition_penalty = 1 },
		                     .logprob_start = -1,
		                     .on_event = record,
		                     .arg = c };
}

static inline void submit(struct world *w, struct client *c, const struct eng_request *req)
{
	struct err err = { 0 };
	int r = eng_sched_submit(w->s, req, &c->id, &err);

	if (r < 0)
		fail_msg("%s", err_text(&err));
}

static inline void prompt_of(int32_t *ids, size_t n, uint32_t seed)
{
	for (size_t i = 0; i < n; i++)
		ids[i] = (int32_t)((seed * 2654435761u + i * 40503u) >> 7) & 255;
}

/* The greedy continuation, computed here. */
static inline void expect_continuation(const struct world *w, const int32_t *prompt, size_t n, const struct client *c,
                                       size_t n_new)
{
	int32_t all[MAX_IDS];

	memcpy(all, prompt, n * sizeof(*all));
	assert_int_equal(c->n_ids, n_new);
	for (size_t i = 0; i < n_new; i++) {
		int32_t next = fake_next(&w->f, all, (uint32_t)(n + i));

		assert_int_equal(c->ids[i], next);
		all[n + i] = fake_cell(&w->f, next, true);
	}
}

static inline struct eng_stats stats_of(struct world *w)
{
	struct eng_stats st;

	eng_sched_stats(w->s, &st);
	return st;
}

/* ---- Crowds ---- */

/* Six answers of 50 tokens begin together, whether there is room for them or not, and are what they should be. */
static inline void six_long_answers(struct world *w)
{
	enum { N = 6 };
	static struct client c[N];
	int32_t ids[N][8];

	eng_sched_pause(w->s, ENG_SCHED_HOLD);
	for (int i = 0; i < N; i++) {
		struct eng_request req = greedy(&c[i], ids[i], 8, 50);

		prompt_of(ids[i], 8, 20 + (uint32_t)i);
		client_init(&c[i]);
		submit(w, &c[i], &req);
	}
	eng_sched_continue(w->s);
	for (int i = 0; i < N; i++) {
		client_wait(&c[i]);
		assert_int_equal(c[i].done.finish, ENG_FINISH_LENGTH);
		expect_continuation(w, ids[i], 8, &c[i], 50);
	}
}

/* Sixteen clients with one prompt of 44 tokens, but for a word of their own: those before it are computed once,
 * `shared` of them as pages and states allow. */
static inline void sixteen_with_one_prompt(struct world *w, size_t own_word, uint32_t shared)
{
	enum { N = 16 };
	static struct client c[N];
	int32_t ids[N][44];

	eng_sched_pause(w->s, ENG_SCHED_HOLD); /* until all are there */
	for (int i = 0; i < N; i++) {
		struct eng_request req = greedy(&c[i], ids[i], 44, 12);

		prompt_of(ids[i], 44, 6);
		ids[i][own_word] = i;
		client_init(&c[i]);
		submit(w, &c[i], &req);
	}
	eng_sched_continue(w->s);
	for (int i = 0; i < N; i++) {
		client_wait(&c[i]);
		expect_continuation(w, ids[i], 44, &c[i], 12);
	}
	assert_int_equal(stats_of(w).prompt_tokens, shared + N * (44 - shared));
	assert_int_equal(stats_of(w).cached_tokens, (N - 1) * shared);
}

/* A script that spells `text`, and the prompt {tag, 2} that starts it. */
static inline void script_text(struct world *w, int32_t tag, const char *text, struct eng_ids *ids)
{
	assert_int_equal(eng_tokenizer_encode(w->tok, text, strlen(text), ENG_TOK_PARSE_SPECIAL, ids, NULL), 0);
	w->f.scripts[w->f.n_scripts++] = (struct fake_script){ tag, ids->ids, ids->n };
}

#endif
