/* Products of many rows by a vendor's library: what gemm_cublaslt.c and gemm_hipblaslt.c have in common, which is all
 * but names, types and scales. It is looked for in $OCAI_GPU_LIBS (folders separated by ':'), then as the dynamic
 * linker looks, then in lt_folders. Each defines, before it includes this:
 *
 *   LT_NAME, LT_PREFIX         what it is called in a sentence, and what its functions' names begin with
 *   lt_names, lt_folders       file names, newest first and NULL-ended; more folders or NULL
 *   struct lt_functions        pointers by the names in lt_resolve()
 *   lt_handle, lt_desc, lt_layout, lt_pref, lt_algo, lt_result (with algo, workspaceSize, state)
 *   LT_SUCCESS, LT_OP_T, LT_COMPUTE_32F, LT_R_32F, LT_R_16BF, LT_R_8F_E4M3, LT_DESC_TRANSA, LT_PREF_MAX_WORKSPACE_BYTES
 *   lt_set_modes(f, desc)      scales for FP8 as gemm.h has them; false: it has none
 *   lt_set_scales(f, desc, w, x)  where those of the next product are
 *   lt_is_steady, lt_set_steady(f, pref, alignment)  whether kernels can be asked for that add up each sum in one
 *                              piece, of rows that begin at multiples of so many bytes; and does so
 *
 * Both count columns first. Our out [rows, n] = x [rows, k] w [n, k]^T is their D [n, rows] = W^T X, with W as k x n
 * and X as k x rows, both as they lie. */
#ifndef GPU_GEMM_LT_H
#define GPU_GEMM_LT_H

#include <dlfcn.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "gpu/gemm.h"
#include "gpu/vendor.h"

enum {
	WORKSPACE_BYTES = 64 << 20,
	MAX_PLANS = 1024,
	STEADY_ROWS = 2048, /* for which kernels are chosen in deterministic mode */
	MAX_KINDS = 256,
	LT_CLASSES = 8,
	LT_CANDIDATES = 8, /* kernels that are asked for one class */
};

/* Deterministic mode: numbers of rows up to each of which one kernel is taken; beyond, that for STEADY_ROWS. */
static const uint32_t lt_class_rows[LT_CLASSES] = { 1, 4, 8, 16, 32, 64, 128, 256 };

struct lt_shape {
	uint32_t rows, n, k, ld_x, ld_w, ld_out;
	bool out_is_f32, accumulate, is_fp8;
};

/* Deterministic mode: products that differ in rows alone, and in strides of the same alignment. */
struct lt_kind {
	struct lt_shape shape; /* of the first one seen; rows: STEADY_ROWS */
	uint32_t alignment;
	bool taken; /* there is a model */
	bool alike; /* gemm_alike.h */
	lt_algo model, of_class[LT_CLASSES];
	unsigned char *sample; /* of what the model gives, if alike */
};

/* What the library chose for a shape. */
struct lt_plan {
	struct lt_shape shape;
	bool taken;
	lt_algo algo;
	size_t workspace;
	lt_layout w, x, out;
};

struct gpu_gemm {
	struct gpu_backend *be;
	struct lt_functions f;
	lt_handle handle;
	lt_desc desc, desc8; /* desc8 NULL: no FP8 */
	lt_pref pref;
	void *workspace;
	struct lt_plan *plans; /* [MAX_PLANS] */
	uint32_t n_plans;
	struct lt_kind *kinds; /* [MAX_KINDS]; deterministic mode */
	uint32_t n_kinds;
};

/* ---- Opening ---- */

static void *lt_open(void)
{
	void *library = NULL;

	for (const char *const *name = lt_names; !library && *name; name++)
		library = gpu_open_in(getenv("OCAI_GPU_LIBS"), *name);
	for (const char *const *name = lt_names; !library && *name; name++)
		library = dlopen(*name, RTLD_NOW | RTLD_LOCAL);
	for (const char *const *name = lt_names; !library && *name; name++)
		library = gpu_open_in(lt_folders, *name);
	return library;
}

static bool lt_resolve(void *library, struct lt_functions *f)
{
	const struct {
		const char *name;
		void *slot;
	} symbols[] = {
		{ LT_PREFIX "Create", &f->create },
		{ LT_PREFIX "Destroy", &f->destroy },
		{ LT_PREFIX "MatmulDescCreate", &f->desc_create },
		{ LT_PREFIX "MatmulDescDestroy", &f->desc_destroy },
		{ LT_PREFIX "MatmulDescSetAttribute", &f->desc_set },
		{ LT_PREFIX "MatrixLayoutCreate", &f->layout_create },
		{ LT_PREFIX "MatrixLayoutDestroy", &f->layout_destroy },
		{ LT_PREFIX "MatmulPreferenceCreate", &f->pref_create },
		{ LT_PREFIX "MatmulPreferenceDestroy", &f->pref_destroy },
		{ LT_PREFIX "MatmulPreferenceSetAttribute", &f->pref_set },
		{ LT_PREFIX "MatmulAlgoGetHeuristic", &f->heuristic },
		{ LT_PREFIX "Matmul", &f->matmul },
	};

	for (size_t i = 0; i < sizeof(symbols) / sizeof(symbols[0]); i++) {
		void *p = dlsym(library, symbols[i].name);

		if (!p)
			return false;
		memcpy(symbols[i].slot, &p, sizeof(p));
	}
	return true;
}

static bool lt_make_desc(const struct lt_functions *f, lt_desc *ret)
{
	const int32_t transposed = LT_OP_T;

	return f->desc_create(ret, LT_COMPUTE_32F, LT_R_32F) == LT_SUCCESS &&
	       f->desc_set(*ret, LT_DESC_TRANSA, &transposed, sizeof(transposed)) == LT_SUCCESS;
}

static bool lt_set_up(struct gpu_gemm *g)
{
	const uint64_t bytes = g->be->deterministic ? 0 : WORKSPACE_BYTES;

	g->workspace = gpu_rt_alloc(&g->be->rt, WORKSPACE_BYTES);
	g->plans = calloc(MAX_PLANS, sizeof(*g->plans));
	g->kinds = calloc(MAX_KINDS, sizeof(*g->kinds));
	return g->workspace && g->plans && g->kinds && g->f.create(&g->handle) == LT_SUCCESS &&
	       lt_make_desc(&g->f, &g->desc) && g->f.pref_create(&g->pref) == LT_SUCCESS &&
	       g->f.pref_set(g->pref, LT_PREF_MAX_WORKSPACE_BYTES, &bytes, sizeof(bytes)) == LT_SUCCESS;
}

static void lt_set_up_fp8(struct gpu_gemm *g)
{
	if (lt_make_desc(&g->f, &g->desc8) && lt_set_modes(&g->f, g->desc8))
		return;
	if (g->desc8)
		(void)g->f.desc_destroy(g->desc8);
	g->desc8 = NULL;
}

struct gpu_gemm *gpu_gemm_open(struct gpu_backend *be, char *reason, size_t reason_bytes)
{
	static const char slower[] = "long prompts are computed slower than they could be: ";
	void *library = lt_open(); /* stays open for good */
	struct gpu_gemm *g;

	if (!library) {
		(void)snprintf(reason, reason_bytes, "%sno " LT_NAME " (%s)", slower, dlerror());
		return NULL;
	}
	g = calloc(1, sizeof(*g));
	if (!g)
		return NULL;
	g->be = be;
	if (!lt_resolve(library, &g->f)) {
		(void)snprintf(reason, reason_bytes, "%s" LT_NAME " lacks what is called", slower);
		free(g);
		return NULL;
	}
	if (!lt_set_up(g)) {
		(void)snprintf(reason, reason_bytes, "%s" LT_NAME " cannot be used here", slower);
		gpu_gemm_close(g);
		return NULL;
	}
	lt_set_up_fp8(g);
	return g;
}

static void lt_plan_done(struct gpu_gemm *g, struct lt_plan *p)
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
		lt_plan_done(g, &g->plans[i]);
	for (uint32_t i = 0; i < g->n_kinds; i++)
		free(g->kinds[i].sample);
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
	free(g->kinds);
	free(g);
}

/* ---- Running ---- */

static bool lt_make_layouts(struct gpu_gemm *g, struct lt_plan *p)
{
	const struct lt_functions *f = &g->f;
	const struct lt_shape *s = &p->shape;

	return f->layout_create(&p->w, s->is_fp8 ? LT_R_8F_E4M3 : LT_R_16BF, s->k, s->n, s->ld_w) == LT_SUCCESS &&
	       f->layout_create(&p->x, s->is_fp8 ? LT_R_8F_E4M3 : LT_R_16BF, s->k, s->rows, s->ld_x) == LT_SUCCESS &&
	       f->layout_create(&p->out, s->out_is_f32 ? LT_R_32F : LT_R_16BF, s->n, s->rows, s->ld_out) == LT_SUCCESS;
}

/* Kernels for a plan whose layouts are made, best first; how many. */
static int lt_ask(struct gpu_gemm *g, const struct lt_plan *p, lt_result *ret, int most)
{
	int n = 0;

	memset(ret, 0xff, (size_t)most * sizeof(*ret)); /* no state is success */
	return g->f.heuristic(g->handle, p->shape.is_fp8 ? g->desc8 : g->desc, p->w, p->x, p->out, p->out, g->pref,
	                      most, ret, &n) == LT_SUCCESS
	               ? n
	               : 0;
}

static bool lt_choose(struct gpu_gemm *g, struct lt_plan *p)
{
	lt_result result;

	if (lt_ask(g, p, &result, 1) == 0 || result.state != LT_SUCCESS || result.workspaceSize > WORKSPACE_BYTES)
		return false;
	p->algo = result.algo;
	p->workspace = result.workspaceSize;
	return true;
}

#include "gpu/gemm_alike.h"

/* Rows of a shape begin at multiples of so many bytes, at most 16. */
static uint32_t lt_alignment(const struct lt_shape *s)
{
	const uint32_t steps = s->ld_x * (s->is_fp8 ? 1 : 2) | s->ld_out * (s->out_is_f32 ? 4 : 2) | 16;

	return steps & -steps;
}

/* One kernel for all numbers of rows, which adds up each sum in one piece, so that no row's bits depend on the others;
 * if it did not take some number of rows, matmul() would say so. And others with the same bits, if there are. */
static void lt_make_kind(struct gpu_gemm *g, const struct lt_shape *s, struct lt_kind *kind)
{
	struct lt_plan model = { .shape = *s };

	*kind = (struct lt_kind){ .shape = *s, .alignment = lt_alignment(s) };
	model.shape.rows = kind->shape.rows = STEADY_ROWS;
	kind->taken = lt_set_steady(&g->f, g->pref, kind->alignment) && lt_make_layouts(g, &model) &&
	              lt_choose(g, &model) && model.workspace == 0;
	lt_plan_done(g, &model);
	kind->model = model.algo;
	kind->alike = kind->taken && lt_are_alike(g, kind);
	if (!kind->alike) {
		free(kind->sample);
		kind->sample = NULL;
	}
}

/* NULL: not seen before, and now is no time to look; or there are too many. */
static const struct lt_kind *lt_kind_of(struct gpu_gemm *g, const struct lt_shape *s)
{
	const uint32_t alignment = lt_alignment(s);

	for (uint32_t i = 0; i < g->n_kinds; i++) {
		const struct lt_kind *k = &g->kinds[i];

		if (k->shape.n == s->n && k->shape.k == s->k && k->shape.ld_w == s->ld_w && k->alignment == alignment &&
		    k->shape.out_is_f32 == s->out_is_f32 && k->shape.accumulate == s->accumulate &&
		    k->shape.is_fp8 == s->is_fp8)
			return k;
	}
	if (g->be->capturing || g->n_kinds == MAX_KINDS)
		return NULL;
	lt_make_kind(g, s, &g->kinds[g->n_kinds]);
	return &g->kinds[g->n_kinds++];
}

/* Deterministic mode. */
static bool lt_choose_steady(struct gpu_gemm *g, struct lt_plan *p)
{
	const struct lt_kind *kind = lt_kind_of(g, &p->shape);
	uint32_t class = 0;

	if (!kind || !kind->taken)
		return false;
	while (class < LT_CLASSES && lt_class_rows[class] < p->shape.rows)
		class ++;
	p->algo = kind->alike && class < LT_CLASSES ? kind->of_class[class] : kind->model;
	return true;
}

static void lt_make_plan(struct gpu_gemm *g, const struct lt_shape *s, struct lt_plan *p)
{
	*p = (struct lt_plan){ .shape = *s };
	p->taken = lt_make_layouts(g, p) && (g->be->deterministic ? lt_choose_steady(g, p) : lt_choose(g, p));
}

static bool lt_is_same(const struct lt_shape *a, const struct lt_shape *b)
{
	return a->rows == b->rows && a->n == b->n && a->k == b->k && a->ld_x == b->ld_x && a->ld_w == b->ld_w &&
	       a->ld_out == b->ld_out && a->out_is_f32 == b->out_is_f32 && a->accumulate == b->accumulate &&
	       a->is_fp8 == b->is_fp8;
}

/* NULL: none is made while a graph is captured. */
static const struct lt_plan *lt_plan_of(struct gpu_gemm *g, const struct lt_shape *s)
{
	for (uint32_t i = 0; i < g->n_plans; i++) {
		if (lt_is_same(&g->plans[i].shape, s))
			return &g->plans[i];
	}
	if (g->n_plans == MAX_PLANS) {
		for (uint32_t i = 0; i < MAX_PLANS; i++)
			lt_plan_done(g, &g->plans[i]);
		g->n_plans = 0;
	}
	lt_make_plan(g, s, &g->plans[g->n_plans]);
	if (!g->plans[g->n_plans].taken && g->be->capturing) {
		lt_plan_done(g, &g->plans[g->n_plans]);
		return NULL;
	}
	return &g->plans[g->n_plans++];
}

static int lt_run(struct gpu_gemm *g, lt_desc desc, const struct lt_plan *p, const void *w, const void *x, void *out)
{
	const float one = 1, beta = p && p->shape.accumulate ? 1 : 0;

	if (!p || !p->taken)
		return -ENOTSUP;
	return g->f.matmul(g->handle, desc, &one, w, p->w, x, p->x, &beta, out, p->out, out, p->out, &p->algo,
	                   g->workspace, p->workspace, g->be->rt.stream) == LT_SUCCESS
	               ? 0
	               : -EIO;
}

static struct lt_shape lt_shape_of(const struct gpu_gemm_desc *d)
{
	return (struct lt_shape){ .rows = d->rows,
		                  .n = d->n,
		                  .k = d->k,
		                  .ld_x = d->ld_x,
		                  .ld_w = d->ld_w,
		                  .ld_out = d->ld_out,
		                  .out_is_f32 = d->out_is_f32,
		                  .accumulate = d->accumulate };
}

int gpu_gemm_run(struct gpu_gemm *g, const struct gpu_gemm_desc *d)
{
	const struct lt_shape s = lt_shape_of(d);

	return lt_run(g, g->desc, lt_plan_of(g, &s), d->w, d->x, d->out);
}

static int lt_is_alike(struct gpu_gemm *g, const struct lt_shape *s)
{
	const struct lt_kind *kind = lt_kind_of(g, s);

	if (!kind && g->be->capturing && g->n_kinds < MAX_KINDS)
		return -ENOTSUP;
	return kind && kind->alike;
}

int gpu_gemm_is_alike(struct gpu_gemm *g, const struct gpu_gemm_desc *d)
{
	const struct lt_shape s = lt_shape_of(d);

	return lt_is_alike(g, &s);
}

bool gpu_gemm_is_steady(void)
{
	return lt_is_steady;
}

bool gpu_gemm8_known(const struct gpu_gemm *g)
{
	return g->desc8 != NULL;
}

static struct lt_shape lt_shape_of8(const struct gpu_gemm8_desc *d)
{
	return (struct lt_shape){ .rows = d->rows,
		                  .n = d->n,
		                  .k = d->k,
		                  .ld_x = d->ld_x,
		                  .ld_w = d->w->ld,
		                  .ld_out = d->ld_out,
		                  .out_is_f32 = d->out_is_f32,
		                  .accumulate = d->accumulate,
		                  .is_fp8 = true };
}

int gpu_gemm8_is_alike(struct gpu_gemm *g, const struct gpu_gemm8_desc *d)
{
	const struct lt_shape s = lt_shape_of8(d);

	/* There are scales, whichever. */
	if (!g->desc8 || !lt_set_scales(&g->f, g->desc8, g->workspace, g->workspace))
		return 0;
	return lt_is_alike(g, &s);
}

int gpu_gemm8_run(struct gpu_gemm *g, const struct gpu_gemm8_desc *d)
{
	const struct lt_shape s = lt_shape_of8(d);
	const struct lt_plan *p;

	/* The scales are no part of a plan, but its choice asks whether they are there, and may have had others. */
	if (!g->desc8 || !lt_set_scales(&g->f, g->desc8, d->w->scales, d->x_scale))
		return -ENOTSUP;
	p = lt_plan_of(g, &s);
	if (!lt_set_scales(&g->f, g->desc8, d->w->scales, d->x_scale))
		return -ENOTSUP;
	return lt_run(g, g->desc8, p, d->w->values, d->x, d->out);
}

#endif
