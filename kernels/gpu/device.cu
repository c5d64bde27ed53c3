/* The device: what it is, how its errors read. */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "gpu/view.h"

static thread_local char error_text[256];

const char *gk_error_text(void)
{
	return error_text;
}

int gk_launched(void)
{
	const gpu_error e = gpu_last_error();

	if (e == GPU_OK)
		return 0;
	(void)snprintf(error_text, sizeof(error_text), "%s", gpu_error_string(e));
	return -EIO;
}

#if defined(GPU_HOST)
int gk_ctx_init(struct gk_ctx *ctx, int device)
{
	(void)device;
	memset(ctx, 0, sizeof(*ctx));
	ctx->n_sm = 4;
	ctx->warp = GPU_HOST_WARP;
	ctx->smem_bytes = (uint32_t)gpu_host::shared_bytes;
	return 0;
}
#else
#if defined(GPU_CUDA)
#define ATTRIBUTE(name) cudaDevAttr##name
static gpu_error attribute(int *v, cudaDeviceAttr a, int device)
{
	return cudaDeviceGetAttribute(v, a, device);
}
#else
#define ATTRIBUTE(name) hipDeviceAttribute##name
static gpu_error attribute(int *v, hipDeviceAttribute_t a, int device)
{
	return hipDeviceGetAttribute(v, a, device);
}
#endif

int gk_ctx_init(struct gk_ctx *ctx, int device)
{
	int major = 0, minor = 0, n_sm = 0, warp = 0, smem = 0;

	memset(ctx, 0, sizeof(*ctx));
#if defined(GPU_CUDA)
	(void)attribute(&major, cudaDevAttrComputeCapabilityMajor, device);
	(void)attribute(&minor, cudaDevAttrComputeCapabilityMinor, device);
	(void)attribute(&smem, cudaDevAttrMaxSharedMemoryPerBlockOptin, device);
	ctx->sm = (uint32_t)(major * 10 + minor);
	ctx->overlap = ctx->sm >= 90;
	ctx->bytes = true;
#else
	(void)attribute(&major, hipDeviceAttributeComputeCapabilityMajor, device);
	(void)attribute(&minor, hipDeviceAttributeComputeCapabilityMinor, device);
	(void)attribute(&smem, hipDeviceAttributeMaxSharedMemoryPerBlock, device);
	ctx->sm = (uint32_t)(major << 8 | minor << 4);
#endif
#if defined(GPU_CUDA)
	(void)attribute(&n_sm, cudaDevAttrMultiProcessorCount, device);
#else
	(void)attribute(&n_sm, hipDeviceAttributeMultiprocessorCount, device);
#endif
	(void)attribute(&warp, ATTRIBUTE(WarpSize), device);
	ctx->n_sm = (uint32_t)n_sm;
	ctx->warp = (uint32_t)warp;
	ctx->smem_bytes = (uint32_t)(smem < (int)GPU_MOST_SHARED ? smem : (int)GPU_MOST_SHARED);
	return gk_launched();
}
#endif
