/* Attention of prompts on Hopper with windows, caps, keys and values of e4m3, and heads of 256. */
#include "gpu/hopper_kernel.h"

enum { WINDOW = HOPPER_WINDOW, CAP = HOPPER_CAP | HOPPER_WINDOW, EIGHT = HOPPER_EIGHT | HOPPER_WINDOW };

size_t hopper_kind_shared(uint32_t dim, int kind)
{
	static const uint32_t bytes[][2] = { /* by size of heads and whether they are e4m3 */
		                             { hopper_shape<64, WINDOW>::SHARED, hopper_shape<64, EIGHT>::SHARED },
		                             { hopper_shape<128, WINDOW>::SHARED, hopper_shape<128, EIGHT>::SHARED },
		                             { hopper_shape<256, WINDOW>::SHARED, hopper_shape<256, EIGHT>::SHARED }
	};

	return bytes[dim > 128 ? 2 : dim / 128][kind == EIGHT];
}

void hopper_kind_launch(const struct gk_ctx *ctx, const hopper_args &args, int kind, uint32_t grid)
{
	static void (*const launches[][3])(const struct gk_ctx *, const hopper_args &, uint32_t) = {
		{ hopper_launch<64, WINDOW>, hopper_launch<64, CAP>, hopper_launch<64, EIGHT> },
		{ hopper_launch<128, WINDOW>, hopper_launch<128, CAP>, hopper_launch<128, EIGHT> },
		{ hopper_launch<256, WINDOW>, hopper_launch<256, CAP>, hopper_launch<256, EIGHT> },
	};
	const uint32_t dim = args.a.kv.k_dim;

	launches[dim > 128 ? 2 : dim / 128][kind == EIGHT ? 2 : kind == CAP](ctx, args, grid);
}
