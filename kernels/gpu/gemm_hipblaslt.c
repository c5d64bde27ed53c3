/* Products of many rows by hipBLASLt, which is neither linked nor required: it is looked for in $OCAI_GPU_LIBS (folders
 * separated by ':'), then as the dynamic linker looks, then where ROCm's packages put it. Nothing of this has run on a
 * device; tests/unit/gpu_host/test_gpu_hipblaslt.c runs it on a library that computes in plain loops.
 *
 * hipBLASLt counts columns first. Our out [rows, n] = x [rows, k] w [n, k]^T is its D [n, rows] = W^T X, with W as k x
 * n and X as k x rows, both as they lie. */
#include <dlfcn.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "gpu/gemm.h"
#include "gpu/hipblaslt_abi.h"

enum { WORKSPACE_BYTES = 64 << 20, MAX_PLANS = 1024 };

/* What the library chose for a shape. */
struct plan {
	struct gpu_gemm_desc key; /* its pointers NULL */
	bool taken;
	struct lt_algo algo;
	size_t workspace;
	lt_layout w, x, out;
};

struct gpu_gemm {
	struct gpu_backend *be;
	struct lt_functions f;
	lt_handle handle;
	lt_desc desc;
	lt_pref pref;
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
	static const char *const names[] = { "libhipblaslt.so.1", "libhipblaslt.so.0" };
	enum { N_NAMES = sizeof(names) / sizeof(names[0]) };
	void *library = NULL;

	for (size_t i = 0; !library && i < N_NAMES; i++)
		library = open_in_folders(getenv("OCAI_GPU_LIBS"), names[i]);
	for (size_t i = 0; !library && i < N_NAMES; i++)
		library = dlopen(names[i], RTLD_NOW | RTLD_LOCAL);
	for (size_t i = 0; !library && i < N_NAMES; i++)
		library = open_in_folders("/opt/rocm/lib", names[i]);
	return library;
}

static bool resolve(void *library, struct lt_functions *f)
{
	const struct {
		const char *name;
		void *slot;
	} symbols[] = {
		{ "hipblasLtCreate", &f->create },
		{ "hipblasLtDestroy", &f->destroy },
		{ "hipblasLtMatmulDescCreate", &f->desc_create },
		{ "hipblasLtMatmulDescDestroy", &f->desc_destroy },
		{ "hipblasLtMatmulDescSetAttribute", &f->desc_set },
		{ "hipblasLtMatrixLayoutCreate", &f->layout_create },
		{ "hipblasLtMatrixLayoutDestroy", &f->layout_destroy },
		{ "hipblasLtMatmulPreferenceCreate", &f->pref_create },
		{ "hipblasLtMatmulPreferenceDestroy", &f->pref_destroy },
		{ "hipblasLtMatmulPreferenceSetAttribute", &f->pref_set },
		{ "hipblasLtMatmulAlgoGetHeuristic", &f->heuristic },
		{ "hipblasLtMatmul", &f->matmul },
	};

	for (size_t i = 0; i < sizeof(symbols) / sizeof(symbols[0]); i++) {
		void *p = dlsym(library, symbols[i].name);

		if (!p)
			return false;
		memcpy(symbols[i].slot, &p, sizeof(p));
	}
	return true;
}

static bool set_up(struct gpu_gemm *g)
{
	const int32_t transposed = LT_OP_T;
	const uint64_t bytes = WORKSPACE_BYTES;

	g->workspace = gpu_rt_alloc(&g->be->rt, WORKSPACE_BYTES);
	g->plans = calloc(MAX_PLANS, sizeof(*g->plans));
	return g->workspace && g->plans && g->f.create(&g->handle) == LT_SUCCESS &&
	       g->f.desc_create(&g->desc, LT_COMPUTE_32F, LT_R_32F) == LT_SUCCESS &&
	       g->f.desc_set(g->desc, LT_DESC_TRANSA, &transposed, sizeof(transposed)) == LT_SUCCESS &&
	       g->f.pref_create(&g->pref) == LT_SUCCESS &&
	       g->f.pref_set(g->pref, LT_PREF_MAX_WORKSPACE_BYTES, &bytes, sizeof(bytes)) == LT_SUCCESS;
}

struct gpu_gemm *gpu_gemm_open(struct gpu_backend *be, char *reason, size_t reason_bytes)
{
	void *library = open_library(); /* stays open for good */
	struct gpu_gemm *g;

	if (!library) {
		(void)snprintf(reason, reason_bytes,
		               "long prompts are computed slower than they could be: no hipBLASLt (%s)", dlerror());
		return NULL;
	}
	g = calloc(1, sizeof(*g));
	if (!g)
		return NULL;
	g->be = be;
	if (!resolve(library, &g->f)) {
		(void)snprintf(reason, reason_bytes,
		               "long prompts are computed slower than they could be: hipBLASLt lacks what is called");
		free(g);
		return NULL;
	}
	if (!set_up(g)) {
		(void)snprintf(reason, reason_bytes,
		               "long prompts are computed slower than they could be: hipBLASLt cannot be used here");
		gpu_gemm_close(g);
		return NULL;
	}
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
	if (g->desc)
		(void)g->f.desc_destroy(g->desc);
	if (g->handle)
		(void)g->f.destroy(g->handle);
	gpu_rt_free(&g->be->rt, g->workspace);
	free(g->plans);
	free(g);
}

/* ---- Running ---- */

static void make_plan(struct gpu_gemm *g, const struct gpu_gemm_desc *d, struct plan *p)
{
	const struct lt_functions *f = &g->f;
	struct lt_result result = { .state = -1 };
	int n = 0;

	if (f->layout_create(&p->w, LT_R_16BF, d->k, d->n, d->ld_w) != LT_SUCCESS ||
	    f->layout_create(&p->x, LT_R_16BF, d->k, d->rows, d->ld_x) != LT_SUCCESS ||
	    f->layout_create(&p->out, d->out_is_f32 ? LT_R_32F : LT_R_16BF, d->n, d->rows, d->ld_out) != LT_SUCCESS ||
	    f->heuristic(g->handle, g->desc, p->w, p->x, p->out, p->out, g->pref, 1, &result, &n) != LT_SUCCESS ||
	    n == 0 || result.state != LT_SUCCESS || result.workspace_bytes > WORKSPACE_BYTES)
		return;
	p->algo = result.algo;
	p->workspace = result.workspace_bytes;
	p->taken = true;
}

static bool same_shape(const struct gpu_gemm_desc *a, const struct gpu_gemm_desc *b)
{
	return a->rows == b->rows && a->n == b->n && a->k == b->k && a->ld_x == b->ld_x && a->ld_w == b->ld_w &&
	       a->ld_out == b->ld_out && a->out_is_f32 == b->out_is_f32 && a->accumulate == b->accumulate;
}

static struct plan *plan_of(struct gpu_gemm *g, const struct gpu_gemm_desc *d)
{
	struct plan *p;

	for (uint32_t i = 0; i < g->n_plans; i++) {
		if (same_shape(&g->plans[i].key, d))
			return &g->plans[i];
	}
	if (g->n_plans == MAX_PLANS) {
		for (uint32_t i = 0; i < MAX_PLANS; i++)
			plan_done(g, &g->plans[i]);
		g->n_plans = 0;
	}
	p = &g->plans[g->n_plans++];
	*p = (struct plan){ .key = *d };
	p->key.x = p->key.w = p->key.out = NULL;
	make_plan(g, d, p);
	return p;
}

int gpu_gemm_run(struct gpu_gemm *g, const struct gpu_gemm_desc *d)
{
	const struct plan *p = plan_of(g, d);
	const float one = 1, beta = d->accumulate ? 1 : 0;

	if (!p->taken)
		return -ENOTSUP;
	return g->f.matmul(g->handle, g->desc, &one, d->w, p->w, d->x, p->x, &beta, d->out, p->out, d->out, p->out,
	                   &p->algo, g->workspace, p->workspace, g->be->rt.stream) == LT_SUCCESS
	               ? 0
	               : -EIO;
}

/* It has no scales for 128 x 128 values (7.1: "not supported yet"). */
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
