/* The cpu backend's products with weight matrices, for every instruction set of this machine and every type of
 * weight, compared with the reference backend.
 *
 * Three tolerances:
 * - Activations that every prepared form holds exactly (integers up to 127, 127 present in every block of 32):
 *   what remains is the order and width of sums, 1e-5 of the sum of magnitudes.
 * - Arbitrary activations, int8 form: each is off by at most half a step of its block, max / 254.
 * - Arbitrary activations, bfloat16 form: each is off by at most 2^-8 of itself. At the level that makes bfloat16
 *   of all weights when tokens are many, each weight is off by at most 1.4 times as much. */
#include "cpu_test.h"

struct weights {
	struct kn_mat ref, cpu;
	uint8_t *bytes;
	float *values;
};

static void weights_init(struct weights *w, struct kn_backend *ref, struct kn_backend *cpu, enum kn_dtype dtype,
                         uint32_t rows, uint32_t cols)
{
	size_t row_bytes = kn_row_bytes(dtype, cols);
	float *x = gauss((size_t)rows * cols);

	/* At an odd address: mapped files promise no alignment. */
	w->bytes = malloc(rows * row_bytes + 1);
	w->values = malloc((size_t)rows * cols * sizeof(float));
	assert_non_null(w->bytes);
	assert_non_null(w->values);
	for (uint32_t r = 0; r < rows; r++) {
		kn_quantize(dtype, x + (size_t)r * cols, w->bytes + 1 + r * row_bytes, cols);
		kn_dequantize(dtype, w->bytes + 1 + r * row_bytes, w->values + (size_t)r * cols, cols);
	}
	free(x);
	w->ref = w->cpu = (struct kn_mat){ .dtype = dtype, .rows = rows, .cols = cols, .data = w->bytes + 1 };
	assert_int_equal(ref->ops->mat_init(ref, &w->ref), 0);
	assert_int_equal(cpu->ops->mat_init(cpu, &w->cpu), 0);
}

static void weights_done(struct weights *w, struct kn_backend *ref, struct kn_backend *cpu)
{
	ref->ops->mat_done(ref, &w->ref);
	cpu->ops->mat_done(cpu, &w->cpu);
	free(w->bytes);
	free(w->values);
}

/* Integers that int8 blocks and bfloat16 hold exactly. */
static float *exact_x(size_t n, size_t cols, size_t ld)
{
	float *x = gauss(n * ld);

	for (size_t i = 0; i < n; i++) {
		for (size_t c = 0; c < cols; c++)
			x[i * ld + c] = c % 32 == i % 32 ? 127.0f : (float)((int)(rng_u32() % 255) - 127);
	}
	return x;
}

/* How far one product may be off: see the top. */
static double tolerance(const char *isa, enum kn_dtype dtype, bool exact, const float *w, const float *x, size_t cols)
{
	double sum = 0, max_sum = 0;
	bool int8 = dtype > KN_BF16, rounds = strcmp(isa, "amxbf16") == 0 && dtype != KN_F32;

	for (size_t b = 0; b < cols; b += 32) {
		float max = 0;

		for (size_t c = b; c < cols && c < b + 32; c++)
			max = fmaxf(max, fabsf(x[c]));
		for (size_t c = b; c < cols && c < b + 32; c++) {
			sum += fabs((double)w[c] * x[c]);
			max_sum += fabs((double)w[c]) * max;
		}
	}
	if (exact)
		return (1e-5 + (rounds && dtype != KN_BF16 ? 1.4 / 256 : 0)) * sum + 1e-6;
	if (rounds)
		return 2.41 / 256 * sum + 1e-6 + (int8 ? max_sum / 254 * 1.001 : 0);
	return 1e-5 * sum + 1e-6 + (int8 ? max_sum / 254 * 1.001 : dtype == KN_BF16 ? sum / 256 * 1.001 : 0);
}

static void compare(const char *isa, struct kn_backend *ref, struct kn_backend *cpu, enum kn_dtype dtype, uint32_t rows,
                    uint32_t cols, size_t n, bool exact)
{
	struct weights w;
	size_t ld_x = cols + 3, ld_out = rows + 5;
	float *x = exact ? exact_x(n, cols, ld_x) : gauss(n * ld_x);
	float *bias = gauss(rows), *want = gauss(n * ld_out), *got = copy_of(want, n * ld_out);
	bool accumulate = n % 2;
	struct kn_matmul job = { .ld_out = ld_out,
		                 .bias = n % 3 ? bias : NULL,
		                 .flags = accumulate ? KN_ACCUMULATE : 0 };

	weights_init(&w, ref, cpu, dtype, rows, cols);
	job.w = &w.ref;
	job.out = want;
	ref->ops->matmul(ref, &job, 1, x, ld_x, n);
	job.w = &w.cpu;
	job.out = got;
	cpu->ops->matmul(cpu, &job, 1, x, ld_x, n);
	assert_int_equal(cpu->ops->sync(cpu), 0);
	for (size_t i = 0; i < n; i++) {
		for (size_t r = 0; r < ld_out; r++) {
			double off = fabs((double)got[i * ld_out + r] - want[i * ld_out + r]);
			double may =
			        r < rows ? tolerance(isa, dtype, exact, w.values + r * cols, x + i * ld_x, cols) : 0;

			if (!(off <= may))
				fail_msg("%s %s [%u, %u] x %zu: out[%zu][%zu] is %.9g, expected %.9g +- %.3g", isa,
				         kn_dtype_info(dtype)->name, rows, cols, n, i, r, (double)got[i * ld_out + r],
				         (double)want[i * ld_out + r], may);
		}
	}
	weights_done(&w, ref, cpu);
	free(x);
	free(bias);
	free(want);
	free(got);
}

static const uint32_t odd_rows[] = { 1, 2, 3, 5, 7, 17, 33, 65 };
static const size_t odd_n[] = { 1, 2, 3, 4, 5, 6, 7, 9, 13, 20, 32, 33, 64 };

static void all_shapes(bool exact)
{
	static const uint32_t odd_cols[] = { 1, 15, 32, 33, 100, 557 };
	struct kn_backend *ref = open_ref();

	for (const char *const *isa = kn_cpu_isas(); *isa; isa++) {
		struct kn_backend *cpu = open_cpu(*isa, 3, 64);

		for (int d = 0; d < KN_N_DTYPES; d++) {
			uint32_t block = kn_dtype_info((enum kn_dtype)d)->block_elems;

			for (size_t r = 0; r < sizeof(odd_rows) / sizeof(*odd_rows); r++) {
				for (size_t i = 0; i < sizeof(odd_n) / sizeof(*odd_n); i++) {
					uint32_t cols = block == 1 ? odd_cols[(r + i) % 6]
					                           : block * (1 + (r + i) % 3) *
					                                     (i % 4 == 3 && block == 32 ? 5 : 1);

					compare(*isa, ref, cpu, (enum kn_dtype)d, odd_rows[r], cols, odd_n[i], exact);
				}
			}
		}
		kn_backend_close(cpu);
	}
	kn_backend_close(ref);
}

static void products_agree_where_activations_are_exact(void **state)
{
	(void)state;
	all_shapes(true);
}

static void products_agree_within_the_rounding_of_activations(void **state)
{
	(void)state;
	all_shapes(false);
}

static void more_tokens_than_promised_are_computed_in_slices(void **state)
{
	struct kn_backend *ref = open_ref(), *cpu = open_cpu(NULL, 2, 8);

	(void)state;
	compare(kn_cpu_isas()[0], ref, cpu, KN_F32, 17, 40, 30, true);
	compare(kn_cpu_isas()[0], ref, cpu, KN_Q8_0, 17, 64, 30, true);
	kn_backend_close(cpu);
	kn_backend_close(ref);
}

/* One result per (type, threads): several jobs over one x, tall and long enough for many items. */
static float *run_jobs(const char *isa, unsigned n_threads, const struct kn_mat *mats, size_t n_mats, const float *x,
                       size_t n)
{
	struct kn_backend *cpu = open_cpu(isa, n_threads, 256);
	struct kn_mat own[KN_N_DTYPES];
	struct kn_matmul jobs[KN_N_DTYPES];
	size_t rows = mats[0].rows;
	float *out = gauss(n_mats * n * rows);

	for (size_t m = 0; m < n_mats; m++) {
		own[m] = mats[m];
		assert_int_equal(cpu->ops->mat_init(cpu, &own[m]), 0);
		jobs[m] = (struct kn_matmul){ .w = &own[m], .out = out + m * n * rows, .ld_out = rows };
	}
	cpu->ops->matmul(cpu, jobs, n_mats, x, mats[0].cols, n);
	for (size_t m = 0; m < n_mats; m++)
		cpu->ops->mat_done(cpu, &own[m]);
	kn_backend_close(cpu);
	return out;
}

/* A matrix of every type, [rows, 512]; data to be freed. */
static void every_type(struct kn_mat mats[KN_N_DTYPES], uint32_t rows)
{
	float *x = gauss(512 * (size_t)rows);

	for (int d = 0; d < KN_N_DTYPES; d++) {
		size_t row_bytes = kn_row_bytes((enum kn_dtype)d, 512);
		char *data = malloc(rows * row_bytes);

		assert_non_null(data);
		for (uint32_t r = 0; r < rows; r++)
			kn_quantize((enum kn_dtype)d, x + r * 512, data + r * row_bytes, 512);
		mats[d] = (struct kn_mat){ .dtype = (enum kn_dtype)d, .rows = rows, .cols = 512, .data = data };
	}
	free(x);
}

static void results_do_not_depend_on_the_number_of_threads(void **state)
{
	enum { ROWS = 203, N = 37 };
	struct kn_mat mats[KN_N_DTYPES];
	float *x = gauss(N * 512);

	(void)state;
	every_type(mats, ROWS);
	for (const char *const *isa = kn_cpu_isas(); *isa; isa++) {
		float *one = run_jobs(*isa, 1, mats, KN_N_DTYPES, x, N);

		for (unsigned t = 2; t <= 5; t++) {
			float *many = run_jobs(*isa, t, mats, KN_N_DTYPES, x, N);

			assert_same(*isa, many, one, KN_N_DTYPES * (size_t)N * ROWS);
			free(many);
		}
		free(one);
	}
	for (int d = 0; d < KN_N_DTYPES; d++)
		free((void *)mats[d].data);
	free(x);
}

static void a_row_does_not_depend_on_the_rows_beside_it(void **state)
{
	enum { ROWS = 70, MOST = 24 };
	struct kn_mat mats[KN_N_DTYPES];
	float *x = gauss(MOST * 512);

	(void)state;
	every_type(mats, ROWS);
	for (const char *const *isa = kn_cpu_isas(); *isa; isa++) {
		const size_t N = strcmp(*isa, "amxbf16") == 0 ? 11 : MOST; /* more take its path for many */

		for (int d = 0; d < KN_N_DTYPES; d++) {
			float *all = run_jobs(*isa, 2, &mats[d], 1, x, N);

			for (size_t from = 0, n = 1; from < N; from += n, n++) {
				float *some;

				n = from + n > N ? N - from : n;
				some = run_jobs(*isa, 2, &mats[d], 1, x + from * 512, n);
				assert_same(*isa, some, all + from * ROWS, n * ROWS);
				free(some);
			}
			free(all);
		}
	}
	for (int d = 0; d < KN_N_DTYPES; d++)
		free((void *)mats[d].data);
	free(x);
}

/* The promise of kn_config.deterministic, at whatever level it takes: few tokens, many tokens, all types. */
static void a_deterministic_backend_does_not_tell_few_tokens_from_many(void **state)
{
	enum { ROWS = 70, N = 80 };
	struct kn_config config = { .n_threads = 2, .max_tokens = N, .deterministic = true };
	struct kn_backend *cpu = NULL;
	struct kn_mat mats[KN_N_DTYPES];
	float *x = gauss(N * 512), *all = gauss(N * ROWS), *one = gauss(ROWS);

	(void)state;
	assert_int_equal(kn_cpu_open(&config, &cpu, NULL), 0);
	every_type(mats, ROWS);
	for (int d = 0; d < KN_N_DTYPES; d++) {
		struct kn_mat m = mats[d];
		struct kn_matmul job = { .w = &m, .out = all, .ld_out = ROWS };

		assert_int_equal(cpu->ops->mat_init(cpu, &m), 0);
		cpu->ops->matmul(cpu, &job, 1, x, 512, N);
		job.out = one;
		for (size_t i = 0; i < N; i++) {
			cpu->ops->matmul(cpu, &job, 1, x + i * 512, 512, 1);
			assert_same(kn_dtype_info((enum kn_dtype)d)->name, one, all + i * ROWS, ROWS);
		}
		cpu->ops->mat_done(cpu, &m);
		free((void *)mats[d].data);
	}
	kn_backend_close(cpu);
	free(x);
	free(all);
	free(one);
}

/* Of any size between two powers of two, with either sign. */
static float *wild(size_t n, int least, int most)
{
	float *p = gauss(n);

	for (size_t i = 0; i < n; i++) {
		float size = 1 + (float)(rng_u32() % 256) / 256;

		p[i] = ldexpf(rng_u32() % 2 ? size : -size, least + (int)(rng_u32() % (uint32_t)(most - least + 1)));
	}
	return p;
}

/* Products of x[n, cols] with a matrix and, where gated, as a feed-forward block with two more, row groups of `group`
 * at a time. */
static float *in_groups(struct kn_backend *cpu, const struct kn_mat *m, const struct kn_mat *down, const float *x,
                        size_t n, size_t group)
{
	size_t rows = down ? down->rows : m->rows, cols = m->cols;
	float *out = gauss(n * rows), *hidden = gauss(2 * group * m->rows);
	struct kn_gated g = { .gate = m,
		              .up = m,
		              .down = down,
		              .gate_out = hidden,
		              .up_out = hidden + group * m->rows,
		              .act = KN_ACT_SILU };
	struct kn_matmul job = { .w = m, .ld_out = rows };

	for (size_t i = 0; i < n; i += group) {
		size_t k = n - i < group ? n - i : group;

		job.out = out + i * rows;
		if (down)
			cpu->ops->gated(cpu, &g, job.out, rows, x + i * cols, cols, k);
		else
			cpu->ops->matmul(cpu, &job, 1, x + i * cols, cols, k);
	}
	free(hidden);
	return out;
}

/* Kernels for one row, for some and for many have to make each sum in the same order, and round alike: also where
 * products are too small for normal numbers, and where large ones cancel out. */
static void a_deterministic_backend_rounds_alike_for_groups_of_any_size(void **state)
{
	enum { N = 100 };
	static const struct {
		uint32_t rows, cols;
		int least, most;
		bool gated;
	} cases[] = { { 70, 512, -2, 2, false },   { 64, 1024, -75, 0, false }, { 37, 320, -40, 40, false },
		      { 15, 64, -75, -40, false }, { 33, 557, -60, 30, false }, { 96, 256, -3, 1, true },
		      { 64, 96, -9, 3, true } };
	static const size_t groups[] = { 1, 2, 7, 15, 16, 17, 31, 32, 33, 48, N };
	static const enum kn_dtype types[] = { KN_F16, KN_BF16 };
	struct kn_config config = { .n_threads = 3, .max_tokens = N, .deterministic = true };
	struct kn_backend *cpu = NULL;

	(void)state;
	assert_int_equal(kn_cpu_open(&config, &cpu, NULL), 0);
	for (size_t c = 0; c < 2 * sizeof(cases) / sizeof(*cases); c++) {
		const uint32_t rows = cases[c / 2].rows, cols = cases[c / 2].cols;
		const enum kn_dtype dtype = types[c % 2];
		size_t bytes = kn_row_bytes(dtype, cols), down_bytes = kn_row_bytes(dtype, rows);
		float *x = wild((size_t)N * cols, cases[c / 2].least, cases[c / 2].most), *whole;
		float *v = wild((size_t)rows * cols, cases[c / 2].least, cases[c / 2].most);
		char *w = malloc(rows * bytes), *wd = malloc(cols * down_bytes);
		struct kn_mat m = { .dtype = dtype, .rows = rows, .cols = cols, .data = w };
		struct kn_mat down = { .dtype = dtype, .rows = cols, .cols = rows, .data = wd };

		assert_non_null(w);
		assert_non_null(wd);
		for (uint32_t r = 0; r < rows; r++) /* float16 has fewer sizes, but some */
			kn_quantize(dtype, v + (size_t)r * cols, w + r * bytes, cols);
		for (uint32_t r = 0; r < cols; r++)
			kn_quantize(dtype, v + (size_t)r * rows, wd + r * down_bytes, rows);
		assert_int_equal(cpu->ops->mat_init(cpu, &m), 0);
		assert_int_equal(cpu->ops->mat_init(cpu, &down), 0);
		whole = in_groups(cpu, &m, cases[c / 2].gated ? &down : NULL, x, N, N);
		for (size_t g = 0; g < sizeof(groups) / sizeof(*groups); g++) {
			float *got = in_groups(cpu, &m, cases[c / 2].gated ? &down : NULL, x, N, groups[g]);

			assert_same(kn_dtype_info(dtype)->name, got, whole, N * (cases[c / 2].gated ? cols : rows));
			free(got);
		}
		cpu->ops->mat_done(cpu, &m);
		cpu->ops->mat_done(cpu, &down);
		free(whole);
		free(x);
		free(v);
		free(w);
		free(wd);
	}
	kn_backend_close(cpu);
}

static void what_is_not_a_number_is_not_hidden(void **state)
{
	enum { ROWS = 40 };
	static const float bad[] = { NAN, INFINITY, -INFINITY };
	struct kn_mat mats[KN_N_DTYPES];
	float *x = gauss(512);

	(void)state;
	every_type(mats, ROWS);
	for (const char *const *isa = kn_cpu_isas(); *isa; isa++) {
		for (size_t i = 0; i < 3 * KN_N_DTYPES; i++) {
			float keep = x[37 * (i % 3)], *out;

			x[37 * (i % 3)] = bad[i % 3];
			out = run_jobs(*isa, 1, &mats[i / 3], 1, x, 1);
			for (size_t r = 0; r < ROWS; r++) {
				if (isfinite(out[r]))
					fail_msg("%s %s: row %zu is %g", *isa, kn_dtype_info(mats[i / 3].dtype)->name,
					         r, (double)out[r]);
			}
			x[37 * (i % 3)] = keep;
			free(out);
		}
	}
	for (int d = 0; d < KN_N_DTYPES; d++)
		free((void *)mats[d].data);
	free(x);
}

static void tiny_and_zero_activations_give_tiny_and_zero_results(void **state)
{
	static const float sizes[] = { 0, 1e-44f, 1e-38f, 1e-31f };
	struct kn_mat mats[KN_N_DTYPES];
	float x[512];

	(void)state;
	every_type(mats, 20);
	for (const char *const *isa = kn_cpu_isas(); *isa; isa++) {
		for (size_t i = 0; i < 4; i++) {
			float *out;

			for (int c = 0; c < 512; c++)
				x[c] = c % 2 ? sizes[i] : -sizes[i];
			out = run_jobs(*isa, 1, mats, KN_N_DTYPES, x, 1);
			for (size_t r = 0; r < 20 * KN_N_DTYPES; r++) {
				if (!(fabsf(out[r]) <= 512 * 8 * sizes[i]))
					fail_msg("%s: %zu is %g for activations of %g", *isa, r, (double)out[r],
					         (double)sizes[i]);
			}
			free(out);
		}
	}
	for (int d = 0; d < KN_N_DTYPES; d++)
		free((void *)mats[d].data);
}

static void a_block_that_cannot_be_filled_is_refused(void **state)
{
	struct kn_backend *cpu = open_cpu(NULL, 1, 4);
	struct kn_mat m = { .dtype = KN_Q4_K, .rows = 1, .cols = 100, .data = "" };

	(void)state;
	assert_int_equal(cpu->ops->mat_init(cpu, &m), -EINVAL);
	kn_backend_close(cpu);
}

static void an_unknown_instruction_set_is_refused_by_name(void **state)
{
	struct kn_config config = { .isa = "sse9" };
	struct kn_backend *be = NULL;
	struct err err = { 0 };

	(void)state;
	assert_int_equal(kn_cpu_open(&config, &be, &err), -ENOTSUP);
	assert_null(be);
	assert_non_null(strstr(err.msg, "sse9"));
}

static void the_portable_level_is_always_there_and_last(void **state)
{
	const char *const *isa = kn_cpu_isas();

	(void)state;
	assert_non_null(*isa);
	while (isa[1])
		isa++;
	assert_string_equal(*isa, "scalar");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(products_agree_where_activations_are_exact),
		cmocka_unit_test(products_agree_within_the_rounding_of_activations),
		cmocka_unit_test(more_tokens_than_promised_are_computed_in_slices),
		cmocka_unit_test(results_do_not_depend_on_the_number_of_threads),
		cmocka_unit_test(a_row_does_not_depend_on_the_rows_beside_it),
		cmocka_unit_test(a_deterministic_backend_does_not_tell_few_tokens_from_many),
		cmocka_unit_test(a_deterministic_backend_rounds_alike_for_groups_of_any_size),
		cmocka_unit_test(what_is_not_a_number_is_not_hidden),
		cmocka_unit_test(tiny_and_zero_activations_give_tiny_and_zero_results),
		cmocka_unit_test(a_block_that_cannot_be_filled_is_refused),
		cmocka_unit_test(an_unknown_instruction_set_is_refused_by_name),
		cmocka_unit_test(the_portable_level_is_always_there_and_last),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
