/* Routing and experts of the reference backend. */
#include <math.h>

#include "kernels.h"
#include "test.h"

static struct kn_backend *be;

static int open_backend(void **state)
{
	const struct kn_config config = { .max_tokens = 8 };

	(void)state;
	srand(5);
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
	if (!(fabs(a - b) <= 1e-5 * (1 + fabs(b))))
		fail_msg("%.9g is not %.9g", a, b);
}

static double sigmoid(double x)
{
	return 1 / (1 + exp(-x));
}

static void softmax_weighs_among_all_or_the_chosen(void **state)
{
	const float logits[2][4] = { { 1, 3, 2, 0 }, { -1, -1, 5, 4 } };
	struct kn_router r = { .kind = KN_ROUTE_SOFTMAX, .n_expert = 4, .top_k = 2, .scale = 1 };
	const double all = exp(1) + exp(3) + exp(2) + exp(0);
	int32_t ids[4];
	float w[4];

	(void)state;
	be->ops->route(be, &r, logits[0], 2, ids, w);
	assert_true(ids[0] == 1 && ids[1] == 2 && ids[2] == 2 && ids[3] == 3);
	assert_close(w[0], exp(3) / all);
	assert_close(w[1], exp(2) / all);
	r.normalize = true;
	r.scale = 2.5f;
	be->ops->route(be, &r, logits[0], 1, ids, w);
	assert_close(w[0], 2.5 * exp(3) / (exp(3) + exp(2)));
	r.kind = KN_ROUTE_TOPK_SOFTMAX;
	r.normalize = false;
	r.scale = 1;
	be->ops->route(be, &r, logits[0], 1, ids, w);
	assert_close(w[0], exp(3) / (exp(3) + exp(2)));
	assert_close(w[1], exp(2) / (exp(3) + exp(2)));
}

static void ties_go_to_the_lowest_index(void **state)
{
	const float logits[6] = { 0, 1, 1, 0, 1, 1 };
	const enum kn_route kinds[] = { KN_ROUTE_SOFTMAX, KN_ROUTE_TOPK_SOFTMAX, KN_ROUTE_SIGMOID };
	int32_t ids[5];
	float w[5];

	(void)state;
	for (int i = 0; i < 3; i++) {
		const struct kn_router r = { .kind = kinds[i], .n_expert = 6, .top_k = 5, .scale = 1 };

		be->ops->route(be, &r, logits, 1, ids, w);
		assert_true(ids[0] == 1 && ids[1] == 2 && ids[2] == 4 && ids[3] == 5 && ids[4] == 0);
	}
}

static void a_bias_selects_but_does_not_weigh(void **state)
{
	const float logits[4] = { 2, 1, 0, -1 }, bias[4] = { 0, 0, 0, 5 };
	const struct kn_router r = {
		.kind = KN_ROUTE_SIGMOID, .n_expert = 4, .top_k = 2, .scale = 2, .bias = bias, .normalize = true
	};
	int32_t ids[2];
	float w[2];

	(void)state;
	be->ops->route(be, &r, logits, 1, ids, w);
	assert_true(ids[0] == 3 && ids[1] == 0);
	assert_close(w[0], 2 * sigmoid(-1) / (sigmoid(-1) + sigmoid(2)));
	assert_close(w[1], 2 * sigmoid(2) / (sigmoid(-1) + sigmoid(2)));
}

/* Groups of two: the best single expert sits in a group whose pair loses. */
static void only_the_best_groups_are_open(void **state)
{
	const float logits[8] = { 3, -9, 1, 1.5f, 0, 0, 2, 0.9f };
	const struct kn_router r = {
		.kind = KN_ROUTE_SIGMOID, .n_expert = 8, .top_k = 3, .n_group = 4, .top_group = 2, .scale = 1
	};
	int32_t ids[3];
	float w[3];

	(void)state;
	be->ops->route(be, &r, logits, 1, ids, w);
	assert_true(ids[0] == 6 && ids[1] == 3 && ids[2] == 2);
	assert_close(w[0], sigmoid(2));
}

static void equal_groups_open_from_the_lowest(void **state)
{
	const float logits[6] = { 1, 1, 1, 1, 1, 1 };
	const struct kn_router r = {
		.kind = KN_ROUTE_SIGMOID, .n_expert = 6, .top_k = 3, .n_group = 3, .top_group = 2, .scale = 1
	};
	int32_t ids[3];
	float w[3];

	(void)state;
	be->ops->route(be, &r, logits, 1, ids, w);
	assert_true(ids[0] == 0 && ids[1] == 1 && ids[2] == 2);
}

static void logits_that_are_not_numbers_stay_in_the_table(void **state)
{
	const float logits[3] = { NAN, NAN, NAN };
	const enum kn_route kinds[] = { KN_ROUTE_SOFTMAX, KN_ROUTE_TOPK_SOFTMAX, KN_ROUTE_SIGMOID };
	int32_t ids[2];
	float w[2];

	(void)state;
	for (int i = 0; i < 3; i++) {
		const struct kn_router r = { .kind = kinds[i], .n_expert = 3, .top_k = 2, .scale = 1 };

		be->ops->route(be, &r, logits, 1, ids, w);
		assert_in_range(ids[0], 0, 2);
		assert_in_range(ids[1], 0, 2);
	}
}

/* ---- Experts ---- */

enum { N_EXPERT = 3, DIM = 5, FF = 4, N = 2, TOP = 2, LD = DIM + 1 };

static void experts_add_their_weighted_outputs(void **state)
{
	static float gate[N_EXPERT][FF][DIM], up[N_EXPERT][FF][DIM], down[N_EXPERT][DIM][FF];
	static float bias[3][N_EXPERT * DIM], x[N * LD], out[N * LD], before[N * LD];
	struct kn_mat mats[3][N_EXPERT];
	const struct kn_moe moe = { .n_expert = N_EXPERT,
		                    .n_ff = FF,
		                    .act = KN_ACT_SILU,
		                    .gate = mats[0],
		                    .up = mats[1],
		                    .down = mats[2],
		                    .gate_bias = bias[0],
		                    .up_bias = bias[1],
		                    .down_bias = bias[2] };
	const int32_t ids[N * TOP] = { 2, 0, 1, 2 };
	const float w[N * TOP] = { 0.75f, 0.25f, 1.5f, -0.5f };
	float *all[] = { &gate[0][0][0], &up[0][0][0], &down[0][0][0], bias[0], bias[1], bias[2], x, out };
	const size_t sizes[] = { N_EXPERT * FF * DIM,
		                 N_EXPERT * FF * DIM,
		                 N_EXPERT * DIM * FF,
		                 N_EXPERT * DIM,
		                 N_EXPERT * DIM,
		                 N_EXPERT * DIM,
		                 N * LD,
		                 N * LD };

	(void)state;
	for (int a = 0; a < 8; a++) {
		for (size_t i = 0; i < sizes[a]; i++)
			all[a][i] = (float)rand() / (float)RAND_MAX * 2 - 1;
	}
	memcpy(before, out, sizeof(out));
	for (int e = 0; e < N_EXPERT; e++) {
		mats[0][e] = (struct kn_mat){ .dtype = KN_F32, .rows = FF, .cols = DIM, .data = gate[e] };
		mats[1][e] = (struct kn_mat){ .dtype = KN_F32, .rows = FF, .cols = DIM, .data = up[e] };
		mats[2][e] = (struct kn_mat){ .dtype = KN_F32, .rows = DIM, .cols = FF, .data = down[e] };
		for (int i = 0; i < 3; i++)
			assert_int_equal(be->ops->mat_init(be, &mats[i][e]), 0);
	}
	be->ops->moe(be, &moe, out, LD, x, LD, N, DIM, TOP, ids, w);
	assert_int_equal(be->ops->sync(be), 0);
	for (int i = 0; i < N; i++) {
		for (int d = 0; d < DIM; d++) {
			double y = before[i * LD + d];

			for (int t = 0; t < TOP; t++) {
				int e = ids[i * TOP + t];
				double part = bias[2][e * DIM + d];

				for (int f = 0; f < FF; f++) {
					double g = bias[0][e * FF + f], u = bias[1][e * FF + f];

					for (int c = 0; c < DIM; c++) {
						g += (double)gate[e][f][c] * x[i * LD + c];
						u += (double)up[e][f][c] * x[i * LD + c];
					}
					part += down[e][d][f] * (g * sigmoid(g) * u);
				}
				y += w[i * TOP + t] * part;
			}
			assert_close(out[i * LD + d], y);
		}
	}
	assert_true(out[DIM] == before[DIM]);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(softmax_weighs_among_all_or_the_chosen),
		cmocka_unit_test(ties_go_to_the_lowest_index),
		cmocka_unit_test(a_bias_selects_but_does_not_weigh),
		cmocka_unit_test(only_the_best_groups_are_open),
		cmocka_unit_test(equal_groups_open_from_the_lowest),
		cmocka_unit_test(logits_that_are_not_numbers_stay_in_the_table),
		cmocka_unit_test(experts_add_their_weighted_outputs),
	};

	return cmocka_run_group_tests(tests, open_backend, close_backend);
}
