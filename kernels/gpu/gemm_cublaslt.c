/* cuBLASLt: half a gigabyte, and therefore neither linked nor required. A folder for $OCAI_GPU_LIBS is the one of the
 * Python package nvidia-cublas.
 *
 * FP8: each of W's blocks of 128 x 128 has a scale, and each 128 columns of a row of x. The library has kernels for
 * that on Hopper alone and from 12.9 on; elsewhere its heuristics find none. W's scales lie in lines of K, which are
 * multiples of four floats; those of x have the rows side by side. */
#include <cublasLt.h>
#include <stdbool.h>

#define LT_NAME "cuBLASLt"
#define LT_PREFIX "cublasLt"

static const char *const lt_names[] = { "libcublasLt.so.13", "libcublasLt.so.12", NULL }, *const lt_folders = NULL;

typedef cublasLtHandle_t lt_handle;
typedef cublasLtMatmulDesc_t lt_desc;
typedef cublasLtMatrixLayout_t lt_layout;
typedef cublasLtMatmulPreference_t lt_pref;
typedef cublasLtMatmulAlgo_t lt_algo;
typedef cublasLtMatmulHeuristicResult_t lt_result;

#define LT_SUCCESS CUBLAS_STATUS_SUCCESS
#define LT_OP_T CUBLAS_OP_T
#define LT_COMPUTE_32F CUBLAS_COMPUTE_32F
#define LT_R_32F CUDA_R_32F
#define LT_R_16BF CUDA_R_16BF
#define LT_R_8F_E4M3 CUDA_R_8F_E4M3
#define LT_DESC_TRANSA CUBLASLT_MATMUL_DESC_TRANSA
#define LT_PREF_MAX_WORKSPACE_BYTES CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES

struct lt_functions {
	__typeof__(&cublasLtCreate) create;
	__typeof__(&cublasLtDestroy) destroy;
	__typeof__(&cublasLtMatmulDescCreate) desc_create;
	__typeof__(&cublasLtMatmulDescDestroy) desc_destroy;
	__typeof__(&cublasLtMatmulDescSetAttribute) desc_set;
	__typeof__(&cublasLtMatrixLayoutCreate) layout_create;
	__typeof__(&cublasLtMatrixLayoutDestroy) layout_destroy;
	__typeof__(&cublasLtMatmulPreferenceCreate) pref_create;
	__typeof__(&cublasLtMatmulPreferenceDestroy) pref_destroy;
	__typeof__(&cublasLtMatmulPreferenceSetAttribute) pref_set;
	__typeof__(&cublasLtMatmulAlgoGetHeuristic) heuristic;
	__typeof__(&cublasLtMatmul) matmul;
};

/* An older library does not know the modes. */
static bool lt_set_modes(const struct lt_functions *f, lt_desc desc)
{
#if CUBLAS_VERSION >= 120900
	const int32_t by_block = CUBLASLT_MATMUL_MATRIX_SCALE_BLK128x128_32F,
	              by_row = CUBLASLT_MATMUL_MATRIX_SCALE_VEC128_32F;

	return f->desc_set(desc, CUBLASLT_MATMUL_DESC_A_SCALE_MODE, &by_block, sizeof(by_block)) ==
	               CUBLAS_STATUS_SUCCESS &&
	       f->desc_set(desc, CUBLASLT_MATMUL_DESC_B_SCALE_MODE, &by_row, sizeof(by_row)) == CUBLAS_STATUS_SUCCESS;
#else
	(void)f;
	(void)desc;
	return false;
#endif
}

static bool lt_set_scales(const struct lt_functions *f, lt_desc desc, const void *w, const void *x)
{
	return f->desc_set(desc, CUBLASLT_MATMUL_DESC_A_SCALE_POINTER, &w, sizeof(w)) == CUBLAS_STATUS_SUCCESS &&
	       f->desc_set(desc, CUBLASLT_MATMUL_DESC_B_SCALE_POINTER, &x, sizeof(x)) == CUBLAS_STATUS_SUCCESS;
}

static const bool lt_is_steady = true;

static bool lt_set_steady(const struct lt_functions *f, lt_pref pref, uint32_t alignment)
{
	static const cublasLtMatmulPreferenceAttributes_t who[] = { CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES,
		                                                    CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES,
		                                                    CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES };
	const uint32_t none = CUBLASLT_REDUCTION_SCHEME_NONE;

	for (size_t i = 0; i < sizeof(who) / sizeof(who[0]); i++) {
		if (f->pref_set(pref, who[i], &alignment, sizeof(alignment)) != CUBLAS_STATUS_SUCCESS)
			return false;
	}
	return f->pref_set(pref, CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK, &none, sizeof(none)) ==
	       CUBLAS_STATUS_SUCCESS;
}

#include "gpu/gemm_lt.h"
