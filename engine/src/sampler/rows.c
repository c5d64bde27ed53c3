/* Rows of logits that stay with the backend: what it picked of them is the token that a whole row would have given. */
#include <float.h>
#include <math.h>
#include <string.h>

#include "sampler/sampler_internal.h"

const float *eng_row_logits(struct eng_row *row)
{
	if (!row->logits)
		row->logits = row->fetch(row->ctx, row->index);
	return row->logits;
}

bool eng_sampler_wants(const struct eng_sampler *s, uint32_t skip, uint32_t n, struct kn_pick *ret_picks)
{
	const struct eng_sampling *p = &s->p;
	bool greedy = p->temperature <= 0.0f || !(1.0f / p->temperature <= FLT_MAX);
	uint64_t rng[4];

	if (p->n_logit_bias > 0 || s->n_all || (!greedy && p->top_k > KN_MAX_BEST))
		return false;
	memcpy(rng, s->rng, sizeof(rng));
	for (uint32_t i = 0; i < skip && !greedy; i++)
		(void)sampler_unit(rng);
	for (uint32_t i = 0; i < n; i++)
		ret_picks[i] = greedy ? (struct kn_pick){ 0 }
		                      : (struct kn_pick){ .inv_temp = 1.0f / p->temperature,
			                                  .top_k = p->top_k,
			                                  .top_p = p->top_p,
			                                  .min_p = p->min_p,
			                                  .unit = sampler_unit(rng) };
	return true;
}

int32_t eng_sampler_pick_row(struct eng_sampler *s, struct eng_row *row)
{
	struct kn_pick pick;

	if (row->logits || !row->picked || !eng_sampler_wants(s, 0, 1, &pick))
		return eng_sampler_pick(s, eng_row_logits(row));
	if (pick.inv_temp > 0)
		(void)sampler_unit(s->rng);
	return row->picked->drawn;
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
	bool is_finite = row->picked && row->picked->max > -INFINITY;
	float logit;

	if (row->logits || !row->picked || n_top > row->n_best || (is_finite && !known_logit(row, id, &logit)))
		return eng_logprobs(eng_row_logits(row), n_vocab, id, n_top, ret_top);
	for (uint32_t i = 0; i < n_top; i++)
		ret_top[i] = row->best[i].id >= 0
		                     ? (struct eng_top){ row->best[i].id, row->best[i].logit - row->picked->log_sum }
		                     : (struct eng_top){ -1, -INFINITY };
	return is_finite ? logit - row->picked->log_sum : -INFINITY;
}
