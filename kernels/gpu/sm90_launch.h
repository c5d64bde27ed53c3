/* What the host side of Hopper's kernels needs: maps of matrices for the tensor engine, launches of clusters. */
#ifndef GPU_SM90_LAUNCH_H
#define GPU_SM90_LAUNCH_H

#include "gpu/sm90.h"

#if defined(GPU_CUDA)
typedef decltype(&cuTensorMapEncodeTiled) sm90_encode_fn;

/* The driver is not linked: NULL where it has no tensor maps. */
static inline sm90_encode_fn sm90_encode()
{
	static sm90_encode_fn known;
	sm90_encode_fn fn = __atomic_load_n(&known, __ATOMIC_RELAXED);
	cudaDriverEntryPointQueryResult found;
	void *p = nullptr;

	if (!fn &&
	    cudaGetDriverEntryPointByVersion("cuTensorMapEncodeTiled", &p, 12000, cudaEnableDefault, &found) ==
	            cudaSuccess &&
	    found == cudaDriverEntryPointSuccess) {
		fn = (sm90_encode_fn)p;
		__atomic_store_n(&known, fn, __ATOMIC_RELAXED);
	}
	return fn;
}

/* rows x cols of elem_bytes (2: bfloat16, 1: bytes), row_bytes from one row to the next, in boxes of box_rows rows of
 * 128 bytes. False: the driver has no such map. */
static inline bool sm90_map_of(sm90_map *map, const void *base, uint32_t elem_bytes, uint64_t rows, uint32_t cols,
                               size_t row_bytes, uint32_t box_rows)
{
	const cuuint64_t dims[2] = { cols, rows }, strides[1] = { row_bytes };
	const cuuint32_t box[2] = { SM90_TILE_ROW / elem_bytes, box_rows }, steps[2] = { 1, 1 };
	const sm90_encode_fn fn = sm90_encode();

	return fn &&
	       fn(map, elem_bytes == 2 ? CU_TENSOR_MAP_DATA_TYPE_BFLOAT16 : CU_TENSOR_MAP_DATA_TYPE_UINT8, 2,
	          (void *)base, dims, strides, box, steps, CU_TENSOR_MAP_INTERLEAVE_NONE, CU_TENSOR_MAP_SWIZZLE_128B,
	          CU_TENSOR_MAP_L2_PROMOTION_L2_256B, CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE) == CUDA_SUCCESS;
}

/* gpu_launch(), `cluster` neighbours along x of the grid together. */
template <class P>
static inline void sm90_launch(void (*kernel)(const P), uint32_t blocks, uint32_t threads, uint32_t cluster,
                               size_t shared, void *stream, bool overlap, const P &args)
{
	cudaLaunchConfig_t config = {};
	cudaLaunchAttribute attrs[2] = {};

	config.gridDim = dim3(blocks);
	config.blockDim = dim3(threads);
	config.dynamicSmemBytes = shared;
	config.stream = (cudaStream_t)stream;
	attrs[0].id = cudaLaunchAttributeClusterDimension;
	attrs[0].val.clusterDim.x = cluster;
	attrs[0].val.clusterDim.y = attrs[0].val.clusterDim.z = 1;
	attrs[1].id = cudaLaunchAttributeProgrammaticStreamSerialization;
	attrs[1].val.programmaticStreamSerializationAllowed = 1;
	config.attrs = attrs;
	config.numAttrs = overlap ? 2 : 1;
	(void)cudaFuncSetAttribute((const void *)kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, (int)shared);
	(void)cudaLaunchKernelEx(&config, kernel, args);
}
#else
static inline bool sm90_map_of(sm90_map *map, const void *base, uint32_t elem_bytes, uint64_t rows, uint32_t cols,
                               size_t row_bytes, uint32_t box_rows)
{
	*map = { (const uint8_t *)base, row_bytes, box_rows, elem_bytes, (uint32_t)rows, cols };
	return true;
}

template <class P>
static inline void sm90_launch(void (*kernel)(const P), uint32_t blocks, uint32_t threads, uint32_t cluster,
                               size_t shared, void *stream, bool overlap, const P &args)
{
	(void)stream, (void)overlap;
	gpu_host::launch(
	        dim3(blocks), dim3(threads), shared, [=] { kernel(args); }, cluster);
}
#endif

#endif
