/* many.h for the types of 256 values a block. */
#include "gpu/many.h"

bool many_launch_k(uint32_t type, const many_launch &l)
{
	switch (type) {
	case KN_Q4_K:
		return many_launch_type<KN_Q4_K>(l);
	case KN_Q5_K:
		return many_launch_type<KN_Q5_K>(l);
	case KN_Q6_K:
		return many_launch_type<KN_Q6_K>(l);
	default:
		return false;
	}
}
