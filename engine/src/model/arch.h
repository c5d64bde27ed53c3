/* Architectures as data: what a model family is made of, where its file keeps each tensor, and what its
 * config.json means when it says nothing. Adding one is adding a row to the table in arch.c; see README.md. */
#ifndef ENG_MODEL_ARCH_H
#define ENG_MODEL_ARCH_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "kernels.h"

/* Every tensor that any architecture has. Names of layer tensors are relative to their layer. */
enum slot {
	S_EMBED,
	S_OUT_NORM,
	S_HEAD,
	S_POS_EMBED, /* encoders: learned positions, kinds of text, and the norm of their sum */
	S_TYPE_EMBED,
	S_EMBED_NORM,
	S_FIRST_IN_LAYER,                  /* those above belong to the model, those below to each layer */
	S_ATTN_IN_NORM = S_FIRST_IN_LAYER, /* before the block; absent: the block reads the residual itself */
	S_ATTN_OUT_NORM,                   /* of what the block adds; absent: none */
	S_FFN_IN_NORM,
	S_FFN_OUT_NORM,
	S_Q,
	S_K,
	S_V,
	S_QKV, /* instead of the three: their rows one after the other */
	S_O,
	S_Q_NORM,
	S_K_NORM,
	S_SINKS,
	S_LIN_QKVZ, /* linear attention: per K head its rows of Q, K, V and the output gate */
	S_LIN_QKV,  /* instead: rows of Q, then K, then V; and the output gate apart */
	S_LIN_Z,
	S_LIN_BA, /* per K head: rows of the change's weight, rows of the decay's step */
	S_LIN_CONV,
	S_LIN_A, /* log of the decay; GGUF: minus the decay */
	S_LIN_DT_BIAS,
	S_LIN_NORM,
	S_LIN_O,
	S_Q_A, /* multi-head latent attention */
	S_Q_A_NORM,
	S_Q_B,
	S_KV_A,
	S_KV_A_NORM,
	S_KV_B, /* per head: rows that expand the latent to K, then rows that expand it to V */
	S_K_B,  /* instead of S_KV_B: [n_head, kv_lora, nope] and [n_head, v, kv_lora] */
	S_V_B,
	S_GATE,
	S_UP,
	S_GATE_UP, /* instead of the two */
	S_DOWN,
	S_ROUTER,
	S_ROUTER_BIAS, /* added for the selection only */
	S_EXP_GATE,    /* with {} for the expert's number: one tensor each; without: all in one [n_expert, ., .] */
	S_EXP_UP,
	S_EXP_GATE_UP, /* instead of the two: [n_expert, dim, 2 * n_ff], gate and up columns alternating */
	S_EXP_DOWN,
	S_SH_GATE, /* the expert that every token takes */
	S_SH_UP,
	S_SH_DOWN,
	S_SH_ROUTER, /* one row: how much of it the token takes */
	N_SLOTS
};

/* An entry of an architecture's own names: not there in this architecture. */
#define NO_TENSOR ""

enum attn_kind { ATTN_GQA, ATTN_MLA };

enum qk_norm {
	QK_NORM_NONE,
	QK_NORM_HEAD, /* each head by itself */
	QK_NORM_ALL,  /* the whole projection at once */
};

enum bias {
	BIAS_NEVER,
	BIAS_CONFIG, /* config.json's attention_bias, mlp_bias or use_bias says */
	BIAS_ALWAYS,
};

/* Which layers see only a window, when config.json has no layer_types. */
enum window {
	WINDOW_NONE,
	WINDOW_ALL,
	WINDOW_ABOVE,   /* qwen2, qwen3: with use_sliding_window, layers from max_window_layers on */
	WINDOW_IF_USED, /* with use_sliding_window, all */
	WINDOW_PATTERN, /* every window_pattern-th layer is full, the others are not */
};

struct arch {
	const char *name; /* config.json's model_type */
	const char *gguf; /* general.architecture; the first row of that name is taken */

	/* BERT and its kin: every token sees all of its text, LayerNorm behind each block, learned positions, one
	 * matrix and GELU instead of gate and up, a bias everywhere. Computes embeddings only. */
	bool encoder;
	const char *hf_layer;  /* what stands before a layer's number in Hugging Face files; NULL: layers. */
	const char *hf_prefix; /* of tensors that a class around the model added; NULL: model. */

	enum attn_kind attn;
	enum qk_norm qk_norm;
	const char *qk_norm_key; /* config.json's boolean that must be true for it; NULL: always */
	bool qk_norm_after_rope;
	bool norm_plus_one; /* Hugging Face files store w, the norm multiplies by 1 + w */
	bool sinks;
	bool hybrid;     /* most layers have linear attention (a gated delta net) instead */
	bool gated_attn; /* per head, Q's rows are followed by those of a gate for what the head attended */
	enum bias qkv_bias, o_bias, mlp_bias;
	const char *attn_bias_key; /* NULL: attention_bias */
	const char *mlp_bias_key;  /* NULL: mlp_bias */
	bool attn_bias_default;

	bool rope_interleaved;      /* in Hugging Face files */
	bool gguf_rope_interleaved; /* GGUF's llama has the rows of Q and K permuted for it */
	double rope_theta;          /* default */
	double rope_theta_local;    /* of windowed layers when it is another one; 0: the same */
	double partial_rotary;      /* default; 0 means 1 */
	bool gguf_window_all;       /* GGUF only: a window, where one is written, is for all layers */
	bool gguf_yarn_exact_ends;  /* YaRN's truncate is false, which GGUF has no key for */

	enum window window;
	uint32_t window_default, window_pattern;

	enum kn_act act;
	bool embed_scaled;     /* token embeddings times sqrt(n_embd) */
	bool has_query_scalar; /* attention scale 1 / sqrt(query_pre_attn_scalar) */

	bool moe;
	enum kn_route router;
	bool router_linear_bias; /* the router is a linear layer with a bias */
	bool normalize_always;   /* weights of the chosen experts always sum to 1 */
	bool normalize_default;  /* norm_topk_prob when config.json has none */
	bool experts_use_ff;     /* experts are of intermediate_size, whatever moe_intermediate_size says */
	uint32_t dense_default;  /* first_k_dense_replace when config.json has none */
	bool shared_expert;
	uint32_t shared_default;
	const char *shared_ff_key; /* of the shared expert's own size; NULL: as many times an expert's as there are */
	uint32_t n_expert_default, top_k_default, n_group_default, top_group_default;
	double route_scale_default; /* 0 means 1 */

	uint32_t head_dim_default; /* 0: n_embd / n_head */
	uint32_t kv_head_default;  /* 0: n_head */
	uint32_t n_ctx_default;
	double eps_default;
	bool tied_default;

	const char *hf[N_SLOTS]; /* where it differs from the common names */
	const char *gguf_names[N_SLOTS];
};

/* NULL when there is none. */
const struct arch *arch_find_hf(const char *model_type);
const struct arch *arch_find_gguf(const char *name);
/* The tensor's name within the model or its layer; NULL when this architecture has none. */
const char *arch_tensor_name(const struct arch *arch, enum slot slot, bool gguf);

#endif
