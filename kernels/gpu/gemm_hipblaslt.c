/* hipBLASLt, neither linked nor required; ROCm's packages put it where the dynamic linker may not look. Nothing of this
 * has run on a device; tests/unit/gpu_host/test_gpu_hipblaslt.c runs it on a library that computes in plain loops.
 *
 * It has no scales for 128 x 128 values (7.1: "not supported yet"). */
#include <stdbool.h>

#include "gpu/hipblaslt_abi.h"

#define LT_NAME "hipBLASLt"
#define LT_PREFIX "hipblasLt"

static const char *const lt_names[] = { "libhipblaslt.so.1", "libhipblaslt.so.0", NULL }, *const lt_folders =
                                                                                                  "/opt/rocm/lib";

static bool lt_set_modes(const struct lt_functions *f, lt_desc desc)
{
	(void)f;
	(void)desc;
	return false;
}

static bool lt_set_scales(const struct lt_functions *f, lt_desc desc, const void *w, const void *x)
{
	(void)f;
	(void)desc;
	(void)w;
	(void)x;
	return false;
}

/* Nothing here says that sums are added up in one piece. */
static const bool lt_is_steady = false;

static bool lt_set_steady(const struct lt_functions *f, lt_pref pref, uint32_t alignment)
{
	(void)f;
	(void)pref;
	(void)alignment;
	return false;
}

#include "gpu/gemm_lt.h"
