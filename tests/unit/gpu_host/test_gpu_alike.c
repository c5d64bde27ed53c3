/* Deterministic mode's choice among a library's kernels (gemm_alike.h), of one that computes in plain loops and names
 * the kernels that a test wants (hipblaslt_plain.c): a kernel that sums otherwise is found out and left out, the first
 * one with the bits of the kernel for all rows is taken, and where some number of rows has none the product is no
 * matter of the number of rows any more. */
#include <stdbool.h>

#include "gpu/hipblaslt_abi.h"

/* A library like hipBLASLt of which kernels can be asked for that share no sums, and which knows scales of blocks. */
#define LT_NAME "the library in plain loops"
#define LT_PREFIX "hipblasLt"

static const char *const lt_names[] = { "libhipblaslt.so.1", NULL }, *const lt_folders = NULL;
static const bool lt_is_steady = true;

static bool lt_set_modes(const struct lt_functions *f, lt_desc desc)
{
	(void)f;
	(void)desc;
	return true;
}

static bool lt_set_scales(const struct lt_functions *f, lt_desc desc, const void *w, const void *x)
{
	enum { SCALE_A = 1000, SCALE_B };

	return f->desc_set(desc, SCALE_A, &w, sizeof(w)) == LT_SUCCESS &&
	       f->desc_set(desc, SCALE_B, &x, sizeof(x)) == LT_SUCCESS;
}

static bool lt_set_steady(const struct lt_functions *f, lt_pref pref, uint32_t alignment)
{
	(void)f;
	(void)pref;
	return alignment <= 16;
}

#include "gpu/gemm_lt.h"
#include "hipblaslt_plain.h"
#include "test.h"

/* As in hipblaslt_plain.c. */
enum { FORWARD, BACKWARD, SILENT, FAILING, FORWARD_TOO };

static struct gpu_backend be = { .deterministic = true };
static int *alive, *kernels, *last, *heuristics;
static unsigned long *few_rows;

static int find_library(void **state)
{
	char reason[64];
	void *library;

	(void)state;
	if (gpu_rt_open(&be.rt, 0, reason, sizeof(reason)) < 0)
		return -1;
	library = open_plain_library("");
	if (!library)
		return -1;
	alive = dlsym(library, "plain_alive");
	kernels = dlsym(library, "plain_kernels");
	last = dlsym(library, "plain_last");
	heuristics = dlsym(library, "plain_heuristics");
	few_rows = dlsym(library, "plain_few_rows");
	return alive && kernels && last && heuristics && few_rows ? 0 : -1;
}

/* For so many rows and fewer. */
static void offer(unsigned long rows, const int *ids, size_t n)
{
	*few_rows = rows;
	memcpy(kernels, ids, n * sizeof(*ids));
	kernels[n] = -1;
}

static struct gpu_gemm *library(void)
{
	char reason[256] = "";
	struct gpu_gemm *g = gpu_gemm_open(&be, reason, sizeof(reason));

	if (!g)
		fail_msg("%s", reason);
	return g;
}

static void done_with(struct gpu_gemm *g)
{
	gpu_gemm_close(g);
	assert_int_equal(*alive, 0);
}

enum { N = 40, K = 264, MOST_ROWS = 300 };

/* Of the first n rows of W. */
static struct gpu_gemm_desc part_of(uint32_t n, uint32_t rows, bool f32, bool accumulate)
{
	static uint16_t x[MOST_ROWS * (K + 8)], w[N * K];
	static float out[MOST_ROWS * N];

	for (size_t i = 0; i < sizeof(x) / sizeof(x[0]); i++)
		x[i] = (uint16_t)(0x3f00 + i % 101);
	for (size_t i = 0; i < sizeof(w) / sizeof(w[0]); i++)
		w[i] = (uint16_t)(0xbf00 + i % 89);
	return (struct gpu_gemm_desc){ .rows = rows,
		                       .n = n,
		                       .k = K,
		                       .x = x,
		                       .w = w,
		                       .out = out,
		                       .ld_x = K + 8,
		                       .ld_w = K,
		                       .ld_out = N,
		                       .out_is_f32 = f32,
		                       .accumulate = accumulate };
}

static struct gpu_gemm_desc product(uint32_t rows, bool f32, bool accumulate)
{
	return part_of(N, rows, f32, accumulate);
}

/* The kernel that ran for so many rows. */
static int kernel_of(struct gpu_gemm *g, uint32_t rows, bool f32, bool accumulate)
{
	const struct gpu_gemm_desc d = product(rows, f32, accumulate);

	*last = -1;
	assert_int_equal(gpu_gemm_run(g, &d), 0);
	return *last;
}

static void few_rows_have_their_own_kernel(void **state)
{
	(void)state;
	for (int form = 0; form < 4; form++) {
		const struct gpu_gemm_desc d = product(3, form & 1, form & 2);
		struct gpu_gemm *g = library();

		offer(64, (const int[]){ FORWARD_TOO }, 1);
		assert_int_equal(gpu_gemm_is_alike(g, &d), 1);
		for (uint32_t rows = 1; rows <= 64; rows += 9)
			assert_int_equal(kernel_of(g, rows, form & 1, form & 2), FORWARD_TOO);
		assert_int_equal(kernel_of(g, 65, form & 1, form & 2), FORWARD);
		assert_int_equal(kernel_of(g, MOST_ROWS, form & 1, form & 2), FORWARD);
		done_with(g);
	}
}

static void a_kernel_that_sums_otherwise_is_left_out(void **state)
{
	(void)state;
	for (int form = 0; form < 4; form++) {
		const struct gpu_gemm_desc d = product(3, form & 1, form & 2);
		struct gpu_gemm *g = library();

		offer(16, (const int[]){ BACKWARD, FAILING, SILENT, FORWARD_TOO, FORWARD }, 5);
		assert_int_equal(gpu_gemm_is_alike(g, &d), 1);
		assert_int_equal(kernel_of(g, 16, form & 1, form & 2), FORWARD_TOO);
		assert_int_equal(kernel_of(g, 17, form & 1, form & 2), FORWARD);
		done_with(g);
	}
}

/* All numbers of rows, since those that agree would give others' rows other bits than where they do not. */
static void without_any_that_agrees_one_kernel_serves_all(void **state)
{
	static const int offers[][2] = { { BACKWARD, BACKWARD }, { SILENT, BACKWARD }, { FAILING, SILENT } };

	(void)state;
	for (size_t i = 0; i < sizeof(offers) / sizeof(offers[0]); i++) {
		const struct gpu_gemm_desc d = product(200, false, false);
		struct gpu_gemm *g = library();

		offer(4, offers[i], 2);
		assert_int_equal(gpu_gemm_is_alike(g, &d), 0);
		for (uint32_t rows = 1; rows < 100; rows += 7)
			assert_int_equal(kernel_of(g, rows, false, false), FORWARD);
		done_with(g);
	}
}

/* Matrices side by side are one product at times. */
static void kinds_of_any_number_of_outputs_are_alike(void **state)
{
	(void)state;
	for (int form = 0; form < 4; form++) {
		const struct gpu_gemm_desc whole = product(3, form & 1, form & 2),
		                           part = part_of(N - 9, 3, form & 1, form & 2),
		                           less = part_of(N - 20, 3, form & 1, form & 2);
		struct gpu_gemm *g = library();

		offer(64, (const int[]){ FORWARD_TOO }, 1);
		assert_int_equal(gpu_gemm_is_alike(g, &whole), 1);
		assert_int_equal(gpu_gemm_is_alike(g, &part), 1);
		offer(STEADY_ROWS, (const int[]){ BACKWARD }, 1); /* so that is the model */
		assert_int_equal(gpu_gemm_is_alike(g, &less), 0);
		assert_int_equal(gpu_gemm_is_alike(g, &part), 1);
		done_with(g);
	}
}

/* The same of e4m3, four rows at least; what they are scaled by is the product's own again when it is multiplied. */
static void rows_in_eight_bits_are_a_kind_of_their_own(void **state)
{
	enum { ROWS = 64, COLS = 256, ACROSS = 4 };
	static uint8_t x[ROWS * COLS], w[N * COLS];
	static float x_scale[COLS / 128 * ROWS], w_scale[ACROSS], out[ROWS * N];
	const struct gk_mat m = {
		.type = KN_FP8_128, .rows = N, .cols = COLS, .ld = COLS, .values = w, .scales = w_scale
	};
	struct gpu_gemm8_desc d = { .rows = 12,
		                    .n = N,
		                    .k = COLS,
		                    .w = &m,
		                    .x = x,
		                    .x_scale = x_scale,
		                    .out = out,
		                    .ld_x = COLS,
		                    .ld_out = N,
		                    .out_is_f32 = true };
	static const int offers[][2] = { { BACKWARD, FORWARD_TOO }, { BACKWARD, SILENT } };

	(void)state;
	memset(x, 0x38, sizeof(x)); /* ones */
	memset(w, 0x40, sizeof(w)); /* twos */
	for (size_t i = 0; i < sizeof(x_scale) / sizeof(x_scale[0]); i++)
		x_scale[i] = 0.25f;
	for (size_t i = 0; i < ACROSS; i++)
		w_scale[i] = 0.5f;
	for (int i = 0; i < 2; i++) {
		struct gpu_gemm *g = library();

		offer(16, offers[i], 2);
		d.rows = 12;
		assert_int_equal(gpu_gemm8_is_alike(g, &d), i == 0);
		assert_int_equal(gpu_gemm8_run(g, &d), 0);
		assert_int_equal(*last, i == 0 ? FORWARD_TOO : FORWARD);
		assert_float_equal(out[0], 64, 0);
		assert_float_equal(out[12 * N - 1], 64, 0);
		d.rows = ROWS;
		assert_int_equal(gpu_gemm8_run(g, &d), 0);
		assert_int_equal(*last, FORWARD);
		assert_float_equal(out[ROWS * N - 1], 64, 0);
		done_with(g);
	}
}

static void a_kind_is_asked_for_once(void **state)
{
	struct gpu_gemm_desc d = product(3, false, false);
	struct gpu_gemm *g = library();
	int asked;

	(void)state;
	offer(64, (const int[]){ FORWARD_TOO }, 1);
	assert_int_equal(gpu_gemm_is_alike(g, &d), 1);
	asked = *heuristics;
	for (d.rows = 1; d.rows < MOST_ROWS; d.rows += 13) {
		assert_int_equal(gpu_gemm_is_alike(g, &d), 1);
		assert_int_equal(gpu_gemm_run(g, &d), 0);
	}
	assert_int_equal(*heuristics, asked);
	done_with(g);
}

static void a_kind_is_not_asked_for_while_a_graph_is_captured(void **state)
{
	const struct gpu_gemm_desc d = product(3, false, false), known = product(3, true, false);
	struct gpu_gemm *g = library();

	(void)state;
	offer(64, (const int[]){ FORWARD_TOO }, 1);
	assert_int_equal(gpu_gemm_is_alike(g, &known), 1);
	be.capturing = true;
	assert_int_equal(gpu_gemm_is_alike(g, &d), -ENOTSUP);
	assert_int_equal(gpu_gemm_run(g, &d), -ENOTSUP);
	assert_int_equal(gpu_gemm_is_alike(g, &known), 1);
	assert_int_equal(gpu_gemm_run(g, &known), 0);
	be.capturing = false;
	assert_int_equal(gpu_gemm_is_alike(g, &d), 1);
	assert_int_equal(kernel_of(g, 3, false, false), FORWARD_TOO);
	done_with(g);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(few_rows_have_their_own_kernel),
		cmocka_unit_test(a_kernel_that_sums_otherwise_is_left_out),
		cmocka_unit_test(without_any_that_agrees_one_kernel_serves_all),
		cmocka_unit_test(kinds_of_any_number_of_outputs_are_alike),
		cmocka_unit_test(rows_in_eight_bits_are_a_kind_of_their_own),
		cmocka_unit_test(a_kind_is_asked_for_once),
		cmocka_unit_test(a_kind_is_not_asked_for_while_a_graph_is_captured),
	};

	return cmocka_run_group_tests(tests, find_library, NULL);
}
