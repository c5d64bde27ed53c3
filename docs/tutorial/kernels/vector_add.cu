/* Vector addition: the whole life of a kernel on one page. */
#include "gpu.h"
#include "tutorial.h"

#define BLOCK 256 /* a multiple of 64, so that it fills warps of 32 and waves of 64 alike */

__global__ void add(float *out, const float *a, const float *b, size_t n)
{
	/* Which thread of all am I? Neighbours take neighbouring elements, so that their reads share memory transactions. */
	const size_t step = (size_t)gridDim.x * blockDim.x;

	for (size_t i = (size_t)blockIdx.x * blockDim.x + threadIdx.x; i < n; i += step)
		out[i] = a[i] + b[i];
}

int tutorial_vector_add(float *out, const float *a, const float *b, size_t n)
{
	const size_t bytes = n * sizeof(float);
	const size_t n_blocks = (n + BLOCK - 1) / BLOCK;
	float *d_out = NULL, *d_a = NULL, *d_b = NULL;
	GPU(Error_t) e;

	if (n == 0)
		return 0;
	e = GPU(Malloc)(&d_out, bytes);
	if (e == GPU(Success))
		e = GPU(Malloc)(&d_a, bytes);
	if (e == GPU(Success))
		e = GPU(Malloc)(&d_b, bytes);
	if (e == GPU(Success))
		e = GPU(Memcpy)(d_a, a, bytes, GPU(MemcpyHostToDevice));
	if (e == GPU(Success))
		e = GPU(Memcpy)(d_b, b, bytes, GPU(MemcpyHostToDevice));
	if (e == GPU(Success)) {
		/* At most 65,535 blocks; the loop in the kernel takes the rest. */
		GPU_LAUNCH(add, (unsigned)(n_blocks < 65535 ? n_blocks : 65535), BLOCK, d_out, d_a, d_b, n);
		e = GPU(GetLastError)();
	}
	/* Copying back waits for the kernel, and tells what went wrong in it. */
	if (e == GPU(Success))
		e = GPU(Memcpy)(out, d_out, bytes, GPU(MemcpyDeviceToHost));
	(void)GPU(Free)(d_b);
	(void)GPU(Free)(d_a);
	(void)GPU(Free)(d_out);
	return (int)e;
}

const char *tutorial_error_words(int error)
{
	return GPU(GetErrorString)((GPU(Error_t))error);
}
