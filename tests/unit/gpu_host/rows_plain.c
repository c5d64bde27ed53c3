/* What goes row by row, in plain loops. */
#include "plain.h"

int gk_embed(const struct gk_ctx *ctx, struct gk_view out, const struct gk_mat *m, const int32_t *ids,
             const struct kn_picked *picked, struct gk_rows rows, float scale)
{
	(void)ctx;
	plain_n_launched++;
	for (uint32_t i = 0; i < plain_rows(rows); i++) {
		float *w = plain_row_of(m, (size_t)(ids[i] < 0 ? picked[KN_DRAWN(ids[i])].drawn : ids[i]));

		for (uint32_t k = 0; k < m->cols; k++)
			plain_put(&out, i, k, scale * w[k]);
		free(w);
	}
	plain_poison(&out, rows, m->cols);
	return 0;
}

static int norm(const struct gk_norm *n, bool centred)
{
	plain_n_launched++;
	for (uint32_t i = 0; i < plain_rows(n->rows); i++) {
		size_t from = n->src ? (size_t)n->src[i] : i;

		for (uint32_t h = 0; h < n->n_head; h++) {
			size_t at = (size_t)h * n->dim;
			double mean = 0, sum = 0;

			for (uint32_t k = 0; k < n->dim && n->add.p; k++)
				plain_put(&n->x, from, at + k,
				          plain_get(&n->x, from, at + k) + n->add_scale * plain_get(&n->add, i, k));
			for (uint32_t k = 0; k < n->dim && centred; k++)
				mean += plain_get(&n->x, from, at + k);
			mean /= n->dim;
			for (uint32_t k = 0; k < n->dim; k++)
				sum += pow(plain_get(&n->x, from, at + k) - mean, 2);
			for (uint32_t k = 0; k < n->dim; k++)
				plain_put(
				        &n->out, i, at + k,
				        (float)((plain_get(&n->x, from, at + k) - mean) / sqrt(sum / n->dim + n->eps)) *
				                        (n->w ? n->w[k] : 1) +
				                (n->b ? n->b[k] : 0));
		}
	}
	if (n->out.p != n->x.p)
		plain_poison(&n->out, n->rows, (size_t)n->n_head * n->dim);
	return 0;
}

int gk_rmsnorm(const struct gk_ctx *ctx, const struct gk_norm *n)
{
	(void)ctx;
	return norm(n, false);
}

int gk_layernorm(const struct gk_ctx *ctx, const struct gk_norm *n)
{
	(void)ctx;
	return norm(n, true);
}

int gk_add(const struct gk_ctx *ctx, struct gk_view x, struct gk_view y, struct gk_rows rows, uint32_t dim, float scale)
{
	(void)ctx;
	plain_n_launched++;
	for (uint32_t i = 0; i < plain_rows(rows); i++) {
		for (uint32_t k = 0; k < dim; k++)
			plain_put(&x, i, k, plain_get(&x, i, k) + scale * plain_get(&y, i, k));
	}
	return 0;
}

int gk_act_mul(const struct gk_ctx *ctx, uint32_t act, struct gk_view out, struct gk_view gate, struct gk_view up,
               struct gk_rows rows, uint32_t dim)
{
	(void)ctx;
	plain_n_launched++;
	for (uint32_t i = 0; i < plain_rows(rows); i++) {
		for (uint32_t k = 0; k < dim; k++)
			plain_put(&out, i, k, plain_act(act, plain_get(&gate, i, k), up.p ? plain_get(&up, i, k) : 0));
	}
	return 0;
}

int gk_convert(const struct gk_ctx *ctx, struct gk_view dst, struct gk_view src, struct gk_rows rows, uint32_t dim)
{
	(void)ctx;
	for (uint32_t i = 0; i < plain_rows(rows); i++) {
		for (uint32_t k = 0; k < dim; k++)
			plain_put(&dst, i, k, plain_get(&src, i, k));
	}
	plain_poison(&dst, rows, dim);
	return 0;
}

int gk_gate_rows(const struct gk_ctx *ctx, struct gk_view x, struct gk_view gate, struct gk_rows rows, uint32_t dim)
{
	(void)ctx;
	plain_n_launched++;
	for (uint32_t i = 0; i < plain_rows(rows); i++) {
		for (uint32_t c = 0; c < dim; c++)
			plain_put(&x, i, c, plain_get(&x, i, c) / (1 + expf(-plain_get(&gate, i, 0))));
	}
	return 0;
}
