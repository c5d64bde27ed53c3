/* What gemm_lt.h calls of hipBLASLt, declared here: AMD's own header is C++ since ROCm 7, and a machine without
 * ROCm has none. Names, values and layouts are those of its documentation ("hipBLASLt API reference",
 * "datatypes reference"), libhipblaslt.so.0 (ROCm 6) and .so.1 (ROCm 7); tests/unit/gpu_host/hipblaslt_abi.cc compares
 * them with the real header where there is one. */
#ifndef GPU_HIPBLASLT_ABI_H
#define GPU_HIPBLASLT_ABI_H

#include <stddef.h>
#include <stdint.h>

typedef void *lt_handle;
typedef struct lt_opaque *lt_desc, *lt_layout, *lt_pref;

enum { LT_SUCCESS = 0 };                                  /* hipblasStatus_t */
enum { LT_OP_T = 112 };                                   /* hipblasOperation_t */
enum { LT_COMPUTE_32F = 2 };                              /* hipblasComputeType_t */
enum { LT_R_32F = 0, LT_R_16BF = 14, LT_R_8F_E4M3 = 28 }; /* hipDataType */
enum { LT_DESC_TRANSA = 0 };                              /* hipblasLtMatmulDescAttributes_t; value: int32_t */
enum { LT_PREF_MAX_WORKSPACE_BYTES = 1 };                 /* hipblasLtMatmulPreferenceAttributes_t; value: uint64_t */

typedef struct {
	uint8_t data[16];
	size_t max_workspace_bytes;
} lt_algo; /* hipblasLtMatmulAlgo_t */

typedef struct {
	lt_algo algo;
	size_t workspaceSize;
	int state;
	float wavesCount;
	int reserved[4];
} lt_result; /* hipblasLtMatmulHeuristicResult_t */

/* Enumerations are passed as int. */
struct lt_functions {
	int (*create)(lt_handle *ret);
	int (*destroy)(lt_handle h);
	int (*desc_create)(lt_desc *ret, int compute_type, int scale_type);
	int (*desc_destroy)(lt_desc d);
	int (*desc_set)(lt_desc d, int attribute, const void *value, size_t bytes);
	int (*layout_create)(lt_layout *ret, int type, uint64_t rows, uint64_t cols, int64_t ld);
	int (*layout_destroy)(lt_layout l);
	int (*pref_create)(lt_pref *ret);
	int (*pref_destroy)(lt_pref p);
	int (*pref_set)(lt_pref p, int attribute, const void *value, size_t bytes);
	int (*heuristic)(lt_handle h, lt_desc desc, lt_layout a, lt_layout b, lt_layout c, lt_layout d, lt_pref pref,
	                 int n_wanted, lt_result *ret, int *ret_n);
	int (*matmul)(lt_handle h, lt_desc desc, const void *alpha, const void *a, lt_layout la, const void *b,
	              lt_layout lb, const void *beta, const void *c, lt_layout lc, void *d, lt_layout ld,
	              const lt_algo *algo, void *workspace, size_t workspace_bytes, void *stream);
};

#endif
