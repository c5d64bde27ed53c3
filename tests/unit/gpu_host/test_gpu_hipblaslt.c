/* Products by hipBLASLt as gemm_hipblaslt.c asks for them, of a library that computes in plain loops as documented
 * (hipblaslt_plain.c): shapes, strides, element types, sums onto what is there, what the library refuses, and that all
 * of it is given back. */
#include <errno.h>
#include <math.h>
#include <stdlib.h>

#include "gpu/gemm.h"
#include "hipblaslt_plain.h"
#include "test.h"

static struct gpu_backend be;
static int *alive, *heuristics;
static unsigned long *refuses_from;

static int find_library(void **state)
{
	char reason[64];
	void *library;

	(void)state;
	if (gpu_rt_open(&be.rt, 0, reason, sizeof(reason)) < 0)
		return -1;
	library = open_plain_library("/none:");
	if (!library)
		return -1;
	alive = dlsym(library, "plain_alive");
	heuristics = dlsym(library, "plain_heuristics");
	refuses_from = dlsym(library, "plain_refuses_from");
	return alive && heuristics && refuses_from ? 0 : -1;
}

static float wide(uint16_t v)
{
	uint32_t bits = (uint32_t)v << 16;
	float f;

	memcpy(&f, &bits, sizeof(f));
	return f;
}

/* +-0.5 .. 2, a new one each time. */
static uint16_t some_value(void)
{
	static uint32_t s = 7;

	s = s * 1664525u + 1013904223u;
	return (uint16_t)(0x3f00u | (s >> 16 & 0x80ffu));
}

static void check(struct gpu_gemm *g, uint32_t rows, uint32_t n, uint32_t k, bool f32, bool accumulate)
{
	struct gpu_gemm_desc d = { .rows = rows,
		                   .n = n,
		                   .k = k,
		                   .ld_x = k + 8,
		                   .ld_w = k + 16,
		                   .ld_out = n + 4,
		                   .out_is_f32 = f32,
		                   .accumulate = accumulate };
	size_t n_out = (size_t)rows * d.ld_out;
	uint16_t *x = malloc((size_t)rows * d.ld_x * 2), *w = malloc((size_t)n * d.ld_w * 2);
	uint16_t *narrow = malloc(n_out * 2), *narrow_was = malloc(n_out * 2);
	float *full = malloc(n_out * 4), *full_was = malloc(n_out * 4);

	for (size_t i = 0; i < (size_t)rows * d.ld_x; i++)
		x[i] = some_value();
	for (size_t i = 0; i < (size_t)n * d.ld_w; i++)
		w[i] = some_value();
	for (size_t i = 0; i < n_out; i++) {
		narrow[i] = narrow_was[i] = some_value();
		full[i] = full_was[i] = wide(some_value());
	}
	d.x = x;
	d.w = w;
	d.out = f32 ? (void *)full : (void *)narrow;
	assert_int_equal(gpu_gemm_run(g, &d), 0);
	for (size_t i = 0; i < rows; i++) {
		for (size_t o = 0; o < d.ld_out; o++) {
			size_t at = i * d.ld_out + o;
			double want = accumulate ? (f32 ? full_was[at] : wide(narrow_was[at])) : 0, size = 1;
			double got = f32 ? full[at] : wide(narrow[at]);

			for (size_t c = 0; c < k; c++) {
				double term = (double)wide(x[i * d.ld_x + c]) * wide(w[(o % n) * d.ld_w + c]);

				want += term;
				size += fabs(term);
			}
			if (o >= n) /* between the rows: nobody's */
				want = f32 ? full_was[at] : wide(narrow_was[at]);
			assert_true(fabs(got - want) <= (f32 ? 1e-6 : 1.0 / 256) * (o >= n ? 0 : size));
		}
	}
	free(x);
	free(w);
	free(narrow);
	free(narrow_was);
	free(full);
	free(full_was);
}

static void products_are_right(void **state)
{
	char reason[256] = "";
	struct gpu_gemm *g = gpu_gemm_open(&be, reason, sizeof(reason));
	int asked;

	(void)state;
	if (!g)
		fail_msg("%s", reason);
	for (int form = 0; form < 4; form++) {
		check(g, 17, 24, 32, form & 1, form & 2);
		check(g, 64, 8, 48, form & 1, form & 2);
	}
	asked = *heuristics;
	assert_int_equal(asked, 8);
	check(g, 17, 24, 32, true, true);
	assert_int_equal(*heuristics, asked); /* a shape is planned once */
	gpu_gemm_close(g);
	assert_int_equal(*alive, 0);
}

static void what_it_refuses_is_left_to_others(void **state)
{
	const struct gpu_gemm_desc d = { .rows = 40, .n = 8, .k = 8, .ld_x = 8, .ld_w = 8, .ld_out = 8 };
	char reason[256] = "";
	struct gpu_gemm *g = gpu_gemm_open(&be, reason, sizeof(reason));

	(void)state;
	assert_non_null(g);
	*refuses_from = 40;
	assert_int_equal(gpu_gemm_run(g, &d), -ENOTSUP);
	check(g, 39, 8, 8, false, false);
	*refuses_from = 0;
	gpu_gemm_close(g);
	assert_int_equal(*alive, 0);
}

/* More shapes than are remembered. */
static void old_plans_are_given_back(void **state)
{
	char reason[256] = "";
	struct gpu_gemm *g = gpu_gemm_open(&be, reason, sizeof(reason));

	(void)state;
	assert_non_null(g);
	for (uint32_t rows = 1; rows <= 1100; rows++)
		check(g, rows % 550 + 1, 1, rows < 550 ? 1 : 2, false, false);
	gpu_gemm_close(g);
	assert_int_equal(*alive, 0);
}

static void without_the_library_the_reason_is_said(void **state)
{
	char reason[256] = "", folders[4200];

	(void)state;
	(void)snprintf(folders, sizeof(folders), "%s", getenv("OCAI_GPU_LIBS"));
	assert_int_equal(setenv("OCAI_GPU_LIBS", "/none", 1), 0);
	if (gpu_gemm_open(&be, reason, sizeof(reason)))
		skip(); /* a machine with ROCm */
	assert_non_null(strstr(reason, "hipBLASLt"));
	assert_int_equal(setenv("OCAI_GPU_LIBS", folders, 1), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(products_are_right),
		cmocka_unit_test(what_it_refuses_is_left_to_others),
		cmocka_unit_test(old_plans_are_given_back),
		cmocka_unit_test(without_the_library_the_reason_is_said),
	};

	return cmocka_run_group_tests(tests, find_library, NULL);
}
