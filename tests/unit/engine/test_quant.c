/* Element types: hand-made blocks with known values, and round trips with stated error bounds. */
#include "test.h"

#include <errno.h>
#include <float.h>
#include <math.h>

#include "kernels.h"

enum { N = 256 * 64 };

static const enum kn_dtype all_types[] = { KN_F32,  KN_F16,  KN_BF16, KN_Q8_0, KN_Q4_0, KN_Q4_1,
	                                   KN_Q5_0, KN_Q5_1, KN_Q4_K, KN_Q5_K, KN_Q6_K };

static uint64_t rng = 88172645463325252u;

static float gaussian(void)
{
	float sum = 0.0f;

	for (int i = 0; i < 12; i++) {
		rng ^= rng << 13;
		rng ^= rng >> 7;
		rng ^= rng << 17;
		sum += (float)(rng >> 40) * 0x1p-24f;
	}
	return sum - 6.0f;
}

static void fill(float *x, size_t n, float sigma)
{
	for (size_t i = 0; i < n; i++)
		x[i] = sigma * gaussian();
}

static double relative_rmse(enum kn_dtype t, const float *x, size_t n)
{
	uint8_t *bytes = malloc(kn_row_bytes(t, n));
	float *y = malloc(n * sizeof(*y));
	double e = 0, s = 0;

	assert_non_null(bytes);
	assert_non_null(y);
	kn_quantize(t, x, bytes, n);
	kn_dequantize(t, bytes, y, n);
	for (size_t i = 0; i < n; i++) {
		e += ((double)x[i] - y[i]) * ((double)x[i] - y[i]);
		s += (double)x[i] * x[i];
	}
	free(bytes);
	free(y);
	return sqrt(e / s);
}

/* Relative RMS error on Gaussian values. Rounding to the nearest level with the peak on the last one
 * (no search) gives about .0058 .092 .077 .045 .037 on the 32-value types; the bounds hold the search. */
static void gaussian_values_survive_every_type_within_its_bound(void **state)
{
	static const struct {
		enum kn_dtype t;
		double bound;
	} cases[] = {
		{ KN_F32, 0.0 },     { KN_F16, 0.00025 }, { KN_BF16, 0.0018 }, { KN_Q8_0, 0.0050 },
		{ KN_Q4_0, 0.0825 }, { KN_Q4_1, 0.0705 }, { KN_Q5_0, 0.0407 }, { KN_Q5_1, 0.0345 },
		{ KN_Q4_K, 0.0710 }, { KN_Q5_K, 0.0355 }, { KN_Q6_K, 0.0168 }, { KN_MXFP4, 0.1200 },
	};
	float *x = malloc(N * sizeof(*x));

	(void)state;
	assert_non_null(x);
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		double e;

		fill(x, N, 0.02f);
		e = relative_rmse(cases[i].t, x, N);
		if (e > cases[i].bound)
			fail_msg("%s: relative error %.6f above %.6f", kn_dtype_info(cases[i].t)->name, e,
			         cases[i].bound);
	}
	free(x);
}

/* An outlier of 20 sigma in each block must neither wreck the block nor be lost. */
static void an_outlier_keeps_its_value(void **state)
{
	float x[256], y[256];
	uint8_t bytes[256 * 4];

	(void)state;
	for (size_t t = 0; t < sizeof(all_types) / sizeof(all_types[0]); t++) {
		fill(x, 256, 0.02f);
		for (int i = 0; i < 256; i += 32)
			x[i] = i % 64 ? 0.4f : -0.4f;
		kn_quantize(all_types[t], x, bytes, 256);
		kn_dequantize(all_types[t], bytes, y, 256);
		for (int i = 0; i < 256; i += 32)
			assert_float_equal(y[i], x[i], 0.03f);
	}
}

static void zeros_and_constants_are_kept(void **state)
{
	static const float values[] = { 0.0f, 1.0f, -1.0f, 0.015625f, -3.0f, 100.0f };
	float x[256], y[256];
	uint8_t bytes[256 * 4];

	(void)state;
	for (size_t t = 0; t < sizeof(all_types) / sizeof(all_types[0]); t++) {
		for (size_t v = 0; v < sizeof(values) / sizeof(values[0]); v++) {
			for (int i = 0; i < 256; i++)
				x[i] = values[v];
			kn_quantize(all_types[t], x, bytes, 256);
			kn_dequantize(all_types[t], bytes, y, 256);
			for (int i = 0; i < 256; i++)
				assert_float_equal(y[i], x[i], fabsf(x[i]) * 0.001f + 1e-4f);
		}
	}
}

/* What is representable comes back exactly: quantizing the decoded values again changes nothing. */
static void requantizing_is_stable(void **state)
{
	float x[256], y[256], z[256];
	uint8_t bytes[256 * 4];

	(void)state;
	for (size_t t = 0; t < sizeof(all_types) / sizeof(all_types[0]); t++) {
		double e = 0, s = 0;

		fill(x, 256, 1.0f);
		kn_quantize(all_types[t], x, bytes, 256);
		kn_dequantize(all_types[t], bytes, y, 256);
		kn_quantize(all_types[t], y, bytes, 256);
		kn_dequantize(all_types[t], bytes, z, 256);
		for (int i = 0; i < 256; i++) {
			e += (y[i] - z[i]) * (y[i] - z[i]);
			s += y[i] * y[i];
		}
		assert_true(sqrt(e / s) < 0.012);
	}
}

static void hostile_values_give_finite_blocks(void **state)
{
	static const float bad[] = { NAN, INFINITY, -INFINITY, FLT_MAX, -FLT_MAX, 1e-42f, 0.0f, 1.0f };
	float x[256], y[256];
	uint8_t bytes[256 * 4];

	(void)state;
	for (size_t t = 3; t < sizeof(all_types) / sizeof(all_types[0]); t++) {
		for (int round = 0; round < 50; round++) {
			for (int i = 0; i < 256; i++) {
				rng ^= rng << 13, rng ^= rng >> 7, rng ^= rng << 17;
				x[i] = bad[rng % 8];
			}
			kn_quantize(all_types[t], x, bytes, 256);
			kn_dequantize(all_types[t], bytes, y, 256);
			for (int i = 0; i < 256; i++)
				assert_true(isfinite(y[i]));
		}
	}
}

static void any_block_bytes_decode_without_trouble(void **state)
{
	uint8_t bytes[256 * 4];
	float y[256];

	(void)state;
	for (size_t t = 0; t < sizeof(all_types) / sizeof(all_types[0]); t++) {
		for (int round = 0; round < 200; round++) {
			for (size_t i = 0; i < sizeof(bytes); i++) {
				rng ^= rng << 13, rng ^= rng >> 7, rng ^= rng << 17;
				bytes[i] = (uint8_t)rng;
			}
			kn_dequantize(all_types[t], bytes, y, 256);
		}
	}
}

/* ---- Hand-made blocks; 0x3c00 is 1.0, 0x3800 0.5, 0xc000 -2.0 in binary16 --------------------------- */

static void q8_0_block_decodes(void **state)
{
	uint8_t b[34] = { 0x00, 0x38, 1, 0xff, 127, 0x80 };
	float y[32];

	(void)state;
	kn_dequantize(KN_Q8_0, b, y, 32);
	assert_float_equal(y[0], 0.5f, 0);
	assert_float_equal(y[1], -0.5f, 0);
	assert_float_equal(y[2], 63.5f, 0);
	assert_float_equal(y[3], -64.0f, 0);
	assert_float_equal(y[4], 0.0f, 0);
}

static void q4_0_block_decodes(void **state)
{
	uint8_t b[18] = { 0x00, 0x3c, 0xf0, 0x19 };
	float y[32];

	(void)state;
	kn_dequantize(KN_Q4_0, b, y, 32);
	assert_float_equal(y[0], -8.0f, 0); /* low nibble of byte 0 */
	assert_float_equal(y[16], 7.0f, 0); /* its high nibble */
	assert_float_equal(y[1], 1.0f, 0);
	assert_float_equal(y[17], -7.0f, 0);
}

static void q4_1_and_q5_blocks_decode(void **state)
{
	uint8_t q41[20] = { 0x00, 0x3c, 0x00, 0xc0, 0xf3 };
	uint8_t q50[22] = { 0x00, 0x3c, 0x01, 0x00, 0x02, 0x00, 0xf3, 0x40 };
	uint8_t q51[24] = { 0x00, 0x3c, 0x00, 0xc0, 0x01, 0x00, 0x02, 0x00, 0xf3, 0x40 };
	float y[32];

	(void)state;
	kn_dequantize(KN_Q4_1, q41, y, 32);
	assert_float_equal(y[0], 1.0f, 0);
	assert_float_equal(y[16], 13.0f, 0);
	assert_float_equal(y[1], -2.0f, 0);
	kn_dequantize(KN_Q5_0, q50, y, 32);
	assert_float_equal(y[0], 3.0f, 0);   /* 3 + 16 - 16 */
	assert_float_equal(y[16], -1.0f, 0); /* 15 - 16 */
	assert_float_equal(y[17], 4.0f, 0);  /* 4 + 16 - 16, bit 17 */
	assert_float_equal(y[1], -16.0f, 0);
	kn_dequantize(KN_Q5_1, q51, y, 32);
	assert_float_equal(y[0], 17.0f, 0);
	assert_float_equal(y[16], 13.0f, 0);
	assert_float_equal(y[17], 18.0f, 0);
}

static void q4_k_block_decodes(void **state)
{
	uint8_t b[144] = { 0 };
	float y[256];

	(void)state;
	b[1] = 0x3c;       /* d = 1 */
	b[3] = 0x38;       /* dmin = 0.5 */
	b[4] = 0xc5;       /* sc[0] = 5, top bits 3 for sc[4] */
	b[8] = 0x47;       /* mn[0] = 7, top bits 1 for mn[4] */
	b[12] = 0xa9;      /* sc[4] = 9 | 3 << 4 = 57, mn[4] = 10 | 1 << 4 = 26 */
	b[16] = 0xf2;      /* sub-block 0 value 0: 2; sub-block 1 value 0: 15 (sc[1] = 0) */
	b[16 + 64] = 0x03; /* sub-block 4 value 0: 3 */
	kn_dequantize(KN_Q4_K, b, y, 256);
	assert_float_equal(y[0], 5.0f * 2 - 0.5f * 7, 0);
	assert_float_equal(y[1], -3.5f, 0);
	assert_float_equal(y[32], 0.0f, 0);
	assert_float_equal(y[128], 57.0f * 3 - 13.0f, 0);
}

static void q5_k_block_decodes(void **state)
{
	uint8_t b[176] = { 0 };
	float y[256];

	(void)state;
	b[1] = 0x3c;
	b[4] = 2, b[5] = 3; /* sc[0], sc[1] */
	b[16] = 0x03;       /* fifth bits of value 0 in sub-blocks 0 and 1 */
	b[48] = 0x51;
	kn_dequantize(KN_Q5_K, b, y, 256);
	assert_float_equal(y[0], 2.0f * 17, 0);
	assert_float_equal(y[32], 3.0f * 21, 0);
	assert_float_equal(y[1], 0.0f, 0);
}

static void q6_k_block_decodes(void **state)
{
	uint8_t b[210] = { 0 };
	float y[256];

	(void)state;
	b[209] = 0x3c;
	b[192] = 2, b[192 + 2] = 0xff, b[192 + 4] = 3, b[192 + 6] = 4, b[192 + 15] = 1;
	b[0] = 0x51;            /* value 0 low 1; value 64 low 5 */
	b[32] = 0x72;           /* value 32 low 2; value 96 low 7 */
	b[128] = 0xe4;          /* tops of values 0, 32, 64, 96: 0, 1, 2, 3 */
	b[64 + 32 + 31] = 0xf0; /* second half, value 127 (k 3, l 31): low 15 */
	b[128 + 32 + 31] = 0xc0;
	kn_dequantize(KN_Q6_K, b, y, 256);
	assert_float_equal(y[0], 2.0f * (1 - 32), 0);
	assert_float_equal(y[32], -1.0f * (18 - 32), 0);
	assert_float_equal(y[64], 3.0f * (37 - 32), 0);
	assert_float_equal(y[96], 4.0f * (55 - 32), 0);
	assert_float_equal(y[255], 63.0f - 32, 0);
}

/* All values of the type, at a scale of 2^3, and what lies between rounds to those whose last bit is 0. */
static void mxfp4_block_decodes(void **state)
{
	static const float values[8] = { 0, 4, 8, 12, 16, 24, 32, 48 };
	uint8_t block[17] = { 130 }, again[17];
	float x[32], y[32] = { 0.2f, 0.25f, 0.75f, -1.25f, 1.75f, 2.5f, 3.5f, 5, -5.1f, 6 };

	(void)state;
	for (int j = 0; j < 16; j++)
		block[1 + j] = (uint8_t)(j | (15 - j) << 4);
	kn_dequantize(KN_MXFP4, block, x, 32);
	for (int j = 0; j < 16; j++) {
		float v = values[j & 7], w = values[(15 - j) & 7];

		assert_true(x[j] == (j & 8 ? -v : v));
		assert_true(x[j + 16] == ((15 - j) & 8 ? -w : w));
	}
	kn_quantize(KN_MXFP4, x, again, 32);
	assert_int_equal(again[0], 130);
	assert_memory_equal(again + 2, block + 2, 6); /* but for minus zero */
	kn_quantize(KN_MXFP4, y, again, 32);
	kn_dequantize(KN_MXFP4, again, x, 32);
	for (int j = 0; j < 10; j++) {
		static const float want[] = { 0, 0, 1, -1, 2, 2, 4, 4, -6, 6 };

		assert_true(x[j] == want[j]);
	}
	block[0] = 255;
	kn_dequantize(KN_MXFP4, block, x, 32);
	assert_true(isnan(x[3]));
}

/* Each of the 256 bytes is what it says and comes back as itself; halves go to the even neighbour. */
static void every_fp8_survives_a_round_trip(void **state)
{
	static const struct {
		float x;
		uint8_t b;
	} cases[] = { { 0x1p-9f, 1 },         { 0x1.8p-10f, 1 }, { 0x1p-10f, 0 },     { 0.0625f * 17, 0x38 },
		      { 0.0625f * 19, 0x3a }, { 0x1.8p-9f, 2 },  { 448, 0x7e },       { 1e30f, 0x7e },
		      { -500, 0xfe },         { -0.0f, 0x80 },   { 0x1.fp-7f, 0x08 }, { 240, 0x77 } };

	(void)state;
	for (int i = 0; i < 256; i++) {
		uint8_t b = (uint8_t)i, again;
		float x;

		kn_dequantize(KN_FP8_128, &b, &x, 1);
		assert_true(isnan(x) == ((i & 127) == 127));
		kn_quantize(KN_FP8_128, &x, &again, 1);
		assert_int_equal(again, b);
	}
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		uint8_t b;

		kn_quantize(KN_FP8_128, &cases[i].x, &b, 1);
		assert_int_equal(b, cases[i].b);
	}
}

static void halves_round_to_nearest_even(void **state)
{
	static const struct {
		float f;
		uint16_t f16, bf16;
	} cases[] = {
		{ 1.0f, 0x3c00, 0x3f80 },           { -2.5f, 0xc100, 0xc020 },
		{ 65504.0f, 0x7bff, 0x4780 },       { 65519.0f, 0x7bff, 0x4780 },
		{ 65520.0f, 0x7c00, 0x4780 },       { 1.00048828125f, 0x3c00, 0x3f80 }, /* tie to even */
		{ 1.00146484375f, 0x3c02, 0x3f80 },                                     /* tie to even, upwards */
		{ 0x1p-24f, 0x0001, 0x3380 },       { 0x1p-25f, 0x0000, 0x3300 },       /* tie to zero */
		{ 0x1.8p-24f, 0x0002, 0x33c0 },     { 0x1.ff8p-15f, 0x03ff, 0x3880 },
		{ -0.0f, 0x8000, 0x8000 },          { INFINITY, 0x7c00, 0x7f80 },
		{ -INFINITY, 0xfc00, 0xff80 },
	};

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		uint8_t b[2];

		kn_quantize(KN_F16, &cases[i].f, b, 1);
		assert_int_equal(b[0] | b[1] << 8, cases[i].f16);
		kn_quantize(KN_BF16, &cases[i].f, b, 1);
		assert_int_equal(b[0] | b[1] << 8, cases[i].bf16);
	}
}

static void every_half_survives_a_round_trip(void **state)
{
	static const enum kn_dtype types[] = { KN_F16, KN_BF16 };

	(void)state;
	for (size_t t = 0; t < 2; t++) {
		for (unsigned h = 0; h < 65536; h++) {
			uint8_t b[2] = { (uint8_t)h, (uint8_t)(h >> 8) }, c[2];
			float f;

			kn_dequantize(types[t], b, &f, 1);
			kn_quantize(types[t], &f, c, 1);
			if (isnan(f))
				kn_dequantize(types[t], c, &f, 1), assert_true(isnan(f));
			else
				assert_memory_equal(b, c, 2);
		}
	}
}

static void row_bytes_refuse_partial_blocks_and_overflow(void **state)
{
	(void)state;
	assert_int_equal(kn_row_bytes(KN_Q4_0, 64), 36);
	assert_int_equal(kn_row_bytes(KN_Q4_0, 33), 0);
	assert_int_equal(kn_row_bytes(KN_Q6_K, 512), 420);
	assert_int_equal(kn_row_bytes(KN_Q6_K, 128), 0);
	assert_int_equal(kn_row_bytes(KN_F32, SIZE_MAX), 0);
	assert_int_equal(kn_row_bytes(KN_Q8_0, SIZE_MAX - 31), 0);
}

static void names_parse_in_any_case(void **state)
{
	struct err err = { 0 };
	enum kn_dtype t;

	(void)state;
	for (size_t i = 0; i < sizeof(all_types) / sizeof(all_types[0]); i++) {
		assert_int_equal(kn_dtype_parse(kn_dtype_info(all_types[i])->name, &t, NULL), 0);
		assert_int_equal(t, all_types[i]);
	}
	assert_int_equal(kn_dtype_parse("fp8", &t, NULL), 0);
	assert_int_equal(t, KN_FP8_128);
	assert_int_equal(kn_dtype_parse("MXFP4", &t, NULL), 0);
	assert_int_equal(t, KN_MXFP4);
	assert_int_equal(kn_dtype_parse("q4_k", &t, NULL), 0);
	assert_int_equal(t, KN_Q4_K);
	assert_int_equal(kn_dtype_parse("q3_k", &t, &err), -EINVAL);
	assert_non_null(strstr(err.msg, "q3_k"));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(gaussian_values_survive_every_type_within_its_bound),
		cmocka_unit_test(an_outlier_keeps_its_value),
		cmocka_unit_test(zeros_and_constants_are_kept),
		cmocka_unit_test(requantizing_is_stable),
		cmocka_unit_test(hostile_values_give_finite_blocks),
		cmocka_unit_test(any_block_bytes_decode_without_trouble),
		cmocka_unit_test(q8_0_block_decodes),
		cmocka_unit_test(q4_0_block_decodes),
		cmocka_unit_test(q4_1_and_q5_blocks_decode),
		cmocka_unit_test(q4_k_block_decodes),
		cmocka_unit_test(q5_k_block_decodes),
		cmocka_unit_test(q6_k_block_decodes),
		cmocka_unit_test(mxfp4_block_decodes),
		cmocka_unit_test(every_fp8_survives_a_round_trip),
		cmocka_unit_test(halves_round_to_nearest_even),
		cmocka_unit_test(every_half_survives_a_round_trip),
		cmocka_unit_test(row_bytes_refuse_partial_blocks_and_overflow),
		cmocka_unit_test(names_parse_in_any_case),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
