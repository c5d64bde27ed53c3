/* Models with recurrent layers under the scheduler: where checkpoints are kept and what is taken over from them. The
 * fake fails every step from a state that has not seen exactly the tokens before it. */
#include "sched_test.h"

enum { EVERY = 4 /* pages between checkpoints: 16 tokens */, STATES = 20 };

static bool keeps; /* the backend leaves copies in the middle of a step */

static void begin(struct world *w, uint32_t max_running, uint32_t n_pages, uint32_t n_states)
{
	world_init_states(w, (struct eng_sched_config){ .max_running = max_running, .max_queued = 100 }, n_pages,
	                  n_states, EVERY, keeps);
}

/* One request from beginning to end: its tokens are right, and so many of the prompt came from the cache. */
static void ask(struct world *w, const int32_t *ids, size_t n, uint32_t n_new, uint32_t n_cached)
{
	static struct client c;
	struct eng_request req = greedy(&c, ids, n, n_new);

	client_init(&c);
	submit(w, &c, &req);
	client_wait(&c);
	if (c.done.finish == ENG_FINISH_ERROR)
		fail_msg("%s", c.error);
	expect_continuation(w, ids, n, &c, n_new);
	assert_int_equal(c.done.n_cached, n_cached);
}

static void a_prompt_is_taken_over_up_to_its_last_checkpoint(void **state)
{
	int32_t ids[60];
	struct world w;

	(void)state;
	begin(&w, 2, PAGES, STATES);
	prompt_of(ids, 60, 3);
	ask(&w, ids, 43, 1, 0);
	ask(&w, ids, 43, 1, 40); /* the end of its last full page */
	ask(&w, ids, 40, 1, 32); /* 40 tokens are known, but one must be computed: the last one before is at 32 */
	ask(&w, ids, 40, 1, 36); /* and this is where the shorter one ended */
	ask(&w, ids, 20, 1, 16);
	ask(&w, ids, 3, 1, 0);
	ask(&w, ids, 60, 1, 40);
	world_done(&w);
}

/* A checkpoint costs no step: the one that passes leaves it. A step that would pass two ends at the first. Where steps
 * leave none as they go, they end there. */
static void checkpoints_cost_no_steps(void **state)
{
	static const struct {
		uint32_t n_ids, n_steps, n_steps_cut, n_cached;
	} cases[] = {
		{ 14, 1, 2, 12 }, /* the whole prompt */
		{ 16, 1, 2, 12 }, /* an ordinary place, but at its very end */
		{ 18, 2, 2, 16 }, /* sixteen tokens a step */
		{ 30, 2, 3, 28 }, /* both steps leave one */
	};
	int32_t ids[30];

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		uint32_t n_steps = keeps ? cases[i].n_steps : cases[i].n_steps_cut;
		struct world w;

		begin(&w, 2, PAGES, STATES);
		prompt_of(ids, 30, 7);
		ask(&w, ids, cases[i].n_ids, 1, 0);
		assert_int_equal(atomic_load(&w.f.n_steps), n_steps);
		ask(&w, ids, cases[i].n_ids, 1, cases[i].n_cached);
		assert_int_equal(atomic_load(&w.f.n_steps), n_steps + 1);
		ids[13] = 300;
		ask(&w, ids, cases[i].n_ids, 1, cases[i].n_cached == 12 ? 12 : 0);
		world_done(&w);
	}
}

static void where_prompts_part_the_second_leaves_a_checkpoint(void **state)
{
	int32_t ids[50];
	struct world w;

	(void)state;
	begin(&w, 2, PAGES, STATES);
	prompt_of(ids, 50, 4);
	ask(&w, ids, 50, 1, 0);
	for (int i = 0; i < 3; i++) {
		ids[30] = 300 + i; /* seven pages in common */
		ask(&w, ids, 50, 1, i == 0 ? 16 : 28);
	}
	world_done(&w);
}

static void an_answer_is_taken_over_by_the_next_turn(void **state)
{
	static struct client a;
	int32_t ids[60];
	struct eng_request req;
	struct world w;

	(void)state;
	begin(&w, 2, PAGES, STATES);
	prompt_of(ids, 20, 5);
	client_init(&a);
	req = greedy(&a, ids, 20, 24);
	submit(&w, &a, &req);
	client_wait(&a);
	memcpy(ids + 20, a.ids, 24 * sizeof(*ids));
	ids[44] = 7;
	ask(&w, ids, 45, 2, 40);
	/* Only the newest page of the answer has a state: a turn that goes another way begins at an ordinary one. */
	ids[38] = 300;
	ask(&w, ids, 45, 2, 32);
	world_done(&w);
}

static void clients_with_one_prompt_have_it_computed_once(void **state)
{
	struct world w;

	(void)state;
	begin(&w, 8, 200, 40);
	sixteen_with_one_prompt(&w, 25, 24); /* away from the usual places for checkpoints */
	world_done(&w);
}

static void answers_that_outgrow_the_pool_are_set_back_and_finish(void **state)
{
	enum { N = 6 };

	(void)state;
	for (uint32_t n_states = N; n_states <= 4 * N; n_states += 3 * N) { /* without room for checkpoints; with */
		struct world w;

		begin(&w, N, 20, n_states);
		six_long_answers(&w);
		assert_true(stats_of(&w).n_preempted > 0);
		world_done(&w);
	}
}

static void a_single_slot_serves_one_after_the_other(void **state)
{
	int32_t ids[43];
	struct world w;

	(void)state;
	begin(&w, 4, PAGES, 1);
	prompt_of(ids, 43, 8);
	ask(&w, ids, 43, 5, 0);
	ask(&w, ids, 43, 5, 0); /* there was no slot for a checkpoint */
	world_done(&w);
	begin(&w, 4, PAGES, 2);
	ask(&w, ids, 43, 1, 0);
	ask(&w, ids, 43, 1, 40); /* copied */
	ask(&w, ids, 43, 1, 40);
	world_done(&w);
}

static void requests_taken_back_and_paused_keep_their_answers(void **state)
{
	enum { N = 4 };
	static struct client c[N];
	int32_t ids[N][30];
	struct world w;

	(void)state;
	begin(&w, N, PAGES, STATES);
	atomic_store(&w.f.delay_us, 500);
	for (int i = 0; i < N; i++) {
		struct eng_request req = greedy(&c[i], ids[i], 30, 30);

		prompt_of(ids[i], 30, 50 + (uint32_t)i);
		client_init(&c[i]);
		submit(&w, &c[i], &req);
	}
	for (int i = 0; i < 6; i++) {
		(void)usleep(2000);
		eng_sched_pause(w.s, i % 2 ? ENG_SCHED_RETRACT : ENG_SCHED_HOLD);
		eng_sched_continue(w.s);
	}
	for (int i = 0; i < N; i++) {
		client_wait(&c[i]);
		expect_continuation(&w, ids[i], 30, &c[i], 30);
	}
	world_done(&w);
}

static void flushing_forgets_checkpoints(void **state)
{
	int32_t ids[40];
	struct world w;

	(void)state;
	begin(&w, 2, PAGES, STATES);
	prompt_of(ids, 40, 9);
	ask(&w, ids, 40, 1, 0);
	while (eng_sched_flush(w.s) == -EBUSY)
		(void)usleep(200);
	ask(&w, ids, 40, 1, 0);
	world_done(&w);
	world_init_states(&w, (struct eng_sched_config){ .max_running = 2, .max_queued = 4, .no_prefix_cache = true },
	                  PAGES, 2, EVERY, keeps);
	ask(&w, ids, 40, 1, 0);
	ask(&w, ids, 40, 1, 0);
	assert_int_equal(atomic_load(&w.f.n_steps), 2 * 3); /* steps end nowhere but at their limit of tokens */
	world_done(&w);
}

static void nothing_is_guessed(void **state)
{
	static int32_t script[48];
	static struct client c;
	const int32_t prompt[] = { 300, 2 };
	struct eng_request req = greedy(&c, prompt, 2, 48);
	struct world w;

	(void)state;
	begin(&w, 2, PAGES, STATES);
	for (int i = 0; i < 48; i++)
		script[i] = 20 + i % 5;
	w.f.scripts[w.f.n_scripts++] = (struct fake_script){ 300, script, 48 };
	client_init(&c);
	submit(&w, &c, &req);
	client_wait(&c);
	assert_memory_equal(c.ids, script, sizeof(script));
	assert_int_equal(stats_of(&w).drafted_tokens, 0);
	world_done(&w);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_prompt_is_taken_over_up_to_its_last_checkpoint),
		cmocka_unit_test(checkpoints_cost_no_steps),
		cmocka_unit_test(where_prompts_part_the_second_leaves_a_checkpoint),
		cmocka_unit_test(an_answer_is_taken_over_by_the_next_turn),
		cmocka_unit_test(clients_with_one_prompt_have_it_computed_once),
		cmocka_unit_test(answers_that_outgrow_the_pool_are_set_back_and_finish),
		cmocka_unit_test(a_single_slot_serves_one_after_the_other),
		cmocka_unit_test(requests_taken_back_and_paused_keep_their_answers),
		cmocka_unit_test(flushing_forgets_checkpoints),
		cmocka_unit_test(nothing_is_guessed),
	};

	int n_failed = cmocka_run_group_tests(tests, NULL, NULL);

	keeps = true;
	return n_failed + cmocka_run_group_tests(tests, NULL, NULL);
}
