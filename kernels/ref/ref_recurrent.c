/* Layers with a state instead of K and V: the short causal convolution and the gated delta rule, one token after the
 * other. */
#include <math.h>
#include <string.h>

#include "ref/ref.h"

static float silu(float x)
{
	return x / (1.0f + expf(-x));
}

/* Input t of a sequence's new tokens, of which those before the first come from the state. */
static float input(const struct kn_conv *conv, const float *state, const float *x, size_t ld_x, ptrdiff_t t, size_t c)
{
	return t < 0 ? state[((ptrdiff_t)conv->kernel - 1 + t) * conv->n_channels + c] : x[(size_t)t * ld_x + c];
}

static void conv_sequence(float *out, size_t ld_out, const float *x, size_t ld_x, const struct kn_conv *conv,
                          const float *state, ptrdiff_t n_q)
{
	ptrdiff_t before = (ptrdiff_t)conv->kernel - 1;

	for (ptrdiff_t t = 0; t < n_q; t++) {
		for (size_t c = 0; c < conv->n_channels; c++) {
			double sum = 0;

			for (ptrdiff_t j = 0; j <= before; j++)
				sum += (double)conv->w[(size_t)j * conv->n_channels + c] *
				       input(conv, state, x, ld_x, t - before + j, c);
			out[(size_t)t * ld_out + c] = silu((float)sum);
		}
	}
}

/* The last inputs of the first n tokens, into the sequence's own state or another; of its own the oldest first: what is
 * read lies behind what was written. */
static void conv_state_after(float *to, const float *x, size_t ld_x, const struct kn_conv *conv, const float *state,
                             ptrdiff_t n)
{
	ptrdiff_t before = (ptrdiff_t)conv->kernel - 1;

	for (ptrdiff_t j = 0; j < before; j++) {
		for (size_t c = 0; c < conv->n_channels; c++)
			to[(size_t)j * conv->n_channels + c] = input(conv, state, x, ld_x, n - before + j, c);
	}
}

void ref_conv_silu(struct kn_backend *be, float *out, size_t ld_out, const float *x, size_t ld_x,
                   const struct kn_conv *conv, const struct kn_seq *seqs, size_t n_seqs)
{
	(void)be;
	for (size_t s = 0; s < n_seqs; s++) {
		float *state = conv->state + seqs[s].state * conv->ld_state;
		const float *in = x + seqs[s].row * ld_x;

		if (seqs[s].n_q == seqs[s].kv_len)
			memset(state, 0, (conv->kernel - 1) * (size_t)conv->n_channels * sizeof(*state));
		conv_sequence(out + seqs[s].row * ld_out, ld_out, in, ld_x, conv, state, seqs[s].n_q);
		if (seqs[s].keep_after)
			conv_state_after(conv->state + seqs[s].keep * conv->ld_state, in, ld_x, conv, state,
			                 seqs[s].keep_after);
		conv_state_after(state, in, ld_x, conv, state, seqs[s].n_q);
	}
}

/* ---- The gated delta rule ---- */

static double inverse_length(const float *x, size_t n, float eps)
{
	double sum = 0;

	for (size_t i = 0; i < n; i++)
		sum += (double)x[i] * x[i];
	return 1 / sqrt(sum + eps);
}

static double softplus(double x)
{
	return x > 20 ? x : log1p(exp(x));
}

/* One token of one head. */
static void delta_token(float *out, const float *q, const float *k, const float *v, float b, float a,
                        const struct kn_delta *d, uint32_t head, float *S)
{
	double q_scale = inverse_length(q, d->k_dim, d->eps) / sqrt(d->k_dim);
	double k_scale = inverse_length(k, d->k_dim, d->eps);
	double decay = exp(d->decay[head] * softplus((double)a + d->dt_bias[head])), beta = 1 / (1 + exp(-(double)b));

	for (size_t j = 0; j < d->v_dim; j++) {
		double known = 0, got = 0, change;

		for (size_t i = 0; i < d->k_dim; i++)
			known += k[i] * k_scale * (decay * S[i * d->v_dim + j]);
		change = beta * (v[j] - known);
		for (size_t i = 0; i < d->k_dim; i++) {
			float *cell = &S[i * d->v_dim + j];

			*cell = (float)(decay * *cell + k[i] * k_scale * change);
			got += q[i] * q_scale * *cell;
		}
		out[j] = (float)got;
	}
}

void ref_delta_rule(struct kn_backend *be, float *out, size_t ld_out, float *qkv, size_t ld_qkv, float *ba,
                    size_t ld_ba, const struct kn_delta *delta, const struct kn_seq *seqs, size_t n_seqs)
{
	size_t n_k = (size_t)delta->n_k_head * delta->k_dim, per_head = (size_t)delta->k_dim * delta->v_dim;
	uint32_t share = delta->n_v_head / delta->n_k_head;

	(void)be;
	for (size_t s = 0; s < n_seqs; s++) {
		float *state = delta->state + seqs[s].state * delta->ld_state;

		if (seqs[s].n_q == seqs[s].kv_len)
			memset(state, 0, delta->n_v_head * per_head * sizeof(*state));
		for (size_t i = seqs[s].row; i < (size_t)seqs[s].row + seqs[s].n_q; i++) {
			const float *q = qkv + i * ld_qkv, *k = q + n_k, *v = k + n_k, *b = ba + i * ld_ba;

			for (uint32_t h = 0; h < delta->n_v_head; h++)
				delta_token(out + i * ld_out + (size_t)h * delta->v_dim,
				            q + (size_t)(h / share) * delta->k_dim,
				            k + (size_t)(h / share) * delta->k_dim, v + (size_t)h * delta->v_dim, b[h],
				            b[delta->n_v_head + h], delta, h, state + h * per_head);
			if (seqs[s].keep_after && i + 1 == (size_t)seqs[s].row + seqs[s].keep_after)
				memcpy(delta->state + seqs[s].keep * delta->ld_state, state,
				       delta->n_v_head * per_head * sizeof(*state));
		}
	}
}
