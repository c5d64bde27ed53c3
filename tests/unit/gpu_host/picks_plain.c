/* Picks of logits in plain loops. */
#include "plain.h"

size_t gk_pick_scratch(uint32_t rows, uint32_t n_vocab, uint32_t n_best)
{
	(void)rows;
	(void)n_vocab;
	(void)n_best;
	return 0;
}

static int by_logit(const void *a, const void *b)
{
	const struct kn_best *x = a, *y = b;

	return x->logit > y->logit ? -1 : x->logit < y->logit ? 1 : x->id < y->id ? -1 : 1;
}

/* The n greatest, of equal ones the first ones; id -1 for what has no probability. */
static void pick_best(const float *x, uint32_t n_vocab, uint32_t n, struct kn_best *best)
{
	struct kn_best *all = malloc(n_vocab * sizeof(*all));

	for (uint32_t v = 0; v < n_vocab; v++)
		all[v] = x[v] > -INFINITY ? (struct kn_best){ x[v], (int32_t)v } : (struct kn_best){ -INFINITY, -1 };
	qsort(all, n_vocab, sizeof(*all), by_logit);
	for (uint32_t k = 0; k < n; k++)
		best[k] = k < n_vocab ? all[k] : (struct kn_best){ -INFINITY, -1 };
	free(all);
}

static double mass_at(const struct kn_best *b, const struct kn_picked *p, const struct kn_pick *pick)
{
	return b->id < 0 ? 0 : exp(((double)b->logit - p->max) * pick->inv_temp);
}

static void draw(const float *x, uint32_t n_vocab, const struct kn_pick *pick, struct kn_picked *p)
{
	struct kn_best *c = calloc(n_vocab, sizeof(*c));
	double mass = 0, kept = 0, running = 0;
	uint32_t n = n_vocab;

	if (pick->top_k > 0 || pick->top_p < 1) {
		pick_best(x, n_vocab, n_vocab, c);
		n = pick->top_k > 0 && pick->top_k < n ? pick->top_k : n;
	} else {
		for (uint32_t v = 0; v < n_vocab; v++)
			c[v] = (struct kn_best){ x[v], (int32_t)v };
	}
	for (uint32_t i = 0; i < n; i++)
		mass += mass_at(&c[i], p, pick);
	for (uint32_t i = 0; i < n; i++) {
		bool is_in = pick->top_p >= 1 || i == 0 || running < pick->top_p * mass;

		running += mass_at(&c[i], p, pick);
		if (!is_in || mass_at(&c[i], p, pick) < pick->min_p)
			c[i].id = -1;
		kept += mass_at(&c[i], p, pick);
	}
	running = 0;
	for (uint32_t i = 0; i < n && running <= pick->unit * kept; i++) {
		if (mass_at(&c[i], p, pick) > 0) {
			p->drawn = c[i].id;
			p->drawn_logit = c[i].logit;
		}
		running += mass_at(&c[i], p, pick);
	}
	free(c);
}

int gk_pick_rows(const struct gk_ctx *ctx, const struct gk_pick *a)
{
	float *x = calloc(a->n_vocab, sizeof(*x));

	(void)ctx;
	plain_n_launched++;
	for (uint32_t i = 0; i < plain_rows(a->rows); i++) {
		struct kn_picked *p = &a->picked[i];
		double sum = 0, mass = 0;

		*p = (struct kn_picked){ .max = -INFINITY };
		for (uint32_t v = 0; v < a->n_vocab; v++) {
			x[v] = plain_get(&a->logits, i, v);
			x[v] = x[v] != x[v] ? -INFINITY : a->softcap > 0 ? a->softcap * tanhf(x[v] / a->softcap) : x[v];
			if (x[v] > p->max) {
				p->max = p->drawn_logit = x[v];
				p->drawn = (int32_t)v;
			}
		}
		pick_best(x, a->n_vocab, a->n_best, a->best + (size_t)i * a->n_best);
		for (uint32_t v = 0; v < a->n_vocab; v++) {
			sum += exp((double)x[v] - p->max);
			mass += exp(((double)x[v] - p->max) * a->picks[i].inv_temp);
		}
		p->log_sum = (float)(p->max + log(sum));
		if (!(a->picks[i].inv_temp > 0) || !(p->max > -INFINITY))
			continue;
		p->log_mass = (float)log(mass);
		draw(x, a->n_vocab, &a->picks[i], p);
	}
	free(x);
	return 0;
}
