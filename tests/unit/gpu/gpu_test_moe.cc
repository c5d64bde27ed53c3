/* The router and mixtures of experts, against kernels/ref. */
#include "gpu_test.h"

GPU_TEST(the_router_chooses_as_the_reference)
{
	static const struct kn_router kinds[] = {
		{ KN_ROUTE_SOFTMAX, 64, 8, 0, 0, true, 1.0f, nullptr },
		{ KN_ROUTE_SOFTMAX, 10, 3, 0, 0, false, 2.5f, nullptr },
		{ KN_ROUTE_TOPK_SOFTMAX, 32, 4, 0, 0, false, 1.0f, nullptr },
		{ KN_ROUTE_SIGMOID, 64, 6, 8, 3, true, 2.5f, nullptr },
		{ KN_ROUTE_SIGMOID, 8, 8, 0, 0, false, 1.0f, nullptr },
	};

	for (int c = 0; c < 5; c++) {
		const uint32_t n = 5, k = kinds[c].top_k;
		struct kn_router r = kinds[c], dev = kinds[c];
		both<float> logits((size_t)n * r.n_expert), bias(r.n_expert), weights((size_t)n * k);
		both<int32_t> ids((size_t)n * k);
		int32_t want_ids[5 * 8];
		float want[5 * 8];
		bool same = true;

		test_normals(logits.host, logits.n, 1.0f);
		test_normals(bias.host, bias.n, 0.3f);
		for (uint32_t e = 0; e < r.n_expert; e++)
			logits.host[e] = e % 3 ? 0.5f : 0.25f; /* ties */
		for (uint32_t e = 0; c != 3 && e < r.n_expert; e++)
			bias.host[e] = 0.0f;
		logits.up();
		bias.up();
		if (r.kind == KN_ROUTE_SIGMOID) {
			r.bias = bias.host;
			dev.bias = bias.device;
		}
		test_ref->ops->route(test_ref, &r, logits.host, n, want_ids, want);
		CHECK(gk_route(&test_ctx, &dev, logits.device, test_all(n), ids.device, weights.device) == 0, "route");
		test_sync("route");
		ids.down();
		weights.down();
		for (uint32_t i = 0; i < n * k; i++)
			same &= ids.host[i] == want_ids[i];
		CHECK(same, "kind %d: other experts", c);
		CHECK(test_distance(weights.host, k, want, k, n, k) < 1e-5, "kind %d: other weights", c);
	}
}

static void mixture(uint32_t type, uint32_t n, bool exact, bool biases, enum kn_act act, double tolerance, uint32_t n_expert)
{
	const uint32_t dim = 256, n_ff = type == KN_Q4_K || type == KN_Q6_K ? 256 : 96, top_k = 2;
	test_mat **m = (test_mat **)malloc(sizeof(*m) * 3 * n_expert);
	both<struct gk_mat> mats(3 * n_expert);
	struct kn_mat *refs = (struct kn_mat *)malloc(sizeof(*refs) * 3 * n_expert);
	both<float> gate_bias(n_expert * n_ff), up_bias(n_expert * n_ff), down_bias(n_expert * dim);
	both<float> weights((size_t)n * top_k);
	both<int32_t> ids((size_t)n * top_k);
	test_rows x(GK_F32, n, dim, dim + 4), out(GK_F32, n, dim, dim);
	struct kn_moe ref = {};
	struct gk_moe a = {};
	float *want = (float *)malloc(sizeof(float) * n * dim), *before = (float *)malloc(sizeof(float) * n * dim);
	double d;

	for (uint32_t e = 0; e < 3 * n_expert; e++) {
		const bool down = e >= 2 * n_expert;

		m[e] = new test_mat(type, down ? dim : n_ff, down ? n_ff : dim, 0.1f);
		mats.host[e] = m[e]->mat;
		refs[e] = m[e]->ref;
	}
	mats.up();
	test_normals(gate_bias.host, gate_bias.n, 1.0f);
	test_normals(up_bias.host, up_bias.n, 1.0f);
	test_normals(down_bias.host, down_bias.n, 1.0f);
	gate_bias.up();
	up_bias.up();
	down_bias.up();
	for (uint32_t i = 0; i < n; i++) {
		ids.host[2 * i] = (int32_t)(test_random() % (n_expert - 1));
		ids.host[2 * i + 1] = (int32_t)n_expert - 1; /* one that all choose */
		weights.host[2 * i] = 0.7f;
		weights.host[2 * i + 1] = 0.4f;
	}
	ids.up();
	weights.up();
	x.random(1.0f);
	out.random(1.0f);
	memcpy(want, out.host, sizeof(float) * n * dim);
	ref.n_expert = a.n_expert = n_expert;
	ref.n_ff = a.n_ff = n_ff;
	ref.act = act;
	a.act = act;
	ref.gate = refs;
	ref.up = refs + n_expert;
	ref.down = refs + 2 * n_expert;
	if (biases) {
		ref.gate_bias = gate_bias.host;
		ref.up_bias = up_bias.host;
		ref.down_bias = down_bias.host;
		a.gate_bias = gate_bias.device;
		a.up_bias = up_bias.device;
		a.down_bias = down_bias.device;
	}
	memcpy(before, want, sizeof(float) * n * dim);
	test_ref->ops->moe(test_ref, &ref, want, dim, x.host, x.ld, n, dim, top_k, ids.host, weights.host);
	a.x = x.view();
	a.out = out.view();
	a.rows = test_all(n);
	a.dim = dim;
	a.top_k = top_k;
	a.type_gate = a.type_up = a.type_down = type;
	a.gate = mats.device;
	a.up = mats.device + n_expert;
	a.down = mats.device + 2 * n_expert;
	a.ids = ids.device;
	a.weights = weights.device;
	a.exact = exact;
	CHECK(gk_moe(&test_ctx, &a) == 0, "moe");
	test_sync("moe");
	out.down();
	for (size_t i = 0; i < (size_t)n * dim; i++) { /* what was added */
		want[i] -= before[i];
		out.host[i] -= before[i];
	}
	d = test_distance(out.host, dim, want, dim, n, dim);
	CHECK(d < tolerance, "%s, %u rows%s: %g", test_type_name(type), n, exact ? ", exact" : "", d);
	for (uint32_t e = 0; e < 3 * n_expert; e++)
		delete m[e];
	free(m);
	free(refs);
	free(want);
	free(before);
}

GPU_TEST(a_row_meets_its_experts)
{
	/* x in two parts; what passes between the products is float32 and is cut into two parts again */
	mixture(KN_BF16, 1, false, true, KN_ACT_SILU, 2e-5, 4);
	mixture(KN_Q4_K, 3, false, false, KN_ACT_SILU, 2e-5, 4);
	mixture(KN_Q8_0, 2, false, true, KN_ACT_SWIGLU_OSS, 2e-5, 4);
}

GPU_TEST(some_rows_meet_their_experts)
{
	mixture(KN_BF16, 13, false, true, KN_ACT_SILU, 2 * TOL_BF16, 4);
	mixture(KN_Q6_K, 9, false, false, KN_ACT_GELU_TANH, 2 * TOL_BF16, 3);
}

GPU_TEST(many_rows_meet_their_experts)
{
	mixture(KN_BF16, 70, false, true, KN_ACT_SILU, 3 * TOL_BF16, 4);
	mixture(KN_Q4_K, 33, false, false, KN_ACT_SILU, 3 * TOL_BF16, 3);
}

GPU_TEST(rows_meet_their_experts_exactly)
{
	mixture(KN_F32, 5, false, true, KN_ACT_SILU, 5 * TOL_F32, 4);
	mixture(KN_BF16, 3, true, false, KN_ACT_SILU, 5 * TOL_F32, 4);
}
