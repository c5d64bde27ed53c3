/* Attention of prompts on Hopper: what those who bring (hopper_bring.h) and those who compute (hopper_compute.h) of a
 * block share, and what there is of it for which heads, keys and values. The whole of it: hopper_kernel.h. */
#ifndef GPU_HOPPER_ATTENTION_H
#define GPU_HOPPER_ATTENTION_H

#include "gpu/attention_sm90.h"
#include "gpu/sm90.h"

enum {
	HOPPER_ROWS = 128, /* of an item; half of them for each warpgroup */
	HOPPER_GROUPS = 2,
	HOPPER_COMPUTE = HOPPER_GROUPS * SM90_GROUP,
	HOPPER_BRING = HOPPER_COMPUTE,      /* first thread of the warp that takes items */
	HOPPER_QUERIES = HOPPER_BRING + 64, /* of the two that copy queries */
	HOPPER_CONVERT =
	        HOPPER_BRING + SM90_GROUP, /* and of the warpgroup that widens keys and values, if there is one */
	HOPPER_QUERY_THREADS = HOPPER_CONVERT - HOPPER_QUERIES,
	HOPPER_READERS = HOPPER_COMPUTE / 32,
	HOPPER_CONVERTERS = SM90_GROUP / 32,
	HOPPER_TURN = 1,      /* named barriers: a warpgroup may begin its products */
	HOPPER_ALONE = 3,     /* the threads of one warpgroup */
	HOPPER_SIGNALS = 512, /* bytes for barriers */
};

/* What a kernel knows beyond prompts whose rows see all keys up to their own. Each is resolved when it is compiled: one
 * without them is the same code as if there were none. */
enum {
	HOPPER_PLAIN = 0,
	HOPPER_WINDOW = 1, /* rows may see the last so many keys only */
	HOPPER_CAP = 2,    /* scores are capped */
	HOPPER_EIGHT = 4,  /* keys and values are e4m3 */
};

struct hopper_args {
	attn_args a;
	sm90_map k, v;
	int box_shift;  /* log2 of the tokens of a box: those of a page, at most a tile's */
	uint32_t *next; /* items taken so far beyond each block's first; zero before and after. NULL: in fixed order */
	bool whole_out; /* results may be written 16 bytes at a time, and are bfloat16 */
};

/* Of those that are not plain, heads of dim values: bytes of shared memory; and the launch. */
size_t hopper_kind_shared(uint32_t dim, int kind);
void hopper_kind_launch(const struct gk_ctx *ctx, const hopper_args &args, int kind, uint32_t grid);

/* Sizes by heads and kind. A thread that computes has its rows' sums in registers, HD / 2 of them, so with large heads
 * tiles are of fewer keys, and there is room for one item's queries only.
 *
 * e4m3 become binary16, exactly, on their way from one place in shared memory to another, by a warpgroup of its own;
 * queries and weights are made binary16, too (which is more of them than bfloat16 would keep). Products of eight bits
 * would need rows and weights of eight bits: 2.6 % of a value each, where the kernels for all devices lose less than
 * one. */
template <int HD, int KIND> struct hopper_shape {
	enum {
		EIGHT = (KIND & HOPPER_EIGHT) != 0,
		WINDOW = (KIND & HOPPER_WINDOW) != 0,
		CAP = (KIND & HOPPER_CAP) != 0,
		KEYS = HD > 128 ? 64 : 128, /* of a tile */
		KEYS_SHIFT = HD > 128 ? 6 : 7,
		Q_SLOTS = HD > 128 ? 1 : 2,
		HALVES = HD / 64, /* of a row: tiles of 64 columns lie one after the other */
		CHUNKS = HD / 8,
		THREADS = HOPPER_CONVERT + (EIGHT ? (int)SM90_GROUP : 0),
		ITEM_READERS = HOPPER_READERS + HOPPER_QUERY_THREADS / 32 + (EIGHT ? (int)HOPPER_CONVERTERS : 0),
		/* Registers of a thread that brings or widens, and of one that computes: 65,536 in all. */
		LEAN = EIGHT ? 48 : 40,
		RICH = EIGHT ? 208 : 232,
		Q_HALF = SM90_GROUP / 2 * SM90_TILE_ROW, /* bytes: 64 rows, 64 columns */
		KV_HALF = KEYS * SM90_TILE_ROW,
		Q_BYTES = HOPPER_ROWS * HD * 2,
		KV_BYTES = KEYS * HD * 2,
		RAW_BYTES = EIGHT ? KEYS * HD : 0, /* one of keys, one of values */
		SIGNALS_AT = Q_SLOTS * Q_BYTES + 4 * KV_BYTES + 2 * RAW_BYTES,
		SHARED = SIGNALS_AT + HOPPER_SIGNALS + SM90_ALIGN,
	};
};

#if SM90_CODE

struct hopper_item {
	uint32_t token_row;                              /* of activations: the first token's */
	uint32_t pos;                                    /* of it, in the sequence */
	uint32_t row0, n_rows, kv_head, kv_len, n_tiles; /* no tiles: there are no more items */
};

struct hopper_signals {
	sm90_bar k_full[2], k_empty[2], v_full[2], v_empty[2], q_full[2], q_empty[2], item_full[2], item_empty[2];
	hopper_item items[2];
	uint32_t first_tile[2];             /* of the items; with windows only */
	sm90_bar raw_full[2], raw_empty[2]; /* of keys, of values; e4m3 only */
};
static_assert(sizeof(hopper_signals) <= HOPPER_SIGNALS, "they have room");

/* Of use number n of what exists twice. */
GPU_FN uint32_t hopper_parity(uint32_t n)
{
	return n >> 1 & 1;
}

template <int HD, int KIND> struct hopper_memory {
	typedef hopper_shape<HD, KIND> shape;
	uint8_t *base;

	/* Where queries of item number n are, those of a warpgroup; parity of that place's use. */
	__device__ __forceinline__ static uint32_t q_slot(uint32_t n)
	{
		return n % shape::Q_SLOTS;
	}
	__device__ __forceinline__ static uint32_t q_parity(uint32_t n)
	{
		return n / shape::Q_SLOTS & 1;
	}
	__device__ __forceinline__ uint8_t *q(uint32_t n, uint32_t group) const
	{
		return base + q_slot(n) * shape::Q_BYTES + group * (shape::Q_BYTES / HOPPER_GROUPS);
	}
	__device__ __forceinline__ uint8_t *k(uint32_t stage) const
	{
		return base + shape::Q_SLOTS * shape::Q_BYTES + stage * shape::KV_BYTES;
	}
	__device__ __forceinline__ uint8_t *v(uint32_t stage) const
	{
		return base + shape::Q_SLOTS * shape::Q_BYTES + 2 * shape::KV_BYTES + stage * shape::KV_BYTES;
	}
	/* As they are in the pool: 0, keys; 1, values. */
	__device__ __forceinline__ uint8_t *raw(uint32_t which) const
	{
		return base + shape::Q_SLOTS * shape::Q_BYTES + 4 * shape::KV_BYTES + which * shape::RAW_BYTES;
	}
	__device__ __forceinline__ hopper_signals *signals() const
	{
		return (hopper_signals *)(base + shape::SIGNALS_AT);
	}
};

#endif
#endif
