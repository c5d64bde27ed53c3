/* Inside attention: which work there is and what it reads (attn_work.c), and doing it (attention.c). */
#ifndef CPU_ATTN_H
#define CPU_ATTN_H

#include "cpu/cpu.h"

enum {
	ATTN_STEP = CPU_ATTN_TOKENS,
	ATTN_FEW_ROWS = 24, /* up to as many take the ordinary kernels */
};

enum attn_kernels { ATTN_BY_ROWS, ATTN_FOR_FEW, ATTN_FOR_MANY };

/* What the items of a parallel loop are. */
enum attn_loop {
	ATTN_TILES,  /* tiles with all their keys */
	ATTN_SHARED, /* some members of a share, one head, one part of the keys that they share */
	ATTN_PARTS,  /* tiles with one part of the keys that they see alone */
};

struct attn_call {
	struct cpu_backend *cpu;
	enum attn_kernels kernels;
	enum attn_loop loop;
	float *out;
	size_t ld_out;
	const float *q;
	size_t ld_q;
	const struct kn_kv *kv;
	const struct kn_seq *seqs;
	size_t n_seqs;
	const struct kn_attn *attn;
	uint32_t n_rep; /* query heads per K/V head */
	size_t tile_rows, q_pad, o_pad;
	const struct cpu_share *shares;
	size_t n_shares;
	uint32_t split; /* keys per part, whole steps */
	size_t n_parts; /* of the longest sequence */
	/* Results of parts, [tiles][n_parts]: m [part_rows], l [part_rows], o [part_rows][o_pad]. */
	float *parts;
	size_t part_rows, part_floats;
	_Atomic uint32_t *n_missing; /* [tiles] parts of their own that are not computed yet */
};

/* Some rows of one query group of one sequence. Row r is token first_row + r ... of the flattened
 * [token][head of the group]. */
struct attn_tile {
	const struct kn_seq *seq;
	uint32_t kv_head;
	size_t first_row, n_rows;
	uint32_t pos_lo, pos_hi; /* of the first and last row */
	uint32_t key_lo, key_hi; /* keys seen by any row: [lo, hi) */
	bool many;               /* rows for the kernels for many */
	const uint32_t *members; /* single tokens of these sequences, on keys that all see; or NULL */
};

/* An item of a loop. */
struct attn_item {
	struct attn_tile t;
	size_t tile;                   /* its number in the call, or */
	const struct cpu_share *share; /* whose members [first, first + n_members) these are */
	size_t first, n_members;
	uint32_t part, lo, hi; /* keys [lo, hi), lo divisible by the step; none when lo is not below hi */
	bool resumes;          /* goes on within a part that a share began */
};

/* A thread's way through its items. */
struct attn_walk {
	const struct attn_call *c;
	size_t left;              /* items */
	size_t index;             /* of the next one, in its sequence or share */
	const struct kn_seq *seq; /* its sequence */
	size_t first_tile;        /* of that */
	const struct cpu_share *share;
};

/* The same way, a little ahead: what is to be read is asked for. */
struct attn_ahead {
	struct attn_walk walk;
	struct attn_item item;
	uint32_t begin, end, at; /* keys of the step, and how far into it */
	bool values;             /* its keys have been asked for, its values are */
	bool done;
};

static inline uint32_t attn_row_pos(const struct attn_call *c, const struct kn_seq *seq, size_t row)
{
	return seq->kv_len - seq->n_q + (uint32_t)(row / c->n_rep);
}

static inline uint32_t attn_first_key(const struct attn_call *c, uint32_t pos)
{
	return c->attn->window && pos + 1 > c->attn->window ? pos + 1 - c->attn->window : 0;
}

/* Tiles of one query group. */
static inline size_t attn_tiles(const struct attn_call *c, const struct kn_seq *seq)
{
	size_t rows = (size_t)seq->n_q * c->n_rep;

	return rows <= c->tile_rows ? 1 : (rows + c->tile_rows - 1) / c->tile_rows;
}

static inline size_t attn_elem(const struct attn_call *c)
{
	return c->kv->dtype == KN_F32 ? 4 : 2;
}

/* Keys [from, to) lie in a run of this page: how many, and where. */
static inline size_t attn_page_run(const struct attn_call *c, const struct attn_tile *t, uint32_t from, uint32_t to,
                                   const void **ret_k, const void **ret_v)
{
	const struct kn_kv *kv = c->kv;
	uint32_t page = t->seq->pages[from / kv->page_tokens], at = from % kv->page_tokens, n = kv->page_tokens - at;
	size_t slot = ((size_t)page * kv->n_kv_head + t->kv_head) * kv->page_tokens + at, elem = attn_elem(c);

	*ret_k = (const char *)kv->k + slot * kv->k_dim * elem;
	*ret_v = kv->v ? (const char *)kv->v + slot * kv->v_dim * elem : *ret_k;
	return n < to - from ? n : to - from;
}

/* Whether so many rows take the kernels for many. */
bool cpu_attn_takes_many(const struct attn_call *c, size_t n_rows);

/* Items of c->loop. */
size_t cpu_attn_items(const struct attn_call *c);
/* How many parts of tile `tile` of the sequence, counted over its heads, are items of ATTN_PARTS. */
uint32_t cpu_attn_own_parts(const struct attn_call *c, const struct kn_seq *seq, size_t tile);

/* Items [begin, end) of c->loop. */
void cpu_attn_walk_begin(struct attn_walk *w, const struct attn_call *c, size_t begin, size_t end);
/* False: there are no more. */
bool cpu_attn_walk_next(struct attn_walk *w, struct attn_item *ret);

/* Asks for the first rows of items [begin, end). */
void cpu_attn_ahead_begin(struct attn_ahead *a, const struct attn_call *c, size_t begin, size_t end);
/* As many rows more: called with each use of so many keys, and of so many values where they are stored apart. Returns
 * where they are, one after the other, for the caller to ask for, and may make them fewer, as many as the caller should
 * use at a time, too. NULL: they have been asked for, or there are none. */
const void *cpu_attn_ahead_take(struct attn_ahead *a, size_t *n_rows, size_t row_bytes);
/* As many more, asked for here. */
void cpu_attn_ahead_ask(struct attn_ahead *a, size_t n_rows);

#endif
