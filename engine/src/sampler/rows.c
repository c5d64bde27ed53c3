/* Rows of logits that stay with the backend: what it picked of them is a token as a whole row would have given it, or
 * is seen not to suffice, and then the row is fetched. */
#include <errno.h>
#include <float.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "sampler/sampler_internal.h"

const float *eng_row_logits(struct eng_row *row)
{
	if (!row->logits)
		row->logits = row->fetch(row->ctx, row->index);
	return row->logits;
}

/* The filters need an order, and that only of the best. */
static bool filters(const struct eng_sampling *p)
{
	return p->top_k > 0 || p->top_p < 1.0f || p->min_p > 0.0f;
}

bool eng_sampler_wants(const struct eng_sampler *s, uint32_t n, struct kn_pick *ret_picks, uint32_t *io_n_best)
{
	const struct eng_sampling *p = &s->p;
	bool greedy = p->temperature <= 0.0f || !(1.0f / p->temperature <= FLT_MAX);
	uint32_t n_best = 1;
	uint64_t rng[4];

	if (p->n_logit_bias > 0 || s->n_all || (!greedy && p->top_k > KN_MAX_BEST))
		return false;
	if (!greedy && filters(p))
		n_best = p->top_k > 0 ? p->top_k : KN_MAX_BEST;
	memcpy(rng, s->rng, sizeof(rng));
	for (uint32_t i = 0; i < n; i++)
		ret_picks[i] =
		        greedy ? (struct kn_pick){ 0 }
		               : (struct kn_pick){ .inv_temp = 1.0f / p->temperature, .unit = sampler_unit(rng) };
	*io_n_best = n_best > *io_n_best ? n_best : *io_n_best;
	return true;
}

static int compare_ids(const void *a, const void *b)
{
	const struct cand *x = a, *y = b;

	return x->id < y->id ? -1 : x->id > y->id;
}

/* The candidates among the best, in the order that narrow() leaves them in; 0: the best are too few to tell. */
static size_t narrow_best(struct cand *c, const struct eng_sampling *p, const struct eng_row *row)
{
	float max = row->picked->max, inv_temp = 1.0f / p->temperature;
	bool has_all = false; /* of what the row has, or of what top_k leaves */
	size_t n = 0;

	while (n < row->n_best && row->best[n].id >= 0 && !(p->top_k > 0 && n == p->top_k)) {
		c[n] = (struct cand){ row->best[n].logit, row->best[n].id };
		n++;
	}
	has_all = n < row->n_best || (p->top_k > 0 && n == p->top_k);
	if (p->top_p < 1.0f) {
		double whole = has_all ? sampler_mass(c, n, max, inv_temp) : exp((double)row->picked->log_mass);
		double want = whole * p->top_p, sum = 0;
		size_t kept = 0;

		while (kept < n && sum < want)
			sum += exp(((double)c[kept++].logit - max) * inv_temp);
		if (sum < want && !has_all)
			return 0;
		n = kept > 0 ? kept : 1;
		has_all = true;
	}
	if (p->min_p > 0.0f) {
		size_t kept = sampler_keep_min_p(c, n, max, inv_temp, p->min_p);

		if (kept == n && !has_all)
			return 0;
		n = kept;
		if (p->top_k == 0 && p->top_p >= 1.0f)
			qsort(c, n, sizeof(*c), compare_ids);
	}
	return n;
}

int32_t eng_sampler_pick_row(struct eng_sampler *s, struct eng_row *row)
{
	struct cand best[KN_MAX_BEST];
	struct kn_pick pick;
	uint32_t n_best = 0;
	size_t n;

	if (row->logits || !row->picked || !eng_sampler_wants(s, 1, &pick, &n_best) || n_best > row->n_best)
		return eng_sampler_pick(s, eng_row_logits(row));
	if (row->picked->max == -INFINITY)
		return 0;
	if (!(pick.inv_temp > 0))
		return row->best[0].id;
	if (!filters(&s->p)) {
		(void)sampler_unit(s->rng);
		return row->picked->drawn;
	}
	n = narrow_best(best, &s->p, row);
	if (n == 0)
		return eng_sampler_pick(s, eng_row_logits(row));
	return sampler_draw(s, best, n, row->picked->max, pick.inv_temp);
}

/* The logit of id, where what was picked holds it. */
static bool known_logit(const struct eng_row *row, int32_t id, float *ret)
{
	if (id >= 0 && row->picked->drawn == id) {
		*ret = row->picked->drawn_logit;
		return true;
	}
	for (uint32_t i = 0; i < row->n_best && id >= 0; i++) {
		if (row->best[i].id == id) {
			*ret = row->best[i].logit;
			return true;
		}
	}
	return false;
}

float eng_row_logprobs(struct eng_row *row, uint32_t n_vocab, int32_t id, uint32_t n_top, struct eng_top *ret_top)
{
	float logit;

	if (row->logits || !row->picked || row->picked->max == -INFINITY || n_top > row->n_best ||
	    (n_top > 0 && row->best[n_top - 1].id < 0) || !known_logit(row, id, &logit))
		return eng_logprobs(eng_row_logits(row), n_vocab, id, n_top, ret_top);
	for (uint32_t i = 0; i < n_top; i++)
		ret_top[i] = (struct eng_top){ row->best[i].id, row->best[i].logit - row->picked->log_sum };
	return logit - row->picked->log_sum;
}
