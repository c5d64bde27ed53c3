/* Tokens taken from what a backend picked of a row are those that the whole row would have given. */
#include <math.h>

#include "kernels.h"
#include "sampler/sampler.h"
#include "test.h"

enum { V = 3000, STEPS = 40 };

static struct kn_backend *be;
static float logits[V];
static unsigned n_fetched;

static int open_backend(void **state)
{
	(void)state;
	return kn_ref_open(&(struct kn_config){ 0 }, &be, NULL);
}

static int close_backend(void **state)
{
	(void)state;
	kn_backend_close(be);
	return 0;
}

/* Sums of uniform numbers; `spread` says how far the best stand out. */
static void fill(uint32_t seed, float spread)
{
	for (uint32_t i = 0; i < V; i++) {
		float sum = 0;

		for (int k = 0; k < 6; k++) {
			seed = seed * 1664525u + 1013904223u;
			sum += (float)(seed >> 8) / (float)(1 << 24) - 0.5f;
		}
		logits[i] = sum * spread;
	}
}

static const float *fetch(void *ctx, uint32_t index)
{
	(void)ctx;
	(void)index;
	n_fetched++;
	return logits;
}

static struct eng_row pick(const struct eng_sampler *s, struct kn_best *best, struct kn_picked *picked, uint32_t n_top)
{
	struct eng_row row = { .fetch = fetch, .n_best = n_top };
	struct kn_pick p;

	if (!eng_sampler_wants(s, 0, 1, &p))
		return row;
	be->ops->pick(be, logits, V, 1, V, 0, &p, row.n_best, best, picked);
	row.best = best;
	row.picked = picked;
	return row;
}

/* The same request twice: from whole rows and from picked ones. How many rows had to be fetched. */
static unsigned compare(const struct eng_sampling *p, float spread, uint32_t n_top)
{
	struct eng_sampler *a = NULL, *b = NULL;
	struct kn_best best[KN_MAX_BEST];
	struct kn_picked picked;

	n_fetched = 0;
	assert_int_equal(eng_sampler_new(p, V, &a), 0);
	assert_int_equal(eng_sampler_new(p, V, &b), 0);
	for (uint32_t i = 0; i < STEPS; i++) {
		struct eng_top top_a[20], top_b[20];
		struct eng_row row;
		float lp_a, lp_b;
		int32_t id;

		fill(i * 977 + 5, spread);
		row = pick(b, best, &picked, n_top);
		id = eng_sampler_pick(a, logits);
		assert_int_equal(eng_sampler_pick_row(b, &row), id);
		lp_a = eng_logprobs(logits, V, id, n_top, top_a);
		lp_b = eng_row_logprobs(&row, V, id, n_top, top_b);
		assert_true(fabsf(lp_a - lp_b) < 1e-5f);
		for (uint32_t k = 0; k < n_top; k++) {
			assert_int_equal(top_a[k].id, top_b[k].id);
			assert_true(fabsf(top_a[k].logprob - top_b[k].logprob) < 1e-5f);
		}
		eng_sampler_accept(a, id, true);
		eng_sampler_accept(b, id, true);
	}
	eng_sampler_free(a);
	eng_sampler_free(b);
	return n_fetched;
}

static struct eng_sampling sampling(float temperature, float top_p, uint32_t top_k, float min_p)
{
	return (struct eng_sampling){ .temperature = temperature,
		                      .top_p = top_p,
		                      .top_k = top_k,
		                      .min_p = min_p,
		                      .repetition_penalty = 1,
		                      .has_seed = true,
		                      .seed = 11 };
}

static void picked_rows_suffice_where_they_can(void **state)
{
	const struct eng_sampling cases[] = {
		sampling(0, 1, 0, 0),       sampling(1, 1, 0, 0),         sampling(0.7f, 1, 0, 0),
		sampling(1, 1, 20, 0),      sampling(0.6f, 0.95f, 20, 0), sampling(1, 0.5f, 256, 0.01f),
		sampling(0.5f, 0.9f, 0, 0), sampling(0.5f, 1, 0, 0.1f),   sampling(0.5f, 0.8f, 0, 0.05f),
	};

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++)
		assert_int_equal(compare(&cases[i], 8, 0), 0);
}

static void a_flat_row_is_drawn_from_where_it_is(void **state)
{
	const struct eng_sampling cases[] = {
		sampling(2, 0.95f, 0, 0),
		sampling(2, 1, 0, 0.05f),
		sampling(2, 0.9f, 0, 0.02f),
		sampling(9, 0.5f, 0, 0),
	};

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++)
		assert_int_equal(compare(&cases[i], 0.5f, 0), 0);
}

static void what_alters_logits_asks_for_rows(void **state)
{
	const struct eng_logit_bias bias = { .id = 3, .bias = 4 };
	struct eng_sampling p = sampling(1, 1, 0, 0);

	(void)state;
	p.presence_penalty = 1;
	assert_int_equal(compare(&p, 8, 0), STEPS);
	p = sampling(1, 1, 300, 0); /* more than is ever picked */
	assert_int_equal(compare(&p, 8, 0), STEPS);
	p = sampling(0, 1, 0, 0);
	p.logit_bias = &bias;
	p.n_logit_bias = 1;
	assert_int_equal(compare(&p, 8, 0), STEPS);
}

static void logprobs_come_with_the_picked(void **state)
{
	const struct eng_sampling greedy = sampling(0, 1, 0, 0), free = sampling(1, 1, 0, 0);

	(void)state;
	assert_int_equal(compare(&greedy, 8, 5), 0);
	assert_int_equal(compare(&free, 8, 20), 0);
	assert_int_equal(compare(&free, 0.5f, 0), 0); /* drawn from anywhere, its logit comes along */
}

static void wanting_draws_no_random_numbers(void **state)
{
	const struct eng_sampling p = sampling(1, 1, 0, 0);
	struct eng_sampler *s = NULL;
	struct kn_pick a[4], b[4];

	(void)state;
	assert_int_equal(eng_sampler_new(&p, V, &s), 0);
	assert_true(eng_sampler_wants(s, 0, 4, a) && eng_sampler_wants(s, 0, 4, b));
	for (int i = 0; i < 4; i++)
		assert_true(a[i].unit == b[i].unit && a[i].unit >= 0 && a[i].unit < 1);
	/* Of tokens that are picked but not taken yet. */
	assert_true(eng_sampler_wants(s, 1, 3, b));
	for (int i = 0; i < 3; i++)
		assert_true(a[i + 1].unit == b[i].unit);
	fill(1, 8);
	(void)eng_sampler_pick(s, logits);
	assert_true(eng_sampler_wants(s, 0, 3, b));
	for (int i = 0; i < 3; i++)
		assert_true(a[i + 1].unit == b[i].unit);
	eng_sampler_free(s);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(picked_rows_suffice_where_they_can),
		cmocka_unit_test(a_flat_row_is_drawn_from_where_it_is),
		cmocka_unit_test(what_alters_logits_asks_for_rows),
		cmocka_unit_test(logprobs_come_with_the_picked),
		cmocka_unit_test(wanting_draws_no_random_numbers),
	};

	return cmocka_run_group_tests(tests, open_backend, close_backend);
}
