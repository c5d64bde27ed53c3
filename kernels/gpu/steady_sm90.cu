/* steady_sm90.h: which tile for how many rows. */
#include "gpu/steady_sm90.h"

template <int N> static int of_16_bits(const steady_launch &l)
{
	return s90_launch<KN_BF16, N>(l, l.args->gated ? steady90_kernel<N, true> : steady90_kernel<N, false>);
}

int steady_launch_sm90(uint32_t type, const steady_launch &l)
{
	const uint32_t n = l.args->n_rows;

	switch (type) {
	case KN_BF16:
		return n <= 32 ? of_16_bits<32>(l) : n <= 64 ? of_16_bits<64>(l) : of_16_bits<128>(l);
	case GK_FP8_128:
		return s90_launch_scaled<GK_FP8_128>(l);
	case KN_Q8_0:
		return s90_launch_scaled<KN_Q8_0>(l);
	case KN_Q4_0:
		return s90_launch_scaled<KN_Q4_0>(l);
	default:
		return -ENOTSUP;
	}
}
