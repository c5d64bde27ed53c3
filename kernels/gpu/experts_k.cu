/* experts.h and pairs.h for the types of 256 values a block. */
#include "gpu/experts.h"
#include "gpu/pairs.h"

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

bool pairs_launch_k(uint32_t type, const pairs_launch &l)
{
	switch (type) {
	case KN_Q4_K:
		return pairs_launch_type<KN_Q4_K>(l);
	case KN_Q5_K:
		return pairs_launch_type<KN_Q5_K>(l);
	case KN_Q6_K:
		return pairs_launch_type<KN_Q6_K>(l);
	default:
		return false;
	}
}
