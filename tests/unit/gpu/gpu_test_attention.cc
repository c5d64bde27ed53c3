/* Positions, the paged store and attention, against kernels/ref on the same pages. */
#include "gpu_test.h"

struct length {
	uint32_t kv_len, n_q;
};

/* A batch of sequences over a pool of pages in random order, in both forms. */
struct test_batch {
	struct kn_kv ref_kv;
	struct gk_kv kv;
	both<uint8_t> k, v;
	uint32_t n_seqs, n_rows = 0, n_pages = 0;
	struct kn_seq *seqs;
	both<struct gk_seq> dev_seqs;
	both<uint32_t> pages, counts, row_seq;
	both<struct gk_work> few, many;
	both<struct gk_merge> merge;
	struct gk_batch batch;
	bool fits;

	static uint32_t total(const length *l, uint32_t n, uint32_t page_tokens)
	{
		uint32_t sum = 0;

		for (uint32_t i = 0; i < n; i++)
			sum += page_tokens ? (l[i].kv_len + page_tokens - 1) / page_tokens : l[i].n_q;
		return sum;
	}

	test_batch(enum kn_dtype dtype, const length *l, uint32_t n, uint32_t n_kv, uint32_t k_dim, uint32_t v_dim,
	           bool latent, uint32_t page_tokens, uint32_t group)
	        : k((size_t)total(l, n, page_tokens) * n_kv * page_tokens * k_dim * (dtype == KN_F32 ? 4 : 2)),
	          v(latent ? 0 : (size_t)total(l, n, page_tokens) * n_kv * page_tokens * v_dim * (dtype == KN_F32 ? 4 : 2)),
	          n_seqs(n), dev_seqs(n), pages(total(l, n, page_tokens)), counts(GK_N_COUNTS), row_seq(total(l, n, 0) + 2),
	          few(500), many(500), merge(500)
	{
		struct gk_plan plan = {};
		uint32_t page = 0;

		seqs = (struct kn_seq *)calloc(n, sizeof(*seqs));
		n_pages = (uint32_t)pages.n;
		for (uint32_t i = 0; i < n_pages; i++)
			pages.host[i] = i;
		for (uint32_t i = n_pages; i-- > 1;) {
			const uint32_t j = test_random() % (i + 1), t = pages.host[i];

			pages.host[i] = pages.host[j];
			pages.host[j] = t;
		}
		for (uint32_t i = 0; i < n; i++) {
			seqs[i].pages = pages.host + page;
			seqs[i].kv_len = l[i].kv_len;
			seqs[i].n_q = l[i].n_q;
			seqs[i].row = n_rows;
			dev_seqs.host[i].kv_len = l[i].kv_len;
			dev_seqs.host[i].n_q = l[i].n_q;
			dev_seqs.host[i].row = n_rows;
			dev_seqs.host[i].first_page = page;
			for (uint32_t r = 0; r < l[i].n_q; r++)
				row_seq.host[n_rows++] = i;
			page += (l[i].kv_len + page_tokens - 1) / page_tokens;
		}
		row_seq.host[n_rows] = row_seq.host[n_rows + 1] = GK_WHOLE;
		plan.few = few.host;
		plan.many = many.host;
		plan.merge = merge.host;
		plan.room = 500;
		fits = gk_plan_attention(&test_ctx, n_kv, group, dev_seqs.host, n, &plan) == 0;
		counts.host[GK_N_ROWS] = n_rows;
		counts.host[GK_N_SEQS] = n;
		counts.host[GK_N_FEW] = plan.n_few;
		counts.host[GK_N_MANY] = plan.n_many;
		counts.host[GK_N_MERGE] = plan.n_merge;
		dev_seqs.up();
		pages.up();
		counts.up();
		row_seq.up();
		few.up();
		many.up();
		merge.up();
		batch.counts = counts.device;
		batch.seqs = dev_seqs.device;
		batch.pages = pages.device;
		batch.row_seq = row_seq.device;
		batch.few = few.device;
		batch.many = many.device;
		batch.merge = merge.device;
		batch.max_rows = n_rows + 2;
		batch.max_seqs = n;
		batch.max_few = plan.n_few ? plan.n_few + 1 : 0; /* bounds may be larger than what is there */
		batch.max_many = plan.n_many ? plan.n_many + 1 : 0;
		batch.max_merge = plan.n_merge ? plan.n_merge + 1 : 0;
		ref_kv.dtype = dtype;
		ref_kv.n_kv_head = n_kv;
		ref_kv.k_dim = k_dim;
		ref_kv.v_dim = v_dim;
		ref_kv.page_tokens = page_tokens;
		ref_kv.k = k.host;
		ref_kv.v = latent ? nullptr : v.host;
		kv.dtype = dtype;
		kv.n_kv_head = n_kv;
		kv.k_dim = k_dim;
		kv.v_dim = v_dim;
		kv.page_tokens = page_tokens;
		kv.k = k.device;
		kv.v = latent ? nullptr : v.device;
	}
	~test_batch()
	{
		free(seqs);
	}

	/* Everything that is cached already, then the pool on the device as it is on the host. */
	void fill()
	{
		const uint32_t bytes = ref_kv.dtype == KN_F32 ? 4 : 2;

		for (int which = 0; which < 2; which++) {
			both<uint8_t> *pool = which ? &v : &k;
			const size_t elems = pool->n / bytes;
			float *f = (float *)malloc((elems ? elems : 1) * sizeof(float));

			test_normals(f, elems, 1.0f);
			kn_quantize(ref_kv.dtype, f, pool->host, elems);
			pool->up();
			free(f);
		}
	}
};

static void angles(both<float> &freq, uint32_t n_rot)
{
	for (uint32_t i = 0; i < n_rot / 2; i++)
		freq.host[i] = powf(10000.0f, -2.0f * (float)i / (float)n_rot);
	freq.up();
}

GPU_TEST(heads_are_rotated)
{
	static const struct {
		uint32_t dim, n_rot, offset;
		bool interleaved;
		float scale;
	} cases[] = { { 40, 40, 0, false, 1.0f }, { 48, 16, 32, true, 1.3f }, { 64, 32, 0, false, 1.0f } };

	for (int c = 0; c < 3; c++) {
		for (uint32_t elem = 0; elem < 2; elem++) {
			const uint32_t n = 3, heads = 5, dim = cases[c].dim;
			test_rows x(elem, n, heads * dim, heads * dim + 7);
			both<float> freq(cases[c].n_rot / 2);
			both<int32_t> pos(n);
			struct kn_rope ref = { freq.host, cases[c].n_rot, cases[c].offset, cases[c].scale, cases[c].interleaved };
			struct gk_rope rope = { freq.device, cases[c].n_rot, cases[c].offset, cases[c].scale,
				                cases[c].interleaved };
			float *want;

			angles(freq, cases[c].n_rot);
			for (uint32_t i = 0; i < n; i++)
				pos.host[i] = (int32_t)(i * 30011);
			pos.up();
			x.random(1.0f);
			want = (float *)malloc(sizeof(float) * n * x.ld);
			memcpy(want, x.host, sizeof(float) * n * x.ld);
			test_ref->ops->rope(test_ref, want, x.ld, n, heads, dim, &ref, pos.host);
			CHECK(gk_rope(&test_ctx, x.view(), test_all(n), heads, dim, &rope, pos.device) == 0, "rope");
			test_sync("rope");
			x.down();

			const double d = test_distance(x.host, x.ld, want, x.ld, n, heads * dim);

			CHECK(d < test_tolerance(elem), "case %d: %g", c, d);
			free(want);
		}
	}
}

/* What the reference stored against what the device stored, as floats. */
static void compare_pools(test_batch &b, double tolerance)
{
	const uint32_t bytes = b.ref_kv.dtype == KN_F32 ? 4 : 2;

	for (int which = 0; which < 2; which++) {
		both<uint8_t> *pool = which ? &b.v : &b.k;
		const size_t n = pool->n / bytes;
		float *want = (float *)malloc((n ? n : 1) * sizeof(float)), *got = (float *)malloc((n ? n : 1) * sizeof(float));
		double d;

		kn_dequantize(b.ref_kv.dtype, pool->host, want, n);
		pool->down();
		kn_dequantize(b.ref_kv.dtype, pool->host, got, n);
		d = n ? test_distance(got, n, want, n, 1, n) : 0.0;
		CHECK(d <= tolerance, "%s: %g", which ? "values" : "keys", d);
		free(want);
		free(got);
	}
}

static const length lengths[] = { { 9, 1 }, { 21, 5 }, { 33, 33 }, { 3, 2 } };

GPU_TEST(keys_and_values_go_to_their_pages)
{
	for (int t = KN_F32; t <= KN_BF16; t++) {
		for (int latent = 0; latent < 2; latent++) {
			test_batch b((enum kn_dtype)t, lengths, 4, 2, 24, latent ? 16 : 20, latent, 8, 1);
			test_rows k(GK_F32, b.n_rows, 48, 50), v(GK_F32, b.n_rows, 40, 40);

			k.random(1.0f);
			v.random(1.0f);
			b.fill();
			test_ref->ops->kv_store(test_ref, &b.ref_kv, k.host, k.ld, v.host, v.ld, b.seqs, 4);
			CHECK(gk_kv_store(&test_ctx, &b.kv, k.view(), v.view(), &b.batch) == 0, "store");
			test_sync("store");
			compare_pools(b, 0.0);
		}
	}
}

GPU_TEST(norm_rotation_and_store_in_one_pass)
{
	for (int c = 0; c < 4; c++) {
		const uint32_t heads = 6, n_kv = 2, dim = 32, n_rot = c == 1 ? 16 : 32, offset = c == 1 ? 8 : 0;
		const bool after = c == 2, norms = c != 3;
		test_batch b(c == 1 ? KN_F32 : KN_BF16, lengths, 4, n_kv, dim, dim, false, 8, heads / n_kv);
		const uint32_t n = b.n_rows, ld = (heads + 2 * n_kv) * dim;
		test_rows x(c == 0 ? GK_BF16 : GK_F32, n, ld, ld);
		both<float> freq(n_rot / 2), qw(dim), kw(dim);
		both<int32_t> pos(n);
		struct kn_rope rope = { freq.host, n_rot, offset, 1.2f, c == 1 };
		struct gk_qkv a = {};
		const struct kn_ops *ops = test_ref->ops;
		float *want;

		angles(freq, n_rot);
		test_normals(qw.host, dim, 1.0f);
		test_normals(kw.host, dim, 1.0f);
		qw.up();
		kw.up();
		for (uint32_t i = 0; i < n; i++)
			pos.host[i] = (int32_t)(i * 17);
		pos.up();
		x.random(1.0f);
		b.fill();
		want = (float *)malloc(sizeof(float) * n * ld);
		memcpy(want, x.host, sizeof(float) * n * ld);
		for (int step = 0; step < 2; step++) {
			if ((step == 0) == !after && norms) {
				ops->rmsnorm(test_ref, want, ld, want, ld, qw.host, n, heads, dim, 1e-6f);
				ops->rmsnorm(test_ref, want + heads * dim, ld, want + heads * dim, ld, kw.host, n, n_kv, dim,
				             1e-6f);
			}
			if ((step == 0) == after) {
				ops->rope(test_ref, want, ld, n, heads, dim, &rope, pos.host);
				ops->rope(test_ref, want + heads * dim, ld, n, n_kv, dim, &rope, pos.host);
			}
		}
		ops->kv_store(test_ref, &b.ref_kv, want + heads * dim, ld, want + (heads + n_kv) * dim, ld, b.seqs, 4);
		a.q = x.view();
		a.k = a.q;
		a.v = a.q;
		a.k.p = (uint8_t *)a.q.p + heads * dim * (x.elem == GK_F32 ? 4 : 2);
		a.v.p = (uint8_t *)a.k.p + n_kv * dim * (x.elem == GK_F32 ? 4 : 2);
		a.n_head = heads;
		a.head_dim = dim;
		a.q_norm = norms ? qw.device : nullptr;
		a.k_norm = norms ? kw.device : nullptr;
		a.norm_after_rope = after;
		a.eps = 1e-6f;
		a.rope.inv_freq = freq.device;
		a.rope.n_rot = n_rot;
		a.rope.offset = offset;
		a.rope.scale = 1.2f;
		a.rope.interleaved = c == 1;
		a.pos = pos.device;
		a.kv = b.kv;
		a.batch = &b.batch;
		a.rows = test_all(n);
		CHECK(gk_qkv_store(&test_ctx, &a) == 0, "qkv");
		test_sync("qkv");
		x.down();
		CHECK(test_distance(x.host, ld, want, ld, n, heads * dim) < test_tolerance(x.elem), "case %d: queries", c);
		/* A rounding that falls the other way is a whole step of the stored type. */
		compare_pools(b, c == 1 ? TOL_F32 : 1e-3);
		free(want);
	}
}

struct attention_case {
	enum kn_dtype dtype;
	const length *lengths;
	uint32_t n_seqs, heads, n_kv, k_dim, v_dim, page_tokens;
	bool latent, sinks, exact;
	uint32_t window;
	float softcap;
	uint32_t elem;
};

static void attention(const attention_case *c, double tolerance, const char *name)
{
	test_batch b(c->dtype, c->lengths, c->n_seqs, c->n_kv, c->k_dim, c->v_dim, c->latent, c->page_tokens,
	             c->heads / c->n_kv);
	test_rows q(c->elem, b.n_rows, c->heads * c->k_dim, c->heads * c->k_dim);
	test_rows out(c->elem, b.n_rows, c->heads * c->v_dim, c->heads * c->v_dim + 4);
	both<float> sinks(c->heads);
	struct kn_attn ref = {};
	struct gk_attention a = {};
	const uint32_t width = c->heads * c->v_dim;
	float *want = (float *)malloc(sizeof(float) * b.n_rows * width);
	double d;

	CHECK(b.fits, "plan");
	q.random(1.0f);
	b.fill();
	test_normals(sinks.host, c->heads, 1.0f);
	sinks.up();
	ref.n_head = a.n_head = c->heads;
	ref.scale = a.scale = 1.5f / sqrtf((float)c->k_dim);
	ref.window = a.window = c->window;
	ref.softcap = a.softcap = c->softcap;
	ref.sinks = c->sinks ? sinks.host : nullptr;
	a.sinks = c->sinks ? sinks.device : nullptr;
	test_ref->ops->attention(test_ref, want, width, q.host, q.ld, &b.ref_kv, b.seqs, b.n_seqs, &ref);
	a.out = out.view();
	a.q = q.view();
	a.kv = b.kv;
	a.batch = &b.batch;
	a.exact = c->exact;
	CHECK(gk_attention(&test_ctx, &a) == 0, "attention");
	test_sync("attention");
	out.down();
	d = test_distance(out.host, out.ld, want, width, b.n_rows, width);
	CHECK(d < tolerance, "%s: %g", name, d);
	free(want);
}

static const length decode[] = { { 40, 1 }, { 300, 1 }, { 1, 1 }, { 129, 3 } };
static const length prompt[] = { { 70, 70 }, { 150, 30 }, { 20, 1 }, { 65, 17 } };

/* Queries, keys, weights and values are rounded to bfloat16: each at most 2^-9, and they add up. */
static const double TOL_TILES = 8e-3;

GPU_TEST(single_tokens_attend)
{
	const attention_case cases[] = {
		{ KN_BF16, decode, 4, 8, 2, 128, 128, 16, false, false, false, 0, 0.0f, GK_F32 },
		{ KN_BF16, decode, 4, 6, 2, 64, 64, 7, false, true, false, 50, 0.0f, GK_BF16 },
		{ KN_F32, decode, 4, 2, 2, 40, 24, 8, false, false, false, 0, 20.0f, GK_F32 },
		{ KN_F16, decode, 4, 20, 1, 192, 128, 16, false, false, false, 0, 0.0f, GK_F32 },
		{ KN_BF16, decode, 3, 3, 1, 256, 256, 32, false, true, false, 0, 0.0f, GK_F32 },
	};

	for (int i = 0; i < 5; i++) {
		char name[32];

		(void)snprintf(name, sizeof(name), "case %d", i);
		attention(&cases[i], TOL_TILES, name);
	}
}

GPU_TEST(prompts_attend)
{
	const attention_case cases[] = {
		{ KN_BF16, prompt, 4, 4, 2, 128, 128, 16, false, false, false, 0, 0.0f, GK_F32 },
		{ KN_BF16, prompt, 4, 6, 2, 64, 64, 16, false, true, false, 40, 0.0f, GK_BF16 },
		{ KN_F32, prompt, 4, 2, 2, 20, 24, 8, false, false, false, 0, 20.0f, GK_F32 },
		{ KN_F16, prompt, 1, 2, 1, 192, 128, 16, false, false, false, 0, 0.0f, GK_F32 },
		{ KN_BF16, prompt, 1, 2, 1, 256, 256, 16, false, true, false, 0, 0.0f, GK_F32 },
	};

	for (int i = 0; i < 5; i++) {
		char name[32];

		(void)snprintf(name, sizeof(name), "case %d", i);
		attention(&cases[i], TOL_TILES, name);
	}
}

GPU_TEST(latents_attend)
{
	const attention_case cases[] = {
		{ KN_BF16, decode, 3, 16, 1, 576, 512, 16, true, false, false, 0, 0.0f, GK_F32 },
		{ KN_BF16, prompt, 1, 3, 1, 48, 32, 8, true, true, false, 30, 10.0f, GK_F32 },
		{ KN_F32, decode, 4, 20, 1, 40, 32, 8, true, false, false, 0, 0.0f, GK_BF16 },
	};

	for (int i = 0; i < 3; i++) {
		char name[32];

		(void)snprintf(name, sizeof(name), "case %d", i);
		attention(&cases[i], TOL_TILES, name);
	}
}

GPU_TEST(attention_exactly)
{
	const attention_case cases[] = {
		{ KN_F32, prompt, 4, 4, 2, 20, 24, 8, false, true, true, 40, 0.0f, GK_F32 },
		{ KN_BF16, decode, 4, 6, 3, 64, 64, 16, false, false, true, 0, 30.0f, GK_F32 },
		{ KN_F16, decode, 4, 4, 1, 48, 32, 8, true, false, true, 0, 0.0f, GK_F32 },
		{ KN_F32, decode, 3, 2, 1, 300, 264, 8, false, false, false, 0, 0.0f, GK_F32 },
	};

	for (int i = 0; i < 4; i++) {
		char name[32];

		(void)snprintf(name, sizeof(name), "case %d", i);
		attention(&cases[i], 5 * TOL_F32, name);
	}
}

GPU_TEST(a_row_attends_the_same_bits_among_others_when_fixed)
{
	static const length pair[] = { { 1100, 1 }, { 40, 1 } };
	test_ctx.fixed = true;
	test_batch both_seqs(KN_BF16, pair, 2, 1, 64, 64, false, 16, 4);
	test_rows q(GK_F32, 2, 256, 256), out(GK_F32, 2, 256, 256), alone(GK_F32, 2, 256, 256);
	struct gk_attention a = {};

	q.random(1.0f);
	both_seqs.fill();
	a.out = out.view();
	a.q = q.view();
	a.kv = both_seqs.kv;
	a.batch = &both_seqs.batch;
	a.n_head = 4;
	a.scale = 0.125f;
	CHECK(gk_attention(&test_ctx, &a) == 0, "both");
	{
		/* The first sequence by itself, on the same pages. */
		struct gk_plan plan = {};

		plan.few = both_seqs.few.host;
		plan.many = both_seqs.many.host;
		plan.merge = both_seqs.merge.host;
		plan.room = 500;
		test_sync("both");
		CHECK(gk_plan_attention(&test_ctx, 1, 4, both_seqs.dev_seqs.host, 1, &plan) == 0, "plan");
		CHECK(plan.n_few == 2 && plan.n_merge == 1, "parts of %d keys", GK_FIXED_PART);
		both_seqs.counts.host[GK_N_FEW] = plan.n_few;
		both_seqs.counts.host[GK_N_MERGE] = plan.n_merge;
		both_seqs.few.up();
		both_seqs.merge.up();
		both_seqs.counts.up();
	}
	a.out = alone.view();
	CHECK(gk_attention(&test_ctx, &a) == 0, "alone");
	test_sync("alone");
	test_ctx.fixed = false;
	out.down();
	alone.down();
	CHECK(memcmp(out.host, alone.host, 256 * sizeof(float)) == 0, "the row differs");
}
