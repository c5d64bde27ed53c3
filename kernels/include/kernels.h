/* The compute backends: one table of operations, implemented by `ref` (plain C, the definition of the
 * right answer), `cpu` (chosen per instruction set at run time) and the GPU plugins.
 *
 * Activations are float32, row-major, one row per token; weights are matrices in any kn_dtype; K and V
 * live in a paged pool. Pointers named out, x, q, ... are backend memory from kn_alloc(); on the host
 * backends that is ordinary memory. Operations may be asynchronous: the first failure of any of them
 * shows at kn_sync() or kn_wait(), and until the next sync(), wait() or submit() page tables that they were given stay
 * as they are (other arrays in host memory are copied). One thread drives a backend at a time; matrices may be shared
 * by backends of the same kind. Nothing here allocates after set-up except kn_alloc and kn_mat_init. */
#ifndef KERNELS_H
#define KERNELS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"

/* ---- Element types ---------------------------------------------------------------------------- */

enum kn_dtype {
	KN_F32,
	KN_F16,
	KN_BF16,
	KN_Q8_0, /* 32 values: f16 scale, int8[32]                                    (34 bytes) */
	KN_Q4_0, /* 32 values: f16 scale, 4-bit unsigned minus 8                      (18 bytes) */
	KN_Q4_1, /* 32 values: f16 scale, f16 minimum, 4-bit                          (20 bytes) */
	KN_Q5_0, /* 32 values: f16 scale, 5-bit minus 16                              (22 bytes) */
	KN_Q5_1, /* 32 values: f16 scale, f16 minimum, 5-bit                          (24 bytes) */
	KN_Q4_K, /* 256 values: f16 scale and minimum, 8 x 6-bit sub-scales, 4-bit   (144 bytes) */
	KN_Q5_K, /* 256 values: as Q4_K with a fifth bit                             (176 bytes) */
	KN_Q6_K, /* 256 values: 6-bit, 16 int8 sub-scales, f16 scale                 (210 bytes) */
	/* 4 bits of exponent (bias 7), 3 of fraction, no infinity; of K and V, not of weights. */
	KN_F8_E4M3,
	KN_N_DTYPES,

	/* Beyond those above, which every backend takes: only matrices, and only where kn_takes() says so. */
	KN_FP8_128 = 0x100, /* a byte each, e4m3; times a float32 for each 128 x 128 of them (kn_mat.scales) */
	KN_MXFP4,           /* 32 values: the exponent of a power of two plus 127, 4 bits each, e2m1 (17 bytes) */
};

struct kn_dtype_info {
	const char *name;     /* "BF16", "Q4_K" */
	uint32_t block_elems; /* values per block; rows are whole blocks */
	uint32_t block_bytes;
};

/* Never NULL for a value of the enum. */
const struct kn_dtype_info *kn_dtype_info(enum kn_dtype dtype);
/* By name, any letter case; -EINVAL names it. */
int kn_dtype_parse(const char *name, enum kn_dtype *ret_dtype, struct err *err);
/* Bytes of one row of n values; 0 when n is not a multiple of the block or the product overflows. */
size_t kn_row_bytes(enum kn_dtype dtype, size_t n);

/* n is a multiple of the block. src may be unaligned. KN_FP8_128, here and below: the values without their scales, of
 * which none is beyond 448. */
void kn_dequantize(enum kn_dtype dtype, const void *src, float *dst, size_t n);
/* Round-to-nearest quantization; the K types search scales. */
void kn_quantize(enum kn_dtype dtype, const float *src, void *dst, size_t n);

/* ---- Limits ----------------------------------------------------------------------------------- */

/* What every backend takes at least; whoever reads a model's sizes refuses more before any operation sees them. */
enum {
	KN_MAX_EXPERTS = 1024, /* that a router chooses among */
	KN_MAX_HEAD = 2048,    /* values of one K or V head, a latent and its rotated part included */
	KN_MAX_DELTA = 256,    /* k_dim and v_dim of a delta rule; v_dim is a multiple of KN_DELTA_STEP */
	KN_DELTA_STEP = 16,
	KN_MAX_CONV = 16, /* inputs that a causal convolution sees */
};

/* ---- Weights ---------------------------------------------------------------------------------- */

/* A weight matrix [rows, cols], one output feature per row: y = x W^T. */
struct kn_mat {
	enum kn_dtype dtype;
	uint32_t rows, cols;
	const void *data; /* rows * kn_row_bytes(dtype, cols), host memory, borrowed (usually mapped), any alignment */
	/* KN_FP8_128 only, borrowed until kn_mat_init() returns, any alignment: float32 [][(cols + 127) / 128]. That of
	 * row r is in line (first_row + r) / 128; first_row is below 128 and a multiple of 16: matrices may be cut out
	 * of others. */
	const void *scales;
	uint32_t first_row;
	void *packed; /* the backend's own copy, or NULL; owned through kn_mat_done() */
	size_t packed_bytes;
};

/* Host memory [data, data + bytes) that is a file's first bytes, mapped. */
struct kn_source {
	const void *data;
	size_t bytes;
	const char *path;
	uint64_t dev, ino; /* of the file that is mapped: another may have taken its name */
};

/* ---- Positions -------------------------------------------------------------------------------- */

struct kn_rope {
	const float *inv_freq; /* [n_rot / 2], backend memory */
	uint32_t n_rot;        /* dimensions rotated per head (even); the rest passes through */
	uint32_t offset;       /* first rotated dimension of a head */
	float scale;           /* multiplies sin and cos (YaRN's attention factor), else 1 */
	bool interleaved;      /* pairs (2i, 2i+1) when true, (i, i + n_rot/2) otherwise */
};

/* ---- Paged K and V of one layer ---------------------------------------------------------------- */

struct kn_kv {
	enum kn_dtype dtype; /* KN_F32, KN_F16, KN_BF16 or, but for cpu, KN_F8_E4M3 */
	uint32_t n_kv_head;
	uint32_t k_dim, v_dim; /* elements per head */
	uint32_t page_tokens;  /* tokens per page */
	void *k;               /* [n_pages][n_kv_head][page_tokens][k_dim] */
	void *v;               /* [n_pages][n_kv_head][page_tokens][v_dim]; NULL: V is the first v_dim
	                        * elements of K (multi-head latent attention) */
	/* [n_kv_head] in backend memory: K and V of a head are stored divided by them. NULL: 1. KN_F8_E4M3 only. */
	const float *k_scale, *v_scale;
};

/* One sequence's part of a batch: its n_q new tokens are rows [row, row + n_q) of q, at positions
 * [kv_len - n_q, kv_len). Token t of the sequence lives in page pages[t / page_tokens]. */
struct kn_seq {
	const uint32_t *pages; /* host memory */
	uint32_t kv_len;       /* tokens in the cache once the new ones are stored */
	uint32_t n_q;
	uint32_t row;
	uint32_t state; /* slot of its recurrent state, which no other sequence of the call has */
	/* What the state is after the first keep_after new tokens is left in slot `keep`, too; 0: nothing is kept. Only
	 * of backends with keeps_states. */
	uint32_t keep, keep_after;
};

/* A call's new rows on their way to attention. */
struct kn_qkv {
	float *q, *k; /* [n, n_head * k_dim] and [n, n_kv_head * k_dim], changed in place */
	const float *v;
	size_t ld_q, ld_k, ld_v;
	uint32_t n_head;
	const float *q_norm, *k_norm; /* [k_dim]: each head goes through an RMS norm first; NULL: it does not */
	float eps;
	const struct kn_rope *rope;
	const int32_t *pos; /* [n] in host memory */
};

struct kn_attn {
	uint32_t n_head;    /* a multiple of n_kv_head; query head h reads K/V head h / (n_head / n_kv_head) */
	float scale;        /* multiplies q . k */
	uint32_t window;    /* a query at p sees keys (p - window, p]; 0: all of [0, p] */
	float softcap;      /* s = softcap * tanh(s / softcap); 0: none */
	const float *sinks; /* [n_head] extra logits that take softmax mass and give no value; or NULL */
};

/* ---- Recurrent layers --------------------------------------------------------------------------
 * A backend without them leaves delta_rule NULL, and models that have such layers are refused.
 * Instead of K and V a sequence has a state of fixed size, in the slot that kn_seq.state names. Operations read it and
 * leave in it what it is after the call's last token. A sequence whose new tokens begin at position 0 (n_q = kv_len)
 * begins from zeros, whatever the slot holds. */

/* Each channel is the weighed sum of its last `kernel` inputs, through x * sigmoid(x). State: the last kernel - 1
 * inputs, [kernel - 1][n_channels], the oldest first. */
struct kn_conv {
	uint32_t n_channels, kernel; /* kernel from 2 to KN_MAX_CONV */
	const float *w;              /* [kernel][n_channels], that of the oldest input first */
	float *state;                /* of slot 0; the others ld_state floats apart */
	size_t ld_state;
};

/* The gated delta rule (Yang, Kautz and Hatamizadeh, 2024). A head's state S [k_dim][v_dim], with k and q of length 1:
 *
 *   S = exp(decay * softplus(a + dt_bias)) * S
 *   S = S + k (x) (sigmoid(b) * (v - k S))
 *   out = q S / sqrt(k_dim)
 *
 * x of length 1 is x / sqrt(sum of squares + eps). State head h reads K head h / (n_v_head / n_k_head). */
struct kn_delta {
	uint32_t n_k_head, n_v_head; /* n_v_head is a multiple of n_k_head */
	uint32_t k_dim, v_dim;
	const float *decay;   /* [n_v_head], negative */
	const float *dt_bias; /* [n_v_head] */
	float eps;
	float *state; /* of slot 0: [n_v_head][k_dim][v_dim]; the others ld_state floats apart */
	size_t ld_state;
};

/* ---- Feed-forward ------------------------------------------------------------------------------ */

enum kn_act {
	KN_ACT_SILU,       /* silu(g) * u */
	KN_ACT_GELU_TANH,  /* gelu_tanh(g) * u */
	KN_ACT_SWIGLU_OSS, /* gpt-oss: g <= 7, |u| <= 7; g * sigmoid(1.702 g) * (u + 1) */
	KN_ACT_GELU,       /* g * (1 + erf(g / sqrt 2)) / 2, of one matrix: there is no u */
	KN_ACT_SIGMOID,    /* sigmoid(g) * u; not of experts */
};

enum kn_route {
	KN_ROUTE_SOFTMAX,      /* softmax over all, take top k, optionally renormalize */
	KN_ROUTE_TOPK_SOFTMAX, /* take top k, softmax over those (gpt-oss) */
	KN_ROUTE_SIGMOID,      /* sigmoid; selection by score + bias within the best groups (DeepSeek-V3) */
};

struct kn_router {
	enum kn_route kind;
	uint32_t n_expert, top_k;
	uint32_t n_group, top_group; /* 0 or 1: no groups */
	bool normalize;              /* weights of the chosen sum to 1 */
	float scale;                 /* multiplies the weights */
	const float *bias;           /* [n_expert] added for selection only, or NULL */
};

struct kn_moe {
	uint32_t n_expert, n_ff;
	enum kn_act act;
	const struct kn_mat *gate, *up, *down; /* [n_expert] each: [n_ff, dim], [n_ff, dim], [dim, n_ff] */
	const float *gate_bias, *up_bias;      /* [n_expert, n_ff] or NULL */
	const float *down_bias;                /* [n_expert, dim] or NULL */
	/* Which expert the first of them is: what a token has of those before and behind them is another rank's. 0 on
	 * backends that are not ranks of a group. */
	uint32_t first_expert;
};

/* ---- Choosing tokens ---------------------------------------------------------------------------- */

enum { KN_MAX_BEST = 256 };

struct kn_best {
	float logit;
	int32_t id;
};

/* How a token is chosen from one row of logits. Zeros: it is the greatest. */
struct kn_pick {
	float inv_temp;  /* inverse temperature; 0: nothing is drawn and log_mass is not wanted */
	uint32_t top_k;  /* only so many of the best, at most KN_MAX_BEST; 0: all */
	float top_p;     /* of those, the fewest of the best that have this share of their mass; 1: all */
	float min_p;     /* of those, what is at least so many times as likely as the best; 0: all */
	double unit;     /* uniform in [0, 1) */
	bool no_log_sum; /* log_sum is not wanted: a backend may leave it 0, which saves looking at the whole row again
	                  */
};

/* What a sampler gets. max is the row's greatest logit; NaN counts as minus infinity, plus infinity as the largest
 * float. In a row without any finite logit, max is minus infinity, drawn 0, and the rest means nothing.
 *
 * An id's mass is exp((logit - max) * inv_temp). What is drawn is the first id at which the running sum of the mass of
 * those that are left is above unit times the whole of it: in the order of ids, or, with top_k or top_p, the best first
 * (equal ones by id). */
struct kn_picked {
	float max;
	float log_sum;  /* log of the sum of exp(logit) over the row */
	float log_mass; /* log of the row's whole mass */
	int32_t drawn;  /* the token; without inv_temp the first of the greatest */
	float drawn_logit;
};

static inline bool kn_pick_filters(const struct kn_pick *p)
{
	return p->inv_temp > 0 && (p->top_k > 0 || p->top_p < 1 || p->min_p > 0);
}

/* Among the ids of embed(): the token that was drawn for row i of the last pick() before it, in the order of the calls,
 * though nobody may know it yet. Only of backends that have submit(). */
#define KN_DRAWN(i) (-1 - (int32_t)(i))

/* ---- Matrix products ---------------------------------------------------------------------------- */

enum {
	KN_ACCUMULATE = 1u << 0, /* out += instead of out = */
	KN_AMONG_ROWS = 1u << 1, /* the rows of out behind these n have values of others: they are not touched */
};

struct kn_matmul {
	const struct kn_mat *w;
	float *out; /* [n, w->rows], row stride ld_out floats */
	size_t ld_out;
	const float *bias; /* [w->rows] or NULL */
	unsigned flags;
};

/* A dense feed-forward block: out = (act(x gate^T) * (x up^T)) down^T. */
struct kn_gated {
	const struct kn_mat *gate, *up, *down;        /* [n_ff, dim], [n_ff, dim], [dim, n_ff] */
	const float *gate_bias, *up_bias, *down_bias; /* or NULL */
	enum kn_act act;
	const float *norm; /* [dim]: x goes through an RMS norm first; NULL: it does not */
	float eps;
	float *gate_out, *up_out; /* [n, n_ff] for what comes between, if it has to be written down */
	unsigned flags;
};

/* ---- Copies beside the steps ---------------------------------------------------------------------- */

/* One piece of what is copied together. */
struct kn_piece {
	void *device; /* within an allocation that holds no activations: K and V */
	void *host;   /* in memory of host_alloc(); KN_FROM_PEER: in such an allocation of the other backend */
	size_t bytes;
};

enum kn_way { KN_TO_HOST, KN_TO_DEVICE, KN_FROM_PEER };

/* ---- The table ----------------------------------------------------------------------------------
 * Shapes: n rows (tokens). `ld_*` are row strides in floats. out never aliases an input unless said. */

struct kn_backend;

enum { KN_MAX_AHEAD = 2 };

struct kn_ops {
	const char *name; /* "ref", "cpu", "cuda", "hip" */

	void (*close)(struct kn_backend *be);
	int (*sync)(struct kn_backend *be);
	/* Backends that compute by themselves have all of these, others none: there every operation is done when it
	 * returns. submit() starts what was asked for so far and returns at once. wait() waits for the oldest submit()
	 * that was not waited for, sync() for all; at most KN_MAX_AHEAD of them are under way, one more is a sync()
	 * first. busy_ns(): how long the device has computed for what was waited for so far. */
	void (*submit)(struct kn_backend *be);
	int (*wait)(struct kn_backend *be);
	uint64_t (*busy_ns)(struct kn_backend *be);
	void *(*alloc)(struct kn_backend *be, size_t bytes); /* 64-byte aligned; NULL when there is none */
	void (*free)(struct kn_backend *be, void *p);
	/* What is in these bytes of an allocation is of no use any more: the memory behind them may be given back until
	 * they are written again; meanwhile they read as anything. NULL: there is no such thing here. */
	void (*discard)(struct kn_backend *be, void *p, size_t bytes);
	void (*upload)(struct kn_backend *be, void *dst, const void *host, size_t bytes);
	void (*download)(struct kn_backend *be, void *host, const void *src, size_t bytes);
	/* Both in backend memory, not overlapping; in order with the other operations. */
	void (*copy)(struct kn_backend *be, void *dst, const void *src, size_t bytes);
	/* Bytes left of the memory that alloc and mat_init take from. NULL: that is the host's own memory, whose
	 * pointers the caller may follow. */
	uint64_t (*free_bytes)(struct kn_backend *be);

	/* Prepares m (dtype, rows, cols, data set by the caller) for use here; may pack a copy. */
	int (*mat_init)(struct kn_backend *be, struct kn_mat *m);
	void (*mat_done)(struct kn_backend *be, struct kn_mat *m);
	/* What mat_init() is given that lies there may be read from the file, while and after it returns, until all
	 * files are withdrawn by NULL: then everything has been read. -EIO and others: something could not be, or the
	 * file cannot be used, and its bytes come from memory. NULL: memory is as good. */
	int (*source)(struct kn_backend *be, const struct kn_source *source);

	/* out[i] = scale * row ids[i] of m, as float. ids in host memory, each < m->rows, or KN_DRAWN(). */
	void (*embed)(struct kn_backend *be, float *out, size_t ld_out, const struct kn_mat *m, const int32_t *ids,
	              size_t n, float scale);

	/* out[i, h] = x[i, h] / sqrt(mean(x[i, h]^2) + eps) * w, over n rows of n_head groups of `dim`
	 * values. w [dim] or NULL for ones. out may be x. */
	void (*rmsnorm)(struct kn_backend *be, float *out, size_t ld_out, const float *x, size_t ld_x, const float *w,
	                size_t n, size_t n_head, size_t dim, float eps);

	/* out[i] = (x[i] - mean(x[i])) / sqrt(variance(x[i]) + eps) * w + b over n rows of `dim` values; w, b [dim].
	 * out may be x. */
	void (*layernorm)(struct kn_backend *be, float *out, size_t ld_out, const float *x, size_t ld_x, const float *w,
	                  const float *b, size_t n, size_t dim, float eps);

	/* Several matrices applied to the same x [n, cols]. */
	void (*matmul)(struct kn_backend *be, const struct kn_matmul *jobs, size_t n_jobs, const float *x, size_t ld_x,
	               size_t n);

	/* rmsnorm of x [n, cols] with weights norm, and matmul of that. NULL: there is no faster way than by those. */
	void (*norm_matmul)(struct kn_backend *be, const struct kn_matmul *jobs, size_t n_jobs, const float *x,
	                    size_t ld_x, size_t n, const float *norm, float eps);

	/* Rotates x [n, n_head, head_dim] in place. pos [n] in host memory. */
	void (*rope)(struct kn_backend *be, float *x, size_t ld_x, size_t n, size_t n_head, size_t head_dim,
	             const struct kn_rope *rope, const int32_t *pos);

	/* Stores the batch's new k [n, n_kv_head * k_dim] and v [n, n_kv_head * v_dim] (v NULL when kv->v is)
	 * at their positions. */
	void (*kv_store)(struct kn_backend *be, const struct kn_kv *kv, const float *k, size_t ld_k, const float *v,
	                 size_t ld_v, const struct kn_seq *seqs, size_t n_seqs);

	/* rmsnorm by heads, rope and kv_store of n rows, those of seqs, which follow each other without gaps. NULL:
	 * there is no faster way than by those. */
	void (*qkv_store)(struct kn_backend *be, const struct kn_qkv *qkv, const struct kn_kv *kv,
	                  const struct kn_seq *seqs, size_t n_seqs, size_t n);

	/* Causal attention over the cache, the new tokens included: out [n, n_head * v_dim],
	 * q [n, n_head * k_dim]. */
	void (*attention)(struct kn_backend *be, float *out, size_t ld_out, const float *q, size_t ld_q,
	                  const struct kn_kv *kv, const struct kn_seq *seqs, size_t n_seqs, const struct kn_attn *attn);

	/* out [n, n_channels] from x [n, n_channels]. out is not x. */
	void (*conv_silu)(struct kn_backend *be, float *out, size_t ld_out, const float *x, size_t ld_x,
	                  const struct kn_conv *conv, const struct kn_seq *seqs, size_t n_seqs);

	/* out [n, n_v_head * v_dim] from rows qkv [n] of q [n_k_head * k_dim], k [n_k_head * k_dim] and
	 * v [n_v_head * v_dim], and rows ba [n] of b [n_v_head] and a [n_v_head]. qkv and ba may be written over. The
	 * sequences' rows follow each other without gaps.
	 * The new tokens in one call or in several, in any pieces: the same but for rounding. */
	void (*delta_rule)(struct kn_backend *be, float *out, size_t ld_out, float *qkv, size_t ld_qkv, float *ba,
	                   size_t ld_ba, const struct kn_delta *delta, const struct kn_seq *seqs, size_t n_seqs);

	/* As rmsnorm with w, times gate * sigmoid(gate); gate [n, n_head * dim]. out may be x or gate. */
	void (*gated_rmsnorm)(struct kn_backend *be, float *out, size_t ld_out, const float *x, size_t ld_x,
	                      const float *gate, size_t ld_gate, const float *w, size_t n, size_t n_head, size_t dim,
	                      float eps);

	/* x[i] *= sigmoid(gate[i]) over n rows of `dim` values; gate [n]. */
	void (*gate_rows)(struct kn_backend *be, float *x, size_t ld_x, const float *gate, size_t n, size_t dim);

	/* out = act(gate) * up, all [n, dim]. out may be gate or up. up is NULL for an act without one. */
	void (*act_mul)(struct kn_backend *be, enum kn_act act, float *out, size_t ld_out, const float *gate,
	                size_t ld_gate, const float *up, size_t ld_up, size_t n, size_t dim);

	/* out [n, dim] from x [n, dim]. NULL: there is no faster way than by matmul, act_mul and matmul. */
	void (*gated)(struct kn_backend *be, const struct kn_gated *g, float *out, size_t ld_out, const float *x,
	              size_t ld_x, size_t n);

	/* x += scale * y, both [n, dim]. */
	void (*add)(struct kn_backend *be, float *x, size_t ld_x, const float *y, size_t ld_y, size_t n, size_t dim,
	            float scale);

	/* ids [n, top_k] and weights [n, top_k] from router logits [n, n_expert]; ties go to the lowest
	 * index. All in backend memory. */
	void (*route)(struct kn_backend *be, const struct kn_router *router, const float *logits, size_t n,
	              int32_t *ret_ids, float *ret_weights);

	/* out [n, dim] += sum over k of weights[i, k] * expert_{ids[i, k]}(x[i]); x [n, dim]. */
	void (*moe)(struct kn_backend *be, const struct kn_moe *moe, float *out, size_t ld_out, const float *x,
	            size_t ld_x, size_t n, size_t dim, uint32_t top_k, const int32_t *ids, const float *weights);

	/* What samplers need of n rows of logits, so that the rows stay where they are: the n_best <= KN_MAX_BEST best
	 * of each, best first, equal ones by id (entries beyond the finite ones have id -1), and ret[i] for picks[i].
	 * softcap: a logit x counts as softcap * tanh(x / softcap); 0: as it is. All but the logits is host memory;
	 * results are there after the sync() or wait() for them. NULL: the rows have to be downloaded. */
	void (*pick)(struct kn_backend *be, const float *logits, size_t ld, size_t n, size_t n_vocab, float softcap,
	             const struct kn_pick *picks, uint32_t n_best, struct kn_best *ret_best, struct kn_picked *ret);

	/* Whether mat_init takes matrices of a type beyond KN_N_DTYPES. NULL: of none. */
	bool (*takes)(const struct kn_backend *be, enum kn_dtype dtype);

	/* Copies that go on beside the operations; backends whose memory is not the host's have all of these or none.
	 *
	 * host_alloc(): host memory that copies go from and to without help, NULL: there is none; any thread may call
	 * it and host_free(). copy_begin() begins one, and *ret_ticket names it. It waits for no operation: those that
	 * wrote what KN_TO_HOST reads were waited for, and none that is under way writes what KN_TO_DEVICE writes, or
	 * reads it for a result that counts. -EBUSY: too many are under way. Copies one way end in the order of their
	 * beginnings. No operation may write what is read, nor touch what is written, before copy_poll() gives 1 (0: it
	 * is under way) or copy_wait() returns; but operations asked for after copy_fence(), and copies KN_TO_DEVICE
	 * begun after copy_follow(), go behind that copy. A failure shows in both. */
	void *(*host_alloc)(struct kn_backend *be, size_t bytes);
	void (*host_free)(struct kn_backend *be, void *p);
	int (*copy_begin)(struct kn_backend *be, enum kn_way way, const struct kn_piece *pieces, size_t n_pieces,
	                  uint64_t *ret_ticket);
	int (*copy_poll)(struct kn_backend *be, uint64_t ticket);
	int (*copy_wait)(struct kn_backend *be, uint64_t ticket);
	int (*copy_fence)(struct kn_backend *be, uint64_t ticket);
	int (*copy_follow)(struct kn_backend *be, uint64_t ticket);
	/* Before the first copy KN_FROM_PEER: the backend that those come from, of the same kind on another device; it
	 * stays open, and is not driven by them. They wait for no operation: the other's that wrote what is read were
	 * waited for, and none of this one's that is under way writes what is written, or reads it for a result that
	 * counts. 1: from device to device; 0: by way of host memory. */
	int (*copy_from)(struct kn_backend *be, struct kn_backend *other);

	/* x = 0, [n, dim]. NULL: not there, as are the next two; backends of a group have all of them. */
	void (*clear)(struct kn_backend *be, float *x, size_t ld_x, size_t n, size_t dim);

	/* Between the ranks of a group (kn_backend.ranks). Each asks for the same in the same order, for as many rows,
	 * in memory of its own; each has its own thread, since a rank may wait for the others. A rank that fails takes
	 * the others along: all of them report it, none waits for ever, and the group is of no more use.
	 *
	 * x = the sum of all ranks' x, added in the order of the ranks: the same bits on each. [n, dim]. */
	void (*all_reduce)(struct kn_backend *be, float *x, size_t ld_x, size_t n, size_t dim);
	/* Columns [i * width, (i + 1) * width) of x [n, total] are those of rank i; the last ones may be fewer. */
	void (*all_gather)(struct kn_backend *be, float *x, size_t ld_x, size_t n, size_t width, size_t total);
};

struct kn_backend {
	const struct kn_ops *ops;
	/* Devices that compute one model together, each its share of it: [n_ranks], this one is ranks[rank]. They are
	 * opened and closed as one, by way of the first. n_ranks 0: it is alone. */
	struct kn_backend *const *ranks;
	uint32_t n_ranks, rank;
	bool by_expert; /* kn_config.by_expert */
	/* In deterministic mode a backend may compute rows of prompts, which come in hundreds, by other kernels than
	 * rows of answers, which come one by one, if each kind always takes the same: then a row's bits depend on what
	 * it is and not on how many there are. Such a backend sets tells_prompts, and who drives it says before each
	 * call that rows [0, n_answer_rows) of it are answers' and those behind them prompts'; UINT32_MAX, as it is
	 * opened with: all are. */
	bool tells_prompts;
	uint32_t n_answer_rows;
	bool keeps_states; /* its operations on recurrent states heed kn_seq.keep_after */
	char device[64];   /* what it computes on, as far as that decides how fast it is; "": not known */
};

/* Rows of a product from which on a GPU backend computes it in another way; 0: as was measured best. */
struct kn_gpu_rows {
	uint32_t eight_bits; /* FP8 weights, the rows being made eight bits */
	uint32_t widened;    /* weights that are written out in bfloat16 first */
	uint32_t biased;     /* with a bias, which is put into the output first */
	/* From so many rows on kernels of our own instead of the library's, where there are any (Hopper): FP8 weights,
	 * rows in eight bits; bfloat16, up to 128 rows. UINT32_MAX: never */
	uint32_t own;
};

struct kn_config {
	unsigned n_threads;  /* 0: one per usable core; ref uses one */
	uint32_t max_tokens; /* most rows in one call; sizes scratch */
	bool exact;          /* cpu: where the fastest level would round activations to the type of 16-bit weights,
	                      * take the one that keeps them float32; without effect when isa is named */
	/* A row's result must be the same bits whatever else is in the call: the number of rows, sequences and new
	 * tokens, where a row stands among them, which pages hold its keys, and the number of threads. Kernels that
	 * choose a path by any of these (tiles, splits, shared prefixes), or by a measurement, take one fixed path
	 * when this is set, or one for prompts and one for answers (kn_backend.tells_prompts), and may do as is
	 * fastest otherwise. Tested by tests/unit/engine/test_deterministic.c. */
	bool deterministic;
	const char *isa;             /* cpu: NULL for the best, or "scalar", "avx2", "avx512" (tests, comparison) */
	struct kn_gpu_rows gpu_rows; /* gpu: for tests and benchmarks */
	/* cuda, hip: the devices to compute on, by the driver's numbers: several become the ranks of a group. 0: the
	 * first one. */
	const uint32_t *devices;
	uint32_t n_devices;
	bool by_expert; /* of a group: each expert is one rank's, instead of a part of it every rank's */
};
enum { KN_MAX_RANKS = 16 };

/* kind: "ref", "cpu", "cuda", "hip". With the reason: -ENOTSUP, -ENODEV when this machine cannot, -ENOENT when the
 * plugin that it takes is not installed, -ELIBACC when that cannot be loaded. */
int kn_backend_open(const char *kind, const struct kn_config *config, struct kn_backend **ret_backend, struct err *err);

/* Names of the ISA levels of the cpu backend that this machine can run, best first, NULL-ended. */
const char *const *kn_cpu_isas(void);

/* The function that each host backend is opened by (kernels/ref, kernels/cpu). */
int kn_ref_open(const struct kn_config *config, struct kn_backend **ret_backend, struct err *err);
int kn_cpu_open(const struct kn_config *config, struct kn_backend **ret_backend, struct err *err);

/* Its memory is ordinary memory: what it computed is read where it is. */
static inline bool kn_is_on_host(const struct kn_backend *be)
{
	return !be->ops->free_bytes;
}

/* Whether matrices of this type may be given to it. */
static inline bool kn_takes(const struct kn_backend *be, enum kn_dtype dtype)
{
	return dtype < KN_N_DTYPES || (dtype > KN_N_DTYPES && be->ops->takes && be->ops->takes(be, dtype));
}

static inline void kn_backend_close(struct kn_backend *be)
{
	if (be)
		be->ops->close(be);
}

#endif
