/* Products of many rows by cuBLASLt, which is half a gigabyte and therefore neither linked nor required: it is looked
 * for in $OCAI_GPU_LIBS (folders separated by ':', such as the one of the Python package nvidia-cublas), then as the
 * dynamic linker looks.
 *
 * FP8: each of W's blocks of 128 x 128 has a scale, and each 128 columns of a row of x. The library has kernels for
 * that on Hopper alone and from 12.9 on; elsewhere its heuristics find none. W's scales lie in lines of K, which are
 * multiples of four floats; those of x have the rows side by side.
 *
 * cuBLASLt counts columns first. Our out [rows, n] = x [rows, k] w [n, k]^T is its D [n, rows] = W^T X, with W as k x n
 * and X as k x rows, both as they lie. */
#include <cublasLt.h>
#include <dlfcn.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "gpu/gemm.h"

enum { WORKSPACE_BYTES = 64 << 20, MAX_PLANS = 1024 };

struct functions {
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

/* What the library chose for a shape. */
struct plan {
	uint32_t rows, n, k, ld_x, ld_w, ld_out;
	bool out_is_f32, accumulate, is_fp8, taken;
	cublasLtMatmulAlgo_t algo;
	size_t workspace;
	cublasLtMatrixLayout_t w, x, out;
};

struct gpu_gemm {
	struct gpu_backend *be;
	struct functions f;
	cublasLtHandle_t handle;
	cublasLtMatmulDesc_t desc, desc8; /* desc8 NULL: no FP8 */
	cublasLtMatmulPreference_t pref;
	void *workspace;
	struct plan *plans; /* [MAX_PLANS] */
	uint32_t n_plans;
};

/* ---- Opening ---- */

static void *open_in_folders(const char *folders, const char *name)
{
	char path[4096];

	while (folders && *folders) {
		size_t n = strcspn(folders, ":");
		void *library = NULL;

		if (n > 0 && (size_t)snprintf(path, sizeof(path), "%.*s/%s", (int)n, folders, name) < sizeof(path))
			library = dlopen(path, RTLD_NOW | RTLD_LOCAL);
		if (library)
			return library;
		folders += n + (folders[n] == ':');
	}
	return NULL;
}

static void *open_library(void)
{
	static const char *const names[] = { "libcublasLt.so.13", "libcublasLt.so.12" };
	void *library = NULL;

	for (size_t i = 0; !library && i < sizeof(names) / sizeof(names[0]); i++)
		library = open_in_folders(getenv("OCAI_GPU_LIBS"), names[i]);
	for (size_t i = 0; !library && i < sizeof(names) / sizeof(names[0]); i++)
		library = dlopen(names[i], RTLD_NOW | RTLD_LOCAL);
	return library;
}

static bool resolve(void *library, struct functions *f)
{
	const struct {
		const char *name;
		void *slot;
	} symbols[] = {
		{ "cublasLtCreate", &f->create },
		{ "cublasLtDestroy", &f->destroy },
		{ "cublasLtMatmulDescCreate", &f->desc_create },
		{ "cublasLtMatmulDescDestroy", &f->desc_destroy },
		{ "cublasLtMatmulDescSetAttribute", &f->desc_set },
		{ "cublasLtMatrixLayoutCreate", &f->layout_create },
		{ "cublasLtMatrixLayoutDestroy", &f->layout_destroy },
		{ "cublasLtMatmulPreferenceCreate", &f->pref_create },
		{ "cublasLtMatmulPreferenceDestroy", &f->pref_destroy },
		{ "cublasLtMatmulPreferenceSetAttribute", &f->pref_set },
		{ "cublasLtMatmulAlgoGetHeuristic", &f->heuristic },
		{ "cublasLtMatmul", &f->matmul },
	};

	for (size_t i = 0; i < sizeof(symbols) / sizeof(symbols[0]); i++) {
		void *p = dlsym(library, symbols[i].name);

		if (!p)
			return false;
		memcpy(symbols[i].slot, &p, sizeof(p));
	}
	return true;
}

/* An older library does not know the scales' modes. */
static void set_up_fp8(struct gpu_gemm *g)
{
#if CUBLAS_VERSION >= 120900
	const cublasOperation_t transposed = CUBLAS_OP_T;
	const int32_t by_block = CUBLASLT_MATMUL_MATRIX_SCALE_BLK128x128_32F,
	              by_row = CUBLASLT_MATMUL_MATRIX_SCALE_VEC128_32F;

	if (g->f.desc_create(&g->desc8, CUBLAS_COMPUTE_32F, CUDA_R_32F) != CUBLAS_STATUS_SUCCESS) {
		g->desc8 = NULL;
		return;
	}
	if (g->f.desc_set(g->desc8, CUBLASLT_MATMUL_DESC_TRANSA, &transposed, sizeof(transposed)) ==
	            CUBLAS_STATUS_SUCCESS &&
	    g->f.desc_set(g->desc8, CUBLASLT_MATMUL_DESC_A_SCALE_MODE, &by_block, sizeof(by_block)) ==
	            CUBLAS_STATUS_SUCCESS &&
	    g->f.desc_set(g->desc8, CUBLASLT_MATMUL_DESC_B_SCALE_MODE, &by_row, sizeof(by_row)) ==
	            CUBLAS_STATUS_SUCCESS)
		return;
	(void)g->f.desc_destroy(g->desc8);
#endif
	g->desc8 = NULL;
}

static bool set_up(struct gpu_gemm *g)
{
	cublasOperation_t transposed = CUBLAS_OP_T;
	size_t bytes = WORKSPACE_BYTES;

	g->workspace = gpu_rt_alloc(&g->be->rt, WORKSPACE_BYTES);
	g->plans = calloc(MAX_PLANS, sizeof(*g->plans));
	return g->workspace && g->plans && g->f.create(&g->handle) == CUBLAS_STATUS_SUCCESS &&
	       g->f.desc_create(&g->desc, CUBLAS_COMPUTE_32F, CUDA_R_32F) == CUBLAS_STATUS_SUCCESS &&
	       g->f.desc_set(g->desc, CUBLASLT_MATMUL_DESC_TRANSA, &transposed, sizeof(transposed)) ==
	               CUBLAS_STATUS_SUCCESS &&
	       g->f.pref_create(&g->pref) == CUBLAS_STATUS_SUCCESS &&
	       g->f.pref_set(g->pref, CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, &bytes, sizeof(bytes)) ==
	               CUBLAS_STATUS_SUCCESS;
}

struct gpu_gemm *gpu_gemm_open(struct gpu_backend *be, char *reason, size_t reason_bytes)
{
	void *library = open_library(); /* stays open for good */
	struct gpu_gemm *g;

	if (!library) {
		(void)snprintf(reason, reason_bytes,
		               "long prompts are computed slower than they could be: no cuBLASLt (%s)", dlerror());
		return NULL;
	}
	g = calloc(1, sizeof(*g));
	if (!g)
		return NULL;
	g->be = be;
	if (!resolve(library, &g->f) || !set_up(g)) {
		(void)snprintf(reason, reason_bytes,
		               "long prompts are computed slower than they could be: cuBLASLt cannot be used here");
		gpu_gemm_close(g);
		return NULL;
	}
	set_up_fp8(g);
	return g;
}

static void plan_done(struct gpu_gemm *g, struct plan *p)
{
	if (p->w)
		(void)g->f.layout_destroy(p->w);
	if (p->x)
		(void)g->f.layout_destroy(p->x);
	if (p->out)
		(void)g->f.layout_destroy(p->out);
}

void gpu_gemm_close(struct gpu_gemm *g)
{
	if (!g)
		return;
	for (uint32_t i = 0; i < g->n_plans; i++)
		plan_done(g, &g->plans[i]);
	if (g->pref)
		(void)g->f.pref_destroy(g->pref);
	if (g->desc8)
		(void)g->f.desc_destroy(g->desc8);
	if (g->desc)
		(void)g->f.desc_destroy(g->desc);
	if (g->handle)
		(void)g->f.destroy(g->handle);
	gpu_rt_free(&g->be->rt, g->workspace);
	free(g->plans);
	free(g);
}

/* ---- Running ---- */

static void make_plan(struct gpu_gemm *g, const struct plan *wanted, struct plan *p)
{
	cudaDataType_t in = wanted->is_fp8 ? CUDA_R_8F_E4M3 : CUDA_R_16BF;
	cudaDataType_t out = wanted->out_is_f32 ? CUDA_R_32F : CUDA_R_16BF;
	cublasLtMatmulHeuristicResult_t result;
	int n = 0;

	*p = *wanted;
	if (g->f.layout_create(&p->w, in, p->k, p->n, p->ld_w) != CUBLAS_STATUS_SUCCESS ||
	    g->f.layout_create(&p->x, in, p->k, p->rows, p->ld_x) != CUBLAS_STATUS_SUCCESS ||
	    g->f.layout_create(&p->out, out, p->n, p->rows, p->ld_out) != CUBLAS_STATUS_SUCCESS ||
	    g->f.heuristic(g->handle, p->is_fp8 ? g->desc8 : g->desc, p->w, p->x, p->out, p->out, g->pref, 1, &result,
	                   &n) != CUBLAS_STATUS_SUCCESS ||
	    n == 0 || result.state != CUBLAS_STATUS_SUCCESS)
		return;
	p->algo = result.algo;
	p->workspace = result.workspaceSize;
	p->taken = true;
}

static struct plan *plan_of(struct gpu_gemm *g, const struct plan *wanted)
{
	for (uint32_t i = 0; i < g->n_plans; i++) {
		struct plan *p = &g->plans[i];

		if (p->rows == wanted->rows && p->n == wanted->n && p->k == wanted->k && p->ld_x == wanted->ld_x &&
		    p->ld_w == wanted->ld_w && p->ld_out == wanted->ld_out && p->out_is_f32 == wanted->out_is_f32 &&
		    p->accumulate == wanted->accumulate && p->is_fp8 == wanted->is_fp8)
			return p;
	}
	if (g->n_plans == MAX_PLANS) {
		for (uint32_t i = 0; i < MAX_PLANS; i++)
			plan_done(g, &g->plans[i]);
		g->n_plans = 0;
	}
	make_plan(g, wanted, &g->plans[g->n_plans]);
	return &g->plans[g->n_plans++];
}

static int run(struct gpu_gemm *g, cublasLtMatmulDesc_t desc, const struct plan *p, const void *w, const void *x,
               void *out)
{
	const float one = 1, beta = p->accumulate ? 1 : 0;

	return g->f.matmul(g->handle, desc, &one, w, p->w, x, p->x, &beta, out, p->out, out, p->out, &p->algo,
	                   g->workspace, p->workspace, (cudaStream_t)g->be->rt.stream) == CUBLAS_STATUS_SUCCESS
	               ? 0
	               : -EIO;
}

int gpu_gemm_run(struct gpu_gemm *g, const struct gpu_gemm_desc *d)
{
	const struct plan wanted = { .rows = d->rows,
		                     .n = d->n,
		                     .k = d->k,
		                     .ld_x = d->ld_x,
		                     .ld_w = d->ld_w,
		                     .ld_out = d->ld_out,
		                     .out_is_f32 = d->out_is_f32,
		                     .accumulate = d->accumulate };
	const struct plan *p = plan_of(g, &wanted);

	return p->taken ? run(g, g->desc, p, d->w, d->x, d->out) : -ENOTSUP;
}

bool gpu_gemm8_known(const struct gpu_gemm *g)
{
	return g->desc8 != NULL;
}

int gpu_gemm8_run(struct gpu_gemm *g, const struct gpu_gemm8_desc *d)
{
	const struct plan wanted = { .rows = d->rows,
		                     .n = d->n,
		                     .k = d->k,
		                     .ld_x = d->ld_x,
		                     .ld_w = d->w->ld,
		                     .ld_out = d->ld_out,
		                     .out_is_f32 = d->out_is_f32,
		                     .accumulate = d->accumulate,
		                     .is_fp8 = true };
	const struct plan *p;

	/* The scales are no part of a plan, but its choice asks whether they are there. */
	if (!g->desc8 ||
	    g->f.desc_set(g->desc8, CUBLASLT_MATMUL_DESC_A_SCALE_POINTER, &d->w->scales, sizeof(d->w->scales)) !=
	            CUBLAS_STATUS_SUCCESS ||
	    g->f.desc_set(g->desc8, CUBLASLT_MATMUL_DESC_B_SCALE_POINTER, &d->x_scale, sizeof(d->x_scale)) !=
	            CUBLAS_STATUS_SUCCESS)
		return -ENOTSUP;
	p = plan_of(g, &wanted);
	return p->taken ? run(g, g->desc8, p, d->w->values, d->x, d->out) : -ENOTSUP;
}
