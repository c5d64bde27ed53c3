/* Attention, against kernels/ref on the same pages. */
#include <errno.h>

#include "gpu/gpu_tile.h"

#include "gpu_test_batch.h"

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
