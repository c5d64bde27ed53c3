/* The scheduler over a fake model: what is computed must not depend on batching, chunking or neighbours,
 * every request ends exactly once, and nobody waits for ever. */
#include <limits.h>
#include <pthread.h>

#include "sched_test.h"

static void many_requests_get_what_each_alone_would(void **state)
{
	enum { N = 40 };
	static struct client c[N];
	static int32_t prompts[N][40];
	size_t len[N];
	struct world w;

	(void)state;
	world_init(&w, 6, 100, PAGES);
	eng_sched_pause(w.s, ENG_SCHED_HOLD); /* until all are there */
	for (size_t i = 0; i < N; i++) {
		struct eng_request req;

		len[i] = 1 + (i * 7) % 40;
		prompt_of(prompts[i], len[i], (uint32_t)i);
		client_init(&c[i]);
		req = greedy(&c[i], prompts[i], len[i], 1 + (uint32_t)(i * 5) % 24);
		submit(&w, &c[i], &req);
	}
	eng_sched_continue(w.s);
	for (size_t i = 0; i < N; i++) {
		client_wait(&c[i]);
		expect_continuation(&w, prompts[i], len[i], &c[i], 1 + (i * 5) % 24);
		assert_int_equal(c[i].done.finish, ENG_FINISH_LENGTH);
		assert_int_equal(c[i].done.n_prompt, len[i]);
		assert_int_equal(c[i].done.n_output, c[i].n_ids);
		assert_int_equal(c[i].n_late, 0);
	}
	assert_in_range(atomic_load(&w.f.max_seqs), 2, 6);
	assert_true(atomic_load(&w.f.max_step_tokens) <= w.f.exec.max_tokens);
	world_done(&w);
}

static void a_prompt_longer_than_the_context_is_refused_with_the_counts(void **state)
{
	int32_t ids[CTX + 1] = { 0 };
	struct client c;
	struct eng_request req = greedy(&c, ids, CTX + 1, 1);
	struct err err = { 0 };
	struct world w;

	(void)state;
	client_init(&c);
	world_init(&w, 2, 4, PAGES);
	assert_int_equal(eng_sched_submit(w.s, &req, &c.id, &err), -EINVAL);
	assert_non_null(strstr(err.msg, "65"));
	assert_non_null(strstr(err.msg, "64"));
	world_done(&w);
}

static void output_is_clipped_to_the_context(void **state)
{
	int32_t ids[CTX];
	struct client a, b;
	struct eng_request req;
	struct world w;

	(void)state;
	world_init(&w, 2, 4, PAGES);
	prompt_of(ids, CTX, 3);
	client_init(&a);
	req = greedy(&a, ids, 60, 0); /* 0: up to the context */
	submit(&w, &a, &req);
	client_wait(&a);
	assert_int_equal(a.n_ids, 4);
	assert_int_equal(a.done.finish, ENG_FINISH_LENGTH);
	client_init(&b);
	req = greedy(&b, ids, CTX, 9); /* full already: the last row still gives one */
	submit(&w, &b, &req);
	client_wait(&b);
	expect_continuation(&w, ids, CTX, &b, 1);
	world_done(&w);
}

static void bad_requests_are_refused(void **state)
{
	const int32_t good[] = { 1 }, negative[] = { 1, -1 }, huge[] = { 1 << 30 };
	struct client c;
	struct eng_request req;
	struct world w;

	(void)state;
	client_init(&c);
	world_init(&w, 2, 4, PAGES);
	req = greedy(&c, good, 0, 1);
	assert_int_equal(eng_sched_submit(w.s, &req, &c.id, NULL), -EINVAL);
	req = greedy(&c, negative, 2, 1);
	assert_int_equal(eng_sched_submit(w.s, &req, &c.id, NULL), -EINVAL);
	req = greedy(&c, huge, 1, 1);
	assert_int_equal(eng_sched_submit(w.s, &req, &c.id, NULL), -EINVAL);
	req = greedy(&c, good, 1, 1);
	req.n_top = 21;
	assert_int_equal(eng_sched_submit(w.s, &req, &c.id, NULL), -EINVAL);
	world_done(&w);
}

static void a_full_queue_answers_busy_and_recovers(void **state)
{
	enum { N = 5 };
	const int32_t ids[] = { 1, 2, 3 };
	struct client c[N];
	struct eng_request req;
	struct eng_stats st;
	struct world w;
	int r = 0, n_busy = 0;

	(void)state;
	world_init(&w, 1, 2, PAGES);
	eng_sched_pause(w.s, ENG_SCHED_HOLD);
	for (int i = 0; i < N; i++) {
		client_init(&c[i]);
		req = greedy(&c[i], ids, 3, 30);
		r = eng_sched_submit(w.s, &req, &c[i].id, NULL);
		if (r == -EBUSY) {
			n_busy++;
			c[i].n_done = 1;
		} else {
			assert_int_equal(r, 0);
		}
	}
	assert_int_equal(n_busy, 3);
	eng_sched_continue(w.s);
	for (int i = 0; i < N; i++)
		client_wait(&c[i]);
	eng_sched_stats(w.s, &st);
	assert_int_equal(st.n_rejected, n_busy);
	client_init(&c[0]);
	req = greedy(&c[0], ids, 3, 2);
	submit(&w, &c[0], &req);
	client_wait(&c[0]);
	world_done(&w);
}

static void requests_wait_for_pages_and_all_finish(void **state)
{
	enum { N = 12 };
	struct client c[N];
	int32_t ids[N][20];
	struct eng_request req;
	struct world w;

	(void)state;
	world_init(&w, 8, 100, 16); /* 64 tokens of cache: three of these prompts at a time */
	for (int i = 0; i < N; i++) {
		prompt_of(ids[i], 20, 9 + (uint32_t)i);
		client_init(&c[i]);
		req = greedy(&c[i], ids[i], 20, 10);
		submit(&w, &c[i], &req);
	}
	for (int i = 0; i < N; i++) {
		client_wait(&c[i]);
		expect_continuation(&w, ids[i], 20, &c[i], 10);
	}
	assert_in_range(atomic_load(&w.f.max_seqs), 1, 3);
	world_done(&w);
}

static void cancelling_frees_at_once_and_is_idempotent(void **state)
{
	const int32_t ids[] = { 5, 6 };
	struct client a, b;
	struct eng_request req;
	struct world w;

	(void)state;
	world_init(&w, 1, 4, PAGES);
	atomic_store(&w.f.is_held, true);
	client_init(&a);
	client_init(&b);
	a.cancel_in = w.s;
	a.cancel_after = 3;
	req = greedy(&a, ids, 2, 60);
	submit(&w, &a, &req);
	req = greedy(&b, ids, 2, 60);
	submit(&w, &b, &req);
	eng_sched_cancel(w.s, b.id); /* still queued */
	eng_sched_cancel(w.s, b.id);
	eng_sched_cancel(w.s, 99999);
	atomic_store(&w.f.is_held, false);
	client_wait(&b);
	assert_int_equal(b.done.finish, ENG_FINISH_ABORT);
	assert_int_equal(b.n_ids, 0);
	client_wait(&a);
	assert_int_equal(a.done.finish, ENG_FINISH_ABORT);
	assert_int_equal(a.n_ids, 3);
	eng_sched_cancel(w.s, a.id);
	world_done(&w);
}

static void a_failed_step_ends_its_requests_and_not_the_scheduler(void **state)
{
	const int32_t bad[] = { 7, 400 }, good[] = { 7, 8 };
	struct client a, b;
	struct eng_request req;
	struct eng_stats st;
	struct world w;

	(void)state;
	world_init(&w, 2, 4, PAGES);
	atomic_store(&w.f.fail_on_id, 400);
	client_init(&a);
	req = greedy(&a, bad, 2, 5);
	submit(&w, &a, &req);
	client_wait(&a);
	assert_int_equal(a.done.finish, ENG_FINISH_ERROR);
	assert_string_equal(a.error, "the fake failed as told");
	client_init(&b);
	req = greedy(&b, good, 2, 5);
	submit(&w, &b, &req);
	client_wait(&b);
	assert_int_equal(b.n_done, 1);
	eng_sched_stats(w.s, &st);
	assert_int_equal(st.n_failed >= 1, 1);
	world_done(&w);
}

static void stop_strings_are_found_across_tokens_and_never_leak(void **state)
{
	static const struct {
		const char *text, *stops[3], *expect, *matched;
		bool include;
	} cases[] = {
		{ "one two three", { "two" }, "one ", "two", false },
		{ "one two three", { "two" }, "one two", "two", true },
		{ "one two three", { "xyz" }, "one two three", "", false },
		{ "aaab", { "aab" }, "a", "aab", false },
		{ "abcd tail", { "abcd", "bc" }, "a", "bc", false }, /* the one that ends first */
		{ "say <|en and <|end|> now", { "<|end|>", "" }, "say <|en and ", "<|end|>", false },
		{ "你好世界再见", { "世界" }, "你好", "世界", false },
		{ "tail <|e", { "<|end|>" }, "tail <|e", "", false }, /* a prefix at the end is text after all */
	};

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		const int32_t prompt[] = { 300, 2 };
		struct eng_ids ids = { 0 };
		struct eng_request req;
		struct client c;
		struct world w;

		world_init(&w, 2, 4, PAGES);
		script_text(&w, 300, cases[i].text, &ids);
		client_init(&c);
		req = greedy(&c, prompt, 2, (uint32_t)ids.n);
		req.stops = cases[i].stops;
		while (req.n_stops < 3 && cases[i].stops[req.n_stops])
			req.n_stops++;
		req.include_stop = cases[i].include;
		submit(&w, &c, &req);
		client_wait(&c);
		assert_string_equal(c.text, cases[i].expect);
		assert_string_equal(c.stop_text, cases[i].matched);
		assert_int_equal(c.done.finish, cases[i].matched[0] ? ENG_FINISH_STOP : ENG_FINISH_LENGTH);
		world_done(&w); /* what is in the air still reads the script */
		eng_ids_done(&ids);
	}
}

static void any_eos_or_stop_id_ends_the_output(void **state)
{
	static const int32_t script[] = { 10, 11, 501, 12, 500, 13, 77, 14 };
	static const struct {
		bool ignore_eos;
		uint32_t min_new;
		int32_t stop_id;
		int32_t expect_stop;
		size_t n;
	} cases[] = {
		{ false, 0, -1, 501, 3 }, { true, 0, -1, -1, 8 }, { true, 0, 77, 77, 7 },
		{ false, 0, 11, 11, 2 },  { true, 5, 10, -1, 8 }, /* min_new forbids the id before it counts */
	};

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		const int32_t prompt[] = { 300, 2 };
		struct eng_request req;
		struct client c;
		struct world w;

		world_init(&w, 2, 4, PAGES);
		w.f.scripts[w.f.n_scripts++] = (struct fake_script){ 300, script, 8 };
		client_init(&c);
		req = greedy(&c, prompt, 2, 8);
		req.ignore_eos = cases[i].ignore_eos;
		req.min_new = cases[i].min_new;
		req.stop_ids = &cases[i].stop_id;
		req.n_stop_ids = cases[i].stop_id >= 0;
		submit(&w, &c, &req);
		client_wait(&c);
		assert_int_equal(c.n_ids, cases[i].n);
		assert_int_equal(c.done.stop_id, cases[i].expect_stop);
		assert_int_equal(c.done.finish, cases[i].expect_stop >= 0 ? ENG_FINISH_STOP : ENG_FINISH_LENGTH);
		for (uint32_t k = 0; k < cases[i].min_new; k++)
			assert_true(cases[i].stop_id < 0 || c.ids[k] != cases[i].stop_id);
		world_done(&w);
	}
}

static void prompt_logprobs_cover_the_range_whatever_the_chunks(void **state)
{
	static const int64_t starts[] = { 0, 1, 2, 17, 38, 39, 40, -1 };
	int32_t ids[40];

	(void)state;
	prompt_of(ids, 40, 77);
	for (size_t i = 0; i < sizeof(starts) / sizeof(starts[0]); i++) {
		struct eng_request req;
		struct client c;
		struct world w;
		float *row;
		size_t first;

		world_init(&w, 3, 4, PAGES);
		row = calloc(w.f.exec.n_vocab, sizeof(*row));
		client_init(&c);
		req = greedy(&c, ids, 40, 2);
		req.logprob_start = starts[i];
		req.logprobs = true;
		req.n_top = 3;
		submit(&w, &c, &req);
		client_wait(&c);
		first = starts[i] < 0 || starts[i] > 40 ? 40 : (size_t)starts[i];
		assert_int_equal(c.n_prompt, 40 - first);
		for (size_t k = 0; k < c.n_prompt; k++) {
			size_t pos = first + k;

			assert_int_equal(c.prompt_pos[k], pos);
			assert_int_equal(c.prompt_ids[k], ids[pos]);
			if (pos == 0) {
				assert_false(c.first_prompt_has_logprob);
				continue;
			}
			fake_logits(&w.f, ids, (uint32_t)pos, row);
			assert_float_equal(c.prompt_logprobs[k], eng_logprobs(row, w.f.exec.n_vocab, ids[pos], 0, NULL),
			                   1e-5);
		}
		expect_continuation(&w, ids, 40, &c, 2);
		assert_int_equal(c.top_ids[0], c.ids[0]);
		assert_true(c.logprobs[0] < 0 && c.logprobs[0] > -3);
		free(row);
		world_done(&w);
	}
}

static void embeddings_are_unit_vectors_beside_generation(void **state)
{
	enum { N = 6 };
	struct client e[N], g[N];
	int32_t ids[30];
	struct world w;

	(void)state;
	world_init(&w, 4, 100, PAGES);
	prompt_of(ids, 30, 5);
	for (int i = 0; i < N; i++) {
		struct eng_request req = greedy(&g[i], ids, 20, 8);

		client_init(&g[i]);
		client_init(&e[i]);
		submit(&w, &g[i], &req);
		req = greedy(&e[i], ids, 30, 0);
		req.kind = ENG_EMBED;
		submit(&w, &e[i], &req);
	}
	for (int i = 0; i < N; i++) {
		float row[FAKE_EMBD];
		double norm = 0, len = 0;

		client_wait(&e[i]);
		client_wait(&g[i]);
		expect_continuation(&w, ids, 20, &g[i], 8);
		assert_int_equal(e[i].n_embedding, FAKE_EMBD);
		assert_int_equal(e[i].done.finish, ENG_FINISH_STOP);
		fake_hidden(ids, 30, row);
		for (int k = 0; k < FAKE_EMBD; k++) {
			norm += (double)row[k] * row[k];
			len += (double)e[i].embedding[k] * e[i].embedding[k];
		}
		assert_float_equal(len, 1, 1e-5);
		for (int k = 0; k < FAKE_EMBD; k++)
			assert_float_equal(e[i].embedding[k], row[k] / sqrt(norm), 1e-5);
	}
	world_done(&w);
}

static void check_pooled(struct world *w, enum eng_pooling pooling, const int32_t *ids, uint32_t n)
{
	struct client c;
	struct eng_request req = greedy(&c, ids, n, 0);
	double sum[FAKE_EMBD] = { 0 }, norm = 0;
	float row[FAKE_EMBD];

	req.kind = ENG_EMBED;
	client_init(&c);
	submit(w, &c, &req);
	client_wait(&c);
	assert_int_equal(c.done.finish, ENG_FINISH_STOP);
	for (uint32_t k = 1; k <= n; k++) {
		fake_hidden(ids, k, row);
		for (int d = 0; d < FAKE_EMBD; d++)
			sum[d] += pooling == ENG_POOL_MEAN || k == 1 ? row[d] : 0;
	}
	for (int d = 0; d < FAKE_EMBD; d++)
		norm += sum[d] * sum[d];
	for (int d = 0; d < FAKE_EMBD; d++)
		assert_float_equal(c.embedding[d], sum[d] / sqrt(norm), 1e-5);
}

/* Over chunks of as many tokens as a step gives rows (8), or all at once, as encoders need it. */
static void embeddings_are_pooled(void **state)
{
	static const enum eng_pooling kinds[] = { ENG_POOL_MEAN, ENG_POOL_CLS };
	int32_t ids[30];

	(void)state;
	prompt_of(ids, 30, 5);
	for (size_t i = 0; i < 4; i++) {
		struct eng_sched_config config = { .max_running = 4, .max_queued = 100 };
		bool whole = i >= 2;
		struct world w;

		config.pooling = kinds[i % 2];
		config.whole_prompts = whole;
		world_init_as(&w, config, PAGES);
		check_pooled(&w, config.pooling, ids, whole ? 8 : 30);
		if (whole)
			assert_int_equal(atomic_load(&w.f.n_steps), 1);
		check_pooled(&w, config.pooling, ids, 7); /* a prefix of what is in the cache */
		world_done(&w);
	}
}

static void drain_finishes_the_running_and_refuses_the_new(void **state)
{
	const int32_t ids[] = { 1, 2 };
	struct client a;
	struct eng_request req;
	struct err err = { 0 };
	struct world w;

	(void)state;
	world_init(&w, 2, 4, PAGES);
	atomic_store(&w.f.is_held, true);
	client_init(&a);
	req = greedy(&a, ids, 2, 20);
	submit(&w, &a, &req);
	assert_int_equal(eng_sched_drain(w.s, 1), -ETIMEDOUT);
	assert_int_equal(eng_sched_submit(w.s, &req, &a.id, &err), -ESHUTDOWN);
	atomic_store(&w.f.is_held, false);
	assert_int_equal(eng_sched_drain(w.s, 300000), 0);
	assert_int_equal(a.n_done, 1);
	assert_int_equal(a.n_ids, 20);
	world_done(&w);
}

static void freeing_aborts_what_still_runs(void **state)
{
	enum { N = 4 };
	const int32_t ids[] = { 1, 2 };
	struct client c[N];
	struct eng_request req;
	struct world w;

	(void)state;
	world_init(&w, 2, 4, PAGES);
	atomic_store(&w.f.delay_us, 20000);
	for (int i = 0; i < N; i++) {
		client_init(&c[i]);
		req = greedy(&c[i], ids, 2, 60);
		submit(&w, &c[i], &req);
	}
	eng_sched_free(w.s);
	for (int i = 0; i < N; i++) {
		assert_int_equal(c[i].n_done, 1);
		assert_int_equal(c[i].done.finish, ENG_FINISH_ABORT);
	}
	eng_tokenizer_free(w.tok);
	fake_done(&w.f);
}

static void the_same_seed_repeats_beside_different_neighbours(void **state)
{
	const int32_t ids[] = { 9, 8, 7 };
	struct client a, b, noise[3];
	struct eng_request req;
	struct world w;

	(void)state;
	world_init(&w, 5, 10, PAGES);
	for (int round = 0; round < 2; round++) {
		struct client *c = round ? &b : &a;

		for (int i = 0; i < 3 && round; i++) {
			client_init(&noise[i]);
			req = greedy(&noise[i], ids, 2 + (size_t)i % 2, 20);
			submit(&w, &noise[i], &req);
		}
		client_init(c);
		req = greedy(c, ids, 3, 20);
		req.sampling.temperature = 3;
		req.sampling.has_seed = true;
		req.sampling.seed = 7;
		submit(&w, c, &req);
		client_wait(c);
	}
	for (int i = 0; i < 3; i++)
		client_wait(&noise[i]);
	assert_memory_equal(a.ids, b.ids, 20 * sizeof(*a.ids));
	world_done(&w);
}

static void an_idle_scheduler_uses_no_cpu(void **state)
{
	struct timespec before, after;
	long used_ns = LONG_MAX;
	struct world w;

	(void)state;
	world_init(&w, 2, 4, PAGES);
	/* It may still be beginning; who wakes up again and again does so every time. */
	for (int i = 0; i < 20 && used_ns >= 3000000; i++) {
		(void)clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &before);
		(void)usleep(300000);
		(void)clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &after);
		used_ns = (after.tv_sec - before.tv_sec) * 1000000000L + after.tv_nsec - before.tv_nsec;
	}
	assert_true(used_ns < 3000000);
	assert_int_equal(atomic_load(&w.f.n_steps), 0);
	world_done(&w);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(many_requests_get_what_each_alone_would),
		cmocka_unit_test(a_prompt_longer_than_the_context_is_refused_with_the_counts),
		cmocka_unit_test(output_is_clipped_to_the_context),
		cmocka_unit_test(bad_requests_are_refused),
		cmocka_unit_test(a_full_queue_answers_busy_and_recovers),
		cmocka_unit_test(requests_wait_for_pages_and_all_finish),
		cmocka_unit_test(cancelling_frees_at_once_and_is_idempotent),
		cmocka_unit_test(a_failed_step_ends_its_requests_and_not_the_scheduler),
		cmocka_unit_test(stop_strings_are_found_across_tokens_and_never_leak),
		cmocka_unit_test(any_eos_or_stop_id_ends_the_output),
		cmocka_unit_test(prompt_logprobs_cover_the_range_whatever_the_chunks),
		cmocka_unit_test(embeddings_are_unit_vectors_beside_generation),
		cmocka_unit_test(embeddings_are_pooled),
		cmocka_unit_test(drain_finishes_the_running_and_refuses_the_new),
		cmocka_unit_test(freeing_aborts_what_still_runs),
		cmocka_unit_test(the_same_seed_repeats_beside_different_neighbours),
		cmocka_unit_test(an_idle_scheduler_uses_no_cpu),
	};
	int failed = cmocka_run_group_tests_name("rows", tests, NULL, NULL);

	fake_picks = true;
	failed += cmocka_run_group_tests_name("picked", tests, NULL, NULL);
	fake_ahead = true;
	return failed + cmocka_run_group_tests_name("ahead", tests, NULL, NULL);
}
