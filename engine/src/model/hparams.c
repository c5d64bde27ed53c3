/* What must hold between hyperparameters, wherever they came from. After this, sizes can be multiplied
 * in 64 bits and every layer's description is usable. */
#include "model/hparams.h"

#include <errno.h>
#include <math.h>
#include <string.h>

static int check_attention(const char *where, const struct hparams *hp, struct err *err)
{
	if (hp->arch->attn == ATTN_MLA) {
		if (hp->qk_rope % 2)
			return err_set(err, -EINVAL, "%s: %u rotated dimensions per head are odd", where, hp->qk_rope);
		if (hp->kv_lora + hp->qk_rope > HP_MAX_HEAD_DIM)
			return err_set(err, -EINVAL, "%s: a latent of %u and %u is too large", where, hp->kv_lora,
			               hp->qk_rope);
		return 0;
	}
	if (hp->n_head % hp->n_kv_head)
		return err_set(err, -EINVAL, "%s: %u attention heads are not a multiple of %u key/value heads", where,
		               hp->n_head, hp->n_kv_head);
	for (uint32_t i = 0; i < hp->n_rope; i++) {
		if (hp->rope[i].n_rot > hp->head_dim)
			return err_set(err, -EINVAL, "%s: %u rotated dimensions in heads of %u", where,
			               hp->rope[i].n_rot, hp->head_dim);
	}
	return 0;
}

uint32_t hparams_n_attention(const struct hparams *hp)
{
	uint32_t n = 0;

	for (uint32_t i = 0; i < hp->n_layer; i++)
		n += !hp->layer[i].linear;
	return n;
}

uint32_t hparams_linear_channels(const struct hparams *hp)
{
	return 2 * hp->linear.n_k_head * hp->linear.k_dim + hp->linear.n_v_head * hp->linear.v_dim;
}

size_t hparams_conv_state(const struct hparams *hp)
{
	return (size_t)(hp->linear.conv - 1) * hparams_linear_channels(hp);
}

size_t hparams_delta_state(const struct hparams *hp)
{
	return (size_t)hp->linear.n_v_head * hp->linear.k_dim * hp->linear.v_dim;
}

size_t hparams_state(const struct hparams *hp)
{
	uint32_t n = hp->n_layer - hparams_n_attention(hp);

	return n ? n * (hparams_conv_state(hp) + hparams_delta_state(hp)) : 0;
}

static int check_linear(const char *where, const struct hparams *hp, struct err *err)
{
	uint64_t values =
	        2ull * hp->linear.n_k_head * hp->linear.k_dim + (uint64_t)hp->linear.n_v_head * hp->linear.v_dim;

	if (hp->linear.n_v_head % hp->linear.n_k_head)
		return err_set(err, -EINVAL, "%s: linear attention: %u value heads are not a multiple of %u key heads",
		               where, hp->linear.n_v_head, hp->linear.n_k_head);
	if (hp->linear.v_dim % KN_DELTA_STEP)
		return err_set(err, -ENOTSUP, "%s: linear attention: value heads of %u are not a multiple of %u", where,
		               hp->linear.v_dim, KN_DELTA_STEP);
	if (values > HP_MAX_LINEAR)
		return err_set(err, -EINVAL, "%s: linear attention: rows of %llu values are too large", where,
		               (unsigned long long)values);
	return 0;
}

static int check_experts(const char *where, const struct hparams *hp, struct err *err)
{
	uint32_t group_size;

	if (hp->n_group > 1) {
		if (hp->n_expert % hp->n_group)
			return err_set(err, -EINVAL, "%s: %u experts are not a multiple of %u groups", where,
			               hp->n_expert, hp->n_group);
		if (hp->top_group == 0 || hp->top_group > hp->n_group)
			return err_set(err, -EINVAL, "%s: %u of %u expert groups cannot be chosen", where,
			               hp->top_group, hp->n_group);
	}
	group_size = hp->n_group > 1 ? hp->n_expert / hp->n_group * hp->top_group : hp->n_expert;
	for (uint32_t i = 0; i < hp->n_layer; i++) {
		if (hp->layer[i].top_k > group_size)
			return err_set(err, -EINVAL, "%s: layer %u: %u experts per token of %u", where, i,
			               hp->layer[i].top_k, group_size);
	}
	if (!isfinite(hp->route_scale))
		return err_set(err, -EINVAL, "%s: routed scaling factor: not a finite number", where);
	return 0;
}

int hparams_check(const char *where, struct hparams *hp, struct err *err)
{
	int r;

	if (!(hp->eps > 0 && hp->eps < 1))
		return err_set(err, -EINVAL, "%s: rms_norm_eps: %g is out of range", where, hp->eps);
	if (!(hp->attn_softcap >= 0 && hp->attn_softcap < 1e6 && hp->final_softcap >= 0 && hp->final_softcap < 1e6))
		return err_set(err, -EINVAL, "%s: a soft cap is out of range", where);
	r = check_attention(where, hp, err);
	if (r == 0 && hparams_n_attention(hp) < hp->n_layer)
		r = check_linear(where, hp, err);
	if (r == 0 && hp->n_expert)
		r = check_experts(where, hp, err);
	if (r < 0)
		return r;
	for (uint32_t i = 0; i < hp->n_layer; i++)
		hp->layer[i].rope = hp->n_rope > 1 && hp->layer[i].window ? 1 : 0;
	return 0;
}
