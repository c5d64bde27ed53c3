/* Attention of prompts on Hopper: what is left to attention_prompts.h, and launches. The kernel: hopper_kernel.h.
 *
 * Windows, caps, e4m3 and heads of 256 are the same code but for what a flag adds when it is compiled
 * (attention_kinds_sm90.cu). Left to attention_prompts.h: other types, sizes of heads and pages. Latents have a kernel
 * of their own for prompts, too (attention_mla.h), so no model asks for keys of 192 beside values of 128. */
#include <errno.h>

#include "gpu/hopper_kernel.h"
#include "gpu/sm90_launch.h"

/* Nobody says how many pages a pool has; no row beyond them is asked for. */
static bool map_of(sm90_map *map, void *pool, uint32_t dim, uint32_t box_rows)
{
	return sm90_map_of(map, pool, 2, 1u << 30, dim, (size_t)dim * 2, box_rows);
}

/* The kernel that takes these; HOPPER_NONE: none. */
enum { HOPPER_NONE = -1, MIN_PAGE_SHIFT = 3 /* a tile's swizzle repeats every eight rows */ };

static int kind_of(const attn_args &a)
{
	const uint32_t dim = a.kv.k_dim;
	const bool eight = a.kv.dtype == KN_F8_E4M3, capped = a.softcap > 0.0f;

	if ((dim != 64 && dim != 128 && dim != 256) || a.kv.v_dim != dim || !a.kv.v || !a.direct ||
	    a.page_shift < MIN_PAGE_SHIFT || a.scale <= 0.0f || a.q.elem != GK_BF16 || !a.whole || (eight && capped))
		return HOPPER_NONE;
	if (eight)
		return HOPPER_EIGHT | HOPPER_WINDOW;
	if (capped)
		return HOPPER_CAP | HOPPER_WINDOW;
	return a.window || dim > 128 ? HOPPER_WINDOW : HOPPER_PLAIN;
}

bool attn_hopper_takes(const struct gk_ctx *ctx, const attn_args &a)
{
	const int kind = kind_of(a);
	sm90_map map;

	return ctx->sm == 90 && kind != HOPPER_NONE &&
	       hopper_kind_shared(a.kv.k_dim, kind) <= ctx->smem_bytes && map_of(&map, a.kv.k, a.kv.k_dim, 8);
}

int attn_hopper_launch(const struct gk_ctx *ctx, const attn_args &a, uint32_t max_work)
{
	const uint32_t dim = a.kv.k_dim;
	const int kind = kind_of(a), tile_shift = dim > 128 ? (int)hopper_shape<256, 0>::KEYS_SHIFT
	                                                    : (int)hopper_shape<128, 0>::KEYS_SHIFT;
	hopper_args args = {};
	uint32_t items, grid;

	args.a = a;
	args.a.row_blocks = (GK_TILE_TOKENS * a.group + HOPPER_ROWS - 1) / HOPPER_ROWS;
	args.box_shift = a.page_shift < tile_shift ? a.page_shift : tile_shift;
	args.next = ctx->counters;
	args.whole_out = a.out.elem == GK_BF16 && gk_view_aligned(a.out);
	if (!(kind & HOPPER_EIGHT) && (!map_of(&args.k, a.kv.k, dim, 1u << args.box_shift) ||
	                               !map_of(&args.v, a.kv.v, dim, 1u << args.box_shift)))
		return -EINVAL;
	items = max_work * a.kv.n_kv_head * args.a.row_blocks;
	grid = items < ctx->n_sm ? items : ctx->n_sm;
	if (kind != HOPPER_PLAIN)
		hopper_kind_launch(ctx, args, kind, grid);
	else if (dim == 64)
		hopper_launch<64, HOPPER_PLAIN>(ctx, args, grid);
	else
		hopper_launch<128, HOPPER_PLAIN>(ctx, args, grid);
	return 0;
}
