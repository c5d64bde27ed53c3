/* The host side of a GPU backend from the inside.
 *
 * Operations are recorded (record.c), and at kn_sync() or a copy the program of the step is compiled (types.c, fuse.c),
 * launched (issue.c) or, when a program of the same form was seen before, replayed as a graph (program.c). What differs
 * from step to step within one form is data (step.c). */
#ifndef GPU_BACKEND_H
#define GPU_BACKEND_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "gpu/launch.h"
#include "gpu/rt.h"
#include "kernels.h"

/* ---- Memory: alloc.c ---- */

/* Pointers that callers hold are addresses in floats; whether the bytes there are float32 or bfloat16 is the
 * allocation's matter. */
struct gpu_alloc {
	char *base;
	size_t bytes;
	bool is_bf16; /* what its bytes are now */
	/* Where its rows are now, when not in its own memory: `width` values each at column `column` of rows of ld in
	 * the memory of allocation `home`. 0: in its own. */
	uint32_t home, column, home_ld, width;
	bool stays_f32; /* uploaded to, or read by a program that did not write it before */
};

struct gpu_heap {
	struct gpu_alloc *allocs; /* by base */
	uint32_t n, cap;
};

/* Index of the allocation that holds p; UINT32_MAX: none. */
uint32_t gpu_heap_find(const struct gpu_heap *heap, const void *p);
int gpu_heap_add(struct gpu_heap *heap, void *base, size_t bytes);
void gpu_heap_remove(struct gpu_heap *heap, uint32_t i);

/* ---- Weights: mat.c ---- */

/* kn_mat.packed */
struct gpu_mat {
	uint64_t id; /* never used twice */
	struct gk_mat m;
	uint32_t chunk, scale_chunk; /* the latter for FP8 */
};

/* Device memory that matrices share. */
struct gpu_chunk {
	char *base;
	size_t bytes, used;
	uint32_t n_mats;
};

/* Descriptions of matrices that kernels read from device memory: experts, heads. */
struct gpu_table {
	uint64_t hash;
	uint32_t n;
	struct gk_mat *host, *device;
	/* gpu_mat_table_of(): whose, and the id of their first. */
	const struct kn_mat *of;
	uint64_t of_id;
};

/* ---- Records ---- */

enum gpu_op {
	OP_EMBED,
	OP_NORM,
	OP_MATMUL,
	OP_ROPE,
	OP_KV_STORE,
	OP_ATTENTION,
	OP_ACT,
	OP_ADD,
	OP_ROUTE,
	OP_MOE,
	OP_PICK,
	OP_CONV,
	OP_DELTA,
	OP_GATED_NORM,
	OP_GATE_ROWS,
	OP_COMM,
	N_OPS
};

/* An activation: `off` floats from the beginning of an allocation. */
struct gpu_act {
	uint32_t alloc, ld;
	uint64_t off;
};
#define NO_ACT UINT32_MAX
#define NO_SLOT UINT16_MAX

struct rec_head {
	uint8_t op;
	uint8_t n_jobs;
	uint16_t rows;  /* slot of the number of rows */
	uint16_t ints;  /* slot of ids, positions or source rows, or NO_SLOT */
	uint16_t batch; /* slot of sequences, or NO_SLOT */
	uint32_t words; /* of 8 bytes, head included */
	uint32_t reserved;
};

struct rec_embed {
	struct rec_head h;
	struct gpu_act out;
	const struct gpu_mat *m;
	uint64_t m_id;
	const struct kn_picked *picked; /* device; for ids that are KN_DRAWN() */
	float scale;
	uint32_t reserved;
};

struct rec_norm {
	struct rec_head h; /* ints: source rows */
	struct gpu_act out, x;
	const float *w, *b;
	uint32_t n_head, dim;
	float eps;
	uint32_t is_layernorm;
};

struct rec_job {
	const struct gpu_mat *m;
	uint64_t m_id;
	struct gpu_act out;
	const float *bias;
	uint64_t accumulate;
};

/* Deterministic: rows [0, answer_rows) are answers', those behind them prompts'; ALL_ANSWERS: all. */
struct rec_matmul {
	struct rec_head h;
	uint64_t answer_rows;
	struct gpu_act x;
	struct rec_job job[]; /* [h.n_jobs] */
};
#define ALL_ANSWERS UINT32_MAX

struct rec_rope {
	struct rec_head h; /* ints: positions */
	struct gpu_act x;
	uint32_t n_head, head_dim;
	struct gk_rope rope;
};

struct rec_kv_store {
	struct rec_head h;
	struct gpu_act k, v; /* v.alloc may be NO_ACT */
	struct gk_kv kv;
};

struct rec_attention {
	struct rec_head h;
	struct gpu_act out, q;
	struct gk_kv kv;
	const float *sinks;
	uint32_t n_head, window;
	float scale, softcap;
};

struct rec_act {
	struct rec_head h;
	struct gpu_act out, gate, up;
	uint32_t act, dim;
};

struct rec_add {
	struct rec_head h;
	struct gpu_act x, y;
	uint32_t dim;
	float scale;
};

struct rec_route {
	struct rec_head h;
	struct gpu_act logits;
	int32_t *ids;
	float *weights;
	const float *bias;
	uint32_t kind, n_expert, top_k, n_group, top_group, normalize;
	float scale;
	uint32_t reserved;
};

struct rec_moe {
	struct rec_head h;
	struct gpu_act x, out;
	const struct gk_mat *gate, *up, *down; /* device tables */
	const float *gate_bias, *up_bias, *down_bias;
	const int32_t *ids;
	const float *weights;
	uint32_t n_expert, n_ff, dim, top_k, act;
	uint32_t type_gate, type_up, type_down;
	uint32_t first_expert, reserved;
};

struct rec_pick {
	struct rec_head h;
	struct gpu_act logits;
	const struct kn_pick *picks; /* device, as the next two */
	struct kn_best *best;
	struct kn_picked *picked;
	uint32_t n_vocab, n_best;
	float softcap;
	uint32_t filters;
};

struct rec_conv {
	struct rec_head h;
	struct gpu_act out, x;
	uint32_t n_channels, kernel;
	const float *w;
	float *state;
	uint64_t ld_state;
};

struct rec_delta {
	struct rec_head h;
	struct gpu_act out, qkv, ba;
	uint32_t n_k_head, n_v_head, k_dim, v_dim;
	const float *decay, *dt_bias;
	float *state;
	uint64_t ld_state;
	float eps;
	uint32_t reserved;
};

struct rec_gated_norm {
	struct rec_head h;
	struct gpu_act out, x, gate;
	const float *w;
	uint32_t n_head, dim;
	float eps;
	uint32_t reserved;
};

struct rec_gate_rows {
	struct rec_head h;
	struct gpu_act x, gate;
	uint64_t dim;
};

/* Between ranks, and what goes with it: record_comm.c. */
enum gpu_comm_op { COMM_CLEAR, COMM_REDUCE, COMM_GATHER };
struct rec_comm {
	struct rec_head h;
	struct gpu_act x;
	uint32_t kind, dim; /* enum gpu_comm_op; all columns */
	uint32_t width;     /* COMM_GATHER: a rank's columns */
	uint32_t reserved;
};

union gpu_rec {
	struct rec_head h;
	struct rec_comm comm;
	struct rec_embed embed;
	struct rec_norm norm;
	struct rec_matmul matmul;
	struct rec_rope rope;
	struct rec_kv_store kv_store;
	struct rec_attention attention;
	struct rec_act act;
	struct rec_add add;
	struct rec_route route;
	struct rec_moe moe;
	struct rec_pick pick;
	struct rec_conv conv;
	struct rec_delta delta;
	struct rec_gated_norm gated_norm;
	struct rec_gate_rows gate_rows;
};

/* ---- A step's data: step.c ---- */

enum { MAX_ROW_SLOTS = 16, MAX_INT_SLOTS = 16, MAX_BATCH_SLOTS = 4 };

struct gpu_rows_slot {
	uint32_t n, bound;
	uint32_t least_room; /* rows that every activation of this many rows has memory for */
	uint32_t is_exact;   /* the rows behind these are not to be touched: bound is n */
};

struct gpu_ints_slot {
	const int32_t *from; /* the caller's array, to know it again; NULL: made here */
	size_t at;           /* in step.ints */
	uint32_t n;
	uint16_t rows;
	uint32_t offset; /* in the blob */
};

struct gpu_batch_slot {
	const struct kn_seq *from;
	size_t at; /* in step.seqs */
	uint32_t n_seqs, n_rows, n_pages, page_tokens;
	uint32_t n_kv_head, group; /* 0: no attention yet */
	uint32_t answer_rows;      /* of rec_matmul */
	/* bounds and places in the blob */
	uint32_t max_rows, max_seqs, max_few, max_many, max_merge, max_pages;
	uint32_t o_counts, o_seqs, o_row_seq, o_few, o_many, o_merge, o_pages;
	struct gk_plan plan; /* lists in step.plan_* */
};

struct gpu_step {
	struct gpu_rows_slot rows[MAX_ROW_SLOTS];
	struct gpu_ints_slot ints[MAX_INT_SLOTS];
	struct gpu_batch_slot batch[MAX_BATCH_SLOTS];
	uint32_t n_rows, n_ints, n_batches;
	int32_t *int_data;
	size_t n_int_data, cap_int_data;
	struct kn_seq *seqs;
	size_t n_seqs, cap_seqs;
	/* Lists of attention's work, room each per batch. */
	struct gk_work *work;
	struct gk_merge *merge;
	uint32_t plan_room;
	/* The blob: on the device at one place for all programs, on the host pinned, two in turn: one is filled while
	 * the other may still be read. */
	char *host, *device; /* host: hosts[turn] */
	char *hosts[2];
	void *copied[2]; /* events behind the copies out of them */
	unsigned turn;
	size_t bytes, cap;
};

/* ---- Picks of logits: picks.c ---- */

/* One call whose results are not with the caller yet. */
struct gpu_pick_call {
	enum { PICKS_NONE, PICKS_RECORDED, PICKS_COMING } state;
	char *host; /* pinned, as gpu_picks.device */
	uint64_t flight;
	uint32_t n, n_best;
	struct kn_best *ret_best;
	struct kn_picked *ret;
};

struct gpu_picks {
	char *device; /* what is asked and what is got, [cap] rows; of the last call, until the next one runs */
	uint32_t cap;
	struct gpu_pick_call call[KN_MAX_AHEAD];
};

/* ---- What was submitted: backend.c ---- */

struct gpu_flight {
	void *begin, *end; /* events that know their time */
	bool has_begin;
};

/* ---- Copies beside the steps: copies.c ---- */

enum { MAX_COPIES = 1024 /* one way */, N_WAYS = KN_FROM_PEER + 1 };

struct gpu_copy_way {
	void *stream;
	void *events[MAX_COPIES]; /* behind the n-th copy: [n % MAX_COPIES]; made when it is first needed */
	uint64_t n_begun, n_done;
	int error; /* nothing goes this way any more */
};

struct gpu_copies {
	struct gpu_copy_way ways[N_WAYS]; /* by enum kn_way */
	int peer;                         /* the device that copies KN_FROM_PEER come from */
	bool is_open;
};

/* ---- Programs: program.c ---- */

enum gpu_fused { F_ONE, F_QKV, F_BATCH, F_ADD_NORM, F_ROUTER };

/* Records [first, first + n) as one launch, or n_mats products of one shape. */
struct gpu_launch {
	uint8_t kind;
	bool gated;    /* F_ONE of a product: the activation behind it too */
	uint32_t norm; /* F_ONE of a product: the record of the norm before it; UINT32_MAX: none */
	/* F_ONE of a product by eight bits: one more than the record before it (a norm, an activation) that makes its
	 * input, which is written nowhere else; 0: none. */
	uint32_t maker;
	/* F_ONE of products by eight bits of our own: gate and up give what is activated to the product behind it, in
	 * eight bits; that product has it from them, not from `maker`. */
	bool hands, handed;
	uint32_t first, n;
	uint32_t batch; /* F_BATCH */
};

struct gpu_mat_batch {
	struct gpu_act x, out;
	uint64_t x_step, out_step;
	const struct gk_mat *mats; /* device */
	uint32_t n_mats;
	struct gk_mat shape;
};

/* Where an allocation's rows are in a program: see join.c. */
struct gpu_place {
	uint32_t home, column, ld, width;
};

/* One message: kind of enum gpu_comm_op, rows as they are bounded. sum: how many launches of our own are before it. */
struct gpu_message {
	uint32_t kind, elem, rows, dim, sum;
};

struct gpu_program {
	uint64_t hash;
	uint64_t *key; /* bounds of the step's slots, then the records */
	size_t key_words;
	const union gpu_rec **recs; /* into key */
	uint32_t n_recs;
	/* By allocation, [n_allocs]. */
	bool *is_bf16, *reads_first, *writes;
	struct gpu_place *place; /* ld 0: as the caller has it */
	uint32_t n_allocs;
	struct gpu_launch *launches; /* [n_recs] */
	uint32_t n_launches;
	struct gpu_mat_batch *batches; /* [n_recs] */
	uint32_t n_batches;
	/* Between ranks (comm.c); by_library: some go by it, so that it is never kept as a graph. */
	struct gpu_message *messages;
	uint32_t n_messages, n_sums; /* n_sums: launches of our own */
	uint64_t form;               /* of the messages: the same on all ranks */
	bool by_library;
	void *graph;
	bool no_graph; /* a capture failed once */
	uint64_t n_runs, last_used;
};

enum { MAX_PROGRAMS = 96 };

struct gpu_gemm; /* gemm.h */
struct gpu_comm; /* comm.h */
struct gpu_sources;

struct gpu_backend {
	struct kn_backend base;
	struct kn_ops ops; /* the table, its name that of the kind */
	struct gpu_rt rt;
	struct gk_ctx ctx;
	struct gpu_gemm *gemm;                  /* NULL: none */
	struct gpu_comm *comm;                  /* of the group that it is a rank of; NULL: none */
	struct kn_backend *group[KN_MAX_RANKS]; /* of the first rank: all of them */
	bool exact, deterministic;
	struct kn_gpu_rows library_rows;
	bool no_fusion;      /* tests: every record its own launch */
	uint32_t least_rows; /* bounds of rows are no less, where there is room for so many */
	uint32_t max_tokens;
	struct gk_limits limits, scratch_for;
	struct gpu_heap heap;
	struct gpu_sources *sources; /* NULL: none */
	struct gpu_chunk *chunks;
	uint32_t n_chunks, last_chunk;
	uint32_t scale_chunk; /* where scales of FP8 go; UINT32_MAX: none yet */
	uint64_t last_mat_id;
	struct gpu_table *tables;
	uint32_t n_tables, next_table; /* the one that is probably asked for next */

	/* The program being recorded. */
	uint64_t *words;
	size_t n_words, cap_words;
	uint32_t last_rec; /* in words, of the last record; UINT32_MAX: none */
	struct gpu_step step;
	struct gpu_picks picks;
	struct gpu_flight flights[KN_MAX_AHEAD]; /* of the n-th submit(): [n % KN_MAX_AHEAD] */
	uint64_t n_submitted, n_waited;
	struct gpu_copies copies;
	uint64_t busy_ns;
	int error; /* the first one; shows at sync */
	char error_op[64];
	void (*on_failure)(const char *backend, const char *op, const char *text);

	struct gpu_program *programs[MAX_PROGRAMS];
	uint32_t n_programs;
	struct gpu_program *last_program; /* one of them, or NULL */
	uint64_t clock;
	char *staging[2]; /* pinned */
	void *staged[2];  /* events behind the copies out of them */
	char *xbuf;       /* device: an input in another element type */
	size_t xbuf_bytes;
	char *wbuf; /* device: a matrix in bfloat16, for the library */
	size_t wbuf_bytes;
	char *qbuf; /* device: an input in eight bits, for the library */
	size_t qbuf_bytes;
	char *handed; /* device: what gpu_launch.hands gives */
	size_t handed_bytes;
	bool capturing, is_stale; /* programs know places that are no more: forget them when this one is done */
	char *raw;                /* device: matrices as they are in files, before they are packed; NULL: none yet */
	size_t raw_bytes;
};

enum { STAGING_BYTES = 16 << 20 };

static inline struct gpu_backend *gpu_of(struct kn_backend *be)
{
	return (struct gpu_backend *)be;
}

/* The first failure stays. op: borrowed. */
void gpu_fail(struct gpu_backend *be, int error, const char *op);

/* backend.c: before the first launch of what will be submitted. */
int gpu_flight_begin(struct gpu_backend *be);
/* Waits for all that is under way, and hands out what came with it. */
int gpu_flights_end(struct gpu_backend *be);
/* Copies through pinned memory; the host waits for no more than a free buffer. */
int gpu_send(struct gpu_backend *be, char *dst, const char *src, size_t bytes);
/* An allocation in bfloat16 becomes float32 for good. */
int gpu_expand(struct gpu_backend *be, uint32_t alloc);
/* The same for those whose rows are in this one's memory, which is about to be written. */
int gpu_settle(struct gpu_backend *be, uint32_t home);

/* mat.c */
int gpu_mat_init(struct kn_backend *be, struct kn_mat *m);
void gpu_mat_done(struct kn_backend *be, struct kn_mat *m);
void gpu_mats_close(struct gpu_backend *be);
/* be->raw has at least so many bytes; it may move, behind what uses it. */
int gpu_raw_room(struct gpu_backend *be, size_t bytes);
/* The same descriptions in device memory, made at the first call. NULL: no memory. */
const struct gk_mat *gpu_mat_table(struct gpu_backend *be, const struct gk_mat *mats, uint32_t n);
/* Of an array of matrices that stay as they are, up to KN_MAX_EXPERTS: it is known again by its place. */
const struct gk_mat *gpu_mat_table_of(struct gpu_backend *be, const struct kn_mat *mats, uint32_t n);

/* source.c: kn_ops.source. */
int gpu_source(struct kn_backend *be, const struct kn_source *source);
/* bytes at src, to dst, or packed as all rows of mat: on their way when it returns, in order with what is launched
 * after gpu_sources_finish(). -ENOENT: src is in no file that is known. A failure may be that of an earlier piece. */
int gpu_source_copy(struct gpu_backend *be, char *dst, const void *src, size_t bytes);
int gpu_source_pack(struct gpu_backend *be, const struct gk_mat *mat, const void *src, size_t row_bytes);
/* Everything is launched that was on its way. */
int gpu_sources_finish(struct gpu_backend *be);

/* record.c: the table's operations, and record_recurrent.c's and record_comm.c's */
void gpu_record_ops(struct kn_ops *ops);
void gpu_record_recurrent_ops(struct kn_ops *ops);
void gpu_record_comm_ops(struct kn_ops *ops);
/* A zeroed record of n rows, or of the rows of these sequences, behind the others; its place may move with the next.
 * NULL: nothing to do, or no memory. */
void *gpu_record_rows(struct gpu_backend *be, enum gpu_op op, size_t bytes, size_t n);
void *gpu_record_batch(struct gpu_backend *be, enum gpu_op op, size_t bytes, const struct kn_seq *seqs, size_t n_seqs);
struct gpu_act gpu_record_act(struct gpu_backend *be, const float *p, size_t ld, size_t width, uint16_t rows,
                              const char *op);
/* What waits for the next operation is put down. */
void gpu_record_finish(struct gpu_backend *be);

/* step.c */
uint16_t gpu_step_rows(struct gpu_backend *be, size_t n);
uint16_t gpu_step_ints(struct gpu_backend *be, const int32_t *values, size_t n, uint16_t rows);
/* n_kv_head 0: a store, which any plan serves. */
uint16_t gpu_step_batch(struct gpu_backend *be, const struct kn_seq *seqs, size_t n_seqs, uint32_t page_tokens,
                        uint32_t n_kv_head, uint32_t group);
/* Adds one value to the slot's array, which is the last one made. */
void gpu_step_ints_append(struct gpu_backend *be, uint16_t slot, int32_t value);
/* Bounds, plans and places of everything recorded, and the blob itself. */
int gpu_step_layout(struct gpu_backend *be);
int gpu_step_send(struct gpu_backend *be);
void gpu_step_reset(struct gpu_backend *be);
void gpu_step_close(struct gpu_backend *be);
struct gk_rows gpu_rows_of(const struct gpu_backend *be, uint16_t slot);
const int32_t *gpu_ints_of(const struct gpu_backend *be, uint16_t slot);
void gpu_batch_of(const struct gpu_backend *be, uint16_t slot, struct gk_batch *ret);

/* picks.c. What the last call drew, on the device; NULL before the first one. */
const struct kn_picked *gpu_picks_drawn(const struct gpu_backend *be);
/* What was recorded has to run before a call of n rows is. */
bool gpu_picks_collide(const struct gpu_backend *be, size_t n);
/* Places of the call's rows on the device, into *ret_pick. */
int gpu_picks_begin(struct gpu_backend *be, const struct kn_pick *picks, size_t n, uint32_t n_best,
                    struct kn_best *ret_best, struct kn_picked *ret, struct gk_pick *ret_pick);
/* Around the program that holds it; nothing without one. */
int gpu_picks_send(struct gpu_backend *be);
int gpu_picks_fetch(struct gpu_backend *be);
/* The program that holds it does not run. */
void gpu_picks_drop(struct gpu_backend *be);
/* To the callers' arrays, what came with flights before this one; they were waited for. */
void gpu_picks_deliver(struct gpu_backend *be, uint64_t flight);
void gpu_picks_close(struct gpu_backend *be);

/* copies.c: kn_ops.copy_begin and those beside it. */
void gpu_copies_ops(struct kn_ops *ops);
void gpu_copies_close(struct gpu_backend *be);

/* types.c: who reads and writes what */
enum { ACCESS_READ = 1, ACCESS_WRITE = 2, ACCESS_F32 = 4 /* no kernel takes bfloat16 there */ };
struct gpu_access {
	const struct gpu_act *act;
	uint32_t width; /* elements of a row */
	unsigned flags;
};
enum { MAX_ACCESSES = 1 + GK_MAX_JOBS };
/* Reads first. */
uint32_t gpu_accesses(const union gpu_rec *rec, struct gpu_access *ret);
void gpu_choose_types(struct gpu_backend *be, struct gpu_program *p);

/* join.c: outputs of several matrices on one input, side by side */
void gpu_join_outputs(struct gpu_backend *be, struct gpu_program *p);

/* fuse.c */
int gpu_fuse(struct gpu_backend *be, struct gpu_program *p);
/* A product of few rows, weights streamed once. */
bool gpu_is_few(const struct gpu_backend *be, const union gpu_rec *rec);

struct gpu_qkv_parts {
	const struct rec_norm *q_norm, *k_norm;
	const struct rec_rope *rope_q, *rope_k;
	const struct rec_kv_store *store;
	bool norm_after_rope;
};
/* The records from i on that are one gk_qkv_store(): 0, or how many. */
uint32_t gpu_qkv_parts(const union gpu_rec *const *recs, uint32_t i, uint32_t n, struct gpu_qkv_parts *ret);

/* issue.c: all launches of the program, onto the stream */
int gpu_issue(struct gpu_backend *be, const struct gpu_program *p);

/* program.c: runs what was recorded; afterwards nothing is */
void gpu_flush(struct gpu_backend *be);
void gpu_programs_close(struct gpu_backend *be);
void gpu_programs_forget(struct gpu_backend *be);

#endif
