/* How near each GPU kernel comes to what the device can do, at the shapes of Qwen3-8B, mixtures at those of
 * Qwen3-30B-A3B: JSON lines.
 *
 *   gpu_bench [--only=WHAT[,WHAT]] [--type=NAME] [--tflops=N]
 *
 * WHAT: few, bytes, steady, many, attention, step, shapes, one (one sequence: products, a step, and that step without
 * each of its launches in turn), mixture, small, rows. The limit of memory is measured first, by reading two gigabytes;
 * that of arithmetic is told (default 736, an H100's). Each case is captured into a graph of several launches over
 * different weights, more than the second-level cache holds, and replayed; the median of the replays counts. The case
 * "step" is a whole decode step of 36 layers, with the element types that the backend gives it, by kernels of our own
 * alone. */
#include <math.h>

#include "bench.h"

static double limit_tflops = 736.0;
static const char *only = "", *only_type = "";

/* Device memory with a repeated pattern of sane numbers: bf16 (or, as bytes, small scales). */
static void *filled(size_t bytes)
{
	enum { PATTERN = 1 << 20 };
	static uint16_t *pattern;
	uint8_t *p = device<uint8_t>(bytes);

	if (!pattern) {
		pattern = (uint16_t *)malloc(PATTERN * 2);
		for (size_t i = 0; i < PATTERN; i++) /* +-2^-6 .. 2^-4 */
			pattern[i] = (uint16_t)(((unsigned)rand() & 0x81ff) + 0x3c80);
	}
	check(gpu_copy_in(p, pattern, bytes < PATTERN * 2 ? bytes : PATTERN * 2), "copy");
	for (size_t at = PATTERN * 2; at < bytes; at *= 2)
		check(BENCH_GPU(Memcpy)(p + at, p, bytes - at < at ? bytes - at : at, BENCH_GPU(MemcpyDeviceToDevice)),
		      "copy");
	return p;
}

static void report(const char *name, double us, double bytes, double flops)
{
	const double gb = bytes / us * 1e-3, tf = flops / us * 1e-6;
	const bool memory = bytes / (limit_gbytes * 1e9) > flops / (limit_tflops * 1e12);

	printf("{\"bench\":\"gpu\",\"case\":\"%s\",\"value\":%.1f,\"unit\":\"%s\",\"limit\":%.0f,\"share\":%.3f,\"us\":"
	       "%.2f}\n",
	       name, memory ? gb : tf, memory ? "GB/s" : "TFLOP/s", memory ? limit_gbytes : limit_tflops,
	       memory ? gb / limit_gbytes : tf / limit_tflops, us);
	(void)fflush(stdout);
}

static struct gk_view view(void *p, uint32_t elem, uint32_t ld)
{
	struct gk_view v = { p, elem, ld };

	return v;
}

static struct gk_rows rows_of(uint32_t n)
{
	struct gk_rows r = { n, nullptr };

	return r;
}

/* ---- Products ---------------------------------------------------------------------------------------------------- */

struct shape {
	const char *name;
	uint32_t rows, cols;
	bool gated, norm;
};

static const struct shape shapes[] = {
	{ "o 4096x4096", 4096, 4096, false, false },       { "qkv 6144x4096", 6144, 4096, false, true },
	{ "gate+up 24576x4096", 12288, 4096, true, true }, { "down 4096x12288", 4096, 12288, false, false },
	{ "head 151936x4096", 151936, 4096, false, true },
};

static const struct {
	const char *name;
	uint32_t type;
	double bits;
} types[] = { { "BF16", KN_BF16, 16 },  { "FP8", GK_FP8_128, 8 }, { "Q8_0", KN_Q8_0, 8.5 },    { "Q4_0", KN_Q4_0, 4.5 },
	      { "Q4_K", KN_Q4_K, 4.5 }, { "Q5_K", KN_Q5_K, 5.5 }, { "Q6_K", KN_Q6_K, 6.5625 }, { "F16", KN_F16, 16 } };
enum { N_TYPES = 8 };

enum way { FEW, BYTES, STEADY, MANY, N_WAYS };
static const char *const way_names[N_WAYS] = { "few", "bytes", "steady", "many" };

static void linear(const struct shape *s, int t, uint32_t n, enum way way)
{
	const bool many = way >= STEADY; /* normed before */
	const size_t bytes = gk_mat_bytes(types[t].type, s->rows, s->cols), each = bytes * (s->gated ? 2 : 1);
	const int copies = each > 400u << 20 ? 2 : (int)((300u << 20) / each) + 2;
	void *x = filled((size_t)n * s->cols * 4), *out = filled((size_t)n * s->rows * 4), *norm = filled(s->cols * 4);
	uint8_t *weights = (uint8_t *)filled(each * copies);
	const uint32_t elem = many || !s->norm ? GK_BF16 : GK_F32, out_elem = many || s->gated ? GK_BF16 : GK_F32;
	char name[128];
	double us;

	ctx.bytes = way == BYTES;
	ctx.fixed = way == STEADY;
	us = measure(copies * (each < 100u << 20 ? 4 : 1), [&](int i) {
		struct gk_job jobs[2] = {};
		struct gk_linear l = {};

		for (int j = 0; j < (s->gated ? 2 : 1); j++) {
			(void)gk_mat_describe(&jobs[j].w, types[t].type, s->rows, s->cols,
			                      weights + (i % copies) * each + j * bytes);
			jobs[j].out = view(out, out_elem, s->rows);
			jobs[j].accumulate = !many && !s->norm;
		}
		l.x = view(x, elem, s->cols);
		l.rows = rows_of(n);
		l.norm = s->norm && !many;
		l.norm_w = (const float *)norm;
		l.eps = 1e-6f;
		l.gated = s->gated;
		l.n_jobs = s->gated ? 2 : 1;
		l.jobs = jobs;
		return way == MANY ? gk_linear_many(&ctx, &l, false)
		       : ctx.fixed ? gk_linear_steady(&ctx, &l)
		                   : gk_linear_few(&ctx, &l);
	});
	ctx.bytes = ctx.fixed = false;
	(void)snprintf(name, sizeof(name), "%s %s %s M=%u", way_names[way], types[t].name, s->name, n);
	report(name, us, (double)s->rows * s->cols * (s->gated ? 2 : 1) * types[t].bits / 8,
	       2.0 * s->rows * s->cols * (s->gated ? 2 : 1) * n);
	(void)gpu_free(x);
	(void)gpu_free(out);
	(void)gpu_free(norm);
	(void)gpu_free(weights);
}

/* What a library's product of a matrix costs beforehand: it in bfloat16. */
static void widen(const struct shape *s, int t)
{
	const size_t bytes = gk_mat_bytes(types[t].type, s->rows, s->cols);
	const int copies = (int)((300u << 20) / bytes) + 2;
	uint8_t *weights = (uint8_t *)filled(bytes * copies);
	void *out = filled((size_t)s->rows * s->cols * 2);
	char name[128];
	double us;

	us = measure(copies, [&](int i) {
		struct gk_mat m;

		(void)gk_mat_describe(&m, types[t].type, s->rows, s->cols, weights + i * bytes);
		return gk_mat_widen(&ctx, &m, out, s->cols);
	});
	(void)snprintf(name, sizeof(name), "widen %s %s", types[t].name, s->name);
	report(name, us, (double)s->rows * s->cols * (types[t].bits / 8 + 2), 0);
	(void)gpu_free(weights);
	(void)gpu_free(out);
}

/* ---- Attention --------------------------------------------------------------------------------------------------- */

static void attention(uint32_t n_seqs, uint32_t kv_len, uint32_t n_q)
{
	const double bytes = 2.0 * n_seqs * kv_len * KV_HEADS * DIM * 2;
	const uint32_t copies = (uint32_t)(200e6 / bytes) + 1;
	struct batch b;
	uint8_t *k, *v;
	void *q, *out;
	char name[128];
	double us, pairs = 0;

	make_batch(&b, n_seqs, kv_len, n_q);
	k = (uint8_t *)filled(pool_bytes(&b, 2) * copies);
	v = (uint8_t *)filled(pool_bytes(&b, 2) * copies);
	q = filled((size_t)b.n_rows * HEADS * DIM * 2);
	out = filled((size_t)b.n_rows * HEADS * DIM * 2);
	us = measure((int)copies * 2, [&](int i) {
		struct gk_attention a = {};

		a.out = view(out, GK_BF16, HEADS * DIM);
		a.q = view(q, GK_BF16, HEADS * DIM);
		const size_t at = pool_bytes(&b, 2) * ((uint32_t)i % copies);

		a.kv = kv_of(KN_BF16, k + at, v + at);
		a.batch = &b.b;
		a.n_head = HEADS;
		a.scale = 0.088f;
		a.keys_are_older = true;
		return gk_attention(&ctx, &a);
	});
	for (uint32_t i = 0; i < n_q; i++)
		pairs += kv_len - n_q + i + 1;
	(void)snprintf(name, sizeof(name), "attention %u x %u new of %u keys", n_seqs, n_q, kv_len);
	report(name, us, bytes, 4.0 * pairs * n_seqs * HEADS * DIM);
	for (void *p : { (void *)k, (void *)v, q, out })
		(void)gpu_free(p);
	drop_batch(&b);
}

/* ---- A decode step ----------------------------------------------------------------------------------------------- */

/* The best token of each row, as a greedy request wants. */
struct picks {
	struct kn_pick *picks;
	struct kn_best *best;
	struct kn_picked *picked;
	uint32_t n_best;
	bool filters;
};

static void make_picks(struct picks *p, uint32_t n, uint32_t n_best, const struct kn_pick &how)
{
	if (gpu_malloc(&p->picks, n * sizeof(*p->picks)) != GPU_OK ||
	    gpu_malloc(&p->best, (size_t)n * KN_MAX_BEST * sizeof(*p->best)) != GPU_OK ||
	    gpu_malloc(&p->picked, n * sizeof(*p->picked)) != GPU_OK)
		exit(1);
	for (uint32_t i = 0; i < n; i++)
		(void)gpu_copy_in(p->picks + i, &how, sizeof(how));
	p->n_best = n_best;
	p->filters = kn_pick_filters(&how);
}

static void drop_picks(struct picks *p)
{
	(void)gpu_free(p->picks);
	(void)gpu_free(p->best);
	(void)gpu_free(p->picked);
}

static int pick(void *logits, uint32_t n, uint32_t n_vocab, const struct picks *p)
{
	struct gk_pick k = {};

	k.logits = view(logits, GK_F32, n_vocab);
	k.rows = rows_of(n);
	k.n_vocab = n_vocab;
	k.n_best = p->n_best;
	k.filters = p->filters;
	k.picks = p->picks;
	k.best = p->best;
	k.picked = p->picked;

	return gk_pick_rows(&ctx, &k);
}

/* Launches of a step, which may be left out: what is missing from its time then is what they cost beside the others. */
enum part {
	QKV_PART = 1,
	STORE_PART = 2,
	ATTENTION_PART = 4,
	O_PART = 8,
	GATED_PART = 16,
	DOWN_PART = 32,
	HEAD_PART = 64,
	PICK_PART = 128
};
static const char *const part_names[] = { "q, k, v", "store", "attention", "o", "gate and up", "down", "head", "pick" };

/* without: sets of parts, each a case, up to one that is 0. */
static void step(int t, uint32_t n_seqs, uint32_t kv_len, const char *how, const unsigned *without = nullptr)
{
	enum { D = 4096, FF = 12288, VOCAB = 151936, QKV = (HEADS + 2 * KV_HEADS) * DIM, LAYERS = 36 };
	const uint32_t type = types[t].type;
	const uint32_t mat_rows[] = { QKV, D, FF, FF, D }, mat_cols[] = { D, D, D, D, FF };
	size_t layer = 0;
	uint8_t *weights, *head, *keys, *values;
	struct batch b;
	void *x = filled((size_t)n_seqs * D * 4), *qkv = filled((size_t)n_seqs * QKV * 4);
	void *att = filled((size_t)n_seqs * D * 4), *h = filled((size_t)n_seqs * FF * 4);
	void *logits = filled((size_t)n_seqs * VOCAB * 4), *normed = filled((size_t)n_seqs * D * 2);
	int32_t *pos = (int32_t *)filled(n_seqs * 4);
	struct picks p;
	float *norm = (float *)filled(D * 4), *freq = (float *)filled(DIM * 4);
	char name[128];
	double us, bytes = 0;

	layer = 2 * gk_mat_bytes(type, KV_HEADS * DIM, D) + gk_mat_bytes(type, HEADS * DIM, D);
	for (int m = 0; m < 5; m++) {
		layer += m ? gk_mat_bytes(type, mat_rows[m], mat_cols[m]) : 0;
		bytes += (double)mat_rows[m] * mat_cols[m] * types[t].bits / 8 * LAYERS;
	}
	bytes += (double)VOCAB * D * types[t].bits / 8 + 2.0 * n_seqs * kv_len * KV_HEADS * DIM * 2 * LAYERS;
	/* Deterministic: normed by a kernel of its own. */
	const auto product = [&](struct gk_linear lin) {
		struct gk_norm n = {};
		int r = 0;

		if (!ctx.fixed)
			return gk_linear_few(&ctx, &lin);
		if (lin.norm) {
			n.out = view(normed, GK_BF16, D);
			n.x = lin.x;
			n.w = norm;
			n.rows = lin.rows;
			n.n_head = 1;
			n.dim = D;
			n.eps = lin.eps;
			r = gk_rmsnorm(&ctx, &n);
			lin.x = n.out;
			lin.norm = false;
		}
		return r < 0 ? r : gk_linear_steady(&ctx, &lin);
	};

	weights = (uint8_t *)filled(layer * LAYERS);
	head = (uint8_t *)filled(gk_mat_bytes(type, VOCAB, D));
	make_batch(&b, n_seqs, kv_len, 1);
	keys = (uint8_t *)filled(pool_bytes(&b, 2) * LAYERS);
	values = (uint8_t *)filled(pool_bytes(&b, 2) * LAYERS);
	(void)gpu_fill(pos, 0, n_seqs * 4);
	make_picks(&p, n_seqs, 0, {});
	const auto launch = [&](unsigned left_out) {
		const auto made = [&](enum part p, auto made_by) { return left_out & p ? 0 : made_by(); };
		int r = 0;

		for (uint32_t l = 0; l <= LAYERS; l++) {
			uint8_t *at = weights + layer * l;
			struct gk_job jobs[3] = {};
			struct gk_linear lin = {};
			struct gk_qkv s = {};
			struct gk_attention a = {};

			lin.rows = rows_of(n_seqs);
			lin.norm_w = norm;
			lin.eps = 1e-6f;
			lin.jobs = jobs;
			lin.n_jobs = 1;
			lin.x = view(x, GK_F32, D);
			lin.norm = true;
			if (l == LAYERS) {
				(void)gk_mat_describe(&jobs[0].w, type, VOCAB, D, head);
				jobs[0].out = view(logits, GK_F32, VOCAB);
				r = r ? r : made(HEAD_PART, [&] { return product(lin); });
				r = r ? r : made(PICK_PART, [&] { return pick(logits, n_seqs, VOCAB, &p); });
				break;
			}
			for (uint32_t j = 0, col = 0; j < 3; j++) {
				const uint32_t rows = (j ? KV_HEADS : HEADS) * DIM;

				(void)gk_mat_describe(&jobs[j].w, type, rows, D, at);
				jobs[j].out = view((uint16_t *)qkv + col, GK_BF16, QKV);
				at += gk_mat_bytes(type, rows, D);
				col += rows;
			}
			lin.n_jobs = 3;
			s.q = view(qkv, GK_BF16, QKV);
			s.k = view((uint16_t *)qkv + HEADS * DIM, GK_BF16, QKV);
			s.v = view((uint16_t *)qkv + (HEADS + KV_HEADS) * DIM, GK_BF16, QKV);
			s.n_head = HEADS;
			s.head_dim = DIM;
			s.q_norm = s.k_norm = norm;
			s.eps = 1e-6f;
			s.rope.inv_freq = freq;
			s.rope.n_rot = DIM;
			s.rope.scale = 1.0f;
			s.pos = pos;
			s.kv = kv_of(KN_BF16, keys + pool_bytes(&b, 2) * l, values + pool_bytes(&b, 2) * l);
			s.batch = &b.b;
			s.rows = rows_of(n_seqs);
			r = r ? r : made(QKV_PART, [&] { return product(lin); });
			lin.n_jobs = 1;
			r = r ? r : made(STORE_PART, [&] { return gk_qkv_store(&ctx, &s); });
			a.out = view(att, GK_BF16, D);
			a.q = view(qkv, GK_BF16, QKV);
			a.kv = s.kv;
			a.batch = &b.b;
			a.n_head = HEADS;
			a.scale = 0.088f;
			a.keys_are_older = true;
			r = r ? r : made(ATTENTION_PART, [&] { return gk_attention(&ctx, &a); });
			(void)gk_mat_describe(&jobs[0].w, type, D, D, at);
			at += gk_mat_bytes(type, D, D);
			jobs[0].out = view(x, GK_F32, D);
			jobs[0].accumulate = true;
			lin.x = view(att, GK_BF16, D);
			lin.norm = false;
			r = r ? r : made(O_PART, [&] { return product(lin); });
			for (int j = 0; j < 2; j++) {
				(void)gk_mat_describe(&jobs[j].w, type, FF, D, at);
				at += gk_mat_bytes(type, FF, D);
				jobs[j].out = view(h, GK_BF16, FF);
				jobs[j].accumulate = false;
			}
			lin.x = view(x, GK_F32, D);
			lin.norm = true;
			lin.gated = true;
			lin.n_jobs = 2;
			r = r ? r : made(GATED_PART, [&] { return product(lin); });
			(void)gk_mat_describe(&jobs[0].w, type, D, FF, at);
			jobs[0].out = view(x, GK_F32, D);
			jobs[0].accumulate = true;
			lin.x = view(h, GK_BF16, FF);
			lin.norm = false;
			lin.gated = false;
			lin.n_jobs = 1;
			r = r ? r : made(DOWN_PART, [&] { return product(lin); });
		}
		return r;
	};

	us = measure(1, [&](int) { return launch(0); });
	(void)snprintf(name, sizeof(name), "step %s%s, %u x %u keys: %.1f tok/s", types[t].name, how, n_seqs, kv_len,
	               1e6 / us * n_seqs);
	report(name, us, bytes, 0);
	for (; without && *without; without++) {
		const double less = us - measure(1, [&](int) { return launch(*without); });
		const uint32_t n = *without >= HEAD_PART ? 1 : LAYERS;
		size_t at = (size_t)snprintf(name, sizeof(name), "step %s%s: ", types[t].name, how);

		for (int i = 0; i < 8; i++)
			at += (size_t)(*without >> i & 1 ? snprintf(name + at, sizeof(name) - at, "%s; ", part_names[i])
			                                 : 0);
		printf("{\"bench\":\"gpu\",\"case\":\"%s%u times\",\"value\":%.2f,\"unit\":\"us\"}\n", name, n,
		       less / n);
		(void)fflush(stdout);
	}
	for (void *m : { x, qkv, att, h, logits, normed, (void *)pos, (void *)norm, (void *)freq, (void *)weights,
	                 (void *)head, (void *)keys, (void *)values })
		(void)gpu_free(m);
	drop_picks(&p);
	drop_batch(&b);
}

/* ---- Mixtures ---------------------------------------------------------------------------------------------------- */

/* A layer's router with its norm, its experts, and both as the backend launches them. */
static void mixture(uint32_t n)
{
	enum { D = 2048, FF = 768, E = 128, TOP = 8, COPIES = 6 };
	const size_t each = (size_t)FF * D * 2, layer = (size_t)3 * E * each;
	const double taken = E * (1 - pow(1 - (double)TOP / E, n)), router_bytes = 4.0 * E * D;
	uint8_t *weights = (uint8_t *)filled(layer * COPIES);
	float *routers = (float *)filled((size_t)E * D * 4 * COPIES);
	void *x = filled((size_t)n * D * 4), *normed = filled((size_t)n * D * 4), *out = filled((size_t)n * D * 4);
	float *norm = (float *)filled(D * 4), *logits = (float *)filled((size_t)n * E * 4);
	int32_t *ids = device<int32_t>((size_t)n * TOP);
	float *scales = device<float>((size_t)n * TOP);
	struct gk_mat *mats = (struct gk_mat *)calloc((size_t)3 * E * COPIES, sizeof(*mats)), *tables;
	static const char *const names[] = { "router", "experts", "router and experts" };
	char name[64];

	for (size_t i = 0; i < (size_t)3 * E * COPIES; i++)
		(void)gk_mat_describe(&mats[i], KN_BF16, i / E % 3 == 2 ? D : FF, i / E % 3 == 2 ? FF : D,
		                      weights + i * each);
	tables = put(mats, (size_t)3 * E * COPIES);
	for (int what = 0; what < 3; what++) {
		const double us = measure(4 * COPIES, [&](int i) {
			const struct gk_mat *table = tables + (size_t)3 * E * (i % COPIES);
			struct gk_router r = {};
			struct gk_choice choice = {};
			struct gk_moe m = {};
			int e = 0;

			r.x = view(x, GK_F32, D);
			r.normed = m.x = view(normed, GK_F32, D);
			r.rows = m.rows = rows_of(n);
			r.norm = true;
			r.norm_w = norm;
			r.eps = 1e-6f;
			(void)gk_mat_describe(&r.w, KN_F32, E, D, routers + (size_t)E * D * (i % COPIES));
			r.logits = logits;
			choice.logits = logits;
			r.router.kind = KN_ROUTE_SOFTMAX;
			r.router.n_expert = m.n_expert = E;
			r.router.top_k = m.top_k = TOP;
			r.router.normalize = true;
			r.router.scale = 1.0f;
			choice.router = r.router;
			choice.ids = r.ids = ids;
			choice.weights = r.weights = scales;
			m.out = view(out, GK_F32, D);
			m.n_ff = FF;
			m.dim = D;
			m.act = KN_ACT_SILU;
			m.type_gate = m.type_up = m.type_down = KN_BF16;
			m.gate = table;
			m.up = table + E;
			m.down = table + 2 * E;
			m.ids = ids;
			m.weights = scales;
			if (what == 2) {
				m.choice = &choice;
				if (gk_moe_chooses(&ctx, &m))
					r.ids = nullptr;
				else
					m.choice = nullptr;
			}
			if (what != 1)
				e = gk_route_product(&ctx, &r);
			return what == 0 || e < 0 ? e : gk_moe(&ctx, &m);
		});

		(void)snprintf(name, sizeof(name), "mixture BF16, %s M=%u", names[what], n);
		report(name, us, (what == 1 ? 0 : router_bytes) + (what == 0 ? 0 : taken * 3 * (double)each), 0);
	}
	free(mats);
	for (void *p : { (void *)weights, (void *)routers, x, normed, out, (void *)norm, (void *)logits, (void *)ids,
	                 (void *)scales, (void *)tables })
		(void)gpu_free(p);
}

/* ---- The small ones ---------------------------------------------------------------------------------------------- */

static int norm_rows(struct gk_view x, const void *w, struct gk_view out, uint32_t n, uint32_t dim)
{
	struct gk_norm a = {};

	a.out = out;
	a.x = x;
	a.w = (const float *)w;
	a.rows = rows_of(n);
	a.n_head = 1;
	a.dim = dim;
	a.eps = 1e-6f;
	return gk_rmsnorm(&ctx, &a);
}

static void small(uint32_t n)
{
	enum { D = 4096, VOCAB = 151936 };
	void *x = filled((size_t)n * D * 4), *out = filled((size_t)n * D * 4), *w = filled(D * 4);
	void *logits = filled((size_t)n * VOCAB * 4);
	struct picks best;
	char name[64];
	double us;

	us = measure(40, [&](int) { return norm_rows(view(x, GK_F32, D), w, view(out, GK_F32, D), n, D); });
	(void)snprintf(name, sizeof(name), "rmsnorm %u x 4096", n);
	report(name, us, 8.0 * n * D, 0);
	us = measure(40,
	             [&](int) { return gk_add(&ctx, view(x, GK_F32, D), view(out, GK_F32, D), rows_of(n), D, 1.0f); });
	(void)snprintf(name, sizeof(name), "add %u x 4096", n);
	report(name, us, 12.0 * n * D, 0);
	static const struct {
		const char *name;
		uint32_t n_best;
		struct kn_pick how;
	} cases[] = { { "greedy", 0, {} },
		      { "drawn", 0, { 1, 0, 1, 0, 0.5 } },
		      { "32 best", 32, {} },
		      { "top_k 40, top_p 0.95", 0, { 1, 40, 0.95f, 0, 0.5 } },
		      { "top_p 0.95", 0, { 1, 0, 0.95f, 0, 0.5 } } };

	for (const auto &c : cases) {
		make_picks(&best, n, c.n_best, c.how);
		us = measure(10, [&](int) { return pick(logits, n, VOCAB, &best); });
		drop_picks(&best);
		(void)snprintf(name, sizeof(name), "pick %u x 151936, %s", n, c.name);
		report(name, us, 4.0 * n * VOCAB, 0);
	}
	for (void *p : { x, out, w, logits })
		(void)gpu_free(p);
}

/* What a prompt has besides products and attention: n rows, in sequences of 512 or less. */
static void rows_of_prompts(uint32_t n)
{
	enum { D = 4096, FF = 12288, QKV = (HEADS + 2 * KV_HEADS) * DIM, COPIES = 3 };
	const uint32_t n_seqs = n < 512 ? n : n / 512;
	float *const x = (float *)filled((size_t)n * D * 4 * COPIES), *const w = (float *)filled(D * 4);
	uint16_t *const h = (uint16_t *)filled((size_t)n * 2 * FF * 2 * COPIES);
	uint8_t *const q = (uint8_t *)filled((size_t)n * FF), *keys, *values;
	float *const scales = (float *)filled((size_t)n * FF / 128 * 4 + 64), *const freq = (float *)filled(DIM * 4);
	int32_t *const pos = device<int32_t>(n);
	struct batch b;
	char name[64];
	double us;
	const auto quantize = [&](const char *what, double bytes, struct gk_view from, size_t step, bool norm,
	                          bool act) {
		us = measure(12, [&](int i) {
			struct gk_quantize a = {};

			a.q = q;
			a.x = from;
			a.x.p = (uint8_t *)from.p + step * (size_t)(i % COPIES);
			a.dim = a.ld = act ? FF : D;
			a.scale = scales;
			a.ld_scale = (n + 3) / 4 * 4;
			a.rows = rows_of(n);
			a.norm = norm;
			a.norm_w = w;
			a.eps = 1e-6f;
			a.is_act = act;
			a.up = a.x;
			a.up.p = (uint16_t *)a.x.p + FF;
			return gk_quantize_rows(&ctx, &a);
		});
		(void)snprintf(name, sizeof(name), "%s to e4m3, %u rows", what, n);
		report(name, us, bytes * n, 0);
	};

	(void)gpu_fill(pos, 0, n * 4);
	quantize("norm", 5.0 * D, view(x, GK_F32, D), (size_t)n * D * 4, true, false);
	quantize("rows", 3.0 * D, view(h, GK_BF16, D), (size_t)n * D * 2, false, false);
	quantize("silu x up", 5.0 * FF, view(h, GK_BF16, 2 * FF), (size_t)n * 2 * FF * 2, false, true);
	us = measure(12, [&](int i) {
		return norm_rows(view(x + (size_t)n * D * (size_t)(i % COPIES), GK_F32, D), w, view(h, GK_BF16, D), n,
		                 D);
	});
	(void)snprintf(name, sizeof(name), "norm to bfloat16, %u rows", n);
	report(name, us, 6.0 * n * D, 0);
	us = measure(12, [&](int i) {
		const struct gk_view both = view(h + (size_t)n * 2 * FF * (size_t)(i % COPIES), GK_BF16, 2 * FF);
		struct gk_view up = both;

		up.p = (uint16_t *)both.p + FF;
		return gk_act_mul(&ctx, KN_ACT_SILU, both, both, up, rows_of(n), FF);
	});
	(void)snprintf(name, sizeof(name), "silu x up to bfloat16, %u rows", n);
	report(name, us, 6.0 * n * FF, 0);
	make_batch(&b, n_seqs, n / n_seqs, n / n_seqs);
	for (uint32_t bytes = 2; bytes > 0; bytes--) {
		keys = (uint8_t *)filled(pool_bytes(&b, bytes));
		values = (uint8_t *)filled(pool_bytes(&b, bytes));
		us = measure(12, [&](int i) {
			struct gk_qkv s = {};
			uint16_t *const at = h + (size_t)n * QKV * (size_t)(i % COPIES);

			s.q = view(at, GK_BF16, QKV);
			s.k = view(at + HEADS * DIM, GK_BF16, QKV);
			s.v = view(at + (HEADS + KV_HEADS) * DIM, GK_BF16, QKV);
			s.n_head = HEADS;
			s.head_dim = DIM;
			s.q_norm = s.k_norm = w;
			s.eps = 1e-6f;
			s.rope.inv_freq = freq;
			s.rope.n_rot = DIM;
			s.rope.scale = 1.0f;
			s.pos = pos;
			s.kv = kv_of(bytes == 2 ? KN_BF16 : KN_F8_E4M3, keys, values);
			s.batch = &b.b;
			s.rows = rows_of(n);
			return gk_qkv_store(&ctx, &s);
		});
		(void)snprintf(name, sizeof(name), "norms of heads, rotation, store %s, %u rows",
		               bytes == 2 ? "BF16" : "e4m3", n);
		report(name, us, (double)n * DIM * (HEADS * 4 + 2 * KV_HEADS * (2 + bytes)), 0);
		(void)gpu_free(keys);
		(void)gpu_free(values);
	}
	drop_batch(&b);
	for (void *p : { (void *)x, (void *)w, (void *)h, (void *)q, (void *)scales, (void *)freq, (void *)pos })
		(void)gpu_free(p);
}

static bool has_bytes(int t)
{
	return types[t].type == KN_Q8_0 || types[t].type == KN_Q4_0 || types[t].type == KN_Q4_K;
}

static bool wanted(const char *what)
{
	return !*only || strstr(only, what);
}

static bool wanted_type(int t)
{
	return !*only_type || !strcmp(only_type, types[t].name);
}

int main(int argc, char **argv)
{
	static const uint32_t few[] = { 1, 4, 8, 16 }, many[] = { 32, 64, 128, 256, 2048 };
	const size_t limit_bytes = (size_t)2 << 30;

	for (int i = 1; i < argc; i++) {
		if (!strncmp(argv[i], "--only=", 7))
			only = argv[i] + 7;
		else if (!strncmp(argv[i], "--type=", 7))
			only_type = argv[i] + 7;
		else if (!strncmp(argv[i], "--tflops=", 9))
			limit_tflops = strtod(argv[i] + 9, nullptr);
	}
	if (!bench_open(512u << 20))
		return 0;
	ctx.bytes = false; /* where it is asked for */
	report("read", measure_limit(limit_bytes), (double)limit_bytes, 0);
	for (int t = 0; wanted("few") && t < N_TYPES; t++) {
		for (int s = 0; wanted_type(t) && s < 5; s++) {
			for (int m = 0; m < (t < 2 || t == 4 ? 4 : 1); m++)
				linear(&shapes[s], t, few[m], FEW);
		}
	}
	/* Beside "few": 32 lanes' dot products of bytes instead of matrix units, of the types that have them. */
	for (int t = 0; wanted("bytes") && t < N_TYPES; t++) {
		for (int c = 0; has_bytes(t) && wanted_type(t) && c < 5; c++) {
			linear(&shapes[c], t, 1, BYTES);
		}
	}
	/* Deterministic answers; beside "few" and the library. */
	for (int t = 0; wanted("steady") && t < N_TYPES; t++) {
		static const uint32_t rows[] = { 1, 64, 8, 17, 32, 128, 256 };

		for (int c = 0; wanted_type(t) && c < 5; c++) {
			for (int m = 0; m < (t < 2 ? 7 : 2); m++)
				linear(&shapes[c], t, rows[m], STEADY);
		}
	}
	if (wanted("attention")) {
		attention(1, 512, 1);
		attention(1, 4096, 1);
		attention(1, 16384, 1);
		attention(16, 2048, 1);
		attention(128, 640, 1);
		attention(1, 2048, 2048);
		attention(4, 512, 512);
		attention(8, 1024, 1024);
		attention(1, 8192, 8192);
		attention(4, 8192, 512);
	}
	for (int t = 0; wanted("step") && t < N_TYPES; t++) {
		static const uint32_t cases[][2] = { { 1, 512 }, { 1, 16384 }, { 8, 512 }, { 64, 512 }, { 128, 512 } };

		if (!wanted_type(t))
			continue;
		for (int c = 0; c < (t < 2 ? 5 : 1); c++) {
			if (cases[c][0] <= GK_FEW_ROWS)
				step(t, cases[c][0], cases[c][1], "");
			ctx.fixed = true;
			step(t, cases[c][0], cases[c][1], " deterministic");
			ctx.fixed = false;
		}
		ctx.bytes = has_bytes(t);
		if (ctx.bytes)
			step(t, 1, 512, " bytes");
		ctx.bytes = false;
	}
	for (int t = 0; wanted("one") && t < N_TYPES; t++) {
		static const unsigned sets[] = { STORE_PART,
			                         ATTENTION_PART,
			                         STORE_PART | ATTENTION_PART,
			                         O_PART,
			                         STORE_PART | ATTENTION_PART | O_PART,
			                         QKV_PART,
			                         GATED_PART,
			                         DOWN_PART,
			                         HEAD_PART,
			                         PICK_PART,
			                         0 };

		for (int s = 0; wanted_type(t) && s < 5; s++)
			linear(&shapes[s], t, 1, has_bytes(t) ? BYTES : FEW);
		ctx.bytes = has_bytes(t);
		if (wanted_type(t))
			step(t, 1, 512, "", sets);
		ctx.bytes = false;
	}
	/* Which blocks attention of few rows should have is seen in a whole step: the products beside it mind. */
	for (int t = 0; wanted("shapes") && t < N_TYPES; t++) {
		static const char *const names[] = { "", " 4 x 3", " 8 x 2", " 4 x 2", " 4 x 3, stream" };

		for (uint32_t shape = GK_SHAPE_MANY; wanted_type(t) && shape < GK_N_SHAPES; shape++) {
			ctx.shape = shape;
			step(t, 1, 512, names[shape]);
			step(t, 1, 4096, names[shape]);
			step(t, 8, 512, names[shape]);
			step(t, 1, 16384, names[shape]);
			ctx.shape = GK_SHAPE_BEST;
		}
	}
	for (int t = 0; wanted("many") && t < 5; t++) {
		for (int s = 0; wanted_type(t) && s < 4; s += t ? 2 : 1) {
			for (int m = 0; m < 5; m++)
				linear(&shapes[s], t, many[m], MANY);
			if (t)
				widen(&shapes[s], t);
		}
	}
	if (wanted("mixture")) {
		mixture(1);
		mixture(4);
		mixture(16);
	}
	if (wanted("small")) {
		small(1);
		small(64);
		small(2048);
	}
	if (wanted("rows")) {
		rows_of_prompts(1);
		rows_of_prompts(128);
		rows_of_prompts(2048);
	}
	return n_failed != 0;
}
