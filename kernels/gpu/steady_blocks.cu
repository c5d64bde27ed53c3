/* steady.h for the types of 32 values a block. */
#include "gpu/steady.h"

int steady_launch_blocks(uint32_t type, const steady_launch &l)
{
	switch (type) {
	case KN_Q8_0:
		return steady_launch_type<KN_Q8_0, 64>(l);
	case KN_Q4_0:
		return steady_launch_type<KN_Q4_0, 64>(l);
	case KN_Q4_1:
		return steady_launch_type<KN_Q4_1, 64>(l);
	case KN_Q5_0:
		return steady_launch_type<KN_Q5_0, 64>(l);
	case KN_Q5_1:
		return steady_launch_type<KN_Q5_1, 64>(l);
	case KN_MXFP4:
		return steady_launch_type<KN_MXFP4, 64>(l);
	default:
		return -ENOTSUP;
	}
}
