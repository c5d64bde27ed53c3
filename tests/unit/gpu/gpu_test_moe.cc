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

/* Norm, product and choice in one launch. Twice, since the second finds the counters that the first left. */
static void router(uint32_t n, uint32_t elem, bool norm, bool biases, enum kn_route kind, uint32_t n_expert, uint32_t dim)
{
	enum { MOST = 80 };
	const uint32_t k = 4;
	const struct kn_router choice = { kind, n_expert, k, 0, 0, true, 1.5f, nullptr };
	test_rows x(elem, n, dim, (dim + 15) / 8 * 8), normed(GK_F32, n, dim, dim);
	test_mat w(KN_F32, n_expert, dim, 0.1f);
	both<float> norm_w(dim), bias(n_expert), logits((size_t)n * n_expert), weights((size_t)n * k);
	both<int32_t> ids((size_t)n * k);
	float *want_x = (float *)malloc(sizeof(float) * n * dim), *want = (float *)malloc(sizeof(float) * n * n_expert);
	int32_t want_ids[MOST * 4];
	float want_weights[MOST * 4];
	struct gk_router a = {};
	bool same = true;

	x.random(1.0f);
	test_normals(norm_w.host, dim, 1.0f);
	test_normals(bias.host, n_expert, 1.0f);
	norm_w.up();
	bias.up();
	for (uint32_t i = 0; i < n; i++)
		memcpy(want_x + (size_t)i * dim, x.host + (size_t)i * x.ld, dim * sizeof(float));
	if (norm)
		test_ref->ops->rmsnorm(test_ref, want_x, dim, x.host, x.ld, norm_w.host, n, 1, dim, 1e-5f);
	const struct kn_matmul job = { &w.ref, want, n_expert, biases ? bias.host : nullptr, 0 };
	test_ref->ops->matmul(test_ref, &job, 1, want_x, dim, n);
	a.x = x.view();
	a.normed = normed.view();
	a.rows = test_all(n);
	a.norm = norm;
	a.norm_w = norm_w.device;
	a.eps = 1e-5f;
	if (!norm)
		a.norm_w = nullptr;
	a.w = w.mat;
	a.bias = biases ? bias.device : nullptr;
	a.logits = logits.device;
	a.router = choice;
	a.ids = ids.device;
	a.weights = weights.device;
	for (int again = 0; again < 2; again++) {
		CHECK(gk_route_product(&test_ctx, &a) == 0, "route_few");
		test_sync("route_few");
	}
	logits.down();
	ids.down();
	weights.down();
	CHECK(test_distance(logits.host, n_expert, want, n_expert, n, n_expert) < 5 * TOL_F32, "other logits");
	if (norm) {
		normed.down();
		CHECK(test_distance(normed.host, dim, want_x, dim, n, dim) < 5 * TOL_F32, "not normed");
	}
	/* From the device's own logits: near ones may change places. */
	test_ref->ops->route(test_ref, &choice, logits.host, n, want_ids, want_weights);
	for (uint32_t i = 0; i < n * k; i++)
		same &= ids.host[i] == want_ids[i];
	CHECK(same, "kind %d: other experts", (int)kind);
	CHECK(test_distance(weights.host, k, want_weights, k, n, k) < 1e-5, "kind %d: other weights", (int)kind);
	free(want_x);
	free(want);
}

GPU_TEST(norm_product_and_choice_are_one)
{
	router(3, GK_F32, true, false, KN_ROUTE_SOFTMAX, 128, 2048);
	router(2, GK_BF16, false, true, KN_ROUTE_TOPK_SOFTMAX, 30, 260);
	router(3, GK_F32, true, true, KN_ROUTE_SIGMOID, 5, 2180); /* more than a lane asks for ahead */
}

GPU_TEST(a_router_of_many_rows)
{
	router(80, GK_BF16, false, true, KN_ROUTE_SOFTMAX, 30, 260);
	router(17, GK_BF16, false, false, KN_ROUTE_SIGMOID, 128, 512);
}

/* router: experts are chosen on the way, from logits; else some are given. */
static void mixture(uint32_t type, uint32_t n, bool exact, bool biases, enum kn_act act, double tolerance, uint32_t n_expert,
                    const struct kn_router *router = nullptr)
{
	const uint32_t dim = 256, n_ff = type == KN_Q4_K || type == KN_Q5_K || type == KN_Q6_K ? 256 : 96;
	const uint32_t top_k = router ? router->top_k : 2;
	test_mat **m = (test_mat **)malloc(sizeof(*m) * 3 * n_expert);
	both<struct gk_mat> mats(3 * n_expert);
	struct kn_mat *refs = (struct kn_mat *)malloc(sizeof(*refs) * 3 * n_expert);
	both<float> gate_bias(n_expert * n_ff), up_bias(n_expert * n_ff), down_bias(n_expert * dim);
	both<float> weights((size_t)n * top_k);
	both<int32_t> ids((size_t)n * top_k);
	both<float> logits((size_t)n * n_expert);
	int32_t *want_ids = (int32_t *)calloc((size_t)n * top_k, sizeof(int32_t));
	float *want_weights = (float *)calloc((size_t)n * top_k, sizeof(float));
	test_rows x(GK_F32, n, dim, dim + 4), out(GK_F32, n, dim, dim);
	struct gk_choice choice = {};
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
	for (uint32_t i = 0; i < n && !router; i++) {
		want_ids[2 * i] = (int32_t)(test_random() % (n_expert - 1));
		want_ids[2 * i + 1] = (int32_t)n_expert - 1; /* one that all choose */
		want_weights[2 * i] = 0.7f;
		want_weights[2 * i + 1] = 0.4f;
	}
	if (router) {
		test_normals(logits.host, logits.n, 1.0f);
		logits.up();
		test_ref->ops->route(test_ref, router, logits.host, n, want_ids, want_weights);
	} else {
		memcpy(ids.host, want_ids, ids.n * sizeof(*ids.host));
		memcpy(weights.host, want_weights, weights.n * sizeof(*weights.host));
		ids.up();
		weights.up();
	}
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
	test_ref->ops->moe(test_ref, &ref, want, dim, x.host, x.ld, n, dim, top_k, want_ids, want_weights);
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
	if (router) {
		choice.router = *router;
		choice.logits = logits.device;
		choice.ids = ids.device;
		choice.weights = weights.device;
		a.choice = &choice;
		CHECK(gk_moe_chooses(&test_ctx, &a) == (n <= 4 && !exact), "%u rows", n);
	}
	CHECK(gk_moe(&test_ctx, &a) == 0, "moe");
	test_sync("moe");
	out.down();
	ids.down();
	weights.down();
	CHECK(memcmp(ids.host, want_ids, ids.n * sizeof(*ids.host)) == 0, "other experts");
	CHECK(test_distance(weights.host, top_k, want_weights, top_k, n, top_k) < 1e-5, "other weights");
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
	free(want_ids);
	free(want_weights);
}

GPU_TEST(experts_are_chosen_on_the_way)
{
	static const struct kn_router softmax = { KN_ROUTE_SOFTMAX, 13, 8, 0, 0, true, 1.0f, nullptr };
	static const struct kn_router sigmoid = { KN_ROUTE_SIGMOID, 16, 3, 4, 2, true, 2.5f, nullptr };
	static const struct kn_router after = { KN_ROUTE_TOPK_SOFTMAX, 6, 4, 0, 0, false, 1.0f, nullptr };

	mixture(KN_BF16, 1, false, true, KN_ACT_SILU, 2e-5, 13, &softmax);
	mixture(KN_BF16, 3, false, false, KN_ACT_SILU, 2e-5, 16, &sigmoid);
	mixture(KN_Q4_K, 2, false, false, KN_ACT_SILU, 2e-5, 6, &after);
	mixture(KN_Q8_0, 4, false, true, KN_ACT_SWIGLU_OSS, 2e-5, 6, &after);
	mixture(KN_BF16, 5, false, true, KN_ACT_SILU, 2 * TOL_BF16, 13, &softmax); /* sorted */
	mixture(KN_BF16, 2, true, false, KN_ACT_SILU, 5 * TOL_F32, 6, &after);
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

GPU_TEST(experts_of_any_type)
{
	for (int t = 0; t < test_n_types; t++) {
		if (test_types[t] == KN_F32)
			continue;
		mixture(test_types[t], 2, false, true, KN_ACT_SILU, 2e-5, 3);
		mixture(test_types[t], 11, false, false, KN_ACT_SILU, 2 * TOL_BF16, 3);
		mixture(test_types[t], 30, false, true, KN_ACT_SILU, 3 * TOL_BF16, 2);
	}
}

GPU_TEST(experts_with_rows_for_several_tiles)
{
	mixture(KN_BF16, 140, false, true, KN_ACT_SILU, 3 * TOL_BF16, 4);
	mixture(KN_Q8_0, 135, false, false, KN_ACT_SWIGLU_OSS, 3 * TOL_BF16, 6);
}

/* The rows [0, n) of one mixture, with ctx.fixed. */
static void fixed_rows(uint32_t n, const struct gk_moe *all, float *ret, test_rows *out)
{
	struct gk_moe a = *all;

	memset(out->host, 0, sizeof(float) * out->n * out->ld);
	out->up();
	a.rows = test_all(n);
	test_ctx.fixed = true;
	CHECK(gk_moe(&test_ctx, &a) == 0, "moe");
	test_ctx.fixed = false;
	test_sync("moe");
	out->down();
	memcpy(ret, out->host, sizeof(float) * n * out->ld);
}

GPU_TEST(a_fixed_row_does_not_mind_its_company)
{
	enum { N = 40, DIM = 128, FF = 96, E = 3 };
	test_mat *m[3 * E];
	both<struct gk_mat> mats(3 * E);
	both<float> weights(2 * N);
	both<int32_t> ids(2 * N);
	test_rows x(GK_BF16, N, DIM, DIM), out(GK_F32, N, DIM, DIM);
	static float alone[N * DIM], together[N * DIM];
	struct gk_moe a = {};

	for (uint32_t e = 0; e < 3 * E; e++) {
		m[e] = new test_mat(KN_BF16, e < 2 * E ? FF : DIM, e < 2 * E ? DIM : FF, 0.1f);
		mats.host[e] = m[e]->mat;
	}
	for (uint32_t i = 0; i < 2 * N; i++) {
		ids.host[i] = (int32_t)(i % 2 ? 2 : test_random() % 2);
		weights.host[i] = 0.3f + 0.1f * (float)(i % 3);
	}
	mats.up();
	ids.up();
	weights.up();
	x.random(1.0f);
	a.x = x.view();
	a.out = out.view();
	a.n_expert = E;
	a.n_ff = FF;
	a.dim = DIM;
	a.top_k = 2;
	a.act = KN_ACT_SILU;
	a.type_gate = a.type_up = a.type_down = KN_BF16;
	a.gate = mats.device;
	a.up = mats.device + E;
	a.down = mats.device + 2 * E;
	a.ids = ids.device;
	a.weights = weights.device;
	fixed_rows(N, &a, together, &out);
	fixed_rows(1, &a, alone, &out);
	CHECK(memcmp(alone, together, sizeof(float) * DIM) == 0, "alone and with 39 others");
	fixed_rows(7, &a, alone, &out);
	CHECK(memcmp(alone, together, sizeof(float) * 7 * DIM) == 0, "7 and 40");
	for (test_mat *each : m)
		delete each;
}

GPU_TEST(rows_meet_their_experts_exactly)
{
	mixture(KN_F32, 5, false, true, KN_ACT_SILU, 5 * TOL_F32, 4);
	mixture(KN_BF16, 3, true, false, KN_ACT_SILU, 5 * TOL_F32, 4);
}
