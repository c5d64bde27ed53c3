/* The reference operations against the formulas written down once more, in double and without the
 * paging, chunking and striding that the operations do. */
#include <errno.h>
#include <math.h>

#include "kernels.h"
#include "test.h"

static struct kn_backend *be;

static int open_backend(void **state)
{
	const struct kn_config config = { .max_tokens = 64 };

	(void)state;
	srand(3);
	return kn_ref_open(&config, &be, NULL);
}

static int close_backend(void **state)
{
	(void)state;
	kn_backend_close(be);
	return 0;
}

static float noise(void)
{
	return (float)rand() / (float)RAND_MAX * 2 - 1;
}

static void fill(float *x, size_t n)
{
	for (size_t i = 0; i < n; i++)
		x[i] = noise();
}

static void assert_close(double a, double b)
{
	if (!(fabs(a - b) <= 1e-5 * (1 + fabs(b))))
		fail_msg("%.9g is not %.9g", a, b);
}

/* ---- Matrices ---- */

static void matmul_agrees_for_every_type(void **state)
{
	enum { ROWS = 7, COLS = 512, N = 19, LD_X = COLS + 3, LD_OUT = ROWS + 2 };
	static float w[ROWS * COLS], x[N * LD_X], out[N * LD_OUT], bias[ROWS], back[COLS];
	static char packed[ROWS * COLS * 4];

	(void)state;
	fill(w, ROWS * COLS);
	fill(x, N * LD_X);
	fill(bias, ROWS);
	for (int t = 0; t < KN_N_DTYPES; t++) {
		struct kn_mat m = { .dtype = (enum kn_dtype)t, .rows = ROWS, .cols = COLS, .data = packed };
		const struct kn_matmul job = {
			.w = &m, .out = out, .ld_out = LD_OUT, .bias = bias, .flags = t % 2 ? KN_ACCUMULATE : 0
		};
		size_t row_bytes = kn_row_bytes(m.dtype, COLS);

		for (int r = 0; r < ROWS; r++)
			kn_quantize(m.dtype, w + r * COLS, packed + r * row_bytes, COLS);
		assert_int_equal(be->ops->mat_init(be, &m), 0);
		for (int i = 0; i < N * LD_OUT; i++)
			out[i] = 100;
		be->ops->matmul(be, &job, 1, x, LD_X, N);
		for (int r = 0; r < ROWS; r++) {
			kn_dequantize(m.dtype, packed + r * row_bytes, back, COLS);
			for (int i = 0; i < N; i++) {
				double y = bias[r] + (t % 2 ? 100 : 0);

				for (int c = 0; c < COLS; c++)
					y += (double)x[i * LD_X + c] * back[c];
				assert_close(out[i * LD_OUT + r], y);
			}
		}
		assert_true(out[ROWS] == 100); /* between rows: not touched */
		be->ops->mat_done(be, &m);
	}
}

static void rows_that_are_not_whole_blocks_are_refused(void **state)
{
	struct kn_mat m = { .dtype = KN_Q8_0, .rows = 1, .cols = 33, .data = "" };

	(void)state;
	assert_int_equal(be->ops->mat_init(be, &m), -EINVAL);
}

static void embed_takes_scaled_rows(void **state)
{
	const float table[3][2] = { { 1, 2 }, { 3, 4 }, { 5, 6 } };
	const struct kn_mat m = { .dtype = KN_F32, .rows = 3, .cols = 2, .data = table };
	const int32_t ids[] = { 2, 0 };
	float out[6] = { 0 };

	(void)state;
	be->ops->embed(be, out, 3, &m, ids, 2, 0.5f);
	assert_close(out[0], 2.5);
	assert_close(out[1], 3);
	assert_close(out[3], 0.5);
	assert_close(out[4], 1);
}

/* ---- Rows ---- */

static void rmsnorm_norms_each_group(void **state)
{
	enum { N = 3, HEADS = 2, DIM = 5, LD = 12 };
	float x[N * LD], out[N * LD], w[DIM];
	const float eps = 1e-3f;

	(void)state;
	fill(x, N * LD);
	fill(w, DIM);
	for (int with_w = 0; with_w < 2; with_w++) {
		be->ops->rmsnorm(be, out, LD, x, LD, with_w ? w : NULL, N, HEADS, DIM, eps);
		for (int i = 0; i < N; i++) {
			for (int h = 0; h < HEADS; h++) {
				const float *g = x + i * LD + h * DIM;
				double ms = 0;

				for (int d = 0; d < DIM; d++)
					ms += (double)g[d] * g[d] / DIM;
				for (int d = 0; d < DIM; d++)
					assert_close(out[i * LD + h * DIM + d],
					             g[d] / sqrt(ms + eps) * (with_w ? w[d] : 1));
			}
		}
	}
}

static void rope_rotates_pairs_of_both_kinds(void **state)
{
	enum { HEADS = 2, DIM = 8, ROT = 4, OFFSET = 2 };
	const float inv_freq[ROT / 2] = { 1, 0.1f };
	const int32_t pos[] = { 0, 7 };

	(void)state;
	for (int interleaved = 0; interleaved < 2; interleaved++) {
		const struct kn_rope rope = {
			.inv_freq = inv_freq, .n_rot = ROT, .offset = OFFSET, .scale = 1.5f, .interleaved = interleaved
		};
		float x[2 * HEADS * DIM], y[2 * HEADS * DIM];

		fill(x, 2 * HEADS * DIM);
		memcpy(y, x, sizeof(x));
		be->ops->rope(be, y, HEADS * DIM, 2, HEADS, DIM, &rope, pos);
		for (int i = 0; i < 2 * HEADS; i++) {
			const float *a = x + i * DIM, *b = y + i * DIM;

			for (int j = 0; j < ROT / 2; j++) {
				int p = OFFSET + (interleaved ? 2 * j : j), q = p + (interleaved ? 1 : ROT / 2);
				double angle = pos[i / HEADS] * (double)inv_freq[j];

				assert_close(b[p], 1.5 * (a[p] * cos(angle) - a[q] * sin(angle)));
				assert_close(b[q], 1.5 * (a[q] * cos(angle) + a[p] * sin(angle)));
			}
			assert_true(a[0] == b[0] && a[1] == b[1] && a[6] == b[6] && a[7] == b[7]);
		}
	}
}

static void activations_follow_their_definitions(void **state)
{
	const float g[] = { -9, -1, 0, 0.5f, 8, 8 }, u[] = { 2, -3, 5, 1, -9, 9 };
	float out[6];

	(void)state;
	be->ops->act_mul(be, KN_ACT_SILU, out, 6, g, 6, u, 6, 1, 6);
	for (int i = 0; i < 6; i++)
		assert_close(out[i], g[i] / (1 + exp(-g[i])) * u[i]);
	be->ops->act_mul(be, KN_ACT_GELU_TANH, out, 6, g, 6, u, 6, 1, 6);
	for (int i = 0; i < 6; i++)
		assert_close(out[i], 0.5 * g[i] * (1 + tanh(sqrt(2 / M_PI) * (g[i] + 0.044715 * pow(g[i], 3)))) * u[i]);
	be->ops->act_mul(be, KN_ACT_SWIGLU_OSS, out, 6, g, 6, u, 6, 1, 6);
	for (int i = 0; i < 6; i++) {
		double gc = fmin(g[i], 7), uc = fmax(fmin(u[i], 7), -7);

		assert_close(out[i], gc / (1 + exp(-1.702 * gc)) * (uc + 1));
	}
}

static void add_scales_and_strides(void **state)
{
	float x[] = { 1, 2, 99, 3, 4, 99 };
	const float y[] = { 10, 20, 30, 40 };

	(void)state;
	be->ops->add(be, x, 3, y, 2, 2, 2, 0.5f);
	assert_true(x[0] == 6 && x[1] == 12 && x[2] == 99 && x[3] == 18 && x[4] == 24 && x[5] == 99);
}

/* ---- Attention ---- */

enum { PAGE = 4, N_PAGES = 16, MAX_KV = 24, HEADS = 4, KV_HEADS = 2, K_DIM = 6, V_DIM = 4 };

struct attn_case {
	const char *name;
	struct kn_attn attn;
	bool shared_v; /* V is the beginning of K */
};

/* One query head over keys [0, pos]: the definition. */
static void attend(const struct attn_case *c, const float *q, float k[][KV_HEADS][K_DIM], float v[][KV_HEADS][V_DIM],
                   int pos, int head, double *out)
{
	int kv_head = head / (HEADS / KV_HEADS);
	double total = c->attn.sinks ? exp(c->attn.sinks[head]) : 0;

	memset(out, 0, V_DIM * sizeof(*out));
	for (int t = 0; t <= pos; t++) {
		double s = 0;

		if (c->attn.window && t <= pos - (int)c->attn.window)
			continue;
		for (int d = 0; d < K_DIM; d++)
			s += (double)q[d] * k[t][kv_head][d];
		s *= c->attn.scale;
		if (c->attn.softcap > 0)
			s = c->attn.softcap * tanh(s / c->attn.softcap);
		total += exp(s);
		for (int d = 0; d < V_DIM; d++)
			out[d] += exp(s) * (c->shared_v ? k[t][kv_head][d] : v[t][kv_head][d]);
	}
	for (int d = 0; d < V_DIM; d++)
		out[d] /= total;
}

static void check_attention(const struct attn_case *c)
{
	static const uint32_t pages[2][6] = { { 9, 2, 15, 0, 7, 4 }, { 3, 11, 1, 14, 5, 8 } };
	static float k_pool[N_PAGES * KV_HEADS * PAGE * K_DIM], v_pool[N_PAGES * KV_HEADS * PAGE * V_DIM];
	static float k[2][MAX_KV][KV_HEADS][K_DIM], v[2][MAX_KV][KV_HEADS][V_DIM];
	const struct kn_kv kv = { .dtype = KN_F32,
		                  .n_kv_head = KV_HEADS,
		                  .k_dim = K_DIM,
		                  .v_dim = V_DIM,
		                  .page_tokens = PAGE,
		                  .k = k_pool,
		                  .v = c->shared_v ? NULL : v_pool };
	const uint32_t lens[2] = { 21, 9 }, new[2] = { 6, 1 };
	float q[7][HEADS][K_DIM], out[7][HEADS][V_DIM];
	struct kn_seq seqs[2], done[2];

	fill(&k[0][0][0][0], sizeof(k) / sizeof(float));
	fill(&v[0][0][0][0], sizeof(v) / sizeof(float));
	fill(&q[0][0][0], sizeof(q) / sizeof(float));
	for (uint32_t s = 0; s < 2; s++) {
		/* What is stored step by step, here in two pieces, is found again. */
		done[s] = (struct kn_seq){ .pages = pages[s], .kv_len = lens[s] - new[s], .n_q = lens[s] - new[s] };
		seqs[s] = (struct kn_seq){ .pages = pages[s], .kv_len = lens[s], .n_q = new[s], .row = s ? new[0] : 0 };
		be->ops->kv_store(be, &kv, &k[s][0][0][0], KV_HEADS * K_DIM, &v[s][0][0][0], KV_HEADS * V_DIM, &done[s],
		                  1);
		done[s] =
		        (struct kn_seq){ .pages = pages[s], .kv_len = lens[s], .n_q = new[s], .row = lens[s] - new[s] };
		be->ops->kv_store(be, &kv, &k[s][0][0][0], KV_HEADS * K_DIM, &v[s][0][0][0], KV_HEADS * V_DIM, &done[s],
		                  1);
	}
	be->ops->attention(be, &out[0][0][0], HEADS * V_DIM, &q[0][0][0], HEADS * K_DIM, &kv, seqs, 2, &c->attn);
	for (uint32_t s = 0; s < 2; s++) {
		for (uint32_t i = 0; i < new[s]; i++) {
			for (int h = 0; h < HEADS; h++) {
				double expected[V_DIM];
				uint32_t row = seqs[s].row + i;

				attend(c, q[row][h], k[s], v[s], (int)(lens[s] - new[s] + i), h, expected);
				for (int d = 0; d < V_DIM; d++)
					assert_close(out[row][h][d], expected[d]);
			}
		}
	}
}

static const float sinks[HEADS] = { 0.5f, -2, 3, 0 };

static const struct attn_case attn_cases[] = {
	{ "attention over scattered pages", { .n_head = HEADS, .scale = 0.4f }, false },
	{ "attention in a window", { .n_head = HEADS, .scale = 0.4f, .window = 5 }, false },
	{ "attention in a window of one", { .n_head = HEADS, .scale = 0.4f, .window = 1 }, false },
	{ "attention in a window wider than all", { .n_head = HEADS, .scale = 0.4f, .window = 1000 }, false },
	{ "attention with a soft cap", { .n_head = HEADS, .scale = 3, .softcap = 1.5f }, false },
	{ "attention with sinks", { .n_head = HEADS, .scale = 0.4f, .sinks = sinks }, false },
	{ "attention with sinks in a window", { .n_head = HEADS, .scale = 0.4f, .sinks = sinks, .window = 3 }, false },
	{ "attention whose values are in the keys", { .n_head = HEADS, .scale = 0.4f }, true },
};
enum { N_ATTN_CASES = sizeof(attn_cases) / sizeof(attn_cases[0]) };

static void attention_agrees(void **state)
{
	check_attention(*state);
}

/* Logits of thousands: without the maximum taken out, exp() would overflow. */
static void attention_survives_large_logits(void **state)
{
	const float k[2][2] = { { 100, 0 }, { 0, 100 } }, v[2][1] = { { 1 }, { 2 } };
	const float q[2] = { 100, 0 };
	float k_pool[8], v_pool[4], out = 0;
	const uint32_t page = 0;
	const struct kn_kv kv = {
		.dtype = KN_F32, .n_kv_head = 1, .k_dim = 2, .v_dim = 1, .page_tokens = 4, .k = k_pool, .v = v_pool
	};
	struct kn_seq seq = { .pages = &page, .kv_len = 2, .n_q = 2 };
	const struct kn_attn attn = { .n_head = 1, .scale = 1 };

	(void)state;
	be->ops->kv_store(be, &kv, k[0], 2, v[0], 1, &seq, 1);
	seq.n_q = 1;
	be->ops->attention(be, &out, 1, q, 2, &kv, &seq, 1, &attn);
	assert_close(out, 1);
}

static void half_precision_pools_store_rounded_values(void **state)
{
	const enum kn_dtype types[] = { KN_F16, KN_BF16 };
	const float k[4] = { 0.1f, -0.3f, 1.7f, 2.9f };
	uint16_t pool[2 * 2 * 4] = { 0 };
	const uint32_t page = 1;
	const struct kn_seq seq = { .pages = &page, .kv_len = 2, .n_q = 1, .row = 0 };

	(void)state;
	for (int i = 0; i < 2; i++) {
		const struct kn_kv kv = {
			.dtype = types[i], .n_kv_head = 1, .k_dim = 4, .v_dim = 2, .page_tokens = 2, .k = pool
		};
		uint16_t expected[4];

		kn_quantize(types[i], k, expected, 4);
		be->ops->kv_store(be, &kv, k, 4, NULL, 0, &seq, 1);
		assert_memory_equal(pool + 12, expected, sizeof(expected)); /* page 1, second token */
	}
}

int main(void)
{
	struct CMUnitTest tests[9 + N_ATTN_CASES] = {
		cmocka_unit_test(matmul_agrees_for_every_type),
		cmocka_unit_test(rows_that_are_not_whole_blocks_are_refused),
		cmocka_unit_test(embed_takes_scaled_rows),
		cmocka_unit_test(rmsnorm_norms_each_group),
		cmocka_unit_test(rope_rotates_pairs_of_both_kinds),
		cmocka_unit_test(activations_follow_their_definitions),
		cmocka_unit_test(add_scales_and_strides),
		cmocka_unit_test(attention_survives_large_logits),
		cmocka_unit_test(half_precision_pools_store_rounded_values),
	};

	for (int i = 0; i < N_ATTN_CASES; i++)
		tests[9 + i] = (struct CMUnitTest){ .name = attn_cases[i].name,
			                            .test_func = attention_agrees,
			                            .initial_state = (void *)&attn_cases[i] };
	return cmocka_run_group_tests(tests, open_backend, close_backend);
}
