/* Encoders in the manner of BERT: tables with learned positions, and layers whose norms stand behind their blocks. */
#include <errno.h>
#include <stdlib.h>

#include "base/cleanup.h"
#include "model/load.h"

/* A LayerNorm's weight and the bias beside it. */
static int load_layernorm(struct loader *l, enum slot slot, uint32_t layer, float **ret_weight, float **ret_bias)
{
	uint64_t n = l->hp->n_embd;
	char name[NAME_SIZE];
	int r = model_load_vector(l, slot, layer, n, 0, ret_weight);

	if (r < 0)
		return r;
	(void)model_load_tensor_name(l, slot, layer, 0, name);
	return model_load_bias(l, name, true, n, 0, ret_bias);
}

/* Positions as float32, the first kind of text added to each: one look-up less for every token. */
static int load_positions(struct loader *l)
{
	const struct hparams *hp = l->hp;
	uint64_t shape[2] = { hp->n_ctx, hp->n_embd }, type_shape[2] = { hp->n_types, hp->n_embd };
	size_t dim = hp->n_embd, n = (size_t)hp->n_ctx * dim;
	const struct eng_tensor *positions, *types;
	CLEANUP(freep) float *type = NULL;
	char name[NAME_SIZE];
	float *sum;
	int r;

	(void)model_load_tensor_name(l, S_TYPE_EMBED, 0, 0, name);
	r = model_load_need(l, name, 2, type_shape, &types);
	(void)model_load_tensor_name(l, S_POS_EMBED, 0, 0, name);
	r = r < 0 ? r : model_load_need(l, name, 2, shape, &positions);
	if (r < 0)
		return r;
	type = malloc(dim * sizeof(*type));
	sum = model_host_alloc(l->m, n * sizeof(*sum));
	if (!type || !sum)
		return model_load_no_memory(l, name);
	kn_dequantize(types->dtype, types->data, type, dim);
	kn_dequantize(positions->dtype, positions->data, sum, n);
	for (size_t i = 0; i < n; i++)
		sum[i] += type[i % dim];
	l->m->pos_embed = (struct kn_mat){ .dtype = KN_F32, .rows = hp->n_ctx, .cols = hp->n_embd, .data = sum };
	return model_mat(l->m, name, &l->m->pos_embed, l->err);
}

static int load_tables(struct loader *l)
{
	struct eng_model *m = l->m;
	uint64_t shape[2] = { l->hp->n_vocab, l->hp->n_embd };
	const struct eng_tensor *t;
	char name[NAME_SIZE];
	int r;

	(void)model_load_tensor_name(l, S_EMBED, 0, 0, name);
	r = model_load_need(l, name, 2, shape, &t);
	r = r < 0 ? r : model_load_rows(l, name, t, 0, l->hp->n_vocab, l->hp->n_embd, &m->embed);
	m->info.weight_bytes = 0; /* of the table a token reads one row */
	r = r < 0 ? r : load_positions(l);
	return r < 0 ? r : load_layernorm(l, S_EMBED_NORM, 0, &m->embed_norm, &m->embed_norm_bias);
}

static int load_layer(struct loader *l, uint32_t il)
{
	struct layer *y = &l->m->layers[il];
	uint32_t dim = l->hp->n_embd, n_ff = l->hp->layer[il].n_ff;
	int r;

	r = model_load_linear(l, S_Q, il, dim, model_load_all(dim), dim, true, &y->q);
	r = r < 0 ? r : model_load_linear(l, S_K, il, dim, model_load_all(dim), dim, true, &y->k);
	r = r < 0 ? r : model_load_linear(l, S_V, il, dim, model_load_all(dim), dim, true, &y->v);
	r = r < 0 ? r : model_load_linear(l, S_O, il, dim, model_load_all(dim), dim, true, &y->o);
	r = r < 0 ? r : load_layernorm(l, S_ATTN_OUT_NORM, il, &y->attn_out_norm, &y->attn_out_bias);
	r = r < 0 ? r : model_load_linear(l, S_UP, il, n_ff, model_load_all(n_ff), dim, true, &y->up);
	r = r < 0 ? r : model_load_linear(l, S_DOWN, il, dim, model_load_all(dim), n_ff, true, &y->down);
	return r < 0 ? r : load_layernorm(l, S_FFN_OUT_NORM, il, &y->ffn_out_norm, &y->ffn_out_bias);
}

int model_load_encoder(struct loader *l)
{
	int r = load_tables(l);

	for (uint32_t i = 0; i < l->hp->n_layer && r == 0; i++)
		r = load_layer(l, i);
	l->m->info.is_encoder = true;
	/* What sentence-transformers does with a folder that says nothing. */
	if (l->m->info.pooling == ENG_POOL_NONE)
		l->m->info.pooling = ENG_POOL_MEAN;
	return r;
}
