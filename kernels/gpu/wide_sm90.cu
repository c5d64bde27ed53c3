/* moe_sm90.h for all types. */
#include "gpu/moe_sm90.h"

bool wide_launch_any(uint32_t type, const wide_launch &l)
{
	switch (type) {
	case KN_BF16:
		return wide_launch_type<KN_BF16>(l);
	case KN_F16:
		return wide_launch_type<KN_F16>(l);
	case GK_FP8_128:
		return wide_launch_type<GK_FP8_128>(l);
	case KN_Q8_0:
		return wide_launch_type<KN_Q8_0>(l);
	case KN_MXFP4:
		return wide_launch_type<KN_MXFP4>(l);
	case KN_Q4_0:
		return wide_launch_type<KN_Q4_0>(l);
	case KN_Q4_1:
		return wide_launch_type<KN_Q4_1>(l);
	case KN_Q5_0:
		return wide_launch_type<KN_Q5_0>(l);
	case KN_Q5_1:
		return wide_launch_type<KN_Q5_1>(l);
	case KN_Q4_K:
		return wide_launch_type<KN_Q4_K>(l);
	case KN_Q5_K:
		return wide_launch_type<KN_Q5_K>(l);
	case KN_Q6_K:
		return wide_launch_type<KN_Q6_K>(l);
	default:
		return false;
	}
}
