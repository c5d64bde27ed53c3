/* What the reference backend picks of rows of logits. */
#include <float.h>
#include <math.h>

#include "kernels.h"
#include "test.h"

static struct kn_backend *be;

static int open_backend(void **state)
{
	const struct kn_config config = { .max_tokens = 8 };

	(void)state;
	return kn_ref_open(&config, &be, NULL);
}

static int close_backend(void **state)
{
	(void)state;
	kn_backend_close(be);
	return 0;
}

static void assert_close(double a, double b)
{
	if (!(fabs(a - b) <= 1e-6 * (1 + fabs(b))))
		fail_msg("%.9g is not %.9g", a, b);
}

static void the_best_come_in_order_and_ties_by_id(void **state)
{
	const float rows[2][6] = { { 1, 3, 2, 3, 0, 2 }, { -1, -2, NAN, -INFINITY, -2, -1 } };
	const struct kn_pick picks[2] = { { 0 } };
	const int32_t want[2][5] = { { 1, 3, 2, 5, 0 }, { 0, 5, 1, 4, -1 } };
	struct kn_best best[2][5];
	struct kn_picked got[2];

	(void)state;
	be->ops->pick(be, rows[0], 6, 2, 6, 0, picks, 5, best[0], got);
	for (int i = 0; i < 2; i++) {
		for (int k = 0; k < 5; k++) {
			assert_int_equal(best[i][k].id, want[i][k]);
			if (want[i][k] >= 0)
				assert_true(best[i][k].logit == rows[i][want[i][k]]);
		}
		assert_int_equal(got[i].drawn, want[i][0]);
		assert_true(got[i].drawn_logit == rows[i][want[i][0]]);
	}
	assert_true(got[0].max == 3 && got[1].max == -1);
	assert_close(got[0].log_sum, log(exp(1) + 2 * exp(3) + 2 * exp(2) + 1));
	assert_close(got[1].log_sum, log(2 * exp(-1) + 2 * exp(-2)));
}

static void a_draw_is_where_the_running_sum_passes_the_unit(void **state)
{
	/* Masses 1, 2, 1 of 4 at temperature 1; 1, 4, 1 of 6 at one half. */
	const float row[3] = { 0, (float)M_LN2, 0 };
	const struct {
		float inv_temp;
		double unit;
		int32_t id;
	} cases[] = { { 1, 0, 0 },     { 1, 0.249, 0 }, { 1, 0.251, 1 }, { 1, 0.749, 1 }, { 1, 0.751, 2 },
		      { 1, 0.999, 2 }, { 2, 0.166, 0 }, { 2, 0.168, 1 }, { 2, 0.832, 1 }, { 2, 0.835, 2 } };
	struct kn_picked got;

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		const struct kn_pick pick = { cases[i].inv_temp, 0, 1, 0, cases[i].unit, false };

		be->ops->pick(be, row, 3, 1, 3, 0, &pick, 0, NULL, &got);
		assert_int_equal(got.drawn, cases[i].id);
		assert_true(got.drawn_logit == row[got.drawn]);
		assert_close(got.log_mass, cases[i].inv_temp == 1 ? log(4.0 / 2) : log(6.0 / 4));
	}
}

static void filters_leave_some_and_say_the_order(void **state)
{
	/* Masses 1, 4, 2, 4, 1 of 12. */
	const float l2 = (float)M_LN2, row[5] = { 0, 2 * l2, l2, 2 * l2, 0 };
	const struct {
		struct kn_pick pick;
		int32_t id;
	} cases[] = {
		/* The three best, in their order: 1, 3, 2. */
		{ { 1, 3, 1, 0, 0.39, false }, 1 },
		{ { 1, 3, 1, 0, 0.41, false }, 3 },
		{ { 1, 3, 1, 0, 0.81, false }, 2 },
		{ { 1, 3, 1, 0, 0.999, false }, 2 },
		{ { 1, 1, 1, 0, 0.999, false }, 1 },
		/* Two of them have 8/12, with the third 10/12. */
		{ { 1, 0, 0.66f, 0, 0.999, false }, 3 },
		{ { 1, 0, 0.67f, 0, 0.999, false }, 2 },
		{ { 1, 0, 0.84f, 0, 0.999, false }, 0 },
		{ { 1, 0, 0, 0, 0.999, false }, 1 },
		/* At least half of the best, in the order of ids: 1, 2, 3. */
		{ { 1, 0, 1, 0.49f, 0.39, false }, 1 },
		{ { 1, 0, 1, 0.49f, 0.41, false }, 2 },
		{ { 1, 0, 1, 0.49f, 0.61, false }, 3 },
		{ { 1, 0, 1, 0.51f, 0.51, false }, 3 },
		/* One after the other: of the four best 11, three have 9/11 of that, two are at least half. */
		{ { 1, 4, 0.9f, 0.6f, 0.51, false }, 3 },
	};
	struct kn_picked got;

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		be->ops->pick(be, row, 5, 1, 5, 0, &cases[i].pick, 0, NULL, &got);
		assert_int_equal(got.drawn, cases[i].id);
		assert_true(got.drawn_logit == row[got.drawn]);
		assert_close(got.log_mass, log(12.0 / 4));
	}
}

static void broken_rows_give_nothing_and_infinities_count_as_the_largest(void **state)
{
	const float none[3] = { NAN, -INFINITY, NAN }, huge[3] = { 1, INFINITY, 2 };
	const struct kn_pick pick = { 1, 0, 1, 0, 0.5, false };
	struct kn_best best[2];
	struct kn_picked got;

	(void)state;
	be->ops->pick(be, none, 3, 1, 3, 0, &pick, 2, best, &got);
	assert_true(got.max == -INFINITY && best[0].id == -1 && got.drawn == 0);
	be->ops->pick(be, huge, 3, 1, 3, 0, &pick, 2, best, &got);
	assert_true(got.max == FLT_MAX && best[0].id == 1 && best[1].id == 2 && got.drawn == 1);
}

static void logits_are_capped_first(void **state)
{
	const float row[2] = { 100, 1 };
	const struct kn_pick pick = { 0 };
	struct kn_best best[2];
	struct kn_picked got;

	(void)state;
	be->ops->pick(be, row, 2, 1, 2, 10, &pick, 2, best, &got);
	assert_close(best[0].logit, 10 * tanh(10));
	assert_close(best[1].logit, 10 * tanh(0.1));
	assert_close(got.log_sum, log(exp(10 * tanh(10)) + exp(10 * tanh(0.1))));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(the_best_come_in_order_and_ties_by_id),
		cmocka_unit_test(a_draw_is_where_the_running_sum_passes_the_unit),
		cmocka_unit_test(filters_leave_some_and_say_the_order),
		cmocka_unit_test(broken_rows_give_nothing_and_infinities_count_as_the_largest),
		cmocka_unit_test(logits_are_capped_first),
	};

	return cmocka_run_group_tests(tests, open_backend, close_backend);
}
