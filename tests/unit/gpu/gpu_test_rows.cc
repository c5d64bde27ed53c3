/* What goes row by row, against kernels/ref. */
#include <errno.h>

#include "gpu_test.h"

static const uint32_t elems[] = { GK_F32, GK_BF16, GK_F16 };

static void compare(const char *what, test_rows &got, const float *want, uint32_t ld, uint32_t dim)
{
	got.down();

	const double d = test_distance(got.host, got.ld, want, ld, got.n, dim);

	CHECK(d < 2 * test_tolerance(got.elem), "%s, %u rows of %u, element %u: %g", what, got.n, dim, got.elem, d);
}

GPU_TEST(rows_are_normed_by_their_root_mean_square)
{
	static const uint32_t shapes[][3] = { { 3, 1, 1000 }, { 2, 5, 40 }, { 1, 1, 4096 }, { 2, 3, 128 }, { 2, 2, 513 } };

	for (int s = 0; s < 5; s++) {
		for (int e = 0; e < 3; e++) {
			const uint32_t n = shapes[s][0], heads = shapes[s][1], dim = shapes[s][2], width = heads * dim;
			test_rows x(elems[e], n, width, width + (s % 2 ? 3 : 8)), out(elems[(e + s) % 3], n, width, width);
			both<float> w(dim);
			float *want = (float *)malloc(sizeof(float) * n * width);
			struct gk_norm a = {};

			x.random(1.0f);
			test_normals(w.host, dim, 1.0f);
			w.up();
			test_ref->ops->rmsnorm(test_ref, want, width, x.host, x.ld, s == 1 ? nullptr : w.host, n, heads, dim, 1e-6f);
			a.out = out.view();
			a.x = x.view();
			a.w = s == 1 ? nullptr : w.device;
			a.rows = test_all(n);
			a.n_head = heads;
			a.dim = dim;
			a.eps = 1e-6f;
			CHECK(gk_rmsnorm(&test_ctx, &a) == 0, "rmsnorm");
			test_sync("rmsnorm");
			compare("rmsnorm", out, want, width, width);
			a.out = a.x; /* in place */
			CHECK(gk_rmsnorm(&test_ctx, &a) == 0, "rmsnorm");
			test_sync("rmsnorm");
			compare("rmsnorm in place", x, want, width, width);
			free(want);
		}
	}
}

GPU_TEST(a_residual_is_added_before_the_norm)
{
	for (int e = 0; e < 3; e++) {
		const uint32_t n = 3, dim = e == 2 ? 77 : 520;
		test_rows x(elems[e], n, dim, dim), y(GK_F32, n, dim, dim + 1), out(GK_F32, n, dim, dim);
		both<float> w(dim);
		float *sum = (float *)malloc(sizeof(float) * n * dim), *want = (float *)malloc(sizeof(float) * n * dim);
		struct gk_norm a = {};

		x.random(1.0f);
		y.random(1.0f);
		test_normals(w.host, dim, 1.0f);
		w.up();
		memcpy(sum, x.host, sizeof(float) * n * dim);
		test_ref->ops->add(test_ref, sum, dim, y.host, y.ld, n, dim, 0.5f);
		test_ref->ops->rmsnorm(test_ref, want, dim, sum, dim, w.host, n, 1, dim, 1e-5f);
		a.out = out.view();
		a.x = x.view();
		a.w = w.device;
		a.rows = test_all(n);
		a.n_head = 1;
		a.dim = dim;
		a.eps = 1e-5f;
		a.add = y.view();
		a.add_scale = 0.5f;
		CHECK(gk_rmsnorm(&test_ctx, &a) == 0, "rmsnorm");
		test_sync("rmsnorm");
		compare("sum", x, sum, dim, dim);
		out.down();
		CHECK(test_distance(out.host, dim, want, dim, n, dim) < 2 * test_tolerance(elems[e]), "norm of the sum");
		free(sum);
		free(want);
	}
}

GPU_TEST(rows_are_normed_by_mean_and_variance_and_chosen)
{
	const uint32_t n = 3, dim = 300;
	test_rows x(GK_F32, 7, dim, dim + 2), out(GK_F32, n, dim, dim);
	both<float> w(dim), b(dim);
	both<int32_t> src(n);
	struct gk_norm a = {};
	float want[n * dim];

	x.random(1.0f);
	for (size_t i = 0; i < (size_t)x.n * x.ld; i++)
		x.host[i] += 3.0f; /* a mean to take away */
	x.up();
	test_normals(w.host, dim, 1.0f);
	test_normals(b.host, dim, 1.0f);
	w.up();
	b.up();
	for (uint32_t i = 0; i < n; i++) {
		src.host[i] = (int32_t)(6 - 2 * i);
		test_ref->ops->layernorm(test_ref, want + i * dim, dim, x.host + src.host[i] * x.ld, x.ld, w.host, b.host, 1,
		                         dim, 1e-5f);
	}
	src.up();
	a.out = out.view();
	a.x = x.view();
	a.src = src.device;
	a.w = w.device;
	a.b = b.device;
	a.rows = test_all(n);
	a.n_head = 1;
	a.dim = dim;
	a.eps = 1e-5f;
	CHECK(gk_layernorm(&test_ctx, &a) == 0, "layernorm");
	test_sync("layernorm");
	compare("layernorm", out, want, dim, dim);
}

GPU_TEST(sums_activations_and_conversions)
{
	for (int e = 0; e < 3; e++) {
		const uint32_t n = 3, dim = e == 1 ? 37 : 64;
		test_rows x(elems[e], n, dim, dim), y(elems[(e + 1) % 3], n, dim, dim + 8), out(elems[e], n, dim, dim);
		float *want = (float *)malloc(sizeof(float) * n * dim);

		x.random(3.0f);
		y.random(3.0f);
		for (uint32_t act = 0; act < 4; act++) {
			const bool alone = act == KN_ACT_GELU;
			struct gk_view none = { nullptr, 0, 0 };

			test_ref->ops->act_mul(test_ref, (enum kn_act)act, want, dim, x.host, dim, alone ? nullptr : y.host, y.ld,
			                       n, dim);
			CHECK(gk_act_mul(&test_ctx, act, out.view(), x.view(), alone ? none : y.view(), test_all(n), dim) == 0,
			      "act");
			test_sync("act");
			compare("act", out, want, dim, dim);
		}
		CHECK(gk_convert(&test_ctx, out.view(), y.view(), test_all(n), dim) == 0, "convert");
		test_sync("convert");
		compare("convert", out, y.host, y.ld, dim);
		memcpy(want, x.host, sizeof(float) * n * dim);
		test_ref->ops->add(test_ref, want, dim, y.host, y.ld, n, dim, -0.75f);
		CHECK(gk_add(&test_ctx, x.view(), y.view(), test_all(n), dim, -0.75f) == 0, "add");
		test_sync("add");
		compare("add", x, want, dim, dim);
		free(want);
	}
}

GPU_TEST(rows_beyond_the_number_on_the_device_stay)
{
	const uint32_t n = 4, dim = 16;
	test_rows x(GK_F32, n, dim, dim), y(GK_F32, n, dim, dim);
	both<uint32_t> count(1);
	struct gk_rows rows;
	float before;

	x.random(1.0f);
	y.random(1.0f);
	before = x.host[3 * dim];
	count.host[0] = 2;
	count.up();
	rows.bound = n;
	rows.n = count.device;
	CHECK(gk_add(&test_ctx, x.view(), y.view(), rows, dim, 1.0f) == 0, "add");
	test_sync("add");
	x.down();
	CHECK(x.host[3 * dim] == before, "row 3 was touched");
}
