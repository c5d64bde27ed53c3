/* The paged K/V pool and causal attention over it. Two passes per query and head: the first finds the
 * largest logit, the second sums; keys are visited in the order of their positions, so the result does
 * not depend on how the prompt was cut into steps. */
#include <assert.h>
#include <math.h>
#include <string.h>

#include "ref/ref.h"

void *ref_kv_at(const struct kn_kv *kv, void *pool, uint32_t dim, const uint32_t *pages, uint32_t t, uint32_t head)
{
	size_t elem_bytes = kn_dtype_info(kv->dtype)->block_bytes;
	size_t slot =
	        ((size_t)pages[t / kv->page_tokens] * kv->n_kv_head + head) * kv->page_tokens + t % kv->page_tokens;

	return (char *)pool + slot * dim * elem_bytes;
}

/* A vector of a head with its scale. */
static void put(const struct kn_kv *kv, void *to, const float *x, uint32_t dim, const float *scale)
{
	float scaled[KN_MAX_HEAD];

	for (uint32_t d = 0; scale && d < dim; d++)
		scaled[d] = x[d] / *scale;
	kn_quantize(kv->dtype, scale ? scaled : x, to, dim);
}

static void get(const struct kn_kv *kv, const void *from, float *x, uint32_t dim, const float *scale)
{
	kn_dequantize(kv->dtype, from, x, dim);
	for (uint32_t d = 0; scale && d < dim; d++)
		x[d] *= *scale;
}

static const float *scale_of(const float *scales, uint32_t head)
{
	return scales ? &scales[head] : NULL;
}

void ref_kv_store(struct kn_backend *be, const struct kn_kv *kv, const float *k, size_t ld_k, const float *v,
                  size_t ld_v, const struct kn_seq *seqs, size_t n_seqs)
{
	(void)be;
	for (size_t s = 0; s < n_seqs; s++) {
		for (uint32_t i = 0; i < seqs[s].n_q; i++) {
			uint32_t t = seqs[s].kv_len - seqs[s].n_q + i;
			size_t row = seqs[s].row + i;

			for (uint32_t h = 0; h < kv->n_kv_head; h++) {
				put(kv, ref_kv_at(kv, kv->k, kv->k_dim, seqs[s].pages, t, h),
				    k + row * ld_k + (size_t)h * kv->k_dim, kv->k_dim, scale_of(kv->k_scale, h));
				if (kv->v)
					put(kv, ref_kv_at(kv, kv->v, kv->v_dim, seqs[s].pages, t, h),
					    v + row * ld_v + (size_t)h * kv->v_dim, kv->v_dim,
					    scale_of(kv->v_scale, h));
			}
		}
	}
}

/* The logit of query q for the key of token t. */
static double logit(const struct kn_kv *kv, const struct kn_attn *attn, const float *q, const uint32_t *pages,
                    uint32_t t, uint32_t kv_head)
{
	float key[KN_MAX_HEAD];
	double s = 0;

	get(kv, ref_kv_at(kv, kv->k, kv->k_dim, pages, t, kv_head), key, kv->k_dim, scale_of(kv->k_scale, kv_head));
	for (uint32_t d = 0; d < kv->k_dim; d++)
		s += (double)q[d] * key[d];
	s *= attn->scale;
	return attn->softcap > 0 ? attn->softcap * tanh(s / attn->softcap) : s;
}

/* out [v_dim] for the query at position pos. */
static void attend(const struct kn_kv *kv, const struct kn_attn *attn, const float *q, const uint32_t *pages,
                   uint32_t pos, uint32_t head, float *out)
{
	uint32_t kv_head = head / (attn->n_head / kv->n_kv_head);
	uint32_t first = attn->window && pos + 1 > attn->window ? pos + 1 - attn->window : 0;
	double max = attn->sinks ? attn->sinks[head] : -INFINITY;
	double acc[KN_MAX_HEAD] = { 0 }, sum;
	float value[KN_MAX_HEAD];

	for (uint32_t t = first; t <= pos; t++)
		max = fmax(max, logit(kv, attn, q, pages, t, kv_head));
	sum = attn->sinks ? exp(attn->sinks[head] - max) : 0;
	for (uint32_t t = first; t <= pos; t++) {
		double w = exp(logit(kv, attn, q, pages, t, kv_head) - max);
		/* Without a V of its own, a token's value is the beginning of its key. */
		const void *src = kv->v ? ref_kv_at(kv, kv->v, kv->v_dim, pages, t, kv_head)
		                        : ref_kv_at(kv, kv->k, kv->k_dim, pages, t, kv_head);

		sum += w;
		get(kv, src, value, kv->v_dim, scale_of(kv->v ? kv->v_scale : kv->k_scale, kv_head));
		for (uint32_t d = 0; d < kv->v_dim; d++)
			acc[d] += w * value[d];
	}
	for (uint32_t d = 0; d < kv->v_dim; d++)
		out[d] = (float)(acc[d] / sum);
}

void ref_attention(struct kn_backend *be, float *out, size_t ld_out, const float *q, size_t ld_q,
                   const struct kn_kv *kv, const struct kn_seq *seqs, size_t n_seqs, const struct kn_attn *attn)
{
	(void)be;
	assert(kv->k_dim <= KN_MAX_HEAD && kv->v_dim <= KN_MAX_HEAD);
	for (size_t s = 0; s < n_seqs; s++) {
		for (uint32_t i = 0; i < seqs[s].n_q; i++) {
			uint32_t pos = seqs[s].kv_len - seqs[s].n_q + i;
			size_t row = seqs[s].row + i;

			for (uint32_t h = 0; h < attn->n_head; h++)
				attend(kv, attn, q + row * ld_q + (size_t)h * kv->k_dim, seqs[s].pages, pos, h,
				       out + row * ld_out + (size_t)h * kv->v_dim);
		}
	}
}
