/* few.h for the types of 256 values a block. */
#include "gpu/few.h"

bool few_launch_k(uint32_t type, const few_launch &l)
{
	switch (type) {
	case KN_Q4_K:
		return few_launch_type<KN_Q4_K>(l);
	case KN_Q5_K:
		return few_launch_type<KN_Q5_K>(l);
	case KN_Q6_K:
		return few_launch_type<KN_Q6_K>(l);
	default:
		return false;
	}
}
