/* experts.h and pairs.h for the types of 32 values a block. */
#include "gpu/experts.h"
#include "gpu/pairs.h"

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

bool pairs_launch_blocks(uint32_t type, const pairs_launch &l)
{
	switch (type) {
	case KN_Q8_0:
		return pairs_launch_type<KN_Q8_0>(l);
	case KN_MXFP4:
		return pairs_launch_type<KN_MXFP4>(l);
	case KN_Q4_0:
		return pairs_launch_type<KN_Q4_0>(l);
	case KN_Q4_1:
		return pairs_launch_type<KN_Q4_1>(l);
	case KN_Q5_0:
		return pairs_launch_type<KN_Q5_0>(l);
	case KN_Q5_1:
		return pairs_launch_type<KN_Q5_1>(l);
	default:
		return false;
	}
}
