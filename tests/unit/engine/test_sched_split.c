/* Prompts on one backend and answers on another: the same output as on one, no prompt computed beside answers, pages
 * copied while the rest of a prompt is computed and only those that are not there, and nothing left behind by whoever
 * leaves, is set back or held, wherever it is between the two. */
#include "sched_test.h"

enum { POOL = 64 };

static void split_world(struct world *w, uint32_t max_running, uint32_t n_pages, uint32_t n_answer_pages)
{
	const struct eng_sched_config config = { .max_running = max_running,
		                                 .max_queued = 100,
		                                 .no_speculation = true };

	world_answer_pages = n_answer_pages;
	world_init_as(w, config, n_pages);
	world_answer_pages = 0;
}

static void begin(struct world *w, struct client *c, int32_t *ids, uint32_t n, uint32_t seed, uint32_t max_new)
{
	struct eng_request req = greedy(c, ids, n, max_new);

	prompt_of(ids, n, seed);
	client_init(c);
	submit(w, c, &req);
}

static void ask(struct world *w, uint32_t seed, uint32_t n, uint32_t max_new)
{
	int32_t ids[CTX];
	struct client c;

	begin(w, &c, ids, n, seed, max_new);
	client_wait(&c);
	assert_int_equal(c.done.finish, ENG_FINISH_LENGTH);
	expect_continuation(w, ids, n, &c, max_new);
}

/* What was given back on one side is seen on the other a moment later. */
static void await_quiet(struct world *w)
{
	for (int ms = 0; ms < 120000 && stats_of(w).kv_pages_used > 0; ms++)
		(void)usleep(1000);
	assert_int_equal(stats_of(w).kv_pages_used, 0);
}

static void each_side_computes_its_own(void **state)
{
	enum { N = 12 };
	static struct client c[N];
	int32_t ids[N][40];
	struct eng_stats st;
	struct world w;

	(void)state;
	split_world(&w, 4, POOL, POOL);
	for (int i = 0; i < N; i++)
		begin(&w, &c[i], ids[i], 17 + 2 * (uint32_t)i, (uint32_t)i, 12);
	for (int i = 0; i < N; i++) {
		client_wait(&c[i]);
		assert_int_equal(c[i].done.finish, ENG_FINISH_LENGTH);
		expect_continuation(&w, ids[i], 17 + 2 * (uint32_t)i, &c[i], 12);
	}
	st = stats_of(&w);
	assert_int_equal(st.n_handed, N);
	assert_int_equal(st.n_done, N);
	assert_int_equal(st.output_tokens, N * 12);
	assert_true(atomic_load(&w.g.max_step_tokens) <= 4); /* a token for each that runs */
	assert_true(atomic_load(&w.g.n_steps) >= 11 * N / 4);
	assert_true(st.handed_bytes >= N * 16 * sizeof(int32_t) && st.handed_ns > 0);
	world_done(&w);
}

/* Long before the first token is known. */
static void pages_go_while_the_rest_is_computed(void **state)
{
	int32_t ids[56];
	struct client c;
	struct eng_stats st;
	struct world w;

	(void)state;
	split_world(&w, 4, POOL, POOL);
	atomic_store(&w.f.delay_us, 300000);
	begin(&w, &c, ids, 56, 1, 3);
	do {
		st = stats_of(&w);
		(void)usleep(1000);
	} while (st.handed_bytes == 0 && st.n_done == 0);
	assert_true(st.handed_bytes > 0);
	assert_int_equal(st.n_handed, 0);
	client_wait(&c);
	expect_continuation(&w, ids, 56, &c, 3);
	assert_int_equal(stats_of(&w).handed_bytes, 56 * sizeof(int32_t));
	world_done(&w);
}

static void what_is_there_is_not_copied_again(void **state)
{
	uint64_t before;
	struct world w;

	(void)state;
	split_world(&w, 4, POOL, POOL);
	ask(&w, 1, 42, 5);
	before = stats_of(&w).handed_bytes;
	assert_int_equal(before, 44 * sizeof(int32_t)); /* whole pages */
	ask(&w, 1, 42, 5);
	assert_int_equal(stats_of(&w).handed_bytes, before + 4 * sizeof(int32_t)); /* the last, which is not full */
	assert_int_equal(stats_of(&w).cached_tokens, 40);
	assert_int_equal(eng_sched_flush(w.s), 0);
	assert_int_equal(stats_of(&w).kv_pages_cached, 0);
	ask(&w, 1, 42, 5);
	assert_int_equal(stats_of(&w).handed_bytes, 2 * before + 4 * sizeof(int32_t));
	world_done(&w);
}

static void what_ends_with_its_prompt_stays_there(void **state)
{
	int32_t ids[20];
	struct client c;
	struct eng_request req;
	struct world w;

	(void)state;
	split_world(&w, 4, POOL, POOL);
	ask(&w, 3, 20, 1);
	prompt_of(ids, 20, 4);
	client_init(&c);
	req = greedy(&c, ids, 20, 0);
	req.kind = ENG_EMBED;
	submit(&w, &c, &req);
	client_wait(&c);
	assert_int_equal(c.n_embedding, FAKE_EMBD);
	/* And what ends by its first token, of which more could have come. */
	c.ids[0] = fake_next(&w.f, ids, 20);
	req = greedy(&c, ids, 20, 9);
	req.stop_ids = &(int32_t){ c.ids[0] };
	req.n_stop_ids = 1;
	client_init(&c);
	submit(&w, &c, &req);
	client_wait(&c);
	assert_int_equal(c.done.finish, ENG_FINISH_STOP);
	assert_int_equal(c.n_ids, 1);
	assert_int_equal(stats_of(&w).n_handed, 0);
	assert_int_equal(atomic_load(&w.g.n_steps), 0);
	world_done(&w);
}

/* Those who answer outgrow their pages; they are computed again where prompts are. */
static void who_is_set_back_is_computed_in_front(void **state)
{
	struct eng_stats st;
	struct world w;

	(void)state;
	split_world(&w, 6, POOL, 24);
	six_long_answers(&w);
	st = stats_of(&w);
	assert_true(st.n_preempted > 0);
	assert_true(st.n_handed > 6);
	assert_true(atomic_load(&w.g.max_step_tokens) <= 6);
	world_done(&w);
}

/* A pool in front that one prompt nearly fills: others wait until its pages were read. */
static void a_small_front_waits_for_the_other_side(void **state)
{
	enum { N = 8 };
	static struct client c[N];
	int32_t ids[N][50];
	struct world w;

	(void)state;
	split_world(&w, 4, CTX / FAKE_PAGE, POOL);
	atomic_store(&w.g.copy_us, 3000);
	for (int i = 0; i < N; i++)
		begin(&w, &c[i], ids[i], 50, 30 + (uint32_t)i, 6);
	for (int i = 0; i < N; i++) {
		client_wait(&c[i]);
		assert_int_equal(c[i].done.finish, ENG_FINISH_LENGTH);
		expect_continuation(&w, ids[i], 50, &c[i], 6);
	}
	world_done(&w);
}

static void what_cannot_be_copied_is_computed(void **state)
{
	struct world w;

	(void)state;
	split_world(&w, 4, POOL, POOL);
	atomic_store(&w.g.fail_every, 1);
	for (uint32_t seed = 0; seed < 10; seed++)
		ask(&w, seed, 40, 6);
	assert_int_equal(stats_of(&w).handed_bytes, 0);
	assert_true(atomic_load(&w.g.max_step_tokens) > 4);
	atomic_store(&w.g.fail_every, 3);
	for (uint32_t seed = 10; seed < 30; seed++)
		ask(&w, seed, 40, 6);
	assert_true(stats_of(&w).handed_bytes > 0);
	world_done(&w);
}

static void who_leaves_on_the_way_leaves_nothing(void **state)
{
	enum { N = 80 };
	static struct client c[N];
	int32_t ids[N][48];
	struct world w;

	(void)state;
	split_world(&w, 6, POOL, 40);
	atomic_store(&w.f.delay_us, 300);
	atomic_store(&w.g.copy_us, 1500);
	for (int i = 0; i < N; i++) {
		struct eng_request req = greedy(&c[i], ids[i], 48, 8);

		prompt_of(ids[i], 48, 1 + (uint32_t)i % 20);
		client_init(&c[i]);
		if (i % 4 == 1) { /* at its first token, when it is handed over */
			c[i].cancel_in = w.s;
			c[i].cancel_after = 1;
		}
		submit(&w, &c[i], &req);
		(void)usleep(200 * (useconds_t)(i % 9));
		if (i % 4 == 2)
			eng_sched_cancel(w.s, c[i].id);
		if (i % 4 == 3 && i > 8)
			eng_sched_cancel(w.s, c[i - 5].id);
	}
	for (int i = 0; i < N; i++) {
		client_wait(&c[i]);
		assert_int_equal(c[i].n_late, 0);
		if (c[i].done.finish != ENG_FINISH_ABORT)
			expect_continuation(&w, ids[i], 48, &c[i], 8);
	}
	await_quiet(&w);
	world_done(&w);
}

static void a_side_that_fails_ends_those_it_had(void **state)
{
	int32_t ids[20];
	struct client c;
	struct world w;

	(void)state;
	split_world(&w, 4, POOL, POOL);
	prompt_of(ids, 20, 9);
	for (int side = 0; side < 2; side++) {
		struct eng_request req = greedy(&c, ids, 20, 9);

		/* A token of the prompt, or the one that the answer begins with. */
		atomic_store(&w.f.fail_on_id, side ? -1 : ids[3]);
		atomic_store(&w.g.fail_on_id, side ? fake_next(&w.f, ids, 20) : -1);
		client_init(&c);
		submit(&w, &c, &req);
		client_wait(&c);
		assert_int_equal(c.done.finish, ENG_FINISH_ERROR);
		assert_non_null(strstr(c.error, "failed as told"));
		assert_int_equal(c.n_ids, side);
	}
	atomic_store(&w.g.fail_on_id, -1);
	await_quiet(&w);
	ask(&w, 10, 20, 9);
	world_done(&w);
}

/* ---- Operation ---- */

static int nothing(void *arg, struct err *err)
{
	(void)err;
	atomic_fetch_add((atomic_uint *)arg, 1);
	return 0;
}

enum { CROWD = 10 };
static struct client crowd[CROWD];
static int32_t crowd_ids[CROWD][40];

static void send_crowd(struct world *w)
{
	atomic_store(&w->f.delay_us, 500);
	atomic_store(&w->g.delay_us, 500);
	atomic_store(&w->g.copy_us, 1000);
	for (int i = 0; i < CROWD; i++)
		begin(w, &crowd[i], crowd_ids[i], 40, 50 + (uint32_t)i, 20);
}

static void await_crowd(struct world *w)
{
	for (int i = 0; i < CROWD; i++) {
		client_wait(&crowd[i]);
		assert_int_equal(crowd[i].done.finish, ENG_FINISH_LENGTH);
		expect_continuation(w, crowd_ids[i], 40, &crowd[i], 20);
	}
}

static void pauses_hold_both_sides(void **state)
{
	atomic_uint n_tasks = 0;
	struct err err = { 0 };
	struct world w;

	(void)state;
	split_world(&w, 5, POOL, POOL);
	for (int round = 0; round < 6; round++) {
		send_crowd(&w);
		for (int i = 0; i < 5; i++) {
			(void)usleep(700 * (useconds_t)(round + 1));
			eng_sched_pause(w.s, round % 2 ? ENG_SCHED_RETRACT : ENG_SCHED_HOLD);
			if (round % 2) /* nobody runs, so other weights can come */
				assert_int_equal(eng_sched_run_alone(w.s, nothing, &n_tasks, &err), 0);
			(void)usleep(300);
			eng_sched_continue(w.s);
		}
		await_crowd(&w);
	}
	assert_int_equal(atomic_load(&n_tasks), 15);
	send_crowd(&w);
	(void)usleep(4000);
	eng_sched_pause(w.s, ENG_SCHED_ABORT);
	for (int i = 0; i < CROWD; i++)
		client_wait(&crowd[i]);
	assert_int_equal(eng_sched_run_alone(w.s, nothing, &n_tasks, &err), 0);
	assert_int_equal(eng_sched_flush(w.s), 0);
	eng_sched_continue(w.s);
	await_quiet(&w);
	assert_int_equal(stats_of(&w).kv_pages_cached, 0);
	ask(&w, 1, 40, 9);
	world_done(&w);
}

/* Who runs, on either side or between them, ends first; no page is used again that was computed before. */
static void other_weights_wait_for_both_sides(void **state)
{
	atomic_uint n_tasks = 0;
	struct world w;

	(void)state;
	split_world(&w, 5, POOL, POOL);
	for (int round = 0; round < 4; round++) {
		send_crowd(&w);
		(void)usleep(2000 * (useconds_t)round);
		assert_int_equal(eng_sched_run_alone(w.s, nothing, &n_tasks, NULL), 0);
		await_crowd(&w);
		assert_int_equal(eng_sched_flush(w.s), 0);
		assert_int_equal(stats_of(&w).kv_pages_cached, 0);
	}
	assert_int_equal(atomic_load(&n_tasks), 4);
	world_done(&w);
}

static void the_end_finds_everybody(void **state)
{
	struct world w;

	(void)state;
	for (int round = 0; round < 6; round++) {
		split_world(&w, 5, POOL, round % 2 ? 20 : POOL);
		send_crowd(&w);
		(void)usleep(1500 * (useconds_t)round);
		if (round == 3)
			eng_sched_pause(w.s, ENG_SCHED_HOLD);
		eng_sched_free(w.s);
		for (int i = 0; i < CROWD; i++) {
			assert_int_equal(crowd[i].n_done, 1);
			assert_int_equal(crowd[i].n_late, 0);
		}
		eng_tokenizer_free(w.tok);
		fake_done(&w.g);
		fake_done(&w.f);
	}
}

/* ---- What does not go together ---- */

static void what_is_not_alike_is_refused(void **state)
{
	struct eng_sched_config config = { .max_running = 2, .max_queued = 2 };
	struct eng_sched *s = NULL;
	struct fake_exec f, g;
	struct err err = { 0 };

	(void)state;
	fake_init(&f, V, CTX, POOL);
	fake_init(&g, V, CTX, POOL);
	config.answers = &g.exec;
	assert_int_equal(eng_sched_new(&f.exec, &config, &s, &err), -ENOTSUP);
	assert_non_null(strstr(err_text(&err), "not copied"));
	fake_answer_for(&g, &f);
	g.exec.kv.page_tokens *= 2;
	assert_int_equal(eng_sched_new(&f.exec, &config, &s, &err), -EINVAL);
	g.exec.kv.page_tokens /= 2;
	fake_add_states(&f, 4, 2, true);
	assert_int_equal(eng_sched_new(&f.exec, &config, &s, &err), -ENOTSUP);
	assert_non_null(strstr(err_text(&err), "recurrent"));
	assert_null(s);
	fake_done(&g);
	fake_done(&f);
}

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(each_side_computes_its_own),
		cmocka_unit_test(pages_go_while_the_rest_is_computed),
		cmocka_unit_test(what_is_there_is_not_copied_again),
		cmocka_unit_test(what_ends_with_its_prompt_stays_there),
		cmocka_unit_test(who_is_set_back_is_computed_in_front),
		cmocka_unit_test(a_small_front_waits_for_the_other_side),
		cmocka_unit_test(what_cannot_be_copied_is_computed),
		cmocka_unit_test(who_leaves_on_the_way_leaves_nothing),
		cmocka_unit_test(a_side_that_fails_ends_those_it_had),
		cmocka_unit_test(pauses_hold_both_sides),
		cmocka_unit_test(other_weights_wait_for_both_sides),
		cmocka_unit_test(the_end_finds_everybody),
		cmocka_unit_test(what_is_not_alike_is_refused),
	};
	int failed;

	if (argc > 1)
		cmocka_set_test_filter(argv[1]); /* one by name, with * and ? */
	failed = cmocka_run_group_tests_name("rows", tests, NULL, NULL);
	fake_picks = fake_ahead = true;
	return failed + cmocka_run_group_tests_name("ahead", tests, NULL, NULL);
}
