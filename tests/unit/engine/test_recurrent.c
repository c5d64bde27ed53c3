/* A model with recurrent layers (qwen3_next) served by a whole engine: greedy answers are the reference's whatever is
 * cached, runs beside it or is set back, and what such a model cannot do is told. */
#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <unistd.h>

#include "engine.h"
#include "model_fixture.h"

enum { MAX_NEW = 16, LONG = 700, MANY = 9 };

static const char *model;

struct client {
	pthread_mutex_t lock;
	pthread_cond_t cond;
	int32_t ids[64];
	size_t n;
	bool is_done;
	enum eng_finish finish;
	uint32_t n_cached;
};

static void record(void *arg, const struct eng_event *ev)
{
	struct client *c = arg;

	(void)pthread_mutex_lock(&c->lock);
	if (ev->kind == ENG_EV_TOKEN && c->n < 64)
		c->ids[c->n++] = ev->id;
	if (ev->kind == ENG_EV_DONE) {
		c->is_done = true;
		c->finish = ev->finish;
		c->n_cached = ev->n_cached;
		(void)pthread_cond_signal(&c->cond);
	}
	(void)pthread_mutex_unlock(&c->lock);
}

static void submit(struct eng_engine *e, struct client *c, const int32_t *ids, size_t n, uint32_t max_new)
{
	struct eng_request req = { .ids = ids,
		                   .n_ids = n,
		                   .max_new = max_new,
		                   .ignore_eos = true,
		                   .logprob_start = -1,
		                   .sampling = { .top_p = 1, .repetition_penalty = 1 },
		                   .on_event = record,
		                   .arg = c };
	struct err err = { 0 };
	uint64_t id;

	memset(c, 0, sizeof(*c));
	(void)pthread_mutex_init(&c->lock, NULL);
	(void)pthread_cond_init(&c->cond, NULL);
	if (eng_submit(e, &req, &id, &err) < 0)
		fail_msg("%s", err_text(&err));
}

static void wait_done(struct client *c)
{
	(void)pthread_mutex_lock(&c->lock);
	while (!c->is_done)
		(void)pthread_cond_wait(&c->cond, &c->lock);
	(void)pthread_mutex_unlock(&c->lock);
	assert_int_equal(c->finish, ENG_FINISH_LENGTH);
}

static struct eng_engine *open_engine(struct eng_options o)
{
	struct eng_engine *e;
	struct err err = { 0 };

	o.model_path = model;
	o.n_ctx = 1024;
	o.n_threads = 2;
	if (eng_engine_open(&o, &e, &err) < 0)
		fail_msg("%s", err_text(&err));
	return e;
}

static void ask(struct eng_engine *e, const int32_t *ids, size_t n, const int32_t *expected, uint32_t n_cached)
{
	struct client c;

	submit(e, &c, ids, n, MAX_NEW);
	wait_done(&c);
	assert_memory_equal(c.ids, expected, MAX_NEW * sizeof(*expected));
	assert_int_equal(c.n_cached, n_cached);
}

static void answers_are_the_reference(void **state)
{
	struct eng_weights *refs = open_references("formats/qwen3_next");
	const char *const *isas = kn_cpu_isas();
	static struct client c[MANY];
	struct reference ref[N_PROMPTS];

	(void)state;
	for (int p = 0; p < N_PROMPTS; p++)
		read_reference(refs, p, &ref[p]);
	for (int i = 0; isas[i]; i++) {
		struct eng_options o = { .isa = isas[i], .max_running = 4 };
		struct eng_engine *e;
		struct err err = { 0 };

		if (strstr(isas[i], "bf16")) /* rounds activations: now and then another expert */
			continue;
		e = open_engine(o);
		ask(e, ref[1].ids, ref[1].n_ids, ref[1].gen, 0);
		ask(e, ref[1].ids, ref[1].n_ids, ref[1].gen, (ref[1].n_ids - 1) / 32 * 32);
		for (int k = 0; k < MANY; k++)
			submit(e, &c[k], ref[k % N_PROMPTS].ids, ref[k % N_PROMPTS].n_ids, MAX_NEW);
		for (int k = 0; k < MANY; k++) {
			wait_done(&c[k]);
			assert_memory_equal(c[k].ids, ref[k % N_PROMPTS].gen, MAX_NEW * sizeof(int32_t));
		}
		assert_int_equal(eng_flush_cache(e), 0);
		ask(e, ref[1].ids, ref[1].n_ids, ref[1].gen, 0);
		if (eng_update_weights(e, model, "again", &err) < 0)
			fail_msg("%s", err_text(&err));
		ask(e, ref[1].ids, ref[1].n_ids, ref[1].gen, 0);
		eng_engine_close(e);
	}
	eng_weights_close(refs);
}

/* Prompts of several steps: alone and uncached, then shared, in a crowd, in little memory. */
static void long_prompts_stay_the_same(void **state)
{
	static int32_t ids[MANY][LONG];
	static struct client alone[MANY], crowd[MANY];
	struct eng_options o = { .no_prefix_cache = true, .max_running = 1 };
	struct eng_engine *e = open_engine(o);
	struct eng_stats st;

	(void)state;
	for (int k = 0; k < MANY; k++) {
		for (int i = 0; i < LONG; i++)
			ids[k][i] = 3 + (i * 7919 + i / 50 * 31) % 600;
		ids[k][300 + 40 * k] = k; /* ever more in common with the first */
		submit(e, &alone[k], ids[k], LONG, 40);
		wait_done(&alone[k]);
		assert_int_equal(alone[k].n_cached, 0);
	}
	/* Room for the longest context and little more: some are set back. */
	o = (struct eng_options){ .max_running = 6, .kv_bytes = 1200 * eng_engine_info(e)->kv_bytes_per_token * 2 };
	eng_engine_close(e);
	for (int budget = 0; budget < 2; budget++) {
		e = open_engine(o);
		for (int k = 0; k < MANY; k++)
			submit(e, &crowd[k], ids[k], LONG, 40);
		for (int k = 0; k < MANY; k++) {
			wait_done(&crowd[k]);
			assert_memory_equal(crowd[k].ids, alone[k].ids, 40 * sizeof(int32_t));
		}
		eng_engine_stats(e, &st);
		print_message("%llu tokens cached, %llu set back, %u checkpoints of %u slots\n",
		              (unsigned long long)st.cached_tokens, (unsigned long long)st.n_preempted,
		              st.state_checkpoints, st.states_total);
		assert_true(st.cached_tokens > 300);
		assert_int_equal(st.states_running, 0);
		eng_engine_close(e);
		o.kv_bytes = 0;
	}
}

struct told {
	char notes[4][256];
	int n_notes;
	struct eng_memory_plan plan;
};

static void note(void *arg, const char *text)
{
	struct told *t = arg;

	if (t->n_notes < 4)
		(void)snprintf(t->notes[t->n_notes++], sizeof(t->notes[0]), "%s", text);
}

static void plan(void *arg, const struct eng_memory_plan *p)
{
	((struct told *)arg)->plan = *p;
}

static void budgets_and_limits_are_told(void **state)
{
	struct told told = { 0 };
	struct eng_options o = { .on_note = note, .on_plan = plan, .plan_arg = &told };
	struct eng_engine *e;
	struct err err = { 0 };
	uint64_t each;
	char dir[] = "/tmp/ocai-recurrent-XXXXXX";

	(void)state;
	assert_non_null(mkdtemp(dir));
	o.cache_dir = dir;
	e = open_engine(o);
	assert_int_equal(told.n_notes, 2);
	assert_non_null(strstr(told.notes[0], "no speculation"));
	assert_non_null(strstr(told.notes[1], "no prompt cache on disk"));
	assert_int_equal(told.plan.max_running, 32);
	assert_int_equal(told.plan.n_states, told.plan.kv_pages + 32);
	/* 3 layers of 3 x 128 inputs and 4 heads of 16 x 16 */
	each = told.plan.state_bytes / told.plan.n_states;
	assert_int_equal(each, 3 * (3 * 128 + 4 * 16 * 16) * sizeof(float));
	eng_engine_close(e);
	assert_int_equal(rmdir(dir), 0); /* nothing was written */

	/* Ten slots: half of them run. */
	o = (struct eng_options){ .on_plan = plan, .plan_arg = &told, .state_bytes = 10 * each, .max_running = 9 };
	e = open_engine(o);
	assert_int_equal(told.plan.n_states, 10);
	assert_int_equal(told.plan.max_running, 5);
	eng_engine_close(e);
	o.state_bytes = 2 * each - 1;
	o.model_path = model;
	assert_int_equal(eng_engine_open(&o, &e, &err), -EINVAL);
	assert_non_null(strstr(err_text(&err), "does not hold a recurrent state and a copy"));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(answers_are_the_reference),
		cmocka_unit_test(long_prompts_stay_the_same),
		cmocka_unit_test(budgets_and_limits_are_told),
	};

	model = strdup(test_fixture("formats/qwen3_next"));
	return cmocka_run_group_tests(tests, NULL, NULL);
}
