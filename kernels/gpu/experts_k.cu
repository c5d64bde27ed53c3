/* experts.h for the types of 256 values a block. */
#include "gpu/experts.h"

bool experts_launch_k(uint32_t type, const experts_launch &l)
{
	switch (type) {
	case KN_Q4_K:
		return experts_launch_type<KN_Q4_K>(l);
	case KN_Q5_K:
		return experts_launch_type<KN_Q5_K>(l);
	case KN_Q6_K:
		return experts_launch_type<KN_Q6_K>(l);
	default:
		return false;
	}
}

bool chosen_launch_k(uint32_t type, const gk_ctx *ctx, const chosen_args &a)
{
	switch (type) {
	case KN_Q4_K:
		return chosen_launch_type<KN_Q4_K>(ctx, a);
	case KN_Q5_K:
		return chosen_launch_type<KN_Q5_K>(ctx, a);
	case KN_Q6_K:
		return chosen_launch_type<KN_Q6_K>(ctx, a);
	default:
		return false;
	}
}
