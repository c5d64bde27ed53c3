/* Positions, and keys and values on their way to pages, against kernels/ref on the same pages. */
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
