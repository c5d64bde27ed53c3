/* experts.h for the types of 32 values a block. */
#include "gpu/experts.h"

bool experts_launch_blocks(uint32_t type, const experts_launch &l)
{
	switch (type) {
	case KN_Q8_0:
		return experts_launch_type<KN_Q8_0>(l);
	case KN_MXFP4:
		return experts_launch_type<KN_MXFP4>(l);
	case KN_Q4_0:
		return experts_launch_type<KN_Q4_0>(l);
	case KN_Q4_1:
		return experts_launch_type<KN_Q4_1>(l);
	case KN_Q5_0:
		return experts_launch_type<KN_Q5_0>(l);
	case KN_Q5_1:
		return experts_launch_type<KN_Q5_1>(l);
	default:
		return false;
	}
}

bool chosen_launch_blocks(uint32_t type, const gk_ctx *ctx, const chosen_args &a)
{
	switch (type) {
	case KN_Q8_0:
		return chosen_launch_type<KN_Q8_0>(ctx, a);
	case KN_MXFP4:
		return chosen_launch_type<KN_MXFP4>(ctx, a);
	case KN_Q4_0:
		return chosen_launch_type<KN_Q4_0>(ctx, a);
	case KN_Q4_1:
		return chosen_launch_type<KN_Q4_1>(ctx, a);
	case KN_Q5_0:
		return chosen_launch_type<KN_Q5_0>(ctx, a);
	case KN_Q5_1:
		return chosen_launch_type<KN_Q5_1>(ctx, a);
	default:
		return false;
	}
}
