/* experts.h for matrices of 16 bits and FP8. */
#include "gpu/experts.h"

bool experts_launch_16bit(uint32_t type, const experts_launch &l)
{
	switch (type) {
	case KN_BF16:
		return experts_launch_type<KN_BF16>(l);
	case KN_F16:
		return experts_launch_type<KN_F16>(l);
	case GK_FP8_128:
		return experts_launch_type<GK_FP8_128>(l);
	default:
		return false;
	}
}

bool chosen_launch_16bit(uint32_t type, const gk_ctx *ctx, const chosen_args &a)
{
	switch (type) {
	case KN_BF16:
		return chosen_launch_type<KN_BF16>(ctx, a);
	case KN_F16:
		return chosen_launch_type<KN_F16>(ctx, a);
	case GK_FP8_128:
		return chosen_launch_type<GK_FP8_128>(ctx, a);
	default:
		return false;
	}
}
