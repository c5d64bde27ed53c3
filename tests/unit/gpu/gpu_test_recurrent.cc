/* Layers with a state, against kernels/ref: pieces of sequences, sequences that begin, slots in any order. */
#include "gpu_test.h"

enum { N_SEQS = 3, N_SLOTS = 4, BOUND = 32 };

/* A step of three sequences: one begins, one goes on with many tokens, one with one. */
struct step {
	struct kn_seq ref[N_SEQS];
	both<gk_seq> seqs;
	both<uint32_t> counts, row_seq;
	struct gk_batch batch = {};
	uint32_t n_rows = 0;

	step() : seqs(N_SEQS), counts(GK_N_COUNTS), row_seq(BOUND)
	{
		static const uint32_t n_q[N_SEQS] = { 6, 9, 1 }, before[N_SEQS] = { 0, 5, 20 }, slot[N_SEQS] = { 2, 0, 3 };

		for (uint32_t i = 0; i < BOUND; i++)
			row_seq.host[i] = GK_WHOLE;
		for (uint32_t s = 0; s < N_SEQS; s++) {
			ref[s] = {};
			ref[s].kv_len = before[s] + n_q[s];
			ref[s].n_q = n_q[s];
			ref[s].row = n_rows;
			ref[s].state = slot[s];
			/* The second one's state after four of its tokens is kept. */
			ref[s].keep = s == 1 ? 1 : 0;
			ref[s].keep_after = s == 1 ? 4 : 0;
			seqs.host[s] = { ref[s].kv_len, n_q[s], n_rows, 0, slot[s], ref[s].keep, ref[s].keep_after };
			for (uint32_t t = 0; t < n_q[s]; t++)
				row_seq.host[n_rows++] = s;
		}
		counts.host[GK_N_ROWS] = n_rows;
		counts.host[GK_N_SEQS] = N_SEQS;
		seqs.up();
		counts.up();
		row_seq.up();
		batch.counts = counts.device;
		batch.seqs = seqs.device;
		batch.row_seq = row_seq.device;
		batch.max_rows = BOUND; /* more than there are, as in a graph */
		batch.max_seqs = N_SEQS + 1;
	}
};

static void compare(const char *what, const float *got, size_t ld_got, const float *want, size_t ld_want, size_t n,
                    size_t dim, double tolerance)
{
	const double d = test_distance(got, ld_got, want, ld_want, n, dim);

	CHECK(d < tolerance, "%s: %g", what, d);
}

GPU_TEST(a_convolution_goes_on_where_its_state_is)
{
	static const uint32_t shapes[][2] = { { 300, 4 }, { 17, 2 }, { 512, 9 } };

	for (int i = 0; i < 3; i++) {
		const uint32_t channels = shapes[i][0], kernel = shapes[i][1];
		const size_t ld = (size_t)(kernel - 1) * channels + 8;
		step st;
		test_rows x(i == 1 ? GK_BF16 : GK_F32, BOUND, channels, channels + 2), out(GK_F32, BOUND, channels, channels);
		both<float> w((size_t)kernel * channels), state(N_SLOTS * ld);
		float *want = (float *)calloc((size_t)BOUND * channels, sizeof(float));
		float *want_state = (float *)malloc(N_SLOTS * ld * sizeof(float));
		struct kn_conv conv = {};
		struct gk_conv a = {};

		x.random(1.0f);
		test_normals(w.host, w.n, 0.5f);
		test_normals(state.host, state.n, 1.0f);
		w.up();
		state.up();
		memcpy(want_state, state.host, N_SLOTS * ld * sizeof(float));
		conv.n_channels = a.n_channels = channels;
		conv.kernel = a.kernel = kernel;
		conv.ld_state = a.ld_state = ld;
		conv.w = w.host;
		conv.state = want_state;
		test_ref->ops->conv_silu(test_ref, want, channels, x.host, x.ld, &conv, st.ref, N_SEQS);
		a.out = out.view();
		a.x = x.view();
		a.batch = &st.batch;
		a.w = w.device;
		a.state = state.device;
		CHECK(gk_conv_silu(&test_ctx, &a) == 0, "conv_silu");
		test_sync("conv_silu");
		out.down();
		state.down();
		compare("conv_silu", out.host, out.ld, want, channels, st.n_rows, channels, TOL_F32);
		compare("its state", state.host, ld, want_state, ld, N_SLOTS, ld, TOL_F32);
		free(want_state);
		free(want);
	}
}

GPU_TEST(the_delta_rule_goes_on_where_its_state_is)
{
	static const uint32_t shapes[][4] = { { 2, 4, 128, 128 }, { 1, 2, 16, 24 }, { 2, 2, 40, 33 }, { 1, 1, 200, 64 } };

	for (int i = 0; i < 4; i++) {
		const uint32_t n_k = shapes[i][0], n_v = shapes[i][1], k_dim = shapes[i][2], v_dim = shapes[i][3];
		const uint32_t width = 2 * n_k * k_dim + n_v * v_dim;
		const size_t per_slot = (size_t)n_v * k_dim * v_dim, ld = per_slot + 4;
		step st;
		test_rows qkv(i == 1 ? GK_BF16 : GK_F32, BOUND, width, width), ba(GK_F32, BOUND, 2 * n_v, 2 * n_v + 1),
		        out(GK_F32, BOUND, n_v * v_dim, n_v * v_dim);
		both<float> decay(n_v), bias(n_v), state(N_SLOTS * ld);
		float *want = (float *)calloc((size_t)BOUND * n_v * v_dim, sizeof(float));
		float *want_state = (float *)malloc(N_SLOTS * ld * sizeof(float));
		struct kn_delta delta = {};
		struct gk_delta a = {};

		qkv.random(1.0f);
		ba.random(1.0f);
		test_normals(bias.host, n_v, 1.0f);
		test_normals(state.host, state.n, 0.3f);
		for (uint32_t h = 0; h < n_v; h++)
			decay.host[h] = -0.1f - 0.4f * (float)h;
		decay.up();
		bias.up();
		state.up();
		memcpy(want_state, state.host, N_SLOTS * ld * sizeof(float));
		delta.n_k_head = a.n_k_head = n_k;
		delta.n_v_head = a.n_v_head = n_v;
		delta.k_dim = a.k_dim = k_dim;
		delta.v_dim = a.v_dim = v_dim;
		delta.eps = a.eps = 1e-6f;
		delta.ld_state = a.ld_state = ld;
		delta.decay = decay.host;
		delta.dt_bias = bias.host;
		delta.state = want_state;
		test_ref->ops->delta_rule(test_ref, want, n_v * v_dim, qkv.host, qkv.ld, ba.host, ba.ld, &delta, st.ref, N_SEQS);
		a.out = out.view();
		a.qkv = qkv.view();
		a.ba = ba.view();
		a.batch = &st.batch;
		a.decay = decay.device;
		a.dt_bias = bias.device;
		a.state = state.device;
		CHECK(gk_delta_rule(&test_ctx, &a) == 0, "delta_rule");
		test_sync("delta_rule");
		out.down();
		state.down();
		compare("delta_rule", out.host, out.ld, want, n_v * v_dim, st.n_rows, n_v * v_dim, 2e-5);
		compare("its state", state.host, ld, want_state, ld, N_SLOTS, ld, 2e-5);
		free(want_state);
		free(want);
	}
}

GPU_TEST(norms_and_rows_are_gated)
{
	const uint32_t n = 5, heads = 3, dim = 40, width = heads * dim;
	test_rows x(GK_F32, n, width, width), gate(GK_BF16, n, width, width + 8), row_gate(GK_F32, n, 1, 1);
	both<float> w(dim);
	float *want = (float *)malloc(sizeof(float) * n * width);
	struct gk_gated_norm a = {};

	x.random(1.0f);
	gate.random(2.0f);
	row_gate.random(2.0f);
	test_normals(w.host, dim, 1.0f);
	w.up();
	test_ref->ops->gated_rmsnorm(test_ref, want, width, x.host, x.ld, gate.host, gate.ld, w.host, n, heads, dim, 1e-6f);
	a.out = x.view(); /* in place */
	a.x = x.view();
	a.gate = gate.view();
	a.w = w.device;
	a.rows = test_all(n);
	a.n_head = heads;
	a.dim = dim;
	a.eps = 1e-6f;
	CHECK(gk_gated_rmsnorm(&test_ctx, &a) == 0, "gated_rmsnorm");
	test_sync("gated_rmsnorm");
	x.down();
	compare("gated_rmsnorm", x.host, x.ld, want, width, n, width, 2 * TOL_F32);
	memcpy(want, x.host, sizeof(float) * n * width);
	test_ref->ops->gate_rows(test_ref, want, width, row_gate.host, n, width);
	CHECK(gk_gate_rows(&test_ctx, x.view(), row_gate.view(), test_all(n), width) == 0, "gate_rows");
	test_sync("gate_rows");
	x.down();
	compare("gate_rows", x.host, x.ld, want, width, n, width, 2 * TOL_F32);
	free(want);
}
