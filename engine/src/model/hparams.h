/* Hyperparameters: what a config.json or GGUF's keys say, checked and with the defaults filled in. Plain
 * data without pointers to own; everything that sizes an allocation is within the limits below. */
#ifndef ENG_MODEL_HPARAMS_H
#define ENG_MODEL_HPARAMS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "kernels.h"
#include "model/arch.h"
#include "model/rope.h"

struct eng_weights;

enum {
	HP_MAX_LAYERS = 512,
	HP_MAX_EMBD = 65536,
	HP_MAX_HEADS = 1024,
	HP_MAX_HEAD_DIM = KN_MAX_HEAD / 2,
	HP_MAX_FF = 1 << 20,
	HP_MAX_VOCAB = 1 << 22,
	HP_MAX_EXPERTS = KN_MAX_EXPERTS,
	HP_MAX_TOP_K = 64,
	HP_MAX_TYPES = 1024,
	HP_MAX_CTX = 1 << 28,
	HP_MAX_LINEAR = 1 << 20, /* values of a row of Q, K and V of linear attention */
};

struct hp_layer {
	uint32_t window; /* 0: sees everything */
	uint32_t top_k;  /* experts per token; 0: a dense layer */
	uint32_t n_ff;   /* of the dense feed-forward, or of the shared expert (0: none) */
	uint32_t rope;   /* which of hparams.rope */
	bool linear;     /* has linear attention: a recurrent state instead of K and V */
};

struct hparams {
	const struct arch *arch;
	uint32_t n_vocab, n_ctx, n_layer, n_embd, n_head, n_kv_head, head_dim;
	float eps;
	float embed_scale, attn_scale;
	float attn_softcap, final_softcap; /* 0: none */
	bool tied;                         /* the embedding table is also the output matrix */
	bool headless;                     /* the configuration names a model without an output matrix */
	bool qk_norm;
	bool rope_interleaved;
	bool qkv_bias, o_bias, mlp_bias;
	uint32_t fp8_block[2]; /* rows and columns that share a scale; 0: no FP8 weights */
	enum kn_act act;
	uint32_t n_types; /* encoders: kinds of text; all of ours is the first */

	/* multi-head latent attention; q_lora 0: Q is projected at once */
	uint32_t q_lora, kv_lora, qk_nope, qk_rope, v_head;

	/* linear attention (a gated delta net) */
	struct {
		uint32_t n_k_head, n_v_head, k_dim, v_dim;
		uint32_t conv; /* inputs that its convolution sees */
	} linear;

	/* experts; n_expert 0: none */
	enum kn_route router;
	uint32_t n_expert, n_ff_exp, n_group, top_group;
	bool normalize;
	float route_scale;

	struct rope_plan rope[2]; /* [1]: windowed layers where they differ */
	uint32_t n_rope;
	struct hp_layer layer[HP_MAX_LAYERS];
};

/* From the bytes of a config.json; `where` names it in errors. On failure *ret is unspecified. */
int hparams_parse_hf(const char *where, const void *data, size_t len, struct hparams *ret, struct err *err);
/* From GGUF's keys (and its rope factor tensors). */
int hparams_read_gguf(const char *where, const struct eng_weights *weights, struct hparams *ret, struct err *err);
/* Layers with K and V. */
uint32_t hparams_n_attention(const struct hparams *hp);
/* Channels of a linear layer's convolution: values of a row of Q, K and V. */
uint32_t hparams_linear_channels(const struct hparams *hp);
/* Floats of a sequence's recurrent state: of one linear layer's two parts, and of all layers. 0: none. */
size_t hparams_conv_state(const struct hparams *hp);
size_t hparams_delta_state(const struct hparams *hp);
size_t hparams_state(const struct hparams *hp);
/* What both end with: relations between the numbers. */
int hparams_check(const char *where, struct hparams *hp, struct err *err);

#endif
