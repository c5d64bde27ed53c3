/* The scheduler's use of memory: prefixes computed once, requests set back instead of aborted, clients taken in
 * turn, and speculation; always the same output as one request alone gives. */
#include "sched/draft.h"
#include "cache_dir.h"
#include "sched_test.h"

static void a_prompt_seen_before_is_not_computed_again(void **state)
{
	int32_t ids[40];
	struct client a, b, c;
	struct eng_request req;
	struct world w;

	(void)state;
	world_init(&w, 2, 4, PAGES);
	prompt_of(ids, 40, 3);
	client_init(&a);
	req = greedy(&a, ids, 38, 5);
	submit(&w, &a, &req);
	client_wait(&a);
	assert_int_equal(a.done.n_cached, 0);
	client_init(&b);
	req = greedy(&b, ids, 40, 5);
	submit(&w, &b, &req);
	client_wait(&b);
	assert_int_equal(b.done.n_cached, 36);
	expect_continuation(&w, ids, 40, &b, 5);
	/* The whole prompt is known now, but its last token must be computed for its row. */
	client_init(&c);
	req = greedy(&c, ids, 40, 5);
	submit(&w, &c, &req);
	client_wait(&c);
	assert_int_equal(c.done.n_cached, 36);
	expect_continuation(&w, ids, 40, &c, 5);
	assert_int_equal(stats_of(&w).cached_tokens, 72);
	world_done(&w);
}

static void an_answer_is_cached_for_the_next_turn(void **state)
{
	int32_t ids[60];
	struct client a, b;
	struct eng_request req;
	struct world w;

	(void)state;
	world_init(&w, 2, 4, PAGES);
	prompt_of(ids, 20, 4);
	client_init(&a);
	req = greedy(&a, ids, 20, 21);
	submit(&w, &a, &req);
	client_wait(&a);
	memcpy(ids + 20, a.ids, 21 * sizeof(*ids));
	ids[41] = 7;
	client_init(&b);
	req = greedy(&b, ids, 42, 3);
	submit(&w, &b, &req);
	client_wait(&b);
	assert_int_equal(b.done.n_cached, 40);
	expect_continuation(&w, ids, 42, &b, 3);
	world_done(&w);
}

static void prompt_logprobs_are_computed_although_the_prompt_is_cached(void **state)
{
	int32_t ids[40];
	struct client a, b;
	struct eng_request req;
	struct world w;

	(void)state;
	world_init(&w, 2, 4, PAGES);
	prompt_of(ids, 40, 5);
	for (int64_t start = 0; start < 40; start += 13) {
		client_init(&a);
		req = greedy(&a, ids, 40, 2);
		submit(&w, &a, &req);
		client_wait(&a);
		client_init(&b);
		req.logprob_start = start;
		req.arg = &b;
		submit(&w, &b, &req);
		client_wait(&b);
		assert_int_equal(b.n_prompt, 40 - start);
		assert_true(b.done.n_cached <= (start ? start - 1 : 0));
		assert_true(start < 13 || b.done.n_cached >= start - 1 - FAKE_PAGE);
		expect_continuation(&w, ids, 40, &b, 2);
	}
	world_done(&w);
}

static void clients_with_one_prompt_have_it_computed_once(void **state)
{
	struct world w;

	(void)state;
	world_init(&w, 8, 100, 200);
	atomic_store(&w.f.delay_us, 500);
	sixteen_with_one_prompt(&w, 41, 40);
	world_done(&w);
}

static void who_waits_for_a_prefix_goes_on_when_its_maker_is_cancelled(void **state)
{
	static struct client c[3];
	int32_t ids[60];
	struct world w;

	(void)state;
	world_init(&w, 4, 10, PAGES);
	atomic_store(&w.f.is_held, true);
	prompt_of(ids, 60, 8);
	for (int i = 0; i < 3; i++) {
		struct eng_request req = greedy(&c[i], ids, 60 - (size_t)i, 2);

		client_init(&c[i]);
		submit(&w, &c[i], &req);
	}
	eng_sched_cancel(w.s, c[0].id);
	atomic_store(&w.f.is_held, false);
	for (int i = 0; i < 3; i++)
		client_wait(&c[i]);
	assert_int_equal(c[0].done.finish, ENG_FINISH_ABORT);
	expect_continuation(&w, ids, 59, &c[1], 2);
	expect_continuation(&w, ids, 58, &c[2], 2);
	world_done(&w);
}

static void without_a_prefix_cache_everything_is_computed(void **state)
{
	int32_t ids[20];
	struct client c;
	struct eng_request req;
	struct world w;

	(void)state;
	world_init_as(&w, (struct eng_sched_config){ .max_running = 2, .max_queued = 4, .no_prefix_cache = true },
	              PAGES);
	prompt_of(ids, 20, 6);
	for (int i = 0; i < 3; i++) {
		client_init(&c);
		req = greedy(&c, ids, 20, 6);
		submit(&w, &c, &req);
		client_wait(&c);
		assert_int_equal(c.done.n_cached, 0);
	}
	assert_int_equal(stats_of(&w).kv_pages_cached, 0);
	assert_int_equal(stats_of(&w).prompt_tokens, 60);
	world_done(&w);
}

static void answers_that_outgrow_the_pool_are_set_back_and_finish(void **state)
{
	struct world w;

	(void)state;
	world_init(&w, 6, 10, 20); /* 80 tokens */
	six_long_answers(&w);
	assert_true(stats_of(&w).n_preempted > 0);
	assert_true(stats_of(&w).kv_evictions > 0);
	world_done(&w);
}

static void a_sampled_answer_is_the_same_after_being_set_back(void **state)
{
	enum { N = 6 };
	static struct client alone[N], crowd[N];
	int32_t ids[8];
	struct world w;

	(void)state;
	for (int crowded = 0; crowded < 2; crowded++) {
		world_init(&w, crowded ? N : 1, 10, crowded ? 20 : 64);
		eng_sched_pause(w.s, ENG_SCHED_HOLD);
		for (int i = 0; i < N; i++) {
			struct client *c = crowded ? &crowd[i] : &alone[i];
			struct eng_request req = greedy(c, ids, 8, 45);

			prompt_of(ids, 8, 40 + (uint32_t)i);
			req.sampling.temperature = 2;
			req.sampling.has_seed = true;
			req.sampling.seed = (uint64_t)i;
			req.sampling.frequency_penalty = 0.5f;
			req.logprobs = true;
			client_init(c);
			submit(&w, c, &req);
		}
		eng_sched_continue(w.s);
		for (int i = 0; i < N; i++)
			client_wait(crowded ? &crowd[i] : &alone[i]);
		if (crowded)
			assert_true(stats_of(&w).n_preempted > 0);
		world_done(&w);
	}
	for (int i = 0; i < N; i++) {
		assert_memory_equal(alone[i].ids, crowd[i].ids, 45 * sizeof(int32_t));
		assert_memory_equal(alone[i].logprobs, crowd[i].logprobs, 45 * sizeof(float));
	}
}

static void prompt_logprobs_come_once_although_set_back(void **state)
{
	enum { N = 4 };
	static struct client c[N];
	static int32_t ids[N][30];
	struct world w;

	(void)state;
	world_init(&w, N, 10, 18);
	eng_sched_pause(w.s, ENG_SCHED_HOLD); /* until all are there */
	for (int i = 0; i < N; i++) {
		struct eng_request req = greedy(&c[i], ids[i], i ? 6 : 30, 34);

		prompt_of(ids[i], 30, 70 + (uint32_t)i);
		req.logprob_start = 0;
		client_init(&c[i]);
		submit(&w, &c[i], &req);
	}
	eng_sched_continue(w.s);
	for (int i = 0; i < N; i++) {
		size_t n = i ? 6 : 30;

		client_wait(&c[i]);
		assert_int_equal(c[i].n_prompt, n);
		for (size_t k = 0; k < n; k++)
			assert_int_equal(c[i].prompt_pos[k], k);
		expect_continuation(&w, ids[i], n, &c[i], 34);
	}
	assert_true(stats_of(&w).n_preempted > 0);
	world_done(&w);
}

/* A long prompt arrives while an answer streams: no step holds more than the streaming one's token and a chunk. */
static void a_long_prompt_does_not_stop_a_stream(void **state)
{
	static struct client stream, lng;
	int32_t ids[60];
	struct eng_request req;
	struct world w;
	unsigned before;

	(void)state;
	world_init(&w, 4, 10, PAGES);
	client_init(&stream);
	client_init(&lng);
	prompt_of(ids, 60, 12);
	atomic_store(&w.f.delay_us, 2000);
	req = greedy(&stream, ids, 4, 40);
	submit(&w, &stream, &req);
	while (atomic_load(&w.f.n_steps) < 3)
		(void)usleep(200);
	before = atomic_load(&w.f.n_steps);
	req = greedy(&lng, ids + 1, 59, 1);
	submit(&w, &lng, &req);
	client_wait(&lng);
	/* 16 tokens a step, one of them the stream's: four steps or more, and a token of the stream in each. */
	assert_true(atomic_load(&w.f.n_steps) - before >= 4);
	(void)pthread_mutex_lock(&stream.lock);
	assert_true(stream.n_ids >= 6);
	(void)pthread_mutex_unlock(&stream.lock);
	client_wait(&stream);
	expect_continuation(&w, ids, 4, &stream, 40);
	expect_continuation(&w, ids + 1, 59, &lng, 1);
	world_done(&w);
}

static void a_short_prompt_is_not_stuck_behind_a_long_one(void **state)
{
	static struct client lng, small;
	int32_t ids[60], other[3] = { 400, 401, 402 };
	struct eng_request req;
	struct world w;

	(void)state;
	world_init(&w, 4, 10, PAGES);
	client_init(&lng);
	client_init(&small);
	prompt_of(ids, 60, 13);
	eng_sched_pause(w.s, ENG_SCHED_HOLD); /* until both are there */
	req = greedy(&lng, ids, 60, 1);
	submit(&w, &lng, &req);
	req = greedy(&small, other, 3, 1);
	submit(&w, &small, &req);
	eng_sched_continue(w.s);
	client_wait(&small);
	client_wait(&lng);
	assert_true(small.end_order < lng.end_order);
	world_done(&w);
}

/* One client fills the queue; another one's single request gets the next place. */
static void a_quiet_client_is_not_starved_by_a_loud_one(void **state)
{
	enum { N = 20 };
	static struct client loud[N], quiet;
	int32_t ids[N][4];
	struct eng_request req;
	struct world w;
	unsigned first;

	(void)state;
	world_init(&w, 2, 100, PAGES);
	eng_sched_pause(w.s, ENG_SCHED_HOLD);
	first = atomic_load(&n_ended);
	for (int i = 0; i < N; i++) {
		prompt_of(ids[i], 4, 30 + (uint32_t)i);
		client_init(&loud[i]);
		req = greedy(&loud[i], ids[i], 4, 10);
		req.client = 1;
		submit(&w, &loud[i], &req);
	}
	client_init(&quiet);
	req = greedy(&quiet, ids[0], 3, 10);
	req.client = 2;
	submit(&w, &quiet, &req);
	eng_sched_continue(w.s);
	client_wait(&quiet);
	assert_true(quiet.end_order - first <= 2);
	for (int i = 0; i < N; i++)
		client_wait(&loud[i]);
	world_done(&w);
}

static void a_loud_client_leaves_a_quarter_of_the_queue(void **state)
{
	enum { N = 30, QUEUE = 16 };
	static struct client c[N], other[2];
	const int32_t ids[] = { 3, 4 };
	struct eng_request req;
	struct world w;
	size_t n = 0;

	(void)state;
	world_init(&w, 1, QUEUE, PAGES);
	eng_sched_pause(w.s, ENG_SCHED_HOLD);
	for (int i = 0; i < 2; i++) {
		client_init(&other[i]);
		req = greedy(&other[i], ids, 2, 20);
		req.client = 2;
		submit(&w, &other[i], &req);
	}
	for (int i = 0; i < N; i++) {
		client_init(&c[i]);
		req = greedy(&c[i], ids, 2, 20);
		req.client = 1;
		if (eng_sched_submit(w.s, &req, &c[n].id, NULL) == 0)
			n++;
	}
	assert_in_range(n, QUEUE / 2, QUEUE - 3);
	assert_in_range(eng_sched_retry_s(w.s), 1, 60);
	eng_sched_continue(w.s);
	for (int i = 0; i < N; i++)
		eng_sched_cancel(w.s, c[i].id);
	for (int i = 0; i < 2; i++)
		client_wait(&other[i]);
	world_done(&w);
}

static void flushing_forgets_prefixes_but_not_under_load(void **state)
{
	int32_t ids[20];
	struct client a, b;
	struct eng_request req;
	struct world w;

	(void)state;
	world_init(&w, 2, 4, PAGES);
	prompt_of(ids, 20, 6);
	atomic_store(&w.f.is_held, true);
	client_init(&a);
	req = greedy(&a, ids, 20, 10);
	submit(&w, &a, &req);
	assert_int_equal(eng_sched_flush(w.s), -EBUSY);
	atomic_store(&w.f.is_held, false);
	client_wait(&a);
	while (stats_of(&w).n_done == 0 || eng_sched_flush(w.s) == -EBUSY)
		(void)usleep(200);
	assert_int_equal(stats_of(&w).kv_pages_cached, 0);
	client_init(&b);
	req = greedy(&b, ids, 20, 10);
	submit(&w, &b, &req);
	client_wait(&b);
	assert_int_equal(b.done.n_cached, 0);
	world_done(&w);
}

/* ---- The disk ---- */

static void world_on_disk(struct world *w, uint32_t max_running, uint32_t n_pages)
{
	struct eng_sched_config config = { .max_running = max_running, .max_queued = 100, .always_load = true };
	struct eng_pc_config cache = { .dir = cache_dir,
		                       .budget_bytes = 1 << 20,
		                       .page_tokens = FAKE_PAGE,
		                       .page_bytes = FAKE_PAGE * sizeof(int32_t) };
	struct err err = { 0 };

	if (eng_pc_open(&cache, &config.cache, &err) < 0)
		fail_msg("%s", err_text(&err));
	world_init_as(w, config, n_pages);
	atomic_store(&w->f.delay_us, 20000);
}

static void a_restart_finds_the_prompt_on_disk(void **state)
{
	static struct client c[6];
	int32_t ids[40];
	struct world w;

	(void)state;
	prompt_of(ids, 40, 9);
	for (int life = 0; life < 2; life++) {
		world_on_disk(&w, 4, PAGES);
		for (int i = 0; i < 3; i++) {
			struct client *me = &c[life * 3 + i];
			struct eng_request req = greedy(me, ids, 40, 4);

			client_init(me);
			submit(&w, me, &req);
		}
		for (int i = 0; i < 3; i++) {
			client_wait(&c[life * 3 + i]);
			expect_continuation(&w, ids, 40, &c[life * 3 + i], 4);
		}
		assert_int_equal(stats_of(&w).prompt_tokens, life ? 3 * 4 : 40 + 2 * 4);
		assert_int_equal(stats_of(&w).disk_tokens, life ? 36 : 0);
		world_done(&w); /* writes what was not written yet */
	}
	assert_int_equal(c[3].done.n_cached, 36);
}

/* Every second page file is damaged: what can be read is used, the rest is computed, and all answers are right. */
static void damaged_pages_are_computed_again(void **state)
{
	enum { N = 8 };
	static struct client c[N];
	int32_t ids[N][40];
	struct world w;
	char cmd[256];

	(void)state;
	for (int life = 0; life < 3; life++) {
		world_on_disk(&w, 4, 40);
		for (int i = 0; i < N; i++) {
			struct eng_request req = greedy(&c[i], ids[i], 40, 4);

			prompt_of(ids[i], 40, 100 + (uint32_t)i / 2);
			ids[i][30] = i;
			client_init(&c[i]);
			submit(&w, &c[i], &req);
		}
		for (int i = 0; i < N; i++) {
			client_wait(&c[i]);
			expect_continuation(&w, ids[i], 40, &c[i], 4);
		}
		if (life == 1)
			assert_true(stats_of(&w).disk_pages_damaged > 0 && stats_of(&w).disk_tokens > 0);
		world_done(&w);
		(void)snprintf(
		        cmd, sizeof(cmd),
		        "for f in %s/*/*.kv; do n=$((n+1)); [ $((n %% 2)) = 0 ] && printf x | dd of=$f bs=1 seek=%d "
		        "conv=notrunc status=none; done; true",
		        cache_dir, 260);
		assert_int_equal(system(cmd), 0);
	}
}

static void cancelling_while_pages_are_read_frees_them(void **state)
{
	enum { N = 30 };
	static struct client c[N];
	int32_t ids[60];
	struct eng_request req;
	struct world w;

	(void)state;
	prompt_of(ids, 60, 9);
	world_on_disk(&w, 4, PAGES);
	client_init(&c[0]);
	req = greedy(&c[0], ids, 60, 1);
	submit(&w, &c[0], &req);
	client_wait(&c[0]);
	world_done(&w);
	world_on_disk(&w, 4, PAGES);
	for (int i = 0; i < N; i++) {
		client_init(&c[i]);
		req = greedy(&c[i], ids, 60, 1);
		submit(&w, &c[i], &req);
		if (i % 3 == 0)
			(void)usleep(50 * (useconds_t)i);
		eng_sched_cancel(w.s, c[i].id);
	}
	for (int i = 0; i < N; i++)
		client_wait(&c[i]);
	world_done(&w);
}

/* ---- Speculation ---- */

/* An answer that repeats itself: drafts are right, fewer steps are made, the tokens are the same. */
static void drafts_save_steps_and_change_nothing(void **state)
{
	static int32_t script[48];
	static struct client c[2];
	unsigned steps[2];

	(void)state;
	for (int i = 0; i < 48; i++)
		script[i] = 20 + i % 5;
	for (int off = 0; off < 2; off++) {
		const int32_t prompt[] = { 300, 2 };
		struct eng_request req;
		struct world w;

		world_init_as(&w, (struct eng_sched_config){ .max_running = 2, .max_queued = 4, .no_speculation = off },
		              PAGES);
		w.f.scripts[w.f.n_scripts++] = (struct fake_script){ 300, script, 48 };
		atomic_store(&w.f.delay_us, 1500); /* as long with drafts as without */
		client_init(&c[off]);
		req = greedy(&c[off], prompt, 2, 48);
		req.logprobs = true;
		submit(&w, &c[off], &req);
		client_wait(&c[off]);
		steps[off] = atomic_load(&w.f.n_steps);
		if (off == 0)
			assert_true(stats_of(&w).draft_hits > 5);
		else
			assert_int_equal(stats_of(&w).drafted_tokens, 0);
		world_done(&w);
	}
	assert_int_equal(steps[1], 48);
	assert_true(steps[0] < 43);
	assert_int_equal(c[0].n_ids, 48);
	assert_memory_equal(c[0].ids, c[1].ids, sizeof(script));
	assert_memory_equal(c[0].logprobs, c[1].logprobs, 48 * sizeof(float));
}

static void a_sampled_answer_is_the_same_with_drafts(void **state)
{
	static struct client c[2];
	static int32_t script[60];

	(void)state;
	for (int i = 0; i < 60; i++)
		script[i] = 20 + i % 3;
	for (int off = 0; off < 2; off++) {
		const int32_t prompt[] = { 300, 2 };
		struct eng_request req;
		struct world w;

		world_init_as(&w, (struct eng_sched_config){ .max_running = 2, .max_queued = 4, .no_speculation = off },
		              PAGES);
		w.f.scripts[w.f.n_scripts++] = (struct fake_script){ 300, script, 60 };
		atomic_store(&w.f.delay_us, 1500);
		client_init(&c[off]);
		req = greedy(&c[off], prompt, 2, 60);
		req.sampling.temperature = 0.8f; /* the script's token mostly, not always */
		req.sampling.has_seed = true;
		req.sampling.seed = 11;
		req.sampling.top_k = 3;
		submit(&w, &c[off], &req);
		client_wait(&c[off]);
		if (off == 0)
			assert_true(stats_of(&w).drafted_tokens > stats_of(&w).draft_hits &&
			            stats_of(&w).draft_hits > 0);
		world_done(&w);
	}
	assert_int_equal(c[0].n_ids, 60);
	assert_memory_equal(c[0].ids, c[1].ids, sizeof(script));
}

/* Random prompts over few tokens look alike everywhere, and the fake's next token is a hash: drafts fail. */
static void drafts_that_fail_become_rare(void **state)
{
	int32_t *tokens = calloc(4096, sizeof(*tokens)), guess[ENG_DRAFT_MAX];
	struct eng_draft *d;
	uint32_t n_drafts = 0;

	(void)state;
	assert_int_equal(eng_draft_new(4096, &d), 0);
	srand(3);
	for (uint32_t n = 1; n < 4096; n++) {
		uint32_t k;

		tokens[n - 1] = rand() % 3;
		k = eng_draft_make(d, tokens, n, 4, 0.05, guess);
		n_drafts += k > 0;
		if (k > 0)
			eng_draft_learn(d, k, 0);
	}
	assert_in_range(n_drafts, 3, 12); /* of 4,000 chances */
	assert_int_equal(eng_draft_make(d, tokens, 4095, 4, 1.0, guess), 0);
	eng_draft_free(d);
	free(tokens);
}

/* Pages that nobody needs give their memory back: all of them at once when the cache is flushed, the free ones when
 * nothing comes for a while. Cached ones stay. */
static void memory_of_free_pages_is_given_back(void **state)
{
	struct world w;
	struct client c;
	struct eng_request req;
	struct eng_stats st;
	int32_t ids[20];
	unsigned before;

	(void)state;
	world_init_as(&w, (struct eng_sched_config){ .max_running = 2, .max_queued = 4, .rest_ms = 20 }, PAGES);
	prompt_of(ids, 20, 3);
	for (int round = 0; round < 3; round++) {
		before = atomic_load(&w.f.n_discarded);
		client_init(&c);
		req = greedy(&c, ids, 20, 8);
		submit(&w, &c, &req);
		client_wait(&c);
		expect_continuation(&w, ids, 20, &c, 8);
		for (int ms = 0; ms < 120000 && atomic_load(&w.f.n_discarded) - before < PAGES - 27 / FAKE_PAGE; ms++)
			(void)usleep(1000);
		eng_sched_stats(w.s, &st);
		assert_int_equal(st.kv_pages_cached, 27 / FAKE_PAGE);
		assert_int_equal(atomic_load(&w.f.n_discarded) - before, PAGES - 27 / FAKE_PAGE);
	}
	assert_int_equal(st.cached_tokens, 2 * 16);
	before = atomic_load(&w.f.n_discarded);
	assert_int_equal(eng_sched_flush(w.s), 0);
	assert_int_equal(atomic_load(&w.f.n_discarded) - before, PAGES);
	world_done(&w);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_prompt_seen_before_is_not_computed_again),
		cmocka_unit_test(an_answer_is_cached_for_the_next_turn),
		cmocka_unit_test(prompt_logprobs_are_computed_although_the_prompt_is_cached),
		cmocka_unit_test(clients_with_one_prompt_have_it_computed_once),
		cmocka_unit_test(who_waits_for_a_prefix_goes_on_when_its_maker_is_cancelled),
		cmocka_unit_test(without_a_prefix_cache_everything_is_computed),
		cmocka_unit_test(answers_that_outgrow_the_pool_are_set_back_and_finish),
		cmocka_unit_test(a_sampled_answer_is_the_same_after_being_set_back),
		cmocka_unit_test(prompt_logprobs_come_once_although_set_back),
		cmocka_unit_test(a_long_prompt_does_not_stop_a_stream),
		cmocka_unit_test(a_short_prompt_is_not_stuck_behind_a_long_one),
		cmocka_unit_test(a_quiet_client_is_not_starved_by_a_loud_one),
		cmocka_unit_test(a_loud_client_leaves_a_quarter_of_the_queue),
		cmocka_unit_test(flushing_forgets_prefixes_but_not_under_load),
		cmocka_unit_test_setup_teardown(a_restart_finds_the_prompt_on_disk, make_cache_dir, remove_cache_dir),
		cmocka_unit_test_setup_teardown(damaged_pages_are_computed_again, make_cache_dir, remove_cache_dir),
		cmocka_unit_test_setup_teardown(cancelling_while_pages_are_read_frees_them, make_cache_dir,
		                                remove_cache_dir),
		cmocka_unit_test(drafts_save_steps_and_change_nothing),
		cmocka_unit_test(a_sampled_answer_is_the_same_with_drafts),
		cmocka_unit_test(drafts_that_fail_become_rare),
		cmocka_unit_test(memory_of_free_pages_is_given_back),
	};
	int failed = cmocka_run_group_tests_name("rows", tests, NULL, NULL);

	fake_picks = true;
	failed += cmocka_run_group_tests_name("picked", tests, NULL, NULL);
	fake_ahead = true;
	return failed + cmocka_run_group_tests_name("ahead", tests, NULL, NULL);
}
