/* Attention, rotation and the store of keys and values in plain loops. */
#include <errno.h>

#include "plain.h"

enum { PART = 48 }; /* keys, so that short tests have several */

uint32_t gk_plan_room(const struct gk_ctx *ctx, uint32_t max_rows, uint32_t max_seqs, uint32_t n_ctx)
{
	(void)ctx;
	return (max_rows / GK_TILE_TOKENS + max_seqs + 1) * (n_ctx / PART + 2);
}

int gk_plan_attention(const struct gk_ctx *ctx, uint32_t n_kv_head, uint32_t group, const struct gk_seq *seqs,
                      uint32_t n_seqs, struct gk_plan *plan)
{
	(void)n_kv_head;
	(void)group;
	plan->n_few = plan->n_many = plan->n_merge = plan->n_parts = 0;
	for (uint32_t s = 0; s < n_seqs; s++) {
		uint32_t n_parts = (seqs[s].kv_len + PART - 1) / PART;

		if (ctx->fixed ? seqs[s].row >= plan->answer_rows : seqs[s].n_q > GK_WORK_TOKENS) {
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

/* n values of keys or values as floats. */
static void kv_get(const struct gk_kv *kv, const void *pool, size_t at, float *line, uint32_t n)
{
	kn_dequantize((enum kn_dtype)kv->dtype, (const char *)pool + at * kn_row_bytes((enum kn_dtype)kv->dtype, 1),
	              line, n);
}

static size_t kv_at(const struct gk_kv *kv, const struct gk_batch *b, uint32_t seq, uint32_t t, uint32_t head,
                    uint32_t dim)
{
	size_t page = b->pages[b->seqs[seq].first_page + t / kv->page_tokens];

	return ((page * kv->n_kv_head + head) * kv->page_tokens + t % kv->page_tokens) * dim;
}

/* Where the keys that a token sees begin. */
static uint32_t seen_from(const struct gk_attention *a, uint32_t pos)
{
	return a->window && pos + 1 > a->window ? pos + 1 - a->window : 0;
}

/* Keys and values [from, to) of a sequence's one head as floats, a line for both; the caller's. */
static float *kv_lines(const struct gk_attention *a, uint32_t seq, uint32_t kv_head, uint32_t from, uint32_t to)
{
	const void *values = a->kv.v ? a->kv.v : a->kv.k;
	uint32_t k_dim = a->kv.k_dim, v_dim = a->kv.v_dim;
	float *lines = malloc((size_t)(to - from) * (k_dim + v_dim) * sizeof(*lines)), *at = lines;

	for (uint32_t t = from; t < to; t++) {
		kv_get(&a->kv, a->kv.k, kv_at(&a->kv, a->batch, seq, t, kv_head, k_dim), at, k_dim);
		kv_get(&a->kv, values, kv_at(&a->kv, a->batch, seq, t, kv_head, a->kv.v ? v_dim : k_dim), at + k_dim,
		       v_dim);
		at += k_dim + v_dim;
	}
	return lines;
}

/* One token's one head over the keys that it sees, out of kv_lines() from `first` on. */
static void attend(const struct gk_attention *a, uint32_t seq, uint32_t q, uint32_t head, uint32_t first,
                   const float *lines)
{
	const struct gk_seq *s = &a->batch->seqs[seq];
	uint32_t k_dim = a->kv.k_dim, v_dim = a->kv.v_dim;
	uint32_t pos = s->kv_len - s->n_q + q, row = s->row + q;
	uint32_t from = seen_from(a, pos);
	double max = a->sinks ? a->sinks[head] : -INFINITY, sum = 0, *out = calloc(v_dim, sizeof(*out));
	double *score = malloc((pos + 1 - from) * sizeof(*score));
	float *query = malloc(k_dim * sizeof(*query));

	for (uint32_t i = 0; i < k_dim; i++)
		query[i] = plain_get(&a->q, row, (size_t)head * k_dim + i);
	for (uint32_t t = from; t <= pos; t++) {
		double d = plain_sum(query, lines + (size_t)(t - first) * (k_dim + v_dim), k_dim) * a->scale;

		score[t - from] = a->softcap > 0 ? a->softcap * tanh(d / a->softcap) : d;
		max = fmax(max, score[t - from]);
	}
	if (a->sinks)
		sum = exp(a->sinks[head] - max);
	for (uint32_t t = from; t <= pos; t++) {
		double p = exp(score[t - from] - max);

		sum += p;
		plain_add(out, p, lines + (size_t)(t - first) * (k_dim + v_dim) + k_dim, v_dim);
	}
	for (uint32_t i = 0; i < v_dim; i++)
		plain_put(&a->out, row, (size_t)head * v_dim + i, (float)(out[i] / sum));
	free(query);
	free(score);
	free(out);
}

/* The lists must cover every new token once: that is looked at, the parts are not. */
int gk_attention(const struct gk_ctx *ctx, const struct gk_attention *a)
{
	const struct gk_batch *b = a->batch;
	const uint32_t *counts = b->counts;
	struct gk_rows rows = { .bound = b->max_rows, .n = &counts[GK_N_ROWS] };
	uint32_t group = a->n_head / a->kv.n_kv_head;

	(void)ctx;
	plain_n_launched++;
	if (counts[GK_N_FEW] > b->max_few || counts[GK_N_MANY] > b->max_many || counts[GK_N_MERGE] > b->max_merge ||
	    counts[GK_N_SEQS] > b->max_seqs || counts[GK_N_ROWS] > b->max_rows)
		return -EINVAL;
	for (uint32_t i = 0; i < counts[GK_N_FEW] + counts[GK_N_MANY]; i++) {
		const struct gk_work *w = i < counts[GK_N_FEW] ? &b->few[i] : &b->many[i - counts[GK_N_FEW]];
		const struct gk_seq *s = &b->seqs[w->seq];
		uint32_t pos = s->kv_len - s->n_q + w->q, first = seen_from(a, pos);

		for (uint32_t k = 0; k < a->kv.n_kv_head && (w->part == GK_WHOLE || w->kv_begin == 0); k++) {
			float *lines = kv_lines(a, w->seq, k, first, pos + w->n_q);

			for (uint32_t q = w->q; q < w->q + w->n_q; q++) {
				for (uint32_t h = k * group; h < (k + 1) * group; h++)
					attend(a, w->seq, q, h, first, lines);
			}
			free(lines);
		}
	}
	plain_poison(&a->out, rows, (size_t)a->n_head * a->kv.v_dim);
	return 0;
}

int gk_rope(const struct gk_ctx *ctx, struct gk_view x, struct gk_rows rows, uint32_t n_head, uint32_t head_dim,
            const struct gk_rope *rope, const int32_t *pos)
{
	uint32_t half = rope->n_rot / 2;

	(void)ctx;
	plain_n_launched++;
	for (uint32_t i = 0; i < plain_rows(rows); i++) {
		for (uint32_t h = 0; h < n_head; h++) {
			for (uint32_t r = 0; r < half; r++) {
				size_t at = (size_t)h * head_dim + rope->offset;
				size_t a = at + (rope->interleaved ? 2 * r : r);
				size_t b = rope->interleaved ? a + 1 : a + half;
				float angle = (float)pos[i] * rope->inv_freq[r];
				float c = cosf(angle) * rope->scale, s = sinf(angle) * rope->scale;
				float u = plain_get(&x, i, a), v = plain_get(&x, i, b);

				plain_put(&x, i, a, u * c - v * s);
				plain_put(&x, i, b, v * c + u * s);
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
				float f = plain_get(v, i, (size_t)h * dim + k);

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
	plain_n_launched++;
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
			(void)gk_rmsnorm(ctx, &q);
			(void)gk_rmsnorm(ctx, &k);
			plain_n_launched -= 2;
		}
		if (turn == 0) {
			(void)gk_rope(ctx, a->q, a->rows, a->n_head, a->head_dim, &a->rope, a->pos);
			(void)gk_rope(ctx, a->k, a->rows, a->kv.n_kv_head, a->head_dim, &a->rope, a->pos);
			plain_n_launched -= 2;
		}
	}
	return gk_kv_store(ctx, &a->kv, a->k, a->v, a->batch);
}
