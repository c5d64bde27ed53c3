/* Values by which it shows in what order a kernel adds up a product: alike.h. */
#include "gpu/alike.h"

#include <math.h>

#include "gpu_test.h"

static float of_bits(uint16_t v)
{
	const uint32_t bits = (uint32_t)v << 16;
	float f;

	memcpy(&f, &bits, sizeof(f));
	return f;
}

static gk_alike asked(void *p, bool eight_bits, bool is_x, uint32_t rows, uint32_t cols, uint32_t ld)
{
	gk_alike a = {};

	a.p = p;
	a.eight_bits = eight_bits;
	a.is_x = is_x;
	a.rows = rows;
	a.cols = cols;
	a.ld = ld;
	return a;
}

/* Rows of either kind as floats; the caller's. */
static float *values_of(bool eight_bits, bool is_x, uint32_t rows, uint32_t cols, uint32_t ld)
{
	both<uint8_t> raw((size_t)rows * ld * 2);
	float *f = (float *)malloc((size_t)rows * ld * sizeof(float));
	const gk_alike a = asked(raw.device, eight_bits, is_x, rows, cols, ld);

	CHECK(gk_alike_values(&test_ctx, &a) == 0, "launch");
	test_sync("values");
	raw.down();
	if (eight_bits) {
		kn_dequantize(KN_FP8_128, raw.host, f, (size_t)rows * ld);
	} else {
		for (size_t i = 0; i < (size_t)rows * ld; i++)
			f[i] = of_bits(((uint16_t *)raw.host)[i]);
	}
	return f;
}

static void scales_of(both<float> &to, bool is_x, uint32_t rows, uint32_t cols, uint32_t ld)
{
	const gk_alike a = asked(to.device, false, is_x, rows, cols, ld);

	CHECK(gk_alike_scales(&test_ctx, &a) == 0, "launch");
	test_sync("scales");
	to.down();
}

GPU_TEST(sums_of_these_values_are_zero_but_for_rounding)
{
	enum { ROWS = 37, N = 19, COLS = 768, LD = 832, BLOCKS = COLS / 128 };

	for (int eight_bits = 0; eight_bits < 2; eight_bits++) {
		float *const x = values_of(eight_bits, true, ROWS, COLS, LD), *const w = values_of(eight_bits, false, N,
		                                                                                   COLS, LD);
		both<float> x_scale((size_t)BLOCKS * ROWS), w_scale((size_t)BLOCKS);
		uint32_t n_other = 0, n_wrong = 0;

		scales_of(x_scale, true, BLOCKS, ROWS, ROWS);
		scales_of(w_scale, false, 1, BLOCKS, BLOCKS);
		for (uint32_t i = 0; i < ROWS; i++) {
			for (uint32_t o = 0; o < N; o++) {
				float there = 0, back = 0, term[COLS];

				for (uint32_t k = 0; k < COLS; k++)
					term[k] = x[(size_t)i * LD + k] * w[(size_t)o * LD + k] *
					          (eight_bits ? x_scale.host[k / 128 * ROWS + i] * w_scale.host[k / 128]
					                      : 1.0f);
				for (uint32_t k = 0; k < COLS / 2; k++)
					n_wrong += !(term[k] == -term[k + COLS / 2] && term[k] != 0);
				for (uint32_t k = 0; k < COLS; k++) {
					there += term[k];
					back += term[COLS - 1 - k];
				}
				n_other += there != back;
			}
			for (uint32_t k = COLS; k < LD; k++)
				n_wrong += x[(size_t)i * LD + k] != 0;
		}
		CHECK(n_wrong == 0, "%u of %u, %d", n_wrong, ROWS * N * COLS / 2, eight_bits);
		CHECK(n_other > ROWS * N * 9 / 10, "only %u of %u sums show their order, %d", n_other, ROWS * N,
		      eight_bits);
		free(x);
		free(w);
	}
}

GPU_TEST(a_row_of_these_values_is_the_same_among_any_number)
{
	enum { COLS = 100, LD = 128 };
	float *const few = values_of(false, true, 3, COLS, LD), *const many = values_of(false, true, 300, COLS, LD);
	both<float> few_scales((size_t)4 * 3), many_scales((size_t)4 * 300);
	uint32_t n_alike = 0;

	CHECK(memcmp(few, many, 3 * LD * sizeof(float)) == 0, "rows");
	for (uint32_t i = 1; i < 300; i++)
		n_alike += memcmp(many, many + (size_t)i * LD, COLS * sizeof(float)) == 0;
	CHECK(n_alike == 0, "%u rows are like the first one", n_alike);
	scales_of(few_scales, true, 4, 3, 3);
	scales_of(many_scales, true, 4, 300, 300);
	for (uint32_t b = 0; b < 4; b++)
		CHECK(memcmp(few_scales.host + b * 3, many_scales.host + b * 300, 3 * sizeof(float)) == 0, "scales");
	free(few);
	free(many);
}

GPU_TEST(words_that_differ_are_counted)
{
	enum { N = 70001 };
	both<uint32_t> a(N), b(N), n(1);

	for (int32_t wrong : { 0, 1, 3, 29 }) {
		for (uint32_t i = 0; i < N; i++)
			a.host[i] = b.host[i] = i * 77;
		for (int32_t k = 0; k < wrong; k++)
			b.host[(N - 1) - k * 2411] ^= 1u << k;
		a.up();
		b.up();
		CHECK(gk_alike_count(&test_ctx, a.device, b.device, N, n.device) == 0, "launch");
		test_sync("count");
		n.down();
		CHECK(n.host[0] == (uint32_t)wrong, "%u instead of %d", n.host[0], wrong);
	}
}

GPU_TEST(what_is_added_to_has_both_signs)
{
	enum { N = 5000 };
	both<float> full(N);
	both<uint16_t> half(N);
	uint32_t n_below = 0, n_half_below = 0;

	CHECK(gk_alike_summands(&test_ctx, full.device, GK_F32, N / 50, 50) == 0 &&
	              gk_alike_summands(&test_ctx, half.device, GK_BF16, N / 50, 50) == 0,
	      "launch");
	test_sync("summands");
	full.down();
	half.down();
	for (uint32_t i = 0; i < N; i++) {
		CHECK(fabsf(full.host[i]) < 2e-3f &&
		              fabsf(of_bits(half.host[i]) - full.host[i]) <= fabsf(full.host[i]) / 128,
		      "%g", (double)full.host[i]);
		n_below += full.host[i] < 0;
		n_half_below += half.host[i] >> 15;
	}
	CHECK(n_below > N / 3 && n_below < N * 2 / 3 && n_half_below == n_below, "%u, %u of %d", n_below, n_half_below,
	      N);
}
