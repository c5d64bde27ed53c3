/* The table's operations of layers with a state; see record.c. */
#include <errno.h>

#include "gpu/backend.h"

static void rec_conv_silu(struct kn_backend *base, float *out, size_t ld_out, const float *x, size_t ld_x,
                          const struct kn_conv *conv, const struct kn_seq *seqs, size_t n_seqs)
{
	struct gpu_backend *be = gpu_of(base);
	struct rec_conv *r = gpu_record_batch(be, OP_CONV, sizeof(*r), seqs, n_seqs);

	if (!r)
		return;
	r->out = gpu_record_act(be, out, ld_out, conv->n_channels, r->h.rows, "conv_silu");
	r->x = gpu_record_act(be, x, ld_x, conv->n_channels, r->h.rows, "conv_silu");
	r->n_channels = conv->n_channels;
	r->kernel = conv->kernel;
	r->w = conv->w;
	r->state = conv->state;
	r->ld_state = conv->ld_state;
}

static void rec_delta_rule(struct kn_backend *base, float *out, size_t ld_out, float *qkv, size_t ld_qkv, float *ba,
                           size_t ld_ba, const struct kn_delta *delta, const struct kn_seq *seqs, size_t n_seqs)
{
	size_t n_v = (size_t)delta->n_v_head * delta->v_dim, n_k = (size_t)delta->n_k_head * delta->k_dim;
	struct gpu_backend *be = gpu_of(base);
	struct rec_delta *r = gpu_record_batch(be, OP_DELTA, sizeof(*r), seqs, n_seqs);

	if (!r)
		return;
	r->out = gpu_record_act(be, out, ld_out, n_v, r->h.rows, "delta_rule");
	r->qkv = gpu_record_act(be, qkv, ld_qkv, 2 * n_k + n_v, r->h.rows, "delta_rule");
	r->ba = gpu_record_act(be, ba, ld_ba, (size_t)2 * delta->n_v_head, r->h.rows, "delta_rule");
	r->n_k_head = delta->n_k_head;
	r->n_v_head = delta->n_v_head;
	r->k_dim = delta->k_dim;
	r->v_dim = delta->v_dim;
	r->decay = delta->decay;
	r->dt_bias = delta->dt_bias;
	r->eps = delta->eps;
	r->state = delta->state;
	r->ld_state = delta->ld_state;
}

static void rec_gated_rmsnorm(struct kn_backend *base, float *out, size_t ld_out, const float *x, size_t ld_x,
                              const float *gate, size_t ld_gate, const float *w, size_t n, size_t n_head, size_t dim,
                              float eps)
{
	struct gpu_backend *be = gpu_of(base);
	struct rec_gated_norm *r = gpu_record_rows(be, OP_GATED_NORM, sizeof(*r), n);

	if (!r)
		return;
	r->out = gpu_record_act(be, out, ld_out, n_head * dim, r->h.rows, "gated_rmsnorm");
	r->x = gpu_record_act(be, x, ld_x, n_head * dim, r->h.rows, "gated_rmsnorm");
	r->gate = gpu_record_act(be, gate, ld_gate, n_head * dim, r->h.rows, "gated_rmsnorm");
	r->w = w;
	r->n_head = (uint32_t)n_head;
	r->dim = (uint32_t)dim;
	r->eps = eps;
}

static void rec_gate_rows(struct kn_backend *base, float *x, size_t ld_x, const float *gate, size_t n, size_t dim)
{
	struct gpu_backend *be = gpu_of(base);
	struct rec_gate_rows *r = gpu_record_rows(be, OP_GATE_ROWS, sizeof(*r), n);

	if (!r)
		return;
	r->x = gpu_record_act(be, x, ld_x, dim, r->h.rows, "gate_rows");
	r->gate = gpu_record_act(be, gate, 1, 1, r->h.rows, "gate_rows");
	r->dim = dim;
}

void gpu_record_recurrent_ops(struct kn_ops *ops)
{
	ops->conv_silu = rec_conv_silu;
	ops->delta_rule = rec_delta_rule;
	ops->gated_rmsnorm = rec_gated_rmsnorm;
	ops->gate_rows = rec_gate_rows;
}
