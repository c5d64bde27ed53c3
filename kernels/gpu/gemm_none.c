/* The host shim has no library of products. */
#include <errno.h>
#include <stdio.h>

#include "gpu/gemm.h"

struct gpu_gemm *gpu_gemm_open(struct gpu_backend *be, char *reason, size_t reason_bytes)
{
	(void)be;
	(void)snprintf(reason, reason_bytes, "none on the host");
	return NULL;
}

void gpu_gemm_close(struct gpu_gemm *g)
{
	(void)g;
}

bool gpu_gemm8_known(const struct gpu_gemm *g)
{
	(void)g;
	return false;
}

int gpu_gemm8_run(struct gpu_gemm *g, const struct gpu_gemm8_desc *d)
{
	(void)g;
	(void)d;
	return -ENOTSUP;
}

int gpu_gemm_run(struct gpu_gemm *g, const struct gpu_gemm_desc *d)
{
	(void)g;
	(void)d;
	return -ENOTSUP;
}

int gpu_gemm_is_alike(struct gpu_gemm *g, const struct gpu_gemm_desc *d)
{
	(void)g;
	(void)d;
	return 0;
}

int gpu_gemm8_is_alike(struct gpu_gemm *g, const struct gpu_gemm8_desc *d)
{
	(void)g;
	(void)d;
	return 0;
}

bool gpu_gemm_is_steady(void)
{
	return false;
}
