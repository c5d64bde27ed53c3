/* Compiled, not run (tests/tools/check-hip.sh): what kernels/gpu/hipblaslt_abi.h declares is what AMD's header says. */
#include <hipblaslt/hipblaslt.h>

#include "gpu/hipblaslt_abi.h"

#include <type_traits>

static_assert(LT_SUCCESS == HIPBLAS_STATUS_SUCCESS && LT_OP_T == HIPBLAS_OP_T && LT_COMPUTE_32F == HIPBLAS_COMPUTE_32F);
static_assert(LT_R_32F == HIP_R_32F && LT_R_16BF == HIP_R_16BF && LT_R_8F_E4M3 == HIP_R_8F_E4M3);
static_assert(LT_DESC_TRANSA == HIPBLASLT_MATMUL_DESC_TRANSA);
static_assert(LT_PREF_MAX_WORKSPACE_BYTES == HIPBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES);

static_assert(sizeof(lt_algo) == sizeof(hipblasLtMatmulAlgo_t) && sizeof(lt_result) == sizeof(hipblasLtMatmulHeuristicResult_t));
static_assert(offsetof(lt_result, workspaceSize) == offsetof(hipblasLtMatmulHeuristicResult_t, workspaceSize));
static_assert(offsetof(lt_result, state) == offsetof(hipblasLtMatmulHeuristicResult_t, state));

/* Parameters as a caller sees them: numbers by their size, everything else a pointer. */
template <class T> struct seen {
	typedef std::conditional_t<std::is_pointer_v<T>, void *,
	                           std::conditional_t<std::is_enum_v<T>, int, std::make_signed_t<std::conditional_t<std::is_pointer_v<T> || std::is_enum_v<T>, int, T>>>>
	        type;
};
template <class T> struct shape;
template <class R, class... A> struct shape<R (*)(A...)> {
	typedef typename seen<R>::type (*type)(typename seen<std::remove_const_t<A>>::type...);
};
#define SAME(field, name)                                                                     \
	static_assert(std::is_same_v<typename shape<decltype(lt_functions::field)>::type, \
	                             typename shape<decltype(&name)>::type>)

SAME(create, hipblasLtCreate);
SAME(destroy, hipblasLtDestroy);
SAME(desc_create, hipblasLtMatmulDescCreate);
SAME(desc_destroy, hipblasLtMatmulDescDestroy);
SAME(desc_set, hipblasLtMatmulDescSetAttribute);
SAME(layout_create, hipblasLtMatrixLayoutCreate);
SAME(layout_destroy, hipblasLtMatrixLayoutDestroy);
SAME(pref_create, hipblasLtMatmulPreferenceCreate);
SAME(pref_destroy, hipblasLtMatmulPreferenceDestroy);
SAME(pref_set, hipblasLtMatmulPreferenceSetAttribute);
SAME(heuristic, hipblasLtMatmulAlgoGetHeuristic);
SAME(matmul, hipblasLtMatmul);
