/* What samplers need of rows of logits. */
#include <float.h>
#include <math.h>

#include "ref/ref.h"

static float logit_at(const float *row, size_t v, float softcap)
{
	float x = row[v];

	if (isnan(x))
		return -INFINITY;
	if (softcap > 0)
		x = softcap * tanhf(x / softcap);
	return x > FLT_MAX ? FLT_MAX : x;
}

/* Keeps best[0, n_best) sorted while the ids come in their order: of equal logits the one that came first stays. */
static void insert(struct kn_best *best, uint32_t n_best, int32_t id, float logit)
{
	uint32_t i = n_best;

	while (i > 0 && (best[i - 1].id < 0 || best[i - 1].logit < logit)) {
		if (i < n_best)
			best[i] = best[i - 1];
		i--;
	}
	if (i < n_best)
		best[i] = (struct kn_best){ logit, id };
}

static void draw(const float *row, size_t n_vocab, float softcap, const struct kn_pick *pick, struct kn_picked *ret)
{
	double mass = 0, sum = 0, want;

	for (size_t v = 0; v < n_vocab; v++)
		mass += exp(((double)logit_at(row, v, softcap) - ret->max) * pick->inv_temp);
	want = pick->unit * mass;
	ret->log_mass = (float)log(mass);
	for (size_t v = 0; v < n_vocab; v++) {
		double p = exp(((double)logit_at(row, v, softcap) - ret->max) * pick->inv_temp);

		/* The last one that has any mass, should rounding leave `want` at the very end. */
		if (p > 0)
			ret->drawn = (int32_t)v;
		sum += p;
		if (sum > want)
			break;
	}
	ret->drawn_logit = logit_at(row, (size_t)ret->drawn, softcap);
}

void ref_pick(struct kn_backend *be, const float *logits, size_t ld, size_t n, size_t n_vocab, float softcap,
              const struct kn_pick *picks, uint32_t n_best, struct kn_best *ret_best, struct kn_picked *ret)
{
	(void)be;
	for (size_t i = 0; i < n; i++) {
		const float *row = logits + i * ld;
		struct kn_best *best = n_best > 0 ? ret_best + i * n_best : NULL;
		double sum = 0;

		ret[i] = (struct kn_picked){ .max = -INFINITY, .drawn = -1 };
		for (uint32_t k = 0; k < n_best; k++)
			best[k] = (struct kn_best){ -INFINITY, -1 };
		for (size_t v = 0; v < n_vocab; v++) {
			float x = logit_at(row, v, softcap);

			if (x == -INFINITY)
				continue;
			ret[i].max = x > ret[i].max ? x : ret[i].max;
			if (n_best > 0 && (best[n_best - 1].id < 0 || x > best[n_best - 1].logit))
				insert(best, n_best, (int32_t)v, x);
		}
		if (ret[i].max == -INFINITY)
			continue;
		for (size_t v = 0; v < n_vocab; v++)
			sum += exp((double)logit_at(row, v, softcap) - ret[i].max);
		ret[i].log_sum = (float)(ret[i].max + log(sum));
		if (picks[i].inv_temp > 0)
			draw(row, n_vocab, softcap, &picks[i], &ret[i]);
	}
}
