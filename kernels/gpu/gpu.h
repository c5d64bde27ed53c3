/* One kernel source for CUDA, HIP and the host: neutral names for what the three spell differently.
 *
 * Compiled by nvcc, by clang -x hip, and by a plain C++ compiler, where gpu_host.h runs every thread of a block as a
 * fiber. Kernels are C-like C++ (no exceptions, no library), written for logical groups of 32 lanes: gpu_shfl_xor()
 * and friends never leave such a group, whatever the device's wave is. Only code on matrix units (gpu_mma.h) looks at
 * GPU_WAVE. Block sizes are multiples of 64.
 *
 * Every kernel begins with gpu_dependency_wait() before it touches anything that a kernel before it wrote or read
 * (launches may overlap, see gpu_launch()); weights and tables that no kernel of a step writes may be read earlier. */
#ifndef GPU_H
#define GPU_H

#include <stddef.h>
#include <stdint.h>

#if defined(__HIP__)
#define GPU_HIP 1
#include <hip/hip_runtime.h>
#elif defined(__CUDACC__)
#define GPU_CUDA 1
#include <cuda_runtime.h>
#else
#define GPU_HOST 1
#include "gpu/gpu_host.h"
#endif

/* Lanes of the device's wave; on the host side of a device compiler meaningless. */
#if defined(GPU_HOST)
#define GPU_WAVE GPU_HOST_WARP
#elif defined(GPU_HIP) && defined(__GFX9__)
#define GPU_WAVE 64
#else
#define GPU_WAVE 32
#endif

/* Device code for compute capability 8.0 and up has the fast paths; older PTX is never made. */
#if defined(GPU_CUDA) && defined(__CUDA_ARCH__)
#define GPU_PTX 1
#else
#define GPU_PTX 0
#endif
/* Device code for AMD, not the host's pass over it. */
#if defined(GPU_HIP) && defined(__HIP_DEVICE_COMPILE__)
#define GPU_AMD 1
#else
#define GPU_AMD 0
#endif

/* Whether a choice between two unpackings is made among their operands, so that there is code for one of them: on AMD,
 * whose compiler else has some of those in memory. */
#if defined(GPU_HIP)
enum { GPU_CHOOSE_OPERANDS = 1 };
#elif defined(GPU_HOST)
enum { GPU_CHOOSE_OPERANDS = GPU_WAVE == 64 };
#else
enum { GPU_CHOOSE_OPERANDS = 0 };
#endif

/* Shared memory of a block: what every device of the kind has, and the most that kernels are made for. The 160 KiB of
 * gfx950 are not used. The host stands for all of NVIDIA's with waves of 32, for AMD's with waves of 64. */
#if defined(GPU_CUDA)
enum { GPU_LEAST_SHARED = 99 << 10, GPU_MOST_SHARED = 227 << 10 };
#elif defined(GPU_HIP)
enum { GPU_LEAST_SHARED = 64 << 10, GPU_MOST_SHARED = 64 << 10 };
#else
enum { GPU_LEAST_SHARED = 64 << 10, GPU_MOST_SHARED = gpu_host::MOST_SHARED };
#endif

/* What __launch_bounds__() takes behind the threads: blocks of a multiprocessor. On AMD it is waves of a SIMD, of which
 * two leave half of 256 registers to the matrix units' results alone: `hungry` kernels have a SIMD's to themselves
 * there. */
#if defined(GPU_HIP)
#define GPU_BLOCKS(n, hungry) ((hungry) ? 1 : (n))
#else
#define GPU_BLOCKS(n, hungry) (n)
#endif

#define GPU_FN static __device__ __forceinline__

/* Of a lambda that unpacks what it finds in registers: AMD's compiler would first make a function of memory of it. */
#if defined(GPU_HIP)
#define GPU_INLINE __attribute__((always_inline))
#else
#define GPU_INLINE
#endif

/* A struct of a kernel's arguments that is indexed at run time, read where it is instead of copied to the stack. */
#if defined(GPU_CUDA)
#define GPU_PARAM const __grid_constant__
#else
#define GPU_PARAM const
#endif

/* ---- The runtime ------------------------------------------------------------------------------------- */

#if defined(GPU_CUDA)
typedef cudaStream_t gpu_stream;
typedef cudaError_t gpu_error;
#define GPU_OK cudaSuccess
#define gpu_error_string cudaGetErrorString
#define gpu_last_error cudaGetLastError
#define gpu_malloc(p, n) cudaMalloc((void **)(p), (n))
#define gpu_free cudaFree
#define gpu_copy_in(dst, src, n) cudaMemcpy((dst), (src), (n), cudaMemcpyHostToDevice)
#define gpu_copy_out(dst, src, n) cudaMemcpy((dst), (src), (n), cudaMemcpyDeviceToHost)
#define gpu_fill cudaMemset
#define gpu_sync cudaDeviceSynchronize
#define gpu_memset_async cudaMemsetAsync
#elif defined(GPU_HIP)
typedef hipStream_t gpu_stream;
typedef hipError_t gpu_error;
#define GPU_OK hipSuccess
#define gpu_error_string hipGetErrorString
#define gpu_last_error hipGetLastError
#define gpu_malloc(p, n) hipMalloc((void **)(p), (n))
#define gpu_free hipFree
#define gpu_copy_in(dst, src, n) hipMemcpy((dst), (src), (n), hipMemcpyHostToDevice)
#define gpu_copy_out(dst, src, n) hipMemcpy((dst), (src), (n), hipMemcpyDeviceToHost)
#define gpu_fill hipMemset
#define gpu_sync hipDeviceSynchronize
#define gpu_memset_async hipMemsetAsync
#endif

/* Puts a kernel on a stream. overlap: it may start while the kernel before it drains (programmatic dependent launch,
 * compute capability 9.0 and up); everything else ignores it. Errors show in gpu_last_error(). */
#if defined(GPU_CUDA)
template <class... P, class... A>
static inline void gpu_launch(void (*kernel)(P...), dim3 grid, dim3 block, size_t shared, void *stream, bool overlap,
                              A... args)
{
	cudaLaunchConfig_t config = {};
	cudaLaunchAttribute attr = {};

	config.gridDim = grid;
	config.blockDim = block;
	config.dynamicSmemBytes = shared;
	config.stream = (cudaStream_t)stream;
	if (shared > 48u << 10)
		(void)cudaFuncSetAttribute((const void *)kernel, cudaFuncAttributeMaxDynamicSharedMemorySize,
		                           (int)shared);
	attr.id = cudaLaunchAttributeProgrammaticStreamSerialization;
	attr.val.programmaticStreamSerializationAllowed = 1;
	config.attrs = &attr;
	config.numAttrs = overlap ? 1 : 0;
	(void)cudaLaunchKernelEx(&config, kernel, (P)args...);
}
#elif defined(GPU_HIP)
template <class... P, class... A>
static inline void gpu_launch(void (*kernel)(P...), dim3 grid, dim3 block, size_t shared, void *stream, bool overlap,
                              A... args)
{
	(void)overlap;
	kernel<<<grid, block, shared, (hipStream_t)stream>>>((P)args...);
}
#else
template <class... P, class... A>
static inline void gpu_launch(void (*kernel)(P...), dim3 grid, dim3 block, size_t shared, void *stream, bool overlap,
                              A... args)
{
	(void)stream;
	(void)overlap;
	gpu_host::launch(grid, block, shared, [=] { kernel((P)args...); });
}
#endif

/* Dynamic shared memory of a kernel, 16-byte aligned. */
#if defined(GPU_HOST)
#define GPU_DYN_SHARED(T, name) T *name = (T *)gpu_host::dynamic_shared
#else
#define GPU_DYN_SHARED(T, name)                       \
	extern __shared__ uint4 gpu_dynamic_shared[]; \
	T *name = (T *)gpu_dynamic_shared
#endif

/* ---- Overlapping launches ----------------------------------------------------------------------------- */

/* Until all kernels before this one have ended and what they wrote is seen. */
GPU_FN void gpu_dependency_wait()
{
#if GPU_PTX && __CUDA_ARCH__ >= 900
	asm volatile("griddepcontrol.wait;" ::: "memory");
#endif
}

/* The line of 128 bytes with p in it, into the second-level cache. */
GPU_FN void gpu_ask_for(const void *p)
{
#if GPU_PTX
	asm volatile("prefetch.global.L2 [%0];" ::"l"(p));
#else
	(void)p;
#endif
}

/* The next kernel's blocks may be placed as soon as every block of this one has said so. */
GPU_FN void gpu_dependents_may_start()
{
#if GPU_PTX && __CUDA_ARCH__ >= 900
	asm volatile("griddepcontrol.launch_dependents;");
#endif
}

/* ---- Lanes ------------------------------------------------------------------------------------------------ */

enum { GPU_GROUP = 32 };

#if defined(GPU_CUDA)
template <class T> GPU_FN T gpu_shfl_xor(T v, int mask)
{
	return __shfl_xor_sync(0xffffffffu, v, mask, 32);
}
template <class T> GPU_FN T gpu_shfl(T v, int lane)
{
	return __shfl_sync(0xffffffffu, v, lane, 32);
}
template <class T> GPU_FN T gpu_shfl_up(T v, int delta)
{
	return __shfl_up_sync(0xffffffffu, v, delta, 32);
}
/* Orders shared memory among the lanes of a wave. */
GPU_FN void gpu_sync_wave()
{
	__syncwarp();
}
#elif defined(GPU_HIP)
template <class T> GPU_FN T gpu_shfl_xor(T v, int mask)
{
	return __shfl_xor(v, mask, 32);
}
template <class T> GPU_FN T gpu_shfl(T v, int lane)
{
	return __shfl(v, lane, 32);
}
template <class T> GPU_FN T gpu_shfl_up(T v, int delta)
{
	return __shfl_up(v, delta, 32);
}
GPU_FN void gpu_sync_wave()
{
	__builtin_amdgcn_fence(__ATOMIC_ACQ_REL, "wavefront");
	__builtin_amdgcn_wave_barrier();
}
#else
template <class T> GPU_FN T gpu_shfl_xor(T v, int mask)
{
	return gpu_host::exchange(v, (int)(gpu_host::current & 31) ^ mask);
}
template <class T> GPU_FN T gpu_shfl(T v, int lane)
{
	return gpu_host::exchange(v, lane & 31);
}
template <class T> GPU_FN T gpu_shfl_up(T v, int delta)
{
	int me = gpu_host::current & 31;

	return gpu_host::exchange(v, me >= delta ? me - delta : me);
}
GPU_FN void gpu_sync_wave()
{
	gpu_host::wait_group(GPU_HOST_WARP);
}
#endif

GPU_FN float gpu_group_sum(float v)
{
	for (int m = 16; m > 0; m >>= 1)
		v += gpu_shfl_xor(v, m);
	return v;
}

GPU_FN float gpu_group_max(float v)
{
	for (int m = 16; m > 0; m >>= 1)
		v = fmaxf(v, gpu_shfl_xor(v, m));
	return v;
}

/* Over a block of up to 1024 threads, to every thread; scratch: 32 floats of shared memory. Two barriers, so that
 * scratch may be used again at once. */
GPU_FN float gpu_block_sum(float v, float *scratch)
{
	unsigned lane = threadIdx.x & 31, group = threadIdx.x >> 5, n_groups = blockDim.x >> 5;

	v = gpu_group_sum(v);
	if (lane == 0)
		scratch[group] = v;
	__syncthreads();
	v = gpu_group_sum(lane < n_groups ? scratch[lane] : 0.0f);
	__syncthreads();
	return v;
}

/* ---- Numbers ---------------------------------------------------------------------------------------------- */

typedef uint16_t gpu_bf16; /* raw bits */
typedef uint16_t gpu_f16;

GPU_FN uint32_t gpu_bits(float f)
{
#if defined(GPU_HOST)
	uint32_t u;

	memcpy(&u, &f, 4);
	return u;
#else
	return __float_as_uint(f);
#endif
}

GPU_FN float gpu_float(uint32_t u)
{
#if defined(GPU_HOST)
	float f;

	memcpy(&f, &u, 4);
	return f;
#else
	return __uint_as_float(u);
#endif
}

GPU_FN float gpu_bf16_low(uint32_t pair)
{
	return gpu_float(pair << 16);
}

GPU_FN float gpu_bf16_high(uint32_t pair)
{
	return gpu_float(pair & 0xffff0000u);
}

GPU_FN float gpu_from_bf16(gpu_bf16 h)
{
	return gpu_float((uint32_t)h << 16);
}

/* A sum that is rounded by itself, never together with a product before it. */
GPU_FN float gpu_add(float a, float b)
{
#if GPU_PTX
	return __fadd_rn(a, b);
#else
	return a + b;
#endif
}

/* e^x to about 2 units in the last place; good enough wherever a probability or an activation comes of it. */
GPU_FN float gpu_exp(float x)
{
#if defined(GPU_HOST)
	return expf(x);
#else
	return __expf(x);
#endif
}

/* 1 / x to about 1 unit in the last place; of what is greater than 2^126, 0. */
GPU_FN float gpu_inverse(float x)
{
#if GPU_PTX
	float r;

	asm("rcp.approx.ftz.f32 %0, %1;" : "=f"(r) : "f"(x));
	return r;
#elif GPU_AMD
	return __builtin_amdgcn_rcpf(x);
#else
	return 1.0f / x;
#endif
}

/* Two floats rounded to the nearest bfloat16, the first in the low half. */
GPU_FN uint32_t gpu_pack_bf16(float low, float high)
{
#if GPU_PTX
	uint32_t r;

	asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(r) : "f"(high), "f"(low));
	return r;
#elif GPU_AMD
	typedef float f2 __attribute__((ext_vector_type(2)));
	typedef __bf16 b2 __attribute__((ext_vector_type(2)));
	const f2 v = { low, high };

	return __builtin_bit_cast(uint32_t, __builtin_convertvector(v, b2));
#else
	uint32_t a = gpu_bits(low), b = gpu_bits(high);

	a = (a & 0x7fffffffu) > 0x7f800000u ? a >> 16 | 0x40u : (a + 0x7fffu + (a >> 16 & 1u)) >> 16;
	b = (b & 0x7fffffffu) > 0x7f800000u ? b >> 16 | 0x40u : (b + 0x7fffu + (b >> 16 & 1u)) >> 16;
	return (a & 0xffffu) | b << 16;
#endif
}

/* Two floats that are bfloat16 already. */
GPU_FN uint32_t gpu_pack_exact(float low, float high)
{
	return gpu_bits(low) >> 16 | (gpu_bits(high) & 0xffff0000u);
}

GPU_FN gpu_bf16 gpu_to_bf16(float f)
{
	return (gpu_bf16)gpu_pack_bf16(f, 0.0f);
}

GPU_FN float gpu_from_f16(gpu_f16 h)
{
#if GPU_PTX
	float f;

	asm("cvt.f32.f16 %0, %1;" : "=f"(f) : "h"(h));
	return f;
#elif GPU_AMD
	return (float)__builtin_bit_cast(_Float16, h);
#else
	uint32_t sign = (uint32_t)(h & 0x8000u) << 16, exp = h >> 10 & 31u, mant = h & 0x3ffu;

	if (exp == 0)
		return gpu_float(sign | gpu_bits((float)mant * 5.9604644775390625e-8f));
	return gpu_float(sign | (exp == 31 ? 0x7f800000u : (exp + 112) << 23) | mant << 13);
#endif
}

GPU_FN gpu_f16 gpu_to_f16(float f)
{
#if GPU_PTX
	gpu_f16 h;

	asm("cvt.rn.f16.f32 %0, %1;" : "=h"(h) : "f"(f));
	return h;
#elif GPU_AMD
	return __builtin_bit_cast(gpu_f16, (_Float16)f);
#else
	uint32_t u = gpu_bits(f), sign = u >> 16 & 0x8000u, a = u & 0x7fffffffu;

	if (a > 0x7f800000u)
		return (gpu_f16)(sign | 0x7e00u | (a >> 13 & 0x3ffu));
	if (a >= 0x477ff000u)
		return (gpu_f16)(sign | 0x7c00u);
	if (a < 0x38800000u)
		return (gpu_f16)(sign | (gpu_bits(gpu_float(a) + 0.5f) - 0x3f000000u));
	a += 0xfffu + (a >> 13 & 1u);
	return (gpu_f16)(sign | (a - 0x38000000u) >> 13);
#endif
}

/* e4m3 as its makers mean it (OCP: bias 7, no infinity, 0x7f is no number), whatever the device's own flavour. */
GPU_FN float gpu_from_e4m3(uint8_t b)
{
	uint32_t u = (uint32_t)(b & 0x7fu) << 20;

	if ((b & 0x7fu) == 0x7fu)
		return gpu_float((uint32_t)(b & 0x80u) << 24 | 0x7fc00000u);
	/* The bits read as a float of bias 127 are 2^-120 times the value, subnormals included. */
	if ((b & 0x78u) == 0)
		return gpu_float((uint32_t)(b & 0x80u) << 24 | gpu_bits((float)(b & 7u) * 0.001953125f));
	return gpu_float((uint32_t)(b & 0x80u) << 24 | (u + (120u << 23)));
}

/* Nearest, ties to even; magnitudes above 448 become 448. */
GPU_FN uint8_t gpu_to_e4m3(float f)
{
	uint32_t sign = gpu_bits(f) >> 24 & 0x80u, a = gpu_bits(f) & 0x7fffffffu;

	if (a > 0x7f800000u)
		return (uint8_t)(sign | 0x7fu);
	if (a >= 0x43e00000u) /* 448 */
		return (uint8_t)(sign | 0x7eu);
	if (a < 0x3c800000u) /* below 2^-6 the step is 2^-9: adding 2^14 leaves multiples of it in the low bits */
		return (uint8_t)(sign | (gpu_bits(gpu_float(a) + 16384.0f) - 0x46800000u));
	a += 0x7ffffu + (a >> 20 & 1u);
	a = (a - (120u << 23)) >> 20;
	return (uint8_t)(sign | (a > 0x7eu ? 0x7eu : a));
}

/* Two of them, the first in the lowest byte. */
GPU_FN uint32_t gpu_pack_e4m3(float low, float high)
{
#if GPU_PTX && __CUDA_ARCH__ >= 890
	uint16_t r;

	asm("cvt.rn.satfinite.e4m3x2.f32 %0, %1, %2;" : "=h"(r) : "f"(high), "f"(low));
	return r;
#else
	return gpu_to_e4m3(low) | (uint32_t)gpu_to_e4m3(high) << 8;
#endif
}

/* ---- Memory ------------------------------------------------------------------------------------------------- */

/* 16 bytes that are read once: past the first-level cache. */
GPU_FN uint4 gpu_load_stream(const void *p)
{
#if GPU_PTX
	uint4 v;

	asm volatile("ld.global.nc.L1::no_allocate.L2::256B.v4.u32 {%0,%1,%2,%3}, [%4];"
	             : "=r"(v.x), "=r"(v.y), "=r"(v.z), "=r"(v.w)
	             : "l"(p));
	return v;
#elif defined(GPU_HIP)
	typedef uint32_t vec4 __attribute__((ext_vector_type(4)));
	vec4 v = __builtin_nontemporal_load((const vec4 *)p);

	return make_uint4(v.x, v.y, v.z, v.w);
#else
	return *(const uint4 *)p;
#endif
}

GPU_FN uint2 gpu_load_stream8(const void *p)
{
#if GPU_PTX
	uint2 v;

	asm volatile("ld.global.nc.L1::no_allocate.v2.u32 {%0,%1}, [%2];" : "=r"(v.x), "=r"(v.y) : "l"(p));
	return v;
#else
	return *(const uint2 *)p;
#endif
}

GPU_FN uint32_t gpu_load_stream4(const void *p)
{
#if GPU_PTX
	uint32_t v;

	asm volatile("ld.global.nc.L1::no_allocate.u32 %0, [%1];" : "=r"(v) : "l"(p));
	return v;
#else
	return *(const uint32_t *)p;
#endif
}

/* Starts a copy of 16 bytes from global to shared memory; n < 16: the rest becomes zero. */
GPU_FN void gpu_copy16(void *shared, const void *global, int n)
{
#if GPU_PTX
	asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"((uint32_t)__cvta_generic_to_shared(shared)),
	             "l"(global), "r"(n)
	             : "memory");
#else
	uint4 v = { 0, 0, 0, 0 };

	if (n == 16) {
		v = *(const uint4 *)global;
	} else { /* from the last one on, moving up: bytes of `v` with a number would put it in memory */
#pragma unroll 1
		while (n-- > 0) {
			v.w = v.w << 8 | v.z >> 24;
			v.z = v.z << 8 | v.y >> 24;
			v.y = v.y << 8 | v.x >> 24;
			v.x = v.x << 8 | ((const uint8_t *)global)[n];
		}
	}
	*(uint4 *)shared = v;
#endif
}

/* Ends a group of copies; gpu_copy_wait<N>(): all but the N newest groups of this thread have arrived. */
GPU_FN void gpu_copy_commit()
{
#if GPU_PTX
	asm volatile("cp.async.commit_group;" ::: "memory");
#endif
}

template <int N> GPU_FN void gpu_copy_wait()
{
#if GPU_PTX
	asm volatile("cp.async.wait_group %0;" ::"n"(N) : "memory");
#endif
}

#endif
