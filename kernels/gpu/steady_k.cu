/* steady.h for the types of 256 values a block. */
#include "gpu/steady.h"

int steady_launch_k(uint32_t type, const steady_launch &l)
{
	switch (type) {
	case KN_Q4_K:
		return steady_launch_type<KN_Q4_K, 64>(l);
	case KN_Q5_K:
		return steady_launch_type<KN_Q5_K, 64>(l);
	case KN_Q6_K:
		return steady_launch_type<KN_Q6_K, 64>(l);
	default:
		return -ENOTSUP;
	}
}
