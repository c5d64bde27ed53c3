/* Mixture of experts: choosing them, and computing the chosen ones token by token. */
#include <assert.h>
#include <math.h>

#include "ref/ref.h"

static float sigmoid(float x)
{
	return 1.0f / (1.0f + expf(-x));
}

/* A group is worth the sum of its two best choices. */
static float group_score(const float *choices, uint32_t size)
{
	float best = -INFINITY, second = -INFINITY;

	for (uint32_t e = 0; e < size; e++) {
		if (choices[e] > best) {
			second = best;
			best = choices[e];
		} else if (choices[e] > second) {
			second = choices[e];
		}
	}
	return size > 1 ? best + second : best;
}

/* Leaves only the top_group best groups open: a group is when fewer than that beat it, and of equal ones
 * the lower wins. */
static void close_groups(const struct kn_router *r, float *choices)
{
	uint32_t size = r->n_expert / r->n_group;
	float scores[KN_MAX_EXPERTS];

	for (uint32_t g = 0; g < r->n_group; g++)
		scores[g] = group_score(choices + g * size, size);
	for (uint32_t g = 0; g < r->n_group; g++) {
		uint32_t n_better = 0;

		for (uint32_t o = 0; o < r->n_group; o++)
			n_better += scores[o] > scores[g] || (scores[o] == scores[g] && o < g);
		for (uint32_t e = 0; e < size && n_better >= r->top_group; e++)
			choices[g * size + e] = -INFINITY;
	}
}

/* What experts are chosen by: the logit, or for the sigmoid kind the score plus its bias. */
static void choices_of(const struct kn_router *r, const float *logits, float *choices)
{
	for (uint32_t e = 0; e < r->n_expert; e++) {
		choices[e] = logits[e];
		if (r->kind == KN_ROUTE_SIGMOID)
			choices[e] = sigmoid(logits[e]) + (r->bias ? r->bias[e] : 0);
	}
	if (r->n_group > 1 && r->top_group < r->n_group)
		close_groups(r, choices);
}

/* The best choice, which is then taken. Logits that are not numbers choose the first. */
static int32_t take_best(const struct kn_router *r, float *choices)
{
	uint32_t best = 0;

	for (uint32_t e = 1; e < r->n_expert; e++) {
		if (choices[e] > choices[best])
			best = e;
	}
	choices[best] = -INFINITY;
	return (int32_t)best;
}

/* The unnormalized weight of each chosen expert. */
static void weigh(const struct kn_router *r, const float *logits, const int32_t *ids, float *weights)
{
	double max = -INFINITY, sum = 0;

	if (r->kind == KN_ROUTE_SIGMOID) {
		for (uint32_t k = 0; k < r->top_k; k++)
			weights[k] = sigmoid(logits[ids[k]]);
		return;
	}
	for (uint32_t e = 0; e < r->n_expert; e++)
		max = fmax(max, logits[e]);
	if (r->kind == KN_ROUTE_SOFTMAX) {
		for (uint32_t e = 0; e < r->n_expert; e++)
			sum += exp(logits[e] - max);
	} else {
		for (uint32_t k = 0; k < r->top_k; k++)
			sum += exp(logits[ids[k]] - max);
	}
	for (uint32_t k = 0; k < r->top_k; k++)
		weights[k] = (float)(exp(logits[ids[k]] - max) / sum);
}

void ref_route(struct kn_backend *be, const struct kn_router *router, const float *logits, size_t n, int32_t *ret_ids,
               float *ret_weights)
{
	(void)be;
	assert(router->n_expert <= KN_MAX_EXPERTS);
	for (size_t i = 0; i < n; i++) {
		const float *row = logits + i * router->n_expert;
		int32_t *ids = ret_ids + i * router->top_k;
		float *weights = ret_weights + i * router->top_k;
		float choices[KN_MAX_EXPERTS];
		double sum = 0;

		choices_of(router, row, choices);
		for (uint32_t k = 0; k < router->top_k; k++)
			ids[k] = take_best(router, choices);
		weigh(router, row, ids, weights);
		for (uint32_t k = 0; k < router->top_k; k++)
			sum += weights[k];
		for (uint32_t k = 0; k < router->top_k; k++) {
			if (router->normalize)
				weights[k] = (float)(weights[k] / (sum + 1e-20));
			weights[k] *= router->scale;
		}
	}
}

void ref_moe_scratch(struct kn_backend *be, const struct kn_moe *moe, float *out, size_t ld_out, const float *x,
                     size_t ld_x, size_t n, size_t dim, uint32_t top_k, const int32_t *ids, const float *weights,
                     float *scratch)
{
	float *gate = scratch, *up = gate + moe->n_ff, *y = up + moe->n_ff;

	for (size_t i = 0; i < n; i++) {
		for (uint32_t k = 0; k < top_k; k++) {
			size_t e = (size_t)ids[i * top_k + k];
			struct kn_matmul in[] = {
				{ .w = &moe->gate[e],
				  .out = gate,
				  .ld_out = moe->n_ff,
				  .bias = moe->gate_bias ? moe->gate_bias + e * moe->n_ff : NULL },
				{ .w = &moe->up[e],
				  .out = up,
				  .ld_out = moe->n_ff,
				  .bias = moe->up_bias ? moe->up_bias + e * moe->n_ff : NULL },
			};
			struct kn_matmul down = { .w = &moe->down[e],
				                  .out = y,
				                  .ld_out = dim,
				                  .bias = moe->down_bias ? moe->down_bias + e * dim : NULL };

			ref_matmul(be, in, 2, x + i * ld_x, ld_x, 1);
			ref_act_mul(be, moe->act, gate, moe->n_ff, gate, moe->n_ff, up, moe->n_ff, 1, moe->n_ff);
			ref_matmul(be, &down, 1, gate, moe->n_ff, 1);
			ref_add(be, out + i * ld_out, ld_out, y, dim, 1, dim, weights[i * top_k + k]);
		}
	}
}
