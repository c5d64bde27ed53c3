/* Deterministic mode: the library's best kernel for so many rows, if it gives the bits that its kernel for all numbers
 * of rows gives. A part of gemm_lt.h, which includes it.
 *
 * A kernel that shares its sums with nobody adds up each one of them from the first column to the last, as a rule in
 * the same steps whatever its tiles are. Nobody promises that, so it is asked: when a kind of product is first seen,
 * the model, which is chosen for STEADY_ROWS and takes any number of rows, and the kernels that the heuristics name for
 * each class of rows multiply the same values (alike.h), and all bits are compared. A kernel with other bits is left
 * out, and the next one is asked. If some class has none, the kind is not alike: prompts have the model, answers other
 * kernels (steady.h). So which way a product takes is a matter of its kind, never of its rows.
 *
 * It takes a tenth of a second for a model (0.14 s for Qwen3-8B on an H100) and memory that is given back. */
#ifndef GPU_GEMM_ALIKE_H
#define GPU_GEMM_ALIKE_H

#include "gpu/alike.h"

enum {
	TRIAL_WEIGHT_BYTES = 256 << 20, /* as much of W as has room here, whole lines of tiles of it */
	TRIAL_OUT_BYTES = 64 << 20,     /* of each of three outputs */
	LEAST_TRIAL_WEIGHT_BYTES = 4 << 20,
	TRIAL_TILE = 512, /* rows of W that are taken together */
	SAMPLE_ROWS = 16,
	SAMPLE_COLS = 256,
};

/* Memory of a trial, and how much of the product it is. */
struct lt_trial {
	struct lt_shape shape; /* rows: the most of them */
	char *memory;
	void *w, *x, *begin, *want, *out;
	float *w_scale, *x_scale;
	uint32_t *count;
	size_t out_words; /* of a row */
};

static size_t lt_rounded(size_t bytes)
{
	return (bytes + 255) & ~(size_t)255;
}

/* The places of all in one piece of memory; how long it is. */
static size_t lt_trial_lay(struct lt_trial *t)
{
	const struct lt_shape *s = &t->shape;
	const size_t each = s->is_fp8 ? 1 : 2, out = lt_rounded((size_t)s->rows * t->out_words * 4);
	const size_t lines = s->is_fp8 ? s->k / 128 + 4 : 0;
	const struct {
		void *place;
		size_t bytes;
	} parts[] = {
		{ &t->w, (size_t)s->n * s->ld_w * each },
		{ &t->x, (size_t)s->rows * s->ld_x * each },
		{ &t->begin, out },
		{ &t->want, out },
		{ &t->out, out },
		{ &t->w_scale, ((size_t)s->n / 128 + 1) * lines * sizeof(float) },
		{ &t->x_scale, s->rows * lines * sizeof(float) },
		{ &t->count, sizeof(uint32_t) },
	};
	size_t at = 0;

	for (size_t i = 0; i < sizeof(parts) / sizeof(parts[0]); i++) {
		char *here = t->memory ? t->memory + at : NULL;

		memcpy(parts[i].place, &here, sizeof(here));
		at += lt_rounded(parts[i].bytes);
	}
	return at;
}

/* As much of it as there is memory for: rows of W, and rows of x. */
static bool lt_trial_open(struct gpu_gemm *g, const struct lt_kind *kind, struct lt_trial *t)
{
	for (size_t most = TRIAL_WEIGHT_BYTES; !t->memory && most >= LEAST_TRIAL_WEIGHT_BYTES; most /= 2) {
		struct lt_shape *s = &t->shape;
		size_t n, rows;

		*s = kind->shape;
		s->ld_x = s->ld_w = (s->k + 63) & ~63u;
		n = most / ((size_t)s->ld_w * (s->is_fp8 ? 1 : 2)) / TRIAL_TILE * TRIAL_TILE;
		n = n ? n : TRIAL_TILE;
		s->n = n < s->n ? (uint32_t)n : s->n;
		s->ld_out = (s->n + 63) & ~63u;
		t->out_words = (size_t)s->ld_out / (s->out_is_f32 ? 1 : 2);
		rows = most / (TRIAL_WEIGHT_BYTES / TRIAL_OUT_BYTES) / (t->out_words * 4) & ~(size_t)3;
		rows = rows < 16 ? 16 : rows;
		s->rows = rows < lt_class_rows[LT_CLASSES - 1] ? (uint32_t)rows : lt_class_rows[LT_CLASSES - 1];
		t->memory = gpu_rt_alloc(&g->be->rt, lt_trial_lay(t));
	}
	(void)lt_trial_lay(t);
	return t->memory != NULL;
}

static int lt_trial_fill(struct gpu_gemm *g, const struct lt_trial *t)
{
	const struct lt_shape *s = &t->shape;
	const struct gk_alike w = { .p = t->w, .eight_bits = s->is_fp8, .rows = s->n, .cols = s->k, .ld = s->ld_w },
	                      x = { .p = t->x,
		                    .eight_bits = s->is_fp8,
		                    .is_x = true,
		                    .rows = s->rows,
		                    .cols = s->k,
		                    .ld = s->ld_x };
	const uint32_t blocks = (s->k + 127) / 128;
	const struct gk_alike scales = {
		.p = t->w_scale, .rows = s->n / 128 + 1, .cols = blocks, .ld = (blocks + 3) & ~3u
	};
	int r = gk_alike_values(&g->be->ctx, &w);

	r = r < 0 ? r : gk_alike_values(&g->be->ctx, &x);
	r = r < 0 ? r : gk_alike_summands(&g->be->ctx, t->begin, s->out_is_f32 ? GK_F32 : GK_BF16, s->rows, s->ld_out);
	return r < 0 || !s->is_fp8 ? r : gk_alike_scales(&g->be->ctx, &scales);
}

/* So many rows by a kernel, into `out`. */
static bool lt_trial_run(struct gpu_gemm *g, const struct lt_trial *t, uint32_t rows, const lt_algo *algo, void *out)
{
	struct lt_plan p = { .shape = t->shape, .algo = *algo };
	const struct gk_alike scales = {
		.p = t->x_scale, .is_x = true, .rows = (t->shape.k + 127) / 128, .cols = rows, .ld = rows
	};
	const float one = 1, beta = t->shape.accumulate ? 1 : 0;
	const lt_desc desc = t->shape.is_fp8 ? g->desc8 : g->desc;
	bool ran;

	p.shape.rows = rows;
	ran = lt_make_layouts(g, &p) && gpu_rt_copy(&g->be->rt, out, t->begin, rows * t->out_words * 4) == 0 &&
	      (!t->shape.is_fp8 ||
	       (gk_alike_scales(&g->be->ctx, &scales) == 0 && lt_set_scales(&g->f, desc, t->w_scale, t->x_scale))) &&
	      g->f.matmul(g->handle, desc, &one, t->w, p.w, t->x, p.x, &beta, out, p.out, out, p.out, &p.algo,
	                  g->workspace, 0, g->be->rt.stream) == LT_SUCCESS;
	lt_plan_done(g, &p);
	return ran;
}

static bool lt_trial_agrees(struct gpu_gemm *g, const struct lt_trial *t, uint32_t rows, const lt_algo *algo)
{
	uint32_t n = 1;

	rows = rows < t->shape.rows ? rows : t->shape.rows;
	return lt_trial_run(g, t, rows, algo, t->out) &&
	       gk_alike_count(&g->be->ctx, t->want, t->out, rows * t->out_words, t->count) == 0 &&
	       gpu_rt_to_host(&g->be->rt, &n, t->count, sizeof(n)) == 0 && gpu_rt_sync(&g->be->rt) == 0 && n == 0;
}

/* The first of the library's kernels for so many rows that has the model's bits; it may be the model. */
static bool lt_find_alike(struct gpu_gemm *g, const struct lt_kind *kind, const struct lt_trial *t, uint32_t rows,
                          lt_algo *ret)
{
	struct lt_plan p = { .shape = kind->shape };
	lt_result results[LT_CANDIDATES];
	int n = 0;

	p.shape.rows = rows;
	if (lt_make_layouts(g, &p))
		n = lt_ask(g, &p, results, LT_CANDIDATES);
	lt_plan_done(g, &p);
	for (int i = 0; i < n; i++) {
		if (results[i].state != LT_SUCCESS || results[i].workspaceSize > 0 ||
		    !lt_trial_agrees(g, t, rows, &results[i].algo))
			continue;
		*ret = results[i].algo;
		return true;
	}
	return false;
}

/* What the model gave for the first rows and outputs, lines of SAMPLE_COLS; the caller's. NULL: it could not be had. */
static unsigned char *lt_sample_of(struct gpu_gemm *g, const struct lt_trial *t)
{
	const size_t each = t->shape.out_is_f32 ? 4 : 2, n = t->shape.n < SAMPLE_COLS ? t->shape.n : SAMPLE_COLS;
	unsigned char *sample = calloc((size_t)SAMPLE_ROWS * SAMPLE_COLS, each);
	int r = sample ? 0 : -ENOMEM;

	for (size_t i = 0; i < SAMPLE_ROWS && r == 0; i++)
		r = gpu_rt_to_host(&g->be->rt, sample + i * SAMPLE_COLS * each,
		                   (const char *)t->want + i * t->out_words * 4, n * each);
	if (sample && (gpu_rt_sync(&g->be->rt) < 0 || r < 0)) {
		free(sample);
		return NULL;
	}
	return sample;
}

/* kind's sample is like those of the kinds before it which differ from it in the number of outputs alone. */
static bool lt_is_like_others(const struct gpu_gemm *g, const struct lt_kind *kind)
{
	const struct lt_shape *s = &kind->shape;
	const size_t each = s->out_is_f32 ? 4 : 2;

	for (uint32_t k = 0; k < g->n_kinds; k++) {
		const struct lt_shape *o = &g->kinds[k].shape;
		const size_t fewer = o->n < s->n ? o->n : s->n, n = fewer < SAMPLE_COLS ? fewer : SAMPLE_COLS;

		if (!g->kinds[k].sample || o->k != s->k || o->out_is_f32 != s->out_is_f32 ||
		    o->accumulate != s->accumulate || o->is_fp8 != s->is_fp8)
			continue;
		for (size_t i = 0; i < SAMPLE_ROWS; i++) {
			const size_t at = i * SAMPLE_COLS * each;

			if (memcmp(g->kinds[k].sample + at, kind->sample + at, n * each) != 0)
				return false;
		}
	}
	return true;
}

/* kind->model is there. */
static bool lt_are_alike(struct gpu_gemm *g, struct lt_kind *kind)
{
	struct lt_trial t = { 0 };
	bool alike = lt_trial_open(g, kind, &t) && lt_trial_fill(g, &t) == 0 &&
	             lt_trial_run(g, &t, t.shape.rows, &kind->model, t.want);

	if (alike) {
		kind->sample = lt_sample_of(g, &t);
		alike = kind->sample && lt_is_like_others(g, kind);
	}
	for (size_t i = 0; i < LT_CLASSES && alike; i++) {
		if (kind->shape.is_fp8 && lt_class_rows[i] % 4 != 0) /* there are no such products */
			continue;
		alike = lt_find_alike(g, kind, &t, lt_class_rows[i], &kind->of_class[i]);
	}
	(void)gpu_rt_sync(&g->be->rt);
	gpu_rt_free(&g->be->rt, t.memory);
	return alike;
}

#endif
