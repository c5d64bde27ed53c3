/* Products in plain loops, and rows in eight bits for them. */
#include <errno.h>

#include "plain.h"

_Atomic uint32_t plain_n_gated8;
bool plain_no_eight;

int gk_quantize_rows(const struct gk_ctx *ctx, const struct gk_quantize *a)
{
	const struct gk_view *x = &a->x;
	float *line = malloc((a->dim + 127) / 128 * 128 * sizeof(*line));

	(void)ctx;
	plain_n_launched++;
	for (uint32_t i = 0; i < plain_rows(a->rows); i++) {
		double sum = 0;

		memset(line, 0, (a->dim + 127) / 128 * 128 * sizeof(*line));
		for (uint32_t k = 0; k < a->dim; k++) {
			line[k] = plain_get(x, i, k);
			sum += (double)line[k] * line[k];
			if (a->is_act)
				line[k] = plain_act(a->act, line[k], a->up.p ? plain_get(&a->up, i, k) : 0);
		}
		for (uint32_t k = 0; k < a->dim && a->norm; k++)
			line[k] *= (float)(1 / sqrt(sum / a->dim + a->eps)) * (a->norm_w ? a->norm_w[k] : 1);
		for (uint32_t from = 0; from < a->dim; from += 128) {
			float most = 1e-20f;

			for (uint32_t k = from; k < from + 128; k++)
				most = fmaxf(most, fabsf(line[k]));
			for (uint32_t k = from; k < from + 128; k++)
				line[k] *= 448 / most;
			kn_quantize(KN_FP8_128, line + from, (char *)a->q + (size_t)i * a->ld + from,
			            a->ld - from < 128 ? a->ld - from : 128);
			a->scale[(size_t)(from / 128) * a->ld_scale + i] = most / 448;
		}
	}
	free(line);
	return 0;
}

/* Row i of e4m3 with a scale for each 128, line[n]. */
static void wide8(const void *q, const float *scale, uint32_t step, uint32_t i, uint32_t ld, float *line, uint32_t n)
{
	kn_dequantize(KN_FP8_128, (const char *)q + (size_t)i * ld, line, n);
	for (uint32_t k = 0; k < n; k++)
		line[k] *= scale[(size_t)(k / 128) * step];
}

/* A row of bfloat16. */
static void wide16(const void *values, size_t row, size_t ld, float *line, uint32_t cols)
{
	const struct gk_view v = { .p = (void *)values, .elem = GK_BF16, .ld = (uint32_t)ld };

	for (uint32_t k = 0; k < cols; k++)
		line[k] = plain_get(&v, (uint32_t)row, k);
}

static void product(const struct gk_product *l, const struct gk_mat *w, uint32_t i, float *y)
{
	uint32_t cols = w->cols;
	float *x = malloc(2 * (size_t)cols * sizeof(*x)), *line = x + cols;
	bool eight = w->type == KN_FP8_128;

	if (eight)
		wide8(l->x, l->x_scale + i, l->ld_scale, i, l->ld_x, x, cols);
	else
		wide16(l->x, i, l->ld_x, x, cols);
	for (uint32_t o = 0; o < l->n; o++) {
		if (eight)
			wide8(w->values, (const float *)w->scales + (size_t)(o / 128) * gk_mat_scale_stride(w), 1, o,
			      w->ld, line, cols);
		else
			wide16(w->values, o, w->ld, line, cols);
		y[o] = (float)plain_sum(x, line, cols);
	}
	free(x);
}

int gk_product_hopper(const struct gk_ctx *ctx, const struct gk_product *l)
{
	float *y = malloc(2 * (size_t)l->n * sizeof(*y));
	struct gk_quantize q = { .q = l->q, .ld = l->ld_q, .scale = l->q_scale, .ld_scale = l->ld_q_scale };

	bool eight = l->w[0].type == KN_FP8_128;

	if (plain_no_eight) {
		free(y);
		return -ENOTSUP;
	}
	plain_n_launched++;
	plain_n_gated8 += l->gated && eight;
	for (uint32_t i = 0; i < plain_rows(l->rows); i++) {
		product(l, &l->w[0], i, y);
		if (l->gated) {
			product(l, &l->w[1], i, y + l->n);
			for (uint32_t o = 0; o < l->n; o++)
				y[o] = plain_act(l->act, y[o], y[l->n + o]);
		}
		if (!l->gated || !eight) {
			for (uint32_t o = 0; o < l->n; o++)
				plain_put(&l->out, i, o, y[o] + (l->accumulate ? plain_get(&l->out, i, o) : 0));
			continue;
		}
		q.x = (struct gk_view){ .p = y, .elem = GK_F32, .ld = l->n };
		q.dim = l->n;
		q.rows.bound = 1;
		(void)gk_quantize_rows(ctx, &q);
		q.q = (char *)q.q + q.ld;
		q.scale++;
		plain_n_launched--;
	}
	free(y);
	return 0;
}

/* x as floats, normed where asked for. */
static float *inputs(const struct gk_linear *l, uint32_t n, uint32_t cols)
{
	float *x = malloc((size_t)n * cols * sizeof(*x) + 1);

	for (uint32_t i = 0; i < n; i++) {
		double sum = 0;

		for (uint32_t k = 0; k < cols; k++) {
			x[(size_t)i * cols + k] = plain_get(&l->x, i, k);
			sum += (double)x[(size_t)i * cols + k] * x[(size_t)i * cols + k];
		}
		for (uint32_t k = 0; k < cols && l->norm; k++)
			x[(size_t)i * cols + k] *=
			        (float)(1 / sqrt(sum / cols + l->eps)) * (l->norm_w ? l->norm_w[k] : 1);
	}
	return x;
}

static int linear(const struct gk_linear *l)
{
	uint32_t n = plain_rows(l->rows), cols = l->jobs[0].w.cols, n_out = l->gated ? 1 : l->n_jobs;
	float *x = inputs(l, n, cols);

	plain_n_launched++;
	for (uint32_t j = 0; j < n_out; j++) {
		const struct gk_job *job = &l->jobs[j];

		for (uint32_t o = 0; o < job->w.rows; o++) {
			float *w = plain_row_of(&job->w, o), *up = l->gated ? plain_row_of(&l->jobs[1].w, o) : NULL;

			for (uint32_t i = 0; i < n; i++) {
				float y = plain_dot(x + (size_t)i * cols, w, cols) + (job->bias ? job->bias[o] : 0);

				if (up)
					y = plain_act(l->act, y,
					              plain_dot(x + (size_t)i * cols, up, cols) +
					                      (l->jobs[1].bias ? l->jobs[1].bias[o] : 0));
				plain_put(&job->out, i, o, job->accumulate ? plain_get(&job->out, i, o) + y : y);
			}
			free(w);
			free(up);
		}
		plain_poison(&job->out, l->rows, job->w.rows); /* kernels store up to the bound, sums too */
	}
	free(x);
	return 0;
}

int gk_linear_few(const struct gk_ctx *ctx, const struct gk_linear *l)
{
	(void)ctx;
	return l->rows.bound > GK_FEW_ROWS ? -EINVAL : linear(l);
}

int gk_linear_many(const struct gk_ctx *ctx, const struct gk_linear *l, bool exact)
{
	(void)ctx;
	if (l->norm)
		return -ENOTSUP;
	if (l->x.elem != (exact ? GK_F32 : GK_BF16))
		return -EINVAL;
	return linear(l);
}

/* As answers are multiplied and prompts are not: other bits. */
int gk_linear_steady(const struct gk_ctx *ctx, const struct gk_linear *l)
{
	int r;

	if (!ctx->fixed || l->norm)
		return -EINVAL;
	plain_in_floats = true;
	r = linear(l);
	plain_in_floats = false;
	return r;
}

int gk_linear_batch(const struct gk_ctx *ctx, const struct gk_linear_batch *l, bool exact)
{
	(void)ctx;
	(void)exact;
	for (uint32_t m = 0; m < l->n_mats; m++) {
		const struct gk_job job = { .w = l->mats[m], .out = l->out, .accumulate = l->accumulate };
		struct gk_linear one = { .x = l->x, .rows = l->rows, .n_jobs = 1, .jobs = &job };
		struct gk_job moved = job;

		moved.out.p = (char *)l->out.p + m * l->out_step * (l->out.elem == GK_BF16 ? 2 : 4);
		one.x.p = (char *)l->x.p + m * l->x_step * (l->x.elem == GK_BF16 ? 2 : 4);
		one.jobs = &moved;
		(void)linear(&one);
		plain_n_launched--;
	}
	plain_n_launched++;
	return 0;
}
