/* Attention of prompts by warpgroups, against kernels/ref on the same pages: on Hopper, and as a model on the host. */
#include "gpu_test_batch.h"

struct prompt_case {
	const length *lengths;
	uint32_t n_seqs, heads, n_kv, dim, page_tokens;
	bool sinks;
	uint32_t elem; /* of results */
	uint32_t gap;  /* elements between their rows */
	uint32_t window = 0;
	float softcap = 0.0f;
	bool eight = false; /* keys and values are e4m3 */
};

static enum kn_dtype type_of(const prompt_case &c)
{
	return c.eight ? KN_F8_E4M3 : KN_BF16;
}

static struct gk_attention attention_of(const prompt_case &c, const test_batch &b, test_rows &q, test_rows &out,
                                        const both<float> &sinks)
{
	struct gk_attention a = {};

	a.out = out.view();
	a.q = q.view();
	a.kv = b.kv;
	a.batch = &b.batch;
	a.n_head = c.heads;
	a.scale = 1.5f / sqrtf((float)c.dim);
	a.sinks = c.sinks ? sinks.device : nullptr;
	a.window = c.window;
	a.softcap = c.softcap;
	return a;
}

static void prompts(const prompt_case &c, int index)
{
	const uint32_t width = c.heads * c.dim, ld = width + c.gap;
	test_batch b(type_of(c), c.lengths, c.n_seqs, c.n_kv, c.dim, c.dim, false, c.page_tokens, c.heads / c.n_kv);
	test_rows q(GK_BF16, b.n_rows, width, width), out(c.elem, b.n_rows, width, ld),
	        other(c.elem, b.n_rows, width, ld);
	both<float> sinks(c.heads);
	float *want = (float *)malloc(sizeof(float) * b.n_rows * width);
	struct kn_attn ref = {};
	struct gk_attention a;
	const struct gk_ctx ctx = test_ctx;
	double d;

	CHECK(b.fits, "plan");
	q.random(1.0f);
	b.fill();
	b.poison();
	if (c.eight)
		b.with_scales();
	a = attention_of(c, b, q, out, sinks);
	test_normals(sinks.host, c.heads, 1.0f);
	sinks.up();
	ref.n_head = c.heads;
	ref.scale = a.scale;
	ref.sinks = c.sinks ? sinks.host : nullptr;
	ref.window = c.window;
	ref.softcap = c.softcap;
	test_ref->ops->attention(test_ref, want, width, q.host, q.ld, &b.ref_kv, b.seqs, b.n_seqs, &ref);
	CHECK(gk_attention(&test_ctx, &a) == 0, "attention");
	test_sync("attention");
	out.down();
	d = test_distance(out.host, out.ld, want, width, b.n_rows, width);
	CHECK(d < 8e-3, "case %d: %g", index, d); /* as of the other kernels: four roundings to bfloat16 */

	/* The kernel for all devices gives other bits where a row sees keys of two of its tiles (within one a device may
	 * give the same): so it was not that one. */
	a.out = other.view();
	test_ctx.sm = 0;
	CHECK(gk_attention(&test_ctx, &a) == 0, "the other kernel");
	test_ctx = ctx;
	test_sync("the other kernel");
	other.down();
	if (test_ctx.sm == 90 && c.elem == GK_F32)
		CHECK(memcmp(out.host, other.host, sizeof(float) * b.n_rows * ld) != 0, "case %d: not by warpgroups",
		      index);
	free(want);
}

/* From one row to more than a block takes, behind other tokens or none; ends of tiles, pages and items apart. */
static const length mixed[] = { { 300, 200 }, { 129, 129 }, { 20, 20 }, { 257, 40 }, { 128, 64 } };
static const length one[] = { { 150, 150 } };
static const length deep[] = { { 700, 33 }, { 513, 17 } };
/* New tokens on both sides of an edge of a tile of 64 keys that is none of 128. */
static const length astride[] = { { 715, 33 }, { 470, 40 } };

template <size_t N> static void each(const prompt_case (&cases)[N])
{
	for (size_t i = 0; i < N; i++)
		prompts(cases[i], (int)i);
}

GPU_TEST(prompts_attend_by_warpgroups)
{
	test_hopper device;
	const prompt_case cases[] = {
		{ mixed, 5, 8, 2, 128, 16, false, GK_F32, 0 }, { mixed, 5, 10, 2, 64, 32, true, GK_BF16, 0 },
		{ one, 1, 7, 1, 128, 8, false, GK_BF16, 4 },   { one, 1, 2, 2, 128, 256, false, GK_BF16, 8 },
		{ deep, 2, 16, 1, 128, 128, true, GK_F32, 4 }, { deep, 2, 4, 1, 64, 64, false, GK_F32, 0 },
		{ one, 1, 40, 2, 64, 32, false, GK_BF16, 0 },
	};

	each(cases);
}

/* Windows shorter and longer than a tile, of few keys, longer than what there is; without them where there is no such
 * kernel. With sinks, as gpt_oss has them. */
GPU_TEST(windows_by_warpgroups)
{
	test_hopper device;
	const prompt_case cases[] = {
		{ mixed, 5, 8, 2, 128, 16, false, GK_F32, 0, 100, 0, false },
		{ deep, 2, 8, 1, 64, 32, true, GK_BF16, 0, 128, 0, false },
		{ astride, 2, 4, 2, 128, 64, false, GK_F32, 4, 3, 0, false },
		{ one, 1, 3, 1, 64, 8, false, GK_F32, 0, 17, 0, false },
		{ deep, 2, 2, 2, 128, 32, true, GK_F32, 0, 300, 0, false },
		{ one, 1, 2, 2, 64, 32, false, GK_BF16, 0, 5000, 0, false },
	};

	each(cases);
}

/* A cap that most scores feel, and one that none does. */
GPU_TEST(scores_are_capped_by_warpgroups)
{
	test_hopper device;
	const prompt_case cases[] = {
		{ mixed, 5, 8, 2, 128, 16, false, GK_F32, 0, 0, 2.0f, false },
		{ deep, 2, 8, 2, 64, 32, true, GK_BF16, 0, 0, 50.0f, false },
		{ deep, 2, 4, 2, 128, 32, false, GK_F32, 0, 70, 3.0f, false },
		{ one, 1, 2, 1, 256, 32, false, GK_F32, 0, 40, 2.0f, false },
	};

	each(cases);
}

GPU_TEST(heads_of_256_by_warpgroups)
{
	test_hopper device;
	const prompt_case cases[] = {
		{ mixed, 5, 4, 2, 256, 16, false, GK_F32, 0, 0, 0, false },
		{ one, 1, 7, 1, 256, 8, true, GK_BF16, 4, 0, 0, false },
		{ deep, 2, 8, 1, 256, 128, false, GK_F32, 0, 90, 0, false },
	};

	each(cases);
}

/* A scale for each head; bytes beyond the end that are no numbers. */
GPU_TEST(prompts_attend_to_e4m3_by_warpgroups)
{
	test_hopper device;
	const prompt_case cases[] = {
		{ mixed, 5, 4, 2, 128, 16, false, GK_F32, 0, 0, 0, true },
		{ mixed, 5, 5, 1, 64, 32, true, GK_BF16, 0, 0, 0, true },
		{ deep, 2, 8, 2, 128, 32, true, GK_F32, 4, 129, 0, true },
		{ one, 1, 2, 2, 128, 256, false, GK_BF16, 8, 0, 0, true },
		{ one, 1, 3, 1, 256, 32, false, GK_F32, 0, 0, 0, true },
		{ one, 1, 3, 1, 64, 8, false, GK_F32, 0, 30, 0, true },
	};

	each(cases);
}

/* Blocks take items from a counter, or in a fixed order where there is none: the same bits, and it is zero again. */
GPU_TEST(warpgroups_take_items_in_any_order)
{
	test_hopper device;
	const prompt_case c = { mixed, 5, 8, 2, 128, 16, false, GK_F32, 0 };
	test_batch b(KN_BF16, c.lengths, c.n_seqs, c.n_kv, c.dim, c.dim, false, c.page_tokens, c.heads / c.n_kv);
	test_rows q(GK_BF16, b.n_rows, 1024, 1024), counted(GK_F32, b.n_rows, 1024, 1024),
	        fixed(GK_F32, b.n_rows, 1024, 1024);
	both<float> sinks(1);
	struct gk_attention a = attention_of(c, b, q, counted, sinks);
	uint32_t *const counters = test_ctx.counters;
	uint32_t left = 1;

	q.random(1.0f);
	b.fill();
	test_ctx.n_sm = 7;
	for (int round = 0; round < 2; round++) {
		CHECK(gk_attention(&test_ctx, &a) == 0, "counted");
		test_sync("counted");
		(void)gpu_copy_out(&left, counters, sizeof(left));
		CHECK(left == 0, "the counter is %u", left);
	}
	counted.down();
	test_ctx.counters = nullptr;
	a.out = fixed.view();
	CHECK(gk_attention(&test_ctx, &a) == 0, "fixed");
	test_sync("fixed");
	fixed.down();
	CHECK(memcmp(counted.host, fixed.host, sizeof(float) * b.n_rows * 1024) == 0, "other bits");
}

/* A prompt in one piece, and its end in pieces of any length. */
static void in_pieces(const prompt_case &c)
{
	static const length pieces[][1] = { { { 300, 1 } }, { { 300, 9 } }, { { 290, 97 } }, { { 141, 61 } } };
	const uint32_t width = c.heads * c.dim, group = c.heads / c.n_kv;

	test_ctx.fixed = true;
	test_answer_rows = 0;
	for (const length *piece : pieces) {
		test_batch whole(type_of(c), c.lengths, 1, c.n_kv, c.dim, c.dim, false, c.page_tokens, group),
		        part(type_of(c), piece, 1, c.n_kv, c.dim, c.dim, false, c.page_tokens, group);
		const uint32_t n = piece->n_q, first = piece->kv_len - n - (c.lengths->kv_len - c.lengths->n_q);
		test_rows q(GK_BF16, 220, width, width), out(GK_F32, 220, width, width),
		        out_part(GK_F32, 220, width, width);
		both<float> sinks(1);
		struct gk_attention a = attention_of(c, whole, q, out, sinks);

		q.random(1.0f);
		whole.fill();
		CHECK(gk_attention(&test_ctx, &a) == 0, "whole");
		part.kv.k = whole.kv.k;
		part.kv.v = whole.kv.v;
		part.batch.pages = whole.batch.pages;
		a.kv = part.kv;
		a.batch = &part.batch;
		a.q.p = (gpu_bf16 *)a.q.p + (size_t)first * width;
		a.out = out_part.view();
		CHECK(gk_attention(&test_ctx, &a) == 0, "part");
		test_sync("part");
		out.down();
		out_part.down();
		CHECK(memcmp(out.host + (size_t)first * width, out_part.host, sizeof(float) * n * width) == 0,
		      "%u tokens from %u", n, first);
	}
	test_answer_rows = UINT32_MAX;
}

GPU_TEST(a_prompt_attends_the_same_bits_in_pieces_by_warpgroups)
{
	static const length all[] = { { 300, 220 } };
	test_hopper device;

	in_pieces({ all, 1, 8, 2, 128, 16, false, GK_F32, 0, 0, 0, false });
	in_pieces({ all, 1, 2, 1, 64, 16, false, GK_F32, 0, 70, 0, false });
	in_pieces({ all, 1, 2, 1, 128, 16, false, GK_F32, 0, 50, 2.0f, false });
	in_pieces({ all, 1, 2, 1, 64, 16, false, GK_F32, 0, 0, 0, true });
}
