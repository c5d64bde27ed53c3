/* steady.h for matrices of 16 bits and FP8. */
#include "gpu/steady.h"

int steady_launch_16bit(uint32_t type, const steady_launch &l)
{
	switch (type) {
	case KN_BF16:
		return steady_launch_type<KN_BF16, 128>(l);
	case KN_F16:
		return steady_launch_type<KN_F16, 64>(l);
	case GK_FP8_128:
		return steady_launch_type<GK_FP8_128, 128>(l);
	default:
		return -ENOTSUP;
	}
}
