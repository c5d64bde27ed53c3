/* few.h for the types of 32 values a block. */
#include "gpu/few.h"

bool few_launch_blocks(uint32_t type, const few_launch &l)
{
	switch (type) {
	case KN_Q8_0:
		return few_launch_type<KN_Q8_0>(l);
	case KN_Q4_0:
		return few_launch_type<KN_Q4_0>(l);
	case KN_Q4_1:
		return few_launch_type<KN_Q4_1>(l);
	case KN_Q5_0:
		return few_launch_type<KN_Q5_0>(l);
	case KN_Q5_1:
		return few_launch_type<KN_Q5_1>(l);
	case KN_MXFP4:
		return few_launch_type<KN_MXFP4>(l);
	default:
		return false;
	}
}
