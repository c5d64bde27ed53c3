/* Packing, and products of few and of many rows, against kernels/ref on the same (dequantized) weights. */
#include "gpu_test.h"

static uint32_t cols_for(uint32_t type, uint32_t about)
{
	const uint32_t block = type == GK_FP8_128 ? 1 : kn_dtype_info((enum kn_dtype)type)->block_elems;

	return (about + block - 1) / block * block;
}

GPU_TEST(an_embedding_gives_the_values_of_the_file)
{
	for (int t = 0; t < test_n_types; t++) {
		const uint32_t cols = cols_for(test_types[t], 72), n = 5;
		test_mat m(test_types[t], 139, cols, 0.5f);
		both<int32_t> ids(n);
		test_rows out(GK_F32, n, cols, cols + 3);
		double worst = 0.0;

		for (uint32_t i = 0; i < n; i++)
			ids.host[i] = (int32_t)(i == 0 ? 138 : test_random() % 139);
		ids.up();
		CHECK(gk_embed(&test_ctx, out.view(), &m.mat, ids.device, nullptr, test_all(n), 2.0f) == 0, "embed");
		test_sync("embed");
		out.down();
		for (uint32_t i = 0; i < n; i++) {
			for (uint32_t c = 0; c < cols; c++) {
				const double want = 2.0 * m.values[(size_t)ids.host[i] * cols + c];
				const double e = fabs(out.host[i * out.ld + c] - want) / (fabs(want) + 1e-3);

				worst = e <= worst ? worst : e;
			}
		}
		CHECK(worst < 1e-5, "%s: %g", test_type_name(test_types[t]), worst);
	}
}

GPU_TEST(an_embedding_takes_ids_that_were_drawn)
{
	const uint32_t n = 4, cols = 64;
	test_mat m(KN_F32, 50, cols, 0.5f);
	both<int32_t> ids(n);
	both<kn_picked> picked(3);
	test_rows out(GK_F32, n, cols, cols);
	static const int32_t want[n] = { 7, 49, 12, 49 };

	picked.host[0].drawn = 12;
	picked.host[2].drawn = 49;
	picked.up();
	ids.host[0] = 7;
	ids.host[1] = ids.host[3] = KN_DRAWN(2);
	ids.host[2] = KN_DRAWN(0);
	ids.up();
	CHECK(gk_embed(&test_ctx, out.view(), &m.mat, ids.device, picked.device, test_all(n), 1.0f) == 0, "embed");
	test_sync("embed");
	out.down();
	for (uint32_t i = 0; i < n; i++)
		CHECK(memcmp(out.host + (size_t)i * cols, m.values + (size_t)want[i] * cols, cols * sizeof(float)) == 0,
		      "row %u", i);
}

GPU_TEST(a_matrix_is_widened_to_bfloat16)
{
	for (int t = 1; t < test_n_types; t++) {
		const uint32_t cols = cols_for(test_types[t], 72), rows = 37, ld = (cols + 63) / 64 * 64;
		test_mat m(test_types[t], rows, cols, 0.5f);
		test_rows out(GK_BF16, rows, cols, ld);

		CHECK(gk_mat_widen(&test_ctx, &m.mat, out.raw.device, ld) == 0, "widen");
		test_sync("widen");
		out.down();

		const double d = test_distance(out.host, ld, m.values, cols, rows, cols);

		CHECK(d < TOL_BF16, "%s: %g", test_type_name(test_types[t]), d);
	}
}

struct shape {
	uint32_t type, n, rows, cols, n_jobs;
	uint32_t elem;
	bool gated, norm, bias, accumulate, fixed;
};
static float x_scale = 1.0f; /* of random rows */

static void reference(const shape *s, const test_rows &x, const float *norm_w, test_mat **w, const float *const *bias,
                      float **out)
{
	const struct kn_ops *ops = test_ref->ops;
	float *normed = (float *)malloc(sizeof(float) * s->n * s->cols);

	for (uint32_t i = 0; i < s->n; i++)
		memcpy(normed + i * s->cols, x.host + i * x.ld, s->cols * sizeof(float));
	if (s->norm)
		ops->rmsnorm(test_ref, normed, s->cols, normed, s->cols, norm_w, s->n, 1, s->cols, 1e-5f);
	for (uint32_t j = 0; j < s->n_jobs; j++) {
		const struct kn_matmul job = { &w[j]->ref, out[j], s->rows, bias[j],
			                       s->accumulate && !s->gated ? (unsigned)KN_ACCUMULATE : 0u };

		ops->matmul(test_ref, &job, 1, normed, s->cols, s->n);
	}
	if (s->gated)
		ops->act_mul(test_ref, KN_ACT_SILU, out[0], s->rows, out[0], s->rows, out[1], s->rows, s->n, s->rows);
	free(normed);
}

/* Runs one product both ways. way: 0 few, 1 many, 2 many exact, 3 steady. */
static void compare(const shape *s, int way, double tolerance)
{
	test_rows x(s->elem, s->n, s->cols, s->cols + (s->cols % 8 ? 3 : 8));
	both<float> norm_w(s->cols);
	test_mat *w[GK_MAX_JOBS];
	both<float> *bias[GK_MAX_JOBS];
	const float *host_bias[GK_MAX_JOBS];
	test_rows *out[GK_MAX_JOBS];
	float *want[GK_MAX_JOBS];
	struct gk_job jobs[GK_MAX_JOBS];
	struct gk_linear l = {};
	int r;

	x.random(x_scale);
	test_normals(norm_w.host, s->cols, 0.3f);
	norm_w.up();
	for (uint32_t j = 0; j < s->n_jobs; j++) {
		w[j] = new test_mat(s->type, s->rows, s->cols, 0.5f);
		bias[j] = new both<float>(s->rows);
		test_normals(bias[j]->host, s->rows, 1.0f);
		bias[j]->up();
		host_bias[j] = s->bias ? bias[j]->host : nullptr;
		out[j] = new test_rows(GK_F32, s->n, s->rows, s->rows + 5);
		out[j]->random(1.0f);
		want[j] = (float *)malloc(sizeof(float) * s->n * s->rows);
		for (uint32_t i = 0; i < s->n; i++)
			memcpy(want[j] + i * s->rows, out[j]->host + i * out[j]->ld, s->rows * sizeof(float));
		jobs[j].w = w[j]->mat;
		jobs[j].out = out[j]->view();
		jobs[j].bias = s->bias ? bias[j]->device : nullptr;
		jobs[j].accumulate = s->accumulate && !s->gated;
	}
	reference(s, x, norm_w.host, w, host_bias, want);
	l.x = x.view();
	l.rows = test_all(s->n);
	l.norm = s->norm;
	l.norm_w = norm_w.device;
	l.eps = 1e-5f;
	l.gated = s->gated;
	l.act = KN_ACT_SILU;
	l.n_jobs = s->n_jobs;
	l.jobs = jobs;
	test_ctx.fixed = s->fixed;
	r = way == 0   ? gk_linear_few(&test_ctx, &l)
	    : way == 3 ? gk_linear_steady(&test_ctx, &l)
	               : gk_linear_many(&test_ctx, &l, way == 2);
	test_ctx.fixed = false;
	CHECK(r == 0, "%s: %d", test_type_name(s->type), r);
	test_sync("linear");
	for (uint32_t j = 0; j < (s->gated ? 1 : s->n_jobs); j++) {
		double d;

		out[j]->down();
		d = test_distance(out[j]->host, out[j]->ld, want[j], s->rows, s->n, s->rows);
		CHECK(d < tolerance, "%s, way %d, %u rows of %u x %u, job %u: %g", test_type_name(s->type), way, s->n,
		      s->rows, s->cols, j, d);
	}
	for (uint32_t j = 0; j < s->n_jobs; j++) {
		delete w[j];
		delete bias[j];
		delete out[j];
		free(want[j]);
	}
}

/* x in two bfloat16 parts keeps 16 bits: 2^-17 at most. */
static const double TOL_TWO_PARTS = 1e-5;

GPU_TEST(one_row_meets_matrices_of_every_type)
{
	for (int t = 0; t < test_n_types; t++) {
		const shape plain = { test_types[t], 1,     40,   cols_for(test_types[t], 520), 1, GK_F32, false, false,
			              false,         false, false };
		const shape all = { test_types[t], 1,    37,   cols_for(test_types[t], 300), 2, GK_F32, false, true,
			            true,          true, false };

		compare(&plain, 0, TOL_TWO_PARTS);
		compare(&all, 0, TOL_TWO_PARTS);
	}
}

/* More tiles than blocks, more units than are under way at once. */
GPU_TEST(a_row_meets_large_matrices)
{
	for (int t = 1; t < test_n_types; t++) {
		const shape plain = {
			test_types[t], 1,    150,  cols_for(test_types[t], 5200), 1, GK_BF16, false, false,
			false,         true, false
		};
		const shape two = { test_types[t], 2,     80,   cols_for(test_types[t], 2300), 2, GK_F32, false, true,
			            true,          false, false };
		const shape gated = { test_types[t], 1,     90,   cols_for(test_types[t], 4200), 2, GK_F32, true, true,
			              false,         false, false };

		compare(&plain, 0, TOL_TWO_PARTS);
		compare(&two, 0, TOL_TWO_PARTS);
		compare(&gated, 0, 2 * TOL_TWO_PARTS);
	}
}

/* As many columns as a block can just make by itself, and as it cannot where it has 64 KiB. */
GPU_TEST(two_rows_of_many_columns)
{
	const shape s = { KN_Q8_0, 2, 9, 8192, 1, GK_F32, false, false, false, false, false };

	compare(&s, 0, TOL_TWO_PARTS);
	if (test_ctx.smem_bytes > 64 << 10) {
		const test_shared less(64 << 10);

		compare(&s, 0, TOL_TWO_PARTS);
	}
}

GPU_TEST(the_activation_is_applied_to_gate_and_up)
{
	for (int t = 0; t < test_n_types; t++) {
		const shape s = { test_types[t], 2,     21,   cols_for(test_types[t], 200), 2, GK_F32, true, true,
			          true,          false, false };

		compare(&s, 0, 2 * TOL_TWO_PARTS);
	}
}

GPU_TEST(a_few_rows_share_the_weights)
{
	static const uint32_t counts[] = { 3, 8, 16 };

	for (int t = 0; t < test_n_types; t++) {
		for (int c = 0; c < 3; c++) {
			const shape s = {
				test_types[t], counts[c], 23,   cols_for(test_types[t], 136), 1, GK_F32, c == 2, true,
				true,          true,      false
			};
			shape g = s;

			g.gated = c == 1;
			g.n_jobs = g.gated ? 2 : 1;
			compare(&g, 0, counts[c] > 4 ? TOL_BF16 : TOL_TWO_PARTS);
		}
	}
}

GPU_TEST(rows_of_16_bits_are_multiplied_as_they_are)
{
	const shape bf16 = { KN_BF16, 6, 30, 328, 3, GK_BF16, false, false, true, false, false };
	const shape f16 = { KN_Q8_0, 2, 30, 320, 1, GK_F16, false, false, true, false, false };

	compare(&bf16, 0, TOL_TWO_PARTS);
	compare(&f16, 0, TOL_TWO_PARTS);
}

/* Lines of whole blocks of 128, ragged or not; more units than are under way at once; rows of any magnitude. */
GPU_TEST(fp8_is_widened_two_at_a_time)
{
	static const uint32_t counts[] = { 1, 2, 4, 5, 8, 9, 16 }, cols[] = { 1024, 250, 1408, 128, 2048, 380, 640 };
	static const float scales[] = { 1.0f, 3e4f, 1e-3f };
	static const uint32_t elems[] = { GK_F32, GK_BF16, GK_F16 };

	for (int c = 0; c < 7; c++) {
		for (int e = 0; e < 3; e++) {
			const uint32_t elem = elems[e];
			const double tolerance = counts[c] > 4 && elem != GK_BF16 ? TOL_BF16 : TOL_TWO_PARTS;
			const shape plain = {
				GK_FP8_128,      counts[c],      150,  cols[c], 2, elem, false, elem == GK_F32,
				elem == GK_BF16, elem == GK_F16, false
			};
			const shape gated = { GK_FP8_128, counts[c],      37,    cols[c], 2,    elem,
				              true,       elem == GK_F32, false, false,   false };

			x_scale = elem == GK_F16 ? 1.0f : scales[(c + e) % 3];
			compare(&plain, 0, tolerance);
			x_scale = 1.0f;
			compare(&gated, 0, 2 * tolerance);
		}
	}
}

GPU_TEST(products_of_rows_that_do_not_mind_their_company)
{
	static const uint32_t counts[] = { 5, 29, 70, 53 };

	for (int t = 0; t < test_n_types; t++) {
		for (int c = 0; c < 4; c++) {
			const shape s = { test_types[t],
				          counts[c],
				          c == 1 ? 70u : c == 3 ? 300u : 33u,
				          cols_for(test_types[t], c == 1 ? 1100 : 130),
				          c == 2 ? 2u : 1u,
				          (uint32_t)(c == 1 ? GK_BF16 : GK_F32),
				          c == 2,
				          false,
				          c > 0,
				          c == 1,
				          true };

			compare(&s, 3, test_types[t] == KN_F32 ? 2 * TOL_F32 : TOL_BF16);
		}
	}
}

/* Rows [first, first + n) of one product, when fixed. */
static void steady_rows(struct gk_linear l, struct gk_job *jobs, const test_rows &x, test_rows &out, uint32_t first,
                        uint32_t n)
{
	const uint32_t bytes = out.elem == GK_F32 ? 4 : 2;

	(void)gpu_fill(out.raw.device, 0, out.raw.n);
	jobs[0].out = out.view();
	l.jobs = jobs;
	l.x.p = (uint8_t *)x.raw.device + (size_t)first * x.ld * (x.elem == GK_F32 ? 4 : 2);
	jobs[0].out.p = (uint8_t *)out.raw.device + (size_t)first * out.ld * bytes;
	l.rows = test_all(n);
	test_ctx.fixed = true;
	CHECK(gk_linear_steady(&test_ctx, &l) == 0, "%u rows", n);
	test_ctx.fixed = false;
	test_sync("steady");
	out.down();
}

/* Alone, in twos and threes, with others on both sides of every bound between kernels and tiles. */
static void same_bits(uint32_t type, uint32_t elem, uint32_t rows, uint32_t cols, bool gated)
{
#if defined(GPU_HOST)
	enum { N = 133 };
	static const uint32_t pieces[] = { 1, 2, 9, 16, 17, 64, 65, 129 };
#else
	enum { N = 300 };
	static const uint32_t pieces[] = { 1, 2, 9, 16, 17, 31, 33, 64, 65, 100, 128, 129, 200, 256, 257 };
#endif
	test_mat w(type, rows, cols, 0.5f), up(type, rows, cols, 0.5f);
	both<float> bias(rows);
	test_rows x(elem, N, cols, (cols + 7) / 8 * 8), all(GK_F32, N, rows, rows), some(GK_F32, N, rows, rows);
	struct gk_job jobs[2] = { { w.mat, {}, bias.device, true }, { up.mat, {}, nullptr, false } };
	struct gk_linear l = {};

	x.random(1.0f);
	test_normals(bias.host, rows, 1.0f);
	bias.up();
	l.x = x.view();
	l.n_jobs = gated ? 2 : 1;
	l.gated = gated;
	l.act = KN_ACT_SILU;
	jobs[0].accumulate = !gated;
	steady_rows(l, jobs, x, all, 0, N);
	for (uint32_t n : pieces) {
		const uint32_t first = test_random() % (N - n + 1);

		steady_rows(l, jobs, x, some, first, n);
		CHECK(memcmp(some.host + (size_t)first * rows, all.host + (size_t)first * rows, (size_t)n * rows * sizeof(float)) ==
		              0,
		      "%s, %u rows from %u of %u x %u%s", test_type_name(type), n, first, rows, cols, gated ? ", gated" : "");
	}
}

GPU_TEST(a_row_is_the_same_bits_among_others_when_fixed)
{
	for (int t = 0; t < test_n_types; t++) {
		const uint32_t type = test_types[t];

		same_bits(type, t % 2 ? GK_BF16 : GK_F32, 37, cols_for(type, 330), t % 3 == 0);
		same_bits(type, GK_BF16, 20, cols_for(type, 4200), false); /* groups of the sum */
	}
	same_bits(KN_BF16, GK_BF16, 150, 640, true);
	same_bits(KN_BF16, GK_F32, 35, 200, false);
#if !defined(GPU_HOST)
	/* As many blocks as a model's matrices have. */
	for (uint32_t type : { (uint32_t)KN_BF16, (uint32_t)KN_FP8_128, (uint32_t)KN_Q8_0, (uint32_t)KN_Q4_0 }) {
		same_bits(type, GK_BF16, 4096, 4096, false);
		same_bits(type, GK_BF16, 6144, 2048, true);
		same_bits(type, GK_BF16, 1000, 6400, false);
	}
#endif
}

/* The same by Hopper's warpgroups: whole kernels on the host, where a cluster is one block. */
GPU_TEST(a_row_is_the_same_bits_by_warpgroups)
{
	const test_hopper as_there;

	if (test_ctx.warp != 32)
		return;
	for (uint32_t type : { (uint32_t)KN_BF16, (uint32_t)GK_FP8_128, (uint32_t)KN_Q8_0, (uint32_t)KN_Q4_0 }) {
		same_bits(type, type == KN_BF16 ? GK_BF16 : GK_F32, 37, cols_for(type, 330), false);
		same_bits(type, GK_BF16, 70, cols_for(type, 1100), true);
#if !defined(GPU_HOST)
		same_bits(type, GK_BF16, 4096, 4096, false);
		same_bits(type, GK_BF16, 6144, 2048, true);
		same_bits(type, GK_BF16, 1000, 6400, false);
#endif
	}
}

/* Two bytes of a value, of which the largest of 32 has 15 bits. */
GPU_TEST(a_row_in_bytes_meets_matrices_of_four_and_eight_bits)
{
	static const uint32_t types[] = { KN_Q4_0, KN_Q4_K, KN_Q8_0 };

	test_ctx.bytes = true;
	for (uint32_t type : types) {
		for (uint32_t i = 1; i <= 4; i++) {
			const shape plain = { type,
				              1,
				              30 + 40 * i,
				              cols_for(type, 40 + 1700 * (i - 1)),
				              i,
				              (uint32_t)(i % 2 ? GK_BF16 : GK_F32),
				              false,
				              i > 3,
				              i > 2,
				              i != 2,
				              false };
			const shape gated = { type, 1, 21 + 30 * i, cols_for(type, 700 * i), 2, GK_F32, true, i != 2,
				              true, false, false };

			compare(&plain, 0, 5 * TOL_TWO_PARTS);
			compare(&gated, 0, 10 * TOL_TWO_PARTS);
		}
	}
	test_ctx.bytes = false;
}

GPU_TEST(many_rows_exactly)
{
	for (int t = 0; t < test_n_types; t++) {
		const shape s = { test_types[t], 21,   11,   cols_for(test_types[t], 80), 1, GK_F32, false, false,
			          true,          true, false };
		const shape g = { test_types[t], 5,     11,   cols_for(test_types[t], 80), 2, GK_F32, true, false,
			          true,          false, false };

		compare(&s, 2, TOL_F32);
		compare(&g, 2, 2 * TOL_F32);
	}
}

GPU_TEST(many_rows_by_tiles)
{
	for (int t = 0; t < test_n_types; t++) {
		const shape s = { test_types[t], 70,   137,  cols_for(test_types[t], 136), 1, GK_BF16, false, false,
			          true,          true, false };
		const shape g = { test_types[t], 19,    33,   cols_for(test_types[t], 96), 2, GK_BF16, true, false,
			          true,          false, false };

		/* Weights of scaled types are rounded to bfloat16. */
		compare(&s, 1, TOL_BF16);
		compare(&g, 1, 2 * TOL_BF16);
	}
}

/* Few tiles, many columns: shares of them go to different blocks. */
GPU_TEST(many_columns_are_shared_out)
{
	for (int t = 0; t < test_n_types; t++) {
		const shape s = { test_types[t], 30,   70,   cols_for(test_types[t], 2700), 1, GK_BF16, false, false,
			          true,          true, false };
		const shape g = { test_types[t], 67,    50,   cols_for(test_types[t], 2100), 2, GK_BF16, true, false,
			          true,          false, false };

		compare(&s, 1, TOL_BF16);
		compare(&g, 1, 2 * TOL_BF16);
	}
}

/* Row i of e4m3 times its scales. */
static void unquantized(const both<uint8_t> &q, uint32_t ld, const both<float> &scale, uint32_t ld_scale, uint32_t i,
                        float *line)
{
	kn_dequantize(KN_FP8_128, q.host + (size_t)i * ld, line, ld);
	for (uint32_t k = 0; k < ld; k++)
		line[k] *= scale.host[(size_t)(k / 128) * ld_scale + i];
}

enum { AS_IT_IS, NORMED, ACTIVATED };

static void quantize(int how, uint32_t elem, uint32_t n, uint32_t dim, uint32_t ld_x)
{
	const uint32_t ld = (dim + 63) / 64 * 64, across = (dim + 127) / 128, ld_scale = n + 3;
	test_rows x(elem, n, dim, ld_x), up(elem, n, dim, ld_x);
	both<uint8_t> q((size_t)n * ld);
	both<float> scale((size_t)across * ld_scale), norm_w(dim);
	float *line = (float *)malloc(sizeof(float) * ld), *want = (float *)malloc(sizeof(float) * n * dim);
	struct gk_quantize a = {};

	x.random(3.0f);
	up.random(1.0f);
	for (uint32_t k = 0; k < dim && k < 128; k++) /* a block of zeros, one with tiny values beside a great one */
		x.host[k] = 0.0f, x.host[x.ld + k] = k == 5 ? 900.0f : 1e-3f * (float)k;
	x.up();
	test_normals(norm_w.host, dim, 1.0f);
	norm_w.up();
	for (uint32_t i = 0; i < n; i++)
		memcpy(want + (size_t)i * dim, x.host + (size_t)i * x.ld, dim * sizeof(float));
	if (how == NORMED)
		test_ref->ops->rmsnorm(test_ref, want, dim, want, dim, norm_w.host, n, 1, dim, 1e-5f);
	if (how == ACTIVATED)
		test_ref->ops->act_mul(test_ref, KN_ACT_SILU, want, dim, want, dim, up.host, up.ld, n, dim);
	a.q = q.device;
	a.ld = ld;
	a.scale = scale.device;
	a.ld_scale = ld_scale;
	a.x = x.view();
	a.rows = test_all(n);
	a.dim = dim;
	a.is_act = how == ACTIVATED;
	a.act = KN_ACT_SILU;
	a.up = up.view();
	a.norm = how == NORMED;
	a.norm_w = norm_w.device;
	a.eps = 1e-5f;
	CHECK(gk_quantize_rows(&test_ctx, &a) == 0, "launch");
	test_sync("quantize");
	q.down();
	scale.down();
	for (uint32_t i = 0; i < n; i++) {
		unquantized(q, ld, scale, ld_scale, i, line);
		for (uint32_t k = 0; k < ld; k++) {
			const float w = k < dim ? want[(size_t)i * dim + k] : 0.0f;
			const float s = scale.host[(size_t)(k / 128) * ld_scale + i];

			/* 3 bits of fraction; below 2^-6 steps of 2^-9 */
			CHECK(fabsf(line[k] - w) <= fabsf(w) / 16.0f * 1.001f + s * 0.001f,
			      "way %d, row %u, column %u: %g for %g", how, i, k, line[k], w);
		}
	}
	free(line);
	free(want);
}

GPU_TEST(rows_become_eight_bits)
{
	for (int how = AS_IT_IS; how <= ACTIVATED; how++) {
		quantize(how, GK_BF16, 5, 512, 512);
		quantize(how, GK_F32, 3, 200, 203);
		quantize(how, GK_F32, 2, 2176, 2176);
		quantize(how, GK_BF16, 9, 72, 80);
		quantize(how, GK_BF16, 2, 8968, 8968);
	}
}

GPU_TEST(a_batch_of_matrices)
{
	const uint32_t n = 3, n_mats = 3, rows = 10, cols = 32;
	test_mat a(KN_BF16, rows, cols, 1.0f), b(KN_BF16, rows, cols, 1.0f), c(KN_BF16, rows, cols, 1.0f);
	test_mat *w[] = { &a, &b, &c };
	both<struct gk_mat> mats(n_mats);
	test_rows x(GK_F32, n, n_mats * cols, n_mats * cols), out(GK_F32, n, n_mats * rows, n_mats * rows);
	struct gk_linear_batch l = {};
	float want[n * rows];

	x.random(1.0f);
	for (uint32_t i = 0; i < n_mats; i++)
		mats.host[i] = w[i]->mat;
	mats.up();
	l.x = x.view();
	l.out = out.view();
	l.x_step = cols;
	l.out_step = rows;
	l.rows = test_all(n);
	l.n_mats = n_mats;
	l.type = KN_BF16;
	l.mat_rows = rows;
	l.mat_cols = cols;
	l.mats = mats.device;
	CHECK(gk_linear_batch(&test_ctx, &l, true) == 0, "batch");
	test_sync("batch");
	out.down();
	for (uint32_t i = 0; i < n_mats; i++) {
		const struct kn_matmul job = { &w[i]->ref, want, rows, nullptr, 0 };

		test_ref->ops->matmul(test_ref, &job, 1, x.host + i * cols, x.ld, n);
		CHECK(test_distance(out.host + i * rows, out.ld, want, rows, n, rows) < TOL_F32, "matrix %u", i);
	}
}
