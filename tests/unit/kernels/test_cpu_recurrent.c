/* The cpu backend's operations on recurrent states, for every instruction set of this machine, compared with the
 * reference backend: several sequences in a call, new ones and ones that go on, in pieces.
 *
 * Tolerances: the convolution is a sum of a few products and an exponential, 1e-5. The delta rule feeds its own results
 * back; what it forgets limits how far a rounding travels: 1e-5 of the largest value, over some tens of tokens. */
#include "cpu_test.h"

enum { SLOTS = 6, SEQS = 3 };

/* Three sequences, in slots 4, 0 and 2: the first is new, the others go on; two leave copies in slots 1 and 5, of which
 * the second is that of all tokens. */
static size_t lay_out(struct kn_seq *seqs, uint32_t n)
{
	const uint32_t slots[SEQS] = { 4, 0, 2 };
	uint32_t row = 0;

	for (uint32_t i = 0; i < SEQS; i++) {
		seqs[i] = (struct kn_seq){ .kv_len = n + i * 8, .n_q = n + i, .row = row, .state = slots[i] };
		if (i == 0)
			seqs[i].kv_len = seqs[i].n_q;
		if (i != 1) {
			seqs[i].keep = i == 0 ? 1 : 5;
			seqs[i].keep_after = i == 0 ? (n + 1) / 2 : seqs[i].n_q;
		}
		row += seqs[i].n_q;
	}
	return row;
}

static void check_conv(const char *isa, struct kn_backend *ref, struct kn_backend *cpu, uint32_t n_q, uint32_t channels,
                       uint32_t kernel)
{
	struct kn_seq seqs[SEQS];
	size_t n = lay_out(seqs, n_q), ld = channels + 3, ld_state = (kernel - 1) * (size_t)channels + 5;
	float *x = gauss(n * ld), *w = gauss((size_t)kernel * channels), *want = gauss(n * ld),
	      *got = copy_of(want, n * ld);
	float *state = gauss(SLOTS * ld_state), *cpu_state = copy_of(state, SLOTS * ld_state);
	struct kn_conv conv = {
		.n_channels = channels, .kernel = kernel, .w = w, .state = state, .ld_state = ld_state
	};

	ref->ops->conv_silu(ref, want, ld, x, ld, &conv, seqs, SEQS);
	conv.state = cpu_state;
	cpu->ops->conv_silu(cpu, got, ld, x, ld, &conv, seqs, SEQS);
	assert_close(isa, got, want, n * ld, 1e-6f, 1e-5f);
	assert_same(isa, cpu_state, state, SLOTS * ld_state); /* slots that are nobody's stay */
	assert_same(isa, state + 5 * ld_state, state + 2 * ld_state, (kernel - 1) * (size_t)channels);
	free(x);
	free(w);
	free(want);
	free(got);
	free(state);
	free(cpu_state);
}

struct delta_case {
	uint32_t n_k_head, n_v_head, k_dim, v_dim;
};

static float largest(const float *x, size_t n)
{
	float m = 0;

	for (size_t i = 0; i < n; i++)
		m = fabsf(x[i]) > m ? fabsf(x[i]) : m;
	return m;
}

static void check_delta(const char *isa, struct kn_backend *ref, struct kn_backend *cpu, uint32_t n_q,
                        const struct delta_case *c)
{
	struct kn_seq seqs[SEQS];
	size_t n = lay_out(seqs, n_q), n_v = (size_t)c->n_v_head * c->v_dim,
	       n_qkv = 2 * (size_t)c->n_k_head * c->k_dim + n_v, ld = n_qkv + 3, ld_ba = 2 * (size_t)c->n_v_head + 1,
	       ld_out = n_v + 2, ld_state = n_v * c->k_dim + 7;
	float *qkv = gauss(n * ld), *cpu_qkv = copy_of(qkv, n * ld), *ba = gauss(n * ld_ba),
	      *cpu_ba = copy_of(ba, n * ld_ba);
	float *want = gauss(n * ld_out), *got = copy_of(want, n * ld_out);
	float *state = gauss(SLOTS * ld_state), *cpu_state = copy_of(state, SLOTS * ld_state);
	float *decay = gauss(c->n_v_head), *dt_bias = gauss(c->n_v_head);
	struct kn_delta delta = {
		c->n_k_head, c->n_v_head, c->k_dim, c->v_dim, decay, dt_bias, 1e-6f, state, ld_state
	};

	for (uint32_t h = 0; h < c->n_v_head; h++)
		decay[h] = -expf(decay[h]);
	ba[0] = cpu_ba[0] = 60; /* far out: all of the change, and a step of its own size */
	ba[c->n_v_head] = cpu_ba[c->n_v_head] = 60;
	ref->ops->delta_rule(ref, want, ld_out, qkv, ld, ba, ld_ba, &delta, seqs, SEQS);
	delta.state = cpu_state;
	cpu->ops->delta_rule(cpu, got, ld_out, cpu_qkv, ld, cpu_ba, ld_ba, &delta, seqs, SEQS);
	assert_close(isa, got, want, n * ld_out, 1e-5f * largest(want, n * ld_out), 1e-5f);
	assert_close(isa, cpu_state, state, SLOTS * ld_state, 1e-5f * largest(state, SLOTS * ld_state), 1e-5f);
	assert_same(isa, state + 5 * ld_state, state + 2 * ld_state, n_v * c->k_dim);
	free(qkv);
	free(cpu_qkv);
	free(ba);
	free(cpu_ba);
	free(want);
	free(got);
	free(state);
	free(cpu_state);
	free(decay);
	free(dt_bias);
}

static void states_agree(void **state)
{
	static const uint32_t lengths[] = { 1, 2, 3, 4, 7, 40, 63 };
	static const struct delta_case cases[] = {
		{ 1, 1, 1, 16 }, { 2, 4, 16, 16 }, { 2, 2, 31, 48 }, { 1, 3, 128, 128 }
	};
	struct kn_backend *ref = open_ref();

	(void)state;
	for (const char *const *isa = kn_cpu_isas(); *isa; isa++) {
		struct kn_backend *cpu = open_cpu(*isa, 3, 200);

		for (size_t i = 0; i < sizeof(lengths) / sizeof(lengths[0]); i++) {
			check_conv(*isa, ref, cpu, lengths[i], 1, 2);
			check_conv(*isa, ref, cpu, lengths[i], 37, 4);
			check_conv(*isa, ref, cpu, lengths[i], 1040, KN_MAX_CONV);
			for (size_t c = 0; c < sizeof(cases) / sizeof(cases[0]); c++)
				check_delta(*isa, ref, cpu, lengths[i], &cases[c]);
		}
		assert_int_equal(cpu->ops->sync(cpu), 0);
		kn_backend_close(cpu);
	}
	kn_backend_close(ref);
}

/* One sequence of N tokens at once, and in pieces from slot to slot: the same bits on every instruction set but the one
 *that takes chunks of many tokens. */
static void pieces_do_not_change_a_bit(void **state)
{
	enum { N = 50, KH = 2, VH = 4, K = 32, V = 48, QKV = 2 * KH * K + VH * V, BA = 2 * VH };
	static const uint32_t pieces[] = { 1, 2, 17, 3, 27 };
	float *qkv = gauss(N * QKV), *ba = gauss(N * BA), decay[VH] = { -1, -0.5f, -0.01f, -3 }, dt_bias[VH] = { 0 };
	float *states = gauss(4 * VH * K * V), *w = gauss(4 * QKV), *conv_states = gauss(4 * 3 * QKV);

	(void)state;
	for (const char *const *isa = kn_cpu_isas(); *isa; isa++) {
		struct kn_backend *cpu = open_cpu(*isa, 3, 128);
		struct kn_delta delta = { KH, VH, K, V, decay, dt_bias, 1e-6f, states, VH * K * V };
		struct kn_conv conv = { QKV, 4, w, conv_states, 3 * QKV };
		struct kn_seq seq = { .kv_len = N, .n_q = N, .keep = 2, .keep_after = 20 };
		float *whole = gauss(N * VH * V), *got = gauss(N * VH * V), *x = copy_of(qkv, N * QKV),
		      *y = gauss(N * QKV);
		float *b = copy_of(ba, N * BA);

		cpu->ops->conv_silu(cpu, y, QKV, x, QKV, &conv, &seq, 1);
		cpu->ops->delta_rule(cpu, whole, VH * V, y, QKV, b, BA, &delta, &seq, 1);
		memcpy(b, ba, N * BA * sizeof(*b));
		seq = (struct kn_seq){ .state = 1 };
		for (size_t i = 0; i < sizeof(pieces) / sizeof(pieces[0]); i++) {
			size_t at = seq.kv_len;

			seq.n_q = pieces[i];
			seq.keep = 3;
			seq.keep_after = at + pieces[i] == 20 ? pieces[i] : 0; /* at the end of a piece, for once */
			seq.kv_len += pieces[i];
			cpu->ops->conv_silu(cpu, y + at * QKV, QKV, x + at * QKV, QKV, &conv, &seq, 1);
			cpu->ops->delta_rule(cpu, got + at * VH * V, VH * V, y + at * QKV, QKV, b + at * BA, BA, &delta,
			                     &seq, 1);
		}
		assert_int_equal(seq.kv_len, N);
		assert_close(*isa, got, whole, N * VH * V, 1e-5f * largest(whole, N * VH * V), 1e-5f);
		if (strcmp(*isa, "amxbf16") != 0) {
			assert_same(*isa, got, whole, N * VH * V);
			assert_same(*isa, states + VH * K * V, states, VH * K * V);
			assert_same(*isa, states + 3 * VH * K * V, states + 2 * VH * K * V, VH * K * V);
			assert_same(*isa, conv_states + 9 * QKV, conv_states + 6 * QKV, 3 * QKV);
		}
		assert_same(*isa, conv_states + 3 * QKV, conv_states, 3 * QKV);
		kn_backend_close(cpu);
		free(whole);
		free(got);
		free(x);
		free(y);
		free(b);
	}
	free(qkv);
	free(ba);
	free(states);
	free(w);
	free(conv_states);
}

static void gates_agree(void **state)
{
	static const size_t dims[] = { 1, 7, 16, 100, 1030 };
	struct kn_backend *ref = open_ref();

	(void)state;
	for (const char *const *isa = kn_cpu_isas(); *isa; isa++) {
		struct kn_backend *cpu = open_cpu(*isa, 3, 80);

		for (size_t i = 0; i < sizeof(dims) / sizeof(dims[0]); i++) {
			size_t n = 33, heads = i % 3 + 1, dim = dims[i], ld = heads * dim + 2;
			float *x = gauss(n * ld), *g = gauss(n * ld), *w = gauss(dim), *want = gauss(n * ld),
			      *got = copy_of(want, n * ld);

			for (size_t j = 0; j < n * ld; j += 3)
				g[j] *= 40;
			ref->ops->gated_rmsnorm(ref, want, ld, x, ld, g, ld, w, n, heads, dim, 1e-6f);
			cpu->ops->gated_rmsnorm(cpu, got, ld, x, ld, g, ld, w, n, heads, dim, 1e-6f);
			assert_close(*isa, got, want, n * ld, 1e-6f, 1e-5f);
			memcpy(got, x, n * ld * sizeof(*x));
			memcpy(want, x, n * ld * sizeof(*x));
			ref->ops->gate_rows(ref, want, ld, g, n, heads * dim);
			cpu->ops->gate_rows(cpu, got, ld, g, n, heads * dim);
			assert_close(*isa, got, want, n * ld, 1e-7f, 1e-6f);
			free(x);
			free(g);
			free(w);
			free(want);
			free(got);
		}
		kn_backend_close(cpu);
	}
	kn_backend_close(ref);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(states_agree),
		cmocka_unit_test(pieces_do_not_change_a_bit),
		cmocka_unit_test(gates_agree),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
