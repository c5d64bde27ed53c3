/* gpu_bench: what works on rows beside products of matrices: attention, norms, activations, stores, picks. */
#include "gpu_bench.h"

/* ---- Attention --------------------------------------------------------------------------------------------------- */

void bench_attention(uint32_t n_seqs, uint32_t kv_len, uint32_t n_q)
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

/* ---- Picks ------------------------------------------------------------------------------------------------------- */

void make_picks(struct picks *p, uint32_t n, uint32_t n_best, const struct kn_pick &how)
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

void drop_picks(struct picks *p)
{
	(void)gpu_free(p->picks);
	(void)gpu_free(p->best);
	(void)gpu_free(p->picked);
}

int pick(void *logits, uint32_t n, uint32_t n_vocab, const struct picks *p)
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

void bench_small(uint32_t n)
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

void bench_rows_of_prompts(uint32_t n)
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
