/* many.h for matrices of 16 bits and FP8. */
#include "gpu/many.h"

bool many_launch_16bit(uint32_t type, const many_launch &l)
{
	switch (type) {
	case KN_BF16:
		return many_launch_type<KN_BF16>(l);
	case KN_F16:
		return many_launch_type<KN_F16>(l);
	case GK_FP8_128:
		return many_launch_type<GK_FP8_128>(l);
	default:
		return false;
	}
}
