/* What the files of gpu_bench share: weights, types, how a case is said; and its cases, by file. */
#ifndef GPU_BENCH_CASES_H
#define GPU_BENCH_CASES_H

#include "bench.h"
#include "shapes.h"

/* ---- gpu_bench.cc ------------------------------------------------------------------------------------------------ */

/* Device memory with a repeated pattern of sane numbers: bf16 (or, as bytes, small scales). */
void *filled(size_t bytes);
/* One case, beside the limit that takes longer. */
void report(const char *name, double us, double bytes, double flops);

static inline struct gk_view view(void *p, uint32_t elem, uint32_t ld)
{
	struct gk_view v = { p, elem, ld };

	return v;
}

static inline struct gk_rows rows_of(uint32_t n)
{
	struct gk_rows r = { n, nullptr };

	return r;
}

struct weight_type {
	const char *name;
	uint32_t type;
	double bits;
};

inline const struct weight_type types[] = {
	{ "BF16", KN_BF16, 16 },  { "FP8", GK_FP8_128, 8 }, { "Q8_0", KN_Q8_0, 8.5 },    { "Q4_0", KN_Q4_0, 4.5 },
	{ "Q4_K", KN_Q4_K, 4.5 }, { "Q5_K", KN_Q5_K, 5.5 }, { "Q6_K", KN_Q6_K, 6.5625 }, { "F16", KN_F16, 16 },
};
enum { N_TYPES = 8 };

/* ---- gpu_bench_products.cc --------------------------------------------------------------------------------------- */

enum way { FEW, BYTES, STEADY, MANY, N_WAYS };

void bench_linear(const struct model_shape *s, int t, uint32_t n, enum way way);
/* What a library's product of a matrix costs beforehand: it in bfloat16. */
void bench_widen(const struct model_shape *s, int t);
/* A layer's router with its norm, its experts, and both as the backend launches them. */
void bench_mixture(uint32_t n);

/* ---- gpu_bench_rows.cc ------------------------------------------------------------------------------------------- */

void bench_attention(uint32_t n_seqs, uint32_t kv_len, uint32_t n_q);
void bench_small(uint32_t n);
/* What a prompt has besides products and attention: n rows, in sequences of 512 or less. */
void bench_rows_of_prompts(uint32_t n);

/* The best token of each row, as a greedy request wants. */
struct picks {
	struct kn_pick *picks;
	struct kn_best *best;
	struct kn_picked *picked;
	uint32_t n_best;
	bool filters;
};

void make_picks(struct picks *p, uint32_t n, uint32_t n_best, const struct kn_pick &how);
void drop_picks(struct picks *p);
int pick(void *logits, uint32_t n, uint32_t n_vocab, const struct picks *p);

/* ---- gpu_bench_step.cc ------------------------------------------------------------------------------------------- */

/* Launches of a step, which may be left out: what is missing from its time then is what they cost beside the others. */
enum part {
	QKV_PART = 1,
	STORE_PART = 2,
	ATTENTION_PART = 4,
	O_PART = 8,
	GATED_PART = 16,
	DOWN_PART = 32,
	HEAD_PART = 64,
	PICK_PART = 128
};

/* without: sets of parts, each a case, up to one that is 0. */
void bench_step(int t, uint32_t n_seqs, uint32_t kv_len, const char *how, const unsigned *without = nullptr);

#endif
