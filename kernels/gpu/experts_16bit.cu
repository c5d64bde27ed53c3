/* experts.h and pairs.h for matrices of 16 bits and FP8. */
#include "gpu/experts.h"
#include "gpu/pairs.h"

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

bool pairs_launch_16bit(uint32_t type, const pairs_launch &l)
{
	switch (type) {
	case KN_BF16:
		return pairs_launch_type<KN_BF16>(l);
	case KN_F16:
		return pairs_launch_type<KN_F16>(l);
	case GK_FP8_128:
		return pairs_launch_type<GK_FP8_128>(l);
	default:
		return false;
	}
}
