/* The cpu backend's operations row by row, for every instruction set of this machine, compared with the reference
 * backend, or with their parts.
 *
 * Tolerances: norms and activations do a handful of float roundings and an exponential good to 2 units in the
 * last place, 1e-5 relative; rotations and sums two or three roundings, 1e-6. */
#include <sys/mman.h>

#include "cpu_test.h"

static const size_t odd_n[] = { 1, 2, 3, 5, 7, 17, 33, 65 };
static const size_t odd_dim[] = { 1, 5, 8, 16, 31, 64, 100, 1030, 3000 };

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
		cmocka_unit_test(norms_before_products_are_the_same_as_apart),
		cmocka_unit_test(queries_keys_and_values_are_the_same_as_by_parts),
		cmocka_unit_test(discarded_memory_is_given_back),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
