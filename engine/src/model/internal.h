/* The loaded model and the runner from the inside; for model*.c, load.c, forward.c and their parts. */
#ifndef ENG_MODEL_INTERNAL_H
#define ENG_MODEL_INTERNAL_H

#include "kernels.h"
#include "model/hparams.h"
#include "model/model.h"
#include "model/share.h"

/* A matrix and its bias (backend memory, or NULL). w.rows 0: not there. */
struct linear {
	struct kn_mat w;
	float *bias;
};

struct mla {
	struct linear q_a, kv_a;
	float *q_a_norm, *kv_a_norm;
	/* Per head, [n_head] each. Rows of the Q projection: those without and those with position. */
	struct kn_mat *q_nope, *q_rope;
	struct kn_mat *k_b; /* [kv_lora, nope]: takes q into the latent's space */
	struct kn_mat *v_b; /* [v_head, kv_lora]: takes the attended latent out of it */
};

/* A gated delta net. */
struct delta_net {
	struct linear qkv, z, ba, o; /* rows of Q, K, V one after the other; of b, then a */
	float *conv;                 /* [conv][channels] */
	float *decay, *dt_bias;      /* [n_v_head] */
	float *norm;                 /* [v_dim] */
};

/* Norm weights, biases and sinks are float in backend memory; NULL: not there. */
struct layer {
	float *attn_in_norm, *attn_out_norm, *ffn_in_norm, *ffn_out_norm;
	float *attn_out_bias, *ffn_out_bias; /* of those norms, encoders only */
	float *q_norm, *k_norm, *sinks;
	struct linear q, k, v, o;
	struct linear q_gate; /* what a head attended is multiplied by its sigmoid */
	struct mla mla;
	struct delta_net delta;
	struct linear gate, up, down; /* dense, or the shared expert */
	struct linear shared_router;  /* one row, for the shared expert */
	struct linear router;
	float *router_bias;
	struct kn_moe moe; /* n_expert 0: a dense layer */
};

struct ptr_list {
	void **p;
	size_t n, cap;
};

/* A model on a group of devices is that of the first, which owns those of the others; each has its share of the
 * weights, and hyperparameters of that size (share.h). info is that of the first and counts all of them. */
struct eng_model {
	struct eng_model_info info;
	struct hparams hp;
	struct share share;
	struct eng_model *shares[KN_MAX_RANKS]; /* [share.n] of the first: all, itself included; others have none */
	struct kn_backend *backend;
	struct eng_weights *weights; /* NULL for a random model */
	struct kn_mat embed;
	struct kn_mat *head; /* &embed when tied; NULL: no output matrix */
	struct kn_mat head_own;
	float *out_norm;
	struct kn_mat pos_embed;               /* encoders: [n_ctx, n_embd], the kind of text added to each position */
	float *embed_norm, *embed_norm_bias;   /* encoders */
	float *inv_freq[2], *inv_freq_long[2]; /* backend memory, per hparams.rope */
	struct layer *layers;
	struct lora *loras; /* [n_loras], lora.h */
	uint32_t n_loras, lora_rank;

	/* What to give back: matrices prepared by the backend, backend memory, host memory. */
	struct ptr_list mats, device, host;
};

enum runner_buf {
	B_X, /* the residual stream */
	B_H, /* a block's normed input */
	B_T, /* a block's output where it is normed before it is added */
	B_Q,
	B_K,
	B_V,
	B_ATT,  /* attended values */
	B_QA,   /* MLA: low-rank q */
	B_QN,   /* MLA: q without position */
	B_MO,   /* MLA: attended values out of the latent */
	B_MIX,  /* linear attention: q, k and v */
	B_CONV, /* and after the convolution */
	B_BA,   /* and the gates of the state */
	B_Z,    /* the gate of what was attended */
	B_GATE,
	B_UP,
	B_ROUTE,
	B_SHARE, /* how much of the shared expert */
	B_WEIGHTS,
	B_LORA,  /* adapters: A x */
	B_OUT_H, /* outputs: normed rows */
	B_OUT,   /* outputs: logits */
	N_BUFS
};

/* A step that was begun. */
struct runner_flight {
	enum eng_output output;
	uint32_t n_out;
	bool is_picked, has_all_picks; /* any of its rows is picked; all of them are */
};

/* Rows of the step that follow each other and take the same adapter; 0: none. */
struct adapter_run {
	uint32_t adapter, row, n_rows;
};

struct eng_runner {
	const struct eng_model *model;
	struct eng_runner_config config;
	struct kn_backend *be;
	const struct kn_ops *ops;
	float *buf[N_BUFS];
	int32_t *expert_ids;     /* backend memory */
	struct kn_kv *kv;        /* [n_layer]; without memory where the layer has none */
	char *kv_memory;         /* all of it, where it is not the host's; else each layer has its own */
	struct kn_piece *pieces; /* [2 * n_layer] of a page that is copied beside the steps */
	/* Of whose pages some are copied here; NULL: nobody. source_error: and not any more. */
	const struct eng_runner *source;
	int source_error;
	int copy_error;      /* of copies to and from the host, on a group: its devices have begun different ones */
	float *states;       /* backend memory: [n_states] recurrent states, layer after layer; NULL: none */
	uint32_t *state_pos; /* [n_states] tokens that each has seen */
	struct kn_rope rope[2];
	float *host_out;         /* NULL: outputs are read where the backend left them */
	struct outputs *outputs; /* outputs.c; NULL: whole rows always */

	/* The step at hand, host memory. */
	int32_t *ids, *pos;       /* [max_tokens] */
	struct kn_seq *seqs;      /* [max_tokens] */
	struct kn_seq *row_seqs;  /* encoders, [max_tokens]: each row by itself, seeing all of its sequence */
	struct adapter_run *runs; /* [max_tokens] where the model has adapters */
	size_t n_runs;
	size_t n_seqs;
	uint32_t n_tokens, n_out;
	uint32_t n_answer_rows; /* the first ones; for a backend that tells prompts */

	struct runner_flight flights[KN_MAX_AHEAD]; /* step n is [n % KN_MAX_AHEAD] */
	uint64_t n_begun, n_waited;

	/* Of the runner that callers have, on a group of devices: all of them, itself included, which do the same in
	 * threads of their own. */
	struct eng_runner *shares[KN_MAX_RANKS];
	uint32_t n_shares; /* 0: it is alone, or one of another's */
	struct team *team;
};

static inline bool runner_is_divided(const struct eng_runner *r)
{
	return r->model->share.n > 1;
}

/* ---- load.c ---- */

/* Fills model->embed, head, norms and layers from model->weights, model->share of what the hyperparameters of the whole
 * model say. `path` for errors; exact: see eng_model_open(). */
int model_load(struct eng_model *m, const struct hparams *whole, const char *path, bool exact, struct err *err);

/* load_encoder.c: tables and layers of an encoder. */
struct loader;
int model_load_encoder(struct loader *l);

/* ---- memory.c: what model_unload() gives back; NULL when there is none ---- */

void *model_host_alloc(struct eng_model *m, size_t bytes);
/* Before its time: the last one allocated. */
void model_host_free(struct eng_model *m, void *p);
float *model_upload(struct eng_model *m, const float *values, size_t n);
/* m, whose hyperparameters are the whole model's, becomes the first share, and m->shares empty models. */
int model_shares_new(struct eng_model *m, const char *where, const struct hparams *whole, struct err *err);
/* What the shares took, into the first one's info. */
void model_shares_count(struct eng_model *m);
/* Prepares a matrix for the backend and remembers it. */
int model_mat(struct eng_model *m, const char *name, struct kn_mat *mat, struct err *err);
int model_finish(struct eng_model *m, struct err *err); /* rope tables and the numbers in info */
void model_unload(struct eng_model *m);

/* load_moe.c: layer il's experts, of all_bytes, into the numbers of info but weight_bytes. The bytes that a token
 * reads. */
uint64_t model_count_experts(struct eng_model_info *info, const struct hparams *hp, uint32_t il, uint64_t all_bytes);

/* runner_step.c: the model's cap on logits, where it has one. */
void runner_cap_logits(const struct eng_runner *r, float *x, size_t n);

/* ---- outputs.c: rows of logits of which the backend picks what samplers need ---- */

/* Makes r->outputs, where the backend picks. */
int runner_outputs_new(struct eng_runner *r);
void runner_outputs_free(struct outputs *o);
uint64_t runner_outputs_bytes(const struct eng_runner_config *config);
/* Puts the picking of the step being begun on its way if any sequence asks for it; false: whole rows are wanted. */
bool runner_outputs_pick(struct eng_runner *r, const struct eng_step_seq *seqs, size_t n_seqs);

/* ---- forward.c and its parts: one step over r->n_tokens rows ---- */

void forward(struct eng_runner *r);
/* What a block reads: x [n_tokens, n_embd], through an RMS norm first unless norm is NULL. */
struct block_in {
	const float *x, *norm;
};
/* The rows themselves, for a block that does not leave the norm to its first product. */
const float *model_block_rows(struct eng_runner *r, const struct block_in *in);
/* Adds the block of layer il to dest (flags KN_ACCUMULATE) or writes it there. */
void attention_gqa(struct eng_runner *r, uint32_t il, const struct block_in *in, float *dest, unsigned flags);
/* Heads that rows of Q (or K) have room for, where this device's are n_head. */
size_t attention_row_heads(const struct eng_model *m, uint32_t n_head);
/* encoder.c: up to the last norm, which is left to the rows that are asked for. */
void model_forward_encoder(struct eng_runner *r);
void attention_linear(struct eng_runner *r, uint32_t il, const struct block_in *in, float *dest, unsigned flags);
void attention_mla(struct eng_runner *r, uint32_t il, const struct block_in *in, float *dest, unsigned flags);
void ffn(struct eng_runner *r, uint32_t il, const struct block_in *in, float *dest, unsigned flags);

#endif
