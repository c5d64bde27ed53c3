/* What samplers need of rows of logits. */
#include <float.h>
#include <math.h>
#include <stdlib.h>

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

int ref_by_rank(const void *a, const void *b)
{
	const struct kn_best *x = a, *y = b;

	if (x->logit != y->logit)
		return x->logit > y->logit ? -1 : 1;
	return x->id < y->id ? -1 : x->id > y->id;
}

static double mass_of(const struct kn_best *c, size_t n, float max, float inv_temp)
{
	double sum = 0;

	for (size_t i = 0; i < n; i++)
		sum += exp(((double)c[i].logit - max) * inv_temp);
	return sum;
}

/* Leaves of the n candidates, which come in the order of ids, those that may be drawn, in the order of drawing. */
static size_t filter(struct kn_best *c, size_t n, float max, const struct kn_pick *pick)
{
	size_t kept = 0;

	if (pick->top_k > 0 || pick->top_p < 1)
		qsort(c, n, sizeof(*c), ref_by_rank);
	if (pick->top_k > 0 && pick->top_k < n)
		n = pick->top_k;
	if (pick->top_p < 1) {
		double want = mass_of(c, n, max, pick->inv_temp) * pick->top_p, sum = 0;

		for (kept = 0; kept < n && (kept == 0 || sum < want); kept++)
			sum += exp(((double)c[kept].logit - max) * pick->inv_temp);
		n = kept;
	}
	if (pick->min_p > 0) {
		for (size_t i = kept = 0; i < n; i++) {
			if (exp(((double)c[i].logit - max) * pick->inv_temp) >= pick->min_p)
				c[kept++] = c[i];
		}
		n = kept > 0 ? kept : 1;
	}
	return n;
}

/* Among the n candidates that are left, in their order. */
static void draw(const struct kn_best *c, size_t n, const struct kn_pick *pick, struct kn_picked *ret)
{
	double want = pick->unit * mass_of(c, n, ret->max, pick->inv_temp), sum = 0;

	for (size_t i = 0; i < n && sum <= want; i++) {
		double p = exp(((double)c[i].logit - ret->max) * pick->inv_temp);

		/* The last one that has any mass, should rounding leave `want` at the very end. */
		if (p > 0) {
			ret->drawn = c[i].id;
			ret->drawn_logit = c[i].logit;
		}
		sum += p;
	}
}

void ref_draw(const float *row, size_t n_vocab, float softcap, const struct kn_pick *pick, struct kn_best *scratch,
              struct kn_picked *ret)
{
	size_t n = 0;

	for (size_t v = 0; v < n_vocab; v++) {
		float x = logit_at(row, v, softcap);

		if (x > -INFINITY)
			scratch[n++] = (struct kn_best){ x, (int32_t)v };
	}
	ret->log_mass = (float)log(mass_of(scratch, n, ret->max, pick->inv_temp));
	n = filter(scratch, n, ret->max, pick);
	draw(scratch, n, pick, ret);
}

static int by_id(const void *a, const void *b)
{
	const struct kn_best *x = a, *y = b;

	return x->id < y->id ? -1 : x->id > y->id;
}

bool ref_draw_listed(struct kn_best *best, size_t n_best, double mass, const struct kn_pick *pick,
                     struct kn_picked *ret)
{
	bool has_all; /* of what the row has, or of what a filter leaves */
	size_t n = 0, kept = 0;

	while (n < n_best && best[n].id >= 0 && !(pick->top_k > 0 && n == pick->top_k))
		n++;
	has_all = n < n_best || (pick->top_k > 0 && n == pick->top_k);
	if (pick->top_p < 1) {
		double want = (has_all ? mass_of(best, n, ret->max, pick->inv_temp) : mass) * pick->top_p, sum = 0;

		for (kept = 0; kept < n && (kept == 0 || sum < want); kept++)
			sum += exp(((double)best[kept].logit - ret->max) * pick->inv_temp);
		has_all = has_all || sum >= want;
		n = kept;
	}
	if (pick->min_p > 0) {
		for (kept = 0; kept < n; kept++) {
			if (exp(((double)best[kept].logit - ret->max) * pick->inv_temp) < pick->min_p)
				break;
		}
		has_all = has_all || kept < n;
		n = kept > 0 ? kept : 1;
	}
	if (!has_all)
		return false;
	if (pick->top_k == 0 && pick->top_p >= 1)
		qsort(best, n, sizeof(*best), by_id);
	draw(best, n, pick, ret);
	return true;
}

void ref_pick_scratch(const float *logits, size_t ld, size_t n, size_t n_vocab, float softcap,
                      const struct kn_pick *picks, uint32_t n_best, struct kn_best *ret_best, struct kn_picked *ret,
                      struct kn_best *scratch)
{
	for (size_t i = 0; i < n; i++) {
		const float *row = logits + i * ld;
		struct kn_best *best = n_best > 0 ? ret_best + i * n_best : NULL;
		double sum = 0;

		ret[i] = (struct kn_picked){ .max = -INFINITY };
		for (uint32_t k = 0; k < n_best; k++)
			best[k] = (struct kn_best){ -INFINITY, -1 };
		for (size_t v = 0; v < n_vocab; v++) {
			float x = logit_at(row, v, softcap);

			if (x == -INFINITY)
				continue;
			if (x > ret[i].max) {
				ret[i].max = ret[i].drawn_logit = x;
				ret[i].drawn = (int32_t)v;
			}
			if (n_best > 0 && (best[n_best - 1].id < 0 || x > best[n_best - 1].logit))
				insert(best, n_best, (int32_t)v, x);
		}
		if (ret[i].max == -INFINITY)
			continue;
		for (size_t v = 0; v < n_vocab; v++)
			sum += exp((double)logit_at(row, v, softcap) - ret[i].max);
		ret[i].log_sum = (float)(ret[i].max + log(sum));
		if (picks[i].inv_temp > 0)
			ref_draw(row, n_vocab, softcap, &picks[i], scratch, &ret[i]);
	}
}
