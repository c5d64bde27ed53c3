/* Steps that are begun before the tokens of the one before them are known, over a fake that computes by itself: what
 * comes out is what steps one at a time give, token for token, whatever ends, leaves or is asked for in the middle. */
#include <pthread.h>

#include "sched_test.h"

enum { N = 240, POOL = 48, MAX_STOP_IDS = 40 };

struct plan {
	int32_t ids[CTX];
	uint32_t n_ids, max_new, min_new;
	struct eng_sampling sampling;
	int32_t stop_ids[MAX_STOP_IDS];
	size_t n_stop_ids;
	uint32_t n_top;
	bool logprobs, wants_prompt;
	struct eng_logit_bias bias;
};

static uint32_t below(unsigned *seed, uint32_t n)
{
	return (uint32_t)rand_r(seed) % n;
}

static void make_plan(struct plan *p, unsigned *seed)
{
	*p = (struct plan){ .n_ids = 1 + below(seed, 40) };
	prompt_of(p->ids, p->n_ids, below(seed, 9));
	for (uint32_t i = below(seed, 2) ? 16 : 0; i < p->n_ids; i++)
		p->ids[i] = (int32_t)below(seed, 250);
	p->max_new = 1 + below(seed, CTX - p->n_ids);
	p->min_new = below(seed, 5) ? 0 : below(seed, 6);
	p->sampling = (struct eng_sampling){ .top_p = 1, .repetition_penalty = 1, .has_seed = true };
	p->sampling.seed = below(seed, 1000);
	if (below(seed, 3)) {
		p->sampling.temperature = 0.3f + (float)below(seed, 20) / 2;
		p->sampling.top_k = below(seed, 2) ? below(seed, 300) : 0;
		p->sampling.top_p = below(seed, 2) ? 1 : 0.4f + (float)below(seed, 12) / 20;
		p->sampling.min_p = below(seed, 3) ? 0 : 0.02f * (float)below(seed, 10);
	}
	if (below(seed, 12) == 0)
		p->sampling.presence_penalty = 1; /* its rows are fetched */
	if (below(seed, 20) == 0) {
		p->bias = (struct eng_logit_bias){ .id = (int32_t)below(seed, 250), .bias = 9 };
		p->sampling.n_logit_bias = 1;
	}
	/* So many that answers end anywhere. */
	p->n_stop_ids = below(seed, 2) ? MAX_STOP_IDS : 0;
	for (size_t i = 0; i < p->n_stop_ids; i++)
		p->stop_ids[i] = (int32_t)below(seed, V);
	p->logprobs = below(seed, 3) == 0;
	p->n_top = p->logprobs ? below(seed, 5) : 0;
	p->wants_prompt = below(seed, 15) == 0;
}

static struct eng_request request_of(struct client *c, const struct plan *p)
{
	struct eng_request req = greedy(c, p->ids, p->n_ids, p->max_new);

	req.min_new = p->min_new;
	req.sampling = p->sampling;
	req.sampling.logit_bias = &p->bias;
	req.stop_ids = p->stop_ids;
	req.n_stop_ids = p->n_stop_ids;
	req.logprobs = p->logprobs;
	req.n_top = p->n_top;
	req.logprob_start = p->wants_prompt ? 0 : -1;
	return req;
}

/* Somebody who asks for everything that an operator can. */
struct operator_at_work {
	struct world *w;
	atomic_bool is_done;
	unsigned seed, n_alone;
};

static int nothing(void *arg, struct err *err)
{
	(void)err;
	(*(unsigned *)arg)++;
	return 0;
}

static void *operate(void *arg)
{
	struct operator_at_work *o = arg;

	while (!atomic_load(&o->is_done)) {
		struct eng_stats st;

		(void)usleep(300 + below(&o->seed, 3000));
		switch (below(&o->seed, 5)) {
		case 0:
			eng_sched_pause(o->w->s, ENG_SCHED_HOLD);
			(void)usleep(500);
			eng_sched_continue(o->w->s);
			break;
		case 1:
			eng_sched_pause(o->w->s, ENG_SCHED_RETRACT);
			(void)usleep(500);
			eng_sched_continue(o->w->s);
			break;
		case 2:
			(void)eng_sched_flush(o->w->s);
			break;
		case 3: /* as new weights are taken; waits for who runs */
			if (below(&o->seed, 4) == 0)
				(void)eng_sched_run_alone(o->w->s, nothing, &o->n_alone, NULL);
			break;
		default:
			eng_sched_stats(o->w->s, &st);
			assert_true(st.kv_pages_used + st.kv_pages_cached <= st.kv_pages_total);
		}
	}
	return NULL;
}

/* All plans at once; how many steps were begun ahead. */
static unsigned run_all(const struct plan *plans, struct client *clients, bool no_ahead, bool operated,
                        bool no_speculation)
{
	struct eng_sched_config config = {
		.max_running = 8, .max_queued = N, .no_ahead = no_ahead, .no_speculation = no_speculation
	};
	struct operator_at_work o = { .seed = 5 };
	pthread_t operator_thread;
	unsigned n_ahead;
	struct world w;

	world_init_as(&w, config, POOL);
	atomic_store(&w.f.delay_us, operated ? 60 : 0);
	o.w = &w;
	if (operated)
		assert_int_equal(pthread_create(&operator_thread, NULL, operate, &o), 0);
	for (int i = 0; i < N; i++) {
		struct eng_request req = request_of(&clients[i], &plans[i]);

		client_init(&clients[i]);
		submit(&w, &clients[i], &req);
	}
	for (int i = 0; i < N; i++)
		client_wait(&clients[i]);
	atomic_store(&o.is_done, true);
	if (operated)
		(void)pthread_join(operator_thread, NULL);
	n_ahead = atomic_load(&w.f.n_ahead);
	world_done(&w);
	return n_ahead;
}

static void compare(const struct client *a, const struct client *b)
{
	for (int i = 0; i < N; i++) {
		assert_int_equal(a[i].n_late + b[i].n_late, 0);
		assert_int_equal(a[i].n_ids, b[i].n_ids);
		assert_memory_equal(a[i].ids, b[i].ids, a[i].n_ids * sizeof(a[i].ids[0]));
		assert_int_equal(a[i].done.finish, b[i].done.finish);
		assert_int_equal(a[i].done.stop_id, b[i].done.stop_id);
		assert_int_equal(a[i].done.n_output, b[i].done.n_output);
		assert_string_equal(a[i].text, b[i].text);
		assert_int_equal(a[i].n_prompt, b[i].n_prompt);
		for (size_t k = 0; k < a[i].n_ids; k++) {
			assert_true(fabsf(a[i].logprobs[k] - b[i].logprobs[k]) < 1e-4f);
			assert_int_equal(a[i].top_ids[k], b[i].top_ids[k]);
		}
	}
}

static void answers_are_those_of_one_step_at_a_time(void **state)
{
	static struct client one[N], ahead[N], operated[N];
	static struct plan plans[N];

	(void)state;
	for (unsigned round = 1; round <= 3; round++) {
		unsigned seed = round, n_stopped = 0, n_ahead;

		for (int i = 0; i < N; i++)
			make_plan(&plans[i], &seed);
		assert_int_equal(run_all(plans, one, true, false, round == 1), 0);
		n_ahead = run_all(plans, ahead, false, false, round == 1);
		assert_true(n_ahead > 0);
		compare(one, ahead);
		assert_true(run_all(plans, operated, false, true, round == 1) > 0);
		compare(one, operated);
		for (int i = 0; i < N; i++)
			n_stopped += one[i].done.finish == ENG_FINISH_STOP;
		print_message("round %u: %u steps begun ahead, %u of %d answers ended by a token\n", round, n_ahead,
		              n_stopped, N);
		assert_in_range(n_stopped, N / 20, N - N / 20);
	}
}

/* One sequence alone: every step but the first stands behind another, and none is computed for a token beyond the last
 * that was asked for. */
static void a_single_sequence_runs_ahead_to_its_end(void **state)
{
	struct client c;
	struct eng_request req;
	int32_t ids[6];
	struct world w;

	(void)state;
	world_init_as(&w, (struct eng_sched_config){ .max_running = 4, .max_queued = 4, .no_speculation = true },
	              PAGES);
	prompt_of(ids, 6, 3);
	client_init(&c);
	req = greedy(&c, ids, 6, 30);
	submit(&w, &c, &req);
	client_wait(&c);
	expect_continuation(&w, ids, 6, &c, 30);
	assert_int_equal(atomic_load(&w.f.n_steps), 30);
	assert_int_equal(atomic_load(&w.f.n_ahead), 29);
	world_done(&w);
}

/* It is computed one token too far, its pages come back when that has landed, and who waited for them gets them. */
static void who_ends_in_the_air_gives_its_pages_back(void **state)
{
	static const int32_t script[] = { 10, 11, 12, 77, 13, 14, 15, 16, 17, 18, 19, 20 }, stop = 77;
	enum { ROUNDS = 40 };
	const int32_t prompt[] = { 300, 2 };
	struct world w;

	(void)state;
	world_init_as(&w, (struct eng_sched_config){ .max_running = 3, .max_queued = 100, .no_speculation = true }, 4);
	w.f.scripts[w.f.n_scripts++] = (struct fake_script){ 300, script, 12 };
	for (int i = 0; i < ROUNDS; i++) {
		struct client a, b;
		struct eng_request req;
		int32_t other[8];

		client_init(&a);
		client_init(&b);
		req = greedy(&a, prompt, 2, 10);
		req.stop_ids = &stop;
		req.n_stop_ids = 1;
		submit(&w, &a, &req);
		prompt_of(other, 8, (uint32_t)i + 50);
		req = greedy(&b, other, 8, 8); /* the whole pool, together with the first */
		submit(&w, &b, &req);
		client_wait(&a);
		client_wait(&b);
		assert_int_equal(a.n_ids, 4);
		assert_int_equal(a.done.stop_id, 77);
		expect_continuation(&w, other, 8, &b, 8);
	}
	assert_true(atomic_load(&w.f.n_ahead) > 0);
	world_done(&w);
}

/* A step fails with another one behind it: who was in either ends, and the next requests are served. */
static void a_failure_in_the_air_ends_who_was_in_it(void **state)
{
	static const int32_t script[] = { 10, 11, 400, 12, 13, 14, 15, 16 };
	const int32_t prompt[] = { 300, 2 }, good[] = { 7, 8, 9 };
	struct client a, b;
	struct eng_request req;
	struct world w;

	(void)state;
	world_init_as(&w, (struct eng_sched_config){ .max_running = 3, .max_queued = 9, .no_speculation = true },
	              PAGES);
	w.f.scripts[w.f.n_scripts++] = (struct fake_script){ 300, script, 8 };
	atomic_store(&w.f.fail_on_id, 400);
	client_init(&a);
	req = greedy(&a, prompt, 2, 8);
	submit(&w, &a, &req);
	client_wait(&a);
	assert_int_equal(a.done.finish, ENG_FINISH_ERROR);
	assert_string_equal(a.error, "the fake failed as told");
	client_init(&b);
	req = greedy(&b, good, 3, 9);
	submit(&w, &b, &req);
	client_wait(&b);
	expect_continuation(&w, good, 3, &b, 9);
	world_done(&w);
}

/* A state cannot be taken back. */
static void recurrent_models_go_step_by_step(void **state)
{
	struct eng_sched_config config = { .max_running = 4, .max_queued = 4 };
	struct client c;
	struct eng_request req;
	int32_t ids[6];
	struct world w;

	(void)state;
	world_init_states(&w, config, PAGES, 8, 3, true);
	prompt_of(ids, 6, 3);
	client_init(&c);
	req = greedy(&c, ids, 6, 20);
	submit(&w, &c, &req);
	client_wait(&c);
	expect_continuation(&w, ids, 6, &c, 20);
	assert_int_equal(atomic_load(&w.f.n_ahead), 0);
	world_done(&w);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(answers_are_those_of_one_step_at_a_time),
		cmocka_unit_test(a_single_sequence_runs_ahead_to_its_end),
		cmocka_unit_test(who_ends_in_the_air_gives_its_pages_back),
		cmocka_unit_test(a_failure_in_the_air_ends_who_was_in_it),
		cmocka_unit_test(recurrent_models_go_step_by_step),
	};

	fake_picks = fake_ahead = true;
	return cmocka_run_group_tests(tests, NULL, NULL);
}
