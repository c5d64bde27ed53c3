/* Inside the cpu backend: what the drivers (threads, shapes, scratch: matmul.c, moe.c, attention.c,
 * elementwise.c) ask of the code for one instruction set (isa_*.c, qpanel_*.c), and how they share
 * the backend's scratch. */
#ifndef CPU_CPU_H
#define CPU_CPU_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/threadpool.h"
#include "kernels.h"

/* ---- Prepared activations ------------------------------------------------------------------------
 * A matmul prepares its x once for all jobs, in each form that the jobs' weights ask for. */
enum cpu_xform {
	CPU_X_F32,  /* floats, zero-padded to a multiple of 32 */
	CPU_X_BF16, /* rounded to bfloat16, zero-padded to a multiple of 32 */
	CPU_X_Q8,   /* int8 in blocks of 32, see struct cpu_q8 */
	CPU_N_XFORMS
};

/* One row of CPU_X_Q8 over `cols` values (a multiple of 32): int8 q[cols], then for each block of 32 the
 * float scale, minus the sum of its values (scaled), minus the sum of its q, and minus the sums of their two
 * halves. Weights are stored unsigned (q + offset), so that offset * sum(x) has to be taken off again: hence
 * the sums. */
struct cpu_q8 {
	const int8_t *q;
	const float *d, *dsum;
	const int32_t *nsum32, *nsum16;
};

static inline size_t cpu_pad32(size_t n)
{
	return (n + 31) & ~(size_t)31;
}

/* Bytes from one prepared row to the next: whole cache lines, and an odd number of them, so that rows do
 * not all fall into the same few cache sets. */
static inline size_t cpu_xform_stride(enum cpu_xform form, size_t cols)
{
	size_t n = cpu_pad32(cols), bytes = 0;

	switch (form) {
	case CPU_X_F32:
		bytes = n * 4;
		break;
	case CPU_X_BF16:
		bytes = n * 2;
		break;
	case CPU_X_Q8:
		bytes = n + n / 32 * 20;
		break;
	case CPU_N_XFORMS:
		break;
	}
	return ((bytes + 63) / 64 | 1) * 64;
}

static inline struct cpu_q8 cpu_q8_row(const void *row, size_t cols)
{
	struct cpu_q8 x;

	x.q = row;
	x.d = (const float *)(x.q + cols);
	x.dsum = x.d + cols / 32;
	x.nsum32 = (const int32_t *)(x.dsum + cols / 32);
	x.nsum16 = x.nsum32 + cols / 32;
	return x;
}

/* ---- Products ------------------------------------------------------------------------------------ */

enum { CPU_MAX_ITEM_TOKENS = 512 };

/* Some rows of one matrix for some tokens (n <= CPU_MAX_ITEM_TOKENS): out[i][r] = w[r] . x[first + i] (+ bias[r])
 * (+ out[i][r]). */
struct cpu_block {
	const char *w; /* the first row, or the first panel */
	size_t ld_w;   /* bytes from row to row, or from panel to panel */
	uint32_t rows, cols;
	const char *x; /* prepared rows in their form: the first of the call, and bytes from row to row */
	size_t ld_x;
	size_t first; /* the block's first row of them; it has n */
	size_t n;
	float *out; /* [n], ld_out floats apart, already at the first row of the matrix */
	size_t ld_out;
	const float *bias; /* at the first row, or NULL */
	bool accumulate;
	const struct cpu_gate *gate; /* kernels for many only: out is not written, but what down takes; or NULL */
	void *scratch; /* of the thread: CPU_SCRATCH_BYTES and CPU_SCRATCH_COLS for each column padded to 32 */
};

enum {
	CPU_SCRATCH_COLS = 64,
	CPU_SCRATCH_BYTES = 128 << 10,
	CPU_ROW_PAD = 16 /* rows that may be read, not used, behind the last prepared one */
};

/* A block of gate's rows, a multiple of 32, with the same rows of up: act(gate x) * (up x) becomes prepared rows of
 * bfloat16. */
struct cpu_gate {
	const char *up; /* the first row, or the first panel */
	const float *up_bias;
	const struct cpu_isa *isa;
	enum kn_act act;
	char *h; /* the first prepared row, at the block's first one of gate's rows */
	size_t ld_h;
};

typedef void (*cpu_block_fn)(const struct cpu_block *b);

/* Token i of the block, where rows lie one after the other. */
static inline const char *cpu_block_x(const struct cpu_block *b, size_t i)
{
	return b->x + (b->first + i) * b->ld_x;
}

/* Weights of 4 to 8 bits are repacked into panels of 16 rows, their values interleaved so that one vector
 * register holds four consecutive values of each row. pack.c describes the layouts. */
enum cpu_panel { CPU_PANEL_NONE, CPU_PANEL_8, CPU_PANEL_4, CPU_PANEL_4K, CPU_PANEL_6K, CPU_N_PANELS };
enum { CPU_PANEL_ROWS = 16 };

enum cpu_panel cpu_panel_of(enum kn_dtype dtype);
size_t cpu_panel_bytes(enum cpu_panel panel, size_t cols);
/* Packs rows [16 p, 16 p + 16) of m; rows beyond the last are zero. */
void cpu_panel_pack(enum cpu_panel panel, const struct kn_mat *m, size_t p, void *dst);

/* ---- Attention ------------------------------------------------------------------------------------ */

enum { CPU_ATTN_TOKENS = 64 /* keys per softmax step, at positions aligned to it */ };

/* Scores of n_q query rows against n_t keys, and values weighed by probabilities. kv rows are k_dim (v_dim)
 * elements apart; q rows are padded with zeros to a multiple of 16. ahead: as many rows, as far apart, that will be
 * used soon and are asked for meanwhile; or NULL. */
typedef void (*cpu_attn_qk_fn)(float *s, size_t ld_s, const float *q, size_t ld_q, size_t n_q, const void *k,
                               size_t ld_k, size_t n_t, size_t dim, const void *ahead);
/* o += p v. */
typedef void (*cpu_attn_pv_fn)(float *o, size_t ld_o, const float *p, size_t ld_p, size_t n_q, const void *v,
                               size_t ld_v, size_t n_t, size_t dim, const void *ahead);

/* The same for many query rows, which results may tell by rounding: queries and probabilities are bfloat16, keys and
 * values of a step are packed before. n_q may be rounded up to a multiple of 32. */
struct cpu_attn_many {
	/* rows [CPU_ATTN_TOKENS]: the step's keys or values, NULL where there are none. dst: CPU_ATTN_TOKENS rows of
	 * dim rounded up to 32. */
	void (*keys)(enum kn_dtype dtype, uint16_t *dst, const void *const *rows, size_t dim);
	void (*values)(enum kn_dtype dtype, uint16_t *dst, const void *const *rows, size_t dim);
	/* q is padded with zeros to a multiple of 32 */
	void (*qk)(float *s, size_t ld_s, const uint16_t *q, size_t ld_q, size_t n_q, const uint16_t *keys, size_t dim);
	/* m = max(m, the row's CPU_ATTN_TOKENS scores), p = exp(s - m), fade = exp(m before - m), l = l fade + sum of
	 * p. Rows of s and p may be rounded up to a multiple of 16. */
	void (*softmax)(uint16_t *p, size_t ld_p, const float *s, size_t ld_s, size_t n_q, float *m, float *l,
	                float *fade);
	/* o is as wide as dim rounded up to 16 */
	void (*pv)(float *o, size_t ld_o, const uint16_t *p, size_t ld_p, size_t n_q, const uint16_t *values,
	           size_t dim);
};

/* ---- The gated delta rule --------------------------------------------------------------------------
 * Columns of a head's state do not know of each other: a block is some of them, for some tokens. */

enum { CPU_DELTA_COLS = 32, CPU_DELTA_CHUNK = 32 /* tokens */ };

struct cpu_delta_block {
	float *state; /* [k_dim] rows, ld_state floats apart, already at the first column */
	size_t ld_state;
	size_t k_dim, n_cols; /* n_cols: CPU_DELTA_COLS or KN_DELTA_STEP; of delta_chunks any multiple of the latter */
	const float *q, *k, *v;    /* [n] rows, ld floats apart; q and k of length 1, q divided by sqrt(k_dim) */
	const float *beta, *decay; /* [n], ld_gates floats apart */
	size_t n, ld, ld_gates;
	float *out; /* [n] rows of n_cols, ld_out floats apart */
	size_t ld_out;
};

/* Floats of scratch that chunks of any head need. */
enum {
	CPU_DELTA_SCRATCH = KN_MAX_DELTA * (KN_MAX_DELTA + 3 * CPU_DELTA_CHUNK) +
	                    CPU_DELTA_CHUNK * (2 * CPU_DELTA_CHUNK + 3 * CPU_DELTA_COLS)
};

/* ---- The table of one instruction set ---------------------------------------------------------------- */

struct cpu_isa {
	const char *name;
	/* Weights read in place, by type; what has neither this nor a panel is dequantized in chunks of rows. */
	cpu_block_fn dense[KN_N_DTYPES];
	enum cpu_xform dense_form[KN_N_DTYPES];
	cpu_block_fn panel[CPU_N_PANELS];
	unsigned dense_rows; /* rows that dense[] takes together: items are multiples of it */
	/* For at least many_tokens tokens, where there is such a function: x is prepared as CPU_X_BF16. Results differ
	 * from those for fewer tokens by rounding. */
	cpu_block_fn many_dense[KN_N_DTYPES], many_panel[CPU_N_PANELS];
	size_t many_tokens;

	void (*prepare[CPU_N_XFORMS])(void *dst, const float *x, size_t cols);

	cpu_attn_qk_fn qk[3]; /* by KN_F32, KN_F16, KN_BF16 */
	cpu_attn_pv_fn pv[3];
	const struct cpu_attn_many *attn_many; /* for many query rows, or NULL */
	/* m = max(m, all of s), s = exp(s - m), returns their sum; all zero when m is -infinity. n: a multiple of 16.
	 */
	float (*softmax_step)(float *s, size_t n, float *m);
	void (*scale)(float *x, size_t n, float a);
	void (*softcap)(float *x, size_t n, float cap);
	/* The greatest of each of n_blocks blocks of CPU_PICK_BLOCK values; NaN counts as minus infinity. */
	void (*maxima)(float *ret, const float *x, size_t n_blocks);
	/* p[i] = exp((x[i] - max) * a), unless p is NULL; their sum. n: a multiple of 16, up to some thousands. NaN
	 * counts as minus infinity, plus infinity as the largest float. */
	double (*exp_sum)(float *p, const float *x, size_t n, float max, float a);

	void (*rmsnorm)(float *out, const float *x, const float *w, size_t n, float eps);
	void (*layernorm)(float *out, const float *x, const float *w, const float *b, size_t n, float eps);
	void (*act_mul)(enum kn_act act, float *out, const float *gate, const float *up, size_t n);
	void (*add)(float *x, const float *y, size_t n, float scale);
	/* Pairs (a[i], b[i]) rotated by the angles whose cosines and sines are given. */
	void (*rotate)(float *a, float *b, const float *cos, const float *sin, size_t n);
	/* Token t's channels [0, n) from its last inputs, x[0] the oldest, w `ld_w` floats from one to the next. */
	void (*conv_silu)(float *out, const float *const *x, size_t kernel, const float *w, size_t ld_w, size_t n);
	void (*delta)(const struct cpu_delta_block *b);
	/* For many_tokens and more, or NULL: the same with products of matrices, all columns at once. */
	void (*delta_chunks)(const struct cpu_delta_block *b, float *scratch);
	void (*gated_rmsnorm)(float *out, const float *x, const float *gate, const float *w, size_t n, float eps);
	void (*store[3])(void *dst, const float *src, size_t n); /* by KN_F32, KN_F16, KN_BF16 */
	void (*load[3])(float *dst, const void *src, size_t n);
};

extern const struct cpu_isa cpu_isa_scalar;
#if defined(__x86_64__)
extern const struct cpu_isa cpu_isa_avx2, cpu_isa_avx512, cpu_isa_avx512bf16, cpu_isa_amx, cpu_isa_amxbf16;
/* Panels: qpanel_*.c. */
void cpu_panel_8_avx2(const struct cpu_block *b);
void cpu_panel_4_avx2(const struct cpu_block *b);
void cpu_panel_4k_avx2(const struct cpu_block *b);
void cpu_panel_6k_avx2(const struct cpu_block *b);
void cpu_panel_8_avx512(const struct cpu_block *b);
void cpu_panel_4_avx512(const struct cpu_block *b);
void cpu_panel_4k_avx512(const struct cpu_block *b);
void cpu_panel_6k_avx512(const struct cpu_block *b);
void cpu_panel_8_amx(const struct cpu_block *b);
void cpu_panel_4_amx(const struct cpu_block *b);
void cpu_panel_4k_amx(const struct cpu_block *b);
void cpu_panel_6k_amx(const struct cpu_block *b);
/* Many tokens, prepared as CPU_X_BF16: many_*.c. */
void cpu_many_panel_8_amx(const struct cpu_block *b);
void cpu_many_panel_4_amx(const struct cpu_block *b);
void cpu_many_panel_4k_amx(const struct cpu_block *b);
void cpu_many_panel_6k_amx(const struct cpu_block *b);
void cpu_many_bf16_amx(const struct cpu_block *b);
void cpu_many_f16_amx(const struct cpu_block *b);
void cpu_many_keys_amx(enum kn_dtype dtype, uint16_t *dst, const void *const *rows, size_t dim);
void cpu_many_values_amx(enum kn_dtype dtype, uint16_t *dst, const void *const *rows, size_t dim);
void cpu_many_qk_amx(float *s, size_t ld_s, const uint16_t *q, size_t ld_q, size_t n_q, const uint16_t *keys,
                     size_t dim);
void cpu_many_softmax_amx(uint16_t *p, size_t ld_p, const float *s, size_t ld_s, size_t n_q, float *m, float *l,
                          float *fade);
void cpu_many_pv_amx(float *o, size_t ld_o, const uint16_t *p, size_t ld_p, size_t n_q, const uint16_t *values,
                     size_t dim);
#endif

/* By name; or, when name is NULL, the best this machine can run, with float32 activations if exact, and not by a
 * measurement if deterministic. NULL when it cannot run the one named. */
const struct cpu_isa *cpu_isa_find(const char *name, bool exact, bool deterministic);

/* ---- The backend -------------------------------------------------------------------------------------- */

/* Address space reserved for the worst case; pages become memory when first written. */
struct cpu_area {
	char *p;
	size_t bytes;
};

/* Sines and cosines of one step's positions, shared by its layers; made again when the positions change. */
struct cpu_rope_cache {
	struct cpu_area area;
	float *inv_freq;  /* [n_half], copy of what the table was made from */
	int32_t *pos;     /* [n] */
	float *cos, *sin; /* [n, n_half] */
	size_t n, n_half;
	float scale;
};

enum {
	CPU_ROPE_CACHES = 2,     /* models alternate between at most two kinds of layers */
	CPU_ROPE_MAX_HALF = 256, /* pairs per head that the table has room for */
	CPU_MOE_FACTOR = 8,      /* rows of experts computed at once, per token of max_tokens */
	CPU_MAX_EXPERTS = 4096,
};

/* Single tokens of sequences that begin with the same pages: attn_share.c. */
struct cpu_share {
	uint32_t *members; /* [n] sequences */
	uint32_t *tiles;   /* [n] the first attention tile of each */
	uint32_t n;
	uint32_t n_keys; /* that all of them see, whole steps; each sees others, too */
};

struct cpu_shares {
	struct cpu_area area;
	/* room for max_tokens of each */
	struct cpu_share *shares;
	uint32_t *members, *tiles, *n_keys, *first_tile;
};

struct cpu_backend {
	struct kn_backend base;
	const struct cpu_isa *isa;
	struct base_threadpool *pool;
	unsigned n_threads;
	size_t max_tokens, max_cols;
	int error; /* first failure, for sync() */

	struct cpu_area x[CPU_N_XFORMS];  /* prepared activations, max_tokens rows */
	struct cpu_area hx[CPU_N_XFORMS]; /* those of a mixture of experts, by expert */
	struct cpu_area rows;             /* per thread: dequantized rows */
	size_t rows_per_thread;
	struct cpu_area delta;      /* per thread: CPU_DELTA_SCRATCH floats, where the level has delta_chunks */
	struct cpu_area moe;        /* hidden rows and results of experts */
	struct cpu_area moe_index;  /* which row is whose */
	struct cpu_area attn;       /* per thread: queries, scores, sums */
	struct cpu_area attn_parts; /* results of parts of long sequences */
	struct cpu_shares shares;   /* of one call */
	struct cpu_rope_cache rope[CPU_ROPE_CACHES];
	unsigned rope_next;
	struct cpu_area picks; /* pick.c */
};

/* pick.c: a thread's candidates for the best: those above a threshold, those equal to it, and a heap. */
enum {
	CPU_PICK_BLOCK = 64,
	CPU_PICK_SCRATCH = KN_MAX_BEST * ((CPU_PICK_BLOCK + 1) * sizeof(struct kn_best) + sizeof(float))
};

/* Calls fn for rows [0, n), in parallel when n * work (values touched per row) is worth it. */
void cpu_rows(struct cpu_backend *cpu, size_t n, size_t work, base_threadpool_fn fn, void *arg);

/* Scratch that depends on max_tokens and threads alone. */
int cpu_attention_reserve(struct cpu_backend *cpu);
int cpu_shares_reserve(struct cpu_backend *cpu);
int cpu_rope_reserve(struct cpu_backend *cpu);
/* Makes sure that matrices of this many columns fit; called while matrices are prepared. */
int cpu_reserve(struct cpu_backend *cpu, size_t cols);
/* Rows of experts that fit at once. */
size_t cpu_moe_rows(const struct cpu_backend *cpu);
/* Memory for packed weights, aligned to a cache line, not written yet; NULL: there is none. Any thread. */
void *cpu_arena_take(size_t bytes);
void cpu_arena_give(void *p);
int cpu_area_reserve(struct cpu_area *area, size_t bytes);
void cpu_area_release(struct cpu_area *area);

/* The sets of single tokens that share steps of `step` keys, and for each sequence how many keys it shares
 * (cpu->shares.n_keys). */
const struct cpu_share *cpu_shares_find(struct cpu_backend *cpu, const struct kn_seq *seqs, size_t n_seqs,
                                        uint32_t page_tokens, uint32_t step, size_t *ret_n);
/* Parts of all heads, for groups of at most `most` members. */
static inline size_t cpu_share_items(const struct cpu_share *s, size_t most, uint32_t n_kv_head, uint32_t part)
{
	return (s->n + most - 1) / most * ((s->n_keys + part - 1) / part) * n_kv_head;
}

/* The other half of a gated product: see struct cpu_gate. */
struct cpu_gate_task {
	const struct kn_mat *up;
	const float *up_bias;
	enum kn_act act;
	char *h;
	size_t ld_h;
};

/* One product inside a parallel region. */
struct cpu_task {
	const struct kn_mat *w;
	size_t first, n; /* rows of the prepared x */
	float *out;
	size_t ld_out;
	const float *bias;
	bool accumulate;
	bool many;                        /* takes the kernel for many tokens where there is one: cpu_is_many() */
	const struct cpu_gate_task *gate; /* instead of out and accumulate; or NULL */
	/* filled by cpu_tasks_run() */
	cpu_block_fn fn;
	enum cpu_xform form;
	size_t item_rows, item_toks, n_row_items, first_item;
	bool packed, in_place;
};

enum { CPU_MAX_TASKS = 64 };

/* Prepares n rows of x, those of the list or the first ones when it is NULL, in every form the tasks' matrices need,
 * into `to`. */
void cpu_prepare(struct cpu_backend *cpu, struct cpu_area *to, unsigned forms, const float *x, size_t ld_x,
                 const uint32_t *list, size_t n, size_t cols);
/* Whether n rows, which are prompts' or answers', take the kernels for many: by their number, or, where backends tell
 * prompts, by their kind. */
static inline bool cpu_is_many(const struct cpu_backend *cpu, size_t n, bool prompts)
{
	return cpu->isa->many_tokens && (cpu->base.tells_prompts ? prompts : n >= cpu->isa->many_tokens);
}
/* How many of a call's n rows are answers'; all, unless the backend tells prompts. */
static inline size_t cpu_answer_rows(const struct cpu_backend *cpu, size_t n)
{
	return cpu->base.tells_prompts && cpu->base.n_answer_rows < n ? cpu->base.n_answer_rows : n;
}
/* The form of x that rows of it, many or not, are multiplied with m in. */
enum cpu_xform cpu_form_of(const struct cpu_backend *cpu, const struct kn_mat *m, bool many);
/* Runs at most CPU_MAX_TASKS products over prepared rows as one parallel loop. */
void cpu_tasks_run(struct cpu_backend *cpu, struct cpu_task *tasks, size_t n_tasks, const struct cpu_area *x);

/* ---- Operations ------------------------------------------------------------------------------------------ */

int cpu_mat_init(struct kn_backend *be, struct kn_mat *m);
void cpu_mat_done(struct kn_backend *be, struct kn_mat *m);
void cpu_matmul(struct kn_backend *be, const struct kn_matmul *jobs, size_t n_jobs, const float *x, size_t ld_x,
                size_t n);
void cpu_norm_matmul(struct kn_backend *be, const struct kn_matmul *jobs, size_t n_jobs, const float *x, size_t ld_x,
                     size_t n, const float *norm, float eps);
void cpu_gated(struct kn_backend *be, const struct kn_gated *g, float *out, size_t ld_out, const float *x, size_t ld_x,
               size_t n);
void cpu_moe(struct kn_backend *be, const struct kn_moe *moe, float *out, size_t ld_out, const float *x, size_t ld_x,
             size_t n, size_t dim, uint32_t top_k, const int32_t *ids, const float *weights);
void cpu_pick(struct kn_backend *be, const float *logits, size_t ld, size_t n, size_t n_vocab, float softcap,
              const struct kn_pick *picks, uint32_t n_best, struct kn_best *ret_best, struct kn_picked *ret);
void cpu_route(struct kn_backend *be, const struct kn_router *router, const float *logits, size_t n, int32_t *ret_ids,
               float *ret_weights);
void cpu_attention(struct kn_backend *be, float *out, size_t ld_out, const float *q, size_t ld_q,
                   const struct kn_kv *kv, const struct kn_seq *seqs, size_t n_seqs, const struct kn_attn *attn);
void cpu_kv_store(struct kn_backend *be, const struct kn_kv *kv, const float *k, size_t ld_k, const float *v,
                  size_t ld_v, const struct kn_seq *seqs, size_t n_seqs);
void cpu_qkv_store(struct kn_backend *be, const struct kn_qkv *qkv, const struct kn_kv *kv, const struct kn_seq *seqs,
                   size_t n_seqs, size_t n);
void cpu_conv_silu(struct kn_backend *be, float *out, size_t ld_out, const float *x, size_t ld_x,
                   const struct kn_conv *conv, const struct kn_seq *seqs, size_t n_seqs);
void cpu_delta_rule(struct kn_backend *be, float *out, size_t ld_out, float *qkv, size_t ld_qkv, float *ba,
                    size_t ld_ba, const struct kn_delta *delta, const struct kn_seq *seqs, size_t n_seqs);
void cpu_gated_rmsnorm(struct kn_backend *be, float *out, size_t ld_out, const float *x, size_t ld_x, const float *gate,
                       size_t ld_gate, const float *w, size_t n, size_t n_head, size_t dim, float eps);
void cpu_gate_rows(struct kn_backend *be, float *x, size_t ld_x, const float *gate, size_t n, size_t dim);
void cpu_embed(struct kn_backend *be, float *out, size_t ld_out, const struct kn_mat *m, const int32_t *ids, size_t n,
               float scale);
void cpu_layernorm(struct kn_backend *be, float *out, size_t ld_out, const float *x, size_t ld_x, const float *w,
                   const float *b, size_t n, size_t dim, float eps);
void cpu_rmsnorm(struct kn_backend *be, float *out, size_t ld_out, const float *x, size_t ld_x, const float *w,
                 size_t n, size_t n_head, size_t dim, float eps);
void cpu_rope(struct kn_backend *be, float *x, size_t ld_x, size_t n, size_t n_head, size_t head_dim,
              const struct kn_rope *rope, const int32_t *pos);
void cpu_act_mul(struct kn_backend *be, enum kn_act act, float *out, size_t ld_out, const float *gate, size_t ld_gate,
                 const float *up, size_t ld_up, size_t n, size_t dim);
void cpu_add(struct kn_backend *be, float *x, size_t ld_x, const float *y, size_t ld_y, size_t n, size_t dim,
             float scale);

#endif
