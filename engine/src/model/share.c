/* Dividing a model's numbers among ranks; load*.c cut the tensors accordingly. */
#include "model/share.h"

#include <errno.h>

#include "model/hparams.h"

enum { VOCAB_STEP = 16 };

struct share model_share_of(const struct kn_backend *backend)
{
	return (struct share){ .rank = backend->rank,
		               .n = backend->n_ranks ? backend->n_ranks : 1,
		               .by_expert = backend->by_expert };
}

struct span model_share_even(struct share s, uint32_t n)
{
	return (struct span){ .first = n / s.n * s.rank, .n = n / s.n };
}

struct span model_share_kv_heads(struct share s, uint32_t n_kv_head)
{
	if (n_kv_head >= s.n)
		return model_share_even(s, n_kv_head);
	return (struct span){ .first = s.rank / (s.n / n_kv_head), .n = 1 };
}

uint32_t model_share_vocab_rows(struct share s, uint32_t n_vocab)
{
	uint32_t each = (n_vocab + s.n - 1) / s.n;

	return s.n == 1 ? n_vocab : (each + VOCAB_STEP - 1) / VOCAB_STEP * VOCAB_STEP;
}

struct span model_share_vocab(struct share s, uint32_t n_vocab)
{
	uint32_t each = model_share_vocab_rows(s, n_vocab), first = s.rank * each;

	if (first >= n_vocab)
		return (struct span){ .first = n_vocab };
	return (struct span){ .first = first, .n = n_vocab - first < each ? n_vocab - first : each };
}

struct span model_share_experts(struct share s, uint32_t n_expert)
{
	return s.by_expert ? model_share_even(s, n_expert) : (struct span){ .n = n_expert };
}

struct span model_share_expert_ff(struct share s, uint32_t n_ff)
{
	return s.by_expert ? (struct span){ .n = n_ff } : model_share_even(s, n_ff);
}

static int check_heads(const char *where, const struct hparams *hp, uint32_t n, struct err *err)
{
	if (hp->n_head % n)
		return err_set(err, -ENOTSUP, "%s: %u attention heads cannot be divided among %u devices", where,
		               hp->n_head, n);
	if (hp->arch->attn == ATTN_MLA)
		return 0;
	if (hp->n_kv_head % n && n % hp->n_kv_head)
		return err_set(err, -ENOTSUP, "%s: %u key/value heads cannot be divided among %u devices", where,
		               hp->n_kv_head, n);
	if (hp->qk_norm && hp->arch->qk_norm == QK_NORM_ALL && hp->n_kv_head % n)
		return err_set(err, -ENOTSUP,
		               "%s: a norm over all of %u key/value heads cannot be divided among %u devices", where,
		               hp->n_kv_head, n);
	return 0;
}

static int check_linear(const char *where, const struct hparams *hp, uint32_t n, struct err *err)
{
	if (hparams_state(hp) && hp->linear.n_k_head % n)
		return err_set(err, -ENOTSUP, "%s: %u heads of linear attention cannot be divided among %u devices",
		               where, hp->linear.n_k_head, n);
	return 0;
}

static int check_ff(const char *where, const struct hparams *hp, struct share s, struct err *err)
{
	for (uint32_t i = 0; i < hp->n_layer; i++) {
		if (hp->layer[i].n_ff % s.n)
			return err_set(err, -ENOTSUP,
			               "%s: layer %u: a feed-forward of %u cannot be divided among %u devices", where,
			               i, hp->layer[i].n_ff, s.n);
	}
	if (s.by_expert && hp->n_expert % s.n)
		return err_set(err, -ENOTSUP, "%s: %u experts cannot be divided among %u devices", where, hp->n_expert,
		               s.n);
	if (!s.by_expert && hp->n_ff_exp % s.n)
		return err_set(err, -ENOTSUP, "%s: experts of %u cannot be divided among %u devices", where,
		               hp->n_ff_exp, s.n);
	return 0;
}

int model_share_hparams(const char *where, const struct hparams *hp, struct share s, struct hparams *ret,
                        struct err *err)
{
	struct share last = { .rank = s.n - 1, .n = s.n };
	int r;

	if (hp->arch->encoder)
		return err_set(err, -ENOTSUP, "%s: an encoder is computed on one device", where);
	r = check_heads(where, hp, s.n, err);
	r = r < 0 ? r : check_linear(where, hp, s.n, err);
	r = r < 0 ? r : check_ff(where, hp, s, err);
	if (r < 0)
		return r;
	if (model_share_vocab(last, hp->n_vocab).n == 0)
		return err_set(err, -ENOTSUP, "%s: a vocabulary of %u is too small for %u devices", where, hp->n_vocab,
		               s.n);
	*ret = *hp;
	ret->n_head = hp->n_head / s.n;
	if (hp->arch->attn != ATTN_MLA)
		ret->n_kv_head = model_share_kv_heads(s, hp->n_kv_head).n;
	ret->linear.n_k_head = hp->linear.n_k_head / s.n;
	ret->linear.n_v_head = hp->linear.n_v_head / s.n;
	ret->n_ff_exp = model_share_expert_ff(s, hp->n_ff_exp).n;
	for (uint32_t i = 0; i < hp->n_layer; i++)
		ret->layer[i].n_ff = hp->layer[i].n_ff / s.n;
	return 0;
}
