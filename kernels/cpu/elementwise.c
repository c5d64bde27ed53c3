/* The operations row by row: norms, rotary positions, activations, sums, embeddings, storing K and V. Rows
 * are shared out among threads when there is enough to do; what a row's result is never depends on it. */
#include <errno.h>
#include <math.h>
#include <string.h>

#include "cpu/cpu.h"
#include "ref/ref.h"

enum { PARALLEL_VALUES = 24 << 10 /* below this, waking threads costs more than they save */ };

void cpu_rows(struct cpu_backend *cpu, size_t n, size_t work, base_threadpool_fn fn, void *arg)
{
	size_t grain = (n + 4 * (size_t)cpu->n_threads - 1) / (4 * (size_t)cpu->n_threads);

	if (n == 0)
		return;
	if (n == 1 || n * work < PARALLEL_VALUES)
		fn(arg, 0, n, 0);
	else
		base_threadpool_for(cpu->pool, n, grain, fn, arg);
}

/* ---- Norms ---- */

struct norm_call {
	const struct cpu_isa *isa;
	float *out;
	size_t ld_out;
	const float *x;
	size_t ld_x;
	const float *w, *b; /* b: of layernorm */
	size_t n_head, dim;
	float eps;
};

static void norm_rows(void *arg, size_t begin, size_t end, unsigned worker)
{
	const struct norm_call *c = arg;

	(void)worker;
	for (size_t i = begin; i < end; i++) {
		for (size_t h = 0; h < c->n_head; h++)
			c->isa->rmsnorm(c->out + i * c->ld_out + h * c->dim, c->x + i * c->ld_x + h * c->dim, c->w,
			                c->dim, c->eps);
	}
}

void cpu_rmsnorm(struct kn_backend *be, float *out, size_t ld_out, const float *x, size_t ld_x, const float *w,
                 size_t n, size_t n_head, size_t dim, float eps)
{
	struct cpu_backend *cpu = (struct cpu_backend *)be;
	struct norm_call call = { cpu->isa, out, ld_out, x, ld_x, w, NULL, n_head, dim, eps };

	cpu_rows(cpu, n, n_head * dim, norm_rows, &call);
}

static void layernorm_rows(void *arg, size_t begin, size_t end, unsigned worker)
{
	const struct norm_call *c = arg;

	(void)worker;
	for (size_t i = begin; i < end; i++)
		c->isa->layernorm(c->out + i * c->ld_out, c->x + i * c->ld_x, c->w, c->b, c->dim, c->eps);
}

void cpu_layernorm(struct kn_backend *be, float *out, size_t ld_out, const float *x, size_t ld_x, const float *w,
                   const float *b, size_t n, size_t dim, float eps)
{
	struct cpu_backend *cpu = (struct cpu_backend *)be;
	struct norm_call call = { cpu->isa, out, ld_out, x, ld_x, w, b, 1, dim, eps };

	cpu_rows(cpu, n, dim, layernorm_rows, &call);
}

/* ---- Rotary positions ---- */

int cpu_rope_reserve(struct cpu_backend *cpu)
{
	size_t n = cpu->max_tokens, half = CPU_ROPE_MAX_HALF;

	for (int i = 0; i < CPU_ROPE_CACHES; i++) {
		struct cpu_rope_cache *c = &cpu->rope[i];
		int r = cpu_area_reserve(&c->area, (half + n + 2 * n * half) * sizeof(float));

		if (r < 0)
			return r;
		c->inv_freq = (float *)c->area.p;
		c->pos = (int32_t *)(c->inv_freq + half);
		c->cos = (float *)(c->pos + n);
		c->sin = c->cos + n * half;
	}
	return 0;
}

static void angle_rows(void *arg, size_t begin, size_t end, unsigned worker)
{
	struct cpu_rope_cache *c = arg;

	(void)worker;
	for (size_t i = begin; i < end; i++) {
		for (size_t j = 0; j < c->n_half; j++) {
			float angle = (float)c->pos[i] * c->inv_freq[j]; /* rounded as the models were trained */

			c->cos[i * c->n_half + j] = (float)cos(angle) * c->scale;
			c->sin[i * c->n_half + j] = (float)sin(angle) * c->scale;
		}
	}
}

static const struct cpu_rope_cache *rope_table(struct cpu_backend *cpu, const struct kn_rope *rope, const int32_t *pos,
                                               size_t n)
{
	size_t half = rope->n_rot / 2;
	struct cpu_rope_cache *c;

	for (int i = 0; i < CPU_ROPE_CACHES; i++) {
		c = &cpu->rope[i];
		if (c->n >= n && c->n_half == half && c->scale == rope->scale &&
		    memcmp(c->pos, pos, n * sizeof(*pos)) == 0 &&
		    memcmp(c->inv_freq, rope->inv_freq, half * sizeof(*c->inv_freq)) == 0)
			return c;
	}
	c = &cpu->rope[cpu->rope_next++ % CPU_ROPE_CACHES];
	memcpy(c->inv_freq, rope->inv_freq, half * sizeof(*c->inv_freq));
	memcpy(c->pos, pos, n * sizeof(*pos));
	c->n = n;
	c->n_half = half;
	c->scale = rope->scale;
	cpu_rows(cpu, n, half * 40, angle_rows, c);
	return c;
}

struct rope_call {
	const struct cpu_isa *isa;
	const struct cpu_rope_cache *table;
	const struct kn_rope *rope;
	float *x;
	size_t ld_x, n_head, head_dim;
};

static void rotate_interleaved(float *x, const float *cos, const float *sin, size_t n)
{
	for (size_t j = 0; j < n; j++) {
		float a = x[2 * j], b = x[2 * j + 1];

		x[2 * j] = a * cos[j] - b * sin[j];
		x[2 * j + 1] = b * cos[j] + a * sin[j];
	}
}

static void rope_rows(void *arg, size_t begin, size_t end, unsigned worker)
{
	const struct rope_call *c = arg;
	size_t half = c->table->n_half;

	(void)worker;
	for (size_t i = begin; i < end; i++) {
		const float *cos = c->table->cos + i * half, *sin = c->table->sin + i * half;

		for (size_t h = 0; h < c->n_head; h++) {
			float *x = c->x + i * c->ld_x + h * c->head_dim + c->rope->offset;

			if (c->rope->interleaved)
				rotate_interleaved(x, cos, sin, half);
			else
				c->isa->rotate(x, x + half, cos, sin, half);
		}
	}
}

void cpu_rope(struct kn_backend *be, float *x, size_t ld_x, size_t n, size_t n_head, size_t head_dim,
              const struct kn_rope *rope, const int32_t *pos)
{
	struct cpu_backend *cpu = (struct cpu_backend *)be;
	struct rope_call call = {
		.isa = cpu->isa, .rope = rope, .x = x, .ld_x = ld_x, .n_head = n_head, .head_dim = head_dim
	};

	if (n == 0 || rope->n_rot < 2)
		return;
	if (n > cpu->max_tokens || rope->n_rot / 2 > CPU_ROPE_MAX_HALF) {
		ref_rope(be, x, ld_x, n, n_head, head_dim, rope, pos);
		return;
	}
	call.table = rope_table(cpu, rope, pos, n);
	cpu_rows(cpu, n, n_head * rope->n_rot, rope_rows, &call);
}

/* ---- Activations and sums ---- */

struct pair_call {
	const struct cpu_isa *isa;
	enum kn_act act;
	float *out;
	size_t ld_out;
	const float *a;
	size_t ld_a;
	const float *b;
	size_t ld_b, dim;
	float scale;
};

/* A single long row is worth sharing out too: the loop runs over pieces of rows. */
enum { PIECE = 1024 };

static size_t pieces(size_t dim)
{
	return (dim + PIECE - 1) / PIECE;
}

static void act_pieces(void *arg, size_t begin, size_t end, unsigned worker)
{
	const struct pair_call *c = arg;
	size_t per_row = pieces(c->dim);

	(void)worker;
	for (size_t k = begin; k < end; k++) {
		size_t i = k / per_row, d = k % per_row * PIECE, n = c->dim - d < PIECE ? c->dim - d : PIECE;

		/* An act of one matrix does not look at the other. */
		c->isa->act_mul(c->act, c->out + i * c->ld_out + d, c->a + i * c->ld_a + d,
		                c->b ? c->b + i * c->ld_b + d : c->a + i * c->ld_a + d, n);
	}
}

void cpu_act_mul(struct kn_backend *be, enum kn_act act, float *out, size_t ld_out, const float *gate, size_t ld_gate,
                 const float *up, size_t ld_up, size_t n, size_t dim)
{
	struct cpu_backend *cpu = (struct cpu_backend *)be;
	struct pair_call call = { cpu->isa, act, out, ld_out, gate, ld_gate, up, ld_up, dim, 0 };

	cpu_rows(cpu, n * pieces(dim), dim < PIECE ? dim : PIECE, act_pieces, &call);
}

static void add_rows(void *arg, size_t begin, size_t end, unsigned worker)
{
	const struct pair_call *c = arg;

	(void)worker;
	for (size_t i = begin; i < end; i++)
		c->isa->add(c->out + i * c->ld_out, c->a + i * c->ld_a, c->dim, c->scale);
}

void cpu_add(struct kn_backend *be, float *x, size_t ld_x, const float *y, size_t ld_y, size_t n, size_t dim,
             float scale)
{
	struct cpu_backend *cpu = (struct cpu_backend *)be;
	struct pair_call call = {
		.isa = cpu->isa, .out = x, .ld_out = ld_x, .a = y, .ld_a = ld_y, .dim = dim, .scale = scale
	};

	cpu_rows(cpu, n, dim / 2, add_rows, &call);
}

/* ---- Embeddings ---- */

struct embed_call {
	const struct cpu_isa *isa;
	float *out;
	size_t ld_out;
	const struct kn_mat *m;
	const int32_t *ids;
	float scale;
};

static void embed_rows(void *arg, size_t begin, size_t end, unsigned worker)
{
	const struct embed_call *c = arg;
	size_t row_bytes = kn_row_bytes(c->m->dtype, c->m->cols), cols = c->m->cols;

	(void)worker;
	for (size_t i = begin; i < end; i++) {
		const char *src = (const char *)c->m->data + (size_t)c->ids[i] * row_bytes;
		float *dst = c->out + i * c->ld_out;

		if (c->m->dtype <= KN_BF16)
			c->isa->load[c->m->dtype](dst, src, cols);
		else
			kn_dequantize(c->m->dtype, src, dst, cols);
		if (c->scale != 1.0f)
			c->isa->scale(dst, cols, c->scale);
	}
}

void cpu_embed(struct kn_backend *be, float *out, size_t ld_out, const struct kn_mat *m, const int32_t *ids, size_t n,
               float scale)
{
	struct cpu_backend *cpu = (struct cpu_backend *)be;
	struct embed_call call = { cpu->isa, out, ld_out, m, ids, scale };

	cpu_rows(cpu, n, m->cols, embed_rows, &call);
}

/* ---- K and V ---- */

struct store_call {
	const struct cpu_isa *isa;
	const struct kn_kv *kv;
	const float *k, *v;
	size_t ld_k, ld_v;
	const struct kn_seq *seqs;
};

static void store_row(const struct store_call *c, const struct kn_seq *seq, size_t i)
{
	const struct kn_kv *kv = c->kv;
	uint32_t t = seq->kv_len - seq->n_q + (uint32_t)i;
	size_t row = seq->row + i;

	for (uint32_t h = 0; h < kv->n_kv_head; h++) {
		c->isa->store[kv->dtype](ref_kv_at(kv, kv->k, kv->k_dim, seq->pages, t, h),
		                         c->k + row * c->ld_k + (size_t)h * kv->k_dim, kv->k_dim);
		if (kv->v)
			c->isa->store[kv->dtype](ref_kv_at(kv, kv->v, kv->v_dim, seq->pages, t, h),
			                         c->v + row * c->ld_v + (size_t)h * kv->v_dim, kv->v_dim);
	}
}

/* Rows of all sequences, one after the other. */
static void store_rows(void *arg, size_t begin, size_t end, unsigned worker)
{
	const struct store_call *c = arg;
	const struct kn_seq *seq = c->seqs;
	size_t before = 0;

	(void)worker;
	for (size_t i = begin; i < end; i++) {
		for (; i - before >= seq->n_q; seq++)
			before += seq->n_q;
		store_row(c, seq, i - before);
	}
}

void cpu_kv_store(struct kn_backend *be, const struct kn_kv *kv, const float *k, size_t ld_k, const float *v,
                  size_t ld_v, const struct kn_seq *seqs, size_t n_seqs)
{
	struct cpu_backend *cpu = (struct cpu_backend *)be;
	struct store_call call = { cpu->isa, kv, k, v, ld_k, ld_v, seqs };
	size_t n = 0;

	/* All together: single tokens of many sequences are as much work as a prompt, the more where their pages become
	 * memory as they are first written. */
	for (size_t s = 0; s < n_seqs; s++)
		n += seqs[s].n_q;
	cpu_rows(cpu, n, (size_t)kv->n_kv_head * (kv->k_dim + (kv->v ? kv->v_dim : 0)), store_rows, &call);
}

/* ---- Norm, rotation and storing together ---- */

struct qkv_call {
	const struct cpu_isa *isa;
	const struct kn_qkv *qkv;
	size_t head_dim, n_kv_head;
	struct rope_call rope;
	struct store_call store;
};

static void norm_and_rotate(const struct qkv_call *c, float *x, size_t ld_x, size_t n_head, const float *norm, size_t i)
{
	struct norm_call n = { c->isa, x, ld_x, x, ld_x, norm, NULL, n_head, c->head_dim, c->qkv->eps };
	struct rope_call r = c->rope;

	if (norm)
		norm_rows(&n, i, i + 1, 0);
	r.x = x;
	r.ld_x = ld_x;
	r.n_head = n_head;
	if (r.table)
		rope_rows(&r, i, i + 1, 0);
}

static void qkv_rows(void *arg, size_t begin, size_t end, unsigned worker)
{
	const struct qkv_call *c = arg;
	const struct kn_qkv *a = c->qkv;

	for (size_t i = begin; i < end; i++) {
		norm_and_rotate(c, a->q, a->ld_q, a->n_head, a->q_norm, i);
		norm_and_rotate(c, a->k, a->ld_k, c->n_kv_head, a->k_norm, i);
	}
	store_rows((void *)&c->store, begin, end, worker);
}

void cpu_qkv_store(struct kn_backend *be, const struct kn_qkv *qkv, const struct kn_kv *kv, const struct kn_seq *seqs,
                   size_t n_seqs, size_t n)
{
	struct cpu_backend *cpu = (struct cpu_backend *)be;
	const struct kn_rope *rope = qkv->rope;
	bool rotates = rope->n_rot >= 2;
	struct qkv_call call = {
		.isa = cpu->isa,
		.qkv = qkv,
		.head_dim = kv->k_dim,
		.n_kv_head = kv->n_kv_head,
		.rope = { .isa = cpu->isa, .rope = rope, .head_dim = kv->k_dim },
		.store = { cpu->isa, kv, qkv->k, qkv->v, qkv->ld_k, qkv->ld_v, seqs },
	};

	if (rotates && (n > cpu->max_tokens || rope->n_rot / 2 > CPU_ROPE_MAX_HALF)) { /* than the table has room for */
		if (qkv->q_norm)
			cpu_rmsnorm(be, qkv->q, qkv->ld_q, qkv->q, qkv->ld_q, qkv->q_norm, n, qkv->n_head, kv->k_dim,
			            qkv->eps);
		if (qkv->k_norm)
			cpu_rmsnorm(be, qkv->k, qkv->ld_k, qkv->k, qkv->ld_k, qkv->k_norm, n, kv->n_kv_head, kv->k_dim,
			            qkv->eps);
		cpu_rope(be, qkv->q, qkv->ld_q, n, qkv->n_head, kv->k_dim, rope, qkv->pos);
		cpu_rope(be, qkv->k, qkv->ld_k, n, kv->n_kv_head, kv->k_dim, rope, qkv->pos);
		cpu_kv_store(be, kv, qkv->k, qkv->ld_k, qkv->v, qkv->ld_v, seqs, n_seqs);
		return;
	}
	if (rotates)
		call.rope.table = rope_table(cpu, rope, qkv->pos, n);
	cpu_rows(cpu, n, (qkv->n_head + 2 * (size_t)kv->n_kv_head) * kv->k_dim, qkv_rows, &call);
}
