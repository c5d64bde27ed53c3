/* Properties of the sampler: what may be drawn, how often, and that the same seed draws the same. */
#include "sampler/sampler.h"

#include <float.h>
#include <math.h>

#include "test.h"

enum { N = 8 };

static const float logits8[N] = { 0.5f, 2.0f, -1.0f, 1.0f, 0.0f, -3.0f, 1.5f, -0.5f };

static struct eng_sampling plain(float temperature)
{
	return (struct eng_sampling){
		.temperature = temperature, .top_p = 1, .repetition_penalty = 1, .has_seed = true, .seed = 42
	};
}

/* Counts of `draws` picks. */
static void draw_many(const struct eng_sampling *p, const float *logits, uint32_t n, unsigned draws, unsigned *counts)
{
	struct eng_sampler *s = NULL;

	memset(counts, 0, n * sizeof(*counts));
	assert_int_equal(eng_sampler_new(p, n, &s), 0);
	for (unsigned i = 0; i < draws; i++) {
		int32_t id = eng_sampler_pick(s, logits);

		assert_in_range(id, 0, n - 1);
		counts[id]++;
	}
	eng_sampler_free(s);
}

static void greedy_takes_the_highest_and_the_lowest_id_of_a_tie(void **state)
{
	const float tied[4] = { 1, 3, 3, 2 };
	struct eng_sampling p = plain(0);
	unsigned counts[4];

	(void)state;
	draw_many(&p, tied, 4, 10, counts);
	assert_int_equal(counts[1], 10);
}

static void draws_follow_the_softmax(void **state)
{
	enum { DRAWS = 200000 };
	static const float temps[] = { 0.5f, 1.0f, 2.0f };
	unsigned counts[N];

	(void)state;
	for (size_t t = 0; t < 3; t++) {
		struct eng_sampling p = plain(temps[t]);
		double sum = 0, chi2 = 0;

		draw_many(&p, logits8, N, DRAWS, counts);
		for (int i = 0; i < N; i++)
			sum += exp(logits8[i] / temps[t]);
		for (int i = 0; i < N; i++) {
			double expect = DRAWS * exp(logits8[i] / temps[t]) / sum;

			chi2 += (counts[i] - expect) * (counts[i] - expect) / expect;
		}
		/* 7 degrees of freedom: 1 in 10^5 beyond 35. The seed is fixed, so this never flickers. */
		assert_true(chi2 < 35);
	}
}

static void the_same_seed_draws_the_same_and_another_differs(void **state)
{
	struct eng_sampling p = plain(1);
	struct eng_sampler *a = NULL, *b = NULL, *c = NULL;
	unsigned differ = 0;

	(void)state;
	assert_int_equal(eng_sampler_new(&p, N, &a), 0);
	assert_int_equal(eng_sampler_new(&p, N, &b), 0);
	p.seed = 43;
	assert_int_equal(eng_sampler_new(&p, N, &c), 0);
	for (int i = 0; i < 200; i++) {
		int32_t x = eng_sampler_pick(a, logits8);

		assert_int_equal(x, eng_sampler_pick(b, logits8));
		differ += x != eng_sampler_pick(c, logits8);
	}
	assert_true(differ > 50);
	eng_sampler_free(a);
	eng_sampler_free(b);
	eng_sampler_free(c);
}

static void top_k_limits_the_choice(void **state)
{
	struct eng_sampling p = plain(5);
	unsigned counts[N];

	(void)state;
	p.top_k = 3; /* ids 1, 6, 3 */
	draw_many(&p, logits8, N, 2000, counts);
	assert_int_equal(counts[1] + counts[6] + counts[3], 2000);
	assert_true(counts[1] && counts[6] && counts[3]);
	p.top_k = 1;
	draw_many(&p, logits8, N, 100, counts);
	assert_int_equal(counts[1], 100);
	p.top_k = 1000; /* more than there are: off */
	draw_many(&p, logits8, N, 5000, counts);
	for (int i = 0; i < N; i++)
		assert_true(counts[i] > 0);
}

static void top_p_keeps_the_smallest_set_that_reaches_it(void **state)
{
	/* probabilities 0.5, 0.25, 0.125, 0.125 */
	const float l[4] = { logf(0.125f), logf(0.5f), logf(0.125f), logf(0.25f) };
	struct eng_sampling p = plain(1);
	unsigned counts[4];

	(void)state;
	p.top_p = 0.6f;
	draw_many(&p, l, 4, 3000, counts);
	assert_int_equal(counts[0] + counts[2], 0);
	assert_true(counts[1] > 1800 && counts[3] > 800);
	p.top_p = 0.0f; /* the best alone */
	draw_many(&p, l, 4, 100, counts);
	assert_int_equal(counts[1], 100);
}

static void top_p_over_a_flat_large_vocabulary_is_exact(void **state)
{
	enum { V = 5000 };
	static float flat[V];
	static unsigned counts[V];
	struct eng_sampling p = plain(1);
	unsigned distinct = 0;

	(void)state;
	p.top_p = 0.5f;
	draw_many(&p, flat, V, 60000, counts);
	for (int i = 0; i < V; i++) {
		distinct += counts[i] > 0;
		if (i >= V / 2 + 2)
			assert_int_equal(counts[i], 0); /* ties go to the lowest ids */
	}
	assert_true(distinct > V / 2 - 10);
}

static void min_p_drops_what_is_far_below_the_best(void **state)
{
	const float l[4] = { logf(0.5f), logf(0.3f), logf(0.15f), logf(0.05f) };
	struct eng_sampling p = plain(1);
	unsigned counts[4];

	(void)state;
	p.min_p = 0.5f; /* keeps p >= 0.25 */
	draw_many(&p, l, 4, 2000, counts);
	assert_int_equal(counts[2] + counts[3], 0);
	assert_true(counts[1] > 500);
	p.min_p = 1.0f;
	draw_many(&p, l, 4, 100, counts);
	assert_int_equal(counts[0], 100);
}

static void broken_logits_never_crash_and_give_a_valid_id(void **state)
{
	float l[4] = { NAN, NAN, NAN, NAN };
	struct eng_sampling p = plain(1);
	unsigned counts[4];

	(void)state;
	p.top_k = 2;
	p.top_p = 0.9f;
	p.min_p = 0.1f;
	draw_many(&p, l, 4, 10, counts);
	l[2] = 1;
	draw_many(&p, l, 4, 10, counts);
	assert_int_equal(counts[2], 10); /* NaN is never drawn */
	l[1] = INFINITY;
	draw_many(&p, l, 4, 10, counts);
	assert_int_equal(counts[1], 10);
	for (int i = 0; i < 4; i++)
		l[i] = -INFINITY;
	draw_many(&p, l, 4, 10, counts);
	p.temperature = FLT_MIN;
	l[3] = FLT_MAX;
	l[0] = -FLT_MAX;
	draw_many(&p, l, 4, 10, counts);
	assert_int_equal(counts[3], 10);
}

static void logit_bias_forces_and_forbids(void **state)
{
	const struct eng_logit_bias bias[] = { { 5, 100 }, { 1, -100 }, { -4, 100 }, { 99999, 100 } };
	struct eng_sampling p = plain(0);
	unsigned counts[N];

	(void)state;
	p.logit_bias = bias;
	p.n_logit_bias = 4;
	draw_many(&p, logits8, N, 5, counts);
	assert_int_equal(counts[5], 5);
	p.logit_bias = bias + 1;
	p.n_logit_bias = 1;
	draw_many(&p, logits8, N, 5, counts);
	assert_int_equal(counts[6], 5);
}

static void penalties_count_prompt_and_output_as_each_says(void **state)
{
	const float l[3] = { 2.0f, 1.5f, -1.0f };
	struct eng_sampling p = plain(0);
	struct eng_sampler *s = NULL;

	(void)state;
	p.presence_penalty = 1.0f;
	assert_int_equal(eng_sampler_new(&p, 3, &s), 0);
	eng_sampler_accept(s, 0, false); /* the prompt does not count */
	assert_int_equal(eng_sampler_pick(s, l), 0);
	eng_sampler_accept(s, 0, true);
	assert_int_equal(eng_sampler_pick(s, l), 1);
	eng_sampler_accept(s, 77, true); /* unknown ids are nothing */
	eng_sampler_free(s);

	p.presence_penalty = 0;
	p.repetition_penalty = 2.0f;
	assert_int_equal(eng_sampler_new(&p, 3, &s), 0);
	eng_sampler_accept(s, 0, false); /* 2 -> 1: the prompt counts here */
	assert_int_equal(eng_sampler_pick(s, l), 1);
	eng_sampler_free(s);

	p.repetition_penalty = 1.0f;
	p.frequency_penalty = 0.3f;
	assert_int_equal(eng_sampler_new(&p, 3, &s), 0);
	eng_sampler_accept(s, 0, true);
	assert_int_equal(eng_sampler_pick(s, l), 0); /* 1.7 */
	eng_sampler_accept(s, 0, true);
	assert_int_equal(eng_sampler_pick(s, l), 1); /* 1.4 */
	eng_sampler_free(s);
}

static void logprobs_are_the_log_softmax_best_first(void **state)
{
	struct eng_top top[N + 2];
	double sum = 0;
	float lp;

	(void)state;
	for (int i = 0; i < N; i++)
		sum += exp(logits8[i]);
	lp = eng_logprobs(logits8, N, 3, N + 2, top);
	assert_float_equal(lp, logits8[3] - log(sum), 1e-6);
	assert_int_equal(top[0].id, 1);
	assert_int_equal(top[1].id, 6);
	assert_int_equal(top[7].id, 5);
	assert_int_equal(top[8].id, -1); /* fewer than asked for */
	for (int i = 0; i < N; i++) {
		assert_float_equal(top[i].logprob, logits8[top[i].id] - log(sum), 1e-6);
		assert_true(i == 0 || top[i - 1].logprob >= top[i].logprob);
	}
}

static void logprobs_of_some_ids_are_those_of_each(void **state)
{
	const int32_t ids[] = { 5, 1, 1, 0, 7 };
	const struct eng_sampling kinds[] = { plain(0), plain(0.7f), plain(1.3f) };
	float raw[5], own[5];

	(void)state;
	eng_logprobs_of(logits8, N, ids, 5, raw);
	for (int i = 0; i < 5; i++)
		assert_float_equal(raw[i], eng_logprobs(logits8, N, ids[i], 0, NULL), 0);
	for (int k = 0; k < 3; k++) {
		struct eng_sampling p = kinds[k];
		struct eng_sampler *s;

		p.top_k = 3;
		assert_int_equal(eng_sampler_new(&p, N, &s), 0);
		eng_sampler_logprobs_of(s, logits8, ids, 5, own);
		for (int i = 0; i < 5; i++) {
			float one = eng_sampler_logprobs(s, logits8, ids[i], 0, NULL);

			assert_true(own[i] == one || fabsf(own[i] - one) < 1e-6f);
		}
		eng_sampler_free(s);
	}
}

static void logprobs_of_ties_go_to_the_lowest_id(void **state)
{
	const float l[5] = { 0, 1, 1, 1, 0 };
	struct eng_top top[2];

	(void)state;
	(void)eng_logprobs(l, 5, 0, 2, top);
	assert_int_equal(top[0].id, 1);
	assert_int_equal(top[1].id, 2);
}

static void logprobs_of_huge_logits_stay_finite(void **state)
{
	const float l[3] = { 3e38f, 3e38f, -3e38f };

	(void)state;
	assert_float_equal(eng_logprobs(l, 3, 0, 0, NULL), -logf(2), 1e32); /* float spacing up there is 2e31 */
	assert_true(isfinite(eng_logprobs(l, 3, 1, 0, NULL)));
}

/* The frequencies of many draws are the probabilities that were told, and those sum to one. */
static void processed_logprobs_are_those_of_the_draw(void **state)
{
	enum { DRAWS = 200000 };
	static unsigned counts[N];
	struct eng_sampling p = plain(0.7f);
	const struct eng_logit_bias bias = { 4, 1.5f };
	struct eng_sampler *s;
	struct eng_top top[N];
	double sum = 0;

	(void)state;
	p.top_k = 5;
	p.min_p = 0.1f;
	p.presence_penalty = 0.8f;
	p.logit_bias = &bias;
	p.n_logit_bias = 1;
	assert_int_equal(eng_sampler_new(&p, N, &s), 0);
	eng_sampler_accept(s, 1, true);
	for (int i = 0; i < DRAWS; i++)
		counts[eng_sampler_pick(s, logits8)]++;
	for (int32_t id = 0; id < N; id++) {
		double prob = exp((double)eng_sampler_logprobs(s, logits8, id, N, top));

		assert_float_equal((double)counts[id] / DRAWS, prob, 0.006);
		sum += prob;
	}
	assert_float_equal(sum, 1, 1e-5);
	for (int i = 0; i < N; i++) {
		assert_true(i == 0 || top[i].logprob <= top[i - 1].logprob);
		assert_true(top[i].id < 0 || counts[top[i].id] > 0);
	}
	/* The penalty moved the raw favourite, 1, behind 4 and 6. */
	assert_true(top[0].id != 1);
	eng_sampler_free(s);
}

static void processed_logprobs_of_a_greedy_choice_are_certain(void **state)
{
	struct eng_sampling p = plain(0);
	struct eng_sampler *s;
	struct eng_top top[2];

	(void)state;
	assert_int_equal(eng_sampler_new(&p, N, &s), 0);
	assert_float_equal(eng_sampler_logprobs(s, logits8, 1, 2, top), 0, 0);
	assert_int_equal(top[0].id, 1);
	assert_int_equal(top[1].id, -1);
	assert_true(eng_sampler_logprobs(s, logits8, 0, 0, NULL) == -INFINITY);
	eng_sampler_free(s);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(greedy_takes_the_highest_and_the_lowest_id_of_a_tie),
		cmocka_unit_test(draws_follow_the_softmax),
		cmocka_unit_test(the_same_seed_draws_the_same_and_another_differs),
		cmocka_unit_test(top_k_limits_the_choice),
		cmocka_unit_test(top_p_keeps_the_smallest_set_that_reaches_it),
		cmocka_unit_test(top_p_over_a_flat_large_vocabulary_is_exact),
		cmocka_unit_test(min_p_drops_what_is_far_below_the_best),
		cmocka_unit_test(broken_logits_never_crash_and_give_a_valid_id),
		cmocka_unit_test(logit_bias_forces_and_forbids),
		cmocka_unit_test(penalties_count_prompt_and_output_as_each_says),
		cmocka_unit_test(logprobs_are_the_log_softmax_best_first),
		cmocka_unit_test(logprobs_of_some_ids_are_those_of_each),
		cmocka_unit_test(logprobs_of_ties_go_to_the_lowest_id),
		cmocka_unit_test(logprobs_of_huge_logits_stay_finite),
		cmocka_unit_test(processed_logprobs_are_those_of_the_draw),
		cmocka_unit_test(processed_logprobs_of_a_greedy_choice_are_certain),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
