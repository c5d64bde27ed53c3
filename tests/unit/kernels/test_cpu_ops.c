/* The cpu backend's operations row by row, gated blocks and mixtures of experts, for every instruction set of this
 * machine, compared with the reference backend.
 *
 * Tolerances: norms and activations do a handful of float roundings and an exponential good to 2 units in the
 * last place, 1e-5 relative; rotations and sums two or three roundings, 1e-6. Experts: as products of matrices,
 * twice, see mixtures_of_experts_agree. */
#include <sys/mman.h>

#include "cpu_test.h"

static const size_t odd_n[] = { 1, 2, 3, 5, 7, 17, 33, 65 };
static const size_t odd_dim[] = { 1, 5, 8, 16, 31, 64, 100, 1030, 3000 };

#define COUNT(a) (sizeof(a) / sizeof(*(a)))

typedef void (*op_check)(const char *isa, struct kn_backend *ref, struct kn_backend *cpu, size_t n, size_t dim);

static void each(op_check check)
{
	struct kn_backend *ref = open_ref();

	for (const char *const *isa = kn_cpu_isas(); *isa; isa++) {
		struct kn_backend *cpu = open_cpu(*isa, 3, 80);

		for (size_t i = 0; i < COUNT(odd_n); i++) {
			for (size_t d = 0; d < COUNT(odd_dim); d++)
				check(*isa, ref, cpu, odd_n[i], odd_dim[d]);
		}
		assert_int_equal(cpu->ops->sync(cpu), 0);
		kn_backend_close(cpu);
	}
	kn_backend_close(ref);
}

static void check_norm(const char *isa, struct kn_backend *ref, struct kn_backend *cpu, size_t n, size_t dim)
{
	size_t heads = n % 3 + 1, ld = heads * dim + 2;
	float *x = gauss(n * ld), *w = gauss(dim), *want = gauss(n * ld), *got = copy_of(want, n * ld);

	ref->ops->rmsnorm(ref, want, ld, x, ld, n % 2 ? w : NULL, n, heads, dim, 1e-6f);
	cpu->ops->rmsnorm(cpu, got, ld, x, ld, n % 2 ? w : NULL, n, heads, dim, 1e-6f);
	assert_close(isa, got, want, n * ld, 1e-7f, 1e-5f);
	memcpy(got, x, n * ld * sizeof(*x)); /* in place; what lies between rows stays */
	cpu->ops->rmsnorm(cpu, got, ld, got, ld, n % 2 ? w : NULL, n, heads, dim, 1e-6f);
	for (size_t i = 0; i < n; i++) {
		assert_close(isa, got + i * ld, want + i * ld, heads * dim, 1e-7f, 1e-5f);
		assert_same(isa, got + i * ld + heads * dim, x + i * ld + heads * dim, 2);
	}
	free(x);
	free(w);
	free(want);
	free(got);
}

static void norms_agree(void **state)
{
	(void)state;
	each(check_norm);
}

static void check_layernorm(const char *isa, struct kn_backend *ref, struct kn_backend *cpu, size_t n, size_t dim)
{
	size_t ld = dim + 3;
	float *x = gauss(n * ld), *w = gauss(dim), *b = gauss(dim), *want = gauss(n * ld), *got = copy_of(want, n * ld);

	for (size_t i = 0; i < n * ld; i++)
		x[i] += 5; /* the mean is not nothing */
	ref->ops->layernorm(ref, want, ld, x, ld, w, b, n, dim, 1e-6f);
	cpu->ops->layernorm(cpu, got, ld, x, ld, w, b, n, dim, 1e-6f);
	/* Of one value the variance is nothing: what remains of the difference to the mean is multiplied by 1000. */
	assert_close(isa, got, want, n * ld, dim == 1 ? 1e-3f : 3e-5f, 1e-5f);
	memcpy(got, x, n * ld * sizeof(*x)); /* in place; what lies between rows stays */
	cpu->ops->layernorm(cpu, got, ld, got, ld, w, b, n, dim, 1e-6f);
	for (size_t i = 0; i < n; i++) {
		assert_close(isa, got + i * ld, want + i * ld, dim, dim == 1 ? 1e-3f : 3e-5f, 1e-5f);
		assert_same(isa, got + i * ld + dim, x + i * ld + dim, 3);
	}
	free(x);
	free(w);
	free(b);
	free(want);
	free(got);
}

static void layernorms_agree(void **state)
{
	(void)state;
	each(check_layernorm);
}

static void check_act(const char *isa, struct kn_backend *ref, struct kn_backend *cpu, size_t n, size_t dim)
{
	size_t ld = dim + 1;
	float *g = gauss(n * ld), *u = gauss(n * ld), *want = gauss(n * ld), *got = copy_of(want, n * ld);

	for (size_t i = 0; i < n * ld; i += 3)
		g[i] *= 40; /* far out on both sides */
	for (int act = KN_ACT_SILU; act <= KN_ACT_SIGMOID; act++) {
		const float *up = act == KN_ACT_GELU ? NULL : u;
		bool cancels = act == KN_ACT_GELU || act == KN_ACT_GELU_TANH;

		ref->ops->act_mul(ref, (enum kn_act)act, want, ld, g, ld, up, ld, n, dim);
		cpu->ops->act_mul(cpu, (enum kn_act)act, got, ld, g, ld, up, ld, n, dim);
		/* 1 + tanh (or erf) cancels on the negative side: what is left is absolute. */
		assert_close(isa, got, want, n * ld, cancels ? 4e-6f : 1e-7f, 1e-5f);
	}
	free(g);
	free(u);
	free(want);
	free(got);
}

static void activations_agree(void **state)
{
	(void)state;
	each(check_act);
}

static void check_add(const char *isa, struct kn_backend *ref, struct kn_backend *cpu, size_t n, size_t dim)
{
	size_t ld = dim + 3;
	float *y = gauss(n * ld), *want = gauss(n * ld), *got = copy_of(want, n * ld);

	ref->ops->add(ref, want, ld, y, ld, n, dim, 0.75f);
	cpu->ops->add(cpu, got, ld, y, ld, n, dim, 0.75f);
	assert_close(isa, got, want, n * ld, 1e-6f, 1e-6f);
	free(y);
	free(want);
	free(got);
}

static void sums_agree(void **state)
{
	(void)state;
	each(check_add);
}

static void rotations_agree(void **state)
{
	static const struct {
		size_t head_dim, n_rot, offset;
		bool interleaved;
	} kinds[] = { { 64, 64, 0, false },   { 64, 64, 0, true }, { 80, 20, 8, false },
		      { 192, 64, 128, true }, { 10, 6, 4, false }, { 700, 600, 0, false } };
	struct kn_backend *ref = open_ref();

	(void)state;
	for (const char *const *isa = kn_cpu_isas(); *isa; isa++) {
		struct kn_backend *cpu = open_cpu(*isa, 3, 40);

		for (size_t i = 0; i < 3 * COUNT(kinds); i++) {
			size_t k = i % COUNT(kinds), n = i < COUNT(kinds) ? 33 : 65 - i, heads = 3;
			size_t ld = heads * kinds[k].head_dim + 1;
			float inv_freq[300], *want = gauss(n * ld), *got = copy_of(want, n * ld);
			int32_t pos[80];
			struct kn_rope rope = { .inv_freq = inv_freq,
				                .n_rot = (uint32_t)kinds[k].n_rot,
				                .offset = (uint32_t)kinds[k].offset,
				                .scale = 1.1f,
				                .interleaved = kinds[k].interleaved };

			for (size_t j = 0; j < kinds[k].n_rot / 2; j++)
				inv_freq[j] = powf(10000.0f, -2.0f * (float)j / (float)kinds[k].n_rot);
			for (size_t j = 0; j < n; j++)
				pos[j] = (int32_t)(rng_u32() % 40000);
			ref->ops->rope(ref, want, ld, n, heads, kinds[k].head_dim, &rope, pos);
			cpu->ops->rope(cpu, got, ld, n, heads, kinds[k].head_dim, &rope, pos);
			assert_close(*isa, got, want, n * ld, 1e-6f, 1e-6f);
			/* Fewer rows with the positions of before, then other frequencies: the table must notice. */
			ref->ops->rope(ref, want, ld, n / 2, heads, kinds[k].head_dim, &rope, pos);
			cpu->ops->rope(cpu, got, ld, n / 2, heads, kinds[k].head_dim, &rope, pos);
			inv_freq[0] *= 0.5f;
			ref->ops->rope(ref, want, ld, n, heads, kinds[k].head_dim, &rope, pos);
			cpu->ops->rope(cpu, got, ld, n, heads, kinds[k].head_dim, &rope, pos);
			assert_close(*isa, got, want, n * ld, 3e-6f, 3e-6f);
			free(want);
			free(got);
		}
		kn_backend_close(cpu);
	}
	kn_backend_close(ref);
}

static void embeddings_are_the_same(void **state)
{
	struct kn_backend *ref = open_ref();

	(void)state;
	for (const char *const *isa = kn_cpu_isas(); *isa; isa++) {
		struct kn_backend *cpu = open_cpu(*isa, 3, 80);

		for (int d = 0; d < KN_N_DTYPES; d++) {
			uint32_t block = kn_dtype_info((enum kn_dtype)d)->block_elems,
			         cols = block == 1 ? 77 : 2 * block;
			size_t row_bytes = kn_row_bytes((enum kn_dtype)d, cols), n = 65;
			float *x = gauss(9 * cols), *want = gauss(n * cols), *got = gauss(n * cols);
			char *data = malloc(9 * row_bytes);
			struct kn_mat m = { .dtype = (enum kn_dtype)d, .rows = 9, .cols = cols, .data = data };
			int32_t ids[65];

			for (size_t r = 0; r < 9; r++)
				kn_quantize((enum kn_dtype)d, x + r * cols, data + r * row_bytes, cols);
			for (size_t i = 0; i < n; i++)
				ids[i] = (int32_t)(rng_u32() % 9);
			ref->ops->embed(ref, want, cols, &m, ids, n, 2.5f);
			cpu->ops->embed(cpu, got, cols, &m, ids, n, 2.5f);
			assert_same(*isa, got, want, n * cols);
			free(x);
			free(want);
			free(got);
			free(data);
		}
		kn_backend_close(cpu);
	}
	kn_backend_close(ref);
}

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

static void check_norm_matmul(const char *isa, struct kn_backend *ref, struct kn_backend *cpu, size_t n, size_t dim)
{
	enum { ROWS = 40 };
	float *x = gauss(n * (dim + 3)), *normed = gauss(n * dim), *w = gauss(dim), *values = gauss(ROWS * dim),
	      *want = gauss(n * ROWS), *got = copy_of(want, n * ROWS);
	uint16_t *bf16 = malloc(ROWS * dim * sizeof(*bf16));
	struct kn_mat m[2] = { { .dtype = KN_F32, .rows = ROWS, .cols = (uint32_t)dim, .data = values },
		               { .dtype = KN_BF16, .rows = ROWS, .cols = (uint32_t)dim, .data = bf16 } };

	(void)ref;
	assert_non_null(bf16);
	kn_quantize(KN_BF16, values, bf16, ROWS * dim);
	cpu->ops->rmsnorm(cpu, normed, dim, x, dim + 3, w, n, 1, dim, 1e-6f);
	for (int i = 0; i < 2; i++) {
		struct kn_matmul job = { .w = &m[i], .out = want, .ld_out = ROWS };

		assert_int_equal(cpu->ops->mat_init(cpu, &m[i]), 0);
		cpu->ops->matmul(cpu, &job, 1, normed, dim, n);
		job.out = got;
		cpu->ops->norm_matmul(cpu, &job, 1, x, dim + 3, n, w, 1e-6f);
		assert_same(isa, got, want, n * ROWS);
		cpu->ops->mat_done(cpu, &m[i]);
	}
	free(x);
	free(normed);
	free(w);
	free(values);
	free(bf16);
	free(want);
	free(got);
}

static void norms_before_products_are_the_same_as_apart(void **state)
{
	(void)state;
	each(check_norm_matmul);
}

/* ---- q, k and v on their way to attention ---- */

static void check_qkv_store(const char *isa, struct kn_backend *cpu, bool norms, uint32_t n_rot, size_t n_seqs)
{
	enum { HEADS = 6, KV_HEADS = 3, DIM = 32, PAGE = 8, N_PAGES = 64, KV = N_PAGES * KV_HEADS * PAGE * DIM };
	struct kn_seq seqs[12];
	uint32_t pages[12][4], n = 0;
	int32_t pos[120];
	float inv_freq[DIM / 2], *w[2] = { gauss(DIM), gauss(DIM) }, *q, *k, *v, *q1, *k1;
	uint16_t *pools = calloc(4 * KV, sizeof(*pools));
	struct kn_rope rope = { .inv_freq = inv_freq, .n_rot = n_rot, .scale = 1 };
	struct kn_kv kv = { .dtype = KN_F16,
		            .n_kv_head = KV_HEADS,
		            .k_dim = DIM,
		            .v_dim = DIM,
		            .page_tokens = PAGE,
		            .k = pools,
		            .v = pools + KV };
	struct kn_qkv a = { .ld_q = HEADS * DIM,
		            .ld_k = KV_HEADS * DIM,
		            .ld_v = KV_HEADS * DIM,
		            .n_head = HEADS,
		            .q_norm = norms ? w[0] : NULL,
		            .k_norm = norms ? w[1] : NULL,
		            .eps = 1e-6f,
		            .rope = &rope,
		            .pos = pos };

	assert_non_null(pools);
	for (int i = 0; i < DIM / 2; i++)
		inv_freq[i] = 1.0f / (float)(i + 1);
	for (uint32_t s = 0; s < n_seqs; s++) {
		uint32_t n_q = s % 4 == 3 ? 9 : 1;

		seqs[s] = (struct kn_seq){ .pages = pages[s], .kv_len = 7 + s + n_q, .n_q = n_q, .row = n };
		for (uint32_t i = 0; i < 4; i++)
			pages[s][i] = (s * 4 + i) * 7 % N_PAGES;
		for (uint32_t i = 0; i < n_q; i++)
			pos[n++] = (int32_t)(7 + s + i);
	}
	q = gauss(n * a.ld_q);
	k = gauss(n * a.ld_k);
	v = gauss(n * a.ld_v);
	a.q = q1 = copy_of(q, n * a.ld_q);
	a.k = k1 = copy_of(k, n * a.ld_k);
	a.v = v;
	cpu->ops->qkv_store(cpu, &a, &kv, seqs, n_seqs, n);
	if (norms) {
		cpu->ops->rmsnorm(cpu, q, a.ld_q, q, a.ld_q, w[0], n, HEADS, DIM, a.eps);
		cpu->ops->rmsnorm(cpu, k, a.ld_k, k, a.ld_k, w[1], n, KV_HEADS, DIM, a.eps);
	}
	cpu->ops->rope(cpu, q, a.ld_q, n, HEADS, DIM, &rope, pos);
	cpu->ops->rope(cpu, k, a.ld_k, n, KV_HEADS, DIM, &rope, pos);
	kv.k = pools + 2 * KV;
	kv.v = pools + 3 * KV;
	cpu->ops->kv_store(cpu, &kv, k, a.ld_k, v, a.ld_v, seqs, n_seqs);
	assert_int_equal(cpu->ops->sync(cpu), 0);
	assert_same(isa, q1, q, n * a.ld_q);
	assert_memory_equal(pools, pools + 2 * KV, 2 * KV * sizeof(*pools));
	free(w[0]);
	free(w[1]);
	free(q);
	free(k);
	free(v);
	free(q1);
	free(k1);
	free(pools);
}

static void queries_keys_and_values_are_the_same_as_by_parts(void **state)
{
	(void)state;
	for (const char *const *isa = kn_cpu_isas(); *isa; isa++) {
		struct kn_backend *cpu = open_cpu(*isa, 3, 64), *small = open_cpu(*isa, 2, 4);

		for (size_t n = 1; n <= 12; n++) {
			check_qkv_store(*isa, cpu, n % 2, n % 3 ? 32 : 16, n);
			check_qkv_store(*isa, cpu, true, 0, n);
			check_qkv_store(*isa, small, true, 32, n);
		}
		kn_backend_close(small);
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

/* Memory that is discarded is not there any more until it is written; what lies beside it stays. */
static void discarded_memory_is_given_back(void **state)
{
	enum { BYTES = 1 << 20, PAGE = 4096 };
	struct kn_backend *cpu = open_cpu(NULL, 1, 8);
	unsigned char *p = cpu->ops->alloc(cpu, BYTES), in_core[BYTES / PAGE + 1];
	char *first = (char *)(((uintptr_t)p + PAGE - 1) / PAGE * PAGE);

	(void)state;
	assert_non_null(p);
	memset(p, 7, BYTES);
	cpu->ops->discard(cpu, p + 1, 2 * PAGE); /* one whole page at least, never more */
	cpu->ops->discard(cpu, p + BYTES / 2, BYTES / 4);
	assert_int_equal(p[0], 7);
	assert_int_equal(p[2 * PAGE + 1], 7);
	assert_int_equal(p[BYTES / 2 - 1], 7);
	assert_int_equal(p[BYTES / 2 + BYTES / 4], 7);
	assert_int_equal(mincore(first + BYTES / 2 + PAGE, BYTES / 4 - 2 * PAGE, in_core), 0);
	for (size_t i = 0; i < BYTES / 4 / PAGE - 2; i++)
		assert_false(in_core[i] & 1);
	memset(p, 9, BYTES);
	assert_int_equal(p[BYTES / 2 + PAGE], 9);
	cpu->ops->free(cpu, p);
	kn_backend_close(cpu);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(norms_agree),
		cmocka_unit_test(layernorms_agree),
		cmocka_unit_test(activations_agree),
		cmocka_unit_test(sums_agree),
		cmocka_unit_test(rotations_agree),
		cmocka_unit_test(embeddings_are_the_same),
		cmocka_unit_test(routes_agree_also_on_ties),
		cmocka_unit_test(logits_that_are_no_numbers_choose_within_the_table),
		cmocka_unit_test(more_experts_than_there_is_room_for_are_an_error),
		cmocka_unit_test(mixtures_of_experts_agree),
		cmocka_unit_test(experts_do_not_depend_on_threads_or_on_the_rows_beside),
		cmocka_unit_test(gated_blocks_are_the_same_as_their_parts),
		cmocka_unit_test(gated_blocks_tell_prompts),
		cmocka_unit_test(norms_before_products_are_the_same_as_apart),
		cmocka_unit_test(queries_keys_and_values_are_the_same_as_by_parts),
		cmocka_unit_test(discarded_memory_is_given_back),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
