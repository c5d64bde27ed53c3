/* gk_linear_chained(): its sums bit by bit beside instructions that get their operands one word at a time, from the first
 * 16 columns to the last; and that a row does not mind its company. */
#include "gpu_test.h"

#include <errno.h>

#include "gpu/few_columns.h"

#if GPU_MMA_MFMA || GPU_MMA_WMMA
static const bool chains = false;
#else
static const bool chains = true;
#endif

/* out [n, rows] of a wave for 8 rows of W and 16 rows of x; memory is there for whole tiles. */
static __global__ void by_the_word(gk_mat w, gk_view x, uint32_t n, float *out)
{
#if !GPU_MMA_MFMA && !GPU_MMA_WMMA
	const uint32_t g = gpu_lane() >> 2, t = gpu_lane() & 3, row0 = blockIdx.x * 8, first = blockIdx.y * 16;
	gpu_acc acc = gpu_acc_zero();

	for (uint32_t k = 0; k < w.cols; k += 16) {
		gpu_frag fx, fw;
		const auto word = [&](const void *p, uint32_t ld, uint32_t row, uint32_t n_rows, uint32_t col) {
			return *(const uint32_t *)((const gpu_bf16 *)p + (size_t)(row < n_rows ? row : n_rows - 1) * ld + col);
		};

#pragma unroll
		for (int p = 0; p < 2; p++) {
			fx.p[p] = make_uint4(word(x.p, x.ld, first + g + 8 * p, n, k + 2 * t),
			                     word(x.p, x.ld, first + g + 8 * p, n, k + 8 + 2 * t), 0, 0);
			fw.p[p] = make_uint4(word(w.values, w.ld, row0 + g, w.rows, k + 2 * t),
			                     word(w.values, w.ld, row0 + g, w.rows, k + 8 + 2 * t), 0, 0);
		}
		gpu_mma_half<0, true>(acc, fx, fw);
	}
	for (int i = 0; i < 4; i++) {
		const uint32_t row = row0 + gpu_acc_col(i), of = first + gpu_acc_row(i);

		if (row < w.rows && of < n)
			out[(size_t)of * w.rows + row] = acc.v[i];
	}
#endif
}

struct product {
	uint32_t n, rows, cols, n_jobs;
	bool gated, accumulate;
	uint32_t elem; /* of the outputs */
};

/* Rows [first, first + n) of x into those of `out`; 0, or what the launcher says. */
static int chained(const product &p, gk_job *jobs, test_rows *const *out, const test_rows &x, uint32_t first, uint32_t n)
{
	struct gk_linear l = {};
	int r;

	for (uint32_t j = 0; j < p.n_jobs; j++) {
		jobs[j].out = out[j]->view();
		jobs[j].out.p = (uint8_t *)jobs[j].out.p + (size_t)first * out[j]->ld * (p.elem == GK_F32 ? 4 : 2);
	}
	l.x.p = (uint8_t *)x.raw.device + (size_t)first * x.ld * 2;
	l.x.elem = x.elem;
	l.x.ld = x.ld;
	l.rows = test_all(n);
	l.gated = p.gated;
	l.act = KN_ACT_SILU;
	l.n_jobs = p.n_jobs;
	l.jobs = jobs;
	test_ctx.fixed = true;
	r = gk_linear_chained(&test_ctx, &l);
	test_ctx.fixed = false;
	test_sync("chained");
	return r;
}

static void compare(const product &p)
{
	test_rows x(GK_BF16, p.n, p.cols, (p.cols + 7) / 8 * 8);
	test_mat *w[GK_MAX_JOBS];
	test_rows *out[GK_MAX_JOBS], *again[GK_MAX_JOBS];
	both<float> sums[GK_MAX_JOBS] = { both<float>((size_t)p.n * p.rows), both<float>((size_t)p.n * p.rows),
		                          both<float>((size_t)p.n * p.rows), both<float>((size_t)p.n * p.rows) };
	gk_job jobs[GK_MAX_JOBS] = {};
	uint32_t n_wrong = 0;
	int r;

	x.random(1.0f);
	for (uint32_t j = 0; j < p.n_jobs; j++) {
		w[j] = new test_mat(KN_BF16, p.rows, p.cols, 0.5f);
		out[j] = new test_rows(p.elem, p.n, p.rows, p.rows + 5);
		again[j] = new test_rows(p.elem, p.n, p.rows, p.rows + 5);
		out[j]->random(1.0f);
		memcpy(again[j]->host, out[j]->host, sizeof(float) * p.n * out[j]->ld);
		again[j]->up();
		jobs[j].w = w[j]->mat;
		jobs[j].accumulate = p.accumulate;
		gpu_launch(by_the_word, dim3((p.rows + 7) / 8, (p.n + 15) / 16), dim3(32), 0, test_ctx.stream, false,
		           w[j]->mat, x.view(), p.n, sums[j].device);
		test_sync("by the word");
		sums[j].down();
	}
	/* Begins as `before`; one launch, then each row alone. */
	both<float> before((size_t)p.n * (p.rows + 5));

	memcpy(before.host, out[0]->host, before.n * sizeof(float));
	r = chained(p, jobs, out, x, 0, p.n);
	CHECK(r == 0, "%d", r);
	for (uint32_t i = 0; i < p.n; i++)
		(void)chained(p, jobs, again, x, i, 1);
	for (uint32_t j = 0; j < (p.gated ? 1 : p.n_jobs); j++) {
		out[j]->down();
		again[j]->down();
		test_rows want(p.elem, p.n, p.rows, p.rows + 5); /* added to what only the first output began with here */

		for (uint32_t i = 0; i < p.n; i++) {
			for (uint32_t o = 0; o < p.rows; o++) {
				const float y = sums[j].host[(size_t)i * p.rows + o];

				want.host[(size_t)i * want.ld + o] =
				        p.accumulate && j == 0 ? before.host[(size_t)i * want.ld + o] + y : y;
			}
		}
		want.up();
		for (uint32_t i = 0; i < p.n; i++) {
			if (!p.gated && (j == 0 || !p.accumulate))
				n_wrong += memcmp(out[j]->host + (size_t)i * want.ld, want.host + (size_t)i * want.ld,
				                  p.rows * sizeof(float)) != 0;
			CHECK(memcmp(out[j]->host + (size_t)i * want.ld, again[j]->host + (size_t)i * want.ld,
			             p.rows * sizeof(float)) == 0,
			      "row %u of %u, %u x %u, alone", i, p.n, p.rows, p.cols);
		}
	}
	/* The activation is the device's: of what both sums are in memory. */
	if (p.gated) {
		test_rows gate(p.elem, p.n, p.rows, p.rows + 5), up(p.elem, p.n, p.rows, p.rows + 5);

		for (uint32_t i = 0; i < p.n; i++) {
			memcpy(gate.host + (size_t)i * gate.ld, sums[0].host + (size_t)i * p.rows, p.rows * sizeof(float));
			memcpy(up.host + (size_t)i * up.ld, sums[1].host + (size_t)i * p.rows, p.rows * sizeof(float));
		}
		gate.up();
		up.up();
		CHECK(gk_act_mul(&test_ctx, KN_ACT_SILU, gate.view(), gate.view(), up.view(), test_all(p.n), p.rows) == 0,
		      "launch");
		test_sync("activation");
		gate.down();
		for (uint32_t i = 0; i < p.n; i++)
			n_wrong += memcmp(gate.host + (size_t)i * gate.ld, out[0]->host + (size_t)i * out[0]->ld,
			                  p.rows * sizeof(float)) != 0;
	}
	CHECK(n_wrong == 0, "%u of %u rows are others, %u x %u, %u jobs%s%s", n_wrong, p.n, p.rows, p.cols, p.n_jobs,
	      p.gated ? ", gated" : "", p.accumulate ? ", added" : "");
	for (uint32_t j = 0; j < p.n_jobs; j++) {
		delete w[j];
		delete out[j];
		delete again[j];
	}
}

GPU_TEST(sums_of_few_rows_are_one_chain)
{
	static const product products[] = {
		{ 1, 37, 64, 1, false, false, GK_F32 },   { 1, 300, 1152, 3, false, false, GK_BF16 },
		{ 3, 64, 640, 1, false, true, GK_F32 },   { 8, 20, 4160, 1, false, true, GK_F32 },
		{ 9, 33, 2112, 2, false, false, GK_F32 }, { 16, 41, 1600, 1, false, false, GK_BF16 },
		{ 2, 50, 576, 2, true, false, GK_BF16 },  { 16, 24, 1088, 2, true, false, GK_BF16 },
		{ 13, 70, 128, 2, true, false, GK_F32 },  { 5, 1500, 64, 1, false, false, GK_F32 },
		{ 11, 900, 64, 2, true, false, GK_BF16 }, { 4, 1400, 704, 1, false, true, GK_F32 },
	};

	for (const product &p : products) {
		if (chains && (test_ctx.sm == 0 || test_ctx.sm == 90))
			compare(p);
	}
#if !defined(GPU_HOST)
	/* As many waves as a model's matrices make. */
	for (uint32_t n : { 1u, 7u, 16u }) {
		if (test_ctx.sm != 90)
			break;
		compare({ n, 4096, 4096, 1, false, true, GK_F32 });
		compare({ n, 6144, 2048, 2, true, false, GK_BF16 });
		compare({ n, 30000, 1024, 1, false, false, GK_F32 });
	}
#endif
}

GPU_TEST(what_is_no_chain_is_refused)
{
	const product p = { 2, 16, 64, 1, false, false, GK_F32 };
	test_mat w(KN_Q8_0, 16, 64, 0.5f), bf16(KN_BF16, 16, 64, 0.5f), odd(KN_BF16, 16, 48, 0.5f);
	test_rows x(GK_BF16, 17, 64, 64), floats(GK_F32, 2, 64, 64), out(GK_F32, 17, 16, 16), *outs[] = { &out };
	both<float> bias(16);
	gk_job jobs[1] = { { w.mat, {}, nullptr, false } };

	CHECK(chained(p, jobs, outs, x, 0, 2) == -ENOTSUP, "another type");
	jobs[0].w = odd.mat;
	CHECK(chained(p, jobs, outs, x, 0, 2) == -ENOTSUP, "part of a line of columns");
	jobs[0].w = bf16.mat;
	jobs[0].bias = bias.device;
	CHECK(chained(p, jobs, outs, x, 0, 2) == -ENOTSUP, "a bias");
	jobs[0].bias = nullptr;
	if (chains && (test_ctx.sm == 0 || test_ctx.sm == 90)) {
		CHECK(chained(p, jobs, outs, x, 0, 17) == -EINVAL, "many rows");
		CHECK(chained(p, jobs, outs, floats, 0, 2) == -EINVAL, "rows of floats");
	} else {
		CHECK(chained(p, jobs, outs, x, 0, 2) == -ENOTSUP, "another device");
	}
}
