/* Softmax of each row, in one pass over it for maximum and sum together (online softmax: Milakov and Gimelshein, 2018), and
 * a second one that writes. One block per row; the threads' partial results meet in two steps: by shuffles within groups of 32
 * lanes, then through shared memory. */
#include "gpu.h"
#include "tutorial.h"

#include <math.h>

#define BLOCK 256
#define GROUPS (BLOCK / GPU_LANES)

/* The maximum m of some values and the sum s of exp(value - m): what two of them make together. With m = -infinity there
 * were no values, or all were -infinity. */
struct partial {
	float m, s;
};

__device__ static struct partial join(struct partial a, struct partial b)
{
	struct partial r;

	if (b.m == -INFINITY)
		return a;
	if (a.m == -INFINITY)
		return b;
	r.m = fmaxf(a.m, b.m);
	r.s = a.s * expf(a.m - r.m) + b.s * expf(b.m - r.m);
	return r;
}

/* Five exchanges, at distances 16, 8, 4, 2, 1: then every lane of the group has the group's result. */
__device__ static struct partial join_group(struct partial p)
{
	for (unsigned distance = GPU_LANES / 2; distance > 0; distance /= 2) {
		struct partial other;

		other.m = GPU_SHFL_XOR(p.m, distance);
		other.s = GPU_SHFL_XOR(p.s, distance);
		p = join(p, other);
	}
	return p;
}

__global__ void softmax(float *out, const float *in, size_t n_columns)
{
	__shared__ float m[GROUPS], s[GROUPS];
	const size_t row = (size_t)blockIdx.x * n_columns;
	const unsigned lane = threadIdx.x % GPU_LANES, group = threadIdx.x / GPU_LANES;
	struct partial p = { -INFINITY, 0 };

	for (size_t i = threadIdx.x; i < n_columns; i += blockDim.x) {
		const struct partial one = { in[row + i], 1 };

		p = join(p, one);
	}
	p = join_group(p);
	if (lane == 0) {
		m[group] = p.m;
		s[group] = p.s;
	}
	__syncthreads(); /* all groups have written theirs */
	if (group == 0) {
		p.m = lane < GROUPS ? m[lane] : -INFINITY;
		p.s = lane < GROUPS ? s[lane] : 0;
		p = join_group(p);
		if (lane == 0) {
			m[0] = p.m;
			s[0] = p.s;
		}
	}
	__syncthreads(); /* the row's result is there for all */
	for (size_t i = threadIdx.x; i < n_columns; i += blockDim.x)
		out[row + i] = expf(in[row + i] - m[0]) / s[0];
}

int tutorial_softmax(float *out, const float *in, size_t n_rows, size_t n_columns)
{
	const size_t bytes = n_rows * n_columns * sizeof(float);
	float *d_out = NULL, *d_in = NULL;
	GPU(Error_t) e;

	if (bytes == 0)
		return 0;
	e = GPU(Malloc)(&d_out, bytes);
	if (e == GPU(Success))
		e = GPU(Malloc)(&d_in, bytes);
	if (e == GPU(Success))
		e = GPU(Memcpy)(d_in, in, bytes, GPU(MemcpyHostToDevice));
	if (e == GPU(Success)) {
		GPU_LAUNCH(softmax, (unsigned)n_rows, BLOCK, d_out, d_in, n_columns);
		e = GPU(GetLastError)();
	}
	if (e == GPU(Success))
		e = GPU(Memcpy)(out, d_out, bytes, GPU(MemcpyDeviceToHost));
	(void)GPU(Free)(d_in);
	(void)GPU(Free)(d_out);
	return (int)e;
}
