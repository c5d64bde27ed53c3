/* Recurrent layers in plain loops. */
#include "plain.h"

static float silu_of(float x)
{
	return x / (1 + expf(-x));
}

static float conv_input(const struct gk_conv *a, const struct gk_seq *q, const float *state, int t, uint32_t c)
{
	if (t >= 0)
		return plain_get(&a->x, q->row + (uint32_t)t, c);
	return q->n_q == q->kv_len ? 0 : state[(size_t)((int)a->kernel - 1 + t) * a->n_channels + c];
}

int gk_conv_silu(const struct gk_ctx *ctx, const struct gk_conv *a)
{
	const struct gk_batch *b = a->batch;
	int before = (int)a->kernel - 1;

	(void)ctx;
	plain_n_launched++;
	for (uint32_t s = 0; s < b->counts[GK_N_SEQS]; s++) {
		const struct gk_seq *q = &b->seqs[s];
		float *state = a->state + q->state * a->ld_state;

		for (uint32_t c = 0; c < a->n_channels; c++) {
			for (int t = 0; t < (int)q->n_q; t++) {
				float sum = 0;

				for (int j = 0; j <= before; j++)
					sum += a->w[(size_t)j * a->n_channels + c] *
					       conv_input(a, q, state, t - before + j, c);
				plain_put(&a->out, q->row + (uint32_t)t, c, silu_of(sum));
			}
			for (int j = 0; j < before && q->keep_after; j++)
				a->state[q->keep * a->ld_state + (size_t)j * a->n_channels + c] =
				        conv_input(a, q, state, (int)q->keep_after - before + j, c);
			for (int j = 0; j < before; j++)
				state[(size_t)j * a->n_channels + c] =
				        conv_input(a, q, state, (int)q->n_q - before + j, c);
		}
	}
	return 0;
}

static void unit(const struct gk_view *v, size_t row, size_t col, uint32_t n, float eps, float *to)
{
	double sum = 0;

	for (uint32_t i = 0; i < n; i++) {
		to[i] = plain_get(v, row, col + i);
		sum += (double)to[i] * to[i];
	}
	for (uint32_t i = 0; i < n; i++)
		to[i] = (float)(to[i] / sqrt(sum + eps));
}

static void delta_token(const struct gk_delta *a, size_t row, uint32_t h, float *S)
{
	uint32_t kh = h / (a->n_v_head / a->n_k_head), n_k = a->n_k_head * a->k_dim;
	float q[256], k[256], b = plain_get(&a->ba, row, h), da = plain_get(&a->ba, row, a->n_v_head + h);
	float decay = expf(a->decay[h] * log1pf(expf(da + a->dt_bias[h])));

	unit(&a->qkv, row, (size_t)kh * a->k_dim, a->k_dim, a->eps, q);
	unit(&a->qkv, row, n_k + (size_t)kh * a->k_dim, a->k_dim, a->eps, k);
	for (uint32_t j = 0; j < a->v_dim; j++) {
		double known = 0, got = 0;
		float change;

		for (uint32_t i = 0; i < a->k_dim; i++)
			known += (double)k[i] * decay * S[i * a->v_dim + j];
		change = (float)(plain_get(&a->qkv, row, 2 * n_k + (size_t)h * a->v_dim + j) - known) / (1 + expf(-b));
		for (uint32_t i = 0; i < a->k_dim; i++) {
			S[i * a->v_dim + j] = decay * S[i * a->v_dim + j] + k[i] * change;
			got += (double)q[i] * S[i * a->v_dim + j];
		}
		plain_put(&a->out, row, (size_t)h * a->v_dim + j, (float)(got / sqrt(a->k_dim)));
	}
}

int gk_delta_rule(const struct gk_ctx *ctx, const struct gk_delta *a)
{
	const struct gk_batch *b = a->batch;
	size_t per_head = (size_t)a->k_dim * a->v_dim;

	(void)ctx;
	plain_n_launched++;
	for (uint32_t s = 0; s < b->counts[GK_N_SEQS]; s++) {
		const struct gk_seq *q = &b->seqs[s];
		float *state = a->state + q->state * a->ld_state;

		if (q->n_q == q->kv_len)
			memset(state, 0, a->n_v_head * per_head * sizeof(*state));
		for (uint32_t t = 0; t < q->n_q; t++) {
			for (uint32_t h = 0; h < a->n_v_head; h++)
				delta_token(a, q->row + t, h, state + h * per_head);
			if (t + 1 == q->keep_after)
				memcpy(a->state + q->keep * a->ld_state, state,
				       a->n_v_head * per_head * sizeof(*state));
		}
	}
	return 0;
}

int gk_gated_rmsnorm(const struct gk_ctx *ctx, const struct gk_gated_norm *a)
{
	(void)ctx;
	plain_n_launched++;
	for (uint32_t i = 0; i < plain_rows(a->rows); i++) {
		for (uint32_t h = 0; h < a->n_head; h++) {
			size_t at = (size_t)h * a->dim;
			double sum = 0;

			for (uint32_t c = 0; c < a->dim; c++)
				sum += (double)plain_get(&a->x, i, at + c) * plain_get(&a->x, i, at + c);
			for (uint32_t c = 0; c < a->dim; c++)
				plain_put(&a->out, i, at + c,
				          (float)(plain_get(&a->x, i, at + c) / sqrt(sum / a->dim + a->eps)) *
				                  (a->w ? a->w[c] : 1) * silu_of(plain_get(&a->gate, i, at + c)));
		}
	}
	return 0;
}
