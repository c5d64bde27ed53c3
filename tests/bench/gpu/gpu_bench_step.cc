/* gpu_bench: a whole decode step of 36 layers, and without some of its launches. */
#include "gpu_bench.h"

static const char *const part_names[] = { "q, k, v", "store", "attention", "o", "gate and up", "down", "head", "pick" };

void bench_step(int t, uint32_t n_seqs, uint32_t kv_len, const char *how, const unsigned *without)
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
