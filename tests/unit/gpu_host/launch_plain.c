/* The launchers of kernels/gpu/launch.h in plain loops over ordinary memory: what the host side of the GPU backend is
 * tested with, whatever the kernels do. Rows between the actual number and the bound are filled with what is no number,
 * so that whoever reads them is found; matrices stay as they are in files. */
#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "gpu/launch.h"

static uint32_t n_launched;

uint32_t plain_launches(void);
uint32_t plain_launches(void)
{
	uint32_t n = n_launched;

	n_launched = 0;
	return n;
}

/* ---- Values ---- */

static float get(const struct gk_view *v, size_t row, size_t i)
{
	size_t at = row * v->ld + i;

	if (v->elem == GK_BF16) {
		uint32_t bits = (uint32_t)((const uint16_t *)v->p)[at] << 16;
		float f;

		memcpy(&f, &bits, sizeof(f));
		return f;
	}
	return ((const float *)v->p)[at];
}

static void put(const struct gk_view *v, size_t row, size_t i, float f)
{
	size_t at = row * v->ld + i;
	uint32_t bits;

	if (v->elem != GK_BF16) {
		((float *)v->p)[at] = f;
		return;
	}
	memcpy(&bits, &f, sizeof(bits));
	if (!isnan(f))
		bits += 0x7fff + (bits >> 16 & 1);
	((uint16_t *)v->p)[at] = (uint16_t)(bits >> 16);
}

static uint32_t actual(struct gk_rows rows)
{
	return rows.n ? *rows.n : rows.bound;
}

static void poison(const struct gk_view *v, struct gk_rows rows, size_t width)
{
	for (size_t i = actual(rows); i < rows.bound; i++) {
		for (size_t k = 0; k < width; k++)
			put(v, i, k, NAN);
	}
}

/* ---- The device ---- */

int gk_ctx_init(struct gk_ctx *ctx, int device)
{
	(void)device;
	ctx->n_sm = 4;
	ctx->warp = 32;
	return 0;
}

const char *gk_error_text(void)
{
	return "none";
}

size_t gk_scratch_bytes(const struct gk_ctx *ctx, const struct gk_limits *limits)
{
	(void)ctx;
	(void)limits;
	return 256;
}

/* ---- Weights ---- */

size_t gk_mat_bytes(uint32_t type, uint32_t rows, uint32_t cols)
{
	size_t bytes = rows * kn_row_bytes((enum kn_dtype)type, cols);

	return type == KN_FP8_128 ? (bytes + 255) / 256 * 256 + (size_t)(rows / 128 + 2) * (cols / 128 + 1) * 4 : bytes;
}

size_t gk_mat_value_bytes(uint32_t type, uint32_t rows, uint32_t cols)
{
	return rows * kn_row_bytes((enum kn_dtype)type, cols);
}

int gk_mat_describe(struct gk_mat *mat, uint32_t type, uint32_t rows, uint32_t cols, void *packed)
{
	size_t bytes = rows * kn_row_bytes((enum kn_dtype)type, cols);

	*mat = (struct gk_mat){ .type = type, .rows = rows, .cols = cols, .ld = cols, .values = packed };
	if (type == KN_FP8_128)
		mat->scales = (char *)packed + (bytes + 255) / 256 * 256;
	return 0;
}

uint32_t gk_mat_scale_lines(const struct gk_mat *mat)
{
	return (mat->first_row + mat->rows + 127) / 128;
}

uint32_t gk_mat_scale_stride(const struct gk_mat *mat)
{
	return mat->cols / 128 + 1;
}

int gk_mat_pack(const struct gk_ctx *ctx, const struct gk_mat *mat, const void *raw, uint32_t row, uint32_t n)
{
	size_t bytes = kn_row_bytes((enum kn_dtype)mat->type, mat->cols);

	(void)ctx;
	memcpy((char *)mat->values + row * bytes, raw, n * bytes);
	return 0;
}

static float *row_of(const struct gk_mat *m, size_t row)
{
	float *w = malloc(m->cols * sizeof(*w));
	size_t bytes = kn_row_bytes((enum kn_dtype)m->type, m->cols);

	kn_dequantize((enum kn_dtype)m->type, (const char *)m->values + row * bytes, w, m->cols);
	for (uint32_t k = 0; m->type == KN_FP8_128 && k < m->cols; k++)
		w[k] *= ((const float *)m->scales)[(m->first_row + row) / 128 * gk_mat_scale_stride(m) + k / 128];
	return w;
}

int gk_mat_widen(const struct gk_ctx *ctx, const struct gk_mat *mat, void *dst, uint32_t ld)
{
	const struct gk_view to = { .p = dst, .elem = GK_BF16, .ld = ld };

	(void)ctx;
	for (uint32_t r = 0; r < mat->rows; r++) {
		float *w = row_of(mat, r);

		for (uint32_t k = 0; k < mat->cols; k++)
			put(&to, r, k, w[k]);
		free(w);
	}
	return 0;
}

/* ---- Products ---- */

static float act_of(uint32_t act, float g, float u)
{
	switch ((enum kn_act)act) {
	case KN_ACT_SILU:
		return g / (1 + expf(-g)) * u;
	case KN_ACT_GELU_TANH:
		return 0.5f * g * (1 + tanhf(0.7978845608f * (g + 0.044715f * g * g * g))) * u;
	case KN_ACT_SWIGLU_OSS:
		g = fminf(g, 7);
		u = fmaxf(fminf(u, 7), -7);
		return g / (1 + expf(-1.702f * g)) * (u + 1);
	case KN_ACT_GELU:
		return 0.5f * g * (1 + erff(g * 0.7071067812f));
	case KN_ACT_SIGMOID:
		return u / (1 + expf(-g));
	}
	return NAN;
}

static float dot(const float *a, const float *b, size_t n)
{
	double s = 0;

	for (size_t i = 0; i < n; i++)
		s += (double)a[i] * b[i];
	return (float)s;
}

int gk_quantize_rows(const struct gk_ctx *ctx, const struct gk_quantize *a)
{
	const struct gk_view *x = &a->x;
	float *line = malloc((a->dim + 127) / 128 * 128 * sizeof(*line));

	(void)ctx;
	n_launched++;
	for (uint32_t i = 0; i < actual(a->rows); i++) {
		double sum = 0;

		memset(line, 0, (a->dim + 127) / 128 * 128 * sizeof(*line));
		for (uint32_t k = 0; k < a->dim; k++) {
			line[k] = get(x, i, k);
			sum += (double)line[k] * line[k];
			if (a->is_act)
				line[k] = act_of(a->act, line[k], a->up.p ? get(&a->up, i, k) : 0);
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

/* x as floats, normed where asked for. */
static float *inputs(const struct gk_linear *l, uint32_t n, uint32_t cols)
{
	float *x = malloc((size_t)n * cols * sizeof(*x) + 1);

	for (uint32_t i = 0; i < n; i++) {
		double sum = 0;

		for (uint32_t k = 0; k < cols; k++) {
			x[(size_t)i * cols + k] = get(&l->x, i, k);
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
	uint32_t n = actual(l->rows), cols = l->jobs[0].w.cols, n_out = l->gated ? 1 : l->n_jobs;
	float *x = inputs(l, n, cols);

	n_launched++;
	for (uint32_t j = 0; j < n_out; j++) {
		const struct gk_job *job = &l->jobs[j];

		for (uint32_t o = 0; o < job->w.rows; o++) {
			float *w = row_of(&job->w, o), *up = l->gated ? row_of(&l->jobs[1].w, o) : NULL;

			for (uint32_t i = 0; i < n; i++) {
				float y = dot(x + (size_t)i * cols, w, cols) + (job->bias ? job->bias[o] : 0);

				if (up)
					y = act_of(l->act, y,
					           dot(x + (size_t)i * cols, up, cols) +
					                   (l->jobs[1].bias ? l->jobs[1].bias[o] : 0));
				put(&job->out, i, o, job->accumulate ? get(&job->out, i, o) + y : y);
			}
			free(w);
			free(up);
		}
		if (!job->accumulate)
			poison(&job->out, l->rows, job->w.rows);
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
		n_launched--;
	}
	n_launched++;
	return 0;
}

/* ---- Row by row ---- */

int gk_embed(const struct gk_ctx *ctx, struct gk_view out, const struct gk_mat *m, const int32_t *ids,
             const struct kn_picked *picked, struct gk_rows rows, float scale)
{
	(void)ctx;
	n_launched++;
	for (uint32_t i = 0; i < actual(rows); i++) {
		float *w = row_of(m, (size_t)(ids[i] < 0 ? picked[KN_DRAWN(ids[i])].drawn : ids[i]));

		for (uint32_t k = 0; k < m->cols; k++)
			put(&out, i, k, scale * w[k]);
		free(w);
	}
	poison(&out, rows, m->cols);
	return 0;
}

static int norm(const struct gk_norm *n, bool centred)
{
	n_launched++;
	for (uint32_t i = 0; i < actual(n->rows); i++) {
		size_t from = n->src ? (size_t)n->src[i] : i;

		for (uint32_t h = 0; h < n->n_head; h++) {
			size_t at = (size_t)h * n->dim;
			double mean = 0, sum = 0;

			for (uint32_t k = 0; k < n->dim && n->add.p; k++)
				put(&n->x, from, at + k, get(&n->x, from, at + k) + n->add_scale * get(&n->add, i, k));
			for (uint32_t k = 0; k < n->dim && centred; k++)
				mean += get(&n->x, from, at + k);
			mean /= n->dim;
			for (uint32_t k = 0; k < n->dim; k++)
				sum += pow(get(&n->x, from, at + k) - mean, 2);
			for (uint32_t k = 0; k < n->dim; k++)
				put(&n->out, i, at + k,
				    (float)((get(&n->x, from, at + k) - mean) / sqrt(sum / n->dim + n->eps)) *
				                    (n->w ? n->w[k] : 1) +
				            (n->b ? n->b[k] : 0));
		}
	}
	if (n->out.p != n->x.p)
		poison(&n->out, n->rows, (size_t)n->n_head * n->dim);
	return 0;
}

int gk_rmsnorm(const struct gk_ctx *ctx, const struct gk_norm *n)
{
	(void)ctx;
	return norm(n, false);
}

int gk_layernorm(const struct gk_ctx *ctx, const struct gk_norm *n)
{
	(void)ctx;
	return norm(n, true);
}

int gk_add(const struct gk_ctx *ctx, struct gk_view x, struct gk_view y, struct gk_rows rows, uint32_t dim, float scale)
{
	(void)ctx;
	n_launched++;
	for (uint32_t i = 0; i < actual(rows); i++) {
		for (uint32_t k = 0; k < dim; k++)
			put(&x, i, k, get(&x, i, k) + scale * get(&y, i, k));
	}
	return 0;
}

int gk_act_mul(const struct gk_ctx *ctx, uint32_t act, struct gk_view out, struct gk_view gate, struct gk_view up,
               struct gk_rows rows, uint32_t dim)
{
	(void)ctx;
	n_launched++;
	for (uint32_t i = 0; i < actual(rows); i++) {
		for (uint32_t k = 0; k < dim; k++)
			put(&out, i, k, act_of(act, get(&gate, i, k), up.p ? get(&up, i, k) : 0));
	}
	return 0;
}

int gk_convert(const struct gk_ctx *ctx, struct gk_view dst, struct gk_view src, struct gk_rows rows, uint32_t dim)
{
	(void)ctx;
	for (uint32_t i = 0; i < actual(rows); i++) {
		for (uint32_t k = 0; k < dim; k++)
			put(&dst, i, k, get(&src, i, k));
	}
	poison(&dst, rows, dim);
	return 0;
}

/* ---- Attention ---- */

enum { PART = 48 }; /* keys, so that short tests have several */

uint32_t gk_plan_room(const struct gk_ctx *ctx, uint32_t max_rows, uint32_t max_seqs, uint32_t n_ctx)
{
	(void)ctx;
	return (max_rows / GK_TILE_TOKENS + max_seqs + 1) * (n_ctx / PART + 2);
}

int gk_plan_attention(const struct gk_ctx *ctx, uint32_t n_kv_head, uint32_t group, const struct gk_seq *seqs,
                      uint32_t n_seqs, struct gk_plan *plan)
{
	(void)ctx;
	(void)n_kv_head;
	(void)group;
	plan->n_few = plan->n_many = plan->n_merge = plan->n_parts = 0;
	for (uint32_t s = 0; s < n_seqs; s++) {
		uint32_t n_parts = (seqs[s].kv_len + PART - 1) / PART;

		if (seqs[s].n_q > GK_WORK_TOKENS) {
			for (uint32_t q = 0; q < seqs[s].n_q; q += GK_TILE_TOKENS) {
				uint32_t n = seqs[s].n_q - q < GK_TILE_TOKENS ? seqs[s].n_q - q : GK_TILE_TOKENS;
				uint32_t end = seqs[s].kv_len - seqs[s].n_q + q + n;

				if (plan->n_many == plan->room)
					return -E2BIG;
				plan->many[plan->n_many++] =
				        (struct gk_work){ .seq = s, .q = q, .n_q = n, .kv_end = end, .part = GK_WHOLE };
			}
			continue;
		}
		if (plan->n_few + n_parts > plan->room)
			return -E2BIG;
		if (n_parts > 1)
			plan->merge[plan->n_merge++] = (struct gk_merge){ s, 0, seqs[s].n_q, plan->n_parts, n_parts };
		for (uint32_t p = 0; p < n_parts; p++) {
			uint32_t end = p + 1 < n_parts ? (p + 1) * PART : seqs[s].kv_len;

			plan->few[plan->n_few++] = (struct gk_work){ .seq = s,
				                                     .n_q = seqs[s].n_q,
				                                     .kv_begin = p * PART,
				                                     .kv_end = end,
				                                     .part = n_parts > 1 ? plan->n_parts++ : GK_WHOLE };
		}
	}
	return 0;
}

static float kv_get(const struct gk_kv *kv, const void *pool, size_t i)
{
	float f;

	kn_dequantize((enum kn_dtype)kv->dtype, (const char *)pool + i * kn_row_bytes((enum kn_dtype)kv->dtype, 1), &f,
	              1);
	return f;
}

static size_t kv_at(const struct gk_kv *kv, const struct gk_batch *b, uint32_t seq, uint32_t t, uint32_t head,
                    uint32_t dim)
{
	size_t page = b->pages[b->seqs[seq].first_page + t / kv->page_tokens];

	return ((page * kv->n_kv_head + head) * kv->page_tokens + t % kv->page_tokens) * dim;
}

/* One token's one head over the keys that it sees. */
static void attend(const struct gk_attention *a, uint32_t seq, uint32_t q, uint32_t head)
{
	const struct gk_batch *b = a->batch;
	const struct gk_seq *s = &b->seqs[seq];
	uint32_t pos = s->kv_len - s->n_q + q, row = s->row + q, kv_head = head / (a->n_head / a->kv.n_kv_head);
	uint32_t from = a->window && pos + 1 > a->window ? pos + 1 - a->window : 0;
	const void *values = a->kv.v ? a->kv.v : a->kv.k;
	double max = a->sinks ? a->sinks[head] : -INFINITY, sum = 0, *out = calloc(a->kv.v_dim, sizeof(*out));
	double *score = malloc((pos + 1 - from) * sizeof(*score));

	for (uint32_t t = from; t <= pos; t++) {
		size_t at = kv_at(&a->kv, b, seq, t, kv_head, a->kv.k_dim);
		double d = 0;

		for (uint32_t i = 0; i < a->kv.k_dim; i++)
			d += (double)get(&a->q, row, (size_t)head * a->kv.k_dim + i) * kv_get(&a->kv, a->kv.k, at + i);
		d *= a->scale;
		score[t - from] = a->softcap > 0 ? a->softcap * tanh(d / a->softcap) : d;
		max = fmax(max, score[t - from]);
	}
	if (a->sinks)
		sum = exp(a->sinks[head] - max);
	for (uint32_t t = from; t <= pos; t++) {
		size_t at = kv_at(&a->kv, b, seq, t, kv_head, a->kv.v ? a->kv.v_dim : a->kv.k_dim);
		double p = exp(score[t - from] - max);

		sum += p;
		for (uint32_t i = 0; i < a->kv.v_dim; i++)
			out[i] += p * kv_get(&a->kv, values, at + i);
	}
	for (uint32_t i = 0; i < a->kv.v_dim; i++)
		put(&a->out, row, (size_t)head * a->kv.v_dim + i, (float)(out[i] / sum));
	free(score);
	free(out);
}

/* The lists must cover every new token once: that is looked at, the parts are not. */
int gk_attention(const struct gk_ctx *ctx, const struct gk_attention *a)
{
	const struct gk_batch *b = a->batch;
	const uint32_t *counts = b->counts;
	struct gk_rows rows = { .bound = b->max_rows, .n = &counts[GK_N_ROWS] };

	(void)ctx;
	n_launched++;
	if (counts[GK_N_FEW] > b->max_few || counts[GK_N_MANY] > b->max_many || counts[GK_N_MERGE] > b->max_merge ||
	    counts[GK_N_SEQS] > b->max_seqs || counts[GK_N_ROWS] > b->max_rows)
		return -EINVAL;
	for (uint32_t i = 0; i < counts[GK_N_FEW] + counts[GK_N_MANY]; i++) {
		const struct gk_work *w = i < counts[GK_N_FEW] ? &b->few[i] : &b->many[i - counts[GK_N_FEW]];

		for (uint32_t q = w->q; q < w->q + w->n_q && (w->part == GK_WHOLE || w->kv_begin == 0); q++) {
			for (uint32_t h = 0; h < a->n_head; h++)
				attend(a, w->seq, q, h);
		}
	}
	poison(&a->out, rows, (size_t)a->n_head * a->kv.v_dim);
	return 0;
}

int gk_rope(const struct gk_ctx *ctx, struct gk_view x, struct gk_rows rows, uint32_t n_head, uint32_t head_dim,
            const struct gk_rope *rope, const int32_t *pos)
{
	uint32_t half = rope->n_rot / 2;

	(void)ctx;
	n_launched++;
	for (uint32_t i = 0; i < actual(rows); i++) {
		for (uint32_t h = 0; h < n_head; h++) {
			for (uint32_t r = 0; r < half; r++) {
				size_t at = (size_t)h * head_dim + rope->offset;
				size_t a = at + (rope->interleaved ? 2 * r : r);
				size_t b = rope->interleaved ? a + 1 : a + half;
				float angle = (float)pos[i] * rope->inv_freq[r];
				float c = cosf(angle) * rope->scale, s = sinf(angle) * rope->scale;
				float u = get(&x, i, a), v = get(&x, i, b);

				put(&x, i, a, u * c - v * s);
				put(&x, i, b, v * c + u * s);
			}
		}
	}
	return 0;
}

static void store(const struct gk_kv *kv, void *pool, uint32_t dim, const struct gk_view *v, const struct gk_batch *b)
{
	size_t bytes = kn_row_bytes((enum kn_dtype)kv->dtype, 1);

	for (uint32_t i = 0; i < b->counts[GK_N_ROWS]; i++) {
		uint32_t s = b->row_seq[i], t;

		if (s == GK_WHOLE)
			continue;
		t = b->seqs[s].kv_len - b->seqs[s].n_q + i - b->seqs[s].row;
		for (uint32_t h = 0; h < kv->n_kv_head; h++) {
			for (uint32_t k = 0; k < dim; k++) {
				float f = get(v, i, (size_t)h * dim + k);

				kn_quantize((enum kn_dtype)kv->dtype, &f,
				            (char *)pool + (kv_at(kv, b, s, t, h, dim) + k) * bytes, 1);
			}
		}
	}
}

int gk_kv_store(const struct gk_ctx *ctx, const struct gk_kv *kv, struct gk_view k, struct gk_view v,
                const struct gk_batch *batch)
{
	(void)ctx;
	n_launched++;
	store(kv, kv->k, kv->k_dim, &k, batch);
	if (kv->v)
		store(kv, kv->v, kv->v_dim, &v, batch);
	return 0;
}

int gk_qkv_store(const struct gk_ctx *ctx, const struct gk_qkv *a)
{
	struct gk_norm q = { .out = a->q, .x = a->q, .w = a->q_norm, .rows = a->rows, .n_head = a->n_head };
	struct gk_norm k = { .out = a->k, .x = a->k, .w = a->k_norm, .rows = a->rows, .n_head = a->kv.n_kv_head };

	q.dim = k.dim = a->head_dim;
	q.eps = k.eps = a->eps;
	for (int turn = 0; turn < 2; turn++) {
		if ((turn == 1) == a->norm_after_rope && a->q_norm) {
			(void)norm(&q, false);
			(void)norm(&k, false);
			n_launched -= 2;
		}
		if (turn == 0) {
			(void)gk_rope(ctx, a->q, a->rows, a->n_head, a->head_dim, &a->rope, a->pos);
			(void)gk_rope(ctx, a->k, a->rows, a->kv.n_kv_head, a->head_dim, &a->rope, a->pos);
			n_launched -= 2;
		}
	}
	return gk_kv_store(ctx, &a->kv, a->k, a->v, a->batch);
}

/* ---- Mixture of experts ---- */

static float sigmoid(float x)
{
	return 1 / (1 + expf(-x));
}

static void close_groups(const struct kn_router *r, float *c)
{
	uint32_t size = r->n_expert / r->n_group;
	float score[KN_MAX_EXPERTS];

	for (uint32_t g = 0; g < r->n_group; g++) {
		float best = -INFINITY, second = -INFINITY;

		for (uint32_t e = g * size; e < (g + 1) * size; e++) {
			second = fmaxf(second, fminf(best, c[e]));
			best = fmaxf(best, c[e]);
		}
		score[g] = size > 1 ? best + second : best;
	}
	for (uint32_t g = 0; g < r->n_group; g++) {
		uint32_t better = 0;

		for (uint32_t o = 0; o < r->n_group; o++)
			better += score[o] > score[g] || (score[o] == score[g] && o < g);
		for (uint32_t e = g * size; e < (g + 1) * size && better >= r->top_group; e++)
			c[e] = -INFINITY;
	}
}

int gk_route(const struct gk_ctx *ctx, const struct kn_router *r, const float *logits, struct gk_rows rows,
             int32_t *ids, float *weights)
{
	(void)ctx;
	n_launched++;
	for (uint32_t i = 0; i < actual(rows); i++) {
		const float *l = logits + (size_t)i * r->n_expert;
		int32_t *id = ids + (size_t)i * r->top_k;
		float *w = weights + (size_t)i * r->top_k, c[KN_MAX_EXPERTS];
		double max = -INFINITY, all = 0, sum = 0;

		for (uint32_t e = 0; e < r->n_expert; e++) {
			c[e] = r->kind == KN_ROUTE_SIGMOID ? sigmoid(l[e]) + (r->bias ? r->bias[e] : 0) : l[e];
			max = fmax(max, l[e]);
		}
		if (r->n_group > 1 && r->top_group < r->n_group)
			close_groups(r, c);
		for (uint32_t k = 0; k < r->top_k; k++) {
			uint32_t best = 0;

			for (uint32_t e = 1; e < r->n_expert; e++)
				best = c[e] > c[best] ? e : best;
			c[best] = -INFINITY;
			id[k] = (int32_t)best;
		}
		for (uint32_t e = 0; e < r->n_expert; e++)
			all += exp(l[e] - max);
		for (uint32_t k = 0; k < r->top_k; k++) {
			w[k] = r->kind == KN_ROUTE_SIGMOID ? sigmoid(l[id[k]]) : (float)exp(l[id[k]] - max);
			sum += w[k];
		}
		for (uint32_t k = 0; k < r->top_k; k++) {
			if (r->kind == KN_ROUTE_TOPK_SOFTMAX || r->normalize)
				w[k] = (float)(w[k] / (sum + (r->kind == KN_ROUTE_SIGMOID ? 1e-20 : 0)));
			else if (r->kind == KN_ROUTE_SOFTMAX)
				w[k] = (float)(w[k] / all);
			w[k] *= r->scale;
		}
	}
	for (size_t i = (size_t)actual(rows) * r->top_k; i < (size_t)rows.bound * r->top_k; i++) {
		ids[i] = INT32_MIN;
		weights[i] = NAN;
	}
	return 0;
}

int gk_route_product(const struct gk_ctx *ctx, const struct gk_router *r)
{
	uint32_t cols = r->w.cols, n = r->router.n_expert;
	float *x = malloc(cols * sizeof(*x));

	for (uint32_t i = 0; i < actual(r->rows); i++) {
		double square = 0;

		for (uint32_t k = 0; k < cols; k++) {
			x[k] = get(&r->x, i, k);
			square += (double)x[k] * x[k];
		}
		for (uint32_t k = 0; k < cols && r->norm; k++) {
			x[k] *= (float)(1 / sqrt(square / cols + r->eps)) * (r->norm_w ? r->norm_w[k] : 1);
			put(&r->normed, i, k, x[k]);
		}
		for (uint32_t e = 0; e < n; e++) {
			float *w = row_of(&r->w, e);

			r->logits[(size_t)i * n + e] = dot(x, w, cols) + (r->bias ? r->bias[e] : 0);
			free(w);
		}
	}
	free(x);
	return gk_route(ctx, &r->router, r->logits, r->rows, r->ids, r->weights);
}

int gk_moe(const struct gk_ctx *ctx, const struct gk_moe *m)
{
	float *x = malloc(m->dim * sizeof(*x)), *h = malloc(m->n_ff * sizeof(*h));

	(void)ctx;
	n_launched++;
	for (uint32_t i = 0; i < actual(m->rows); i++) {
		for (uint32_t k = 0; k < m->dim; k++)
			x[k] = get(&m->x, i, k);
		for (uint32_t k = 0; k < m->top_k; k++) {
			size_t e = (size_t)m->ids[i * m->top_k + k];
			float weight = m->weights[i * m->top_k + k];

			for (uint32_t f = 0; f < m->n_ff; f++) {
				float *g = row_of(&m->gate[e], f), *u = row_of(&m->up[e], f);

				h[f] = act_of(m->act,
				              dot(x, g, m->dim) + (m->gate_bias ? m->gate_bias[e * m->n_ff + f] : 0),
				              dot(x, u, m->dim) + (m->up_bias ? m->up_bias[e * m->n_ff + f] : 0));
				free(g);
				free(u);
			}
			for (uint32_t o = 0; o < m->dim; o++) {
				float *w = row_of(&m->down[e], o);

				put(&m->out, i, o,
				    get(&m->out, i, o) + weight * (dot(h, w, m->n_ff) +
				                                   (m->down_bias ? m->down_bias[e * m->dim + o] : 0)));
				free(w);
			}
		}
	}
	free(x);
	free(h);
	return 0;
}

static float silu_of(float x)
{
	return x / (1 + expf(-x));
}

static float conv_input(const struct gk_conv *a, const struct gk_seq *q, const float *state, int t, uint32_t c)
{
	if (t >= 0)
		return get(&a->x, q->row + (uint32_t)t, c);
	return q->n_q == q->kv_len ? 0 : state[(size_t)((int)a->kernel - 1 + t) * a->n_channels + c];
}

int gk_conv_silu(const struct gk_ctx *ctx, const struct gk_conv *a)
{
	const struct gk_batch *b = a->batch;
	int before = (int)a->kernel - 1;

	(void)ctx;
	n_launched++;
	for (uint32_t s = 0; s < b->counts[GK_N_SEQS]; s++) {
		const struct gk_seq *q = &b->seqs[s];
		float *state = a->state + q->state * a->ld_state;

		for (uint32_t c = 0; c < a->n_channels; c++) {
			for (int t = 0; t < (int)q->n_q; t++) {
				float sum = 0;

				for (int j = 0; j <= before; j++)
					sum += a->w[(size_t)j * a->n_channels + c] *
					       conv_input(a, q, state, t - before + j, c);
				put(&a->out, q->row + (uint32_t)t, c, silu_of(sum));
			}
			for (int j = 0; j < before && q->keep_after; j++)
				a->state[q->keep * a->ld_state + (size_t)j * a->n_channels + c] =
				        conv_input(a, q, state, (int)q->keep_after - before + j, c);
			for (int j = 0; j < before; j++)
				state[(size_t)j * a->n_channels + c] =
				        conv_input(a, q, state, (int)q->n_q - before + j, c);
		}
	}
	return 0;
}

static void unit(const struct gk_view *v, size_t row, size_t col, uint32_t n, float eps, float *to)
{
	double sum = 0;

	for (uint32_t i = 0; i < n; i++) {
		to[i] = get(v, row, col + i);
		sum += (double)to[i] * to[i];
	}
	for (uint32_t i = 0; i < n; i++)
		to[i] = (float)(to[i] / sqrt(sum + eps));
}

static void delta_token(const struct gk_delta *a, size_t row, uint32_t h, float *S)
{
	uint32_t kh = h / (a->n_v_head / a->n_k_head), n_k = a->n_k_head * a->k_dim;
	float q[256], k[256], b = get(&a->ba, row, h), da = get(&a->ba, row, a->n_v_head + h);
	float decay = expf(a->decay[h] * log1pf(expf(da + a->dt_bias[h])));

	unit(&a->qkv, row, (size_t)kh * a->k_dim, a->k_dim, a->eps, q);
	unit(&a->qkv, row, n_k + (size_t)kh * a->k_dim, a->k_dim, a->eps, k);
	for (uint32_t j = 0; j < a->v_dim; j++) {
		double known = 0, got = 0;
		float change;

		for (uint32_t i = 0; i < a->k_dim; i++)
			known += (double)k[i] * decay * S[i * a->v_dim + j];
		change = (float)(get(&a->qkv, row, 2 * n_k + (size_t)h * a->v_dim + j) - known) / (1 + expf(-b));
		for (uint32_t i = 0; i < a->k_dim; i++) {
			S[i * a->v_dim + j] = decay * S[i * a->v_dim + j] + k[i] * change;
			got += (double)q[i] * S[i * a->v_dim + j];
		}
		put(&a->out, row, (size_t)h * a->v_dim + j, (float)(got / sqrt(a->k_dim)));
	}
}

int gk_delta_rule(const struct gk_ctx *ctx, const struct gk_delta *a)
{
	const struct gk_batch *b = a->batch;
	size_t per_head = (size_t)a->k_dim * a->v_dim;

	(void)ctx;
	n_launched++;
	for (uint32_t s = 0; s < b->counts[GK_N_SEQS]; s++) {
		const struct gk_seq *q = &b->seqs[s];
		float *state = a->state + q->state * a->ld_state;

		if (q->n_q == q->kv_len)
			memset(state, 0, a->n_v_head * per_head * sizeof(*state));
		for (uint32_t t = 0; t < q->n_q; t++) {
			for (uint32_t h = 0; h < a->n_v_head; h++)
				delta_token(a, q->row + t, h, state + h * per_head);
			if (t + 1 == q->keep_after)
				memcpy(a->state + q->keep * a->ld_state, state,
				       a->n_v_head * per_head * sizeof(*state));
		}
	}
	return 0;
}

int gk_gated_rmsnorm(const struct gk_ctx *ctx, const struct gk_gated_norm *a)
{
	(void)ctx;
	n_launched++;
	for (uint32_t i = 0; i < actual(a->rows); i++) {
		for (uint32_t h = 0; h < a->n_head; h++) {
			size_t at = (size_t)h * a->dim;
			double sum = 0;

			for (uint32_t c = 0; c < a->dim; c++)
				sum += (double)get(&a->x, i, at + c) * get(&a->x, i, at + c);
			for (uint32_t c = 0; c < a->dim; c++)
				put(&a->out, i, at + c,
				    (float)(get(&a->x, i, at + c) / sqrt(sum / a->dim + a->eps)) *
				            (a->w ? a->w[c] : 1) * silu_of(get(&a->gate, i, at + c)));
		}
	}
	return 0;
}

int gk_gate_rows(const struct gk_ctx *ctx, struct gk_view x, struct gk_view gate, struct gk_rows rows, uint32_t dim)
{
	(void)ctx;
	n_launched++;
	for (uint32_t i = 0; i < actual(rows); i++) {
		for (uint32_t c = 0; c < dim; c++)
			put(&x, i, c, get(&x, i, c) / (1 + expf(-get(&gate, i, 0))));
	}
	return 0;
}

size_t gk_pick_scratch(uint32_t rows, uint32_t n_vocab, uint32_t n_best)
{
	(void)rows;
	(void)n_vocab;
	(void)n_best;
	return 0;
}

/* Plainly: the best of n by looking for the next one again and again. */
static void pick_best(const float *x, uint32_t n_vocab, uint32_t n, struct kn_best *best)
{
	float last = INFINITY;
	int32_t last_id = -1;

	for (uint32_t k = 0; k < n; k++) {
		struct kn_best b = { -INFINITY, -1 };

		for (uint32_t v = 0; v < n_vocab; v++) {
			bool after = x[v] < last || (x[v] == last && (int32_t)v > last_id);

			if (after && x[v] > b.logit)
				b = (struct kn_best){ x[v], (int32_t)v };
		}
		best[k] = b;
		last = b.logit;
		last_id = b.id;
	}
}

static double mass_at(const struct kn_best *b, const struct kn_picked *p, const struct kn_pick *pick)
{
	return b->id < 0 ? 0 : exp(((double)b->logit - p->max) * pick->inv_temp);
}

static void draw(const float *x, uint32_t n_vocab, const struct kn_pick *pick, struct kn_picked *p)
{
	struct kn_best *c = calloc(n_vocab, sizeof(*c));
	double mass = 0, kept = 0, running = 0;
	uint32_t n = n_vocab;

	if (pick->top_k > 0 || pick->top_p < 1) {
		pick_best(x, n_vocab, n_vocab, c);
		n = pick->top_k > 0 && pick->top_k < n ? pick->top_k : n;
	} else {
		for (uint32_t v = 0; v < n_vocab; v++)
			c[v] = (struct kn_best){ x[v], (int32_t)v };
	}
	for (uint32_t i = 0; i < n; i++)
		mass += mass_at(&c[i], p, pick);
	for (uint32_t i = 0; i < n; i++) {
		bool is_in = pick->top_p >= 1 || i == 0 || running < pick->top_p * mass;

		running += mass_at(&c[i], p, pick);
		if (!is_in || mass_at(&c[i], p, pick) < pick->min_p)
			c[i].id = -1;
		kept += mass_at(&c[i], p, pick);
	}
	running = 0;
	for (uint32_t i = 0; i < n && running <= pick->unit * kept; i++) {
		if (mass_at(&c[i], p, pick) > 0) {
			p->drawn = c[i].id;
			p->drawn_logit = c[i].logit;
		}
		running += mass_at(&c[i], p, pick);
	}
	free(c);
}

int gk_pick_rows(const struct gk_ctx *ctx, const struct gk_pick *a)
{
	float *x = calloc(a->n_vocab, sizeof(*x));

	(void)ctx;
	n_launched++;
	for (uint32_t i = 0; i < actual(a->rows); i++) {
		struct kn_picked *p = &a->picked[i];
		double sum = 0, mass = 0;

		*p = (struct kn_picked){ .max = -INFINITY };
		for (uint32_t v = 0; v < a->n_vocab; v++) {
			x[v] = get(&a->logits, i, v);
			x[v] = x[v] != x[v] ? -INFINITY : a->softcap > 0 ? a->softcap * tanhf(x[v] / a->softcap) : x[v];
			if (x[v] > p->max) {
				p->max = p->drawn_logit = x[v];
				p->drawn = (int32_t)v;
			}
		}
		pick_best(x, a->n_vocab, a->n_best, a->best + (size_t)i * a->n_best);
		for (uint32_t v = 0; v < a->n_vocab; v++) {
			sum += exp((double)x[v] - p->max);
			mass += exp(((double)x[v] - p->max) * a->picks[i].inv_temp);
		}
		p->log_sum = (float)(p->max + log(sum));
		if (!(a->picks[i].inv_temp > 0) || !(p->max > -INFINITY))
			continue;
		p->log_mass = (float)log(mass);
		draw(x, a->n_vocab, &a->picks[i], p);
	}
	free(x);
	return 0;
}
