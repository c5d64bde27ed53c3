/* The cpu backend's feed-forward blocks, for every instruction set of this machine: routing and mixtures of experts,
 * compared with the reference backend, and gated blocks, compared with the operations that they consist of.
 *
 * Tolerances: as products of matrices, twice: moe_tolerance(). */
#include "cpu_test.h"

/* ---- Routing ---- */

static void check_route(const struct kn_router *r, size_t n, float (*logit)(void))
{
	struct kn_backend *ref = open_ref(), *cpu = open_cpu(NULL, 3, 80);
	float *logits = malloc(n * r->n_expert * sizeof(*logits)), *want = gauss(n * r->top_k),
	      *got = gauss(n * r->top_k);
	int32_t *want_ids = calloc(n * r->top_k, sizeof(*want_ids)), *got_ids = calloc(n * r->top_k, sizeof(*got_ids));

	for (size_t i = 0; i < n * r->n_expert; i++)
		logits[i] = logit();
	ref->ops->route(ref, r, logits, n, want_ids, want);
	cpu->ops->route(cpu, r, logits, n, got_ids, got);
	assert_memory_equal(got_ids, want_ids, n * r->top_k * sizeof(*got_ids));
	assert_close("route", got, want, n * r->top_k, 1e-6f, 1e-6f);
	free(logits);
	free(want);
	free(got);
	free(want_ids);
	free(got_ids);
	kn_backend_close(ref);
	kn_backend_close(cpu);
}

/* Many ties. */
static float coarse(void)
{
	return (float)(rng_u32() % 5) - 2;
}

static float not_a_number(void)
{
	return NAN;
}

static void routes_agree_also_on_ties(void **state)
{
	float bias[64];
	const struct kn_router routers[] = {
		{ .kind = KN_ROUTE_SOFTMAX, .n_expert = 8, .top_k = 2, .normalize = true, .scale = 1 },
		{ .kind = KN_ROUTE_SOFTMAX, .n_expert = 60, .top_k = 4, .scale = 2.5f },
		{ .kind = KN_ROUTE_TOPK_SOFTMAX, .n_expert = 32, .top_k = 4, .scale = 1 },
		{ .kind = KN_ROUTE_SIGMOID,
		  .n_expert = 64,
		  .top_k = 6,
		  .n_group = 8,
		  .top_group = 3,
		  .normalize = true,
		  .scale = 2.5f,
		  .bias = bias },
		{ .kind = KN_ROUTE_SIGMOID, .n_expert = 5, .top_k = 5, .n_group = 1, .top_group = 1, .scale = 1 },
	};

	(void)state;
	for (int i = 0; i < 64; i++)
		bias[i] = 0.1f * rng_gauss();
	for (size_t i = 0; i < COUNT(routers); i++) {
		check_route(&routers[i], 1, rng_gauss);
		check_route(&routers[i], 65, rng_gauss);
		check_route(&routers[i], 33, coarse);
	}
}

static void logits_that_are_no_numbers_choose_within_the_table(void **state)
{
	const struct kn_router r = {
		.kind = KN_ROUTE_SIGMOID, .n_expert = 8, .top_k = 4, .n_group = 4, .top_group = 1, .scale = 1
	};
	struct kn_backend *cpu = open_cpu(NULL, 1, 4);
	float logits[8], weights[4];
	int32_t ids[4];

	(void)state;
	for (int i = 0; i < 8; i++)
		logits[i] = not_a_number();
	cpu->ops->route(cpu, &r, logits, 1, ids, weights);
	for (int i = 0; i < 4; i++)
		assert_in_range(ids[i], 0, 7);
	kn_backend_close(cpu);
}

static void more_experts_than_there_is_room_for_are_an_error(void **state)
{
	const struct kn_router r = { .kind = KN_ROUTE_SOFTMAX, .n_expert = 1025, .top_k = 1, .scale = 1 };
	struct kn_backend *cpu = open_cpu(NULL, 1, 4);
	float *logits = gauss(1025), weight;
	int32_t id = -1;

	(void)state;
	cpu->ops->route(cpu, &r, logits, 1, &id, &weight);
	assert_int_equal(cpu->ops->sync(cpu), -ENOTSUP);
	assert_int_equal(id, 0);
	assert_int_equal(cpu->ops->sync(cpu), 0); /* told once */
	kn_backend_close(cpu);
	free(logits);
}

/* ---- Experts ---- */

struct experts {
	struct kn_mat mats[3][16]; /* gate, up, down */
	char *data[3][16];
	float *bias[3];
};

static void experts_init(struct experts *e, struct kn_backend *be, enum kn_dtype dtype, uint32_t n, uint32_t n_ff,
                         uint32_t dim)
{
	for (int k = 0; k < 3; k++) {
		uint32_t rows = k == 2 ? dim : n_ff, cols = k == 2 ? n_ff : dim;
		size_t row_bytes = kn_row_bytes(dtype, cols);

		e->bias[k] = gauss((size_t)n * rows);
		for (uint32_t i = 0; i < n; i++) {
			float *x = gauss((size_t)rows * cols);

			e->data[k][i] = malloc(rows * row_bytes);
			for (uint32_t r = 0; r < rows; r++)
				kn_quantize(dtype, x + (size_t)r * cols, e->data[k][i] + r * row_bytes, cols);
			e->mats[k][i] =
			        (struct kn_mat){ .dtype = dtype, .rows = rows, .cols = cols, .data = e->data[k][i] };
			if (be)
				assert_int_equal(be->ops->mat_init(be, &e->mats[k][i]), 0);
			free(x);
		}
	}
}

static void experts_done(struct experts *e, struct kn_backend *be, uint32_t n)
{
	for (int k = 0; k < 3; k++) {
		for (uint32_t i = 0; i < n; i++) {
			be->ops->mat_done(be, &e->mats[k][i]);
			free(e->data[k][i]);
		}
		free(e->bias[k]);
	}
}

static float *run_moe(struct kn_backend *be, const struct experts *e, uint32_t n_expert, enum kn_act act, bool bias,
                      const float *x, size_t n, size_t dim, uint32_t n_ff, uint32_t top_k, const int32_t *ids,
                      const float *weights)
{
	struct kn_moe moe = { .n_expert = n_expert,
		              .n_ff = n_ff,
		              .act = act,
		              .gate = e->mats[0],
		              .up = e->mats[1],
		              .down = e->mats[2],
		              .gate_bias = bias ? e->bias[0] : NULL,
		              .up_bias = bias ? e->bias[1] : NULL,
		              .down_bias = bias ? e->bias[2] : NULL };
	float *out = calloc(n * dim, sizeof(*out));

	assert_non_null(out);
	be->ops->moe(be, &moe, out, dim, x, dim, n, dim, top_k, ids, weights);
	assert_int_equal(be->ops->sync(be), 0);
	return out;
}

/* Root mean square, relative to that of the results: float types differ in the order of sums; bfloat16 rounds x
 * and the hidden row by 2^-8 at most, int8 by half of 1/127 of a block's largest value, three times the rest. */
static double moe_tolerance(enum kn_dtype dtype)
{
	return dtype == KN_F32 ? 2e-6 : dtype == KN_BF16 ? 5e-3 : 2e-2;
}

static void mixtures_of_experts_agree(void **state)
{
	enum { N_EXPERT = 12, TOP_K = 3, DIM = 256, FF = 96, MAX_N = 65 };
	static const size_t odd_n[] = { 1, 2, 3, 5, 7, 17, 33, 65 };
	static const enum kn_dtype types[] = { KN_F32, KN_BF16, KN_Q8_0 };
	float *x = gauss(MAX_N * DIM), *weights = gauss(MAX_N * TOP_K);
	int32_t ids[MAX_N * TOP_K];

	(void)state;
	for (int i = 0; i < MAX_N; i++) {
		int first = (int)(rng_u32() % N_EXPERT);

		for (int k = 0; k < TOP_K; k++)
			ids[i * TOP_K + k] = (first + k * 3) % N_EXPERT;
	}
	for (const char *const *isa = kn_cpu_isas(); *isa; isa++) {
		for (size_t t = 0; t < COUNT(types); t++) {
			for (size_t i = 0; i < COUNT(odd_n); i++) {
				struct kn_backend *ref = open_ref(), *cpu = open_cpu(*isa, 3, 20);
				struct experts e;
				enum kn_act act = i % 2 ? KN_ACT_SWIGLU_OSS : KN_ACT_SILU;
				double err = 0, size = 0;
				float *want, *got;

				experts_init(&e, cpu, types[t], N_EXPERT, FF, DIM);
				want = run_moe(ref, &e, N_EXPERT, act, i % 2, x, odd_n[i], DIM, FF, TOP_K, ids,
				               weights);
				got = run_moe(cpu, &e, N_EXPERT, act, i % 2, x, odd_n[i], DIM, FF, TOP_K, ids, weights);
				for (size_t j = 0; j < odd_n[i] * DIM; j++) {
					err += ((double)got[j] - want[j]) * ((double)got[j] - want[j]);
					size += (double)want[j] * want[j];
				}
				size = sqrt(size / (double)(odd_n[i] * DIM));
				err = sqrt(err / (double)(odd_n[i] * DIM));
				if (!(err <= size * moe_tolerance(types[t])))
					fail_msg("%s %s n = %zu: off by %g of %g", *isa, kn_dtype_info(types[t])->name,
					         odd_n[i], err, size);
				experts_done(&e, cpu, N_EXPERT);
				kn_backend_close(cpu);
				kn_backend_close(ref);
				free(want);
				free(got);
			}
		}
	}
	free(x);
	free(weights);
}

static void experts_do_not_depend_on_threads_or_on_the_rows_beside(void **state)
{
	enum { N_EXPERT = 4, TOP_K = 2, DIM = 64, FF = 64, N = 17 /* few enough for every level */ };
	float *x = gauss(N * DIM), *weights = gauss(N * TOP_K);
	int32_t ids[N * TOP_K];

	(void)state;
	for (int i = 0; i < N * TOP_K; i++)
		ids[i] = (i + i / 5) % N_EXPERT;
	for (const char *const *isa = kn_cpu_isas(); *isa; isa++) {
		struct kn_backend *four = open_cpu(*isa, 4, 32), *one = open_cpu(*isa, 1, 32);
		struct experts e;
		float *all;

		experts_init(&e, four, KN_Q4_0, N_EXPERT, FF, DIM);
		all = run_moe(four, &e, N_EXPERT, KN_ACT_SILU, false, x, N, DIM, FF, TOP_K, ids, weights);
		for (size_t i = 0; i < N; i++) {
			float *alone = run_moe(one, &e, N_EXPERT, KN_ACT_SILU, false, x + i * DIM, 1, DIM, FF, TOP_K,
			                       ids + i * TOP_K, weights + i * TOP_K);

			assert_same(*isa, alone, all + i * DIM, DIM);
			free(alone);
		}
		experts_done(&e, four, N_EXPERT);
		free(all);
		kn_backend_close(four);
		kn_backend_close(one);
	}
	free(x);
	free(weights);
}

/* ---- Gated feed-forward blocks ---- */

static void check_gated(const char *isa, struct kn_backend *cpu, enum kn_dtype dtype, uint32_t n_ff, size_t n)
{
	enum { DIM = 256 };
	size_t n_mid = n * n_ff, ld = DIM + 16;
	bool bias = n % 2, accumulate = n % 3 == 0;
	struct experts e;
	float *x = gauss(n * ld), *want = gauss(n * ld), *got = copy_of(want, n * ld), *gate = gauss(n_mid),
	      *up = gauss(n_mid);
	struct kn_gated g = { .act = n % 4 ? KN_ACT_SILU : KN_ACT_GELU_TANH,
		              .gate_out = gauss(n_mid),
		              .up_out = gauss(n_mid),
		              .flags = accumulate ? KN_ACCUMULATE : 0 };
	struct kn_matmul in[2] = { { .out = gate, .ld_out = n_ff }, { .out = up, .ld_out = n_ff } };
	struct kn_matmul down = { .out = want, .ld_out = ld, .flags = g.flags };

	experts_init(&e, cpu, dtype, 1, n_ff, DIM);
	in[0].w = g.gate = e.mats[0];
	in[1].w = g.up = e.mats[1];
	down.w = g.down = e.mats[2];
	in[0].bias = g.gate_bias = bias ? e.bias[0] : NULL;
	in[1].bias = g.up_bias = bias ? e.bias[1] : NULL;
	down.bias = g.down_bias = bias ? e.bias[2] : NULL;
	cpu->ops->matmul(cpu, in, 2, x, ld, n);
	cpu->ops->act_mul(cpu, g.act, gate, n_ff, gate, n_ff, up, n_ff, n, n_ff);
	cpu->ops->matmul(cpu, &down, 1, gate, n_ff, n);
	cpu->ops->gated(cpu, &g, got, ld, x, ld, n);
	assert_int_equal(cpu->ops->sync(cpu), 0);
	assert_same(isa, got, want, n * ld);
	experts_done(&e, cpu, 1);
	free(g.gate_out);
	free(g.up_out);
	free(x);
	free(want);
	free(got);
	free(gate);
	free(up);
}

/* In one go or by the operations that it consists of: the same bits. */
static void gated_blocks_are_the_same_as_their_parts(void **state)
{
	static const enum kn_dtype types[] = { KN_F32, KN_F16, KN_BF16, KN_Q8_0, KN_Q4_0, KN_Q4_K, KN_Q6_K, KN_Q5_K };
	static const size_t some_n[] = { 1, 11, 12, 17, 32, 35, 79, 120, 130 };

	(void)state;
	for (const char *const *isa = kn_cpu_isas(); *isa; isa++) {
		struct kn_backend *cpu = open_cpu(*isa, 3, 128);

		for (size_t t = 0; t < COUNT(types); t++) {
			for (size_t i = 0; i < COUNT(some_n); i++) {
				check_gated(*isa, cpu, types[t], 512, some_n[i]);
				if (kn_dtype_info(types[t])->block_elems == 1)
					check_gated(*isa, cpu, types[t], 50, some_n[i]);
			}
		}
		kn_backend_close(cpu);
	}
}

/* Rows of prompts and of answers, in a backend that tells them. */
static void gated_blocks_tell_prompts(void **state)
{
	struct kn_config config = { .n_threads = 3, .max_tokens = 64, .deterministic = true };
	struct kn_backend *cpu = NULL;

	(void)state;
	assert_int_equal(kn_cpu_open(&config, &cpu, NULL), 0);
	for (uint32_t n_answers = 0; n_answers <= 40; n_answers += 10) {
		cpu->n_answer_rows = n_answers;
		check_gated("deterministic", cpu, KN_Q8_0, 256, 30);
	}
	kn_backend_close(cpu);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(routes_agree_also_on_ties),
		cmocka_unit_test(logits_that_are_no_numbers_choose_within_the_table),
		cmocka_unit_test(more_experts_than_there_is_room_for_are_an_error),
		cmocka_unit_test(mixtures_of_experts_agree),
		cmocka_unit_test(experts_do_not_depend_on_threads_or_on_the_rows_beside),
		cmocka_unit_test(gated_blocks_are_the_same_as_their_parts),
		cmocka_unit_test(gated_blocks_tell_prompts),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
