/* Products by warpgroups, against kernels/ref on the same values: on Hopper, and as a model on the host. bfloat16; FP8
 * weights with rows in eight bits, where an instruction keeps 14 bits of a sum: a few in ten thousand of the result. */
#include <errno.h>

#include "gpu_test.h"

static const double TOL_EIGHT = 2e-3;

/* A matrix in memory as a product takes it, and what it stands for. */
struct eight_mat {
	both<uint8_t> packed;
	float *values;
	struct gk_mat mat;
	struct kn_mat ref;

	eight_mat(uint32_t rows, uint32_t cols) : packed(gk_mat_bytes(GK_FP8_128, rows, cols))
	{
		uint8_t *raw = (uint8_t *)malloc((size_t)rows * cols);

		CHECK(gk_mat_describe(&mat, GK_FP8_128, rows, cols, packed.device) == 0, "describe");
		both<float> scale((size_t)gk_mat_scale_lines(&mat) * gk_mat_scale_stride(&mat));

		values = (float *)malloc(sizeof(float) * rows * cols);
		for (size_t i = 0; i < scale.n; i++)
			scale.host[i] = 0.001f + (float)(test_random() % 1000) * 1e-5f;
		test_normals(values, (size_t)rows * cols, 100.0f);
		kn_quantize(KN_FP8_128, values, raw, (size_t)rows * cols);
		kn_dequantize(KN_FP8_128, raw, values, (size_t)rows * cols);
		for (size_t i = 0; i < (size_t)rows * cols; i++)
			values[i] *= scale.host[i / cols / 128 * gk_mat_scale_stride(&mat) + i % cols / 128];
		(void)gpu_copy_in((void *)mat.scales, scale.host, scale.n * sizeof(float));
		pack(raw, rows, cols);
		free(raw);
		ref = {};
		ref.dtype = KN_F32;
		ref.rows = rows;
		ref.cols = cols;
		ref.data = values;
	}
	void pack(const uint8_t *raw, uint32_t rows, uint32_t cols)
	{
		both<uint8_t> all((size_t)rows * cols);

		memcpy(all.host, raw, all.n);
		all.up();
		CHECK(gk_mat_pack(&test_ctx, &mat, all.device, 0, rows) == 0, "pack");
		test_sync("pack");
	}
	~eight_mat()
	{
		free(values);
	}
};

/* Rows in eight bits, and what they stand for. */
struct eight_rows {
	uint32_t n, dim, ld, ld_scale;
	both<uint8_t> q;
	both<float> scale;
	float *values; /* [n, dim] */

	eight_rows(uint32_t rows, uint32_t cols)
	    : n(rows), dim(cols), ld((cols + 63) / 64 * 64), ld_scale((rows + 3) / 4 * 4), q((size_t)rows * ld),
	      scale((size_t)((cols + 127) / 128) * ld_scale)
	{
		values = (float *)malloc(sizeof(float) * n * dim);
	}
	~eight_rows()
	{
		free(values);
	}
	void random()
	{
		test_rows x(GK_BF16, n, dim, dim);
		struct gk_quantize a = {};

		x.random(2.0f);
		a.q = q.device;
		a.ld = ld;
		a.scale = scale.device;
		a.ld_scale = ld_scale;
		a.x = x.view();
		a.rows = test_all(n);
		a.dim = dim;
		CHECK(gk_quantize_rows(&test_ctx, &a) == 0, "quantize");
		test_sync("quantize");
		down();
	}
	/* As another kernel wrote them. */
	void down()
	{
		float *line = (float *)malloc(sizeof(float) * ld);

		q.down();
		scale.down();
		for (uint32_t i = 0; i < n; i++) {
			kn_dequantize(KN_FP8_128, q.host + (size_t)i * ld, line, ld);
			for (uint32_t k = 0; k < dim; k++)
				values[(size_t)i * dim + k] = line[k] * scale.host[(size_t)(k / 128) * ld_scale + i];
		}
		free(line);
	}
};

struct eight_case {
	uint32_t bound, n_rows, k, n, elem;
	bool accumulate;
	uint32_t columns, parts;
	uint32_t n_sm;
};

static void fill(struct gk_product *l, const eight_case &c, const eight_rows &x, const both<uint32_t> &n_rows)
{
	l->x = x.q.device;
	l->x_scale = x.scale.device;
	l->ld_x = x.ld;
	l->ld_scale = x.ld_scale;
	l->rows = { c.bound, n_rows.device };
	l->n = c.n;
	l->tiles = { c.columns, c.parts };
}

/* What lies beside the result is as it was, behind the rows that are there too. want: rows of out's stride. */
static void launch_and_compare(const struct gk_product &l, const eight_case &c, test_rows &out, const float *want,
                               double tolerance, int index)
{
	const uint32_t ld = out.ld;
	double d;

	test_ctx.n_sm = c.n_sm;
	CHECK(gk_product_hopper(&test_ctx, &l) == 0, "case %d", index);
	test_sync("product");
	out.down();
	d = test_distance(out.host, ld, want, ld, c.n_rows, c.n);
	CHECK(d < tolerance, "case %d: %g", index, d);
	for (uint32_t i = 0; i < c.bound; i++) {
		const uint32_t from = i < c.n_rows ? c.n : 0;

		CHECK(memcmp(out.host + (size_t)i * ld + from, want + (size_t)i * ld + from,
		             sizeof(float) * (ld - from)) == 0,
		      "case %d: row %u was touched", index, i);
	}
}

static void product(const eight_case &c, int index)
{
	const uint32_t ld = c.n + 8;
	eight_mat w(c.n, c.k);
	eight_rows x(c.bound, c.k);
	test_rows out(c.elem, c.bound, c.n, ld);
	both<uint32_t> n_rows(1);
	float *want = (float *)malloc(sizeof(float) * c.bound * ld);
	const struct kn_matmul job = { &w.ref, want, ld, nullptr, c.accumulate };
	struct gk_product l = {};

	x.random();
	out.random(20.0f);
	memcpy(want, out.host, sizeof(float) * c.bound * ld);
	n_rows.host[0] = c.n_rows;
	n_rows.up();
	test_ref->ops->matmul(test_ref, &job, 1, x.values, c.k, c.n_rows);
	fill(&l, c, x, n_rows);
	l.w[0] = w.mat;
	l.out = out.view();
	l.accumulate = c.accumulate;
	launch_and_compare(l, c, out, want, c.elem == GK_F32 ? TOL_EIGHT : TOL_BF16, index);
	free(want);
}

GPU_TEST(rows_in_eight_bits_meet_fp8_weights_by_warpgroups)
{
	test_hopper device;

	if (test_ctx.sm != 90)
		return;
	const eight_case cases[] = {
		/* the residual stream: pairs of blocks, one of them without rows; more steps than the ring has places
		 */
		{ 300, 275, 704, 272, GK_F32, true, 256, 1, 4 },
		/* tiles of 128 columns, of which two blocks bring half each */
		{ 260, 260, 960, 144, GK_BF16, false, 128, 1, 2 },
		{ 130, 7, 192, 400, GK_BF16, true, 256, 1, 2 }, /* tiles without rows */
		{ 40, 37, 1216, 160, GK_F32, true, 128, 3, 8 }, /* parts of a sum */
		{ 129, 129, 512, 272, GK_F32, true, 128, 2, 3 },
		{ 100, 100, 336, 272, GK_BF16, false, 128, 2, 8 },
		{ 136, 136, 128, 528, GK_F32, false, 256, 1, 1 },
		{ 20, 18, 2064, 128, GK_F32, true, 0, 0, 8 }, /* as it thinks best */
		{ 129, 129, 128, 304, GK_BF16, false, 0, 0, 8 },
	};

	for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++)
		product(cases[i], (int)i);
}

/* Bands of rows: those behind the first 2,048 are another's. */
GPU_TEST(long_prompts_meet_fp8_weights_band_by_band)
{
	test_hopper device;

	if (test_ctx.sm != 90)
		return;
	const eight_case c = { 2180, 2180, 16, 144, GK_F32, false, 128, 1, 6 };

	product(c, 0);
}

static void gated(const eight_case &c, int index)
{
	eight_mat gate(c.n, c.k), up(c.n, c.k);
	eight_rows x(c.bound, c.k), y(c.bound, c.n);
	both<uint32_t> n_rows(1);
	float *g = (float *)malloc(sizeof(float) * c.bound * c.n), *u = (float *)malloc(sizeof(float) * c.bound * c.n);
	const struct kn_matmul jobs[] = { { &gate.ref, g, c.n, nullptr, 0 }, { &up.ref, u, c.n, nullptr, 0 } };
	struct gk_product l = {};

	x.random();
	n_rows.host[0] = c.n_rows;
	n_rows.up();
	test_ref->ops->matmul(test_ref, jobs, 2, x.values, c.k, c.n_rows);
	test_ref->ops->act_mul(test_ref, KN_ACT_SILU, g, c.n, g, c.n, u, c.n, c.n_rows, c.n);
	fill(&l, c, x, n_rows);
	l.w[0] = gate.mat;
	l.w[1] = up.mat;
	l.gated = true;
	l.act = KN_ACT_SILU;
	l.q = y.q.device;
	l.q_scale = y.scale.device;
	l.ld_q = y.ld;
	l.ld_q_scale = y.ld_scale;
	test_ctx.n_sm = c.n_sm;
	CHECK(gk_product_hopper(&test_ctx, &l) == 0, "case %d", index);
	test_sync("gated");
	y.down();
	for (uint32_t i = 0; i < c.n_rows; i++) {
		for (uint32_t first = 0; first < c.n; first += 128) {
			const float s = y.scale.host[(size_t)(first / 128) * y.ld_scale + i];
			float most = 1e-20f;

			for (uint32_t k = first; k < c.n && k < first + 128; k++)
				most = fmaxf(most, fabsf(g[(size_t)i * c.n + k]));
			CHECK(fabsf(s * 448.0f - most) < 1e-2f * most, "case %d, row %u: greatest %g for %g", index, i,
			      s * 448.0f, most);
			/* 3 bits of fraction, steps of 2^-9 at the least; and what the sums are off by */
			for (uint32_t k = first; k < c.n && k < first + 128; k++) {
				const float w = g[(size_t)i * c.n + k], v = y.values[(size_t)i * c.n + k];

				CHECK(fabsf(v - w) <= fabsf(w) / 16.0f * 1.01f + s * 0.001f + 3e-3f * most,
				      "case %d, row %u, column %u: %g for %g", index, i, k, v, w);
			}
		}
		for (uint32_t k = c.n; k < y.ld; k++)
			CHECK(y.q.host[(size_t)i * y.ld + k] == 0, "case %d, row %u: something beyond", index, i);
	}
	for (uint32_t i = c.n_rows; i < c.bound; i++)
		CHECK(y.q.host[(size_t)i * y.ld] == 0xff, "case %d: row %u was touched", index, i);
	free(g);
	free(u);
}

GPU_TEST(gate_and_up_leave_rows_in_eight_bits_by_warpgroups)
{
	test_hopper device;

	if (test_ctx.sm != 90)
		return;
	const eight_case cases[] = {
		{ 132, 131, 640, 272, 0, false, 0, 1, 2 },
		{ 64, 64, 128, 176, 0, false, 0, 1, 2 },
		{ 150, 150, 64, 128, 0, false, 0, 1, 1 },
	};

	for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++)
		gated(cases[i], (int)i);
}

/* bfloat16; gated: silu(x W_0^T) * (x W_1^T). */
static void product16(const eight_case &c, bool gated, int index)
{
	const uint32_t ld = c.n + 8;
	test_mat w(KN_BF16, c.n, c.k, 1.0f), up(KN_BF16, c.n, c.k, 1.0f);
	test_rows x(GK_BF16, c.bound, c.k, (c.k + 7) / 8 * 8), out(c.elem, c.bound, c.n, ld);
	both<uint32_t> n_rows(1);
	float *want = (float *)malloc(sizeof(float) * c.bound * ld), *u = (float *)malloc(sizeof(float) * c.bound * ld);
	const struct kn_matmul jobs[] = { { &w.ref, want, ld, nullptr, c.accumulate }, { &up.ref, u, ld, nullptr, 0 } };
	struct gk_product l = {};

	x.random(1.0f);
	out.random(20.0f);
	memcpy(want, out.host, sizeof(float) * c.bound * ld);
	n_rows.host[0] = c.n_rows;
	n_rows.up();
	test_ref->ops->matmul(test_ref, jobs, gated ? 2 : 1, x.host, x.ld, c.n_rows);
	if (gated)
		test_ref->ops->act_mul(test_ref, KN_ACT_SILU, want, ld, want, ld, u, ld, c.n_rows, c.n);
	l.x = x.view().p;
	l.ld_x = x.ld;
	l.rows = { c.bound, n_rows.device };
	l.n = c.n;
	l.tiles = { c.columns, c.parts };
	l.w[0] = w.mat;
	l.w[1] = up.mat;
	l.gated = gated;
	l.act = KN_ACT_SILU;
	l.out = out.view();
	l.accumulate = c.accumulate;
	launch_and_compare(l, c, out, want, test_tolerance(c.elem), index);
	free(want);
	free(u);
}

GPU_TEST(rows_of_16_bits_are_multiplied_by_warpgroups)
{
	test_hopper device;

	if (test_ctx.sm != 90)
		return;
	const eight_case cases[] = {
		{ 128, 128, 712, 528, GK_BF16, false, 256, 1, 4 }, /* two blocks bring x for both */
		{ 100, 77, 328, 272, GK_F32, true, 256, 1, 2 },
		{ 128, 128, 1032, 144, GK_F32, true, 128, 3, 8 }, /* parts of a sum */
		{ 33, 20, 520, 272, GK_BF16, false, 128, 2, 8 },
		{ 130, 129, 200, 400, GK_BF16, true, 256, 1, 4 }, /* two blocks bring W for both */
		{ 64, 64, 64, 160, GK_F32, false, 128, 1, 3 },
		{ 128, 128, 1024, 256, GK_F32, true, 0, 0, 8 }, /* as it thinks best */
	};
	const eight_case of_gate[] = {
		{ 128, 128, 456, 400, GK_BF16, false, 0, 1, 2 },
		{ 60, 59, 64, 144, GK_BF16, false, 0, 1, 3 },
		{ 140, 140, 128, 272, GK_BF16, false, 0, 1, 4 },
	};

	for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++)
		product16(cases[i], false, (int)i);
	for (size_t i = 0; i < sizeof(of_gate) / sizeof(*of_gate); i++)
		product16(of_gate[i], true, (int)i);
}

/* What it does not take is left to others, and nothing is written. */
GPU_TEST(other_products_are_refused)
{
	eight_mat w(128, 128);
	eight_rows x(32, 128);
	test_rows out(GK_F32, 32, 128, 128);
	both<uint32_t> n_rows(1);
	const eight_case c = { 32, 32, 128, 128, GK_F32, false, 0, 0, 1 };
	struct gk_product l = {}, other;

	fill(&l, c, x, n_rows);
	l.w[0] = w.mat;
	l.out = out.view();
	if (test_ctx.sm != 90)
		CHECK(gk_product_hopper(&test_ctx, &l) == -ENOTSUP, "another device");
	test_hopper device;

	if (test_ctx.sm != 90)
		return;

	other = l;
	other.w[0].first_row = 16;
	CHECK(gk_product_hopper(&test_ctx, &other) == -ENOTSUP, "within a block");
	other = l;
	other.out.ld = 129;
	CHECK(gk_product_hopper(&test_ctx, &other) == -ENOTSUP, "ragged rows");
	other = l;
	other.tiles.parts = 4;
	CHECK(gk_product_hopper(&test_ctx, &other) == -EINVAL, "four parts");
	other = l;
	other.gated = true;
	other.w[1] = w.mat;
	other.act = KN_ACT_GELU_TANH;
	other.ld_q = 128;
	CHECK(gk_product_hopper(&test_ctx, &other) == -ENOTSUP, "another activation");
}
