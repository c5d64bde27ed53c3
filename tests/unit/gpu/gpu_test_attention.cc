/* Positions, the paged store and attention, against kernels/ref on the same pages. */
#include <errno.h>

#include "gpu/gpu_mma.h"

#include "gpu_test_batch.h"

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
	const uint32_t bytes = elem_bytes(b.ref_kv.dtype);

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

/* The largest, beyond it, steps of subnormals, ties: all to the reference's byte. */
GPU_TEST(keys_and_values_become_e4m3)
{
	static const length one[] = { { 6, 6 } };
	static const float edges[] = { 0.0f,    -0.0f,  448.0f, 464.0f,  1e30f,   -1e30f,   0.0009f, 0.001f,
		                       0.0029f, 0.015f, 0.016f, 0.0156f, 1.0625f, 1.1875f, -17.0f,  240.0f };

	for (int latent = 0; latent < 2; latent++) {
		test_batch b(KN_F8_E4M3, one, 1, 2, 32, latent ? 16 : 48, latent, 4, 1);
		test_rows k(GK_F32, b.n_rows, 64, 64), v(GK_F32, b.n_rows, 96, 96);

		for (size_t i = 0; i < 6 * 64; i++)
			k.host[i] = i < 16 ? edges[i] : test_normal() * 40.0f;
		k.up();
		v.random(0.05f);
		b.fill();
		if (!latent)
			b.with_scales();
		test_ref->ops->kv_store(test_ref, &b.ref_kv, k.host, k.ld, v.host, v.ld, b.seqs, 1);
		CHECK(gk_kv_store(&test_ctx, &b.kv, k.view(), v.view(), &b.batch) == 0, "store");
		test_sync("store");
		compare_pools(b, 0.0);
	}
}

GPU_TEST(norm_rotation_and_store_in_one_pass)
{
	/* From 5 on heads as most models have them, which go another way; 9 not, because of its rows. */
	static const uint32_t dims[] = { 32, 32, 32, 32, 32, 64, 128, 256, 128, 128 };

	for (int c = 0; c < 10; c++) {
		const uint32_t heads = 6, n_kv = 2, dim = dims[c], n_rot = c == 1 ? 16 : dim, offset = c == 1 ? 8 : 0;
		const bool after = c == 2, norms = c != 3 && c != 8;
		const enum kn_dtype dtype = c == 1 || c == 8             ? KN_F32
		                            : c == 4 || c == 5 || c == 7 ? KN_F8_E4M3
		                                                         : KN_BF16;
		const uint32_t n_seqs = c == 8 ? 1 : 4;
		test_batch b(dtype, lengths, n_seqs, n_kv, dim, dim, false, 8, heads / n_kv);
		const uint32_t n = b.n_rows, ld = (heads + 2 * n_kv) * dim + (c == 9 ? 3 : 0);
		test_rows x(c == 0 || c == 6 || c == 7 ? GK_BF16 : GK_F32, n, ld, ld);
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
		if (c == 4 || c == 7)
			b.with_scales();
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
		ops->kv_store(test_ref, &b.ref_kv, want + heads * dim, ld, want + (heads + n_kv) * dim, ld, b.seqs,
		              n_seqs);
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
		compare_pools(b, dtype == KN_F32 ? TOL_F32 : dtype == KN_F8_E4M3 ? 5e-3 : 1e-3);
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
	if (c->dtype == KN_F8_E4M3)
		b.with_scales();
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

/* Cut into parts that are merged, and several items to a share. */
static const length deep[] = { { 700, 1 }, { 90, 1 }, { 1300, 4 }, { 33, 16 } };
static const length decode[] = { { 40, 1 }, { 300, 1 }, { 1, 1 }, { 129, 3 } };
static const length prompt[] = { { 70, 70 }, { 150, 30 }, { 20, 1 }, { 65, 17 } };

/* Queries, keys, weights and values are rounded to bfloat16: each at most 2^-9, and they add up. */
static const double TOL_TILES = 8e-3;

static void all_cases(const attention_case *cases, int n, double tolerance, const char *what)
{
	for (int i = 0; i < n; i++) {
		char name[64];

		(void)snprintf(name, sizeof(name), "%s, case %d", what, i);
		attention(&cases[i], tolerance, name);
	}
}

static const attention_case few_cases[] = {
	{ KN_BF16, decode, 4, 8, 2, 128, 128, 16, false, false, false, 0, 0.0f, GK_F32 },
	{ KN_BF16, decode, 4, 6, 2, 64, 64, 7, false, true, false, 50, 0.0f, GK_BF16 },
	{ KN_F32, decode, 4, 2, 2, 40, 24, 8, false, false, false, 0, 20.0f, GK_F32 },
	{ KN_F16, decode, 4, 20, 1, 192, 128, 16, false, false, false, 0, 0.0f, GK_F32 },
	{ KN_BF16, decode, 3, 3, 1, 256, 256, 32, false, true, false, 0, 0.0f, GK_F32 },
	{ KN_BF16, deep, 4, 8, 2, 128, 128, 32, false, true, false, 0, 0.0f, GK_BF16 },
	{ KN_BF16, deep, 4, 36, 1, 64, 64, 64, false, false, false, 400, 0.0f, GK_F32 },
};
static const int n_few_cases = sizeof(few_cases) / sizeof(few_cases[0]);

GPU_TEST(single_tokens_attend)
{
	all_cases(few_cases, n_few_cases, TOL_TILES, "few");
}

/* So few sequences for so large a device that blocks are larger. */
GPU_TEST(single_tokens_attend_deep)
{
	static const length one[] = { { 1300, 1 }, { 77, 3 } };
	const attention_case cases[] = {
		{ KN_BF16, one, 2, 8, 2, 128, 128, 32, false, true, false, 0, 0.0f, GK_F32 },
		{ KN_F8_E4M3, one, 1, 8, 2, 128, 128, 32, false, false, false, 200, 0.0f, GK_BF16 },
		{ KN_BF16, one, 2, 8, 1, 64, 64, 32, false, false, false, 0, 0.0f, GK_F32 },
	};
	const uint32_t n_sm = test_ctx.n_sm;

	test_ctx.n_sm = 16;
	all_cases(cases, 3, TOL_TILES, "deep");
	test_ctx.n_sm = n_sm;
}

GPU_TEST(parts_are_merged_by_a_kernel_where_nothing_counts)
{
	uint32_t *const counters = test_ctx.counters;

	test_ctx.counters = nullptr;
	all_cases(few_cases, n_few_cases, TOL_TILES, "no counters");
	test_ctx.counters = counters;
}

/* Keys and values are what the reference reads; queries and weights are rounded to binary16 or bfloat16. */
static const attention_case e4m3_cases[] = {
	{ KN_F8_E4M3, decode, 4, 8, 2, 128, 128, 16, false, false, false, 0, 0.0f, GK_F32 },
	{ KN_F8_E4M3, deep, 4, 8, 2, 128, 128, 32, false, true, false, 300, 0.0f, GK_F32 },
	{ KN_F8_E4M3, deep, 4, 6, 2, 64, 64, 7, false, true, false, 50, 0.0f, GK_BF16 },
	{ KN_F8_E4M3, decode, 4, 2, 2, 40, 24, 8, false, false, false, 0, 20.0f, GK_F32 },
	{ KN_F8_E4M3, deep, 4, 20, 1, 192, 128, 16, false, false, false, 0, 0.0f, GK_F32 },
	{ KN_F8_E4M3, decode, 3, 3, 1, 256, 256, 32, false, true, false, 0, 0.0f, GK_F32 },
	{ KN_F8_E4M3, prompt, 4, 4, 2, 128, 128, 16, false, true, false, 40, 0.0f, GK_F32 },
	{ KN_F8_E4M3, prompt, 4, 4, 2, 40, 24, 8, false, false, false, 0, 0.0f, GK_BF16 },
	{ KN_F8_E4M3, decode, 3, 16, 1, 576, 512, 16, true, false, false, 0, 0.0f, GK_F32 },
};
static const int n_e4m3_cases = sizeof(e4m3_cases) / sizeof(e4m3_cases[0]);

GPU_TEST(tokens_attend_to_e4m3)
{
	all_cases(e4m3_cases, n_e4m3_cases, TOL_TILES, "e4m3");
}

static const attention_case prompt_cases[] = {
	{ KN_BF16, prompt, 4, 4, 2, 128, 128, 16, false, false, false, 0, 0.0f, GK_F32 },
	{ KN_BF16, prompt, 4, 6, 2, 64, 64, 16, false, true, false, 40, 0.0f, GK_BF16 },
	{ KN_F32, prompt, 4, 2, 2, 20, 24, 8, false, false, false, 0, 20.0f, GK_F32 },
	{ KN_F16, prompt, 1, 2, 1, 192, 128, 16, false, false, false, 0, 0.0f, GK_F32 },
	{ KN_BF16, prompt, 1, 2, 1, 256, 256, 16, false, true, false, 0, 0.0f, GK_F32 },
	{ KN_BF16, prompt + 1, 1, 2, 1, 192, 128, 16, false, false, false, 0, 0.0f, GK_F32 },
	{ KN_F8_E4M3, prompt + 1, 1, 2, 1, 256, 256, 16, false, true, false, 0, 0.0f, GK_F32 },
};
static const int n_prompt_cases = sizeof(prompt_cases) / sizeof(prompt_cases[0]);

GPU_TEST(prompts_attend)
{
	all_cases(prompt_cases, n_prompt_cases, TOL_TILES, "prompt");
}

static const attention_case latent_cases[] = {
	{ KN_BF16, decode, 3, 16, 1, 576, 512, 16, true, false, false, 0, 0.0f, GK_F32 },
	{ KN_BF16, prompt, 1, 3, 1, 48, 32, 8, true, true, false, 30, 10.0f, GK_F32 },
	{ KN_F32, decode, 4, 20, 1, 40, 32, 8, true, false, false, 0, 0.0f, GK_BF16 },
};
static const int n_latent_cases = sizeof(latent_cases) / sizeof(latent_cases[0]);

GPU_TEST(latents_attend)
{
	all_cases(latent_cases, n_latent_cases, TOL_TILES, "latents");
}

/* What blocks have on compute capability 8.0; 8.6, 8.9 and 12.0; AMD's devices. */
GPU_TEST(tokens_attend_with_little_shared_memory)
{
	static const uint32_t sizes[] = { 163 << 10, 99 << 10, 64 << 10 };

	for (uint32_t size : sizes) {
		char name[32];

		if (size >= test_ctx.smem_bytes)
			continue;

		const test_shared less(size);

		(void)snprintf(name, sizeof(name), "%u KiB", size >> 10);
		if (size < 128 << 10)
			all_cases(few_cases, n_few_cases, TOL_TILES, name);
		all_cases(prompt_cases, n_prompt_cases, TOL_TILES, name);
		all_cases(latent_cases, n_latent_cases, TOL_TILES, name);
	}
}

#if defined(GPU_HOST)
GPU_TEST(what_no_block_has_the_memory_for_fails)
{
	test_batch b(KN_BF16, prompt, 1, 1, 64, 64, false, 16, 1);
	test_rows q(GK_F32, b.n_rows, 64, 64), out(GK_F32, b.n_rows, 64, 64);
	const test_shared less(1 << 10);
	struct gk_attention a = {};

	a.out = out.view();
	a.q = q.view();
	a.kv = b.kv;
	a.batch = &b.batch;
	a.n_head = 1;
	a.scale = 1.0f;
	CHECK(gk_attention(&test_ctx, &a) == -EIO, "1 KiB is enough");
	CHECK(strstr(gk_error_text(), "shared memory"), "%s", gk_error_text());
}
#endif

GPU_TEST(attention_exactly)
{
	const attention_case cases[] = {
		{ KN_F32, prompt, 4, 4, 2, 20, 24, 8, false, true, true, 40, 0.0f, GK_F32 },
		{ KN_BF16, decode, 4, 6, 3, 64, 64, 16, false, false, true, 0, 30.0f, GK_F32 },
		{ KN_F16, decode, 4, 4, 1, 48, 32, 8, true, false, true, 0, 0.0f, GK_F32 },
		{ KN_F32, decode, 3, 2, 1, 300, 264, 8, false, false, false, 0, 0.0f, GK_F32 },
		{ KN_F8_E4M3, decode, 4, 6, 3, 64, 64, 16, false, false, true, 0, 0.0f, GK_F32 },
	};

	for (int i = 0; i < 5; i++) {
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
		plan.answer_rows = UINT32_MAX;
		test_sync("both");
		CHECK(gk_plan_attention(&test_ctx, 1, 4, both_seqs.dev_seqs.host, 1, &plan) == 0, "plan");
		CHECK(plan.n_few == 2 && plan.n_merge == 1, "parts of %d keys", GK_FIXED_PART);
		both_seqs.counts.host[GK_N_FEW] = plan.n_few;
		both_seqs.counts.host[GK_N_MERGE] = plan.n_merge;
		both_seqs.counts.host[GK_N_SHARES] = plan.n_shares;
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

/* Every key of every token is in one item, shares hold about as much each, and lists are as long as was said. */
/* What a device of 132 multiprocessors would make of n sequences: items, and those of the first one. */
static uint32_t n_items(uint32_t n, uint32_t kv_len, uint32_t n_kv, uint32_t group, uint32_t *ret_of_first)
{
	struct gk_ctx ctx = test_ctx;
	struct gk_seq seqs[4] = {};
	struct gk_plan plan = {};
	uint32_t n_few;

	ctx.n_sm = 132;
	for (uint32_t i = 0; i < n; i++) {
		seqs[i].kv_len = kv_len;
		seqs[i].n_q = 1;
		seqs[i].row = i;
	}
	plan.room = gk_plan_room(&ctx, n, n, kv_len);
	plan.few = (struct gk_work *)calloc(plan.room, sizeof(*plan.few));
	plan.many = (struct gk_work *)calloc(plan.room, sizeof(*plan.many));
	plan.merge = (struct gk_merge *)calloc(plan.room, sizeof(*plan.merge));
	CHECK(gk_plan_attention(&ctx, n_kv, group, seqs, n, &plan) == 0, "plan");
	n_few = plan.n_few;
	*ret_of_first = 0;
	for (uint32_t i = 0; i < n_few; i++)
		*ret_of_first += plan.few[i].seq == 0;
	free(plan.few);
	free(plan.many);
	free(plan.merge);
	return n_few;
}

GPU_TEST(a_lone_sequence_is_cut_less)
{
	uint32_t of_first;

	CHECK(n_items(1, 513, 4, 8, &of_first) == 1, "%u parts", of_first);
	CHECK(n_items(1, 640, 8, 4, &of_first) == 1, "%u parts", of_first);
	CHECK(n_items(1, 641, 8, 4, &of_first) == 3, "%u parts", of_first);
	CHECK(n_items(1, 16384, 4, 8, &of_first) == 32, "%u parts", of_first);
	(void)n_items(4, 513, 4, 8, &of_first);
	CHECK(of_first > 1, "one of four, whole");
}

GPU_TEST(plans_cover_all_keys_once)
{
	enum { SEQS = 40, CTX = 5000 };

	for (int round = 0; round < 12; round++) {
		static const uint32_t heads[] = { 8, 1, 3 }, groups[] = { 4, 1, 40 };
		const uint32_t n_kv = heads[round % 3], group = groups[round / 3 % 3], n = 1 + test_random() % SEQS;
		struct gk_ctx ctx = test_ctx;
		struct gk_seq seqs[SEQS] = {};
		struct gk_plan plan = {};
		uint64_t keys = 0, covered = 0;
		uint32_t rows = 0, places = 0;

		ctx.fixed = round % 2;
		ctx.n_sm = 132;
		for (uint32_t i = 0; i < n; i++) {
			seqs[i].n_q = 1 + test_random() % (round % 4 ? 1 : GK_WORK_TOKENS);
			seqs[i].kv_len = seqs[i].n_q + test_random() % (CTX - GK_WORK_TOKENS);
			seqs[i].row = rows;
			rows += seqs[i].n_q;
		}
		plan.room = gk_plan_room(&ctx, rows, n, CTX);
		plan.answer_rows = UINT32_MAX;
		plan.few = (struct gk_work *)calloc(plan.room, sizeof(*plan.few));
		plan.many = (struct gk_work *)calloc(plan.room, sizeof(*plan.many));
		plan.merge = (struct gk_merge *)calloc(plan.room, sizeof(*plan.merge));
		CHECK(gk_plan_attention(&ctx, n_kv, group, seqs, n, &plan) == 0, "round %d", round);
		CHECK(plan.n_shares <= gk_plan_shares(&ctx, n_kv, group), "round %d: %u shares", round, plan.n_shares);
		CHECK(plan.n_many == 0, "no prompts");
		for (uint32_t i = 0; i < plan.n_few; i++) {
			const struct gk_work *w = &plan.few[i], *before = i ? &plan.few[i - 1] : nullptr;
			const uint32_t end = seqs[w->seq].kv_len - seqs[w->seq].n_q + w->q + w->n_q;

			CHECK(w->n_q * group <= 16 || w->n_q == 1, "rows of an item");
			CHECK(w->kv_begin == (before && before->seq == w->seq && before->q == w->q ? before->kv_end : 0),
			      "item %u", i);
			CHECK(w->kv_end <= end && w->kv_begin < w->kv_end, "item %u", i);
			CHECK(w->part != GK_WHOLE || (w->kv_begin == 0 && w->kv_end == end), "item %u", i);
			CHECK(!ctx.fixed || (w->kv_begin & (GK_FIXED_PART - 1)) == 0, "item %u", i);
			covered += (uint64_t)(w->kv_end - w->kv_begin) * w->n_q;
			if (w->part != GK_WHOLE) {
				const struct gk_merge *m = &plan.merge[w->merge];

				CHECK(m->seq == w->seq && m->q == w->q && m->n_q == w->n_q, "item %u", i);
				CHECK(w->part >= m->part && w->part < m->part + m->n_parts * m->n_q, "item %u", i);
				places += w->n_q;
			}
		}
		for (uint32_t i = 0; i < n; i++) {
			const uint32_t tokens = group < 16 ? 16 / group : 1;

			for (uint32_t q = 0; q < seqs[i].n_q; q += tokens) {
				const uint32_t n_q = seqs[i].n_q - q < tokens ? seqs[i].n_q - q : tokens;

				keys += (uint64_t)(seqs[i].kv_len - seqs[i].n_q + q + n_q) * n_q;
			}
		}
		CHECK(covered == keys, "round %d", round);
		CHECK(places == plan.n_parts, "round %d", round);
		for (uint32_t i = 0; i < plan.n_shares; i++)
			CHECK(plan.few[i].first < plan.n_few && (i == 0 ? plan.few[i].first == 0
			                                                : plan.few[i].first > plan.few[i - 1].first),
			      "share %u", i);
		free(plan.few);
		free(plan.many);
		free(plan.merge);
	}
}

/* A token's row is the same bits with drafts behind it, in one part or more. */
GPU_TEST(a_row_attends_the_same_bits_with_drafts_when_fixed)
{
	static const length alone[] = { { 1023, 1 } }, drafts[] = { { 1026, 4 } };
	test_ctx.fixed = true;
	test_batch one(KN_BF16, alone, 1, 2, 128, 128, false, 16, 4), four(KN_BF16, drafts, 1, 2, 128, 128, false, 16, 4);
	test_rows q(GK_F32, 4, 1024, 1024), out_one(GK_F32, 1, 1024, 1024), out_four(GK_F32, 4, 1024, 1024);
	struct gk_attention a = {};

	q.random(1.0f);
	four.fill();
	one.kv.k = four.kv.k;
	one.kv.v = four.kv.v;
	one.batch.pages = four.batch.pages;
	a.q = q.view();
	a.n_head = 8;
	a.scale = 0.09f;
	for (uint32_t window = 0; window < 200; window += 100) {
		a.window = window;
		a.out = out_one.view();
		a.kv = one.kv;
		a.batch = &one.batch;
		CHECK(gk_attention(&test_ctx, &a) == 0, "one");
		a.out = out_four.view();
		a.kv = four.kv;
		a.batch = &four.batch;
		CHECK(gk_attention(&test_ctx, &a) == 0, "four");
		test_sync("four");
		out_one.down();
		out_four.down();
		CHECK(memcmp(out_one.host, out_four.host, 1024 * sizeof(float)) == 0, "window %u", window);
	}
	test_ctx.fixed = false;
}

/* A prompt in one piece, and its end in pieces of any length: the same bits, with a window too. */
GPU_TEST(a_prompt_attends_the_same_bits_in_pieces_when_fixed)
{
	static const length all[] = { { 150, 90 } }, pieces[][1] = { { { 150, 1 } }, { { 150, 9 } }, { { 140, 80 } }, { { 141, 66 } } };

	test_ctx.fixed = true;
	test_answer_rows = 0;
	for (uint32_t window = 0; window < 100; window += 70) {
		for (const length *piece : pieces) {
			test_batch whole(KN_BF16, all, 1, 2, 64, 64, false, 16, 4), part(KN_BF16, piece, 1, 2, 64, 64, false, 16, 4);
			const uint32_t n = piece->n_q, first = piece->kv_len - n - (all->kv_len - all->n_q);
			test_rows q(GK_F32, 90, 512, 512), out(GK_F32, 90, 512, 512), out_part(GK_F32, 90, 512, 512);
			struct gk_attention a = {};

			CHECK(whole.batch.max_few == 0 && part.batch.max_few == 0, "prompts have a list of their own");
			q.random(1.0f);
			whole.fill();
			part.kv.k = whole.kv.k;
			part.kv.v = whole.kv.v;
			part.batch.pages = whole.batch.pages;
			a.n_head = 8;
			a.scale = 0.1f;
			a.window = window;
			a.q = q.view();
			a.out = out.view();
			a.kv = whole.kv;
			a.batch = &whole.batch;
			CHECK(gk_attention(&test_ctx, &a) == 0, "whole");
			a.q.p = (float *)a.q.p + (size_t)first * 512;
			a.out = out_part.view();
			a.kv = part.kv;
			a.batch = &part.batch;
			CHECK(gk_attention(&test_ctx, &a) == 0, "part");
			test_sync("part");
			out.down();
			out_part.down();
			CHECK(memcmp(out.host + (size_t)first * 512, out_part.host, (size_t)n * 512 * sizeof(float)) == 0,
			      "window %u, %u tokens from %u", window, n, first);
		}
	}
	test_ctx.fixed = false;
	test_answer_rows = UINT32_MAX;
}

/* Blocks of any shape give what the usual ones give; the same bits, when only rings differ. Of sequences in parts, and
 * of many in each block's share. */
static void in_any_shape(enum kn_dtype type, const length *lengths, uint32_t n, uint32_t group, uint32_t n_sm,
                         uint32_t window)
{
	test_hopper device; /* has the shared memory for all of them */

	test_ctx.n_sm = n_sm;

	const uint32_t width = 2 * group * 128;
	test_batch b(type, lengths, n, 2, 128, 128, false, 32, group);
	test_rows q(GK_F32, b.n_rows, width, width), want(GK_F32, b.n_rows, width, width),
	        out(GK_F32, b.n_rows, width, width);
	struct gk_attention a = {};

	CHECK(b.fits, "plan");
	q.random(1.0f);
	b.fill();
	b.poison();
	a.q = q.view();
	a.kv = b.kv;
	a.batch = &b.batch;
	a.n_head = 2 * group;
	a.scale = 0.09f;
	a.window = window;
	for (uint32_t shape = GK_SHAPE_MANY; shape < GK_N_SHAPES; shape++) {
		test_ctx.shape = shape;
		a.out = (shape == GK_SHAPE_MANY ? want : out).view();
		CHECK(gk_attention(&test_ctx, &a) == 0, "shape %u", shape);
		test_sync("shape");
		want.down();
		out.down();
		if (shape == GK_SHAPE_SHORT)
			CHECK(memcmp(want.host, out.host, (size_t)b.n_rows * width * sizeof(float)) == 0,
			      "rings change bits");
		else if (shape != GK_SHAPE_MANY)
			CHECK(test_distance(out.host, width, want.host, width, b.n_rows, width) < TOL_BF16,
			      "shape %u, window %u", shape, window);
		if (shape == GK_SHAPE_STREAM && GPU_TURNS && test_ctx.smem_bytes >= 227u << 10)
			CHECK(memcmp(want.host, out.host, (size_t)b.n_rows * width * sizeof(float)) != 0, "not taken");
	}
}

GPU_TEST(blocks_of_any_shape_attend_alike)
{
	static const length deep[] = { { 700, 1 }, { 90, 2 } };
	static const length many[] = { { 70, 1 },  { 1, 1 },   { 300, 1 }, { 33, 2 }, { 64, 1 }, { 200, 4 },
		                       { 32, 16 }, { 150, 3 }, { 31, 1 },  { 65, 1 }, { 2, 2 },  { 129, 1 } };

	for (enum kn_dtype type : { KN_BF16, KN_F8_E4M3 }) {
		in_any_shape(type, deep, 2, 4, test_ctx.n_sm, 0);
		in_any_shape(type, many, 12, 4, 2, 0);
		in_any_shape(type, many, 12, 1, 5, 40);
		in_any_shape(type, many, 12, 7, 3, 0);
		in_any_shape(type, many, 12, 8, 4, 100);
	}
}
