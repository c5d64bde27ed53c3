/* Mixture of experts: choosing them, and computing the chosen ones token by token. */
#include <math.h>
#include <stdbool.h>
#include <string.h>

#include "ref/ref.h"

static bool is_taken(const int32_t *ids, uint32_t n, uint32_t e)
{
	for (uint32_t i = 0; i < n; i++) {
		if (ids[i] == (int32_t)e)
			return true;
	}
	return false;
}

static float sigmoid(float x)
{
	return 1.0f / (1.0f + expf(-x));
}

/* What experts are chosen by: the logit, or for the sigmoid kind the score plus its bias. */
static float choice(const struct kn_router *r, const float *logits, uint32_t e)
{
	if (r->kind != KN_ROUTE_SIGMOID)
		return logits[e];
	return sigmoid(logits[e]) + (r->bias ? r->bias[e] : 0);
}

/* A group is worth the sum of its two best choices. */
static float group_score(const struct kn_router *r, const float *logits, uint32_t group)
{
	uint32_t size = r->n_expert / r->n_group;
	float best = -INFINITY, second = -INFINITY;

	for (uint32_t e = group * size; e < (group + 1) * size; e++) {
		float c = choice(r, logits, e);

		if (c > best) {
			second = best;
			best = c;
		} else if (c > second) {
			second = c;
		}
	}
	return size > 1 ? best + second : best;
}

/* Among the top_group best groups? A group is when fewer than top_group beat it; ties go to the lower. */
static bool group_is_open(const struct kn_router *r, const float *logits, uint32_t group)
{
	float mine = group_score(r, logits, group);
	uint32_t n_better = 0;

	for (uint32_t g = 0; g < r->n_group; g++) {
		float s = group_score(r, logits, g);

		if (s > mine || (s == mine && g < group))
			n_better++;
	}
	return n_better < r->top_group;
}

/* The best expert not taken yet, in an open group. */
static int32_t next_best(const struct kn_router *r, const float *logits, const int32_t *ids, uint32_t n_taken)
{
	bool grouped = r->n_group > 1 && r->top_group < r->n_group;
	int32_t best = -1;
	float best_choice = -INFINITY;

	for (uint32_t e = 0; e < r->n_expert; e++) {
		float c = choice(r, logits, e);

		if (is_taken(ids, n_taken, e) || (best >= 0 && !(c > best_choice)))
			continue;
		if (grouped && !group_is_open(r, logits, e / (r->n_expert / r->n_group)))
			continue;
		best = (int32_t)e;
		best_choice = c;
	}
	return best;
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
	for (size_t i = 0; i < n; i++) {
		const float *row = logits + i * router->n_expert;
		int32_t *ids = ret_ids + i * router->top_k;
		float *weights = ret_weights + i * router->top_k;
		double sum = 0;

		for (uint32_t k = 0; k < router->top_k; k++) {
			ids[k] = next_best(router, row, ids, k);
			/* Logits that are not numbers choose nobody: stay within the table. */
			if (ids[k] < 0)
				ids[k] = 0;
		}
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
