/* Launchers: what the host side of a GPU backend may ask of the device. Plain structs of plain numbers.
 *
 * Every launcher puts its kernels on ctx->stream and returns: it allocates nothing, never waits, asks the driver
 * nothing and is safe while the stream is captured into a graph. Structs and host arrays are borrowed for the call.
 * Pointers are device memory unless a comment says host. 0, or -ENOTSUP: nothing was put on the stream and the caller
 * takes another way, -EINVAL: arguments that no kernel takes, -EIO: the launch failed (gk_error_text() says how).
 *
 * A captured graph is replayed for other steps of the same bucket. So what differs from step to step is read from
 * device memory (struct gk_batch, gk_rows.n, token ids, positions), and what a launcher decides by on the host (grid
 * sizes, which kernel) are bounds that all steps of a bucket share. Blocks beyond the actual numbers return at once,
 * and rows beyond them may be computed from garbage but touch nothing but rows of the same numbers: callers provide
 * memory for `bound` rows everywhere.
 *
 * ctx->fixed: a row's result is the same bits whatever else is in the call (kn_config.deterministic): one order of sums
 * for every number of rows, splits at fixed places. Rows of prompts and rows of answers have kernels of their own. */
#ifndef GPU_LAUNCH_H
#define GPU_LAUNCH_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#include "kernels.h"

enum {
	GK_FEW_ROWS = 16,     /* up to here weights are streamed once and products are bound by memory */
	GK_MAX_JOBS = 4,      /* matrices of one gk_linear */
	GK_WORK_TOKENS = 16,  /* most new tokens of one item of gk_work in the list `few` */
	GK_TILE_TOKENS = 64,  /* new tokens of one item of the list `many` */
	GK_FIXED_PART = 1024, /* ctx->fixed: keys of one part of a sequence in the list `few` */
	GK_COUNTERS = 16384,
};

/* ---- Where ---------------------------------------------------------------------------------------- */

/* Filled by gk_ctx_init() but for the stream and the scratch. */
struct gk_ctx {
	void *stream; /* cudaStream_t, hipStream_t; NULL on the host shim */
	uint32_t sm;  /* CUDA: 90 for compute capability 9.0; AMD: the number of gfx942 as hexadecimal 0x942; shim: 0 */
	uint32_t n_sm, warp;
	uint32_t smem_bytes; /* that a block may have when asked for */
	bool fixed;
	bool bytes;           /* one row meets Q4_0, Q4_K and Q8_0 by dot products of bytes (few8.h); not if fixed */
	uint32_t shape;       /* enum gk_shape of attention of few rows, for measurements */
	bool overlap;         /* kernels may start before the one before them has ended (programmatic launch) */
	uint32_t *counters;   /* [GK_COUNTERS], zeros; a kernel that counts leaves zeros. NULL: none */
	void *scratch;        /* for one launcher's call at a time, 256-byte aligned */
	size_t scratch_bytes; /* at least gk_scratch_bytes() */
};

/* Once per device, before any capture: fills what the device says, raises limits of shared memory per kernel. */
int gk_ctx_init(struct gk_ctx *ctx, int device);
const char *gk_error_text(void); /* of the last -EIO of this thread */

/* What sizes the scratch. */
struct gk_limits {
	uint32_t max_rows, max_seqs;
	uint32_t n_head, k_dim, v_dim; /* largest of attention; 0: no attention */
	uint32_t n_kv_head;
	uint32_t max_parts;                        /* places that a plan asks for (gk_plan.n_parts); ctx->fixed only */
	uint32_t dim, n_ff, n_expert, top_k;       /* largest of a mixture; 0: none */
	uint32_t max_cols, max_out;                /* of matrices */
	uint32_t pick_rows, pick_vocab, pick_best; /* largest of gk_pick_rows() */
};
size_t gk_scratch_bytes(const struct gk_ctx *ctx, const struct gk_limits *limits);

/* ---- Activations ------------------------------------------------------------------------------------ */

enum gk_elem { GK_F32, GK_BF16, GK_F16 };

/* A row-major matrix: row i begins ld elements after row i - 1. Only element alignment is promised; kernels look at
 * p and ld (the same for all steps of a bucket) before they read 16 bytes at a time. */
struct gk_view {
	void *p;       /* NULL: not there */
	uint32_t elem; /* enum gk_elem */
	uint32_t ld;
};

/* Rows of a call. */
struct gk_rows {
	uint32_t bound;    /* grid size; memory is there for so many */
	const uint32_t *n; /* the actual number, <= bound; NULL: bound */
};

/* ---- Weights ------------------------------------------------------------------------------------------ */

/* A matrix [rows, cols] as it lies on the device. `values` and `scales` apart, laid out by gk_mat_pack() as the kernels
 * like it; F32, F16 and BF16: values row-major, row stride ld, nothing else (so that cuBLASLt can read it). */
struct gk_mat {
	uint32_t type; /* enum kn_dtype */
	uint32_t rows, cols;
	uint32_t ld;                        /* elements; a multiple of 8 for 16-bit types, of 4 for F32 */
	const void *values, *scales, *high; /* the last two by type: kernels/gpu/mat.h */
	uint32_t first_row, reserved;       /* FP8: as kn_mat.first_row */
};
enum { GK_FP8_128 = KN_FP8_128 };

/* Device bytes of the packed form, 256-byte aligned; 0: not taken (rows that are no whole blocks). */
size_t gk_mat_bytes(uint32_t type, uint32_t rows, uint32_t cols);
/* Fills *mat for the packed form at `packed` (device memory of gk_mat_bytes(), which it borrows). Launches nothing. */
/* first_row is left 0 for the caller to set. */
int gk_mat_describe(struct gk_mat *mat, uint32_t type, uint32_t rows, uint32_t cols, void *packed);
/* Repacks rows [row, row + n) from `raw`: n * kn_row_bytes() bytes of the file as they were, device memory, 16-byte
 * aligned. row is a multiple of GK_PACK_ROWS, n too unless it reaches the last row. The caller's copy of a large matrix
 * arrives in pieces. */
enum { GK_PACK_ROWS = 128 };
int gk_mat_pack(const struct gk_ctx *ctx, const struct gk_mat *mat, const void *raw, uint32_t row, uint32_t n);

/* FP8: lines of scales, one for each 128 rows, and floats from one to the next. They may be moved (mat->scales), so
 * that both the values and the scales of matrices that follow each other are those of one; the rest is
 * gk_mat_value_bytes(). A line beyond the last may be read. */
uint32_t gk_mat_scale_lines(const struct gk_mat *mat);
uint32_t gk_mat_scale_stride(const struct gk_mat *mat);
size_t gk_mat_value_bytes(uint32_t type, uint32_t rows, uint32_t cols);

/* dst [rows, ld] bfloat16 = the matrix, rounded; for a library's product of many rows. ld is at least cols and a
 * multiple of 8 (FP8: of 64), dst 16-byte aligned; what lies between cols and ld is zeros or not written. Not F32. */
int gk_mat_widen(const struct gk_ctx *ctx, const struct gk_mat *mat, void *dst, uint32_t ld);

/* ---- Products ------------------------------------------------------------------------------------------- */

struct gk_job {
	struct gk_mat w;
	struct gk_view out;
	const float *bias; /* [w.rows] or NULL */
	bool accumulate;   /* out += */
};

/* out_j[i] = x'[i] W_j^T + bias_j, x' = x or RMSNorm(x) * norm_w. All W_j have the same cols (and types as they come).
 */
struct gk_linear {
	struct gk_view x;
	struct gk_rows rows;
	bool norm;           /* over all of w.cols */
	const float *norm_w; /* NULL: ones */
	float eps;
	bool gated;   /* two jobs of the same rows: only jobs[0].out is written, act(y_0) * y_1 */
	uint32_t act; /* enum kn_act */
	uint32_t n_jobs;
	const struct gk_job *jobs; /* host, <= GK_MAX_JOBS */
};
/* rows.bound <= GK_FEW_ROWS. x is multiplied in two bfloat16 parts (16 bits of it) up to 4 rows unless ctx->fixed, else
 * rounded to bfloat16; with F32 matrices as it is. Bound by memory: one pass over the weights; with ctx->overlap,
 * the first of them are asked for before the kernel waits for its predecessor. */
int gk_linear_few(const struct gk_ctx *ctx, const struct gk_linear *l);
/* Any number of rows, by tiles on matrix units; x bf16 unless `exact`: then float32 arithmetic on float32 x.
 * With norm: -ENOTSUP, the caller norms before. */
int gk_linear_many(const struct gk_ctx *ctx, const struct gk_linear *l, bool exact);

/* ctx->fixed only: any number of rows, x rounded to bfloat16, without a norm; a row's results are the same bits for any
 * number of rows, those of gk_linear_few() (not those of gk_linear_many()). */
int gk_linear_steady(const struct gk_ctx *ctx, const struct gk_linear *l);

/* n_mats products of one shape: out + i * out_step = (x + i * x_step) W_i^T; steps in elements, 0 allowed for x. Any
 * rows. */
struct gk_linear_batch {
	struct gk_view x, out;
	size_t x_step, out_step;
	struct gk_rows rows;
	uint32_t n_mats;
	uint32_t type, mat_rows, mat_cols; /* of all of them */
	const struct gk_mat *mats;         /* device, [n_mats] */
	bool accumulate;
};
int gk_linear_batch(const struct gk_ctx *ctx, const struct gk_linear_batch *l, bool exact);

/* FP8: q [rows, ld] e4m3 = x', zeros from column dim on; scale[(k / 128) * ld_scale + row] is the greatest magnitude of
 * 128 columns of x' over 448. x' = x, act(x) * up or RMSNorm(x) * norm_w. */
struct gk_quantize {
	void *q;     /* 16-byte aligned */
	uint32_t ld; /* a multiple of 64, at least dim */
	uint32_t ld_scale;
	float *scale;
	struct gk_view x;
	struct gk_rows rows;
	uint32_t dim;
	bool is_act, norm; /* at most one */
	uint32_t act;      /* enum kn_act */
	struct gk_view up; /* p NULL for an act without one */
	const float *norm_w;
	float eps;
};
int gk_quantize_rows(const struct gk_ctx *ctx, const struct gk_quantize *a);

/* out (+)= x W_0^T in bfloat16 or float32, of weights in bfloat16 and rows likewise, or FP8 (first_row 0) and rows as
 * gk_quantize_rows() makes them. gated: silu(x W_0^T) * (x W_1^T), in bfloat16 into out, or, of FP8, as
 * gk_quantize_rows() would write it into q. Of 128 columns of FP8 matrix units keep some 14 bits of a sum, what lies
 * beyond is float32. -ENOTSUP: no compute capability 9.0, views whose rows are not at multiples of 16 bytes, another
 * activation. */
struct gk_product {
	const void *x;        /* 16-byte aligned */
	const float *x_scale; /* FP8 */
	uint32_t ld_x;        /* elements, 16 bytes' worth */
	uint32_t ld_scale;    /* a multiple of 4 */
	struct gk_rows rows;
	uint32_t n; /* rows of W, a multiple of 16; more than W_0 has where others lie behind it, their scales too */
	struct gk_mat w[2];
	struct gk_view out;
	bool accumulate;
	bool gated;
	uint32_t act; /* enum kn_act */
	void *q;      /* 16-byte aligned */
	float *q_scale;
	uint32_t ld_q, ld_q_scale; /* as of gk_quantize */
	/* For measurements; zeros: as is thought best. */
	struct {
		uint32_t columns; /* of a tile: 128 or 256 */
		uint32_t parts;   /* of a sum, in as many blocks: 1, 2, and 3 in float32 */
	} tiles;
};
int gk_product_hopper(const struct gk_ctx *ctx, const struct gk_product *l);

/* ---- Row by row --------------------------------------------------------------------------------------------- */

/* out[i] = scale * row ids[i] of m; ids device memory. KN_DRAWN(k): of row picked[k].drawn, device memory. */
int gk_embed(const struct gk_ctx *ctx, struct gk_view out, const struct gk_mat *m, const int32_t *ids,
             const struct kn_picked *picked, struct gk_rows rows, float scale);

/* As kn_ops.rmsnorm. src: [rows] row of x that output row i is made from, or NULL: i. out may be x (then src is NULL).
 */
struct gk_norm {
	struct gk_view out, x;
	const int32_t *src;
	const float *w, *b; /* b: layernorm only */
	struct gk_rows rows;
	uint32_t n_head, dim;
	float eps;
	struct gk_view add; /* p not NULL (src NULL, n_head 1): x += scale * add is written back first, then normed */
	float add_scale;
};
int gk_rmsnorm(const struct gk_ctx *ctx, const struct gk_norm *n);
int gk_layernorm(const struct gk_ctx *ctx, const struct gk_norm *n); /* src as above; no add */

/* x += scale * y. */
int gk_add(const struct gk_ctx *ctx, struct gk_view x, struct gk_view y, struct gk_rows rows, uint32_t dim,
           float scale);
/* As kn_ops.act_mul; up.p NULL for an act without one; out may be gate or up. */
int gk_act_mul(const struct gk_ctx *ctx, uint32_t act, struct gk_view out, struct gk_view gate, struct gk_view up,
               struct gk_rows rows, uint32_t dim);
/* Copies between element types; dst and src do not overlap. */
int gk_convert(const struct gk_ctx *ctx, struct gk_view dst, struct gk_view src, struct gk_rows rows, uint32_t dim);

/* ---- The step's sequences --------------------------------------------------------------------------------------- */

struct gk_seq {
	uint32_t kv_len, n_q, row;        /* as struct kn_seq */
	uint32_t first_page;              /* in gk_batch.pages */
	uint32_t state, keep, keep_after; /* of recurrent layers, as in struct kn_seq */
};

/* One item of attention, for each K/V head: new tokens [q, q + n_q) of a sequence (counted from its first new one)
 * against keys [kv_begin, kv_end), of which each token sees those up to its own place. part: first of its n_q places
 * for partial results in the scratch, which entry `merge` of the list of merges makes rows of, or GK_WHOLE: these are
 * all keys and the output is written at once. */
struct gk_work {
	uint32_t seq, q, n_q;
	uint32_t kv_begin, kv_end;
	uint32_t part, merge;
	uint32_t first; /* entry i < n_shares of the list `few`: the item that share i begins with */
};
#define GK_WHOLE UINT32_MAX

/* Items of the same tokens: their n_parts results, n_q places each from `part` on, become rows. */
struct gk_merge {
	uint32_t seq, q, n_q;
	uint32_t part, n_parts;
};

/* All device memory, refilled by one copy per step. Numbers stand in counts, bounds are the bucket's. */
enum { GK_N_ROWS, GK_N_SEQS, GK_N_FEW, GK_N_MANY, GK_N_MERGE, GK_N_SHARES, GK_N_COUNTS = 8 };
struct gk_batch {
	const uint32_t *counts; /* [GK_N_COUNTS] */
	const struct gk_seq *seqs;
	const uint32_t *pages;   /* page tables one after the other */
	const uint32_t *row_seq; /* [rows] index of the sequence that a row belongs to; GK_WHOLE: none */
	const struct gk_work *few, *many;
	const struct gk_merge *merge;
	uint32_t max_rows, max_seqs, max_few, max_many, max_merge; /* host: bounds for grids; 0: none of that */
};

/* Host only, launches nothing: how attention over these sequences is cut. many: tiles of GK_TILE_TOKENS. few: the rest
 * (decode, drafts), items of at most 16 rows (new tokens times query heads of a K/V head) or one token. Its items,
 * one after the other, are cut into shares of equal numbers of keys, as many as fill the device, and sequences are cut
 * where a share ends (fixed: every GK_FIXED_PART keys, whatever else there is). Sequences of more than GK_WORK_TOKENS
 * new tokens are in the list `many`; fixed: those whose first row is not before answer_rows, however many tokens they
 * have, since the two kernels give different bits. All layers of a step use one plan: kernels skip keys outside of a
 * window. Returns -E2BIG when a list is too short: room for gk_plan_room() entries in each always suffices. */
struct gk_plan {
	struct gk_work *few, *many; /* host, room each */
	struct gk_merge *merge;
	uint32_t room;
	uint32_t answer_rows; /* fixed: rows before it are answers', those from it on prompts' */
	uint32_t n_few, n_many, n_merge, n_shares, n_parts; /* out */
};
uint32_t gk_plan_room(const struct gk_ctx *ctx, uint32_t max_rows, uint32_t max_seqs, uint32_t n_ctx);
int gk_plan_attention(const struct gk_ctx *ctx, uint32_t n_kv_head, uint32_t group, const struct gk_seq *seqs,
                      uint32_t n_seqs, struct gk_plan *plan);
/* Most shares that a plan makes. */
uint32_t gk_plan_shares(const struct gk_ctx *ctx, uint32_t n_kv_head, uint32_t group);
/* So few sequences that each is cut into many parts: fewer and larger blocks are better then. */
bool gk_plan_is_deep(const struct gk_ctx *ctx, uint32_t n_kv_head, uint32_t group, uint32_t n_seqs);

/* Blocks of the kernel for the list `few`: how many waves they have, and how deep each one's ring of tiles is, by size
 * of head: 128 values of bfloat16 (e4m3) as examples. Rings change no bits, the number of waves does. */
enum gk_shape {
	GK_SHAPE_BEST,   /* whichever gk_plan_shape() takes */
	GK_SHAPE_MANY,   /* 4 waves x 3 (5) */
	GK_SHAPE_DEEP,   /* 8 x 2 (4) */
	GK_SHAPE_SHORT,  /* 4 x 2 (2); heads of 128 only, as the next */
	GK_SHAPE_STREAM, /* as MANY, rings that run on from item to item; up to 8 query heads of a K/V head, 227 KiB */
	GK_N_SHAPES
};
/* bytes: of a value of K and V. */
uint32_t gk_plan_shape(const struct gk_ctx *ctx, uint32_t n_kv_head, uint32_t group, uint32_t n_seqs, uint32_t bytes);

/* ---- Attention ------------------------------------------------------------------------------------------------------
 */

struct gk_kv {
	uint32_t dtype; /* enum kn_dtype: KN_F32, KN_F16, KN_BF16, KN_F8_E4M3 */
	uint32_t n_kv_head, k_dim, v_dim, page_tokens;
	void *k, *v;                    /* as struct kn_kv; v NULL: the first v_dim of K */
	const float *k_scale, *v_scale; /* likewise */
};

struct gk_attention {
	struct gk_view out, q; /* [rows, n_head * v_dim], [rows, n_head * k_dim] */
	struct gk_kv kv;
	const struct gk_batch *batch; /* host struct */
	uint32_t n_head, window;
	float scale, softcap;
	const float *sinks;
	bool exact; /* float32 arithmetic */
	/* Keys before a sequence's new ones were there before the step's kernels began (not an encoder's, whose rows
	 * are sequences of one new token each): with ctx->overlap they are read before the kernel before has ended. */
	bool keys_are_older;
};
/* Runs few, many and the merge, whichever has a bound. */
int gk_attention(const struct gk_ctx *ctx, const struct gk_attention *a);

struct gk_rope {
	const float *inv_freq;
	uint32_t n_rot, offset;
	float scale;
	bool interleaved;
};
/* In place, x [rows, n_head * head_dim]; pos device memory [rows]. */
int gk_rope(const struct gk_ctx *ctx, struct gk_view x, struct gk_rows rows, uint32_t n_head, uint32_t head_dim,
            const struct gk_rope *rope, const int32_t *pos);
/* As kn_ops.kv_store. */
int gk_kv_store(const struct gk_ctx *ctx, const struct gk_kv *kv, struct gk_view k, struct gk_view v,
                const struct gk_batch *batch);

/* Head norms, rotation and the store in one pass. q in place; k as it was or in place, as it comes: nobody reads it
 * afterwards. Norms with a weight of NULL are left out. */
struct gk_qkv {
	struct gk_view q, k, v;    /* v.p NULL: kv.v is */
	uint32_t n_head, head_dim; /* kv.n_kv_head heads of k; kv.k_dim == head_dim */
	const float *q_norm, *k_norm;
	bool norm_after_rope;
	float eps;
	struct gk_rope rope;
	const int32_t *pos;
	struct gk_kv kv;
	const struct gk_batch *batch;
	struct gk_rows rows;
};
int gk_qkv_store(const struct gk_ctx *ctx, const struct gk_qkv *a);

/* ---- Mixture of experts
 * ------------------------------------------------------------------------------------------------ */

/* As kn_ops.route: ids [rows, top_k], weights [rows, top_k] dense; logits float32 dense. bias device memory. */
int gk_route(const struct gk_ctx *ctx, const struct kn_router *router, const float *logits, struct gk_rows rows,
             int32_t *ret_ids, float *ret_weights);

/* A router with its product: x' = x or RMSNorm(x) * norm_w, logits = x' W^T + bias in float32, and gk_route() of them.
 * Up to GK_FEW_ROWS one launch; beyond, or when ctx->fixed, two, and -ENOTSUP with norm or unless x is bfloat16 in
 * 16-byte steps. W is float32, else -ENOTSUP; likewise without ctx->counters. */
struct gk_router {
	struct gk_view x, normed; /* normed: x' is written there, too; with norm only */
	struct gk_rows rows;
	bool norm;           /* over all of w.cols */
	const float *norm_w; /* NULL: ones; 16-byte aligned */
	float eps;
	struct gk_mat w;   /* [n_expert, cols] */
	const float *bias; /* or NULL */
	float *logits;     /* [rows, n_expert] */
	struct kn_router router;
	int32_t *ids; /* [rows, top_k]; NULL: nothing is chosen yet */
	float *weights;
};
int gk_route_product(const struct gk_ctx *ctx, const struct gk_router *router);

/* A choice that is still to be made, as by gk_route(). */
struct gk_choice {
	struct kn_router router;
	const float *logits;
	int32_t *ids;
	float *weights;
};

struct gk_moe {
	struct gk_view x, out; /* out float32: += */
	struct gk_rows rows;
	uint32_t n_expert, n_ff, dim, top_k, act;
	uint32_t type_gate, type_up, type_down;       /* of all experts */
	const struct gk_mat *gate, *up, *down;        /* device, [n_expert] each */
	const float *gate_bias, *up_bias, *down_bias; /* as struct kn_moe, or NULL */
	const int32_t *ids;                           /* [rows, top_k] */
	const float *weights;
	bool exact;
	uint32_t first_expert; /* as in struct kn_moe */
	const struct gk_choice
	        *choice; /* host; NULL: ids and weights are there, else the same memory as the choice's */
};
/* Rows by expert (count, scan, scatter), gate and up with the activation, down, sum by weight in order of k. */
int gk_moe(const struct gk_ctx *ctx, const struct gk_moe *m);
/* Whether m->choice costs gk_moe() no launch. */
bool gk_moe_chooses(const struct gk_ctx *ctx, const struct gk_moe *m);

/* ---- Choosing tokens
 * ---------------------------------------------------------------------------------------------------- */

/* As kn_ops.conv_silu, .delta_rule; batch: host struct. States are device memory, float32. */
struct gk_conv {
	struct gk_view out, x;
	const struct gk_batch *batch;
	uint32_t n_channels, kernel;
	const float *w;
	float *state;
	size_t ld_state;
};
int gk_conv_silu(const struct gk_ctx *ctx, const struct gk_conv *conv);

struct gk_delta {
	struct gk_view out, qkv, ba;
	const struct gk_batch *batch;
	uint32_t n_k_head, n_v_head, k_dim, v_dim; /* k_dim up to 256 */
	const float *decay, *dt_bias;
	float eps;
	float *state;
	size_t ld_state;
};
int gk_delta_rule(const struct gk_ctx *ctx, const struct gk_delta *delta);

/* As kn_ops.gated_rmsnorm. */
struct gk_gated_norm {
	struct gk_view out, x, gate;
	const float *w;
	struct gk_rows rows;
	uint32_t n_head, dim;
	float eps;
};
int gk_gated_rmsnorm(const struct gk_ctx *ctx, const struct gk_gated_norm *norm);
/* As kn_ops.gate_rows; gate has one column. */
int gk_gate_rows(const struct gk_ctx *ctx, struct gk_view x, struct gk_view gate, struct gk_rows rows, uint32_t dim);

/* As kn_ops.pick; all device memory. */
struct gk_pick {
	struct gk_view logits;
	struct gk_rows rows;
	uint32_t n_vocab, n_best;
	float softcap;
	bool filters;                /* of any pick: kn_pick_filters() */
	const struct kn_pick *picks; /* [rows] */
	struct kn_best *best;        /* [rows, n_best] */
	struct kn_picked *picked;    /* [rows] */
};
int gk_pick_rows(const struct gk_ctx *ctx, const struct gk_pick *pick);
/* n_best: KN_MAX_BEST with filters. */
size_t gk_pick_scratch(uint32_t rows, uint32_t n_vocab, uint32_t n_best);

/* ---- Between devices: comm.cu ------------------------------------------------------------------------------------ */

/* What the kernels of one rank know of the others. A space is memory of its rank's device that all devices of the group
 * read and write: gk_comm_bytes(), 256-byte aligned, zeros before the first call. */
struct gk_comm {
	uint32_t rank, n_ranks;
	char *spaces[KN_MAX_RANKS];
	size_t slot_bytes;      /* a multiple of 256 */
	const uint32_t *broken; /* memory of the host that devices read: not 0: nobody waits any more */
};
size_t gk_comm_bytes(size_t slot_bytes);
/* Launches that a message of so many rows of `width` columns takes. */
uint32_t gk_comm_launches(size_t slot_bytes, uint32_t elem, uint32_t rows, uint32_t width);

/* What the first gk_comm_head_bytes() of a space say, in memory that the host reads: launches that have ended on its
 * device, and the last one for which each rank has said to have come. Also while others write it. */
struct gk_comm_seen {
	uint32_t ended, heard[KN_MAX_RANKS];
};
size_t gk_comm_head_bytes(void);
void gk_comm_look(const char *head, uint32_t n_ranks, struct gk_comm_seen *ret);

/* As kn_ops.all_reduce and .all_gather, in place. All ranks launch the same in the same order, each on one stream of
 * its own; a launch ends when all of them have come to it, or *broken was set: then x is garbage. Rows and their bound
 * are the same everywhere. -EINVAL: a row does not fit a slot. */
int gk_all_reduce(const struct gk_ctx *ctx, const struct gk_comm *comm, struct gk_view x, struct gk_rows rows,
                  uint32_t dim);
int gk_all_gather(const struct gk_ctx *ctx, const struct gk_comm *comm, struct gk_view x, struct gk_rows rows,
                  uint32_t width, uint32_t total);
/* x = 0 */
int gk_clear(const struct gk_ctx *ctx, struct gk_view x, struct gk_rows rows, uint32_t dim);

#ifdef __cplusplus
}
#endif

#endif
