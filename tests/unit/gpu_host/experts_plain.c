/* Routers and mixtures of experts in plain loops. */
#include "plain.h"

static float sigmoid(float x)
{
	return 1 / (1 + expf(-x));
}

static void close_groups(const struct kn_router *r, float *c)
{
	uint32_t size = r->n_expert / r->n_group;
	float score[KN_MAX_EXPERTS];

	for (uint32_t g = 0; g < r->n_group; g++) {
		float best = -INFINITY, second = -INFINITY;

		for (uint32_t e = g * size; e < (g + 1) * size; e++) {
			second = fmaxf(second, fminf(best, c[e]));
			best = fmaxf(best, c[e]);
		}
		score[g] = size > 1 ? best + second : best;
	}
	for (uint32_t g = 0; g < r->n_group; g++) {
		uint32_t better = 0;

		for (uint32_t o = 0; o < r->n_group; o++)
			better += score[o] > score[g] || (score[o] == score[g] && o < g);
		for (uint32_t e = g * size; e < (g + 1) * size && better >= r->top_group; e++)
			c[e] = -INFINITY;
	}
}

int gk_route(const struct gk_ctx *ctx, const struct kn_router *r, const float *logits, struct gk_rows rows,
             int32_t *ids, float *weights)
{
	(void)ctx;
	plain_n_launched++;
	for (uint32_t i = 0; i < plain_rows(rows); i++) {
		const float *l = logits + (size_t)i * r->n_expert;
		int32_t *id = ids + (size_t)i * r->top_k;
		float *w = weights + (size_t)i * r->top_k, c[KN_MAX_EXPERTS];
		double max = -INFINITY, all = 0, sum = 0;

		for (uint32_t e = 0; e < r->n_expert; e++) {
			c[e] = r->kind == KN_ROUTE_SIGMOID ? sigmoid(l[e]) + (r->bias ? r->bias[e] : 0) : l[e];
			max = fmax(max, l[e]);
		}
		if (r->n_group > 1 && r->top_group < r->n_group)
			close_groups(r, c);
		for (uint32_t k = 0; k < r->top_k; k++) {
			uint32_t best = 0;

			for (uint32_t e = 1; e < r->n_expert; e++)
				best = c[e] > c[best] ? e : best;
			c[best] = -INFINITY;
			id[k] = (int32_t)best;
		}
		for (uint32_t e = 0; e < r->n_expert; e++)
			all += exp(l[e] - max);
		for (uint32_t k = 0; k < r->top_k; k++) {
			w[k] = r->kind == KN_ROUTE_SIGMOID ? sigmoid(l[id[k]]) : (float)exp(l[id[k]] - max);
			sum += w[k];
		}
		for (uint32_t k = 0; k < r->top_k; k++) {
			if (r->kind == KN_ROUTE_TOPK_SOFTMAX || r->normalize)
				w[k] = (float)(w[k] / (sum + (r->kind == KN_ROUTE_SIGMOID ? 1e-20 : 0)));
			else if (r->kind == KN_ROUTE_SOFTMAX)
				w[k] = (float)(w[k] / all);
			w[k] *= r->scale;
		}
	}
	for (size_t i = (size_t)plain_rows(rows) * r->top_k; i < (size_t)rows.bound * r->top_k; i++) {
		ids[i] = INT32_MIN;
		weights[i] = NAN;
	}
	return 0;
}

int gk_route_product(const struct gk_ctx *ctx, const struct gk_router *r)
{
	uint32_t cols = r->w.cols, n = r->router.n_expert;
	float *x = malloc(cols * sizeof(*x));

	for (uint32_t i = 0; i < plain_rows(r->rows); i++) {
		double square = 0;

		for (uint32_t k = 0; k < cols; k++) {
			x[k] = plain_get(&r->x, i, k);
			square += (double)x[k] * x[k];
		}
		for (uint32_t k = 0; k < cols && r->norm; k++) {
			x[k] *= (float)(1 / sqrt(square / cols + r->eps)) * (r->norm_w ? r->norm_w[k] : 1);
			plain_put(&r->normed, i, k, x[k]);
		}
		for (uint32_t e = 0; e < n; e++) {
			float *w = plain_row_of(&r->w, e);

			r->logits[(size_t)i * n + e] = plain_dot(x, w, cols) + (r->bias ? r->bias[e] : 0);
			free(w);
		}
	}
	free(x);
	if (r->ids)
		return gk_route(ctx, &r->router, r->logits, r->rows, r->ids, r->weights);
	plain_n_launched++;
	return 0;
}

/* For few rows only, as the device's. */
bool gk_moe_chooses(const struct gk_ctx *ctx, const struct gk_moe *m)
{
	(void)ctx;
	return m->choice && m->rows.bound <= 4;
}

int gk_moe(const struct gk_ctx *ctx, const struct gk_moe *m)
{
	float *x = malloc(m->dim * sizeof(*x)), *h = malloc(m->n_ff * sizeof(*h));

	if (m->choice)
		(void)gk_route(ctx, &m->choice->router, m->choice->logits, m->rows, m->choice->ids, m->choice->weights);
	plain_n_launched++;
	for (uint32_t i = 0; i < plain_rows(m->rows); i++) {
		for (uint32_t k = 0; k < m->dim; k++)
			x[k] = plain_get(&m->x, i, k);
		for (uint32_t k = 0; k < m->top_k; k++) {
			size_t e = (size_t)m->ids[i * m->top_k + k] - m->first_expert;
			float weight = m->weights[i * m->top_k + k];

			if (e >= m->n_expert)
				continue;
			for (uint32_t f = 0; f < m->n_ff; f++) {
				float *g = plain_row_of(&m->gate[e], f), *u = plain_row_of(&m->up[e], f);

				h[f] = plain_act(
				        m->act,
				        plain_dot(x, g, m->dim) + (m->gate_bias ? m->gate_bias[e * m->n_ff + f] : 0),
				        plain_dot(x, u, m->dim) + (m->up_bias ? m->up_bias[e * m->n_ff + f] : 0));
				free(g);
				free(u);
			}
			for (uint32_t o = 0; o < m->dim; o++) {
				float *w = plain_row_of(&m->down[e], o);

				plain_put(&m->out, i, o,
				          plain_get(&m->out, i, o) +
				                  weight * (plain_dot(h, w, m->n_ff) +
				                            (m->down_bias ? m->down_bias[e * m->dim + o] : 0)));
				free(w);
			}
		}
	}
	free(x);
	free(h);
	return 0;
}
