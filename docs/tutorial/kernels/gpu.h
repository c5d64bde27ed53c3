/* One spelling for three compilers: nvcc (NVIDIA), clang -x hip (AMD), and g++, which runs the same kernels on the
 * host.
 *
 *   GPU(Malloc)(...)                   cudaMalloc or hipMalloc, and so for every call of the two run times that share a
 * name GPU_LAUNCH(kernel, grid, block, arguments...) GPU_SHFL_XOR(value, mask)          what lane (own ^ mask) of the
 * group of GPU_LANES lanes has
 *
 * Kernels are written for groups of 32 lanes. An NVIDIA warp is one; an AMD wave of 64 is two that run side by side,
 * and a shuffle of width 32 stays within its half. So nothing here asks how wide the hardware is. */
#ifndef TUTORIAL_GPU_H
#define TUTORIAL_GPU_H

#include <stddef.h>

#define GPU_LANES 32

#if defined(__HIP__)
#include <hip/hip_runtime.h>
#define GPU(name) hip##name
#define GPU_SHFL_XOR(value, mask) __shfl_xor((value), (mask), GPU_LANES)
#elif defined(__CUDACC__)
#include <cuda_runtime.h>
#define GPU(name) cuda##name
#define GPU_SHFL_XOR(value, mask) __shfl_xor_sync(0xffffffffu, (value), (mask), GPU_LANES)
#else
#include "gpu_host.h"
#define GPU(name) host##name
#endif

#ifndef GPU_LAUNCH
#define GPU_LAUNCH(kernel, grid, block, ...) kernel<<<(grid), (block)>>>(__VA_ARGS__)
#endif

#endif
