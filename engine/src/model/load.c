/* A model's tensors to its layers: which tensors each kind of attention and of feed-forward has, in which shapes the
 * hyperparameters ask for them, and what of them this device takes. load_mat.c finds, checks and cuts each of them. */
#include <stdlib.h>

#include "base/threadpool.h"
#include "model/load.h"

/* ---- Attention ---- */

static int load_gqa(struct loader *l, uint32_t il, struct layer *y)
{
	const struct hparams *hp = l->hp;
	uint32_t n_q = hp->n_head * hp->head_dim, n_kv = hp->n_kv_head * hp->head_dim;
	struct span heads = model_share_even(l->share, hp->n_head),
	            kv_heads = model_share_kv_heads(l->share, hp->n_kv_head);
	struct span q = { heads.first * hp->head_dim, heads.n * hp->head_dim },
	            kv = { kv_heads.first * hp->head_dim, kv_heads.n * hp->head_dim };
	const struct load_part parts[] = { { &y->q, n_q, q }, { &y->k, n_kv, kv }, { &y->v, n_kv, kv } };
	bool all = hp->arch->qk_norm == QK_NORM_ALL;
	char name[NAME_SIZE];
	int r;

	if (model_load_tensor_name(l, S_QKV, il, 0, name)) {
		r = model_load_parts(l, name, parts, 3, hp->n_embd, hp->qkv_bias);
	} else {
		r = hp->arch->gated_attn ? model_load_gated_q(l, il, y)
		                         : model_load_linear(l, S_Q, il, n_q, q, hp->n_embd, hp->qkv_bias, &y->q);
		r = r < 0 ? r : model_load_linear(l, S_K, il, n_kv, kv, hp->n_embd, hp->qkv_bias, &y->k);
		r = r < 0 ? r : model_load_linear(l, S_V, il, n_kv, kv, hp->n_embd, hp->qkv_bias, &y->v);
	}
	r = r < 0 ? r : model_load_summand(l, S_O, il, hp->n_embd, n_q, q, hp->o_bias, &y->o);
	if (r == 0 && hp->qk_norm) {
		r = model_load_norm(l, S_Q_NORM, il, all ? n_q : hp->head_dim, &y->q_norm);
		r = r < 0 ? r : model_load_norm(l, S_K_NORM, il, all ? n_kv : hp->head_dim, &y->k_norm);
	}
	if (r == 0 && hp->arch->sinks)
		r = model_load_vector(l, S_SINKS, il, hp->n_head, 0, &y->sinks);
	if (r == 0 && y->sinks)
		y->sinks += heads.first;
	return r;
}

/* K and V expansion of each head: together in one tensor, or apart with K turned already (GGUF). */
static int load_mla_expansion(struct loader *l, uint32_t il, struct mla *a)
{
	const struct hparams *hp = l->hp;
	uint32_t per_head = hp->qk_nope + hp->v_head;
	uint64_t both[2] = { (uint64_t)hp->n_head * per_head, hp->kv_lora };
	uint64_t k_shape[3] = { hp->n_head, hp->kv_lora, hp->qk_nope };
	uint64_t v_shape[3] = { hp->n_head, hp->v_head, hp->kv_lora };
	struct span heads = model_share_even(l->share, hp->n_head);
	const struct eng_tensor *t, *v;
	char name[NAME_SIZE], v_name[NAME_SIZE];
	int r = 0;

	if (model_load_tensor_name(l, S_K_B, il, 0, name) && model_load_tensor_name(l, S_V_B, il, 0, v_name) &&
	    eng_weights_find(l->m->weights, name)) {
		r = model_load_need(l, name, 3, k_shape, &t);
		r = r < 0 ? r : model_load_need(l, v_name, 3, v_shape, &v);
		for (uint32_t i = 0; i < heads.n && r == 0; i++) {
			uint64_t h = heads.first + i;

			r = model_load_rows(l, name, t, h * hp->kv_lora, hp->kv_lora, hp->qk_nope, &a->k_b[i]);
			if (r == 0)
				r = model_load_rows(l, v_name, v, h * hp->v_head, hp->v_head, hp->kv_lora, &a->v_b[i]);
		}
		return r;
	}
	(void)model_load_tensor_name(l, S_KV_B, il, 0, name);
	r = model_load_need(l, name, 2, both, &t);
	for (uint32_t i = 0; i < heads.n && r == 0; i++) {
		uint64_t h = heads.first + i;
		const char *head = (const char *)t->data + h * per_head * kn_row_bytes(t->dtype, hp->kv_lora);

		r = model_load_turned(l, name, t->dtype, head, hp->kv_lora, hp->qk_nope, 0, 1, hp->kv_lora, &a->k_b[i]);
		if (r == 0)
			r = model_load_rows(l, name, t, h * per_head + hp->qk_nope, hp->v_head, hp->kv_lora,
			                    &a->v_b[i]);
	}
	return r;
}

static int load_mla(struct loader *l, uint32_t il, struct layer *y)
{
	const struct hparams *hp = l->hp;
	struct mla *a = &y->mla;
	uint32_t per_head = hp->qk_nope + hp->qk_rope, q_cols = hp->q_lora ? hp->q_lora : hp->n_embd;
	uint64_t q_shape[2] = { (uint64_t)hp->n_head * per_head, q_cols };
	struct span heads = model_share_even(l->share, hp->n_head),
	            values = { heads.first * hp->v_head, heads.n * hp->v_head };
	uint32_t n_latent = hp->kv_lora + hp->qk_rope;
	const struct eng_tensor *t;
	char name[NAME_SIZE];
	int r = 0;

	a->q_nope = model_load_mats_new(l, heads.n);
	a->q_rope = model_load_mats_new(l, heads.n);
	a->k_b = model_load_mats_new(l, heads.n);
	a->v_b = model_load_mats_new(l, heads.n);
	if (!a->q_nope || !a->q_rope || !a->k_b || !a->v_b)
		return model_load_no_memory(l, "attention");
	if (hp->q_lora) {
		r = model_load_linear(l, S_Q_A, il, hp->q_lora, model_load_all(hp->q_lora), hp->n_embd, hp->qkv_bias,
		                      &a->q_a);
		r = r < 0 ? r : model_load_norm(l, S_Q_A_NORM, il, hp->q_lora, &a->q_a_norm);
	}
	r = r < 0 ? r
	          : model_load_linear(l, S_KV_A, il, n_latent, model_load_all(n_latent), hp->n_embd, hp->qkv_bias,
	                              &a->kv_a);
	r = r < 0 ? r : model_load_norm(l, S_KV_A_NORM, il, hp->kv_lora, &a->kv_a_norm);
	r = r < 0 ? r : model_load_summand(l, S_O, il, hp->n_embd, hp->n_head * hp->v_head, values, hp->o_bias, &y->o);
	if (r < 0)
		return r;

	(void)model_load_tensor_name(l, hp->q_lora ? S_Q_B : S_Q, il, 0, name);
	r = model_load_need_mat(l, name, 2, q_shape, &t);
	for (uint32_t i = 0; i < heads.n && r == 0; i++) {
		uint64_t h = heads.first + i;

		r = model_load_rows(l, name, t, h * per_head, hp->qk_nope, q_cols, &a->q_nope[i]);
		if (r == 0)
			r = model_load_rows(l, name, t, h * per_head + hp->qk_nope, hp->qk_rope, q_cols, &a->q_rope[i]);
	}
	return r < 0 ? r : load_mla_expansion(l, il, a);
}

/* ---- Feed-forward ---- */

static int load_dense(struct loader *l, uint32_t il, struct layer *y)
{
	const struct hparams *hp = l->hp;
	uint32_t n_ff = hp->layer[il].n_ff;
	struct span take = model_share_even(l->share, n_ff);
	const struct load_part parts[] = { { &y->gate, n_ff, take }, { &y->up, n_ff, take } };
	char name[NAME_SIZE];
	int r;

	if (model_load_tensor_name(l, S_GATE_UP, il, 0, name)) {
		r = model_load_parts(l, name, parts, 2, hp->n_embd, hp->mlp_bias);
	} else {
		r = model_load_linear(l, S_GATE, il, n_ff, take, hp->n_embd, hp->mlp_bias, &y->gate);
		r = r < 0 ? r : model_load_linear(l, S_UP, il, n_ff, take, hp->n_embd, hp->mlp_bias, &y->up);
	}
	return r < 0 ? r : model_load_summand(l, S_DOWN, il, hp->n_embd, n_ff, take, hp->mlp_bias, &y->down);
}

/* ---- The whole ---- */

static int load_layer(struct loader *l, uint32_t il)
{
	const struct hparams *hp = l->hp;
	struct layer *y = &l->m->layers[il];
	int r;

	r = model_load_norm(l, S_ATTN_IN_NORM, il, hp->n_embd, &y->attn_in_norm);
	r = r < 0 ? r : model_load_norm(l, S_ATTN_OUT_NORM, il, hp->n_embd, &y->attn_out_norm);
	r = r < 0 ? r : model_load_norm(l, S_FFN_IN_NORM, il, hp->n_embd, &y->ffn_in_norm);
	r = r < 0 ? r : model_load_norm(l, S_FFN_OUT_NORM, il, hp->n_embd, &y->ffn_out_norm);
	if (r == 0 && hp->layer[il].linear)
		r = model_load_delta(l, il, &y->delta);
	else if (r == 0)
		r = hp->arch->attn == ATTN_MLA ? load_mla(l, il, y) : load_gqa(l, il, y);
	if (r == 0)
		r = hp->layer[il].top_k ? model_load_moe(l, il, y) : load_dense(l, il, y);
	return r;
}

static int load_tables(struct loader *l)
{
	struct eng_model *m = l->m;
	uint64_t shape[2] = { l->hp->n_vocab, l->hp->n_embd }, embed_bytes;
	const struct eng_tensor *t;
	struct span rows;
	char name[NAME_SIZE];
	bool is_tied;
	int r;

	(void)model_load_tensor_name(l, S_EMBED, 0, 0, name);
	r = model_load_need_mat(l, name, 2, shape, &t);
	r = r < 0 ? r : model_load_rows(l, name, t, 0, l->hp->n_vocab, l->hp->n_embd, &m->embed);
	if (r < 0)
		return r;
	embed_bytes = m->info.weight_bytes;
	r = model_load_norm(l, S_OUT_NORM, 0, l->hp->n_embd, &m->out_norm);
	if (r < 0)
		return r;
	(void)model_load_tensor_name(l, S_HEAD, 0, 0, name);
	is_tied = l->hp->tied || (l->gguf && !eng_weights_find(m->weights, name));
	if (is_tied && l->share.n == 1) {
		m->head = &m->embed;
		return 0;
	}
	m->info.weight_bytes -= embed_bytes;
	if (!is_tied && l->hp->headless && !eng_weights_find(m->weights, name))
		return 0;
	if (!is_tied)
		r = model_load_need_mat(l, name, 2, shape, &t);
	rows = model_share_vocab(l->share, l->hp->n_vocab);
	r = r < 0 ? r
	          : model_load_rows(l, is_tied ? "the embedding" : name, t, rows.first, rows.n, l->hp->n_embd,
	                            &m->head_own);
	m->head = &m->head_own;
	return r;
}

static int load_all(struct eng_model *m, struct loader *l)
{
	const struct arch *arch = m->hp.arch;
	int r;

	l->gguf = eng_weights_is_gguf(m->weights);
	l->layers = l->gguf ? "blk." : arch->hf_layer ? arch->hf_layer : "layers.";
	/* Embedding models are saved without the outer module. */
	l->prefix = eng_weights_find(m->weights, arch_tensor_name(arch, S_EMBED, false)) ? ""
	            : arch->hf_prefix                                                    ? arch->hf_prefix
	                                                                                 : "model.";
	m->layers = calloc(m->hp.n_layer, sizeof(*m->layers));
	if (!m->layers)
		return model_load_no_memory(l, "layers");
	if (arch->encoder)
		return model_load_encoder(l);
	r = load_tables(l);
	for (uint32_t i = 0; i < m->hp.n_layer && r == 0; i++)
		r = load_layer(l, i);
	return r;
}

int model_load(struct eng_model *m, const struct hparams *whole, const char *path, bool exact, struct err *err)
{
	struct base_threadpool *pool = NULL;
	struct loader l = {
		.m = m, .hp = whole, .share = m->share, .path = path, .exact = exact, .pool = &pool, .err = err
	};
	int r = load_all(m, &l);

	base_threadpool_free(pool);
	return r;
}
