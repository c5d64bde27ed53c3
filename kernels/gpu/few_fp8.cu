/* few.h for FP8 matrices whose values are widened two at a time. */
#include "gpu/few.h"

bool few_launch_fp8(uint32_t type, const few_launch &l)
{
#if !defined(GPU_HIP)
	if (type == GK_FP8_WIDE)
		return few_launch_type<GK_FP8_WIDE>(l);
#endif
	return false;
}
