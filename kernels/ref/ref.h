/* The reference operations, for other host backends to fall back on: the cpu backend copies ref's table
 * and replaces what it has faster code for. Every function here keeps no state in the backend and
 * allocates nothing; ref_moe_scratch() and ref_pick_scratch() take their scratch from the caller. */
#ifndef KERNELS_REF_H
#define KERNELS_REF_H

#include "kernels.h"

enum {
	REF_CHUNK = 256, /* values dequantized at a time; a multiple of every block */
};

/* Ordinary memory, for the table's alloc, free, upload, download. */
void *ref_alloc(struct kn_backend *be, size_t bytes);
void ref_free(struct kn_backend *be, void *p);
void ref_upload(struct kn_backend *be, void *dst, const void *host, size_t bytes);
void ref_download(struct kn_backend *be, void *host, const void *src, size_t bytes);

/* -EINVAL when rows of this type cannot have m->cols values. Packs nothing. */
int ref_mat_init(struct kn_backend *be, struct kn_mat *m);
void ref_mat_done(struct kn_backend *be, struct kn_mat *m);

void ref_embed(struct kn_backend *be, float *out, size_t ld_out, const struct kn_mat *m, const int32_t *ids, size_t n,
               float scale);
void ref_layernorm(struct kn_backend *be, float *out, size_t ld_out, const float *x, size_t ld_x, const float *w,
                   const float *b, size_t n, size_t dim, float eps);
void ref_rmsnorm(struct kn_backend *be, float *out, size_t ld_out, const float *x, size_t ld_x, const float *w,
                 size_t n, size_t n_head, size_t dim, float eps);
void ref_matmul(struct kn_backend *be, const struct kn_matmul *jobs, size_t n_jobs, const float *x, size_t ld_x,
                size_t n);
void ref_rope(struct kn_backend *be, float *x, size_t ld_x, size_t n, size_t n_head, size_t head_dim,
              const struct kn_rope *rope, const int32_t *pos);
void ref_kv_store(struct kn_backend *be, const struct kn_kv *kv, const float *k, size_t ld_k, const float *v,
                  size_t ld_v, const struct kn_seq *seqs, size_t n_seqs);
void ref_attention(struct kn_backend *be, float *out, size_t ld_out, const float *q, size_t ld_q,
                   const struct kn_kv *kv, const struct kn_seq *seqs, size_t n_seqs, const struct kn_attn *attn);
void ref_act_mul(struct kn_backend *be, enum kn_act act, float *out, size_t ld_out, const float *gate, size_t ld_gate,
                 const float *up, size_t ld_up, size_t n, size_t dim);
void ref_add(struct kn_backend *be, float *x, size_t ld_x, const float *y, size_t ld_y, size_t n, size_t dim,
             float scale);
void ref_copy(struct kn_backend *be, void *dst, const void *src, size_t bytes);
void ref_conv_silu(struct kn_backend *be, float *out, size_t ld_out, const float *x, size_t ld_x,
                   const struct kn_conv *conv, const struct kn_seq *seqs, size_t n_seqs);
void ref_delta_rule(struct kn_backend *be, float *out, size_t ld_out, float *qkv, size_t ld_qkv, float *ba,
                    size_t ld_ba, const struct kn_delta *delta, const struct kn_seq *seqs, size_t n_seqs);
void ref_gated_rmsnorm(struct kn_backend *be, float *out, size_t ld_out, const float *x, size_t ld_x, const float *gate,
                       size_t ld_gate, const float *w, size_t n, size_t n_head, size_t dim, float eps);
void ref_gate_rows(struct kn_backend *be, float *x, size_t ld_x, const float *gate, size_t n, size_t dim);
void ref_route(struct kn_backend *be, const struct kn_router *router, const float *logits, size_t n, int32_t *ret_ids,
               float *ret_weights);
/* scratch: 2 * moe->n_ff + dim floats. */
void ref_moe_scratch(struct kn_backend *be, const struct kn_moe *moe, float *out, size_t ld_out, const float *x,
                     size_t ld_x, size_t n, size_t dim, uint32_t top_k, const int32_t *ids, const float *weights,
                     float *scratch);

/* Of qsort(), for struct kn_best: the greater logit first, equal ones by id. */
int ref_by_rank(const void *a, const void *b);
/* Draws of a row whose max *ret has. scratch: room for n_vocab of them. */
void ref_draw(const float *row, size_t n_vocab, float softcap, const struct kn_pick *pick, struct kn_best *scratch,
              struct kn_picked *ret);
/* The same among the row's best, which may be put in another order; the row's whole mass is `mass`. False: they are too
 * few to tell. */
bool ref_draw_listed(struct kn_best *best, size_t n_best, double mass, const struct kn_pick *pick,
                     struct kn_picked *ret);
void ref_pick_scratch(const float *logits, size_t ld, size_t n, size_t n_vocab, float softcap,
                      const struct kn_pick *picks, uint32_t n_best, struct kn_best *ret_best, struct kn_picked *ret,
                      struct kn_best *scratch);

/* Where head `head` of token `t` of a sequence lives in a K (dim = k_dim) or V (dim = v_dim) pool. */
void *ref_kv_at(const struct kn_kv *kv, void *pool, uint32_t dim, const uint32_t *pages, uint32_t t, uint32_t head);

#endif
